"""The command line: what it refuses before it puts load on anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from loadtests.__main__ import app

if TYPE_CHECKING:
    from pathlib import Path

RUNNER = CliRunner()
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours: some build servers ask for them though nobody looks."""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://10.1.2.3:3000"], "10.1.2.3 is not this machine"),
        (["--url", "https://credit.example.com"], "credit.example.com is not this machine"),
        (["--url", "localhost:3000"], "not the URL of a server"),
        (["--url", "ftp://127.0.0.1"], "not the URL of a server"),
        (["--scenario", "browse"], "has no scenario browse"),
        (["--soak", "300", "--scenario", "mix"], "--soak has its own scenario"),
        (["--soak", "300", "--url", "http://127.0.0.1:1"], "--soak has its own scenario"),
        (["--soak", "30"], "greater than or equal to 120"),
        (["--users", "0"], "greater than or equal to 1"),
        (["--objectives", "absent.yaml"], "absent.yaml: cannot be read"),
    ],
)
def test_wrong_usage_exits_2_and_makes_nothing(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    """With the reason, and no folder for a report."""
    result = RUNNER.invoke(
        app, [*arguments, "--out", str(tmp_path / "out")], env={"COLUMNS": "300"}
    )

    assert result.exit_code == 2
    assert words in ESCAPES.sub("", result.output)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_wrong_usage(tmp_path: Path) -> None:
    """Not a missed objective."""
    (tmp_path / "file").touch()

    result = RUNNER.invoke(app, ["--out", str(tmp_path / "file")], env={"COLUMNS": "300"})

    assert result.exit_code == 2
    assert "cannot be made: Not a directory" in ESCAPES.sub("", result.output)


@pytest.mark.parametrize("flag", [[], ["--allow-remote"]])
def test_a_server_that_does_not_answer_exits_3(tmp_path: Path, flag: list[str]) -> None:
    """It is neither met nor missed."""
    result = RUNNER.invoke(app, ["--url", "http://127.0.0.1:9", "--out", str(tmp_path), *flag])

    assert result.exit_code == 3
    assert "does not answer" in result.output
