"""The HTTP surface: what each call answers, what it refuses and how, and what it leaves behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import re
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from credit_risk import __version__, environment
from credit_risk.audit.log import SqlAuditLog
from credit_risk.serving import app
from monitoring.logs import Line
from tests import served, strategies, toys
from tests.served import BODY_MAX, JSON, ROWS_MAX, SCORING, Broken, Full, Served

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import httpx2
    from starlette.types import Message

    from credit_risk.audit.records import Alongside, Record
    from credit_risk.package import ModelPackage

EXAMPLE = toys.schema().example
SENTINEL = "sentinel-6021023"
NUMBER = 60210230
SINGLE = ("/predict", "/explain", "/predict/explain")
DECISION_FIELDS = {
    "decision_id": str,
    "portfolio": str,
    "probability_of_default": float,
    "prediction": int,
    "risk_band": str,
    "decision": str,
    "reasons": list,
    "model_version": str,
    "policy_version": str,
}


def body(**changed: object) -> bytes:
    """The toy example as JSON, with fields replaced."""
    return json.dumps(EXAMPLE | changed).encode()


def body_with(token: str, field: str = "income") -> bytes:
    """The toy example as JSON, with one field given as this very text."""
    return body(**{field: "@"}).replace(b'"@"', token.encode())


def without(*fields: str) -> bytes:
    """The toy example as JSON, with fields left out."""
    return json.dumps({k: v for k, v in EXAMPLE.items() if k not in fields}).encode()


def named(name: str) -> bytes:
    """The toy example as JSON with one more field, its name as this very text."""
    return f'{{{name}: "{SENTINEL}", '.encode() + body()[1:]


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The request lines, as they are printed."""
    return [
        json.loads(Line().format(record))
        for record in caplog.records
        if record.name == "credit_risk.requests"
    ]


def problem_of(response: httpx2.Response | served.Answer) -> dict[str, Any]:
    """The problem in an answer, its form checked."""
    document: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(document) <= {"type", "title", "status", "detail", "instance", "errors"}
    status = response.status if isinstance(response, served.Answer) else response.status_code
    assert document["status"] == status
    assert document["type"].startswith("/problems/")
    assert document["title"]
    assert document["detail"]
    assert SENTINEL not in json.dumps(document)
    assert str(NUMBER) not in json.dumps(document)
    return document


def only_refusal(
    server: Served,
    caplog: pytest.LogCaptureFixture,
    response: httpx2.Response | served.Answer,
    path: str,
) -> dict[str, Any]:
    """The problem of the one request so far: on record once, logged once, counted once."""
    document = problem_of(response)
    slug, status = document["type"], document["status"]
    assert 400 <= status < 500
    request_id = response.headers["x-request-id"]

    record = server.only_record()
    assert record.kind == "refusal"
    assert document["instance"] == f"urn:uuid:{record.id}"
    assert (record.portfolio, record.request_id) == (toys.NAME, request_id)
    assert record.model_version == server.active.current.version
    assert record.policy_version == server.active.current.policy_version
    assert (record.decision, record.status) == (None, status)
    assert set(record.body) == {"operation", "row", "problem", "latency_ms"}
    assert (record.body["operation"], record.body["row"]) == (path, None)
    assert served.problem_on(record) == document
    assert record.body["latency_ms"] > 0

    (line,) = lines(caplog)
    assert (line["request_id"], line["route"], line["status"]) == (request_id, path, status)
    assert (line["problem"], line["decision_id"], line["decision"]) == (slug, None, None)
    assert SENTINEL not in json.dumps(line)
    assert server.sample("credit_http_requests_total", problem=slug.removeprefix("/problems/")) == 1
    assert server.sample("credit_records_written_total", kind="refusal") == 1
    assert server.sample("credit_records_written_total", kind="decision") == 0
    return document


# What is answered


@pytest.mark.parametrize("path", SINGLE)
def test_a_decision_has_the_documented_fields(server: Served, path: str) -> None:
    """All of them, of their types, and nothing else but the explanation."""
    response = server.post(path, toys.RISKY)

    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    extra = set() if path == "/predict" else {"rules", "explanation"}
    assert set(answer) == set(DECISION_FIELDS) | extra
    for name, kind in DECISION_FIELDS.items():
        assert type(answer[name]) is kind, name
    assert uuid.UUID(answer["decision_id"]).version == 7
    assert answer["portfolio"] == toys.NAME
    assert 0.4 <= answer["probability_of_default"] <= 1.0
    assert (answer["prediction"], answer["risk_band"]) == (1, "VERY_HIGH")
    assert answer["decision"] == "DECLINE"
    assert 1 <= len(answer["reasons"]) <= 4
    for reason in answer["reasons"]:
        assert reason == {
            "code": reason["code"],
            "text": toys.reasons().texts[reason["code"]],
        }
    assert answer["model_version"] == server.active.current.version
    assert answer["policy_version"] == server.active.current.policy_version


def test_an_approval_has_no_reasons(server: Served) -> None:
    """There is nothing adverse to tell."""
    answer = server.post("/predict", toys.SAFE).json()

    assert (answer["decision"], answer["prediction"], answer["reasons"]) == ("APPROVE", 0, [])


def test_a_rule_decides_over_the_score_and_speaks(server: Served) -> None:
    """A price above the limit declines whoever asks, for that reason; the explanation names it."""
    wealthy = toys.SAFE | {"price": 15_001, "income": 90_000}

    answer = server.post("/explain", wealthy).json()

    assert answer["decision"] == "DECLINE"
    assert answer["reasons"][0]["code"] == "PRICE_ABOVE_LIMIT"
    assert answer["rules"] == ["price-above-limit"]
    assert answer["explanation"]["reasons"][0] == {
        "code": "PRICE_ABOVE_LIMIT",
        "fields": ["price"],
        "contribution": None,
    }


@pytest.mark.parametrize("path", ["/explain", "/predict/explain"])
def test_an_explanation_adds_up(server: Served, path: str) -> None:
    """Base value and contributions of every field make the log-odds that make the PD."""
    for application in toys.applications(20):
        answer = server.post(path, application).json()

        explanation = answer["explanation"]
        contributions = explanation["contributions"]
        total = explanation["base_value"] + sum(c["contribution"] for c in contributions)
        assert total == pytest.approx(explanation["log_odds"], abs=1e-9)
        odds = answer["probability_of_default"] / (1 - answer["probability_of_default"])
        assert pytest.approx(odds, rel=1e-9) == 2.718281828459045 ** explanation["log_odds"]
        sizes = [abs(c["contribution"]) for c in contributions]
        assert sizes == sorted(sizes, reverse=True)
        fields = {f.name: f for f in toys.schema().fields}
        assert {c["field"] for c in contributions} == set(fields)
        for c in contributions:
            assert set(c) == {"field", "title", "reason_code", "contribution"}
            assert c["title"] == fields[c["field"]].title
            assert c["reason_code"] == fields[c["field"]].reason


