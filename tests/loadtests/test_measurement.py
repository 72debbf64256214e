"""Figures made of raw times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import measurement
from tests.loadtests.traffic import samples

if TYPE_CHECKING:
    from pathlib import Path


def test_percentiles_are_times_that_were_measured() -> None:
    """Nearest rank: of 1 to 100 ms the 50th is 50, not 50.5."""
    ms = np.arange(100.0, 0.0, -1.0)

    assert measurement.percentiles(ms, [0.0, 50.0, 95.0, 99.0, 100.0]).tolist() == [
        1.0,
        50.0,
        95.0,
        99.0,
        100.0,
    ]
    assert measurement.percentiles(np.array([7.25]), [50.0, 99.0]).tolist() == [7.25, 7.25]


@given(
    st.lists(st.floats(min_value=0.001, max_value=1e5), min_size=1, max_size=60),
    st.sampled_from([1.0, 50.0, 90.0, 95.0, 99.0]),
)
def test_a_percentile_is_the_smallest_time_that_covers_its_share(
    times: list[float], level: float
) -> None:
    """The definition, counted out."""
    needed = level / 100 * len(times)
    covering = [t for t in times if sum(other <= t for other in times) >= needed - 1e-9]

    assert measurement.percentiles(np.array(times), [level])[0] == min(covering)


def test_no_times_have_no_percentile() -> None:
    """Rather than a number."""
    with pytest.raises(ValueError, match="no requests"):
        measurement.percentiles(np.array([]), [50.0])


def test_the_figures_of_a_run() -> None:
    """Ten requests of 100 ms on end, two of them failed."""
    measured = measurement.measure(samples([100.0] * 10, failed=[3, 4]))

    assert measured is not None
    assert (measured.requests, measured.failures) == (10, 2)
    assert measured.error_rate == pytest.approx(0.2)
    assert measured.seconds == pytest.approx(1.0)
    assert measured.throughput == pytest.approx(8.0)


def test_a_quick_refusal_makes_no_server_fast() -> None:
    """Times are of requests answered well."""
    measured = measurement.measure(samples([0.1] * 99 + [50.0], failed=range(99)))

    assert measured is not None
    assert (measured.p50, measured.p99, measured.longest) == (50.0, 50.0, 50.0)


def test_a_run_without_a_good_answer_has_no_times() -> None:
    """Nor has one without requests any figure."""
    measured = measurement.measure(samples([1.0, 2.0], failed=[0, 1]))

    assert measured is not None
    assert (measured.p50, measured.throughput, measured.error_rate) == (None, 0.0, 1.0)
    assert measurement.measure(samples([])) is None


def test_times_are_kept_as_measured(tmp_path: Path) -> None:
    """To the last bit, through the file between Locust and the report."""
    kept = samples([1 / 3, 0.1 + 0.2], failed=[1], route=[0, 2])
    kept.save(tmp_path / "samples.npz")

    loaded = measurement.load(tmp_path / "samples.npz")

    assert loaded.ms.tolist() == [1 / 3, 0.1 + 0.2]
    assert loaded.of("/explain").failed.tolist() == [True]
    assert (loaded.routes, loaded.generator_share) == (kept.routes, kept.generator_share)
