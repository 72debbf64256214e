"""Stopping in the order that a load balancer needs: say so, go on answering, then stop."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

logger = logging.getLogger("credit_risk.serving")

_PR_SET_PDEATHSIG = 1
"""Of prctl(2): which signal the kernel sends a process whose parent is gone."""


class Stopping:
    """Whether this process is about to stop.

    From SIGTERM on, ``begun`` is true: ``/readyz`` says so, and each answer closes its connection,
    so that clients find another server. After ``seconds`` the signal goes to whom it was for.
    A second SIGTERM does not wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._parent = os.getppid()
        self.begun = False

    def listen(self) -> None:
        """Take SIGTERM before who has it now; call it in the main thread, on the event loop."""
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)
        if not callable(stop):
            return  # the signal ends this process, or is ignored, and either is to stay so

        def handle(number: int, frame: FrameType | None) -> None:
            again, self.begun = self.begun, True
            if os.getppid() != self._parent:
                logger.warning("the process that started this worker is gone")
            if again or not self._seconds:
                stop(number, frame)
            else:
                logger.info("stopping in %g seconds", self._seconds)
                loop.call_soon_threadsafe(loop.call_later, self._seconds, stop, number, frame)

        signal.signal(signal.SIGTERM, handle)

    def follow_parent(self) -> None:
        """Have SIGTERM come when the process that started this one is gone, however it ended.

        Workers outlive a main process that is killed: they would keep the port and go on deciding
        with nobody to stop or replace them, and no server could be started in their place.
        """
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != self._parent:  # it was gone before it was asked for
            os.kill(os.getpid(), signal.SIGTERM)
