"""What watching the model costs: verdicts, and what is measured on."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from benchmarks import monitoring
from benchmarks.monitoring import Measured, judge
from credit_risk.audit.log import open_records
from credit_risk.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.monitoring import Meanwhile


def measured(calls: list[float], p99: list[float]) -> dict[Meanwhile, Measured]:
    """The same figures counted and from nothing; p99 alone is 2, 4 and 6 ms."""
    return {
        "nothing": Measured(p99=[2.0, 4.0, 6.0]),
        "counted": Measured(p99, calls),
        "from nothing": Measured(p99, calls),
    }


def test_medians_on_target_are_met() -> None:
    """A round's p99 is held against that of the same round."""
    found = judge(measured([2.0, 9.0, 1.0], [3.0, 6.0, 90.0]), 60.0, 500.0)

    assert len(found) == 6
    assert all(finding.met for finding in found)


@pytest.mark.parametrize(
    ("calls", "p99", "job", "missed"),
    [
        ([2.1], [2.0] * 3, (1.0, 1.0), {"s"}),
        ([1.0], [3.1, 6.1, 9.1], (1.0, 1.0), {"times"}),
        ([1.0], [2.0] * 3, (60.1, 1.0), {"s"}),
        ([1.0], [2.0] * 3, (1.0, 500.1), {"MB"}),
    ],
)
def test_what_costs_more_is_a_target_missed(
    calls: list[float], p99: list[float], job: tuple[float, float], missed: set[str]
) -> None:
    """Of calls, of others' waiting, and of the job."""
    found = judge(measured(calls, p99), *job)

    assert {finding.unit for finding in found if not finding.met} == missed


def test_the_job_alone_is_judged_where_no_calls_were_made() -> None:
    """As on a database that no server was started on."""
    found = judge({}, 60.0, 500.1)

    assert [finding.met for finding in found] == [True, False]


def test_no_database_is_filled_but_an_empty_one(tmp_path: Path) -> None:
    """Made-up decisions would stay among those of whoever gave the wrong URL."""
    file = tmp_path / "shared.db"
    file.touch()
    url = f"sqlite:///{file}"
    settings = Settings.model_validate(monitoring.of_day(tmp_path, url))

    monitoring.fill(settings, 2, 1.0)

    assert settings.encryption_keys is not None
    with pytest.raises(monitoring.NotMeasured, match="not empty"):
        monitoring.of_day(tmp_path, url)
    assert monitoring.of_day(tmp_path, None)["database_url"] is None


def test_decisions_are_filled_in_over_the_days_before_now(tmp_path: Path) -> None:
    """As many as asked for, each in its time."""
    settings = Settings(state_dir=tmp_path)

    monitoring.fill(settings, 48, 2.0)

    records = open_records(settings)
    try:
        times = [record.time for record in records.find(limit=50, kind="decision")]
    finally:
        records.close()
    hour = 3_600_000_000
    assert [one - other for one, other in pairwise(times)] == [hour] * 47


def test_memory_is_that_of_the_process_asked_about() -> None:
    """And none of one that is not there."""
    (held,) = monitoring.resident(os.getpid())
    assert held > 1_000_000
    assert not [*monitoring.resident(2**22 + 1)]
