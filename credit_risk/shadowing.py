"""Shadowing: what a challenger says about applications that others decide about, by decision.

A process follows the chain of records, by place, as counting does (`credit_risk.windows`): all
decisions up to a place that is noted were asked about, and those behind it were not. What it says
is a table beside the chain, an index that proves nothing: whoever doubts it asks again. Reading,
opening and scoring take what time they have; writing (`keep`) is one short transaction, and tells
by the place noted whether somebody else was there meanwhile.

Nothing here touches the chain, so that no decision waits for it but for SQLite's one lock.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pydantic_core
import sqlalchemy as sa

from credit_risk.audit.tables import DECISIONS_BEHIND, LAST_PLACE, RECORDS, SHADOW, SHADOWING
from credit_risk.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credit_risk.audit.log import SqlRecords
    from credit_risk.challenges import Challenge
    from credit_risk.policy import BandName, DecisionName

LEASE = 15_000_000
"""Microseconds that others leave a challenger alone which nobody has heard of."""
FAILURES_MOST = 10
"""So often the process of one challenge may end by itself; then it is given up."""
AT_ONCE = 64
"""Decisions read and written at a time, whose places may be `_PLACES` apart: records wait for
SQLite's lock meanwhile, for so many about as long as for a commit of their own."""
_PLACES = 4_096

Cause = Literal["crashed", "hung", "memory", "package"]
"""Why the process ended: by a fault, killed for it did not go on, for lack of memory, or because
the challenger cannot be loaded or fails its golden records."""

_C = RECORDS.c
_S = SHADOWING.c
_OPENED = DECISIONS_BEHIND.where(_C.data_key.is_not(None))
_READ = _OPENED.where(_C.sequence <= sa.bindparam("upto")).limit(AT_ONCE)
# Whose keys are gone meanwhile: what is said of them must not stay.
_ERASED = sa.select(_C.id).where(
    _C.sequence >= sa.bindparam("first"),
    _C.sequence <= sa.bindparam("last"),
    _C.data_key.is_(None),
)
_NEXT = _OPENED.with_only_columns(_C.time).limit(1)


class State(NamedTuple):
    """How far the challenger of a portfolio is.

    ``sequence`` is the last place whose decision it was asked about, ``skipped`` how many records
    were left out. Its process ended by itself ``failures`` times, the last time for ``cause``,
    within the places ``lost_first`` to ``lost_last`` if it was asked about any then. ``holder`` is
    who is at it, left alone ``until`` then, microseconds since the epoch.
    """

    portfolio: str
    challenge: str
    model_version: str
    sequence: int
    skipped: int
    failures: int
    cause: Cause | None
    lost_first: int | None
    lost_last: int | None
    holder: str
    until: int

    @property
    def given_up(self) -> bool:
        """Whether it ended so often that it is not started again."""
        return self.failures >= FAILURES_MOST


# Made once: whoever builds them anew does so while others wait for the lock.
_STATE = sa.select(*(_S[name] for name in State._fields)).where(_S.portfolio == sa.bindparam("of"))
_STATE_LOCKED = _STATE.with_for_update()
_GO_ON = (
    sa.update(SHADOWING)
    .where(_S.portfolio == sa.bindparam("of"))
    .values({name: sa.bindparam(name) for name in State._fields[1:]})
)


class Made(NamedTuple):
    """A decision as it was made, of which a challenger is asked; ``reason`` is the first."""

    sequence: int
    id: str
    time: int
    model_version: str
    decision: DecisionName
    band: BandName
    pd: float
    reason: str | None
    sealed: bytes
    data_key: bytes


class Said(NamedTuple):
    """What the other package says: its answer, or the kind of error there was."""

    model_version: str
    pd: float | None = None
    decision: DecisionName | None = None
    band: BandName | None = None
    reason: str | None = None
    error: str | None = None
    seconds: float | None = None
    made_seconds: float | None = None


class Chunk(NamedTuple):
    """Decisions behind a place, up to ``upto``; ``end`` is the last place that there is."""

    decisions: tuple[Made, ...]
    upto: int
    end: int


class End(NamedTuple):
    """How the process ended: asked about decisions ``within`` these places, if it was.

    Where it ``went_well`` for long before, what was before that counts no more.
    """

    cause: Cause
    within: tuple[int, int] | None = None
    went_well: bool = False


class Behind(NamedTuple):
    """How many records a challenger is behind, and for how long the first decision has waited."""

    records: int
    seconds: float


def state(records: SqlRecords, portfolio: str) -> State | None:
    """How far the challenger of a portfolio is; None where there was never one."""
    with records.reading() as connection:
        return _state(connection, portfolio)


def take(connection: sa.Connection, challenge: Challenge, holder: str, now: int) -> State | None:
    """Be the one who asks the challenger; None where somebody else is.

    A challenge that is new begins at the place of its record; one by the same package as the one
    before goes on where that one is. Failures are its own.

    Args:
        connection: in a transaction that writes.
        challenge: that in force.
        holder: whoever asks.
        now: microseconds since the epoch.
    """
    found = _state(connection, challenge.portfolio, lock=True)
    if found is not None and found.holder != holder and found.until > now:
        return None
    if found is not None and found.challenge == challenge.id:
        taken = found._replace(holder=holder, until=now + LEASE)
    else:
        goes_on = found is not None and found.model_version == challenge.version
        if found is None or not goes_on:
            place = connection.execute(
                sa.select(_C.sequence).where(_C.id == challenge.id)
            ).scalar_one()
            found = State(*_names(challenge), place, 0, 0, None, None, None, holder, 0)
        taken = found._replace(
            challenge=challenge.id, failures=0, cause=None, lost_first=None, lost_last=None,
            holder=holder, until=now + LEASE,
        )  # fmt: skip
    connection.execute(sa.delete(SHADOWING).where(_S.portfolio == challenge.portfolio))
    connection.execute(sa.insert(SHADOWING).values(taken._asdict()))
    return taken


