"""Retention: what is old enough goes, case by case, and leaves its place in the chain."""

from __future__ import annotations

import threading
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from credit_risk.audit import retention
from credit_risk.audit.erasure import erase, find
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.retention import (
    HELD_MOST,
    NEVER,
    Row,
    Terms,
    doubts,
    months_before,
    released,
    report,
    take,
)
from credit_risk.audit.tables import RECORDS, REVIEWS
from credit_risk.errors import Conflict, DataInvalid, RecordExpired, RecordNotFound
from tests.audit.tampering import id_of
from tests.audit.test_log import NOON, made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.audit.records import Record

DAY = 86_400_000_000
TERMS = Terms(25, NOON)
LEFT = {"sequence", "id", "kind", "previous", "hash"}


@pytest.fixture
def log(any_url: str) -> Iterator[SqlAuditLog]:
    """An empty audit log."""
    with closing(SqlAuditLog(any_url, SEALING)) as opened:
        yield opened


def old(kind: str = "decision", *, days: int = 1, **fields: object) -> Record:
    """A record of so many days before the cut-off; a few days after it if less than 0."""
    usual = {"personal": {"input": {"age": 40}}, "time": NOON - days * DAY}
    return made(kind=kind, **(usual | fields))


def review(decision: Record, days: int, kind: str = "review") -> Record:
    """A step of a review of a decision."""
    return old(kind, days=days, about=decision.id, decision=None, personal={"note": "known"})


def taken(log: SqlAuditLog, terms: Terms = TERMS) -> dict[str, int]:
    """How many of each kind were taken."""
    return take(log, log, terms, by="auditor", progress=lambda *_: None)


def rows(log: SqlRecords) -> dict[str, dict[str, Any]]:
    """All rows, by id, in order of the chain."""
    with log.reading() as connection:
        found = connection.execute(sa.select(RECORDS).order_by(RECORDS.c.sequence))
        return {row.id: row._asdict() for row in found}


def waiting(log: SqlRecords) -> list[str]:
    """The decisions that wait for a reviewer."""
    with log.reading() as connection:
        return list(connection.execute(sa.select(REVIEWS.c.decision_id)).scalars())


def close(log: SqlAuditLog, *decisions: Record) -> None:
    """Take decisions out of the queue of reviews."""
    ids = [decision.id for decision in decisions]
    delete = sa.delete(REVIEWS).where(REVIEWS.c.decision_id.in_(ids))
    log.append((), alongside=lambda connection: (connection.execute(delete), None)[1]).result()


def gone(log: SqlRecords) -> set[str]:
    """The ids of which nothing but their place is left."""
    found = set()
    for record_id, row in rows(log).items():
        left = {name for name, value in row.items() if value is not None}
        if left == LEFT:
            found.add(record_id)
        else:
            assert row["body"] is not None
    return found


def covered(log: SqlRecords) -> set[str]:
    """The ids within the ranges of retention's records."""
    table = rows(log)
    ranges = [span for record in log.find(kind="retention") for span in record.body["sequences"]]
    return {
        record_id
        for record_id, row in table.items()
        if any(first <= row["sequence"] <= last for first, last in ranges)
    }


def test_what_is_older_goes_and_leaves_its_place(log: SqlAuditLog) -> None:
    """Of decisions, refusals and failures; what is as old as the cut-off is not older."""
    due = [old(kind) for kind in ("decision", "refusal", "failure")]
    kept = [old(days=0), *(old(kind, body={"sequences": []}) for kind in NEVER)]
    log.append([due[0], kept[0], *due[1:], *kept[1:]]).result()
    before = rows(log)

    assert taken(log) == {"decision": 1, "refusal": 1, "failure": 1}

    after = rows(log)
    assert gone(log) == covered(log) == {record.id for record in due}
    assert all(after[r.id] == before[r.id] for r in kept)
    assert all(after[i][name] == before[i][name] for i in before for name in LEFT)
    with pytest.raises(RecordExpired):
        log.get(due[0].id)
    with pytest.raises(RecordExpired):
        log.find(before=due[0].id)
    assert log.find(kind="decision") == kept[:1]


def test_what_was_taken_is_on_record(log: SqlAuditLog) -> None:
    """By whom, on what terms, and where in the chain: ranges of rows that follow each other."""
    log.append([old(), old(), old(days=-1), old(), old(portfolio="other")]).result()

    taken(log)

    others, toys = sorted(log.find(kind="retention"), key=lambda record: record.portfolio)
    assert (toys.portfolio, others.portfolio) == ("toy", "other")
    assert toys.body == {
        "by": "auditor",
        "months": 25,
        "before": "2027-01-15T08:00:00Z",
        "open_reviews": False,
        "held": 0,
        "trust_clock": False,
        "records": {"decision": 3},
        "sequences": [[1, 2], [4, 4]],
        "held_sequences": [],
    }
    assert others.body["sequences"] == [[5, 5]]


