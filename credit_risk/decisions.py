"""The use case: validate, decide, record, answer. It knows no transport.

Every call ends in evidence before it ends in an answer: a decision, a refusal (the input was
wrong) or a failure (we were) is durable first. What cannot be recorded is not decided: the caller
gets `RecordingFailed` and nothing else.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pydantic_core
import uuid_utils

from credit_risk import scoring
from credit_risk.audit import Record
from credit_risk.errors import ApplicationInvalid, FieldError
from credit_risk.schema import pointer

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.audit import AuditLog, RecordKind
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision

RECORDED_INPUT_MAX = 16_384
"""A refused body is kept whole up to this many bytes, and by its length and digest beyond."""


class Observer(Protocol):
    """Who counts what happens. Called on the request path, so it must be quick and never fail."""

    def decided(self, package: ModelPackage, decision: Decision) -> None:
        """A decision was recorded."""

    def recorded(self, kind: RecordKind, number: int) -> None:
        """So many records were made durable."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as the use case sees it.

    ``received`` is `time.perf_counter` when the first byte was seen; ``at`` microseconds since
    the epoch.
    """

    operation: str
    request_id: str
    received: float = field(default_factory=time.perf_counter)
    at: int = field(default_factory=lambda: time.time_ns() // 1_000)

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


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and in order of time."""
    return str(uuid_utils.uuid7())


@dataclass(frozen=True, slots=True)
class Desk:
    """Decides and records, with the collaborators it was given.

    ``problem_of`` is the transport's table from errors to problems.
    """

    audit: AuditLog
    observer: Observer
    portfolio: str
    problem_of: Callable[[Exception], Problem]

    async def predict(
        self, package: ModelPackage, body: bytes, call: Call, *, explain: bool = False
    ) -> dict[str, Any]:
        """Decide about one application.

        Args:
            package: what decides.
            body: the application as JSON.
            call: the request.
            explain: answer with signed contributions too.

        Raises:
            ApplicationInvalid: nothing is recorded yet; see `refuse`.
            ExplanationFailed: nothing is recorded yet; see `fail`.
            RecordingFailed: the decision was not recorded, so it is none.
        """
        application = package.schema.validate_json(body)
        (decision,) = scoring.decide(package, [application], explain=explain)
        decision_id = new_id()
        await self._record([_decision_record(package, decision_id, application, decision, call)])
        self.observer.decided(package, decision)
        return answer(package, decision_id, decision)

    async def predict_batch(
        self, package: ModelPackage, body: bytes, call: Call, rows_max: int
    ) -> dict[str, Any]:
        """Decide about many applications; a bad one is refused alone.

        Args:
            package: what decides, about all of them.
            body: ``{"applications": [...]}``, one or more.
            call: the request.
            rows_max: most applications allowed.

        Returns:
            The results in order of the applications, each a decision or a problem.

        Raises:
            ApplicationInvalid: the body as a whole is wrong.
            ExplanationFailed: as `predict`; no row is decided then.
            RecordingFailed: nothing was recorded, so nothing is decided.
        """
        rows = _batch(body, rows_max)
        valid: list[tuple[int, Application]] = []
        refused: dict[int, Problem] = {}
        for i, row in enumerate(rows):
            try:
                valid.append((i, package.schema.validate_application(row)))
            except ApplicationInvalid as error:
                places = (
                    FieldError(f"/applications/{i}{e.pointer}", e.detail) for e in error.errors
                )
                refused[i] = self.problem_of(ApplicationInvalid(tuple(places)))
        decided = scoring.decide(package, [application for _, application in valid])
        ids = [new_id() for _ in rows]
        records: list[Record] = [
            _decision_record(package, ids[i], application, decision, call, row=i)
            for (i, application), decision in zip(valid, decided, strict=True)
        ]
        records += [
            self._problem_record("refusal", ids[i], problem, call, rows[i], package, row=i)
            for i, problem in refused.items()
        ]
        await self._record(records)
        results: list[Any] = [None] * len(rows)
        for (i, _), decision in zip(valid, decided, strict=True):
            self.observer.decided(package, decision)
            results[i] = answer(package, ids[i], decision)
        for i, problem in refused.items():
            results[i] = {"problem": problem.to_json(ids[i])}
        return {
            "portfolio": package.portfolio,
            "model_version": package.version,
            "policy_version": package.policy_version,
            "rows": len(rows),
            "decided": len(decided),
            "refused": len(refused),
            "results": results,
        }

    async def refuse(
        self, problem: Problem, body: bytes | None, call: Call, package: ModelPackage | None
    ) -> dict[str, Any]:
        """Record that a call was refused; returns the problem to answer with.

        ``body`` is None where it was not read to its end.

        Raises:
            RecordingFailed: it was not recorded.
        """
        return await self._record_problem("refusal", problem, body, call, package)

    async def fail(
        self, problem: Problem, body: bytes | None, call: Call, package: ModelPackage | None
    ) -> dict[str, Any]:
        """Record that a call failed for a fault of ours; returns the problem to answer with.

        Raises:
            RecordingFailed: it was not recorded.
        """
        return await self._record_problem("failure", problem, body, call, package)

    async def _record_problem(
        self,
        kind: RecordKind,
        problem: Problem,
        body: bytes | None,
        call: Call,
        package: ModelPackage | None,
    ) -> dict[str, Any]:
        record_id = new_id()
        kept = None if body is None else _kept(body)
        await self._record([self._problem_record(kind, record_id, problem, call, kept, package)])
        return problem.to_json(record_id)

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
                "input": given,
                "problem": problem.to_json(record_id),
                "latency_ms": call.latency_ms,
            },
        )

    async def _record(self, records: list[Record]) -> None:
        await self.audit.record(records)
        for kind, number in Counter(record.kind for record in records).items():
            self.observer.recorded(kind, number)


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
        "sha256": package.digests["reference.npz"],
    }


def _decision_record(
    package: ModelPackage,
    decision_id: str,
    application: Application,
    decision: Decision,
    call: Call,
    *,
    row: int | None = None,
) -> Record:
    outcome = decision.outcome
    return Record(
        id=decision_id,
        kind="decision",
        time=call.at,
        portfolio=package.portfolio,
        request_id=call.request_id,
        model_version=package.version,
        policy_version=package.policy_version,
        decision=outcome.decision,
        status=200,
        body={
            "operation": call.operation,
            "row": row,
            "input": application,
            "package_sha256": package.digest,
            "schema_sha256": package.digests["schema.yaml"],
            "policy_sha256": package.digests["policy.yaml"],
            "reasons_sha256": package.digests["reasons.yaml"],
            "reference_sha256": package.digests["reference.npz"],
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
            "latency_ms": call.latency_ms,
        },
    )


def _batch(body: bytes, rows_max: int) -> list[Any]:
    """The applications of a batch body, not yet checked.

    Raises:
        ApplicationInvalid: not JSON, not of that shape, none, or more than ``rows_max``.
    """
    try:
        document = pydantic_core.from_json(body)
    except ValueError as error:
        raise ApplicationInvalid((FieldError("", f"Invalid JSON: {error}"),)) from None
    if not isinstance(document, dict):
        raise ApplicationInvalid((FieldError("", "Input should be an object"),))
    errors = [
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
    """What is recorded of a refused body: itself when it is small JSON, else what it was."""
    if len(body) <= RECORDED_INPUT_MAX:
        try:
            return pydantic_core.from_json(body)
        except ValueError:
            pass
    return {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
