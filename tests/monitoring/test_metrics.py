"""Metrics: each is moved by what it counts, and no label grows with what callers send."""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, cast, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from credit_risk import decisions
from credit_risk.audit.checkpoints import Checkpoint
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.signer import Signer
from credit_risk.batching import Batched
from credit_risk.challenges import Challenge
from credit_risk.decisions import Call
from credit_risk.errors import RecordingFailed
from credit_risk.serving import app
from credit_risk.serving.following import ALIASES, Outcome
from credit_risk.serving.problems import FAILURES, KINDS
from credit_risk.serving.watch import LAG_SECONDS, Watch
from credit_risk.shadowing import Behind
from monitoring import logs
from monitoring.accounts import Answered
from monitoring.exports import Exports
from monitoring.metrics import LATENCY_BUCKETS, Metrics, WorkerMetrics, observe_all
from monitoring.vitals import Vitals
from tests import declared, served, toys
from tests.sealing import SEALING
from tests.served import Broken, Full, Served

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from starlette.types import Message

    from credit_risk.package import ModelPackage

CHECKPOINT = Checkpoint(1, 1, 9, "{}", b"", "key")
CHALLENGE = Challenge("id", toys.NAME, "0123456789ab", 0.05, "id", 0)
SENTINEL = "sentinel-6021023"


@pytest.fixture
def server(trees_package: ModelPackage, tmp_path: Path) -> Iterator[Served]:
    """A server of the toy trees that has answered nothing yet."""
    with served.serving(trees_package, tmp_path) as running:
        yield running


def series(server: Served) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Name and labels of every series there is."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in server.registry.collect()
        for sample in family.samples
    }


def move_all(server: Served) -> None:
    """Do everything once that a metric counts."""
    package = server.active.current
    server.metrics.activated(package, None)
    server.metrics.activation_failed(package.portfolio)
    server.metrics.checkpoint_made(CHECKPOINT)
    server.metrics.evidence.checkpoint_failures.inc()
    rule = toys.RISKY | {"price": 16_000.0}
    server.post("/predict/batch", {"applications": [toys.RISKY, toys.SAFE, rule, {}]})
    server.post("/predict", b"{", idempotency_key="key-1")
    server.active.current = replace(package, model=Broken(ZeroDivisionError))
    server.post("/predict", toys.SAFE)
    server.active.current = package
    server.accounts.flush()


# Each metric, and what moves it


def decide(server: Served) -> None:
    """A decision, with reasons, by a rule too, near a cut-off, of somebody out of the ordinary."""
    odd = {"price": 16_500.0, "years_employed": None, "use": "racing"}
    server.post("/predict", toys.RISKY | odd, idempotency_key=decisions.new_id())


def near(server: Served) -> None:
    """A decision that another model would make otherwise."""
    package = server.active.current
    server.active.current = replace(package, model=Broken(score=-1.38, base_value=-2.88))
    server.post("/predict", toys.SAFE)
    server.active.current = package


def unseen(server: Served) -> None:
    """A category that the schema knows and the reference population does not have."""
    package = server.active.current
    *others, use = package.profile.marginals
    of_nobody = use.model_copy(update={"shares": (0.0, 0.7, 0.3), "bins": (0.0, 0.7, 0.3)})
    narrow = package.profile.model_copy(update={"marginals": (*others, of_nobody)})
    server.active.current = replace(package, profile=narrow)
    server.post("/predict", toys.RISKY)
    server.active.current = package


def refuse(server: Served) -> None:
    """An application that is none."""
    server.post("/predict", {})


def review(server: Served) -> None:
    """A person decides what was referred; another case waits."""
    referred = toys.SAFE | {"years_employed": None}
    server.post("/predict", referred)
    decision_id = server.post("/predict", referred).json()["decision_id"]
    verdict = {"decision": "APPROVE", "reason": "INFORMATION_VERIFIED", "note": "Payslips seen."}
    server.post(f"/decisions/{decision_id}/review", verdict | {"reviewer": "ada"})


