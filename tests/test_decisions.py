"""The use case: nothing is answered that is not recorded first."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from credit_risk.decisions import RECORDED_INPUT_MAX, Call, Desk, Problem, new_id
from credit_risk.errors import ApplicationInvalid, ExplanationFailed, FieldError, RecordingFailed
from tests import toys

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from credit_risk.audit import AuditLog, Record, RecordKind
    from credit_risk.package import ModelPackage
    from credit_risk.scoring import Decision

PROBLEM = Problem("/problems/x", "Not so", 422, "It is not so.", (FieldError("/age", "Too low"),))
RULE_ONLY = toys.SAFE | {"price": 16000.0, "income": 90000.0}


@dataclass
class Ledger:
    """Keeps records in a list, or is full."""

    groups: list[list[Record]] = field(default_factory=list)
    full: bool = False

    async def record(self, records: Sequence[Record]) -> None:
        """Keep the group, or fail as a full disk would."""
        if self.full:
            raise RecordingFailed("the ledger is full")
        self.groups.append(list(records))

    @property
    def records(self) -> list[Record]:
        """All of them, in order."""
        return [record for group in self.groups for record in group]


@dataclass
class Tally:
    """Notes what it was told, and how many records there were by then."""

    ledger: Ledger
    decisions: list[tuple[str, int]] = field(default_factory=list)
    counts: list[tuple[RecordKind, int]] = field(default_factory=list)

    def decided(self, package: ModelPackage, decision: Decision) -> None:
        """Note a decision."""
        assert package.portfolio == toys.NAME
        self.decisions.append((decision.outcome.decision, len(self.ledger.records)))

    def recorded(self, kind: RecordKind, number: int) -> None:
        """Note a number of records."""
        self.counts.append((kind, number))


class NotANumber:
    """A model that scores nobody."""

    base_value = 0.0
    method = "none"

    def log_odds(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """NaN for each row."""
        return rows[:, 0] * math.nan

    def contributions(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """NaN for each field."""
        return rows * math.nan


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger."""
    return Ledger()


@pytest.fixture
def tally(ledger: Ledger) -> Tally:
    """A tally that nothing was told yet."""
    return Tally(ledger)


@pytest.fixture
def desk(ledger: Ledger, tally: Tally) -> Desk:
    """A desk with fakes around it; every error is a 422 with the error's places."""

    def problem_of(error: Exception) -> Problem:
        assert isinstance(error, ApplicationInvalid)
        return replace(PROBLEM, errors=error.errors)

    return Desk(cast("AuditLog", ledger), tally, toys.NAME, problem_of)


def body(document: object) -> bytes:
    """A request's body."""
    return json.dumps(document).encode()


def predict(
    desk: Desk, package: ModelPackage, application: object, *, explain: bool = False
) -> dict[str, Any]:
    """One answer."""
    call = Call("predict", "request-1")
    return asyncio.run(desk.predict(package, body(application), call, explain=explain))


def batch(desk: Desk, package: ModelPackage, document: object, rows_max: int = 5) -> dict[str, Any]:
    """The answer to a batch."""
    given = document if isinstance(document, bytes) else body(document)
    return asyncio.run(desk.predict_batch(package, given, Call("batch", "request-2"), rows_max))


# One application.


def test_a_decision_is_answered_with_its_record_behind_it(
    desk: Desk, ledger: Ledger, any_package: ModelPackage
) -> None:
    """Same id, same decision, the whole input and what decided it."""
    answer = predict(desk, any_package, toys.RISKY)

    (record,) = ledger.records
    assert list(answer) == [
        "decision_id",
        "portfolio",
        "probability_of_default",
        "prediction",
        "risk_band",
        "decision",
        "reasons",
        "model_version",
        "policy_version",
    ]
    assert (answer["decision"], answer["risk_band"], answer["prediction"]) == (
        "DECLINE",
        "VERY_HIGH",
        1,
    )
    assert answer["reasons"][0] == {
        "code": "AMOUNT_REQUESTED",
        "text": "Amount of credit requested",
    }
    assert (record.id, record.kind, record.status) == (answer["decision_id"], "decision", 200)
    assert (record.portfolio, record.request_id) == (toys.NAME, "request-1")
    assert (record.model_version, record.policy_version) == (
        any_package.version,
        any_package.policy_version,
    )
    assert record.decision == "DECLINE"
    assert record.body["input"] == toys.RISKY
    assert record.body["operation"] == "predict"
    assert record.body["row"] is None
    assert record.body["package_sha256"] == any_package.digest
    assert record.body["policy_sha256"] == any_package.digests["policy.yaml"]
    assert record.body["probability_of_default"] == answer["probability_of_default"]
    assert [r["code"] for r in record.body["reasons"]] == [r["code"] for r in answer["reasons"]]
    assert record.body["reasons"][0]["contribution"] > 0
    assert record.body["latency_ms"] >= 0
    json.dumps(record.body)


