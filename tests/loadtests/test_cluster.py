"""PostgreSQL of our own: it is there, can be mistreated, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from loadtests import cluster

if TYPE_CHECKING:
    from loadtests.cluster import Cluster

ROOT = Path(__file__).parents[2]

# Starts a server, tells where it is, and waits to be killed.
HOLDING = """
import sys
from loadtests import cluster
with cluster.running() as running:
    print(running.url("postgres"), flush=True)
    sys.stdin.read()
"""


def answers(running: Cluster, database: str = "postgres") -> bool:
    """Whether it does."""
    try:
        running.connect(database).close()
    except psycopg.OperationalError:
        return False
    return True


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without PostgreSQL, what to install."""
    monkeypatch.setattr(cluster, "PROGRAMS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(cluster.Missing, match="apt install postgresql"):
        cluster.programs()


def test_databases_are_empty_and_gone_afterwards(postgresql: Cluster) -> None:
    """Also where somebody is still connected."""
    with postgresql.database() as name:
        connection = postgresql.connect(name)
        connection.execute("CREATE TABLE t (i int)")
    assert not answers(postgresql, name)
    with postgresql.database() as another, closing(postgresql.connect(another)) as fresh:
        (tables,) = fresh.execute("SELECT count(*) FROM pg_tables WHERE tablename = 't'").fetchall()
        assert tables == (0,)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")


def test_a_database_is_emptied_whoever_is_connected(postgresql: Cluster, database: str) -> None:
    """Tables are gone, and what was set for it; the name stays."""
    with closing(postgresql.connect(database)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS i")
        connection.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE t")

        postgresql.empty(database)

    with closing(postgresql.connect(database)) as fresh:
        (tables,) = fresh.execute("SELECT count(*) FROM pg_tables WHERE tablename = 't'").fetchall()
        (setting,) = fresh.execute("SHOW synchronous_commit").fetchall()
        fresh.execute("CREATE TABLE t (i int)")
    assert (tables, setting) == ((0,), ("on",))


@pytest.mark.parametrize("mode", [signal.SIGINT, signal.SIGQUIT])
def test_it_is_stopped_and_has_what_was_committed(
    postgresql: Cluster, database: str, mode: signal.Signals
) -> None:
    """However it was stopped."""
    with closing(postgresql.connect(database)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS i")
    with postgresql.stopped(mode):
        assert not answers(postgresql)
    with closing(postgresql.connect(database)) as connection:
        assert connection.execute("SELECT i FROM t").fetchall() == [(42,)]


def test_it_ends_with_the_process_that_started_it() -> None:
    """Killed, that process can stop nothing itself."""
    command = [sys.executable, "-c", HOLDING]
    with subprocess.Popen(  # noqa: S603 - our own script
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        url = holder.stdout.readline().strip().replace("+psycopg", "")
        psycopg.connect(url).close()
        holder.kill()
    told = ""
    while "refused" not in told:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError as error:
            told = str(error)
