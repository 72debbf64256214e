"""The calls about decisions on record. Each is a few lines over the core.

Nothing about them reaches a log, a metric or a trace but the id of the decision.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field

from credit_risk import casework, notices
from credit_risk.audit import proofs
from credit_risk.decisions import within
from credit_risk.reviews import Verdict
from credit_risk.serving.asking import (
    DIGITS,
    Taken,
    Time,
    answered,
    call_of,
    checked,
    id_of,
    parsed,
    period,
    query,
)
from credit_risk.serving.responses import read_json, read_nothing

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.requests import Request
    from starlette.responses import Response

    from credit_risk.audit.signer import Signer
    from credit_risk.casework import Casework
    from credit_risk.regimes import Regime
    from credit_risk.serving.replays import Replays
    from credit_risk.settings import Settings

    Answer = dict[str, Any]

BODY_BYTES_MAX = 65_536
PAGE_MAX = 500
# The name of an account, of which no two look alike: who is the second person hangs on it.
Reviewer = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]


Note = Annotated[str, Field(pattern=r"\S", max_length=4_000)]


class ClaimBody(Taken):
    """Who claims, or releases, a case."""

    reviewer: Reviewer


class ReviewBody(Taken):
    """What a reviewer decides, why, and what else there is to say."""

    reviewer: Reviewer
    decision: Literal["APPROVE", "DECLINE"]
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,99}$")]
    note: Note


class QueueQuery(Taken):
    """Which cases to list."""

    state: Literal["open", "claimed", "proposed", "disputed"] | None = None
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX), DIGITS] = 50


class SummaryQuery(Taken):
    """Which period to sum up."""

    since: Time | None = None
    until: Time | None = None


T = TypeVar("T", bound=Taken)
A = TypeVar("A")


class Cases:
    """The handlers."""

    def __init__(
        self,
        settings: Settings,
        desk: Casework,
        regime: Regime,
        replays: Replays,
        signer: Signer,
    ) -> None:
        self._settings = settings
        self._desk = desk
        self.regime = regime
        self._replays = replays
        self._signer = signer

    async def decision(self, request: Request) -> Response:
        """GET /decisions/{id}: the record of a decision."""
        work = asyncio.to_thread(self._shown, id_of(request))
        return await self._answered(request, self._in_time(work))

    async def replay(self, request: Request) -> Response:
        """POST /decisions/{id}/replay: the decision made again, and what came out otherwise."""
        return await self._answered(request, self._replayed(request))

    async def notice(self, request: Request) -> Response:
        """GET /decisions/{id}/notice: what a notice of adverse action needs."""
        work = asyncio.to_thread(self._notice, id_of(request), call_of(request).at)
        return await self._answered(request, self._in_time(work))

    async def proof(self, request: Request) -> Response:
        """GET /decisions/{id}/proof: that it is on record as it is, for who has a public key."""
        work = asyncio.to_thread(self._proof, id_of(request))
        return await self._answered(request, self._in_time(work))

    async def case(self, request: Request) -> Response:
        """GET /decisions/{id}/case: what people did about a decision, notes included."""
        work = asyncio.to_thread(self._desk.story, id_of(request), call_of(request).at)
        return await self._answered(request, self._in_time(work))

    async def claim(self, request: Request) -> Response:
        """POST /decisions/{id}/claim: keep others off a case."""

        async def work() -> Answer:
            body = await self._body(ClaimBody, request)
            call = call_of(request)
            step = self._desk.claim(id_of(request), body.reviewer, call)
            return (await self._in_time(step)).to_json(call.at)

        return await self._answered(request, work(), records=True)

    async def release(self, request: Request) -> Response:
        """POST /decisions/{id}/release: let others have it again."""

        async def work() -> Answer:
            body = await self._body(ClaimBody, request)
            call = call_of(request)
            step = self._desk.release(id_of(request), body.reviewer, call)
            return (await self._in_time(step)).to_json(call.at)

        return await self._answered(request, work(), records=True)

    async def review(self, request: Request) -> Response:
        """POST /decisions/{id}/review: decide it, or as another person agree or not."""

        async def work() -> Answer:
            body = await self._body(ReviewBody, request)
            call = call_of(request)
            verdict = Verdict(body.reviewer, body.decision, body.reason, body.note)
            step = self._desk.review(id_of(request), verdict, call)
            return (await self._in_time(step)).to_json(call.at)

        return await self._answered(request, work(), records=True)

    async def reviews(self, request: Request) -> Response:
        """GET /reviews: the cases that wait for people."""

        async def work() -> Answer:
            asked = query(QueueQuery, request)
            found = await self._in_time(
                asyncio.to_thread(
                    casework.waiting,
                    self._desk.audit,
                    self._desk.portfolio,
                    call_of(request).at,
                    state=asked.state,
                    after=asked.after,
                    limit=asked.limit,
                )
            )
            more = len(found) == asked.limit
            return {
                "portfolio": self._desk.portfolio,
                "reviews": found,
                "next": found[-1]["decision_id"] if more else None,
            }

        return await self._answered(request, work())

    async def summary(self, request: Request) -> Response:
        """GET /reviews/summary: how often people overrode the server."""

        async def work() -> Answer:
            asked = query(SummaryQuery, request)
            since, until = period(asked.since, asked.until)
            return await self._in_time(
                asyncio.to_thread(
                    casework.summary,
                    self._desk.audit,
                    self._desk.portfolio,
                    since=since,
                    until=until,
                )
            )

        return await self._answered(request, work())

    def _shown(self, decision_id: str) -> Answer:
        return self._desk.decision(decision_id).to_json()

    async def _replayed(self, request: Request) -> Answer:
        await read_nothing(request, self._settings.request_seconds)
        return await self._in_time(self._replays.make(partial(self._desk.decision, id_of(request))))

    def _proof(self, decision_id: str) -> Answer:
        return proofs.proof(self._signer, decision_id, self._desk.portfolio)

    def _notice(self, decision_id: str, now: int) -> Answer:
        record = self._desk.decision(decision_id)
        case = self._desk.case(record)
        notices.check_adverse(record, case, self.regime.notification, now)
        wordings = self._desk.wordings(str(record.model_version))
        return notices.notice(record, case, wordings, self.regime, now)

    async def _body(self, kind: type[T], request: Request) -> T:
        """What the body says.

        Raises:
            Rejected: see `read_json`; or it is not JSON.
            RequestInvalid: it is something else.
        """
        content = await read_json(request, BODY_BYTES_MAX, self._settings.request_seconds)
        return checked(kind, parsed(content))

    async def _in_time(self, work: Awaitable[A]) -> A:
        """The result of the work, in the time a request has once it is read; see `within`."""
        return await within(self._settings.deadline_seconds, work)

    async def _answered(
        self, request: Request, work: Awaitable[Answer], *, records: bool = False
    ) -> Response:
        """What the work, which ``records`` or only reads, comes to, or what was wrong with it."""
        if records:
            return await answered(
                request, work, unrecorded="step-not-recorded", late="step-in-doubt"
            )
        return await answered(
            request, work, unrecorded="records-unavailable", late="deadline-exceeded"
        )
