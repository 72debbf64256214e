"""`credit-risk challenge`: a package beside the one that decides."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from credit_risk.cli.opening import chosen_portfolio, log_and_store
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line

if TYPE_CHECKING:
    from credit_risk.audit.records import Record


def challenge(
    version: Annotated[
        str | None, typer.Argument(show_default=False, help="Package that is to challenge.")
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of applicants that it decides about; 0 is shadow: it decides nothing.",
        ),
    ] = 0.0,
    end: Annotated[bool, typer.Option("--end", help="There is no challenger any more.")] = False,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Have a package challenge the one that decides; running servers follow by themselves.

    In shadow it is asked about all that is decided, beside the decisions and off their way. With
    --share it decides about that share of applicants, always the same ones.
    """
    if end == (version is not None) or (end and share):
        raise typer.BadParameter("give the VERSION of a package, or --end")
    settings, _ = chosen_portfolio(portfolio_name)
    with contextlib.ExitStack() as opened:
        log, store = opened.enter_context(log_and_store(settings))
        from credit_risk.serving import challenging

        if version is None:
            record = challenging.end(settings, log)
        else:
            record = challenging.challenge(settings, log, store, version, share=share)
    if as_json:
        print_json(record.to_json())
    else:
        print_line(_told(record))


def _told(record: Record) -> str:
    body = record.body
    before = f" (before: {body['from']})" if body["from"] else ""
    if body["to"] is None:
        said = f"{body['from']} challenges no longer"
    elif body["share"]:
        said = f"{body['to']} decides about {body['share']:.4g} of applicants{before}"
    else:
        said = f"{body['to']} is asked about all that is decided, and decides nothing{before}"
    return f"{record.portfolio}: {said}; record {record.id}"
