"""Traces: one server span per sampled request with a child per stage, and linked batch spans.

Which requests are sampled is decided here and by chance alone: a caller can have its trace
continued (W3C trace context), but not have it recorded. A request that is not sampled costs one
random number. Spans are made from the times noted on the request's way, after its answer, by the
thread that counts (`monitoring.accounts`), and exported by another (`monitoring.exports`). No span
holds an applicant's value. Attributes are those of OpenTelemetry's stable conventions for HTTP,
and ``credit.*`` for what it has none for.

The exporter, its address and the service's name are set by OpenTelemetry's own variables
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME`` and so on); without an address nothing is
sampled.
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from credit_risk import __version__
from monitoring.exports import CLOSE_SECONDS, Exports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import AttributeValue

    from credit_risk.batching import Batched
    from monitoring.accounts import Answered

    Told = Callable[[int], None]

SERVICE = "credit-risk-server"
UNKNOWN_ROUTE = "unknown"
_ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACE_PARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
"""Only versions to come may have more than four parts."""
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
"""Those that the conventions know; a caller may make up others."""
OF_ANSWERS = (
    *("decision_id", "decision", "risk_band", "portfolio", "model_version", "policy_version"),
    *("rows", "decided", "refused", "failed"),
)
"""What a span has of the answer to a scoring call."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_INSTRUMENTATION = InstrumentationScope("credit_risk", __version__)
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)


@dataclass(frozen=True, slots=True)
class Continued:
    """A request in a caller's trace that is not sampled here."""

    trace_id: int


@dataclass(frozen=True, slots=True)
class Sampled(Continued):
    """A request that is sampled: its span's identity, and what is known of it from the start.

    ``parent`` is the caller's span, if there is one; ``connection`` the request as ASGI has it;
    ``batches`` are the spans of the batches it was scored in.
    """

    context: SpanContext
    parent: SpanContext | None
    connection: Mapping[str, Any]
    batches: list[SpanContext] = field(default_factory=list)

    @property
    def response(self) -> bytes:
        """The header ``traceresponse`` (W3C's draft), by which the caller finds the span."""
        return b"00-%032x-%016x-01" % (self.trace_id, self.context.span_id)


class _Resource(Resource):
    """The one resource there is. The library makes a text of it for each span, to sort them by."""

    def __hash__(self) -> int:
        return id(self)