def activate(server: Served) -> None:
    """A worker starts with a package, and fails to load another."""
    server.metrics.started(2)
    server.metrics.activated(server.active.current, None)
    server.metrics.activation_failed(toys.NAME)


def challenge(server: Served) -> None:
    """A challenger is asked, falls behind, and ends too often; then it fails those it decides."""
    server.metrics.challenged(toys.NAME, CHALLENGE, None)
    server.metrics.shadowed(CHALLENGE, {"same": 3, "milder": 1}, 7)
    server.metrics.shadow_ended(CHALLENGE, "hung")
    server.metrics.shadow_behind(toys.NAME, Behind(9, 0.5), given_up=True)
    server.accounts.tried(server.active.current, 2, 1)
    server.metrics.challenged(toys.NAME, CHALLENGE._replace(suspended=True), CHALLENGE)


def ask(server: Served) -> None:
    """The model registry is asked what an alias stands for."""
    server.metrics.registry_expected(toys.NAME, ALIASES, get_args(Outcome))
    server.metrics.registry_asked(toys.NAME, "champion", "unmoved")


def wait(server: Served) -> None:
    """A request has begun, and a batch has left rows for the next."""
    server.accounts.arrived()
    server.accounts.batched(Batched(server.active.current, 1, 0.1, 7, 0.0, 1.0))


def commit(server: Served) -> None:
    """Records are made durable, and some are not, as the log is closed."""
    path = server.settings.state_dir / f"{decisions.new_id()}.db"
    log = SqlAuditLog(f"sqlite:///{path}", SEALING, observer=server.accounts)
    record = decisions.start_record(server.active.current)
    log.append([record]).result()
    log.close()
    with pytest.raises(RecordingFailed, match="closed"):
        log.append([record]).result()


def sign(server: Served) -> None:
    """A checkpoint, and one that cannot be made."""
    decide(server)
    server.signer.sign()
    server.metrics.evidence.checkpoint_failures.inc()


def read(server: Served) -> None:
    """A worker looks at itself; a line of its log had nowhere to go."""
    closed = io.StringIO()
    closed.close()
    outlet, root = logs.Outlet(closed), logging.getLogger()
    root.addHandler(outlet)
    outlet.emit(logging.makeLogRecord({"msg": "lost"}))
    outlet.close()
    Vitals(server.metrics, WorkerMetrics(server.registry), lambda: 3).read()
    root.removeHandler(outlet)


def watch(server: Served) -> None:
    """A worker asks itself whether it is ready, and what waits for people."""
    looking = Watch(server.calls.checks, lambda: 5, toys.NAME, server.metrics)

    async def main() -> None:
        looking.start()
        await looking.look()
        await asyncio.sleep(2 * LAG_SECONDS)
        looking.close()

    asyncio.run(main())


