"""Objectives: the shipped ones are read, and wrong ones are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml

from credit_risk.errors import PortfolioInvalid
from loadtests import objectives, run
from monitoring.metrics import LATENCY_BUCKETS

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = {"p50": 10, "p95": 20, "p99": 40, "error_rate": 0, "throughput": 100}
SCENARIO = {"title": "Singles", "users": 2, "duration": 5, "targets": TARGETS}
SOAK = {
    "scenario": "mix",
    "memory_growth_mb": 5,
    "memory_growth_requests": 200_000,
    "p99_ratio": 1.2,
}


def written(folder: Path, document: dict[str, Any]) -> Path:
    """A file of objectives."""
    path = folder / "objectives.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_the_shipped_objectives_cover_every_call_and_the_mix() -> None:
    """Each scenario there is has its targets, and users who make its traffic."""
    read = objectives.read()

    assert set(read.scenarios) == set(get_args(objectives.ScenarioName)) == set(run.USERS)
    assert read.scenarios["batch"].rows > 1
    assert (read.soak.memory_growth_mb, read.soak.memory_growth_requests) == (5, 200_000)


def test_every_time_promised_is_an_edge_of_the_servers_histogram() -> None:
    """So that the server's own metrics can tell whether it is kept."""
    edges = {seconds * 1e3 for seconds in LATENCY_BUCKETS}

    for scenario in objectives.read().scenarios.values():
        targets = scenario.targets
        assert {targets.p50, targets.p95, targets.p99} <= edges


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"p50": 30}, "p50, p95 and p99 do not rise"),
        ({"p99": 0}, r"targets\.p99"),
        ({"p99": float("inf")}, r"targets\.p99"),
        ({"error_rate": 1.0}, r"targets\.error_rate"),
        ({"throughput": 0}, r"targets\.throughput"),
        ({"p90": 15}, r"targets\.p90"),
    ],
)
def test_targets_that_make_no_sense_are_refused(
    tmp_path: Path, change: dict[str, float], place: str
) -> None:
    """The message names the place."""
    scenario = {**SCENARIO, "targets": {**TARGETS, **change}}
    path = written(tmp_path, {"scenarios": {"mix": scenario}, "soak": SOAK})

    with pytest.raises(PortfolioInvalid, match=place):
        objectives.read(path)


@pytest.mark.parametrize(
    ("scenarios", "place"),
    [
        ({"mix": {**SCENARIO, "users": 0}}, r"scenarios\.mix\.users"),
        ({"mix": {**SCENARIO, "duration": 0}}, r"scenarios\.mix\.duration"),
        ({"mix": SCENARIO, "browse": SCENARIO}, r"scenarios\.browse"),
        ({"predict": SCENARIO}, "there is no scenario mix"),
        ({}, "scenarios"),
    ],
)
def test_scenarios_that_cannot_be_run_are_refused(
    tmp_path: Path, scenarios: dict[str, Any], place: str
) -> None:
    """No users, no time, unknown traffic, or a soak of nothing."""
    path = written(tmp_path, {"scenarios": scenarios, "soak": SOAK})

    with pytest.raises(PortfolioInvalid, match=place):
        objectives.read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(PortfolioInvalid, match=r"absent\.yaml"):
        objectives.read(tmp_path / "absent.yaml")
