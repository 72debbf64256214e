"""Who applies, counted against the population that a package knows.

Counts add up over workers, servers and time, which measures of drift do not: how stable the
population is (`credit_risk.stability`) is computed of the counts, by whoever collects them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from credit_risk import stability

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.policy import Policy
    from credit_risk.profile import Profile
    from credit_risk.schema import FieldSpec, Schema
    from credit_risk.stability import Bins

    Floats = npt.NDArray[np.float64]

Kind: TypeAlias = Literal[
    "score", "number", "category", "missing", "out-of-range", "near-cut-off"
]  # fmt: skip
NEAR_CUT_OFF = 0.02
"""How far a PD is from an edge between bands that the next training may move it across."""


class Cell(NamedTuple):
    """One thing that is counted.

    ``score`` is a bin of the PD; ``number``, ``category`` and ``missing`` are the bins of a field.
    Of those, ``share`` is the share of the reference population in them. Numbers outside the range
    of nearly all of that population are counted as ``out-of-range``, besides their bin, and PDs
    near an edge at which the decision changes as ``near-cut-off``.
    """

    kind: Kind
    field: str = ""
    bin: str = ""
    share: float = 0.0


class Population:
    """The reference population of a package, and counting others against it.

    ``cells`` are the things counted, in the order of what `count` returns.
    """

    def __init__(self, profile: Profile, schema: Schema, policy: Policy) -> None:
        self._score = stability.score_bins(profile)
        self._fields = stability.field_bins(profile, schema)
        cells = [
            Cell("score", "", label, share)
            for label, share in zip(self._score.labels, self._score.shares, strict=True)
        ]
        self._first = []
        for bins, spec in zip(self._fields, schema.fields, strict=True):
            self._first.append(len(cells))
            cells += _of_field(bins, spec)
        self._binned = len(cells)
        self._numbers = np.array([not spec.is_category for spec in schema.fields])
        cells += [Cell("out-of-range", f.name) for f in schema.fields if not f.is_category]
        cells.append(Cell("near-cut-off"))
        self.cells: tuple[Cell, ...] = tuple(cells)
        # The first and the last of a thousand quantiles.
        quantiles = [marginal.quantiles or (np.nan,) for marginal in profile.marginals]
        self._lowest = np.array([of_field[0] for of_field in quantiles])
        self._highest = np.array([of_field[-1] for of_field in quantiles])
        self._cut_offs = np.array(
            [
                below.upper
                for below, above in pairwise(policy.bands)
                if below.decision != above.decision
            ]
        )

    def count(self, rows: Floats, pds: Floats) -> npt.NDArray[np.int64]:
        """Count applications.

        Args:
            rows: shape (n, fields), see `Schema.vector`; values that the schema allows.
            pds: their PDs, shape (n,).

        Returns:
            How many fall into each of the ``cells``.
        """
        places = [
            first + bins.places(column)
            for first, bins, column in zip(self._first, self._fields, rows.T, strict=True)
        ]
        if self._score.labels:
            places.append(self._score.places(pds))
        binned = np.bincount(np.concatenate(places), minlength=self._binned)
        below = -stability.lowered(-rows) < self._lowest
        outside = below | (stability.lowered(rows) > self._highest)
        near = (np.abs(pds[:, np.newaxis] - self._cut_offs) <= NEAR_CUT_OFF).any(axis=1)
        of_numbers = outside.sum(axis=0)[self._numbers]
        return np.concatenate((binned, of_numbers, [near.sum()])).astype(np.int64)


def _of_field(bins: Bins, spec: FieldSpec) -> list[Cell]:
    """The cells of a field's bins, the last of which is for missing values."""
    kinds: list[Kind] = ["category" if spec.is_category else "number"] * len(bins.labels)
    kinds[-1] = "missing"
    return [
        Cell(kind, spec.name, label, share)
        for kind, label, share in zip(kinds, bins.labels, bins.shares, strict=True)
    ]
