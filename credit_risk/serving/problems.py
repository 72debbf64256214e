"""Errors over HTTP: one table from what went wrong to a problem of RFC 9457.

A problem names places by JSON pointer and never echoes a value that a caller sent. Its ``type``
is a path of this server, where a page says what it means and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from credit_risk.decisions import Problem
from credit_risk.errors import (
    ApplicationInvalid,
    CheckNotFound,
    Conflict,
    CountsOutdated,
    CreditRiskError,
    DeadlineExceeded,
    EvidenceInvalid,
    ExplanationFailed,
    KeyInUse,
    KeyReused,
    KeysInvalid,
    MonitoringFailed,
    NotAdverse,
    NoticeImpossible,
    Overloaded,
    PackageInvalid,
    PackageNotFound,
    RecordExpired,
    RecordingFailed,
    RecordNotFound,
    RequestInvalid,
    ReviewRefused,
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
        "unexpected-body",
        400,
        "The call takes no body",
        "Send it without one. Candidates are replayed by `credit-risk replay`.",
    ),
    Kind(
        "malformed-idempotency-key",
        400,
        "The Idempotency-Key is malformed",
        "Send it once: 1 to 255 visible ASCII characters, with or without quotation marks around.",
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
        "not-adverse",
        409,
        "The decision is not adverse",
        "Only a decline has a notice: by the server while no review goes on, or by a review that "
        "is closed.",
    ),
    Kind(
        "notice-impossible",
        409,
        "The notice cannot be made",
        "detail says what is missing. No other wording stands in for the one that was approved.",
    ),
    Kind(
        "package-missing",
        409,
        "The package that decided is not here",
        "Put back the package that the decision names, from the backup of the installed packages.",
    ),
    Kind(
        "review-refused",
        409,
        "The review does not allow this step",
        "detail says why. Read the case again: somebody else may have been faster.",
    ),
    Kind(
        "already-decided",
        409,
        "Somebody has decided on this check",
        "Read it, or ask for another check.",
    ),
    Kind(
        "groups-missing",
        409,
        "The server has no key of groups",
        "Supply groups by `credit-risk groups add`, and give the servers CREDIT_RISK_GROUPS_KEYS.",
    ),
    Kind(
        "record-expired",
        410,
        "The record was removed at the end of its retention",
        "What is left of it proves that it was there; what it held is gone.",
    ),
    Kind(
        "idempotency-key-in-use",
        409,
        "A request with this Idempotency-Key is being decided",
        "Send the same request again after the time that Retry-After names, for its answer.",
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
        "invalid-request",
        422,
        "The request is not valid",
        "errors names each place: of the body by JSON pointer, of the query as in a JSON object.",
    ),
    Kind(
        "idempotency-key-reused",
        422,
        "The Idempotency-Key belongs to another request",
        "Send another request under a key of its own, and the same one with the same bytes.",
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
        "evidence-invalid",
        500,
        "What is on record is not what was recorded",
        "Nothing can be proven by it. `credit-risk audit verify` says which records were altered.",
    ),
    Kind(
        "not-implemented",
        501,
        "The request asks for what this server does not know",
        "Use a method that /docs names, and no transfer coding but chunked. The connection is "
        "closed.",
    ),
    Kind(
        "not-recorded",
        503,
        "The decision could not be recorded, so there is none",
        "Nothing was decided. Try again after the time that Retry-After names.",
    ),
    Kind(
        "step-not-recorded",
        503,
        "The step could not be recorded, so the case is as it was",
        "Nobody claimed, released or reviewed anything by it. Try again after the time that "
        "Retry-After names.",
    ),
    Kind(
        "step-in-doubt",
        503,
        "The step was not on record in time, and may still get there",
        "Read the case after the time that Retry-After names, and try again if the step is not in "
        "it.",
    ),
    Kind(
        "record-in-doubt",
        503,
        "It was not all on record in time, and may still get there",
        "Send it again after the time that Retry-After names: outcomes that are on record already "
        "are not recorded twice.",
    ),
    Kind(
        "not-worked-out",
        503,
        "The answer could not be worked out",
        "Try again after the time that Retry-After names. The failure is logged under the request "
        "id.",
    ),
    Kind(
        "records-unavailable",
        503,
        "The records cannot be read",
        "Try again after the time that Retry-After names; /health says what is wrong.",
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
        "The answer was not ready in time, so there is none",
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

FAILURES = tuple(
    slug for slug, kind in KINDS.items() if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR
)
"""Kinds that are a fault of ours."""

_SPEAKING: tuple[tuple[type[CreditRiskError], str], ...] = (
    (NotAdverse, "not-adverse"),
    (NoticeImpossible, "notice-impossible"),
    (ReviewRefused, "review-refused"),
)
"""Errors whose text is for callers: it is of records and states, not of our inside."""
_BY_ERROR: tuple[tuple[type[CreditRiskError], str, str], ...] = (
    (ExplanationFailed, "explanation-failed", "The explanation failed its own check"),
    (RecordingFailed, "not-recorded", "The record database did not take the record in time"),
    (KeyInUse, "idempotency-key-in-use", "The first request with this key has no answer yet"),
    (Conflict, "already-decided", "Its first decision stands"),
    (KeysInvalid, "groups-missing", "None was set, and none was made"),
    (MonitoringFailed, "not-worked-out", "The process that works it out failed, or took too long"),
    (KeyReused, "idempotency-key-reused", "The body is not that of the first request with it"),
    (Overloaded, "overloaded", "Too many applications are waiting"),
    (DeadlineExceeded, "deadline-exceeded", "The time a request has was over"),
    (
        CountsOutdated,
        "not-worked-out",
        "Applicants were counted by another version of the server, and have to be counted anew",
    ),
    (EvidenceInvalid, "evidence-invalid", "A record does not fit its hash or its checkpoint"),
    (RecordExpired, "record-expired", "Only its place in the chain is left"),
    (CheckNotFound, "not-found", "The portfolio has no such check"),
    (RecordNotFound, "not-found", "No decision of this portfolio has that id"),
    (PackageNotFound, "package-missing", "It is not installed"),
    (PackageInvalid, "package-missing", "What is installed under its version is altered"),
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
    if isinstance(error, RequestInvalid):
        kind = KINDS["invalid-request"]
        detail = "; ".join(f"{e.pointer or '/'}: {e.detail}" for e in error.errors[:PLACES_MAX])
        return Problem(kind.uri, kind.title, kind.status, detail, error.errors[:PLACES_MAX])
    for error_type, slug in _SPEAKING:
        if isinstance(error, error_type):
            return KINDS[slug].problem(str(error))
    for error_type, slug, detail in _BY_ERROR:
        if isinstance(error, error_type):
            return KINDS[slug].problem(detail)
    return KINDS["internal-error"].problem("An unexpected error; see the server's log")
