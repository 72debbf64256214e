"""The calls about decisions on record. Each is a few lines over the core.

Nothing about them reaches a log, a metric or a trace but the id of the decision.
"""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from credit_risk import bodies, casework, notices
from credit_risk.audit import proofs
from credit_risk.audit.records import microseconds
from credit_risk.decisions import within
from credit_risk.errors import (
    CreditRiskError,
    DeadlineExceeded,
    FieldError,
    RecordingFailed,
    RequestInvalid,
)
from credit_risk.reviews import Verdict
from credit_risk.schema import given_again, pointer
from credit_risk.serving import problems
from credit_risk.serving.responses import (
    Rejected,
    json_answer,
    problem_answer,
    read_json,
    read_nothing,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.requests import Request
    from starlette.responses import Response

    from credit_risk.audit.signer import Signer
    from credit_risk.casework import Casework
    from credit_risk.decisions import Call
    from credit_risk.regimes import Regime
    from credit_risk.serving.replays import Replays
    from credit_risk.settings import Settings

    Answer = dict[str, Any]

logger = logging.getLogger("credit_risk.serving")

BODY_BYTES_MAX = 65_536
PAGE_MAX = 500
_SAYS = {"missing": "Field required", "extra_forbidden": "Unknown field"}


class _Taken(BaseModel):
    """Base of what these calls take."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# The name of an account, of which no two look alike: who is the second person hangs on it.
Reviewer = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]


class ClaimBody(_Taken):
    """Who claims, or releases, a case."""

    reviewer: Reviewer


class ReviewBody(_Taken):
    """What a reviewer decides, why, and what else there is to say."""

    reviewer: Reviewer
    decision: Literal["APPROVE", "DECLINE"]
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,99}$")]
    note: Annotated[str, Field(pattern=r"\S", max_length=4_000)]


class QueueQuery(_Taken):
    """Which cases to list."""

    state: Literal["open", "claimed", "proposed"] | None = None
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50


def _is_a_date(given: str) -> str:
    """Refuse numbers: pydantic would take them for seconds since 1970, or for milliseconds."""
    # The first and the last year of the calendar reach beyond it in UTC.
    if not re.match(r"(?!0001|9999)\d{4}-\d{2}-\d{2}", given):
        raise ValueError("give a time as 2026-11-22T14:30:00Z")
    return given


Time = Annotated[datetime, BeforeValidator(_is_a_date)]


class SummaryQuery(_Taken):
    """Which period to sum up."""

    since: Time | None = None
    until: Time | None = None


T = TypeVar("T", bound=_Taken)
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
        work = asyncio.to_thread(self._shown, _id(request))
        return await self._answered(request, self._in_time(work))

    async def replay(self, request: Request) -> Response:
        """POST /decisions/{id}/replay: the decision made again, and what came out otherwise."""
        return await self._answered(request, self._replayed(request))

    async def notice(self, request: Request) -> Response:
        """GET /decisions/{id}/notice: what a notice of adverse action needs."""
        work = asyncio.to_thread(self._notice, _id(request))
        return await self._answered(request, self._in_time(work))

    async def proof(self, request: Request) -> Response:
        """GET /decisions/{id}/proof: that it is on record as it is, for who has a public key."""
        work = asyncio.to_thread(self._proof, _id(request))
        return await self._answered(request, self._in_time(work))

    async def case(self, request: Request) -> Response:
        """GET /decisions/{id}/case: what people did about a decision, notes included."""
        work = asyncio.to_thread(self._desk.story, _id(request), _call(request).at)
        return await self._answered(request, self._in_time(work))

    async def claim(self, request: Request) -> Response:
        """POST /decisions/{id}/claim: keep others off a case."""

        async def work() -> Answer:
            body = await self._body(ClaimBody, request)
            call = _call(request)
            step = self._desk.claim(_id(request), body.reviewer, call)
            return (await self._in_time(step)).to_json(call.at)

        return await self._answered(request, work(), records=True)

    async def release(self, request: Request) -> Response:
        """POST /decisions/{id}/release: let others have it again."""

        async def work() -> Answer:
            body = await self._body(ClaimBody, request)
            call = _call(request)
            step = self._desk.release(_id(request), body.reviewer, call)
            return (await self._in_time(step)).to_json(call.at)

        return await self._answered(request, work(), records=True)

    async def review(self, request: Request) -> Response:
        """POST /decisions/{id}/review: decide it, or as a second person agree or not."""

        async def work() -> Answer:
            body = await self._body(ReviewBody, request)
            call = _call(request)
            verdict = Verdict(body.reviewer, body.decision, body.reason, body.note)
            step = self._desk.review(_id(request), verdict, call)
            return (await self._in_time(step)).to_json(call.at)

        return await self._answered(request, work(), records=True)

    async def reviews(self, request: Request) -> Response:
        """GET /reviews: the cases that wait for people."""

        async def work() -> Answer:
            query = _query(QueueQuery, request)
            found = await self._in_time(
                asyncio.to_thread(
                    casework.waiting,
                    self._desk.audit,
                    self._desk.portfolio,
                    _call(request).at,
                    state=query.state,
                    after=query.after,
                    limit=query.limit,
                )
            )
            more = len(found) == query.limit
            return {
                "portfolio": self._desk.portfolio,
                "reviews": found,
                "next": found[-1]["decision_id"] if more else None,
            }

        return await self._answered(request, work())

    async def summary(self, request: Request) -> Response:
        """GET /reviews/summary: how often people overrode the server."""

        async def work() -> Answer:
            query = _query(SummaryQuery, request)
            return await self._in_time(
                asyncio.to_thread(
                    casework.summary,
                    self._desk.audit,
                    self._desk.portfolio,
                    since=microseconds(query.since),
                    until=microseconds(query.until),
                )
            )

        return await self._answered(request, work())

    def _shown(self, decision_id: str) -> Answer:
        return self._desk.decision(decision_id).to_json()

    async def _replayed(self, request: Request) -> Answer:
        await read_nothing(request, self._settings.request_seconds)
        return await self._in_time(self._replays.make(partial(self._desk.decision, _id(request))))

    def _proof(self, decision_id: str) -> Answer:
        return proofs.proof(self._signer, decision_id, self._desk.portfolio)

    def _notice(self, decision_id: str) -> Answer:
        record = self._desk.decision(decision_id)
        case = self._desk.case(record)
        notices.check_adverse(record, case)
        wordings = self._desk.wordings(str(record.model_version))
        return notices.notice(record, case, wordings, self.regime)

    async def _body(self, kind: type[T], request: Request) -> T:
        """What the body says.

        Raises:
            Rejected: see `read_json`; or it is not JSON.
            RequestInvalid: it is something else.
        """
        content = await read_json(request, BODY_BYTES_MAX, self._settings.request_seconds)
        try:
            document = bodies.parse(content)
        except ValueError as error:
            kind_of_problem = problems.KINDS["malformed-json"]
            raise Rejected(kind_of_problem.problem(f"Invalid JSON: {error}")) from None
        if isinstance(document, bodies.Repeating):
            raise RequestInvalid(tuple(given_again(document.repeated)))
        if not isinstance(document, dict):
            raise RequestInvalid((FieldError("", "Input should be an object"),))
        return _checked(kind, document, strict=True)

    async def _in_time(self, work: Awaitable[A]) -> A:
        """The result of the work, in the time a request has once it is read; see `within`."""
        return await within(self._settings.deadline_seconds, work)

    async def _answered(
        self, request: Request, work: Awaitable[Answer], *, records: bool = False
    ) -> Response:
        """What the work, which ``records`` or only reads, comes to, or what was wrong with it."""
        try:
            answer = await work
        except Rejected as error:
            return problem_answer(error.problem)
        except RecordingFailed:
            logger.exception("request %s failed", _call(request).request_id)
            kind = problems.KINDS["step-not-recorded" if records else "records-unavailable"]
            return problem_answer(kind.problem("The record database does not answer"))
        except DeadlineExceeded as error:
            kind = problems.KINDS["step-in-doubt" if records else "deadline-exceeded"]
            return problem_answer(kind.problem(problems.of(error).detail))
        except CreditRiskError as error:
            return problem_answer(problems.of(error))
        if "decision_id" in answer:
            request.scope["answer"] = {"decision_id": answer["decision_id"]}
        return json_answer(200, answer)


def _call(request: Request) -> Call:
    call: Call = request.scope["call"]
    return call


def _id(request: Request) -> str:
    decision_id: str = request.path_params["id"]
    return decision_id


def _query(kind: type[T], request: Request) -> T:
    """What the query says; a name given twice, or one that is none, is refused."""
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise RequestInvalid(tuple(given_again(twice)))
    return _checked(kind, dict(given), strict=False)


def _checked(kind: type[T], document: dict[str, Any], *, strict: bool) -> T:
    try:
        return kind.model_validate(document, strict=strict)
    except ValidationError as error:
        raise RequestInvalid(
            tuple(
                FieldError(pointer(e["loc"]), _SAYS.get(e["type"], e["msg"]))
                for e in error.errors(include_url=False, include_input=False)
            )
        ) from None
