"""The model that decides: log-odds of default, and how each factor contributed.

Whatever the estimator, the served PD is ``1 / (1 + exp(-(slope * score + intercept)))``, where
``score`` is what the estimator adds up (the margin of boosted trees, the mean log-odds of a random
forest's leaves, the linear predictor, a network's last unit) and slope and intercept are its
sigmoid calibration (Platt 1999), fitted out of fold. Calibration is affine in log-odds, so
contributions to the score times the slope are exact contributions to the *calibrated* log-odds: the
model explained is the model that decides.

Four kinds of `Model` exist: trees, linear, a feed-forward network, and a user's own scikit-learn
pipeline (``credit_risk.pipeline_model``, loaded only when a package holds one).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
from pydantic import Field, FiniteFloat

from credit_risk import network, shapley, trees
from credit_risk.documents import Document
from credit_risk.encoder import Encoder
from credit_risk.errors import ExplanationFailed, PackageInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from credit_risk.encoder import Plan
    from credit_risk.schema import Schema

    Floats = npt.NDArray[np.float64]

ADDITIVITY_TOLERANCE = 1e-6
"""Largest difference, in log-odds, between the score and what its explanation adds up to."""


class Calibration(Document):
    """PD = expit(slope * score + intercept); a positive slope keeps the estimator's order."""

    slope: Annotated[FiniteFloat, Field(gt=0.0)]
    intercept: FiniteFloat


class Linear(Document):
    """A linear predictor over the encoder's columns."""

    coefficients: tuple[FiniteFloat, ...]
    intercept: FiniteFloat


class ModelSpec(Document):
    """``model.json``: everything about the model that is not a large array.

    ``pipeline`` models have neither encoder nor calibration of ours: the pipeline is all.
    """

    kind: Literal["trees", "linear", "network", "pipeline"]
    estimator: str
    encoder: Encoder | None = None
    calibration: Calibration | None = None
    linear: Linear | None = None


class Model(Protocol):
    """What scoring needs of a model. Rows are applications as numbers, see `Schema.vector`."""

    @property
    def base_value(self) -> float:
        """Mean log-odds of the reference group."""

    @property
    def method(self) -> str:
        """How contributions are computed, for the record."""

    @property
    def reference_rows(self) -> int:
        """How many rows of the reference group contributions are measured against."""

    @property
    def slow(self) -> bool:
        """Whether a row takes milliseconds, so that nothing else may wait for it."""

    def log_odds(self, rows: Floats) -> Floats:
        """Calibrated log-odds of default, shape (n,), for rows of shape (n, fields)."""

    def contributions(self, rows: Floats) -> Floats:
        """Contributions of each field to the log-odds, shape (n, fields).

        They are interventional Shapley values against the package's reference group.
        """


