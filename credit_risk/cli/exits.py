"""How a command ends."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

from credit_risk.errors import CreditRiskError, NotFound, RecordingFailed

EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 3),
    (RecordingFailed, 4),
    (CreditRiskError, 1),
    (OSError, 1),
)
"""How an error ends a command; the first kind that it is one of counts."""
OTHERWISE = 5
"""How a replay or a verification ends that did not show what it was to show."""
MISQUEUED = 6
"""How a verification ends that found records whole, and a table beside them otherwise."""
UNTIMELY = 7
"""How a verification ends that found all of it whole, and times in it that cannot be right."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, with the exit code of a process it killed."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
