"""What a notice of adverse action needs, from the record of the decision and the regime in force.

The reasons are those on record, in the wording of the reason dictionary that was in force for the
decision: that of the package that decided. There is no other wording to fall back to. Which
component decided goes with them: the score, a rule, or a reviewer. After a reviewer's decline both
speak, the reviewer and what the model and the rules had to say (official interpretation of
12 CFR 1002.9(b)(2)).

While people are at a decline, its notice waits for them, but no longer than the regime's days: on
the last of these the decline on record is what the applicant is told, as the law has it whatever
people go on to do.

What it makes is data for the lender's notice, not the notice: the lender fills the placeholders of
the statements, and sends it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from credit_risk.audit.records import instant, moment, read
from credit_risk.errors import NotAdverse, NoticeImpossible

if TYPE_CHECKING:
    from datetime import date

    from credit_risk.audit.records import Record
    from credit_risk.package import Wordings
    from credit_risk.regimes import Notification, Regime
    from credit_risk.reviews import Case, Closing

Component = Literal["reviewer", "rule", "score"]


class _Principal(NamedTuple):
    code: str
    text: str
    component: Component


def check_adverse(record: Record, case: Case, rule: Notification, now: int) -> None:
    """Refuse what is no adverse decision.

    Args:
        record: the decision.
        case: what people did about it so far.
        rule: until when applicants are to be told.
        now: when, microseconds since the epoch.

    Raises:
        NotAdverse: approved, approved by a reviewer, or somebody has yet to decide: an applicant
            is not told of a decline that people are about to undo, unless it is the last day.
    """
    closing = case.closed
    if case.waits:
        undecided = record.decision == "REVIEW" and rule.counted_from == "decision"
        told_by = None if undecided else _deadline(record.time, rule)
        if record.decision == "DECLINE" and told_by is not None and instant(now).date() >= told_by:
            return
        until = "" if told_by is None else f"; the applicant is to be told by {told_by.isoformat()}"
        raise NotAdverse(f"{_wanted(case)}{until}")
    decision = record.decision if closing is None else closing.decision
    if decision != "DECLINE":
        by = "" if closing is None else ", by a reviewer"
        raise NotAdverse(f"The decision is {decision}{by}: there is nothing adverse to tell")


def _wanted(case: Case) -> str:
    """What a case waits for, in words."""
    if case.dissent is not None:
        return "Two people do not agree: a third has to decide"
    if case.proposal is not None:
        return f"{case.proposal.decision} is proposed: a second person has to agree or not"
    of = "The decision is REVIEW" if case.made == "REVIEW" else "The decision is under review"
    return f"{of}: a person has to decide first"


def notice(
    record: Record, case: Case, wordings: Wordings, regime: Regime, now: int
) -> dict[str, Any]:
    """The data of the notice, as JSON.

    Args:
        record: the decision.
        case: what people did about it so far.
        wordings: the approved wording of the package that decided.
        regime: the law to go by.
        now: when, microseconds since the epoch.

    Raises:
        NotAdverse: see `check_adverse`.
        NoticeImpossible: the wording is not that of the decision, lacks a reason, or has what the
            regime forbids; or no reason is on record.
        EvidenceInvalid: the record does not say what that of a decision says.
    """
    check_adverse(record, case, regime.notification, now)
    closing = case.closed
    with read(record.id, record.kind):
        if wordings.reasons_sha256 != record.body["reasons_sha256"]:
            raise NoticeImpossible(
                f"The reasons of package {record.model_version} are not those in force for the "
                "decision"
            )
        reasons = _principal(record, closing, wordings)[: regime.most_reasons.number]
        components = _decided_by(record, closing)
    if not reasons:
        raise NoticeImpossible("No reason is on record for the decision")
    for reason in reasons:
        forbidden = regime.forbidden_in(reason.text)
        if forbidden is not None:
            raise NoticeImpossible(
                f"The wording of reason {reason.code} has what regime {regime.id} forbids: "
                f"{forbidden!r}"
            )
    return {
        "decision_id": record.id,
        "portfolio": record.portfolio,
        "decision": "DECLINE",
        "decided_by": components,
        "principal_reasons": [reason._asdict() for reason in reasons],
        "notification": _notification(record, closing, regime.notification),
        "personal_data": record.withheld or "kept",
        "review": None if closing is None else closing.to_json(),
        "under_review": case.waits,
        "statements": [
            {
                "id": statement.id,
                "text": statement.text,
                "placeholders": statement.placeholders,
                "when": statement.when,
            }
            for statement in regime.statements
        ],
        "model_version": record.model_version,
        "policy_version": record.policy_version,
        "reasons": {"version": wordings.reasons.version, "sha256": wordings.reasons_sha256},
        "regime": {
            "id": regime.id,
            "version": regime.version,
            "title": regime.title,
            "as_of": regime.as_of.isoformat(),
            "sha256": regime.sha256,
            "caveat": regime.caveat,
            "sources": [source.model_dump() for source in regime.sources],
            "record_retention_months": regime.record_retention.months,
        },
    }


def _decided_by(record: Record, closing: Closing | None) -> list[Component]:
    """The components that called for the decline, the last word first."""
    components: list[Component] = [] if closing is None else ["reviewer"]
    # An approval that a reviewer turned into a decline: neither score nor rule called for that.
    if record.decision != "APPROVE":
        if record.body["rules"]:
            components.append("rule")
        if record.body["scored_decision"] == record.decision:
            components.append("score")
    return components


def _principal(record: Record, closing: Closing | None, wordings: Wordings) -> list[_Principal]:
    """The reasons in approved wording: the reviewer's first, then the rules', then the score's."""
    given: list[tuple[str, Component]] = []
    if closing is not None:
        given += ((code, "reviewer") for code in closing.reasons)
    given += (
        (reason["code"], "rule" if reason["contribution"] is None else "score")
        for reason in record.body["reasons"]
    )
    texts = wordings.review_texts("DECLINE")
    principal: dict[str, _Principal] = {}
    for code, component in given:
        if code not in texts:
            raise NoticeImpossible(
                f"Reason {code} has no approved wording in package {record.model_version}"
            )
        principal.setdefault(code, _Principal(code, texts[code], component))
    return list(principal.values())


def _notification(record: Record, closing: Closing | None, rule: Notification) -> dict[str, Any]:
    """Until when the applicant is to be told; days are those of UTC."""
    at = record.time
    if rule.counted_from == "decision" and closing is not None:
        at = closing.time
    deadline = _deadline(at, rule)
    return {
        "counted_from": rule.counted_from,
        "from": moment(at),
        "days": rule.days,
        "deadline": None if deadline is None else deadline.isoformat(),
        "words": rule.words,
    }


def _deadline(at: int, rule: Notification) -> date | None:
    """The last day to tell an applicant, counted from that time; None where no number is set."""
    return None if rule.days is None else (instant(at) + timedelta(days=rule.days)).date()
