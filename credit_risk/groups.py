"""Groups of applicants, which no model may see: supplied apart, kept apart, under their own key.

Fair-lending figures need to know who belongs to which group by sex, age or origin, and decisions
must not. So groups never come with an application: they are supplied by decision id afterwards,
are no part of the chain of records, and are sealed under keys that seal nothing else
(``CREDIT_RISK_GROUPS_KEYS``). Who erases a decision, or takes it by retention, takes its groups
along. Beside each is what `credit_risk.fairness` compares: time, decision and PD.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pydantic_core
import sqlalchemy as sa

from credit_risk.audit.records import read
from credit_risk.audit.tables import GROUPS, RECORDS
from credit_risk.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.log import SqlAuditLog, SqlRecords

AT_ONCE = 500
"""Rows written in one transaction."""
ATTRIBUTE = r"^[a-z][a-z0-9_]{0,39}$"
"""What an attribute is called."""

State = Literal["kept", "changed", "unchanged", "removed", "duplicate", "unknown", "erased"]
STATES: dict[State, str] = {
    "kept": "the applicant's group is known from now on",
    "changed": "it is another one from now on, and nothing is left of the one before",
    "unchanged": "it was known just so",
    "removed": "an empty value: nothing is known any more",
    "duplicate": "the decision is named more than once; none of these was taken",
    "unknown": "no decision of this portfolio has the id, or retention has taken it",
    "erased": "the applicant's data were erased, and nothing is added to them",
}
"""What becomes of a row, and what that means."""
REFUSED: frozenset[State] = frozenset({"duplicate", "unknown", "erased"})

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_G = GROUPS.c
_C = RECORDS.c


class Member(NamedTuple):
    """To which group the applicant of a decision belongs; "" to forget it."""

    decision_id: str
    value: str


def is_attribute(name: str) -> bool:
    """Whether an attribute may be called so."""
    return re.fullmatch(ATTRIBUTE, name) is not None


def attributes(records: SqlRecords, portfolio: str) -> Sequence[str]:
    """By what applicants are grouped, in order.

    Raises:
        RecordingFailed: the database fails.
    """
    known = sa.select(_G.attribute).where(_G.portfolio == portfolio).distinct()
    with records.reading() as connection:
        return connection.execute(known.order_by(_G.attribute)).scalars().all()


def add(
    log: SqlAuditLog,
    sealing: Sealing,
    portfolio: str,
    attribute: str,
    members: Sequence[Member],
) -> list[State]:
    """Take note of the groups that applicants belong to by one attribute.

    Args:
        log: of the database.
        sealing: what seals groups.
        portfolio: whose decisions.
        attribute: such as ``sex``; see `ATTRIBUTE`.
        members: each decision once.

    Returns:
        What became of each, in order.

    Raises:
        RecordingFailed: the database fails; `AT_ONCE` at a time, rows before are kept.
        EvidenceInvalid: what was kept before was altered.
        Conflict: a decision was erased or taken meanwhile.
    """
    times = Counter(member.decision_id for member in members)
    states: list[State] = []
    for start in range(0, len(members), AT_ONCE):
        some = members[start : start + AT_ONCE]
        once = [member for member in some if times[member.decision_id] == 1]
        found = _add_some(log, sealing, portfolio, attribute, once)
        states += [found.get(member.decision_id, "duplicate") for member in some]
    return states


def opened(sealing: Sealing, decision_id: str, attribute: str, sealed: bytes) -> str | None:
    """The group that was sealed; None where the key that wraps its key is not here.

    Raises:
        EvidenceInvalid: it was altered.
    """
    found = sealing.open_as_one(_context(decision_id, attribute), sealed)
    return None if found is None else found.decode()


def _add_some(
    log: SqlAuditLog,
    sealing: Sealing,
    portfolio: str,
    attribute: str,
    members: Sequence[Member],
) -> dict[str, State]:
    ids = [member.decision_id for member in members if re.fullmatch(_UUID, member.decision_id)]
    decided = sa.select(
        *(_C.id, _C.time, _C.model_version, _C.decision, _C.body, _C.data_key)
    ).where(_C.id.in_(ids), _C.kind == "decision", _C.portfolio == portfolio)
    there = sa.select(_G.decision_id, _G.sealed).where(
        _G.decision_id.in_(ids), _G.attribute == attribute
    )
    with log.reading() as connection:
        decisions = {row.id: row for row in connection.execute(decided)}
        before = {
            row.decision_id: opened(sealing, row.decision_id, attribute, row.sealed)
            for row in connection.execute(there)
        }
    states = {
        member.decision_id: _judged(member, decisions.get(member.decision_id), before)
        for member in members
    }
    gone = [one for one, state in states.items() if state == "removed"]
    rows = [
        _row(sealing, portfolio, attribute, member, decisions[member.decision_id])
        for member in members
        if states[member.decision_id] in {"kept", "changed"}
    ]
    if gone or rows:
        log.append((), alongside=partial(_write, attribute, gone, rows)).result()
    return states


def _judged(member: Member, decision: Any, before: dict[str, str | None]) -> State:  # noqa: ANN401 - a row
    one, value = member
    if decision is None:
        return "unknown"
    if decision.data_key is None:
        return "erased"
    if not value:
        return "removed" if one in before else "unchanged"
    if one not in before:
        return "kept"
    return "unchanged" if before[one] == value else "changed"


def _row(
    sealing: Sealing,
    portfolio: str,
    attribute: str,
    member: Member,
    decision: Any,  # noqa: ANN401 - a row
) -> dict[str, Any]:
    with read(member.decision_id, "decision"):
        pd = pydantic_core.from_json(decision.body)["probability_of_default"]
    context = _context(member.decision_id, attribute)
    return {
        "decision_id": member.decision_id,
        "attribute": attribute,
        "portfolio": portfolio,
        "model_version": decision.model_version,
        "decided": decision.time,
        "decision": decision.decision,
        "pd": pd,
        "sealed": sealing.seal_as_one(context, member.value.encode()),
    }


def _write(
    attribute: str, gone: list[str], rows: list[dict[str, Any]], connection: sa.Connection
) -> None:
    ids = [row["decision_id"] for row in rows]
    these = (_G.decision_id.in_([*gone, *ids]), _G.attribute == attribute)
    connection.execute(sa.delete(GROUPS).where(*these))
    left = sa.select(sa.func.count()).where(_C.id.in_(ids), _C.data_key.is_not(None))
    if connection.execute(left).scalar_one() != len(ids):
        raise Conflict("some of these decisions were erased or taken meanwhile: try again")
    if rows:
        connection.execute(sa.insert(GROUPS), rows)


def _context(decision_id: str, attribute: str) -> str:
    """What a sealed group is bound to: taken to another row, it does not open."""
    return f"{decision_id} {attribute}"
