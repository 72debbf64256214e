"""The audit log in real SQLite files and a real PostgreSQL, with processes, kills and locks."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest
import sqlalchemy as sa
import uuid_utils
from sqlalchemy import event, exc

from credit_risk.audit import postgresql
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.records import AuditLog, Filters, Record, every, pages
from credit_risk.errors import Conflict, EvidenceInvalid, RecordingFailed, RecordNotFound
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtests.cluster import Cluster

    Listen = Callable[[str, Callable[..., object]], None]

ROOT = Path(__file__).parents[2]
NOON = 1_800_000_000_000_000
"""A time of day, microseconds since the epoch."""

# Appends groups of three from several tasks and prints the ids of each group once acknowledged.
ACKNOWLEDGING = """
import asyncio, os, sys
from credit_risk.audit.log import SqlAuditLog
from tests.audit.test_log import made
from tests.sealing import SEALING

async def write(log):
    while True:
        group = [made(body={"of": 3}, request_id=f"{os.getpid()}") for _ in range(3)]
        await log.record(group)
        os.write(1, (" ".join(record.id for record in group) + "\\n").encode())

async def main():
    log = SqlAuditLog(sys.argv[1], SEALING)
    await asyncio.gather(*[write(log) for _ in range(8)])

asyncio.run(main())
"""

# Says it is ready and waits, so that all start at once; writes forty groups of five and ends.
WRITING = """
import asyncio, sys
from credit_risk.audit.log import SqlAuditLog
from tests.audit.test_log import made
from tests.sealing import SEALING

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    log = SqlAuditLog(sys.argv[1], SEALING)
    await asyncio.gather(*[log.record([made() for _ in range(5)]) for _ in range(40)])
    log.close()

asyncio.run(main())
"""


def made(**fields: object) -> Record:
    """A decision of now, with what the test changes."""
    usual = Record(
        id=str(uuid_utils.uuid7()),
        kind="decision",
        time=time.time_ns() // 1_000,
        portfolio="toy",
        request_id="request-1",
        model_version="model-1",
        policy_version="policy-1",
        decision="APPROVE",
        status=200,
        body={"pd": 0.125},
    )
    changed: dict[str, Any] = fields
    return replace(usual, **changed)


class Store(Protocol):
    """A database for the log, and what tests do to it from outside."""

    @property
    def url(self) -> str:
        """The log's URL."""
        ...

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock that every writer needs; the log has been opened before."""
        ...

    def run(self, statement: str) -> list[Any]:
        """Run a statement, over a connection of its own."""
        ...


@dataclass(frozen=True)
class File:
    """A `Store` that is an SQLite file."""

    path: Path

    @property
    def url(self) -> str:
        """The log's URL."""
        return f"sqlite:///{self.path}"

    def locked(self) -> AbstractContextManager[None]:
        """See `Store.locked`."""
        return write_locked(self.path)

    def run(self, statement: str) -> list[Any]:
        """See `Store.run`."""
        return run(self.path, statement)


