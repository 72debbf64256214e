"""Withdrawals: what retention and erasures took, held against the records that say so.

A record that was emptied, and a data key that was destroyed, need a record behind them that names
them. That record is not taken at its word either; see `credit_risk.audit.retention` and
`credit_risk.audit.erasure` for what it says. It is unfounded where the log says otherwise:

- it names what was not there before it, or what is never taken, or other numbers than are gone;
- its term is shorter than records have to be kept, or ends later than the term allows;
- what it took was made later than that: by the time in its id (UUIDv7, RFC 9562), and, whatever
  became of the id, by the checkpoint before it, which was signed before it was written.

And what such a record says is gone has to be gone: a backup brings it back, unnoticed by hashes.
"""

from __future__ import annotations

import re
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args

import sqlalchemy as sa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from credit_risk.audit.database import as_stored
from credit_risk.audit.findings import Finding
from credit_risk.audit.records import RecordKind, instant, microseconds, moment
from credit_risk.audit.retention import NEVER, months_before
from credit_risk.audit.tables import RECORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from credit_risk.audit.chain import Content
    from credit_risk.audit.checkpoints import Reading
    from credit_risk.audit.findings import Report
    from credit_risk.audit.signatures import Signed

    Range = tuple[int, int]

SLACK = 3_600_000_000
"""Microseconds by which clocks may differ, and a record be written after its time: an hour is the
longest deadline that a request can have."""
_AT_ONCE = 500
_R = RECORDS.c
_KINDS: dict[str, int] = {kind: code for code, kind in enumerate(get_args(RecordKind))}
_NO_KIND = 255
_NO_TIME = -1
_ID_LENGTH = 36
_NAME = re.compile(r"[0-9A-Za-z-]{1,64}")


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Taken(_Said):
    """The body of a record of a retention, as far as it is checked."""

    months: Annotated[int, Field(ge=0, le=12_000)]
    before: AwareDatetime
    records: dict[str, int]
    sequences: Annotated[list[tuple[int, int]], Field(min_length=1)]
    held_sequences: list[tuple[int, int]] = []


class _Erased(_Said):
    """The body of a record of an erasure, as far as it is checked."""

    records: Annotated[list[str], Field(min_length=1)]


class _Retention(NamedTuple):
    sequence: int
    id: str
    time: int
    said: _Taken


class _Erasure(NamedTuple):
    sequence: int
    id: str
    about: str | None
    said: _Erased


