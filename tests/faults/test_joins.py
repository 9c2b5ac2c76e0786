"""Joining at the very moment of an append: thousands of times, at random, with nothing that would heal a miss later."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from redis.asyncio import Redis

from tests.edges import SSE, Author, EdgeProcess, Received, call, edges, request, under_load

pytestmark = pytest.mark.timeout(180)  # a busy machine takes its time

ROUNDS = 250
VIEWERS = 8
AT_ONCE = 6
# The recheck of idle logs would find a missed end after 15 s; a round that waits for it has failed.
SECONDS = 10.0
SETTINGS = {"heartbeat_seconds": 300, "max_connections_per_user": 0, "log_level": "warning"}


async def jitter() -> None:
    """From nothing over a few turns of the loop to some milliseconds: where the interleavings are."""
    match random.randrange(3):
        case 0:
            await asyncio.sleep(0)
        case 1:
            for _ in range(random.randrange(30)):
                await asyncio.sleep(0)
        case 2:
            await asyncio.sleep(random.uniform(0, 0.008))


async def watch(author: Author, edge: EdgeProcess, cursor: str | None) -> list[Received]:
    """Join after a moment and read to the end of the execution."""
    await jitter()
    headers = SSE | ({"Last-Event-ID": cursor} if cursor else {})
    async with request(edge.port, "GET", author.path, author.token, headers=headers) as stream:
        frames = [frame async for frame in stream.frames()]
        assert stream.whole
    assert not [frame for frame in frames if frame.event == "stream:reset"]
    return [Received(frame.id, frame.event, frame.data) for frame in frames if frame.id and frame.data]


async def write(author: Author) -> None:
    for _ in range(random.randrange(8)):
        await author.say(random.choice((1, 1, 1, 2, 5)))
        await jitter()
    await author.end()


async def look(author: Author, edge: EdgeProcess) -> None:
    """A front end asks for the state just when it opens the stream; both read the same log from its start."""
    await jitter()
    answer = await call(edge.port, "GET", f"/api/agent/executions/{author.execution_id}", author.token)
    assert answer.status == 200


async def play_round(number: int, redis: Redis, both: list[EdgeProcess]) -> int:
    """A new execution, so that subscribing, reading and appending meet anew. Returns the number of joins."""
    author = Author(redis, f"joiner-{number}")
    await author.begin()
    if random.random() < 0.5:
        await author.say(random.randrange(1, 20))
    known = [None, *(event.id for event in await author.log())]
    cursors = [random.choice(known) for _ in range(VIEWERS)]
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        group.create_task(write(author))
        group.create_task(look(author, random.choice(both)))
        views = [group.create_task(watch(author, random.choice(both), cursor)) for cursor in cursors]
    log = await author.log()
    for cursor, view in zip(cursors, views, strict=True):
        after = 0 if cursor is None else [event.id for event in log].index(cursor) + 1
        assert view.result() == log[after:], f"round {number}, cursor {cursor}"
    return VIEWERS


async def test_two_thousand_joins_at_the_moment_of_an_append(redis_url: str, redis: Redis) -> None:
    """However subscribing, reading history, appending and the end interleave, every viewer gets exactly the log."""
    numbers = iter(range(ROUNDS))
    joins = 0

    async def play(both: list[EdgeProcess]) -> None:
        nonlocal joins
        for number in numbers:
            joined = await play_round(number, redis, both)
            joins += joined

    with edges(redis_url, 2, **SETTINGS) as both:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(play(both))
        for edge in both:
            assert not edge.logged("replay_failed")
    assert joins == ROUNDS * VIEWERS >= 2000


async def test_viewers_that_leave_while_they_join_cost_the_others_nothing(redis_url: str, redis: Redis) -> None:
    """Connections cut at any moment of their opening leave no stream counted and no other viewer behind."""
    with edges(redis_url, 1, **SETTINGS) as (only,):
        author = Author(redis, "leaver")
        await author.begin()

        async def come_and_go() -> None:
            for _ in range(25):
                with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                    seconds = random.uniform(0.0005, 0.02)
                    async with request(only.port, "GET", author.path, author.token, headers=SSE, seconds=seconds):
                        await jitter()

        async def stay() -> list[Received]:
            return await watch(author, only, None)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            stayers = [group.create_task(stay()) for _ in range(5)]
            leavers = [group.create_task(come_and_go()) for _ in range(20)]
            while not all(task.done() for task in leavers):
                await author.say()
                await jitter()
            await author.end()
        log = await author.log()
        assert all(task.result() == log for task in stayers)
        async with asyncio.timeout(under_load(15)):
            while only.metric("runcast_connections"):
                await asyncio.sleep(0.02)
        assert not only.logged("replay_failed")
        assert not only.logged("request_failed")
