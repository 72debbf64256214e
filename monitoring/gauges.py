"""The metrics of the monitoring job, each named here; those of servers are in `metrics`.

They are of the last run, and computed from records, so that they are the same whatever was
restarted meanwhile.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.charts import FIGURES, compared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credit_risk.challenger import Contest
    from credit_risk.performance import Figures
    from credit_risk.significance import Interval
    from monitoring.report import Monitored

RETRAINING = {"NOT_NEEDED": 0, "WATCH": 1, "RECOMMENDED": 2}
_OF_PACKAGE = ["portfolio", "model_version"]


class RunMetrics:
    """Whether the job does its work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "credit_monitor_runs",
            "Times that a portfolio was looked at, by how that ended: done or failed.",
            ["portfolio", "outcome"],
            registry=registry,
        )
        self.counted = Counter(
            "credit_monitor_records_counted",
            "Records gone through for decisions to count, each once.",
            ["portfolio"],
            registry=registry,
        )
        self.seconds = Gauge(
            "credit_monitor_run_seconds",
            "How long the last run took that was done.",
            ["portfolio"],
            registry=registry,
        )
        self.done = Gauge(
            "credit_monitor_done_timestamp_seconds",
            "When the last run was done.",
            ["portfolio"],
            registry=registry,
        )


class DriftMetrics:
    """Applicants of the last days against the package's reference."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self.rows = gauge(
            "credit_monitor_window_rows",
            "Applicants of the last seven days that were compared with the reference.",
            _OF_PACKAGE,
        )
        self.psi = gauge(
            "credit_monitor_psi",
            "Population stability index of a field, or of the score, over the last seven days.",
            [*_OF_PACKAGE, "feature"],
        )
        self.critical = gauge(
            "credit_monitor_psi_critical",
            "What chance alone makes of it once in a hundred checks, at most.",
            [*_OF_PACKAGE, "feature"],
        )


class PerformanceMetrics:
    """Outcomes against PDs, and what all of it comes to."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self.outcomes = gauge(
            "credit_monitor_outcomes",
            "Decisions of the last 400 days whose outcome is on record.",
            _OF_PACKAGE,
        )
        self.coverage = gauge(
            "credit_monitor_outcome_coverage_ratio",
            "Share of the applications accepted in the last 400 days whose outcome is on record.",
            _OF_PACKAGE,
        )
        self.maturity = gauge(
            "credit_monitor_outcome_maturity_ratio",
            "Share of the applications accepted in the last 400 days that had the whole outcome "
            "period.",
            _OF_PACKAGE,
        )
        self.figure = gauge(
            "credit_monitor_performance",
            "A figure of performance with the bounds of its interval (bound: value, low, high): as "
            "outcomes show, as was to be expected of them if PDs are true, or as is to be expected "
            "of all applicants (source: outcomes, expected, estimate).",
            [*_OF_PACKAGE, "figure", "source", "bound"],
        )
        self.decile_rate = gauge(
            "credit_monitor_decile_default_ratio",
            "Default rate of each tenth of the outcomes by PD, from low to high.",
            [*_OF_PACKAGE, "decile"],
        )
        self.decile_pd = gauge(
            "credit_monitor_decile_pd_ratio",
            "Mean PD of the same.",
            [*_OF_PACKAGE, "decile"],
        )
        self.least_ratio = gauge(
            "credit_monitor_approval_ratio_least",
            "Approval rate of the group least approved over the reference group's, by attribute.",
            [*_OF_PACKAGE, "attribute"],
        )
        self.retraining = gauge(
            "credit_monitor_retraining",
            "Whether to think of retraining the package that decides: 0 not needed, 1 watch, 2 "
            "recommended.",
            _OF_PACKAGE,
        )


class ContestMetrics:
    """The challenger beside the package that decides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.figure = Gauge(
            "credit_monitor_challenger",
            "What is known of the challenger beside the package that decides: a figure with the "
            "bounds of its interval, if it has one (bound: value, low, high).",
            [*_OF_PACKAGE, "figure", "bound"],
            registry=registry,
        )


class JobMetrics:
    """The job's metrics, on the registry given (a fresh one in each test)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.run = RunMetrics(registry)
        self.drift = DriftMetrics(registry)
        self.performance = PerformanceMetrics(registry)
        self.contest = ContestMetrics(registry)


