"""The log of records in a SQL database: one chain, in which each holds the hash of the one before.

Callers hand over groups of records. One writer thread per process takes whatever is waiting and
commits it in one transaction, so concurrent requests share the cost of a commit; a group is
recorded whole or not at all. Reading uses connections of its own and never waits for writing.

The database is SQLite or PostgreSQL, as the SQLAlchemy URL says; what is their own is in
`credit_risk.audit.sqlite` and `credit_risk.audit.postgresql`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias, Unpack, cast

import pydantic_core
import sqlalchemy as sa
from sqlalchemy import exc

from credit_risk.audit import database, keys, sqlite
from credit_risk.audit.chain import Content, Form, form
from credit_risk.audit.merkle import HASH_BYTES
from credit_risk.audit.records import NO_TIME, Record
from credit_risk.audit.rows import COLUMNS, are_sound
from credit_risk.audit.tables import HEAD, RECORDS, REVIEWS
from credit_risk.errors import (
    Conflict,
    EvidenceInvalid,
    RecordExpired,
    RecordingFailed,
    RecordNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.records import Alongside, Filters, RecordKind, Withheld
    from credit_risk.settings import Settings

logger = logging.getLogger(__name__)

_C = RECORDS.c
# As they are there: SQLite keeps a text where bytes should be, and a type would trip over it.
_READ: list[sa.ColumnElement[Any]] = [
    sa.type_coerce(column, sa.types.NULLTYPE).label(column.name) for column in COLUMNS
]
# Taking the head's row keeps other writers out until the end of the transaction, where a database
# has a lock for each row, and one that has become read-only refuses it; SQLite's one lock is taken
# when the transaction begins.
_TAKE_HEAD = sa.select(HEAD.c.sequence, HEAD.c.hash).with_for_update()
_LAST = sa.select(sa.func.max(_C.sequence))
_SET_HEAD = sa.update(HEAD).values(sequence=sa.bindparam("to"), hash=sa.bindparam("of"))

# What drivers raise, whether SQLAlchemy wraps it or not.
_FAULTS = (exc.SQLAlchemyError, sqlite3.Error, OSError, ValueError, OverflowError)
# Errors in what was to be recorded, as PEP 249 has drivers name them, and SQLAlchemy after them:
# the neighbours in the transaction can do better.
_FAULTS_OF_A_GROUP = {
    *("IntegrityError", "DataError", "ProgrammingError"),
    *("Conflict", "ValueError", "OverflowError", "_UnforeseenError"),
}

_TURN_RECORDS = 64
"""Records made ready on an event loop before others there have their turn."""


_Value: TypeAlias = str | int | bytes | None
_Future: TypeAlias = "concurrent.futures.Future[None] | asyncio.Future[None]"


class _Entry(NamedTuple):
    """A record made ready: all but its place in the chain."""

    content: Content
    data_key: bytes | None
    form: Form


class _UnforeseenError(Exception):
    """What nobody knows to expect of a database: of one group, until its neighbours fail too."""


class LogObserver(Protocol):
    """Who counts commits. Called where records are written, so it must be quick and never fail."""

    def settled(self, seconds: Sequence[float], lost: int) -> None:
        """What some callers handed over is durable, after so long; so many others' is not."""


@dataclass(frozen=True, slots=True)
class _Group:
    """What one caller wants recorded, and who waits for it; ``loop`` is the future's, if any."""

    entries: list[_Entry]
    alongside: Alongside | None
    future: _Future
    loop: asyncio.AbstractEventLoop | None
    since: float = field(default_factory=time.perf_counter)


