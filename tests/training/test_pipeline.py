"""The pipeline: directions are kept whatever the data say, and one seed gives one model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from credit_risk import documents, portfolio
from credit_risk.pipeline_model import frame
from credit_risk.schema import Schema
from credit_risk.training import pipeline
from credit_risk.training.pipeline import MarginXGBClassifier, MonotoneLogisticRegression
from credit_risk.training.settings import EstimatorName
from tests import leases, toys
from tests.torches import estimators

if TYPE_CHECKING:
    import numpy.typing as npt
    from sklearn.pipeline import Pipeline

    from credit_risk.schema import FieldSpec

    Floats = npt.NDArray[np.float64]

PORTFOLIOS = Path(__file__).parent.parent.parent / "portfolios"
SCHEMAS = (toys.NAME, *portfolio.names(PORTFOLIOS))
PARAMETERS: dict[EstimatorName, dict[str, Any]] = {
    "xgboost": {"n_estimators": 25, "max_depth": 4, "learning_rate": 0.3, "subsample": 0.8},
    "logistic-regression": {"C": 1.0},
    "random-forest": {"n_estimators": 10, "max_depth": 6},
    "gradient-boosting": {"max_iter": 25, "max_leaf_nodes": 12},
    "neural-network": {"hidden": [16, 8], "epochs": 8, "batch_rows": 64, "learning_rate": 0.01},
}
WIDE = {
    # Ranges of the schemas reach far beyond what applicants are like.
    "person_income": (4_000, 300_000),
    "loan_amnt": (500, 35_000),
    "loan_percent_income": (0, 0.9),
    "credit_utilisation": (0, 1.5),
    "LIMIT_BAL": (10_000, 500_000),
    "income": (300, 20_000),
}
USES = [6, 7, 8]
"""The toy's columns that say what the bicycle is for."""

NOISE = 1e-6
"""XGBoost adds up in float32; a PD may waver by that much."""


def _schema(name: str) -> Schema:
    return toys.schema() if name == toys.NAME else portfolio.load(PORTFOLIOS, name).schema


def _range(spec: FieldSpec) -> tuple[float, float]:
    if spec.is_category:
        return 0.0, len(spec.categories) - 1.0
    return WIDE.get(spec.name, (spec.minimum or 0.0, spec.maximum or 0.0))


def _applicants(schema: Schema, number: int, seed: int) -> Floats:
    """Made-up rows: each field on its own, uniform over its range, one in eight missing."""
    generator = np.random.default_rng(seed)
    rows = np.empty((number, len(schema.fields)))
    for i, spec in enumerate(schema.fields):
        low, high = _range(spec)
        rows[:, i] = generator.uniform(low, high, number)
        if spec.is_category or spec.type == "integer":
            rows[:, i] = np.round(rows[:, i])
        if spec.nullable:
            rows[generator.random(number) < 1 / 8, i] = np.nan
    return rows


def _perverse_outcomes(schema: Schema, rows: Floats, seed: int) -> npt.NDArray[np.int64]:
    """Outcomes that contradict most of what the schema promises, so that the promises bind."""
    generator = np.random.default_rng(seed)
    log_odds = np.full(len(rows), -1.0)
    for i, spec in enumerate(schema.fields):
        low, high = _range(spec)
        place = np.nan_to_num((rows[:, i] - low) / (high - low), nan=0.5)
        weight = {"increasing": -2.0, "decreasing": 2.0, "none": 1.0}[spec.direction]
        # A hump as well: a tree would follow it in both directions.
        log_odds += weight * (place - 0.5) + 1.5 * np.sin(9 * place)
    chance = 1.0 / (1.0 + np.exp(-(log_odds - log_odds.mean()) / 2))
    outcomes: npt.NDArray[np.int64] = (generator.random(len(rows)) < chance).astype(np.int64)
    return outcomes


@cache
def _fitted(name: str, estimator: EstimatorName, seed: int = 3) -> Pipeline:
    schema = _schema(name)
    rows = _applicants(schema, 800, seed=1)
    built = pipeline.build(schema, estimator, PARAMETERS[estimator], seed)
    return built.fit(frame(rows, schema), _perverse_outcomes(schema, rows, seed=2))


def _pds(fitted: Pipeline, rows: Floats, schema: Schema) -> Floats:
    pds: Floats = fitted.predict_proba(frame(rows, schema))[:, 1]
    return pds


