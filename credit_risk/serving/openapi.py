"""The OpenAPI document: derived from the package that decides, so that it cannot disagree with it.

Requests come from the schema; the examples' answers are the package's own answers to them.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic_core import to_json

from credit_risk import __version__, notices, reviews
from credit_risk.audit import keys, merkle, proofs
from credit_risk.audit.chain import GENESIS, Content, form
from credit_risk.audit.checkpoints import Checkpoint, Statement
from credit_risk.decisions import Call, answer, decision_record
from credit_risk.policy import BandName, DecisionName
from credit_risk.replay import VERDICTS, Cause, replay
from credit_risk.reviews import Case, Verdict
from credit_risk.scoring import decide
from credit_risk.serving import openapi_monitor, problems
from credit_risk.serving.cases import ClaimBody, QueueQuery, ReviewBody, SummaryQuery
from credit_risk.serving.describing import (
    COUNT,
    EXAMPLE_ID,
    REQUEST_ID,
    TEXT,
    object_of,
    problem_response,
    problem_responses,
    query_parameters,
    ref,
)
from credit_risk.serving.once import KEY_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage
    from credit_risk.regimes import Regime
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision
    from credit_risk.settings import Settings

    Json = dict[str, Any]

_NAMES = {
    "/predict": "predict",
    "/predict/batch": "predict_batch",
    "/explain": "explain",
    "/predict/explain": "predict_explain",
    "/decisions/{id}": "decision",
    "/decisions/{id}/notice": "notice",
    "/decisions/{id}/replay": "replay",
    "/decisions/{id}/proof": "proof",
    "/decisions/{id}/case": "case",
    "/decisions/{id}/claim": "claim",
    "/decisions/{id}/release": "release",
    "/decisions/{id}/review": "review",
    "/reviews": "reviews",
    "/reviews/summary": "reviews_summary",
    "/outcomes": "outcomes",
    "/monitor/drift": "drift",
    "/monitor/performance": "performance",
    "/monitor/fairness": "fairness",
    "/monitor/challenger": "challenger",
    "/monitor/retraining-check": "retraining_check",
    "/monitor/retraining-check/{id}": "retraining_check_shown",
    "/monitor/retraining-check/{id}/decision": "retraining_decision",
    "/": "about",
    "/health": "health",
    "/livez": "livez",
    "/readyz": "readyz",
    "/version": "version",
    "/schema": "schema",
    "/problems/{slug}": "problem",
    "/openapi.json": "openapi",
    "/metrics": "metrics",
}
"""What generated clients call their functions."""
_SCORING_PROBLEMS = (
    "malformed-json",
    "malformed-idempotency-key",
    "request-timeout",
    "idempotency-key-in-use",
    "body-too-large",
    "unsupported-media-type",
    "invalid-application",
    "idempotency-key-reused",
    "internal-error",
    "explanation-failed",
    "not-recorded",
    "overloaded",
    "deadline-exceeded",
)


_STEP_PROBLEMS = (
    "malformed-json",
    "request-timeout",
    "body-too-large",
    "unsupported-media-type",
    "not-found",
    "record-expired",
    "invalid-request",
    "review-refused",
    "package-missing",
    "step-not-recorded",
    "step-in-doubt",
)
_QUEUED = ("decision_id", "decided", "state", "holder", "until", "proposal", "dissent")
_READING_PROBLEMS = ("internal-error", "records-unavailable", "deadline-exceeded")


def document(
    package: ModelPackage, settings: Settings, answers: Mapping[str, Json], regime: Regime
) -> Json:
    """The OpenAPI 3.1 document of a server that serves ``package``.

    Args:
        package: what decides.
        settings: limits come from it.
        answers: what the calls that take nothing answer, by path; their examples.
        regime: what the example of a notice goes by.
    """
    example = package.schema.example
    plain, explained = (
        answer(package, EXAMPLE_ID, decide(package, [example], explain=e)[0]) for e in (False, True)
    )
    on_record = _on_record(package, decide(package, [example])[0], example)
    batch_answer = {
        "portfolio": package.portfolio,
        "model_version": package.version,
        "policy_version": package.policy_version,
        "rows": 1,
        "decided": 1,
        "refused": 0,
        "failed": 0,
        "results": [plain],
    }
    explain = _scoring(
        "Decide about one application, with signed contributions",
        ref("Application"), example, ref("ExplainedDecision"), explained, settings,
    )  # fmt: skip
    paths = {
        "/predict": {
            "post": _scoring(
                "Decide about one application",
                ref("Application"), example, ref("Decision"), plain, settings,
            )
        },
        "/predict/batch": {
            "post": _scoring(
                "Decide about many applications; a bad one is refused alone",
                ref("Batch"), {"applications": [example]}, ref("BatchResult"), batch_answer,
                settings,
            )
        },
        "/explain": {"post": explain},
        "/predict/explain": {"post": explain | {"summary": f"{explain['summary']} (as /explain)"}},
        "/decisions/{id}": {
            "get": _case(
                "The record of a decision, the application included",
                ref("Record"), on_record.to_json(), "not-found", "record-expired",
            )
        },
        "/decisions/{id}/replay": {
            "post": _case(
                "Make a decision again, from the package and policy that its record names",
                ref("Replay"), replay([on_record], lambda *_: package)[0].to_json(),
                "unexpected-body", "not-found", "request-timeout", "record-expired", "overloaded",
            )
        },
        "/decisions/{id}/notice": {
            "get": _case(
                "What a notice of adverse action needs", ref("Notice"), _notice(package, regime),
                "not-found", "not-adverse", "notice-impossible", "package-missing",
                "record-expired",
            )
        },
        "/decisions/{id}/proof": {
            "get": _case(
                "Proof that a record is as it was written, for who has the public key",
                ref("Proof"), _proof(on_record), "not-found", "evidence-invalid",
            )
        },
        **_reviewing(package),
        **openapi_monitor.paths(package),
        "/": {"get": _read("What this server is; browsers are led to /docs", _ABOUT)},
        "/health": {"get": _read("Every check, with what is wrong", _HEALTH)},
        "/livez": {"get": _read("The process answers", _STATUS)},
        "/readyz": {"get": _read("Golden records get their golden answers", _STATUS)},
        "/version": {"get": _read("Versions and digests of all that decides", _VERSION)},
        "/schema": {
            "get": _read("The application as JSON Schema", _DOCUMENT, "application/schema+json")
        },
        "/problems/{slug}": {"get": _read("What a type of problem means", _ADVICE)},
        "/openapi.json": {"get": _read("This document", _DOCUMENT)},
        "/metrics": {"get": _read("Prometheus metrics", TEXT, "text/plain")},
    }  # fmt: skip
    for path, answered in answers.items():
        (content,) = paths[path]["get"]["responses"]["200"]["content"].values()
        content["example"] = answered
    for path, calls in paths.items():
        for call in calls.values():
            call["operationId"] = _NAMES[path]
    paths["/"]["get"]["responses"]["307"] = {"description": "To a browser: see /docs"}
    failing = {"application/json": {"schema": _HEALTH}}
    paths["/health"]["get"]["responses"]["503"] = {
        "description": "A check fails",
        "content": failing,
    }
    paths["/readyz"]["get"]["responses"]["503"] = problem_response("not-ready")
    paths["/problems/{slug}"]["get"]["parameters"] = [_SLUG]
    paths["/problems/{slug}"]["get"]["responses"]["404"] = problem_response("not-found")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Credit-risk decisions: {package.schema.title}",
            "version": __version__,
            "description": (
                "The model gives the probability of default; the policy turns it into a risk band "
                "and a decision; reasons are exact Shapley values against a fixed reference group. "
                "Every decision is on record before it is answered. Errors are problems of "
                f"RFC 9457. This server decides for **{package.portfolio}** with model "
                f"`{package.version}` and policy `{package.policy_version}`."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": _components(package, settings)},
    }


def _scoring(  # noqa: PLR0917 - what a call is
    summary: str, takes: Json, example: Json, gives: Json, answered: Json, settings: Settings
) -> Json:
    return {
        "summary": summary,
        "tags": ["Decisions"],
        "parameters": [REQUEST_ID, _idempotency_key(settings), _APPLICANT_KEY],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": takes, "example": example}},
        },
        "responses": {
            "200": {
                "description": "Decided, and on record",
                "headers": {"Idempotency-Replayed": _REPLAYED},
                "content": {"application/json": {"schema": gives, "example": answered}},
            },
            **problem_responses(*_SCORING_PROBLEMS),
        },
    }


def _proof(record: Record) -> Json:
    """The proof of a record that is alone in a log, under a key that signs this example only."""
    written = form(
        Content(
            record.id,
            record.kind,
            record.time,
            record.portfolio,
            record.request_id,
            record.model_version,
            record.policy_version,
            record.decision,
            record.status,
            record.about,
            to_json(record.body).decode(),
            None,
        )
    )
    own = written.hash(GENESIS)
    head, root = own.hex(), merkle.root([own]).hex()
    text = Statement(1, 1, head, 1, "00" * 16, GENESIS.hex(), root, record.time).text()
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"example").digest())
    signed = Checkpoint(1, 1, 1, text, key.sign(text.encode()), keys.key_id(key.public_key()))
    return {
        "format": proofs.FORMAT,
        "decision_id": record.id,
        "proves": proofs.WHOLE,
        "record": {
            "sequence": 1,
            "hash": head,
            "canonical": written.joined(GENESIS).decode(),
        },
        "inclusion": {"index": 0, "size": 1, "path": []},
        "checkpoint": signed.to_json(),
        "public_key": keys.public_pem(key.public_key()),
    }


def _case(
    summary: str,
    gives: Json,
    answered: Json | None,
    *slugs: str,
    parameters: Sequence[Json] | None = None,
    always: Sequence[str] = _READING_PROBLEMS,
) -> Json:
    """A call about decisions on record."""
    content: Json = {"schema": gives}
    if answered is not None:
        content["example"] = answered
    return {
        "summary": summary,
        "tags": ["Cases"],
        "parameters": [REQUEST_ID, *([_DECISION_ID] if parameters is None else parameters)],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": content}},
            **problem_responses(*slugs, *always),
        },
    }


def _step(summary: str, takes: Json, example: Json, after: Case, now: int) -> Json:
    """A call that takes a step in a case."""
    described = _case(
        summary,
        ref("Case"),
        after.to_json(now),
        *_STEP_PROBLEMS,
        always=("internal-error",),
    )
    described["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": takes, "example": example}},
    }
    described["responses"]["200"]["description"] = "Taken, and on record"
    return described


def _reviewing(package: ModelPackage) -> Json:
    """The calls about reviews; their examples are what one referred decision goes through."""
    now = time.time_ns() // 1_000
    policy = package.policy.review
    declining = package.words.review_texts("DECLINE")
    approving = package.words.review_texts("APPROVE")
    waiting = Case(EXAMPLE_ID, package.portfolio, now, "REVIEW", "REVIEW")
    held = reviews.after(waiting, reviews.claim(waiting, "ada", now, policy).body, now)
    verdict = Verdict("ada", "DECLINE", min(declining), "As the documents show.")
    if approving:
        verdict = Verdict("ada", "APPROVE", min(approving), verdict.note)
    closing = reviews.after(held, reviews.review(held, verdict, now, policy).body, now)
    claimed = held.to_json(now)
    by_whom = {"reviewer": verdict.reviewer}
    review = ReviewBody.model_json_schema()
    review["properties"]["reason"]["description"] = (
        f"To decline: {', '.join(sorted(declining))}. "
        f"To approve: {', '.join(sorted(approving)) or 'none'}."
    )
    listed = {name: claimed[name] for name in _QUEUED}
    said = by_whom | {"decision": verdict.decision, "reason": verdict.reason, "note": verdict.note}
    counts = {"closed": 0, "approved": 0, "declined": 0, "proposed": 0, "returned": 0}
    return {
        "/decisions/{id}/case": {
            "get": _case(
                "What people did about a decision, notes included", ref("Story"),
                waiting.to_json(now) | {"steps": []}, "not-found", "record-expired",
            )
        },
        "/decisions/{id}/claim": {
            "post": _step(
                "Keep others off a case for a while", ClaimBody.model_json_schema(), by_whom,
                held, now,
            )
        },
        "/decisions/{id}/release": {
            "post": _step(
                "Let others have a claimed case", ClaimBody.model_json_schema(), by_whom,
                waiting, now,
            )
        },
        "/decisions/{id}/review": {
            "post": _step(
                "Decide a case, or as another person agree or not", review, said, closing, now
            )
        },
        "/reviews": {
            "get": _case(
                "The cases that wait for people, the oldest first", ref("Queue"),
                {"portfolio": package.portfolio, "reviews": [listed], "next": None},
                "not-found", "invalid-request", parameters=query_parameters(QueueQuery),
            )
        },
        "/reviews/summary": {
            "get": _case(
                "How often people overrode the server, by direction and reason",
                ref("ReviewSummary"),
                {
                    "portfolio": package.portfolio,
                    "since": None,
                    "until": None,
                    "decisions": {"APPROVE": 0, "REVIEW": 1, "DECLINE": 0},
                    "reviews": counts,
                    "waiting_now": 1,
                    "overrides": [],
                },
                "invalid-request", parameters=query_parameters(SummaryQuery),
            )
        },
    }  # fmt: skip


def _notice(package: ModelPackage, regime: Regime) -> Json | None:
    """The notice of a decline among the golden records; None where there is no decline."""
    declined = next((golden for golden in package.golden if golden.decision == "DECLINE"), None)
    if declined is None:
        return None
    (decision,) = decide(package, [declined.application], explain=True)
    record = _on_record(package, decision, declined.application)
    case = reviews.case_of(record, ())
    return notices.notice(record, case, package.words, regime, record.time)


def _on_record(package: ModelPackage, decision: Decision, application: Application) -> Record:
    """The record of a decision, made a moment ago."""
    call = Call("/predict", EXAMPLE_ID)
    return decision_record(package, EXAMPLE_ID, application, decision, call, latency_ms=1.0)


def _read(summary: str, gives: Json, media_type: str = "application/json") -> Json:
    return {
        "summary": summary,
        "tags": ["Service"],
        "responses": {"200": {"description": "OK", "content": {media_type: {"schema": gives}}}},
    }


_DECISION_ID: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "decision_id of the decision",
    "schema": {"type": "string"},
    "example": EXAMPLE_ID,
}
_REPLAYED: Json = {
    "description": "This is the answer to an earlier request with the same Idempotency-Key",
    "schema": {"const": "true"},
}


_APPLICANT_KEY: Json = {
    "name": "Applicant-Key",
    "in": "header",
    "required": False,
    "description": "What stands for the applicant while a challenger decides about a share of "
    "them: the same key is always on the same side. A pseudonym of your own; it is neither kept "
    "nor logged. Without it, and for many applications at once, the application stands for its "
    "applicant.",
    "schema": {"type": "string"},
    "example": "applicant-4711",
}


def _idempotency_key(settings: Settings) -> Json:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Your key for one decision, such as a random UUID: 1 to 255 visible ASCII "
        "characters, with or without quotation marks around. The same request with the same key "
        "and call gets the same answer, byte for byte and with Idempotency-Replayed: true, for "
        f"{settings.idempotency_hours:g} hours; until there is one, 409. Answers of 500 and above "
        "are not kept: sent again, the request is decided.",
        "schema": {"type": "string", "pattern": KEY_PATTERN},
        "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
    }


def _components(package: ModelPackage, settings: Settings) -> Json:
    decision = {
        "decision_id": {
            "type": "string",
            "format": "uuid",
            "description": "UUIDv7; the record of the decision has the same id",
        },
        "portfolio": {"const": package.portfolio},
        "probability_of_default": {"type": "number", "minimum": 0, "maximum": 1},
        "prediction": {
            "enum": [0, 1],
            "description": f"1 at a probability of default of {package.policy.cut_off} or more",
        },
        "risk_band": {"enum": list(get_args(BandName))},
        "decision": {"enum": list(get_args(DecisionName))},
        "reasons": {
            "type": "array",
            "maxItems": 4,
            "items": ref("Reason"),
            "description": "Principal reasons, most important first; none for an approval",
        },
        "model_version": {"type": "string"},
        "policy_version": {"type": "string"},
    }
    explanation = {
        "unit": {"type": "string"},
        "method": {"type": "string"},
        "base_value": {"type": "number", "description": "Mean log-odds of the reference group"},
        "log_odds": {
            "type": "number",
            "description": "base_value plus all contributions, within 1e-6",
        },
        "contributions": {"type": "array", "items": ref("Contribution")},
        "reasons": {
            "type": "array",
            "items": object_of(
                {
                    "code": TEXT,
                    "fields": {"type": "array", "items": TEXT},
                    "contribution": {
                        "type": ["number", "null"],
                        "description": "log-odds; null where a rule speaks",
                    },
                }
            ),
        },
        "reference_group": object_of(
            {"name": TEXT, "description": TEXT, "rows": COUNT, "sha256": _DIGEST}
        ),
    }
    rows = {"type": "array", "minItems": 1, "maxItems": settings.batch_rows_max}
    return {
        "Application": package.schema.json_schema(),
        "Batch": object_of({"applications": rows | {"items": ref("Application")}}, closed=True),
        "Decision": object_of(decision),
        "ExplainedDecision": object_of(
            decision
            | {
                "rules": {"type": "array", "items": {"type": "string"}},
                "explanation": object_of(explanation),
            }
        ),
        "Reason": object_of({"code": {"enum": sorted(package.reasons.texts)}, "text": TEXT}),
        "Contribution": object_of(
            {
                "field": {"enum": list(package.schema.names)},
                "title": TEXT,
                "reason_code": TEXT,
                "contribution": {"type": "number", "description": "log-odds; above 0 is adverse"},
            }
        ),
        "BatchResult": object_of(
            {
                "portfolio": TEXT,
                "model_version": TEXT,
                "policy_version": TEXT,
                "rows": COUNT,
                "decided": COUNT,
                "refused": COUNT,
                "failed": COUNT,
                "results": {
                    "type": "array",
                    "description": "In order of the applications",
                    "items": {"anyOf": [ref("Decision"), object_of({"problem": ref("Problem")})]},
                },
            }
        ),
        "Notice": _NOTICE,
        "Proof": _PROOF,
        "Record": _RECORD,
        "Replay": _REPLAY,
        "Case": _CASE,
        "Story": _STORY,
        "Queue": _QUEUE,
        "ReviewSummary": _SUMMARY,
        **openapi_monitor.components(),
        "Problem": {
            "type": "object",
            "description": "RFC 9457; type is a path of this server that says what to do",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"enum": [kind.uri for kind in problems.KINDS.values()]},
                "title": TEXT,
                "status": {"type": "integer"},
                "detail": TEXT,
                "instance": {"type": "string", "format": "uri"},
                "errors": {
                    "type": "array",
                    "items": object_of({"pointer": TEXT, "detail": TEXT}),
                },
            },
        },
    }


_DIGEST: Json = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_DOCUMENT: Json = {"type": "object"}
_STATUS: Json = object_of({"status": TEXT})
_VERSIONS: Json = {"portfolio": TEXT, "model_version": TEXT, "policy_version": TEXT}
_ABOUT: Json = object_of({"service": TEXT, **_VERSIONS, "docs": TEXT, "openapi": TEXT})
_HEALTH: Json = object_of(
    {
        "status": {"enum": ["ok", "failing"]},
        **_VERSIONS,
        "checks": {
            "type": "object",
            "required": ["model", "records", "activation"],
            "additionalProperties": TEXT,
            "description": "ok, or what is wrong; a fault of activation leaves the server deciding "
            "with the package before",
        },
    }
)
_VERSION: Json = object_of(
    {
        "service": object_of({"version": TEXT, "bentoml": TEXT}),
        "portfolio": TEXT,
        "model": object_of(
            {
                "version": TEXT,
                "sha256": _DIGEST,
                "estimator": TEXT,
                "kind": TEXT,
                "signed_by": {
                    "type": "array",
                    "description": "Ids of the keys of the approvers who signed it",
                    "items": TEXT,
                },
            }
        ),
        "policy": object_of({"version": TEXT, "sha256": _DIGEST}),
        "schema": object_of({"version": TEXT, "sha256": _DIGEST}),
        "reasons": object_of({"version": TEXT, "sha256": _DIGEST}),
        "reference_group": object_of({"name": TEXT, "sha256": _DIGEST}),
    }
)
_ADVICE: Json = object_of(
    {"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "advice": TEXT}
)
_TEXTS: Json = {"type": "array", "items": TEXT}
_NOTHING_OR_TEXT: Json = {"type": ["string", "null"]}
_CLOSED: Json = {
    "type": ["object", "null"],
    "description": "How a review by people ended; null where there was none",
    "properties": {
        "decision": {"enum": ["APPROVE", "DECLINE"]},
        "reviewers": _TEXTS,
        "reasons": _TEXTS,
        "override": {"enum": ["low-side", "high-side", None]},
        "closed": {"type": "string", "format": "date-time"},
    },
}
_SAID: Json = {
    "type": ["object", "null"],
    "properties": {
        "reviewer": TEXT,
        "decision": {"enum": ["APPROVE", "DECLINE"]},
        "reason": TEXT,
    },
}
_NOTHING_OR_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
_IN_QUEUE: Json = {
    "decision_id": {"type": "string", "format": "uuid"},
    "decided": {"type": "string", "format": "date-time"},
    "state": {"enum": ["open", "claimed", "proposed", "disputed", "closed", "none"]},
    "holder": _NOTHING_OR_TEXT,
    "until": _NOTHING_OR_TIME,
    "proposal": _SAID | {"description": "What waits for a second, different person"},
    "dissent": _SAID
    | {"description": "What a second person said against it: a third, different one decides"},
}
_CASE: Json = object_of(
    {
        **_IN_QUEUE,
        "portfolio": TEXT,
        "decision": {"enum": list(get_args(DecisionName)), "description": "The server's"},
        "closed": _CLOSED,
    }
)
_STORY: Json = object_of(
    _CASE["properties"]
    | {
        "steps": {
            "type": "array",
            "description": "The first one first",
            "items": object_of(
                {
                    "record": {"type": "string", "format": "uuid"},
                    "time": {"type": "string", "format": "date-time"},
                    "action": {"enum": ["claim", "release", "propose", "return", "close"]},
                    "reviewer": TEXT,
                    "decision": _NOTHING_OR_TEXT,
                    "reason": _NOTHING_OR_TEXT,
                    "note": _NOTHING_OR_TEXT
                    | {"description": "null where there is none, or it was erased"},
                }
            ),
        }
    }
)
_QUEUE: Json = object_of(
    {
        "portfolio": TEXT,
        "reviews": {"type": "array", "items": object_of(_IN_QUEUE)},
        "next": _NOTHING_OR_TEXT | {"description": "What to give as after for the next page"},
    }
)
_SUMMARY: Json = object_of(
    {
        "portfolio": TEXT,
        "since": _NOTHING_OR_TIME,
        "until": _NOTHING_OR_TIME,
        "decisions": object_of(dict.fromkeys(get_args(DecisionName), COUNT)),
        "reviews": object_of(
            dict.fromkeys(("closed", "approved", "declined", "proposed", "returned"), COUNT)
        ),
        "waiting_now": COUNT,
        "overrides": {
            "type": "array",
            "items": object_of(
                {
                    "direction": {"enum": ["low-side", "high-side"]},
                    "decision": {"enum": list(get_args(DecisionName))},
                    "number": COUNT,
                    "of": COUNT,
                    "rate": {"type": ["number", "null"]},
                    "reasons": {"type": "object", "additionalProperties": COUNT},
                }
            ),
        },
    }
)
_NOTICE: Json = object_of(
    {
        "decision_id": {"type": "string", "format": "uuid"},
        "portfolio": TEXT,
        "decision": {"const": "DECLINE"},
        "decided_by": {
            "type": "array",
            "items": {"enum": ["reviewer", "rule", "score"]},
            "description": "The components that called for the decline, the last word first",
        },
        "principal_reasons": {
            "type": "array",
            "minItems": 1,
            "items": object_of(
                {"code": TEXT, "text": TEXT, "component": {"enum": ["reviewer", "rule", "score"]}}
            ),
            "description": "In the wording approved for this decision, the regime's number at most",
        },
        "notification": object_of(
            {
                "counted_from": {"enum": ["application", "decision"]},
                "from": {"type": "string", "format": "date-time"},
                "days": {"type": ["integer", "null"]},
                "deadline": {
                    "type": ["string", "null"],
                    "format": "date",
                    "description": "The last day, UTC; null where the regime has no number of days",
                },
                "words": TEXT,
            }
        ),
        "personal_data": {
            "enum": ["kept", "sealed", "erased"],
            "description": "Whether the application itself is still there: erased at the "
            "applicant's request, or sealed with a key that this server has not",
        },
        "review": _CLOSED,
        "under_review": {
            "type": "boolean",
            "description": "Whether people are still at it: the last day to tell the applicant has "
            "come, and the server's decline stands until they agree on another decision",
        },
        "statements": {
            "type": "array",
            "items": object_of(
                {"id": TEXT, "text": TEXT, "placeholders": _TEXTS, "when": _NOTHING_OR_TEXT}
            ),
            "description": "What the notice has to say besides; the lender fills the placeholders",
        },
        "model_version": TEXT,
        "policy_version": TEXT,
        "reasons": object_of({"version": TEXT, "sha256": _DIGEST}),
        "regime": object_of(
            {
                "id": TEXT,
                "version": TEXT,
                "title": TEXT,
                "as_of": {"type": "string", "format": "date"},
                "sha256": _DIGEST,
                "caveat": TEXT,
                "sources": {"type": "array", "items": {"type": "object"}},
                "record_retention_months": {"type": ["integer", "null"]},
            }
        ),
    }
)
_RECORD: Json = object_of(
    {
        "id": {"type": "string", "format": "uuid"},
        "kind": {"const": "decision"},
        "time": {"type": "string", "format": "date-time"},
        "portfolio": TEXT,
        "request_id": TEXT,
        "model_version": TEXT,
        "policy_version": TEXT,
        "decision": {"enum": list(get_args(DecisionName))},
        "status": {"type": "integer"},
        "about": _NOTHING_OR_TEXT,
        "body": {
            "type": "object",
            "description": "Digests of all that decided, score, band, rules, reasons with their "
            "contributions, latency",
        },
        "personal": {
            "type": ["object", "null"],
            "description": "The application as input; null where it is withheld",
        },
        "withheld": {"enum": ["sealed", "erased", None]},
    }
)
_ANSWERED: Json = {
    "type": "object",
    "description": "Versions, digests and answers, by their names on record",
}
_REPLAY: Json = object_of(
    {
        "decision_id": {"type": "string", "format": "uuid"},
        "verdict": {"enum": list(VERDICTS)},
        "detail": TEXT,
        "cause": {
            "enum": [*get_args(Cause), None],
            "description": "Why it is NOT_REPRODUCIBLE; null for other verdicts",
        },
        "differences": {
            "type": "array",
            "items": object_of({"field": TEXT, "recorded": {}, "replayed": {}}),
        },
        "libraries": {
            "type": "object",
            "description": "What differs between the environment then and here, by name",
            "additionalProperties": object_of(
                {"recorded": _NOTHING_OR_TEXT, "here": _NOTHING_OR_TEXT}
            ),
        },
        "recorded": _ANSWERED,
        "replayed": _ANSWERED | {"type": ["object", "null"]},
    }
)
_SLUG: Json = {
    "name": "slug",
    "in": "path",
    "required": True,
    "description": "The last part of a problem's type",
    "schema": {"enum": list(problems.KINDS)},
    "example": "invalid-application",
}
_PROOF: Json = object_of(
    {
        "format": {"const": proofs.FORMAT},
        "decision_id": {"type": "string", "format": "uuid"},
        "proves": TEXT,
        "record": object_of(
            {
                "sequence": {"type": "integer", "minimum": 1},
                "hash": _DIGEST,
                "canonical": {
                    "type": ["string", "null"],
                    "description": "What was hashed, JSON; null where retention has taken it",
                },
            }
        ),
        "inclusion": object_of(
            {
                "index": COUNT,
                "size": {"type": "integer", "minimum": 1},
                "path": {"type": "array", "items": _DIGEST},
            }
        ),
        "checkpoint": object_of(
            {
                "statement": {"type": "string", "description": "What was signed, JSON"},
                "signature": {"type": "string", "description": "Ed25519, in base64"},
                "key_id": TEXT,
            }
        ),
        "public_key": {
            "type": ["string", "null"],
            "description": "The key in force, PEM; null where another one signed. Whoever checks "
            "a proof needs it from elsewhere",
        },
    }
)