class SqlRecords:
    """The records of a SQL database, for reading alone: nothing there is made or changed.

    Args:
        url: SQLAlchemy URL.
        sealing: what opens personal data; without it they stay sealed.
        busy_timeout: how long to wait for another process's lock of a SQLite file, in seconds.

    Raises:
        RecordNotFound: there is no such SQLite file, or the database has no table of records.
        RecordingFailed: the database cannot be opened, or is of another revision.
    """

    _serves: ClassVar = False
    """Whether requests wait for what is asked."""

    def __init__(
        self, url: str | sa.URL, sealing: Sealing | None = None, *, busy_timeout: float = 5.0
    ) -> None:
        self._sealing = sealing
        self._sound_types: set[tuple[type, ...]] = set()
        with _opening():
            self._reading = engine_of(
                sa.make_url(url), busy_timeout, writes=False, serves=self._serves
            )
            with self._reading.connect() as connection:
                recorded = database.check(connection)
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
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        written: bool = False,
        **filters: Unpack[Filters],
    ) -> list[Record]:
        """See `Records.find`."""
        conditions = [*_conditions(filters), _C.body.is_not(None)]
        # No index has this sum: the few are found by their kind and sorted, and not the chain read.
        order = (_C.sequence + 0,) if written else (_C.time, _C.sequence)
        if before is not None:
            with self.reading() as connection:
                last = connection.execute(
                    sa.select(_C.time, _C.sequence).where(_C.id == before)
                ).one_or_none()
            if last is None:
                raise RecordNotFound(f"no record has the id {before}")
            if last.time is None:
                raise RecordExpired(f"record {before} was taken by retention")
            conditions.append(sa.tuple_(*order) < sa.tuple_(*last[-len(order) :]))
        statement = sa.select(*_READ).where(*conditions)
        newest_first = (column.desc() for column in order)
        found = self._rows(statement.order_by(*newest_first).limit(limit))
        return [self._on_page(row) for row in found]

    def count(self, **filters: Unpack[Filters]) -> int:
        """See `Records.count`."""
        conditions = [*_conditions(filters), _C.body.is_not(None)]
        statement = sa.select(sa.func.count()).select_from(RECORDS).where(*conditions)
        with self.reading() as connection:
            return connection.execute(statement).scalar_one()

    def latest(self, portfolio: str, kind: RecordKind) -> Record | None:
        """See `Records.latest`."""
        last = sa.select(sa.func.max(_C.sequence)).where(_C.portfolio == portfolio, _C.kind == kind)
        return self._one(_C.sequence == last.scalar_subquery())

    def close(self) -> None:
        """Let the database go."""
        self._reading.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that reads, for what is asked of the tables themselves.

        Raises:
            RecordingFailed: the database fails.
        """
        try:
            with self._reading.connect() as connection:
                yield connection
        except exc.SQLAlchemyError as error:
            raise RecordingFailed("the record database cannot be read") from error

    def _one(self, condition: sa.ColumnElement[bool]) -> Record | None:
        rows = self._rows(sa.select(*_READ).where(condition))
        return self._record(rows[0]) if rows else None

    def _rows(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        with self.reading() as connection:
            try:
                return connection.execute(statement).all()
            except exc.OperationalError as error:
                if "decode" not in str(error.orig).lower():
                    raise
                return database.as_stored(connection, statement)

    def _on_page(self, row: Sequence[Any]) -> Record:
        """The record of a row, or what is left to say of one that is none."""
        try:
            return self._record(row)
        except EvidenceInvalid as error:
            content: Any = Content._make(row[1:-3])
            # Names that are none are told all the same: who looks for the record has to find it.
            record_id, kind, portfolio = (
                one.decode(errors="replace") if isinstance(one, bytes) else str(one)
                for one in (content.id, content.kind, content.portfolio)
            )
            return Record(
                id=record_id,
                kind=cast("RecordKind", kind),
                time=content.time if type(content.time) is int else NO_TIME,
                portfolio=portfolio,
                request_id="",
                model_version=None,
                policy_version=None,
                decision=None,
                status=None,
                body={},
                altered=str(error).removeprefix(f"record {record_id}: "),
            )

    def _record(self, row: Sequence[Any]) -> Record:
        """The record of a row.

        Only its own hash is asked, which holds its content; whether it is the one that belongs
        into its place is what a verification finds.

        Raises:
            RecordExpired: retention has taken it.
            EvidenceInvalid: it is not as it was written.
        """
        content: Any = Content._make(row[1:-3])
        data_key, previous, own = row[-3:]
        if content.body is None:
            raise RecordExpired(f"record {content.id} was taken by retention")
        altered = f"record {content.id}: it is not as it was written"
        types = tuple(map(type, row))
        if types not in self._sound_types and not are_sound(types):
            raise EvidenceInvalid(altered)
        self._sound_types.add(types)
        try:
            fits = form(content).hash(previous) == own
            body = pydantic_core.from_json(content.body)
        except ValueError as error:  # no JSON, or no text at all
            raise EvidenceInvalid(altered) from error
        if not fits or not isinstance(body, dict):
            raise EvidenceInvalid(altered)
        personal = None
        withheld: Withheld | None = None
        if content.sealed is not None:
            if data_key is None:
                withheld = "erased"
            else:
                personal = self.opened(content.id, content.sealed, data_key)
                withheld = "sealed" if personal is None else None
        given = content._asdict() | {"body": body}
        del given["sealed"]
        return Record(**given, personal=personal, withheld=withheld)

    @property
    def sealing(self) -> Sealing | None:
        """What opens what is sealed beside the records, and seals it; None without keys."""
        return self._sealing

    def opened(self, record_id: str, sealed: bytes, data_key: bytes) -> dict[str, Any] | None:
        """What was sealed of a record; None where its reader has not the key.

        Raises:
            EvidenceInvalid: it was altered.
        """
        opened = self._sealing and self._sealing.open(record_id, sealed, data_key)
        if not opened:
            return None
        try:
            personal = pydantic_core.from_json(opened)
        except ValueError:
            personal = None
        if not isinstance(personal, dict):
            raise EvidenceInvalid(f"record {record_id}: the sealed data were altered")
        return personal


class SqlAuditLog(SqlRecords):
    """The audit log in a SQL database; several processes may share one.

    Make it in the process that uses it (threads do not survive a fork) and `close` it. Tables are
    made in an empty database, and so is the folder of a SQLite file. A database that fails later
    fails the records of that time; the first one after it is back succeeds.

    Reading raises `RecordingFailed` too when the database fails.

    Args:
        url: SQLAlchemy URL. SQLite in memory is refused.
        sealing: what seals personal data, and opens them.
        waiting_most: how many records may be on their way to a commit; further ones fail at once.
        batch_most: how many records share a commit, but a group is never split.
        busy_timeout: how long to wait for another process's commit to a SQLite file, in seconds.
        observer: who counts commits.

    Raises:
        RecordingFailed: the database cannot be opened or prepared.
    """

    _serves = True

    def __init__(
        self,
        url: str | sa.URL,
        sealing: Sealing,
        *,
        waiting_most: int = 20_000,
        batch_most: int = 1_000,
        busy_timeout: float = 5.0,
        observer: LogObserver | None = None,
    ) -> None:
        self._observer = observer
        self._waiting_most = waiting_most
        self._batch_most = batch_most
        with _opening():
            url = sa.make_url(url)
            preparing = engine_of(url, busy_timeout, writes=True, serves=False)
            try:
                with preparing.begin() as connection:
                    database.prepare(connection)
            finally:
                preparing.dispose()
            self._writing = engine_of(url, busy_timeout, writes=True, serves=True)
        super().__init__(url, sealing, busy_timeout=busy_timeout)
        self._seal = sealing.seal
        insert = sa.insert(RECORDS).inline()
        columns = [column.name for column in COLUMNS]
        self._insert = str(insert.compile(self._writing, column_keys=columns))
        review = ["decision_id", "portfolio", "time", "state", "version"]
        self._open_review = str(sa.insert(REVIEWS).compile(self._writing, column_keys=review))
        self._take_head = str(_TAKE_HEAD.compile(self._writing))
        self._set_head = str(_SET_HEAD.compile(self._writing))
        self._driver: Any = self._writing.dialect.loaded_dbapi
        self._faults = (*_FAULTS, Conflict, RecordingFailed, self._driver.Error)
        self._keeper = sqlite.LogKeeper(self._writing)
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False
        self._queue: SimpleQueue[list[_Group] | None] = SimpleQueue()
        self._together: dict[asyncio.AbstractEventLoop, list[_Group]] = {}
        self._writer = threading.Thread(target=self._write_all, name="audit-log", daemon=True)
        self._writer.start()

    def append(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> concurrent.futures.Future[None]:
        """See `AuditLog.append`."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        try:
            group = _Group(self._entries(records), alongside, future, None)
            self._admit(group)
            self._hand_over([group])
        except RecordingFailed as error:
            future.set_exception(error)
        return future

    async def record(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> None:
        """See `AuditLog.record`."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        entries: list[_Entry] = []
        for start in range(0, len(records), _TURN_RECORDS):
            if start:
                await asyncio.sleep(0)
            entries += self._entries(records[start : start + _TURN_RECORDS])
        group = _Group(entries, alongside, future, loop)
        self._admit(group)
        # What tasks record in the same turn of the loop is handed over at its end, as one: the
        # writer would else be woken by the first and commit it alone.
        together = self._together.setdefault(loop, [])
        if not together:
            loop.call_soon(lambda: self._hand_over(self._together.pop(loop)))
        together.append(group)
        await future

    def ping(self) -> concurrent.futures.Future[None]:
        """See `AuditLog.ping`."""
        return self.append(())

    def forget(self) -> bool:
        """See that the files of the database no longer hold what was taken out of it.

        Returns:
            Whether they do not. With PostgreSQL that is up to who runs it: False.

        Raises:
            RecordingFailed: the database fails.
        """
        if self._writing.dialect.name != "sqlite":
            return False
        try:
            return sqlite.empty_log(self._writing)
        except _FAULTS as error:
            raise RecordingFailed("the write-ahead log cannot be emptied") from error

    def close(self) -> None:
        """See `AuditLog.close`."""
        self._stop_accepting()
        self._writer.join()
        self._keeper.close()
        # Reading first: only a connection that may write can empty SQLite's log as the last one.
        super().close()
        self._writing.dispose()

    def _entries(self, records: Sequence[Record]) -> list[_Entry]:
        try:
            return [self._entry(record) for record in records]
        except ValueError as error:
            raise RecordingFailed("a record's body is not JSON") from error

    def _entry(self, record: Record) -> _Entry:
        sealed = data_key = None
        if record.personal is not None:
            sealed, data_key = self._seal(record.id, _to_json(record.personal))
        content = Content(
            record.id,
            record.kind,
            record.time,
            record.portfolio,
            record.request_id,
            record.model_version,
            record.policy_version,
            record.decision,
            record.status,
            record.about,
            _to_json(record.body).decode(),
            sealed,
        )
        return _Entry(content, data_key, form(content))

    @property
    def waiting(self) -> int:
        """How many records are on their way to a commit."""
        return self._waiting

    def _admit(self, group: _Group) -> None:
        with self._lock:
            if not self._closed and self._waiting < self._waiting_most:
                self._waiting += len(group.entries)
                return
        if self._observer is not None and group.entries:
            self._observer.settled((), 1)
        if self._closed:
            raise RecordingFailed("the audit log is closed")
        raise RecordingFailed(f"{self._waiting} records are waiting to be written")

    def _hand_over(self, groups: list[_Group]) -> None:
        with self._lock:
            if not self._closed:
                self._queue.put(groups)
                return
        self._settle([(group, RuntimeError("the audit log was closed")) for group in groups])

    def _stop_accepting(self) -> None:
        with self._lock:
            self._closed = True
            self._queue.put(None)

    def _write_all(self) -> None:
        batch: list[_Group] = []
        try:
            while batch := self._take():
                try:
                    self._write_batch(batch)
                except Exception:
                    # What became of the records is told by then; it is who counts that failed.
                    logger.exception("a commit could not be told of")
        finally:
            # Something is left only where the interpreter itself ends the thread, and with it the
            # log; but nobody waits for ever.
            self._stop_accepting()
            while (groups := self._queue.get()) is not None:
                batch += groups
            self._settle([(group, RuntimeError("the audit log has ended")) for group in batch])

    def _take(self) -> list[_Group]:
        """Wait for groups and take those behind them; nothing once closed and empty."""
        batch: list[_Group] = []
        size = 0
        while (groups := self._queue.get()) is not None:
            batch += groups
            size += sum(len(group.entries) for group in groups)
            if size >= self._batch_most or self._queue.empty():
                return batch
        self._queue.put(None)
        return batch

    def _behind(self) -> list[_Group]:
        """Take everybody who waits, without waiting."""
        behind: list[_Group] = []
        with suppress(Empty):
            while (groups := self._queue.get_nowait()) is not None:
                behind += groups
            self._queue.put(None)
        return behind

    def _write_batch(self, taken: list[_Group]) -> None:
        batch = [group for group in taken if not group.future.cancelled()]
        error = self._write(batch) if batch else None
        outcomes = [(group, error) for group in batch]
        if error is not None and not _is_outage(error) and len(batch) > 1:
            outcomes.clear()
            for group in batch:
                if not _is_outage(error):
                    error = self._write([group])
                outcomes.append((group, error))
        if _is_outage(error):
            # Who came meanwhile has waited already, and would wait as long again for the same.
            behind = self._behind()
            taken = taken + behind
            outcomes += [(group, error) for group in behind]
        with self._lock:
            self._waiting -= sum(len(group.entries) for group in taken)
        self._settle(outcomes)

    def _settle(self, outcomes: list[tuple[_Group, Exception | None]]) -> None:
        """Tell everybody who waits, and who counts."""
        _tell(outcomes)
        if self._observer is not None:
            now = time.perf_counter()
            recorded = [(group, error) for group, error in outcomes if group.entries]
            durable = [now - group.since for group, error in recorded if error is None]
            lost = sum(not isinstance(error, Conflict | None) for _, error in recorded)
            if recorded:
                self._observer.settled(durable, lost)

    def _write(self, groups: list[_Group]) -> Exception | None:
        """Commit the groups in one transaction; with nothing in them, see whether it could be."""
        hooks = [group.alongside for group in groups if group.alongside is not None]
        entries = [entry for group in groups for entry in group.entries]
        try:
            with self._writing.begin() as connection:
                if not entries and not hooks:
                    _probe(connection)
                    return None
                if entries:
                    self._chain(connection, entries)
                else:
                    # Taken all the same: two writers that took rows of other tables, in different
                    # order, would wait for each other.
                    with self._cursor(connection) as cursor:
                        cursor.execute(self._take_head)
                        _one_head(cursor.fetchall())
                for hook in hooks:
                    hook(connection)
        except self._faults as error:
            return error
        except Exception as error:
            # Whatever it was, the thread goes on: without it nothing is recorded any more.
            logger.exception("records could not be written")
            unforeseen = _UnforeseenError(type(error).__name__)
            unforeseen.__cause__ = error
            return unforeseen
        self._keeper.are_due()
        return None

    def _chain(self, connection: sa.Connection, entries: list[_Entry]) -> None:
        """Insert records behind the head of the chain, which the last of them becomes."""
        with self._cursor(connection) as cursor:
            cursor.execute(self._take_head)
            sequence, last = _one_head(cursor.fetchall())
            rows: list[tuple[_Value, ...]] = []
            for content, data_key, canonical in entries:
                sequence += 1
                before, last = last, canonical.hash(last)
                rows.append((sequence, *content, data_key, before, last))
            cursor.executemany(self._insert, rows)
            cursor.execute(self._set_head, (sequence, last))
            queue = [
                (content.id, content.portfolio, content.time, "open", 0)
                for content, _, _ in entries
                if content.decision == "REVIEW" and content.kind == "decision"
            ]
            if queue:
                cursor.executemany(self._open_review, queue)

    @contextmanager
    def _cursor(self, connection: sa.Connection) -> Iterator[Any]:
        """The driver's own cursor: a third of what a commit costs through SQLAlchemy.

        Where the driver can, it sends what is to be done without waiting for each answer: others
        wait for the lock meanwhile.
        """
        cursor = connection.connection.cursor()
        driven: Any = connection.connection.driver_connection
        pipeline = getattr(driven, "pipeline", nullcontext)
        try:
            with pipeline():
                yield cursor
        except self._driver.Error as error:
            if self._writing.dialect.is_disconnect(error, driven, cursor):
                connection.invalidate(error)
            raise
        cursor.close()


def open_log(
    settings: Settings, *, waiting_most: int = 20_000, observer: LogObserver | None = None
) -> SqlAuditLog:
    """The audit log of the settings, with their keys, which are made if there are none.

    Raises:
        RecordingFailed: see `SqlAuditLog`.
        KeysInvalid: see `credit_risk.audit.keys.sealing`.
    """
    sealing = keys.sealing(settings, make=True)
    return SqlAuditLog(settings.audit_url, sealing, waiting_most=waiting_most, observer=observer)


def open_records(settings: Settings) -> SqlRecords:
    """The records of the settings, opened with their keys if there are any.

    Raises:
        RecordNotFound: see `SqlRecords`.
        RecordingFailed: see `SqlRecords`.
        KeysInvalid: see `credit_risk.audit.keys.sealing`.
    """
    return SqlRecords(settings.audit_url, keys.sealing(settings))


def tables(settings: Settings) -> database.Found:
    """What tables the record database has, and whether they are this version's.

    Raises:
        RecordNotFound: there is no such SQLite file.
        RecordingFailed: the database cannot be opened.
    """
    with _opening(), _connected(settings, writes=False) as connection:
        return database.look(connection)


def upgrade(settings: Settings) -> tuple[str | None, str]:
    """Bring the record database up to date; its schema revisions before and after.

    Raises:
        RecordNotFound: there is no such SQLite file; the first server makes it.
        RecordingFailed: it cannot be opened or upgraded, and is as it was.
    """
    tables(settings)  # a file that is not there is not made
    with _opening(), _connected(settings, writes=True) as connection:
        database.alone(connection)
        before = database.look(connection).revision
        database.upgrade(connection)
    return before, database.REVISION


@contextmanager
def _connected(settings: Settings, *, writes: bool) -> Iterator[sa.Connection]:
    """A connection of its own to the database; in a transaction, where it writes."""
    engine = engine_of(settings.audit_url, 5.0, writes=writes, serves=False)
    try:
        with engine.begin() if writes else engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _opening() -> Iterator[None]:
    try:
        yield
    except (*_FAULTS, ImportError) as error:
        raise RecordingFailed(f"the record database cannot be opened: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What the driver said, in a line, without the statement."""
    said = str(error.orig if isinstance(error, exc.DBAPIError) else error)
    return said.partition("\n")[0]


def _probe(connection: sa.Connection) -> None:
    """See that records could be added to the chain.

    Raises:
        RecordingFailed: it has no head, or several, or one that was set back.
    """
    sequence, _ = _one_head(connection.execute(_TAKE_HEAD).all())
    # By itself: in one statement with the lock, PostgreSQL would look before it waits.
    last = connection.execute(_LAST).scalar_one()
    if last is not None and last > sequence:
        raise RecordingFailed(
            f"the head of the chain of records was set back to {sequence}: the last is {last}"
        )


def _one_head(rows: Sequence[Any]) -> tuple[int, bytes]:
    """The head of the chain, of all rows that there are of it.

    Raises:
        RecordingFailed: there is not one, as while a backup is put in, or it is none. Nobody may
            write behind it then, and on PostgreSQL nobody has the lock that it is.
    """
    if len(rows) != 1:
        raise RecordingFailed(f"the chain of records has {len(rows)} heads, and must have one")
    sequence, last = rows[0][:2]
    if type(sequence) is not int or type(last) is not bytes or len(last) != HASH_BYTES:
        raise RecordingFailed("the head of the chain of records is none that a server writes")
    return sequence, last


def _is_outage(error: Exception | None) -> bool:
    """Whether it is a fault of the database, which would meet others as well."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return error is not None and kinds.isdisjoint(_FAULTS_OF_A_GROUP)


def _tell(outcomes: list[tuple[_Group, Exception | None]]) -> None:
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
        elif isinstance(error, Conflict):
            future.set_exception(error)
        else:
            # Of an error in what was to be recorded, the driver may quote it.
            reason = f": {_reason(error)}" if _is_outage(error) else ""
            failed = RecordingFailed(f"the records could not be written{reason}")
            failed.__cause__ = error
            future.set_exception(failed)


def _to_json(value: object) -> bytes:
    return pydantic_core.to_json(value, inf_nan_mode="strings")


def _conditions(filters: Filters) -> list[sa.ColumnElement[bool]]:
    since, until = filters.get("since"), filters.get("until")
    given = (
        (_C.portfolio, filters.get("portfolio")),
        (_C.kind, filters.get("kind")),
        (_C.decision, filters.get("decision")),
        (_C.model_version, filters.get("model_version")),
        (_C.about, filters.get("about")),
    )
    conditions = [column == value for column, value in given if value is not None]
    if since is not None:
        conditions.append(_C.time >= since)
    if until is not None:
        conditions.append(_C.time < until)
    return conditions


def engine_of(url: sa.URL, busy_timeout: float, *, writes: bool, serves: bool) -> sa.Engine:
    """Connections to the database of a URL; see `sqlite.engine` and `postgresql.engine`.

    Raises:
        RecordingFailed: records go to no such database.
        RecordNotFound: there is no file to read.
    """
    if url.get_backend_name() == "sqlite":
        return sqlite.engine(url, busy_timeout, writes=writes)
    if url.get_backend_name() == "postgresql":
        # Here and not above: with SQLite no worker needs libpq, which is megabytes.
        from credit_risk.audit import postgresql  # noqa: PLC0415

        return postgresql.engine(url, writes=writes, serves=serves)
    raise RecordingFailed(f"records go to SQLite or PostgreSQL, not to {url.get_backend_name()}")
