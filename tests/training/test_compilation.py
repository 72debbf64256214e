"""Compilation: the compiled model answers as its pipeline; what has no equivalent says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from credit_risk import documents, model
from credit_risk.model import probability
from credit_risk.pipeline_model import frame
from credit_risk.schema import UNSEEN, Schema
from credit_risk.training import pipeline
from credit_risk.training.compilation import NotCompilable, compile_pipeline
from credit_risk.training.settings import EstimatorName
from tests import enumeration, leases, toys
from tests.torches import estimators

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from credit_risk.model import Model
    from credit_risk.training.compilation import Compiled

    Floats = npt.NDArray[np.float64]

SCHEMA = toys.schema()
TABLE = leases.labelled(1_200)
FEATURES, LABELS = TABLE.drop(columns=leases.TARGET), TABLE[leases.TARGET]
NUMBERS = ["age", "income", "price", "years_employed"]
HISTORY = ["good", "mixed", "poor"]
USES = ["cargo", "commuting", "racing"]
TOLERANCE = 1e-6

PARAMETERS: dict[EstimatorName, dict[str, Any]] = {
    "xgboost": {"n_estimators": 120, "max_depth": 4, "gamma": 0.1},
    "logistic-regression": {},
    "random-forest": {"n_estimators": 40, "max_depth": 6},
    "gradient-boosting": {"max_iter": 40, "max_leaf_nodes": 12},
    "neural-network": {"hidden": [12, 6], "epochs": 5},
}


def _applicants() -> tuple[pd.DataFrame, Floats]:
    """Applicants as a frame and as numbers.

    Some are those of the training data, so values lie on thresholds; some are missing what may
    be; and the last hundred want the bicycle for what no schema lists.
    """
    others = leases.labelled(400, seed=8).drop(columns=leases.TARGET)
    table = pd.concat([FEATURES.head(400), others], ignore_index=True)
    table.loc[700:, "use"] = "freight"
    rows = np.empty((len(table), len(SCHEMA.fields)))
    for i, spec in enumerate(SCHEMA.fields):
        codes = {c: float(j) for j, c in enumerate(spec.categories)}
        rows[:, i] = table[spec.name].map(codes).fillna(UNSEEN) if codes else table[spec.name]
    return table, rows


APPLICANTS, ROWS = _applicants()
assert np.isnan(ROWS).any()
assert (ROWS == UNSEEN).any()


def _numbers(*steps: Any) -> tuple[str, Any, list[str]]:  # noqa: ANN401 - any transformer
    return "numbers", make_pipeline(*steps), NUMBERS


def _ordinal(*categories: list[Any], unknown: float = -1) -> OrdinalEncoder:
    return OrdinalEncoder(
        categories=list(categories), handle_unknown="use_encoded_value", unknown_value=unknown
    )


def _prepared(
    *steps: Any,  # noqa: ANN401 - any transformer
    use: Any = None,  # noqa: ANN401
    **settings: Any,  # noqa: ANN401
) -> ColumnTransformer:
    """What a user might write: numbers by these steps, one-hot purposes, ordered histories."""
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            _numbers(*(steps or (SimpleImputer(strategy="median"),))),
            ("use", use or one_hot, ["use"]),
            ("history", _ordinal(HISTORY), ["history"]),
        ],
        **settings,
    )


def _reordered(*last: Any) -> ColumnTransformer:  # noqa: ANN401 - any transformer
    """Categories numbered otherwise than by the schema, with one more that it does not have."""
    names = _ordinal(["racing", "walking", "cargo", "commuting"], HISTORY[::-1])
    return ColumnTransformer(
        [
            ("names", make_pipeline(names, *last), ["use", "history"]),
            _numbers(SimpleImputer(), *last),
        ]
    )


def _scaled() -> ColumnTransformer:
    return _prepared(SimpleImputer(), FunctionTransformer(np.log1p), StandardScaler())


def _fitted(*steps: Any) -> Pipeline:  # noqa: ANN401 - any step
    return make_pipeline(*steps).fit(FEATURES, LABELS)


def _model(compiled: Compiled, schema: Schema = SCHEMA) -> Model:
    reference = np.nan_to_num(ROWS[:5], nan=1.0)
    return model.build(compiled.spec, schema, compiled.arrays, reference)


def _largest_difference(fitted: Pipeline) -> float:
    """Between the compiled PDs of the applicants and the pipeline's own."""
    compiled = compile_pipeline(fitted, SCHEMA, "test")
    pds = probability(_model(compiled).log_odds(ROWS))
    return float(np.abs(pds - fitted.predict_proba(APPLICANTS)[:, 1]).max())


