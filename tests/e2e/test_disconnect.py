"""`onDisconnect`: an execution that is cancelled once nobody has watched it for so long, on any edge. Two edges, a
worker and Redis as processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from broker.log.watch_leases import LEASE_SECONDS, RENEW_SECONDS
from emitter import tasks
from emitter.store import watch_leases
from emitter.store.connection import connect
from emitter.store.jobs import redis_ms
from emitter.wire.ids import now_ms
from emitter.wire.keys import ABANDONED, AGENTS_KNOWN, Owner, member, viewers_key
from tests.edges import (
    FEED_PATH,
    ROOT,
    SSE,
    Author,
    EdgeProcess,
    Follower,
    call,
    edge,
    edges,
    eventually,
    request,
    stream_path,
    token_for,
    under_load,
)
from tests.faults.outages import normal_connections_killed

HERE = Path(__file__).resolve().parent
OWNER = Owner("alice")
ALICE = token_for("alice")
NOBODYS = "nobodys"
"""An agent that is known, and that no worker has now."""
EXECUTE = "/api/agent/execute"
FORGOTTEN_SOON = (
    "import sys, emitter.store.watch_leases as p; p.WORD_MS = 3000; from broker.cli.main import main; sys.exit(main())"
)
"""An edge whose word on its viewers ends soon by itself."""


class Stack(NamedTuple):
    server: EmbeddedRedis
    edges: list[EdgeProcess]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A Redis, two edges and one worker; what the tests here share is never flushed."""
    with EmbeddedRedis() as server, edges(server.url, 2, heartbeat_seconds=1, executes_per_minute=0) as both:
        worker = subprocess.Popen(
            [sys.executable, "-m", "emitter", "e2e_agents:agents", "--grace-seconds", "1", "--log-level", "warning"],
            cwd=HERE,
            env={**os.environ, "RUNCAST_REDIS_URL": server.url, "PYTHONPATH": str(ROOT)},
        )
        try:
            yield Stack(server, both)
        finally:
            worker.terminate()
            assert worker.wait(under_load(15)) == 0


@pytest.fixture
async def redis(stack: Stack) -> AsyncIterator[Redis]:
    """A client of the stack's Redis."""
    client = connect(stack.server.url)
    await client.zadd(AGENTS_KNOWN, {NOBODYS: now_ms()})
    yield client
    await client.aclose()


@pytest.fixture
async def both(stack: Stack, redis: Redis) -> list[EdgeProcess]:
    """The two edges, once the worker has announced its agents."""
    async with asyncio.timeout(under_load(15)):
        while await redis.zscore(AGENTS_KNOWN, "sleeper") is None:
            await asyncio.sleep(0.02)
    return stack.edges


async def start(at: EdgeProcess, cancel_after_seconds: float | None, agent: str = NOBODYS) -> str:
    fields = {} if cancel_after_seconds is None else {"onDisconnect": {"cancelAfterSeconds": cancel_after_seconds}}
    answer = await call(at.port, "POST", EXECUTE, ALICE, {"task": "t", "agent": agent, **fields})
    assert answer.status == 202, answer
    return str(answer.body["executionId"])


def watching(at: Sequence[EdgeProcess], execution_id: str, *, pause_seconds: float = 0.02) -> Follower:
    """A viewer that leaves at the end of the block."""
    return Follower(at, stream_path(execution_id), ALICE, pause_seconds=pause_seconds)


async def visit(redis: Redis, at: EdgeProcess, execution_id: str) -> int:
    """Watch for a moment and leave; when that was, at the earliest (ms)."""
    async with watching([at], execution_id) as viewer:
        await viewer.until_live()
        return await redis_ms(redis)


async def until_it_works(viewer: Follower) -> None:
    """The agent has begun."""
    await viewer.until("it works", lambda v: "thinking" in [event.type for event in v.events])


class Cancelled(NamedTuple):
    ms: int
    data: dict[str, Any]


async def cancelled(redis: Redis, execution_id: str) -> Cancelled:
    """Wait until an execution is cancelled; when that was, and with which words."""
    log, last = OWNER.execution(execution_id).log, "0"
    async with asyncio.timeout(under_load(30)):
        while True:
            reply: Any = await redis.xread({log: last}, block=1000)
            for id_, fields in [row for _, rows in reply or [] for row in rows]:
                last = id_.decode()
                if text := fields.get(b"execution:cancelled"):
                    return Cancelled(int(last.partition("-")[0]), json.loads(text)["data"])


