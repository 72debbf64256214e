"""Population: who falls into which bin, held against a count by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import profile
from credit_risk.population import NEAR_CUT_OFF, Cell, Population
from tests import toys

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

TOY = Population(toys.population(), toys.schema(), toys.policy())
PDS = (0.05, 0.1, 0.2, 0.4, 1.0)


def counted(*applications: Application, pds: tuple[float, ...] = ()) -> Counter[tuple[str, ...]]:
    """How many fall into each cell in which there is somebody."""
    scores = np.array(pds or [0.05] * len(applications))
    numbers = TOY.count(toys.schema().matrix(applications), scores)
    assert numbers.shape == (len(TOY.cells),)
    places = zip(TOY.cells, numbers.tolist(), strict=True)
    return Counter({(c.kind, c.field, c.bin): n for c, n in places if n})


def test_every_application_falls_into_one_bin_of_each_field_and_of_the_pd() -> None:
    """A number on an edge belongs to the bin below it, as when the profile was made."""
    on_edges = toys.SAFE | {"age": 42, "income": 1_500.0, "price": 600.001}

    found = counted(toys.RISKY, on_edges, pds=(0.9, 0.1))

    assert found == {
        ("score", "", "01"): 1,
        ("score", "", "03"): 1,
        ("number", "age", "01"): 1,
        ("number", "age", "02"): 1,
        ("number", "income", "01"): 2,
        ("number", "price", "02"): 1,
        ("number", "price", "03"): 1,
        ("number", "years_employed", "01"): 1,
        ("number", "years_employed", "03"): 1,
        ("category", "history", "poor"): 1,
        ("category", "history", "good"): 1,
        ("category", "use", "cargo"): 1,
        ("category", "use", "commuting"): 1,
    }


def test_what_is_left_out_has_a_bin_of_its_own() -> None:
    """And is no number out of range."""
    found = counted(toys.SAFE | {"years_employed": None}, toys.SAFE)

    assert found["missing", "years_employed", "missing"] == 1
    assert found["number", "years_employed", "03"] == 1
    assert {kind for kind, _, _ in found} == {"score", "number", "category", "missing"}


@pytest.mark.parametrize(("income", "outside"), [(399.0, 1), (400.0, 0), (15_000.0, 0), (1e5, 1)])
def test_numbers_beyond_the_population_are_out_of_range(income: float, outside: int) -> None:
    """Beside their bin, which is the first or the last."""
    found = counted(toys.SAFE | {"income": income})

    assert found["out-of-range", "income", ""] == outside
    assert found["number", "income", "01"] + found["number", "income", "03"] == 1


@pytest.mark.parametrize(
    ("pd", "near"),
    [(0.1, 0), (0.179, 0), (0.181, 1), (0.2, 1), (0.219, 1), (0.419, 1), (0.421, 0), (1.0, 0)],
)
def test_a_pd_is_near_a_cut_off_where_the_decision_changes(pd: float, near: int) -> None:
    """At 0.2 and 0.4, but not at 0.1, on both sides of which everybody is approved."""
    assert NEAR_CUT_OFF == 0.02
    assert counted(toys.SAFE, pds=(pd,))["near-cut-off", "", ""] == near


def test_the_population_itself_fills_the_bins_as_the_profile_says() -> None:
    """Shares of drawn applicants are close to those that the cells name."""
    rows = profile.draw(toys.population(), toys.schema(), 20_000, seed=3)

    shares = TOY.count(rows, np.full(len(rows), 0.05)) / len(rows)

    for cell, share in zip(TOY.cells, shares.tolist(), strict=True):
        if cell.field and cell.bin:
            assert share == pytest.approx(cell.share, abs=0.02)


def test_nobody_is_counted_as_nobody() -> None:
    """No rows are no error."""
    assert counted() == {}


def test_a_package_without_bins_of_the_pd_counts_the_fields() -> None:
    """A profile may have been made without scores."""
    without = toys.population().model_copy(update={"score_edges": (), "score_bins": ()})
    population = Population(without, toys.schema(), toys.policy())

    assert {cell.kind for cell in population.cells} >= {"number", "category"}
    assert Cell("score", "", "01", 0.5) not in population.cells
    numbers = population.count(toys.schema().matrix([toys.SAFE]), np.array([0.5]))
    assert numbers.sum() == len(toys.schema().fields)


def test_shares_of_every_field_add_up_to_one(any_package: ModelPackage) -> None:
    """Missing values included; those of the PD as well."""
    for field in ("", *any_package.schema.names):
        shares = [c.share for c in any_package.population.cells if c.field == field and c.bin]
        assert math.fsum(shares) == pytest.approx(1.0)