@pytest.mark.parametrize("estimator", estimators())
def test_each_estimator_of_ours_is_compiled_exactly(estimator: EstimatorName) -> None:
    """Log-odds, calibration included, with missing values and categories never seen."""
    fitted = pipeline.build(SCHEMA, estimator, PARAMETERS[estimator], seed=1).fit(FEATURES, LABELS)

    compiled = compile_pipeline(fitted, SCHEMA, estimator)

    expected = logit(fitted.predict_proba(APPLICANTS)[:, 1])
    assert np.abs(_model(compiled).log_odds(ROWS) - expected).max() < TOLERANCE
    assert np.ptp(expected) > 1
    assert compiled.spec.estimator == estimator
    kinds = {"logistic-regression": "linear", "neural-network": "network"}
    assert compiled.spec.kind == kinds.get(estimator, "trees")
    assert compiled.spec.calibration is not None
    assert compiled.spec.calibration.slope != 1


def test_columns_are_reported_under_the_fields_they_come_from() -> None:
    """One-hot columns under their field, the ratio under the factor that the schema names."""
    estimator: EstimatorName = "random-forest"
    fitted = pipeline.build(SCHEMA, estimator, PARAMETERS[estimator], seed=1).fit(FEATURES, LABELS)

    encoder = compile_pipeline(fitted, SCHEMA, estimator).spec.encoder

    assert encoder is not None
    assert [(c.name, c.kind, c.factor) for c in encoder.columns] == [
        ("age", "number", "age"),
        ("income", "number", "income"),
        ("price", "number", "price"),
        ("years_employed", "number", "years_employed"),
        ("years_employed_missing", "missing", "years_employed"),
        ("history", "number", "history"),
        ("use=cargo", "indicator", "use"),
        ("use=commuting", "indicator", "use"),
        ("use=racing", "indicator", "use"),
        ("price_to_income", "ratio", "price"),
    ]
    assert [c.name for c in encoder.columns if c.log] == ["income"]
    assert encoder.columns[3].fill == FEATURES["years_employed"].median()


USERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "XGBoost": lambda: (_prepared(), XGBClassifier(n_estimators=80)),
    "XGBoost that takes missing values itself": lambda: (
        _prepared(FunctionTransformer(np.log1p), StandardScaler()),
        XGBClassifier(n_estimators=80, num_parallel_tree=2, subsample=0.7, scale_pos_weight=3),
    ),
    "XGBoost on columns as they are": lambda: (
        ColumnTransformer([("n", "passthrough", NUMBERS), ("gone", "drop", ["use", "history"])]),
        XGBClassifier(n_estimators=80, base_score=0.2),
    ),
    "logistic regression": lambda: (_scaled(), LogisticRegression()),
    "logistic regression on raw amounts": lambda: (
        _prepared(SimpleImputer(strategy="constant", fill_value=-1)),
        LogisticRegression(max_iter=5_000),
    ),
    "logistic regression with its own search": lambda: (
        _scaled(),
        LogisticRegressionCV(
            Cs=2, cv=2, scoring="neg_log_loss", l1_ratios=(0.0,), use_legacy_attributes=False
        ),
    ),
    "logistic regression with the indicators of what is missing": lambda: (
        ColumnTransformer(
            [
                _numbers(SimpleImputer(strategy="most_frequent"), StandardScaler(with_std=False)),
                ("missing", MissingIndicator(features="all"), ["years_employed", "age"]),
            ]
        ),
        LogisticRegression(max_iter=5_000),
    ),
    "logistic regression with a ratio": lambda: (
        ColumnTransformer(
            [
                (
                    "price_to_income",
                    make_pipeline(
                        SimpleImputer(), FunctionTransformer(pipeline.divide), StandardScaler()
                    ),
                    ["price", "income"],
                ),
                (
                    "income_to_age",
                    make_pipeline(SimpleImputer(), FunctionTransformer(pipeline.divide)),
                    ["income", "age"],
                ),
            ]
        ),
        LogisticRegression(max_iter=5_000),
    ),
    "columns chosen by a selector": lambda: (
        ColumnTransformer([("n", SimpleImputer(), make_column_selector(dtype_include="number"))]),
        LogisticRegression(max_iter=5_000),
    ),
    "one column by its name": lambda: (
        ColumnTransformer([("n", OneHotEncoder(), ["history"])]),
        LogisticRegression(),
    ),
    "calibrated logistic regression": lambda: (
        _scaled(),
        CalibratedClassifierCV(LogisticRegression(), ensemble=False),
    ),
    "calibrated random forest": lambda: (
        _prepared(),
        CalibratedClassifierCV(RandomForestClassifier(40, random_state=1), ensemble=False),
    ),
    "sparse one-hot columns and a calibrated random forest": lambda: (
        _prepared(use=OneHotEncoder(handle_unknown="ignore"), sparse_threshold=1.0),
        CalibratedClassifierCV(RandomForestClassifier(40, random_state=1), ensemble=False),
    ),
    "histogram gradient boosting": lambda: (_prepared(), HistGradientBoostingClassifier()),
    "histogram gradient boosting that takes missing values itself": lambda: (
        _prepared(StandardScaler()),
        HistGradientBoostingClassifier(max_iter=60),
    ),
    "histogram gradient boosting that splits on sets of categories": lambda: (
        _prepared(use=_ordinal(USES)),
        HistGradientBoostingClassifier(max_iter=40, categorical_features=[4, 5]),
    ),
    "XGBoost that splits on sets of categories": lambda: (
        _prepared(use=_ordinal(USES)),
        XGBClassifier(n_estimators=80, feature_types=["q"] * 4 + ["c", "c"], max_cat_to_onehot=1),
    ),
    "logistic regression on categories in another order": lambda: (
        _reordered(StandardScaler()),
        LogisticRegression(max_iter=5_000),
    ),
    "histogram gradient boosting on categories in another order": lambda: (
        _reordered(),
        HistGradientBoostingClassifier(max_iter=40, categorical_features=[0]),
    ),
    "XGBoost on categories in another order": lambda: (
        _reordered(),
        XGBClassifier(n_estimators=80, feature_types=["c"] + ["q"] * 5, max_cat_to_onehot=1),
    ),
    "calibrated histogram gradient boosting, cast to float32": lambda: (
        _prepared(),
        FunctionTransformer(pipeline.as_float32),
        CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=40), ensemble=False),
    ),
}


@pytest.mark.parametrize("name", USERS)
def test_a_users_pipeline_is_compiled_exactly(name: str) -> None:
    """PDs with missing values and unseen categories; without a calibration the score is the PD's.

    Compared as PDs: XGBoost's own are float32, whose log-odds waver near 0 and 1.
    """
    assert _largest_difference(_fitted(*USERS[name]())) < TOLERANCE


def test_a_value_that_is_a_threshold_stays_on_its_side() -> None:
    """Histogram boosting splits at values of the data, which float32 may round across the split."""
    table = FEATURES.assign(income=np.repeat(np.arange(1, 13) * 1000.1, 100))
    labels = (table["income"] > 6_000).astype(int).to_numpy() ^ (np.arange(1_200) % 7 == 0)
    columns = ColumnTransformer([("n", SimpleImputer(), ["income"])])
    fitted = make_pipeline(columns, HistGradientBoostingClassifier(max_bins=5)).fit(table, labels)
    (predictor,) = fitted[-1]._predictors[0]  # noqa: SLF001 - what this test is about
    thresholds = predictor.nodes["num_threshold"][~predictor.nodes["is_leaf"].astype(bool)]
    assert set(thresholds) & set(table["income"]), "the test needs a threshold on a value"

    compiled = compile_pipeline(fitted, SCHEMA, "test")

    rows = np.ones((12, len(SCHEMA.fields)))
    rows[:, SCHEMA.index["income"]] = np.arange(1, 13) * 1000.1
    expected = fitted.predict_proba(pd.DataFrame({"income": rows[:, SCHEMA.index["income"]]}))
    np.testing.assert_allclose(
        probability(_model(compiled).log_odds(rows)), expected[:, 1], atol=1e-12
    )


