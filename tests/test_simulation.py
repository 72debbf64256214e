"""Simulation: what a scenario says moves, and nothing else does."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from credit_risk import package, portfolio, simulation, stability
from credit_risk.errors import (
    ApplicationInvalid,
    PackageInvalid,
    PortfolioInvalid,
    ScenarioNotFound,
)
from credit_risk.model import probability
from credit_risk.simulation import Change, Population, Scenario, Scenarios
from tests import toys
from tests.test_profile import SHARED

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ROOT = Path(__file__).parents[1]
TOYS = Population(toys.schema(), toys.population())
STABLE = Scenario(name="stable", title="As known")
LEVEL = 0.001
"""Low, for there are a hundred comparisons, and the seed is one of many."""
SEED = 1


def shipped(name: str) -> Path:
    """The folder of the package that a portfolio ships as its default."""
    folder = ROOT / "packages" / name
    return folder / (folder / "default").read_text(encoding="utf-8").strip()


@cache
def group_of(name: str) -> Population:
    """Those whom a portfolio's shipped package knows."""
    return simulation.population(shipped(name))


@cache
def scenarios_of(name: str) -> dict[str, Scenario]:
    """A portfolio's scenarios."""
    return simulation.scenarios(ROOT / "portfolios" / name, group_of(name).schema)


PORTFOLIOS = portfolio.names(ROOT / "portfolios")
SCENARIOS = [(name, scenario) for name in PORTFOLIOS for scenario in scenarios_of(name)]


def drawn(group: Population, scenario: Scenario, rows: int, seed: int = SEED) -> Floats:
    """So many applicants, in one array."""
    return np.concatenate(list(simulation.blocks(group, scenario, seed, rows)))


def after(*changes: dict[str, Any], share: float = 1.0, rows: int = 4_000) -> Floats:
    """Toy applicants after some changes."""
    scenario = Scenario.model_validate(
        {"name": "any", "title": "Any", "share": share, "changes": changes}
    )
    return drawn(TOYS, scenario, rows)


def column(rows: Floats, name: str) -> Floats:
    """One field of toy applicants."""
    values: Floats = rows[:, TOYS.schema.index[name]]
    return values


BEFORE = drawn(TOYS, STABLE, 4_000)


# What the shipped scenarios do


def test_both_portfolios_have_the_same_scenarios() -> None:
    """Whoever tries one product line can try the other."""
    for name in PORTFOLIOS:
        assert set(scenarios_of(name)) == {
            "stable",
            "income-shock",
            "new-category",
            "missing-bureau",
            "young-applicants",
            "score-shift",
        }


@pytest.mark.parametrize(("name", "scenario"), SCENARIOS)
def test_a_thousand_applicants_show_what_the_scenario_moves_and_nothing_else(
    name: str, scenario: str
) -> None:
    """By the index of each field, against what chance alone makes of it."""
    group, what = group_of(name), scenarios_of(name)[scenario]
    rows = drawn(group, what, 1_000)

    above = {
        bins.name
        for place, bins in enumerate(stability.field_bins(group.profile, group.schema))
        if stability.psi(bins.count(rows[:, place]), bins.shares)
        > stability.critical(bins.shares, 1_000, group.profile.rows, LEVEL)
    }

    assert above == set(what.moves(group.schema))


@pytest.mark.parametrize(("name", "scenario"), SCENARIOS)
def test_fields_that_a_scenario_does_not_move_are_as_they_would_have_been(
    name: str, scenario: str
) -> None:
    """Of each single applicant."""
    group, what = group_of(name), scenarios_of(name)[scenario]
    stays = [i for i, f in enumerate(group.schema.names) if f not in what.moves(group.schema)]

    rows, as_known = drawn(group, what, 300), drawn(group, STABLE, 300)

    np.testing.assert_array_equal(rows[:, stays], as_known[:, stays])


@pytest.mark.parametrize(("name", "scenario"), SCENARIOS)
def test_every_applicant_of_a_scenario_is_one_the_server_takes(name: str, scenario: str) -> None:
    """Drift is made of valid applications."""
    group, what = group_of(name), scenarios_of(name)[scenario]

    applicants = simulation.applicants(
        group.schema, simulation.blocks(group, what, SEED, 300), 0.0, SEED
    )

    for applicant in applicants:
        assert applicant.valid
        assert group.schema.validate_application(applicant.application) == applicant.application


