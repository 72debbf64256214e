"""Targets against what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadtests.measurement import Measured
    from loadtests.objectives import Targets

Bound = Literal["at most", "at least", "less than"]

MET = 0
MISSED = 1
UNITS = {
    "p50": "ms",
    "p95": "ms",
    "p99": "ms",
    "error_rate": "share",
    "throughput": "requests/s",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One objective, its target and what was measured (None: nothing was)."""

    objective: str
    unit: str
    bound: Bound
    target: float
    measured: float | None

    @property
    def met(self) -> bool:
        """Whether it holds; what was not measured does not."""
        if self.measured is None:
            return False
        if self.bound == "at least":
            return self.measured >= self.target
        if self.bound == "less than":
            return self.measured < self.target
        return self.measured <= self.target

    @property
    def word(self) -> str:
        """The verdict, for people."""
        return "OK" if self.met else "MISSED"


def judge(targets: Targets, measured: Measured | None) -> tuple[Finding, ...]:
    """Each objective of a scenario against the figures of its run; None: no request was made."""
    return tuple(
        Finding(
            objective=name,
            unit=unit,
            bound="at least" if name == "throughput" else "at most",
            target=getattr(targets, name),
            measured=None if measured is None else getattr(measured, name),
        )
        for name, unit in UNITS.items()
    )


def exit_code(findings: Iterable[Finding]) -> int:
    """`MET` if there are findings and every one is met, else `MISSED`."""
    verdicts = [finding.met for finding in findings]
    return MET if verdicts and all(verdicts) else MISSED
