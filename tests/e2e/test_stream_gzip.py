"""Streams in gzip, compressed once for all viewers of a log: the same events, at the same moment, in fewer bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from emitter.events import MessageDelta, Thinking
from emitter.wire.ids import parse_event_id
from tests.edges import (
    FEED_PATH,
    SSE,
    Author,
    Connection,
    EdgeProcess,
    Follower,
    Frame,
    assert_dense,
    call,
    edge,
    edges,
    request,
    under_load,
    writing,
)

GZIP = {"Accept-Encoding": "gzip"}
BOTH = SSE | GZIP


async def next_frame(frames: AsyncIterator[Frame], event: str) -> Frame:
    async with asyncio.timeout(under_load(5)):
        async for frame in frames:
            if frame.event == event:
                return frame
    raise AssertionError(f"the stream ended before {event}")


# --- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.0, identity", None),
        ("br", None),
        ("*", None),
        ("identity", None),
        (None, None),
    ],
)
async def test_a_client_says_whether(
    two_edges: list[EdgeProcess], author: Author, accepted: str | None, coding: str | None
) -> None:
    """Caches are told that it depends on this. Nothing else of the head changes."""
    await author.begin()
    headers = SSE | ({} if accepted is None else {"Accept-Encoding": accepted})
    async with request(two_edges[0].port, "GET", author.path, author.token, headers=headers) as response:
        assert response.headers.get("content-encoding") == coding
        assert "Accept-Encoding" in response.headers["vary"]
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert await next_frame(response.frames(), "stream:live")


async def test_it_can_be_switched_off(redis_url: str, author: Author) -> None:
    await author.begin()
    with edge(redis_url, compress_streams="off") as started:
        async with request(started.port, "GET", author.path, author.token, headers=BOTH) as response:
            assert "content-encoding" not in response.headers
            assert "Accept-Encoding" not in response.headers.get("vary", "")
            assert await next_frame(response.frames(), "stream:live")


async def test_answers_that_are_no_stream_are_not_coded(two_edges: list[EdgeProcess], author: Author) -> None:
    """Errors, and the 204 after the end."""
    port = two_edges[0].port
    unknown = await call(port, "GET", author.path, author.token, headers=GZIP)
    nobody = await call(port, "GET", author.path, None, headers=GZIP)
    assert (unknown.status, nobody.status) == (404, 401)
    assert "content-encoding" not in unknown.headers | nobody.headers
    await author.begin()
    last = str(await author.end())
    async with request(port, "GET", author.path, author.token, headers=BOTH | {"Last-Event-ID": last}) as response:
        assert response.status == 204
        assert "content-encoding" not in response.headers


# --- at once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("viewers", [1, 5])
async def test_each_event_decodes_when_it_comes(two_edges: list[EdgeProcess], author: Author, viewers: int) -> None:
    """The next event is only written when every viewer has read the last: nothing waits for more."""
    await author.begin()
    async with asyncio.TaskGroup() as group:
        steps = [asyncio.Barrier(viewers + 1) for _ in range(40)]

        async def watch() -> None:
            async with request(two_edges[0].port, "GET", author.path, author.token, headers=BOTH) as response:
                frames = response.frames()
                await next_frame(frames, "stream:live")
                for step in steps:
                    await step.wait()
                    await next_frame(frames, "thinking")

        for _ in range(viewers):
            group.create_task(watch())
        for number, step in enumerate(steps):
            await asyncio.wait_for(step.wait(), under_load(10))
            await author.say(size=20_000 if number % 10 == 5 else number)


async def stretch(frames: AsyncIterator[Frame], last: Frame, count: int) -> tuple[list[Frame], float]:
    """The frames up to the event that is so many after `last`, and the longest silence between events: by the log,
    since who writes may stand still, or by when they came, since the edge may."""
    found, events, came = [], [last], [time.monotonic()]
    while len(events) <= count:
        found.append(await anext(frames))
        if found[-1].event == "thinking":
            events.append(found[-1])
            came.append(time.monotonic())
    written = [parse_event_id(event.id or "").ms / 1000 for event in events]
    return found, max(after - before for times in (written, came) for before, after in pairwise(times))


async def test_heartbeats_decode_when_they_come(redis_url: str, author: Author) -> None:
    """Of a quiet stream. On a busy one the events are signs of life enough."""
    await author.begin()
    with edge(redis_url, heartbeat_seconds=0.4) as started:
        path = author.path + "?heartbeat=event"
        async with request(started.port, "GET", path, author.token, headers=BOTH) as response:
            frames = response.frames()
            for _ in range(2):
                await next_frame(frames, "heartbeat")
            async with writing(author, pause_seconds=0.02), asyncio.timeout(under_load(20)):
                last = await next_frame(frames, "thinking")
                while True:  # until it was busy all the while, as everybody saw it
                    busy, silence = await stretch(frames, last, 60)
                    if silence < 0.2:
                        break
                    last = busy[-1]
            assert {frame.event for frame in busy} == {"thinking"}
            for _ in range(2):
                await next_frame(frames, "heartbeat")
            await author.say()
            await next_frame(frames, "thinking")


# --- exactly the log -------------------------------------------------------------------------------------------------


async def test_viewers_that_join_at_any_moment_see_the_log(redis_url: str, author: Author) -> None:
    """Fifty join while events flow through two edges; some are cut, and return to the other edge. At the end each has
    exactly the log, and a valid end of its gzip."""
    await author.begin()
    joined: list[Follower] = []

    async def join(follower: Follower) -> None:
        await follower.until_live()
        for _ in range(random.randint(0, 3)):
            await follower.until_events(len(follower.events) + random.randint(1, 30))
            follower.hang_up()
        joined.append(follower)

    with edges(redis_url, 2, heartbeat_seconds=0.5) as both:
        async with contextlib.AsyncExitStack() as stack:
            async with writing(author, pause_seconds=0.01, burst=2), asyncio.TaskGroup() as group:
                for number in range(50):
                    ports = both if number % 2 else both[::-1]
                    follower = Follower(ports, author.path, author.token, headers=GZIP)
                    group.create_task(join(await stack.enter_async_context(follower)))
                    await asyncio.sleep(random.uniform(0, 0.04))
            await author.end()
            await asyncio.gather(*(follower.until_done(30) for follower in joined))
        assert sum(each.metric("runcast_event_bytes_saved_total") for each in both) > 0
    log = await author.log()
    assert_dense(log)
    assert len(joined) == 50
    for follower in joined:
        assert follower.events == log
        assert not follower.resets
        assert follower.whole[-1], "of the 200 before the 204"


async def test_a_compact_replay_in_gzip_is_both(two_edges: list[EdgeProcess], author: Author) -> None:
    """Short, coded, and live as ever after it; its ids are good for any other view."""
    await author.begin()
    await author.write(*(MessageDelta(message_id="m", delta=f"{number} ") for number in range(500)))
    path = author.path + "?compact=true"
    async with (
        Follower(two_edges, author.path, author.token) as plain,
        Follower(two_edges, path, author.token, headers=GZIP) as viewer,
        Follower(two_edges[::-1], path, author.token, headers=GZIP) as other,
    ):
        for each in (plain, viewer, other):
            await each.until_live()
        assert len(viewer.events) < 10
        viewer.hang_up()
        await viewer.until_live(2)
        await author.say(20)
        await author.end()
        for each in (plain, viewer, other):
            await each.until_done()
    for each in (viewer, other):
        assert each.ids[-1] == plain.ids[-1]
        assert each.events[-21:] == plain.events[-21:]
        assert each.whole[-1]


async def test_a_resume_in_gzip_goes_on_where_another_stopped(two_edges: list[EdgeProcess], author: Author) -> None:
    """A cursor from a stream without gzip, and one from a stream with it."""
    await author.begin()
    await author.say(30)
    async with Follower(two_edges, author.path, author.token) as plain:
        await plain.until_events(20)
    async with Follower(two_edges, author.path, author.token, cursor=plain.cursor, headers=GZIP) as packed:
        await author.say(300)
        await packed.until_events(331 - len(plain.events))
    async with Follower(two_edges, author.path, author.token, cursor=packed.cursor) as rest:
        await author.end()
        await rest.until_done()
    assert plain.events + packed.events + rest.events == await author.log()


async def test_filtered_viewers_and_the_feed(two_edges: list[EdgeProcess], author: Author) -> None:
    """Views of one log do not share their bytes, and the cursor still moves past what a filter hides."""
    await author.begin()
    ports, token = two_edges[:1], author.token
    async with (
        Follower(ports, author.path + "?types=progress", token, headers=GZIP) as some,
        Follower(ports, author.path + "?named=false", token, headers=GZIP) as all_,
        Follower(ports, FEED_PATH, token, headers=GZIP) as feed,
    ):
        await asyncio.gather(some.until_live(), all_.until_live(), feed.until_live())
        for number in range(30):
            await author.progress(number)
            await author.say(3)
        hidden = await author.say()
        await some.until("the cursor past what is hidden", lambda v: v.cursor == str(hidden), 4)
        await author.end()
        await asyncio.gather(some.until_done(), all_.until_done(), feed.until_events(122))
    log = await author.log()
    assert some.events == [event for event in log if event.type == "progress"]
    assert [(event.id, event.data) for event in all_.events] == [(event.id, event.data) for event in log]
    assert [event.data for event in feed.events] == [event.data for event in log[1:]]
    assert some.whole == all_.whole == [True]


async def test_a_client_of_http_1_0_gets_it_too(two_edges: list[EdgeProcess], author: Author) -> None:
    await author.begin()
    await author.say(5)
    await author.end()
    async with request(two_edges[0].port, "GET", author.path, author.token, headers=BOTH, version="1.0") as response:
        frames = [frame async for frame in response.frames()]
    assert response.headers["content-encoding"] == "gzip"
    assert [frame.id for frame in frames if frame.id] == [event.id for event in await author.log()]
    assert response.whole


async def test_a_slow_viewer_is_fed_from_the_log(redis_url: str, author: Author) -> None:
    """It leaves the live path with a full socket and comes back to it; beside it another one stays live."""
    await author.begin()
    with edge(redis_url, viewer_buffer_bytes=65_536) as started:
        slow = request(started.port, "GET", author.path, author.token, headers=BOTH, receive_buffer=4096)
        async with slow as response, Follower([started], author.path, author.token, headers=GZIP) as beside:
            rest, frames = response.frames(), []
            async with asyncio.timeout(under_load(5)):
                while not frames or frames[-1].event != "stream:live":
                    frames.append(await anext(rest))
            await beside.until_live()
            for _ in range(60):
                await author.write(Thinking(thought=random.randbytes(15_000).hex()))
            await beside.until_events(61)
            assert started.metric("runcast_slow_viewers_total") >= 1
            await author.end()
            async with asyncio.timeout(under_load(20)):
                frames += [frame async for frame in rest]
            await beside.until_done()
    log = await author.log()
    assert [(frame.id, frame.data) for frame in frames if frame.id] == [(event.id, event.data) for event in log]
    assert response.whole
    assert beside.events == log


async def test_it_is_a_fraction_of_the_bytes(two_edges: list[EdgeProcess], author: Author) -> None:
    """Of a replay, and of live events to several viewers, each of which gets much the same bytes."""
    await author.begin()
    port, streams = two_edges[0].port, []
    async with contextlib.AsyncExitStack() as stack:
        for headers in (SSE, BOTH, BOTH, BOTH):
            opened = request(port, "GET", author.path, author.token, headers=headers)
            response = await stack.enter_async_context(opened)
            frames = response.frames()
            await next_frame(frames, "stream:live")
            streams.append((response, frames))
        for number in range(200):
            await author.write(MessageDelta(message_id="m1", delta=f"word {number} "))
        await author.end()
        for response, frames in streams:
            received = [frame async for frame in frames]
            assert len(received) >= 201
            assert response.whole
    live = [response.coded_bytes for response, _ in streams[1:]]
    async with request(port, "GET", author.path, author.token, headers=SSE) as response:
        plain = len(await response.body())
    async with request(port, "GET", author.path, author.token, headers=BOTH) as response:
        assert len(await response.body()) == pytest.approx(plain, abs=10)
        assert response.coded_bytes < 0.2 * plain
    assert max(live) < 0.4 * plain


# --- the end ---------------------------------------------------------------------------------------------------------


async def _reason_of_end(response: Connection) -> str:
    async with asyncio.timeout(under_load(15)):
        frames = [frame async for frame in response.frames()]
    assert response.whole, "the trailer has the right check sum and size"
    assert frames[-1].event == "stream:end"
    reason: str = json.loads(frames[-1].data or "")["reason"]
    return reason


@pytest.mark.parametrize("why", ["finished", "draining", "aged"])
async def test_every_end_is_a_valid_end(redis_url: str, author: Author, why: str) -> None:
    """After heartbeats and events, of which some came live and some from the log."""
    await author.begin()
    await author.say(20)
    age = 1.0 if why == "aged" else 900
    with edge(redis_url, heartbeat_seconds=0.2, max_stream_age_seconds=age) as started:
        streams = request(started.port, "GET", author.path, author.token, headers=BOTH)
        async with streams as one, request(started.port, "GET", author.path, author.token, headers=BOTH) as other:
            ends = asyncio.gather(_reason_of_end(one), _reason_of_end(other))
            await asyncio.sleep(0.5)
            await author.say(1)
            await author.say(1)
            if why == "finished":
                await author.end()
            elif why == "draining":
                started.send_signal(signal.SIGTERM)
            assert await ends == [why, why]


async def test_a_client_that_is_cut_costs_nobody_else(two_edges: list[EdgeProcess], author: Author) -> None:
    await author.begin()
    async with Follower(two_edges[:1], author.path, author.token, headers=GZIP) as stays:
        for _ in range(10):
            async with request(two_edges[0].port, "GET", author.path, author.token, headers=BOTH) as response:
                await next_frame(response.frames(), "stream:live")
                await author.say(2)
        await author.end()
        await stays.until_done()
    assert stays.events == await author.log()
    assert stays.whole == [True]