class Traces:
    """Samples requests, and makes and exports their spans.

    Args:
        ratio: share of requests that are sampled, 0 to 1.
        exporter: where spans go; None samples nothing.
        exported: told how many spans the collector took.
        dropped: told how many were lost.
    """

    def __init__(
        self,
        ratio: float,
        exporter: SpanExporter | None,
        *,
        exported: Told = lambda _: None,
        dropped: Told = lambda _: None,
    ) -> None:
        self._ratio = 0.0 if exporter is None else ratio
        self._exports: Exports | None = None
        if exporter is not None:
            self._exports = Exports(exporter, exported=exported, dropped=dropped)
        resource = Resource.create(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME", SERVICE),
                "service.version": __version__,
                "service.instance.id": str(uuid.uuid4()),
            }
        )
        self._resource = _Resource(resource.attributes, resource.schema_url)

    def follow(
        self, parents: Sequence[bytes], states: Sequence[bytes], connection: Mapping[str, Any]
    ) -> Continued | None:
        """Decide about a request.

        Args:
            parents: its ``traceparent`` headers; more than one, or a malformed one, are none.
            states: its ``tracestate`` headers.
            connection: the request as ASGI has it.

        Returns:
            `Sampled`; or `Continued` if it is not, but in a trace of its caller's; or None.
        """
        found = _TRACE_PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
        if random.random() >= self._ratio:  # noqa: S311 - no secret
            return Continued(int(found[1], 16)) if found else None
        if found is None:
            context = _context(random.getrandbits(128) or 1)
            return Sampled(context.trace_id, context, None, connection)
        trace_id, state = (
            int(found[1], 16),
            TraceState.from_header([s.decode("latin-1") for s in states]),
        )
        parent = SpanContext(
            trace_id, int(found[2], 16), is_remote=True, trace_flags=_SAMPLED, trace_state=state
        )
        return Sampled(trace_id, _context(trace_id, state), parent, connection)

    def request(self, sampled: Sampled, answered: Answered) -> None:
        """Make the spans of a request that was answered. Called on one thread at a time."""
        call, epoch = answered.call, _epoch()
        is_error = answered.status >= 500 or not answered.status  # noqa: PLR2004 - as HTTP has it
        method = answered.method if answered.method in _METHODS else "HTTP"
        request = self._span(
            f"{method} {answered.route}",
            sampled.context,
            sampled.parent,
            (epoch + call.received, epoch + call.received + answered.seconds),
            kind=SpanKind.SERVER,
            attributes=_attributes(sampled, answered, is_error=is_error),
            links=[Link(batch) for batch in sampled.batches],
            status=_ERROR if is_error else _UNSET,
        )
        spans, begin = [request], call.received
        for stage, end in call.stages:
            context = _context(sampled.trace_id, sampled.context.trace_state)
            spans.append(self._span(stage, context, sampled.context, (epoch + begin, epoch + end)))
            begin = end
        self._put(spans)

    def batch(self, sampled: Sequence[Sampled], batch: Batched) -> None:
        """Make the span of a batch, and link it with the sampled requests in it."""
        epoch, context = _epoch(), _context(random.getrandbits(128) or 1)
        for request in sampled:
            request.batches.append(context)
        span = self._span(
            "batch",
            context,
            None,
            (epoch + batch.began, epoch + batch.ended),
            links=[Link(request.context) for request in sampled],
            attributes={
                "credit.batch.rows": batch.rows,
                "credit.portfolio": batch.package.portfolio,
                "credit.model_version": batch.package.version,
            },
        )
        self._put([span])

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Export what waits, for so long at most."""
        if self._exports is not None:
            self._exports.close(seconds)

    def _put(self, spans: Sequence[ReadableSpan]) -> None:
        if self._exports is not None:
            self._exports.put(spans)

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        times: tuple[float, float],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Sequence[Link] = (),
        status: Status = _UNSET,
    ) -> ReadableSpan:
        """A span that has ended; ``times`` are its beginning and end, seconds since the epoch.

        Made at once: to a tracer, what happened would have to be told again step by step, which
        takes ten times as long.
        """
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes or {},
            links=links,
            kind=kind,
            status=status,
            start_time=int(times[0] * 1e9),
            end_time=int(times[1] * 1e9),
            instrumentation_scope=_INSTRUMENTATION,
        )


def exporter() -> SpanExporter | None:
    """OTLP over HTTP where OpenTelemetry's variables say, or None where they say nothing."""
    if not any(os.environ.get(name) for name in _ADDRESSES):
        return None
    # Here, because most servers have no collector, and it takes a tenth of a second.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return OTLPSpanExporter()


def _context(trace_id: int, state: TraceState | None = None) -> SpanContext:
    """A new span of a trace."""
    span_id = random.getrandbits(64) or 1
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED, trace_state=state)


def _epoch() -> float:
    """What the clock of stages (`time.perf_counter`) is behind the clock of spans, seconds."""
    return time.time() - time.perf_counter()


def _attributes(
    sampled: Sampled, answered: Answered, *, is_error: bool
) -> dict[str, AttributeValue]:
    connection, answer = sampled.connection, answered.answer
    attributes: dict[str, AttributeValue] = {
        "http.request.method": answered.method if answered.method in _METHODS else "_OTHER",
        "url.path": answered.route,
        "url.scheme": connection["scheme"],
        "network.protocol.version": connection["http_version"],
        "credit.request_id": answered.call.request_id,
    }
    if answered.route != UNKNOWN_ROUTE:
        attributes["http.route"] = answered.route
    if answered.status:
        attributes["http.response.status_code"] = answered.status
    if connection.get("server"):
        attributes["server.address"], attributes["server.port"] = connection["server"]
    if is_error:
        attributes["error.type"] = answered.problem or "unanswered"
    elif answered.problem is not None:
        attributes["credit.problem"] = answered.problem
    attributes |= {f"credit.{name}": answer[name] for name in OF_ANSWERS if name in answer}
    return attributes
