"""Clocks: what cannot be right is told, and what clocks may differ by is not."""

from __future__ import annotations

from credit_risk.audit.clocks import Clocks
from credit_risk.audit.signatures import Stamp
from credit_risk.audit.withdrawals import SLACK

NOW = 1_763_800_000_000_000


def test_a_clock_that_went_back_between_checkpoints_is_told_once() -> None:
    """Not of every checkpoint until it is as late again; nor of what replicas differ by."""
    times = (0, SLACK, 1, SLACK, 5 * SLACK, SLACK, 2 * SLACK, 3 * SLACK)
    stamps = [Stamp(number, NOW - 9 * SLACK + at) for number, at in enumerate(times, 1)]

    (told,) = Clocks(NOW).told(stamps)

    assert told == (
        "checkpoint 6 was signed at 2025-11-22T00:26:40.000000Z, after checkpoint 5, which was at "
        "2025-11-22T04:26:40.000000Z"
    )


def test_one_that_goes_back_little_by_little_is_told_all_the_same() -> None:
    """Each step is less than clocks may differ by."""
    stamps = [Stamp(number, NOW - number * SLACK * 2 // 3) for number in range(1, 5)]

    assert [line[:12] for line in Clocks(NOW).told(stamps)] == ["checkpoint 3"]


def test_a_checkpoint_of_the_future_is_told() -> None:
    """As records are."""
    (told,) = Clocks(NOW).told([Stamp(1, NOW + SLACK), Stamp(2, NOW + SLACK + 1)])

    assert told.startswith("checkpoint 2 was signed at 2025-11-22T09:26:40.000001Z, in the future")


def test_records_of_the_future_are_named_by_runs_and_then_counted() -> None:
    """However many they are."""
    clocks = Clocks(NOW)
    for sequence in range(1, 61, 2):
        clocks.ahead(sequence, clocks.latest + sequence)

    lines = clocks.told([])

    assert len(lines) == 21
    assert lines[-1].startswith("and 10 more records were made in the future")
