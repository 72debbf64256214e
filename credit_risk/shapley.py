"""Exact interventional Shapley values of tree ensembles, from a reference group counted once.

For one leaf of value v let F be the distinct columns on its path. An applicant x and a reference
row z each pass a subset of F (a column tested twice is passed when both tests are): the bit
patterns P(x) and P(z). In the game "columns in S from x, the others from z" the leaf is reached
when each column of F is passed by its owner, so it contributes only where P(x) | P(z) covers F.
With a = columns passed by x alone and b = by z alone, each x-only column receives
``+v (a-1)! b! / (a+b)!`` and each z-only column ``-v a! (b-1)! / (a+b)!`` (Lundberg et al., Nature
Machine Intelligence 2, 2020, algorithm 3, for one reference row). That depends on x only through
P(x), and on the group only through how often each P(z) occurs.

So the group is *counted* when a package is made (`count`), and the counts are what a package
holds. When it is loaded they are made into *tables* (`prepare`). A table is not made for each leaf
but for each block, a subtree of at most four leaves: its state is the pattern of the path to it
and the outcomes of its own tests, and its row of the table is the sum of its leaves'
contributions, summed to factors. An explanation follows each test once, then adds one short row
for each block; the size of the group does not matter.

Ensembles whose tables would be too large are explained from the counts themselves, just as
exactly, at a cost that grows with the number of different patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from credit_risk.errors import PackageInvalid
from credit_risk.trees import LEAF

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from credit_risk.trees import Ensemble

    Floats = npt.NDArray[np.float64]
    Columns = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int32]

WIDEST_PATH = 16
"""Most distinct columns on one path; patterns are kept in 16 bits."""

LARGEST_COUNTS = 64_000_000
"""Most patterns that all leaves together may have: 256 MB while the group is counted."""

LARGEST_TABLES = 16_000_000
"""Most entries in all tables of an ensemble: 128 MB. Beyond, counts take their place."""

BLOCK_HEIGHT = 2
"""Tests on the longest path within a block. On a 500-tree ensemble of depth 5 an explanation took
79 us with a table for each leaf, 50 with height 1, 33 with height 2 and 25 with height 3, whose
tables are four times as large (one core)."""


TOGETHER_FROM = 6
"""So many rows are explained sooner together than one after the other."""
_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each node lies: arrays over nodes, of shape (nodes,) but for ``path``.

    ``width`` is the number of distinct columns tested above a node and ``path[node, :width]``
    those columns, in order of their first test. ``place`` is the place of a split's own column in
    that order; a column that was not tested above has the next one. ``height`` is the number of
    tests on the longest path below. Nodes that no root leads to have height -1.
    """

    width: Ints
    place: Ints
    height: Ints
    path: Ints

    def leaves(self, ensemble: Ensemble) -> npt.NDArray[np.intp]:
        """The leaves that a row can reach, in order of their numbers."""
        return np.flatnonzero((ensemble.column == LEAF) & (self.height >= 0))


def layout(ensemble: Ensemble, players: Ints | None = None) -> Layout:
    """Follow every path of an ensemble.

    Args:
        ensemble: the trees.
        players: shape (c,), the first of the columns that come from x or from z together, as one
            column would; None where each is its own.

    Raises:
        PackageInvalid: a path tests more than `WIDEST_PATH` columns.
    """
    column = ensemble.column
    if players is not None:
        column = np.where(column == LEAF, LEAF, players[column])
    width, place, height, path = _layout(ensemble.roots, column, ensemble.left, ensemble.right)
    widest = int(width.max(initial=0))
    if widest > WIDEST_PATH:
        msg = f"trees: a path tests more than {WIDEST_PATH} columns, too many for exact reasons"
        raise PackageInvalid(msg)
    return Layout(width, place, height, path)


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each pattern occurs in a reference group, leaf after leaf.

    ``first`` says where each leaf's entries begin in ``pattern`` and ``count``, shape
    (leaves + 1,); leaves are those of `Layout.leaves`, in that order. ``rows`` is the size of the
    group.
    """

    rows: int
    first: npt.NDArray[np.int64]
    pattern: npt.NDArray[np.uint16]
    count: npt.NDArray[np.uint32]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything as named arrays, for `credit_risk.package.npz`."""
        rows = np.array([self.rows], dtype=np.int64)
        return {"rows": rows, "first": self.first, "pattern": self.pattern, "count": self.count}


