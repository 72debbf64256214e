"""The product as a user runs it: two workers, real sockets, real files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from credit_risk import package, profile
from credit_risk.audit.log import SqlAuditLog, open_log
from credit_risk.errors import RecordNotFound
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
from loadtests import machine
from loadtests.server import TLS, free_port
from tests.e2e.conftest import ROOT, STOP_SECONDS, RunningServer, starting_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.e2e

CLIENTS = 8
PORTFOLIOS = ("personal-loans", "credit-cards")


def _shipped(portfolio: str) -> package.ModelPackage:
    folder = ROOT / "packages" / portfolio
    return package.load(folder / (folder / "default").read_text().strip())


def _applicants(portfolio: str, number: int, seed: int = 0) -> list[dict[str, Any]]:
    shipped = _shipped(portfolio)
    rows = profile.draw(shipped.profile, shipped.schema, number, seed)
    return [shipped.schema.application(row) for row in rows.tolist()]


def _samples(text: str) -> dict[str, float]:
    """Prometheus text as {series: value}."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in lines}


def _total(samples: dict[str, float], metric: str, **labels: str) -> float:
    wanted = [f'{name}="{value}"' for name, value in labels.items()]
    return sum(
        value
        for series, value in samples.items()
        if re.split(r"[{ ]", series)[0] == metric and all(part in series for part in wanted)
    )


def _decisions_recorded(server: RunningServer) -> float:
    """How many decisions the server says are on record."""
    samples = _samples(httpx.get(f"{server.url}/metrics", verify=TLS).text)
    return _total(samples, "credit_records_written_total", kind="decision")


def _log(server: RunningServer) -> SqlAuditLog:
    state = Path(server.environment["STATE_DIR"])
    return open_log(Settings(state_dir=state, workers=1))


def _settled(server: RunningServer, requests: int) -> dict[str, float]:
    """The metrics once so many scoring requests are counted: workers count a moment later."""
    samples: dict[str, float] = {}
    for _ in range(600):
        samples = _samples(httpx.get(f"{server.url}/metrics", verify=TLS).text)
        routes = ("/predict", "/explain", "/predict/batch")
        counted = [_total(samples, "credit_http_requests_total", route=route) for route in routes]
        if sum(counted) >= requests:
            break
        time.sleep(0.05)
    return samples


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningServer]]:
    """Two servers of two workers beside each other, each of its portfolio and state directory."""
    with starting_in(tmp_path_factory.mktemp("pair")) as starting:
        yield {name: starting(portfolio=name) for name in PORTFOLIOS}


