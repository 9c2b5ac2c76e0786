"""A plain `EventSource` gives up for ever on an error status. It gets one only where "never" is meant."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.wire.keys import EDGES
from tests.edges import (
    FEED_PATH,
    SSE,
    Author,
    EdgeProcess,
    Follower,
    call,
    edge,
    edges,
    eventually,
    request,
    under_load,
)
from tests.faults.outages import redis_stopped


async def ticket_of(port: int, author: Author) -> str:
    made = await call(port, "POST", "/api/agent/stream-tickets", author.token, {"executionId": author.execution_id})
    assert made.status == 201
    ticket: str = made.body["ticket"]
    return ticket


async def postponed(port: int, path: str, token: str | None, headers: dict[str, str] = {}) -> list[int]:  # noqa: B006
    """The times to return that an empty stream names (ms)."""
    async with request(port, "GET", path, token, headers=SSE | headers, seconds=30) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        frames = [frame async for frame in response.frames()]
    (end,) = frames
    said = json.loads(end.data or "")
    assert (end.event, said["reason"]) == ("stream:end", "refused")
    assert said["problem"]["status"] in (429, 503)
    assert said["problem"]["type"].startswith("urn:runcast:problem:")
    return response.sse.retries


async def test_a_ticket_follows_an_execution_over_broken_connections_and_aged_streams(
    redis_url: str, author: Author
) -> None:
    """README's own line: nothing but the URL with its ticket, over cut connections, ages and another edge."""
    await author.begin()
    with edges(redis_url, 2, max_stream_age_seconds=1, heartbeat_seconds=1) as both:
        path = f"{author.path}?ticket={await ticket_of(both[0].port, author)}"
        async with Follower(both, path, None) as viewer:  # type: ignore[arg-type]
            for _ in range(6):
                await viewer.until_live(viewer.connects)
                await author.say(2)
                await asyncio.sleep(0.3)
                viewer.hang_up()
            await viewer.until("aged streams", lambda v: v.ends.count("aged") >= 2, 20)
            await author.end()
            await viewer.until_done()
        assert set(viewer.statuses) == {200, 204}
        assert viewer.events == await author.log()
        assert viewer.resets == []


async def test_a_ticket_survives_the_death_of_its_edge(redis_url: str, author: Author) -> None:
    await author.begin()
    with edges(redis_url, 2) as (first, second):
        path = f"{author.path}?ticket={await ticket_of(second.port, author)}"
        async with Follower([first, second], path, None) as viewer:  # type: ignore[arg-type]
            await viewer.until_live()
            first.kill()
            await viewer.until_live(2)
            await author.say(3)
            await author.end()
            await viewer.until_done()
        assert viewer.events == await author.log()


async def test_a_ticket_never_has_two_streams(two_edges: list[EdgeProcess], author: Author) -> None:
    """The newer one replaces the older one, on the same edge and across edges, and the older one is told so."""
    await author.begin()
    first, second = two_edges
    path = f"{author.path}?ticket={await ticket_of(first.port, author)}"
    async with contextlib.AsyncExitStack() as stack:
        older = await stack.enter_async_context(request(first.port, "GET", path, None, headers=SSE))
        for port in (first.port, second.port, first.port):
            newer = await stack.enter_async_context(request(port, "GET", path, None, headers=SSE))
            async with asyncio.timeout(under_load(10)):
                last = [frame async for frame in older.frames()][-1]
            assert (last.event, json.loads(last.data or "")) == ("stream:end", {"reason": "replaced"})
            assert older.sse.retries[-1] >= 20_000, "it must not come back at once, and replace its successor"
            older = newer
        assert (await anext(aiter(older.frames()))).event == "stream:open"


async def test_a_ticket_is_for_its_execution_only(two_edges: list[EdgeProcess], author: Author) -> None:
    """Elsewhere it is refused, and its own stream is not disturbed."""
    await author.begin()
    ticket = await ticket_of(two_edges[0].port, author)
    async with request(two_edges[1].port, "GET", f"{author.path}?ticket={ticket}", None, headers=SSE) as stream:
        frames = stream.frames()
        assert (await anext(frames)).event == "stream:open"
        for path in (f"{FEED_PATH}?ticket={ticket}", f"/api/agent/executions/ex_2/stream?ticket={ticket}"):
            assert (await call(two_edges[0].port, "GET", path, None)).status == 403
        await author.end()
        async with asyncio.timeout(under_load(10)):
            names = [frame.event async for frame in frames]
    assert names[-1] == "stream:end"
    assert "execution:complete" in names


