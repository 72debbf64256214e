"""The evidence: one record of every decision, refusal, failure and activation, durable when acknowledged.

Callers hand over groups of records. One writer thread per process takes whatever is waiting and
commits it in one transaction, so concurrent requests share the cost of a commit; a group is
recorded whole or not at all. Reading uses connections of its own and never waits for writing.

The database is whatever the SQLAlchemy URL names. Nothing here is SQLite's own but the settings
of its connections.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sqlite3
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import pydantic_core
import sqlalchemy as sa
from sqlalchemy import event, exc

from credit_risk.errors import RecordingFailed, RecordNotFound
from credit_risk.policy import DecisionName

if TYPE_CHECKING:
    from collections.abc import Sequence

RecordKind = Literal["decision", "refusal", "failure", "activation"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_METADATA = sa.MetaData()
_RECORDS = sa.Table(
    "records",
    _METADATA,
    # The order of recording. SQLite numbers by itself only a column that is exactly INTEGER.
    sa.Column(
        "sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True
    ),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("portfolio", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text),
    sa.Column("policy_version", sa.Text),
    sa.Column("decision", sa.Text),
    sa.Column("status", sa.Integer),
    # Text and not the database's JSON: what is read is byte for byte what was written.
    sa.Column("body", sa.Text, nullable=False),
    # Each serves one filter of `find` in the order `find` answers in.
    sa.Index("records_by_time", "time", "sequence"),
    sa.Index("records_by_portfolio", "portfolio", "time", "sequence"),
    sa.Index("records_by_kind", "portfolio", "kind", "time", "sequence"),
    sa.Index("records_by_decision", "portfolio", "decision", "time", "sequence"),
    sa.Index("records_by_model", "portfolio", "model_version", "time", "sequence"),
    # Never the number of a deleted record again.
    sqlite_autoincrement=True,
)
_C = _RECORDS.c
_FIELDS = [column for column in _RECORDS.columns if column is not _C.sequence]
_PROBE = sa.select(_C.sequence).limit(1)

# Errors in what was to be recorded, not in where: the neighbours in the transaction can do better.
_FAULTS_OF_A_GROUP = (
    exc.IntegrityError,
    exc.DataError,
    exc.ProgrammingError,
    ValueError,
    OverflowError,
)

_Row: TypeAlias = tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One thing the server did.

    ``id`` is a UUIDv7, ``time`` microseconds since 1970-01-01 UTC. ``status`` is what the caller
    was answered, as an HTTP status code; None where nobody asked. ``model_version`` and
    ``policy_version`` are None where none was involved, ``decision`` where none was reached.
    ``body`` is JSON: input, digests, PD, band, reasons, latency and so on. It comes back as
    written, but a tuple as a list, and NaN and the infinities, which JSON lacks, as strings.
    """

    id: str
    kind: RecordKind
    time: int
    portfolio: str
    request_id: str
    model_version: str | None
    policy_version: str | None
    decision: DecisionName | None
    status: int | None
    body: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object; its time in ISO 8601, UTC, to the microsecond."""
        time = _EPOCH + timedelta(microseconds=self.time)
        return {
            "id": self.id,
            "kind": self.kind,
            "time": time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "portfolio": self.portfolio,
            "request_id": self.request_id,
            "model_version": self.model_version,
            "policy_version": self.policy_version,
            "decision": self.decision,
            "status": self.status,
            "body": self.body,
        }


class AuditLog(Protocol):
    """Where evidence goes and is found again. Safe to call from any thread."""

    def append(self, records: Sequence[Record]) -> concurrent.futures.Future[None]:
        """Record all of ``records`` or none.

        The future's result comes when they are durable. Its exception is `RecordingFailed`, with
        the cause, when they are not known to be: nothing may be answered on them then. It cannot
        be cancelled: a caller who goes away does not take the evidence along.
        """
        ...

    async def record(self, records: Sequence[Record]) -> None:
        """`append` for callers on an event loop, at less cost: return when durable.

        Raises:
            RecordingFailed: as `append`.
        """
        ...

    def ping(self) -> concurrent.futures.Future[None]:
        """Go the way of an `append`, but write nothing. For readiness.

        The future's exception is `RecordingFailed` where that of an `append` would be.
        """
        ...

    def get(self, record_id: str) -> Record:
        """The record of that id.

        Raises:
            RecordNotFound: there is none.
        """
        ...

    def find(
        self,
        *,
        portfolio: str | None = None,
        kind: RecordKind | None = None,
        decision: DecisionName | None = None,
        model_version: str | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Record]:
        """The records that satisfy every filter given, newest first.

        Args:
            portfolio: of this portfolio; the other filters are fast together with it.
            kind: of this kind.
            decision: with this decision.
            model_version: made with this version.
            since: at this time or later, microseconds since the epoch.
            until: before this time, microseconds since the epoch.
            limit: at most so many.
            before: continue after the record of this id, the last of the page before.

        Raises:
            RecordNotFound: there is no record ``before``.
        """
        ...

    def count(
        self,
        *,
        portfolio: str | None = None,
        kind: RecordKind | None = None,
        decision: DecisionName | None = None,
        model_version: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> int:
        """How many records satisfy every filter given; they are those of `find`."""
        ...

    def latest(self, portfolio: str, kind: RecordKind) -> Record | None:
        """The record of that kind written last, whatever clocks said, or None."""
        ...

    def close(self) -> None:
        """Write what is waiting, then stop; what is appended later fails."""
        ...


@dataclass(frozen=True, slots=True)
class _Group:
    """What one caller wants recorded, and who waits for it; ``loop`` is the future's, if any."""

    rows: list[_Row]
    future: concurrent.futures.Future[None] | asyncio.Future[None]
    loop: asyncio.AbstractEventLoop | None