@dataclass(frozen=True, slots=True)
class TreesModel:
    """Tree ensembles, explained from what was counted of the reference group."""

    plan: Plan
    calibration: Calibration
    scorer: trees.Scorer
    shapley: shapley.Tables | shapley.Counting
    reference_rows: int

    @property
    def base_value(self) -> float:  # noqa: D102 - see `Model`
        return self.calibration.slope * self.shapley.base + self.calibration.intercept

    @property
    def method(self) -> str:  # noqa: D102
        return self.shapley.method

    @property
    def slow(self) -> bool:  # noqa: D102
        return isinstance(self.shapley, shapley.Counting)

    def log_odds(self, rows: Floats) -> Floats:  # noqa: D102
        margins = self.scorer.margins(self.plan.encode(rows))
        return self.calibration.slope * margins + self.calibration.intercept

    def contributions(self, rows: Floats) -> Floats:  # noqa: D102
        return self.calibration.slope * self.shapley.contributions(self.plan.encode(rows))


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Linear models: a column's Shapley value is its coefficient times its distance from the mean.

    Closed form of the interventional value (Lundberg and Lee 2017, corollary 1).
    """

    plan: Plan
    calibration: Calibration
    coefficients: Floats
    intercept: float
    means: Floats
    to_factor: Floats
    reference_rows: int

    @property
    def base_value(self) -> float:  # noqa: D102 - see `Model`
        mean_score = float(self.means @ self.coefficients) + self.intercept
        return self.calibration.slope * mean_score + self.calibration.intercept

    @property
    def method(self) -> str:  # noqa: D102
        return "interventional Shapley values, exact, in closed form for a linear model"

    @property
    def slow(self) -> bool:  # noqa: D102
        return False

    def log_odds(self, rows: Floats) -> Floats:  # noqa: D102
        columns = self.plan.encode(rows).astype(np.float64)
        # Not a matrix product, which adds up one row otherwise than many.
        score = (columns * self.coefficients).sum(axis=1) + self.intercept
        log_odds: Floats = self.calibration.slope * score + self.calibration.intercept
        return log_odds

    def contributions(self, rows: Floats) -> Floats:  # noqa: D102
        columns = self.plan.encode(rows).astype(np.float64)
        values: Floats = ((columns - self.means) * self.coefficients) @ self.to_factor
        return self.calibration.slope * values


@dataclass(frozen=True, slots=True)
class NetworkModel:
    """Feed-forward networks, explained by playing every coalition against a few reference rows."""

    plan: Plan
    calibration: Calibration
    explainer: network.Explainer

    @property
    def base_value(self) -> float:  # noqa: D102 - see `Model`
        return self.calibration.slope * self.explainer.base + self.calibration.intercept

    @property
    def method(self) -> str:  # noqa: D102
        return (
            "interventional Shapley values, exact, by every coalition of fields against "
            f"{self.reference_rows} rows"
        )

    @property
    def reference_rows(self) -> int:  # noqa: D102
        return len(self.explainer.reference)

    @property
    def slow(self) -> bool:  # noqa: D102
        return True

    def log_odds(self, rows: Floats) -> Floats:  # noqa: D102
        scores = self.explainer.network.scores(self.plan.encode(rows))
        return self.calibration.slope * scores + self.calibration.intercept

    def contributions(self, rows: Floats) -> Floats:  # noqa: D102
        return self.calibration.slope * self.explainer.contributions(self.plan.encode(rows))


def count_reference(
    spec: ModelSpec,
    schema: Schema,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    reference: Floats,
) -> dict[str, npt.NDArray[np.generic]]:
    """What a package keeps of its reference group for explaining trees, for `build`.

    Raises:
        PackageInvalid: parts are missing or do not fit each other, or the trees are too deep.
    """
    plan, _ = _plan(spec, schema)
    columns = plan.encode(reference)
    ensemble = trees.from_arrays(arrays, columns.shape[1])
    return shapley.count(ensemble, columns, plan.players).arrays()


def build(
    spec: ModelSpec,
    schema: Schema,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    reference: Floats,
    counted: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> Model:
    """Put a model of ours together.

    Args:
        spec: from ``model.json``.
        schema: the portfolio's schema.
        arrays: the ensemble's or the network's arrays; empty for a linear model.
        reference: the reference group, shape (m, fields).
        counted: arrays of the group's `shapley.Counts`; without them it is counted here.

    Raises:
        PackageInvalid: parts are missing or do not fit each other.
    """
    plan, calibration = _plan(spec, schema)
    factors = len(schema.fields)
    columns = plan.encode(reference)
    if spec.kind == "trees":
        ensemble = trees.from_arrays(arrays, columns.shape[1])
        if counted is None:
            counts = shapley.count(ensemble, columns, plan.players)
        else:
            counts = shapley.counts_from_arrays(counted, ensemble, plan.players)
        if counts.rows != len(reference):
            msg = "explanation: the counts are of a reference group of another size"
            raise PackageInvalid(msg)
        prepared = shapley.prepare(ensemble, counts, plan.factors, factors, plan.players)
        scorer = trees.scorer(ensemble)
        return TreesModel(plan, calibration, scorer, prepared, len(reference))
    if spec.kind == "network":
        net = network.from_arrays(arrays)
        if net.columns != columns.shape[1]:
            msg = "network: it takes another number of columns than the encoder makes"
            raise PackageInvalid(msg)
        return NetworkModel(
            plan, calibration, network.explainer(net, columns, plan.factors, factors)
        )
    if spec.linear is None or len(spec.linear.coefficients) != columns.shape[1]:
        msg = "model: a linear model needs one coefficient for each column"
        raise PackageInvalid(msg)
    to_factor = np.zeros((columns.shape[1], factors))
    to_factor[np.arange(columns.shape[1]), plan.factors] = 1.0
    return LinearModel(
        plan,
        calibration,
        np.array(spec.linear.coefficients),
        spec.linear.intercept,
        columns.astype(np.float64).mean(axis=0),
        to_factor,
        len(reference),
    )


def unlocked(model: Model) -> Model:
    """The same model, scoring without the interpreter's lock where it can: for bulk work."""
    if isinstance(model, TreesModel):
        scorer = replace(model.scorer, unlocked=True)
        return replace(model, plan=model.plan.unlocked(), scorer=scorer)
    if isinstance(model, LinearModel | NetworkModel):
        return replace(model, plan=model.plan.unlocked())
    return model


def _plan(spec: ModelSpec, schema: Schema) -> tuple[Plan, Calibration]:
    if spec.encoder is None or spec.calibration is None:
        msg = f"model: a {spec.kind} model needs an encoder and a calibration"
        raise PackageInvalid(msg)
    return spec.encoder.plan(schema), spec.calibration


def probability(log_odds: Floats) -> Floats:
    """The logistic function, without overflow at either end."""
    e = np.exp(-np.abs(log_odds))
    probabilities: Floats = np.where(log_odds >= 0, 1.0, e) / (1.0 + e)
    return probabilities


def check_additivity(log_odds: Floats, base_value: float, contributions: Floats) -> None:
    """Check that every explanation adds up to the score it explains.

    Args:
        log_odds: shape (n,).
        base_value: mean log-odds of the reference group.
        contributions: shape (n, fields).

    Raises:
        ExplanationFailed: a row is off by more than `ADDITIVITY_TOLERANCE`, or is not a number.
    """
    gap = np.abs(base_value + contributions.sum(axis=1) - log_odds)
    # Written so that NaN fails too.
    if not (gap <= ADDITIVITY_TOLERANCE).all():
        msg = f"contributions miss the score by {float(gap.max()):.3g} log-odds"
        raise ExplanationFailed(msg)
