"""`credit-risk retention`: records that are older than they have to be kept."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from credit_risk.audit.records import microseconds
from credit_risk.cli.opening import ids_in, months_kept
from credit_risk.cli.options import AsJson, Done
from credit_risk.cli.printing import (
    STILL_THERE,
    print_json,
    print_line,
    print_progress,
    rows_done,
    wide,
)
from credit_risk.errors import Conflict
from credit_risk.settings import Settings


def retention(
    delete: Annotated[bool, typer.Option("--delete", help="Take what is due.")] = False,
    hold: Annotated[
        Path | None,
        typer.Option("--hold", metavar="FILE", help="File with one ID a line of what is to stay."),
    ] = None,
    open_reviews: Annotated[
        bool, typer.Option("--open-reviews", help="Also what still waits for a reviewer.")
    ] = False,
    trust_clock: Annotated[
        bool,
        typer.Option("--trust-clock", help="Take them although records make the clock doubtful."),
    ] = False,
    yes: Done = False,
    as_json: AsJson = False,
) -> None:
    """Say which records are older than they have to be kept, and with --delete --yes take them.

    Decisions, refusals, failures and reviews lose what they say after 25 months, or as the regime
    or CREDIT_RISK_RETENTION_MONTHS has it; their places in the chain stay, so that it verifies.
    A decision is kept while its review is open or younger. Servers may run meanwhile. Stopped
    halfway, it goes on from there when run again. Exit code 1: nothing is taken, for by the records
    the clock may be ahead.
    """
    settings = Settings()
    from credit_risk import environment
    from credit_risk.audit import retention as keeping
    from credit_risk.audit.log import open_log, open_records
    from credit_risk.audit.records import moment

    months = months_kept(settings)
    now = datetime.now(UTC)
    before = keeping.months_before(now, months)
    taken: dict[str, int] = {}
    forgotten = False
    with contextlib.ExitStack() as opened:
        records = opened.enter_context(contextlib.closing(open_records(settings)))
        terms = keeping.Terms(
            months,
            microseconds(before),
            held=() if hold is None else keeping.held(records, ids_in(hold)),
            open_reviews=open_reviews,
            trust_clock=trust_clock,
        )
        rows = keeping.report(records, terms)
        oldest = min((row.oldest for row in rows if row.state == "due"), default=None)
        doubts = [] if oldest is None else keeping.doubts(records, microseconds(now), oldest)
        doubtful = f"by the records, the clock may be ahead: {'; '.join(doubts)}"
        if doubts and delete and yes and not trust_clock:
            raise Conflict(f"{doubtful}. Once it is known to be right, --trust-clock takes them")
        released = keeping.released(records, terms)
        if delete and yes:
            log = opened.enter_context(contextlib.closing(open_log(settings)))
            progress = opened.enter_context(rows_done("taking", "records"))
            taken = keeping.take(records, log, terms, by=environment.user(), progress=progress)
            forgotten = log.forget()
    if as_json:
        print_json(
            {
                "months": months,
                "before": moment(terms.before),
                "deleted": delete and yes,
                "files_overwritten": forgotten,
                "clock": doubts,
                "held_before": released,
                "taken": taken,
                "records": [
                    row._asdict() | {"oldest": moment(row.oldest), "newest": moment(row.newest)}
                    for row in rows
                ],
            }
        )
        return
    print_line(f"older than {months} months, so before {moment(terms.before)}:")
    table = Table("portfolio", "kind", "records", "", "oldest", "newest", box=None)
    for row in rows:
        state = row.state if row.state == "due" else f"stays: {row.state}"
        span = (moment(row.oldest), moment(row.newest))
        table.add_row(row.portfolio, row.kind, f"{row.number:,}", state, *span)
    wide.print(table, highlight=False)
    if doubts:
        print_progress(f"note: {doubtful}")
    if released:
        print_progress(
            f"note: {released:,} of what is due was held by an earlier retention, "
            "and is not in --hold"
        )
    if delete and yes:
        print_line(f"records taken: {sum(taken.values()):,}")
        if not forgotten:
            print_progress(STILL_THERE)
    else:
        print_progress("nothing is taken yet: --delete --yes does it")
