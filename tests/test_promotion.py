"""The promotion gate: each criterion by itself refuses, and so does what is not shown."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from credit_risk import challenger, documents, portfolio, promotion
from credit_risk.challenger import Contest, CutOffs, Grouped, Known, Pairs, Side
from credit_risk.errors import PortfolioInvalid
from credit_risk.promotion import Criterion, Evidence, HoldOut, Judgement, PromotionPolicy
from credit_risk.rivals import Beside
from tests import toys

ROOT = Path(__file__).parents[1]
POLICY = """\
portfolio: bicycle-leases
version: 1.0.0
criteria:
  auc_loss: {most: 0.03}
  calibration_error: {most: 0.03}
  miscalibration: {most: 1.2, optional: true}
  score_psi: {most: 0.25}
  additivity_error: {most: 1.0e-6}
  same_first_reason: {least: 0.95}
  group_ratio: {least: 0.9, optional: true}
  latency_ratio: {most: 3}
  shadow_rows: {least: 1000}
  shadow_failures: {most: 0.001}
  agreement: {least: 0.8}
"""
GATE = documents.parse(PromotionPolicy, POLICY, "promotion.yaml")
ROWS = 4_000


def side(pds: Any, *, cut_off: float = 0.4, seconds: float = 0.001) -> Side:  # noqa: ANN401 - an array
    """What a package answers that gives these PDs."""
    return Side(
        pds=pds,
        decisions=np.where(pds < cut_off, 0, 2).astype(np.int64),
        bands=np.zeros(len(pds), dtype=np.int64),
        reasons=np.full(len(pds), "", dtype="<U4"),
        seconds=np.full(len(pds), seconds),
    )


@cache
def contest(
    *,
    rows: int = ROWS,
    odds: float = 1.0,
    noise: float = 0.0,
    seconds: float = 0.001,
    failed: int = 0,
    defaults: float = 1.0,
    groups: float | None = None,
) -> Contest:
    """Both were asked about the same applicants, and answer alike but for what is changed.

    The challenger's odds are ``odds`` times the champion's, and a share ``noise`` of its PDs those
    of other applicants; ``defaults`` times those expected defaulted. With ``groups`` the odds of
    one of two groups are that many times what they are.
    """
    generator = np.random.default_rng(5)
    pds = generator.beta(1.0, 4.0, rows)
    theirs = odds * pds / (1.0 - pds + odds * pds)
    mixed = np.arange(rows) < noise * rows
    theirs[mixed] = generator.permutation(theirs[mixed])
    codes = (np.arange(rows) % 2).astype(np.int64)
    if groups is not None:
        changed = groups * theirs / (1.0 - theirs + groups * theirs)
        theirs = np.where(codes == 1, changed, theirs)
    defaulted = (generator.random(rows) < defaults * pds).astype(np.int64)
    pairs = Pairs(
        side(pds),
        side(theirs, seconds=seconds),
        np.zeros(rows, dtype=np.bool_),
        challenger_errors={"ValueError": failed} if failed else {},
    )
    return challenger.compare(
        "1" * 12,
        "2" * 12,
        pairs,
        CutOffs(0.4, 0.4),
        known=Known(pairs, defaulted),
        grouped=() if groups is None else (Grouped("region", pairs, codes, ("north", "south")),),
    )


def restated(*, psi: float = 0.0, agreement: float = 1.0) -> Contest:
    """A contest of which only that is otherwise: any model that is shows in more than one."""
    made = contest()
    assert made.scores is not None
    assert made.agreement is not None
    return made.model_copy(
        update={
            "scores": made.scores.model_copy(update={"psi": psi}),
            "agreement": made.agreement.model_copy(update={"value": agreement}),
        }
    )


def figures(auc: float = 0.85, error: float = 0.01) -> HoldOut:
    """What a package says of rows held out."""
    return HoldOut(
        rows=5_000, defaults=1_000, roc_auc=auc, ece_equal_count=error, ece_equal_width=0.005
    )


GOOD = Evidence(
    candidate=figures(),
    champion=figures(),
    contest=contest(),
    beside=Beside(rows=50, score_psi=0.01, timed=50, latency_ratio=1.1),
    same_first_reason=0.99,
    additivity_error=1e-12,
)
UNASKED = replace(GOOD, contest=None)


def judged(evidence: Evidence = GOOD, **changed: Any) -> Judgement:  # noqa: ANN401 - of any type
    """The judgement on evidence with some of it replaced."""
    return promotion.judge(GATE, replace(evidence, **changed))


def criterion(found: Judgement, measure: str) -> Criterion:
    """One of a judgement's."""
    return next(c for c in found.criteria if c.measure == measure)


