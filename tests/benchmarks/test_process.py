"""Servers are started, measured and stopped with all that belongs to them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from benchmarks import process
from benchmarks.process import DidNotStart
from tests.benchmarks.figures import write_peer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ROOT = Path(__file__).parents[2]
COMMAND = (
    'title: ours\ncommand: [python, "{here}/server.py", "{port}"]\npath: /\n'
    "environment: {SHOWN: '{scratch}/shown'}\nloads: {predict: [1]}\n"
)
SERVER = """
import http.server, os, pathlib, subprocess, sys
code = "import subprocess as s; print(s.Popen(['sleep', '600'], stdout=s.DEVNULL).pid)"
orphan = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout.decode()
settings = [name for name in os.environ if name.endswith("WORKERS")]
pathlib.Path(os.environ["SHOWN"]).write_text(f"{orphan} {os.sched_getaffinity(0)} {settings}")
http.server.HTTPServer(
    ("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler
).serve_forever()
"""


@pytest.fixture
def _adopting() -> Iterator[None]:
    """Adopt orphans within one test, and leave them to others after it."""
    process.adopt_orphans()
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


@pytest.mark.usefixtures("_adopting")
def test_a_server_is_started_on_its_core_and_stopped_with_its_orphans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees none of the settings that the caller's own server has."""
    monkeypatch.setenv("WORKERS", "7")
    monkeypatch.setenv("CREDIT_RISK_WORKERS", "7")
    one = write_peer(tmp_path, "server", COMMAND)
    (one.folder / "server.py").write_text(SERVER, encoding="utf-8")

    with process.started(one, tmp_path, {}, ("/", None)) as running:
        orphan, core, settings = (tmp_path / "shown").read_text(encoding="utf-8").split()
        size = process.memory(running.processes)
        assert httpx.get(running.url).status_code == 200
        assert int(orphan) in running.processes
        assert os.getpid() not in running.processes

    assert (core, settings) == (f"{{{process.SERVER_CORE}}}", "[]")
    assert not Path(f"/proc/{orphan}").exists()
    assert running.processes == set()
    assert 1_000_000 < size.largest < 1_000_000_000
    assert running.start > 0


def test_a_server_that_ends_shows_its_log(tmp_path: Path) -> None:
    """And its exit code."""
    one = write_peer(tmp_path, "server", COMMAND)
    (one.folder / "server.py").write_text("raise SystemExit('no such model')", encoding="utf-8")

    with (
        pytest.raises(DidNotStart, match=r"server did not start: .* exit code 1\nno such model"),
        process.started(one, tmp_path, {}, ("/", None)),
    ):
        pytest.fail("it started")


def test_what_cannot_be_prepared_is_not_started(tmp_path: Path) -> None:
    """The reason is what the preparation said."""
    prepare = "prepare: [python, -c, 'import sys; sys.exit(\"no room\")']\n"
    one = write_peer(tmp_path, "server", COMMAND + prepare)

    with (
        pytest.raises(DidNotStart, match="server cannot be prepared:\nno room"),
        process.started(one, tmp_path, {}, ("/", None)),
    ):
        pytest.fail("it started")


def test_this_process_can_be_kept_beside_the_load_generator() -> None:
    """All its threads; in a process of its own, since it stays so."""
    program = (
        "import os, threading, time; from benchmarks import process\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); process.pin()\n"
        "print([os.sched_getaffinity(int(name)) for name in os.listdir('/proc/self/task')])"
    )
    done = subprocess.run(  # noqa: S603 - this interpreter, on the program above
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    threads = json.loads(done.stdout.replace("{", "[").replace("}", "]"))
    assert len(threads) >= 2
    assert all(cores == [process.GENERATOR_CORE] for cores in threads)


def test_grandchildren_are_descendants() -> None:
    """A shell's child, seen from the shell and from here."""
    with subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        below = int(shell.stdout.readline())
        found = process.descendants(shell.pid)
        from_here = process.descendants(os.getpid())
        os.kill(below, signal.SIGKILL)

    assert found == [below]
    assert {shell.pid, below} <= set(from_here)


def test_core_seconds_are_those_of_descendants_too() -> None:
    """A child that has used half a second has used it for this process."""
    program = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); input()"
    before = process.core_seconds()
    with subprocess.Popen(  # noqa: S603 - this interpreter, on the program above
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running = process.core_seconds()
        child.communicate(b"\n")

    # The kernel counts in hundredths.
    assert running - before >= 0.45
    assert process.core_seconds() - before >= 0.45


def test_a_process_that_is_stopped_is_told_from_one_that_runs_or_is_gone() -> None:
    """What was stopped is so until it goes on or ends."""
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        assert not process.is_stopped(child.pid)
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert process.is_stopped(child.pid)
        child.kill()
    assert not process.is_stopped(child.pid)
