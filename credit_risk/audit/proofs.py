"""Proofs: of one record, that it is on record as it is, for who has nothing but a public key.

A proof holds the record's canonical form, the path from its hash to the root of a Merkle tree, and
the signed statement with that root. `scripts/verify_proof.py` checks one without this package.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from credit_risk.audit import keys, merkle
from credit_risk.audit.chain import Content, form
from credit_risk.audit.checkpoints import covering, hashes
from credit_risk.audit.tables import RECORDS
from credit_risk.errors import EvidenceInvalid, RecordNotFound

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from credit_risk.audit.checkpoints import Checkpoint, Reading
    from credit_risk.audit.signer import Signer

FORMAT = "credit-risk-proof/1"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_R = RECORDS.c
WHOLE = "The record of this content was at this place of the log when the checkpoint was signed."
_EXPIRED = (
    "A record of this hash was at this place of the log when the checkpoint was signed. What it "
    "said was taken by retention; whoever has kept its canonical form can compare the hash."
)


def proof(signer: Signer, record_id: str, portfolio: str) -> dict[str, Any]:
    """The proof of a record, as a JSON object; where it is under no checkpoint yet, one is made.

    Args:
        signer: has the log, makes the checkpoint, and knows the public key.
        record_id: the record's id.
        portfolio: whose record it has to be, if retention has left that to be seen.

    Raises:
        RecordNotFound: there is none of that id.
        EvidenceInvalid: the record, or one under the same checkpoint, is not as it was written.
        RecordingFailed: the database fails, or takes no checkpoint.
    """
    if not _UUID.fullmatch(record_id):
        raise RecordNotFound("no record has such an id")
    reading = signer.log.reading
    columns = [_R[name] for name in (*Content._fields, "previous", "hash", "sequence")]
    with reading() as connection:
        row = connection.execute(sa.select(*columns).where(_R.id == record_id)).one_or_none()
        checkpoint = None if row is None else covering(connection, row.sequence)
    if row is None or row.portfolio not in {portfolio, None}:
        raise RecordNotFound("no record of this portfolio has the id")
    if checkpoint is None:
        signer.sign()
        with reading() as connection:
            checkpoint = covering(connection, row.sequence)
    if checkpoint is None:
        raise EvidenceInvalid("the record is under no checkpoint, though others behind it are")
    content = Content._make(row[: len(Content._fields)])
    canonical: bytes | None = None
    if row.body is not None:
        canonical = form(content).joined(row.previous)
        if hashlib.sha256(canonical).digest() != row.hash:
            raise EvidenceInvalid("the record is not as it was written")
    return {
        "format": FORMAT,
        "decision_id": record_id,
        "proves": _EXPIRED if canonical is None else WHOLE,
        "record": {
            "sequence": row.sequence,
            "hash": row.hash.hex(),
            "canonical": None if canonical is None else canonical.decode(),
        },
        **_inclusion(reading, checkpoint, row.sequence, row.hash),
        "public_key": _public_key(signer.key.public_key(), checkpoint),
    }


def _inclusion(
    reading: Reading, checkpoint: Checkpoint, sequence: int, own: bytes
) -> dict[str, Any]:
    chunks = hashes(reading, checkpoint.first, checkpoint.last)
    leaves = [own for chunk in chunks for own in chunk]
    index = sequence - checkpoint.first
    if leaves[index] != own:
        raise EvidenceInvalid("the record is not as it was written")
    path = [node.hex() for node in merkle.path(leaves, index)]
    return {
        "inclusion": {"index": index, "size": len(leaves), "path": path},
        "checkpoint": checkpoint.to_json(),
    }


def _public_key(key: Ed25519PublicKey, checkpoint: Checkpoint) -> str | None:
    """The key that signed, if it is the one in force; who verifies has it from elsewhere anyway."""
    return keys.public_pem(key) if keys.key_id(key) == checkpoint.key_id else None
