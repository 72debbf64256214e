"""The report on a challenger: what is known is on it, and what is not is said to be."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from credit_risk import challenger
from credit_risk.challenger import CutOffs, Pairs
from monitoring import contested
from tests.monitoring import monitored

if TYPE_CHECKING:
    from pathlib import Path

    from credit_risk.challenger import Contest

MADE = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def found() -> Contest:
    """Everything that there may be to say."""
    return monitored.contest()


@pytest.fixture(scope="module")
def empty() -> Contest:
    """Nothing was asked yet."""
    nobody = monitored.side(np.empty(0), 0.0)
    pairs = Pairs(nobody, nobody, np.zeros(0, dtype=np.bool_))
    return challenger.compare("a" * 12, "b" * 12, pairs, CutOffs(0.4, 0.4))


def test_everything_that_is_known_is_on_the_page(found: Contest) -> None:
    """In words and numbers, with intervals, and drawn."""
    page = contested.page("loans", found, MADE, "the last 7d")

    assert f"{'b' * 12} beside {'a' * 12}" in page
    assert "the last 7d" in page
    assert "2026-11-22 14:30 UTC" in page
    for title in ("Newly approved", "No longer declined", "AUC", "Brier score", "Rank correlation"):
        assert title in page
    assert "INCOME_LEVEL" in page
    assert "ExplanationFailed" in page
    assert "1,234 records were skipped" in page
    assert found.scores is not None
    assert f"PSI {found.scores.psi:.3f}" in page
    assert page.count("<svg") == 2
    assert f"{found.rows:,} applications that both answered" in page


def test_the_page_needs_nothing_else_and_runs_nothing(found: Contest) -> None:
    """No script, no other file; what somebody called a group is text."""
    page = contested.page("loans", found, MADE)

    assert not re.search(r"<script|src=|href=|url\(|https?:", page)
    assert "<north>" not in page
    assert "all on record" in page


def test_what_is_not_known_is_said(empty: Contest) -> None:
    """And nothing is drawn of it."""
    page = contested.page("loans", empty, MADE)

    assert "Nobody knows yet: 0 outcomes are known" in page
    assert "<svg" not in page
    assert "Who would be decided otherwise" not in page
    assert contested.tiles(empty) == [("0", "applications both answered")]


def test_groups_that_are_too_small_are_said_to_be(found: Contest) -> None:
    """Instead of an empty table."""
    (one,) = found.fairness
    few = found.model_copy(update={"fairness": (one.model_copy(update={"worst": None}),)})

    assert "Nothing to compare" in contested.page("loans", few, MADE)


def test_a_report_is_replaced_whole(tmp_path: Path, found: Contest, empty: Contest) -> None:
    """By the same name; nothing else is left in the folder."""
    folder = tmp_path / "new"
    first = contested.write(folder, "loans", empty, MADE)
    again = contested.write(folder, "loans", found, MADE)

    assert first == again
    assert [*folder.iterdir()] == [first]
    assert first.read_text(encoding="utf-8") == contested.page("loans", found, MADE)
