"""What is made of the load generator's figures."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import wrk
from benchmarks.wrk import NotMeasured

NO_ERRORS = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}


def corrected(times: list[int], duration: int, connections: int) -> dict[int, int]:
    """A histogram as wrk reports it: each long request with those that it held up."""
    counts = Counter(times)
    expected = duration // max(len(times) // connections, 1)
    for time, count in sorted(Counter(times).items()):
        if time >= 2 * expected:
            for held_up in range(time - expected, expected, -expected):
                counts[held_up] += count
    return dict(counts)


def said(times: list[int], *, duration: int = 1_000_000, **errors: int) -> str:
    """What ``wrk.lua`` prints, after what wrk prints itself."""
    figures = {
        "us": duration,
        "requests": len(times),
        "errors": NO_ERRORS | errors,
        "bins": list(corrected(times, duration, 1).items()),
    }
    return "Running 1s test\n" + json.dumps(figures).replace(" ", "") + "\n"


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(0, 3_000),
)
def test_what_wrk_adds_is_taken_off_again(times: list[int], connections: int, idle: int) -> None:
    """Whatever the times, those measured come back."""
    duration = max(sum(times) // connections, *times) + idle
    bins = corrected(times, duration, connections)

    assert wrk.uncorrected(bins, duration, len(times), connections) == Counter(times)


def test_another_correction_is_noticed() -> None:
    """One time too many, and one taken off that was never there."""
    with pytest.raises(NotMeasured, match="not those of its requests"):
        wrk.uncorrected({10: 3}, 20, 2, 1)
    with pytest.raises(NotMeasured, match="not those of its requests"):
        wrk.uncorrected({10: 4, 100: 1}, 50, 5, 1)


def test_rate_and_percentiles_are_of_the_times_measured() -> None:
    """98 requests of 10 ms, one of 15 and one of 5."""
    times = wrk.read(said([10_000] * 98 + [15_000, 5_000]), 1, 0.25)

    assert (times.requests, times.rate, times.generator_share) == (100, 100.0, 0.25)
    assert (times.p50, times.p99) == (10.0, 10.0)


def test_the_99th_percentile_of_fifty_is_the_longest() -> None:
    """Nearest rank: always a time that was measured."""
    times = wrk.read(said([10_000] * 49 + [490_000]), 1, 0.0)
    assert (times.p50, times.p99) == (10.0, 490.0)


@pytest.mark.parametrize("kind", NO_ERRORS)
def test_any_failed_request_ends_the_measurement(kind: str) -> None:
    """A refusal is quick, and would make a server that refuses look fast."""
    with pytest.raises(NotMeasured, match=f"of 2 requests failed: {{'{kind}': 1}}"):
        wrk.read(said([10, 10], **{kind: 1}), 1, 0.0)


def test_no_answer_at_all_is_no_measurement() -> None:
    """Nor is output without figures, which is shown."""
    with pytest.raises(NotMeasured, match="of 0 requests"):
        wrk.read(said([]), 1, 0.0)
    with pytest.raises(NotMeasured, match="unable to connect"):
        wrk.read("unable to connect to 127.0.0.1:9", 1, 0.0)


def test_an_absent_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on an empty PATH."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotMeasured, match="wrk is not installed: apt-get install wrk"):
        wrk.check()
