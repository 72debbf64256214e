"""The variant that keeps no records."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, pathlib, sys
from benchmarks import service_without_records as variant
from credit_risk.audit.records import Record
from credit_risk.audit import log as audit_log
from tests.sealing import SEALING

assert audit_log.SqlAuditLog is variant.Forgetting
log = variant.Forgetting(f"sqlite:///{pathlib.Path(sys.argv[1]) / 'records.db'}", SEALING)
record = Record("1", "decision", 1, "p", "r", None, None, "DECLINE", 200, {})
asyncio.run(log.record([record]))
log.ping().result()
print(variant.CreditRiskServer.name, log.count())
log.close()
"""


def test_decisions_are_not_kept_and_all_else_is_the_service(tmp_path: Path) -> None:
    """In a process of its own: what it changes, it changes for a whole process."""
    done = subprocess.run(  # noqa: S603 - this interpreter, on the program above
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"CREDIT_RISK_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["credit-risk-server", "0"]
