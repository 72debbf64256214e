"""A real server: the command a user starts, its own processes, its own state directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
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


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers; whatever still runs at the end is stopped."""
    started: list[RunningServer] = []

    def starting(*, portfolio: str = "personal-loans", workers: int = 2) -> RunningServer:
        number = len(started)
        port = free_port()
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CREDIT_RISK_")},
            "PORT": str(port),
            "WORKERS": str(workers),
            "PORTFOLIO": portfolio,
            "STATE_DIR": str(tmp_path / f"state-{number}"),
        }
        log = tmp_path / f"server-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "credit_risk.cli", "serve"],
                env=environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = RunningServer(f"http://127.0.0.1:{port}", process, environment, log)
        started.append(server)
        _wait_until_ready(server)
        return server

    yield starting
    for server in started:
        if server.process.poll() is None:
            server.stop()


def _wait_until_ready(server: RunningServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if httpx.get(f"{server.url}/readyz", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the server did not become ready:\n{server.log.read_text()[-4000:]}")
