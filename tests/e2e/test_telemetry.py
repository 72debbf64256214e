"""Traces and logs of a real server: two workers, OTLP on the wire, lines on standard output."""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks import collector
from credit_risk import package, profile
from tests.e2e.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tests.e2e.conftest import RunningServer

pytestmark = pytest.mark.e2e

CLIENTS = 8
EACH = 10
STAGES = ["read", "validate", "wait", "encode", "score", "decide", "explain", "record"]


def applicants(number: int) -> list[dict[str, Any]]:
    """Made-up applicants of the default package."""
    folder = ROOT / "packages" / "personal-loans"
    shipped = package.load(folder / (folder / "default").read_text(encoding="utf-8").strip())
    rows = profile.draw(shipped.profile, shipped.schema, number, 0)
    return [shipped.schema.application(row) for row in rows.tolist()]


def attributes(span: Span) -> dict[str, Any]:
    """A span's attributes."""
    values = ((a.key, a.value) for a in span.attributes)
    return {key: getattr(value, value.WhichOneof("value") or "") for key, value in values}


def test_each_sampled_request_is_a_trace_with_its_stages_and_a_line(
    start: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over both workers: parents, times, links both ways, ids in answers, spans and lines alike."""
    people = applicants(CLIENTS * EACH)

    with collector.collecting(keeps=True) as collecting:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collecting.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        server = start(trace_ratio="1")

        def send(number: int) -> list[httpx.Response]:
            mine = people[number * EACH : (number + 1) * EACH]
            with httpx.Client(base_url=server.url, timeout=60) as client:
                return [client.post("/predict", json=one) for one in mine]

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = [answer for part in pool.map(send, range(CLIENTS)) for answer in part]
        assert server.stop() == 0

    spans = [
        span
        for body in collecting.bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    children: defaultdict[bytes, list[Span]] = defaultdict(list)
    for span in spans:
        children[span.parent_span_id].append(span)
    requests = {s.span_id.hex(): s for s in spans if s.name == "POST /predict"}
    batches = {s.span_id: s for s in spans if s.name == "batch"}
    lines = _lines(server)
    told = {line["request_id"]: line for line in lines if line["message"] == "request"}

    assert len(requests) == len(answers) == CLIENTS * EACH
    for answer in answers:
        _, trace_id, span_id, flags = answer.headers["traceresponse"].split("-")
        request = requests[span_id]
        assert (request.trace_id.hex(), flags) == (trace_id, "01")
        assert attributes(request)["credit.decision_id"] == answer.json()["decision_id"]
        stages = children[request.span_id]
        assert [stage.name for stage in stages] == STAGES
        assert {stage.trace_id for stage in stages} == {request.trace_id}
        times = [request.start_time_unix_nano]
        times += [t for s in stages for t in (s.start_time_unix_nano, s.end_time_unix_nano)]
        times.append(request.end_time_unix_nano)
        assert times == sorted(times)
        (link,) = request.links
        batch = batches[link.span_id]
        assert (request.trace_id, request.span_id) in {
            (back.trace_id, back.span_id) for back in batch.links
        }
        assert batch.start_time_unix_nano <= stages[3].end_time_unix_nano
        line = told[answer.headers["x-request-id"]]
        assert line["trace_id"] == trace_id
        assert line["decision_id"] == answer.json()["decision_id"]
    assert sum(attributes(batch)["credit.batch.rows"] for batch in batches.values()) == len(answers)
    serving = [line for line in lines if line["message"] == "a worker serves"]
    assert len({line["pid"] for line in serving}) == 2


def _lines(server: RunningServer) -> list[dict[str, Any]]:
    """Every line of the log; the first is what the command says to people."""
    first, *lines = server.log.read_text(encoding="utf-8").splitlines()
    assert first.startswith("serving ")
    return [json.loads(line) for line in lines]
