"""Looking after a worker from within: whether it is ready, and how late its event loop comes.

What is asked at ``/readyz`` the worker asks itself every few seconds, so that metrics tell of one
that cannot decide also where nobody asks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from credit_risk.errors import RecordingFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from monitoring.metrics import Metrics

logger = logging.getLogger("credit_risk.serving")

CHECK_SECONDS = 5.0
LAG_SECONDS = 0.25
"""Between two looks at the clock."""
CHECKING_SHARE = 0.02
"""Checks take no more of the time: a slow model takes long to score its golden records."""


class Watch:
    """Looks again and again, once started, on the event loop.

    Args:
        checks: looks whether the worker can decide, and tells of it itself.
        waiting: counts the decisions that wait for people; for another thread.
        portfolio: whose they are.
        metrics: where to tell of it.
    """

    def __init__(
        self,
        checks: Callable[[], Awaitable[object]],
        waiting: Callable[[], int],
        portfolio: str,
        metrics: Metrics,
    ) -> None:
        self._checks = checks
        self._waiting = waiting
        self._reviews = metrics.decisions.reviews_waiting.labels(portfolio)
        self._lag = metrics.process.loop_lag
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, on the event loop that runs."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._go_on()), loop.create_task(self._time())]

    def close(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()

    async def look(self) -> None:
        """Look once."""
        await self._checks()
        # That the database does not answer is what the checks tell.
        with suppress(RecordingFailed):
            self._reviews.set(await asyncio.to_thread(self._waiting))

    async def _go_on(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self.look()
            except Exception:
                # What nobody foresaw is no reason not to look again.
                logger.exception("the worker could not look after itself")
            taken = time.monotonic() - began
            await asyncio.sleep(max(CHECK_SECONDS, taken / CHECKING_SHARE))

    async def _time(self) -> None:
        while True:
            due = time.perf_counter() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lag.observe(max(time.perf_counter() - due, 0.0))
