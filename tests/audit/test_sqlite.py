"""SQLite: checkpoints are made beside the commits, and the log stays of a size.

How commits last and locks are shared is tested where it is used, in `tests.audit.test_log`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import sqlalchemy as sa

from credit_risk.audit import sqlite
from credit_risk.audit.erasure import erase
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.retention import Terms, take
from credit_risk.audit.tables import RECORDS
from tests.audit.test_log import NOON, made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = 4_096


def log_size(path: Path) -> int:
    """Bytes of the write-ahead log."""
    return path.with_name(f"{path.name}-wal").stat().st_size


def in_the_database(path: Path) -> int:
    """How many records are in the file itself, without its log; 0 without their table."""
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        try:
            number: int = connection.execute("SELECT count(*) FROM records").fetchone()[0]
        except sqlite3.DatabaseError:  # it is as it was in the middle of a checkpoint
            return 0
    return number


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it comes true, given time."""
    for _ in range(2_000):
        if true():
            return True
        time.sleep(0.005)
    return False


def fill(log: SqlAuditLog, records: int) -> None:
    """Commit so many records, twenty at a time."""
    for _ in range(records // 20):
        log.append([made() for _ in range(20)]).result()


def test_no_commit_makes_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log grows past the 1,000 pages at which SQLite would, and the file has nothing yet."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_SECONDS", 3_600.0)
    path = tmp_path / "records.db"
    with closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log:
        fill(log, 3_000)
        assert log_size(path) > 1_200 * PAGE
        assert in_the_database(path) == 0
    assert in_the_database(path) == 3_000
    assert [*tmp_path.iterdir()] == [path]


def test_what_was_committed_comes_to_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the log is open, and again after more was committed."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_SECONDS", 0.02)
    path = tmp_path / "records.db"
    with closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log:
        for number in (20, 40):
            fill(log, 20)
            assert eventually(lambda number=number: in_the_database(path) == number)  # type: ignore[misc]


def test_the_log_stays_of_a_size_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is begun anew though two writers never pause."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_SECONDS", 0.02)
    monkeypatch.setattr(sqlite, "LOG_PAGES_MAX", 100)
    path = tmp_path / "records.db"
    sizes: list[int] = []
    with (
        closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as one,
        closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as other,
    ):
        beside = threading.Thread(target=fill, args=(other, 4_000))
        beside.start()
        for _ in range(40):
            fill(one, 100)
            sizes.append(log_size(path))
        beside.join()
        assert one.count() == 8_000
    # 8,000 records fill some 8,000 pages of a log that is never begun anew.
    assert max(sizes) < 4_000 * PAGE


def test_a_fault_is_told_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file goes and comes back; the checkpoint after that is made."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_SECONDS", 0.02)
    path, aside = tmp_path / "records.db", tmp_path / "aside.db"
    with closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log:
        fill(log, 20)
        assert eventually(lambda: in_the_database(path) == 20)
        path.rename(aside)
        log._keeper.are_due()  # noqa: SLF001 - as a commit does right before the loss
        assert eventually(lambda: "no checkpoint of the record database" in caplog.text)

        aside.rename(path)
        fill(log, 20)
        assert eventually(lambda: in_the_database(path) == 40)


def test_other_databases_make_their_own() -> None:
    """No thread is started for them."""
    before = threading.active_count()
    engine = SimpleNamespace(dialect=SimpleNamespace(name="postgresql"))
    keeper = sqlite.LogKeeper(cast("sa.Engine", engine))
    keeper.are_due()

    assert threading.active_count() == before
    keeper.close()


def everything(path: Path) -> bytes:
    """Every byte of the database's files."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def test_what_was_taken_out_is_in_no_file(tmp_path: Path) -> None:
    """No data key of what was erased, and nothing of what retention took, though others serve."""
    path = tmp_path / "records.db"
    url = f"sqlite:///{path}"
    records = [
        made(
            time=NOON - i,
            request_id=f"request-{i:04}",
            body={"text": f"body-{i:04}-" + "x" * (i % 700)},
            personal={"input": {"age": i}},
        )
        for i in range(2_000)
    ]
    with closing(SqlAuditLog(url, SEALING)) as log, closing(SqlAuditLog(url, SEALING)):
        for start in range(0, 2_000, 50):
            log.append(records[start : start + 50]).result()
        with log.reading() as connection:
            columns = (RECORDS.c.id, RECORDS.c.sealed, RECORDS.c.data_key)
            held = {row.id: row for row in connection.execute(sa.select(*columns))}
        erased, taken, kept = records[:1_500:3], records[1_500:], records[1]
        ids = [record.id for record in erased]
        erase(log, log, ids, by="me", reason="asked for", progress=lambda *_: None)
        before = max(record.time for record in taken) + 1
        take(log, log, Terms(25, before), by="me", progress=lambda *_: None)

        assert log.forget()

        left = everything(path)
        assert log_size(path) == 0
    assert held[kept.id].data_key in left
    assert b"body-0001" in left
    assert [r.id for r in erased + taken if held[r.id].data_key in left] == []
    assert [r.id for r in taken if held[r.id].sealed in left] == []
    assert [r.id for r in taken if r.body["text"].encode()[:9] in left] == []


def test_a_log_that_is_read_all_the_time_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and the next time it is."""
    monkeypatch.setattr(sqlite, "EMPTY_SECONDS", 0.05)
    path = tmp_path / "records.db"
    with (
        closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log,
        closing(sqlite3.connect(path, isolation_level=None)) as reader,
    ):
        fill(log, 20)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        assert not log.forget()
        reader.execute("COMMIT")
        assert log.forget()
