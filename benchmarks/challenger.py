"""What a challenger in shadow costs, ``python -m benchmarks.challenger``.

The server, everything on, is started again and again without a challenger, with one that is well,
with one that hangs and with one that crashes, each in turn and round after round, and put under
load by wrk. Throughput and p99 are held against those without. The challenger has the champion's
own model, so that it costs what one costs. Needs wrk and two cores, which are all the server's but
for what wrk takes of one, and a machine with nothing else to do. Exit codes: 0 every target is met;
1 one is missed; 3 it could not be measured.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from benchmarks import process, report, wrk
from benchmarks.peer import ROOT, all_peers
from benchmarks.process import DidNotStart
from benchmarks.verdict import BUSY
from benchmarks.wrk import NotMeasured
from credit_risk import manifest, package
from credit_risk.audit.log import open_log
from credit_risk.serving import challenging
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
from loadtests import applications
from loadtests.verdict import Finding, exit_code

if TYPE_CHECKING:
    from benchmarks.peer import Peer
    from benchmarks.process import Running

    State: TypeAlias = Literal["none", "well", "hanging", "crashing"]

STATES: tuple[State, ...] = ("none", "well", "hanging", "crashing")
LEAST_THROUGHPUT, MOST_P99 = 0.9, 1.2
"""Targets: share of the throughput without a challenger, and times the p99 without one."""
CONNECTIONS = (1, BUSY)
NOT_MEASURED = 3
WARM_UP_SECONDS = 2
START_SECONDS = 180.0
PORTFOLIO = "personal-loans"
VARIABLE = "BENCHMARK_CHALLENGER"
"""What the challenger of `benchmarks.service_with_bad_challenger` does."""
_SERVICE = "benchmarks.service_without_records:CreditRiskServer"


@dataclass(slots=True)
class Measured:
    """One state's figures over rounds, by number of connections: requests a second, p99 in ms."""

    rates: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    p99: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))


def judge(measured: dict[State, Measured]) -> tuple[Finding, ...]:
    """Every state but the first against it: the medians of its rounds' ratios."""
    alone = measured["none"]
    findings = []
    for state, one in measured.items():
        if state == "none":
            continue
        for connections in CONNECTIONS:
            of = f"challenger {state} against none, {connections} connections"
            share = _ratio(one.rates[connections], alone.rates[connections])
            name = f"requests a second, {of}"
            findings.append(Finding(name, "times", "at least", LEAST_THROUGHPUT, share))
            times = _ratio(one.p99[connections], alone.p99[connections])
            findings.append(Finding(f"p99, {of}", "times", "at most", MOST_P99, times))
    return tuple(findings)


