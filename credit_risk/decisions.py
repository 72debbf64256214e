"""The use case: validate, decide, record, answer. It knows no transport.

Every call ends in evidence before it ends in an answer: a decision, a refusal (the input was
wrong) or a failure (we were) is durable first. What cannot be recorded is not decided: the caller
gets `RecordingFailed` and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from credit_risk import bodies, environment
from credit_risk.audit.records import Record, unrequested
from credit_risk.audit.records import new_id as new_id  # noqa: PLC0414 - callers have it from here
from credit_risk.errors import (
    ApplicationInvalid,
    DeadlineExceeded,
    FieldError,
    Overloaded,
    RecordingFailed,
)
from credit_risk.schema import given_again, pointer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from credit_risk.audit.records import Alongside, AuditLog, RecordKind
    from credit_risk.batching import Batcher
    from credit_risk.canary import Canary
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision

logger = logging.getLogger(__name__)

RECORDED_INPUT_MAX = 16_384
"""A refused body is kept whole up to this many bytes, and by its length and digest beyond."""
RESERVE = 0.2
"""Share of a deadline kept for putting on record that it was missed."""
RESERVE_LEAST = 0.25
"""Seconds: so long that takes where the share is less; being on record matters more than haste."""
TIME_SHARE = 0.5
"""Of the time there is, so much is a challenger's; the rest is left for the champion."""
TURN_ROWS = 64
"""Rows handled before others on the event loop have their turn."""

T = TypeVar("T")
_NO_MARK: Mapping[str, str] = {}
_NOT_TRIED = (None, _NO_MARK)
Keep: TypeAlias = "Callable[[dict[str, Any]], Awaitable[Alongside]]"
"""Takes what is about to be answered; gives what is to be in the transaction of its records."""


