"""Wrapping: a user's own pipeline becomes a package that answers as it does, and runs no code."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from credit_risk import package
from credit_risk.errors import PackageInvalid
from credit_risk.scoring import check_golden, decide
from credit_risk.training import wrapping
from tests import leases, served, toys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from sklearn.pipeline import Pipeline

    from credit_risk.portfolio import Portfolio
    from credit_risk.schema import Application
    from credit_risk.training.assembly import Packaged
    from credit_risk.training.settings import Training

pytestmark = pytest.mark.usefixtures("_undrawn")

TABLE = leases.labelled(900, seed=31)
FEATURES, LABELS = TABLE.drop(columns=leases.TARGET), TABLE[leases.TARGET]
NUMBERS = ["age", "income", "price", "years_employed"]


class Damage:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


class HouseRules(LogisticRegression):  # type: ignore[misc]
    """A logistic regression that never says more than a half."""

    def predict_proba(self, X: Any) -> Any:  # noqa: ANN401 - as scikit-learn's own
        """Probabilities, cut off."""
        pds = np.minimum(super().predict_proba(X)[:, 1], 0.5)
        return np.column_stack([1 - pds, pds])


def _columns() -> ColumnTransformer:
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            ("names", one_hot, ["use", "history"]),
        ]
    )


def _fitted(classifier: object) -> Pipeline:
    return make_pipeline(_columns(), classifier).fit(FEATURES, LABELS)


def _applications(table: pd.DataFrame) -> list[Application]:
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [toys.schema().validate_application(record) for record in records]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the portfolio, its data and its packages."""
    return tmp_path_factory.mktemp("wrapping")


@pytest.fixture(scope="module")
def wrap(folder: Path) -> Callable[..., Packaged]:
    """Wrap a file for the toy portfolio, judged on rows of its own."""
    leasing: tuple[Portfolio, Training] = leases.write_portfolio(
        folder / "portfolios", leases.TRAINING.replace("golden_records: 12", "golden_records: 4")
    )
    data = leases.write_labelled(folder / "leases.csv", rows=800, seed=32)

    def wrapped(file: Path, **others: Any) -> Packaged:  # noqa: ANN401 - passed on
        return wrapping.wrap(*leasing, file, data, folder / "packages", **others)

    return wrapped


@pytest.fixture(scope="module")
def bayes() -> Pipeline:
    """A pipeline that has no equivalent in the package's formats."""
    return _fitted(GaussianNB())


@pytest.fixture(scope="module")
def kept(wrap: Callable[..., Packaged], bayes: Pipeline, folder: Path) -> Packaged:
    """Its package."""
    joblib.dump(bayes, folder / "bayes.joblib")
    return wrap(folder / "bayes.joblib", run_pickle_code=True)


@pytest.mark.parametrize("name", ["evil.joblib", "evil.pkl", "evil.skops.joblib", "evil"])
def test_a_pickle_is_refused_and_none_of_its_code_is_run(
    wrap: Callable[..., Packaged], tmp_path: Path, name: str
) -> None:
    """Whatever the file is called; the error names the flag that says it runs code."""
    joblib.dump(Damage(tmp_path / "damage"), tmp_path / name)

    with pytest.raises(wrapping.PickleRefused, match=r"loading it runs .* --run-pickle-code"):
        wrap(tmp_path / name)

    assert not (tmp_path / "damage").exists()


def test_a_pickle_that_calls_itself_skops_is_not_run_either(
    wrap: Callable[..., Packaged], tmp_path: Path
) -> None:
    """What a file is, is not for its name to say."""
    joblib.dump(Damage(tmp_path / "damage"), tmp_path / "evil.skops")

    for flag in (False, True):
        with pytest.raises(PackageInvalid, match=r"evil\.skops: cannot be read"):
            wrap(tmp_path / "evil.skops", run_pickle_code=flag)

    assert not (tmp_path / "damage").exists()


def test_with_the_flag_a_pickles_code_is_run(tmp_path: Path) -> None:
    """The refusals above are tests of something: this file does what it says."""
    joblib.dump(Damage(tmp_path / "damage"), tmp_path / "evil.joblib")

    with pytest.raises(PackageInvalid, match="it has no predict_proba"):
        wrapping.read_pipeline(tmp_path / "evil.joblib", run_pickle_code=True)

    assert (tmp_path / "damage").is_dir()


