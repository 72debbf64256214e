"""Withdrawals: what is gone has its reason on record, and a reason is one."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from credit_risk.audit import checkpoints, erasure, retention
from credit_risk.audit.records import microseconds
from credit_risk.audit.tables import RECORDS
from tests.audit.tampering import EMPTY, KEY, LONG_AGO, SIZE, Case, R, id_of
from tests.audit.test_log import made

if TYPE_CHECKING:
    from credit_risk.audit.records import Record


DAY = 86_400_000_000


def taken(*sequences: list[int], at: int | None = None, **said: object) -> Record:
    """A record of a retention that took these, of decisions and in order."""
    body = {
        "by": "clerk",
        "months": 25,
        "before": "2024-01-01T00:00:00Z",
        "records": {"decision": sum(last - first + 1 for first, last in sequences)},
        "sequences": sequences,
    }
    record = made(kind="retention", decision=None, body=body | said)
    return record if at is None else replace(record, time=at)


def test_retention_takes_what_it_says_and_no_more(case: Case) -> None:
    """What is left keeps the chain whole; what nobody says was taken is named."""
    case.do(sa.update(RECORDS).where(R.sequence.between(3, 8)).values(**EMPTY))
    case.do(sa.update(RECORDS).where(R.sequence == 10).values(**EMPTY))
    assert case.found() == {("emptied", 3, 8), ("emptied", 10, 10)}
    case.log.append([taken([4, 5], [7, 7])]).result()
    assert case.found() == {("emptied", p, q) for p, q in ((3, 3), (6, 6), (8, 8), (10, 10))}
    case.log.append([taken([3, 3], [6, 6], [8, 8], [10, 10])]).result()
    assert case.found() == set()
    assert case.report().taken == 7


def test_retention_says_so_behind_what_it_took(sqlite: Case) -> None:
    """One that was there before cannot be meant."""
    sqlite.log.append([taken([1, 99]), made()]).result()
    sqlite.do(sa.update(RECORDS).where(R.sequence == SIZE + 2).values(**EMPTY))
    assert sqlite.found() == {
        ("emptied", SIZE + 2, SIZE + 2),
        ("unfounded", SIZE + 1, SIZE + 1),
    }


@pytest.mark.parametrize("body", ["{", "[]", '{"sequences": 1}', '{"sequences": [1, [2], "x"]}'])
def test_a_record_of_a_retention_that_says_nothing_says_nothing(sqlite: Case, body: str) -> None:
    """Whatever else it holds; and that is no record of a retention."""
    sqlite.log.append([taken()]).result()
    sqlite.rewrite(SIZE + 1, body=body)
    sqlite.set(3, **EMPTY)
    assert sqlite.found() == {("emptied", 3, 3), ("unfounded", SIZE + 1, SIZE + 1)}


def test_what_retention_and_erasure_leave_is_whole(sqlite: Case) -> None:
    """As their own commands do it."""
    log = sqlite.log
    shown: list[object] = []
    progress = lambda *done: shown.append(done)  # noqa: E731 - both are told one
    erasure.erase(log, log, sqlite.ids[3:5], by="clerk", reason="ours", progress=progress)
    assert sqlite.report().erased == 2
    assert sqlite.found() == set()
    before = microseconds(retention.months_before(datetime.now(UTC), 25))
    terms = retention.Terms(25, before, held=(sqlite.ids[8],))
    retention.take(log, log, terms, by="clerk", progress=progress)
    report = sqlite.report()
    assert report.findings == []
    assert report.taken == SIZE - 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"months": 24}, "its term is 24 months, and records are kept for 25"),
        ({"before": "2025-06-01T00:00:00Z"}, "which is less than 25 months"),
        ({"before": "2019-12-31T00:00:00Z"}, "record 5 was made later than 2019-12-31"),
        ({"records": {"decision": 3}}, "other numbers of records, by kind"),
        ({"records": {"refusal": 2}}, "other numbers of records, by kind"),
        ({"records": {"decision": 2, "failure": 1}}, "other numbers of records, by kind"),
        ({"sequences": [[5, 5], [4, 4]]}, "in no order"),
        ({"sequences": [[4, 5], [21, 21]]}, "behind its own"),
        ({"sequences": [[0, 5]]}, "in no order"),
        ({"held_sequences": [[5, 9]]}, "it names what it says is held"),
        ({"at": 4_000_000_000_000_000}, "is after it was on record"),
        ({"at": -(10**17)}, "come to no date"),
    ],
)
def test_a_retention_that_the_log_gives_the_lie_is_named(
    sqlite: Case, said: dict[str, Any], told: str
) -> None:
    """Its term, its time, and what it names; whoever wrote it knew the chain."""
    sqlite.do(sa.update(RECORDS).where(R.sequence.between(4, 5)).values(**EMPTY))
    record = taken([4, 5], at=said.pop("at", None))
    sqlite.log.append([replace(record, body=record.body | said)]).result()
    report = sqlite.report()
    (finding,) = [finding for finding in report.findings if finding.kind == "unfounded"]
    assert finding[:4] == ("unfounded", SIZE + 1, SIZE + 1, record.id)
    assert told in finding.detail


def test_what_was_signed_before_it_was_written_tells_its_age(case: Case) -> None:
    """Whatever became of the id: nobody but who signs could say otherwise."""
    case.set(9, **EMPTY, id=id_of(LONG_AGO - 3_650 * DAY))
    case.log.append([taken([9, 9], before="2019-06-01T00:00:00Z")]).result()
    (finding,) = case.report().findings
    assert "record 9 was written after checkpoint 1 was signed" in finding.detail


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"id": "x"}, "an id that no server makes"),
        ({"id": "0193ghij-7c40-7cc3-98c4-dc0c0c07398f"}, "an id that no server makes"),
        ({"kind": "start"}, "of start, which are never"),
    ],
)
def test_what_is_left_of_a_record_has_to_fit_too(
    sqlite: Case, values: dict[str, str], told: str
) -> None:
    """Its id and its kind, which no hash covers any more."""
    sqlite.set(9, **EMPTY, **values)
    sqlite.log.append([taken([9, 9])]).result()
    (finding,) = sqlite.report().findings
    assert told in finding.detail


def test_a_retention_that_is_said_to_be_of_later_than_its_checkpoint_is_named(
    sqlite: Case,
) -> None:
    """By the clock of who signed, not of who verifies."""
    sqlite.set(9, **EMPTY)
    sqlite.log.append([taken([9, 9], at=time.time_ns() // 1_000 + 1_800_000_000)]).result()
    assert sqlite.found() == set()
    with pytest.MonkeyPatch.context() as then:
        earlier = time.time_ns() - 1_000 * DAY
        then.setattr(time, "time_ns", lambda: earlier)
        checkpoints.sign(sqlite.log, KEY)
    (finding,) = sqlite.report().findings
    assert "is after it was on record" in finding.detail


def test_a_record_that_is_missing_is_no_fault_of_a_retention(sqlite: Case) -> None:
    """It is named as removed, and the retention is as right as before."""
    sqlite.do(sa.update(RECORDS).where(R.sequence.between(4, 5)).values(**EMPTY))
    sqlite.log.append([taken([4, 5])]).result()
    sqlite.do(sa.delete(RECORDS).where(R.sequence == 5))
    assert {kind for kind, _, _ in sqlite.found()} == {"removed", "rewritten"}


def test_what_a_retention_took_and_is_there_again_is_named(case: Case) -> None:
    """From a backup: no hash tells."""
    rows = {sequence: case.row(sequence) for sequence in (4, 5, 9)}
    case.do(sa.update(RECORDS).where(R.sequence.in_([4, 5, 9])).values(**EMPTY))
    case.log.append([taken([4, 5], [9, 9])]).result()
    assert case.found() == set()
    for sequence, row in rows.items():
        case.set(sequence, **{name: row[name] for name in EMPTY})
    report = case.report()
    assert [finding[:3] for finding in report.findings] == [("restored", 4, 5), ("restored", 9, 9)]
    assert f"as record {SIZE + 1} says" in report.findings[0].detail


def test_a_data_key_that_was_destroyed_and_is_there_again_is_named(case: Case) -> None:
    """With it, somebody who was erased is read again."""
    key = case.row(5)["data_key"]
    case.set(5, data_key=None)
    said = made(kind="erasure", about=case.ids[4], body={"records": [case.ids[4]]})
    case.log.append([said, replace(said, id=made().id)]).result()
    assert case.found() == set()
    case.set(5, data_key=key)
    (finding, again) = case.report().findings
    assert finding[:4] == ("restored", 5, 5, case.ids[4])
    assert again.kind == "restored"


def test_an_erasure_that_the_log_gives_the_lie_is_named(sqlite: Case) -> None:
    """It names what was never there, held nothing of people, or is about another."""
    sqlite.log.append([plain := made(), late := made()]).result()
    sqlite.do(sa.update(RECORDS).where(R.sequence.in_([5, 6])).values(data_key=None))
    five, six = sqlite.ids[4:6]
    for about, named, told in (
        (five, [five, six, six], "2 not about the one it is about"),
        (five, [five, made().id, "x'"], "2 not there before it"),
        (plain.id, [plain.id], "1 without personal data"),
        (None, [late.id], "1 not about the one it is about"),
    ):
        said = made(kind="erasure", decision=None, about=about, body={"records": named})
        sqlite.log.append([said]).result()
        finding = sqlite.report().findings[-1]
        assert (finding.kind, finding.id) == ("unfounded", said.id)
        assert told in finding.detail
    sqlite.log.append([said := made(kind="erasure", body={"records": []})]).result()
    assert "does not say what was withdrawn" in sqlite.report().findings[0].detail


def test_what_is_withdrawn_while_the_log_is_verified_is_no_finding(case: Case) -> None:
    """The records that say so are read after what they took was seen as it was."""
    log = case.log
    before = microseconds(retention.months_before(datetime.now(UTC), 25))

    def withdraw(done: int, _total: int) -> None:
        if done == SIZE:
            how: dict[str, Any] = {"by": "clerk", "progress": lambda *_: None}
            erasure.erase(log, log, case.ids[:2], reason="ours", **how)
            retention.take(log, log, retention.Terms(25, before, held=tuple(case.ids[:2])), **how)
            log.append([taken([3, 3])]).result()

    case.set(3, **EMPTY)
    report = case.report(progress=withdraw)
    assert report.findings == []
    assert report.records == SIZE + 4
    assert case.report().taken == SIZE - 2


def test_a_hash_that_retention_left_cannot_be_changed(sqlite: Case) -> None:
    """The record behind it, or the checkpoint, holds it."""
    sqlite.do(sa.update(RECORDS).where(R.sequence.between(3, 8)).values(**EMPTY))
    sqlite.log.append([taken([3, 8])]).result()
    sqlite.set(5, hash=b"x" * 32)
    assert {kind for kind, _, _ in sqlite.found()} == {"changed", "rewritten"}
    sqlite.set(6, previous=b"x" * 32)
    assert sqlite.found() == {("rewritten", 1, 6)}


def test_a_record_of_which_half_is_left_is_named(sqlite: Case) -> None:
    """Retention takes all or nothing."""
    sqlite.set(5, **(EMPTY | {"decision": "DECLINE"}))
    assert ("changed", 5, 5) in sqlite.found()


def test_an_erasure_is_said_by_a_record(case: Case) -> None:
    """It names every record whose data key it destroyed."""
    case.log.append([made(about=case.ids[4], personal={"note": "x"})]).result()
    case.set(5, data_key=None)
    case.set(SIZE + 1, data_key=None)
    assert case.found() == {("erased", 5, 5), ("erased", SIZE + 1, SIZE + 1)}
    ids = [case.ids[4], case.row(SIZE + 1)["id"]]
    for some in (ids[:1], ids):
        said = made(kind="erasure", decision=None, about=ids[0], body={"records": some})
        case.log.append([said]).result()
        left = {("erased", SIZE + 1, SIZE + 1)} if some != ids else set()
        assert case.found() == left
    assert case.report().erased == 2


def test_records_that_come_meanwhile_are_left_for_the_next_time(case: Case) -> None:
    """Unless they say why others are empty, as when retention runs at that moment."""
    case.do(sa.update(RECORDS).where(R.sequence == 3).values(**EMPTY))
    late = [made(), taken([3, 3])]

    def write(_done: int, _total: int) -> None:
        while late:
            case.log.append([late.pop(0)]).result()

    report = case.report(progress=write)
    assert report.whole
    assert report.records == SIZE + 2
