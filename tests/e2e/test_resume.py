"""The promise on healthy edges: whatever a viewer lost, what it gets over its reconnects is exactly the log."""

from __future__ import annotations

import asyncio
import random

from tests.edges import SSE, Author, EdgeProcess, Follower, request, writing


async def test_joining_mid_run_gets_the_past_and_then_the_present(two_edges: list[EdgeProcess], author: Author) -> None:
    """A viewer that comes late gets every event from the first to the last, once, in order."""
    await author.begin()
    await author.say(50)
    async with writing(author) as appends, Follower(two_edges[:1], author.path, author.token) as viewer:
        await viewer.until_live()
        seen = appends()
        await viewer.until("events after it went live", lambda v: len(v.events) > 51 + seen + 20)
    await author.end()
    async with Follower(two_edges[:1], author.path, author.token, cursor=viewer.cursor) as rest:
        await rest.until_done()
    assert viewer.events + rest.events == await author.log()


async def test_a_stream_begins_with_what_a_client_needs_to_return(two_edges: list[EdgeProcess], author: Author) -> None:
    """The head forbids buffering; the first frames are `retry`, `stream:open` and, after the replay, `stream:live`."""
    await author.begin()
    async with Follower(two_edges[:1], author.path, author.token) as viewer:
        await viewer.until_live()
    opened, live = viewer.controls
    assert (opened.event, opened.data["executionId"], opened.data["state"]) == ("stream:open", "ex_1", "running")
    assert opened.data["retryMs"] == viewer.retries[0]
    assert opened.data["heartbeatSeconds"] == 1
    assert (live.event, live.data, live.after) == ("stream:live", {"replayed": 1}, 1)
    async with request(two_edges[0].port, "GET", author.path, author.token, headers=SSE) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"


async def test_reconnecting_to_another_edge_goes_on_where_it_stopped(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """A viewer that loses its connection again and again, each time to land on the other edge, misses nothing."""
    await author.begin()
    async with writing(author), Follower(two_edges, author.path, author.token) as viewer:
        for _ in range(20):
            count = len(viewer.events)
            await viewer.until_events(count + random.randint(1, 20))
            viewer.hang_up()
        await viewer.until("its twentieth return", lambda v: v.connects > 20)
    await author.end()
    async with Follower(two_edges, author.path, author.token, cursor=viewer.cursor) as rest:
        await rest.until_done()
    assert viewer.events + rest.events == await author.log()
    assert not viewer.resets


async def test_a_crowd_that_comes_and_goes_on_two_edges_sees_one_log(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """Forty viewers with losses at random moments and bursts of events: each gets exactly the log."""
    await author.begin()
    viewers = [Follower(two_edges, author.path, author.token) for _ in range(40)]

    async def live_a_life(viewer: Follower) -> None:
        async with viewer:
            for _ in range(random.randint(1, 5)):
                count = len(viewer.events) + random.randint(1, 100)
                await viewer.until("more events, or the end", lambda v, n=count: v.done or len(v.events) >= n)  # type: ignore[misc]
                viewer.hang_up()
            await viewer.until_done()

    async with asyncio.TaskGroup() as group:
        lives = [group.create_task(live_a_life(viewer)) for viewer in viewers]
        while not all(len(viewer.events) > 300 for viewer in viewers):
            await author.say(random.randint(1, 30))
            await asyncio.sleep(random.uniform(0, 0.02))
        await author.end()
        await asyncio.wait(lives)
    log = await author.log()
    for viewer in viewers:
        assert viewer.events == log
        assert not viewer.resets


async def test_a_viewer_of_now_that_is_cut_off_before_any_event_misses_nothing(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """`from=now` gives a cursor at once: what happens while the viewer is away reaches it, though it had no event."""
    await author.begin()
    async with Follower(two_edges, author.path + "?from=now", author.token, pause_seconds=0.3) as viewer:
        await viewer.until_live()
        viewer.hang_up()
        await author.say(3)
        await viewer.until_events(3)
    assert viewer.events == (await author.log())[1:]


async def test_the_end_closes_every_stream_and_then_there_is_nothing(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """The terminal event is followed by `stream:end finished` and the body's clean end; a return then is a 204."""
    await author.begin()
    async with (
        Follower(two_edges[:1], author.path, author.token) as one,
        Follower(two_edges[1:], author.path, author.token) as two,
    ):
        await one.until_live()
        await two.until_live()
        await author.end()
        await one.until_done()
        await two.until_done()
    for viewer in (one, two):
        assert viewer.events == await author.log()
        assert viewer.ends == ["finished"]
        assert viewer.statuses == [200, 204]


async def test_a_whole_log_is_replayed_to_who_comes_after_the_end(two_edges: list[EdgeProcess], author: Author) -> None:
    """A finished execution of many pages is told from the start and ends cleanly."""
    await author.begin()
    for _ in range(10):
        await author.say(100, size=500)
    await author.end()
    async with Follower(two_edges, author.path, author.token) as viewer:
        await viewer.until_done()
    assert viewer.events == await author.log()
    assert len(viewer.events) == 1002
    assert viewer.statuses == [200, 204]


async def test_the_feed_is_a_log_of_its_own_that_resumes(two_edges: list[EdgeProcess], author: Author) -> None:
    """The feed carries what all of a user's executions do, with its own dense ids, over reconnects to other edges."""
    others = [Author(author.redis, author.user, f"ex_{n}") for n in range(2, 5)]
    writers = [author, *others]
    async with Follower(two_edges, "/api/agent/stream?from=start", author.token) as viewer:
        await viewer.until_live()
        for round_ in range(10):
            for each in writers:
                await (each.begin() if round_ == 0 else each.say(3))
            if round_ % 3 == 1:
                viewer.hang_up()
        for each in writers:
            await each.end()
        await viewer.until_events(4 * (1 + 27 + 1))
    rows = await author.redis.xrange(author.owner.feed)
    assert viewer.ids == [id_.decode() for id_, _ in rows]
    assert [int(id_.split("-")[1]) for id_ in viewer.ids] == list(range(1, len(viewer.ids) + 1))
    assert not viewer.resets


async def test_the_feed_starts_now_and_resumes_without_a_gap(two_edges: list[EdgeProcess], author: Author) -> None:
    """Without a parameter the feed tells nothing of the past, and nothing after its opening is lost by a loss."""
    await author.begin()
    await author.say(5)
    async with Follower(two_edges, "/api/agent/stream", author.token, pause_seconds=0.3) as viewer:
        await viewer.until_live()
        viewer.hang_up()  # before it had any event
        await author.say(2)
        await viewer.until_events(2)
        viewer.hang_up()
        await author.say(2)
        await viewer.until_events(4)
    rows = await author.redis.xrange(author.owner.feed)
    assert viewer.ids == [id_.decode() for id_, _ in rows][6:]
