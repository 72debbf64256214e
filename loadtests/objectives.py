"""What the server promises under load, read from ``objectives.yaml`` and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from credit_risk import documents
from credit_risk.documents import Document

SHIPPED = Path(__file__).parent / "objectives.yaml"

ScenarioName = Literal["predict", "batch", "explain", "mix"]
Milliseconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Targets(Document):
    """What one scenario must keep to.

    ``p50``, ``p95`` and ``p99`` are the longest a request may take at that percentile, in ms as
    the client sees it; ``error_rate`` the largest share of requests that may fail;
    ``throughput`` the fewest requests a second that must be answered well.
    """

    p50: Milliseconds
    p95: Milliseconds
    p99: Milliseconds
    error_rate: Annotated[float, Field(ge=0.0, lt=1.0)]
    throughput: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _percentiles_rise(self) -> Targets:
        if not self.p50 <= self.p95 <= self.p99:
            msg = "p50, p95 and p99 do not rise"
            raise ValueError(msg)
        return self


class Scenario(Document):
    """One kind of traffic: how much of it, for how many seconds, and what must hold then.

    Each user sends its next request as soon as it has the answer to the one before.
    ``rows`` is the number of applications in each batch call.
    """

    title: str
    users: Annotated[int, Field(ge=1, le=1_000)]
    duration: Annotated[int, Field(ge=1, le=86_400)]
    rows: Annotated[int, Field(ge=1, le=10_000)] = 1
    targets: Targets


class Soak(Document):
    """What must hold over a long run of the traffic of ``scenario``.

    ``memory_growth_mb`` is how much more memory the workers together may hold at the end than at
    the beginning, for each ``memory_growth_requests`` requests (1 MB = 10^6 bytes);
    ``p99_ratio`` the largest p99 of the last minute against that of the first.
    """

    scenario: ScenarioName
    memory_growth_mb: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    memory_growth_requests: Annotated[int, Field(ge=1)]
    p99_ratio: Annotated[float, Field(ge=1.0, allow_inf_nan=False)]


class Objectives(Document):
    """All objectives: for each scenario, and for the soak."""

    scenarios: Annotated[dict[ScenarioName, Scenario], Field(min_length=1)]
    soak: Soak

    @model_validator(mode="after")
    def _soak_has_a_scenario(self) -> Objectives:
        if self.soak.scenario not in self.scenarios:
            msg = f"soak: there is no scenario {self.soak.scenario}"
            raise ValueError(msg)
        return self


def read(path: Path = SHIPPED) -> Objectives:
    """Read the objectives at ``path``.

    Raises:
        PortfolioInvalid: see `credit_risk.documents.read`.
    """
    return documents.read(Objectives, path)
