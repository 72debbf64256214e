"""The OpenAPI document: valid, complete, true to the server, and every example works."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
import schemathesis
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from starlette.routing import Route

from credit_risk.decisions import new_id
from credit_risk.serving import openapi, problems
from credit_risk.serving.app import routes
from credit_risk.serving.once import HEADER, KEY_PATTERN
from tests import served, toys
from tests.audit.test_proofs import checked
from tests.served import ROWS_MAX, SCORING, Served
from tests.test_regimes import regime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemathesis.engine.recorder import ScenarioRecorder
    from starlette.types import ASGIApp, Receive, Scope, Send

    from credit_risk.package import ModelPackage

    Json = dict[str, Any]

ON_RECORD = (["Cases"], ["Monitoring"])
"""Tags of calls about what is on record, so that their examples need it."""
REFERRED = toys.SAFE | {"years_employed": None}
FOR_BROWSERS = {"/docs"}
"""Pages: no program calls them."""


@pytest.fixture(scope="module", params=toys.KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of each toy package in turn."""
    package: ModelPackage = request.getfixturevalue(f"{request.param}_package")
    with served.serving(package, tmp_path_factory.mktemp("openapi")) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: Served) -> Json:
    """The document as it is served."""
    response = server.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    document: Json = response.json()
    return document


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, method and description of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def validator(document: Json, schema: Json) -> jsonschema_rs.Draft202012Validator:
    """A validator of one of the document's schemas, its references resolved."""
    return jsonschema_rs.Draft202012Validator(
        schema | {"components": document["components"]}, validate_formats=True
    )


def test_it_is_valid_openapi_3_1(document: Json) -> None:
    """By the specification's own schema."""
    OPENAPI_31_VALIDATOR.validate(document)
    assert document["openapi"] == "3.1.0"


def test_every_schema_in_it_is_valid_and_every_reference_leads_somewhere(document: Json) -> None:
    """JSON Schema 2020-12, the default of OpenAPI 3.1."""
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)):
        assert name.removeprefix("#/components/schemas/") in schemas
    for schema in schemas.values():
        jsonschema_rs.meta.validate(schema)
        validator(document, schema)


def test_the_document_and_the_server_have_the_same_calls(server: Served, document: Json) -> None:
    """Every route for programs is described with its method, and nothing else is."""
    listed = {
        (route.path, method.lower())
        for route in routes(server.calls)
        for method in route.methods or ()
        if route.path not in FOR_BROWSERS and method != "HEAD"
    }

    assert {(path, method) for path, method, _ in operations(document)} == listed
    assert all(isinstance(route, Route) for route in routes(server.calls))


def test_every_call_says_what_it_does_and_answers(document: Json) -> None:
    """Each has a summary, a tag, a 200 with its form, and its problems as problems."""
    for path, _, operation in operations(document):
        assert operation["summary"], path
        assert operation["tags"] in (["Decisions"], ["Service"], *ON_RECORD), path
        assert operation["responses"]["200"]["content"], path
        for status, response in operation["responses"].items():
            assert response["description"], path
            if int(status) >= 400 and path != "/health":
                (media_type,) = response["content"]
                assert media_type == "application/problem+json"
    for path in SCORING:
        statuses = set(document["paths"][path]["post"]["responses"])
        assert statuses == {"200", "400", "408", "409", "413", "415", "422", "500", "503"}


def test_every_call_has_a_name_of_its_own(document: Json) -> None:
    """Generated clients call their functions by it, so it stays."""
    names = {path: operation["operationId"] for path, _, operation in operations(document)}

    assert len(set(names.values())) == len(names)
    assert all(re.fullmatch("[a-z_]+", name) for name in names.values())
    assert {path: names[path] for path in SCORING} == {
        "/predict": "predict",
        "/explain": "explain",
        "/predict/explain": "predict_explain",
        "/predict/batch": "predict_batch",
    }


def test_every_kind_of_problem_that_a_call_can_have_is_told(document: Json) -> None:
    """In the words of its title, where the status is described."""
    for path in SCORING:
        responses = document["paths"][path]["post"]["responses"]
        for slug in (
            *("malformed-json", "request-timeout", "body-too-large", "unsupported-media-type"),
            *("malformed-idempotency-key", "idempotency-key-in-use", "idempotency-key-reused"),
            *("overloaded", "deadline-exceeded"),
            *("invalid-application", "internal-error", "explanation-failed", "not-recorded"),
        ):
            kind = problems.KINDS[slug]
            assert kind.title in responses[str(kind.status)]["description"]
    assert document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"] == [
        kind.uri for kind in problems.KINDS.values()
    ]


def test_the_application_is_the_schema_that_validates(server: Served, document: Json) -> None:
    """One list of fields: /schema and the document have the same, limits included."""
    schemas = document["components"]["schemas"]

    assert schemas["Application"] == server.get("/schema").json()
    assert schemas["Batch"]["properties"]["applications"]["maxItems"] == ROWS_MAX
    assert schemas["Batch"]["additionalProperties"] is False


