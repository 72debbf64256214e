"""SIGTERM: when it begins to count, and when it reaches who it is for."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk.serving.stopping import Stopping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

NEVER = 3_600.0
ROOT = Path(__file__).parents[2]


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


WORKER = """
import asyncio, os, signal, sys
from credit_risk.serving.stopping import Stopping

async def main():
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(ended.set))
    stopping = Stopping(0.0)
    stopping.listen()
    stopping.follow_parent()
    print("serving", flush=True)
    try:
        await asyncio.wait_for(ended.wait(), 60)
        print("ended in order", stopping.begun, flush=True)
    except TimeoutError:
        print("left alone", flush=True)

asyncio.run(main())
"""
MAIN = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True).wait()
"""


def test_a_worker_ends_in_order_when_the_process_that_started_it_is_killed() -> None:
    """In another session, as BentoML starts it: no signal reaches it by itself."""
    command = [sys.executable, "-c", MAIN, WORKER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as main:  # noqa: S603 - this interpreter, on programs written above
        assert main.stdout is not None
        assert main.stdout.readline() == "serving\n"
        main.kill()

        assert main.stdout.read() == "ended in order True\n"


def test_a_worker_whose_parent_was_gone_before_it_asked_ends_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody would tell it any more."""
    stopping = Stopping(0.0)
    monkeypatch.setattr(os, "getppid", lambda: -1)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Mute())

    async def test() -> None:
        stopping.listen()
        stopping.follow_parent()

    with told() as numbers:
        asyncio.run(test())
        assert numbers == [signal.SIGTERM]


class Mute:
    """A C library that asks nothing of the kernel: this process is not to follow anybody."""

    def prctl(self, *asked: int) -> int:
        """Take it."""
        assert asked[:2] == (1, signal.SIGTERM)
        return 0


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_that_nobody_handles_is_let_be(handler: signal.Handlers) -> None:
    """A process that is to end by it has to end by it."""
    before = signal.signal(signal.SIGTERM, handler)
    try:
        asyncio.run(terminated(Stopping(0.0), times=0))

        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
