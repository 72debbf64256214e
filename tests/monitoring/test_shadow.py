"""The shadow: one process at a time, started anew when it ends, and given up in the end."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from credit_risk import shadowing
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import SHADOW
from credit_risk.challenges import challenge_record, in_force
from credit_risk.decisions import new_id
from credit_risk.shadowing import FAILURES_MOST, LEASE, Behind
from monitoring import shadow
from monitoring.follower import EXITS
from monitoring.shadow import LEASE_SECONDS, Shadow
from tests import served, toys
from tests.recorded import decided
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from credit_risk.challenges import Challenge
    from credit_risk.shadowing import Cause, State

SECONDS = 60.0
"""Long enough on any machine."""
# Takes no part in it but for the line: hears of the task, says where it is, and then does this.
FAKE = """\
import os, sys, time
from multiprocessing.connection import Connection
from monitoring.follower import At, Asked, Kept
line = Connection(int(sys.argv[1]))
line.recv()
{}
"""


@dataclass
class Observer:
    """Notes what it is told."""

    numbers: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    ends: list[Cause] = field(default_factory=list)
    behind: Behind | None = None
    given_up: bool = False

    def shadowed(self, _: Challenge, numbers: Mapping[str, int], skipped: int) -> None:
        """Add them up."""
        for name, number in numbers.items():
            self.numbers[name] = self.numbers.get(name, 0) + number
        self.skipped += skipped

    def shadow_ended(self, _: Challenge, cause: Cause) -> None:
        """Why."""
        self.ends.append(cause)

    def shadow_behind(self, portfolio: str, behind: Behind, *, given_up: bool) -> None:
        """The last word counts."""
        assert portfolio == toys.NAME
        self.behind, self.given_up = behind, given_up


class Place:
    """A log, a challenge in it, and the shadow of a worker whose clock is ours."""

    def __init__(self, folder: Path) -> None:
        self.settings = served.settings(folder / "state")
        self.log = SqlAuditLog(self.settings.audit_url, SEALING)
        self.trees = toys.load_package("trees")
        self.linear = toys.load_package("linear")
        for kind in toys.KINDS:
            toys.write_package(folder / "packages", kind)
        self.packages = folder / "packages" / toys.NAME
        self.champion = self.trees.version
        self.challenge: Challenge | None = None
        self.observer = Observer()
        self.now = 0.0
        self.shadow = self.another()
        self.challenged()

    def another(self) -> Shadow:
        """The shadow of another worker."""
        return Shadow(self.settings, self.log, self, self.observer, lambda: self.now)

    def folders(self) -> dict[str, str]:
        """Of the toy packages."""
        return {path.name: str(path) for path in self.packages.iterdir()}

    def challenged(self) -> None:
        """Another challenge by the linear toy is in force."""
        self.log.append([challenge_record(toys.NAME, self.linear, None, 0.0)]).result()
        self.challenge = in_force(self.log, toys.NAME)

    def look(self, seconds: float = LEASE_SECONDS) -> None:
        """Look once, so much later."""
        self.now += seconds
        self.shadow.look()

    def until(self, condition: Callable[[], bool], seconds: float = 0.0) -> None:
        """Look again and again until something is so."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
            self.look(seconds)

    def is_asking(self) -> bool:
        """Whether its process was heard to ask about some applications, and not to be done."""
        running = self.shadow._running  # noqa: SLF001 - what was heard of
        assert running is not None
        return running.at is not None

    def state(self) -> State:
        """How far the challenger is."""
        found = shadowing.state(self.log, toys.NAME)
        assert found is not None
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A shadow that has not looked yet."""
    made = Place(tmp_path)
    yield made
    made.shadow.close()
    made.log.close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the process do this and nothing else."""

    def does(what: str) -> None:
        monkeypatch.setattr(shadow, "_PROGRAM", FAKE.format(what))

    return does