class SqlAuditLog:
    """The audit log in a SQL database; several processes may share one.

    Make it in the process that uses it (threads do not survive a fork) and `close` it. The table
    is made if it is missing, and so is the folder of a SQLite file. A database that fails later
    fails the records of that time; the first one after it is back succeeds.

    Reading raises SQLAlchemy's errors when the database fails.

    Args:
        url: SQLAlchemy URL. SQLite in memory is refused.
        waiting_most: how many records may be on their way to a commit; further ones fail at once.
        batch_most: how many records share a commit, but a group is never split.
        busy_timeout: how long to wait for another process's commit to a SQLite file, in seconds.

    Raises:
        RecordingFailed: the database cannot be opened or prepared.
    """

    def __init__(
        self,
        url: str | sa.URL,
        *,
        waiting_most: int = 20_000,
        batch_most: int = 1_000,
        busy_timeout: float = 5.0,
    ) -> None:
        self._waiting_most = waiting_most
        self._batch_most = batch_most
        try:
            url = _prepared(sa.make_url(url))
            self._writing = _engine(url, "BEGIN IMMEDIATE", busy_timeout)
            self._reading = _engine(url, "BEGIN", busy_timeout)
            with self._writing.begin() as connection:
                _METADATA.create_all(connection)
        except (exc.SQLAlchemyError, OSError) as error:
            msg = f"the record database cannot be opened: {type(error).__name__}"
            raise RecordingFailed(msg) from error
        # Compiled once, and run on plain tuples: half the cost of a record through `execute`.
        self._insert = str(
            sa.insert(_RECORDS).compile(
                dialect=self._writing.dialect, column_keys=[column.name for column in _FIELDS]
            )
        )
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False
        self._queue: SimpleQueue[_Group | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="audit-log", daemon=True)
        self._writer.start()

    def append(self, records: Sequence[Record]) -> concurrent.futures.Future[None]:
        """See `AuditLog.append`."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        try:
            self._submit(records, future, None)
        except RecordingFailed as error:
            future.set_exception(error)
        return future

    async def record(self, records: Sequence[Record]) -> None:
        """See `AuditLog.record`."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._submit(records, future, loop)
        await future

    def ping(self) -> concurrent.futures.Future[None]:
        """See `AuditLog.ping`."""
        return self.append(())

    def get(self, record_id: str) -> Record:
        """See `AuditLog.get`."""
        found = self._read(sa.select(*_FIELDS).where(_C.id == record_id))
        if not found:
            raise RecordNotFound(f"no record has the id {record_id}")
        return found[0]

    def find(
        self,
        *,
        portfolio: str | None = None,
        kind: RecordKind | None = None,
        decision: DecisionName | None = None,
        model_version: str | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Record]:
        """See `AuditLog.find`."""
        conditions = _conditions(portfolio, kind, decision, model_version, since, until)
        if before is not None:
            with self._read() as connection:
                last = connection.execute(
                    sa.select(_C.time, _C.sequence).where(_C.id == before)
                ).one_or_none()
            if last is None:
                raise RecordNotFound(f"no record has the id {before}")
            conditions.append(sa.tuple_(_C.time, _C.sequence) < sa.tuple_(*last))
        statement = sa.select(*_FIELDS).where(*conditions)
        newest_first = (_C.time.desc(), _C.sequence.desc())
        with self._read() as connection:
            rows = connection.execute(statement.order_by(*newest_first).limit(limit)).all()
        return [_record(row) for row in rows]

    def count(
        self,
        *,
        portfolio: str | None = None,
        kind: RecordKind | None = None,
        decision: DecisionName | None = None,
        model_version: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> int:
        """See `AuditLog.count`."""
        conditions = _conditions(portfolio, kind, decision, model_version, since, until)
        statement = sa.select(sa.func.count()).select_from(_RECORDS).where(*conditions)
        with self._read() as connection:
            return connection.execute(statement).scalar_one()

    def latest(self, portfolio: str, kind: RecordKind) -> Record | None:
        """See `AuditLog.latest`."""
        last = sa.select(sa.func.max(_C.sequence)).where(
            _C.portfolio == portfolio, _C.kind == kind
        )
        return self._one(_C.sequence == last.scalar_subquery())

    def close(self) -> None:
        """See `AuditLog.close`."""
        self._stop_accepting()
        self._writer.join()
        self._writing.dispose()
        self._reading.dispose()

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        try:
            with self._reading.connect() as connection:
                yield connection
        except exc.SQLAlchemyError as error:
            raise RecordingFailed("the record database cannot be read") from error

    def _one(self, condition: sa.ColumnElement[bool]) -> Record | None:
        with self._read() as connection:
            row = connection.execute(sa.select(*_FIELDS).where(condition)).one_or_none()
        return None if row is None else _record(row)

    def _submit(
        self,
        records: Sequence[Record],
        future: concurrent.futures.Future[None] | asyncio.Future[None],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        try:
            rows = [_row(record) for record in records]
        except ValueError as error:
            raise RecordingFailed("a record's body is not JSON") from error
        with self._lock:
            if self._closed:
                raise RecordingFailed("the audit log is closed")
            if self._waiting >= self._waiting_most:
                raise RecordingFailed(f"{self._waiting} records are waiting to be written")
            self._waiting += len(rows)
            self._queue.put(_Group(rows, future, loop))

    def _stop_accepting(self) -> None:
        with self._lock:
            self._closed = True
            self._queue.put(None)

    def _write_all(self) -> None:
        try:
            while batch := self._take():
                self._write_batch(batch)
        finally:
            # There is something left only if an error ends the thread that no driver should raise.
            self._stop_accepting()
            while (group := self._queue.get()) is not None:
                _settle([(group, RecordingFailed("the audit log has broken down"))])

    def _take(self) -> list[_Group]:
        """Wait for a group and take what is there with it; nothing once closed and empty."""
        batch: list[_Group] = []
        size = 0
        while (group := self._queue.get()) is not None:
            batch.append(group)
            size += len(group.rows)
            if size >= self._batch_most or self._queue.empty():
                return batch
        self._queue.put(None)
        return batch

    def _write_batch(self, batch: list[_Group]) -> None:
        errors: list[Exception | None] = [RuntimeError("the audit log has broken down")]
        ...
