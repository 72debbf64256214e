"""Serve credit decisions, train and switch models, and read what was decided.

Every command reads the settings of the server from the environment: `credit-risk settings` shows
them. Results go to standard output, with `--json` as JSON; progress and errors go to standard
error, an error as one line.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not found, 4 the record database could
not be read or written, 5 a replay came out otherwise or records are not as they were written, 6 the
queue of reviews or the table of outcomes is not what the records say, 7 records are whole and times
in them cannot be right, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys

import typer
from pydantic import ValidationError

from credit_risk.cli import (
    approvals,
    audit,
    challenger,
    database,
    decisions,
    evidence,
    groups,
    history,
    keys,
    models,
    outcomes,
    promotion,
    registry,
    replay,
    retention,
    retraining,
    reviews,
    score,
    serve,
    settings,
    simulate,
    training,
)
from credit_risk.cli.exits import EXIT_CODES
from credit_risk.cli.printing import print_error
from credit_risk.errors import CreditRiskError
from credit_risk.settings import PREFIX, Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=__doc__,
)
app.command()(serve.serve)
app.command()(training.train)
app.command()(training.compare)
app.command(name="package")(training.package_command)
app.command()(training.evaluate)
app.command()(retraining.validate)
app.command()(retraining.retrain)
app.command()(challenger.challenge)
app.command()(challenger.challenger)
app.command()(approvals.approve)
app.command()(promotion.promote)
app.command()(models.rollback)
app.command()(history.history)
app.command()(score.score)
app.command()(simulate.simulate)
app.command(name="replay")(replay.replay_command)
app.command(name="evidence")(evidence.evidence_command)
app.command()(retention.retention)
app.command(name="settings")(settings.show_settings)
app.command()(settings.version)
app.add_typer(models.app, name="models")
app.add_typer(registry.app, name="registry")
app.add_typer(decisions.app, name="decisions")
app.add_typer(audit.app, name="audit")
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="database")
app.add_typer(reviews.app, name="reviews")
app.add_typer(outcomes.app, name="outcomes")
app.add_typer(groups.app, name="groups")


def main(command: typer.Typer | None = None) -> None:
    """Run a command line, this one or another; errors of ours become one line and an exit code."""
    try:
        try:
            (command or app)()
        finally:
            sys.stdout.flush()  # so that a reader who has gone is met here, and not at the exit
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        for fault in error.errors(include_url=False):
            name = f"setting {_variable(str(fault['loc'][0]))}: " if fault["loc"] else ""
            print_error(f"{name}{fault['msg'].removeprefix('Value error, ')}")
        sys.exit(2)
    except BrokenPipeError:
        # `| head` has what it wanted; what is left has to go somewhere when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (CreditRiskError, OSError) as error:
        print_error(_told(error))
        sys.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))


def _told(error: CreditRiskError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _variable(alias: str) -> str:
    """The environment variable behind the name that a setting's error gives.

    It gives the first of the setting's aliases, whichever was set, or the field's own name.
    """
    name = alias.upper().removeprefix(PREFIX)
    present = {variable.upper() for variable in os.environ}
    with_prefix = f"{PREFIX}{name}"
    return name if name in present and with_prefix not in present else with_prefix
