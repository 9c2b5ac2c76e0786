"""The promise when edges, their connections or Redis break in the middle of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from broker.cli.embedded import EmbeddedRedis
from emitter import tasks
from emitter.store.append import LogLimits
from emitter.store.connection import GONE, connect
from tests.edges import (
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
    writing,
)
from tests.faults.chaos import invariants
from tests.faults.outages import (
    messages_lost,
    process_stopped,
    pubsub_connections_killed,
    redis_dead,
    redis_paused,
    redis_stopped,
    restart_empty,
)

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def unhealed(redis_server: EmbeddedRedis) -> Iterator[EdgeProcess]:
    """An edge whose recheck of idle logs comes every 15 s: what arrives sooner was not found by it."""
    with edge(redis_server.url, heartbeat_seconds=300) as started:
        yield started


class Stoppable(NamedTuple):
    """A Redis that a test may stop, and its edge."""

    redis: EmbeddedRedis
    edge: EdgeProcess


@pytest.fixture(scope="module")
def stoppable_for_all() -> Iterator[Stoppable]:
    with EmbeddedRedis() as server, edge(server.url, heartbeat_seconds=1) as started:
        yield Stoppable(server, started)


@pytest.fixture
async def stoppable(stoppable_for_all: Stoppable) -> Stoppable:
    """Well again, whatever another test has done to it."""
    await eventually("ready", lambda: stoppable_for_all.edge.admin_status("/readyz") == 200)
    return stoppable_for_all


@pytest.fixture
async def their_author(stoppable: Stoppable) -> AsyncIterator[Author]:
    """Writes an execution of a user whom no other test has into that Redis."""
    client = connect(stoppable.redis.url)
    yield Author(client, user=f"user-{next(_numbers)}")
    await client.aclose()


async def assert_same_to_the_end(author: Author, viewer: Follower, seconds: float = 10.0) -> None:
    """End the execution; the viewer has exactly the log, and was never told of a loss."""
    await author.end()
    await viewer.until_done(seconds)
    log = await author.log()
    assert not invariants.same_as_log(log, viewer.events, viewer.resets) + invariants.dense(log)


async def test_an_edge_killed_mid_stream_costs_nothing(redis_url: str, author: Author) -> None:
    """SIGKILL of the edge that serves it sends the viewer to the other, which goes on exactly there."""
    await author.begin()
    with edges(redis_url, 2, heartbeat_seconds=1) as (first, second):
        async with Follower([first, second], author.path, author.token) as viewer:
            async with writing(author):
                await viewer.until_events(30)
                first.kill()
                await viewer.until_events(len(viewer.events) + 50)
            await assert_same_to_the_end(author, viewer)
    assert viewer.connects >= 2


async def test_a_lost_subscription_is_made_up_for_from_the_log(unhealed: EdgeProcess, author: Author) -> None:
    """Killing the edge's pub/sub connection while events flow loses, repeats and reorders nothing."""
    await author.begin()
    before = unhealed.metric("runcast_pubsub_reconnects_total")
    async with Follower([unhealed], author.path, author.token) as viewer:
        async with writing(author, pause_seconds=0.002):
            await viewer.until_events(20)
            async with pubsub_connections_killed(author.redis):
                await viewer.until_events(500)
            await viewer.until_events(700)
        await assert_same_to_the_end(author, viewer)
    assert unhealed.metric("runcast_pubsub_reconnects_total") > before
    assert viewer.connects == 1


async def test_a_lost_subscription_of_an_idle_log_is_noticed_without_a_new_event(
    unhealed: EdgeProcess, author: Author
) -> None:
    """What was published between the loss and the new subscription arrives by itself, long before any recheck."""
    await author.begin()
    async with Follower([unhealed], author.path, author.token) as viewer:
        await viewer.until_live()
        for count in range(2, 22):
            await author.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await author.say()
            await viewer.until_events(count, seconds=10)
        await author.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await assert_same_to_the_end(author, viewer, seconds=10)


async def test_a_paused_redis_delays_and_loses_nothing(two_edges: list[EdgeProcess], author: Author) -> None:
    """CLIENT PAUSE for seconds while events flow: the stream stays open and goes on where it was."""
    await author.begin()
    async with Follower(two_edges, author.path, author.token) as viewer:
        async with writing(author):
            await viewer.until_events(20)
            async with redis_paused(author.redis, 2.0):
                pass
            await viewer.until_events(len(viewer.events) + 50)
        await assert_same_to_the_end(author, viewer)
    assert viewer.connects == 1