@dataclass(frozen=True)
class Database:
    """A `Store` in PostgreSQL."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        """The log's URL."""
        return self.cluster.url(self.name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `Store.locked`."""
        with closing(self.cluster.connect(self.name)) as connection, connection.transaction():
            connection.execute("SELECT * FROM head FOR UPDATE")
            yield

    def run(self, statement: str) -> list[Any]:
        """See `Store.run`."""
        with closing(self.cluster.connect(self.name)) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []


@contextmanager
def write_locked(path: Path) -> Iterator[None]:
    """Hold the lock that every writer of the file needs."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def run(path: Path, statement: str) -> list[Any]:
    """Run a statement from outside, over a connection of its own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def started(script: str, url: str) -> subprocess.Popen[str]:
    """A process of its own, running the script on the database."""
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script, url],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


ON_SQLITE = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
"""For what is SQLite's own; `tests.audit.test_postgresql` has its counterpart."""


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Each kind of database in turn; a file is in a folder that nobody has made yet."""
    if request.param == "sqlite":
        return File(tmp_path / "state" / "records.db")
    # A busy machine is no reason to fail.
    monkeypatch.setattr(postgresql, "SERVING_SECONDS", 600.0)
    return Database(request.getfixturevalue("postgresql"), request.getfixturevalue("database"))


@pytest.fixture
def path(store: Store) -> Path:
    """Where the log's file is."""
    assert isinstance(store, File)
    return store.path


@pytest.fixture
def url(store: Store) -> str:
    """The log's URL."""
    return store.url


@pytest.fixture
def log(url: str) -> Iterator[AuditLog]:
    """An empty audit log."""
    with closing(SqlAuditLog(url, SEALING)) as opened:
        yield opened


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Listens to every engine until the test ends."""
    heard: list[tuple[str, Callable[..., object]]] = []

    def start(name: str, listener: Callable[..., object]) -> None:
        event.listen(sa.Engine, name, listener)
        heard.append((name, listener))

    yield start
    for name, listener in heard:
        event.remove(sa.Engine, name, listener)


@pytest.mark.parametrize(
    "record",
    [
        made(),
        made(kind="refusal", decision=None, status=422, model_version=None, policy_version=None),
        made(kind="failure", decision=None, status=500),
        made(kind="activation", decision=None, status=None, policy_version=None),
    ],
    ids=lambda record: record.kind,
)
def test_a_record_of_each_kind_is_read_as_it_was_written(log: AuditLog, record: Record) -> None:
    """Every field comes back, with None where there was None."""
    log.append([record]).result()
    assert log.get(record.id) == record


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "Überziehung, 残高, \U0001f3e6, \x00, \u2028, \"quoted\" and 'single'",
        0.1 + 0.2,
        5e-324,
        1.7976931348623157e308,
        -0.0,
        10**40,
        {"": [{}, [], [None, 1, 1.0]]},
    ],
    ids=repr,
)
def test_a_body_keeps_every_json_value(log: AuditLog, value: object) -> None:
    """Unicode, None, nesting, and each float and integer to its last digit."""
    record = made(body={"value": value})
    log.append([record]).result()
    assert repr(log.get(record.id).body) == repr(record.body)


def test_what_json_lacks_is_recorded_as_text(log: AuditLog) -> None:
    """A refusal for NaN still has evidence of what was sent."""
    record = made(body={"values": (math.nan, math.inf, -math.inf)})
    log.append([record]).result()
    assert log.get(record.id).body == {"values": ["NaN", "Infinity", "-Infinity"]}


def test_a_record_as_json_tells_its_time_in_utc() -> None:
    """All fields under their own names, the time to the microsecond."""
    record = made(time=NOON + 42)
    told = record.to_json()
    assert told.pop("time") == "2027-01-15T08:00:00.000042Z"
    assert told == {name: getattr(record, name) for name in told}
    assert len(told) == len(Record.__slots__) - len({"time", "altered"})


@ON_SQLITE
def test_commits_are_synced_to_disk_and_leave_readers_alone(
    log: AuditLog, path: Path, listen: Listen
) -> None:
    """The writing connection commits with synchronous=FULL, to a write-ahead log."""
    full = 2
    seen: list[int] = []

    def committing(connection: sa.Connection) -> None:
        seen.append(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    listen("commit", committing)
    log.append([made()]).result()
    assert seen == [full]
    assert run(path, "PRAGMA journal_mode") == [("wal",)]


def test_every_acknowledged_record_survives_a_kill(url: str, store: Store) -> None:
    """After each of three kills the file is sound, with all acknowledged ids and whole groups."""
    acknowledged: list[str] = []
    for _ in range(3):
        with started(ACKNOWLEDGING, url) as writer:
            assert writer.stdout is not None
            acknowledged += [next(writer.stdout) for _ in range(50)]
            writer.send_signal(signal.SIGKILL)
            acknowledged += [line for line in writer.stdout if line.endswith("\n")]
        assert writer.returncode == -signal.SIGKILL
    ids = " ".join(acknowledged).split()
    assert len(ids) >= 3 * 50 * 3
    if isinstance(store, File):
        assert store.run("PRAGMA integrity_check") == [("ok",)]
    with closing(SqlAuditLog(url, SEALING)) as log:
        assert {log.get(record_id).id for record_id in ids} == set(ids)
        assert log.count() % 3 == 0


def test_processes_may_share_one_file_from_its_first_moment(url: str) -> None:
    """Three processes that make and fill the log at once lose nothing and do not get stuck."""
    writers = [started(WRITING, url) for _ in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        with writer:
            pass
        assert writer.returncode == 0
    with closing(SqlAuditLog(url, SEALING)) as log:
        assert log.count() == 3 * 40 * 5


def test_concurrent_callers_share_a_commit(log: AuditLog, store: Store, listen: Listen) -> None:
    """Fifty groups that wait together need two commits: the first in hand, and the rest."""
    commits: list[sa.Connection] = []
    listen("commit", commits.append)
    with store.locked():
        waiting = [log.append([made()]) for _ in range(50)]
    for future in waiting:
        future.result()
    assert len(commits) <= 2
    assert log.count() == 50


class Settled:
    """How long each group took, and how many were lost."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.lost = 0

    def settled(self, seconds: Sequence[float], lost: int) -> None:
        """Note it."""
        self.seconds += seconds
        self.lost += lost


def test_who_counts_learns_what_became_of_each_group(url: str) -> None:
    """Of those with records: a look at the database, or a conflict, is neither durable nor lost."""
    settled = Settled()

    def conflict(_: sa.Connection) -> None:
        raise Conflict("somebody was first")

    with closing(SqlAuditLog(url, SEALING, observer=settled)) as log:
        futures = [log.append([made(), made()]), log.append([made()], alongside=conflict)]
        futures += [log.append([made(body={})]), log.ping()]
        for future in futures:
            future.exception()
        again = made()
        log.append([again]).result()
        with pytest.raises(RecordingFailed):
            log.append([again]).result()
        assert log.waiting == 0
    with pytest.raises(RecordingFailed, match="closed"):
        log.append([made()]).result()

    assert len(settled.seconds) == 3
    assert all(0 < seconds < 60 for seconds in settled.seconds)
    assert settled.lost == 2


def test_a_commit_is_bounded_but_never_splits_a_group(url: str, store: Store) -> None:
    """Single records share commits up to the bound; a larger group has one commit to itself."""
    sizes: list[int] = []

    class Counting(SqlAuditLog):
        def _chain(self, connection: sa.Connection, entries: list[Any]) -> None:
            sizes.append(len(entries))
            super()._chain(connection, entries)

    with closing(Counting(url, SEALING, batch_most=10)) as log:
        with store.locked():
            waiting = [log.append([made()]) for _ in range(50)]
            waiting.append(log.append([made() for _ in range(25)]))
        for future in waiting:
            future.result()
    assert sum(sizes[:-1]) == 50
    assert max(sizes[:-1]) == 10
    assert sizes[-1] == 25


def test_many_tasks_of_a_loop_are_answered(log: AuditLog) -> None:
    """Each task goes on once its own group is in the log."""

    async def write(number: int) -> bool:
        record = made(body={"number": number})
        await log.record([record])
        return await asyncio.to_thread(log.get, record.id) == record

    async def main() -> list[bool]:
        return await asyncio.gather(*[write(number) for number in range(64)])

    assert asyncio.run(main()) == [True] * 64


def test_a_batch_wakes_a_loop_once(log: AuditLog, store: Store) -> None:
    """Thirty tasks waiting for two commits cost two wake-ups, not thirty."""
    wakes: list[object] = []
    loop = asyncio.new_event_loop()
    wake = loop.call_soon_threadsafe

    def counted(*args: Any) -> asyncio.Handle:  # noqa: ANN401 - as the loop has it
        wakes.append(args)
        return wake(*args)

    loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]

    async def main() -> None:
        with store.locked():
            waiting = [asyncio.ensure_future(log.record([made()])) for _ in range(30)]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert 1 <= len(wakes) <= 2


