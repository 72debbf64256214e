"""A user's own fitted scikit-learn pipeline, served as it is.

Loaded from skops' format, which builds only the types it knows and runs no code. It is scored on
a DataFrame, and explained by ``shap`` in log-odds over the application's own fields: exact for
few fields, sampled permutations (which still add up) for more. Both are much slower than the
compiled models, and `PipelineModel.method` says which one was used.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shap
import skops.io

from credit_risk.errors import PackageInvalid
from credit_risk.schema import UNSEEN

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from credit_risk.schema import Schema

    Floats = npt.NDArray[np.float64]

EXACT_FIELDS_MAX = 8
"""With more fields, 2 to their number coalitions per explanation take too long."""
BACKGROUND_ROWS = 100
_LEAST_PROBABILITY = 1e-12
_TRUSTED = frozenset(
    {
        "functools.partial",
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.impute._iterative.IterativeImputer",
        "sklearn.impute._iterative._ImputerTriplet",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils.validation.check_array",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRFClassifier",
    }
)
"""Trusted besides what skops trusts (public estimators, ufuncs, plain data). Named one by one: a
file may call what it names, and whole libraries hold functions that run the text they are given
(``numpy.testing`` has one). A partial, which histogram boosting on categories has of
``check_array``, calls nothing when it is made, and what it binds is named in the file and judged
by its own name."""


def untrusted_types(content: bytes) -> list[str]:
    """Types and functions in a skops file beyond the known ones of scikit-learn and XGBoost."""
    return sorted(set(skops.io.get_untrusted_types(data=content)) - _TRUSTED)


def frame(rows: Floats, schema: Schema) -> pd.DataFrame:
    """Rows as the DataFrame a pipeline was trained on: named columns, category names, NaN."""
    columns: dict[str, Any] = {}
    for i, spec in enumerate(schema.fields):
        values = rows[:, i]
        if spec.is_category:
            names = np.array([*spec.categories, np.nan], dtype=object)
            known = np.isfinite(values) & (values != UNSEEN)
            codes = np.where(known, values, len(spec.categories)).astype(int)
            columns[spec.name] = names[codes]
        else:
            columns[spec.name] = values
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class PipelineModel:
    """See the module's text."""

    pipeline: Any
    schema: Schema
    reference: Floats

    @cached_property
    def base_value(self) -> float:
        """Mean log-odds of the reference rows used as background."""
        return float(self.log_odds(self._background).mean())

    @property
    def method(self) -> str:
        """Which of shap's explainers is used."""
        kind = "exact" if self._is_exact else "sampled permutations"
        return f"interventional Shapley values by shap, {kind}, {len(self._background)} rows"

    @property
    def reference_rows(self) -> int:
        """Only the first ones: more would take too long."""
        return len(self._background)

    @property
    def slow(self) -> bool:
        """Always: a DataFrame for each call, and hundreds of calls for an explanation."""
        return True

    def log_odds(self, rows: Floats) -> Floats:
        """Log-odds of the pipeline's probability of the second class, shape (n,)."""
        p = self.pipeline.predict_proba(frame(rows, self.schema))[:, 1]
        p = np.clip(p.astype(np.float64), _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
        log_odds: Floats = np.log(p) - np.log1p(-p)
        return log_odds

    def contributions(self, rows: Floats) -> Floats:
        """Shapley values of each field, shape (n, fields), log-odds."""
        if self._is_exact:
            return self._explain(rows)
        # Each row from the same seed: the same application has the same reasons, alone or in a
        # batch, today or tomorrow.
        return np.vstack([self._explain(row[np.newaxis]) for row in rows])

    @property
    def _is_exact(self) -> bool:
        return len(self.schema.fields) <= EXACT_FIELDS_MAX

    @cached_property
    def _background(self) -> Floats:
        return self.reference[:BACKGROUND_ROWS]

    def _explain(self, rows: Floats) -> Floats:
        # A new explainer each time: shap's masker works in a buffer that two calls must not share.
        masker = shap.maskers.Independent(self._background, max_samples=len(self._background))
        if self._is_exact:
            explainer = shap.explainers.Exact(self.log_odds, masker)
        else:
            explainer = shap.explainers.Permutation(self.log_odds, masker, seed=0)
        values: Floats = explainer(rows, silent=True).values  # noqa: PD011 - shap's, not pandas'
        return values


def read_skops(content: bytes, name: str) -> Any:  # noqa: ANN401 - any classifier
    """The fitted classifier in a skops file; no code in it is run.

    Args:
        content: the file.
        name: what to call it in errors.

    Raises:
        PackageInvalid: it cannot be read, holds types that are not trusted, or is no classifier.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
        msg = f"{name}: cannot be read: not a skops file, or not a whole one"
        raise PackageInvalid(msg)
    try:
        strangers = untrusted_types(content)
        if strangers:
            msg = f"{name}: type {strangers[0]} is not trusted"
            raise PackageInvalid(msg)
        pipeline = skops.io.loads(content, trusted=sorted(_TRUSTED))
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        ImportError,
        AttributeError,
        RuntimeError,  # a description that contains itself, or an encrypted archive
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        msg = f"{name}: cannot be read: {error}"
        raise PackageInvalid(msg) from error
    if not hasattr(pipeline, "predict_proba"):
        msg = f"{name}: the pipeline has no predict_proba"
        raise PackageInvalid(msg)
    return pipeline


def load_pipeline(path: Path, schema: Schema, reference: Floats) -> PipelineModel:
    """Load a package's ``pipeline.skops``.

    Raises:
        PackageInvalid: see `read_skops`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{path.name}: cannot be read: {error.strerror}"
        raise PackageInvalid(msg) from error
    return PipelineModel(read_skops(content, path.name), schema, reference)
