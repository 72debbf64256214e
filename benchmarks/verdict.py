"""What this server is to reach beside the others, and whether it did.

Ratios of medians of one run, each server with one worker on one core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.peer import LoadName
    from benchmarks.run import Measured, Reasons, Starts

OURS = "this-server"
WITHOUT_REASONS = "this-server-without-reasons"
WITHOUT_RECORDS = "this-server-without-records"
WITHOUT_INSTRUMENTS = "this-server-without-instruments"
EMPTY = "bentoml-empty"
USUAL = "fastapi"

BUSY = 32
"""Connections at which throughput is compared."""

MEGABYTE = 1e6


def judge(
    measured: Sequence[Measured], starts: Starts | None, reasons: Reasons | None
) -> tuple[Finding, ...]:
    """Every target with what was measured; None where something it needs was not."""
    by_name = {one.peer.name: one for one in measured}
    others = [name for name, one in by_name.items() if _is_other(one)]

    def rate(name: str, load: LoadName = "predict", connections: int = BUSY) -> float | None:
        return by_name[name].rate(load, connections) if name in by_name else None

    def best(name: str, load: LoadName) -> float | None:
        levels = by_name[name].peer.description.loads.get(load, ()) if name in by_name else ()
        return _most(rate(name, load, connections) for connections in levels)

    ours = by_name.get(OURS)
    p50, p99 = (ours.p50("predict", 1), ours.p99("predict", 1)) if ours else (None, None)
    usual_p99 = by_name[USUAL].p99("predict", 1) if USUAL in by_name else None
    busy = f"requests a second at {BUSY} connections"
    resident = max(ours.largest) / MEGABYTE if ours and ours.largest else None
    return (
        _at_least(f"{busy}, against an empty BentoML endpoint", 1.0, rate(OURS), rate(EMPTY)),
        _at_least(f"{busy}, against FastAPI", 12.0, rate(OURS), rate(USUAL)),
        _at_least(f"{busy}, against the best other", 12.0, rate(OURS), _most(map(rate, others))),
        _at_most("p99 at 1 connection, against FastAPI's", 1 / 6, p99, usual_p99),
        _at_most("p99 at 1 connection, against the p50", 2.0, p99, p50),
        _at_least(
            "rows a second in batches, best against best of FastAPI",
            10.0,
            best(OURS, "batch"),
            best(USUAL, "batch"),
        ),
        _at_least(
            f"{busy}, scored reasons on against off", 0.85, rate(OURS), rate(WITHOUT_REASONS)
        ),
        _at_least(
            f"{busy}, the same where all are declined",
            0.85,
            rate(OURS, "declined"),
            rate(WITHOUT_REASONS, "declined"),
        ),
        _at_least(f"{busy}, records on against off", 0.75, rate(OURS), rate(WITHOUT_RECORDS)),
        _at_least(
            f"{busy}, instrumentation on against off", 0.8, rate(OURS), rate(WITHOUT_INSTRUMENTS)
        ),
        _at_least(
            "exact reasons of one row, times faster than shap",
            40.0,
            reasons.shap_us if reasons else None,
            reasons.ours_us if reasons else None,
        ),
        Finding("start to ready", "s", "at most", 3.0, starts.later if starts else None),
        Finding("memory of a worker", "MB", "at most", 300.0, resident),
    )


def _is_other(one: Measured) -> bool:
    description = one.peer.description
    return description.package is not None and description.scores and one.peer.name != USUAL


def _most(figures: Iterable[float | None]) -> float | None:
    return max((figure for figure in figures if figure is not None), default=None)


def _at_least(name: str, target: float, of: float | None, to: float | None) -> Finding:
    return Finding(name, "times", "at least", target, _ratio(of, to))


def _at_most(name: str, target: float, of: float | None, to: float | None) -> Finding:
    return Finding(name, "times", "at most", target, _ratio(of, to))


def _ratio(of: float | None, to: float | None) -> float | None:
    return None if of is None or to is None else of / to
