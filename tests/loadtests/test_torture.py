"""A log that is not what clients were told is found out; real servers are tests/e2e's business."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.records import Record
from credit_risk.settings import Settings
from loadtests import torture
from loadtests.torture import Tally, faults
from tests.audit.test_log import made, run
from tests.sealing import SEALING

TOLD = {"decision": "APPROVE", "probability_of_default": 0.125, "model_version": "model-1"}


def on_record(request_id: str, row: int | None = None, **fields: object) -> Record:
    """A decision as the server records it."""
    body = {"probability_of_default": 0.125, "row": row}
    return made(request_id=request_id, body=body, **fields)


def tally(*records: Record, **changed: object) -> Tally:
    """Of clients who were answered with these records."""
    decided: dict[str, dict[str, Any]] = {record.id: TOLD | changed for record in records}
    return Tally(decided=decided)


def test_what_was_answered_and_is_on_record_is_no_fault() -> None:
    """Neither is more on record than was answered, nor are the rows of a batch doubles."""
    rows = [on_record("1-1", row) for row in range(3)]
    unanswered, refusal = on_record("1-2"), made(kind="refusal", request_id="1-2", body={})
    assert faults(tally(*rows), iter([*rows, unanswered, refusal])) == []


def test_a_lost_decision_is_a_fault() -> None:
    """It is named."""
    kept, lost = on_record("1-1"), on_record("1-2")
    assert faults(tally(kept, lost), iter([kept])) == [
        f"decision {lost.id} was answered and is not on record"
    ]


@pytest.mark.parametrize("row", [None, 4])
def test_a_request_that_is_on_record_twice_is_a_fault(row: int | None) -> None:
    """Whether it was answered or not."""
    one, other = on_record("1-1", row), on_record("1-1", row)
    assert faults(tally(one), iter([one, other])) == [
        f"request {('1-1', row)} is on record 2 times"
    ]


@pytest.mark.parametrize(
    "changed",
    [{"decision": "DECLINE"}, {"probability_of_default": 0.25}, {"model_version": "model-2"}],
    ids=str,
)
def test_a_record_of_another_decision_is_a_fault(changed: dict[str, object]) -> None:
    """Whatever differs."""
    record = on_record("1-1")
    assert faults(tally(record, **changed), iter([record])) == [
        f"record {record.id} is of another decision than the one answered"
    ]


def test_what_clients_found_wrong_is_a_fault() -> None:
    """A status that no client should see, or two answers to one question."""
    assert faults(Tally(wrong=["/predict answered 500"]), iter([])) == ["/predict answered 500"]


def test_a_log_that_is_not_whole_is_a_fault(tmp_path: Path) -> None:
    """As verification tells it."""
    settings = Settings(state_dir=tmp_path, workers=1)
    with closing(SqlAuditLog(settings.audit_url, SEALING)) as log:
        log.append([made() for _ in range(5)]).result()
        assert torture.unwhole(settings) == []
        run(tmp_path / "records.db", "UPDATE records SET status = 201 WHERE sequence = 3")
        (fault,) = torture.unwhole(settings)
    assert "record 3" in fault
