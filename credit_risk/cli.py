"""Serve credit decisions, train and switch models, and read what was decided.

Every command reads the settings of the server from the environment: `credit-risk settings` shows
them. Results go to standard output, with `--json` as JSON; progress and errors go to standard
error, an error as one line.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not found, 4 the record database could
not be read or written, 5 a replay came out otherwise or records are not as they were written, 130
interrupted, 143 terminated.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from credit_risk import __version__, kernels, portfolio, regimes
from credit_risk.audit.records import instant, microseconds, pages
from credit_risk.errors import (
    CannotServe,
    CreditRiskError,
    DataInvalid,
    FileNotFound,
    KeysInvalid,
    NotFound,
    PackageNotFound,
    RecordingFailed,
    RecordNotFound,
)
from credit_risk.settings import PREFIX, Settings

if TYPE_CHECKING:
    from credit_risk.audit.checkpoints import Signer
    from credit_risk.audit.log import SqlAuditLog, SqlRecords
    from credit_risk.audit.records import Filters, Record
    from credit_risk.audit.verification import Report
    from credit_risk.package import ModelPackage
    from credit_risk.portfolio import Portfolio
    from credit_risk.replay import Candidate, Load, Replay
    from credit_risk.serving.store import Store
    from credit_risk.training.assembly import Packaged
    from credit_risk.training.settings import Training

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=__doc__,
)
models = typer.Typer(no_args_is_help=True, help="Installed model packages, and which one decides.")
decisions = typer.Typer(no_args_is_help=True, help="What was decided, and why.")
keys = typer.Typer(no_args_is_help=True, help="Keys that records are sealed and signed with.")
database = typer.Typer(no_args_is_help=True, help="The tables of the record database.")
app.add_typer(models, name="models")
app.add_typer(decisions, name="decisions")
audit = typer.Typer(
    no_args_is_help=True, help="Whether records are as they were written, and proof of it."
)
reviews = typer.Typer(no_args_is_help=True, help="What waits for people, and what they overrode.")
app.add_typer(audit, name="audit")
app.add_typer(keys, name="keys")
app.add_typer(database, name="database")
app.add_typer(reviews, name="reviews")

out = Console(soft_wrap=True)
wide = Console(soft_wrap=True, width=10_000)
"""For what holds ids, digests or paths: one that is cropped to a terminal's width finds nothing."""
err = Console(stderr=True, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
PortfolioName = Annotated[
    str | None, typer.Option("--portfolio", help="Portfolio; PORTFOLIO of the settings if absent.")
]
DataFile = Annotated[Path, typer.Option("--data", help="Labelled raw file, CSV or Parquet.")]
Step = Callable[[str], None]
"""Told of each step of what takes long, as it begins."""
Estimator = Literal["xgboost", "logistic-regression", "random-forest", "gradient-boosting"]
StateFilter = Literal["open", "claimed", "proposed"]
DecisionFilter = Literal["APPROVE", "REVIEW", "DECLINE"]
Done = Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")]
KindFilter = Literal[
    "decision",
    "refusal",
    "failure",
    "activation",
    "start",
    "claim",
    "review",
    "erasure",
    "retention",
]

_PACKAGES_AT_ONCE = 4
"""Packages that a replay keeps loaded: history seldom goes to and fro between more."""
_PASSWORDS = re.compile(r"(?<=:)[^/].*(?=@)|(?<=password=)[^&]*")
_LEFT = {
    "erased": "nothing: erased before",
    "expired": "nothing: taken by retention",
    "nothing": "nothing: holds no personal data",
}
"""Why there is nothing to erase, by the state of a finding."""
_STILL_THERE = (
    "the database's own files may hold old versions of these rows for a while, and backups until "
    "they go: see docs/operation.md, Personal data"
)
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 3),
    (RecordingFailed, 4),
    (CreditRiskError, 1),
    (OSError, 1),
)
"""How an error ends a command; the first kind that it is one of counts."""
OTHERWISE = 5
"""How a replay or a verification ends that did not show what it was to show."""