def test_a_real_process_asks_the_challenger_and_gives_way(place: Place) -> None:
    """It writes what the challenger says, and ends with the challenge."""
    place.look()
    place.log.append(decided(place.trees, toys.applications(30))).result()
    place.until(lambda: sum(place.observer.numbers.values()) == 30)
    process = place.shadow.process
    assert process is not None
    threads = [int(task.name) for task in Path(f"/proc/{process}/task").iterdir()]
    schedulers = {os.sched_getscheduler(thread) for thread in threads}
    assert schedulers == {os.SCHED_IDLE, os.SCHED_OTHER}
    assert os.sched_getscheduler(process) == os.SCHED_IDLE

    with place.log.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(SHADOW)).scalar() == 30
    place.look()
    assert place.observer.behind == Behind(0, 0.0)

    # As a service manager tells all of a server to stop: that is no crash of the challenger.
    os.kill(process, signal.SIGTERM)
    place.log.append(decided(place.trees, toys.applications(1))).result()
    place.until(lambda: sum(place.observer.numbers.values()) == 31)
    assert (place.shadow.process, place.observer.ends) == (process, [])

    place.champion = place.linear.version
    place.look()
    assert place.shadow.process is None


def test_without_a_challenge_there_is_no_process(place: Place, fake: Callable[[str], None]) -> None:
    """Nor with one that decides by now, nor once it is ended."""
    fake("line.poll(None)")
    challenge, place.challenge = place.challenge, None
    place.look()
    assert place.shadow.process is None
    assert place.observer.behind == Behind(0, 0.0)

    place.challenge = challenge
    place.look()
    assert place.shadow.process is not None
    place.challenge = None
    place.look()
    assert place.shadow.process is None


