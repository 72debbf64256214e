"""Traces: what is sampled, what spans say, and how they arrive at a collector."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from benchmarks import collector
from monitoring.traces import Continued, Sampled, Traces, exporter
from tests import served, toys
from tests.served import Broken, Served

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from credit_risk.package import ModelPackage

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"
TRACE_ID = PARENT[3:35]
SENTINEL = "sentinel-6021023"
STAGES = ["read", "validate", "wait", "encode", "score", "decide", "explain", "record"]
CONNECTION = {"scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 3000)}


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
    """Children lie within it, one after the other; the batch and it are linked both ways."""
    answer = server.post("/predict", toys.RISKY, x_request_id="desk-7").json()

    found = spans(server)
    request = found.pop("POST /predict")
    batch = found.pop("batch")
    assert [*found] == STAGES
    assert request.kind is SpanKind.SERVER
    assert request.parent is None
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "url.scheme": "http",
        "server.address": "testserver",
        "server.port": 80,
        "network.protocol.version": "1.1",
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
        assert child.parent == request.context
        times += [child.start_time, child.end_time]
    times.append(request.end_time)
    assert times == sorted(times, key=lambda time: time or 0)
    assert [link.context for link in batch.links] == [request.context]
    assert [link.context for link in request.links] == [batch.context]
    assert attributes(batch) == {
        "credit.batch.rows": 1,
        "credit.portfolio": toys.NAME,
        "credit.model_version": answer["model_version"],
    }
    assert batch.parent is None
    assert batch.context is not None
    assert request.context is not None
    assert batch.context.trace_id != request.context.trace_id


def test_many_applications_in_one_request_are_counted_in_its_span(server: Served) -> None:
    """What became of them, and none of their ids: they would be too many."""
    server.post("/predict/batch", {"applications": [toys.RISKY, {}, toys.SAFE]})

    told = attributes(spans(server)["POST /predict/batch"])
    assert (told["credit.rows"], told["credit.decided"]) == (3, 2)
    assert (told["credit.refused"], told["credit.failed"]) == (1, 0)
    assert "credit.decision_id" not in told


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_trace_is_continued(server: Served, flags: str) -> None:
    """Whether the caller samples it or not is the caller's business; its state is kept."""
    response = server.post(
        "/predict", toys.RISKY, traceparent=PARENT.format(flags=flags), tracestate="a=1,b@c=2"
    )

    found = spans(server)
    request = found["POST /predict"]
    assert request.context is not None
    assert request.parent is not None
    assert f"{request.context.trace_id:032x}" == TRACE_ID
    assert f"{request.parent.span_id:016x}" == PARENT[36:52]
    assert request.parent.is_remote
    for span in (request, found["score"]):
        assert span.context is not None
        assert span.context.trace_state.to_header() == "a=1,b@c=2"
    span_id = f"{request.context.span_id:016x}"
    assert response.headers["traceresponse"] == f"00-{TRACE_ID}-{span_id}-01"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-and-more",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
        SENTINEL,
    ],
)
def test_a_malformed_parent_is_none(server: Served, given: str) -> None:
    """The request has a trace of its own."""
    server.post("/predict", toys.RISKY, traceparent=given, tracestate="a=1")

    request = spans(server)["POST /predict"]
    assert request.parent is None
    assert request.context is not None
    assert request.context.trace_id not in {0, int(TRACE_ID, 16)}
    assert request.context.trace_state.to_header() == ""


def test_a_later_version_of_the_header_may_have_more_parts() -> None:
    """As W3C has it; two headers are as good as none."""
    traces = Traces(1.0, Kept())
    later = b"01" + PARENT.format(flags="01").encode()[2:] + b"-and-more"

    followed = traces.follow([later], [], CONNECTION)
    twice = traces.follow([later, later], [], CONNECTION)
    traces.close()

    assert isinstance(followed, Sampled)
    assert f"{followed.trace_id:032x}" == TRACE_ID
    assert isinstance(twice, Sampled)
    assert twice.parent is None


def test_nobody_outside_decides_what_is_sampled() -> None:
    """Chance does, and where spans go nowhere there are none."""
    parent = [PARENT.format(flags="01").encode()]

    for traces in (Traces(0.0, Kept()), Traces(1.0, None)):
        assert traces.follow(parent, [], CONNECTION) == Continued(int(TRACE_ID, 16))
        assert traces.follow([], [], CONNECTION) is None
        traces.close()
    traces = Traces(0.5, Kept())
    sampled = sum(isinstance(traces.follow(parent, [], CONNECTION), Sampled) for _ in range(2_000))
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
    """Its status is left unset, as the conventions have it for 4xx; nor has it made-up names."""
    server.client.request(
        SENTINEL.upper(), f"/{SENTINEL}?age={SENTINEL}", json={SENTINEL: SENTINEL}
    )

    (request,) = spans(server).values()
    assert request.name == "HTTP unknown"
    assert request.status.status_code is StatusCode.UNSET
    told = attributes(request)
    assert told["http.request.method"] == "_OTHER"
    assert told["credit.problem"] == "/problems/not-found"
    assert {"error.type", "http.route"} & told.keys() == set()
    assert SENTINEL not in json.dumps(told).lower()


def test_the_line_of_a_request_names_its_trace(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """So that one leads to the other, for the caller's too where nothing is sampled here."""
    caplog.set_level("INFO", "credit_risk.requests")
    untraced = Served(server.active, server.audit, server.settings)

    for each in (server, untraced):
        caplog.clear()
        response = each.post("/predict", toys.RISKY, traceparent=PARENT.format(flags="01"))
        (line,) = [record for record in caplog.records if record.name == "credit_risk.requests"]
        assert vars(line)["trace_id"] == TRACE_ID
        assert ("traceresponse" in response.headers) is (each is server)


def received(collecting: collector.Collector) -> list[ExportTraceServiceRequest]:
    """What a collector got, as it is on the wire."""
    return [ExportTraceServiceRequest.FromString(body) for body in collecting.bodies]


def test_a_collector_gets_spans_on_the_wire(
    trees_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTLP over HTTP, at the address of OpenTelemetry's own variable, under the service's name."""
    with collector.collecting(keeps=True) as collecting:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collecting.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        with served.serving(trees_package, tmp_path) as running:
            traced = Served(running.active, running.audit, running.settings, exporter=exporter())
            traced.post(
                "/predict", toys.RISKY, tracestate="a=1", traceparent=PARENT.format(flags="00")
            )
            traced.traces.close()
            assert traced.sample("credit_spans_exported_total") == len(STAGES) + 2
            assert traced.sample("credit_spans_dropped_total") == 0

    (export,) = received(collecting)
    (resource,) = export.resource_spans
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert named["service.name"] == "credit-risk-server"
    assert named["service.version"]
    (scope,) = resource.scope_spans
    found = {span.name: span for span in scope.spans}
    assert [*found] == ["batch", "POST /predict", *STAGES]
    request = found["POST /predict"]
    assert request.trace_id.hex() == TRACE_ID
    assert request.parent_span_id.hex() == PARENT[36:52]
    assert request.trace_state == "a=1"
    assert {found[stage].parent_span_id for stage in STAGES} == {request.span_id}


def test_without_an_address_there_is_no_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sampled then."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert exporter() is None
