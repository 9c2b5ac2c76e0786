"""The emitter's half of the promise: whatever happens between it and Redis, each event is in the log exactly once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter
from emitter.errors import EventsLost
from emitter.publishing.outbox import PublisherOptions
from emitter.publishing.publisher import Publisher
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import Author, EdgeProcess, Follower, assert_dense, read_log
from tests.faults.outages import normal_connections_killed, redis_dead, redis_paused, redis_stopped, replies_lost

ALICE = Owner("alice")
LOG = ALICE.execution("ex_1").log
PATIENT = PublisherOptions(close_timeout=20.0, flush_timeout=20.0)


def thoughts(data: list[str]) -> list[int]:
    """The numbers that the agent thought, as the log has them."""
    events = [json.loads(text) for text in data]
    return [int(event["data"]["thought"]) for event in events if event["type"] == "thinking"]


async def think(emitter: AgentEmitter, count: int, *, start: int = 0, every_seconds: float = 0.002) -> None:
    for number in range(start, start + count):
        await emitter.thinking(str(number))
        await asyncio.sleep(every_seconds)


async def test_lost_replies_duplicate_nothing(redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    """A batch whose answer is lost was written, and is sent again: every event is in the log once, in order."""
    async with (
        replies_lost(redis_server, tmp_path) as (lossy_url, lost),
        AgentEmitter("alice", "ex_1", redis_url=lossy_url, options=PATIENT) as emitter,
    ):
        await emitter.execution_started(task="t")
        for burst in range(20):
            await think(emitter, 10, start=10 * burst)
            await emitter.flush()
        await emitter.execution_complete(result="done")
    assert len(lost) >= 4
    log = await read_log(redis, LOG)
    assert_dense(log)
    assert thoughts([event.data for event in log]) == list(range(200))
    assert log[-1].type == "execution:complete"


async def test_killed_connections_lose_and_double_nothing(redis: Redis, redis_url: str) -> None:
    """Connections killed at any moment, before or after the script ran: every event once, in order."""
    killer = connect(redis_url)
    try:
        async with AgentEmitter("alice", "ex_1", redis_url=redis_url, options=PATIENT) as emitter:
            await emitter.execution_started(task="t")
            async with normal_connections_killed(killer):
                await think(emitter, 600)
            await emitter.execution_complete(result="done")
    finally:
        await killer.aclose()
    log = await read_log(redis, LOG)
    assert_dense(log)
    assert thoughts([event.data for event in log]) == list(range(600))


async def test_text_over_lost_connections_is_whole(redis: Redis, redis_url: str) -> None:
    """Merged deltas read as the text that was emitted: no chunk lost, doubled or out of order."""
    killer = connect(redis_url)
    words = [f"{number} " for number in range(2000)]
    try:
        async with AgentEmitter("alice", "ex_1", redis_url=redis_url, options=PATIENT) as emitter:
            async with normal_connections_killed(killer):
                for number, word in enumerate(words):
                    await emitter.text(word)
                    if number % 5 == 0:
                        await asyncio.sleep(0.001)
            await emitter.execution_complete(result="done")
    finally:
        await killer.aclose()
    events = [json.loads(event.data) for event in await read_log(redis, LOG)]
    text = "".join(event["data"]["delta"] for event in events if event["type"] == "message:delta")
    assert text == "".join(words)


async def test_a_redis_that_is_paused_for_seconds_loses_and_doubles_nothing(redis: Redis, redis_url: str) -> None:
    """The agent goes on while Redis waits; afterwards everything is there."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, options=PATIENT) as emitter:
        await emitter.execution_started(task="t")
        async with redis_paused(redis, 2.0):
            await think(emitter, 300)
        await emitter.execution_complete(result="done")
    log = await read_log(redis, LOG)
    assert_dense(log)
    assert thoughts([event.data for event in log]) == list(range(300))


async def test_a_redis_that_stands_longer_than_a_command_waits_doubles_nothing(own_redis: EmbeddedRedis) -> None:
    """A batch that Redis took in before it stood still is executed when it goes on, and its repeat is skipped."""
    async with AgentEmitter("alice", "ex_1", redis_url=own_redis.url, options=PATIENT) as emitter:
        await emitter.execution_started(task="t")
        await emitter.flush()
        with redis_stopped(own_redis):
            await think(emitter, 200)
            await asyncio.sleep(5.5)  # commands give up after 5 s, and are sent again
        await emitter.execution_complete(result="done")
    client = connect(own_redis.url)
    log = await read_log(client, LOG)
    await client.aclose()
    assert_dense(log)
    assert thoughts([event.data for event in log]) == list(range(200))


async def test_viewers_see_each_event_once_while_the_emitter_is_cut_off(
    two_edges: list[EdgeProcess], author: Author, redis_url: str
) -> None:
    """End to end: the emitter's connections are killed, and viewers on both edges have exactly the log."""
    killer = connect(redis_url)
    await author.begin()
    try:
        async with (
            Follower(two_edges[:1], author.path, author.token) as one,
            Follower(two_edges[1:], author.path, author.token) as two,
        ):
            async with AgentEmitter(author.user, "ex_1", redis_url=redis_url, options=PATIENT) as emitter:
                async with normal_connections_killed(killer, every_seconds=0.1):
                    await think(emitter, 300)
                await emitter.execution_complete(result="done")
            await one.until_done()
            await two.until_done()
    finally:
        await killer.aclose()
    log = await author.log()
    assert thoughts([event.data for event in log]) == list(range(300))
    for viewer in (one, two):
        assert viewer.events == log
        assert not viewer.resets


async def test_closing_while_redis_is_away_says_how_much_is_lost(own_redis: EmbeddedRedis) -> None:
    """The count of what could not be written is raised, within the time given, and never more silently."""
    emitter = AgentEmitter("alice", "ex_1", redis_url=own_redis.url)
    await emitter.__aenter__()
    await emitter.execution_started(task="t")
    await emitter.flush()
    with redis_dead(own_redis):
        for number in range(25):
            await emitter.thinking(str(number))
        with pytest.raises(EventsLost) as caught:
            async with asyncio.timeout(15):
                await emitter.close(0.5)
    assert caught.value.count == 25


async def test_a_publisher_under_fire_can_be_closed(redis: Redis, redis_url: str) -> None:
    """Leaving a publisher that is sending ends it, at whatever moment: no cancellation gets lost in a send."""
    for number in range(60):
        publisher = Publisher(redis_url=redis_url)
        async with asyncio.timeout(15):
            async with publisher:
                emitter = AgentEmitter("alice", f"ex_{number}", publisher=publisher)
                for turn in range(5 + number % 7):
                    await emitter.thinking(str(turn))
                    await asyncio.sleep(0)
