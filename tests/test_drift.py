"""Drift: hand-worked figures, scipy's statistics, and no alarm without a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from credit_risk import package, portfolio, simulation, stability
from credit_risk.drift import Counts, Reference
from credit_risk.errors import EvidenceInvalid
from credit_risk.model import probability
from credit_risk.profile import Marginal, Profile
from credit_risk.training import preparation, profiling, settings
from credit_risk.training.rounding import rounded
from tests import toys

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.drift import Comparison
    from credit_risk.package import ModelPackage

    Floats = npt.NDArray[np.float64]

SCHEMA = toys.schema()
ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
FILES = {"personal-loans": "personal_loans.csv", "credit-cards": "credit_cards.csv"}
AGE, INCOME, PRICE, YEARS, HISTORY, USE = range(6)


def applicants(number: int, seed: int) -> tuple[Floats, Floats]:
    """Rows of the toy schema, some numbers continuous and some round, and their PDs."""
    generator = np.random.default_rng(seed)
    rows = np.empty((number, 6))
    rows[:, AGE] = generator.integers(18, 80, number)
    rows[:, INCOME] = generator.lognormal(8.0, 0.7, number)
    rows[:, PRICE] = np.round(generator.lognormal(7.0, 0.8, number), -2)
    rows[:, YEARS] = np.round(generator.exponential(4.0, number))
    rows[generator.random(number) < 0.2, YEARS] = np.nan
    rows[:, HISTORY] = generator.choice(3, number, p=[0.6, 0.3, 0.1])
    rows[:, USE] = generator.choice(3, number, p=[0.2, 0.5, 0.3])
    return rows, generator.beta(1.0, 5.0, number)


DEVELOPMENT, PDS = applicants(8_000, seed=1)
PROFILE = profiling.describe(DEVELOPMENT, SCHEMA, "lessees", PDS)
REFERENCE = Reference(PROFILE, SCHEMA)


def compared(rows: Floats, pds: Floats | None = None) -> dict[str, Comparison]:
    """What comes of each field and of the score, by name."""
    found = REFERENCE.compare(
        REFERENCE.count(rows, applicants(len(rows), 3)[1] if pds is None else pds)
    )
    assert found.score is not None
    return {comparison.field: comparison for comparison in (*found.fields, found.score)}


def test_the_index_of_emptied_missing_and_unseen_bins_by_hand() -> None:
    """An empty bin, of the reference or of the applicants, counts as a share of 0.0001."""
    number = stability.parts([80, 0, 60, 20, 40], [0.25, 0.25, 0.25, 0.15, 0.10])
    category = stability.parts([100, 60, 20, 0, 20], [0.6, 0.3, 0.1, 0.0, 0.0])

    assert number == pytest.approx(
        [
            0.0705005,  # (0.4 - 0.25) ln(0.4 / 0.25)
            1.9552290,  # (0.0001 - 0.25) ln(0.0001 / 0.25), emptied
            0.0091161,  # (0.3 - 0.25) ln(0.3 / 0.25)
            0.0202733,  # (0.1 - 0.15) ln(0.1 / 0.15)
            0.0693147,  # (0.2 - 0.1) ln(0.2 / 0.1), missing
        ],
        abs=1e-7,
    )
    assert category == pytest.approx(
        [
            0.0182322,  # (0.5 - 0.6) ln(0.5 / 0.6)
            0.0,
            0.0,
            0.0,  # missing in neither
            0.6900847,  # (0.1 - 0.0001) ln(0.1 / 0.0001), unseen
        ],
        abs=1e-7,
    )


def test_the_hand_worked_figures_come_of_counted_applicants() -> None:
    """The same shares, as rows: an emptied bin, a missing one and an unseen category."""
    marginals = list(toys.population().marginals)
    marginals[YEARS] = Marginal(
        field="years_employed",
        missing=0.1,
        quantiles=(0, 1, 2, 3),
        edges=(0, 1, 2),
        bins=(0.25, 0.25, 0.25, 0.15),
    )
    profile = toys.population().model_copy(update={"marginals": tuple(marginals)})
    rows = np.repeat([[30.0, 2_000.0, 800.0, 0.0, 0.0, 1.0]], 200, axis=0)
    rows[:, YEARS] = np.repeat([0.0, 1.7, 30.0, np.nan], [80, 60, 20, 40])
    rows[:, HISTORY] = np.repeat([0.0, 1.0, 2.0, -1.0], [100, 60, 20, 20])
    reference = Reference(profile, SCHEMA)

    found = reference.compare(reference.count(rows, np.full(200, np.nan)))

    years, history = found.fields[YEARS], found.fields[HISTORY]
    assert years.psi == pytest.approx(2.1244336, abs=1e-7)
    assert [(b.label, b.reference, b.share) for b in years.bins] == [
        ("up to 0", 0.25, 0.4),
        ("0 to 1", 0.25, 0.0),
        ("1 to 2", 0.25, 0.3),
        ("above 2", 0.15, 0.1),
        ("missing", 0.1, 0.2),
    ]
    assert [(b.lower, b.upper) for b in years.bins] == [
        (None, 0.0),
        (0.0, 1.0),
        (1.0, 2.0),
        (2.0, None),
        (None, None),
    ]
    assert years.leading == "0 to 1"
    assert history.psi == pytest.approx(0.7083169, abs=1e-7)
    assert [b.label for b in history.bins] == ["good", "mixed", "poor", "missing", "unseen"]
    assert history.leading == "unseen"


@given(st.integers(0, 2**32 - 1))
def test_bins_hold_what_lies_between_their_edges(seed: int) -> None:
    """Counted by cells or directly, values on an edge included."""
    rows, pds = applicants(300, seed)
    on_edges = np.random.default_rng(seed).choice(PROFILE.marginals[INCOME].edges, 100)
    rows[:100, INCOME] = on_edges

    found = compared(rows, pds)

    for place in (AGE, INCOME, PRICE, YEARS):
        values = rows[:, place]
        for b in found[SCHEMA.names[place]].bins[:-1]:
            lower = -np.inf if b.lower is None else b.lower
            upper = np.inf if b.upper is None else b.upper
            inside = (values > lower) & (values <= upper)
            assert b.share == pytest.approx(inside.sum() / 300), b.label


@given(st.integers(0, 2**32 - 1), st.integers(0, 200))
def test_windows_add_up(seed: int, cut: int) -> None:
    """The counts of two windows are those of both, and survive being stored."""
    rows, pds = applicants(200, seed)
    first, second = REFERENCE.count(rows[:cut], pds[:cut]), REFERENCE.count(rows[cut:], pds[cut:])

    both = REFERENCE.total([first, REFERENCE.read(second.to_bytes())])

    np.testing.assert_array_equal(both.cells, REFERENCE.count(rows, pds).cells)
    assert REFERENCE.rows(both) == 200
    assert REFERENCE.rows(REFERENCE.empty) == 0


def test_counts_of_another_profile_are_neither_added_nor_read() -> None:
    """Their cells mean something else."""
    other = Reference(toys.population(), SCHEMA)
    stored = other.empty.to_bytes()

    with pytest.raises(ValueError, match="different references"):
        REFERENCE.empty + other.empty
    with pytest.raises(ValueError, match="different references"):
        REFERENCE.compare(other.empty)
    with pytest.raises(EvidenceInvalid, match="not on the grid of this model's"):
        REFERENCE.read(stored)


@pytest.mark.parametrize("content", [b"", b"\0" * 40, REFERENCE.empty.to_bytes()[:-3]])
def test_garbled_counts_are_refused(content: bytes) -> None:
    """Cut short, or never one."""
    with pytest.raises(EvidenceInvalid, match="cannot be read"):
        REFERENCE.read(content)


def test_counts_of_another_number_of_cells_are_refused() -> None:
    """Even where its first bytes are right."""
    short = Counts(REFERENCE.grid, REFERENCE.empty.cells[:-1])

    with pytest.raises(EvidenceInvalid, match="not on the grid of this model's"):
        REFERENCE.read(short.to_bytes())


def test_a_day_of_counts_is_small() -> None:
    """Under 10 kB for 50,000 applicants; nobody of them is in it."""
    rows, pds = applicants(50_000, seed=2)

    assert len(REFERENCE.count(rows, pds).to_bytes()) < 10_000


@pytest.mark.parametrize("place", [AGE, INCOME, PRICE, YEARS])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_kolmogorov_smirnov_is_scipys(place: int, shift: float) -> None:
    """Of all the development rows; the profile's thousand quantiles give it to a thousandth."""
    rows, _ = applicants(3_000, seed=4)
    rows[:, place] *= 1.0 + shift
    now = rows[~np.isnan(rows[:, place]), place]
    then = DEVELOPMENT[~np.isnan(DEVELOPMENT[:, place]), place]

    found = compared(rows)[SCHEMA.names[place]]

    expected = stats.ks_2samp(then, now)
    assert found.test == "kolmogorov-smirnov"
    assert expected.statistic - 0.0011 <= found.statistic <= expected.statistic + 1e-12
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.06)


