"""SIGTERM: when it begins to count, and when it reaches who it is for."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from credit_risk.serving.stopping import Stopping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

NEVER = 3_600.0


@contextmanager
def told() -> Iterator[list[int]]:
    """The signals that reach whoever handled them before."""
    numbers: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        numbers.append(number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield numbers
    finally:
        signal.signal(signal.SIGTERM, before)


async def terminated(stopping: Stopping, *, times: int = 1) -> None:
    """Send this process the signal so often while it listens."""
    stopping.listen()
    assert not stopping.begun
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)


def test_without_a_time_to_drain_it_goes_on_at_once() -> None:
    """Before anything else happens on the event loop."""
    stopping = Stopping(0.0)
    with told() as numbers:
        asyncio.run(terminated(stopping))

        assert numbers == [signal.SIGTERM]
    assert stopping.begun


def test_it_is_known_at_once_and_goes_on_when_the_time_is_over() -> None:
    """In between the server answers."""

    async def test(numbers: list[int]) -> None:
        stopping = Stopping(0.01)
        await terminated(stopping)
        assert stopping.begun
        assert numbers == []
        while not numbers:  # noqa: ASYNC110 - a signal's handler sets no event
            await asyncio.sleep(0.001)
        assert numbers == [signal.SIGTERM]

    with told() as numbers:
        asyncio.run(test(numbers))


@pytest.mark.parametrize("times", [2, 3])
def test_a_second_signal_does_not_wait(times: int) -> None:
    """Somebody is in a hurry."""
    with told() as numbers:
        asyncio.run(terminated(Stopping(NEVER), times=times))

        assert numbers == [signal.SIGTERM] * (times - 1)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_that_nobody_handles_is_let_be(handler: signal.Handlers) -> None:
    """A process that is to end by it has to end by it."""
    before = signal.signal(signal.SIGTERM, handler)
    try:
        asyncio.run(terminated(Stopping(0.0), times=0))

        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
