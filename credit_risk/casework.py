"""Case work: people's claims and reviews put on record, the queue, and how often they override.

The rules are in `credit_risk.reviews`; here a step is read, judged and recorded. Two people who
act on one case at the same time are told apart by the database: one step is the next one, and the
other is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, get_args

from credit_risk import reviews
from credit_risk.audit import queue
from credit_risk.audit.records import Record, every, moment, read
from credit_risk.decisions import new_id
from credit_risk.errors import (
    Conflict,
    FieldError,
    RecordNotFound,
    RequestInvalid,
    ReviewRefused,
)
from credit_risk.policy import DecisionName
from credit_risk.reviews import Case, case_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.audit.log import SqlAuditLog, SqlRecords
    from credit_risk.audit.queue import WaitingState
    from credit_risk.audit.records import Filters, RecordKind
    from credit_risk.decisions import Call
    from credit_risk.package import Wordings
    from credit_risk.reviews import Closing, Step, Verdict

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class CaseObserver(Protocol):
    """Who counts. Called on the request path, so it must be quick and never fail."""

    def recorded(self, kind: RecordKind, number: int) -> None:
        """So many records were made durable."""

    def reviewed(self, portfolio: str, closing: Closing) -> None:
        """A review was closed."""


@dataclass(frozen=True, slots=True)
class Casework:
    """Takes people's steps, with the collaborators it was given.

    ``wordings`` gives the words of a package by its version; see `credit_risk.package.wordings`.
    Methods that are not coroutines wait for the database and are for other threads than the event
    loop's.
    """

    audit: SqlAuditLog
    wordings: Callable[[str], Wordings]
    observer: CaseObserver
    portfolio: str

    def decision(self, decision_id: str) -> Record:
        """The record of a decision of this portfolio.

        Raises:
            RecordNotFound: there is none of that id, or it is of something else.
            RecordExpired: retention has taken it.
        """
        if not _UUID.fullmatch(decision_id):
            raise RecordNotFound("no record has such an id")
        record = self.audit.get(decision_id)
        if record.kind != "decision" or record.portfolio != self.portfolio:
            raise RecordNotFound("no decision of this portfolio has the id")
        return record

    def case(self, decision: Record) -> Case:
        """The case of a decision as it stands on record."""
        return case_of(decision, self._steps(decision.id))

    def story(self, decision_id: str, now: int) -> dict[str, Any]:
        """The case of a decision with every step in it, notes included, as JSON.

        Raises:
            RecordNotFound: see `decision`, and so `RecordExpired`.
        """
        decision = self.decision(decision_id)
        steps = self._steps(decision.id)
        return case_of(decision, steps).to_json(now) | {"steps": [_told(step) for step in steps]}

    def _steps(self, decision_id: str) -> list[Record]:
        """The records of claims and reviews of a decision, the first one first."""
        about = every(self.audit, about=decision_id)
        steps = [record for record in about if record.kind in get_args(reviews.Kind)]
        return sorted(steps, key=reviews.number)

    async def claim(self, decision_id: str, reviewer: str, call: Call) -> Case:
        """Keep others off a case for the time that policy gives.

        Raises:
            RecordNotFound: see `decision`.
            ReviewRefused: see `credit_risk.reviews.claim`; or somebody else was first.
            PackageNotFound: the package that decided, and with it its policy, is gone.
            RecordingFailed: nothing is known to have been recorded.
        """
        decision, case, words = await asyncio.to_thread(self._read, decision_id)
        step = reviews.claim(case, reviewer, call.at, words.policy.review)
        return await self._take(step, case, decision, call)

    async def release(self, decision_id: str, reviewer: str, call: Call) -> Case:
        """Let others have a case again; raises as `claim`."""
        decision, case, _ = await asyncio.to_thread(self._read, decision_id)
        return await self._take(reviews.release(case, reviewer, call.at), case, decision, call)

    async def review(self, decision_id: str, verdict: Verdict, call: Call) -> Case:
        """Decide a case, or take the step towards it that policy wants.

        Raises:
            RequestInvalid: the reason is none that is approved for this decision.
            RecordNotFound: as `claim`, and so the others.
        """
        decision, case, words = await asyncio.to_thread(self._read, decision_id)
        if verdict.reason not in words.review_texts(verdict.decision):
            fault = FieldError("/reason", "Not an approved reason for this decision")
            raise RequestInvalid((fault,))
        step = reviews.review(case, verdict, call.at, words.policy.review)
        return await self._take(step, case, decision, call)

    def _read(self, decision_id: str) -> tuple[Record, Case, Wordings]:
        decision = self.decision(decision_id)
        return decision, self.case(decision), self.wordings(str(decision.model_version))

    async def _take(self, step: Step, case: Case, decision: Record, call: Call) -> Case:
        """Record the step; returns the case after it."""
        after = reviews.after(case, step.body, call.at)
        record = Record(
            id=new_id(),
            kind=step.kind,
            time=call.at,
            portfolio=decision.portfolio,
            request_id=call.request_id,
            model_version=decision.model_version,
            policy_version=decision.policy_version,
            decision=step.decision,
            status=200,
            body=step.body,
            personal=None if step.note is None else {"note": step.note},
            about=decision.id,
        )
        try:
            await self.audit.record([record], alongside=queue.keep(after))
        except Conflict as error:
            raise ReviewRefused("Somebody else took a step in this case meanwhile") from error
        self.observer.recorded(step.kind, 1)
        if after.closed is not None:
            self.observer.reviewed(decision.portfolio, after.closed)
        return after


def _told(step: Record) -> dict[str, Any]:
    """A step as JSON, its note included."""
    with read(step.id, step.kind):
        return {
            "record": step.id,
            "time": moment(step.time),
            "action": step.body["action"],
            "reviewer": step.body["reviewer"],
            "decision": step.body.get("decision"),
            "reason": step.body.get("reason"),
            "note": None if step.personal is None else step.personal["note"],
        }


def waiting(
    records: SqlRecords,
    portfolio: str,
    now: int,
    *,
    state: WaitingState | None = None,
    after: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The cases that wait, those decided first at the beginning, as JSON.

    Args:
        records: where.
        portfolio: whose decisions.
        now: when, microseconds since the epoch.
        state: only those in it.
        after: continue behind the decision of this id, the last of the page before.
        limit: at most so many.

    Raises:
        RecordNotFound: there is no decision ``after``.
        RecordingFailed: the database fails.
    """
    with records.reading() as connection:
        place = None
        if after is not None:
            place = queue.place(connection, after) if _UUID.fullmatch(after) else None
            if place is None:
                raise RecordNotFound("no decision on record has the id")
        found = queue.waiting(connection, portfolio, now, state=state, after=place, limit=limit)
    # Told as the case itself would be; what the server decided is in the record of the decision.
    told = ("decision_id", "decided", "state", "holder", "until", "proposal", "dissent")
    rows = []
    for row in found:
        case = Case(
            decision_id=row.decision_id,
            portfolio=portfolio,
            time=row.time,
            made="REVIEW",
            scored="REVIEW",
            holder=row.holder,
            until=row.until,
            proposal=row.proposal,
            dissent=row.dissent,
        ).to_json(now)
        rows.append({name: case[name] for name in told})
    return rows