async def test_a_redis_that_stands_still_postpones_every_way_in(own_redis: EmbeddedRedis, own_author: Author) -> None:
    """With a token, a cookie or a ticket: the stream is postponed, and opens with the same ticket afterwards. A program
    gets 503 and Retry-After."""
    await own_author.begin()
    with edge(own_redis.url) as only:
        path = f"{own_author.path}?ticket={await ticket_of(only.port, own_author)}"
        cookie = {"Cookie": f"runcast_token={own_author.token}"}
        with redis_stopped(own_redis):
            *waits, status = await asyncio.gather(
                postponed(only.port, own_author.path, own_author.token),
                postponed(only.port, own_author.path, None, cookie),
                postponed(only.port, path, None),
                status_of_a_program(only.port, own_author),
            )
        assert all(wait and min(wait) >= 2000 for wait in waits)
        assert status == 503
        async with request(only.port, "GET", path, None, headers=SSE, seconds=30) as response:
            assert (await anext(aiter(response.frames()))).event == "stream:open"


async def test_a_proxy_that_goes_on_to_another_edge_hears_why(redis_url: str, author: Author) -> None:
    """A draining or full edge postpones the stream; with 503, if that makes the proxy ask another edge."""
    await author.begin()
    goes_on = {"X-Runcast-Retry-On": "503"}
    with edges(redis_url, 2, max_connections=2, drain_seconds=60) as (full, draining):
        async with contextlib.AsyncExitStack() as stack:
            for of in (full, full, draining, draining):  # one of the last two is sent away at once, and one much later
                viewer = Follower([of], author.path, author.token, pause_seconds=60)
                await (await stack.enter_async_context(viewer)).until_live()
            draining.send_signal(signal.SIGTERM)
            await eventually("it drains", lambda: draining.admin_status("/readyz") == 503)
            for asked, least, most in ((draining, 1000, 3000), (full, 2000, 10_000)):
                for headers, status in ((goes_on, 503), ({}, 200)):
                    async with request(asked.port, "GET", author.path, author.token, headers=SSE | headers) as answer:
                        assert (answer.status, answer.headers["content-type"]) == (status, "text/event-stream")
                        (end,) = [frame async for frame in answer.frames()]
                    assert json.loads(end.data or "")["reason"] == "refused"
                    assert least <= answer.sse.retries[0] <= most
        for asked in (full, draining):  # their drain would take half a minute
            asked.kill()


async def status_of_a_program(port: int, author: Author) -> int:
    async with request(port, "GET", author.path, author.token, seconds=30) as response:
        return response.status


async def test_a_rate_and_a_users_limit_postpone(redis_url: str, author: Author) -> None:
    """Over the connect rate, and over the number of streams, an `EventSource` is told when to come back."""
    await author.begin()
    with edge(redis_url, connects_per_minute=3) as only:
        for _ in range(3):
            async with request(only.port, "GET", author.path, author.token, headers=SSE) as response:
                assert response.status == 200
        assert await postponed(only.port, author.path, author.token)
        assert (await call(only.port, "GET", author.path, author.token)).status == 429
    with edge(redis_url, max_connections_per_user=1) as only:
        async with request(only.port, "GET", author.path, author.token, headers=SSE):
            assert min(await postponed(only.port, author.path, author.token)) >= 5000
            assert (await call(only.port, "GET", author.path, author.token)).status == 429


async def test_what_will_never_be_is_told_by_its_status(two_edges: list[EdgeProcess], author: Author) -> None:
    await author.begin()
    ways = [(author.path, "no.token.this"), ("/api/agent/executions/ex_none/stream", author.token)]
    statuses = []
    for path, token in ways:
        async with request(two_edges[0].port, "GET", path, token, headers=SSE) as response:
            statuses.append(response.status)
    assert statuses == [401, 404]


async def test_streams_of_a_dead_edge_do_not_count(redis_url: str, redis: Redis, author: Author) -> None:
    """When an edge was killed, its user's streams open elsewhere as soon as the edge is missed, not 90 s later."""
    await author.begin()
    with edges(redis_url, 2, max_connections_per_user=2) as (first, second):
        async with (
            Follower([first], author.path, author.token) as one,
            Follower([first], author.path, author.token) as two,
        ):
            await one.until_live()
            await two.until_live()
            assert (await call(second.port, "GET", author.path, author.token)).status == 429
        async with Follower([first], author.path, author.token) as one:
            await one.until_live()
            first.kill()
        await redis.delete(EDGES)  # as its announcement ends, ten seconds later
        async with asyncio.timeout(under_load(15)):
            while not await redis.zcard(EDGES):  # the other edge announces itself
                await asyncio.sleep(0.02)
        async with (
            request(second.port, "GET", author.path, author.token, headers=SSE) as a,
            request(second.port, "GET", author.path, author.token, headers=SSE) as b,
        ):
            openings = [(await anext(aiter(each.frames()))).event for each in (a, b)]
        assert openings == ["stream:open", "stream:open"]
