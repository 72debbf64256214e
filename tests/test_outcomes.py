"""Outcomes: on record about their decisions, row by row, and in a table that says the same."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from credit_risk import outcomes
from credit_risk.audit import erasure, retention
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.records import instant
from credit_risk.audit.tables import OUTCOMES, RECORDS
from credit_risk.bodies import Repeating
from credit_risk.decisions import Call, new_id
from credit_risk.errors import Conflict, KeysInvalid, RecordNotFound
from credit_risk.outcomes import AT_ONCE, STATES, add
from tests import toys
from tests.audit.test_checkpoints import altered
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from credit_risk.outcomes import Outcome
    from credit_risk.package import ModelPackage

MONTH = 30 * 86_400_000_000
LATER = NOON + 12 * MONTH
OBSERVED = instant(NOON + 11 * MONTH).date()
NOWHERE = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"


class Lender:
    """A log with decisions in it, and who learns later what became of them."""

    def __init__(self, log: SqlAuditLog, package: ModelPackage) -> None:
        self.log = log
        records = decided(package, [toys.SAFE, toys.RISKY, toys.SAFE])
        log.append(records).result()
        self.ids = [record.id for record in records]
        self.records = records
        self.now = LATER

    def say(self, *rows: object, portfolio: str = toys.NAME) -> list[dict[str, Any]]:
        """Report outcomes, a day after the last time; what became of each row."""
        self.now += MONTH // 30
        call = Call("/outcomes", "r-7", at=self.now)
        return [result.to_json() for result in add(self.log, portfolio, rows, call, by="ada")]

    def states(self, *rows: object) -> list[str]:
        """What became of each row, in a word."""
        return [result["state"] for result in self.say(*rows)]

    def listed(self) -> list[dict[str, Any]]:
        """The table."""
        return outcomes.listed(self.log, toys.NAME)

    def differing(self) -> list[tuple[str, str]]:
        """Decision and kind of each difference."""
        found = outcomes.differences(self.log)
        return sorted((one.decision_id, one.kind) for one in found)


def told(decision_id: str, *, defaulted: bool = False, observed: date = OBSERVED) -> dict[str, Any]:
    """A row as somebody sends it."""
    return {"decision_id": decision_id, "defaulted": defaulted, "observed": str(observed)}


@pytest.fixture
def lender(tmp_path: Path, trees_package: ModelPackage) -> Iterator[Lender]:
    """A lender's log in SQLite."""
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as log:
        yield Lender(log, trees_package)


@pytest.fixture
def any_lender(any_url: str, trees_package: ModelPackage) -> Iterator[Lender]:
    """A lender's log on each kind of database."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        yield Lender(log, trees_package)


def test_an_outcome_is_a_record_about_its_decision_and_a_row(any_lender: Lender) -> None:
    """Beside what was decided then, which is what it will be compared with."""
    one, two, _ = any_lender.ids
    assert any_lender.states(told(one), told(two, defaulted=True)) == ["recorded", "recorded"]

    (record,) = any_lender.log.find(about=two)
    assert (record.kind, record.body) == ("outcome", {"number": 1, "by": "ada"})
    assert record.model_version == any_lender.records[1].model_version
    assert record.personal == {"defaulted": True, "observed": str(OBSERVED)}
    by_id = {row["decision_id"]: row for row in any_lender.listed()}
    assert set(by_id) == {one, two}
    body = any_lender.records[1].body
    assert by_id[two]["defaulted"] is True
    assert by_id[two]["probability_of_default"] == body["probability_of_default"]
    assert by_id[two]["risk_band"] == body["risk_band"]
    assert by_id[two]["corrections"] == 0
    assert any_lender.differing() == []


def test_a_correction_leaves_what_was_said_before_on_record(any_lender: Lender) -> None:
    """The newest first; said again, it changes nothing."""
    one = any_lender.ids[0]
    any_lender.say(told(one))
    assert any_lender.states(told(one, defaulted=True)) == ["corrected"]
    assert any_lender.states(told(one, defaulted=True)) == ["unchanged"]

    history = outcomes.history(any_lender.log, toys.NAME, one)
    assert [(row["number"], row["defaulted"]) for row in history] == [(2, True), (1, False)]
    (row,) = any_lender.listed()
    assert (row["defaulted"], row["corrections"]) == (True, 1)
    assert any_lender.differing() == []


@pytest.mark.parametrize("row", [None, "\u0662", ["\u0662"], {"observed": "\u0662026-11-22"}])
def test_what_is_wrong_with_a_row_is_told_without_it(lender: Lender, row: object) -> None:
    """Nor does the program's own name for it stand there."""
    given = {**told(lender.ids[0]), **row} if isinstance(row, dict) else row
    (result,) = lender.say(given)

    assert result["state"] == "invalid"
    (error,) = result["errors"]
    assert error["detail"] in {"Input should be an object", "give a day as 2026-11-22"}


