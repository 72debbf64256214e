"""Stability: bins that nobody falls out of, the index itself, and what chance alone makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from credit_risk import profile, stability
from credit_risk.training.profiling import describe
from tests import toys

TOY = toys.schema()
POPULATION = toys.population()
AGE, _, _, YEARS, HISTORY, _ = stability.field_bins(POPULATION, TOY)


def test_the_bins_are_those_of_the_profile_with_one_for_the_missing() -> None:
    """Numbers in order, categories by their names."""
    assert (AGE.name, AGE.labels) == ("age", ("01", "02", "03", "missing"))
    assert AGE.shares == (0.375, 0.25, 0.375, 0.0)
    assert (YEARS.labels[-1], YEARS.shares[-1]) == ("missing", 0.2)
    assert HISTORY.labels == ("good", "mixed", "poor", "missing")
    assert HISTORY.shares == (0.6, 0.3, 0.1, 0.0)


def test_a_value_belongs_to_the_bin_whose_upper_edge_it_is() -> None:
    """And the outer bins are open."""
    ages = np.array([-5.0, 29, 29.5, 42, 43, 1e9, np.nan])

    assert AGE.places(ages).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert AGE.count(ages).tolist() == [2, 2, 2, 1]


def test_a_value_belongs_to_the_bin_whose_upper_edge_its_first_twelve_digits_are() -> None:
    """A profile has no more of a third, and an applicant has all of them."""
    bins = stability.Bins(
        "delay", ("01", "02", "missing"), (0.5, 0.5, 0.0), np.array([2.33333333333])
    )

    assert bins.places(np.array([7 / 3, 2.3333333334])).tolist() == [0, 1]


def test_a_category_is_counted_under_its_name() -> None:
    """By the code that it has in a row of numbers."""
    assert HISTORY.count(np.array([0.0, 2, 2, 1, np.nan])).tolist() == [1, 1, 2, 1]


def test_bins_in_which_nobody_is_are_counted_too() -> None:
    """As nought."""
    assert AGE.count(np.array([])).tolist() == [0, 0, 0, 0]


def test_the_reference_counted_again_has_the_shares_of_its_own_profile() -> None:
    """Training and serving bin alike, to the last row."""
    rows = profile.draw(POPULATION, TOY, 3_000, seed=5)
    pds = np.random.default_rng(5).beta(1, 5, 3_000)
    described = describe(rows, TOY, "drawn", pds)

    for place, bins in enumerate(stability.field_bins(described, TOY)):
        assert bins.count(rows[:, place]) / 3_000 == pytest.approx(bins.shares)
    scores = stability.score_bins(described)
    assert scores.labels == tuple(f"{number:02}" for number in range(1, 11))
    assert scores.count(pds) / 3_000 == pytest.approx(scores.shares)


def test_a_profile_without_scores_has_no_bins_for_them() -> None:
    """None at all, not even one."""
    unscored = POPULATION.model_copy(update={"score_edges": (), "score_bins": ()})

    assert stability.score_bins(unscored).labels == ()


def test_the_index_is_that_of_the_formula() -> None:
    """(0.2 - 0.5) ln(0.2 / 0.5) + (0.8 - 0.5) ln(0.8 / 0.5), worked out by hand."""
    assert stability.psi([20, 80], [0.5, 0.5]) == pytest.approx(0.41589, abs=1e-5)
    assert stability.psi([5, 5], [0.5, 0.5]) == 0.0


def test_a_bin_that_is_empty_counts_with_the_least_share() -> None:
    """On either side; what is empty on both says nothing."""
    least = stability.FLOOR
    one_sided = (1 - 0.5) * np.log(1 / 0.5) + (least - 0.5) * np.log(least / 0.5)

    assert stability.psi([10, 0, 0], [0.5, 0.5, 0]) == pytest.approx(one_sided)
    assert stability.psi([5, 5], [1, 0]) == pytest.approx(stability.psi([10, 0], [0.5, 0.5]))


def test_of_nobody_there_is_no_index() -> None:
    """Rather than one that says that all is well."""
    with pytest.raises(ValueError, match="nothing was counted"):
        stability.psi([0, 0], [0.5, 0.5])


@given(st.lists(st.integers(0, 1_000), min_size=4, max_size=4).filter(any))
def test_the_index_is_never_negative(counts: list[int]) -> None:
    """Each bin moves it away from 0."""
    assert stability.psi(counts, AGE.shares) >= 0.0


@pytest.mark.parametrize("level", [0.05, 0.01, 0.001])
@pytest.mark.parametrize("freedom", [1, 2, 6, 9])
def test_the_critical_value_is_the_quantile_of_chi_squared(freedom: int, level: float) -> None:
    """For as many bins as there are."""
    shares = (*[1 / (freedom + 1)] * (freedom + 1), 0.0)

    value = stability.critical(shares, 1_000, 4_000, level)

    exact = chi2.isf(level, freedom) * (1 / 1_000 + 1 / 4_000)
    assert value == pytest.approx(exact, rel=1e-9)


def test_chance_alone_exceeds_the_critical_value_as_often_as_it_says() -> None:
    """One sample in twenty."""
    generator = np.random.default_rng(1)
    shares = np.full(10, 0.1)
    reference = generator.multinomial(20_000, shares, 2_000) / 20_000
    sample = generator.multinomial(1_000, shares, 2_000)

    limit = stability.critical(shares.tolist(), 1_000, 20_000, 0.05)

    above = [stability.psi(s, r) > limit for s, r in zip(sample, reference, strict=True)]
    assert np.mean(above) == pytest.approx(0.05, abs=0.02)


def test_tenths_hold_as_many_of_the_first_and_whatever_of_the_others() -> None:
    """The outer ones are open; equal ones are in one bin."""
    pds = np.arange(1, 101) / 100
    others = np.array([0.0, 0.05, 1.0, 2.0])

    edges, first, second = stability.tenths(pds, others)

    assert (len(edges), first.tolist()) == (9, [10] * 10)
    assert second.tolist() == [2, *[0] * 8, 2]
    assert [one.tolist() for one in stability.tenths(np.full(5, 0.2), others)] == [
        [0.2],
        [5, 0],
        [2, 2],
    ]
