"""Everything one worker process needs, wired together."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from credit_risk import regimes
from credit_risk.audit import keys, log
from credit_risk.audit.signer import Signer
from credit_risk.batching import Batcher
from credit_risk.casework import Casework, number_waiting
from credit_risk.decisions import Desk, start_record
from credit_risk.idempotency import Answers
from credit_risk.serving import activation, problems, registry
from credit_risk.serving.activation import ActivePackage
from credit_risk.serving.app import SCORING, Calls, Server
from credit_risk.serving.cases import Cases
from credit_risk.serving.following import ALIASES, Follower, Outcome
from credit_risk.serving.monitor import Monitor
from credit_risk.serving.replays import Replays
from credit_risk.serving.stopping import Stopping
from credit_risk.serving.store import Store
from credit_risk.serving.watch import Watch
from monitoring import exposition
from monitoring.accounts import Accounts
from monitoring.analyst import Analyst
from monitoring.metrics import Metrics, WorkerMetrics
from monitoring.shadow import Shadow
from monitoring.traces import Traces, exporter
from monitoring.vitals import Vitals

if TYPE_CHECKING:
    from credit_risk.settings import Settings

logger = logging.getLogger("credit_risk.serving")


class Runtime:
    """The server of one worker process, with its collaborators."""

    def __init__(self, settings: Settings) -> None:
        self._exposing = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._registry = CollectorRegistry()
        self._metrics = metrics = Metrics(self._registry)
        metrics.started(settings.workers)
        metrics.http.expect(SCORING, problems.FAILURES)
        self._traces = Traces(
            settings.trace_ratio,
            exporter(),
            exported=metrics.process.spans_exported.inc,
            dropped=metrics.process.spans_dropped.inc,
        )
        self._accounts = Accounts(metrics, self._traces)
        store = Store(settings)
        store.add_shipped(settings.portfolio)
        # Room for everything the batcher lets in, so that what was decided finds a place.
        waiting_most = 20 * settings.waiting_limit
        signing_key = keys.signing_key(settings, make=True)
        self._audit = log.open_log(settings, waiting_most=waiting_most, observer=self._accounts)
        self._signer = Signer(
            self._audit,
            signing_key,
            settings.checkpoint_seconds,
            made=metrics.checkpoint_made,
            failed=metrics.evidence.checkpoint_failures.inc,
            note=settings.note,
            checked=metrics.chain_checked,
        )
        self._models = models = registry.connect(settings)
        self._follower = fetch = None
        if models is not None:
            fetch = partial(registry.fetch_version, models, store, settings)
            if settings.model_version is None:
                self._follower = Follower(settings, self._audit, store, models, metrics)
                metrics.registry_expected(settings.portfolio, ALIASES, get_args(Outcome))
        queue = partial(Batcher, self._accounts, settings.waiting_limit, beside=True)
        self._active = ActivePackage(settings, self._audit, store, metrics, queue, fetch)
        # Before anything is decided: decisions name the environment whose listing it holds.
        self._audit.append([start_record(self._active.current)]).result()
        self._accounts.recorded("start", 1)
        self._batcher = Batcher(self._accounts, settings.waiting_limit)
        desk = Desk(
            self._audit,
            self._batcher,
            self._accounts,
            settings.portfolio,
            problems.of,
            settings.deadline_seconds,
            settings.batch_deadline_seconds,
        )
        answers = Answers(
            self._audit,
            keys.sealing(settings, make=True),
            self._accounts,
            settings.portfolio,
            3_600.0 * settings.idempotency_hours,
        )
        self._stopping = Stopping(settings.drain_seconds)
        self._replays = Replays(self._audit, self._active, partial(activation.load_checked, store))
        wordings = partial(store.wordings, settings.portfolio)
        casework = Casework(self._audit, wordings, self._accounts, settings.portfolio)
        regime = regimes.load(settings.regimes_dir, settings.regime)
        cases = Cases(settings, casework, regime, self._replays, self._signer)
        self._analyst = Analyst(settings)
        monitor = Monitor(
            settings,
            self._audit,
            self._active,
            self._analyst,
            partial(store.folders, settings.portfolio),
            self._accounts,
        )
        self._shadow = Shadow(settings, self._audit, self._active, metrics)
        calls = Calls(
            settings,
            self._active,
            desk,
            answers,
            self._metrics_text,
            self._stopping,
            cases,
            monitor,
            metrics.checked,
        )
        self._watch = Watch(
            calls.checks,
            partial(number_waiting, self._audit, settings.portfolio),
            settings.portfolio,
            metrics,
        )
        self.server = Server(calls, self._accounts, self._traces)

    def start(self) -> None:
        """Begin to follow activations, to count, and to listen to signals."""
        self._stopping.listen()
        self._stopping.follow_parent()
        self._watch.start()
        self._active.follow()
        self._shadow.start()
        if self._follower is not None:
            self._follower.start()
        self._signer.start()
        worker = WorkerMetrics(self._registry)
        self._accounts.read(Vitals(self._metrics, worker, lambda: self._audit.waiting).read)
        self._accounts.start()
        # What is loaded by now lives as long as the process; looking through it again at each
        # full collection would stop the worker for a long time.
        gc.collect()
        gc.freeze()
        gc.enable()
        package = self._active.current
        serves = {"portfolio": package.portfolio, "model_version": package.version}
        logger.info("a worker serves", extra={"pid": os.getpid(), **serves})

    def close(self) -> None:
        """Stop following, and write what is waiting to be recorded."""
        self._watch.close()
        self._shadow.close()
        if self._follower is not None:
            self._follower.close()
        self._active.close()
        if self._models is not None:
            self._models.close()
        self._batcher.close()
        self._signer.close()
        self._replays.close()
        self._analyst.close()
        self._audit.close()
        self._accounts.close()
        self._traces.close()
        exposition.leave()
        logger.info("a worker stops", extra={"pid": os.getpid()})

    async def _metrics_text(self) -> tuple[bytes, str]:
        """The metrics of all workers added up, and their media type."""
        loop = asyncio.get_running_loop()
        # A thread of its own: it takes longer than others on the loop should wait, and those that
        # wait for the database may all be in use.
        text = await loop.run_in_executor(self._exposing, self._expose)
        return text, CONTENT_TYPE_PLAIN_0_0_4

    def _expose(self) -> bytes:
        self._accounts.flush()
        return exposition.text(self._registry)