def _ratio(now: list[float], then: list[float]) -> float:
    """Round by round, and the median of them: what a machine is like changes meanwhile."""
    return median(a / b for a, b in zip(now, then, strict=True))


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of each load.")] = 8,
) -> None:
    """Measure, and say whether the targets are met."""
    measured: dict[State, Measured] = {state: Measured() for state in STATES}
    try:
        wrk.check()
        process.adopt_orphans()
        with tempfile.TemporaryDirectory(prefix="challenger-", dir=Path.cwd()) as folder:
            packages, version = challenger(Path(folder))
            bodies = Path(folder) / "predict.jsonl"
            shipped = applications.folder(ROOT / "packages", PORTFOLIO, "default")
            bodies.write_text("\n".join(applications.singles(shipped)) + "\n", encoding="utf-8")
            for number in range(rounds):
                # Each is the first of a round in its turn: what is before it matters for none.
                turn = number % len(STATES)
                for state in (*STATES[turn:], *STATES[:turn]):
                    scratch = Path(folder) / f"{state}-{number}"
                    scratch.mkdir()
                    asked = _measure(
                        measured[state], state, scratch, (packages, version), bodies, seconds
                    )
                    told = ", ".join(
                        f"{of} connections {measured[state].rates[of][-1]:,.0f} requests/s, "
                        f"p99 {measured[state].p99[of][-1]:.2f} ms"
                        for of in CONNECTIONS
                    )
                    sys.stderr.write(
                        f"round {number + 1} of {rounds}: challenger {state}: {told}; {asked}\n"
                    )
    except (NotMeasured, DidNotStart, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(NOT_MEASURED) from None
    findings = judge(measured)
    Console().print(report.table(findings))
    raise typer.Exit(exit_code(findings))


def challenger(folder: Path) -> tuple[Path, str]:
    """Packages to ship, a challenger among them, and its version: the champion's by another name.

    Only the card differs, and so the digest.
    """
    packages = folder / "packages"
    copytree(ROOT / "packages" / PORTFOLIO, packages / PORTFOLIO)
    shipped = applications.folder(ROOT / "packages", PORTFOLIO, "default")
    files = {
        path.relative_to(shipped).as_posix(): path.read_bytes()
        for path in shipped.rglob("*")
        if path.is_file() and path.name != manifest.MANIFEST
    }
    files["card.md"] += b"\n"
    return packages, package.write(packages, PORTFOLIO, files).name


def _measure(  # noqa: PLR0917 - what is measured, and how
    one: Measured,
    state: State,
    scratch: Path,
    packages: tuple[Path, str],
    bodies: Path,
    seconds: int,
) -> str:
    """Measure once; returns what became of the challenger."""
    folder, version = packages
    values = {"collector": "", "packages": str(folder), "root": str(ROOT)}
    os.environ[VARIABLE] = state
    with process.started(_peer(state), scratch, values, ("/readyz", None), pinned=False) as running:
        path = f"{running.url}/predict"
        wrk.run(path, bodies, BUSY, WARM_UP_SECONDS)
        if state != "none":
            settings = Settings(state_dir=scratch, packages_dir=folder, workers=1)
            with contextlib.closing(open_log(settings)) as log:
                challenging.challenge(settings, log, Store(settings), version)
            _await(running, state, bodies)
        for connections in CONNECTIONS:
            found = wrk.run(path, bodies, connections, seconds)
            one.rates[connections].append(found.rate)
            one.p99[connections].append(found.p99)
        told = told_of(httpx.get(f"{running.url}/metrics").text)
    return ", ".join(f"{name} {number:,.0f}" for name, number in sorted(told.items())) or "none"


def _await(running: Running, state: State, bodies: Path) -> None:
    """Wait until the challenger is in that state: the one that hangs, until it is held back.

    Raises:
        NotMeasured: it never was.
    """
    deadline = time.monotonic() + START_SECONDS
    wanted = "same" if state == "well" else "crashed"
    while time.monotonic() < deadline:
        wrk.run(f"{running.url}/predict", bodies, 1, 1)
        time.sleep(1.0)
        if state == "hanging":
            if any(process.is_stopped(pid) for pid in running.processes):
                return
        elif told_of(httpx.get(f"{running.url}/metrics").text).get(wanted):
            return
    raise NotMeasured(f"no challenger was {state}")


def told_of(text: str) -> dict[str, float]:
    """What a server's metrics tell of its challenger: how many pairs and ends, by outcome."""
    names = {"credit_shadow_decisions_total", "credit_shadow_process_failures_total"}
    told: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in names and sample.value:
                name = sample.labels.get("outcome") or sample.labels["cause"]
                told[name] = told.get(name, 0.0) + sample.value
            if sample.name == "credit_shadow_behind_records":
                told["behind"] = sample.value
    return told


def _peer(state: State) -> Peer:
    """The server to start."""
    (peer,) = (peer for peer in all_peers() if peer.name == "this-server-without-records")
    service = "service:CreditRiskServer"
    if state in {"hanging", "crashing"}:
        service = "benchmarks.service_with_bad_challenger:CreditRiskServer"
    words = [service if word == _SERVICE else word for word in peer.description.command]
    peer.description = peer.description.model_copy(update={"command": tuple(words)})
    return peer


if __name__ == "__main__":
    typer.run(main)
