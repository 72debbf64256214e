"""Checks of whether to retrain, and what people decided on them, as they are on record.

A check starts nothing. It is a record of kind "retraining-check", whose body is the whole of what
was answered; what a person decides is another, of kind "retraining-decision", ``about`` it:
``{"reviewer": ..., "decision": "RETRAIN"}``, with the note sealed. One person decides on a check,
and whoever wants another answer asks for another check.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa

from credit_risk.audit.records import Record, moment, read
from credit_risk.audit.tables import RECORDS
from credit_risk.decisions import new_id
from credit_risk.errors import CheckNotFound, Conflict, RecordNotFound

if TYPE_CHECKING:
    from credit_risk.audit.log import SqlAuditLog, SqlRecords
    from credit_risk.decisions import Call
    from credit_risk.package import ModelPackage

Decision = Literal["RETRAIN", "KEEP"]

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_C = RECORDS.c


async def record(
    log: SqlAuditLog, package: ModelPackage, checked: dict[str, Any], call: Call
) -> dict[str, Any]:
    """Put a check on record; returns it as it is shown.

    Args:
        log: where.
        package: what was checked.
        checked: see `credit_risk.oversight.Oversight.retraining`.
        call: the request.

    Raises:
        RecordingFailed: it is not known to be on record.
    """
    made = Record(
        id=new_id(),
        kind="retraining-check",
        time=call.at,
        portfolio=package.portfolio,
        request_id=call.request_id,
        model_version=package.version,
        policy_version=package.policy_version,
        decision=None,
        status=200,
        body=checked,
    )
    await log.record([made])
    return _shown(made, None)


def shown(records: SqlRecords, portfolio: str, check_id: str) -> dict[str, Any]:
    """A check on record, and what was decided on it.

    Raises:
        CheckNotFound: the portfolio has none of that id.
    """
    check = _check(records, portfolio, check_id)
    found = records.find(about=check_id, kind="retraining-decision", limit=1)
    return _shown(check, found[0] if found else None)


class Judgement(NamedTuple):
    """What a person decides on a check, and why: to train a new model, or to keep this one."""

    reviewer: str
    decision: Decision
    note: str


async def decide(
    log: SqlAuditLog, check: dict[str, Any], judgement: Judgement, call: Call
) -> dict[str, Any]:
    """Put on record what a person decides on a check; returns the check with it.

    Args:
        log: where.
        check: as it is `shown`.
        judgement: what is decided.
        call: the request.

    Raises:
        Conflict: somebody has decided on it.
        RecordingFailed: it is not known to be on record.
    """
    made = Record(
        id=new_id(),
        kind="retraining-decision",
        time=call.at,
        portfolio=check["portfolio"],
        request_id=call.request_id,
        model_version=check["model_version"],
        policy_version=None,
        decision=None,
        status=200,
        body={"reviewer": judgement.reviewer, "decision": judgement.decision},
        personal={"note": judgement.note},
        about=check["check_id"],
    )
    await log.record([made], alongside=partial(_once, check["check_id"]))
    return {**check, "decided": _decided(made)}


def _check(records: SqlRecords, portfolio: str, check_id: str) -> Record:
    if re.fullmatch(_UUID, check_id):
        with suppress(RecordNotFound):
            found = records.get(check_id)
            if found.kind == "retraining-check" and found.portfolio == portfolio:
                return found
    raise CheckNotFound("the portfolio has no such check")


def _once(check_id: str, connection: sa.Connection) -> None:
    """See that the record is the only decision on the check; it is among those counted."""
    about = (_C.about == check_id, _C.kind == "retraining-decision")
    if connection.execute(sa.select(sa.func.count()).where(*about)).scalar_one() != 1:
        raise Conflict("somebody has decided on this check")


def _shown(check: Record, decision: Record | None) -> dict[str, Any]:
    return {
        "check_id": check.id,
        "time": moment(check.time),
        **check.body,
        "decided": None if decision is None else _decided(decision),
    }


def _decided(decision: Record) -> dict[str, Any]:
    with read(decision.id, decision.kind):
        note = None if decision.personal is None else decision.personal["note"]
    return {"time": moment(decision.time), **decision.body, "note": note}