async def what_is_due_is_cancelled(redis: Redis, at: EdgeProcess, seconds: float = 1) -> None:
    """Wait until all is cancelled that was abandoned `seconds` before now: until another execution is that is left now,
    and comes after them in line."""
    witness = await start(at, seconds)
    await visit(redis, at, witness)
    await cancelled(redis, witness)


async def goes_on(redis: Redis, execution_id: str) -> bool:
    """Whether it was neither cancelled nor its worker asked to."""
    state, asked = await redis.hmget(OWNER.execution(execution_id).record, "state", "cancel")  # type: ignore[misc]
    return state in (b"queued", b"running") and asked is None


async def forgotten(redis: Redis, execution_id: str) -> None:
    """Wait until nothing is kept of who watches an execution."""
    name = member(OWNER, execution_id)
    async with asyncio.timeout(under_load(15)):
        while await redis.zscore(ABANDONED, name) is not None or await redis.exists(viewers_key(name)):
            await asyncio.sleep(0.02)


# --- who counts ------------------------------------------------------------------------------------------------------


async def test_it_is_cancelled_when_the_last_viewer_on_any_edge_is_gone(redis: Redis, both: list[EdgeProcess]) -> None:
    """A viewer that leaves one edge changes nothing while another edge has one; when both have left, the running agent
    is cancelled so many seconds later, not before, and nothing is kept of it."""
    execution_id = await start(both[0], 1, "sleeper")
    async with watching(both[1:], execution_id) as viewer:
        await until_it_works(viewer)
        await visit(redis, both[0], execution_id)
        await what_is_due_is_cancelled(redis, both[0])
        assert await goes_on(redis, execution_id)
        left_at = await redis_ms(redis)
    end = await cancelled(redis, execution_id)
    assert end.ms >= left_at + 1000
    assert end.data == {"reason": "nobody is watching", "by": watch_leases.NOBODY}
    await forgotten(redis, execution_id)


async def test_who_may_only_look_does_not_count(redis: Redis, both: list[EdgeProcess]) -> None:
    """Who has a link, or reads executions of others, starts no clock by leaving, and stops none by staying."""
    execution_id = await start(both[0], 1)
    shares = f"/api/agent/executions/{execution_id}/shares"
    link = (await call(both[0].port, "POST", shares, ALICE, {})).body["token"]
    colleague = token_for("colleague", scopes={"executions:read", "org:read"})
    for token, query in ((link, ""), (colleague, "user=alice")):
        async with Follower(both[:1], stream_path(execution_id, query), token) as visitor:
            await visitor.until_live()
    path = f"/ds/executions/{execution_id}?offset=now&live=long-poll&user=alice"
    polling = asyncio.create_task(call(both[0].port, "GET", path, colleague))
    await eventually("it waits", lambda: both[0].metric("runcast_waits") == 1)
    await tasks.end([polling])
    await eventually("it has left", lambda: both[0].metric("runcast_waits") == 0)
    await what_is_due_is_cancelled(redis, both[0])
    assert await goes_on(redis, execution_id)
    async with Follower(both[:1], stream_path(execution_id), link) as visitor:
        await visitor.until_live()
        await visit(redis, both[1], execution_id)
        await cancelled(redis, execution_id)


async def test_who_returns_in_time_stops_the_clock(redis: Redis, both: list[EdgeProcess]) -> None:
    """A viewer that comes back within the time, on another edge, keeps the execution; when it leaves again the whole
    time passes anew."""
    execution_id = await start(both[0], 4)
    await visit(redis, both[0], execution_id)
    async with watching(both[1:], execution_id) as viewer:
        await viewer.until_live()
        await what_is_due_is_cancelled(redis, both[0], 4)
        assert await goes_on(redis, execution_id)
        left_at = await redis_ms(redis)
    assert (await cancelled(redis, execution_id)).ms >= left_at + 4000


async def test_without_the_option_or_a_viewer_nothing_is_cancelled(redis: Redis, both: list[EdgeProcess]) -> None:
    """By default a departure changes nothing. With the option, an execution that nobody watched yet goes on; looking at
    its state, its events or the feed is not watching it."""
    default = await start(both[0], None)
    await visit(redis, both[0], default)
    unwatched = await start(both[0], 1)
    async with Follower(both, FEED_PATH, ALICE) as feed:
        await feed.until_live()
    for path in ("", "/events"):
        assert (await call(both[0].port, "GET", f"/api/agent/executions/{unwatched}{path}", ALICE)).status == 200
    await what_is_due_is_cancelled(redis, both[0])
    for execution_id in (default, unwatched):
        assert await goes_on(redis, execution_id)
        await forgotten(redis, execution_id)


