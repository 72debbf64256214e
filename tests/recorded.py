"""Decisions on record without a server: made, and kept in a list that is read like a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from credit_risk import scoring
from credit_risk.decisions import Call, decision_record, new_id
from credit_risk.errors import RecordNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credit_risk.audit.records import Filters, Record, RecordKind
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

NOON = 1_700_000_000_000_000


def decided(
    package: ModelPackage, applications: Sequence[Application], start: int = NOON
) -> list[Record]:
    """The records of these decisions, a second apart, in order."""
    made = scoring.decide(package, applications)
    return [
        decision_record(
            package,
            new_id(),
            application,
            decision,
            Call("/predict", "request-1", at=start + place * 1_000_000),
            latency_ms=1.5,
        )
        for place, (application, decision) in enumerate(zip(applications, made, strict=True))
    ]


class Kept:
    """Records in a list; see `credit_risk.audit.records.Records`."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self.records = list(records)
        self.limits: list[int] = []

    def get(self, record_id: str) -> Record:
        """The record of that id."""
        for record in self.records:
            if record.id == record_id:
                return record
        raise RecordNotFound(record_id)

    def find(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        written: bool = False,
        **filters: Unpack[Filters],
    ) -> list[Record]:
        """The newest first, after the one before."""
        self.limits.append(limit)
        found = [record for record in reversed(self.records) if _fits(record, filters)]
        if not written:
            found.sort(key=lambda record: record.time, reverse=True)
        if before is not None:
            found = found[1 + [record.id for record in found].index(before) :]
        return found[:limit]

    def count(self, **filters: Unpack[Filters]) -> int:
        """How many fit."""
        return sum(_fits(record, filters) for record in self.records)

    def latest(self, portfolio: str, kind: RecordKind) -> Record | None:
        """The last one put in."""
        fitting = [r for r in self.records if (r.portfolio, r.kind) == (portfolio, kind)]
        return fitting[-1] if fitting else None


def _fits(record: Record, filters: Filters) -> bool:
    wanted: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
    since, until = wanted.pop("since", None), wanted.pop("until", None)
    return (
        all(getattr(record, name) == value for name, value in wanted.items())
        and (since is None or record.time >= since)
        and (until is None or record.time < until)
    )
