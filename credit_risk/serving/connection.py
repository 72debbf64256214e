"""A connection that cannot be held open by a request that never comes to its end.

uvicorn reads HTTP (with httptools) and leaves three things open: how large a request's head may
be, how long a request may take to arrive, and in what form what is not HTTP is refused. It loses
the body of a request that offers another protocol (``Upgrade: h2c``), which RFC 9110, 7.8, lets a
server ignore. And when the server stops, it closes idle connections at once, although the next
request may be under way on them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pydantic_core
from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from credit_risk.decisions import new_id
from credit_risk.serving import problems

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from credit_risk.serving.problems import Kind

HEAD_BYTES_MAX = 16_384
"""Request line and headers; what browsers and proxies allow is 8 to 16 KiB."""
LINGER_SECONDS = 0.5
"""How long a connection that is to be closed is listened to for what is under way."""
_REQUEST_LINE = re.compile(rb"[A-Za-z-]+ \S+ HTTP/1\.[01]\r?\n")


class Connection(HttpToolsProtocol):
    """One client's connection.

    uvicorn makes one for each, with its own arguments, and ``request_seconds``: how long a request
    may take to arrive, its head and its body each; and ``unread``, which is told the id of each
    request that did not reach the application, and what it was refused as.
    """

    def __init__(
        self,
        *,
        request_seconds: float,
        unread: Callable[[str, Kind], None],
        **uvicorns: Any,  # noqa: ANN401 - uvicorn's
    ) -> None:
        super().__init__(**uvicorns)
        self._request_seconds = request_seconds
        self._unread = unread
        self._late: asyncio.TimerHandle | None = None
        self._in_head = True
        self._begun = False
        self._received = 0
        self._refusal = "malformed-request"
        self._refused = False
        self._closing = False

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """A client connected; its first request has to come soon."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes came: part of a request, or one, or several."""
        if self._is_over():
            return
        self._received += len(data)
        self._begun = True
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except HttpParserInvalidMethodError:
            # The parser says so of what is no HTTP, too.
            self._refuse("not-implemented" if _REQUEST_LINE.match(data) else "malformed-request")
        except HttpParserError:
            self._refuse(self._refusal)
        if not self._begun:
            self._wait_no_longer()
        elif not self._is_over():
            if self._late is None:
                self._wait()
            if self._in_head and self._received > HEAD_BYTES_MAX:
                self._refuse("head-too-large")

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        if (refusal := self._fault()) is not None:
            self._refusal = refusal
            raise ValueError(refusal)  # ends the parsing, see `data_received`
        if self.parser.should_upgrade():
            return  # it comes again, see `_parse`
        super().on_headers_complete()
        self._in_head = False
        if self._closing and self._answering():
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._in_head, self._begun, self._received = True, False, 0

    # What uvicorn calls

    def shutdown(self) -> None:
        """The server stops: answer what is on its way, and nothing more."""
        self._closing = True
        if self._answering():
            super().shutdown()
        else:
            self.loop.call_later(LINGER_SECONDS, super().shutdown)

    def _parse(self, data: bytes) -> None:
        """Read on; a head that offers another protocol is read again without the offer.

        The parser stops behind such a head, and takes for another request what is its body.

        Raises:
            HttpParserError: it is not HTTP, or not to reach the application.
        """
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
            except HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
            else:
                return
            version = self.parser.get_http_version().encode()
            lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
            lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            self.parser.feed_data(b"\r\n".join((*lines, b"\r\n")))

    def _fault(self) -> str | None:
        """What is wrong with a head that the parser can read, as the slug of a problem."""
        if self._received > HEAD_BYTES_MAX:
            # What was received may be body for the most part.
            head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if head > HEAD_BYTES_MAX:
                return "head-too-large"
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                return "not-implemented"
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            return "malformed-request"
        if self.parser.should_upgrade() and self.parser.get_method() == b"CONNECT":
            return "not-implemented"
        return None

    def _is_over(self) -> bool:
        return self._refused or self.transport.is_closing()

    def _answering(self) -> bool:
        cycle: Any = self.cycle  # typed as always there, but None before the first request
        return cycle is not None and not cycle.response_complete

    def _wait(self) -> None:
        self._late = self.loop.call_later(self._request_seconds, self._time_is_over)

    def _wait_no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _time_is_over(self) -> None:
        self._late = None
        if self._answering():
            self._wait()  # for the application, which has its own limit for the body
        elif self._begun and self._in_head:
            self._refuse("request-timeout")
        else:
            self.transport.close()

    def _refuse(self, slug: str) -> None:
        """Answer a request that is not to reach the application, and close."""
        if self._answering() and self._in_head:
            # The one before it, on the same connection, is answered first; then it is closed.
            self.cycle.keep_alive = False
            return
        kind = problems.KINDS[slug]
        request_id = new_id()
        content = pydantic_core.to_json(kind.problem(kind.advice).to_json(None))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join((STATUS_LINE[kind.status], *lines, b"\r\n", content)))
        self._unread(request_id, kind)
        # Closed with something unread, a connection is reset, and the answer with it may be lost.
        self._refused = True
        self._wait_no_longer()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
