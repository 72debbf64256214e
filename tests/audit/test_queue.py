"""The queue's table: in step with the chain, or not at all."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from credit_risk.audit import queue, retention
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.tables import RECORDS, REVIEWS
from credit_risk.audit.verification import verify
from credit_risk.errors import Conflict
from credit_risk.reviews import Case, Proposal
from tests import toys
from tests.audit.tampering import lie
from tests.audit.test_checkpoints import altered
from tests.sealing import SEALING
from tests.test_casework import Office
from tests.test_reviews import AT, case, decided

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    proposal = Proposal("hal", "APPROVE", "R")
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


def rows(log: SqlAuditLog) -> list[dict[str, Any]]:
    """The whole table."""
    with log.reading() as connection:
        found = connection.execute(sa.select(REVIEWS).order_by(REVIEWS.c.decision_id))
        return [row._asdict() for row in found]


def differing(log: SqlAuditLog) -> list[tuple[str, str]]:
    """Kind and decision of each difference, in order of the decisions."""
    return sorted((one.decision_id, one.kind) for one in queue.differences(log.reading))


@pytest.fixture
def office(any_url: str) -> Iterator[Office]:
    """An office with a case in each state that there is."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        made = Office(log)
        made.decide("APPROVE", "APPROVE")
        made.decide()
        made.claim(made.decide(), "hal")
        released = made.decide()
        made.claim(released, "hal")
        made.release(released, "hal")
        made.review(made.decide(), "hal", "DECLINE")
        made.review(made.decide("DECLINE", "DECLINE"), "hal", "APPROVE")
        returned = made.decide("DECLINE", "DECLINE")
        made.review(returned, "hal", "APPROVE")
        made.review(returned, "ben", "DECLINE")
        agreed = made.decide("DECLINE", "DECLINE")
        made.review(agreed, "hal", "APPROVE")
        made.claim(agreed, "ben")
        made.review(agreed, "ben", "APPROVE")
        yield made


def test_a_queue_that_servers_keep_is_what_the_chain_says(office: Office) -> None:
    """Whatever people did; and there is nothing to mend."""
    before = rows(office.log)
    assert [(row["state"], row["version"]) for row in before] == [
        *(("open", 0), ("open", 1), ("open", 2), ("proposed", 1), ("disputed", 2))
    ]
    assert differing(office.log) == []
    assert queue.rebuild(office.log, office.log).total() == 0
    assert rows(office.log) == before


def test_a_queue_that_was_emptied_is_named_and_made_anew(office: Office) -> None:
    """Every case that waits is missing, and comes back as it was; the chain stays as it is."""
    before = rows(office.log)
    altered(office.log, sa.delete(REVIEWS))
    assert differing(office.log) == [(row["decision_id"], "missing") for row in before]
    number = office.log.count()

    assert queue.rebuild(office.log, office.log) == {"missing": 5}

    assert rows(office.log) == before
    assert differing(office.log) == []
    assert office.log.count() == number


@pytest.mark.parametrize(
    "column", ["portfolio", "time", "state", "holder", "until", "proposal", "version"]
)
def test_a_row_that_was_changed_is_named_with_its_column(office: Office, column: str) -> None:
    """Of a case that nobody has touched, and of one that somebody works on."""
    before = rows(office.log)
    value = 7 if column in {"time", "until", "version"} else "x"
    altered(office.log, sa.update(REVIEWS).values({column: value}))
    found = list(queue.differences(office.log.reading))
    assert {(one.kind, one.detail) for one in found} == {
        ("different", f"has another {column} in the queue")
    }
    assert len(found) == len(before)
    assert "hal" not in str(found[0])

    queue.rebuild(office.log, office.log)
    assert rows(office.log) == before


def test_a_row_that_should_not_be_there_is_named_and_taken_out(office: Office) -> None:
    """Of a case that is closed, one that never waited, one retention took, and of no decision."""
    before = rows(office.log)
    (step,) = office.log.find(kind="review", decision="DECLINE")
    (decision,) = office.log.find(kind="decision", decision="APPROVE")
    closed, approved = str(step.about), decision.id
    waiting = before[0] | {"decision_id": closed}
    others = [before[0] | {"decision_id": one} for one in (approved, "nobodys")]
    altered(office.log, sa.insert(REVIEWS).values([waiting, *others]))
    wanted = sorted([closed, approved, "nobodys"])
    assert differing(office.log) == [(one, "extra") for one in wanted]

    assert queue.rebuild(office.log, office.log) == {"extra": 3}
    assert rows(office.log) == before


def test_a_step_that_is_none_leads_nowhere(office: Office) -> None:
    """Whether it is whole is the chain's to say; the queue is held against the others."""
    step = office.log.find(kind="claim")[0]
    altered(office.log, sa.update(RECORDS).where(RECORDS.c.id == step.id).values(body="[]"))
    assert differing(office.log) == []
    altered(office.log, sa.update(RECORDS).where(RECORDS.c.kind == "claim").values(body="{"))
    assert {kind for _, kind in differing(office.log)} == {"different"}


def test_a_case_that_somebody_works_on_meanwhile_is_no_difference(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row and the steps were read at different moments."""
    case_id = str(rows(office.log)[0]["decision_id"])
    changed = sa.update(REVIEWS).where(REVIEWS.c.decision_id == case_id).values(holder="x")
    altered(office.log, changed)
    left = [lambda: office.review(case_id, "hal", "DECLINE"), lambda: office.claim(case_id, "hal")]
    look = queue._wanted  # noqa: SLF001 - the moment between

    def act(connection: sa.Connection, ids: list[str]) -> object:
        if left and case_id in ids:
            left.pop()()
        return look(connection, ids)

    monkeypatch.setattr(queue, "_wanted", act)
    assert differing(office.log) == []
    assert left == []


def test_what_a_lying_index_hides_from_the_queue_is_found_by_verification(tmp_path: Path) -> None:
    """A case that was closed waits again, and whoever looks for its last step does not find it."""
    path = tmp_path / "records.db"
    with closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log:
        office = Office(log)
        decision_id = office.decide()
        (before,) = rows(log)
        office.review(decision_id, "hal", "DECLINE")
        altered(log, sa.insert(REVIEWS).values(**before))
        assert differing(log) == [(decision_id, "extra")]
    about = "UPDATE records SET about = {} WHERE sequence = 2"
    lie(path, "records_by_about", about.format("'nothing'"), about.format(f"'{decision_id}'"))
    with closing(SqlRecords(f"sqlite:///{path}", SEALING)) as records:
        assert list(queue.differences(records.reading)) == []
        report = verify(records.reading, [])

    assert {finding.kind for finding in report.findings} == {"database"}
    assert "records_by_about" in report.findings[0].detail
