"""`credit-risk evidence`: what can be shown of a package."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from credit_risk.cli.exits import OTHERWISE
from credit_risk.cli.opening import chosen_portfolio, deciding
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line, rows_done
from credit_risk.cli.verifying import verified
from credit_risk.errors import EvidenceInvalid, RecordNotFound

if TYPE_CHECKING:
    from credit_risk.audit.log import SqlRecords
    from credit_risk.package import ModelPackage


def evidence_command(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A model package.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="evidence-VERSION if absent.")
    ] = None,
    replays: Annotated[
        int, typer.Option(min=0, help="Make so many of its newest decisions again.")
    ] = 1_000,
    verify_all: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Verify the whole log of records.")
    ] = True,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Write what can be shown of a model package into one folder, to read and as JSON.

    Model card, data, performance, calibration, reasons, policy, activations, decisions, integrity
    and replay, each statement with the digest of what it rests on, held against what the sections
    of the regime in force ask for. What is missing is named, and is no error.

    Exit code 5: the pack is there, and says of what it found that it does not hold.
    """
    settings, chosen = chosen_portfolio(portfolio_name)
    from credit_risk import regimes
    from credit_risk.audit.log import open_records
    from credit_risk.evidence import folders, packs

    folder = out or Path(f"evidence-{version}")
    folders.check_free(folder)
    regime = regimes.load(settings.regimes_dir, settings.regime)
    regime_file = settings.regimes_dir / f"{settings.regime}.yaml"
    load, _ = deciding(settings, chosen, None, None)
    package = load(settings.portfolio, version)
    with contextlib.ExitStack() as opened:
        try:
            records = opened.enter_context(contextlib.closing(open_records(settings)))
        except RecordNotFound:
            records = None
        findings = packs.Findings()
        if records is not None:
            progress = opened.enter_context(rows_done("replaying", "decisions"))
            findings = packs.Findings(
                replayed=packs.replayed(package, records, replays, progress),
                integrity=verified(settings, records) if verify_all else None,
                reviews=_reviews(records, package),
            )
        made_at = time.time_ns() // 1_000
        sums = folders.sha256_of(regime_file)
        pack = packs.pack(package, regime, sums, records, findings, made_at=made_at)
    folders.write(pack, package, regime_file, folder)
    found, missing = pack["findings"], pack["missing"]
    if as_json:
        print_json({"folder": str(folder), "findings": found, "missing": missing})
    else:
        print_line(f"{folder / 'index.html'} has the evidence on package {version}")
        for finding in found:
            print_line(f"{finding['topic']}: {finding['text']}")
        if missing:
            print_line(f"The regime {regime.id} also asks for: {', '.join(missing)}")
    if found:
        raise typer.Exit(OTHERWISE)


def _reviews(records: SqlRecords, package: ModelPackage) -> dict[str, Any] | str:
    """The reviews of a package's decisions, counted; or which record is in the way."""
    from credit_risk import casework

    try:
        return casework.summary(records, package.portfolio, model_version=package.version)
    except EvidenceInvalid as error:
        return str(error)
