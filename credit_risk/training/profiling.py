"""Describing a group of real applicants so that its rows are no longer needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm, rankdata

from credit_risk.profile import Marginal, Profile

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.schema import FieldSpec, Schema

    Floats = npt.NDArray[np.float64]

QUANTILES = 1_000
BINS = 10


def describe(rows: Floats, schema: Schema, group: str, pds: Floats | None = None) -> Profile:
    """Fit a profile.

    Args:
        rows: shape (n, fields), see `Schema.vector`.
        schema: names and types the fields.
        group: what the group is, in words.
        pds: shape (n,) or another sample's; adds the PD's own bins.

    The correlation is that of normal scores of the ranks, with one more variable for each field
    that has missing values; a missing value counts as its field's middle there.
    """
    scores, missing_order = [], []
    for i, spec in enumerate(schema.fields):
        scores.append(_normal_scores(rows[:, i]))
        if np.isnan(rows[:, i]).any():
            missing_order.append((i, spec.name))
    # Low is missing, as `profile.draw` reads it.
    scores += [_normal_scores(np.where(np.isnan(rows[:, i]), 0.0, 1.0)) for i, _ in missing_order]
    edges, bins = ((), ()) if pds is None else _bins(pds)
    return Profile(
        group=group,
        rows=len(rows),
        marginals=tuple(_marginal(rows[:, i], spec) for i, spec in enumerate(schema.fields)),
        correlation=tuple(tuple(row) for row in _correlation(np.array(scores)).tolist()),
        missing_order=tuple(name for _, name in missing_order),
        score_edges=edges,
        score_bins=bins,
    )


def _correlation(scores: Floats) -> Floats:
    """Correlation of the rows of ``scores``; a constant row is independent of the others."""
    deviation = scores.std(axis=1, keepdims=True)
    standard = np.divide(
        scores - scores.mean(axis=1, keepdims=True),
        deviation,
        out=np.zeros_like(scores),
        where=deviation > 0,
    )
    correlation: Floats = standard @ standard.T / scores.shape[1]
    np.fill_diagonal(correlation, 1.0)
    # Rounded so that the last bits, which depend on the machine's BLAS, are not in the version.
    return np.round(correlation, 9)


def _normal_scores(values: Floats) -> Floats:
    present = ~np.isnan(values)
    scores = np.zeros(len(values))
    ranks = rankdata(values[present])
    scores[present] = norm.ppf((ranks - 0.5) / max(len(ranks), 1))
    return scores


def _marginal(values: Floats, spec: FieldSpec) -> Marginal:
    present = values[~np.isnan(values)]
    missing = 1.0 - len(present) / len(values)
    if spec.is_category:
        counts = np.array([(present == code).sum() for code in range(len(spec.categories))])
        total = max(int(counts.sum()), 1)
        return Marginal(
            field=spec.name,
            missing=missing,
            shares=tuple((counts / total).tolist()),
            bins=tuple((counts / len(values)).tolist()),
        )
    if len(present) == 0:
        present = np.array([float(spec.example)])
    at = (np.arange(QUANTILES) + 0.5) / QUANTILES
    quantiles = np.quantile(present, at, method="inverted_cdf")
    edges, bins = _bins(present)
    return Marginal(
        field=spec.name,
        missing=missing,
        quantiles=tuple(quantiles.tolist()),
        edges=edges,
        bins=tuple(share * (1.0 - missing) for share in bins),
    )


def _bins(values: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Inner edges of at most ten bins at the deciles, and the share in each.

    A value belongs to the bin whose upper edge is the first that is not below it. Equal deciles
    (mass points) are merged, so no bin is empty in the group itself.
    """
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    edges = edges[edges < values.max()]
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return tuple(edges.tolist()), tuple((counts / len(values)).tolist())
