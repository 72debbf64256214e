"""What BentoML needs around the application: a service whose requests reach `Server` directly.

BentoML runs the processes, the model store, the build and the image. Its own HTTP layers would
answer in other formats, count raw paths and keep a timer alive for each request, so HTTP requests
go past them to the application; start-up and shut-down stay BentoML's.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, TypeVar

from _bentoml_impl.server.app import ServiceAppFactory
from _bentoml_sdk import Service
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

from credit_risk.audit import SqlAuditLog
from credit_risk.batching import Batcher
from credit_risk.decisions import Desk
from credit_risk.serving import problems
from credit_risk.serving.activation import ActivePackage
from credit_risk.serving.app import Calls, Server
from credit_risk.serving.store import Store
from monitoring.accounts import Accounts
from monitoring.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from credit_risk.settings import Settings

T = TypeVar("T")


class DirectService(Service[T]):  # type: ignore[misc]  # BentoML's SDK is untyped
    """A BentoML service whose instance has an ASGI application ``server`` for its requests."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:  # noqa: FBT001, FBT002 - BentoML's signature
        """BentoML's application for its life cycle, ours for HTTP."""
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        lifecycle: Any = factory()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                instance: Any = factory._service_instance  # noqa: SLF001 - it offers no other way
                await instance.server(scope, receive, send)
            else:
                await lifecycle(scope, receive, send)

        return application


class Runtime:
    """Everything one worker process needs, wired together."""

    def __init__(self, settings: Settings) -> None:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        self._accounts = Accounts(metrics)
        store = Store(settings)
        store.add_shipped(settings.portfolio)
        # Room for everything the batcher lets in, so that what was decided finds a place.
        waiting_most = 20 * settings.waiting_limit
        self._audit = SqlAuditLog(settings.audit_url, waiting_most=waiting_most)
        self._active = ActivePackage(settings, self._audit, store, metrics)
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
        calls = Calls(settings, self._active, desk, self._metrics_text)
        self.server = Server(calls, self._accounts)

    def start(self) -> None:
        """Begin to follow activations, and to count."""
        self._active.follow()
        self._accounts.start()
        # What is loaded by now lives as long as the process; looking through it again at each
        # full collection would stop the worker for a long time.
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """Stop following, and write what is waiting to be recorded."""
        self._active.close()
        self._batcher.close()
        self._audit.close()
        self._accounts.close()

    def _metrics_text(self) -> tuple[bytes, str]:
        """The metrics of all workers added up, and their media type."""
        self._accounts.flush()
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