def test_kolmogorov_smirnov_sees_what_moved_between_round_numbers() -> None:
    """Half a year more each: as many up to every whole year, and none on one."""
    rows, _ = applicants(2_000, seed=5)
    rows[:, YEARS] -= 0.5

    found = compared(rows)["years_employed"]

    present = ~np.isnan(rows[:, YEARS])
    expected = stats.ks_2samp(
        DEVELOPMENT[~np.isnan(DEVELOPMENT[:, YEARS]), YEARS], rows[present, YEARS]
    )
    assert expected.statistic > 0.1
    assert found.statistic == pytest.approx(expected.statistic, abs=0.0011)


def test_a_third_is_the_third_of_the_profile() -> None:
    """Packages have twelve digits of numbers, and applicants all of them: nobody has moved."""
    development = DEVELOPMENT.copy()
    development[:, YEARS] = np.nan_to_num(development[:, YEARS]) / 6.0
    described = profiling.describe(development, SCHEMA, "lessees", PDS)
    packaged = Profile.model_validate(rounded(described.model_dump(mode="json")))
    reference = Reference(packaged, SCHEMA)

    years = reference.compare(reference.count(development, PDS)).fields[YEARS]

    assert years.psi == pytest.approx(0.0, abs=1e-9)
    assert years.statistic == pytest.approx(0.0, abs=1e-3)


