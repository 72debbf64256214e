"""From a fitted scikit-learn pipeline to the package's formats that need no scikit-learn.

`compile_pipeline` reads the fitted steps it knows and writes them as data: an encoder, a
calibration, and the trees' nodes or a linear predictor. A step it does not know raises
`NotCompilable`; the pipeline is then packaged as it is and served through scikit-learn.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from xgboost import XGBClassifier

from credit_risk.encoder import Column, Encoder
from credit_risk.errors import CreditRiskError
from credit_risk.model import Calibration, Linear, ModelSpec
from credit_risk.schema import UNSEEN
from credit_risk.training.network import NetworkClassifier
from credit_risk.training.pipeline import (
    LogOddsForestClassifier,
    MonotoneLogisticRegression,
    Ramps,
    as_float32,
    divide,
    leaf_log_odds,
)
from credit_risk.training.rounding import rounded
from credit_risk.trees import LEAF, Ensemble

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.schema import FieldSpec, Schema


_SPLIT = 0.5
"""Between the 0 of a lookup, left, and its 1, right."""


class NotCompilable(CreditRiskError):
    """The pipeline has a part that has no equivalent in the package's formats."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """``model.json`` and the arrays of the trees or the network."""

    spec: ModelSpec
    arrays: dict[str, npt.NDArray[np.generic]]


def compile_pipeline(pipeline: Pipeline, schema: Schema, estimator: str) -> Compiled:
    """Compile a fitted pipeline ``ColumnTransformer -> [float32] -> classifier``.

    Args:
        pipeline: fitted, of two classes with labels 0 and 1.
        schema: names the fields the column transformer reads.
        estimator: the estimator's name for the record.

    Raises:
        NotCompilable: names the step that has no equivalent.
    """
    steps = [step for _, step in pipeline.steps]
    casts = [s for s in steps[1:-1] if _applies(s, as_float32)]
    if not isinstance(steps[0], ColumnTransformer) or len(casts) != len(steps) - 2:
        msg = "the pipeline is not a ColumnTransformer followed by a classifier"
        raise NotCompilable(msg)
    if steps[0].transformer_weights:
        msg = "ColumnTransformer(transformer_weights=...)"
        raise NotCompilable(msg)
    columns = _columns(steps[0], schema)
    classifier, calibration = _calibration(steps[-1])
    if isinstance(classifier, XGBClassifier) and steps[0].sparse_output_:
        msg = "XGBoost on a sparse matrix, whose zeros it takes for missing values"
        raise NotCompilable(msg)
    if isinstance(classifier, (MonotoneLogisticRegression, LogisticRegression)):
        linear = Linear(
            coefficients=tuple(classifier.coef_[0].tolist()),
            intercept=float(classifier.intercept_[0]),
        )
        spec = ModelSpec(
            kind="linear", estimator=estimator, encoder=Encoder(columns=tuple(columns)),
            calibration=calibration, linear=linear,
        )  # fmt: skip
        return Compiled(_rounded(spec), {})
    if isinstance(classifier, NetworkClassifier):
        spec = ModelSpec(
            kind="network", estimator=estimator, encoder=Encoder(columns=tuple(columns)),
            calibration=calibration,
        )  # fmt: skip
        return Compiled(_rounded(spec), classifier.network().arrays())
    lookups = _Lookups(columns, schema)
    ensemble = _ensemble(
        classifier,
        lookups,
        calibrated=isinstance(steps[-1], CalibratedClassifierCV),
        sees_float32=bool(casts),
    )
    encoder = Encoder(columns=tuple(lookups.columns))
    spec = ModelSpec(kind="trees", estimator=estimator, encoder=encoder, calibration=calibration)
    return Compiled(_rounded(spec), ensemble.arrays())


def _rounded(spec: ModelSpec) -> ModelSpec:
    """As it is stored, so that what is measured is what will decide."""
    return ModelSpec.model_validate(rounded(spec.model_dump()))


