"""Signatures: the checkpoints of a log, and those kept elsewhere, held against its records."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature

from credit_risk.audit.chain import GENESIS
from credit_risk.audit.checkpoints import Checkpoint, Statement
from credit_risk.audit.database import as_stored
from credit_risk.audit.findings import Finding
from credit_risk.audit.merkle import Tree
from credit_risk.audit.tables import CHECKPOINTS
from credit_risk.audit.withdrawals import without
from credit_risk.errors import EvidenceInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from credit_risk.audit.checkpoints import Reading
    from credit_risk.audit.findings import Report

_CHUNK = 4_096
_TIME_BITS = 63


class Stamp(NamedTuple):
    """A checkpoint and when it was signed, microseconds since the epoch."""

    number: int
    time: int


class Signed:
    """Follows the checkpoints beside the records."""

    def __init__(
        self,
        reading: Reading,
        trusted: dict[str, Ed25519PublicKey],
        report: Report,
        anchored: set[int],
    ) -> None:
        self._reading = reading
        self._trusted = trusted
        self._report = report
        self._anchored = anchored
        self._limit = 0
        self._missing: list[tuple[int, int, str]] = []
        # Whether the row looked at has a number that its statement has not, and such statements'.
        self._renumbered = False
        self._displaced: set[int] = set()
        self._rows = self._read()
        self._before: Checkpoint | None = None
        self._now: tuple[Checkpoint, Statement | None] | None = None
        self._tree = Tree()
        self._pending: list[bytes] = []
        self._end = b""
        self._broken: Finding | None = None
        # Of each checkpoint that is sound: its last record, its number, and when it was signed.
        self._lasts, self._numbers, self._times = array("q"), array("q"), array("q")
        self.log: str | None = None
        """The id of the log that the head of the chain has."""
        # Of checkpoints that fit the records: whether one names that log, and those that do not.
        self._fits_head = False
        self._fitting_logs: dict[int, str] = {}
        self.statements: dict[int, str] = {}
        """Of checkpoints that anchors are about."""
        self.fitting = 0
        """The last record whose place a checkpoint confirms."""
        self.misplaced = False
        """Whether a checkpoint behind that says otherwise."""

    def limit(self, connection: sa.Connection) -> None:
        """What is there by now is to be looked at."""
        newest = connection.execute(sa.select(sa.func.max(CHECKPOINTS.c.number))).scalar_one()
        self._limit = newest or 0

    def add(self, sequence: int, own: bytes, moment: int | None) -> None:
        """The next record's hash."""
        while (now := self._now or next(self._rows, None)) is not None and sequence > now[0].last:
            self._now = now
            self._close()
        self._now = now
        if now is None:
            if self._report.uncovered_since is None:
                self._report.uncovered_since = moment
        elif sequence >= now[0].first:
            self._pending.append(own)
            if sequence == now[0].last:
                self._close()
            elif len(self._pending) >= _CHUNK:
                self._tree.add(self._pending)
                self._end = own
                self._pending = []

    def _close(self) -> None:
        """All records under the checkpoint have come."""
        assert self._now is not None  # noqa: S101 - asked before
        checkpoint, statement = self._now
        self._tree.add(self._pending)
        root, size = self._tree.root().hex(), self._tree.size
        end = (self._pending or [self._end])[-1]
        self._now, self._tree, self._pending, self._end = None, Tree(), [], b""
        if statement is None:
            return
        if (root, size) == (statement.root, statement.last - statement.first + 1):
            if statement.log != self.log:
                self._fitting_logs[checkpoint.number] = statement.log
            else:
                self._fits_head = True
            self._broken = None
            self.fitting = self._report.covered = checkpoint.last
            self.misplaced = False
            if statement.time.bit_length() < _TIME_BITS:
                self._lasts.append(checkpoint.last)
                self._numbers.append(checkpoint.number)
                self._times.append(statement.time)
            return
        if self.log is not None and statement.log not in {self.log, *self._fitting_logs.values()}:
            self._fault(checkpoint.number, "it is another log's")
            return
        told = f"not all as they were when checkpoint {checkpoint.number} was signed"
        if end.hex() == statement.head:
            # A chain that ends in the right hash has all of it but for what hashes do not tell.
            self.fitting = checkpoint.last
        self.misplaced = self.fitting != checkpoint.last
        if self._broken is None:
            self._broken = Finding("rewritten", checkpoint.first, checkpoint.last, None, told)
            self._report.add(self._broken)
        else:
            # One line for all that follow: after a record that was rewritten none fits any more.
            told = f"{self._broken.detail.partition(', nor')[0]}, nor at {checkpoint.number}"
            wider = self._broken._replace(last=checkpoint.last, detail=told)
            findings = self._report.findings
            if self._broken in findings:
                findings[findings.index(self._broken)] = wider
            self._broken = wider

    def end(self, last: int) -> None:
        """There are no more records."""
        begun = [] if self._now is None else [self._now]
        for checkpoint, statement in chain(begun, self._rows):
            self._now = checkpoint, statement
            if statement is None or checkpoint.last <= last:
                self._close()
                continue
            told = f"missing at the end: checkpoint {checkpoint.number} was signed for them"
            first = max(last + 1, checkpoint.first)
            self._report.add(Finding("removed", first, checkpoint.last, None, told))
        there = [(number, number) for number in sorted(self._displaced)]
        for lowest, highest, told in self._missing:
            for begin, end in without([(lowest, highest)], there):
                self._report.add(Finding("checkpoint", begin, end, None, told))
        self._compare_logs()

    def _compare_logs(self) -> None:
        """Say what is wrong where checkpoints fit the records and name another log than the head.

        They are signed, and the head is not.
        """
        others = set(self._fitting_logs.values())
        if self.log is None or not others:
            return
        if self._fits_head or len(others) > 1:
            for number in self._fitting_logs:
                self._fault(number, "it is another log's")
            return
        (self.log,) = others
        numbers = f"{min(self._fitting_logs)} to {max(self._fitting_logs)}"
        told = f"the id of the log in it was changed: checkpoints {numbers} were signed for log "
        self._report.add(Finding("head", None, None, None, f"{told}{self.log}"))

    def stamps(self) -> Iterator[Stamp]:
        """Of the checkpoints that are sound, in their order."""
        return map(Stamp, self._numbers, self._times)

    def before(self, sequence: int) -> Stamp | None:
        """The last checkpoint that was signed before the record of that place was written."""
        return self._stamp(bisect_left(self._lasts, sequence) - 1)

    def by(self, sequence: int) -> Stamp | None:
        """The first checkpoint that was signed once the record of that place was written."""
        return self._stamp(bisect_left(self._lasts, sequence))

    def _stamp(self, place: int) -> Stamp | None:
        if not 0 <= place < len(self._lasts):
            return None
        return Stamp(self._numbers[place], self._times[place])

    def _read(self) -> Iterator[tuple[Checkpoint, Statement | None]]:
        number = -(2**_TIME_BITS)
        while True:
            columns = (
                sa.select(CHECKPOINTS)
                .where(CHECKPOINTS.c.number > number, CHECKPOINTS.c.number <= self._limit)
                .order_by(CHECKPOINTS.c.number)
                .limit(_CHUNK)
            )
            with self._reading() as connection:
                rows = as_stored(connection, columns)
            if not rows:
                return
            for row in rows:
                checkpoint = Checkpoint(*row)
                number = checkpoint.number
                self._report.checkpoints += 1
                if tuple(map(type, row)) != (int, int, int, str, bytes, str):
                    self._fault(number, "a column holds what no server writes there")
                    continue
                yield self._checked(checkpoint)

    def _checked(self, checkpoint: Checkpoint) -> tuple[Checkpoint, Statement | None]:
        """A checkpoint and what it states, if that can be believed.

        What is signed counts, whatever the table says of its records.
        """
        number, before = checkpoint.number, self._before
        statement = None
        with suppress(EvidenceInvalid):
            statement = Statement.read(checkpoint.statement)
        fault: str | None = "its statement was changed: it is none any more"
        if statement is not None:
            fault = self._signature(checkpoint)
        signed = statement if fault is None else None
        self._renumbered = signed is not None and signed.checkpoint != number
        expected, first = (before.number + 1, before.last + 1) if before else (1, 1)
        if number > expected and not self._renumbered:
            told = f"missing; records {first} to {checkpoint.first - 1} are under none"
            self._missing.append((expected, number - 1, told))
        if statement is not None:
            if number in self._anchored:
                self.statements[number] = checkpoint.statement
            fault = fault or self._place(checkpoint, statement)
        if signed is not None and not self._renumbered:
            checkpoint = checkpoint._replace(first=signed.first, last=signed.last)
        if not self._renumbered:
            self._before = checkpoint
        if fault is not None:
            self._fault(number, fault)
            return checkpoint, None
        return checkpoint, statement

    def _place(self, checkpoint: Checkpoint, statement: Statement) -> str | None:
        """What is wrong with the place at which a statement stands."""
        stated = statement.checkpoint, statement.first, statement.last
        if stated != checkpoint[:3]:
            if self._renumbered:
                self._displaced.add(statement.checkpoint)
            pairs = zip(("number", "first", "last"), stated, checkpoint[:3], strict=True)
            changed = [name for name, one, other in pairs if one != other]
            were = "were" if len(changed) > 1 else "was"
            return (
                f"in the table its {' and '.join(changed)} {were} changed: it was signed as "
                f"checkpoint {stated[0]}, for records {stated[1]} to {stated[2]}"
            )
        before = self._before
        number, first, digest = 1, 1, GENESIS.hex()
        if before is not None:
            number, first = before.number + 1, before.last + 1
            digest = sha256(_encoded(before.statement)).hexdigest()
        if checkpoint.number == number and statement.previous != digest:
            return "it does not follow the checkpoint before it"
        if checkpoint.number == number and statement.first != first:
            return f"it does not begin where it has to, with record {first}"
        return None

    def _signature(self, checkpoint: Checkpoint) -> str | None:
        """What is wrong with a checkpoint's signature."""
        if not self._trusted:
            return None
        key = self._trusted.get(checkpoint.key_id)
        if key is not None:
            return None if fits(key, checkpoint) else "its statement or its signature was changed"
        if any(fits(key, checkpoint) for key in self._trusted.values()):
            return "the id of its key was changed"
        return "it is signed with a key that is not trusted"

    def _fault(self, number: int, told: str) -> None:
        self._report.add(Finding("checkpoint", number, number, None, told))


