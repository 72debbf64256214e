"""Networks: scored as their formula says, explained as Shapley's formula says."""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import network
from credit_risk.errors import PackageInvalid
from credit_risk.network import Layer, Network, explainer, from_arrays
from tests.networks import made_up

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Columns = npt.NDArray[np.float32]

FACTORS = np.array([0, 1, 1, 2, 2, 2, 4], dtype=np.int32)
FIELDS = 5


def _columns(rows: int, seed: int) -> Columns:
    return np.random.default_rng(seed).normal(size=(rows, len(FACTORS))).astype(np.float32)


def _by_formula(layers: tuple[Layer, ...], columns: Columns) -> Floats:
    value = columns.astype(np.float64)
    for layer in layers[:-1]:
        value = np.maximum(value @ layer.weights.T + layer.biases, 0.0)
    score: Floats = (value @ layers[-1].weights.T + layers[-1].biases)[:, 0]
    return score


@pytest.mark.parametrize("hidden", [(), (6,), (8, 3), (3, 9, 4)])
def test_the_score_is_what_the_layers_say(hidden: tuple[int, ...]) -> None:
    """Whatever their number and widths."""
    net = made_up(len(FACTORS), hidden)
    columns = _columns(40, seed=1)

    np.testing.assert_allclose(net.scores(columns), _by_formula(net.layers, columns), atol=1e-12)


def test_a_row_scores_the_same_alone_and_among_others() -> None:
    """To the last bit, and so do its reasons."""
    net = made_up(len(FACTORS), (8, 3))
    columns = _columns(40, seed=1)
    explained = explainer(net, _columns(10, seed=2), FACTORS, FIELDS)

    scores, values = net.scores(columns), explained.contributions(columns)

    for i in range(len(columns)):
        assert net.scores(columns[i : i + 1])[0] == scores[i]
        np.testing.assert_array_equal(explained.contributions(columns[i : i + 1])[0], values[i])


def test_contributions_are_shapley_values_by_their_definition() -> None:
    """Every coalition of fields, every reference row, one by one; a field without columns has 0."""
    net = made_up(len(FACTORS), (8, 3))
    reference = _columns(4, seed=2)
    # What is the same in the applicant and in a reference row plays no part.
    applicants = np.vstack([_columns(3, seed=3), reference[:1]])
    applicants[1, FACTORS == 2] = reference[2, FACTORS == 2]
    players = sorted(set(FACTORS.tolist()))

    def value(coalition: tuple[int, ...], row: Columns) -> float:
        mixed = reference.copy()
        inside = np.isin(FACTORS, coalition)
        mixed[:, inside] = row[inside]
        return float(_by_formula(net.layers, mixed).mean())

    expected = np.zeros((len(applicants), FIELDS))
    for i, row in enumerate(applicants):
        for player in players:
            others = [p for p in players if p != player]
            for size in range(len(others) + 1):
                share = factorial(size) * factorial(len(others) - size) / factorial(len(players))
                for coalition in combinations(others, size):
                    gain = value((*coalition, player), row) - value(coalition, row)
                    expected[i, player] += share * gain

    explained = explainer(net, reference, FACTORS, FIELDS)
    values = explained.contributions(applicants)

    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert (values[:, 3] == 0.0).all()
    np.testing.assert_allclose(
        explained.base + values.sum(axis=1), net.scores(applicants), atol=1e-12
    )


def test_explanations_rest_on_rows_that_stand_for_a_large_group() -> None:
    """So many as are promised, each once, and with the mean score of all."""
    net = made_up(len(FACTORS), (4,))
    reference = _columns(20 * network.REFERENCE_ROWS, seed=2)
    scores = net.scores(reference)

    explained = explainer(net, reference, FACTORS, FIELDS)

    assert len(np.unique(explained.reference, axis=0)) == network.REFERENCE_ROWS
    assert explained.base == net.scores(explained.reference).mean()
    drawn = scores.std() / np.sqrt(network.REFERENCE_ROWS)
    assert abs(explained.base - scores.mean()) < drawn / 10


def test_what_is_no_number_is_not_hidden_by_a_unit_at_rest() -> None:
    """The score is no number either, which the check of additivity then finds."""
    columns = _columns(2, seed=1)
    columns[0, 3] = np.nan

    scores = made_up(len(FACTORS), (8, 3)).scores(columns)

    assert np.isnan(scores[0])
    assert np.isfinite(scores[1])


def test_more_fields_than_can_be_played_out_are_refused() -> None:
    """When the package is made, not when somebody waits for reasons."""
    most = network.FACTORS_MAX
    for fields in (most, most + 1):
        net = made_up(fields, (3,))
        reference = np.zeros((2, fields), dtype=np.float32)
        factors = np.arange(fields, dtype=np.int32)
        if fields == most:
            assert explainer(net, reference, factors, fields).members.shape == (most, most)
        else:
            with pytest.raises(PackageInvalid, match="more than 14 fields"):
                explainer(net, reference, factors, fields)


def test_arrays_make_the_same_network() -> None:
    """Named by layer."""
    net = made_up(len(FACTORS), (8, 3))
    columns = _columns(5, seed=1)

    np.testing.assert_array_equal(from_arrays(net.arrays()).scores(columns), net.scores(columns))


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([], "it has no layers"),
        ([((4, 7), 4), ((2, 4), 2)], "the last layer needs one unit"),
        ([((4, 7), 4), ((1, 5), 1)], "layer 1 does not fit"),
        ([((4, 7), 3), ((1, 3), 1)], "layer 0 does not fit"),
        ([((7,), 1)], "it has no layers"),
    ],
)
def test_layers_that_do_not_fit_each_other_are_refused(
    layers: list[tuple[tuple[int, ...], int]], why: str
) -> None:
    """By the number of the layer."""
    made = tuple(Layer(np.ones(shape), np.ones(units)) for shape, units in layers)

    with pytest.raises(PackageInvalid, match=why):
        Network(made)


def test_weights_that_are_no_numbers_are_refused() -> None:
    """Infinite, not a number, or of another type."""
    arrays = made_up(3, (2,)).arrays()

    for wrong in (np.inf, np.nan):
        with pytest.raises(PackageInvalid, match="layer 1 holds what is no finite number"):
            from_arrays(arrays | {"biases_1": np.array([wrong])})
    for other in ({"biases_1": np.ones(1, dtype=np.float32)}, {"biases_1": np.ones((1, 1))}):
        with pytest.raises(PackageInvalid, match="layer 1"):
            from_arrays(arrays | other)
    with pytest.raises(PackageInvalid, match="layer 1 is missing"):
        from_arrays({**{k: v for k, v in arrays.items() if k != "biases_1"}, "more": np.ones(1)})
