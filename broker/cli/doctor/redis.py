"""Checks Redis: the state that each server reports, and whether these credentials have the rights of edges or
workers."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from broker.cli.doctor.findings import Finding, is_well, note, ok, problem
from broker.cli.doctor.servers import Server, Times, judge
from emitter.errors import RuncastError
from emitter.events import ExecutionComplete, ExecutionStarted
from emitter.store import announcements, jobs
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import GONE, channels_of, connect, one_line
from emitter.wire.ids import now_ms
from emitter.wire.keys import DATASET_LOST, EDGES, PREFIX, Owner, edge_channel, jobs_key
from emitter.wire.redact import Redactor

T = TypeVar("T")

LOOK_SECONDS = 10.0
PINGS = 20
USER = "runcast-doctor"
KEPT_SECONDS = 60
LIMITS = LogLimits(ttl_seconds=KEPT_SECONDS, finished_ttl_seconds=KEPT_SECONDS, tombstone_ttl_seconds=KEPT_SECONDS)
"""The keys of the doctor's own user expire after two minutes. Only for that user: another feed would be cut short."""


async def look_at_redis(url: str) -> list[Finding]:
    """All findings about the Redis at `url`. Raises no error of Redis; takes a minute at most."""
    redis = connect(url)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await redis.ping()
            servers = await _servers(redis)
    except AuthenticationError as error:
        return [problem("Redis", f"refuses the credentials: {error}", "check user and password in RUNCAST_REDIS_URL")]
    except ResponseError as error:
        change = "check RUNCAST_REDIS_URL: its database, and the kind of server at its port"
        return [problem("Redis", f"answers: {error}", change)]
    except (RedisError, *GONE) as error:
        text = one_line(error)
        change = "check RUNCAST_REDIS_URL: its port, whether it uses TLS (rediss://), and the network between"
        return [problem("Redis", f"cannot be reached: {text}", change)]
    else:
        found = [finding for server in servers for finding in judge(server)]
        if any(server.is_sentinel for server in servers):
            return found
        return found + await _data(redis) + await _rights(redis)
    finally:
        await redis.aclose()


async def _servers(redis: Redis) -> list[Server]:
    if isinstance(redis, RedisCluster):
        nodes = redis.get_primaries()
        return [await _server(f"Redis {node.name}", _at_node(redis, node), by_cluster=True) for node in nodes]
    return [await _server("Redis", redis.execute_command, by_cluster=False)]


Call = Callable[..., Awaitable[Any]]


def _at_node(redis: Any, node: Any) -> Call:
    def call(*command: Any) -> Any:
        return redis.execute_command(*command, target_nodes=node)

    return call


async def _server(name: str, call: Call, *, by_cluster: bool) -> Server:
    """Managed servers and least-privilege users lack some commands: their result is `None`."""
    info = await _unless_refused(_info(call))
    times = await _unless_refused(_times(call))
    config = await _unless_refused(_config(call))
    default_writes = await _unless_refused(_default_writes(call))
    return Server(
        name=name, info=info, config=config, times=times, default_writes=default_writes, by_cluster=by_cluster
    )


async def _unless_refused(answer: Awaitable[T]) -> T | None:
    try:
        return await answer
    except ResponseError:
        return None


async def _info(call: Call) -> Mapping[str, Any]:
    info: Mapping[str, Any] = await call("INFO")
    return info


async def _times(call: Call) -> Times:
    times = []
    skews = []
    for _ in range(PINGS):
        began, wall = time.perf_counter(), time.time()
        seconds, micros = await call("TIME")
        took = time.perf_counter() - began
        times.append(took)
        skews.append((int(seconds) + int(micros) / 1e6) - (wall + took / 2))
    return Times(ping_ms=statistics.median(times) * 1000, skew_ms=statistics.median(skews) * 1000)


async def _config(call: Call) -> dict[str, str]:
    config: dict[str, str] = {}
    for pattern in ("client-output-buffer-limit", "save", "min-replicas-to-write", "appendfsync"):
        config |= _texts(await call("CONFIG GET", pattern))
    return config