def test_an_explanation_names_its_unit_its_method_and_the_reference_group(
    server: Served,
) -> None:
    """Contributions mean nothing without what they are measured against."""
    explanation = server.post("/explain", toys.RISKY).json()["explanation"]

    package = server.active.current
    assert set(explanation) == {
        *("unit", "method", "base_value", "log_odds"),
        *("contributions", "reasons", "reference_group"),
    }
    assert explanation["unit"] == "log-odds of default"
    assert explanation["method"] == package.model.method
    assert explanation["base_value"] == package.model.base_value
    assert explanation["reference_group"] == {
        "name": "made-up-applicants",
        "description": "50 drawn applicants",
        "rows": 50,
        "rows_used": 50,
        "sha256": package.digests["reference.npz"],
    }


def test_all_calls_decide_alike(any_package: ModelPackage, tmp_path: Path) -> None:
    """Alone, explained or in a batch: same PD, decision, reasons and versions."""
    applications = [*toys.applications(ROWS_MAX - 4), toys.SAFE, toys.RISKY, EXAMPLE]
    applications.append({k: v for k, v in toys.RISKY.items() if k != "years_employed"})
    pd = "probability_of_default"
    compared = set(DECISION_FIELDS) - {"decision_id", pd}
    with served.serving(any_package, tmp_path) as server:
        batch = server.post("/predict/batch", {"applications": applications}).json()
        assert len(batch["results"]) == ROWS_MAX
        for application, row in zip(applications, batch["results"], strict=True):
            assert set(row) == set(DECISION_FIELDS)
            for path in SINGLE:
                alone = server.post(path, application).json()
                assert {k: alone[k] for k in compared} == {k: row[k] for k in compared}


def test_every_decision_has_its_own_id(server: Served) -> None:
    """Ids are unique, in a batch too, and in order of time."""
    one = server.post("/predict", EXAMPLE).json()["decision_id"]
    rows = server.post("/predict/batch", {"applications": [EXAMPLE] * 5}).json()["results"]
    last = server.post("/predict", EXAMPLE).json()["decision_id"]

    ids = [one, *(row["decision_id"] for row in rows), last]
    assert len(set(ids)) == 7
    assert ids == sorted(ids)


def test_a_batch_says_what_became_of_its_rows(server: Served) -> None:
    """Versions once, counts, and one result per row in order."""
    rows = [toys.RISKY, {"age": 34}, toys.SAFE]

    response = server.post("/predict/batch", {"applications": rows})

    answer = response.json()
    results = answer.pop("results")
    assert response.status_code == 200
    assert answer == {
        "portfolio": toys.NAME,
        "model_version": server.active.current.version,
        "policy_version": server.active.current.policy_version,
        "rows": 3,
        "decided": 2,
        "refused": 1,
        "failed": 0,
    }
    assert [results[0]["decision"], results[2]["decision"]] == ["DECLINE", "APPROVE"]
    assert set(results[1]) == {"problem"}


def test_a_batch_may_be_of_one_row_and_of_the_most_rows(server: Served) -> None:
    """Both ends of the range are allowed."""
    for rows in (1, ROWS_MAX):
        answer = server.post("/predict/batch", {"applications": [toys.SAFE] * rows}).json()
        assert answer["decided"] == rows


# What is on record


def test_a_decision_is_on_record_with_all_that_made_it(server: Served) -> None:
    """Whoever asks later finds input, versions, digests, score, decision and reasons."""
    answer = server.post("/explain", toys.RISKY, x_request_id="desk-7").json()

    package = server.active.current
    record = server.only_record()
    assert (record.id, record.kind) == (answer["decision_id"], "decision")
    assert (record.portfolio, record.request_id) == (toys.NAME, "desk-7")
    assert record.time == pytest.approx(uuid7_microseconds(record.id), abs=60_000_000)
    assert record.model_version == answer["model_version"]
    assert record.policy_version == answer["policy_version"]
    assert (record.decision, record.status) == ("DECLINE", 200)
    assert record.personal == {"input": toys.RISKY}
    latency = record.body.pop("latency_ms")
    assert latency > 0
    assert record.body == {
        "operation": "/explain",
        "row": None,
        "package_sha256": package.digest,
        "schema_sha256": package.digests["schema.yaml"],
        "policy_sha256": package.digests["policy.yaml"],
        "reasons_sha256": package.digests["reasons.yaml"],
        "reference_sha256": package.digests["reference.npz"],
        "environment_sha256": environment.here().sha256,
        "probability_of_default": answer["probability_of_default"],
        "log_odds": answer["explanation"]["log_odds"],
        "risk_band": "VERY_HIGH",
        "prediction": 1,
        "scored_decision": "DECLINE",
        "rules": [],
        "reasons": answer["explanation"]["reasons"],
    }


def uuid7_microseconds(text: str) -> int:
    """The time in a UUIDv7, microseconds since the epoch."""
    return (uuid.UUID(text).int >> 80) * 1_000


def test_every_row_of_a_batch_is_on_record_by_itself(server: Served) -> None:
    """A decision's record or a refusal's, found by the id in the answer."""
    rows = [toys.RISKY, {**EXAMPLE, "age": NUMBER}, toys.SAFE]

    response = server.post("/predict/batch", {"applications": rows})

    results = response.json()["results"]
    instance = results[1]["problem"]["instance"].removeprefix("urn:uuid:")
    ids = [results[0]["decision_id"], instance, results[2]["decision_id"]]
    assert len(server.records()) == 3
    for i, (record_id, row) in enumerate(zip(ids, rows, strict=True)):
        record = server.audit.get(record_id)
        assert record.kind == ("refusal" if i == 1 else "decision")
        assert record.status == (422 if i == 1 else 200)
        assert record.request_id == response.headers["x-request-id"]
        assert record.body["operation"] == "/predict/batch"
        assert record.body["row"] == i
        assert record.input == row
    assert served.problem_on(server.audit.get(instance)) == results[1]["problem"]
    assert server.sample("credit_records_written_total", kind="decision") == 2
    assert server.sample("credit_records_written_total", kind="refusal") == 1


