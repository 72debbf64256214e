"""`credit-risk reviews`: what waits for people, and what they made of it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Literal

import typer
from rich.table import Table

from credit_risk.cli.opening import read_records
from credit_risk.cli.options import AsJson, PortfolioName, period
from credit_risk.cli.printing import print_json, print_line, wide

app = typer.Typer(no_args_is_help=True, help="What waits for people, and what they overrode.")

StateFilter = Literal["open", "claimed", "proposed", "disputed"]


@app.command(name="list")
def list_reviews(
    portfolio_name: PortfolioName = None,
    state: Annotated[StateFilter | None, typer.Option(help="In this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    after: Annotated[str | None, typer.Option(help="Continue after this id.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the decisions that wait for people, the oldest first."""
    from credit_risk import casework

    with read_records(portfolio_name) as (settings, records):
        rows = casework.waiting(
            records,
            settings.portfolio,
            time.time_ns() // 1_000,
            state=state,
            after=after,
            limit=limit,
        )
    if as_json:
        print_json(rows)
        return
    table = Table("id", "decided", "state", "holder", "until", "proposal", "dissent", box=None)
    for row in rows:
        table.add_row(
            row["decision_id"],
            row["decided"],
            row["state"],
            row["holder"] or "",
            row["until"] or "",
            *(
                f"{said['decision']} by {said['reviewer']}" if said else ""
                for said in (row["proposal"], row["dissent"])
            ),
        )
    wide.print(table, highlight=False)


@app.command(name="summary")
def summarise_reviews(
    portfolio_name: PortfolioName = None,
    since: Annotated[datetime | None, typer.Option(help="From this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this time, UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sum up how often people overrode the server, by direction and reason."""
    first, end = period(since, until)
    from credit_risk import casework

    with read_records(portfolio_name) as (settings, records):
        told = casework.summary(records, settings.portfolio, since=first, until=end)
    if as_json:
        print_json(told)
        return
    counts = told["reviews"]
    print_line(
        f"{settings.portfolio}: {counts['closed']:,} reviews closed "
        f"({counts['approved']:,} approved, {counts['declined']:,} declined), "
        f"{told['waiting_now']:,} waiting now"
    )
    for override in told["overrides"]:
        rate = "" if override["rate"] is None else f" ({override['rate']:.2%})"
        why = ", ".join(f"{code} {number:,}" for code, number in override["reasons"].items())
        print_line(
            f"  {override['direction']}: {override['number']:,} of {override['of']:,} decisions "
            f"of {override['decision']}{rate}: {why}"
        )