def count(ensemble: Ensemble, reference: Columns, players: Ints | None = None) -> Counts:
    """Count a reference group through every leaf.

    Args:
        ensemble: the trees.
        reference: shape (m, c), the encoded reference group, m >= 1.
        players: see `layout`.

    Raises:
        PackageInvalid: see `layout`; or there are more than `LARGEST_COUNTS` possible patterns.
    """
    paths = layout(ensemble, players)
    leaves = paths.leaves(ensemble)
    sizes = np.int64(1) << paths.width[leaves]
    if int(sizes.sum()) > LARGEST_COUNTS:
        msg = f"trees: {int(sizes.sum())} patterns of reference rows, at most {LARGEST_COUNTS}"
        raise PackageInvalid(msg)
    offset = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tests = _tests(ensemble, paths)
    dense = _count(reference, *tests, leaves, offset)  # type: ignore[call-arg]
    occurring = np.flatnonzero(dense)
    leaf = np.searchsorted(offset, occurring, side="right") - 1
    return Counts(
        rows=len(reference),
        first=np.searchsorted(occurring, offset).astype(np.int64),
        pattern=(occurring - offset[leaf]).astype(np.uint16),
        count=dense[occurring].astype(np.uint32),
    )


def counts_from_arrays(
    arrays: Mapping[str, npt.NDArray[Any]], ensemble: Ensemble, players: Ints | None = None
) -> Counts:
    """Rebuild counts from `Counts.arrays`, checking that they are of this ensemble.

    For ``players`` see `layout`.

    Raises:
        PackageInvalid: an array is missing or has another type or shape, a pattern is impossible,
            or a leaf's counts are not those of the whole group.
    """
    kinds = {"rows": np.int64, "first": np.int64, "pattern": np.uint16, "count": np.uint32}
    for name, kind in kinds.items():
        if name not in arrays or arrays[name].dtype != kind or arrays[name].ndim != 1:
            msg = f"explanation: {name} is not a flat array of {np.dtype(kind).name}"
            raise PackageInvalid(msg)
    paths = layout(ensemble, players)
    widths = paths.width[paths.leaves(ensemble)]
    first, pattern, occurs = arrays["first"], arrays["pattern"], arrays["count"]
    lengths = np.diff(first)
    rows = int(arrays["rows"][0]) if len(arrays["rows"]) == 1 else 0
    fits = (
        rows > 0
        and len(first) == len(widths) + 1
        and len(pattern) == len(occurs)
        and first[0] == 0
        and first[-1] == len(pattern)
        and bool((lengths > 0).all())
    )
    if fits:
        possible = (np.int64(1) << np.repeat(widths, lengths)) > pattern
        totals = np.add.reduceat(occurs.astype(np.int64), first[:-1])
        fits = bool(possible.all() and (totals == rows).all())
    if not fits:
        msg = "explanation: the counts are not those of the model's trees"
        raise PackageInvalid(msg)
    return Counts(rows, first, pattern, occurs)


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables of all blocks, ready to explain. ``base`` is the group's mean margin.

    ``above`` are the tests above the blocks, ``blocks`` the blocks' own, flat, as `_explain` takes
    them; ``table`` holds all rows.
    """

    base: float
    factors: int
    above: tuple[Any, ...]
    blocks: tuple[Any, ...]
    table: Floats

    @property
    def method(self) -> str:
        """How contributions are computed, for the record."""
        return "interventional Shapley values, exact, from tables over the trees' paths"

    def contributions(self, columns: Columns) -> Floats:
        """Exact interventional Shapley values of the margin.

        Args:
            columns: shape (n, c), encoded applications.

        Returns:
            Shape (n, factors): each column's value summed to its factor. A row's sum plus
            ``base`` is its margin.
        """
        flat = (*self.above, *self.blocks, self.table)
        explain = _explain if len(columns) < TOGETHER_FROM else _explain_together
        values: Floats = explain(columns, self.factors, *flat)
        return values


@dataclass(frozen=True, slots=True)
class Counting:
    """Counts of an ensemble whose tables would be too large; explains as `Tables` does."""

    base: float
    factors: int
    arguments: tuple[Any, ...]
    rows: int

    @property
    def method(self) -> str:
        """How contributions are computed, for the record."""
        return "interventional Shapley values, exact, from counted patterns of the trees' paths"

    def contributions(self, columns: Columns) -> Floats:
        """See `Tables.contributions`."""
        flat = (*self.arguments, self.rows)
        values: Floats = _explain_counts(columns, self.factors, *flat)
        return values


def prepare(
    ensemble: Ensemble,
    counts: Counts,
    factor: Ints,
    factors: int,
    players: Ints | None = None,
    *,
    tables_most: int = LARGEST_TABLES,
) -> Tables | Counting:
    """Make an ensemble ready to explain.

    Args:
        ensemble: the trees.
        counts: of the reference group.
        factor: shape (c,), the factor each column is reported under.
        factors: how many factors there are.
        players: see `layout`; those of one player have one factor.
        tables_most: how many entries all tables may hold.

    Returns:
        `Tables`, or `Counting` where they would hold more.
    """
    paths = layout(ensemble, players)
    leaves = paths.leaves(ensemble)
    full = (np.int64(1) << np.repeat(paths.width[leaves], np.diff(counts.first))) - 1
    values = np.repeat(ensemble.value[leaves], np.diff(counts.first))
    reached = counts.pattern == full
    base = ensemble.base + float((values * counts.count)[reached].sum()) / counts.rows

    roots, slots = _block_roots(ensemble, paths)
    test_first, test, factor_first, block_factor = _blocks(
        roots, ensemble.column, ensemble.left, ensemble.right, paths.width, paths.path, factor
    )
    states = np.int64(1) << (paths.width[roots] + np.diff(test_first))
    sizes = states * np.diff(factor_first)
    widest = int(paths.width.max(initial=0))
    if int(sizes.sum()) > tables_most:
        arguments = (
            *_tests(ensemble, paths),
            leaves,
            paths.width,
            paths.path,
            factor,
            ensemble.value,
            *(counts.first, counts.pattern, counts.count),
            _weights(widest),
        )
        return Counting(base, factors, arguments, counts.rows)
    offset = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    number = np.full(len(ensemble.column), -1, dtype=np.int64)
    number[leaves] = np.arange(len(leaves))
    table = _tabulate(
        *(roots, offset, test_first, factor_first, block_factor),
        *(ensemble.column, ensemble.left, ensemble.right, ensemble.value),
        *(paths.width, paths.place, paths.path, factor, factors),
        *(number, counts.first, counts.pattern, counts.count, counts.rows, _weights(widest)),
    )
    above = np.flatnonzero(paths.height > BLOCK_HEIGHT)
    return Tables(
        base=base,
        factors=factors,
        above=(
            ensemble.column[above],
            ensemble.threshold[above],
            ensemble.default_left[above],
            paths.place[above],
            paths.place[above] == paths.width[above],
            slots[above],
            slots[ensemble.left[above]],
            slots[ensemble.right[above]],
        ),
        blocks=(
            slots[roots],
            paths.width[roots],
            test_first,
            ensemble.column[test],
            ensemble.threshold[test],
            ensemble.default_left[test],
            factor_first,
            block_factor,
            offset,
        ),
        table=table,
    )


def _block_roots(ensemble: Ensemble, paths: Layout) -> tuple[npt.NDArray[np.intp], Ints]:
    """The node each block begins at, and a number for each node that needs a pattern."""
    above = np.flatnonzero(paths.height > BLOCK_HEIGHT)
    children = np.concatenate([ensemble.left[above], ensemble.right[above], ensemble.roots])
    roots = np.sort(children[paths.height[children] <= BLOCK_HEIGHT]).astype(np.intp)
    slots = np.full(len(ensemble.column), -1, dtype=np.int32)
    numbered = np.concatenate([above, roots])
    slots[numbered] = np.arange(len(numbered))
    return roots, slots


def _tests(ensemble: Ensemble, paths: Layout) -> tuple[Any, ...]:
    """All tests a row can come to, parents before children, as `_follow` takes them."""
    splits = np.flatnonzero((ensemble.column != LEAF) & (paths.height >= 0))
    return (
        splits,
        ensemble.column,
        ensemble.threshold,
        ensemble.default_left,
        ensemble.left,
        ensemble.right,
        paths.place,
        paths.place == paths.width,
    )


def _weights(widest: int) -> Floats:
    """``[a, b]``: (a-1)! b! / (a+b)!, the share of a leaf's value of each of a owners."""
    weights = np.zeros((widest + 1, widest + 1))
    for a in range(1, widest + 1):
        for b in range(widest + 1 - a):
            weights[a, b] = factorial(a - 1) * factorial(b) / factorial(a + b)
    return weights


