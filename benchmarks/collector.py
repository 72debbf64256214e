"""A collector of traces that takes everything and keeps nothing but a count, or is in trouble.

"Everything on" includes traces, and a server without a collector samples none. What a collector in
trouble costs a server is measured by `benchmarks.outages`.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Behaviour: TypeAlias = Literal["takes", "slow", "refuses", "resets"]
"""What comes of an export: 200; 200 after `SLOW_SECONDS`; 503; a connection that is reset."""

SLOW_SECONDS = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Collector(ThreadingHTTPServer):
    """Answers whatever is posted, as OTLP over HTTP has it.

    ``received`` is how many exports came; ``bodies`` holds them, uncompressed, if they are kept.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, behaviour: Behaviour = "takes", *, keeps: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = behaviour
        self.keeps = keeps
        self.received = 0
        self.bodies: list[bytes] = []
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take one export, or not."""
        collector = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if collector.keeps:
            packed = self.headers.get("Content-Encoding") == "gzip"
            collector.bodies.append(gzip.decompress(body) if packed else body)
        collector.received += 1
        if collector.behaviour == "resets":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            # Under the hands of who would end the connection in good order.
            os.close(self.connection.detach())
            self.close_connection = True
            return
        if collector.behaviour == "slow":
            collector.ended.wait(SLOW_SECONDS)
        self.send_response(503 if collector.behaviour == "refuses" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        """Say nothing."""


@contextlib.contextmanager
def collecting(behaviour: Behaviour = "takes", *, keeps: bool = False) -> Iterator[Collector]:
    """A collector in a thread of this process, on a free port."""
    with Collector(behaviour, keeps=keeps) as collector:
        thread = threading.Thread(target=collector.serve_forever, name="collector", daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.ended.set()
            collector.shutdown()
            thread.join()
