"""What watching the model costs, ``python -m benchmarks.monitoring``.

A record database is filled with made decisions of the last week, and the server started on it with
one worker. At a steady rate of single requests, which is kept whatever the answers take, drift over
all of those decisions is asked for again and again: counted before, and counted from nothing. Times
of ``/predict`` while a call runs are held against those without calls. Then the monitoring job goes
over a day of decisions in a database of its own, SQLite's or that of ``--database-url``. Needs a
machine with nothing else to do. Exit codes: 0 every target is met; 1 one is missed; 3 it could not
be measured.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

import httpx
import numpy as np
import typer
from rich.console import Console

from benchmarks import process, report
from benchmarks.peer import ROOT, all_peers
from benchmarks.process import DidNotStart
from benchmarks.verdict import MEGABYTE, OURS
from credit_risk import package, profile, scoring
from credit_risk.audit.log import open_log, tables
from credit_risk.cli.printing import rows_done
from credit_risk.decisions import Call, decision_record, new_id
from credit_risk.errors import CreditRiskError
from credit_risk.settings import PREFIX, Settings
from loadtests import applications
from loadtests.verdict import Finding, exit_code
from monitoring import job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from credit_risk.audit.log import SqlAuditLog

    Meanwhile: TypeAlias = Literal["nothing", "counted", "from nothing"]
    Span: TypeAlias = tuple[float, float]

PORTFOLIO = "personal-loans"
RATE = 200
"""Requests a second, about a twentieth of what a worker on one core answers."""
CALLERS = 4
PAUSE_SECONDS = 0.1
"""Between two calls: made without, they would measure what it takes to send them."""
SPAN_DAYS = 6.9
WINDOW = {"window": "7d"}
MOST_CALL, MOST_P99, MOST_JOB, MOST_MEMORY = 2.0, 1.5, 60.0, 500.0
"""Targets: seconds of a call, p99 against that without, seconds and MB of the job."""
NOT_MEASURED = 3
_APPLICANTS = 20_000
_AT_ONCE = 1_000
_LOOK_SECONDS = 0.05


@dataclass(slots=True)
class Measured:
    """Over rounds: p99 in ms of requests that met a call, seconds of the calls."""

    p99: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)


def judge(
    measured: dict[Meanwhile, Measured], seconds: float, megabytes: float
) -> tuple[Finding, ...]:
    """Calls and what they cost others, if they were measured; then the job's seconds and MB."""
    findings = []
    for meanwhile, one in measured.items():
        if meanwhile != "nothing":
            name = f"a call on drift, {meanwhile}"
            findings.append(Finding(name, "s", "at most", MOST_CALL, median(one.calls)))
            alone = measured["nothing"].p99
            ratios = (now / then for now, then in zip(one.p99, alone, strict=True))
            name = f"p99 of /predict with calls {meanwhile}, against without"
            findings.append(Finding(name, "times", "at most", MOST_P99, median(ratios)))
    return (
        *findings,
        Finding("the job over a day", "s", "at most", MOST_JOB, seconds),
        Finding("memory of the job", "MB", "at most", MOST_MEMORY, megabytes),
    )


