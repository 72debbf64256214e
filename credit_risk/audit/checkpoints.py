"""Checkpoints: now and then, a signed statement about every record since the one before.

A statement is canonical JSON, as records' forms are (`credit_risk.audit.chain`), an object of

- ``checkpoint``: its number, 1, 2, 3 and so on,
- ``first``, ``last``: the records it is about, by their places in the chain,
- ``root``: of the Merkle tree over those records' hashes (`credit_risk.audit.merkle`),
- ``head``: the hash of the last of them, and so of the whole chain up to there,
- ``previous``: the SHA-256 of the statement before, 64 zeros for the first,
- ``log``: the id of the log, ``time``: microseconds since the epoch.

Its signature is Ed25519 over its bytes. Who holds the public key, and any checkpoint from before,
finds out whether records under it were changed since, without trust in the database.
"""

from __future__ import annotations

import base64
import logging
import time
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, get_type_hints

import pydantic_core
import sqlalchemy as sa

from credit_risk.audit import keys, merkle
from credit_risk.audit.chain import GENESIS
from credit_risk.audit.tables import CHECKPOINTS, HEAD, RECORDS
from credit_risk.errors import Conflict, EvidenceInvalid, RecordingFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from credit_risk.audit.log import SqlAuditLog

    Reading = Callable[[], AbstractContextManager[sa.Connection]]

logger = logging.getLogger(__name__)

RECORDS_MOST = 65_536
"""Under one checkpoint: to prove that a record is under it, the hashes of all are read."""
_CHUNK = 1_024
_PAUSE_SECONDS = 0.002
"""Between two chunks, so that a worker that has many to sign goes on deciding meanwhile."""
_R, _C = RECORDS.c, CHECKPOINTS.c


class Statement(NamedTuple):
    """What a checkpoint states; hashes in hexadecimal."""

    checkpoint: int
    first: int
    head: str
    last: int
    log: str
    previous: str
    root: str
    time: int

    def text(self) -> str:
        """Its canonical form, which is what is signed."""
        return pydantic_core.to_json(self._asdict()).decode()

    @classmethod
    def read(cls, text: str) -> Statement:
        """The statement of a text.

        Raises:
            EvidenceInvalid: it is none, or not in its canonical form.
        """
        try:
            given = pydantic_core.from_json(text)
            sound = {name: type(value) for name, value in given.items()} == _TYPES
            statement = cls(**given) if sound else None
        except (ValueError, AttributeError):
            statement = None
        if statement is None or statement.text() != text:
            raise EvidenceInvalid("it is no statement in canonical form")
        return statement


_TYPES = get_type_hints(Statement)


class Checkpoint(NamedTuple):
    """A row of the table of checkpoints."""

    number: int
    first: int
    last: int
    statement: str
    signature: bytes
    key_id: str

    def to_json(self) -> dict[str, str]:
        """What is kept elsewhere as an anchor: statement, signature (base64) and id of the key."""
        return {
            "statement": self.statement,
            "signature": base64.b64encode(self.signature).decode(),
            "key_id": self.key_id,
        }


class Head(NamedTuple):
    """The end of the chain, as the database states it."""

    log: str
    sequence: int
    hash: bytes


class _Due(NamedTuple):
    """What the next checkpoint is about: records from ``first`` on, which follow ``link``."""

    before: Checkpoint | None
    first: int
    link: bytes
    head: Head


def head(connection: sa.Connection) -> Head:
    """The end of the chain.

    Raises:
        EvidenceInvalid: there is not one.
    """
    rows = connection.execute(sa.select(HEAD)).all()
    if len(rows) != 1:
        raise EvidenceInvalid(f"the chain of records has {len(rows)} heads, and must have one")
    return Head(*rows[0])


def newest(connection: sa.Connection) -> Checkpoint | None:
    """The checkpoint made last."""
    statement = sa.select(CHECKPOINTS).order_by(_C.number.desc()).limit(1)
    row = connection.execute(statement).one_or_none()
    return None if row is None else Checkpoint(*row)


def listed(connection: sa.Connection, limit: int) -> list[Checkpoint]:
    """The checkpoints made last, the newest first."""
    statement = sa.select(CHECKPOINTS).order_by(_C.number.desc()).limit(limit)
    return [Checkpoint(*row) for row in connection.execute(statement)]


def covering(connection: sa.Connection, sequence: int) -> Checkpoint | None:
    """The checkpoint that a record of that place is under."""
    after = sa.select(CHECKPOINTS).where(_C.last >= sequence).order_by(_C.last).limit(1)
    row = connection.execute(after).one_or_none()
    return None if row is None or row.first > sequence else Checkpoint(*row)


def hashes(
    reading: Reading, first: int, last: int, before: bytes | None = None
) -> Iterator[list[bytes]]:
    """The hashes of the records from one place to another, both included, chunk by chunk.

    Args:
        reading: gives a connection; a new one for each chunk.
        first: the place of the first, from 1.
        last: the place of the last.
        before: the hash that the first of them follows, if it is known.

    Raises:
        EvidenceInvalid: a record is missing, or does not follow the one before it.
    """
    columns = sa.select(_R.sequence, _R.previous, _R.hash).order_by(_R.sequence)
    for start in range(first, last + 1, _CHUNK):
        if start != first:
            time.sleep(_PAUSE_SECONDS)
        end = min(start + _CHUNK - 1, last)
        with reading() as connection:
            rows = connection.execute(columns.where(_R.sequence.between(start, end))).all()
        found: list[bytes] = []
        for expected in range(start, end + 1):
            place = expected - start
            if place >= len(rows) or rows[place].sequence != expected:
                raise EvidenceInvalid(f"record {expected} is missing")
            _, previous, own = rows[place]
            if before is not None and previous != before:
                raise EvidenceInvalid(f"record {expected} does not follow the one before it")
            found.append(own)
            before = own
        yield found


