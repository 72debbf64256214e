"""Retraining: refused before anything is trained, or a candidate beside who decides now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import package
from credit_risk.errors import DataInvalid
from credit_risk.model import probability
from credit_risk.outcomes import Labelled
from credit_risk.training import evaluation, plots, preparation, retrain
from credit_risk.training import train as training_run
from credit_risk.training.validation import Column, ValidationPolicy
from tests import leases, toys
from tests.recorded import NOON

if TYPE_CHECKING:
    from pathlib import Path

    from credit_risk.package import ModelPackage
    from credit_risk.portfolio import Portfolio
    from credit_risk.training.settings import Training

POLICY = ValidationPolicy(portfolio=toys.NAME, version="1")

pytestmark = pytest.mark.usefixtures("_undrawn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the portfolio is, the champion, and what it learned of."""
    return tmp_path_factory.mktemp("retraining")


@pytest.fixture(scope="module")
def leasing(folder: Path) -> tuple[Portfolio, Training]:
    """The toy portfolio, ready to train."""
    return leases.write_portfolio(folder / "portfolios")


@pytest.fixture(scope="module")
def champion(leasing: tuple[Portfolio, Training], folder: Path) -> ModelPackage:
    """What decides: of few rows, and linear."""
    data = leases.write_labelled(folder / "first.csv", 400)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plots, "png", lambda _figure: b"")
        made = training_run.train(
            *leasing, data, folder / "packages", estimator="logistic-regression"
        )
    return package.load(made.path)


def test_a_candidate_is_compared_with_the_champion_on_rows_that_it_has_not_seen(
    leasing: tuple[Portfolio, Training], champion: ModelPackage, tmp_path: Path
) -> None:
    """Of the champion's estimator; the figures are those of both models on the same rows."""
    data = leases.write_labelled(tmp_path / "second.csv", seed=4)
    steps: list[str] = []

    made = retrain.retrain(
        *leasing, POLICY, data, tmp_path / "new", champion=champion, step=steps.append
    )

    assert made.estimator == "logistic-regression"
    assert made.validation.verdict == "ACCEPTED"
    assert package.load(made.packaged.path).version == made.packaged.version
    assert made.comparison.candidate == made.packaged.evaluation
    prepared = preparation.read(data, leasing[0].schema, leasing[1], unique=True)
    _, held_out = training_run.split(prepared, leasing[1])
    pds = probability(champion.model.log_odds(prepared.rows[held_out]))
    found = evaluation.evaluate(prepared.labels[held_out], pds, champion.policy)
    assert made.comparison.champion == found
    assert made.caveats == (retrain.MAY_HAVE_SEEN,)
    assert steps[0] == "Validating the data"
    assert steps[-1].startswith(f"Comparing with package {champion.version}")
    text = retrain.markdown(made, champion.version)
    assert made.packaged.version in text
    assert "No findings." in text
    assert retrain.MAY_HAVE_SEEN in text


def test_what_the_champion_was_trained_on_flatters_it(
    leasing: tuple[Portfolio, Training], champion: ModelPackage, folder: Path, tmp_path: Path
) -> None:
    """Which is told, and besides what it did on rows that it had not seen."""
    policy = POLICY.model_copy(update={"least_rows": 300, "least_of_each": 20})

    made = retrain.retrain(
        *leasing, policy, folder / "first.csv", tmp_path / "new", champion=champion
    )

    assert made.caveats == (retrain.IS_CHAMPION, retrain.HAS_SEEN)
    assert made.packaged.version == champion.version
    then = champion.metrics["hold_out"]["roc_auc"]
    assert f"| {then:.4f} |" in retrain.markdown(made, champion.version)


