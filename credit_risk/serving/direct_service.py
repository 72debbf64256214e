"""What BentoML needs around the application: a service whose requests reach `Server` directly.

BentoML runs the processes, the model store, the build and the image. Its own HTTP layers would
answer in other formats, count raw paths and keep a timer alive for each request, so HTTP requests
go past them to the application; start-up and shut-down stay BentoML's.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from _bentoml_sdk import Service

from credit_risk.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from credit_risk.serving.app import Server

T = TypeVar("T")


class DirectService(Service[T]):  # type: ignore[misc]  # BentoML's SDK is untyped
    """A BentoML service whose instance has an ASGI application ``server`` for its requests."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:  # noqa: FBT001, FBT002 - BentoML's signature
        """BentoML's application for its life cycle, ours for HTTP."""
        # Hardly any of what is imported and loaded from here on is garbage; looking for it takes
        # a sixth of the time; `Runtime.start` begins to.
        gc.disable()
        # Only a worker gets here: the process that starts the workers need not wait for it.
        from _bentoml_impl.server.app import ServiceAppFactory  # noqa: PLC0415
        from uvicorn.config import HTTP_PROTOCOLS  # noqa: PLC0415

        from credit_risk.serving.connection import Connection  # noqa: PLC0415

        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        lifecycle: Any = factory()

        def server() -> Server:
            instance: Any = factory._service_instance  # noqa: SLF001 - it offers no other way
            found: Server = instance.server
            return found

        # BentoML lets uvicorn choose, and this is what it chooses from.
        protocol: Any = partial(
            Connection,
            request_seconds=Settings().request_seconds,
            unread=lambda request_id, kind: server().unread(request_id, kind),
        )
        HTTP_PROTOCOLS["auto"] = protocol

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await server()(scope, receive, send)
            else:
                await lifecycle(scope, receive, send)

        return application
