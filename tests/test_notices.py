"""Notices: principal reasons in approved wording, who decided, and until when to tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from credit_risk import package, portfolio, regimes
from credit_risk.audit.records import Record
from credit_risk.errors import EvidenceInvalid, NotAdverse, NoticeImpossible
from credit_risk.notices import check_adverse, notice
from credit_risk.package import Wordings
from credit_risk.policy import DecisionName
from credit_risk.regimes import Regime
from credit_risk.reviews import Case, Closing, Proposal, case_of
from tests import toys
from tests.test_regimes import regime

ROOT = Path(__file__).parents[1]
WORDINGS = Wordings(toys.policy(), toys.reasons(), "5" * 64)
AT = 1_763_800_000_000_000  # 2025-11-22 08:26:40 UTC
SCORED = [
    {"code": "AMOUNT_REQUESTED", "fields": ["price"], "contribution": 1.5},
    {"code": "LENGTH_OF_EMPLOYMENT", "fields": ["years_employed"], "contribution": 0.5},
    {"code": "APPLICANT_AGE", "fields": ["age"], "contribution": 0.1},
]
LIMIT = {"code": "PRICE_ABOVE_LIMIT", "fields": ["price"], "contribution": None}


def decided(
    decision: DecisionName = "DECLINE",
    *,
    scored: DecisionName = "DECLINE",
    rules: tuple[str, ...] = (),
    reasons: list[dict[str, Any]] | None = None,
) -> Record:
    """The record of a decision."""
    return Record(
        id="d-1",
        kind="decision",
        time=AT,
        portfolio=toys.NAME,
        request_id="r-1",
        model_version="0123456789ab",
        policy_version="2.1.0+00000000",
        decision=decision,
        status=200,
        body={
            "scored_decision": scored,
            "rules": list(rules),
            "reasons": SCORED if reasons is None else reasons,
            "reasons_sha256": "5" * 64,
        },
    )


def closed(
    decision: str = "DECLINE", reasons: tuple[str, ...] = ("DELINQUENT_OBLIGATIONS",)
) -> Closing:
    """A review that ended a day after the decision."""
    later = AT + 86_400_000_000
    return Closing(
        "APPROVE" if decision == "APPROVE" else "DECLINE", ("ada",), reasons, None, later
    )


def case(record: Record, closing: Closing | None) -> Case:
    """What people did about a decision: nothing, or a review that ended so."""
    return replace(case_of(record, ()), closed=closing)


def noticed(
    record: Record, closing: Closing | None, words: Wordings, law: Regime
) -> dict[str, Any]:
    """The notice of a decision with that review."""
    return notice(record, case(record, closing), words, law, AT)


def spoken(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Which component gives which reason."""
    return [(reason["component"], reason["code"]) for reason in answer["principal_reasons"]]


def test_a_scored_decline_gives_the_scored_factors_in_approved_wording() -> None:
    """The most adverse first, and no more of them than the regime's number."""
    answer = noticed(decided(), None, WORDINGS, regime())

    assert answer["decided_by"] == ["score"]
    assert answer["principal_reasons"] == [
        {
            "code": "AMOUNT_REQUESTED",
            "text": "Amount of credit requested",
            "component": "score",
        },
        {"code": "LENGTH_OF_EMPLOYMENT", "text": "Length of employment", "component": "score"},
    ]
    assert (answer["decision"], answer["review"]) == ("DECLINE", None)


def test_a_knock_out_gives_the_rules_factor_alone() -> None:
    """The score called for something milder, and has no say."""
    record = decided(scored="APPROVE", rules=("price-above-limit",), reasons=[LIMIT])

    answer = noticed(record, None, WORDINGS, regime())

    assert answer["decided_by"] == ["rule"]
    assert spoken(answer) == [("rule", "PRICE_ABOVE_LIMIT")]
    assert answer["principal_reasons"][0]["text"] == "Price exceeds the limit of this product"


def test_where_rule_and_score_called_for_it_both_speak() -> None:
    """The rule first, as on record."""
    record = decided(rules=("price-above-limit",), reasons=[LIMIT, *SCORED])

    answer = noticed(record, None, WORDINGS, regime())

    assert answer["decided_by"] == ["rule", "score"]
    assert spoken(answer) == [("rule", "PRICE_ABOVE_LIMIT"), ("score", "AMOUNT_REQUESTED")]


