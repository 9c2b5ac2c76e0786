"""Workers announce themselves and their agents, with a short time to live.

Announcements expire by the clock of Redis. Agents stay known for a day after their last worker, so that executions
are accepted while all workers restart.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from emitter.budgets import Budget
from emitter.store.jobs import redis_ms
from emitter.wire.keys import AGENTS_KNOWN, AGENTS_STEERABLE, WORKER_INFO, WORKERS

ANNOUNCE_TTL_MS = 15_000
KNOWN_MS = 24 * 3_600_000
MODES = ("text/plain", "application/json")
"""Media types of agents that declare none: a task with parameters, text and data."""


class ExampleFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file that goes with an example: `text`, or `data` in base 64. `uri` names it, where it has a name."""

    media_type: str
    text: str | None = None
    data: str | None = None
    uri: str | None = None


class Example(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A task that an agent is good at. What stands in braces (`Compare {a} with {b}`) is for the user to fill in."""

    task: str
    name: str | None = None
    description: str = ""
    files: tuple[ExampleFile, ...] = ()


class AgentInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a worker announces of one agent. Limits in seconds; modes are media types."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    input_schema: dict[str, Any] | None = None
    input_modes: tuple[str, ...] = MODES
    output_modes: tuple[str, ...] = MODES
    examples: tuple[Example, ...] = ()
    max_attempts: int = 3
    time_limit: float | None = None
    idle_limit: float | None = None
    accepts_messages: bool = False
    budget: Budget | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a worker announces of itself. `loop_lag_ms` is how late its event loop woke it for this announcement;
    `waiting` executions wait for a person or a child, and have no slot. Times are in milliseconds since the epoch.
    `over_http`: an edge announces it, as it has no Redis; it reaps nothing."""

    id: str
    host: str
    pid: int
    concurrency: int
    running: int
    waiting: int = 0
    agents: tuple[AgentInfo, ...]
    loop_lag_ms: float | None = None
    rss_bytes: int | None = None
    started_at: int | None = None
    over_http: bool = False


def rss_bytes() -> int | None:
    """The resident memory of this process; None if the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


async def announce(redis: Redis, info: WorkerInfo) -> None:
    """Announce that a worker lives, for the next 15 s."""
    now = await redis_ms(redis)
    expired = await redis.zrangebyscore(WORKERS, 0, now - ANNOUNCE_TTL_MS)
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hset(WORKER_INFO, info.id, msgspec.json.encode(info))
        pipe.zadd(WORKERS, {info.id: now + ANNOUNCE_TTL_MS})
        pipe.zadd(AGENTS_KNOWN, {agent.name: now for agent in info.agents})
        for agent in info.agents:
            if agent.accepts_messages:
                pipe.zadd(AGENTS_STEERABLE, {agent.name: now})
            else:
                pipe.zrem(AGENTS_STEERABLE, agent.name)
        for names in (AGENTS_KNOWN, AGENTS_STEERABLE):
            pipe.zremrangebyscore(names, 0, now - KNOWN_MS)
        if expired:
            pipe.zrem(WORKERS, *expired)
            pipe.hdel(WORKER_INFO, *expired)
        await pipe.execute()


async def renew(redis: Redis, worker: str, running: int) -> None:
    """Announce a worker again as it was announced last, unless that is forgotten."""
    client: Any = redis
    stored: bytes | None = await client.hget(WORKER_INFO, worker)
    if stored is not None and (info := _worker_info(stored)) is not None:
        await announce(redis, msgspec.structs.replace(info, running=running))


async def retire(redis: Redis, worker: str) -> None:
    """Remove a worker's announcement."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zrem(WORKERS, worker)
        pipe.hdel(WORKER_INFO, worker)
        await pipe.execute()


async def live_workers(redis: Redis) -> list[WorkerInfo]:
    """The workers that announced themselves within 15 s."""
    ids = await redis.zrangebyscore(WORKERS, await redis_ms(redis), "+inf")
    if not ids:
        return []
    client: Any = redis
    stored: list[bytes | None] = await client.hmget(WORKER_INFO, ids)
    return [info for text in stored if text is not None and (info := _worker_info(text)) is not None]


def _worker_info(text: bytes) -> WorkerInfo | None:
    try:
        return msgspec.json.decode(text, type=WorkerInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # a worker of another version must not hide the others


async def live_agents(redis: Redis) -> list[AgentInfo]:
    """The agents of live workers by name, each once."""
    found = {agent.name: agent for worker in await live_workers(redis) for agent in worker.agents}
    return [found[name] for name in sorted(found)]


async def known_agents(redis: Redis) -> set[str]:
    """Names of the agents that any worker announced within the last 24 h."""
    names: Any = await redis.zrangebyscore(AGENTS_KNOWN, await redis_ms(redis) - KNOWN_MS, "+inf")
    # No worker announces a name that is not ASCII.
    return {name.decode() for name in names if name.isascii()}


async def takes_messages(redis: Redis, agent: str) -> bool:
    """Whether the worker that announced the agent last said that it takes messages, within the last 24 h."""
    announced: float | None = await redis.zscore(AGENTS_STEERABLE, agent)
    return announced is not None and announced >= await redis_ms(redis) - KNOWN_MS


async def is_known(redis: Redis, agent: str) -> bool:
    """Whether any worker announced the agent within the last 24 h."""
    announced: float | None = await redis.zscore(AGENTS_KNOWN, agent)
    return announced is not None and announced >= await redis_ms(redis) - KNOWN_MS
