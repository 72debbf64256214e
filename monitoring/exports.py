"""Exporting spans so that nobody waits for a collector.

A thread hands spans to the exporter. While the collector is down, slow or refuses, a bounded number
of spans waits, and the rest is dropped and counted; closing takes a bounded time. The limits are
OpenTelemetry's own (``OTEL_BSP_MAX_QUEUE_SIZE``, ``OTEL_BSP_MAX_EXPORT_BATCH_SIZE`` and
``OTEL_BSP_SCHEDULE_DELAY``). Its own processor would not say how much it drops, and takes as long
to close as the exporter does to give up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

EXPORTERS = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
"""Who logs each try that a collector did not take."""
TOLD_SECONDS = 60.0
CLOSE_SECONDS = 5.0
"""What waits when the server stops has so long to be exported."""


class Seldom(logging.Filter):
    """One line in `TOLD_SECONDS`: a collector that is away is told, and not with every try."""

    def __init__(self) -> None:
        super().__init__()
        self._next = -TOLD_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether nothing was told for so long; what is no warning passes."""
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + TOLD_SECONDS
        return True


class Exports:
    """Exports in a thread of its own; see the module's text.

    Args:
        exporter: where spans go.
        exported: told how many spans the collector took.
        dropped: told how many were lost.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        exported: Callable[[int], None],
        dropped: Callable[[int], None],
    ) -> None:
        self._exporter = exporter
        logging.getLogger(EXPORTERS).filters[:] = [Seldom()]
        self._exported = exported
        self._dropped = dropped
        self._most = _limit("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)
        self._together = _limit("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
        self._seconds = _limit("OTEL_BSP_SCHEDULE_DELAY", 5_000) / 1e3
        self._waiting: deque[ReadableSpan] = deque()
        self._awake = threading.Event()
        self._closing = self._over = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, spans: Sequence[ReadableSpan]) -> None:
        """Have spans exported: all of them, or none."""
        if self._closing or len(self._waiting) + len(spans) > self._most:
            self._dropped(len(spans))
            return
        self._waiting.extend(spans)
        if len(self._waiting) >= self._together:
            self._awake.set()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Export what waits, for so long at most, and drop the rest."""
        self._closing = True
        self._awake.set()
        self._thread.join(seconds)
        self._over = True
        # Ends a pause before another try. What has been sent may still be taken.
        self._exporter.shutdown()
        self._dropped(len(self._take(self._most)))

    def _run(self) -> None:
        while not self._closing:
            self._awake.wait(self._seconds)
            self._awake.clear()
            while self._waiting and not self._over:
                self._export(self._take(self._together))

    def _take(self, most: int) -> list[ReadableSpan]:
        taken: list[ReadableSpan] = []
        with suppress(IndexError):
            while len(taken) < most:
                taken.append(self._waiting.popleft())
        return taken

    def _export(self, spans: list[ReadableSpan]) -> None:
        try:
            taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:
            # Whatever is wrong with these, the next ones may be right.
            logger.exception("%d spans could not be exported", len(spans))
            taken = False
        (self._exported if taken else self._dropped)(len(spans))


def _limit(name: str, default: int) -> int:
    """A whole number above 0 from the environment."""
    given = os.environ.get(name, "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    if given:
        logger.warning("%s is no whole number above 0, so it is %d", name, default)
    return default
