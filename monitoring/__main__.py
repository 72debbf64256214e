"""Watch models in use: ``python -m monitoring run``.

Looks at what is on record, by the settings of the server (`credit-risk settings`), and starts
nothing: whether a model is trained anew, a person decides.

Exit codes are those of `credit-risk`: 0 done, 1 a portfolio could not be looked at, or not all of
it, 2 wrong usage, 3 nothing is on record yet, 4 the record database could not be read or written,
130 interrupted, 143 terminated.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from prometheus_client import CollectorRegistry, start_http_server
from rich.table import Table

from credit_risk import cli, kernels, portfolio, retraining
from credit_risk.audit import keys
from credit_risk.audit.log import open_log, open_records
from credit_risk.cli.exits import terminable
from credit_risk.cli.options import AsJson
from credit_risk.cli.printing import print_error, print_json, print_progress, rows_done, wide
from credit_risk.errors import (
    CannotServe,
    CreditRiskError,
    PackageInvalid,
    PackageNotFound,
    RecordingFailed,
)
from credit_risk.serving import activation
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
from monitoring import job, logs, report
from monitoring.gauges import JobMetrics, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from credit_risk.audit.log import SqlAuditLog
    from credit_risk.package import ModelPackage
    from monitoring.report import Monitored

logger = logging.getLogger("credit_risk.monitoring")

_PACKAGES_AT_ONCE = 8
_MINUTE = 60.0
_LONGEST_MINUTES = 7 * 24 * 60

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=__doc__,
)


@app.callback()
def _commands() -> None:
    """Have `run` be a command by its name, though it is the only one."""


@dataclass(frozen=True)
class Watch:
    """What a run needs; ``pages`` are what is known of each portfolio."""

    settings: Settings
    log: SqlAuditLog
    told: Told
    folder: Path | None
    pages: dict[str, list[Monitored]] = field(default_factory=dict)

    def once(self, names: Sequence[str], shown: Callable[[int, int], None]) -> dict[str, str]:
        """Look at these portfolios; why some could not be looked at, or not all of them, by name.

        Raises:
            RecordingFailed: the database fails.
            OSError: the reports cannot be written.
        """
        faults = {}
        for name in names:
            began, before = time.monotonic(), 0
            self.told.begin(name)

            def told(done: int, of: int, name: str = name) -> None:
                nonlocal before
                self.told.went_through(name, done - before)
                before = done
                shown(done, of)

            try:
                watched = _portfolio(self.settings, self.log, name)
                found = job.run(self.log, watched, time.time_ns() // 1_000, told)
            except CreditRiskError as error:
                self.told.failed(name)
                if isinstance(error, RecordingFailed):
                    raise
                faults[name] = str(error)
                continue
            missing = [known.fault for known in found if known.fault is not None]
            if missing:
                faults[name] = "; ".join(missing)
            self.pages[name] = found
            self.told.done(name, found, time.monotonic() - began)
        if self.folder is not None:
            report.write(self.folder, [page for pages in self.pages.values() for page in pages])
        return faults


@app.command()
def run(
    every: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0.01,
            max=_LONGEST_MINUTES,
            help="Go on, once in so many minutes; logs are JSON then.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Only now, as without --every.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--report", metavar="FOLDER", help="Write a report on each package there."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=1, max=65_535, help="Serve metrics there; --every."),
    ] = None,
    host: Annotated[
        str, typer.Option("--metrics-host", help="Address to serve metrics on.")
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        typer.Option("--portfolio", help="Only this portfolio; may be given again."),
    ] = None,
    recount: Annotated[
        bool,
        typer.Option(
            "--recount",
            help="Count all decisions anew: packages came since, or the program counts otherwise.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count new decisions, and say what there is to say about every package that decided lately.

    Drift by day and of the last week, performance with outcomes, what PDs let expect without,
    groups, and whether to think of retraining; all of it goes on record, and into metrics and
    reports if they are asked for. Decisions that were counted are not read again.
    """
    if once and every is not None:
        raise typer.BadParameter("give --once or --every")
    if port is not None and every is None:
        raise typer.BadParameter("--metrics-port goes with --every: nobody could ask in time")
    settings = Settings()
    kernels.keep_compiled(settings.state_dir)
    names = _names(settings, name)
    open_records(settings).close()  # a database that is not there is not made
    registry = CollectorRegistry()
    with terminable(), contextlib.closing(open_log(settings)) as log:
        watch = Watch(settings, log, Told(JobMetrics(registry)), folder)
        if port is not None:
            _serve(port, host, registry)
        if recount:
            for one in names:
                job.forget(log, one)
        # Threads begun so far, the log's writer among them, keep their priority.
        job.give_way()
        # As for the analyst: what is there stays, and is not looked through for garbage.
        gc.freeze()
        if every is not None:
            _go_on(watch, names, every * _MINUTE)
        with rows_done("counting", "records") as shown:
            faults = watch.once(names, shown)
    _print(watch, as_json=as_json)
    for one, fault in faults.items():
        print_error(f"{one}: {fault}")
    if faults:
        raise typer.Exit(1)


