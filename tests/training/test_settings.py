"""``training.yaml``: the shipped ones load, and a wrong one is refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from credit_risk import portfolio
from credit_risk.errors import PortfolioInvalid
from credit_risk.training import pipeline, settings
from tests import leases, toys

PORTFOLIOS = Path(__file__).parent.parent.parent / "portfolios"


@pytest.mark.parametrize("name", portfolio.names(PORTFOLIOS))
def test_each_shipped_portfolio_can_be_trained_with_each_estimator(name: str) -> None:
    """Its settings load, name every estimator, and their parameters are known to them."""
    loaded = portfolio.load(PORTFOLIOS, name)

    training = settings.load(loaded)

    assert training.portfolio == name
    assert set(training.estimators) == set(get_args(settings.EstimatorName))
    for estimator, parameters in training.estimators.items():
        built = pipeline.build(loaded.schema, estimator, parameters, training.seed)
        fitted_with = built[-1].estimator.get_params()
        assert parameters.items() <= fitted_with.items()


def test_settings_say_how_a_model_is_trained(tmp_path: Path) -> None:
    """Every value of the file is where training looks for it."""
    _, training = leases.write_portfolio(tmp_path)

    assert training.target == "late"
    assert training.data.licence == "CC0 1.0"
    assert training.preparation is None
    assert training.hold_out == settings.HoldOut(kind="stratified", share=0.25)
    assert training.seed == 7
    assert training.default_estimator == "xgboost"
    assert training.estimators["logistic-regression"] == {"C": 1.0}
    assert training.reference == settings.Reference(group="all", rows=200)
    assert training.golden_records == 12
    assert training.notes == {"Intended use": "Tests, and nothing else."}


def test_a_portfolio_without_training_settings_cannot_be_trained(tmp_path: Path) -> None:
    """The error names the file that is not there."""
    toys.write_portfolio(tmp_path)

    with pytest.raises(PortfolioInvalid, match=r"training\.yaml: cannot be read"):
        settings.load(portfolio.load(tmp_path, toys.NAME))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("portfolio: bicycle-leases", "portfolio: others", "belongs to portfolio 'others'"),
        ("kind: stratified", "kind: out-of-time", "out-of-time needs a column"),
        ("default_estimator: xgboost", "default_estimator: deep", "default_estimator: Input"),
        ("  xgboost: {n_estimators: 40, learning_rate: 0.2, max_depth: 3}\n", "", "no entry under"),
        ("  xgboost:", "  lightgbm:", "estimators"),
        ("share: 0.25", "share: 0.5", r"hold_out\.share"),
        ("share: 0.25", "share: 0", r"hold_out\.share"),
        ("rows: 200", "rows: 99", r"reference\.rows"),
        ("group: all", "group: some", r"reference\.group"),
        ("golden_records: 12", "golden_records: 3", "golden_records"),
        ("target: late", "preparation: leases.fields", "preparation"),
        ("seed: 7", "sede: 7", "sede"),
        ("source: drawn by a test", "source: x, sha256: 0F", r"data\.sha256"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    """The error names the file and the place in it."""
    assert leases.TRAINING.count(old) == 1

    with pytest.raises(PortfolioInvalid, match=rf"training\.yaml: .*{complaint}"):
        leases.write_portfolio(tmp_path, leases.TRAINING.replace(old, new))
