"""Rewrapping: data keys of records under another key-encryption key, so that the old one can go.

Neither what is sealed nor the chain changes. Only the key that each record's data key is wrapped
with does, a bounded number of records at a time, while servers write.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from credit_risk.audit.tables import HEAD, RECORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import AuditLog

RECORDS_AT_ONCE = 1_000
"""Records in a transaction, which decisions wait for: a few hundredths of a second."""

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
    after = 0
    with records.reading() as connection:
        total = connection.execute(sa.select(sa.func.count(_C.data_key))).scalar_one()
    while True:
        with records.reading() as connection:
            page = connection.execute(_PAGE, {"after": after, "most": RECORDS_AT_ONCE}).all()
        if not page:
            return Rewrapped(**done)
        new = []
        for sequence, record_id, data_key in page:
            if sealing.seals(data_key):
                done["already"] += 1
                continue
            wrapped = sealing.rewrapped(record_id, data_key)
            if wrapped is None:
                done["unknown"] += 1
            else:
                new.append({"of": sequence, "found": data_key, "new": wrapped})
        if new:
            log.append((), alongside=partial(_write, new)).result()
        done["rewrapped"] += len(new)
        after = page[-1].sequence
        progress(sum(done.values()), total)


def _write(new: list[dict[str, object]], connection: sa.Connection) -> None:
    # In turn with all who write, as an erasure may want the same records in another order.
    connection.execute(sa.select(HEAD.c.sequence).with_for_update())
    connection.execute(_REWRAP, new)
