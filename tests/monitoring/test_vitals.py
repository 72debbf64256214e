"""Vitals: what a worker reads of itself is so."""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from monitoring import vitals
from monitoring.metrics import Metrics, WorkerMetrics
from monitoring.vitals import Vitals

OF_PROCESS = ("resident_memory_bytes", "cpu_seconds", "open_fds", "start_time_seconds")


def test_the_process_is_this_one() -> None:
    """Its memory, its time, its files; what waits is asked for each time."""
    registry = CollectorRegistry()
    numbers = iter((3, 4))
    began = time.time()
    own = Vitals(Metrics(registry), WorkerMetrics(registry), lambda: next(numbers))

    own.read()
    own.read()

    def told(name: str) -> float:
        return registry.get_sample_value(f"credit_{name}") or 0.0

    assert told("records_waiting") == 4
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    assert 0.5 < told("process_resident_memory_bytes") / (int(resident.split()[1]) * 1024) < 2
    used = os.times()
    assert 0 < told("process_cpu_seconds") <= used.user + used.system
    assert 3 <= told("process_open_fds") < 10_000
    assert began - 24 * 3_600 < told("process_start_time_seconds") <= began


def test_the_process_is_looked_at_only_now_and_then() -> None:
    """What takes long is not done ten times a second."""
    registry = CollectorRegistry()
    own = Vitals(Metrics(registry), WorkerMetrics(registry), lambda: 0)
    own.read()
    open_fds = partial(registry.get_sample_value, "credit_process_open_fds")
    first = open_fds() or 0.0
    with tempfile.TemporaryFile(), tempfile.TemporaryFile():
        own.read()
        assert open_fds() == first
        own._due -= vitals.EVERY_SECONDS  # noqa: SLF001 - in place of waiting
        own.read()
        assert open_fds() == first + 2


def test_a_worker_counts_from_the_moment_it_serves() -> None:
    """One that starts, and fails to again and again, makes no series of its own, nor zeros."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.started(2)
    of_worker = ("workers", *(f"process_{of}" for of in OF_PROCESS))

    def told() -> list[float | None]:
        return [registry.get_sample_value(f"credit_{name}") for name in of_worker]

    assert set(told()) == {None}
    assert registry.get_sample_value("credit_workers_expected") == 2

    Vitals(metrics, WorkerMetrics(registry), lambda: 0)

    assert told()[0] == 1
    assert all(told())
