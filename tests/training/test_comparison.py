"""Comparison: the same folds for all, honest intervals, and a rule that is data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import StratifiedKFold

from credit_risk.errors import DataInvalid, PortfolioInvalid
from credit_risk.training import comparison, comparison_report, network, pipeline, preparation
from credit_risk.training.comparison import TITLES, choose, compare, standard_error
from credit_risk.training.settings import Choice, HoldOut
from tests import leases

if TYPE_CHECKING:
    from pathlib import Path

    from credit_risk.portfolio import Portfolio
    from credit_risk.training.comparison import Compared
    from credit_risk.training.settings import EstimatorName, Training

NAMES: tuple[EstimatorName, ...] = ("gradient-boosting", "logistic-regression")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the portfolio and its data are."""
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def leasing(folder: Path) -> tuple[Portfolio, Training]:
    """The toy portfolio."""
    return leases.write_portfolio(folder / "portfolios")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    """Its labelled file."""
    return leases.write_labelled(folder / "leases.csv", rows=900)


@pytest.fixture(scope="module")
def compared(leasing: tuple[Portfolio, Training], data: Path) -> Compared:
    """Two estimators on three folds; timed for no longer than it takes to be timed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "TIMED_SECONDS", 0.0)
        patch.setattr(comparison, "TIMED_ROWS", 3)
        return compare(*leasing, data, estimators=NAMES, folds=3)


def test_figures_are_those_of_rows_that_the_model_was_not_fitted_to(
    leasing: tuple[Portfolio, Training], data: Path, compared: Compared
) -> None:
    """Repeated here by hand, fold by fold."""
    portfolio, training = leasing
    prepared = preparation.read(data, portfolio.schema, training, unique=True)
    folds = StratifiedKFold(3, shuffle=True, random_state=training.seed)
    by_hand = []
    for fitted_to, judged in folds.split(prepared.labels, prepared.labels):
        built = pipeline.build(portfolio.schema, "logistic-regression", {"C": 1.0}, training.seed)
        frame, labels = prepared.take(judged)
        pds = built.fit(*prepared.take(fitted_to)).predict_proba(frame)[:, 1]
        by_hand.append(brier_score_loss(labels, pds))

    (contender,) = (c for c in compared.result.contenders if c.estimator == "logistic-regression")
    brier = contender.figures["brier"]
    assert brier.folds == pytest.approx(by_hand, abs=1e-12)
    assert brier.mean == pytest.approx(np.mean(by_hand))
    assert brier.low < brier.mean < brier.high
    assert contender.figures.keys() == TITLES.keys()
    assert min(contender.score_microseconds, contender.reasons_microseconds) > 0
    assert len(compared.labels) == len(compared.pds["gradient-boosting"]) == 900


def test_an_interval_allows_for_rows_that_folds_share() -> None:
    """With five folds and a quarter to test, one and a half times as wide as without."""
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    naive = values.std(ddof=1) / np.sqrt(5)

    assert standard_error(values, 0.25) == pytest.approx(1.5 * naive)


def test_what_is_chosen_is_the_simplest_within_the_rule() -> None:
    """The best, unless a simpler one comes near enough; how near is data."""
    behind: dict[EstimatorName, float] = {
        "neural-network": 0.0,
        "xgboost": 0.8,
        "logistic-regression": 2.5,
    }

    assert choose(behind, Choice()) == "xgboost"
    assert choose(behind, Choice(standard_errors=0.5)) == "neural-network"
    assert choose(behind, Choice(standard_errors=3.0)) == "logistic-regression"


def test_the_comparison_names_its_rule_and_what_came_of_it(compared: Compared) -> None:
    """Behind the best in standard errors of the difference between the same folds."""
    result = compared.result
    by_name = {c.estimator: np.array(c.figures["brier"].folds) for c in result.contenders}
    best, other = sorted(by_name, key=lambda name: float(by_name[name].mean()))
    lost = by_name[other] - by_name[best]

    assert result.behind[best] == 0.0
    assert result.behind[other] == pytest.approx(lost.mean() / standard_error(lost, 0.5))
    assert result.chosen == choose(result.behind, Choice())
    assert "Brier score" in result.because
    for chosen, told in (
        (best, "it has the best mean Brier score"),
        (other, f"within 1 standard error of the difference of that of {best}, the best"),
    ):
        assert told in result.model_copy(update={"chosen": chosen}).because


def test_folds_follow_the_time_where_the_hold_out_does(
    leasing: tuple[Portfolio, Training], folder: Path
) -> None:
    """Nobody is judged by a model of later applicants."""
    table = leases.labelled(900)
    table["day"] = np.random.default_rng(1).permutation(900)
    table.to_csv(folder / "days.csv", index=False)
    hold_out = HoldOut(kind="out-of-time", share=0.2, column="day")
    training = leasing[1].model_copy(update={"hold_out": hold_out})
    prepared = preparation.read(folder / "days.csv", leasing[0].schema, training, unique=True)

    parts = list(comparison._folds(prepared, training, 3))  # noqa: SLF001 - their order is the point

    assert prepared.time is not None
    for fitted_to, judged in parts:
        assert prepared.time[fitted_to].max() < prepared.time[judged].min()


def test_a_network_is_left_out_where_pytorch_is_not_unless_it_was_asked_for(
    leasing: tuple[Portfolio, Training], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is compared; a name that was given is an error before anything is fitted."""
    monkeypatch.setattr(network, "is_available", lambda: False)
    monkeypatch.setattr(comparison, "TIMED_SECONDS", 0.0)
    settings = leasing[1].estimators
    training = leasing[1].model_copy(
        update={"estimators": {n: settings[n] for n in ("logistic-regression", "neural-network")}}
    )

    result = compare(leasing[0], training, data, folds=2).result

    assert [c.estimator for c in result.contenders] == ["logistic-regression"]
    assert list(result.left_out) == ["neural-network"]
    assert "is not installed: `make install-network`" in result.left_out["neural-network"]
    assert "none is simpler" in result.because
    steps: list[str] = []
    with pytest.raises(network.TorchMissing, match="make install-network"):
        compare(
            *(leasing[0], training, data),
            estimators=["logistic-regression", "neural-network"],
            folds=2,
            step=steps.append,
        )
    assert steps == []