def _swept(schema: Schema, field: int, rows: Floats, steps: int = 25) -> Floats:
    """Each row ``steps`` times, the field rising from its lowest to its highest value."""
    spec = schema.fields[field]
    low, high = _range(spec)
    whole = spec.is_category or spec.type == "integer"
    values = np.linspace(low, high, int(min(steps, high - low + 1)) if whole else steps)
    if whole:
        values = np.unique(np.round(values))
    swept = np.repeat(rows[:, None, :], len(values), axis=1)
    swept[:, :, field] = values
    return swept


@pytest.mark.parametrize("estimator", estimators())
@pytest.mark.parametrize("name", SCHEMAS)
def test_raising_a_field_moves_the_pd_only_in_the_promised_direction(
    name: str, estimator: EstimatorName
) -> None:
    """All else equal, ratios that follow from the field included, whatever the data wanted."""
    schema = _schema(name)
    fitted = _fitted(name, estimator)
    rows = _applicants(schema, 30, seed=4)
    promised = [i for i, spec in enumerate(schema.fields) if spec.direction != "none"]
    assert promised

    for i in promised:
        swept = _swept(schema, i, rows)
        pds = _pds(fitted, swept.reshape(-1, len(schema.fields)), schema).reshape(swept.shape[:2])
        sign = 1.0 if schema.fields[i].direction == "increasing" else -1.0
        steps = sign * np.diff(pds, axis=1)
        assert steps.min() >= -NOISE, schema.fields[i].name


@pytest.mark.parametrize("estimator", estimators())
def test_a_field_without_a_promise_moves_the_pd_as_the_data_say(estimator: EstimatorName) -> None:
    """The sweep of the test above sees movement where it is allowed."""
    schema = _schema(toys.NAME)
    income = schema.index["income"]
    swept = _swept(schema, income, _applicants(schema, 30, seed=4))
    shape = swept.shape[:2]

    pds = _pds(_fitted(toys.NAME, estimator), swept.reshape(-1, len(schema.fields)), schema)

    steps = np.diff(pds.reshape(shape), axis=1)
    assert np.abs(steps).max() > 0.001


@pytest.mark.parametrize("estimator", estimators())
def test_a_field_behind_a_ratio_moves_it_along(estimator: EstimatorName) -> None:
    """Price and price to income rise together, so the price may be judged by both."""
    schema = _schema(toys.NAME)
    fitted = _fitted(toys.NAME, estimator)
    row = _applicants(schema, 1, seed=6)
    dearer = row.copy()
    dearer[0, schema.index["price"]] *= 2

    before, after = (fitted[0].transform(frame(r, schema))[0] for r in (row, dearer))

    places = fitted[0].output_indices_
    moved = {name for name, where in places.items() if (before[where] != after[where]).any()}
    assert {name.removesuffix("_ramps") for name in moved} == {"price", "price_to_income"}


def test_without_a_bound_that_binds_the_coefficients_are_scikit_learns() -> None:
    """The same penalty, the same loss, the same optimum."""
    generator = np.random.default_rng(0)
    columns = generator.normal(size=(800, 4))
    chance = 1 / (1 + np.exp(-(columns @ [1.0, -0.7, 0.4, 0.0] - 0.5)))
    labels = (generator.random(800) < chance).astype(int)

    for strength in (0.01, 1.0, 100.0):
        ours = MonotoneLogisticRegression((1, -1, 0, 0), C=strength).fit(columns, labels)
        theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(columns, labels)

        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-5)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=2e-5)
        np.testing.assert_allclose(
            ours.decision_function(columns), theirs.decision_function(columns), atol=1e-4
        )
        assert (ours.predict(columns) == theirs.predict(columns)).all()


def test_a_bound_that_binds_leaves_the_others_as_if_the_column_were_not_there() -> None:
    """A coefficient of the wrong sign becomes 0, and the rest is fitted without it."""
    generator = np.random.default_rng(0)
    columns = generator.normal(size=(800, 3))
    chance = 1 / (1 + np.exp(-(columns @ [1.0, -0.7, 0.4])))
    labels = (generator.random(800) < chance).astype(int)

    bounded = MonotoneLogisticRegression((1, 1, 0)).fit(columns, labels)
    without = LogisticRegression(tol=1e-10).fit(columns[:, [0, 2]], labels)

    assert bounded.coef_[0, 1] == 0
    np.testing.assert_allclose(bounded.coef_[0, [0, 2]], without.coef_[0], atol=2e-5)