@pytest.mark.parametrize("kind", ["joblib", "pickle", "skops"])
def test_a_pipeline_with_equivalents_is_compiled(
    wrap: Callable[..., Packaged], tmp_path: Path, kind: str
) -> None:
    """From each kind of file; skops needs no flag. Nothing of scikit-learn is in the package."""
    fitted = _fitted(LogisticRegression())
    file = tmp_path / f"mine.{kind}"
    if kind == "skops":
        skops.io.dump(fitted, file)
    elif kind == "joblib":
        joblib.dump(fitted, file)
    else:
        file.write_bytes(pickle.dumps(fitted))
    steps: list[str] = []

    made = wrap(file, run_pickle_code=kind != "skops", step=steps.append)

    loaded = package.load(made.path)
    assert loaded.spec.kind == "linear"
    assert loaded.spec.estimator == "LogisticRegression"
    assert not (made.path / "pipeline.skops").exists()
    assert not any("Keeping" in step for step in steps)
    assert made.largest_difference < 1e-6
    check_golden(loaded)
    later = leases.labelled(200, seed=33).drop(columns="late")
    answers = [d.probability_of_default for d in decide(loaded, _applications(later))]
    np.testing.assert_allclose(answers, fitted.predict_proba(later)[:, 1], atol=1e-6)
    assert loaded.provenance.settings == {"own_pipeline": f"mine.{kind}", "seed": 7}
    assert loaded.provenance.trained_on is None
    assert loaded.provenance.evaluated_on is not None
    assert loaded.provenance.evaluated_on["rows_used"] == 800
    assert "fitted elsewhere" in (made.path / "card.md").read_text(encoding="utf-8")


def test_a_pipeline_without_an_equivalent_is_kept_as_it_is(
    kept: Packaged, bayes: Pipeline, tmp_path: Path
) -> None:
    """In skops' format, and its answers, over HTTP as well, are its own predict_proba."""
    loaded = package.load(kept.path)
    later = leases.labelled(20, seed=33).drop(columns="late")
    expected = bayes.predict_proba(later)[:, 1]
    applications = _applications(later)

    answers = [d.probability_of_default for d in decide(loaded, applications)]
    with served.serving(loaded, tmp_path) as running:
        results = running.post("/predict/batch", {"applications": applications}).json()["results"]

    assert loaded.spec.kind == "pipeline"
    assert loaded.spec.estimator == "GaussianNB"
    assert (kept.path / "pipeline.skops").is_file()
    assert not (kept.path / "trees.npz").exists()
    check_golden(loaded)
    np.testing.assert_allclose(answers, expected, atol=1e-9)
    over_http = [result["probability_of_default"] for result in results]
    np.testing.assert_allclose(over_http, expected, atol=1e-9)
    assert len(over_http) == 20


def test_a_pipeline_that_breaks_a_promise_is_found_out(kept: Packaged) -> None:
    """Naive Bayes has a normal curve for each field: its PD turns round somewhere."""
    broken = {name for name, k in kept.kept.items() if k.share > 0.0}
    loaded = package.load(kept.path)

    assert broken == {"price", "years_employed"}
    assert loaded.metrics["directions"]["price"] == kept.kept["price"].model_dump()
    (warned,) = (warning for warning in kept.warnings if "the direction" in warning)
    assert all(f"{name} (" in warned for name in broken)
    card = (kept.path / "card.md").read_text(encoding="utf-8")
    assert warned in card
    assert "| no: " in card
    assert "Transform" not in card


def test_reasons_of_a_kept_pipeline_add_up(kept: Packaged) -> None:
    """A declined applicant has reasons, and the contributions make the score."""
    loaded = package.load(kept.path)

    (decision,) = decide(loaded, [toys.RISKY], explain=True)

    assert decision.outcome.decision == "DECLINE"
    assert decision.reasons
    assert decision.explanation is not None
    total = decision.explanation.base_value + sum(decision.explanation.contributions.values())
    assert total == pytest.approx(decision.log_odds, abs=1e-6)


def test_the_step_that_has_no_equivalent_is_announced(
    wrap: Callable[..., Packaged], tmp_path: Path
) -> None:
    """The user is told why the pipeline will be served slower than it could be.

    Nobody near so many neighbours is declined, so there are no reasons to compare either.
    """
    joblib.dump(_fitted(KNeighborsClassifier(600)), tmp_path / "mine.joblib")
    steps: list[str] = []

    made = wrap(tmp_path / "mine.joblib", run_pickle_code=True, step=steps.append)

    assert steps[1] == (
        "Keeping the pipeline as it is (classifier KNeighborsClassifier, not calibrated)"
    )
    assert made.fidelity == {"declines_compared": 0, "rows_of_the_group_that_take_part": 100}


def test_a_skops_file_that_is_kept_gives_the_same_version_each_time(
    wrap: Callable[..., Packaged], tmp_path: Path
) -> None:
    """Its bytes go into the package as they are."""
    file = tmp_path / "mine.skops"
    skops.io.dump(_fitted(KNeighborsClassifier(600)), file)

    first, second = wrap(file), wrap(file)

    assert first.version == second.version
    assert (first.path / "pipeline.skops").read_bytes() == file.read_bytes()


def test_a_pipeline_that_compiles_to_something_else_is_not_served_compiled(
    wrap: Callable[..., Packaged], tmp_path: Path
) -> None:
    """Every row is compared; and a class of the user's own cannot be loaded without its code."""
    joblib.dump(_fitted(HouseRules()), tmp_path / "mine.joblib")
    steps: list[str] = []

    with pytest.raises(PackageInvalid, match=r"type .*HouseRules is not trusted"):
        wrap(tmp_path / "mine.joblib", run_pickle_code=True, step=steps.append)

    assert any(
        step.startswith("Keeping the pipeline as it is (the packaged model differs from the")
        for step in steps
    )


