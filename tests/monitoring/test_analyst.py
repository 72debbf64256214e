"""The analyst: answers beside the server, gives way to it, and is replaced when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk import windows
from credit_risk.audit.log import SqlAuditLog
from credit_risk.errors import (
    KeysInvalid,
    MonitoringFailed,
    Overloaded,
    PortfolioNotFound,
    RequestInvalid,
)
from credit_risk.windows import HOUR, Window
from monitoring import analyst
from monitoring.analyst import Analyst, Packages
from tests import served, toys
from tests.recorded import NOON, decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.settings import Settings

WINDOW = Window(NOON // HOUR * HOUR, NOON // HOUR * HOUR + HOUR)
ROWS = 120

SECONDS = 60.0
"""Long enough on any machine."""


@dataclass
class Asked:
    """An analyst of a log with some decisions in it."""

    analyst: Analyst
    settings: Settings
    log: SqlAuditLog
    packages: Packages

    def ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as the question has it
        """The answer to a question about the package."""
        return asyncio.run(self.analyst.ask(name, self.packages, *arguments))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """One for all tests here: to start it takes a second."""
    folder = tmp_path_factory.mktemp("analyst")
    settings = served.settings(folder / "state")
    path = toys.write_package(folder / "packages", "trees")
    package = toys.load_package("trees")
    packages = Packages(toys.NAME, package.version, {package.version: str(path)})
    assert path.name == package.version
    with closing(SqlAuditLog(settings.audit_url, SEALING)) as log:
        log.append(decided(package, toys.applications(ROWS))).result()
        made = Analyst(settings)
        yield Asked(made, settings, log, packages)
        made.close()


def test_nothing_runs_before_the_first_question(tmp_path: Path) -> None:
    """Nor is there anything to end."""
    unasked = Analyst(served.settings(tmp_path))

    assert unasked.running is None
    unasked.close()


def test_it_counts_and_compares_what_is_on_record(asked: Asked) -> None:
    """What it counted is written here, and compared there."""
    batch = asked.ask("count")
    asked.log.append((), alongside=windows.keep(batch)).result()

    found = asked.ask("drift", WINDOW)
    assert (batch.done, found["rows"], found["not_counted"]) == (True, ROWS, 0)


def test_it_compares_what_somebody_gives(asked: Asked) -> None:
    """As the body of a request."""
    body = json.dumps({"applications": toys.applications(ROWS)}).encode()

    assert asked.ask("drift_of", body)["rows"] == ROWS


def test_it_runs_when_nothing_else_does(asked: Asked) -> None:
    """All of its threads."""
    asked.ask("drift", WINDOW)
    running = asked.analyst.running
    assert running is not None

    threads = [int(task.name) for task in Path(f"/proc/{running}/task").iterdir()]
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_IDLE}


def test_at_work_it_lets_others_have_the_core_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it is at, and no longer than it is at something."""
    turns: list[float] = []
    monkeypatch.setattr(os, "sched_yield", lambda: turns.append(time.monotonic()))

    deadline = time.monotonic() + SECONDS
    with analyst.taking_turns():
        while len(turns) < 3:
            assert time.monotonic() < deadline

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_a_question_comes_to_is_told(asked: Asked) -> None:
    """By its own kind of error, with the places at fault; the process goes on."""
    asked.ask("drift", WINDOW)
    before = asked.analyst.running

    with pytest.raises(RequestInvalid) as caught:
        asked.ask("drift_of", b'{"applications": [{"surname": "Sentinel"}]}')
    assert [error.pointer for error in caught.value.errors] == ["/applications/0/surname"]
    with pytest.raises(KeysInvalid, match="no key of groups"):
        asked.ask("fairness", WINDOW, "sex", None)
    for question in (("performance", WINDOW, NOON), ("retraining", NOON)):
        with pytest.raises(PortfolioNotFound):
            asked.ask(*question)
    with pytest.raises(MonitoringFailed, match="AttributeError"):
        asked.ask("no such question")
    assert asked.analyst.running == before


def test_a_package_that_is_not_here_is_not_counted_by(asked: Asked) -> None:
    """Its decisions are known all the same."""
    asked.log.append((), alongside=windows.forget(toys.NAME)).result()
    nowhere = asked.packages._replace(folders={asked.packages.version: "/nowhere"})
    unheard = Analyst(asked.settings)
    try:
        batch = asyncio.run(unheard.ask("count", nowhere))
    finally:
        unheard.close()

    assert [(hour.rows, hour.counts) for hour in batch.hours] == [(ROWS, None)]


def test_one_that_was_killed_is_replaced(asked: Asked) -> None:
    """By the next question."""
    asked.ask("drift", WINDOW)
    before = asked.analyst.running
    assert before is not None
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)

    asked.ask("drift", WINDOW)
    assert asked.analyst.running not in {None, before}


def test_one_that_is_killed_at_work_is_told_of(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller may ask again."""
    send = Connection.send

    def and_kill(line: Connection, what: object) -> None:
        send(line, what)
        if isinstance(what, tuple):
            assert asked.analyst.running is not None
            os.kill(asked.analyst.running, signal.SIGSTOP)
            threading.Timer(0.1, os.kill, (asked.analyst.running, signal.SIGKILL)).start()

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "send", and_kill)
        with pytest.raises(MonitoringFailed, match="has ended"):
            asked.ask("drift", WINDOW)
    assert asked.ask("drift", WINDOW)["verdict"]


def test_one_that_takes_too_long_is_ended(asked: Asked) -> None:
    """And so would whatever it does."""
    hasty = Analyst(asked.settings, answer_seconds=0.0)

    with pytest.raises(MonitoringFailed, match="no answer within 0 s"):
        asyncio.run(hasty.ask("drift", asked.packages, WINDOW))
    assert hasty.running is None
    hasty.close()


def test_one_that_nobody_asks_goes(asked: Asked) -> None:
    """With its memory."""
    idle = Analyst(asked.settings, idle_seconds=0.01)
    try:
        asyncio.run(idle.ask("drift", asked.packages, WINDOW))
        while idle.running is not None:
            threading.Event().wait(0.01)
    finally:
        idle.close()


def test_too_many_questions_are_turned_away(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once; a caller who goes away is not waited for."""
    monkeypatch.setattr(analyst, "WAITING_MAX", 2)

    async def many() -> list[Any]:
        asking = [asyncio.create_task(asked.analyst.ask("drift", asked.packages, WINDOW))]
        asking += [asyncio.create_task(asked.analyst.ask("count", asked.packages))]
        asking += [asyncio.create_task(asked.analyst.ask("count", asked.packages))]
        await asyncio.sleep(0)
        asking[1].cancel()
        return await asyncio.gather(*asking, return_exceptions=True)

    first, gone, beyond = asyncio.run(many())
    assert isinstance(first, dict)
    assert isinstance(gone, asyncio.CancelledError)
    assert isinstance(beyond, Overloaded)
    assert asked.ask("drift", WINDOW)["verdict"] == first["verdict"]


def test_one_that_was_closed_answers_no_more(asked: Asked) -> None:
    """Nor is it started again."""
    closed = Analyst(asked.settings)

    async def ask_and_close() -> object:
        asking = asyncio.create_task(closed.ask("drift", asked.packages, WINDOW))
        await asyncio.sleep(0)
        await asyncio.to_thread(closed.close)
        return (await asyncio.gather(asking, return_exceptions=True))[0]

    assert isinstance(asyncio.run(ask_and_close()), MonitoringFailed)
    assert closed.running is None
