"""Retention: records that are older than they have to be kept lose what they say.

Of a record that is taken its place in the chain is left: sequence, id, kind and hashes; so whatever
else is in the chain verifies as before. Each transaction that takes some puts on record which, in
one of kind "retention", whose body is::

    {"by": who, "months": 25, "before": time, "open_reviews": false, "trust_clock": false,
     "held": 0, "records": {kind: number, ...}, "sequences": [[first, last], ...],
     "held_sequences": [[first, last], ...]}

``months`` is the term, ``before`` the end of what is old enough by it, ``held`` how many records
were to stay whatever their age; ``held_sequences`` are those of them that were passed over here.
``trust_clock`` says that the clock was believed although the records gave it the lie, see `doubts`.
Every row that has lost its body is within one of these ranges, both ends included, of a retention
record behind it in the chain; and every row within one has lost it. A case is taken as a whole, a
decision with all records about it, and only when the last of these is old enough: the law counts
from when the applicant was told, and an outcome proves nothing without its decision. What says how
the server came to decide as it did, activations, challenges, starts and checks of whether to
retrain, is never taken, nor are erasures and retention's own records.
"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import sqlalchemy as sa
from pydantic_core import from_json

from credit_risk import idempotency, shadowing, windows
from credit_risk.audit.records import RecordKind, instant, moment, read, unrequested
from credit_risk.audit.tables import GROUPS, OUTCOMES, RECORDS, REVIEWS
from credit_risk.errors import Conflict, DataInvalid, RecordNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import AuditLog, Record

CASES: tuple[RecordKind, ...] = ("decision", "refusal", "failure")
"""What is taken by its own age; records about these go with them."""
NEVER: tuple[RecordKind, ...] = (
    "activation",
    "challenge",
    "start",
    "erasure",
    "retention",
    "acknowledgement",
    "retraining-check",
    "retraining-decision",
    "approval",
    "promotion",
)
MONTHS = 25
"""How long records are kept where neither settings nor regime say."""
AT_ONCE = 500
"""Cases taken in one transaction, which decisions wait for: on PostgreSQL tenths of a second."""
IDLE = 7 * 86_400_000_000
"""Microseconds for which nothing may have been recorded until now, for the clock to be believed."""
PAUSE = 31 * 86_400_000_000
"""The same of a pause between records."""
TRIES = 10
"""How often to look anew, where somebody works on what is being taken."""
HELD_MOST = 10_000
"""Records that can be held at a time."""
_IDS_AT_ONCE = 500
_STEP = 2**24 * 1_000
"""Microseconds in what the first six digits of an id tell apart."""

State = Literal["due", "open review", "reviewed since", "outcome since", "held"]
_Place: TypeAlias = tuple[int, int]
"""Time and sequence of a record: after it, another page begins."""

_C = RECORDS.c
_OTHER = RECORDS.alias("other")
_TAKEN = dict.fromkeys(
    (
        *("time", "portfolio", "request_id", "model_version", "policy_version", "decision"),
        *("status", "about", "body", "sealed", "data_key"),
    )
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What is to go: all before ``before``, microseconds since the epoch, ``months`` ago.

    ``held`` are ids of records that stay whatever their age, such as those of a lawsuit. With
    ``open_reviews`` decisions go that still wait for a reviewer. ``trust_clock`` is for the record:
    that there were `doubts` of the clock, and whoever takes them believed it.

    Raises:
        DataInvalid: more are held than `HELD_MOST`.
    """

    months: int
    before: int
    held: tuple[str, ...] = ()
    open_reviews: bool = False
    trust_clock: bool = False

    def __post_init__(self) -> None:
        if len(self.held) > HELD_MOST:
            raise DataInvalid(f"{len(self.held):,} records are held, and {HELD_MOST:,} can be")


class Row(NamedTuple):
    """How many records of a portfolio and kind are older than they have to be kept.

    ``state`` says whether they are due, or why not. ``oldest`` and ``newest`` are microseconds.
    """

    portfolio: str
    kind: str
    state: State
    number: int
    oldest: int
    newest: int


