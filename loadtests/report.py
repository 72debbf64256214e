"""What a load test found: a table for the terminal, JSON for programs, one HTML page for people."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from loadtests import charts, soak, verdict
from loadtests.measurement import measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from loadtests.crosscheck import RouteCheck
    from loadtests.measurement import Measured
    from loadtests.objectives import Scenario
    from loadtests.run import Run
    from loadtests.server import Server
    from loadtests.verdict import Finding

GENERATOR_BUSY = 0.9
"""Share of a core above which the load generator's own waiting is in the times."""

SHORT = 0.9
"""Share of the time asked for below which a run is short."""

OTHERS_BUSY = 0.2
"""Cores used by other programs above which the figures are partly theirs."""

_HOW = (
    "Each user sends its next request as soon as it has the answer to the one before; generator "
    "and server share a machine. Percentiles are nearest-rank, of requests answered well; the "
    "error rate is of all. Applicants are drawn from the package's reference profile; none is a "
    "real person."
)
_STYLESHEET = Path(__file__).parent / "report.css"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one load test found, and where. ``workers`` is None of a server not ours."""

    began: datetime
    machine: str
    command: str
    server: Server
    workers: int | None
    runs: tuple[Run, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all runs."""
        return tuple(finding for run in self.runs for finding in run.findings)

    @property
    def exit_code(self) -> int:
        """See `verdict.exit_code`."""
        return verdict.exit_code(self.findings)


def table(report: Report) -> Table:
    """Target and measured, one line for each objective."""
    lines = Table("scenario", "objective", "target", "measured", "verdict", box=None)
    for run in report.runs:
        for i, finding in enumerate(run.findings):
            colour = "green" if finding.met else "bold red"
            lines.add_row(
                run.name if i == 0 else "",
                finding.objective,
                f"{finding.bound} {_figure(finding.target, finding.unit)}",
                _figure(finding.measured, finding.unit),
                f"[{colour}]{finding.word}[/]",
                end_section=i == len(run.findings) - 1,
            )
    return lines


def warnings(run: Run) -> list[str]:
    """Why a run's figures should be read with care."""
    found = []
    if not run.as_stated:
        found.append(f"run with {_load(run.scenario)}; the objectives are for {_load(run.stated)}")
    if run.measured and run.measured.seconds < SHORT * run.scenario.duration:
        found.append(
            f"requests were made for {run.measured.seconds:.1f} s of {run.scenario.duration}"
        )
    if run.samples.generator_share > GENERATOR_BUSY:
        found.append(
            f"the load generator used {run.samples.generator_share:.0%} of a core: the times are "
            f"also its own"
        )
    if run.others is not None and run.others > OTHERS_BUSY:
        found.append(
            f"other programs used {run.others:.1f} cores meanwhile; the objectives are for a "
            f"machine alone"
        )
    found += [
        f"{check.route}: the server counted {check.server_requests:,} requests, the client "
        f"{check.client_requests:,}: some were lost, or somebody else asked too"
        for check in run.checks
        if not check.agrees
    ]
    return found


def document(report: Report) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "began": report.began.isoformat(timespec="seconds"),
        "machine": report.machine,
        "command": report.command,
        "server": {
            "url": report.server.url,
            "portfolio": report.server.portfolio,
            "model_version": report.server.version,
            "workers": report.workers,
        },
        "met": report.exit_code == verdict.MET,
        "runs": [_run_document(run) for run in report.runs],
    }