async def test_a_standing_redis_delays_and_loses_nothing(stoppable: Stoppable, their_author: Author) -> None:
    """A Redis process that stands still for longer than commands wait costs time and no event, no connection."""
    author, only = their_author, stoppable.edge
    await author.begin()
    async with Follower([only], author.path, author.token) as viewer:
        await author.say(10)
        await viewer.until_events(11)
        with redis_stopped(stoppable.redis):
            await asyncio.sleep(6.5)  # commands give up after 5 s
            await eventually("unready", lambda: only.admin_status("/readyz") == 503)
            assert only.admin_status("/healthz") == 200
        async with writing(author):
            await viewer.until_events(50)
        await eventually("ready again", lambda: only.admin_status("/readyz") == 200)
        await assert_same_to_the_end(author, viewer)
    assert viewer.connects == 1


async def test_a_viewer_that_comes_while_redis_stands_gets_the_log_when_it_goes_on(
    stoppable: Stoppable, their_author: Author
) -> None:
    """An `EventSource` that (re)connects to an edge without Redis is told to come back, never given up on."""
    author = their_author
    await author.begin()
    with redis_stopped(stoppable.redis):
        async with Follower([stoppable.edge], author.path, author.token, cursor=None) as viewer:
            await viewer.until("an answer", lambda v: bool(v.statuses))
            assert viewer.statuses[0] == 200, "any other status ends an EventSource for ever"
            assert viewer.ends[:1] == ["refused"]


async def test_redis_gone_for_seconds_and_back_empty_is_said(own_redis: EmbeddedRedis, own_author: Author) -> None:
    """A failover that lost everything: the viewer is told `diverged`, then has the new log from its first event."""
    author = own_author
    await author.begin()
    with edges(own_redis.url, 2, heartbeat_seconds=1) as both:
        async with Follower(both, author.path, author.token) as viewer:
            await author.say(20)
            await viewer.until_events(21)
            with contextlib.ExitStack() as still:
                with redis_dead(own_redis):
                    await asyncio.sleep(1.0)
                    for each in both:  # one that is back before the new log sees that there is none
                        still.enter_context(process_stopped(each.pid))
                await author.begin()
            await author.say(3)
            await author.end()
            await viewer.until_done()
    (reset,) = viewer.resets
    assert reset.data["reason"] == "diverged"
    assert reset.after == 21
    log = await author.log()
    assert viewer.events[21:] == log
    assert reset.data["resumedAt"] == log[0].id


async def test_an_empty_redis_is_said_to_who_returns_with_an_old_cursor(
    own_redis: EmbeddedRedis, own_author: Author
) -> None:
    """A cursor from before a failover that lost everything is answered with `diverged` and the log from its start."""
    author = own_author
    await author.begin()
    last = await author.say(20)
    restart_empty(own_redis)
    await author.redis.connection_pool.disconnect()
    await author.begin()
    await author.end()
    with edge(own_redis.url, heartbeat_seconds=1) as only:
        async with Follower([only], author.path, author.token, cursor=str(last)) as viewer:
            await viewer.until_done()
    assert [reset.data["reason"] for reset in viewer.resets] == ["diverged"]
    assert viewer.events == await author.log()


async def lose_the_last(author: Author, count: int) -> None:
    """A failover to a replica that lacked the last `count` events: the log and the record are as they were before."""
    rows = await author.redis.xrevrange(author.keys.log, count=count + 1)
    await author.redis.xdel(author.keys.log, *(id_ for id_, _ in rows[:count]))
    ms, seq = rows[count][0].decode().split("-")
    await author.redis.hset(author.keys.record, mapping={"ms": ms, "seq": seq})
    # XADD refuses ids at or below the last one it gave, which a replica would not know.
    await author.redis.execute_command("XSETID", author.keys.log, f"{ms}-{seq}")


