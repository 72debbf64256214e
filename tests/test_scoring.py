"""Scoring: one and many, with toy models that are right, constant and broken."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import scoring
from credit_risk.errors import ExplanationFailed, PackageInvalid
from credit_risk.scoring import check_golden, decide
from tests import toys

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.package import Golden, ModelPackage

    Floats = npt.NDArray[np.float64]

EXAMPLE = toys.schema().example
DRAWN = toys.applications(200)


@dataclass
class ToyModel:
    """Gives every row the same score, and lays all of it to the price."""

    score: float
    base_value: float = -3.0
    gap: float = 0.0
    method: str = "by hand"
    reference_rows: int = 50
    slow: bool = False
    rows_explained: list[int] = field(default_factory=list)

    def log_odds(self, rows: Floats) -> Floats:
        """The score, for each row."""
        return np.full(len(rows), self.score)

    def contributions(self, rows: Floats) -> Floats:
        """All to the price, off by ``gap``."""
        self.rows_explained.append(len(rows))
        values = np.zeros(rows.shape)
        values[:, 2] = self.score - self.base_value + self.gap
        return values


@dataclass
class OneBadRow(ToyModel):
    """Scores all but the last row."""

    def log_odds(self, rows: Floats) -> Floats:
        """NaN for the last."""
        scores = super().log_odds(rows)
        scores[-1] = math.nan
        return scores


def with_model(package: ModelPackage, model: ToyModel) -> ModelPackage:
    """The package with another model."""
    return replace(package, model=model)


def logit(probability: float) -> float:
    """Log-odds of a probability."""
    return math.log(probability / (1 - probability))


def test_no_applications_give_no_decisions(any_package: ModelPackage) -> None:
    """An empty batch is no error."""
    assert decide(any_package, []) == []


def test_an_application_is_decided_as_worked_out_by_hand(linear_package: ModelPackage) -> None:
    """The score of tests/test_model.py, through the logistic function and the bands."""
    (decision,) = decide(linear_package, [EXAMPLE])

    score = 0.18 - 0.5 * math.log(2501) + 0.24 + 0.12 - 0.225 + 0.8 + 2.4
    pd = 1 / (1 + math.exp(-(1.2 * score - 0.1)))
    assert decision.log_odds == pytest.approx(1.2 * score - 0.1, abs=1e-6)
    assert decision.probability_of_default == pytest.approx(pd, abs=1e-6)
    assert 0.2 < pd < 0.4
    assert (decision.outcome.band, decision.outcome.decision) == ("HIGH", "REVIEW")
    assert decision.outcome.prediction == 0
    assert decision.explanation is None


def test_one_at_a_time_and_all_at_once_are_the_same(any_package: ModelPackage) -> None:
    """Scores to the last digits, decisions and reasons exactly."""
    together = decide(any_package, DRAWN, explain=True)

    for application, batched in zip(DRAWN, together, strict=True):
        (alone,) = decide(any_package, [application], explain=True)
        assert alone.outcome == batched.outcome
        assert [r.code for r in alone.reasons] == [r.code for r in batched.reasons]
        assert alone.probability_of_default == pytest.approx(
            batched.probability_of_default, abs=1e-12
        )
    assert {d.outcome.decision for d in together} == {"APPROVE", "REVIEW", "DECLINE"}


def test_decisions_keep_the_order_of_applications(any_package: ModelPackage) -> None:
    """The risky one is where it was put."""
    decisions = decide(any_package, [toys.SAFE, toys.RISKY, toys.SAFE])

    assert [d.outcome.decision for d in decisions] == ["APPROVE", "DECLINE", "APPROVE"]
    assert decisions[0] == decisions[2]


def test_every_decision_but_an_approval_has_reasons(any_package: ModelPackage) -> None:
    """At most four, each with its approved text."""
    texts = any_package.reasons.texts

    for decision in decide(any_package, DRAWN):
        assert bool(decision.reasons) is (decision.outcome.decision != "APPROVE")
        assert len(decision.reasons) <= 4
        assert all(reason.text == texts[reason.code] for reason in decision.reasons)


def test_an_explanation_adds_up_to_the_score(any_package: ModelPackage) -> None:
    """Base value plus the contributions of the fields, for approvals too."""
    for decision in decide(any_package, DRAWN, explain=True):
        explanation = decision.explanation
        assert explanation is not None
        assert tuple(explanation.contributions) == any_package.schema.names
        total = explanation.base_value + sum(explanation.contributions.values())
        assert total == pytest.approx(decision.log_odds, abs=1e-6)


def test_explaining_changes_no_decision(any_package: ModelPackage) -> None:
    """Asking why does not change what."""
    for plain, explained in zip(
        decide(any_package, DRAWN), decide(any_package, DRAWN, explain=True), strict=True
    ):
        assert plain.explanation is None
        assert explained._replace(explanation=None) == plain


def test_contributions_are_computed_only_where_the_score_needs_reasons(
    trees_package: ModelPackage,
) -> None:
    """Not for approvals, nor where a rule alone made the decision."""
    approving = ToyModel(score=-5.0)
    reviewing = ToyModel(score=logit(0.3))
    rule_only = EXAMPLE | {"price": 16000.0}

    decide(with_model(trees_package, approving), [EXAMPLE, rule_only])
    # A knock-out overrules the review, so its score needs no reason.
    decide(with_model(trees_package, reviewing), [EXAMPLE, rule_only, EXAMPLE])

    assert approving.rows_explained == []
    assert reviewing.rows_explained == [2]


def test_a_constant_model_that_approves_decides(trees_package: ModelPackage) -> None:
    """A score that is everyone's is a score."""
    (decision,) = decide(with_model(trees_package, ToyModel(score=-5.0)), [EXAMPLE])

    assert decision.outcome.decision == "APPROVE"
    assert decision.probability_of_default == pytest.approx(1 / (1 + math.exp(5)))