def test_each_row_is_judged_by_itself(lender: Lender) -> None:
    """A wrong one keeps no other from being recorded, and every state is met."""
    one, two, three = lender.ids
    lender.say(told(one))
    lender.say(told(two))
    elsewhere = replace(lender.records[0], id=new_id(), portfolio="tricycle-leases")
    lender.log.append([elsewhere]).result()
    rows = [
        told(NOWHERE),
        told(one),
        told(two, defaulted=True),
        told(three),
        told(elsewhere.id),
        {"decision_id": one.upper(), "defaulted": True, "observed": str(OBSERVED)},
        "nothing",
    ]
    assert lender.states(*rows) == [
        *("unknown", "unchanged", "corrected", "recorded", "unknown", "invalid", "invalid")
    ]
    assert lender.states(told(one), told(one, defaulted=True), told(two)) == [
        *("duplicate", "duplicate", "corrected")
    ]
    terms = retention.Terms(25, lender.now + MONTH)
    retention.take(lender.log, lender.log, terms, by="clerk", progress=lambda *_: None)
    assert lender.states(told(one)) == ["expired"]
    assert set(STATES) >= {"recorded", "corrected", "unchanged", "duplicate", "unknown", "expired"}


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"defaulted": 1}, "/defaulted"),
        ({"defaulted": "yes"}, "/defaulted"),
        ({"observed": 20_260_101}, "/observed"),
        ({"observed": "2026-13-45"}, "/observed"),
        ({"observed": "2023-W50-1"}, "/observed"),
        ({"observed": "2023-12-01T00:00:00Z"}, "/observed"),
        ({"decision_id": f"{NOWHERE}\n"}, "/decision_id"),
        ({"decision_id": 7}, "/decision_id"),
        ({"surname": "Sentinel-6021023"}, "/surname"),
    ],
)
def test_what_is_wrong_with_a_row_is_named_without_its_value(
    lender: Lender, changed: dict[str, object], pointer: str
) -> None:
    """By the place in it; nothing is recorded."""
    (result,) = lender.say(told(lender.ids[0]) | changed)

    assert result["state"] == "invalid"
    assert [error["pointer"] for error in result["errors"]] == [pointer]
    assert "Sentinel" not in str(result)
    assert "2026-13" not in str(result)
    assert lender.log.count(kind="outcome") == 0


def test_a_field_given_twice_is_refused(lender: Lender) -> None:
    """Two readers could take either."""
    row = Repeating([*told(lender.ids[0]).items(), ("defaulted", True)])

    (result,) = lender.say(row)
    assert result["decision_id"] == lender.ids[0]
    assert result["errors"] == [{"pointer": "/defaulted", "detail": "Given more than once"}]


def test_a_day_before_the_decision_or_in_the_future_is_refused(lender: Lender) -> None:
    """But for a day, by which calendars differ around the world."""
    one, day = lender.ids[0], timedelta(days=1)
    decided_on = instant(NOON).date()
    today = instant(lender.now).date() + day

    assert lender.states(told(one, observed=decided_on - 2 * day)) == ["invalid"]
    (late,) = lender.say(told(one, observed=today + 5 * day))
    assert late["errors"] == [{"pointer": "/observed", "detail": "The day is in the future"}]
    assert lender.states(told(one, observed=decided_on - day)) == ["recorded"]


def test_more_rows_than_a_transaction_takes_are_all_recorded(
    lender: Lender, trees_package: ModelPackage
) -> None:
    """In order, and a duplicate is found over all of them."""
    made = decided(trees_package, [toys.SAFE] * (AT_ONCE + 3))
    lender.log.append(made).result()
    rows = [told(record.id) for record in made]

    states = lender.states(*rows, told(made[0].id))
    assert states == ["duplicate", *(["recorded"] * (len(made) - 1)), "duplicate"]
    assert lender.log.count(kind="outcome") == len(made) - 1