@pytest.mark.parametrize("portfolio", PORTFOLIOS)
def test_every_answered_decision_is_recorded_and_counted_by_two_workers(  # noqa: PLR0915 - one story
    pair: dict[str, RunningServer], portfolio: str
) -> None:
    """Answers, records and metrics agree to the last one, over both workers and all calls.

    So those of the other server beside it are none of them, and it knows none of these.
    """
    server, (stranger,) = pair[portfolio], [pair[p] for p in PORTFOLIOS if p != portfolio]
    applicants = _applicants(portfolio, 400)
    bad = {**applicants[0], "no_such_field": 1}

    def one(number: int) -> list[dict[str, Any]]:
        # A client of its own for each chunk: its own connection, so either worker may get it.
        with httpx.Client(base_url=server.url, timeout=60, verify=TLS) as client:
            chunk = applicants[number * 50 : (number + 1) * 50]
            answers = [client.post("/predict", json=a) for a in chunk]
            answers += [client.post("/explain", json=a) for a in chunk[:10]]
            answers += [client.post("/predict", json=bad) for _ in range(5)]
            answers.append(client.post("/predict/batch", json={"applications": [*chunk, bad]}))
            assert Counter(a.status_code for a in answers) == {200: 61, 422: 5}
            return [a.json() for a in answers]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for part in pool.map(one, range(8)) for answer in part]
    rows = [row for answer in answers for row in answer.get("results", [answer])]
    decided = [row for row in rows if "decision_id" in row]
    refused = [row.get("problem", row) for row in rows if "decision_id" not in row]
    assert len(decided) == 8 * (50 + 10 + 50)
    assert len(refused) == 8 * (5 + 1)

    for row in decided[:3]:
        replayed = httpx.post(f"{server.url}/decisions/{row['decision_id']}/replay", timeout=60)
        assert (replayed.status_code, replayed.json()["verdict"]) == (200, "MATCH")

    samples = _settled(server, 8 * (61 + 5))
    for decision, number in Counter(row["decision"] for row in decided).items():
        assert _total(samples, "credit_decisions_total", decision=decision) == number
    assert _total(samples, "credit_records_written_total", kind="decision") == len(decided)
    assert _total(samples, "credit_records_written_total", kind="refusal") == len(refused)
    assert _total(samples, "credit_records_written_total", kind="start") == 2
    assert _total(samples, "credit_applications_refused_total") == len(refused)
    assert _total(samples, "credit_invalid_fields_total", field="other") == len(refused)
    assert _total(samples, "credit_score_bin_total") == len(decided)
    by_field = [_total(samples, "credit_feature_bin_total", feature=name) for name in applicants[0]]
    assert set(by_field) == {len(decided)}
    assert _total(samples, "credit_workers") == _total(samples, "credit_workers_expected") == 2
    for status_class, number in (("2xx", 400), ("4xx", 40)):
        labels = {"route": "/predict", "status_class": status_class}
        assert _total(samples, "credit_http_requests_total", **labels) == number
    assert _total(samples, "credit_http_request_duration_seconds_count", route="/explain") == 80

    assert server.stop() == 0
    log = _log(server)
    try:
        for row in decided:
            record = log.get(row["decision_id"])
            assert record.decision == row["decision"]
            assert record.body["probability_of_default"] == row["probability_of_default"]
            assert record.model_version == row["model_version"]
        for problem in refused:
            assert log.get(problem["instance"].removeprefix("urn:uuid:")).kind == "refusal"
        assert log.count(kind="decision") == len(decided)
        assert log.count(kind="refusal") == len(refused)
        assert log.count(kind="failure") == 0
        environments = {r.body["environment_sha256"] for r in log.find(kind="start")}
        assert log.count(kind="start") == 2
        assert environments == {log.get(decided[0]["decision_id"]).body["environment_sha256"]}
    finally:
        log.close()
    shown = server.command("decisions", "show", decided[0]["decision_id"], "--json")
    assert json.loads(shown.stdout)["personal"]["input"] == applicants[0]
    with closing(_log(stranger)) as other, pytest.raises(RecordNotFound):
        other.get(decided[0]["decision_id"])


def test_switching_models_under_load_fails_no_request(
    start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    """Activate and roll back while clients send; each answer names what made it, and it did."""
    server = start()
    shipped = _shipped("personal-loans")
    contents = {name: (shipped.path / name).read_bytes() for name in shipped.digests}
    before = contents["policy.yaml"]
    contents["policy.yaml"] = before.replace(b"\nversion: ", b"\nversion: 9.", 1)
    assert contents["policy.yaml"] != before
    other = package.write(tmp_path / "packages", "personal-loans", contents)
    state = Path(server.environment["STATE_DIR"])
    assert Store(Settings(state_dir=state, workers=1)).add(other) == other.name
    applicants = _applicants("personal-loans", 50)
    answers: list[dict[str, Any]] = []
    stop = False

    def send(number: int) -> int:
        sent = 0
        with httpx.Client(base_url=server.url, timeout=60, verify=TLS) as client:
            while not stop:
                answer = client.post("/predict", json=applicants[(number + sent) % 50])
                assert answer.status_code == 200, answer.text
                answers.append(answer.json())
                sent += 1
                time.sleep(0.01)
        return sent

    def until_all_answer(version: str) -> None:
        """Wait until the latest answers, of both workers, all name the version."""
        for _ in range(600):
            latest = answers[-200:]
            if len(latest) == 200 and {a["model_version"] for a in latest} == {version}:
                return
            time.sleep(0.1)
            assert not any(f.done() for f in futures)
        pytest.fail(f"{version} never came to decide")

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(send, i) for i in range(4)]
        try:
            until_all_answer(shipped.version)
            switched = server.command("models", "activate", other.name, "--json")
            assert switched.returncode == 0, switched.stderr
            until_all_answer(other.name)
            undone = server.command("models", "rollback")
            assert undone.returncode == 0, undone.stderr
            until_all_answer(shipped.version)
        finally:
            stop = True
        assert sum(f.result() for f in futures) == len(answers)

    policies = {(a["model_version"], a["policy_version"].partition("+")[0]) for a in answers}
    assert policies == {
        (shipped.version, shipped.policy.version),
        (other.name, f"9.{shipped.policy.version}"),
    }
    with closing(_log(server)) as log:
        back, there = log.find(kind="activation")
    assert (back.body["action"], back.model_version) == ("rollback", shipped.version)
    assert (there.body["action"], there.model_version) == ("activate", other.name)
    assert there.id == json.loads(switched.stdout)["id"]


