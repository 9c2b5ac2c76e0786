"""Who may keep a stream, for how long, and how many: tokens, revocations, ages, limits across edges."""

from __future__ import annotations

import asyncio
import json
import time

from redis.asyncio import Redis

from tests.edges import (
    ALL_SCOPES,
    SSE,
    Author,
    EdgeProcess,
    Follower,
    call,
    edge,
    edges,
    eventually,
    request,
    token_for,
    under_load,
)


async def test_a_stream_ends_with_its_token_and_says_so_before(two_edges: list[EdgeProcess], author: Author) -> None:
    """`stream:token_expiring` comes first, then `stream:end expired`; a new token goes on where the old one stopped."""
    await author.begin()
    token = token_for(author.user, ttl=min(8, under_load(4)))
    async with Follower(two_edges, author.path, token) as viewer:
        await viewer.until_live()
        await author.say(3)
        await viewer.until("its end", lambda v: bool(v.ends))
        await viewer.until("a refusal", lambda v: 401 in v.statuses)
    assert viewer.ends == ["expired"]
    (notice,) = viewer.named("stream:token_expiring")
    assert viewer.controls.index(notice) < viewer.controls.index(viewer.named("stream:end")[0])
    assert abs(notice.data["expiresAt"] / 1000 - time.time()) < under_load(3)
    await author.end()
    async with Follower(two_edges, author.path, author.token, cursor=viewer.cursor) as rest:
        await rest.until_done()
    assert viewer.events + rest.events == await author.log()


async def test_a_revoked_user_loses_the_streams_on_every_edge_within_a_second(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """One request to one edge ends the user's streams on both, refuses the token, and leaves others alone."""
    await author.begin()
    other = Author(author.redis, author.user + "-other")
    await other.begin()
    admin = token_for("root", scopes=ALL_SCOPES)
    async with (
        Follower(two_edges[:1], author.path, author.token) as one,
        Follower(two_edges[1:], author.path, author.token) as two,
        Follower(two_edges, other.path, other.token) as bystander,
    ):
        for viewer in (one, two, bystander):
            await viewer.until_live()
        began = time.monotonic()
        answer = await call(
            two_edges[0].port, "POST", "/api/admin/revocations", admin, {"user": author.user, "org": "default"}
        )
        assert answer.status == 202
        for viewer in (one, two):
            await viewer.until("its end", lambda v: v.ends == ["revoked"])
        assert time.monotonic() - began < under_load(1)
        for viewer in (one, two):
            await viewer.until("a refusal", lambda v: 401 in v.statuses)
        await other.end()
        await bystander.until_done()
    assert bystander.statuses == [200, 204]


async def test_a_user_has_so_many_streams_over_all_edges(redis_url: str, author: Author) -> None:
    """The limit counts both edges; a stream that ends makes room again; another user is not touched."""
    await author.begin()
    other = Author(author.redis, author.user + "-other")
    await other.begin()
    with edges(redis_url, 2, max_connections_per_user=3) as (first, second):
        opened = []
        for port in (first.port, second.port, first.port):
            context = request(port, "GET", author.path, author.token, headers=SSE)
            assert (await context.__aenter__()).status == 200
            opened.append(context)
        try:
            for each in (first, second):
                answer = await call(each.port, "GET", author.path, author.token)
                assert answer.status == 429
                assert each.metric("runcast_rejected_total", reason="user_connections") == 1
                assert int(answer.headers["retry-after"]) >= 1
            async with request(second.port, "GET", other.path, other.token, headers=SSE) as response:
                assert response.status == 200
        finally:
            await opened.pop().__aexit__(None, None, None)
        async with Follower([second], author.path, author.token) as again:  # tries until there is room
            await again.until_live()
        for context in opened:
            await context.__aexit__(None, None, None)


async def test_a_full_edge_sends_event_sources_away_and_programs_a_503(redis_url: str, author: Author) -> None:
    """Above the edge's limit an `EventSource` gets an empty stream with a `retry`, since an error would end it for
    ever; everybody else gets 503 and Retry-After."""
    await author.begin()
    with edge(redis_url, max_connections=2) as only:
        async with (
            request(only.port, "GET", author.path, author.token, headers=SSE),
            request(only.port, "GET", author.path, author.token, headers=SSE),
        ):
            answer = await call(only.port, "GET", author.path, author.token)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            retries = set()
            for _ in range(5):
                async with request(only.port, "GET", author.path, author.token, headers=SSE) as response:
                    assert response.status == 200
                    frames = [frame async for frame in response.frames()]
                assert [frame.event for frame in frames] == ["stream:end"]
                assert json.loads(frames[0].data or "")["reason"] == "refused"
                retries.update(response.sse.retries)
            assert len(retries) > 1, "each is told another time"
            assert min(retries) >= 1000
        async with Follower([only], author.path, author.token) as viewer:
            await viewer.until_live()


async def test_a_connect_rate_is_refused_with_a_time_to_return(redis_url: str, author: Author) -> None:
    """More connects in a minute than allowed are 429 with Retry-After, over all edges."""
    await author.begin()
    with edges(redis_url, 2, connects_per_minute=5) as both:
        statuses = []
        for number in range(8):
            async with request(both[number % 2].port, "GET", author.path, author.token) as response:
                statuses.append(response.status)
        assert statuses == [200] * 5 + [429] * 3
        assert sum(each.metric("runcast_rejected_total", reason="connect_rate") for each in both) == 3
        assert 1 <= int(response.headers["retry-after"]) <= 60


async def test_a_stream_of_a_certain_age_is_closed_to_be_resumed(redis_url: str, author: Author) -> None:
    """`stream:end aged` with a retry time of its own; the viewer comes back and misses nothing."""
    await author.begin()
    with edge(redis_url, max_stream_age_seconds=1, heartbeat_seconds=0.5) as only:
        async with Follower([only], author.path, author.token) as viewer:
            began = time.monotonic()
            while len(viewer.ends) < 3:
                await author.say()
                await asyncio.sleep(0.02)
                assert time.monotonic() - began < under_load(8)
            await author.end()
            await viewer.until_done()
        assert viewer.ends == ["aged"] * (len(viewer.ends) - 1) + ["finished"]
        assert viewer.events == await author.log()
        # two retry frames of an aged stream: its first, and the one that says when to come back
        assert len(viewer.retries) >= 2 * 3


async def test_counts_return_to_zero_when_an_edge_stops(redis_url: str, redis: Redis, author: Author) -> None:
    """An edge that stops in order leaves no stream of its users counted in Redis."""
    await author.begin()
    with edge(redis_url, max_connections_per_user=2) as only:
        async with (
            request(only.port, "GET", author.path, author.token, headers=SSE),
            request(only.port, "GET", author.path, author.token, headers=SSE),
        ):
            await eventually("two streams", lambda: only.metric("runcast_connections") == 2)
    assert not await redis.hgetall(author.owner.connections)
