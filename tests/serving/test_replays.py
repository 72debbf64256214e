"""Replays for callers: beside the event loop, a few at a time, packages kept."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest

from credit_risk.errors import Overloaded, PackageNotFound, RecordNotFound
from credit_risk.serving.replays import PACKAGES_KEPT, WAITING_MAX, Replays
from tests import toys
from tests.recorded import Kept, decided
from tests.served import Active

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.audit.records import Record
    from credit_risk.package import ModelPackage
    from credit_risk.replay import Load
    from credit_risk.serving.activation import ActivePackage


@contextmanager
def replaying(current: ModelPackage, load: Load) -> Iterator[Replays]:
    """Replays beside a package that decides."""
    made = Replays(Kept(), cast("ActivePackage", Active(current)), load)
    try:
        yield made
    finally:
        made.close()


def nothing(_portfolio: str, version: str) -> ModelPackage:
    """No package is installed."""
    raise PackageNotFound(f"no package {version}")


@pytest.fixture
def risky(trees_package: ModelPackage) -> Record:
    """A decline on record."""
    (record,) = decided(trees_package, [toys.RISKY])
    return record


def test_the_package_that_decides_is_not_loaded_again(
    trees_package: ModelPackage, risky: Record
) -> None:
    """It is here, verified and tried."""
    with replaying(trees_package, nothing) as replays:
        told = asyncio.run(replays.make(lambda: risky))

    assert (told["verdict"], told["decision_id"]) == ("MATCH", risky.id)


def test_the_last_packages_stay_loaded_and_others_go(
    trees_package: ModelPackage, linear_package: ModelPackage, risky: Record
) -> None:
    """Memory is bounded, and what is asked for again and again is loaded once."""
    loaded: list[str] = []

    def load(_portfolio: str, version: str) -> ModelPackage:
        loaded.append(version)
        return trees_package

    async def several(versions: list[str]) -> None:
        for version in versions:
            assert (await replays.make(partial(replace, risky, model_version=version)))[
                "verdict"
            ] == "MATCH"

    versions = [f"version-{i}" for i in range(PACKAGES_KEPT + 1)]
    with replaying(linear_package, load) as replays:
        asyncio.run(several([versions[0]] * 3))
        assert loaded == versions[:1]
        asyncio.run(several(versions))
        assert loaded == versions
        asyncio.run(several(versions[:1]))
        assert loaded == [*versions, versions[0]]


def test_a_package_that_is_missing_is_looked_for_again(
    trees_package: ModelPackage, linear_package: ModelPackage, risky: Record
) -> None:
    """Somebody may have put it back."""
    answers: list[ModelPackage | None] = [None, trees_package]

    def load(portfolio: str, version: str) -> ModelPackage:
        return answers.pop(0) or nothing(portfolio, version)

    async def twice() -> list[str]:
        return [(await replays.make(lambda: risky))["verdict"] for _ in range(2)]

    with replaying(linear_package, load) as replays:
        assert asyncio.run(twice()) == ["NOT_REPRODUCIBLE", "MATCH"]


def test_the_event_loop_goes_on_while_a_package_loads_and_too_many_are_turned_away(
    trees_package: ModelPackage, linear_package: ModelPackage, risky: Record
) -> None:
    """Whoever comes beyond those in hand is turned away at once; the others get their answers."""
    loading, may_go_on = threading.Event(), threading.Event()

    def load(_portfolio: str, _version: str) -> ModelPackage:
        loading.set()
        assert may_go_on.wait(60)
        return trees_package

    async def main() -> list[str]:
        asked = [asyncio.create_task(replays.make(lambda: risky)) for _ in range(WAITING_MAX)]
        await asyncio.to_thread(loading.wait, 60)
        with pytest.raises(Overloaded):
            await replays.make(lambda: risky)
        assert not any(task.done() for task in asked)
        may_go_on.set()
        verdicts = [(await task)["verdict"] for task in asked]
        return [*verdicts, (await replays.make(lambda: risky))["verdict"]]

    with replaying(linear_package, load) as replays:
        assert asyncio.run(main()) == ["MATCH"] * (WAITING_MAX + 1)


def test_what_a_caller_no_longer_waits_for_counts_until_it_is_done(
    trees_package: ModelPackage, linear_package: ModelPackage, risky: Record
) -> None:
    """The thread is still at it, so that impatient callers cannot pile up behind it."""
    loading, may_go_on = threading.Event(), threading.Event()

    def load(_portfolio: str, _version: str) -> ModelPackage:
        loading.set()
        assert may_go_on.wait(60)
        return trees_package

    async def main() -> None:
        first = asyncio.create_task(replays.make(lambda: risky))
        await asyncio.to_thread(loading.wait, 60)
        first.cancel()
        waiting = [asyncio.create_task(replays.make(lambda: risky)) for _ in range(WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await waiting.pop()
        may_go_on.set()
        assert {(await task)["verdict"] for task in waiting} == {"MATCH"}

    with replaying(linear_package, load) as replays:
        asyncio.run(main())


def test_what_finding_the_record_comes_to_is_the_callers(trees_package: ModelPackage) -> None:
    """And the next one is served."""

    def find() -> Record:
        raise RecordNotFound("no such id")

    async def main() -> None:
        for _ in range(WAITING_MAX + 1):
            with pytest.raises(RecordNotFound):
                await replays.make(find)

    with replaying(trees_package, nothing) as replays:
        asyncio.run(main())
