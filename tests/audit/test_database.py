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
from tests.audit.test_log import made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from pathlib import Path


SINCE_THE_FIRST = (
    *("outcomes", "groups", "populations", "counted", "monitoring_results"),
    *("shadow", "shadowing"),
)


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
        assert database.look(connection) == ("current", database.REVISION)
        connection.engine.dispose()

    assert ScriptDirectory(folder).get_current_head() == database.REVISION


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
        connection.executescript(statement)


EMPTY = "; ".join(f"DROP TABLE {name}" for name in [*METADATA.tables, "alembic_version"])
UNCHAINED = """
CREATE TABLE records (sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL, time BIGINT NOT NULL, portfolio TEXT NOT NULL, request_id TEXT NOT NULL,
    model_version TEXT, policy_version TEXT, decision TEXT, status INTEGER, body TEXT NOT NULL)
"""
"""As it was before records were chained."""


@pytest.mark.parametrize(
    ("change", "state", "told"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "later", "(schema revision 9999), and"),
        ("DROP TABLE records; DROP TABLE alembic_version; " + UNCHAINED, "foreign", "no version"),
        (f"{EMPTY}; {UNCHAINED}", "unchained", "before records were chained"),
        (f"{EMPTY}; CREATE TABLE records (title TEXT)", "foreign", "no version of this made"),
    ],
)
def test_what_cannot_be_upgraded_is_left_as_it_is_and_told_with_what_to_do(
    url: str, change: str, state: str, told: str
) -> None:
    """A newer version's tables, those of before the chain, and somebody else's."""
    executed(url, change)
    engine = sa.create_engine(url)

    with engine.begin() as connection:
        found = database.look(connection)
        with pytest.raises(RecordingFailed) as caught:
            database.upgrade(connection)
        assert database.look(connection) == found
    engine.dispose()

    assert found.state == state
    assert str(caught.value) == f"the record database {found}"
    assert told in str(found)
    assert "database upgrade" not in str(found)
    for opened in (SqlAuditLog, SqlRecords):
        with pytest.raises(RecordingFailed, match="the record database"):
            opened(url, SEALING)


def test_an_earlier_revision_is_to_be_upgraded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By command, for other servers may be using it."""
    monkeypatch.setattr(database, "REVISION", "0004")

    with pytest.raises(RecordingFailed, match=r"0003\), and this version needs 0004: .* upgrade`"):
        SqlRecords(url, SEALING)


def first(connection: sa.Connection) -> None:
    """Leave the database as the first revision had it."""
    for table in SINCE_THE_FIRST:
        connection.execute(sa.text(f"DROP TABLE {table}"))
    connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))


@pytest.mark.parametrize("marked", [True, False])
def test_the_first_revision_is_upgraded_and_its_records_stay(any_url: str, marked: bool) -> None:  # noqa: FBT001 - a case
    """Also where nothing says that it is the first."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        log.append([made()]).result()
    engine = sa.create_engine(sa.make_url(any_url))
    with engine.begin() as connection:
        first(connection)
        if not marked:
            connection.execute(sa.text("DROP TABLE alembic_version"))
    with pytest.raises(RecordingFailed, match="database upgrade"):
        SqlAuditLog(any_url, SEALING)

    with engine.begin() as connection:
        state = database.look(connection).state
        database.upgrade(connection)
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
        assert database.look(connection) == ("current", database.REVISION)
    engine.dispose()

    assert state == ("earlier" if marked else "unmarked")
    assert differences == []
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        assert log.count() == 1


def test_tables_that_only_lack_the_mark_get_it(any_url: str) -> None:
    """On each kind of database: somebody restored them without it."""
    SqlAuditLog(any_url, SEALING).close()
    engine = sa.create_engine(sa.make_url(any_url))
    with engine.begin() as connection:
        before = connection.execute(sa.select(HEAD)).all()
        connection.execute(sa.text("DROP TABLE alembic_version"))
    with pytest.raises(RecordingFailed, match="run `credit-risk database upgrade`, which writes"):
        SqlAuditLog(any_url, SEALING)

    with engine.begin() as connection:
        assert database.look(connection) == ("unmarked", None)
        database.upgrade(connection)
        assert connection.execute(sa.select(HEAD)).all() == before
    engine.dispose()
    SqlAuditLog(any_url, SEALING).close()


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(url: str) -> None:
    """The chain that has begun goes on."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        before = connection.execute(sa.select(HEAD)).all()
        database.upgrade(connection)
        assert connection.execute(sa.select(HEAD)).all() == before
    engine.dispose()
