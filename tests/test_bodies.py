"""Bodies of JSON: an object that gives a name twice is seen, whatever else is in it."""

from __future__ import annotations

import json
import re
from typing import Any

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import bodies
from credit_risk.bodies import Repeating


class Members(list[tuple[str, Any]]):
    """An object to be written: its members, names given again among them."""


# Few and short, so that they often meet; with what has to be escaped.
texts = st.text(alphabet='ab"\\/\n\u20ac\U0001f600', max_size=2)
scalars = st.none() | st.booleans() | st.integers(-9, 9) | texts
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(st.tuples(texts, inner), max_size=4).map(Members)
    ),
    max_leaves=12,
)


def written(value: object, *, ascii_only: bool) -> str:
    """The value as JSON."""
    if isinstance(value, Members):
        members = (
            f"{written(k, ascii_only=ascii_only)} : {written(v, ascii_only=ascii_only)}"
            for k, v in value
        )
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list):
        return f"[{', '.join(written(v, ascii_only=ascii_only) for v in value)}]"
    return json.dumps(value, ensure_ascii=ascii_only)


def read(value: object) -> object:
    """What it is to be read as."""
    if isinstance(value, Members):
        members = [(k, read(v)) for k, v in value]
        names = {k for k, _ in members}
        return dict(members) if len(names) == len(members) else Repeating(members)
    return [read(v) for v in value] if isinstance(value, list) else value


def same(one: object, other: object) -> bool:
    """Equal, and alike in what is an object, a list, a number or a truth value."""
    return repr(one) == repr(other) and one == other


@given(values, st.booleans())
def test_every_body_is_read_as_it_was_written(value: object, ascii_only: bool) -> None:  # noqa: FBT001
    """Names, escapes and nesting of all kinds against a reading made without a parser."""
    body = written(value, ascii_only=ascii_only).encode()
    expected = read(value)

    parsed = bodies.parse(body)

    assert same(parsed, expected)
    assert type(parsed) is type(expected)
    names = expected.repeated if isinstance(expected, Repeating) else ()
    assert bodies.repeated(body) == names


@given(values)
def test_a_body_without_repeats_and_quotes_needs_no_closer_look(value: object) -> None:
    """The count alone clears it, and clears nothing else."""
    body = written(value, ascii_only=True).encode()
    parsed = pydantic_core.from_json(body)

    plain = bodies.is_plain(body, bodies.strings(parsed))

    escaped = re.search(rb'(?<!\\)(?:\\\\)*\\"', body)
    assert plain is (same(parsed, read(value)) and escaped is None)


def test_the_names_given_again_are_named_once_each() -> None:
    """In the order in which they first came."""
    document = bodies.parse(b'{"b": 1, "a": 1, "a": 2, "c": 0, "b": 3, "a": 1}')

    assert isinstance(document, Repeating)
    assert document.repeated == ("b", "a")


def test_a_name_is_the_same_however_it_is_escaped() -> None:
    """No reader is fooled that unescapes later than another."""
    assert bodies.repeated(rb'{"age": 1, "\u0061ge": 2}') == ("age",)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a": 1,}', b"\xff", b'"\\ud800"', b"1" * 5_000, b"[" * 5_000]
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    """By one parser, so that there is one opinion of it, and never by too deep a recursion."""
    with pytest.raises(ValueError, match="at line 1"):
        bodies.parse(body)
