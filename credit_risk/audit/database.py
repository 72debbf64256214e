"""The schema of the record database: making it, checking it, bringing it up to date.

The migrations are Alembic's. A database without tables gets them all. One of another revision is
refused, because several servers may be using it: who runs them brings it up to date, by command.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from credit_risk.audit.chain import GENESIS
from credit_risk.audit.tables import HEAD, RECORDS
from credit_risk.errors import RecordingFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.config import Config

REVISION = "0001"
"""The revision this version reads and writes."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6372656469745F72
"""The advisory lock of PostgreSQL under which tables are made."""


def prepare(connection: sa.Connection) -> None:
    """Make the tables of an empty database; see that those of another are of this version.

    Args:
        connection: in a transaction that keeps other writers out, where that is SQLite.

    Raises:
        RecordingFailed: the database is of another revision, or its tables are not Alembic's.
    """
    alone(connection)
    if not check(connection):
        upgrade(connection)


def alone(connection: sa.Connection) -> None:
    """Wait until nobody else makes or upgrades tables, to the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def check(connection: sa.Connection) -> bool:
    """Whether there are tables, and then they are of this version.

    Raises:
        RecordingFailed: as `prepare`.
    """
    found = revision(connection)
    if found is None and not sa.inspect(connection).has_table(RECORDS.name):
        return False
    if found != REVISION:
        raise RecordingFailed(
            f"the record database has schema revision {found or 'none'}, and this version needs "
            f"{REVISION}: stop all servers, make a backup, run `credit-risk database upgrade`"
        )
    return True


def revision(connection: sa.Connection) -> str | None:
    """The revision a database has; None where no migration has run."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(
        sa.text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return found


def upgrade(connection: sa.Connection) -> None:
    """Run the migrations that are missing, and begin the chain if there is none.

    Raises:
        RecordingFailed: the database is of a revision unknown here, or not one of records.
    """
    # Here and not above: only the first start and an upgrade need it.
    from alembic import command, util  # noqa: PLC0415

    found = revision(connection)
    if found is None and sa.inspect(connection).has_table(RECORDS.name):
        raise RecordingFailed("the record database has tables that no version of this made")
    try:
        command.upgrade(_config(connection), "head")
    except util.CommandError as error:
        raise RecordingFailed(
            f"the record database has schema revision {found}, which this version does not know: "
            "a newer one made it"
        ) from error
    if connection.execute(sa.select(HEAD.c.log)).first() is None:
        begin = sa.insert(HEAD).values(log=secrets.token_hex(16), sequence=0, hash=GENESIS)
        connection.execute(begin)


def as_stored(connection: sa.Connection, statement: sa.Select[Any]) -> Sequence[Any]:
    """The rows as the driver gives them, whatever is in them."""
    text = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
    try:
        return connection.exec_driver_sql(text).fetchall()
    except exc.OperationalError as error:
        if "decode" not in str(error.orig).lower():
            raise
        # SQLite keeps texts that are none, and its driver refuses to read them.
        driver: Any = connection.connection.driver_connection
        driver.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            return connection.exec_driver_sql(text).fetchall()
        finally:
            driver.text_factory = str


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
