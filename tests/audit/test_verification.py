"""Verification: every kind of tampering is found, and named for what it is."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credit_risk.audit import checkpoints, erasure, keys, retention, verification
from credit_risk.audit.chain import GENESIS, Content, form
from credit_risk.audit.checkpoints import Checkpoint, Statement
from credit_risk.audit.log import SqlAuditLog, SqlRecords
from credit_risk.audit.tables import CHECKPOINTS, HEAD, RECORDS
from credit_risk.audit.verification import Finding, Report, verify
from credit_risk.errors import RecordingFailed
from tests.audit.test_checkpoints import KEY, altered
from tests.audit.test_log import made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.audit.records import Record

    Found = set[tuple[str, int | None, int | None]]

R, C = RECORDS.c, CHECKPOINTS.c
SIZE, SIGNED = 20, 18
"""Records in the log; checkpoints are over 1 to 6, 7 to 12 and 13 to 18."""
INTRUDER = Ed25519PrivateKey.from_private_bytes(bytes(32))


@dataclass
class Case:
    """A log to tamper with."""

    log: SqlAuditLog
    ids: list[str]

    def do(self, *statements: sa.Executable) -> None:
        """Change the database as nobody should."""
        altered(self.log, *statements)

    def set(self, sequence: int, **values: object) -> None:
        """Change columns of a record."""
        self.do(sa.update(RECORDS).where(R.sequence == sequence).values(**values))

    def row(self, sequence: int) -> dict[str, Any]:
        """A record's row."""
        with self.log.reading() as connection:
            found = connection.execute(sa.select(RECORDS).where(R.sequence == sequence)).one()
            return found._asdict()

    def move(self, start: int, end: int, by: int) -> None:
        """Number records anew."""
        aside = 1_000_000
        span = R.sequence.between(start, end)
        self.do(
            sa.update(RECORDS).where(span).values(sequence=R.sequence + aside),
            sa.update(RECORDS).where(R.sequence > aside).values(sequence=R.sequence - aside + by),
        )

    def rewrite(self, start: int, **values: object) -> None:
        """Change a record, and make all hashes from there on anew, the head's too."""
        end = self.head()[0]
        previous = self.row(start - 1)["hash"] if start > 1 else GENESIS
        for sequence in range(start, end + 1):
            row = self.row(sequence) | (values if sequence == start else {})
            own = form(Content(*(row[name] for name in Content._fields))).hash(previous)
            changed = values if sequence == start else {}
            self.set(sequence, **changed, previous=previous, hash=own)
            previous = own
        self.do(sa.update(HEAD).values(hash=previous))

    def head(self) -> tuple[int, bytes]:
        """Number and hash of the head."""
        with self.log.reading() as connection:
            row = connection.execute(sa.select(HEAD.c.sequence, HEAD.c.hash)).one()
            return row.sequence, row.hash

    def checkpoint(self, number: int) -> Checkpoint:
        """A checkpoint."""
        with self.log.reading() as connection:
            row = connection.execute(sa.select(CHECKPOINTS).where(C.number == number)).one()
            return Checkpoint(*row)

    def resign(self, number: int, key: Ed25519PrivateKey, **changed: Any) -> None:  # noqa: ANN401 - of any field
        """State something else, under a signature of that key."""
        now = self.checkpoint(number)
        statement = Statement.read(now.statement)._replace(**changed)
        text = statement.text()
        self.do(
            sa.update(CHECKPOINTS)
            .where(C.number == number)
            .values(
                statement=text,
                signature=key.sign(text.encode()),
                key_id=keys.key_id(key.public_key()),
            )
        )

    def report(self, *anchors: Checkpoint, **how: Any) -> Report:  # noqa: ANN401 - passed on
        """What verification finds."""
        trusted = how.pop("trusted", [KEY.public_key()])
        return verify(self.log.reading, trusted, anchors=anchors, **how)

    def found(self, *anchors: Checkpoint, **how: Any) -> Found:  # noqa: ANN401 - passed on
        """Kind and place of everything found."""
        return {finding[:3] for finding in self.report(*anchors, **how).findings}


