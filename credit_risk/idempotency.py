"""One decision for each idempotency key, however often a request comes: its answer is kept.

Who got no answer sends the request again, under the key chosen for it, and cannot know what became
of it before. So

1. a request with a key first claims it, durably, until its own deadline and a little more;
2. its records and its answer are one transaction, in which the claim has to be there still;
3. a claim that comes to nothing is given back; that of a process that was killed runs out.

Who finds a claim of somebody else has to come again; who finds the answer gets it, byte for byte.
Clocks decide when a claim has run out and nothing else: a claim taken over while its holder was at
work after all is gone when the holder wants to record, and nothing is recorded.

Kept are keyed digests of key and request, and the answer encrypted. The caller's key belongs to one
portfolio and one operation. Records that came of a request with a key say where its answer is kept
(``kept_as``), so that it goes when they are erased or taken; see `forget`.
"""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import pydantic_core
import sqlalchemy as sa

from credit_risk.audit.keys import WRAPPED_BYTES
from credit_risk.audit.tables import IDEMPOTENCY, RECORDS
from credit_risk.decisions import new_id
from credit_risk.errors import EvidenceInvalid, KeyInUse, KeyReused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.records import Alongside, AuditLog

Outcome = Literal["new", "replayed", "conflict", "mismatch"]

MARGIN_SECONDS = 1.0
"""A claim outlives the deadline of its request by so long: a commit may end after it."""
PURGE_EVERY = 16
"""Of so many claims, one deletes rows that have run out."""
PURGED_MOST = 160
"""At most so many, so that they become fewer and nobody waits."""

_C = IDEMPOTENCY.c
_FIND = sa.select(_C.key, _C.request, _C.answer, _C.expires).where(_C.key == sa.bindparam("of"))
_TAKE_OVER = (
    sa.update(IDEMPOTENCY)
    .where(_C.key == sa.bindparam("of"))
    .values({name: sa.bindparam(name) for name in ("request", "claim", "expires", "answer")})
)
_OVER = (
    sa.select(_C.key)
    .where(_C.expires <= sa.bindparam("now"))
    .order_by(_C.expires)
    .limit(sa.bindparam("most"))
)
_PURGE = sa.delete(IDEMPOTENCY).where(_C.key.in_(_OVER.scalar_subquery()))
_MINE = sa.and_(_C.key == sa.bindparam("of"), _C.claim == sa.bindparam("by"), _C.answer.is_(None))
_KEEP = (
    sa.update(IDEMPOTENCY)
    .where(_MINE)
    .values(answer=sa.bindparam("kept"), expires=sa.bindparam("until"))
)
_RELEASE = sa.delete(IDEMPOTENCY).where(_MINE)
_BODIES = sa.select(RECORDS.c.body).where(
    RECORDS.c.id.in_(sa.bindparam("ids", expanding=True)), RECORDS.c.body.is_not(None)
)
# Of this very claim: the key may be another's since, with an answer of its own.
_FORGET = sa.delete(IDEMPOTENCY).where(_C.key == sa.bindparam("of"), _C.claim == sa.bindparam("by"))


class Kept(NamedTuple):
    """An answer as it was given: status of HTTP, media type and bytes."""

    status: int
    media_type: str
    content: bytes


class Observer(Protocol):
    """Who counts what comes of keys. Called on the request path: quick, and never fails."""

    def keyed(self, outcome: Outcome) -> None:
        """A request with a key: the first, or its answer was there, is to come, or another's."""


def _now() -> int:
    return time.time_ns() // 1_000


def forget(connection: sa.Connection, records: Sequence[str]) -> None:
    """Delete the answers that tell of records, each whole; in the transaction that takes these.

    Who sends such a request again is decided about anew.

    Args:
        connection: in that transaction, before the bodies are taken.
        records: ids, a few hundred at most.
    """
    bodies = connection.execute(_BODIES, {"ids": records}).scalars()
    for key, holder in {place for body in bodies for place in _places(body)}:
        connection.execute(_FORGET, {"of": key, "by": holder})


