"""Reviews: which steps people may take, and what a case's records come to."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from credit_risk import reviews
from credit_risk.audit.records import Record
from credit_risk.errors import NotADecision, ReviewRefused
from credit_risk.policy import ReviewPolicy
from credit_risk.reviews import Case, Direction, PersonsDecision, Step, Verdict, case_of
from tests import toys

if TYPE_CHECKING:
    from credit_risk.audit.records import RecordKind
    from credit_risk.policy import DecisionName

AT = 1_763_800_000_000_000
MINUTE = 60_000_000
BY_DEFAULT = ReviewPolicy()
ALONE = ReviewPolicy(second_person="never")
TOGETHER = ReviewPolicy(second_person="always")
PEOPLE = ("ada", "ben", "cyd")


def decided(decision: DecisionName | None = "REVIEW", scored: DecisionName = "REVIEW") -> Record:
    """The record of a decision, or of something else where there is none."""
    return _record("d-1", "decision", AT, decision, {"scored_decision": scored})


def _record(
    record_id: str, kind: RecordKind, time: int, decision: DecisionName | None, body: dict[str, Any]
) -> Record:
    return Record(
        id=record_id,
        kind=kind,
        time=time,
        portfolio=toys.NAME,
        request_id="r-1",
        model_version="0123456789ab",
        policy_version="2.1.0+00000000",
        decision=decision,
        status=200,
        body=body,
    )


def case(decision: DecisionName = "REVIEW", scored: DecisionName = "REVIEW") -> Case:
    """A case nobody has touched."""
    return case_of(decided(decision, scored), [])


def says(reviewer: str, decision: PersonsDecision, reason: str = "R") -> Verdict:
    """A verdict."""
    return Verdict(reviewer, decision, reason, "a note")


def then(before: Case, step: Step, time: int = AT) -> Case:
    """The case after a step."""
    return reviews.after(before, step.body, time)


def test_a_decision_of_review_is_closed_by_one_person() -> None:
    """It is left to people by design, so nothing is overridden."""
    step = reviews.review(case(), says("ada", "DECLINE"), AT, BY_DEFAULT)
    closed = then(case(), step).closed

    assert (step.kind, step.decision, step.note) == ("review", "DECLINE", "a note")
    assert closed is not None
    assert (closed.decision, closed.override) == ("DECLINE", None)
    assert (closed.reviewers, closed.reasons) == (("ada",), ("R",))
    assert "note" not in step.body


@pytest.mark.parametrize(
    ("made", "scored", "decision", "direction"),
    [
        ("DECLINE", "DECLINE", "APPROVE", "low-side"),
        ("DECLINE", "APPROVE", "APPROVE", "low-side"),
        ("APPROVE", "APPROVE", "DECLINE", "high-side"),
        ("REVIEW", "APPROVE", "DECLINE", "high-side"),
        ("REVIEW", "APPROVE", "APPROVE", None),
        ("REVIEW", "REVIEW", "APPROVE", None),
        ("REVIEW", "REVIEW", "DECLINE", None),
        ("DECLINE", "DECLINE", "DECLINE", None),
    ],
)
def test_an_override_is_a_decision_against_the_server(
    made: DecisionName,
    scored: DecisionName,
    decision: PersonsDecision,
    direction: Direction | None,
) -> None:
    """Low-side approves what was declined, high-side declines what was approved."""
    assert case(made, scored).override(decision) == direction


def test_an_override_waits_for_a_second_different_person() -> None:
    """Who agrees closes it, and both are named."""
    start = case("DECLINE", "DECLINE")
    proposed = reviews.review(start, says("ada", "APPROVE", "FIRST"), AT, BY_DEFAULT)
    waiting = then(start, proposed)

    assert (proposed.body["action"], proposed.decision) == ("propose", None)
    assert waiting.state(AT) == "proposed"
    for name in ("ada", "ADA", "\uff41da"):
        with pytest.raises(ReviewRefused, match="needs a second, different person"):
            reviews.review(waiting, says(name, "APPROVE"), AT, BY_DEFAULT)
        with pytest.raises(ReviewRefused, match="needs a second, different person"):
            reviews.claim(waiting, name, AT, BY_DEFAULT)

    agreed = reviews.review(waiting, says("ben", "APPROVE", "SECOND"), AT + 1, BY_DEFAULT)
    closed = then(waiting, agreed, AT + 1).closed
    assert agreed.decision == "APPROVE"
    assert closed is not None
    assert (closed.reviewers, closed.reasons) == (("ada", "ben"), ("FIRST", "SECOND"))
    assert (closed.override, closed.time) == ("low-side", AT + 1)


def test_a_reason_that_both_give_is_given_once() -> None:
    """In a notice it would stand twice."""
    start = case("APPROVE", "APPROVE")
    waiting = then(start, reviews.review(start, says("ada", "DECLINE"), AT, BY_DEFAULT))

    assert reviews.review(waiting, says("ben", "DECLINE"), AT, BY_DEFAULT).body["reasons"] == ["R"]


@pytest.mark.parametrize(("decision", "agrees"), [("APPROVE", "ada"), ("DECLINE", "ben")])
def test_where_two_people_do_not_agree_a_third_one_decides(
    decision: PersonsDecision, agrees: str
) -> None:
    """With one of the two, so that two have said so; neither of them has another word."""
    start = case("DECLINE", "DECLINE")
    proposed = reviews.review(start, says("ada", "APPROVE", "R_ada"), AT, BY_DEFAULT)
    waiting = then(start, proposed)

    step = reviews.review(waiting, says("ben", "DECLINE", "R_ben"), AT, BY_DEFAULT)
    disputed = then(waiting, step)

    assert (step.body["action"], step.decision) == ("return", None)
    assert disputed.state(AT) == "disputed"
    told = disputed.to_json(AT)
    assert (told["proposal"]["reviewer"], told["dissent"]["reviewer"]) == ("ada", "ben")
    for name in ("ada", "BEN"):
        with pytest.raises(ReviewRefused, match="third, different person"):
            reviews.review(disputed, says(name, decision), AT, BY_DEFAULT)
        with pytest.raises(ReviewRefused, match="third, different person"):
            reviews.claim(disputed, name, AT, BY_DEFAULT)
    held = then(disputed, reviews.claim(disputed, "cyd", AT, BY_DEFAULT))
    last = reviews.review(held, says("cyd", decision, "R_cyd"), AT, BY_DEFAULT)
    closed = then(held, last).closed
    assert closed is not None
    assert closed.decision == decision
    assert closed.reviewers == (agrees, "cyd")
    assert closed.reasons == (f"R_{agrees}", "R_cyd")


def test_a_case_that_was_proposed_again_once_two_did_not_agree_begins_anew() -> None:
    """As such cases did before there was a third person: their records come to what they did."""
    start = case("DECLINE", "DECLINE")
    proposed = reviews.review(start, says("ada", "APPROVE"), AT, BY_DEFAULT)
    waiting = then(start, proposed)
    disputed = then(waiting, reviews.review(waiting, says("ben", "DECLINE"), AT, BY_DEFAULT))

    again = reviews.after(disputed, proposed.body | {"step": 3}, AT)

    assert (again.state(AT), again.dissent) == ("proposed", None)


def test_policy_says_what_needs_a_second_person() -> None:
    """Nothing, or everything."""
    override = reviews.review(case("DECLINE", "DECLINE"), says("ada", "APPROVE"), AT, ALONE)
    plain = reviews.review(case(), says("ada", "APPROVE"), AT, TOGETHER)

    assert (override.decision, override.body["override"]) == ("APPROVE", "low-side")
    assert plain.body["action"] == "propose"


def test_agreeing_with_what_was_decided_is_no_review() -> None:
    """There is nothing to record."""
    with pytest.raises(ReviewRefused, match="The decision is DECLINE already"):
        reviews.review(case("DECLINE", "DECLINE"), says("ada", "DECLINE"), AT, BY_DEFAULT)
    assert case("DECLINE", "DECLINE").state(AT) == "none"


def test_only_what_is_in_the_queue_can_be_claimed() -> None:
    """An approval waits for nobody."""
    with pytest.raises(ReviewRefused, match="not in the queue"):
        reviews.claim(case("APPROVE", "APPROVE"), "ada", AT, BY_DEFAULT)


def test_a_claim_keeps_others_off_until_it_is_over() -> None:
    """The holder may go on, others may not, and after its time anybody may."""
    held = then(case(), reviews.claim(case(), "ada", AT, BY_DEFAULT))
    last, over = AT + 30 * MINUTE - 1, AT + 30 * MINUTE

    assert (held.state(last), held.held_by(last)) == ("claimed", "ada")
    assert (held.state(over), held.held_by(over)) == ("open", None)
    with pytest.raises(ReviewRefused, match="Somebody else"):
        reviews.claim(held, "ben", last, BY_DEFAULT)
    with pytest.raises(ReviewRefused, match="Somebody else"):
        reviews.review(held, says("ben", "APPROVE"), last, BY_DEFAULT)
    assert reviews.claim(held, "Ada", last, BY_DEFAULT).body["until"] == last + 30 * MINUTE
    assert reviews.review(held, says("ada", "APPROVE"), last, BY_DEFAULT).decision == "APPROVE"
    assert reviews.claim(held, "ben", over, BY_DEFAULT).body["reviewer"] == "ben"


def test_only_the_holder_releases_a_claim() -> None:
    """And only while it lasts."""
    held = then(case(), reviews.claim(case(), "ada", AT, BY_DEFAULT))

    for who, when in (("ben", AT), ("ada", AT + 30 * MINUTE)):
        with pytest.raises(ReviewRefused, match="does not hold"):
            reviews.release(held, who, when)
    with pytest.raises(ReviewRefused, match="does not hold"):
        reviews.release(case(), "ada", AT)
    step = reviews.release(held, "ada", AT)
    assert step.kind == "claim"
    assert then(held, step).state(AT) == "open"


def test_what_is_closed_stays_closed() -> None:
    """For everybody."""
    closed = then(case(), reviews.review(case(), says("ada", "APPROVE"), AT, BY_DEFAULT))

    assert closed.state(AT) == "closed"
    assert not closed.waits
    with pytest.raises(ReviewRefused, match="closed"):
        reviews.review(closed, says("ben", "DECLINE"), AT, BY_DEFAULT)
    with pytest.raises(ReviewRefused, match="closed"):
        reviews.claim(closed, "ben", AT, BY_DEFAULT)


def test_what_is_no_decision_has_no_case() -> None:
    """A refusal, for instance."""
    with pytest.raises(NotADecision, match="not one of a decision"):
        case_of(decided(None), [])


def test_a_case_is_told_as_it_stands_at_the_time() -> None:
    """A claim that is over is not told."""
    held = then(case(), reviews.claim(case(), "ada", AT, BY_DEFAULT))

    told = held.to_json(AT)
    assert (told["state"], told["holder"]) == ("claimed", "ada")
    assert told["until"] == "2025-11-22T08:56:40.000000Z"
    later = held.to_json(AT + 30 * MINUTE)
    assert (later["state"], later["holder"], later["until"]) == ("open", None, None)
    start = case("DECLINE", "DECLINE")
    waiting = then(start, reviews.review(start, says("ada", "APPROVE"), AT, BY_DEFAULT))
    assert waiting.to_json(AT)["proposal"] == {
        "reviewer": "ada",
        "decision": "APPROVE",
        "reason": "R",
    }
    agreed = then(waiting, reviews.review(waiting, says("ben", "APPROVE"), AT, BY_DEFAULT))
    assert agreed.to_json(AT)["closed"]["override"] == "low-side"


class People(RuleBasedStateMachine):
    """People do what they like to one case; time goes on meanwhile."""

    @initialize(
        decision=st.sampled_from(["APPROVE", "REVIEW", "DECLINE"]),
        scored=st.sampled_from(["APPROVE", "REVIEW"]),
        policy=st.sampled_from([BY_DEFAULT, ALONE, TOGETHER]),
    )
    def begin(self, decision: DecisionName, scored: DecisionName, policy: ReviewPolicy) -> None:
        """The server decided."""
        self.decision = decided(decision, scored if decision == "REVIEW" else decision)
        self.policy = policy
        self.now = AT
        self.steps: list[Record] = []
        self.case = case_of(self.decision, [])

    def take(self, step: Step) -> None:
        """Put a step on record."""
        self.case = reviews.after(self.case, step.body, self.now)
        self.steps.append(
            _record(f"s-{self.case.steps}", step.kind, self.now, step.decision, step.body)
        )

    @rule(minutes=st.integers(0, 40))
    def wait(self, minutes: int) -> None:
        """Time passes."""
        self.now += minutes * MINUTE

    @rule(who=st.sampled_from(PEOPLE))
    def claim(self, who: str) -> None:
        """Somebody claims it: allowed unless others have it or it is not theirs to have."""
        before = self.case
        free = before.held_by(self.now) in {None, who}
        said = {one.reviewer for one in (before.proposal, before.dissent) if one is not None}
        theirs = who not in said
        try:
            self.take(reviews.claim(before, who, self.now, self.policy))
        except ReviewRefused:
            assert not (before.waits and free and theirs)
        else:
            assert before.waits
            assert free
            assert theirs
            assert self.case.held_by(self.now) == who

    @rule(who=st.sampled_from(PEOPLE))
    def release(self, who: str) -> None:
        """Somebody releases it: allowed to its holder."""
        holder = self.case.held_by(self.now)
        try:
            self.take(reviews.release(self.case, who, self.now))
        except ReviewRefused:
            assert holder != who
        else:
            assert holder == who
            assert self.case.held_by(self.now) is None

    @rule(who=st.sampled_from(PEOPLE), decision=st.sampled_from(["APPROVE", "DECLINE"]))
    def review(self, who: str, decision: PersonsDecision) -> None:
        """Somebody decides it: a claim of others holds, and no one person overrides."""
        before = self.case
        try:
            step = reviews.review(before, says(who, decision, f"R_{who}"), self.now, self.policy)
        except ReviewRefused:
            return
        assert before.closed is None
        assert before.held_by(self.now) in {None, who}
        self.take(step)
        assert self.case.held_by(self.now) is None
        if before.dissent is not None:
            assert before.dissent.reviewer != who
            assert self.case.closed is not None
        elif before.proposal is not None:
            assert before.proposal.reviewer != who
            assert (self.case.closed is not None) == (before.proposal.decision == decision)

    @invariant()
    def steps_are_numbered(self) -> None:
        """From 1 and without gaps; a lost race shows in this number."""
        assert [record.body["step"] for record in self.steps] == list(range(1, len(self.steps) + 1))

    @invariant()
    def the_records_come_to_the_case(self) -> None:
        """In whatever order they are read."""
        mixed = random.Random(len(self.steps)).sample(self.steps, len(self.steps))  # noqa: S311
        assert case_of(self.decision, mixed) == self.case

    @invariant()
    def the_last_word_is_one(self) -> None:
        """And it is the last record; what overrides has two people behind it by policy."""
        final = [record for record in self.steps if record.decision is not None]
        closed = self.case.closed
        if closed is None:
            assert final == []
            return
        assert final == self.steps[-1:]
        assert not self.case.waits
        people = len(set(closed.reviewers))
        assert people == len(closed.reviewers)
        verdicts = sum(record.kind == "review" for record in self.steps)
        assert verdicts <= 3
        if self.policy is TOGETHER or (self.policy is BY_DEFAULT and closed.override is not None):
            assert people == 2


TestPeople = People.TestCase
TestPeople.settings = examples(max_examples=100, stateful_step_count=25, deadline=None)
