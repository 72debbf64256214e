"""Replays for callers: on one thread beside the event loop, a few at a time.

A decision may need a package that has not decided for years. Loading and trying it takes up to
seconds, so it is kept from everything else that the process does, and the last ones stay loaded.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from credit_risk.errors import Overloaded
from credit_risk.replay import listings_of, replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.audit.records import Record, Records
    from credit_risk.package import ModelPackage
    from credit_risk.replay import Load
    from credit_risk.serving.activation import ActivePackage

PACKAGES_KEPT = 2
"""Packages kept loaded besides the one that decides: each takes tens of megabytes."""
WAITING_MAX = 16
"""Replays in hand; a caller beyond is turned away at once."""
_RETRY_SECONDS = 1.0


class Replays:
    """Makes decisions again; see the module's text.

    Args:
        records: where environments are on record.
        active: the package that decides, which is loaded already.
        load: loads and checks any other, see `credit_risk.replay.replay`.
    """

    def __init__(self, records: Records, active: ActivePackage, load: Load) -> None:
        self._records = records
        self._active = active
        self._kept: Load = lru_cache(PACKAGES_KEPT)(load)
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay")

    async def make(self, find: Callable[[], Record]) -> dict[str, Any]:
        """The replay of the decision that ``find`` reads from the database, as JSON.

        What is begun goes on where the caller has gone, so that a package is there next time.

        Raises:
            Overloaded: too many are in hand; nothing was begun.
        """
        if self._waiting >= WAITING_MAX:
            raise Overloaded(_RETRY_SECONDS)
        self._waiting += 1
        made = self._thread.submit(self._make, find)
        loop = asyncio.get_running_loop()
        made.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        return await asyncio.wrap_future(made)

    def close(self) -> None:
        """End the thread, once what it has begun is done."""
        self._thread.shutdown(cancel_futures=True)

    def _done(self) -> None:
        self._waiting -= 1

    def _make(self, find: Callable[[], Record]) -> dict[str, Any]:
        (made,) = replay([find()], self._load, listings=listings_of(self._records))
        return made.to_json()

    def _load(self, portfolio: str, version: str) -> ModelPackage:
        current = self._active.current
        # Not one that holds somebody's own pipeline: it is not made for two threads.
        if current.version == version and not current.model.slow:
            return current
        return self._kept(portfolio, version)
