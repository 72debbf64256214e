"""`credit-risk validate` and `retrain`: newer rows, and a candidate made of them."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from credit_risk.cli.opening import check_file, chosen_portfolio, deciding, wanted_version
from credit_risk.cli.options import AsJson, DataFile, PortfolioName, period
from credit_risk.cli.printing import print_json, print_line, print_progress, steps_done
from credit_risk.cli.training import Estimator
from credit_risk.errors import RecordNotFound

if TYPE_CHECKING:
    from credit_risk.portfolio import Portfolio
    from credit_risk.settings import Settings
    from credit_risk.training.retrain import Retrained
    from credit_risk.training.settings import Training
    from credit_risk.training.tracking import Run
    from credit_risk.training.validation import Report, ValidationPolicy

CHALLENGER = "challenger"
"""The alias that a candidate gets in the registry, where it is registered."""
RECENT = 2_000
"""Recorded decisions, the newest, that are asked what the candidate would have decided."""


def validate(
    data: DataFile,
    portfolio_name: PortfolioName = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--model-version",
            help="Package whose population the rows are compared with; the active one if absent.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a labelled file before a model is trained on it, and say which rows are wrong, and why.

    The limits are those of the portfolio's validation.yaml. Exit code 1: the file is refused.
    """
    settings, chosen = chosen_portfolio(portfolio_name)
    check_file(data)
    from credit_risk.serving.store import Store
    from credit_risk.training import settings as training_settings
    from credit_risk.training import validation

    store = Store(settings)
    reference = store.load(settings.portfolio, version or wanted_version(settings, store))
    report = validation.validate(
        data,
        chosen.schema,
        training_settings.load(chosen),
        validation.read(chosen),
        reference,
    )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print_report(report)
    if report.refused:
        raise typer.Exit(1)