def test_the_example_of_every_scoring_call_works_as_given(server: Served, document: Json) -> None:
    """Posted as it stands, it gets the answer that stands beside it, but for the ids."""
    for path in SCORING:
        operation = document["paths"][path]["post"]
        sent = operation["requestBody"]["content"]["application/json"]["example"]
        promised = operation["responses"]["200"]["content"]["application/json"]["example"]

        response = server.post(path, sent)

        assert response.status_code == 200
        assert without_ids(response.json()) == without_ids(promised)


def without_ids(answer: Json) -> Json:
    """An answer without the ids of its decisions."""
    answer = {k: v for k, v in answer.items() if k != "decision_id"}
    if "results" in answer:
        answer["results"] = [without_ids(row) for row in answer["results"]]
    return answer


def test_the_example_of_every_other_call_is_what_it_answers(server: Served, document: Json) -> None:
    """Every call of the document has a working example."""
    for path, method, operation in operations(document):
        if (
            method == "post"
            or path in {"/openapi.json", "/metrics"}
            or operation["tags"] in ON_RECORD
        ):
            continue
        url = path
        for parameter in operation.get("parameters", ()):
            url = url.replace(f"{{{parameter['name']}}}", parameter["example"])
        (content,) = operation["responses"]["200"]["content"].values()

        assert server.get(url).json() == content["example"], path


def test_the_example_of_a_notice_is_what_a_decline_gets(server: Served, document: Json) -> None:
    """But for its id and its times."""
    declined = next(g for g in server.active.current.golden if g.decision == "DECLINE")
    decision_id = server.post("/predict", declined.application).json()["decision_id"]
    operation = document["paths"]["/decisions/{id}/notice"]["get"]
    promised = operation["responses"]["200"]["content"]["application/json"]["example"]

    given = server.get(f"/decisions/{decision_id}/notice").json()

    assert given["decision_id"] == decision_id
    for name in ("from", "deadline"):
        given["notification"][name] = promised["notification"][name]
    assert given | {"decision_id": promised["decision_id"]} == promised


def test_the_examples_of_a_record_and_a_replay_are_what_a_decision_gets(
    server: Served, document: Json
) -> None:
    """But for ids, time and latency."""
    decision_id = server.post("/predict", server.active.current.schema.example).json()[
        "decision_id"
    ]
    for path, method, own in (
        ("/decisions/{id}", "get", ("id", "time", "request_id")),
        ("/decisions/{id}/replay", "post", ("decision_id",)),
    ):
        operation = document["paths"][path][method]
        content = operation["responses"]["200"]["content"]["application/json"]
        promised = copy.deepcopy(content["example"])

        given = server.client.request(method, path.replace("{id}", decision_id)).json()

        for answer in (given, promised):
            answer.get("body", {}).pop("latency_ms", None)
            for name in own:
                assert answer.pop(name)
        assert given == promised


