"""Reasons: which groups speak, in which order, and when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import documents
from credit_risk.errors import ExplanationFailed, PortfolioInvalid
from credit_risk.policy import Outcome, Policy, Rule
from credit_risk.reasons import MOST, Grouping, Reason, ReasonDictionary
from credit_risk.schema import Schema
from tests import toys

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.policy import DecisionName

DOCUMENT = yaml.safe_load(toys.REASONS)

# age and years_employed are one group here: how settled the applicant is.
GROUPED = documents.parse(
    Schema, toys.SCHEMA.replace("reason: LENGTH_OF_EMPLOYMENT", "reason: APPLICANT_AGE"), "schema"
)


def dictionary(**changed: object) -> ReasonDictionary:
    """The toy dictionary with some of its top-level keys replaced."""
    return ReasonDictionary.model_validate(DOCUMENT | changed)


def phi(**contributions: float) -> npt.NDArray[np.float64]:
    """Contributions in the schema's order, 0 where not given."""
    return np.array([contributions.get(name, 0.0) for name in GROUPED.names])


def scored(least_share: float = 0.05, **contributions: float) -> list[Reason]:
    """The scored reasons for these contributions."""
    return Grouping(GROUPED, dictionary(least_share=least_share)).scored(phi(**contributions))


def outcome(decision: DecisionName, scored_as: DecisionName, *rules: str) -> Outcome:
    """An outcome of the toy policy with these rules behind it."""
    by_name: dict[str, Rule] = {rule.name: rule for rule in toys.policy().rules}
    return Outcome(
        band="HIGH",
        decision=decision,
        prediction=1,
        scored=scored_as,
        rules=tuple(by_name[name] for name in rules),
    )


def given_for(result: Outcome, **contributions: float) -> list[str]:
    """Codes of the reasons for an outcome, by the toy dictionary."""
    grouping = Grouping(toys.schema(), toys.reasons())
    return [reason.code for reason in grouping.give(result, phi(**contributions))]


def test_fields_are_summed_to_their_group() -> None:
    """0.5 for the age less 0.2 for the employment is 0.3 for both, and the age is behind it."""
    (reason,) = scored(age=0.5, years_employed=-0.2)

    assert reason.code == "APPLICANT_AGE"
    assert reason.text == "Age of applicant"
    assert reason.fields == ("age",)
    assert reason.contribution == pytest.approx(0.3)


def test_a_group_names_every_field_that_raised_the_risk() -> None:
    """In the schema's order."""
    (reason,) = scored(years_employed=0.4, age=0.1)

    assert reason.fields == ("age", "years_employed")
    assert reason.contribution == pytest.approx(0.5)


def test_a_group_that_lowered_the_risk_is_silent() -> None:
    """Though one of its fields raised it."""
    reasons = scored(age=0.2, years_employed=-0.5, price=0.1)

    assert [reason.code for reason in reasons] == ["AMOUNT_REQUESTED"]


def test_a_group_that_changed_nothing_is_silent() -> None:
    """Nothing is adverse about 0."""
    assert scored() == []
    assert scored(age=0.25, years_employed=-0.25) == []


def test_the_most_adverse_group_comes_first() -> None:
    """By the sum of the group, not by its largest field."""
    reasons = scored(price=0.4, age=0.3, years_employed=0.2, income=0.45)

    assert [reason.code for reason in reasons] == [
        "APPLICANT_AGE",
        "INCOME_INSUFFICIENT",
        "AMOUNT_REQUESTED",
    ]


def test_equal_groups_are_ordered_by_code() -> None:
    """The same input always gives the same order."""
    reasons = scored(use=0.5, history=0.5, price=0.5)

    assert [reason.code for reason in reasons] == [
        "AMOUNT_REQUESTED",
        "DELINQUENT_OBLIGATIONS",
        "PURPOSE_OF_LEASE",
    ]


def test_at_most_four_groups_speak() -> None:
    """The fifth is left out, however much it weighs."""
    reasons = scored(age=0.5, income=0.4, price=0.3, history=0.2, use=0.19)

    assert len(reasons) == MOST == 4
    assert "PURPOSE_OF_LEASE" not in [reason.code for reason in reasons]


