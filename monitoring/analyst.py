"""The analyst: a process beside a worker, for what takes long and can wait.

Statistics over a hundred thousand decisions take seconds of a core, and in a worker decisions would
wait for them. They are done in a process of their own, which the system runs only while no other
has anything to do (SCHED_IDLE), one question at a time. It reads the record database and writes
nothing: while it held a lock there, decisions would wait for a process that waits for everybody.
What it has counted goes back to the worker, which writes it.

It is started by the first question, and ends when none has come for a while. Questions are the
names and arguments of functions in `Clerk`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from credit_risk.errors import (
    ApplicationInvalid,
    CreditRiskError,
    FieldError,
    KeysInvalid,
    MonitoringFailed,
    Overloaded,
    PackageInvalid,
    PackageNotFound,
    RequestInvalid,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt

    from credit_risk.audit.log import SqlRecords
    from credit_risk.oversight import Oversight
    from credit_risk.package import ModelPackage
    from credit_risk.retraining import MonitoringPolicy
    from credit_risk.settings import Settings
    from credit_risk.windows import Batch, Known, Window

    Floats = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

WAITING_MAX = 4
"""Questions in hand; a caller beyond is turned away at once."""
ANSWER_SECONDS = 120.0
"""A question that takes longer ends the process."""
IDLE_SECONDS = 300.0
"""Without a question for so long, the process is let go, and its memory with it."""
TURN_SECONDS = 0.001
_RETRY_SECONDS = 2.0
_PACKAGES_KEPT = 2
_PROGRAM = "import sys; from monitoring.analyst import main; main(int(sys.argv[1]))"


class Packages(NamedTuple):
    """Where the packages of a portfolio are: the one that is asked about, and all by version."""

    portfolio: str
    version: str
    folders: dict[str, str]


class _Question(NamedTuple):
    name: str
    arguments: tuple[Any, ...]
    answer: Future[Any]


class Analyst:
    """Asks the process, and starts and ends it; safe to call from any thread.

    Args:
        settings: of the server.
        idle_seconds: see `IDLE_SECONDS`.
        answer_seconds: see `ANSWER_SECONDS`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        idle_seconds: float = IDLE_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._settings = settings
        self._idle_seconds = idle_seconds
        self._answer_seconds = answer_seconds
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None

    async def ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as the question has it
        """The answer to a question; a caller who goes away does not end it.

        Raises:
            Overloaded: too many are in hand; nothing was begun.
            MonitoringFailed: the process ended within it, or took too long.
            CreditRiskError: what the question itself came to.
        """
        with self._lock:
            if self._waiting >= WAITING_MAX:
                raise Overloaded(_RETRY_SECONDS)
            self._waiting += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="analyst", daemon=True)
                self._thread.start()
        question = _Question(name, arguments, Future())
        self._questions.put(question)
        return await asyncio.wrap_future(question.answer)

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        if self._thread is not None:
            self._questions.put(None)
            self._thread.join()

    @property
    def running(self) -> int | None:
        """The id of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    def _run(self) -> None:
        while True:
            try:
                question = self._questions.get(timeout=self._idle_seconds)
            except queue.Empty:
                self._end()
                continue
            if question is None:
                self._end()
                return
            wanted = question.answer.set_running_or_notify_cancel()
            found = self._tried(question) if wanted else None
            with self._lock:
                self._waiting -= 1
            if found is not None:
                fault, answer = found
                if fault:
                    question.answer.set_exception(raised(answer))
                else:
                    question.answer.set_result(answer)

    def _tried(self, question: _Question) -> tuple[bool, Any]:
        """See `Clerk.answer`."""
        try:
            return self._answered(question)
        except Exception as error:
            # The boundary: whoever asks is told, whatever it was, and may ask again.
            logger.exception("a question was lost: %s", question.name)
            self._end()
            return True, _Told(MonitoringFailed, type(error).__name__)

    def _answered(self, question: _Question) -> tuple[bool, Any]:
        line = self._started()
        if self._closed:  # asked after it was started, for whoever closes ends what is there
            self._end()
            return True, _Told(MonitoringFailed, "the server stops")
        line.send((question.name, question.arguments))
        if not line.poll(self._answer_seconds):
            self._end()
            told = f"no answer within {self._answer_seconds:g} s"
            return True, _Told(MonitoringFailed, told)
        try:
            found: tuple[bool, Any] = line.recv()
        except (OSError, EOFError):
            self._end()
            return True, _Told(MonitoringFailed, "the process that was asked has ended")
        return found

    def _started(self) -> Connection:
        if self._line is None or self._process is None or self._process.poll() is not None:
            self._end()
            ours, theirs = socket.socketpair()
            with ours, theirs:
                self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own program
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                )
                self._line = Connection(os.dup(ours.fileno()))
            self._line.send(self._settings)
        return self._line

    def _end(self) -> None:
        line, self._line = self._line, None
        process, self._process = self._process, None
        if line is not None:
            line.close()
        if process is not None:
            process.kill()
            process.wait()


class _Told(NamedTuple):
    """An error on its way between processes."""

    kind: type[CreditRiskError]
    text: str
    errors: tuple[FieldError, ...] = ()


def raised(told: _Told) -> CreditRiskError:
    """The error that was told."""
    if issubclass(told.kind, ApplicationInvalid | RequestInvalid):
        return told.kind(told.errors)
    return told.kind(told.text)


def main(descriptor: int) -> None:
    """Answer what is asked through an open socket, until it is closed; of the process itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; whoever asks has the say
    give_way()
    with Connection(descriptor) as line, suppress(EOFError, OSError):
        desk = Clerk(line.recv())
        while True:
            name, arguments = line.recv()
            with taking_turns():
                answer = desk.answer(name, arguments)
            line.send(answer)


