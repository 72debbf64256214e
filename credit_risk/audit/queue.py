"""The queue of reviews in the database: an index of the cases that wait for people.

What happened is in the chain; the table only finds the cases that wait, without reading every
decision. It is changed in the transaction of the step's record, so that neither is there without
the other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import sqlalchemy as sa

from credit_risk.audit.tables import RECORDS, REVIEWS
from credit_risk.errors import Conflict
from credit_risk.reviews import Proposal

if TYPE_CHECKING:
    from credit_risk.audit.records import Alongside
    from credit_risk.reviews import Case

WaitingState: TypeAlias = Literal["open", "claimed", "proposed"]

_R = REVIEWS.c


class Waiting(NamedTuple):
    """A case that waits; see `credit_risk.reviews.Case`."""

    decision_id: str
    time: int
    holder: str | None
    until: int | None
    proposal: Proposal | None


def keep(case: Case) -> Alongside:
    """What goes with the record of the step that led to this case.

    It raises `Conflict` where that step is not the next one: somebody else was first.
    """

    def alongside(connection: sa.Connection) -> None:
        # The step itself is among them. Writers take turns, so that nobody counts the same number.
        steps = sa.select(sa.func.count()).where(
            RECORDS.c.about == case.decision_id, RECORDS.c.kind.in_(("claim", "review"))
        )
        there = sa.select(RECORDS.c.body).where(RECORDS.c.id == case.decision_id)
        if connection.execute(there).scalar_one_or_none() is None:
            raise Conflict("retention has taken the decision meanwhile")
        if connection.execute(steps).scalar_one() != case.steps:
            raise Conflict("somebody else took a step in this case meanwhile")
        connection.execute(sa.delete(REVIEWS).where(_R.decision_id == case.decision_id))
        if case.waits:
            proposal = None if case.proposal is None else json.dumps(case.proposal.to_json())
            connection.execute(
                sa.insert(REVIEWS).values(
                    decision_id=case.decision_id,
                    portfolio=case.portfolio,
                    time=case.time,
                    state="open" if proposal is None else "proposed",
                    holder=case.holder,
                    until=case.until,
                    proposal=proposal,
                    version=case.steps,
                )
            )

    return alongside


def place(connection: sa.Connection, decision_id: str) -> tuple[int, str] | None:
    """Where a decision stands, or stood, in the queue; None where there is no such decision."""
    time = connection.execute(
        sa.select(RECORDS.c.time).where(RECORDS.c.id == decision_id)
    ).scalar_one_or_none()
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
    in_state = {
        "claimed": held,
        "proposed": sa.and_(_R.proposal.is_not(None), sa.not_(held)),
        "open": sa.and_(_R.proposal.is_(None), sa.not_(held)),
    }
    conditions = [_R.portfolio == portfolio]
    if state is not None:
        conditions.append(in_state[state])
    if after is not None:
        conditions.append(sa.tuple_(_R.time, _R.decision_id) > sa.tuple_(*after))
    found = connection.execute(
        sa.select(_R.decision_id, _R.time, _R.holder, _R.until, _R.proposal)
        .where(*conditions)
        .order_by(_R.time, _R.decision_id)
        .limit(limit)
    )
    return [
        Waiting(
            row.decision_id,
            row.time,
            row.holder,
            row.until,
            None if row.proposal is None else Proposal(**json.loads(row.proposal)),
        )
        for row in found
    ]


def number(connection: sa.Connection, portfolio: str) -> int:
    """How many cases wait."""
    counted = sa.select(sa.func.count()).where(_R.portfolio == portfolio)
    return connection.execute(counted).scalar_one()
