"""What an edge tells Redis of its viewers, on a real one: first and last, renewed, in order, whatever breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.base.reasons import CloseReason
from broker.cli.embedded import EmbeddedRedis
from broker.log import watch_leases as module
from broker.log.watch_leases import LEFT_FOR_GOOD, DisconnectPolicy, WatchLeases
from emitter.store.connection import connect
from emitter.wire.keys import ABANDONED, Owner, member, viewers_key
from tests.edges import under_load
from tests.faults.outages import normal_connections_killed, redis_paused, redis_stopped

NAME = member(Owner("alice"), "ex_1")
LONG_MS = 60_000
TETHER = DisconnectPolicy(NAME, LONG_MS)
SENT_AWAY = [reason for reason in CloseReason if reason not in (*LEFT_FOR_GOOD, "finished", "refused")]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Redis tells nobody about a changed key, so this one looks until it is so."""
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def own(own_redis: EmbeddedRedis) -> AsyncIterator[Redis]:
    """A client of the test's own Redis."""
    client = connect(own_redis.url)
    yield client
    await client.aclose()


async def redis_ms(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def edges_of(redis: Redis, name: str = NAME) -> list[bytes]:
    """Edges whose word on the execution holds."""
    edges: Any = await redis.zrangebyscore(viewers_key(name), await redis_ms(redis) + 1, "+inf")
    return list(edges)


async def due_in(redis: Redis, name: str = NAME) -> float:
    """Milliseconds until the execution is abandoned; `inf` if nobody ever spoke of it."""
    score = await redis.zscore(ABANDONED, name)
    return float("inf") if score is None else float(score - await redis_ms(redis))


async def until_watched(redis: Redis, name: str = NAME) -> None:
    await until(lambda: _is_watched(redis, name))


async def _is_watched(redis: Redis, name: str) -> bool:
    return await edges_of(redis, name) == [b"e1"]


async def until_left(redis: Redis) -> None:
    """The clock runs: nobody's word holds."""
    await until(lambda: _is_left(redis))


async def _is_left(redis: Redis) -> bool:
    return await due_in(redis) <= LONG_MS and await edges_of(redis) == []


async def calls(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_eval", {"calls": 0})["calls"])


# --- who comes and leaves --------------------------------------------------------------------------------------------


async def test_from_the_first_viewer_to_the_last(redis: Redis) -> None:
    """The edge speaks of its first viewer and of the departure of its last, and of none in between."""
    async with WatchLeases(redis, "e1") as presence:
        presence.enter(TETHER)
        await until_watched(redis)
        said = await calls(redis)
        presence.enter(TETHER)
        presence.leave(TETHER, CloseReason.GONE)
        await asyncio.sleep(0.05)
        assert await calls(redis) == said
        presence.leave(TETHER, CloseReason.GONE)
        await until_left(redis)
        presence.enter(TETHER)
        await until_watched(redis)


async def test_a_short_visit_starts_the_clock(redis: Redis) -> None:
    """One who leaves before Redis knew of him has been there all the same."""
    async with WatchLeases(redis, "e1") as presence:
        presence.enter(TETHER)
        presence.leave(TETHER, CloseReason.GONE)
        await until_left(redis)


async def test_no_viewers_cost_no_calls(redis: Redis) -> None:
    """An edge without viewers of such executions asks nothing of Redis."""
    said = await calls(redis)
    async with WatchLeases(redis, "e1", renew_seconds=0.01):
        await asyncio.sleep(0.1)
    assert await calls(redis) == said


@pytest.mark.parametrize("reason", LEFT_FOR_GOOD)
async def test_who_left_for_good_starts_the_clock_at_once(redis: Redis, reason: CloseReason) -> None:
    """A viewer that closed its connection, or may watch no more, is not waited for."""
    async with WatchLeases(redis, "e1") as presence:
        presence.enter(TETHER)
        presence.leave(TETHER, reason)
        await until_left(redis)


@pytest.mark.parametrize("reason", SENT_AWAY)
async def test_who_was_sent_away_is_given_time_to_return(redis: Redis, reason: CloseReason) -> None:
    """A stream that the edge ended is likely to be resumed: the execution is watched for one more word, not renewed."""
    async with WatchLeases(redis, "e1", renew_seconds=0.05) as presence:
        presence.enter(TETHER)
        presence.leave(TETHER, reason)
        await until_watched(redis)
        due = await redis.zscore(ABANDONED, NAME)
        assert await due_in(redis) > LONG_MS + 10_000
        await asyncio.sleep(0.2)
        assert await redis.zscore(ABANDONED, NAME) == due


async def test_one_who_was_sent_away_is_waited_for_though_another_leaves(redis: Redis) -> None:
    """The last one's departure does not start the clock while another is expected back."""
    async with WatchLeases(redis, "e1") as presence:
        presence.enter(TETHER)
        presence.enter(TETHER)
        presence.leave(TETHER, CloseReason.AGED)
        presence.leave(TETHER, CloseReason.GONE)
        await until_watched(redis)
    assert await due_in(redis) > LONG_MS + 10_000


async def test_the_end_leaves_nothing(redis: Redis) -> None:
    """When the last viewer leaves because the execution has ended, Redis forgets who watched it."""
    async with WatchLeases(redis, "e1") as presence:
        presence.enter(TETHER)
        presence.enter(TETHER)
        await until_watched(redis)
        presence.leave(TETHER, CloseReason.FINISHED)
        presence.leave(TETHER, CloseReason.FINISHED)

        async def forgotten() -> bool:
            return not await redis.keys("*viewers*") and not await redis.exists(ABANDONED)

        await until(forgotten)


# --- time passes -----------------------------------------------------------------------------------------------------


async def test_words_are_renewed_while_somebody_watches(redis: Redis) -> None:
    """What Redis lost, or what ended, is said again at the next renewal; what nobody watches any more is not."""
    async with WatchLeases(redis, "e1", renew_seconds=0.05) as presence:
        gone = DisconnectPolicy(member(Owner("alice"), "ex_2"), LONG_MS)
        presence.enter(TETHER)
        presence.enter(gone)
        presence.leave(gone, CloseReason.GONE)
        await until_watched(redis)
        for _ in range(3):
            await redis.flushall()
            await until_watched(redis)
        assert await due_in(redis, gone.name) == float("inf")


async def test_more_than_one_call_holds(redis: Redis) -> None:
    """Hundreds of executions are said in a few calls, and each is left."""
    tethers = [DisconnectPolicy(member(Owner("alice"), f"ex_{number}"), LONG_MS) for number in range(950)]
    async with WatchLeases(redis, "e1", renew_seconds=600) as presence:
        before = await calls(redis)
        for policy in tethers:
            presence.enter(policy)
        for policy in tethers:
            await until_watched(redis, policy.name)
        assert await calls(redis) - before == 10
        for policy in tethers:
            presence.leave(policy, CloseReason.GONE)
    assert await redis.zcard(ABANDONED) == len(tethers)
    for policy in tethers:
        assert await due_in(redis, policy.name) <= LONG_MS


# --- what breaks -----------------------------------------------------------------------------------------------------


async def test_what_could_not_be_said_is_said_later(own_redis: EmbeddedRedis, own: Redis) -> None:
    """While Redis is away only the latest is kept of each execution, and told as soon as it is back: who left, since
    when; who came back, as if nothing had been."""
    left, came, never = (DisconnectPolicy(member(Owner("alice"), f"ex_{number}"), LONG_MS) for number in range(3))
    async with WatchLeases(own, "e1") as presence:
        presence.enter(left)
        await until_watched(own, left.name)
        own_redis.stop()
        with structlog.testing.capture_logs() as logs:
            left_at = time.monotonic()
            presence.leave(left, CloseReason.GONE)
            for _ in range(2):
                presence.enter(came)
                presence.leave(came, CloseReason.GONE)
            presence.enter(came)
            presence.enter(never)
            presence.leave(never, CloseReason.FINISHED)
            await asyncio.sleep(1.5)
        assert [line["event"] for line in logs] == ["presence_unsaid"]
        own_redis.start()
        await until_watched(own, came.name)
        assert await due_in(own, left.name) <= LONG_MS - 1500
        assert await due_in(own, left.name) > LONG_MS - 1000 * (time.monotonic() - left_at) - 100
        assert await due_in(own, never.name) == float("inf")


async def test_news_during_a_call_is_told_after_it(redis: Redis, redis_url: str) -> None:
    """Who leaves while Redis is being told that he came is not lost on the way."""
    pausing = connect(redis_url)
    async with WatchLeases(redis, "e1") as presence:
        async with redis_paused(pausing, 0.2):
            presence.enter(TETHER)
            await asyncio.sleep(0.1)  # sent by now, and answered after the pause
            presence.leave(TETHER, CloseReason.GONE)
        await until_left(redis)
    await pausing.aclose()


async def test_words_do_not_overtake_each_other(redis: Redis, redis_url: str) -> None:
    """Viewers come and go while connections are killed in the middle of a word: in the end Redis has the last one."""
    killer = connect(redis_url)
    with structlog.testing.capture_logs():
        async with WatchLeases(redis, "e1") as presence:
            for _ in range(10):
                async with normal_connections_killed(killer, every_seconds=0.001):
                    for _ in range(5):
                        presence.enter(TETHER)
                        await asyncio.sleep(0.005)
                        presence.leave(TETHER, CloseReason.GONE)
                        await asyncio.sleep(0.005)
                await until_left(killer)
                presence.enter(TETHER)
                await until_watched(killer)
                presence.leave(TETHER, CloseReason.GONE)
    await killer.aclose()


async def test_the_unsaid_has_a_bound(monkeypatch: pytest.MonkeyPatch, own_redis: EmbeddedRedis, own: Redis) -> None:
    """Of very many departures while Redis is away the oldest are dropped."""
    monkeypatch.setattr(module, "MAX_PENDING", 5)
    with structlog.testing.capture_logs():
        async with WatchLeases(own, "e1") as presence:
            with redis_stopped(own_redis):
                for number in range(20):
                    policy = DisconnectPolicy(member(Owner("alice"), f"ex_{number}"), LONG_MS)
                    presence.enter(policy)
                    presence.leave(policy, CloseReason.GONE)
    names: Any = await own.zrange(ABANDONED, 0, -1)
    assert sorted(names) == [member(Owner("alice"), f"ex_{number}").encode() for number in range(15, 20)]


# --- the end of the edge ---------------------------------------------------------------------------------------------


async def test_a_stopping_edge_says_what_is_unsaid(redis: Redis) -> None:
    """What happened right before the end is told, and the task has ended."""
    async with WatchLeases(redis, "e1") as presence:
        presence.enter(TETHER)
        await until_watched(redis)
        presence.leave(TETHER, CloseReason.GONE)
    assert await due_in(redis) <= LONG_MS
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "presence"]


async def test_stopping_is_bounded_when_redis_stands_still(
    monkeypatch: pytest.MonkeyPatch, own_redis: EmbeddedRedis, own: Redis
) -> None:
    """An edge does not wait longer for a Redis that does not answer than it is given."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.2)
    await own.ping()
    with redis_stopped(own_redis), structlog.testing.capture_logs():
        started = time.monotonic()
        async with WatchLeases(own, "e1") as presence:
            presence.enter(TETHER)
            await asyncio.sleep(0)
        assert time.monotonic() - started < under_load(2)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "presence"]