def page(report: Report) -> str:
    """The report as one HTML page that needs nothing else."""
    met = report.exit_code == verdict.MET
    missed = sum(not finding.met for finding in report.findings)
    verdict_text = "all objectives met" if met else f"{missed} of {len(report.findings)} missed"
    workers = "" if report.workers is None else f", {report.workers} workers"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Load test: {verdict_text}</title><style>
{_STYLESHEET.read_text(encoding="utf-8")}</style></head><body><main>
<header><div><h1>Load test of the credit-risk decision server</h1>
<p>{escape(report.server.portfolio)}, model {escape(report.server.version)}{workers}</p>
<p class="soft small">{report.began:%Y-%m-%d %H:%M} UTC &middot; {escape(report.machine)}</p>
<p class="soft small"><code>{escape(report.command)}</code></p></div>
<div class="verdict {"met" if met else "missed"}">{verdict_text}</div></header>
<section><div class="head"><h2>Target and measured</h2>
<span class="soft small">times in ms as the client sees them, raw</span></div>
{_overview(report.runs)}</section>
{"".join(_section(run) for run in report.runs)}
<p class="soft small">{escape(_HOW)}</p>
</main></body></html>
"""


def _overview(runs: Sequence[Run]) -> str:
    names = ("p50", "p95", "p99", "error_rate", "throughput")
    head = "".join(
        f'<th class="number">{escape(n)}</th>'
        for n in ("p50", "p95", "p99", "errors", "requests/s")
    )
    rows = ""
    for run in runs:
        found = {finding.objective: finding for finding in run.findings}
        cells = "".join(_cell(found[name]) for name in names)
        rows += (
            f'<tr><td><a href="#{run.name}">{run.name}</a><br><span class="soft small">'
            f"{escape(run.scenario.title)}; {_load(run.scenario)}</span></td>{cells}</tr>"
        )
    return _wide(f'<table class="overview"><tr><th>scenario</th>{head}</tr>{rows}</table>')


def _cell(finding: Finding) -> str:
    bound = {"at most": "≤", "less than": "<", "at least": "≥"}[finding.bound]
    unit = finding.unit if finding.unit == "share" else ""
    return (
        f'<td class="number {"met" if finding.met else "missed"}">'
        f"<b>{_figure(finding.measured, unit)}</b>"
        f"<small>{bound} {_figure(finding.target, unit)} &nbsp;{_tag(finding)}</small></td>"
    )


def _tag(finding: Finding) -> str:
    return f'<span class="tag {"met" if finding.met else "missed"}">{finding.word}</span>'


def _section(run: Run) -> str:
    notes = "".join(f'<p class="warning">{escape(text)}</p>' for text in warnings(run))
    pooled = charts.latency(run.samples, run.checks, run)
    course = charts.endurance(run) if run.name == "soak" else charts.course(run.samples)
    plots = f"<h3>Latency, and the run</h3>{_plots(pooled, course)}"
    if len(run.checks) > 1:
        plots += "".join(
            f"<h3>{escape(check.route)}</h3>{_facts(_figures(measure(run.samples.of(check.route))))}"
            + _plots(
                charts.latency(run.samples.of(check.route), [check], None),
                charts.course(run.samples.of(check.route)),
            )
            for check in run.checks
        )
    return (
        f'<section id="{run.name}"><div class="head"><h2>{run.name}: {escape(run.scenario.title)}'
        f'</h2><span class="soft small">{_load(run.scenario)}; '
        f'<a href="{run.locust_page.name}">Locust\'s own page</a></span></div>{notes}'
        f"{_facts(_run_facts(run))}{_soak_table(run)}{plots}"
        f"<h3>Cross-check: the server's own histogram against the client</h3>"
        f"{''.join(_check_table(check) for check in run.checks)}</section>"
    )


def _plots(*drawn: str) -> str:
    return f'<div class="plots">{"".join(_wide(one) for one in drawn)}</div>'


def _wide(shown: str) -> str:
    """What scrolls in its own box where it is wider than the page."""
    return f'<div class="wide">{shown}</div>'


def _run_facts(run: Run) -> list[tuple[str, str]]:
    # Its percentiles are in the overview.
    facts = [fact for fact in _figures(run.measured) if not fact[1].startswith("p")]
    if run.measured is not None and run.scenario.rows > 1 and len(run.checks) == 1:
        rows = run.measured.throughput * run.scenario.rows
        facts.append((f"{rows:,.0f}", "applications/s"))
    facts.append((f"{run.samples.generator_share:.0%}", "of a core for the generator"))
    if run.memory:
        most = max(max(r.workers.values(), default=0) for r in run.memory) / soak.MEGABYTE
        facts.append((f"{most:.0f} MB", "resident, largest worker"))
    return facts


def _figures(measured: Measured | None) -> list[tuple[str, str]]:
    if measured is None:
        return [("none", "requests")]
    return [
        (f"{measured.requests:,}", "requests"),
        (f"{measured.failures:,}", "failed"),
        (_figure(measured.throughput, ""), "answered/s"),
        (_figure(measured.p50, "ms"), "p50"),
        (_figure(measured.p95, "ms"), "p95"),
        (_figure(measured.p99, "ms"), "p99"),
        (_figure(measured.longest, "ms"), "longest"),
    ]


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    shown = "".join(f"<div><b>{escape(v)}</b><span>{escape(n)}</span></div>" for v, n in facts)
    return f'<div class="facts">{shown}</div>'


def _soak_table(run: Run) -> str:
    if run.name != "soak":
        return ""
    rows = "".join(
        f"<tr><td>{escape(finding.objective)}</td>"
        f"<td>{finding.bound} {_figure(finding.target, finding.unit)}</td>"
        f"<td><b>{_figure(finding.measured, finding.unit)}</b></td>"
        f"<td>{_tag(finding)}</td></tr>"
        for finding in run.findings
        if finding.objective not in verdict.UNITS
    )
    head = "<tr><th>endurance</th><th>target</th><th>measured</th><th></th></tr>"
    return _wide(f"<table>{head}{rows}</table>")


def _check_table(check: RouteCheck) -> str:
    edges = [edge for edge in check.edges if max(edge.server, edge.client) > 0.0]
    full = next((i for i, e in enumerate(edges) if min(e.server, e.client) == 1.0), len(edges))
    shown = edges[: full + 1]
    head = "".join(f'<th class="number">≤ {edge.seconds * 1e3:g}</th>' for edge in shown)
    lines = "".join(
        f"<tr><td>{side}</td>"
        + "".join(f'<td class="number">{getattr(edge, side):.1%}</td>' for edge in shown)
        + f'<td class="number">{requests:,}</td></tr>'
        for side, requests in (
            ("server", check.server_requests),
            ("client", check.client_requests),
        )
    )
    same = "met" if check.agrees else "missed"
    words = "same count" if check.agrees else "counts differ"
    widest = check.widest
    gap = (
        ""
        if widest is None
        else f"; shares differ most at {widest.seconds * 1e3:g} ms, by "
        f"{abs(widest.server - widest.client) * 100:.1f} points"
    )
    return (
        f'<p class="small"><code>{escape(check.route)}</code> '
        f'<span class="tag {same}">{words}</span><span class="soft">{gap}</span></p>'
    ) + _wide(
        f'<table class="matrix"><tr><th>ms</th>{head}<th class="number">requests</th></tr>'
        f"{lines}</table>"
    )


def _load(scenario: Scenario) -> str:
    return f"{scenario.users} user{'s' if scenario.users > 1 else ''}, {scenario.duration} s"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "nothing"
    if unit == "share":
        return f"{value * 100:.3g} %"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
    return f"{text} {unit}".strip() if unit != "ratio" else text


def _run_document(run: Run) -> dict[str, Any]:
    result: dict[str, Any] = {
        "scenario": run.name,
        "title": run.scenario.title,
        "users": run.scenario.users,
        "duration_seconds": run.scenario.duration,
        "rows": run.scenario.rows,
        "generator_share": run.samples.generator_share,
        "others_cores": run.others,
        "warnings": warnings(run),
        "measured": None if run.measured is None else _measured_document(run.measured),
        "objectives": [
            {
                "objective": finding.objective,
                "unit": finding.unit,
                "bound": finding.bound,
                "target": finding.target,
                "measured": finding.measured,
                "met": finding.met,
            }
            for finding in run.findings
        ],
        "cross_check": [
            {
                "route": check.route,
                "server_requests": check.server_requests,
                "client_requests": check.client_requests,
                "agrees": check.agrees,
                "within": [
                    {"seconds": edge.seconds, "server": edge.server, "client": edge.client}
                    for edge in check.edges
                ],
            }
            for check in run.checks
        ],
    }
    if run.name == "soak":
        result["minutes"] = [
            None if measured is None else _measured_document(measured)
            for measured in soak.minutes(run.samples)
        ]
        result["memory_mb"] = [
            {"time": round(r.at, 3), "workers": {str(p): b / 1e6 for p, b in r.workers.items()}}
            for r in run.memory
        ]
    return result


def _measured_document(measured: Measured) -> dict[str, Any]:
    return {
        "requests": measured.requests,
        "failures": measured.failures,
        "seconds": measured.seconds,
        "p50": measured.p50,
        "p95": measured.p95,
        "p99": measured.p99,
        "longest": measured.longest,
        "error_rate": measured.error_rate,
        "throughput": measured.throughput,
    }
