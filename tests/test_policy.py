"""The policy: bands, rules, and what it refuses to start on."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import documents
from credit_risk.errors import PortfolioInvalid
from credit_risk.policy import BAND_ORDER, SEVERITY, Policy
from tests import strategies, toys

if TYPE_CHECKING:
    from credit_risk.schema import Application

PROBABILITIES = st.floats(0.0, 1.0)
TOY = toys.policy()
DOCUMENT = yaml.safe_load(toys.POLICY)
EXAMPLE = toys.schema().example


def altered(**changed: object) -> str:
    """The toy policy file with some of its top-level keys replaced."""
    return str(yaml.safe_dump(DOCUMENT | changed))


def parsed(**changed: object) -> Policy:
    """The toy policy with some of its top-level keys replaced."""
    return documents.parse(Policy, altered(**changed), "policy.yaml")


def with_rule(kind: str = "knock-out", **condition: object) -> Policy:
    """The toy policy with one rule of one condition."""
    rule = {"name": "the-rule", "kind": kind, "when": [condition], "reason": "AMOUNT_REQUESTED"}
    return parsed(rules=[rule])


def bands(*edges: float, decisions: str = "AARD") -> list[dict[str, Any]]:
    """Four bands that meet at ``edges``, deciding A, R or D."""
    words = {"A": "APPROVE", "R": "REVIEW", "D": "DECLINE"}
    return [
        {"name": name, "lower": lower, "upper": upper, "decision": words[letter]}
        for name, lower, upper, letter in zip(
            BAND_ORDER, edges[:-1], edges[1:], decisions, strict=True
        )
    ]


@pytest.mark.parametrize(
    ("probability", "band", "decision", "prediction"),
    [
        (0.0, "LOW", "APPROVE", 0),
        (0.0999, "LOW", "APPROVE", 0),
        (0.1, "MEDIUM", "APPROVE", 0),
        (0.2, "HIGH", "REVIEW", 0),
        (0.3999, "HIGH", "REVIEW", 0),
        (0.4, "VERY_HIGH", "DECLINE", 1),
        (1.0, "VERY_HIGH", "DECLINE", 1),
    ],
)
def test_without_a_rule_the_band_decides(
    probability: float, band: str, decision: str, prediction: int
) -> None:
    """A band holds its lower edge, and the last one holds 1."""
    outcome = TOY.decide(probability, EXAMPLE)

    assert (outcome.band, outcome.decision, outcome.scored) == (band, decision, decision)
    assert outcome.prediction == prediction
    assert outcome.rules == ()


def test_the_cut_off_need_not_be_a_bands_edge() -> None:
    """Prediction and band answer two questions."""
    outcome = parsed(cut_off=0.15).decide(0.15, EXAMPLE)

    assert (outcome.prediction, outcome.band) == (1, "MEDIUM")
    assert parsed(cut_off=0.15).decide(0.1499, EXAMPLE).prediction == 0


@pytest.mark.parametrize(
    ("probability", "changed", "decision", "scored", "rules"),
    [
        (0.05, {"price": 15000.5}, "DECLINE", "APPROVE", ["price-above-limit"]),
        (0.05, {"price": 15000.0}, "APPROVE", "APPROVE", []),
        (0.90, {"price": 15000.5}, "DECLINE", "DECLINE", ["price-above-limit"]),
        (
            0.05,
            {"history": "poor", "use": "racing"},
            "REVIEW",
            "APPROVE",
            ["poor-history-and-racing"],
        ),
        (0.05, {"history": "poor", "use": "cargo"}, "APPROVE", "APPROVE", []),
        (0.05, {"history": "good", "use": "racing"}, "APPROVE", "APPROVE", []),
        (0.05, {"years_employed": None}, "REVIEW", "APPROVE", ["no-employment-stated"]),
        (0.30, {"years_employed": None}, "REVIEW", "REVIEW", ["no-employment-stated"]),
        # A referral did not make this decision, so it is not behind it.
        (0.90, {"years_employed": None}, "DECLINE", "DECLINE", []),
        (
            0.05,
            {"years_employed": None, "price": 16000},
            "DECLINE",
            "APPROVE",
            ["price-above-limit"],
        ),
        (
            0.05,
            {"years_employed": None, "history": "poor", "use": "racing"},
            "REVIEW",
            "APPROVE",
            ["poor-history-and-racing", "no-employment-stated"],
        ),
    ],
)
def test_rules_decide_as_worked_out_by_hand(
    probability: float, changed: dict[str, Any], decision: str, scored: str, rules: list[str]
) -> None:
    """The strictest of band and rules wins; the rules named are those that called for it."""
    outcome = TOY.decide(probability, EXAMPLE | changed)

    assert (outcome.decision, outcome.scored) == (decision, scored)
    assert [rule.name for rule in outcome.rules] == rules


def test_a_field_left_out_is_missing() -> None:
    """Left out and null are one."""
    without = dict(EXAMPLE)
    del without["years_employed"]

    assert TOY.decide(0.05, without) == TOY.decide(0.05, EXAMPLE | {"years_employed": None})


@pytest.mark.parametrize(
    ("op", "value", "years", "fires"),
    [
        ("eq", 4, 4.0, True),
        ("eq", 4, 4.5, False),
        ("ne", 4, 4.5, True),
        ("ne", 4, 4.0, False),
        ("lt", 4, 3.9, True),
        ("lt", 4, 4.0, False),
        ("le", 4, 4.0, True),
        ("le", 4, 4.1, False),
        ("gt", 4, 4.1, True),
        ("gt", 4, 4.0, False),
        ("ge", 4, 4.0, True),
        ("ge", 4, 3.9, False),
        ("in", [1, 4], 4.0, True),
        ("in", [1, 4], 2.0, False),
        ("not-in", [1, 4], 2.0, True),
        ("not-in", [1, 4], 4.0, False),
        ("missing", None, None, True),
        ("missing", None, 4.0, False),
    ],
)
def test_each_comparison_means_what_it_says(
    op: str, value: object, years: float | None, *, fires: bool
) -> None:
    """One rule, one condition, one answer."""
    policy = with_rule(field="years_employed", op=op, value=value)
    policy.check(toys.schema())

    outcome = policy.decide(0.05, EXAMPLE | {"years_employed": years})

    assert outcome.decision == ("DECLINE" if fires else "APPROVE")


@pytest.mark.parametrize("op", ["eq", "ne", "lt", "le", "gt", "ge", "in", "not-in"])
def test_a_comparison_with_a_missing_value_is_false(op: str) -> None:
    """Nobody is declined for a number that was never stated."""
    policy = with_rule(field="years_employed", op=op, value=[4] if "in" in op else 4)

    assert policy.decide(0.05, EXAMPLE | {"years_employed": None}).decision == "APPROVE"


@pytest.mark.parametrize(
    ("op", "value", "fires"),
    [
        ("eq", "mixed", True),
        ("ne", "mixed", False),
        ("in", ["mixed", "poor"], True),
        ("not-in", ["mixed", "poor"], False),
    ],
)
def test_categories_are_compared_by_name(op: str, value: object, *, fires: bool) -> None:
    """The example's history is mixed."""
    policy = with_rule(field="history", op=op, value=value)
    policy.check(toys.schema())

    assert (policy.decide(0.05, EXAMPLE).decision == "DECLINE") is fires


