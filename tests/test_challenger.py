"""Champion and challenger: by hand, by scipy, and nothing said where nothing is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from credit_risk import challenger, fairness, performance, stability
from credit_risk.challenger import SHADOW_ONLY, CutOffs, Grouped, Known, Pairs, Side
from credit_risk.performance import ACCEPTED_ONLY
from credit_risk.policy import DECISIONS

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.challenger import Contest

    Floats = npt.NDArray[np.float64]

A, R, D = range(len(DECISIONS))
CUT_OFFS = CutOffs(0.4, 0.4)


def side(pds: Any, *, reasons: Any = None, seconds: Any = None) -> Side:  # noqa: ANN401 - lists
    """A side that approves below 0.2, refers below 0.4 and declines from there on."""
    pds = np.array(pds, dtype=np.float64)
    decisions = np.searchsorted([0.2, 0.4], pds, side="right").astype(np.int64)
    return Side(
        pds=pds,
        decisions=decisions,
        bands=np.searchsorted([0.1, 0.2, 0.4], pds, side="right").astype(np.int64),
        reasons=np.array(
            ["" if d == A else "X" for d in decisions] if reasons is None else reasons
        ),
        seconds=np.full(len(pds), np.nan) if seconds is None else np.array(seconds),
    )


def pairs(one: Side, other: Side, **more: Any) -> Pairs:  # noqa: ANN401 - of several types
    """Nobody decided by the challenger."""
    return Pairs(one, other, **{"canary": np.zeros(len(one), dtype=np.bool_), **more})


def compared(found: Pairs, **more: Any) -> Contest:  # noqa: ANN401 - of several types
    """What is known of them."""
    return challenger.compare("a", "b", found, CUT_OFFS, **more)


def drawn(rows: int = 4_000, seed: int = 5) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """PDs that are true, PDs that are noisier, and what became of the applicants."""
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(-1.5, 1.5, rows)
    true = 1 / (1 + np.exp(-log_odds))
    noisy = 1 / (1 + np.exp(-(log_odds + generator.normal(0, 1.0, rows))))
    return true, noisy, (generator.random(rows) < true).astype(np.int64)


def test_who_would_newly_be_approved_or_declined_by_hand() -> None:
    """Five applicants: one moves each way, and one stays."""
    one = side([0.05, 0.15, 0.3, 0.5, 0.6])
    other = side([0.06, 0.25, 0.15, 0.3, 0.7])

    found = compared(pairs(one, other))

    assert found.agreement is not None
    assert found.agreement.value == pytest.approx(2 / 5)
    assert found.agreement.low < 2 / 5 < found.agreement.high
    assert found.band_agreement is not None
    assert found.band_agreement.value == pytest.approx(2 / 5)
    moved = [found.newly_approved, found.no_longer_approved]
    moved += [found.newly_declined, found.no_longer_declined]
    assert [None if m is None else (m.rows, m.champion_pd, m.challenger_pd) for m in moved] == [
        (1, 0.3, 0.15),
        (1, 0.15, 0.25),
        (0, None, None),
        (1, 0.5, 0.3),
    ]
    assert found.from_to["APPROVE"] == {"APPROVE": 1, "REVIEW": 1, "DECLINE": 0}
    assert sum(sum(row.values()) for row in found.from_to.values()) == found.rows == len(one)
    assert found.caveats == (SHADOW_ONLY,)


def test_first_reasons_are_compared_where_both_give_one() -> None:
    """The most frequent change is the first; who gives none is left out."""
    one = side([0.5] * 6, reasons=["AGE", "AGE", "AGE", "INCOME", "INCOME", ""])
    other = side([0.5] * 6, reasons=["AGE", "PRICE", "PRICE", "AGE", "", "AGE"])

    found = compared(pairs(one, other)).first_reasons

    assert found is not None
    assert found.rows == 4
    assert found.same is not None
    assert found.same.value == pytest.approx(1 / 4)
    assert [(c.champion, c.challenger, c.rows) for c in found.changes] == [
        ("AGE", "PRICE", 2),
        ("INCOME", "AGE", 1),
    ]


def test_scores_are_held_against_the_champions_tenths() -> None:
    """PSI of the same PDs is 0, ranks are scipy's, and every difference is in one step."""
    true, noisy, _ = drawn()

    same = compared(pairs(side(true), side(true))).scores
    found = compared(pairs(side(true), side(noisy))).scores

    assert same is not None
    assert (same.psi, same.mean_absolute_difference) == (0.0, 0.0)
    assert same.rank_correlation == pytest.approx(1.0)
    assert found is not None
    counts = [one.challenger for one in found.bins]
    assert found.psi == pytest.approx(stability.psi(counts, [0.1] * len(counts)), rel=1e-3)
    assert found.psi > 0.05
    assert found.rank_correlation == pytest.approx(spearmanr(true, noisy).statistic)
    assert sum(step.rows for step in found.differences) == len(true)
    assert [found.differences[0].lower, found.differences[-1].upper] == [None, None]
    assert found.mean_difference == pytest.approx((noisy - true).mean())
    assert found.p05 < found.p50 < found.p95


def test_pds_that_are_all_alike_are_one_bin_without_ranks() -> None:
    """A model that knows nothing is still compared."""
    found = compared(pairs(side([0.3] * 5), side([0.1, 0.2, 0.3, 0.4, 0.5]))).scores

    assert found is not None
    assert found.rank_correlation is None
    assert sum(one.champion for one in found.bins) == sum(one.challenger for one in found.bins) == 5


