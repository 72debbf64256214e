"""Tree ensembles, whatever library grew them: plain arrays, checked when loaded, and their scores.

An ensemble is a few numbers per node, loaded without running code. A row goes to the left child
when ``value < threshold``, with the value in float32 as XGBoost compares it; a missing value goes
where the node's default says.
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