class Halves(SpanExporter):
    """Takes every other export."""

    def __init__(self) -> None:
        self.outcomes = itertools.cycle((SpanExportResult.SUCCESS, SpanExportResult.FAILURE))

    def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take it, or not."""
        return next(self.outcomes)


def trace(server: Served) -> None:
    """Spans are exported, and others are dropped."""
    process, span = server.metrics.process, ReadableSpan("span")
    told = {"exported": process.spans_exported.inc, "dropped": process.spans_dropped.inc}
    exports = Exports(Halves(), **told)
    exports.put([span] * 600)  # more than go together
    exports.close()


SCENARIOS = {
    "credit_http_requests_total": decide,
    "credit_http_request_duration_seconds": decide,
    "credit_http_response_duration_seconds": decide,
    "credit_http_requests_in_flight": wait,
    "credit_stage_duration_seconds": decide,
    "credit_batch_rows": decide,
    "credit_batch_wait_seconds": decide,
    "credit_batch_queue_rows": wait,
    "credit_decisions_total": decide,
    "credit_reasons_total": decide,
    "credit_rule_hits_total": decide,
    "credit_applications_refused_total": refuse,
    "credit_invalid_fields_total": refuse,
    "credit_reviews_total": review,
    "credit_reviews_waiting": watch,
    "credit_idempotent_requests_total": decide,
    "credit_score_bin_total": decide,
    "credit_score_bin_baseline_ratio": activate,
    "credit_near_cut_off_total": near,
    "credit_feature_bin_total": decide,
    "credit_feature_bin_baseline_ratio": activate,
    "credit_feature_missing_total": decide,
    "credit_feature_out_of_range_total": decide,
    "credit_feature_unseen_total": unseen,
    "credit_model_info": activate,
    "credit_build_info": activate,
    "credit_activation_failures_total": activate,
    "credit_registry_looks_total": ask,
    **dict.fromkeys(
        (
            *("credit_challenger_info", "credit_canary_share_ratio"),
            *("credit_canary_suspended", "credit_canary_decisions_total"),
            *("credit_shadow_decisions_total", "credit_shadow_skipped_records_total"),
            *("credit_shadow_process_failures_total", "credit_shadow_behind_records"),
            *("credit_shadow_lag_seconds", "credit_shadow_given_up"),
        ),
        challenge,
    ),
    "credit_records_written_total": decide,
    "credit_record_commit_seconds": commit,
    "credit_records_waiting": read,
    "credit_record_failures_total": commit,
    "credit_chain_intact": sign,
    "credit_chain_verified_timestamp_seconds": sign,
    "credit_checkpoint_number": sign,
    "credit_checkpoint_last_record": sign,
    "credit_checkpoint_failures_total": sign,
    "credit_ready": watch,
    "credit_workers_expected": activate,
    "credit_event_loop_lag_seconds": watch,
    "credit_spans_exported_total": trace,
    "credit_spans_dropped_total": trace,
    "credit_log_lines_dropped_total": read,
    "credit_workers": read,
    "credit_process_resident_memory_bytes": read,
    "credit_process_cpu_seconds": read,
    "credit_process_open_fds": read,
    "credit_process_start_time_seconds": read,
}
"""What moves each metric. One that is not here is one that nobody has seen move."""


def test_every_metric_has_a_scenario_that_moves_it() -> None:
    """None is declared and then forgotten."""
    assert list(SCENARIOS) == [metric.name for metric in declared.of_servers()]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_metric_is_moved_by_what_it_counts(server: Served, name: str) -> None:
    """From nothing to something."""
    assert server.metric(name) == 0

    SCENARIOS[name](server)
    server.accounts.flush()

    assert server.metric(name) > 0


def test_decisions_are_counted_by_outcome_and_band(server: Served) -> None:
    """Each row of a batch as each single one."""
    version = server.active.current.version
    server.post("/predict", toys.RISKY)
    server.post("/explain", toys.SAFE)
    server.post("/predict/batch", {"applications": [toys.RISKY, {}, toys.RISKY]})

    def counted(decision: str, band: str) -> float:
        labels = {"portfolio": toys.NAME, "model_version": version}
        return server.sample("credit_decisions_total", decision=decision, band=band, **labels)

    assert counted("DECLINE", "VERY_HIGH") == 3
    assert counted("APPROVE", "LOW") == 1
    assert counted("REVIEW", "HIGH") == 0


def test_reasons_and_rules_are_counted_by_code_and_name(server: Served) -> None:
    """As often as they were given."""
    rule = toys.SAFE | {"price": 16_000.0, "income": 90_000.0}
    answers = [server.post("/predict", a).json() for a in (toys.RISKY, rule, rule)]

    given = [reason["code"] for answer in answers for reason in answer["reasons"]]
    for code in toys.reasons().texts:
        counted = server.sample("credit_reasons_total", portfolio=toys.NAME, code=code)
        assert counted == given.count(code)
    rules = {"portfolio": toys.NAME, "rule": "price-above-limit"}
    assert server.sample("credit_rule_hits_total", **rules) == 2


def test_records_are_counted_by_kind_when_they_are_durable(server: Served) -> None:
    """The counts add up to what is in the log."""
    move_all(server)

    kinds = [record.kind for record in server.records()]
    assert len(kinds) == 6
    for kind in ("decision", "refusal", "failure"):
        counted = server.sample("credit_records_written_total", kind=kind)
        assert counted == kinds.count(kind) > 0


def test_nothing_is_counted_that_was_not_recorded(
    trees_package: ModelPackage, tmp_path: Path
) -> None:
    """Neither decisions, nor reasons, nor records."""
    with served.serving(trees_package, tmp_path, Full) as server:
        move_all(server)

        counted = {name for name, _ in series(server) if name.endswith("_total")}
        assert {name for name in counted if server.sample(name)} == {
            "credit_http_requests_total",
            "credit_activation_failures_total",
            "credit_checkpoint_failures_total",
        }
        assert server.sample("credit_http_requests_total", problem="not-recorded") == 3


def test_requests_are_counted_and_timed_by_route_and_status(server: Served) -> None:
    """By the route's template, whatever was put into it."""
    server.get("/livez")
    server.get("/problems/not-found")
    server.get("/problems/body-too-large")
    server.get("/problems/made-up")
    server.get("/docs/assets/swagger-ui.css")
    server.client.delete("/predict")

    for route, status_class, problem, number in (
        ("/livez", "2xx", "none", 1),
        ("/problems/{slug}", "2xx", "none", 2),
        ("/problems/{slug}", "4xx", "not-found", 1),
        ("/docs", "2xx", "none", 1),
        ("/predict", "4xx", "method-not-allowed", 1),
    ):
        labels = {"route": route, "status_class": status_class, "problem": problem}
        assert server.sample("credit_http_requests_total", **labels) == number
    timed = server.sample("credit_http_request_duration_seconds_count", route="/problems/{slug}")
    assert timed == 3


