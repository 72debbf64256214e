from __future__ import annotations

import time
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from monitoring.charts import FIGURES
from monitoring.gauges import RETRAINING, JobMetrics, Told, contest_figures
from tests.monitoring import monitored

NAME = monitored.everything().portfolio


@pytest.fixture
def registry() -> CollectorRegistry:
    """Where the metrics are."""
    return CollectorRegistry()


@pytest.fixture
def told(registry: CollectorRegistry) -> Told:
    """What tells."""
    return Told(JobMetrics(registry))


def values(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric, by its labels but those of the package."""
    return {
        tuple(v for k, v in sample.labels.items() if k not in {"portfolio", "model_version"}): (
            sample.value
        )
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_what_was_found_is_told(registry: CollectorRegistry, told: Told) -> None:
    """All of it, by field, figure, decile and attribute."""
    known = monitored.everything()
    told.done(NAME, [known], 1.5)

    assert known.window is not None
    assert known.window.score is not None
    fields = (*known.window.fields, known.window.score)
    assert values(registry, "credit_monitor_psi") == {(f.field,): f.psi for f in fields}
    assert values(registry, "credit_monitor_psi_critical") == {
        (f.field,): f.critical for f in fields
    }
    assert values(registry, "credit_monitor_window_rows") == {(): known.window.rows}
    outcomes = known.performance
    assert outcomes is not None
    assert outcomes.figures is not None
    assert values(registry, "credit_monitor_outcomes") == {(): outcomes.rows}
    assert values(registry, "credit_monitor_outcome_coverage_ratio") == {(): outcomes.coverage}
    assert values(registry, "credit_monitor_outcome_maturity_ratio") == {(): outcomes.maturity}
    figures = values(registry, "credit_monitor_performance")
    assert figures["auc", "outcomes", "low"] == outcomes.figures.auc.low
    assert len(figures) == len(FIGURES) * 3 * 3
    rates = values(registry, "credit_monitor_decile_default_ratio")
    assert list(rates) == [(f"{number:02}",) for number in range(1, 11)]
    assert list(rates.values()) == [tier.default_rate for tier in outcomes.deciles]
    assert [*values(registry, "credit_monitor_decile_pd_ratio").values()] == [
        tier.mean_pd for tier in outcomes.deciles
    ]
    (fairness,) = known.fairness
    (ratio,) = [group.ratio.value for group in fairness.groups if group.ratio is not None]
    assert values(registry, "credit_monitor_approval_ratio_least") == {(fairness.attribute,): ratio}
    assert values(registry, "credit_monitor_retraining") == {(): RETRAINING[known.check.verdict]}
    assert values(registry, "credit_monitor_run_seconds") == {(): 1.5}
    (done,) = values(registry, "credit_monitor_done_timestamp_seconds").values()
    assert time.time() - done >= 0


def test_what_is_known_of_a_challenger_is_told_by_its_version(
    registry: CollectorRegistry, told: Told
) -> None:
    """Figures with the bounds that they have; of none that was not asked, how many it was."""
    known, found = monitored.everything(), monitored.contest()
    told.done(NAME, [replace(known, contest=found)], 1.0)

    values_of = values(registry, "credit_monitor_challenger")
    assert values_of["rows", "value"] == found.rows
    assert found.agreement is not None
    assert values_of["agreement", "low"] == found.agreement.low
    assert found.outcomes.differences is not None
    assert values_of["auc_difference", "high"] == found.outcomes.differences.auc.high
    assert ("psi", "value") in values_of
    assert ("psi", "low") not in values_of
    assert {name for name, _ in values_of} >= {"processor_time_ratio", "approval_ratio_change"}
    nothing = found.model_copy(update={"rows": 0})
    for name in ("agreement", "scores", "latency", "first_reasons"):
        nothing = nothing.model_copy(update={name: None})
    assert contest_figures(nothing)["rows"] == {"value": 0}
    assert "psi" not in contest_figures(nothing)


def test_what_is_not_known_is_not_told(registry: CollectorRegistry, told: Told) -> None:
    """Nor what retraining comes to of a package that decides no longer."""
    told.done(NAME, [monitored.nothing()], 1.0)

    assert {family.name for family in registry.collect() if family.samples} == {
        *("credit_monitor_runs", "credit_monitor_run_seconds"),
        "credit_monitor_done_timestamp_seconds",
    }


def test_without_figures_nothing_is_told_of_what_was_expected_of_outcomes(
    registry: CollectorRegistry, told: Told
) -> None:
    """What is expected of all applicants is."""
    few = monitored.outcomes().model_copy(update={"figures": None, "deciles": ()})
    told.done(NAME, [replace(monitored.everything(), performance=few)], 1.0)

    sources = {labels[1] for labels in values(registry, "credit_monitor_performance")}
    assert sources == {"estimate"}
    assert values(registry, "credit_monitor_outcomes") == {(): few.rows}


def test_what_a_run_no_longer_finds_is_told_no_more(
    registry: CollectorRegistry, told: Told
) -> None:
    """Of this portfolio; those of others stay."""
    known = monitored.everything()
    told.done("others", [replace(known, portfolio="others")], 1.0)
    told.done(NAME, [known], 1.0)
    told.done(NAME, [replace(known, window=None)], 1.0)

    left = [s.labels["portfolio"] for f in registry.collect() for s in f.samples if "psi" in s.name]
    assert set(left) == {"others"}


def test_how_runs_end_is_counted(registry: CollectorRegistry, told: Told) -> None:
    """From 0 on, so that the first failure is seen; a failure leaves what was found before."""
    told.begin(NAME)
    assert values(registry, "credit_monitor_runs_total") == {("done",): 0, ("failed",): 0}

    told.went_through(NAME, 30)
    told.done(NAME, [monitored.everything()], 1.0)
    told.begin(NAME)
    told.went_through(NAME, 2)
    told.failed(NAME)

    assert values(registry, "credit_monitor_runs_total") == {("done",): 1, ("failed",): 1}
    assert values(registry, "credit_monitor_records_counted_total") == {(): 32}
    assert values(registry, "credit_monitor_psi")
