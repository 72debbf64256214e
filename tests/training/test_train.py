"""Training: one file, one set of settings, one version; and a third portfolio needs data alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from credit_risk import package
from credit_risk.errors import DataInvalid, PortfolioInvalid
from credit_risk.manifest import verify
from credit_risk.model import ADDITIVITY_TOLERANCE, probability
from credit_risk.scoring import check_golden, decide
from credit_risk.training import network, pipeline, plots, preparation, settings
from credit_risk.training import train as training_run
from credit_risk.training.rounding import rounded
from credit_risk.training.settings import EstimatorName
from tests import leases, served, toys
from tests.torches import estimators

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage
    from credit_risk.portfolio import Portfolio
    from credit_risk.training.assembly import Packaged
    from credit_risk.training.settings import Training

ROOT = Path(__file__).parent.parent.parent
FILES = {
    "logistic-regression": (),
    "neural-network": ("network.onnx",),
}
"""What packages hold of their model besides ``model.json``, where it is not trees."""
PLOTS = {f"plots/{name}.png" for name in ("roc", "calibration", "scores", "ks")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the portfolio, its data and its packages."""
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def leasing(folder: Path) -> tuple[Portfolio, Training]:
    """The toy portfolio, ready to train."""
    return leases.write_portfolio(folder / "portfolios")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    """Its labelled file."""
    return leases.write_labelled(folder / "leases.csv")


@pytest.fixture(scope="module")
def trained(leasing: tuple[Portfolio, Training], data: Path, folder: Path) -> Packaged:
    """What the default estimator learned of it."""
    return training_run.train(*leasing, data, folder / "packages")


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """What was announced while `linear` was trained."""
    return []


