"""Shapley values: exact, however they are looked up, and added up to what they explain."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st
from xgboost import XGBClassifier

from credit_risk import shapley
from credit_risk.errors import PackageInvalid
from credit_risk.shapley import WIDEST_PATH
from credit_risk.trees import Ensemble, from_arrays
from tests import enumeration, toys
from tests.forests import (
    COLUMNS,
    NAN,
    Columns,
    Tree,
    chain,
    complete,
    ensemble,
    rows,
    trees_of,
)


def prepared(
    forest: Ensemble,
    group: Columns,
    factor: list[int] | None = None,
    players: list[int] | None = None,
) -> tuple[shapley.Tables, shapley.Counting]:
    """The same explanation both ways, one factor for each column unless told otherwise."""
    factor = list(range(group.shape[1])) if factor is None else factor
    together = None if players is None else np.array(players, dtype=np.int32)
    counts = shapley.count(forest, group, together)
    arguments = forest, counts, np.array(factor, dtype=np.int32), max(factor) + 1, together
    tables = shapley.prepare(*arguments)
    counting = shapley.prepare(*arguments, tables_most=-1)
    assert isinstance(tables, shapley.Tables)
    assert isinstance(counting, shapley.Counting)
    return tables, counting


def contributions(
    forest: Ensemble,
    applicants: Columns,
    group: Columns,
    factor: list[int] | None = None,
    players: list[int] | None = None,
) -> npt.NDArray[np.float64]:
    """Contributions by the tables, after a comparison with those by counts."""
    tables, counting = prepared(forest, group, factor, players)
    values = tables.contributions(applicants)
    np.testing.assert_allclose(counting.contributions(applicants), values, atol=1e-12)
    assert counting.base == tables.base
    return values


KERNELS = (
    *("_layout", "_follow", "_count", "_blocks", "_leaf_table", "_tabulate"),
    *("_explain", "_explain_together", "_explain_counts"),
)


@pytest.fixture(params=["compiled", "interpreted"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "interpreted":
        for name in KERNELS:
            monkeypatch.setattr(shapley, name, getattr(shapley, name).py_func)


@pytest.mark.usefixtures("_kernels")
def test_contributions_of_one_split_are_as_worked_out_by_hand() -> None:
    """Half of the group is on each side: the applicant gets half the difference of the leaves."""
    stump = ensemble([(1, 0.5, True, (-1.0,), (3.0,))], base=7.0)
    group = np.array([[9, 0], [9, 1]], dtype=np.float32)

    tables, _ = prepared(stump, group)
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


@given(st.lists(trees_of(4), min_size=1, max_size=3), rows(2), rows(5))
def test_columns_of_one_player_come_together(
    forest: list[Tree], applicants: Columns, group: Columns
) -> None:
    """Both from the applicant or both from the group: three players over four columns."""
    arrays = ensemble(forest)
    player_of = [0, 1, 1, 2]

    values = contributions(arrays, applicants, group, player_of, players=[0, 1, 1, 3])

    for row, found in zip(applicants, values, strict=True):
        everybody = np.vstack([row, group])

        def score(whose: npt.NDArray[Any], rows: Columns = everybody) -> npt.NDArray[np.float64]:
            return arrays.margins(rows[whose[:, player_of], range(4)])

        theirs = np.repeat(np.arange(1, len(everybody))[:, np.newaxis], 3, axis=1)
        expected = enumeration.shapley(score, np.zeros(3, dtype=int), theirs)
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
    tables = prepared(arrays, group)[0]

    sums = tables.base + tables.contributions(applicants).sum(axis=1)

    assert tables.base == pytest.approx(arrays.margins(group).mean())
    np.testing.assert_allclose(sums, arrays.margins(applicants), atol=1e-12)


@given(st.lists(trees_of(4), min_size=1, max_size=3), rows(70), rows(4))
@settings(max_examples=20)
def test_rows_explained_together_are_explained_as_each_alone(
    forest: list[Tree], applicants: Columns, group: Columns
) -> None:
    """To the last bit, missing values included, whatever the size of the last part."""
    tables = prepared(ensemble(forest), group)[0]
    alone = np.vstack([tables.contributions(row[np.newaxis]) for row in applicants])
    assert 1 < shapley.TOGETHER_FROM <= 6

    for number in (2, 5, 6, 64, 65, 70):
        together = tables.contributions(applicants[:number])
        assert together.tobytes() == alone[:number].tobytes()


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

    tables = prepared(arrays, group)[0]

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
    tables = prepared(leaf, applicants)[0]

    assert tables.base == 2.0
    assert not tables.contributions(applicants).any()


# What a package holds.


def test_counts_survive_being_written_as_arrays() -> None:
    """What `arrays` gives, `counts_from_arrays` takes."""
    group = toys.reference_columns()
    counts = shapley.count(toys.forest(), group)

    again = shapley.counts_from_arrays(counts.arrays(), toys.forest())

    assert again.rows == len(group)
    for name, array in counts.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def test_each_leaf_counts_the_whole_group() -> None:
    """Every row of the group has one pattern at every leaf."""
    group = toys.reference_columns()
    counts = shapley.count(toys.forest(), group)

    totals = np.add.reduceat(counts.count.astype(int), counts.first[:-1])

    assert set(totals.tolist()) == {len(group)}


@pytest.mark.parametrize("name", ["rows", "first", "pattern", "count"])
@pytest.mark.parametrize("wrong", ["missing", "type", "shape", "longer"])
def test_counts_of_another_make_are_refused(name: str, wrong: str) -> None:
    """Nothing but a complete set of counts of these trees is taken."""
    arrays = shapley.count(toys.forest(), toys.reference_columns()).arrays()
    array = arrays.pop(name)
    if wrong == "type":
        arrays[name] = array.astype(np.float32)
    elif wrong == "shape":
        arrays[name] = array.reshape(1, -1)
    elif wrong == "longer":
        arrays[name] = np.append(array, array[-1:])

    with pytest.raises(PackageInvalid, match=r"^explanation: "):
        shapley.counts_from_arrays(arrays, toys.forest())


@pytest.mark.parametrize(
    ("name", "place", "change"), [("count", 0, 1), ("pattern", 0, 60_000), ("first", 0, 1)]
)
def test_counts_that_do_not_fit_the_trees_are_refused(name: str, place: int, change: int) -> None:
    """A leaf's counts are those of the whole group, of patterns that its path can have."""
    arrays = shapley.count(toys.forest(), toys.reference_columns()).arrays()
    array = arrays[name].astype(np.int64)
    array[place] += change
    arrays[name] = array.astype(arrays[name].dtype)

    with pytest.raises(PackageInvalid, match="not those of the model's trees"):
        shapley.counts_from_arrays(arrays, toys.forest())


