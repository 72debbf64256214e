"""Erasure: what was asked for cannot be read again, everything else can, and the chain says so."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk.audit import erasure
from credit_risk.audit.erasure import Finding, erase, find
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.tables import RECORDS
from credit_risk.errors import Conflict, RecordNotFound
from tests.audit.test_log import made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credit_risk.audit.records import Record

REASON = "asked for by the applicant"


@pytest.fixture
def log(any_url: str) -> Iterator[SqlAuditLog]:
    """An empty audit log."""
    with closing(SqlAuditLog(any_url, SEALING)) as opened:
        yield opened


def personal(**fields: object) -> Record:
    """A decision with an application."""
    return made(personal={"input": {"age": 40}}, **fields)


def review(decision: Record, note: str = "He is well known here") -> Record:
    """A review of a decision, with a note."""
    return made(
        kind="review", about=decision.id, decision=None, status=None, personal={"note": note}
    )


def erased(log: SqlAuditLog, ids: Sequence[str]) -> list[Finding]:
    """What was erased."""
    return erase(log, log, ids, by="auditor", reason=REASON, progress=lambda *_: None)


def withheld(log: SqlRecords, *records: Record) -> list[str | None]:
    """Why their personal data are not there."""
    return [log.get(record.id).withheld for record in records]


def erasures(log: SqlRecords) -> list[Record]:
    """The records of erasures, the oldest first."""
    return log.find(kind="erasure")[::-1]


def test_a_decision_and_all_about_it_are_erased_and_nothing_else(log: SqlAuditLog) -> None:
    """With a record that names them; the decision itself still says what was decided."""
    decision, other = personal(), personal()
    reviews = [review(decision), review(decision), review(other)]
    log.append([decision, other, *reviews]).result()

    ids = (decision.id, *sorted(r.id for r in reviews[:2]))
    assert erased(log, [decision.id, decision.id]) == [
        Finding(decision.id, "decision", "toy", ids, "readable")
    ]

    assert withheld(log, decision, other, *reviews) == ["erased", None, "erased", "erased", None]
    left = log.get(decision.id)
    assert (left.decision, left.body, left.personal) == ("APPROVE", decision.body, None)
    assert log.get(other.id) == other
    (said,) = erasures(log)
    assert (said.about, said.portfolio) == (decision.id, "toy")
    assert said.body == {"by": "auditor", "reason": REASON, "records": list(ids)}


def test_what_was_erased_before_is_told_and_no_error(log: SqlAuditLog) -> None:
    """Without another record; a note that came later is erased all the same."""
    decision, plain = personal(), made()
    log.append([decision, plain]).result()
    erased(log, [decision.id])

    states = {finding.id: finding.state for finding in erased(log, [plain.id, decision.id])}
    assert states == {plain.id: "nothing", decision.id: "erased"}
    assert len(erasures(log)) == 1

    log.append([later := review(decision)]).result()
    assert erased(log, [decision.id])[0].records == (later.id,)
    assert withheld(log, decision, later) == ["erased", "erased"]
    assert len(erasures(log)) == 2


def test_an_id_that_is_not_there_stops_all(log: SqlAuditLog) -> None:
    """A list with a mistake in it is not the list that somebody meant."""
    log.append([decision := personal()]).result()

    with pytest.raises(RecordNotFound, match="no record has the id 1, 2, 3, 4, 5 and 2 more"):
        erased(log, [decision.id, *"1234567"])

    assert withheld(log, decision) == [None]
    assert erasures(log) == []


def test_an_interrupted_erasure_goes_on_when_it_is_asked_for_again(
    log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was erased is on record, each in its own transaction."""
    monkeypatch.setattr(erasure, "AT_ONCE", 2)
    decisions = [personal() for _ in range(5)]
    ids = [decision.id for decision in decisions]
    log.append(decisions).result()

    def interrupted(done: int, total: int | None) -> None:
        assert (done, total) == (2, 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erase(log, log, ids, by="auditor", reason=REASON, progress=interrupted)
    assert withheld(log, *decisions) == ["erased", "erased", None, None, None]
    assert {record.about for record in erasures(log)} == set(ids[:2])

    erased(log, ids)

    assert withheld(log, *decisions) == ["erased"] * 5
    assert sorted(str(record.about) for record in erasures(log)) == sorted(ids)


def test_what_somebody_adds_meanwhile_is_erased_too(
    log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the record names it: what was looked at is not what would have been erased."""
    log.append([decision := personal()]).result()
    look, added = erasure.find, review(decision)

    def then_added(records: SqlRecords, ids: Sequence[str]) -> list[Finding]:
        found = look(records, ids)
        if records.count(kind="review") == 0:
            log.append([added]).result()
        return found

    monkeypatch.setattr(erasure, "find", then_added)
    erased(log, [decision.id])

    assert withheld(log, decision, added) == ["erased", "erased"]
    (said,) = erasures(log)
    assert said.body["records"] == [decision.id, added.id]


def test_somebody_who_keeps_adding_is_told(
    log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing was erased, and nothing says so."""
    log.append([decision := personal()]).result()
    look = erasure.find

    def then_added(records: SqlRecords, ids: Sequence[str]) -> list[Finding]:
        found = look(records, ids)
        log.append([review(decision)]).result()
        return found

    monkeypatch.setattr(erasure, "find", then_added)
    with pytest.raises(Conflict, match="try again"):
        erased(log, [decision.id])

    assert withheld(log, decision) == [None]
    assert erasures(log) == []


def test_a_data_key_is_gone_from_the_table(log: SqlAuditLog) -> None:
    """It is not only that nobody looks at it."""
    log.append([decision := personal(), other := personal()]).result()
    erased(log, [decision.id])

    keys = sa.select(RECORDS.c.id).where(RECORDS.c.data_key.is_not(None))
    with log.reading() as connection:
        assert connection.execute(keys).scalars().all() == [other.id]
    assert find(log, [decision.id])[0].state == "erased"


def test_how_long_a_databases_files_remember_is_known_of_sqlite_alone(
    log: SqlAuditLog, any_url: str
) -> None:
    """PostgreSQL's own are for who runs it."""
    log.append([decision := personal()]).result()
    erased(log, [decision.id])

    assert log.forget() == any_url.startswith("sqlite")
