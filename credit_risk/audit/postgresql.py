"""PostgreSQL as a database of record: commits that last, and failures that are clear and fast."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event, exc

from credit_risk.errors import RecordingFailed

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.pool import ConnectionPoolEntry

CONNECT_SECONDS = 2
"""How long opening a connection may take; the driver waits no shorter."""
SERVING_SECONDS = 2.5
"""How long a statement or a commit may take while requests wait, well within their deadline."""
COMMAND_SECONDS = 600.0
"""The same for a command, which may count, verify or migrate all records that there are."""
SERVER_EARLIER_SECONDS = 0.5
"""The server gives up so much before we do: it says why, and the connection stays."""
IDLE_SECONDS = 1.5
"""A transaction in which nothing comes for so long is ended, before others give up waiting: who
is stopped within one has the lock that all need."""
CONNECTIONS_MOST = 5
"""Of each engine; a worker has one for writing and one for reading as a rule."""

_READ_ONLY_TRANSACTION = "25006"


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits no longer than it may, and whose errors tell no values.

    A server that is stopped, or cut off, keeps a connection open and never answers; a time-out
    that is the server's own does not help then. Such a connection is closed: what was asked may
    still be done, so that a commit without an answer is in doubt.
    """

    seconds: float = SERVING_SECONDS
    writes: bool = False

    def wait(
        self,
        gen: PQGen[Any],
        interval: float = 0.1,
        timeout: float | None = None,
    ) -> Any:  # noqa: ANN401 - whatever was waited for
        """Wait for the server.

        Raises:
            psycopg.Error: of the server, without the detail, which quotes rows; or the connection
                is lost or has waited long enough, and is closed.
        """
        limit = self.seconds if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except psycopg.Error as error:
            if error.diag.message_primary is not None:
                error.args = (error.diag.message_primary,)
            elif isinstance(error, psycopg.OperationalError) and not self.closed:
                self.close()
                raise psycopg.OperationalError(f"no answer within {limit:g} s") from error
            if self.writes and error.sqlstate == _READ_ONLY_TRANSACTION:
                # A standby, or a server whose disk is full: look for the primary again.
                self.close()
            raise


def engine(url: sa.URL, *, writes: bool, serves: bool) -> sa.Engine:
    """Connections to the database of a URL, through psycopg.

    What the URL itself says (``?connect_timeout=10``) is not overruled, but for
    ``synchronous_commit``: a commit that is answered is on disk, or stronger.

    Args:
        url: ``postgresql://`` or ``postgresql+psycopg://``.
        writes: whether it may; if not, every transaction is read-only.
        serves: whether requests wait for it.

    Raises:
        RecordingFailed: the URL names another driver, or has a password that is not escaped.
    """
    if url.drivername not in {"postgresql", "postgresql+psycopg"}:
        raise RecordingFailed(f"no driver for {url.drivername}: use postgresql+psycopg")
    if "@" in (url.host or ""):
        # Errors name the host, and this one begins with the end of a password.
        raise RecordingFailed("the database's URL has two @: in a password, write %40")
    seconds = SERVING_SECONDS if serves else COMMAND_SECONDS
    limit = round(1_000 * max(seconds - SERVER_EARLIER_SECONDS, seconds / 2))
    options: dict[str, int | str] = {
        "statement_timeout": limit,
        "lock_timeout": limit,
        "idle_in_transaction_session_timeout": round(1_000 * IDLE_SECONDS) if serves else 0,
    }
    if not writes:
        options["default_transaction_read_only"] = "on"
    given = url.query.get("options", "")
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "credit-risk",
        # A machine that vanished answers nothing, not even that there is nobody.
        "keepalives_idle": 5,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "tcp_user_timeout": round(1_000 * SERVING_SECONDS),
        # Of several hosts, the one that takes writes: after a failover, another one.
        "target_session_attrs": "read-write" if writes else "any",
    }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    settings = [f"-c {name}={value}" for name, value in options.items()]
    arguments["options"] = " ".join([*settings, *([given] if isinstance(given, str) else given)])
    made = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=arguments,
        # Positional, as the log's prepared insert is; without parameters in errors, for they are
        # an applicant's.
        paramstyle="format",
        hide_parameters=True,
        # Every query stands alone, as for SQLite, and needs one round trip instead of three.
        isolation_level="READ COMMITTED" if writes else "AUTOCOMMIT",
        pool_size=1,
        max_overflow=CONNECTIONS_MOST - 1,
        pool_timeout=seconds,
        use_native_hstore=False,
    )

    @event.listens_for(made, "do_connect")
    def connect(
        _dialect: Dialect,
        _record: ConnectionPoolEntry,
        positional: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Connection:
        connection = Connection.connect(*positional, **named)
        connection.seconds = seconds
        connection.writes = writes
        return connection

    @event.listens_for(made, "checkout")
    def check_connection(
        connection: Connection, _record: ConnectionPoolEntry, _proxy: object
    ) -> None:
        # A server that says something unasked says good-bye. To see that costs no round trip, and
        # saves the first records after a restart of the database.
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        if waiting.poll(0):
            raise exc.DisconnectionError

    if writes:
        event.listen(made, "connect", _last)
    return made


def _last(connection: Connection, _record: ConnectionPoolEntry) -> None:
    """See to it that commits on the connection last, and keep every character.

    Raises:
        psycopg.OperationalError: the database is not fit to be one of record.
    """
    fsync, encoding, _ = connection.execute(
        "SELECT current_setting('fsync'), current_setting('server_encoding'),"
        " CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply'"
        " ELSE set_config('synchronous_commit', 'on', false) END"
    ).fetchall()[0]
    connection.commit()
    if fsync != "on":
        raise psycopg.OperationalError("fsync is off: what is committed there does not last")
    if encoding != "UTF8":
        raise psycopg.OperationalError(f"the database's encoding is {encoding}, not UTF8")
