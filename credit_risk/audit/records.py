"""The evidence: a record of every decision, refusal, failure, activation and start; its home."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypedDict,
    Unpack,
    overload,
)

import uuid_utils

from credit_risk.errors import EvidenceInvalid

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import sqlalchemy as sa

    from credit_risk.policy import DecisionName

RecordKind = Literal[
    "decision",
    "refusal",
    "failure",
    "activation",
    "challenge",
    "start",
    "claim",
    "review",
    "erasure",
    "retention",
    "acknowledgement",
    "outcome",
    "retraining-check",
    "retraining-decision",
    "approval",
    "promotion",
]
Withheld = Literal["sealed", "erased"]
Alongside: TypeAlias = "Callable[[sa.Connection], None]"
"""More for the transaction of a group of records: run after they are inserted, in the writer's
thread, while no other process writes. It raises `Conflict` to undo them, and may be run again when
others in the transaction were undone."""

PAGE = 500
"""Records read at a time, where nothing is known of what they are read for."""
NO_TIME = -(2**63)
"""Stands for a time where something else is on record."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and in order of time."""
    return str(uuid_utils.uuid7())


def instant(since_epoch: int) -> datetime:
    """A time since the epoch in microseconds, in UTC.

    Raises:
        OverflowError: it is in no year of four digits.
    """
    return _EPOCH + timedelta(microseconds=since_epoch)