def test_a_constant_model_that_declines_has_no_reason_to(trees_package: ModelPackage) -> None:
    """Nothing sets the applicant apart from the reference group, so there is no decision."""
    constant = ToyModel(score=2.0, base_value=2.0)

    with pytest.raises(ExplanationFailed, match="decision of DECLINE has no adverse reason"):
        decide(with_model(trees_package, constant), [EXAMPLE])


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_a_finite_number_fails(
    trees_package: ModelPackage, score: float
) -> None:
    """An infinite one would be approved or declined without a word."""
    with pytest.raises(ExplanationFailed, match="score is not a finite number"):
        decide(with_model(trees_package, ToyModel(score=score)), [EXAMPLE])


def test_one_row_without_a_score_fails_the_call(trees_package: ModelPackage) -> None:
    """A model that answers NaN once is not to be trusted with the others."""
    with pytest.raises(ExplanationFailed, match="score is not a finite number"):
        decide(with_model(trees_package, OneBadRow(score=-5.0)), [EXAMPLE, EXAMPLE])


@pytest.mark.parametrize("gap", [1e-5, -1e-5, math.nan])
def test_an_explanation_that_does_not_add_up_fails(trees_package: ModelPackage, gap: float) -> None:
    """Reasons that do not explain the score are worse than none."""
    broken = with_model(trees_package, ToyModel(score=1.0, gap=gap))

    with pytest.raises(ExplanationFailed, match="contributions miss the score"):
        decide(broken, [EXAMPLE])


def test_a_broken_explanation_does_not_stop_an_approval_that_needs_none(
    trees_package: ModelPackage,
) -> None:
    """Until it is asked for."""
    broken = with_model(trees_package, ToyModel(score=-5.0, gap=1.0))

    assert decide(broken, [EXAMPLE])[0].outcome.decision == "APPROVE"
    with pytest.raises(ExplanationFailed, match="contributions miss the score"):
        decide(broken, [EXAMPLE], explain=True)


# Golden records.


def with_record(package: ModelPackage, number: int, **changed: object) -> ModelPackage:
    """The package with one golden record altered."""
    golden: list[Golden] = list(package.golden)
    golden[number] = golden[number].model_copy(update=changed)
    return replace(package, golden=tuple(golden))


def test_a_good_package_gives_its_golden_answers(any_package: ModelPackage) -> None:
    """All of them."""
    check_golden(any_package)


@pytest.mark.parametrize(
    "changed",
    [
        {"probability_of_default": 0.5},
        {"band": "MEDIUM"},
        {"decision": "REVIEW"},
        {"reasons": ("AMOUNT_REQUESTED",)},
        {"application": toys.SAFE | {"age": 20}},
    ],
)
def test_any_other_answer_is_refused_by_number(
    trees_package: ModelPackage, changed: dict[str, object]
) -> None:
    """PD, band, decision and reasons all count."""
    broken = with_record(trees_package, 1, **changed)

    with pytest.raises(PackageInvalid, match="golden record 1 is answered differently here"):
        check_golden(broken)


@pytest.mark.parametrize(("difference", "same"), [(0.9e-6, True), (1.1e-6, False)])
def test_a_probability_may_differ_by_a_millionth(
    trees_package: ModelPackage, difference: float, *, same: bool
) -> None:
    """Another processor may add up otherwise in the last digits."""
    pd = trees_package.golden[0].probability_of_default
    close = with_record(trees_package, 0, probability_of_default=pd + difference)

    if same:
        check_golden(close)
    else:
        with pytest.raises(PackageInvalid, match="golden record 0"):
            check_golden(close)


def test_only_as_many_records_are_tried_as_asked(trees_package: ModelPackage) -> None:
    """A readiness probe tries one."""
    broken = with_record(trees_package, 3, probability_of_default=0.5)

    check_golden(broken, most=3)
    with pytest.raises(PackageInvalid, match="golden record 3"):
        check_golden(broken, most=4)


def test_a_package_without_golden_records_is_refused(trees_package: ModelPackage) -> None:
    """Nothing shows that it answers as it did where it was made."""
    with pytest.raises(PackageInvalid, match="it has no golden records"):
        check_golden(replace(trees_package, golden=()))


@pytest.mark.parametrize("number", [1, 4, 5, 6, 40])
def test_many_are_decided_as_each_alone(any_package: ModelPackage, number: int) -> None:
    """One by one or column by column: the same PD, outcome and reasons to the last digit."""
    people = [*toys.applications(number), toys.RISKY]
    assert 1 < scoring.COLUMNS_FROM < 40

    together = decide(any_package, people)
    alone = [decide(any_package, [person])[0] for person in people]

    assert [d.outcome for d in together] == [d.outcome for d in alone]
    pds = [[d.probability_of_default for d in decided] for decided in (together, alone)]
    assert pds[0] == pds[1]
    assert [d.reasons for d in together] == [d.reasons for d in alone]