def _places(body: object) -> Iterator[tuple[bytes, str]]:
    """Where the answer that a record tells of is kept; nowhere, if the record was altered."""
    with suppress(ValueError, TypeError, LookupError):
        place = pydantic_core.from_json(cast("str", body))["kept_as"]
        match place.split(" ") if isinstance(place, str) else None:
            case [key, holder]:
                yield bytes.fromhex(key), holder


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers kept for one portfolio's requests with a key.

    ``kept_seconds`` is how long an answer is there to be given again; ``clock`` tells microseconds
    since the epoch; ``turns`` counts claims.
    """

    audit: AuditLog
    sealing: Sealing
    observer: Observer
    portfolio: str
    kept_seconds: float
    clock: Callable[[], int] = _now
    turns: Iterator[int] = field(default_factory=itertools.count)

    async def claim(self, operation: str, key: str, body: bytes, seconds: float) -> Claim | Kept:
        """Begin a request with a key, unless it was answered before.

        Args:
            operation: what is asked for, such as its path.
            key: the caller's key.
            body: the request, of which every byte counts.
            seconds: time left until its deadline.

        Returns:
            The claim, whose holder decides; or the answer that was given.

        Raises:
            KeyInUse: the same request is in hand.
            KeyReused: the key belongs to another request.
            RecordingFailed: it could not be claimed durably.
            EvidenceInvalid: the answer was altered.
        """
        name = pydantic_core.to_json([self.portfolio, operation, key])
        # By every encryption key: the row may be older than the one put first since.
        places = self.sealing.digests(b"key\0" + name)
        requests = dict(
            zip(places, self.sealing.digests(b"request\0" + name + b"\0" + body), strict=True)
        )
        claim = Claim(self, places[0], requests[places[0]], new_id())
        found: Any = None  # a row of `_FIND`

        def take(connection: sa.Connection) -> None:
            nonlocal found
            now = self.clock()
            if next(self.turns) % PURGE_EVERY == 0:
                connection.execute(_PURGE, {"now": now, "most": PURGED_MOST})
            there = [connection.execute(_FIND, {"of": place}).first() for place in places]
            found = next((row for row in there if row is not None and row.expires > now), None)
            if found is not None:
                return
            mine = {
                "request": claim.request,
                "claim": claim.holder,
                "expires": now + round(1e6 * (max(seconds, 0.0) + MARGIN_SECONDS)),
                "answer": None,
            }
            if there[0] is None:
                connection.execute(sa.insert(IDEMPOTENCY), {"key": claim.key, **mine})
            else:
                connection.execute(_TAKE_OVER, {"of": claim.key, **mine})

        try:
            await self.audit.record((), alongside=take)
        except BaseException:
            claim.release()  # it may be there: nobody knows
            raise
        if found is None:
            self.observer.keyed("new")
            return claim
        if found.request != requests[found.key]:
            self.observer.keyed("mismatch")
            raise KeyReused("the idempotency key belongs to another request")
        if found.answer is None:
            self.observer.keyed("conflict")
            raise KeyInUse("a request with this idempotency key is in hand")
        kept = self._opened(found.key, found.request, found.answer)
        self.observer.keyed("replayed")
        return kept

    def _opened(self, key: bytes, request: bytes, answer: bytes) -> Kept:
        data_key, sealed = answer[:WRAPPED_BYTES], answer[WRAPPED_BYTES:]
        altered = "the answer kept for an idempotency key was altered"
        try:
            opened = self.sealing.open(_context(key, request), sealed, data_key)
        except EvidenceInvalid as error:
            raise EvidenceInvalid(altered) from error
        if opened is None:
            raise EvidenceInvalid(altered)
        head, content = opened.split(b"\n", 1)
        status, media_type = head.decode().split(" ", 1)
        return Kept(int(status), media_type, content)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer a request with a key: ``key`` and ``request`` are digests."""

    answers: Answers
    key: bytes
    request: bytes
    holder: str

    @property
    def place(self) -> str:
        """Where the answer will be, for its records to say."""
        return f"{self.key.hex()} {self.holder}"

    def keep(self, kept: Kept) -> Alongside:
        """What keeps the answer, in the transaction of the records that it rests on.

        There it raises `KeyInUse` if the claim has run out and is another's.
        """
        context = _context(self.key, self.request)
        head = f"{kept.status} {kept.media_type}\n".encode()
        sealed, data_key = self.answers.sealing.seal(context, head + kept.content)

        def keep(connection: sa.Connection) -> None:
            until = self.answers.clock() + round(1e6 * self.answers.kept_seconds)
            values = {"kept": data_key + sealed, "until": until}
            if connection.execute(_KEEP, self._mine | values).rowcount != 1:
                raise KeyInUse("the claim of the idempotency key has run out")

        return keep

    def release(self) -> None:
        """Give the claim back, unless it was answered; whoever comes next may have it."""

        def release(connection: sa.Connection) -> None:
            connection.execute(_RELEASE, self._mine)

        # Nobody waits, and nothing is lost if it fails: a claim runs out by itself.
        self.answers.audit.append((), alongside=release)

    @property
    def _mine(self) -> dict[str, object]:
        return {"of": self.key, "by": self.holder}


def _context(key: bytes, request: bytes) -> str:
    """What an answer is bound to: taken to another row, it does not open."""
    return f"{key.hex()} {request.hex()}"
