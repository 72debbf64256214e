"""The load test as a user runs it, against a real server, for a moment."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from loadtests import objectives
from tests.e2e.conftest import ROOT, RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.e2e

STRICT = {"p50": 0.001, "p95": 0.002, "p99": 0.003, "error_rate": 0, "throughput": 1e9}
LAX = {"p50": 30_000, "p95": 30_000, "p99": 30_000, "error_rate": 0, "throughput": 0.1}


def loadtest(
    folder: Path, server: RunningServer, scenario: str, targets: dict[str, float]
) -> tuple[int, dict[str, Any]]:
    """Run one scenario for a second against these targets; exit code and JSON."""
    document = objectives.read().model_dump(mode="json")
    document["scenarios"] = {scenario: document["scenarios"][scenario] | {"targets": targets}}
    document["soak"]["scenario"] = scenario
    path = folder / "objectives.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run(  # noqa: S603 - our own command
        [
            *(sys.executable, "-m", "loadtests", "--url", server.url, "--json"),
            *("--objectives", str(path), "--out", str(folder / "out")),
            *("--users", "2", "--duration", "1"),
        ],
        cwd=ROOT,
        env=server.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_strict_objectives_exit_1_and_lax_ones_0(
    start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    """On the same server; and server and client count the same requests."""
    server = start(workers=1)

    strict, first = loadtest(tmp_path, server, "predict", STRICT)
    lax, second = loadtest(tmp_path, server, "mix", LAX)

    assert (strict, first["met"]) == (1, False)
    met = {o["objective"]: o["met"] for o in first["runs"][0]["objectives"]}
    assert met == {
        "p50": False,
        "p95": False,
        "p99": False,
        "error_rate": True,
        "throughput": False,
    }
    assert (lax, second["met"]) == (0, True)
    for document in (first, second):
        (one,) = document["runs"]
        assert one["measured"]["requests"] > 0
        assert one["measured"]["seconds"] > 0.8, "asked for was 1"
        assert all(check["agrees"] for check in one["cross_check"])
    assert {c["route"] for c in second["runs"][0]["cross_check"]} >= {"/predict", "/explain"}
    assert len(list((tmp_path / "out").glob("*/report.html"))) == 2
