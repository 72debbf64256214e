"""Idempotency-Key over HTTP: the same answer again, and clear words where there is none."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk.audit import erasure
from credit_risk.idempotency import Claim, Kept
from credit_risk.serving import problems
from credit_risk.serving.once import KEY_PATTERN, key_of
from credit_risk.serving.responses import Rejected
from tests import served, toys
from tests.served import PATIENT, SCORING, Broken, Full, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

    from credit_risk.audit.log import SqlAuditLog
    from credit_risk.audit.records import Alongside
    from credit_risk.package import ModelPackage

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
BODIES: dict[str, object] = dict.fromkeys(SCORING, toys.RISKY) | {
    "/predict/batch": {"applications": [toys.RISKY, {}, *[toys.SAFE] * 3]}
}


@pytest.fixture
def server(trees_package: ModelPackage, tmp_path: Path) -> Iterator[Served]:
    """A server of the toy trees that has answered nothing yet."""
    with served.serving(trees_package, tmp_path) as running:
        yield running


def post(server: Served, body: object = toys.RISKY, path: str = "/predict") -> httpx2.Response:
    """POST under the key."""
    return server.post(path, body, idempotency_key=KEY)


def outcomes(server: Served) -> dict[str, float]:
    """What the metric has counted."""
    every = ("new", "replayed", "conflict", "mismatch")
    return {
        outcome: number
        for outcome in every
        if (number := server.sample("credit_idempotent_requests_total", outcome=outcome))
    }


# The header


@given(st.text(VISIBLE, min_size=1, max_size=255))
def test_a_key_is_the_same_with_quotation_marks_and_without(key: str) -> None:
    """As the draft wants it, and as most clients send it."""
    escaped = re.sub(r'(["\\])', r"\\\1", key)
    quoted = f'"{escaped}"'.encode()

    assert key_of([quoted]) == key
    if not key.startswith('"'):
        assert key_of([key.encode()]) == key


@pytest.mark.parametrize(
    "value",
    [
        *("", '"', '""', '"a', '"a"b', '"a";p=1', r'"a\b"', r'"a\"', "a b", '"a", "b"', "a, b"),
        *("ä", "a\x7f", "a\tb", "a\n", "\x00", "x" * 256, f'"{"x" * 256}"'),
    ],
)
def test_what_is_no_key_is_refused(value: str) -> None:
    """Empty, too long, not visible, half quoted, or two in one."""
    with pytest.raises(Rejected) as refused:
        key_of([value.encode("latin-1")])
    assert refused.value.problem.status == 400
    assert re.fullmatch(KEY_PATTERN, value) is None


def test_a_malformed_key_is_a_refusal_on_record(server: Served) -> None:
    """The problem says what a key is, and not what was sent; nothing is decided or kept."""
    headers = [(b"content-type", b"application/json"), (b"idempotency-key", b"a b-4711")]
    answer = server.send("/predict", json.dumps(toys.RISKY).encode(), headers)

    problem = answer.json()
    assert answer.status == problem["status"] == 400
    assert problem["type"] == "/problems/malformed-idempotency-key"
    assert "4711" not in answer.content.decode()
    record = server.only_record()
    assert (record.kind, record.status, record.input) == ("refusal", 400, toys.RISKY)
    assert outcomes(server) == {}


def test_two_keys_are_no_key(server: Served) -> None:
    """Also the same one twice."""
    key = (b"idempotency-key", KEY.encode())
    headers = [(b"content-type", b"application/json"), key, key]

    answer = server.send("/predict", json.dumps(toys.RISKY).encode(), headers)
    assert (answer.status, answer.json()["type"]) == (400, "/problems/malformed-idempotency-key")


# The answers


@pytest.mark.parametrize("path", SCORING)
def test_the_same_request_gets_the_same_answer(server: Served, path: str) -> None:
    """Byte for byte, with its ids, marked as a repetition; decided and recorded once."""
    first = post(server, BODIES[path], path)
    records = server.records()
    second = server.post(path, BODIES[path], idempotency_key=f'"{KEY}"', x_request_id="two")

    assert first.status_code == second.status_code == 200
    assert second.content == first.content
    assert second.headers["content-type"] == first.headers["content-type"] == "application/json"
    assert second.headers["x-request-id"] == "two"
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert server.records() == records
    assert server.sample("credit_decisions_total", **decided(server)) == 1
    assert outcomes(server) == {"new": 1, "replayed": 1}


def test_explaining_has_two_names_and_one_space_of_keys(server: Served) -> None:
    """Who tries again under the other name gets the answer of the first."""
    first = post(server, path="/explain")
    second = post(server, path="/predict/explain")

    assert second.content == first.content
    assert second.headers["idempotency-replayed"] == "true"
    assert len(server.records()) == 1
    assert post(server, path="/predict").json()["decision_id"] != first.json()["decision_id"]


@pytest.mark.parametrize("path", ["/explain", "/predict/batch"])
def test_an_answer_goes_with_what_is_erased(server: Served, path: str) -> None:
    """One row of a batch takes the whole answer along; who asks again is decided about anew."""
    first = post(server, BODIES[path], path)
    records = server.records()
    assert len({record.body["kept_as"] for record in records}) == 1
    erased = records[-1].id
    erasure.erase(
        cast("SqlAuditLog", server.audit),
        server.audit,
        [erased],
        by="auditor",
        reason="asked for",
        progress=lambda *_: None,
    )

    second = post(server, BODIES[path], path)
    assert second.status_code == 200
    assert "idempotency-replayed" not in second.headers
    assert erased in first.text
    assert erased not in second.text


def test_records_of_requests_without_a_key_name_no_answer(server: Served) -> None:
    """Nothing is kept of them."""
    server.post("/predict", toys.RISKY)

    assert "kept_as" not in server.only_record().body


def decided(server: Served) -> dict[str, str]:
    """The labels under which the risky one is counted."""
    package = server.active.current
    return {
        "portfolio": package.portfolio,
        "model_version": package.version,
        "decision": "DECLINE",
        "band": "VERY_HIGH",
    }


@pytest.mark.parametrize("path", SCORING)
def test_an_answer_is_the_same_as_without_a_key(server: Served, path: str) -> None:
    """But for the ids: a key changes nothing else, nor in a refusal."""
    for key, body in (("good", BODIES[path]), ("bad", {})):
        plain = server.post(path, body)
        keyed = server.post(path, body, idempotency_key=key)

        assert without_ids(plain.content) == without_ids(keyed.content)
        assert plain.headers.keys() == keyed.headers.keys()


def without_ids(content: bytes) -> bytes:
    """An answer without ids."""
    return re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"", content)


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), ({"age": 1}, 422)])
def test_a_refusal_is_kept_too(server: Served, body: object, status: int) -> None:
    """With the id of its record."""
    first, second = post(server, body), post(server, body)

    assert first.status_code == second.status_code == status
    assert second.content == first.content
    assert second.headers["content-type"] == "application/problem+json"
    assert second.headers["idempotency-replayed"] == "true"
    assert first.json()["instance"] == f"urn:uuid:{server.only_record().id}"
    problem = first.json()["type"].removeprefix("/problems/")
    assert server.sample("credit_http_requests_total", problem=problem) == 2


def test_another_body_under_the_key_is_refused_and_on_record(server: Served) -> None:
    """And the first answer stays as it is."""
    first = post(server)
    refused = post(server, toys.SAFE)

    assert refused.status_code == 422
    assert refused.json()["type"] == "/problems/idempotency-key-reused"
    record = server.records()[0]
    assert (record.kind, record.status, record.input) == ("refusal", 422, toys.SAFE)
    assert refused.json()["instance"] == f"urn:uuid:{record.id}"
    assert post(server, toys.SAFE).json()["instance"] != refused.json()["instance"]
    assert post(server).content == first.content
    assert outcomes(server) == {"new": 1, "replayed": 1, "mismatch": 2}


def test_while_the_first_is_in_hand_the_answer_is_to_come_again(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the time to wait; nothing is recorded for it, for the first one will be."""
    # What a server that was killed leaves: nobody gives the claim back.
    monkeypatch.setattr("credit_risk.idempotency.Claim.release", lambda _: None)
    server.active.current = replace(server.active.current, model=Broken(ZeroDivisionError))
    assert post(server).status_code == 500
    records = server.records()
    waiting = post(server)

    assert waiting.status_code == 409
    assert waiting.json()["type"] == "/problems/idempotency-key-in-use"
    assert int(waiting.headers["retry-after"]) >= 1
    assert server.records() == records
    assert outcomes(server) == {"new": 1, "conflict": 1}


