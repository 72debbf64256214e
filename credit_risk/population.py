"""Who applies, counted into the bins in which a package knows its reference population.

Counts add up over workers, servers and time, which measures of drift do not: the population
stability index is computed from counts and the reference's shares by whoever collects them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from credit_risk.policy import Policy
    from credit_risk.profile import Profile
    from credit_risk.schema import Schema

    Floats = npt.NDArray[np.float64]

Kind: TypeAlias = Literal[
    "score", "number", "category", "missing", "out-of-range", "near-cut-off"
]  # fmt: skip
MISSING = "missing"
"""The bin of applications that leave a field out."""
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
        cells = [
            Cell("score", "", name, share)
            for name, share in zip(_numbered(profile.score_bins), profile.score_bins, strict=True)
        ]
        self._score_edges = np.array(profile.score_edges) if cells else None
        # Of each field: the edges of its bins (of numbers), the cells of its first and its last.
        self._edges: list[Floats | None] = []
        self._first: list[int] = []
        self._missing: list[int] = []
        numbers = [not spec.is_category for spec in schema.fields]
        lowest, highest = np.full(len(numbers), -np.inf), np.full(len(numbers), np.inf)
        for i, (spec, marginal) in enumerate(zip(schema.fields, profile.marginals, strict=True)):
            self._edges.append(np.array(marginal.edges) if numbers[i] else None)
            self._first.append(len(cells))
            kind: Kind = "number" if numbers[i] else "category"
            names = _numbered(marginal.bins) if numbers[i] else spec.categories
            cells += [
                Cell(kind, spec.name, name, share)
                for name, share in zip(names, marginal.bins, strict=True)
            ]
            self._missing.append(len(cells))
            cells.append(Cell("missing", spec.name, MISSING, marginal.missing))
            if numbers[i]:
                lowest[i], highest[i] = marginal.quantiles[0], marginal.quantiles[-1]
        self._binned = len(cells)
        self._range = lowest, highest
        self._numbers = np.array(numbers)
        for spec in schema.fields:
            if not spec.is_category:
                cells.append(Cell("out-of-range", spec.name))
        cells.append(Cell("near-cut-off"))
        self.cells: tuple[Cell, ...] = tuple(cells)
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
        absent = np.isnan(rows)
        places = []
        for i, edges in enumerate(self._edges):
            # A value belongs to the bin whose upper edge is the first that is not below it.
            bins = rows[:, i] if edges is None else np.searchsorted(edges, rows[:, i])
            places.append(np.where(absent[:, i], self._missing[i], self._first[i] + bins))
        if self._score_edges is not None:
            places.append(np.searchsorted(self._score_edges, pds))
        binned = np.bincount(np.concatenate(places).astype(np.intp), minlength=self._binned)
        lowest, highest = self._range
        outside = ((rows < lowest) | (rows > highest)).sum(axis=0)[self._numbers]
        gaps = np.abs(pds[:, np.newaxis] - self._cut_offs)
        near = (gaps <= NEAR_CUT_OFF).any(axis=1).sum()
        return np.concatenate((binned, outside, [near]))


def _numbered(bins: Sequence[float]) -> tuple[str, ...]:
    """Names of bins of numbers, in order."""
    return tuple(f"{number:02}" for number in range(1, len(bins) + 1))
