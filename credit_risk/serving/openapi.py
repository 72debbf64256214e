"""The OpenAPI document: derived from the package that decides, so that it cannot disagree with it.

Requests come from the schema; the examples' answers are the package's own answers to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from credit_risk import __version__
from credit_risk.decisions import answer
from credit_risk.policy import BandName, DecisionName
from credit_risk.scoring import decide
from credit_risk.serving import problems

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage
    from credit_risk.settings import Settings

    Json = dict[str, Any]

_EXAMPLE_ID = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"
_SCORING_PROBLEMS = (
    "malformed-json",
    "body-too-large",
    "unsupported-media-type",
    "invalid-application",
    "internal-error",
    "not-recorded",
)


def document(package: ModelPackage, settings: Settings) -> Json:
    """The OpenAPI 3.1 document of a server that serves ``package``."""
    example = package.schema.example
    plain, explained = (
        answer(package, _EXAMPLE_ID, decide(package, [example], explain=e)[0])
        for e in (False, True)
    )
    batch_answer = {
        "portfolio": package.portfolio,
        "model_version": package.version,
        "policy_version": package.policy_version,
        "rows": 1,
        "decided": 1,
        "refused": 0,
        "results": [plain],
    }
    explain = _scoring(
        "Decide about one application, with signed contributions",
        _ref("Application"), example, _ref("ExplainedDecision"), explained,
    )  # fmt: skip
    paths = {
        "/predict": {
            "post": _scoring(
                "Decide about one application",
                _ref("Application"), example, _ref("Decision"), plain,
            )
        },
        "/predict/batch": {
            "post": _scoring(
                "Decide about many applications; a bad one is refused alone",
                _ref("Batch"), {"applications": [example]}, _ref("BatchResult"), batch_answer,
            )
        },
        "/explain": {"post": explain},
        "/predict/explain": {"post": explain | {"summary": f"{explain['summary']} (as /explain)"}},
        "/health": {"get": _status("Every check, with what is wrong", _HEALTH, also_503=True)},
        "/livez": {"get": _status("The process answers", _STATUS)},
        "/readyz": {"get": _read("Golden records get their golden answers", _STATUS)},
        "/version": {"get": _read("Versions and digests of all that decides", _OBJECT)},
        "/schema": {
            "get": _read("The application as JSON Schema", _OBJECT, "application/schema+json")
        },
        "/openapi.json": {"get": _read("This document", _OBJECT)},
        "/metrics": {"get": _read("Prometheus metrics", {"type": "string"}, "text/plain")},
    }  # fmt: skip
    paths["/readyz"]["get"]["responses"]["503"] = _problem_response("not-ready")
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


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _scoring(summary: str, takes: Json, example: Json, gives: Json, answered: Json) -> Json:
    slug_by_status: dict[int, list[str]] = {}
    for slug in _SCORING_PROBLEMS:
        slug_by_status.setdefault(problems.KINDS[slug].status, []).append(slug)
    return {
        "summary": summary,
        "tags": ["Decisions"],
        "parameters": [_REQUEST_ID],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": takes, "example": example}},
        },
        "responses": {
            "200": {
                "description": "Decided, and on record",
                "content": {"application/json": {"schema": gives, "example": answered}},
            },
            **{
                str(status): _problem_response(*slugs)
                for status, slugs in sorted(slug_by_status.items())
            },
        },
    }


def _read(summary: str, gives: Json, media_type: str = "application/json") -> Json:
    return {
        "summary": summary,
        "tags": ["Service"],
        "responses": {"200": {"description": "OK", "content": {media_type: {"schema": gives}}}},
    }


def _status(summary: str, gives: Json, *, also_503: bool = False) -> Json:
    operation = _read(summary, gives)
    if also_503:
        content = {"application/json": {"schema": gives}}
        operation["responses"]["503"] = {"description": "A check fails", "content": content}
    return operation


def _problem_response(*slugs: str) -> Json:
    return {
        "description": "; or ".join(problems.KINDS[slug].title for slug in slugs),
        "content": {problems.MEDIA_TYPE: {"schema": _ref("Problem")}},
    }


_REQUEST_ID: Json = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Your id for the request: 1 to 128 visible ASCII characters. It is recorded, "
    "logged and returned; one is made where it is absent or malformed.",
    "schema": {"type": "string"},
}
_OBJECT: Json = {"type": "object"}
_STATUS: Json = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}},
}
_HEALTH: Json = {
    "type": "object",
    "required": ["status", "checks"],
    "properties": {
        "status": {"enum": ["ok", "failing"]},
        "checks": {"type": "object", "additionalProperties": {"type": "string"}},
    },
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
            "items": _ref("Reason"),
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
        "contributions": {"type": "array", "items": _ref("Contribution")},
        "reasons": {"type": "array", "items": {"type": "object"}},
        "reference_group": {"type": "object"},
    }
    rows = {"type": "array", "minItems": 1, "maxItems": settings.batch_rows_max}
    return {
        "Application": package.schema.json_schema(),
        "Batch": _object({"applications": rows | {"items": _ref("Application")}}, closed=True),
        "Decision": _object(decision),
        "ExplainedDecision": _object(
            decision
            | {
                "rules": {"type": "array", "items": {"type": "string"}},
                "explanation": _object(explanation),
            }
        ),
        "Reason": _object({"code": {"enum": sorted(package.reasons.texts)}, "text": _TEXT}),
        "Contribution": _object(
            {
                "field": {"enum": list(package.schema.names)},
                "title": _TEXT,
                "reason_code": _TEXT,
                "contribution": {"type": "number", "description": "log-odds; above 0 is adverse"},
            }
        ),
        "BatchResult": _object(
            {
                "portfolio": _TEXT,
                "model_version": _TEXT,
                "policy_version": _TEXT,
                "rows": _COUNT,
                "decided": _COUNT,
                "refused": _COUNT,
                "results": {
                    "type": "array",
                    "description": "In order of the applications",
                    "items": {"anyOf": [_ref("Decision"), _object({"problem": _ref("Problem")})]},
                },
            }
        ),
        "Problem": {
            "type": "object",
            "description": "RFC 9457; type is a path of this server that says what to do",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"enum": [kind.uri for kind in problems.KINDS.values()]},
                "title": _TEXT,
                "status": {"type": "integer"},
                "detail": _TEXT,
                "instance": {"type": "string", "format": "uri"},
                "errors": {
                    "type": "array",
                    "items": _object({"pointer": _TEXT, "detail": _TEXT}),
                },
            },
        },
    }


_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}


def _object(properties: Json, *, closed: bool = False) -> Json:
    schema: Json = {
        "type": "object",
        "required": list(properties),
        "properties": properties,
    }
    if closed:
        schema["additionalProperties"] = False
    return schema