async def test_a_failover_that_lost_the_last_events_is_said_to_live_viewers(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """Where other events stand under the ordinals a viewer has, it is told `diverged` and given the log anew."""
    await author.begin()
    await author.say(10)
    async with Follower(two_edges, author.path, author.token) as viewer:
        await viewer.until_events(11)
        await viewer.until_live()
        await lose_the_last(author, 3)
        await author.say(5)
        await author.end()
        await viewer.until_done()
    assert [reset.data["reason"] for reset in viewer.resets] == ["diverged"]
    assert viewer.events[viewer.resets[0].after :] == await author.log()


@pytest.mark.parametrize("appended", [0, 1, 3, 5])
async def test_a_failover_that_lost_the_last_events_is_said_to_who_returns(
    two_edges: list[EdgeProcess], author: Author, appended: int
) -> None:
    """A cursor at an event that was lost is answered with `diverged`, however many events followed since."""
    await author.begin()
    last = await author.say(10)
    await lose_the_last(author, 3)
    if appended:
        await asyncio.sleep(0.002)  # or the new events could carry the very ids that were lost
        await author.say(appended)
    await author.end()
    async with Follower(two_edges, author.path, author.token, cursor=str(last)) as viewer:
        await viewer.until_done()
    assert [reset.data["reason"] for reset in viewer.resets] == ["diverged"]
    assert viewer.events == await author.log()


async def test_a_log_that_went_back_does_not_make_the_edge_read_it_over_and_over(
    unhealed: EdgeProcess, author: Author
) -> None:
    """An edge that knows more of a log than the log itself settles with a few reads, even if no event ever follows."""
    await author.begin()
    for _ in range(6):
        await author.say(100)  # more than one page, so that the edge keeps little of it in memory
    before = unhealed.metric("runcast_history_reads_total", source="redis")
    async with Follower([unhealed], author.path, author.token) as first:
        await first.until_live()
    await lose_the_last(author, 3)
    async with Follower([unhealed], author.path, author.token) as viewer:
        await viewer.until_live()
        assert viewer.events == await author.log()
    assert unhealed.metric("runcast_history_reads_total", source="redis") - before < 20


async def test_a_viewer_ahead_of_its_edge_does_not_make_it_read_over_and_over(
    unhealed: EdgeProcess, author: Author
) -> None:
    """An edge that missed messages learns from the cursor of a viewer who has them, with a few reads."""
    await author.begin()
    before = unhealed.metric("runcast_history_reads_total", source="redis")
    async with Follower([unhealed], author.path, author.token) as first:
        await first.until_live()
    with messages_lost(author):
        last = await author.say(5)
    async with Follower([unhealed], author.path, author.token, cursor=str(last)) as viewer:
        await viewer.until_live()
    assert unhealed.metric("runcast_history_reads_total", source="redis") - before < 20


async def test_the_end_is_found_though_nobody_was_told(two_edges: list[EdgeProcess], author: Author) -> None:
    """A terminal event whose message is lost reaches an idle viewer by the recheck, within about a heartbeat."""
    await author.begin()
    async with Follower(two_edges, author.path, author.token) as viewer:
        await viewer.until_live()
        began = time.monotonic()
        with messages_lost(author):
            await author.end()
        await viewer.until_done()
    assert time.monotonic() - began < under_load(10), "idle for one heartbeat of 1 s, and found at the next check"
    assert viewer.events == await author.log()
    assert viewer.ends == ["finished"]


async def test_a_lost_message_amid_others_is_read_from_the_log(unhealed: EdgeProcess, author: Author) -> None:
    """The next message shows the gap, and the gap is filled in order; so are those that show while it is filled."""
    await author.begin()
    async with Follower([unhealed], author.path, author.token) as viewer:
        await viewer.until_live()
        for _ in range(100):
            with messages_lost(author):
                await author.say(2)
            last = await author.say()
            for _ in range(3):  # these meet the reading of the gap
                last = await author.say()
            await viewer.until("the last of a burst", lambda v, last=str(last): v.cursor == last, 10)  # type: ignore[misc]
        await assert_same_to_the_end(author, viewer)
    assert viewer.connects == 1


async def test_an_end_that_nobody_watched_is_told_to_who_comes(two_edges: list[EdgeProcess], author: Author) -> None:
    """An edge that still watches a log whose end it missed sends a late viewer the end, and one at the end a 204."""
    await author.begin()
    async with Follower(two_edges[:1], author.path, author.token) as first:
        await first.until_live()
    with messages_lost(author):
        await author.end()
    async with Follower(two_edges[:1], author.path, author.token, cursor=first.cursor) as viewer:
        await viewer.until_done()
    assert first.events + viewer.events == await author.log()


async def test_an_edge_that_stood_still_catches_up(redis_url: str, author: Author) -> None:
    """An edge frozen for seconds (SIGSTOP) and thawed gives its viewers what they missed."""
    await author.begin()
    with edge(redis_url, heartbeat_seconds=1) as only:
        async with Follower([only], author.path, author.token) as viewer:
            async with writing(author, pause_seconds=0.001):
                await viewer.until_events(20)
                with process_stopped(only.pid):
                    await asyncio.sleep(2)
                await viewer.until_events(len(viewer.events) + 500)
            await assert_same_to_the_end(author, viewer)
    assert viewer.connects == 1


async def test_everything_breaks_at_once(own_redis: EmbeddedRedis, own_author: Author) -> None:
    """Viewers over two edges, while subscriptions are killed, Redis stands still now and then, and an edge is killed
    and replaced: each gets exactly the log."""
    author = Author(own_author.redis, limits=LogLimits(log_maxlen=0))  # however long an edge takes to start
    await author.begin()

    async def write() -> None:
        while True:
            try:
                await author.say(5)
            except GONE:  # written or not: the log says
                continue
            await asyncio.sleep(0.005)

    with edges(own_redis.url, 2, heartbeat_seconds=1) as (first, second):
        viewers = [Follower([first, second], author.path, author.token) for _ in range(10)]
        writer = asyncio.create_task(write())
        try:
            async with pubsub_connections_killed(author.redis, every_seconds=0.5), asyncio.TaskGroup() as group:
                for viewer in viewers:
                    await viewer.__aenter__()
                group.create_task(_trouble(own_redis, first))
            await tasks.end([writer])
            await author.end()
            for viewer in viewers:
                await viewer.until_done()
        finally:
            await tasks.end([writer])
            for viewer in viewers:
                await viewer.__aexit__()
    log = await author.log()
    assert len(log) > 200
    for viewer in viewers:
        assert viewer.events == log
        assert not viewer.resets


async def _trouble(server: EmbeddedRedis, first: EdgeProcess) -> None:
    for _ in range(2):
        await asyncio.sleep(0.7)
        with redis_stopped(server):
            await asyncio.sleep(0.7)
    first.kill()
    await asyncio.sleep(0.5)
    first.start()
    await asyncio.to_thread(first.wait_ready)
    await asyncio.sleep(0.5)
    first.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)


