"""`credit-risk outcomes` and `credit-risk audit outcomes`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from credit_risk.cli import opening
from tests import toys
from tests.commands import Outcome, Place, decide, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage

NOWHERE = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"
TODAY = datetime.now(UTC).date().isoformat()


def file(place: Place, *rows: str, header: str = "decision_id,defaulted,observed") -> str:
    """A file of these rows."""
    path = place.folder / "outcomes.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_a_file_of_outcomes_is_recorded_row_by_row(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Who is named wrongly is told by row; what stands is listed, and held against the records."""
    one, two = decide(place, trees_package, toys.SAFE, toys.RISKY)
    rows = file(place, f"{one},0,{TODAY}", f"{two},Yes,{TODAY}", f"{NOWHERE},1,{TODAY}", ",x,y")

    told = run("outcomes", "add", rows)
    assert told.code == 1
    lines = told.out.splitlines()
    assert lines[0] == "row 3: no decision of this portfolio has the id"
    assert lines[1].startswith("row 4: /decision_id: ")
    assert "/defaulted: Input should be a valid boolean; /observed: " in lines[1]
    assert lines[2:] == ["recorded 2, unknown 1, invalid 1"]
    again = run("outcomes", "add", rows, "--json").json()
    assert again["states"] == {"unchanged": 2, "unknown": 1, "invalid": 1}
    assert [row["row"] for row in again["refused"]] == [3, 4]

    listed = run("outcomes", "list", "--json").json()
    assert {row["decision_id"]: row["defaulted"] for row in listed} == {one: False, two: True}
    assert run("audit", "outcomes").out == "outcomes: as the records say\n"


def test_one_outcome_is_recorded_and_corrected(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Its history has both, the newest first."""
    (one,) = decide(place, trees_package, toys.SAFE)
    said = ("outcomes", "add", "--decision", one, "--observed", TODAY)

    assert run(*said, "--paid").out == "recorded 1\n"
    assert run(*said, "--defaulted").out == "corrected 1\n"
    history = run("outcomes", "list", "--decision", one, "--json").json()
    assert [row["defaulted"] for row in history] == [True, False]
    header, *lines = run("outcomes", "list", "--decision", one).out.splitlines()
    assert header.split()[0] == "record"
    assert [" yes " in line for line in lines] == [True, False]
    assert run("decisions", "list", "--kind", "outcome", "--json").json()[0]["about"] == one


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("--decision", NOWHERE),
        ("--decision", NOWHERE, "--paid"),
        ("x.csv", "--paid"),
    ],
)
def test_half_an_outcome_is_wrong_usage(
    run: Callable[..., Outcome], place: Place, given: tuple[str, ...]
) -> None:
    """Nothing is made."""
    assert run("outcomes", "add", *given).code == 2
    assert not place.state.exists()


def test_a_file_that_is_none_of_outcomes_is_refused(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a whole, before anything is recorded."""
    (one,) = decide(place, trees_package, toys.SAFE)
    whole = f"{one},0,{TODAY}"
    add = ("outcomes", "add")

    refused(run(*add, "nowhere.csv"), 3, "nowhere.csv does not exist")
    refused(run(*add, file(place, whole, header="id,defaulted,observed")), 1, "the columns are")
    refused(run(*add, file(place, whole, f"{one},0")), 1, "row 2 has too few or too many")
    refused(run(*add, file(place, f'{one},"0,{TODAY}')), 1, "not a CSV file")
    monkeypatch.setattr(opening, "ROWS_MAX", 1)
    refused(run(*add, file(place, whole, whole)), 1, "more than 1 rows")
    assert run("outcomes", "list", "--json").json() == []
    assert run("outcomes", "list").out.strip() == ""


def test_no_records_have_no_outcomes(run: Callable[..., Outcome], place: Place) -> None:
    """And none are made."""
    refused(run("outcomes", "add", file(place, f"{NOWHERE},0,{TODAY}")), 3, "no records yet")
    assert not place.state.exists()


def test_a_table_that_is_otherwise_is_named_and_made_anew(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The records are the evidence, and stay."""
    (one,) = decide(place, trees_package, toys.SAFE)
    run("outcomes", "add", file(place, f"{one},0,{TODAY}"))
    with closing(sqlite3.connect(place.state / "records.db")) as database, database:
        database.execute("UPDATE outcomes SET defaulted = 1")

    told = run("audit", "outcomes")
    assert told.code == 6
    assert told.out == f"outcomes: different: decision {one} has another defaulted in the table\n"
    assert run("audit", "outcomes", "--json").json()["differences"] == 1
    verified = run("audit", "verify")
    assert verified.code == 6
    assert "; whole\n" in verified.out
    assert told.out in verified.out
    assert "credit-risk audit outcomes --rebuild" in verified.err
    found = run("audit", "verify", "--json").json()["outcomes"]
    assert (found["differences"], found["rows"][0]["decision_id"]) == (1, one)
    assert run("audit", "outcomes", "--rebuild").out == (
        "outcomes: mended 1 rows\noutcomes: as the records say\n"
    )
    assert run("audit", "verify").code == 0
    monkeypatch.delenv("CREDIT_RISK_ENCRYPTION_KEYS")
    shut = run("audit", "verify", "--json")
    assert (shut.code, shut.json()["outcomes"]["differences"]) == (0, None)
    assert "the table of outcomes was NOT compared" in " ".join(shut.json()["notes"])
