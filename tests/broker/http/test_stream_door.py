"""A stream is the same whether its request comes alone on a new connection, which is the short way, or otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from broker.auth.authenticator import EXPOSED
from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.http.connection import Connection
from broker.http.listener import _Socket as Socket
from broker.http.stream_door import NewConnection
from broker.live.viewer import Viewer
from tests.edges import SECRET, Author, EdgeProcess, call, edge, eventually, token_for

ORIGIN = "https://app.example.com"
ADDRESSES: Any = {"host": "127.0.0.1", "port": 0, "admin_host": "127.0.0.1", "admin_port": 0}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def edge_(redis_server: Any) -> Iterator[EdgeProcess]:
    with edge(redis_server.url, cors_origins=ORIGIN, heartbeat_seconds=1, max_connections_per_user=4) as started:
        yield started


@pytest.fixture
async def author(redis: Redis) -> Author:
    author = Author(redis, f"door{next(_numbers)}")  # a limit is that of each
    await author.begin()
    return author


def get(path: str, token: str | None, version: str = "1.1", **headers: str) -> bytes:
    fields = {"Host": "x", "Accept": "text/event-stream", **{name.replace("_", "-"): v for name, v in headers.items()}}
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/{version}\r\n{lines}\r\n".encode()


class Client:
    """A raw connection. `pieces` are written one by one, with time for each to arrive alone."""

    def __init__(self, port: int, *pieces: bytes) -> None:
        self.port = port
        self.pieces = pieces

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        for number, piece in enumerate(self.pieces):
            if number:
                await asyncio.sleep(0.05)
            self.writer.write(piece)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.writer.transport.abort()

    async def until(self, what: bytes) -> bytes:
        async with asyncio.timeout(15):
            return await self.reader.readuntil(what)

    async def head(self) -> tuple[str, dict[str, str]]:
        status, *lines = (await self.until(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def ways(request: bytes) -> dict[str, tuple[bytes, ...]]:
    """The same request, as it may arrive."""
    return {
        "whole": (request,),
        "in two pieces": (request[:30], request[30:]),
        "byte by byte at its end": (request[:-2], request[-2:-1], request[-1:]),
    }


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("feed", [False, True], ids=["execution", "feed"])
async def test_the_head_is_the_same_by_every_way(edge_: EdgeProcess, author: Author, version: str, feed: bool) -> None:
    """Status, names and values: all but the date, also for an allowed origin."""
    path = "/api/agent/stream" if feed else author.path
    asked = get(path, author.token, version, Origin=ORIGIN, X_Request_ID="r1")
    heads = []
    for pieces in ways(asked).values():
        async with Client(edge_.port, *pieces) as client:
            heads.append(await client.head())
            await client.until(b"stream:open")
    async with Client(edge_.port, get("/api/agent/agents", author.token)) as client:  # and on a kept connection
        _, fields = await client.head()
        await client.reader.readexactly(int(fields["content-length"]))
        client.writer.write(asked)
        heads.append(await client.head())
        await client.until(b"stream:open")
    for _, fields in heads:
        assert fields.pop("date").endswith("GMT")
    assert all(head == heads[0] for head in heads)
    status, fields = heads[0]
    assert status == f"HTTP/{version} 200 OK"
    framing = {"transfer-encoding": "chunked"} if version == "1.1" else {"connection": "close"}
    assert fields == framing | {
        "content-type": "text/event-stream",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
        "x-request-id": "r1",
        "server": "runcast",
        "x-content-type-options": "nosniff",
        "vary": "Origin, Accept-Encoding",
        "access-control-allow-origin": ORIGIN,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": EXPOSED,
    }


async def test_head_greeting_and_history_are_one_write(edge_: EdgeProcess, author: Author) -> None:
    """Once an edge holds the log: a client gets all at once, and wakes up once."""
    await author.say(20)
    async with Client(edge_.port, get(author.path, author.token)) as first:
        await first.until(b"stream:live")
        async with Client(edge_.port, get(author.path, author.token)) as client:
            async with asyncio.timeout(15):
                data = await client.reader.read(1 << 20)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.count(b"\nid: ") == 21
    assert b"event: stream:live" in data


@pytest.mark.parametrize("way", ["whole", "in two pieces"])
@pytest.mark.parametrize(
    ("path", "token", "status", "slug"),
    [
        ("/api/agent/executions/nowhere/stream", "alice", 404, "unknown-execution"),
        ("/api/agent/stream", None, 401, "unauthorized"),
        ("/api/agent/stream?types=!", "alice", 400, "invalid-parameter"),
        ("/api/agent/stream?user=bob", "alice", 403, "forbidden"),
    ],
    ids=["unknown", "no token", "bad parameter", "another's"],
)
async def test_a_refused_stream_is_a_problem_by_every_way(
    edge_: EdgeProcess, path: str, token: str | None, status: int, slug: str, way: str
) -> None:
    """With one request id in the response, the body and the log."""
    asked = get(path, None if token is None else token_for(token))
    async with Client(edge_.port, *ways(asked)[way]) as client:
        first, fields = await client.head()
        body = json.loads(await client.reader.readexactly(int(fields["content-length"])))
        client.writer.write(get("/openapi.json", None))  # the connection is kept
        assert (await client.head())[0] == "HTTP/1.1 200 OK"
    assert int(first.split(" ")[1]) == body["status"] == status
    assert body["type"].endswith(slug)
    assert fields["x-request-id"] == body["requestId"]
    if status in (401, 403):
        assert any(line["request_id"] == body["requestId"] for line in edge_.logged("access_refused"))


async def test_a_stream_that_must_wait_is_an_empty_one(edge_: EdgeProcess, author: Author) -> None:
    """429 for other clients, and for an `EventSource` a stream that says when to come back; a slot is not lost."""
    async with Client(edge_.port, get(author.path, author.token)) as one:
        await one.until(b"stream:live")
        held = [Client(edge_.port, get(author.path, author.token)) for _ in range(3)]
        for each in held:
            await each.__aenter__()
            await each.until(b"stream:live")
        async with Client(edge_.port, get(author.path, author.token)) as more:
            assert (await more.head())[0] == "HTTP/1.1 200 OK"
            assert b"too-many-connections" in await more.until(b"\n\n")
        refused = await call(edge_.port, "GET", author.path, author.token)
        assert refused.status == 429
        for each in held:
            await each.__aexit__()
    await eventually("slots are given back", lambda: edge_.metric("runcast_connections") == 0)
    async with Client(edge_.port, get(author.path, author.token)) as again:
        await again.until(b"stream:live")


async def test_a_ticket_is_used_once_by_a_stream_that_is_refused(edge_: EdgeProcess, author: Author) -> None:
    """It is not redeemed again for the answer: a ticket for another stream is 403, not 401."""
    minted = await call(
        edge_.port, "POST", "/api/agent/stream-tickets", author.token, json.dumps({"executionId": "other"}).encode()
    )
    async with Client(edge_.port, get(f"{author.path}?ticket={minted.body['ticket']}", None)) as client:
        assert (await client.head())[0].startswith("HTTP/1.1 403")


async def test_an_ended_log_is_204_by_every_way(edge_: EdgeProcess, author: Author) -> None:
    """Nothing follows its last event."""
    last = await author.end()
    asked = get(author.path, author.token, Last_Event_ID=str(last))
    for pieces in ways(asked).values():
        async with Client(edge_.port, *pieces) as client:
            assert (await client.head())[0] == "HTTP/1.1 204 No Content"


@pytest.mark.parametrize(
    "asked",
    [
        lambda path, token: get(path, token, Content_Length="2") + b"{}",
        lambda path, token: get(path, token, Expect="100-continue"),
        lambda path, token: get(path, token) * 2,
        lambda path, token: get(path, token, Upgrade="h2c", Connection="Upgrade"),
    ],
    ids=["a body", "an expectation", "two requests", "an upgrade"],
)
async def test_what_is_more_than_a_request_of_a_stream_is_answered_as_ever(
    edge_: EdgeProcess, author: Author, asked: Callable[[str, str], bytes]
) -> None:
    """Such requests take the long way, to a stream too."""
    async with Client(edge_.port, asked(author.path, author.token)) as client:
        await client.until(b"stream:live")


@pytest.mark.parametrize("fields", [b"", b"Host: x\r\nA\0: b\r\n"], ids=["no host", "a NUL"])
async def test_a_request_that_is_no_http_is_refused(edge_: EdgeProcess, fields: bytes) -> None:
    """A path like a stream's makes nothing readable."""
    async with Client(edge_.port, b"GET /api/agent/stream HTTP/1.1\r\n%b\r\n" % fields) as client:
        assert (await client.head())[0] == "HTTP/1.0 400 Bad Request"


