"""The variant that counts nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import threading
from prometheus_client import CollectorRegistry
from benchmarks import service_without_instruments as variant
from credit_risk.serving import runtime
from monitoring.metrics import Metrics
from monitoring.traces import Traces

assert runtime.Accounts is variant.Silent
registry = CollectorRegistry()
silent = variant.Silent(Metrics(registry), Traces(0.0, None))
silent.read(lambda: 1 // 0)
silent.start()
silent.recorded("decision", 1)
silent.keyed("new")
silent.flush()
moved = [s.name for f in registry.collect() for s in f.samples if s.value and "_total" in s.name]
print(variant.CreditRiskServer.name, moved, [t.name for t in threading.enumerate()])
"""


def test_nothing_is_counted_and_all_else_is_the_service(tmp_path: Path) -> None:
    """Whatever it is told; in a process of its own, as it changes the whole process."""
    done = subprocess.run(  # noqa: S603 - this interpreter, on the program above
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"CREDIT_RISK_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "credit-risk-server [] ['MainThread', 'log']\n"