def main() -> None:
    """Run the command line; errors of ours become one line and an exit code."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # so that a reader who has gone is met here, and not at the exit
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        for fault in error.errors(include_url=False):
            name = f"setting {_variable(str(fault['loc'][0]))}: " if fault["loc"] else ""
            _print_error(f"{name}{fault['msg'].removeprefix('Value error, ')}")
        sys.exit(2)
    except BrokenPipeError:
        # `| head` has what it wanted; what is left has to go somewhere when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (CreditRiskError, OSError) as error:
        _print_error(_told(error))
        sys.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))


def _told(error: CreditRiskError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@app.command()
def serve() -> None:
    """Serve the portfolio in the foreground until interrupted.

    Checks first that the package to serve is whole and answers its golden records, so that a
    wrong one is one line here and not a worker that keeps dying.
    """
    settings, _ = _chosen(None)
    regimes.load(settings.regimes_dir, settings.regime)
    with _claimed(settings), _uncollected():
        with _log_and_store(settings) as (log, store):
            from credit_risk.audit import keys
            from credit_risk.serving import activation

            keys.signing_key(settings, make=True)
            version = activation.wanted_version(settings, log, store)
            package = activation.load_checked(store, settings.portfolio, version)
        _print_progress(
            f"serving {package.portfolio} {package.version} on "
            f"http://{settings.host}:{settings.port} "
            f"with {settings.workers} worker{'s' if settings.workers > 1 else ''}, "
            f"state under {settings.state_dir.absolute()}"
        )
        root = Path(__file__).parent.parent
        environment = {
            **os.environ,
            # The workers run in another folder.
            f"{PREFIX}STATE_DIR": str(settings.state_dir.absolute()),
            f"{PREFIX}PORTFOLIOS_DIR": str(settings.portfolios_dir.absolute()),
            f"{PREFIX}PACKAGES_DIR": str(settings.packages_dir.absolute()),
            f"{PREFIX}REGIMES_DIR": str(settings.regimes_dir.absolute()),
            f"{PREFIX}DATABASE_URL": settings.audit_url.render_as_string(hide_password=False),
            **{
                f"{PREFIX}{name.upper()}": str(path.absolute())
                for name in ("encryption_keys_file", "signing_key_file")
                if (path := getattr(settings, name)) is not None
            },
            # Workers' metrics files and BentoML's own files: one folder for each state directory.
            "BENTOML_HOME": str(settings.state_dir.absolute() / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        command = [
            *(sys.executable, "-m", "bentoml", "serve", "service:CreditRiskServer"),
            *("--working-dir", str(root)),
            *("--host", settings.host, "--port", str(settings.port)),
            *("--timeout-keep-alive", str(settings.keep_alive_seconds)),
            *("--timeout-graceful-shutdown", str(settings.shutdown_seconds)),
        ]
        os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No looking for garbage: what is imported is none, and it takes a sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
    _check_file(data)
    from credit_risk.training import train as training_run

    def make(chosen: Portfolio, training: Training, folder: Path, step: Step) -> Packaged:
        return training_run.train(chosen, training, data, folder, estimator=estimator, step=step)

    _make_package(make, portfolio_name, ship=ship, as_json=as_json)


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
    _check_file(file)
    _check_file(data)
    from credit_risk.training import wrapping

    def make(chosen: Portfolio, training: Training, folder: Path, step: Step) -> Packaged:
        return wrapping.wrap(
            chosen, training, file, data, folder, run_pickle_code=run_pickle_code, step=step
        )

    _make_package(make, portfolio_name, ship=False, as_json=as_json)


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
    settings, chosen = _chosen(portfolio_name)
    _check_file(data)
    from credit_risk.serving.store import Store
    from credit_risk.training import evaluation
    from credit_risk.training import settings as training_settings
    from credit_risk.training import train as training_run

    store = Store(settings)
    package = store.load(settings.portfolio, version or _wanted(settings, store))
    result = training_run.evaluate_package(package, training_settings.load(chosen), data)
    if as_json:
        _print_json(result)
        return
    _print_line(
        f"{package.portfolio} {package.version}: {result['rows_scored']:,} of "
        f"{result['rows_read']:,} rows scored"
    )
    for reason, rows in result["rows_not_scored"].items():
        _print_line(f"  not scored: {rows:,} rows, {reason}")
    for reason, values in result["values_set_to_missing"].items():
        _print_line(f"  mended: {values:,} values, {reason}")
    if result["same_file_as_training"]:
        _print_line(
            "  warning: the package was trained on this very file, so these figures flatter it; "
            "its card has those of rows that were held out"
        )
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
    was; on Spark it begins again. Nothing of it is put on record.

    Exit code 1, OUT notwithstanding, if there are rows and none could be scored.
    """
    settings, _ = _chosen(portfolio_name)
    if engine == "local":
        _check_file(source)
    from credit_risk import bulk
    from credit_risk.serving import activation
    from credit_risk.serving.store import Store

    store = Store(settings)
    wanted = version or _wanted(settings, store)
    package = activation.load_checked(store, settings.portfolio, wanted)
    options = bulk.Options(keep=tuple(keep or ()), reasons=reasons, strict=strict)
    if engine == "spark":
        from credit_risk import bulk_spark

        summary = bulk_spark.score_file(package, source, output, options)
    else:
        try:
            with _terminable(), _rows_done() as progress:
                summary = bulk.score_file(package, source, output, options, progress=progress)
        except (KeyboardInterrupt, SystemExit):
            _print_progress("interrupted: the same command goes on where it was")
            raise
    if as_json:
        _print_json(summary.to_json())
    else:
        _print_line(
            f"{summary.portfolio} {summary.model_version}: {summary.scored:,} of "
            f"{summary.rows:,} rows scored in {summary.seconds:,.1f} s, "
            f"decisions in {summary.output}"
        )
        for name, rows in summary.decisions.items():
            _print_line(f"  {name}: {rows:,}")
        if summary.refused:
            _print_line(f"  not scored: {summary.refused:,}, see {summary.errors}")
    if summary.rows and not summary.scored:
        raise DataInvalid(f"no row of {source} could be scored, see {summary.errors}")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, with the exit code of a process it killed."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command(name="replay")
