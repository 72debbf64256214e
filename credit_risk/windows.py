"""Windows of recorded decisions: applicants counted by hour and package, each of them once.

What is asked of a window is answered from counts, see `credit_risk.drift`, which add up. They are
made of the records by place in the chain, not by time: all up to a place that is noted are counted,
and those behind it are not, whatever clocks said and however late a record came. So nothing is read
twice, and a window costs its hours and not its decisions.

Counts of many are nobody's data. Those of an hour with one applicant are the application, to the
width of a cell: so all are sealed, and whoever erases somebody from an hour of a few takes what was
counted of it (`withdraw`).

Counting is reading, decrypting and arithmetic, and takes what time it has. Writing what was counted
is short, and apart from it (`Batch`, `keep`): whoever holds the database's lock must not be a
process that anything else goes before.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pydantic_core
import sqlalchemy as sa

from credit_risk.audit.records import read
from credit_risk.audit.tables import COUNTED, DECISIONS_BEHIND, LAST_PLACE, POPULATIONS, RECORDS
from credit_risk.errors import Conflict, EvidenceInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import Alongside
    from credit_risk.drift import Counts, Reference
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Schema

    Floats = npt.NDArray[np.float64]

HOUR = 3_600_000_000
"""Microseconds; windows begin and end with one."""
DAY = 24 * HOUR
_EVER = 2**62
DAYS_MOST = 400
"""Length of the longest window: thirteen months, to hold a month against that of a year ago."""
PERIOD = (
    r"^(([1-9][0-9]?|[1-3][0-9]{2}|400)d|([1-9][0-9]{0,2}|[1-8][0-9]{3}|9[0-5][0-9]{2}|9600)h)$"
)
"""A period up to now: 1 to 400 days, or 1 to 9600 hours."""
NO_PERIOD = "give a period up to 9600h or 400d, such as 24h or 7d"

APPLICANTS_MOST = 5_000
"""Applicants read to be looked at one by one."""
_SPARE = 2
"""How many times as many are read, for nearly half of what is on record may be outcomes."""
_AT_ONCE = 500
_CHUNK = 4_000
"""Records read at a time: about 16 MB."""
_RECORDS_MOST = 40_000
"""Records in a batch, which takes up to a second to count."""
_HOURS_MOST = 48
"""Hours in a batch, of up to 50 kB each: decisions wait while they are written."""
FEW = 30
"""Of an hour with fewer decisions, whoever knows the others knows the one."""

_P = POPULATIONS.c
_C = RECORDS.c
_READ = DECISIONS_BEHIND.where(_C.sequence <= sa.bindparam("upto"), _C.body.is_not(None))
_MADE = {"APPROVE": "approved", "REVIEW": "referred", "DECLINE": "declined"}


class Window(NamedTuple):
    """From ``since`` on and before ``until``: microseconds since the epoch, whole hours."""

    since: int
    until: int


class Known(NamedTuple):
    """What counting needs of a package."""

    schema: Schema
    reference: Reference


class Hour(NamedTuple):
    """The decisions of a package in an hour, which begins at ``hour``.

    ``counts`` are `Counts.to_bytes` of those that could be counted: not the erased ones, nor those
    of a package that was not there to count by; None where there are none, or no key to open them.
    """

    model_version: str
    hour: int
    rows: int
    approved: int
    referred: int
    declined: int
    counts: bytes | None


class Day(NamedTuple):
    """The decisions of a package on a day (UTC), which begins at ``day``: as `Hour` has them."""

    day: int
    rows: int
    approved: int
    referred: int
    declined: int


class Batch(NamedTuple):
    """What was counted behind the place ``after`` (None: nothing was) up to ``upto``.

    ``hours`` are as they are with it, ``counts`` sealed. ``done`` if there was nothing more when it
    was counted, up to the place ``end``.
    """

    portfolio: str
    after: int | None
    upto: int
    hours: tuple[Hour, ...]
    done: bool
    end: int


def last(period: str, now: int) -> Window:
    """The hours or days up to now, such as ``7d``; the hour that has begun is in it.

    Raises:
        ValueError: it is no such period.
    """
    if not re.fullmatch(PERIOD, period):
        raise ValueError(NO_PERIOD)
    hours = int(period[:-1]) * (24 if period.endswith("d") else 1)
    return between(now - hours * HOUR, now)


def between(since: int, until: int) -> Window:
    """The hours that two times, microseconds since the epoch, are in, and those between.

    Raises:
        ValueError: the second is not after the first, or they are more than `DAYS_MOST` apart.
    """
    if until <= since:
        raise ValueError("the end is not after the beginning")
    if until - since > DAYS_MOST * DAY:
        raise ValueError(f"a window is {DAYS_MOST} days at most")
    return Window(since // HOUR * HOUR, -(-until // HOUR) * HOUR)


def known(package: ModelPackage) -> Known:
    """What counting needs of it."""
    # Here and not above: nobody but who counts needs the statistics.
    from credit_risk.drift import Reference  # noqa: PLC0415

    return Known(package.schema, Reference.of(package))


def count(records: SqlRecords, portfolio: str, look: Callable[[str], Known | None]) -> Batch:
    """Count decisions that were not counted yet, a bounded number of them.

    Args:
        records: where they are read; with keys, for without them nothing is counted.
        portfolio: whose decisions.
        look: what is known of a package, by its version; None where it is not here.

    Raises:
        RecordingFailed: the database fails.
        EvidenceInvalid: what was counted before is not on the package's grid; see `forget`.
    """
    with records.reading() as connection:
        after = connection.execute(_cursor(portfolio)).scalar_one_or_none()
        end = connection.execute(LAST_PLACE).scalar_one()
    found: dict[tuple[str, int], _Found] = {}
    place = after or 0
    limit = min(end, place + _RECORDS_MOST)
    is_full = False
    while place < limit and not is_full:
        upto = min(place + _CHUNK, limit)
        with records.reading() as connection:
            rows = connection.execute(_READ, {"after": place, "upto": upto, "of": portfolio}).all()
        place, is_full = _sorted(records, rows, upto, found)
        for (version, _), one in found.items():
            one.count(look(version))
    hours = _merged(records, portfolio, found, look)
    return Batch(portfolio, after, place, hours, done=place == end, end=end)


def keep(batch: Batch) -> Alongside:
    """What writes a batch; it raises `Conflict` where somebody counted or erased meanwhile."""
    return partial(_keep, batch)


def hours(records: SqlRecords, portfolio: str, version: str, window: Window) -> list[Hour]:
    """The hours of a window in which a package decided, in order, as far as they are counted."""
    within = (_P.hour >= window.since, _P.hour < window.until)
    found = sa.select(*(_P[name] for name in Hour._fields)).where(
        _P.portfolio == portfolio, _P.model_version == version, *within
    )
    with records.reading() as connection:
        rows = connection.execute(found.order_by(_P.hour)).all()
    return [_unsealed(records, portfolio, Hour(*row)) for row in rows]


def days(records: SqlRecords, portfolio: str, version: str, window: Window) -> list[Day]:
    """The days of a window on which a package decided, in order, as far as they are counted."""
    day = (_P.hour // DAY).label("day")
    found = (
        sa.select(day, *(sa.func.sum(_P[name]) for name in Day._fields[1:]))
        .where(
            *(_P.portfolio == portfolio, _P.model_version == version),
            *(_P.hour >= window.since, _P.hour < window.until),
        )
        .group_by("day")
        .order_by("day")
    )
    with records.reading() as connection:
        rows = connection.execute(found).all()
    return [Day(int(row[0]) * DAY, *map(int, row[1:])) for row in rows]


def apart(records: SqlRecords, portfolio: str, version: str, window: Window) -> Window:
    """The part of a window that differs by `FEW` decisions or more from that of any other.

    For what is told of groups, as of two windows that differ by one applicant the difference is
    that applicant's. So windows begin and end with days (UTC), of which, from a package's first
    decision on, as many go together as have `FEW` decisions. Erased ones count as they did.
    """
    edges: list[int] = []
    rows = 0
    for day in days(records, portfolio, version, Window(0, _EVER)):
        if not edges:
            edges.append(day.day)
        rows += day.rows
        if rows >= FEW:
            edges.append(day.day + DAY)
            rows = 0
    since, until = window.since // DAY * DAY, -(-window.until // DAY) * DAY
    inside = [edge for edge in edges if since <= edge <= until]
    return Window(inside[0], inside[-1]) if inside else Window(since, since)


def versions(records: SqlRecords, portfolio: str, window: Window) -> dict[str, int]:
    """How many decisions each package made in a window, as far as they are counted."""
    total = sa.select(_P.model_version, sa.func.sum(_P.rows)).where(
        _P.portfolio == portfolio, _P.hour >= window.since, _P.hour < window.until
    )
    with records.reading() as connection:
        rows = connection.execute(total.group_by(_P.model_version).order_by(_P.model_version))
        return {version: int(number) for version, number in rows}


def total(reference: Reference, counted: Iterable[Hour]) -> Counts:
    """The applicants of these hours.

    Raises:
        EvidenceInvalid: they are not on the reference's grid; see `forget`.
    """
    return reference.total(reference.read(hour.counts) for hour in counted if hour.counts)


def applicants(
    records: SqlRecords, schema: Schema, portfolio: str, version: str, window: Window
) -> Floats:
    """Applicants of a package's decisions, for what cannot be told from counts.

    Args:
        records: where they are read; with keys.
        schema: the package's.
        portfolio: whose decisions.
        version: of the package.
        window: of these hours, evenly chosen if there are more than `APPLICANTS_MOST`.

    Returns:
        Shape (n, fields), see `Schema.vector`; those erased are left out.
    """
    place = sa.func.row_number().over(order_by=(_C.time, _C.sequence)).label("place")
    # The index has all that is asked here, whatever kind of record it is: those that are none of
    # applicants are left out once they are few.
    within = (
        sa.select(_C.sequence, place)
        .where(_C.portfolio == portfolio, _C.model_version == version)
        .where(_C.time >= window.since, _C.time < window.until)
    )
    with records.reading() as connection:
        number = connection.execute(
            sa.select(sa.func.count()).select_from(within.subquery())
        ).scalar_one()
        step = max(number // (_SPARE * APPLICANTS_MOST), 1)
        numbered = within.subquery().c
        some = sa.select(numbered.sequence).where((numbered.place - 1) % step == 0)
        found = list(connection.execute(some.order_by(numbered.place)).scalars())
    return schema.matrix(_thinned(_read_at(records, found)))


def first_applicants(
    records: SqlRecords, schema: Schema, portfolio: str, version: str, before: int | None
) -> Floats:
    """The first applicants that a package decided about, at most `APPLICANTS_MOST`.

    Args:
        records: as for `applicants`, and so are the next three.
        schema: see there.
        portfolio: see there.
        version: see there.
        before: only those of before this time.
    """
    of = (_C.portfolio == portfolio, _C.model_version == version, _C.kind == "decision")
    places = sa.select(_C.sequence).where(*of, _C.data_key.is_not(None))
    if before is not None:
        places = places.where(_C.time < before)
    places = places.order_by(_C.time, _C.sequence).limit(APPLICANTS_MOST)
    with records.reading() as connection:
        found = list(connection.execute(places).scalars())
    return schema.matrix(_read_at(records, found))


def forget(portfolio: str) -> Alongside:
    """What takes all that was counted of a portfolio, so that it is counted anew.

    For decisions of a package that was not installed, or of a program that counted otherwise. What
    retention has taken since is not counted again.
    """

    def alongside(connection: sa.Connection) -> None:
        for table in (POPULATIONS, COUNTED):
            connection.execute(sa.delete(table).where(table.c.portfolio == portfolio))

    return alongside


def withdraw(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Take what was counted of the hours of these decisions that have fewer than `FEW`.

    In the transaction that erases them. How many decisions there were, and which, stays.
    """
    about = sa.select(_C.portfolio, _C.model_version, _C.time).where(
        _C.id.in_(ids), _C.kind == "decision", _C.time.is_not(None)
    )
    hours = {(row[0], row[1], row[2] // HOUR * HOUR) for row in connection.execute(about)}
    if hours:
        these = sa.tuple_(_P.portfolio, _P.model_version, _P.hour).in_(sorted(hours))
        taken = sa.update(POPULATIONS).where(these, _P.rows < FEW).values(counts=None)
        connection.execute(taken)


def expire(portfolio: str, before: int, connection: sa.Connection) -> None:
    """Take what was counted of hours that were over by then: nothing else is left of most."""
    over = (_P.portfolio == portfolio, _P.hour <= before - HOUR)
    connection.execute(sa.delete(POPULATIONS).where(*over))


def context(portfolio: str, version: str, hour: int) -> str:
    """What the counts of an hour are sealed as: taken to another row, they do not open."""
    return f"population {portfolio} {version} {hour}"


class _Found:
    """What was found of a package's decisions in an hour."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.applications: list[dict[str, Any]] = []
        self.pds: list[float] = []
        self.counts: Counts | None = None

    def count(self, package: Known | None) -> None:
        """Count the applications, if there are any and their package is known, and let them go."""
        if self.applications and package is not None:
            rows, pds = package.schema.matrix(self.applications), np.array(self.pds)
            counts = package.reference.count(rows, pds)
            self.counts = counts if self.counts is None else self.counts + counts
        self.applications, self.pds = [], []


def _cursor(portfolio: str) -> sa.Select[int]:
    return sa.select(COUNTED.c.sequence).where(COUNTED.c.portfolio == portfolio)


def _sorted(
    records: SqlRecords,
    rows: Sequence[Any],
    upto: int,
    found: dict[tuple[str, int], _Found],
) -> tuple[int, bool]:
    """Put rows into their hours; the place of the last, and whether the next was one too many."""
    for sequence, record_id, time, version, decision, body, sealed, data_key in rows:
        key = (version, time // HOUR * HOUR)
        one = found.get(key)
        if one is None:
            if len(found) >= _HOURS_MOST:
                return sequence - 1, True
            one = found[key] = _Found()
        one.made[decision] += 1
        application = application_of(records, record_id, sealed, data_key)
        if application is not None:
            one.applications.append(application)
            with read(record_id, "decision"):
                one.pds.append(pydantic_core.from_json(body)["probability_of_default"])
    return upto, False


def application_of(
    records: SqlRecords, record_id: str, sealed: bytes | None, data_key: bytes | None
) -> dict[str, Any] | None:
    """The application; None where it is withheld, or was altered, which is the chain's to say."""
    if sealed is None or data_key is None:
        return None
    try:
        personal = records.opened(record_id, sealed, data_key)
    except EvidenceInvalid:
        return None
    return None if personal is None else personal["input"]


def _merged(
    records: SqlRecords,
    portfolio: str,
    found: dict[tuple[str, int], _Found],
    look: Callable[[str], Known | None],
) -> tuple[Hour, ...]:
    """These hours, with what was counted of them before."""
    if not found:
        return ()
    before = sa.select(*(_P[name] for name in Hour._fields)).where(*_these(portfolio, list(found)))
    with records.reading() as connection:
        known = connection.execute(before).all()
    there = {(row[0], row[1]): _unsealed(records, portfolio, Hour(*row)) for row in known}
    merged = []
    for (version, hour), one in found.items():
        made = {_MADE[decision]: number for decision, number in one.made.items()}
        row, content = there.get((version, hour)), None
        package = None if one.counts is None else look(version)
        if row is not None:
            made = {name: made.get(name, 0) + getattr(row, name) for name in _MADE.values()}
            content = row.counts
        if one.counts is not None and package is not None:
            counts = one.counts
            if content is not None:
                counts += package.reference.read(content)
            content = counts.to_bytes()
        if content is not None and records.sealing is not None:
            content = records.sealing.seal_as_one(context(portfolio, version, hour), content)
        approved, referred, declined = (made.get(name, 0) for name in _MADE.values())
        rows = approved + referred + declined
        merged.append(Hour(version, hour, rows, approved, referred, declined, content))
    return tuple(merged)


def _unsealed(records: SqlRecords, portfolio: str, hour: Hour) -> Hour:
    """An hour of the table with its counts opened."""
    if hour.counts is None:
        return hour
    if records.sealing is None:
        return hour._replace(counts=None)
    of = context(portfolio, hour.model_version, hour.hour)
    try:
        return hour._replace(counts=records.sealing.open_as_one(of, hour.counts))
    except EvidenceInvalid as error:
        raise EvidenceInvalid("stored counts of applicants cannot be opened") from error


def _read_at(records: SqlRecords, places: Sequence[int]) -> list[dict[str, Any]]:
    """The applications at these places, but for those that cannot be opened."""
    read: list[dict[str, Any]] = []
    for start in range(0, len(places), _AT_ONCE):
        some = sa.select(_C.id, _C.sealed, _C.data_key).where(
            _C.sequence.in_(places[start : start + _AT_ONCE]), _C.kind == "decision"
        )
        with records.reading() as connection:
            rows = connection.execute(some.order_by(_C.time, _C.sequence)).all()
        opened = (application_of(records, *row) for row in rows)
        read += [application for application in opened if application is not None]
    return read


def _thinned(read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `APPLICANTS_MOST` of them, evenly chosen."""
    if len(read) <= APPLICANTS_MOST:
        return read
    return [read[i] for i in np.linspace(0, len(read) - 1, APPLICANTS_MOST).astype(np.intp)]


def _these(portfolio: str, keys: Sequence[tuple[str, int]]) -> list[sa.ColumnElement[bool]]:
    return [_P.portfolio == portfolio, sa.tuple_(_P.model_version, _P.hour).in_(keys)]


def _keep(batch: Batch, connection: sa.Connection) -> None:
    place: int | None = connection.execute(_cursor(batch.portfolio)).scalar_one_or_none()
    if place != batch.after:
        raise Conflict("somebody else counted these decisions meanwhile")
    erased = sa.exists().where(
        _C.portfolio == batch.portfolio, _C.kind == "erasure", _C.sequence > batch.end
    )
    if connection.execute(sa.select(erased)).scalar_one():
        raise Conflict("somebody was erased meanwhile, and may be among those counted")
    if batch.hours:
        keys = [(hour.model_version, hour.hour) for hour in batch.hours]
        connection.execute(sa.delete(POPULATIONS).where(*_these(batch.portfolio, keys)))
        rows = [{"portfolio": batch.portfolio, **hour._asdict()} for hour in batch.hours]
        connection.execute(sa.insert(POPULATIONS), rows)
    row = {"portfolio": batch.portfolio, "sequence": batch.upto}
    if batch.after is None:
        connection.execute(sa.insert(COUNTED).values(row))
    else:
        here = COUNTED.c.portfolio == batch.portfolio
        connection.execute(sa.update(COUNTED).where(here).values(row))
