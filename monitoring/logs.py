"""Logs: one JSON object per line, on standard output, for our code, BentoML and uvicorn alike.

No line holds an applicant's data: request lines carry ids, route, status and time only, and a
traceback's message is ours.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

from pythonjsonlogger.json import JsonFormatter

REQUESTS = logging.getLogger("credit_risk.requests")
"""One line per request."""


class Line(JsonFormatter):
    """Adds an RFC 3339 time in UTC, level and logger to every line."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
        )

    def process_log_record(self, log_record: dict[str, object]) -> dict[str, object]:
        """Put the time first."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"time": now, **super().process_log_record(log_record)}


def configure(level: str) -> None:
    """Send everything, other libraries' lines included, through one JSON handler."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Line())
    root = logging.getLogger()
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
