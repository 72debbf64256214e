"""Signatures: checkpoints and anchors hold what hashes alone do not."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from credit_risk.audit import checkpoints
from credit_risk.audit.checkpoints import Statement
from credit_risk.audit.tables import CHECKPOINTS, HEAD, RECORDS
from credit_risk.errors import EvidenceInvalid
from tests.audit.tampering import INTRUDER, KEY, SIGNED, C, Case, R, flipped


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
        ({"checkpoint": 9}, "its number was changed: it was signed as checkpoint 9"),
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


def test_without_a_key_checkpoints_are_held_against_records_all_the_same(sqlite: Case) -> None:
    """Whose they are is left open, and the report says so."""
    anchor = sqlite.checkpoint(2)
    sqlite.resign(3, INTRUDER)
    report = sqlite.report(anchor, trusted=[])
    assert (report.findings, report.keys, report.covered) == ([], [], SIGNED)
    assert report.to_json()["signatures_checked"] is False
    sqlite.rewrite(9, decision="DECLINE")
    assert sqlite.found(anchor, trusted=[]) == {
        ("rewritten", 7, SIGNED),
        ("anchor", None, None),
    }


@pytest.mark.parametrize("number", [1, 2])
def test_a_checkpoint_removed_is_named(sqlite: Case, number: int) -> None:
    """With the records that are under none."""
    sqlite.do(sa.delete(CHECKPOINTS).where(C.number == number))
    (finding,) = sqlite.report().findings
    assert finding[:3] == ("checkpoint", number, number)
    assert f"records {number * 6 - 5} to {number * 6} are under none" in finding.detail


@pytest.mark.parametrize(("number", "to"), [(1, -4), (2, 5), (3, 4)])
def test_a_checkpoint_that_was_given_another_number_is_named(
    sqlite: Case, number: int, to: int
) -> None:
    """And no other, as if one were missing."""
    sqlite.do(sa.update(CHECKPOINTS).where(C.number == number).values(number=to))
    (finding,) = sqlite.report().findings
    assert finding[:3] == ("checkpoint", to, to)
    assert finding.detail == (
        f"in the table its number was changed: it was signed as checkpoint {number}, "
        f"for records {number * 6 - 5} to {number * 6}"
    )


def test_a_checkpoint_whose_records_were_changed_in_the_table_is_named(sqlite: Case) -> None:
    """By what was changed of it."""
    sqlite.do(sa.update(CHECKPOINTS).where(C.number == 2).values(first=8, last=11))
    (finding,) = sqlite.report().findings
    assert "its first and last were changed: it was signed as checkpoint 2" in finding.detail


def test_the_id_of_the_log_that_was_changed_is_no_fault_of_the_checkpoints(sqlite: Case) -> None:
    """Nor of those kept elsewhere; and nothing is signed in another name."""
    log = Statement.read(sqlite.checkpoint(1).statement).log
    sqlite.do(sa.update(HEAD).values(log="another"))
    (finding,) = sqlite.report(sqlite.checkpoint(2)).findings
    assert finding[:3] == ("head", None, None)
    assert finding.detail == (
        f"the id of the log in it was changed: checkpoints 1 to 3 were signed for log {log}"
    )
    with pytest.raises(EvidenceInvalid, match="another id than when checkpoint 3 was signed"):
        checkpoints.sign(sqlite.log, KEY)
    sqlite.do(sa.delete(CHECKPOINTS).where(C.number == 2))
    assert {finding.kind for finding in sqlite.report().findings} == {"head", "checkpoint"}
    sqlite.rewrite(14, decision="DECLINE")
    assert ("rewritten", 13, 18) in sqlite.found()


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
