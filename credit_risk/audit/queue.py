"""The queue of reviews in the database: an index of the cases that wait for people.

What happened is in the chain; the table only finds the cases that wait, without reading every
decision. It is changed in the transaction of the step's record, so that neither is there without
the other. It proves nothing: what somebody does to it is found by `differences` from the chain, and
`rebuild` makes it anew.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import pydantic_core
import sqlalchemy as sa

from credit_risk.audit.database import as_stored
from credit_risk.audit.tables import RECORDS, REVIEWS
from credit_risk.errors import Conflict
from credit_risk.reviews import Case, Proposal, after

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from credit_risk.audit.checkpoints import Reading
    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import Alongside, AuditLog, RecordKind

WaitingState: TypeAlias = Literal["open", "claimed", "proposed", "disputed"]

_AT_ONCE = 500
"""Cases compared, or mended in one transaction."""
_TRIES = 10
"""How often to look anew, where somebody works on what is being compared."""
_STEPS: tuple[RecordKind, ...] = ("claim", "review")
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_C = RECORDS.c
_R = REVIEWS.c


class Waiting(NamedTuple):
    """A case that waits; see `credit_risk.reviews.Case`."""

    decision_id: str
    time: int
    holder: str | None
    until: int | None
    proposal: Proposal | None
    dissent: Proposal | None


class _Row(NamedTuple):
    """A row of the table."""

    decision_id: str
    portfolio: str
    time: int
    state: str
    holder: str | None
    until: int | None
    proposal: str | None
    version: int


def keep(case: Case) -> Alongside:
    """What goes with the record of the step that led to this case.

    It raises `Conflict` where that step is not the next one: somebody else was first.
    """

    def alongside(connection: sa.Connection) -> None:
        # The step itself is among them. Writers take turns, so that nobody counts the same number.
        steps = sa.select(sa.func.count()).where(_C.about == case.decision_id, _C.kind.in_(_STEPS))
        there = sa.select(_C.body).where(_C.id == case.decision_id)
        if connection.execute(there).scalar_one_or_none() is None:
            raise Conflict("retention has taken the decision meanwhile")
        if connection.execute(steps).scalar_one() != case.steps:
            raise Conflict("somebody else took a step in this case meanwhile")
        connection.execute(sa.delete(REVIEWS).where(_R.decision_id == case.decision_id))
        if case.waits:
            connection.execute(sa.insert(REVIEWS).values(_row(case)._asdict()))

    return alongside


def _row(case: Case) -> _Row:
    """The row of a case that waits."""
    return _Row(
        decision_id=case.decision_id,
        portfolio=case.portfolio,
        time=case.time,
        state=case.step,
        holder=case.holder,
        until=case.until,
        proposal=None if case.proposal is None else json.dumps(_said(case.proposal, case.dissent)),
        version=case.steps,
    )


def _said(proposal: Proposal, dissent: Proposal | None) -> dict[str, Any]:
    """A proposal and what was said against it, as the one column has both."""
    return proposal.to_json() | ({} if dissent is None else {"dissent": dissent.to_json()})


def place(connection: sa.Connection, decision_id: str) -> tuple[int, str] | None:
    """Where a decision stands, or stood, in the queue; None where there is no such decision."""
    time = connection.execute(sa.select(_C.time).where(_C.id == decision_id)).scalar_one_or_none()
    return None if time is None else (time, decision_id)


def waiting(
    connection: sa.Connection,
    portfolio: str,
    now: int,
    *,
    state: WaitingState | None = None,
    after: tuple[int, str] | None = None,
    limit: int = 50,
) -> list[Waiting]:
    """The cases that wait, those decided first at the beginning.

    Args:
        connection: one that reads.
        portfolio: whose decisions.
        now: when; a claim that is over by then is none.
        state: only those in it at that time.
        after: continue behind this `place`.
        limit: at most so many.
    """
    held = sa.and_(_R.until.is_not(None), _R.until > now)
    conditions = [_R.portfolio == portfolio]
    if state == "claimed":
        conditions.append(held)
    elif state is not None:
        conditions += [_R.state == state, sa.not_(held)]
    if after is not None:
        conditions.append(sa.tuple_(_R.time, _R.decision_id) > sa.tuple_(*after))
    found = connection.execute(
        sa.select(_R.decision_id, _R.time, _R.holder, _R.until, _R.proposal)
        .where(*conditions)
        .order_by(_R.time, _R.decision_id)
        .limit(limit)
    )
    return [
        Waiting(row.decision_id, row.time, row.holder, row.until, *_read(row.proposal))
        for row in found
    ]


def _read(text: str | None) -> tuple[Proposal | None, Proposal | None]:
    """A proposal and what was said against it."""
    if text is None:
        return None, None
    said = json.loads(text)
    dissent = said.pop("dissent", None)
    return Proposal(**said), None if dissent is None else Proposal(**dissent)


def number(connection: sa.Connection, portfolio: str, model_version: str | None = None) -> int:
    """How many cases wait; of the decisions of one package, or of all."""
    counted = sa.select(sa.func.count()).where(_R.portfolio == portfolio)
    if model_version is not None:
        theirs = sa.and_(RECORDS.c.id == _R.decision_id, RECORDS.c.model_version == model_version)
        counted = counted.where(sa.exists().where(theirs))
    return connection.execute(counted).scalar_one()


class Difference(NamedTuple):
    """A case of which the queue says otherwise than the chain.

    It is ``missing`` from the queue, ``extra`` there, or ``different``.
    """

    kind: Literal["missing", "extra", "different"]
    decision_id: str
    detail: str

    def __str__(self) -> str:
        """A line for people."""
        return f"{self.kind}: decision {self.decision_id} {self.detail}"


def differences(reading: Reading) -> Iterator[Difference]:
    """The cases of which the queue says otherwise than the chain does.

    Memory is for the cases that somebody works on, and for those that are not as they should be.

    Args:
        reading: gives a connection that reads; the log may be written meanwhile.

    Raises:
        RecordingFailed: the database fails.
    """
    for ids in _doubtful(reading):
        left = ids
        for _ in range(_TRIES):
            with reading() as connection:
                before = _rows(connection, left)
                wanted = _wanted(connection, left)
                since = _rows(connection, left)
            # Of a case in which somebody took a step meanwhile, the two do not belong together.
            moved = {one for one in left if before.get(one) != since.get(one)}
            yield from _compared([one for one in left if one not in moved], before, wanted)
            left = sorted(moved)
            if not left:
                break


def rebuild(records: SqlRecords, log: AuditLog) -> Counter[str]:
    """Make the queue what the chain says; how many cases were of each kind of `Difference`.

    A bounded number of cases at a time, while servers write. Stopped halfway, the same call again
    does the rest.

    Args:
        records: where the queue and the chain are read.
        log: where the queue is written; of the same database.

    Raises:
        RecordingFailed: the database fails.
    """
    done: Counter[str] = Counter()
    for ids in _doubtful(records.reading):
        mended: list[Difference] = []
        log.append((), alongside=partial(_mend, ids, mended)).result()
        done.update(difference.kind for difference in mended)
    return done


def _mend(ids: Sequence[str], mended: list[Difference], connection: sa.Connection) -> None:
    wanted = _wanted(connection, ids)
    # Set and not added to: it is run again when others in the transaction were undone.
    mended[:] = _compared(ids, _rows(connection, ids), wanted)
    for difference in mended:
        one = difference.decision_id
        connection.execute(sa.delete(REVIEWS).where(_R.decision_id == one))
        if one in wanted:
            connection.execute(sa.insert(REVIEWS).values(wanted[one]._asdict()))


def _doubtful(reading: Reading) -> Iterator[list[str]]:
    """The cases that are not plainly right: referred, in the queue, and nobody did a thing yet."""
    step, other = RECORDS.alias("step").c, RECORDS.alias("other").c
    referred = (_C.kind == "decision", _C.decision == "REVIEW", _C.body.is_not(None))
    plain = (
        *(_R.decision_id == _C.id, _R.portfolio == _C.portfolio, _R.time == _C.time),
        *(_R.state == "open", _R.version == 0),
        *(column.is_(None) for column in (_R.holder, _R.until, _R.proposal)),
    )

    def stepped(decision_id: sa.ColumnElement[str]) -> sa.Exists:
        steps = (step.about == decision_id, step.kind.in_(_STEPS), step.body.is_not(None))
        return sa.exists().where(*steps)

    def closed(decision_id: sa.ColumnElement[str]) -> sa.Exists:
        # The step that closes a case is the only one that decides.
        closes = (other.about == decision_id, other.kind == "review", other.decision.is_not(None))
        return sa.exists().where(*closes)

    wait = sa.select(_C.id).where(
        *referred,
        sa.or_(~sa.exists(sa.select(_R.decision_id).where(*plain)), stepped(_C.id)),
        ~closed(_C.id),
    )
    queued = sa.select(_R.decision_id).where(
        sa.or_(~sa.exists(sa.select(_C.id).where(*referred, *plain)), stepped(_R.decision_id))
    )
    worked_on = sa.select(step.about).where(
        step.about.is_not(None), step.kind.in_(_STEPS), ~closed(step.about)
    )
    with reading() as connection:
        found = {
            row[0] for query in (wait, queued, worked_on) for row in as_stored(connection, query)
        }
    # An id that no server makes is the chain's business.
    ids = sorted(one for one in found if isinstance(one, str) and _ID.fullmatch(one))
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def _rows(connection: sa.Connection, ids: Sequence[str]) -> dict[str, _Row]:
    """The rows of these cases in the queue."""
    found = as_stored(connection, sa.select(REVIEWS).where(_R.decision_id.in_(ids)))
    return {row[0]: _Row(*row) for row in found}


def _wanted(connection: sa.Connection, ids: Sequence[str]) -> dict[str, _Row]:
    """The rows that the chain says these cases have; of those that wait."""
    decided = sa.select(_C.id, _C.portfolio, _C.time, _C.decision).where(
        _C.id.in_(ids), _C.kind == "decision", _C.body.is_not(None)
    )
    steps = (
        sa.select(_C.about, _C.time, _C.body)
        .where(_C.about.in_(ids), _C.kind.in_(_STEPS), _C.body.is_not(None))
        .order_by(_C.sequence)
    )
    cases = {
        one: Case(one, portfolio, time, made=decision, scored=decision)
        for one, portfolio, time, decision in as_stored(connection, decided)
    }
    for about, time, body in as_stored(connection, steps):
        # A step that is none, or about no decision, leads nowhere; whether it is whole is asked
        # of the chain.
        with suppress(ValueError, LookupError, TypeError):
            cases[about] = after(cases[about], pydantic_core.from_json(body), time)
    return {one: _row(case) for one, case in cases.items() if case.waits}


def _compared(
    ids: Iterable[str], rows: dict[str, _Row], wanted: dict[str, _Row]
) -> Iterator[Difference]:
    for one in ids:
        row, want = rows.get(one), wanted.get(one)
        if row is None and want is not None:
            yield Difference("missing", one, "waits, and is not in the queue")
        elif row is not None and want is None:
            yield Difference("extra", one, "is in the queue, and does not wait")
        elif row is not None and want is not None and row != want:
            names = [name for name in _Row._fields if getattr(row, name) != getattr(want, name)]
            yield Difference("different", one, f"has another {', '.join(names)} in the queue")
