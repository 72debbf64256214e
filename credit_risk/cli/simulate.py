"""`credit-risk simulate`: made-up applicants, to a file or to a server."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, NamedTuple
from urllib.parse import urlsplit

import typer
from rich.table import Table

from credit_risk import kernels, portfolio
from credit_risk.cli import traffic
from credit_risk.cli.exits import terminable
from credit_risk.cli.opening import settings_of, wanted_version
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import out, print_json, print_line, rows_done
from credit_risk.errors import DataInvalid, OutputRefused, PackageNotFound

if TYPE_CHECKING:
    from credit_risk.schema import Application, Schema
    from credit_risk.settings import Settings
    from credit_risk.simulation import Population, Scenario
    from credit_risk.stability import Bins, Floats

Format = Literal["jsonl", "csv", "parquet"]
Write = Callable[[list["Application"]], object]
ROWS = 1_000
LEVEL = 0.05
"""How often chance alone exceeds the critical value that is printed."""
_AT_ONCE = 4_096
_UNITS = {"s": 1.0, "min": 60.0, "h": 3_600.0}


def simulate(
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="A new .jsonl, .csv or .parquet file; JSON lines to standard output if absent.",
            show_default=False,
        ),
    ] = None,
    scenario: Annotated[
        str, typer.Option(metavar="NAME", help="What happens to the applicants.")
    ] = "stable",
    only_list: Annotated[bool, typer.Option("--list", help="List the scenarios instead.")] = False,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help=f"Applicants; if absent, {ROWS:,}, or to a server without end."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same applicants.")] = 1,
    invalid: Annotated[
        float, typer.Option(min=0, max=1, help="Share of applications that have to be refused.")
    ] = 0.0,
    kind: Annotated[
        Format | None, typer.Option("--format", help="Format; by the name of OUT if absent.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Send them to this server, which puts them on record.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="How many requests: 5/s if absent, or such as 300/min.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="Send for so long, such as 90s, 2min or 1h.")
    ] = None,
    connections: Annotated[
        int | None, typer.Option(min=1, max=64, help="Requests in hand at most; 4 if absent.")
    ] = None,
    reviews: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of what is referred that made-up people decide."),
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Send to another machine. It must be yours.")
    ] = False,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Make up applicants, for a file or for a server.

    They resemble those that the package knows that decides, or are changed as a scenario of the
    portfolio says. To a server, most go alone, some in batches, some to be explained, until Ctrl-C
    unless --rows or --duration ends it. It puts them on record as any others: send them only where
    no real applications are decided.

    Exit code 1: a request was not answered, or otherwise than it should have been.
    """
    if url is None:
        sending = {
            "--rate": rate,
            "--duration": duration,
            "--connections": connections,
            "--reviews": reviews,
        }
        given = [name for name, value in sending.items() if value is not None]
        if given or allow_remote:
            raise typer.BadParameter(f"{given[0] if given else '--allow-remote'} goes with --url")
    elif output is not None or kind is not None:
        raise typer.BadParameter("--url goes without OUT and --format")
    if only_list:
        _list(settings_of(portfolio_name), as_json=as_json)
        return
    wanted = Wanted(scenario, seed, invalid, rows)
    if url is None:
        if output is None and as_json:
            raise typer.BadParameter("--json goes with OUT or --url")
        _write(wanted, output, _format(output, kind), settings_of(portfolio_name), as_json=as_json)
    else:
        lasting = None if duration is None else _seconds(duration)
        pace = Pace(_per_second(rate or "5/s"), lasting, connections or 4)
        share = reviews or 0.0
        _check_url(url, allow_remote=allow_remote)
        _send(wanted, url, pace, share, portfolio_name, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which applicants; ``rows`` is None for no end."""

    scenario: str
    seed: int
    invalid: float
    rows: int | None


class Pace(NamedTuple):
    """How they are sent: requests a second, for how many seconds, over how many connections."""

    rate: float
    seconds: float | None
    connections: int


class Drift:
    """Counts whom it lets pass into bins."""

    def __init__(self, bins: tuple[Bins, ...]) -> None:
        self._bins = bins
        self._counts: list[Any] = [0] * len(bins)
        self._rows = 0

    def seen(self, blocks: Iterable[Floats]) -> Iterator[Floats]:
        """The blocks, counted."""
        for block in blocks:
            self._rows += len(block)
            for place, bins in enumerate(self._bins):
                self._counts[place] += bins.count(block[:, place])
            yield block

    def indices(self, reference_rows: int) -> dict[str, tuple[float, float]]:
        """PSI of each field, and what chance alone exceeds with probability `LEVEL`."""
        from credit_risk import stability

        return {
            bins.name: (
                stability.psi(counts, bins.shares),
                stability.critical(bins.shares, self._rows, reference_rows, LEVEL),
            )
            for bins, counts in zip(self._bins, self._counts, strict=True)
        }


class Source(NamedTuple):
    """Where they come from: the population of the package in a folder, and what happens to it."""

    package: Path
    version: str
    group: Population
    scenario: Scenario


def _per_second(text: str) -> float:
    """``5``, ``5/s``, ``300/min`` as 5.0."""
    number, unit = _in_unit("--rate", text, "/")
    return number / unit


def _seconds(text: str) -> float:
    """``90``, ``90s``, ``1.5min`` as 90.0."""
    number, unit = _in_unit("--duration", text, "")
    return number * unit


def _in_unit(option: str, text: str, before: str) -> tuple[float, float]:
    """A number, and the seconds of the unit behind it."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)(?:{before}({'|'.join(_UNITS)}))?", text)
    if found is None or float(found.group(1)) == 0:
        units = ", ".join(f"{before}{unit}" for unit in _UNITS)
        raise typer.BadParameter(f"{option} is a number above 0, with one of {units} behind it")
    return float(found.group(1)), _UNITS[found.group(2) or "s"]


