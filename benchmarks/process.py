"""Starting a server on one core, its memory, and stopping all of it (Linux).

Servers start workers, raylets and pools of their own, some of which leave the process that made
them. This process therefore becomes the one that orphans come back to (prctl(2),
``PR_SET_CHILD_SUBREAPER``), so that all of a server's processes are always its descendants.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from credit_risk.settings import PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from benchmarks.peer import Peer

SERVER_CORE = 0
GENERATOR_CORE = 1
START_SECONDS = 180.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02
LOG_TAIL = 3_000
_SUBREAPER = 36
_PORTS = ("port", "port2", "port3")


class DidNotStart(Exception):
    """A server cannot be started, or prepared."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers; ``start`` is how many seconds that took.

    Its processes are the descendants of this one, orphans among them, but for those that were
    there ``before``.
    """

    url: str
    start: float
    before: frozenset[int]

    @property
    def processes(self) -> set[int]:
        """Process ids."""
        return set(descendants(os.getpid())) - self.before


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in bytes: of all processes (pages they share counted once), of the largest.

    The first is Linux's proportional set size added up, the second a plain resident set size.
    """

    together: int
    largest: int


def adopt_orphans() -> None:
    """Be the parent of what servers leave behind; once, before the first is started.

    Raises:
        OSError: the kernel will not.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def pin() -> None:
    """Keep this process, with all its threads, on `GENERATOR_CORE`; servers are told theirs."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {GENERATOR_CORE})


@contextlib.contextmanager
def started(
    peer: Peer,
    scratch: Path,
    values: Mapping[str, str],
    probe: tuple[str, str | None],
    *,
    pinned: bool = True,
) -> Iterator[Running]:
    """Start a peer and wait until it answers 200 to ``probe``; stop it at the end.

    Args:
        peer: installed.
        scratch: folder of its own, where also its log goes.
        values: what its description's words may name, besides what is known here.
        probe: path, and body to post there or None to get it.
        pinned: keep it on `SERVER_CORE`. One that is not shares cores with its generator, and so
            is in this session: Linux shares cores between sessions first (sched(7), autogroup),
            and the generator would wait for what has the lowest priority among the server's.

    Raises:
        DidNotStart: with the end of its log.
    """
    ports = _free_ports(len(_PORTS))
    names = {
        **values,
        **dict(zip(_PORTS, map(str, ports), strict=True)),
        "here": str(peer.folder),
        "scratch": str(scratch),
    }
    description = peer.description
    environment = {k: v for k, v in os.environ.items() if not _is_setting(k)}
    environment |= {"PATH": f"{peer.bin}{os.pathsep}{os.environ['PATH']}"}
    environment |= {k: v.format(**names) for k, v in description.environment.items()}
    log = scratch / "server.log"
    with log.open("ab") as output:
        if description.prepare and not (scratch / "prepared").exists():
            _prepare(peer, _words(peer, description.prepare, names), environment, scratch)
            (scratch / "prepared").touch()
        cores = str(SERVER_CORE) if pinned else f"0-{(os.cpu_count() or 1) - 1}"
        before = frozenset(descendants(os.getpid()))
        began = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - words of our own files, no shell
            ["/usr/bin/env", "taskset", "-c", cores, *_words(peer, description.command, names)],
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=pinned,
        )
    try:
        url = f"http://127.0.0.1:{ports[0]}"
        _await(peer, process, url, probe, log)
        yield Running(url, time.perf_counter() - began, before)
    finally:
        _stop(process, before)


def memory(processes: Iterable[int]) -> Memory:
    """Memory of processes; one that ends meanwhile is left out."""
    together = largest = 0
    for pid in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            sizes = dict(line.split()[:2] for line in rollup.splitlines()[1:])
            together += int(sizes["Pss:"]) * 1024
            largest = max(largest, int(sizes["Rss:"]) * 1024)
    return Memory(together, largest)


def descendants(process: int) -> list[int]:
    """Process ids of all that a process started, and of what those did."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children[int(_stat(folder)[1])].append(int(folder.name))
    found: list[int] = []
    waiting = [process]
    while waiting:
        below = children[waiting.pop()]
        found += below
        waiting += below
    return found


def is_stopped(process: int) -> bool:
    """Whether somebody has stopped a process, who may let it go on."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return _stat(Path(f"/proc/{process}"))[0] == "T"
    return False


def core_seconds() -> float:
    """Core seconds of this process, of those it has waited for, and of all its descendants."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + sum(_used(pid) for pid in descendants(os.getpid()))


def _used(pid: int) -> float:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = _stat(Path(f"/proc/{pid}"))
        # proc(5)'s fields 14 to 17: as itself and in the kernel, then the children waited for.
        return sum(int(fields[place - 3]) for place in range(14, 18)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _stat(folder: Path) -> list[str]:
    """The fields of a process's ``stat``, from the third on."""
    # The second is the name, in brackets, which may hold brackets itself.
    text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _is_setting(variable: str) -> bool:
    """Whether it sets up this server or its traces: the benchmark alone does that."""
    return (
        variable.startswith("OTEL_")
        or variable.upper().removeprefix(PREFIX).lower() in Settings.model_fields
    )


def _words(peer: Peer, words: tuple[str, ...], names: Mapping[str, str]) -> list[str]:
    program, *rest = (word.format(**names) for word in words)
    return [str(peer.bin / program), *rest]


def _prepare(peer: Peer, command: list[str], environment: dict[str, str], scratch: Path) -> None:
    done = subprocess.run(  # noqa: S603 - as above
        command, cwd=scratch, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DidNotStart(f"{peer.name} cannot be prepared:\n{done.stderr[-LOG_TAIL:]}")


def _await(
    peer: Peer,
    process: subprocess.Popen[bytes],
    url: str,
    probe: tuple[str, str | None],
    log: Path,
) -> None:
    path, body = probe
    method = "GET" if body is None else "POST"
    headers = {} if body is None else {"Content-Type": "application/json"}
    deadline = time.monotonic() + START_SECONDS
    reason = "it takes too long"
    with httpx.Client(base_url=url, headers=headers, timeout=START_SECONDS) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                reason = f"it ended with exit code {process.returncode}"
                break
            with contextlib.suppress(httpx.TransportError):
                answer = client.request(method, path, content=body)
                if answer.status_code == httpx.codes.OK:
                    return
                reason = f"the last answer was {answer.status_code}: {answer.text[:LOG_TAIL]}"
            time.sleep(POLL_SECONDS)
    tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    raise DidNotStart(f"{peer.name} did not start: {reason}\n{tail}")


def _stop(process: subprocess.Popen[bytes], before: frozenset[int]) -> None:
    """End a server in good order; what is left of it after `STOP_SECONDS` is killed."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    while left := set(descendants(os.getpid())) - before:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        for pid in left:
            # Those whose parent is among them come here a moment later, in the next turn.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
