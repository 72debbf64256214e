"""What descriptions of calls are made of, in OpenAPI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from credit_risk.serving import problems

if TYPE_CHECKING:
    from pydantic import BaseModel

    Json = dict[str, Any]

EXAMPLE_ID = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"

REQUEST_ID: Json = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Your id for the request: 1 to 128 visible ASCII characters. It is recorded, "
    "logged and returned; one is made where it is absent or malformed.",
    "schema": {"type": "string"},
}

TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}


def ref(name: str) -> Json:
    """A component of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(properties: Json, *, closed: bool = False) -> Json:
    """An object with these members, all of them required; ``closed`` if it takes no others."""
    schema: Json = {
        "type": "object",
        "required": list(properties),
        "properties": properties,
    }
    if closed:
        schema["additionalProperties"] = False
    return schema


def problem_responses(*slugs: str) -> Json:
    """The problems by their status."""
    by_status: dict[int, list[str]] = {}
    for slug in slugs:
        by_status.setdefault(problems.KINDS[slug].status, []).append(slug)
    return {str(status): problem_response(*by_status[status]) for status in sorted(by_status)}


def problem_response(*slugs: str) -> Json:
    """What answers one status, by the kinds of problem that have it."""
    kinds = [problems.KINDS[slug] for slug in slugs]
    examples = {
        kind.slug: {
            "summary": kind.title,
            "value": kind.problem(kind.advice).to_json(EXAMPLE_ID),
        }
        for kind in kinds
    }
    return {
        "description": "; or ".join(kind.title for kind in kinds),
        "content": {problems.MEDIA_TYPE: {"schema": ref("Problem"), "examples": examples}},
    }


def query_parameters(kind: type[BaseModel]) -> list[Json]:
    """The parameters of a query, as they are checked; null is to leave one out."""
    parameters = []
    schema = kind.model_json_schema()
    for name, described in schema["properties"].items():
        forms = [form for form in described.get("anyOf", [described]) if form != {"type": "null"}]
        form = {k: v for k, v in forms[0].items() if k not in {"title", "default"}}
        required = name in schema.get("required", ())
        parameters.append({"name": name, "in": "query", "required": required, "schema": form})
    return parameters