def test_a_task_cancelled_during_its_commit_leaves_its_evidence(
    log: AuditLog, store: Store
) -> None:
    """What the writer has taken is written, and a loop that has ended harms no writer."""
    record = made()

    async def main() -> None:
        task = asyncio.ensure_future(log.record([record]))
        await asyncio.sleep(0.2)  # the writer has it, and waits for the lock
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with store.locked():
        asyncio.run(main())
    log.append([made()]).result()
    assert log.get(record.id) == record


def test_a_task_cancelled_before_its_commit_takes_its_records_back(
    log: AuditLog, store: Store
) -> None:
    """The loop lives on, and neither it nor the neighbours are disturbed."""
    first, abandoned, kept = made(), made(), made()
    disturbed: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, error: disturbed.append(error))
        with store.locked():
            log.append([first])
            await asyncio.sleep(0.2)  # the writer has it, and waits for the lock
            task = asyncio.ensure_future(log.record([abandoned]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wrap_future(log.append([kept]))

    asyncio.run(main())
    assert {record.id for record in log.find()} == {first.id, kept.id}
    assert not disturbed


def test_what_was_taken_back_leaves_its_place_to_others(store: Store) -> None:
    """It counts no longer among what waits."""
    with closing(SqlAuditLog(store.url, SEALING, waiting_most=2)) as log:

        async def main() -> None:
            with store.locked():
                log.append([made()])
                await asyncio.sleep(0.2)
                task = asyncio.ensure_future(log.record([made()]))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.sleep(0)

        asyncio.run(main())
        recorded = 0
        for _ in range(1_000):
            try:
                log.append([made(), made()]).result()
            except RecordingFailed:
                time.sleep(0.01)  # the writer is not there yet
            else:
                recorded += 2
            if recorded == 6:
                break
        assert log.count() == 1 + 6


def test_a_future_cannot_be_cancelled(log: AuditLog, store: Store) -> None:
    """What was handed over will be written."""
    with store.locked():
        future = log.append([made()])
        assert not future.cancel()
    future.result()
    assert log.count() == 1


def moved_away(store: Store) -> Callable[[], object]:
    """Move the file away; the result brings it back."""
    assert isinstance(store, File)
    path = store.path
    elsewhere = path.with_suffix(".away")
    path.rename(elsewhere)
    return lambda: elsewhere.replace(path)


def folder_replaced(store: Store) -> Callable[[], object]:
    """Put a file in the place of the folder; the result undoes it."""
    assert isinstance(store, File)
    path = store.path
    elsewhere = path.parent.with_suffix(".away")
    path.parent.rename(elsewhere)
    path.parent.write_text("not a folder")

    def undo() -> None:
        path.parent.unlink()
        elsewhere.rename(path.parent)

    return undo


def table_renamed(store: Store) -> Callable[[], object]:
    """Take the table away; the result brings it back."""
    store.run("ALTER TABLE records RENAME TO away")
    return lambda: store.run("ALTER TABLE away RENAME TO records")


@pytest.mark.parametrize(
    ("store", "harm"),
    [
        ("sqlite", moved_away),
        ("sqlite", folder_replaced),
        ("sqlite", table_renamed),
        ("postgresql", table_renamed),
    ],
    indirect=["store"],
)
def test_a_lost_database_fails_records_until_it_is_back(
    log: AuditLog, store: Store, harm: Callable[[Store], Callable[[], object]]
) -> None:
    """Writing, pinging and reading fail with a cause; afterwards all work with no restart."""
    before, during, after = made(), made(), made()
    log.append([before]).result()
    undo = harm(store)
    for future in (log.append([during]), log.ping()):
        error = future.exception()
        assert isinstance(error, RecordingFailed)
        assert isinstance(error.__cause__, (exc.SQLAlchemyError, sqlite3.Error, psycopg.Error))
    with pytest.raises(RecordingFailed):
        asyncio.run(log.record([during]))
    with pytest.raises(RecordingFailed):
        log.get(before.id)
    undo()
    log.ping().result()
    log.append([after]).result()
    assert [record.id for record in log.find()] == [after.id, before.id]


@ON_SQLITE
def test_a_lock_held_too_long_fails_and_passes(url: str, path: Path) -> None:
    """A process that sits on the file costs the records of that time, after the time-out."""
    with closing(SqlAuditLog(url, SEALING, busy_timeout=0.05)) as log:
        with write_locked(path):
            error = log.append([made()]).exception()
            assert isinstance(error, RecordingFailed)
            assert "locked" in str(error.__cause__)
        log.append([made()]).result()
        assert log.count() == 1


@ON_SQLITE
def test_who_came_during_a_fault_fails_with_it(url: str, path: Path, listen: Listen) -> None:
    """They have waited already; none of them waits as long again for an attempt of its own."""
    attempts: list[sa.Connection] = []
    with closing(SqlAuditLog(url, SEALING, busy_timeout=0.05, batch_most=1)) as log:
        listen("begin", attempts.append)
        with write_locked(path):
            waiting = [log.append([made()]) for _ in range(20)]
            for future in waiting:
                assert "database is locked" in str(future.exception())
        assert len(attempts) <= 2
        log.append([made()]).result()
        assert log.count() == 1


@ON_SQLITE
def test_closing_during_a_fault_ends_all_the_same(url: str, path: Path) -> None:
    """Those behind the fault and the end of the queue were taken together."""
    log = SqlAuditLog(url, SEALING, busy_timeout=0.2, batch_most=1)
    with write_locked(path):
        waiting = [log.append([made()]) for _ in range(3)]
        log.close()
    assert all(isinstance(future.exception(), RecordingFailed) for future in waiting)


def test_reading_does_not_wait_for_writing(log: AuditLog, store: Store) -> None:
    """While the file is locked for writing, what is in it can be read."""
    record = made()
    log.append([record]).result()
    with store.locked():
        waiting = log.append([made()])
        assert log.get(record.id) == record
        assert log.find() == [record]
        assert not waiting.done()
    waiting.result()


def test_an_error_tells_nothing_of_the_applicant(log: AuditLog, store: Store) -> None:
    """The cause, which may end in a log, has no values."""
    table_renamed(store)
    error = log.append([made(body={"income": 123_454_321})]).exception()
    assert error is not None
    assert "123454321" not in f"{error} {error.__cause__}"


TAKEN = str(uuid_utils.uuid7())


@pytest.mark.parametrize(
    "fault",
    [
        {"id": TAKEN},
        {"request_id": "\ud800"},
        {"time": 2**70},
        {"portfolio": None},
        {"portfolio": {"name": "toy"}},
    ],
    ids=["id taken", "not unicode", "time beyond 64 bits", "missing", "wrong type"],
)
def test_a_bad_group_fails_alone_and_whole(
    log: AuditLog, store: Store, fault: dict[str, Any]
) -> None:
    """Neighbours in the batch are recorded; of the bad group not even the good record is."""
    log.append([made(id=TAKEN)]).result()
    with store.locked():
        neighbours = [log.append([made()]) for _ in range(3)]
        bad = log.append([made(), made(**fault), made()])
        neighbours += [log.append([made(), made()]) for _ in range(3)]
    for future in neighbours:
        future.result()
    error = bad.exception()
    assert isinstance(error, RecordingFailed)
    assert error.__cause__ is not None
    assert log.count() == 1 + 3 + 6


def test_a_body_that_is_not_json_fails_at_once(log: AuditLog) -> None:
    """It never reaches the writer, and the cause is kept."""
    error = log.append([made(body={"value": object()})]).exception(timeout=0)
    assert isinstance(error, RecordingFailed)
    assert isinstance(error.__cause__, ValueError)


def test_a_full_queue_fails_at_once(url: str, store: Store) -> None:
    """What is beyond the bound is told so without waiting; what is within is still written."""
    with closing(SqlAuditLog(url, SEALING, waiting_most=3)) as log:
        with store.locked():
            accepted = [log.append([made(), made()]) for _ in range(2)]
            refused = [log.append([made()]), log.ping()]
            for future in refused:
                assert isinstance(future.exception(timeout=0), RecordingFailed)
            with pytest.raises(RecordingFailed, match="4 records are waiting"):
                asyncio.run(log.record([made()]))
        for future in accepted:
            future.result()
        log.append([made()]).result()
        assert log.count() == 5


def test_closing_writes_what_is_waiting(url: str, store: Store) -> None:
    """Nothing accepted is lost, nothing is accepted afterwards, and closing twice is harmless."""
    log = SqlAuditLog(url, SEALING)
    with store.locked():
        waiting = [log.append([made()]) for _ in range(20)]
        closing_thread = threading.Thread(target=log.close)
        closing_thread.start()
    closing_thread.join()
    assert all(future.done() and future.exception() is None for future in waiting)
    for future in (log.append([made()]), log.ping()):
        assert isinstance(future.exception(timeout=0), RecordingFailed)
    log.close()
    assert store.run("SELECT count(*) FROM records") == [(20,)]


def test_an_unforeseen_error_fails_its_group_and_nobody_else(
    url: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told to who waits and in the log; neighbours and those to come are recorded."""

    def broken(_: sa.Connection) -> None:
        raise LookupError

    with closing(SqlAuditLog(url, SEALING)) as log:
        with store.locked():
            neighbours = [log.append([made()])]
            bad = log.append([made()], alongside=broken)
            neighbours.append(log.append([made()]))
        error = bad.exception()
        assert isinstance(error, RecordingFailed)
        assert isinstance(error.__cause__.__cause__ if error.__cause__ else None, LookupError)
        for future in (*neighbours, log.append([made()]), log.ping()):
            future.result()
        assert log.count() == 3
    assert "records could not be written" in caplog.text


def test_who_counts_and_fails_ends_no_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The records are as durable as they were, and the next ones are written."""

    class Failing:
        def settled(self, seconds: Sequence[float], lost: int) -> None:
            raise LookupError(f"{seconds} and {lost}")

    with closing(SqlAuditLog(url, SEALING, observer=Failing())) as log:
        for _ in range(2):
            log.append([made()]).result()
        assert log.count() == 2
    assert "a commit could not be told of" in caplog.text


NO_HEAD = ("DELETE FROM head", "INSERT INTO head SELECT * FROM kept")


@pytest.mark.parametrize(
    ("harm", "undo", "told"),
    [
        (*NO_HEAD, "has 0 heads"),
        (
            "INSERT INTO head SELECT 'another', sequence, hash FROM head",
            "DELETE FROM head WHERE log = 'another'",
            "has 2 heads",
        ),
        (
            "UPDATE head SET hash = substr(hash, 2)",
            "UPDATE head SET hash = kept.hash FROM kept",
            "",
        ),
    ],
    ids=["none", "two", "cut short"],
)
def test_a_chain_without_its_head_fails_records_until_it_is_back(
    log: AuditLog, store: Store, harm: str, undo: str, told: str
) -> None:
    """As while a backup is put in: what goes behind the head waits for it, and needs no restart."""
    log.append([made()]).result()
    store.run("CREATE TABLE kept AS SELECT * FROM head")
    store.run(harm)
    for future in (
        log.append([made()]),
        log.append((), alongside=lambda _: None),
        log.ping(),
    ):
        error = future.exception()
        assert isinstance(error, RecordingFailed)
        assert "head" in str(error)
        assert told in str(error)
    store.run(undo)
    log.ping().result()
    log.append([made()]).result()
    assert log.count() == 2


def test_a_head_that_was_set_back_is_told_before_anything_is_recorded(
    log: AuditLog, store: Store
) -> None:
    """A record behind it would take the place of another; none does."""
    log.append([made(), made()]).result()
    store.run("UPDATE head SET sequence = 1")
    with pytest.raises(RecordingFailed, match="was set back to 1: the last is 2"):
        log.ping().result()
    with pytest.raises(RecordingFailed):
        log.append([made()]).result()
    store.run("UPDATE head SET sequence = 2")
    log.ping().result()
    assert log.count() == 2


def test_a_ping_writes_nothing(log: AuditLog) -> None:
    """It resolves, and the log is as empty as before."""
    log.ping().result()
    assert log.count() == 0


def test_an_unknown_id_is_not_found(log: AuditLog) -> None:
    """Whether it is asked for or continued from."""
    with pytest.raises(RecordNotFound):
        log.get("nobody's")
    with pytest.raises(RecordNotFound):
        log.find(before="nobody's")


VARIED = [
    made(time=NOON + 10),
    made(time=NOON + 20, decision="DECLINE"),
    made(time=NOON + 20, decision="DECLINE", model_version="model-2"),
    made(time=NOON + 30, kind="refusal", decision=None, status=422),
    made(time=NOON + 40, portfolio="other", decision="REVIEW"),
    made(time=NOON + 5, kind="activation", decision=None, model_version="model-2", status=None),
]
"""In order of recording; the last was slow to arrive."""


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [4, 3, 2, 1, 0, 5]),
        ({"portfolio": "toy"}, [3, 2, 1, 0, 5]),
        ({"portfolio": "other"}, [4]),
        ({"portfolio": "toy", "kind": "decision"}, [2, 1, 0]),
        ({"kind": "activation"}, [5]),
        ({"portfolio": "toy", "decision": "DECLINE"}, [2, 1]),
        ({"portfolio": "toy", "model_version": "model-2"}, [2, 5]),
        ({"decision": "DECLINE", "model_version": "model-2", "kind": "decision"}, [2]),
        ({"since": NOON + 20}, [4, 3, 2, 1]),
        ({"until": NOON + 20}, [0, 5]),
        ({"portfolio": "toy", "since": NOON + 10, "until": NOON + 30}, [2, 1, 0]),
        ({"portfolio": "nobody's"}, []),
        ({"portfolio": None, "kind": None, "since": None}, [4, 3, 2, 1, 0, 5]),
    ],
    ids=str,
)
def test_filters_are_combined_and_the_newest_comes_first(
    log: AuditLog, filters: Filters, expected: list[int]
) -> None:
    """Of equal times the one recorded later is newer; `count` counts what `find` finds."""
    log.append(VARIED).result()
    assert [VARIED.index(record) for record in log.find(**filters)] == expected
    assert log.count(**filters) == len(expected)