@pytest.mark.parametrize(
    ("quantity", "op", "value", "fires"),
    [
        # The example is 34 years old, earns 2500, employed for 4.5 years; the bicycle costs 1200.
        ({"difference": ["age", "years_employed"]}, "le", 29.5, True),
        ({"difference": ["age", "years_employed"]}, "lt", 29.5, False),
        ({"difference": ["years_employed", "age"]}, "lt", 0, True),
        ({"distance": ["years_employed", "age"]}, "ge", 29.5, True),
        ({"distance": ["age", "years_employed"]}, "gt", 29.5, False),
        ({"ratio": ["price", "income"]}, "ge", 0.48, True),
        ({"ratio": ["price", "income"]}, "gt", 0.48, False),
        ({"distance": [{"ratio": ["price", "income"]}, "years_employed"]}, "gt", 4.0, True),
        ({"ratio": ["price", {"difference": ["income", "years_employed"]}]}, "gt", 0.48, True),
    ],
)
def test_a_quantity_is_computed_from_the_fields_it_names(
    quantity: dict[str, Any], op: str, value: float, *, fires: bool
) -> None:
    """Worked out by hand."""
    policy = with_rule(quantity=quantity, op=op, value=value)
    policy.check(toys.schema())

    assert (policy.decide(0.05, EXAMPLE).decision == "DECLINE") is fires