def months_before(moment: datetime, months: int) -> datetime:
    """The same day and time so many calendar months earlier, or the last day of that month."""
    year, month = divmod(moment.year * 12 + moment.month - 1 - months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


def doubts(records: SqlRecords, now: int, since: int) -> list[str]:
    """Why the clock may be wrong: a clock that is ahead has records taken that are too young.

    The records tell, by the times in their ids (UUIDv7), which stay when retention takes the rest.
    A clock that went wrong before the last record shows as a long pause between two.

    Args:
        records: where.
        now: what the clock says, microseconds since the epoch.
        since: the time of the oldest record that is due: whether there were pauses before it makes
            nothing older.

    Raises:
        RecordingFailed: the database fails.
    """
    # The first digits of an id, as text: steps of 2^24 ms, which is 4 hours and 40 minutes.
    step = sa.func.substr(_C.id, 1, 6)
    made = sa.select(step).where(sa.func.substr(_C.id, 15, 1) == "7").distinct()
    with records.reading() as connection:
        found = connection.execute(made).scalars().all()
    made_at = (int(one, 16) * _STEP for one in found if re.fullmatch(r"[0-9a-f]{6}", one))
    times = sorted(at for at in made_at if at <= now)
    told = [
        f"nothing is on record from {_day(one)} to {_day(other)}"
        for one, other in pairwise(times)
        if other > since and other - one > PAUSE
    ]
    if times and now - times[-1] > IDLE:
        told.append(f"nothing is on record from {_day(times[-1])} until now, {_day(now)}")
    return told


def _day(at: int) -> str:
    return moment(at)[:10]


def held(records: SqlRecords, ids: Sequence[str]) -> tuple[str, ...]:
    """The ids of the records that are held by holding these: of a review, the decision it is about.

    Raises:
        RecordNotFound: there is no record of one of the ids; what is taken comes never back, so
            that a hold that holds nothing is refused.
        RecordingFailed: the database fails.
    """
    wanted = {record_id.lower(): record_id for record_id in ids}
    found: dict[str, str] = {}
    names = sorted(wanted)
    with records.reading() as connection:
        for start in range(0, len(names), _IDS_AT_ONCE):
            some = sa.select(_C.id, _C.about).where(_C.id.in_(names[start : start + _IDS_AT_ONCE]))
            found |= {own: about or own for own, about in connection.execute(some)}
    unknown = sorted(wanted.keys() - found.keys())
    if unknown:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise RecordNotFound(f"no record has the id {wanted[unknown[0]]}{more}: it cannot be held")
    return tuple(sorted(set(found.values())))


def released(records: SqlRecords, terms: Terms) -> int:
    """How many of what is due an earlier retention held: a hold is of that run alone.

    Raises:
        RecordingFailed: the database fails.
        EvidenceInvalid: a retention does not say what it held.
    """
    number = 0
    for portfolio in portfolios(records):
        holding = sa.select(_C.id, _C.body).where(
            *(_C.portfolio == portfolio, _C.kind == "retention"),
            _C.body.like('%"held_sequences":[[%'),
        )
        with records.reading() as connection:
            said = connection.execute(holding).all()
        places: set[int] = set()
        for record_id, body in said:
            with read(record_id, "retention"):
                for first, last in from_json(body)["held_sequences"]:
                    places.update(range(first, last + 1))
        were_held = ranges(sorted(places))
        for start in range(0, len(were_held), _IDS_AT_ONCE):
            some = were_held[start : start + _IDS_AT_ONCE]
            due = sa.select(sa.func.count()).where(
                *(_C.portfolio == portfolio, _C.kind.in_(CASES), _C.time < terms.before),
                sa.or_(*(_C.sequence.between(first, last) for first, last in some)),
                _state(terms) == "due",
            )
            with records.reading() as connection:
                number += connection.execute(due).scalar_one()
    return number


def report(records: SqlRecords, terms: Terms) -> list[Row]:
    """What is older than it has to be kept, by portfolio, kind and state.

    Records about decisions are in it where their decisions are due.

    Raises:
        RecordingFailed: the database fails.
    """
    rows: list[Row] = []
    number = sa.func.count()
    for portfolio in portfolios(records):
        for kind in CASES:
            states = sa.select(_state(terms).label("state"), _C.time)
            old = states.where(*_old(terms, portfolio, kind)).subquery().c
            counted = sa.select(old.state, number, sa.func.min(old.time), sa.func.max(old.time))
            counted = counted.group_by(old.state)
            with records.reading() as connection:
                found = connection.execute(counted).all()
            rows += [Row(portfolio, kind, *row) for row in sorted(found)]
        decided = sa.select(_C.id).where(*_due(terms, portfolio, "decision")).subquery()
        other = _OTHER.c
        following = (
            sa.select(other.kind, number, sa.func.min(other.time), sa.func.max(other.time))
            .where(other.about == decided.c.id, other.kind.not_in(NEVER))
            .group_by(other.kind)
        )
        with records.reading() as connection:
            about = connection.execute(following).all()
        rows += [Row(portfolio, kind, "due", *rest) for kind, *rest in sorted(about)]
    return rows


def take(
    records: SqlRecords,
    log: AuditLog,
    terms: Terms,
    *,
    by: str,
    progress: Callable[[int, int | None], None],
) -> Counter[str]:
    """Take what is due; returns how many records of each kind were taken.

    Stopped halfway, what was taken is on record, and the same call again takes the rest.

    Args:
        records: where records are read.
        log: where it is recorded; of the same database.
        terms: what is to go.
        by: who takes it.
        progress: told how many records were taken.

    Raises:
        RecordingFailed: the database fails.
        Conflict: somebody kept working on what is being taken.
    """
    taken: Counter[str] = Counter()
    for portfolio in portfolios(records):
        for kind in CASES:
            after: _Place | None = (-1, 0)
            while after is not None:
                number, after = _take_some(records, log, terms, portfolio, kind, by, after)
                taken += number
                progress(taken.total(), None)
        if taken:
            log.append((), alongside=partial(windows.expire, portfolio, terms.before)).result()
    return taken


def portfolios(records: SqlRecords) -> Iterator[str]:
    """The portfolios that there are records of, in order; quick however many there are."""
    last = ""
    while True:
        following = sa.select(sa.func.min(_C.portfolio)).where(_C.portfolio > last)
        with records.reading() as connection:
            found: str | None = connection.execute(following).scalar_one()
        if found is None:
            return
        yield found
        last = found


def _take_some(  # noqa: PLR0917 - all of them say what to take
    records: SqlRecords,
    log: AuditLog,
    terms: Terms,
    portfolio: str,
    kind: RecordKind,
    by: str,
    after: _Place,
) -> tuple[Counter[str], _Place | None]:
    """Take some of what is due, in one transaction; and where to go on, if there may be more."""
    page = (
        sa.select(_C.time, _C.sequence, _C.id)
        .where(*_due(terms, portfolio, kind), sa.tuple_(_C.time, _C.sequence) > sa.tuple_(*after))
        .order_by(_C.time, _C.sequence)
        .limit(AT_ONCE)
    )
    for _ in range(TRIES):
        with records.reading() as connection:
            cases = connection.execute(page).all()
            ids = [case.id for case in cases]
            about = connection.execute(
                sa.select(_C.sequence, _C.kind).where(_C.about.in_(ids), _C.kind.not_in(NEVER))
            ).all()
            last = (cases[-1].time, cases[-1].sequence) if len(cases) == AT_ONCE else None
            held = _passed_over(connection, terms, portfolio, kind, between=(after, last))
        if not cases:
            return Counter(), None
        sequences = sorted({case.sequence for case in cases} | {other.sequence for other in about})
        number = Counter({kind: len(cases)}) + Counter(other.kind for other in about)
        record = _record(terms, portfolio, by, number, sequences, held)
        chosen = partial(_take, _due(terms, portfolio, kind), ids, sequences)
        with suppress(Conflict):
            log.append([record], alongside=chosen).result()
            return number, last
    raise Conflict("somebody worked on the records being taken all the time: try again")


def _passed_over(
    connection: sa.Connection,
    terms: Terms,
    portfolio: str,
    kind: RecordKind,
    *,
    between: tuple[_Place, _Place | None],
) -> list[int]:
    """The places of what would be old enough between two places, and is held."""
    if not terms.held:
        return []
    place, (after, last) = sa.tuple_(_C.time, _C.sequence), between
    conditions = [*_old(terms, portfolio, kind), _C.id.in_(terms.held), place > sa.tuple_(*after)]
    if last is not None:
        conditions.append(place <= sa.tuple_(*last))
    found = sa.select(_C.sequence).where(*conditions).order_by(_C.sequence)
    return list(connection.execute(found).scalars())


def _record(  # noqa: PLR0917 - all of them are in it
    terms: Terms,
    portfolio: str,
    by: str,
    number: Counter[str],
    sequences: list[int],
    held: list[int],
) -> Record:
    before = instant(terms.before).isoformat(timespec="seconds")
    return unrequested(
        "retention",
        portfolio,
        {
            "by": by,
            "months": terms.months,
            "before": before.replace("+00:00", "Z"),
            "open_reviews": terms.open_reviews,
            "held": len(terms.held),
            "trust_clock": terms.trust_clock,
            "records": dict(number),
            "sequences": ranges(sequences),
            "held_sequences": ranges(held),
        },
    )


def ranges(numbers: Sequence[int]) -> list[list[int]]:
    """Rising numbers as ranges of such as follow each other, both ends included."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _take(
    due: list[sa.ColumnElement[bool]],
    ids: list[str],
    sequences: list[int],
    connection: sa.Connection,
) -> None:
    """Take exactly the records that the one of this says, if they still are what is due."""
    idempotency.forget(connection, ids)
    still = sa.select(sa.func.count()).select_from(RECORDS).where(*due, _C.id.in_(ids))
    gone = sa.update(RECORDS).where(_C.sequence.in_(sequences), _C.body.is_not(None))
    left = sa.select(_C.id).where(_C.about.in_(ids), _C.kind.not_in(NEVER))
    if (
        connection.execute(still).scalar_one() != len(ids)
        or connection.execute(gone.values(_TAKEN)).rowcount != len(sequences)
        or connection.execute(left).first() is not None
    ):
        raise Conflict("somebody worked on the records being taken")
    for table in (REVIEWS, OUTCOMES, GROUPS):
        connection.execute(sa.delete(table).where(table.c.decision_id.in_(ids)))
    shadowing.forget(connection, ids)


def _old(terms: Terms, portfolio: str, kind: RecordKind) -> list[sa.ColumnElement[bool]]:
    return [_C.portfolio == portfolio, _C.kind == kind, _C.time < terms.before]


def _due(terms: Terms, portfolio: str, kind: RecordKind) -> list[sa.ColumnElement[bool]]:
    return [*_old(terms, portfolio, kind), _state(terms) == "due"]


def _state(terms: Terms) -> sa.ColumnElement[str]:
    """The `State` of a record that is old."""
    other = _OTHER.c
    since = (other.about == _C.id, other.time >= terms.before, other.kind.not_in(NEVER))
    waiting = sa.exists().where(REVIEWS.c.decision_id == _C.id)
    reasons: dict[State, sa.ColumnElement[bool]] = {
        "reviewed since": sa.exists().where(*since, other.kind != "outcome"),
        "outcome since": sa.exists().where(*since),
    }
    if not terms.open_reviews:
        reasons = {"open review": waiting, **reasons}
    if terms.held:
        reasons = {"held": _C.id.in_(terms.held), **reasons}
    # Words of ours, and as text: a parameter is one thing here and another where it is grouped by.
    words: dict[str, sa.ColumnElement[str]] = {
        name: sa.literal_column(f"'{name}'") for name in (*reasons, "due")
    }
    return sa.case(*((reasons[name], words[name]) for name in reasons), else_=words["due"])
