"""The scikit-learn pipeline: all preparation and the calibrated estimator, derived from the schema.

Training and serving cannot differ: the pipeline is the only definition of the model's columns,
and what the server runs is compiled from the fitted pipeline (see ``compilation``), then compared
with it row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.utils.validation import check_is_fitted
from xgboost import XGBClassifier

from credit_risk.training.network import NetworkClassifier

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from credit_risk.schema import Schema
    from credit_risk.training.settings import EstimatorName

    Floats = npt.NDArray[np.float64]

CALIBRATION_FOLDS = 5
TREES_PER_BLOCK = 20
PUREST_SHARE = 0.002
"""A forest's leaf of one outcome alone counts as this share of the other."""
RAMPS = 5
"""Into how many ramps a linear model's numbers are parted."""
NETWORK_RAMPS = 20
"""Into how many a network's are, which sees them scaled as well."""
THREADS = 2
"""Fixed, not the number of cores: float sums depend on how many threads share them."""

_SIGN = {"increasing": 1, "decreasing": -1, "none": 0}


def divide(columns: npt.NDArray[Any]) -> Floats:
    """First column over the second, shape (n, 1)."""
    table = np.asarray(columns, dtype=np.float64)
    ratio: Floats = table[:, :1] / table[:, 1:2]
    return ratio


