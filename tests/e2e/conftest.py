"""A real server: the command a user starts, its own processes, its own state directory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk.settings import PREFIX
from loadtests import server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class RunningServer:
    """One `credit-risk serve` and how to reach it."""

    url: str
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    log: Path

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line with the server's settings."""
        return subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "credit_risk.cli", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def stop(self) -> int:
        """Ask it to stop and wait; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextlib.contextmanager
def starting_in(folder: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers; whatever still runs at the end is stopped."""
    started: list[RunningServer] = []

    def starting(
        *, portfolio: str = "personal-loans", workers: int = 2, **more: str
    ) -> RunningServer:
        number = len(started)
        port = server.free_port()
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(PREFIX)},
            "PORT": str(port),
            "WORKERS": str(workers),
            "PORTFOLIO": portfolio,
            # Any name will do for a folder, also one that means something to a URL, a pattern,
            # a shell or the library that starts the workers.
            "STATE_DIR": str(folder / f"state {number} ?mode=x#y %20 [a-z]* $(circus.pid) é"),
            **{f"{PREFIX}{name.upper()}": value for name, value in more.items()},
        }
        log = folder / f"server-{number}.log"
        process = server.launched(environment, log)
        running = RunningServer(f"http://127.0.0.1:{port}", process, environment, log)
        started.append(running)
        server.when_ready(process, running.url, log)
        return running

    try:
        yield starting
    finally:
        for running in started:
            if running.process.poll() is None:
                running.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers of a test's own; see `starting_in`."""
    with starting_in(tmp_path) as starting:
        yield starting


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of one worker, for tests that leave it serving; it waits a second for a request."""
    with starting_in(tmp_path_factory.mktemp("shared")) as starting:
        yield starting(workers=1, request_seconds="1")
