"""`credit-risk keys`: new keys, and old ones retired."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from credit_risk.cli.opening import private_key_in
from credit_risk.cli.options import AsJson
from credit_risk.cli.printing import print_json, print_line, rows_done
from credit_risk.errors import KeysInvalid
from credit_risk.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Keys that records are sealed and signed with.")


@app.command()
def encryption(as_json: AsJson = False) -> None:
    """Print a new key to seal applicants' data with, as a line of CREDIT_RISK_ENCRYPTION_KEYS_FILE.

    It is kept nowhere: whoever loses it loses what is sealed with it.
    """
    from credit_risk.audit.keys import new_encryption_key

    key = new_encryption_key().strip()
    if as_json:
        print_json({"encryption_key": key})
    else:
        print_line(key)


@app.command()
def signing(as_json: AsJson = False) -> None:
    """Print a new key to sign checkpoints with, as the text of CREDIT_RISK_SIGNING_KEY_FILE."""
    from credit_risk.audit.keys import new_signing_key

    key = new_signing_key()
    if as_json:
        print_json({"signing_key": key})
    else:
        print_line(key.rstrip())


@app.command()
def public(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An Ed25519 private key in PEM.")],
    as_json: AsJson = False,
) -> None:
    """Print the public part of a private key, as a line of CREDIT_RISK_APPROVERS_FILE."""
    from credit_risk.audit.keys import key_id, public_pem

    key = private_key_in(file).public_key()
    line = public_pem(key).splitlines()[1]
    if as_json:
        print_json({"key_id": key_id(key), "public_key": line})
    else:
        print_line(line)


@app.command()
def rewrap(as_json: AsJson = False) -> None:
    """Wrap the data keys of all records with the first encryption key, so that older ones can go.

    Give every server the new key before the old ones, and restart it; then run this. Neither
    what is sealed nor the chain changes. Stopped halfway, it goes on from there when run again.

    Exit code 1: some records are sealed with keys that are not given.
    """
    settings = Settings()
    from credit_risk.audit.keys import sealing
    from credit_risk.audit.log import SqlRecords, open_log
    from credit_risk.audit.rewrapping import rewrap as rewrap_all

    with contextlib.ExitStack() as opened:
        # First, for it makes no database where there is none.
        records = opened.enter_context(contextlib.closing(SqlRecords(settings.audit_url)))
        log = opened.enter_context(contextlib.closing(open_log(settings)))
        progress = opened.enter_context(rows_done("rewrapping", "records"))
        done = rewrap_all(records, log, sealing(settings, make=True), progress)
    if as_json:
        print_json(done._asdict())
    else:
        print_line(
            f"{done.rewrapped:,} data keys wrapped with the first key; {done.already:,} were before"
        )
    if done.unknown:
        raise KeysInvalid(
            f"{done.unknown:,} records are sealed with keys that are not given: put these back"
        )
