"""Batching: what is scored together, who waits for whom, and who is turned away."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk import batching
from credit_risk.batching import TURN_ROWS_MAX, Batched, Batcher
from credit_risk.decisions import Call
from credit_risk.errors import Overloaded
from credit_risk.scoring import Decision, decide
from tests import toys

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from credit_risk.model import Model
    from credit_risk.package import ModelPackage

PEOPLE = toys.applications(600)
MINUTE = 60.0


@dataclass
class Seen:
    """The batches so far: rows, longest wait, rows left."""

    batches: list[tuple[int, float, int]] = field(default_factory=list)
    traces: list[tuple[object, ...]] = field(default_factory=list)

    def batched(self, batch: Batched) -> None:
        """Note one."""
        assert batch.began <= batch.ended
        self.batches.append((batch.rows, batch.waited, batch.waiting))
        self.traces.append(batch.traces)

    @property
    def rows(self) -> list[int]:
        """The size of each batch."""
        return [rows for rows, _, _ in self.batches]


class Wrapped:
    """The model of a package, with something put before its scores."""

    def __init__(self, package: ModelPackage, *, slow: bool = False) -> None:
        self._model = package.model
        self.slow = slow
        self.threads: list[str] = []
        self.seconds = 0.0
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the model has
        """As the model."""
        return getattr(self._model, name)

    def log_odds(self, rows: Any) -> Any:  # noqa: ANN401 - floats
        """As the model; people aged 33 cannot be scored."""
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        assert self.open.wait(MINUTE)
        time.sleep(self.seconds * len(rows))
        if (rows[:, 0] == 33.0).any():
            raise ZeroDivisionError
        return self._model.log_odds(rows)


@pytest.fixture
def seen() -> Seen:
    """No batches yet."""
    return Seen()


def wrapped(package: ModelPackage, *, slow: bool = False) -> tuple[ModelPackage, Wrapped]:
    """The package with its model wrapped."""
    model = Wrapped(package, slow=slow)
    return replace(package, model=cast("Model", model)), model


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - whatever it returns
    """Run to the end."""
    return asyncio.run(coroutine)


def pds(results: list[Decision | Exception]) -> list[float]:
    """The PDs; all were decided."""
    assert all(isinstance(result, Decision) for result in results)
    return [cast("Decision", result).probability_of_default for result in results]


def is_turned_away(batcher: Batcher, package: ModelPackage) -> bool:
    """Whether one more row is too many."""
    try:
        with batcher.admitted(package, 1, MINUTE):
            return False
    except Overloaded:
        return True


def test_the_fields_of_the_toys_begin_with_the_age(trees_package: ModelPackage) -> None:
    """`Wrapped` relies on it."""
    assert trees_package.schema.names[0] == "age"


def test_one_call_alone_is_one_batch(trees_package: ModelPackage, seen: Seen) -> None:
    """An idle server waits for nobody."""
    results = run(Batcher(seen, 10).decide(trees_package, PEOPLE[:1]))

    assert pds(results) == pds(list(decide(trees_package, PEOPLE[:1])))
    assert [(rows, left) for rows, _, left in seen.batches] == [(1, 0)]


def test_nothing_is_nothing(trees_package: ModelPackage, seen: Seen) -> None:
    """No rows, no batch."""
    assert run(Batcher(seen, 10).decide(trees_package, [])) == []
    assert seen.batches == []


def test_callers_of_the_same_moment_are_scored_together(
    trees_package: ModelPackage, seen: Seen
) -> None:
    """Each gets its own rows' answers, and an explanation if it asked for one."""

    async def main() -> list[list[Decision | Exception]]:
        batcher = Batcher(seen, 100)
        return await asyncio.gather(
            *(batcher.decide(trees_package, [PEOPLE[i]], explain=i % 2 == 0) for i in range(10))
        )

    results = run(main())

    assert seen.rows == [10]
    alone = decide(trees_package, PEOPLE[:10])
    assert [pds(result) for result in results] == [[d.probability_of_default] for d in alone]
    explained = [cast("Decision", result[0]).explanation is not None for result in results]
    assert explained == [True, False] * 5


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), slow=st.booleans())
def test_whoever_calls_with_whom_gets_what_it_would_get_alone(
    trees_package: ModelPackage,
    sizes: list[int],
    slow: bool,  # noqa: FBT001
) -> None:
    """In order, whatever the batches were; every row is in exactly one."""
    seen = Seen()
    package, _ = wrapped(trees_package, slow=slow)
    people = [PEOPLE[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
    people = [[p | {"age": 40} for p in some] for some in people]

    async def main() -> list[list[Decision | Exception]]:
        batcher = Batcher(seen, 1_000)
        try:
            return await asyncio.gather(*(batcher.decide(package, some) for some in people))
        finally:
            batcher.close()

    results = run(main())

    assert [pds(result) for result in results] == [
        pds(list(decide(trees_package, some))) for some in people
    ]
    assert sum(seen.rows) == sum(sizes)
    assert seen.batches[-1][2] == 0


def test_many_rows_let_others_pass(
    trees_package: ModelPackage, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call with hundreds is scored in turns; one that comes later is answered earlier."""
    monkeypatch.setattr(batching, "TURN_SECONDS", 0.0)
    order: list[str] = []

    async def main() -> None:
        batcher = Batcher(seen, 1_000)

        async def call(name: str, rows: int) -> None:
            await batcher.decide(trees_package, PEOPLE[:rows])
            order.append(name)

        many = asyncio.create_task(call("many", 300))
        await asyncio.sleep(0)
        few = asyncio.create_task(call("few", 2))
        await asyncio.gather(many, few)

    run(main())

    assert order == ["few", "many"]
    assert sum(seen.rows) == 302


def test_a_turn_is_as_long_as_rows_were_measured_to_take(
    trees_package: ModelPackage, seen: Seen
) -> None:
    """Rows that take a millisecond each are scored a few at a time, quick ones by the hundred."""
    package, model = wrapped(trees_package)

    async def main(rows: int) -> None:
        await Batcher(seen, 1_000).decide(package, [p | {"age": 40} for p in PEOPLE[:rows]])

    model.seconds = 0.001
    run(main(60))
    assert max(seen.rows[1:]) <= 2

    seen.batches.clear()
    model.seconds = 0.0
    run(main(600))
    assert max(seen.rows) > 16
    assert max(seen.rows) <= TURN_ROWS_MAX


def test_a_slow_model_keeps_nothing_else_waiting(trees_package: ModelPackage, seen: Seen) -> None:
    """It scores on a thread, a batch at a time; what comes meanwhile is the next batch."""
    package, model = wrapped(trees_package, slow=True)

    async def main() -> None:
        batcher = Batcher(seen, 100)
        model.open.clear()
        first = asyncio.create_task(batcher.decide(package, PEOPLE[:1]))
        await asyncio.to_thread(model.begun.wait, MINUTE)
        later = [asyncio.create_task(batcher.decide(package, [PEOPLE[i]])) for i in range(1, 6)]
        await asyncio.sleep(0.01)
        assert not first.done()
        model.open.set()
        await asyncio.gather(first, *later)
        batcher.close()

    run(main())

    assert set(model.threads) == {"scoring"}
    assert seen.rows[0] == 1
    assert seen.rows[1] > 1
    assert seen.batches[1][1] >= 0.01


def test_what_hangs_beside_the_event_loop_keeps_nobody_from_ending(
    trees_package: ModelPackage, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the loop nor the process waits for it; a quick model is kept off the loop as well."""
    monkeypatch.setattr(batching, "CLOSE_SECONDS", 0.01)
    package, model = wrapped(trees_package)

    async def main() -> None:
        batcher = Batcher(seen, 100, beside=True)
        model.open.clear()
        hanging = asyncio.create_task(batcher.decide(package, PEOPLE[:1]))
        await asyncio.to_thread(model.begun.wait, MINUTE)
        batcher.close()
        hanging.cancel()

    run(main())

    (thread,) = (one for one in threading.enumerate() if one.name == "scoring")
    assert thread.daemon
    model.open.set()
    thread.join(MINUTE)
    assert not thread.is_alive()


def test_a_queue_that_nobody_needs_any_more_leaves_no_thread(
    trees_package: ModelPackage, seen: Seen
) -> None:
    """Though nobody closed it: a challenge ends in the middle of things."""
    run(Batcher(seen, 100, beside=True).decide(trees_package, PEOPLE[:1]))

    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "scoring":
            thread.join(MINUTE)
    assert "scoring" not in [thread.name for thread in threading.enumerate()]


def test_a_quick_model_runs_on_the_loop_itself(trees_package: ModelPackage, seen: Seen) -> None:
    """A thread would cost more than it."""
    package, model = wrapped(trees_package)
    run(Batcher(seen, 10).decide(package, PEOPLE[:2]))

    assert model.threads == [threading.current_thread().name]


@pytest.mark.parametrize("slow", [False, True])
def test_who_fails_fails_alone(trees_package: ModelPackage, seen: Seen, slow: bool) -> None:  # noqa: FBT001
    """The others of the batch are decided, of other calls or of the same."""
    package, _ = wrapped(trees_package, slow=slow)
    ages = (40, 33, 41)

    async def main() -> list[list[Decision | Exception]]:
        batcher = Batcher(seen, 100)
        people = [PEOPLE[0] | {"age": age} for age in ages]
        try:
            return await asyncio.gather(
                batcher.decide(package, people), *(batcher.decide(package, [p]) for p in people)
            )
        finally:
            batcher.close()

    together, *alone = run(main())

    for results in (together, [result for (result,) in alone]):
        assert [type(result) for result in results] == [Decision, ZeroDivisionError, Decision]


def test_a_switch_of_packages_mixes_nothing(
    trees_package: ModelPackage, linear_package: ModelPackage, seen: Seen
) -> None:
    """Rows of two packages are two batches."""

    async def main() -> list[list[Decision | Exception]]:
        batcher = Batcher(seen, 100)
        order = (trees_package, trees_package, linear_package, trees_package)
        return await asyncio.gather(*(batcher.decide(p, PEOPLE[:2]) for p in order))

    first, second, other, third = (pds(results) for results in run(main()))

    assert seen.rows == [4, 2, 2]
    assert first == second == third == pds(list(decide(trees_package, PEOPLE[:2])))
    assert other == pds(list(decide(linear_package, PEOPLE[:2])))


def test_who_has_gone_is_not_scored(trees_package: ModelPackage, seen: Seen) -> None:
    """The rows of a call that was given up make room for others."""

    async def main() -> None:
        batcher = Batcher(seen, 100)
        gone = asyncio.create_task(batcher.decide(trees_package, PEOPLE[:5]))
        here = asyncio.create_task(batcher.decide(trees_package, PEOPLE[:1]))
        await asyncio.sleep(0)
        gone.cancel()
        await here

    run(main())
    assert seen.batches[0][0] in {1, 6}
    assert seen.batches[-1][2] == 0


def test_rows_beyond_the_most_are_turned_away(trees_package: ModelPackage, seen: Seen) -> None:
    """At once, and until others are answered."""
    batcher = Batcher(seen, 10)

    with batcher.admitted(trees_package, 8, MINUTE):
        with batcher.admitted(trees_package, 2, MINUTE):
            assert is_turned_away(batcher, trees_package)
        with batcher.admitted(trees_package, 1, MINUTE):
            pass


def test_a_call_that_is_alone_is_taken_in(trees_package: ModelPackage, seen: Seen) -> None:
    """However many rows it has; the next one waits for its end."""
    batcher = Batcher(seen, 10)

    with batcher.admitted(trees_package, 50, MINUTE):
        assert is_turned_away(batcher, trees_package)
    with batcher.admitted(trees_package, 1, MINUTE):
        pass


def test_who_would_wait_too_long_is_turned_away(trees_package: ModelPackage, seen: Seen) -> None:
    """By what rows were measured to take; and is told when to come again."""
    package, model = wrapped(trees_package, slow=True)
    model.seconds = 0.01

    async def main() -> None:
        batcher = Batcher(seen, 1_000)
        await batcher.decide(package, [PEOPLE[0] | {"age": 40}])
        model.open.clear()
        tasks = [
            asyncio.create_task(batcher.decide(package, [PEOPLE[0] | {"age": 40}]))
            for _ in range(101)
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded) as turned_away, batcher.admitted(package, 1, 0.5):
            pass
        assert turned_away.value.seconds > 0.5
        with batcher.admitted(package, 1, MINUTE):
            pass
        for task in tasks:
            task.cancel()
        model.open.set()
        batcher.close()

    run(main())


def test_callers_learn_their_stages_and_the_batch_its_callers(
    trees_package: ModelPackage, seen: Seen
) -> None:
    """Whoever is followed is named; everybody is told when waiting and scoring ended."""
    calls = [Call("/predict", str(i), trace=i if i % 2 else None) for i in range(4)]

    async def main() -> None:
        batcher = Batcher(seen, 100)
        await asyncio.gather(
            *(batcher.decide(trees_package, PEOPLE[:1], call=call) for call in calls)
        )

    run(main())

    assert seen.traces == [(1, 3)]
    for call in calls:
        stages = ("wait", "encode", "score", "decide", "explain")
        assert tuple(stage for stage, _ in call.stages) == stages
        times = [call.received, *(end for _, end in call.stages)]
        assert times == sorted(times)


def test_few_rows_are_not_turned_away_for_many_that_wait(
    trees_package: ModelPackage, seen: Seen
) -> None:
    """They have their turn long before the many are done; as many again would be too late."""
    package, model = wrapped(trees_package, slow=True)
    model.seconds = 0.01
    people = [person | {"age": 40} for person in PEOPLE]

    async def main() -> None:
        batcher = Batcher(seen, 10_000)
        await batcher.decide(package, people[:1])
        many = asyncio.create_task(batcher.decide(package, people))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded), batcher.admitted(package, 600, 4.0):
            pass
        with batcher.admitted(package, 1, 4.0):
            (one,) = await batcher.decide(package, people[:1])
        assert isinstance(one, Decision)
        assert not many.done()
        many.cancel()
        batcher.close()

    run(main())