def _applies(step: object, function: object) -> bool:
    return isinstance(step, FunctionTransformer) and step.func is function and not step.kw_args


def _columns(transformer: ColumnTransformer, schema: Schema) -> list[Column]:
    by_name = {f.name: f for f in schema.fields}
    ratio_factor = {(d.ratio.numerator, d.ratio.denominator): d for d in schema.derived}
    columns: list[Column] = []
    for name, step, fields in transformer.transformers_:
        if isinstance(step, str) and step == "drop":
            continue
        if name == "remainder":
            msg = "the ColumnTransformer passes unnamed columns through"
            raise NotCompilable(msg)
        parts = [s for _, s in step.steps] if isinstance(step, Pipeline) else [step]
        # What "passthrough" becomes when fitted: a function transformer without a function.
        parts = [part for part in parts if not _applies(part, None)]
        if isinstance(fields, slice):
            msg = f"step {name} names its columns by a slice"
            raise NotCompilable(msg)
        names = [fields] if isinstance(fields, str) else list(fields)
        unknown = [f for f in names if f not in by_name]
        if unknown:
            msg = f"column {unknown[0]!r} is not a field of the schema"
            raise NotCompilable(msg)
        if len(parts) > 1 and _applies(parts[1], divide):
            derived = ratio_factor.get((names[0], names[1]))
            factor = derived.factor if derived else names[0]
            columns += _ratio(name, parts, names, factor)
            continue
        for place, field in enumerate(names):
            columns += _field(by_name[field], parts, place)
    looked_up = [c.field for c in columns if c.kind == "lookup"]
    if again := [field for field in looked_up if looked_up.count(field) > 1]:
        # Lookups of one field stand for one column.
        msg = (
            f"{again[0]}: two ordinal encoders that order the categories otherwise than the schema"
        )
        raise NotCompilable(msg)
    return columns


def _ratio(name: str, parts: list[Any], fields: list[str], factor: str) -> list[Column]:
    if not isinstance(parts[0], SimpleImputer):
        msg = f"{name}: a ratio after {type(parts[0]).__name__}"
        raise NotCompilable(msg)
    _marks_nan(parts[0], name)
    fills = parts[0].statistics_
    column = Column(
        name=name,
        kind="ratio",
        field=fields[0],
        factor=factor,
        fill=float(fills[0]),
        denominator=fields[1],
        denominator_fill=float(fills[1]),
    )
    return _scaled(column, parts[2:], 0)


def _field(spec: FieldSpec, parts: list[Any], place: int) -> list[Column]:
    """The columns one field becomes; ``place`` is its place within the step's fields."""
    if parts and isinstance(parts[0], MissingIndicator):
        _marks_nan(parts[0], spec.name)
        if len(parts) > 1 or parts[0].features != "all":
            msg = f"{spec.name}: MissingIndicator followed by a step, or not of all features"
            raise NotCompilable(msg)
        name = f"{spec.name}_missing"
        return [Column(name=name, kind="missing", field=spec.name, factor=spec.name)]
    codes = {c: float(i) for i, c in enumerate(spec.categories)}
    fill = float("nan")
    stand_in: Any = math.nan
    rest = list(parts)
    if rest and isinstance(rest[0], SimpleImputer):
        imputer = rest.pop(0)
        _marks_nan(imputer, spec.name)
        if imputer.add_indicator:
            msg = f"{spec.name}: SimpleImputer(add_indicator=True)"
            raise NotCompilable(msg)
        stand_in = imputer.statistics_[place]
        fill = codes.get(stand_in, UNSEEN) if spec.is_category else float(stand_in)
    elif spec.nullable and spec.is_category:
        fill = _code_of_missing(spec, rest, place)
    if rest and isinstance(rest[0], OneHotEncoder):
        return _one_hot(spec, rest, place, fill, codes)
    numbered: dict[str, Any] = {}
    if rest and isinstance(rest[0], OrdinalEncoder):
        numbered = _numbered(spec, rest.pop(0), place, stand_in)
    elif spec.is_category:
        msg = f"{spec.name}: a category without an encoder"
        raise NotCompilable(msg)
    log = bool(rest) and _applies(rest[0], np.log1p)
    column = Column(
        name=spec.name, kind="number", field=spec.name, factor=spec.name, fill=fill, log=log
    ).model_copy(update=numbered)
    return _scaled(column, rest[1:] if log else rest, place)