def test_the_time_of_a_request_falls_into_its_bucket(server: Served) -> None:
    """Every latency objective is an edge; what took longer than the last is in the sum."""
    assert sorted(LATENCY_BUCKETS) == list(LATENCY_BUCKETS)
    server.post("/predict", toys.SAFE)

    name, route = "credit_http_request_duration_seconds", "/predict"
    counts = [server.sample(f"{name}_bucket", route=route, le=str(le)) for le in LATENCY_BUCKETS]
    total = server.sample(f"{name}_sum", route=route)
    assert counts == sorted(counts)
    assert total > 0
    for edge, count in zip(LATENCY_BUCKETS, counts, strict=True):
        assert count == (1 if total <= edge else 0)
    assert server.sample(f"{name}_bucket", route=route, le="+Inf") == 1


def test_problems_are_counted_by_type(server: Served) -> None:
    """Those of every path."""
    server.post("/predict", b"{")
    server.post("/explain", b"{")
    server.post("/predict", {})
    server.get("/nope")

    for slug, number in (("malformed-json", 2), ("invalid-application", 1), ("not-found", 1)):
        assert server.sample("credit_http_requests_total", problem=slug) == number


def test_the_first_failure_is_a_rise_and_no_beginning(server: Served) -> None:
    """Prometheus does not count what a series begins with, so a failure's is there before."""
    server.metrics.http.expect(app.SCORING, FAILURES)
    before = series(server)

    server.active.current = replace(server.active.current, model=Broken(ZeroDivisionError))
    server.post("/predict", toys.SAFE)

    labels = {"route": "/predict", "status_class": "5xx", "problem": "internal-error"}
    assert ("credit_http_requests_total", tuple(sorted(labels.items()))) in before
    assert server.sample("credit_http_requests_total", **labels) == 1.0
    assert set(app.SCORING) == set(served.SCORING)


