"""Answers and bodies: what every handler says and reads, JSON and problems of RFC 9457."""

from __future__ import annotations

import asyncio
import math
from email.message import Message as Header
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pydantic_core
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from credit_risk.serving import problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from credit_risk.decisions import Problem

    Answer = dict[str, Any]

RETRY_AFTER_SECONDS = 1


class Rejected(Exception):
    """The transport turns a request away."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def json_answer(status: int, document: object, media_type: str = "application/json") -> Response:
    """A document as JSON."""
    return Response(pydantic_core.to_json(document), status, media_type=media_type)


class ProblemResponse(Response):
    """A response that tells the request's log line what the problem was."""

    def __init__(self, problem_type: str, content: bytes, status: int, **headers: str) -> None:
        super().__init__(content, status, headers=headers, media_type=problems.MEDIA_TYPE)
        self._type = problem_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        scope["problem"] = self._type
        await super().__call__(scope, receive, send)


def problem_answer(
    problem: Problem,
    document: Answer | None = None,
    headers: dict[str, str] | None = None,
    seconds: float = 0.0,
) -> Response:
    """A problem as its document, or as the one given; 503 says when to try again.

    Args:
        problem: what to answer.
        document: the problem with the id of its record, where it has one.
        headers: further ones.
        seconds: how long until it is worth while to try again.
    """
    if document is None:
        document = problem.to_json(None)
    headers = dict(headers or {})
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE or seconds > 0.0:
        headers["retry-after"] = str(max(math.ceil(seconds), RETRY_AFTER_SECONDS))
    return ProblemResponse(problem.type, pydantic_core.to_json(document), problem.status, **headers)


async def read_json(request: Request, limit: int, seconds: float) -> bytes:
    """The request's body, which says that it is JSON.

    Raises:
        Rejected: wrong media type or encoding, more than ``limit`` bytes, or not all of it came,
            or not within so many seconds.
    """
    content_types = request.headers.getlist("content-type")
    if content_types != ["application/json"] and not _are_json(content_types):
        raise Rejected(
            problems.KINDS["unsupported-media-type"].problem(
                "Content-Type is not application/json in UTF-8"
            )
        )
    if any(e.lower() != "identity" for e in request.headers.getlist("content-encoding")):
        raise Rejected(
            problems.KINDS["unsupported-media-type"].problem("Content-Encoding is not supported")
        )
    too_large = problems.KINDS["body-too-large"].problem(f"The limit is {limit} bytes")
    return await _read(request, limit, seconds, too_large)


async def read_nothing(request: Request, seconds: float) -> None:
    """The end of a request that has no body.

    Raises:
        Rejected: it has one, or its end did not come within so many seconds.
    """
    unexpected = problems.KINDS["unexpected-body"].problem("This call takes no body")
    await _read(request, 0, seconds, unexpected)


async def _read(request: Request, limit: int, seconds: float, beyond: Problem) -> bytes:
    """The body, unless it is ``beyond`` the limit, late, or not whole."""
    length = request.headers.get("content-length", "")
    # As a float, because Python refuses to make an integer of thousands of digits.
    if length.isdecimal() and float(length) > limit:
        raise Rejected(beyond)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise Rejected(beyond)
    except TimeoutError:
        late = f"The body did not arrive within {seconds:g} seconds"
        raise Rejected(problems.KINDS["request-timeout"].problem(late)) from None
    except ClientDisconnect:
        raise Rejected(
            problems.KINDS["malformed-json"].problem("The connection ended within the body")
        ) from None
    return bytes(body)


def _are_json(content_types: Sequence[str]) -> bool:
    """Whether there is one, and it is JSON in UTF-8; other parameters are let be."""
    if len(content_types) != 1:
        return False
    header = Header()
    header["Content-Type"] = content_types[0]
    # What it cannot read at all is text/plain to the standard library.
    parameters = header.get_params([])
    charsets = {str(value).lower() for name, value in parameters if name.lower() == "charset"}
    return header.get_content_type() == "application/json" and charsets <= {"utf-8"}