def _check_url(url: str, *, allow_remote: bool) -> None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise typer.BadParameter("--url is not the URL of a server")
    if not allow_remote and not traffic.is_loopback(url):
        raise typer.BadParameter(
            f"{urlsplit(url).hostname} is not this machine, and what is sent stays on record "
            "there: --allow-remote, if it may"
        )


def _list(settings: Settings, *, as_json: bool) -> None:
    """Print the scenarios of the portfolio."""
    from credit_risk import simulation

    folder = portfolio.folder(settings.portfolios_dir, settings.portfolio)
    group = simulation.population(_package(settings, None)[1])
    known = simulation.scenarios(folder, group.schema).values()
    if as_json:
        print_json(
            [{"name": s.name, "title": s.title, "moves": s.moves(group.schema)} for s in known]
        )
        return
    table = Table("scenario", "what happens", "fields that move", box=None)
    for one in known:
        table.add_row(one.name, one.title, ", ".join(one.moves(group.schema)))
    out.print(table, highlight=False, markup=False)


def _package(settings: Settings, version: str | None) -> tuple[str, Path]:
    """A package and its folder; the one shipped as default where that version is not here."""
    kernels.keep_compiled(settings.state_dir)
    from credit_risk.serving.store import Store

    store = Store(settings)
    version = version or wanted_version(settings, store)
    try:
        path = store.path(settings.portfolio, version)
    except PackageNotFound:
        version = store.shipped_default(settings.portfolio)
        path = store.path(settings.portfolio, version)
    return version, path


def _source(settings: Settings, name: str, version: str | None = None) -> Source:
    from credit_risk import simulation

    folder = portfolio.folder(settings.portfolios_dir, settings.portfolio)
    version, package = _package(settings, version)
    group = simulation.population(package)
    return Source(package, version, group, simulation.scenario(folder, group.schema, name))


# To a file


def _format(output: Path | None, kind: Format | None) -> Format:
    known: dict[str, Format] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
    found = kind or ("jsonl" if output is None else known.get(output.suffix.lower()))
    if found is None:
        raise typer.BadParameter(f"OUT ends in {', '.join(known)}, or --format says what it is")
    if output is None and found == "parquet":
        raise typer.BadParameter("a Parquet file needs OUT")
    return found