async def _default_writes(call: Call) -> bool:
    """Whether the user `default` has the rights for the writes of scripts, on or off."""
    writes = (
        ("XADD", f"{PREFIX}:{{doctor}}:x", "*", "field", "value"),
        ("HSET", f"{PREFIX}:{{doctor}}:x", "field", "value"),
    )
    replies = [await call("ACL DRYRUN", "default", *write) for write in writes]
    return all(reply in (b"OK", "OK") for reply in replies)


def _texts(reply: Any) -> dict[str, str]:
    items = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)

    def text(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    return {text(name): text(value) for name, value in items}


async def _data(redis: Redis) -> list[Finding]:
    """Whether edges noticed lately that Redis lost its data."""
    try:
        lost_ms = await redis.get(DATASET_LOST)
    except (RedisError, *GONE):
        return []  # of a user that may not know
    if lost_ms is None:
        return []
    moment = datetime.fromtimestamp(int(lost_ms) / 1000, UTC)
    change = "see docs/run/runbooks.md, Redis came back empty; its file may have the data until it is rewritten"
    return [problem("data", f"this Redis came back empty, seen at {moment:%Y-%m-%d %H:%M:%S} UTC", change)]


# --- rights ----------------------------------------------------------------------------------------------------------


async def _rights(redis: Redis) -> list[Finding]:
    """Try the commands of edges, or else those of workers, on the doctor's own keys."""
    append = await _try("append to a log and read it", _append_and_read(redis))
    hear = await _try("publish and hear it", _publish_and_hear(redis))
    see = await _try("see who is there", _read_announcements(redis))
    if not is_well([append, hear, see]):
        as_worker = [append, await _try("take a job", _take_a_job(redis))]
        if is_well(as_worker):
            change = "for an edge, and for all checks of the doctor: the user `edge` of deploy/redis/users.acl"
            return [*as_worker, note("rights", f"those of a worker, not of an edge ({hear.seen})", change)]
    return [append, hear, see]


async def _try(what: str, work: Awaitable[None]) -> Finding:
    rights = f"these commands, keys ~{PREFIX}:* and channels &{PREFIX}:*"
    change = f"give the user the rights of deploy/redis/users.acl: {rights}"
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await work
    except NoPermissionError as error:
        return problem("rights", f"cannot {what}: {error}", change)
    except (RedisError, RuncastError, *GONE) as error:
        text = str(error) or type(error).__name__
        if "NOPERM" in text or "permission" in text:
            return problem("rights", f"cannot {what}: {text}", change)
        return problem("rights", f"cannot {what}: {text[:200]}", "see the findings about the server, and its log")
    return ok("rights", f"can {what}")


async def _append_and_read(redis: Redis) -> None:
    execution_id, owner = f"ex_doctor_{secrets.token_hex(6)}", Owner(USER)
    said = (ExecutionStarted(task="doctor", started_at=now_ms(), attempt=1), ExecutionComplete(result=None, duration=0))
    events = [prepare(event, execution_id, redact=Redactor()) for event in said]
    await append(redis, owner, execution_id, events, limits=LIMITS)
    if await redis.xlen(owner.execution(execution_id).log) != len(events):
        raise RuncastError("the event that was written did not come back")


async def _publish_and_hear(redis: Redis) -> None:
    channel = edge_channel(f"doctor-{secrets.token_hex(4)}") + channels_of(redis).suffix
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


async def _take_a_job(redis: Redis) -> None:
    agent = f"doctor-{secrets.token_hex(4)}"
    await jobs.ensure_group(redis, agent)
    await jobs.read(redis, [agent], "doctor", count=1, block_ms=10)
    await redis.delete(jobs_key(agent))


async def _read_announcements(redis: Redis) -> None:
    await redis.zrange(EDGES, 0, -1)
    await announcements.live_workers(redis)


async def list_live(url: str) -> list[Finding]:
    """The edges and workers that announce themselves now."""
    redis = connect(url)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            edges = await redis.zcount(EDGES, time.time() * 1000, "+inf")
            live = await announcements.live_workers(redis)
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