def test_a_leaf_that_was_pruned_changes_no_contribution() -> None:
    """XGBoost keeps pruned leaves in its arrays; nothing reaches them."""
    added = {
        name: array if name in ("base", "roots") else np.append(array, array[-1:])
        for name, array in toys.forest().arrays().items()
    }
    applicants = np.arange(18, dtype=np.float32).reshape(2, 9)

    np.testing.assert_array_equal(
        contributions(from_arrays(added, columns=9), applicants, applicants),
        contributions(toys.forest(), applicants, applicants),
    )


# What is too much.


def test_the_widest_path_allowed_is_still_exact() -> None:
    """Sixteen columns: an applicant who passes all of them shares the leaf equally."""
    forest = ensemble([chain(WIDEST_PATH)])
    group = np.full((1, WIDEST_PATH), -1, dtype=np.float32)

    values = contributions(forest, -group, group)

    np.testing.assert_allclose(values, np.full((1, WIDEST_PATH), 1 / WIDEST_PATH), atol=1e-12)


def test_a_path_that_is_too_wide_is_refused() -> None:
    """Its patterns do not fit in 16 bits."""
    forest = ensemble([chain(WIDEST_PATH + 1)])
    applicants = np.zeros((1, WIDEST_PATH + 1), dtype=np.float32)

    with pytest.raises(PackageInvalid, match="a path tests more than 16 columns"):
        shapley.count(forest, applicants)


def test_counts_that_are_too_many_are_refused_before_they_are_made() -> None:
    """4,096 leaves a tree, 2^12 patterns a leaf: four trees are too many."""
    forest = ensemble([complete(12)] * 4)
    applicants = np.zeros((1, 12), dtype=np.float32)

    assert shapley.LARGEST_COUNTS < 4 * 4096 * 4096
    with pytest.raises(PackageInvalid, match="67108864 patterns of reference rows, at most "):
        shapley.count(forest, applicants)


def test_tables_that_would_be_too_large_give_way_to_counts() -> None:
    """Slower and saying so, and the same numbers."""
    forest = ensemble([complete(10)] * 8)
    group = np.array([[-1.0] * 10, [1.0] * 10], dtype=np.float32)
    counts = shapley.count(forest, group)
    factor = np.arange(10, dtype=np.int32)

    explained = shapley.prepare(forest, counts, factor, 10)
    made = shapley.prepare(forest, counts, factor, 10, tables_most=10**9)

    assert isinstance(explained, shapley.Counting)
    assert isinstance(made, shapley.Tables)
    assert "counted patterns" in explained.method
    assert "tables" in made.method
    np.testing.assert_allclose(
        explained.contributions(group), made.contributions(group), atol=1e-12
    )
