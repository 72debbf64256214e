"""Counting and telling what happened, beside the event loop that it happened on.

The event loop only notes that something happened. A thread looks several times a second at what
was noted, adds up what is alike, moves the metrics, logs one line for each request and makes the
spans of those that are sampled, so that neither a metrics file nor a full pipe behind the log
keeps an answer waiting. What a process that is killed had noted in its last moments is lost to
metrics and log; the records, which are the evidence, do not come this way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from monitoring.logs import REQUESTS
from monitoring.traces import Sampled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import prometheus_client

    from credit_risk.audit.records import RecordKind
    from credit_risk.batching import Batched
    from credit_risk.decisions import Call
    from credit_risk.idempotency import Outcome
    from credit_risk.package import ModelPackage
    from credit_risk.reviews import Closing
    from credit_risk.scoring import Decision
    from monitoring.metrics import Metrics
    from monitoring.traces import Traces

    Counts: TypeAlias = Counter[tuple[prometheus_client.Counter, tuple[str, ...]]]

INTERVAL_SECONDS = 0.01
"""Short, so that little is noted and the event loop gets its turn back soon."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request that was answered; ``seconds`` from its arrival to its answer.

    ``answer`` is what a scoring call was answered, empty for other calls and for problems.
    """

    call: Call
    method: str
    route: str
    status: int
    seconds: float
    answer: Mapping[str, Any]
    problem: str | None
    at: float = field(default_factory=time.time)


class Accounts:
    """Notes what happens; see the module's text. Without `start`, `flush` has to be called."""

    def __init__(self, metrics: Metrics, traces: Traces) -> None:
        self._metrics = metrics
        self._traces = traces
        self._noted: deque[tuple[Any, ...]] = deque()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def answered(self, answered: Answered) -> None:
        """A request was answered."""
        self._noted.append((self._answered, answered))

    def decided(self, package: ModelPackage, decisions: Sequence[Decision]) -> None:
        """See `credit_risk.decisions.Observer`."""
        self._noted.append((self._decided, package, decisions))

    def recorded(self, kind: RecordKind, number: int) -> None:
        """See `credit_risk.decisions.Observer`."""
        self._noted.append((self._recorded, kind, number))

    def reviewed(self, portfolio: str, closing: Closing) -> None:
        """See `credit_risk.casework.CaseObserver`."""
        self._noted.append((self._reviewed, portfolio, closing))

    def keyed(self, outcome: Outcome) -> None:
        """See `credit_risk.idempotency.Observer`."""
        self._noted.append((self._keyed, outcome))

    def batched(self, batch: Batched) -> None:
        """See `credit_risk.batching.BatchObserver`."""
        self._noted.append((self._batched, batch))

    def start(self) -> None:
        """Flush several times a second until `close`."""
        self._thread = threading.Thread(target=self._run, name="accounts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Flush for the last time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Count and tell everything noted so far."""
        with self._lock:
            counts: Counts = Counter()
            while self._noted:
                entry: Callable[..., None]
                entry, *arguments = self._noted.popleft()
                entry(counts, *arguments)
            for (counter, labels), number in counts.items():
                self._child(counter, labels).inc(number)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            self.flush()

    def _child(self, metric: Any, labels: tuple[str, ...]) -> Any:  # noqa: ANN401 - of any type
        """The metric with these labels, which prometheus_client is slow to find."""
        child = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return child

    def _answered(self, counts: Counts, answered: Answered) -> None:
        http = self._metrics.http
        status_class = f"{answered.status // 100}xx" if answered.status else "none"
        problem = (answered.problem or "none").removeprefix("/problems/")
        counts[http.requests, (answered.route, status_class, problem)] += 1
        self._child(http.duration, (answered.route,)).observe(answered.seconds)
        sampled = answered.call.trace
        if isinstance(sampled, Sampled):
            self._traces.request(sampled, answered)
        if REQUESTS.isEnabledFor(logging.INFO):
            # Made from its parts: the usual way looks for the line of code that logs.
            line = {
                "name": REQUESTS.name,
                "levelno": logging.INFO,
                "levelname": "INFO",
                "msg": "request",
                "created": answered.at,
                "request_id": answered.call.request_id,
                "trace_id": f"{sampled.trace_id:032x}" if isinstance(sampled, Sampled) else None,
                "method": answered.method,
                "route": answered.route,
                "status": answered.status,
                "ms": round(answered.seconds * 1_000.0, 3),
                "decision_id": answered.answer.get("decision_id"),
                "decision": answered.answer.get("decision"),
                "problem": answered.problem,
            }
            REQUESTS.handle(logging.makeLogRecord(line))

    def _decided(
        self, counts: Counts, package: ModelPackage, decisions: Sequence[Decision]
    ) -> None:
        metrics, of_package = self._metrics.decisions, (package.portfolio, package.version)
        policy_version = package.policy_version
        outcomes = [decision.outcome for decision in decisions]
        reached = Counter((outcome.decision, outcome.band) for outcome in outcomes)
        for (decided, band), number in reached.items():
            counts[metrics.decisions, (*of_package, policy_version, decided, band)] += number
        codes = Counter(reason.code for decision in decisions for reason in decision.reasons)
        for code, number in codes.items():
            counts[metrics.reasons, (*of_package, code)] += number
        rules = Counter(rule.name for outcome in outcomes for rule in outcome.rules)
        for name, number in rules.items():
            counts[metrics.rules, (*of_package, name)] += number

    def _recorded(self, counts: Counts, kind: RecordKind, number: int) -> None:
        counts[self._metrics.evidence.records, (kind,)] += number

    def _reviewed(self, counts: Counts, portfolio: str, closing: Closing) -> None:
        labels = (portfolio, closing.decision, closing.override or "none", closing.reasons[0])
        counts[self._metrics.decisions.reviews, labels] += 1

    def _keyed(self, counts: Counts, outcome: Outcome) -> None:
        counts[self._metrics.decisions.keyed, (outcome,)] += 1

    def _batched(self, _: Counts, batch: Batched) -> None:
        self._metrics.scoring.batch_rows.observe(batch.rows)
        self._metrics.scoring.batch_wait.observe(batch.waited)
        self._metrics.scoring.batch_queue.set(batch.waiting)
        sampled = [trace for trace in batch.traces if isinstance(trace, Sampled)]
        if sampled:
            self._traces.batch(sampled, batch.rows, batch.began, batch.ended)