class Told:
    """What the metrics tell; what a run no longer finds is told no more."""

    def __init__(self, metrics: JobMetrics) -> None:
        self._metrics = metrics
        self._values: dict[str, set[tuple[Gauge, tuple[str, ...]]]] = {}

    def begin(self, portfolio: str) -> None:
        """A portfolio is going to be looked at; failures that may come are there at 0."""
        for outcome in ("done", "failed"):
            self._metrics.run.runs.labels(portfolio, outcome)
        self._metrics.run.counted.labels(portfolio)

    def went_through(self, portfolio: str, records: int) -> None:
        """So many more records were gone through."""
        self._metrics.run.counted.labels(portfolio).inc(records)

    def failed(self, portfolio: str) -> None:
        """It could not be looked at; what was found before stays."""
        self._metrics.run.runs.labels(portfolio, "failed").inc()

    def done(self, portfolio: str, found: Sequence[Monitored], seconds: float) -> None:
        """It was looked at: this was found of its packages."""
        values = {value: number for known in found for value, number in self._of(known)}
        for (gauge, labels), number in values.items():
            gauge.labels(*labels).set(number)
        for gauge, labels in self._values.get(portfolio, set()) - set(values):
            gauge.remove(*labels)
        self._values[portfolio] = set(values)
        run = self._metrics.run
        run.runs.labels(portfolio, "done").inc()
        run.seconds.labels(portfolio).set(seconds)
        run.done.labels(portfolio).set(time.time())

    def _of(self, known: Monitored) -> list[tuple[tuple[Gauge, tuple[str, ...]], float]]:
        package = (known.portfolio, known.version)
        drift, performance = self._metrics.drift, self._metrics.performance
        values: list[tuple[tuple[Gauge, tuple[str, ...]], float]] = []
        if known.decides:
            values.append(((performance.retraining, package), RETRAINING[known.check.verdict]))
        if known.window is not None:
            values.append(((drift.rows, package), known.window.rows))
            for found in compared(known.window):
                if found.critical is not None:
                    of_field = (*package, found.field)
                    values.append(((drift.psi, of_field), found.psi))
                    values.append(((drift.critical, of_field), found.critical))
        outcomes = known.performance
        if outcomes is not None:
            values += [
                ((performance.outcomes, package), outcomes.rows),
                ((performance.coverage, package), outcomes.coverage),
                ((performance.maturity, package), outcomes.maturity),
            ]
            for tier in outcomes.deciles:
                if tier.default_rate is not None and tier.mean_pd is not None:
                    of_decile = (*package, tier.name.zfill(2))
                    values.append(((performance.decile_rate, of_decile), tier.default_rate))
                    values.append(((performance.decile_pd, of_decile), tier.mean_pd))
            values += self._figures(package, "outcomes", outcomes.figures)
            # Where outcomes are too few for figures, so they are for what was expected of them.
            expected = None if outcomes.figures is None else outcomes.expected
            values += self._figures(package, "expected", expected)
        values += self._figures(package, "estimate", known.estimate)
        values += self._contest(known.portfolio, known.contest)
        for fairness in known.fairness:
            ratios = [group.ratio.value for group in fairness.groups if group.ratio is not None]
            if ratios:
                labels = (*package, fairness.attribute)
                values.append(((performance.least_ratio, labels), min(ratios)))
        return values

    def _contest(
        self, portfolio: str, found: Contest | None
    ) -> list[tuple[tuple[Gauge, tuple[str, ...]], float]]:
        if found is None:
            return []
        gauge, package = self._metrics.contest.figure, (portfolio, found.challenger)
        return [
            ((gauge, (*package, name, bound)), value)
            for name, bounds in contest_figures(found).items()
            for bound, value in bounds.items()
        ]

    def _figures(
        self, package: tuple[str, str], source: str, figures: Figures | None
    ) -> list[tuple[tuple[Gauge, tuple[str, ...]], float]]:
        if figures is None:
            return []
        gauge = self._metrics.performance.figure
        return [
            ((gauge, (*package, name, source, bound)), getattr(getattr(figures, name), bound))
            for name in FIGURES
            for bound in ("value", "low", "high")
        ]


def contest_figures(found: Contest) -> dict[str, dict[str, float]]:
    """What there is to tell of a challenger: figures with the bounds that they have."""
    told: dict[str, dict[str, float]] = {"rows": {"value": found.rows}}
    differences = found.outcomes.differences
    moved = ("newly_approved", "no_longer_approved", "newly_declined", "no_longer_declined")
    worst = [one.worst for one in found.fairness if one.worst is not None]
    with_bounds: dict[str, Interval | None] = {
        "agreement": found.agreement,
        **{name: None if (one := getattr(found, name)) is None else one.share for name in moved},
        "same_first_reason": None if found.first_reasons is None else found.first_reasons.same,
        "failure_ratio": found.challenger_failures.rate,
        "approval_ratio_change": min(worst, key=lambda one: one.value, default=None),
        **{
            f"{name}_difference": None if differences is None else getattr(differences, name)
            for name in ("auc", "ks", "brier", "calibration")
        },
    }
    for name, one in with_bounds.items():
        if one is not None:
            told[name] = {bound: getattr(one, bound) for bound in ("value", "low", "high")}
    if found.scores is not None:
        told["psi"] = {"value": found.scores.psi}
    if found.latency is not None:
        told["processor_time_ratio"] = {"value": found.latency.ratio}
    return told