def test_who_is_second_looks_again(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody records an outcome of the decision between reading and writing."""
    one = lender.ids[0]
    look = outcomes._found  # noqa: SLF001 - the moment between
    first = [lambda: lender.say(told(one))]

    def found(connection: sa.Connection, rows: Sequence[Outcome]) -> object:
        seen = look(connection, rows)
        if first:
            first.pop()()
        return seen

    monkeypatch.setattr(outcomes, "_found", found)
    assert lender.states(told(one, defaulted=True)) == ["corrected"]
    assert lender.log.count(kind="outcome") == 2
    assert lender.differing() == []


def test_who_is_always_second_is_told(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some tries."""
    lender.say(told(lender.ids[0]))
    look = outcomes._found  # noqa: SLF001 - the moment between

    def stale(connection: sa.Connection, rows: Sequence[Outcome]) -> object:
        return {one: (decision, None) for one, (decision, _) in look(connection, rows).items()}

    monkeypatch.setattr(outcomes, "_found", stale)
    with pytest.raises(Conflict, match="try again"):
        lender.say(told(lender.ids[0], defaulted=True))
    assert lender.log.count(kind="outcome") == 1


def test_outcomes_are_listed_by_the_time_of_their_decision(lender: Lender) -> None:
    """And by the package that decided."""
    one, two, three = lender.ids
    lender.say(told(one), told(two), told(three))

    found = partial(outcomes.listed, lender.log, toys.NAME)
    second = NOON + 1_000_000

    def ids(rows: list[dict[str, Any]]) -> list[str]:
        return [row["decision_id"] for row in rows]

    assert ids(found(limit=2)) == [three, two]
    assert ids(found(since=second, until=LATER)) == [three, two]
    assert ids(found(until=second)) == [one]
    version = str(lender.records[0].model_version)
    assert ids(found(model_version=version)) == [three, two, one]
    assert found(model_version="0" * 12) == []


def test_what_can_be_learned_of_are_applications_with_an_outcome(any_lender: Lender) -> None:
    """In the order of decisions, as the last outcome says; erased ones have nothing in them."""
    one, two, _ = any_lender.ids
    any_lender.say(told(two, defaulted=True), told(one, defaulted=True))
    any_lender.say(told(one))

    found = list(outcomes.labelled(any_lender.log, toys.NAME))
    assert [(row.application, row.defaulted) for row in found] == [
        (toys.SAFE, False),
        (toys.RISKY, True),
    ]
    second = NOON + 1_000_000
    assert [row.decided for row in found] == [NOON, second]
    assert list(outcomes.labelled(any_lender.log, toys.NAME, since=second)) == found[1:]
    assert list(outcomes.labelled(any_lender.log, toys.NAME, until=second)) == found[:1]
    assert list(outcomes.labelled(any_lender.log, "tricycle-leases")) == []

    altered(any_lender.log, sa.update(RECORDS).where(RECORDS.c.id == one).values(data_key=None))
    first, _ = outcomes.labelled(any_lender.log, toys.NAME)
    assert first.application is None


def test_there_is_no_history_of_what_is_no_decision(lender: Lender) -> None:
    """Nor of another portfolio's."""
    for portfolio, one in ((toys.NAME, NOWHERE), ("tricycle-leases", lender.ids[0])):
        with pytest.raises(RecordNotFound):
            outcomes.history(lender.log, portfolio, one)


def test_a_table_that_is_not_what_the_records_say_is_named_and_made_anew(lender: Lender) -> None:
    """What is missing, what is different, and what should not be there."""
    one, two, three = lender.ids
    lender.say(told(one), told(two))
    lender.say(told(two, defaulted=True))
    before = lender.listed()
    row = sa.select(OUTCOMES).where(OUTCOMES.c.decision_id == two)
    with lender.log.reading() as connection:
        extra = connection.execute(row).one()._asdict() | {"decision_id": three}
    altered(lender.log, sa.delete(OUTCOMES).where(OUTCOMES.c.decision_id == one))
    altered(lender.log, sa.update(OUTCOMES).values(defaulted=0, pd=0.5))
    altered(lender.log, sa.insert(OUTCOMES).values(extra))

    found = {one.decision_id: one for one in outcomes.differences(lender.log)}
    assert {key: one.kind for key, one in found.items()} == {
        one: "missing",
        two: "different",
        three: "extra",
    }
    assert found[two].detail == "has another pd, defaulted in the table"
    number = lender.log.count()
    assert outcomes.rebuild(lender.log, lender.log) == {"missing": 1, "different": 1, "extra": 1}
    assert lender.listed() == before
    assert lender.differing() == []
    assert lender.log.count() == number


def test_an_outcome_recorded_meanwhile_is_no_difference(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table and records were read at different moments."""
    one = lender.ids[0]
    lender.say(told(one))
    left = [lambda: lender.say(told(one, defaulted=True))]
    look = outcomes._wanted  # noqa: SLF001 - the moment between

    def wanted(records: SqlRecords, connection: sa.Connection, ids: Sequence[str]) -> object:
        if left:
            left.pop()()
        return look(records, connection, ids)

    monkeypatch.setattr(outcomes, "_wanted", wanted)
    assert lender.differing() == []
    assert left == []


def test_a_record_that_is_no_outcome_leads_nowhere(lender: Lender) -> None:
    """Whether it is whole is the chain's to say."""
    lender.say(told(lender.ids[0]))
    ours = sa.update(RECORDS).where(RECORDS.c.kind == "outcome")
    for changed in (
        {"body": "[]"},
        {"body": sa.text("CAST(X'FF' AS TEXT)")},
        {"sealed": b"\0" * 40},
        {"data_key": sa.text("'no bytes'")},
    ):
        altered(lender.log, ours.values(changed))
        assert lender.differing() == [(lender.ids[0], "extra")]


def test_retention_waits_for_outcomes_and_takes_them_along(any_lender: Lender) -> None:
    """A decision is kept as long as what became of it."""
    any_lender.say(told(any_lender.ids[0]))
    log = any_lender.log

    def take(before: int) -> dict[str, int]:
        terms = retention.Terms(25, before)
        return retention.take(log, log, terms, by="clerk", progress=lambda *_: None)

    states = {row.state: row.number for row in retention.report(log, retention.Terms(25, LATER))}
    assert states == {"outcome since": 1, "due": 2}
    assert take(LATER) == {"decision": 2}
    assert len(any_lender.listed()) == 1
    assert take(any_lender.now + 1) == {"decision": 1, "outcome": 1}
    assert any_lender.listed() == []
    assert any_lender.differing() == []


def erase(log: SqlAuditLog, one: str) -> None:
    """Erase the personal data of a record, and of those about it."""
    erasure.erase(log, log, [one], by="clerk", reason="asked", progress=lambda *_: None)


def test_an_erasure_takes_what_became_of_a_decision(any_lender: Lender) -> None:
    """It says what the person did. That there were outcomes stays, and no more are taken."""
    one, two, _ = any_lender.ids
    any_lender.say(told(one), told(two))
    any_lender.say(told(one, defaulted=True))
    erase(any_lender.log, one)

    assert any_lender.log.get(one).withheld == "erased"
    assert [row["decision_id"] for row in any_lender.listed()] == [two]
    history = outcomes.history(any_lender.log, toys.NAME, one)
    assert [(row["number"], row["defaulted"], row["observed"]) for row in history] == [
        (2, None, None),
        (1, None, None),
    ]
    assert any_lender.states(told(one)) == ["erased"]
    assert any_lender.differing() == []
    assert outcomes.rebuild(any_lender.log, any_lender.log) == {}


def test_an_outcome_can_be_erased_alone(lender: Lender) -> None:
    """Nothing is known of the decision then, until somebody says it again."""
    one = lender.ids[0]
    lender.say(told(one))
    lender.say(told(one, defaulted=True))
    erase(lender.log, outcomes.history(lender.log, toys.NAME, one)[0]["record"])

    assert (lender.listed(), lender.differing()) == ([], [])
    assert lender.log.get(one).withheld is None


def test_who_is_erased_between_reading_and_writing_has_no_outcome(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again."""
    one = lender.ids[0]
    look = outcomes._found  # noqa: SLF001 - the moment between

    def found(connection: sa.Connection, rows: Sequence[Outcome]) -> object:
        seen = look(connection, rows)
        if lender.log.get(one).withheld is None:
            erase(lender.log, one)
        return seen

    monkeypatch.setattr(outcomes, "_found", found)
    assert lender.states(told(one)) == ["erased"]
    assert lender.log.count(kind="outcome") == 0


def test_without_its_key_an_outcome_is_compared_with_nothing(
    lender: Lender, tmp_path: Path
) -> None:
    """That is said, and the table is left as it is."""
    lender.say(told(lender.ids[0]))
    before = lender.listed()
    with closing(SqlRecords(f"sqlite:///{tmp_path / 'records.db'}", None)) as records:
        with pytest.raises(KeysInvalid, match="one is not given"):
            list(outcomes.differences(records))
        with pytest.raises(KeysInvalid, match="one is not given"):
            outcomes.rebuild(records, lender.log)
    assert lender.listed() == before
