"""Rounding: the last bits go, whatever is not a number stays."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from credit_risk.training.rounding import DIGITS, rounded


@given(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_a_number_keeps_its_digits_and_is_rounded_once(number: float) -> None:
    """Within half a unit of the last digit kept; again changes nothing."""
    once = rounded(number)

    assert math.isclose(once, number, rel_tol=10.0 ** (1 - DIGITS))
    assert rounded(once) == once


def test_what_differs_in_the_last_bits_is_the_same() -> None:
    """As two processors have it."""
    number = 1.234567890123
    assert rounded(number) == rounded(math.nextafter(number, 2.0))


def test_everything_else_stays_as_it_is() -> None:
    """Wherever it is."""
    value = {"a": [1, True, None, "x", 0.1 + 0.2], "b": {"c": (2.0,)}}
    assert rounded(value) == {"a": [1, True, None, "x", 0.3], "b": {"c": [2.0]}}
    assert rounded({"a": 123_456}, digits=2) == {"a": 123_456}
