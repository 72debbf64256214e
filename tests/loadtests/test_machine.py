"""Who uses the cores, as the kernel counts it."""

from __future__ import annotations

import os
import subprocess
import sys

from loadtests import machine

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"


def test_the_machine_is_described() -> None:
    """Cores and Python at least."""
    assert f"{os.cpu_count()} cores" in machine.description()
    assert "Python 3" in machine.description()


def test_what_a_server_uses_is_counted_as_its_own_and_as_use_of_the_machine() -> None:
    """A child that keeps a core busy for 0.3 s."""
    busy = machine.busy_seconds()
    with subprocess.Popen(  # noqa: S603 - this interpreter, on a program written above
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        own = machine.own_seconds(child.pid)
        siblings = machine.children(os.getpid())
        before = os.times()
        child.communicate(b"\n")

    assert child.pid in siblings
    assert machine.runs(os.getpid())
    assert not machine.runs(child.pid)
    assert own - sum(before[:4]) >= 0.25
    assert machine.busy_seconds() - busy >= 0.25
