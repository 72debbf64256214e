"""The signer: makes checkpoints by itself, and none beside what it has seen signed."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk.audit import checkpoints
from credit_risk.audit.checkpoints import Checkpoint, Statement, anchors
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.signer import Signer
from credit_risk.audit.tables import CHECKPOINTS, HEAD
from credit_risk.errors import EvidenceInvalid, RecordingFailed
from tests.audit.test_checkpoints import KEY, altered, eventually, fill, kept, signer
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def log(any_url: str) -> Iterator[SqlAuditLog]:
    """An empty log."""
    with closing(SqlAuditLog(any_url, SEALING)) as opened:
        yield opened


def test_many_records_get_several(log: SqlAuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than so many each, read in chunks."""
    monkeypatch.setattr(checkpoints, "RECORDS_MOST", 5)
    monkeypatch.setattr(checkpoints, "_CHUNK", 2)
    fill(log, 12)
    made, told = signer(log)
    made.sign()

    assert [(c.first, c.last) for c in kept(log)] == [(1, 5), (6, 10), (11, 12)]
    assert told == kept(log)


def test_of_many_at_once_each_record_is_signed_once(any_url: str, log: SqlAuditLog) -> None:
    """Several processes try for the same checkpoint; one makes it, and nobody fails."""
    fill(log, 20)
    others = [SqlAuditLog(any_url, SEALING) for _ in range(3)]
    signers = [signer(one) for one in (log, *others)]
    threads = [threading.Thread(target=one.sign) for one, _ in signers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in others:
        one.close()

    assert [(c.number, c.first, c.last) for c in kept(log)] == [(1, 1, 20)]
    assert sum(len(told) for _, told in signers) == 1


def test_they_are_made_by_themselves(log: SqlAuditLog) -> None:
    """Again and again, as long as something is recorded, and one at the end."""
    made, told = signer(log, 0.05)
    made.start()
    for number in (1, 2):
        fill(log, 1)
        assert eventually(lambda: len(kept(log)) == number)  # noqa: B023 - called at once
    fill(log, 1)
    made.close()

    assert kept(log)[-1].last == 3
    assert told == kept(log)


def test_several_together_make_no_more_than_one(any_url: str, log: SqlAuditLog) -> None:
    """Who finds that another made one waits for the next."""
    fill(log, 1)
    first, _ = signer(log)
    first.sign()
    fill(log, 1)
    with closing(SqlAuditLog(any_url, SEALING)) as other:
        second, told = signer(other)
        assert 3_500.0 < second._wait() <= 3_600.0  # noqa: SLF001 - an hour is long for a test
        second.start()
        second.close()
    assert [checkpoint.number for checkpoint in told] == [2]  # that of the end


@pytest.mark.parametrize("harm", ["all gone", "the last one gone", "replaced"])
def test_what_this_process_saw_signed_has_to_be_there(log: SqlAuditLog, harm: str) -> None:
    """Whoever takes a checkpoint away gets no other signed in its place."""
    made, told = signer(log)
    for _ in range(2):
        fill(log, 1)
        made.sign()
    other = sa.update(CHECKPOINTS).where(CHECKPOINTS.c.number == 2).values(key_id="another")
    gone = sa.delete(CHECKPOINTS)
    last = gone.where(CHECKPOINTS.c.number == 2)
    altered(log, {"all gone": gone, "the last one gone": last, "replaced": other}[harm])
    fill(log, 1)

    for _ in range(2):
        with pytest.raises(EvidenceInvalid, match="checkpoint 2 is gone, or another in its place"):
            made.sign()

    assert len(told) == 2


def test_what_others_signed_has_to_be_there_too(any_url: str, log: SqlAuditLog) -> None:
    """As soon as it was seen, and also where nothing was left to sign."""
    fill(log, 1)
    first, _ = signer(log)
    first.sign()
    with closing(SqlAuditLog(any_url, SEALING)) as there:
        second, _ = signer(there)
        second.sign()
        altered(log, sa.delete(CHECKPOINTS))

        with pytest.raises(EvidenceInvalid, match="checkpoint 1 is gone"):
            second.sign()


def test_a_checkpoint_is_a_line_of_the_log_that_can_be_an_anchor(
    log: SqlAuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    """With all that a later comparison needs, and no applicant's data."""
    fill(log, 2)
    made, _ = signer(log)
    with caplog.at_level(logging.INFO):
        made.sign()

    (line,) = [record for record in caplog.records if record.message == "checkpoint"]
    (checkpoint,) = kept(log)
    told = {name: vars(line)[name] for name in ("statement", "signature", "key_id")}
    assert anchors(f"{json.dumps({'message': 'other'})}\n{json.dumps(told)}\n") == [checkpoint]
    assert (vars(line)["checkpoint"], vars(line)["last"]) == (1, 2)
    assert vars(line)["root"] == Statement.read(checkpoint.statement).root


def test_whether_the_chain_is_whole_is_told_each_time(log: SqlAuditLog) -> None:
    """Also where there is nothing new to sign; a database that fails tells nothing of the chain."""
    fill(log, 2)
    whole: list[bool] = []
    made = Signer(log, KEY, 3_600.0, made=nobody, failed=lambda: None, checked=whole.append)
    made.sign()
    made.sign()
    (first,) = kept(log)
    altered(log, sa.delete(CHECKPOINTS))
    with pytest.raises(EvidenceInvalid):
        made.sign()
    altered(log, sa.insert(CHECKPOINTS).values(**first._asdict()))
    made.sign()
    fill(log, 1)
    log.close()
    with pytest.raises(RecordingFailed):
        made.sign()

    assert whole == [True, True, False, True]


def nobody(_: Checkpoint) -> None:
    """Is told."""


def test_a_failure_is_told_and_the_next_one_makes_up_for_it(
    log: SqlAuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that was forged stops checkpoints, not decisions; nothing is tried at the end."""
    fill(log, 2)
    altered(log, sa.update(HEAD).values(hash=b"x" * 32))
    made, told = signer(log, 0.02)
    made.start()
    assert eventually(lambda: "failed" in told)
    made.close()

    assert set(told) == {"failed"}
    assert "no checkpoint: record 2 is not the head of the chain" in caplog.text
    assert kept(log) == []


def test_what_nobody_foresaw_does_not_end_the_signer(
    log: SqlAuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a head that is away for a moment: it signs as soon as it can again."""
    fill(log, 2)
    with log.reading() as connection:
        head = connection.execute(sa.select(HEAD)).one()
    altered(log, sa.delete(HEAD))
    whole: list[Checkpoint] = []
    failures: list[str] = []

    def tell(checkpoint: Checkpoint) -> None:
        whole.append(checkpoint)
        if len(whole) == 1:
            raise LookupError

    made = Signer(log, KEY, 0.02, made=tell, failed=lambda: failures.append("failed"))
    made.start()
    assert eventually(lambda: bool(failures))
    altered(log, sa.insert(HEAD).values(**head._asdict()))
    assert eventually(lambda: len(kept(log)) == 1)
    fill(log, 1)
    assert eventually(lambda: len(kept(log)) == 2)
    made.close()

    assert [checkpoint.last for checkpoint in whole] == [2, 3]
    assert "LookupError" in caplog.text
