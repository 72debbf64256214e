"""The queue's table: in step with the chain, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from credit_risk.audit import queue, retention
from credit_risk.audit.log import SqlAuditLog
from credit_risk.errors import Conflict
from credit_risk.reviews import Case, Proposal
from tests import toys
from tests.sealing import SEALING
from tests.test_reviews import AT, case, decided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.audit.queue import Waiting, WaitingState

ONE = case()


@pytest.fixture
def log(any_url: str) -> Iterator[SqlAuditLog]:
    """A log with one decision in it that waits."""
    made = SqlAuditLog(any_url, SEALING)
    made.append([decided()]).result()
    yield made
    made.close()


def step(log: SqlAuditLog, after: Case) -> None:
    """Put a step on record that led to this case."""
    record = replace(decided(None), id=f"s-{log.count()}", kind="claim", about=after.decision_id)
    log.append([record], alongside=queue.keep(after)).result()


def found(log: SqlAuditLog, state: WaitingState | None = None) -> list[Waiting]:
    """What waits."""
    with log.reading() as connection:
        return queue.waiting(connection, toys.NAME, AT, state=state)


def test_a_step_changes_the_row_with_its_record(log: SqlAuditLog) -> None:
    """Holder, time and proposal come back as they were."""
    proposal = Proposal("ada", "APPROVE", "R")
    step(log, replace(ONE, steps=1, holder="ben", until=AT + 1, proposal=proposal))

    (row,) = found(log)
    assert (row.holder, row.until, row.proposal) == ("ben", AT + 1, proposal)
    assert found(log, "claimed") == [row]
    assert found(log, "open") == found(log, "proposed") == []
    step(log, replace(ONE, steps=2, proposal=proposal))
    assert len(found(log, "proposed")) == 1


@pytest.mark.parametrize("number", [0, 2, 7])
def test_a_step_that_is_not_the_next_one_is_undone(log: SqlAuditLog, number: int) -> None:
    """Neither record nor row."""
    with pytest.raises(Conflict):
        step(log, replace(ONE, steps=number, holder="ben", until=AT + 1))

    assert log.count() == 1
    assert [row.holder for row in found(log)] == [None]


def test_a_step_after_retention_has_taken_the_decision_is_undone(log: SqlAuditLog) -> None:
    """There would be nothing that it is about."""
    terms = retention.Terms(25, AT + 1_000_000, open_reviews=True)
    retention.take(log, log, terms, by="clerk", progress=lambda *_: None)

    with pytest.raises(Conflict, match="retention"):
        step(log, replace(ONE, steps=1, holder="ben", until=AT + 1))

    assert log.count(kind="claim") == 0
    assert found(log) == []


def test_cases_are_counted_for_their_portfolio(log: SqlAuditLog) -> None:
    """Not for another."""
    with log.reading() as connection:
        assert queue.number(connection, toys.NAME) == 1
        assert queue.number(connection, "tricycle-leases") == 0


def test_a_place_is_that_of_a_decision_on_record(log: SqlAuditLog) -> None:
    """Also where it waits no longer."""
    with log.reading() as connection:
        assert queue.place(connection, ONE.decision_id) == (AT, ONE.decision_id)
        assert queue.place(connection, "d-2") is None


def test_of_many_at_once_in_several_processes_one_is_first(any_url: str) -> None:
    """Each has a log of its own, as replicas do; the others' records are not there either."""
    logs = [SqlAuditLog(any_url, SEALING) for _ in range(4)]
    logs[0].append([decided()]).result()
    claims = [
        log.append(
            [replace(decided(None), id=f"s-{i}", kind="claim", about=ONE.decision_id)],
            alongside=queue.keep(replace(ONE, steps=1, holder=f"p-{i}", until=AT + 1)),
        )
        for i, log in enumerate(logs * 3)
    ]
    faults = [claim.exception() for claim in claims]

    (first,) = [i for i, fault in enumerate(faults) if fault is None]
    assert {type(fault) for fault in faults} == {Conflict, type(None)}
    assert [row.holder for row in found(logs[0])] == [f"p-{first}"]
    assert [record.id for record in logs[0].find(about=ONE.decision_id)] == [f"s-{first}"]
    for log in logs:
        log.close()