# The kernels below take flat arrays; numba compiles them once and keeps them on disk.


@njit(cache=True)
def _layout(roots, column, left, right):  # type: ignore[no-untyped-def]
    nodes = column.shape[0]
    width = np.zeros(nodes, dtype=np.int32)
    place = np.zeros(nodes, dtype=np.int32)
    height = np.full(nodes, -1, dtype=np.int32)
    path = np.zeros((nodes, WIDEST_PATH + 1), dtype=np.int32)
    for node in roots:
        height[node] = 0
    for node in range(nodes):
        if height[node] < 0 or column[node] == LEAF:
            continue
        at = 0
        while at < width[node] and path[node, at] != column[node]:
            at += 1
        place[node] = at
        for child in (left[node], right[node]):
            height[child] = 0
            width[child] = max(width[node], at + 1)
            if width[child] > WIDEST_PATH:
                return width, place, height, path
            path[child, : width[node]] = path[node, : width[node]]
            path[child, at] = column[node]
    for node in range(nodes - 1, -1, -1):
        if height[node] >= 0 and column[node] != LEAF:
            height[node] = 1 + max(height[left[node]], height[right[node]])
    return width, place, height, path


@njit(cache=True)
def _follow(row, splits, column, threshold, default_left, left, right, place, fresh, pattern):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Fill ``pattern`` with which of the columns above each node the row passes."""
    for node in splits:
        x = row[column[node]]
        goes_left = default_left[node] if np.isnan(x) else x < threshold[node]
        above = pattern[node]
        bit = np.int32(1) << place[node]
        # A new column is passed on one side; one tested before stays passed there at most.
        passed = above | bit if fresh[node] else above
        failed = above if fresh[node] else above & ~bit
        pattern[left[node]] = passed if goes_left else failed
        pattern[right[node]] = failed if goes_left else passed


@njit(cache=True)
def _count(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    reference, splits, column, threshold, default_left, left, right, place, fresh, leaves, offset
):
    counts = np.zeros(offset[-1], dtype=np.int32)
    pattern = np.zeros(column.shape[0], dtype=np.int32)
    for r in range(reference.shape[0]):
        row = reference[r]
        _follow(row, splits, column, threshold, default_left, left, right, place, fresh, pattern)
        for i in range(leaves.shape[0]):
            counts[offset[i] + pattern[leaves[i]]] += 1
    return counts


@njit(cache=True)
def _blocks(roots, column, left, right, width, path, factor):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Tests and factors of each block, flat; a block's first test is its root's."""
    test_first = np.zeros(roots.shape[0] + 1, dtype=np.int64)
    test = np.zeros(3 * roots.shape[0], dtype=np.int64)
    factor_first = np.zeros(roots.shape[0] + 1, dtype=np.int64)
    block_factor = np.zeros((WIDEST_PATH + 3) * roots.shape[0], dtype=np.int32)
    tests = 0
    named = 0
    for b in range(roots.shape[0]):
        root = roots[b]
        if column[root] != LEAF:
            for node in (root, np.intp(left[root]), np.intp(right[root])):
                if column[node] != LEAF:
                    test[tests] = node
                    tests += 1
        test_first[b + 1] = tests
        start = named
        for k in range(width[root] + tests - test_first[b]):
            if k < width[root]:
                one = factor[path[root, k]]
            else:
                one = factor[column[test[test_first[b] + k - width[root]]]]
            known = False
            for other in range(start, named):
                known = known or block_factor[other] == one
            if not known:
                block_factor[named] = one
                named += 1
        factor_first[b + 1] = named
    return test_first, test[:tests].copy(), factor_first, block_factor[:named].copy()


