"""A made-up server that answers over HTTP as a test says, in a thread of its own."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from credit_risk.cli.traffic import BATCH_ROUTE
from credit_risk.errors import ApplicationInvalid
from tests import toys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION = {"portfolio": toys.NAME, "model": {"version": "0" * 12}}
APPROVED = {"decision": "APPROVE"}


@dataclass
class Asked:
    """What a made-up server was asked, and how it answers: a status and a body, or not at all."""

    answer: Callable[[str, Any], tuple[int, object] | None]
    got: list[tuple[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def answering(
    answer: Callable[[str, Any], tuple[int, object] | None], version: object = VERSION
) -> Iterator[Asked]:
    """A server on a free port that answers as it is told; in a thread of its own."""
    asked = Asked(answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._say(200, version)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.got.append((self.path, body))
            asked.keys.append(self.headers["Idempotency-Key"])
            said = asked.answer(self.path, body)
            if said is None:
                self.close_connection = True
                return
            self._say(*said)

        def _say(self, status: int, body: object) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    asked.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def decided(route: str, body: Any) -> tuple[int, object]:  # noqa: ANN401 - any JSON
    """Approve whatever the toys' schema allows."""

    def one(application: object) -> dict[str, Any]:
        try:
            toys.schema().validate_application(application)
        except ApplicationInvalid:
            return {"type": "/problems/invalid-application"}
        return APPROVED

    if route == BATCH_ROUTE:
        return 200, {"results": [one(a) for a in body["applications"]]}
    return (200 if (answer := one(body)) == APPROVED else 422), answer