def test_a_case_goes_as_a_whole_when_its_last_step_is_old(log: SqlAuditLog) -> None:
    """The period counts from when the applicant was told, which is after the review."""
    reviewed, since = old(days=9), old(days=9)
    steps = [review(reviewed, 8, "claim"), review(reviewed, 7), review(since, -1)]
    log.append([reviewed, since, *steps]).result()

    assert report(log, TERMS) == [
        Row("toy", "decision", "due", 1, reviewed.time, reviewed.time),
        Row("toy", "decision", "reviewed since", 1, since.time, since.time),
        Row("toy", "claim", "due", 1, steps[0].time, steps[0].time),
        Row("toy", "review", "due", 1, steps[1].time, steps[1].time),
    ]
    assert taken(log) == {"decision": 1, "claim": 1, "review": 1}

    assert gone(log) == {reviewed.id, steps[0].id, steps[1].id}
    assert log.get(since.id) == since


def test_what_waits_for_a_reviewer_stays_unless_it_is_forced(log: SqlAuditLog) -> None:
    """Then nobody finds it in the queue any more."""
    decisions = [old(decision="REVIEW", days=9), old(decision="REVIEW"), old(decision="REVIEW")]
    log.append(decisions).result()
    close(log, decisions[0])

    states = [(row.state, row.number) for row in report(log, TERMS)]
    assert states == [("due", 1), ("open review", 2)]
    assert taken(log) == {"decision": 1}
    assert sorted(waiting(log)) == sorted(decision.id for decision in decisions[1:])

    forced = Terms(25, NOON, open_reviews=True)
    assert [row.state for row in report(log, forced)] == ["due"]
    assert taken(log, forced) == {"decision": 2}
    assert waiting(log) == []


def test_what_is_held_stays(log: SqlAuditLog) -> None:
    """With all that is about it, however old."""
    decision, other, refusal = old(), old(), old("refusal", decision=None)
    log.append([decision, step := review(decision, 1), other, refusal]).result()
    terms = Terms(25, NOON, held=(decision.id, refusal.id))

    held = [(row.kind, row.state) for row in report(log, terms)]
    assert held == [("decision", "due"), ("decision", "held"), ("refusal", "held")]
    assert taken(log, terms) == {"decision": 1}

    assert gone(log) == {other.id}
    assert log.get(step.id) == step
    (said,) = log.find(kind="retention")
    assert (said.body["held"], said.body["held_sequences"]) == (2, [[1, 1]])
    with pytest.raises(DataInvalid, match="10,001 records are held, and 10,000 can be"):
        Terms(25, NOON, held=("1",) * (HELD_MOST + 1))


def test_reading_and_reporting_take_nothing(log: SqlAuditLog) -> None:
    """Nor is there anything to say of a database with nothing old in it."""
    log.append([old(days=-1)]).result()
    assert report(log, TERMS) == []
    assert taken(log) == {}
    log.append([old()]).result()
    before = rows(log)

    assert [row.number for row in report(log, TERMS)] == [1]
    assert rows(log) == before


