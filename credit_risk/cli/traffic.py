"""Traffic: made-up applications sent to a server at a rate, and what it answered.

Like clients of all kinds: most ask about one application, some to have it explained, and some about
many at once. Now and then one is sent again under its idempotency key, and people decide what was
referred to them. What is not valid has to be refused, everything else has to be decided; whatever
else happens is a failure, but that a server may turn a request away a few times.
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
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from credit_risk.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from credit_risk.simulation import Applicant

BATCH_ROUTE = "/predict/batch"
BATCH_ROWS = 20
MIX = {"/predict": 0.88, "/explain": 0.08, BATCH_ROUTE: 0.04}
"""Share of the requests that each call gets."""
KEYED = 0.02
"""Share of the requests that are sent twice under one idempotency key."""
APPROVED = 0.6
"""Share of those referred whom people approve."""
OVERRIDDEN = 0.02
"""Of those declined, how many people look at for each one referred that they look at."""
REVIEWERS = ("made-up-1", "made-up-2")
"""The second is asked where two people have to agree."""
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
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class People:
    """Those who decide a ``share`` of what is referred; ``approvals`` are codes of reasons."""

    share: float
    approvals: Sequence[str]


class Answer(NamedTuple):
    """What came back, and after how many seconds."""

    status: int
    content: bytes
    seconds: float


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
    repeated: int = 0
    reviews: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    latencies: defaultdict[str, Latencies] = field(default_factory=lambda: defaultdict(Latencies))
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, request: Request, answer: Answer) -> list[dict[str, Any]]:
        """A request was answered, rightly or not; what was decided in it."""
        with self._lock:
            self._sent(request)
            self.latencies[request.route].add(answer.seconds)
            try:
                return self._count(request, answer.status, json.loads(answer.content))
            except (ValueError, KeyError, TypeError, AttributeError):
                self.failures[f"{answer.status} with an answer that is none"] += 1
                return []

    def answered_again(self, first: Answer, second: Answer) -> None:
        """A request was sent again under its idempotency key; errors of the server are not kept."""
        with self._lock:
            self.repeated += 1
            if first.status < http.HTTPStatus.INTERNAL_SERVER_ERROR and first[:2] != second[:2]:
                self.failures["another answer to the same idempotency key"] += 1

    def reviewed(self, decision: str, answer: Answer) -> str:
        """A person decided; the state that the case is in."""
        with self._lock:
            try:
                body = json.loads(answer.content)
                state = str(body["state"])
            except (ValueError, KeyError, TypeError):
                self.failures[f"{answer.status} to a review"] += 1
                return ""
            if state == "closed":
                self.reviews[decision] += 1
            return state

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
                "repeated": self.repeated,
                "reviews": dict(sorted(self.reviews.items())),
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

    def _count(self, request: Request, status: int, answer: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
        alone = request.route != BATCH_ROUTE
        if status != http.HTTPStatus.OK:
            if alone and request.wrong and status == http.HTTPStatus.UNPROCESSABLE_ENTITY:
                self.refused += 1
            else:
                self.failures[f"{status} {answer['type'].removeprefix('/problems/')}"] += 1
            return []
        results = [answer] if alone else answer["results"]
        decided = [result for result in results if "decision" in result]
        self.decisions.update(result["decision"] for result in decided)
        self.refused += len(results) - len(decided)
        if len(results) - len(decided) != request.wrong:
            self.failures["other applications refused than are wrong"] += 1
        return decided


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
    import numpy as np

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
        keyed = bool(generator.random() < KEYED)
        yield Request(route, json.dumps(body).encode(), len(some), wrong, keyed)


def send(
    server: Server,
    wanted: Iterable[Request],
    tally: Tally,
    rate: float,
    seconds: float | None = None,
    connections: int = 4,
    people: People | None = None,
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
        people: who decide some of what is referred, at once.
        progress: told of the number of applications sent so far.
    """
    import numpy as np

    waiting: Queue[Request | None] = Queue(connections)
    threads = [
        threading.Thread(target=_deliver, args=(server, waiting, tally, people), daemon=True)
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


class _Client:
    """One connection to a server, opened anew where it may have been closed."""

    def __init__(self, url: str, tally: Tally) -> None:
        self._connection = _connection(url)
        self._path = urlsplit(url).path
        self._tally = tally
        self._used = -math.inf

    def post(self, route: str, body: bytes, **headers: str) -> Answer:
        """The answer; a request turned away is sent again as often as there are `PAUSES`.

        Raises:
            OSError: the server is not there, or its connection breaks.
            HTTPException: what it sends is not HTTP, or nothing.
        """
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._connection.close()
        pauses = iter(PAUSES)
        while True:
            began = time.monotonic()
            try:
                self._connection.request("POST", self._path + route, body, _JSON | headers)
                answer = self._connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                self.close()
                raise
            self._used = time.monotonic()
            pause = next(pauses, None)
            if answer.status != http.HTTPStatus.SERVICE_UNAVAILABLE or pause is None:
                return Answer(answer.status, content, self._used - began)
            self._tally.turned_away()
            time.sleep(pause)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()


def _deliver(
    server: Server, waiting: Queue[Request | None], tally: Tally, people: People | None
) -> None:
    """Send what is waiting over one connection."""
    import numpy as np

    client = _Client(server.url, tally)
    generator = np.random.default_rng()
    while (request := waiting.get()) is not None:
        key = {"Idempotency-Key": str(uuid4())} if request.keyed else {}
        try:
            answer = client.post(request.route, request.body, **key)
        except (OSError, http.client.HTTPException) as error:
            tally.failed(request, error)
            continue
        decided = tally.answered(request, answer)
        with contextlib.suppress(OSError, http.client.HTTPException):
            if request.keyed:
                tally.answered_again(answer, client.post(request.route, request.body, **key))
            if people is not None:
                _review(client, tally, people, decided, generator)
    client.close()


def _review(
    client: _Client,
    tally: Tally,
    people: People,
    decided: Iterable[Mapping[str, Any]],
    generator: np.random.Generator,
) -> None:
    """Decide some of what was decided: mostly what was referred, now and then a decline."""
    chance = {"REVIEW": people.share, "DECLINE": OVERRIDDEN * people.share}
    for result in decided:
        made = result["decision"]
        if generator.random() >= chance.get(made, 0.0):
            continue
        reasons = result["reasons"]
        if made == "DECLINE" or not reasons or generator.random() < APPROVED:
            verdict = {"decision": "APPROVE", "reason": str(generator.choice(people.approvals))}
        else:
            verdict = {"decision": "DECLINE", "reason": reasons[0]["code"]}
        route = f"/decisions/{result['decision_id']}/review"
        for reviewer in REVIEWERS:
            step = {"reviewer": reviewer, "note": "Made up.", **verdict}
            answer = client.post(route, json.dumps(step).encode())
            if tally.reviewed(verdict["decision"], answer) != "proposed":
                break


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
