"""A user's own pipeline: loaded without running code, scored as fitted, explained exactly."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skops.io
import yaml
from numpy.testing import runstring
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from credit_risk import package
from credit_risk.errors import PackageInvalid
from credit_risk.model import check_additivity, probability
from credit_risk.pipeline_model import (
    BACKGROUND_ROWS,
    EXACT_FIELDS_MAX,
    PipelineModel,
    frame,
    load_pipeline,
    untrusted_types,
)
from credit_risk.schema import UNSEEN, Schema
from credit_risk.scoring import check_golden, decide, golden_records
from tests import enumeration, toys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    Floats = npt.NDArray[np.float64]

TOY = toys.schema()
ROWS = TOY.matrix(toys.applications(300))
NUMBERS = ["age", "income", "price", "years_employed"]
CATEGORIES = ["history", "use"]


class Stranger(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A step of the user's own making."""

    def fit(self, X: Any, y: Any = None) -> Stranger:  # noqa: ANN401, ARG002
        """Learn nothing."""
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:  # noqa: ANN401
        """Change nothing."""
        return X


def outcomes(rows: Floats) -> npt.NDArray[np.int64]:
    """Defaults that follow the hand-made linear model, with noise."""
    pds = probability(toys.build("linear").log_odds(rows))
    return (np.random.default_rng(5).random(len(rows)) < pds).astype(np.int64)


def fitted(classifier: Any, *between: Any, extra: tuple[str, ...] = ()) -> Pipeline:  # noqa: ANN401
    """A pipeline as users write them, fitted on drawn applicants."""
    preparation = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), [*NUMBERS, *extra]),
            ("c", OneHotEncoder(handle_unknown="ignore"), CATEGORIES),
        ]
    )
    pipeline = make_pipeline(preparation, *between, classifier)
    schema = wider() if extra else TOY
    rows = widened(ROWS) if extra else ROWS
    return pipeline.fit(frame(rows, schema), outcomes(ROWS))


def wider() -> Schema:
    """The toy schema with three more numbers: too many fields for every coalition."""
    document = yaml.safe_load(toys.SCHEMA)
    for number in range(3):
        document["fields"].append(document["fields"][2] | {"name": f"fee_{number}"})
    return Schema.model_validate(document)


def widened(rows: Floats) -> Floats:
    """Rows of `wider`: the fees are shares of the price."""
    return np.hstack([rows, rows[:, [2]] * [0.5, 0.1, 0.01]])


def stored(tmp_path: Path, content: bytes) -> Path:
    """A package's pipeline file."""
    path = tmp_path / "pipeline.skops"
    path.write_bytes(content)
    return path


def reloaded(tmp_path: Path, pipeline: Any, reference: Floats | None = None) -> PipelineModel:  # noqa: ANN401
    """The pipeline written with skops and loaded again."""
    path = stored(tmp_path, skops.io.dumps(pipeline))
    return load_pipeline(path, TOY, toys.reference() if reference is None else reference)


def edited(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A skops file with its description changed by hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            if name == "schema.json":
                description = json.loads(part)
                change(description)
                part = json.dumps(description).encode()
            new.writestr(name, part)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "classifier",
    [
        LogisticRegression(),
        RandomForestClassifier(5, max_depth=3, random_state=0),
        HistGradientBoostingClassifier(max_iter=5, random_state=0),
        CalibratedClassifierCV(DecisionTreeClassifier(max_depth=3, random_state=0), cv=3),
        XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1),
    ],
    ids=lambda c: type(c).__name__,
)
def test_a_loaded_pipeline_scores_as_it_was_fitted(tmp_path: Path, classifier: Any) -> None:  # noqa: ANN401
    """The estimators people use are trusted, and answer as before."""
    pipeline = fitted(classifier)

    loaded = reloaded(tmp_path, pipeline)

    expected = pipeline.predict_proba(frame(ROWS, TOY))[:, 1]
    np.testing.assert_allclose(probability(loaded.log_odds(ROWS)), expected, atol=1e-9)


def test_boosting_on_sets_of_categories_is_loaded(tmp_path: Path) -> None:
    """It holds a partial of a function of scikit-learn's."""
    columns = ColumnTransformer(
        [("n", "passthrough", NUMBERS), ("c", OrdinalEncoder(), CATEGORIES)]
    )
    boosting = HistGradientBoostingClassifier(max_iter=5, categorical_features=[4, 5])
    pipeline = make_pipeline(columns, boosting).fit(frame(ROWS, TOY), outcomes(ROWS))

    loaded = reloaded(tmp_path, pipeline)

    expected = pipeline.predict_proba(frame(ROWS, TOY))[:, 1]
    np.testing.assert_allclose(probability(loaded.log_odds(ROWS)), expected, atol=1e-9)


