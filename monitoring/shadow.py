"""The shadow of a worker: starts the process that asks the challenger, and looks after it.

The process (`monitoring.follower`) asks about what is on record, so that nothing of it is on a
request's way. One at a time does so for each portfolio of a database: each worker of each server
looks whether somebody is at it, and starts one if nobody is. A process that ends by itself, or does
not go on, is started again after a while that doubles each time; after so many times for the same
challenge (`shadowing.FAILURES_MOST`) it is given up, until there is another challenge.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from credit_risk import shadowing
from credit_risk.decisions import new_id
from credit_risk.errors import RecordingFailed
from credit_risk.shadowing import Behind, Cause, End
from monitoring.follower import EXITS, SHARE, At, Kept, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import sqlalchemy as sa

    from credit_risk.audit.log import SqlAuditLog
    from credit_risk.challenges import Challenge
    from credit_risk.settings import Settings
    from credit_risk.shadowing import State

logger = logging.getLogger("credit_risk.shadow")

LOOK_SECONDS = 0.5
"""Between two looks, at the process and at whether there is another challenge."""
LEASE_SECONDS = 5.0
"""Between two looks at the database: who is at it, and how far."""
HELD_SECONDS = 2.0
"""Asked about a few applications for longer than that, a challenger has its part of a core only:
what hangs is often busy, and even what runs when nobody else does slows others."""
WENT_WELL_SECONDS = 3_600.0
"""A process that went on for so long does not count the failures before."""
BACK_OFF, BACK_OFF_MOST = 10.0, 300.0
"""Seconds until a process is started again, twice as many each time: starting takes some of a core,
and what waits meanwhile is on record."""
_PROGRAM = "import sys; from monitoring.follower import main; main(int(sys.argv[1]))"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Contested(Protocol):
    """Where the shadow learns what there is to ask."""

    @property
    def challenge(self) -> Challenge | None:
        """The challenge in force."""

    @property
    def champion(self) -> str:
        """The version that decides."""

    def folders(self) -> dict[str, str]:
        """The folders of installed packages, by version."""


class ShadowObserver(Protocol):
    """Who counts. Called in the shadow's own thread."""

    def shadowed(self, challenge: Challenge, numbers: Mapping[str, int], skipped: int) -> None:
        """The other one was asked about so many decisions, which came out so."""

    def shadow_ended(self, challenge: Challenge, cause: Cause) -> None:
        """The process ended by itself, or was ended because it did not go on."""

    def shadow_behind(self, portfolio: str, behind: Behind, *, given_up: bool) -> None:
        """How far behind the challenger is, and whether nobody asks it any more."""


@dataclass(slots=True)
class _Running:
    """A process, and what was heard of it: ``heard`` and ``waited`` when that was."""

    task: Task
    process: subprocess.Popen[bytes]
    line: Connection
    since: float
    heard: float
    waited: float
    at: At | None = None
    held: bool = False


