"""A candidate beside the champion, on the same rows: figures, and what becomes of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from credit_risk import performance
from credit_risk.documents import Document
from credit_risk.performance import Differences
from credit_risk.policy import DECISIONS, DecisionName
from credit_risk.significance import Interval
from credit_risk.training.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from credit_risk.policy import Policy

    Floats = npt.NDArray[np.float64]
    Labels = npt.NDArray[np.int64]

BETTER_IS_LESS = frozenset({"brier"})
SHOWN = {"auc": "roc_auc", "ks": "ks", "brier": "brier"}
"""Differences that have a better side, and the figure that each is of."""


class Moved(Document):
    """Rows whose decision would be another, and how many of them defaulted."""

    rows: int
    default_rate: float | None


class Comparison(Document):
    """Two models on rows that the candidate was not fitted on.

    ``differences`` are the candidate's figures less the champion's. ``from_to`` counts rows by the
    champion's decision and the candidate's, each by its own policy's bands; rules, which can only
    be stricter, are not applied. ``newly_approved`` are approved by the candidate alone,
    ``no_longer_approved`` by the champion alone.
    """

    rows: int
    champion: Evaluation
    candidate: Evaluation
    differences: Differences
    from_to: dict[DecisionName, dict[DecisionName, int]]
    newly_approved: Moved
    no_longer_approved: Moved

    def beyond_chance(self, name: str) -> str | None:
        """Whether the candidate is ``better`` or ``worse`` by a figure of `SHOWN`; None neither."""
        found: Interval = getattr(self.differences, name)
        if found.low <= 0.0 <= found.high:
            return None
        return "better" if (found.value < 0.0) == (name in BETTER_IS_LESS) else "worse"


def compare(
    labels: Labels,
    champion: tuple[Floats, Policy],
    candidate: tuple[Floats, Policy],
    *,
    seed: int = 0,
) -> Comparison:
    """Compare PDs of the same rows.

    Args:
        labels: shape (n,), 1 for a default and 0 otherwise.
        champion: its PDs, shape (n,), and its policy.
        candidate: the same of the candidate.
        seed: of the bootstrap.

    Raises:
        DataInvalid: see `evaluate`.
    """
    before, after = (_decisions(*side) for side in (champion, candidate))
    approve = DECISIONS.index("APPROVE")
    return Comparison(
        rows=len(labels),
        champion=evaluate(labels, *champion),
        candidate=evaluate(labels, *candidate),
        differences=performance.differences(champion[0], candidate[0], labels, seed=seed),
        from_to={
            one: {
                other: int(((before == i) & (after == j)).sum())
                for j, other in enumerate(DECISIONS)
            }
            for i, one in enumerate(DECISIONS)
        },
        newly_approved=_moved(labels, (after == approve) & (before != approve)),
        no_longer_approved=_moved(labels, (before == approve) & (after != approve)),
    )


def _decisions(pds: Floats, policy: Policy) -> npt.NDArray[np.int64]:
    """The band's own decision of each PD, as its place in `DECISIONS`."""
    of_band = np.array([DECISIONS.index(band.decision) for band in policy.bands])
    decided: npt.NDArray[np.int64] = of_band[
        np.searchsorted([band.upper for band in policy.bands[:-1]], pds, side="right")
    ]
    return decided


def _moved(labels: Labels, which: npt.NDArray[np.bool_]) -> Moved:
    rows = int(which.sum())
    return Moved(rows=rows, default_rate=float(labels[which].mean()) if rows else None)


def lines(comparison: Comparison, development: Mapping[str, Any]) -> list[str]:
    """The comparison in a few lines of Markdown: a table of figures, and what moves.

    ``development`` are the champion's figures of rows held out of its own training, as its package
    has them: where it has seen these rows, they are what the candidate is fairly held against.
    """
    c = comparison
    rows = (
        f"{c.rows:,} rows, which the candidate was not fitted on; {c.champion.defaults:,} default. "
        "Champion then: on rows held out of its own training."
    )
    told = [
        rows,
        "",
        "| | champion | candidate | difference | 95 % interval | beyond chance | champion then |",
        "|---|---:|---:|---:|---|---|---:|",
    ]
    for name, of in SHOWN.items():
        found: Interval = getattr(c.differences, name)
        then = development.get(of)
        told.append(
            f"| {name} | {getattr(c.champion, of):.4f} | {getattr(c.candidate, of):.4f} "
            f"| {found.value:+.4f} | {found.low:+.4f} to {found.high:+.4f} "
            f"| {c.beyond_chance(name) or 'no'} | {'' if then is None else f'{then:.4f}'} |"
        )
    errors = f"{c.champion.ece_equal_count:.4f} | {c.candidate.ece_equal_count:.4f}"
    moved = (
        f"Newly approved: {_said(c.newly_approved)}. "
        f"No longer approved: {_said(c.no_longer_approved)}."
    )
    told += [
        f"| calibration error | {errors} | | | | |",
        f"| approved | {_rate(c.champion)} | {_rate(c.candidate)} | | | | |",
        "",
        moved,
    ]
    return told


def _rate(evaluation: Evaluation) -> str:
    return f"{evaluation.decisions['APPROVE']:.1%}"


def _said(moved: Moved) -> str:
    rate: Any = moved.default_rate
    return f"{moved.rows:,} rows" + ("" if rate is None else f", of which {rate:.1%} default")