@pytest.mark.parametrize("reason", ["no replica", "no memory"])
async def test_a_redis_that_takes_no_writes_is_answered_as_one_that_is_away(
    stoppable: Stoppable, their_author: Author, reason: str
) -> None:
    """What would write gets 503 and when to come back, an `EventSource` a stream that says so; what reads goes on, and
    who watches has the events when they can be written."""
    setting = {"no replica": "min-replicas-to-write", "no memory": "maxmemory"}[reason]
    author, only = their_author, stoppable.edge
    await author.begin()
    async with Follower([only], author.path, author.token) as viewer:
        await viewer.until_events(1)
        await author.redis.config_set(setting, 1)
        try:
            answer = await call(only.port, "POST", "/api/agent/execute", author.token, {"task": "t", "agent": "a"})
            assert (answer.status, answer.headers["retry-after"]) == (503, "2"), answer
            async with request(only.port, "GET", author.path, author.token, headers=SSE) as refused:
                assert refused.status == 200
                assert [frame.event async for frame in refused.frames()][-1] == "stream:end"
            listed = await call(only.port, "GET", "/api/agent/executions", author.token)
            assert [each["executionId"] for each in listed.body["executions"]] == [author.execution_id]
        finally:
            await author.redis.config_set(setting, 0)
        await assert_same_to_the_end(author, viewer)


async def test_an_event_source_outlasts_a_redis_that_is_busy(own_redis: EmbeddedRedis) -> None:
    """Where reads are refused too (BUSY: a script does not end), with no limit to be asked about first, it is told when
    to come back: an error status would end it for good."""
    client, other = connect(own_redis.url), connect(own_redis.url, timeout=30)
    author = Author(client, "alice")
    await author.begin()
    with edge(own_redis.url, max_connections_per_user=0) as only:
        await client.config_set("busy-reply-threshold", 1)
        endless = asyncio.create_task(other.eval("while true do end", 0))
        with pytest.raises(ResponseError, match="BUSY"):
            await _asked_until_it_refuses(client)
        async with request(only.port, "GET", author.path, author.token, headers=SSE) as refused:
            assert refused.status == 200
            assert [frame.event async for frame in refused.frames()][-1] == "stream:end"
        async with request(only.port, "GET", author.path, author.token) as plain:
            assert plain.status == 503
        await client.script_kill()
        await asyncio.gather(endless, return_exceptions=True)
        async with Follower([only], author.path, author.token) as viewer:
            await assert_same_to_the_end(author, viewer)
    await client.aclose()
    await other.aclose()


async def _asked_until_it_refuses(client: Redis) -> None:
    async with asyncio.timeout(10):
        while True:
            await client.get("key")


async def test_a_record_from_before_a_failover_holds_nobody(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who has the terminal event is sent away, also by an edge that is told that the execution still runs; and is told
    that nothing follows once that is known."""
    await author.begin()
    end = await author.end()
    state = await author.redis.hget(author.keys.record, "state")
    await author.redis.hset(author.keys.record, "state", "running")
    async with Follower(two_edges, author.path, author.token, cursor=str(end), pause_seconds=0.2) as viewer:
        await viewer.until("an end", lambda seen: seen.ends == ["finished"])
        await author.redis.hset(author.keys.record, "state", state)
        await viewer.until_done()
    assert viewer.events == []
