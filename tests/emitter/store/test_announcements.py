"""Announcements of workers, against a real server."""

from __future__ import annotations

from typing import Any

import msgspec
from redis.asyncio import Redis

from emitter.store import announcements
from emitter.store.announcements import AgentInfo, WorkerInfo
from emitter.wire.keys import AGENTS_KNOWN, AGENTS_STEERABLE, WORKER_INFO, WORKERS


def worker_info(worker: str, *agents: str) -> WorkerInfo:
    infos = tuple(AgentInfo(name=name, input_schema={"type": "object"}) for name in agents)
    return WorkerInfo(id=worker, host="h", pid=1, concurrency=2, running=1, agents=infos)


async def test_an_announced_worker_is_seen_until_it_retires(redis: Redis) -> None:
    """Announcements list workers and, each once, their agents; known agents outlive them."""
    await announcements.announce(redis, worker_info("w1", "writer", "reader"))
    await announcements.announce(redis, worker_info("w2", "writer"))
    assert {worker.id for worker in await announcements.live_workers(redis)} == {"w1", "w2"}
    assert [agent.name for agent in await announcements.live_agents(redis)] == ["reader", "writer"]
    await announcements.retire(redis, "w1")
    assert await announcements.live_workers(redis) == [worker_info("w2", "writer")]
    assert [agent.name for agent in await announcements.live_agents(redis)] == ["writer"]
    assert await announcements.known_agents(redis) == {"reader", "writer"}


async def test_the_announcement_is_camel_case_json(redis: Redis) -> None:
    """What stands in Redis is what the interface documents."""
    await announcements.announce(redis, worker_info("w1", "writer"))
    stored: Any = await redis.hget(WORKER_INFO, "w1")
    agent = msgspec.json.decode(stored)["agents"][0]
    about = {"name", "description", "tags", "inputSchema", "inputModes", "outputModes", "examples", "acceptsMessages"}
    assert set(agent) == about | {"maxAttempts", "timeLimit", "idleLimit", "budget"}


async def test_a_silent_worker_is_not_live_and_is_swept(redis: Redis) -> None:
    """A worker whose announcement has lapsed is not listed, and the next announcement of another removes it."""
    await announcements.announce(redis, worker_info("silent", "writer"))
    await redis.zadd(WORKERS, {"silent": 1})
    assert await announcements.live_workers(redis) == []
    await announcements.announce(redis, worker_info("w2", "writer"))
    assert await redis.hkeys(WORKER_INFO) == [b"w2"]
    assert await redis.zrange(WORKERS, 0, -1) == [b"w2"]


async def test_agents_that_nobody_has_had_for_a_day_are_forgotten(redis: Redis) -> None:
    """Their names do not stay in Redis."""
    for names in (AGENTS_KNOWN, AGENTS_STEERABLE):
        await redis.zadd(names, {"gone": 1})
    await announcements.announce(redis, worker_info("w1", "writer"))
    assert await redis.zrange(AGENTS_KNOWN, 0, -1) == [b"writer"]
    assert await redis.zrange(AGENTS_STEERABLE, 0, -1) == []


async def test_an_unreadable_announcement_hides_no_other(redis: Redis) -> None:
    """A worker whose announcement we do not understand costs only itself."""
    await announcements.announce(redis, worker_info("w1", "writer"))
    await announcements.announce(redis, worker_info("w2", "reader"))
    await redis.hset(WORKER_INFO, "w1", "{}")
    assert [worker.id for worker in await announcements.live_workers(redis)] == ["w2"]


async def test_an_older_workers_announcement_is_read(redis: Redis) -> None:
    """What an announcement does not say is unknown, and hides nobody."""
    await announcements.announce(redis, worker_info("w1", "writer"))
    await redis.hset(WORKER_INFO, "w1", '{"id":"w1","host":"h","pid":1,"concurrency":2,"running":0,"agents":[]}')
    (found,) = await announcements.live_workers(redis)
    assert (found.rss_bytes, found.started_at, found.loop_lag_ms) == (None, None, None)


def test_the_memory_of_this_process() -> None:
    """It is the resident set, in bytes."""
    found = announcements.rss_bytes()
    assert found is not None
    assert 10_000_000 < found < 10_000_000_000
