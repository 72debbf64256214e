"""Retraining: evidence beyond chance and beyond a limit is a reason, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from credit_risk import documents, performance, portfolio, retraining
from credit_risk.errors import PortfolioInvalid
from credit_risk.performance import Outcomes
from credit_risk.retraining import Check, Criterion, Evidence, MonitoringPolicy
from tests import toys
from tests.test_drift import REFERENCE, YEARS, applicants
from tests.test_drift import USE as USE_FIELD

if TYPE_CHECKING:
    from credit_risk.drift import Drift
    from credit_risk.performance import Performance

ROOT = Path(__file__).parent.parent
TODAY = np.datetime64("2026-11-22")
POLICY = """\
portfolio: bicycle-leases
version: 1.0.0
limits:
  score_psi: {watch: 0.1, recommend: 0.25}
  field_psi: {watch: 0.1}
  major_windows: {watch: 1, recommend: 3}
  auc_loss: {watch: 0.02, recommend: 0.05}
  expected_auc_loss: {watch: 0.03}
  miscalibration: {watch: 1.2, recommend: 1.5}
  missing_rise: {watch: 0.05}
  unseen: {watch: 0.005}
  out_of_range_rise: {watch: 0.01}
  age_days: {watch: 365, recommend: 1095}
"""
LIMITS = documents.parse(MonitoringPolicy, POLICY, "monitoring.yaml")


@cache
def drift(rows: int = 2_000, change: str = "none") -> Drift:
    """Applicants as in development, or with one thing changed."""
    found, pds = applicants(rows, seed=21)
    if change == "score":
        pds = np.sqrt(pds)
    elif change == "use":
        found[: rows // 2, USE_FIELD] = 0
    elif change == "missing":
        found[: rows // 10, YEARS] = np.nan
    elif change == "unseen":
        found[: rows // 50, USE_FIELD] = -1
    elif change == "range":
        found[: rows // 20, 0] = 99
    return REFERENCE.compare(REFERENCE.count(found, pds))


@cache
def outcomes(
    rows: int = 8_000, odds: float = 1.0, noise: float = 0.0, accepted: int = 0
) -> Performance:
    """Outcomes of two years ago: odds are the PDs' times a factor, some PDs are another's."""
    generator = np.random.default_rng(22)
    pds = generator.beta(1.0, 4.0, rows)
    true = odds * pds / (1.0 - pds + odds * pds)
    defaulted = (generator.random(rows) < true).astype(np.int64)
    mixed = np.arange(rows) < noise * rows
    pds[mixed] = generator.permutation(pds[mixed])
    decided = np.full(rows, np.datetime64("2024-11-01"))
    known = Outcomes(pds, defaulted, decided, decided + 360)
    return performance.measure(known, {"2024-11": accepted or rows}, toys.policy(), today=TODAY)


HEALTHY = Evidence(
    drift=drift(),
    history=("stable", "stable"),
    performance=outcomes(),
    expected=outcomes().expected,
    development_auc=0.76,
    age_days=200,
)


def checked(**changed: Any) -> Check:  # noqa: ANN401 - of any type
    """The check of healthy evidence with some of it replaced."""
    return retraining.check(LIMITS, replace(HEALTHY, **changed))


def criterion(found: Check, measure: str) -> Criterion:
    """One of a check's."""
    return next(c for c in found.criteria if c.measure == measure)


def test_a_model_within_every_limit_needs_no_retraining() -> None:
    """And one reason says so."""
    found = checked()

    assert (found.verdict, {c.state for c in found.criteria}) == ("NOT_NEEDED", {"fine"})
    assert found.reasons == (
        "Every measure is within its limits, or no further from it than chance is.",
    )
    assert [c.measure for c in found.criteria] == list(LIMITS.limits.model_dump())


@pytest.mark.parametrize(
    ("changed", "measure", "verdict", "reason"),
    [
        ({"drift": drift(change="score")}, "score_psi", "RECOMMENDED", "Drift of the score: "),
        ({"drift": drift(change="use")}, "field_psi", "WATCH", "Drift of a field: "),
        ({"history": ("stable", "major")}, "major_windows", "WATCH", "Windows in a row with"),
        ({"history": ("major",) * 3}, "major_windows", "RECOMMENDED", "Windows in a row with"),
        ({"performance": outcomes(noise=0.1)}, "auc_loss", "WATCH", "AUC lost since development"),
        (
            {"performance": outcomes(noise=0.4)},
            "auc_loss",
            "RECOMMENDED",
            "AUC lost since development",
        ),
        ({"development_auc": 0.83}, "expected_auc_loss", "WATCH", "AUC lost since development"),
        ({"performance": outcomes(odds=1.5)}, "miscalibration", "WATCH", "Defaults against those"),
        (
            {"performance": outcomes(odds=2.2)},
            "miscalibration",
            "RECOMMENDED",
            "Defaults against those",
        ),
        ({"performance": outcomes(odds=0.6)}, "miscalibration", "WATCH", "Defaults against those"),
        ({"drift": drift(change="missing")}, "missing_rise", "WATCH", "More is missing than in"),
        ({"drift": drift(change="unseen")}, "unseen", "WATCH", "Categories the model does not"),
        ({"drift": drift(change="range")}, "out_of_range_rise", "WATCH", "More is out of the"),
        ({"age_days": 365}, "age_days", "WATCH", "Age of the model: 365 (days since it began), w"),
        ({"age_days": 1_095}, "age_days", "RECOMMENDED", "Age of the model: 1,095 (days since it"),
    ],
)
def test_each_measure_beyond_its_limit_is_a_reason(
    changed: dict[str, Any], measure: str, verdict: str, reason: str
) -> None:
    """Worse than watched where the policy says so."""
    found = checked(**changed)

    states = {"WATCH": "watch", "RECOMMENDED": "recommend"}
    assert (found.verdict, criterion(found, measure).state) == (verdict, states[verdict])
    assert any(text.startswith(reason) for text in found.reasons)


