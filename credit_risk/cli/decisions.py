"""`credit-risk decisions`: what is on record, and how it is erased."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from credit_risk.cli.opening import ids_in, read_records
from credit_risk.cli.options import AsJson, Done, PortfolioName, period
from credit_risk.cli.printing import (
    STILL_THERE,
    print_json,
    print_line,
    print_progress,
    rows_done,
    wide,
)
from credit_risk.settings import Settings

app = typer.Typer(no_args_is_help=True, help="What was decided, and why.")

DecisionFilter = Literal["APPROVE", "REVIEW", "DECLINE"]
KindFilter = Literal[
    "decision",
    "refusal",
    "failure",
    "activation",
    "challenge",
    "start",
    "claim",
    "review",
    "erasure",
    "retention",
    "acknowledgement",
    "outcome",
    "retraining-check",
    "retraining-decision",
    "approval",
    "promotion",
]
_LEFT = {
    "erased": "nothing: erased before",
    "expired": "nothing: taken by retention",
    "nothing": "nothing: holds no personal data",
}
"""Why there is nothing to erase, by the state of a finding."""


@app.command()
def show(record_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one record, whatever its kind."""
    from credit_risk.audit.log import open_records

    with contextlib.closing(open_records(Settings())) as records:
        record = records.get(record_id).to_json()
    if as_json:
        print_json(record)
        return
    parts = {**record, **record.pop("body"), **(record.pop("personal") or {})}
    fields = {name: value for name, value in parts.items() if value is not None}
    widest = max(map(len, fields))
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        print_line(f"{name:{widest}}  {text}")


@app.command(name="list")
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
    first, end = period(since, until)
    with read_records(portfolio_name) as (settings, records):
        found = records.find(
            portfolio=settings.portfolio,
            kind=None if every_kind else kind,
            decision=decision,
            model_version=model_version,
            since=first,
            until=end,
            limit=limit,
            before=before,
        )
    rows = [record.to_json() for record in found]
    if as_json:
        print_json(rows)
        return
    table = Table("id", "time", "kind", "status", "decision", "PD", "model", box=None)
    for row in rows:
        if "altered" in row:
            table.add_row(row["id"], row["time"], row["kind"], "", "ALTERED")
            continue
        pd = row["body"].get("probability_of_default")
        table.add_row(
            row["id"],
            row["time"],
            row["kind"],
            str(row["status"] or ""),
            row["decision"] or "",
            f"{pd:.4f}" if isinstance(pd, float) else "",
            row["model_version"] or "",
        )
    wide.print(table, highlight=False)
    altered = sum("altered" in row for row in rows)
    if altered:
        print_progress(
            f"not as they were written: {altered:,}; `credit-risk audit verify` says what was done"
        )


@app.command()
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
    wanted = [*(ids or ()), *([] if ids_file is None else ids_in(ids_file))]
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
            progress = opened.enter_context(rows_done("erasing", "records"))
            found = erasure.erase(
                records, log, wanted, by=environment.user(), reason=reason, progress=progress
            )
            forgotten = log.forget()
    if as_json:
        told = [finding.to_json() for finding in found]
        print_json({"erased": yes, "files_overwritten": forgotten, "records": told})
        return
    table = Table("id", "kind", "erased" if yes else "to erase", box=None)
    for finding in found:
        number = len(finding.records)
        left = f"{number} record{'s' if number > 1 else ''}" if number else _LEFT[finding.state]
        table.add_row(finding.id, finding.kind, left)
    wide.print(table, highlight=False)
    if not yes:
        print_progress("nothing is erased yet: --yes does it")
    elif not forgotten:
        print_progress(STILL_THERE)