@pytest.fixture(params=["sqlite", "postgresql"])
def case(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    """A log on each kind of database, with three checkpoints."""
    monkeypatch.setattr(verification, "_CHUNK", 7)
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'records.db'}"
    else:
        name = request.getfixturevalue("database")
        url = request.getfixturevalue("postgresql").url(name)
    with closing(SqlAuditLog(url, SEALING)) as log:
        yield filled(log)


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """The same on SQLite only."""
    monkeypatch.setattr(verification, "_CHUNK", 7)
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as log:
        yield filled(log)


def filled(log: SqlAuditLog) -> Case:
    """Twenty records, eighteen of them under a checkpoint."""
    records = [made(personal={"input": {"n": n}}) for n in range(SIZE)]
    for start in range(0, SIGNED, 6):
        log.append(records[start : start + 6]).result()
        assert checkpoints.sign(log, KEY) is not None
    log.append(records[SIGNED:]).result()
    return Case(log, [record.id for record in records])


def flipped(value: object) -> object:
    """The value with one bit changed."""
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        return chr(ord(value[0]) ^ 1) + value[1:]
    if isinstance(value, int):
        return value ^ 1
    return "x"


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
        "checkpoints": 3,
        "covered": SIGNED,
        "trusted_keys": [keys.key_id(KEY.public_key())],
        "anchors": 1,
        "found": 0,
        "findings": [],
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


@pytest.mark.parametrize(
    ("first", "last"), [(1, 1), (1, 3), (5, 5), (6, 7), (11, 14), (20, 20), (15, 20)]
)
def test_records_removed_are_named(sqlite: Case, first: int, last: int) -> None:
    """At the beginning, in the middle and at the end, which the head remembers."""
    sqlite.do(sa.delete(RECORDS).where(R.sequence.between(first, last)))
    report = sqlite.report()
    assert report.findings[0][:3] == ("removed", first, last)
    assert {finding.kind for finding in report.findings} <= {"removed", "rewritten"}


def test_several_gaps_are_named_each(sqlite: Case) -> None:
    """None hides another."""
    sqlite.do(sa.delete(RECORDS).where(R.sequence.in_([3, 4, 9, 16])))
    assert {("removed", 3, 4), ("removed", 9, 9), ("removed", 16, 16)} <= sqlite.found()


def test_a_record_removed_and_the_rest_numbered_anew_is_named(case: Case) -> None:
    """By the record that was behind it."""
    behind = case.row(10)["id"]
    case.do(sa.delete(RECORDS).where(R.sequence == 9))
    case.move(10, SIZE, -1)
    case.do(sa.update(HEAD).values(sequence=SIZE - 1))
    report = case.report()
    assert report.findings[0][:4] == ("removed", 9, 9, behind)


def test_a_tail_cut_off_with_the_head_set_back_is_named(case: Case) -> None:
    """The last checkpoint knows more."""
    case.do(
        sa.delete(RECORDS).where(R.sequence > 16),
        sa.update(HEAD).values(sequence=16, hash=case.row(16)["hash"]),
    )
    assert case.found() == {("removed", 17, 18)}


def test_all_records_removed_are_named(case: Case) -> None:
    """The head remembers how many."""
    case.do(sa.delete(RECORDS))
    assert ("removed", 1, SIZE) in case.found()


def forged(case: Case, sequence: int, previous: bytes) -> dict[str, Any]:
    """A row that is right in itself, behind a record of that hash."""
    row = case.row(10) | {"sequence": sequence, "id": made().id, "previous": previous}
    row["hash"] = form(Content(*(row[name] for name in Content._fields))).hash(previous)
    return row


@pytest.mark.parametrize("at", [1, 5, 7, 20])
def test_a_record_put_in_is_named(sqlite: Case, at: int) -> None:
    """Though it is linked to the one before, and the rest is numbered anew."""
    previous = sqlite.row(at - 1)["hash"] if at > 1 else GENESIS
    row = forged(sqlite, at, previous)
    sqlite.move(at, SIZE, 1)
    sqlite.do(sa.insert(RECORDS).values(**row), sa.update(HEAD).values(sequence=SIZE + 1))
    report = sqlite.report()
    assert report.findings[0][:4] == ("inserted", at, at, row["id"])
    assert {finding.kind for finding in report.findings} <= {"inserted", "rewritten"}


def test_a_record_put_in_without_a_link_is_named(sqlite: Case) -> None:
    """It follows nothing."""
    row = forged(sqlite, 5, b"x" * 32)
    sqlite.move(5, SIZE, 1)
    sqlite.do(sa.insert(RECORDS).values(**row), sa.update(HEAD).values(sequence=SIZE + 1))
    assert sqlite.report().findings[0][:4] == ("inserted", 5, 5, row["id"])


