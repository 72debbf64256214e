"""Connections on real sockets: what comes late, comes broken, or comes when the server stops."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from credit_risk.serving import connection, problems
from credit_risk.serving.connection import HEAD_BYTES_MAX, Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from starlette.types import Receive, Scope, Send

    from credit_risk.serving.problems import Kind

PATIENT = 60.0
HASTY = 0.05
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHos"
HALF_A_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab"


class App:
    """Answers with the size of what it was sent, as soon as it is let."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        self.reads = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        assert scope["type"] == "http"
        self.called.set()
        await self.let.wait()
        size, more = 0, self.reads
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        content = str(size).encode()
        headers = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


class Client:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send some bytes."""
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        content = await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, content

    async def problem(self) -> str:
        """The type of the problem that is answered, after which nothing more comes."""
        status, headers, content = await self.answer()
        assert headers["content-type"] == problems.MEDIA_TYPE
        assert headers["connection"] == "close"
        assert uuid.UUID(headers["x-request-id"]).version == 7
        document = json.loads(content)
        assert document["status"] == status
        assert await self.reader.read() == b""
        slug: str = document["type"].removeprefix("/problems/")
        return slug


class Serving:
    """A server of the toy application on a port of its own."""

    def __init__(self, server: uvicorn.Server, app: App, refused: list[tuple[str, str]]) -> None:
        self.server = server
        self.app = app
        self.refused = refused
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        """One more client."""
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return self.clients[-1]

    async def stop(self) -> None:
        """Stop, and wait until the last connection is closed."""
        await self.server.shutdown()


@asynccontextmanager
async def serving(request_seconds: float = PATIENT) -> AsyncIterator[Serving]:
    """Start a server; clients that are still there at the end go away."""
    app = App()
    refused: list[tuple[str, str]] = []

    def unread(request_id: str, kind: Kind) -> None:
        refused.append((request_id, kind.slug))

    protocol: Any = partial(Connection, request_seconds=request_seconds, unread=unread)
    config = uvicorn.Config(app, port=0, http=protocol, lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    running = Serving(server, app, refused)
    try:
        yield running
    finally:
        app.let.set()
        for client in running.clients:
            client.writer.close()
        await running.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run one test to its end."""
    asyncio.run(test)


def test_requests_follow_each_other_on_one_connection() -> None:
    """Whole, in pieces, two at once."""

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            for data in (GET, HALF_A_BODY, b"cd", GET + GET, GET[:20], GET[20:]):
                client.send(data)
                await asyncio.sleep(0.01)
            sizes = [(await client.answer())[2] for _ in range(5)]
            assert sizes == [b"0", b"4", b"0", b"0", b"0"]

    run(test())


@pytest.mark.parametrize("before", [b"", GET])
def test_half_a_head_is_408(before: bytes) -> None:
    """On a new connection as on one that was used."""

    async def test() -> None:
        async with serving(HASTY) as running:
            client = await running.connect()
            if before:
                client.send(before)
                await client.answer()
            client.send(HALF_A_HEAD)
            assert await client.problem() == "request-timeout"

    run(test())


def test_what_does_not_reach_the_application_is_told_once() -> None:
    """Under the id that the client was answered."""

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            client.send(b"?\r\n\r\n")
            _, headers, _ = await client.answer()
            assert running.refused == [(headers["x-request-id"], "malformed-request")]

    run(test())


def test_a_head_that_trickles_in_gains_no_time() -> None:
    """A byte now and then would hold the connection for ever."""

    async def test() -> None:
        async with serving(HASTY) as running:
            client = await running.connect()
            for byte in b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000:
                client.send(bytes([byte]))
                await asyncio.sleep(HASTY / 10)
                if client.reader.at_eof() or running.server.server_state.connections == set():
                    break
            assert await client.problem() == "request-timeout"

    run(test())


def test_a_connection_without_a_request_is_closed() -> None:
    """There is nothing to answer."""

    async def test() -> None:
        async with serving(HASTY) as running:
            client = await running.connect()
            assert await client.reader.read() == b""

    run(test())


def test_an_answer_may_take_longer_than_its_request() -> None:
    """The limit is for what the client does."""

    async def test() -> None:
        async with serving(HASTY) as running:
            running.app.let.clear()
            client = await running.connect()
            client.send(GET)
            await asyncio.sleep(3 * HASTY)
            running.app.let.set()
            assert (await client.answer())[0] == 200

    run(test())