def test_after_a_reviewers_decline_the_reviewer_and_the_model_speak() -> None:
    """The reviewer's reason first; one that both give, once."""
    record = decided("REVIEW", scored="REVIEW")

    answer = noticed(record, closed(), WORDINGS, regime())
    agreeing = noticed(record, closed(reasons=("AMOUNT_REQUESTED",)), WORDINGS, regime())

    assert answer["decided_by"] == ["reviewer", "score"]
    assert spoken(answer) == [
        ("reviewer", "DELINQUENT_OBLIGATIONS"),
        ("score", "AMOUNT_REQUESTED"),
    ]
    assert spoken(agreeing) == [
        ("reviewer", "AMOUNT_REQUESTED"),
        ("score", "LENGTH_OF_EMPLOYMENT"),
    ]
    assert answer["review"]["reviewers"] == ["ada"]
    assert answer["review"]["closed"] == "2025-11-23T08:26:40.000000Z"


def test_a_decline_of_what_the_server_approved_has_the_reviewers_reason_alone() -> None:
    """Neither score nor rule called for it."""
    record = decided("APPROVE", scored="APPROVE", reasons=[])

    answer = noticed(record, closed(), WORDINGS, regime())

    assert answer["decided_by"] == ["reviewer"]
    assert spoken(answer) == [("reviewer", "DELINQUENT_OBLIGATIONS")]


def test_the_deadline_is_counted_as_the_regime_says() -> None:
    """From the application, though a person decided later; or from the decision; or not at all."""
    record, review = decided("REVIEW", scored="REVIEW"), closed()
    law = regime().notification.model_dump()

    from_application = noticed(record, review, WORDINGS, regime())["notification"]
    law["counted_from"] = "decision"
    from_decision = noticed(record, review, WORDINGS, regime(notification=law))["notification"]
    of_the_server = noticed(decided(), None, WORDINGS, regime(notification=law))["notification"]
    law["days"] = None
    without = noticed(record, review, WORDINGS, regime(notification=law))["notification"]

    assert from_application == {
        "counted_from": "application",
        "from": "2025-11-22T08:26:40.000000Z",
        "days": 10,
        "deadline": "2025-12-02",
        "words": "Within ten days.",
    }
    assert from_decision["deadline"] == "2025-12-03"
    assert of_the_server["deadline"] == "2025-12-02"
    assert (without["days"], without["deadline"]) == (None, None)


def test_an_erased_application_leaves_the_reasons_and_is_told() -> None:
    """The reasons are no personal data by themselves; what they were given for is gone."""
    erased = noticed(replace(decided(), withheld="erased"), None, WORDINGS, regime())

    assert erased["personal_data"] == "erased"
    assert erased["principal_reasons"]
    assert noticed(decided(), None, WORDINGS, regime())["personal_data"] == "kept"


def test_it_names_all_that_it_was_made_with() -> None:
    """Versions and digests of model, policy, reasons and regime; statements with their gaps."""
    answer = noticed(decided(), None, WORDINGS, regime())

    assert answer["model_version"] == "0123456789ab"
    assert answer["policy_version"] == "2.1.0+00000000"
    assert answer["reasons"] == {"version": "1.0.0", "sha256": "5" * 64}
    law = answer["regime"]
    assert (law["id"], law["version"], law["as_of"]) == ("bicycle-law", "1.0.0", "2026-11-01")
    assert law["sha256"] == regime().sha256
    assert answer["statements"] == [
        {
            "id": "who",
            "text": "{lender}, {address}; again {lender}",
            "placeholders": ["lender", "address"],
            "when": None,
        }
    ]


@pytest.mark.parametrize(
    ("record", "closing", "told"),
    [
        (decided("APPROVE", scored="APPROVE"), None, "is APPROVE: there is nothing adverse"),
        (decided("REVIEW", scored="REVIEW"), None, "is REVIEW: a person has to decide first"),
        (decided("REVIEW", scored="REVIEW"), closed("APPROVE"), "is APPROVE, by a reviewer"),
        (decided(), closed("APPROVE"), "is APPROVE, by a reviewer"),
    ],
)
def test_what_is_not_adverse_has_no_notice(
    record: Record, closing: Closing | None, told: str
) -> None:
    """Approved, approved by a person, or not decided yet."""
    with pytest.raises(NotAdverse, match=told):
        check_adverse(record, case(record, closing), regime().notification, AT)
    with pytest.raises(NotAdverse, match=told):
        noticed(record, closing, WORDINGS, regime())


