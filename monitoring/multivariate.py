"""Drift of fields together: whether a classifier tells applicants of now from those of then.

Fields may each keep their distribution and no longer go together as they did. alibi-detect's
`ClassifierDrift` trains a classifier on both groups, and what it does better than chance on
applicants it was not trained on is drift. alibi-detect is in no image of ours, for its licence
(Business Source License 1.1) allows no production use without a licence of its maker; where it is
not installed, that is what `compare` answers.

Those of then are the first decisions that the model made, not the package's reference: that is
drawn from a copula, which loses what goes together in threes, so a classifier tells real applicants
from it whether or not they drifted (docs/adr/0011).
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from credit_risk import windows
from credit_risk.documents import Document

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from credit_risk.audit.log import SqlRecords
    from credit_risk.package import ModelPackage
    from credit_risk.windows import Window

    Floats = npt.NDArray[np.float64]

Verdict: TypeAlias = Literal["missing", "too-few", "stable", "drifted"]

LEAST_ROWS = 500
"""Fewer applicants of then, or of now, are too few to train a classifier on."""

MOST_ROWS = 5_000
"""Of more, so many are drawn: a second's work, and enough to see any drift that matters."""

LINE = 0.55
"""An area under the curve below it is no drift that matters, however sure it is."""

DEVIATIONS = 3.0
"""How far the area has to be above that of a guess. alibi-detect's own p-value is too small: what
is predicted out of fold depends on the other folds."""

P_VALUE = 0.01
LEAST_LOST = 0.01
"""A field by which so little of the area is lost separates nobody."""

_FOLDS = 3
_REPEATS = 3


class Separation(Document):
    """How much of the area is lost if the field's values are shuffled among applicants."""

    field: str
    area_lost: float


class Multivariate(Document):
    """What a classifier could tell apart.

    ``area`` under the ROC curve is 0.5 for a guess and 1 for certainty, and ``critical`` what it
    has to be for a verdict of drift. ``p_value`` and ``distance`` are alibi-detect's. ``fields``
    are those that the classifier went by, the most telling first. Where there is no verdict,
    ``reason`` says why and the figures are None.
    """

    verdict: Verdict
    reason: str | None = None
    baseline_rows: int
    rows: int
    area: float | None = None
    critical: float | None = None
    p_value: float | None = None
    distance: float | None = None
    fields: tuple[Separation, ...] = ()


def is_available() -> bool:
    """Whether alibi-detect is installed."""
    return find_spec("alibi_detect") is not None and find_spec("sklearn") is not None


def look(records: SqlRecords, package: ModelPackage, now: Window | Floats) -> Multivariate:
    """Hold applicants of now beside the first that the package decided about.

    Args:
        records: where they are read; with keys.
        package: whose decisions.
        now: the hours whose applicants are asked about, or themselves, shape (n, fields). Those of
            a window are compared with the first of before it: nobody is among both.

    Raises:
        RecordingFailed: the database fails.
    """
    if not is_available():
        return compare(package.schema.matrix([]), package.schema.matrix([]), package.schema.names)
    of = (records, package.schema, package.portfolio, package.version)
    if isinstance(now, windows.Window):
        then = windows.first_applicants(*of, before=now.since)
        return compare(then, windows.applicants(*of, now), package.schema.names)
    return compare(windows.first_applicants(*of, before=None), now, package.schema.names)