class Withdrawals:
    """Records that were emptied, data keys that were destroyed, and the records that say so.

    Records that say so count if they are sound themselves and stand behind what they are about.

    Args:
        report: where findings go.
        months: the shortest term that records may have been kept for.
    """

    def __init__(self, report: Report, months: int) -> None:
        self._report = report
        self._months = months
        # Of each record that was emptied: its place, the time in its id, and its kind.
        self._places = array("q")
        self._times = array("q")
        self._kinds = bytearray()
        self._emptied: list[list[int]] = []
        self._erased: dict[str, int] = {}
        self._ranges: list[Range] = []
        self._retentions: list[_Retention] = []
        self._erasures: list[_Erasure] = []

    @property
    def open(self) -> bool:
        """Whether something is without its reason so far."""
        return bool(self._erased or next(without(self._emptied, self._ranges), None))

    def emptied(self, sequence: int, record_id: str, kind: str) -> None:
        """A record has nothing left but its hash."""
        if self._emptied and self._emptied[-1][1] == sequence - 1:
            self._emptied[-1][1] = sequence
        else:
            self._emptied.append([sequence, sequence])
        self._places.append(sequence)
        self._times.append(made_at(record_id))
        self._kinds.append(_KINDS.get(kind, _NO_KIND))

    def erased(self, sequence: int, record_id: str) -> None:
        """A record's data key is gone."""
        self._erased[record_id] = sequence

    def said(self, sequence: int, content: Content) -> None:
        """A record of an erasure or a retention."""
        try:
            if content.kind == "retention":
                taken = _Taken.model_validate_json(content.body)
                self._retentions.append(_Retention(sequence, content.id, content.time, taken))
                self._ranges += [(a, min(b, sequence - 1)) for a, b in taken.sequences if a <= b]
            else:
                erased = _Erased.model_validate_json(content.body)
                self._erasures.append(_Erasure(sequence, content.id, content.about, erased))
                for record_id in erased.records:
                    self._erased.pop(record_id, None)
        except ValidationError:
            self._unfounded(sequence, content.id, ["it does not say what was withdrawn"])

    def end(self, reading: Reading, signed: Signed) -> None:
        """There are no more: name what was withdrawn for no reason, and reasons that are none."""
        for first, last in without(self._emptied, self._ranges):
            told = "emptied, and no record of a retention says so"
            self._report.add(Finding("emptied", first, last, None, told))
        for record_id, sequence in self._erased.items():
            told = "its data key was destroyed, and no record of an erasure says so"
            self._report.add(Finding("erased", sequence, sequence, record_id, told))
        for retention in self._retentions:
            faults = [
                *_of_its_term(retention, self._months, signed),
                *self._of_its_records(retention, reading, signed),
            ]
            self._unfounded(retention.sequence, retention.id, faults)
        named = [(erasure, one) for erasure in self._erasures for one in erasure.said.records]
        for start in range(0, len(named), _AT_ONCE):
            self._check_erased(named[start : start + _AT_ONCE], reading)

    def _of_its_records(
        self, retention: _Retention, reading: Reading, signed: Signed
    ) -> Iterator[str]:
        """What is wrong with the records that a retention names."""
        said = retention.said
        if not _rising(said.sequences, retention.sequence):
            yield "the places it names are in no order, or behind its own"
            return
        # There may be as many ranges as records: little is done of each, and the rest at once.
        places, times, codes = array("q"), array("q"), bytearray()
        gaps: list[Range] = []
        for first, last in said.sequences:
            inside = slice(bisect_left(self._places, first), bisect_right(self._places, last))
            codes += self._kinds[inside]
            places += self._places[inside]
            times += self._times[inside]
            if inside.stop - inside.start <= last - first:
                there = ((place, place) for place in self._places[inside])
                gaps += without([(first, last)], there)
        kinds = Counter(codes)
        for gap in gaps:
            kinds += self._left(retention, gap, reading)
        cut_off, latest = microseconds(said.before), max(times, default=_NO_TIME)
        if _NO_TIME in times:
            yield f"record {places[times.index(_NO_TIME)]} has an id that no server makes"
        elif latest > cut_off + SLACK:
            yield f"record {places[times.index(latest)]} was made later than {said.before}"
        last = said.sequences[-1][1]
        before = signed.before(last)
        if before is not None and before.time - SLACK > cut_off:
            yield (
                f"record {last} was written after checkpoint {before.number} was signed, and so "
                f"later than {said.before}"
            )
        named = sum(last - first + 1 for first, last in said.sequences)
        # Where records are missing, that is what was found, and not who counted them.
        yield from _of_its_numbers(kinds, said.records, whole=kinds.total() == named)
        held = sorted(said.held_sequences)
        if list(without(held, said.sequences)) != held:
            yield "it names what it says is held"

    def _left(self, retention: _Retention, gap: Range, reading: Reading) -> Counter[int]:
        """What is at places that a retention names and that were not empty when read; the kinds."""
        there = (_R.sequence >= gap[0], _R.sequence <= gap[1])
        whole = (
            sa.select(_R.kind, sa.func.count(), sa.func.min(_R.sequence), sa.func.max(_R.sequence))
            .where(*there, _R.body.is_not(None))
            .group_by(_R.kind)
        )
        # One that is at work took them since.
        since = (
            sa.select(_R.kind, sa.func.count()).where(*there, _R.body.is_(None)).group_by(_R.kind)
        )
        with reading() as connection:
            left = as_stored(connection, whole)
            gone = as_stored(connection, since)
        if left:
            first, last = min(row[2] for row in left), max(row[3] for row in left)
            told = f"taken by a retention, as record {retention.sequence} says, and there again"
            self._report.add(Finding("restored", first, last, None, told))
        kinds: Counter[int] = Counter()
        for kind, number, *_ in (*left, *gone):
            kinds[_KINDS.get(kind, _NO_KIND)] += number
        return kinds

    def _check_erased(self, named: Sequence[tuple[_Erasure, str]], reading: Reading) -> None:
        """Hold what erasures name against what is there."""
        ids = sorted({one for _, one in named if _NAME.fullmatch(one)})
        columns = sa.select(
            *(_R.id, _R.sequence, _R.about),
            *(column.is_not(None) for column in (_R.body, _R.sealed, _R.data_key)),
        )
        with reading() as connection:
            rows = as_stored(connection, columns.where(_R.id.in_(ids))) if ids else ()
        found = {row[0]: row for row in rows}
        faults: dict[tuple[int, str], Counter[str]] = {}
        for erasure, one in named:
            fault, row = None, found.get(one)
            if row is None or row[1] >= erasure.sequence:
                fault = "not there before it"
            else:
                _, sequence, about, whole, sealed, readable = row
                if whole and erasure.about not in {one, about or one}:
                    fault = "not about the one it is about"
                elif whole and not sealed:
                    fault = "without personal data"
                elif readable:
                    told = f"erased, as record {erasure.sequence} says, and its data key is back"
                    self._report.add(Finding("restored", sequence, sequence, one, told))
            if fault is not None:
                faults.setdefault((erasure.sequence, erasure.id), Counter())[fault] += 1
        for where, kinds in faults.items():
            told = ", ".join(f"{number:,} {fault}" for fault, number in kinds.items())
            self._unfounded(*where, [f"of the records it names, {told}"])

    def _unfounded(self, sequence: int, record_id: str, faults: Sequence[str]) -> None:
        if faults:
            told = "; ".join(faults)
            self._report.add(Finding("unfounded", sequence, sequence, record_id, told))


