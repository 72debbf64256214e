"""Counting and telling what happened, beside the event loop that it happened on.

The event loop only notes that something happened. A thread looks fifty times a second at what
was noted, logs one line for each request and makes the spans of those that are sampled; it adds up
what is alike and moves the metrics ten times a second, so that neither a metrics file nor a full
pipe behind the log keeps an answer waiting. What a process that is killed had noted in its last
moments is lost to metrics and log; the records, which are the evidence, do not come this way.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from monitoring.logs import REQUESTS
from monitoring.metrics import OTHER_FIELD, observe_all
from monitoring.traces import Continued, Sampled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import prometheus_client

    from credit_risk.audit.records import RecordKind
    from credit_risk.batching import Batched
    from credit_risk.decisions import Call
    from credit_risk.errors import FieldError
    from credit_risk.idempotency import Outcome
    from credit_risk.package import ModelPackage
    from credit_risk.reviews import Closing
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision
    from monitoring.metrics import Metrics
    from monitoring.traces import Traces

    Labels: TypeAlias = tuple[str, ...]

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.02
"""Short, so that little is noted and the event loop gets its turn back soon."""
MOVES_EVERY = 5
"""Intervals from one time that metrics are moved to the next: what is alike is moved once."""
_REQUEST_STAGES = {"read", "claim", "validate", "wait", "record"}


class Answered(NamedTuple):
    """One request that was answered; ``seconds`` from its arrival to its answer.

    ``method`` is None where it could not be read, ``status`` 0 where no answer could be sent.
    ``answer`` is what a scoring call was answered, empty for other calls and for problems;
    ``problem`` is the type of one; ``at`` the time of the answer, seconds since the epoch.
    """

    call: Call
    method: str | None
    route: str
    status: int
    seconds: float
    answer: Mapping[str, Any]
    problem: str | None
    at: float


_LINE = vars(
    logging.makeLogRecord(
        {"name": REQUESTS.name, "levelno": logging.INFO, "levelname": "INFO", "msg": "request"}
    )
)


def _line(**fields: object) -> logging.LogRecord:
    """A request's line. The usual way asks for thread, process and the line of code that logs."""
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(_LINE, **fields)
    return record


class _Counted:
    """What is counted of one package's decisions until the metrics are moved."""

    def __init__(self, package: ModelPackage, metrics: Metrics) -> None:
        self.package = package
        self._cells = metrics.population.of(package)
        self._numbers = np.zeros(len(self._cells), dtype=np.int64)

    def count(self, applications: Sequence[Application], decisions: Sequence[Decision]) -> None:
        """Add applications that were decided about."""
        rows = self.package.schema.matrix(applications)
        pds = np.array([decision.probability_of_default for decision in decisions])
        self._numbers += self.package.population.count(rows, pds)

    def move(self) -> None:
        """Move the metrics by what was added."""
        for place in np.flatnonzero(self._numbers).tolist():
            number = int(self._numbers[place])
            for counter in self._cells[place]:
                counter.inc(number)
        self._numbers[:] = 0


