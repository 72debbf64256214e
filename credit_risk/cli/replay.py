"""`credit-risk replay`: decisions on record made again."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from credit_risk import kernels
from credit_risk.audit.records import pages
from credit_risk.cli.exits import OTHERWISE
from credit_risk.cli.opening import check_file, chosen_portfolio, deciding
from credit_risk.cli.options import AsJson, PortfolioName, period
from credit_risk.cli.printing import print_json, print_line, rows_done, wide
from credit_risk.settings import Settings

if TYPE_CHECKING:
    from credit_risk.audit.records import Filters
    from credit_risk.replay import Replay


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
    within = period(since, until)
    if policy is not None:
        check_file(policy)
    if record_id is None:
        history = _History(portfolio_name, *within, changes)
        _replay_all(history, policy, model, limit, as_json=as_json)
    else:
        _replay_one(record_id, policy, model, as_json=as_json)


def _replay_one(record_id: str, policy: Path | None, model: str | None, *, as_json: bool) -> None:
    kernels.keep_compiled(Settings().state_dir)
    from credit_risk import replay
    from credit_risk.audit.log import open_records

    with contextlib.closing(open_records(Settings())) as records:
        record = replay.decision_of(records, record_id)
        settings, chosen = chosen_portfolio(record.portfolio)
        load, candidate = deciding(settings, chosen, policy, model)
        listings = replay.listings_of(records)
        (made,) = replay.replay([record], load, candidate=candidate, listings=listings)
    if as_json:
        print_json(made.to_json())
    else:
        _print_replay(made)
    if made.verdict != "MATCH":
        raise typer.Exit(OTHERWISE)


_OTHERWISE = {
    "decision": "another decision",
    "band": "the same decision, in another band",
    "reasons": "the same decision and band, for other reasons",
    "rest": "the same but for the score, the rules or the prediction",
}


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
    settings, chosen = chosen_portfolio(history.portfolio_name)
    from credit_risk import replay
    from credit_risk.audit.log import open_records
    from credit_risk.audit.records import moment

    load, candidate = deciding(settings, chosen, policy, model)
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
        progress = opened.enter_context(rows_done("replaying", "decisions"))
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
        print_json(result)
    else:
        _print_comparison(result)
    if not comparison.as_expected(candidate):
        raise typer.Exit(OTHERWISE)


def _print_replay(made: Replay) -> None:
    print_line(f"{made.verdict}: {made.detail}")
    rows = [(d.field, d.recorded, d.replayed) for d in made.differences]
    rows += [(name, *both) for name, both in made.libraries.items()]
    if not rows:
        return
    table = Table("", "recorded", "replayed", box=None)
    for name, *both in rows:
        table.add_row(name, *(json.dumps(value, ensure_ascii=False) for value in both))
    wide.print(table, highlight=False, markup=False)


def _print_comparison(result: dict[str, Any]) -> None:
    print_line(
        f"{result['portfolio']}: {result['records']:,} decisions replayed in "
        f"{result['seconds']:,.1f} s"
    )
    for verdict, number in result["verdicts"].items():
        if number:
            print_line(f"  {verdict}: {number:,}")
    for cause, told in result["not_reproducible"].items():
        print_line(f"    {cause}: {told['records']:,}, such as: {told['example']}")
    if any(result["otherwise"].values()):
        _print_otherwise(result["otherwise"])
    if result["before"]["decisions"]:
        _print_sides(result["before"], result["after"])
    if any(result["newly"].values()):
        _print_swaps(result)
    if result["changes"] is not None:
        print_line(f"all that is no MATCH: {result['changes']}")


def _print_otherwise(numbers: dict[str, int]) -> None:
    """What came out otherwise, each decision once; only another decision is a swap."""
    print_line(f"  came out otherwise: {sum(numbers.values()):,}")
    for name, told in _OTHERWISE.items():
        if numbers[name]:
            print_line(f"    {told}: {numbers[name]:,}")


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
        print_line(
            f"{change['decision_id']}  {was['decision']} to {now['decision']}, "
            f"PD {was['probability_of_default']:.4f} to {now['probability_of_default']:.4f}"
        )


def _rate(share: float | None) -> str:
    return "" if share is None else f"{share:.4f}"
