"""Evaluation: the figures agree with definitions worked by hand and with the libraries."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import ks_2samp
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from credit_risk.errors import DataInvalid
from credit_risk.training.evaluation import (
    BINS,
    Evaluation,
    calibration_error,
    equal_count_bins,
    equal_width_bins,
    evaluate,
    table,
)
from tests import toys

if TYPE_CHECKING:
    from credit_risk.policy import Policy
    from credit_risk.training.evaluation import Floats, Labels

POLICY = toys.policy()
EDGES = [band.upper for band in POLICY.bands]


def _drawn(rows: int = 500, seed: int = 1) -> tuple[Labels, Floats]:
    """Rows whose PDs are true: each defaults with the probability it is given."""
    generator = np.random.default_rng(seed)
    pds = generator.beta(0.6, 2.2, rows)
    return (generator.random(rows) < pds).astype(np.int64), pds


@st.composite
def _samples(draw: st.DrawFn) -> tuple[Labels, Floats]:
    """Small samples of both outcomes, with ties and PDs on the policy's edges."""
    likely = st.sampled_from([0.0, *EDGES, POLICY.cut_off, 0.05, 0.05000000000000001])
    pds = draw(st.lists(likely | st.floats(0.0, 1.0), min_size=2, max_size=60))
    size = len(pds)
    labels = draw(
        st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(
            lambda values: len(set(values)) == 2
        )
    )
    return np.array(labels), np.array(pds)


def test_the_figures_are_those_of_scikit_learn_and_scipy(policy: Policy) -> None:
    """Where a library has the figure, ours is the library's."""
    labels, pds = _drawn()

    result = evaluate(labels, pds, policy)

    predicted = pds >= policy.cut_off
    assert result.roc_auc == roc_auc_score(labels, pds)
    assert result.pr_auc == average_precision_score(labels, pds)
    ks = ks_2samp(pds[labels == 1], pds[labels == 0])
    assert result.ks == pytest.approx(ks.statistic, abs=1e-15)
    assert result.brier == brier_score_loss(labels, pds)
    assert result.log_loss == log_loss(labels, pds)
    assert result.precision == pytest.approx(precision_score(labels, predicted), abs=1e-15)
    assert result.recall == pytest.approx(recall_score(labels, predicted), abs=1e-15)
    matrix = [
        [result.confusion.tn, result.confusion.fp],
        [result.confusion.fn, result.confusion.tp],
    ]
    assert matrix == confusion_matrix(labels, predicted).tolist()


