"""`credit-risk history`: what decided when, and who had it decide."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from credit_risk.audit.records import microseconds
from credit_risk.cli.opening import read_records
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line, wide

_CLOCK = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")
_FORMATS = ["%Y-%m-%d", *(f"%Y-%m-%dT{clock}{zone}" for clock in _CLOCK for zone in ("", "%z"))]
"""Times as people write them, and as records have them."""


_BYPASSED = {
    "activate": "it was activated by hand",
    "follow": "an alias of the registry was followed",
}
"""How a package came to decide that the gate was not asked about, by the action on record."""


def history(
    at: Annotated[
        datetime | None,
        typer.Option(formats=_FORMATS, help="What decided then; UTC, unless it says otherwise."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="List at most so many.")] = 20,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """List what was activated, promoted, approved and challenged; or say what decided at a time."""
    from credit_risk import history as told

    moment = microseconds(at)
    if moment is not None and moment > time.time_ns() // 1_000:
        raise typer.BadParameter("that time has not come", param_hint="--at")
    if moment is not None:
        with read_records(portfolio_name) as (settings, records):
            found = told.at(records, settings.portfolio, moment)
        if as_json:
            print_json(found)
        else:
            _print_answer(found)
        return
    with read_records(portfolio_name) as (settings, records):
        events = told.events(records, settings.portfolio, limit)
    if as_json:
        print_json(events)
        return
    table = Table("time", "package", "what", "who", "record", box=None)
    for event in events:
        table.add_row(*(event[n] or "" for n in ("time", "model_version", "what", "who", "record")))
    wide.print(table, highlight=False, markup=False)


def _print_answer(found: dict[str, Any]) -> None:
    decided, last = found["decided"], found["last_decision"]
    if decided is None:
        print_line(f"{found['portfolio']}: nothing was activated or started by {found['at']}")
        return
    print_line(
        f"{found['portfolio']} at {found['at']}: {decided['model_version']} decided, "
        f"by policy {decided['policy_version']}"
    )
    until = f", until {decided['until']}" if decided["until"] else ""
    if "action" in decided:
        how = f"{decided['action']} by {decided['by']}, instead of {decided['from']}"
    else:
        how = "it came with the program, and a server started with it"
    print_line(f"  since {decided['since']}{until}: {how}; record {decided['record']}")
    if decided["package_sha256"]:
        print_line(f"  SHA-256 {decided['package_sha256']}")
    promotion = decided["promotion"]
    if promotion is not None:
        verdict, policy = promotion["judgement"]["verdict"], promotion["policy"]["version"]
        print_line(f"  promotion {promotion['record']}: {verdict} by promotion policy {policy}")
    elif decided.get("action") in {"activate", "follow"}:
        print_line(f"  no promotion: {_BYPASSED[decided['action']]}")
    for approval in decided["approvals"]:
        print_line(
            f"  approved by {approval['approver']} (key {approval['key_id']}), "
            f"{approval['time']}; record {approval['record']}"
        )
    challenge = found["challenge"]
    if challenge is not None:
        share = f"for {challenge['share']:.4g} of applicants" if challenge["share"] else "in shadow"
        print_line(
            f"  challenged by {challenge['model_version']}, {share}, since {challenge['since']}; "
            f"record {challenge['record']}"
        )
    if last is not None:
        print_line(f"  last decision: {last['id']}, {last['time']}, by {last['model_version']}")
