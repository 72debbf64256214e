"""This server with its records thrown away, to measure what keeping them costs.

Only for the benchmark: everything else is put together as ``service.py`` does it. The product has
no such switch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from credit_risk.audit import log
from credit_risk.audit.log import SqlAuditLog
from service import CreditRiskServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credit_risk.audit.records import Alongside, Record


class Forgetting(SqlAuditLog):
    """An audit log that says it has recorded a decision, and has not."""

    async def record(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> None:
        """Keep nothing."""


# The service opens its log when a worker starts, and that is whatever has this name. The run looks
# into the database afterwards: it has to be empty.
log.SqlAuditLog = Forgetting  # type: ignore[misc]

__all__ = ["CreditRiskServer"]
