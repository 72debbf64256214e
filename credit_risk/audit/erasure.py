"""Erasure: a person's data on record made unreadable for good, and the chain as it was.

What is erased of a record is its data key. The ciphertext stays, so the chain verifies, and nobody
reads it again. With it go the answer kept for a request with an idempotency key, what is known of
the applicant's groups, what a challenger said about the application, and what monitoring counted of
an hour with few decisions. An erasure is itself on record: one of kind "erasure" ``about`` the
record that was asked for, in the same transaction, whose body names every record that lost its key:
``{"by": ..., "reason": ..., "records": [id, ...]}``.

How was decided (PD, band, decision, reasons) stays: it is what the law has lenders keep, and names
nobody without the application. What the person did since, the outcome, was kept for the sake of
the model, and goes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from credit_risk import idempotency, outcomes, shadowing, windows
from credit_risk.audit.records import unrequested
from credit_risk.audit.tables import GROUPS, RECORDS
from credit_risk.errors import Conflict, RecordNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import AuditLog, Record

AT_ONCE = 500
"""Records asked for in one transaction, which decisions wait for: a few hundredths of a second."""
TRIES = 10
"""How often to look anew, where somebody adds to what is being erased."""
_NAMED_MOST = 5

_C = RECORDS.c
_IDS: sa.BindParameter[str] = sa.bindparam("ids", expanding=True)
_FIND = sa.select(
    _C.id,
    _C.kind,
    _C.portfolio,
    _C.sealed.is_not(None).label("sealed"),
    _C.data_key.is_not(None).label("readable"),
).where(_C.id.in_(_IDS))
_ABOUT = sa.select(_C.id, _C.about).where(_C.about.in_(_IDS), _C.data_key.is_not(None))
_DESTROY = sa.update(RECORDS).where(_C.id.in_(_IDS), _C.data_key.is_not(None)).values(data_key=None)

State = Literal["readable", "erased", "expired", "nothing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What there is to erase of a record that was asked for.

    ``records`` are the ids of those that still hold personal data: the record itself and those
    about it. With none, ``state`` says why: it was erased before, retention has taken it, or it
    never held any.
    """

    id: str
    kind: str
    portfolio: str | None
    records: tuple[str, ...]
    state: State

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "records": list(self.records),
        }


def find(records: SqlRecords, ids: Sequence[str]) -> list[Finding]:
    """What there is to erase of these records, in their order, each once.

    Raises:
        RecordNotFound: some are not there; names the first of them.
        RecordingFailed: the database fails.
    """
    found: dict[str, Finding] = {}
    wanted = list(dict.fromkeys(ids))
    for chunk in _chunks(wanted):
        with records.reading() as connection:
            rows = connection.execute(_FIND, {"ids": chunk}).all()
            about = connection.execute(_ABOUT, {"ids": chunk}).all()
        for row in rows:
            readable = [row.id] if row.readable else []
            readable += sorted(other.id for other in about if other.about == row.id)
            state: State = "nothing"
            if readable:
                state = "readable"
            elif row.portfolio is None:
                state = "expired"
            elif row.sealed:
                state = "erased"
            found[row.id] = Finding(row.id, row.kind, row.portfolio, tuple(readable), state)
    missing = [record_id for record_id in wanted if record_id not in found]
    if missing:
        named = ", ".join(missing[:_NAMED_MOST])
        more = f" and {len(missing) - _NAMED_MOST:,} more" if len(missing) > _NAMED_MOST else ""
        raise RecordNotFound(f"no record has the id {named}{more}; nothing was erased")
    return [found[record_id] for record_id in wanted]


def erase(
    records: SqlRecords,
    log: AuditLog,
    ids: Sequence[str],
    *,
    by: str,
    reason: str,
    progress: Callable[[int, int | None], None],
) -> list[Finding]:
    """Erase what the records and those about them hold of people; says what was erased.

    Stopped halfway, what was erased is on record, and the same call again erases the rest.

    Args:
        records: where they are read.
        log: where the erasure is recorded; of the same database.
        ids: of the records. Those of which nothing is left to erase are let be.
        by: who erases.
        reason: why; it stays on record for ever.
        progress: told how many are done, of how many.

    Raises:
        RecordNotFound: as `find`; nothing was erased then.
        RecordingFailed: the database fails.
        Conflict: somebody kept adding records about those being erased.
    """
    wanted = [finding.id for finding in find(records, ids)]
    erased: list[Finding] = []
    for chunk in _chunks(wanted):
        erased += _erase_chunk(records, log, chunk, by, reason)
        progress(len(erased), len(wanted))
    return erased


def _erase_chunk(
    records: SqlRecords, log: AuditLog, ids: list[str], by: str, reason: str
) -> list[Finding]:
    for _ in range(TRIES):
        findings = find(records, ids)
        readable = [finding for finding in findings if finding.records]
        if not readable:
            return findings
        evidence = [_record(finding, by, reason) for finding in readable]
        with suppress(Conflict):
            log.append(evidence, alongside=partial(_destroy, readable)).result()
            return findings
    raise Conflict("records about those being erased were added all the time: try again")


def _record(finding: Finding, by: str, reason: str) -> Record:
    body = {"by": by, "reason": reason, "records": list(finding.records)}
    return unrequested("erasure", str(finding.portfolio), body, about=finding.id)


def _destroy(findings: list[Finding], connection: sa.Connection) -> None:
    """Destroy exactly the data keys that the records of the erasure name, and leave none."""
    named = list(dict.fromkeys(i for finding in findings for i in finding.records))
    for chunk in _chunks(named):
        idempotency.forget(connection, chunk)
    erased = [finding.id for finding in findings]
    connection.execute(sa.delete(GROUPS).where(GROUPS.c.decision_id.in_(erased)))
    windows.withdraw(connection, erased)
    outcomes.forget(connection, erased)
    destroyed = sum(
        connection.execute(_DESTROY, {"ids": chunk}).rowcount for chunk in _chunks(named)
    )
    left = connection.execute(_ABOUT, {"ids": erased}).first()
    if destroyed != len(named) or left is not None:
        raise Conflict("records about those being erased came or went meanwhile")
    shadowing.forget(connection, erased)


def _chunks(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]