def test_contributions_are_those_of_every_coalition_of_fields(tmp_path: Path) -> None:
    """Exact against brute force over 2^6 coalitions, a missing value among them."""
    reference = toys.reference(20)
    loaded = reloaded(tmp_path, fitted(LogisticRegression()), reference)
    applicants = TOY.matrix([toys.RISKY, toys.SAFE | {"years_employed": None}])

    values = loaded.contributions(applicants)

    assert "exact" in loaded.method
    for row, found in zip(applicants, values, strict=True):
        expected = enumeration.shapley(loaded.log_odds, row, reference)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_exact_contributions_add_up(tmp_path: Path) -> None:
    """To the log-odds of the pipeline's own probability, trees or not."""
    forest = RandomForestClassifier(10, max_depth=4, random_state=0)
    loaded = reloaded(tmp_path, fitted(forest))

    check_additivity(loaded.log_odds(ROWS[:20]), loaded.base_value, loaded.contributions(ROWS[:20]))


def test_sampled_contributions_add_up_as_well(tmp_path: Path) -> None:
    """With more fields than every coalition allows."""
    schema = wider()
    forest = RandomForestClassifier(5, max_depth=4, random_state=0)
    pipeline = fitted(forest, extra=("fee_0", "fee_1", "fee_2"))
    path = stored(tmp_path, skops.io.dumps(pipeline))
    loaded = load_pipeline(path, schema, widened(toys.reference(20)))
    rows = widened(ROWS[:5])

    values = loaded.contributions(rows)

    assert len(schema.fields) > EXACT_FIELDS_MAX
    assert "sampled permutations" in loaded.method
    assert values.shape == (5, 9)
    check_additivity(loaded.log_odds(rows), loaded.base_value, values)
    # Sampled, and yet the same applicant has the same reasons: asked again, and asked alone.
    np.testing.assert_allclose(loaded.contributions(rows), values, atol=1e-12)
    np.testing.assert_allclose(loaded.contributions(rows[3:4]), values[3:4], atol=1e-12)


def test_at_most_a_hundred_rows_are_the_background(tmp_path: Path) -> None:
    """The base value is theirs, and the method says how many."""
    loaded = reloaded(tmp_path, fitted(LogisticRegression()), ROWS)

    expected = loaded.log_odds(ROWS[:BACKGROUND_ROWS]).mean()
    assert loaded.base_value == pytest.approx(expected)
    assert loaded.method.endswith(", 100 rows")
    check_additivity(loaded.log_odds(ROWS[:3]), loaded.base_value, loaded.contributions(ROWS[:3]))


def test_a_pipeline_that_is_certain_still_has_finite_log_odds(tmp_path: Path) -> None:
    """A tree's 0 and 1 are taken as a millionth of a millionth away."""
    loaded = reloaded(tmp_path, fitted(DecisionTreeClassifier(random_state=0)))

    log_odds = loaded.log_odds(ROWS)

    assert np.isfinite(log_odds).all()
    assert log_odds.max() == pytest.approx(12 * np.log(10), rel=1e-4)
    assert log_odds.min() == pytest.approx(-12 * np.log(10), rel=1e-4)


def test_a_frame_holds_what_the_pipeline_was_trained_on() -> None:
    """Named columns, names of categories, and NaN for what is missing or unseen."""
    rows = TOY.matrix([TOY.example, TOY.example | {"years_employed": None}, TOY.example])
    rows[2, 5] = UNSEEN
    rows[1, 4] = np.nan

    table: pd.DataFrame = frame(rows, TOY)

    assert list(table.columns) == list(TOY.names)
    assert table["price"].tolist() == [1200.0] * 3
    assert table["years_employed"].isna().tolist() == [False, True, False]
    assert table["history"].fillna("?").tolist() == ["mixed", "?", "mixed"]
    assert table["use"].fillna("?").tolist() == ["commuting", "commuting", "?"]


# What is not loaded.