def test_a_record_put_behind_the_head_is_named(case: Case) -> None:
    """Who put it there did not go through the server."""
    row = forged(case, SIZE + 1, case.row(SIZE)["hash"])
    case.do(sa.insert(RECORDS).values(**row))
    assert case.found() == {("head", SIZE + 1, SIZE + 1)}


def test_a_copy_of_a_record_is_named(sqlite: Case) -> None:
    """As put in, and as one whose content has another id than its hash."""
    row = sqlite.row(7) | {"sequence": SIZE + 1, "id": made().id}
    sqlite.do(sa.insert(RECORDS).values(**row))
    found = sqlite.found()
    assert ("inserted", SIZE + 1, SIZE + 1) in found
    assert ("changed", SIZE + 1, SIZE + 1) in found


@pytest.mark.parametrize(("one", "other"), [(5, 6), (1, 20), (5, 9), (8, 15)])
def test_records_that_changed_places_are_named(sqlite: Case, one: int, other: int) -> None:
    """Each with the place that it was written at."""
    sqlite.move(one, one, 100)
    sqlite.move(other, other, one - other)
    sqlite.move(one + 100, one + 100, other - one - 100)
    report = sqlite.report()
    assert [finding[:4] for finding in report.findings if finding.kind == "reordered"] == [
        ("reordered", other, other, sqlite.ids[one - 1]),
        ("reordered", one, one, sqlite.ids[other - 1]),
    ]
    assert f"written as {one}" in report.findings[0].detail
    assert {finding.kind for finding in report.findings} <= {"reordered", "rewritten", "head"}


def test_a_record_moved_to_the_end_is_named(sqlite: Case) -> None:
    """It is not missing where it was, but stands elsewhere."""
    sqlite.move(5, 5, 100)
    report = sqlite.report()
    assert report.findings[0][:4] == ("reordered", 105, 105, sqlite.ids[4])
    assert not [finding for finding in report.findings if finding.kind == "removed"]


@pytest.mark.parametrize("sequence", [1, 5, 12, 16])
def test_a_record_rewritten_with_its_hash_is_named(case: Case, sequence: int) -> None:
    """The one behind it holds the hash of what was there."""
    row = case.row(sequence) | {"decision": "DECLINE"}
    own = form(Content(*(row[name] for name in Content._fields))).hash(row["previous"])
    case.set(sequence, decision="DECLINE", hash=own)
    report = case.report()
    assert report.findings[0][:4] == ("changed", sequence, sequence, case.ids[sequence - 1])
    assert "hash made anew" in report.findings[0].detail


def test_the_last_record_rewritten_with_its_hash_is_named(sqlite: Case) -> None:
    """The head holds the hash of what was there."""
    row = sqlite.row(SIZE) | {"decision": "DECLINE"}
    own = form(Content(*(row[name] for name in Content._fields))).hash(row["previous"])
    sqlite.set(SIZE, decision="DECLINE", hash=own)
    report = sqlite.report()
    assert [finding[:3] for finding in report.findings] == [("head", None, None)]
    assert f"record {SIZE}" in report.findings[0].detail


@pytest.mark.parametrize(("start", "first"), [(1, 1), (5, 1), (9, 7), (18, 13)])
def test_a_chain_rewritten_with_all_its_hashes_is_named(case: Case, start: int, first: int) -> None:
    """No link is wrong, but the checkpoints were signed for other records."""
    case.rewrite(start, decision="DECLINE", body='{"a":2}')
    report = case.report()
    assert [finding[:3] for finding in report.findings] == [("rewritten", first, SIGNED)]
    assert case.report().covered == first - 1


def test_what_is_under_no_checkpoint_yet_can_be_rewritten_but_not_behind_an_anchor(
    sqlite: Case,
) -> None:
    """Until the next checkpoint, a chain is only as good as its database."""
    sqlite.rewrite(20, decision="DECLINE")
    assert sqlite.found() == set()
    assert sqlite.report().uncovered_since is not None


