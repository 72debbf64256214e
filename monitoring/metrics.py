"""Every metric, label and bucket, named in one place (prometheus_client).

Applicants' values never appear in a label; every label has a small, fixed set of values. With
several workers prometheus_client's multiprocess mode adds the workers up; what is true of each of
them alone has a label ``pid`` then. What happens on a request's way reaches them through
`monitoring.accounts`.
"""

from __future__ import annotations

import itertools
import platform
import time
from bisect import bisect_left
from collections import Counter as Tally
from functools import partial
from importlib.metadata import version as library_version
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from credit_risk import __version__
from credit_risk.audit.records import RecordKind
from credit_risk.idempotency import Outcome
from credit_risk.policy import DECISIONS, SEVERITY
from credit_risk.shadowing import Cause
from credit_risk.stability import FLOOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from credit_risk.audit.checkpoints import Checkpoint
    from credit_risk.challenges import Challenge
    from credit_risk.package import ModelPackage
    from credit_risk.reviews import Direction, PersonsDecision
    from credit_risk.shadowing import Behind

LATENCY_BUCKETS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Seconds; every latency objective is an edge."""

STAGES = (
    *("read", "claim", "validate", "wait", "record"),
    *("encode", "score", "decide", "explain"),
)
"""Those of a request, and those of a batch."""

STAGE_BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, *LATENCY_BUCKETS[:11])
"""Seconds; most stages take a fraction of the shortest request."""

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Rows; a batch holds 256 at most."""

OTHER_FIELD = "other"
"""What stands for a place in a refused application that is no field of the schema."""