def test_latency_is_of_rows_on_which_both_were_timed() -> None:
    """Milliseconds, and the ratio of the means."""
    nan = float("nan")
    one = side([0.1] * 4, seconds=[0.001, 0.003, nan, 0.1])
    other = side([0.1] * 4, seconds=[0.004, 0.004, 0.5, nan])

    found = compared(pairs(one, other)).latency

    assert found is not None
    assert found.rows == 2
    assert found.champion_ms.mean == pytest.approx(2.0)
    assert found.challenger_ms.p50 == pytest.approx(4.0)
    assert found.ratio == pytest.approx(2.0)
    assert compared(pairs(side([0.1]), side([0.1]))).latency is None


def test_what_one_of_them_could_not_answer_is_counted_by_kind() -> None:
    """Of all that it was asked about."""
    answered = side([0.1] * 8)

    found = compared(
        pairs(answered, answered, challenger_errors={"crashed": 1, "ExplanationFailed": 2})
    )

    assert (found.challenger_failures.asked, found.challenger_failures.failed) == (11, 3)
    assert found.challenger_failures.rate is not None
    assert found.challenger_failures.rate.value == pytest.approx(3 / 11)
    assert list(found.challenger_failures.kinds) == ["ExplanationFailed", "crashed"]
    assert found.champion_failures.rate is not None
    assert found.champion_failures.rate.value == 0.0


def test_outcomes_show_which_pds_are_better() -> None:
    """The noisier PDs rank worse, beyond chance; both have the figures that performance has."""
    true, noisy, defaulted = drawn()
    found = pairs(side(true), side(noisy))

    judged = compared(found, known=Known(found, defaulted), seed=3).outcomes

    assert (judged.rows, judged.defaults) == (len(true), defaulted.sum())
    assert judged.champion == performance.figures(true, defaulted, seed=3)
    assert judged.differences is not None
    assert judged.differences.auc.high < 0.0
    assert judged.differences.brier.low > 0.0


def test_outcomes_of_those_who_moved_are_told_where_there_are_any() -> None:
    """In a canary, of whom the challenger alone approved: one of two defaulted."""
    one, other = side([0.3, 0.3, 0.1, 0.5]), side([0.1, 0.1, 0.1, 0.5])
    found = pairs(one, other, canary=np.array([True, True, False, False]))

    contest = compared(found, known=Known(found, np.array([1, 0, 0, 1])))

    assert contest.newly_approved is not None
    assert contest.newly_approved.outcomes == 2
    assert contest.newly_approved.default_rate is not None
    assert contest.newly_approved.default_rate.value == pytest.approx(0.5)
    assert (contest.canary_rows, contest.outcomes.canary_rows) == (2, 2)
    assert contest.caveats == (ACCEPTED_ONLY,)


@pytest.mark.parametrize(("rows", "told"), [(0, "0 outcomes are known"), (60, "60 outcomes")])
def test_too_few_outcomes_have_no_figures(rows: int, told: str) -> None:
    """What is missing is said."""
    true, noisy, defaulted = drawn()
    found = pairs(side(true[:rows]), side(noisy[:rows]))

    judged = compared(found, known=Known(found, defaulted[:rows])).outcomes

    assert (judged.champion, judged.challenger, judged.differences) == (None, None, None)
    assert judged.not_enough is not None
    assert judged.not_enough.startswith(told)


def test_nothing_answered_says_nothing() -> None:
    """Before the first decision, or where every one failed."""
    found = compared(pairs(side([]), side([]), challenger_errors={"hung": 2}, skipped=1_234))

    assert (found.rows, found.agreement, found.scores, found.latency) == (0, None, None, None)
    assert (found.newly_approved, found.first_reasons, found.outcomes.rows) == (None, None, 0)
    assert found.challenger_failures.rate is not None
    assert found.challenger_failures.rate.value == 1.0
    assert found.caveats == ("1,234 records were skipped: the challenger was too far behind.",)


def grouped(rows: int, approved_of_b: float) -> Grouped:
    """Two groups, of whom the champion approves 60 in 100, the challenger fewer of the second."""
    codes = np.repeat([0, 1], rows)
    place = np.tile(np.arange(rows) / rows, 2)
    one = side(np.where(place < 0.6, 0.1, 0.5))
    limit = np.where(codes == 0, 0.6, approved_of_b)
    other = side(np.where(place < limit, 0.1, 0.5))
    return Grouped("letter", pairs(one, other), codes, ("a", "b"))


def test_a_ratio_that_falls_is_told_with_its_interval() -> None:
    """From 1 to three quarters, and three quarters is between the bounds."""
    of = grouped(400, 0.45)

    (found,) = compared(of.pairs, grouped=[of]).fairness

    assert found.reference == "a"
    (reference, change) = found.changes
    assert (reference.champion, reference.times) == (None, None)
    assert change.champion == pytest.approx(1.0)
    assert change.challenger == pytest.approx(0.75)
    assert change.times is not None
    assert change.times.value == pytest.approx(0.75)
    assert 0.6 < change.times.low < 0.75 < change.times.high < 0.9
    assert found.worst == change.times
    expected = fairness.measure(
        of.codes, of.names, of.pairs.challenger.decisions == A, of.pairs.challenger.pds, 0.4,
        attribute="letter",
    )  # fmt: skip
    assert found.challenger == expected


def test_without_a_group_to_compare_no_change_is_told() -> None:
    """Groups of a few; or nobody approved by the champion; or no groups at all."""
    few = grouped(10, 0.4)
    (found,) = compared(few.pairs, grouped=[few]).fairness
    assert (found.worst, found.reference) == (None, None)

    none = grouped(100, 0.4)
    declines = replace(none.pairs, champion=side([0.5] * 200))
    (found,) = compared(declines, grouped=[none._replace(pairs=declines)]).fairness
    assert found.worst is None

    nobody = few._replace(codes=np.zeros(0, dtype=np.int64))
    assert compared(few.pairs, grouped=[nobody]).fairness == ()
