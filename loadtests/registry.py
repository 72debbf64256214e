"""The real registry, in a temporary directory: MLflow on PostgreSQL, its artefacts in S3.

S3 is SeaweedFS. Each of the three can be stopped while the others run, and comes back with what it
had. All of it listens on the loopback address alone, tells nobody that it runs, and ends with the
process that started it. `make install-registry` fetches the programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from loadtests import cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROGRAMS = Path(__file__).parents[1] / ".tools" / "registry" / "bin"
START_SECONDS = 120.0
STOP_SECONDS = 20.0
BUCKET = "mlflow"
_GRPC = 10_000
"""SeaweedFS adds so much to a port, for gRPC."""


class Missing(Exception):
    """The programs are not here, or cannot be run."""


class Program:
    """A process that is started, stopped and started again, always on the same port."""

    def __init__(
        self,
        name: str,
        command: Sequence[object],
        ready: str,
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._name = name
        # Ends when this process does, however that one ends.
        self._command = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        self._ready = ready
        self._folder = folder
        self._environment = {**os.environ, "TMPDIR": str(folder), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns at once."""
        with (self._folder / f"{self._name}.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - one of the two programs below
                self._command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: it does not; with what it says.
        """
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process is not None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self._ready, timeout=2.0, trust_env=False).is_success:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        log = self._folder / f"{self._name}.log"
        tail = log.read_text(encoding="utf-8", errors="replace")[-3_000:]
        raise RuntimeError(f"{self._name} does not start: {tail}")

    def stop(self) -> None:
        """Kill it and all of its processes, as a machine that fails would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
            self._process = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It is not there. At the end it is again."""
        self.stop()
        try:
            yield
        finally:
            self.start()
            self.wait()


class Stack:
    """The three together. ``url`` is where MLflow listens.

    Raises:
        Missing: the programs are not here.
    """

    def __init__(self, folder: Path, database: cluster.Cluster, name: str) -> None:
        for program in ("weed", "mlflow"):
            if not (PROGRAMS / program).exists():
                raise Missing(f"{program} is not here: make install-registry")
        self.database = database
        keys = {"accessKey": secrets.token_hex(8), "secretKey": secrets.token_hex(16)}
        identity = {"name": "mlflow", "credentials": [keys], "actions": ["Admin", "Read", "Write"]}
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}), encoding="ascii")
        config.chmod(0o600)
        files = folder / "seaweedfs"
        files.mkdir()
        ports = dict(zip(("master", "volume", "filer", "s3", "mlflow"), _ports(5), strict=True))
        self._ports = [*ports.values(), *(port + _GRPC for port in ports.values())]
        s3 = f"http://127.0.0.1:{ports['s3']}"
        self.s3 = Program(
            "seaweedfs",
            [
                *(PROGRAMS / "weed", "-logtostderr=true", "server", "-s3", "-filer"),
                *(f"-dir={files}", f"-s3.localSocket={folder / 's3.sock'}"),
                f"-filer.localSocket={folder / 'filer.sock'}",
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
                *("-master.volumeSizeLimitMB=64", "-volume.max=8", f"-s3.config={config}"),
                *("-s3.port.iceberg=0", "-s3.port.lance=0"),
                *(f"-{name}.port={ports[name]}" for name in ("master", "volume", "filer", "s3")),
                *(
                    f"-{name}.port.grpc={ports[name] + _GRPC}"
                    for name in ("master", "volume", "filer", "s3")
                ),
            ],
            f"{s3}/healthz",
            folder,
            {},
        )
        self.url = f"http://127.0.0.1:{ports['mlflow']}"
        self.mlflow = Program(
            "mlflow",
            [
                *(PROGRAMS / "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", ports["mlflow"], "--workers", "1"),
                *("--artifacts-destination", f"s3://{BUCKET}/artifacts"),
                *("--allowed-hosts", "mlflow:5000,localhost:*,127.0.0.1:*"),
            ],
            f"{self.url}/health",
            folder,
            {
                "MLFLOW_BACKEND_STORE_URI": database.url(name),
                "MLFLOW_S3_ENDPOINT_URL": s3,
                "AWS_ACCESS_KEY_ID": keys["accessKey"],
                "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
                "AWS_DEFAULT_REGION": "us-east-1",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
        )

    def start(self) -> None:
        """Start S3 and MLflow, and wait until both answer."""
        self.s3.start()
        self.mlflow.start()
        self.s3.wait()
        self.mlflow.wait()

    def stop(self) -> None:
        """Stop both."""
        self.mlflow.stop()
        self.s3.stop()
        # Some of its sockets are there whatever it is told.
        for port in self._ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - its own place
                path.unlink()


@contextlib.contextmanager
def running() -> Iterator[Stack]:
    """A registry of our own, started; it and all of its files are gone at the end.

    Raises:
        Missing: its programs, or PostgreSQL, are not here.
    """
    try:
        database = cluster.running()
        with (
            database as started,
            started.database() as name,
            tempfile.TemporaryDirectory(prefix="credit-risk-registry-") as folder,
        ):
            stack = Stack(Path(folder), started, name)
            try:
                stack.start()
                yield stack
            finally:
                stack.stop()
    except cluster.Missing as missing:
        raise Missing(str(missing)) from missing


def _ports(number: int) -> list[int]:
    """Ports that nothing listens on right now, nor on those that SeaweedFS derives from them."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < number:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            other = held.enter_context(socket.socket())
            with contextlib.suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + _GRPC))
                found.append(port)
    return found
