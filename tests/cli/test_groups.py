"""`credit-risk groups`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import toys
from tests.commands import Outcome, Place, decide, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


def test_groups_of_a_file_are_kept_under_a_key_of_their_own(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Who is named wrongly is told by row; nothing of it is on record."""
    one, two = decide(place, trees_package, toys.SAFE, toys.RISKY)
    file = place.folder / "groups.csv"
    file.write_text(f"decision_id,value\n{one},f\n{two},m\nnobody,f\n", encoding="utf-8")
    add = ("groups", "add", str(file), "--attribute", "sex")

    told = run(*add)
    assert told.code == 1
    assert told.out.splitlines() == [
        "row 3: no decision of this portfolio has the id, or retention has taken it",
        "kept 2, unknown 1",
    ]
    again = run(*add, "--json").json()
    assert again == {
        "rows": 3,
        "states": {"unchanged": 2, "unknown": 1},
        "refused": [{"row": 3, "state": "unknown"}],
    }
    assert (place.state / "keys" / "groups-keys").stat().st_mode & 0o077 == 0
    assert len(run("decisions", "list", "--all", "--json").json()) == 2


def test_what_is_no_file_of_groups_is_refused(run: Callable[..., Outcome], place: Place) -> None:
    """And an attribute that is no name, and a log that is not there."""
    file = place.folder / "groups.csv"
    file.write_text("decision_id,sex\n", encoding="utf-8")
    add = ("groups", "add", str(file), "--attribute")

    assert run(*add, "The sex").code == 2
    refused(run(*add, "sex"), 1, "the columns are decision_id, value")
    file.write_text("decision_id,value\n", encoding="utf-8")
    refused(run(*add, "sex"), 3, "no records yet")
    assert not place.state.exists()
