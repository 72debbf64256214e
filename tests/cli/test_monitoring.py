"""`python -m monitoring run`."""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest

from credit_risk import cli
from credit_risk.errors import RecordingFailed
from credit_risk.settings import Settings
from monitoring import __main__ as command
from monitoring import job, logs
from monitoring.__main__ import Watch, app
from tests import toys
from tests.commands import ESCAPES, Outcome, Place, decide, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from credit_risk.package import ModelPackage

POLICY = """\
portfolio: bicycle-leases
version: 1.0.0
limits:
  field_psi: {watch: 0.1}
"""


@pytest.fixture
def watching(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run the command as the program does, in a portfolio that is watched."""
    file = place.folder / "portfolios" / toys.NAME / "monitoring.yaml"
    file.write_text(POLICY, encoding="utf-8")
    # This process has more tests to run.
    monkeypatch.setattr(job, "give_way", lambda: None)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["monitoring", "run", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main(app)
        printed = capsys.readouterr()
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return Outcome(code or 0, ESCAPES.sub("", printed.out), ESCAPES.sub("", printed.err))

    return run


def test_a_run_says_what_was_found_and_writes_a_report(
    watching: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """For people, and as JSON for programs; the second run has nothing to count."""
    decide(place, trees_package, toys.SAFE, toys.RISKY)
    folder = place.folder / "reports"

    told = watching("--report", str(folder))
    assert told.code == 0
    header, row = told.out.splitlines()
    assert header.split()[:3] == ["portfolio", "model", "retraining"]
    assert row.split()[:4] == [toys.NAME, place.trees, "WATCH", "too-few"]
    assert f"reports: {folder / 'index.html'}" in told.err
    assert {path.name for path in folder.iterdir()} == {
        *("index.html", f"{toys.NAME}-{place.trees}.html"),
    }

    (found,) = watching("--json", "--once").json()
    assert found["model_version"] == place.trees
    assert found["decides"]
    assert (found["applicants"], found["outcomes"]) == (2, 0)
    assert found["reasons"]


def test_everything_can_be_counted_anew(
    watching: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """As after a package was missing."""
    decide(place, trees_package, toys.SAFE)

    assert watching("--json").json()[0]["applicants"] == 1
    assert watching("--json", "--recount").json()[0]["applicants"] == 1


def test_a_portfolio_that_cannot_be_looked_at_keeps_no_other_from_it(
    watching: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """It is named, and the exit code says so."""
    decide(place, trees_package, toys.SAFE)
    other = place.folder / "portfolios" / "a-portfolio"
    other.mkdir()
    (other / "schema.yaml").write_text("portfolio: a-portfolio", encoding="utf-8")

    told = watching("--json")
    assert told.code == 1
    assert [found["portfolio"] for found in told.json()] == [toys.NAME]
    assert "error: a-portfolio: " in told.err
    assert "monitoring.yaml" in told.err
    assert watching("--json", "--portfolio", toys.NAME).code == 0


def test_a_package_that_is_not_whole_is_left_out(
    watching: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """And said to be."""
    decide(place, trees_package, toys.SAFE)
    (place.folder / "shipped" / toys.NAME / place.trees / "model.json").write_bytes(b"{}")

    told = watching("--json")
    assert told.json() == []
    assert "left out: " in told.err


def test_wrong_usage_is_refused(watching: Callable[..., Outcome], place: Place) -> None:
    """Before anything is made."""
    assert watching("--once", "--every", "5").code == 2
    assert watching("--metrics-port", "9000").code == 2
    for minutes in ("nan", "inf", "1e300", "0"):
        assert watching("--every", minutes).code == 2
    refused(watching("--portfolio", "nobody"), 3, "nobody")
    refused(watching(), 3, "does not exist")
    assert not place.state.exists() or not list(place.state.glob("*.db"))


def test_a_port_that_is_taken_is_told(
    watching: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """It does not go on without metrics that somebody waits for."""
    decide(place, trees_package, toys.SAFE)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

        refused(watching("--every", "5", "--metrics-port", str(port)), 1, f"127.0.0.1:{port}")


class Failing:
    """Of what is looked at again and again, what comes of it each time."""

    settings = Settings()

    def __init__(self, *outcomes: Exception | dict[str, str] | KeyboardInterrupt) -> None:
        self.outcomes = list(outcomes)
        self.pages: dict[str, Any] = {}

    def once(self, names: Sequence[str], shown: Callable[[int, int], None]) -> dict[str, str]:
        """The next of them."""
        assert names == ["loans"]
        shown(1, 1)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def test_an_outage_does_not_end_who_looks_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and so is a portfolio that cannot be looked at."""
    for name in ("configure", "capture"):
        monkeypatch.setattr(logs, name, lambda *_: None)
    failing = Failing(
        RecordingFailed("the record database is away"),
        OSError("the disk is full"),
        {"loans": "its policy is wrong"},
        KeyboardInterrupt(),
    )

    with pytest.raises(KeyboardInterrupt):
        command._go_on(cast("Watch", failing), ["loans"], 0.001)  # noqa: SLF001 - ends by a signal

    assert [record.getMessage() for record in caplog.records] == [
        "monitoring failed, and is tried again: the record database is away",
        "monitoring failed, and is tried again: the disk is full",
        "loans: its policy is wrong",
    ]
