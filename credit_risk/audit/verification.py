"""Verification: whether a log is whole, and if not, what was done to which record.

Reads the tables in order and in chunks, so that a log of any size needs the same memory, and
trusts nothing in them: each hash is made anew, each link compared, and each checkpoint's root and
signature checked under public keys that come from elsewhere. A log may be verified while it is
written; what comes meanwhile is left for the next time.

The queue of reviews, a table beside the chain that proves nothing, is held against the chain too.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import pydantic_core
import sqlalchemy as sa

from credit_risk.audit import keys, rollback, sqlite
from credit_risk.audit.chain import Content, Form, form
from credit_risk.audit.clocks import Clocks
from credit_risk.audit.continuity import Continuity, Row
from credit_risk.audit.database import as_stored
from credit_risk.audit.findings import Finding, Kind, Report
from credit_risk.audit.merkle import HASH_BYTES
from credit_risk.audit.queue import differences
from credit_risk.audit.records import moment
from credit_risk.audit.retention import MONTHS
from credit_risk.audit.rows import COLUMNS, are_sound
from credit_risk.audit.signatures import Anchored, Signed
from credit_risk.audit.tables import HEAD, RECORDS
from credit_risk.audit.withdrawals import Withdrawals
from credit_risk.errors import EvidenceInvalid, RecordingFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from credit_risk.audit.checkpoints import Checkpoint, Reading
    from credit_risk.audit.keys import Sealing

    Progress = Callable[[int, int], None]

_CHUNK = 4_096
_R = RECORDS.c
_MALFORMED = (ValueError, TypeError, AttributeError)


def verify(
    reading: Reading,
    trusted: Sequence[Ed25519PublicKey],
    *,
    anchors: Sequence[Checkpoint] = (),
    sealing: Sealing | None = None,
    months: int = MONTHS,
    progress: Progress = lambda _done, _total: None,
) -> Report:
    """Verify a log.

    Args:
        reading: gives a connection that reads.
        trusted: public keys whose checkpoints count; with none, checkpoints are held against the
            records, and their signatures are not checked.
        anchors: checkpoints that were kept elsewhere; the log has to extend each of them.
        sealing: opens all sealed data too, if it is given.
        months: the shortest term that records may have been kept for.
        progress: told how many records of how many are done.

    Raises:
        RecordingFailed: the database cannot be read, as when its file is malformed.
    """
    report = Report(opened=None if sealing is None else 0, anchors=len(anchors))
    by_id = {keys.key_id(key): key for key in trusted}
    report.keys = list(by_id)
    try:
        _Verification(reading, by_id, report, anchors=anchors, sealing=sealing, months=months).run(
            progress
        )
    except RecordingFailed as error:
        reason = getattr(error.__cause__, "orig", None)
        raise RecordingFailed(f"{error}: {reason}" if reason else str(error)) from error
    if not report.checkpoints and report.records:
        report.notes.append(
            "there is no checkpoint: who can write to the database can have made all of it"
        )
    return report


class _Head(NamedTuple):
    """The head of the chain as the database has it, whatever is in it."""

    log: Any
    sequence: Any
    hash: Any


_LAST = sa.select(
    sa.func.max(_R.sequence).label("upto"), sa.func.count(_R.sequence).label("size")
).subquery()
# The last record and their number, beside each head there is, or beside none.
_ENDS = sa.select(HEAD.c.log, HEAD.c.sequence, HEAD.c.hash, _LAST.c.upto, _LAST.c.size).select_from(
    _LAST.join(HEAD, sa.true(), isouter=True)
)


class _Verification:
    """One run; see `verify`."""

    def __init__(
        self,
        reading: Reading,
        trusted: dict[str, Ed25519PublicKey],
        report: Report,
        *,
        anchors: Sequence[Checkpoint],
        sealing: Sealing | None,
        months: int,
    ) -> None:
        self._reading = reading
        self._trusted = trusted
        self._sealing = sealing
        self._report = report
        self._chain = Continuity(report)
        self._withdrawn = Withdrawals(report, months)
        self._clocks = Clocks(time.time_ns() // 1_000)
        self._signed = Signed(reading, trusted, report, {anchor.number for anchor in anchors})
        self._anchored = Anchored(anchors, trusted, report)
        self._sound_types: set[tuple[type, ...]] = set()

    def run(self, progress: Progress) -> None:
        with self._reading() as connection:
            if connection.dialect.name == "sqlite":
                for told in sqlite.damages(connection):
                    self._report.add(Finding("database", None, None, None, told))
        done = 0
        after: int | None = None
        while True:
            # In this order, for a log that is being written: what is read later reaches further.
            with self._reading() as connection:
                self._signed.limit(connection)
                # One statement, and so one state of the log: a head read a moment later than the
                # last record knows records that are not looked at.
                ends = as_stored(connection, _ENDS)
                heads = [_Head._make(row[:3]) for row in ends if row.log is not None]
                upto, size = ends[0][3:]
            if done == 0:
                self._begin(heads)
            for rows in self._rows(after, upto or 0):
                self._check(rows)
                done += len(rows)
                after = rows[-1][0]
                progress(done, max(size, done))
            if not self._withdrawn.open or not self._later(upto or 0):
                break
        self._report.records = done
        self._chain.end(self._reading, heads, self._signed)
        self._signed.end(self._chain.last)
        self._anchored.end(self._signed.log, self._signed)
        self._withdrawn.end(self._reading, self._signed)
        self._report.clocks = self._clocks.told(self._signed.stamps())
        for difference in differences(self._reading):
            self._report.add_difference(difference)
        self._report.findings.sort(key=lambda finding: get_args(Kind).index(finding.kind))

    def _begin(self, heads: Sequence[Any]) -> None:
        if len(heads) == 1:
            self._report.log = self._signed.log = str(heads[0].log)

    def _later(self, upto: int) -> bool:
        """Whether records came meanwhile, one of which may say why others are empty."""
        with self._reading() as connection:
            found = connection.execute(sa.select(sa.func.max(_R.sequence))).scalar_one()
        return found is not None and found > upto

    def _rows(self, after: int | None, upto: int) -> Iterator[Sequence[Any]]:
        while after is None or after < upto:
            columns = sa.select(*COLUMNS).where(_R.sequence <= upto)
            if after is not None:
                columns = columns.where(_R.sequence > after)
            with self._reading() as connection:
                rows = as_stored(connection, columns.order_by(_R.sequence).limit(_CHUNK))
            if not rows:
                return
            if after is not None and rows[0][0] <= after:
                raise RecordingFailed("the record database is malformed: records are in no order")
            after = rows[-1][0]
            yield rows

    def _check(self, rows: Sequence[Any]) -> None:
        chain, signed, sound, report = self._chain, self._signed, self._sound_types, self._report
        latest = self._clocks.latest
        for row in rows:
            types = tuple(map(type, row))
            if types not in sound and are_sound(types):
                sound.add(types)
            sequence, record_id, previous, own = row[0], row[1], row[-2], row[-1]
            content = Content._make(row[1:-3])
            canonical: Form | None = None
            if types not in sound or len(previous) != HASH_BYTES or len(own) != HASH_BYTES:
                chain.malformed(row)
                own = own if isinstance(own, bytes) else b""
            elif content.body is None:
                report.taken += 1
                self._withdrawn.emptied(sequence, record_id, content.kind)
                chain.add(Row(sequence, record_id, previous, own, None), fits=True)
            else:
                fits = False
                try:
                    canonical = form(content)
                    fits = canonical.hash(previous) == own
                except _MALFORMED:
                    # Texts that are not UTF-8: no server writes them.
                    pass
                chain.add(Row(sequence, record_id, previous, own, canonical), fits=fits)
                self._look_inside(sequence, content, row[-3], fits=fits)
                if content.time > latest:
                    self._clocks.ahead(sequence, content.time)
            signed.add(sequence, own, content.time)
            self._anchored.add(sequence, own)

    def _look_inside(
        self, sequence: int, content: Content, data_key: bytes | None, *, fits: bool
    ) -> None:
        if content.sealed is not None:
            if data_key is None:
                self._report.erased += 1
                self._withdrawn.erased(sequence, content.id)
            elif self._sealing is not None:
                self._open(sequence, content.id, content.sealed, data_key)
        if fits and content.kind in {"retention", "erasure"}:
            self._withdrawn.said(sequence, content)
        elif fits and content.kind == "acknowledgement":
            self._acknowledged(sequence, content)

    def _acknowledged(self, sequence: int, content: Content) -> None:
        said = None
        with suppress(ValueError):
            said = rollback.stated(pydantic_core.from_json(content.body), *self._trusted.values())
        if said is not None:
            self._report.notes.append(
                f"record {sequence} acknowledges that checkpoints behind checkpoint "
                f"{said['acknowledged']} were gone by {moment(content.time)}"
            )
        elif self._trusted:
            told = "an acknowledgement that is not signed with a trusted key"
            self._report.add(Finding("unfounded", sequence, sequence, content.id, told))

    def _open(self, sequence: int, record_id: str, sealed: bytes, data_key: bytes) -> None:
        assert self._sealing is not None  # noqa: S101 - asked before
        try:
            opened = self._sealing.open(record_id, sealed, data_key)
        except EvidenceInvalid:
            told = "its sealed data do not open: they or their key were changed"
        else:
            if opened is not None:
                self._report.opened = (self._report.opened or 0) + 1
                return
            if not self._sealing.misnamed(record_id, data_key):
                # No fault of the record's: whoever verifies has other keys.
                self._report.unopened[keys.wrapping_name(data_key)] += 1
                return
            told = "the name of the key that its data key is wrapped with was changed"
        self._report.add(Finding("sealed", sequence, sequence, record_id, told))
