"""What a run measured: every request with its raw time, and the figures made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

LEVELS = (50.0, 95.0, 99.0, 100.0)


@dataclass(frozen=True, slots=True)
class Samples:
    """Requests in the order of their answers, as columns of shape (requests,).

    ``routes`` names the routes and ``route`` is an index into it; ``start`` is in seconds since
    the epoch, ``ms`` the time to the whole answer, unrounded. A request ``failed`` if it got no
    answer, or one of status 400 and above, or a batch with a row refused.
    ``generator_share`` is how much of one core the load generator used: near 1, the times are
    also its own.
    """

    routes: tuple[str, ...]
    route: npt.NDArray[np.int8]
    start: Floats
    ms: Floats
    failed: Flags
    generator_share: float

    def of(self, route: str) -> Samples:
        """Those of one route."""
        return self.where(self.route == self.routes.index(route))

    def where(self, chosen: Flags) -> Samples:
        """Those chosen."""
        return Samples(
            self.routes,
            self.route[chosen],
            self.start[chosen],
            self.ms[chosen],
            self.failed[chosen],
            self.generator_share,
        )

    @property
    def end(self) -> Floats:
        """When each answer was there, seconds since the epoch."""
        ends: Floats = self.start + self.ms / 1e3
        return ends

    def save(self, path: Path) -> None:
        """Write them to an ``.npz`` file."""
        np.savez_compressed(
            path,
            routes=np.array(self.routes, dtype=np.str_),
            route=self.route,
            start=self.start,
            ms=self.ms,
            failed=self.failed,
            generator_share=np.float64(self.generator_share),
        )


def load(path: Path) -> Samples:
    """Read what `Samples.save` wrote; raises OSError if there is no such file."""
    with np.load(path, allow_pickle=False) as columns:
        return Samples(
            tuple(str(name) for name in columns["routes"]),
            columns["route"],
            columns["start"],
            columns["ms"],
            columns["failed"],
            float(columns["generator_share"]),
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of a run.

    Times in ms, of the requests that were answered well: a refusal is quick, and would make a
    server that refuses look fast. They are None if there was no such answer. ``seconds`` is from
    the first request sent to the last answer received.
    """

    requests: int
    failures: int
    seconds: float
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float | None

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed."""
        return self.failures / self.requests

    @property
    def throughput(self) -> float:
        """Requests answered well, a second."""
        return (self.requests - self.failures) / self.seconds


def percentiles(ms: Floats, levels: Sequence[float] | Floats) -> Floats:
    """The smallest times that at least ``levels`` percent of the requests did not exceed.

    The nearest-rank definition (Hyndman and Fan 1996, type 1): always a time that was measured,
    never one between two.

    Raises:
        ValueError: there are no times.
    """
    if not len(ms):
        msg = "no requests"
        raise ValueError(msg)
    times: Floats = np.percentile(ms, np.asarray(levels), method="inverted_cdf")
    return times


def measure(samples: Samples) -> Measured | None:
    """The figures of a run; None if no request was made."""
    if not len(samples.ms):
        return None
    well = samples.ms[~samples.failed]
    p50, p95, p99, longest = percentiles(well, LEVELS).tolist() if len(well) else [None] * 4
    return Measured(
        requests=len(samples.ms),
        failures=int(samples.failed.sum()),
        # Start and length of a request are of two clocks; the sum is never below the length.
        seconds=max(float(samples.end.max() - samples.start.min()), float(samples.ms.max()) / 1e3),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=longest,
    )
