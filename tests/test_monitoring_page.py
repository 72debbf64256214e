"""docs/monitoring.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from credit_risk.outcomes import STATES
from monitoring.__main__ import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")


def test_every_state_of_an_outcome_is_in_the_table() -> None:
    """With its meaning, in the words of the code, and no other."""
    section = PAGE.split("## Outcomes", 1)[1].split("## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]

    assert rows == [f"| `{state}` | {meaning} |" for state, meaning in STATES.items()]


@pytest.mark.parametrize("name", ["README.md", "docs/monitoring.md", "docs/runbook.md"])
def test_every_way_to_run_the_job_that_is_shown_is_one(name: str) -> None:
    """With options that it has."""
    page = (ROOT / name).read_text(encoding="utf-8")
    shown = re.findall(r"^python -m monitoring (\w+)(.*?)(?:\s+#.*)?$", page, re.MULTILINE)
    commands = get_command(app).commands  # type: ignore[attr-defined]

    assert shown
    for command, options in shown:
        known = {option for one in commands[command].params for option in one.opts}
        assert set(re.findall(r"--[\w-]+", options)) <= known
