"""The audit log against a real PostgreSQL: stopped, stalled, cut off and set up wrongly."""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc

from credit_risk.audit import postgresql as ours
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.errors import RecordingFailed
from tests.audit.test_log import made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.audit.records import AuditLog, Record
    from loadtests.cluster import Cluster


@pytest.fixture
def url(postgresql: Cluster, database: str) -> str:
    """Where the log is."""
    return postgresql.url(database)


@pytest.fixture
def log(url: str) -> Iterator[AuditLog]:
    """An empty audit log."""
    with closing(SqlAuditLog(url, SEALING)) as opened:
        yield opened


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a database that does not answer."""
    monkeypatch.setattr(ours, "SERVING_SECONDS", 0.5)


def failure(log: AuditLog, record: Record) -> str:
    """Why it cannot be recorded."""
    error = log.append([record]).exception()
    assert isinstance(error, RecordingFailed)
    assert isinstance(error.__cause__, (exc.SQLAlchemyError, psycopg.Error))
    return str(error.__cause__)


class Relay:
    """Stands between a client and the server; may swallow what the server answers."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._ends: list[socket.socket] = []
        self.silent = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client = self._listening.accept()[0]
                server = socket.create_connection(self._to)
                self._ends += [client, server]
                for ends in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, answers: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(65_536):
                if not (answers and self.silent):
                    to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Cut everybody off."""
        for end in (self._listening, *self._ends):
            end.close()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_a_url_may_name_the_driver(url: str, driver: str) -> None:
    """There is one, and it is taken by itself."""
    record = made()
    with closing(SqlAuditLog(sa.make_url(url).set(drivername=driver), SEALING)) as log:
        log.append([record]).result()
        assert log.get(record.id) == record


@pytest.mark.parametrize(
    ("driver", "told"),
    [
        ("postgresql+psycopg2", r"no driver for postgresql\+psycopg2: use postgresql\+psycopg"),
        ("mysql", "records go to SQLite or PostgreSQL, not to mysql"),
    ],
)
def test_another_driver_or_database_is_refused(driver: str, told: str) -> None:
    """What was never tried keeps no evidence."""
    with pytest.raises(RecordingFailed, match=told):
        SqlAuditLog(f"{driver}://somebody@127.0.0.1:9/records", SEALING)


@pytest.mark.parametrize(
    ("configured", "in_force"),
    [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
def test_commits_last_whatever_the_database_is_set_to(
    postgresql: Cluster, database: str, configured: str, in_force: str
) -> None:
    """No administrator's short cut is taken; what is stronger stays."""
    with closing(postgresql.connect()) as connection:
        connection.execute(f"ALTER DATABASE {database} SET synchronous_commit = {configured}")
    seen: list[str] = []

    def committing(connection: sa.Connection) -> None:
        seen.append(connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())

    event.listen(sa.Engine, "commit", committing)
    try:
        with closing(SqlAuditLog(postgresql.url(database), SEALING)) as log:
            log.append([made()]).result()
    finally:
        event.remove(sa.Engine, "commit", committing)
    assert set(seen) == {in_force}


def test_a_server_that_does_not_sync_is_refused(postgresql: Cluster, url: str) -> None:
    """Its commits would not outlive a power cut, and nothing else would tell."""

    def sync(state: str) -> None:
        with closing(postgresql.connect()) as connection:
            connection.execute(f"ALTER SYSTEM SET fsync = {state}")
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SHOW fsync").fetchone() != (state,):
                pass

    sync("off")
    try:
        with pytest.raises(RecordingFailed, match="fsync is off"):
            SqlAuditLog(url, SEALING)
    finally:
        sync("on")


def test_a_database_that_lacks_characters_is_refused(postgresql: Cluster) -> None:
    """An applicant's data would fail one by one, each by its own letters."""
    with (
        postgresql.database(encoding="LATIN1") as name,
        pytest.raises(RecordingFailed, match="encoding is LATIN1, not UTF8"),
    ):
        SqlAuditLog(postgresql.url(name), SEALING)


def test_what_the_url_says_is_not_overruled(postgresql: Cluster, database: str) -> None:
    """Time-outs and other options are the operator's, if the operator gives them."""
    url = postgresql.url(
        database, application_name="ours", options="-c%20lock_timeout%3D7s%20-c%20work_mem%3D9MB"
    )
    engine = ours.engine(sa.make_url(url), writes=True, serves=True)
    with engine.connect() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("application_name", "lock_timeout", "work_mem", "statement_timeout")
        ]
    engine.dispose()
    assert shown == ["ours", "7s", "9MB", "2s"]


