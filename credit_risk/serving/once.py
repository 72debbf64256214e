"""The header Idempotency-Key: a scoring call that is decided once, however often it is sent.

As draft-ietf-httpapi-idempotency-key-header has it. The quotation marks that the draft wants around
a key are left out by most clients, so that both forms are taken, and mean the same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pydantic_core
from starlette.responses import Response

from credit_risk.decisions import left, within
from credit_risk.idempotency import Kept
from credit_risk.serving import problems
from credit_risk.serving.responses import ProblemResponse, Rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.types import Scope

    from credit_risk.audit.records import Alongside
    from credit_risk.decisions import Call, Keep
    from credit_risk.idempotency import Answers, Claim

    Answer = dict[str, Any]

HEADER = b"idempotency-key"
KEY_PATTERN = r'^(?:[!#-~][!-~]{0,254}|"(?:[!#-\[\]-~]|\\["\\]){1,255}")$'
"""1 to 255 visible characters of ASCII; or as many in a string of RFC 8941, where quotation mark
and backslash have a backslash before them."""
_KEY = re.compile(KEY_PATTERN[1:-1])
_ESCAPED = re.compile(r"\\(.)")
_SAME = {"/predict/explain": "/explain"}
"""Calls that are another by a second name: their keys are one call's."""
_REPLAYED = {"idempotency-replayed": "true"}


def key_of(values: Sequence[bytes]) -> str:
    """The key that the headers of a request give.

    Raises:
        Rejected: there are several, or it is not of that form.
    """
    kind = problems.KINDS["malformed-idempotency-key"]
    if len(values) > 1:
        raise Rejected(kind.problem("There is more than one Idempotency-Key"))
    text = values[0].decode("latin-1")
    if not _KEY.fullmatch(text):
        raise Rejected(kind.problem("The key is not 1 to 255 visible ASCII characters"))
    return _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text


class Once:
    """A scoring call with an idempotency key.

    Args:
        answers: those that are kept.
        values: of the request's headers of that name, one or more.
        seconds: the deadline of such a call.
    """

    def __init__(self, answers: Answers, values: Sequence[bytes], seconds: float) -> None:
        self._answers = answers
        self._values = values
        self._seconds = seconds
        self._claim: Claim | None = None
        self._response = Response()

    async def begin(self, scope: Scope, body: bytes) -> Response | None:
        """Claim the request; the answer that it was given before, if there is one.

        From then on the call in the scope names the place that its answer is kept at.

        Raises:
            Rejected: see `key_of`.
            DeadlineExceeded: its time was over before.
            CreditRiskError: see `Answers.claim`.
        """
        call: Call = scope["call"]
        key = key_of(self._values)
        seconds = left(call, self._seconds)
        operation = _SAME.get(call.operation, call.operation)
        claim = self._answers.claim(operation, key, body, seconds)
        claimed = await within(seconds, claim)
        call.passed("claim")
        if isinstance(claimed, Kept):
            return _replay(claimed, scope)
        self._claim = claimed
        scope["call"] = replace(call, kept_as=claimed.place)
        return None

    def keep(self, encode: Callable[[Answer], Awaitable[Response]]) -> Keep | None:
        """What keeps an answer, encoded; None where there is no claim to keep it under."""
        claim = self._claim
        if claim is None:
            return None

        async def keep(answered: Answer) -> Alongside:
            self._response = response = await encode(answered)
            media_type, content = str(response.media_type), bytes(response.body)
            return claim.keep(Kept(response.status_code, media_type, content))

        return keep

    def recorded(self) -> Response:
        """The answer, kept by now: the claim has served."""
        self._claim = None
        return self._response

    def end(self) -> None:
        """Give the claim back, if nothing came of it."""
        if self._claim is not None:
            self._claim.release()


def _replay(kept: Kept, scope: Scope) -> Response:
    """The answer again, byte for byte; the request's log line tells whose it is."""
    document = pydantic_core.from_json(kept.content)
    if kept.media_type == problems.MEDIA_TYPE:
        return ProblemResponse(document["type"], kept.content, kept.status, **_REPLAYED)
    scope["answer"] = document
    return Response(kept.content, kept.status, _REPLAYED, kept.media_type)
