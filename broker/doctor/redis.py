"""Looks at Redis: what each server says of itself, and whether these credentials can do what edges and workers do."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from broker.doctor.findings import Finding, note, ok, problem
from broker.doctor.servers import Server, judge
from emitter import workers
from emitter.connection import GONE, connect
from emitter.errors import RuncastError
from emitter.events import ExecutionComplete, ExecutionStarted
from emitter.log import LogLimits, append, prepare
from emitter.redact import Redactor
from emitter.wire import EDGES, Owner, edge_channel, now_ms

LOOK_SECONDS = 10.0
PINGS = 20
USER = "runcast-doctor"
KEPT_SECONDS = 60
LIMITS = LogLimits(ttl_seconds=KEPT_SECONDS, finished_ttl_seconds=KEPT_SECONDS, tombstone_ttl_seconds=KEPT_SECONDS)
"""What the doctor writes as a user of its own is gone two minutes later; another user's feed they would cut short."""


async def look_at_redis(url: str) -> list[Finding]:
    """Everything there is to say of the Redis at `url`. Never raises what Redis does; takes a minute at most."""
    redis = connect(url)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await redis.ping()
            servers = await _servers(redis)
    except AuthenticationError as error:
        return [problem("Redis", f"refuses the credentials: {error}", "check user and password in RUNCAST_REDIS_URL")]
    except (RedisError, *GONE) as error:
        text = str(error) or type(error).__name__
        return [problem("Redis", f"cannot be reached: {text}", "check RUNCAST_REDIS_URL, its port and what is between")]
    else:
        return [finding for server in servers for finding in judge(server)] + await _rights(redis)
    finally:
        await redis.aclose()


async def _servers(redis: Redis) -> list[Server]:
    if isinstance(redis, RedisCluster):
        nodes = redis.get_primaries()
        return [await _server(f"Redis {node.name}", _at_node(redis, node)) for node in nodes]
    return [await _server("Redis", redis.execute_command)]


Call = Callable[..., Awaitable[Any]]


def _at_node(redis: Any, node: Any) -> Call:
    def call(*command: Any) -> Any:
        return redis.execute_command(*command, target_nodes=node)

    return call


async def _server(name: str, call: Call) -> Server:
    times = []
    skews = []
    for _ in range(PINGS):
        began, wall = time.perf_counter(), time.time()
        seconds, micros = await call("TIME")
        took = time.perf_counter() - began
        times.append(took)
        skews.append((int(seconds) + int(micros) / 1e6) - (wall + took / 2))
    try:
        config: dict[str, str] | None = {}
        for pattern in ("client-output-buffer-limit", "save", "min-replicas-to-write"):
            config = {**(config or {}), **_texts(await call("CONFIG GET", pattern))}
    except RedisError:  # managed servers and least-privilege users do not have it
        config = None
    ping_ms, skew_ms = statistics.median(times) * 1000, statistics.median(skews) * 1000
    return Server(name=name, info=await call("INFO"), config=config, ping_ms=ping_ms, skew_ms=skew_ms)


def _texts(reply: Any) -> dict[str, str]:
    items = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)

    def text(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    return {text(name): text(value) for name, value in items}


# --- rights ----------------------------------------------------------------------------------------------------------


async def _rights(redis: Redis) -> list[Finding]:
    """Do what edges and workers do, on keys of the doctor's own."""
    works = {
        "append to a log and read it": _append_and_read,
        "publish and hear it": _publish_and_hear,
        "see who is there": _see_who_is_there,
    }
    return [await _try(what, work(redis)) for what, work in works.items()]


async def _try(what: str, work: Awaitable[None]) -> Finding:
    change = "give the user what deploy/redis/users.acl gives it: these commands, keys ~rc:* and channels &rc:*"
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await work
    except NoPermissionError as error:
        return problem("rights", f"cannot {what}: {error}", change)
    except (RedisError, RuncastError, *GONE) as error:
        text = str(error) or type(error).__name__
        if "NOPERM" in text or "permission" in text:
            return problem("rights", f"cannot {what}: {text}", change)
        return problem("rights", f"cannot {what}: {text}", "see Redis's own log")
    return ok("rights", f"can {what}")


async def _append_and_read(redis: Redis) -> None:
    execution_id, owner = f"ex_doctor_{secrets.token_hex(6)}", Owner(USER)
    said = (ExecutionStarted(task="doctor", started_at=now_ms(), attempt=1), ExecutionComplete(result=None, duration=0))
    events = [prepare(event, execution_id, redact=Redactor()) for event in said]
    await append(redis, owner, execution_id, events, limits=LIMITS)
    if await redis.xlen(owner.execution(execution_id).log) != len(events):
        raise RuncastError("what was written did not come back")


async def _publish_and_hear(redis: Redis) -> None:
    channel = edge_channel(f"doctor-{secrets.token_hex(4)}")
    pubsub: Any = redis.pubsub()
    try:
        await pubsub.subscribe(channel)
        while (message := await pubsub.get_message(timeout=LOOK_SECONDS)) is not None:
            if message["type"] == "message":
                return
            await redis.publish(channel, b"beat")  # it is confirmed
        raise RuncastError("a message did not come back")
    finally:
        await pubsub.aclose()


async def _see_who_is_there(redis: Redis) -> None:
    await redis.zrange(EDGES, 0, -1)
    await workers.live_workers(redis)


async def who_is_there(url: str) -> list[Finding]:
    """The edges and workers that announce themselves now."""
    redis = connect(url)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            edges = await redis.zcount(EDGES, time.time() * 1000, "+inf")
            live = await workers.live_workers(redis)
    except (RedisError, *GONE):
        return []
    finally:
        await redis.aclose()
    agents = sorted({agent.name for worker in live for agent in worker.agents})
    found = [ok("edges", f"{edges} live") if edges else note("edges", "none is live", "start one: runcast serve")]
    if live:
        found.append(ok("workers", f"{len(live)} live, for {', '.join(agents)}"))
    else:
        found.append(note("workers", "none is live", "start one: runcast worker MODULE:AGENTS"))
    return found
