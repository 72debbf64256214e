"""Tree ensembles: scores, and exact interventional Shapley values from prepared tables.

An ensemble of any library is four arrays per node, loaded without running code. A row goes to
the left child when ``value < threshold``, with the value in float32 as XGBoost compares it; a
missing value goes where the node's default says.

The tables. For one leaf of value v let F be the distinct columns on its path, their conditions
merged into one interval each. An applicant x and a reference row z each satisfy a subset of F,
the bit patterns P(x) and P(z). In the game "columns in S from x, the others from z" the leaf is
reached when each column of F is satisfied by its owner, so it contributes only where
P(x) | P(z) covers F. With a = columns satisfied by x alone and b = by z alone, each x-only column
receives ``+v (a-1)! b! / (a+b)!`` and each z-only column ``-v a! (b-1)! / (a+b)!`` (Lundberg et
al., Nature Machine Intelligence 2, 2020, algorithm 3, for one reference row). That depends on x
only through P(x) and on the reference group only through how often each P(z) occurs: counting
the group once fills a table [P(x)][column of F] with averaged contributions, and a request looks
up one row per leaf. Cost is independent of the size of the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from credit_risk.errors import PackageInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Columns = npt.NDArray[np.float32]

WIDEST_PATH = 10
"""Most distinct columns on one path: a leaf's table has 2 to that power rows."""

LARGEST_TABLES = 32_000_000
"""Most entries in all tables of an ensemble (256 MB in float64)."""