def test_the_base_of_boosted_trees_is_exact_however_many_there_are() -> None:
    """XGBoost's float32 sum over many trees is off by more than the base may be."""
    fitted = _fitted(_prepared(), XGBClassifier(n_estimators=600, base_score=0.5))

    base = float(compile_pipeline(fitted, SCHEMA, "test").arrays["base"].item())

    assert abs(base) < 1e-7


def test_an_early_stopped_xgboost_is_cut_where_it_was_best() -> None:
    """The trees after the best iteration do not vote, as in predict_proba."""
    columns = _prepared().fit(FEATURES)
    late = leases.labelled(600, seed=21)
    held_out = columns.transform(late.drop(columns="late"))
    estimator = XGBClassifier(n_estimators=400, early_stopping_rounds=5, learning_rate=0.3)
    fitted = make_pipeline(columns, estimator)
    fitted.fit(
        FEATURES,
        LABELS,
        xgbclassifier__eval_set=[(held_out, late["late"])],
        xgbclassifier__verbose=False,
    )
    rounds = fitted[-1].get_booster().num_boosted_rounds()
    assert fitted[-1].best_iteration + 1 < rounds < 400

    compiled = compile_pipeline(fitted, SCHEMA, "test")

    assert len(compiled.arrays["roots"]) == fitted[-1].best_iteration + 1
    assert _largest_difference(fitted) < TOLERANCE


def test_a_category_that_may_be_missing_is_filled_as_the_pipeline_fills_it() -> None:
    """With the most frequent one, or with a name of its own that no column stands for."""
    text = toys.SCHEMA.replace(
        "    categories: [cargo, commuting, racing]",
        "    nullable: true\n    categories: [cargo, commuting, racing]",
    )
    schema = documents.parse(Schema, text, "schema.yaml")
    table = FEATURES.assign(use=FEATURES["use"].astype(object).mask(np.arange(1_200) % 5 == 0))
    rows = ROWS[:700].copy()
    rows[::3, schema.index["use"]] = np.nan
    one_hot = OneHotEncoder(
        categories=[["cargo", "commuting", "racing"]], handle_unknown="ignore", sparse_output=False
    )
    named = SimpleImputer(strategy="constant", fill_value="not stated")
    reordered = ["racing", "not stated", "cargo", "commuting"]
    for steps in (
        (SimpleImputer(strategy="most_frequent"), one_hot),
        (named, one_hot),
        (SimpleImputer(strategy="most_frequent"), _ordinal(reordered)),
        (named, _ordinal(reordered)),
        (named, OrdinalEncoder()),
        (_ordinal(reordered, unknown=9),),
        (OrdinalEncoder(categories=[[*USES[::-1], np.nan]], encoded_missing_value=-7),),
    ):
        uses = make_pipeline(*steps)
        columns = ColumnTransformer([_numbers(SimpleImputer()), ("use", uses, ["use"])])
        fitted = make_pipeline(columns, LogisticRegression(max_iter=5_000)).fit(table, LABELS)

        compiled = compile_pipeline(fitted, schema, "test")

        pds = probability(_model(compiled, schema).log_odds(rows))
        expected = fitted.predict_proba(frame(rows, schema))[:, 1]
        assert np.abs(pds - expected).max() < TOLERANCE

    unfilled = ColumnTransformer([("use", one_hot, ["use"])])
    fitted = make_pipeline(unfilled, LogisticRegression()).fit(table, LABELS)
    with pytest.raises(NotCompilable, match="use: a category that may be missing and is not"):
        compile_pipeline(fitted, schema, "test")


def _calibrated(estimator: object, **settings: Any) -> CalibratedClassifierCV:  # noqa: ANN401
    return CalibratedClassifierCV(estimator, **({"ensemble": False, "cv": 2} | settings))


def _only(name: str, step: object, fields: object) -> ColumnTransformer:
    return ColumnTransformer([(name, step, fields)])


