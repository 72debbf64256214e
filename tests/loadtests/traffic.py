"""Made-up samples for tests of what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtests.measurement import Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUTES = ("/predict", "/predict/batch", "/explain")


def samples(
    ms: Sequence[float],
    *,
    failed: Sequence[int] = (),
    route: Sequence[int] | None = None,
    start: Sequence[float] | None = None,
) -> Samples:
    """Requests of these times (ms), one after the other; ``failed`` are places in the list."""
    times = np.array(ms, dtype=np.float64)
    flags = np.zeros(len(times), dtype=np.bool_)
    flags[list(failed)] = True
    begins = np.cumsum(times) / 1e3 - times / 1e3 if start is None else np.array(start)
    routes = np.zeros(len(times), dtype=np.int8) if route is None else np.array(route, np.int8)
    return Samples(ROUTES, routes, begins.astype(np.float64), times, flags, 0.25)
