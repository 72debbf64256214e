"""Continuity: what was removed, put in, moved and replaced."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from credit_risk.audit import continuity, findings
from credit_risk.audit.chain import GENESIS, Content, form
from credit_risk.audit.tables import HEAD, RECORDS
from tests.audit.tampering import SIZE, Case, R
from tests.audit.test_log import made


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


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sequence": 25}, "the last record is 25"),
        ({"hash": b"x" * 32}, "another hash than record 20"),
        ({"sequence": 12}, "the last record is 12"),
        ({"log": "other"}, "the id of the log in it was changed"),
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


def test_of_many_findings_the_number_is_kept(sqlite: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the first of them, however broken the chain."""
    monkeypatch.setattr(findings, "FINDINGS_KEPT", 3)
    monkeypatch.setattr(continuity, "_RUNS_MOST", 2)
    sqlite.do(sa.update(RECORDS).where(R.sequence > 10).values(previous=b"x" * 32, decision=None))
    report = sqlite.report()
    assert report.found >= 10
    assert len(report.findings) == 3
    assert "broken in" in report.notes[0]