def test_a_slow_sender_is_not_held_against_the_server(server: Served) -> None:
    """Time for the objective begins when the body is there; one that never comes has none."""
    call = Call("/predict", "request-1")
    call.stages.append(("read", call.received + 9.0))
    server.accounts.arrived()
    server.accounts.answered(Answered(call, "POST", "/predict", 200, 9.25, {}, None, 1e9))
    cut_off = Call("/predict", "request-2")
    server.accounts.arrived()
    server.accounts.answered(Answered(cut_off, "POST", "/predict", 408, 30.0, {}, None, 1e9))
    server.accounts.flush()

    name = "credit_http_{}_duration_seconds_{}".format
    assert server.sample(name("request", "count")) == 2
    assert server.sample(name("request", "sum")) == pytest.approx(39.25)
    assert server.sample(name("response", "count")) == 1
    assert server.sample(name("response", "sum")) == pytest.approx(0.25)


def test_what_is_rare_is_there_before_it_happens(server: Served) -> None:
    """Whatever is done, it makes no series that was not there when worker or challenge began."""
    package = server.active.current
    server.metrics.started(1)
    server.metrics.activated(package, None)
    server.metrics.challenged(toys.NAME, CHALLENGE, None)
    server.metrics.registry_expected(toys.NAME, ALIASES, get_args(Outcome))
    server.metrics.http.expect(app.SCORING, FAILURES)
    before = series(server)

    move_all(server)
    for scenario in dict.fromkeys(SCENARIOS.values()):
        # Other than these: gauges, and series of a worker, that are there once it serves.
        if scenario not in {read, watch}:
            scenario(server)
    server.accounts.flush()

    # What callers can get wrong, in which way and where, is not rare.
    new = {(name, labels) for name, labels in series(server) - before if "_http_" not in name}
    assert new == set()
    ways = {labels for name, labels in before if name == "credit_reviews_total"}
    texts = len(package.reasons.texts) + len(package.policy.review.reasons)
    assert len(ways) == 2 * texts


def test_made_up_requests_add_no_series(server: Served) -> None:
    """A scanner's thousands of URLs are one line; so are its headers, methods and bodies."""
    move_all(server)
    server.get("/nope")
    server.get("/problems/nope")
    server.get("/docs/assets/nope")
    server.client.request("DELETE", "/predict")
    server.post("/predict", {"more": 1})
    before = series(server)

    def scope(i: int, method: str, path: str) -> dict[str, object]:
        made_up = (b"user-agent", b"x-request-id", b"traceparent", b"tracestate", b"host")
        headers = [(name, f"{SENTINEL}{i}".encode()) for name in made_up]
        return {
            "type": "http",
            "method": method.format(i),
            "path": path.format(i),
            "query_string": f"{SENTINEL}={i}".encode(),
            "headers": [*headers, (b"content-type", b"application/json")],
            "scheme": "http",
            "http_version": "1.1",
        }

    async def main() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"%b": 1}' % SENTINEL.encode()}

        async def send(message: Message) -> None:
            assert message["type"].startswith("http.response.")

        for i in range(1_000):
            for asked in (
                ("GET", f"/nope/{SENTINEL}/{{}}"),
                ("GET", f"/problems/{SENTINEL}{{}}"),
                ("GET", f"/docs/assets/{SENTINEL}{{}}.js"),
                ("DELETE", "/predict"),
                ("M{}", "/nope"),
            ):
                await server.server(scope(i, *asked), receive, send)
        for i in range(20):
            await server.server(scope(i, "POST", "/predict"), receive, send)

    asyncio.run(main())
    server.accounts.flush()

    assert series(server) == before
    unknown = server.sample("credit_http_requests_total", route="unknown", status_class="4xx")
    assert unknown == 2_001


