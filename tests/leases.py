"""Labelled leases of the toy portfolio, drawn from a known risk: what training tests train on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from credit_risk import portfolio
from credit_risk.training import settings
from tests import toys

if TYPE_CHECKING:
    from pathlib import Path

    from credit_risk.portfolio import Portfolio
    from credit_risk.training.settings import Training

TARGET = "late"

TRAINING = """\
portfolio: bicycle-leases
target: late
data: {name: Made-up leases, licence: CC0 1.0, source: drawn by a test}
hold_out: {kind: stratified, share: 0.25}
seed: 7
default_estimator: xgboost
estimators:
  xgboost: {n_estimators: 40, learning_rate: 0.2, max_depth: 3}
  logistic-regression: {C: 1.0}
  random-forest: {n_estimators: 20, max_depth: 5, min_samples_leaf: 5}
  gradient-boosting: {max_iter: 20, max_depth: 4}
  neural-network: {hidden: [8, 4], epochs: 5, learning_rate: 0.02}
reference: {group: all, rows: 200}
golden_records: 12
notes:
  Intended use: Tests, and nothing else.
"""


def labelled(rows: int = 1_500, seed: int = 3) -> pd.DataFrame:
    """Leases with their outcomes: income and price are continuous, so no two rows are alike.

    The log-odds of being late rise with the price to income, a poor history and cargo bicycles,
    and fall with age and years of employment. One in six states no years of employment.
    """
    generator = np.random.default_rng(seed)
    age = generator.integers(18, 80, rows)
    income = np.round(np.exp(generator.normal(7.8, 0.6, rows)).clip(100, 100_000), 2)
    price = np.round(np.exp(generator.normal(7.0, 0.8, rows)).clip(50, 20_000), 2)
    years = np.round(generator.exponential(5.0, rows).clip(0, 50), 3)
    history = generator.choice(3, rows, p=[0.6, 0.3, 0.1])
    use = generator.choice(3, rows, p=[0.2, 0.5, 0.3])
    log_odds = (
        -3.0
        + 1.5 * np.minimum(price / income, 4.0)
        + 0.9 * history
        + 0.5 * (use == 0)
        - 0.02 * (age - 40)
        - 0.1 * years
    )
    late = generator.random(rows) < 1.0 / (1.0 + np.exp(-log_odds))
    years[generator.random(rows) < 1 / 6] = np.nan
    return pd.DataFrame(
        {
            "age": age,
            "income": income,
            "price": price,
            "years_employed": years,
            "history": np.array(["good", "mixed", "poor"])[history],
            "use": np.array(["cargo", "commuting", "racing"])[use],
            TARGET: late.astype(int),
        }
    )


def write_labelled(path: Path, rows: int = 1_500, seed: int = 3) -> Path:
    """`labelled` as a file."""
    labelled(rows, seed).to_csv(path, index=False)
    return path


def write_portfolio(
    root: Path, training: str = TRAINING, policy: str = toys.POLICY
) -> tuple[Portfolio, Training]:
    """Write the toy portfolio with its training settings under ``root``, and load both."""
    folder = toys.write_portfolio(root)
    (folder / "policy.yaml").write_text(policy, encoding="utf-8")
    (folder / "training.yaml").write_text(training, encoding="utf-8")
    loaded = portfolio.load(root, toys.NAME)
    return loaded, settings.load(loaded)
