"""The report: one page about one model package, to look at.

On top, in words, whether somebody has to do something. Then what that rests on, drawn: drift day by
day, who applies against the reference, outcomes against PDs, groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from monitoring import charts, contested, pages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from markupsafe import Markup

    from credit_risk.challenger import Contest
    from credit_risk.drift import Drift
    from credit_risk.fairness import Fairness
    from credit_risk.performance import Figures, Performance
    from credit_risk.retraining import Check
    from monitoring.charts import Day
    from monitoring.multivariate import Multivariate

INDEX = "index.html"
HEADLINES = {
    "NOT_NEEDED": "Nothing speaks for retraining",
    "WATCH": "Keep an eye on it",
    "RECOMMENDED": "Consider retraining",
}


@dataclass(frozen=True, slots=True)
class Monitored:
    """What monitoring knows of a package.

    ``days`` are those on which it decided, in order; ``window`` is the drift of the last ones,
    together, which were ``window_days``, and ``together`` that of fields with each other.
    ``contest`` is the challenger beside it, if there is one; ``fault`` is why some of all this is
    not known, if records are not as they were written.
    ``estimate`` is what PDs let expect of the applicants of that window. Names are for people:
    ``titles`` of fields. ``weeks`` are the days by weeks, where most days have too few applicants
    to be compared, else empty.
    """

    portfolio: str
    version: str
    decides: bool
    made: datetime
    titles: Mapping[str, str]
    days: Sequence[Day]
    window_days: int
    window: Drift | None
    together: Multivariate
    estimate: Figures | None
    performance: Performance | None
    fairness: Sequence[Fairness]
    check: Check
    contest: Contest | None = None
    fault: str | None = None
    weeks: Sequence[Day] = ()

    @property
    def name(self) -> str:
        """The page's file."""
        return f"{self.portfolio}-{self.version}.html"


def page(known: Monitored) -> str:
    """The report as HTML."""
    return pages.render(
        "report.html.j2",
        known=known,
        headline=HEADLINES[known.check.verdict],
        tiles=_tiles(known),
        heat=_heat(known),
        fields=[] if known.window is None else charts.compared(known.window),
        charts=charts,
    )


def write(folder: Path, found: Sequence[Monitored]) -> Path:
    """Write the reports into a folder, with a page that leads to each; returns that one.

    Each is replaced whole: who reads one meanwhile has the old one or the new one.
    """
    rows = []
    for known in found:
        pages.write(folder / known.name, page(known))
        beside = None
        if known.contest is not None:
            beside = contested.write(folder, known.portfolio, known.contest, known.made).name
        rows.append((known, beside))
    index = pages.render("reports.html.j2", rows=rows, headlines=HEADLINES)
    return pages.write(folder / INDEX, index)


def _heat(known: Monitored) -> Markup | None:
    periods = known.weeks or known.days
    compared = [period for period in periods if period.drift is not None]
    if not compared:
        return None
    # Of a few applicants there are no fields.
    drifts = [known.window, *(period.drift for period in reversed(compared))]
    order = next((charts.compared(drift) for drift in drifts if drift and drift.fields), [])
    names = [found.field for found in order]
    return charts.heat_map(periods, names, known.titles, weekly=bool(known.weeks))


def _tiles(known: Monitored) -> list[tuple[str, str, str]]:
    """Figures that sum it up: the value, what it is, and how it is meant."""
    since = known.made.date() - timedelta(days=known.window_days - 1)
    days = [day for day in known.days if day.day >= since]
    rows, approved = sum(day.rows for day in days), sum(day.approved for day in days)
    tiles = [(f"{rows:,}", f"decisions in the last {known.window_days} days", "")]
    if rows:
        tiles.append((f"{approved / rows:.0%}", "approved by the server", ""))
    if known.window is not None and known.window.fields:
        if known.window.score is not None:
            score = known.window.score
            tiles.append((f"{score.psi:.3f}", "PSI of the score", score.verdict))
        number, of = len(known.window.drifted), len(charts.compared(known.window))
        tiles.append((str(number), f"of {of} drifted", known.window.verdict))
    figures = None if known.performance is None else known.performance.figures
    if figures is not None:
        auc, ratio = figures.auc, figures.calibration
        tiles.append((f"{auc.value:.3f}", f"AUC of outcomes, {auc.low:.3f} to {auc.high:.3f}", ""))
        tiles.append((f"{ratio.value:.2f}", "defaults for each expected", ""))
    elif known.estimate is not None:
        auc = known.estimate.auc
        tiles.append((f"{auc.value:.3f}", "AUC that PDs let expect", ""))
    return tiles
