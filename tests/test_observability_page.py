"""docs/observability.md says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import declared
from tests.declared import Declared

PAGE = (Path(__file__).parents[1] / "docs" / "observability.md").read_text(encoding="utf-8")


def row(metric: Declared) -> str:
    """A metric's row in the table."""
    return f"| `{metric.name}` | {', '.join(metric.labels)} | {metric.help} |"


@pytest.mark.parametrize("metric", declared.metrics(), ids=lambda metric: metric.name)
def test_every_metric_is_in_the_table(metric: Declared) -> None:
    """Name, labels and meaning as in the code."""
    assert row(metric) in PAGE


def test_no_metric_is_made_up() -> None:
    """Each row of the table is of one that there is."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `credit_")]

    assert rows == [row(metric) for metric in declared.metrics()]
