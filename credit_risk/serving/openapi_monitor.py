"""The part of the OpenAPI document about outcomes and monitoring.

What is answered is described by the documents that the statistics are made as, and the examples are
made by them of made-up applicants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from credit_risk import (
    challenger,
    drift,
    fairness,
    outcomes,
    oversight,
    performance,
    profile,
    retraining,
)
from credit_risk.challenger import Contest, CutOffs, Pairs, Side
from credit_risk.drift import Drift
from credit_risk.fairness import Fairness
from credit_risk.performance import Performance
from credit_risk.retraining import Check, Evidence, Limit, Limits, MonitoringPolicy
from credit_risk.serving.describing import (
    COUNT,
    EXAMPLE_ID,
    REQUEST_ID,
    TEXT,
    object_of,
    problem_responses,
    query_parameters,
    ref,
)
from credit_risk.serving.monitor import (
    OUTCOMES_MAX,
    FairnessQuery,
    JudgementBody,
    WindowQuery,
)
from monitoring.multivariate import Multivariate

if TYPE_CHECKING:
    from pydantic import BaseModel

    from credit_risk.package import ModelPackage

    Json = dict[str, Any]

_ROWS = 500
_BODY_PROBLEMS = ("malformed-json", "request-timeout", "body-too-large", "unsupported-media-type")
_WORK_PROBLEMS = (
    *("invalid-request", "package-missing", "overloaded", "not-worked-out"),
    *("records-unavailable", "deadline-exceeded", "internal-error", "evidence-invalid"),
)
_RECORD_PROBLEMS = ("invalid-request", "record-in-doubt", "internal-error")
_NOTHING_OR_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
_TIME: Json = {"type": "string", "format": "date-time"}
_ABOUT: Json = {
    "portfolio": TEXT,
    "model_version": TEXT,
    "from": _NOTHING_OR_TIME,
    "to": _NOTHING_OR_TIME,
}
_EXAMPLE_ABOUT: Json = {"from": "2026-11-15T14:00:00.000000Z", "to": "2026-11-22T15:00:00.000000Z"}
_CHECK_ID: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "check_id of the check",
    "schema": TEXT,
    "example": EXAMPLE_ID,
}
_ERRORS: Json = {"type": "array", "items": object_of({"pointer": TEXT, "detail": TEXT})}
_DECIDED: Json = {
    "anyOf": [
        {"type": "null"},
        object_of(
            {
                "time": _TIME,
                "reviewer": TEXT,
                "decision": {"enum": ["RETRAIN", "KEEP"]},
                "note": {"type": ["string", "null"]},
            }
        ),
    ],
    "description": "What a person decided; null before that",
}


def paths(package: ModelPackage) -> Json:
    """The calls, by path."""
    about = {"portfolio": package.portfolio, "model_version": package.version, **_EXAMPLE_ABOUT}
    checked = _checked(package, about)
    judged = {"reviewer": "ada", "decision": "KEEP", "note": "A campaign; it ends this month."}
    decided = {**checked, "decided": {"time": checked["time"], **judged}}
    outcome = {"decision_id": EXAMPLE_ID, "defaulted": False, "observed": "2026-11-22"}
    return {
        "/outcomes": {
            "post": _call(
                "Put on record what became of decisions, one or many",
                ref("OutcomeResults"),
                {
                    "rows": 1,
                    "recorded": 1,
                    "results": [{"decision_id": EXAMPLE_ID, "state": "recorded"}],
                },
                *_BODY_PROBLEMS,
                *_RECORD_PROBLEMS,
                takes={"anyOf": [ref("Outcomes"), ref("Outcome")]},
                given={"outcomes": [outcome]},
            )
        },
        "/monitor/drift": {
            "post": _call(
                "Whether applicants and scores are those of the package's reference",
                ref("DriftAnswer"),
                {**about, **_drift(package)},
                *_BODY_PROBLEMS,
                *_WORK_PROBLEMS,
                takes={"anyOf": [ref("Window"), ref("Sample")]},
                given={"window": "7d"},
            )
        },
        "/monitor/performance": {
            "get": _call(
                "How right PDs were, as outcomes show, and what is expected before they do",
                ref("PerformanceAnswer"),
                {**about, **_performance(package)},
                *_WORK_PROBLEMS,
                parameters=query_parameters(WindowQuery),
            )
        },
        "/monitor/fairness": {
            "get": _call(
                "Approvals and scores by groups that were supplied apart; it reports, no more",
                ref("FairnessAnswer"),
                {**about, **_fairness(package)},
                "groups-missing",
                *_WORK_PROBLEMS,
                parameters=query_parameters(FairnessQuery),
            )
        },
        "/monitor/challenger": {
            "get": _call(
                "A challenger beside the package that decides, on the applications of both",
                ref("ChallengerAnswer"),
                _challenger(package),
                *_WORK_PROBLEMS,
                parameters=query_parameters(WindowQuery),
            )
        },
        "/monitor/retraining-check": {
            "post": _call(
                "Whether it is time to think of retraining; it starts nothing, and is on record",
                ref("RetrainingCheck"),
                checked,
                "unexpected-body",
                "request-timeout",
                "record-in-doubt",
                *_WORK_PROBLEMS,
            )
        },
        "/monitor/retraining-check/{id}": {
            "get": _call(
                "A check on record, and what a person decided on it",
                ref("RetrainingCheck"),
                checked,
                "not-found",
                "internal-error",
                "records-unavailable",
                "deadline-exceeded",
                parameters=[_CHECK_ID],
            )
        },
        "/monitor/retraining-check/{id}/decision": {
            "post": _call(
                "Decide on a check; nothing is started by it",
                ref("RetrainingCheck"),
                decided,
                "not-found",
                "already-decided",
                *_BODY_PROBLEMS,
                *_RECORD_PROBLEMS,
                parameters=[_CHECK_ID],
                takes=JudgementBody.model_json_schema(),
                given=judged,
            )
        },
    }


def components() -> Json:
    """The schemas that these calls name."""
    asked = {p["name"]: p["schema"] for p in query_parameters(WindowQuery)}
    version = {"model_version": asked["model_version"]}
    period = _closed({"window": asked["window"]}, version)
    span = _closed({"from": asked["from"]}, {"to": asked["to"]} | version)
    outcome = outcomes.Outcome.model_json_schema()
    rows = {"type": "array", "minItems": 1}
    drifted = {"decisions": {"type": ["integer", "null"]}, "not_counted": COUNT}
    drifted |= {"multivariate": ref("Multivariate")}
    drifted["other_versions"] = {"type": "object", "additionalProperties": COUNT}
    expected = {"anyOf": [ref("Figures"), {"type": "null"}]}
    contest = _parts("Contest", Contest)
    return {
        "Outcome": outcome | {"properties": outcome["properties"] | {"observed": _DAY}},
        "Outcomes": object_of(
            {"outcomes": rows | {"maxItems": OUTCOMES_MAX, "items": ref("Outcome")}}, closed=True
        ),
        "OutcomeResults": object_of(
            {
                "rows": COUNT,
                "recorded": COUNT,
                "results": {
                    "type": "array",
                    "description": "In order of the outcomes",
                    "items": {
                        "type": "object",
                        "required": ["decision_id", "state"],
                        "properties": {
                            "decision_id": {"type": ["string", "null"]},
                            "state": {"enum": list(outcomes.STATES)},
                            "errors": _ERRORS,
                        },
                    },
                },
            }
        ),
        "Window": {"anyOf": [period, span]},
        "Sample": {
            "type": "object",
            "required": ["applications"],
            "additionalProperties": False,
            "properties": {
                "applications": rows
                | {
                    "maxItems": oversight.SAMPLE_ROWS_MAX,
                    "items": {"type": "object"},
                    "description": "Fields of the schema; values out of range, categories that are "
                    "not listed, and fields left out are what is looked for",
                },
                "model_version": asked["model_version"],
            },
        },
        **_answers("DriftAnswer", Drift, drifted),
        **_parts("Multivariate", Multivariate),
        **_answers(
            "PerformanceAnswer",
            Performance,
            {"expected_of_all": expected, "development_auc": {"type": ["number", "null"]}},
        ),
        **_answers("FairnessAnswer", Fairness, {"decisions": COUNT}),
        **contest,
        "ChallengerAnswer": object_of(
            {"portfolio": TEXT, "from": _NOTHING_OR_TIME, "to": _NOTHING_OR_TIME}
            | contest["Contest"]["properties"]
        ),
        **_answers(
            "RetrainingCheck",
            Check,
            {
                "check_id": {"type": "string", "format": "uuid"},
                "time": _TIME,
                "monitoring_policy": object_of({"version": TEXT, "sha256": TEXT}),
                "windows": {
                    "type": "array",
                    "items": object_of(
                        {"from": _TIME, "to": _TIME, "rows": COUNT, "verdict": TEXT}
                    ),
                },
                "decided": _DECIDED,
            },
        ),
    }


_DAY: Json = {"type": "string", "format": "date", "description": "When it was observed"}


def _closed(required: Json, more: Json) -> Json:
    return object_of(required, closed=True) | {"properties": required | more}


def _answers(name: str, kind: type[BaseModel], more: Json) -> Json:
    """The schema of an answer that is a document and more, and those that it is made of."""
    parts = _parts(name, kind)
    return parts | {name: object_of(_ABOUT | more | parts[name]["properties"])}


def _parts(name: str, kind: type[BaseModel]) -> Json:
    """The schema of a document under a name, and those that it is made of."""
    schema = kind.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    parts: Json = schema.pop("$defs", {})
    return {**parts, name: schema}


def _call(
    summary: str,
    gives: Json,
    answered: Json,
    *slugs: str,
    parameters: list[Json] | None = None,
    takes: Json | None = None,
    given: Json | None = None,
) -> Json:
    content = {"application/json": {"schema": gives, "example": answered}}
    described: Json = {
        "summary": summary,
        "tags": ["Monitoring"],
        "parameters": [REQUEST_ID, *(parameters or ())],
        "responses": {
            "200": {"description": "OK", "content": content},
            **problem_responses(*dict.fromkeys(slugs)),
        },
    }
    if takes is not None:
        body = {"application/json": {"schema": takes, "example": given}}
        described["requestBody"] = {"required": True, "content": body}
    return described


def _drawn(package: ModelPackage) -> drift.Counts:
    rows = profile.draw(package.profile, package.schema, _ROWS, 0)
    return drift.Reference.of(package).count(rows, np.full(_ROWS, np.nan))


def _drift(package: ModelPackage) -> Json:
    found = drift.Reference.of(package).compare(_drawn(package))
    told = found.model_dump(mode="json")
    missing = Multivariate(
        verdict="missing", reason="It is not installed.", baseline_rows=0, rows=0
    )
    more = {"other_versions": {}, "multivariate": missing.model_dump(mode="json")}
    return {"decisions": found.rows, "not_counted": 0, **more, **told}


def _performance(package: ModelPackage) -> Json:
    nobody = np.empty(0, dtype="datetime64[D]")
    known = performance.Outcomes(np.empty(0), np.empty(0, dtype=np.int64), nobody, nobody)
    today = np.datetime64("2026-11-22")
    found = performance.measure(known, {"2026-11": 120}, package.policy, today=today)
    told = found.model_dump(mode="json")
    return {**told, "expected_of_all": None, "development_auc": None}


def _fairness(package: ModelPackage) -> Json:
    nobody = np.empty(0)
    found = fairness.measure(
        nobody.astype(np.int64),
        [],
        nobody.astype(np.bool_),
        nobody,
        package.policy.cut_off,
        attribute="sex",
    )
    return {"decisions": 0, **found.model_dump(mode="json")}


def _challenger(package: ModelPackage) -> Json:
    nobody = np.empty(0)
    side = Side(
        nobody, nobody.astype(np.int64), nobody.astype(np.int64), nobody.astype(np.str_), nobody
    )
    cut_offs = CutOffs(package.policy.cut_off, package.policy.cut_off)
    pairs = Pairs(side, side, nobody.astype(np.bool_))
    found = challenger.compare(package.version, "0123456789ab", pairs, cut_offs)
    about = {"portfolio": package.portfolio, "from": None, "to": None}
    return {**about, **found.model_dump(mode="json")}


def _checked(package: ModelPackage, about: Json) -> Json:
    limits = Limits(score_psi=Limit(watch=drift.MODERATE, recommend=drift.MAJOR))
    policy = MonitoringPolicy(portfolio=package.portfolio, version="1.0.0", limits=limits)
    found = retraining.check(policy, Evidence()).model_dump(mode="json")
    return {
        "check_id": EXAMPLE_ID,
        "time": about["to"],
        **about,
        "monitoring_policy": {"version": policy.version, "sha256": "0" * 64},
        **found,
        "windows": [],
        "decided": None,
    }
