"""The cost of a challenger: verdicts, what metrics tell, and a challenger that is the champion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import challenger
from benchmarks.challenger import CONNECTIONS, STATES, Measured, judge
from credit_risk import package
from loadtests import applications

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.challenger import State


def measured(rate: float, p99: float) -> dict[State, Measured]:
    """Those without a challenger are 1,000 and 10."""
    found: dict[State, Measured] = {state: Measured() for state in STATES}
    for state, one in found.items():
        for connections in CONNECTIONS:
            one.rates[connections] += [1_000.0 if state == "none" else rate] * 3
            one.p99[connections] += [10.0 if state == "none" else p99] * 3
    return found


def test_ratios_on_target_are_met() -> None:
    """Of every state and load, throughput and p99."""
    findings = judge(measured(900.0, 12.0))

    assert len(findings) == 2 * len(CONNECTIONS) * (len(STATES) - 1)
    assert all(finding.met for finding in findings)


@pytest.mark.parametrize(
    ("rate", "p99", "bound"), [(899.0, 12.0, "at least"), (900.0, 12.1, "at most")]
)
def test_one_that_costs_more_is_a_target_missed(rate: float, p99: float, bound: str) -> None:
    """In each state alike."""
    missed = [finding for finding in judge(measured(rate, p99)) if not finding.met]

    assert {finding.bound for finding in missed} == {bound}
    assert len(missed) == len(CONNECTIONS) * (len(STATES) - 1)


def test_what_became_of_the_challenger_is_read_from_the_metrics() -> None:
    """And what nothing became of is left out."""
    text = (
        "# TYPE credit_shadow_decisions counter\n"
        'credit_shadow_decisions_total{outcome="same"} 7.0\n'
        'credit_shadow_decisions_total{outcome="milder"} 0.0\n'
        "# TYPE credit_shadow_process_failures counter\n"
        'credit_shadow_process_failures_total{cause="hung"} 2.0\n'
        "# TYPE credit_shadow_behind_records gauge\n"
        'credit_shadow_behind_records{portfolio="p"} 9.0\n'
    )

    assert challenger.told_of(text) == {"same": 7.0, "hung": 2.0, "behind": 9.0}


def test_the_challenger_is_the_champion_by_another_name(tmp_path: Path) -> None:
    """And both are there to be shipped."""
    folder, version = challenger.challenger(tmp_path)

    champion = package.load(applications.folder(folder, challenger.PORTFOLIO, "default"))
    loaded = package.load(folder / challenger.PORTFOLIO / version, version)
    assert loaded.version != champion.version
    assert loaded.digests["trees.npz"] == champion.digests["trees.npz"]
