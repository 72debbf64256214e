"""Withdrawals: what retention and erasures took, and the records that say so."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pydantic_core

from credit_risk.audit.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from credit_risk.audit.chain import Content
    from credit_risk.audit.findings import Report


class Withdrawals:
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
        return bool(self._erased or next(without(self._taken, self._ranges), None))

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
        for first, last in without(self._taken, self._ranges):
            told = "emptied, and no record of a retention says so"
            report.add(Finding("emptied", first, last, None, told))
        for record_id, sequence in self._erased.items():
            told = "its data key was destroyed, and no record of an erasure says so"
            report.add(Finding("erased", sequence, sequence, record_id, told))


def without(
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
