"""Every metric, label and bucket, named in one place (prometheus_client).

Applicants' values never appear in a label; every label has a small, fixed set of values. With
several workers prometheus_client's multiprocess mode adds the workers up. What happens on a
request's way reaches them through `monitoring.accounts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from credit_risk.audit.checkpoints import Checkpoint
    from credit_risk.package import ModelPackage

LATENCY_BUCKETS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Seconds; every latency objective is an edge."""


BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Rows; a batch holds 256 at most."""


class Metrics:
    """The server's metrics, on the registry given (a fresh one in each test)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "credit_http_requests",
            "HTTP requests answered, by route template and status.",
            ["route", "status"],
            registry=registry,
        )
        self.duration = Histogram(
            "credit_http_request_duration_seconds",
            "Time from the request's arrival to its answer, by route template.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.decisions = Counter(
            "credit_decisions",
            "Decisions answered, by outcome and risk band.",
            ["portfolio", "model_version", "decision", "band"],
            registry=registry,
        )
        self.reasons = Counter(
            "credit_reasons",
            "Reason codes given.",
            ["portfolio", "code"],
            registry=registry,
        )
        self.rules = Counter(
            "credit_rule_hits",
            "Policy rules that decided or helped to decide.",
            ["portfolio", "rule"],
            registry=registry,
        )
        self.reviews = Counter(
            "credit_reviews",
            "Reviews closed by people, by their decision, the direction in which it overrides the "
            "server's, and the reason given.",
            ["portfolio", "decision", "override", "reason"],
            registry=registry,
        )
        self.problems = Counter(
            "credit_problems",
            "Requests answered with a problem, by its type.",
            ["type"],
            registry=registry,
        )
        self.records = Counter(
            "credit_records_written",
            "Records made durable, by kind.",
            ["kind"],
            registry=registry,
        )
        self.keyed = Counter(
            "credit_idempotent_requests",
            "Requests with an idempotency key: new, replayed, conflict (409) or mismatch (422).",
            ["outcome"],
            registry=registry,
        )
        self.batch_rows = Histogram(
            "credit_batch_rows",
            "Applications scored together.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.batch_wait = Histogram(
            "credit_batch_wait_seconds",
            "Longest wait in each batch until its scoring began.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.batch_queue = Gauge(
            "credit_batch_queue_rows",
            "Applications waiting to be scored, as the last batch left them.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.active = Gauge(
            "credit_model_active",
            "1 for the model package that decides, 0 for one that did before.",
            ["portfolio", "model_version", "policy_version"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.activation_failures = Counter(
            "credit_activation_failures",
            "Times an activated package could not be loaded, so that the one before stayed.",
            ["portfolio"],
            registry=registry,
        )
        self.checkpoint_number = Gauge(
            "credit_checkpoint_number",
            "Number of the checkpoint of the records made last.",
            multiprocess_mode="max",
            registry=registry,
        )
        self.checkpoint_last_record = Gauge(
            "credit_checkpoint_last_record",
            "Place in the chain of the last record under a checkpoint.",
            multiprocess_mode="max",
            registry=registry,
        )
        self.checkpoint_failures = Counter(
            "credit_checkpoint_failures",
            "Times that no checkpoint could be made.",
            registry=registry,
        )

    def checkpoint_made(self, checkpoint: Checkpoint) -> None:
        """Records are under a signed checkpoint."""
        self.checkpoint_number.set(checkpoint.number)
        self.checkpoint_last_record.set(checkpoint.last)

    def activated(self, package: ModelPackage, before: ModelPackage | None) -> None:
        """Another package decides from now on."""
        if before is not None:
            self.active.labels(before.portfolio, before.version, before.policy_version).set(0)
        self.active.labels(package.portfolio, package.version, package.policy_version).set(1)
        # At 0 before the first failure, so that a rise is seen; and the workers' files are all
        # open by now, so that nothing is lost where their folder is taken away later.
        self.activation_failures.labels(package.portfolio)

    def activation_failed(self, portfolio: str) -> None:
        """A wanted package could not be loaded."""
        self.activation_failures.labels(portfolio).inc()
