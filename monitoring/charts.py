"""Charts of what monitoring found, as SVG: what to look at first is what stands out.

Colour is never alone in saying something: what drifted is at the top, in words, or in a number.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from credit_risk.drift import MAJOR, MODERATE
from credit_risk.performance import DECILES
from credit_risk.retraining import figure
from credit_risk.stability import SCORE
from monitoring.drawing import Drawing, Scale, ticks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from credit_risk.drift import Bin, Comparison, Drift
    from credit_risk.fairness import Fairness
    from credit_risk.performance import Figures, Performance, Tier

WIDTH = 1_040
NAMES = 170
"""Pixels for names, left of what they are of."""
HALF = 400.0
"""Pixels of a chart beside which there is another one, or none on a phone's screen, where they are
hardly less: words in it stay readable."""
_LETTERS = 23
_ROW = 22
_NEVER = 0.02
"""Pixels of a share that is drawn although it is 0, so that something is there to point at."""
_NARROW = 9
"""Days narrower than that are closer together."""
_NAME = 56
"""Pixels for the name of a day or a month."""
_AXIS, _MONTH = 44.0, 64.0
"""Pixels for the names of default rates, and for a month at most."""
_PERCENT = 0.01
NEXT_TO_NOTHING = 0.01
"""A PSI below is calm even where there are so many applicants that it is not by chance."""
_COLOURS = 5
"""Of lines; as many more are dashed."""
FOUR_FIFTHS = 0.8
"""The rule of thumb of the EEOC's Uniform Guidelines: a ratio below it is looked into."""

_STEPS = (MODERATE, MAJOR, 2 * MAJOR, 4 * MAJOR)
_BETWEEN = (f"{low:g} to {high:g}" for low, high in pairwise(_STEPS))
HEAT = {
    f"heat{place}": psi
    for place, psi in enumerate((f"below {_STEPS[0]:g}", *_BETWEEN, f"{_STEPS[-1]:g} or more"))
}
"""What each colour of the heat map stands for."""
FIGURES = {
    "auc": "AUC",
    "gini": "Gini",
    "ks": "KS",
    "brier": "Brier score",
    "default_rate": "Default rate",
    "calibration": "Defaults over expected",
}


class Day(NamedTuple):
    """Decisions of a day, how many of them approved, and how far applicants were off.

    Or of a week, by the first day of it.
    """

    day: date
    rows: int
    approved: int
    drift: Drift | None


def compared(drift: Drift) -> list[Comparison]:
    """The score, then the fields, the furthest off first."""
    fields = sorted(drift.fields, key=lambda field: -field.psi)
    return [*([] if drift.score is None else [drift.score]), *fields]


