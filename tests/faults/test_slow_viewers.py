"""Viewers that read slowly, or not at all, cost the edge a bounded buffer and the others nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from broker.cli.embedded import EmbeddedRedis
from tests.edges import SSE, Author, EdgeProcess, Frame, SseReader, edge, eventually, request, under_load

CLOSED = "runcast_connections_closed_total"
MEGABYTE = 1024 * 1024
SETTINGS = {"heartbeat_seconds": 1, "viewer_buffer_bytes": 65536}


def ids_of(frames: list[Frame]) -> list[str]:
    return [frame.id for frame in frames if frame.id is not None]


async def test_a_viewer_that_stops_reading_for_a_while_gets_everything_from_the_log(
    redis_url: str, author: Author
) -> None:
    """While it does not read, the edge holds no more than its buffer; when it reads again it gets exactly the log, on
    the same connection."""
    await author.begin()
    with edge(redis_url, **SETTINGS) as only:
        async with request(only.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096) as slow:
            frames = slow.frames()
            received = [await anext(frames) for _ in range(3)]  # open, the first event, live
            before = only.rss_bytes()
            for _ in range(60):
                await author.say(20, size=20_000)
            await eventually("it is slow", lambda: only.metric("runcast_slow_viewers_total") == 1)
            held = only.rss_bytes() - before
            await author.end()
            async with asyncio.timeout(under_load(30)):
                received += [frame async for frame in frames]
            assert slow.whole
    log = await author.log()
    assert ids_of(received) == [event.id for event in log]
    assert len(log) == 1202
    assert held < 12 * MEGABYTE, f"{held / MEGABYTE:.1f} of {60 * 20 * 20_000 / MEGABYTE:.0f} MB were held"


async def test_many_viewers_that_do_not_read_cost_a_buffer_each(redis_url: str, author: Author) -> None:
    """Twenty viewers that read nothing of 10 MB each cost the edge some buffers, not the events times the viewers."""
    await author.begin()
    with edge(redis_url, **SETTINGS, write_timeout_seconds=60) as only:
        stalled = []
        try:
            for _ in range(20):
                context = request(only.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096)
                await context.__aenter__()
                stalled.append(context)
            await eventually("all there", lambda: only.metric("runcast_connections") == 20)
            before = only.rss_bytes()
            for _ in range(25):
                await author.say(20, size=20_000)
            await eventually("all are slow", lambda: only.metric("runcast_slow_viewers_total") == 20)
            held = only.rss_bytes() - before
        finally:
            for context in stalled:
                await context.__aexit__(None, None, None)
        await eventually("all gone", lambda: only.metric("runcast_connections") == 0)
        assert only.metric("runcast_connections_closed_total", reason="gone") == 20
    assert held < 40 * MEGABYTE, f"{held / MEGABYTE:.1f} MB were held for 20 viewers of 10 MB"


@pytest.fixture(scope="module")
def impatient(redis_server: EmbeddedRedis) -> Iterator[EdgeProcess]:
    """An edge that closes who takes nothing for three seconds: longer than a viewer that reads may be held up here."""
    with edge(redis_server.url, **SETTINGS, write_timeout_seconds=3) as started:
        yield started


async def test_a_viewer_that_never_reads_is_closed_as_slow_and_may_resume(
    impatient: EdgeProcess, author: Author
) -> None:
    """One that takes nothing for the write timeout is cut off; with the last id it had, it gets the rest."""
    await author.begin()
    port = impatient.port
    async with request(port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096) as slow:
        for _ in range(20):
            await author.say(20, size=20_000)
        await eventually("closed as slow", lambda: impatient.metric(CLOSED, reason="slow") == 1)
        await eventually("it is gone", lambda: impatient.metric("runcast_connections") == 0)
        sse = SseReader()
        received: list[Frame] = []
        async with asyncio.timeout(10):
            async for piece in slow.pieces():
                received += sse.feed(piece)
        assert not slow.whole, "a cut must not pass for an end"
    # The reset of the connection may throw away what the kernel had received: then it starts over.
    headers = SSE | ({"Last-Event-ID": ids_of(received)[-1]} if ids_of(received) else {})
    await author.end()
    async with request(port, "GET", author.path, author.token, headers=headers) as again:
        async with asyncio.timeout(under_load(20)):
            rest = [frame async for frame in again.frames()]
    assert ids_of(received) + ids_of(rest) == [event.id for event in await author.log()]


async def test_a_slow_viewer_does_not_hold_the_others_up(redis_url: str, author: Author) -> None:
    """A viewer beside one that reads nothing has every event at once."""
    await author.begin()
    with edge(redis_url, **SETTINGS) as only:
        async with (
            request(only.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096),
            request(only.port, "GET", author.path, author.token, headers=SSE) as quick,
        ):
            frames = quick.frames()
            received = [await anext(frames) for _ in range(3)]
            for _ in range(30):
                last = await author.say(20, size=20_000)
                async with asyncio.timeout(under_load(8)):
                    while ids_of(received)[-1:] != [str(last)]:
                        received.append(await anext(frames))
    assert ids_of(received) == [event.id for event in await author.log()]


async def test_a_viewer_that_reads_slowly_but_steadily_stays(impatient: EdgeProcess, author: Author) -> None:
    """Progress, however slow, keeps a viewer connected for longer than the write timeout."""
    await author.begin()
    await author.say(100, size=10_000)
    await author.end()
    before = impatient.metric(CLOSED, reason="finished")
    async with request(impatient.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096) as slow:
        sse, received = SseReader(), []
        async for piece in slow.pieces():
            received += sse.feed(piece)
            await asyncio.sleep(0.0006 * len(piece) / 100)
        assert slow.whole
    assert impatient.metric(CLOSED, reason="finished") == before + 1
    assert ids_of(received) == [event.id for event in await author.log()]
