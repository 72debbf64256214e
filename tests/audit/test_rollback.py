"""Rollback: what was seen signed has to be there, also for who was not there when it went."""

from __future__ import annotations

import base64
import json
import logging
import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk.audit import checkpoints, rollback
from credit_risk.audit.checkpoints import Checkpoint, anchors
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.signer import Signer
from credit_risk.audit.tables import CHECKPOINTS, HEAD, RECORDS
from credit_risk.errors import EvidenceInvalid
from tests.audit.tampering import INTRUDER
from tests.audit.test_checkpoints import KEY, altered, eventually, fill, kept
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.audit.records import Record


@pytest.fixture
def log(any_url: str) -> Iterator[SqlAuditLog]:
    """A log with a checkpoint over each of three records."""
    with closing(SqlAuditLog(any_url, SEALING)) as opened:
        yield opened


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """Where a server notes what it has seen."""
    return tmp_path / "note.json"


def signer(log: SqlAuditLog, note: Path | None, seconds: float = 3_600.0) -> Signer:
    """The signer of a server that has just started."""
    return Signer(log, KEY, seconds, made=lambda _: None, failed=lambda: None, note=note)


def signed(log: SqlAuditLog, note: Path, number: int = 3) -> list[Checkpoint]:
    """So many checkpoints, of one record each."""
    for _ in range(number):
        fill(log, 1)
        signer(log, note).sign()
    return kept(log)


def back(log: SqlAuditLog, checkpoint: Checkpoint) -> None:
    """Put the log back to where that checkpoint was the last, as a backup would."""
    own = sa.select(RECORDS.c.hash).where(RECORDS.c.sequence == checkpoint.last)
    altered(
        log,
        sa.update(HEAD).values(sequence=checkpoint.last, hash=own.scalar_subquery()),
        sa.delete(RECORDS).where(RECORDS.c.sequence > checkpoint.last),
        sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.number > checkpoint.number),
    )


def acknowledged(log: SqlAuditLog) -> Record:
    """Somebody says that it is as it should be."""
    return rollback.acknowledge(log, KEY, "toy", by="clerk", reason="disk failed")


def test_the_newest_checkpoint_is_noted_as_an_anchor(log: SqlAuditLog, note: Path) -> None:
    """Readable for whoever signs next, and for verification."""
    checkpoints_made = signed(log, note)
    assert list(anchors(note.read_text(encoding="utf-8"))) == checkpoints_made[-1:]
    assert note.stat().st_mode & 0o777 == rollback.NOTE_MODE
    assert [path.name for path in note.parent.glob("*note*")] == ["note.json"]


@pytest.mark.parametrize("gone", ["all", "the last", "replaced"])
def test_who_starts_later_misses_what_was_taken_away(
    log: SqlAuditLog, note: Path, gone: str
) -> None:
    """Nothing is signed then, and it is said how to go on if that is right."""
    signed(log, note)
    number = CHECKPOINTS.c.number
    altered(
        log,
        {
            "all": sa.delete(CHECKPOINTS),
            "the last": sa.delete(CHECKPOINTS).where(number == 3),
            "replaced": sa.update(CHECKPOINTS).where(number == 3).values(key_id="another"),
        }[gone],
    )
    left = kept(log)
    fill(log, 1)

    told = r"checkpoint 3 is gone, or another in its place\. .*credit-risk audit acknowledge"
    with pytest.raises(EvidenceInvalid, match=told):
        signer(log, note).sign()

    assert kept(log) == left
    signer(log, None).sign()  # who has no note cannot know