def test_the_examples_of_a_review_work_one_after_the_other(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """What one referred decision goes through: claimed, released, decided; and the queue."""
    with served.serving(trees_package, tmp_path) as server:
        paths = server.get("/openapi.json").json()["paths"]
        decision_id = server.post("/predict", REFERRED).json()["decision_id"]
        untouched = paths["/decisions/{id}/case"]["get"]["responses"]["200"]["content"]
        case = server.get(f"/decisions/{decision_id}/case").json()
        assert timeless(case) == timeless(untouched["application/json"]["example"])
        for name, states in (("claim", ["claimed"]), ("release", ["open"]), ("review", [])):
            operation = paths[f"/decisions/{{id}}/{name}"]["post"]
            sent = operation["requestBody"]["content"]["application/json"]["example"]
            promised = operation["responses"]["200"]["content"]["application/json"]["example"]

            given = server.post(f"/decisions/{decision_id}/{name}", sent).json()

            assert timeless(given) == timeless(promised)
            queue = server.get("/reviews").json()["reviews"]
            assert [row["state"] for row in queue] == states
        story = server.get(f"/decisions/{decision_id}/case")
        validator(
            server.get("/openapi.json").json(), {"$ref": "#/components/schemas/Story"}
        ).validate(story.json())
        server.post("/predict", REFERRED)
        promised = paths["/reviews/summary"]["get"]["responses"]["200"]["content"]
        given = server.get("/reviews/summary").json()
        assert set(given) == set(promised["application/json"]["example"])
        assert given["reviews"]["approved"] == 1


def timeless(case: Json) -> Json:
    """A case without its times and the id of its decision."""
    closed = {k: v for k, v in (case["closed"] or {}).items() if k != "closed"}
    return {k: v for k, v in case.items() if k not in {"decision_id", "decided", "until"}} | {
        "closed": closed
    }


def test_the_examples_have_the_form_that_is_promised(document: Json) -> None:
    """Of requests and of answers."""
    checked = 0
    for _, _, operation in operations(document):
        contents = [r.get("content", {}) for r in operation["responses"].values()]
        contents.append(operation.get("requestBody", {}).get("content", {}))
        for content in contents:
            for described in content.values():
                if "example" in described:
                    validator(document, described["schema"]).validate(described["example"])
                    checked += 1
    # Of four calls what is answered, of three steps what is sent too, of the queue two; of the
    # model in use eight answers, and what is sent to three.
    assert checked == 2 * len(SCORING) + 7 + 5 + 2 * 3 + 2 + 8 + 3


def test_the_documents_words_name_who_decides(server: Served, document: Json) -> None:
    """Portfolio, model and policy, and the cut-off behind the prediction."""
    package = server.active.current
    info = document["info"]

    assert info["title"] == f"Credit-risk decisions: {package.schema.title}"
    for name in (package.portfolio, package.version, package.policy_version):
        assert name in info["description"]
    prediction = document["components"]["schemas"]["Decision"]["properties"]["prediction"]
    assert str(package.policy.cut_off) in prediction["description"]


def test_an_answer_to_the_refused_has_the_promised_form(server: Served, document: Json) -> None:
    """Problems of each status, and the problem of a row."""
    problem = validator(document, document["components"]["schemas"]["Problem"])
    for response in (
        server.post("/predict", b"{"),
        server.post("/predict", {"age": 1, "more": 2}),
        server.post("/predict", b" " * (served.BODY_MAX + 1)),
        server.post("/predict", {}, content_type="text/plain"),
        server.get("/nope"),
        server.get("/predict"),
    ):
        problem.validate(response.json())
    batch = validator(document, document["components"]["schemas"]["BatchResult"])
    batch.validate(server.post("/predict/batch", {"applications": [{}, toys.RISKY]}).json())


def test_the_document_follows_the_active_package(
    server: Served, trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """Who reads it after a switch reads of the package that decides now."""
    here = server.active.current
    other = linear_package if here is trees_package else trees_package
    try:
        server.active.current = other
        assert other.version in server.get("/openapi.json").json()["info"]["description"]
    finally:
        server.active.current = here
    assert here.version in server.get("/openapi.json").json()["info"]["description"]


def test_without_answers_the_other_calls_have_no_example(trees_package: ModelPackage) -> None:
    """They are the server's to give."""
    document = openapi.document(trees_package, served.settings(trees_package.path), {}, regime())

    OPENAPI_31_VALIDATOR.validate(document)
    assert "example" not in str(document["paths"]["/livez"])


def test_every_call_answers_as_the_document_says(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """Right and wrong requests, made up from the document: statuses, types, headers and forms."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {"max-examples": 20, "deterministic": True, "database": "none"},
            "cache": {"enabled": False},
            # Calls follow from each other only where links say so; there are none.
            "phases": {"stateful": {"enabled": False}},
            "operations": [
                *(
                    {
                        # A wrong row is no error of the call: it is answered in its place.
                        "include-path": path,
                        "checks": {"negative_data_rejection": {"enabled": False}},
                    }
                    for path in ("/predict/batch", "/outcomes")
                ),
                *(
                    {
                        # A window is a period or two times in order, which no form can say.
                        "include-path": path,
                        "checks": {"positive_data_acceptance": {"enabled": False}},
                    }
                    for path in (
                        *(f"/monitor/{name}" for name in ("drift", "performance", "fairness")),
                        *("/monitor/challenger", "/reviews/summary"),
                    )
                ),
            ],
        }
    )
    with served.serving(trees_package, tmp_path) as server:
        app = with_new_keys(server.app)
        described = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
        tried: set[str] = set()
        wrong: list[str] = []
        for event in engine.from_schema(described).execute():
            if isinstance(event, events.ScenarioFinished):
                tried.add(event.recorder.label)
                wrong += failures(event.recorder)
            elif isinstance(event, events.NonFatalError):
                wrong.append(f"{event.label}: {event.value}")
            elif isinstance(event, events.FatalError):
                raise event.exception

        assert wrong == []
        every = {f"{m.upper()} {path}" for path, m, _ in operations(described.raw_schema)}
        assert tried == every - {"GET /openapi.json"}  # read at the start
        assert {record.kind for record in server.records()} == {
            *("decision", "refusal", "retraining-check")
        }


def with_new_keys(app: ASGIApp) -> ASGIApp:
    """The application, to which each key is new: those that are made up are soon alike."""

    async def renewing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [(name, renewed(name, value)) for name, value in scope["headers"]]
        await app(scope, receive, send)

    def renewed(name: bytes, value: bytes) -> bytes:
        well_formed = name == HEADER and re.fullmatch(KEY_PATTERN, value.decode("latin-1"))
        return new_id().encode() if well_formed else value

    return renewing


def failures(recorder: ScenarioRecorder) -> list[str]:
    """What was wrong with answers, each with the request that shows it."""
    return [
        f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
        for checks in recorder.checks.values()
        for check in checks
        if check.failure_info is not None
    ]


def test_the_example_of_a_proof_proves_something(document: Json, tmp_path: Path) -> None:
    """To the script that checks proofs, by the public key in it."""
    operation = document["paths"]["/decisions/{id}/proof"]["get"]
    example = operation["responses"]["200"]["content"]["application/json"]["example"]

    assert checked(tmp_path, example, example["public_key"])[0] == 0