@overload
def microseconds(at: datetime) -> int: ...
@overload
def microseconds(at: None) -> None: ...
def microseconds(at: datetime | None) -> int | None:
    """A time as microseconds since the epoch, None as None; one without a zone is UTC."""
    if at is None:
        return None
    return (at.replace(tzinfo=at.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


def moment(since_epoch: int) -> str:
    """A time since the epoch in microseconds, in ISO 8601, UTC, to the microsecond.

    Of what is no time, as in a record that was altered, these words.
    """
    try:
        at = instant(since_epoch)
    except (OverflowError, TypeError):
        return "no time"
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Record:
    """One thing the server did.

    ``id`` is a UUIDv7, ``time`` microseconds since 1970-01-01 UTC. ``status`` is what the caller
    was answered, as an HTTP status code; None where nobody asked. ``model_version`` and
    ``policy_version`` are None where none was involved, ``decision`` where none was reached.
    ``body`` is JSON: digests, PD, band, reasons, latency and so on. It comes back as written, but a
    tuple as a list, and NaN and the infinities, which JSON lacks, as strings.

    ``personal`` is JSON too, and what there is of personal data: ``{"input": ...}`` of whatever
    was asked about an application, with ``"errors"`` of places in it that were wrong, whose names
    may be the caller's own; ``{"note": ...}`` of a reviewer. The database holds it encrypted. Where
    it is ``withheld``, the reader has not the key ("sealed"), or nobody has any more ("erased"),
    and it is None.

    ``about`` is the id of the decision that a record is about, such as a review or an outcome.

    A record on a page that is not as it was written is ``altered``, which says how: then there is
    no more of it than id, kind, time and portfolio as they are there, and none of it is evidence.
    """

    id: str
    kind: RecordKind
    time: int
    portfolio: str
    request_id: str
    model_version: str | None
    policy_version: str | None
    decision: DecisionName | None
    status: int | None
    body: dict[str, Any]
    personal: dict[str, Any] | None = None
    about: str | None = None
    withheld: Withheld | None = None
    altered: str | None = None

    @property
    def input(self) -> Any:  # noqa: ANN401 - any JSON
        """What was asked about: an application, or what came in its place; None if withheld."""
        return None if self.personal is None else self.personal.get("input")

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object; its time in ISO 8601, UTC, to the microsecond."""
        return {
            "id": self.id,
            "kind": self.kind,
            "time": moment(self.time),
            "portfolio": self.portfolio,
            "request_id": self.request_id,
            "model_version": self.model_version,
            "policy_version": self.policy_version,
            "decision": self.decision,
            "status": self.status,
            "about": self.about,
            "body": self.body,
            "personal": self.personal,
            "withheld": self.withheld,
            **({} if self.altered is None else {"altered": self.altered}),
        }


def unrequested(
    kind: RecordKind,
    portfolio: str,
    body: dict[str, Any],
    *,
    model_version: str | None = None,
    policy_version: str | None = None,
    about: str | None = None,
    record_id: str | None = None,
    at: int | None = None,
) -> Record:
    """The record of what no request asked for, so that nobody was answered.

    Args:
        kind: of the record, and so the others as `Record` has them.
        portfolio: whose.
        body: what there is to say.
        model_version: of the package that it is about.
        policy_version: of the same.
        about: the decision that it is about.
        record_id: a new one if absent.
        at: when it was; now if absent.
    """
    return Record(
        id=record_id or new_id(),
        kind=kind,
        time=time.time_ns() // 1_000 if at is None else at,
        portfolio=portfolio,
        request_id=new_id(),
        model_version=model_version,
        policy_version=policy_version,
        decision=None,
        status=None,
        body=body,
        about=about,
    )


class Filters(TypedDict, total=False):
    """Which records to find; None, like absence, stands for any.

    ``since`` and ``until`` are microseconds since the epoch; the first instant belongs to the
    range, the last does not. All are fast together with ``portfolio``.
    """

    portfolio: str | None
    kind: RecordKind | None
    decision: DecisionName | None
    model_version: str | None
    about: str | None
    since: int | None
    until: int | None


class Records(Protocol):
    """Where evidence is found again. Safe to call from any thread."""

    def get(self, record_id: str) -> Record:
        """The record of that id.

        Raises:
            RecordNotFound: there is none.
            RecordExpired: retention has taken it; what is left proves that it was there.
            EvidenceInvalid: it is not as it was written.
        """
        ...

    def find(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        written: bool = False,
        **filters: Unpack[Filters],
    ) -> list[Record]:
        """The records that satisfy every filter given, newest first; none that are expired.

        What is not as it was written is among them, and is `Record.altered`.

        Args:
            limit: at most so many.
            before: continue after the record of this id, the last of the page before.
            written: the newest is what was written last, whatever clocks said; for kinds of which
                there are few.
            filters: see `Filters`.

        Raises:
            RecordNotFound: there is no record ``before``.
        """
        ...

    def count(self, **filters: Unpack[Filters]) -> int:
        """How many records satisfy every filter given; they are those of `find`."""
        ...

    def latest(self, portfolio: str, kind: RecordKind) -> Record | None:
        """The record of that kind written last, whatever clocks said, or None.

        Raises:
            EvidenceInvalid: it is not as it was written.
        """
        ...


def pages(
    records: Records, *, size: int = PAGE, written: bool = False, **filters: Unpack[Filters]
) -> Iterator[list[Record]]:
    """The records that satisfy every filter given, the newest first, some at a time.

    Nothing is kept of a page once the next one is asked for, however many there are.

    Args:
        records: where they are read.
        size: at most so many at a time.
        written: see `Records.find`.
        filters: see `Filters`.

    Raises:
        RecordExpired: retention has taken the last record of a page meanwhile.
    """
    before: str | None = None
    while page := records.find(limit=size, before=before, written=written, **filters):
        yield page
        if len(page) < size:
            return
        before = page[-1].id


def every(
    records: Records, *, written: bool = False, **filters: Unpack[Filters]
) -> Iterator[Record]:
    """The same one by one, for who needs all of them as they were written.

    Raises:
        EvidenceInvalid: one is not.
    """
    return sound(chain.from_iterable(pages(records, written=written, **filters)))


def sound(found: Iterable[Record]) -> Iterator[Record]:
    """The same records, as long as none was altered.

    Raises:
        EvidenceInvalid: one was.
    """
    for record in found:
        if record.altered is not None:
            raise EvidenceInvalid(f"record {record.id}: {record.altered}")
        yield record


@contextmanager
def read(record_id: str, kind: str) -> Iterator[None]:
    """Read what a server writes into a record of that kind.

    A record whose hash was made anew may say anything, and be found by `every` all the same.

    Raises:
        EvidenceInvalid: something in it is missing, or of another type or form.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceInvalid(
            f"record {record_id}: it does not say what a server writes in a record of a {kind}"
        ) from error


class AuditLog(Records, Protocol):
    """Where evidence goes and is found again. Safe to call from any thread."""

    def append(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> concurrent.futures.Future[None]:
        """Record all of ``records`` or none, and ``alongside`` with them.

        The future's result comes when they are durable. Its exception is `RecordingFailed`, with
        the cause, when they are not known to be: nothing may be answered on them then. It cannot
        be cancelled: a caller who goes away does not take the evidence along. Where ``alongside``
        raised `Conflict`, that is the exception, and nothing was recorded.
        """
        ...

    async def record(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> None:
        """`append` for callers on an event loop, at less cost: return when durable.

        A caller that is cancelled takes back what no commit has begun with.

        Raises:
            RecordingFailed: as `append`.
            Conflict: as `append`.
        """
        ...

    def ping(self) -> concurrent.futures.Future[None]:
        """Go the way of an `append`, but write nothing. For readiness.

        The future's exception is `RecordingFailed` where that of an `append` would be.
        """
        ...

    def close(self) -> None:
        """Write what is waiting, then stop; what is appended later fails."""
        ...
