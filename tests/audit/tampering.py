"""A log to tamper with, and what an intruder does to it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credit_risk.audit import checkpoints, keys
from credit_risk.audit.chain import GENESIS, Content, form
from credit_risk.audit.checkpoints import Checkpoint, Statement
from credit_risk.audit.findings import Report
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import CHECKPOINTS, HEAD, RECORDS
from credit_risk.audit.verification import verify
from tests.audit.test_checkpoints import altered
from tests.audit.test_log import made
from tests.sealing import SIGNING_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from credit_risk.audit.records import Record

Found = set[tuple[str, int | None, int | None]]
KEY = SIGNING_KEY
R, C = RECORDS.c, CHECKPOINTS.c
LONG_AGO = 1_577_836_800_000_000
"""2020-01-01, when the records were made and signed."""
SIZE, SIGNED = 20, 18
"""Records in the log; checkpoints are over 1 to 6, 7 to 12 and 13 to 18."""
INTRUDER = Ed25519PrivateKey.from_private_bytes(bytes(32))


EMPTY = dict.fromkeys([*Content._fields[2:], "data_key"])
"""What retention leaves of a record."""


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


def id_of(at: int) -> str:
    """A new id as one made at that time, microseconds since the epoch."""
    moment = f"{at // 1_000:012x}"
    return f"{moment[:8]}-{moment[8:]}{made().id[13:]}"


def aged(number: int) -> Record:
    """A decision of long ago, some seconds after `LONG_AGO`."""
    at = LONG_AGO + number * 1_000_000
    return made(id=id_of(at), time=at, personal={"input": {"n": number}})


def filled(log: SqlAuditLog) -> Case:
    """Twenty records of long ago, eighteen of them under a checkpoint of that time."""
    records = [aged(n) for n in range(SIZE)]
    with pytest.MonkeyPatch.context() as then:
        then.setattr(time, "time_ns", lambda: 1_000 * (LONG_AGO + SIZE * 1_000_000))
        for start in range(0, SIGNED, 6):
            log.append(records[start : start + 6]).result()
            assert checkpoints.sign(log, KEY) is not None
    log.append(records[SIGNED:]).result()
    return Case(log, [record.id for record in records])


def lie(path: str | Path, index: str, *statements: str) -> None:
    """Have an index of SQLite hold what only the first of two statements has made of the table."""
    before, after = statements
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        asked = "SELECT * FROM sqlite_master WHERE name = ?"
        kept = file.execute(asked, (index,)).fetchone()
        file.execute(before)
        file.execute("PRAGMA writable_schema = ON")
        file.execute("DELETE FROM sqlite_master WHERE name = ?", (index,))
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(after)
        file.execute("PRAGMA writable_schema = ON")
        file.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", kept)


def flipped(value: object) -> object:
    """The value with one bit changed."""
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        return chr(ord(value[0]) ^ 1) + value[1:]
    if isinstance(value, int):
        return value ^ 1
    return "x"
