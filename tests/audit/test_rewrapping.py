"""Data keys under a new key: what was sealed opens with it alone, and nothing else changes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from credit_risk import windows
from credit_risk.audit import rewrapping
from credit_risk.audit.keys import Sealing
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.rewrapping import Rewrapped, rewrap
from credit_risk.audit.tables import POPULATIONS, RECORDS
from tests.audit.test_log import made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Callable

NEW = bytes([7]) * 32
BOTH = Sealing([NEW, bytes(range(32))])


def rows(records: SqlRecords, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of all records, or all but the data key."""
    wanted = [c for c in RECORDS.c if (c.name in columns if columns else c.name != "data_key")]
    ordered = sa.select(*wanted).order_by(RECORDS.c.sequence)
    with records.reading() as connection:
        return [tuple(row) for row in connection.execute(ordered)]


def rewrapped(url: str, sealing: Sealing = BOTH) -> tuple[Rewrapped, list[int]]:
    """What came of it, and how far it told to be."""
    told: list[int] = []

    def progress(done: int, total: int | None) -> None:
        assert total is not None
        told.append(done)

    with closing(SqlRecords(url)) as records, closing(SqlAuditLog(url, sealing)) as log:
        return rewrap(records, log, sealing, progress), told


def test_the_old_key_is_needed_no_more(any_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in the chain stays as it was; what has no data key stays without."""
    monkeypatch.setattr(rewrapping, "RECORDS_AT_ONCE", 2)
    sealed = [made(personal={"input": {"age": age}}) for age in range(5)]
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        log.append([*sealed, made()]).result()
        before = rows(log)
    with closing(SqlAuditLog(any_url, BOTH)) as log:
        log.append([later := made(personal={"input": {"age": 9}})]).result()

    assert rewrapped(any_url) == (Rewrapped(5, 1, 0), [2, 4, 6])
    assert rewrapped(any_url) == (Rewrapped(0, 6, 0), [2, 4, 6])

    with closing(SqlRecords(any_url, Sealing([NEW]))) as records:
        assert [records.get(record.id) for record in (*sealed, later)] == [*sealed, later]
        assert rows(records)[:-1] == before


def test_what_was_counted_of_records_is_rewrapped_too(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hour by hour, some at a time."""
    monkeypatch.setattr(rewrapping, "HOURS_AT_ONCE", 2)
    hours = [("toy", "0" * 12, 1), ("toy", "0" * 12, 2), ("toy", "1" * 12, 1)]
    none = dict.fromkeys(("rows", "approved", "referred", "declined"), 0)

    def kept(connection: sa.Connection) -> None:
        for portfolio, version, hour in hours:
            row = {"portfolio": portfolio, "model_version": version, "hour": hour, **none}
            counts = SEALING.seal_as_one(windows.context(portfolio, version, hour), b"counts")
            connection.execute(sa.insert(POPULATIONS).values(counts=counts, **row))

    with closing(SqlAuditLog(any_url, SEALING)) as log:
        log.append((), alongside=kept).result()

    assert rewrapped(any_url) == (Rewrapped(3, 0, 0), [2, 3])
    with closing(SqlRecords(any_url, Sealing([NEW]))) as records:
        for portfolio, version, hour in hours[:2]:
            found = windows.hours(records, portfolio, version, windows.Window(hour, hour + 1))
            assert [one.counts for one in found] == [b"counts"]


def test_what_another_key_wraps_is_counted_and_left(any_url: str) -> None:
    """Whoever has that key can still open it."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        log.append([record := made(personal={"input": None})]).result()

    assert rewrapped(any_url, Sealing([NEW]))[0] == Rewrapped(0, 0, 1)

    with closing(SqlRecords(any_url, SEALING)) as records:
        assert records.get(record.id) == record


def test_what_is_erased_meanwhile_stays_erased(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data key that was read is not written back."""
    write: Callable[..., None] = rewrapping._write  # noqa: SLF001 - the moment between

    def erased_first(
        statement: sa.Update, new: list[dict[str, object]], connection: sa.Connection
    ) -> None:
        connection.execute(sa.update(RECORDS).values(data_key=None))
        write(statement, new, connection)

    with closing(SqlAuditLog(any_url, SEALING)) as log:
        log.append([made(personal={"input": {"age": 40}})]).result()
        monkeypatch.setattr(rewrapping, "_write", erased_first)

        rewrapped(any_url)

        assert rows(log, "data_key") == [(None,)]
