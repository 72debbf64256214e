"""The measurement: every server in turn, round after round, under the same loads.

A server is started, asked each row once and compared with the pipeline (which also warms it up),
put under load, and stopped before the next one starts. What is reported is the median of rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import httpx

from benchmarks import formats, process, wrk
from benchmarks.peer import ROOT, NotInstalled
from benchmarks.process import DidNotStart
from benchmarks.wrk import NotMeasured
from credit_risk.audit.log import open_records
from credit_risk.settings import Settings
from loadtests import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.collector import Collector
    from benchmarks.model import Material
    from benchmarks.peer import LoadName, Peer
    from benchmarks.process import Running
    from benchmarks.wrk import Times

TOLERANCE = 1e-6
"""Largest difference in PD between a server's answer and the pipeline's own."""

WARM_UP_SECONDS = 1
SETTLE_SECONDS = 1.0
"""Between two loads: wrk leaves requests behind, which a server goes on answering."""
ANSWER_SECONDS = 60.0
STARTS = 3
PYTHON = sys.executable


class WrongAnswer(Exception):
    """A server does not answer what the pipeline does, or does not do what it is there to show."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure, where to write meanwhile, and where traces go."""

    folder: Path
    rounds: int
    seconds: int
    collector: Collector
    say: Callable[[str], None]


@dataclass(slots=True)
class Measured:
    """One server's figures, each a list over rounds; ``failure`` says why there are none.

    ``wrong`` means that it answered, but with an error, or with something else than the pipeline.
    ``times`` by kind of load and connections; memory in bytes, see `process.Memory`; ``starts``
    in seconds, on one core; ``others`` is how many cores other programs used under each load.
    """

    peer: Peer
    failure: str | None = None
    wrong: bool = False
    times: dict[tuple[LoadName, int], list[Times]] = field(default_factory=dict)
    together: list[int] = field(default_factory=list)
    largest: list[int] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def rate(self, load: LoadName, connections: int) -> float | None:
        """Requests answered a second."""
        return self._median(load, connections, "rate")

    def p50(self, load: LoadName, connections: int) -> float | None:
        """Half of the requests took no longer, ms."""
        return self._median(load, connections, "p50")

    def p99(self, load: LoadName, connections: int) -> float | None:
        """99 of 100 requests took no longer, ms."""
        return self._median(load, connections, "p99")

    def _median(self, load: LoadName, connections: int, figure: str) -> float | None:
        rounds = self.times.get((load, connections), [])
        return median(getattr(one, figure) for one in rounds) if rounds else None


@dataclass(frozen=True, slots=True)
class Starts:
    """Seconds from the command to a ready server, on all cores.

    ``first`` with an empty state directory, ``later`` the median of the starts after it.
    """

    first: float
    later: float


@dataclass(frozen=True, slots=True)
class Reasons:
    """Microseconds for the exact reasons of one row, see `benchmarks.reasons`."""

    reference_rows: int
    background_rows: int
    ours_us: float
    shap_us: float


def compare(
    plan: Plan, peers: Sequence[Peer], material: Material, failures: Mapping[str, str]
) -> list[Measured]:
    """Measure every peer; one that cannot be measured is left out with its reason.

    Args:
        plan: how much.
        peers: which.
        material: what every server is asked.
        failures: why a peer cannot be measured, by its name.

    Raises:
        WrongAnswer, DidNotStart, NotMeasured: it is this server that cannot be.
    """
    found = [Measured(peer, failures.get(peer.name)) for peer in peers]
    for number in range(1, plan.rounds + 1):
        for one in found:
            if one.failure is None:
                plan.say(f"round {number} of {plan.rounds}: {one.peer.title}")
                try:
                    _round(plan, one, material)
                except (DidNotStart, WrongAnswer, NotMeasured) as error:
                    if one.peer.description.package is None:
                        raise
                    one.failure, one.wrong = str(error), not isinstance(error, DidNotStart)
                    one.times.clear()
                    plan.say(one.failure)
    return found


def install(plan: Plan, peers: Sequence[Peer]) -> dict[str, str]:
    """Make the environments; returns why one could not be made, by the peer's name."""
    failures = {}
    for peer in peers:
        plan.say(f"environment of {peer.title}")
        try:
            peer.install()
        except NotInstalled as error:
            failures[peer.name] = str(error)
            plan.say(str(error))
    return failures


def starts(plan: Plan, peer: Peer, material: Material) -> Starts:
    """Start this server several times on all cores; raises DidNotStart."""
    plan.say("starts of this server")
    scratch = _folder(plan, "starts")
    taken = []
    for _ in range(1 + STARTS):
        with process.started(
            peer, scratch, _values(plan, material), ("/readyz", None), pinned=False
        ) as running:
            taken.append(running.start)
    return Starts(taken[0], median(taken[1:]))