LINEAR = LogisticRegression(max_iter=5_000)
WITHOUT_EQUIVALENT: dict[str, Callable[[], tuple[Any, ...]]] = {
    "the pipeline is not a ColumnTransformer followed by a classifier": lambda: (
        _prepared(),
        StandardScaler(),
        LINEAR,
    ),
    r"ColumnTransformer\(transformer_weights=...\)": lambda: (
        _prepared(transformer_weights={"numbers": 2.0}),
        LINEAR,
    ),
    "the ColumnTransformer passes unnamed columns through": lambda: (
        ColumnTransformer(
            [("h", OneHotEncoder(sparse_output=False), ["history", "use"])],
            remainder="passthrough",
        ),
        HistGradientBoostingClassifier(max_iter=2),
    ),
    "step n names its columns by a slice": lambda: (
        _only("n", SimpleImputer(), slice("age", "years_employed")),
        LINEAR,
    ),
    "column 1 is not a field of the schema": lambda: (_only("n", SimpleImputer(), [1, 2]), LINEAR),
    "step KNNImputer": lambda: (_prepared(KNNImputer()), LINEAR),
    "step MinMaxScaler": lambda: (_prepared(SimpleImputer(), MinMaxScaler()), LINEAR),
    "step StandardScaler": lambda: (
        _prepared(SimpleImputer(), StandardScaler(), StandardScaler()),
        LINEAR,
    ),
    "step FunctionTransformer": lambda: (
        _prepared(SimpleImputer(), FunctionTransformer(np.sqrt)),
        LINEAR,
    ),
    r"age: SimpleImputer\(add_indicator=True\)": lambda: (
        _prepared(SimpleImputer(add_indicator=True)),
        LINEAR,
    ),
    r"age: SimpleImputer\(missing_values=0\)": lambda: (
        _only("a", SimpleImputer(missing_values=0), ["age"]),
        LINEAR,
    ),
    "years_employed: MissingIndicator followed by a step, or not of all features": lambda: (
        _only("m", MissingIndicator(), ["years_employed"]),
        LINEAR,
    ),
    r"age: MissingIndicator\(missing_values=18\)": lambda: (
        _only("m", MissingIndicator(missing_values=18, features="all"), ["age"]),
        LINEAR,
    ),
    "d: a ratio after StandardScaler": lambda: (
        _only(
            "d",
            make_pipeline(StandardScaler(), FunctionTransformer(pipeline.divide)),
            ["price", "income"],
        ),
        LINEAR,
    ),
    "use: a category without an encoder": lambda: (
        _only("u", make_pipeline(SimpleImputer(strategy="most_frequent"), _Lengths()), ["use"]),
        LINEAR,
    ),
    "history: OrdinalEncoder of a number, or grouping categories": lambda: (
        _only("h", OrdinalEncoder(min_frequency=200), ["history"]),
        LINEAR,
    ),
    "history: two ordinal encoders that order the categories otherwise": lambda: (
        ColumnTransformer(
            [(n, OrdinalEncoder(categories=[HISTORY[::-1]]), ["history"]) for n in "ab"]
        ),
        LINEAR,
    ),
    "use: OneHotEncoder followed by a step, dropping or grouping categories": lambda: (
        _prepared(use=OneHotEncoder(drop="first", sparse_output=False)),
        LINEAR,
    ),
    "history: OneHotEncoder followed by a step, dropping or": lambda: (
        _only("h", OneHotEncoder(min_frequency=200, sparse_output=False), ["history"]),
        LINEAR,
    ),
    "use: OneHotEncoder followed by a step": lambda: (
        _prepared(use=make_pipeline(OneHotEncoder(sparse_output=False), StandardScaler())),
        LINEAR,
    ),
    r"age: category .*18.* is not in the schema": lambda: (
        _only("a", OneHotEncoder(sparse_output=False), ["age"]),
        LINEAR,
    ),
    "CalibratedClassifierCV other than method='sigmoid', ensemble=False": lambda: (
        _prepared(),
        _calibrated(RandomForestClassifier(5), method="isotonic"),
    ),
    "CalibratedClassifierCV other than": lambda: (
        _prepared(),
        _calibrated(RandomForestClassifier(5), ensemble=True),
    ),
    "CalibratedClassifierCV around an XGBClassifier without decision_function": lambda: (
        _prepared(),
        _calibrated(XGBClassifier(n_estimators=3)),
    ),
    "a calibration that does not keep the estimator's order": lambda: (
        _prepared(),
        _calibrated(_Contrary()),
    ),
    "classifier RandomForestClassifier, not calibrated": lambda: (
        _prepared(),
        RandomForestClassifier(5),
    ),
    "classifier DecisionTreeClassifier, not calibrated": lambda: (
        _prepared(),
        DecisionTreeClassifier(),
    ),
    "classifier KNeighborsClassifier, not calibrated": lambda: (
        _prepared(),
        KNeighborsClassifier(),
    ),
    "classifier GradientBoostingClassifier": lambda: (
        _prepared(),
        _calibrated(GradientBoostingClassifier(n_estimators=2)),
    ),
    "classifier FrozenEstimator": lambda: (
        _prepared(),
        CalibratedClassifierCV(
            FrozenEstimator(LINEAR.fit(_prepared().fit_transform(FEATURES), LABELS)), cv=2
        ),
    ),
    "XGBoost booster dart": lambda: (_prepared(), XGBClassifier(n_estimators=2, booster="dart")),
    "XGBoost booster gblinear": lambda: (
        _prepared(),
        XGBClassifier(n_estimators=2, booster="gblinear"),
    ),
    "XGBoost objective binary:hinge": lambda: (
        _prepared(),
        XGBClassifier(n_estimators=2, objective="binary:hinge"),
    ),
    "XGBoost objective multi:softprob": lambda: (
        _prepared(),
        XGBClassifier(n_estimators=2, objective="multi:softprob", num_class=2),
    ),
    r"XGBClassifier\(missing=0\)": lambda: (_prepared(), XGBClassifier(n_estimators=2, missing=0)),
    "age: a split on a set of categories in other than one column of codes": lambda: (
        _prepared(),
        XGBClassifier(n_estimators=2, feature_types=["c"] + ["q"] * 7),
    ),
    "history: a split on a set of categories in other than one column of codes": lambda: (
        ColumnTransformer([(name, _ordinal(HISTORY), ["history"]) for name in ("one", "two")]),
        XGBClassifier(n_estimators=9, feature_types=["c", "c"], colsample_bytree=0.5),
    ),
    "XGBoost on a sparse matrix, whose zeros it takes for missing values": lambda: (
        _prepared(use=OneHotEncoder(), sparse_threshold=1.0),
        XGBClassifier(n_estimators=2),
    ),
}


