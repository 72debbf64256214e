"""Performance: scikit-learn's figures, intervals that hold the truth, and none of too little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from credit_risk import performance
from credit_risk.drift import Reference
from credit_risk.performance import Outcomes
from tests import toys

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.performance import Figures, Performance

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

TODAY = np.datetime64("2026-11-22")
MONTHS = [f"2025-{month:02}" for month in range(1, 13)]


def drawn(rows: int, seed: int, odds: float = 1.0, decimals: int = 12) -> tuple[Floats, Ints]:
    """PDs, and outcomes whose odds are the PDs' times ``odds``."""
    generator = np.random.default_rng(seed)
    pds = np.round(generator.beta(1.0, 4.0, rows), decimals)
    true = odds * pds / (1.0 - pds + odds * pds)
    return pds, (generator.random(rows) < true).astype(np.int64)


def measured(pds: Floats, defaulted: Ints, accepted: int | None = None) -> Performance:
    """Their figures: decided over a year, and known 300 days later."""
    decided = np.datetime64("2025-01-01") + np.arange(len(pds)) % 365
    outcomes = Outcomes(pds, defaulted, decided, decided + 300)
    per_month = (accepted if accepted is not None else len(pds)) // 12
    return performance.measure(
        outcomes, dict.fromkeys(MONTHS, per_month), toys.policy(), today=TODAY
    )


def figures(pds: Floats, defaulted: Ints) -> Figures:
    """Those of enough rows."""
    found = measured(pds, defaulted).figures
    assert found is not None
    return found


@given(st.integers(0, 2**32 - 1), st.integers(200, 600), st.sampled_from([2, 12]))
@settings(max_examples=20)
def test_figures_are_scikit_learns(seed: int, rows: int, decimals: int) -> None:
    """ROC-AUC and Brier score, and the ROC curve's greatest height; with ties and without."""
    pds, defaulted = drawn(rows, seed, decimals=decimals)

    found = figures(pds, defaulted)

    fpr, tpr, _ = roc_curve(defaulted, pds)
    assert found.auc.value == pytest.approx(roc_auc_score(defaulted, pds))
    assert found.gini.value == pytest.approx(2 * roc_auc_score(defaulted, pds) - 1)
    assert found.ks.value == pytest.approx(np.abs(tpr - fpr).max())
    assert found.brier.value == pytest.approx(brier_score_loss(defaulted, pds))
    assert found.default_rate.value == pytest.approx(defaulted.mean())
    assert found.calibration.value == pytest.approx(defaulted.sum() / pds.sum())
    for figure in (found.auc, found.gini, found.ks, found.brier, found.calibration):
        assert figure.low < figure.value < figure.high