def reasons(plan: Plan, material: Material) -> Reasons:
    """Measure explanations on a core of their own; raises NotMeasured."""
    plan.say("exact reasons, and shap's")
    done = subprocess.run(  # noqa: S603 - our own interpreter, no shell
        [
            *("taskset", "-c", str(process.GENERATOR_CORE), PYTHON, "-m", "benchmarks.reasons"),
            *(str(material.package), str(material.pipeline)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotMeasured(f"reasons: {done.stderr}")
    return Reasons(**json.loads(done.stdout))


def check(answers: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> None:
    """Compare PDs with those of the pipeline.

    Args:
        answers: for each request its rows' PDs.
        expected: the same of the pipeline.

    Raises:
        WrongAnswer: a row is missing, or off by more than `TOLERANCE`.
    """
    for number, (got, wanted) in enumerate(zip(answers, expected, strict=True)):
        if len(got) != len(wanted):
            raise WrongAnswer(f"request {number}: {len(got)} results for {len(wanted)} rows")
        # Written so that NaN fails too.
        if not max(abs(a - b) for a, b in zip(got, wanted, strict=True)) <= TOLERANCE:
            raise WrongAnswer(f"request {number}: a PD is not the pipeline's")


def _round(plan: Plan, one: Measured, material: Material) -> None:
    peer, scratch = one.peer, _folder(plan, one.peer.name)
    probe, exports = _bodies(peer, "predict", material)[0], plan.collector.received
    with process.started(
        peer, scratch, _values(plan, material), (peer.description.path, probe)
    ) as running:
        one.starts.append(running.start)
        for load, levels in peer.description.loads.items():
            bodies = _bodies(peer, load, material)
            _check_answers(peer, running, load, bodies, material)
            file = scratch / f"{load}.jsonl"
            file.write_text("\n".join(bodies) + "\n", encoding="utf-8")
            url = running.url + _path(peer, load)
            wrk.run(url, file, max(levels), WARM_UP_SECONDS)
            time.sleep(SETTLE_SECONDS)
            for connections in levels:
                use = _Use()
                times = wrk.run(url, file, connections, plan.seconds)
                one.times.setdefault((load, connections), []).append(times)
                one.others.append(use.others())
                plan.say(
                    f"  {load}, connections {connections}: {times.rate:,.0f} requests/s, "
                    f"p50 {times.p50:.2f} ms, p99 {times.p99:.2f} ms"
                    + _warnings(times, one.others[-1])
                )
                time.sleep(SETTLE_SECONDS)
        size = process.memory(running.processes)
        one.together.append(size.together)
        one.largest.append(size.largest)
    _check_records(peer, scratch)
    if "{collector}" in peer.description.environment.values() and (
        plan.collector.received == exports
    ):
        raise WrongAnswer(f"{peer.name}: no trace was exported")


def _check_answers(
    peer: Peer, running: Running, load: LoadName, bodies: Sequence[str], material: Material
) -> None:
    """Ask everything once; raises WrongAnswer."""
    answers = []
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=ANSWER_SECONDS) as client:
        for body in bodies:
            answer = client.post(_path(peer, load), content=body)
            if answer.status_code != httpx.codes.OK:
                raise WrongAnswer(f"{peer.name}: {load}: status {answer.status_code}")
            if not peer.description.scores:
                continue
            try:
                answers.append(
                    formats.batch_pds(answer.json())
                    if load == "batch"
                    else [formats.single_pd(peer.description.format, answer.json())]
                )
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise WrongAnswer(f"{peer.name}: {load}: no PD in an answer") from error
    if peer.description.scores:
        try:
            check(answers, material.pds[load])
        except WrongAnswer as error:
            raise WrongAnswer(f"{peer.name}: {load}: {error}") from error


def _check_records(peer: Peer, scratch: Path) -> None:
    """See that decisions were recorded, or were not, as the comparison needs it."""
    if peer.description.records is None:
        return
    log = open_records(Settings(state_dir=scratch, database_url=None))
    kept = log.count(kind="decision")
    log.close()
    if bool(kept) is not peer.description.records:
        raise WrongAnswer(f"{peer.name}: {kept} decisions are on record")


def _bodies(peer: Peer, load: LoadName, material: Material) -> list[str]:
    if load == "batch":
        return [formats.batch(batch) for batch in material.batches]
    rows = material.declined if load == "declined" else material.rows
    return [formats.single(peer.description.format, row, material.schema) for row in rows]


def _path(peer: Peer, load: LoadName) -> str:
    if load != "batch":
        return peer.description.path
    if peer.description.batch_path is None:
        raise NotMeasured(f"{peer.name}: peer.yaml names no batch_path")
    return peer.description.batch_path


def _values(plan: Plan, material: Material) -> dict[str, str]:
    return {
        "root": str(ROOT),
        "collector": plan.collector.url,
        "pipeline": str(material.pipeline),
        "packages": str(material.packages),
        "packages_approving": str(material.packages_approving),
    }


def _folder(plan: Plan, name: str) -> Path:
    path = plan.folder / name
    path.mkdir(exist_ok=True)
    return path


class _Use:
    """Who uses the cores from now on."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = self._now()

    def others(self) -> float:
        """Cores used since by none of the benchmark's processes."""
        began, busy, own = self._now()
        return max(busy - self._busy - (own - self._own), 0.0) / (began - self._began)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), machine.busy_seconds(), process.core_seconds()


def _warnings(times: Times, others: float) -> str:
    found = []
    if times.generator_share > 0.8:  # noqa: PLR2004 - a core less than this busy keeps up
        found.append(f"wrk used {times.generator_share:.0%} of its core")
    if others > 0.1:  # noqa: PLR2004 - a tenth of a core is not the kernel's own noise
        found.append(f"other programs used {others:.1f} cores")
    return "".join(f"; {warning}" for warning in found)
