"""Population stability: how far applicants are from those that a model knows.

The bins are those of a package's reference profile: deciles of the reference for numbers, open at
both ends, one bin for each category, and one for what is missing. Nobody falls outside of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from credit_risk import significance

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from credit_risk.profile import Marginal, Profile
    from credit_risk.schema import FieldSpec, Schema

    Floats = npt.NDArray[np.float64]
    Counts = npt.NDArray[np.int64]

MISSING = "missing"
SCORE = "score"
FLOOR = 1e-4
"""Least share that a bin counts with: an empty bin that was left out would hide the worst drift."""
_TENTHS = np.arange(1, 10) / 10
PRECISION = 1e-11
"""Relative difference of numbers that is none: a profile's have twelve digits (a third is one)."""


@dataclass(frozen=True)
class Bins:
    """The bins of a field, or of the PD, and the share of the reference population in each.

    ``labels`` are ``"01"``, ``"02"`` and so on from the smallest values, or the categories; a
    field's last one is `MISSING`. A value belongs to the first bin whose upper edge is not below
    it.
    """

    name: str
    labels: tuple[str, ...]
    shares: tuple[float, ...]
    edges: Floats

    def places(self, column: Floats) -> npt.NDArray[np.intp]:
        """The bin of each value, as its place in ``labels``.

        Args:
            column: shape (n,), as in `Schema.vector`: NaN is missing, a category is its code.
        """
        places = np.searchsorted(self.edges, lowered(column), side="left")
        places[np.isnan(column)] = len(self.edges) + 1
        return places

    def count(self, column: Floats) -> Counts:
        """How many of the values, shape (n,), are in each bin; shape (labels,)."""
        return np.bincount(self.places(column), minlength=len(self.labels)).astype(np.int64)


def field_bins(profile: Profile, schema: Schema) -> tuple[Bins, ...]:
    """The bins of each field, in the schema's order."""
    return tuple(
        _bins(spec, marginal)
        for spec, marginal in zip(schema.fields, profile.marginals, strict=True)
    )


def score_bins(profile: Profile) -> Bins:
    """The bins of the PD, none of which is for missing ones; without labels if it has none."""
    shares = profile.score_bins
    return Bins(SCORE, _numbered(len(shares)), shares, np.array(profile.score_edges))


def lowered(values: Floats) -> Floats:
    """Values, shape as given, of which none is above the edge that its first twelve digits are."""
    return values - np.abs(values) * PRECISION


def tenths(pds: Floats, others: Floats) -> tuple[Floats, Counts, Counts]:
    """PDs and others of the same applicants, counted in the tenths of the first ones.

    Equal PDs are in one bin: of a model of a few scores there are fewer than ten.

    Args:
        pds: shape (n,).
        others: shape (m,).

    Returns:
        The edges between bins, and how many of either are in each bin.
    """
    edges = np.unique(np.quantile(pds, _TENTHS))
    first, second = (
        np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        for values in (pds, others)
    )
    return edges, first, second


def psi(counts: Sequence[float] | Counts, shares: Sequence[float] | Floats) -> float:
    """Population stability index of counts against a reference's shares: the sum of its parts.

    Raises:
        ValueError: nothing was counted.
    """
    return float(parts(counts, shares).sum())


def parts(counts: Sequence[float] | Counts, shares: Sequence[float] | Floats) -> Floats:
    """Each bin's part of the population stability index, shape (bins,).

    (share - reference) ln(share / reference), shares at least `FLOOR`.

    Raises:
        ValueError: nothing was counted.
    """
    counted = np.asarray(counts, dtype=np.float64)
    total = counted.sum()
    if total == 0:
        msg = "nothing was counted"
        raise ValueError(msg)
    found = np.maximum(counted / total, FLOOR)
    reference = np.maximum(np.asarray(shares, dtype=np.float64), FLOOR)
    each: Floats = (found - reference) * np.log(found / reference)
    return each


def critical(
    shares: Sequence[float] | Floats, rows: int, reference_rows: int, level: float = 0.05
) -> float:
    """The PSI that chance alone exceeds with probability ``level``, in a sample of ``rows``.

    Without drift, PSI / (1/n + 1/m) is about chi-squared with one degree of freedom less than
    there are bins (Yurdakul and Naranjo, Statistical properties of the population stability
    index, 2020). Bins that are empty in the reference do not count.
    """
    freedom = max(sum(share > 0 for share in shares) - 1, 1)
    chance = significance.chi_square_critical(level, freedom)
    return chance * (1 / rows + 1 / reference_rows)


def _bins(spec: FieldSpec, marginal: Marginal) -> Bins:
    if spec.is_category:
        # Codes are whole numbers from 0 on: each but the last is the upper edge of its own bin.
        edges = np.arange(len(spec.categories) - 1, dtype=np.float64)
        labels = spec.categories
    else:
        edges = np.array(marginal.edges)
        labels = _numbered(len(marginal.bins))
    return Bins(spec.name, (*labels, MISSING), (*marginal.bins, marginal.missing), edges)


def _numbered(number: int) -> tuple[str, ...]:
    return tuple(f"{place:02}" for place in range(1, number + 1))
