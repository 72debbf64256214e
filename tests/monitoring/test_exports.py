"""Exports: nobody waits for a collector, what is lost is counted, and closing takes its time."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, cast

import pytest
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from benchmarks import collector
from monitoring.exports import EXPORTERS, Exports, Seldom
from monitoring.traces import exporter
from tests import served, toys
from tests.served import Served

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.collector import Behaviour
    from credit_risk.package import ModelPackage

SPAN = ReadableSpan("span")
MINUTE = 60.0


class Gate(SpanExporter):
    """Takes spans once it is let, and fails as told."""

    def __init__(self, outcome: SpanExportResult | type[Exception]) -> None:
        self.outcome = outcome
        self.let = threading.Event()
        self.begun = threading.Event()
        self.batches: list[int] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Wait, then do as told."""
        self.begun.set()
        assert self.let.wait(MINUTE)
        self.batches.append(len(spans))
        if isinstance(self.outcome, SpanExportResult):
            return self.outcome
        raise self.outcome

    def shutdown(self) -> None:
        """Wait no longer."""
        self.let.set()


class Told:
    """How many spans were exported and dropped."""

    def __init__(self) -> None:
        self.exported = self.dropped = 0

    def exports(self, exporter: SpanExporter) -> Exports:
        """Exports that tell it."""
        return Exports(exporter, exported=self._exported, dropped=self._dropped)

    def _exported(self, number: int) -> None:
        self.exported += number

    def _dropped(self, number: int) -> None:
        self.dropped += number


def test_what_is_put_is_exported_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the size that OpenTelemetry's variable says."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    told, gate = Told(), Gate(SpanExportResult.SUCCESS)
    exports = told.exports(gate)

    for _ in range(5):
        exports.put([SPAN, SPAN])
    gate.let.set()
    exports.close()

    assert (told.exported, told.dropped) == (10, 0)
    assert sum(gate.batches) == 10
    assert max(gate.batches) <= 4


def test_what_waits_for_long_enough_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is a single span."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    told, gate = Told(), Gate(SpanExportResult.SUCCESS)
    exports = told.exports(gate)

    exports.put([SPAN])

    assert gate.begun.wait(MINUTE)
    gate.let.set()
    exports.close()
    assert told.exported == 1


def test_no_more_waits_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's spans go together or not at all; whoever puts them goes on at once."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")
    told, gate = Told(), Gate(SpanExportResult.SUCCESS)
    exports = told.exports(gate)
    exports.put([SPAN] * 3)
    assert gate.begun.wait(MINUTE)

    for _ in range(1_000):
        exports.put([SPAN] * 3)

    assert told.dropped == 3_000 - 9
    gate.let.set()
    exports.close()
    assert told.exported == 12


@pytest.mark.parametrize("outcome", [SpanExportResult.FAILURE, ZeroDivisionError])
def test_what_the_collector_does_not_take_is_dropped(
    outcome: SpanExportResult | type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter that fails in a way that nobody foresaw is told of, and tried again."""
    told, gate = Told(), Gate(outcome)
    gate.let.set()
    exports = told.exports(gate)

    exports.put([SPAN] * 600)
    exports.close()

    assert (told.exported, told.dropped) == (0, 600)
    assert len(gate.batches) >= 2
    assert ("could not be exported" in caplog.text) is (outcome is ZeroDivisionError)


def test_closing_waits_for_nobody_for_long() -> None:
    """What the exporter holds is given up, and what waits is dropped."""
    told, gate = Told(), Gate(SpanExportResult.FAILURE)
    exports = told.exports(gate)
    exports.put([SPAN] * 600)
    assert gate.begun.wait(MINUTE)
    exports.put([SPAN] * 100)

    exports.close(0.01)  # a test that hangs here has failed
    exports.put([SPAN])

    for _ in range(1_000):
        if told.dropped == 701:
            break
        time.sleep(0.01)
    assert (told.exported, told.dropped) == (0, 701)


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5"])
def test_a_limit_that_is_none_is_told_and_not_taken(
    given: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server starts with its own."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", given)
    told, gate = Told(), Gate(SpanExportResult.SUCCESS)
    gate.let.set()

    with caplog.at_level(logging.WARNING):
        exports = told.exports(gate)
    exports.put([SPAN] * 2_048)
    exports.close()

    assert told.exported == 2_048
    assert "OTEL_BSP_MAX_QUEUE_SIZE is no whole number above 0" in caplog.text


# With collectors in trouble, over the wire


def unused() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("behaviour", ["down", "slow", "refuses", "resets"])
def test_a_collector_in_trouble_fails_no_request(
    behaviour: str, trees_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are given, spans are lost and counted, and closing does not wait for them."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    kind = cast("Behaviour", "takes" if behaviour == "down" else behaviour)
    with collector.collecting(kind) as collecting, served.serving(trees_package, tmp_path) as on:
        address = unused() if behaviour == "down" else collecting.url
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        traced = Served(on.active, on.audit, on.settings, exporter=exporter())

        statuses = [traced.post("/predict", toys.RISKY).status_code for _ in range(30)]
        traced.traces.close(0.01)

        assert statuses == [200] * 30
        lost = traced.sample("credit_spans_dropped_total")
        # Those on their way to the collector at the end, at most one export, are in no count yet.
        assert 300 - 16 <= lost <= 300
        assert traced.sample("credit_spans_exported_total") == 0


def test_a_collector_that_is_away_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not with every try; by the exporter's own logger, which other lines pass."""
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    caplog.set_level(logging.INFO, EXPORTERS)
    told = Seldom()
    monkeypatch.setattr(trace_exporter._logger, "filters", [told])  # noqa: SLF001
    for seconds in (0.0, 1.0, 58.0, 2.0, 3.0):
        now += seconds
        trace_exporter._logger.error("away %.0f", now)  # noqa: SLF001
        trace_exporter._logger.info("well")  # noqa: SLF001

    seen = [line.getMessage() for line in caplog.records if line.levelno > logging.INFO]
    assert seen == ["away 1000", "away 1061"]
    assert len(caplog.records) == len(seen) + 5
    assert trace_exporter._logger.name == EXPORTERS  # noqa: SLF001