def test_the_labels_of_a_logistic_regression_may_be_any_two() -> None:
    """The second of them is the risk."""
    columns = np.array([[0.0], [1.0], [2.0], [3.0]])

    fitted = MonotoneLogisticRegression((0,)).fit(columns, np.array([0, 0, 1, 1]) * 7)

    assert fitted.classes_.tolist() == [0, 7]
    assert fitted.predict(columns).tolist() == [0, 0, 7, 7]


def test_a_margin_is_what_xgboost_adds_up_but_added_in_float64() -> None:
    """XGBoost's own float32 sum differs in the last digits only."""
    generator = np.random.default_rng(0)
    columns = generator.normal(size=(300, 3)).astype(np.float32)
    labels = (columns[:, 0] > 0).astype(int)
    fitted = MarginXGBClassifier(n_estimators=90, base_score=0.5, n_jobs=1).fit(columns, labels)

    margins = fitted.decision_function(columns)

    assert margins.dtype == np.float64
    np.testing.assert_allclose(margins, fitted.predict(columns, output_margin=True), atol=1e-4)
    assert (np.abs(margins) > 1).all()


@pytest.mark.parametrize("estimator", estimators())
def test_a_category_that_training_never_saw_is_no_category(estimator: EstimatorName) -> None:
    """All its one-hot columns are 0; the answer is a probability like any other."""
    schema = _schema(toys.NAME)
    fitted = _fitted(toys.NAME, estimator)
    unseen = frame(_applicants(schema, 5, seed=8), schema)
    unseen["use"] = "freight"

    columns = fitted[0].transform(unseen)
    pds = fitted.predict_proba(unseen)[:, 1]

    assert (columns[:, fitted[0].output_indices_["use"]] == 0).all()
    assert np.isfinite(columns).all()
    assert ((pds > 0) & (pds < 1)).all()


@pytest.mark.parametrize("estimator", estimators())
def test_one_seed_gives_one_model(estimator: EstimatorName) -> None:
    """Fitted twice, the probabilities are the same to the last bit."""
    schema = _schema(toys.NAME)
    rows = _applicants(schema, 200, seed=9)
    first = _pds(_fitted(toys.NAME, estimator), rows, schema)
    _fitted.cache_clear()

    second = _pds(_fitted(toys.NAME, estimator), rows, schema)

    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("estimator", estimators())
def test_another_seed_gives_another_model(estimator: EstimatorName) -> None:
    """Folds of the calibration, at least, are drawn by it."""
    schema = _schema(toys.NAME)
    rows = _applicants(schema, 200, seed=9)

    one, other = (_pds(_fitted(toys.NAME, estimator, seed), rows, schema) for seed in (3, 4))

    assert (one != other).any()


@pytest.mark.parametrize("estimator", estimators())
def test_probabilities_are_calibrated_out_of_fold(estimator: EstimatorName) -> None:
    """On fresh rows of the same kind the mean PD is the default rate, and it ranks them."""
    table = leases.labelled(3_000, seed=1)
    fresh = leases.labelled(3_000, seed=2)
    built = pipeline.build(toys.schema(), estimator, PARAMETERS[estimator], 3)
    fitted = built.fit(table.drop(columns="late"), table["late"])

    pds = fitted.predict_proba(fresh.drop(columns="late"))[:, 1]

    assert pds.mean() == pytest.approx(fresh["late"].mean(), abs=0.02)
    top = np.argsort(pds)[-300:]
    assert fresh["late"].to_numpy()[top].mean() == pytest.approx(pds[top].mean(), abs=0.12)
    assert fresh["late"].to_numpy()[top].mean() > 2 * fresh["late"].mean()


@pytest.mark.parametrize("estimator", estimators())
def test_a_field_that_nobody_states_does_not_stop_training(estimator: EstimatorName) -> None:
    """Its column is constant; a value stated later is taken as it comes."""
    table = leases.labelled(400)
    table["years_employed"] = np.nan
    built = pipeline.build(toys.schema(), estimator, PARAMETERS[estimator], 3)

    fitted = built.fit(table.drop(columns="late"), table["late"])

    later = leases.labelled(5, seed=9).drop(columns="late")
    assert np.isfinite(fitted.predict_proba(later)).all()


