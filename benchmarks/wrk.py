"""The load generator: wrk on a core of its own, and what it says.

Each connection sends its next request as soon as it has the answer to the one before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.process import GENERATOR_CORE

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = Path(__file__).with_suffix(".lua")
TIMEOUT_SECONDS = 30


class NotMeasured(Exception):
    """The load generator is absent, failed, or got answers that are errors."""


@dataclass(frozen=True, slots=True)
class Times:
    """What one run of wrk measured.

    ``p50`` and ``p99`` in ms; ``generator_share`` is how much of its core wrk used: near 1, it is
    wrk that is measured.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    generator_share: float


def check() -> None:
    """See that the programs are there.

    Raises:
        NotMeasured: names the one that is not, and the Debian package that has it.
    """
    for program, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            raise NotMeasured(f"{program} is not installed: apt-get install {package}")
    if (os.cpu_count() or 1) <= GENERATOR_CORE:
        raise NotMeasured("one core for the server and one for the load generator are needed")


def run(url: str, bodies: Path, connections: int, seconds: int) -> Times:
    """Post the lines of a file for some seconds.

    Raises:
        NotMeasured: wrk failed, a request got no answer, or one that is an error.
    """
    process = subprocess.Popen(  # noqa: S603 - our own words, no shell
        [
            *("taskset", "-c", str(GENERATOR_CORE), "wrk", "--threads", "1"),
            *("--connections", str(connections), "--duration", f"{seconds}s"),
            *("--timeout", f"{TIMEOUT_SECONDS}s", "--script", str(SCRIPT)),
            *(url, "--", str(bodies)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None  # noqa: S101 - for the type checker
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise NotMeasured(f"wrk ended with exit code {process.returncode}\n{output}")
    return read(output, connections, usage.ru_utime + usage.ru_stime)


def read(output: str, connections: int, busy: float) -> Times:
    """Figures from what ``wrk.lua`` printed; ``busy`` is how many core seconds wrk used.

    Raises:
        NotMeasured: there is no such line, a request failed, or the counts do not add up.
    """
    line = next((line for line in output.splitlines() if line.startswith('{"us":')), None)
    if line is None:
        raise NotMeasured(f"wrk printed no figures\n{output}")
    said = json.loads(line)
    failed = {kind: number for kind, number in said["errors"].items() if number}
    if failed or not said["requests"]:
        raise NotMeasured(f"of {said['requests']} requests failed: {failed}")
    seconds = said["us"] / 1e6
    bins = uncorrected(dict(said["bins"]), said["us"], said["requests"], connections)
    return Times(
        requests=said["requests"],
        rate=said["requests"] / seconds,
        p50=_percentile(bins, 50) / 1e3,
        p99=_percentile(bins, 99) / 1e3,
        generator_share=busy / seconds,
    )


def uncorrected(
    bins: Mapping[int, int], duration: int, requests: int, connections: int
) -> dict[int, int]:
    """Times as measured, from times as wrk reports them.

    Where a request took more than twice the mean, wrk adds to its histogram the requests that
    would have been sent meanwhile at a steady rate ("coordinated omission"). Nobody here sends at
    a steady rate. From the longest time down, what each has added is known and taken off again.

    Args:
        bins: how many requests took so many microseconds, corrected by wrk.
        duration: microseconds measured.
        requests: how many were answered.
        connections: how many sent.

    Raises:
        NotMeasured: what remains is not ``requests`` times: this wrk corrects in another way.
    """
    raw = dict(bins)
    expected = duration // max(requests // connections, 1)
    for time in sorted(bins, reverse=True):
        if time < 2 * expected:
            break
        count = raw[time]
        if count:
            for added in range(time - expected, expected, -expected):
                raw[added] = raw.get(added, 0) - count
    if sum(raw.values()) != requests or min(raw.values()) < 0:
        raise NotMeasured("wrk's times are not those of its requests")
    return {time: count for time, count in raw.items() if count}


def _percentile(bins: Mapping[int, int], level: float) -> int:
    """The smallest time that at least ``level`` percent of the requests did not exceed."""
    needed = level / 100 * sum(bins.values())
    seen = 0
    for time in sorted(bins):
        seen += bins[time]
        if seen >= needed:
            return time
    raise ValueError("no requests")
