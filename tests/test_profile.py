"""The profile: drawn applicants resemble the group, and are nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from credit_risk import documents, profile
from credit_risk.profile import Profile
from credit_risk.schema import Schema
from tests import toys

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

TOY = toys.schema()
MANY = profile.draw(toys.population(), TOY, 20_000, seed=1)

# The applicant states the price as a share of income as well, rounded, at most 3.
SHARED = documents.parse(
    Schema,
    toys.SCHEMA.replace(
        "derived:",
        """\
  - name: price_share
    title: Price as a share of the income
    type: number
    minimum: 0
    maximum: 3
    follows: {numerator: price, denominator: income, decimals: 2}
    reason: AMOUNT_REQUESTED
    example: 0.48
derived:""",
    ),
    "schema.yaml",
)


def column(rows: Floats, name: str) -> Floats:
    """One field of drawn rows."""
    values: Floats = rows[:, SHARED.index[name]]
    return values


def altered(**changed: Any) -> Profile:  # noqa: ANN401 - of any type
    """The toy profile with some of its parts replaced."""
    return Profile.model_validate(toys.population().model_dump() | changed)


def ranks(values: Floats) -> Floats:
    """Mean ranks; equal values share theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: Floats = (ends - (counts - 1) / 2)[inverse]
    return middle


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
@settings(max_examples=50)
def test_every_drawn_applicant_satisfies_the_schema(seed: int, rows: int) -> None:
    """Types, ranges and categories, whatever the seed."""
    drawn = profile.draw(toys.population(), TOY, rows, seed)

    assert drawn.shape == (rows, 6)
    for row in drawn.tolist():
        application = TOY.application(row)
        assert TOY.validate_application(application) == application


def test_the_same_seed_draws_the_same_applicants() -> None:
    """And another seed others."""
    first, again, other = (profile.draw(toys.population(), TOY, 50, seed) for seed in (4, 4, 5))

    np.testing.assert_array_equal(first, again)
    assert (first[:, 0] != other[:, 0]).any()


@pytest.mark.parametrize("name", ["age", "income", "price", "years_employed"])
def test_numbers_are_as_common_as_in_the_profile(name: str) -> None:
    """Eight quantiles, an eighth each of what is present, and no value between."""
    values = column(MANY, name)
    present = values[~np.isnan(values)]
    (quantiles,) = [m.quantiles for m in toys.population().marginals if m.field == name]

    assert set(present.tolist()) == set(quantiles)
    shares = [(present == value).mean() for value in quantiles]
    assert shares == pytest.approx([1 / 8] * 8, abs=0.012)


@pytest.mark.parametrize(
    ("name", "shares"), [("history", [0.6, 0.3, 0.1]), ("use", [0.2, 0.5, 0.3])]
)
def test_categories_are_as_common_as_in_the_profile(name: str, shares: list[float]) -> None:
    """In the schema's order."""
    found = [(column(MANY, name) == code).mean() for code in range(3)]

    assert found == pytest.approx(shares, abs=0.012)


def test_a_category_of_no_share_is_never_drawn() -> None:
    """First, middle or last."""
    for absent in range(3):
        shares = [0.5] * 3
        shares[absent] = 0.0
        population = toys.population()
        marginals = (
            *population.marginals[:-1],
            population.marginals[-1].model_copy(update={"shares": tuple(shares)}),
        )

        drawn = profile.draw(altered(marginals=marginals), TOY, 2_000, seed=2)

        assert set(column(drawn, "use").tolist()) == {0.0, 1.0, 2.0} - {float(absent)}


def test_missing_values_are_as_common_as_in_the_profile() -> None:
    """One in five gives no years, and nothing else is ever missing."""
    missing = np.isnan(MANY).mean(axis=0)

    assert missing[3] == pytest.approx(0.2, abs=0.012)
    assert missing[[0, 1, 2, 4, 5]].tolist() == [0.0] * 5


def test_fields_go_together_as_in_the_profile() -> None:
    """A copula's 0.6 is a rank correlation of 6/pi asin(0.3) = 0.58, less what ties take."""
    together = np.corrcoef(ranks(column(MANY, "income")), ranks(column(MANY, "price")))[0, 1]
    apart = np.corrcoef(ranks(column(MANY, "income")), ranks(column(MANY, "age")))[0, 1]

    assert together == pytest.approx(0.575, abs=0.025)
    assert apart == pytest.approx(0.0, abs=0.025)


def test_missing_values_go_together_with_a_field() -> None:
    """Where the profile says that the poor leave their years out, they do."""
    correlation = np.eye(7)
    # The last variable is low where years_employed is missing, the second is the income.
    correlation[1, 6] = correlation[6, 1] = 0.8

    drawn = profile.draw(altered(correlation=correlation.tolist()), TOY, 5_000, seed=3)

    missing = np.isnan(column(drawn, "years_employed"))
    income = column(drawn, "income")
    assert np.median(income[missing]) < np.median(income[~missing])
    assert missing.mean() == pytest.approx(0.2, abs=0.025)


def test_correlations_that_are_only_semidefinite_can_be_drawn_from() -> None:
    """Two fields that always go together, as ranks of data do."""
    correlation = np.eye(7)
    correlation[1, 2] = correlation[2, 1] = 1.0

    drawn = profile.draw(altered(correlation=correlation.tolist()), TOY, 200, seed=3)

    np.testing.assert_array_equal(ranks(column(drawn, "income")), ranks(column(drawn, "price")))


def test_a_field_that_follows_is_computed_from_the_two_others() -> None:
    """Rounded as an applicant would, and within its own range."""
    population = toys.population()
    share = population.marginals[2].model_copy(update={"field": "price_share"})
    drawn = profile.draw(
        altered(
            marginals=(*population.marginals, share),
            correlation=np.eye(8).tolist(),
        ),
        SHARED,
        3_000,
        seed=6,
    )

    ratio = column(drawn, "price") / column(drawn, "income")
    stated = column(drawn, "price_share")
    np.testing.assert_array_equal(stated, np.minimum(np.round(ratio, 2), 3))
    assert stated.max() == 3.0
    assert (ratio > 3).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"correlation": np.eye(6).tolist()},
        {"correlation": [[1.0] * 6] * 7},
        {"missing_order": []},
        {"rows": 0},
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    """One row and column for each field and each that may be missing."""
    with pytest.raises(ValidationError):
        altered(**wrong)


def test_a_share_is_between_0_and_1() -> None:
    """Of values, of bins, of what is missing."""
    marginal = toys.population().marginals[0].model_dump()

    for part, share in (("missing", 1.1), ("shares", [-0.1]), ("bins", [2.0])):
        with pytest.raises(ValidationError, match=part):
            profile.Marginal.model_validate(marginal | {part: share})


def test_a_profile_survives_being_written() -> None:
    """As JSON, to the last digit."""
    population = toys.population()

    assert Profile.model_validate_json(population.model_dump_json()) == population