def _numbered(
    spec: FieldSpec, encoder: OrdinalEncoder, place: int, stand_in: object
) -> dict[str, Any]:
    """What makes a field's column a lookup, where an ordinal encoder's order is not the schema's.

    Args:
        spec: the field.
        encoder: fitted.
        place: of the field within the encoder's.
        stand_in: the category that a missing one is taken for, or `math.nan` if it stays missing.
    """
    if _groups(encoder) or not spec.is_category:
        msg = f"{spec.name}: OrdinalEncoder of a number, or grouping categories"
        raise NotCompilable(msg)
    if [c for c in encoder.categories_[place] if not _is_nan(c)] == list(spec.categories):
        return {}
    unknown = None
    if encoder.handle_unknown == "use_encoded_value":
        unknown = float(encoder.unknown_value)
    # One and the same NaN, or it would not be found.
    numbers = {
        math.nan if _is_nan(c) else c: float(encoder.encoded_missing_value if _is_nan(c) else i)
        for i, c in enumerate(encoder.categories_[place])
    }

    def number(category: object) -> float:
        found = numbers.get(category, unknown)
        if found is None:
            msg = f"{spec.name}: OrdinalEncoder does not know all categories of the schema"
            raise NotCompilable(msg)
        return found

    values = [number(category) for category in spec.categories]
    other = math.nan if unknown is None else unknown
    missing = number(stand_in) if spec.nullable else math.nan
    if stand_in in spec.categories:
        fill = float(spec.categories.index(str(stand_in)))
    elif math.isnan(missing):
        fill = math.nan
    else:
        # No application has a category that is not in the schema: its place is free.
        fill, other = UNSEEN, missing
    return {"kind": "lookup", "values": (*values, other), "fill": fill}


def _code_of_missing(spec: FieldSpec, parts: list[Any], place: int) -> float:
    """What an ordinal encoder makes of a missing category, when it is the first of the parts."""
    encoder = parts[0] if parts else None
    if isinstance(encoder, OrdinalEncoder):
        if any(map(_is_nan, encoder.categories_[place])):
            return float(encoder.encoded_missing_value)
        if encoder.handle_unknown == "use_encoded_value":
            return float(encoder.unknown_value)
    msg = f"{spec.name}: a category that may be missing and is not imputed"
    raise NotCompilable(msg)


def _groups(encoder: OneHotEncoder | OrdinalEncoder) -> bool:
    """Whether rare categories are taken together."""
    return encoder.min_frequency is not None or encoder.max_categories is not None


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _marks_nan(step: Any, name: str) -> None:  # noqa: ANN401 - an imputer or an indicator
    """Refuse a step for which something else than NaN is missing."""
    if not _is_nan(step.missing_values):
        msg = f"{name}: {type(step).__name__}(missing_values={step.missing_values!r})"
        raise NotCompilable(msg)


def _one_hot(
    spec: FieldSpec, rest: list[Any], place: int, fill: float, codes: dict[str, float]
) -> list[Column]:
    encoder = rest[0]
    if len(rest) > 1 or encoder.drop is not None or _groups(encoder):
        msg = f"{spec.name}: OneHotEncoder followed by a step, dropping or grouping categories"
        raise NotCompilable(msg)
    columns = []
    for category in encoder.categories_[place]:
        if category not in codes:
            msg = f"{spec.name}: category {category!r} is not in the schema"
            raise NotCompilable(msg)
        columns.append(
            Column(
                name=f"{spec.name}={category}",
                kind="indicator",
                field=spec.name,
                factor=spec.name,
                fill=fill,
                category=int(codes[category]),
            )
        )
    return columns