WHEELS = ["balloon", "clincher", "folding", "gravel", "road", "solid", "tubular", "wide"]
WHEELED = documents.parse(
    Schema,
    toys.SCHEMA.replace("[cargo, commuting, racing]", f"{WHEELS}\n    nullable: true").replace(
        "example: commuting", "example: gravel"
    ),
    "schema.yaml",
)
CATEGORICAL: dict[str, Any] = {
    "XGBoost": XGBClassifier(
        n_estimators=30, max_depth=5, feature_types=["q"] * 4 + ["c"] * 2, max_cat_to_onehot=2
    ),
    "histogram gradient boosting": HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=12, categorical_features=[4, 5]
    ),
}


@pytest.mark.parametrize("step", [1, -1], ids=["in order", "in reverse"])
@pytest.mark.parametrize("missing", ["a number of its own", "unknown", "kept"])
@pytest.mark.parametrize("name", CATEGORICAL)
def test_splits_on_sets_of_categories_are_scored_and_explained_exactly(
    name: str, missing: str, step: int
) -> None:
    """A field that the estimator sees as one column is one player, however many sets split it.

    By enumeration of all coalitions; with categories missing and, where they have a number of
    their own, unseen.
    """
    generator = np.random.default_rng(5)
    wheels = generator.integers(0, len(WHEELS), len(FEATURES))
    tyres = np.array(WHEELS, dtype=object)[wheels]
    if missing != "a number of its own":  # with which XGBoost does not train
        tyres[::6] = np.nan
    effect = np.array([1.5, -1.0, 0.6, -1.4, 0.9, -0.2, 1.1, -0.8])[wheels]
    # Which wheels matter, and how, depends on the history: trees test the field again below.
    late = np.where(FEATURES["history"] == "good", effect, -effect) + FEATURES["age"] % 3 > 1
    known = WHEELS[::step] + [np.nan] * (missing == "kept")
    uses = _ordinal(known, unknown=-1 if missing == "a number of its own" else np.nan)
    columns = ColumnTransformer(
        [
            ("n", "passthrough", NUMBERS),
            ("u", uses, ["use"]),
            ("h", _ordinal(HISTORY[::step]), ["history"]),
        ]
    )
    fitted = make_pipeline(columns, CATEGORICAL[name]).fit(FEATURES.assign(use=tyres), late)
    compiled = compile_pipeline(fitted, WHEELED, "test")
    use = WHEELED.index["use"]
    rows = ROWS[:60].copy()
    rows[:, use] = generator.integers(-1 if missing == "a number of its own" else 0, 8, 60)
    rows[::7, use] = np.nan
    applicants, group = rows[:8], rows[8:]

    explained = model.build(compiled.spec, WHEELED, compiled.arrays, group)

    def margins(rows: Floats) -> Floats:
        encoded = columns.transform(frame(rows, WHEELED))
        if name != "XGBoost":
            return np.asarray(fitted[-1].decision_function(encoded))
        return np.asarray(fitted[-1].predict(encoded, output_margin=True), dtype=np.float64)

    assert compiled.spec.encoder is not None
    sets = [c for c in compiled.spec.encoder.columns if c.kind == "lookup" and c.field == "use"]
    assert len(sets) > 3
    assert np.abs(explained.log_odds(rows) - margins(rows)).max() < TOLERANCE
    contributions = explained.contributions(applicants)
    expected = [enumeration.shapley(margins, row, group) for row in applicants]
    assert np.abs(contributions - expected).max() < TOLERANCE
    assert np.abs(contributions[:, use]).max() > 0.1