async def test_bytes_behind_the_request_do_not_harm(edge_: EdgeProcess, author: Author) -> None:
    """Nobody reads them, whether they come while the stream opens or later."""
    async with Client(edge_.port, get(author.path, author.token)) as client:
        await client.until(b"stream:open")
        client.writer.write(b"x" * 1000)
        await client.until(b"stream:live")
        await author.say()
        await client.until(b"event: thinking")


async def test_a_client_that_leaves_while_its_stream_opens_holds_nothing(redis_server: Any, redis: Redis) -> None:
    """Redis answers late: the slot, the connection and the task are given back."""
    author = Author(redis, "leaves")
    await author.begin()
    with edge(redis_server.url, max_connections_per_user=2) as slow:
        await redis.execute_command("CLIENT", "PAUSE", "1500", "ALL")
        for _ in range(4):
            async with Client(slow.port, get(author.path, author.token)):
                await asyncio.sleep(0.05)
        await eventually("sockets are given back", lambda: slow.metric("runcast_sockets") == 0)
        async with (
            Client(slow.port, get(author.path, author.token)) as one,
            Client(slow.port, get(author.path, author.token)) as two,
        ):
            await one.until(b"stream:live")
            await two.until(b"stream:live")
        assert "Traceback" not in slow.log_text()