def fits(key: Ed25519PublicKey, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's statement is signed with the key."""
    try:
        key.verify(checkpoint.signature, _encoded(checkpoint.statement))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class Anchored:
    """Compares the log with checkpoints that were kept elsewhere."""

    def __init__(
        self, anchors: Sequence[Checkpoint], trusted: dict[str, Ed25519PublicKey], report: Report
    ) -> None:
        self._report = report
        self._statements: list[tuple[Checkpoint, Statement]] = []
        self._heads: dict[int, bytes | None] = {}
        for anchor in anchors:
            statement = Statement.read(anchor.statement)
            if not trusted or any(fits(key, anchor) for key in trusted.values()):
                self._statements.append((anchor, statement))
                self._heads[statement.last] = None
            else:
                self._fault(anchor.number, "it is not signed with a trusted key")

    def add(self, sequence: int, own: bytes) -> None:
        """The next record's hash."""
        if sequence in self._heads:
            self._heads[sequence] = own

    def end(self, log: str | None, signed: Signed) -> None:
        """There are no more records."""
        for anchor, statement in self._statements:
            head = self._heads[statement.last]
            if statement.log != log:
                self._fault(anchor.number, "it is of another log")
            elif head is None:
                told = f"record {statement.last}, the last one under it, is not there"
                self._fault(anchor.number, told)
            elif head.hex() != statement.head:
                told = f"records up to {statement.last} are not those it was signed for"
                self._fault(anchor.number, told)
            elif signed.statements.get(anchor.number) != anchor.statement:
                told = "the checkpoint of that number on record is another, or there is none"
                self._fault(anchor.number, told)

    def _fault(self, number: int, told: str) -> None:
        detail = f"checkpoint {number}, kept elsewhere: {told}"
        self._report.add(Finding("anchor", None, None, None, detail))