def _scaled(column: Column, steps: list[Any], place: int) -> list[Column]:
    """The columns that a column's last step makes of it: itself scaled, or several ramps."""
    if not steps:
        return [column]
    step = steps[0]
    if len(steps) > 1 or not isinstance(step, (StandardScaler, Ramps)):
        msg = f"step {type(steps[-1]).__name__}"
        raise NotCompilable(msg)
    if isinstance(step, Ramps):
        changes = [
            {"name": f"{column.name}/{part}", "center": lower, "scale": upper - lower, "ramp": True}
            for part, (lower, upper) in enumerate(pairwise(step.edges_.tolist()), start=1)
        ]
    else:
        center = float(step.mean_[place]) if step.with_mean else 0.0
        scale = float(step.scale_[place]) if step.with_std else 1.0
        changes = [{"center": center, "scale": scale}]
    return [column.model_copy(update=change) for change in changes]


def _calibration(model: Any) -> tuple[Any, Calibration]:  # noqa: ANN401 - any classifier
    """The estimator inside, and the sigmoid around it.

    scikit-learn writes it as 1 / (1 + exp(a s + b)), so its a is minus our slope.
    """
    if not isinstance(model, CalibratedClassifierCV):
        return model, Calibration(slope=1.0, intercept=0.0)
    if len(model.calibrated_classifiers_) != 1 or model.method != "sigmoid":
        msg = "CalibratedClassifierCV other than method='sigmoid', ensemble=False"
        raise NotCompilable(msg)
    inner = model.calibrated_classifiers_[0]
    sigmoid = inner.calibrators[0]
    if not sigmoid.a_ < 0:
        msg = "a calibration that does not keep the estimator's order: it found no signal"
        raise NotCompilable(msg)
    return inner.estimator, Calibration(slope=-float(sigmoid.a_), intercept=-float(sigmoid.b_))


class _Lookups:
    """The encoder's columns, and one more for each set of categories that splits ask for."""

    def __init__(self, columns: list[Column], schema: Schema) -> None:
        self.columns = list(columns)
        self.of_zeros = [0.0] * len(columns)
        """What the columns are of a row of zeros, for which the codes are zeros."""
        self._known = {f.name: len(f.categories) for f in schema.fields}
        self._split = {c.field: i for i, c in enumerate(columns) if c.kind == "lookup"}
        self._made: dict[tuple[str, tuple[float, ...]], int] = {}

    def add(self, number: int, sides: dict[float, float], other: float) -> int:
        """The number of the column that is split in place of a column of codes.

        Args:
            number: the column of codes.
            sides: of codes, 0 for left and 1 for right.
            other: of all other codes; `math.nan` sends them where missing values go.

        Raises:
            NotCompilable: it is no column of codes, or not the only one of its field.
        """
        column = self.columns[number]
        known = self._known[column.field]
        schema_codes = (*map(float, range(known)), UNSEEN)
        codes = column.values or schema_codes
        plain = not (column.log or column.ramp) and (column.center, column.scale) == (0.0, 1.0)
        filled = math.isnan(column.fill) or column.fill in schema_codes
        only = self._split.setdefault(column.field, number) == number
        coded = column.kind in {"number", "lookup"}
        if not (coded and known and plain and filled and only):
            msg = f"{column.name}: a split on a set of categories in other than one column of codes"
            raise NotCompilable(msg)
        values = tuple(math.nan if math.isnan(c) else sides.get(c, other) for c in codes)
        made = self._made.setdefault((column.field, values), len(self.columns))
        if made == len(self.columns):
            changes = {"name": f"{column.name}/{made}", "kind": "lookup", "values": values}
            self.columns.append(column.model_copy(update=changes))
            self.of_zeros.append(sides.get(0.0, other))
        return made


