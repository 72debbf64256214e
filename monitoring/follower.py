"""The follower: the process that asks a challenger about what was decided.

It follows the chain of records, opens the applications with the server's keys, asks the package
that did not decide, and writes what it says beside the chain (`credit_risk.shadowing`). It is the
one to suffer for a challenger that hangs, crashes or eats memory: whoever started it
(`monitoring.shadow`) hears of each step, ends it and starts it again.

The system runs what computes only while nobody else has anything to do. What reads and writes is
another thread, of usual priority: whoever waits for everybody must not hold a lock that others wait
for. While that thread works the other one waits for it, and has not the interpreter's lock either.
"""

from __future__ import annotations

import ctypes
import logging
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import takewhile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from credit_risk.errors import Conflict, CreditRiskError, RecordingFailed
from monitoring import logs
from monitoring.analyst import give_way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from credit_risk.audit.beside import Beside
    from credit_risk.audit.log import SqlRecords
    from credit_risk.challenges import Challenge
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision
    from credit_risk.settings import Settings
    from credit_risk.shadowing import Chunk, Made, Said, State

    Results: TypeAlias = list[Decision | Exception]

logger = logging.getLogger("credit_risk.shadow")

PAUSE_SECONDS = 0.5
"""Between two looks for decisions, as long as few come: few transactions, with many rows each."""
SHARE = 0.05
"""Of a core's time, so much is used at most while many come: on cores that share their units, what
is only run when nobody else is slows others all the same. What waits meanwhile is on record."""
PIECE_SECONDS = 0.1
"""Of a core: about so long the challenger is asked before the next step is told of."""
PIECE_ROWS = 256
FIRST_ROWS = 16
"""Rows of a piece before anything was timed; of a slow model, one."""
TIMED_EVERY = 4
"""Each so manieth piece is put to the package that decided too, to be timed on the same rows."""
_SMOOTHING = 0.2
OOM_SCORE = "/proc/self/oom_score_adj"
EXITS = {"memory": 12, "package": 13}
"""How the process ends where it can still say why."""
_PR_SET_PDEATHSIG = 1
_MEGABYTE = 1_048_576

T = TypeVar("T")


class Task(NamedTuple):
    """What to do: ask this challenger, or the champion about what the challenger decided.

    ``folders`` are those of installed packages, by version.
    """

    settings: Settings
    challenge: Challenge
    champion: str
    folders: dict[str, str]
    holder: str


class At(NamedTuple):
    """The challenger is going to be asked about the decisions between these places."""

    first: int
    last: int


class Asked(NamedTuple):
    """It was asked; what it said is going to be written, and who writes must not be stopped."""


class Kept(NamedTuple):
    """It was written what was said: how many are the same, milder, stricter, or failed."""

    numbers: dict[str, int]
    skipped: int = 0


class Idle(NamedTuple):
    """There was nothing to ask about, or the database did not answer."""


def main(descriptor: int) -> None:
    """Do what comes through an open socket, until it is closed; of the process itself."""
    # A terminal's, or a service manager's to all of a server: whoever started this has the say, and
    # is not to take for the challenger's crash that the server stops.
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with Connection(descriptor) as line, ThreadPoolExecutor(1) as database:
        database.submit(int).result()  # begins the thread, before this one gives way
        give_way()
        try:
            task: Task = line.recv()
            expendable(task.settings.shadow_memory_mb * _MEGABYTE)
            follow(task, line, lambda work: database.submit(work).result())
        except (OSError, EOFError):
            return  # whoever started this has gone
        except MemoryError:
            sys.exit(EXITS["memory"])


def expendable(memory: int) -> None:
    """Have this process fail first where memory is short, and at so many bytes of its own.

    Nor does it leave its memory on disk, with keys and applications in it.
    """
    with suppress(OSError):
        Path(OOM_SCORE).write_text("1000", encoding="ascii")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def follow(task: Task, line: Connection, on_database: Callable[[Callable[[], Any]], Any]) -> None:
    """Ask about all that is decided, until the line is closed or somebody else asks.

    Args:
        task: what to do.
        line: to whoever started this.
        on_database: does something with the database, and waits for it.
    """
    # Here and not above: whoever starts this process needs none of it.
    from credit_risk import kernels  # noqa: PLC0415

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logs.Line())
    logging.basicConfig(level=task.settings.log_level, handlers=[handler])
    kernels.keep_compiled(task.settings.state_dir)
    try:
        packages = Packages(task)
    except CreditRiskError as error:
        logger.error("challenger %s cannot be asked: %s", task.challenge.version, error)  # noqa: TRY400 - the error says it
        sys.exit(EXITS["package"])
    follower: Follower | None = None
    answers = True
    while True:
        busy, began = False, time.process_time()
        try:
            if follower is None:
                records, beside = on_database(partial(_opened, task.settings))
                follower = Follower(task, packages, records, beside, on_database, line.send)
            busy = follower.step()
        except Conflict:
            return
        except RecordingFailed as error:
            if answers:
                logger.warning("nothing is asked until the database answers: %s", error)
            line.send(Idle())
            answers = False
        else:
            answers = True
            if follower.left:
                return
        rest = (time.process_time() - began) * (1.0 / SHARE - 1.0) if busy else PAUSE_SECONDS
        if line.poll(rest):
            return


