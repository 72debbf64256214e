"""What a run found: Markdown for people, JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from benchmarks.peer import LoadName
    from benchmarks.run import Measured, Reasons, Starts
    from loadtests.verdict import Finding

MEGABYTE = 1e6
NOTHING = "-"
LEVELS = (1, 8, 32)
BATCH_LEVELS = (1, 2)


@dataclass(frozen=True, slots=True)
class Report:
    """One run; ``seconds`` is how long each load lasted, ``batch_rows`` the rows of a batch."""

    began: datetime
    machine: str
    command: str
    rounds: int
    seconds: int
    batch_rows: int
    measured: Sequence[Measured]
    findings: Sequence[Finding]
    starts: Starts | None
    reasons: Reasons | None


def table(findings: Iterable[Finding]) -> Table:
    """Targets with what was measured, each of which was, to print."""
    drawn = Table("target", "", "measured", "")
    for finding in findings:
        bound = f"{finding.bound} {finding.target:g} {finding.unit}"
        drawn.add_row(finding.objective, bound, f"{finding.measured:.3g}", finding.word)
    return drawn


def markdown(report: Report) -> str:
    """The tables, with date, machine and command."""
    rounds = "one round" if report.rounds == 1 else f"{report.rounds} rounds"
    how = (
        f"Measured {report.began:%Y-%m-%d} with `{report.command}` on {report.machine}: each "
        "server with one worker on one core, wrk on the other; medians of "
        f"{rounds} of {report.seconds} s. Other programs used {_others(report):.2f} cores "
        "meanwhile."
    )
    parts = [
        how,
        _singles(report),
        _batches(report),
        _notes(report),
        _verdicts(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def document(report: Report) -> dict[str, Any]:
    """Everything measured, every round of it."""
    return {
        "began": report.began.isoformat(timespec="seconds"),
        "machine": report.machine,
        "command": report.command,
        "rounds": report.rounds,
        "seconds": report.seconds,
        "cores_used_by_others": _others(report),
        "servers": {
            one.peer.name: {
                "title": one.peer.title,
                "failure": one.failure,
                "start_seconds": one.starts,
                "memory_bytes": one.together,
                "largest_process_bytes": one.largest,
                "loads": [
                    {"load": load, "connections": connections, "rounds": list(map(asdict, rounds))}
                    for (load, connections), rounds in one.times.items()
                ],
            }
            for one in report.measured
        },
        "starts": None if report.starts is None else asdict(report.starts),
        "reasons": None if report.reasons is None else asdict(report.reasons),
        "targets": [{**asdict(finding), "met": finding.met} for finding in report.findings],
    }


def _singles(report: Report) -> str:
    rows = [
        [
            one.peer.title,
            *(_level(one, "predict", connections) for connections in LEVELS),
            NOTHING if not one.together else f"{median(one.together) / MEGABYTE:,.0f}",
        ]
        for one in _ranked(report)
    ]
    heads = [f"{c} connection{'s' if c > 1 else ''}" for c in LEVELS]
    return (
        "One application a request: requests/s (p50 / p99 in ms), and memory of all processes "
        "in MB.\n\n" + _table(["server", *heads, "memory"], rows)
    )


def _batches(report: Report) -> str:
    rows = [
        [one.peer.title, *(_level(one, "batch", c, report.batch_rows) for c in BATCH_LEVELS)]
        for one in _ranked(report)
        if one.peer.description.batch_path is not None
    ]
    if not rows:
        return ""
    heads = [f"{c} connection{'s' if c > 1 else ''}" for c in BATCH_LEVELS]
    return f"{report.batch_rows} applications a request: rows/s (p50 / p99 in ms).\n\n" + _table(
        ["server", *heads], rows
    )


def _notes(report: Report) -> str:
    notes = [
        f"- {one.peer.title} was not measured: {one.failure.splitlines()[0]}"
        for one in report.measured
        if one.failure is not None
    ]
    declined = [
        f"{one.peer.title} {rate:,.0f}"
        for one in report.measured
        if (rate := one.rate("declined", LEVELS[-1])) is not None
    ]
    if declined:
        notes.append(f"- Applicants who are all declined, requests/s: {'; '.join(declined)}.")
    if report.reasons is not None:
        found = report.reasons
        notes.append(
            f"- Exact reasons of one row: {found.ours_us / 1e3:.3f} ms against "
            f"{found.reference_rows:,} reference rows; `shap.TreeExplainer` "
            f"{found.shap_us / 1e3:.1f} ms against {found.background_rows}."
        )
    if report.starts is not None:
        notes.append(
            f"- Start to ready: {report.starts.later:.1f} s; with an empty state directory "
            f"{report.starts.first:.1f} s."
        )
    return "\n".join(notes)


def _verdicts(report: Report) -> str:
    rows = [
        [f.objective, f"{f.bound} {f.target:.3g} {f.unit}", _figure(f.measured), f.word]
        for f in report.findings
    ]
    return _table(["target", "", "measured", ""], rows) if rows else ""


def _ranked(report: Report) -> list[Measured]:
    """This server and what it is made of first, then the quickest."""
    return sorted(
        report.measured,
        key=lambda one: (
            one.peer.description.package is not None,
            -(one.rate("predict", LEVELS[-1]) or 0.0) if one.peer.description.package else 0.0,
        ),
    )


def _level(one: Measured, load: LoadName, connections: int, rows: int = 1) -> str:
    rate, p50 = one.rate(load, connections), one.p50(load, connections)
    p99 = one.p99(load, connections)
    if rate is None or p50 is None or p99 is None:
        return NOTHING
    return f"{rate * rows:,.0f} ({_figure(p50)} / {_figure(p99)})"


def _figure(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "not measured"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _others(report: Report) -> float:
    shares = [share for one in report.measured for share in one.others]
    return mean(shares) if shares else 0.0


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
