"""Errors over HTTP: one table from what went wrong to a problem of RFC 9457.

A problem names places by JSON pointer and never echoes a value that a caller sent. Its ``type``
is a path of this server, where a page says what it means and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from credit_risk.decisions import Problem
from credit_risk.errors import (
    ApplicationInvalid,
    CreditRiskError,
    DeadlineExceeded,
    ExplanationFailed,
    Overloaded,
    RecordingFailed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/problem+json"
PLACES_MAX = 100
"""An answer names at most so many places: a body of nothing but unknown fields is full of them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its status, its title, and what a caller can do about it."""

    slug: str
    status: int
    title: str
    advice: str

    @property
    def uri(self) -> str:
        """The problem's type."""
        return f"/problems/{self.slug}"

    def problem(self, detail: str) -> Problem:
        """One occurrence without places."""
        return Problem(self.uri, self.title, self.status, detail)


def _kinds(*kinds: Kind) -> dict[str, Kind]:
    return {kind.slug: kind for kind in kinds}


KINDS: Mapping[str, Kind] = _kinds(
    Kind(
        "malformed-request",
        400,
        "The request is not HTTP",
        "Send HTTP/1.1 as RFC 9112 has it. The connection is closed.",
    ),
    Kind(
        "malformed-json",
        400,
        "The body is not JSON",
        "Send one JSON document in UTF-8. NaN and Infinity are not JSON.",
    ),
    Kind(
        "not-found",
        404,
        "There is nothing at this path",
        "See /docs for the calls this server answers.",
    ),
    Kind(
        "method-not-allowed",
        405,
        "This path does not take this method",
        "Use a method that the Allow header names.",
    ),
    Kind(
        "request-timeout",
        408,
        "The request did not arrive in time",
        "Send it again, at once and whole. The connection is closed.",
    ),
    Kind(
        "body-too-large",
        413,
        "The body is too large",
        "Send fewer applications in one call.",
    ),
    Kind(
        "unsupported-media-type",
        415,
        "The body's media type is not supported",
        "Send Content-Type: application/json, without a Content-Encoding.",
    ),
    Kind(
        "invalid-application",
        422,
        "The application is not valid",
        "errors names each place by JSON pointer; /schema has the fields, units and ranges.",
    ),
    Kind(
        "head-too-large",
        431,
        "The request's line and headers are too large",
        "Send less than 16 KiB of them. The connection is closed.",
    ),
    Kind(
        "internal-error",
        500,
        "The server failed",
        "Nothing was decided. The failure is logged under the request id; trying again may help.",
    ),
    Kind(
        "explanation-failed",
        500,
        "The decision could not be explained, so there is none",
        "Nothing was decided. Contributions did not add up to the score, or a reason was missing; "
        "report it with the request id.",
    ),
    Kind(
        "not-recorded",
        503,
        "The decision could not be recorded, so there is none",
        "Nothing was decided. Try again after the time that Retry-After names.",
    ),
    Kind(
        "overloaded",
        503,
        "The server has more to do than it can do in time",
        "Nothing was begun. Try again after the time that Retry-After names.",
    ),
    Kind(
        "deadline-exceeded",
        503,
        "The decision was not ready in time, so there is none",
        "Try again after the time that Retry-After names, with fewer applications if there were "
        "many.",
    ),
    Kind(
        "not-ready",
        503,
        "The server is not ready to decide",
        "Try again after the time that Retry-After names; /health says what is wrong.",
    ),
)

_BY_ERROR: tuple[tuple[type[CreditRiskError], str, str], ...] = (
    (ExplanationFailed, "explanation-failed", "The explanation failed its own check"),
    (RecordingFailed, "not-recorded", "The record database did not take the record in time"),
    (Overloaded, "overloaded", "Too many applications are waiting"),
    (DeadlineExceeded, "deadline-exceeded", "The time a request has was over"),
)


def of(error: Exception) -> Problem:
    """The problem that answers an error."""
    if isinstance(error, ApplicationInvalid):
        first = error.errors[0]
        if first.pointer == "" and first.detail.startswith("Invalid JSON"):
            return KINDS["malformed-json"].problem(first.detail)
        kind = KINDS["invalid-application"]
        places = len(error.errors)
        detail = "1 place is" if places == 1 else f"{places} places are"
        detail += " not as the schema says"
        if places > PLACES_MAX:
            detail += f"; the first {PLACES_MAX} are named"
        return Problem(kind.uri, kind.title, kind.status, detail, error.errors[:PLACES_MAX])
    for error_type, slug, detail in _BY_ERROR:
        if isinstance(error, error_type):
            return KINDS[slug].problem(detail)
    return KINDS["internal-error"].problem("An unexpected error; see the server's log")
