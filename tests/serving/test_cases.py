"""The calls about decisions on record."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from concurrent.futures import Future
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest

from credit_risk.audit.log import SqlAuditLog
from credit_risk.errors import RecordingFailed
from credit_risk.serving.store import Store
from monitoring.logs import Line
from tests import served, toys
from tests.sealing import SEALING
from tests.served import Full, Served

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import httpx2
    from starlette.types import Message

    from credit_risk.audit.records import Alongside, Record
    from credit_risk.package import ModelPackage

NOTE = "the-applicants-aunt-called"
SENTINEL = "sentinel-6021023"
NOWHERE = "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"
REFERRED = toys.SAFE | {"years_employed": None}
"""Approved by its score, and referred by a rule."""


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


@pytest.mark.parametrize(
    ("method", "call"), [("GET", ""), ("POST", "/replay"), ("GET", "/notice"), ("GET", "/case")]
)
def test_a_decision_that_was_altered_is_no_evidence(server: Served, method: str, call: str) -> None:
    """It is told so, and the one beside it is shown."""
    spoiled, sound = (decide(server, toys.RISKY) for _ in range(2))
    with closing(sqlite3.connect(server.settings.state_dir / "records.db")) as database:
        database.execute("UPDATE records SET status = 201 WHERE id = ?", (spoiled,))
        database.commit()

    answer = server.client.request(method, f"/decisions/{spoiled}{call}")

    problem(answer, 500, "evidence-invalid")
    assert server.client.request(method, f"/decisions/{sound}{call}").status_code == 200


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
    assert server.sample("credit_http_requests_total", route=line["route"], status_class="2xx") == 1
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
    assert server.sample("credit_http_requests_total", route=line["route"], status_class="2xx") == 1


def test_a_notice_after_a_review_names_the_reviewers_reason_first(server: Served) -> None:
    """Then the rule that referred it; it was no override, but against the score it is."""
    decision_id = decide(server, REFERRED)
    path = f"/decisions/{decision_id}/notice"
    server.post(f"/decisions/{decision_id}/review", said("ada", "DECLINE"))
    problem(server.get(path), 409, "not-adverse")  # a second person has not agreed yet
    server.post(f"/decisions/{decision_id}/review", said("ben", "DECLINE"))

    notice = server.get(path).json()

    assert notice["decided_by"] == ["reviewer", "rule"]
    assert [(r["component"], r["code"]) for r in notice["principal_reasons"]] == [
        ("reviewer", "INCOME_INSUFFICIENT"),
        ("rule", "EMPLOYMENT_NOT_STATED"),
    ]
    assert notice["review"]["override"] == "high-side"


def test_a_decline_that_people_overrode_has_no_notice_any_more(server: Served) -> None:
    """From the first word on: who is told today may be approved tomorrow."""
    decision_id = decide(server, toys.RISKY)
    path = f"/decisions/{decision_id}/notice"

    assert server.get(path).status_code == 200
    server.post(f"/decisions/{decision_id}/review", said("ada", "APPROVE"))
    assert "second person" in problem(server.get(path), 409, "not-adverse")["detail"]
    server.post(f"/decisions/{decision_id}/review", said("ben", "APPROVE"))
    assert "by a reviewer" in problem(server.get(path), 409, "not-adverse")["detail"]


# Reviews


def said(reviewer: str, decision: str, reason: str = "") -> dict[str, object]:
    """The body of a review."""
    fitting = "INFORMATION_VERIFIED" if decision == "APPROVE" else "INCOME_INSUFFICIENT"
    return {
        "reviewer": reviewer,
        "decision": decision,
        "reason": reason or fitting,
        "note": NOTE,
    }


def test_a_referred_decision_is_claimed_and_decided(server: Served) -> None:
    """It stands in the queue until then; each step is on record."""
    decision_id = decide(server, REFERRED)
    assert decision_id in listed(server)

    claimed = server.post(f"/decisions/{decision_id}/claim", {"reviewer": "ada"}).json()
    assert (claimed["state"], claimed["holder"]) == ("claimed", "ada")
    closed = server.post(f"/decisions/{decision_id}/review", said("ada", "APPROVE")).json()

    assert (closed["state"], closed["closed"]["decision"]) == ("closed", "APPROVE")
    assert decision_id not in listed(server)
    assert [(r.kind, r.about) for r in server.records()] == [
        ("review", decision_id),
        ("claim", decision_id),
        ("decision", None),
    ]


def test_the_second_person_reads_what_the_first_one_wrote(server: Served) -> None:
    """Every step of the case, in order; of a decision nobody touched there is none."""
    path = f"/decisions/{decide(server, toys.RISKY)}"
    assert server.get(f"{path}/case").json()["state"] == "none"
    server.post(f"{path}/review", said("ada", "APPROVE"))
    server.post(f"{path}/claim", {"reviewer": "ben"})

    case = server.get(f"{path}/case").json()

    assert (case["state"], case["holder"]) == ("claimed", "ben")
    assert [(s["action"], s["reviewer"], s["note"]) for s in case["steps"]] == [
        ("propose", "ada", NOTE),
        ("claim", "ben", None),
    ]
    problem(server.get(f"/decisions/{NOWHERE}/case"), 404, "not-found")


def listed(server: Served) -> list[str]:
    """Everything in the queue, page by page."""
    found: list[str] = []
    after = ""
    while True:
        page = server.get(f"/reviews?limit=2{after}").json()
        found += [row["decision_id"] for row in page["reviews"]]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def test_the_queue_is_the_oldest_first_and_filtered(server: Served) -> None:
    """By state; a page names where the next one begins."""
    ids = [decide(server, REFERRED) for _ in range(3)]
    server.post(f"/decisions/{ids[1]}/claim", {"reviewer": "ada"})

    assert [name for name in listed(server) if name in ids] == ids
    claimed = server.get("/reviews?state=claimed").json()["reviews"]
    assert [row["holder"] for row in claimed if row["decision_id"] in ids] == ["ada"]


def test_who_comes_second_is_told(server: Served) -> None:
    """A claim of others, a case that is closed, and a second person who is the first."""
    decision_id = decide(server, REFERRED)
    path = f"/decisions/{decision_id}"
    server.post(f"{path}/claim", {"reviewer": "ada"})

    for name in ("claim", "release"):
        problem(server.post(f"{path}/{name}", {"reviewer": "ben"}), 409, "review-refused")
    problem(server.post(f"{path}/review", said("ben", "APPROVE")), 409, "review-refused")
    server.post(f"{path}/release", {"reviewer": "ada"})
    server.post(f"{path}/review", said("ben", "APPROVE"))
    told = problem(server.post(f"{path}/review", said("ada", "APPROVE")), 409, "review-refused")
    assert told["detail"] == "The review is closed"
    other = f"/decisions/{decide(server, toys.RISKY)}/review"
    server.post(other, said("ada", "APPROVE"))
    told = problem(server.post(other, said("Ada", "APPROVE")), 409, "review-refused")
    assert told["detail"] == "The case needs a second, different person"


def test_overrides_are_counted_and_summed_up(server: Served) -> None:
    """By direction and reason, once they are closed."""
    path = f"/decisions/{decide(server, toys.RISKY)}/review"
    labels = {
        "portfolio": toys.NAME,
        "decision": "APPROVE",
        "override": "low-side",
        "reason": "INFORMATION_VERIFIED",
    }
    server.post(path, said("ada", "APPROVE"))
    assert server.sample("credit_reviews_total", **labels) == 0
    server.post(path, said("ben", "APPROVE", reason="COMPENSATING_FACTORS"))
    assert server.sample("credit_reviews_total", **labels) == 1
    assert server.sample("credit_records_written_total", kind="review") == 2

    summary = server.get("/reviews/summary?since=2020-01-01T00:00:00Z").json()
    (low,) = [o for o in summary["overrides"] if o["direction"] == "low-side"]
    assert low["reasons"]["INFORMATION_VERIFIED"] >= 1
    assert low["rate"] == low["number"] / low["of"]
    nothing = server.get("/reviews/summary?until=2020-01-01").json()
    assert (nothing["overrides"], nothing["reviews"]["closed"]) == ([], 0)


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"reviewer": ""}, "/reviewer"),
        ({"reviewer": "a da"}, "/reviewer"),
        ({"reviewer": "ada\n"}, "/reviewer"),
        ({"reviewer": "\u0430da"}, "/reviewer"),
        ({"reviewer": 7}, "/reviewer"),
        ({"decision": "REVIEW"}, "/decision"),
        ({"decision": None}, "/decision"),
        ({"reason": "WEATHER"}, "/reason"),
        ({"reason": "weather"}, "/reason"),
        ({"note": " "}, "/note"),
        ({"note": "x" * 4_001}, "/note"),
        ({"more": SENTINEL}, "/more"),
    ],
)
def test_a_wrong_review_is_refused_and_nothing_is_recorded(
    server: Served, changed: dict[str, object], pointer: str
) -> None:
    """The place is named, and the value is not."""
    decision_id = decide(server, REFERRED)

    response = server.post(f"/decisions/{decision_id}/review", said("ada", "APPROVE") | changed)

    document = problem(response, 422, "invalid-request")
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert SENTINEL not in response.text
    assert [record.kind for record in server.records()] == ["decision"]


@pytest.mark.parametrize("name", ["claim", "release", "review"])
@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{", 400, "malformed-json"),
        (b"\xff", 400, "malformed-json"),
        (b"[]", 422, "invalid-request"),
        (b"{}", 422, "invalid-request"),
        (b'{"reviewer": "ada", "reviewer": "ben"}', 422, "invalid-request"),
        (b" " * 65_537, 413, "body-too-large"),
    ],
)
def test_a_body_that_is_none_is_refused_and_nothing_is_recorded(
    server: Served, name: str, body: bytes, status: int, slug: str
) -> None:
    """For each of the steps alike."""
    decision_id = decide(server, REFERRED)

    problem(server.post(f"/decisions/{decision_id}/{name}", body), status, slug)

    assert len(server.records()) == 1


def test_a_step_about_no_decision_is_not_found(server: Served) -> None:
    """Whatever is wrong otherwise is told first; a wrong type of body is refused."""
    for name in (NOWHERE, "x"):
        for path in ("claim", "release"):
            response = server.post(f"/decisions/{name}/{path}", {"reviewer": "ada"})
            problem(response, 404, "not-found")
        problem(server.post(f"/decisions/{name}/review", said("ada", "APPROVE")), 404, "not-found")
    response = server.post(f"/decisions/{NOWHERE}/claim", b"{}", content_type="text/plain")
    problem(response, 415, "unsupported-media-type")
    assert server.records() == []


def test_a_case_whose_package_is_gone_takes_no_step(
    server: Served, linear_package: ModelPackage
) -> None:
    """Nobody knows what its policy says."""
    decision_id = decide(server, REFERRED)
    server.active.current = linear_package

    response = server.post(f"/decisions/{decision_id}/review", said("ada", "APPROVE"))

    problem(response, 409, "package-missing")
    assert len(server.records()) == 1


@pytest.mark.parametrize(
    "query",
    [
        "/reviews?state=closed",
        "/reviews?state=",
        "/reviews?limit=0",
        "/reviews?limit=501",
        "/reviews?limit=many",
        "/reviews?limit=1_0",
        "/reviews?limit=%2B10",
        "/reviews?limit=%2010",
        "/reviews?limit=1.0",
        "/reviews?limit=%D9%A1",
        "/reviews/summary?until=2026-01-01&since=2026-01-02",
        "/reviews/summary?until=2026-01-01T01:00:00%2B01:00&since=2026-01-01",
        "/reviews?limit=1&limit=2",
        f"/reviews?portfolio={SENTINEL}",
        "/reviews/summary?since=yesterday",
        f"/reviews/summary?until={SENTINEL}",
        "/reviews/summary?from=2026-01-01",
        "/reviews/summary?since=0.5",
        "/reviews/summary?since=2026-13-01",
        "/reviews/summary?since=0001-01-01T00:00:00%2B14:00",
        "/reviews/summary?until=9999-12-31T23:59:59-14:00",
    ],
)
def test_a_wrong_query_is_refused(server: Served, query: str) -> None:
    """A filter that is misspelt would be one that is left out."""
    response = server.get(query)

    document = problem(response, 422, "invalid-request")
    name = query.partition("?")[2].partition("=")[0]
    assert {error["pointer"] for error in document["errors"]} == {f"/{name}"}
    assert SENTINEL not in response.text


@pytest.mark.parametrize("after", ["x", NOWHERE])
def test_a_page_behind_nothing_is_not_found(server: Served, after: str) -> None:
    """No decision has that id."""
    problem(server.get(f"/reviews?after={after}"), 404, "not-found")


def test_what_people_write_reaches_no_log_metric_or_answer_of_others(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the note nor the name; the decision's id does."""
    caplog.set_level(logging.DEBUG)
    decision_id = decide(server, REFERRED)
    path = f"/decisions/{decision_id}/review"
    response = server.post(path, said("ada.lovelace", "APPROVE"))

    line = last_line(caplog)
    assert (line["route"], line["decision_id"]) == ("/decisions/{id}/review", decision_id)
    written = caplog.text + server.get("/metrics").text
    assert "ada.lovelace" not in written
    assert NOTE not in written + response.text
    (step, _) = server.records()
    assert step.personal == {"note": NOTE}
    assert NOTE not in json.dumps(step.body)


