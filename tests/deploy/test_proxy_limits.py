"""What one client may have of the proxies of deploy/: who wants too much is told to come later, and the others notice
nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.deploy.proxies import DEPLOYED, PROXIES, Envoy, HAProxy, Proxy
from tests.edges import Author, Connection, EdgeProcess, edge, token_for, under_load

ALLOWED = 20
GREEDY, OTHER = "127.0.0.2", "127.0.0.1"
"""Two clients: all of 127/8 is this machine's."""


@pytest.fixture(scope="module")
def stand(redis_server: Any) -> Iterator[EdgeProcess]:
    with edge(redis_server.url) as started:
        yield started


LIMITING = [param for param in PROXIES if param.values != ("caddy",)]
"""Caddy limits nobody by itself."""


@pytest.fixture(params=LIMITING)
def proxy(request: pytest.FixtureRequest, stand: EdgeProcess) -> Iterator[Proxy]:
    """With a hundredth of what one client may have."""
    with DEPLOYED[request.param]([stand], ALLOWED) as running:
        yield running


@contextlib.asynccontextmanager
async def asked(
    proxy: Proxy, address: str, path: str, token: str | None = None, accept: str = "*/*"
) -> AsyncIterator[Connection]:
    """A request of the client with this address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, local_addr=(address, 0))
    connection = Connection(reader, writer)
    try:
        who = f"Authorization: Bearer {token}\r\n" if token else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n{who}\r\n".encode())
        async with asyncio.timeout(under_load(15)):
            await connection._head()
        yield connection
    finally:
        connection.close()


async def status(proxy: Proxy, address: str) -> int:
    async with asked(proxy, address, "/api/agent/executions", token_for("alice")) as answer:
        return answer.status


@contextlib.asynccontextmanager
async def refused(proxy: Proxy, path: str, accept: str = "*/*") -> AsyncIterator[Connection]:
    """What the greedy client is told that has had all it may have. Every second it may have one more: a request that
    meets it is answered by the edge, for want of a token with 401."""
    while True:
        async with asked(proxy, GREEDY, path, accept=accept) as answer:
            if answer.status != 401:
                yield answer
                return


async def until_ready(proxy: Proxy) -> None:
    async with asyncio.timeout(under_load(15)):
        while await status(proxy, "127.0.0.3") != 200:
            await asyncio.sleep(0.2)


async def test_who_asks_too_much_is_told_to_come_later(proxy: Proxy) -> None:
    """429 with Retry-After for one address, an `EventSource` is told by `retry:`, and another address is answered."""
    await until_ready(proxy)
    statuses = Counter([await status(proxy, GREEDY) for _ in range(3 * ALLOWED)])
    assert set(statuses) == {200, 429}
    assert ALLOWED / 2 <= statuses[200] <= 2 * ALLOWED
    async with refused(proxy, "/api/agent/executions") as told:
        assert (told.status, told.headers["retry-after"]) == (429, "5")
        assert told.headers["content-type"].startswith("application/problem+json")
        assert (await told.json())["type"] == "urn:runcast:problem:rate-limited"
    async with refused(proxy, "/api/agent/stream", "text/event-stream") as later:
        assert (later.status, later.headers["content-type"]) == (200, "text/event-stream")
        assert (await later.body()).startswith(b"retry: 5000\n")
    assert [await status(proxy, OTHER) for _ in range(ALLOWED // 2)] == [200] * (ALLOWED // 2)


async def test_who_has_too_many_streams_gets_no_more(proxy: Proxy, redis: Redis) -> None:
    """The streams of one address have an end (at Envoy the rate bounds how many it opens); another opens its own."""
    await until_ready(proxy)
    author = Author(redis, f"streams-{type(proxy).__name__}")
    await author.begin()
    async with contextlib.AsyncExitStack() as stack:
        found: Counter[object] = Counter()
        for _ in range(2 * ALLOWED):
            try:
                opened = asked(proxy, GREEDY, author.path, author.token)
                found[(await stack.enter_async_context(opened)).status] += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                found["rejected"] += 1
        assert ALLOWED / 2 <= found[200] <= 1.5 * ALLOWED
        assert found["rejected" if isinstance(proxy, HAProxy) else 429] > 0, found
        async with asked(proxy, OTHER, author.path, author.token) as other:
            assert other.status == 200
    if isinstance(proxy, Envoy):
        assert proxy.complaints() == []