@pytest.fixture(scope="module")
def linear(
    leasing: tuple[Portfolio, Training], data: Path, folder: Path, steps: list[str]
) -> Packaged:
    """What the quickest estimator learned of it, for tests of everything but the estimator.

    Its card has no plots; what is compared with it has none either.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "png", lambda _figure: b"")
        return training_run.train(
            *leasing,
            data,
            folder / "packages",
            estimator="logistic-regression",
            step=steps.append,
        )


@pytest.fixture(scope="module")
def loaded(trained: Packaged) -> ModelPackage:
    """The same, as a server loads it."""
    return package.load(trained.path)


@pytest.mark.usefixtures("linear")
def test_each_step_of_training_is_announced(steps: list[str]) -> None:
    """A progress display has something to show, in order."""
    assert steps == [
        "Reading and cleaning the data",
        "Fitting logistic-regression on 1,125 rows, 375 held out",
        "Fitting logistic-regression on all 1,500 rows",
        "Describing the population and drawing the reference group",
        "Comparing the packaged model with the pipeline, row by row",
        "Comparing reasons against drawn and against real applicants",
        "Moving fields to see whether promised directions are kept",
        "Writing the model card and the package",
    ]


@pytest.mark.parametrize("estimator", estimators())
def test_each_estimator_gives_a_package_with_every_promised_file(
    leasing: tuple[Portfolio, Training],
    data: Path,
    folder: Path,
    trained: Packaged,
    estimator: EstimatorName,
) -> None:
    """Named after its content, verified, and answering its own golden records."""
    made = (
        trained
        if estimator == "xgboost"
        else training_run.train(*leasing, data, folder / "packages", estimator=estimator)
    )

    promised = {
        "schema.yaml",
        "policy.yaml",
        "reasons.yaml",
        "model.json",
        "profile.json",
        "reference.npz",
        "golden.json",
        "metrics.json",
        "provenance.json",
        "card.md",
        *PLOTS,
        *FILES.get(estimator, ("trees.npz", "explanation.npz")),
    }
    assert set(verify(made.path).files) == promised
    assert made.path == folder / "packages" / toys.NAME / made.version
    loaded = package.load(made.path, made.version)
    check_golden(loaded)
    assert loaded.spec.estimator == estimator
    assert len(loaded.golden) == 12
    assert made.evaluation.roc_auc > 0.7
    assert made.largest_difference < 1e-6


def test_a_package_holds_the_portfolios_files_as_they_were(
    leasing: tuple[Portfolio, Training], trained: Packaged
) -> None:
    """Byte for byte, comments included."""
    for name in ("schema.yaml", "policy.yaml", "reasons.yaml"):
        assert (trained.path / name).read_bytes() == (leasing[0].path / name).read_bytes()


def test_a_package_says_where_it_comes_from(
    leasing: tuple[Portfolio, Training], data: Path, trained: Packaged, loaded: ModelPackage
) -> None:
    """The data by name, licence and sum; the settings; the libraries; the figures."""
    trained_on = loaded.provenance.trained_on
    assert trained_on is not None
    assert loaded.provenance.evaluated_on is None
    assert trained_on["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert trained_on["name"] == "Made-up leases"
    assert trained_on["licence"] == "CC0 1.0"
    assert trained_on["rows_read"] == trained_on["rows_used"] == 1_500
    assert loaded.provenance.settings["parameters"] == leasing[1].estimators["xgboost"]
    assert loaded.provenance.settings["seed"] == 7
    assert loaded.provenance.settings["rows_held_out"] == 375
    assert loaded.provenance.libraries["xgboost-cpu"]
    assert loaded.metrics["hold_out"] == rounded(trained.evaluation.model_dump(mode="json"))
    assert loaded.metrics["fidelity"] == rounded(trained.fidelity)
    assert loaded.metrics["directions"].keys() == {"age", "price", "years_employed", "history"}
    assert all(kept["share"] == 0.0 for kept in loaded.metrics["directions"].values())
    card = (trained.path / "card.md").read_text(encoding="utf-8")
    assert str(trained_on["sha256"]) in card
    assert "Tests, and nothing else." in card


def test_the_model_in_the_package_is_fitted_to_all_rows_and_judged_on_those_held_out(
    leasing: tuple[Portfolio, Training], data: Path, trained: Packaged, loaded: ModelPackage
) -> None:
    """Both fits repeated here by hand give the same PDs and the same figures."""
    portfolio, training = leasing
    prepared = preparation.read(data, portfolio.schema, training, unique=True)
    development, held_out = training_run.split(prepared, training)

    def fitted(places: Any) -> Any:  # noqa: ANN401 - an array, a scikit-learn pipeline
        unfitted = pipeline.build(
            portfolio.schema, "xgboost", training.estimators["xgboost"], training.seed
        )
        return unfitted.fit(*prepared.take(places))

    everything = fitted(np.arange(len(prepared.labels)))
    packaged = probability(loaded.model.log_odds(prepared.rows))
    assert np.abs(packaged - everything.predict_proba(prepared.frame)[:, 1]).max() < 1e-6
    pds = fitted(development).predict_proba(prepared.frame)[held_out, 1]
    assert trained.evaluation.roc_auc == roc_auc_score(prepared.labels[held_out], pds)
    assert trained.evaluation.brier == brier_score_loss(prepared.labels[held_out], pds)
    assert trained.evaluation.rows == len(held_out)


def test_no_row_of_the_data_is_in_the_package(data: Path, loaded: ModelPackage) -> None:
    """Neither in the reference group nor among the golden records, outcome or no outcome."""
    table = pd.read_csv(data).drop(columns="late").astype(object)
    records = table.where(table.notna(), None).to_dict("records")
    real = loaded.schema.matrix([{str(k): v for k, v in record.items()} for record in records])
    assert len(real) == 1_500
    seen = {tuple(row) for row in np.nan_to_num(real, nan=-1.0).tolist()}
    golden = loaded.schema.matrix([record.application for record in loaded.golden])

    for made_up in (loaded.reference, golden):
        rows = np.nan_to_num(made_up, nan=-1.0).tolist()
        assert sum(tuple(row) in seen for row in rows) == 0
    assert len(loaded.reference) == 200


def test_the_same_data_and_settings_give_the_same_version_in_every_process(
    leasing: tuple[Portfolio, Training], folder: Path
) -> None:
    """Whatever order a process gives its sets, and however its threads race."""
    data = leases.write_labelled(folder / "fewer.csv", rows=400)
    program = (
        "import sys; from pathlib import Path\n"
        "from credit_risk import portfolio; from credit_risk.training import settings, train\n"
        "root, data, out = map(Path, sys.argv[1:4])\n"
        "chosen = portfolio.load(root, sys.argv[4]); how = settings.load(chosen)\n"
        "for name in sys.argv[5:]:\n"
        "    print(name, train.train(chosen, how, data, out, estimator=name).version)\n"
    )
    names = [
        name for name in leasing[1].estimators if name != "neural-network" or network.is_available()
    ]
    arguments, rest = [str(leasing[0].path.parent), str(data)], [toys.NAME, *names]
    with subprocess.Popen(  # noqa: S603 - this Python and our own program
        [sys.executable, "-c", program, *arguments, str(folder / "there"), *rest],
        env=os.environ
        | {"PYTHONHASHSEED": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "2"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        here = {
            name: training_run.train(*leasing, data, folder / "here", estimator=name).version
            for name in names
        }
        there = dict(map(str.split, running.communicate()[0].splitlines()))

    assert there == here
    assert len(set(here.values())) == len(names)


@pytest.mark.usefixtures("_undrawn")
def test_a_package_that_is_there_already_is_left_as_it_is(
    leasing: tuple[Portfolio, Training], data: Path, linear: Packaged
) -> None:
    """Training again finds the same version and touches nothing."""
    before = (linear.path / "manifest.json").stat()
    out = linear.path.parent.parent

    again = training_run.train(*leasing, data, out, estimator="logistic-regression")

    assert again.path == linear.path
    assert (linear.path / "manifest.json").stat().st_mtime_ns == before.st_mtime_ns
    assert (linear.path / "manifest.json").stat().st_ino == before.st_ino


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 7", "seed: 8"),
        ("{C: 1.0}", "{C: 2.0}"),
        ("Tests, and nothing else.", "Tests."),
        ("rows: 200", "rows: 201"),
    ],
)
def test_other_settings_give_another_version(
    data: Path, linear: Packaged, tmp_path: Path, old: str, new: str
) -> None:
    """Whether they change the model, the reference group or the card alone."""
    other = leases.write_portfolio(tmp_path, leases.TRAINING.replace(old, new))

    made = training_run.train(*other, data, tmp_path / "out", estimator="logistic-regression")

    assert made.version != linear.version


@pytest.mark.usefixtures("_undrawn")
def test_another_policy_gives_another_version_with_the_same_model(
    data: Path, linear: Packaged, tmp_path: Path
) -> None:
    """A policy cannot be edited under a version's name."""
    policy = toys.POLICY.replace("version: 2.1.0", "version: 2.1.1")
    other = leases.write_portfolio(tmp_path, policy=policy)

    made = training_run.train(*other, data, tmp_path / "out", estimator="logistic-regression")

    assert made.version != linear.version
    assert (made.path / "model.json").read_bytes() == (linear.path / "model.json").read_bytes()


