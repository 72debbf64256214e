"""Verification: whether a log is whole, and if not, what was done to which record.

Reads the tables in order and in chunks, so that a log of any size needs the same memory, and
trusts nothing in them: each hash is made anew, each link compared, and each checkpoint's root and
signature checked under public keys that come from elsewhere. A log may be verified while it is
written; what comes meanwhile is left for the next time.

A chain that is broken falls into runs of records that do follow each other. Records hold the hash
of the one before, so the runs can be put in the order they were written in: what then stands
elsewhere was moved, what no other record follows was put in, and what is followed but not there
was removed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import pydantic_core
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from sqlalchemy import exc

from credit_risk.audit import keys
from credit_risk.audit.chain import GENESIS, Content, Form, form
from credit_risk.audit.checkpoints import Checkpoint, Statement
from credit_risk.audit.merkle import HASH_BYTES, Tree
from credit_risk.audit.records import moment
from credit_risk.audit.tables import CHECKPOINTS, HEAD, RECORDS
from credit_risk.errors import EvidenceInvalid, RecordingFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from credit_risk.audit.checkpoints import Reading
    from credit_risk.audit.keys import Sealing

    Progress = Callable[[int, int], None]

Kind = Literal[
    "changed",
    "removed",
    "inserted",
    "reordered",
    "emptied",
    "erased",
    "sealed",
    "rewritten",
    "head",
    "checkpoint",
    "anchor",
]
"""What was found: records changed, removed, inserted or reordered; emptied by no retention on
record, or their data key by no erasure on record; sealed data that do not open; records that are
not those a checkpoint was signed for; the head of the chain, a checkpoint or an anchor at fault."""

FINDINGS_KEPT = 1_000
"""Of more, only the number is told."""
_RUNS_MOST = 1_000
_CHUNK = 4_096
_R = RECORDS.c
_COLUMNS = [_R.sequence, *(_R[name] for name in Content._fields), _R.data_key, _R.previous, _R.hash]
_MAY_BE_NULL = {"time", "portfolio", "request_id", "model_version", "policy_version"} | {
    *("decision", "status", "about", "body", "sealed", "data_key")
}
_MALFORMED = (ValueError, TypeError, AttributeError)


class Finding(NamedTuple):
    """One thing that is not as it was written.

    ``first`` and ``last`` are places in the chain, of checkpoints their numbers; ``id`` is of the
    record, where it is one.
    """

    kind: Kind
    first: int | None
    last: int | None
    id: str | None
    detail: str

    def __str__(self) -> str:
        """A line for people."""
        if self.first is None:
            return f"{self.kind}: {self.detail}"
        what = "checkpoint" if self.kind == "checkpoint" else "record"
        many = self.first != self.last
        where = f"{what}s {self.first} to {self.last}" if many else f"{what} {self.first}"
        return f"{self.kind}: {where}{f' ({self.id})' if self.id else ''}: {self.detail}"


@dataclass
class Report:
    """What a verification came to."""

    log: str | None = None
    records: int = 0
    taken: int = 0
    """Records of which retention has left the hash alone."""
    erased: int = 0
    """Records whose data key was destroyed."""
    opened: int | None = None
    """Records whose sealed data were opened; None if that was not asked for."""
    checkpoints: int = 0
    covered: int = 0
    """Place of the last record under a checkpoint that is sound."""
    uncovered_since: int | None = None
    """Time of the first record behind it, microseconds since the epoch."""
    keys: list[str] = field(default_factory=list)
    anchors: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing was found."""
        return not self.found

    def add(self, finding: Finding) -> None:
        """Something was found."""
        self.found += 1
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(finding)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        since = self.uncovered_since
        return {
            "whole": self.whole,
            "log": self.log,
            "records": self.records,
            "taken_by_retention": self.taken,
            "erased": self.erased,
            "opened": self.opened,
            "checkpoints": self.checkpoints,
            "covered": self.covered,
            "uncovered_since": None if since is None else moment(since),
            "trusted_keys": self.keys,
            "anchors": self.anchors,
            "found": self.found,
            "findings": [finding._asdict() for finding in self.findings],
            "notes": self.notes,
        }


