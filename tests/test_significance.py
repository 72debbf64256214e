"""Distributions in closed form, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from credit_risk import significance

COUNTS = st.lists(st.integers(0, 400), min_size=2, max_size=9)


@given(st.floats(0.0, 2_000.0), st.integers(1, 60))
def test_chi_square_survival_is_scipys(x: float, df: int) -> None:
    """For even and odd degrees of freedom, far into the tail."""
    assert significance.chi_square_survival(x, df) == pytest.approx(
        stats.chi2.sf(x, df), rel=1e-9, abs=1e-290
    )


@pytest.mark.parametrize("df", [1, 2, 3, 9, 10, 11, 40])
@pytest.mark.parametrize("level", [0.5, 0.05, 0.01, 0.01 / 13, 1e-9])
def test_chi_square_critical_values_are_scipys(level: float, df: int) -> None:
    """The inverse, also at levels shared among many fields."""
    assert significance.chi_square_critical(level, df) == pytest.approx(
        stats.chi2.isf(level, df), rel=1e-9
    )


def test_what_has_no_degrees_of_freedom_does_not_differ() -> None:
    """One category only, or one sample empty."""
    one = np.array([5.0])
    assert significance.chi_square_survival(3.0, 0) == 1.0
    assert significance.chi_square_critical(0.05, 0) == 0.0
    assert significance.chi_square(one, one) == (0.0, 0, 1.0)
    assert significance.chi_square(np.array([1.0, 2.0]), np.zeros(2)) == (0.0, 0, 1.0)


@given(COUNTS, COUNTS)
def test_chi_square_of_two_samples_is_scipys(first: list[int], second: list[int]) -> None:
    """With Yates's correction for two categories; what is in neither sample is left out."""
    size = min(len(first), len(second))
    table = np.array([first[:size], second[:size]], dtype=np.float64)
    table[:, 0] += 1
    kept = table[:, table.sum(axis=0) > 0]

    statistic, df, p = significance.chi_square(table[0], table[1])

    expected = stats.chi2_contingency(kept)
    assert (statistic, p) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-9)
    assert df == expected.dof


@given(st.floats(0.0, 1.0), st.integers(200, 100_000), st.integers(1_000, 100_000))
def test_kolmogorov_smirnov_is_near_scipys_exact_distribution(d: float, n: int, m: int) -> None:
    """Of one sample of the size that two of n and m come to, within a hundredth."""
    ours = significance.kolmogorov_smirnov(d, n, m)

    assert ours == pytest.approx(stats.kstwo.sf(d, round(n * m / (n + m))), abs=0.01)


def test_kolmogorov_smirnov_has_no_step_where_its_series_change() -> None:
    """Both are the same function."""
    n = 1e12
    ours = [significance.kolmogorov_smirnov(x / np.sqrt(n / 2), n, n) for x in (1.1799, 1.1801)]
    limit = [stats.kstwobign.sf(x) for x in (1.1799, 1.1801)]

    assert ours == pytest.approx(limit, abs=1e-6)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_the_false_discovery_correction_is_scipys(p_values: list[float]) -> None:
    """Benjamini and Hochberg's, in the order given."""
    values = np.array(p_values)

    np.testing.assert_allclose(
        significance.false_discovery(values), stats.false_discovery_control(values), atol=1e-12
    )


@given(st.integers(1, 5_000), st.data())
def test_wilsons_interval_is_scipys(rows: int, data: st.DataObject) -> None:
    """Also where nothing or everything succeeds."""
    successes = data.draw(st.integers(0, rows))

    low, high = significance.wilson(np.array([successes]), np.array([rows]), 0.95)

    expected = stats.binomtest(successes, rows).proportion_ci(0.95, method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_is_told_with_wilsons_interval() -> None:
    """Of three in four."""
    found = significance.share(np.array([True, True, False, True]))

    expected = stats.binomtest(3, 4).proportion_ci(0.95, method="wilson")
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