@njit(cache=True)
def _leaf_table(table, width, value, first, end, pattern, count, rows, weights):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Fill ``table[P(x) * width + j]`` with what each column of one leaf's path receives."""
    everything = (1 << width) - 1
    table[: (everything + 1) * width] = 0.0
    for entry in range(first, end):
        z = np.int64(pattern[entry])
        share = value * count[entry] / rows
        # Only patterns of x that hold what z lacks let the leaf be reached; walk the subsets of
        # z's own bits that x may or may not hold as well.
        lacking = everything & ~z
        both = z
        while True:
            a = 0
            b = 0
            for j in range(width):
                if lacking >> j & 1:
                    a += 1
                elif not both >> j & 1:
                    b += 1
            row = (lacking | both) * width
            for j in range(width):
                if lacking >> j & 1:
                    table[row + j] += share * weights[a, b]
                elif not both >> j & 1:
                    table[row + j] -= share * weights[b, a]
            if both == 0:
                break
            both = (both - 1) & z


@njit(cache=True)
def _tabulate(  # type: ignore[no-untyped-def]  # noqa: PLR0917, C901
    roots, offset, test_first, factor_first, block_factor,
    column, left, right, value, width, place, path, factor, factors,
    number, first, pattern, count, rows, weights,
):  # fmt: skip
    table = np.zeros(offset[-1], dtype=np.float64)
    widest = weights.shape[0] - 1
    leaf_table = np.zeros((1 << widest) * max(widest, 1), dtype=np.float64)
    position = np.zeros(factors, dtype=np.int64)
    route = np.zeros(BLOCK_HEIGHT, dtype=np.int64)
    for b in range(roots.shape[0]):
        root = roots[b]
        above = width[root]
        names = factor_first[b + 1] - factor_first[b]
        for k in range(names):
            position[block_factor[factor_first[b] + k]] = k
        states = 1 << (above + test_first[b + 1] - test_first[b])
        # A block of height two has at most four leaves; which one, two bits say.
        for turn in range(4):
            leaf = root
            depth = 0
            while column[leaf] != LEAF:
                route[depth] = leaf
                leaf = left[leaf] if turn >> depth & 1 else right[leaf]
                depth += 1
            if turn >> depth:
                continue  # a bit that no test used makes no leaf of its own
            i = number[leaf]
            wide = width[leaf]
            _leaf_table(
                leaf_table, wide, value[leaf], first[i], first[i + 1], pattern, count, rows, weights
            )
            for state in range(states):
                passed = state & ((1 << above) - 1)
                for d in range(depth):
                    test = route[d]
                    # Tests are numbered root, left, right, leaves left out.
                    bit = above
                    if d == 1:
                        bit += 1
                        if test == right[root] and column[left[root]] != LEAF:
                            bit += 1
                    agrees = (state >> bit & 1) == (turn >> d & 1)
                    mark = 1 << place[test]
                    if place[test] == width[test]:
                        passed |= mark if agrees else 0
                    elif not agrees:
                        passed &= ~mark
                row = offset[b] + state * names
                for j in range(wide):
                    at = position[factor[path[leaf, j]]]
                    table[row + at] += leaf_table[passed * wide + j]
    return table


