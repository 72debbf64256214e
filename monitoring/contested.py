"""The report on a challenger: one page to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from credit_risk.performance import Differences
from credit_risk.policy import DECISIONS
from monitoring import charts, pages
from monitoring.drawing import Drawing, Scale

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from markupsafe import Markup

    from credit_risk.challenger import Contest, Scores

_LEFT, _NUMBERS, _TOP, _ROW = 130.0, 50.0, 4.0, 20.0


class Charts(NamedTuple):
    """What is drawn of the scores."""

    bins: Markup
    apart: Markup


def page(portfolio: str, found: Contest, made: datetime, window: str = "") -> str:
    """The report as HTML.

    Args:
        portfolio: whose.
        found: what is known.
        made: now.
        window: of which decisions, in words; none is all.
    """
    of = {
        "Newly approved": found.newly_approved,
        "No longer approved": found.no_longer_approved,
        "Newly declined": found.newly_declined,
        "No longer declined": found.no_longer_declined,
    }
    judged = found.outcomes
    figures = [
        (title, *(getattr(part, figure) for part in parts))
        for figure, title in charts.FIGURES.items()
        if None not in (parts := (judged.champion, judged.challenger, judged.differences))
        and figure in Differences.model_fields
    ]
    return pages.render(
        "challenger.html.j2",
        portfolio=portfolio,
        found=found,
        made=made,
        window=window,
        decisions=DECISIONS,
        tiles=tiles(found),
        moves=[(title, moved) for title, moved in of.items() if moved is not None],
        figures=figures,
        kinds=sorted({*found.champion_failures.kinds, *found.challenger_failures.kinds}),
        charts=None if found.scores is None else drawn(found.scores),
    )


def write(folder: Path, portfolio: str, found: Contest, made: datetime, window: str = "") -> Path:
    """Write the report into a folder, replacing one that is there whole; returns it."""
    return pages.write(folder / name(portfolio, found), page(portfolio, found, made, window))


def name(portfolio: str, found: Contest) -> str:
    """The page's file."""
    return f"{portfolio}-{found.challenger}-beside-{found.champion}.html"


def tiles(found: Contest) -> list[tuple[str, str]]:
    """Figures that sum it up: the value, and what it is."""
    told = [(f"{found.rows:,}", "applications both answered")]
    if found.agreement is not None:
        told.append((f"{found.agreement.value:.1%}", "decided the same"))
    if found.newly_approved is not None and found.no_longer_approved is not None:
        net = found.newly_approved.rows - found.no_longer_approved.rows
        share = f"{net / found.rows:+.1%}"
        told.append((share, "of applications approved, challenger less champion"))
    if found.scores is not None:
        told.append((f"{found.scores.psi:.3f}", "PSI of the scores"))
    if found.outcomes.differences is not None:
        auc = found.outcomes.differences.auc
        between = f"{auc.low:+.4f} to {auc.high:+.4f}"
        told.append((f"{auc.value:+.4f}", f"AUC, challenger less champion, {between}"))
    if found.latency is not None:
        told.append((f"{found.latency.ratio:.2f}", "times the champion's processor time"))
    if found.challenger_failures.rate is not None:
        told.append((f"{found.challenger_failures.rate.value:.2%}", "it could not answer"))
    return told


def drawn(scores: Scores) -> Charts:
    """The scores of both, drawn."""
    return Charts(_bins(scores), _apart(scores))


def _bins(scores: Scores) -> Markup:
    """How many of each one's PDs are in the tenths of the champion's."""
    drawing, wide = _rows(
        "PDs of champion and challenger",
        len(scores.bins),
        max(max(one.champion, one.challenger) for one in scores.bins),
    )
    for row, one in enumerate(scores.bins):
        y = _ROW * row + _TOP
        label = f"{100 * one.lower:.3g} to {100 * one.upper:.3g} %"
        says = f"{label}: champion {one.champion:,}, challenger {one.challenger:,}"
        drawing.text(_LEFT - 6, y + 12, label, anchor="end")
        drawing.box(_LEFT, y, wide(one.champion), 16, "expected", says=says)
        drawing.box(_LEFT, y + 4, wide(one.challenger), 8, "apart", says=says)
        end = _LEFT + wide(max(one.champion, one.challenger))
        drawing.text(end + 5, y + 12, f"{one.challenger:,}")
    return drawing.svg()


def _apart(scores: Scores) -> Markup:
    """How many PDs differ by how much."""
    steps = scores.differences
    drawing, wide = _rows("Differences between the PDs", len(steps), max(s.rows for s in steps))
    for row, one in enumerate(steps):
        y = _ROW * row + _TOP
        if one.lower is None:
            label = f"below {one.upper:+g}"
        elif one.upper is None:
            label = f"from {one.lower:+g}"
        else:
            label = f"{one.lower:+g} to {one.upper:+g}"
        drawing.text(_LEFT - 6, y + 12, label, anchor="end")
        drawing.box(_LEFT, y, wide(one.rows), 15, "apart", says=f"{label}: {one.rows:,}")
        drawing.text(_LEFT + wide(one.rows) + 5, y + 12, f"{one.rows:,}")
    return drawing.svg()


def _rows(says: str, rows: int, most: int) -> tuple[Drawing, Scale]:
    """A drawing of so many rows, and how wide a number is in it."""
    drawing = Drawing(charts.HALF, _ROW * rows + _TOP, says)
    return drawing, Scale(0, most, 0, charts.HALF - _LEFT - _NUMBERS)