def test_chi_square_is_scipys() -> None:
    """Of categories, with those missing and unseen as two more."""
    rows, _ = applicants(1_000, seed=6)
    rows[:30, HISTORY] = np.nan
    rows[30:50, HISTORY] = -1
    then = [(DEVELOPMENT[:, HISTORY] == code).sum() for code in range(3)]
    now = [(rows[:, HISTORY] == code).sum() for code in range(3)]

    found = compared(rows)["history"]

    expected = stats.chi2_contingency([[*then, 0, 0], [*now, 30, 20]])
    assert found.test == "chi-square"
    assert (found.statistic, found.p_value) == pytest.approx(
        (expected.statistic, expected.pvalue), rel=1e-6
    )


def test_chi_square_is_for_numbers_of_few_values_too() -> None:
    """Kolmogorov and Smirnov's p-value would be far too large."""
    development = DEVELOPMENT.copy()
    development[:, YEARS] = development[:, YEARS] > 4
    reference = Reference(profiling.describe(development, SCHEMA, "lessees", PDS), SCHEMA)
    rows, pds = applicants(1_000, seed=18)
    rows[:, YEARS] = np.repeat([0.0, 1.0], [500, 500])

    years = reference.compare(reference.count(rows, pds)).fields[YEARS]

    then = [(development[:, YEARS] == value).sum() for value in (0, 1)]
    assert years.test == "chi-square"
    assert years.p_value == pytest.approx(stats.chi2_contingency([then, [500, 500]]).pvalue)


def test_chi_square_of_the_score_is_of_its_bins() -> None:
    """Its quantiles are not in the profile."""
    rows, pds = applicants(1_000, seed=7)

    found = compared(rows, pds)["score"]

    then, now = (
        np.bincount(np.searchsorted(PROFILE.score_edges, scores), minlength=10)
        for scores in (PDS, pds)
    )
    expected = stats.chi2_contingency([then, now])
    assert found.test == "chi-square"
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)


def test_p_values_are_corrected_for_their_number() -> None:
    """Over all fields and the score."""
    rows, pds = applicants(1_000, seed=8)
    rows[:, INCOME] *= 1.05

    found = list(compared(rows, pds).values())

    corrected = stats.false_discovery_control([c.p_value for c in found])
    assert [c.p_corrected for c in found] == pytest.approx(corrected)
    assert [c.significant for c in found] == [p <= 0.05 for p in corrected]


