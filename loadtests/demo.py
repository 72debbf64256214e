"""A tour, ``python -m loadtests.demo``: a server decides, its applicants change, and it shows.

Starts a server of its own and, where one is installed, a Prometheus that looks at it every second;
sends applicants as the model knows them, then applicants to whom something happened; reads back
what was measured, and does what people do with a decision: a review, a replay, a proof. Ends by
itself or by Ctrl-C, and leaves nothing behind but what ``--keep`` asks for. Exit codes: 0 all was
as it should be; 1 something was not; 2 wrong usage; 3 it could not be shown; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import httpx
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from credit_risk import portfolio, simulation, stability
from credit_risk.audit import keys
from credit_risk.audit.log import SqlRecords
from credit_risk.audit.verification import verify
from credit_risk.cli import traffic
from credit_risk.cli.printing import rows_done
from credit_risk.errors import CreditRiskError
from credit_risk.policy import DECISIONS
from credit_risk.settings import Settings
from loadtests import applications, prometheus, server
from loadtests.server import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from credit_risk.cli.traffic import Tally
    from credit_risk.simulation import Population, Scenario
    from loadtests.prometheus import Prometheus
    from loadtests.server import Server

NOT_SHOWN = 3
INTERRUPTED = 130
SECONDS = 110
LEAST_ROWS = 500
"""Applicants of each kind, however short the tour: with fewer, chance looks much like drift."""
RATE = 20.0
"""Requests a second, where that is enough for them."""
INVALID = 0.02
SEED = 7
BY_CHANCE = 0.001
MAJOR = 0.25
"""A PSI above which something is to be done, as is usual."""
SETTLE_SECONDS = 30.0
"""The last answers are counted, and Prometheus has looked, before that."""
LOOK_SECONDS = 0.25
BINS = {"credit_feature_bin_total", "credit_score_bin_total"}
RULES = ("credit:feature_psi:1d", "credit:score_psi:1d")
ROOT = Path(__file__).parents[1]
REVIEWER = {"reviewer": "demo"}
VERDICT = {**REVIEWER, "decision": "APPROVE", "reason": "INFORMATION_VERIFIED", "note": "A tour."}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
out = Console(soft_wrap=True, highlight=False, markup=False, width=100)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs: a server, its state, and a Prometheus if there is one."""

    server: Server
    state: Path
    prometheus: Prometheus | None


