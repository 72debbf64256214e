"""How a command ends."""

from __future__ import annotations

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