def sign(log: SqlAuditLog, key: Ed25519PrivateKey) -> Checkpoint | None:
    """Make the next checkpoint, over at most `RECORDS_MOST` records, and keep it.

    Returns:
        None where nothing was recorded since the one before, or somebody else was first.

    Raises:
        EvidenceInvalid: what is on record is no chain behind the checkpoint before. Nothing is
            signed that would make a forgery good.
        RecordingFailed: the database fails.
    """
    due = _due(log.reading)
    before, first, recorded = due.before, due.first, due.head.sequence
    if recorded < first:
        return None
    last = min(recorded, first + RECORDS_MOST - 1)
    tree, own = merkle.Tree(), due.link
    # Never all of them at once: a worker would be the larger for it from then on.
    for chunk in hashes(log.reading, first, last, due.link):
        tree.add(chunk)
        own = chunk[-1]
    if last == recorded and own != due.head.hash:
        raise EvidenceInvalid(f"record {last} is not the head of the chain")
    statement = Statement(
        checkpoint=1 if before is None else Statement.read(before.statement).checkpoint + 1,
        first=first,
        head=own.hex(),
        last=last,
        log=due.head.log,
        previous=_digest(before),
        root=tree.root().hex(),
        time=time.time_ns() // 1_000,
    )
    text = statement.text()
    made = Checkpoint(
        statement.checkpoint,
        first,
        last,
        text,
        key.sign(text.encode()),
        keys.key_id(key.public_key()),
    )
    return made if _keep(log, made) else None


def check(reading: Reading) -> None:
    """See that what is on record is a chain behind the newest checkpoint, so that one can follow.

    Raises:
        EvidenceInvalid: it is not.
        RecordingFailed: the database fails.
    """
    due = _due(reading)
    own = due.link
    for chunk in hashes(reading, due.first, due.head.sequence, due.link):
        own = chunk[-1]
    if own != due.head.hash:
        raise EvidenceInvalid(f"record {due.head.sequence} is not the head of the chain")


def _due(reading: Reading) -> _Due:
    """What the next checkpoint is about.

    Raises:
        EvidenceInvalid: nothing can follow the checkpoint before.
    """
    with reading() as connection:
        before = newest(connection)
        end = head(connection)
    if before is None:
        return _Due(None, 1, GENESIS, end)
    stated = Statement.read(before.statement)
    if end.sequence < stated.last:
        raise EvidenceInvalid(f"records {end.sequence + 1} to {stated.last} are missing")
    if end.log != stated.log:
        raise EvidenceInvalid(
            f"the log has another id than when checkpoint {before.number} was signed"
        )
    return _Due(before, stated.last + 1, bytes.fromhex(stated.head), end)


def _digest(before: Checkpoint | None) -> str:
    return GENESIS.hex() if before is None else sha256(before.statement.encode()).hexdigest()


def _keep(log: SqlAuditLog, checkpoint: Checkpoint) -> bool:
    """Insert the checkpoint, in a transaction of the log's writer; False if it is there already."""

    def insert(connection: sa.Connection) -> None:
        last = newest(connection)
        if (0 if last is None else last.number) >= checkpoint.number:
            raise Conflict("another process made this checkpoint")
        connection.execute(sa.insert(CHECKPOINTS), checkpoint._asdict())

    try:
        log.append((), alongside=insert).result()
    except Conflict:
        return False
    except RecordingFailed:
        # Of two servers of PostgreSQL, both of which saw no such checkpoint, one is refused.
        with log.reading() as connection:
            last = newest(connection)
        if last is not None and last.number >= checkpoint.number:
            return False
        raise
    return True


def anchors(text: str) -> Sequence[Checkpoint]:
    """The checkpoints in a file that was kept elsewhere: exported ones, or lines of a server's log.

    Raises:
        EvidenceInvalid: there is none in it, or one is malformed.
    """
    found: list[Checkpoint] = []
    try:
        try:
            parts = [pydantic_core.from_json(text)]
        except ValueError:
            parts = [pydantic_core.from_json(line) for line in text.splitlines() if line.strip()]
        for part in parts:
            if isinstance(part, dict) and "statement" in part:
                stated = Statement.read(part["statement"])
                signature = base64.b64decode(part["signature"], validate=True)
                found.append(
                    Checkpoint(
                        stated.checkpoint,
                        stated.first,
                        stated.last,
                        part["statement"],
                        signature,
                        str(part["key_id"]),
                    )
                )
    except (ValueError, KeyError, TypeError) as error:
        raise EvidenceInvalid("it is not what was exported as a checkpoint") from error
    if not found:
        raise EvidenceInvalid("there is no checkpoint in it")
    return found
