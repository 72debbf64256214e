"""Trees: scores, and what is no forest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import trees
from credit_risk.errors import PackageInvalid
from credit_risk.trees import from_arrays
from tests import toys
from tests.forests import NAN, Columns, Tree, ensemble, rows, trees_of


def walk(tree: Tree, row: list[float]) -> float:
    """The leaf a row reaches, found without any of the code under test."""
    while len(tree) > 1:
        column, threshold, default_left, left, right = tree
        value = row[column]
        tree = left if (default_left if value != value else value < threshold) else right  # noqa: PLR0124 - NaN
    return float(tree[0])


@pytest.fixture(params=["compiled", "interpreted"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "interpreted":
        monkeypatch.setattr(trees, "_margins", trees._margins.py_func)  # noqa: SLF001 - a kernel


@pytest.mark.usefixtures("_kernels")
def test_a_value_below_the_threshold_goes_left_and_a_missing_one_by_default() -> None:
    """As XGBoost compares: strictly less, in float32."""
    stump = (0, 0.1, True, (1.0,), (2.0,))
    other = (0, 0.1, False, (10.0,), (20.0,))
    values = np.array([[0.0], [np.float32(0.1)], [0.2], [NAN]], dtype=np.float32)

    margins = ensemble([stump, other], base=100.0).margins(values)

    assert margins.tolist() == [111.0, 122.0, 122.0, 121.0]


@given(st.lists(trees_of(3), min_size=1, max_size=4), rows(5), st.floats(-5, 5))
def test_a_margin_is_the_sum_of_the_leaves_reached(
    forest: list[Tree], applicants: Columns, base: float
) -> None:
    """Also where a path tests a column again and again."""
    expected = [base + sum(walk(t, row) for t in forest) for row in applicants.tolist()]

    np.testing.assert_allclose(ensemble(forest, base).margins(applicants), expected, atol=1e-12)


# What is written and read again.


def test_a_forest_survives_being_written_as_arrays() -> None:
    """What `arrays` gives, `from_arrays` takes."""
    forest = toys.forest()

    again = from_arrays(forest.arrays(), columns=9)

    assert again.base == forest.base
    for name, array in forest.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def test_a_leaf_that_was_pruned_may_stay_in_the_arrays() -> None:
    """XGBoost keeps pruned leaves; nothing reaches them and they change nothing."""
    arrays = toys.forest().arrays()
    added = {
        name: array if name in ("base", "roots") else np.append(array, array[-1:])
        for name, array in arrays.items()
    }
    applicants = np.arange(18, dtype=np.float32).reshape(2, 9)

    again = from_arrays(added, columns=9)

    assert again.margins(applicants).tolist() == toys.forest().margins(applicants).tolist()


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("left", 0, 0),  # a circle of one
        ("right", 1, 0),  # a circle of two
        ("left", 9, 8),  # backwards, into another branch
        ("left", 0, -1),
        ("right", 0, 17),
        ("right", 0, 2**31 - 1),
        ("left", 1, 4),  # both children are one leaf
        ("left", 12, 14),
        ("left", 12, 16),  # a node with two parents
        ("roots", 0, -1),
        ("roots", 0, 17),
        ("roots", 1, 0),  # a tree counted twice
        ("roots", 1, 1),  # a tree within a tree
        ("roots", 2, 11),  # a split that nothing reaches
        ("column", 0, 9),
        ("column", 0, -2),
        ("column", 0, 2**31 - 1),
        ("value", 3, NAN),
        ("value", 3, np.inf),
        ("threshold", 0, NAN),
        ("base", 0, NAN),
        ("base", 0, -np.inf),
    ],
)
def test_nodes_that_form_no_forest_are_refused(name: str, place: int, value: float) -> None:
    """No array may lead a walk in a circle, outside, or to what is no number."""
    arrays = {n: a.copy() for n, a in toys.forest().arrays().items()}
    arrays[name][place] = value

    with pytest.raises(PackageInvalid, match=r"^trees: the nodes do not form a forest"):
        from_arrays(arrays, columns=9)


def test_a_split_that_only_leads_to_itself_is_refused() -> None:
    """Nothing else reaches it, but whoever walks up from it never ends."""
    arrays = {n: a.copy() for n, a in toys.forest().arrays().items()}
    arrays["left"][0] = 3
    arrays["left"][1] = 1

    with pytest.raises(PackageInvalid, match=r"^trees: the nodes do not form a forest"):
        from_arrays(arrays, columns=9)


@pytest.mark.parametrize(
    "name", ["roots", "column", "threshold", "default_left", "left", "right", "value"]
)
def test_an_array_of_another_type_or_shape_is_refused_by_name(name: str) -> None:
    """The kernels trust the types they were compiled for."""
    arrays = toys.forest().arrays()
    wrong_type: npt.NDArray[Any] = arrays[name].astype(np.int64)
    wrong_shape = arrays[name].reshape(-1, 1)

    for wrong in (wrong_type, wrong_shape):
        with pytest.raises(PackageInvalid, match=f"^trees: {name} is not a flat array of "):
            from_arrays(arrays | {name: wrong}, columns=9)


@pytest.mark.parametrize("name", ["threshold", "default_left", "left", "right", "value"])
def test_an_array_of_another_length_is_refused_by_name(name: str) -> None:
    """One entry for each node."""
    arrays = toys.forest().arrays()

    with pytest.raises(PackageInvalid, match=f"^trees: {name} has 16 entries for 17 nodes$"):
        from_arrays(arrays | {name: arrays[name][:-1]}, columns=9)


@pytest.mark.parametrize("name", list(toys.forest().arrays()))
def test_an_array_that_is_missing_is_refused_by_name(name: str) -> None:
    """All eight are needed."""
    arrays = toys.forest().arrays()
    del arrays[name]

    with pytest.raises(PackageInvalid, match=f"^trees: array missing or malformed: '{name}'"):
        from_arrays(arrays, columns=9)


@pytest.mark.parametrize(
    "base", [np.zeros(2), np.zeros(0), np.array(["much"]), np.array([1j])], ids=str
)
def test_a_base_that_is_not_one_number_is_refused(base: npt.NDArray[Any]) -> None:
    """It is added to every margin."""
    with pytest.raises(PackageInvalid, match=r"^trees: array missing or malformed: "):
        from_arrays(toys.forest().arrays() | {"base": base}, columns=9)


@given(
    st.lists(trees_of(3), min_size=1, max_size=4) | st.lists(trees_of(6), min_size=1, max_size=2),
    rows(18),
    st.floats(-5, 5),
)
def test_many_rows_at_a_time_get_the_same_margins_to_the_last_bit(
    forest: list[Tree], applicants: Columns, base: float
) -> None:
    """Missing values, repeated columns and lone leaves included."""
    grown = ensemble(forest, base)

    scorer = trees.scorer(grown)

    walked = grown.margins(applicants)
    for rows_at_a_time in (1, 7, 8, 16, 17, 18):
        together = applicants[:rows_at_a_time]
        assert scorer.margins(together).tobytes() == walked[:rows_at_a_time].tobytes()
        unlocked = replace(scorer, unlocked=True)
        assert unlocked.margins(together).tobytes() == walked[:rows_at_a_time].tobytes()


@pytest.mark.parametrize(("depth", "by_masks"), [(5, True), (6, False)])
def test_full_trees_of_32_leaves_are_scored_by_masks_and_larger_ones_by_walking(
    depth: int,
    by_masks: bool,  # noqa: FBT001
) -> None:
    """A leaf is a bit of 32; the last of them is the sign of the number."""

    def full(levels: int, first: float) -> Tree:
        half = 2 ** (levels - 1)
        if levels == 0:
            return (first,)
        return (
            levels,
            0.0,
            levels % 2 == 0,
            full(levels - 1, first),
            full(levels - 1, first + half),
        )

    grown = ensemble([full(depth, 0.0), (7.0,)], base=0.5)
    applicants = np.random.default_rng(5).normal(size=(1_300, 7)).astype(np.float32)

    many = trees.scorer(grown)

    assert (many.masks is not None) == by_masks
    walked = grown.margins(applicants)
    for number in (1, 7, 8, 15, 16, 17, 511, 512, 513, 1_024, 1_300):
        assert many.margins(applicants[:number]).tobytes() == walked[:number].tobytes()
    assert many.margins(applicants[:0]).shape == (0,)
    assert len(np.unique(many.margins(applicants))) == 2**depth
