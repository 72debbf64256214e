"""Rollback protection: what was seen signed, remembered where the database does not reach.

Whoever can write to the database can take checkpoints away, or put a backup in its place, and what
is left is sound. So who signs notes the newest checkpoint it has seen in a file of its own, and
signs nothing as long as that one is not on record as it was. The file is the checkpoint as it is
exported, which is signed itself: an anchor.

A backup that was restored on purpose looks the same. Somebody who has the signing key says so with
a record of kind "acknowledgement", in whose body `statement` is canonical JSON, an object of

- ``acknowledged``: number of the newest checkpoint on record by then, 0 for none,
- ``digest``: the SHA-256 of its statement, 64 zeros for none,
- ``log``: the id of the log, ``time``: microseconds since the epoch,

and `signature` (base64) is Ed25519 over its bytes: who can write to the database cannot make one.
All servers on the database go on then with what is there, whatever they saw signed before that
time, as long as that newest checkpoint is there; what is signed later they miss again.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic_core
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature

from credit_risk.audit import keys
from credit_risk.audit.chain import GENESIS
from credit_risk.audit.checkpoints import Checkpoint, Statement, anchors, check, head, newest
from credit_risk.audit.records import unrequested
from credit_risk.audit.retention import portfolios
from credit_risk.audit.tables import CHECKPOINTS
from credit_risk.errors import Conflict, EvidenceInvalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from credit_risk.audit.log import SqlAuditLog, SqlRecords
    from credit_risk.audit.records import Record

logger = logging.getLogger(__name__)

NOTE_MODE = 0o644
"""Of the note: it is public, and whoever signs next may be another user."""
_ACKNOWLEDGEMENTS_MOST = 100
"""Looked at, the newest of each portfolio."""
_FIELDS = {"acknowledged": int, "digest": str, "log": str, "time": int}


class Seen:
    """The newest checkpoint that was seen signed, in memory and in a file.

    Args:
        log: whose checkpoints.
        key: public half of what signs.
        note: the file; without it, what was seen is forgotten with the process.
    """

    def __init__(self, log: SqlAuditLog, key: Ed25519PublicKey, note: Path | None) -> None:
        self._log = log
        self._key = key
        self._note = note
        self._checkpoint: Checkpoint | None = None

    def confirm(self) -> None:
        """See that the checkpoint seen last is on record as it was, and look for a newer one.

        Raises:
            EvidenceInvalid: it is gone, or another stands in its place, and nobody has said that
                this is as it should be; or the note cannot be read.
            RecordingFailed: the database fails.
        """
        if self._checkpoint is None and self._note is not None:
            self._checkpoint = noted(self._note)
        with self._log.reading() as connection:
            log_id = head(connection).log
            last, there = _on_record(connection, self._checkpoint)
        if not there and not self._acknowledged(log_id):
            number = 0 if self._checkpoint is None else self._checkpoint.number
            raise EvidenceInvalid(
                f"checkpoint {number} is gone, or another in its place. If a backup was restored "
                "on purpose, `credit-risk audit acknowledge` puts that on record"
            )
        if last is not None:
            self.keep(last)

    def keep(self, checkpoint: Checkpoint) -> None:
        """This one was seen."""
        if checkpoint == self._checkpoint:
            return
        self._checkpoint = checkpoint
        if self._note is not None:
            try:
                _write(self._note, json.dumps(checkpoint.to_json()) + "\n")
            except OSError as error:
                # What is signed is signed; the note that is there already still tells.
                logger.warning("%s cannot be written: %s", self._note.name, error.strerror)

    def _acknowledged(self, log_id: str) -> bool:
        assert self._checkpoint is not None  # noqa: S101 - without one nothing is missed
        missed = Statement.read(self._checkpoint.statement)
        said = [
            one
            for one in acknowledgements(self._log, self._key)
            if one["log"] == log_id and one["time"] > missed.time
        ]
        with self._log.reading() as connection:
            return any(
                _digest(_numbered(connection, one["acknowledged"])) == one["digest"] for one in said
            )


def noted(note: Path) -> Checkpoint | None:
    """The checkpoint in a note; None where there is no such file.

    Raises:
        EvidenceInvalid: it cannot be read, or is no note.
    """
    try:
        (found,) = anchors(note.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EvidenceInvalid) as error:
        raise EvidenceInvalid(
            f"{note} is not the checkpoint that was noted there: delete it once it is known why"
        ) from error
    return found


def missing(records: SqlRecords, note: Path) -> tuple[Checkpoint | None, Checkpoint | None]:
    """The checkpoint that is noted and gone, if it is; and the newest on record.

    Raises:
        EvidenceInvalid: the note cannot be read.
        RecordingFailed: the database fails.
    """
    seen = noted(note)
    with records.reading() as connection:
        last, there = _on_record(connection, seen)
    return None if there else seen, last


def check_gone(records: SqlRecords, note: Path) -> tuple[Checkpoint, Checkpoint | None]:
    """The checkpoint that is noted and gone, and the newest on record, if that can be acknowledged.

    Raises:
        Conflict: none is gone that was noted there.
        EvidenceInvalid: the note cannot be read; or what is on record is no chain behind the newest
            checkpoint, so that nobody signs anything whatever is acknowledged.
        RecordingFailed: the database fails.
    """
    gone, last = missing(records, note)
    if gone is None:
        state = "is on record as it was" if note.exists() else "is not there"
        raise Conflict(
            f"nothing can be acknowledged: what a server has noted in {note} {state}. Where one "
            "says that a checkpoint is gone, do it with the state directory of that one"
        )
    try:
        check(records.reading)
    except EvidenceInvalid as error:
        raise EvidenceInvalid(
            f"checkpoint {gone.number} is gone, and to acknowledge that would not help: nothing "
            f"can be signed behind what is left ({error})"
        ) from error
    return gone, last


def acknowledge(
    log: SqlAuditLog, key: Ed25519PrivateKey, portfolio: str, *, by: str, reason: str
) -> Record:
    """Put on record that the checkpoints there are those that there should be.

    Args:
        log: whose checkpoints.
        key: what signs.
        portfolio: that the record is filed under.
        by: who says so.
        reason: why; it stays on record for ever.

    Raises:
        RecordingFailed: the database fails.
    """
    with log.reading() as connection:
        log_id = head(connection).log
        last, _ = _on_record(connection, None)
    now = time.time_ns() // 1_000
    statement = json.dumps(
        {
            "acknowledged": 0 if last is None else last.number,
            "digest": _digest(last),
            "log": log_id,
            "time": now,
        },
        separators=(",", ":"),
    )
    record = unrequested(
        "acknowledgement",
        portfolio,
        {
            "by": by,
            "reason": reason,
            "statement": statement,
            "signature": base64.b64encode(key.sign(statement.encode())).decode(),
            "key_id": keys.key_id(key.public_key()),
        },
        at=now,
    )
    log.append([record]).result()
    return record


def acknowledgements(records: SqlRecords, key: Ed25519PublicKey) -> list[dict[str, Any]]:
    """What the acknowledgements on record state that were signed with that key.

    Raises:
        RecordingFailed: the database fails.
    """
    found = (
        stated(record.body, key)
        for portfolio in portfolios(records)
        for record in records.find(
            portfolio=portfolio, kind="acknowledgement", limit=_ACKNOWLEDGEMENTS_MOST
        )
    )
    return [one for one in found if one is not None]


def stated(body: object, *trusted: Ed25519PublicKey) -> dict[str, Any] | None:
    """What the body of an acknowledgement states; None if none of the keys has signed it."""
    match body:
        case {"statement": str() as text, "signature": str() as signature}:
            pass
        case _:
            return None
    for key in trusted:
        try:
            key.verify(base64.b64decode(signature, validate=True), text.encode())
            said = pydantic_core.from_json(text)
        except (InvalidSignature, ValueError):
            continue
        if isinstance(said, dict) and {n: type(v) for n, v in said.items()} == _FIELDS:
            return said
    return None


def _on_record(
    connection: sa.Connection, seen: Checkpoint | None
) -> tuple[Checkpoint | None, bool]:
    """The newest checkpoint, and whether one seen before is there as it was."""
    return newest(connection), seen is None or _numbered(connection, seen.number) == seen


def _numbered(connection: sa.Connection, number: int) -> Checkpoint | None:
    row = connection.execute(
        sa.select(CHECKPOINTS).where(CHECKPOINTS.c.number == number)
    ).one_or_none()
    return None if row is None else Checkpoint(*row)


def _digest(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return GENESIS.hex()
    return sha256(checkpoint.statement.encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    """Put the text in the place of the file in one go, so that it is there whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).chmod(NOTE_MODE)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