@app.command(help=__doc__)
def demo(
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of traffic.")] = SECONDS,
    scenario: Annotated[
        str, typer.Option(metavar="NAME", help="What happens to the applicants halfway.")
    ] = "income-shock",
    stay: Annotated[  # noqa: FBT002 - typer makes it a flag
        bool, typer.Option("--stay", help="Then let everything run until Ctrl-C.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep records and figures there.")
    ] = None,
) -> None:
    """Show it; see the module."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with _folder(keep) as folder, _stage(folder) as stage:
            whole = _tour(stage, seconds, scenario)
            if stay:
                out.print("\nEverything runs until Ctrl-C")
                with contextlib.suppress(KeyboardInterrupt):
                    signal.pause()
    except KeyboardInterrupt:
        err.print("interrupted: everything is stopped")
        raise typer.Exit(INTERRUPTED) from None
    except (Unavailable, CreditRiskError, httpx.HTTPError) as error:
        err.print(f"error: {error}")
        raise typer.Exit(NOT_SHOWN) from None
    if keep is not None:
        out.print(f"\nRecords and figures are in {keep}")
    if not whole:
        raise typer.Exit(1)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where everything is written: a folder that goes, or the one to keep."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="credit-risk-demo-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True)
    except OSError as error:
        raise typer.BadParameter(f"{keep}: cannot be made: {error.strerror}") from error
    yield keep.absolute()


@contextlib.contextmanager
def _stage(folder: Path) -> Iterator[Stage]:
    with contextlib.ExitStack() as started:
        err.print("starting a server")
        state = folder / "state"
        running = started.enter_context(server.started(folder, state, checkpoint_seconds="5"))
        looking = None
        rules = [_eager(path, folder) for path in (ROOT / "prometheus" / "rules").glob("*.yaml")]
        target = running.url.removeprefix("http://")
        # Without one, the figures come from the server itself.
        with contextlib.suppress(prometheus.Missing):
            looking = started.enter_context(prometheus.running(folder, [target], rules=rules))
        yield Stage(running, state, looking)
        err.print("stopping")


def _eager(rules: Path, folder: Path) -> Path:
    """A copy of a file of rules that are evaluated as often as there is something to look at."""
    document = yaml.safe_load(rules.read_text(encoding="utf-8"))
    for group in document["groups"]:
        group.pop("interval", None)
    copy = folder / f"rules-{rules.name}"
    copy.write_text(yaml.safe_dump(document), encoding="utf-8")
    return copy


def _tour(stage: Stage, seconds: int, scenario: str) -> bool:
    """All of it; whether it was as it should be."""
    settings = Settings()
    name = stage.server.portfolio
    folder = portfolio.folder(settings.portfolios_dir, name)
    package = applications.folder(settings.packages_dir, name, stage.server.version)
    group = simulation.population(package)
    acts = [
        simulation.scenario(folder, group.schema, each) for each in (simulation.STABLE, scenario)
    ]
    _print_places(stage)
    seen, tallies = [counted(stage)], []
    for number, act in enumerate(acts, start=1):
        out.print(f"\n{number}. {act.title}")
        tallies.append(_sent(stage, group, act, seconds / len(acts), SEED + number))
        seen.append(_settled(stage, sum(tally.decisions.total() for tally in tallies)))
    out.print("\nWhat was decided\n")
    out.print(_decided(acts, tallies))
    out.print("\nHow far applicants are from those the model knows, by what the server counted\n")
    parts = [after - before for before, after in itertools.pairwise(seen)]
    found = drift(group, acts[-1], *parts)
    out.print(_drifts(found, {} if stage.prometheus is None else _ruled(stage.prometheus)))
    out.print(_in_words(found, tallies))
    out.print("\nWhat people can do with a decision\n")
    proven = _print_evidence(stage)
    shown = all(one.shown for one in found if one.moved)
    return shown and proven and not any(tally.failures for tally in tallies)


def _print_places(stage: Stage) -> None:
    url = stage.server.url
    out.print(f"\nserver      {url}/docs, {url}/metrics, {url}/reviews")
    if stage.prometheus is None:
        out.print("Prometheus  is not installed (Debian: apt install prometheus)")
        return
    look = stage.prometheus.url
    out.print(f"Prometheus  {look}/graph, {look}/rules, {look}/alerts. For example:")
    out.print("            sum by (decision) (rate(credit_decisions_total[30s]))")
    out.print("            sum by (bin) (rate(credit_score_bin_total[30s]))")
    out.print("            credit:feature_psi:1d")


def _sent(stage: Stage, group: Population, act: Scenario, seconds: float, seed: int) -> Tally:
    """Send applicants for so long; what was answered."""
    per_request = sum(
        share * (traffic.BATCH_ROWS if route == traffic.BATCH_ROUTE else 1)
        for route, share in traffic.MIX.items()
    )
    rate = max(RATE, LEAST_ROWS / per_request / seconds)
    blocks = simulation.blocks(group, act, seed)
    applicants = simulation.applicants(group.schema, blocks, INVALID, seed)
    to = traffic.Server(stage.server.url, stage.server.portfolio, stage.server.version)
    tally = traffic.Tally()
    with rows_done("sending", "applications") as progress:
        traffic.send(
            to,
            traffic.requests(applicants, seed),
            tally,
            rate,
            seconds,
            progress=lambda done: progress(done, None),
        )
    return tally


def counted(stage: Stage) -> Counter[tuple[str, str]]:
    """How many were in each bin of each field and of the score, up to now.

    Raises:
        HTTPError: the server, or Prometheus, does not answer.
    """
    if stage.prometheus is not None:
        answer = stage.prometheus.query(f'{{__name__=~"{"|".join(BINS)}"}}')
        series = [(sample.labels, sample.value) for sample in answer]
    else:
        text = httpx.get(f"{stage.server.url}/metrics").raise_for_status().text
        series = [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in BINS
        ]
    found: Counter[tuple[str, str]] = Counter()
    for labels, value in series:
        found[labels.get("feature", stability.SCORE), labels["bin"]] += int(value)
    return found


def _settled(stage: Stage, decisions: int) -> Counter[tuple[str, str]]:
    """What is `counted` once so many decisions are.

    Raises:
        Unavailable: they never are.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        found = counted(stage)
        if sum(found[name, bin_] for name, bin_ in found if name == stability.SCORE) >= decisions:
            return found
        time.sleep(LOOK_SECONDS)
    msg = f"{decisions} decisions were answered, and {stage.server.url}/metrics has fewer"
    raise Unavailable(msg)


def _decided(acts: Sequence[Scenario], tallies: Sequence[Tally]) -> Table:
    """What was answered, act by act."""
    table = Table("", "applicants", *DECISIONS, "refused", "failed", "p50 ms", "p99 ms", box=None)
    for act, tally in zip(acts, tallies, strict=True):
        decided = max(tally.decisions.total(), 1)
        latencies = tally.latencies["/predict"]
        table.add_row(
            act.name,
            f"{tally.applications:,}",
            *(f"{tally.decisions[name] / decided:.1%}" for name in DECISIONS),
            f"{tally.refused:,}",
            f"{tally.failures.total():,}",
            *(f"{1e3 * latencies.percentile(share):.1f}" for share in (0.5, 0.99)),
        )
    return table


