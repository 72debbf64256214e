"""Torture, ``python -m loadtests.torture``: what was answered outlives whatever is killed.

Servers of our own are killed with SIGKILL at random moments, and the database under them is
stopped, crashed and stalled, while clients send applications. Afterwards every answer that any
client received is looked for in the log. Exit codes: 0 nothing was lost, doubled or wrong;
1 something was; 2 wrong usage; 3 it could not be tried.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import httpx
import typer

from credit_risk import package as packages
from credit_risk import scoring
from credit_risk.audit import keys
from credit_risk.audit.keys import KEY_BYTES, new_signing_key
from credit_risk.audit.log import SqlRecords
from credit_risk.audit.records import every
from credit_risk.audit.verification import verify
from credit_risk.decisions import answer
from credit_risk.settings import PREFIX, Settings
from loadtests import applications, cluster, machine, server
from loadtests.cluster import Cluster
from loadtests.server import Unavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage

PORTFOLIO = "personal-loans"
USERS = 8
APPLICANTS = 200
BATCH_ROWS = 20
BATCH_EVERY = 10
"""One request in so many is a batch."""
PATIENCE_SECONDS = 30.0
OUTAGE_SECONDS = 4.0
PAUSE_SECONDS = 0.0
"""Between an answer and the next request of a client."""
RETRY_SECONDS = 0.05
POLL_SECONDS = 0.02
KILL_AFTER = (0.2, 2.0)
"""A server lives so many seconds under load, drawn uniformly, until it is killed."""
_KEYS = {
    "encryption_keys": base64.b64encode(os.urandom(KEY_BYTES)).decode(),
    "signing_key": new_signing_key(),
}
"""What all replicas on one database seal and sign with."""
_JSON = {"content-type": "application/json"}
_OK = frozenset({200, 503})

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Replica:
    """One `credit-risk serve` with a port and a state directory that outlive its processes.

    ``more`` are further settings, by their names in lower case.
    """

    def __init__(self, folder: Path, url: str | None, workers: int, **more: str) -> None:
        folder.mkdir(parents=True)
        self.port = server.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        shared = _KEYS if url else {}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        self.environment = kept | {
            "PORT": str(self.port),
            "WORKERS": str(workers),
            "PORTFOLIO": PORTFOLIO,
            "STATE_DIR": str(folder / "state"),
            f"{PREFIX}LOG_LEVEL": "ERROR",
            **({f"{PREFIX}DATABASE_URL": url} if url else {}),
            **{f"{PREFIX}{name.upper()}": text for name, text in (shared | more).items()},
        }
        self.settings = Settings.model_validate(
            {
                "state_dir": folder / "state",
                "workers": workers,
                "database_url": url,
                **shared,
            }
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            Unavailable: it does not become ready.
        """
        self._process = server.launched(self.environment, self._log)
        server.when_ready(self._process, self.url, self._log)

    def kill(self) -> None:
        """SIGKILL to every process of it at once."""
        if self._process is not None:
            for pid in _family(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def orphan(self) -> None:
        """SIGKILL to the main process alone; waits until its workers have ended by themselves.

        Raises:
            Unavailable: they have not.
        """
        if self._process is not None:
            workers = machine.children(self._process.pid)
            self._process.kill()
            self._process.wait()
            self._process = None
            deadline = time.monotonic() + PATIENCE_SECONDS
            while any(map(machine.runs, workers)):
                if time.monotonic() > deadline:
                    raise Unavailable("workers go on without their main process")
                time.sleep(0.01)

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE_SECONDS)
            self._process = None


