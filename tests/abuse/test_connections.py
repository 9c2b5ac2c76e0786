"""More connections than an edge has room for, from somebody without a token: those who watch notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.http.descriptors import ADMIN_SOCKETS
from tests.edges import Author, EdgeProcess, Follower, assert_dense, call, eventually, token_for, under_load

DESCRIPTORS = 400
SOCKETS = DESCRIPTORS - DESCRIPTORS // 3
VIEWERS = 190
FLOOD = 600
FLOOD_SECONDS = 5.0
SOME_DESCRIPTORS = (
    "-c",
    f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, {DESCRIPTORS}))
from broker.cli.main import main
sys.exit(main())
""",
)


@pytest.fixture(scope="module")
def narrow(redis_server: Any) -> Iterator[EdgeProcess]:
    """An edge with 400 descriptors, of which its shell gave it 100."""
    edge = EdgeProcess(
        redis_server.url, program=SOME_DESCRIPTORS, max_connections_per_user=0, heartbeat_seconds=1
    ).start()
    try:
        yield edge.wait_ready()
    finally:
        edge.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def viewers(edge: EdgeProcess, author: Author, count: int) -> AsyncIterator[list[Follower]]:
    async with contextlib.AsyncExitStack() as stack:
        found = [Follower([edge], author.path, author.token) for _ in range(count)]
        for viewer in found:
            await stack.enter_async_context(viewer)
        for viewer in found:
            await viewer.until_live()
        yield found


@contextlib.asynccontextmanager
async def flood(port: int, count: int, says: bytes, *, reads: bool = True) -> AsyncIterator[None]:
    """Connections that say only this and stay, reading what comes or not; whoever is let go comes again at once."""

    async def stay() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(says)
                    while reads and await reader.read(65_536):
                        pass
                    while not writer.is_closing():
                        await asyncio.sleep(0.2)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(stay()) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


UNKNOWN = b"GET /api/agent/executions HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("says", [b"", b"GET / HTTP/1.1\r\nHo", UNKNOWN], ids=["nothing", "half a head", "one 401"])
async def test_a_flood_of_connections_takes_nothing_from_viewers(
    narrow: EdgeProcess, redis: Redis, says: bytes
) -> None:
    """190 viewers, 600 connections that stay, 400 descriptors: every viewer keeps its connection and gets every event
    at once, probes are answered, somebody with a token gets in, and neither the CPU nor the log shows much of it."""
    author = Author(redis, f"bystander-{len(says)}")
    await author.begin()
    async with contextlib.AsyncExitStack() as stack:
        watching = await stack.enter_async_context(viewers(narrow, author, VIEWERS))
        usual = max([await seconds_to_all(author, watching) for _ in range(3)])
        await stack.enter_async_context(flood(narrow.port, FLOOD, says))
        await eventually("it is full", lambda: narrow.metric("runcast_sockets") >= SOCKETS - 1)
        logged, cpu, began = len(narrow.log_text()), cpu_seconds(narrow.pid), time.monotonic()
        answered, waited = 0, []
        while time.monotonic() < began + FLOOD_SECONDS or not answered:
            assert time.monotonic() < began + under_load(6 * FLOOD_SECONDS), "nobody gets in"
            waited.append(await seconds_to_all(author, watching))
            waited.append(await asyncio.to_thread(seconds_to_probe, narrow))
            answered += await is_answered(narrow, author.token)
        seconds = time.monotonic() - began
        assert max(waited) < under_load(1) + 2 * usual
        assert cpu_seconds(narrow.pid) - cpu < 0.6 * seconds
        if says != UNKNOWN:  # each of those is a refusal that is logged
            assert len(narrow.log_text()) - logged < 1000 * seconds
        assert all(viewer.connects == 1 for viewer in watching)
        await author.end()
        for viewer in watching:
            await viewer.until_done(60)
    log = await author.log()
    assert_dense(log)
    for viewer in watching:
        assert viewer.events == log


async def seconds_to_all(author: Author, watching: Sequence[Follower]) -> float:
    """How long an event takes to all of these viewers."""
    began, count = time.monotonic(), len(watching[0].events)
    await author.say()
    for viewer in watching:
        await viewer.until_events(count + 1)
    return time.monotonic() - began


def seconds_to_probe(edge: EdgeProcess) -> float:
    began = time.monotonic()
    assert [edge.admin_status(path) for path in ("/healthz", "/readyz")] == [200, 200]
    return time.monotonic() - began


def is_ready(edge: EdgeProcess, port: int) -> bool:
    return edge.admin_status("/readyz", port) == 200


async def is_answered(edge: EdgeProcess, token: str) -> bool:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        return (await call(edge.port, "GET", "/api/agent/executions", token)).status == 200
    return False


async def test_who_does_not_read_answers_makes_room(narrow: EdgeProcess, redis: Redis) -> None:
    """More connections than there is room for, each full of answers that nobody takes: viewers notice nothing, and
    soon somebody gets in."""
    author = Author(redis, "reader")
    await author.begin()
    many = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200
    async with contextlib.AsyncExitStack() as stack:
        watching = await stack.enter_async_context(viewers(narrow, author, 20))
        usual = max([await seconds_to_all(author, watching) for _ in range(3)])
        await stack.enter_async_context(flood(narrow.port, SOCKETS, many, reads=False))
        await eventually("it is full", lambda: narrow.metric("runcast_sockets") >= SOCKETS - 1)
        began = time.monotonic()
        while not await is_answered(narrow, author.token):
            assert time.monotonic() < began + under_load(30), "nobody gets in"
            assert await seconds_to_all(author, watching) < under_load(3) + 2 * usual
            await asyncio.sleep(0.1)
        assert all(viewer.connects == 1 for viewer in watching)


async def test_a_flood_of_the_admin_port_does_not_keep_probes_out(narrow: EdgeProcess) -> None:
    """Three times as many silent connections as it takes: probes are answered within a second all the same."""
    async with flood(narrow.admin_ports[0], 3 * ADMIN_SOCKETS, b""):
        await asyncio.sleep(1)
        for _ in range(10):
            assert await asyncio.to_thread(narrow.admin_status, "/healthz") == 200
            await asyncio.sleep(0.1)


@pytest.mark.timeout(120)
async def test_the_workers_of_a_flooded_port_go_on(redis: Redis, redis_url: str) -> None:
    """Two processes on one port, each full of silent connections: both answer probes, and somebody gets in."""
    edge = EdgeProcess(redis_url, "--workers", "2", max_connections=50, max_sockets=60).start()
    try:
        for port in edge.admin_ports:  # two processes that start at once take twice as long
            await eventually("ready", functools.partial(is_ready, edge, port), 45)
        async with flood(edge.port, 300, b""):
            await asyncio.sleep(1)
            for port in edge.admin_ports:
                assert await asyncio.to_thread(edge.admin_status, "/healthz", port) == 200
            async with asyncio.timeout(under_load(30)):
                while not await is_answered(edge, token_for("alice")):
                    await asyncio.sleep(0.05)
    finally:
        edge.close()
