"""The plots of a report, as SVG text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from loadtests import soak
from loadtests.measurement import percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from loadtests.crosscheck import RouteCheck
    from loadtests.measurement import Floats, Samples
    from loadtests.run import Run

CLIENT = "#2456c9"
SERVER = "#c2570c"
MET = "#15803d"
MISSED = "#b91c1c"
INK = "#334155"
GRID = "#e2e8f0"
OF_THE_PAGE = {
    CLIENT: "client",
    SERVER: "server",
    MET: "met",
    MISSED: "missed",
    INK: "ink",
    GRID: "line",
}
"""What the page calls these colours, so that a plot is light or dark as the page is."""
LEVELS = (0.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
POINTS = 400
SIZE = (5.4, 3.0)

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "loadtests",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def latency(samples: Samples, checks: Sequence[RouteCheck], run: Run | None) -> str:
    """Time by percentile, log against log, so that the tail has as much room as the middle.

    The client's times as a line; the server's histogram as points, one for each bucket edge; the
    targets of ``run`` as marks, where the times are all of its requests.
    """
    with style.context(_STYLE):
        figure = Figure(figsize=SIZE)
        axes = figure.add_subplot()
        well = samples.ms[~samples.failed]
        most = 1.0
        if len(well):
            levels = _levels(len(well))
            times = percentiles(well, levels)
            axes.plot(_place(levels), times, color=CLIENT, linewidth=1.8, label="client")
            most = float(_place(levels)[-1])
        _server_points(axes, checks, most)
        if run is not None:
            for finding in run.findings:
                if finding.objective not in ("p50", "p95", "p99"):
                    continue
                place = 100.0 / (100.0 - float(finding.objective[1:]))
                colour = MET if finding.met else MISSED
                axes.plot(place, finding.target, marker="v", color=colour, markersize=7)
                axes.annotate(
                    f"{finding.objective} ≤ {finding.target:g}",
                    (place, finding.target),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    color=colour,
                    fontsize=9,
                )
        axes.set(xscale="log", yscale="log", ylabel="ms", xlabel="percentile of requests")
        axes.set_xlim(1.0, max(most, 150.0) * 1.15)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * 1.35)
        ticks = [level for level in LEVELS if 100.0 / (100.0 - level) <= max(most, 150.0)]
        axes.set_xticks([100.0 / (100.0 - level) for level in ticks], [f"{t:g}" for t in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(visible=True, linewidth=0.7)
        axes.legend(loc="lower right", fontsize=9)
        return _svg(figure)


def course(samples: Samples) -> str:
    """Requests answered and p99, second by second."""
    begin = float(samples.start.min()) if len(samples.ms) else 0.0
    second = (samples.end - begin).astype(int)
    # What follows the last whole second is less than one second's worth.
    seconds = np.arange(max(int(second.max(initial=0)), 1))
    answered = [int(((second == s) & ~samples.failed).sum()) for s in seconds]
    tail = [_p99(samples.ms[(second == s) & ~samples.failed]) for s in seconds]
    with style.context(_STYLE):
        figure = Figure(figsize=SIZE)
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.fill_between(seconds, answered, step="mid", color=CLIENT, alpha=0.18, linewidth=0)
        upper.step(seconds, answered, where="mid", color=CLIENT, linewidth=1.4)
        upper.set(title="answered, requests/s")
        lower.plot(seconds, tail, color=CLIENT, linewidth=1.4)
        lower.set(title="p99, ms", xlabel="seconds")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (upper, lower):
            axes.set_ylim(bottom=0)
            axes.margins(x=0.01)
            axes.grid(visible=True, linewidth=0.7)
        return _svg(figure)


def endurance(run: Run) -> str:
    """A soak's p99 of each minute, and the memory of all workers together."""
    measured = soak.minutes(run.samples)
    begin = float(run.samples.start.min()) if len(run.samples.ms) else 0.0
    with style.context(_STYLE):
        figure = Figure(figsize=SIZE)
        upper, lower = figure.subplots(2, 1)
        tails = [np.nan if m is None or m.p99 is None else m.p99 for m in measured]
        places = np.arange(1, len(tails) + 1)
        bars = upper.bar(places, tails, color=CLIENT, alpha=0.75, width=0.7)
        upper.bar_label(bars, fmt="%.1f", fontsize=9, color=INK, padding=2)
        upper.set(title="p99 of each minute, ms")
        upper.xaxis.set_major_locator(MaxNLocator(integer=True))
        upper.margins(y=0.2)
        lower.plot(
            [(r.at - begin) / soak.MINUTE for r in run.memory],
            [r.megabytes for r in run.memory],
            color=SERVER,
            linewidth=1.6,
        )
        lower.set(title="resident memory of all workers, MB", xlabel="minutes")
        lower.set_ylim(0, 1.2 * max((r.megabytes for r in run.memory), default=1.0))
        for axes in (upper, lower):
            axes.grid(visible=True, axis="y", linewidth=0.7)
        return _svg(figure)


def _levels(requests: int) -> Floats:
    """Percentiles evenly spaced on the axis, up to the last that one request stands for."""
    place = np.geomspace(1.0, max(requests, 2), POINTS)
    return np.asarray(100.0 - 100.0 / place, dtype=np.float64)


def _place(levels: Floats) -> Floats:
    return np.asarray(100.0 / (100.0 - levels), dtype=np.float64)


def _server_points(axes: Axes, checks: Sequence[RouteCheck], most: float) -> None:
    total = sum(check.server_requests for check in checks)
    if not total:
        return
    within: dict[float, float] = {}
    for check in checks:
        for edge in check.edges:
            share = edge.server * check.server_requests / total
            within[edge.seconds] = within.get(edge.seconds, 0.0) + share
    points = [
        (1.0 / (1.0 - share), seconds * 1e3)
        for seconds, share in within.items()
        if 0.0 < share < 1.0 and 1.0 / (1.0 - share) <= most
    ]
    axes.plot(
        [place for place, _ in points],
        [ms for _, ms in points],
        color=SERVER,
        marker="o",
        markersize=4.5,
        linewidth=0.9,
        linestyle=":",
        label="server's histogram",
    )


def _p99(ms: Floats) -> float:
    return float(percentiles(ms, [99.0])[0]) if len(ms) else float("nan")


def _svg(figure: Figure) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None}, transparent=True)
    text = drawn.getvalue()
    for colour, name in OF_THE_PAGE.items():
        text = text.replace(colour, f"var(--{name})")
    return text[text.index("<svg") :]