@pytest.mark.parametrize("decision", ["DECLINE", "REVIEW"])
def test_while_people_are_at_it_there_is_no_notice(decision: DecisionName) -> None:
    """A proposal waits for its second person, or a third has to decide; until when, is told."""
    record = decided(decision)
    proposed = replace(case(record, None), steps=1, proposal=Proposal("ada", "APPROVE", "X"))
    disputed = replace(proposed, steps=2, dissent=Proposal("ben", "DECLINE", "Y"))
    law = regime()

    with pytest.raises(NotAdverse, match=r"second person has to agree or not; .* by 2025-12-02"):
        notice(record, proposed, WORDINGS, law, AT)
    with pytest.raises(NotAdverse, match="Two people do not agree: a third has to decide; "):
        notice(record, disputed, WORDINGS, law, AT)
    closed_by_people = replace(disputed, closed=closed())
    assert notice(record, closed_by_people, WORDINGS, law, AT)["review"]


def test_a_decline_is_told_on_the_last_day_though_people_do_not_agree() -> None:
    """The law does not wait for them; a case that only they can decide has nothing to tell."""
    last_day = AT + 10 * 86_400_000_000
    record, referred = decided(), decided("REVIEW")
    of_people = replace(case(record, None), steps=1, proposal=Proposal("ada", "APPROVE", "X"))
    law = regime()
    endless = regime(notification=law.notification.model_dump() | {"days": None})

    told = notice(record, of_people, WORDINGS, law, last_day)

    assert told["notification"]["deadline"] == "2025-12-02"
    assert (told["decided_by"], told["review"], told["under_review"]) == (["score"], None, True)
    assert noticed(record, None, WORDINGS, law)["under_review"] is False
    with pytest.raises(NotAdverse, match="is REVIEW"):
        notice(referred, case(referred, None), WORDINGS, law, last_day)
    with pytest.raises(NotAdverse, match="second person"):
        notice(record, of_people, WORDINGS, endless, last_day)
    with pytest.raises(NotAdverse, match="second person"):
        notice(record, of_people, WORDINGS, law, last_day - 86_400_000_000)


def test_what_waits_for_its_decision_has_no_last_day_that_counts_from_it() -> None:
    """Nothing was decided yet."""
    rule = regime().notification.model_copy(update={"counted_from": "decision"})
    record = decided("REVIEW")

    with pytest.raises(NotAdverse, match=r"a person has to decide first$"):
        check_adverse(record, case(record, None), rule, AT)


def test_other_wording_than_that_of_the_decision_is_refused() -> None:
    """The package under that version has another dictionary: somebody changed it."""
    with pytest.raises(NoticeImpossible, match="not those in force"):
        noticed(decided(), None, replace(WORDINGS, reasons_sha256="6" * 64), regime())


def test_a_reason_without_wording_is_not_made_up() -> None:
    """Nor is it left out: a principal reason would be missing."""
    record = decided(reasons=[{"code": "WEATHER", "fields": [], "contribution": 1.0}])

    with pytest.raises(NoticeImpossible, match="WEATHER has no approved wording"):
        noticed(record, None, WORDINGS, regime())


def test_a_decline_without_a_reason_on_record_has_no_notice() -> None:
    """There is nothing to tell the applicant."""
    with pytest.raises(NoticeImpossible, match="No reason is on record"):
        noticed(decided(reasons=[]), None, WORDINGS, regime())


def test_a_record_that_lacks_what_a_decision_says_has_no_notice() -> None:
    """It is named; its hash may fit all the same."""
    for name in ("reasons_sha256", "rules", "reasons"):
        record = decided()
        case_of_it = case(record, None)
        lacking = replace(record, body={n: v for n, v in record.body.items() if n != name})
        with pytest.raises(EvidenceInvalid, match="record d-1: it does not say"):
            notice(lacking, case_of_it, WORDINGS, regime(), AT)


def test_wording_that_the_regime_forbids_is_refused_and_named() -> None:
    """Approved by the lender or not."""
    with pytest.raises(NoticeImpossible, match=r"AMOUNT_REQUESTED .* forbids: 'credit requested'"):
        noticed(decided(), None, WORDINGS, regime(forbidden_wordings=["credit requested"]))


@pytest.mark.parametrize("law", regimes.names(ROOT / "regimes"))
@pytest.mark.parametrize("name", portfolio.names(ROOT / "portfolios"))
def test_no_shipped_wording_is_forbidden_by_a_shipped_regime(name: str, law: str) -> None:
    """Reasons of the shipped packages, and those that reviewers may give."""
    folder = ROOT / "packages" / name
    version = (folder / "default").read_text(encoding="utf-8").strip()
    words = package.wordings(folder / version, version)

    for text in words.review_texts("DECLINE").values():
        assert regimes.load(ROOT / "regimes", law).forbidden_in(text) is None
