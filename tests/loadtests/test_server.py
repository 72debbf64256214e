"""Which server may be loaded, and what is said if there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from loadtests import server
from loadtests.server import Unavailable

if TYPE_CHECKING:
    from pathlib import Path


def test_a_server_that_is_not_there_is_named() -> None:
    """Nothing listens on the port of a socket just closed."""
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9 does not answer"):
        server.running("http://127.0.0.1:9")


def test_a_server_that_does_not_start_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason in it, and no state left behind."""
    monkeypatch.setenv("CREDIT_RISK_PORTFOLIO", "no-such-portfolio")

    with pytest.raises(Unavailable, match="no-such-portfolio"), server.started(tmp_path):
        pytest.fail("it started")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_children_alone() -> None:
    """One child of this process, and at least a Python interpreter's memory."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = server.resident(os.getpid())
        child.communicate(b"\n")

    assert found[child.pid] > 1_000_000
    assert os.getpid() not in found
