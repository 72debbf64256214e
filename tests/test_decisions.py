"""The use case without a transport: what is recorded, when, and what is answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import environment
from credit_risk.batching import Batched, Batcher
from credit_risk.decisions import (
    RECORDED_INPUT_MAX,
    Call,
    Desk,
    Problem,
    answer,
    new_id,
    start_record,
)
from credit_risk.errors import (
    ApplicationInvalid,
    Conflict,
    DeadlineExceeded,
    ExplanationFailed,
    FieldError,
    Overloaded,
    RecordingFailed,
)
from credit_risk.scoring import decide
from tests import served, strategies, toys

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from sqlalchemy import Connection

    from credit_risk.audit.records import Alongside, AuditLog, Record, RecordKind
    from credit_risk.model import Model
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision

EXAMPLE = toys.schema().example
RISKY = json.dumps(toys.RISKY).encode()
TEAPOT = Problem("/problems/teapot", "A teapot", 418, "It is short and stout")


@dataclass
class Events:
    """An audit log and an observer that note what reaches them, in order."""

    full: bool = False
    groups: list[list[Record]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    hooks: list[Alongside | None] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    refusals: list[list[str]] = field(default_factory=list)

    async def record(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> None:
        """Keep the group, or fail as a full disk would make it."""
        await asyncio.sleep(0)
        self.hooks.append(alongside)
        self.order.append("record")
        if self.full:
            raise RecordingFailed("the disk is full")
        self.groups.append(list(records))

    def tried(self, challenger: ModelPackage, decided: int, failed: int) -> None:
        """Nobody challenges here."""
        raise AssertionError(challenger, decided, failed)

    def decided(
        self,
        package: ModelPackage,
        applications: Sequence[Application],
        decisions: Sequence[Decision],
    ) -> None:
        """Note the decisions; they are those about these applications."""
        again = [d.probability_of_default for d in decide(package, applications)]
        assert [d.probability_of_default for d in decisions] == pytest.approx(again, abs=1e-9)
        self.order += [decision.outcome.decision for decision in decisions]

    def refused(self, package: ModelPackage, refusals: Sequence[Sequence[FieldError]]) -> None:
        """Note what was wrong with each."""
        assert package.version
        self.refusals += [[error.pointer for error in errors] for errors in refusals]

    def batched(self, batch: Batched) -> None:
        """Check what is told of a batch."""
        assert batch.rows > 0
        assert batch.waited >= 0.0
        assert batch.waiting >= 0

    def recorded(self, kind: RecordKind, number: int) -> None:
        """Count records."""
        self.counted[kind] = self.counted.get(kind, 0) + number

    @property
    def records(self) -> list[Record]:
        """All records."""
        return [record for group in self.groups for record in group]


def teapot(error: Exception) -> Problem:
    """A transport's table with one problem for everything."""
    places = error.errors if isinstance(error, ApplicationInvalid) else ()
    return replace(TEAPOT, errors=places)


def desk(events: Events) -> Desk:
    """The use case, with what it is given."""
    log = cast("AuditLog", events)
    return Desk(log, Batcher(events, 1_000), events, toys.NAME, teapot, 5.0, 60.0)


def call(operation: str = "/predict") -> Call:
    """A request of now."""
    return Call(operation, "request-1")


