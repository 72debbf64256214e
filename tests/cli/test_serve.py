"""`credit-risk serve`, up to where BentoML takes over."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk.serving.store import DEFAULT
from tests import toys
from tests.commands import (
    ROOT,
    Outcome,
    Place,
    refused,
)
from tests.signing import ADA, write_approvers, write_key

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What would have replaced this process: command and environment."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        assert path == command[0] == sys.executable
        calls.append((command, environment))

    monkeypatch.setattr(os, "execve", execve)
    return calls


def test_serving_hands_over_to_bentoml(
    run: Callable[..., Outcome],
    place: Place,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With host, port and times, and a home of BentoML's under the state directory."""
    monkeypatch.setenv("PORT", "4321")
    monkeypatch.setenv("CREDIT_RISK_KEEP_ALIVE_SECONDS", "20")
    monkeypatch.setenv("CREDIT_RISK_SHUTDOWN_SECONDS", "45")
    monkeypatch.setenv("CREDIT_RISK_WORKERS", "1")
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("STATE_DIR", "state")
    monkeypatch.setenv("CREDIT_RISK_PACKAGES_DIR", "shipped")
    monkeypatch.setenv("CREDIT_RISK_PORTFOLIOS_DIR", "portfolios")
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", "sqlite:///my.db")

    said = run("serve").err

    assert said == (
        f"serving {toys.NAME} {place.trees} on http://127.0.0.1:4321 with 1 worker, "
        f"state under {place.state}\n"
    )
    ((command, environment),) = executed
    assert command[1:5] == ["-m", "bentoml", "serve", "service:CreditRiskServer"]
    options = dict(zip(command[5::2], command[6::2], strict=True))
    assert options == {
        "--working-dir": str(ROOT),
        "--host": "127.0.0.1",
        "--port": "4321",
        "--timeout-keep-alive": "20",
        "--timeout-graceful-shutdown": "45",
    }
    assert environment["CREDIT_RISK_STATE_DIR"] == str(place.state)
    assert environment["BENTOML_HOME"] == str(place.state / "bentoml")
    assert environment["BENTOML_DO_NOT_TRACK"] == "True"
    assert environment["CREDIT_RISK_WORKERS"] == "1"
    assert environment["CREDIT_RISK_PACKAGES_DIR"] == str(place.folder / "shipped")
    assert Path(environment["CREDIT_RISK_REGIMES_DIR"]).is_absolute()
    assert environment["CREDIT_RISK_PORTFOLIOS_DIR"] == str(place.folder / "portfolios")
    assert environment["CREDIT_RISK_DATABASE_URL"] == f"sqlite:///{place.folder}/my.db"


def test_a_package_that_too_few_have_signed_is_one_line_and_not_a_server(
    run: Callable[..., Outcome],
    place: Place,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once it is signed, workers are told where the file of approvers is: they run elsewhere."""
    monkeypatch.chdir(place.folder)
    write_approvers(place.folder)
    monkeypatch.setenv("CREDIT_RISK_APPROVERS_FILE", "approvers.yaml")
    monkeypatch.setenv("CREDIT_RISK_REQUIRED_SIGNATURES", "1")
    refused(run("serve"), 1, f"package {place.trees} is signed by 0 approvers (nobody)")
    assert executed == []

    run("approve", place.trees, "--key", str(write_key(place.folder, ADA)))
    assert run("serve").err.startswith(f"serving {toys.NAME} {place.trees}")

    ((_, environment),) = executed
    assert environment["CREDIT_RISK_APPROVERS_FILE"] == str(place.folder / "approvers.yaml")


def test_a_regime_that_cannot_be_gone_by_is_one_line_and_not_a_server(
    run: Callable[..., Outcome],
    place: Place,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not there, or wrong."""
    monkeypatch.setenv("CREDIT_RISK_REGIMES_DIR", str(place.folder))
    monkeypatch.setenv("CREDIT_RISK_REGIME", "bicycle-law")
    refused(run("serve"), 3, "no regime 'bicycle-law'")

    (place.folder / "bicycle-law.yaml").write_text("id: bicycle-law\n", encoding="utf-8")
    refused(run("serve"), 1, "bicycle-law.yaml: version: Field required")
    assert executed == []


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("DELETE FROM head", "has 0 heads"),
        ("INSERT INTO head SELECT 'another', sequence, hash FROM head", "has 2 heads"),
        ("UPDATE head SET sequence = 0", "was set back to 0: the last is 1"),
    ],
)
def test_a_chain_that_nothing_can_be_added_to_is_one_line_and_not_a_server(
    run: Callable[..., Outcome],
    place: Place,
    executed: list[tuple[list[str], dict[str, str]]],
    harm: str,
    told: str,
) -> None:
    """No second chain begins beside it."""
    run("models", "activate", place.trees)
    with closing(sqlite3.connect(place.state / "records.db")) as database, database:
        database.execute(harm)
        before = database.execute("SELECT * FROM head").fetchall()
    refused(run("serve"), 4, told)
    with closing(sqlite3.connect(place.state / "records.db")) as database:
        assert database.execute("SELECT * FROM head").fetchall() == before
        assert database.execute("SELECT count(*) FROM records").fetchone() == (1,)
    assert executed == []


def test_a_package_that_cannot_serve_is_one_line_and_not_a_server(
    run: Callable[..., Outcome],
    place: Place,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Altered, not installed, or none at all: told before a worker starts."""
    run("models", "activate", place.trees)
    place.alter(place.trees, "trees.npz")
    refused(run("serve"), 1, "trees.npz was altered")

    monkeypatch.setenv("MODEL_VERSION", "0123456789ab")
    refused(run("serve"), 3, "no package 0123456789ab")
    monkeypatch.delenv("MODEL_VERSION")

    (place.folder / "shipped" / toys.NAME / DEFAULT).unlink()
    monkeypatch.setenv("STATE_DIR", str(place.folder / "another"))
    refused(run("serve"), 3, f"portfolio {toys.NAME} ships no package")
    assert executed == []
