"""The calls about the model in use: read, asked of the analyst, recorded, answered."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk import groups, outcomes, windows
from credit_risk.audit import keys
from credit_risk.audit.log import SqlAuditLog
from credit_risk.canary import Canary
from credit_risk.challenges import Challenge
from credit_risk.errors import Conflict, CountsOutdated, MonitoringFailed, Overloaded
from credit_risk.serving import monitor
from monitoring import multivariate
from monitoring.multivariate import Multivariate
from tests import served, toys
from tests.sealing import SEALING
from tests.served import Full, Served
from tests.serving.test_cases import NOWHERE, problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from credit_risk.package import ModelPackage
    from credit_risk.windows import Floats

TODAY = datetime.now(UTC).date().isoformat()
ROWS = 20


def decide(server: Served, number: int = ROWS) -> list[str]:
    """Have the server decide about so many; returns the decisions' ids."""
    batch = {"applications": toys.applications(number)}
    answer = server.post("/predict/batch", batch).json()
    return [row["decision_id"] for row in answer["results"]]


def told(decision_id: str, **changed: object) -> dict[str, Any]:
    """An outcome."""
    return {"decision_id": decision_id, "defaulted": False, "observed": TODAY, **changed}


# Outcomes


def test_outcomes_are_recorded_one_or_many(server: Served) -> None:
    """With a result for each, in order; and counted."""
    one, two = decide(server, 2)

    alone = server.post("/outcomes", told(one))
    assert alone.status_code == 200
    assert alone.json() == {
        "rows": 1,
        "recorded": 1,
        "results": [{"decision_id": one, "state": "recorded"}],
    }
    rows = [told(one, defaulted=True), told(two), told(NOWHERE), {"decision_id": 7}]
    many = server.post("/outcomes", {"outcomes": rows}).json()
    assert [row["state"] for row in many["results"]] == [
        *("corrected", "recorded", "unknown", "invalid")
    ]
    assert many["recorded"] == 2
    assert {error["pointer"] for error in many["results"][3]["errors"]} >= {"/decision_id"}
    assert server.sample("credit_records_written_total", kind="outcome") == 3
    assert [r.about for r in server.records() if r.kind == "outcome"] == [two, one, one]


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{", 400, "malformed-json"),
        (b"[]", 422, "invalid-request"),
        (b'{"outcomes": [], "outcomes": []}', 422, "invalid-request"),
        (b'{"outcomes": []}', 422, "invalid-request"),
        (b'{"outcomes": 7}', 422, "invalid-request"),
        (b'{"outcomes": [{}], "more": 1}', 422, "invalid-request"),
        (json.dumps({"outcomes": [{}] * 1_001}).encode(), 422, "invalid-request"),
        (b" " * (monitor.OUTCOMES_BYTES_MAX + 1), 413, "body-too-large"),
    ],
)
def test_a_body_that_holds_no_outcomes_is_refused(
    server: Served, body: bytes, status: int, slug: str
) -> None:
    """As a whole; nothing is recorded."""
    problem(server.post("/outcomes", body), status, slug)
    assert server.records() == []