def test_a_body_that_nobody_waits_for_any_more_ends_the_connection() -> None:
    """Answered before it came, as a body that is announced as too large is."""

    async def test() -> None:
        async with serving(HASTY) as running:
            running.app.reads = False
            client = await running.connect()
            client.send(HALF_A_BODY)
            assert (await client.answer())[0] == 200
            assert await client.reader.read() == b""

    run(test())


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"GET /" + b"x" * HEAD_BYTES_MAX + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (HEAD_BYTES_MAX // 5) + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 3 * HEAD_BYTES_MAX,
    ],
    ids=["one header", "the path", "many headers", "without an end"],
)
def test_too_large_a_head_is_431(head: bytes, pieces: int) -> None:
    """Whether it comes at once or not, and before it has come to its end."""

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            size = -(-len(head) // pieces)
            for start in range(0, len(head), size):
                client.send(head[start : start + size])
                await asyncio.sleep(0.01)
            assert await client.problem() == "head-too-large"
            assert not running.app.called.is_set()

    run(test())


def test_a_large_body_is_no_large_head() -> None:
    """However the two are cut into pieces."""

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            size = 10 * HEAD_BYTES_MAX
            for _ in range(3):
                head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
                client.send(head.encode() + b"x" * size + GET)
                assert (await client.answer())[2] == str(size).encode()
                assert (await client.answer())[2] == b"0"

    run(test())


HOSTLESS = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
]
UPGRADES = {
    "curl": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "a browser's WebSocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
}
BODIES = {
    "with a length": b"Content-Length: 4\r\n\r\nabcd",
    "in chunks": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
def test_an_offer_of_another_protocol_is_ignored(upgrade: bytes, body: bytes, size: int) -> None:
    """The body counts, however it is cut into pieces; the connection goes on."""
    post = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + upgrade + body

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            data = post + GET + post
            for start in range(0, len(data), size):
                client.send(data[start : start + size])
                await asyncio.sleep(0)
            answers = [await client.answer() for _ in range(3)]
            assert [(status, size) for status, _, size in answers] == [
                (200, b"4"),
                (200, b"0"),
                (200, b"4"),
            ]
            assert not any("upgrade" in headers for _, headers, _ in answers)

    run(test())


def test_an_offer_does_not_excuse_the_head() -> None:
    """It is as large as it is, and of HTTP/1.1."""

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            offer = b"GET / HTTP/1.1\r\n" + UPGRADES["curl"]
            client.send(offer + b"X: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n")
            assert await client.problem() == "head-too-large"
            client = await running.connect()
            client.send(offer + b"\r\n")
            assert await client.problem() == "malformed-request"
            assert not running.app.called.is_set()

    run(test())


@pytest.mark.parametrize(
    "data",
    [
        b"FOO / HTTP/1.1",
        b"CONNECT x:80 HTTP/1.1",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    ],
)
def test_what_is_http_and_not_ours_is_501(data: bytes) -> None:
    """Methods that nobody knows, and bodies that would have to be unpacked."""

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            client.send(data + b"\r\nHost: x\r\n\r\n")
            assert await client.problem() == "not-implemented"
            assert not running.app.called.is_set()

    run(test())


def test_only_http_1_0_needs_no_host() -> None:
    """RFC 9112, 3.2."""

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await client.answer())[0] == 200

    run(test())


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00", b"HELO x\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", *HOSTLESS]
)
def test_what_is_not_http_is_a_problem_as_everything_else(data: bytes) -> None:
    """TLS on a port without it, for one."""

    async def test() -> None:
        async with serving() as running:
            client = await running.connect()
            client.send(data)
            assert await client.problem() == "malformed-request"
            assert not running.app.called.is_set()

    run(test())


def test_a_broken_request_waits_for_the_answer_to_the_one_before() -> None:
    """A client would take its refusal for the answer to the first."""

    async def test() -> None:
        async with serving() as running:
            running.app.let.clear()
            client = await running.connect()
            client.send(GET)
            await running.app.called.wait()
            client.send(b"\x00\x00\r\n\r\n")
            await asyncio.sleep(0.01)
            running.app.let.set()
            assert (await client.answer())[0] == 200
            assert await client.reader.read() == b""

    run(test())


def test_a_stopping_server_answers_what_it_has_begun_and_what_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each for the last time on its connection."""
    monkeypatch.setattr(connection, "LINGER_SECONDS", PATIENT)

    async def test() -> None:
        async with serving() as running:
            busy, idle = await running.connect(), await running.connect()
            idle.send(GET)
            await idle.answer()
            running.app.called.clear()
            running.app.let.clear()
            busy.send(GET)
            await running.app.called.wait()

            stop = asyncio.create_task(running.stop())
            await asyncio.sleep(0)
            idle.send(GET)
            running.app.let.set()

            for client in (busy, idle):
                status, headers, _ = await client.answer()
                assert (status, headers["connection"]) == (200, "close")
                assert await client.reader.read() == b""
            await stop

    run(test())


def test_a_stopping_server_closes_connections_on_which_nothing_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Used before or not, and with half a head."""
    monkeypatch.setattr(connection, "LINGER_SECONDS", HASTY)

    async def test() -> None:
        async with serving() as running:
            used, silent, half = [await running.connect() for _ in range(3)]
            used.send(GET)
            await used.answer()
            half.send(HALF_A_HEAD)

            await running.stop()

            for client in (used, silent, half):
                assert await client.reader.read() == b""

    run(test())