class Drift(NamedTuple):
    """PSI of a field or of the score, before and after, and what chance alone seldom exceeds."""

    name: str
    before: float
    after: float
    chance: float
    moved: bool

    @property
    def shown(self) -> bool:
        """Whether there is more of it than before, and more than by chance."""
        return self.after > max(self.before, self.chance)


def drift(
    group: Population,
    act: Scenario,
    before: Counter[tuple[str, str]],
    after: Counter[tuple[str, str]],
) -> list[Drift]:
    """How far those counted are from those whom the package knows, field by field, then the score.

    Args:
        group: the package's population.
        act: what happened to those counted afterwards.
        before: applicants by field and bin.
        after: the same.
    """
    moves = act.moves(group.schema)
    bins = (*stability.field_bins(group.profile, group.schema), stability.score_bins(group.profile))
    found = []
    for one in bins:
        counts = [[part[one.name, label] for label in one.labels] for part in (before, after)]
        earlier, later = (stability.psi(each, one.shares) for each in counts)
        chance = stability.critical(one.shares, sum(counts[1]), group.profile.rows, BY_CHANCE)
        found.append(Drift(one.name, earlier, later, chance, one.name in moves))
    return found


def _drifts(found: Sequence[Drift], ruled: Mapping[str, float]) -> Table:
    """As a table; with the recording rules' own figures, which are of both acts together."""
    table = Table("PSI", "before", "after", "by chance", "both, by the rule", "", box=None)
    for one in found:
        figures = [f"{figure:.3f}" for figure in (one.before, one.after, one.chance)]
        rule = f"{ruled[one.name]:.3f}" if one.name in ruled else ""
        moved = "moved by the scenario" if one.moved else ""
        table.add_row(one.name, *figures, rule, moved)
    return table


def _in_words(found: Sequence[Drift], tallies: Sequence[Tally]) -> str:
    """What an analyst would say of it."""
    major = [one.name for one in found if one.after > MAJOR]
    approved = [t.decisions["APPROVE"] / max(t.decisions.total(), 1) for t in tallies]
    told = ", ".join(major) or "nothing"
    return (
        f"\nAbove {MAJOR}, where it is usual to act: {told}. Approvals went from "
        f"{approved[0]:.0%} to {approved[1]:.0%}: the model is the same, those who apply are not."
    )


def _ruled(looking: Prometheus) -> dict[str, float]:
    """PSI of each field and of the score as the recording rules have it by now."""
    found = looking.query(f'{{__name__=~"{"|".join(RULES)}"}}')
    return {sample.labels.get("feature", stability.SCORE): sample.value for sample in found}


def _print_evidence(stage: Stage) -> bool:
    """A review, a replay, a proof, and the whole log; whether each held."""
    settings = Settings().model_copy(update={"state_dir": stage.state})
    key = keys.signing_key(settings)
    with httpx.Client(base_url=stage.server.url, timeout=server.ANSWER_SECONDS) as client:
        waiting = _answer(client.get("/reviews", params={"state": "open", "limit": 1}))["reviews"]
        if not waiting or key is None:
            out.print("Nobody was referred to people: nothing to review")
            return False
        about = f"/decisions/{waiting[0]['decision_id']}"
        _answer(client.post(f"{about}/claim", json=REVIEWER))
        closed = _answer(client.post(f"{about}/review", json=VERDICT))
        out.print(f"review      referred, now {closed['state']}: {stage.server.url}{about}/case")
        again = _answer(client.post(f"{about}/replay"))
        out.print(f"replay      {again['verdict']}: {again['detail']}")
        proof = stage.state / "proof.json"
        proof.write_text(json.dumps(_answer(client.get(f"{about}/proof"))), encoding="utf-8")
    public = stage.state / "public-key.pem"
    public.write_text(keys.public_pem(key.public_key()), encoding="ascii")
    checked = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, ROOT / "scripts" / "verify_proof.py", proof, public],
        capture_output=True,
        text=True,
        check=False,
    )
    first = (checked.stdout or checked.stderr).splitlines()[0]
    out.print(f"proof       {first}, by scripts/verify_proof.py and the public key alone")
    with contextlib.closing(SqlRecords(settings.audit_url)) as records:
        report = verify(records.reading, [key.public_key()])
    whole = "whole" if report.whole else "NOT whole"
    out.print(f"the log     {report.records:,} records, {report.checkpoints} checkpoints: {whole}")
    return again["verdict"] == "MATCH" and checked.returncode == 0 and report.whole


def _answer(answer: httpx.Response) -> Any:  # noqa: ANN401 - any JSON
    """The body of an answer that has to be right.

    Raises:
        HTTPError: it is not.
    """
    return answer.raise_for_status().json()


if __name__ == "__main__":
    app(prog_name="python -m loadtests.demo")
