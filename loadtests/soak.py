"""What only a long run shows: memory that grows, and a tail that grows with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtests.measurement import measure
from loadtests.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtests.measurement import Measured, Samples
    from loadtests.objectives import Soak

MINUTE = 60.0
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Resident:
    """Memory of the workers at one moment (seconds since the epoch), bytes by process id."""

    at: float
    workers: Mapping[int, int]

    @property
    def megabytes(self) -> float:
        """All workers together, MB."""
        return sum(self.workers.values()) / MEGABYTE


def minutes(samples: Samples) -> list[Measured | None]:
    """The figures of each minute; the run is cut into equal parts of about a minute."""
    if not len(samples.ms):
        return []
    begin, end = _span(samples)
    parts = _parts(begin, end)
    part = np.minimum(((samples.end - begin) / (end - begin) * parts).astype(int), parts - 1)
    return [measure(samples.where(part == i)) for i in range(parts)]


def growth(memory: Sequence[Resident], samples: Samples, per_requests: int) -> float | None:
    """MB by which all workers together grew, for each ``per_requests`` requests answered.

    The median of the last minute against that of the first. None if there is less than two
    minutes' worth, or if a worker was replaced: then memory says nothing.
    """
    if not len(samples.ms):
        return None
    begin, end = _span(samples)
    parts = _parts(begin, end)
    width = (end - begin) / parts
    first = [r for r in memory if begin <= r.at < begin + width]
    last = [r for r in memory if end - width < r.at <= end]
    if parts < 2 or not first or not last or len({frozenset(r.workers) for r in memory}) > 1:  # noqa: PLR2004
        return None
    between = (samples.end > begin + width / 2) & (samples.end <= end - width / 2)
    requests = int(between.sum())
    if not requests:
        return None
    grown = np.median([r.megabytes for r in last]) - np.median([r.megabytes for r in first])
    return float(grown) / requests * per_requests


def judge(soak: Soak, samples: Samples, memory: Sequence[Resident]) -> tuple[Finding, ...]:
    """The soak's own objectives, beside the targets of its scenario."""
    measured = minutes(samples)
    ratio = None
    if len(measured) > 1:
        first, last = measured[0], measured[-1]
        if first and last and first.p99 is not None and last.p99 is not None:
            ratio = last.p99 / first.p99
    requests = soak.memory_growth_requests
    return (
        Finding(
            f"memory growth over {requests:,} requests",
            "MB",
            "less than",
            soak.memory_growth_mb,
            growth(memory, samples, requests),
        ),
        Finding("p99, last minute to first", "ratio", "at most", soak.p99_ratio, ratio),
    )


def _span(samples: Samples) -> tuple[float, float]:
    return float(samples.start.min()), float(samples.end.max())


def _parts(begin: float, end: float) -> int:
    return max(round((end - begin) / MINUTE), 1)
