"""The tour as a user takes it, for a moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from credit_risk.settings import PREFIX
from loadtests import prometheus
from tests.e2e.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


@pytest.mark.usefixtures("interruptible")
def test_a_short_tour_shows_drift_and_evidence_and_leaves_nothing(tmp_path: Path) -> None:
    """Started, looked at while it stays, and ended by Ctrl-C."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    environment |= {"TMPDIR": str(tmp_path), "WORKERS": "1", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtests.demo", "--seconds", "2", "--stay"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Everything runs"):
            break
    assert "Everything runs" in said, process.communicate()
    urls = re.findall(r"http://127\.0\.0\.1:\d+", said)
    up = [httpx.get(url, follow_redirects=True).status_code for url in dict.fromkeys(urls)]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()

    assert process.returncode == 0, said + errors
    figures = {line.split()[0]: line for line in said.splitlines() if len(line.split()) > 3}
    for field in ("person_income", "loan_percent_income"):
        before, after, chance = (float(figure) for figure in figures[field].split()[1:4])
        assert before < chance < after
        assert "moved by the scenario" in figures[field]
    assert said.count("moved by the scenario") == 2
    assert re.search(r"^replay +MATCH", said, re.MULTILINE)
    assert re.search(r"^proof +PROVEN", said, re.MULTILINE)
    assert re.search(r"^the log +.*: whole$", said, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
    for url in dict.fromkeys(urls):
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
    try:
        prometheus.program()
    except prometheus.Missing:
        assert up == [200]
    else:
        assert up == [200, 200]