@pytest.mark.parametrize("name", PORTFOLIOS)
def test_a_score_shift_moves_the_score(name: str) -> None:
    """Of those drawn as known it is a little off: a copula has not all that goes together."""
    loaded = package.load(shipped(name))
    group = Population(loaded.schema, loaded.profile)
    bins = stability.score_bins(loaded.profile)

    index = {}
    for scenario in ("stable", "score-shift"):
        what = scenarios_of(name)[scenario]
        pds = probability(loaded.model.log_odds(drawn(group, what, 1_000)))
        index[scenario] = stability.psi(bins.count(pds), bins.shares)

    assert index["stable"] < 0.05
    assert index["score-shift"] > 0.25


# What a change does


def test_numbers_are_scaled_within_the_range_of_the_schema() -> None:
    """Whole ones stay whole."""
    rows = after({"field": "income", "scale": 0.1}, {"field": "age", "scale": 1.5})

    lower = np.maximum(column(BEFORE, "income") * 0.1, 100)
    np.testing.assert_allclose(column(rows, "income"), lower)
    older = np.minimum(np.round(column(BEFORE, "age") * 1.5), 100)
    np.testing.assert_array_equal(column(rows, "age"), older)


def test_a_tilt_moves_numbers_within_their_own_distribution() -> None:
    """By one standard deviation: what was the 84th percentile is the median."""
    rows = after({"field": "price", "tilt": 1.0})

    assert set(column(rows, "price")) <= set(column(BEFORE, "price"))
    assert np.median(column(rows, "price")) == np.quantile(column(BEFORE, "price"), 0.84)
    np.testing.assert_array_equal(column(rows, "income"), column(BEFORE, "income"))


def test_a_tilt_moves_ordered_categories() -> None:
    """0.6 is 0.253 standard deviations, and with a tilt of 0.253 there are 0.5."""
    rows = after({"field": "history", "tilt": 0.2533}, rows=20_000)

    assert (column(rows, "history") == 0).mean() == pytest.approx(0.5, abs=0.015)
    assert (column(rows, "history") == 2).mean() > (column(BEFORE, "history") == 2).mean()


def test_a_value_is_given_to_all_who_are_taken() -> None:
    """Also to those who would have had none."""
    rows = after({"field": "years_employed", "value": 40}, {"field": "use", "value": "racing"})

    assert set(column(rows, "years_employed")) == {40.0}
    assert set(column(rows, "use")) == {2.0}


def test_missing_values_are_missing_for_all_who_are_taken() -> None:
    """And for nobody else than before."""
    taken = np.isnan(column(after({"field": "years_employed", "missing": True}), "years_employed"))
    half = after({"field": "years_employed", "missing": True}, share=0.5, rows=20_000)

    assert taken.all()
    assert np.isnan(column(half, "years_employed")).mean() == pytest.approx(0.6, abs=0.012)


def test_a_share_of_the_applicants_has_all_changes_together() -> None:
    """The others have none of them."""
    rows = after({"field": "price", "value": 77}, {"field": "use", "value": "cargo"}, share=0.3)

    taken = column(rows, "price") == 77
    assert taken.mean() == pytest.approx(0.3, abs=0.03)
    assert set(column(rows[taken], "use")) == {0.0}
    np.testing.assert_array_equal(rows[~taken], BEFORE[~taken])


def test_a_field_that_follows_is_computed_from_what_was_changed() -> None:
    """As the applicant would, from the lower income."""
    marginals = toys.population().marginals
    share = marginals[2].model_copy(update={"field": "price_share"})
    changed = toys.population().model_dump()
    changed |= {"marginals": (*marginals, share), "correlation": np.eye(8).tolist()}
    group = Population(SHARED, type(TOYS.profile).model_validate(changed))
    what = Scenario(name="any", title="Any", changes=(Change(field="income", scale=0.5),))

    rows = drawn(group, what, 500)

    assert what.moves(SHARED) == ("income", "price_share")
    stated = np.clip(np.round(rows[:, 2] / rows[:, 1], 2), 0, 3)
    np.testing.assert_array_equal(rows[:, 6], stated)


# Drawing


def test_the_same_seed_gives_the_same_applicants_however_many_are_asked_for() -> None:
    """Over the blocks' borders; another seed gives others."""
    many = drawn(TOYS, STABLE, simulation.BLOCK_ROWS + 5)

    assert len(many) == simulation.BLOCK_ROWS + 5
    np.testing.assert_array_equal(drawn(TOYS, STABLE, 10), many[:10])
    assert (many[: simulation.BLOCK_ROWS][:5] != many[simulation.BLOCK_ROWS :]).any()
    assert (drawn(TOYS, STABLE, 10, seed=2) != many[:10]).any()