def number_waiting(records: SqlRecords, portfolio: str) -> int:
    """How many cases wait.

    Raises:
        RecordingFailed: the database fails.
    """
    with records.reading() as connection:
        return queue.number(connection, portfolio)


def summary(
    records: SqlRecords,
    portfolio: str,
    *,
    model_version: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> dict[str, Any]:
    """How often people overrode the server, by direction and reason, as JSON.

    A rate is the number of overrides closed in the period over the decisions of that kind that the
    server made in it: low-side over its DECLINE, high-side over its APPROVE or, where the score
    alone approved, over its REVIEW (Siddiqi, Intelligent Credit Scoring). It is None over none.

    Args:
        records: where.
        portfolio: whose decisions.
        model_version: only those of this package.
        since: from this time on, microseconds since the epoch.
        until: before this time.

    Raises:
        RecordingFailed: the database fails.
        EvidenceInvalid: a review is not as it was written.
    """
    within: Filters = {
        "portfolio": portfolio,
        "model_version": model_version,
        "since": since,
        "until": until,
    }
    made = {
        name: records.count(**(within | {"kind": "decision", "decision": name}))
        for name in get_args(DecisionName)
    }
    actions: Counter[str] = Counter()
    closed: Counter[str] = Counter()
    overrides: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    steps = every(records, **(within | {"kind": "review"}))
    for step in steps:
        with read(step.id, step.kind):
            body = step.body
            actions[body["action"]] += 1
            if body["action"] == "close":
                closed[body["decision"]] += 1
                if body["override"] is not None:
                    # The reason of who overrode; the second person's is on record beside it.
                    overrides[body["override"], body["reviewed"]][body["reasons"][0]] += 1
    with records.reading() as connection:
        now_waiting = queue.number(connection, portfolio, model_version)
    return {
        "portfolio": portfolio,
        "since": None if since is None else moment(since),
        "until": None if until is None else moment(until),
        "decisions": made,
        "reviews": {
            "closed": actions["close"],
            "approved": closed["APPROVE"],
            "declined": closed["DECLINE"],
            "proposed": actions["propose"],
            "returned": actions["return"],
        },
        "waiting_now": now_waiting,
        "overrides": [
            {
                "direction": direction,
                "decision": decision,
                "number": reasons.total(),
                "of": made[decision],
                "rate": reasons.total() / made[decision] if made[decision] else None,
                "reasons": dict(sorted(reasons.items())),
            }
            for (direction, decision), reasons in sorted(overrides.items())
        ],
    }
