"""Scorers: none is timed that scores otherwise, and all are timed alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks import scorers
from tests import toys

if TYPE_CHECKING:
    from benchmarks.scorers import Columns


def test_whoever_scores_otherwise_is_named() -> None:
    """By more than float32 explains."""
    columns = toys.reference_columns()
    margins = toys.forest().margins

    def off(columns: Columns) -> scorers.Scores:
        return margins(columns) + 0.001

    def rounded(columns: Columns) -> scorers.Scores:
        return margins(columns).astype(np.float32)

    assert scorers.differing({"a": margins, "b": rounded, "c": off}, columns) == ["c"]


def test_rounds_are_interleaved_and_every_scorer_gets_the_same_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that what else the machine does meets all of them."""
    monkeypatch.setattr(scorers, "ROUNDS", 3)
    monkeypatch.setattr(scorers, "ROUND_SECONDS", 1e-9)
    asked: list[tuple[str, int]] = []

    def named(name: str) -> scorers.Scorer:
        def score(columns: Columns) -> scorers.Scores:
            asked.append((name, len(columns)))
            return np.zeros(len(columns))

        return score

    columns = toys.reference_columns()[:7]
    figures = scorers.microseconds({"a": named("a"), "b": named("b")}, columns)

    assert asked == [("a", 7), ("b", 7)] * 3
    assert set(figures) == {"a", "b"}
    assert all(figure > 0 for figure in figures.values())
