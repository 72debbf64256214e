"""A body of JSON as it was sent, names given more than once and all.

RFC 8259 lets each reader choose which of two equal names in an object counts, so that two of them
may read one application two ways. Here neither counts: such an object is refused, and kept as the
list of its members.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pydantic_core

_TOO_LONG = "number out of range"


class Repeating(list[tuple[str, Any]]):
    """An object of JSON that gives a name more than once: its members in the order sent."""

    @property
    def repeated(self) -> tuple[str, ...]:
        """The names given more than once, in order of their first place."""
        numbers = Counter(name for name, _ in self)
        return tuple(name for name, number in numbers.items() if number > 1)


def parse(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """The document, with `Repeating` in place of each object that gives a name more than once.

    Raises:
        ValueError: it is not JSON; the message holds nothing of the body.
    """
    document = pydantic_core.from_json(body)
    return document if is_plain(body, strings(document)) else _whole(body)


def fault(parser: str) -> str:
    """What a parser's words mean: "Invalid JSON", or JSON that it does not read.

    JSON limits no number; the parser does, to 4,300 digits.
    """
    return parser.capitalize() if parser.startswith(_TOO_LONG) else f"Invalid JSON: {parser}"


def is_plain(body: bytes, number: int) -> bool:
    """Whether a body that parses to so many strings, names included, certainly repeats no name.

    Each string takes two quotation marks. There are more of them only where a name was given again
    (and lost, as parsers do) or a string has one within, and which of the two takes a closer look.
    """
    return body.count(b'"') == 2 * number


def repeated(body: bytes) -> tuple[str, ...]:
    """The names that a body, whose JSON is known to be sound, repeats at its outermost object."""
    document = _whole(body)
    return document.repeated if isinstance(document, Repeating) else ()


def strings(document: object) -> int:
    """Number of strings in a document, the names in its objects included."""
    if isinstance(document, dict):
        inner, number = list(document.values()), len(document)
    elif isinstance(document, list):
        inner, number = document, 0
    else:
        return int(isinstance(document, str))
    # Types first, all at once: most of a batch is rows of numbers and words, nothing within them.
    kinds = list(map(type, inner))
    number += kinds.count(str)
    if dict in kinds or list in kinds:
        number += sum(strings(value) for value in inner if not isinstance(value, str))
    return number


def _whole(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(body.decode(), object_pairs_hook=_object)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any] | Repeating:
    document = dict(members)
    return document if len(document) == len(members) else Repeating(members)
