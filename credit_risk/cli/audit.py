"""`credit-risk audit`: whether records are as they were written, and proof of it."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from credit_risk.audit.records import instant, moment
from credit_risk.cli.exits import MISQUEUED, OTHERWISE, UNTIMELY
from credit_risk.cli.opening import settings_of, text_of
from credit_risk.cli.options import AsJson, Done, PortfolioName
from credit_risk.cli.printing import print_json, print_line, print_progress, wide
from credit_risk.cli.verifying import verified
from credit_risk.errors import KeysInvalid, RecordNotFound
from credit_risk.settings import Settings

if TYPE_CHECKING:
    from credit_risk.audit.checkpoints import Checkpoint
    from credit_risk.audit.findings import Report
    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.queue import Difference
    from credit_risk.audit.records import AuditLog
    from credit_risk.audit.signer import Signer

_SHOWN = 100
"""Rows named one by one."""

app = typer.Typer(
    no_args_is_help=True, help="Whether records are as they were written, and proof of it."
)


@app.command()
def verify(
    public_keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--public-key",
            metavar="FILE",
            help="Public key whose checkpoints count, PEM; repeatable. If absent: that of the "
            "settings' own key, which is weaker; without that too, signatures are not checked.",
        ),
    ] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchor",
            metavar="FILE",
            help="Checkpoints kept elsewhere, exported or as log lines; repeatable. The log has to "
            "extend each.",
        ),
    ] = None,
    open_sealed: Annotated[
        bool, typer.Option("--open", help="Open all sealed data too, with the encryption keys.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Verify the whole log of records, and name whatever is not as it was written.

    The tables beside it, which are made of it, are held against it. Reads only, also while servers
    write. Exit code 5: something is not as it was written; 6: only the queue of reviews or the
    table of outcomes is otherwise, see `credit-risk audit queue` and `outcomes`; 7: only times in
    it cannot be right; 1: with --open, what is as it was written could not all be opened, for want
    of the right keys.
    """
    settings = Settings()
    from credit_risk.audit import checkpoints
    from credit_risk.audit import keys as audit_keys
    from credit_risk.audit.log import open_records

    kept = [anchor for path in anchors or () for anchor in checkpoints.anchors(text_of(path))]
    sealing = audit_keys.sealing(settings) if open_sealed else None
    if open_sealed and sealing is None:
        raise KeysInvalid("no encryption keys are set, and without them nothing opens")
    try:
        opened = open_records(settings)
    except RecordNotFound as error:
        if not kept and not settings.note.exists():
            raise
        _print_lost(str(error), as_json=as_json)
        raise typer.Exit(OTHERWISE) from None
    with contextlib.closing(opened) as records:
        report = verified(settings, records, public_keys or (), anchors=kept, sealing=sealing)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    if not report.whole:
        raise typer.Exit(OTHERWISE)
    if report.misqueued or report.misrecorded:
        raise typer.Exit(MISQUEUED)
    if report.clocks:
        raise typer.Exit(UNTIMELY)
    if sealing is not None and report.unopened:
        missing = ", ".join(
            f"{number:,} sealed under encryption key {name}"
            for name, number in sorted(report.unopened.items())
        )
        raise KeysInvalid(
            f"records were not opened: {missing}; given is {', '.join(sealing.names)}"
        )


def _print_lost(error: str, *, as_json: bool) -> None:
    """There is no log, and a checkpoint that was kept says that there was one."""
    from credit_risk.audit.findings import Finding, Report

    report = Report()
    told = f"all of them, which a checkpoint was signed for that was kept: {error}"
    report.add(Finding("removed", None, None, None, told))
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)


def _print_report(report: Report) -> None:
    for finding in report.findings:
        print_line(str(finding))
    if report.found > len(report.findings):
        print_line(f"and {report.found - len(report.findings):,} more")
    found = "1 thing is" if report.found == 1 else f"{report.found:,} things are"
    outcome = "whole" if report.whole else f"NOT whole: {found} not as written"
    behind = report.records - report.covered
    held = f"{report.records:,} records, {report.checkpoints:,} checkpoints"
    print_line(f"log {report.log}: {held}; {outcome}")
    if report.whole and behind > 0:
        print_line(f"not under a checkpoint yet: the last {behind:,} records")
    for number, told in (
        (report.taken, "taken by retention"),
        (report.erased, "erased"),
        (report.opened, "opened"),
    ):
        if number:
            print_line(f"{told}: {number:,}")
    _print_queue(report.queue, report.misqueued)
    _print_outcomes(report.outcomes, report.misrecorded or 0)
    for told in report.clocks:
        print_line(f"clock: {told}")
    for note in report.notes:
        print_progress(f"note: {note}")


