"""The machine a load test ran on, and who else used it meanwhile (Linux)."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def description() -> str:
    """This machine in one line: processor, cores, memory, kernel, Python."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return ", ".join(
        (
            names[0] if names else platform.machine(),
            f"{os.cpu_count()} cores",
            f"{memory:.1f} GiB",
            f"Linux {platform.release()}",
            f"Python {platform.python_version()}",
        )
    )


def busy_seconds() -> float:
    """Core seconds that all programs have used since the machine started.

    Time stolen by other virtual machines counts; interrupts do not, since the kernel does not say
    for whom they were.
    """
    line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    user, nice, system, _, _, _, _, steal = (int(field) for field in line.split()[1:9])
    return (user + nice + system + steal) / _TICKS


def own_seconds(server: int) -> float:
    """Core seconds of this process, of those it has waited for, and of a server's processes."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + sum(_used(pid) for pid in (server, *children(server)))


def children(process: int) -> list[int]:
    """Process ids of a process's children."""
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(pid) for pid in path.read_text(encoding="ascii").split()]


def runs(pid: int) -> bool:
    """Whether there is such a process, and it has not ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2][1] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _used(pid: int) -> float:
    # The name, in brackets, may hold brackets itself. After it, proc(5)'s field 3 comes first:
    # 14 and 15 are the time as itself and within the kernel.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[14 - 3]) + int(fields[15 - 3])) / _TICKS
