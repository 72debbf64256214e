"""One decision for each idempotency key: real servers, many clients, restarts and kills."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from credit_risk.audit import keys
from credit_risk.audit.log import open_log
from credit_risk.idempotency import Answers, Claim
from credit_risk.settings import PREFIX, Settings
from loadtests import applications, torture
from loadtests.server import TLS
from loadtests.torture import KILL_AFTER, PORTFOLIO, Replica
from monitoring.accounts import Accounts
from monitoring.metrics import Metrics
from monitoring.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtests.cluster import Cluster

pytestmark = pytest.mark.e2e

CLIENTS = 50
SENDERS = 8
KILLS = int(os.environ.get("KILLS", "1"))
"""How often, on each database; see `make test-long`."""
PAUSE_SECONDS = 0.02
"""Between requests of a client: servers need some of the machine to start again on."""
DEADLINE_SECONDS = 2.0
"""Short, so that the claims of the killed soon run out."""
HEADERS = {"content-type": "application/json"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def replicas(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Replica]]:
    """A server of two workers on SQLite, or two of one on PostgreSQL, that are ready."""
    url, workers, folder = None, [2], tmp_path_factory.mktemp("replicas")
    with ExitStack() as ends:
        if request.param == "postgresql":
            cluster: Cluster = request.getfixturevalue("postgresql")
            url, workers = cluster.url(ends.enter_context(cluster.database())), [1, 1]
        made = [
            Replica(folder / f"replica-{i}", url, n, deadline_seconds=str(DEADLINE_SECONDS))
            for i, n in enumerate(workers)
        ]
        for one in made:
            ends.callback(one.kill)
            one.start()
        yield made


def post(url: str, key: str, body: bytes) -> httpx.Response:
    """One request of a new connection, so that any worker may get it."""
    headers = HEADERS | {"Idempotency-Key": key}
    return httpx.post(f"{url}/predict", content=body, headers=headers, timeout=60, verify=TLS)


def insisting(urls: Sequence[str], key: str, body: bytes) -> dict[str, Any]:
    """Send a request until it is answered, as a good client does; the decision."""
    for number in range(2_000):
        try:
            given = post(urls[number % len(urls)], key, body)
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        if given.status_code == 200:
            decision: dict[str, Any] = given.json()
            return decision
        assert given.status_code in {409, 503}, given.text
        assert int(given.headers["retry-after"]) >= 1
        time.sleep(0.05)
    pytest.fail(f"{key} was never answered")


def bodies_of(replicas: list[Replica], number: int) -> list[bytes]:
    """So many applications, as they are sent."""
    shipped = replicas[0].settings.packages_dir / PORTFOLIO
    default = shipped / (shipped / "default").read_text(encoding="utf-8").strip()
    return [json.dumps(one).encode() for one in applications.drawn(default, number)]


def decisions(replica: Replica) -> Counter[str]:
    """How often each decision is on record, by its id."""
    return Counter(o.id for o in torture.recorded(replica.settings) if o.kind == "decision")


def test_fifty_clients_with_one_key_get_one_decision_also_after_a_restart(
    replicas: list[Replica],
) -> None:
    """All at once, at every worker: each is answered that decision, or told to come again.

    The restart is of a server whose main process was killed: its workers end by themselves, and
    leave port and state directory to the next. Another one goes on meanwhile.
    """
    urls = [replica.url for replica in replicas]
    (body,) = bodies_of(replicas, 1)
    before = decisions(replicas[0])
    together = threading.Barrier(CLIENTS)

    def at_once(number: int) -> httpx.Response:
        together.wait()
        return post(urls[number % len(urls)], "one-key", body)

    with ThreadPoolExecutor(CLIENTS) as pool:
        first = list(pool.map(at_once, range(CLIENTS)))
        again = list(pool.map(at_once, range(CLIENTS)))
    replicas[0].orphan()
    replicas[0].start()
    with ThreadPoolExecutor(CLIENTS) as pool:
        restarted = list(pool.map(at_once, range(CLIENTS)))

    assert {given.status_code for given in first} <= {200, 409}
    told = {given.content for given in [*first, *again, *restarted] if given.status_code == 200}
    assert {given.status_code for given in [*again, *restarted]} == {200}
    (decided,) = told
    assert decisions(replicas[0]) - before == Counter([json.loads(decided)["decision_id"]])
    assert sum("idempotency-replayed" not in given.headers for given in first + again) == 1 + sum(
        given.status_code == 409 for given in first
    )
    assert {given.headers.get("idempotency-replayed") for given in restarted} == {"true"}
    assert post(urls[0], "one-key", body + b" ").status_code == 422


def test_servers_killed_at_any_moment_decide_each_request_once(replicas: list[Replica]) -> None:
    """Clients insist until they are answered: one decision for each key, the one answered."""
    urls = [replica.url for replica in replicas]
    bodies = bodies_of(replicas, 50)
    before = decisions(replicas[0])
    answered: dict[str, dict[str, Any]] = {}
    leave = threading.Event()

    def send(number: int) -> None:
        sent = 0
        while not leave.is_set():
            sent += 1
            key = f"{number}-{sent}"
            answered[key] = insisting(urls, key, bodies[sent % len(bodies)])
            leave.wait(PAUSE_SECONDS)

    chosen = random.Random(1)  # noqa: S311 - no secret
    with ThreadPoolExecutor(SENDERS) as pool:
        sending = [pool.submit(send, number) for number in range(SENDERS)]
        for _ in range(KILLS):
            time.sleep(chosen.uniform(*KILL_AFTER))
            victim = chosen.choice(replicas)
            victim.kill()
            victim.start()
            seen = len(answered)
            while len(answered) < seen + 100 and not any(one.done() for one in sending):
                time.sleep(0.01)
        leave.set()
        for one in sending:
            one.result()

    assert len(answered) >= 100
    found = decisions(replicas[0]) - before
    assert found == Counter(one["decision_id"] for one in answered.values())
    for key, told in list(answered.items())[:: len(answered) // 20]:
        assert insisting(urls, key, bodies[int(key.split("-")[1]) % len(bodies)]) == told


def test_what_a_killed_server_had_claimed_is_decided_later(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its claim has run out: 409 until then, and one decision."""
    replica = replicas[0]
    (body,) = bodies_of(replicas, 1)
    before = decisions(replica)
    # What a server does until right before it decides; then this one ends.
    for name, value in replica.environment.items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    settings = Settings(state_dir=replica.settings.state_dir)
    with closing(open_log(settings)) as log:
        observer = Accounts(Metrics(CollectorRegistry()), Traces(0.0, None))
        killed = Answers(log, keys.sealing(settings, make=True), observer, PORTFOLIO, 3_600.0)
        claim = asyncio.run(killed.claim("/predict", "claimed", body, DEADLINE_SECONDS))
        assert isinstance(claim, Claim)

    assert post(replica.url, "claimed", body).status_code == 409
    assert decisions(replica) == before
    decided = insisting([one.url for one in replicas], "claimed", body)
    assert decisions(replica) - before == Counter([decided["decision_id"]])
