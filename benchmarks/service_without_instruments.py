"""This server without metrics, traces and request lines, to measure what they cost.

Only for the benchmark: everything else is put together as ``service.py`` does it. A server has its
log level and its ratio of traces; that it counts is no choice.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from monitoring import accounts
from monitoring.accounts import Accounts
from service import CreditRiskServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitoring.metrics import Metrics
    from monitoring.traces import Traces


class Silent(Accounts):
    """Accounts of nothing."""

    def __init__(self, metrics: Metrics, traces: Traces) -> None:
        super().__init__(metrics, traces)
        self._noted = deque(maxlen=0)

    def read(self, reading: Callable[[], None]) -> None:
        """Read nothing."""

    def start(self) -> None:
        """No thread looks at what was noted."""


# The runtime makes its accounts when a worker starts, and that is whatever has this name.
accounts.Accounts = Silent  # type: ignore[misc]

__all__ = ["CreditRiskServer"]
