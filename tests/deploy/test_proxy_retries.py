"""What the proxies of deploy/ do when an edge fails in the middle of a request, which real edges do not do when asked:
a GET goes to another one as long as no answer has begun; a POST is never sent twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Literal

import pytest

from broker.http.api import MAX_BODY_BYTES
from tests.deploy.proxies import DEPLOYED, PROXIES, Proxy
from tests.edges import request, under_load
from tests.ports import reserved_ports

Deed = Literal["answer", "hang up", "refuse", "begin"]
CHUNK = b"5\r\ndata:\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "answer": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "hang up": b"",
    "refuse": b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
    "begin": HEAD + CHUNK,
}
URGENT = {
    "X-Envoy-Retry-On": "5xx,reset,retriable-4xx",
    "X-Envoy-Max-Retries": "5",
    "X-Envoy-Upstream-Rq-Timeout-Ms": "1",
}
"""What nobody outside may ask of Envoy."""


class Stub:
    """What a proxy takes for an edge. It is always ready, and does what `deed` says with a request that was read whole;
    then, unless it answered, its connection is reset."""

    def __init__(self, edges: Edges, address: str, port: int) -> None:
        self._edges = edges
        self.address = address
        self.port = port
        self.admin_ports = [port]
        self.is_used = False
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, self.port)

    def shut(self) -> None:
        """Let no new connection in."""
        assert self._server is not None
        self._server.close()

    async def end(self) -> None:
        self.shut()
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                path = head.split(" ")[1]
                if path == "/readyz":
                    writer.write(ANSWERS["answer"])
                    continue
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                await reader.readexactly(length)
                self.is_used = True
                deed = self._edges.next_deed(head.split(" ")[0].upper())
                writer.write(ANSWERS[deed])
                await writer.drain()
                if deed == "begin":
                    await self._edges.seen.wait()  # what was begun is with the client
                if deed in ("hang up", "begin"):
                    break
        writer.transport.abort()


class Edges:
    """Stubs that share what they are to do: the next request meets `deed`, every later one `then`."""

    def __init__(self, port: int) -> None:
        self.stubs = [Stub(self, f"127.0.0.{2 + number}", port) for number in range(6)]
        self.deed: Deed = "answer"
        self.then: Deed = "answer"
        self.methods: list[str] = []
        self.seen = asyncio.Event()

    def next_deed(self, method: str) -> Deed:
        self.methods.append(method)
        deed, self.deed = self.deed, self.then
        return deed

    def once(self, deed: Deed, then: Deed = "answer") -> None:
        self.deed, self.then = deed, then
        self.methods.clear()


@pytest.fixture
async def stubs() -> AsyncIterator[Edges]:
    """Six of them: some proxies leave one out for a while that failed."""
    with reserved_ports(1) as (port,):
        edges = Edges(port)
        for stub in edges.stubs:
            await stub.start()
        yield edges
        edges.seen.set()
        for stub in edges.stubs:
            await stub.end()


@pytest.fixture(params=PROXIES)
async def proxy(request: pytest.FixtureRequest, stubs: Edges) -> AsyncIterator[Proxy]:
    """In front of the stubs, and sure that they are ready, all of them: the next one is asked where one fails."""
    running = DEPLOYED[request.param](stubs.stubs)
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, running)  # it may ask the stubs before it listens
        async with asyncio.timeout(under_load(15)):
            while await status(running, "GET", "/") != 200 or not all(stub.is_used for stub in stubs.stubs):
                await asyncio.sleep(0.02)
        yield running


async def status(
    proxy: Proxy, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
) -> int:
    given = {"Connection": "close", **headers}
    async with request(proxy.port, method, path, headers=given, body=body, seconds=15) as answer:
        return answer.status


@pytest.mark.parametrize("deed", ["hang up", "refuse"])
async def test_a_get_is_sent_to_another_edge_and_a_post_is_sent_once(proxy: Proxy, stubs: Edges, deed: Deed) -> None:
    """An edge that is gone before its answer, or takes no new streams: nobody notices but who must say it again."""
    stubs.once(deed)
    assert await status(proxy, "GET", "/stream") == 200
    assert stubs.methods == ["GET"] * 2
    for size in (100, 200_000):  # less than a proxy holds, and more
        stubs.once(deed)
        assert await status(proxy, "POST", "/execute", b"x" * size, URGENT) in (502, 503)
        assert stubs.methods == ["POST"]


async def test_a_get_that_every_edge_refuses_is_tried_a_few_times(proxy: Proxy, stubs: Edges) -> None:
    """Full edges are not asked so often that they never recover; and the client is told, with when to come back."""
    stubs.once("refuse", then="refuse")
    async with request(proxy.port, "GET", "/stream", seconds=4) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert 2 <= len(stubs.methods) <= 4, stubs.methods


async def test_what_has_begun_is_cut_off_and_not_repeated(proxy: Proxy, stubs: Edges) -> None:
    """A stream whose edge is gone is cut, which no client takes for its end, and asked for by the client alone."""
    stubs.once("begin")
    async with request(proxy.port, "GET", "/stream") as answer:
        pieces = answer.pieces()
        async with asyncio.timeout(under_load(15)):
            assert await anext(pieces) == b"data:"
            stubs.seen.set()
            assert [piece async for piece in pieces] == []
        assert (answer.status, answer.whole) == (200, False)
    assert stubs.methods == ["GET"]


async def test_what_reached_no_edge_goes_to_another_whatever_it_is(proxy: Proxy, stubs: Edges) -> None:
    """Edges that have just gone cost nobody a request, not even a POST: no edge has seen it."""
    for stub in stubs.stubs[:2]:
        stub.shut()
    stubs.once("answer")
    for _ in range(10):
        assert await status(proxy, "POST", "/execute", b"{}") == 200
    assert stubs.methods == ["POST"] * 10


async def test_the_largest_body_passes(proxy: Proxy, stubs: Edges) -> None:
    """However little a proxy holds of what it may have to send again."""
    stubs.once("answer")
    assert await status(proxy, "POST", "/execute", b"x" * MAX_BODY_BYTES) == 200
    assert stubs.methods == ["POST"]
