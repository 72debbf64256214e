"""Figures without their last bits, which depend on the processor and its linear algebra.

A package's version is derived from its content: what is the same to twelve digits is the same.
"""

from __future__ import annotations

from typing import Any

DIGITS = 12


def rounded(value: Any, digits: int = DIGITS) -> Any:  # noqa: ANN401 - any JSON
    """A JSON value with every number in it rounded to so many significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {name: rounded(member, digits) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(member, digits) for member in value]
    return value
