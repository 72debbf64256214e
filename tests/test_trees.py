"""Trees: scores, exact contributions, and what is no forest."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st
from xgboost import XGBClassifier

from credit_risk import trees
from credit_risk.errors import PackageInvalid
from credit_risk.trees import LARGEST_TABLES, LEAF, WIDEST_PATH, Ensemble, from_arrays, prepare
from tests import enumeration, toys

if TYPE_CHECKING:
    import numpy.typing as npt
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


def walk(tree: Tree, row: list[float]) -> float:
    """The leaf a row reaches, found without any of the code under test."""
    while len(tree) > 1:
        column, threshold, default_left, left, right = tree
        value = row[column]
        tree = left if (default_left if value != value else value < threshold) else right  # noqa: PLR0124 - NaN
    return float(tree[0])


def contributions(
    forest: Ensemble, applicants: Columns, group: Columns, factor: list[int] | None = None
) -> npt.NDArray[np.float64]:
    """Contributions by the tables, one factor for each column unless told otherwise."""
    factor = list(range(applicants.shape[1])) if factor is None else factor
    tables = prepare(forest, group, np.array(factor, dtype=np.int32), max(factor) + 1)
    return tables.contributions(applicants)


@pytest.fixture(params=["compiled", "interpreted"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "interpreted":
        for name in ("_margins", "_parents", "_paths", "_fill", "_contributions"):
            monkeypatch.setattr(trees, name, getattr(trees, name).py_func)


@pytest.mark.usefixtures("_kernels")
def test_a_value_below_the_threshold_goes_left_and_a_missing_one_by_default() -> None:
    """As XGBoost compares: strictly less, in float32."""
    stump = (0, 0.1, True, (1.0,), (2.0,))
    other = (0, 0.1, False, (10.0,), (20.0,))
    values = np.array([[0.0], [np.float32(0.1)], [0.2], [NAN]], dtype=np.float32)

    margins = ensemble([stump, other], base=100.0).margins(values)

    assert margins.tolist() == [111.0, 122.0, 122.0, 121.0]


@pytest.mark.usefixtures("_kernels")
def test_contributions_of_one_split_are_as_worked_out_by_hand() -> None:
    """Half of the group is on each side: the applicant gets half the difference of the leaves."""
    stump = ensemble([(1, 0.5, True, (-1.0,), (3.0,))], base=7.0)
    group = np.array([[9, 0], [9, 1]], dtype=np.float32)

    tables = prepare(stump, group, np.arange(2, dtype=np.int32), 2)
    values = tables.contributions(np.array([[0, 0], [0, 1], [0, NAN]], dtype=np.float32))

    assert tables.base == 8.0
    assert values.tolist() == [[0, -2], [0, 2], [0, -2]]


@pytest.mark.usefixtures("_kernels")
def test_contributions_of_an_and_are_shared_equally() -> None:
    """1 where both columns are high: each of two equals gets half."""
    both = ensemble([(0, 0.5, False, (0.0,), (1, 0.5, False, (0.0,), (1.0,)))])
    group = np.zeros((1, 2), dtype=np.float32)

    values = contributions(both, np.array([[1, 1], [1, 0], [0, 0]], dtype=np.float32), group)

    assert values.tolist() == [[0.5, 0.5], [0, 0], [0, 0]]


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("seed", range(4))
def test_tables_agree_with_every_coalition_whether_compiled_or_not(seed: int) -> None:
    """The toy forest, 9 columns, against a group with missing values."""
    generator = np.random.default_rng(seed)
    rows_drawn = generator.choice([-1, 0, 0.5, 1, 2, 5, 7, 8, NAN], (9, 9)).astype(np.float32)
    forest = toys.forest()

    values = contributions(forest, rows_drawn[:2], rows_drawn[2:])

    for row, found in zip(rows_drawn[:2], values, strict=True):
        expected = enumeration.shapley(forest.margins, row, rows_drawn[2:])
        np.testing.assert_allclose(found, expected, atol=1e-12)


@given(st.lists(trees_of(3), min_size=1, max_size=4), rows(5), st.floats(-5, 5))
def test_a_margin_is_the_sum_of_the_leaves_reached(
    forest: list[Tree], applicants: Columns, base: float
) -> None:
    """Also where a path tests a column again and again."""
    expected = [base + sum(walk(t, row) for t in forest) for row in applicants.tolist()]

    np.testing.assert_allclose(ensemble(forest, base).margins(applicants), expected, atol=1e-12)


@given(st.lists(trees_of(4), min_size=1, max_size=3), rows(2), rows(5))
def test_contributions_are_those_of_every_coalition(
    forest: list[Tree], applicants: Columns, group: Columns
) -> None:
    """Brute force over all 2^n coalitions, missing values and repeated columns among them."""
    arrays = ensemble(forest)

    values = contributions(arrays, applicants, group)

    for row, found in zip(applicants, values, strict=True):
        expected = enumeration.shapley(arrays.margins, row, group)
        np.testing.assert_allclose(found, expected, atol=1e-12)


@given(st.lists(trees_of(3), min_size=1, max_size=3), rows(2), rows(4))
def test_columns_that_share_a_factor_are_summed(
    forest: list[Tree], applicants: Columns, group: Columns
) -> None:
    """One-hot and derived columns come back to the field they belong to."""
    arrays = ensemble(forest)
    single = contributions(arrays, applicants, group)

    shared = contributions(arrays, applicants, group, factor=[1, 0, 1, 1])

    np.testing.assert_allclose(shared[:, 0], single[:, 1], atol=1e-12)
    np.testing.assert_allclose(shared[:, 1], single[:, [0, 2, 3]].sum(axis=1), atol=1e-12)


@given(st.lists(trees_of(4), min_size=1, max_size=4), rows(3), rows(6), st.floats(-5, 5))
def test_contributions_and_base_add_up_to_the_margin(
    forest: list[Tree], applicants: Columns, group: Columns, base: float
) -> None:
    """The base is the group's mean margin."""
    arrays = ensemble(forest, base)
    tables = prepare(arrays, group, np.arange(COLUMNS, dtype=np.int32), COLUMNS)

    sums = tables.base + tables.contributions(applicants).sum(axis=1)

    assert tables.base == pytest.approx(arrays.margins(group).mean())
    np.testing.assert_allclose(sums, arrays.margins(applicants), atol=1e-12)


