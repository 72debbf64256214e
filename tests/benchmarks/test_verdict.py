"""Targets: reached exactly, missed, and not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import verdict
from benchmarks.run import Reasons, Starts
from tests.benchmarks.figures import measured, times

if TYPE_CHECKING:
    from benchmarks.run import Measured
    from loadtests.verdict import Finding

STARTS = Starts(first=9.0, later=3.0)
REASONS = Reasons(reference_rows=5_000, background_rows=100, ours_us=50.0, shap_us=2_000.0)


def run_on_target() -> list[Measured]:
    """Every target is reached, and none by more than it takes."""
    return [
        measured(
            "this-server",
            {
                ("predict", 1): times(900.0, p50=1.0, p99=2.0),
                ("predict", 32): times(2_400.0),
                ("declined", 32): times(1_700.0),
                ("batch", 1): times(80.0),
                ("batch", 2): times(100.0),
            },
            largest=300e6,
        ),
        measured(
            "this-server-without-reasons",
            {("predict", 32): times(2_400.0 / 0.85), ("declined", 32): times(2_000.0)},
        ),
        measured("this-server-without-records", {("predict", 32): times(3_200.0)}),
        measured("this-server-without-instruments", {("predict", 32): times(3_000.0)}),
        measured("bentoml-empty", {("predict", 32): times(2_400.0)}),
        measured(
            "fastapi",
            {
                ("predict", 1): times(250.0, p50=4.0, p99=12.0),
                ("predict", 32): times(200.0),
                ("batch", 1): times(10.0),
                ("batch", 2): times(9.0),
            },
        ),
        measured("mlflow", {("predict", 32): times(200.0)}),
        measured("ray-serve", {("predict", 32): times(80.0)}),
    ]


def missed(findings: tuple[Finding, ...]) -> set[str]:
    """The objectives not met."""
    return {finding.objective for finding in findings if not finding.met}


def test_targets_reached_exactly_are_met() -> None:
    """All thirteen of them."""
    findings = verdict.judge(run_on_target(), STARTS, REASONS)

    assert len(findings) == 13
    assert missed(findings) == set()


@pytest.mark.parametrize(
    ("name", "load", "connections", "rate", "expected"),
    [
        ("bentoml-empty", "predict", 32, 2_401.0, "against an empty BentoML endpoint"),
        ("fastapi", "predict", 32, 201.0, "against FastAPI"),
        ("mlflow", "predict", 32, 201.0, "against the best other"),
        ("fastapi", "batch", 2, 10.1, "rows a second in batches"),
        ("this-server-without-reasons", "predict", 32, 2_900.0, "scored reasons on"),
        ("this-server-without-reasons", "declined", 32, 2_010.0, "where all are declined"),
        ("this-server-without-records", "predict", 32, 3_210.0, "records on"),
        ("this-server-without-instruments", "predict", 32, 3_010.0, "instrumentation on"),
    ],
)
def test_a_quicker_server_is_a_target_missed(
    name: str, load: str, connections: int, rate: float, expected: str
) -> None:
    """That one alone; the best of the others is whichever it is."""
    run = run_on_target()
    (one,) = (one for one in run if one.peer.name == name)
    one.times[load, connections] = [times(rate)]  # type: ignore[index]

    (objective,) = missed(verdict.judge(run, STARTS, REASONS))

    assert expected in objective


def test_a_longer_tail_misses_both_of_its_targets() -> None:
    """Against FastAPI's, and against its own median."""
    run = run_on_target()
    run[0].times["predict", 1] = [times(900.0, p50=1.0, p99=2.1)]

    assert missed(verdict.judge(run, STARTS, REASONS)) == {
        "p99 at 1 connection, against FastAPI's",
        "p99 at 1 connection, against the p50",
    }


def test_reasons_starts_and_memory_have_targets_of_their_own() -> None:
    """The later starts count, and the largest process of any round."""
    run = run_on_target()
    run[0].largest += [301_000_000]
    slow = Reasons(5_000, 100, ours_us=51.0, shap_us=2_000.0)

    assert missed(verdict.judge(run, Starts(first=1.0, later=3.1), slow)) == {
        "exact reasons of one row, times faster than shap",
        "start to ready",
        "memory of a worker",
    }


def test_what_was_not_measured_is_missed() -> None:
    """Without FastAPI nothing is said against it; the others are still compared."""
    run = [one for one in run_on_target() if one.peer.name != "fastapi"]
    findings = verdict.judge(run, None, None)

    assert {finding.objective for finding in findings if finding.measured is None} == {
        "requests a second at 32 connections, against FastAPI",
        "p99 at 1 connection, against FastAPI's",
        "rows a second in batches, best against best of FastAPI",
        "exact reasons of one row, times faster than shap",
        "start to ready",
    }
    assert verdict.judge([], None, None)[-1].measured is None
