"""Prometheus of our own: it collects, answers, and leaves nothing behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from loadtests import prometheus
from loadtests.server import Unavailable
from tests.answering import answering, decided

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
groups:
  - name: tests
    rules:
      - {record: tests:up:doubled, expr: 2 * up}
"""
METRICS = b'# TYPE made_up counter\nmade_up_total{kind="test"} 42\n'


@pytest.fixture
def _installed() -> None:
    """Not everybody has it."""
    try:
        prometheus.program()
    except prometheus.Missing as missing:
        pytest.skip(str(missing))


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Prometheus, what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(prometheus.Missing, match="apt install prometheus"):
        prometheus.program()


@pytest.mark.usefixtures("_installed")
def test_it_collects_evaluates_and_answers(tmp_path: Path) -> None:
    """And is gone afterwards."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES, encoding="utf-8")

    with answering(decided, METRICS) as asked:
        target = asked.url.removeprefix("http://")
        with prometheus.running(tmp_path, [target], rules=[rules]) as running:
            while not (doubled := running.query("tests:up:doubled")):
                time.sleep(0.05)
            (counted,) = running.query("made_up_total")
            before = running.query("made_up_total", at=time.time() - 3_600)

    assert doubled[0].value == 2.0
    assert counted.value == 42.0
    assert counted.labels["kind"] == "test"
    assert (counted.labels["job"], counted.labels["instance"]) == (prometheus.JOB, target)
    assert before == []
    with pytest.raises(httpx.ConnectError):
        running.query("up")


@pytest.mark.usefixtures("_installed")
def test_one_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    """Here for a file of rules that is none."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("groups: 5\n", encoding="utf-8")

    with (
        pytest.raises(Unavailable, match=r"(?s)did not become ready.*rules\.yaml"),
        prometheus.running(tmp_path, rules=[rules]),
    ):
        pytest.fail("it started")
