"""What calls have in common that read a document or a query, and answer one or a problem."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from credit_risk import bodies
from credit_risk.audit.records import microseconds
from credit_risk.errors import (
    CreditRiskError,
    DeadlineExceeded,
    FieldError,
    RecordingFailed,
    RequestInvalid,
)
from credit_risk.schema import given_again, pointer
from credit_risk.serving import problems
from credit_risk.serving.responses import Rejected, json_answer, problem_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.requests import Request
    from starlette.responses import Response

    from credit_risk.decisions import Call

    Answer = dict[str, Any]

logger = logging.getLogger("credit_risk.serving")

_SAYS = {"missing": "Field required", "extra_forbidden": "Unknown field"}
_OURS = "Value error, "
"""What pydantic puts before the words of a validator."""
_TIME = TypeAdapter(datetime)


class Taken(BaseModel):
    """Base of what these calls take."""

    model_config = ConfigDict(extra="forbid", frozen=True)


T = TypeVar("T", bound=Taken)


def _moment(given: object) -> datetime:
    """Refuse numbers: pydantic would take them for seconds since 1970, or for milliseconds."""
    # The first and the last year of the calendar reach beyond it in UTC.
    if not isinstance(given, str) or not re.match(r"(?!0001|9999)\d{4}-\d{2}-\d{2}", given):
        raise ValueError("give a time as 2026-11-22T14:30:00Z")
    try:
        return _TIME.validate_python(given)
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False, include_input=False)[0]["msg"]) from None


Time = Annotated[datetime, BeforeValidator(_moment)]


def _digits(given: object) -> object:
    """Refuse what Python takes for a number besides: ``1_0``, ``+1``, spaces, another script's."""
    if isinstance(given, str) and not re.fullmatch(r"[0-9]{1,18}", given):
        raise ValueError("Input should be a valid integer")
    return given


DIGITS = BeforeValidator(_digits)
"""A number in a query is digits and nothing else; behind its limits, which are described then."""


def period(since: datetime | None, until: datetime | None) -> tuple[int | None, int | None]:
    """A time from one moment on and before another, both in microseconds since the epoch.

    Raises:
        RequestInvalid: there is none between the two.
    """
    first, end = microseconds(since), microseconds(until)
    if first is not None and end is not None and end <= first:
        raise RequestInvalid((FieldError("/until", "It is not after since"),))
    return first, end


def call_of(request: Request) -> Call:
    """The request, as the use case sees it."""
    call: Call = request.scope["call"]
    return call


def id_of(request: Request) -> str:
    """The id in the path."""
    record_id: str = request.path_params["id"]
    return record_id


def parsed(content: bytes) -> dict[str, Any]:
    """The object in a body.

    Raises:
        Rejected: it is not JSON.
        RequestInvalid: it is something else, or names a member twice.
    """
    try:
        document = bodies.parse(content)
    except ValueError as error:
        kind = problems.KINDS["malformed-json"]
        raise Rejected(kind.problem(f"Invalid JSON: {error}")) from None
    if isinstance(document, bodies.Repeating):
        raise RequestInvalid(tuple(given_again(document.repeated)))
    if not isinstance(document, dict):
        raise RequestInvalid((FieldError("", "Input should be an object"),))
    return document


def query(kind: type[T], request: Request) -> T:
    """What the query says; a name given twice, or one that is none, is refused."""
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise RequestInvalid(tuple(given_again(twice)))
    return checked(kind, dict(given), strict=False)


def checked(kind: type[T], document: dict[str, Any], *, strict: bool = True) -> T:
    """What a document says.

    Raises:
        RequestInvalid: it is not as it should be; names every place.
    """
    try:
        return kind.model_validate(document, strict=strict)
    except ValidationError as error:
        raise RequestInvalid(
            tuple(
                FieldError(pointer(e["loc"]), _SAYS.get(e["type"], e["msg"].removeprefix(_OURS)))
                for e in error.errors(include_url=False, include_input=False)
            )
        ) from None


async def answered(
    request: Request, work: Awaitable[Answer], *, unrecorded: str, late: str
) -> Response:
    """What the work comes to, or what was wrong with it.

    Args:
        request: for the log.
        work: what gives the answer.
        unrecorded: the kind of problem that a failing database is.
        late: the kind of problem that an answer is which was not ready in time.
    """
    try:
        answer = await work
    except Rejected as error:
        return problem_answer(error.problem)
    except RecordingFailed:
        logger.exception("request %s failed", call_of(request).request_id)
        return problem_answer(
            problems.KINDS[unrecorded].problem("The record database does not answer")
        )
    except DeadlineExceeded as error:
        return problem_answer(problems.KINDS[late].problem(problems.of(error).detail))
    except CreditRiskError as error:
        return problem_answer(problems.of(error))
    if "decision_id" in answer:
        request.scope["answer"] = {"decision_id": answer["decision_id"]}
    return json_answer(200, answer)
