"""Commands, run in a place of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk import cli
from credit_risk.cli import printing
from credit_risk.serving.store import DEFAULT
from credit_risk.settings import PREFIX
from tests import toys
from tests.commands import (
    ESCAPES,
    PLAIN,
    Outcome,
    Place,
)
from tests.sealing import KEY

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where the commands of a test run; the environment leads there."""
    for name in list(os.environ):
        if name.upper() in PLAIN or name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    toys.write_portfolio(tmp_path / "portfolios")
    shipped = tmp_path / "shipped"
    made = Place(
        tmp_path,
        trees=toys.write_package(shipped, "trees").name,
        linear=toys.write_package(shipped, "linear").name,
    )
    (shipped / toys.NAME / DEFAULT).write_text(f"{made.trees}\n", encoding="utf-8")
    monkeypatch.setenv("CREDIT_RISK_PORTFOLIOS_DIR", str(tmp_path / "portfolios"))
    monkeypatch.setenv("CREDIT_RISK_PACKAGES_DIR", str(shipped))
    monkeypatch.setenv("STATE_DIR", str(made.state))
    monkeypatch.setenv("PORTFOLIO", toys.NAME)
    monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", KEY)  # as of the servers in this process
    monkeypatch.setattr(printing.out, "width", 80)
    return made


@pytest.fixture
def run(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a command as the installed program does."""
    assert place.folder.is_dir()

    def command(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["credit-risk", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return Outcome(code or 0, ESCAPES.sub("", printed.out), ESCAPES.sub("", printed.err))

    return command
