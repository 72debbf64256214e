"""The load test's command line, ``python -m loadtests``.

Starts a server of its own, warms it up, runs each scenario, prints target and measured, and
writes a page. Exit codes: 0 every objective is met; 1 one is missed; 2 wrong usage; 3 it could
not be measured.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer
from rich.console import Console

from credit_risk.cli import traffic
from credit_risk.errors import CreditRiskError, PortfolioInvalid
from credit_risk.settings import Settings
from loadtests import applications, machine, objectives, report, run, server
from loadtests.run import Plan, RunFailed
from loadtests.server import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtests.run import Run
    from loadtests.server import Server

NOT_MEASURED = 3
WARM_UP_SINGLES = 25
WARM_UP_ROWS = 50
SOAK_SHORTEST = 120
"""Seconds: a first and a last minute."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


@app.command(help=__doc__)
def loadtest(  # noqa: PLR0917 - typer makes the parameters options
    scenario: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be repeated.")
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="Users at once, instead of the objectives'.")
    ] = None,
    duration: Annotated[
        int | None, typer.Option(min=1, help="Seconds each, instead of the objectives'.")
    ] = None,
    soak: Annotated[
        int | None,
        typer.Option(
            min=SOAK_SHORTEST,
            metavar="SECONDS",
            help="Run the soak so long, and nothing else: flat memory, flat p99.",
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="A server that runs already, instead of one of our own.")
    ] = None,
    allow_remote: Annotated[  # noqa: FBT002 - as above
        bool,
        typer.Option(
            "--allow-remote", help="Put load on a URL that is not this machine. It must be yours."
        ),
    ] = False,
    objectives_path: Annotated[
        Path, typer.Option("--objectives", help="Objectives file.")
    ] = objectives.SHIPPED,
    folder: Annotated[
        Path, typer.Option("--out", help="Where a folder for the report is made.")
    ] = Path("var/loadtest"),
    as_json: Annotated[  # noqa: FBT002 - as above
        bool, typer.Option("--json", help="Print JSON instead of text.")
    ] = False,
) -> None:
    """Run the load test; see the module."""
    promised = _objectives(objectives_path)
    if unknown := set(scenario or ()) - set(promised.scenarios):
        raise typer.BadParameter(f"{objectives_path} has no scenario {', '.join(sorted(unknown))}")
    names = [name for name in promised.scenarios if not scenario or name in scenario]
    if soak is not None and (scenario or duration or url):
        raise typer.BadParameter(
            "--soak has its own scenario and duration, and needs a server whose memory it can read"
        )
    if url is not None:
        _check_url(url, allow_remote=allow_remote)
    began = datetime.now(UTC)
    folder = folder.absolute() / f"{began:%Y%m%dT%H%M%SZ}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise typer.BadParameter(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        with _server(url, folder) as target:
            package = applications.folder(Settings().packages_dir, target.portfolio, target.version)
            server.warm_up(
                target,
                applications.singles(package, WARM_UP_SINGLES),
                *applications.batches(package, WARM_UP_ROWS, 1),
            )
            workers = None if target.process is None else len(server.resident(target.process))
            plan = Plan(promised, objectives_path.absolute(), package, folder)
            runs: list[Run] = []
            if soak is not None:
                _say(f"soak: {soak} s")
                runs.append(run.soaked(plan, target, users, soak))
            else:
                for name in names:
                    _say(f"{name}: {duration or promised.scenarios[name].duration} s")
                    runs.append(run.scenario(plan, target, name, users, duration))
    except (Unavailable, RunFailed, CreditRiskError) as error:
        err.print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(NOT_MEASURED) from None
    found = report.Report(
        began=began,
        machine=machine.description(),
        command=shlex.join(["python", "-m", "loadtests", *sys.argv[1:]]),
        server=target,
        workers=workers,
        runs=tuple(runs),
    )
    _publish(found, folder, as_json=as_json)
    raise typer.Exit(found.exit_code)


def _publish(found: report.Report, folder: Path, *, as_json: bool) -> None:
    document = json.dumps(report.document(found), indent=2, allow_nan=False)
    (folder / "report.json").write_text(document + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(report.page(found), encoding="utf-8")
    if as_json:
        sys.stdout.write(document + "\n")
        return
    out.print(report.table(found))
    for one in found.runs:
        for warning in report.warnings(one):
            out.print(f"{one.name}: {warning}", markup=False, highlight=False)
    out.print(f"report: {page}", markup=False, highlight=False)


def _objectives(path: Path) -> objectives.Objectives:
    try:
        return objectives.read(path)
    except PortfolioInvalid as error:
        raise typer.BadParameter(str(error)) from error


def _check_url(url: str, *, allow_remote: bool) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise typer.BadParameter(f"{url}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise typer.BadParameter(f"{url}: not the URL of a server")
    if not allow_remote and not traffic.is_loopback(url):
        raise typer.BadParameter(
            f"{parsed.host} is not this machine: load is for servers of your own (--allow-remote)"
        )


@contextlib.contextmanager
def _server(url: str | None, folder: Path) -> Iterator[Server]:
    if url is not None:
        yield server.running(url.rstrip("/"))
        return
    _say("starting a server")
    with server.started(folder) as target:
        yield target


def _say(text: str) -> None:
    err.print(text, markup=False, highlight=False)


if __name__ == "__main__":
    app(prog_name="python -m loadtests")