def test_what_cannot_be_compared_is_refused(
    leasing: tuple[Portfolio, Training], data: Path
) -> None:
    """Before anything is fitted: too few rows for the folds, no settings for the estimator."""
    portfolio, training = leasing
    with pytest.raises(DataInvalid, match="rows of one outcome: too few for 50 folds"):
        compare(portfolio, training, data, estimators=["xgboost"], folds=50)
    without = training.model_copy(update={"estimators": {"xgboost": {}}})
    with pytest.raises(PortfolioInvalid, match="no settings for estimator random-forest"):
        compare(portfolio, without, data, estimators=["random-forest"], folds=2)


def test_a_report_is_a_page_with_figures_and_plots(compared: Compared, tmp_path: Path) -> None:
    """Everything the page shows is beside it."""
    comparison_report.write(compared, tmp_path / "report")

    page = (tmp_path / "report" / "comparison.md").read_text(encoding="utf-8")
    assert f"**Chosen: {compared.result.chosen}**" in page
    assert all(title in page for title in TITLES.values())
    assert all(f"| {name} |" in page for name in NAMES)
    for name in ("figures", "calibration", "cost"):
        assert f"({name}.png)" in page
        with Image.open(tmp_path / "report" / f"{name}.png") as picture:
            assert min(picture.size) > 300
    figures = json.loads((tmp_path / "report" / "comparison.json").read_text(encoding="utf-8"))
    assert figures["chosen"] == compared.result.chosen
    assert figures == compared.result.model_dump(mode="json")
