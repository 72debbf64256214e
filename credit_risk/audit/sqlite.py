"""SQLite as a database of record: locking that is fair, commits that last, none that takes long."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event, exc

from credit_risk.errors import RecordingFailed, RecordNotFound

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 0.25
LOG_PAGES_MAX = 1_000
"""Pages of 4 KiB in the write-ahead log before it is begun anew.

A short one is soon written over in place, whose fsync is cheaper than that of a file that grows.
"""
EMPTY_SECONDS = 10.0
"""How long to ask for the lock that emptying the write-ahead log needs."""
RESTART_SECONDS = 1.0
"""How long to ask for the lock that beginning anew needs; then the next checkpoint tries."""
_DAMAGES_MOST = 100
_OF_A_VALUE = re.compile(r" value in |CHECK constraint failed")
_LOCK_INTERVAL = 0.000_25
"""Seconds between two tries for the lock of a SQLite file."""


def engine(url: sa.URL, busy_timeout: float, *, writes: bool) -> sa.Engine:
    """Connections to the file of a URL, whose commits are fsynced to a write-ahead log.

    Args:
        url: names the file; it is made for an engine that writes.
        busy_timeout: how long to wait for another process's lock, in seconds.
        writes: whether it may.

    Raises:
        RecordingFailed: the database would be in memory.
        RecordNotFound: there is no file to read.
    """
    if url.database in {None, "", ":memory:"}:
        raise RecordingFailed("records in memory are no evidence: name a file")
    path = Path(str(url.database)).absolute()
    if writes:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    elif not path.exists():
        raise RecordNotFound(f"no records yet: {path} does not exist")
    # Made here and never again: a connection that is opened when the file is gone must not begin
    # an empty one beside what the lost one left, its write-ahead log.
    existing = {"mode": "rw" if writes else "ro", "uri": "true"}
    made = sa.create_engine(
        url.set(database=f"file:{quote(str(path))}").update_query_dict(existing),
        connect_args={"timeout": busy_timeout},
        hide_parameters=True,
    )

    @event.listens_for(made, "connect")
    def configure(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        # The driver would begin transactions late and by itself. `begin` does it for writing;
        # reading needs none, for every query stands alone.
        connection.isolation_level = None
        if writes:
            _locked(connection, "PRAGMA journal_mode = WAL", busy_timeout)
            connection.execute("PRAGMA synchronous = FULL")  # every commit is fsynced
            connection.execute("PRAGMA secure_delete = ON")  # what is taken out is overwritten
            connection.execute("PRAGMA busy_timeout = 0")  # `_locked` waits
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # see `LogKeeper`
        record.info["file"] = _file(path)

    @event.listens_for(made, "checkout")
    def check_file(
        _connection: sqlite3.Connection, record: ConnectionPoolEntry, _proxy: object
    ) -> None:
        # A file that was moved or removed takes commits as long as it is open, and loses them.
        here = _file(path)
        if here is None or here != record.info["file"]:
            raise exc.DisconnectionError

    def begin(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        _locked(driver, "BEGIN IMMEDIATE", busy_timeout)

    if writes:
        event.listen(made, "begin", begin)
    return made


def empty_log(writing: sa.Engine) -> bool:
    """Empty the write-ahead log, which holds what is no longer in the database; whether it is done.

    Needs a moment in which nobody reads or writes. On a database that is never idle there may be
    none; then the log is begun anew and written over by and by.
    """
    until = time.monotonic() + EMPTY_SECONDS
    with closing(writing.raw_connection()) as connection:
        driver: Any = connection.driver_connection
        while True:
            busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy or time.monotonic() >= until:
                return not busy
            time.sleep(_LOCK_INTERVAL)


def damages(connection: sa.Connection) -> list[str]:
    """What is wrong with the file, such as an index that does not say what its table says.

    About two seconds for 100,000 records. Values that a column should not have are left to who
    reads the rows.
    """
    told = connection.exec_driver_sql(f"PRAGMA integrity_check({_DAMAGES_MOST})").scalars()
    lines = [line for text in told for line in str(text).splitlines()]
    return [line for line in lines if line != "ok" and not _OF_A_VALUE.search(line)]


def _locked(connection: sqlite3.Connection, statement: str, busy_timeout: float) -> None:
    """Execute a statement that needs a lock of the file, and wait for the lock.

    SQLite's own wait sleeps longer each time, up to 0.1 s, so that a busy process starves its
    neighbour; and when several processes open a new file, it does not wait at all. Asking at a
    steady, short interval is fair.
    """
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:
                raise
            time.sleep(_LOCK_INTERVAL)
        else:
            return


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is at the path now; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class LogKeeper:
    """Brings what was committed from the write-ahead log to the database, beside the commits.

    SQLite would do it within each commit that finds 1,000 pages in the log: one in a hundred
    commits would take several times as long as the others. A checkpoint beside them hinders none,
    but leaves what came meanwhile, so that under load the log is never begun anew and grows; past
    `LOG_PAGES_MAX` commits wait for what is left then, which is little.

    Does nothing for other databases.
    """

    def __init__(self, writing: sa.Engine) -> None:
        self._writing = writing
        self._due = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-keeper", daemon=True)
        if writing.dialect.name == "sqlite":
            self._thread.start()

    def are_due(self) -> None:
        """Something was committed."""
        self._due = True

    def close(self) -> None:
        """Make no more; SQLite makes the last one itself."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(CHECKPOINT_SECONDS):
            if not self._due:
                continue
            self._due = False
            try:
                self._checkpoint()
            except (exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
                # Commits meet the same fault and tell their callers; here nothing is lost.
                logger.warning("no checkpoint of the record database: %s", error)
            except Exception:
                # Without this thread the write-ahead log would grow for ever.
                logger.exception("no checkpoint of the record database")

    def _checkpoint(self) -> None:
        with closing(self._writing.raw_connection()) as connection:
            driver: Any = connection.driver_connection
            _, pages, _ = driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages < LOG_PAGES_MAX:
                return
            until = time.monotonic() + RESTART_SECONDS
            while time.monotonic() < until:
                busy, _, _ = driver.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                if not busy:
                    return
                time.sleep(_LOCK_INTERVAL)
