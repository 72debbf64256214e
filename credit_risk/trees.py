"""Tree ensembles, whatever library grew them: plain arrays, checked when loaded, and their scores.

An ensemble is a few numbers per node, loaded without running code. A row goes to the left child
when ``value < threshold``, with the value in float32 as XGBoost compares it; a missing value goes
where the node's default says.

A `Scorer` finds the scores of one row by walking down each tree, and those of several by leaf
masks: the same numbers to the last bit, many times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from credit_risk.errors import PackageInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Columns = npt.NDArray[np.float32]

LEAF = -1
"""Column number of a leaf."""
LEAVES_MAX = 32
"""Most leaves of a tree that `LeafMasks` takes: the bits of one number."""

MASKED_ROWS_MIN = 8
"""Fewer rows are scored sooner by walking."""

_BLOCK = 512
_LANES = 16
"""Rows to one instruction."""


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

    def margins(self, columns: Columns, *, unlocked: bool = False) -> Floats:
        """Sum of the reached leaves plus base, shape (n,), for ``columns`` of shape (n, c)."""
        walk = _margins_unlocked if unlocked else _margins
        margins: Floats = walk(
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


@dataclass(frozen=True, slots=True)
class LeafMasks:
    """An ensemble of trees of at most `LEAVES_MAX` leaves, for several rows at a time.

    A leaf is a bit of its tree's 32, and a split says which leaves a row can still reach from
    either side. Taking every split's part away from all leaves, whether the row comes by or not,
    leaves the one bit that a walk would find: no branch, no node waited for, and 16 rows to one
    instruction (after Lucchese et al. 2016, "Exploiting CPU SIMD extensions to speed-up document
    scoring with tree ensembles"; there leftmost leaves, here both sides).

    ``first`` holds each tree's first split and the end; ``leaves`` the bits of all its leaves;
    ``value`` their values, shape (trees, `LEAVES_MAX`).
    """

    base: float
    first: npt.NDArray[np.int32]
    leaves: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    default_left: npt.NDArray[np.bool_]
    if_left: npt.NDArray[np.int32]
    if_right: npt.NDArray[np.int32]
    value: Floats


@dataclass(frozen=True, slots=True)
class Scorer:
    """An ensemble ready to score; ``masks`` is None where a tree has more than `LEAVES_MAX` leaves.

    ``unlocked`` lets go of the interpreter's lock meanwhile: for threads side by side, and not
    for an event loop, which would wait to have it back.
    """

    ensemble: Ensemble
    masks: LeafMasks | None
    unlocked: bool = False

    def margins(self, columns: Columns) -> Floats:
        """As `Ensemble.margins`, the leaves added up in the same order."""
        if self.masks is None or len(columns) < MASKED_ROWS_MIN:
            return self.ensemble.margins(columns, unlocked=self.unlocked)
        masked = _masked_margins_unlocked if self.unlocked else _masked_margins
        m = self.masks
        margins: Floats = masked(
            columns,
            m.first,
            m.leaves,
            m.column,
            m.threshold,
            m.default_left,
            m.if_left,
            m.if_right,
            m.value,
            m.base,
        )
        return margins


def scorer(ensemble: Ensemble) -> Scorer:
    """The ensemble, ready to score."""
    return Scorer(ensemble, _leaf_masks(ensemble))


def _leaf_masks(ensemble: Ensemble) -> LeafMasks | None:
    nodes = len(ensemble.column)
    splits = ensemble.column != LEAF
    left, right = ensemble.left, ensemble.right
    count = np.ones(nodes, dtype=np.int64)
    for node in np.flatnonzero(splits)[::-1]:
        count[node] = count[left[node]] + count[right[node]]
    if len(ensemble.roots) == 0 or count[ensemble.roots].max() > LEAVES_MAX:
        return None
    tree = np.full(nodes, -1, dtype=np.int64)
    place = np.zeros(nodes, dtype=np.int64)
    tree[ensemble.roots] = np.arange(len(ensemble.roots))
    for node in np.flatnonzero(splits):
        tree[left[node]] = tree[right[node]] = tree[node]
        place[left[node]] = place[node]
        place[right[node]] = place[node] + count[left[node]]
    bits = ((np.int64(1) << count) - 1) << place
    kept = np.flatnonzero(splits)
    kept = kept[np.argsort(tree[kept], kind="stable")]
    leaf = np.flatnonzero(~splits & (tree >= 0))
    value = np.zeros((len(ensemble.roots), LEAVES_MAX))
    value[tree[leaf], place[leaf]] = ensemble.value[leaf]
    return LeafMasks(
        base=ensemble.base,
        first=np.searchsorted(tree[kept], np.arange(len(ensemble.roots) + 1)).astype(np.int32),
        leaves=_as_int32(bits[ensemble.roots]),
        column=ensemble.column[kept],
        threshold=ensemble.threshold[kept],
        default_left=ensemble.default_left[kept],
        if_left=_as_int32(~bits[right[kept]]),
        if_right=_as_int32(~bits[left[kept]]),
        value=value,
    )


def _as_int32(bits: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    return bits.astype(np.uint32).view(np.int32)


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


@njit(cache=True, nogil=True)
def _margins_unlocked(columns, roots, column, threshold, default_left, left, right, value, base):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    return _margins(columns, roots, column, threshold, default_left, left, right, value, base)


@njit(cache=True, error_model="numpy")
def _masked_margins(  # type: ignore[no-untyped-def]  # noqa: PLR0917, C901
    columns, first, leaves, column, threshold, default_left, if_left, if_right, value, base
):
    rows, width = columns.shape
    out = np.empty(rows, dtype=np.float64)
    # One block of rows, column by column, so that a split reads its rows side by side.
    most = min((rows + _LANES - 1) // _LANES * _LANES, _BLOCK)
    block = np.zeros((width, most), dtype=np.float32)
    reach = np.empty(most, dtype=np.int32)
    reached = np.empty(most, dtype=np.float32)
    exponent = reached.view(np.int32)
    total = np.empty(most, dtype=np.float64)
    for start in range(0, rows, most):
        size = min(most, rows - start)
        for r in range(size):
            for c in range(width):
                block[c, r] = columns[start + r, c]
        total[:] = base
        for tree in range(leaves.shape[0]):
            reach[:] = leaves[tree]
            for split in range(first[tree], first[tree + 1]):
                x = block[column[split]]
                t, a, b = threshold[split], if_left[split], if_right[split]
                if default_left[split]:
                    for r in range(most):
                        reach[r] &= b if x[r] >= t else a
                else:
                    for r in range(most):
                        reach[r] &= a if x[r] < t else b
            # The number of a lone bit is the exponent of that power of two as a float.
            for r in range(most):
                reached[r] = np.float32(reach[r])
            values = value[tree]
            for r in range(most):
                total[r] += values[((exponent[r] >> 23) & 255) - 127]
        out[start : start + size] = total[:size]
    return out


@njit(cache=True, nogil=True)
def _masked_margins_unlocked(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    columns, first, leaves, column, threshold, default_left, if_left, if_right, value, base
):
    return _masked_margins(
        columns, first, leaves, column, threshold, default_left, if_left, if_right, value, base
    )