class Observer(Protocol):
    """Who counts what happens. Called on the request path, so it must be quick and never fail."""

    def decided(
        self,
        package: ModelPackage,
        applications: Sequence[Application],
        decisions: Sequence[Decision],
    ) -> None:
        """The decisions were recorded; each is about the application of the same place."""

    def refused(self, package: ModelPackage, refusals: Sequence[Sequence[FieldError]]) -> None:
        """It was recorded that applications were refused; what was wrong with each."""

    def recorded(self, kind: RecordKind, number: int) -> None:
        """So many records were made durable."""

    def tried(self, challenger: ModelPackage, decided: int, failed: int) -> None:
        """Of a canary's applications so many were decided, and so many left to the champion."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as the use case sees it.

    ``received`` is `time.perf_counter` when the first byte was seen; ``at`` microseconds since
    the epoch. ``stages`` are those passed so far, each with the `time.perf_counter` of its end.
    ``trace`` is whatever the transport follows the request by. ``kept_as`` is the place that the
    answer is kept at, where the request has an idempotency key.
    """

    operation: str
    request_id: str
    trace: object | None = None
    received: float = field(default_factory=time.perf_counter)
    at: int = field(default_factory=lambda: time.time_ns() // 1_000)
    stages: list[tuple[str, float]] = field(default_factory=list)
    kept_as: str | None = None

    def passed(self, stage: str) -> None:
        """A stage ends now."""
        self.stages.append((stage, time.perf_counter()))

    @property
    def latency_ms(self) -> float:
        """Milliseconds since the request was received."""
        return round((time.perf_counter() - self.received) * 1_000.0, 3)


@dataclass(frozen=True, slots=True)
class Problem:
    """What a refusal or failure was answered with: type, title, status and the places at fault."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()

    def to_json(self, record_id: str | None) -> dict[str, Any]:
        """As RFC 9457 has it; ``instance`` is the record of this occurrence, if there is one."""
        body: dict[str, Any] = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if record_id is not None:
            body["instance"] = f"urn:uuid:{record_id}"
        if self.errors:
            body["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in self.errors]
        return body


@dataclass(frozen=True, slots=True)
class Desk:
    """Decides and records, with the collaborators it was given.

    ``problem_of`` is the transport's table from errors to problems. ``deadline_seconds`` is how
    long after a request's arrival it is answered at the latest, ``batch_deadline_seconds`` the same
    for many applications.
    """

    audit: AuditLog
    batcher: Batcher
    observer: Observer
    portfolio: str
    problem_of: Callable[[Exception], Problem]
    deadline_seconds: float
    batch_deadline_seconds: float

    async def predict(
        self,
        package: ModelPackage,
        body: bytes,
        call: Call,
        *,
        explain: bool = False,
        keep: Keep | None = None,
        canary: Canary | None = None,
    ) -> dict[str, Any]:
        """Decide about one application.

        Args:
            package: what decides.
            body: the application as JSON.
            call: the request.
            explain: answer with signed contributions too.
            keep: what else to do in the transaction of the record.
            canary: what decides instead about some applicants.

        Raises:
            ApplicationInvalid: nothing is recorded yet; see `refuse`.
            Overloaded: nothing was begun, and nothing needs a record.
            ExplanationFailed: nothing is recorded yet; see `fail`.
            DeadlineExceeded: as `ExplanationFailed`; the caller gets no decision, though one may
                have reached the record in the last moment.
            RecordingFailed: the decision was not recorded, so it is none.
            Conflict: ``keep`` said so, and nothing was recorded.
        """
        application = package.schema.validate_json(body)
        call.passed("validate")
        seconds = left(call, self.deadline_seconds)
        mark: Mapping[str, str] = _NO_MARK
        if canary is not None and canary.takes(package, application):
            rows = (application,)
            (tried,) = await self._tried(canary, rows, call, seconds, explain=explain)
            mark = canary.mark(decided=tried is not None)
            seconds = left(call, self.deadline_seconds)
            if tried is not None:
                made = (canary.package, application, tried)
                return await within(seconds, self._give(*made, call, keep, mark))
        with self.batcher.admitted(package, 1, seconds):
            return await within(
                seconds,
                self._predict(package, application, call, explain=explain, keep=keep, mark=mark),
            )

    async def predict_batch(
        self,
        package: ModelPackage,
        body: bytes,
        call: Call,
        rows_max: int,
        *,
        keep: Keep | None = None,
        canary: Canary | None = None,
    ) -> dict[str, Any]:
        """Decide about many applications; a bad one is refused alone, and so it fails.

        Args:
            package: what decides.
            body: ``{"applications": [...]}``, one or more.
            call: the request.
            rows_max: most applications allowed.
            keep: what else to do in the transaction of the records.
            canary: what decides instead about some of them.

        Returns:
            The results in order of the applications, each a decision or a problem.

        Raises:
            ApplicationInvalid: the body as a whole is wrong.
            Overloaded: as `predict`.
            DeadlineExceeded: as `predict`, for all rows.
            RecordingFailed: nothing was recorded, so nothing is decided.
            Conflict: as `predict`.
        """
        rows = _batch(body, rows_max)
        seconds = left(call, self.batch_deadline_seconds)
        with self.batcher.admitted(package, len(rows), seconds):
            work = self._predict_batch(package, rows, call, seconds, keep=keep, canary=canary)
            return await within(seconds, work)

    async def _predict(
        self,
        package: ModelPackage,
        application: Application,
        call: Call,
        *,
        explain: bool,
        keep: Keep | None,
        mark: Mapping[str, str],
    ) -> dict[str, Any]:
        (decision,) = await self.batcher.decide(package, (application,), explain=explain, call=call)
        if isinstance(decision, Exception):
            raise decision
        return await self._give(package, application, decision, call, keep, mark)

    async def _give(  # noqa: PLR0917 - what a decision is
        self,
        package: ModelPackage,
        application: Application,
        decision: Decision,
        call: Call,
        keep: Keep | None,
        mark: Mapping[str, str],
    ) -> dict[str, Any]:
        """Put a decision on record; the answer."""
        decision_id = new_id()
        record = decision_record(
            package, decision_id, application, decision, call, latency_ms=call.latency_ms, mark=mark
        )
        answered = answer(package, decision_id, decision)
        await self._record([record], answered, keep)
        call.passed("record")
        self.observer.decided(package, (application,), (decision,))
        return answered

    async def _tried(
        self,
        canary: Canary,
        applications: Sequence[Application],
        call: Call,
        seconds: float,
        *,
        explain: bool = False,
    ) -> list[Decision | None]:
        """The challenger's decisions in its part of the time; None where it has none."""
        batcher, package = canary.batcher, canary.package
        seconds *= TIME_SHARE
        results: Sequence[Decision | Exception]
        try:
            with batcher.admitted(package, len(applications), seconds):
                deciding = batcher.decide(package, applications, explain=explain, call=call)
                results = await within(seconds, deciding)
        except (Overloaded, DeadlineExceeded) as error:
            results = [error] * len(applications)
        tried = [None if isinstance(result, Exception) else result for result in results]
        failed = [result for result in results if isinstance(result, Exception)]
        if len(failed) < len(tried):
            canary.trials.went_well()
        elif not isinstance(failed[0], Overloaded):  # that is the traffic's doing
            canary.trials.went_wrong(failed[0])
        if failed:
            logger.error(
                "request %s: challenger %s failed for %d applications, which the champion decides",
                *(call.request_id, package.version, len(failed)),
                exc_info=failed[0],
            )
        self.observer.tried(package, len(tried) - len(failed), len(failed))
        return tried

    async def _predict_batch(
        self,
        package: ModelPackage,
        rows: list[Any],
        call: Call,
        seconds: float,
        *,
        keep: Keep | None,
        canary: Canary | None,
    ) -> dict[str, Any]:
        valid, invalid = await _checked(package, rows)
        call.passed("validate")
        tried = await self._by_challenger(canary, package, valid, call, seconds)
        theirs = {i: one for i, (one, _) in tried.items() if one is not None}
        rest = [i for i in valid if i not in theirs]
        scored = await self.batcher.decide(package, [valid[i] for i in rest], call=call)
        failed = [result for result in scored if isinstance(result, Exception)]
        if failed and len(failed) == len(scored):
            raise failed[0]  # not a row that is odd, but a model that is broken
        results: dict[int, Decision | Exception] = {**invalid, **theirs}
        results |= zip(rest, scored, strict=True)
        challenger = package if canary is None else canary.package
        latency_ms = call.latency_ms
        records: list[Record] = []
        answers: list[dict[str, Any]] = []
        async for turn in _turns(len(rows)):
            for i in turn:
                record_id, result = new_id(), results[i]
                if isinstance(result, Exception):
                    kind, problem = self._problem_of_row(i, result, call)
                    record = self._problem_record(
                        kind, record_id, problem, call, rows[i], package, row=i
                    )
                    answers.append({"problem": problem.to_json(record_id)})
                else:
                    by = challenger if i in theirs else package
                    _, mark = tried.get(i, _NOT_TRIED)
                    record = decision_record(
                        *(by, record_id, valid[i], result, call),
                        latency_ms=latency_ms,
                        row=i,
                        mark=mark,
                    )
                    answers.append(answer(by, record_id, result))
                records.append(record)
        kinds = Counter(record.kind for record in records)
        answered = {
            "portfolio": package.portfolio,
            "model_version": package.version,
            "policy_version": package.policy_version,
            "rows": len(rows),
            "decided": kinds["decision"],
            "refused": kinds["refusal"],
            "failed": kinds["failure"],
            "results": answers,
        }
        await self._record(records, answered, keep)
        call.passed("record")
        if invalid:
            self.observer.refused(package, [error.errors for error in invalid.values()])
        decided = {i: one for i, one in results.items() if not isinstance(one, Exception)}
        for by, places in (
            (package, [i for i in decided if i not in theirs]),
            (challenger, list(theirs)),
        ):
            if places:
                some = [valid[i] for i in places], [decided[i] for i in places]
                self.observer.decided(by, *some)
        return answered

    async def _by_challenger(
        self,
        canary: Canary | None,
        champion: ModelPackage,
        valid: Mapping[int, Application],
        call: Call,
        seconds: float,
    ) -> dict[int, tuple[Decision | None, Mapping[str, str]]]:
        """By row, what a canary's challenger decided, if it did, and what the record says of it."""
        if canary is None:
            return {}
        taken = [i for i, one in valid.items() if canary.takes(champion, one)]
        if not taken:
            return {}
        tried = await self._tried(canary, [valid[i] for i in taken], call, seconds)
        return {
            i: (one, canary.mark(decided=one is not None))
            for i, one in zip(taken, tried, strict=True)
        }

    def _problem_of_row(self, row: int, error: Exception, call: Call) -> tuple[RecordKind, Problem]:
        if isinstance(error, ApplicationInvalid):
            places = (FieldError(f"/applications/{row}{e.pointer}", e.detail) for e in error.errors)
            return "refusal", self.problem_of(ApplicationInvalid(tuple(places)))
        logger.error("request %s failed in row %d", call.request_id, row, exc_info=error)
        return "failure", self.problem_of(error)

    async def refuse(
        self,
        problem: Problem,
        body: bytes | None,
        call: Call,
        package: ModelPackage | None,
        *,
        keep: Keep | None = None,
    ) -> dict[str, Any]:
        """Record that a call was refused; returns the problem to answer with.

        ``body`` is None where it was not read to its end; for ``keep`` see `predict`.

        Raises:
            RecordingFailed: it was not recorded.
            Conflict: as `predict`.
        """
        answered = await self._record_problem("refusal", problem, body, call, package, keep)
        if package is not None and problem.errors:
            self.observer.refused(package, (problem.errors,))
        return answered

    async def fail(
        self, problem: Problem, body: bytes | None, call: Call, package: ModelPackage | None
    ) -> dict[str, Any]:
        """Record that a call failed for a fault of ours; returns the problem to answer with.

        Raises:
            RecordingFailed: it was not recorded.
        """
        return await self._record_problem("failure", problem, body, call, package)

    async def _record_problem(  # noqa: PLR0917 - what a record holds
        self,
        kind: RecordKind,
        problem: Problem,
        body: bytes | None,
        call: Call,
        package: ModelPackage | None,
        keep: Keep | None = None,
    ) -> dict[str, Any]:
        record_id = new_id()
        kept = None if body is None else _kept(body)
        record = self._problem_record(kind, record_id, problem, call, kept, package)
        answered = problem.to_json(record_id)
        try:
            seconds = max(self.deadline_seconds * RESERVE, RESERVE_LEAST)
            await within(seconds, self._record([record], answered, keep))
        except DeadlineExceeded as error:
            raise RecordingFailed("the record database does not answer") from error
        return answered

    def _problem_record(  # noqa: PLR0917 - what a record holds
        self,
        kind: RecordKind,
        record_id: str,
        problem: Problem,
        call: Call,
        given: object,
        package: ModelPackage | None,
        row: int | None = None,
    ) -> Record:
        answered = problem.to_json(record_id)
        personal = {"input": given}
        # A place may be a name that the caller made up, and so whatever somebody typed there.
        if "errors" in answered:
            personal["errors"] = answered.pop("errors")
        return Record(
            id=record_id,
            kind=kind,
            time=call.at,
            portfolio=self.portfolio,
            request_id=call.request_id,
            model_version=None if package is None else package.version,
            policy_version=None if package is None else package.policy_version,
            decision=None,
            status=problem.status,
            body={
                "operation": call.operation,
                "row": row,
                "problem": answered,
                "latency_ms": call.latency_ms,
                **_kept_as(call),
            },
            personal=personal,
        )

    async def _record(
        self, records: list[Record], answered: dict[str, Any], keep: Keep | None
    ) -> None:
        """Make the records durable, and with them what ``keep`` makes of the answer."""
        alongside = None if keep is None else await keep(answered)
        await self.audit.record(records, alongside=alongside)
        kinds = Counter(record.kind for record in records)
        for kind, number in kinds.items():
            self.observer.recorded(kind, number)


def left(call: Call, seconds: float) -> float:
    """What is left of a deadline, seconds, without the reserve; 0 or less if nothing is."""
    return seconds * (1.0 - RESERVE) - (time.perf_counter() - call.received)


async def within(seconds: float, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled if it takes longer.

    Raises:
        DeadlineExceeded: it did.
    """
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlineExceeded("the answer was not ready in time") from error


async def _turns(rows: int) -> AsyncIterator[range]:
    """The numbers of the rows, a few at a time; others on the event loop go between."""
    for start in range(0, rows, TURN_ROWS):
        if start:
            await asyncio.sleep(0)
        yield range(start, min(start + TURN_ROWS, rows))


async def _checked(
    package: ModelPackage, rows: Sequence[Any]
) -> tuple[dict[int, Application], dict[int, ApplicationInvalid]]:
    """The applications among the rows of a call, and what is wrong with the others."""
    valid: dict[int, Application] = {}
    invalid: dict[int, ApplicationInvalid] = {}
    async for turn in _turns(len(rows)):
        checked = package.schema.validate_applications(rows[turn.start : turn.stop])
        for i, row in zip(turn, checked, strict=True):
            if isinstance(row, ApplicationInvalid):
                invalid[i] = row
            else:
                valid[i] = row
    return valid, invalid


def answer(package: ModelPackage, decision_id: str, decision: Decision) -> dict[str, Any]:
    """A decision as the caller gets it."""
    outcome = decision.outcome
    result: dict[str, Any] = {
        "decision_id": decision_id,
        "portfolio": package.portfolio,
        "probability_of_default": decision.probability_of_default,
        "prediction": outcome.prediction,
        "risk_band": outcome.band,
        "decision": outcome.decision,
        "reasons": [{"code": r.code, "text": r.text} for r in decision.reasons],
        "model_version": package.version,
        "policy_version": package.policy_version,
    }
    if decision.explanation is not None:
        titles = {f.name: (f.title, f.reason) for f in package.schema.fields}
        ranked = sorted(decision.explanation.contributions.items(), key=lambda item: -abs(item[1]))
        result["rules"] = [rule.name for rule in outcome.rules]
        result["explanation"] = {
            "unit": "log-odds of default",
            "method": package.model.method,
            "base_value": decision.explanation.base_value,
            "log_odds": decision.log_odds,
            "contributions": [
                {
                    "field": name,
                    "title": titles[name][0],
                    "reason_code": titles[name][1],
                    "contribution": contribution,
                }
                for name, contribution in ranked
            ],
            "reasons": [
                {"code": r.code, "fields": list(r.fields), "contribution": r.contribution}
                for r in decision.reasons
            ],
            "reference_group": _reference(package),
        }
    return result


def _reference(package: ModelPackage) -> dict[str, Any]:
    group = package.provenance.reference
    return {
        "name": group.name,
        "description": group.description,
        "rows": group.rows,
        "rows_used": package.model.reference_rows,
        "sha256": package.digests["reference.npz"],
    }


def evidence(package: ModelPackage, decision: Decision) -> dict[str, Any]:
    """What a record holds of a decision: digests of all that decided, and all that was answered."""
    outcome = decision.outcome
    return {
        **package.parts_sha256,
        "environment_sha256": environment.here().sha256,
        "probability_of_default": decision.probability_of_default,
        "log_odds": decision.log_odds,
        "risk_band": outcome.band,
        "prediction": outcome.prediction,
        "scored_decision": outcome.scored,
        "rules": [rule.name for rule in outcome.rules],
        "reasons": [
            {"code": r.code, "fields": list(r.fields), "contribution": r.contribution}
            for r in decision.reasons
        ],
    }


def start_record(package: ModelPackage) -> Record:
    """The record of a worker's start: what it decides with, and the environment it decides in.

    Decisions name the environment by its digest alone; the listing is here.
    """
    here = environment.here()
    return unrequested(
        "start",
        package.portfolio,
        {
            "package_sha256": package.digest,
            "environment": here.listing,
            "environment_sha256": here.sha256,
        },
        model_version=package.version,
        policy_version=package.policy_version,
    )


def decision_record(
    package: ModelPackage,
    decision_id: str,
    application: Application,
    decision: Decision,
    call: Call,
    *,
    latency_ms: float,
    row: int | None = None,
    mark: Mapping[str, str] | None = None,
) -> Record:
    """The record of a decision about an application, ``row`` of a call where there were more.

    ``mark`` is what it says of a canary.
    """
    return Record(
        id=decision_id,
        kind="decision",
        time=call.at,
        portfolio=package.portfolio,
        request_id=call.request_id,
        model_version=package.version,
        policy_version=package.policy_version,
        decision=decision.outcome.decision,
        status=200,
        body={
            "operation": call.operation,
            "row": row,
            **evidence(package, decision),
            "latency_ms": latency_ms,
            **(mark or _NO_MARK),
            **_kept_as(call),
        },
        personal={"input": application},
    )


def _kept_as(call: Call) -> dict[str, str]:
    """Where the answer is kept, for who has to take it away with what it tells of."""
    return {} if call.kept_as is None else {"kept_as": call.kept_as}


def _batch(body: bytes, rows_max: int) -> list[Any]:
    """The applications of a batch body, not yet checked.

    Raises:
        ApplicationInvalid: not JSON, not of that shape, none, or more than ``rows_max``.
    """
    errors: list[FieldError] = []
    try:
        document = bodies.parse(body)
    except ValueError as error:
        raise ApplicationInvalid((FieldError("", bodies.fault(str(error))),)) from None
    if isinstance(document, bodies.Repeating):
        errors += given_again(document.repeated)
        document = dict(document)
    if not isinstance(document, dict):
        raise ApplicationInvalid((FieldError("", "Input should be an object"),))
    errors += [
        FieldError(pointer((name,)), "Unknown field") for name in document if name != "applications"
    ]
    rows = document.get("applications")
    if "applications" not in document:
        errors.append(FieldError("/applications", "Field required"))
    elif not isinstance(rows, list):
        errors.append(FieldError("/applications", "Input should be an array"))
    elif not 1 <= len(rows) <= rows_max:
        errors.append(FieldError("/applications", f"Input should hold 1 to {rows_max} rows"))
    if errors or not isinstance(rows, list):
        raise ApplicationInvalid(tuple(errors))
    return rows


def _kept(body: bytes) -> object:
    """What is recorded of a refused body: itself when it is small JSON, else what it was.

    An object that gives a name more than once is recorded as the list of its members.
    """
    if len(body) <= RECORDED_INPUT_MAX:
        try:
            return bodies.parse(body)
        except ValueError:
            pass
    return {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
