"""A whole server in this process: the real application and audit log over a toy package."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import SecretStr
from starlette.testclient import TestClient

from credit_risk import regimes
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.signer import Signer
from credit_risk.batching import Batcher
from credit_risk.casework import Casework
from credit_risk.decisions import Desk
from credit_risk.errors import PackageNotFound, RecordingFailed
from credit_risk.idempotency import Answers
from credit_risk.retraining import Limit, Limits, MonitoringPolicy
from credit_risk.serving import problems
from credit_risk.serving.activation import load_checked
from credit_risk.serving.app import Calls, Server
from credit_risk.serving.cases import Cases
from credit_risk.serving.monitor import Monitor
from credit_risk.serving.replays import Replays
from credit_risk.serving.stopping import Stopping
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
from monitoring.accounts import Accounts
from monitoring.analyst import Clerk, Packages, raised
from monitoring.metrics import Metrics
from monitoring.traces import Traces
from tests import toys
from tests.sealing import KEY, SEALING, SIGNING_KEY

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import httpx2
    import numpy.typing as npt
    from opentelemetry.sdk.trace.export import SpanExporter
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from credit_risk.audit.records import Alongside, AuditLog, Record
    from credit_risk.canary import Canary
    from credit_risk.challenges import Challenge
    from credit_risk.errors import CreditRiskError
    from credit_risk.package import ModelPackage, Wordings
    from credit_risk.serving.activation import ActivePackage

    Floats = npt.NDArray[np.float64]

JSON = {"content-type": "application/json"}
SCORING = ("/predict", "/explain", "/predict/explain", "/predict/batch")
ROWS_MAX = 20
BODY_MAX = 262_144
PATIENT = 600.0
MODEL_SAYS = "not-for-callers-4711"
"""The text of a failing model's error; it is for the server's log alone."""


@dataclass
class Active:
    """The package that decides, changed by hand."""

    current: ModelPackage
    fault: str | None = None
    canary: Canary | None = None
    challenge: Challenge | None = None


class Full(SqlAuditLog):
    """An audit log whose database takes nothing any more, though what is in it can be read."""

    def append(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> concurrent.futures.Future[None]:
        """Fail as a full disk would make it."""
        if records:
            raise RecordingFailed("the disk is full")
        return super().append(records, alongside=alongside)

    async def record(
        self, records: Sequence[Record], *, alongside: Alongside | None = None
    ) -> None:
        """Fail as a full disk would make it."""
        lost = f"{len(records)} records, {'more' if alongside else 'no more'}"
        raise RecordingFailed(f"the disk is full, lost are {lost}")


@dataclass
class Broken:
    """A model with something wrong with it: as it stands, its contributions do not add up."""

    error: type[Exception] | None = None
    score: float = 2.0
    contribution: float = 0.25
    base_value: float = 0.5
    method: str = "made up"
    reference_rows: int = 50
    slow: bool = False

    def log_odds(self, rows: Floats) -> Floats:
        """The same score for everybody, or the error."""
        if self.error is not None:
            raise self.error(MODEL_SAYS)
        return np.full(len(rows), self.score)

    def contributions(self, rows: Floats) -> Floats:
        """The same contribution of every field."""
        return np.full(rows.shape, self.contribution)


class Near:
    """An analyst in this process: quick to start, and it knows the package that decides."""

    def __init__(self, settings: Settings, active: Active) -> None:
        self.asked: list[str] = []
        self.fault: CreditRiskError | None = None
        self._clerk = NearClerk(settings, active)

    async def ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as the question has it
        """The answer, as it comes from the other process."""
        self.asked.append(name)
        if self.fault is not None:
            raise self.fault
        fault, answer = await asyncio.to_thread(self._clerk.answer, name, arguments)
        if fault:
            raise raised(answer)
        return answer


class NearClerk(Clerk):
    """Answers about packages whose files are gone: that which decides is in memory."""

    def __init__(self, settings: Settings, active: Active) -> None:
        super().__init__(settings)
        self._active = active
        self._package = self._load

    def _policy(self, packages: Packages) -> MonitoringPolicy:
        assert packages.portfolio == toys.NAME
        limits = Limits(score_psi=Limit(watch=0.1, recommend=0.25))
        return MonitoringPolicy(portfolio=toys.NAME, version="1.0.0", limits=limits)

    def _load(self, folder: str, version: str) -> ModelPackage:
        assert folder
        loaded = [self._active.current]
        if self._active.canary is not None:
            loaded.append(self._active.canary.package)
        (found,) = [one for one in loaded if one.version == version]
        return found


@dataclass
class Answer:
    """What the application sent."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """The body, parsed."""
        return json.loads(self.content)


@dataclass
class Served:
    """A server, and everything it leaves behind."""

    active: Active
    audit: AuditLog
    settings: Settings
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    exporter: SpanExporter | None = None

    def __post_init__(self) -> None:
        self._earlier = self.audit.count()
        self.stopping = Stopping(0.0)
        self.metrics = Metrics(self.registry)
        self.traces = Traces(
            1.0,
            self.exporter,
            exported=self.metrics.process.spans_exported.inc,
            dropped=self.metrics.process.spans_dropped.inc,
        )
        self.accounts = Accounts(self.metrics, self.traces)
        self.batcher = Batcher(self.accounts, self.settings.waiting_limit)
        self.canary_batcher = Batcher(self.accounts, self.settings.waiting_limit, beside=True)
        desk = Desk(
            self.audit,
            self.batcher,
            self.accounts,
            toys.NAME,
            problems.of,
            self.settings.deadline_seconds,
            self.settings.batch_deadline_seconds,
        )
        kept_seconds = 3_600.0 * self.settings.idempotency_hours
        self.answers = Answers(self.audit, SEALING, self.accounts, toys.NAME, kept_seconds)
        active = cast("ActivePackage", self.active)
        regime = regimes.load(self.settings.regimes_dir, self.settings.regime)
        self.replays = Replays(self.audit, active, partial(load_checked, Store(self.settings)))
        audit = cast("SqlAuditLog", self.audit)
        desk_of_people = Casework(audit, self._wordings, self.accounts, self.settings.portfolio)
        self.signer = Signer(
            audit,
            SIGNING_KEY,
            3_600.0,
            made=self.metrics.checkpoint_made,
            failed=self.metrics.evidence.checkpoint_failures.inc,
            checked=self.metrics.chain_checked,
        )
        cases = Cases(self.settings, desk_of_people, regime, self.replays, self.signer)
        self.analyst = Near(self.settings, self.active)
        monitor = Monitor(self.settings, audit, active, self.analyst, self._folders, self.accounts)
        self.calls = Calls(
            self.settings,
            active,
            desk,
            self.answers,
            self._metrics_text,
            self.stopping,
            cases,
            monitor,
            self.metrics.checked,
        )
        self.server = Server(self.calls, self.accounts, self.traces)
        self.app = self._flushing(self.server)
        self.client = TestClient(self.app, follow_redirects=False)

    def settings_with(self, **changed: float) -> Served:
        """The same server with settings replaced; nothing was counted there yet."""
        return Served(self.active, self.audit, self.settings.model_copy(update=changed))

    def _flushing(self, app: ASGIApp) -> ASGIApp:
        """The application; what it did is counted and told when it has answered."""

        async def flushing(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)
            self.accounts.flush()

        return flushing

    def _folders(self) -> dict[str, str]:
        """No other package is installed than what decides."""
        canary = self.active.canary
        return {} if canary is None else {canary.package.version: str(canary.package.path)}

    def _wordings(self, version: str) -> Wordings:
        """The words of the package that decides; no other is installed."""
        if version != self.active.current.version:
            raise PackageNotFound(f"no package {version}")
        return self.active.current.words

    async def _metrics_text(self) -> tuple[bytes, str]:
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def get(self, path: str, **headers: str) -> httpx2.Response:
        """GET a path."""
        return self.client.get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path: str, body: object, **headers: str) -> httpx2.Response:
        """POST a body: bytes as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = JSON | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.client.post(path, content=content, headers=given)

    def records(self) -> list[Record]:
        """The records of this server, the newest first; others may have used the log before."""
        number = self.audit.count() - self._earlier
        return self.audit.find(limit=number) if number else []

    def only_record(self) -> Record:
        """The one record that there is."""
        (record,) = self.records()
        return record

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric, all series with these labels added up; 0 where there are none."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def metric(self, name: str) -> float:
        """All that a metric says, added up; of a histogram, what was observed."""
        return sum(self.sample(f"{name}{suffix}") for suffix in ("", "_sum"))

    def send(
        self,
        path: str,
        body: bytes | list[Message] = b"",
        headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
        method: str = "POST",
        *,
        stays: bool = False,
    ) -> Answer:
        """One request over ASGI itself: quick, and for what no client would send.

        ``body`` may be the messages to receive; those read are taken off the list, and after the
        last one the client is gone, or ``stays`` and sends nothing more.
        """
        whole: Message = {"type": "http.request", "body": body, "more_body": False}
        waiting = body if isinstance(body, list) else [whole]
        answer = Answer(0, {}, b"")

        async def receive() -> Message:
            if stays and not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                answer.content += message.get("body", b"")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode("utf-8", "surrogateescape"),
            "root_path": "",
            "query_string": b"",
            "headers": list(headers),
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 3_000),
        }

        async def main() -> None:
            await self.app(scope, receive, send)

        asyncio.run(main())
        return answer


def settings(folder: Path) -> Settings:
    """Settings of a server of the toy portfolio, its state in the folder."""
    return Settings(
        portfolio=toys.NAME,
        state_dir=folder,
        encryption_keys=SecretStr(KEY),
        batch_rows_max=ROWS_MAX,
        body_bytes_max=BODY_MAX,
        # A busy machine is no reason to fail.
        request_seconds=PATIENT,
        deadline_seconds=PATIENT,
        batch_deadline_seconds=PATIENT,
    )


@contextmanager
def serving(
    package: ModelPackage, folder: Path, log: type[SqlAuditLog] = SqlAuditLog
) -> Iterator[Served]:
    """A server of one package with an audit log of its own in the folder."""
    chosen = settings(folder)
    audit = log(chosen.audit_url, SEALING)
    try:
        yield Served(Active(package), audit, chosen)
    finally:
        audit.close()


def problem_on(record: Record) -> dict[str, Any]:
    """The problem that a refusal or failure was answered with, as its record has it.

    The places at fault are sealed with the input: names in it are the caller's own.
    """
    problem: dict[str, Any] = record.body["problem"]
    assert "errors" not in problem
    assert record.personal is not None
    errors = record.personal.get("errors")
    return problem if errors is None else {**problem, "errors": errors}