def replay_command(
    record_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="A decision on record.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every decision of the portfolio.")] = False,
    since: Annotated[datetime | None, typer.Option(help="From this time on, UTC.")] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Before this time, UTC; until now if absent.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Decide by this policy instead.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Decide with this package, and its policy, instead."),
    ] = None,
    changes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all that is no MATCH to FILE, as JSON lines."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, max=10_000, help="Name at most so many changed decisions.")
    ] = 20,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Make decisions on record again, and say what comes out otherwise, and why.

    Each is made from the very package, policy and reference group that its record names: MATCH,
    ENVIRONMENT_CHANGED, or NOT_REPRODUCIBLE. With --policy or --model, it is what they would have
    decided: MATCH, POLICY_CHANGED or MODEL_CHANGED. Nothing is recorded, and nothing changed.

    Exit code 5: of a single decision, no MATCH; of all, one that could not be made again or came
    out otherwise by no fault of a candidate. Decisions whose application was erased do not count.
    """
    only_all = {"--since": since, "--until": until, "--changes": changes}
    given = [name for name, value in only_all.items() if value is not None]
    if every == (record_id is not None):
        raise typer.BadParameter("give the ID of a decision, or --all")
    if given and not every:
        raise typer.BadParameter(f"{given[0]} goes with --all")
    if policy is not None:
        _check_file(policy)
    if record_id is None:
        history = _History(portfolio_name, microseconds(since), microseconds(until), changes)
        _replay_all(history, policy, model, limit, as_json=as_json)
    else:
        _replay_one(record_id, policy, model, as_json=as_json)


@app.command(name="evidence")
def evidence_command(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A model package.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="evidence-VERSION if absent.")
    ] = None,
    replays: Annotated[
        int, typer.Option(min=0, help="Make so many of its newest decisions again.")
    ] = 1_000,
    verify_all: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Verify the whole log of records.")
    ] = True,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Write what can be shown of a model package into one folder, to read and as JSON.

    Model card, data, performance, calibration, reasons, policy, activations, decisions, integrity
    and replay, each statement with the digest of what it rests on, held against what the sections
    of the regime in force ask for. What is missing is named, and is no error.
    """
    from credit_risk import casework, evidence
    from credit_risk.audit.log import open_records

    settings, chosen = _chosen(portfolio_name)
    folder = out or Path(f"evidence-{version}")
    evidence.check_free(folder)
    regime = regimes.load(settings.regimes_dir, settings.regime)
    regime_file = settings.regimes_dir / f"{settings.regime}.yaml"
    load, _ = _deciding(settings, chosen, None, None)
    package = load(settings.portfolio, version)
    with contextlib.ExitStack() as opened:
        try:
            records = opened.enter_context(contextlib.closing(open_records(settings)))
        except RecordNotFound:
            records = None
        findings = evidence.Findings()
        if records is not None:
            progress = opened.enter_context(_rows_done("replaying", "decisions"))
            findings = evidence.Findings(
                replayed=evidence.replayed(package, records, replays, progress),
                integrity=_verified(settings, records) if verify_all else None,
                reviews=casework.summary(records, settings.portfolio),
            )
        made_at = time.time_ns() // 1_000
        sums = evidence.sha256_of(regime_file)
        pack = evidence.pack(package, regime, sums, records, findings, made_at=made_at)
    evidence.write(pack, package, regime_file, folder)
    missing = evidence.missing(pack)
    if as_json:
        _print_json({"folder": str(folder), "missing": missing})
        return
    _print_line(f"{folder / 'index.html'} has the evidence on package {version}")
    if missing:
        _print_line(f"The regime {regime.id} also asks for: {', '.join(missing)}")


def _verified(settings: Settings, records: SqlRecords) -> Report | None:
    """The log of all records, verified with the settings' own key; None where there is none."""
    from credit_risk.audit import keys as audit_keys
    from credit_risk.audit import verification

    own = audit_keys.signing_key(settings)
    if own is None:
        return None
    with _rows_done("verifying", "records") as progress:
        return verification.verify(records.reading, [own.public_key()], progress=progress)