async def test_nothing_is_left_for_the_collector(redis_server: Any, redis: Redis) -> None:
    """Streams, refused streams and plain requests leave no transport, request or viewer in a cycle of references:
    what is in one stays until a full collection, 1 to 3 KB a connection."""
    ours = (Socket, NewConnection, Connection, Viewer, web.BaseRequest, web.StreamResponse)
    author = Author(redis, "cycles")
    await author.begin()
    async with Edge(Settings(redis_url=redis_server.url, jwt_secret=SECRET, drain_seconds=0, **ADDRESSES)) as here:
        gc.collect()
        gc.disable()
        try:
            for path, token in (
                (author.path, author.token),
                (author.path + "?from=now", author.token),
                ("/api/agent/executions/nowhere/stream", author.token),
                ("/api/agent/executions", author.token),
                ("/api/agent/executions", None),
                ("/openapi.json", None),
            ):
                for pieces in ways(get(path, token)).values():
                    async with Client(here.port, *pieces) as client:
                        await client.head()
            async with asyncio.timeout(15):
                while here._public.open:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)  # handlers end
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [type(each).__name__ for each in gc.garbage if isinstance(each, ours)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []


async def test_connections_that_asked_nothing_end_with_the_edge(redis_server: Any) -> None:
    """A browser's or a balancer's, in advance: what it would ask for then, nobody would wait for."""
    async with contextlib.AsyncExitStack() as stack:
        async with Edge(Settings(redis_url=redis_server.url, jwt_secret=SECRET, drain_seconds=0, **ADDRESSES)) as here:
            silent = await stack.enter_async_context(Client(here.port))
            while not here._public.connections.silent:
                await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert await silent.reader.read() == b""


async def test_a_history_that_cannot_be_shown_ends_its_stream(
    redis_server: Any, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens it is told, and holds no slot."""
    author = Author(redis, "unshown")
    await author.begin()

    def fail(*_: Any) -> bytes:
        raise OverflowError("no")

    async with (
        Edge(Settings(redis_url=redis_server.url, jwt_secret=SECRET, drain_seconds=0, **ADDRESSES)) as here,
        Client(here.port, get(author.path, author.token)) as first,
    ):
        await first.until(b"stream:live")
        monkeypatch.setattr("broker.live.topic.Topic.render_tail", fail)
        async with Client(here.port, get(author.path, author.token)) as client:
            await client.until(b'{"reason":"failed"}')
        assert len(here.streams) == 1
