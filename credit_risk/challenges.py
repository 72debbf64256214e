"""Challenges: which package challenges the one that decides, and for which applicants it decides.

A challenge is a record of kind "challenge", as an activation is one; the last of a portfolio is in
force. Its body::

    {"to": version or null, "from": version before or null, "share": 0.05, "draw": id, "by": who,
     "package_sha256": digest or null, "suspended": why}

``to`` null ends it. ``share`` 0 is shadow: the challenger is asked about what was decided, and
decides nothing. With more, it decides about that share of applicants (canary); who these are
follows from ``draw`` and the applicant alone, see `takes`, so that every worker and replica agrees,
and an applicant stays on one side. ``draw`` is the id of the first of a row of challenges by one
package: with a larger share, who was decided by it goes on being. Another challenger has others.
``suspended`` is there where a server took the share from a challenger that failed; until somebody
gives it one again it is shadow.
"""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import pydantic_core

from credit_risk import environment
from credit_risk.audit.records import new_id, pages, read, unrequested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credit_risk.audit.records import Record, Records
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

_DIGITS = 2**64


class Challenge(NamedTuple):
    """A challenge in force; ``id`` is that of its record, ``time`` when it was made.

    ``suspended`` is whether the challenger decided about a share before, and failed.
    """

    id: str
    portfolio: str
    version: str
    share: float
    draw: str
    time: int
    suspended: bool = False


def in_force(records: Records, portfolio: str) -> Challenge | None:
    """The challenge of a portfolio that is in force, None if there is none.

    Raises:
        RecordingFailed: the record database cannot be read.
        EvidenceInvalid: the record is not as it was written.
    """
    last = records.latest(portfolio, "challenge")
    if last is None:
        return None
    with read(last.id, last.kind):
        body = last.body
        if body["to"] is None:
            return None
        version, share, draw = body["to"], body["share"], body["draw"]
        suspended = "suspended" in body
        return Challenge(last.id, portfolio, version, share, draw, last.time, suspended)


def begun(records: Records, portfolio: str, version: str) -> int | None:
    """When a package began to challenge, the last time that it did; None where it never did.

    A larger or smaller share is the same challenge. Records that were altered say nothing of it.

    Raises:
        RecordingFailed: the record database cannot be read.
    """
    draw, first = None, None
    for record in chain.from_iterable(
        pages(records, portfolio=portfolio, kind="challenge", model_version=version, written=True)
    ):
        if record.altered is not None:
            continue
        if draw is None:
            draw = record.body.get("draw")
        if record.body.get("draw") != draw:
            break
        first = record.time
    return first


def challenge_record(
    portfolio: str,
    package: ModelPackage | None,
    before: Challenge | None,
    share: float,
    registry: Mapping[str, Any] | None = None,
    *,
    suspended: str | None = None,
) -> Record:
    """The record of a challenge by a package, or of the end of one.

    Args:
        portfolio: whose.
        package: the challenger; None ends the challenge.
        before: that in force.
        share: of applicants, 0 to 1, that the challenger decides about.
        registry: where the challenger's version was found, if in a registry.
        suspended: why the challenger has its share no more, if it failed.
    """
    record_id = new_id()
    draw = record_id
    if before is not None and package is not None and before.version == package.version:
        draw = before.draw
    return unrequested(
        "challenge",
        portfolio,
        {
            "to": None if package is None else package.version,
            "from": None if before is None else before.version,
            "share": share,
            "draw": draw,
            "by": environment.user(),
            "package_sha256": None if package is None else package.digest,
            **({} if registry is None else {"registry": dict(registry)}),
            **({} if suspended is None else {"suspended": suspended}),
        },
        model_version=None if package is None else package.version,
        policy_version=None if package is None else package.policy_version,
        record_id=record_id,
    )


def takes(challenge: Challenge, key: bytes) -> bool:
    """Whether the challenger decides about the applicant of that key.

    The first 64 bits of the SHA-256 of ``draw``, a line feed and the key, as a share of 1.
    """
    if not challenge.share:
        return False
    digest = hashlib.sha256(challenge.draw.encode() + b"\n" + key).digest()
    return int.from_bytes(digest[:8], "big") < challenge.share * _DIGITS


def key_of(application: Application) -> bytes:
    """What stands for an applicant of whom nothing else is known: the application, in order."""
    return pydantic_core.to_json(dict(sorted(application.items())))