@pytest.mark.parametrize("given_id", ["a", "order:17/b?x=1", "~" * 128, "!"])
def test_a_callers_request_id_is_kept(
    server: Served, caplog: pytest.LogCaptureFixture, given_id: str
) -> None:
    """It comes back, is on record and in the log line."""
    response = server.post("/predict", EXAMPLE, x_request_id=given_id)

    assert response.headers["x-request-id"] == given_id
    assert server.only_record().request_id == given_id
    assert lines(caplog)[0]["request_id"] == given_id


@pytest.mark.parametrize(
    "given_id", [b"", b"two words", b"~" * 129, b"caf\xe9", b"tab\tbed", b"\x00", b"a\r\nb: c"]
)
def test_a_malformed_request_id_is_replaced(server: Served, given_id: bytes) -> None:
    """A log is no place for whatever a header can hold."""
    headers = [(b"content-type", b"application/json"), (b"x-request-id", given_id)]

    answer = server.send("/predict", body(), headers)

    assert answer.status == 200
    assert uuid.UUID(answer.headers["x-request-id"]).version == 7
    assert server.only_record().request_id == answer.headers["x-request-id"]


# What is refused

BAD_FIELDS: dict[str, tuple[bytes, list[str]]] = {
    "an unknown field": (body(surprise=SENTINEL), ["/surprise"]),
    "a text for a number": (body(income=SENTINEL), ["/income"]),
    "a number in quotes": (body(age=str(NUMBER)), ["/age"]),
    "a number for a category": (body(history=NUMBER), ["/history"]),
    "an unknown category": (body(use=SENTINEL), ["/use"]),
    "a truth value for a number": (body(age=True), ["/age"]),
    "a list for a number": (body(price=[SENTINEL]), ["/price"]),
    "an object for a category": (body(use={SENTINEL: SENTINEL}), ["/use"]),
    "a fraction of a year": (body(age=34.5), ["/age"]),
    "above the range": (body(price=NUMBER), ["/price"]),
    "below the range": (body(income=-NUMBER), ["/income"]),
    "NaN": (body_with("NaN"), ["/income"]),
    "Infinity": (body_with("Infinity"), ["/income"]),
    "-Infinity": (body_with("-Infinity", "price"), ["/price"]),
    "1e999": (body_with("1e999"), ["/income"]),
    "1e999 for an integer": (body_with("1e999", "age"), ["/age"]),
    "400 digits": (body_with("7" * 400), ["/income"]),
    "400 digits for an integer": (body_with("7" * 400, "age"), ["/age"]),
    "a missing field": (without("age"), ["/age"]),
    "null for a required field": (body(history=None), ["/history"]),
    "nothing at all": (b"{}", ["/age", "/income", "/price", "/history", "/use"]),
    "several at once": (body(age=NUMBER, use=SENTINEL, more=1), ["/age", "/use", "/more"]),
    "an array": (b"[" + body() + b"]", [""]),
    "a number": (str(NUMBER).encode(), [""]),
    "a text": (json.dumps(SENTINEL).encode(), [""]),
    "null": (b"null", [""]),
    "true": (b"true", [""]),
    "a value nested deep": (body_with("[" * 150 + "]" * 150), ["/income"]),
    "a NUL character in a value": (body(use=f"{SENTINEL}\0"), ["/use"]),
    "a NUL character in a name": (named('"a\\u0000b"'), ["/a\0b"]),
    "a slash and a tilde in a name": (named('"a/b~c"'), ["/a~1b~0c"]),
    "a name of a hundred thousand letters": (named(f'"{"n" * 100_000}"'), ["/" + "n" * 64]),
    "a name of nothing": (named('""'), ["/"]),
    "a key twice, the second wrong": (body()[:-1] + b', "age": 5}', ["/age", "/age"]),
    "a key twice, both right": (body()[:-1] + b', "age": 35}', ["/age"]),
    "a key twice, escaped": (body()[:-1] + rb', "\u0061ge": 35}', ["/age"]),
    "an unknown field twice": (body()[:-1] + b', "x": 1, "x": 1}', ["/x", "/x"]),
}
MALFORMED: dict[str, bytes] = {
    "no JSON": SENTINEL.encode(),
    "cut off": body()[:-1],
    "cut off within a text": body(use=SENTINEL)[:-5],
    "an empty body": b"",
    "white space": b" \n",
    "two documents": body() + body(),
    "a comma too many": body()[:-1] + b",}",
    "single quotes": body().replace(b'"', b"'"),
    "a comment": b"/* " + SENTINEL.encode() + b" */" + body(),
    "Latin-1": body(use="@").replace(b"@", "caf\xe9".encode("latin-1")),
    "no UTF-8": b'{"age": "\xff\xfe\xfd"}',
    "UTF-16": body().decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + body(),
    "a lone surrogate in a value": body_with('"\\ud800"', "use"),
    "a lone surrogate in a name": named('"\\udfff"'),
    "half a pair of surrogates": body_with('"\\ud83d\\u0041"', "use"),
    "a hundred thousand brackets": b"[" * 100_000,
    "a hundred thousand objects": b'{"a":' * 20_000,
    "a raw NUL": body(use="@").replace(b"@", b"\x00"),
    "a raw line break": body(use="@").replace(b"@", b"\n"),
    "NUL bytes": b"\x00" * 10,
}


