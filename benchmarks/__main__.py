"""This server beside others, ``python -m benchmarks``.

Makes the others' environments, fits one model, puts the same rows through every server, and
prints what it measured with a verdict on each target. Needs wrk and two cores, and a machine with
nothing else to do. Exit codes: 0 every target is met; 1 one is missed; 2 wrong usage; 3 it could
not be measured, or a server answers something else than the model.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import collector, model, process, report, run, verdict, wrk
from benchmarks.peer import Peer, all_peers
from benchmarks.process import DidNotStart
from benchmarks.run import Plan, WrongAnswer
from benchmarks.wrk import NotMeasured
from credit_risk.errors import CreditRiskError
from loadtests import machine
from loadtests.verdict import MET, exit_code

NOT_MEASURED = 3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
err = Console(stderr=True, soft_wrap=True)


@app.command(help=__doc__)
def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this server; may be repeated. Targets of others are left out."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of each load.")] = 6,
    folder: Annotated[
        Path, typer.Option("--out", help="Where peers.md and peers.json are written.")
    ] = Path("var/bench-peers"),
    as_json: Annotated[  # noqa: FBT002 - typer turns a boolean into a flag
        bool, typer.Option("--json", help="Print JSON instead of text.")
    ] = False,
) -> None:
    """Run it; see the module."""
    peers = all_peers()
    if unknown := set(only or ()) - {peer.name for peer in peers}:
        names = ", ".join(peer.name for peer in peers)
        raise typer.BadParameter(f"no server {', '.join(sorted(unknown))}; there are {names}")
    peers = [peer for peer in peers if not only or peer.name in only]
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{folder}: cannot be made: {error.strerror}") from error
    began = datetime.now(UTC)
    # On the disk of the report and not in memory: every decision waits for that disk.
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=folder) as scratch,
        collector.collecting() as taking,
    ):
        plan = Plan(Path(scratch), rounds, seconds, taking, _say)
        try:
            found = _measure(plan, peers, began)
        except (NotMeasured, WrongAnswer, DidNotStart, CreditRiskError, OSError) as error:
            _say(f"error: {error}")
            raise typer.Exit(NOT_MEASURED) from None
    text, document = report.markdown(found), json.dumps(report.document(found), indent=2) + "\n"
    (folder / "peers.md").write_text(text, encoding="utf-8")
    (folder / "peers.json").write_text(document, encoding="utf-8")
    sys.stdout.write(document if as_json else text)
    if any(one.wrong for one in found.measured):
        raise typer.Exit(NOT_MEASURED)
    # Of a server alone there may be nothing to judge.
    raise typer.Exit(exit_code(found.findings) if found.findings else MET)


def _measure(plan: Plan, peers: list[Peer], began: datetime) -> report.Report:
    wrk.check()
    process.adopt_orphans()
    failures = run.install(plan, peers)
    _say("fitting the model")
    material = model.make(plan.folder)
    # From here on this process and its collector work beside the load generator.
    process.pin()
    measured = run.compare(plan, peers, material, failures)
    ours = next((peer for peer in peers if peer.name == verdict.OURS), None)
    starts = None if ours is None else run.starts(plan, ours, material)
    reasons = None if ours is None else run.reasons(plan, material)
    findings = verdict.judge(measured, starts, reasons)
    if len(peers) < len(all_peers()):
        findings = tuple(finding for finding in findings if finding.measured is not None)
    return report.Report(
        began=began,
        machine=machine.description(),
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        rounds=plan.rounds,
        seconds=plan.seconds,
        batch_rows=model.BATCH_ROWS,
        measured=measured,
        findings=findings,
        starts=starts,
        reasons=reasons,
    )


def _say(text: str) -> None:
    err.print(text, markup=False, highlight=False)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