@given(st.lists(trees_of(3), min_size=1, max_size=2), rows(2), rows(4))
@settings(max_examples=30)
def test_a_group_counted_twice_gives_the_same(
    forest: list[Tree], applicants: Columns, group: Columns
) -> None:
    """Only shares of the group matter."""
    arrays = ensemble(forest)

    once = contributions(arrays, applicants, group)
    twice = contributions(arrays, applicants, np.concatenate([group, group]))

    np.testing.assert_allclose(once, twice, atol=1e-12)


def xgboost_arrays(model: XGBClassifier) -> Ensemble:
    """An XGBoost model's nodes, read from its own JSON."""
    learner = json.loads(model.get_booster().save_raw("json"))["learner"]

    def tree(stored: dict[str, list[Any]], node: int) -> Tree:
        if stored["left_children"][node] == -1:
            return (stored["split_conditions"][node],)
        return (
            stored["split_indices"][node],
            stored["split_conditions"][node],
            bool(stored["default_left"][node]),
            tree(stored, stored["left_children"][node]),
            tree(stored, stored["right_children"][node]),
        )

    forest = [tree(stored, 0) for stored in learner["gradient_booster"]["model"]["trees"]]
    zeros = np.zeros((1, model.n_features_in_), dtype=np.float32)
    without_base = ensemble(forest)
    base = model.predict(zeros, output_margin=True)[0] - without_base.margins(zeros)[0]
    return replace(without_base, base=float(base))


def test_contributions_agree_with_shap_on_xgboost() -> None:
    """``shap`` is the reference; its background is cut to 100 rows, so it gets no more."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(700, 6)).astype(np.float32)
    x[generator.random(x.shape) < 0.15] = NAN
    y = np.nan_to_num(x[:, 0] * x[:, 1] - x[:, 2] + generator.normal(size=700)) > 0
    model = XGBClassifier(n_estimators=60, max_depth=5, learning_rate=0.2, n_jobs=1).fit(x, y)
    group, applicants = x[:100], x[100:250]
    arrays = xgboost_arrays(model)
    explainer = shap.TreeExplainer(model, group, feature_perturbation="interventional")

    tables = prepare(arrays, group, np.arange(6, dtype=np.int32), 6)

    margins = model.predict(applicants, output_margin=True)
    np.testing.assert_allclose(arrays.margins(applicants), margins, atol=1e-5)
    expected = explainer.shap_values(applicants)
    np.testing.assert_allclose(tables.contributions(applicants), expected, atol=1e-6)
    assert tables.base == pytest.approx(float(explainer.expected_value), abs=1e-6)


def test_a_forest_without_a_tree_explains_nothing() -> None:
    """The base alone is a model too."""
    empty = ensemble([], base=0.3)
    applicants = np.zeros((2, COLUMNS), dtype=np.float32)

    assert empty.margins(applicants).tolist() == [0.3, 0.3]
    assert contributions(empty, applicants, applicants).tolist() == [[0.0] * 4] * 2


def test_a_tree_that_is_one_leaf_moves_only_the_base() -> None:
    """A leaf without a path is reached by all."""
    leaf = ensemble([(1.5,)], base=0.5)
    applicants = np.zeros((1, COLUMNS), dtype=np.float32)
    tables = prepare(leaf, applicants, np.arange(COLUMNS, dtype=np.int32), COLUMNS)

    assert tables.base == 2.0
    assert not tables.contributions(applicants).any()


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
    np.testing.assert_array_equal(
        contributions(again, applicants, applicants),
        contributions(toys.forest(), applicants, applicants),
    )


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


# What is too much.


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


def test_the_widest_path_allowed_is_still_exact() -> None:
    """Ten columns: an applicant who passes all of them shares the leaf equally."""
    forest = ensemble([chain(WIDEST_PATH)])
    group = np.full((1, WIDEST_PATH), -1, dtype=np.float32)

    values = contributions(forest, -group, group)

    np.testing.assert_allclose(values, np.full((1, WIDEST_PATH), 1 / WIDEST_PATH), atol=1e-12)


def test_a_path_that_is_too_wide_is_refused() -> None:
    """Its table would double with each column."""
    forest = ensemble([chain(WIDEST_PATH + 1)])
    applicants = np.zeros((1, WIDEST_PATH + 1), dtype=np.float32)

    with pytest.raises(PackageInvalid, match="a path tests 11 columns, exact reasons allow 10"):
        contributions(forest, applicants, applicants)


def test_tables_that_are_too_large_are_refused_before_they_are_made() -> None:
    """1,024 leaves a tree, 10 x 2^10 entries a leaf: four trees are too many."""
    forest = ensemble([complete(WIDEST_PATH)] * 4)
    applicants = np.zeros((1, WIDEST_PATH), dtype=np.float32)
    entries = 4 * 1024 * 10 * 1024

    assert entries > LARGEST_TABLES
    with pytest.raises(PackageInvalid, match=f"tables of {entries} entries, at most "):
        contributions(forest, applicants, applicants)