def _family(pid: int) -> list[int]:
    """A process, stopped so that it starts no more, and all that came of it."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, signal.SIGSTOP)
        return [pid, *(one for child in machine.children(pid) for one in _family(child))]
    return []


@dataclass
class Tally:
    """What clients were answered."""

    decided: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: list[tuple[float, float, int]] = field(default_factory=list)
    """For each answer: when it came, how long it took, and its status."""


class Load:
    """Clients that send applications to servers, and notice everything they are answered."""

    def __init__(self, urls: Sequence[str], package: ModelPackage) -> None:
        self._urls = urls
        drawn = applications.drawn(package.path, APPLICANTS)
        valid = [package.schema.validate_application(one) for one in drawn]
        self._bodies = [json.dumps(one).encode() for one in drawn]
        decided = scoring.decide(package, valid)
        self._expected = [answer(package, "", decision) for decision in decided]
        self.tally = Tally()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(number,)) for number in range(USERS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def first(self, after: float, status: int = 200) -> float:
        """When the first answer of that status came that was asked for after a moment, waiting."""
        seen = 0
        while True:
            seconds = self.tally.seconds
            for came, took, answered in seconds[seen:]:
                if answered == status and came - took >= after:
                    return came
            seen = max(seen, len(seconds) - USERS)
            time.sleep(0.001)

    def _send(self, number: int) -> None:
        chosen = random.Random(number)  # noqa: S311 - which applicant comes next is no secret
        url = self._urls[number % len(self._urls)]
        sent = 0
        while not self._stop.is_set():
            try:
                with httpx.Client(
                    base_url=url, timeout=PATIENCE_SECONDS, headers=_JSON, verify=server.TLS
                ) as client:
                    while not self._stop.is_set():
                        sent += 1
                        rows = [chosen.randrange(APPLICANTS) for _ in range(BATCH_ROWS)]
                        rows = rows[: 1 if sent % BATCH_EVERY else BATCH_ROWS]
                        self._ask(client, rows, f"{number}-{sent}")
                        self._stop.wait(PAUSE_SECONDS)
            except httpx.TransportError:
                self.tally.cut += 1
                time.sleep(RETRY_SECONDS)

    def _ask(self, client: httpx.Client, rows: list[int], request_id: str) -> None:
        path, body = "/predict", self._bodies[rows[0]]
        if len(rows) > 1:
            path = "/predict/batch"
            body = b'{"applications":[%b]}' % b",".join(self._bodies[row] for row in rows)
        began = time.perf_counter()
        given = client.post(path, content=body, headers={"x-request-id": request_id})
        came = time.perf_counter()
        tally = self.tally
        tally.statuses[given.status_code] += 1
        tally.seconds.append((came, came - began, given.status_code))
        if given.status_code not in _OK or (
            given.status_code == 503 and "retry-after" not in given.headers  # noqa: PLR2004
        ):
            tally.wrong.append(f"{path} answered {given.status_code}: {given.text[:200]}")
        if given.status_code == httpx.codes.OK:
            told = given.json()
            for row, one in zip(rows, told.get("results", [told]), strict=True):
                tally.decided[one["decision_id"]] = one
                if one | {"decision_id": ""} != self._expected[row]:
                    tally.wrong.append(f"{path} gave another decision for the same application")


def faults(tally: Tally, recorded: Iterator[Record]) -> list[str]:
    """What is wrong with a log, given what clients were told; nothing, it is to be hoped."""
    found = list(tally.wrong)
    places: Counter[tuple[str, int | None]] = Counter()
    missing = dict(tally.decided)
    for record in recorded:
        if record.kind != "decision":
            continue
        places[record.request_id, record.body["row"]] += 1
        told = missing.pop(record.id, None)
        if told is not None and (
            told["decision"] != record.decision
            or told["probability_of_default"] != record.body["probability_of_default"]
            or told["model_version"] != record.model_version
        ):
            found.append(f"record {record.id} is of another decision than the one answered")
    found += [f"decision {one} was answered and is not on record" for one in missing]
    found += [f"request {one} is on record {n} times" for one, n in places.items() if n > 1]
    return found


def recorded(settings: Settings) -> Iterator[Record]:
    """All records of a server's log, page by page."""
    with contextlib.closing(SqlRecords(settings.audit_url)) as records:
        yield from every(records)


def unwhole(settings: Settings) -> list[str]:
    """What a verification of a server's log finds; nothing, it is to be hoped."""
    key = keys.signing_key(settings)
    trusted = [] if key is None else [key.public_key()]
    with contextlib.closing(SqlRecords(settings.audit_url)) as records:
        report = verify(records.reading, trusted)
    return [*map(str, report.findings), *map(str, report.queue)]


def killed(
    replicas: Sequence[Replica], load: Load, times: int, chosen: random.Random
) -> list[float]:
    """Kill a replica, each time another moment after it was ready.

    Returns:
        Seconds from starting it again to ready, each time.
    """
    restarts = []
    for _ in range(times):
        time.sleep(chosen.uniform(*KILL_AFTER))
        victim = chosen.choice(replicas)
        victim.kill()
        began = time.perf_counter()
        victim.start()
        restarts.append(time.perf_counter() - began)
    load.first(time.perf_counter())
    return restarts


@dataclass(frozen=True, slots=True)
class Outage:
    """How an outage of the database looked from outside, times in seconds.

    ``noticed`` is from its begin to the first 503 of readiness, ``ready`` from its end to the
    first 200; ``decided`` from its end to the first decision. ``slowest`` is the longest that
    anybody waited for an answer meanwhile.
    """

    noticed: float
    reason: str
    ready: float
    decided: float
    slowest: float