def run(coroutine: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """What the use case answers."""
    return asyncio.run(coroutine)


def batch(*rows: object) -> bytes:
    """A batch body."""
    return json.dumps({"applications": rows}).encode()


# One application


def test_a_decision_is_recorded_before_it_is_counted_and_answered(
    trees_package: ModelPackage,
) -> None:
    """Evidence first."""
    events = Events()

    answered = run(desk(events).predict(trees_package, RISKY, call()))

    assert events.order == ["record", "DECLINE"]
    assert events.counted == {"decision": 1}
    (record,) = events.records
    assert record.id == answered["decision_id"]


def test_an_explanation_is_asked_for(any_package: ModelPackage) -> None:
    """It changes nothing about the decision, and its record is the same."""
    events = Events()
    plain = run(desk(events).predict(any_package, RISKY, call()))
    explained = run(desk(events).predict(any_package, RISKY, call(), explain=True))

    assert {k: v for k, v in explained.items() if k in plain and k != "decision_id"} == {
        k: v for k, v in plain.items() if k != "decision_id"
    }
    assert set(explained) - set(plain) == {"rules", "explanation"}
    bodies = [dict(record.body, latency_ms=0) for record in events.records]
    assert bodies[0] == bodies[1]


def test_what_cannot_be_recorded_is_neither_answered_nor_counted(
    trees_package: ModelPackage,
) -> None:
    """The caller gets the error and nothing else."""
    events = Events(full=True)

    with pytest.raises(RecordingFailed):
        run(desk(events).predict(trees_package, RISKY, call()))
    with pytest.raises(RecordingFailed):
        run(desk(events).predict_batch(trees_package, batch(EXAMPLE, {}), call(), 5))
    with pytest.raises(RecordingFailed):
        run(desk(events).refuse(TEAPOT, b"{}", call(), trees_package))
    with pytest.raises(RecordingFailed):
        run(desk(events).fail(TEAPOT, b"{}", call(), trees_package))

    assert events.order == ["record"] * 4
    assert events.counted == {}


def test_a_wrong_application_is_for_the_transport_to_refuse(
    trees_package: ModelPackage,
) -> None:
    """Nothing is recorded yet: the transport knows what it answers."""
    events = Events()

    with pytest.raises(ApplicationInvalid):
        run(desk(events).predict(trees_package, b"{}", call()))
    with pytest.raises(ApplicationInvalid):
        run(desk(events).predict_batch(trees_package, batch(), call(), 5))
    assert events.order == []


@pytest.mark.parametrize(
    "model", [served.Broken(score=float("nan")), served.Broken(contribution=0.3)]
)
def test_a_failed_explanation_decides_nothing(
    trees_package: ModelPackage, model: served.Broken
) -> None:
    """Alone, the caller records it as a failure."""
    events = Events()
    broken = replace(trees_package, model=model)

    with pytest.raises(ExplanationFailed):
        run(desk(events).predict(broken, RISKY, call()))
    assert events.order == []


class Fragile:
    """The toy trees, but for those under thirty, whom they do not explain."""

    def __init__(self, package: ModelPackage) -> None:
        self._model = package.model
        self._age = package.schema.index["age"]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the trees have
        """As the trees."""
        return getattr(self._model, name)

    def log_odds(self, rows: Any) -> Any:  # noqa: ANN401 - floats
        """As the trees, if there is nobody under thirty."""
        if (rows[:, self._age] < 30).any():
            raise ZeroDivisionError(served.MODEL_SAYS)
        return self._model.log_odds(rows)


def test_a_row_that_fails_fails_alone(
    trees_package: ModelPackage, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a failure on record and a problem in its place; its neighbours are decided."""
    events = Events()
    fragile = replace(trees_package, model=cast("Model", Fragile(trees_package)))
    young, old = EXAMPLE | {"age": 29}, EXAMPLE | {"age": 30}

    answered = run(desk(events).predict_batch(fragile, batch(old, young, {}, old), call(), 5))

    whole = run(desk(Events()).predict_batch(trees_package, batch(old), call(), 5))
    kinds = ["decision" if "decision" in row else "problem" for row in answered["results"]]
    assert kinds == ["decision", "problem", "problem", "decision"]
    assert answered["results"][0]["probability_of_default"] == pytest.approx(
        whole["results"][0]["probability_of_default"], abs=0.0
    )
    assert (answered["decided"], answered["refused"], answered["failed"]) == (2, 1, 1)
    assert events.counted == {"decision": 2, "refusal": 1, "failure": 1}
    assert [len(places) for places in events.refusals] == [len(EXAMPLE) - 1]
    assert {record.body["row"] for record in events.records if record.kind == "failure"} == {1}
    assert served.MODEL_SAYS in caplog.text


def test_the_record_holds_input_versions_digests_and_outcome(any_package: ModelPackage) -> None:
    """All of it, as the model and the policy gave it."""
    events = Events()
    asked = call("/explain")
    run(desk(events).predict(any_package, RISKY, asked))
    (decision,) = decide(any_package, [toys.RISKY])

    (record,) = events.records

    assert (record.kind, record.status, record.decision) == ("decision", 200, "DECLINE")
    assert (record.time, record.request_id) == (asked.at, "request-1")
    assert record.portfolio == toys.NAME
    assert record.model_version == any_package.version
    assert record.policy_version == any_package.policy_version
    assert record.personal == {"input": toys.RISKY}
    body = dict(record.body)
    assert 0 < body.pop("latency_ms") < 60_000
    assert body == {
        "operation": "/explain",
        "row": None,
        "package_sha256": any_package.digest,
        **{
            f"{name}_sha256": any_package.digests[file]
            for name, file in (
                ("schema", "schema.yaml"),
                ("policy", "policy.yaml"),
                ("reasons", "reasons.yaml"),
                ("reference", "reference.npz"),
            )
        },
        "environment_sha256": environment.here().sha256,
        "probability_of_default": decision.probability_of_default,
        "log_odds": decision.log_odds,
        "risk_band": "VERY_HIGH",
        "prediction": 1,
        "scored_decision": "DECLINE",
        "rules": [],
        "reasons": [
            {"code": r.code, "fields": list(r.fields), "contribution": r.contribution}
            for r in decision.reasons
        ],
    }


def test_a_start_is_on_record_with_the_environment_that_decisions_name(
    trees_package: ModelPackage,
) -> None:
    """Listed once, and found again by the digest."""
    before = time.time_ns() // 1_000
    events = Events()
    run(desk(events).predict(trees_package, RISKY, call()))

    started = start_record(trees_package)

    assert (started.kind, started.portfolio, started.status) == ("start", toys.NAME, None)
    assert before <= started.time <= time.time_ns() // 1_000
    assert started.model_version == trees_package.version
    assert started.policy_version == trees_package.policy_version
    (decided,) = events.records
    assert started.body == {
        "package_sha256": trees_package.digest,
        "environment": environment.here().listing,
        "environment_sha256": decided.body["environment_sha256"],
    }


def test_a_rules_hit_is_on_record_beside_what_the_score_called_for(
    trees_package: ModelPackage,
) -> None:
    """Whoever reviews the policy sees which rule turned which decision."""
    events = Events()
    wealthy = toys.SAFE | {"price": 15_001.0, "income": 90_000.0}

    run(desk(events).predict(trees_package, json.dumps(wealthy).encode(), call()))

    (record,) = events.records
    assert record.decision == "DECLINE"
    assert record.body["scored_decision"] == "APPROVE"
    assert record.body["rules"] == ["price-above-limit"]
    assert record.body["reasons"][0] == {
        "code": "PRICE_ABOVE_LIMIT",
        "fields": ["price"],
        "contribution": None,
    }


def test_what_is_recorded_is_what_was_decided_about(trees_package: ModelPackage) -> None:
    """As the schema has it: 34.0 years are 34, in both."""
    events = Events()
    sent = json.dumps(toys.RISKY | {"age": float(toys.RISKY["age"])}).encode()

    answered = run(desk(events).predict(trees_package, sent, call()))

    recorded = events.records[0].input
    assert recorded == toys.RISKY
    assert type(recorded["age"]) is int
    (decision,) = decide(trees_package, [toys.RISKY])
    assert answered["probability_of_default"] == decision.probability_of_default


def test_an_answer_ranks_contributions_by_size(any_package: ModelPackage) -> None:
    """The largest first, whichever way it pulls."""
    (decision,) = decide(any_package, [toys.RISKY], explain=True)

    answered = answer(any_package, "0193", decision)

    assert decision.explanation is not None
    contributions = answered["explanation"]["contributions"]
    sizes = [abs(c["contribution"]) for c in contributions]
    assert sizes == sorted(sizes, reverse=True)
    assert {c["field"]: c["contribution"] for c in contributions} == (
        decision.explanation.contributions
    )


# Batches


def test_a_batch_is_recorded_in_one_group(trees_package: ModelPackage) -> None:
    """All of it or none: decisions and refusals, each with its row and the same time."""
    events = Events()
    asked = call("/predict/batch")

    answered = run(
        desk(events).predict_batch(
            trees_package, batch({}, toys.RISKY, 3, toys.SAFE), asked, rows_max=4
        )
    )

    assert events.order == ["record", "DECLINE", "APPROVE"]
    assert events.counted == {"decision": 2, "refusal": 2}
    (group,) = events.groups
    by_row = {record.body["row"]: record for record in group}
    assert [by_row[i].kind for i in range(4)] == ["refusal", "decision", "refusal", "decision"]
    assert {record.time for record in group} == {asked.at}
    assert {record.body["operation"] for record in group} == {"/predict/batch"}
    for i, result in enumerate(answered["results"]):
        if "problem" in result:
            assert result["problem"]["instance"] == f"urn:uuid:{by_row[i].id}"
            assert served.problem_on(by_row[i]) == result["problem"]
            assert by_row[i].status == 418
        else:
            assert result["decision_id"] == by_row[i].id
    assert [by_row[i].input for i in range(4)] == [{}, toys.RISKY, 3, toys.SAFE]


def test_the_ids_of_a_batch_are_in_the_order_of_its_rows(trees_package: ModelPackage) -> None:
    """Refused rows among the others."""
    answered = run(
        desk(Events()).predict_batch(trees_package, batch(EXAMPLE, {}, EXAMPLE), call(), 5)
    )

    first, second, third = answered["results"]
    refused = second["problem"]["instance"].removeprefix("urn:uuid:")
    assert first["decision_id"] < refused < third["decision_id"]


def test_a_rows_places_lead_into_the_batch(trees_package: ModelPackage) -> None:
    """A pointer is into what was sent."""
    sent = batch(EXAMPLE, EXAMPLE | {"age": 5, "a/b": 1})

    answered = run(desk(Events()).predict_batch(trees_package, sent, call(), 5))

    pointers = [e["pointer"] for e in answered["results"][1]["problem"]["errors"]]
    assert pointers == ["/applications/1/age", "/applications/1/a~1b"]


def test_a_row_that_gives_a_name_again_is_refused_alone_and_kept_as_sent(
    trees_package: ModelPackage,
) -> None:
    """Which of the two values was meant nobody can say afterwards either."""
    again = json.dumps(EXAMPLE).encode()[:-1] + b', "age": 35}'
    sent = batch(EXAMPLE)[:-2] + b"," + again + b"]}"
    events = Events()

    answered = run(desk(events).predict_batch(trees_package, sent, call(), 5))

    assert "decision" in answered["results"][0]
    assert answered["results"][1]["problem"]["errors"] == [
        {"pointer": "/applications/1/age", "detail": "Given more than once"}
    ]
    (refusal,) = (r for group in events.groups for r in group if r.kind == "refusal")
    assert refusal.input == [*EXAMPLE.items(), ("age", 35)]


@pytest.mark.parametrize(
    ("body", "rows_max", "places"),
    [
        (b"[]", 5, [("", "Input should be an object")]),
        (b"{}", 5, [("/applications", "Field required")]),
        (b'{"applications": 3}', 5, [("/applications", "Input should be an array")]),
        (b'{"applications": []}', 5, [("/applications", "Input should hold 1 to 5 rows")]),
        (batch(1, 2, 3), 2, [("/applications", "Input should hold 1 to 2 rows")]),
        (
            b'{"x": 1, "~": 2, "applications": [1]}',
            5,
            [("/x", "Unknown field"), ("/~0", "Unknown field")],
        ),
        (
            b'{"applications": [1], "applications": [2]}',
            5,
            [("/applications", "Given more than once")],
        ),
    ],
)
def test_a_batch_of_another_shape_names_its_places(
    trees_package: ModelPackage, body: bytes, rows_max: int, places: list[tuple[str, str]]
) -> None:
    """As an application does."""
    with pytest.raises(ApplicationInvalid) as caught:
        run(desk(Events()).predict_batch(trees_package, body, call(), rows_max))

    assert caught.value.errors == tuple(FieldError(*place) for place in places)


@given(
    rows=st.lists(
        strategies.applications(toys.schema())
        | st.none()
        | st.dictionaries(st.sampled_from(toys.schema().names), st.integers()),
        min_size=1,
        max_size=8,
    )
)
def test_every_row_of_every_batch_has_its_record(
    trees_package: ModelPackage, rows: list[Any]
) -> None:
    """One each; and a row decides as if it were alone."""
    events = Events()

    answered = run(desk(events).predict_batch(trees_package, batch(*rows), call(), 8))

    assert sorted(record.body["row"] for record in events.records) == list(range(len(rows)))
    assert answered["decided"] + answered["refused"] == answered["rows"] == len(rows)
    for row, result in zip(rows, answered["results"], strict=True):
        sent = json.dumps(row).encode()
        if "problem" in result:
            with pytest.raises(ApplicationInvalid):
                run(desk(Events()).predict(trees_package, sent, call()))
        else:
            alone = run(desk(Events()).predict(trees_package, sent, call()))
            assert {**alone, "decision_id": 0} == {**result, "decision_id": 0}


# Refusals and failures


@pytest.mark.parametrize("kind", ["refusal", "failure"])
def test_a_refusal_and_a_failure_are_recorded_with_what_was_answered(
    trees_package: ModelPackage, kind: RecordKind
) -> None:
    """The problem, word for word, and the input as it was."""
    events = Events()
    problem = replace(TEAPOT, errors=(FieldError("/age", "Field required"),))
    do = desk(events).refuse if kind == "refusal" else desk(events).fail
    asked = call()

    document = run(do(problem, b'{"a": [NaN, 1]}', asked, trees_package))

    (record,) = events.records
    assert document == {
        "type": "/problems/teapot",
        "title": "A teapot",
        "status": 418,
        "detail": "It is short and stout",
        "instance": f"urn:uuid:{record.id}",
        "errors": [{"pointer": "/age", "detail": "Field required"}],
    }
    assert (record.kind, record.status, record.decision) == (kind, 418, None)
    assert (record.time, record.request_id, record.portfolio) == (
        asked.at,
        "request-1",
        toys.NAME,
    )
    assert record.model_version == trees_package.version
    assert record.policy_version == trees_package.policy_version
    body = dict(record.body)
    assert body.pop("latency_ms") > 0
    assert pydantic_core.to_json(record.input, inf_nan_mode="strings") == b'{"a":["NaN",1]}'
    assert served.problem_on(record) == document
    assert {**body, "problem": None} == {"operation": "/predict", "row": None, "problem": None}
    assert events.counted == {kind: 1}


def test_without_a_package_no_version_is_on_record() -> None:
    """A call can be refused before anything could have decided."""
    events = Events()

    run(desk(events).refuse(TEAPOT, b"{}", call(), None))

    (record,) = events.records
    assert (record.model_version, record.policy_version) == (None, None)
    assert record.portfolio == toys.NAME


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (None, None),
        (b"", "digest"),
        (b"null", None),
        (b'{"a": 1, "a": 2}', [("a", 1), ("a", 2)]),
        (b'"' + b"x" * (RECORDED_INPUT_MAX - 2) + b'"', "x" * (RECORDED_INPUT_MAX - 2)),
        (b'"' + b"x" * (RECORDED_INPUT_MAX - 1) + b'"', "digest"),
        (b'{"a": ', "digest"),
        (b"\xff\xfe", "digest"),
        (b'"\\ud800"', "digest"),
        (b"[" * 5_000, "digest"),
        (b"9" * 5_000, "digest"),
    ],
    ids=[
        *("not read", "empty", "null", "twice", "at the limit", "over the limit"),
        *("cut off", "no UTF-8", "surrogate", "deep", "long number"),
    ],
)
def test_a_refused_body_is_kept_if_it_is_small_json(body: bytes | None, kept: object) -> None:
    """Otherwise its length and digest say what it was."""
    events = Events()
    run(desk(events).refuse(TEAPOT, body, call(), None))

    if kept == "digest":
        assert body is not None
        kept = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert events.records[0].input == kept


# Calls, ids, problems


def test_a_calls_latency_grows_from_when_it_was_received() -> None:
    """Milliseconds, to the microsecond; and when that was, by the clock on the wall."""
    before = time.time_ns() // 1_000
    asked = call()

    first = asked.latency_ms
    time.sleep(0.002)

    assert before <= asked.at <= time.time_ns() // 1_000
    later = asked.latency_ms
    assert 0 <= first < later
    assert later >= 2.0
    assert later == round(later, 3)


def test_ids_are_unique_and_in_order_of_time() -> None:
    """UUIDv7 of RFC 9562."""
    ids = [new_id() for _ in range(1_000)]

    assert ids == sorted(set(ids))
    assert {uuid.UUID(i).version for i in ids} == {7}
    milliseconds = uuid.UUID(ids[-1]).int >> 80
    assert milliseconds == pytest.approx(time.time() * 1_000, abs=60_000)


def test_a_problem_without_a_record_or_places_says_so_by_leaving_them_out() -> None:
    """Members that say nothing are absent, as RFC 9457 has it."""
    assert TEAPOT.to_json(None) == {
        "type": "/problems/teapot",
        "title": "A teapot",
        "status": 418,
        "detail": "It is short and stout",
    }


# What is kept with records


class Keeping:
    """Keeps what is about to be answered."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self.answered: list[dict[str, Any]] = []

    async def __call__(self, answered: dict[str, Any]) -> Alongside:
        """Note the answer; nothing is recorded yet."""
        assert self._events.order == []
        self.answered.append(answered)
        return self.alongside

    def alongside(self, connection: Connection) -> None:
        """What the log is given."""


def test_what_is_answered_is_kept_in_the_transaction_of_its_record(
    trees_package: ModelPackage,
) -> None:
    """The whole answer, before anything is recorded; a refusal like a decision."""
    for number in range(3):
        events = Events()
        keep = Keeping(events)
        answers = (
            desk(events).predict(trees_package, RISKY, call(), keep=keep),
            desk(events).predict_batch(trees_package, batch(EXAMPLE, {}), call(), 5, keep=keep),
            desk(events).refuse(TEAPOT, b"{}", call(), trees_package, keep=keep),
        )
        answered = run(answers[number])
        for other in answers:
            other.close()

        assert keep.answered == [answered]
        assert events.hooks == [keep.alongside]


def test_nothing_is_counted_whose_answer_is_kept_already(trees_package: ModelPackage) -> None:
    """The log says so in the transaction, and the decision is none."""

    class Taken(Events):
        async def record(
            self, records: Sequence[Record], *, alongside: Alongside | None = None
        ) -> None:
            assert alongside
            raise Conflict(str(len(records)))

    events = Taken()
    with pytest.raises(Conflict):
        run(desk(events).predict(trees_package, RISKY, call(), keep=Keeping(events)))
    assert events.order == []
    assert events.counted == {}


# Deadlines


class Slow(Events):
    """An audit log that takes its time."""

    async def record(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> None:
        """Long after any deadline here."""
        self.order.append("asked")
        await asyncio.sleep(60.0)
        await super().record(records, alongside=alongside)


def hasty(events: Events) -> Desk:
    """The use case, with little time."""
    return replace(desk(events), deadline_seconds=0.1, batch_deadline_seconds=0.1)


def test_a_decision_that_is_not_on_record_in_time_is_none(trees_package: ModelPackage) -> None:
    """Nothing is counted as decided, and nothing goes on behind the caller's back."""
    events = Slow()

    with pytest.raises(DeadlineExceeded):
        run(hasty(events).predict(trees_package, RISKY, call()))
    with pytest.raises(DeadlineExceeded):
        run(hasty(events).predict_batch(trees_package, batch(EXAMPLE), call(), 5))
    assert events.order == ["asked", "asked"]
    assert events.records == []


def test_a_request_that_comes_late_to_its_turn_is_not_begun(trees_package: ModelPackage) -> None:
    """Its time began when it was received."""
    events = Events()
    late = replace(call(), received=time.perf_counter() - 1.0)

    with pytest.raises(DeadlineExceeded):
        run(hasty(events).predict(trees_package, RISKY, late))
    assert events.order == []


def test_a_refusal_or_failure_waits_no_longer_for_its_record(trees_package: ModelPackage) -> None:
    """What cannot be put on record in the reserve is not answered as if it were."""
    hurried = hasty(Slow())
    for do in (hurried.refuse, hurried.fail):
        with pytest.raises(RecordingFailed):
            run(do(TEAPOT, b"{}", call(), trees_package))


def test_a_failure_is_on_record_however_short_the_deadline(trees_package: ModelPackage) -> None:
    """Its record has a time of its own: a fifth of a moment is none."""
    events = Events()
    no_time = replace(desk(events), deadline_seconds=1e-9)

    with pytest.raises(DeadlineExceeded):
        run(no_time.predict(trees_package, RISKY, call()))
    run(no_time.fail(TEAPOT, b"{}", call(), trees_package))

    assert [record.kind for record in events.records] == ["failure"]


def test_a_timeout_within_is_not_a_missed_deadline(trees_package: ModelPackage) -> None:
    """It is a failure like others."""
    broken = replace(trees_package, model=served.Broken(TimeoutError))

    with pytest.raises(TimeoutError):
        run(desk(Events()).predict(broken, RISKY, call()))


def test_more_than_can_be_done_is_turned_away(trees_package: ModelPackage) -> None:
    """Before anything is begun; the room is free again afterwards, whatever came of it."""
    events = Events()
    small = replace(desk(events), batcher=Batcher(events, 2))

    async def main() -> list[Any]:
        calls = [small.predict(trees_package, RISKY, call()) for _ in range(3)]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    for _ in range(2):
        first, second, third = asyncio.run(main())
        assert isinstance(third, Overloaded)
        assert {first["decision"], second["decision"]} == {"DECLINE"}
    with pytest.raises(Overloaded):
        asyncio.run(_beside(small, trees_package))
    assert len(events.records) == 5


async def _beside(small: Desk, package: ModelPackage) -> None:
    """A single application, and then many beside it."""
    single = asyncio.create_task(small.predict(package, RISKY, call()))
    await asyncio.sleep(0)
    try:
        await small.predict_batch(package, batch(EXAMPLE, EXAMPLE), call(), 5)
    finally:
        await single


def test_a_call_knows_its_stages(trees_package: ModelPackage) -> None:
    """In their order, each with its end."""
    single, many = call(), call("/predict/batch")
    run(desk(Events()).predict(trees_package, RISKY, single))
    run(desk(Events()).predict_batch(trees_package, batch(EXAMPLE, {}), many, 5))

    for asked in (single, many):
        assert [stage for stage, _ in asked.stages] == [
            *("validate", "wait", "encode", "score", "decide", "explain", "record"),
        ]
        ends = [asked.received, *(end for _, end in asked.stages)]
        assert ends == sorted(ends)