def test_a_server_that_starts_says_at_once_what_is_missing(
    log: SqlAuditLog, note: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not only when the next checkpoint is due."""
    made = signed(log, note)
    altered(log, sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.number == 3))
    started = signer(log, note)
    with caplog.at_level(logging.ERROR):
        started.start()
        assert eventually(lambda: "checkpoint 3 is gone" in caplog.text)
    started.close()
    assert kept(log) == made[:2]


def test_a_backup_that_was_restored_is_acknowledged_once_for_all_servers(
    log: SqlAuditLog, note: Path, tmp_path: Path
) -> None:
    """Also for one that had seen less, and for one that runs."""
    other = tmp_path / "other.json"
    made = signed(log, note, 2)
    signer(log, other).sign()
    running = signer(log, tmp_path / "running.json")
    fill(log, 1)
    running.sign()
    signer(log, note).sign()
    (*_, last) = kept(log)
    back(log, made[0])
    fill(log, 1)
    for one in (running, signer(log, note), signer(log, other)):
        with pytest.raises(EvidenceInvalid, match="is gone"):
            one.sign()
    assert rollback.missing(log, note) == (last, made[0])

    record = acknowledged(log)

    assert record.body["by"] == "clerk"
    for one in (running, signer(log, note), signer(log, other)):
        one.sign()
    assert [checkpoint.last for checkpoint in kept(log)] == [1, 3]
    assert rollback.missing(log, note) == (None, kept(log)[-1])


def test_what_is_taken_away_after_an_acknowledgement_is_missed_again(
    log: SqlAuditLog, note: Path
) -> None:
    """It is of one moment, and of what was there then."""
    made = signed(log, note)
    back(log, made[1])
    acknowledged(log)
    altered(log, sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.number == 2))
    with pytest.raises(EvidenceInvalid, match="checkpoint 3 is gone"):
        signer(log, note).sign()
    altered(log, sa.insert(CHECKPOINTS).values(made[1]._asdict()))
    signer(log, note).sign()
    altered(log, sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.number == 3))
    with pytest.raises(EvidenceInvalid, match="checkpoint 3 is gone"):
        signer(log, note).sign()


def test_all_checkpoints_gone_can_be_acknowledged(log: SqlAuditLog, note: Path) -> None:
    """Then everything is signed anew."""
    signed(log, note)
    altered(log, sa.delete(CHECKPOINTS))
    acknowledged(log)
    signer(log, note).sign()
    assert [(c.number, c.first, c.last) for c in kept(log)] == [(1, 1, 4)]


@pytest.mark.parametrize("forged", ["another key", "altered", "another log", "no text", "nothing"])
def test_only_who_signs_can_acknowledge(log: SqlAuditLog, note: Path, forged: str) -> None:
    """Who can write to the database can write such a record, but not its signature."""
    signed(log, note)
    altered(log, sa.delete(CHECKPOINTS))
    key = INTRUDER if forged == "another key" else KEY
    record = rollback.acknowledge(log, key, "toy", by="x", reason="y")
    body = dict(record.body)
    if forged == "altered":
        body["statement"] = body["statement"].replace('"time":1', '"time":2')
    elif forged == "another log":
        said = json.dumps(json.loads(body["statement"]) | {"log": "x"})
        body |= {"statement": said, "signature": _signature(said)}
    elif forged == "no text":
        body |= {"statement": "[]", "signature": _signature("[]")}
    else:
        body = body if forged == "another key" else {}
    changed = sa.update(RECORDS).where(RECORDS.c.id == record.id).values(body=json.dumps(body))
    altered(log, changed)
    with pytest.raises(EvidenceInvalid, match="checkpoint 3 is gone"):
        signer(log, note).sign()


def _signature(text: str) -> str:
    return base64.b64encode(KEY.sign(text.encode())).decode()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]"])
def test_a_note_that_is_none_is_told(log: SqlAuditLog, note: Path, content: bytes) -> None:
    """Nothing is signed as if there had been no note."""
    note.write_bytes(content)
    fill(log, 1)
    with pytest.raises(EvidenceInvalid, match=r"note\.json is not the checkpoint that was noted"):
        signer(log, note).sign()
    assert kept(log) == []


def test_a_note_that_cannot_be_written_stops_no_checkpoint(
    log: SqlAuditLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told each time."""
    fill(log, 1)
    signer(log, tmp_path / "nowhere" / "note.json").sign()
    assert len(kept(log)) == 1
    assert "note.json cannot be written: No such file or directory" in caplog.text


def test_a_write_that_fails_halfway_leaves_the_note_as_it_was(
    log: SqlAuditLog, note: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing beside it."""
    signed(log, note, 1)
    before = note.read_bytes()

    def fails(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    signed(log, note, 1)
    assert note.read_bytes() == before
    assert len(list(note.parent.glob("tmp*"))) == 0
    assert checkpoints.anchors(before.decode())[0].number == 1
