"""The schema of the record database: making it, checking it, bringing it up to date.

The migrations are Alembic's. A database without tables gets them all. One of another revision is
refused, because several servers may be using it: who runs them brings it up to date, by command.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc

from credit_risk.audit.chain import GENESIS
from credit_risk.audit.tables import HEAD, METADATA, RECORDS
from credit_risk.errors import RecordingFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.config import Config

REVISION = "0003"
"""The revision this version reads and writes."""
State = Literal["empty", "current", "earlier", "later", "unmarked", "unchained", "foreign"]
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6372656469745F72
"""The advisory lock of PostgreSQL under which tables are made."""
_UPGRADE = "stop all servers, make a backup, run `credit-risk database upgrade`"
_ELSEWHERE = (
    "set CREDIT_RISK_DATABASE_URL, or STATE_DIR, to another database, and the first server makes it"
)
_SAYS: dict[State, str] = {
    "empty": "has no tables yet: the first server makes them, or `credit-risk database upgrade`",
    "current": "is up to date",
    "earlier": f"is of an earlier version: {_UPGRADE}",
    "later": "is of a newer version: use that one, or a backup from before its upgrade",
    "unmarked": (
        "has the tables of a revision, but no table that says of which (alembic_version): "
        f"{_UPGRADE}, which writes it down, and adds tables that have come since"
    ),
    "unchained": (
        "is from before records were chained and sealed, and what was not chained when it was "
        f"written never proves anything: keep it, with the version that made it, and {_ELSEWHERE}"
    ),
    "foreign": f"has a table `records` that no version of this made: {_ELSEWHERE}",
}
_UNCHAINED = {
    *("sequence", "id", "kind", "time", "portfolio", "request_id", "model_version"),
    *("policy_version", "decision", "status", "body"),
}
"""The columns of records before there was a chain."""
_SINCE = {
    "0002": {"outcomes", "groups", "populations", "counted", "monitoring_results"},
    "0003": {"shadow", "shadowing"},
}
"""The tables that came with each revision after the first."""


class Found(NamedTuple):
    """What a database is found to be; ``revision`` is None where no migration has run."""

    state: State
    revision: str | None

    def __str__(self) -> str:
        """What it is and what to do about it, behind "the record database"."""
        revision = "" if self.revision is None else f" (schema revision {self.revision})"
        needed = f", and this version needs {REVISION}" if revision else ""
        if self.state == "current":
            return f"{_SAYS[self.state]}{revision}"
        return _SAYS[self.state].replace(":", f"{revision}{needed}:", 1)


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
    found = look(connection)
    if found.state not in {"empty", "current"}:
        raise RecordingFailed(f"the record database {found}")
    return found.state == "current"


def look(connection: sa.Connection) -> Found:
    """What the database is."""
    inspector = sa.inspect(connection)
    revision = None
    if inspector.has_table("alembic_version"):
        revision = connection.execute(
            sa.text("SELECT version_num FROM alembic_version")
        ).scalar_one_or_none()
    if revision is not None:
        if revision == REVISION:
            return Found("current", revision)
        return Found("earlier" if revision in _earlier() else "later", revision)
    if not inspector.has_table(RECORDS.name):
        return Found("empty", None)
    columns = _columns(inspector)
    if _marked(columns) is not None:
        return Found("unmarked", None)
    if columns == {RECORDS.name: _UNCHAINED}:
        return Found("unchained", None)
    return Found("foreign", None)


def upgrade(connection: sa.Connection) -> None:
    """Run the migrations that are missing, and begin the chain if there is none.

    Tables of this version that only lack Alembic's mark get it.

    Raises:
        RecordingFailed: the database is of a revision unknown here, or not one of records.
    """
    # Here and not above: only the first start and an upgrade need it.
    from alembic import command  # noqa: PLC0415

    found = look(connection)
    if found.state in {"later", "unchained", "foreign"}:
        raise RecordingFailed(f"the record database {found}")
    revision = _marked(_columns(sa.inspect(connection)))
    if found.state == "unmarked" and revision is not None:
        command.stamp(_config(connection), revision)
    command.upgrade(_config(connection), "head")
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


def _columns(inspector: sa.Inspector) -> dict[str, set[str]]:
    """The columns of those tables that have the names of ours."""
    return {
        name: {column["name"] for column in inspector.get_columns(name)}
        for name in set(inspector.get_table_names()) & set(METADATA.tables)
    }


def _marked(columns: dict[str, set[str]]) -> str | None:
    """The revision whose tables these are, if they are those of one."""
    expected = {name: set(table.columns.keys()) for name, table in METADATA.tables.items()}
    for revision in (REVISION, *sorted(_earlier(), reverse=True)):
        if columns == expected:
            return revision
        for name in _SINCE.get(revision, ()):
            del expected[name]
    return None


def _earlier() -> set[str]:
    """The revisions that this version knows how to upgrade."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    known = ScriptDirectory(str(_MIGRATIONS)).walk_revisions()
    return {script.revision for script in known} - {REVISION}


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
