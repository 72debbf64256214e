"""The variant whose challenger hangs or crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from benchmarks import service_with_bad_challenger as variant
from monitoring import shadow

assert shadow._PROGRAM is variant.PROGRAM
compile(variant.PROGRAM, "program", "exec")
print(variant.CreditRiskServer.name)
"""
ASKED = """
import sys
from monitoring import follower

sys.argv = ["-c", "0"]
follower.main = lambda _: follower._answers(None, [])
exec({!r})
"""


def test_only_the_process_that_asks_is_another_one(tmp_path: Path) -> None:
    """In a process of its own: what it changes, it changes for a whole process."""
    done = subprocess.run(  # noqa: S603 - this interpreter, on the program above
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"CREDIT_RISK_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["credit-risk-server"]


@pytest.mark.parametrize("state", ["hanging", "crashing"])
def test_asked_it_does_what_it_is_to_do(state: str) -> None:
    """It ends by a signal of its own, or does not end."""
    source = (ROOT / "benchmarks" / "service_with_bad_challenger.py").read_text(encoding="utf-8")
    program = source.split('PROGRAM = """')[1].split('"""')[0]
    process = subprocess.Popen(  # noqa: S603 - as above
        [sys.executable, "-c", ASKED.format(program)],
        cwd=ROOT,
        env=os.environ | {"BENCHMARK_CHALLENGER": state},
        stderr=subprocess.DEVNULL,
    )
    try:
        code: int | None = process.wait(3.0 if state == "hanging" else 60.0)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        process.kill()
        process.wait()

    assert (code is None) is (state == "hanging")
    assert code is None or code < 0