@pytest.mark.parametrize("what", ["step", "function", "search"])
def test_what_skops_does_not_know_is_refused(
    wrap: Callable[..., Packaged], tmp_path: Path, what: str
) -> None:
    """A class of one's own, a function of one's own, the scorer inside a search."""
    if what == "search":
        fitted: Any = GridSearchCV(
            make_pipeline(_columns(), GaussianNB()), {"gaussiannb__var_smoothing": [1e-9]}, cv=2
        ).fit(FEATURES, LABELS)
    elif what == "step":
        fitted = make_pipeline(_columns(), HouseRules(C=0.1), memory=None).fit(FEATURES, LABELS)
    else:
        fitted = make_pipeline(FunctionTransformer(_numbers), GaussianNB()).fit(FEATURES, LABELS)
    joblib.dump(fitted, tmp_path / "mine.joblib")

    with pytest.raises(PackageInvalid, match=r"mine\.joblib: type .* is not trusted"):
        wrap(tmp_path / "mine.joblib", run_pickle_code=True)


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table[["age", "price"]]


@pytest.mark.parametrize("classes", [(1, 2), ("no", "yes"), (0, 1, 2), (0,), (-1, 1)])
def test_classes_other_than_0_and_1_are_refused(tmp_path: Path, classes: tuple[Any, ...]) -> None:
    """Which of them is a default would be a guess."""
    labels = np.array(classes, dtype=object if isinstance(classes[0], str) else int)
    fitted = make_pipeline(_columns(), KNeighborsClassifier()).fit(
        FEATURES, labels[np.arange(len(FEATURES)) % len(classes)]
    )
    joblib.dump(fitted, tmp_path / "mine.joblib")

    with pytest.raises(PackageInvalid, match="it is not fitted on the classes 0 and 1"):
        wrapping.read_pipeline(tmp_path / "mine.joblib", run_pickle_code=True)


def test_a_pipeline_that_was_never_fitted_is_refused(tmp_path: Path) -> None:
    """It has no classes yet."""
    joblib.dump(make_pipeline(_columns(), GaussianNB()), tmp_path / "mine.joblib")

    with pytest.raises(PackageInvalid, match="it is not fitted on the classes 0 and 1"):
        wrapping.read_pipeline(tmp_path / "mine.joblib", run_pickle_code=True)


@pytest.mark.parametrize("kind", ["joblib", "skops"])
def test_a_classifier_without_probabilities_is_refused(tmp_path: Path, kind: str) -> None:
    """A decision takes a probability of default."""
    fitted = make_pipeline(_columns(), LinearSVC()).fit(FEATURES, LABELS)
    file = tmp_path / f"mine.{kind}"
    (skops.io if kind == "skops" else joblib).dump(fitted, file)

    with pytest.raises(PackageInvalid, match="no predict_proba"):
        wrapping.read_pipeline(file, run_pickle_code=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world",
        b"PK\x03\x04 not an archive",
        b"\x80\x04\x8c\x06nopack\x8c\x04nada\x93.",  # a class of a module that is not there
        b"\x80\x04\x8c\x04math\x8c\x04nada\x93.",  # and one that the module does not have
        pickle.dumps(list(range(1_000)))[:-100],
        None,
    ],
)
@pytest.mark.parametrize("kind", ["joblib", "skops"])
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, kind: str, content: bytes | None
) -> None:
    """Empty, text, cut short, of another machine's classes, or not there."""
    file = tmp_path / f"mine.{kind}"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(PackageInvalid, match=rf"mine\.{kind}: cannot be read"):
        wrapping.read_pipeline(file, run_pickle_code=True)


def test_what_is_no_pickle_is_refused_without_what_is_in_it(tmp_path: Path) -> None:
    """A data file given by mistake would be quoted by the library that tries to read it."""
    file = tmp_path / "mine.joblib"
    leases.write_labelled(file, rows=20)

    with pytest.raises(PackageInvalid, match="not a pickle, or not a whole one") as caught:
        wrapping.read_pipeline(file, run_pickle_code=True)
    assert "income" not in str(caught.value)


def test_a_file_that_is_not_there_is_not_called_a_pickle(tmp_path: Path) -> None:
    """Whatever is said about pickles."""
    for flag in (False, True):
        with pytest.raises(PackageInvalid, match=r"mine\.pkl: cannot be read: No such file"):
            wrapping.read_pipeline(tmp_path / "mine.pkl", run_pickle_code=flag)


def test_a_pipeline_of_other_fields_is_refused(
    wrap: Callable[..., Packaged], tmp_path: Path
) -> None:
    """The error says which columns it misses."""
    numbers = FEATURES[NUMBERS].rename(columns={"age": "shoe_size"})
    columns = ColumnTransformer([("n", SimpleImputer(), ["shoe_size", "price"])])
    joblib.dump(make_pipeline(columns, GaussianNB()).fit(numbers, LABELS), tmp_path / "mine.joblib")

    with pytest.raises(PackageInvalid, match=r"not take a frame of .* fields: .*shoe_size"):
        wrap(tmp_path / "mine.joblib", run_pickle_code=True)