def test_pages_cover_every_record_once(log: AuditLog) -> None:
    """Each page continues where the last ended, also within one time and while others write."""
    records = [made(time=NOON + i // 4) for i in range(30)]
    log.append(records).result()
    found = log.find(portfolio="toy", limit=7)
    log.append([made(time=NOON + 1_000)]).result()
    while page := log.find(portfolio="toy", limit=7, before=found[-1].id):
        found += page
    assert found == records[::-1]


def test_the_latest_is_the_one_recorded_last(log: AuditLog) -> None:
    """Per portfolio and kind; a clock that was set back does not matter."""
    assert log.latest("toy", "activation") is None
    early, late = (made(kind="activation", time=NOON + t) for t in (60, 0))
    for record in (early, late, made(), made(kind="activation", portfolio="other")):
        log.append([record]).result()
    assert log.latest("toy", "activation") == late


FILTERED: list[Filters] = [
    {},
    {"kind": "decision"},
    {"decision": "DECLINE"},
    {"model_version": "model-1"},
    {"kind": "decision", "decision": "DECLINE", "model_version": "model-1"},
]
TIMES: list[Filters] = [{}, {"since": NOON}, {"until": NOON}, {"since": NOON, "until": NOON + 9}]


@ON_SQLITE
@pytest.mark.parametrize("paged", [False, True], ids=["first page", "next page"])
@pytest.mark.parametrize(("filtered", "times"), list(itertools.product(FILTERED, TIMES)), ids=str)
def test_a_page_of_a_portfolio_is_read_off_an_index(
    log: AuditLog, path: Path, listen: Listen, *, paged: bool, filtered: Filters, times: Filters
) -> None:
    """Whatever the filters, no table is scanned and nothing is sorted."""
    log.append(VARIED).result()
    before = VARIED[1].id if paged else None
    wanted: Filters = {"portfolio": "toy", **filtered, **times}
    plans = plans_of(path, listen, lambda: log.find(before=before, **wanted))
    assert len(plans) == 1 + paged
    assert all(step.startswith("SEARCH records USING INDEX") for plan in plans for step in plan)


@ON_SQLITE
@pytest.mark.parametrize(
    "ask",
    [
        lambda log: log.get(VARIED[0].id),
        lambda log: log.latest("toy", "activation"),
        lambda log: log.count(portfolio="toy", kind="decision", since=NOON),
    ],
    ids=["get", "latest", "count"],
)
def test_the_other_queries_search_an_index_too(
    log: AuditLog, path: Path, listen: Listen, ask: Callable[[AuditLog], object]
) -> None:
    """No table is scanned and nothing is sorted."""
    log.append(VARIED).result()
    (plan,) = plans_of(path, listen, lambda: ask(log))
    steps = [step for step in plan if not step.startswith("SCALAR SUBQUERY")]
    assert all(step.startswith("SEARCH records USING") for step in steps)


def plans_of(path: Path, listen: Listen, ask: Callable[[], object]) -> list[list[str]]:
    """The steps SQLite takes for each query that asking makes."""
    asked: list[tuple[Any, Any]] = []

    def executing(*details: object) -> None:
        asked.append((details[2], details[3]))

    listen("before_cursor_execute", executing)
    ask()
    selects = [query for query in asked if query[0].startswith("SELECT")]
    with closing(sqlite3.connect(path)) as connection:
        return [
            [step[-1] for step in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
            for text, values in selects
        ]


@ON_SQLITE
def test_the_number_of_a_deleted_record_is_not_used_again(log: AuditLog, path: Path) -> None:
    """A gap stays a gap, so that it can be seen."""
    log.append([made(), made()]).result()
    run(path, "DELETE FROM records WHERE sequence = 2")
    log.append([made()]).result()
    assert run(path, "SELECT sequence FROM records ORDER BY sequence") == [(1,), (3,)]


def test_a_log_outlives_its_process(url: str) -> None:
    """Opened again, it has what it had."""
    record = made()
    for _ in range(2):
        with closing(SqlAuditLog(url, SEALING)) as log:
            if log.count() == 0:
                log.append([record]).result()
            assert log.find() == [record]


def test_a_relative_path_is_that_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing the working directory later moves nothing."""
    monkeypatch.chdir(tmp_path)
    with closing(SqlAuditLog("sqlite:///here/records.db", SEALING)) as log:
        monkeypatch.chdir(os.sep)
        log.append([made()]).result()
    assert run(tmp_path / "here" / "records.db", "SELECT count(*) FROM records") == [(1,)]


# Reading alone


def test_who_only_reads_finds_what_is_recorded_meanwhile(log: AuditLog, url: str) -> None:
    """Every way of asking is that of the log itself."""
    before = made()
    log.append([before]).result()
    with closing(SqlRecords(url)) as records:
        after = made(kind="activation")
        log.append([after]).result()

        assert records.find() == log.find() == [after, before]
        assert records.get(before.id) == before
        assert records.latest("toy", "activation") == after
        assert records.count(kind="decision") == 1


@ON_SQLITE
def test_who_only_reads_cannot_change_anything(log: AuditLog, url: str) -> None:
    """SQLite itself refuses, whatever a later mistake of ours may ask of it."""
    log.append([made()]).result()
    with (
        closing(SqlRecords(url)) as records,
        records.reading() as connection,
        pytest.raises(exc.OperationalError, match="readonly"),
    ):
        connection.exec_driver_sql("DELETE FROM records")

    assert log.count() == 1


def test_records_of_a_server_that_was_killed_can_be_read(url: str, store: Store) -> None:
    """What it committed last is still in the write-ahead log."""
    with started(ACKNOWLEDGING, url) as process:
        assert process.stdout is not None
        acknowledged = process.stdout.readline().split()
        process.kill()
    if isinstance(store, File):
        assert store.path.with_name("records.db-wal").stat().st_size > 0

    with closing(SqlRecords(url)) as records:
        assert [records.get(one).id for one in acknowledged] == acknowledged


def test_reading_where_nothing_was_recorded_makes_nothing(tmp_path: Path) -> None:
    """Neither a folder nor a file nor a table in it; what is told names the file."""
    nowhere = tmp_path / "state" / "records.db"
    with pytest.raises(RecordNotFound, match=rf"no records yet: {nowhere} does not exist"):
        SqlRecords(f"sqlite:///{nowhere}")
    assert list(tmp_path.iterdir()) == []

    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(RecordNotFound, match="no records yet: the record database is empty"):
        SqlRecords(f"sqlite:///{empty}")
    assert list(tmp_path.iterdir()) == [empty]
    assert empty.stat().st_size == 0


@pytest.mark.parametrize("kind", [SqlAuditLog, SqlRecords])
@pytest.mark.parametrize(
    "name", ["a?mode=memory", "a#b", "100%25", "a b", "Büro-ü", "[a-z]*", "it's; DROP", "$HOME"]
)
def test_a_folder_of_any_name_has_records_of_its_own(
    tmp_path: Path, name: str, kind: type[SqlRecords]
) -> None:
    """Nothing in it is read as anything but a name."""
    folders = [tmp_path / name, tmp_path / name[:1]]
    for folder in folders:
        place = sa.URL.create("sqlite", database=f"{folder}/r.db")
        with closing(SqlAuditLog(place, SEALING)) as log:
            log.append([made(portfolio=folder.name)]).result()

    for folder in folders:
        place = sa.URL.create("sqlite", database=f"{folder}/r.db")
        with closing(kind(place, SEALING)) as records:
            assert [record.portfolio for record in records.find()] == [folder.name]
    assert {path.name for path in tmp_path.iterdir()} == {folder.name for folder in folders}


# Databases that are none


@pytest.mark.parametrize("memory", ["sqlite://", "sqlite:///:memory:"])
def test_records_in_memory_are_refused(memory: str) -> None:
    """They would be gone with the process."""
    with pytest.raises(RecordingFailed, match="memory"):
        SqlAuditLog(memory, SEALING)


@pytest.mark.parametrize("place", ["file/records.db", "folder.db", "text.db"])
def test_a_database_that_cannot_be_opened_is_said_so(tmp_path: Path, place: str) -> None:
    """A folder that is a file, a file that is a folder, a file of something else."""
    (tmp_path / "file").touch()
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "text.db").write_text("no database of any kind, just a sentence of some length")
    with pytest.raises(RecordingFailed, match="cannot be opened"):
        SqlAuditLog(f"sqlite:///{tmp_path / place}", SEALING)


@pytest.mark.parametrize("url", ["records.db", "postgresql+psycopg://nobody@127.0.0.1:1/nothing"])
def test_a_url_that_leads_nowhere_is_said_so(url: str) -> None:
    """It may be mistyped, the server down, or its driver not installed."""
    with pytest.raises(RecordingFailed, match="cannot be opened"):
        SqlAuditLog(url, SEALING)


def spoiled(path: Path, record_id: str, change: str) -> None:
    """Change a record's row, as nobody should; SQLite takes anything anywhere."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE records SET {change} WHERE id = ?", (record_id,))  # noqa: S608


ALTERED = {
    "probability": """body = '{"pd":0.126}'""",
    "no JSON": "body = '{'",
    "no object": "body = '[]'",
    "no text": "body = CAST(x'ff' AS TEXT)",
    "bytes": "body = CAST(body AS BLOB)",
    "time": "time = time + 1",
    "no time": "time = 'yesterday'",
    "year 300,000": "time = 9223372036854775807",
    "status": "status = 'fine'",
    "version": "model_version = x'00'",
    "sealed": "sealed = x'00'",
    "sealed text": "sealed = 'text'",
    "data key": "data_key = substr(data_key, 1, 20) || x'00'",
    "hash": "hash = 'hash'",
    "hash number": "hash = 7",
}


@ON_SQLITE
@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_a_record_that_was_altered_spoils_no_other(log: AuditLog, path: Path, change: str) -> None:
    """On a page it is marked, and nothing of it is told; alone it is refused."""
    records = [made(personal={"input": {"n": n}}) for n in range(3)]
    log.append(records).result()
    spoiled(path, records[1].id, change)

    found = {record.id: record for record in log.find()}

    assert [found.pop(record.id) for record in (records[0], records[2])] == [records[0], records[2]]
    (marked,) = found.values()
    assert marked.altered is not None
    assert (marked.id, marked.body, marked.personal) == (records[1].id, {}, None)
    json.dumps(marked.to_json())
    with pytest.raises(EvidenceInvalid, match=records[1].id):
        log.get(records[1].id)
    with pytest.raises(EvidenceInvalid, match=records[1].id):
        list(every(log))
    assert len([record for page in pages(log, size=1) for record in page]) == 3
