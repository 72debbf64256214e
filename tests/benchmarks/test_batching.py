"""Batching: both ways decide about every applicant, and are timed alike."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks import batching
from credit_risk import scoring
from tests import toys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credit_risk.package import ModelPackage, Parts
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many applicants each call decides about."""
    numbers: list[int] = []
    decide = scoring.decide

    def noting(
        package: Parts,
        applications: Sequence[Application],
        *,
        explain: bool | Sequence[bool] = False,
        stages: list[tuple[str, float]] | None = None,
    ) -> list[Decision]:
        numbers.append(len(applications))
        return decide(package, applications, explain=explain, stages=stages)

    monkeypatch.setattr(scoring, "decide", noting)
    return numbers


def test_one_by_one_nobody_has_company(trees_package: ModelPackage, decided: list[int]) -> None:
    """Each applicant is a call."""
    batching.one_by_one(batching.Case("toys", trees_package, toys.applications(9)))
    assert decided == [1] * 9


@pytest.mark.parametrize("callers", [1, 4])
def test_callers_together_decide_about_everybody_once(
    trees_package: ModelPackage, decided: list[int], callers: int
) -> None:
    """As many at a time as there are callers."""
    case = batching.Case("toys", trees_package, toys.applications(12))
    asyncio.run(batching.together(case, callers))
    assert decided == [callers] * (12 // callers)


def test_every_way_is_timed(trees_package: ModelPackage) -> None:
    """The plain one first, then each number of callers."""
    figures = batching.measured(batching.Case("toys", trees_package, toys.applications(32)))
    assert [*figures] == ["one by one", "1", "8", "32"]
    assert all(figure > 0 for figure in figures.values())