def retrain(
    data: Annotated[
        Path | None,
        typer.Option("--data", show_default=False, help="Labelled raw file, CSV or Parquet."),
    ] = None,
    from_records: Annotated[
        bool,
        typer.Option("--from-records", help="Instead: recorded applications with an outcome."),
    ] = False,
    since: Annotated[datetime | None, typer.Option(help="Decided from this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Decided before this time, UTC.")] = None,
    portfolio_name: PortfolioName = None,
    estimator: Annotated[
        Estimator | None, typer.Option(help="Estimator; that of the active package if absent.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Where the report goes; STATE_DIR/retraining/PORTFOLIO/DATA if absent.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Validate newer rows, train a candidate on them, and compare it with who decides now.

    The candidate is installed, and decides nothing until it is activated. Exit code 1: the rows are
    refused, and nothing was trained.
    """
    if from_records == (data is not None):
        raise typer.BadParameter("give --data FILE, or --from-records")
    if not from_records and (since or until):
        raise typer.BadParameter("--since and --until go with --from-records")
    within = period(since, until)
    settings, chosen = chosen_portfolio(portfolio_name)
    if data is not None:
        check_file(data)
    from credit_risk.performance import ACCEPTED_ONLY
    from credit_risk.serving.store import Store
    from credit_risk.training import retrain as retraining
    from credit_risk.training import settings as training_settings
    from credit_risk.training import tracking, validation

    store = Store(settings)
    champion = store.load(settings.portfolio, wanted_version(settings, store))
    known = training_settings.load(chosen), validation.read(chosen)
    with contextlib.ExitStack() as opened:
        run = opened.enter_context(tracking.begun(settings.portfolio, "retrain"))
        warn_only: frozenset[validation.Check] = frozenset()
        caveats: tuple[str, ...] = ()
        if data is None:
            data, known = opened.enter_context(_recorded(settings, chosen, known, within))
            warn_only, caveats = validation.RELATIVE, (ACCEPTED_ONLY,)
        step = opened.enter_context(steps_done())
        try:
            made = retraining.retrain(
                chosen,
                *known,
                data,
                settings.state_dir / "packages",
                champion=champion,
                estimator=estimator,
                only_warn=warn_only,
                caveats=caveats,
                step=step,
            )
        except retraining.DataRefused as refused:
            folder = _folder(report, settings, refused.report)
            if run is not None:
                run.report(folder)
            _print_refused(refused.report, folder, as_json=as_json)
            raise typer.Exit(1) from None
        store.add(made.packaged.path)
        step("Replaying recorded decisions with the candidate")
        replayed = _replayed(settings, chosen, made.packaged.version)
        folder = _folder(report, settings, made.validation)
        told = _told(made, champion.version, replayed, folder)
        text = retraining.markdown(made, champion.version) + _on_record(replayed)
        (folder / "report.md").write_text(text, encoding="utf-8")
        told["registered"] = None if run is None else _registered(run, made, folder)
        (folder / "retraining.json").write_text(f"{json.dumps(told, indent=2)}\n", encoding="utf-8")
    if as_json:
        print_json(told)
    else:
        _print_made(told, text)


def _registered(run: Run, made: Retrained, report: Path) -> dict[str, str]:
    """Where a candidate is registered, with its report; as challenger unless it decides already."""
    figures = {"comparison": made.comparison.model_dump(mode="json")}
    alias = None if made.is_champion else CHALLENGER
    registered = run.register(made.packaged.path, figures=figures, alias=alias)
    run.report(report)
    return asdict(registered)


def _print_made(told: dict[str, Any], text: str) -> None:
    version, name = told["candidate"], told["portfolio"]
    print_line(text)
    print_line(f"package {version} is installed; report: {told['report']}")
    same = version == told["champion"]
    if told["registered"] is not None:
        alias = "" if same else f", alias {CHALLENGER}"
        print_line(f"registered: version {told['registered']['number']}{alias}")
    if same:
        print_line(f"package {version} decides already: there is nothing to challenge or promote")
        return
    print_line(f"to ask it beside who decides: credit-risk challenge {version} --portfolio {name}")
    print_line(f"to have it decide: credit-risk promote {version} --portfolio {name}")


def _print_refused(report: Report, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print_report(report)
        print_line(f"nothing was trained; report: {folder}")


@contextlib.contextmanager
def _recorded(
    settings: Settings,
    chosen: Portfolio,
    known: tuple[Training, ValidationPolicy],
    within: tuple[int | None, int | None],
) -> Iterator[tuple[Path, tuple[Training, ValidationPolicy]]]:
    """A file of recorded applications and their outcomes, for as long as it is needed."""
    from credit_risk import outcomes
    from credit_risk.audit.log import open_records
    from credit_risk.training import retrain as retraining

    withheld = 0

    def opened(rows: Iterator[outcomes.Labelled]) -> Iterator[outcomes.Labelled]:
        nonlocal withheld
        for row in rows:
            withheld += row.application is None
            yield row

    # Only the owner may enter what is made here.
    with (
        contextlib.closing(open_records(settings)) as records,
        tempfile.TemporaryDirectory(prefix="retraining-", dir=settings.state_dir) as folder,
    ):
        since, until = within
        rows = outcomes.labelled(records, settings.portfolio, since=since, until=until)
        path = Path(folder) / "recorded.csv"
        yield path, retraining.recorded(opened(rows), chosen.schema, *known, path)
        if withheld:
            print_progress(f"warning: {withheld:,} applications are erased or cannot be opened")


def _replayed(settings: Settings, chosen: Portfolio, version: str) -> dict[str, Any] | None:
    """What the candidate would have made of the newest decisions on record; None without any."""
    from credit_risk import replay
    from credit_risk.audit.log import open_records

    try:
        opened = open_records(settings)
    except RecordNotFound:
        return None
    with contextlib.closing(opened) as records:
        load, candidate = deciding(settings, chosen, None, version)
        some = records.find(portfolio=settings.portfolio, kind="decision", limit=RECENT)
        comparison = replay.Comparison()
        for made in replay.replay(some, load, candidate=candidate):
            comparison.add(made)
    return comparison.to_json() if some else None


def _on_record(replayed: dict[str, Any] | None) -> str:
    if replayed is None:
        return "\n## Decisions on record\n\nNone yet.\n"
    before, after = replayed["before"], replayed["after"]
    newly = ", ".join(f"{name} {number:,}" for name, number in replayed["newly"].items())
    rates = [
        "n/a" if side["approval_rate"] is None else f"{side['approval_rate']:.1%}"
        for side in (before, after)
    ]
    return (
        f"\n## Decisions on record\n\nOf the newest {replayed['records']:,}, "
        f"{before['decisions']:,} could be made again with the candidate, rules included: approved "
        f"{rates[0]} then and {rates[1]} now; newly {newly}.\n"
    )


def _told(
    made: Retrained, champion: str, replayed: dict[str, Any] | None, folder: Path
) -> dict[str, Any]:
    return {
        "portfolio": made.validation.portfolio,
        "champion": champion,
        "candidate": made.packaged.version,
        "estimator": made.estimator,
        "path": str(made.packaged.path.absolute()),
        "validation": made.validation.model_dump(mode="json"),
        "comparison": made.comparison.model_dump(mode="json"),
        "champion_then": made.development,
        "rows_left_out": made.rows_left_out,
        "caveats": list(made.caveats),
        "warnings": made.packaged.warnings,
        "on_record": replayed,
        "report": str(folder),
    }


def _folder(given: Path | None, settings: Settings, report: Report) -> Path:
    """The folder of a report, with what validation found in it."""
    of_data = settings.state_dir / "retraining" / settings.portfolio / report.sha256[:12]
    folder = given or of_data
    folder.mkdir(parents=True, exist_ok=True)
    text = report.model_dump_json(indent=2)
    (folder / "validation.json").write_text(f"{text}\n", encoding="utf-8")
    return folder


def _print_report(report: Report) -> None:
    print_line(f"{report.portfolio}: {report.rows:,} rows, {report.verdict}")
    for finding in report.findings:
        place = "" if finding.column is None else f" {finding.column}:"
        print_line(f"  {finding.severity}, {finding.check}:{place} {finding.message}")
    print_line(f"checked: {', '.join(report.checked)}")
