"""A comparison of estimators as a folder: figures as JSON, a page, and plots."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure as Drawing

from credit_risk.training import plots
from credit_risk.training.comparison import HIGHER_IS_BETTER, TITLES, cells
from credit_risk.training.evaluation import CONFIDENCE, equal_count_bins

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from credit_risk.training.comparison import Compared, Comparison

# Okabe and Ito's palette, with a marker each: in grey print the markers tell them apart.
_MARKS = {
    "logistic-regression": ("#009E73", "s"),
    "xgboost": (plots.BLUE, "o"),
    "gradient-boosting": ("#56B4E9", "v"),
    "random-forest": ("#CC79A7", "D"),
    "neural-network": (plots.VERMILION, "^"),
}
_WIDTH = 6.4
"""Inches of a plot."""


def write(compared: Compared, folder: Path) -> None:
    """Write ``comparison.json``, ``comparison.md`` and the plots into a folder.

    Raises:
        OSError: it cannot be written.
    """
    result = compared.result
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.model_dump(mode="json"), indent=2) + "\n"
    (folder / "comparison.json").write_text(text, encoding="utf-8")
    (folder / "comparison.md").write_text(page(result), encoding="utf-8")
    with style.context(["default", plots.STYLE]):
        for name, figure in (
            ("figures", _figures(result)),
            ("calibration", _calibration(compared)),
            ("cost", _cost(result)),
        ):
            (folder / f"{name}.png").write_bytes(plots.png(figure))


def page(result: Comparison) -> str:
    """The comparison in Markdown."""
    header = ("Estimator", *TITLES.values(), "Fit", "Score", "Reasons")
    rule = result.rule
    how = "drawn" if result.folds_by == "drawn" else "by time, each after the rows fitted to"
    lines = [
        f"# Estimators for {result.portfolio}, compared",
        (
            f"{result.rows:,} rows, {result.defaults:,} defaults; data SHA-256 "
            f"`{result.data_sha256}`. {result.folds} folds, {how}, the same for all."
        ),
        "\n".join(
            f"| {' | '.join(row)} |"
            for row in (
                header,
                ("---", *["---:"] * (len(header) - 1)),
                *(cells(c) for c in result.contenders),
            )
        ),
        (
            f"Means over the folds, ± half the {CONFIDENCE:.0%} interval, whose variance allows "
            "for the rows that folds share (Nadeau and Bengio 2003). Fit is of one fold, "
            "calibration included; score and reasons are of one application alone, as it would be "
            "served, medians, on the machine that compared."
        ),
        *(f"Left out: {name} ({why})." for name, why in result.left_out.items()),
        (
            f"**Chosen: {result.chosen}**: {result.because}. The rule, `choice` in "
            f"`training.yaml`: the first of {', '.join(rule.simplest_first)} whose mean "
            f"{TITLES[rule.figure]} is within {rule.margin} of its difference to the best."
        ),
        "![Each figure with its interval, by estimator](figures.png)",
        "![Observed default rate by tenth of PD, by estimator](calibration.png)",
        "![Quality against the time that reasons take](cost.png)",
    ]
    return "\n\n".join(lines) + "\n"


def _figures(result: Comparison) -> Drawing:
    names = [c.estimator for c in reversed(result.contenders)]
    by_name = {c.estimator: c for c in result.contenders}
    # One below the other: a page on a phone shows them half as wide, and names stay readable.
    drawing = Drawing(figsize=(_WIDTH, len(TITLES) * (0.7 + 0.27 * len(names)) + 0.3))
    for axes, (name, title) in zip(drawing.subplots(len(TITLES)), TITLES.items(), strict=True):
        for place, estimator in enumerate(names):
            figure = by_name[estimator].figures[name]
            colour, marker = _MARKS[estimator]
            axes.plot(
                figure.folds, [place] * len(figure.folds), "|", color=plots.QUIET, markersize=9
            )
            axes.plot((figure.low, figure.high), (place, place), color=colour, linewidth=1.8)
            axes.plot(figure.mean, place, marker=marker, color=colour, markersize=8)
        better = "higher" if HIGHER_IS_BETTER[name] else "lower"
        axes.set_title(f"{title}, {better} is better", fontsize=11)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
    drawing.supxlabel(
        f"mean with {CONFIDENCE:.0%} interval; each fold's figure is a tick", color=plots.QUIET
    )
    return drawing


def _calibration(compared: Compared) -> Drawing:
    drawing = Drawing(figsize=(_WIDTH, _WIDTH))
    axes = drawing.add_subplot(aspect="equal")
    axes.plot((0, 1), (0, 1), color=plots.QUIET, linewidth=1.2, linestyle="--", label="perfect")
    for name, pds in compared.pds.items():
        bins = equal_count_bins(pds)
        filled = np.unique(bins)
        colour, marker = _MARKS[name]
        axes.plot(
            [pds[bins == b].mean() for b in filled],
            [compared.labels[bins == b].mean() for b in filled],
            color=colour,
            marker=marker,
            markersize=6,
            linewidth=1.2,
            label=name,
            clip_on=False,
        )
    axes.set_xscale("function", functions=(plots.root, np.square))
    axes.set_yscale("function", functions=(plots.root, np.square))
    ticks = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)
    axes.set(
        xlabel="Mean PD of a tenth of the rows (square-root scale)",
        ylabel="Observed default rate (square-root scale)",
    )
    plots.percent(axes, "xy")
    axes.legend(loc="upper left")
    _titled(axes, "Calibration, each row by a model not fitted to it")
    return drawing


def _cost(result: Comparison) -> Drawing:
    drawing = Drawing(figsize=(_WIDTH, 5.6))
    axes = drawing.add_subplot()
    name = result.rule.figure
    for c in result.contenders:
        figure = c.figures[name]
        colour, marker = _MARKS[c.estimator]
        at = c.reasons_microseconds / 1_000
        axes.plot((at, at), (figure.low, figure.high), color=colour, linewidth=1.8)
        axes.plot(
            at, figure.mean, marker=marker, color=colour, markersize=9, linestyle="",
            label=c.estimator + (", chosen" if c.estimator == result.chosen else ""),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.15)
    if not HIGHER_IS_BETTER[name]:
        axes.invert_yaxis()
    axes.set(
        xlabel="Time for one application's reasons, ms (log scale)",
        ylabel=f"{TITLES[name]}, better upwards",
    )
    drawing.legend(loc="outside lower center", ncols=2)
    _titled(axes, "Quality against what reasons cost")
    return drawing


def _titled(axes: Axes, title: str) -> None:
    axes.set_title(title, pad=12.0)