@pytest.mark.parametrize("path", SINGLE)
@pytest.mark.parametrize(("sent", "pointers"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_wrong_application_is_422_and_each_place_is_named(
    server: Served,
    caplog: pytest.LogCaptureFixture,
    path: str,
    sent: bytes,
    pointers: list[str],
) -> None:
    """By JSON pointer and never by its value; on record, logged and counted once."""
    response = server.post(path, sent)

    document = only_refusal(server, caplog, response, path)
    assert document["type"] == "/problems/invalid-application"
    assert [e["pointer"] for e in document["errors"]] == pointers
    assert all(set(e) == {"pointer", "detail"} and e["detail"] for e in document["errors"])


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_json_is_400(
    server: Served, caplog: pytest.LogCaptureFixture, path: str, sent: bytes
) -> None:
    """Whatever is wrong with it; the answer says where the parser stopped."""
    response = server.post(path, sent)

    document = only_refusal(server, caplog, response, path)
    assert document["type"] == "/problems/malformed-json"
    assert re.search(r"line \d+ column \d+$", document["detail"])
    assert "errors" not in document


@pytest.mark.parametrize("field", ["age", "income"])
@pytest.mark.parametrize("path", SCORING)
def test_a_number_of_more_digits_than_can_be_read_is_422(
    server: Served, caplog: pytest.LogCaptureFixture, path: str, field: str
) -> None:
    """It is JSON, and out of range as 1e999 is; only where it stands is told by line and column."""
    sent = body_with("9" * 100_000, field)
    if path == "/predict/batch":
        sent = b'{"applications": [' + sent + b"]}"

    document = only_refusal(server, caplog, server.post(path, sent), path)

    assert document["type"] == "/problems/invalid-application"
    (error,) = document["errors"]
    assert error["pointer"] == ""
    assert re.fullmatch(r"Number out of range at line 1 column \d+", error["detail"])


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_a_batch_that_is_not_json_is_400(
    server: Served, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    """Within the array of applications as anywhere else."""
    response = server.post("/predict/batch", b'{"applications": [' + sent + b"}")

    document = only_refusal(server, caplog, response, "/predict/batch")
    assert document["type"] == "/problems/malformed-json"


BAD_BATCHES: dict[str, tuple[object, list[str]]] = {
    "an array": ([EXAMPLE], [""]),
    "a text": (SENTINEL, [""]),
    "null": (None, [""]),
    "an empty object": ({}, ["/applications"]),
    "a single application": (EXAMPLE, [*(f"/{name}" for name in EXAMPLE), "/applications"]),
    "no rows": ({"applications": []}, ["/applications"]),
    "too many rows": ({"applications": [EXAMPLE] * (ROWS_MAX + 1)}, ["/applications"]),
    "an object for the rows": ({"applications": {"0": EXAMPLE}}, ["/applications"]),
    "a text for the rows": ({"applications": SENTINEL}, ["/applications"]),
    "null for the rows": ({"applications": None}, ["/applications"]),
    "a number for the rows": ({"applications": NUMBER}, ["/applications"]),
    "one key more": ({"applications": [EXAMPLE], "a/b": SENTINEL}, ["/a~1b"]),
    "a long key more": ({"applications": [EXAMPLE], "k" * 100_000: 1}, ["/" + "k" * 64]),
    "a key more and no rows": ({"more": 1, "applications": []}, ["/more", "/applications"]),
}


@pytest.mark.parametrize(("sent", "pointers"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_batch_of_another_shape_is_refused_whole(
    server: Served, caplog: pytest.LogCaptureFixture, sent: object, pointers: list[str]
) -> None:
    """Nothing is decided about any row of it."""
    response = server.post("/predict/batch", sent)

    document = only_refusal(server, caplog, response, "/predict/batch")
    assert document["type"] == "/problems/invalid-application"
    assert [e["pointer"] for e in document["errors"]] == pointers


@pytest.mark.parametrize(("sent", "pointers"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_wrong_row_is_refused_alone(server: Served, sent: bytes, pointers: list[str]) -> None:
    """It has a problem and a record of its own, and its neighbours are decided as ever."""
    risky, safe = (json.dumps(a).encode() for a in (toys.RISKY, toys.SAFE))
    rows = b", ".join((risky, sent, safe))

    answer = server.post("/predict/batch", b'{"applications": [' + rows + b"]}").json()

    assert (answer["rows"], answer["decided"], answer["refused"]) == (3, 2, 1)
    problem = answer["results"][1]["problem"]
    assert (problem["status"], problem["type"]) == (422, "/problems/invalid-application")
    assert [e["pointer"] for e in problem["errors"]] == [f"/applications/1{p}" for p in pointers]
    assert SENTINEL not in json.dumps(problem)
    assert str(NUMBER) not in json.dumps(problem)
    refusal = server.audit.get(problem["instance"].removeprefix("urn:uuid:"))
    assert (refusal.kind, refusal.status, refusal.body["row"]) == ("refusal", 422, 1)
    assert [r.kind for r in server.records()].count("refusal") == 1
    for i, application in ((0, toys.RISKY), (2, toys.SAFE)):
        alone = server.post("/predict", application).json()
        row = answer["results"][i]
        assert {**row, "decision_id": 0} == {**alone, "decision_id": 0}


def test_a_batch_of_wrong_rows_only_decides_nothing(server: Served) -> None:
    """Each is refused; the call itself is answered."""
    response = server.post("/predict/batch", {"applications": [{}, 3, None]})

    answer = response.json()
    assert response.status_code == 200
    assert (answer["decided"], answer["refused"]) == (0, 3)
    assert [r.body["row"] for r in server.records()] == [2, 1, 0]


def test_a_refused_body_is_on_record_as_it_was(server: Served) -> None:
    """With the names and values that are kept from the answer, NaN as a text."""
    server.post("/predict", named('"x"').replace(b"2500.0", b"NaN"))

    assert server.only_record().input == {
        **EXAMPLE,
        "x": SENTINEL,
        "income": "NaN",
    }


@pytest.mark.parametrize("sent", [MALFORMED["cut off"], named('"more"') + b" " * 20_000])
def test_a_body_that_cannot_be_kept_is_on_record_by_its_digest(server: Served, sent: bytes) -> None:
    """Not JSON, or larger than anybody's application."""
    server.post("/predict", sent)

    kept = server.only_record().input
    assert set(kept) == {"bytes", "sha256"}
    assert kept["bytes"] == len(sent)
    assert re.fullmatch("[0-9a-f]{64}", kept["sha256"])


def test_a_body_of_nothing_but_unknown_fields_does_not_come_back_larger(server: Served) -> None:
    """A hundred places are named; the rest are counted."""
    sent = json.dumps({f"a{i}": 1 for i in range(20_000)}).encode()

    response = server.post("/predict", sent)

    assert response.json()["detail"].startswith("20005 places are not as the schema says")
    assert len(response.json()["errors"]) == 100
    assert len(response.content) < len(sent) / 10


@pytest.mark.parametrize("path", SCORING)
@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": 'application/json; charset="utf-16"'},
        {"content-type": "application/json; x=1; charset=utf-16"},
        {"content-type": "application/json; charset=utf-8; charset=utf-16"},
        {"content-type": "application/json; charset"},
        {"content-type": "application/json, application/json"},
        {"content-type": "; charset=utf-8"},
        {"content-type": "caf\xe9/json"},
        {"content-type": "application/vnd.bentoml+pickle"},
        {**JSON, "content-encoding": "gzip"},
        {**JSON, "content-encoding": "br, identity"},
        {**JSON, "Content-Type": "text/plain"},
        {**JSON, "content-encoding": "identity", "Content-Encoding": "gzip"},
    ],
    ids=lambda headers: "+".join(headers.values()),
)
def test_another_media_type_or_encoding_is_415(
    server: Served, caplog: pytest.LogCaptureFixture, path: str, headers: dict[str, str]
) -> None:
    """The body is not even read. A header may come twice."""
    messages: list[Message] = [{"type": "http.request", "body": body(), "more_body": False}]
    raw = [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items() if v]

    answer = server.send(path, messages, raw)

    document = only_refusal(server, caplog, answer, path)
    assert document["type"] == "/problems/unsupported-media-type"
    assert document["status"] == 415
    assert len(messages) == 1
    assert server.only_record().input is None


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        'application/json;Charset = "UTF-8"',
        "application/json; charset=utf-8; x=1",
        'application/json; x="a; charset=utf-16"',
        "application/json;",
        "application/json; version=2",
    ],
)
def test_json_may_be_announced_in_several_ways(server: Served, content_type: str) -> None:
    """Names of media types and charsets have no case."""
    headers = [(b"content-type", content_type.encode()), (b"content-encoding", b"Identity")]

    assert server.send("/predict", body(), headers).status == 200


@pytest.mark.parametrize("path", SCORING)
@pytest.mark.parametrize("length", [str(BODY_MAX + 1), "9" * 5_000])
def test_a_body_announced_as_too_large_is_not_read(
    server: Served, caplog: pytest.LogCaptureFixture, path: str, length: str
) -> None:
    """Its length is enough to refuse it."""
    messages: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]
    headers = [*((k.encode(), v.encode()) for k, v in JSON.items())]
    headers.append((b"content-length", length.encode()))

    answer = server.send(path, messages, headers)

    document = only_refusal(server, caplog, answer, path)
    assert (document["status"], document["type"]) == (413, "/problems/body-too-large")
    assert str(BODY_MAX) in document["detail"]
    assert len(messages) == 1


@pytest.mark.parametrize("path", SCORING)
def test_a_body_that_grows_too_large_is_not_read_on(
    server: Served, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """A caller who announces no length is stopped at the limit."""
    chunk = {"type": "http.request", "body": b" " * 65_536, "more_body": True}
    messages: list[Message] = [dict(chunk) for _ in range(100)]

    answer = server.send(path, messages)

    document = only_refusal(server, caplog, answer, path)
    assert document["status"] == 413
    assert len(messages) == 100 - (BODY_MAX // 65_536 + 1)


def test_a_body_at_the_limit_is_read(server: Served) -> None:
    """The last byte allowed is allowed, announced or in chunks."""
    sent = body().ljust(BODY_MAX)
    halves: list[Message] = [
        {"type": "http.request", "body": sent[:7], "more_body": True},
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "body": sent[7:], "more_body": False},
    ]

    assert server.post("/predict", sent).status_code == 200
    assert server.send("/predict", halves).status == 200


@pytest.mark.parametrize("path", SCORING)
def test_a_caller_who_leaves_within_the_body_is_refused_not_failed(
    server: Served, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """It is no fault of ours, and half an application is none."""
    answer = server.send(path, [{"type": "http.request", "body": body(), "more_body": True}])

    document = only_refusal(server, caplog, answer, path)
    assert (document["status"], document["type"]) == (400, "/problems/malformed-json")
    assert server.only_record().input is None


@pytest.mark.parametrize("path", SCORING)
def test_a_body_that_does_not_come_is_408_and_ends_the_connection(
    server: Served, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Whoever holds a connection open that way holds it no longer."""
    hasty = server.settings.model_copy(update={"request_seconds": 0.01})
    server = Served(server.active, server.audit, hasty)
    sent: list[Message] = [{"type": "http.request", "body": body(), "more_body": True}]

    answer = server.send(path, sent, stays=True)

    document = only_refusal(server, caplog, answer, path)
    assert (document["status"], document["type"]) == (408, "/problems/request-timeout")
    assert document["detail"] == "The body did not arrive within 0.01 seconds"
    assert answer.headers["connection"] == "close"
    assert server.only_record().input is None


@pytest.mark.parametrize(
    ("path", "methods", "allowed"),
    [(path, ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"], {"POST"}) for path in SCORING]
    + [
        (path, ["POST", "PUT", "DELETE", "OPTIONS"], {"GET", "HEAD"})
        for path in ("/", "/health", "/livez", "/readyz", "/version", "/schema", "/openapi.json")
    ]
    + [
        (path, ["POST"], {"GET", "HEAD"})
        for path in ("/metrics", "/docs", "/problems/not-found", "/docs/assets/swagger-ui.css")
    ],
)
def test_another_method_is_405_and_told_which(
    server: Served,
    caplog: pytest.LogCaptureFixture,
    path: str,
    methods: list[str],
    allowed: set[str],
) -> None:
    """The Allow header names what the path takes. Nothing was asked, so nothing is on record."""
    for method in methods:
        response = server.client.request(method, path)

        assert response.status_code == 405
        assert problem_of(response)["type"] == "/problems/method-not-allowed"
        assert {m.strip() for m in response.headers["allow"].split(",")} == allowed
        assert response.headers["x-request-id"]
    assert [line["status"] for line in lines(caplog)] == [405] * len(methods)
    assert server.records() == []


@pytest.mark.parametrize(
    "path",
    [
        *("/nope", "/predict/", "/predictx", "//predict", "/Predict", "/predict/batch/1"),
        *("/docs/", "/docs/assets", "/docs/assets/nope.js", "/docs/assets/../../__init__.py"),
        *("/docs/assets/a\0b", "/docs/assets/" + "a" * 5_000, "/docs/assets/..%2f..%2fx"),
        *("/problems", "/problems/nope", "/problems/not-found/x", "/v2/models", "/" + "z" * 9_999),
        *("/\u2603", "/%", "*", ""),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_there_is_nothing_at_an_unknown_path(
    server: Served, caplog: pytest.LogCaptureFixture, path: str, method: str
) -> None:
    """It is 404 and logged; a redirect would send an application wherever Host says."""
    answer = server.send(path, body(), method=method)

    # A file that is not there may say instead that it takes no POST.
    assert answer.status == 404 or (method == "POST" and answer.status == 405)
    assert problem_of(answer)["type"] in {"/problems/not-found", "/problems/method-not-allowed"}
    assert "location" not in answer.headers
    assert answer.headers["x-request-id"]
    assert len(lines(caplog)) == 1
    assert server.records() == []


# What fails


@pytest.mark.parametrize("path", SCORING)
@pytest.mark.parametrize(
    ("model", "slug"),
    [
        (Broken(ZeroDivisionError), "internal-error"),
        (Broken(RuntimeError), "internal-error"),
        (Broken(MemoryError), "internal-error"),
        (Broken(score=float("nan")), "explanation-failed"),
        (Broken(score=float("inf")), "explanation-failed"),
        (Broken(contribution=0.3), "explanation-failed"),
        (Broken(contribution=float("nan")), "explanation-failed"),
    ],
    ids=[
        "raises",
        "raises another",
        "out of memory",
        "NaN",
        "infinity",
        "adds up to less",
        "adds NaN",
    ],
)
def test_a_failing_model_decides_nothing(
    server: Served,
    caplog: pytest.LogCaptureFixture,
    path: str,
    model: Broken,
    slug: str,
) -> None:
    """500 without a word of the inside; the failure is on record and in the log."""
    server.active.current = replace(server.active.current, model=model)
    sent = {"applications": [toys.SAFE, {}]} if path == "/predict/batch" else toys.SAFE

    response = server.post(path, sent)

    document = problem_of(response)
    assert (response.status_code, document["type"]) == (500, f"/problems/{slug}")
    for inside in (served.MODEL_SAYS, "Traceback", "Error", ".py", "numpy"):
        assert inside not in response.text
    record = server.only_record()
    assert (record.kind, record.status, record.decision) == ("failure", 500, None)
    assert document["instance"] == f"urn:uuid:{record.id}"
    assert record.input == sent
    assert served.problem_on(record) == document
    assert record.request_id == response.headers["x-request-id"]
    assert record.model_version == server.active.current.version
    (line,) = lines(caplog)
    assert (line["status"], line["problem"]) == (500, f"/problems/{slug}")
    assert [r for r in caplog.records if r.levelname == "ERROR" and r.exc_info]
    assert server.sample("credit_records_written_total", kind="failure") == 1
    assert server.sample("credit_records_written_total", kind="decision") == 0


def test_a_failure_does_not_outlast_itself(server: Served) -> None:
    """The next request is decided."""
    whole = server.active.current
    server.active.current = replace(whole, model=Broken(ZeroDivisionError))
    assert server.post("/predict", EXAMPLE).status_code == 500

    server.active.current = whole
    assert server.post("/predict", EXAMPLE).status_code == 200


@pytest.mark.parametrize("path", SCORING)
def test_what_cannot_be_recorded_is_not_decided(
    trees_package: ModelPackage, tmp_path: Path, path: str
) -> None:
    """503, when to try again, and no decision."""
    sent = {"applications": [EXAMPLE, {}]} if path == "/predict/batch" else EXAMPLE
    with served.serving(trees_package, tmp_path, Full) as server:
        response = server.post(path, sent)

        document = problem_of(response)
        assert (response.status_code, document["type"]) == (503, "/problems/not-recorded")
        assert "instance" not in document
        assert response.headers["retry-after"] == "1"
        for told in ("decision_id", "probability", "VERY_HIGH", "APPROVE", "DECLINE", "disk"):
            assert told not in response.text
        assert server.records() == []
        assert server.sample("credit_http_requests_total", problem="not-recorded") == 1
        for counted in ("decisions", "reasons", "feature_bin", "records_written"):
            assert server.sample(f"credit_{counted}_total") == 0


@pytest.mark.parametrize("path", SCORING)
def test_a_refusal_or_failure_that_cannot_be_recorded_is_503_too(
    trees_package: ModelPackage, tmp_path: Path, path: str
) -> None:
    """There is no answer without its evidence, whatever the answer."""
    with served.serving(trees_package, tmp_path, Full) as server:
        assert server.post(path, b"{").status_code == 503
        assert server.post(path, EXAMPLE, content_type="text/plain").status_code == 503
        server.active.current = replace(trees_package, model=Broken(ZeroDivisionError))
        sent = {"applications": [EXAMPLE]} if path == "/predict/batch" else EXAMPLE
        assert server.post(path, sent).status_code == 503


def test_the_database_that_comes_back_is_used_again(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """A real file that goes and returns: 503 meanwhile, and nothing of that time is decided."""
    database, aside = tmp_path / "records.db", tmp_path / "aside.db"
    with served.serving(trees_package, tmp_path) as server:
        assert server.post("/predict", EXAMPLE).status_code == 200
        database.rename(aside)
        assert server.post("/predict", EXAMPLE).status_code == 503

        aside.rename(database)
        assert server.post("/predict", EXAMPLE).status_code == 200
        assert len(server.records()) == 2


class Slow(SqlAuditLog):
    """An audit log that keeps the first group waiting."""

    stuck = False

    async def record(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> None:
        """The first one waits for longer than any deadline here."""
        if not self.stuck:
            self.stuck = True
            await asyncio.sleep(60.0)
        await super().record(records, alongside=alongside)


@pytest.mark.parametrize("path", SCORING)
def test_what_is_not_decided_in_time_is_503_and_on_record(
    trees_package: ModelPackage, tmp_path: Path, path: str
) -> None:
    """As a failure; the caller is told when to try again."""
    sent = {"applications": [EXAMPLE]} if path == "/predict/batch" else EXAMPLE
    with served.serving(trees_package, tmp_path, Slow) as whole:
        hurried = whole.settings_with(deadline_seconds=1.0, batch_deadline_seconds=1.0)
        response = hurried.post(path, sent)

        document = problem_of(response)
        assert (response.status_code, document["type"]) == (503, "/problems/deadline-exceeded")
        assert response.headers["retry-after"] == "1"
        record = hurried.only_record()
        assert (record.kind, record.status, record.input) == ("failure", 503, sent)


@pytest.mark.parametrize("path", SCORING)
def test_what_is_too_much_is_turned_away_at_once(
    trees_package: ModelPackage, tmp_path: Path, path: str
) -> None:
    """503 and when to try again; counted, and not on record, for nothing was begun."""
    sent = {"applications": [EXAMPLE]} if path == "/predict/batch" else EXAMPLE
    with served.serving(trees_package, tmp_path) as server:
        full = server.settings_with(waiting_rows_max=1, batch_rows_max=1)
        with (
            full.batcher.admitted(trees_package, 1, 60.0),
            full.batcher.admitted(trees_package, 1, 60.0),
        ):
            response = full.post(path, sent)

        document = problem_of(response)
        assert (response.status_code, document["type"]) == (503, "/problems/overloaded")
        assert response.headers["retry-after"] == "1"
        assert "instance" not in document
        assert full.records() == []
        assert full.sample("credit_http_requests_total", problem="overloaded") == 1
        assert full.post(path, sent).status_code == 200


def test_many_results_are_written_as_few_are(trees_package: ModelPackage, tmp_path: Path) -> None:
    """In turns, and so that nobody can tell."""
    with served.serving(trees_package, tmp_path) as server:
        wide = server.settings_with(batch_rows_max=300)
        answer = wide.post("/predict/batch", {"applications": [EXAMPLE, {}] * 100}).json()

    assert [*answer][-1] == "results"
    assert (answer["rows"], len(answer["results"])) == (200, 200)
    assert ["problem" in row for row in answer["results"]] == [False, True] * 100


def test_a_failure_outside_scoring_is_a_problem_too(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Every path: 500 as problem+json, the error in the log alone."""
    server.active.current = replace(server.active.current, model=Broken(ZeroDivisionError))

    response = server.get("/openapi.json")

    assert response.status_code == 500
    assert problem_of(response)["type"] == "/problems/internal-error"
    assert served.MODEL_SAYS not in response.text
    (line,) = lines(caplog)
    assert (line["status"], line["problem"]) == (500, "/problems/internal-error")
    assert served.MODEL_SAYS in caplog.text


# What may be asked about the server


def test_a_program_that_asks_for_the_root_gets_the_status(server: Served) -> None:
    """Who decides, and where to read on."""
    response = server.get("/")

    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "service": "credit-risk-server",
        "portfolio": toys.NAME,
        "model_version": server.active.current.version,
        "policy_version": server.active.current.policy_version,
        "docs": "/docs",
        "openapi": "/openapi.json",
    }


def test_a_browser_that_asks_for_the_root_is_led_to_the_docs(server: Served) -> None:
    """By a relative address, so that it works behind a proxy's path."""
    response = server.get("/", accept="text/html,application/xhtml+xml,*/*;q=0.8")

    assert (response.status_code, response.headers["location"]) == (307, "docs")


def test_the_process_is_alive(server: Served) -> None:
    """Whatever else is wrong."""
    server.active.current = replace(server.active.current, model=Broken(ZeroDivisionError))

    response = server.get("/livez")

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_a_server_that_works_is_ready_and_healthy(server: Served) -> None:
    """Golden records get their golden answers, and records can be written."""
    ready, health = server.get("/readyz"), server.get("/health")

    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert health.status_code == 200
    assert health.json() == {
        "status": "ok",
        "portfolio": toys.NAME,
        "model_version": server.active.current.version,
        "policy_version": server.active.current.policy_version,
        "checks": {"model": "ok", "records": "ok", "activation": "ok"},
    }
    assert server.records() == []


def test_a_model_that_answers_a_golden_record_otherwise_is_not_ready(server: Served) -> None:
    """Something is wrong with the package or this machine: nobody should send it applications."""
    package = server.active.current
    wrong = package.golden[0].model_copy(update={"probability_of_default": 0.5})
    server.active.current = replace(package, golden=(wrong, *package.golden[1:]))

    ready, health = server.get("/readyz"), server.get("/health")

    document = problem_of(ready)
    assert (ready.status_code, document["type"]) == (503, "/problems/not-ready")
    assert ready.headers["retry-after"] == "1"
    assert "golden record 0" in document["detail"]
    assert (health.status_code, health.json()["status"]) == (503, "failing")
    assert "golden record 0" in health.json()["checks"]["model"]
    assert health.json()["checks"]["records"] == "ok"


def test_a_model_that_fails_unexpectedly_is_a_failed_check_and_not_a_failed_request(
    server: Served,
) -> None:
    """Health names the check and the kind of error, whatever it was."""
    server.active.current = replace(server.active.current, model=Broken(ZeroDivisionError))

    ready, health = server.get("/readyz"), server.get("/health")

    assert (ready.status_code, problem_of(ready)["type"]) == (503, "/problems/not-ready")
    assert health.status_code == 503
    assert health.json()["checks"]["model"] == "ZeroDivisionError"
    assert health.json()["checks"]["records"] == "ok"


def test_a_server_that_cannot_record_is_not_ready(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """It could decide nothing."""
    with served.serving(trees_package, tmp_path) as server:
        server.audit.close()

        ready, health = server.get("/readyz"), server.get("/health")

    assert ready.status_code == 503
    assert "records: the audit log is closed" in problem_of(ready)["detail"]
    assert health.status_code == 503
    assert health.json()["checks"] == {
        "model": "ok",
        "records": "the audit log is closed",
        "activation": "ok",
    }


class Stuck(SqlAuditLog):
    """An audit log whose database takes for ever."""

    def ping(self) -> concurrent.futures.Future[None]:
        """A promise that nobody keeps."""
        return concurrent.futures.Future()


def test_readiness_does_not_wait_for_ever(
    trees_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that does not answer is a database that fails."""
    monkeypatch.setattr(app, "PING_SECONDS", 0.01)
    with served.serving(trees_package, tmp_path, Stuck) as server:
        ready = server.get("/readyz")

        assert ready.status_code == 503
        assert "the record database does not answer" in problem_of(ready)["detail"]


def test_a_server_that_is_about_to_stop_is_not_ready_but_decides(server: Served) -> None:
    """So nobody sends it more, and what is sent all the same is answered: for the last time."""
    assert "connection" not in server.get("/readyz").headers
    server.stopping.begun = True

    ready, decided = server.get("/readyz"), server.post("/predict", body())

    assert problem_of(ready)["type"] == "/problems/not-ready"
    assert ready.headers["retry-after"] == "1"
    assert (server.get("/livez").status_code, decided.status_code) == (200, 200)
    assert decided.headers["connection"] == ready.headers["connection"] == "close"


def test_a_fault_of_activation_is_told_but_the_server_is_well(server: Served) -> None:
    """The package before goes on deciding, so nothing is to be taken away from callers."""
    server.active.fault = "version 0123 was activated but cannot be loaded: trees.npz was altered"

    health = server.get("/health")

    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert "trees.npz was altered" in health.json()["checks"]["activation"]
    assert server.get("/readyz").status_code == 200


def test_the_versions_and_digests_of_all_that_decides_are_told(server: Served) -> None:
    """They are those of the decisions and of the records."""
    package = server.active.current

    answer = server.get("/version").json()

    assert answer["service"]["version"] == __version__
    assert re.fullmatch(r"1\.4\.\d+", answer["service"]["bentoml"])
    assert answer["portfolio"] == toys.NAME
    assert answer["model"] == {
        "version": package.version,
        "sha256": package.digest,
        "estimator": "written by hand",
        "kind": "trees",
        "signed_by": [],
    }
    assert answer["policy"]["version"] == package.policy_version
    assert answer["schema"]["version"] == answer["reasons"]["version"] == "1.0.0"
    assert answer["reference_group"]["name"] == package.provenance.reference.name
    server.post("/predict", EXAMPLE)
    record = server.only_record()
    assert record.model_version == answer["model"]["version"]
    assert record.policy_version == answer["policy"]["version"]
    assert record.body["package_sha256"] == answer["model"]["sha256"]
    for part in ("schema", "policy", "reasons"):
        assert record.body[f"{part}_sha256"] == answer[part]["sha256"]
        assert answer[part]["sha256"] == package.digests[f"{part}.yaml"]
    assert record.body["reference_sha256"] == answer["reference_group"]["sha256"]


def test_the_schema_has_units_ranges_and_allowed_values(server: Served) -> None:
    """As JSON Schema, so that a caller's own tools can check an application first."""
    response = server.get("/schema")

    schema = response.json()
    assert response.headers["content-type"] == "application/schema+json"
    assert list(schema["properties"]) == list(toys.schema().names)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["age"]["x-unit"] == "years"
    assert (schema["properties"]["age"]["minimum"], schema["properties"]["age"]["maximum"]) == (
        18,
        100,
    )
    assert schema["properties"]["use"]["enum"] == ["cargo", "commuting", "racing"]
    assert "years_employed" not in schema["required"]


@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/livez", "/readyz", "/version", "/schema", "/openapi.json", "/docs"],
)
def test_head_answers_as_get_without_a_body(server: Served, path: str) -> None:
    """Monitors that send HEAD are served."""
    assert server.client.head(path).status_code == server.get(path).status_code == 200
    assert server.client.head(path).content == b""


def test_a_problem_type_leads_to_what_it_means(server: Served) -> None:
    """JSON for programs, a page for browsers."""
    uri = server.post("/predict", b"{").json()["type"]

    told = server.get(uri).json()
    page = server.get(uri, accept="text/html")

    assert (told["type"], told["status"]) == (uri, 400)
    assert "UTF-8" in told["advice"]
    assert page.headers["content-type"].startswith("text/html")
    assert told["advice"] in page.text


def test_a_decision_taken_before_a_switch_is_answered_as_it_was_made(
    server: Served, linear_package: ModelPackage
) -> None:
    """One package from the first byte to the answer: its decision, its versions, its record."""
    before = server.active.current
    sent = body()

    class Switching(list[Any]):
        """Messages; while the last one is read, another package becomes the active one."""

        def pop(self, index: Any = -1) -> Any:  # noqa: ANN401 - as list has it
            if len(self) == 1:
                server.active.current = linear_package
            return super().pop(index)

    messages = Switching(
        [
            {"type": "http.request", "body": sent[:9], "more_body": True},
            {"type": "http.request", "body": sent[9:], "more_body": False},
        ]
    )
    first = server.send("/predict", messages).json()
    second = server.post("/predict", EXAMPLE).json()

    assert first["model_version"] == before.version
    assert second["model_version"] == linear_package.version != before.version
    assert first["probability_of_default"] != second["probability_of_default"]
    assert server.audit.get(first["decision_id"]).model_version == before.version
    assert (
        server.get("/openapi.json").json()["paths"]["/predict"]["post"]["responses"]["200"][
            "content"
        ]["application/json"]["example"]["model_version"]
        == linear_package.version
    )


# Whatever is sent


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NEARLY = st.dictionaries(
    st.sampled_from(toys.schema().names) | st.text(max_size=5), ANY_JSON, max_size=8
).map(lambda changed: EXAMPLE | changed)


@pytest.mark.parametrize("path", SCORING)
@examples(max_examples=100)
@given(sent=st.binary(max_size=200))
def test_no_bytes_make_it_fail(long_lived: Served, path: str, sent: bytes) -> None:
    """They are refused."""
    answer = long_lived.send(path, sent)

    assert answer.status in {400, 422}
    problem_of(answer)


@pytest.mark.parametrize("path", SCORING)
@examples(max_examples=50)
@given(sent=ANY_JSON | NEARLY | st.fixed_dictionaries({"applications": st.lists(NEARLY)}))
def test_no_json_makes_it_fail(long_lived: Served, path: str, sent: object) -> None:
    """It is decided or refused."""
    answer = long_lived.send(path, json.dumps(sent).encode())

    assert answer.status in {200, 400, 422}
    if answer.status != 200:
        problem_of(answer)


@pytest.mark.parametrize("path", SINGLE)
@examples(max_examples=100)
@given(application=strategies.applications(toys.schema()))
def test_every_application_that_the_schema_allows_is_decided_and_recorded(
    long_lived: Served, path: str, application: dict[str, Any]
) -> None:
    """With a reason unless approved; what is on record is what was answered."""
    answer = long_lived.send(path, json.dumps(application).encode())

    assert answer.status == 200
    decision = answer.json()
    assert 0.0 <= decision["probability_of_default"] <= 1.0
    assert bool(decision["reasons"]) == (decision["decision"] != "APPROVE")
    record = long_lived.audit.get(decision["decision_id"])
    assert record.decision == decision["decision"]
    assert record.input == application
    assert record.body["probability_of_default"] == decision["probability_of_default"]
    codes = [reason["code"] for reason in record.body["reasons"]]
    assert codes == [reason["code"] for reason in decision["reasons"]]


@examples(max_examples=40)
@given(
    rows=st.lists(
        strategies.applications(toys.schema()) | NEARLY | ANY_JSON, min_size=1, max_size=ROWS_MAX
    )
)
def test_a_batch_of_anything_is_answered_row_by_row(long_lived: Served, rows: list[Any]) -> None:
    """Each row as it would be alone: decided, or refused for the same places."""
    sent = json.dumps({"applications": rows}).encode()

    answer = long_lived.send("/predict/batch", sent)

    if answer.status == 400:  # a lone surrogate somewhere spoils the whole document
        assert "json" in answer.json()["type"]
        return
    results = answer.json()["results"]
    assert len(results) == len(rows)
    for i, (row, result) in enumerate(zip(rows, results, strict=True)):
        alone = long_lived.send("/predict", json.dumps(row).encode()).json()
        if "problem" in result:
            places = [e["pointer"] for e in result["problem"]["errors"]]
            assert places == [f"/applications/{i}{e['pointer']}" for e in alone["errors"]]
        else:
            assert {**result, "decision_id": 0} == {**alone, "decision_id": 0}
