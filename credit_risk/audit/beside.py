"""Writing to tables beside the chain, for who must not keep records waiting.

What is written there can be made anew from the records, so that a commit need not last by itself:
it does once the next record does, whose commit is fsynced. Nor is the head of the chain taken, so
that on PostgreSQL no record waits at all, and for SQLite's one lock no longer than it takes to
write.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from credit_risk.audit import log
from credit_risk.errors import RecordingFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_SECONDS = 5.0
"""How long to wait for the lock of a SQLite file."""


class Beside:
    """Transactions in tables beside the chain; `close` it.

    Args:
        url: SQLAlchemy URL of a database whose tables are there.

    Raises:
        RecordingFailed: records go to no such database.
    """

    def __init__(self, url: sa.URL) -> None:
        self._engine = log.engine_of(url, BUSY_SECONDS, writes=True, serves=True)
        event.listen(self._engine, "connect", self._lasts_with_the_next)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction.

        Raises:
            RecordingFailed: the database fails; nothing was written, as far as is known.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except (exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise RecordingFailed("the record database cannot be written") from error

    def close(self) -> None:
        """Let the database go."""
        self._engine.dispose()

    def _lasts_with_the_next(self, connection: Any, _record: object) -> None:  # noqa: ANN401 - of the driver
        if self._engine.dialect.name == "sqlite":
            connection.execute("PRAGMA synchronous = NORMAL")
        else:
            connection.execute("SET synchronous_commit TO off")
            connection.commit()
