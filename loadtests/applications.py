"""Realistic applicants: drawn from the reference profile of a shipped package, never real ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from credit_risk import portfolio, profile, simulation
from credit_risk.errors import PackageInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credit_risk.schema import Application

SEED = 20_260_101
SINGLES = 5_000
BATCHES = 40


def folder(packages: Path, portfolio_name: str, version: str) -> Path:
    """Where the shipped package ``version`` is; the portfolio's default where it is not shipped.

    A server may decide with a package of its own making, which is not among the shipped ones. Its
    applicants are those of the same product line.

    Raises:
        PackageInvalid: nothing is shipped for this portfolio.
    """
    shipped = packages / portfolio_name
    if (shipped / version / "profile.json").is_file():
        return shipped / version
    try:
        return shipped / (shipped / "default").read_text(encoding="utf-8").strip()
    except OSError as error:
        names = ", ".join(portfolio.names(packages.parent / "portfolios"))
        msg = f"no package is shipped for {portfolio_name}; there are portfolios {names}"
        raise PackageInvalid(msg) from error


def drawn(package: Path, number: int, seed: int = SEED) -> list[Application]:
    """Draw ``number`` applicants from the profile of the package in a folder.

    Only two of its files are read: the model is the server's business.

    Raises:
        PackageInvalid: one of them cannot be read.
    """
    group = simulation.population(package)
    rows = profile.draw(group.profile, group.schema, number, seed)
    return [group.schema.application(row) for row in rows.tolist()]


def singles(package: Path, number: int = SINGLES, seed: int = SEED) -> list[str]:
    """Request bodies of one applicant each."""
    return [_json(application) for application in drawn(package, number, seed)]


def batches(package: Path, rows: int, number: int = BATCHES, seed: int = SEED) -> list[str]:
    """Request bodies of ``rows`` applicants each; no applicant is in two of them."""
    return [
        _json({"applications": chunk})
        for chunk in _chunks(drawn(package, rows * number, seed), rows)
    ]


def _chunks(applicants: list[Application], rows: int) -> Iterator[list[Application]]:
    for start in range(0, len(applicants), rows):
        yield applicants[start : start + rows]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
