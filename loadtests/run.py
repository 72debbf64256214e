"""One scenario from beginning to end: Locust's command line between two looks at the server."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests import crosscheck, measurement, server, soak, verdict

if TYPE_CHECKING:
    from loadtests.crosscheck import RouteCheck
    from loadtests.measurement import Measured, Samples
    from loadtests.objectives import Objectives, Scenario, ScenarioName
    from loadtests.server import Server
    from loadtests.soak import Resident
    from loadtests.verdict import Finding

USERS = {"predict": "Predict", "batch": "Batch", "explain": "Explain", "mix": "Mix"}
"""The class of `loadtests.locustfile` that makes each scenario's traffic."""

STOP_SECONDS = 60
MEMORY_SECONDS = 2.0
LOG_TAIL = 3_000


class RunFailed(Exception):
    """Locust did not come to a verdict."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run needs to know besides the server: where things are."""

    objectives: Objectives
    objectives_path: Path
    package: Path
    folder: Path


@dataclass(frozen=True, slots=True)
class Run:
    """One scenario as it went.

    ``scenario`` is what was run, ``stated`` what the objectives are for. ``memory`` is empty if
    the server was not started here. ``locust_page`` is Locust's own report, of rounded times.
    """

    name: str
    scenario: Scenario
    stated: Scenario
    samples: Samples
    measured: Measured | None
    findings: tuple[Finding, ...]
    checks: tuple[RouteCheck, ...]
    memory: tuple[Resident, ...]
    locust_page: Path

    @property
    def as_stated(self) -> bool:
        """Whether users and duration are those the objectives are for."""
        return (self.scenario.users, self.scenario.duration) == (
            self.stated.users,
            self.stated.duration,
        )


def scenario(
    plan: Plan,
    target: Server,
    name: ScenarioName,
    users: int | None = None,
    duration: int | None = None,
) -> Run:
    """Run one scenario; ``users`` and ``duration`` (s) replace what the objectives state.

    Raises:
        RunFailed: Locust ended without samples, or with another verdict than these samples give.
        Unavailable: the server stopped answering.
    """
    stated, chosen = _chosen(plan, name, users, duration)
    samples, checks, memory = _measure(plan, target, name, chosen)
    measured = measurement.measure(samples)
    findings = verdict.judge(chosen.targets, measured)
    return Run(name, chosen, stated, samples, measured, findings, checks, memory, _page(plan, name))


def soaked(plan: Plan, target: Server, users: int | None, duration: int) -> Run:
    """Run the soak for ``duration`` seconds; raises as `scenario`."""
    name = plan.objectives.soak.scenario
    _, chosen = _chosen(plan, name, users, duration)
    samples, checks, memory = _measure(plan, target, name, chosen)
    measured = measurement.measure(samples)
    findings = verdict.judge(chosen.targets, measured)
    findings += soak.judge(plan.objectives.soak, samples, memory)
    return Run(
        "soak", chosen, chosen, samples, measured, findings, checks, memory, _page(plan, name)
    )


def _chosen(
    plan: Plan, name: ScenarioName, users: int | None, duration: int | None
) -> tuple[Scenario, Scenario]:
    stated = plan.objectives.scenarios[name]
    given = {"users": users, "duration": duration}
    return stated, stated.model_copy(update={k: v for k, v in given.items() if v is not None})


def _measure(
    plan: Plan, target: Server, name: ScenarioName, chosen: Scenario
) -> tuple[Samples, tuple[RouteCheck, ...], tuple[Resident, ...]]:
    before = server.histograms(target)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=plan.folder) as scratch:
        file = Path(scratch) / "samples.npz"
        log = Path(scratch) / "locust.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
                _command(plan, target, name, chosen, file),
                cwd=server.ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        memory: list[Resident] = []
        while (code := _ended(process)) is None:
            if target.process is not None:
                memory.append(soak.Resident(time.time(), server.resident(target.process)))
        try:
            samples = measurement.load(file)
        except OSError as error:
            raise RunFailed(_why(code, log)) from error
        found = verdict.judge(chosen.targets, measurement.measure(samples))
        if code != verdict.exit_code(found):
            raise RunFailed(_why(code, log))
    after = server.histograms(target)
    return samples, crosscheck.compare(before, after, samples), tuple(memory)


def _page(plan: Plan, name: ScenarioName) -> Path:
    return plan.folder / f"locust-{name}.html"


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit code; None if it still runs after `MEMORY_SECONDS`."""
    try:
        return process.wait(MEMORY_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _why(code: int, log: Path) -> str:
    tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    return f"locust ended with exit code {code}\n{tail}"


def _command(
    plan: Plan, target: Server, name: ScenarioName, chosen: Scenario, samples: Path
) -> list[str]:
    # By its own command only: imported into a program that has loaded ssl, it recurses.
    return [
        *(sys.executable, "-m", "locust", "-f", str(Path(__file__).parent / "locustfile.py")),
        *("--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--host", target.url),
        *("--users", str(chosen.users), "--spawn-rate", str(chosen.users)),
        *("--run-time", f"{chosen.duration}s", "--stop-timeout", str(STOP_SECONDS)),
        *("--html", str(_page(plan, name))),
        *("--package", str(plan.package), "--rows", str(chosen.rows)),
        *("--objectives", str(plan.objectives_path), "--scenario", name),
        *("--samples", str(samples)),
        USERS[name],
    ]
