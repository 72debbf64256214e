"""`credit-risk groups`: to which groups applicants belong, kept apart from their applications."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from credit_risk.cli.opening import csv_rows, settings_of
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line

app = typer.Typer(
    no_args_is_help=True,
    help="To which groups applicants belong, for figures of fairness; no model sees it.",
)


@app.command()
def add(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV with the columns decision_id and value.")
    ],
    attribute: Annotated[
        str, typer.Option(help="What the groups are by, such as sex: lower case, digits and _.")
    ],
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Take note of the groups that applicants belong to, sealed under keys of their own.

    An empty value forgets a group. Nothing is put on record. Exit code 1: some rows were refused.
    """
    from credit_risk import groups
    from credit_risk.audit import keys
    from credit_risk.audit.log import open_log, open_records

    if not groups.is_attribute(attribute):
        raise typer.BadParameter("--attribute is a name of lower-case letters, digits and _")
    members = [
        groups.Member(row["decision_id"], row["value"].strip())
        for row in csv_rows(file, ("decision_id", "value"))
    ]
    settings = settings_of(portfolio_name)
    open_records(settings).close()
    sealing = keys.groups_sealing(settings, make=True)
    with contextlib.closing(open_log(settings)) as log:
        states = groups.add(log, sealing, settings.portfolio, attribute, members)
    refused = [
        {"row": number, "state": state}
        for number, state in enumerate(states, 1)
        if state in groups.REFUSED
    ]
    if as_json:
        print_json({"rows": len(members), "states": dict(Counter(states)), "refused": refused})
    else:
        for number, state in enumerate(states, 1):
            if state in groups.REFUSED:
                print_line(f"row {number}: {groups.STATES[state]}")
        told = ", ".join(f"{state} {number:,}" for state, number in Counter(states).items())
        print_line(told or "none")
    if refused:
        raise typer.Exit(1)
