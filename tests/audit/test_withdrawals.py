"""Withdrawals: what is gone has its reason on record, and a reason is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk.audit import erasure, retention
from credit_risk.audit.tables import RECORDS
from tests.audit.tampering import EMPTY, SIZE, Case, R
from tests.audit.test_log import made

if TYPE_CHECKING:
    from credit_risk.audit.records import Record


def taken(*sequences: list[int]) -> Record:
    """A record of a retention that took these."""
    return made(kind="retention", decision=None, body={"sequences": sequences})


def test_retention_takes_what_it_says_and_no_more(case: Case) -> None:
    """What is left keeps the chain whole; what nobody says was taken is named."""
    case.do(sa.update(RECORDS).where(R.sequence.between(3, 8)).values(**EMPTY))
    case.do(sa.update(RECORDS).where(R.sequence == 10).values(**EMPTY))
    assert case.found() == {("emptied", 3, 8), ("emptied", 10, 10)}
    case.log.append([taken([4, 5], [7, 7])]).result()
    assert case.found() == {("emptied", p, q) for p, q in ((3, 3), (6, 6), (8, 8), (10, 10))}
    case.log.append([taken([1, 3], [6, 12])]).result()
    assert case.found() == set()
    assert case.report().taken == 7


def test_retention_says_so_behind_what_it_took(sqlite: Case) -> None:
    """One that was there before cannot be meant."""
    sqlite.log.append([taken([1, 99]), made()]).result()
    sqlite.do(sa.update(RECORDS).where(R.sequence == SIZE + 2).values(**EMPTY))
    assert sqlite.found() == {("emptied", SIZE + 2, SIZE + 2)}


@pytest.mark.parametrize("body", ["{", "[]", '{"sequences": 1}', '{"sequences": [1, [2], "x"]}'])
def test_a_record_of_a_retention_that_says_nothing_says_nothing(sqlite: Case, body: str) -> None:
    """Whatever else it holds."""
    sqlite.log.append([taken()]).result()
    sqlite.rewrite(SIZE + 1, body=body)
    sqlite.set(3, **EMPTY)
    assert sqlite.found() == {("emptied", 3, 3)}


def test_what_retention_and_erasure_leave_is_whole(sqlite: Case) -> None:
    """As their own commands do it."""
    log = sqlite.log
    shown: list[object] = []
    progress = lambda *done: shown.append(done)  # noqa: E731 - both are told one
    erasure.erase(log, log, sqlite.ids[3:5], by="clerk", reason="ours", progress=progress)
    assert sqlite.report().erased == 2
    assert sqlite.found() == set()
    terms = retention.Terms(months=25, before=4_000_000_000_000_000)
    retention.take(log, log, terms, by="clerk", progress=progress)
    report = sqlite.report()
    assert report.whole
    assert report.taken == SIZE


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
