"""Soak: memory that grows and a tail that grows, seen in made-up runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests import soak
from loadtests.objectives import Soak
from loadtests.soak import Resident
from tests.loadtests.traffic import samples

if TYPE_CHECKING:
    from loadtests.measurement import Samples

OBJECTIVES = Soak(
    scenario="mix", memory_growth_mb=5.0, memory_growth_requests=200_000, p99_ratio=1.2
)
MINUTES = 5
START = np.arange(0.0, 60.0 * MINUTES, 0.1)
"""Ten requests a second for five minutes."""


def run_of(*tail: float) -> Samples:
    """A run whose requests take ``tail[i]`` ms in minute i."""
    return samples([tail[int(s // 60)] for s in START], start=START.tolist())


def memory_of(grown: float, *, replaced: bool = False) -> list[Resident]:
    """Two workers of 250 MB that together grow by ``grown`` MB from first to last second."""
    return [
        Resident(
            at,
            {
                1: int(250e6 + grown * 1e6 * at / (60.0 * MINUTES)),
                (3 if replaced and at > 200 else 2): int(250e6),
            },
        )
        for at in np.arange(1.0, 60.0 * MINUTES, 2.0).tolist()
    ]


def test_each_minute_has_its_figures() -> None:
    """Five minutes, each with its own tail and its own requests."""
    measured = soak.minutes(run_of(1.0, 2.0, 3.0, 4.0, 5.0))

    assert [m.p99 for m in measured if m is not None] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert sum(m.requests for m in measured if m is not None) == len(START)
    assert soak.minutes(samples([])) == []


def test_a_flat_run_is_met() -> None:
    """Nothing grows."""
    findings = soak.judge(OBJECTIVES, run_of(2.0, 9.0, 9.0, 9.0, 2.0), memory_of(0.0))

    assert [f.met for f in findings] == [True, True]
    assert [f.measured for f in findings] == [0.0, 1.0]


def test_growth_is_for_each_200_000_requests() -> None:
    """Medians are a minute's middle apart, and so are the requests between them."""
    grown = soak.growth(memory_of(1.0), run_of(*[2.0] * MINUTES), 3_000)

    assert grown == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(("megabytes", "met"), [(0.07, True), (0.08, False)])
def test_growth_is_held_against_its_target(megabytes: float, met: bool) -> None:  # noqa: FBT001
    """0.075 MB over 3,000 requests are 5 MB over 200,000."""
    memory, _ = soak.judge(OBJECTIVES, run_of(*[2.0] * MINUTES), memory_of(megabytes))

    assert memory.met is met


def test_a_tail_that_grows_is_missed() -> None:
    """The last minute a quarter slower than the first."""
    _, tail = soak.judge(OBJECTIVES, run_of(2.0, 2.0, 2.0, 2.0, 2.5), memory_of(0.0))

    assert tail.measured == pytest.approx(1.25)
    assert not tail.met


def test_a_worker_replaced_makes_memory_unknown() -> None:
    """A new process starts small: its memory would hide what the old one leaked."""
    steady = run_of(*[2.0] * MINUTES)

    assert soak.growth(memory_of(0.0, replaced=True), steady, 200_000) is None
    assert soak.growth([], steady, 200_000) is None


def test_a_run_too_short_for_two_minutes_shows_nothing() -> None:
    """Both objectives are missed then."""
    short = samples([2.0] * 100)

    findings = soak.judge(OBJECTIVES, short, memory_of(0.0))

    assert [(f.measured, f.met) for f in findings] == [(None, False)] * 2