def test_without_a_number_of_rows_there_is_no_end_and_no_more_memory() -> None:
    """A block at a time, as asked for."""
    blocks = simulation.blocks(TOYS, STABLE, SEED)

    assert [len(block) for block in islice(blocks, 3)] == [simulation.BLOCK_ROWS] * 3


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_a_spoilt_application_is_refused_for_one_thing(seed: int) -> None:
    """Whatever else is in it, by the place that was spoilt."""
    generator = np.random.default_rng(seed)
    schema = group_of("personal-loans").schema

    wrong = simulation.spoilt(schema, schema.example, generator)

    with pytest.raises(ApplicationInvalid) as refused:
        schema.validate_application(wrong)
    assert len(refused.value.errors) == 1


def test_as_many_are_spoilt_as_asked_for() -> None:
    """And they say so."""
    blocks = simulation.blocks(TOYS, STABLE, SEED, 4_000)
    applicants = list(simulation.applicants(TOYS.schema, blocks, 0.1, SEED))

    assert sum(not a.valid for a in applicants) / 4_000 == pytest.approx(0.1, abs=0.02)
    for applicant in applicants[:200]:
        if applicant.valid:
            TOYS.schema.validate_application(applicant.application)
        else:
            with pytest.raises(ApplicationInvalid):
                TOYS.schema.validate_application(applicant.application)


# Files


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"scale": 0.5, "tilt": 1},
        {"scale": 0},
        {"scale": "inf"},
        {"tilt": 5},
        {"tilt": "nan"},
        {"missing": False},
        {"shift": 1},
    ],
)
def test_a_change_is_one_of_four(wrong: dict[str, Any]) -> None:
    """And within reason."""
    with pytest.raises(ValidationError):
        Change.model_validate({"field": "income", **wrong})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"field": "postcode", "scale": 2}, "postcode is not a field"),
        ({"field": "age", "missing": True}, "age may not be missing"),
        ({"field": "use", "scale": 2}, "use has categories"),
        ({"field": "use", "tilt": 1}, "without an order"),
        ({"field": "use", "value": "show"}, "use does not allow"),
        ({"field": "use", "value": 1}, "use does not allow"),
        ({"field": "age", "value": 17}, "age does not allow"),
        ({"field": "age", "value": 20.5}, "age does not allow"),
        ({"field": "age", "value": "old"}, "age does not allow"),
        ({"field": "price_share", "scale": 2}, "price_share follows from other fields"),
        ({"field": "income", "scale": 3}, "income is changed twice"),
    ],
)
def test_a_change_that_the_field_does_not_allow_is_refused(
    change: dict[str, Any], told: str
) -> None:
    """Before anybody is drawn, by the scenario and the field."""
    changes = [{"field": "income", "scale": 2}, change]
    found = Scenarios.model_validate(
        {"portfolio": toys.NAME, "scenarios": [{"name": "odd", "title": "Odd", "changes": changes}]}
    )

    with pytest.raises(PortfolioInvalid, match=f"scenario odd: .*{told}"):
        found.check(SHARED)


def test_scenarios_have_names_of_their_own() -> None:
    """None is called stable: that is what is there without a file."""
    for names in (["twice", "twice"], ["stable"]):
        with pytest.raises(ValidationError, match="more than one"):
            Scenarios.model_validate(
                {"portfolio": "any", "scenarios": [{"name": n, "title": n} for n in names]}
            )


def test_a_portfolio_without_the_file_has_the_stable_scenario(tmp_path: Path) -> None:
    """And says so when asked for another."""
    assert list(simulation.scenarios(tmp_path, TOYS.schema)) == ["stable"]
    with pytest.raises(ScenarioNotFound, match=r"no scenario 'boom' .*there are: stable"):
        simulation.scenario(tmp_path, TOYS.schema, "boom")


def test_a_file_of_another_portfolio_is_refused(tmp_path: Path) -> None:
    """As every other file of a portfolio would be."""
    text = "portfolio: other\nscenarios:\n  - {name: any, title: Any}\n"
    (tmp_path / simulation.FILE).write_text(text, encoding="utf-8")

    with pytest.raises(PortfolioInvalid, match="portfolio 'other'"):
        simulation.scenarios(tmp_path, TOYS.schema)


def test_a_package_without_its_files_is_named(tmp_path: Path) -> None:
    """By the file that is not there, or is not what it should be."""
    with pytest.raises(PackageInvalid, match=r"schema\.yaml"):
        simulation.population(tmp_path)
    (tmp_path / "schema.yaml").write_text(toys.SCHEMA, encoding="utf-8")
    with pytest.raises(PackageInvalid, match=r"profile\.json"):
        simulation.population(tmp_path)
    (tmp_path / "profile.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PackageInvalid, match=r"profile\.json"):
        simulation.population(tmp_path)