def _rising(ranges: Sequence[Range], below: int) -> bool:
    """Whether ranges follow each other without meeting, from 1 on and below a place."""
    ordered = all(first <= last for first, last in ranges) and all(
        one[1] < other[0] for one, other in pairwise(ranges)
    )
    return ordered and ranges[0][0] >= 1 and ranges[-1][1] < below


def _of_its_term(retention: _Retention, months: int, signed: Signed) -> Iterator[str]:
    """What is wrong with the term of a retention, and with its own time."""
    said = retention.said
    if said.months < months:
        yield f"its term is {said.months} months, and records are kept for {months}"
    try:
        latest = microseconds(months_before(instant(retention.time), said.months))
    except (ValueError, OverflowError):
        yield "its time and its term come to no date"
        return
    if microseconds(said.before) > latest + SLACK:
        yield f"it takes what is before {said.before}, which is less than {said.months} months"
    by = signed.by(retention.sequence)
    known = time.time_ns() // 1_000 if by is None else by.time
    if retention.time > known + SLACK:
        yield f"its time, {moment(retention.time)}, is after it was on record"


def _of_its_numbers(kinds: Counter[int], said: dict[str, int], *, whole: bool) -> Iterator[str]:
    """What is wrong with what a retention took of each kind; kinds by their codes.

    ``whole`` if a record is at each place that it names.
    """
    never = [kind for kind in NEVER if kinds[_KINDS[kind]]]
    if never:
        yield f"it names records of {' and '.join(never)}, which are never taken"
    told: Counter[int] = Counter()
    for kind, number in said.items():
        told[_KINDS.get(kind, _NO_KIND)] += number
    if whole and +kinds != +told:
        yield "it names other numbers of records, by kind, than are in the places it names"


def made_at(record_id: str) -> int:
    """The time in a UUIDv7, microseconds since the epoch to the millisecond; -1 of another text."""
    # By hand: a regular expression takes three times as long, of every record that was emptied.
    if len(record_id) != _ID_LENGTH or record_id[14] != "7":
        return _NO_TIME
    try:
        return int(record_id[:8] + record_id[9:13], 16) * 1_000
    except ValueError:
        return _NO_TIME


def without(ranges: Iterable[Sequence[int]], away: Iterable[Range]) -> Iterator[Range]:
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