@njit(cache=True)
def _explain(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    columns, factors,
    column, threshold, default_left, place, fresh, slot, left, right,
    block_slot, block_width, test_first, test_column, test_threshold, test_default_left,
    factor_first, block_factor, offset, table,
):  # fmt: skip
    out = np.zeros((columns.shape[0], factors), dtype=np.float64)
    pattern = np.zeros(column.shape[0] + block_slot.shape[0], dtype=np.int32)
    for r in range(columns.shape[0]):
        for i in range(column.shape[0]):
            x = columns[r, column[i]]
            goes_left = default_left[i] if np.isnan(x) else x < threshold[i]
            above = pattern[slot[i]]
            bit = np.int32(1) << place[i]
            passed = above | bit if fresh[i] else above
            failed = above if fresh[i] else above & ~bit
            pattern[left[i]] = passed if goes_left else failed
            pattern[right[i]] = failed if goes_left else passed
        for b in range(block_slot.shape[0]):
            state = np.int64(pattern[block_slot[b]])
            bit = block_width[b]
            for t in range(test_first[b], test_first[b + 1]):
                x = columns[r, test_column[t]]
                goes_left = test_default_left[t] if np.isnan(x) else x < test_threshold[t]
                state |= np.int64(goes_left) << bit
                bit += 1
            start, end = factor_first[b], factor_first[b + 1]
            row = offset[b] + state * (end - start)
            for k in range(end - start):
                out[r, block_factor[start + k]] += table[row + k]
    return out