LEAF = -1
"""Column number of a leaf."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The nodes of all trees, tree after tree.

    ``column`` is `LEAF` for a leaf; ``left`` and ``right`` are node numbers; ``value`` is the
    leaf's contribution to the margin (0 elsewhere). ``roots`` holds each tree's first node.
    """

    base: float
    roots: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    default_left: npt.NDArray[np.bool_]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    value: Floats

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything as named arrays, for `numpy.savez`."""
        return {
            "base": np.float64(self.base).reshape(1),
            "roots": self.roots,
            "column": self.column,
            "threshold": self.threshold,
            "default_left": self.default_left,
            "left": self.left,
            "right": self.right,
            "value": self.value,
        }

    def margins(self, columns: Columns) -> Floats:
        """Sum of the reached leaves plus base, shape (n,), for ``columns`` of shape (n, c)."""
        margins: Floats = _margins(
            columns,
            self.roots,
            self.column,
            self.threshold,
            self.default_left,
            self.left,
            self.right,
            self.value,
            self.base,
        )
        return margins


def from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]], columns: int) -> Ensemble:
    """Rebuild an ensemble from `Ensemble.arrays`, checking that it is a forest.

    Raises:
        PackageInvalid: an array is missing or has another type or shape, a node points outside
            the forest or backwards (so a walk might not end) or has two parents, a column does
            not exist, or a number is not one.
    """
    kinds = {
        "roots": np.int32,
        "column": np.int32,
        "threshold": np.float32,
        "default_left": np.bool_,
        "left": np.int32,
        "right": np.int32,
        "value": np.float64,
    }
    try:
        base = float(arrays["base"].item())
        parts = {name: np.ascontiguousarray(arrays[name]) for name in kinds}
    except (KeyError, TypeError, ValueError) as error:
        msg = f"trees: array missing or malformed: {error}"
        raise PackageInvalid(msg) from error
    nodes = parts["column"].shape[0]
    for name, kind in kinds.items():
        if parts[name].dtype != kind or parts[name].ndim != 1:
            msg = f"trees: {name} is not a flat array of {np.dtype(kind).name}"
            raise PackageInvalid(msg)
        if name != "roots" and parts[name].shape[0] != nodes:
            msg = f"trees: {name} has {parts[name].shape[0]} entries for {nodes} nodes"
            raise PackageInvalid(msg)
    split = np.flatnonzero(parts["column"] != LEAF)
    children = np.concatenate([parts["left"][split], parts["right"][split]])
    parents = np.concatenate([split, split])
    roots, column, value = parts["roots"], parts["column"], parts["value"]
    if (
        (children <= parents).any()
        or (children >= nodes).any()
        or (roots < 0).any()
        or (roots >= nodes).any()
        or (column < LEAF).any()
        or (column >= columns).any()
        or not np.isfinite(value).all()
        or np.isnan(parts["threshold"][split]).any()
        or not np.isfinite(base)
        or not _each_once(np.concatenate([roots, children]), split, nodes)
    ):
        msg = "trees: the nodes do not form a forest over the model's columns"
        raise PackageInvalid(msg)
    return Ensemble(base=base, **parts)


def _each_once(reached: npt.NDArray[np.int32], split: npt.NDArray[np.intp], nodes: int) -> bool:
    """Whether no node is reached twice, and each split is reached.

    A leaf may be unreachable: XGBoost leaves those that it pruned in its arrays.
    """
    times = np.bincount(reached, minlength=nodes)
    return bool((times <= 1).all() and (times[split] == 1).all())


@dataclass(frozen=True, slots=True)
class Tables:
    """Prepared Shapley tables of one ensemble against one reference group.

    Flat arrays over (leaf, column of its path), in order: ``column``, ``low`` (inclusive),
    ``high`` (exclusive), ``missing_passes`` and ``factor``; ``first`` says where each leaf
    begins, ``offset`` where its table begins in ``table``. ``base`` is the group's mean margin.
    """

    base: float
    factors: int
    first: npt.NDArray[np.int64]
    column: npt.NDArray[np.int32]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    missing_passes: npt.NDArray[np.bool_]
    factor: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    table: Floats

    def contributions(self, columns: Columns) -> Floats:
        """Exact interventional Shapley values of the margin.

        Args:
            columns: shape (n, c), encoded applications.

        Returns:
            Shape (n, factors): each column's value summed to its factor. A row's sum plus
            ``base`` is its margin.
        """
        values: Floats = _contributions(
            columns,
            self.factors,
            self.first,
            self.column,
            self.low,
            self.high,
            self.missing_passes,
            self.factor,
            self.offset,
            self.table,
        )
        return values


def prepare(
    ensemble: Ensemble, reference: Columns, factor: npt.NDArray[np.int32], factors: int
) -> Tables:
    """Count the reference group through every leaf, once.

    Args:
        ensemble: the trees.
        reference: shape (m, c), the encoded reference group, m >= 1.
        factor: shape (c,), the factor each column is reported under.
        factors: how many factors there are.

    Raises:
        PackageInvalid: a path tests more than `WIDEST_PATH` columns, or the tables would hold
            more than `LARGEST_TABLES` entries.
    """
    leaves = np.flatnonzero(ensemble.column == LEAF)
    parent = _parents(ensemble.column, ensemble.left, ensemble.right)
    first, column, low, high, missing_passes = _paths(
        leaves,
        parent,
        ensemble.column,
        ensemble.threshold,
        ensemble.default_left,
        ensemble.left,
    )
    widths = np.diff(first)
    widest = int(widths.max(initial=0))
    if widest > WIDEST_PATH:
        msg = f"trees: a path tests {widest} columns, exact reasons allow {WIDEST_PATH}"
        raise PackageInvalid(msg)
    sizes = (1 << widths) * widths
    entries = int(sizes.sum())
    if entries > LARGEST_TABLES:
        msg = f"trees: reasons need tables of {entries} entries, at most {LARGEST_TABLES}"
        raise PackageInvalid(msg)
    offset = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    table = _fill(
        reference,
        first,
        column,
        low,
        high,
        missing_passes,
        ensemble.value[leaves],
        offset,
        _weights(widest),
    )
    return Tables(
        base=float(ensemble.margins(reference).mean()),
        factors=factors,
        first=first,
        column=column,
        low=low,
        high=high,
        missing_passes=missing_passes,
        factor=factor[column].astype(np.int32),
        offset=offset,
        table=table,
    )


def _weights(widest: int) -> Floats:
    """``[a, b]``: (a-1)! b! / (a+b)!, the share of a leaf's value of each of a owners."""
    weights = np.zeros((widest + 1, widest + 1))
    for a in range(1, widest + 1):
        for b in range(widest + 1 - a):
            weights[a, b] = factorial(a - 1) * factorial(b) / factorial(a + b)
    return weights


# The kernels below take flat arrays; numba compiles them once and keeps them on disk.


@njit(cache=True, error_model="numpy")
def _margins(columns, roots, column, threshold, default_left, left, right, value, base):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    out = np.empty(columns.shape[0], dtype=np.float64)
    for r in range(columns.shape[0]):
        total = base
        for node in roots:
            while column[node] >= 0:
                x = columns[r, column[node]]
                go_left = default_left[node] if np.isnan(x) else x < threshold[node]
                node = left[node] if go_left else right[node]  # noqa: PLW2901 - walking down
            total += value[node]
        out[r] = total
    return out