def test_what_chance_may_have_made_is_no_reason() -> None:
    """A PSI, a loss of AUC and a factor above their limits, of few applicants and outcomes."""
    few = outcomes(rows=150, odds=1.4, noise=0.5)

    found = checked(drift=drift(rows=110), performance=few)

    for measure in ("field_psi", "auc_loss", "miscalibration"):
        limited = criterion(found, measure)
        assert limited.value is not None
        assert limited.watch is not None
        assert limited.value > limited.watch, measure
        assert limited.state == "fine", measure
    assert found.verdict == "NOT_NEEDED"


def test_a_field_beyond_chance_goes_before_one_that_is_not() -> None:
    """Though that has the larger index."""
    drifted = drift(change="use")
    shaky = drifted.fields[0].model_copy(update={"psi": 9.0, "critical": 10.0})

    found = checked(drift=drifted.model_copy(update={"fields": (shaky, *drifted.fields[1:])}))

    assert criterion(found, "field_psi").detail == "use"
    assert criterion(found, "field_psi").state == "watch"


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        (None, "no outcomes are known, of decisions made 12 months ago or before"),
        (
            outcomes(rows=99),
            "99 outcomes are known, and 100 are needed, of decisions made 12 months ago or before",
        ),
        (
            outcomes(accepted=20_000),
            "40.0% of those accepted have an outcome, and 50.0% are needed",
        ),
        (
            outcomes().model_copy(update={"expected": None}),
            "PDs let expect fewer than 10 defaults, or 10 others",
        ),
    ],
    ids=["none", "few", "covering half", "none expected"],
)
def test_outcomes_that_say_too_little_are_no_evidence(unfit: Performance | None, why: str) -> None:
    """They are not known, which is said with what is missing, and not counted."""
    found = checked(performance=unfit)

    assert found.verdict == "NOT_NEEDED"
    assert found.reasons == (
        f"AUC lost since development, as outcomes show: not known: {why}.",
        f"Defaults against those expected, as a factor: not known: {why}.",
    )


def test_of_a_model_about_which_nothing_is_known_it_cannot_be_said_that_all_is_well() -> None:
    """It is watched, and why."""
    new = retraining.check(LIMITS, Evidence())
    few = checked(drift=drift(rows=60), performance=None)

    for found in (new, few):
        assert found.verdict == "WATCH"
        assert "Neither drift nor performance is known" in found.reasons[0]
    assert {c.state for c in new.criteria} == {"unknown"}


def test_windows_of_too_few_decisions_do_not_break_a_row() -> None:
    """Nor do they begin one."""
    history = ("stable", "major", "too-few", "major", "too-few")

    assert criterion(checked(history=history), "major_windows").value == 2
    assert criterion(checked(history=("too-few",)), "major_windows").state == "unknown"
    assert criterion(checked(history=("major", "moderate")), "major_windows").value == 0


def test_a_portfolio_without_categories_has_no_unseen_ones() -> None:
    """Which is known."""
    numbers = tuple(c for c in drift().fields if c.unseen is None)

    found = criterion(checked(drift=drift().model_copy(update={"fields": numbers})), "unseen")

    assert (found.value, found.state) == (0.0, "fine")


def test_a_measure_without_limits_is_not_looked_at() -> None:
    """The rest is as before."""
    without = documents.parse(
        MonitoringPolicy, POLICY.replace("  age_days: {watch: 365, recommend: 1095}\n", ""), "m"
    )

    found = retraining.check(without, replace(HEALTHY, age_days=5_000))

    assert found.verdict == "NOT_NEEDED"
    assert "age_days" not in {c.measure for c in found.criteria}


def test_reasons_to_retrain_come_before_those_to_watch() -> None:
    """In the policy's own words and numbers."""
    found = checked(age_days=400, performance=outcomes(odds=2.2))

    assert found.verdict == "RECOMMENDED"
    assert found.reasons[0].startswith("Defaults against those expected, as a factor: ")
    assert found.reasons[0].endswith(", where the limit is 1.5.")
    assert found.reasons[-1].startswith("Age of the model: 400 ")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("{watch: 0.1, recommend: 0.25}", "{watch: 0.3, recommend: 0.25}", "limits.score_psi"),
        ("watch: 0.005", "watch: 0", "limits.unseen.watch"),
        ("score_psi", "score_psy", "limits.score_psy"),
        ("version: 1.0.0\n", "version: 1.0.0\nleast_coverage: 2\n", "least_coverage"),
        ("version: 1.0.0\n", "", "version"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(old: str, new: str, place: str) -> None:
    """With the place that is wrong."""
    with pytest.raises(PortfolioInvalid, match=f"monitoring.yaml: {place}"):
        documents.parse(MonitoringPolicy, POLICY.replace(old, new), "monitoring.yaml")


def test_every_portfolio_has_its_own_policy(tmp_path: Path) -> None:
    """One that belongs to another is refused, and so is none."""
    for name in portfolio.names(ROOT / "portfolios"):
        policy = retraining.read(ROOT / "portfolios" / name, name)
        assert None not in policy.limits.model_dump().values()
    (tmp_path / "monitoring.yaml").write_text(POLICY, encoding="utf-8")

    assert retraining.read(tmp_path, "bicycle-leases") == LIMITS
    with pytest.raises(PortfolioInvalid, match="belongs to portfolio 'bicycle-leases'"):
        retraining.read(tmp_path, "credit-cards")
    with pytest.raises(PortfolioInvalid, match="cannot be read"):
        retraining.read(tmp_path / "elsewhere", "credit-cards")