def test_a_policy_with_quantities_survives_being_written() -> None:
    """Also one within another, and with what it leaves out written as null."""
    policy = with_rule(
        quantity={"distance": [{"ratio": ["price", "income"]}, "years_employed"]}, op="gt", value=4
    )

    assert Policy.model_validate(policy.model_dump(mode="json")) == policy


@pytest.mark.parametrize("op", ["lt", "le", "gt", "ge"])
def test_a_comparison_with_a_quantity_that_lacks_a_field_is_false(op: str) -> None:
    """Nobody is declined for the length of an employment that was never stated."""
    policy = with_rule(quantity={"difference": ["age", "years_employed"]}, op=op, value=18)

    assert policy.decide(0.05, EXAMPLE | {"years_employed": None}).decision == "APPROVE"


# What holds for every probability, application and policy.


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies with any edges and any decisions that do not get milder."""
    inner = draw(st.lists(st.floats(0.001, 0.999), min_size=3, max_size=3, unique=True))
    places = sorted(draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)))
    tiles = bands(0.0, *sorted(inner), 1.0, decisions="".join("ARD"[i] for i in places))
    return Policy.model_validate(DOCUMENT | {"bands": tiles, "cut_off": draw(PROBABILITIES)})


@given(policies(), PROBABILITIES)
def test_every_probability_is_in_exactly_one_band(policy: Policy, probability: float) -> None:
    """Bands tile [0, 1]."""
    holding = [
        band
        for band in policy.bands
        if band.lower <= probability < band.upper or probability == band.upper == 1.0
    ]

    assert holding == [policy.band_of(probability)]


@given(policies(), PROBABILITIES, PROBABILITIES, strategies.applications(toys.schema()))
def test_a_higher_probability_never_gets_a_milder_decision(
    policy: Policy, one: float, other: float, application: Application
) -> None:
    """Same applicant, more risk: the same or stricter."""
    lower = policy.decide(min(one, other), application)
    higher = policy.decide(max(one, other), application)

    assert SEVERITY[lower.decision] <= SEVERITY[higher.decision]
    assert lower.prediction <= higher.prediction
    assert BAND_ORDER.index(lower.band) <= BAND_ORDER.index(higher.band)


@given(policies(), PROBABILITIES, strategies.applications(toys.schema()))
def test_rules_only_make_a_decision_stricter(
    policy: Policy, probability: float, application: Application
) -> None:
    """Without the rules the same score is never declined more."""
    outcome = policy.decide(probability, application)

    assert SEVERITY[outcome.decision] >= SEVERITY[outcome.scored]
    assert outcome.scored == policy.band_of(probability).decision
    assert outcome.rules or outcome.decision == outcome.scored
    assert all(rule.decision == outcome.decision for rule in outcome.rules)


@given(PROBABILITIES, strategies.applications(toys.schema()))
def test_the_same_question_has_the_same_answer(
    probability: float, application: Application
) -> None:
    """Also from a policy read again."""
    again = Policy.model_validate(DOCUMENT)

    assert TOY.decide(probability, application) == again.decide(probability, dict(application))


# What it refuses.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (bands(0.0, 0.1, 0.2, 0.4, 0.9), "the last band ends at 0.9, not at 1"),
        (bands(0.1, 0.2, 0.3, 0.4, 1.0), "LOW starts at 0.1, expected 0.0: it leaves a gap"),
        (bands(0.0, 0.2, 0.2, 0.4, 1.0), "MEDIUM is empty"),
        (bands(0.0, 0.2, 0.1, 0.4, 1.0), "MEDIUM is empty"),
        (bands(0.0, 0.1, 0.2, 0.4, 1.0)[::-1], "once each and in that order"),
        (
            [bands(0.0, 0.1, 0.2, 0.4, 1.0)[i] for i in (0, 1, 1, 3)],
            "once each and in that order",
        ),
        (bands(0.0, 0.1, 0.2, 0.4, 1.0)[:3], "at least 4 items"),
        (bands(0.0, 0.1, 0.2, 0.4, 1.0) * 2, "at most 4 items"),
        (bands(0.0, 0.1, 0.2, 0.4, 1.0, decisions="ARAD"), "HIGH decides APPROVE, milder than"),
        (bands(0.0, 0.1, 0.2, 0.4, 1.0, decisions="DDRD"), "HIGH decides REVIEW, milder than"),
        (bands(0.0, 0.1, 0.2, 1.4, 1.0), r"bands\.2\.upper"),
        (bands(-0.1, 0.1, 0.2, 0.4, 1.0), r"bands\.0\.lower"),
        (bands(0.0, 0.1, float("nan"), 0.4, 1.0), r"bands\.1\.upper"),
    ],
)
def test_bands_that_do_not_tile_are_refused(wrong: list[dict[str, Any]], message: str) -> None:
    """Overlapping, missing, empty, misordered or milder bands refuse to start."""
    with pytest.raises(PortfolioInvalid, match=f"^policy.yaml: .*{message}"):
        parsed(bands=wrong)


def test_a_band_that_overlaps_the_one_before_is_refused() -> None:
    """No PD may have two answers."""
    wrong = bands(0.0, 0.1, 0.2, 0.4, 1.0)
    wrong[2]["lower"] = 0.15

    with pytest.raises(
        PortfolioInvalid, match=r"HIGH starts at 0.15, expected 0.2: it overlaps the band before it"
    ):
        parsed(bands=wrong)


def test_a_gap_between_bands_is_refused() -> None:
    """No PD may have none."""
    wrong = bands(0.0, 0.1, 0.2, 0.4, 1.0)
    wrong[3]["lower"] = 0.45

    with pytest.raises(PortfolioInvalid, match=r"VERY_HIGH starts at 0.45, expected 0.4.* a gap"):
        parsed(bands=wrong)


@pytest.mark.parametrize("cut_off", [-0.1, 1.1, float("nan")])
def test_a_cut_off_that_is_no_probability_is_refused(cut_off: float) -> None:
    """It is compared with one."""
    with pytest.raises(PortfolioInvalid, match="cut_off"):
        parsed(cut_off=cut_off)


def test_rules_of_one_name_are_refused() -> None:
    """A record names the rule by it."""
    rules = DOCUMENT["rules"]

    with pytest.raises(PortfolioInvalid, match="rules: names are not unique"):
        parsed(rules=[*rules, rules[0]])


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        ({"kind": "approve"}, r"rules\.0\.kind"),
        ({"when": []}, r"rules\.0\.when"),
        ({"name": "The Rule"}, r"rules\.0\.name"),
        ({"when": [{"field": "age", "op": "like", "value": 3}]}, r"rules\.0\.when\.0\.op"),
    ],
)
def test_a_rule_of_no_known_shape_is_refused(rule: dict[str, Any], place: str) -> None:
    """A rule declines or refers, under at least one condition."""
    good = DOCUMENT["rules"][0]

    with pytest.raises(PortfolioInvalid, match=place):
        parsed(rules=[good | rule])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"field": "shoe_size", "op": "gt", "value": 44}, "not in the schema"),
        ({"field": "price", "op": "gt", "value": 20001}, "20001.0 is outside the field's range"),
        ({"field": "price", "op": "lt", "value": 49}, "49.0 is outside the field's range"),
        ({"field": "price", "op": "in", "value": [60, 49]}, "49.0 is outside the field's range"),
        ({"field": "price", "op": "gt", "value": float("nan")}, "nan is outside"),
        ({"field": "price", "op": "gt", "value": "much"}, "'much' is not a number"),
        ({"field": "price", "op": "gt", "value": "900"}, "'900' is not a number"),
        ({"field": "price", "op": "gt", "value": [900]}, "gt takes one value"),
        ({"field": "price", "op": "eq"}, "eq takes one value"),
        ({"field": "price", "op": "in", "value": 900}, "in takes a list"),
        ({"field": "price", "op": "not-in", "value": []}, "not-in takes a list"),
        ({"field": "price", "op": "missing"}, "the field is never missing"),
        ({"field": "years_employed", "op": "missing", "value": 1}, "missing takes no value"),
        ({"field": "age", "op": "eq", "value": 30.5}, "30.5 is not a whole number"),
        ({"field": "age", "op": "in", "value": [30, 30.5]}, "30.5 is not a whole number"),
        ({"field": "history", "op": "eq", "value": "Poor"}, "unknown category 'Poor'"),
        ({"field": "history", "op": "in", "value": ["poor", "bad"]}, "unknown category 'bad'"),
        ({"field": "history", "op": "eq", "value": 2}, "unknown category 2.0"),
        ({"field": "history", "op": "ge", "value": "mixed"}, "ge has no meaning for a category"),
    ],
)
def test_a_rule_that_could_never_mean_anything_is_refused(
    condition: dict[str, Any], message: str
) -> None:
    """The message names the rule and the field."""
    policy = with_rule(**condition)

    with pytest.raises(PortfolioInvalid) as caught:
        policy.check(toys.schema())

    assert str(caught.value).startswith(f"policy rule the-rule, field {condition['field']}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"quantity": {"ratio": ["price", "wage"]}, "op": "gt", "value": 1}, "wage is not in the"),
        ({"quantity": {"ratio": ["price", "use"]}, "op": "gt", "value": 1}, "use is not a number"),
        (
            {"quantity": {"ratio": ["price", "years_employed"]}, "op": "gt", "value": 1},
            "the denominator may be 0",
        ),
        (
            {
                "quantity": {"ratio": ["price", {"difference": ["income", "price"]}]},
                "op": "gt",
                "value": 1,
            },
            "the denominator may be 0",
        ),
        (
            {"quantity": {"difference": ["age", "years_employed"]}, "op": "eq", "value": 1},
            "eq has no meaning for a quantity",
        ),
        (
            {"quantity": {"difference": ["age", "years_employed"]}, "op": "missing"},
            "missing has no meaning for a quantity",
        ),
        (
            {"quantity": {"difference": ["age", "years_employed"]}, "op": "gt", "value": "one"},
            "gt takes one number",
        ),
        (
            {"quantity": {"difference": ["age", "years_employed"]}, "op": "gt", "value": 101},
            "101.0 is outside the range -32 to 100",
        ),
        (
            {"quantity": {"distance": ["age", "years_employed"]}, "op": "lt", "value": -1},
            "-1.0 is outside the range 0 to 100",
        ),
        (
            {"quantity": {"distance": ["age", "income"]}, "op": "lt", "value": float("nan")},
            "nan is outside the range 0 to 99982",
        ),
        (
            {"quantity": {"ratio": ["price", "income"]}, "op": "gt", "value": 201},
            "201.0 is outside the range 0.0005 to 200",
        ),
    ],
)
def test_a_quantity_that_could_never_mean_anything_is_refused(
    condition: dict[str, Any], message: str
) -> None:
    """Also one that may divide by zero; the message names the rule and the quantity."""
    policy = with_rule(**condition)

    with pytest.raises(PortfolioInvalid) as caught:
        policy.check(toys.schema())

    (operation,) = condition["quantity"]
    assert str(caught.value).startswith(f"policy rule the-rule, {operation} of ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "condition",
    [
        {"op": "gt", "value": 1},
        {"field": "age", "quantity": {"ratio": ["price", "income"]}, "op": "gt", "value": 1},
    ],
)
def test_a_condition_compares_either_a_field_or_a_quantity(condition: dict[str, Any]) -> None:
    """Neither nothing nor two things."""
    with pytest.raises(
        PortfolioInvalid, match=r"rules\.0\.when\.0: .*either a field or a quantity"
    ):
        with_rule(**condition)


@pytest.mark.parametrize(
    "quantity",
    [
        {},
        {"ratio": None},
        {"ratio": ["price", "income"], "difference": ["price", "income"]},
    ],
)
def test_a_quantity_is_of_one_kind(quantity: dict[str, Any]) -> None:
    """A ratio, a difference or a distance."""
    with pytest.raises(PortfolioInvalid, match="a quantity is a ratio, a difference or a distance"):
        with_rule(quantity=quantity, op="gt", value=1)


@pytest.mark.parametrize(
    "quantity", [{"sum": ["price", "income"]}, {"ratio": ["price"]}, {"ratio": ["price", 2]}]
)
def test_a_quantity_of_no_known_shape_is_refused(quantity: dict[str, Any]) -> None:
    """Two operands, each a field or a quantity."""
    with pytest.raises(PortfolioInvalid, match=r"rules\.0\.when\.0\.quantity"):
        with_rule(quantity=quantity, op="gt", value=1)


def test_an_integer_may_be_compared_with_a_number_between_two() -> None:
    """Older than 30.5 is a question that an integer answers."""
    policy = with_rule(field="age", op="gt", value=30.5)
    policy.check(toys.schema())

    assert policy.decide(0.05, EXAMPLE | {"age": 31}).decision == "DECLINE"
    assert policy.decide(0.05, EXAMPLE | {"age": 30}).decision == "APPROVE"


CONDITIONS = [
    {"field": "years_employed", "op": "missing"},
    *({"field": "years_employed", "op": op, "value": 5} for op in ("eq", "ne", "lt", "le")),
    *({"field": "age", "op": op, "value": 40} for op in ("gt", "ge", "eq", "ne")),
    *({"field": "age", "op": op, "value": [30, 40]} for op in ("in", "not-in")),
    *({"field": "years_employed", "op": op, "value": [5, 0]} for op in ("in", "not-in")),
    *({"field": "use", "op": op, "value": "racing"} for op in ("eq", "ne")),
    *({"field": "use", "op": op, "value": ["cargo", "racing"]} for op in ("in", "not-in")),
    *(
        {"quantity": {"difference": ["age", "years_employed"]}, "op": op, "value": 35}
        for op in ("lt", "le", "gt", "ge")
    ),
    {
        "quantity": {"distance": [{"ratio": ["price", "income"]}, "years_employed"]},
        "op": "gt",
        "value": 2.5,
    },
]
ROUND: dict[str, list[Any]] = {
    "age": [30, 39, 40, 41],
    "income": [2000.0],
    "price": [900.0, 15000.0, 16000.0],
    "years_employed": [None, 0.0, 5.0, 6.0],
    "history": ["good", "poor"],
    "use": ["cargo", "commuting", "racing"],
}
ALL_ROUND: list[Application] = [
    dict(zip(ROUND, values, strict=True)) for values in itertools.product(*ROUND.values())
]
EDGES = [0.0, 0.1, 0.15, 0.2, 0.3, 0.4, 1.0]


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_many_applications_have_the_outcomes_they_have_one_by_one(
    condition: dict[str, object],
) -> None:
    """Every operator, on every kind of field, at the very value and with it missing; or nobody."""
    rule = {"name": "the-rule", "kind": "referral", "when": [condition], "reason": "AGE"}
    strict = parsed(rules=[*DOCUMENT["rules"], rule])

    for pds, applications in ([], []), zip(*itertools.product(EDGES, ALL_ROUND), strict=True):
        rows = toys.schema().matrix(applications)
        many = strict.decide_rows(np.array(pds), rows, toys.schema())

        expected = [strict.decide(*one) for one in zip(pds, applications, strict=True)]
        assert [many[i] for i in range(len(pds))] == expected
        assert many.each() == expected


def test_without_rules_the_band_alone_decides_about_many() -> None:
    """An empty list of rules is a policy too."""
    many = parsed(rules=[]).decide_rows(
        np.array([0.05, 0.9]), toys.schema().matrix([EXAMPLE, EXAMPLE]), toys.schema()
    )

    assert [many[i].decision for i in range(2)] == ["APPROVE", "DECLINE"]
    assert many.rules.shape == (2, 0)


# What people may decide.


def test_a_policy_without_a_review_section_has_the_defaults() -> None:
    """Overrides need a second person, claims last half an hour, approvals have three reasons."""
    review = TOY.review

    assert (review.second_person, review.claim_minutes) == ("overrides", 30)
    assert {reason.decision for reason in review.reasons} == {"APPROVE"}
    assert len(review.reasons) == 3


def test_a_review_section_says_otherwise() -> None:
    """Each key for itself; the others stay."""
    reason = {"code": "OWNER_KNOWN", "text": "Known to the branch", "decision": "APPROVE"}
    policy = parsed(review={"second_person": "always", "reasons": [reason]})

    assert policy.review.second_person == "always"
    assert policy.review.claim_minutes == 30
    assert [r.code for r in policy.review.reasons] == ["OWNER_KNOWN"]


@pytest.mark.parametrize(
    ("review", "place"),
    [
        ({"second_person": "sometimes"}, "review.second_person"),
        ({"claim_minutes": 0}, "review.claim_minutes"),
        ({"people": 2}, "review.people"),
        ({"reasons": [{"code": "a", "text": "Text", "decision": "APPROVE"}]}, "reasons.0.code"),
        ({"reasons": [{"code": "A", "text": "Text", "decision": "REVIEW"}]}, "reasons.0.decision"),
        ({"reasons": [{"code": "A", "text": "Text", "decision": "APPROVE"}] * 2}, "given twice"),
    ],
)
def test_a_wrong_review_section_is_refused(review: dict[str, Any], place: str) -> None:
    """Naming the place."""
    with pytest.raises(PortfolioInvalid, match=place):
        parsed(review=review)
