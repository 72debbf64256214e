"""`credit-risk models`: what is installed, and which package decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table

from credit_risk import portfolio
from credit_risk.cli.opening import (
    chosen_portfolio,
    log_and_store,
    records_if_any,
    settings_of,
    wanted_version,
)
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line, print_progress, wide
from credit_risk.cli.registry import move_along
from credit_risk.errors import PackageNotFound

if TYPE_CHECKING:
    from credit_risk.audit.records import Record

HURRIED_SECONDS = 2.0
"""Who rolls back waits so long for the registry at most, once it is done."""

app = typer.Typer(no_args_is_help=True, help="Installed model packages, and which one decides.")


@app.command(name="list")
def list_models(portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """List the packages that can be activated; the active one is marked, a broken one explained."""
    settings, _ = chosen_portfolio(portfolio_name)
    from credit_risk.serving import activation
    from credit_risk.serving.store import Store

    store = Store(settings)
    try:
        active = wanted_version(settings, store)
    except PackageNotFound:
        active = None
    found = store.installed(settings.portfolio)
    with records_if_any(settings) as records:
        signed = {
            p.version: activation.signers(settings, records, store, p.version, p.sha256)
            for p in found
            if p.sha256 is not None and p.broken is None
        }
    if as_json:
        print_json(
            [
                {
                    "version": p.version,
                    "active": p.version == active,
                    "estimator": p.estimator,
                    "installed": p.created,
                    "signers": list(signed[p.version].by) if p.version in signed else [],
                    "path": str(p.path),
                    "broken": p.broken,
                }
                for p in found
            ]
        )
        return
    table = Table("version", "active", "estimator", "installed", "signers", box=None)
    for p in found:
        mark = "*" if p.version == active else ""
        if p.broken:
            table.add_row(p.version, mark, "broken", p.created or "")
        else:
            by = ", ".join(signed[p.version].by) if p.version in signed else ""
            table.add_row(p.version, mark, p.estimator, p.created or "shipped", by)
    wide.print(table, highlight=False)
    for p in found:
        if p.broken:
            print_progress(f"broken: {p.broken}")
        elif p.version in signed and signed[p.version].others:
            others = signed[p.version].others
            print_progress(f"signatures of {p.version} that count for nobody: {others}")


@app.command()
def activate(version: str, portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """Make an installed package the one that decides; running servers switch by themselves."""
    settings, _ = chosen_portfolio(portfolio_name)
    with log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        record = activation.activate(settings, log, store, version)
        _activated(record, as_json=as_json)
        move_along(settings, log, store, record)


@app.command()
def rollback(portfolio_name: PortfolioName = None, as_json: AsJson = False) -> None:
    """Make the package decide that did before the last activation. It takes less than a second."""
    settings = settings_of(portfolio_name)
    # No more than the folder: what is in it does not matter now, and takes long to read.
    portfolio.folder(settings.portfolios_dir, settings.portfolio)
    with log_and_store(settings) as (log, store):
        from credit_risk.serving import activation

        record = activation.rollback(settings, log, store)
        _activated(record, as_json=as_json)
        move_along(settings, log, store, record, HURRIED_SECONDS)


def _activated(record: Record, *, as_json: bool) -> None:
    body = record.body
    if as_json:
        print_json(record.to_json())
    else:
        print_line(
            f"{record.portfolio}: {body['to']} decides from now on (before: {body['from']}); "
            f"record {record.id}"
        )