def read(records: SqlRecords, portfolio: str, after: int) -> Chunk:
    """The decisions behind a place, so many that they are soon done with; erased ones left out."""
    with records.reading() as connection:
        end = connection.execute(LAST_PLACE).scalar_one()
        upto = min(end, after + _PLACES)
        rows = connection.execute(_READ, {"after": after, "upto": upto, "of": portfolio}).all()
    if len(rows) == AT_ONCE:
        upto = rows[-1].sequence
    made = (_made(row) for row in rows)
    return Chunk(tuple(one for one in made if one is not None), upto, end)


def keep(
    connection: sa.Connection,
    before: State,
    said: Sequence[tuple[Made, Said]],
    upto: int,
    now: int,
    *,
    skipped: int = 0,
) -> State:
    """Write what was said of the decisions up to a place, and note the place.

    Args:
        connection: in a transaction that writes.
        before: how far it was.
        said: of each decision up to the place.
        upto: the place.
        now: microseconds since the epoch.
        skipped: how many of the records up to there were left out.

    Raises:
        Conflict: somebody else asks now, or it is asked for another challenge.
    """
    there = _state(connection, before.portfolio, lock=True)
    if there is None or (there.challenge, there.holder, there.sequence) != (
        before.challenge,
        before.holder,
        before.sequence,
    ):
        raise Conflict("somebody else asks the challenger")
    if said:
        within = {"first": said[0][0].sequence, "last": said[-1][0].sequence}
        erased = set(connection.execute(_ERASED, within).scalars())
        rows = [_row(before.portfolio, made, one) for made, one in said if made.id not in erased]
        if rows:
            connection.exec_driver_sql(_insert(connection.dialect), rows)
    after = before._replace(sequence=upto, skipped=before.skipped + skipped, until=now + LEASE)
    # What ended the process before was lost within these places, and they are behind.
    if after.lost_last is not None and after.lost_last <= upto:
        after = after._replace(lost_first=None, lost_last=None)
    _go_on(connection, after)
    return after


def failed(
    connection: sa.Connection,
    challenge: Challenge,
    holder: str,
    end: End,
    now: int,
) -> State | None:
    """Note that the process ended by itself; None where somebody else asks by now.

    Args:
        connection: in a transaction that writes.
        challenge: that in force.
        holder: whose process it was.
        end: how it ended.
        now: microseconds since the epoch.
    """
    found = take(connection, challenge, holder, now)
    if found is None:
        return None
    first, last = end.within or (None, None)
    after = found._replace(
        failures=1 if end.went_well else found.failures + 1,
        cause=end.cause,
        lost_first=first,
        lost_last=last,
    )
    _go_on(connection, after)
    return after


def behind(records: SqlRecords, portfolio: str, place: int, now: int) -> Behind:
    """How far behind the end of the chain a place is, as far as decisions go.

    Args:
        records: where they are read.
        portfolio: whose decisions.
        place: up to which the challenger was asked.
        now: microseconds since the epoch.
    """
    with records.reading() as connection:
        end = connection.execute(LAST_PLACE).scalar_one()
        if end <= place:
            return Behind(0, 0.0)
        first = connection.execute(_NEXT, {"after": place, "of": portfolio}).scalar_one_or_none()
    if first is None:
        return Behind(0, 0.0)
    return Behind(end - place, max(now - first, 0) / 1e6)


def forget(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Delete what was said about decisions, in the transaction that takes or erases these.

    Whoever writes at that moment is waited for, and then finds that they are gone: see `keep`.
    """
    connection.execute(sa.select(_S.portfolio).with_for_update()).all()
    connection.execute(sa.delete(SHADOW).where(SHADOW.c.decision_id.in_(ids)))


def _state(connection: sa.Connection, portfolio: str, *, lock: bool = False) -> State | None:
    asked = _STATE_LOCKED if lock else _STATE
    row = connection.execute(asked, {"of": portfolio}).one_or_none()
    return None if row is None else State(*row)


def _go_on(connection: sa.Connection, after: State) -> None:
    portfolio, *rest = after
    connection.execute(_GO_ON, {"of": portfolio, **dict(zip(State._fields[1:], rest, strict=True))})


@cache
def _insert(dialect: sa.Dialect) -> str:
    """The statement in the driver's own words: others wait for SQLite's lock meanwhile."""
    columns = [column.name for column in SHADOW.columns]
    return str(sa.insert(SHADOW).compile(dialect=dialect, column_keys=columns))


def _names(challenge: Challenge) -> tuple[str, str, str]:
    return challenge.portfolio, challenge.id, challenge.version


def _made(row: Any) -> Made | None:  # noqa: ANN401 - a row
    """The decision of a row; None of one that was altered, which is the chain's to say."""
    try:
        body = pydantic_core.from_json(row.body)
        band, pd = body["risk_band"], float(body["probability_of_default"])
        reason = body["reasons"][0]["code"] if body["reasons"] else None
    except (ValueError, TypeError, KeyError):
        return None
    made = (row.sequence, row.id, row.time, row.model_version, row.decision, band, pd, reason)
    return Made(*made, row.sealed, row.data_key)


def _row(portfolio: str, made: Made, said: Said) -> tuple[str | int | float | None, ...]:
    """A row of the table, in the order of its columns."""
    by, *answer = said
    decided = (made.model_version, made.time, made.pd, made.decision, made.band, made.reason)
    return (made.id, by, portfolio, *decided, *answer)
