"""A Prometheus of our own, in a folder: it looks at servers, and answers queries.

It listens on a free port of the loopback address and ends with the process that started it,
however that one ends.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import yaml

from loadtests.server import LOG_TAIL, STOP_SECONDS, TLS, Unavailable, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

JOB = "credit-risk-server"
MONITOR = f"{JOB}-monitor"
"""Where dashboards look for the monitoring job of that deployment."""
START_SECONDS = 60.0
_LOOK_SECONDS = 0.05


class Missing(Exception):
    """Prometheus is not installed."""


class Sample(NamedTuple):
    """One series of an answer, and its value; a value that is none is NaN."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that answers at a URL."""

    url: str

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """What an expression gives now, or at a time in seconds since the epoch.

        Raises:
            HTTPError: it does not answer, or the expression is wrong.
        """
        asked: dict[str, str | float] = {"query": expression}
        if at is not None:
            asked["time"] = at
        answer = httpx.get(
            f"{self.url}/api/v1/query", params=asked, timeout=START_SECONDS, verify=TLS
        )
        found = answer.raise_for_status().json()["data"]["result"]
        return [Sample(series["metric"], float(series["value"][1])) for series in found]


def program() -> str:
    """The program on the path.

    Raises:
        Missing: there is none.
    """
    found = shutil.which("prometheus")
    if found is None:
        raise Missing("Prometheus is not installed: on Debian, apt install prometheus")
    return found


@contextlib.contextmanager
def running(
    folder: Path,
    targets: Sequence[str] = (),
    *,
    monitors: Sequence[str] = (),
    rules: Sequence[Path] = (),
    seconds: int = 1,
    storage: Path | None = None,
    retention: str = "1d",
) -> Iterator[Prometheus]:
    """Start one, and stop it at the end.

    Args:
        folder: for its configuration, its log and, unless ``storage`` is given, what it collects.
        targets: servers to look at, ``host:port``.
        monitors: monitoring jobs to look at.
        rules: files of rules to evaluate.
        seconds: how often it does either.
        storage: what it has collected, or has had made for it.
        retention: how long that is kept, such as ``100y``.

    Raises:
        Missing: it is not installed.
        Unavailable: it does not become ready; with the end of its log.
    """
    file, log = folder / "prometheus.yaml", folder / "prometheus.log"
    every = f"{seconds}s"
    configuration = {
        "global": {
            "scrape_interval": every,
            "scrape_timeout": every,
            "evaluation_interval": every,
        },
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": list(looked_at)}]}
            for name, looked_at in ((JOB, targets), (MONITOR, monitors))
        ],
    }
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - Prometheus' own program
            [
                *("setpriv", "--pdeathsig", "TERM", program()),
                f"--config.file={file}",
                f"--storage.tsdb.path={storage or folder / 'prometheus'}",
                f"--storage.tsdb.retention.time={retention}",
                f"--web.listen-address={address}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for who started it, which then stops it.
            start_new_session=True,
        )
    try:
        _wait(process, f"http://{address}/-/ready", log)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, verify=TLS).is_success:
                return
        time.sleep(_LOOK_SECONDS)
    tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    raise Unavailable(f"Prometheus did not become ready\n{tail}")
