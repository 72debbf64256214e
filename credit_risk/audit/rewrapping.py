"""Rewrapping: data keys under another key-encryption key, so that the old one can go.

Those of records, and of what monitoring has counted of them. Neither what is sealed nor the chain
changes. Only the key that each data key is wrapped with does, a bounded number at a time, while
servers write.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from credit_risk import windows
from credit_risk.audit.keys import WRAPPED_BYTES
from credit_risk.audit.tables import HEAD, POPULATIONS, RECORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import AuditLog

RECORDS_AT_ONCE = 1_000
"""Records in a transaction, which decisions wait for: a few hundredths of a second."""
HOURS_AT_ONCE = 100
"""Hours in one, each of up to 50 kB."""

_C = RECORDS.c
_PAGE = (
    sa.select(_C.sequence, _C.id, _C.data_key)
    .where(_C.sequence > sa.bindparam("after"), _C.data_key.is_not(None))
    .order_by(_C.sequence)
    .limit(sa.bindparam("most"))
)
# An erasure that came first stays one: its record has no data key that would be the one found.
_REWRAP = (
    sa.update(RECORDS)
    .where(_C.sequence == sa.bindparam("of"), _C.data_key == sa.bindparam("found"))
    .values(data_key=sa.bindparam("new"))
)
_P = POPULATIONS.c
_HOURS = (
    sa.select(_P.portfolio, _P.model_version, _P.hour, _P.counts)
    .where(_P.counts.is_not(None))
    .where(
        sa.tuple_(_P.portfolio, _P.model_version, _P.hour)
        > sa.tuple_(sa.bindparam("portfolio"), sa.bindparam("version"), sa.bindparam("hour"))
    )
    .order_by(_P.portfolio, _P.model_version, _P.hour)
    .limit(sa.bindparam("most"))
)
_REWRAP_HOUR = (
    sa.update(POPULATIONS)
    .where(_P.portfolio == sa.bindparam("p"), _P.model_version == sa.bindparam("v"))
    .where(_P.hour == sa.bindparam("h"), _P.counts == sa.bindparam("found"))
    .values(counts=sa.bindparam("new"))
)


class _Page(NamedTuple):
    """Data keys, with what writes them: each with the name it is bound to, and where it is."""

    statement: sa.Update
    found: list[tuple[str, bytes, dict[str, Any]]]


class Rewrapped(NamedTuple):
    """What became of the data keys there are, by their number.

    ``unknown`` are those whose key-encryption key is not among the keys given.
    """

    rewrapped: int
    already: int
    unknown: int


def rewrap(
    records: SqlRecords,
    log: AuditLog,
    sealing: Sealing,
    progress: Callable[[int, int | None], None],
) -> Rewrapped:
    """Wrap every data key with the key that seals now. Stopped halfway, the rest is left as it was.

    Args:
        records: where data keys are read.
        log: where they are written; of the same database.
        sealing: the key to wrap with first, and those that the data keys are wrapped with.
        progress: told how many records are done, of how many.

    Raises:
        RecordingFailed: the database fails.
        EvidenceInvalid: a data key was altered.
    """
    done = dict.fromkeys(Rewrapped._fields, 0)
    with records.reading() as connection:
        total: int = sum(
            connection.execute(sa.select(sa.func.count(sealed))).scalar_one()
            for sealed in (_C.data_key, _P.counts)
        )
    for statement, page in (*_records(records), *_hours(records)):
        new = []
        for name, found, where in page:
            if sealing.seals(found):
                done["already"] += 1
                continue
            wrapped = sealing.rewrapped(name, found[:WRAPPED_BYTES])
            if wrapped is None:
                done["unknown"] += 1
            else:
                new.append(where | {"found": found, "new": wrapped + found[WRAPPED_BYTES:]})
        if new:
            log.append((), alongside=partial(_write, statement, new)).result()
        done["rewrapped"] += len(new)
        progress(sum(done.values()), total)
    return Rewrapped(**done)


def _records(records: SqlRecords) -> Iterator[_Page]:
    """The data keys of records, some at a time."""
    after = 0
    while True:
        with records.reading() as connection:
            rows = connection.execute(_PAGE, {"after": after, "most": RECORDS_AT_ONCE}).all()
        if not rows:
            return
        yield _Page(_REWRAP, [(row.id, row.data_key, {"of": row.sequence}) for row in rows])
        after = rows[-1].sequence


def _hours(records: SqlRecords) -> Iterator[_Page]:
    """The counts of hours, each sealed together with its data key, some at a time."""
    last: tuple[str, str, int] = ("", "", 0)
    while True:
        after = dict(zip(("portfolio", "version", "hour"), last, strict=True))
        with records.reading() as connection:
            rows = connection.execute(_HOURS, after | {"most": HOURS_AT_ONCE}).all()
        if not rows:
            return
        keys = [tuple(row)[:-1] for row in rows]
        yield _Page(
            _REWRAP_HOUR,
            [
                (windows.context(*key), row.counts, dict(zip("pvh", key, strict=True)))
                for key, row in zip(keys, rows, strict=True)
            ],
        )
        last = keys[-1]


def _write(statement: sa.Update, new: list[dict[str, Any]], connection: sa.Connection) -> None:
    # In turn with all who write, as an erasure may want the same records in another order.
    connection.execute(sa.select(HEAD.c.sequence).with_for_update())
    connection.execute(statement, new)
