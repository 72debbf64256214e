"""Verification: every kind of tampering is found, and named for what it is."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credit_risk.audit import keys, rollback, verification
from credit_risk.audit.chain import Content
from credit_risk.audit.checkpoints import Statement
from credit_risk.audit.keys import Sealing
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.verification import verify
from credit_risk.errors import RecordingFailed
from tests.audit.tampering import (
    INTRUDER,
    KEY,
    LONG_AGO,
    SIGNED,
    SIZE,
    Case,
    filled,
    flipped,
    lie,
)
from tests.audit.test_log import made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from pathlib import Path


def test_a_whole_log_is_whole(case: Case) -> None:
    """And the report says what was looked at."""
    shown: list[tuple[int, int]] = []
    report = case.report(
        case.checkpoint(2), sealing=SEALING, progress=lambda *done: shown.append(done)
    )
    found = report.to_json()
    log, since = found.pop("log"), found.pop("uncovered_since")
    assert found == {
        "whole": True,
        "records": SIZE,
        "taken_by_retention": 0,
        "erased": 0,
        "opened": SIZE,
        "unopened": {},
        "checkpoints": 3,
        "covered": SIGNED,
        "trusted_keys": [keys.key_id(KEY.public_key())],
        "signatures_checked": True,
        "anchors": 1,
        "found": 0,
        "findings": [],
        "queue": {"differences": 0, "cases": []},
        "outcomes": {"differences": None, "rows": []},
        "clocks": [],
        "notes": [],
    }
    assert log == Statement.read(case.checkpoint(1).statement).log
    assert since == case.log.get(case.ids[SIGNED]).to_json()["time"]
    assert shown == [(7, 20), (14, 20), (20, 20)]


def test_a_log_that_has_nothing_is_whole(tmp_path: Path) -> None:
    """There is a head, and it says so."""
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as log:
        assert verify(log.reading, []).to_json()["whole"] is True


@pytest.mark.parametrize("sequence", [1, 9, 20])
@pytest.mark.parametrize("column", [*Content._fields, "previous", "hash"])
def test_a_byte_changed_in_a_column_is_named(sqlite: Case, column: str, sequence: int) -> None:
    """With the place, and the id that the record has now."""
    before = sqlite.row(sequence)
    sqlite.set(sequence, **{column: flipped(before[column])})
    report = sqlite.report()

    changed = [finding for finding in report.findings if finding.kind == "changed"]
    (finding,) = changed
    assert finding[:4] == ("changed", sequence, sequence, sqlite.row(sequence)["id"])
    told = {"previous": "link", "hash": "its hash"}.get(column, "its content")
    assert told in finding.detail
    # A hash that was changed is under a checkpoint, too; nothing else is to be found.
    rest = {found.kind for found in report.findings} - {"changed"}
    assert rest == ({"rewritten"} if column == "hash" and sequence <= SIGNED else set())


@pytest.mark.parametrize("column", ["status", "about", "sealed", "body", "time", "id", "hash"])
def test_a_value_of_another_type_is_named(sqlite: Case, column: str) -> None:
    """SQLite takes anything anywhere."""
    value = {"hash": "'text'", "sealed": "'text'", "id": "x'3031'"}.get(column, "1.5")
    sqlite.do(sa.text("PRAGMA ignore_check_constraints = 1"))
    sqlite.do(sa.text(f"UPDATE records SET {column} = {value} WHERE sequence = 9"))  # noqa: S608
    assert ("changed", 9, 9) in sqlite.found()


def test_a_text_that_is_none_is_named(sqlite: Case) -> None:
    """A byte that no UTF-8 has; the driver would not even read it."""
    sqlite.do(sa.text("UPDATE records SET body = CAST(x'7bff7d' AS TEXT) WHERE sequence = 9"))
    assert sqlite.found() == {("changed", 9, 9)}


def test_sealed_data_that_do_not_open_are_named(case: Case) -> None:
    """With the keys at hand: the data key is the one thing that no hash covers."""
    key = case.row(5)["data_key"]
    case.set(5, data_key=key[:-1] + bytes([key[-1] ^ 1]))
    case.set(6, data_key=flipped(case.row(6)["data_key"]))
    assert case.found() == set()
    report = case.report(sealing=SEALING)
    assert [finding[:3] for finding in report.findings] == [("sealed", 5, 5), ("sealed", 6, 6)]
    assert "the name of the key" in report.findings[1].detail
    assert report.opened == SIZE - 2


def test_acknowledgements_are_told_and_have_to_be_signed(sqlite: Case) -> None:
    """Whoever reads the report learns that the log once went back."""
    rollback.acknowledge(sqlite.log, KEY, "toy", by="clerk", reason="restored")
    report = sqlite.report()
    assert report.whole
    assert f"record {SIZE + 1} acknowledges" in report.notes[0]
    rollback.acknowledge(sqlite.log, INTRUDER, "toy", by="clerk", reason="restored")
    assert sqlite.found() == {("unfounded", SIZE + 2, SIZE + 2)}
    assert sqlite.found(trusted=[]) == set()
    sqlite.rewrite(SIZE + 2, body="{")
    assert sqlite.found() == {("unfounded", SIZE + 2, SIZE + 2)}


def test_another_encryption_key_is_no_fault_of_the_records(sqlite: Case) -> None:
    """They are counted by the name of the key that they need."""
    report = sqlite.report(sealing=Sealing([bytes(32)]))
    assert report.whole
    assert report.opened == 0
    assert report.unopened == {SEALING.names[0]: SIZE}


def test_a_file_that_is_malformed_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a finding, for nothing can be found in it."""
    path = tmp_path / "records.db"
    with closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log:
        filled(log)
        log.append([made(body={"x": "y" * 50_000}) for _ in range(20)]).result()
    raw = bytearray(path.read_bytes())
    start = len(raw) // 2 // 4_096 * 4_096  # behind the tables that opening it needs
    raw[start:] = b"\xa5" * (len(raw) - start)
    path.write_bytes(raw)
    monkeypatch.setattr(verification, "_CHUNK", 7)
    with (
        closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log,
        pytest.raises(RecordingFailed, match="malformed"),
    ):
        verify(log.reading, [])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log to copy and spoil."""
    path = tmp_path_factory.mktemp("template") / "records.db"
    with closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log:
        filled(log)
    return path


COLUMNS = [name for name in Content._fields if name not in {"id", "sealed"}]
TAMPERING = (
    "DELETE FROM records WHERE sequence = :at",
    "DELETE FROM records WHERE sequence >= :at",
    "DELETE FROM records WHERE sequence <= :at",
    "UPDATE records SET sequence = sequence + 100 WHERE sequence = :at",
    "UPDATE records SET sequence = sequence + 100 WHERE sequence >= :at",
    "UPDATE records SET hash = randomblob(32) WHERE sequence = :at",
    "UPDATE records SET previous = randomblob(32) WHERE sequence = :at",
    "UPDATE records SET sealed = randomblob(9) WHERE sequence = :at",
    "UPDATE records SET data_key = NULL WHERE sequence = :at",
    (
        "UPDATE records SET (previous, hash) = (SELECT previous, hash FROM records "
        "WHERE sequence = :other) WHERE sequence = :at"
    ),
    (
        "INSERT INTO records SELECT 200, 'x', kind, time, portfolio, request_id, model_version, "
        "policy_version, decision, status, about, body, sealed, data_key, previous, hash "
        "FROM records WHERE sequence = :at"
    ),
    *(
        f"UPDATE records SET {name} = coalesce({name}, '') || '1' WHERE sequence = :at"  # noqa: S608
        for name in COLUMNS
    ),
)
PLACES = st.integers(1, SIZE)


@given(st.lists(st.tuples(st.sampled_from(TAMPERING), PLACES, PLACES), min_size=1, max_size=4))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_done_to_records_is_found(
    template: Path, tmp_path: Path, done: list[tuple[str, int, int]]
) -> None:
    """Several things at once, too; and nothing makes verification itself fail."""
    path = tmp_path / "records.db"
    path.write_bytes(template.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("SELECT * FROM records ORDER BY sequence").fetchall()
        for statement, at, other in done:
            with suppress(sqlite3.IntegrityError):
                connection.execute(statement, {"at": at, "other": other})
        connection.commit()
        after = connection.execute("SELECT * FROM records ORDER BY sequence").fetchall()
    with closing(SqlRecords(f"sqlite:///{path}")) as records:
        report = verify(records.reading, [KEY.public_key()])
    assert report.whole is (before == after)


def test_a_log_that_is_written_meanwhile_is_whole(case: Case) -> None:
    """Records that come after any query are no finding."""
    here = threading.current_thread()

    def come(*_: object) -> None:
        if threading.current_thread() is here:
            case.log.append([made()]).result()

    before = case.log.count()
    sa.event.listen(sa.Engine, "after_cursor_execute", come)
    try:
        report = case.report()
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", come)

    assert report.findings == []
    assert case.log.count() > before + 3


def test_times_that_cannot_be_right_are_told_of_a_log_that_is_whole(
    sqlite: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of the future, each run of them; clocks that differ by less than an hour are none."""
    then = LONG_AGO + SIZE * 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: 1_000 * then)
    hour = 3_600_000_000
    for at in (
        then,
        then + hour - 1,
        then + 2 * hour,
        then + 3 * hour,
        then + hour,
        then + 9 * hour,
    ):
        sqlite.log.append([made(time=at)]).result()

    report = sqlite.report()

    assert report.whole
    here = "in the future of this clock, 2020-01-01T00:00:20.000000Z"
    assert report.clocks == [
        f"records 23 to 24 were made up to 2020-01-01T03:00:20.000000Z, {here}",
        f"record 26 was made up to 2020-01-01T09:00:20.000000Z, {here}",
    ]
    monkeypatch.undo()
    assert sqlite.report().clocks == []


def test_an_index_that_lies_is_found(sqlite: Case) -> None:
    """What is looked up by it is not what the table holds, though every record is as written."""
    with sqlite.log.reading() as connection:
        path = connection.exec_driver_sql("PRAGMA database_list").one()[2]
    lie(
        path,
        "records_by_kind",
        "UPDATE records SET kind = 'hidden' WHERE sequence = 3",
        "UPDATE records SET kind = 'decision' WHERE sequence = 3",
    )
    with closing(SqlRecords(f"sqlite:///{path}", SEALING)) as records:
        found = verify(records.reading, [KEY.public_key()]).findings

    assert {finding.kind for finding in found} == {"database"}
    assert "records_by_kind" in found[0].detail
