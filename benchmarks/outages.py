"""What a collector of traces in trouble costs the server, ``python -m benchmarks.outages``.

The server, everything on, is started again and again with a collector that is well, slow, down, or
refuses or resets what it is sent, each in turn and round after round, and put under load by wrk.
Throughput and memory are held against those with a collector that is well. Needs wrk and two cores,
and a machine with nothing else to do. Exit codes: 0 every target is met; 1 one is missed; 3 it
could not be measured.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from benchmarks import collector, process, report, wrk
from benchmarks.peer import ROOT, all_peers
from benchmarks.process import DidNotStart
from benchmarks.verdict import BUSY, MEGABYTE, OURS
from benchmarks.wrk import NotMeasured
from loadtests import applications
from loadtests.verdict import Finding, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.collector import Behaviour, Collector

    State: TypeAlias = Literal["well", "slow", "refusing", "resetting", "down"]

BEHAVIOURS: dict[State, Behaviour | None] = {
    "well": "takes",
    "slow": "slow",
    "refusing": "refuses",
    "resetting": "resets",
    "down": None,
}
"""What a collector in each state does; nobody listens where one is down."""
LEAST_THROUGHPUT, MOST_MEMORY = 0.95, 20.0
"""Targets: share of the throughput with a collector that is well, and MB more than with it."""
NOT_MEASURED = 3
WARM_UP_SECONDS = 2
PORTFOLIO = "personal-loans"


@dataclass(slots=True)
class Measured:
    """One state's figures over rounds: requests a second, MB at the end, spans lost."""

    rates: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)


def judge(measured: dict[State, Measured]) -> tuple[Finding, ...]:
    """Every state but the first against it."""
    well = measured["well"]
    findings = []
    for state, one in measured.items():
        if state != "well":
            name = f"requests a second, collector {state} against well"
            share = median(one.rates) / median(well.rates)
            findings.append(Finding(name, "times", "at least", LEAST_THROUGHPUT, share))
            more = median(one.megabytes) - median(well.megabytes)
            name = f"memory of a worker, collector {state} against well"
            findings.append(Finding(name, "MB more", "at most", MOST_MEMORY, more))
    return tuple(findings)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of each load.")] = 8,
) -> None:
    """Measure, and say whether the targets are met."""
    measured: defaultdict[State, Measured] = defaultdict(Measured)
    try:
        wrk.check()
        process.adopt_orphans()
        process.pin()
        with tempfile.TemporaryDirectory(prefix="outages-", dir=Path.cwd()) as folder:
            bodies = Path(folder) / "predict.jsonl"
            package = applications.folder(ROOT / "packages", PORTFOLIO, "default")
            bodies.write_text("\n".join(applications.singles(package)) + "\n", encoding="utf-8")
            for number in range(rounds):
                for state in BEHAVIOURS:
                    scratch = Path(folder) / f"{state}-{number}"
                    scratch.mkdir()
                    one = measured[state]
                    _measure(one, state, scratch, bodies, seconds)
                    sys.stderr.write(
                        f"round {number + 1} of {rounds}: collector {state}: {one.rates[-1]:,.0f} "
                        f"requests/s, {one.megabytes[-1]:,.0f} MB, {one.dropped[-1]:,.0f} spans "
                        "lost\n"
                    )
    except (NotMeasured, DidNotStart, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(NOT_MEASURED) from None
    findings = judge(measured)
    Console().print(report.table(findings))
    raise typer.Exit(exit_code(findings))


def _measure(one: Measured, state: State, scratch: Path, bodies: Path, seconds: int) -> None:
    (peer,) = (peer for peer in all_peers() if peer.name == OURS)
    with _collecting(state) as (url, collecting):
        values = {"collector": url, "packages": str(ROOT / "packages")}
        with process.started(peer, scratch, values, ("/readyz", None)) as running:
            path = running.url + peer.description.path
            wrk.run(path, bodies, BUSY, WARM_UP_SECONDS)
            time.sleep(1.0)
            one.rates.append(wrk.run(path, bodies, BUSY, seconds).rate)
            one.megabytes.append(process.memory(running.processes).largest / MEGABYTE)
            one.dropped.append(dropped(httpx.get(f"{running.url}/metrics").text))
    # What was to be shown is that the collector was in trouble, or was not.
    if bool(one.dropped[-1]) is (state == "well"):
        raise NotMeasured(f"collector {state}: {one.dropped[-1]:,.0f} spans were lost")
    if collecting is not None and not collecting.received:
        raise NotMeasured(f"collector {state}: no span was sent")


def dropped(text: str) -> float:
    """How many spans a server has lost, by its metrics."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "credit_spans_dropped_total"
    )


@contextlib.contextmanager
def _collecting(state: State) -> Iterator[tuple[str, Collector | None]]:
    """The address of a collector in that state, and the collector, unless it is down."""
    behaviour = BEHAVIOURS[state]
    if behaviour is not None:
        with collector.collecting(behaviour) as collecting:
            yield collecting.url, collecting
        return
    # Bound, so that nobody else gets the port, and not listening.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}", None


if __name__ == "__main__":
    typer.run(main)
