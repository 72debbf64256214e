"""A portfolio's folder: the data files that make a product line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from credit_risk.errors import PortfolioInvalid, PortfolioNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from credit_risk.policy import Policy
    from credit_risk.reasons import ReasonDictionary
    from credit_risk.schema import Schema


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Schema, policy and approved reasons, checked against each other."""

    path: Path
    schema: Schema
    policy: Policy
    reasons: ReasonDictionary


def load(root: Path, name: str) -> Portfolio:
    """Load the portfolio ``name`` from its folder under ``root``.

    Raises:
        PortfolioNotFound: there is no such folder.
        PortfolioInvalid: a file in it is wrong.
    """
    # Here and not above: who only looks for a portfolio's folder does not wait for these.
    from credit_risk import documents  # noqa: PLC0415
    from credit_risk.policy import Policy  # noqa: PLC0415
    from credit_risk.reasons import ReasonDictionary  # noqa: PLC0415
    from credit_risk.schema import Schema  # noqa: PLC0415

    path = folder(root, name)
    portfolio = Portfolio(
        path=path,
        schema=documents.read(Schema, path / "schema.yaml"),
        policy=documents.read(Policy, path / "policy.yaml"),
        reasons=documents.read(ReasonDictionary, path / "reasons.yaml"),
    )
    for part in (portfolio.schema, portfolio.policy, portfolio.reasons):
        if part.portfolio != name:
            msg = f"{path}: a file says it belongs to portfolio {part.portfolio!r}"
            raise PortfolioInvalid(msg)
    portfolio.policy.check(portfolio.schema)
    portfolio.reasons.check(portfolio.schema, portfolio.policy)
    return portfolio


def folder(root: Path, name: str) -> Path:
    """The folder of the portfolio ``name``.

    Raises:
        PortfolioNotFound: there is none; names those that there are.
    """
    path = root / name
    # A name, not a path: what lies elsewhere is not one of the portfolios.
    if path not in root.glob("*") or not path.is_dir():
        known = ", ".join(names(root)) or "none"
        msg = f"no portfolio {name!r} under {root} (there are: {known})"
        raise PortfolioNotFound(msg)
    return path


def names(root: Path) -> list[str]:
    """Names of the portfolios under ``root``."""
    return sorted(path.parent.name for path in root.glob("*/schema.yaml"))
