"""Traffic: made-up applications sent to a server at a rate, and what it answered.

Like clients of all kinds: most ask about one application, some to have it explained, and some about
many at once. What is not valid has to be refused, everything else has to be decided; whatever else
happens is a failure, but that a server may turn a request away a few times.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import math
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from credit_risk.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from credit_risk.simulation import Applicant

BATCH_ROUTE = "/predict/batch"
BATCH_ROWS = 20
MIX = {"/predict": 0.88, "/explain": 0.08, BATCH_ROUTE: 0.04}
"""Share of the requests that each call gets."""
ANSWER_SECONDS = 30.0
IDLE_SECONDS = 20.0
"""A connection not used for so long is opened anew: a server closes idle ones."""
END_SECONDS = 2.0
PAUSES = (0.5, 1.0, 2.0)
"""Seconds before a request turned away is sent again: 503 means that there is no decision."""
_JSON = {"Content-Type": "application/json"}
_GROWTH = 1.02
"""Between two buckets of latency: percentiles are that exact, and memory does not grow."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers: what it serves."""

    url: str
    portfolio: str
    version: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request: of its applications, ``wrong`` are such that they have to be refused."""

    route: str
    body: bytes
    applications: int
    wrong: int


class Latencies:
    """How long requests took, in buckets that grow by `_GROWTH`."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """One request took so long."""
        self._buckets[math.floor(math.log(max(seconds, 1e-9), _GROWTH))] += 1

    def percentile(self, share: float) -> float:
        """Seconds that this share of them took at most, to a hundredth of it."""
        wanted = share * self._buckets.total()
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return float(_GROWTH ** (bucket + 0.5))
        return math.nan


@dataclass
class Tally:
    """What was sent, and what came back; threads share it."""

    requests: int = 0
    applications: int = 0
    refused: int = 0
    again: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    latencies: defaultdict[str, Latencies] = field(default_factory=lambda: defaultdict(Latencies))
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, request: Request, status: int, content: bytes, seconds: float) -> None:
        """A request was answered, rightly or not."""
        with self._lock:
            self._sent(request)
            self.latencies[request.route].add(seconds)
            try:
                self._count(request, status, json.loads(content))
            except (ValueError, KeyError, TypeError):
                self.failures[f"{status} with an answer that is none"] += 1

    def turned_away(self) -> None:
        """A request was answered 503, and is sent again."""
        with self._lock:
            self.again += 1

    def failed(self, request: Request, error: Exception) -> None:
        """A request was not answered."""
        with self._lock:
            self._sent(request)
            self.failures[type(error).__name__] += 1

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it; times in milliseconds, from the first byte sent."""
        with self._lock:
            return {
                "requests": self.requests,
                "applications": self.applications,
                "decisions": dict(sorted(self.decisions.items())),
                "refused": self.refused,
                "sent_again": self.again,
                "failures": dict(sorted(self.failures.items())),
                "seconds": round(self.seconds, 3),
                "latency_ms": {
                    route: {
                        f"p{share:.0%}".rstrip("%"): float(f"{1e3 * found.percentile(share):.3g}")
                        for share in (0.5, 0.95, 0.99)
                    }
                    for route, found in sorted(self.latencies.items())
                },
            }

    def _sent(self, request: Request) -> None:
        self.requests += 1
        self.applications += request.applications

    def _count(self, request: Request, status: int, answer: Any) -> None:  # noqa: ANN401 - any JSON
        alone = request.route != BATCH_ROUTE
        if status != http.HTTPStatus.OK:
            if alone and request.wrong and status == http.HTTPStatus.UNPROCESSABLE_ENTITY:
                self.refused += 1
            else:
                self.failures[f"{status} {answer['type'].removeprefix('/problems/')}"] += 1
            return
        results = [answer] if alone else answer["results"]
        decided = [result["decision"] for result in results if "decision" in result]
        self.decisions.update(decided)
        self.refused += len(results) - len(decided)
        if len(results) - len(decided) != request.wrong:
            self.failures["other applications refused than are wrong"] += 1


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine: ``localhost``, or a loopback address as such."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ask(url: str) -> Server:
    """The server at a URL.

    Raises:
        Unreachable: nothing answers there, or no server of this kind.
    """
    try:
        connection = _connection(url)
        try:
            connection.request("GET", f"{urlsplit(url).path.rstrip('/')}/version")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return Server(url.rstrip("/"), answer["portfolio"], answer["model"]["version"])
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else None
        msg = f"{url} does not answer: {reason or type(error).__name__}"
        raise Unreachable(msg) from error
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{url} is not a server of credit decisions"
        raise Unreachable(msg) from error