class _Lengths(FunctionTransformer):  # type: ignore[misc]
    """Turns names into how long they are."""

    def __init__(self) -> None:
        super().__init__(lambda names: np.vectorize(len)(names).astype(float))


class _Contrary(RandomForestClassifier):  # type: ignore[misc]
    """A forest that is sure of the opposite."""

    def __init__(self) -> None:
        super().__init__(20, max_depth=4, random_state=1)

    def predict_proba(self, X: npt.NDArray[Any]) -> Floats:
        """The probabilities of the wrong classes."""
        pds: Floats = super().predict_proba(X)[:, ::-1]
        return pds


@pytest.mark.parametrize("reason", WITHOUT_EQUIVALENT)
def test_a_step_without_an_equivalent_is_named(reason: str) -> None:
    """Rather than compiled into something that answers otherwise."""
    fitted = _fitted(*WITHOUT_EQUIVALENT[reason]())

    with pytest.raises(NotCompilable, match=f"^{reason}"):
        compile_pipeline(fitted, SCHEMA, "test")


def test_a_pipeline_over_columns_of_its_own_is_not_compiled() -> None:
    """What the schema does not list cannot be asked of an applicant."""
    table = FEATURES.rename(columns={"age": "shoe_size"})
    fitted = make_pipeline(_only("n", SimpleImputer(), ["shoe_size", "price"]), LINEAR)
    fitted.fit(table, LABELS)

    with pytest.raises(NotCompilable, match="column 'shoe_size' is not a field of the schema"):
        compile_pipeline(fitted, SCHEMA, "test")


def test_a_category_that_the_pipeline_never_met_is_not_made_up() -> None:
    """The pipeline fails on such an applicant; the compiled model may not guess."""
    table = FEATURES.replace({"history": {"poor": "mixed"}})
    fitted = make_pipeline(_only("h", OrdinalEncoder(), ["history"]), LINEAR).fit(table, LABELS)

    with pytest.raises(NotCompilable, match="OrdinalEncoder does not know all categories of the"):
        compile_pipeline(fitted, SCHEMA, "test")


def test_a_classifier_alone_is_not_compiled() -> None:
    """There is no step that names its columns."""
    fitted = make_pipeline(HistGradientBoostingClassifier(max_iter=2)).fit(
        FEATURES[NUMBERS], LABELS
    )

    with pytest.raises(NotCompilable, match="not a ColumnTransformer followed by"):
        compile_pipeline(fitted, SCHEMA, "test")