def test_a_class_of_the_users_own_is_refused_by_name(tmp_path: Path) -> None:
    """Its code is not in the file, and would run."""
    content = skops.io.dumps(fitted(LogisticRegression(), Stranger()))

    assert untrusted_types(content) == [f"{__name__}.Stranger"]
    with pytest.raises(PackageInvalid, match=r"^pipeline\.skops: type .*Stranger is not trusted"):
        load_pipeline(stored(tmp_path, content), TOY, toys.reference())


@pytest.mark.parametrize(
    "step",
    [
        FunctionTransformer(runstring, kw_args={"dict": {}}),
        FunctionTransformer(partial(runstring, dict={})),
        FunctionTransformer(partial(partial(np.log1p), runstring)),
    ],
    ids=["itself", "in a partial", "as an argument of a partial"],
)
def test_a_function_that_runs_text_is_refused_though_numpy_has_it(
    tmp_path: Path, step: FunctionTransformer
) -> None:
    """A library that is trusted for its arrays is not trusted for all that it holds."""
    content = skops.io.dumps(step)

    with pytest.raises(PackageInvalid, match=r"type numpy\.testing.*runstring is not trusted"):
        load_pipeline(stored(tmp_path, content), TOY, toys.reference())


def test_a_file_that_calls_what_it_names_is_refused_before_it_does(tmp_path: Path) -> None:
    """Made by hand: loading would call the function with the file's own text."""
    victim = tmp_path / "written"
    text = f"open({str(victim)!r}, 'w').close()"
    content = skops.io.dumps((text, {}))

    def call(description: dict[str, Any]) -> None:
        description["content"] = dict(description)
        description["__class__"] = "runstring"
        description["__module__"] = "numpy.testing._private.utils"
        description["__loader__"] = "ConstructorFromReduceNode"
        del description["__id__"]

    crafted = edited(content, call)
    with pytest.raises(PackageInvalid, match="runstring is not trusted"):
        load_pipeline(stored(tmp_path, crafted), TOY, toys.reference())
    assert not victim.exists()

    # The same file, trusted, does what it says: the refusal is what protects.
    skops.io.loads(crafted, trusted=["numpy.testing._private.utils.runstring"])
    assert victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        pickle.dumps(LogisticRegression()),
        package.npz({"rows": np.zeros(3)}),
        skops.io.dumps(LogisticRegression())[:-30],
        edited(skops.io.dumps(LogisticRegression()), lambda d: d.clear()),
        edited(skops.io.dumps(LogisticRegression()), lambda d: d.update(__loader__="Nothing")),
        edited(skops.io.dumps(([],)), lambda d: d.update(content=[dict(d)])),
    ],
    ids=["empty", "text", "pickle", "archive", "cut", "bare", "unknown loader", "circle"],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    """Above all a pickle."""
    with pytest.raises(PackageInvalid, match=r"^pipeline\.skops: cannot be read"):
        load_pipeline(stored(tmp_path, content), TOY, toys.reference())


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A package of this kind needs it."""
    with pytest.raises(PackageInvalid, match=r"^pipeline\.skops: cannot be read"):
        load_pipeline(tmp_path / "pipeline.skops", TOY, toys.reference())


def test_a_pipeline_without_probabilities_is_refused(tmp_path: Path) -> None:
    """Preparation alone decides nothing."""
    with pytest.raises(PackageInvalid, match="the pipeline has no predict_proba"):
        reloaded(tmp_path, StandardScaler().fit(ROWS))


# As a package.


def test_a_package_may_hold_a_pipeline(tmp_path: Path) -> None:
    """Same folder, same manifest, same decisions with reasons; only slower."""
    pipeline = fitted(LogisticRegression())
    spec = toys.spec("linear").model_copy(
        update={"kind": "pipeline", "encoder": None, "calibration": None, "linear": None}
    )
    model = PipelineModel(pipeline, TOY, toys.reference())
    parts = package.Parts(TOY, toys.policy(), toys.reasons(), model)
    records = [toys.SAFE, toys.RISKY]
    files = toys.package_files("linear") | {
        "model.json": spec.model_dump_json().encode(),
        "pipeline.skops": skops.io.dumps(pipeline),
        "golden.json": golden_records(parts, records).model_dump_json().encode(),
    }

    loaded = package.load(package.write(tmp_path, toys.NAME, files))

    check_golden(loaded)
    safe, risky = decide(loaded, records)
    assert safe.outcome.decision == "APPROVE"
    assert risky.outcome.decision == "DECLINE"
    assert 1 <= len(risky.reasons) <= 4
    assert loaded.model.method.startswith("interventional Shapley values by shap, exact")