def test_one_who_has_the_key_too_is_found_by_an_anchor(case: Case) -> None:
    """Records rewritten, checkpoints signed anew: only what was kept elsewhere tells."""
    anchor = case.checkpoint(2)
    case.rewrite(5, decision="DECLINE")
    case.do(sa.delete(CHECKPOINTS))
    while checkpoints.sign(case.log, KEY):
        pass
    assert case.found() == set()
    report = case.report(anchor)
    assert [finding[:3] for finding in report.findings] == [("anchor", None, None)]
    assert "records up to 12 are not those" in report.findings[0].detail


def test_a_log_cut_off_before_an_anchor_is_found_by_it(sqlite: Case) -> None:
    """With the head set back and the last checkpoint taken away, nothing else tells."""
    anchor = sqlite.checkpoint(3)
    sqlite.do(
        sa.delete(RECORDS).where(R.sequence > 12),
        sa.delete(CHECKPOINTS).where(C.number == 3),
        sa.update(HEAD).values(sequence=12, hash=sqlite.row(12)["hash"]),
    )
    assert sqlite.found() == set()
    (finding,) = sqlite.report(anchor).findings
    assert "record 18, the last one under it, is not there" in finding.detail


def test_an_anchor_of_a_checkpoint_that_is_gone_is_told(sqlite: Case) -> None:
    """Though all its records are there."""
    anchor = sqlite.checkpoint(3)
    sqlite.do(sa.delete(CHECKPOINTS).where(C.number == 3))
    assert sqlite.found() == set()
    (finding,) = sqlite.report(anchor).findings
    assert "the checkpoint of that number on record is another" in finding.detail


def test_an_anchor_has_to_be_signed_and_of_this_log(sqlite: Case) -> None:
    """Anything else is no anchor."""
    anchor = sqlite.checkpoint(3)
    (unsigned,) = sqlite.report(anchor._replace(signature=b"x" * 64)).findings
    assert "not signed with a trusted key" in unsigned.detail
    text = Statement.read(anchor.statement)._replace(log="other").text()
    other = anchor._replace(statement=text, signature=KEY.sign(text.encode()))
    (foreign,) = sqlite.report(other).findings
    assert "another log" in foreign.detail


@pytest.mark.parametrize("column", ["statement", "signature", "key_id", "first", "last"])
def test_a_byte_changed_in_a_checkpoint_is_named(sqlite: Case, column: str) -> None:
    """By its number."""
    value = getattr(sqlite.checkpoint(2), column)
    changed = value + 100 if isinstance(value, int) else flipped(value)
    sqlite.do(sa.update(CHECKPOINTS).where(C.number == 2).values({column: changed}))
    assert ("checkpoint", 2, 2) in sqlite.found()
    assert {kind for kind, _, _ in sqlite.found()} == {"checkpoint"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"log": "other"}, "another log"),
        ({"previous": "ab" * 32}, "does not follow"),
        ({"checkpoint": 9}, "statement is of checkpoint 9"),
        ({"root": "ab" * 32}, "not all as they were"),
    ],
)
def test_a_checkpoint_that_states_something_else_is_named(
    sqlite: Case, changed: dict[str, Any], told: str
) -> None:
    """Even one with a good signature."""
    sqlite.resign(3, KEY, **changed)
    (finding,) = sqlite.report().findings
    assert told in finding.detail


def test_a_checkpoint_replaced_by_somebody_elses_is_named(sqlite: Case) -> None:
    """Its signature is good, of a key that is not trusted; trusted too, it would be fine."""
    sqlite.resign(3, INTRUDER)
    (finding,) = sqlite.report().findings
    assert finding[:3] == ("checkpoint", 3, 3)
    assert "not trusted" in finding.detail
    both = [KEY.public_key(), INTRUDER.public_key()]
    assert sqlite.found(trusted=both) == set()


@pytest.mark.parametrize("number", [1, 2])
def test_a_checkpoint_removed_is_named(sqlite: Case, number: int) -> None:
    """With the records that are under none."""
    sqlite.do(sa.delete(CHECKPOINTS).where(C.number == number))
    (finding,) = sqlite.report().findings
    assert finding[:3] == ("checkpoint", number, number)
    assert f"records {number * 6 - 5} to {number * 6} are under none" in finding.detail