def test_the_figures_of_four_rows_are_those_worked_by_hand(policy: Policy) -> None:
    """Three of the four pairs of a default and a non-default are ranked rightly."""
    result = evaluate(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]), policy)

    assert (result.rows, result.defaults, result.default_rate) == (4, 2, 0.5)
    assert result.mean_pd == pytest.approx(1.65 / 4)
    assert result.roc_auc == 0.75
    assert result.gini == 0.5
    # Falling PD: recall 1/2 at precision 1, then recall 1 at precision 2/3.
    assert result.pr_auc == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # Up to 0.1 lies half of the non-defaults and no default.
    assert result.ks == 0.5
    assert result.brier == pytest.approx((0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4)
    assert result.log_loss == pytest.approx(-np.log([0.9, 0.6, 0.35, 0.8]).mean())
    # Cut-off 0.4: the second and the last are predicted to default.
    assert (result.precision, result.recall) == (0.5, 0.5)


def test_ks_is_the_widest_gap_between_the_cumulative_shares(policy: Policy) -> None:
    """Worked from the definition, over every PD there is, ties included."""
    labels, pds = _drawn()
    pds = pds.round(2)
    below = pds[:, None] <= np.unique(pds)
    gaps = below[labels == 0].mean(axis=0) - below[labels == 1].mean(axis=0)

    assert evaluate(labels, pds, policy).ks == pytest.approx(np.abs(gaps).max(), abs=1e-15)


def test_a_pd_at_the_cut_off_predicts_a_default(policy: Policy) -> None:
    """The policy predicts at or above its cut-off, and so does the confusion matrix."""
    result = evaluate(np.array([1, 0]), np.array([policy.cut_off, 0.0]), policy)

    assert (result.confusion.tp, result.confusion.tn) == (1, 1)
    assert (result.confusion.fp, result.confusion.fn) == (0, 0)


def test_precision_is_absent_where_nothing_is_predicted_to_default(policy: Policy) -> None:
    """A share of no rows is no number, so none is given."""
    result = evaluate(np.array([1, 0]), np.array([0.2, 0.1]), policy)

    assert result.precision is None
    assert result.recall == 0.0


def test_calibration_error_by_equal_width_is_the_one_worked_by_hand() -> None:
    """Bins [0, 0.1], (0.1, 0.2] and (0.9, 1] hold two rows, one and one."""
    labels = np.array([0, 1, 0, 1])
    pds = np.array([0.05, 0.1, 0.15, 0.95])

    bins = equal_width_bins(pds)

    assert bins.tolist() == [0, 0, 1, 9]
    expected = 0.5 * abs(0.5 - 0.075) + 0.25 * 0.15 + 0.25 * 0.05
    assert calibration_error(labels, pds, bins) == pytest.approx(expected)


def test_calibration_error_by_equal_count_is_the_one_worked_by_hand() -> None:
    """Twenty rows make ten bins of two, whatever the order they come in."""
    pds = np.arange(20) / 20
    labels = np.tile([0, 1], 10)

    bins = equal_count_bins(pds)

    assert bins.tolist() == [i // 2 for i in range(20)]
    # Each bin's default rate is 1/2, its mean PD (2b + 1/2) / 20.
    expected = np.mean([abs(0.5 - (2 * b + 0.5) / 20) for b in range(10)])
    assert calibration_error(labels, pds, bins) == pytest.approx(expected)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_calibration_errors_are_those_of_scikit_learns_calibration_curve(
    strategy: str, policy: Policy
) -> None:
    """Without ties the bins are scikit-learn's, so its curve gives the same errors."""
    labels, pds = _drawn(1_000)
    result = evaluate(labels, pds, policy)
    rates, means = calibration_curve(labels, pds, n_bins=BINS, strategy=strategy)

    if strategy == "uniform":
        counts = np.histogram(pds, np.linspace(0, 1, BINS + 1))[0]
        expected = (counts[counts > 0] / 1_000 * np.abs(rates - means)).sum()
        assert result.ece_equal_width == pytest.approx(expected)
    else:
        assert result.ece_equal_count == pytest.approx(np.abs(rates - means).mean())


def test_deciles_hold_a_tenth_of_the_rows_each(policy: Policy) -> None:
    """Of 25 rows without ties each decile has two or three, from the lowest PDs up."""
    pds = np.linspace(0.02, 0.98, 25)
    labels = (np.arange(25) % 3 == 0).astype(np.int64)

    deciles = evaluate(labels, pds, policy).deciles

    assert [d.decile for d in deciles] == list(range(1, 11))
    assert {d.rows for d in deciles} == {2, 3}
    assert sum(d.rows for d in deciles) == 25
    means = [d.mean_pd for d in deciles]
    assert means == sorted(means)
    assert (deciles[0].rows, deciles[0].default_rate) == (2, 0.5)
    assert deciles[0].mean_pd == pytest.approx(0.04)
    assert deciles[0].upper == pytest.approx(0.08)


def test_equal_pds_share_a_decile(policy: Policy) -> None:
    """Eight of twenty rows have one PD: ranks 7 to 14 average 10.5, which is the sixth tenth."""
    pds = np.concatenate([np.arange(6) / 100, np.full(8, 0.3), 0.5 + np.arange(6) / 100])
    labels = np.array([0, 1] * 10)

    deciles = evaluate(labels, pds, policy).deciles

    assert [(d.decile, d.rows) for d in deciles] == [
        (1, 2),
        (2, 2),
        (3, 2),
        (6, 8),
        (8, 2),
        (9, 2),
        (10, 2),
    ]
    assert deciles[3].mean_pd == pytest.approx(0.3)
    assert deciles[3].default_rate == 0.5


def test_one_pd_for_all_rows_makes_one_decile(policy: Policy) -> None:
    """A model that tells nobody apart has nothing to part, and ranks by chance."""
    result = evaluate(np.array([0, 0, 0, 1]), np.full(4, 0.25), policy)

    assert len(result.deciles) == 1
    assert (result.deciles[0].lower, result.deciles[0].upper) == (0.0, 1.0)
    assert (result.roc_auc, result.ks, result.ece_equal_count) == (0.5, 0.0, 0.0)


def test_no_decile_edge_is_the_pd_of_a_row(policy: Policy) -> None:
    """Edges lie between rows, so that none can be read from them."""
    labels, pds = _drawn()

    deciles = evaluate(labels, pds, policy).deciles

    assert [d.lower for d in deciles[1:]] == [d.upper for d in deciles[:-1]]
    assert (deciles[0].lower, deciles[-1].upper) == (0.0, 1.0)
    assert not set(pds.tolist()) & {edge for d in deciles for edge in (d.lower, d.upper)}


def test_default_rates_carry_wilsons_interval(policy: Policy) -> None:
    """For no default of ten rows it ends at z squared over n plus z squared."""
    pds = np.linspace(0.01, 0.99, 100)
    labels = (np.arange(100) >= 50).astype(np.int64)

    deciles = evaluate(labels, pds, policy).deciles

    z = 1.959963984540054
    assert deciles[0].rows == 10
    assert deciles[0].default_rate_low == pytest.approx(0.0, abs=1e-12)
    assert deciles[0].default_rate_high == pytest.approx(z**2 / (10 + z**2))
    assert deciles[-1].default_rate_low == pytest.approx(10 / (10 + z**2))


def test_bands_and_decisions_are_counted_by_the_policy(policy: Policy) -> None:
    """Edges belong to the band above them; an empty band has no rates."""
    pds = np.array([0.0, 0.05, 0.1, 0.4, 1.0])
    labels = np.array([0, 1, 0, 1, 1])

    result = evaluate(labels, pds, policy)

    assert [(b.band, b.decision, b.rows, b.share) for b in result.bands] == [
        ("LOW", "APPROVE", 2, 0.4),
        ("MEDIUM", "APPROVE", 1, 0.2),
        ("HIGH", "REVIEW", 0, 0.0),
        ("VERY_HIGH", "DECLINE", 2, 0.4),
    ]
    assert [b.default_rate for b in result.bands] == [0.5, 0.0, None, 1.0]
    assert [b.mean_pd for b in result.bands] == [0.025, 0.1, None, 0.7]
    assert result.decisions == {"APPROVE": 0.6, "REVIEW": 0.0, "DECLINE": 0.4}


@given(sample=_samples())
def test_every_row_is_in_the_band_the_policy_puts_it_in(sample: tuple[Labels, Floats]) -> None:
    """Counting all rows at once must not differ from asking the policy for each."""
    labels, pds = sample

    result = evaluate(labels, pds, POLICY)

    names = [POLICY.band_of(p).name for p in pds.tolist()]
    assert {b.band: b.rows for b in result.bands} == {
        band.name: names.count(band.name) for band in POLICY.bands
    }


@given(sample=_samples(), data=st.data())
def test_the_order_of_the_rows_makes_no_difference(
    sample: tuple[Labels, Floats], data: st.DataObject
) -> None:
    """Ties must not be split by where a row happened to stand."""
    labels, pds = sample
    order = np.array(data.draw(st.permutations(range(len(labels)))))

    one = evaluate(labels, pds, POLICY).model_dump()
    other = evaluate(labels[order], pds[order], POLICY).model_dump()

    def flat(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for part in value.values() for leaf in flat(part)]
        if isinstance(value, tuple):
            return [leaf for part in value for leaf in flat(part)]
        return [value]

    # Sums of floats in another order differ in the last digits.
    for a, b in zip(flat(one), flat(other), strict=True):
        assert a == (pytest.approx(b, abs=1e-9) if isinstance(b, float) else b)


@given(sample=_samples())
def test_figures_keep_to_their_ranges_and_add_up(sample: tuple[Labels, Floats]) -> None:
    """Counts add up to the rows, shares to one, and every figure is a finite number."""
    labels, pds = sample

    result = evaluate(labels, pds, POLICY)

    counts = result.confusion
    assert counts.tn + counts.fp + counts.fn + counts.tp == result.rows == len(labels)
    assert counts.fn + counts.tp == result.defaults
    assert sum(d.rows for d in result.deciles) == result.rows
    assert sum(b.rows for b in result.bands) == result.rows
    assert sum(result.decisions.values()) == pytest.approx(1.0)
    assert result.gini == pytest.approx(2 * result.roc_auc - 1)
    for share in (result.roc_auc, result.pr_auc, result.ks, result.brier, result.recall):
        assert 0.0 <= share <= 1.0
    for error in (result.ece_equal_count, result.ece_equal_width):
        # No binning can err by less than all rows in one bin do.
        assert abs(result.default_rate - result.mean_pd) - 1e-12 <= error <= 1.0
    for d in result.deciles:
        assert d.lower <= d.mean_pd + 1e-12
        assert d.mean_pd - 1e-12 <= d.upper
        assert d.default_rate_low - 1e-12 <= d.default_rate <= d.default_rate_high + 1e-12


@given(sample=_samples())
def test_ranking_figures_depend_on_the_order_of_the_pds_alone(
    sample: tuple[Labels, Floats],
) -> None:
    """Spreading the PDs by another rising function leaves ROC-AUC, PR-AUC and KS as they are."""
    labels, pds = sample
    ranks = np.unique(pds, return_inverse=True)[1]

    one = evaluate(labels, pds, POLICY)
    other = evaluate(labels, ranks / 100.0, POLICY)

    assert one.roc_auc == pytest.approx(other.roc_auc)
    assert one.pr_auc == pytest.approx(other.pr_auc)
    assert one.ks == pytest.approx(other.ks)


def test_pds_that_are_not_true_are_warned_of() -> None:
    """By either calibration error; true ones on many rows are not."""
    labels, pds = _drawn(40_000)

    true, low = evaluate(labels, pds, POLICY), evaluate(labels, pds * 0.8, POLICY)

    assert true.warning is None
    assert low.warning is not None
    assert f"{low.ece_equal_count:.4f} by equal count" in low.warning
    for name in ("ece_equal_count", "ece_equal_width"):
        assert true.model_copy(update={name: 0.0151}).warning is not None


@given(sample=_samples())
def test_an_evaluation_survives_json(sample: tuple[Labels, Floats]) -> None:
    """It is read back as it was, from JSON that holds neither NaN nor infinity."""
    result = evaluate(*sample, POLICY)

    text = result.model_dump_json()

    assert Evaluation.model_validate_json(text) == result
    json.dumps(result.model_dump(), allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "pds", "words"),
    [
        ([], [], "no rows"),
        ([0, 1], [0.5], "shapes"),
        ([[0, 1]], [[0.1, 0.2]], "shapes"),
        ([0, 0], [0.1, 0.2], "every label is 0"),
        ([1, 1], [0.1, 0.2], "every label is 1"),
        ([0, 2], [0.1, 0.2], "neither 0"),
        ([0, 1], [0.1, float("nan")], "not a finite number"),
        ([0, 1], [0.1, float("inf")], "not a finite number"),
        ([0, 1], [-0.1, 0.2], "outside 0 to 1"),
        ([0, 1], [0.1, 1.1], "outside 0 to 1"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_words(
    labels: list[int], pds: list[float], words: str, policy: Policy
) -> None:
    """A figure that means nothing is never given."""
    with pytest.raises(DataInvalid, match=words):
        evaluate(np.array(labels, dtype=np.int64), np.array(pds, dtype=np.float64), policy)


def _printed(result: Evaluation, *, width: int = 80) -> str:
    stream = StringIO()
    Console(file=stream, width=width).print(table(result))
    return stream.getvalue()


def test_the_table_shows_the_figures_in_plain_text_of_80_columns(policy: Policy) -> None:
    """What is piped has no escape codes, and nothing in it is cut off."""
    result = evaluate(*_drawn(200_000), policy)

    text = _printed(result)

    assert "\x1b" not in text
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for figure in (
        "200,000",
        f"{result.defaults:,}",
        f"{result.roc_auc:.4f}",
        f"{result.gini:.4f}",
        f"{result.pr_auc:.4f}",
        f"{result.ks:.4f}",
        f"{result.brier:.4f}",
        f"{result.log_loss:.4f}",
        f"{result.ece_equal_count:.4f}",
        f"{result.ece_equal_width:.4f}",
        f"precision {result.precision:.4f}, recall {result.recall:.4f}",
        f"{result.confusion.tp:,}",
        f"{result.deciles[4].default_rate:.2%}",
        f"REVIEW {result.decisions['REVIEW']:.1%}",
    ):
        assert figure in text
    for band in result.bands:
        assert f"{band.rows:,}" in text


def test_the_table_says_where_there_is_no_figure(policy: Policy) -> None:
    """An empty band and a precision of nothing are named as such."""
    text = _printed(evaluate(np.array([1, 0]), np.array([0.15, 0.01]), policy))

    assert "precision n/a, recall 0.0000" in text
    row = next(line for line in text.splitlines() if line.startswith("HIGH"))
    assert row.split() == ["HIGH", "20.00%", "40.00%", "0", "0.0%", "n/a", "n/a", "REVIEW"]
