"""Checkpoints: what they state, who makes them, and that nothing doubtful is signed."""

from __future__ import annotations

import json
import time
from contextlib import closing
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from credit_risk.audit import checkpoints, keys, merkle
from credit_risk.audit.checkpoints import Checkpoint, Statement, anchors
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.signer import Signer
from credit_risk.audit.tables import HEAD, RECORDS
from credit_risk.errors import EvidenceInvalid, RecordingFailed
from tests.audit.test_log import made
from tests.sealing import SEALING, SIGNING_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = SIGNING_KEY
STATEMENT = Statement(1, 1, "ab" * 32, 9, "log", "00" * 32, "cd" * 32, 5)


@pytest.fixture
def log(any_url: str) -> Iterator[SqlAuditLog]:
    """An empty log."""
    with closing(SqlAuditLog(any_url, SEALING)) as opened:
        yield opened


def fill(log: SqlAuditLog, number: int) -> None:
    """Record some decisions."""
    log.append([made() for _ in range(number)]).result()


def signer(log: SqlAuditLog, seconds: float = 3_600.0) -> tuple[Signer, list[Any]]:
    """A signer, and what it tells."""
    told: list[Any] = []
    made = Signer(log, KEY, seconds, made=told.append, failed=lambda: told.append("failed"))
    return made, told


def kept(log: SqlAuditLog) -> list[Checkpoint]:
    """The checkpoints on record, in order."""
    with log.reading() as connection:
        return checkpoints.listed(connection, 1_000)[::-1]


def altered(log: SqlAuditLog, *statements: sa.Executable) -> None:
    """Do to the database what nobody should."""
    engine = log._writing  # noqa: SLF001 - the way of an intruder
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it comes true, sooner or later."""
    for _ in range(2_000):
        if true():
            return True
        time.sleep(0.01)
    return False


def test_a_checkpoint_states_the_records_since_the_one_before(log: SqlAuditLog) -> None:
    """Their root, their place, the statement before; and the signature is over its text."""
    for number in (3, 1, 4):
        fill(log, number)
        checkpoints.sign(log, KEY)
    with log.reading() as connection:
        hashes = list(connection.scalars(sa.select(RECORDS.c.hash).order_by(RECORDS.c.sequence)))
        log_id = connection.scalar(sa.select(HEAD.c.log))

    found = kept(log)
    stated = [Statement.read(checkpoint.statement) for checkpoint in found]
    assert [(s.checkpoint, s.first, s.last) for s in stated] == [(1, 1, 3), (2, 4, 4), (3, 5, 8)]
    assert [checkpoint[:3] for checkpoint in found] == [(1, 1, 3), (2, 4, 4), (3, 5, 8)]
    assert {s.log for s in stated} == {log_id}
    for s in stated:
        assert s.root == merkle.root(hashes[s.first - 1 : s.last]).hex()
        assert s.head == hashes[s.last - 1].hex()
    assert stated[0].previous == "00" * 32
    for before, after in pairwise(found):
        digest = sha256(before.statement.encode()).hexdigest()
        assert Statement.read(after.statement).previous == digest
    for checkpoint in found:
        KEY.public_key().verify(checkpoint.signature, checkpoint.statement.encode())
        assert checkpoint.key_id == keys.key_id(KEY.public_key())


def test_nothing_new_gets_no_checkpoint(log: SqlAuditLog) -> None:
    """Neither an empty log, nor one that is under a checkpoint as it is."""
    assert checkpoints.sign(log, KEY) is None
    fill(log, 1)
    assert checkpoints.sign(log, KEY) is not None
    assert checkpoints.sign(log, KEY) is None
    assert len(kept(log)) == 1


def test_a_record_is_under_the_checkpoint_that_covers_it(log: SqlAuditLog) -> None:
    """Or under none yet."""
    for _ in range(2):
        fill(log, 2)
        checkpoints.sign(log, KEY)
    fill(log, 1)

    with log.reading() as connection:
        under = [checkpoints.covering(connection, place) for place in range(1, 6)]
    assert [checkpoint and checkpoint.number for checkpoint in under] == [1, 1, 2, 2, None]


def test_one_who_saw_nothing_and_comes_second_is_refused(
    log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database itself keeps two checkpoints of one number apart."""
    fill(log, 1)
    first = checkpoints.sign(log, KEY)
    assert first is not None
    seen = checkpoints.newest
    looks = iter([False])

    def newest(connection: sa.Connection) -> Checkpoint | None:
        return seen(connection) if next(looks, True) else None

    monkeypatch.setattr(checkpoints, "newest", newest)

    assert checkpoints._keep(log, first) is False  # noqa: SLF001 - a race, made to happen
    assert len(kept(log)) == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([sa.delete(RECORDS).where(RECORDS.c.sequence == 4)], "record 4 is missing"),
        ([sa.delete(RECORDS).where(RECORDS.c.sequence == 5)], "record 5 is missing"),
        (
            [sa.update(RECORDS).where(RECORDS.c.sequence == 4).values(previous=b"x" * 32)],
            "record 4 does not follow",
        ),
        (
            [sa.update(RECORDS).where(RECORDS.c.sequence == 3).values(previous=b"x" * 32)],
            "record 3 does not follow",
        ),
        (
            [sa.update(RECORDS).where(RECORDS.c.sequence == 5).values(hash=b"x" * 32)],
            "record 5 is not the head",
        ),
        (
            [
                sa.delete(RECORDS).where(RECORDS.c.sequence > 1),
                sa.update(HEAD).values(sequence=1),
            ],
            "records 2 to 2 are missing",
        ),
    ],
)
def test_what_is_no_chain_is_not_signed(
    log: SqlAuditLog, wrong: list[sa.Executable], told: str
) -> None:
    """A forgery gets no signature; the one who signs is told, and so is the log."""
    fill(log, 2)
    checkpoints.sign(log, KEY)
    fill(log, 3)
    altered(log, *wrong)

    with pytest.raises(EvidenceInvalid, match=told):
        checkpoints.sign(log, KEY)
    assert len(kept(log)) == 1


def test_a_log_that_takes_nothing_is_a_failure(log: SqlAuditLog) -> None:
    """As of any record."""
    fill(log, 1)
    log.close()
    with pytest.raises(RecordingFailed):
        checkpoints.sign(log, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "1",
        STATEMENT.text() + " ",
        STATEMENT.text().replace('"time":5', '"time":"5"'),
        STATEMENT.text().replace('"time":5', '"time":5.0'),
        STATEMENT.text().replace('"time":5', '"time":true'),
        STATEMENT.text().replace('"time"', '"hour"'),
        STATEMENT.text().replace('"time":5', '"time":5,"time":5'),
    ],
)
def test_another_text_is_no_statement(text: str) -> None:
    """One text for each statement, and no other."""
    assert Statement.read(STATEMENT.text()) == STATEMENT
    with pytest.raises(EvidenceInvalid):
        Statement.read(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "{}",
        "[1]",
        json.dumps({"statement": STATEMENT.text()}),
        json.dumps({"statement": "other", "signature": "", "key_id": ""}),
        json.dumps({"statement": 1, "signature": "", "key_id": ""}),
        json.dumps({"statement": STATEMENT.text(), "signature": "?", "key_id": ""}),
    ],
)
def test_a_file_without_checkpoint_is_no_anchor(text: str) -> None:
    """Whatever it is instead."""
    with pytest.raises(EvidenceInvalid):
        anchors(text)
