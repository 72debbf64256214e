"""A PostgreSQL server of our own, in a temporary directory: stopped, stalled, killed at will.

It listens on a free port of the loopback address and on a socket in its directory, keeps what is
committed (fsync is on), and ends with the process that started it, however that one ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from loadtests import machine
from loadtests.server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAMS = Path("/usr/lib/postgresql")
"""Where Debian and Ubuntu put what is not on the PATH, by major version."""
USER = "postgres"
START_SECONDS = 60.0
_NUMBERS = itertools.count(1)


class Missing(Exception):
    """PostgreSQL is not installed, or cannot be run here."""


def programs() -> Path:
    """The folder of the newest PostgreSQL that is installed.

    Raises:
        Missing: none is, or it would have to run as root, which it refuses.
    """
    found = {float(path.parts[-3]): path.parent for path in PROGRAMS.glob("*/bin/initdb")}
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise Missing("PostgreSQL is not installed: on Debian, apt install postgresql")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(USER)
        except KeyError:
            raise Missing(f"PostgreSQL does not run as root, and there is no {USER}") from None
    return found[max(found)] if found else Path(str(on_path)).resolve().parent


class Cluster:
    """One server, and what can happen to it.

    Raises:
        Missing: see `programs`.
    """

    def __init__(self, folder: Path) -> None:
        self._programs = programs()
        self._folder = folder
        self._password = secrets.token_urlsafe()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        password = folder / "password"
        password.write_text(self._password, encoding="ascii")
        if os.geteuid() == 0:
            for path in (folder, password):
                shutil.chown(path, USER, USER)
        subprocess.run(  # noqa: S603 - PostgreSQL's own program
            [
                *_unprivileged(),
                *(self._programs / "initdb", "--pgdata", folder / "data", "--username", USER),
                *("--auth", "scram-sha-256", "--pwfile", password),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def url(self, database: str, **query: str) -> str:
        """SQLAlchemy URL of a database."""
        given = "&".join(f"{name}={value}" for name, value in query.items())
        place = f"{USER}:{self._password}@127.0.0.1:{self.port}/{database}"
        return f"postgresql+psycopg://{place}{'?' if given else ''}{given}"

    def connect(self, database: str = USER) -> psycopg.Connection[tuple[object, ...]]:
        """A connection of its own, each statement a transaction."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self._password,
            dbname=database,
            autocommit=True,
            connect_timeout=2,
        )

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers.

        Raises:
            RuntimeError: it does not; with what it says.
        """
        said = self._folder / "log"
        with said.open("ab") as log:
            # An immediate shutdown when this process is gone, so that nothing is left behind.
            self._process = subprocess.Popen(  # noqa: S603 - PostgreSQL's own program
                [
                    *_unprivileged("--pdeathsig", "QUIT"),
                    *(self._programs / "postgres", "-D", self._folder / "data"),
                    *("-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}"),
                    *("-c", f"unix_socket_directories={self._folder}"),
                    *("-c", "shared_buffers=32MB", "-c", "max_connections=100"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return
            time.sleep(0.05)
        tail = said.read_text(encoding="utf-8", errors="replace")[-2_000:]
        raise RuntimeError(f"PostgreSQL does not start: {tail}")

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """Stop it and wait: SIGINT is a fast shutdown, SIGQUIT an immediate one, as a crash."""
        if self._process is not None:
            self._process.send_signal(mode)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def stopped(self, mode: signal.Signals = signal.SIGINT) -> Iterator[None]:
        """It is not there; see `stop`. At the end it is again."""
        self.stop(mode)
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Nothing of it runs: connections are taken and stay open, but nobody answers."""
        assert self._process is not None, "it was not started"  # noqa: S101 - a mistake of ours
        self._process.send_signal(signal.SIGSTOP)
        backends = machine.children(self._process.pid)
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in (*backends, self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def database(self, **options: str) -> Iterator[str]:
        """A new, empty database; dropped at the end, whoever still uses it. Yields its name."""
        name = f"records_{next(_NUMBERS)}"
        wanted = sql.SQL(" ").join(
            sql.SQL("{} {}").format(sql.SQL(option), sql.Literal(value))
            for option, value in options.items()
        )
        with contextlib.closing(self.connect()) as connection:
            made = sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}")
            connection.execute(made.format(sql.Identifier(name), wanted))
        try:
            yield name
        finally:
            with contextlib.closing(self.connect()) as connection:
                dropped = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                connection.execute(dropped.format(sql.Identifier(name)))

    def empty(self, database: str) -> None:
        """Make a database as new, whoever still uses it."""
        with contextlib.closing(self.connect(database)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            name = sql.Identifier(database)
            connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(name))
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A server of our own, started; it and all of its files are gone at the end.

    Raises:
        Missing: see `programs`.
    """
    # Not under a folder of the caller's, which PostgreSQL's user may not enter.
    with tempfile.TemporaryDirectory(prefix="credit-risk-postgresql-") as folder:
        cluster = Cluster(Path(folder))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop(signal.SIGQUIT)


def _unprivileged(*more: str) -> Sequence[str]:
    """What a command begins with so that it does not run as root."""
    if os.geteuid() == 0:
        return ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", *more]
    return ["setpriv", *more] if more else []