def test_checkpoints_that_changed_places_are_named(sqlite: Case) -> None:
    """Both."""
    one, other = sqlite.checkpoint(1), sqlite.checkpoint(2)
    sqlite.do(
        sa.delete(CHECKPOINTS).where(C.number < 3),
        sa.insert(CHECKPOINTS).values(other._replace(number=1)._asdict()),
        sa.insert(CHECKPOINTS).values(one._replace(number=2)._asdict()),
    )
    assert {("checkpoint", 1, 1), ("checkpoint", 2, 2)} <= sqlite.found()


def test_no_checkpoint_at_all_is_told(sqlite: Case) -> None:
    """It is not wrong, but proves less."""
    sqlite.do(sa.delete(CHECKPOINTS))
    report = sqlite.report()
    assert report.whole
    assert "there is no checkpoint" in report.notes[0]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sequence": 25}, "the last record is 25"),
        ({"hash": b"x" * 32}, "another hash than record 20"),
        ({"sequence": 12}, "the last record is 12"),
        ({"log": "other"}, "another log"),
    ],
)
def test_a_head_that_was_changed_is_named(sqlite: Case, values: dict[str, Any], told: str) -> None:
    """Its number, its hash, or whose it is."""
    sqlite.do(sa.update(HEAD).values(**values))
    assert told in sqlite.report().findings[0].detail


def test_a_head_set_back_is_named(case: Case) -> None:
    """Records stand behind it."""
    case.do(sa.update(HEAD).values(sequence=19, hash=case.row(19)["hash"]))
    assert case.found() == {("head", 20, 20)}


def test_no_head_or_two_are_told(sqlite: Case) -> None:
    """Whatever the records say."""
    sqlite.do(sa.insert(HEAD).values(log="other", sequence=0, hash=GENESIS))
    assert "several heads" in sqlite.report().findings[0].detail
    sqlite.do(sa.delete(HEAD))
    assert "no head" in sqlite.report().findings[0].detail


EMPTY = dict.fromkeys([*Content._fields[2:], "data_key"])
"""What retention leaves of a record."""


def taken(*sequences: list[int]) -> Record:
    """A record of a retention that took these."""
    return made(kind="retention", decision=None, body={"sequences": sequences})


def test_retention_takes_what_it_says_and_no_more(case: Case) -> None:
    """What is left keeps the chain whole; what nobody says was taken is named."""
    case.do(sa.update(RECORDS).where(R.sequence.between(3, 8)).values(**EMPTY))
    case.do(sa.update(RECORDS).where(R.sequence == 10).values(**EMPTY))
    assert case.found() == {("emptied", 3, 8), ("emptied", 10, 10)}
    case.log.append([taken([4, 5], [7, 7])]).result()
    assert case.found() == {("emptied", p, q) for p, q in ((3, 3), (6, 6), (8, 8), (10, 10))}
    case.log.append([taken([1, 3], [6, 12])]).result()
    assert case.found() == set()
    assert case.report().taken == 7


def test_retention_says_so_behind_what_it_took(sqlite: Case) -> None:
    """One that was there before cannot be meant."""
    sqlite.log.append([taken([1, 99]), made()]).result()
    sqlite.do(sa.update(RECORDS).where(R.sequence == SIZE + 2).values(**EMPTY))
    assert sqlite.found() == {("emptied", SIZE + 2, SIZE + 2)}


@pytest.mark.parametrize("body", ["{", "[]", '{"sequences": 1}', '{"sequences": [1, [2], "x"]}'])
def test_a_record_of_a_retention_that_says_nothing_says_nothing(sqlite: Case, body: str) -> None:
    """Whatever else it holds."""
    sqlite.log.append([taken()]).result()
    sqlite.rewrite(SIZE + 1, body=body)
    sqlite.set(3, **EMPTY)
    assert sqlite.found() == {("emptied", 3, 3)}


def test_what_retention_and_erasure_leave_is_whole(sqlite: Case) -> None:
    """As their own commands do it."""
    log = sqlite.log
    shown: list[object] = []
    progress = lambda *done: shown.append(done)  # noqa: E731 - both are told one
    erasure.erase(log, log, sqlite.ids[3:5], by="clerk", reason="ours", progress=progress)
    assert sqlite.report().erased == 2
    assert sqlite.found() == set()
    terms = retention.Terms(months=25, before=4_000_000_000_000_000)
    retention.take(log, log, terms, by="clerk", progress=progress)
    report = sqlite.report()
    assert report.whole
    assert report.taken == SIZE