def test_a_candidate_that_shows_all_of_it_passes() -> None:
    """Every criterion is met, the package's wholeness first."""
    found = judged(contest=contest(groups=1.0))

    assert (found.verdict, found.reasons) == ("PASSED", ())
    assert {c.state for c in found.criteria} == {"met"}
    assert [c.measure for c in found.criteria] == ["integrity", *GATE.criteria.model_dump()]


@pytest.mark.parametrize(
    ("measure", "changed", "told"),
    [
        ("integrity", {"fault": "trees.npz was altered"}, "Package is whole: it is not: trees.npz"),
        ("auc_loss", {"contest": contest(noise=0.3)}, "AUC that may be lost, at worst: 0."),
        ("calibration_error", {"candidate": figures(error=0.04)}, "Calibration error: 0.04"),
        ("miscalibration", {"contest": contest(defaults=1.4)}, "Defaults against those expected"),
        ("score_psi", {"contest": restated(psi=0.4)}, "Stability of the score: 0.4 (4,000"),
        ("additivity_error", {"additivity_error": 1e-5}, "Score and explanation apart: 1e-05"),
        ("same_first_reason", {"same_first_reason": 0.9}, "Same first reason: 0.9"),
        ("group_ratio", {"contest": contest(groups=1.6)}, "Approval-rate ratio of a group"),
        ("latency_ratio", {"contest": contest(seconds=0.004)}, "Time that an application takes"),
        ("shadow_rows", {"contest": contest(rows=900)}, "both were asked about: 900, and at least"),
        ("shadow_failures", {"contest": contest(failed=5)}, "without an answer: 0.001248 (5 of"),
        ("agreement", {"contest": restated(agreement=0.7)}, "Share of the same decisions: 0.7 ("),
    ],
)
def test_a_candidate_that_fails_one_criterion_is_refused_for_that_one(
    measure: str, changed: dict[str, Any], told: str
) -> None:
    """And for no other; the reason names it, what was shown and what is asked for."""
    found = judged(**changed)

    assert found.verdict == "REFUSED"
    assert [c.measure for c in found.criteria if c.state == "failed"] == [measure]
    (reason,) = found.reasons
    assert told in reason


@pytest.mark.parametrize(
    ("measure", "changed"),
    [
        ("auc_loss", {"contest": contest(rows=5), "champion": None}),
        ("calibration_error", {"candidate": None}),
        ("score_psi", {"beside": None}),
        ("additivity_error", {"additivity_error": None}),
        ("same_first_reason", {"same_first_reason": None}),
        ("latency_ratio", {"beside": None}),
        ("shadow_failures", {}),
        ("agreement", {}),
    ],
)
def test_what_is_not_shown_refuses(measure: str, changed: dict[str, Any]) -> None:
    """The reason says so; nothing is assumed of it."""
    found = judged(UNASKED, **changed)

    shown = criterion(found, measure)
    assert (shown.state, shown.value) == ("not shown", None)
    assert f"{shown.title}: not shown, and at " in " ".join(found.reasons)
    assert found.verdict == "REFUSED"


def test_what_does_not_count_is_told_where_it_is_missed() -> None:
    """Too old, or of a time when the candidate did not challenge; not of one that passes."""
    day = 1_772_539_200_000_000
    few = judged(contest=contest(rows=900), since=day, left_out=1_200)
    rows, left_out = few.reasons
    assert rows.startswith("Applicants both were asked about: 900 (since 2026-03-03T12:00:00")
    assert "1,200 do not count: they were decided before 2026-03-03T12:00:00" in left_out
    unasked = judged(UNASKED, left_out=1)
    assert "1 do not count: the candidate has not challenged" in unasked.reasons[-1]

    assert judged(since=day, left_out=1_200).reasons == ()


def test_what_is_optional_refuses_only_where_it_is_known() -> None:
    """No outcomes and no groups: as the policy says."""
    found = judged()
    states = {m: criterion(found, m).state for m in ("group_ratio", "miscalibration")}
    assert (found.verdict, states["group_ratio"]) == ("PASSED", "not shown")

    few = judged(contest=contest(rows=60))
    assert criterion(few, "miscalibration").state == "not shown"
    assert [r.partition(":")[0] for r in few.reasons] == ["Applicants both were asked about"]


def test_what_chance_explains_is_not_held_against_a_candidate() -> None:
    """A few outcomes off by much, a group a little lower: not beyond their intervals."""
    few = judged(contest=contest(rows=120, defaults=1.25))
    assert (criterion(few, "miscalibration").value or 0.0) > 1.2
    assert criterion(few, "miscalibration").state == "met"

    groups = judged(contest=contest(rows=120, groups=1.3))
    assert (criterion(groups, "group_ratio").value or 1.0) < 0.98
    assert criterion(groups, "group_ratio").state == "met"