class Shadow:
    """Looks after the process; see the module's text.

    Args:
        settings: of the server.
        audit: its log.
        contested: what there is to ask.
        observer: who counts.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self,
        settings: Settings,
        audit: SqlAuditLog,
        contested: Contested,
        observer: ShadowObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._contested = contested
        self._observer = observer
        self._clock = clock
        self._holder = new_id()
        self._running: _Running | None = None
        self._not_before = self._look_again = 0.0
        self._told: tuple[str, str] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def process(self) -> int | None:
        """The id of the process, None while there is none."""
        return None if self._running is None else self._running.process.pid

    def start(self) -> None:
        """Look again and again until `close`."""
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._end()

    def look(self) -> None:
        """Look once: begin, go on or end, as there is something to ask.

        Raises:
            RecordingFailed: the database fails.
        """
        challenge, champion = self._contested.challenge, self._contested.champion
        if challenge is not None and challenge.version == champion:
            challenge = None  # it decides by now, and nobody else is to be asked
        if self._running is not None:
            task = self._running.task
            if challenge is None or (task.challenge, task.champion) != (challenge, champion):
                self._end()
                self._not_before = 0.0
            else:
                self._hear(self._running)
        now = self._clock()
        if now < self._look_again:
            return
        self._look_again = now + LEASE_SECONDS
        if challenge is None:
            self._observer.shadow_behind(self._settings.portfolio, Behind(0, 0.0), given_up=False)
            return
        self._look_at(challenge, champion, now)

    def _look_at(self, challenge: Challenge, champion: str, now: float) -> None:
        """See in the database how far the challenger is, and start a process if nobody has one."""
        micros = time.time_ns() // 1_000
        found = shadowing.state(self._audit, challenge.portfolio)
        if found is not None and found.challenge != challenge.id:
            found = None
        given_up = found is not None and found.given_up
        if found is not None:
            behind = shadowing.behind(self._audit, challenge.portfolio, found.sequence, micros)
            self._observer.shadow_behind(challenge.portfolio, behind, given_up=given_up)
        if given_up:
            self._say(challenge, "given up: its process ended too often")
        elif self._running is None and now < self._not_before:
            self._look_again = min(self._look_again, self._not_before)
        elif self._running is None:
            theirs = found is not None and found.holder != self._holder and found.until > micros
            folders = {} if theirs else self._contested.folders()
            if challenge.version in folders:
                self._begin(Task(self._settings, challenge, champion, folders, self._holder), now)
            elif not theirs:
                # No fault of the challenger's: a server that has it may ask.
                self._say(challenge, "its package is not installed here")

    def _run(self) -> None:
        failing = False
        while not self._stop.is_set():
            try:
                self.look()
                failing = False
            except RecordingFailed as error:
                if not failing:
                    logger.warning("the challenger is not looked after: %s", error)
                failing = True
            except Exception:
                # What nobody foresaw is no reason not to look again.
                logger.exception("the challenger could not be looked after")
            self._stop.wait(LOOK_SECONDS)

    def _begin(self, task: Task, now: float) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, our own program
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
            )
            line = Connection(os.dup(ours.fileno()))
        line.send(task)
        self._running = _Running(task, process, line, now, now, _waited(process.pid))

    def _hear(self, running: _Running) -> None:
        """What the process told; that it has ended, or does not go on."""
        if running.held:
            self._let_go(running)
            self._stop.wait(LOOK_SECONDS * SHARE)
        try:
            while running.line.poll(0):
                told = running.line.recv()
                running.heard, running.waited = self._clock(), _waited(running.process.pid)
                if isinstance(told, Kept):
                    self._observer.shadowed(running.task.challenge, *told)
                running.at = told if isinstance(told, At) else None
        except (OSError, EOFError):
            # It closes the line before it ends; while it is about to, nobody waits for it.
            code = running.process.poll()
            if code is not None:
                self._ended(running, code)
                return
        waited = _waited(running.process.pid) - running.waited
        silent = self._clock() - running.heard - waited
        if silent > self._settings.shadow_seconds:
            self._fail(running, "hung")
        elif silent > HELD_SECONDS and running.at is not None:
            self._hold(running)

    def _hold(self, running: _Running) -> None:
        """Stop the process until the next look, unless it is done with asking.

        It says so before it writes: stopped within, it would keep the database's lock.
        """
        running.process.send_signal(signal.SIGSTOP)
        running.held = True
        if running.line.poll(0):
            self._let_go(running)

    @staticmethod
    def _let_go(running: _Running) -> None:
        running.process.send_signal(signal.SIGCONT)
        running.held = False

    def _ended(self, running: _Running, code: int) -> None:
        if code == 0:
            self._end()  # somebody else asks
            return
        causes = {number: cause for cause, number in EXITS.items()}
        cause: Cause = "crashed"
        if causes.get(code) == "memory":
            cause = "memory"
        elif causes.get(code) == "package":
            cause = "package"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._fail(running, cause, how)

    def _fail(self, running: _Running, cause: Cause, how: str = "") -> None:
        """Note that the process ended, and when the next may begin."""
        challenge, now = running.task.challenge, self._clock()
        self._end()
        self._observer.shadow_ended(challenge, cause)
        within = None if running.at is None else (running.at.first, running.at.last)
        end = End(cause, within, went_well=now - running.since > WENT_WELL_SECONDS)
        noted: list[State | None] = []

        def note(connection: sa.Connection) -> None:
            found = shadowing.failed(
                connection, challenge, self._holder, end, time.time_ns() // 1_000
            )
            noted[:] = [found]

        self._not_before = now + BACK_OFF
        self._audit.append((), alongside=note).result()
        after = noted[0]
        if after is None:
            return
        seconds = min(BACK_OFF * 2.0 ** (after.failures - 1), BACK_OFF_MOST)
        self._not_before = now + seconds
        self._look_again = 0.0
        self._say(
            challenge,
            f"{cause}{f' ({how})' if how else ''}, {after.failures} times so far; "
            f"asked again in {seconds:g} s",
        )

    def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.line.close()
            running.process.kill()
            running.process.wait()

    def _say(self, challenge: Challenge, what: str) -> None:
        """Say something of a challenge, unless it is what was said last."""
        if self._told != (challenge.id, what):
            self._told = (challenge.id, what)
            logger.warning("challenger %s: %s", challenge.version, what)


def _waited(process: int) -> float:
    """Seconds that the process was ready to go on and no core was free, as far as is known.

    What is asked only while nobody else has anything to do waits long on a busy machine, and is
    not to be taken for hanging then (Linux, Documentation/scheduler/sched-stats).
    """
    try:
        fields = Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split()
        return int(fields[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