def compare(baseline: Floats, rows: Floats, names: Sequence[str], seed: int = 0) -> Multivariate:
    """Say whether a classifier tells ``rows`` from ``baseline``.

    Takes seconds of processor time, and eight more to import the library: not for a process that
    scores.

    Args:
        baseline: shape (n, fields), see `Schema.vector`: the first applicants the model decided.
        rows: shape (m, fields), those in question.
        names: of the fields.
        seed: of what is drawn, of the folds and of what is shuffled.
    """
    nothing = Multivariate(verdict="missing", baseline_rows=len(baseline), rows=len(rows))
    if not is_available():
        reason = "alibi-detect is not installed: `make install-drift`, and mind its licence"
        return nothing.model_copy(update={"reason": reason})
    for number, whose in ((len(baseline), "the model's first"), (len(rows), "the window's")):
        if number < LEAST_ROWS:
            reason = f"{LEAST_ROWS} of {whose} applicants are needed, and there are {number}"
            return nothing.model_copy(update={"verdict": "too-few", "reason": reason})
    generator = np.random.default_rng(seed)
    then, now = (
        group[generator.choice(len(group), min(len(group), MOST_ROWS), replace=False)]
        for group in (baseline, rows)
    )
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - it comes with scikit-learn

    # Threads of OpenMP spin while they wait for each other, which at the lowest priority is nearly
    # always: twenty times the work of one, who is done sooner.
    with threadpool_limits(1):
        return nothing.model_copy(update=_told(then, now, names, seed))


def _told(then: Floats, now: Floats, names: Sequence[str], seed: int) -> dict[str, Any]:
    """What there is to tell of two groups of applicants, each of a bounded number."""
    area, p_value, distance = _detect(then, now, seed)
    n, m = len(then), len(now)
    # The standard deviation of Mann and Whitney's statistic if both groups are one.
    critical = max(LINE, 0.5 + DEVIATIONS * ((n + m + 1) / (12 * n * m)) ** 0.5)
    has_drifted = area >= critical and p_value <= P_VALUE
    return {
        "verdict": "drifted" if has_drifted else "stable",
        "area": area,
        "critical": critical,
        "p_value": p_value,
        "distance": distance,
        "fields": _separating(then, now, names, seed) if has_drifted else (),
    }


def _detect(then: Floats, now: Floats, seed: int) -> tuple[float, float, float]:
    """Area under the curve of out-of-fold predictions, and alibi-detect's p-value and distance."""
    # It imports a library of language models, which looks for others and says what it misses.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.getLogger("alibi_detect").setLevel(logging.ERROR)
    from alibi_detect.cd import ClassifierDrift  # noqa: PLC0415 - it takes seconds, or is not here
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - as above

    detector = ClassifierDrift(
        then,
        _classifier(seed),
        backend="sklearn",
        p_val=P_VALUE,
        preds_type="probs",
        n_folds=_FOLDS,
        seed=seed,
    )
    found = detector.predict(now)["data"]
    scores = np.concatenate([found["probs_ref"], found["probs_test"]])
    labels = np.repeat([0, 1], [len(found["probs_ref"]), len(found["probs_test"])])
    area = float(roc_auc_score(labels, scores))
    return area, float(found["p_val"]), float(found["distance"])


def _separating(
    then: Floats, now: Floats, names: Sequence[str], seed: int
) -> tuple[Separation, ...]:
    """Permutation importances, on a third of the applicants that the classifier has not seen."""
    from sklearn.inspection import permutation_importance  # noqa: PLC0415 - as above
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - as above

    both = np.concatenate([then, now])
    labels = np.repeat([0, 1], [len(then), len(now)])
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        both, labels, test_size=1 / 3, random_state=seed, stratify=labels
    )
    fitted = _classifier(seed).fit(seen, seen_labels)
    lost = permutation_importance(
        fitted, unseen, unseen_labels, scoring="roc_auc", n_repeats=_REPEATS, random_state=seed
    ).importances_mean.tolist()
    telling = [(area, name) for area, name in zip(lost, names, strict=True) if area >= LEAST_LOST]
    return tuple(Separation(field=name, area_lost=a) for a, name in sorted(telling, reverse=True))


def _classifier(seed: int) -> Any:  # noqa: ANN401 - scikit-learn has no annotations
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - as above

    # Takes missing values as they are. Small trees: there is little to learn, and less to find.
    return HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=8, early_stopping=False, random_state=seed
    )