def test_without_outcomes_each_package_has_the_figures_of_its_own_training() -> None:
    """The loss is what it may be at worst: the fewer rows were held out, the more."""
    alike = criterion(judged(UNASKED), "auc_loss")
    assert alike.state == "met"
    assert alike.value == pytest.approx(0.0218, abs=0.0005)  # 1.96 times root two of 0.0079
    assert "each on rows held out of its own training" in alike.detail

    worse = criterion(judged(UNASKED, candidate=figures(auc=0.83)), "auc_loss")
    assert (worse.state, round(worse.value or 0.0, 3)) == ("failed", 0.043)
    better = criterion(judged(UNASKED, candidate=figures(auc=0.89)), "auc_loss")
    assert (better.state, better.value) == ("met", 0.0)
    bare = figures().model_copy(update={"defaults": 0})
    assert criterion(judged(UNASKED, candidate=bare), "auc_loss").state == "failed"


def test_drawn_applicants_stand_in_until_enough_were_asked_about() -> None:
    """For score and time: what happened comes first once there is enough of it."""
    before = judged(contest=contest(rows=400, odds=2.5, seconds=0.01))
    after = judged(contest=contest(odds=2.5, seconds=0.01))

    for measure, drawn in (("score_psi", 0.01), ("latency_ratio", 1.1)):
        assert criterion(before, measure).value == drawn
        assert "drawn" in criterion(before, measure).detail
        assert (criterion(after, measure).value or 0.0) > drawn
    assert "both were asked about" in criterion(after, "score_psi").detail


def test_latency_counts_whom_both_were_timed_on() -> None:
    """Some of those both were asked about, who alone do not do; where they are few it is told."""
    made = contest(seconds=0.01)
    assert made.latency is not None
    for timed, value, told in (
        (499, 1.1, "50 drawn applicants, one by one; of those asked about, both were timed on 499"),
        (500, 10.0, "500 applicants both were timed on"),
    ):
        latency = made.latency.model_copy(update={"rows": timed})
        few = made.model_copy(update={"latency": latency})
        found = criterion(judged(contest=few), "latency_ratio")
        assert found.value == pytest.approx(value)
        assert found.detail == told
    untimed = made.model_copy(update={"latency": None})
    found = criterion(judged(contest=untimed), "latency_ratio")
    assert found.detail == "50 drawn applicants, one by one"


def test_the_first_package_of_a_portfolio_is_compared_with_nothing() -> None:
    """It still has to be whole, calibrated, and explained."""
    found = judged(UNASKED, first=True, champion=None, beside=None)

    assert found.verdict == "PASSED"
    states = {c.measure: c.state for c in found.criteria}
    alone = {"integrity", "calibration_error", "additivity_error", "same_first_reason"}
    assert {name for name, state in states.items() if state == "met"} == alone
    assert {states[name] for name in states if name not in alone} == {"does not apply"}
    assert judged(UNASKED, first=True, candidate=None).verdict == "REFUSED"


def test_a_criterion_that_is_left_out_is_not_looked_at() -> None:
    """But for the package's wholeness, which no policy leaves out."""
    bare = documents.parse(PromotionPolicy, f"{POLICY.partition('criteria')[0]}criteria: {{}}", "p")

    assert (bare.approvals, bare.shadow_days) == (2, 30)
    assert promotion.judge(bare, Evidence()).verdict == "PASSED"
    (only,) = promotion.judge(bare, Evidence(fault="half of it")).criteria
    assert (only.measure, only.state) == ("integrity", "failed")


def test_a_package_without_figures_has_none() -> None:
    """Of a toy, or of another program."""
    assert HoldOut.of({}) is None
    assert HoldOut.of({"hold_out": {"rows": 3}}) is None
    assert HoldOut.of({"hold_out": figures().model_dump() | {"ks": 0.5}}) == figures()


@pytest.mark.parametrize("name", portfolio.names(ROOT / "portfolios"))
def test_each_portfolio_says_what_it_takes(name: str) -> None:
    """Two people, every criterion, and a fresh package of the same kind as the shipped one may."""
    policy = promotion.read(ROOT / "portfolios" / name, name)

    assert policy.approvals == 2
    assert None not in policy.criteria.model_dump().values()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("bicycle-leases", "cards"), "it says that it belongs to portfolio 'cards'"),
        (("most: 0.03", "least: 0.03"), r"criteria\.auc_loss"),
        (("version: 1.0.0", "version: 1.0.0\napprovals: 3"), "approvals"),
        (("version: 1.0.0", "version: 1.0.0\nshadow_days: 0"), "shadow_days"),
        (("agreement", "concord"), r"criteria\.concord"),
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    """By the place in the file."""
    (tmp_path / "promotion.yaml").write_text(POLICY.replace(*change), encoding="utf-8")

    with pytest.raises(PortfolioInvalid, match=told):
        promotion.read(tmp_path, toys.NAME)