@models.command(name="list")
def list_models(portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """List the packages that can be activated; the active one is marked, a broken one explained."""
    settings, _ = _chosen(portfolio_name)
    from credit_risk.serving.store import Store

    store = Store(settings)
    try:
        active = _wanted(settings, store)
    except PackageNotFound:
        active = None
    found = store.installed(settings.portfolio)
    if as_json:
        _print_json(
            [
                {
                    "version": p.version,
                    "active": p.version == active,
                    "estimator": p.estimator,
                    "installed": p.created,
                    "path": str(p.path),
                    "broken": p.broken,
                }
                for p in found
            ]
        )
        return
    table = Table("version", "active", "estimator", "installed", box=None)
    for p in found:
        mark = "*" if p.version == active else ""
        if p.broken:
            table.add_row(p.version, mark, "broken", p.created or "")
        else:
            table.add_row(p.version, mark, p.estimator, p.created or "shipped")
    wide.print(table, highlight=False)
    for p in found:
        if p.broken:
            _print_progress(f"broken: {p.broken}")


@models.command()
def activate(version: str, portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """Make an installed package the one that decides; running servers switch by themselves."""
    settings, _ = _chosen(portfolio_name)
    with _log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        _activated(activation.activate(settings, log, store, version), as_json=as_json)


@models.command()
def rollback(portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """Make the package decide that did before the last activation."""
    settings, _ = _chosen(portfolio_name)
    with _log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        _activated(activation.rollback(settings, log, store), as_json=as_json)


@decisions.command()
def show(record_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one record, whatever its kind."""
    from credit_risk.audit.log import open_records

    with contextlib.closing(open_records(Settings())) as records:
        record = records.get(record_id).to_json()
    if as_json:
        _print_json(record)
        return
    parts = {**record, **record.pop("body"), **(record.pop("personal") or {})}
    fields = {name: value for name, value in parts.items() if value is not None}
    widest = max(map(len, fields))
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        _print_line(f"{name:{widest}}  {text}")


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
    with _read(portfolio_name) as (settings, records):
        found = records.find(
            portfolio=settings.portfolio,
            kind=None if every_kind else kind,
            decision=decision,
            model_version=model_version,
            since=microseconds(since),
            until=microseconds(until),
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


@decisions.command()
def erase(
    reason: Annotated[
        str, typer.Option(help="Why: it stays on record for ever, so no name and no data.")
    ],
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", show_default=False, help="Records.")
    ] = None,
    ids_file: Annotated[
        Path | None, typer.Option("--ids-file", metavar="FILE", help="File with one ID a line.")
    ] = None,
    yes: Done = False,
    as_json: AsJson = False,
) -> None:
    """Erase what records and reviews hold of a person, for good; the chain still verifies.

    Their data keys are destroyed, so that nobody reads the application or a reviewer's note again.
    PD, band, decision and reasons stay. Without --yes nothing is done but to say what would be.
    """
    wanted = [*(ids or ()), *([] if ids_file is None else _ids(ids_file))]
    if not wanted:
        raise typer.BadParameter("give the ID of a record, or --ids-file")
    if not reason.strip():
        raise typer.BadParameter("--reason is empty")
    settings = Settings()
    from credit_risk import environment
    from credit_risk.audit import erasure
    from credit_risk.audit.log import open_log, open_records

    forgotten = False
    with contextlib.ExitStack() as opened:
        records = opened.enter_context(contextlib.closing(open_records(settings)))
        found = erasure.find(records, wanted)
        if yes:
            log = opened.enter_context(contextlib.closing(open_log(settings)))
            progress = opened.enter_context(_rows_done("erasing", "records"))
            found = erasure.erase(
                records, log, wanted, by=environment.user(), reason=reason, progress=progress
            )
            forgotten = log.forget()
    if as_json:
        told = [finding.to_json() for finding in found]
        _print_json({"erased": yes, "files_overwritten": forgotten, "records": told})
        return
    table = Table("id", "kind", "erased" if yes else "to erase", box=None)
    for finding in found:
        number = len(finding.records)
        left = f"{number} record{'s' if number > 1 else ''}" if number else _LEFT[finding.state]
        table.add_row(finding.id, finding.kind, left)
    wide.print(table, highlight=False)
    if not yes:
        _print_progress("nothing is erased yet: --yes does it")
    elif not forgotten:
        _print_progress(_STILL_THERE)


@app.command()
def retention(
    delete: Annotated[bool, typer.Option("--delete", help="Take what is due.")] = False,
    hold: Annotated[
        Path | None,
        typer.Option("--hold", metavar="FILE", help="File with one ID a line of what is to stay."),
    ] = None,
    open_reviews: Annotated[
        bool, typer.Option("--open-reviews", help="Also what still waits for a reviewer.")
    ] = False,
    yes: Done = False,
    as_json: AsJson = False,
) -> None:
    """Say which records are older than they have to be kept, and with --delete --yes take them.

    Decisions, refusals, failures and reviews lose what they say after 25 months, or as the regime
    or CREDIT_RISK_RETENTION_MONTHS has it; their places in the chain stay, so that it verifies.
    A decision is kept while its review is open or younger. Servers may run meanwhile. Stopped
    halfway, it goes on from there when run again.
    """
    settings = Settings()
    from credit_risk import environment, regimes
    from credit_risk.audit import retention as keeping
    from credit_risk.audit.log import open_log, open_records
    from credit_risk.audit.records import moment

    regime = regimes.load(settings.regimes_dir, settings.regime)
    months = settings.retention_months or regime.record_retention.months or keeping.MONTHS
    before = keeping.months_before(datetime.now(UTC), months)
    taken: dict[str, int] = {}
    forgotten = False
    with contextlib.ExitStack() as opened:
        records = opened.enter_context(contextlib.closing(open_records(settings)))
        terms = keeping.Terms(
            months,
            microseconds(before),
            held=() if hold is None else keeping.held(records, _ids(hold)),
            open_reviews=open_reviews,
        )
        rows = keeping.report(records, terms)
        if delete and yes:
            log = opened.enter_context(contextlib.closing(open_log(settings)))
            progress = opened.enter_context(_rows_done("taking", "records"))
            taken = keeping.take(records, log, terms, by=environment.user(), progress=progress)
            forgotten = log.forget()
    if as_json:
        _print_json(
            {
                "months": months,
                "before": moment(terms.before),
                "deleted": delete and yes,
                "files_overwritten": forgotten,
                "taken": taken,
                "records": [
                    row._asdict() | {"oldest": moment(row.oldest), "newest": moment(row.newest)}
                    for row in rows
                ],
            }
        )
        return
    _print_line(f"older than {months} months, so before {moment(terms.before)}:")
    table = Table("portfolio", "kind", "records", "", "oldest", "newest", box=None)
    for row in rows:
        state = row.state if row.state == "due" else f"stays: {row.state}"
        span = (moment(row.oldest), moment(row.newest))
        table.add_row(row.portfolio, row.kind, f"{row.number:,}", state, *span)
    wide.print(table, highlight=False)
    if delete and yes:
        _print_line(f"records taken: {sum(taken.values()):,}")
        if not forgotten:
            _print_progress(_STILL_THERE)
    else:
        _print_progress("nothing is taken yet: --delete --yes does it")


def _ids(path: Path) -> list[str]:
    """The ids in a file, one a line."""
    _check_file(path)
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except ValueError as error:
        raise DataInvalid(f"{path}: ids are in ASCII, one a line") from error
    return [line.strip() for line in lines if line.strip()]


@audit.command()
def verify(
    public_keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--public-key",
            metavar="FILE",
            help="Public key whose checkpoints count, PEM; repeatable. If absent: that of the "
            "settings' own key, which is weaker.",
        ),
    ] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchor",
            metavar="FILE",
            help="Checkpoints kept elsewhere, exported or as log lines; repeatable. The log has to "
            "extend each.",
        ),
    ] = None,
    open_sealed: Annotated[
        bool, typer.Option("--open", help="Open all sealed data too, with the encryption keys.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Verify the whole log of records, and name whatever is not as it was written.

    Reads only, also while servers write. Exit code 5: something is not as it was written.
    """
    settings = Settings()
    from credit_risk.audit import checkpoints, verification
    from credit_risk.audit import keys as audit_keys
    from credit_risk.audit.log import open_records

    trusted = [audit_keys.public_key(_text(path)) for path in public_keys or ()]
    if not trusted:
        own = audit_keys.signing_key(settings)
        if own is None:
            raise KeysInvalid("no signing key is set: name a public key with --public-key")
        trusted = [own.public_key()]
    kept = [anchor for path in anchors or () for anchor in checkpoints.anchors(_text(path))]
    sealing = audit_keys.sealing(settings) if open_sealed else None
    if open_sealed and sealing is None:
        raise KeysInvalid("no encryption keys are set, and without them nothing opens")
    with (
        contextlib.closing(open_records(settings)) as records,
        _rows_done("verifying", "records") as progress,
    ):
        report = verification.verify(
            records.reading, trusted, anchors=kept, sealing=sealing, progress=progress
        )
    if not public_keys:
        report.notes.append(
            "checked with the server's own key: who has that can have signed anything. A public "
            "key kept elsewhere (--public-key) and an anchor (--anchor) prove more"
        )
    if as_json:
        _print_json(report.to_json())
    else:
        _print_report(report)
    if not report.whole:
        raise typer.Exit(OTHERWISE)


def _print_report(report: Report) -> None:
    for finding in report.findings:
        _print_line(str(finding))
    if report.found > len(report.findings):
        _print_line(f"and {report.found - len(report.findings):,} more")
    found = "1 thing is" if report.found == 1 else f"{report.found:,} things are"
    outcome = "whole" if report.whole else f"NOT whole: {found} not as written"
    behind = report.records - report.covered
    held = f"{report.records:,} records, {report.checkpoints:,} checkpoints"
    _print_line(f"log {report.log}: {held}; {outcome}")
    if report.whole and behind > 0:
        _print_line(f"not under a checkpoint yet: the last {behind:,} records")
    for number, told in (
        (report.taken, "taken by retention"),
        (report.erased, "erased"),
        (report.opened, "opened"),
    ):
        if number:
            _print_line(f"{told}: {number:,}")
    for note in report.notes:
        _print_progress(f"note: {note}")


@audit.command()
def checkpoint(
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the last checkpoint here, to be kept elsewhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign all that is on record by now; servers do it by themselves now and then."""
    with _signer() as signer:
        signer.sign()
        from credit_risk.audit.checkpoints import newest

        with signer.log.reading() as connection:
            last = newest(connection)
    if last is None:
        raise RecordNotFound("no records yet, so there is nothing to sign")
    if export is not None:
        export.write_text(json.dumps(last.to_json()) + "\n", encoding="utf-8")
    if as_json:
        _print_json(last.to_json())
    else:
        _print_line(f"checkpoint {last.number}: records {last.first} to {last.last}")


@audit.command(name="checkpoints")
def list_checkpoints(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints, the newest first."""
    from credit_risk.audit.checkpoints import Statement, listed
    from credit_risk.audit.log import open_records

    with (
        contextlib.closing(open_records(Settings())) as records,
        records.reading() as connection,
    ):
        found = listed(connection, limit)
    if as_json:
        _print_json([checkpoint.to_json() for checkpoint in found])
        return
    table = Table("number", "time", "first", "last", "root", "key", box=None)
    for row in found:
        stated = Statement.read(row.statement)
        when = instant(stated.time).isoformat(timespec="seconds")
        table.add_row(str(row.number), when, str(row.first), str(row.last), stated.root, row.key_id)
    wide.print(table, highlight=False)


@audit.command(name="public-key")
def public_key(as_json: AsJson = False) -> None:
    """Print the public half of the signing key, to be kept elsewhere."""
    from credit_risk.audit import keys as audit_keys

    own = audit_keys.signing_key(Settings())
    if own is None:
        raise KeysInvalid("no signing key is set, and no server has made one")
    text = audit_keys.public_pem(own.public_key())
    if as_json:
        _print_json({"key_id": audit_keys.key_id(own.public_key()), "public_key": text})
    else:
        _print_line(text.strip())


@audit.command()
def proof(
    record_id: Annotated[str, typer.Argument(metavar="ID")],
    portfolio_name: PortfolioName = None,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the proof here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that one record is as it was written; scripts/verify_proof.py checks the proof."""
    from credit_risk.audit import proofs

    settings = _settings(portfolio_name)
    with _signer() as signer:
        made = proofs.proof(signer, record_id, settings.portfolio)
    if output is not None:
        output.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    if output is None or as_json:
        _print_json(made)
    else:
        _print_line(f"{output}: {made['proves']}")


@contextlib.contextmanager
def _signer() -> Iterator[Signer]:
    """What signs checkpoints; only where there are records."""
    from credit_risk.audit import keys as audit_keys
    from credit_risk.audit.checkpoints import Signer
    from credit_risk.audit.log import open_log, open_records

    settings = Settings()
    open_records(settings).close()
    key = audit_keys.signing_key(settings, make=True)
    with contextlib.closing(open_log(settings)) as log:
        yield Signer(
            log, key, settings.checkpoint_seconds, made=lambda _: None, failed=lambda: None
        )


def _text(path: Path) -> str:
    _check_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise DataInvalid(f"{path} is not text") from error


@keys.command()
def encryption(as_json: AsJson = False) -> None:
    """Print a new key to seal applicants' data with, as a line of CREDIT_RISK_ENCRYPTION_KEYS_FILE.

    It is kept nowhere: whoever loses it loses what is sealed with it.
    """
    from credit_risk.audit.keys import new_encryption_key

    key = new_encryption_key().strip()
    if as_json:
        _print_json({"encryption_key": key})
    else:
        _print_line(key)


@keys.command()
def signing(as_json: AsJson = False) -> None:
    """Print a new key to sign checkpoints with, as the text of CREDIT_RISK_SIGNING_KEY_FILE."""
    from credit_risk.audit.keys import new_signing_key

    key = new_signing_key()
    if as_json:
        _print_json({"signing_key": key})
    else:
        _print_line(key.rstrip())


@keys.command()
def rewrap(as_json: AsJson = False) -> None:
    """Wrap the data keys of all records with the first encryption key, so that older ones can go.

    Give every server the new key before the old ones, and restart it; then run this. Neither
    what is sealed nor the chain changes. Stopped halfway, it goes on from there when run again.

    Exit code 1: some records are sealed with keys that are not given.
    """
    settings = Settings()
    from credit_risk.audit.keys import sealing
    from credit_risk.audit.log import SqlRecords, open_log
    from credit_risk.audit.rewrapping import rewrap as rewrap_all

    with contextlib.ExitStack() as opened:
        # First, for it makes no database where there is none.
        records = opened.enter_context(contextlib.closing(SqlRecords(settings.audit_url)))
        log = opened.enter_context(contextlib.closing(open_log(settings)))
        progress = opened.enter_context(_rows_done("rewrapping", "records"))
        done = rewrap_all(records, log, sealing(settings, make=True), progress)
    if as_json:
        _print_json(done._asdict())
    else:
        _print_line(
            f"{done.rewrapped:,} data keys wrapped with the first key; {done.already:,} were before"
        )
    if done.unknown:
        raise KeysInvalid(
            f"{done.unknown:,} records are sealed with keys that are not given: put these back"
        )


@database.command()
def status(as_json: AsJson = False) -> None:
    """Show which record database the settings name, and whether its tables fit this version."""
    settings = Settings()
    from credit_risk.audit.database import REVISION
    from credit_risk.audit.log import revision

    found = revision(settings)
    url = _PASSWORDS.sub("***", settings.audit_url.render_as_string(hide_password=False))
    if as_json:
        _print_json({"url": url, "revision": found, "needed": REVISION})
        return
    _print_line(url)
    state = "up to date" if found == REVISION else f"this version needs {REVISION}"
    _print_line(f"no tables yet; {state}" if found is None else f"revision {found}; {state}")


@database.command(name="upgrade")
def upgrade_database(as_json: AsJson = False) -> None:
    """Bring the tables of the record database up to date; all or nothing.

    Stop all servers and make a backup first: an older version refuses the database afterwards.
    """
    from credit_risk.audit.log import upgrade

    before, after = upgrade(Settings())
    if as_json:
        _print_json({"before": before, "after": after})
    elif before == after:
        _print_line(f"revision {after}: nothing to do")
    else:
        _print_line(f"revision {after} (before: {before or 'none'})")


@reviews.command(name="list")
def list_reviews(
    portfolio_name: PortfolioName = None,
    state: Annotated[StateFilter | None, typer.Option(help="In this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    after: Annotated[str | None, typer.Option(help="Continue after this id.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the decisions that wait for people, the oldest first."""
    from credit_risk import casework

    with _read(portfolio_name) as (settings, records):
        rows = casework.waiting(
            records,
            settings.portfolio,
            time.time_ns() // 1_000,
            state=state,
            after=after,
            limit=limit,
        )
    if as_json:
        _print_json(rows)
        return
    table = Table("id", "decided", "state", "holder", "until", "proposal", box=None)
    for row in rows:
        proposal = row["proposal"]
        table.add_row(
            row["decision_id"],
            row["decided"],
            row["state"],
            row["holder"] or "",
            row["until"] or "",
            f"{proposal['decision']} by {proposal['reviewer']}" if proposal else "",
        )
    wide.print(table, highlight=False)


@reviews.command(name="summary")
def summarise_reviews(
    portfolio_name: PortfolioName = None,
    since: Annotated[datetime | None, typer.Option(help="From this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this time, UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sum up how often people overrode the server, by direction and reason."""
    from credit_risk import casework

    with _read(portfolio_name) as (settings, records):
        told = casework.summary(
            records, settings.portfolio, since=microseconds(since), until=microseconds(until)
        )
    if as_json:
        _print_json(told)
        return
    counts = told["reviews"]
    _print_line(
        f"{settings.portfolio}: {counts['closed']:,} reviews closed "
        f"({counts['approved']:,} approved, {counts['declined']:,} declined), "
        f"{told['waiting_now']:,} waiting now"
    )
    for override in told["overrides"]:
        rate = "" if override["rate"] is None else f" ({override['rate']:.2%})"
        why = ", ".join(f"{code} {number:,}" for code, number in override["reasons"].items())
        _print_line(
            f"  {override['direction']}: {override['number']:,} of {override['of']:,} decisions "
            f"of {override['decision']}{rate}: {why}"
        )


@contextlib.contextmanager
def _read(portfolio_name: str | None) -> Iterator[tuple[Settings, SqlRecords]]:
    """The records, for reading; a portfolio's name that is mistyped is told before none are."""
    from credit_risk.audit.log import open_records

    settings = _settings(portfolio_name)
    try:
        opened = open_records(settings)
    except RecordNotFound:
        portfolio.folder(settings.portfolios_dir, settings.portfolio)
        raise
    with contextlib.closing(opened) as records:
        if not records.find(portfolio=settings.portfolio, limit=1):
            # Records outlive their portfolio, so that only one that has none has to be known.
            portfolio.folder(settings.portfolios_dir, settings.portfolio)
        yield settings, records


@app.command(name="settings")
def show_settings(as_json: AsJson = False) -> None:
    """Show the settings in force, as the lines of a file of environment variables."""
    settings = Settings()
    values = settings.model_dump(mode="json")
    if settings.database_url is not None:
        values["database_url"] = _PASSWORDS.sub("***", settings.database_url)
    if as_json:
        _print_json(values)
        return
    for name, field in Settings.model_fields.items():
        value = values[name]
        _print_line(f"# {field.description}")
        # Neither has a value that a shell could take from here.
        unset = "# " if value is None or isinstance(getattr(settings, name), SecretStr) else ""
        _print_line(f"{unset}{PREFIX}{name.upper()}={'' if unset else shlex.quote(str(value))}")


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version of this program."""
    if as_json:
        _print_json({"version": __version__})
    else:
        _print_line(__version__)


def _variable(alias: str) -> str:
    """The environment variable behind the name that a setting's error gives.

    It gives the first of the setting's aliases, whichever was set, or the field's own name.
    """
    name = alias.upper().removeprefix(PREFIX)
    present = {variable.upper() for variable in os.environ}
    with_prefix = f"{PREFIX}{name}"
    return name if name in present and with_prefix not in present else with_prefix


def _settings(portfolio_name: str | None) -> Settings:
    """The settings in force, of another portfolio if one is named."""
    settings = Settings()
    if portfolio_name is None:
        return settings
    return settings.model_copy(update={"portfolio": portfolio_name})


def _chosen(portfolio_name: str | None) -> tuple[Settings, Portfolio]:
    """Settings and portfolio of a command that works with packages."""
    settings = _settings(portfolio_name)
    chosen = portfolio.load(settings.portfolios_dir, settings.portfolio)
    kernels.keep_compiled(settings.state_dir)
    return settings, chosen


def _check_file(path: Path) -> None:
    """Refuse a missing file in a moment; the libraries that would read it take seconds to load."""
    if not path.exists():
        msg = f"{path} does not exist"
        raise FileNotFound(msg)
    if path.is_dir():
        msg = f"{path} is a folder, not a file"
        raise DataInvalid(msg)


def _wanted(settings: Settings, store: Store) -> str:
    """The version that decides; asking for it makes no record database."""
    from credit_risk.audit.log import open_records
    from credit_risk.serving import activation

    try:
        opened = open_records(settings)
    except RecordNotFound:
        return activation.wanted_version(settings, None, store)
    with contextlib.closing(opened) as records:
        return activation.wanted_version(settings, records, store)


def _deciding(
    settings: Settings, chosen: Portfolio, policy: Path | None, model: str | None
) -> tuple[Load, Candidate]:
    """What loads the packages of a replay, and what is to decide instead."""
    from credit_risk import replay
    from credit_risk.serving import activation
    from credit_risk.serving.store import Store

    store = Store(settings)

    @lru_cache(_PACKAGES_AT_ONCE)
    def load(portfolio_name: str, version: str) -> ModelPackage:
        return activation.load_checked(store, portfolio_name, version)

    candidate = replay.Candidate() if policy is None else replay.read_policy(policy, chosen)
    if model is not None:
        candidate = replace(candidate, package=load(settings.portfolio, model))
    return load, candidate


def _replay_one(record_id: str, policy: Path | None, model: str | None, *, as_json: bool) -> None:
    from credit_risk import replay
    from credit_risk.audit.log import open_records

    with contextlib.closing(open_records(Settings())) as records:
        record = replay.decision_of(records, record_id)
        settings, chosen = _chosen(record.portfolio)
        load, candidate = _deciding(settings, chosen, policy, model)
        listings = replay.listings_of(records)
        (made,) = replay.replay([record], load, candidate=candidate, listings=listings)
    if as_json:
        _print_json(made.to_json())
    else:
        _print_replay(made)
    if made.verdict != "MATCH":
        raise typer.Exit(OTHERWISE)


@dataclass(frozen=True, slots=True)
class _History:
    """Decisions of a portfolio in a time, microseconds; what is no match goes to ``changes``."""

    portfolio_name: str | None
    since: int | None
    until: int | None
    changes: Path | None


def _replay_all(
    history: _History, policy: Path | None, model: str | None, limit: int, *, as_json: bool
) -> None:
    from credit_risk import replay
    from credit_risk.audit.log import open_records
    from credit_risk.audit.records import moment

    settings, chosen = _chosen(history.portfolio_name)
    load, candidate = _deciding(settings, chosen, policy, model)
    name = settings.portfolio
    # What is decided from now on is another replay's.
    until = time.time_ns() // 1_000 if history.until is None else history.until
    comparison = replay.Comparison(limit)
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        records = opened.enter_context(contextlib.closing(open_records(settings)))
        listings = replay.listings_of(records)
        within: Filters = {
            "portfolio": name,
            "kind": "decision",
            "since": history.since,
            "until": until,
        }
        total = records.count(**within)
        changes = None if history.changes is None else history.changes.open("x", encoding="utf-8")
        told = None if changes is None else opened.enter_context(changes)
        progress = opened.enter_context(_rows_done("replaying", "decisions"))
        for page in pages(records, size=replay.PAGE_RECORDS, **within):
            for made in replay.replay(page, load, candidate=candidate, listings=listings):
                comparison.add(made)
                if told is not None and made.verdict != "MATCH":
                    told.write(json.dumps(made.to_json(), ensure_ascii=False) + "\n")
            progress(comparison.records, max(total, comparison.records))
    result = {
        "portfolio": name,
        "since": None if history.since is None else moment(history.since),
        "until": moment(until),
        "candidate": candidate.to_json() if candidate else None,
        **comparison.to_json(),
        "changes": None if history.changes is None else str(history.changes),
        "seconds": round(time.monotonic() - began, 3),
    }
    if as_json:
        _print_json(result)
    else:
        _print_comparison(result)
    if not comparison.as_expected(candidate):
        raise typer.Exit(OTHERWISE)


def _print_replay(made: Replay) -> None:
    _print_line(f"{made.verdict}: {made.detail}")
    rows = [(d.field, d.recorded, d.replayed) for d in made.differences]
    rows += [(name, *both) for name, both in made.libraries.items()]
    if not rows:
        return
    table = Table("", "recorded", "replayed", box=None)
    for name, *both in rows:
        table.add_row(name, *(json.dumps(value, ensure_ascii=False) for value in both))
    wide.print(table, highlight=False, markup=False)


def _print_comparison(result: dict[str, Any]) -> None:
    _print_line(
        f"{result['portfolio']}: {result['records']:,} decisions replayed in "
        f"{result['seconds']:,.1f} s"
    )
    for verdict, number in result["verdicts"].items():
        if number:
            _print_line(f"  {verdict}: {number:,}")
    for cause, told in result["not_reproducible"].items():
        _print_line(f"    {cause}: {told['records']:,}, such as: {told['example']}")
    if result["before"]["decisions"]:
        _print_sides(result["before"], result["after"])
    if any(result["newly"].values()):
        _print_swaps(result)
    if result["changes"] is not None:
        _print_line(f"all that is no MATCH: {result['changes']}")


def _print_sides(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Rates on record beside those replayed, of all and of each band."""
    table = Table("", "decisions", "approved", "mean PD", box=None)
    for band in (None, *before["bands"]):
        for which, side in (("on record", before), ("replayed", after)):
            numbers = side if band is None else side["bands"][band]
            table.add_row(
                f"{band or 'all'}, {which}",
                f"{numbers['decisions']:,}",
                _rate(numbers["approval_rate"]),
                _rate(numbers["mean_probability_of_default"]),
            )
    wide.print(table, highlight=False)


def _print_swaps(result: dict[str, Any]) -> None:
    """Decisions from and to, and some of those that change."""
    table = Table("from, to", *result["from_to"], box=None)
    for name, row in result["from_to"].items():
        table.add_row(name, *(f"{number:,}" for number in row.values()))
    wide.print(table, highlight=False)
    for change in result["changed"]:
        was, now = change["recorded"], change["replayed"]
        _print_line(
            f"{change['decision_id']}  {was['decision']} to {now['decision']}, "
            f"PD {was['probability_of_default']:.4f} to {now['probability_of_default']:.4f}"
        )


def _rate(share: float | None) -> str:
    return "" if share is None else f"{share:.4f}"


@contextlib.contextmanager
def _log_and_store(settings: Settings) -> Iterator[tuple[SqlAuditLog, Store]]:
    """For what decides or is recorded; the shipped packages are in the store from then on."""
    from credit_risk.audit.log import open_log
    from credit_risk.serving.store import Store

    store = Store(settings)
    store.add_shipped(settings.portfolio)
    with contextlib.closing(open_log(settings)) as log:
        yield log, store


def _make_package(
    make: Callable[[Portfolio, Training, Path, Step], Packaged],
    portfolio_name: str | None,
    *,
    ship: bool,
    as_json: bool,
) -> None:
    """Make a package under a progress display, install the result and report it."""
    settings, chosen = _chosen(portfolio_name)
    from credit_risk.serving.store import DEFAULT, Store
    from credit_risk.training import evaluation
    from credit_risk.training import settings as training_settings

    name = settings.portfolio
    training = training_settings.load(chosen)
    folder = settings.packages_dir if ship else settings.state_dir / "packages"
    with _progress() as step:
        made = make(chosen, training, folder, step)
    Store(settings).add(made.path)
    if ship:
        (settings.packages_dir / name / DEFAULT).write_text(f"{made.version}\n", encoding="utf-8")
    for warning in made.warnings:
        _print_progress(f"warning: {warning}")
    if as_json:
        _print_json(
            {
                "portfolio": name,
                "version": made.version,
                "path": str(made.path.absolute()),
                "hold_out": made.evaluation.model_dump(mode="json"),
                "fidelity": made.fidelity,
                "directions": {name: kept.model_dump() for name, kept in made.kept.items()},
                "largest_difference_from_pipeline": made.largest_difference,
            }
        )
        return
    out.print(evaluation.table(made.evaluation))
    _print_line(f"package {made.version} is installed; its card: {made.path / 'card.md'}")
    _print_line(f"to serve it: credit-risk models activate {made.version} --portfolio {name}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line per step on standard error, for people with a spinner and the time it took."""
    if not err.is_terminal:
        yield _print_progress
        return
    columns = (
        SpinnerColumn(finished_text="done"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as progress:
        running: list[TaskID] = []

        def step(description: str) -> None:
            finish()
            running.append(progress.add_task(description, total=1))

        def finish() -> None:
            if running:
                progress.update(running[-1], completed=1)

        yield step
        finish()


@contextlib.contextmanager
def _rows_done(
    doing: str = "scoring", things: str = "rows"
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of the rows done, on standard error; without their number it only counts them."""
    columns = (
        TextColumn(doing),
        BarColumn(),
        TextColumn(f"{{task.completed:,}} {things}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=err)
    task = progress.add_task(doing, total=None)
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
    _print_line(
        f"{record.portfolio}: {body['to']} decides from now on (before: {body['from']}); "
        f"record {record.id}"
    )


def _print_json(value: object) -> None:
    _print_line(json.dumps(value, indent=2, ensure_ascii=False))


def _print_line(text: str) -> None:
    """A line as it is: never cut, folded or coloured."""
    sys.stdout.write(f"{text}\n")


def _print_progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print_error(text: str) -> None:
    _print_progress(f"error: {' '.join(text.split())}")


if __name__ == "__main__":
    main()