class HttpMetrics:
    """Requests and their answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "credit_http_requests",
            "HTTP requests answered, by route template, class of status (none: it could not be "
            "answered) and problem.",
            ["route", "status_class", "problem"],
            registry=registry,
        )
        self.duration = Histogram(
            "credit_http_request_duration_seconds",
            "Time from the request's arrival to its answer, by route template.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.served = Histogram(
            "credit_http_response_duration_seconds",
            "Time from a scoring request's being there whole, its body read, to its answer, by "
            "route template; one that never came whole has none.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "credit_http_requests_in_flight",
            "Requests that have no answer yet, the one for these metrics among them.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def expect(self, routes: Iterable[str], failures: Iterable[str]) -> None:
        """Have what may come of requests at 0: a rise that is a series' first value is not seen.

        Args:
            routes: those that objectives are about.
            failures: problems that are faults of ours.
        """
        problems = tuple(failures)
        for route in routes:
            self.duration.labels(route)
            self.served.labels(route)
            self.requests.labels(route, "2xx", "none")
            for problem in problems:
                self.requests.labels(route, "5xx", problem)


class ScoringMetrics:
    """Where the time goes, and what is scored together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.stage = Histogram(
            "credit_stage_duration_seconds",
            "Time in each stage: read, claim, validate, wait and record of a request; encode, "
            "score, decide and explain of a batch.",
            ["stage"],
            buckets=STAGE_BUCKETS,
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


class DecisionMetrics:
    """What was decided, by the server and by people, and what was refused."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        self.decisions = counter(
            "credit_decisions",
            "Decisions answered, by outcome and risk band.",
            ["portfolio", "model_version", "policy_version", "decision", "band"],
        )
        self.reasons = counter(
            "credit_reasons",
            "Reason codes given.",
            ["portfolio", "model_version", "code"],
        )
        self.rules = counter(
            "credit_rule_hits",
            "Policy rules that decided or helped to decide.",
            ["portfolio", "model_version", "rule"],
        )
        self.refused = counter(
            "credit_applications_refused",
            "Applications refused because they do not satisfy the schema.",
            ["portfolio"],
        )
        self.invalid_fields = counter(
            "credit_invalid_fields",
            "Fields at fault in refused applications; what is no field of the schema is other.",
            ["portfolio", "field"],
        )
        self.reviews = counter(
            "credit_reviews",
            "Reviews closed by people, by their decision, the direction in which it overrides the "
            "server's, and the reason given.",
            ["portfolio", "decision", "override", "reason"],
        )
        self.reviews_waiting = Gauge(
            "credit_reviews_waiting",
            "Decisions referred to people who have not decided yet.",
            ["portfolio"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self.keyed = counter(
            "credit_idempotent_requests",
            "Requests with an idempotency key: new, replayed, conflict (409) or mismatch (422).",
            ["outcome"],
        )


class PopulationMetrics:
    """Who applies, held against the population that the package knows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        # What a dead worker said of the reference stays true, as long as its counts stay.
        gauge = partial(Gauge, multiprocess_mode="max", registry=registry)
        of_package = ["portfolio", "model_version"]
        of_field = [*of_package, "feature"]
        self.score_bin = counter(
            "credit_score_bin",
            "Decisions by bin of their PD; the bins are the reference population's tenths.",
            [*of_package, "bin"],
        )
        self.score_baseline = gauge(
            "credit_score_bin_baseline_ratio",
            "Share of the reference population in each bin of the PD, at least 0.0001.",
            [*of_package, "bin"],
        )
        self.near_cut_off = counter(
            "credit_near_cut_off",
            "Decisions whose PD is within 0.02 of an edge between bands that decide differently.",
            of_package,
        )
        self.feature_bin = counter(
            "credit_feature_bin",
            "Decisions by bin of each field: of numbers 01 to 10 in order, of categories the "
            "category, and missing.",
            [*of_field, "bin"],
        )
        self.feature_baseline = gauge(
            "credit_feature_bin_baseline_ratio",
            "Share of the reference population in each bin of each field, at least 0.0001.",
            [*of_field, "bin"],
        )
        self.missing = counter(
            "credit_feature_missing",
            "Decisions about applications that leave the field out.",
            of_field,
        )
        self.out_of_range = counter(
            "credit_feature_out_of_range",
            "Decisions about applications whose number lies outside the middle 99.9 % of the "
            "reference population's.",
            of_field,
        )
        self.unseen = counter(
            "credit_feature_unseen",
            "Decisions about applications of a category that the reference population does not "
            "have.",
            of_field,
        )

    def of(self, package: ModelPackage) -> list[tuple[Counter, ...]]:
        """What counts each cell of the package's population, in their order."""
        of_package = (package.portfolio, package.version)
        counters: list[tuple[Counter, ...]] = []
        for cell in package.population.cells:
            of_field = (*of_package, cell.field)
            if cell.kind == "score":
                counters.append((self.score_bin.labels(*of_package, cell.bin),))
            elif cell.kind == "near-cut-off":
                counters.append((self.near_cut_off.labels(*of_package),))
            elif cell.kind == "out-of-range":
                counters.append((self.out_of_range.labels(*of_field),))
            else:
                in_bin = self.feature_bin.labels(*of_field, cell.bin)
                if cell.kind == "missing":
                    counters.append((in_bin, self.missing.labels(*of_field)))
                elif cell.kind == "category" and not cell.share:
                    counters.append((in_bin, self.unseen.labels(*of_field)))
                else:
                    counters.append((in_bin,))
        return counters

    def expect(self, package: ModelPackage) -> None:
        """Tell the package's reference shares, and have all that is counted against it at 0."""
        self.of(package)
        of_package = (package.portfolio, package.version)
        for cell in package.population.cells:
            share, of_field = max(cell.share, FLOOR), (*of_package, cell.field)
            if cell.kind == "score":
                self.score_baseline.labels(*of_package, cell.bin).set(share)
            elif cell.bin:
                self.feature_baseline.labels(*of_field, cell.bin).set(share)
            if cell.kind == "category":
                self.unseen.labels(*of_field)


class PackageMetrics:
    """What decides."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.model_info = Gauge(
            "credit_model_info",
            "1 for the model package that decides, 0 for one that did before.",
            ["portfolio", "model_version", "policy_version", "estimator"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.build_info = Gauge(
            "credit_build_info",
            "1, with the versions of the server, of Python and of BentoML.",
            ["version", "python", "bentoml"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.activation_failures = Counter(
            "credit_activation_failures",
            "Times an activated package could not be loaded, so that the one before stayed.",
            ["portfolio"],
            registry=registry,
        )
        self.registry_looks = Counter(
            "credit_registry_looks",
            "Times the model registry was asked what an alias stands for, by what came of it.",
            ["portfolio", "alias", "outcome"],
            registry=registry,
        )


class ChallengerMetrics:
    """The package that challenges what decides, and who asks it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        # What the worker that looked last found: another one may have had the process before.
        gauge = partial(Gauge, multiprocess_mode="livemostrecent", registry=registry)
        self.info = gauge(
            "credit_challenger_info",
            "1 for the package that challenges the one that decides, 0 for one that did before.",
            ["portfolio", "model_version"],
        )
        self.share = gauge(
            "credit_canary_share_ratio",
            "Share of applicants that the challenger is to decide about.",
            ["portfolio"],
        )
        self.suspended = gauge(
            "credit_canary_suspended",
            "1 if the challenger failed so often that it decides about nobody any more.",
            ["portfolio"],
        )
        self.canary = counter(
            "credit_canary_decisions",
            "Applications that the challenger was to decide about: decided, or failed and left to "
            "the champion.",
            ["portfolio", "model_version", "outcome"],
        )
        self.shadowed = counter(
            "credit_shadow_decisions",
            "Decisions that the other one of champion and challenger was asked about, by what the "
            "challenger says: same, milder, stricter, or failed.",
            ["portfolio", "model_version", "outcome"],
        )
        self.skipped = counter(
            "credit_shadow_skipped_records",
            "Records that were left out because the challenger was too far behind.",
            ["portfolio"],
        )
        self.failures = counter(
            "credit_shadow_process_failures",
            "Times that the process which asks the challenger ended: crashed, hung, memory or "
            "package.",
            ["portfolio", "cause"],
        )
        self.behind = gauge(
            "credit_shadow_behind_records",
            "Records that the challenger is behind.",
            ["portfolio"],
        )
        self.lag = gauge(
            "credit_shadow_lag_seconds",
            "How long the first decision waits that the challenger was not asked about.",
            ["portfolio"],
        )
        self.given_up = gauge(
            "credit_shadow_given_up",
            "1 if the challenger is asked no more, because its process ended too often.",
            ["portfolio"],
        )


class EvidenceMetrics:
    """Records, their chain and its checkpoints."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "credit_records_written",
            "Records made durable, by kind.",
            ["kind"],
            registry=registry,
        )
        self.commit = Histogram(
            "credit_record_commit_seconds",
            "Time from handing over the records of a request until they are durable.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.waiting = Gauge(
            "credit_records_waiting",
            "Records handed over that are not durable yet.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.failures = Counter(
            "credit_record_failures",
            "Times that what was handed over for one request could not be made durable, and did "
            "not come about.",
            registry=registry,
        )
        # Whoever looked last: a worker that has ended may have been the one that found it broken.
        self.chain_intact = Gauge(
            "credit_chain_intact",
            "1 if the records since the checkpoint before linked up to the head when last looked "
            "at, 0 if not.",
            multiprocess_mode="mostrecent",
            registry=registry,
        )
        self.chain_verified = Gauge(
            "credit_chain_verified_timestamp_seconds",
            "When the chain was last found unbroken.",
            multiprocess_mode="max",
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


class ProcessMetrics:
    """What all workers tell of themselves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        self.ready = Gauge(
            "credit_ready",
            "1 if the check (model, records) succeeds in every worker, 0 if not.",
            ["check"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.workers_expected = Gauge(
            "credit_workers_expected",
            "Workers that are to serve.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.loop_lag = Histogram(
            "credit_event_loop_lag_seconds",
            "How late the event loop comes to what is due, looked at several times a second.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.spans_exported = counter(
            "credit_spans_exported", "Spans that the collector of traces took."
        )
        self.spans_dropped = counter(
            "credit_spans_dropped",
            "Spans lost: too many were waiting, or the collector did not take them.",
        )
        self.log_lines_dropped = counter(
            "credit_log_lines_dropped",
            "Log lines lost because standard output took none.",
        )


class WorkerMetrics:
    """What there is of a worker that serves, and of none that starts, or fails to again and again.

    To be made when it serves: without labels, a series is there from then on.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        of_each = partial(Gauge, multiprocess_mode="liveall", registry=registry)
        self.serving = Gauge(
            "credit_workers",
            "Workers that serve.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.resident_memory = of_each(
            "credit_process_resident_memory_bytes", "Resident memory of the worker."
        )
        self.cpu = of_each("credit_process_cpu_seconds", "Core time used by the worker so far.")
        self.open_fds = of_each("credit_process_open_fds", "File descriptors the worker has open.")
        self.start_time = of_each(
            "credit_process_start_time_seconds", "When the worker was started."
        )


class Metrics:
    """The server's metrics, on the registry given (a fresh one in each test)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.http = HttpMetrics(registry)
        self.scoring = ScoringMetrics(registry)
        self.decisions = DecisionMetrics(registry)
        self.population = PopulationMetrics(registry)
        self.packages = PackageMetrics(registry)
        self.challenger = ChallengerMetrics(registry)
        self.evidence = EvidenceMetrics(registry)
        self.process = ProcessMetrics(registry)
        for kind in get_args(RecordKind):
            self.evidence.records.labels(kind)
        for outcome in get_args(Outcome):
            self.decisions.keyed.labels(outcome)
        for stage in STAGES:
            self.scoring.stage.labels(stage)

    def started(self, workers: int) -> None:
        """This process is going to be a worker, one of so many."""
        versions = (__version__, platform.python_version(), library_version("bentoml"))
        self.packages.build_info.labels(*versions).set(1)
        self.process.workers_expected.set(workers)

    def activated(self, package: ModelPackage, before: ModelPackage | None) -> None:
        """Another package decides from now on.

        What is counted of it is there from the first moment, at 0, so that the first rise is seen;
        and the workers' files are all open by now, so that nothing is lost where their folder is
        taken away later.
        """
        if before is not None:
            self.packages.model_info.labels(*_info(before)).set(0)
        self.packages.model_info.labels(*_info(package)).set(1)
        self.expect(package)

    def expect(self, package: ModelPackage) -> None:
        """A package is going to decide: what is counted of it is there, at 0."""
        self.packages.activation_failures.labels(package.portfolio)
        for outcome in ("decided", "failed"):
            self.challenger.canary.labels(package.portfolio, package.version, outcome)
        self.decisions.refused.labels(package.portfolio)
        for name in (*package.schema.names, OTHER_FIELD):
            self.decisions.invalid_fields.labels(package.portfolio, name)
        of_package = (package.portfolio, package.version)
        for band in package.policy.bands:
            for decision in DECISIONS[SEVERITY[band.decision] :]:
                labels = (*of_package, package.policy_version, decision, band.name)
                self.decisions.decisions.labels(*labels)
        for code in package.reasons.texts:
            self.decisions.reasons.labels(*of_package, code)
        self._reviews_expected(package)
        for rule in package.policy.rules:
            self.decisions.rules.labels(*of_package, rule.name)
        self.population.expect(package)

    def _reviews_expected(self, package: ModelPackage) -> None:
        """Have every way in which people may close a case at 0: such are rare."""
        directions: dict[PersonsDecision, Direction]
        directions = {"APPROVE": "low-side", "DECLINE": "high-side"}
        for decision, direction in directions.items():
            for code in package.words.review_texts(decision):
                for override in ("none", direction):
                    self.decisions.reviews.labels(package.portfolio, decision, override, code)

    def activation_failed(self, portfolio: str) -> None:
        """A wanted package could not be loaded."""
        self.packages.activation_failures.labels(portfolio).inc()

    def challenged(
        self, portfolio: str, challenge: Challenge | None, before: Challenge | None
    ) -> None:
        """Another challenge is in force from now on, or none."""
        metrics = self.challenger
        if before is not None:
            metrics.info.labels(portfolio, before.version).set(0)
        metrics.share.labels(portfolio).set(0.0 if challenge is None else challenge.share)
        metrics.suspended.labels(portfolio).set(challenge is not None and challenge.suspended)
        if challenge is None:
            return
        metrics.info.labels(portfolio, challenge.version).set(1)
        for of_portfolio in (metrics.skipped, metrics.behind, metrics.lag, metrics.given_up):
            of_portfolio.labels(portfolio)
        for cause in get_args(Cause):
            metrics.failures.labels(portfolio, cause)
        for outcome in ("same", "milder", "stricter", "failed"):
            metrics.shadowed.labels(portfolio, challenge.version, outcome)

    def shadowed(self, challenge: Challenge, numbers: Mapping[str, int], skipped: int) -> None:
        """The other one was asked about so many decisions, which came out so."""
        for outcome, number in numbers.items():
            labels = (challenge.portfolio, challenge.version, outcome)
            self.challenger.shadowed.labels(*labels).inc(number)
        if skipped:
            self.challenger.skipped.labels(challenge.portfolio).inc(skipped)

    def shadow_ended(self, challenge: Challenge, cause: Cause) -> None:
        """The process that asks the challenger ended, or was ended."""
        self.challenger.failures.labels(challenge.portfolio, cause).inc()

    def shadow_behind(self, portfolio: str, behind: Behind, *, given_up: bool) -> None:
        """How far behind the challenger is, and whether it is asked no more."""
        self.challenger.behind.labels(portfolio).set(behind.records)
        self.challenger.lag.labels(portfolio).set(behind.seconds)
        self.challenger.given_up.labels(portfolio).set(given_up)

    def registry_expected(
        self, portfolio: str, aliases: Iterable[str], outcomes: Iterable[str]
    ) -> None:
        """The registry is going to be asked; all that may come of it is at 0."""
        for alias, outcome in itertools.product(aliases, outcomes):
            self.packages.registry_looks.labels(portfolio, alias, outcome)

    def registry_asked(self, portfolio: str, alias: str, outcome: str) -> None:
        """The registry was asked what an alias stands for."""
        self.packages.registry_looks.labels(portfolio, alias, outcome).inc()

    def checkpoint_made(self, checkpoint: Checkpoint) -> None:
        """Records are under a signed checkpoint."""
        self.evidence.checkpoint_number.set(checkpoint.number)
        self.evidence.checkpoint_last_record.set(checkpoint.last)

    def checked(self, checks: Mapping[str, bool]) -> None:
        """A worker looked whether it can decide."""
        for name, succeeded in checks.items():
            self.process.ready.labels(name).set(succeeded)

    def chain_checked(self, intact: bool) -> None:  # noqa: FBT001 - a callback
        """The records since the checkpoint before were looked at."""
        self.evidence.chain_intact.set(intact)
        if intact:
            self.evidence.chain_verified.set(time.time())


def observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """What `Histogram.observe` does with each of the values, moving each series only once."""
    edges = histogram._upper_bounds  # noqa: SLF001 - the library observes one by one
    for place, number in Tally(bisect_left(edges, value) for value in values).items():
        histogram._buckets[place].inc(number)  # noqa: SLF001
    histogram._sum.inc(sum(values))  # noqa: SLF001


def _info(package: ModelPackage) -> tuple[str, ...]:
    return package.portfolio, package.version, package.policy_version, package.spec.estimator