def test_a_failure_is_not_kept(server: Served) -> None:
    """Sent again, the request is decided."""
    package = server.active.current
    server.active.current = replace(package, model=Broken(ZeroDivisionError))
    assert post(server).status_code == 500
    server.active.current = package

    assert post(server).status_code == 200
    assert [record.kind for record in server.records()] == ["decision", "failure"]
    assert outcomes(server) == {"new": 2}


def test_what_could_not_be_recorded_is_not_kept(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """The claim cannot be made either: 503, and nothing is decided."""
    with served.serving(trees_package, tmp_path, Full) as server:
        answer = post(server)

    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/not-recorded"


def test_a_deadline_that_is_over_gives_the_claim_back(server: Served) -> None:
    """The next one, with more time, is decided."""
    hurried = server.settings_with(deadline_seconds=1e-6)
    late = post(hurried)
    assert late.status_code == 503
    assert late.json()["type"] == "/problems/deadline-exceeded"

    assert post(server).status_code == 200


def test_an_overload_gives_the_claim_back(server: Served) -> None:
    """Too much work now is none later."""
    busy = server.settings_with()
    with busy.batcher.admitted(server.active.current, server.settings.waiting_limit, PATIENT):
        turned_away = post(busy)
    assert turned_away.json()["type"] == "/problems/overloaded"

    assert post(busy).status_code == 200
    assert len(server.records()) == 1


@pytest.mark.parametrize("body", [toys.RISKY, {"age": 1}])
def test_who_lost_its_claim_answers_nothing_of_its_own(
    server: Served, monkeypatch: pytest.MonkeyPatch, body: object
) -> None:
    """A worker that slept past its deadline finds the key taken: 409, and nothing is recorded."""
    keep = Claim.keep

    def late(claim: Claim, kept: Kept) -> Alongside:
        return keep(replace(claim, holder="who had it before"), kept)

    monkeypatch.setattr(Claim, "keep", late)
    lost = post(server, body)

    assert (lost.status_code, lost.json()["type"]) == (409, "/problems/idempotency-key-in-use")
    assert server.records() == []
    assert server.sample("credit_decisions_total", **decided(server)) == 0


def test_the_log_line_tells_the_decision_and_never_the_key(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """A repetition names whose answer it was."""
    caplog.set_level("INFO")
    first = post(server)
    post(server)
    post(server, toys.SAFE)

    lines = [vars(r) for r in caplog.records if r.name == "credit_risk.requests"]
    ids = [line["decision_id"] for line in lines]
    assert ids == [first.json()["decision_id"]] * 2 + [None]
    assert lines[2]["problem"] == "/problems/idempotency-key-reused"
    assert KEY not in str(lines)
    assert all(KEY not in str(record.to_json()) for record in server.records())


def test_without_a_key_each_request_is_decided(server: Served) -> None:
    """As ever."""
    answers = {server.post("/predict", toys.RISKY).content for _ in range(3)}

    assert len(answers) == 3
    assert outcomes(server) == {}


def test_every_problem_of_keys_says_what_to_do() -> None:
    """The draft asks for documentation at the type."""
    for slug in ("malformed-idempotency-key", "idempotency-key-in-use", "idempotency-key-reused"):
        assert "send" in problems.KINDS[slug].advice.lower()
