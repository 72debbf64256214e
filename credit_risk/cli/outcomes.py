"""`credit-risk outcomes`: what became of decisions, months later."""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from credit_risk.cli.opening import csv_rows, read_records, settings_of
from credit_risk.cli.options import AsJson, PortfolioName, period
from credit_risk.cli.printing import print_json, print_line, wide

app = typer.Typer(no_args_is_help=True, help="What became of decisions, months later.")

COLUMNS = ("decision_id", "defaulted", "observed")
_YES_OR_NO = {
    **dict.fromkeys(("1", "true", "yes"), True),
    **dict.fromkeys(("0", "false", "no"), False),
}


@app.command()
def add(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            show_default=False,
            help="CSV with the columns decision_id, defaulted (1 or 0) and observed (a day).",
        ),
    ] = None,
    decision: Annotated[
        str | None, typer.Option(metavar="ID", help="Instead of a file: one decision.")
    ] = None,
    defaulted: Annotated[
        bool | None, typer.Option("--defaulted/--paid", help="What became of it.")
    ] = None,
    observed: Annotated[
        str | None, typer.Option(metavar="DAY", help="When that was observed, 2026-11-22.")
    ] = None,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Put outcomes on record, each about its decision; said otherwise later, they are corrected.

    Rows are judged one by one, and each that was not recorded is named. Exit code 1: some were
    refused.
    """
    one = {"decision_id": decision, "defaulted": defaulted, "observed": observed}
    given = [value for value in one.values() if value is not None]
    if (file is None) != (len(given) == len(one)) or (file is not None and given):
        raise typer.BadParameter(
            "give a FILE, or --decision with --defaulted or --paid and --observed"
        )
    rows: list[object] = [one] if file is None else [_read(row) for row in csv_rows(file, COLUMNS)]
    settings = settings_of(portfolio_name)
    from credit_risk import environment, outcomes
    from credit_risk.audit.log import open_log, open_records
    from credit_risk.decisions import Call, new_id

    open_records(settings).close()
    call = Call("outcomes add", new_id())
    with contextlib.closing(open_log(settings)) as log:
        results = outcomes.add(log, settings.portfolio, rows, call, by=environment.user())
    refused = [
        (number, result)
        for number, result in enumerate(results, 1)
        if result.state not in {*outcomes.RECORDED, "unchanged"}
    ]
    states = Counter(result.state for result in results)
    if as_json:
        told = [{"row": number, **result.to_json()} for number, result in refused]
        print_json({"rows": len(rows), "states": dict(states), "refused": told})
    else:
        for number, result in refused:
            why = "; ".join(f"{error.pointer}: {error.detail}" for error in result.errors)
            print_line(f"row {number}: {why or outcomes.STATES[result.state]}")
        print_line(", ".join(f"{state} {number:,}" for state, number in states.items()) or "none")
    if refused:
        raise typer.Exit(1)


@app.command(name="list")
def list_outcomes(
    portfolio_name: PortfolioName = None,
    decision: Annotated[
        str | None,
        typer.Option(metavar="ID", help="All that was said of one decision, the newest first."),
    ] = None,
    model_version: Annotated[str | None, typer.Option(help="Decided with this package.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Decided from this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Decided before this time, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List outcomes as they stand, those of the newest decisions first."""
    first, end = period(since, until)
    from credit_risk import outcomes

    with read_records(portfolio_name) as (settings, records):
        if decision is not None:
            rows = outcomes.history(records, settings.portfolio, decision)
        else:
            rows = outcomes.listed(
                records,
                settings.portfolio,
                model_version=model_version,
                since=first,
                until=end,
                limit=limit,
            )
    if as_json:
        print_json(rows)
        return
    names = list(rows[0]) if rows else []
    table = Table(*(name.replace("_", " ") for name in names), box=None)
    for row in rows:
        table.add_row(*(_told(row[name]) for name in names))
    wide.print(table, highlight=False)


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _read(row: dict[str, str]) -> dict[str, object]:
    """A row of a file; a cell that is neither yes nor no stays as it is, to be refused."""
    said = row["defaulted"]
    return {**row, "defaulted": _YES_OR_NO.get(said.lower(), said)}
