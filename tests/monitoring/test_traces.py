"""Traces: what is sampled, what spans say, and whom a collector can harm."""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from monitoring.traces import Traces, exporter
from tests import served, toys
from tests.served import Broken, Served

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from credit_risk.package import ModelPackage

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"
SENTINEL = "sentinel-6021023"


class Kept(SpanExporter):
    """Keeps what is exported."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep it."""
        self.spans += spans
        return SpanExportResult.SUCCESS


@pytest.fixture
def server(trees_package: ModelPackage, tmp_path: Path) -> Iterator[Served]:
    """A server of the toy trees that traces every request."""
    with served.serving(trees_package, tmp_path) as running:
        yield Served(running.active, running.audit, running.settings, exporter=Kept())


def spans(server: Served) -> dict[str, ReadableSpan]:
    """Everything exported, by name; nothing is exported any more."""
    server.traces.close()
    kept = server.exporter
    assert isinstance(kept, Kept)
    named = {span.name: span for span in kept.spans}
    assert len(named) == len(kept.spans)
    return named


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Its attributes."""
    return dict(span.attributes or {})


def test_a_request_is_a_span_with_a_child_per_stage(server: Served) -> None:
    """Children lie within it, one after the other, and the batch is linked to it."""
    answer = server.post("/predict", toys.RISKY, x_request_id="desk-7").json()

    found = spans(server)
    request = found.pop("POST /predict")
    batch = found.pop("batch")
    assert [*found] == ["read", "validate", "wait", "score", "record"]
    assert request.kind is SpanKind.SERVER
    assert request.parent is None
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "url.scheme": "http",
        "credit.request_id": "desk-7",
        "credit.decision_id": answer["decision_id"],
        "credit.decision": "DECLINE",
        "credit.risk_band": "VERY_HIGH",
        "credit.portfolio": toys.NAME,
        "credit.model_version": answer["model_version"],
        "credit.policy_version": answer["policy_version"],
    }
    times = [request.start_time]
    for child in found.values():
        assert child.parent is not None
        assert request.context is not None
        assert child.parent.span_id == request.context.span_id
        times += [child.start_time, child.end_time]
    times.append(request.end_time)
    assert times == sorted(times, key=lambda time: time or 0)
    assert [link.context for link in batch.links] == [request.context]
    assert attributes(batch) == {"credit.batch.rows": 1}
    assert batch.parent is None


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_trace_is_continued(server: Served, flags: str) -> None:
    """Whether the caller samples it or not is the caller's business."""
    server.post("/predict", toys.RISKY, traceparent=PARENT.format(flags=flags))

    request = spans(server)["POST /predict"]
    assert request.context is not None
    assert request.parent is not None
    assert f"{request.context.trace_id:032x}" == PARENT[3:35]
    assert f"{request.parent.span_id:016x}" == PARENT[36:52]
    assert request.parent.is_remote


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
        SENTINEL,
    ],
)
def test_a_malformed_parent_is_none(server: Served, given: str) -> None:
    """The request has a trace of its own."""
    server.post("/predict", toys.RISKY, traceparent=given)

    request = spans(server)["POST /predict"]
    assert request.parent is None
    assert request.context is not None
    assert request.context.trace_id not in {0, int(PARENT[3:35], 16)}


def test_nobody_outside_decides_what_is_sampled() -> None:
    """Chance does, and where spans go nowhere there are none."""
    parent = PARENT.format(flags="01").encode()

    assert all(Traces(0.0, Kept()).sample(parent) is None for _ in range(100))
    assert all(Traces(1.0, None).sample(parent) is None for _ in range(100))
    traces = Traces(0.5, Kept())
    sampled = sum(traces.sample(parent) is not None for _ in range(2_000))
    assert 800 < sampled < 1_200
    traces.close()


def test_a_failure_is_marked_and_holds_nothing_of_the_applicant(server: Served) -> None:
    """By the type of its problem."""
    server.active.current = replace(server.active.current, model=Broken(ZeroDivisionError))
    server.post("/predict", toys.RISKY | {"income": 4321.0625})

    request = spans(server)["POST /predict"]
    assert request.status.status_code is StatusCode.ERROR
    assert attributes(request)["error.type"] == "/problems/internal-error"
    assert "credit.decision_id" not in attributes(request)
    assert "4321" not in json.dumps(attributes(request))


def test_a_refusal_is_no_fault_of_the_server(server: Served) -> None:
    """Its status is left unset, as the conventions have it for 4xx."""
    server.post(f"/{SENTINEL}?age={SENTINEL}", {SENTINEL: SENTINEL})

    (request,) = spans(server).values()
    assert request.name == "POST unknown"
    assert request.status.status_code is StatusCode.UNSET
    assert attributes(request)["error.type"] == "/problems/not-found"
    assert SENTINEL not in json.dumps(attributes(request))


def test_the_line_of_a_traced_request_names_its_trace(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """So that one leads to the other."""
    caplog.set_level("INFO", "credit_risk.requests")
    server.post("/predict", toys.RISKY, traceparent=PARENT.format(flags="01"))

    (line,) = [record for record in caplog.records if record.name == "credit_risk.requests"]
    assert vars(line)["trace_id"] == PARENT[3:35]


class Collector(BaseHTTPRequestHandler):
    """Takes spans over OTLP, as a collector does."""

    received: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        """Keep a request."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


def test_a_collector_gets_spans_on_the_wire(
    trees_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTLP over HTTP, at the address of OpenTelemetry's own variable, under the service's name."""
    Collector.received = []
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        with served.serving(trees_package, tmp_path) as running:
            traced = Served(running.active, running.audit, running.settings, exporter=exporter())
            traced.post("/predict", toys.RISKY)
            traced.traces.close()
        collector.shutdown()

    (resource,) = Collector.received[0].resource_spans
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert named["service.name"] == "credit-risk-server"
    names = {span.name for scope in resource.scope_spans for span in scope.spans}
    assert {"POST /predict", "score", "batch"} <= names


def test_without_an_address_there_is_no_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sampled then."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert exporter() is None


def test_a_collector_that_is_down_fails_no_request(
    trees_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans are lost, answers are not."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with served.serving(trees_package, tmp_path) as running:
        traced = Served(running.active, running.audit, running.settings, exporter=exporter())
        assert [traced.post("/predict", toys.RISKY).status_code for _ in range(20)] == [200] * 20
        traced.traces.close()