def test_the_columns_are_what_the_schema_says() -> None:
    """Imputed, logged, ordered, one-hot and divided; ramps for logistic regression alone."""
    table = leases.labelled(301)
    features, labels = table.drop(columns="late"), table["late"]
    plain, ramps = (
        pipeline.build(toys.schema(), estimator, PARAMETERS[estimator], 3)
        .fit(features, labels)[:-1]
        .transform(features)
        for estimator in ("random-forest", "logistic-regression")
    )

    assert plain.dtype == np.float32
    assert plain.shape == (301, 10)
    median = table["years_employed"].median()
    expected = [
        table["age"],
        np.log1p(table["income"]),
        table["price"],
        table["years_employed"].fillna(median),
        table["years_employed"].isna(),
        table["history"].map({"good": 0, "mixed": 1, "poor": 2}),
        *[table["use"] == use for use in ("cargo", "commuting", "racing")],
        table["price"] / table["income"],
    ]
    for place, column in enumerate(expected):
        np.testing.assert_array_equal(plain[:, place], np.asarray(column, dtype=np.float32))
    wide = pipeline.RAMPS
    places = [4 * wide, *(5 * wide + 1 + use for use in range(3))]
    numeric = np.delete(ramps, places, axis=1)
    assert numeric.shape == (301, 6 * wide)
    assert (numeric.min(), numeric.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(ramps[:, places], plain[:, [4, *USES]])


def test_a_linear_model_of_ramps_bends_at_the_quantiles_and_nowhere_jumps() -> None:
    """Level below the least and above the greatest value it was fitted to."""
    ramps = pipeline.Ramps(4).fit(np.arange(101.0).reshape(-1, 1))

    made = ramps.transform(np.array([[-50.0], [0.0], [10.0], [25.0], [60.0], [100.0], [1e9]]))

    assert ramps.edges_.tolist() == [0, 25, 50, 75, 100]
    expected = np.array(
        [
            [0, 0, 0, 0],
            [0, 0, 0, 0],
            [0.4, 0, 0, 0],
            [1, 0, 0, 0],
            [1, 1, 0.4, 0],
            [1, 1, 1, 1],
            [1, 1, 1, 1],
        ]
    )
    np.testing.assert_allclose(made, expected)


@pytest.mark.parametrize("values", [[0.0, 1.0], [3.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0]])
def test_a_column_of_few_values_has_as_many_ramps_as_any_other(values: list[float]) -> None:
    """Those that are left over never rise, so that each column keeps its sign."""
    table = np.array(values).reshape(-1, 1)

    made = pipeline.Ramps(5).fit(table).transform(table)

    assert made.shape == (len(values), 5)
    assert (made.max(axis=0) > 0).sum() == len(set(values)) - 1


def test_a_forests_score_is_the_mean_of_its_trees_log_odds() -> None:
    """Worked out from each tree's own shares; a leaf of one outcome alone stays finite."""
    table = leases.labelled(400)
    features = table[["age", "price"]].to_numpy(dtype=np.float32)
    forest = pipeline.LogOddsForestClassifier(n_estimators=7, max_depth=6, random_state=3)
    forest.fit(features, table["late"])
    shares = np.array([tree.predict_proba(features)[:, 1] for tree in forest.estimators_])
    assert shares.min() == 0.0

    score = forest.decision_function(features)

    held = np.clip(shares, pipeline.PUREST_SHARE, 1 - pipeline.PUREST_SHARE)
    np.testing.assert_allclose(score, np.log(held / (1 - held)).mean(axis=0), atol=1e-12)


def test_a_category_that_may_be_missing_counts_as_the_most_frequent_one() -> None:
    """In training and later, whether or not training saw one missing."""
    schema = documents.parse(
        Schema,
        toys.SCHEMA.replace(
            "categories: [cargo, commuting, racing]",
            "nullable: true\n    categories: [cargo, commuting, racing]",
        ),
        "schema.yaml",
    )
    table = leases.labelled(400)
    table.loc[::7, "use"] = None
    fitted = pipeline.build(schema, "random-forest", PARAMETERS["random-forest"], 3).fit(
        table.drop(columns="late"), table["late"]
    )
    row = leases.labelled(1).drop(columns="late").assign(use="commuting")

    missing = fitted.predict_proba(row.assign(use=np.array([np.nan], dtype=object)))

    assert (missing == fitted.predict_proba(row)).all()
