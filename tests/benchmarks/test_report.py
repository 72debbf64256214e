"""The tables that people read, and the document that programs do."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from benchmarks import report
from benchmarks.run import Reasons, Starts
from loadtests.verdict import Finding
from tests.benchmarks.figures import measured, times


def made() -> report.Report:
    """Three servers, of which one was not measured."""
    ours = measured(
        "this-server",
        {("predict", 32): times(4_321.4, 7.123, 123.4), ("batch", 2): times(50.0, 10.0, 20.0)},
    )
    ours.times["declined", 32] = [times(3_000.0)]
    slow = measured("mlflow", {("predict", 32): times(99.6)})
    quick = measured("fastapi", {("predict", 32): times(222.0)})
    absent = measured("mlserver", {}, largest=0.0)
    absent.failure, absent.together = "mlserver: no such package\nand its log", []
    return report.Report(
        began=datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
        machine="a machine",
        command="python -m benchmarks",
        rounds=1,
        seconds=6,
        batch_rows=500,
        measured=[ours, slow, quick, absent],
        findings=[
            Finding("start to ready", "s", "at most", 3.0, 3.456),
            Finding("p99", "times", "at most", 1 / 6, None),
        ],
        starts=Starts(first=4.0, later=3.456),
        reasons=Reasons(5_000, 100, ours_us=50.0, shap_us=9_000.0),
    )


def test_the_table_has_this_server_first_and_then_the_quickest() -> None:
    """Requests a second, times to three digits, memory in MB; a dash where there is nothing."""
    lines = report.markdown(made()).splitlines()
    start = lines.index("| server | 1 connection | 8 connections | 32 connections | memory |")
    ours, quick, slow, absent = lines[start + 2 : start + 6]

    assert ours == "| this server, everything on | - | - | 4,321 (7.12 / 123) | 300 |"
    assert quick.startswith("| FastAPI ")
    assert slow.startswith("| MLflow ")
    assert slow.endswith(" | - | - | 100 (1 / 2) | 300 |")
    assert absent.startswith("| MLServer ")
    assert absent.endswith(" | - | - | - | - |")


def test_batches_are_counted_in_rows() -> None:
    """Only servers that have the call are in their table."""
    text = report.markdown(made())
    table = text[text.index("500 applications a request") :].split("\n\n")[1]

    assert "| this server, everything on | - | 25,000 (10 / 20) |" in table
    assert "MLflow" not in table


def test_date_machine_and_command_are_told() -> None:
    """And who else used the machine."""
    head = report.markdown(made()).splitlines()[0]

    assert head.startswith("Measured 2026-11-22 with `python -m benchmarks` on a machine: ")
    assert "medians of one round of 6 s" in head
    assert "Other programs used 0.01 cores" in head


def test_whoever_was_not_measured_has_a_reason() -> None:
    """In one line; the log is for whoever ran it."""
    text = report.markdown(made())

    assert "was not measured: mlserver: no such package\n" in text
    assert "and its log" not in text


def test_verdicts_are_in_words() -> None:
    """A target that could not be measured is missed."""
    text = report.markdown(made())

    assert "| start to ready | at most 3 s | 3.46 | MISSED |" in text
    assert "| p99 | at most 0.167 times | not measured | MISSED |" in text


def test_the_document_has_every_round() -> None:
    """It can be written as JSON, and read back to the same."""
    document = report.document(made())

    assert json.loads(json.dumps(document)) == document
    (load,) = document["servers"]["mlflow"]["loads"]
    assert (load["load"], load["connections"]) == ("predict", 32)
    assert [one["rate"] for one in load["rounds"]] == [99.6]
    assert document["servers"]["mlserver"]["failure"].startswith("mlserver: no such package")
    assert [target["met"] for target in document["targets"]] == [False, False]