def test_a_hash_that_retention_left_cannot_be_changed(sqlite: Case) -> None:
    """The record behind it, or the checkpoint, holds it."""
    sqlite.do(sa.update(RECORDS).where(R.sequence.between(3, 8)).values(**EMPTY))
    sqlite.log.append([taken([3, 8])]).result()
    sqlite.set(5, hash=b"x" * 32)
    assert {kind for kind, _, _ in sqlite.found()} == {"changed", "rewritten"}
    sqlite.set(6, previous=b"x" * 32)
    assert sqlite.found() == {("rewritten", 1, 6)}


def test_a_record_of_which_half_is_left_is_named(sqlite: Case) -> None:
    """Retention takes all or nothing."""
    sqlite.set(5, **(EMPTY | {"decision": "DECLINE"}))
    assert ("changed", 5, 5) in sqlite.found()


def test_an_erasure_is_said_by_a_record(case: Case) -> None:
    """It names every record whose data key it destroyed."""
    case.log.append([made(about=case.ids[4], personal={"note": "x"})]).result()
    case.set(5, data_key=None)
    case.set(SIZE + 1, data_key=None)
    assert case.found() == {("erased", 5, 5), ("erased", SIZE + 1, SIZE + 1)}
    ids = [case.ids[4], case.row(SIZE + 1)["id"]]
    for some in (ids[:1], ids):
        said = made(kind="erasure", decision=None, about=ids[0], body={"records": some})
        case.log.append([said]).result()
        left = {("erased", SIZE + 1, SIZE + 1)} if some != ids else set()
        assert case.found() == left
    assert case.report().erased == 2


def test_sealed_data_that_do_not_open_are_named(case: Case) -> None:
    """With the keys at hand: the data key is the one thing that no hash covers."""
    key = case.row(5)["data_key"]
    case.set(5, data_key=key[:-1] + bytes([key[-1] ^ 1]))
    case.set(6, data_key=flipped(case.row(6)["data_key"]))
    assert case.found() == set()
    report = case.report(sealing=SEALING)
    assert [finding[:3] for finding in report.findings] == [("sealed", 5, 5), ("sealed", 6, 6)]
    assert report.opened == SIZE - 2


def test_records_that_come_meanwhile_are_left_for_the_next_time(case: Case) -> None:
    """Unless they say why others are empty, as when retention runs at that moment."""
    case.do(sa.update(RECORDS).where(R.sequence == 3).values(**EMPTY))
    late = [made(), taken([3, 3])]

    def write(_done: int, _total: int) -> None:
        while late:
            case.log.append([late.pop(0)]).result()

    report = case.report(progress=write)
    assert report.whole
    assert report.records == SIZE + 2


def test_a_file_that_is_malformed_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a finding, for nothing can be found in it."""
    path = tmp_path / "records.db"
    with closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log:
        filled(log)
        log.append([made(body={"x": "y" * 50_000}) for _ in range(20)]).result()
    raw = bytearray(path.read_bytes())
    raw[40_960:] = b"\xa5" * (len(raw) - 40_960)
    path.write_bytes(raw)
    monkeypatch.setattr(verification, "_CHUNK", 7)
    with (
        closing(SqlAuditLog(f"sqlite:///{path}", SEALING)) as log,
        pytest.raises(RecordingFailed, match="malformed"),
    ):
        verify(log.reading, [])


def test_of_many_findings_the_number_is_kept(sqlite: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the first of them, however broken the chain."""
    monkeypatch.setattr(verification, "FINDINGS_KEPT", 3)
    monkeypatch.setattr(verification, "_RUNS_MOST", 2)
    sqlite.do(sa.update(RECORDS).where(R.sequence > 10).values(previous=b"x" * 32, decision=None))
    report = sqlite.report()
    assert report.found >= 10
    assert len(report.findings) == 3
    assert "broken in" in report.notes[0]


def test_a_finding_reads_as_a_line() -> None:
    """Kind, place, id and what it is."""
    assert str(Finding("changed", 5, 5, "id", "why")) == "changed: record 5 (id): why"
    assert str(Finding("removed", 5, 6, None, "why")) == "removed: records 5 to 6: why"
    assert str(Finding("checkpoint", 2, 2, None, "why")) == "checkpoint: checkpoint 2: why"
    assert str(Finding("head", None, None, None, "why")) == "head: why"


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
