"""Writing beside the chain: whole or not at all, without the chain's lock, and told as a fault."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk.audit.beside import Beside
from credit_risk.audit.log import SqlAuditLog
from credit_risk.errors import RecordingFailed
from tests.sealing import SEALING

if TYPE_CHECKING:
    from loadtests.cluster import Cluster

INSERT = sa.text("INSERT INTO counted (portfolio, sequence) VALUES (:portfolio, 1)")
COUNT = sa.text("SELECT count(*) FROM counted")


def test_a_transaction_is_written_whole_or_not_at_all(any_url: str) -> None:
    """What fails in the middle leaves nothing, and what was raised is what comes out."""
    with closing(SqlAuditLog(any_url, SEALING)) as log, closing(made(any_url)) as beside:
        with beside.writing() as connection:
            connection.execute(INSERT, {"portfolio": "one"})
        with pytest.raises(ZeroDivisionError), beside.writing() as connection:  # noqa: PT012 - in it
            connection.execute(INSERT, {"portfolio": "two"})
            raise ZeroDivisionError
        with pytest.raises(RecordingFailed, match="cannot be written"), beside.writing() as again:
            again.execute(INSERT, {"portfolio": "one"})

        with log.reading() as connection:
            assert connection.execute(COUNT).scalar_one() == 1


def test_its_commits_need_not_last_and_those_of_records_do(any_url: str) -> None:
    """They are as quick as that allows."""
    asked = "PRAGMA synchronous" if any_url.startswith("sqlite") else "SHOW synchronous_commit"
    log = SqlAuditLog(any_url, SEALING)
    with closing(log), closing(made(any_url)) as beside, beside.writing() as connection:
        found = connection.execute(sa.text(asked)).scalar_one()

    assert found in {1, "off"}


def test_on_postgresql_no_record_waits_for_it(postgresql: Cluster, database: str) -> None:
    """A transaction that stands still beside the chain keeps nobody from writing to it."""
    url = postgresql.url(database)
    log = SqlAuditLog(url, SEALING)
    with closing(log), closing(made(url)) as beside, beside.writing() as connection:
        connection.execute(INSERT, {"portfolio": "one"})
        log.append((), alongside=lambda _: None).result(30)
        log.ping().result(30)


def made(url: str) -> Beside:
    """Beside the chain of that database."""
    return Beside(sa.make_url(url))
