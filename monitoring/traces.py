"""Traces: one server span per sampled request with a child per stage, and linked batch spans.

Which requests are sampled is decided here and by chance alone: a caller can have its trace
continued (W3C trace context), but not have it recorded. A request that is not sampled costs one
random number. Spans are made from the times noted on the request's way, after its answer, by the
thread that counts (`monitoring.accounts`); the SDK's own thread exports them, keeps a bounded
number and drops the rest. No span holds an applicant's value.

The exporter, its address and the service's name are set by OpenTelemetry's own variables
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME`` and so on); without an address nothing is
sampled.
"""

from __future__ import annotations

import os
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import AttributeValue

    from monitoring.accounts import Answered

SERVICE = "credit-risk-server"
_ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACE_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_OF_ANSWERS = (
    "decision_id",
    "decision",
    "risk_band",
    "portfolio",
    "model_version",
    "policy_version",
)
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)


@dataclass(frozen=True, slots=True)
class Sampled:
    """The identity of a sampled request's span; ``parent_id`` is the caller's span, if any."""

    trace_id: int
    span_id: int
    parent_id: int | None

    @property
    def context(self) -> SpanContext:
        """As a parent, or to link to."""
        return SpanContext(self.trace_id, self.span_id, is_remote=False, trace_flags=_SAMPLED)


class _Ids(IdGenerator):
    """Random ids, unless the next one was decided before."""

    def __init__(self) -> None:
        self.next_trace: int | None = None
        self.next_span: int | None = None

    def generate_span_id(self) -> int:
        """The span id decided before, or a new one."""
        given, self.next_span = self.next_span, None
        return given or random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        """The trace id decided before, or a new one."""
        given, self.next_trace = self.next_trace, None
        return given or random.getrandbits(128) or 1


class Traces:
    """Samples requests, and makes and exports their spans.

    Args:
        ratio: share of requests that are sampled, 0 to 1.
        exporter: where spans go; None samples nothing.
    """

    def __init__(self, ratio: float, exporter: SpanExporter | None) -> None:
        self._ratio = 0.0 if exporter is None else ratio
        # What the clock of stages (`time.perf_counter`) is behind the clock of spans, ns.
        self._epoch = time.time_ns() - time.perf_counter_ns()
        self._ids = _Ids()
        name = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({"service.name": name}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        if exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("credit_risk")

    def sample(self, trace_parent: bytes | None) -> Sampled | None:
        """Decide about a request.

        Args:
            trace_parent: its ``traceparent`` header, if it has one; a malformed one counts as none.

        Returns:
            The identity of the span to be, or None for a request that is not sampled.
        """
        if random.random() >= self._ratio:  # noqa: S311 - no secret
            return None
        found = _TRACE_PARENT.fullmatch(trace_parent or b"")
        trace_id, parent_id = (int(found[1], 16), int(found[2], 16)) if found else (0, 0)
        span_id = random.getrandbits(64) or 1
        if not trace_id or not parent_id:
            return Sampled(random.getrandbits(128) or 1, span_id, None)
        return Sampled(trace_id, span_id, parent_id)

    def request(self, sampled: Sampled, answered: Answered) -> None:
        """Make the spans of a request that was answered. Called on one thread at a time."""
        parent, call, answer = None, answered.call, answered.answer
        self._ids.next_span = sampled.span_id
        if sampled.parent_id is None:
            self._ids.next_trace = sampled.trace_id
        else:
            remote = SpanContext(
                sampled.trace_id, sampled.parent_id, is_remote=True, trace_flags=_SAMPLED
            )
            parent = trace.set_span_in_context(NonRecordingSpan(remote))
        attributes: dict[str, AttributeValue] = {
            "http.request.method": answered.method,
            "http.route": answered.route,
            "http.response.status_code": answered.status,
            "url.path": answered.route,
            "url.scheme": "http",
            "credit.request_id": call.request_id,
        }
        attributes |= {f"credit.{name}": answer[name] for name in _OF_ANSWERS if name in answer}
        if answered.problem is not None:
            attributes["error.type"] = answered.problem
        span = self._tracer.start_span(
            f"{answered.method} {answered.route}",
            parent,
            SpanKind.SERVER,
            attributes,
            start_time=self._at(call.received),
        )
        here = trace.set_span_in_context(span)
        begin = call.received
        for stage, end in call.stages:
            child = self._tracer.start_span(stage, here, start_time=self._at(begin))
            child.end(self._at(end))
            begin = end
        if answered.status >= 500:  # noqa: PLR2004 - a server's errors, as the conventions have it
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._at(call.received + answered.seconds))

    def batch(self, links: Sequence[Sampled], rows: int, begin: float, end: float) -> None:
        """Make the span of a batch, linked to the requests in it that are sampled."""
        span = self._tracer.start_span(
            "batch",
            trace.set_span_in_context(trace.INVALID_SPAN),
            links=[Link(sampled.context) for sampled in links],
            attributes={"credit.batch.rows": rows},
            start_time=self._at(begin),
        )
        span.end(self._at(end))

    def close(self) -> None:
        """Export what waits, within the exporter's own time."""
        self._provider.shutdown()

    def _at(self, moment: float) -> int:
        return self._epoch + int(moment * 1e9)


def exporter() -> SpanExporter | None:
    """OTLP over HTTP where OpenTelemetry's variables say, or None where they say nothing."""
    if not any(os.environ.get(name) for name in _ADDRESSES):
        return None
    # Here, because most servers have no collector, and it takes a tenth of a second.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return OTLPSpanExporter()