def as_float32(columns: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """What every estimator is given, in training and in the server alike."""
    return np.asarray(columns, dtype=np.float32)


class MarginXGBClassifier(XGBClassifier):
    """XGBoost whose ``decision_function`` is the margin, so that calibration is on log-odds."""

    def decision_function(self, X: npt.NDArray[np.float32]) -> Floats:
        """Margin (uncalibrated log-odds), shape (n,).

        XGBoost adds up in float32, which over hundreds of trees loses the sixth decimal; the
        trees are summed in blocks, and the blocks in float64.
        """
        trees = self.get_booster().num_boosted_rounds()
        margin = np.zeros(len(X))
        for first in range(0, trees, TREES_PER_BLOCK):
            block = (first, min(first + TREES_PER_BLOCK, trees))
            margin += self.predict(X, output_margin=True, iteration_range=block)
        return margin


class LogOddsForestClassifier(RandomForestClassifier):  # type: ignore[misc]
    """Random forest whose ``decision_function`` is the mean of its trees' log-odds.

    A sigmoid fits that better than the mean of their probabilities, which hardly reaches 0 and 1.
    Trees are added up in their order: scikit-learn adds each as its thread finishes, so the last
    digits, the calibration fitted on them and with it the package version would be another in
    every run.
    """

    def decision_function(self, X: npt.NDArray[np.float32]) -> Floats:
        """Mean log-odds of the leaves, shape (n,)."""
        check_is_fitted(self)
        total = np.zeros(len(X))
        for tree in self.estimators_:
            total += leaf_log_odds(tree.tree_)[tree.apply(X)]
        return total / len(self.estimators_)


def leaf_log_odds(tree: Any) -> Floats:  # noqa: ANN401 - scikit-learn's compiled tree
    """Log-odds of the share of defaults in each node, shape (nodes,).

    A share is taken for no nearer to 0 or 1 than `PUREST_SHARE`; it would be infinite otherwise.
    """
    counts = tree.value[:, 0, :]
    share = counts[:, 1] / counts.sum(axis=1)
    log_odds: Floats = logit(np.clip(share, PUREST_SHARE, 1.0 - PUREST_SHARE))
    return log_odds


class Ramps(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One column as several, each rising from 0 to 1 over its part of the range.

    The parts meet at quantiles. A linear model of ramps is piecewise linear in the column and
    constant beyond the values it was fitted to; it rises or falls throughout where all its
    coefficients have one sign, so a direction is still a sign for each column.
    """

    def __init__(self, parts: int = RAMPS) -> None:
        self.parts = parts

    def fit(self, X: npt.NDArray[Any], y: object = None) -> Ramps:  # noqa: ARG002 - its interface
        """Find the edges of the parts; ``X`` has one column and no missing value."""
        (values,) = np.asarray(X, dtype=np.float64).T
        at = np.linspace(0.0, 1.0, self.parts + 1)
        edges = np.unique(np.quantile(values, at, method="inverted_cdf"))
        # Few distinct values have fewer parts. The others lie beyond the greatest, where nothing
        # rises: the number of columns, and so their signs, must not depend on the data.
        beyond = edges[-1] + 1.0 + np.arange(self.parts + 1 - len(edges))
        self.edges_ = np.append(edges, beyond)
        return self

    def transform(self, X: npt.NDArray[Any]) -> Floats:
        """Shape (n, parts), between 0 and 1."""
        check_is_fitted(self)
        lower, upper = self.edges_[:-1], self.edges_[1:]
        values = np.asarray(X, dtype=np.float64)
        ramps: Floats = np.clip((values - lower) / (upper - lower), 0.0, 1.0)
        return ramps


_Shapes = tuple[tuple[str, TransformerMixin | None, int], ...]
_AS_THEY_ARE: _Shapes = (("", None, 1),)
"""For trees, which find their own edges."""
_SHAPES: dict[str, _Shapes] = {
    "logistic-regression": (("", Ramps(RAMPS), RAMPS),),
    "neural-network": (
        ("", StandardScaler(), 1),
        ("_ramps", Ramps(NETWORK_RAMPS), NETWORK_RAMPS),
    ),
}


class MonotoneLogisticRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression with an L2 penalty and a sign for each coefficient.

    Minimises ``sum(log(1 + exp(-y s))) + |w|^2 / (2 C)`` with ``w_j >= 0`` where the sign is 1
    and ``w_j <= 0`` where it is -1 (scikit-learn's own has no such bounds).
    """

    def __init__(self, signs: tuple[int, ...], C: float = 1.0) -> None:  # noqa: N803
        self.signs = signs
        self.C = C

    def fit(self, X: npt.NDArray[Any], y: npt.NDArray[Any]) -> MonotoneLogisticRegression:
        """Fit on columns of comparable scale."""
        columns = np.asarray(X, dtype=np.float64)
        self.classes_ = np.unique(y)
        labels = np.where(np.asarray(y) == self.classes_[1], 1.0, 0.0)

        def loss(parameters: Floats) -> tuple[float, Floats]:
            w, b = parameters[:-1], parameters[-1]
            score = columns @ w + b
            penalised = np.logaddexp(0.0, score).sum() - labels @ score + w @ w / (2 * self.C)
            slack = expit(score) - labels
            return float(penalised), np.append(columns.T @ slack + w / self.C, slack.sum())

        bounds = [(0.0 if s > 0 else None, 0.0 if s < 0 else None) for s in self.signs] + [
            (None, None)
        ]
        start = np.zeros(columns.shape[1] + 1)
        found = minimize(
            loss,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-8},
        )
        self.coef_ = found.x[:-1].reshape(1, -1)
        self.intercept_ = found.x[-1:]
        return self

    def decision_function(self, X: npt.NDArray[Any]) -> Floats:
        """Linear predictor, shape (n,)."""
        check_is_fitted(self)
        score: Floats = np.asarray(X, dtype=np.float64) @ self.coef_[0] + self.intercept_[0]
        return score

    def predict(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The more probable class."""
        classes: npt.NDArray[Any] = self.classes_[(self.decision_function(X) > 0).astype(int)]
        return classes


def build(
    schema: Schema, estimator: EstimatorName, parameters: dict[str, Any], seed: int
) -> Pipeline:
    """The unfitted pipeline: from a frame of the schema's fields to calibrated probabilities.

    Args:
        schema: fields, transforms, derived ratios and directions.
        estimator: which one.
        parameters: its own parameters, from ``training.yaml``.
        seed: for everything random.
    """
    columns, signs = _columns(schema, _SHAPES.get(estimator, _AS_THEY_ARE))
    return Pipeline(
        [
            ("columns", columns),
            ("float32", FunctionTransformer(as_float32)),
            (
                "model",
                CalibratedClassifierCV(
                    _ESTIMATORS[estimator](signs, parameters, seed),
                    method="sigmoid",
                    ensemble=False,
                    cv=StratifiedKFold(CALIBRATION_FOLDS, shuffle=True, random_state=seed),
                ),
            ),
        ]
    )


def _columns(schema: Schema, shapes: _Shapes) -> tuple[ColumnTransformer, tuple[int, ...]]:
    """The preparation, and the monotone sign of each column it makes.

    Every number takes each of these shapes: a suffix to its name, what is made of it, and how many
    columns that are.
    """
    parts: list[tuple[str, Pipeline, list[str]]] = []
    signs: list[int] = []

    def add(name: str, steps: list[tuple[str, Any]], fields: list[str], sign: int) -> None:
        for suffix, shape, width in shapes:
            shaped = [*steps, *([("shape", shape)] if shape is not None else [])]
            parts.append((f"{name}{suffix}", clone(Pipeline(shaped)), fields))
            signs.extend([sign] * width)

    for spec in schema.fields:
        sign = _SIGN[spec.direction]
        steps: list[tuple[str, Any]]
        if not spec.is_category:
            steps = [("impute", _median())]
            if spec.transform == "log":
                steps.append(("log", FunctionTransformer(np.log1p)))
            add(spec.name, steps, [spec.name], sign)
        elif spec.ordered:
            encode = OrdinalEncoder(
                categories=[list(spec.categories)],
                handle_unknown="use_encoded_value",
                unknown_value=-1,
            )
            add(spec.name, [("impute", _most_frequent()), ("encode", encode)], [spec.name], sign)
        else:
            one_hot = OneHotEncoder(
                categories=[list(spec.categories)], handle_unknown="ignore", sparse_output=False
            )
            whole = Pipeline([("impute", _most_frequent()), ("encode", one_hot)])
            parts.append((spec.name, whole, [spec.name]))
            signs += [0] * len(spec.categories)
        if spec.missing_indicator:
            indicator = Pipeline([("missing", MissingIndicator(features="all"))])
            parts.append((f"{spec.name}_missing", indicator, [spec.name]))
            signs.append(0)
    for derived in schema.derived:
        steps = [("impute", _median()), ("ratio", FunctionTransformer(divide))]
        fields = [derived.ratio.numerator, derived.ratio.denominator]
        add(derived.name, steps, fields, _SIGN[derived.direction])
    return ColumnTransformer(parts, sparse_threshold=0.0), tuple(signs)


# A field that no row states keeps its column, or columns and their signs would not match.
def _median() -> SimpleImputer:
    return SimpleImputer(strategy="median", keep_empty_features=True)


def _most_frequent() -> SimpleImputer:
    return SimpleImputer(strategy="most_frequent", keep_empty_features=True)


def _xgboost(signs: tuple[int, ...], parameters: dict[str, Any], seed: int) -> Any:  # noqa: ANN401
    # base_score: XGBoost's own estimate is stored rounded to four digits; 0.5 is exact.
    return MarginXGBClassifier(
        monotone_constraints=signs,
        random_state=seed,
        n_jobs=THREADS,
        base_score=0.5,
        tree_method="hist",
        **parameters,
    )


def _logistic(signs: tuple[int, ...], parameters: dict[str, Any], seed: int) -> Any:  # noqa: ANN401, ARG001
    return MonotoneLogisticRegression(signs, **parameters)


def _forest(signs: tuple[int, ...], parameters: dict[str, Any], seed: int) -> Any:  # noqa: ANN401
    return LogOddsForestClassifier(
        monotonic_cst=list(signs), random_state=seed, n_jobs=THREADS, **parameters
    )


def _boosting(signs: tuple[int, ...], parameters: dict[str, Any], seed: int) -> Any:  # noqa: ANN401
    return HistGradientBoostingClassifier(
        monotonic_cst=list(signs), random_state=seed, early_stopping=False, **parameters
    )


def _network(signs: tuple[int, ...], parameters: dict[str, Any], seed: int) -> Any:  # noqa: ANN401
    return NetworkClassifier(signs, seed=seed, **parameters)


_ESTIMATORS: dict[str, Callable[[tuple[int, ...], dict[str, Any], int], Any]] = {
    "xgboost": _xgboost,
    "logistic-regression": _logistic,
    "random-forest": _forest,
    "gradient-boosting": _boosting,
    "neural-network": _network,
}
