"""`credit-risk score`: decisions about files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from credit_risk.cli.exits import terminable
from credit_risk.cli.opening import (
    check_file,
    chosen_portfolio,
    records_if_any,
    wanted_version,
)
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line, print_progress, rows_done
from credit_risk.errors import DataInvalid


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
    settings, _ = chosen_portfolio(portfolio_name)
    if engine == "local":
        check_file(source)
    from credit_risk import bulk
    from credit_risk.serving import activation
    from credit_risk.serving.store import Store

    store = Store(settings)
    wanted = version or wanted_version(settings, store)
    with records_if_any(settings) as records:
        package = activation.load_to_decide(settings, records, store, wanted)
    options = bulk.Options(keep=tuple(keep or ()), reasons=reasons, strict=strict)
    if engine == "spark":
        from credit_risk import bulk_spark

        summary = bulk_spark.score_file(package, source, output, options)
    else:
        try:
            with terminable(), rows_done() as progress:
                summary = bulk.score_file(package, source, output, options, progress=progress)
        except (KeyboardInterrupt, SystemExit):
            print_progress("interrupted: the same command goes on where it was")
            raise
    if as_json:
        print_json(summary.to_json())
    else:
        print_line(
            f"{summary.portfolio} {summary.model_version}: {summary.scored:,} of "
            f"{summary.rows:,} rows scored in {summary.seconds:,.1f} s, "
            f"decisions in {summary.output}"
        )
        for name, rows in summary.decisions.items():
            print_line(f"  {name}: {rows:,}")
        if summary.refused:
            print_line(f"  not scored: {summary.refused:,}, see {summary.errors}")
    if summary.rows and not summary.scored:
        raise DataInvalid(f"no row of {source} could be scored, see {summary.errors}")