class Accounts:
    """Notes what happens; see the module's text. Without `start`, `flush` has to be called."""

    def __init__(self, metrics: Metrics, traces: Traces) -> None:
        self._metrics = metrics
        self._traces = traces
        self._readings: list[Callable[[], None]] = []
        self._noted: deque[tuple[Any, ...]] = deque()
        self._in_flight = 0
        self._children: dict[tuple[Any, Labels], Any] = {}
        self._counts: Counter[tuple[prometheus_client.Counter, Labels]] = Counter()
        self._values: defaultdict[tuple[prometheus_client.Histogram, Labels], list[float]]
        self._values = defaultdict(list)
        self._packages: dict[str, _Counted] = {}
        self._made: dict[str, tuple[ModelPackage, list[Application], list[Decision]]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self, reading: Callable[[], None]) -> None:
        """Call this whenever the metrics are moved: it sets those that are there to be read."""
        self._readings.append(reading)

    def arrived(self) -> None:
        """A request has begun. On the event loop, as is `answered`."""
        self._in_flight += 1

    def answered(self, answered: Answered) -> None:
        """A request was answered."""
        self._in_flight -= 1
        self._noted.append((self._answered, answered))

    def decided(
        self,
        package: ModelPackage,
        applications: Sequence[Application],
        decisions: Sequence[Decision],
    ) -> None:
        """See `credit_risk.decisions.Observer`."""
        self._noted.append((self._decided, package, applications, decisions))

    def refused(self, package: ModelPackage, refusals: Sequence[Sequence[FieldError]]) -> None:
        """See `credit_risk.decisions.Observer`."""
        self._noted.append((self._refused, package, refusals))

    def recorded(self, kind: RecordKind, number: int) -> None:
        """See `credit_risk.decisions.Observer`."""
        self._noted.append((self._recorded, kind, number))

    def tried(self, challenger: ModelPackage, decided: int, failed: int) -> None:
        """See `credit_risk.decisions.Observer`."""
        self._noted.append((self._tried, challenger, decided, failed))

    def reviewed(self, portfolio: str, closing: Closing) -> None:
        """See `credit_risk.casework.CaseObserver`."""
        self._noted.append((self._reviewed, portfolio, closing))

    def keyed(self, outcome: Outcome) -> None:
        """See `credit_risk.idempotency.Observer`."""
        self._noted.append((self._keyed, outcome))

    def settled(self, seconds: Sequence[float], lost: int) -> None:
        """See `credit_risk.audit.log.LogObserver`."""
        self._noted.append((self._settled, seconds, lost))

    def batched(self, batch: Batched) -> None:
        """See `credit_risk.batching.BatchObserver`."""
        self._noted.append((self._batched, batch))

    def start(self) -> None:
        """Flush again and again until `close`."""
        self._thread = threading.Thread(target=self._run, name="accounts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Flush for the last time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Count and tell everything noted so far, and move the metrics."""
        with self._lock:
            self._look()
            self._move()

    def _run(self) -> None:
        failed = -MOVES_EVERY
        for turn in itertools.count(1):
            if self._stop.wait(INTERVAL_SECONDS):
                return
            try:
                with self._lock:
                    self._look()
                    if turn % MOVES_EVERY == 0:
                        self._move()
            except Exception:
                # What cannot be counted is lost, and told of once; what is noted later is not to
                # pile up behind it.
                if turn - failed > MOVES_EVERY:
                    logger.exception("something could not be counted")
                failed = turn

    def _look(self) -> None:
        """Tell of what was noted, and add it up."""
        while self._noted:
            entry: Callable[..., None]
            entry, *arguments = self._noted.popleft()
            entry(*arguments)
        made, self._made = self._made, {}
        for package, applications, decisions in made.values():
            self._count(package, applications, decisions)

    def _move(self) -> None:
        """Move the metrics by what was added up."""
        for counted in self._packages.values():
            counted.move()
        for (histogram, labels), values in self._values.items():
            if values:
                observe_all(self._child(histogram, labels), values)
                values.clear()
        # Requests last: whoever finds a request counted finds all that came of it.
        counts, self._counts = self._counts, Counter()
        for (counter, labels), number in counts.items():
            self._child(counter, labels).inc(number)
        self._metrics.http.in_flight.set(self._in_flight)
        for reading in self._readings:
            reading()

    def _child(self, metric: Any, labels: Labels) -> Any:  # noqa: ANN401 - of any type
        """The metric with these labels, which prometheus_client is slow to find."""
        child = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels) if labels else metric
        return child

    def _answered(self, answered: Answered) -> None:
        http, call, route = self._metrics.http, answered.call, answered.route
        status_class = f"{answered.status // 100}xx" if answered.status else "none"
        problem = (answered.problem or "none").removeprefix("/problems/")
        self._counts[http.requests, (route, status_class, problem)] += 1
        self._values[http.duration, (route,)].append(answered.seconds)
        begin = call.received
        stages: dict[str, float] = {}
        for stage, end in call.stages:
            if stage == "read":
                served = answered.seconds - (end - call.received)
                self._values[http.served, (route,)].append(served)
            if stage in _REQUEST_STAGES:
                stages[stage] = stages.get(stage, 0.0) + end - begin
            begin = end
        for stage, seconds in stages.items():
            self._values[self._metrics.scoring.stage, (stage,)].append(seconds)
        trace = call.trace
        if isinstance(trace, Sampled):
            self._traces.request(trace, answered)
        if REQUESTS.isEnabledFor(logging.INFO):
            REQUESTS.handle(
                _line(
                    created=answered.at,
                    request_id=call.request_id,
                    trace_id=f"{trace.trace_id:032x}" if isinstance(trace, Continued) else None,
                    method=answered.method,
                    route=route,
                    status=answered.status,
                    ms=round(answered.seconds * 1_000.0, 3),
                    decision_id=answered.answer.get("decision_id"),
                    decision=answered.answer.get("decision"),
                    problem=answered.problem,
                )
            )

    def _decided(
        self,
        package: ModelPackage,
        applications: Sequence[Application],
        decisions: Sequence[Decision],
    ) -> None:
        _, applicants, decided = self._made.setdefault(package.version, (package, [], []))
        applicants += applications
        decided += decisions

    def _count(
        self,
        package: ModelPackage,
        applications: Sequence[Application],
        decisions: Sequence[Decision],
    ) -> None:
        counted = self._packages.get(package.version)
        if counted is None:
            counted = self._packages[package.version] = _Counted(package, self._metrics)
        counted.count(applications, decisions)
        metrics, of_package = self._metrics.decisions, (package.portfolio, package.version)
        outcomes = [decision.outcome for decision in decisions]
        reached = Counter((outcome.decision, outcome.band) for outcome in outcomes)
        for result, number in reached.items():
            labels = (*of_package, package.policy_version, *result)
            self._counts[metrics.decisions, labels] += number
        codes = Counter(reason.code for decision in decisions for reason in decision.reasons)
        for code, number in codes.items():
            self._counts[metrics.reasons, (*of_package, code)] += number
        rules = Counter(rule.name for outcome in outcomes for rule in outcome.rules)
        for name, number in rules.items():
            self._counts[metrics.rules, (*of_package, name)] += number

    def _refused(self, package: ModelPackage, refusals: Sequence[Sequence[FieldError]]) -> None:
        metrics, portfolio = self._metrics.decisions, package.portfolio
        self._counts[metrics.refused, (portfolio,)] += len(refusals)
        for errors in refusals:
            places = {error.pointer.partition("/")[2].partition("/")[0] for error in errors}
            fields = {place if place in package.schema.index else OTHER_FIELD for place in places}
            for field in fields:
                self._counts[metrics.invalid_fields, (portfolio, field)] += 1

    def _recorded(self, kind: RecordKind, number: int) -> None:
        self._counts[self._metrics.evidence.records, (kind,)] += number

    def _tried(self, challenger: ModelPackage, decided: int, failed: int) -> None:
        for outcome, number in (("decided", decided), ("failed", failed)):
            labels = (challenger.portfolio, challenger.version, outcome)
            self._counts[self._metrics.challenger.canary, labels] += number

    def _reviewed(self, portfolio: str, closing: Closing) -> None:
        labels = (portfolio, closing.decision, closing.override or "none", closing.reasons[0])
        self._counts[self._metrics.decisions.reviews, labels] += 1

    def _keyed(self, outcome: Outcome) -> None:
        self._counts[self._metrics.decisions.keyed, (outcome,)] += 1

    def _settled(self, seconds: Sequence[float], lost: int) -> None:
        metrics = self._metrics.evidence
        self._values[metrics.commit, ()] += seconds
        self._counts[metrics.failures, ()] += lost

    def _batched(self, batch: Batched) -> None:
        metrics = self._metrics.scoring
        self._values[metrics.batch_rows, ()].append(batch.rows)
        self._values[metrics.batch_wait, ()].append(batch.waited)
        metrics.batch_queue.set(batch.waiting)
        begin = batch.began
        for stage, end in batch.stages:
            self._values[metrics.stage, (stage,)].append(end - begin)
            begin = end
        sampled = [trace for trace in batch.traces if isinstance(trace, Sampled)]
        if sampled:
            self._traces.batch(sampled, batch)