def test_rates_of_missing_unseen_and_out_of_range_values() -> None:
    """Each beside the reference's own."""
    rows, _ = applicants(400, seed=9)
    rows[:, AGE] = 40
    rows[:40, AGE] = 17
    rows[40:60, AGE] = 1_000
    rows[:100, YEARS] = np.nan
    rows[100:, YEARS] = 1
    rows[:8, USE] = -1

    found = compared(rows)

    age, years, use = found["age"], found["years_employed"], found["use"]
    assert age.out_of_range is not None
    assert (age.out_of_range.reference, age.out_of_range.share) == (0.001, 0.15)
    assert age.unseen is None
    assert years.missing.share == 0.25
    assert years.missing.reference == pytest.approx(0.2, abs=0.02)
    assert use.unseen is not None
    assert (use.unseen.reference, use.unseen.share) == (0.0, 0.02)
    assert use.out_of_range is None


def moved(share: float, number: int) -> Floats:
    """Applicants of whom ``share`` more than in the reference is for cargo, exactly."""
    rows, _ = applicants(number, seed=10)
    shares = np.array(PROFILE.marginals[USE].shares) + np.array([share, -share, 0.0])
    counts = np.round(shares * number).astype(int)
    counts[2] = number - counts[:2].sum()
    rows[:, USE] = np.repeat([0.0, 1.0, 2.0], counts)
    return rows


@pytest.mark.parametrize(
    ("share", "rows", "verdict"),
    [
        (0.0, 2_000, "stable"),
        (0.10, 2_000, "stable"),  # PSI 0.06: significant of so many, and below the line
        (0.15, 2_000, "moderate"),
        (0.25, 2_000, "major"),
        (0.13, 100, "stable"),  # PSI 0.103: above the line, and no more than chance does
        (0.25, 100, "major"),
        (0.25, 99, "too-few"),
    ],
)
def test_a_verdict_needs_a_psi_above_its_line_and_above_chance(
    share: float, rows: int, verdict: str
) -> None:
    """0.1 and 0.25, and the critical value of samples of that size."""
    assert compared(moved(share, rows))["use"].verdict == verdict


def test_the_worst_verdict_is_that_of_all_and_names_its_fields() -> None:
    """The largest PSI first."""
    rows, pds = applicants(1_000, seed=11)
    rows[:, INCOME] *= 1.8
    rows[:700, USE] = 0

    found = REFERENCE.compare(REFERENCE.count(rows, pds))

    assert found.verdict == "major"
    assert found.drifted == ("use", "income")
    assert found.recommendation.startswith("Find out why these changed: use (most in: cargo), inc")


def test_a_moderate_change_is_watched_and_none_is_left_alone() -> None:
    """The recommendation says so."""
    rows, pds = applicants(2_000, seed=12)

    stable = REFERENCE.compare(REFERENCE.count(rows, pds))
    rows[:, USE] = moved(0.15, 2_000)[:, USE]
    moderate = REFERENCE.compare(REFERENCE.count(rows, pds))

    assert (stable.verdict, stable.drifted) == ("stable", ())
    assert stable.recommendation.startswith("No drift")
    assert moderate.verdict == "moderate"
    assert moderate.recommendation.startswith("Watch use (most in: cargo)")


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 applicants are"), (1, "1 applicant is"), (99, "99 applicants are")]
)
def test_too_few_rows_have_no_verdict(number: int, told: str) -> None:
    """And nobody at all is no error."""
    rows, pds = applicants(number, seed=13)

    found = REFERENCE.compare(REFERENCE.count(rows, pds))

    assert found.verdict == "too-few"
    assert found.rows == number
    assert found.recommendation.startswith(f"{told} too few")
    assert found.model_dump_json().count("NaN") == 0


def test_a_field_that_nobody_gives_any_more_has_drifted_and_no_distribution() -> None:
    """All are in the missing bin."""
    rows, _ = applicants(500, seed=14)
    rows[:, YEARS] = np.nan

    years = compared(rows)["years_employed"]

    assert (years.verdict, years.leading) == ("major", "missing")
    assert (years.statistic, years.p_value, years.p_corrected) == (None, None, None)


def test_a_field_that_nobody_gave_in_development_can_only_drift() -> None:
    """There is one bin, and nothing to compare a distribution with."""
    development = DEVELOPMENT.copy()
    development[:, YEARS] = np.nan
    reference = Reference(profiling.describe(development, SCHEMA, "lessees", PDS), SCHEMA)

    never, now = (
        reference.compare(reference.count(rows, PDS[:500])).fields[YEARS]
        for rows in (development[:500], DEVELOPMENT[:500])
    )

    assert (never.verdict, now.verdict) == ("stable", "major")
    assert [b.label for b in never.bins] == ["all", "missing"]
    assert now.leading == "all"


