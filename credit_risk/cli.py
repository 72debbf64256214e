"""The command line, ``credit-risk``.

It reads the same settings as the server. Every command takes ``--json`` where it prints figures
or records. Exit codes: 0 done; 1 refused or failed, with one line on standard error that says
why; 2 wrong usage; 3 not found; 4 the record database could not be read or written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from credit_risk import __version__, kernels, portfolio
from credit_risk.errors import (
    CannotServe,
    CreditRiskError,
    PackageNotFound,
    RecordingFailed,
    RecordNotFound,
)
from credit_risk.settings import PREFIX, Settings

if TYPE_CHECKING:
    from credit_risk.audit import Record, SqlAuditLog
    from credit_risk.serving.store import Store
    from credit_risk.training.assembly import Packaged
    from credit_risk.training.settings import Training

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__,
)
models = typer.Typer(no_args_is_help=True, help="Installed model packages, and which one decides.")
decisions = typer.Typer(no_args_is_help=True, help="What was decided, and why.")
app.add_typer(models, name="models")
app.add_typer(decisions, name="decisions")

out = Console(soft_wrap=True)
wide = Console(soft_wrap=True, width=1_000)
"""For tables with ids: one that is cropped to a terminal's width finds nothing."""
err = Console(stderr=True, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
PortfolioName = Annotated[
    str | None, typer.Option("--portfolio", help="Portfolio; PORTFOLIO of the settings if absent.")
]
DataFile = Annotated[Path, typer.Option("--data", help="Labelled raw file, CSV or Parquet.")]
Estimator = Literal["xgboost", "logistic-regression", "random-forest", "gradient-boosting"]
DecisionFilter = Literal["APPROVE", "REVIEW", "DECLINE"]
KindFilter = Literal["decision", "refusal", "failure", "activation"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PASSWORD = re.compile(r"(://[^:/@]*:).*(@)")
_EXIT_CODES: tuple[tuple[type[CreditRiskError], int], ...] = (
    (PackageNotFound, 3),
    (RecordNotFound, 3),
    (RecordingFailed, 4),
    (CreditRiskError, 1),
)


def main() -> None:
    """Run the command line; errors of ours become one line and an exit code."""
    try:
        app()
    except CreditRiskError as error:
        err.print(f"error: {error}", markup=False, highlight=False)
        sys.exit(next(code for kind, code in _EXIT_CODES if isinstance(error, kind)))
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        for fault in error.errors(include_url=False):
            name = _variable(str(fault["loc"][0]))
            err.print(f"error: setting {name}: {fault['msg']}", markup=False, highlight=False)
        sys.exit(2)
    except OSError as error:
        err.print(f"error: {error}", markup=False, highlight=False)
        sys.exit(1)


@app.command()
def serve() -> None:
    """Serve the portfolio in the foreground until interrupted.

    Checks first that the package to serve is whole and answers its golden records, so that a
    wrong one is one line here and not a worker that keeps dying.
    """
    settings = _settings(None)
    with _claimed(settings):
        with _log_and_store(settings) as (log, store):
            from credit_risk.serving import activation

            version = activation.wanted_version(settings, log, store)
            package = activation.load_checked(store, settings.portfolio, version)
        err.print(
            f"serving {package.portfolio} {package.version} on "
            f"http://{settings.host}:{settings.port} "
            f"with {settings.workers} worker{'s' if settings.workers > 1 else ''}, "
            f"state under {settings.state_dir.absolute()}",
            highlight=False,
        )
        root = Path(__file__).parent.parent
        environment = {
            **os.environ,
            f"{PREFIX}STATE_DIR": str(settings.state_dir.absolute()),
            # Workers' metrics files and BentoML's own files: one folder for each state directory.
            "BENTOML_HOME": str(settings.state_dir.absolute() / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        command = [
            *(sys.executable, "-m", "bentoml", "serve", "service:CreditRiskServer"),
            *("--working-dir", str(root)),
            *("--host", settings.host, "--port", str(settings.port)),
        ]
        os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter


@contextlib.contextmanager
def _claimed(settings: Settings) -> Iterator[None]:
    """Make sure that port and state directory are free, and keep the latter for this process.

    A second server in the same state directory would empty the first one's metrics before it
    found the port taken.

    Raises:
        CannotServe: one of the two is taken.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with (settings.state_dir / "serving.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another server is using the state directory {settings.state_dir.absolute()}"
            raise CannotServe(msg) from None
        _check_port(settings)
        # Held by what this process becomes, until it ends.
        os.set_inheritable(lock.fileno(), True)
        yield


def _check_port(settings: Settings) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            msg = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
            raise CannotServe(msg) from error


@app.command()
def train(
    data: DataFile,
    portfolio_name: PortfolioName = None,
    estimator: Annotated[
        Estimator | None,
        typer.Option(help="Estimator; the portfolio's default if absent."),
    ] = None,
    ship: Annotated[
        bool,
        typer.Option(
            "--ship",
            help="Write the package among the shipped ones and make it the one served by default.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on a labelled file, package it and install the package."""
    from credit_risk.training import train as training_run

    def run(settings: Settings, name: str, step: Callable[[str], None]) -> Packaged:
        chosen = portfolio.load(settings.portfolios_dir, name)
        return training_run.train(
            chosen,
            _training(chosen),
            data,
            _packages(settings, ship),
            estimator=estimator,
            step=step,
        )

    _make_package(run, portfolio_name, ship=ship, as_json=as_json)


@app.command(name="package")
def package_command(
    file: Annotated[Path, typer.Argument(help="Fitted scikit-learn pipeline: .joblib or .skops.")],
    data: DataFile,
    portfolio_name: PortfolioName = None,
    run_pickle_code: Annotated[
        bool,
        typer.Option(
            "--run-pickle-code",
            help="Load FILE although it is a pickle, which RUNS WHATEVER CODE IS IN IT.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Wrap your own fitted pipeline as a package of a portfolio, and install it.

    The pipeline takes a frame of the portfolio's fields and predicts the classes 0 and 1. The
    data should be rows it was not fitted on: figures and reference group come from them.
    """
    from credit_risk.training import wrapping

    def run(settings: Settings, name: str, step: Callable[[str], None]) -> Packaged:
        chosen = portfolio.load(settings.portfolios_dir, name)
        return wrapping.wrap(
            chosen,
            _training(chosen),
            file,
            data,
            _packages(settings, ship=False),
            run_pickle_code=run_pickle_code,
            step=step,
        )

    _make_package(run, portfolio_name, ship=False, as_json=as_json)


@app.command()
def evaluate(
    data: DataFile,
    portfolio_name: PortfolioName = None,
    version: Annotated[
        str | None, typer.Option("--model-version", help="Package; the active one if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a labelled raw file with the active package and print the figures."""
    from credit_risk.training import evaluation
    from credit_risk.training import train as training_run

    settings = _settings(portfolio_name)
    with _log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        wanted = version or activation.wanted_version(settings, log, store)
        package = store.load(settings.portfolio, wanted)
    training = _training(portfolio.load(settings.portfolios_dir, settings.portfolio))
    result = training_run.evaluate_package(package, training, data)
    if as_json:
        _print_json(result)
        return
    out.print(
        f"{package.portfolio} {package.version}: {result['rows_scored']:,} of "
        f"{result['rows_read']:,} rows scored",
        highlight=False,
    )
    for reason, rows in result["rows_not_scored"].items():
        out.print(f"  not scored: {rows:,} rows, {reason}", highlight=False)
    for reason, values in result["values_set_to_missing"].items():
        out.print(f"  mended: {values:,} values, {reason}", highlight=False)
    known = {k: v for k, v in result.items() if k in evaluation.Evaluation.model_fields}
    out.print(evaluation.table(evaluation.Evaluation.model_validate(known)))


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Applications, Parquet or CSV.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Decisions, Parquet or CSV.")],
    portfolio_name: PortfolioName = None,
    version: Annotated[
        str | None, typer.Option("--model-version", help="Package; the active one if absent.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="COLUMN", help="Column of IN to carry over; repeatable."),
    ] = None,
    reasons: Annotated[bool, typer.Option("--reasons", help="Add the reason codes.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse columns that are neither fields nor kept.")
    ] = False,
    engine: Annotated[
        Literal["local", "spark"], typer.Option(help="This machine, or Apache Spark.")
    ] = "local",
    as_json: AsJson = False,
) -> None:
    """Score a file of applications, as the server would each of its rows.

    OUT has one row for each row of IN, in order. A row that is not a valid application stays
    empty; what is wrong with it is in OUT.errors.jsonl. Killed, the same command goes on where it
    was. Nothing of it is put on record.
    """
    from credit_risk import bulk

    settings = _settings(portfolio_name)
    with _log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        wanted = version or activation.wanted_version(settings, log, store)
        package = activation.load_checked(store, settings.portfolio, wanted)
    options = bulk.Options(keep=tuple(keep or ()), reasons=reasons, strict=strict)
    if engine == "spark":
        from credit_risk import bulk_spark

        summary = bulk_spark.score_file(package, source, output, options)
    else:
        with _rows_done() as progress:
            summary = bulk.score_file(package, source, output, options, progress=progress)
    if as_json:
        _print_json(summary.to_json())
        return
    out.print(
        f"{summary.portfolio} {summary.model_version}: {summary.scored:,} of {summary.rows:,} rows "
        f"scored in {summary.seconds:,.1f} s, decisions in {summary.output}",
        highlight=False,
    )
    for name, rows in summary.decisions.items():
        out.print(f"  {name}: {rows:,}", highlight=False)
    if summary.refused:
        out.print(f"  not scored: {summary.refused:,}, see {summary.errors}", highlight=False)


@models.command(name="list")
def list_models(portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """List installed packages; the active one is marked."""
    settings = _settings(portfolio_name)
    with _log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        try:
            active = activation.wanted_version(settings, log, store)
        except PackageNotFound:
            active = None
        rows = [
            {
                "version": p.version,
                "active": p.version == active,
                "estimator": p.estimator,
                "installed": p.created,
                "path": str(p.path),
            }
            for p in store.installed(settings.portfolio)
        ]
    if as_json:
        _print_json(rows)
        return
    table = Table("version", "active", "estimator", "installed", box=None)
    for row in rows:
        mark = "*" if row["active"] else ""
        estimator = row["estimator"] or "unreadable"
        table.add_row(str(row["version"]), mark, str(estimator), str(row["installed"]))
    wide.print(table, highlight=False)


@models.command()
def activate(version: str, portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """Make an installed package the one that decides; running servers switch by themselves."""
    settings = _settings(portfolio_name)
    with _log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        _activated(activation.activate(settings, log, store, version), as_json=as_json)


@models.command()
def rollback(portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """Make the package decide that did before the last activation."""
    settings = _settings(portfolio_name)
    with _log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        _activated(activation.rollback(settings, log, store), as_json=as_json)


@decisions.command()
def show(record_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one record, whatever its kind."""
    with _log(Settings()) as log:
        record = log.get(record_id).to_json()
    if as_json:
        _print_json(record)
        return
    table = Table.grid(padding=(0, 2))
    body = record.pop("body")
    for name, value in {**record, **body}.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            table.add_row(name, text)
    out.print(table, highlight=False, markup=False)


@decisions.command(name="list")
def list_decisions(
    portfolio_name: PortfolioName = None,
    kind: Annotated[KindFilter | None, typer.Option(help="Records of this kind.")] = "decision",
    decision: Annotated[DecisionFilter | None, typer.Option(help="With this decision.")] = None,
    model_version: Annotated[str | None, typer.Option(help="Made with this package.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this time, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    before: Annotated[str | None, typer.Option(help="Continue after this id.")] = None,
    every_kind: Annotated[bool, typer.Option("--all", help="Records of every kind.")] = False,
    as_json: AsJson = False,
) -> None:
    """List records, the newest first."""
    settings = _settings(portfolio_name)
    with _log(settings) as log:
        found = log.find(
            portfolio=settings.portfolio,
            kind=None if every_kind else kind,
            decision=decision,
            model_version=model_version,
            since=_microseconds(since),
            until=_microseconds(until),
            limit=limit,
            before=before,
        )
    rows = [record.to_json() for record in found]
    if as_json:
        _print_json(rows)
        return
    table = Table("id", "time", "kind", "status", "decision", "PD", "model", box=None)
    for row in rows:
        pd = row["body"].get("probability_of_default")
        table.add_row(
            row["id"],
            row["time"],
            row["kind"],
            str(row["status"] or ""),
            row["decision"] or "",
            "" if pd is None else f"{pd:.4f}",
            row["model_version"] or "",
        )
    wide.print(table, highlight=False)


@app.command(name="settings")
def show_settings(as_json: AsJson = False) -> None:
    """Show the settings in force and the environment variable of each."""
    settings = Settings()
    values = settings.model_dump(mode="json")
    if settings.database_url is not None:
        values["database_url"] = _PASSWORD.sub(r"\1***\2", settings.database_url)
    if as_json:
        _print_json(values)
        return
    variables = {name: f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    widest = max(map(len, variables.values()))
    table = Table(
        Column("variable", min_width=widest),
        Column("value", overflow="fold"),
        Column("meaning", overflow="fold"),
        box=None,
    )
    for name, field in Settings.model_fields.items():
        table.add_row(variables[name], escape(str(values[name])), field.description)
    out.print(table, highlight=False)


@app.command()
def version() -> None:
    """Print the version of this program."""
    out.print(__version__, highlight=False)


def _variable(alias: str) -> str:
    """The environment variable behind the name that a setting's error gives.

    It gives the first of the setting's aliases, whichever was set, or the field's own name.
    """
    name = alias.upper().removeprefix(PREFIX)
    present = {variable.upper() for variable in os.environ}
    with_prefix = f"{PREFIX}{name}"
    return name if name in present and with_prefix not in present else with_prefix


def _settings(portfolio_name: str | None) -> Settings:
    """The settings in force, of another portfolio if one is named; kernels are kept as they say."""
    settings = Settings()
    kernels.keep_compiled(settings.state_dir)
    if portfolio_name is None:
        return settings
    return settings.model_copy(update={"portfolio": portfolio_name})


@contextlib.contextmanager
def _log(settings: Settings) -> Iterator[SqlAuditLog]:
    from credit_risk.audit import SqlAuditLog

    log = SqlAuditLog(settings.audit_url)
    try:
        yield log
    finally:
        log.close()


@contextlib.contextmanager
def _log_and_store(settings: Settings) -> Iterator[tuple[SqlAuditLog, Store]]:
    from credit_risk.serving.store import Store

    portfolio.load(settings.portfolios_dir, settings.portfolio)
    store = Store(settings)
    store.add_shipped(settings.portfolio)
    with _log(settings) as log:
        yield log, store


def _training(chosen: portfolio.Portfolio) -> Training:
    from credit_risk.training import settings as training_settings

    return training_settings.load(chosen)


def _packages(settings: Settings, ship: bool) -> Path:
    return settings.packages_dir if ship else settings.state_dir / "packages"


def _make_package(
    run: Callable[[Settings, str, Callable[[str], None]], Packaged],
    portfolio_name: str | None,
    *,
    ship: bool,
    as_json: bool,
) -> None:
    """Run what makes a package under a progress display, install the result and report it."""
    from credit_risk.serving.store import DEFAULT, Store

    settings = _settings(portfolio_name)
    name = settings.portfolio
    with _progress() as step:
        made = run(settings, name, step)
    Store(settings).add(made.path)
    if ship:
        (settings.packages_dir / name / DEFAULT).write_text(f"{made.version}\n", encoding="utf-8")
    if as_json:
        _print_json(
            {
                "portfolio": name,
                "version": made.version,
                "path": str(made.path.absolute()),
                "hold_out": made.evaluation.model_dump(mode="json"),
                "fidelity": made.fidelity,
                "largest_difference_from_pipeline": made.largest_difference,
            }
        )
        return
    from credit_risk.training import evaluation

    out.print(evaluation.table(made.evaluation))
    out.print(
        f"package {made.version} is installed; its card: {made.path / 'card.md'}", highlight=False
    )
    out.print(
        f"to serve it: credit-risk models activate {made.version} --portfolio {name}",
        highlight=False,
    )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line per step with its time, on standard error."""
    columns = (
        SpinnerColumn(finished_text="done"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as progress:
        running: list[Any] = []

        def step(description: str) -> None:
            finish()
            running.append(progress.add_task(description, total=1))

        def finish() -> None:
            if running:
                progress.update(running[-1], completed=1)

        yield step
        finish()


@contextlib.contextmanager
def _rows_done() -> Iterator[Callable[[int, int | None], None]]:
    """A bar of the rows done, on standard error; without their number it only counts them."""
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=err)
    task = progress.add_task("scoring", total=None)
    with contextlib.ExitStack() as shown:

        def update(done: int, total: int | None) -> None:
            # Not before there is something to show: what is refused is told in one line.
            if not progress.live.is_started:
                shown.enter_context(progress)
            progress.update(task, completed=done, total=total)

        yield update


def _activated(record: Record, *, as_json: bool) -> None:
    if as_json:
        _print_json(record.to_json())
        return
    body = record.body
    out.print(
        f"{record.portfolio}: {body['to']} decides from now on (before: {body['from']}); "
        f"record {record.id}",
        highlight=False,
    )


def _microseconds(time: datetime | None) -> int | None:
    if time is None:
        return None
    return (time.replace(tzinfo=time.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
