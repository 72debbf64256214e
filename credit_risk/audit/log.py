"""The log of records in a SQL database.

Callers hand over groups of records. One writer thread per process takes whatever is waiting and
commits it in one transaction, so concurrent requests share the cost of a commit; a group is
recorded whole or not at all. Reading uses connections of its own and never waits for writing.

The database is SQLite or PostgreSQL, as the SQLAlchemy URL says; what is their own is in
`credit_risk.audit.sqlite` and `credit_risk.audit.postgresql`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sqlite3
import threading
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias, Unpack

import pydantic_core
import sqlalchemy as sa
from sqlalchemy import exc

from credit_risk.audit import sqlite
from credit_risk.audit.records import Record
from credit_risk.errors import RecordingFailed, RecordNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credit_risk.audit.records import Filters, RecordKind

_METADATA = sa.MetaData()
_RECORDS = sa.Table(
    "records",
    _METADATA,
    # The order of recording. SQLite numbers by itself only a column that is exactly INTEGER.
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
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

# What drivers raise, whether SQLAlchemy wraps it or not.
_FAULTS = (exc.SQLAlchemyError, sqlite3.Error, OSError, ValueError, OverflowError)
# Of these, errors in what was to be recorded: the neighbours in the transaction can do better.
_FAULTS_OF_A_GROUP = (
    exc.IntegrityError,
    exc.DataError,
    exc.ProgrammingError,
    ValueError,
    OverflowError,
)

_TURN_RECORDS = 64
"""Records made ready on an event loop before others there have their turn."""


_Row: TypeAlias = tuple[str | int | None, ...]
_Future: TypeAlias = "concurrent.futures.Future[None] | asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class _Group:
    """What one caller wants recorded, and who waits for it; ``loop`` is the future's, if any."""

    rows: list[_Row]
    future: _Future
    loop: asyncio.AbstractEventLoop | None


class SqlRecords:
    """The records of a SQL database, for reading alone: nothing there is made or changed.

    Args:
        url: SQLAlchemy URL.
        busy_timeout: how long to wait for another process's lock of a SQLite file, in seconds.

    Raises:
        RecordNotFound: there is no such SQLite file, or the database has no table of records.
        RecordingFailed: the database cannot be opened.
    """

    def __init__(self, url: str | sa.URL, *, busy_timeout: float = 5.0) -> None:
        with _opening():
            self._reading = _engine(sa.make_url(url), busy_timeout, writes=False)
            with self._reading.connect() as connection:
                recorded = sa.inspect(connection).has_table(_RECORDS.name)
        if not recorded:
            self._reading.dispose()
            raise RecordNotFound("no records yet: the record database is empty")

    def get(self, record_id: str) -> Record:
        """See `Records.get`."""
        record = self._one(_C.id == record_id)
        if record is None:
            raise RecordNotFound(f"no record has the id {record_id}")
        return record

    def find(
        self, *, limit: int = 50, before: str | None = None, **filters: Unpack[Filters]
    ) -> list[Record]:
        """See `Records.find`."""
        conditions = _conditions(filters)
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
            found = connection.execute(statement.order_by(*newest_first).limit(limit))
            return [_record(row) for row in found.mappings()]

    def count(self, **filters: Unpack[Filters]) -> int:
        """See `Records.count`."""
        conditions = _conditions(filters)
        statement = sa.select(sa.func.count()).select_from(_RECORDS).where(*conditions)
        with self._read() as connection:
            return connection.execute(statement).scalar_one()

    def latest(self, portfolio: str, kind: RecordKind) -> Record | None:
        """See `Records.latest`."""
        last = sa.select(sa.func.max(_C.sequence)).where(_C.portfolio == portfolio, _C.kind == kind)
        return self._one(_C.sequence == last.scalar_subquery())

    def close(self) -> None:
        """Let the database go."""
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
            found = connection.execute(sa.select(*_FIELDS).where(condition))
            row = found.mappings().one_or_none()
        return None if row is None else _record(row)