def _print_queue(differences: Sequence[Difference], number: int) -> None:
    for difference in differences:
        print_line(f"queue of reviews: {difference}")
    if number > len(differences):
        print_line(f"queue of reviews: and {number - len(differences):,} more")
    if number:
        print_progress(
            "the queue of reviews is not what the records say; they are the evidence, and "
            "`credit-risk audit queue --rebuild` makes it anew from them"
        )


def _print_outcomes(differences: Sequence[Difference], number: int) -> None:
    for difference in differences[:_SHOWN]:
        print_line(f"outcomes: {difference}")
    if number > _SHOWN:
        print_line(f"outcomes: and {number - _SHOWN:,} more")
    if number:
        print_progress(
            "the table of outcomes is not what the records say; they are the evidence, and "
            "`credit-risk audit outcomes --rebuild` makes it anew from them"
        )


@app.command()
def queue(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the queue what the records say.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold the queue of reviews against the records, and with --rebuild make it anew from them.

    Servers may run meanwhile. Exit code 6: the queue is not what the records say.
    """
    from credit_risk.audit import queue as waiting

    mended, found = _held(
        waiting.rebuild, lambda records: waiting.differences(records.reading), rebuild=rebuild
    )
    if as_json:
        cases = [difference._asdict() for difference in found]
        print_json({"mended": mended, "differences": len(found), "cases": cases})
    else:
        if mended:
            print_line(f"queue of reviews: mended {mended:,} cases")
        if not found:
            print_line("queue of reviews: as the records say")
        _print_queue(found, len(found))
    if found:
        raise typer.Exit(MISQUEUED)


@app.command()
def outcomes(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the table what the records say.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold the table of outcomes against the records, and with --rebuild make it anew from them.

    Servers may run meanwhile. Exit code 6: the table is not what the records say.
    """
    from credit_risk import outcomes as known

    mended, found = _held(known.rebuild, known.differences, rebuild=rebuild)
    if as_json:
        rows = [difference._asdict() for difference in found]
        print_json({"mended": mended, "differences": len(found), "rows": rows})
    else:
        if mended:
            print_line(f"outcomes: mended {mended:,} rows")
        if not found:
            print_line("outcomes: as the records say")
        _print_outcomes(found, len(found))
    if found:
        raise typer.Exit(MISQUEUED)


def _held(
    mend: Callable[[SqlRecords, AuditLog], Counter[str]],
    differences: Callable[[SqlRecords], Iterator[Difference]],
    *,
    rebuild: bool,
) -> tuple[int, list[Difference]]:
    """How many rows were mended, if they were to be, and what differs then."""
    settings = Settings()
    from credit_risk.audit.log import open_log, open_records

    with contextlib.ExitStack() as opened:
        records = opened.enter_context(contextlib.closing(open_records(settings)))
        mended = 0
        if rebuild:
            log = opened.enter_context(contextlib.closing(open_log(settings)))
            mended = mend(records, log).total()
        return mended, list(differences(records))


@app.command()
def checkpoint(
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the last checkpoint here, to be kept elsewhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign all that is on record by now; servers do it by themselves now and then."""
    with _signer() as signer:
        signer.sign()
        from credit_risk.audit.checkpoints import newest

        with signer.log.reading() as connection:
            last = newest(connection)
    if last is None:
        raise RecordNotFound("no records yet, so there is nothing to sign")
    if export is not None:
        export.write_text(json.dumps(last.to_json()) + "\n", encoding="utf-8")
    if as_json:
        print_json(last.to_json())
    else:
        print_line(f"checkpoint {last.number}: records {last.first} to {last.last}")


@app.command()
def acknowledge(
    reason: Annotated[str, typer.Option(help="Why they are gone: it stays on record for ever.")],
    yes: Done = False,
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Put on record that checkpoints are gone for a reason, as after restoring a backup.

    Servers sign nothing while a checkpoint they have seen is not there as it was. With this all
    of them go on with what is there. It takes the signing key; without --yes it only says what is
    gone. Exit code 1: nothing is acknowledged, for nothing is gone that a server has noted here, or
    what is left is no chain, and nobody could sign behind it.
    """
    if not reason.strip():
        raise typer.BadParameter("--reason is empty")
    settings = settings_of(portfolio_name)
    from credit_risk import environment
    from credit_risk.audit import keys as audit_keys
    from credit_risk.audit import rollback
    from credit_risk.audit.log import open_log, open_records

    with contextlib.ExitStack() as opened:
        records = opened.enter_context(contextlib.closing(open_records(settings)))
        gone, newest = rollback.check_gone(records, settings.note)
        made = None
        if yes:
            key = audit_keys.signing_key(settings)
            if key is None:
                raise KeysInvalid("no signing key is set, and nobody else can acknowledge this")
            log = opened.enter_context(contextlib.closing(open_log(settings)))
            by = environment.user()
            made = rollback.acknowledge(log, key, settings.portfolio, by=by, reason=reason)
    if as_json:
        print_json(
            {
                "acknowledged": made and made.id,
                "gone": gone.to_json(),
                "newest": newest and newest.to_json(),
            }
        )
        return
    for told, found in (("seen here, and not there as it was", gone), ("newest on record", newest)):
        print_line(f"{told}: {_described(found)}")
    if made is None:
        print_progress("nothing is acknowledged yet: --yes does it")
    else:
        print_line(f"acknowledged: record {made.id}")


def _described(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "none"
    from credit_risk.audit.checkpoints import Statement

    signed = moment(Statement.read(checkpoint.statement).time)
    return f"checkpoint {checkpoint.number}, up to record {checkpoint.last}, signed {signed}"


@app.command(name="checkpoints")
def list_checkpoints(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints, the newest first."""
    from credit_risk.audit.checkpoints import Statement, listed
    from credit_risk.audit.log import open_records

    with (
        contextlib.closing(open_records(Settings())) as records,
        records.reading() as connection,
    ):
        found = listed(connection, limit)
    if as_json:
        print_json([checkpoint.to_json() for checkpoint in found])
        return
    table = Table("number", "time", "first", "last", "root", "key", box=None)
    for row in found:
        stated = Statement.read(row.statement)
        when = instant(stated.time).isoformat(timespec="seconds")
        table.add_row(str(row.number), when, str(row.first), str(row.last), stated.root, row.key_id)
    wide.print(table, highlight=False)


@app.command(name="public-key")
def public_key(as_json: AsJson = False) -> None:
    """Print the public half of the signing key, to be kept elsewhere."""
    from credit_risk.audit import keys as audit_keys

    own = audit_keys.signing_key(Settings())
    if own is None:
        raise KeysInvalid("no signing key is set, and no server has made one")
    text = audit_keys.public_pem(own.public_key())
    if as_json:
        print_json({"key_id": audit_keys.key_id(own.public_key()), "public_key": text})
    else:
        print_line(text.strip())


@app.command()
def proof(
    record_id: Annotated[str, typer.Argument(metavar="ID")],
    portfolio_name: PortfolioName = None,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the proof here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that one record is as it was written; scripts/verify_proof.py checks the proof."""
    from credit_risk.audit import proofs

    settings = settings_of(portfolio_name)
    with _signer() as signer:
        made = proofs.proof(signer, record_id, settings.portfolio)
    if output is not None:
        output.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    if output is None or as_json:
        print_json(made)
    else:
        print_line(f"{output}: {made['proves']}")


@contextlib.contextmanager
def _signer() -> Iterator[Signer]:
    """What signs checkpoints; only where there are records."""
    from credit_risk.audit import keys as audit_keys
    from credit_risk.audit.log import open_log, open_records
    from credit_risk.audit.signer import Signer

    settings = Settings()
    open_records(settings).close()
    key = audit_keys.signing_key(settings, make=True)
    with contextlib.closing(open_log(settings)) as log:
        yield Signer(
            log,
            key,
            settings.checkpoint_seconds,
            made=lambda _: None,
            failed=lambda: None,
            note=settings.note,
        )