def outage(
    url: str, load: Load, disturb: Callable[[], contextlib.AbstractContextManager[None]]
) -> Outage:
    """Disturb the database for a while, and see how the server takes it."""
    load.first(time.perf_counter())
    began = time.perf_counter()
    with disturb():
        reason = _until_readiness(url, 503)
        noticed = time.perf_counter() - began
        time.sleep(max(OUTAGE_SECONDS - noticed, 0.0))
    over = time.perf_counter()
    _until_readiness(url, 200)
    ready = time.perf_counter() - over
    decided = load.first(over) - over
    slowest = max(took for came, took, _ in load.tally.seconds if came >= began)
    return Outage(noticed, reason, ready, decided, slowest)


def _until_readiness(url: str, status: int) -> str:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        given = httpx.get(f"{url}/readyz", timeout=PATIENCE_SECONDS, verify=server.TLS)
        if given.status_code == status:
            return str(given.json().get("detail", ""))
        time.sleep(POLL_SECONDS)
    raise Unavailable(f"/readyz never came to answer {status}")


DISTURBANCES: dict[str, Callable[[Cluster], contextlib.AbstractContextManager[None]]] = {
    "stopped (fast)": lambda database: database.stopped(signal.SIGINT),
    "stopped (immediate)": lambda database: database.stopped(signal.SIGQUIT),
    "stalled": lambda database: database.stalled(),
}


@contextlib.contextmanager
def served(
    folder: Path, url: str | None, *, replicas: int = 1, workers: int = 2
) -> Iterator[tuple[list[Replica], Load]]:
    """Replicas that are ready and under load; both end at the end."""
    made = [Replica(folder / f"replica-{number}", url, workers) for number in range(replicas)]
    shipped = made[0].settings.packages_dir / PORTFOLIO
    default = shipped / (shipped / "default").read_text(encoding="utf-8").strip()
    load = Load([one.url for one in made], packages.load(default))
    with contextlib.ExitStack() as ends:
        for one in made:
            ends.callback(one.kill)
            one.start()
        with load:
            yield made, load
        for one in made:
            one.stop()


@app.command(help=__doc__)
def torture(
    database: Annotated[
        Literal["sqlite", "postgresql", "both"], typer.Option(help="Under the server.")
    ] = "both",
    kills: Annotated[int, typer.Option(min=0, help="Servers killed on each database.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the moments at which they are killed.")] = 0,
) -> None:
    """Torture servers of our own; see the module."""
    found: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            place = Path(folder)
            if database != "postgresql":
                found += _on_sqlite(place, kills, seed)
            if database != "sqlite":
                with cluster.running() as running, running.database() as name:
                    found += _on_postgresql(place, running, running.url(name), kills, seed)
    except (Unavailable, cluster.Missing) as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(3) from None
    for one in found[:20]:
        _say(f"FAULT: {one}")
    _say(f"{len(found)} faults" if found else "nothing lost, nothing twice, nothing wrong")
    raise typer.Exit(1 if found else 0)


def _on_sqlite(folder: Path, kills: int, seed: int) -> list[str]:
    with served(folder / "sqlite", None) as (replicas, load):
        restarts = killed(replicas, load, kills, random.Random(seed))  # noqa: S311 - no secret
    return _told("SQLite", replicas, load, restarts)


def _on_postgresql(folder: Path, running: Cluster, url: str, kills: int, seed: int) -> list[str]:
    with served(folder / "postgresql", url, replicas=2, workers=1) as (replicas, load):
        restarts = killed(replicas, load, kills, random.Random(seed))  # noqa: S311 - no secret
        for name, disturb in DISTURBANCES.items():
            seen = outage(replicas[0].url, load, partial(disturb, running))
            _say(
                f"PostgreSQL {name} for {OUTAGE_SECONDS:g} s: not ready after {seen.noticed:.2f} s "
                f"({seen.reason}), longest wait for an answer {seen.slowest:.2f} s; when it was "
                f"back, ready after {seen.ready:.2f} s, first decision after {seen.decided:.2f} s"
            )
    return _told("PostgreSQL, 2 replicas", replicas, load, restarts)


def _told(name: str, replicas: Sequence[Replica], load: Load, restarts: list[float]) -> list[str]:
    tally = load.tally
    found = [
        *faults(tally, recorded(replicas[0].settings)),
        *unwhole(replicas[0].settings),
    ]
    restarted = f", restart to ready {statistics.median(restarts):.1f} s" if restarts else ""
    _say(
        f"{name}: {len(restarts)} kills{restarted}; {len(tally.decided):,} decisions received, "
        f"{tally.statuses[503]:,} answers 503, {tally.cut:,} requests cut; {len(found)} faults"
    )
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    app(prog_name="python -m loadtests.torture")