def _ensemble(
    model: Any,  # noqa: ANN401 - any classifier
    lookups: _Lookups,
    *,
    calibrated: bool,
    sees_float32: bool,
) -> Ensemble:
    if isinstance(model, XGBClassifier):
        # The calibration of a plain XGBClassifier is fitted on probabilities, not on margins.
        if calibrated and not hasattr(model, "decision_function"):
            msg = "CalibratedClassifierCV around an XGBClassifier without decision_function"
            raise NotCompilable(msg)
        return _xgboost(model, lookups)
    if isinstance(model, HistGradientBoostingClassifier):
        return _hist_gradient_boosting(model, lookups, sees_float32=sees_float32)
    if isinstance(model, RandomForestClassifier) and calibrated:
        return _random_forest(model)
    msg = f"classifier {type(model).__name__}" + ("" if calibrated else ", not calibrated")
    raise NotCompilable(msg)


class _Nodes:
    """Collects the nodes of trees, renumbered so that all trees share one numbering."""

    def __init__(self) -> None:
        self._roots: list[int] = []
        self._parts: dict[str, list[npt.NDArray[Any]]] = {
            name: [] for name in ("column", "threshold", "default_left", "left", "right", "value")
        }
        self._count = 0

    def add(
        self,
        *,
        leaf: npt.NDArray[np.bool_],
        column: npt.NDArray[Any],
        threshold: npt.NDArray[Any],
        default_left: npt.NDArray[Any],
        left: npt.NDArray[Any],
        right: npt.NDArray[Any],
        value: npt.NDArray[Any],
    ) -> None:
        """Add one tree; children must come after their parents."""
        self._roots.append(self._count)
        parts = {
            "column": np.where(leaf, LEAF, column),
            "threshold": np.where(leaf, 0.0, threshold),
            "default_left": np.where(leaf, False, default_left),
            "left": np.where(leaf, 0, left + self._count),
            "right": np.where(leaf, 0, right + self._count),
            "value": np.where(leaf, value, 0.0),
        }
        for name, array in parts.items():
            self._parts[name].append(array)
        self._count += len(leaf)

    def ensemble(self, base: float) -> Ensemble:
        """All trees added so far."""

        def joined(name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
            return np.concatenate(self._parts[name]).astype(kind)

        return Ensemble(
            base=base,
            roots=np.array(self._roots, dtype=np.int32),
            column=joined("column", np.int32),
            threshold=joined("threshold", np.float32),
            default_left=joined("default_left", np.bool_),
            left=joined("left", np.int32),
            right=joined("right", np.int32),
            value=joined("value", np.float64),
        )


def _xgboost(model: XGBClassifier, lookups: _Lookups) -> Ensemble:
    if model.objective != "binary:logistic":
        msg = f"XGBoost objective {model.objective}"
        raise NotCompilable(msg)
    if not np.isnan(model.missing):
        msg = f"XGBClassifier(missing={model.missing!r})"
        raise NotCompilable(msg)
    booster = model.get_booster()
    if getattr(model, "early_stopping_rounds", None) is not None:
        booster = booster[: model.best_iteration + 1]
    learner = json.loads(booster.save_raw("json"))["learner"]
    if learner["gradient_booster"]["name"] != "gbtree":
        msg = f"XGBoost booster {learner['gradient_booster']['name']}"
        raise NotCompilable(msg)
    forest = learner["gradient_booster"]["model"]
    first_round = int(forest["iteration_indptr"][1])
    row = np.zeros((1, model.n_features_in_), dtype=np.float32)
    of_first_round = 0.0
    nodes = _Nodes()
    for number, tree in enumerate(forest["trees"], start=1):
        left = np.array(tree["left_children"])
        conditions = np.array(tree["split_conditions"], dtype=np.float32)
        column, threshold = np.array(tree["split_indices"]), conditions.copy()
        segments = zip(tree["categories_segments"], tree["categories_sizes"], strict=True)
        for node, (start, size) in zip(tree["categories_nodes"], segments, strict=True):
            right = dict.fromkeys(map(float, tree["categories"][start : start + size]), 1.0)
            column[node] = lookups.add(int(column[node]), right, 0.0)
            threshold[node] = _SPLIT
        nodes.add(
            leaf=left == -1,
            column=column,
            threshold=threshold,
            default_left=np.array(tree["default_left"], dtype=bool),
            left=left,
            right=np.array(tree["right_children"]),
            value=conditions,
        )
        if number == first_round:
            ours = np.array([lookups.of_zeros], dtype=np.float32)
            of_first_round = float(nodes.ensemble(0.0).margins(ours)[0])
    # The stored base score is rounded to a few digits, so the base is measured instead: over one
    # round, because XGBoost adds up in float32 and over all rounds would be off by their errors.
    margin = float(model.predict(row, output_margin=True, iteration_range=(0, 1))[0])
    return nodes.ensemble(margin - of_first_round)


def _below(threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Float32 t such that ``x < t`` is ``x <= threshold`` for every float32 x."""
    rounded = threshold.astype(np.float32)
    above = rounded.astype(np.float64) > threshold
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return np.nextafter(rounded, np.float32(np.inf))


def _below_rounded(threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Float32 t such that ``float32(x) < t`` is ``x <= threshold`` for float64 x.

    Not for an x above the threshold by less than float32 can tell.
    """
    return np.nextafter(threshold.astype(np.float32), np.float32(np.inf))


def _hist_gradient_boosting(
    model: HistGradientBoostingClassifier, lookups: _Lookups, *, sees_float32: bool
) -> Ensemble:
    # Thresholds are often values of the data, so a value equal to one must stay on its side.
    below = _below if sees_float32 else _below_rounded
    # scikit-learn offers no public view of what follows; a test compares with predict_proba.
    order = np.arange(model.n_features_in_)
    met: list[list[float]] = []
    if model.is_categorical_ is not None:
        # It puts columns of codes first, and numbers the codes that it met anew.
        order = np.concatenate([order[model.is_categorical_], order[~model.is_categorical_]])
        encoder = model._preprocessor.named_transformers_["encoder"]  # noqa: SLF001
        met = [codes.tolist() for codes in encoder.categories_]
    nodes = _Nodes()
    for (predictor,) in model._predictors:  # noqa: SLF001
        tree = predictor.nodes
        column = order[tree["feature_idx"]]
        threshold = below(tree["num_threshold"].astype(np.float64))
        for node in np.flatnonzero(tree["is_categorical"]).tolist():
            left = predictor.raw_left_cat_bitsets[tree["bitset_idx"][node]]
            codes = met[tree["feature_idx"][node]]
            sides = {code: float(not left[n // 32] >> n % 32 & 1) for n, code in enumerate(codes)}
            column[node] = lookups.add(int(column[node]), sides, math.nan)
            threshold[node] = _SPLIT
        nodes.add(
            leaf=tree["is_leaf"].astype(bool),
            column=column,
            threshold=threshold,
            default_left=tree["missing_go_to_left"].astype(bool),
            left=tree["left"].astype(np.int64),
            right=tree["right"].astype(np.int64),
            value=tree["value"],
        )
    return nodes.ensemble(float(np.ravel(model._baseline_prediction)[0]))  # noqa: SLF001


def _random_forest(model: RandomForestClassifier) -> Ensemble:
    nodes = _Nodes()
    for estimator in model.estimators_:
        tree = estimator.tree_
        if isinstance(model, LogOddsForestClassifier):
            value = leaf_log_odds(tree)
        else:
            value = tree.value[:, 0, 1] / tree.value[:, 0, :].sum(axis=1)
        nodes.add(
            leaf=tree.children_left == -1,
            column=tree.feature,
            threshold=_below(tree.threshold),
            default_left=tree.missing_go_to_left.astype(bool),
            left=tree.children_left,
            right=tree.children_right,
            value=value / len(model.estimators_),
        )
    return nodes.ensemble(0.0)
