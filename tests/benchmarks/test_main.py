"""The command line: what it refuses before it starts anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.testing import CliRunner

from benchmarks.__main__ import app

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

RUNNER = CliRunner()


def test_a_folder_that_cannot_be_made_is_wrong_usage(tmp_path: Path) -> None:
    """Nothing was missed."""
    (tmp_path / "file").touch()

    ended = RUNNER.invoke(app, ["--out", str(tmp_path / "file" / "out")], env={"COLUMNS": "300"})

    assert ended.exit_code == 2
    assert "cannot be made: Not a directory" in ended.output


def test_a_server_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    """Those that are there are named."""
    ended = RUNNER.invoke(app, ["--only", "triton", "--out", str(tmp_path / "out")])

    assert ended.exit_code == 2
    assert "triton" in ended.output
    assert "ray-serve" in ended.output
    assert not (tmp_path / "out").exists()


def test_without_wrk_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which package to install, and leaves nothing behind."""
    monkeypatch.setenv("PATH", "")

    ended = RUNNER.invoke(app, ["--out", str(tmp_path)])

    assert ended.exit_code == 3
    assert "apt-get install wrk" in ended.output
    assert list(tmp_path.iterdir()) == []
