"""`credit-risk challenge` and `challenger`: a package beside the one that decides."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from credit_risk.cli.opening import chosen_portfolio, log_and_store, read_records
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line, print_progress, wide
from credit_risk.errors import PackageInvalid, PackageNotFound

if TYPE_CHECKING:
    from credit_risk.audit.records import Record
    from credit_risk.challenger import Contest
    from credit_risk.significance import Interval
    from credit_risk.windows import Window


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


def challenger(
    version: Annotated[
        str | None,
        typer.Argument(
            show_default=False, help="Package that was asked; the challenger in force if absent."
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="PERIOD", help="Only decisions of so long up to now, such as 24h or 30d."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--report", metavar="FOLDER", help="Write a page to look at there."),
    ] = None,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Say how the challenger's answers differ from those of the package that decides.

    Of all applications that both were asked about: agreement, who would newly be approved or
    declined, first reasons, scores, performance once outcomes are known, fairness where groups are,
    processor time and errors.
    """
    with read_records(portfolio_name) as (settings, records):
        from credit_risk import challenges, contests
        from credit_risk.audit import keys
        from credit_risk.challenger import Contest
        from credit_risk.serving import activation
        from credit_risk.serving.store import Store

        store = Store(settings)
        if version is None:
            challenge = challenges.in_force(records, settings.portfolio)
            if challenge is None:
                msg = f"portfolio {settings.portfolio}: there is no challenger; name a package"
                raise PackageNotFound(msg)
            version = challenge.version
        decides = activation.wanted_version(settings, records, store)
        if version == decides:
            raise PackageInvalid(f"{version} decides already, and there is nothing beside it")
        champion = store.load(settings.portfolio, decides)
        other = store.load(settings.portfolio, version)
        told = contests.told(
            records,
            champion,
            other,
            window=None if window is None else _window(window),
            groups_sealing=keys.groups_sealing(settings),
        )
    found = Contest.model_validate({name: told[name] for name in Contest.model_fields})
    if folder is not None:
        from monitoring import contested

        of = "" if window is None else f"the last {window}"
        path = contested.write(folder, settings.portfolio, found, datetime.now(UTC), of)
        print_progress(f"report: {path}")
    if as_json:
        print_json(told)
        return
    table = Table("", "value", "between", box=None)
    for row in _lines(found):
        table.add_row(*row)
    print_line(f"{settings.portfolio}: {found.challenger} beside {found.champion}")
    wide.print(table, highlight=False)
    for caveat in found.caveats:
        print_line(caveat)


def _window(period: str) -> Window:
    from credit_risk import windows

    try:
        return windows.last(period, time.time_ns() // 1_000)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _lines(found: Contest) -> list[tuple[str, str, str]]:
    """What there is to say, in lines: what it is, its value and its bounds."""
    lines = [("applications both answered", f"{found.rows:,}", "")]
    lines.append(("decided by the challenger", f"{found.canary_rows:,}", ""))
    shares: list[tuple[str, Interval | None]] = [
        ("same decision", found.agreement),
        ("same band", found.band_agreement),
    ]
    for name in ("newly_approved", "no_longer_approved", "newly_declined", "no_longer_declined"):
        moved = getattr(found, name)
        shares.append((name.replace("_", " "), None if moved is None else moved.share))
    if found.first_reasons is not None:
        shares.append(("same first reason", found.first_reasons.same))
    shares.append(("challenger could not answer", found.challenger_failures.rate))
    shares.append(("champion could not answer", found.champion_failures.rate))
    lines += [
        (name, f"{one.value:.2%}", f"{one.low:.2%} to {one.high:.2%}")
        for name, one in shares
        if one is not None
    ]
    if found.scores is not None:
        lines.append(("PSI of the scores", f"{found.scores.psi:.4f}", ""))
    if found.latency is not None:
        lines.append(("times the champion's processor time", f"{found.latency.ratio:.2f}", ""))
    if found.outcomes.differences is None:
        lines.append(("outcomes", f"{found.outcomes.rows:,}", found.outcomes.not_enough or ""))
    else:
        lines.append(("outcomes", f"{found.outcomes.rows:,}", ""))
        for name in ("auc", "ks", "brier", "calibration"):
            one = getattr(found.outcomes.differences, name)
            bounds = f"{one.low:+.4f} to {one.high:+.4f}"
            lines.append((f"difference of {name}", f"{one.value:+.4f}", bounds))
    lines += [
        (
            f"least change of approval ratios by {one.attribute}",
            f"{one.worst.value:.3f} times",
            f"{one.worst.low:.3f} to {one.worst.high:.3f}",
        )
        for one in found.fairness
        if one.worst is not None
    ]
    return lines


def _told(record: Record) -> str:
    body = record.body
    before = f" (before: {body['from']})" if body["from"] else ""
    if body["to"] is None:
        said = f"{body['from'] or 'whoever it was'} challenges no longer"
    elif body["share"]:
        said = f"{body['to']} decides about {body['share']:.4g} of applicants{before}"
    else:
        said = f"{body['to']} is asked about all that is decided, and decides nothing{before}"
    return f"{record.portfolio}: {said}; record {record.id}"