def _write(
    wanted: Wanted, output: Path | None, kind: Format, settings: Settings, *, as_json: bool
) -> None:
    from credit_risk import simulation, stability

    source = _source(settings, wanted.scenario)
    schema, rows = source.group.schema, wanted.rows or ROWS
    drift = Drift(stability.field_bins(source.group.profile, schema))
    blocks = simulation.blocks(source.group, source.scenario, wanted.seed, rows)
    applicants = simulation.applicants(schema, drift.seen(blocks), wanted.invalid, wanted.seed)
    invalid = done = 0
    with contextlib.ExitStack() as opened:
        opened.enter_context(terminable())
        file: BinaryIO = sys.stdout.buffer
        progress: Callable[[int, int | None], None] | None = None
        if output is not None:
            file = opened.enter_context(_new_file(output))
            progress = opened.enter_context(rows_done("drawing", "applicants"))
        write = opened.enter_context(_WRITERS[kind](file, schema))
        while some := list(islice(applicants, _AT_ONCE)):
            write([applicant.application for applicant in some])
            done += len(some)
            invalid += sum(not applicant.valid for applicant in some)
            if progress is not None:
                progress(done, rows)
    if output is not None:
        _print_written(source, wanted, output, drift, invalid, as_json=as_json)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it appears as ``path`` when it is whole, and never over another."""
    if path.exists():
        raise OutputRefused(f"{path} exists: delete it, or name another file")
    writing = path.with_name(f"{path.name}.writing")
    try:
        with writing.open("wb") as file:
            yield file
        writing.rename(path)
    finally:
        writing.unlink(missing_ok=True)


@contextlib.contextmanager
def _jsonl(file: BinaryIO, schema: Schema) -> Iterator[Write]:
    del schema
    yield lambda some: file.writelines(f"{json.dumps(one)}\n".encode() for one in some)


@contextlib.contextmanager
def _csv(file: BinaryIO, schema: Schema) -> Iterator[Write]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.DictWriter(text, schema.names, lineterminator="\n")
        writer.writeheader()
        yield writer.writerows
    finally:
        text.detach()


@contextlib.contextmanager
def _parquet(file: BinaryIO, schema: Schema) -> Iterator[Write]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise DataInvalid("Parquet needs pyarrow, of the extra `train`") from error
    types = {"category": pa.string(), "integer": pa.int64(), "number": pa.float64()}
    columns = pa.schema([(spec.name, types[spec.type]) for spec in schema.fields])
    with ParquetWriter(file, columns) as writer:
        yield lambda some: writer.write_table(pa.Table.from_pylist(some, schema=columns))


_WRITERS: dict[Format, Callable[[BinaryIO, Schema], contextlib.AbstractContextManager[Write]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}


def _print_written(
    source: Source, wanted: Wanted, output: Path, drift: Drift, invalid: int, *, as_json: bool
) -> None:
    moves = source.scenario.moves(source.group.schema)
    indices = drift.indices(source.group.profile.rows)
    if as_json:
        print_json(
            {
                **_described(source, wanted),
                "rows": wanted.rows or ROWS,
                "invalid": invalid,
                "output": str(output),
                "psi": {name: {"psi": i, "critical": c} for name, (i, c) in indices.items()},
            }
        )
        return
    print_line(f"{source.scenario.title}: {wanted.rows or ROWS:,} applicants in {output}")
    if invalid:
        print_line(f"  to be refused: {invalid:,}")
    table = Table("field", "PSI", "by chance", "", box=None)
    for name, (index, critical) in indices.items():
        moved = "moved by the scenario" if name in moves else ""
        table.add_row(name, f"{index:.4f}", f"{critical:.4f}", moved)
    out.print(table, highlight=False)


def _described(source: Source, wanted: Wanted) -> dict[str, Any]:
    return {
        "portfolio": source.group.schema.portfolio,
        "model_version": source.version,
        "scenario": source.scenario.name,
        "moves": source.scenario.moves(source.group.schema),
        "seed": wanted.seed,
    }


# To a server


def _send(
    wanted: Wanted,
    url: str,
    pace: Pace,
    reviews: float,
    portfolio_name: str | None,
    *,
    as_json: bool,
) -> None:
    from credit_risk import simulation

    server = traffic.ask(url)
    if portfolio_name not in (None, server.portfolio):
        raise typer.BadParameter(f"{url} serves the portfolio {server.portfolio}")
    source = _source(settings_of(server.portfolio), wanted.scenario, server.version)
    blocks = simulation.blocks(source.group, source.scenario, wanted.seed, wanted.rows)
    applicants = simulation.applicants(source.group.schema, blocks, wanted.invalid, wanted.seed)
    tally = traffic.Tally()
    try:
        with terminable(), rows_done("sending", "applications") as progress:
            traffic.send(
                server,
                traffic.requests(applicants, wanted.seed),
                tally,
                *pace,
                people=traffic.People(reviews, _approvals(source.package)),
                progress=lambda done: progress(done, wanted.rows),
            )
    finally:
        told = {**_described(source, wanted), "url": url, **tally.to_json()}
        if as_json:
            print_json(told)
        else:
            _print_sent(told)
    if tally.failures:
        raise typer.Exit(1)


def _approvals(package: Path) -> list[str]:
    """Codes of the reasons that its policy lets people approve for."""
    from credit_risk import documents
    from credit_risk.policy import Policy

    policy = documents.read(Policy, package / "policy.yaml")
    return [reason.code for reason in policy.review.reasons if reason.decision == "APPROVE"]


def _print_sent(told: dict[str, Any]) -> None:
    print_line(
        f"{told['portfolio']} {told['model_version']}, {told['scenario']}: "
        f"{told['applications']:,} applications in {told['requests']:,} requests and "
        f"{told['seconds']:,.1f} s"
    )
    for name, number in told["decisions"].items():
        print_line(f"  {name}: {number:,}")
    if told["refused"]:
        print_line(f"  refused: {told['refused']:,}")
    for name, number in told["reviews"].items():
        print_line(f"  {name} by people: {number:,}")
    if told["sent_again"]:
        print_line(f"  turned away (503) and sent again: {told['sent_again']:,}")
    for route, found in told["latency_ms"].items():
        times = ", ".join(f"{name} {ms:g}" for name, ms in found.items())
        print_line(f"  {route}: {times} ms")
    for name, number in told["failures"].items():
        print_line(f"  FAILED, {name}: {number:,}")
