"""Windows: each decision is counted once, into its hour, by the package that made it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sqlalchemy as sa

from credit_risk import outcomes, windows
from credit_risk.audit import erasure, retention
from credit_risk.audit.keys import KEY_BYTES, Sealing
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.tables import POPULATIONS, RECORDS
from credit_risk.decisions import Call, new_id
from credit_risk.errors import Conflict, EvidenceInvalid
from credit_risk.windows import HOUR, Day, Hour, Known, Window, between, last
from tests import toys
from tests.audit.test_checkpoints import altered
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage

FIRST = NOON // HOUR * HOUR
WHOLE = Window(FIRST - 10 * HOUR, FIRST + 10 * HOUR)


class Counting:
    """A log of decisions, and who counts them."""

    def __init__(self, log: SqlAuditLog, *packages: ModelPackage) -> None:
        self.log = log
        self.known = {package.version: windows.known(package) for package in packages}
        self.package = packages[0]
        self.reference = self.known[self.package.version].reference

    def decide(self, number: int, start: int = NOON) -> list[Record]:
        """Put decisions on record, a second apart."""
        records = decided(self.package, toys.applications(number), start)
        self.log.append(records).result()
        return records

    def look(self, version: str) -> Known | None:
        """The packages that there are."""
        return self.known.get(version)

    def count(self) -> int:
        """Count all that was not counted yet; in how many batches."""
        number = 0
        while True:
            batch = windows.count(self.log, toys.NAME, self.look)
            self.log.append((), alongside=windows.keep(batch)).result()
            number += 1
            if batch.done:
                return number

    def hours(self, window: Window = WHOLE) -> list[Hour]:
        """What was counted."""
        return windows.hours(self.log, toys.NAME, self.package.version, window)

    def counted(self) -> int:
        """How many applicants are in the counts."""
        return self.reference.rows(windows.total(self.reference, self.hours()))


@pytest.fixture
def counting(tmp_path: Path, trees_package: ModelPackage) -> Iterator[Counting]:
    """A log in SQLite."""
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as log:
        yield Counting(log, trees_package)


def test_decisions_are_counted_by_hour_each_of_them_once(
    any_url: str, trees_package: ModelPackage
) -> None:
    """What is counted in two goes, and what comes late, is what would be counted in one."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        counting = Counting(log, trees_package)
        records = counting.decide(40) + counting.decide(30, NOON + HOUR)
        counting.count()
        assert counting.count() == 1
        late = counting.decide(20, NOON - 2 * HOUR) + counting.decide(10, NOON + 5)
        counting.count()

        made = [*records, *late]
        hours = counting.hours()
        assert [(hour.hour, hour.rows) for hour in hours] == [
            *((FIRST - 2 * HOUR, 20), (FIRST, 50), (FIRST + HOUR, 30))
        ]
        for hour in hours:
            of_hour = [r.decision for r in made if r.time // HOUR * HOUR == hour.hour]
            assert (hour.approved, hour.referred, hour.declined) == tuple(
                of_hour.count(name) for name in ("APPROVE", "REVIEW", "DECLINE")
            )
        rows = trees_package.schema.matrix([record.input for record in made])
        pds = [record.body["probability_of_default"] for record in made]
        there = windows.total(counting.reference, hours)
        assert (there.cells == counting.reference.count(rows, np.array(pds)).cells).all()
        assert counting.hours(Window(FIRST, FIRST + HOUR)) == hours[1:2]
        assert windows.versions(log, toys.NAME, WHOLE) == {trees_package.version: 100}
        assert windows.versions(log, toys.NAME, Window(FIRST + HOUR, FIRST + 2 * HOUR)) == {
            trees_package.version: 30
        }


def test_hours_add_up_to_days(any_url: str, trees_package: ModelPackage) -> None:
    """Of UTC, in order; a window cuts one where it begins or ends within it."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        counting = Counting(log, trees_package)
        midnight = NOON // (24 * HOUR) * 24 * HOUR
        made = counting.decide(20, midnight - 3_000_000) + counting.decide(10, midnight + 5 * HOUR)
        counting.count()

        whole = Window(midnight - 24 * HOUR, midnight + 24 * HOUR)
        found = windows.days(log, toys.NAME, trees_package.version, whole)
        before, after = made[:3], made[3:]
        assert found == [
            Day(
                day,
                len(records),
                *(sum(r.decision == d for r in records) for d in ("APPROVE", "REVIEW", "DECLINE")),
            )
            for day, records in ((midnight - 24 * HOUR, before), (midnight, after))
        ]
        late = Window(midnight + HOUR, midnight + 10 * HOUR)
        (cut,) = windows.days(log, toys.NAME, trees_package.version, late)
        assert (cut.day, cut.rows) == (midnight, 10)
        assert windows.days(log, toys.NAME, "0" * 12, whole) == []


def test_windows_apart_differ_by_as_many_as_nobody_is_told_by(counting: Counting) -> None:
    """Days go together until they are of so many; what is left at the end waits for more."""
    day, midnight = 24 * HOUR, NOON // (24 * HOUR) * (24 * HOUR)
    for number, rows in enumerate((40, 1, 0, 29, 35, 5)):
        counting.decide(rows, midnight + number * day + HOUR)
    counting.count()

    def apart(since: int, until: int) -> tuple[float, float]:
        window = Window(midnight + since * HOUR, midnight + until * HOUR)
        version = counting.package.version
        found = windows.apart(counting.log, toys.NAME, version, window)
        return (found.since - midnight) / day, (found.until - midnight) / day

    assert apart(-100, 1_000) == (0, 5)
    assert apart(2, 3) == apart(0, 24) == apart(0, 25) == apart(0, 72) == (0, 1)
    assert apart(0, 96) == apart(0, 73) == (0, 4)
    assert apart(24, 96) == (1, 4)
    assert apart(25, 119) == (1, 5)
    since, until = apart(48, 72)
    assert since == until
    since, until = apart(120, 1_000)
    assert since == until


def test_what_is_no_decision_of_the_portfolio_is_not_counted(counting: Counting) -> None:
    """Nor is it asked for again."""
    record = counting.decide(1)[0]
    others = [
        replace(record, id=new_id(), portfolio="tricycle-leases"),
        replace(record, id=new_id(), kind="refusal", decision=None),
    ]
    counting.log.append(others).result()

    assert counting.count() == 1
    assert counting.counted() == 1
    assert windows.count(counting.log, toys.NAME, counting.look).after == 3


def test_an_empty_log_has_nothing_to_count(counting: Counting) -> None:
    """And is done."""
    assert counting.count() == 1
    assert counting.hours() == []
    assert counting.counted() == 0


@pytest.mark.parametrize(("chunk", "most", "hours"), [(3, 100, 48), (100, 7, 48), (4, 100, 2)])
def test_batches_are_bounded_and_add_up(
    counting: Counting, monkeypatch: pytest.MonkeyPatch, chunk: int, most: int, hours: int
) -> None:
    """By records read, records in them, and hours in them."""
    for number in range(5):
        counting.decide(4, NOON + number * HOUR)
    counting.count()
    whole = counting.hours()
    counting.log.append((), alongside=windows.forget(toys.NAME)).result()
    assert counting.hours() == []
    monkeypatch.setattr(windows, "_CHUNK", chunk)
    monkeypatch.setattr(windows, "_RECORDS_MOST", most)
    monkeypatch.setattr(windows, "_HOURS_MOST", hours)

    batches = counting.count()

    assert counting.hours() == whole
    assert batches == (1 if chunk == 3 else 3)


def test_who_counts_at_the_same_time_as_another_is_second(counting: Counting) -> None:
    """Its batch is not written, whether anything was counted before or not."""
    for _ in range(2):
        counting.decide(5)
        batch = windows.count(counting.log, toys.NAME, counting.look)
        counting.count()
        before = counting.hours()

        with pytest.raises(Conflict, match="meanwhile"):
            counting.log.append((), alongside=windows.keep(batch)).result()
        assert counting.hours() == before


def test_what_cannot_be_read_is_a_decision_and_no_applicant(counting: Counting) -> None:
    """Erased, altered, or of a package that is not here."""
    records = counting.decide(10)
    log = counting.log
    erasure.erase(log, log, [records[0].id], by="c", reason="r", progress=lambda *_: None)
    ours = RECORDS.c.id == records[1].id
    altered(log, sa.update(RECORDS).where(ours).values(sealed=b"\0" * 40))
    log.append([replace(records[2], id=new_id(), model_version="0" * 12)]).result()
    counting.count()

    (hour,) = counting.hours()
    assert (hour.rows, counting.counted()) == (10, 8)
    (unknown,) = windows.hours(log, toys.NAME, "0" * 12, WHOLE)
    assert (unknown.rows, unknown.counts) == (1, None)
    log.append([replace(records[3], id=new_id(), model_version="0" * 12)]).result()
    counting.count()
    assert windows.versions(log, toys.NAME, WHOLE) == {
        "0" * 12: 2,
        counting.package.version: 10,
    }


def test_without_keys_nobody_is_counted(counting: Counting, tmp_path: Path) -> None:
    """That there were decisions is known all the same."""
    counting.decide(3)
    with closing(SqlRecords(f"sqlite:///{tmp_path / 'records.db'}", None)) as records:
        batch = windows.count(records, toys.NAME, counting.look)

    assert [(hour.rows, hour.counts) for hour in batch.hours] == [(3, None)]


def test_what_was_counted_is_sealed_as_the_applications_are(
    counting: Counting, tmp_path: Path
) -> None:
    """Of an hour with one applicant it is the application, for who has the profile."""
    counting.decide(1)
    counting.count()
    (hour,) = counting.hours()
    with counting.log.reading() as connection:
        (stored,) = connection.execute(sa.select(POPULATIONS.c.counts)).scalars()
    assert hour.counts is not None
    assert hour.counts not in stored

    url = f"sqlite:///{tmp_path / 'records.db'}"
    for sealing in (None, Sealing([b"o" * KEY_BYTES])):
        with closing(SqlRecords(url, sealing)) as records:
            (shut,) = windows.hours(records, toys.NAME, counting.package.version, WHOLE)
        assert shut == hour._replace(counts=None)


def test_counts_that_were_moved_to_another_hour_do_not_open(counting: Counting) -> None:
    """They are bound to theirs."""
    counting.decide(3)
    counting.count()
    altered(counting.log, sa.update(POPULATIONS).values(hour=FIRST + HOUR))

    with pytest.raises(EvidenceInvalid, match="cannot be opened"):
        counting.hours()


def test_who_is_erased_is_in_no_count_of_a_few(
    any_url: str, trees_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of those written, nor of those that were being made; counts of many stay."""
    monkeypatch.setattr(windows, "FEW", 5)
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        counting = Counting(log, trees_package)
        few, many = counting.decide(4), counting.decide(5, NOON + HOUR)
        counting.count()
        late = counting.decide(2, NOON + 2 * HOUR)
        stale = windows.count(log, toys.NAME, counting.look)
        gone = [few[0].id, many[0].id, late[0].id]
        erasure.erase(log, log, gone, by="c", reason="r", progress=lambda *_: None)

        with pytest.raises(Conflict, match="erased meanwhile"):
            log.append((), alongside=windows.keep(stale)).result()
        counting.count()
        found = [
            (
                hour.rows,
                hour.counts and counting.reference.rows(counting.reference.read(hour.counts)),
            )
            for hour in counting.hours()
        ]
        assert found == [(4, None), (5, 5), (2, 1)]


def test_retention_takes_what_was_counted_of_hours_that_are_over(counting: Counting) -> None:
    """So that outcomes that are gone are missed by nobody."""
    counting.decide(2, NOON - HOUR)
    counting.decide(3)
    counting.count()
    terms = retention.Terms(25, NOON)
    retention.take(counting.log, counting.log, terms, by="c", progress=lambda *_: None)

    assert [hour.rows for hour in counting.hours()] == [3]


def test_counts_of_another_grid_are_refused_until_all_is_counted_anew(
    counting: Counting,
) -> None:
    """As when the program counts otherwise than the one before it."""
    counting.decide(3)
    counting.count()
    other = b"another!" + counting.reference.empty.to_bytes()[8:]
    of = windows.context(toys.NAME, counting.package.version, FIRST)
    sealed = SEALING.seal_as_one(of, other)
    altered(counting.log, sa.update(POPULATIONS).values(counts=sealed))
    counting.decide(3)

    with pytest.raises(EvidenceInvalid):
        counting.count()
    with pytest.raises(EvidenceInvalid):
        counting.counted()
    counting.log.append((), alongside=windows.forget(toys.NAME)).result()
    counting.count()
    assert counting.counted() == 6


def test_records_are_read_by_their_place(counting: Counting) -> None:
    """By the index of a portfolio's decisions, each few thousand would read all of them."""
    told: list[str] = []
    with counting.log.reading() as connection:
        statement = windows._READ.compile(connection)  # noqa: SLF001 - what it is about
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {statement}", _values(statement.positiontup or ())
        )
        told += [row[3] for row in plan]

    assert told == ["SEARCH records USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]


def _values(names: Sequence[str]) -> tuple[object, ...]:
    return tuple({"after": 1, "upto": 9}.get(name, "") for name in names)


@pytest.mark.parametrize(
    ("period", "hours"), [("1h", 1), ("24h", 24), ("7d", 168), ("400d", 9_600), ("9600h", 9_600)]
)
def test_a_period_is_of_whole_hours_up_to_now(period: str, hours: int) -> None:
    """With the one that has begun."""
    window = last(period, FIRST + 1)

    assert window.until == FIRST + HOUR
    assert (window.until - window.since) // HOUR == hours + 1
    assert last(period, FIRST) == Window(FIRST - hours * HOUR, FIRST)


@pytest.mark.parametrize(
    "period", ["", "0d", "7", "d", "7w", "-1d", "401d", "9601h", "9999d", "7d\n", "\u0661d"]
)
def test_another_period_is_refused(period: str) -> None:
    """Also one that is too long."""
    with pytest.raises(ValueError, match="give a period"):
        last(period, NOON)


def test_a_window_ends_after_it_begins() -> None:
    """And holds the hours that its ends are in."""
    assert between(FIRST + 1, FIRST + 2) == Window(FIRST, FIRST + HOUR)
    with pytest.raises(ValueError, match="400 days at most"):
        between(FIRST, FIRST + 400 * 24 * HOUR + 1)
    for until in (FIRST, FIRST - 1):
        with pytest.raises(ValueError, match="not after"):
            between(FIRST, until)


def test_applicants_are_read_of_a_window_or_are_the_first(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evenly chosen where there are too many; the erased are left out."""
    records = counting.decide(6) + counting.decide(5, NOON + 2 * HOUR)
    schema, version = counting.package.schema, counting.package.version
    erasure.erase(
        counting.log, counting.log, [records[0].id], by="c", reason="r", progress=lambda *_: None
    )

    def read(window: Window | None, before: int | None = None) -> list[str]:
        of = (counting.log, schema, toys.NAME, version)
        rows = (
            windows.first_applicants(*of, before)
            if window is None
            else windows.applicants(*of, window)
        )
        return [str(row) for row in rows.tolist()]

    def given(some: Sequence[Record]) -> list[str]:
        return [str(row) for row in schema.matrix([record.input for record in some]).tolist()]

    assert read(WHOLE) == given(records[1:])
    assert read(Window(FIRST + 2 * HOUR, FIRST + 3 * HOUR)) == given(records[6:])
    assert read(Window(FIRST - HOUR, FIRST)) == []
    assert read(None, before=NOON + HOUR) == given(records[1:6])
    told = {"decision_id": records[1].id, "defaulted": False, "observed": "2023-11-15"}
    call = Call("/outcomes", "r", at=NOON + 1)
    outcomes.add(counting.log, toys.NAME, [told], call)
    monkeypatch.setattr(windows, "APPLICANTS_MOST", 4)
    assert read(None) == given(records[1:5])
    assert read(WHOLE) == given([records[i] for i in (1, 4, 7, 10)])
    monkeypatch.setattr(windows, "_SPARE", 1)
    assert 3 <= len(read(WHOLE)) <= 4