def _opened(settings: Settings) -> tuple[SqlRecords, Beside]:
    from credit_risk.audit.beside import Beside  # noqa: PLC0415
    from credit_risk.audit.log import open_records  # noqa: PLC0415

    return open_records(settings), Beside(settings.audit_url)


class Packages:
    """The packages of a task: the challenger, the champion, and others that decided, if here.

    Raises:
        PackageInvalid: the challenger does not hold, or answers a golden record differently.
        ExplanationFailed: it cannot explain one.
    """

    def __init__(self, task: Task) -> None:
        self._folders = task.folders
        self._loaded: dict[str, ModelPackage | None] = {}
        self.challenger = self._checked(task.challenge.version)
        self.champion = self.of(task.champion)

    def of(self, version: str) -> ModelPackage | None:
        """The package of a version; None where it is not here or does not hold."""
        if version not in self._loaded:
            self._loaded[version] = None
            if version in self._folders:
                with suppress(CreditRiskError):
                    self._loaded[version] = self._checked(version)
        return self._loaded[version]

    def _checked(self, version: str) -> ModelPackage:
        from credit_risk import package, scoring  # noqa: PLC0415

        loaded = package.load(Path(self._folders[version]), version)
        scoring.check_golden(loaded)  # also so that nothing is timed that is done but once
        self._loaded[version] = loaded
        return loaded


