"""Watch: a worker that looks after itself, whether anybody asks or not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from credit_risk.errors import RecordingFailed
from credit_risk.serving import watch
from credit_risk.serving.watch import Watch
from tests import served, toys
from tests.served import Broken, Full, Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from credit_risk.package import ModelPackage


@pytest.fixture
def server(trees_package: ModelPackage, tmp_path: Path) -> Iterator[Served]:
    """A server of the toy trees."""
    with served.serving(trees_package, tmp_path) as running:
        yield running


def nobody() -> int:
    """Nothing waits."""
    return 0


def looking(server: Served, waiting: Callable[[], int] = nobody) -> Watch:
    """A watch over the server."""
    return Watch(server.calls.checks, waiting, toys.NAME, server.metrics)


def ready(server: Served) -> tuple[float, float]:
    """What is told of the model and of the records."""
    return tuple(server.sample("credit_ready", check=name) for name in ("model", "records"))  # type: ignore[return-value]


def test_what_can_decide_is_ready_and_what_cannot_is_not(
    server: Served, trees_package: ModelPackage, tmp_path: Path
) -> None:
    """Each check on its own; and ready again once it is."""
    asyncio.run(looking(server).look())
    assert ready(server) == (1, 1)

    server.active.current = replace(trees_package, model=Broken())
    asyncio.run(looking(server).look())
    assert ready(server) == (0, 1)

    server.active.current = trees_package
    assert server.get("/readyz").status_code == 200
    assert ready(server) == (1, 1)

    (tmp_path / "records.db").unlink()
    assert server.get("/readyz").status_code == 503
    assert ready(server) == (1, 0)


def test_what_waits_for_people_is_counted(server: Served) -> None:
    """As long as the database answers; the last number stays where it does not."""

    def unreadable() -> int:
        raise RecordingFailed("the database does not answer")

    asyncio.run(looking(server, lambda: 5).look())
    asyncio.run(looking(server, unreadable).look())

    assert server.sample("credit_reviews_waiting", portfolio=toys.NAME) == 5


def test_it_looks_again_and_again_whatever_comes(
    server: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after something that nobody foresaw; and no more once it is closed."""
    monkeypatch.setattr(watch, "CHECK_SECONDS", 0.0)
    times = 0

    def failing() -> int:
        nonlocal times
        times += 1
        raise ZeroDivisionError

    async def main() -> None:
        started = looking(server, failing)
        started.start()
        for _ in range(2_000):
            if times >= 2:
                break
            await asyncio.sleep(0.01)
        started.close()

    asyncio.run(main())
    assert times >= 2
    assert "the worker could not look after itself" in caplog.text


def test_a_loop_that_is_held_up_comes_late(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """By as long as it was held up, and not by the time between two looks."""
    monkeypatch.setattr(watch, "LAG_SECONDS", 0.01)

    async def main() -> None:
        started = looking(server)
        started.start()
        await asyncio.sleep(0)
        held_up = asyncio.get_running_loop().time() + 0.2
        while asyncio.get_running_loop().time() < held_up:
            pass
        await asyncio.sleep(0.05)
        started.close()

    asyncio.run(main())
    late = server.sample("credit_event_loop_lag_seconds_count") - server.sample(
        "credit_event_loop_lag_seconds_bucket", le="0.1"
    )
    assert late >= 1


def test_records_that_are_refused_are_no_reason_to_stop(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """A full disk is found when something is written."""
    with served.serving(trees_package, tmp_path, Full) as server:
        asyncio.run(looking(server).look())
        assert ready(server) == (1, 1)