def test_a_decision_is_counted_when_it_is_durable(
    desk: Desk, tally: Tally, trees_package: ModelPackage
) -> None:
    """Not before."""
    predict(desk, trees_package, toys.SAFE)

    assert tally.decisions == [("APPROVE", 1)]
    assert tally.counts == [("decision", 1)]


def test_what_cannot_be_recorded_is_not_decided(
    desk: Desk, ledger: Ledger, tally: Tally, trees_package: ModelPackage
) -> None:
    """No answer, and no count of one."""
    ledger.full = True

    with pytest.raises(RecordingFailed):
        predict(desk, trees_package, toys.SAFE)
    with pytest.raises(RecordingFailed):
        batch(desk, trees_package, {"applications": [toys.SAFE, {}]})
    with pytest.raises(RecordingFailed):
        asyncio.run(desk.refuse(PROBLEM, b"", Call("predict", "r"), trees_package))
    assert (tally.decisions, tally.counts) == ([], [])


def test_an_explanation_names_fields_by_size_and_the_group_compared_with(
    desk: Desk, any_package: ModelPackage
) -> None:
    """Signed contributions add up to the score; the reference group is named with its digest."""
    answer = predict(desk, any_package, RULE_ONLY, explain=True)

    explanation = answer["explanation"]
    sizes = [c["contribution"] for c in explanation["contributions"]]
    assert sorted(sizes, key=abs, reverse=True) == sizes
    assert explanation["base_value"] + sum(sizes) == pytest.approx(explanation["log_odds"])
    by_field = {c["field"]: c for c in explanation["contributions"]}
    assert set(by_field) == set(any_package.schema.names)
    assert by_field["price"]["title"] == "Price of the bicycle"
    assert by_field["price"]["reason_code"] == "AMOUNT_REQUESTED"
    assert explanation["unit"] == "log-odds of default"
    assert explanation["method"] == any_package.model.method
    assert explanation["reference_group"] == {
        "name": "made-up-applicants",
        "description": "50 drawn applicants",
        "rows": 50,
        "sha256": any_package.digests["reference.npz"],
    }
    assert answer["rules"] == ["price-above-limit"]
    assert explanation["reasons"][0] == {
        "code": "PRICE_ABOVE_LIMIT",
        "fields": ["price"],
        "contribution": None,
    }


def test_a_wrong_application_is_left_to_the_caller_to_refuse(
    desk: Desk, ledger: Ledger, trees_package: ModelPackage
) -> None:
    """Who knows the status records it."""
    with pytest.raises(ApplicationInvalid):
        predict(desk, trees_package, {})

    assert ledger.records == []


def test_a_model_that_fails_decides_nothing(
    desk: Desk, ledger: Ledger, trees_package: ModelPackage
) -> None:
    """Neither one nor many."""
    broken = replace(trees_package, model=NotANumber())

    with pytest.raises(ExplanationFailed):
        predict(desk, broken, toys.SAFE)
    with pytest.raises(ExplanationFailed):
        batch(desk, broken, {"applications": [toys.SAFE, {}]})
    assert ledger.records == []


# Many.


def test_a_batch_is_answered_row_by_row_and_a_bad_row_spoils_no_other(
    desk: Desk, ledger: Ledger, tally: Tally, trees_package: ModelPackage
) -> None:
    """In order, each with an id of its own, recorded together."""
    rows = [toys.RISKY, toys.SAFE | {"age": 3}, "no application", toys.SAFE]

    answer = batch(desk, trees_package, {"applications": rows})

    results = answer["results"]
    assert (answer["rows"], answer["decided"], answer["refused"]) == (4, 2, 2)
    assert [r.get("decision") for r in results] == ["DECLINE", None, None, "APPROVE"]
    assert results[1]["problem"]["errors"] == [
        {
            "pointer": "/applications/1/age",
            "detail": "Input should be greater than or equal to 18",
        }
    ]
    assert results[2]["problem"]["errors"][0]["pointer"] == "/applications/2"
    (group,) = ledger.groups
    assert [(r.kind, r.body["row"]) for r in group] == [
        ("decision", 0),
        ("decision", 3),
        ("refusal", 1),
        ("refusal", 2),
    ]
    by_row = {r.body["row"]: r for r in group}
    assert results[0]["decision_id"] == by_row[0].id
    assert results[1]["problem"]["instance"] == f"urn:uuid:{by_row[1].id}"
    assert by_row[1].body["input"] == rows[1]
    assert by_row[2].body["input"] == "no application"
    assert (by_row[2].status, by_row[2].decision) == (422, None)
    assert len({r.id for r in group}) == 4
    assert {r.request_id for r in group} == {"request-2"}
    assert tally.decisions == [("DECLINE", 4), ("APPROVE", 4)]
    assert sorted(tally.counts) == [("decision", 2), ("refusal", 2)]


