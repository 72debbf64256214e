"""What a worker reads of itself: the process, what waits in it, and what it lost (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from monitoring import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitoring.metrics import Metrics, WorkerMetrics

EVERY_SECONDS = 2.0
"""Between two looks at the process, which take a tenth of a millisecond and more."""


class Vitals:
    """Sets the metrics that are there to be read, of a worker that serves from now on.

    Args:
        metrics: where.
        worker: where, of this worker alone.
        waiting: tells how many records wait for a commit.
    """

    def __init__(self, metrics: Metrics, worker: WorkerMetrics, waiting: Callable[[], int]) -> None:
        self._metrics = metrics
        self._worker = worker
        self._waiting = waiting
        self._lines_dropped = 0
        self._due = 0.0
        worker.start_time.set(_started())
        self._look()
        worker.serving.set(1)

    def read(self) -> None:
        """Look, at the process only now and then."""
        self._metrics.evidence.waiting.set(self._waiting())
        dropped = logs.dropped()
        self._metrics.process.log_lines_dropped.inc(dropped - self._lines_dropped)
        self._lines_dropped = dropped
        now = time.monotonic()
        if now >= self._due:
            self._due = now + EVERY_SECONDS
            self._look()

    def _look(self) -> None:
        worker, used = self._worker, os.times()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        worker.resident_memory.set(pages * os.sysconf("SC_PAGE_SIZE"))
        worker.cpu.set(used.user + used.system)
        worker.open_fds.set(sum(1 for _ in Path("/proc/self/fd").iterdir()))


def _started() -> float:
    """When this process was started, seconds since the epoch (proc(5): field 22 of stat)."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    ticks = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks
