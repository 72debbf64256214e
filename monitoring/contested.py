"""The report on a challenger: one page to look at, which needs no other file and no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from credit_risk.policy import DECISIONS
from monitoring.drawing import Drawing, Scale

if TYPE_CHECKING:
    from datetime import datetime

    from markupsafe import Markup

    from credit_risk.challenger import Contest, Scores

WIDTH, LEFT, BOTTOM, TOP = 520.0, 110.0, 24.0, 6.0
_ROW = 20.0
FIGURES = {
    "auc": "AUC",
    "gini": "Gini",
    "ks": "KS",
    "brier": "Brier score",
    "calibration": "Defaults over expected",
}


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
        for figure, title in FIGURES.items()
        if None not in (parts := (judged.champion, judged.challenger, judged.differences))
    ]
    return (
        _environment()
        .get_template("challenger.html.j2")
        .render(
            portfolio=portfolio,
            found=found,
            made=made,
            window=window,
            decisions=DECISIONS,
            tiles=tiles(found),
            moves=[(title, moved) for title, moved in of.items() if moved is not None],
            figures=figures,
            kinds=sorted({*found.champion_failures.kinds, *found.challenger_failures.kinds}),
            charts=None if found.scores is None else charts(found.scores),
        )
    )


def write(folder: Path, portfolio: str, found: Contest, made: datetime, window: str = "") -> Path:
    """Write the report into a folder, replacing one that is there whole; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name(portfolio, found)
    part = path.with_name(f".{path.name}.part")
    part.write_text(page(portfolio, found, made, window), encoding="utf-8")
    part.replace(path)
    return path


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
        told.append((f"{net / found.rows:+.1%}", "approved, challenger against champion"))
    if found.scores is not None:
        told.append((f"{found.scores.psi:.3f}", "PSI of the scores"))
    if found.outcomes.differences is not None:
        auc = found.outcomes.differences.auc
        told.append((f"{auc.value:+.4f}", f"AUC, {auc.low:+.4f} to {auc.high:+.4f}"))
    if found.latency is not None:
        told.append((f"{found.latency.ratio:.2f}", "times the champion's processor time"))
    if found.challenger_failures.rate is not None:
        told.append((f"{found.challenger_failures.rate.value:.2%}", "it could not answer"))
    return told


def charts(scores: Scores) -> Charts:
    """The scores of both, drawn."""
    return Charts(_bins(scores), _apart(scores))


def _bins(scores: Scores) -> Markup:
    """How many of each one's PDs are in the tenths of the champion's."""
    drawing = Drawing(WIDTH, _ROW * len(scores.bins) + BOTTOM, "PDs of champion and challenger")
    most = max(max(one.champion, one.challenger) for one in scores.bins)
    wide = Scale(0, most, 0, WIDTH - LEFT - 60)
    for row, one in enumerate(scores.bins):
        y = _ROW * row + TOP
        label = f"{100 * one.lower:.3g} to {100 * one.upper:.3g} %"
        says = f"{label}: champion {one.champion:,}, challenger {one.challenger:,}"
        drawing.text(LEFT - 6, y + 12, label, anchor="end")
        drawing.box(LEFT, y, wide(one.champion), 16, "expected", says=says)
        drawing.box(LEFT, y + 4, wide(one.challenger), 8, "apart", says=says)
        drawing.text(
            LEFT + wide(max(one.champion, one.challenger)) + 5, y + 12, f"{one.challenger:,}"
        )
    return drawing.svg()


def _apart(scores: Scores) -> Markup:
    """How many PDs differ by how much."""
    steps = scores.differences
    drawing = Drawing(WIDTH, _ROW * len(steps) + BOTTOM, "Differences between the PDs")
    wide = Scale(0, max(one.rows for one in steps), 0, WIDTH - LEFT - 60)
    for row, one in enumerate(steps):
        y = _ROW * row + TOP
        if one.lower is None:
            label = f"below {one.upper:+g}"
        elif one.upper is None:
            label = f"from {one.lower:+g}"
        else:
            label = f"{one.lower:+g} to {one.upper:+g}"
        drawing.text(LEFT - 6, y + 12, label, anchor="end")
        drawing.box(LEFT, y, wide(one.rows), 15, "apart", says=f"{label}: {one.rows:,}")
        drawing.text(LEFT + wide(one.rows) + 5, y + 12, f"{one.rows:,}")
    return drawing.svg()


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
