"""Tree ensembles written by hand or drawn by Hypothesis, for tests of scores and explanations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from credit_risk.trees import LEAF, Ensemble

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Columns = npt.NDArray[np.float32]

COLUMNS = 4
NAN = float("nan")
# Thresholds and values meet, so that "less than" is told from "at most".
THRESHOLDS = (-1.0, 0.0, 0.5, 2.0)
VALUES = (-2.0, -1.0, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, NAN)

Tree = tuple[Any, ...]
"""A leaf's (value,), or (column, threshold, default_left, left tree, right tree)."""


def ensemble(forest: list[Tree], base: float = 0.0) -> Ensemble:
    """Nested trees as arrays, parents before children."""
    nodes: list[tuple[int, float, bool, int, int, float]] = []

    def add(tree: Tree) -> int:
        place = len(nodes)
        if len(tree) == 1:
            nodes.append((LEAF, 0.0, False, 0, 0, tree[0]))
            return place
        column, threshold, default_left, left, right = tree
        nodes.append((column, threshold, default_left, 0, 0, 0.0))
        children = (add(left), add(right))
        nodes[place] = (column, threshold, default_left, *children, 0.0)
        return place

    roots = [add(tree) for tree in forest]
    parts = list(zip(*nodes, strict=True)) or [()] * 6
    return Ensemble(
        base=base,
        roots=np.array(roots, dtype=np.int32),
        column=np.array(parts[0], dtype=np.int32),
        threshold=np.array(parts[1], dtype=np.float32),
        default_left=np.array(parts[2], dtype=np.bool_),
        left=np.array(parts[3], dtype=np.int32),
        right=np.array(parts[4], dtype=np.int32),
        value=np.array(parts[5], dtype=np.float64),
    )


def trees_of(depth: int) -> SearchStrategy[Tree]:
    """Random trees; few columns, so that paths often test one twice."""
    leaf = st.tuples(st.floats(-3, 3))
    if depth == 0:
        return leaf
    split = st.tuples(
        st.integers(0, COLUMNS - 1),
        st.sampled_from(THRESHOLDS),
        st.booleans(),
        trees_of(depth - 1),
        trees_of(depth - 1),
    )
    return split | leaf


def rows(most: int) -> SearchStrategy[Columns]:
    """Encoded rows, missing values among them."""
    row = st.lists(st.sampled_from(VALUES), min_size=COLUMNS, max_size=COLUMNS)
    return st.lists(row, min_size=1, max_size=most).map(lambda r: np.array(r, dtype=np.float32))


def chain(columns: int) -> Tree:
    """A tree with one path that tests every column once."""
    tree: Tree = (1.0,)
    for column in range(columns):
        tree = (column, 0.0, True, (0.0,), tree)
    return tree


def complete(depth: int) -> Tree:
    """A tree whose every path tests one column a level."""
    tree: Tree = (1.0,)
    for column in range(depth):
        tree = (column, 0.0, True, tree, tree)
    return tree