def test_intervals_of_many_rows_are_those_of_each_row_resampled() -> None:
    """Pooled into cells they are as wide, and in the same place."""
    pds, defaulted = drawn(6_000, seed=1)
    generator = np.random.default_rng(2)
    resampled = []
    for _ in range(200):
        places = generator.integers(0, 6_000, 6_000)
        resampled.append(
            (
                roc_auc_score(defaulted[places], pds[places]),
                brier_score_loss(defaulted[places], pds[places]),
            )
        )

    found = figures(pds, defaulted)

    for figure, values in zip((found.auc, found.brier), np.transpose(resampled), strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        width = high - low
        assert (figure.low, figure.high) == pytest.approx((low, high), abs=0.2 * width)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Those of KS, which is too large in every sample of 200 rows, a little less often."""
    pds, defaulted = drawn(200_000, seed=3)
    whole = performance.measure(
        Outcomes(pds, defaulted, *np.full((2, len(pds)), TODAY)), {}, toys.policy(), today=TODAY
    ).figures
    assert whole is not None
    held = np.zeros(3)
    for sample in range(100):
        some = slice(sample * 200, (sample + 1) * 200)
        found = figures(pds[some], defaulted[some])
        held += [
            one.low <= all_of_them.value <= one.high
            for one, all_of_them in (
                (found.auc, whole.auc),
                (found.calibration, whole.calibration),
                (found.ks, whole.ks),
            )
        ]

    assert held[:2].tolist() == pytest.approx([95, 95], abs=4)
    assert held[2] >= 84


def test_what_is_accepted_is_ranked_worse_as_is_to_be_expected() -> None:
    """By a model whose PDs are true: so its figures are compared with those expected of them."""
    pds, defaulted = drawn(6_000, seed=10)
    accepted = pds < 0.15

    found = measured(pds[accepted], defaulted[accepted])

    assert found.figures is not None
    assert found.expected is not None
    assert found.figures.auc.high < figures(pds, defaulted).auc.value - 0.02
    assert found.figures.auc.low < found.expected.auc.value < found.figures.auc.high


def test_differences_of_the_same_rows_are_held_by_their_intervals() -> None:
    """Of 40 samples, and narrower than if the PDs were of different applicants."""
    apart = performance.differences
    all_pds, all_defaulted = drawn(200_000, 1)
    blurred = np.random.default_rng(2).normal(0.0, 0.05, 200_000)
    all_others = np.clip(all_pds + blurred, 0.0, 1.0)
    true = roc_auc_score(all_defaulted, all_others) - roc_auc_score(all_defaulted, all_pds)
    held, widths = 0, []
    for seed in range(40):
        rows = slice(1_000 * seed, 1_000 * (seed + 1))
        auc = apart(all_pds[rows], all_others[rows], all_defaulted[rows], seed=seed).auc
        held += auc.low <= true <= auc.high
        widths.append(auc.high - auc.low)

    pds, others, defaulted = all_pds[:1_000], all_others[:1_000], all_defaulted[:1_000]
    alone, found = figures(pds, defaulted).auc, apart(pds, others, defaulted)
    assert 35 <= held <= 40
    assert max(widths) < 0.6 * (alone.high - alone.low)
    assert found.auc.value == pytest.approx(
        roc_auc_score(defaulted, others) - roc_auc_score(defaulted, pds)
    )
    assert found.gini.value == pytest.approx(2 * found.auc.value)
    assert found.brier.value == pytest.approx(
        brier_score_loss(defaulted, others) - brier_score_loss(defaulted, pds)
    )
    assert apart(pds, others, defaulted) == found
    same = apart(pds, pds, defaulted)
    assert (same.ks.value, same.ks.low, same.ks.high) == (0.0, 0.0, 0.0)


def test_the_same_outcomes_have_the_same_intervals() -> None:
    """In whatever order they come."""
    pds, defaulted = drawn(500, seed=4)

    assert figures(pds, defaulted) == figures(pds, defaulted)
    assert figures(pds[::-1], defaulted[::-1]).auc.low == pytest.approx(
        figures(pds, defaulted).auc.low
    )


@pytest.mark.parametrize(
    ("rows", "defaults", "reason"),
    [
        (0, 0, "0 outcomes are known, and 100 are needed"),
        (99, 50, "99 outcomes are known, and 100 are needed"),
        (100, 0, "0 of 100 defaulted, and 10 are needed that did and that did not"),
        (100, 9, "9 of 100 defaulted, and 10 are needed that did and that did not"),
        (100, 91, "91 of 100 defaulted, and 10 are needed that did and that did not"),
    ],
)
def test_too_little_is_said_to_be_not_enough(rows: int, defaults: int, reason: str) -> None:
    """Rather than NaN, or a figure that chance made."""
    defaulted = (np.arange(rows) < defaults).astype(np.int64)

    found = measured(np.linspace(0.1, 0.9, rows), defaulted)

    assert (found.figures, found.deciles, found.not_enough) == (None, (), reason)
    assert (found.rows, found.defaults) == (rows, defaults)
    assert "NaN" not in found.model_dump_json()


def test_ten_of_each_are_just_enough() -> None:
    """All resamples have both outcomes, or are left out."""
    defaulted = (np.arange(100) < 10).astype(np.int64)

    found = figures(np.linspace(0.1, 0.9, 100), defaulted)

    assert 0.0 <= found.auc.low <= found.auc.high <= 1.0


def test_deciles_are_tenths_whose_rate_has_wilsons_interval() -> None:
    """From the lowest PDs up; rows of one PD stay together."""
    pds, defaulted = drawn(1_000, seed=5)

    deciles = measured(pds, defaulted).deciles

    order = np.argsort(pds)
    tenth = order[300:400]
    interval = binomtest(int(defaulted[tenth].sum()), 100).proportion_ci(0.95, method="wilson")
    fourth = deciles[3]
    assert [d.name for d in deciles] == [str(number) for number in range(1, 11)]
    assert [d.rows for d in deciles] == [100] * 10
    assert (fourth.lower, fourth.upper) == (pds[tenth].min(), pds[tenth].max())
    assert fourth.mean_pd == pytest.approx(pds[tenth].mean())
    assert fourth.default_rate == pytest.approx(defaulted[tenth].mean())
    assert (fourth.low, fourth.high) == pytest.approx((interval.low, interval.high))


def test_equal_pds_share_a_decile() -> None:
    """However many there are."""
    pds = np.repeat([0.1, 0.2, 0.6], [400, 400, 200])
    defaulted = (np.arange(1_000) % 5 == 0).astype(np.int64)

    deciles = measured(pds, defaulted).deciles

    assert [(d.name, d.rows, d.lower, d.upper) for d in deciles] == [
        ("3", 400, 0.1, 0.1),
        ("7", 400, 0.2, 0.2),
        ("10", 200, 0.6, 0.6),
    ]


def test_bands_are_the_policys_and_an_empty_one_has_no_rate() -> None:
    """A PD on an edge belongs to the band above."""
    pds = np.array([0.05] * 60 + [0.1] * 30 + [0.3] * 30)
    defaulted = np.array(([1] + [0] * 4) * 24)

    bands = measured(pds, defaulted).bands

    assert [(b.name, b.decision, b.rows) for b in bands] == [
        ("LOW", "APPROVE", 60),
        ("MEDIUM", "APPROVE", 30),
        ("HIGH", "REVIEW", 30),
        ("VERY_HIGH", "DECLINE", 0),
    ]
    assert (bands[0].mean_pd, bands[0].default_rate) == pytest.approx((0.05, 0.2))
    assert (bands[3].mean_pd, bands[3].default_rate, bands[3].low) == (None, None, None)


def test_vintages_are_months_of_decision_with_coverage_and_maturity() -> None:
    """Also months of which nothing is known yet; the youngest of a month has to be old enough."""
    decided = np.array(["2025-10-31"] * 3 + ["2025-11-01"] * 2, dtype="datetime64[D]")
    observed = decided + np.array([30, 60, 90, 120, 150])
    outcomes = Outcomes(np.full(5, 0.2), np.array([1, 0, 0, 1, 1]), decided, observed)

    found = performance.measure(
        outcomes, {"2025-10": 4, "2025-11": 8, "2026-01": 8}, toys.policy(), today=TODAY
    )

    assert [(v.month, v.accepted, v.rows, v.coverage, v.mature) for v in found.vintages] == [
        ("2025-10", 4, 3, 0.75, True),
        ("2025-11", 8, 2, 0.25, False),
        ("2026-01", 8, 0, 0.0, False),
    ]
    assert found.vintages[0].default_rate == pytest.approx(1 / 3)
    assert found.vintages[2].default_rate is None
    assert (found.accepted, found.coverage, found.maturity) == (20, 0.25, 0.2)
    assert found.months == pytest.approx(90 * 12 / 365.25)
    assert [caveat[:24] for caveat in found.caveats] == [
        "Outcomes exist for accep",
        "Of 20 accepted, 5 have a",
        "16 were accepted less th",
    ]


def test_a_shorter_outcome_period_matures_sooner() -> None:
    """It is the portfolio's to say."""
    decided = np.array(["2026-07-15"], dtype="datetime64[D]")
    outcomes = Outcomes(np.array([0.2]), np.array([0]), decided, decided + 90)

    for months, mature in ((3, True), (4, False)):
        found = performance.measure(outcomes, {}, toys.policy(), today=TODAY, months=months)
        assert found.vintages[0].mature is mature


def test_nothing_at_all_is_no_error() -> None:
    """No outcome, nobody accepted."""
    found = measured(np.empty(0), np.empty(0, dtype=np.int64), accepted=0)

    assert (found.coverage, found.maturity, found.months) == (0.0, 0.0, None)


@pytest.mark.parametrize("seed", [5, 6])
def test_before_outcomes_are_known_the_estimate_says_what_true_pds_will_show(seed: int) -> None:
    """The mean of outcomes drawn again and again, by scikit-learn."""
    pds, _ = drawn(300, seed)
    generator = np.random.default_rng(seed)
    found = performance.estimate(pds)
    assert found is not None
    outcomes = generator.random((200, 300)) < pds
    areas = [roc_auc_score(defaulted, pds) for defaulted in outcomes]
    scores = [brier_score_loss(defaulted, pds) for defaulted in outcomes]

    assert found.auc.value == pytest.approx(np.mean(areas), abs=0.02)
    assert found.brier.value == pytest.approx(np.mean(scores), abs=0.01)
    assert found.default_rate.value == pytest.approx(pds.mean())
    assert found.calibration.value == pytest.approx(1.0)
    assert found.auc.low < np.quantile(areas, 0.15)
    assert np.quantile(areas, 0.85) < found.auc.high


def test_the_estimate_holds_what_is_measured_later_if_the_pds_are_true() -> None:
    """And not if defaults are half as many again."""
    pds, defaulted = drawn(5_000, seed=7)
    _, more = drawn(5_000, seed=7, odds=1.7)

    found = performance.estimate(pds)

    assert found is not None
    assert found.auc.low < figures(pds, defaulted).auc.value < found.auc.high
    low, high = found.calibration.low, found.calibration.high
    assert low < figures(pds, defaulted).calibration.value < high
    assert figures(pds, more).calibration.value > high


def test_the_estimate_of_counted_scores_is_that_of_the_scores() -> None:
    """A month of counts is enough for it."""
    pds, _ = drawn(20_000, seed=8)
    reference = Reference(toys.population(), toys.schema())
    rows = np.repeat(toys.reference(1), 20_000, axis=0)

    counted = performance.estimate(*reference.scores(reference.count(rows, pds)))
    exact = performance.estimate(pds)

    assert counted is not None
    assert exact is not None
    for one, other in ((counted.auc, exact.auc), (counted.brier, exact.brier)):
        assert one.value == pytest.approx(other.value, abs=0.001)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.003)


@pytest.mark.parametrize("pds", [np.empty(0), np.full(99, 0.5), np.full(150, 0.01)])
def test_there_is_no_estimate_of_too_few(pds: Floats) -> None:
    """Fewer than a hundred, or than ten defaults to be expected."""
    assert performance.estimate(pds) is None


def test_counts_are_of_so_many_applications() -> None:
    """Each PD given once, with how many have it."""
    pds = np.array([0.1, 0.4, 0.5, 0.7])

    counted = performance.estimate(pds, np.array([50, 60, 0, 70]))
    each = performance.estimate(np.repeat(pds, [50, 60, 0, 70]))

    assert counted is not None
    assert each is not None
    assert counted.auc.value == pytest.approx(each.auc.value)
    assert counted.brier.high == pytest.approx(each.brier.high)