def main(
    decisions: Annotated[int, typer.Option(min=1, help="On record, for calls.")] = 100_000,
    day: Annotated[int, typer.Option(min=1, help="Decisions of the job's day.")] = 1_000_000,
    rounds: Annotated[
        int, typer.Option(min=0, help="Rounds; the median counts. 0: only the job.")
    ] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of each load.")] = 10,
    url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            help="An empty PostgreSQL database for the job's day, which stays there; else SQLite.",
        ),
    ] = None,
) -> None:
    """Measure, and say whether the targets are met."""
    measured: defaultdict[Meanwhile, Measured] = defaultdict(Measured)
    try:
        process.adopt_orphans()
        with tempfile.TemporaryDirectory(prefix="monitoring-", dir=Path.cwd()) as folder:
            if rounds:
                scratch = Path(folder) / "served"
                scratch.mkdir()
                fill(Settings(state_dir=scratch, database_url=None), decisions, SPAN_DAYS)
                _serve_and_ask(scratch, measured, rounds, seconds)
            scratch = Path(folder) / "day"
            scratch.mkdir()
            values = of_day(scratch, url)
            fill(Settings.model_validate(values), day, 1.0)
            taken, most = _run_job(scratch, values)
    except (NotMeasured, DidNotStart, CreditRiskError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(NOT_MEASURED) from None
    findings = judge(measured, taken, most)
    Console().print(report.table(findings))
    raise typer.Exit(exit_code(findings))


class NotMeasured(Exception):
    """A request failed, or the job did."""


def of_day(scratch: Path, url: str | None) -> dict[str, str | None]:
    """The settings of the job's day: with what it is filled, and looked at.

    Raises:
        NotMeasured: the database at the URL is not empty.
        RecordingFailed: it cannot be opened.
    """
    values: dict[str, str | None] = {"state_dir": str(scratch), "database_url": url}
    if url is None:
        return values
    # The keys to a shared database are nobody's to make, and these are thrown away.
    values["encryption_keys"] = b64encode(secrets.token_bytes(32)).decode()
    if tables(Settings.model_validate(values)).state != "empty":
        raise NotMeasured("the database is not empty, and made-up decisions would stay in it")
    return values


def fill(settings: Settings, decisions: int, days: float) -> None:
    """Put decisions about made-up applicants on record, evenly over the days before now."""
    deciding = package.load(applications.folder(ROOT / "packages", PORTFOLIO, "default"))
    number = min(decisions, _APPLICANTS)
    rows = profile.draw(deciding.profile, deciding.schema, number, applications.SEED)
    drawn = [deciding.schema.application(row) for row in rows.tolist()]
    decided = scoring.decide(deciding, drawn)
    step = days * 86_400e6 / decisions
    first = time.time_ns() // 1_000 - int(decisions * step)
    with contextlib.closing(open_log(settings)) as log, rows_done("filling", "records") as shown:
        for start in range(0, decisions, _AT_ONCE):
            log.append(
                [
                    decision_record(
                        *(deciding, new_id(), drawn[i % number], decided[i % number]),
                        Call("/predict", "filled", at=first + int(i * step)),
                        latency_ms=1.0,
                    )
                    for i in range(start, min(start + _AT_ONCE, decisions))
                ]
            ).result()
            shown(min(start + _AT_ONCE, decisions), decisions)


def _serve_and_ask(
    scratch: Path, measured: dict[Meanwhile, Measured], rounds: int, seconds: int
) -> None:
    (peer,) = (peer for peer in all_peers() if peer.name == OURS)
    bodies = applications.singles(applications.folder(ROOT / "packages", PORTFOLIO, "default"))
    values = {"collector": "", "packages": str(ROOT / "packages")}
    with (
        process.started(peer, scratch, values, ("/readyz", None), pinned=False) as running,
        contextlib.closing(open_log(Settings(state_dir=scratch, database_url=None))) as log,
        httpx.Client(base_url=running.url, timeout=process.START_SECONDS) as client,
        ProcessPoolExecutor(1, get_context("spawn")) as others,
    ):
        _load(others, running.url, bodies, seconds, None)
        _ask(client)
        calls: dict[Meanwhile, Callable[[], Span] | None] = {
            "nothing": None,
            "counted": lambda: _ask(client),
            "from nothing": lambda: _ask_anew(client, log),
        }
        for number in range(rounds):
            for meanwhile, call in calls.items():
                sent, made = _load(others, running.url, bodies, seconds, call)
                met = [end - due for due, end in sent if call is None or _meets((due, end), made)]
                p99 = float(np.percentile(met, 99)) * 1e3
                measured[meanwhile].p99.append(p99)
                told = "no call"
                if made:
                    times = [end - begin for begin, end in made]
                    measured[meanwhile].calls.append(median(times))
                    told = f"{len(times)} calls of {median(times):.3f} s"
                sys.stderr.write(
                    f"round {number + 1} of {rounds}: {meanwhile}: p99 {p99:.2f} ms "
                    f"of {len(met)} requests, {told}\n"
                )


def _ask(client: httpx.Client) -> Span:
    """A call on drift."""
    began = time.perf_counter()
    answer = client.post("/monitor/drift", json=WINDOW)
    if answer.status_code != httpx.codes.OK:
        raise NotMeasured(f"a call on drift was answered {answer.status_code}: {answer.text}")
    return began, time.perf_counter()


def _ask_anew(client: httpx.Client, log: SqlAuditLog) -> Span:
    job.forget(log, PORTFOLIO)
    return _ask(client)


def _load(
    others: Executor, url: str, bodies: list[str], seconds: int, call: Callable[[], Span] | None
) -> tuple[list[Span], list[Span]]:
    """Requests at `RATE`, and the calls made meanwhile: from when to when."""
    load = others.submit(requests, url, bodies, seconds)
    calls: list[Span] = []
    while call is not None and not load.done():
        calls.append(call())
        time.sleep(PAUSE_SECONDS)
    return load.result(), calls


def _meets(one: Span, others: list[Span]) -> bool:
    return any(one[0] < end and begin < one[1] for begin, end in others)


def requests(url: str, bodies: list[str], seconds: int) -> list[Span]:
    """Requests at `RATE`, each from when it was due to when it was answered.

    So one that is late delays none that nobody sees. It is for a process of its own: in that of
    who makes calls meanwhile, threads would wait for each other. And for little work: it is on the
    server's cores.

    Raises:
        NotMeasured: one failed.
    """
    spans: list[Span] = []
    faults: list[str] = []
    end = time.perf_counter() + seconds
    headers = {"Content-Type": "application/json"}

    def send(first: int) -> None:
        mine = cycle(bodies[first::CALLERS])
        with contextlib.closing(HTTPConnection(urlsplit(url).netloc)) as connection:
            due = time.perf_counter() + first / RATE
            while due < end and not faults:
                time.sleep(max(due - time.perf_counter(), 0.0))
                connection.request("POST", "/predict", next(mine), headers)
                answer = connection.getresponse()
                text = answer.read()
                spans.append((due, time.perf_counter()))
                if answer.status != HTTPStatus.OK:
                    faults.append(f"a request was answered {answer.status}: {text.decode()}")
                due += CALLERS / RATE

    callers = [threading.Thread(target=send, args=(first,)) for first in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    if faults:
        raise NotMeasured(faults[0])
    return spans


def _run_job(scratch: Path, values: dict[str, str | None]) -> tuple[float, float]:
    """Seconds and most MB of the job, run by itself as its users do."""
    words = [sys.executable, "-m", "monitoring", "run", "--portfolio", PORTFOLIO]
    named = {f"{PREFIX}{name.upper()}": value or "" for name, value in values.items()}
    environment = {**os.environ, **named}
    began = time.perf_counter()
    most = 0
    log = scratch / "job.log"
    with log.open("wb") as output:
        running = subprocess.Popen(  # noqa: S603 - this interpreter, our own program
            words, cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        while running.poll() is None:
            most = max([most, *resident(running.pid)])
            time.sleep(_LOOK_SECONDS)
    taken = time.perf_counter() - began
    if running.returncode:
        raise NotMeasured(f"the job ended with {running.returncode}: {log.read_text()}")
    return taken, most / MEGABYTE


def resident(pid: int) -> Iterator[int]:
    """The most bytes that a process has held so far; nothing of one that ends."""
    # Not ru_maxrss, which begins with what the process that started this one holds.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                yield int(line.split()[1]) * 1024


if __name__ == "__main__":
    typer.run(main)
