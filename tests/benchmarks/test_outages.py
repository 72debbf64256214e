"""Outages: verdicts, and collectors that are in trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from benchmarks import outages
from benchmarks.outages import BEHAVIOURS, Measured, judge

if TYPE_CHECKING:
    from benchmarks.outages import State

WELL = Measured([2_000.0, 1_000.0, 1_900.0], [250.0, 280.0, 260.0], [0.0] * 3)


def others(rates: list[float], megabytes: list[float]) -> dict[State, Measured]:
    """The same figures in every trouble."""
    found: dict[State, Measured] = {
        state: Measured(rates, megabytes, [9.0]) for state in BEHAVIOURS
    }
    found["well"] = WELL
    return found


def test_medians_on_target_are_met() -> None:
    """Of every trouble, throughput and memory."""
    findings = judge(others([1_805.0], [280.0]))

    assert len(findings) == 2 * (len(BEHAVIOURS) - 1)
    assert all(finding.met for finding in findings)


@pytest.mark.parametrize(
    ("rate", "megabytes", "unit"), [(1_804.0, 280.0, "times"), (1_805.0, 280.1, "MB more")]
)
def test_one_that_costs_more_is_a_target_missed(rate: float, megabytes: float, unit: str) -> None:
    """In each trouble alike."""
    missed = [finding for finding in judge(others([rate], [megabytes])) if not finding.met]

    assert {finding.unit for finding in missed} == {unit}
    assert len(missed) == len(BEHAVIOURS) - 1


def test_lost_spans_are_read_from_the_metrics() -> None:
    """And from no other metric."""
    text = "# TYPE credit_spans_dropped counter\ncredit_spans_dropped_total 7.0\nother_total 9.0\n"
    assert outages.dropped(text) == 7
    assert outages.dropped("") == 0


@pytest.mark.parametrize("state", BEHAVIOURS)
def test_a_collector_is_in_the_state_it_is_said_to_be_in(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client sees it."""
    monkeypatch.setattr("benchmarks.collector.SLOW_SECONDS", 60.0)

    with outages._collecting(state) as (url, _):  # noqa: SLF001 - what the measurement rests on
        try:
            seen = str(httpx.post(url, content=b"x", timeout=0.5).status_code)
        except httpx.TransportError as error:
            seen = type(error).__name__

    assert (
        seen
        == {
            "well": "200",
            "slow": "ReadTimeout",
            "refusing": "503",
            "resetting": "ReadError",
            "down": "ConnectError",
        }[state]
    )