def verify(
    reading: Reading,
    trusted: Sequence[Ed25519PublicKey],
    *,
    anchors: Sequence[Checkpoint] = (),
    sealing: Sealing | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Report:
    """Verify a log.

    Args:
        reading: gives a connection that reads.
        trusted: public keys whose checkpoints count.
        anchors: checkpoints that were kept elsewhere; the log has to extend each of them.
        sealing: opens all sealed data too, if it is given.
        progress: told how many records of how many are done.

    Raises:
        RecordingFailed: the database cannot be read, as when its file is malformed.
    """
    report = Report(opened=None if sealing is None else 0, anchors=len(anchors))
    by_id = {keys.key_id(key): key for key in trusted}
    report.keys = list(by_id)
    try:
        _Verification(reading, by_id, anchors, sealing, report).run(progress)
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


class _Row(NamedTuple):
    """A record as the chain sees it. ``form`` is None of what is expired or malformed."""

    sequence: int
    id: str
    previous: bytes
    hash: bytes
    form: Form | None


class _Verification:
    """One run; see `verify`."""

    def __init__(
        self,
        reading: Reading,
        trusted: dict[str, Ed25519PublicKey],
        anchors: Sequence[Checkpoint],
        sealing: Sealing | None,
        report: Report,
    ) -> None:
        self._reading = reading
        self._sealing = sealing
        self._report = report
        self._chain = _Chain(report)
        self._withdrawn = _Withdrawn()
        self._signed = _Signed(reading, trusted, report, {anchor.number for anchor in anchors})
        self._anchored = _Anchored(anchors, trusted, report)
        self._sound_types: set[tuple[type, ...]] = set()

    def run(self, progress: Progress) -> None:
        done = 0
        after: int | None = None
        while True:
            # In this order, for a log that is being written: what is read later reaches further.
            with self._reading() as connection:
                self._signed.limit(connection)
                # One statement, and so one state of the log: a head read a moment later than the
                # last record knows records that are not looked at.
                ends = _fetched(connection, _ENDS)
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
        self._anchored.end(self._report.log, self._signed)
        self._withdrawn.end(self._report)
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
            columns = sa.select(*_COLUMNS).where(_R.sequence <= upto)
            if after is not None:
                columns = columns.where(_R.sequence > after)
            with self._reading() as connection:
                rows = _fetched(connection, columns.order_by(_R.sequence).limit(_CHUNK))
            if not rows:
                return
            if after is not None and rows[0][0] <= after:
                raise RecordingFailed("the record database is malformed: records are in no order")
            after = rows[-1][0]
            yield rows

    def _check(self, rows: Sequence[Any]) -> None:
        chain, signed, sound, report = self._chain, self._signed, self._sound_types, self._report
        for row in rows:
            types = tuple(map(type, row))
            if types not in sound and _are_sound(types):
                sound.add(types)
            sequence, record_id, previous, own = row[0], row[1], row[-2], row[-1]
            content = Content._make(row[1:-3])
            canonical: Form | None = None
            if types not in sound or len(previous) != HASH_BYTES or len(own) != HASH_BYTES:
                chain.malformed(row)
                own = own if isinstance(own, bytes) else b""
            elif content.body is None:
                report.taken += 1
                self._withdrawn.taken(sequence)
                chain.add(_Row(sequence, record_id, previous, own, None), fits=True)
            else:
                fits = False
                try:
                    canonical = form(content)
                    fits = canonical.hash(previous) == own
                except _MALFORMED:
                    # Texts that are not UTF-8: no server writes them.
                    pass
                chain.add(_Row(sequence, record_id, previous, own, canonical), fits=fits)
                self._look_inside(sequence, content, row[-3], fits=fits)
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
            told = "the key that its data key is wrapped with is not at hand, or its name changed"
        self._report.add(Finding("sealed", sequence, sequence, record_id, told))


def _are_sound(types: tuple[type, ...]) -> bool:
    """Whether a row's values are of the types that its columns have."""
    expired = types[1 + Content._fields.index("body")] is type(None)
    for column, found in zip(_COLUMNS, types, strict=True):
        if found is type(None):
            if column.name not in _MAY_BE_NULL:
                return False
        elif found is not column.type.python_type or (expired and column.name in _MAY_BE_NULL):
            return False
    whole = ("time", "portfolio", "request_id", "body")
    missing = [types[1 + Content._fields.index(name)] is type(None) for name in whole]
    return all(missing) or not any(missing)


def _fetched(connection: sa.Connection, statement: sa.Select[Any]) -> Sequence[Any]:
    """The rows as the driver gives them, whatever is in them."""
    text = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
    try:
        return connection.exec_driver_sql(text).fetchall()
    except exc.OperationalError as error:
        if "decode" not in str(error.orig).lower():
            raise
        # SQLite keeps texts that are none, and its driver refuses to read them.
        driver: Any = connection.connection.driver_connection
        driver.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            return connection.exec_driver_sql(text).fetchall()
        finally:
            driver.text_factory = str


@dataclass(eq=False)
class _Run:
    """Records that follow each other, from one place to another without gaps."""

    first: int
    first_id: str
    previous: bytes
    last: int
    last_id: str
    ends: frozenset[bytes]
    """Hashes that the record behind the last one may hold: one, unless the last was changed."""
    true: int = 0
    """The place at which its first record was written, once that is known."""

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class _Chain:
    """Follows the records, and says what is wrong with their order."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._runs: list[_Run] = []
        self._breaks = 0
        self._run: _Run | None = None
        # The last record, if its content and its hash do not fit, and the hash of its content.
        self._doubt: tuple[_Row, bytes | None] | None = None

    @property
    def last(self) -> int:
        """The place of the last record."""
        return 0 if self._run is None else self._run.last

    def malformed(self, row: Sequence[Any]) -> None:
        """A row with a value of a type that its column has not."""
        self._settle(None)
        sequence, record_id = row[0], row[1] if isinstance(row[1], str) else None
        told = "a column holds what no server writes there"
        self._report.add(Finding("changed", sequence, sequence, record_id, told))
        previous, own = (
            value if isinstance(value, bytes) and len(value) == HASH_BYTES else b""
            for value in row[-2:]
        )
        run = self._run
        if run is not None and run.last == sequence - 1:
            # What is behind it tells whether it is in its place.
            self._extend(run, sequence, record_id or "", frozenset({own, b""}))
        else:
            self._begin(_Row(sequence, record_id or "", previous, own, None), frozenset({own, b""}))

    def add(self, row: _Row, *, fits: bool) -> None:
        """The next record; ``fits`` if its content and its link give its hash."""
        self._settle(row.previous)
        run = self._run
        follows = run is not None and run.last == row.sequence - 1
        linked = follows and run is not None and (row.previous in run.ends or b"" in run.ends)
        ends = frozenset({row.hash})
        if not fits:
            before = run.ends if follows and run is not None else frozenset({GENESIS})
            if row.form and any(row.form.hash(end) == row.hash for end in before if end):
                told = "its link to the record before was changed"
                self._report.add(Finding("changed", row.sequence, row.sequence, row.id, told))
                linked = follows
                row = row._replace(previous=next(iter(before)))
            else:
                computed = row.form.hash(row.previous) if row.form else None
                self._doubt = row, computed
                ends |= {computed} if computed else set()
        if linked and run is not None:
            self._extend(run, row.sequence, row.id, ends)
        else:
            self._begin(row, ends)

    def _extend(self, run: _Run, sequence: int, record_id: str, ends: frozenset[bytes]) -> None:
        run.last, run.last_id, run.ends = sequence, record_id, ends

    def _begin(self, row: _Row, ends: frozenset[bytes]) -> None:
        self._run = _Run(row.sequence, row.id, row.previous, row.sequence, row.id, ends)
        self._breaks += 1
        if len(self._runs) < _RUNS_MOST:
            self._runs.append(self._run)

    def _settle(self, behind: bytes | None) -> None:
        """What the record behind, or the head, holds says which of two was changed."""
        if self._doubt is None:
            return
        (row, computed), self._doubt = self._doubt, None
        changed = computed is not None and behind == computed
        told = "its hash was changed" if changed else "its content does not give its hash"
        self._report.add(Finding("changed", row.sequence, row.sequence, row.id, told))

    def end(self, reading: Reading, heads: Sequence[Any], signed: _Signed) -> None:
        """There are no more: put the runs in order, and compare the end with the head."""
        report = self._report
        head = heads[0] if len(heads) == 1 else None
        if head is None:
            told = "the chain has several heads" if heads else "the chain has no head"
            report.add(Finding("head", None, None, None, told))
        elif tuple(map(type, head)) != (str, int, bytes):
            told = "a column of it holds what no server writes there"
            report.add(Finding("head", None, None, None, told))
            head = None
        self._settle(head.hash if head else None)
        if self._breaks > _RUNS_MOST:
            told = f"the chain is broken in {self._breaks:,} places; of the first {_RUNS_MOST:,}:"
            report.notes.append(told)
        self._split(reading)
        order, orphans = self._order(head.hash if head else b"")
        fits = head is not None and self._compare(head, order[-1] if order else None)
        self._name(order, orphans, signed, numbered=fits)

    def _split(self, reading: Reading) -> None:
        """Part the runs within which a record stands that another run follows."""
        ends = {end for run in self._runs for end in run.ends} | {GENESIS}
        wanted = {run.previous for run in self._runs} - ends - {b""}
        if not wanted:
            return
        with reading() as connection:
            found = connection.execute(
                sa.select(_R.sequence, _R.id, _R.hash).where(_R.hash.in_(sorted(wanted)))
            ).all()
            for sequence, record_id, own in found:
                behind = connection.execute(
                    sa.select(_R.sequence, _R.id, _R.previous)
                    .where(_R.sequence > sequence)
                    .order_by(_R.sequence)
                    .limit(1)
                ).one_or_none()
                for run in [*self._runs]:
                    if behind is not None and run.first <= sequence < run.last:
                        rest = _Run(*behind, run.last, run.last_id, run.ends)
                        self._runs.append(rest)
                        run.last, run.last_id, run.ends = sequence, record_id, frozenset({own})

    def _order(self, head: bytes) -> tuple[list[_Run], list[_Run]]:
        """The runs in the order they were written in, and those that are in nobody's way.

        Where nothing follows, records are missing, and what goes on is what leads to the head.
        """
        behind: dict[bytes, list[_Run]] = defaultdict(list)
        for run in self._runs:
            behind[run.previous].append(run)

        @cache
        def weight(run: _Run) -> tuple[bool, int]:
            """Whether the head comes after it, and how many records do."""
            size, leads, reached, seen = 0, False, [run], {run}
            while reached:
                at = reached.pop()
                size += at.size
                leads |= head in at.ends
                more = {after for end in at.ends for after in behind[end]} - seen
                seen |= more
                reached += more
            return leads, size

        order: list[_Run] = []
        left = sorted(self._runs, key=lambda run: run.first)
        known = {end for run in left for end in run.ends}
        ends, true = frozenset({GENESIS}), 1
        while left:
            following = [run for run in left if run.previous in ends]
            if following:
                chosen = max(following, key=weight)
            elif head in ends:
                break
            else:
                # Records are missing. Some other was written behind these, and stands behind.
                starts = [run for run in left if run.previous not in known] or left
                later = [run for run in starts if run.first >= true]
                if not later:
                    later = [run for run in starts if weight(run)[0]]
                if not later:
                    break
                chosen = later[0]
                true = chosen.first
            left.remove(chosen)
            order.append(chosen)
            chosen.true = true
            ends, true = chosen.ends, true + chosen.size
        return order, left

    def _name(
        self, order: list[_Run], orphans: list[_Run], signed: _Signed, *, numbered: bool
    ) -> None:
        """Say what was inserted, removed, moved, and replaced; ``numbered`` if the head fits."""
        report = self._report
        for run in orphans:
            told = "put in: the record behind it was written behind another"
            report.add(Finding("inserted", run.first, run.last, run.first_id, told))
        reached, before = 0, None
        ends = frozenset({GENESIS})
        replaced = False
        for run, behind in zip_longest(order, order[1:]):
            if run.previous in ends or replaced:
                replaced = False
            elif run.true > reached + 1:
                told = "not there any more"
                report.add(Finding("removed", reached + 1, run.true - 1, None, told))
            else:
                confirmed = signed.fitting >= run.first
                if not confirmed and (signed.misplaced or not numbered):
                    told = "what was written before it is missing, and numbers were given anew"
                    report.add(Finding("removed", run.first, run.first, run.first_id, told))
                else:
                    replaced = (
                        behind is not None
                        and behind.previous not in run.ends
                        and behind.true == run.true + run.size
                    )
                    told = "another than the record behind it was written behind: changed, with a"
                    told += " hash made anew"
                    if not confirmed:
                        told += ", or a record behind it was removed and numbers given anew"
                    if replaced or before is None:
                        report.add(Finding("changed", run.first, run.last, run.first_id, told))
                    else:
                        at = before.last
                        report.add(Finding("changed", at, at, before.last_id, told))
            put_in = sum(orphan.size for orphan in orphans if orphan.first < run.first)
            if run.first not in {run.true, run.true + put_in}:
                told = f"written as {run.true}" + f" to {run.true + run.size - 1}" * (run.size > 1)
                report.add(Finding("reordered", run.first, run.last, run.first_id, told))
            ends, before, reached = run.ends, run, run.true + run.size - 1

    def _compare(self, head: Any, last: _Run | None) -> bool:  # noqa: ANN401 - a row
        """Compare the end of the chain with its head; whether they fit."""
        report = self._report
        end, ends = (0, frozenset({GENESIS})) if last is None else (last.last, last.ends)
        if head.hash in ends:
            if head.sequence == end:
                return True
            if self._breaks <= 1:
                told = f"the head says that the last record is {head.sequence}, and it is {end}"
                report.add(Finding("head", None, None, None, told))
        elif head.sequence > end:
            told = "missing at the end: the head of the chain knows them"
            report.add(Finding("removed", end + 1, head.sequence, None, told))
        elif head.sequence < end:
            told = f"behind the head, {head.sequence}: put in, or the head was set back"
            report.add(Finding("head", head.sequence + 1, end, None, told))
        else:
            told = f"the head holds another hash than record {end}: one of the two was changed"
            report.add(Finding("head", None, None, None, told))
        return False


class _Withdrawn:
    """Records that were emptied, data keys that were destroyed, and the records that say so.

    See `credit_risk.audit.retention` and `credit_risk.audit.erasure`, whose records count if they
    are sound themselves and stand behind what they are about.
    """

    def __init__(self) -> None:
        self._taken: list[list[int]] = []
        self._erased: dict[str, int] = {}
        self._ranges: list[tuple[int, int]] = []

    @property
    def open(self) -> bool:
        """Whether something is without its reason so far."""
        return bool(self._erased or next(_without(self._taken, self._ranges), None))

    def taken(self, sequence: int) -> None:
        """A record has nothing left but its hash."""
        if self._taken and self._taken[-1][1] == sequence - 1:
            self._taken[-1][1] = sequence
        else:
            self._taken.append([sequence, sequence])

    def erased(self, sequence: int, record_id: str) -> None:
        """A record's data key is gone."""
        self._erased[record_id] = sequence

    def said(self, sequence: int, content: Content) -> None:
        """A record of an erasure or a retention."""
        try:
            body = pydantic_core.from_json(content.body)
        except ValueError:
            return
        listed = "records" if content.kind == "erasure" else "sequences"
        entries = body.get(listed) if isinstance(body, dict) else None
        for entry in entries if isinstance(entries, list) else []:
            match entry:
                case str() if content.kind == "erasure":
                    self._erased.pop(entry, None)
                case [int() as first, int() as last] if content.kind == "retention":
                    self._ranges.append((first, min(last, sequence - 1)))

    def end(self, report: Report) -> None:
        """Name what nobody says was to be withdrawn."""
        for first, last in _without(self._taken, self._ranges):
            told = "emptied, and no record of a retention says so"
            report.add(Finding("emptied", first, last, None, told))
        for record_id, sequence in self._erased.items():
            told = "its data key was destroyed, and no record of an erasure says so"
            report.add(Finding("erased", sequence, sequence, record_id, told))


def _without(
    ranges: Iterable[Sequence[int]], away: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """What is left of rising ranges, both ends included, once others are taken away."""
    left = deque(sorted(away))
    for first, last in ranges:
        at = first
        while left and left[0][0] <= last and at <= last:
            begin, end = left[0]
            if begin > at:
                yield at, begin - 1
            at = max(at, end + 1)
            if end <= last:
                left.popleft()
        if at <= last:
            yield at, last


class _Signed:
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
        self._rows = self._read()
        self._before: Checkpoint | None = None
        self._now: tuple[Checkpoint, Statement | None] | None = None
        self._tree = Tree()
        self._pending: list[bytes] = []
        self._end = b""
        self._broken: Finding | None = None
        self.log: str | None = None
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
            self._broken = None
            self.fitting = self._report.covered = checkpoint.last
            self.misplaced = False
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

    def _read(self) -> Iterator[tuple[Checkpoint, Statement | None]]:
        number = 0
        while True:
            columns = (
                sa.select(CHECKPOINTS)
                .where(CHECKPOINTS.c.number > number, CHECKPOINTS.c.number <= self._limit)
                .order_by(CHECKPOINTS.c.number)
                .limit(_CHUNK)
            )
            with self._reading() as connection:
                rows = _fetched(connection, columns)
            if not rows:
                return
            for row in rows:
                checkpoint = Checkpoint(*row)
                number = checkpoint.number
                self._report.checkpoints += 1
                if tuple(map(type, row)) != (int, int, int, str, bytes, str):
                    self._fault(number, "a column holds what no server writes there")
                    continue
                statement = self._checked(checkpoint)
                self._before = checkpoint
                yield checkpoint, statement

    def _checked(self, checkpoint: Checkpoint) -> Statement | None:
        """What a checkpoint states, if it can be believed."""
        number, before = checkpoint.number, self._before
        expected, first = (before.number + 1, before.last + 1) if before else (1, 1)
        if number > expected:
            missing = f"missing; records {first} to {checkpoint.first - 1} are under none"
            self._report.add(Finding("checkpoint", expected, number - 1, None, missing))
        try:
            statement = Statement.read(checkpoint.statement)
        except EvidenceInvalid:
            self._fault(number, "its statement was changed: it is none any more")
            return None
        if number in self._anchored:
            self.statements[number] = checkpoint.statement
        told = self._signature(checkpoint) or self._place(checkpoint, statement)
        if told is not None:
            self._fault(number, told)
            return None
        return statement

    def _place(self, checkpoint: Checkpoint, statement: Statement) -> str | None:
        """What is wrong with the place at which a statement stands."""
        stated = statement.checkpoint, statement.first, statement.last
        if stated != checkpoint[:3]:
            return f"its statement is of checkpoint {stated[0]}, records {stated[1]} to {stated[2]}"
        if self.log is not None and statement.log != self.log:
            return "it is another log's"
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
        key = self._trusted.get(checkpoint.key_id)
        if key is not None:
            fits = _fits(key, checkpoint)
            return None if fits else "its statement or its signature was changed"
        if any(_fits(key, checkpoint) for key in self._trusted.values()):
            return "the id of its key was changed"
        return "it is signed with a key that is not trusted"

    def _fault(self, number: int, told: str) -> None:
        self._report.add(Finding("checkpoint", number, number, None, told))


def _fits(key: Ed25519PublicKey, checkpoint: Checkpoint) -> bool:
    try:
        key.verify(checkpoint.signature, _encoded(checkpoint.statement))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _Anchored:
    """Compares the log with checkpoints that were kept elsewhere."""

    def __init__(
        self, anchors: Sequence[Checkpoint], trusted: dict[str, Ed25519PublicKey], report: Report
    ) -> None:
        self._report = report
        self._statements: list[tuple[Checkpoint, Statement]] = []
        self._heads: dict[int, bytes | None] = {}
        for anchor in anchors:
            statement = Statement.read(anchor.statement)
            if any(_fits(key, anchor) for key in trusted.values()):
                self._statements.append((anchor, statement))
                self._heads[statement.last] = None
            else:
                self._fault(anchor.number, "it is not signed with a trusted key")

    def add(self, sequence: int, own: bytes) -> None:
        """The next record's hash."""
        if sequence in self._heads:
            self._heads[sequence] = own

    def end(self, log: str | None, signed: _Signed) -> None:
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