def test_a_profile_without_scores_has_none_to_compare() -> None:
    """The fields are compared all the same."""
    unscored = toys.population().model_copy(update={"score_edges": (), "score_bins": ()})
    reference = Reference(unscored, SCHEMA)
    rows = toys.reference(200)

    found = reference.compare(reference.count(rows, np.full(200, 0.5)))

    assert found.score is None
    assert [len(part) for part in reference.scores(reference.empty)] == [0, 0]
    assert [c.field for c in found.fields] == list(SCHEMA.names)


def test_a_score_that_could_not_be_made_is_missing() -> None:
    """NaN, for an applicant that the model cannot take."""
    rows, pds = applicants(300, seed=15)
    pds[:60] = np.nan

    assert compared(rows, pds)["score"].missing.share == 0.2


def test_scores_are_compared_with_as_many_rows_as_made_their_bins() -> None:
    """Those held out from training, which are fewer than the profile's."""
    population = REFERENCE.count(*applicants(500, seed=16))

    found = Reference(PROFILE, SCHEMA, score_rows=1_000).compare(population)

    assert found.score is not None
    assert (found.score.reference_rows, found.fields[0].reference_rows) == (1_000, 8_000)


# The shipped portfolios


MOVED_LITTLE = {
    "personal-loans": {"cb_person_default_on_file"},
    "credit-cards": {"avg_delay", "high_risk_flag"},
}
"""What `missing-bureau` moves and leaves stable, as docs/monitoring.md says."""


def shipped(name: str) -> ModelPackage:
    """The package that a portfolio ships as its default."""
    folder = ROOT / "packages" / name
    return package.load(folder / (folder / "default").read_text(encoding="utf-8").strip())


@pytest.mark.parametrize("name", FILES)
def test_a_thousand_applicants_of_each_scenario_are_flagged_and_the_right_fields_named(
    name: str,
) -> None:
    """No others are, what is moved a little is significant all the same, and stable is stable."""
    moved_little: dict[str, set[str]] = {}
    loaded = shipped(name)
    reference = Reference.of(loaded)
    known = simulation.Population(loaded.schema, loaded.profile)
    for scenario, what in simulation.scenarios(ROOT / "portfolios" / name, loaded.schema).items():
        rows = np.concatenate(list(simulation.blocks(known, what, 1, 1_000)))

        found = reference.compare(reference.count(rows, probability(loaded.model.log_odds(rows))))

        moved = set(what.moves(loaded.schema))
        assert (found.verdict in {"moderate", "major"}) == bool(moved), scenario
        assert set(found.drifted) <= moved | {"score"}, scenario
        assert bool(set(found.drifted) & moved) == bool(moved), scenario
        significant = {c.field for c in found.fields if c.significant}
        assert significant | set(found.drifted) >= moved, scenario
        if moved - set(found.drifted):
            moved_little[scenario] = moved - set(found.drifted)
    assert moved_little == {"missing-bureau": MOVED_LITTLE[name]}


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data, the real data, is not here")
@pytest.mark.parametrize("name", FILES)
def test_real_applicants_are_hardly_ever_taken_for_others(name: str) -> None:
    """A profile of one half against some of the other: alarms in at most 5 of 100 splits.

    PDs are of the shipped model, which was trained on most of both halves.
    """
    loaded, chosen = shipped(name), portfolio.load(ROOT / "portfolios", name)
    training = settings.load(chosen)
    rows = preparation.read(DATA / FILES[name], chosen.schema, training, unique=False).rows
    pds = probability(loaded.model.log_odds(rows))
    alarms: Counter[int] = Counter()
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(len(rows))
        half, others = np.array_split(order, 2)
        described = profiling.describe(rows[half], chosen.schema, "half of them", pds[half])
        reference = Reference(described, chosen.schema)
        for number in (200, 1_000, 5_000):
            some = others[:number]
            found = reference.compare(reference.count(rows[some], pds[some]))
            assert found.verdict != "too-few"
            alarms[number] += found.verdict != "stable"

    assert max(alarms.values()) <= 5, alarms