def test_a_step_that_cannot_be_recorded_is_503_and_did_not_happen(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """The case waits as before."""
    with served.serving(trees_package, tmp_path) as server:
        decision_id = decide(server, REFERRED)
        server.audit = Full(server.settings.audit_url, SEALING)
        full = Served(server.active, server.audit, server.settings)
        response = full.post(f"/decisions/{decision_id}/claim", {"reviewer": "ada"})
        server.audit.close()

        told = problem(response, 503, "step-not-recorded")
        assert "decision" not in told["title"]
        assert response.headers["retry-after"] == "1"
        assert [row["state"] for row in server.get("/reviews").json()["reviews"]] == ["open"]


class Stalled(SqlAuditLog):
    """A log whose commits never come."""

    async def record(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> None:
        """Wait for one."""
        await asyncio.Event().wait()
        await super().record(records, alongside=alongside)


def test_a_step_that_is_not_on_record_in_time_may_still_get_there(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """So the answer says to look, and not that there is none."""
    with served.serving(trees_package, tmp_path) as server:
        decision_id = decide(server, REFERRED)
        with closing(Stalled(server.settings.audit_url, SEALING)) as stalled:
            slow = Served(server.active, stalled, server.settings)
            slow = slow.settings_with(deadline_seconds=0.05)
            response = slow.post(f"/decisions/{decision_id}/claim", {"reviewer": "ada"})

    assert "may still get there" in problem(response, 503, "step-in-doubt")["title"]
    assert response.headers["retry-after"] == "1"


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

        queued = server.post(f"/decisions/{NOWHERE}/claim", {"reviewer": "ada"})

    problem(queued, 503, "step-not-recorded")
    document = problem(response, 503, "records-unavailable")
    assert response.headers["retry-after"] == "1"
    assert "connection" not in json.dumps(document)


def test_a_decision_has_a_proof(server: Served) -> None:
    """At once: where it is under no checkpoint yet, one is made."""
    decision_id = decide(server, toys.SAFE)
    response = server.get(f"/decisions/{decision_id}/proof")

    assert response.status_code == 200
    proof = response.json()
    assert json.loads(proof["record"]["canonical"])["id"] == proof["decision_id"] == decision_id
    again = server.get(f"/decisions/{decision_id}/proof").json()
    assert again == proof


def test_what_was_never_recorded_has_no_proof(server: Served) -> None:
    """An unknown id, and what is none."""
    for decision_id in (NOWHERE, "x", "%00"):
        problem(server.get(f"/decisions/{decision_id}/proof"), 404, "not-found")


def test_where_no_checkpoint_can_be_made_a_proof_is_worth_a_retry(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """The database takes nothing at that moment."""
    with served.serving(trees_package, tmp_path) as server:
        decision_id = decide(server, toys.SAFE)
    with served.serving(trees_package, tmp_path, Full) as server:
        cast("SqlAuditLog", server.audit).append = failing  # type: ignore[method-assign]
        response = server.get(f"/decisions/{decision_id}/proof")
        problem(response, 503, "records-unavailable")
        assert response.headers["retry-after"] == "1"


def failing(*_: object, **__: object) -> Future[None]:
    """As an append ends when the disk is full."""
    future: Future[None] = Future()
    future.set_exception(RecordingFailed("the disk is full"))
    return future


def test_a_record_that_was_altered_has_no_proof(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """The caller is told so, and nothing of the record."""
    with served.serving(trees_package, tmp_path) as server:
        decision_id = decide(server, toys.SAFE)
        with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
            connection.execute("UPDATE records SET decision = 'DECLINE'")
            connection.commit()
        told = problem(server.get(f"/decisions/{decision_id}/proof"), 500, "evidence-invalid")
        assert "DECLINE" not in json.dumps(told)