async def test_a_viewer_that_takes_nothing_watches(redis: Redis, both: list[EdgeProcess]) -> None:
    """One whose connection is full, and that is fed from the log, counts until it is gone."""
    execution_id = await start(both[0], 1)
    author = Author(redis, execution_id=execution_id)
    for _ in range(200):
        await author.say(1, size=60_000)
    path = stream_path(execution_id)
    async with request(both[0].port, "GET", path, ALICE, headers=SSE, receive_buffer=4096) as response:
        assert response.status == 200
        await what_is_due_is_cancelled(redis, both[0])
        assert await goes_on(redis, execution_id)
        left_at = await redis_ms(redis)
    assert (await cancelled(redis, execution_id)).ms >= left_at + 1000


async def test_an_execution_that_ends_leaves_nothing(redis: Redis, both: list[EdgeProcess]) -> None:
    """Who watched an execution is forgotten when it ends before their eyes, and when it ended after they left."""
    seen = await start(both[0], 60, "counter")
    async with watching(both, seen) as viewer:
        await viewer.until_done()
    await forgotten(redis, seen)
    unseen = await start(both[0], 4)
    await visit(redis, both[0], unseen)
    await Author(redis, execution_id=unseen).end()
    await forgotten(redis, unseen)
    assert await redis.hget(OWNER.execution(unseen).record, "state") == b"completed"  # type: ignore[misc]


# --- what breaks -----------------------------------------------------------------------------------------------------


async def test_a_stopping_edge_takes_nobodys_execution_along(
    stack: Stack, redis: Redis, both: list[EdgeProcess]
) -> None:
    """A viewer whose edge is stopped, and that needs longer than the execution's time to come back, finds it alive."""
    execution_id = await start(both[0], 1, "sleeper")
    with edge(stack.server.url, heartbeat_seconds=1) as stopping:
        async with watching([stopping, both[0]], execution_id, pause_seconds=2.5) as viewer:
            await until_it_works(viewer)
            await asyncio.to_thread(stopping.stop)
            await viewer.until_live(2)
            await what_is_due_is_cancelled(redis, both[0])
            assert await goes_on(redis, execution_id)
    assert viewer.ends == ["draining"]


async def test_a_killed_edge_takes_its_word_along(stack: Stack, redis: Redis, both: list[EdgeProcess]) -> None:
    """An edge that dies with the only viewer cannot say so: its word ends by itself, and then the clock runs."""
    execution_id = await start(both[0], 1)
    with edge(stack.server.url, program=("-c", FORGOTTEN_SOON), heartbeat_seconds=1) as dying:
        async with watching([dying], execution_id) as viewer:
            await viewer.until_live()
            async with asyncio.timeout(under_load(5)):
                while not (
                    words := await redis.zrange(viewers_key(member(OWNER, execution_id)), 0, -1, withscores=True)
                ):
                    await asyncio.sleep(0.02)
            dying.kill()
    ((_, word_ends_at),) = words
    assert word_ends_at > await redis_ms(redis), "it could not take its word back"
    assert (await cancelled(redis, execution_id)).ms >= word_ends_at + 1000


async def test_a_departure_is_told_though_connections_to_redis_break(
    stack: Stack, redis: Redis, both: list[EdgeProcess]
) -> None:
    """An edge that cannot tell Redis that its last viewer left tells it as soon as it can, and does not leave it to its
    word to end."""
    execution_id = await start(both[0], 1)
    killer = connect(stack.server.url)
    async with watching(both[:1], execution_id) as viewer:
        await viewer.until_live()
        left_at = await redis_ms(redis)
        async with normal_connections_killed(killer, every_seconds=0.005):
            await viewer.__aexit__(None, None, None)
            await asyncio.sleep(0.5)
    await killer.aclose()
    end = await cancelled(redis, execution_id)
    assert left_at + 1000 <= end.ms < left_at + 1000 * (LEASE_SECONDS - RENEW_SECONDS)


# --- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.5, 86_401, -1, "1", None])
async def test_the_time_has_bounds(both: list[EdgeProcess], seconds: object) -> None:
    """From a second to a day; anything else is 422 with the path of the field."""
    body = {"task": "t", "agent": NOBODYS, "onDisconnect": {"cancelAfterSeconds": seconds}}
    answer = await call(both[0].port, "POST", EXECUTE, ALICE, body)
    assert (answer.status, answer.body["path"]) == (422, "$.onDisconnect.cancelAfterSeconds")