def requests(applicants: Iterator[Applicant], seed: int) -> Iterator[Request]:
    """Applicants as requests, of all kinds in a random order that the seed gives."""
    generator = np.random.default_rng((seed, 3))
    routes, upper = tuple(MIX), np.cumsum(tuple(MIX.values()))
    while True:
        route = routes[int(np.searchsorted(upper / upper[-1], generator.random(), side="right"))]
        some = list(islice(applicants, BATCH_ROWS if route == BATCH_ROUTE else 1))
        if not some:
            return
        sent = [applicant.application for applicant in some]
        body = {"applications": sent} if route == BATCH_ROUTE else sent[0]
        wrong = sum(not applicant.valid for applicant in some)
        yield Request(route, json.dumps(body).encode(), len(some), wrong)


def send(
    server: Server,
    wanted: Iterable[Request],
    tally: Tally,
    rate: float,
    seconds: float | None = None,
    connections: int = 4,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Send requests at random moments, ``rate`` a second on average.

    If the server is slower than that, it gets as much as it answers over the connections there
    are. An interruption ends it at once; the tally has what was done until then.

    Args:
        server: where to.
        wanted: what; it ends with them.
        tally: takes what was answered.
        rate: requests a second.
        seconds: or it ends after so long.
        connections: requests that may be in hand.
        progress: told of the number of applications sent so far.
    """
    waiting: Queue[Request | None] = Queue(connections)
    threads = [
        threading.Thread(target=_deliver, args=(server, waiting, tally), daemon=True)
        for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    gaps = np.random.default_rng()
    began = due = time.monotonic()
    try:
        for request in wanted:
            due += gaps.exponential(1 / rate)
            if seconds is not None and max(due, time.monotonic()) - began >= seconds:
                time.sleep(max(began + seconds - time.monotonic(), 0.0))
                break
            time.sleep(max(due - time.monotonic(), 0.0))
            waiting.put(request)
            progress(tally.applications)
            due = max(due, time.monotonic() - 1.0)
    except BaseException:
        _drop(waiting)
        _end(waiting, threads, END_SECONDS)
        raise
    else:
        _end(waiting, threads, ANSWER_SECONDS)
    finally:
        tally.seconds += time.monotonic() - began
        progress(tally.applications)


def _deliver(server: Server, waiting: Queue[Request | None], tally: Tally) -> None:
    """Send what is waiting over one connection."""
    connection = _connection(server.url)
    path = urlsplit(server.url).path
    used = -math.inf
    while (request := waiting.get()) is not None:
        if time.monotonic() - used > IDLE_SECONDS:
            connection.close()
        try:
            tally.answered(request, *_answer(connection, path, request, tally))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            tally.failed(request, error)
        used = time.monotonic()
    connection.close()


def _answer(
    connection: http.client.HTTPConnection, path: str, request: Request, tally: Tally
) -> tuple[int, bytes, float]:
    """Status, body and seconds of the answer, sent again as often as there are `PAUSES`."""
    pauses = iter(PAUSES)
    while True:
        began = time.monotonic()
        connection.request("POST", path + request.route, request.body, _JSON)
        answer = connection.getresponse()
        content = answer.read()
        pause = next(pauses, None)
        if answer.status != http.HTTPStatus.SERVICE_UNAVAILABLE or pause is None:
            return answer.status, content, time.monotonic() - began
        tally.turned_away()
        time.sleep(pause)


def _end(waiting: Queue[Request | None], threads: list[threading.Thread], seconds: float) -> None:
    """Have the threads end, and wait for them so long."""
    for _ in threads:
        waiting.put(None)
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))


def _drop(waiting: Queue[Request | None]) -> None:
    """Leave unsent what is waiting."""
    with contextlib.suppress(Empty):
        while True:
            waiting.get_nowait()


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)
