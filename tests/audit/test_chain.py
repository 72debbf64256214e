"""The canonical form is what any JSON library makes of it, and a hash covers all of it."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk.audit.chain import GENESIS, Content, form

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
CONTENTS = st.builds(
    Content,
    id=TEXTS,
    kind=TEXTS,
    time=st.integers(-(2**53) + 1, 2**53 - 1),
    portfolio=TEXTS,
    request_id=TEXTS,
    model_version=st.none() | TEXTS,
    policy_version=st.none() | TEXTS,
    decision=st.none() | TEXTS,
    status=st.none() | st.integers(100, 599),
    about=st.none() | TEXTS,
    body=TEXTS,
    sealed=st.none() | st.binary(),
)
EXAMPLE = Content(
    "0198", "decision", 1, "toy", "r-1", "m", "p", "DECLINE", 200, None, '{"pd":0.5}', b"x"
)


@given(CONTENTS, st.binary(min_size=32, max_size=32))
def test_the_form_is_sorted_compact_json(content: Content, previous: bytes) -> None:
    """As Python's own library writes it, of texts, integers and nulls."""
    fields = content._asdict()
    sealed = fields.pop("sealed")
    fields["sealed_sha256"] = None if sealed is None else hashlib.sha256(sealed).hexdigest()
    fields["previous"] = previous.hex()
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    assert form(content).joined(previous) == text
    assert form(content).hash(previous) == hashlib.sha256(text).digest()


@pytest.mark.parametrize("name", Content._fields)
def test_every_field_changes_the_hash(name: str) -> None:
    """None is left out, and neither is the record before."""
    other: dict[str, object] = {name: {"time": 2, "status": 201, "sealed": b"y"}.get(name, "other")}
    before = form(EXAMPLE).hash(GENESIS)

    assert form(EXAMPLE._replace(**other)).hash(GENESIS) != before  # type: ignore[arg-type]
    assert form(EXAMPLE).hash(before) != before