def test_an_altered_package_stops_the_server_from_starting(
    shared: RunningServer, tmp_path: Path
) -> None:
    """One line says which file of which package was altered; no worker keeps dying."""
    version = _shipped("personal-loans").version
    store = Store(Settings(state_dir=tmp_path, workers=1))
    store.add_shipped("personal-loans")
    policy = store.path("personal-loans", version) / "policy.yaml"
    policy.write_bytes(policy.read_bytes().replace(b"cut_off: 0.5", b"cut_off: 0.9"))
    environment = {**shared.environment, "STATE_DIR": str(tmp_path), "PORT": str(free_port())}

    refused = replace(shared, environment=environment).command("serve")

    assert refused.returncode == 1
    assert f"package {version}: policy.yaml was altered" in refused.stderr


def test_a_second_server_in_one_state_directory_is_refused_and_harms_nothing(
    shared: RunningServer,
) -> None:
    """Started twice by mistake: one line, and the first one's metrics are still whole."""
    server = shared
    before = _decisions_recorded(server)
    httpx.post(f"{server.url}/predict", json=_applicants("personal-loans", 1)[0])

    again = server.command("serve")

    assert again.returncode == 1
    (line,) = again.stderr.strip().splitlines()
    assert line.startswith("error: another server is using the state directory ")
    assert _decisions_recorded(server) == before + 1


def test_a_window_of_decisions_is_looked_at_beside_the_worker(shared: RunningServer) -> None:
    """In a process of its own, counted once; what became of a decision is on record."""
    with httpx.Client(base_url=shared.url, timeout=60, verify=TLS) as client:
        body = {"applications": _applicants("personal-loans", 200)}
        made = client.post("/predict/batch", json=body).json()["results"]
        told = {"decision_id": made[0]["decision_id"], "defaulted": False}
        today = datetime.now(UTC).date().isoformat()
        outcome = client.post("/outcomes", json=told | {"observed": today}).json()
        drift = client.post("/monitor/drift", json={"window": "24h"}).json()
        check = client.post("/monitor/retraining-check").json()
        performance = client.get("/monitor/performance").json()

    assert [row["state"] for row in outcome["results"]] == ["recorded"]
    assert drift["rows"] == drift["decisions"] >= 200
    assert drift["verdict"] == "stable"
    assert check["windows"][-1]["rows"] == drift["rows"]
    assert performance["rows"] == 1
    assert shared.command("audit", "outcomes").returncode == 0


def test_a_port_that_is_taken_is_one_line(shared: RunningServer, tmp_path: Path) -> None:
    """Whoever has it; nothing is said to be served."""
    elsewhere = replace(
        shared, environment={**shared.environment, "STATE_DIR": str(tmp_path / "another")}
    )

    refused = elsewhere.command("serve")

    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith(f"error: cannot listen on 127.0.0.1:{shared.environment['PORT']}: ")


def test_a_killed_worker_is_replaced_and_what_it_counted_stays(
    shared: RunningServer,
) -> None:
    """Its counts are added up for ever; what it said of its own state goes with it."""
    server = shared
    before = _decisions_recorded(server)
    (killed,) = machine.children(server.process.pid)
    assert httpx.post(f"{server.url}/predict", json=_applicants("personal-loans", 1)[0]).is_success
    httpx.get(f"{server.url}/metrics")
    files = Path(server.environment["STATE_DIR"]) / "bentoml" / "prometheus_multiproc_dir"
    assert list(files.glob(f"gauge_live*_{killed}.db"))

    os.kill(killed, signal.SIGKILL)

    while True:
        # The connection waits until the next worker takes it.
        answer = httpx.get(f"{server.url}/metrics", timeout=60, verify=TLS)
        assert answer.status_code == 200, answer.text
        samples = _samples(answer.text)
        if not list(files.glob(f"gauge_live*_{killed}.db")):
            break
    assert machine.children(server.process.pid) != [killed]
    assert _total(samples, "credit_decisions_total") == before + 1
    assert _total(samples, "credit_model_info") == 1


