"""`credit-risk approve`: somebody answers for a package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from credit_risk.cli.opening import chosen_portfolio, log_and_store, private_key_in
from credit_risk.cli.options import AsJson, PortfolioName
from credit_risk.cli.printing import print_json, print_line, print_progress
from credit_risk.errors import KeysInvalid

if TYPE_CHECKING:
    from credit_risk.audit.records import Record


def approve(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="An installed package.")],
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="Your own Ed25519 private key, in PEM.")
    ],
    portfolio_name: PortfolioName = None,
    as_json: AsJson = False,
) -> None:
    """Sign an installed package with your own key: you answer for it.

    The signature is put on record and beside the package; whose key it is says the file of
    approvers. It makes nothing decide: see `credit-risk promote`. Nobody approves a package twice.
    """
    settings, _ = chosen_portfolio(portfolio_name)
    if settings.approvers_file is None:
        raise KeysInvalid("CREDIT_RISK_APPROVERS_FILE is not set: nobody may approve")
    own = private_key_in(key)
    from credit_risk import approvals
    from credit_risk.serving import activation

    with log_and_store(settings) as (log, store):
        package = activation.load_checked(store, settings.portfolio, version)
        already = activation.signers(settings, log, store, version, package.digest)
        known = approvals.approvers(settings.approvers_file)
        now = time.time_ns() // 1_000
        signature = approvals.sign(
            own,
            approvals.check_new(known, own.public_key(), already, version),
            portfolio=settings.portfolio,
            package=version,
            package_sha256=package.digest,
            time=now,
        )
        record = approvals.record(log, package, signature, now)
        # What is on record counts by itself; beside the package, it goes where that goes.
        store.sign(settings.portfolio, version, signature)
    if already.others:
        print_progress(f"signatures of {version} that count for nobody: {already.others}")
    _approved(record, [*already.by, record.body["approver"]], as_json=as_json)


def _approved(record: Record, names: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json(record.to_json())
        return
    print_line(
        f"{record.portfolio}: {record.body['approver']} answers for package "
        f"{record.model_version}, approved by {', '.join(names)} so far; record {record.id}"
    )
