"""Clocks: times on record that cannot be right, whoever wrote them.

They are as they were written, so the log is whole; but what rests on time, such as how old a record
is, cannot be believed there. Clocks of servers differ, and a record is written after its time, so
that less than `SLACK` is nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from credit_risk.audit.records import moment
from credit_risk.audit.withdrawals import SLACK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from credit_risk.audit.signatures import Stamp

_NAMED_MOST = 20


class Clocks:
    """Follows times beside the records.

    Args:
        now: what the clock of who verifies says, microseconds since the epoch.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self.latest = now + SLACK
        """A time on record behind this one is in the future."""
        # Records in the future that follow each other: places of the first and the last, and the
        # latest time among them.
        self._runs: list[list[int]] = []
        self._number = 0

    def ahead(self, sequence: int, time: int) -> None:
        """A record whose time is in the future."""
        self._number += 1
        if self._runs and self._runs[-1][1] == sequence - 1:
            self._runs[-1][1:] = [sequence, max(time, self._runs[-1][2])]
        elif len(self._runs) < _NAMED_MOST:
            self._runs.append([sequence, sequence, time])

    def told(self, stamps: Iterable[Stamp]) -> list[str]:
        """What is wrong, a line for people each.

        Args:
            stamps: of the checkpoints, in their order.
        """
        now = f"in the future of this clock, {moment(self._now)}"
        lines = []
        for first, last, time in self._runs:
            which = f"record {first} was" if first == last else f"records {first} to {last} were"
            lines.append(f"{which} made up to {moment(time)}, {now}")
        left = self._number - sum(last - first + 1 for first, last, _ in self._runs)
        if left:
            lines.append(f"and {left:,} more records were made {now}")
        return lines + list(self._of_checkpoints(stamps, now))

    def _of_checkpoints(self, stamps: Iterable[Stamp], now: str) -> Iterable[str]:
        before: Stamp | None = None
        for stamp in stamps:
            signed = f"checkpoint {stamp.number} was signed at {moment(stamp.time)}"
            if stamp.time > self.latest:
                yield f"{signed}, {now}"
            if before is not None and stamp.time < before.time - SLACK:
                was = f"checkpoint {before.number}, which was at {moment(before.time)}"
                yield f"{signed}, after {was}"
            elif before is not None and stamp.time < before.time:
                continue
            before = stamp