def give_way() -> None:
    """Have the system run this process only when it has nothing else to run."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


@contextmanager
def taking_turns() -> Iterator[None]:
    """Within, let others have the core a thousand times a second; in the main thread.

    The lowest priority is one among the processes of a session or container. To others on the
    machine this process is like any, and they wait for the end of its turn: without this, one in a
    hundred of the requests that met a call took half as long again.
    """
    # It stays: a signal that is on its way when the clock is stopped would end the process.
    signal.signal(signal.SIGALRM, lambda *_: os.sched_yield())
    signal.setitimer(signal.ITIMER_REAL, TURN_SECONDS, TURN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


class Clerk:
    """Where questions are answered, in the process itself."""

    def __init__(self, settings: Settings) -> None:
        from credit_risk import kernels  # noqa: PLC0415 - whoever only asks needs none of it

        kernels.keep_compiled(settings.state_dir)
        self._settings = settings
        self._records: SqlRecords | None = None
        self._package: Callable[[str, str], ModelPackage] = lru_cache(_PACKAGES_KEPT)(self._load)
        self._known: dict[str, Known] = {}

    def answer(self, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        """Whether it came to an error, and the answer or the error."""
        try:
            return False, getattr(self, name)(*arguments)
        except (ApplicationInvalid, RequestInvalid) as error:
            return True, _Told(type(error), "", error.errors)
        except CreditRiskError as error:
            return True, _Told(type(error), str(error))
        except Exception as error:
            # The boundary: a question that fails in whatever way ends no other.
            logger.exception("a question failed: %s", name)
            return True, _Told(MonitoringFailed, type(error).__name__)

    def count(self, packages: Packages) -> Batch:
        """Decisions that were not counted yet, see `credit_risk.windows.count`."""
        from credit_risk import windows  # noqa: PLC0415

        def look(version: str) -> Known | None:
            if version not in self._known and version in packages.folders:
                with suppress(PackageInvalid):
                    found = self._package(packages.folders[version], version)
                    self._known[version] = windows.known(found)
            return self._known.get(version)

        return windows.count(self._opened(), packages.portfolio, look)

    def drift(self, packages: Packages, window: Window) -> dict[str, Any]:
        """Drift of the decisions of a window."""
        found = self._oversight(packages)
        return {**found.drift(window), **self._together(found.package, window)}

    def drift_of(self, packages: Packages, body: bytes) -> dict[str, Any]:
        """Drift of the applicants in the body of a request, which is read here: it may be large."""
        from credit_risk import bodies, oversight  # noqa: PLC0415

        try:
            document = bodies.parse(body)
        except ValueError as error:
            raise ApplicationInvalid((FieldError("", bodies.fault(str(error))),)) from None
        rows, version = oversight.posted(document, packages.version)
        packages = packages._replace(version=version)
        found = self._oversight(packages)
        sample = oversight.sample(found.package.schema, rows)
        return {**found.drift_of(sample), **self._together(found.package, sample)}

    def performance(self, packages: Packages, window: Window, now: int) -> dict[str, Any]:
        """How right PDs were."""
        months = self._policy(packages).outcome_months
        return self._oversight(packages).performance(window, now, months)

    def fairness(
        self, packages: Packages, window: Window, attribute: str, reference: str | None
    ) -> dict[str, Any]:
        """Approvals and scores by groups."""
        from credit_risk.audit import keys  # noqa: PLC0415

        sealing = keys.groups_sealing(self._settings)
        if sealing is None:
            raise KeysInvalid("no key of groups is set, and none was made by supplying groups")
        return self._oversight(packages).fairness(window, sealing, attribute, reference)

    def challenger(
        self, packages: Packages, champion: str, window: Window | None
    ) -> dict[str, Any]:
        """A challenger, which is the package asked about, beside the one that decides."""
        from credit_risk import contests  # noqa: PLC0415
        from credit_risk.audit import keys  # noqa: PLC0415

        sides = (self._installed(packages, champion), self._installed(packages, packages.version))
        sealing = keys.groups_sealing(self._settings)
        return contests.told(self._opened(), *sides, window=window, groups_sealing=sealing)

    def retraining(self, packages: Packages, now: int) -> dict[str, Any]:
        """Whether it is time to think of retraining."""
        return self._oversight(packages).retraining(self._policy(packages), now)

    def _together(self, package: ModelPackage, now: Window | Floats) -> dict[str, Any]:
        """Drift of fields together: those of now beside the first that the package decided."""
        from monitoring import multivariate  # noqa: PLC0415

        found = multivariate.look(self._opened(), package, now)
        return {"multivariate": found.model_dump(mode="json")}

    def _opened(self) -> SqlRecords:
        from credit_risk.audit.log import open_records  # noqa: PLC0415

        if self._records is None:
            self._records = open_records(self._settings)
        return self._records

    def _oversight(self, packages: Packages) -> Oversight:
        from credit_risk.oversight import Oversight  # noqa: PLC0415

        return Oversight(self._opened(), self._installed(packages, packages.version))

    def _installed(self, packages: Packages, version: str) -> ModelPackage:
        folder = packages.folders.get(version)
        if folder is None:
            raise PackageNotFound("no package of that version is installed")
        return self._package(folder, version)

    def _policy(self, packages: Packages) -> MonitoringPolicy:
        from credit_risk import portfolio, retraining  # noqa: PLC0415

        folder = portfolio.folder(self._settings.portfolios_dir, packages.portfolio)
        return retraining.read(folder, packages.portfolio)

    def _load(self, folder: str, version: str) -> ModelPackage:
        from credit_risk import package  # noqa: PLC0415

        loaded = package.load(Path(folder), version)
        # What is there now stays. Looked through for garbage again and again, it made counting
        # decisions take a quarter more.
        gc.freeze()
        return loaded
