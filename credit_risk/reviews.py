"""Human review: what people make of a decision, step by step, each step a record.

A case is one decision and what people did about it. It is not kept anywhere but in the chain: it
is what its records come to, put together by `case_of`. The steps::

    open      --claim-->    claimed    others are kept off until it is released or over
    open      --review-->   closed     or proposed, where policy wants a second person
    proposed  --review-->   closed     a second, different person agrees
    proposed  --review-->   disputed   the second person does not
    disputed  --review-->   closed     a third, different person decides

So at the latest the third person ends it, and whatever is decided then, two have said so.

Decisions of REVIEW are open from the start. Of an APPROVE or DECLINE there is a case only once
somebody overrides it.

An override is a decision of people against the server's: *low-side* where they approve what is
below the cut-off in the sense of a score, that is, where the server declined; *high-side* where
they decline what it approved (Siddiqi, Intelligent Credit Scoring, chapter on overrides). A REVIEW
is left to people by design, so deciding it is an override only against the score: a decline of
what a rule referred although the score alone approved it.

Functions here are pure: from a case and what somebody wants to the step to record, or a refusal.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from credit_risk.audit.records import moment, read
from credit_risk.errors import NotADecision, ReviewRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from credit_risk.audit.records import Record
    from credit_risk.policy import DecisionName, ReviewPolicy

PersonsDecision: TypeAlias = Literal["APPROVE", "DECLINE"]
Direction: TypeAlias = Literal["low-side", "high-side"]
State: TypeAlias = Literal["open", "claimed", "proposed", "disputed", "closed", "none"]
Kind: TypeAlias = Literal["claim", "review"]

_MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reviewer says about a case; ``reason`` is a code."""

    reviewer: str
    decision: PersonsDecision
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A verdict that waits for another person's."""

    reviewer: str
    decision: PersonsDecision
    reason: str

    def to_json(self) -> dict[str, str]:
        """As JSON."""
        return {"reviewer": self.reviewer, "decision": self.decision, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Closing:
    """How a review ended; ``reviewers`` and ``reasons`` in the order of their words."""

    decision: PersonsDecision
    reviewers: tuple[str, ...]
    reasons: tuple[str, ...]
    override: Direction | None
    time: int

    def to_json(self) -> dict[str, Any]:
        """As JSON, its time in ISO 8601."""
        return {
            "decision": self.decision,
            "reviewers": list(self.reviewers),
            "reasons": list(self.reasons),
            "override": self.override,
            "closed": moment(self.time),
        }


@dataclass(frozen=True, slots=True)
class Case:
    """A decision and what people did about it so far.

    ``made`` is what the server decided and ``scored`` what the score alone called for; ``steps``
    how many steps are on record. ``dissent`` is what a second person said against the
    ``proposal``. Times are microseconds since the epoch.
    """

    decision_id: str
    portfolio: str
    time: int
    made: DecisionName
    scored: DecisionName
    steps: int = 0
    holder: str | None = None
    until: int | None = None
    proposal: Proposal | None = None
    dissent: Proposal | None = None
    closed: Closing | None = None

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.closed is None and (self.made == "REVIEW" or self.steps > 0)

    def held_by(self, now: int) -> str | None:
        """Who keeps others off at that time, or None."""
        return self.holder if self.until is not None and now < self.until else None

    def state(self, now: int) -> State:
        """What the case waits for at that time; none where the decision is left as it is."""
        if self.closed is not None:
            return "closed"
        if not self.waits:
            return "none"
        if self.held_by(now) is not None:
            return "claimed"
        return self.step

    @property
    def step(self) -> Literal["open", "proposed", "disputed"]:
        """How far it is, whoever has claimed it."""
        if self.dissent is not None:
            return "disputed"
        return "open" if self.proposal is None else "proposed"

    def override(self, decision: PersonsDecision) -> Direction | None:
        """The direction in which deciding so would override the server, or None."""
        against = self.scored if self.made == "REVIEW" else self.made
        if against in {"REVIEW", decision}:
            return None
        return "low-side" if decision == "APPROVE" else "high-side"

    def to_json(self, now: int) -> dict[str, Any]:
        """As JSON, as it stands at that time."""
        holder = self.held_by(now)
        return {
            "decision_id": self.decision_id,
            "portfolio": self.portfolio,
            "decided": moment(self.time),
            "decision": self.made,
            "state": self.state(now),
            "holder": holder,
            "until": None if holder is None or self.until is None else moment(self.until),
            "proposal": None if self.proposal is None else self.proposal.to_json(),
            "dissent": None if self.dissent is None else self.dissent.to_json(),
            "closed": None if self.closed is None else self.closed.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be put on record: of what ``kind``, with what ``body``.

    ``decision`` is set where the step is the last word; ``note`` is personal data.
    """

    kind: Kind
    body: dict[str, Any]
    decision: PersonsDecision | None = None
    note: str | None = None


def case_of(decision: Record, steps: Iterable[Record]) -> Case:
    """The case of a decision, from its record and those of its claims and reviews in any order.

    Raises:
        NotADecision: the record is of something else.
        EvidenceInvalid: one of them does not say what a server writes there.
    """
    if decision.decision is None:
        raise NotADecision("the record is not one of a decision")
    with read(decision.id, decision.kind):
        case = Case(
            decision_id=decision.id,
            portfolio=decision.portfolio,
            time=decision.time,
            made=decision.decision,
            scored=decision.body["scored_decision"],
        )
    for record in sorted(steps, key=number):
        with read(record.id, record.kind):
            case = after(case, record.body, record.time)
    return case


def number(step: Record) -> int:
    """Which step of its case a record is, from 1.

    Raises:
        EvidenceInvalid: it does not say.
    """
    with read(step.id, step.kind):
        return int(step.body["step"])


def after(case: Case, body: dict[str, Any], time: int) -> Case:
    """The case once a step with that body is on record."""
    case = replace(case, steps=body["step"])
    action = body["action"]
    if action == "claim":
        return replace(case, holder=body["reviewer"], until=body["until"])
    case = replace(case, holder=None, until=None)
    if action == "release":
        return case
    if action in {"propose", "return"}:
        said = Proposal(body["reviewer"], body["decision"], body["reason"])
        if action == "propose":
            return replace(case, proposal=said, dissent=None)
        return replace(case, dissent=said)
    closed = Closing(
        decision=body["decision"],
        reviewers=tuple(body["reviewers"]),
        reasons=tuple(body["reasons"]),
        override=body["override"],
        time=time,
    )
    return replace(case, proposal=None, dissent=None, closed=closed)


def claim(case: Case, reviewer: str, now: int, policy: ReviewPolicy) -> Step:
    """Keep others off the case for a while; by its holder again, for longer.

    Raises:
        ReviewRefused: it waits for nobody, somebody else has it, or it waits for somebody else.
    """
    _check_open(case, reviewer, now)
    if not case.waits:
        raise ReviewRefused("The decision is not in the queue of reviews")
    until = now + policy.claim_minutes * _MINUTE
    return Step("claim", _body(case, "claim", reviewer) | {"until": until})


def release(case: Case, reviewer: str, now: int) -> Step:
    """Let others have the case.

    Raises:
        ReviewRefused: the reviewer does not hold it, or no longer.
    """
    holder = case.held_by(now)
    if holder is None or not same_person(holder, reviewer):
        raise ReviewRefused("The reviewer does not hold the case, or no longer")
    return Step("claim", _body(case, "release", reviewer))


def review(case: Case, verdict: Verdict, now: int, policy: ReviewPolicy) -> Step:
    """Decide the case, or propose to, or as the second person agree or not, or as the third decide.

    Raises:
        ReviewRefused: it is decided, somebody else holds it, the second person would be the
            first or the third one of the two, or nothing would come of it.
    """
    _check_open(case, verdict.reviewer, now)
    if not case.waits and verdict.decision == case.made:
        raise ReviewRefused(f"The decision is {case.made} already")
    override = case.override(verdict.decision)
    said_before = [one for one in (case.proposal, case.dissent) if one is not None]
    agreed = [one for one in said_before if one.decision == verdict.decision]
    wants_second = policy.second_person == "always" or (
        policy.second_person == "overrides" and override is not None
    )
    if said_before:
        action = "close" if agreed else "return"
    else:
        action = "propose" if wants_second else "close"
    said = _body(case, action, verdict.reviewer) | {
        "decision": verdict.decision,
        "reason": verdict.reason,
        "override": override,
        "reviewed": case.made,
        "scored_decision": case.scored,
        "second_person": policy.second_person,
    }
    if action != "close":
        return Step("review", said, note=verdict.note)
    said["reviewers"] = [*(one.reviewer for one in agreed), verdict.reviewer]
    said["reasons"] = list(dict.fromkeys([*(one.reason for one in agreed), verdict.reason]))
    return Step("review", said, decision=verdict.decision, note=verdict.note)


def same_person(one: str, other: str) -> bool:
    """Whether two names of accounts are one, whatever their case and their form in Unicode."""
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _check_open(case: Case, reviewer: str, now: int) -> None:
    if case.closed is not None:
        raise ReviewRefused("The review is closed")
    holder = case.held_by(now)
    if holder is not None and not same_person(holder, reviewer):
        raise ReviewRefused("Somebody else has claimed the case")
    before = [one for one in (case.proposal, case.dissent) if one is not None]
    if any(same_person(one.reviewer, reviewer) for one in before):
        which = "third" if len(before) > 1 else "second"
        raise ReviewRefused(f"The case needs a {which}, different person")


def _body(case: Case, action: str, reviewer: str) -> dict[str, Any]:
    return {"step": case.steps + 1, "action": action, "reviewer": reviewer}