@njit(cache=True, error_model="numpy")
def _explain_together(  # type: ignore[no-untyped-def]  # noqa: PLR0917, C901
    columns, factors,
    column, threshold, default_left, place, fresh, slot, left, right,
    block_slot, block_width, test_first, test_column, test_threshold, test_default_left,
    factor_first, block_factor, offset, table,
):  # fmt: skip
    rows, width = columns.shape
    out = np.zeros((rows, factors), dtype=np.float64)
    most = min(rows, _TOGETHER)
    # Test by test and not row by row: a test meets its rows side by side, and the table of a
    # block stays near while all of them read it. Each row's sum is made in the same order.
    side = np.empty((width, most), dtype=np.float32)
    pattern = np.zeros((column.shape[0] + block_slot.shape[0], most), dtype=np.int32)
    state = np.empty(most, dtype=np.int32)
    for begin in range(0, rows, most):
        size = min(most, rows - begin)
        for r in range(size):
            for c in range(width):
                side[c, r] = columns[begin + r, c]
        for i in range(column.shape[0]):
            x = side[column[i]]
            t = threshold[i]
            above = pattern[slot[i]]
            to_left = pattern[left[i]]
            to_right = pattern[right[i]]
            bit = np.int32(1) << np.int32(place[i])
            gained = bit if fresh[i] else np.int32(0)
            lost = np.int32(0) if fresh[i] else bit
            missing_left = default_left[i]
            for r in range(size):
                # Of a missing value, no comparison is true.
                goes_left = not (x[r] >= t) if missing_left else x[r] < t
                passed = above[r] | gained
                failed = above[r] & ~lost
                to_left[r] = passed if goes_left else failed
                to_right[r] = failed if goes_left else passed
        for b in range(block_slot.shape[0]):
            known = pattern[block_slot[b]]
            for r in range(size):
                state[r] = known[r]
            place_of = np.int32(block_width[b])
            for j in range(test_first[b], test_first[b + 1]):
                x = side[test_column[j]]
                t = test_threshold[j]
                mark = np.int32(1) << place_of
                missing_left = test_default_left[j]
                for r in range(size):
                    goes_left = not (x[r] >= t) if missing_left else x[r] < t
                    state[r] |= mark if goes_left else np.int32(0)
                place_of += np.int32(1)
            start = factor_first[b]
            names = factor_first[b + 1] - start
            for r in range(size):
                row = offset[b] + np.int64(state[r]) * names
                for k in range(names):
                    out[begin + r, block_factor[start + k]] += table[row + k]
    return out


@njit(cache=True)
def _explain_counts(  # type: ignore[no-untyped-def]  # noqa: C901, PLR0917
    columns, factors,
    splits, column, threshold, default_left, left, right, place, fresh,
    leaves, width, path, factor, value, first, pattern, count, weights, rows,
):  # fmt: skip
    out = np.zeros((columns.shape[0], factors), dtype=np.float64)
    passes = np.zeros(column.shape[0], dtype=np.int32)
    for r in range(columns.shape[0]):
        _follow(
            columns[r], splits, column, threshold, default_left, left, right, place, fresh, passes
        )
        for i in range(leaves.shape[0]):
            leaf = leaves[i]
            x = np.int64(passes[leaf])
            everything = (1 << width[leaf]) - 1
            for entry in range(first[i], first[i + 1]):
                z = np.int64(pattern[entry])
                if x | z != everything:
                    continue
                share = value[leaf] * count[entry] / rows
                a = 0
                b = 0
                for j in range(width[leaf]):
                    if not z >> j & 1:
                        a += 1
                    elif not x >> j & 1:
                        b += 1
                for j in range(width[leaf]):
                    if not z >> j & 1:
                        out[r, factor[path[leaf, j]]] += share * weights[a, b]
                    elif not x >> j & 1:
                        out[r, factor[path[leaf, j]]] -= share * weights[b, a]
    return out
