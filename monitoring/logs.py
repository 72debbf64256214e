"""Logs: one JSON object per line, on standard output, for our code, BentoML and uvicorn alike.

No line holds an applicant's data: request lines carry ids, route, status and time only, and a
traceback's message is ours.

Whoever logs is never kept waiting: a thread writes. While standard output takes nothing, lines
are kept, and beyond `WAITING_MAX` of them dropped; how many were is a line of its own then.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pydantic_core

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TextIO

logger = logging.getLogger("credit_risk.monitoring")

REQUESTS = logging.getLogger("credit_risk.requests")
"""One line per request."""
WAITING_MAX = 10_000
INTERVAL_SECONDS = 0.02

_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class Line(logging.Formatter):
    """A record as JSON: RFC 3339 time in UTC, level, logger, message, what it carries besides."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((k, v) for k, v in vars(record).items() if k not in _OF_EVERY_RECORD)
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack_info"] = self.formatStack(record.stack_info)
        return pydantic_core.to_json(line, fallback=str).decode()


class Outlet(logging.Handler):
    """Writes to a stream from a thread of its own; see the module's text.

    ``dropped`` is how many lines were lost so far, counted as they are: also while nothing can be
    written.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: deque[logging.LogRecord] = deque()
        self._told = 0
        self._left_out = 0
        self._unwritten = 0
        self._counting = threading.RLock()  # a signal's handler may log, too
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """None: `emit` needs no lock, and waits for nobody."""
        self.lock = None

    @property
    def dropped(self) -> int:
        """How many lines were lost so far."""
        return self._left_out + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record for the thread."""
        if len(self._waiting) >= WAITING_MAX:
            with self._counting:
                self._left_out += 1
        else:
            self._waiting.append(record)

    def flush(self) -> None:
        """Write everything that waits; returns when it is written."""
        with self._writing:
            lines = []
            while self._waiting:
                lines.append(self._line(self._waiting.popleft()))
            untold = self._left_out - self._told
            if untold:
                self._told += untold
                about = {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING}
                told = logging.makeLogRecord({**about, "msg": f"{untold} lines were dropped"})
                lines.append(self.format(told))
            if not lines:
                return
            try:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                # Nobody reads any more, or the stream is closed: there is nowhere to tell it.
                self._unwritten += len(lines)

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception:  # noqa: BLE001 - told in place of the line
            # As logging has it: a line that somebody wrote wrongly costs no other one.
            about = {"name": record.name, "levelname": "ERROR", "levelno": logging.ERROR}
            told = f"a line of {record.filename}:{record.lineno} could not be formatted"
            return self.format(logging.makeLogRecord({**about, "msg": told}))

    def close(self) -> None:
        """End the thread, and write what is left."""
        self._stop.set()
        self._thread.join()
        self.flush()
        super().close()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            self.flush()


def dropped() -> int:
    """How many lines this process has lost so far."""
    outlets = (h for h in logging.getLogger().handlers if isinstance(h, Outlet))
    return sum(outlet.dropped for outlet in outlets)


def configure(level: str) -> None:
    """Send everything, other libraries' lines included, through one JSON handler."""
    handler = Outlet(sys.stdout)
    handler.setFormatter(Line())
    root = logging.getLogger()
    for before in root.handlers:
        before.close()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("bentoml", "uvicorn.error", "uvicorn.access", "circus"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # The line per request is ours; uvicorn's would be a second one.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("credit_risk").setLevel(level)
    logging.getLogger("bentoml").setLevel(logging.INFO)


def capture() -> None:
    """Log what Python itself would print: warnings, and errors that nobody caught."""
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logger.critical("nobody caught an error", exc_info=(kind, error, trace))