def test_refused_data_are_not_trained_on(
    leasing: tuple[Portfolio, Training], champion: ModelPackage, tmp_path: Path
) -> None:
    """The error has the report; nothing is written."""
    rows = leases.labelled(seed=4).drop(columns="price")
    rows.to_csv(tmp_path / "second.csv", index=False)

    with pytest.raises(retrain.DataRefused, match="refused for 1 of") as refused:
        retrain.retrain(
            *leasing, POLICY, tmp_path / "second.csv", tmp_path / "new", champion=champion
        )

    assert refused.value.report.refused
    assert not (tmp_path / "new").exists()


def test_an_estimator_that_the_portfolio_has_no_parameters_for_is_not_trained_again(
    leasing: tuple[Portfolio, Training], champion: ModelPackage, linear_package: ModelPackage
) -> None:
    """Nor one that is not known: somebody's own pipeline."""
    others = leasing[1].model_copy(update={"estimators": {"xgboost": {}}})

    assert retrain.estimator_of(champion, leasing[1]) == "logistic-regression"
    assert retrain.estimator_of(champion, others) == "xgboost"
    assert retrain.estimator_of(linear_package, leasing[1]) == "xgboost"


def test_recorded_applications_are_a_file_to_train_on(
    leasing: tuple[Portfolio, Training], tmp_path: Path
) -> None:
    """With the schema's fields, in order, without what is erased; nobody else may read it."""
    chosen, training = leasing
    raw = training.model_copy(update={"preparation": "some.module:function"})
    policy = POLICY.model_copy(
        update={"columns": (Column(name="raw", type="number"),), "identifiers": ("raw",)}
    )
    known = {**chosen.schema.example, "years_employed": None}
    rows = [
        Labelled(chosen.schema.example, defaulted=True, decided=NOON),
        Labelled(None, defaulted=True, decided=NOON + 1),
        Labelled(known, defaulted=False, decided=NOON + 86_400_000_000),
    ]

    path = tmp_path / "recorded.csv"
    to_train, to_validate = retrain.recorded(rows, chosen.schema, raw, policy, path)

    assert path.stat().st_mode & 0o777 == 0o600
    prepared = preparation.read(path, chosen.schema, to_train, unique=False)
    assert prepared.labels.tolist() == [1, 0]
    assert np.array_equal(
        prepared.rows, chosen.schema.matrix([chosen.schema.example, known]), equal_nan=True
    )
    assert (to_validate.columns, to_validate.identifiers) == ((), ())
    assert to_train.data.name.endswith("2023-11-14 to 2023-11-15")
    assert "accepted applications only" in to_train.notes["Limits"]
    assert to_train.notes["Intended use"] == training.notes["Intended use"]


def test_a_hold_out_by_time_is_by_the_time_of_decision(
    leasing: tuple[Portfolio, Training], tmp_path: Path
) -> None:
    """Whatever the raw table calls it."""
    chosen, training = leasing
    hold_out = training.hold_out.model_copy(update={"kind": "out-of-time", "column": "issued"})
    rows = [
        Labelled(chosen.schema.example, defaulted=False, decided=NOON + day * 86_400_000_000)
        for day in range(3)
    ]

    path = tmp_path / "recorded.csv"
    timed = training.model_copy(update={"hold_out": hold_out})
    to_train, _ = retrain.recorded(rows, chosen.schema, timed, POLICY, path)

    prepared = preparation.read(path, chosen.schema, to_train, unique=False)
    assert prepared.time is not None
    assert prepared.time.tolist() == sorted(prepared.time.tolist())
    assert prepared.time[0].startswith("2023-11-14")


def test_without_outcomes_there_is_nothing_to_learn_of(
    leasing: tuple[Portfolio, Training], tmp_path: Path
) -> None:
    """Nor of applications that nobody can open."""
    chosen, training = leasing
    erased = [Labelled(None, defaulted=True, decided=NOON)]

    with pytest.raises(DataInvalid, match="no application on record has an outcome"):
        retrain.recorded(erased, chosen.schema, training, POLICY, tmp_path / "recorded.csv")