@pytest.mark.parametrize(
    ("small", "spoken"),
    [(0.124, ["AMOUNT_REQUESTED"]), (0.125, ["AMOUNT_REQUESTED", "PURPOSE_OF_LEASE"])],
)
def test_a_group_below_the_least_share_is_no_principal_reason(
    small: float, spoken: list[str]
) -> None:
    """An eighth of all that is adverse speaks, less does not."""
    reasons = scored(least_share=0.125, price=1 - small, use=small, history=-3.0)

    assert [reason.code for reason in reasons] == spoken


def test_the_largest_group_speaks_however_small_its_share() -> None:
    """Five equal groups of a fifth each, all below a least share of 0.24."""
    reasons = scored(least_share=0.24, age=0.1, income=0.1, price=0.1, history=0.1, use=0.1)

    assert len(reasons) == 4


@given(
    st.lists(st.floats(-5, 5), min_size=6, max_size=6),
    st.floats(0, 0.25, exclude_max=True),
)
def test_reasons_are_adverse_ordered_few_and_there_when_anything_is_adverse(
    contributions: list[float], least_share: float
) -> None:
    """Whatever the contributions."""
    grouping = Grouping(GROUPED, dictionary(least_share=least_share))
    reasons = grouping.scored(np.array(contributions))
    sums = {
        code: sum(c for c, f in zip(contributions, GROUPED.fields, strict=True) if f.reason == code)
        for code in {f.reason for f in GROUPED.fields}
    }

    sizes = [reason.contribution or 0.0 for reason in reasons]
    assert all(size > 0 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert len(reasons) <= MOST
    assert bool(reasons) is (max(sums.values()) > 0)
    assert all(reason.contribution == sums[reason.code] for reason in reasons)
    assert all(reason.fields for reason in reasons)


def test_an_approval_has_no_reasons() -> None:
    """Even where something was adverse."""
    assert given_for(outcome("APPROVE", "APPROVE"), price=2.0) == []


def test_a_decision_by_the_score_gives_the_scored_factors() -> None:
    """Most adverse first."""
    codes = given_for(outcome("DECLINE", "DECLINE"), price=0.5, income=1.0, age=-1.0)

    assert codes == ["INCOME_INSUFFICIENT", "AMOUNT_REQUESTED"]


def test_a_decision_by_a_rule_gives_that_rules_factor_only() -> None:
    """The score would have approved, so its factors are not the reason."""
    codes = given_for(outcome("DECLINE", "APPROVE", "price-above-limit"), income=1.0)

    assert codes == ["PRICE_ABOVE_LIMIT"]


def test_a_rule_needs_no_contributions() -> None:
    """Nothing was computed that is not used."""
    grouping = Grouping(toys.schema(), toys.reasons())

    (reason,) = grouping.give(outcome("REVIEW", "APPROVE", "poor-history-and-racing"), None)

    assert reason == Reason(
        code="DELINQUENT_OBLIGATIONS",
        text="Delinquent past credit obligations",
        fields=("history", "use"),
        contribution=None,
    )


def test_a_field_that_a_rule_asks_twice_is_named_once() -> None:
    """As in a range."""
    between: dict[str, Any] = {
        "name": "between",
        "kind": "knock-out",
        "when": [
            {"field": "price", "op": "gt", "value": 100},
            {"field": "age", "op": "lt", "value": 30},
            {"field": "price", "op": "lt", "value": 200},
            {"quantity": {"ratio": ["price", "income"]}, "op": "lt", "value": 0.1},
        ],
        "reason": "AMOUNT_REQUESTED",
    }
    rule = Rule.model_validate(between)
    result = Outcome(band="LOW", decision="DECLINE", prediction=0, scored="APPROVE", rules=(rule,))

    (reason,) = Grouping(toys.schema(), toys.reasons()).give(result, None)

    assert reason.fields == ("price", "age", "income")


def test_a_decision_by_both_gives_the_rules_factor_first() -> None:
    """Then the score's."""
    codes = given_for(outcome("DECLINE", "DECLINE", "price-above-limit"), income=9.0, age=1.0)

    assert codes == ["PRICE_ABOVE_LIMIT", "INCOME_INSUFFICIENT", "APPLICANT_AGE"]


def test_a_factor_that_rule_and_score_share_is_given_once() -> None:
    """By the rule, in its place."""
    both = outcome("REVIEW", "REVIEW", "no-employment-stated", "poor-history-and-racing")

    codes = given_for(both, price=2.0, history=1.0)

    assert codes == ["EMPLOYMENT_NOT_STATED", "DELINQUENT_OBLIGATIONS", "AMOUNT_REQUESTED"]


def test_rules_and_score_together_give_at_most_four() -> None:
    """The rule's factor is never the one cut."""
    codes = given_for(
        outcome("DECLINE", "DECLINE", "price-above-limit"), age=1, income=2, price=3, use=4
    )

    assert codes == [
        "PRICE_ABOVE_LIMIT",
        "PURPOSE_OF_LEASE",
        "AMOUNT_REQUESTED",
        "INCOME_INSUFFICIENT",
    ]


NOTHING_ADVERSE = pytest.mark.parametrize("contributions", [None, phi(), phi(age=-2.0, price=-0.1)])


@NOTHING_ADVERSE
def test_a_decline_without_any_reason_is_a_failure(
    contributions: npt.NDArray[np.float64] | None,
) -> None:
    """A declined applicant always has a reason, or there is no decision."""
    grouping = Grouping(toys.schema(), toys.reasons())

    with pytest.raises(ExplanationFailed, match="decision of DECLINE has no adverse reason"):
        grouping.give(outcome("DECLINE", "DECLINE"), contributions)


@NOTHING_ADVERSE
def test_a_referral_without_any_adverse_factor_has_no_reasons(
    contributions: npt.NDArray[np.float64] | None,
) -> None:
    """A strict policy may refer an applicant who is better than the group's average."""
    grouping = Grouping(toys.schema(), toys.reasons())

    assert grouping.give(outcome("REVIEW", "REVIEW"), contributions) == ()


# The dictionary.


def test_a_dictionary_that_covers_schema_and_policy_is_accepted() -> None:
    """The toy's does."""
    toys.reasons().check(toys.schema(), toys.policy())

    assert toys.reasons().texts["PURPOSE_OF_LEASE"] == "Purpose of the lease"


@pytest.mark.parametrize(
    ("code", "user"),
    [
        ("PURPOSE_OF_LEASE", "field use"),
        ("PRICE_ABOVE_LIMIT", "rule price-above-limit"),
        ("DELINQUENT_OBLIGATIONS", "rule poor-history-and-racing"),
    ],
)
def test_a_code_without_an_approved_text_is_refused(code: str, user: str) -> None:
    """The message names who uses it."""
    fewer = dictionary(reasons=[r for r in DOCUMENT["reasons"] if r["code"] != code])

    with pytest.raises(PortfolioInvalid, match=f"^reason {code} of {user} has no approved text$"):
        fewer.check(toys.schema(), toys.policy())


def test_a_text_that_nothing_uses_is_refused() -> None:
    """A word of a rule that is gone."""
    no_rules = Policy.model_validate(yaml.safe_load(toys.POLICY) | {"rules": []})

    with pytest.raises(PortfolioInvalid, match="EMPLOYMENT_NOT_STATED is used by no field"):
        toys.reasons().check(toys.schema(), no_rules)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reasons": DOCUMENT["reasons"] * 2}, "codes are not unique"),
        ({"reasons": []}, "reasons: "),
        ({"reasons": [{"code": "lower", "text": "Some text"}]}, r"reasons\.0\.code: "),
        ({"reasons": [{"code": "OK", "text": "a"}]}, r"reasons\.0\.text: "),
        ({"reasons": [{"code": "OK", "text": "a" * 201}]}, r"reasons\.0\.text: "),
        ({"least_share": 0.25}, "least_share: "),
        ({"least_share": -0.1}, "least_share: "),
    ],
)
def test_a_dictionary_of_another_shape_is_refused(changed: dict[str, Any], message: str) -> None:
    """Codes are unique and texts fit a letter."""
    text = yaml.safe_dump(DOCUMENT | changed)

    with pytest.raises(PortfolioInvalid, match=f"^reasons.yaml: .*{message}"):
        documents.parse(ReasonDictionary, text, "reasons.yaml")


def test_a_reviewers_reason_of_another_text_is_refused() -> None:
    """One code means one thing to applicants."""

    def policy_with(text: str) -> Policy:
        reason = {"code": "LENGTH_OF_EMPLOYMENT", "text": text, "decision": "DECLINE"}
        return Policy.model_validate(
            toys.policy().model_dump(mode="json") | {"review": {"reasons": [reason]}}
        )

    toys.reasons().check(toys.schema(), policy_with("Length of employment"))
    with pytest.raises(PortfolioInvalid, match="LENGTH_OF_EMPLOYMENT of review has another text"):
        toys.reasons().check(toys.schema(), policy_with("Too short a job"))