class SqlAuditLog(SqlRecords):
    """The audit log in a SQL database; several processes may share one.

    Make it in the process that uses it (threads do not survive a fork) and `close` it. The table
    is made if it is missing, and so is the folder of a SQLite file. A database that fails later
    fails the records of that time; the first one after it is back succeeds.

    Reading raises `RecordingFailed` too when the database fails.

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
        with _opening():
            self._writing = _engine(sa.make_url(url), busy_timeout, writes=True)
            with self._writing.begin() as connection:
                _METADATA.create_all(connection)
        super().__init__(url, busy_timeout=busy_timeout)
        # Compiled once, and run on plain tuples: half the cost of a record through `execute`.
        self._insert = str(
            sa.insert(_RECORDS)
            .inline()
            .compile(self._writing, column_keys=[column.name for column in _FIELDS])
        )
        self._checkpoints = sqlite.Checkpoints(self._writing)
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
            self._submit(_rows(records), future, None)
        except RecordingFailed as error:
            future.set_exception(error)
        return future

    async def record(self, records: Sequence[Record]) -> None:
        """See `AuditLog.record`."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        rows: list[_Row] = []
        for start in range(0, len(records), _TURN_RECORDS):
            if start:
                await asyncio.sleep(0)
            rows += _rows(records[start : start + _TURN_RECORDS])
        self._submit(rows, future, loop)
        await future

    def ping(self) -> concurrent.futures.Future[None]:
        """See `AuditLog.ping`."""
        return self.append(())

    def close(self) -> None:
        """See `AuditLog.close`."""
        self._stop_accepting()
        self._writer.join()
        self._checkpoints.close()
        # Reading first: only a connection that may write can empty SQLite's log as the last one.
        super().close()
        self._writing.dispose()

    def _submit(
        self,
        rows: list[_Row],
        future: _Future,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
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
        batch: list[_Group] = []
        try:
            while batch := self._take():
                self._write_batch(batch)
        finally:
            # Something is left only where a driver raised what no driver should. It ends the
            # thread, and with it the log, but nobody waits for ever.
            self._stop_accepting()
            while (group := self._queue.get()) is not None:
                batch.append(group)
            _settle([(group, RuntimeError("the audit log has ended")) for group in batch])

    def _take(self) -> list[_Group]:
        """Wait for a group and take those behind it; nothing once closed and empty."""
        batch: list[_Group] = []
        size = 0
        while (group := self._queue.get()) is not None:
            batch.append(group)
            size += len(group.rows)
            if size >= self._batch_most or self._queue.empty():
                return batch
        self._queue.put(None)
        return batch

    def _write_batch(self, taken: list[_Group]) -> None:
        batch = [group for group in taken if not group.future.cancelled()]
        rows = [row for group in batch for row in group.rows]
        error = self._write(rows) if batch else None
        if isinstance(error, _FAULTS_OF_A_GROUP) and len(batch) > 1:
            outcomes = [(group, self._write(group.rows)) for group in batch]
        else:
            outcomes = [(group, error) for group in batch]
        with self._lock:
            self._waiting -= sum(len(group.rows) for group in taken)
        _settle(outcomes)

    def _write(self, rows: list[_Row]) -> Exception | None:
        """Commit the rows in one transaction; without rows, see whether it could be done."""
        try:
            with self._writing.begin() as connection:
                if rows:
                    connection.exec_driver_sql(self._insert, rows)
                    self._checkpoints.are_due()
                else:
                    connection.execute(_PROBE)
        except _FAULTS as error:
            return error
        return None


@contextmanager
def _opening() -> Iterator[None]:
    try:
        yield
    except (*_FAULTS, ImportError) as error:
        reason = error.orig if isinstance(error, exc.DBAPIError) else error
        raise RecordingFailed(f"the record database cannot be opened: {reason}") from error


def _settle(outcomes: list[tuple[_Group, Exception | None]]) -> None:
    """Tell everybody who waits; a loop is woken once for all of its futures."""
    resolved: dict[asyncio.AbstractEventLoop | None, list[tuple[_Future, Exception | None]]]
    resolved = defaultdict(list)
    for group, error in outcomes:
        resolved[group.loop].append((group.future, error))
    for loop, futures in resolved.items():
        if loop is None:
            _resolve(futures)
        else:
            # A loop closed since then has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, futures)


def _resolve(futures: list[tuple[_Future, Exception | None]]) -> None:
    for future, error in futures:
        if future.done():  # its task was cancelled, or the log ended right after
            continue
        if error is None:
            future.set_result(None)
        else:
            failed = RecordingFailed("the records could not be written")
            failed.__cause__ = error
            future.set_exception(failed)


def _rows(records: Sequence[Record]) -> list[_Row]:
    try:
        return [_row(record) for record in records]
    except ValueError as error:
        raise RecordingFailed("a record's body is not JSON") from error


def _row(record: Record) -> _Row:
    return (
        record.id,
        record.kind,
        record.time,
        record.portfolio,
        record.request_id,
        record.model_version,
        record.policy_version,
        record.decision,
        record.status,
        pydantic_core.to_json(record.body, inf_nan_mode="strings").decode(),
    )


def _record(row: sa.RowMapping) -> Record:
    return Record(**{**row, "body": pydantic_core.from_json(row["body"])})


def _conditions(filters: Filters) -> list[sa.ColumnElement[bool]]:
    since, until = filters.get("since"), filters.get("until")
    given = (
        (_C.portfolio, filters.get("portfolio")),
        (_C.kind, filters.get("kind")),
        (_C.decision, filters.get("decision")),
        (_C.model_version, filters.get("model_version")),
    )
    conditions = [column == value for column, value in given if value is not None]
    if since is not None:
        conditions.append(_C.time >= since)
    if until is not None:
        conditions.append(_C.time < until)
    return conditions


def _engine(url: sa.URL, busy_timeout: float, *, writes: bool) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        return sqlite.engine(url, busy_timeout, writes=writes)
    if url.get_backend_name() == "postgresql":
        # Here and not above: with SQLite no worker needs libpq, which is megabytes.
        from credit_risk.audit import postgresql  # noqa: PLC0415

        return postgresql.engine(url, writes=writes)
    raise RecordingFailed(f"records go to SQLite or PostgreSQL, not to {url.get_backend_name()}")
