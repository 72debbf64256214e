"""`credit-risk reviews`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import served, toys
from tests.commands import (
    Outcome,
    Place,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


def test_what_waits_for_people_is_listed_the_oldest_first(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """With who has claimed it, and what waits for a second person; in pages, and by state."""
    referred = toys.SAFE | {"years_employed": None}
    with served.serving(trees_package, place.state) as server:
        ids = [
            server.post("/predict", application).json()["decision_id"]
            for application in (referred, toys.RISKY, referred)
        ]
        server.post(f"/decisions/{ids[0]}/claim", {"reviewer": "ada"})
        said = {"reviewer": "ben", "decision": "APPROVE", "reason": "COMPENSATING_FACTORS"}
        server.post(f"/decisions/{ids[1]}/review", said | {"note": "Known for years."})

    lines = run("reviews", "list").out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ids
    assert [line.split()[2] for line in lines] == ["claimed", "proposed", "open"]
    assert "ada" in lines[0]
    assert lines[1].rstrip().endswith("APPROVE by ben")
    rows = run("reviews", "list", "--json", "--limit", "1", "--after", ids[1]).json()
    assert [row["decision_id"] for row in rows] == [ids[2]]
    assert [r["holder"] for r in run("reviews", "list", "--state", "claimed", "--json").json()] == [
        "ada"
    ]
    refused(run("reviews", "list", "--after", "x"), 3, "no decision")


def test_overrides_are_summed_up(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """By direction, with the rate and the reasons; as JSON too."""
    with served.serving(trees_package, place.state) as server:
        declined = server.post("/predict", toys.RISKY).json()["decision_id"]
        said = {"decision": "APPROVE", "reason": "COMPENSATING_FACTORS", "note": "Known for years."}
        for name in ("ada", "ben"):
            server.post(f"/decisions/{declined}/review", said | {"reviewer": name})

    assert run("reviews", "summary").out.splitlines() == [
        f"{toys.NAME}: 1 reviews closed (1 approved, 0 declined), 0 waiting now",
        "  low-side: 1 of 1 decisions of DECLINE (100.00%): COMPENSATING_FACTORS 1",
    ]
    told = run("reviews", "summary", "--since", "2100-01-01", "--json").json()
    assert (told["overrides"], told["since"]) == ([], "2100-01-01T00:00:00.000000Z")


def test_no_records_are_no_reviews(run: Callable[..., Outcome], place: Place) -> None:
    """A portfolio's name that is mistyped is told first."""
    refused(run("reviews", "list"), 3, "no records yet")
    refused(run("reviews", "summary", "--portfolio", "tricycles"), 3, "no portfolio 'tricycles'")
    assert not place.state.exists()