def test_a_batch_answers_as_each_application_alone(desk: Desk, any_package: ModelPackage) -> None:
    """But for the ids."""
    rows = [toys.SAFE, toys.RISKY, *toys.applications(3)]

    together = batch(desk, any_package, {"applications": rows})["results"]

    for row, result in zip(rows, together, strict=True):
        alone = predict(desk, any_package, row)
        assert alone.pop("probability_of_default") == pytest.approx(
            result.pop("probability_of_default"), abs=1e-12
        )
        assert alone | {"decision_id": ""} == result | {"decision_id": ""}


def test_a_batch_of_bad_rows_only_is_a_batch(desk: Desk, trees_package: ModelPackage) -> None:
    """Nothing is scored, each row is refused."""
    answer = batch(desk, trees_package, {"applications": [{}, None]})

    assert (answer["decided"], answer["refused"]) == (0, 2)


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        (b"{", [""]),
        (b"\xff", [""]),
        ([toys.SAFE], [""]),
        ({}, ["/applications"]),
        ({"applications": toys.SAFE}, ["/applications"]),
        ({"applications": []}, ["/applications"]),
        ({"applications": [toys.SAFE] * 6}, ["/applications"]),
        ({"applications": [toys.SAFE], "explain": True}, ["/explain"]),
        ({"rows": [], "a/b": 1}, ["/rows", "/a~1b", "/applications"]),
    ],
)
def test_a_batch_of_another_shape_is_refused_as_a_whole(
    desk: Desk, ledger: Ledger, trees_package: ModelPackage, document: object, pointers: list[str]
) -> None:
    """Not JSON, no list, none, too many, or something beside it."""
    with pytest.raises(ApplicationInvalid) as caught:
        batch(desk, trees_package, document)

    assert [e.pointer for e in caught.value.errors] == pointers
    assert ledger.records == []


# Refusals and failures.


@pytest.mark.parametrize("kind", ["refusal", "failure"])
def test_a_problem_is_recorded_before_it_is_answered(
    desk: Desk, ledger: Ledger, tally: Tally, trees_package: ModelPackage, kind: str
) -> None:
    """The answer names its record."""
    write = desk.refuse if kind == "refusal" else desk.fail

    answer = asyncio.run(write(PROBLEM, b'{"age": 3}', Call("predict", "r"), trees_package))

    (record,) = ledger.records
    assert answer == {
        "type": "/problems/x",
        "title": "Not so",
        "status": 422,
        "detail": "It is not so.",
        "instance": f"urn:uuid:{record.id}",
        "errors": [{"pointer": "/age", "detail": "Too low"}],
    }
    assert (record.kind, record.status, record.decision) == (kind, 422, None)
    assert record.model_version == trees_package.version
    assert record.body["problem"] == answer
    assert record.body["input"] == {"age": 3}
    assert tally.counts == [(kind, 1)]


@pytest.mark.parametrize(
    "given",
    [b"not json", b"", b'"' + b"a" * RECORDED_INPUT_MAX + b'"'],
    ids=["text", "empty", "long"],
)
def test_a_body_that_is_no_small_json_is_recorded_by_length_and_digest(
    desk: Desk, ledger: Ledger, given: bytes
) -> None:
    """The record does not grow as the caller likes."""
    asyncio.run(desk.refuse(PROBLEM, given, Call("predict", "r"), None))

    assert ledger.records[0].body["input"] == {
        "bytes": len(given),
        "sha256": hashlib.sha256(given).hexdigest(),
    }


def test_a_call_without_a_body_or_a_package_is_recorded_too(desk: Desk, ledger: Ledger) -> None:
    """As before any package is active."""
    asyncio.run(desk.fail(PROBLEM, None, Call("predict", "r"), None))

    (record,) = ledger.records
    assert (record.model_version, record.policy_version) == (None, None)
    assert record.body["input"] is None
    assert record.portfolio == toys.NAME


def test_a_problem_without_record_or_places_says_neither() -> None:
    """As when recording failed."""
    problem = Problem("/problems/full", "No record", 503, "Try later.")

    assert problem.to_json(None) == {
        "type": "/problems/full",
        "title": "No record",
        "status": 503,
        "detail": "Try later.",
    }


def test_ids_are_version_7_and_in_order_of_time() -> None:
    """RFC 9562."""
    ids = [new_id() for _ in range(1000)]

    assert {uuid.UUID(i).version for i in ids} == {7}
    assert sorted(set(ids)) == ids


def test_a_call_knows_how_long_it_has_taken() -> None:
    """In milliseconds, from when it was received."""
    call = Call("predict", "r")

    assert 0 <= call.latency_ms <= call.latency_ms
    assert replace(call, received=call.received - 2.5).latency_ms >= 2500