def _go_on(watch: Watch, names: Sequence[str], seconds: float) -> None:
    """Look again and again, whatever comes of it."""
    logs.configure(watch.settings.log_level)
    logs.capture()
    due = time.monotonic()
    while True:
        try:
            faults = watch.once(names, lambda _done, _of: None)
        except (RecordingFailed, OSError) as error:
            logger.warning("monitoring failed, and is tried again: %s", error)
        else:
            for name, fault in faults.items():
                logger.warning("%s: %s", name, fault)
            for known in _known(watch):
                logger.info("monitored", extra=_summary(known))
        # Of a run that took too long the next one begins at once, and none is made up for.
        due = max(due + seconds, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))


def _names(settings: Settings, given: Sequence[str] | None) -> list[str]:
    """The portfolios to look at: those named, or all that there are."""
    if given is None:
        return portfolio.names(settings.portfolios_dir)
    for name in given:
        portfolio.folder(settings.portfolios_dir, name)
    return list(dict.fromkeys(given))


def _portfolio(settings: Settings, log: SqlAuditLog, name: str) -> job.Portfolio:
    of_it = settings.model_copy(update={"portfolio": name})
    store = Store(of_it)
    folder = portfolio.folder(settings.portfolios_dir, name)

    @lru_cache(_PACKAGES_AT_ONCE)
    def look(version: str) -> ModelPackage | None:
        try:
            return store.load(name, version)
        except (PackageNotFound, PackageInvalid) as error:
            print_progress(f"left out: {error}")
            return None

    deciding = None
    with contextlib.suppress(PackageNotFound):
        deciding = activation.wanted_version(of_it, log, store)
    policy = retraining.read(folder, name)
    return job.Portfolio(name, policy, look, deciding, keys.groups_sealing(settings))


def _serve(port: int, host: str, registry: CollectorRegistry) -> None:
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise CannotServe(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _known(watch: Watch) -> Iterator[Monitored]:
    for pages in watch.pages.values():
        yield from pages


def _summary(known: Monitored) -> dict[str, object]:
    """A package in a few words, as JSON."""
    outcomes = known.performance
    return {
        "portfolio": known.portfolio,
        "model_version": known.version,
        "decides": known.decides,
        "retraining": known.check.verdict,
        "reasons": list(known.check.reasons),
        "drift": "too-few" if known.window is None else known.window.verdict,
        "drifted": [] if known.window is None else list(known.window.drifted),
        "applicants": 0 if known.window is None else known.window.rows,
        "outcomes": 0 if outcomes is None else outcomes.rows,
    }


def _print(watch: Watch, *, as_json: bool) -> None:
    summaries = [_summary(known) for known in _known(watch)]
    if as_json:
        print_json(summaries)
        return
    table = Table("portfolio", "model", "retraining", "drift", "of", "outcomes", "why", box=None)
    for one in summaries:
        drifted = ", ".join(map(str, one["drifted"] or []))  # type: ignore[call-overload]
        table.add_row(
            *(str(one[name]) for name in ("portfolio", "model_version", "retraining")),
            f"{one['drift']}{f': {drifted}' if drifted else ''}",
            f"{one['applicants']:,}",
            f"{one['outcomes']:,}",
            str((one["reasons"] or [""])[0]),  # type: ignore[index]
        )
    wide.print(table, highlight=False)
    if watch.folder is not None:
        print_progress(f"reports: {watch.folder / report.INDEX}")


if __name__ == "__main__":
    cli.main(app)
