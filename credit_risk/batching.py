"""Batching: applications of many callers scored together, without anybody waiting for company.

A batch is whatever is waiting when the one before is done, so its size follows the load: one row
on an idle server, which scores it at once, and dozens on a busy one, where numpy's cost per call,
or a pipeline's, is shared. No timer is involved, and none could make an idle server faster.

Rows per batch are bounded by what they were measured to cost, so that nothing else in the process
waits long; a call with more rows is scored in turns with the others. Quick models run on the event
loop. A model that says it is ``slow`` runs on one thread beside it, and the loop goes on answering;
so does one that nobody vouches for yet. Nobody waits for that thread when the process ends.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeAlias

from credit_risk import scoring
from credit_risk.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credit_risk.decisions import Call
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision

    Result: TypeAlias = Decision | Exception
    _Work: TypeAlias = tuple[asyncio.AbstractEventLoop, "_Batch", asyncio.Future["_Scored"]]

TURN_SECONDS = 0.002
"""A batch on the event loop takes about so long at most: so long may another request wait."""
SLOW_TURN_SECONDS = 0.1
"""The same for a batch on the thread, where only other rows wait."""
TURN_ROWS_MAX = 256
FIRST_TURN_ROWS = 16
"""Rows of a batch before anything was measured."""
CLOSE_SECONDS = 1.0
_SMOOTHING = 0.2


class BatchObserver(Protocol):
    """Who counts batches. Called on the event loop, so it must be quick and never fail."""

    def batched(self, batch: Batched) -> None:
        """A batch was scored."""


@dataclass(frozen=True, slots=True)
class Batched:
    """One batch, for who counts.

    ``waited`` is the longest wait in it, seconds, ``waiting`` the rows it left, ``began`` and
    ``ended`` are `time.perf_counter`, ``stages`` those in between, each with its end, unless rows
    had to be scored one by one; ``traces`` are those of its calls that are followed.
    """

    package: ModelPackage
    rows: int
    waited: float
    waiting: int
    began: float
    ended: float
    stages: Sequence[tuple[str, float]] = ()
    traces: tuple[object, ...] = ()


@dataclass(slots=True, eq=False)
class _Call:
    """The rows of one caller, and how far they are."""

    package: ModelPackage
    applications: Sequence[Application]
    explain: bool
    future: asyncio.Future[list[Result]]
    caller: Call | None
    since: float = field(default_factory=time.perf_counter)
    taken: int = 0
    results: list[Result] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """Rows of one package, and whose they are."""

    package: ModelPackage
    waited: float
    applications: list[Application] = field(default_factory=list)
    explain: list[bool] = field(default_factory=list)
    parts: list[tuple[_Call, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Scored:
    """The results of a batch, one per row, and when they were made."""

    results: list[Result]
    began: float
    ended: float
    stages: Sequence[tuple[str, float]]


class Batcher:
    """Scores for many callers on one event loop; see the module's text.

    Args:
        observer: who counts batches.
        rows_max: most rows admitted at a time, see `admitted`.
        beside: never score on the event loop: what hangs then hangs alone.
    """

    def __init__(self, observer: BatchObserver, rows_max: int, *, beside: bool = False) -> None:
        self._observer = observer
        self._rows_max = rows_max
        self._beside = beside
        self._admitted = 0
        self._waiting = 0
        self._calls: deque[_Call] = deque()
        self._running = False
        self._costs: dict[str, float] = {}
        self._thread: _Thread | None = None

    @contextmanager
    def admitted(self, package: ModelPackage, rows: int, seconds: float) -> Iterator[None]:
        """Take rows in until they are answered, or turn them away at once.

        A call that is alone is always taken in, however many rows it has.

        Args:
            package: what is to score them.
            rows: how many.
            seconds: how long their caller will wait.

        Raises:
            Overloaded: too many rows are being worked on, or those that wait would take longer
                to score than the caller will wait.
        """
        if self._admitted and self._admitted + rows > self._rows_max:
            raise Overloaded(self._seconds(package, self._waiting))
        if (
            self._waiting
            and self._seconds(package, self._waiting + rows) > seconds
            and self._seconds(package, self._before(package, rows) + rows) > seconds
        ):
            raise Overloaded(self._seconds(package, self._waiting))
        self._admitted += rows
        try:
            yield
        finally:
            self._admitted -= rows

    async def decide(
        self,
        package: ModelPackage,
        applications: Sequence[Application],
        *,
        explain: bool = False,
        call: Call | None = None,
    ) -> list[Result]:
        """As `scoring.decide`, but what fails, fails alone.

        Args:
            package: what decides.
            applications: as `Schema.validate_application` returns them; may be empty.
            explain: give every decision its explanation.
            call: the request; it is told the end of its stage ``wait``, and those of the stages
                of `scoring.decide`, or of ``score`` alone where rows were scored one by one.

        Returns:
            One result per application, in order: its decision, or why there is none.
        """
        if not applications:
            return []
        loop = asyncio.get_running_loop()
        rows = _Call(package, applications, explain, loop.create_future(), call)
        self._calls.append(rows)
        self._waiting += len(applications)
        if not self._running:
            self._running = True
            # Not now: whoever is ready in this turn of the loop comes along.
            loop.call_soon(self._turn, loop)
        return await rows.future

    def close(self) -> None:
        """End the thread, once what runs there is done, if that is soon."""
        if self._thread is not None:
            self._thread.close()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._take()
        if batch is None:
            self._running = False
            return
        if not batch.package.model.slow and not self._beside:
            self._settle(batch, _score(batch))
            # After what came in meanwhile, answers to be sent included.
            loop.call_soon(self._turn, loop)
            return
        if self._thread is None:
            self._thread = _Thread()
        scored = self._thread.score(loop, batch)

        def done(future: asyncio.Future[_Scored]) -> None:
            self._settle(batch, future.result())
            self._turn(loop)

        scored.add_done_callback(done)

    def _take(self) -> _Batch | None:
        """The rows to score next; nothing if none wait."""
        batch: _Batch | None = None
        room = 0
        calls = self._calls
        later: list[_Call] = []
        while calls:
            call = calls[0]
            if call.future.done():  # whoever waited has gone
                self._waiting -= len(call.applications) - call.taken
                calls.popleft()
                continue
            if batch is None:
                batch = _Batch(call.package, time.perf_counter() - call.since)
                room = self._room(call.package)
            if not room or call.package is not batch.package:
                break
            calls.popleft()
            start = call.taken
            call.taken = min(start + room, len(call.applications))
            rows = call.taken - start
            batch.applications += call.applications[start : call.taken]
            batch.explain += [call.explain] * rows
            batch.parts.append((call, rows))
            if call.caller is not None:
                call.caller.passed("wait")
            room -= rows
            self._waiting -= rows
            if call.taken < len(call.applications):
                call.since = time.perf_counter()
                later.append(call)
        # Behind everybody: many rows let others' few pass.
        calls.extend(later)
        return batch

    def _room(self, package: ModelPackage) -> int:
        cost = self._costs.get(package.version)
        if cost is None:
            return FIRST_TURN_ROWS if not package.model.slow else 1
        turn = SLOW_TURN_SECONDS if package.model.slow else TURN_SECONDS
        return min(max(int(turn / cost), 1), TURN_ROWS_MAX)

    def _before(self, package: ModelPackage, rows: int) -> int:
        """Rows scored before so many that come now: of each call, what its turns have room for."""
        room = self._room(package)
        turns = -(-rows // room)
        return sum(min(len(c.applications) - c.taken, turns * room) for c in self._calls)

    def _seconds(self, package: ModelPackage, rows: int) -> float:
        """How long scoring the rows would take, as far as is known."""
        return rows * self._costs.get(package.version, 0.0)

    def _settle(self, batch: _Batch, scored: _Scored) -> None:
        results = scored.results
        callers = [call.caller for call, _ in batch.parts if call.caller is not None]
        traces = tuple(caller.trace for caller in callers if caller.trace is not None)
        self._observer.batched(
            Batched(
                batch.package,
                len(results),
                batch.waited,
                self._waiting,
                scored.began,
                scored.ended,
                scored.stages,
                traces,
            )
        )
        stages = scored.stages or (("score", scored.ended),)
        version = batch.package.version
        cost = (scored.ended - scored.began) / len(results)
        known = self._costs.get(version)
        if known is None:
            # The package before has no rows left, or none to speak of.
            self._costs = {version: cost}
        else:
            self._costs[version] = known + _SMOOTHING * (cost - known)
        at = 0
        for call, rows in batch.parts:
            call.results += results[at : at + rows]
            at += rows
            if call.caller is not None:
                call.caller.stages.extend(stages)
            if len(call.results) == len(call.applications) and not call.future.done():
                call.future.set_result(call.results)


class _Thread:
    """Scores for an event loop, one batch after another, until nobody needs it any more.

    It is none of an executor's: the interpreter waits for those, also for one that hangs.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=_work_off, args=(self._work,), name="scoring", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._work.put, None)

    def score(self, loop: asyncio.AbstractEventLoop, batch: _Batch) -> asyncio.Future[_Scored]:
        """The results of a batch, once they are there."""
        scored: asyncio.Future[_Scored] = loop.create_future()
        self._work.put((loop, batch, scored))
        return scored

    def close(self) -> None:
        """End, once what waits is done; what takes longer than a moment is left to itself."""
        self._work.put(None)
        self._thread.join(CLOSE_SECONDS)


def _work_off(work: SimpleQueue[_Work | None]) -> None:
    while (one := work.get()) is not None:
        loop, batch, scored = one
        done = _score(batch)
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(scored.set_result, done)
        del one, loop, batch, scored, done  # not kept until there is more


def _score(batch: _Batch) -> _Scored:
    began = time.perf_counter()
    results: list[Result]
    stages: list[tuple[str, float]] = []
    try:
        results = list(
            scoring.decide(batch.package, batch.applications, explain=batch.explain, stages=stages)
        )
    except Exception as error:  # noqa: BLE001 - every caller gets it, or their own
        stages = []
        if len(batch.applications) == 1:
            results = [error]
        else:
            results = [
                _score_alone(batch.package, application, explain=explain)
                for application, explain in zip(batch.applications, batch.explain, strict=True)
            ]
    return _Scored(results, began, time.perf_counter(), stages)


def _score_alone(package: ModelPackage, application: Application, *, explain: bool) -> Result:
    try:
        (decision,) = scoring.decide(package, [application], explain=explain)
    except Exception as error:  # noqa: BLE001 - its caller gets it
        return error
    return decision