def test_outcomes_that_may_not_be_on_record_are_to_be_sent_again(
    trees_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full; or somebody says otherwise all the time."""
    with served.serving(trees_package, tmp_path) as server:
        (one,) = decide(server, 1)
    with served.serving(trees_package, tmp_path, Full) as server:
        response = server.post("/outcomes", told(one))
        problem(response, 503, "record-in-doubt")
        assert response.headers["retry-after"]

        def never(*_: object, **__: object) -> None:
            raise Conflict("always second")

        monkeypatch.setattr(outcomes, "add", never)
        problem(server.post("/outcomes", told(one)), 503, "record-in-doubt")


# Drift


def test_drift_of_a_window_is_of_every_decision_by_now(server: Served) -> None:
    """All that is on record is counted first, whatever was counted before."""
    decide(server)
    first = server.post("/monitor/drift", {"window": "24h"}).json()
    decide(server)
    second = server.post("/monitor/drift", {"window": "24h"}).json()

    assert first["rows"] == first["decisions"] >= ROWS
    assert second["rows"] == first["rows"] + ROWS
    assert second["model_version"] == server.active.current.version
    assert [field["field"] for field in second["fields"]] == list(
        server.active.current.schema.names
    )


def test_drift_of_a_window_in_the_past_has_nobody_in_it(server: Served) -> None:
    """Times are in UTC where they say nothing else; the answer says what hours were meant."""
    decide(server)
    span = {"from": "2020-01-01T00:30:00", "to": "2020-01-02T00:00:00+01:00"}

    answer = server.post("/monitor/drift", span).json()
    assert (answer["from"], answer["to"], answer["rows"]) == (
        *("2020-01-01T00:00:00.000000Z", "2020-01-01T23:00:00.000000Z", 0),
    )


def test_drift_of_given_applicants_leaves_no_record(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few, whose body is read here too, and many, whose body is not."""
    monkeypatch.setattr(multivariate, "is_available", lambda: False)
    few = server.post("/monitor/drift", {"applications": toys.applications(3)})
    many = server.post("/monitor/drift", {"applications": toys.applications(400)})

    assert (few.json()["rows"], many.json()["rows"]) == (3, 400)
    assert many.json()["verdict"] == "stable"
    assert many.json()["from"] is None
    together = many.json()["multivariate"]
    assert together["verdict"] == "missing"
    assert "alibi-detect is not installed" in together["reason"]
    assert server.records() == []
    assert set(server.analyst.asked) == {"drift_of"}


def test_with_the_library_applicants_of_now_are_held_beside_the_first(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those given, and those of a window."""
    compared: list[tuple[int, int]] = []

    def compare(then: Floats, now: Floats, names: Sequence[str]) -> Multivariate:
        assert then.shape[1] == now.shape[1] == len(names)
        compared.append((len(then), len(now)))
        return Multivariate(verdict="stable", baseline_rows=len(then), rows=len(now))

    monkeypatch.setattr(multivariate, "is_available", lambda: True)
    monkeypatch.setattr(multivariate, "compare", compare)
    decide(server)
    window = server.post("/monitor/drift", {"window": "24h"}).json()
    server.post("/monitor/drift", {"applications": toys.applications(3)})

    assert window["multivariate"]["verdict"] == "stable"
    everybody = window["decisions"]
    assert compared == [(0, everybody), (everybody, 3)]


LONG = {"applications": [toys.SAFE] * 100}


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 422, "/window"),
        ({"window": "7w"}, 422, "/window"),
        ({"window": "401d"}, 422, "/window"),
        ({"window": 7}, 422, "/window"),
        ({"window": None}, 422, "/window"),
        ({"window": "7d", "from": "2026-01-01"}, 422, "/window"),
        ({"window": "7d", "to": "2026-01-01"}, 422, "/window"),
        ({"to": "2026-01-01"}, 422, "/window"),
        ({"from": "2026-01-02", "to": "2026-01-01"}, 422, "/from"),
        ({"from": "2100-01-01", "to": "2100-01-02"}, 422, "/from"),
        ({"from": "2100-01-01"}, 422, "/from"),
        ({"from": "2001-01-02", "to": "2026-01-01"}, 422, "/from"),
        ({"from": "0001-01-01", "to": "2026-01-01"}, 422, "/from"),
        ({"from": 1_700_000_000}, 422, "/from"),
        ({"from": "2026-02-31"}, 422, "/from"),
        ({"window": "7d", "model_version": "x"}, 422, "/model_version"),
        ({"window": "7d", "days": 1}, 422, "/days"),
        ({"applications": []}, 422, "/applications"),
        ({"applications": [{}], "window": "7d"}, 422, "/window"),
        ({"applications": [{}], "model_version": 7}, 422, "/model_version"),
        ({"applications": [{"surname": "Sentinel"}]}, 422, "/applications/0/surname"),
        (LONG | {"more": 1}, 422, "/more"),
        ({"applicants": LONG["applications"]}, 422, "/applicants"),
    ],
)
def test_what_is_neither_window_nor_applicants_is_refused_by_place(
    server: Served, body: dict[str, object], status: int, pointer: str
) -> None:
    """Without the value that was there."""
    document = problem(server.post("/monitor/drift", body), status, "invalid-request")

    assert pointer in {error["pointer"] for error in document["errors"]}
    assert "Sentinel" not in str(document)


def test_what_is_wrong_with_a_window_is_said_in_words(server: Served) -> None:
    """And not as the pattern that it does not match."""

    def said(body: dict[str, str]) -> str:
        (error,) = problem(server.post("/monitor/drift", body), 422, "invalid-request")["errors"]
        return str(error["detail"])

    assert said({"window": "9601h"}) == windows.NO_PERIOD
    assert said({"from": "yesterday"}) == "give a time as 2026-11-22T14:30:00Z"
    assert said({"from": "2100-01-01"}) == "The window begins in the future"


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{", 400, "malformed-json"),
        (b"{" + b" " * 5_000, 400, "malformed-json"),
        (b"[1" + b" " * 5_000 + b"]", 422, "invalid-request"),
        (b" " * (monitor.SAMPLE_BYTES_MAX + 1), 413, "body-too-large"),
        (b'{"window": "7d", "model_version": "000000000000"}', 409, "package-missing"),
        (b'{"applications": [{}], "model_version": "000000000000"}', 409, "package-missing"),
    ],
)
def test_other_bodies_are_problems_of_their_own(
    server: Served, body: bytes, status: int, slug: str
) -> None:
    """Also a million rows, of which none is read."""
    problem(server.post("/monitor/drift", body), status, slug)


@pytest.mark.parametrize(
    ("fault", "slug"),
    [(Overloaded(2.0), "overloaded"), (MonitoringFailed("ended"), "not-worked-out")],
)
def test_an_analyst_that_gives_no_answer_is_to_be_asked_again(
    server: Served, fault: MonitoringFailed | Overloaded, slug: str
) -> None:
    """It has too much to do, or has ended; decisions go on."""
    server.analyst.fault = fault
    try:
        response = server.post("/monitor/drift", {"window": "7d"})
    finally:
        server.analyst.fault = None

    problem(response, 503, slug)
    assert response.headers["retry-after"]


def test_counts_of_another_program_are_no_broken_evidence(server: Served) -> None:
    """They are to be counted anew, by who runs it; nobody is told that records were altered."""
    server.analyst.fault = CountsOutdated("counted by another")
    try:
        document = problem(server.post("/monitor/drift", {"window": "7d"}), 503, "not-worked-out")
    finally:
        server.analyst.fault = None
    assert "counted anew" in document["detail"]


# Performance


def test_performance_is_of_outcomes_on_record(server: Served) -> None:
    """Too few for figures, which it says; the usual window is the longest."""
    ids = decide(server)
    server.post("/outcomes", {"outcomes": [told(one) for one in ids]})

    answer = server.get("/monitor/performance").json()
    assert answer["rows"] >= ROWS
    assert answer["figures"] is None
    assert answer["not_enough"] == f"{answer['rows']} outcomes are known, and 100 are needed"
    before = server.get("/monitor/performance?from=2020-01-01&to=2020-01-02").json()
    assert (before["rows"], before["accepted"]) == (0, 0)


@pytest.mark.parametrize(
    ("query", "slug", "status"),
    [
        ("window=7d&window=8d", "invalid-request", 422),
        ("period=7d", "invalid-request", 422),
        ("window=7", "invalid-request", 422),
        ("model_version=000000000000", "package-missing", 409),
    ],
)
def test_a_query_that_means_nothing_is_refused(
    server: Served, query: str, slug: str, status: int
) -> None:
    """Of performance and of fairness."""
    problem(server.get(f"/monitor/performance?{query}"), status, slug)
    problem(server.get(f"/monitor/fairness?attribute=sex&{query}"), status, slug)


# Fairness


def test_fairness_needs_a_key_and_then_reports(trees_package: ModelPackage, tmp_path: Path) -> None:
    """By groups that were supplied apart."""
    with served.serving(trees_package, tmp_path) as server:
        ids = decide(server) + decide(server)
        path = "/monitor/fairness?attribute=sex"
        problem(server.get(path), 409, "groups-missing")
        sealing = keys.groups_sealing(server.settings, make=True)
        members = [groups.Member(one, "f" if i % 2 else "m") for i, one in enumerate(ids)]
        with closing(SqlAuditLog(server.settings.audit_url, SEALING)) as log:
            groups.add(log, sealing, toys.NAME, "sex", members)

        answer = server.get(path).json()
        assert (answer["attribute"], answer["decisions"]) == ("sex", 2 * ROWS)
        assert answer["not_enough"]
        document = problem(server.get(f"{path}&reference=f"), 422, "invalid-request")
        told = "None of the groups with 30 applicants or more"
        assert document["errors"] == [{"pointer": "/reference", "detail": told}]
        document = problem(server.get("/monitor/fairness?attribute=sxe"), 422, "invalid-request")
        told = "No groups by it are on record; there are some by sex"
        assert document["errors"] == [{"pointer": "/attribute", "detail": told}]
        problem(server.get("/monitor/fairness"), 422, "invalid-request")
        problem(server.get("/monitor/fairness?attribute=The+sex"), 422, "invalid-request")


# The challenger


def test_the_challenger_is_compared_with_the_package_that_decides(
    server: Served, linear_package: ModelPackage
) -> None:
    """That in force, or the one that is named; nothing was asked yet here."""
    path = "/monitor/challenger"
    nobody = problem(server.get(path), 422, "invalid-request")
    assert nobody["errors"] == [
        {
            "pointer": "/model_version",
            "detail": "No challenge is in force: name the package to compare",
        }
    ]
    challenge = Challenge(NOWHERE, toys.NAME, linear_package.version, 0.0, NOWHERE, 0)
    server.active.challenge = challenge
    server.active.canary = Canary(challenge, linear_package, server.canary_batcher)

    answer = server.get(path).json()
    champion = server.active.current.version
    assert (answer["champion"], answer["challenger"]) == (champion, linear_package.version)
    assert (answer["portfolio"], answer["from"], answer["rows"]) == (toys.NAME, None, 0)
    of = f"model_version={linear_package.version}&window=24h"
    named = server.get(f"{path}?{of}").json()
    assert named["to"]
    problem(server.get(f"{path}?model_version=0123456789ab"), 409, "package-missing")
    problem(server.get(f"{path}?window=1y"), 422, "invalid-request")
    itself = problem(server.get(f"{path}?model_version={champion}"), 422, "invalid-request")
    assert [error["pointer"] for error in itself["errors"]] == ["/model_version"]
    server.active.challenge = challenge._replace(version=champion)  # it was activated since
    problem(server.get(path), 422, "invalid-request")


# Retraining


def test_a_check_is_on_record_and_one_person_decides_on_it(server: Served) -> None:
    """It is shown with the decision; the note is sealed."""
    decide(server)
    made = server.post("/monitor/retraining-check", b"")
    assert made.status_code == 200
    check = made.json()
    assert check["verdict"] in {"NOT_NEEDED", "WATCH", "RECOMMENDED"}
    assert check["reasons"]
    assert check["decided"] is None
    path = f"/monitor/retraining-check/{check['check_id']}"
    assert server.get(path).json() == check

    said = {"reviewer": "ada", "decision": "KEEP", "note": "sentinel-6021023"}
    decided = server.post(f"{path}/decision", said).json()
    assert decided["decided"] | {"time": ""} == said | {"time": ""}
    assert server.get(path).json() == decided
    problem(server.post(f"{path}/decision", said), 409, "already-decided")

    record, checked = server.records()[:2]
    assert (checked.kind, record.kind) == ("retraining-check", "retraining-decision")
    assert (record.about, record.body) == (
        checked.id,
        {"reviewer": "ada", "decision": "KEEP"},
    )
    for kind in ("retraining-check", "retraining-decision"):
        assert server.sample("credit_records_written_total", kind=kind) == 1


def test_what_is_no_check_is_not_found(server: Served) -> None:
    """A decision is none, nor is anything that has no such id."""
    said = {"reviewer": "ada", "decision": "RETRAIN", "note": "It is time."}
    (decision,) = decide(server, 1)
    path = f"/monitor/retraining-check/{decision}"
    for check_id in (decision, NOWHERE, "x"):
        one = f"/monitor/retraining-check/{check_id}"
        for answer in (server.get(one), server.post(f"{one}/decision", said)):
            document = problem(answer, 404, "not-found")
            assert document["detail"] == "The portfolio has no such check"
    wrong = said | {"decision": "APPROVE"}
    problem(server.post(f"{path}/decision", wrong), 422, "invalid-request")
    problem(server.post("/monitor/retraining-check", {}), 400, "unexpected-body")


def test_a_check_that_is_not_on_record_is_none(trees_package: ModelPackage, tmp_path: Path) -> None:
    """Nor is what it found."""
    with served.serving(trees_package, tmp_path, Full) as server:
        problem(server.post("/monitor/retraining-check", b""), 503, "record-in-doubt")