def test_another_worker_leaves_it_alone_while_somebody_is_at_it(
    place: Place, fake: Callable[[str], None]
) -> None:
    """By what is in the database, which is the same for all servers."""
    fake("line.poll(None)")
    challenge = place.challenge
    assert challenge is not None

    def taken(until: int) -> None:
        """Somebody is at it until then."""

        def take(connection: sa.Connection) -> None:
            shadowing.take(connection, challenge, new_id(), until - LEASE)

        place.log.append((), alongside=take).result()

    taken(time.time_ns() // 1_000 + 3_600_000_000)
    place.look()
    assert place.shadow.process is None
    with place.log.reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM shadowing")).scalar() == 1
    release(place.log)
    place.look()
    assert place.shadow.process is not None


def test_a_server_without_the_package_leaves_it_to_one_that_has_it(
    place: Place,
    fake: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is no failure of the challenger's; once it is here, it is asked."""
    fake("line.poll(None)")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(place, "folders", lambda: {place.trees.version: "here"})
        place.look()
        place.look()
        assert place.shadow.process is None
        assert caplog.text.count("not installed here") == 1
        assert shadowing.state(place.log, toys.NAME) is None
    place.look()
    assert place.shadow.process is not None


def release(log: SqlAuditLog) -> None:
    """Nobody was heard of for long."""

    def forget(connection: sa.Connection) -> None:
        connection.execute(sa.text("UPDATE shadowing SET until = 0"))

    log.append((), alongside=forget).result()


@pytest.mark.parametrize(
    ("does", "cause"),
    [
        ("os.abort()", "crashed"),
        ("sys.exit(1)", "crashed"),
        (f"sys.exit({EXITS['memory']})", "memory"),
        (f"sys.exit({EXITS['package']})", "package"),
    ],
)
def test_how_it_ended_is_told_and_it_is_started_again_later(
    place: Place,
    fake: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    does: str,
    cause: Cause,
) -> None:
    """With where it was then; not at once."""
    fake(f"line.send(At(4, 7)); {does}")
    place.look()
    place.until(lambda: bool(place.observer.ends))

    assert place.observer.ends == [cause]
    state = place.state()
    assert (state.failures, state.cause) == (1, cause)
    assert (state.lost_first, state.lost_last) == (4, 7)
    assert f"challenger {place.linear.version}: {cause}" in caplog.text
    place.look(shadow.BACK_OFF - 0.1)
    assert place.shadow.process is None
    place.look(0.1)
    assert place.shadow.process is not None


def test_one_that_does_not_go_on_is_ended(place: Place, fake: Callable[[str], None]) -> None:
    """After so long without a word, and not before."""
    fake("line.send(At(4, 7)); line.poll(None)")
    place.look()
    place.until(place.is_asking)
    place.look(place.settings.shadow_seconds - 1.0)
    assert place.observer.ends == []

    place.look(2.0)

    assert place.observer.ends == ["hung"]
    assert place.state().lost_first == 4


def test_one_that_is_busy_for_long_has_a_part_of_a_core_until_it_is_done(
    place: Place, fake: Callable[[str], None]
) -> None:
    """It is stopped between two looks, and goes on where it was; who writes is never stopped."""
    fake("line.send(At(4, 7)); line.poll(0.2); line.send(Asked()); line.poll(None)")
    place.look()
    place.until(place.is_asking)
    assert place.shadow.process is not None

    place.look(shadow.HELD_SECONDS + 0.1)
    await_state(place.shadow.process, "T")

    place.until(lambda: not place.is_asking())
    place.look(shadow.HELD_SECONDS + 0.1)
    await_state(place.shadow.process, "S")
    assert place.observer.ends == []


def test_one_that_is_about_to_write_is_let_go_on_at_once(
    place: Place, fake: Callable[[str], None]
) -> None:
    """Though it was heard of only after it was stopped: it would keep the database's lock."""
    fake("line.send(At(4, 7)); line.send(Asked()); line.poll(None)")
    place.look()
    running = place.shadow._running  # noqa: SLF001 - as if it were not heard of yet
    assert running is not None
    assert running.line.poll(SECONDS)

    place.shadow._hold(running)  # noqa: SLF001

    assert not running.held
    await_state(running.process.pid, "S")


def await_state(process: int, wanted: str) -> None:
    """Wait until it is what proc(5) calls so: T is stopped, S sleeps."""
    deadline = time.monotonic() + SECONDS
    stat = Path(f"/proc/{process}/stat")
    while stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nobody_waits_for_one_that_left_and_does_not_end(
    place: Place, fake: Callable[[str], None]
) -> None:
    """Its worker looks on, and so can stop; in the end it is ended as any that hangs."""
    fake("line.send(At(4, 7)); line.close(); time.sleep(3600)")
    place.look()
    place.until(place.is_asking)
    place.look(place.settings.shadow_seconds - 1.0)
    assert place.observer.ends == []

    place.look(2.0)

    assert place.observer.ends == ["hung"]


def test_one_that_waits_for_a_core_is_not_taken_for_hanging(
    place: Place, fake: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs only while nobody else does, and on a busy machine that may be seldom."""
    waited = [0.0]
    monkeypatch.setattr(shadow, "_waited", lambda _process: waited[0])
    fake("line.poll(None)")
    place.look()

    waited[0] = 2 * place.settings.shadow_seconds
    place.look(2 * place.settings.shadow_seconds)
    assert place.observer.ends == []
    place.look(2 * place.settings.shadow_seconds)
    assert place.observer.ends == ["hung"]


def test_one_that_ends_too_often_is_given_up_until_another_challenge(
    place: Place, fake: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once; nothing is started any more."""
    fake("os.abort()")
    challenge = place.challenge
    assert challenge is not None

    def fail(connection: sa.Connection) -> None:
        for _ in range(FAILURES_MOST - 1):
            end = shadowing.End("crashed")
            shadowing.failed(connection, challenge, "another", end, 0)

    place.log.append((), alongside=fail).result()
    release(place.log)
    place.look()
    place.until(lambda: bool(place.observer.ends))
    for _ in range(3):
        place.look(3_600.0)

    assert place.observer.ends == ["crashed"]
    assert place.observer.given_up
    assert caplog.text.count("given up") == 1
    assert place.shadow.process is None
    place.challenged()
    place.look()
    assert place.shadow.process is not None


def test_what_it_told_is_counted_and_who_finds_another_leaves_quietly(
    place: Place, fake: Callable[[str], None]
) -> None:
    """That is no failure."""
    fake("line.send(Kept({'same': 2, 'failed': 1}, 5)); line.send(Kept({'same': 1})); sys.exit(0)")
    place.look()
    place.until(lambda: place.shadow.process is None)

    assert place.observer.numbers == {"same": 3, "failed": 1}
    assert (place.observer.skipped, place.observer.ends) == (5, [])


def test_its_thread_looks_until_it_is_closed(place: Place, fake: Callable[[str], None]) -> None:
    """And the process does not outlive it."""
    fake("line.poll(None)")
    place.shadow.start()
    deadline = time.monotonic() + SECONDS
    while place.shadow.process is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process = place.shadow.process

    place.shadow.close()

    assert process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_how_long_a_process_waited_is_the_systems_word() -> None:
    """Of this one, some; of none, nothing is known."""
    assert sys.platform == "linux"
    assert shadow._waited(os.getpid()) >= 0.0  # noqa: SLF001 - no other way
    assert shadow._waited(2**22 + 1) == 0.0  # noqa: SLF001 - as above
