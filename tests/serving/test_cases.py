"""The calls about decisions on record."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk.audit.log import SqlAuditLog
from credit_risk.errors import RecordingFailed
from credit_risk.serving.store import Store
from monitoring.logs import Line
from tests import served, toys
from tests.served import Active, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2
    from starlette.types import Message

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage

NOWHERE = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"
REFERRED = toys.SAFE | {"years_employed": None}
"""Approved by its score, and referred by a rule."""


@pytest.fixture(scope="module")
def long_lived(
    trees_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One server for many requests; making a database for each would take longest."""
    with served.serving(trees_package, tmp_path_factory.mktemp("cases")) as running:
        yield running


@pytest.fixture
def server(
    long_lived: Served, trees_package: ModelPackage, caplog: pytest.LogCaptureFixture
) -> Served:
    """A server of the toy trees that has answered nothing yet."""
    caplog.set_level(logging.INFO, "credit_risk.requests")
    return Served(Active(trees_package), long_lived.audit, long_lived.settings)


def decide(server: Served, application: object) -> str:
    """Have the server decide; returns the decision's id."""
    decision_id: str = server.post("/predict", application).json()["decision_id"]
    return decision_id


def problem(response: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem in an answer, its form checked."""
    document: dict[str, Any] = response.json()
    assert response.status_code == status, document
    assert response.headers["content-type"] == "application/problem+json"
    assert (document["status"], document["type"]) == (status, f"/problems/{slug}")
    return document


def last_line(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The last request line, as it is printed."""
    records = [record for record in caplog.records if record.name == "credit_risk.requests"]
    line: dict[str, Any] = json.loads(Line().format(records[-1]))
    return line


# Decisions on record


def test_a_decision_is_shown_as_it_is_on_record(server: Served) -> None:
    """The application included; asking leaves no record."""
    decision_id = decide(server, toys.RISKY)

    response = server.get(f"/decisions/{decision_id}")

    record = server.only_record()
    assert response.status_code == 200
    assert response.json() == json.loads(json.dumps(record.to_json()))
    assert response.json()["personal"] == {"input": toys.RISKY}


@pytest.mark.parametrize(("method", "call"), [("GET", ""), ("POST", "/replay")])
def test_a_decision_that_is_none_of_ours_is_not_found(
    server: Served, method: str, call: str
) -> None:
    """An unknown one, what is no id at all, another portfolio's, or the record of a refusal."""
    refused = server.post("/predict", {"age": 1}).json()["instance"].removeprefix("urn:uuid:")
    decision_id = decide(server, toys.RISKY)
    other = server.settings.model_copy(update={"portfolio": "tricycle-leases"})
    elsewhere = Served(server.active, server.audit, other)
    before = len(server.records())

    for name in (NOWHERE, "x", "%00", decision_id.upper(), f"{decision_id}0", refused):
        problem(server.client.request(method, f"/decisions/{name}{call}"), 404, "not-found")
    problem(elsewhere.client.request(method, f"/decisions/{decision_id}{call}"), 404, "not-found")
    assert len(server.records()) == before


# Replay


def test_a_decision_is_made_again(server: Served) -> None:
    """With the answer it had; asking leaves no record."""
    answered = server.post("/predict", toys.RISKY).json()

    response = server.client.post(f"/decisions/{answered['decision_id']}/replay")

    told = response.json()
    assert (response.status_code, told["verdict"]) == (200, "MATCH")
    assert told["decision_id"] == answered["decision_id"]
    assert told["differences"] == []
    assert told["replayed"] == told["recorded"]
    assert told["replayed"]["probability_of_default"] == answered["probability_of_default"]
    assert len(server.records()) == 1


def test_a_decision_is_made_again_by_the_package_that_made_it(
    server: Served, linear_package: ModelPackage, tmp_path: Path
) -> None:
    """Another one decides by now; without the one that did, it cannot be made."""
    decision_id = decide(server, toys.RISKY)
    server.active.current = linear_package
    missing = server.client.post(f"/decisions/{decision_id}/replay").json()
    assert (missing["verdict"], missing["cause"]) == ("NOT_REPRODUCIBLE", "package-missing")
    assert missing["replayed"] is None

    Store(server.settings).add(toys.write_package(tmp_path, "trees"))

    assert server.client.post(f"/decisions/{decision_id}/replay").json()["verdict"] == "MATCH"


def test_a_replay_takes_no_body(server: Served) -> None:
    """A candidate that somebody sends is not quietly left out of account."""
    decision_id = decide(server, toys.RISKY)
    path = f"/decisions/{decision_id}/replay"

    problem(server.post(path, {"policy": "mine"}), 400, "unexpected-body")
    chunks: list[Message] = [{"type": "http.request", "body": b"x", "more_body": True}]
    assert server.send(path, chunks, headers=[]).status == 400
    assert server.send(path, b"", headers=[(b"content-length", b"0")]).status == 200
    impatient = server.settings_with(request_seconds=0.01)
    late = impatient.send(path, [], headers=[], stays=True)
    assert (late.status, late.json()["type"]) == (408, "/problems/request-timeout")
    assert len(server.records()) == 1


def test_a_replay_that_takes_too_long_is_503_and_worth_a_retry(
    server: Served,
    trees_package: ModelPackage,
    linear_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The package goes on loading, and is there for who asks again."""
    decision_id = decide(server, toys.RISKY)
    may_go_on = threading.Event()

    def load(_store: Store, _portfolio: str, _version: str) -> ModelPackage:
        assert may_go_on.wait(60)
        return trees_package

    monkeypatch.setattr(served, "load_checked", load)
    server.active.current = linear_package
    impatient = server.settings_with(deadline_seconds=0.05)

    response = impatient.client.post(f"/decisions/{decision_id}/replay")
    problem(response, 503, "deadline-exceeded")
    assert response.headers["retry-after"] == "1"
    may_go_on.set()
    impatient.replays.close()


def test_a_replay_is_counted_and_logged_without_its_id_in_the_route(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is anything of the applicant in the line."""
    decision_id = decide(server, toys.RISKY | {"income": 432.1987})

    server.client.post(f"/decisions/{decision_id}/replay")

    line = last_line(caplog)
    assert (line["route"], line["decision_id"]) == ("/decisions/{id}/replay", decision_id)
    assert server.sample("credit_http_requests_total", route=line["route"], status="200") == 1
    assert "432.1987" not in json.dumps(line)


# Notices


def test_a_decline_has_a_notice_with_the_reasons_it_was_answered_with(server: Served) -> None:
    """In their wording, by the regime of the settings; asking leaves no record."""
    answered = server.post("/predict", toys.RISKY).json()

    response = server.get(f"/decisions/{answered['decision_id']}/notice")

    notice = response.json()
    assert response.status_code == 200
    assert [
        {"code": reason["code"], "text": reason["text"]} for reason in notice["principal_reasons"]
    ] == answered["reasons"]
    assert notice["decided_by"] == ["score"]
    assert notice["notification"]["days"] == 30
    assert notice["regime"]["id"] == "us-ecoa"
    assert len(server.records()) == 1


def test_a_knock_out_is_told_as_the_rule_it_was(server: Served) -> None:
    """The score had nothing against it."""
    decision_id = decide(server, toys.SAFE | {"price": 15_001, "income": 90_000})

    notice = server.get(f"/decisions/{decision_id}/notice").json()

    assert notice["decided_by"] == ["rule"]
    assert [reason["code"] for reason in notice["principal_reasons"]] == ["PRICE_ABOVE_LIMIT"]


@pytest.mark.parametrize("application", [toys.SAFE, REFERRED])
def test_what_is_not_declined_has_no_notice(server: Served, application: object) -> None:
    """An approval, and what a person has to decide first."""
    decision_id = decide(server, application)

    problem(server.get(f"/decisions/{decision_id}/notice"), 409, "not-adverse")


def test_an_unknown_decision_is_not_found(server: Served) -> None:
    """Nor what is no id at all, nor the record of something else."""
    refused = server.post("/predict", {"age": 1}).json()["instance"].removeprefix("urn:uuid:")

    for name in (NOWHERE, "x", "%00", NOWHERE.upper(), refused):
        problem(server.get(f"/decisions/{name}/notice"), 404, "not-found")


def test_a_decision_of_another_portfolio_is_not_found(server: Served) -> None:
    """Each server answers for its own."""
    decision_id = decide(server, toys.RISKY)
    other = server.settings.model_copy(update={"portfolio": "tricycle-leases"})
    elsewhere = Served(server.active, server.audit, other)

    problem(elsewhere.get(f"/decisions/{decision_id}/notice"), 404, "not-found")


def test_without_the_package_that_decided_there_is_no_notice(
    server: Served, linear_package: ModelPackage
) -> None:
    """No other package's wording stands in."""
    decision_id = decide(server, toys.RISKY)
    server.active.current = linear_package

    problem(server.get(f"/decisions/{decision_id}/notice"), 409, "package-missing")


def test_a_call_about_a_decision_is_counted_and_logged_without_its_id_in_the_route(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """The route is a template; the decision is named beside it."""
    decision_id = decide(server, toys.RISKY)

    server.get(f"/decisions/{decision_id}/notice")

    line = last_line(caplog)
    assert (line["route"], line["decision_id"]) == ("/decisions/{id}/notice", decision_id)
    assert server.sample("credit_http_requests_total", route=line["route"], status="200") == 1


class Unreadable(SqlAuditLog):
    """A log whose database has gone."""

    def get(self, record_id: str) -> Record:
        """Fail as a database that is away would make it."""
        raise RecordingFailed(f"no connection, nothing of {len(record_id)} characters")


def test_records_that_cannot_be_read_are_503_and_worth_a_retry(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """What is wrong with the database is for the log alone."""
    with served.serving(trees_package, tmp_path, Unreadable) as server:
        response = server.get(f"/decisions/{NOWHERE}/notice")

    document = problem(response, 503, "records-unavailable")
    assert response.headers["retry-after"] == "1"
    assert "connection" not in json.dumps(document)
