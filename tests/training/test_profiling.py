"""Profiling: the description of a group is true, and applicants drawn from it resemble it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import ks_2samp, spearmanr

from credit_risk import profile
from credit_risk.training import profiling
from tests import leases, toys

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.profile import Profile

    Floats = npt.NDArray[np.float64]

SCHEMA = toys.schema()
AGE, INCOME, PRICE, YEARS, HISTORY, USE = range(6)


def _rows(number: int = 4_000) -> Floats:
    """Leases as numbers; income and price go together, and the old state their employment."""
    table = leases.labelled(number)
    generator = np.random.default_rng(5)
    rows = np.empty((number, len(SCHEMA.fields)))
    for name, place in SCHEMA.index.items():
        spec = SCHEMA.fields[place]
        column = table[name]
        rows[:, place] = (
            column.map({c: i for i, c in enumerate(spec.categories)})
            if spec.is_category
            else column
        )
    rows[:, PRICE] = np.clip(rows[:, INCOME] * np.exp(generator.normal(-0.9, 0.4, number)), 50, 2e4)
    rows[(rows[:, AGE] < 40) & (generator.random(number) < 0.4), YEARS] = np.nan
    return rows


@pytest.fixture(scope="module")
def rows() -> Floats:
    """The group described."""
    return _rows()


@pytest.fixture(scope="module")
def described(rows: Floats) -> Profile:
    """Its description."""
    return profiling.describe(rows, SCHEMA, "lessees", np.linspace(0.01, 0.99, 500))


def test_quantiles_and_shares_are_those_of_the_values_present(
    rows: Floats, described: Profile
) -> None:
    """A number's quantiles are values that occur; categories are counted; so is what is missing."""
    income = described.marginals[INCOME]
    assert len(income.quantiles) == profiling.QUANTILES
    assert set(income.quantiles) <= set(rows[:, INCOME].tolist())
    assert income.quantiles[499] <= np.median(rows[:, INCOME]) <= income.quantiles[500]
    assert income.missing == 0

    years = described.marginals[YEARS]
    assert years.missing == pytest.approx(np.isnan(rows[:, YEARS]).mean())
    assert not np.isnan(years.quantiles).any()

    use = described.marginals[USE]
    assert use.shares == pytest.approx([(rows[:, USE] == code).mean() for code in range(3)])
    assert use.quantiles == ()
    assert described.rows == len(rows)
    assert described.group == "lessees"


def test_bins_hold_a_tenth_each_and_with_the_missing_add_up_to_all(
    rows: Floats, described: Profile
) -> None:
    """What PSI compares with: counting the group by the edges gives the shares."""
    for place, marginal in enumerate(described.marginals):
        assert sum(marginal.bins) + marginal.missing == pytest.approx(1.0)
        if SCHEMA.fields[place].is_category:
            continue
        values = rows[:, place][~np.isnan(rows[:, place])]
        places = np.searchsorted(marginal.edges, values, side="left")
        counted = np.bincount(places, minlength=len(marginal.bins)) / len(rows)
        assert marginal.bins == pytest.approx(counted)
        assert min(marginal.bins) > 0
        assert len(marginal.bins) == len(marginal.edges) + 1 <= profiling.BINS
    assert described.marginals[INCOME].bins == pytest.approx([0.1] * 10, abs=0.01)
    assert described.score_bins == pytest.approx([0.1] * 10)
    assert len(described.score_edges) == 9


def test_values_that_repeat_share_a_bin() -> None:
    """Equal deciles are merged, so no bin of the group itself is empty."""
    rows = _rows(500)
    rows[:, AGE] = np.where(np.arange(500) < 450, 30, 50)

    marginal = profiling.describe(rows, SCHEMA, "g").marginals[AGE]

    assert marginal.edges == (30,)
    assert marginal.bins == (0.9, 0.1)


def test_a_constant_field_is_described_and_drawn_as_it_is() -> None:
    """It has one bin and goes with nothing."""
    rows = _rows(500)
    rows[:, AGE] = 30

    described = profiling.describe(rows, SCHEMA, "g")

    assert described.marginals[AGE].edges == ()
    assert described.marginals[AGE].bins == (1.0,)
    assert described.correlation[AGE] == (1.0, 0, 0, 0, 0, 0, 0)
    assert (profile.draw(described, SCHEMA, 50, 1)[:, AGE] == 30).all()


def test_a_field_that_nobody_states_is_drawn_as_missing() -> None:
    """Its quantiles are the schema's example, which no drawn applicant shows."""
    rows = _rows(500)
    rows[:, YEARS] = np.nan

    described = profiling.describe(rows, SCHEMA, "g")

    assert described.marginals[YEARS].missing == 1.0
    assert np.isnan(profile.draw(described, SCHEMA, 50, 1)[:, YEARS]).all()


def test_without_probabilities_the_score_is_not_described(rows: Floats) -> None:
    """A reference group has no score of its own to watch."""
    described = profiling.describe(rows, SCHEMA, "g")

    assert described.score_edges == ()
    assert described.score_bins == ()


def test_the_same_rows_give_the_same_description(rows: Floats, described: Profile) -> None:
    """In whatever order they come: a description is of the group."""
    again = profiling.describe(rows[::-1], SCHEMA, "lessees", np.linspace(0.99, 0.01, 500))

    assert again.marginals == described.marginals
    assert again.score_bins == described.score_bins
    assert np.array(again.correlation) == pytest.approx(np.array(described.correlation), abs=1e-8)


def test_drawn_applicants_have_the_distributions_of_the_group(
    rows: Floats, described: Profile
) -> None:
    """Each field's distribution, and the share that is missing."""
    drawn = profile.draw(described, SCHEMA, 4_000, seed=9)

    for place, spec in enumerate(SCHEMA.fields):
        real, made_up = (r[:, place][~np.isnan(r[:, place])] for r in (rows, drawn))
        assert np.isnan(drawn[:, place]).mean() == pytest.approx(
            np.isnan(rows[:, place]).mean(), abs=0.03
        )
        assert ks_2samp(real, made_up).statistic < 0.05, spec.name


def test_drawn_applicants_have_the_rank_correlations_of_the_group(
    rows: Floats, described: Profile
) -> None:
    """Income goes with price, and it is the young who do not state their employment."""
    drawn = profile.draw(described, SCHEMA, 4_000, seed=9)

    def correlation(group: Floats, a: int, b: int) -> float:
        return float(spearmanr(group[:, a], group[:, b]).statistic)

    assert correlation(drawn, INCOME, PRICE) == pytest.approx(
        correlation(rows, INCOME, PRICE), abs=0.05
    )
    assert correlation(drawn, INCOME, AGE) == pytest.approx(0, abs=0.06)
    for group in (rows, drawn):
        missing = np.isnan(group[:, YEARS])
        assert group[missing, AGE].mean() < group[~missing, AGE].mean() - 5


def test_no_row_of_a_continuous_group_is_drawn(rows: Floats, described: Profile) -> None:
    """Values recur, their combinations do not."""
    drawn = profile.draw(described, SCHEMA, 4_000, seed=9)

    real = {row.tobytes() for row in rows}
    assert not any(row.tobytes() in real for row in drawn)
