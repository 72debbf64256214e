"""The portfolio's folder, the toy's and those that are shipped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from credit_risk import portfolio
from credit_risk.errors import PortfolioInvalid, PortfolioNotFound
from credit_risk.settings import Settings
from tests import toys

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = Settings.model_fields["portfolios_dir"].default


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that holds the toy portfolio."""
    toys.write_portfolio(tmp_path)
    return tmp_path


def replace_in(path: Path, old: str, new: str) -> None:
    """Change one thing in a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_portfolio_is_its_three_files(root: Path) -> None:
    """A new product line is data."""
    loaded = portfolio.load(root, toys.NAME)

    assert loaded.path == root / toys.NAME
    assert loaded.schema == toys.schema()
    assert loaded.policy == toys.policy()
    assert loaded.reasons == toys.reasons()


def test_portfolios_are_found_by_their_schema(root: Path) -> None:
    """In order of name; other folders are not portfolios."""
    (root / "another").mkdir()
    (root / "another" / "schema.yaml").touch()
    (root / "notes").mkdir()

    assert portfolio.names(root) == ["another", toys.NAME]
    assert portfolio.names(root / "absent") == []


def test_an_unknown_portfolio_is_refused_with_the_known_ones(root: Path) -> None:
    """The message says what there is."""
    with pytest.raises(PortfolioNotFound, match=r"no portfolio 'loans' .*\(there are: bicycle-lea"):
        portfolio.load(root, "loans")
    with pytest.raises(PortfolioNotFound, match=r"\(there are: none\)"):
        portfolio.load(root / toys.NAME, "loans")


@pytest.mark.parametrize("name", ["../bicycle-leases", "..", ".", "", "*", "schema.yaml"])
def test_a_portfolio_is_asked_for_by_its_name(root: Path, name: str) -> None:
    """Neither a path nor a pattern leads to one."""
    (root / "schema.yaml").touch()

    with pytest.raises(PortfolioNotFound):
        portfolio.load(root, name)
    with pytest.raises(PortfolioNotFound):
        portfolio.load(root / toys.NAME, name)


@pytest.mark.parametrize("name", ["schema.yaml", "policy.yaml", "reasons.yaml"])
def test_each_file_is_needed(root: Path, name: str) -> None:
    """The message names the one that is missing."""
    (root / toys.NAME / name).unlink()

    with pytest.raises(PortfolioInvalid, match=f"{name}: cannot be read"):
        portfolio.load(root, toys.NAME)


@pytest.mark.parametrize("name", ["schema.yaml", "policy.yaml", "reasons.yaml"])
def test_a_file_of_another_portfolio_is_refused(root: Path, name: str) -> None:
    """A file that was copied and not adapted."""
    replace_in(root / toys.NAME / name, "portfolio: bicycle", "portfolio: tricycle")

    with pytest.raises(PortfolioInvalid, match="belongs to portfolio 'tricycle-leases'"):
        portfolio.load(root, toys.NAME)


def test_a_policy_that_does_not_fit_the_schema_is_refused(root: Path) -> None:
    """A rule on a field that is not there."""
    replace_in(root / toys.NAME / "policy.yaml", "field: price,", "field: rent,")

    with pytest.raises(PortfolioInvalid, match="price-above-limit, field rent: not in the schema"):
        portfolio.load(root, toys.NAME)


def test_reasons_that_do_not_fit_the_schema_are_refused(root: Path) -> None:
    """A field whose reason has no approved text."""
    replace_in(root / toys.NAME / "schema.yaml", "PURPOSE_OF_LEASE", "USE_OF_BICYCLE")

    with pytest.raises(PortfolioInvalid, match="USE_OF_BICYCLE of field use has no approved"):
        portfolio.load(root, toys.NAME)


def test_the_two_portfolios_are_shipped() -> None:
    """Personal loans and credit cards."""
    assert portfolio.names(SHIPPED) == ["credit-cards", "personal-loans"]


@pytest.mark.parametrize("name", portfolio.names(SHIPPED))
def test_a_shipped_portfolio_accepts_its_own_example(name: str) -> None:
    """As the pages show it."""
    schema = portfolio.load(SHIPPED, name).schema

    assert schema.validate_json(json.dumps(schema.example).encode()) == schema.example


def test_nobody_is_asked_for_sex_or_marriage() -> None:
    """Prohibited bases reach no schema, and so no model."""
    names = {
        f.name.upper()
        for n in portfolio.names(SHIPPED)
        for f in portfolio.load(SHIPPED, n).schema.fields
    }

    assert not names & {"SEX", "MARRIAGE", "EDUCATION"}


@pytest.mark.parametrize("name", portfolio.names(SHIPPED))
def test_no_applicant_is_worse_off_for_being_older(name: str) -> None:
    """Age may only lower the probability of default (12 CFR 1002.6(b)(2))."""
    ages = [f for f in portfolio.load(SHIPPED, name).schema.fields if "age of" in f.title.lower()]

    assert [f.direction for f in ages] == ["decreasing"]