@pytest.mark.parametrize("mode", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_a_server_that_is_stopped_fails_records_until_it_is_back(
    postgresql: Cluster, log: AuditLog, mode: signal.Signals
) -> None:
    """Writing, pinging and reading; afterwards the very first one of each succeeds."""
    before, during, after = made(), made(), made()
    log.append([before]).result()
    with postgresql.stopped(mode):
        # A server that is ending refuses, or lets in and hangs up.
        assert "connection failed" in failure(log, during)
        told = str(log.ping().exception())
        assert told.startswith("the records could not be written: connection failed: ")
        assert len(told.splitlines()) == 1
        with pytest.raises(RecordingFailed):
            log.get(before.id)
    assert log.get(before.id) == before
    log.append([after]).result()
    log.ping().result()
    assert log.find() == [after, before]


def test_a_restart_that_nobody_met_costs_no_record(postgresql: Cluster, log: AuditLog) -> None:
    """The connection that it cut is not the one that the next record is written on."""
    record = made()
    log.append([made()]).result()
    log.find()
    with postgresql.stopped():
        pass
    log.append([record]).result()
    assert log.get(record.id) == record


@pytest.mark.usefixtures("hasty")
def test_a_server_that_hangs_fails_records_until_it_goes_on(postgresql: Cluster, url: str) -> None:
    """It takes connections and answers nothing: no time-out of its own can help."""
    before, after = made(), made()
    with closing(SqlAuditLog(url, SEALING)) as log:
        log.append([before]).result()
        log.find()
        with postgresql.stalled():
            assert "no answer within 0.5 s" in failure(log, made())
            assert "timeout" in failure(log, made())  # of a new connection
            with pytest.raises(RecordingFailed):
                log.get(before.id)
        log.append([after]).result()
        assert log.find() == [after, before]


@pytest.mark.usefixtures("hasty")
def test_a_commit_in_doubt_is_a_failure_and_never_a_second_record(
    postgresql: Cluster, database: str
) -> None:
    """The commit arrives and its answer does not: nobody is told it was recorded; it is, once."""
    before, doubtful, after = made(), made(), made()
    relay = Relay(postgresql.port)
    here = sa.make_url(postgresql.url(database)).set(port=relay.port)

    def committing(_: sa.Connection) -> None:
        relay.silent = True

    with closing(SqlAuditLog(here, SEALING)) as log:
        log.append([before]).result()
        event.listen(sa.Engine, "commit", committing)
        try:
            assert "no answer within 0.5 s" in failure(log, doubtful)
        finally:
            event.remove(sa.Engine, "commit", committing)
        relay.silent = False
        log.append([after]).result()
        assert log.find() == [after, doubtful, before]
    relay.close()


@pytest.mark.usefixtures("hasty")
def test_a_lock_held_too_long_fails_and_passes(
    postgresql: Cluster, database: str, url: str
) -> None:
    """The server says so itself, and the connection stays."""
    with closing(SqlAuditLog(url, SEALING)) as log:
        with closing(postgresql.connect(database)) as other, other.transaction():
            other.execute("LOCK TABLE records IN EXCLUSIVE MODE")
            assert "timeout" in failure(log, made())
        log.append([made()]).result()
        assert log.count() == 1


def test_an_error_tells_nothing_of_the_applicant(
    postgresql: Cluster, database: str, log: AuditLog
) -> None:
    """PostgreSQL quotes a row that breaks a rule in the error's detail; we do not."""
    with closing(postgresql.connect(database)) as connection:
        connection.execute("ALTER TABLE records ADD CHECK (portfolio <> 'odd')")
    told = failure(log, made(portfolio="odd", body={"income": 123_454_321}))
    assert "violates check constraint" in told
    assert "123454321" not in told


def test_who_only_reads_cannot_change_anything(log: AuditLog, url: str) -> None:
    """PostgreSQL itself refuses, whatever a later mistake of ours may ask of it."""
    log.append([made()]).result()
    with (
        closing(SqlRecords(url)) as records,
        records.reading() as connection,
        pytest.raises(exc.InternalError, match="read-only transaction"),
    ):
        connection.exec_driver_sql("DELETE FROM records")
    assert log.count() == 1


def test_a_standby_is_left_for_the_primary(url: str) -> None:
    """A connection on which nothing can be written any more is not used again."""
    engine = ours.engine(sa.make_url(url), writes=True, serves=True)
    pids: list[int] = []
    for standby in (True, False):
        with engine.connect() as connection:
            pids.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
            if standby:
                connection.exec_driver_sql("SET default_transaction_read_only = on")
                connection.commit()
                with pytest.raises(exc.InternalError, match="read-only transaction"):
                    connection.exec_driver_sql("CREATE TABLE t (i int)")
    engine.dispose()
    assert pids[0] != pids[1]


def test_a_password_is_in_no_error(postgresql: Cluster, database: str) -> None:
    """Neither the wrong one nor the right one of another."""
    wrong = sa.make_url(postgresql.url(database)).set(password="not-for-logs-4711")  # noqa: S106
    with pytest.raises(RecordingFailed, match="password authentication failed") as caught:
        SqlAuditLog(wrong, SEALING)
    assert "4711" not in f"{caught.value} {caught.value.__cause__}"
    with pytest.raises(RecordingFailed, match="write %40") as caught:
        SqlAuditLog("postgresql://clerk:not-for@logs-4711@127.0.0.1/records", SEALING)
    assert "4711" not in str(caught.value)


def test_a_process_that_stops_within_a_transaction_holds_nobody_up(url: str, log: AuditLog) -> None:
    """What it has locked is free again before those who wait for it give up."""
    engine = ours.engine(sa.make_url(url), writes=True, serves=True)
    with engine.connect() as connection:
        connection.exec_driver_sql("LOCK TABLE records IN EXCLUSIVE MODE")
        log.append([made()]).result()
        with pytest.raises(exc.DBAPIError, match="idle-in-transaction timeout"):
            connection.exec_driver_sql("SELECT 1")
    engine.dispose()


def test_a_server_that_becomes_read_only_is_not_ready_until_it_is_not(
    postgresql: Cluster, log: AuditLog
) -> None:
    """As it is made where a disk is full: a ping, which writes nothing, tells of it."""

    def read_only(state: str) -> None:
        with closing(postgresql.connect()) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {state}")
            connection.execute("SELECT pg_reload_conf()")
        shown = None
        while shown != (state,):
            with closing(postgresql.connect()) as connection:
                shown = connection.execute("SHOW default_transaction_read_only").fetchone()

    log.ping().result()
    read_only("on")
    try:
        for _ in range(2):  # on the connection that was open, and on a new one
            assert "read-only" in str(log.ping().exception())
    finally:
        read_only("off")
    log.append([made()]).result()