def test_labels_have_few_values_and_none_of_an_applicant(server: Served) -> None:
    """Routes, types, codes and versions; never a field's value."""
    sent = toys.RISKY | {"income": 4321.0625, "price": 16_000.0}
    for path in ("/predict", "/explain", "/predict/explain"):
        server.post(path, sent)
        server.post(path, sent | {"use": SENTINEL})
    server.get(f"/{SENTINEL}")

    routes = {route.path for route in app.routes(server.calls)} | {"unknown"}
    for _, labels in series(server):
        for label, value in labels:
            assert label != "route" or value in routes
            assert label != "problem" or value in {*KINDS, "none"}
    # Without the numbers: a time in seconds has any digits.
    text = re.sub(r" [0-9.e+-]+$", "", server.get("/metrics").text, flags=re.MULTILINE)
    for value in (SENTINEL, "4321"):
        assert value not in text


def test_one_package_is_active(
    server: Served, trees_package: ModelPackage, linear_package: ModelPackage
) -> None:
    """1 for the one that decides, 0 for the one before."""

    def active(package: ModelPackage) -> float | None:
        labels = {
            "portfolio": toys.NAME,
            "model_version": package.version,
            "policy_version": package.policy_version,
            "estimator": "written by hand",
        }
        return server.registry.get_sample_value("credit_model_info", labels)

    server.metrics.activated(trees_package, None)
    assert (active(trees_package), active(linear_package)) == (1, None)
    server.metrics.activated(linear_package, trees_package)
    assert (active(trees_package), active(linear_package)) == (0, 1)
    server.metrics.activated(trees_package, linear_package)
    assert (active(trees_package), active(linear_package)) == (1, 0)


def test_failed_activations_are_counted(server: Served) -> None:
    """By portfolio."""
    server.metrics.activation_failed(toys.NAME)
    server.metrics.activation_failed(toys.NAME)

    assert server.sample("credit_activation_failures_total", portfolio=toys.NAME) == 2


def test_checkpoints_say_how_far_they_reach(server: Served) -> None:
    """As those that make them tell; failures are counted."""
    log = cast("SqlAuditLog", server.audit)
    made, failed = server.metrics.checkpoint_made, server.metrics.evidence.checkpoint_failures.inc
    signer = Signer(log, Ed25519PrivateKey.generate(), 3_600.0, made=made, failed=failed)
    for number, records in ((1, 1), (2, 3)):
        while server.audit.count() < records:
            server.post("/predict", toys.SAFE)
        signer.sign()
        assert server.sample("credit_checkpoint_number") == number
        assert server.sample("credit_checkpoint_last_record") == records
    assert server.sample("credit_checkpoint_failures_total") == 0
    failed()
    assert server.sample("credit_checkpoint_failures_total") == 1


def test_the_metrics_are_prometheus_text_with_help(server: Served) -> None:
    """As a scraper reads them."""
    move_all(server)

    response = server.get("/metrics")

    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(response.text))
    assert all(family.documentation.endswith(".") for family in families)
    assert {"counter", "gauge", "histogram"} <= {family.type for family in families}


def test_metrics_are_on_the_registry_they_are_given() -> None:
    """Two servers in one process count apart; twice on one registry is a mistake."""
    registry = CollectorRegistry()
    Metrics(registry)
    Metrics(CollectorRegistry())

    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(registry)


def test_many_values_are_observed_as_one_by_one() -> None:
    """On edges, between them, beyond the last; the library has no way of its own."""
    one, all_at_once = (Histogram("h", "H.", buckets=(1, 2, 5), registry=None) for _ in range(2))
    values = [0.0, 1.0, 1.5, 2.0, 4.9, 5.0, 7.0, 7.0]

    for value in values:
        one.observe(value)
    observe_all(all_at_once, values)

    (expected,), (found,) = one.collect(), all_at_once.collect()
    assert [s[:3] for s in found.samples if not s.name.endswith("_created")] == [
        s[:3] for s in expected.samples if not s.name.endswith("_created")
    ]