def test_without_its_state_directory_it_says_so_and_decides_nothing(
    start: Callable[..., RunningServer],
) -> None:
    """The records' file is gone: nothing more is answered that could not be shown later."""
    server = start(workers=1)
    applicant = _applicants("personal-loans", 1)[0]
    assert httpx.post(f"{server.url}/predict", json=applicant).status_code == 200

    shutil.rmtree(server.environment["STATE_DIR"])

    assert httpx.post(f"{server.url}/predict", json=applicant).status_code == 503
    assert httpx.get(f"{server.url}/readyz").status_code == 503
    metrics = httpx.get(f"{server.url}/metrics")
    assert metrics.status_code == 200
    assert {series.partition("{")[0] for series in _samples(metrics.text)} == {
        "credit_build_info",
        "credit_model_info",
    }


def _connected(server: RunningServer, data: bytes) -> socket.socket:
    """A connection on which some bytes were sent."""
    connection = socket.create_connection(("127.0.0.1", int(server.environment["PORT"])))
    connection.sendall(data)
    return connection


def _read(connection: socket.socket) -> str:
    """Everything that comes until the server closes the connection."""
    with connection:
        return b"".join(iter(partial(connection.recv, 65_536), b"")).decode()


HALF_A_BODY = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)


def test_requests_that_never_end_are_ended(shared: RunningServer) -> None:
    """In the head, in the body, or by their size; a body's refusal is on record."""
    server = shared
    waiting = [_connected(server, data) for data in (b"GET /livez HTTP/1.1\r\nHos", HALF_A_BODY)]
    in_head, in_body = map(_read, waiting)
    too_large = _read(_connected(server, b"GET /livez HTTP/1.1\r\nX: " + b"x" * 20_000))
    no_http = _read(_connected(server, b"?\r\n\r\n"))

    for answer, status, slug in (
        (in_head, 408, "request-timeout"),
        (in_body, 408, "request-timeout"),
        (too_large, 431, "head-too-large"),
        (no_http, 400, "malformed-request"),
    ):
        head, _, content = answer.partition("\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert "content-type: application/problem+json" in head
        assert "connection: close" in head
        assert json.loads(content)["type"] == f"/problems/{slug}"
    listed = server.command("decisions", "list", "--kind", "refusal", "--json")
    assert [record["status"] for record in json.loads(listed.stdout)] == [408]


def test_a_server_that_drains_loses_no_request(start: Callable[..., RunningServer]) -> None:
    """Clients that heed /readyz, as a load balancer does, meet no error at all.

    Connections that stay open hold up nothing: idle ones are closed, and what is still on its way
    has a set time.
    """
    server = start(drain_seconds="5", request_seconds="3600", shutdown_seconds="1")
    waiting = [_connected(server, data) for data in (b"", b"GET / HTT", HALF_A_BODY)]
    applicants = _applicants("personal-loans", 50)
    leave = threading.Event()

    def send(number: int) -> int:
        sent = 0
        with httpx.Client(base_url=server.url, timeout=60, verify=TLS) as client:
            while not leave.is_set():
                answer = client.post("/predict", json=applicants[(number + sent) % 50])
                assert answer.status_code == 200, answer.text
                sent += 1
        return sent

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(send, i) for i in range(4)]
        server.process.send_signal(signal.SIGTERM)
        # Each worker hears of it in its own time, and either may answer.
        while (ready := httpx.get(f"{server.url}/readyz", verify=TLS)).status_code == 200:
            pass
        assert ready.json()["type"] == "/problems/not-ready"
        assert ready.headers["connection"] == "close"
        assert httpx.get(f"{server.url}/livez").status_code == 200
        leave.set()
        answered = sum(future.result() for future in futures)

    assert server.process.wait(STOP_SECONDS) == 0
    for connection in waiting:
        connection.close()
    log = _log(server)
    try:
        assert log.count(kind="decision") == answered > 0
    finally:
        log.close()