def test_a_stratified_hold_out_keeps_the_share_of_defaults(
    leasing: tuple[Portfolio, Training], data: Path
) -> None:
    """A quarter of the rows, drawn by the seed, no row on both sides."""
    portfolio, training = leasing
    prepared = preparation.read(data, portfolio.schema, training, unique=True)

    development, held_out = training_run.split(prepared, training)

    assert len(held_out) == 375
    assert sorted([*development.tolist(), *held_out.tolist()]) == list(range(1_500))
    assert prepared.labels[held_out].mean() == pytest.approx(prepared.labels.mean(), abs=0.002)
    again = training_run.split(prepared, training)
    assert (again[1] == held_out).all()
    other = training_run.split(prepared, training.model_copy(update={"seed": 8}))
    assert (other[1] != held_out).any()


def _by_day(training: Training) -> Training:
    hold_out = settings.HoldOut(kind="out-of-time", share=0.2, column="day")
    return training.model_copy(update={"hold_out": hold_out})


@pytest.mark.usefixtures("_undrawn")
def test_an_out_of_time_hold_out_is_the_latest_share(
    leasing: tuple[Portfolio, Training], tmp_path: Path
) -> None:
    """Whatever the order of the file; the package says how it was judged."""
    table = leases.labelled(1_000)
    table["day"] = pd.date_range("2024-01-01", periods=1_000).strftime("%Y-%m-%d")
    table.sample(frac=1, random_state=5).to_csv(tmp_path / "leases.csv", index=False)
    portfolio, training = leasing[0], _by_day(leasing[1])
    prepared = preparation.read(tmp_path / "leases.csv", portfolio.schema, training, unique=True)

    development, held_out = training_run.split(prepared, training)
    made = training_run.train(
        portfolio,
        training,
        tmp_path / "leases.csv",
        tmp_path / "out",
        estimator="logistic-regression",
    )

    assert prepared.time is not None
    assert len(held_out) == 200
    assert max(prepared.time[development]) < min(prepared.time[held_out])
    assert made.evaluation.rows == 200
    assert package.load(made.path).provenance.settings["hold_out"] == {
        "kind": "out-of-time",
        "share": 0.2,
        "column": "day",
    }


