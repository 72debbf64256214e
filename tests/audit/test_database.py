"""Migrations make the tables that the code reads and writes, and no others are worked with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from credit_risk.audit import database
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.tables import HEAD, METADATA
from credit_risk.errors import RecordingFailed
from tests.sealing import SEALING

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a record database that was made and left."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    SqlAuditLog(url, SEALING).close()
    return url


def test_the_migrations_make_what_the_code_declares(url: str) -> None:
    """Alembic would change nothing, and every check stands in both."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
        checks = {
            check["sqltext"]
            for table in METADATA.tables
            for check in sa.inspect(connection).get_check_constraints(table)
        }
    engine.dispose()
    declared = {
        str(constraint.sqltext)
        for table in METADATA.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }

    assert differences == []
    assert checks == declared != set()


def test_the_revision_is_that_of_the_newest_migration(url: str) -> None:
    """A migration that is added moves what the code asks for."""
    folder = database.__file__.removesuffix("database.py") + "migrations"
    with sa.create_engine(url).connect() as connection:
        assert database.revision(connection) == database.REVISION
        connection.engine.dispose()

    assert ScriptDirectory(folder).get_current_head() == database.REVISION


@pytest.mark.parametrize("change", ["UPDATE alembic_version SET version_num = '9999'", ""])
def test_a_database_of_another_revision_is_refused(url: str, change: str) -> None:
    """By who writes and by who reads, in words that say what to do."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(change or "DROP TABLE alembic_version")

    for opened in (SqlAuditLog, SqlRecords):
        with pytest.raises(RecordingFailed, match="credit-risk database upgrade"):
            opened(url, SEALING)


def test_a_chain_begins_once(url: str) -> None:
    """Opening again leaves the head where it is."""

    def heads() -> list[tuple[str, int]]:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return connection.execute("SELECT log, sequence FROM head").fetchall()

    before = heads()
    SqlAuditLog(url, SEALING).close()

    assert heads() == before
    assert [sequence for _, sequence in before] == [0]


def executed(url: str, statement: str) -> None:
    """Do something to the database from outside."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "9999, which this version does not"),
        ("DROP TABLE alembic_version", "no version of this made"),
    ],
)
def test_what_cannot_be_upgraded_is_left_as_it_is(url: str, change: str, message: str) -> None:
    """A newer version's tables, and somebody else's."""
    executed(url, change)
    engine = sa.create_engine(url)

    with engine.begin() as connection, pytest.raises(RecordingFailed, match=message):
        database.upgrade(connection)
    engine.dispose()


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(url: str) -> None:
    """The chain that has begun goes on."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        before = connection.execute(sa.select(HEAD)).all()
        database.upgrade(connection)
        assert connection.execute(sa.select(HEAD)).all() == before
    engine.dispose()