class Follower:
    """Goes along the chain, step by step.

    Args:
        task: what to do.
        packages: of the task.
        records: where decisions are read, and opened.
        beside: where what is said is written.
        on_database: see `follow`.
        told: hears of each step: `At`, `Asked`, `Kept`, `Idle`.
        clock: of the process, seconds of a core.
    """

    def __init__(  # noqa: PLR0917 - collaborators, each of a type of its own
        self,
        task: Task,
        packages: Packages,
        records: SqlRecords,
        beside: Beside,
        on_database: Callable[[Callable[[], Any]], Any],
        told: Callable[[At | Asked | Kept | Idle], None],
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._task = task
        self._packages = packages
        self._records = records
        self._beside = beside
        self._on_database = on_database
        self._told = told
        self._clock = clock
        self._state: State | None = None
        self._cost: float | None = None
        self._pieces_asked = 0
        self.left = False

    def step(self) -> bool:
        """Ask about the next decisions; whether there are more at once.

        ``left`` is true from when somebody else asks.

        Raises:
            Conflict: somebody else asks meanwhile.
            RecordingFailed: the database fails; nothing is lost.
        """
        from credit_risk import shadowing  # noqa: PLC0415

        challenge = self._task.challenge
        if self._state is None:
            taking = partial(self._take, shadowing.take)
            self._state = self._on_database(taking)
            self.left = self._state is None
            if self._state is None:
                return False
            # Here, and not where processes are started: of several workers' one goes on.
            logger.info("challenger %s is asked from now on", challenge.version)
        state = self._state
        reading = partial(shadowing.read, self._records, challenge.portfolio, state.sequence)
        chunk: Chunk = self._on_database(reading)
        behind = chunk.end - state.sequence
        if behind > self._task.settings.shadow_behind_max:
            logger.warning("%d records are skipped: the challenger is too far behind", behind)
            self._keep(state, (), chunk.end, skipped=behind)
            return True
        is_full = chunk.upto < chunk.end
        due = _now() > state.until - 2 * shadowing.LEASE // 3
        if chunk.decisions or is_full or due:
            said = [*self._asked(chunk.decisions, state)]
            self._told(Asked())
            self._keep(state, said, chunk.upto)
        else:
            self._told(Idle())
        return is_full

    def _take(self, take: Callable[..., State | None]) -> State | None:
        with self._beside.writing() as connection:
            return take(connection, self._task.challenge, self._task.holder, _now())

    def _keep(
        self, state: State, said: Sequence[tuple[Made, Said]], upto: int, *, skipped: int = 0
    ) -> None:
        from credit_risk import shadowing  # noqa: PLC0415

        def keep() -> State:
            with self._beside.writing() as connection:
                return shadowing.keep(connection, state, said, upto, _now(), skipped=skipped)

        self._state = self._on_database(keep)
        self._told(_kept(said, self._task.challenge.version, skipped))

    def _asked(self, decisions: Sequence[Made], state: State) -> Iterator[tuple[Made, Said]]:
        """What is said of decisions, in order; those that cannot be opened are left out."""
        from credit_risk.shadowing import Said  # noqa: PLC0415

        at = 0
        while at < len(decisions):
            first = decisions[at]
            if _was_lost(first, state):
                # The process ended among these the last time: one by one it is found where.
                piece = decisions[at : at + 1]
            else:
                piece = list(
                    takewhile(
                        lambda made: not _was_lost(made, state),
                        decisions[at : at + self._room()],
                    )
                )
            at += len(piece)
            if _was_lost(first, state) and state.lost_first == state.lost_last:
                yield first, Said(self._other(first), error=state.cause)
                continue
            self._told(At(piece[0].sequence, piece[-1].sequence))
            yield from self._said(piece)

    def _other(self, made: Made) -> str:
        """Who is asked about a decision: the challenger, or of its own decisions the champion."""
        challenger = self._task.challenge.version
        return self._task.champion if made.model_version == challenger else challenger

    def _room(self) -> int:
        if self._cost is None:
            return 1 if self._packages.challenger.model.slow else FIRST_ROWS
        return min(max(int(PIECE_SECONDS / max(self._cost, 1e-9)), 1), PIECE_ROWS)

    def _said(self, piece: Sequence[Made]) -> Iterator[tuple[Made, Said]]:
        from credit_risk.windows import application_of  # noqa: PLC0415

        self._pieces_asked += 1
        asked: dict[tuple[str, str], list[tuple[Made, dict[str, Any]]]] = {}
        for made in piece:
            given = application_of(self._records, made.id, made.sealed, made.data_key)
            if given is not None:
                of = (self._other(made), made.model_version)
                asked.setdefault(of, []).append((made, given))
        found = {}
        for (other, decider), rows in asked.items():
            said = self._of(other, decider, [given for _, given in rows])
            found.update(
                {made.sequence: (made, one) for (made, _), one in zip(rows, said, strict=True)}
            )
        yield from (found[place] for place in sorted(found))

    def _of(self, other: str, decider: str, given: list[dict[str, Any]]) -> list[Said]:
        """What a package says of applications that another one decided about."""
        from credit_risk.errors import ApplicationInvalid  # noqa: PLC0415
        from credit_risk.shadowing import Said  # noqa: PLC0415

        package = self._packages.of(other)
        if package is None:
            return [Said(other, error="PackageNotFound")] * len(given)
        checked = package.schema.validate_applications(given)
        valid = [one for one in checked if not isinstance(one, ApplicationInvalid)]
        beside = None
        if self._pieces_asked % TIMED_EVERY == 1 and len(valid) == len(given):
            beside = self._packages.of(decider)
        first_beside = self._pieces_asked % (2 * TIMED_EVERY) == 1
        made_seconds = None
        if beside is not None and first_beside:
            made_seconds = self._timed(beside, given)[1]
        results, seconds = self._timed(package, valid)
        if beside is not None and not first_beside:
            made_seconds = self._timed(beside, given)[1]
        if valid and package is self._packages.challenger:
            known = seconds if self._cost is None else self._cost
            self._cost = known + _SMOOTHING * (seconds - known)
        answered = iter(results)
        said = []
        for one in checked:
            result = one if isinstance(one, ApplicationInvalid) else next(answered)
            if isinstance(result, Exception):
                said.append(Said(other, error=type(result).__name__))
                continue
            outcome, reasons = result.outcome, result.reasons
            said.append(
                Said(
                    model_version=other,
                    pd=result.probability_of_default,
                    decision=outcome.decision,
                    band=outcome.band,
                    reason=reasons[0].code if reasons else None,
                    seconds=seconds,
                    made_seconds=made_seconds,
                )
            )
        return said

    def _timed(
        self, package: ModelPackage, applications: Sequence[Application]
    ) -> tuple[Results, float]:
        """What a package answers, and the seconds of a core that one row took."""
        began = self._clock()
        results = _answers(package, applications)
        return results, (self._clock() - began) / max(len(applications), 1)


def _answers(package: ModelPackage, applications: Sequence[Application]) -> Results:
    """A decision about each application, or why there is none.

    Raises:
        MemoryError: there is none left, and nothing to be had from going on.
    """
    from credit_risk import scoring  # noqa: PLC0415

    try:
        return [*scoring.decide(package, applications)]
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - it is what the challenger says, or one by one
        if len(applications) == 1:
            return [error]
        return [_answers(package, [one])[0] for one in applications]


def _was_lost(made: Made, state: State) -> bool:
    """Whether the process ended when the challenger was asked about this one, among others."""
    first, last = state.lost_first, state.lost_last
    return first is not None and last is not None and first <= made.sequence <= last


def _kept(said: Sequence[tuple[Made, Said]], challenger: str, skipped: int) -> Kept:
    """How many of the pairs agree, and how the challenger differs where they do not."""
    from credit_risk.policy import SEVERITY  # noqa: PLC0415

    numbers = {"same": 0, "milder": 0, "stricter": 0, "failed": 0}
    for made, one in said:
        if one.decision is None:
            numbers["failed"] += 1
            continue
        apart = SEVERITY[one.decision] - SEVERITY[made.decision]
        if made.model_version == challenger:
            apart = -apart
        numbers["milder" if apart < 0 else "stricter" if apart else "same"] += 1
    return Kept(numbers, skipped)


def _now() -> int:
    return time.time_ns() // 1_000
