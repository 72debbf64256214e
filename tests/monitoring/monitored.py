"""A toy package that was monitored, with something to show of everything."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from credit_risk import challenger, fairness, model, performance, retraining
from credit_risk.challenger import CutOffs, Grouped, Known, Pairs, Side
from credit_risk.drift import Counts, Reference
from credit_risk.retraining import Evidence, Limit, Limits, MonitoringPolicy
from monitoring.charts import Day
from monitoring.multivariate import Multivariate, Separation
from monitoring.report import Monitored
from tests import toys

if TYPE_CHECKING:
    from credit_risk.challenger import Contest
    from credit_risk.fairness import Fairness
    from credit_risk.performance import Performance

FIRST = date(2026, 11, 2)
GROUPS = ("north", "<i>south</i>", "few")


@cache
def reference() -> Reference:
    """The toy package's."""
    return Reference.of(toys.load_package("linear"))


def counted(rows: int, seed: int, income: float = 1.0) -> Counts:
    """Applicants of the toy portfolio whose incomes are so many times as high."""
    package = toys.load_package("linear")
    matrix = package.schema.matrix(toys.applications(rows, seed))
    matrix[:, package.schema.names.index("income")] *= income
    return reference().count(matrix, model.probability(package.model.log_odds(matrix)))


@cache
def outcomes() -> Performance:
    """Those of two months, the second of which is not over."""
    generator = np.random.default_rng(5)
    pds = generator.beta(1, 6, 400)
    days = np.array([["2025-01-15", "2026-10-15"], ["2025-02-14", "2026-11-14"]], "datetime64[D]")
    decided, observed = np.repeat(days, [250, 150], axis=1)
    return performance.measure(
        performance.Outcomes(
            pds,
            (generator.random(400) < pds).astype(np.int64),
            decided,
            observed,
        ),
        {"2025-01": 260, "2026-10": 300},
        toys.policy(),
        today=np.datetime64("2026-11-22"),
    )


@cache
def groups() -> Fairness:
    """Of an attribute with a name that is none for a page, one of them too small."""
    generator = np.random.default_rng(6)
    codes = np.where(np.arange(300) < 10, 2, np.arange(300) % 2)
    pds = generator.beta(1, 4, 300)
    return fairness.measure(codes, GROUPS, pds < 0.2, pds, 0.2, attribute="region & more")


@cache
def everything() -> Monitored:
    """A package of which everything is known, whose applicants' incomes fall on the fourth day."""
    counts = [counted(300, day, 0.3 if day > 2 else 1.0) for day in range(5)]
    rows = [300, 300, 300, 300, 300]
    compared = [reference().compare(one) for one in counts]
    days = [
        Day(FIRST + timedelta(days=number), of_day, of_day // 2, drift)
        for number, (of_day, drift) in enumerate(zip(rows, compared, strict=True))
    ]
    # A day without decisions, one with a few of which nothing is known, and one with too few.
    after = FIRST + timedelta(days=6)
    days.append(Day(after, 3, 0, None))
    days.append(Day(after + timedelta(days=1), 20, 1, reference().compare(counted(20, 9))))
    window = reference().total(counts)
    drift = reference().compare(window)
    estimate = performance.estimate(*reference().scores(window))
    policy = MonitoringPolicy(
        portfolio=toys.NAME,
        version="1",
        limits=Limits(field_psi=Limit(watch=0.1, recommend=0.2), age_days=Limit(watch=100)),
    )
    return Monitored(
        portfolio=toys.NAME,
        version="0123456789ab",
        decides=True,
        made=datetime(2026, 11, 22, 10, 30, tzinfo=UTC),
        titles={spec.name: spec.title for spec in toys.schema().fields},
        days=days,
        window_days=7,
        window=drift,
        together=Multivariate(
            verdict="drifted",
            baseline_rows=5_000,
            rows=1_500,
            area=0.712,
            critical=0.55,
            p_value=0.0,
            distance=0.3,
            fields=(Separation(field="income", area_lost=0.08),),
        ),
        estimate=estimate,
        performance=outcomes(),
        fairness=[groups()],
        check=retraining.check(policy, Evidence(drift=drift)),
    )


def nothing() -> Monitored:
    """A package that decided, and of which nothing else is known."""
    return replace(
        everything(),
        version="ba9876543210",
        decides=False,
        days=[Day(FIRST, 3, 0, None)],
        window=None,
        together=Multivariate(
            verdict="missing", reason="it is not installed", baseline_rows=0, rows=0
        ),
        estimate=None,
        performance=None,
        fairness=[],
        check=retraining.check(
            MonitoringPolicy(portfolio=toys.NAME, version="1", limits=Limits()), Evidence()
        ),
    )


def side(pds: np.ndarray, seconds: float) -> Side:
    """A side with reasons for whom it does not approve."""
    decisions = np.searchsorted([0.2, 0.4], pds, side="right")
    return Side(
        pds=pds,
        decisions=decisions.astype(np.int64),
        bands=np.searchsorted([0.1, 0.2, 0.4], pds, side="right").astype(np.int64),
        reasons=np.where(decisions == 0, "", np.where(pds > 0.3, "INCOME_LEVEL", "AGE")),
        seconds=np.full(len(pds), seconds),
    )


@cache
def contest() -> Contest:
    """A challenger of which everything is known."""
    rows = 1_000
    generator = np.random.default_rng(2)
    one = generator.beta(1, 3, rows)
    other = np.clip(one + generator.normal(0, 0.05, rows), 0.001, 0.999)
    canary = np.arange(rows) < 100
    errors = {"ExplanationFailed": 3}
    pairs = Pairs(side(one, 0.001), side(other, 0.002), canary, {}, errors, 1_234)
    known = Known(pairs, (generator.random(rows) < one).astype(np.int64))
    codes = generator.integers(0, 2, rows).astype(np.int64)
    grouped = [Grouped("region", pairs, codes, ["<north>", "south"])]
    cut_offs = CutOffs(0.4, 0.4)
    return challenger.compare("a" * 12, "b" * 12, pairs, cut_offs, known=known, grouped=grouped)
