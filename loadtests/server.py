"""The server under load: started here, or running already and named by its URL."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from credit_risk.settings import PREFIX
from loadtests import crosscheck, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtests.crosscheck import Histogram

ROOT = Path(__file__).parents[1]
START_SECONDS = 120.0
STOP_SECONDS = 30.0
ANSWER_SECONDS = 30.0
SETTLE_SECONDS = 0.2
SETTLE_TRIES = 25
LOG_TAIL = 3_000
WARM_UP_CONNECTIONS = 16
TLS = httpx.create_ssl_context()
"""For every client: each would read all certificates anew, 20 ms, and then speak plain HTTP."""
_OURS = ("HOST", "PORT", "STATE_DIR", "DATABASE_URL", "DATABASE_URL_FILE")


class Unavailable(Exception):
    """There is no server to measure."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready; ``process`` is its main process if it was started here."""

    url: str
    portfolio: str
    version: str
    process: int | None


def running(url: str) -> Server:
    """The server at ``url``.

    Raises:
        Unavailable: it does not answer, or says it is not ready.
    """
    try:
        ready = httpx.get(f"{url}/readyz", timeout=ANSWER_SECONDS, verify=TLS)
        if ready.status_code != httpx.codes.OK:
            msg = f"{url} is not ready: {ready.text[:LOG_TAIL]}"
            raise Unavailable(msg)
        answer = httpx.get(f"{url}/version", timeout=ANSWER_SECONDS, verify=TLS)
        version = answer.raise_for_status().json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        msg = f"{url} does not answer: {error}"
        raise Unavailable(msg) from error
    return Server(url, version["portfolio"], version["model"]["version"], None)


@contextlib.contextmanager
def started(folder: Path, state: Path | None = None, **more: str) -> Iterator[Server]:
    """Start ``credit-risk serve`` on a free port; it is stopped at the end.

    Its state directory is a new one under ``folder``, removed at the end: on the disk that the
    caller chose, because every decision waits for that disk, and never the records of a real
    server. All other settings are those of the environment.

    Args:
        folder: for the state directory.
        state: one that stays instead, under ``folder`` or not.
        more: further settings, by their names in lower case.

    Raises:
        Unavailable: it did not become ready; with the end of its log.
    """
    with contextlib.ExitStack() as made:
        if state is None:
            new = tempfile.TemporaryDirectory(prefix="state-", dir=folder)
            state = Path(made.enter_context(new))
        state.mkdir(exist_ok=True)
        port = free_port()
        environment = {
            k: v for k, v in os.environ.items() if k.upper().removeprefix(PREFIX) not in _OURS
        }
        environment |= {f"{PREFIX}PORT": str(port), f"{PREFIX}STATE_DIR": str(state)}
        environment |= {f"{PREFIX}{name.upper()}": text for name, text in more.items()}
        log = state / "server.log"
        process = launched(environment, log)
        try:
            yield when_ready(process, f"http://127.0.0.1:{port}", log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port of the loopback address that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def launched(environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process that begins to serve with these settings; ``log`` takes what it says."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "credit_risk.cli", "serve"],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for who launched it, which then stops the server in good order.
            start_new_session=True,
        )


def when_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> Server:
    """The server that a process comes to be.

    Raises:
        Unavailable: it ended, or takes too long; with the end of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    reason = "it takes too long"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            reason = f"it ended with exit code {process.returncode}"
            break
        try:
            found = running(url)
            return replace(found, process=process.pid)
        except Unavailable:
            time.sleep(SETTLE_SECONDS)
    tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    msg = f"the server did not become ready: {reason}\n{tail}"
    raise Unavailable(msg)


def warm_up(server: Server, singles: Sequence[str], batch: str) -> None:
    """Ask every call some times over many connections, so that each worker has answered some.

    Raises:
        Unavailable: an answer was not 200, so that a measurement would mean nothing.
    """
    headers = {"Content-Type": "application/json"}
    calls = [("/predict", b) for b in singles] + [("/explain", b) for b in singles]
    calls.append(("/predict/batch", batch))
    for _ in range(WARM_UP_CONNECTIONS):
        with httpx.Client(
            base_url=server.url, headers=headers, timeout=ANSWER_SECONDS, verify=TLS
        ) as client:
            for route, body in calls:
                try:
                    answer = client.post(route, content=body)
                except httpx.TransportError as error:
                    msg = f"{route} does not answer: {error}"
                    raise Unavailable(msg) from error
                if answer.status_code != httpx.codes.OK:
                    msg = f"{route} answers {answer.status_code}: {answer.text[:LOG_TAIL]}"
                    raise Unavailable(msg)


def histograms(server: Server) -> dict[str, Histogram]:
    """The server's own histograms, once it has counted all that it answered.

    It counts a request after the answer is sent, so they are read until they stay the same.

    Raises:
        Unavailable: it does not answer.
    """
    seen: dict[str, Histogram] = {}
    for _ in range(SETTLE_TRIES):
        try:
            answer = httpx.get(f"{server.url}/metrics", timeout=ANSWER_SECONDS, verify=TLS)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            msg = f"{server.url}/metrics does not answer: {error}"
            raise Unavailable(msg) from error
        now = crosscheck.histograms(answer.text)
        now.pop("/metrics", None)
        if now == seen:
            break
        seen = now
        time.sleep(SETTLE_SECONDS)
    return seen


def resident(process: int) -> dict[int, int]:
    """Resident memory of the main process's workers, bytes by process id (Linux).

    From ``smaps_rollup``, which is exact; ``VmRSS`` may lag by 64 pages for each thread. A worker
    that ends meanwhile is left out.
    """
    found = {}
    for pid in machine.children(process):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            line = next(line for line in rollup.splitlines() if line.startswith("Rss:"))
            found[pid] = int(line.split()[1]) * 1024
    return found
