"""What commands open before they begin: settings, a portfolio, files, packages and records."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from credit_risk import kernels, portfolio
from credit_risk.errors import DataInvalid, FileNotFound, KeysInvalid, RecordNotFound
from credit_risk.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from credit_risk.audit.log import SqlAuditLog, SqlRecords
    from credit_risk.package import ModelPackage
    from credit_risk.portfolio import Portfolio
    from credit_risk.replay import Candidate, Load
    from credit_risk.serving.store import Store

ROWS_MAX = 200_000
"""Rows of a CSV file that is read whole."""
_PACKAGES_AT_ONCE = 4
"""Packages that a replay keeps loaded: history seldom goes to and fro between more."""


def settings_of(portfolio_name: str | None) -> Settings:
    """The settings in force, of another portfolio if one is named."""
    settings = Settings()
    if portfolio_name is None:
        return settings
    return settings.model_copy(update={"portfolio": portfolio_name})


def months_kept(settings: Settings) -> int:
    """Months that records are kept for: of the settings, the regime, or where neither says."""
    return settings.retention_months or _months_asked_for(settings)


def months_least(settings: Settings) -> int:
    """The shortest term that a retention may have had: what is kept longer was not always."""
    return min(months_kept(settings), _months_asked_for(settings))


def _months_asked_for(settings: Settings) -> int:
    from credit_risk import regimes
    from credit_risk.audit.retention import MONTHS

    regime = regimes.load(settings.regimes_dir, settings.regime)
    return regime.record_retention.months or MONTHS


def chosen_portfolio(portfolio_name: str | None) -> tuple[Settings, Portfolio]:
    """Settings and portfolio of a command that works with packages."""
    settings = settings_of(portfolio_name)
    chosen = portfolio.load(settings.portfolios_dir, settings.portfolio)
    kernels.keep_compiled(settings.state_dir)
    return settings, chosen


def check_file(path: Path) -> None:
    """Refuse a missing file in a moment; the libraries that would read it take seconds to load."""
    if not path.exists():
        msg = f"{path} does not exist"
        raise FileNotFound(msg)
    if path.is_dir():
        msg = f"{path} is a folder, not a file"
        raise DataInvalid(msg)


def wanted_version(settings: Settings, store: Store) -> str:
    """The version that decides; asking for it makes no record database."""
    from credit_risk.serving import activation

    with records_if_any(settings) as records:
        return activation.wanted_version(settings, records, store)


@contextlib.contextmanager
def records_if_any(settings: Settings) -> Iterator[SqlRecords | None]:
    """The records, for reading; None where there are none yet, and none are made."""
    from credit_risk.audit.log import open_records

    try:
        opened = open_records(settings)
    except RecordNotFound:
        yield None
        return
    with contextlib.closing(opened) as records:
        yield records


def deciding(
    settings: Settings, chosen: Portfolio, policy: Path | None, model: str | None
) -> tuple[Load, Candidate]:
    """What loads the packages of a replay, and what is to decide instead."""
    from credit_risk import replay
    from credit_risk.serving import activation
    from credit_risk.serving.store import Store

    store = Store(settings)

    @lru_cache(_PACKAGES_AT_ONCE)
    def load(portfolio_name: str, version: str) -> ModelPackage:
        return activation.load_checked(store, portfolio_name, version)

    candidate = replay.Candidate() if policy is None else replay.read_policy(policy, chosen)
    if model is not None:
        candidate = replace(candidate, package=load(settings.portfolio, model))
    return load, candidate


@contextlib.contextmanager
def log_and_store(settings: Settings) -> Iterator[tuple[SqlAuditLog, Store]]:
    """For what decides or is recorded; the shipped packages are in the store from then on."""
    from credit_risk.audit.log import open_log
    from credit_risk.serving.store import Store

    store = Store(settings)
    store.add_shipped(settings.portfolio)
    with contextlib.closing(open_log(settings)) as log:
        yield log, store


@contextlib.contextmanager
def read_records(portfolio_name: str | None) -> Iterator[tuple[Settings, SqlRecords]]:
    """The records, for reading; a portfolio's name that is mistyped is told before none are."""
    from credit_risk.audit.log import open_records

    settings = settings_of(portfolio_name)
    try:
        opened = open_records(settings)
    except RecordNotFound:
        portfolio.folder(settings.portfolios_dir, settings.portfolio)
        raise
    with contextlib.closing(opened) as records:
        if not records.find(portfolio=settings.portfolio, limit=1):
            # Records outlive their portfolio, so that only one that has none has to be known.
            portfolio.folder(settings.portfolios_dir, settings.portfolio)
        yield settings, records


def ids_in(path: Path) -> list[str]:
    """The ids in a file, one a line."""
    check_file(path)
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except ValueError as error:
        raise DataInvalid(f"{path}: ids are in ASCII, one a line") from error
    return [line.strip() for line in lines if line.strip()]


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with exactly these columns.

    Raises:
        FileNotFound: it is not there.
        DataInvalid: it is no such file, or has more than `ROWS_MAX` rows.
    """
    check_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, strict=True)
            if sorted(reader.fieldnames or ()) != sorted(columns):
                raise DataInvalid(f"{path}: the columns are {', '.join(columns)}, and no others")
            for number, row in enumerate(reader, 1):
                if number > ROWS_MAX:
                    raise DataInvalid(f"{path}: more than {ROWS_MAX:,} rows; split it")
                if None in row or None in row.values():
                    raise DataInvalid(f"{path}: row {number} has too few or too many values")
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataInvalid(f"{path}: not a CSV file in UTF-8") from error


def private_key_in(file: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file; its passphrase, if it has one, is asked for on the terminal.

    Raises:
        FileNotFound: it is not there.
        DataInvalid: it is not text.
        KeysInvalid: it is no Ed25519 key in PEM, or the passphrase is wrong.
    """
    from credit_risk.audit import keys

    text = text_of(file)
    passphrase = None
    if "ENCRYPTED" in text:
        passphrase = typer.prompt(f"Passphrase of {file}", hide_input=True, err=True)
    try:
        return keys.private_key(text, passphrase)
    except KeysInvalid as error:
        raise KeysInvalid(f"{file}: {error}") from error


def text_of(path: Path) -> str:
    """The text in a file."""
    check_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise DataInvalid(f"{path} is not text") from error
