"""Applicants: as the profile says, the same ones every time, and all valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from credit_risk import documents
from credit_risk.errors import PackageInvalid
from credit_risk.schema import Schema
from loadtests import applications

PACKAGES = Path(__file__).parents[2] / "packages"
PORTFOLIOS = ("personal-loans", "credit-cards")


@pytest.mark.parametrize("portfolio", PORTFOLIOS)
def test_every_applicant_drawn_is_one_the_server_takes(portfolio: str) -> None:
    """Not one of them would be refused."""
    package = applications.folder(PACKAGES, portfolio, "no such version")
    schema = documents.read(Schema, package / "schema.yaml")

    for body in applications.singles(package, 300):
        schema.validate_json(body.encode())


def test_one_seed_draws_one_population() -> None:
    """And another seed another one."""
    package = applications.folder(PACKAGES, "personal-loans", "")

    assert applications.singles(package, 20) == applications.singles(package, 20)
    assert applications.singles(package, 20) != applications.singles(package, 20, seed=7)


def test_batches_hold_as_many_rows_as_asked_for() -> None:
    """Different ones in each."""
    package = applications.folder(PACKAGES, "personal-loans", "")

    first, second = (json.loads(b) for b in applications.batches(package, 30, 2))

    assert len(first["applications"]) == len(second["applications"]) == 30
    assert first != second


def test_the_package_that_decides_gives_the_applicants_if_it_is_shipped() -> None:
    """Else the portfolio's default does."""
    default = (PACKAGES / "personal-loans" / "default").read_text(encoding="utf-8").strip()

    assert applications.folder(PACKAGES, "personal-loans", default).name == default
    assert applications.folder(PACKAGES, "personal-loans", "0" * 12).name == default
    with pytest.raises(PackageInvalid, match="nothing-like-it"):
        applications.folder(PACKAGES, "nothing-like-it", default)
