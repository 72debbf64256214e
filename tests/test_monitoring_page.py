"""docs/monitoring.md says what the code does."""

from __future__ import annotations

from pathlib import Path

from credit_risk.outcomes import STATES

PAGE = (Path(__file__).parents[1] / "docs" / "monitoring.md").read_text(encoding="utf-8")


def test_every_state_of_an_outcome_is_in_the_table() -> None:
    """With its meaning, in the words of the code, and no other."""
    section = PAGE.split("## Outcomes", 1)[1].split("## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]

    assert rows == [f"| `{state}` | {meaning} |" for state, meaning in STATES.items()]