def test_interrupted_it_goes_on_when_it_is_asked_for_again(
    log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is whole: what is gone is what the records of retention name."""
    monkeypatch.setattr(retention, "AT_ONCE", 3)
    decisions = [old(days=9 - i) for i in range(8)]
    log.append([record for d in decisions for record in (d, review(d, 1))]).result()

    def interrupted(done: int, _total: int | None) -> None:
        assert done == 6
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(log, log, TERMS, by="auditor", progress=interrupted)
    assert gone(log) == covered(log)
    assert len(gone(log)) == 6

    assert taken(log) == {"decision": 5, "review": 5}
    assert gone(log) == covered(log)
    assert log.count(kind="retention") == 3
    assert taken(log) == {}


def test_what_changes_meanwhile_is_looked_at_again(
    log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision that somebody reviews in that moment stays."""
    log.append([decision := old(), other := old()]).result()
    write = retention._record  # noqa: SLF001 - the moment between

    def reviewed_first(*arguments: Any) -> Record:  # noqa: ANN401 - whatever it takes
        if log.count(kind="review") == 0:
            log.append([review(decision, -1)]).result()
        return write(*arguments)

    monkeypatch.setattr(retention, "_record", reviewed_first)

    assert taken(log) == {"decision": 1}
    assert gone(log) == covered(log) == {other.id}


def test_somebody_who_keeps_working_on_it_is_told(
    log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing was taken, and nothing says so."""
    log.append([decision := old()]).result()
    write = retention._record  # noqa: SLF001 - the moment between

    def reviewed_first(*arguments: Any) -> Record:  # noqa: ANN401 - whatever it takes
        log.append([review(decision, 1)]).result()
        return write(*arguments)

    monkeypatch.setattr(retention, "_record", reviewed_first)
    with pytest.raises(Conflict, match="try again"):
        taken(log)

    assert gone(log) == covered(log) == set()


def test_servers_write_meanwhile(
    log: SqlAuditLog, any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of theirs is lost, and nothing old is left."""
    monkeypatch.setattr(retention, "AT_ONCE", 5)
    log.append([old() for _ in range(60)]).result()
    stop = threading.Event()
    written: list[str] = []

    def serve() -> None:
        with closing(SqlAuditLog(any_url, SEALING)) as other:
            while not stop.is_set():
                group = [old(days=-1) for _ in range(3)]
                other.append(group).result()
                written.extend(record.id for record in group)

    server = threading.Thread(target=serve)
    server.start()
    while not written:
        stop.wait(0.01)
    assert taken(log) == {"decision": 60}
    stop.set()
    server.join()

    assert len(gone(log)) == 60
    assert log.count(kind="decision") == len(written)
    sequences = [row["sequence"] for row in rows(log).values()]
    assert sequences == list(range(1, len(sequences) + 1))


def test_what_was_taken_cannot_be_erased_and_needs_not_be(log: SqlAuditLog) -> None:
    """It is told; what was erased before is taken like everything else."""
    log.append([old(), erased := old()]).result()
    erase(log, log, [erased.id], by="a", reason="b", progress=lambda *_: None)
    taken(log)

    (found,) = find(log, [erased.id])
    assert (found.state, found.records) == ("expired", ())
    assert log.find(kind="erasure")[0].about == erased.id


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 - UTC is put on
    st.integers(1, 600),
)
def test_months_are_those_of_the_calendar(moment: datetime, months: int) -> None:
    """The same day, or the last of a shorter month, and never less than the months asked for."""
    now = moment.replace(tzinfo=UTC)
    before = months_before(now, months)

    assert now.year * 12 + now.month - before.year * 12 - before.month == months
    assert before.time() == now.time()
    if before.day != now.day:
        assert before.day < now.day
        with suppress(ValueError):
            pytest.fail(f"{before.replace(day=before.day + 1)} was there")


@pytest.mark.parametrize(
    ("moment", "before"),
    [
        ("2026-11-22T10:00:00+00:00", "2024-10-22T10:00:00+00:00"),
        ("2026-03-31T00:00:00+00:00", "2024-02-29T00:00:00+00:00"),
        ("2025-03-30T23:59:59+00:00", "2023-02-28T23:59:59+00:00"),
        ("2026-01-01T00:00:00+00:00", "2023-12-01T00:00:00+00:00"),
    ],
)
def test_twenty_five_months(moment: str, before: str) -> None:
    """Over ends of years and in a leap year."""
    assert months_before(datetime.fromisoformat(moment), 25).isoformat() == before


def test_a_hold_is_of_what_is_there(log: SqlAuditLog) -> None:
    """Ids in capitals are ids; who names a review holds its decision; a mistake is told."""
    one, other = old(), old()
    step = review(other, 1)
    log.append([one, other, step]).result()

    held = retention.held(log, [one.id.upper(), step.id, step.id])

    assert held == tuple(sorted([one.id, other.id]))
    with pytest.raises(RecordNotFound, match=r"id garbage here and 1 more: it cannot be held"):
        retention.held(log, ["garbage here", one.id, "nobody's"])
    assert retention.held(log, []) == ()


def dated(day: int, **fields: object) -> Record:
    """A record whose id is of that day, counted from `NOON`."""
    return made(id=id_of(NOON + day * DAY), time=NOON + day * DAY, **fields)


def test_a_clock_is_doubted_where_the_records_stop_before_it(log: SqlAuditLog) -> None:
    """A week without any is none of them; what retention left of records counts."""
    assert doubts(log, NOON, 0) == []
    log.append([dated(day) for day in (-40, -20, 0)]).result()

    assert doubts(log, NOON + 6 * DAY, 0) == []
    (told,) = doubts(log, NOON + 9 * DAY, 0)
    assert told == "nothing is on record from 2027-01-15 until now, 2027-01-24"
    taken(log, Terms(25, NOON + DAY))
    assert doubts(log, NOON + 9 * DAY, 0) == [told]


def test_a_clock_that_went_ahead_before_records_is_doubted_by_the_pause(log: SqlAuditLog) -> None:
    """As long as something is due from before it; records of the future are no pause."""
    log.append([dated(day) for day in (-100, -80, -40, 0, 400)]).result()

    assert doubts(log, NOON, NOON - 100 * DAY) == [
        "nothing is on record from 2026-10-27 to 2026-12-06",
        "nothing is on record from 2026-12-06 to 2027-01-15",
    ]
    assert doubts(log, NOON, NOON - 39 * DAY) == [
        "nothing is on record from 2026-12-06 to 2027-01-15"
    ]
    assert doubts(log, NOON, NOON) == []


def test_what_was_held_before_and_is_due_now_is_counted(log: SqlAuditLog) -> None:
    """Once, however often it was held; and not what is held again, or was taken."""
    records = [old(), old(), old(), old(days=-5)]
    log.append(records).result()
    ids = [record.id for record in records]
    assert released(log, TERMS) == 0
    taken(log, Terms(25, NOON, held=(ids[0], ids[1])))
    log.append([old()]).result()
    taken(log, Terms(25, NOON, held=(ids[0], ids[1])))

    assert released(log, Terms(25, NOON, held=(ids[0], ids[1]))) == 0
    assert released(log, Terms(25, NOON, held=(ids[0],))) == 1
    assert released(log, TERMS) == 2
    taken(log)
    assert released(log, TERMS) == 0