@pytest.mark.parametrize("late", ["first", "last"])
def test_an_out_of_time_hold_out_needs_both_outcomes_on_both_sides(
    leasing: tuple[Portfolio, Training], tmp_path: Path, late: str
) -> None:
    """A book whose losses all fall on one side of the cut teaches nothing."""
    table = leases.labelled(400).sort_values("late", ascending=late == "last")
    table["day"] = np.arange(400)
    table.to_csv(tmp_path / "leases.csv", index=False)

    with pytest.raises(DataInvalid, match="hold-out by day: too few rows of one outcome"):
        training_run.train(
            leasing[0], _by_day(leasing[1]), tmp_path / "leases.csv", tmp_path / "out"
        )


@pytest.mark.parametrize("defaults", [0, 1, 9])
def test_too_few_rows_of_one_outcome_are_refused(
    leasing: tuple[Portfolio, Training], tmp_path: Path, defaults: int
) -> None:
    """Calibration needs some in each fold; the error says how many there are."""
    table = leases.labelled(300)
    table["late"] = (np.arange(300) < defaults).astype(int)
    table.to_csv(tmp_path / "leases.csv", index=False)

    with pytest.raises(DataInvalid, match=f"only {defaults} rows of one outcome: too few"):
        training_run.train(*leasing, tmp_path / "leases.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_estimator_without_settings_is_refused(data: Path, tmp_path: Path) -> None:
    """Before the data are read."""
    text = leases.TRAINING.replace("  logistic-regression: {C: 1.0}\n", "")
    leasing = leases.write_portfolio(tmp_path, text)

    with pytest.raises(PortfolioInvalid, match="no settings for estimator logistic-regression"):
        training_run.train(*leasing, data, tmp_path / "out", estimator="logistic-regression")


def test_a_network_without_pytorch_is_refused_before_the_data_are_read(
    leasing: tuple[Portfolio, Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is not even there."""
    monkeypatch.setattr(network, "is_available", lambda: False)

    with pytest.raises(network.TorchMissing, match="make install-network"):
        training_run.train(
            *leasing, tmp_path / "no.csv", tmp_path / "out", estimator="neural-network"
        )


def test_evaluating_a_package_gives_the_figures_of_scoring_by_hand(
    leasing: tuple[Portfolio, Training], loaded: ModelPackage, tmp_path: Path
) -> None:
    """Through the same preparation; rows that cannot be scored are counted, duplicates stay."""
    table = leases.labelled(500, seed=77)
    spoilt = pd.concat([table, table.head(3), table.head(2).assign(age=17)])
    spoilt["years_employed"] = spoilt["years_employed"].mask(spoilt["age"] == 50, 99.0)
    path = tmp_path / "later.csv"
    spoilt.to_csv(path, index=False)

    figures = training_run.evaluate_package(loaded, leasing[1], path)

    clean = spoilt[spoilt["age"] != 17].astype({"years_employed": object})
    too_long = clean["years_employed"] == 99
    clean["years_employed"] = clean["years_employed"].where(
        clean["years_employed"].notna() & ~too_long, None
    )
    applications = clean.drop(columns="late").to_dict("records")
    decisions = decide(loaded, [loaded.schema.validate_application(a) for a in applications])
    pds = np.array([decision.probability_of_default for decision in decisions])
    outcomes = clean["late"].to_numpy()
    assert figures["rows_read"] == 505
    assert figures["rows_scored"] == figures["rows"] == len(pds) == 503
    assert figures["rows_not_scored"] == {"age outside its range": 2}
    assert figures["values_set_to_missing"] == {
        "years_employed outside its range, set to missing": too_long.sum()
    }
    assert too_long.sum() > 0
    assert figures["roc_auc"] == pytest.approx(roc_auc_score(outcomes, pds))
    assert figures["brier"] == pytest.approx(brier_score_loss(outcomes, pds))
    assert figures["mean_pd"] == pytest.approx(pds.mean())
    assert figures["confusion"]["tp"] == ((pds >= 0.4) & (outcomes == 1)).sum()
    assert figures["model_version"] == loaded.version
    assert figures["policy_version"] == loaded.policy_version
    assert figures["data_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    json.dumps(figures)


RAW_FIELDS = """\
import numpy as np
import pandas as pd

HISTORY = {0: "good", 1: "mixed", 2: "poor"}


def fields(raw, path):
    \"\"\"The leases' fields from the shop's own list.\"\"\"
    return pd.DataFrame(
        {
            "age": raw["applied_on"].str[:4].astype(int) - raw["born"],
            "income": raw["yearly_income"] / 12,
            "price": raw["price_in_cents"] / 100,
            "years_employed": raw["months_employed"] / 12,
            "history": raw["reminders"].clip(upper=2).map(HISTORY),
            "use": raw["purpose"].str.lower().str.strip(),
        }
    )
"""


def _raw_list(rows: int) -> pd.DataFrame:
    """A shop's own list of leases, in its own columns."""
    table = leases.labelled(rows, seed=12)
    years = 2020 + np.arange(rows) * 5 // rows
    return pd.DataFrame(
        {
            "applied_on": [f"{year}-06-{day % 28 + 1:02}" for day, year in enumerate(years)],
            "born": years - table["age"],
            "yearly_income": table["income"] * 12,
            "price_in_cents": (table["price"] * 100).round(),
            "months_employed": table["years_employed"] * 12,
            "reminders": table["history"].map({"good": 0, "mixed": 1, "poor": 5}),
            "purpose": " " + table["use"].str.upper(),
            "late": table["late"],
        }
    )


@pytest.mark.usefixtures("_undrawn")
def test_a_third_portfolio_needs_data_files_and_one_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains, loads, is evaluated, decides, explains and is served; no other code is written."""
    (tmp_path / "shop_list.py").write_text(RAW_FIELDS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    text = leases.TRAINING.replace(
        "hold_out: {kind: stratified, share: 0.25}",
        "preparation: shop_list:fields\n"
        "hold_out: {kind: out-of-time, share: 0.2, column: applied_on}",
    )
    leasing, training = leases.write_portfolio(tmp_path / "portfolios", text)
    _raw_list(1_200).to_csv(tmp_path / "list.csv", index=False)

    made = training_run.train(leasing, training, tmp_path / "list.csv", tmp_path / "packages")
    loaded = package.load(made.path)
    figures = training_run.evaluate_package(loaded, training, tmp_path / "list.csv")
    _raw_list(1_200).iloc[1:].to_csv(tmp_path / "shorter.csv", index=False)
    of_other_rows = training_run.evaluate_package(loaded, training, tmp_path / "shorter.csv")

    assert made.evaluation.rows == 240
    assert made.evaluation.roc_auc > 0.7
    assert figures["rows_scored"] == 1_200
    assert figures["roc_auc"] > 0.75
    assert (figures["same_file_as_training"], of_other_rows["same_file_as_training"]) == (
        True,
        False,
    )
    check_golden(loaded)
    (safe,), (risky,) = (
        decide(loaded, [application], explain=True) for application in (toys.SAFE, toys.RISKY)
    )
    assert safe.outcome.decision == "APPROVE"
    assert risky.outcome.decision == "DECLINE"
    assert 1 <= len(risky.reasons) <= 4
    assert risky.explanation is not None
    total = risky.explanation.base_value + sum(risky.explanation.contributions.values())
    assert total == pytest.approx(risky.log_odds, abs=ADDITIVITY_TOLERANCE)
    with served.serving(loaded, tmp_path) as running:
        answer = running.post("/predict", toys.RISKY).json()
        explained = running.post("/explain", toys.RISKY).json()
        fields = running.get("/schema").json()
        refused = running.post("/predict", toys.RISKY | {"age": 12})
    assert answer["portfolio"] == toys.NAME
    assert answer["model_version"] == made.version
    assert answer["decision"] == "DECLINE"
    assert answer["probability_of_default"] == risky.probability_of_default
    assert [reason["code"] for reason in answer["reasons"]] == [r.code for r in risky.reasons]
    assert explained["probability_of_default"] == risky.probability_of_default
    assert set(fields["properties"]) == set(leasing.schema.names)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/age"
