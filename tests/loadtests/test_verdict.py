"""Verdicts: met, missed, and what was never measured."""

from __future__ import annotations

import pytest

from loadtests import measurement, verdict
from loadtests.objectives import Targets
from loadtests.verdict import Finding
from tests.loadtests.traffic import samples

EXACT = {"p50": 10.0, "p95": 10.0, "p99": 10.0, "error_rate": 0.0, "throughput": 100.0}


def missed(targets: Targets, *, failed: range = range(0)) -> set[str]:
    """The objectives that 100 requests of 10 ms on end miss."""
    measured = measurement.measure(samples([10.0] * 100, failed=failed))
    return {f.objective for f in verdict.judge(targets, measured) if not f.met}


def test_a_target_reached_exactly_is_met() -> None:
    """At most and at least include the target."""
    assert missed(Targets(**EXACT | {"throughput": 99.9})) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"p50": 9.99}, {"p50"}),
        ({"p50": 9.0, "p95": 9.5, "p99": 9.99}, {"p50", "p95", "p99"}),
        ({"throughput": 101.0}, {"throughput"}),
    ],
)
def test_each_objective_is_missed_by_itself(change: dict[str, float], expected: set[str]) -> None:
    """A slow run, and one that answers too few."""
    assert missed(Targets(**EXACT | {"throughput": 99.9} | change)) == expected


def test_errors_are_held_against_their_own_target() -> None:
    """One in a hundred is more than none, and as much as one in a hundred."""
    none = Targets(**EXACT | {"throughput": 1.0})
    some = Targets(**EXACT | {"throughput": 1.0, "error_rate": 0.01})

    assert missed(none, failed=range(1)) == {"error_rate"}
    assert missed(some, failed=range(1)) == set()
    assert missed(some, failed=range(100)) == {"p50", "p95", "p99", "error_rate", "throughput"}


def test_without_requests_every_objective_is_missed() -> None:
    """Nothing measured is nothing shown."""
    findings = verdict.judge(Targets(**EXACT), None)

    assert [(f.measured, f.word) for f in findings] == [(None, "MISSED")] * 5
    assert verdict.exit_code(findings) == 1


def test_less_than_does_not_include_its_target() -> None:
    """Memory that grows by exactly the limit has grown too much."""
    assert not Finding("memory", "MB", "less than", 5.0, 5.0).met
    assert Finding("memory", "MB", "less than", 5.0, 4.9).met


def test_the_exit_code_is_1_for_any_miss_and_for_no_finding() -> None:
    """And 0 only if there is something, and all of it is met."""
    met = Finding("p50", "ms", "at most", 10.0, 5.0)
    late = Finding("p99", "ms", "at most", 10.0, 50.0)

    assert verdict.exit_code([met, met]) == 0
    assert verdict.exit_code([met, late]) == 1
    assert verdict.exit_code([]) == 1
