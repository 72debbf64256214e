"""The chain: each record's canonical form holds the hash of the record before it.

The canonical form is JSON as RFC 8785 has it, of strings, integers and nulls alone, so that any
language's sorted, compact JSON gives the same bytes. It is an object of thirteen members: those of
`Content` and ``previous``, the hash of the record before in hexadecimal, `GENESIS` for the first.
A record's hash is the SHA-256 of that. What may be taken away later without breaking the chain, the
key to an applicant's data, is not in it, and of those data only the digest of their ciphertext is.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import pydantic_core

GENESIS = bytes(32)
"""Stands for the hash of the record before the first."""


class Content(NamedTuple):
    """What the canonical form holds of a record, but for its predecessor.

    ``body`` is the JSON text as it is stored, ``time`` microseconds since the epoch, ``sealed`` the
    ciphertext of the applicant's data, of which the form has the SHA-256 (``sealed_sha256``).
    """

    id: str
    kind: str
    time: int
    portfolio: str
    request_id: str
    model_version: str | None
    policy_version: str | None
    decision: str | None
    status: int | None
    about: str | None
    body: str
    sealed: bytes | None


class Form(NamedTuple):
    """A canonical form in two halves, those around the hash of the record before."""

    before: bytes
    after: bytes

    def joined(self, previous: bytes) -> bytes:
        """The whole of it, after the record of that hash."""
        return b"%b%b%b" % (self.before, previous.hex().encode(), self.after)

    def hash(self, previous: bytes) -> bytes:
        """The record's hash, 32 bytes, after the record of that hash."""
        return hashlib.sha256(self.joined(previous)).digest()


def form(content: Content) -> Form:
    """The canonical form of a record; `Form` takes what is before it in the chain.

    Most of the work of a hash, and all that can be done before a record has its place.
    """
    sealed = content.sealed
    before = pydantic_core.to_json(
        {
            "about": content.about,
            "body": content.body,
            "decision": content.decision,
            "id": content.id,
            "kind": content.kind,
            "model_version": content.model_version,
            "policy_version": content.policy_version,
            "portfolio": content.portfolio,
        }
    )
    after = pydantic_core.to_json(
        {
            "request_id": content.request_id,
            "sealed_sha256": None if sealed is None else hashlib.sha256(sealed).hexdigest(),
            "status": content.status,
            "time": content.time,
        }
    )
    return Form(before[:-1] + b',"previous":"', b'",' + after[1:])