@njit(cache=True)
def _parents(column, left, right):  # type: ignore[no-untyped-def]
    parent = np.full(column.shape[0], -1, dtype=np.int32)
    for node in range(column.shape[0]):
        if column[node] >= 0:
            parent[left[node]] = node
            parent[right[node]] = node
    return parent


@njit(cache=True)
def _paths(leaves, parent, column, threshold, default_left, left):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    first = np.zeros(leaves.shape[0] + 1, dtype=np.int64)
    longest = 0
    for i in range(leaves.shape[0]):
        depth = 0
        node = leaves[i]
        while parent[node] >= 0:
            node = parent[node]
            depth += 1
        longest += depth
    out_column = np.empty(longest, dtype=np.int32)
    low = np.empty(longest, dtype=np.float32)
    high = np.empty(longest, dtype=np.float32)
    missing_passes = np.empty(longest, dtype=np.bool_)
    end = 0
    for i in range(leaves.shape[0]):
        start = end
        node = leaves[i]
        while parent[node] >= 0:
            above = parent[node]
            goes_left = left[above] == node
            place = -1
            for j in range(start, end):
                if out_column[j] == column[above]:
                    place = j
            if place < 0:
                place = end
                end += 1
                out_column[place] = column[above]
                low[place] = -np.inf
                high[place] = np.inf
                missing_passes[place] = True
            if goes_left:
                high[place] = min(high[place], threshold[above])
            else:
                low[place] = max(low[place], threshold[above])
            if default_left[above] != goes_left:
                missing_passes[place] = False
            node = above
        first[i + 1] = end
    return (
        first,
        out_column[:end].copy(),
        low[:end].copy(),
        high[:end].copy(),
        missing_passes[:end].copy(),
    )


@njit(cache=True)
def _fill(reference, first, column, low, high, missing_passes, value, offset, weights):  # type: ignore[no-untyped-def]  # noqa: PLR0917, C901, PLR0912
    table = np.zeros(offset[-1], dtype=np.float64)
    rows = reference.shape[0]
    counts = np.zeros(1 << WIDEST_PATH, dtype=np.int64)
    for leaf in range(first.shape[0] - 1):
        start, width = first[leaf], first[leaf + 1] - first[leaf]
        patterns = 1 << width
        counts[:patterns] = 0
        for r in range(rows):
            pattern = 0
            for j in range(width):
                x = reference[r, column[start + j]]
                if np.isnan(x):
                    passes = missing_passes[start + j]
                else:
                    passes = low[start + j] <= x < high[start + j]
                if passes:
                    pattern |= 1 << j
            counts[pattern] += 1
        everything = patterns - 1
        for z in range(patterns):
            if counts[z] == 0:
                continue
            share = value[leaf] * counts[z] / rows
            # Only patterns of x that hold what z lacks let the leaf be reached; walk the
            # subsets of z's own bits that x may or may not hold as well.
            lacking = everything & ~z
            both = z
            while True:
                x_pattern = lacking | both
                a = 0
                b = 0
                for j in range(width):
                    if lacking >> j & 1:
                        a += 1
                    elif not both >> j & 1:
                        b += 1
                row = offset[leaf] + x_pattern * width
                for j in range(width):
                    if lacking >> j & 1:
                        table[row + j] += share * weights[a, b]
                    elif not both >> j & 1:
                        table[row + j] -= share * weights[b, a]
                if both == 0:
                    break
                both = (both - 1) & z
    return table


@njit(cache=True)
def _contributions(  # type: ignore[no-untyped-def]  # noqa: PLR0917 - the tables, flat
    columns, factors, first, column, low, high, missing_passes, factor, offset, table
):
    out = np.zeros((columns.shape[0], factors), dtype=np.float64)
    for r in range(columns.shape[0]):
        for leaf in range(first.shape[0] - 1):
            start, end = first[leaf], first[leaf + 1]
            pattern = 0
            for j in range(start, end):
                x = columns[r, column[j]]
                passes = missing_passes[j] if np.isnan(x) else low[j] <= x < high[j]
                if passes:
                    pattern |= 1 << (j - start)
            row = offset[leaf] + pattern * (end - start)
            for j in range(end - start):
                out[r, factor[start + j]] += table[row + j]
    return out