def heat_map(
    days: Sequence[Day], order: Sequence[str], titles: Mapping[str, str], *, weekly: bool = False
) -> Markup:
    """PSI by field and day, or week, under the number of decisions of each.

    Names, and beside them the days, of which a narrow screen shows the last ones first.

    Args:
        days: in order; days without decisions are left out of them, and empty here.
        order: of the fields, from the top.
        titles: of fields, for people.
        weekly: each of ``days`` is a week.
    """
    first, last = days[0].day, days[-1].day
    each, unit, of_each = (7, 1, "week") if weekly else (1, 7, "day")
    number = (last - first).days // each + 1
    step = min((WIDTH - NAMES) / number, 34.0)
    gap = 1.0 if step < _NARROW else 2.0
    top, bottom = 58.0, 58.0 + _ROW * len(order)
    dated = range(0, number, _every(step, unit))
    width = max(step * number, step * dated[-1] + _NAME)
    named = Drawing(NAMES, bottom + 24, "Fields")
    drawing = Drawing(width, bottom + 24, f"Population stability index by field and {of_each}")
    tall = Scale(0, max(day.rows for day in days), 0, top - 14)
    named.text(0, top - 10, f"decisions a {of_each}", "faint")
    for day in days:
        x = step * ((day.day - first).days // each)
        height = tall(day.rows)
        approved = f", {day.approved / day.rows:.0%} approved" if day.rows else ""
        says = f"{_when(day, weekly=weekly)}: {day.rows:,} decisions{approved}"
        drawing.box(x, top - 6 - height, step - gap, height, "volume", says=says)
    for row, name in enumerate(order):
        named.text(0, top + _ROW * row + 15, titles.get(name, name), most=_LETTERS)
    for day in days:
        if day.drift is None:
            continue
        x = step * ((day.day - first).days // each)
        when = _when(day, weekly=weekly)
        found = {comparison.field: comparison for comparison in compared(day.drift)}
        for row, name in enumerate(order):
            place = (x, top + _ROW * row)
            if name in found:
                _cell(drawing, place, step - gap, when, found[name])
            else:
                says = f"{when}, {name}: {day.drift.rows:,} applicants, too-few"
                drawing.box(*place, step - gap, _ROW - 2, "few", says=says)
    for place_of in dated:
        day_of = first + timedelta(days=place_of * each)
        drawing.text(step * place_of, bottom + 15, f"{day_of:%d %b}".lstrip("0"), "faint")
    beside = Markup('<div class="heat">{}<div class="wide newest">{}</div></div>')
    return beside.format(named.svg(), drawing.svg())


def _when(day: Day, *, weekly: bool) -> str:
    return f"week from {day.day}" if weekly else f"{day.day}"


def _every(step: float, unit: int) -> int:
    """Every how manieth of things so many pixels apart is named: each, or whole units of them."""
    return 1 if step >= _NAME else unit * math.ceil(_NAME / (step * unit))


def _cell(
    drawing: Drawing, place: tuple[float, float], width: float, when: str, found: Comparison
) -> None:
    x, y = place
    says = f"{when}, {found.field}: PSI {found.psi:.3f} of {found.rows:,}, {found.verdict}"
    if found.verdict == "too-few":
        drawing.box(x, y, width, _ROW - 2, "few", says=says)
        return
    by_chance = found.critical is not None and found.psi <= found.critical
    if by_chance or found.psi < NEXT_TO_NOTHING:
        drawing.box(x, y, width, _ROW - 2, "cell calm", says=says)
        return
    drawing.box(x, y, width, _ROW - 2, f"cell {heat(found.psi)}", says=says)


def heat(psi: float) -> str:
    """The colour of a PSI, of those of `HEAT`: the lines of moderate and major drift part them."""
    return f"heat{bisect_right(_STEPS, psi)}"


def distribution(found: Comparison) -> Markup:
    """Shares of rows in each bin: now, and what is more or less than in the reference."""
    bins = [b for b in found.bins if b.share > 0 or b.reference > 0]
    width, names, numbers = 330.0, 126.0, 44.0
    drawing = Drawing(width, 17.0 * len(bins) + 4, f"Distribution of {found.field}")
    highest = max((max(b.share, b.reference) for b in bins), default=1.0)
    wide = Scale(0, highest, 0, width - names - numbers)
    for row, one in enumerate(bins):
        y = 17.0 * row + 2
        label = _label(one, as_shares=found.field == SCORE)
        says = f"{label}: {one.share:.1%} now, {one.reference:.1%} in the reference"
        drawing.text(names - 6, y + 11, label, anchor="end", most=18)
        both = wide(min(one.share, one.reference))
        drawing.box(names, y, max(both, _NEVER), 13, "both", says=says)
        beyond = wide(max(one.share, one.reference)) - both
        kind = "more" if one.share > one.reference else "less"
        drawing.box(names + both, y, beyond, 13, kind, says=says)
        x = names + both + beyond + 4
        drawing.text(x, y + 11, _percent(one.share))
    return drawing.svg()


def _label(one: Bin, *, as_shares: bool) -> str:
    """Of a bin, numbers to three digits; PDs in percent."""
    low, high = (
        None if end is None else f"{100 * end:.2g} %" if as_shares else figure(end)
        for end in (one.lower, one.upper)
    )
    if low is None and high is None:
        return one.label
    if low is None:
        return f"up to {high}"
    return f"above {low}" if high is None else f"{low} to {high}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= _PERCENT else f"{share:.1%}"


def figures(found: Performance) -> Markup:
    """Each figure with its interval, over the interval that true PDs would have shown."""
    shown, expected = found.figures, found.expected
    drawing = Drawing(HALF, 46 * len(FIGURES), "Figures of performance with their intervals")
    end = HALF - 60
    for row, (name, title) in enumerate(FIGURES.items()):
        y = 46.0 * row + 30
        drawing.text(0, y - 14, title)
        ranges = [getattr(part, name) for part in (shown, expected) if part is not None]
        if not ranges:
            continue
        low, high = min(r.low for r in ranges), max(r.high for r in ranges)
        pad = 0.25 * ((high - low) or abs(high) or 1.0)
        place = Scale(low - pad, high + pad, 0, end)
        drawing.line(0, y, end, y, "axis")
        if expected is not None:
            of = getattr(expected, name)
            says = f"expected {of.value:.4f}, {of.low:.4f} to {of.high:.4f}"
            drawing.box(
                place(of.low), y - 8, place(of.high) - place(of.low), 16, "expected", says=says
            )
        if shown is not None:
            of = getattr(shown, name)
            drawing.line(place(of.low), y, place(of.high), y, "whisker")
            says = f"{of.value:.4f}, {of.low:.4f} to {of.high:.4f}"
            drawing.dot(place(of.value), y, 5, "found", says=says)
            drawing.text(end + 10, y + 4, f"{of.value:.3f}", "number")
    return drawing.svg()


def calibration(tiers: Sequence[Tier], name: str) -> Markup:
    """Default rates of tiers with their intervals, beside the mean PD of each."""
    return _rates(
        [(t.name, t.rows, t.mean_pd, t.default_rate, t.low, t.high, True) for t in tiers],
        f"Default rates by {name}",
        HALF,
    )


def vintages(found: Performance) -> Markup:
    """Default rates by month of decision; those whose time is not over are pale."""
    return _rates(
        [
            (v.month, v.rows, v.mean_pd, v.default_rate, v.low, v.high, v.mature)
            for v in found.vintages
        ],
        "Default rates by month of decision",
        min(WIDTH, _AXIS + _MONTH * len(found.vintages)),
    )


def _rates(
    groups: Sequence[tuple[str, int, float | None, float | None, float | None, float | None, bool]],
    says: str,
    width: float,
) -> Markup:
    left, top, bottom = _AXIS, 10.0, 210.0
    drawing = Drawing(width, bottom + 26, says)
    highest = max([high for *_, high, _ in groups if high is not None] or [1.0])
    highest = max([highest, *(pd for _, _, pd, *_ in groups if pd is not None)])
    marks = ticks(highest)
    place = Scale(0, marks[-1], bottom, top)
    for mark in marks:
        drawing.line(left, place(mark), width, place(mark), "grid")
        drawing.text(
            left - 6,
            place(mark) + 4,
            f"{100 * mark:.3g} %",
            "faint",
            anchor="end",
        )
    step = (width - left) / max(len(groups), 1)
    every = _every(step, 1) if len(groups) > DECILES else 1
    for number, (name, rows, pd, rate, low, high, sure) in enumerate(groups):
        middle = left + step * (number + 0.5)
        about = f"{name}: {rows:,} outcomes"
        if pd is not None and rate is not None and low is not None and high is not None:
            about += f", {rate:.2%} defaulted ({low:.2%} to {high:.2%}), {pd:.2%} expected"
            half = min(step * 0.32, 18.0)
            drawing.box(
                middle - half, place(pd), 2 * half, bottom - place(pd), "expected", says=about
            )
            faint = "" if sure else " unsure"
            drawing.line(middle, place(low), middle, place(high), f"whisker{faint}")
            drawing.dot(middle, place(rate), 5, f"found{faint}", says=about)
        if number % every == 0:
            drawing.text(middle, bottom + 17, name, "faint", anchor="middle")
    return drawing.svg()


def ratios(found: Fairness) -> Markup:
    """Approval rates of groups over the reference's, with their intervals."""
    groups = [group for group in found.groups if group.ratio is not None]
    left, right = 140.0, HALF - 50
    drawing = Drawing(HALF, 30.0 * len(groups) + 34, f"Approval-rate ratios by {found.attribute}")
    ends = [ratio.high for group in groups if (ratio := group.ratio) is not None]
    high = max([1.2, *ends])
    low = min([0.6, *(ratio.low for group in groups if (ratio := group.ratio) is not None)])
    place = Scale(low, high, left, right)
    bottom = 30.0 * len(groups) + 8
    drawing.box(place(low), 2, place(FOUR_FIFTHS) - place(low), bottom - 2, "concern")
    drawing.line(place(1.0), 2, place(1.0), bottom, "axis")
    for mark in (FOUR_FIFTHS, 1.0):
        drawing.text(place(mark), bottom + 15, f"{mark:g}", "faint", anchor="middle")
    for row, group in enumerate(groups):
        y = 30.0 * row + 20
        ratio = group.ratio
        drawing.text(0, y + 4, group.name, most=18)
        if ratio is not None:
            says = f"{group.name}: {ratio.value:.3f}, {ratio.low:.3f} to {ratio.high:.3f}"
            drawing.line(place(ratio.low), y, place(ratio.high), y, "whisker")
            drawing.dot(place(ratio.value), y, 5, "found", says=says)
            drawing.text(right + 10, y + 4, f"{ratio.value:.2f}", "number")
    return drawing.svg()


def cut_offs(found: Fairness) -> Markup:
    """Approval-rate ratios that other cut-offs would have, by the share that they approve."""
    left, top, bottom = 34.0, 16.0, 190.0
    drawing = Drawing(HALF, bottom + 40, f"Ratios at other cut-offs by {found.attribute}")
    of_group = {
        name: [
            (one.approval_rate, ratio.value)
            for one in found.cut_offs
            if (ratio := one.ratios.get(name)) is not None
        ]
        for name in lines(found)
    }
    values = [value for line in of_group.values() for _, value in line]
    across = Scale(0, 1, left, HALF - 20)
    place = Scale(0, max([1.25, *values]), bottom, top)
    drawing.box(left, place(FOUR_FIFTHS), across(1) - left, bottom - place(FOUR_FIFTHS), "concern")
    for mark in (0.0, FOUR_FIFTHS, 1.0):
        drawing.line(left, place(mark), across(1), place(mark), "grid")
        drawing.text(left - 6, place(mark) + 4, f"{mark:g}", "faint", anchor="end")
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawing.text(across(mark), bottom + 16, f"{mark:.0%}", "faint", anchor="middle")
    drawing.text(across(0.5), bottom + 33, "approved at the cut-off", "faint", anchor="middle")
    for current in (one.approval_rate for one in found.cut_offs if one.is_current):
        drawing.line(across(current), top, across(current), bottom, "current")
        drawing.text(across(current), top - 5, "now", "faint", anchor="middle")
    for name, kind in lines(found).items():
        points = [(across(x), place(y)) for x, y in of_group[name]]
        if points:
            drawing.curve(points, kind, says=name)
    return drawing.svg()


def lines(found: Fairness) -> dict[str, str]:
    """The groups that have a line in `cut_offs`, and how each looks."""
    names = (group.name for group in found.groups if group.ratio is not None)
    return {
        name: f"series s{number % _COLOURS}{' again' if number // _COLOURS % 2 else ''}"
        for number, name in enumerate(names)
    }


def estimated(expected: Figures) -> list[tuple[str, str, str]]:
    """Each figure that is expected: its name, its value, and the bounds of it."""
    found = ((title, getattr(expected, name)) for name, title in FIGURES.items())
    return [(title, f"{f.value:.3f}", f"{f.low:.3f} to {f.high:.3f}") for title, f in found]
