"""One scenario from beginning to end: Locust's command line between two looks at the server."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests import crosscheck, machine, measurement, server, soak, verdict

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

    ``scenario`` is what was run, ``stated`` what the objectives are for. ``others`` is how many
    cores programs other than server and load test used meanwhile; of a server not started here it
    is None, and ``memory`` empty. ``locust_page`` is Locust's own report, of rounded times.
    """

    name: str
    scenario: Scenario
    stated: Scenario
    samples: Samples
    measured: Measured | None
    findings: tuple[Finding, ...]
    checks: tuple[RouteCheck, ...]
    memory: tuple[Resident, ...]
    others: float | None
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
    stated = plan.objectives.scenarios[name]
    given = {"users": users, "duration": duration}
    chosen = stated.model_copy(update={k: v for k, v in given.items() if v is not None})
    page = plan.folder / f"locust-{name}.html"
    before, use = server.histograms(target), _Use(target)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=plan.folder) as scratch:
        file, log = Path(scratch) / "samples.npz", Path(scratch) / "locust.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
                _command(plan, target, name, chosen, file, page),
                cwd=server.ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        memory: list[Resident] = []
        while (code := _ended(process)) is None:
            if target.process is not None:
                memory.append(soak.Resident(time.time(), server.resident(target.process)))
        others = use.others()
        try:
            samples = measurement.load(file)
        except OSError as error:
            raise RunFailed(_why(code, log)) from error
        measured = measurement.measure(samples)
        findings = verdict.judge(chosen.targets, measured)
        if code != verdict.exit_code(findings):
            raise RunFailed(_why(code, log))
    checks = crosscheck.compare(before, server.histograms(target), samples)
    return Run(
        name, chosen, stated, samples, measured, findings, checks, tuple(memory), others, page
    )


def soaked(plan: Plan, target: Server, users: int | None, duration: int) -> Run:
    """Run the soak for ``duration`` seconds; raises as `scenario`."""
    objectives = plan.objectives.soak
    run = scenario(plan, target, objectives.scenario, users, duration)
    return replace(
        run,
        name="soak",
        # How long a soak takes is for whoever runs it to say.
        stated=run.stated.model_copy(update={"duration": duration}),
        findings=run.findings + soak.judge(objectives, run.samples, run.memory),
    )


class _Use:
    """Who uses the cores from now on."""

    def __init__(self, target: Server) -> None:
        self._server = target.process
        self._began, self._busy, self._own = self._now()

    def others(self) -> float | None:
        """Cores used since by neither server nor load test; None of a server not ours."""
        began, busy, own = self._now()
        if self._server is None:
            return None
        return max(busy - self._busy - (own - self._own), 0.0) / (began - self._began)

    def _now(self) -> tuple[float, float, float]:
        own = 0.0 if self._server is None else machine.own_seconds(self._server)
        return time.monotonic(), machine.busy_seconds(), own


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit code; None if it still runs after `MEMORY_SECONDS`."""
    try:
        return process.wait(MEMORY_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _why(code: int, log: Path) -> str:
    tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    return f"locust ended with exit code {code}\n{tail}"


def _command(  # noqa: PLR0917 - what the command says
    plan: Plan, target: Server, name: ScenarioName, chosen: Scenario, samples: Path, page: Path
) -> list[str]:
    # By its own command only: imported into a program that has loaded ssl, it recurses.
    return [
        *(sys.executable, "-m", "locust", "-f", str(Path(__file__).parent / "locustfile.py")),
        *("--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--host", target.url),
        *("--users", str(chosen.users), "--spawn-rate", str(chosen.users)),
        *("--run-time", f"{chosen.duration}s", "--stop-timeout", str(STOP_SECONDS)),
        *("--html", str(page)),
        *("--package", str(plan.package), "--rows", str(chosen.rows)),
        *("--objectives", str(plan.objectives_path), "--scenario", name),
        *("--samples", str(samples)),
        USERS[name],
    ]
