"""Continuity: whether records follow each other, and if not, what was done to which.

A chain that is broken falls into runs of records that do follow each other. Records hold the hash
of the one before, so the runs can be put in the order they were written in: what then stands
elsewhere was moved, what no other record follows was put in, and what is followed but not there
was removed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from credit_risk.audit.chain import GENESIS
from credit_risk.audit.findings import Finding
from credit_risk.audit.merkle import HASH_BYTES
from credit_risk.audit.tables import RECORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credit_risk.audit.chain import Form
    from credit_risk.audit.checkpoints import Reading
    from credit_risk.audit.findings import Report
    from credit_risk.audit.signatures import Signed

_RUNS_MOST = 1_000
_R = RECORDS.c


class Row(NamedTuple):
    """A record as the chain sees it. ``form`` is None of what is expired or malformed."""

    sequence: int
    id: str
    previous: bytes
    hash: bytes
    form: Form | None


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


class Continuity:
    """Follows the records, and says what is wrong with their order."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._runs: list[_Run] = []
        self._breaks = 0
        self._run: _Run | None = None
        # The last record, if its content and its hash do not fit, and the hash of its content.
        self._doubt: tuple[Row, bytes | None] | None = None

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
            self._begin(Row(sequence, record_id or "", previous, own, None), frozenset({own, b""}))

    def add(self, row: Row, *, fits: bool) -> None:
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

    def _begin(self, row: Row, ends: frozenset[bytes]) -> None:
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

    def end(self, reading: Reading, heads: Sequence[Any], signed: Signed) -> None:
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
        self, order: list[_Run], orphans: list[_Run], signed: Signed, *, numbered: bool
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
