"""The health of Redis, from `INFO` of its servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from broker.ops.types import OpsRedis, RedisNode

Mode = Literal["standalone", "sentinel", "cluster"]


class ServerInfo(NamedTuple):
    """The answer of one server."""

    address: str
    ping_ms: float
    info: Mapping[str, Any]


async def read(redis: Redis) -> OpsRedis:
    """The health of all servers as one value. Raises what `ask` raises."""
    is_cluster = isinstance(redis, RedisCluster)
    is_sentinel = not is_cluster and isinstance(redis.connection_pool, SentinelConnectionPool)
    mode: Mode = "cluster" if is_cluster else "sentinel" if is_sentinel else "standalone"
    return summary(mode, [node_of(*told) for told in await ask(redis)])


async def ask(redis: Redis) -> list[ServerInfo]:
    """Ask every primary once. Those of a Cluster that do not answer are left out, if at least one answers. Raises what
    a call to Redis raises; bounded by the client's timeouts."""
    if isinstance(redis, RedisCluster):
        await redis.initialize()  # its client knows no node before its first command
        asked = [_ask_one(redis, partial(str, node.name), node) for node in redis.get_primaries()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told = [answer for answer in answers if isinstance(answer, ServerInfo)]
        if not told:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        return told
    # Behind Sentinel, which server it is is known only after a call was answered.
    return [await _ask_one(redis, partial(address, redis.connection_pool))]


async def _ask_one(redis: Any, where: Callable[[], str], node: Any = None) -> ServerInfo:
    target = {} if node is None else {"target_nodes": node}
    started = time.perf_counter()
    await redis.execute_command("PING", **target)
    ping_ms = (time.perf_counter() - started) * 1000
    info = await redis.execute_command("INFO", **target)
    return ServerInfo(where(), ping_ms, info)


def address(pool: Any) -> str:
    """Host and port of a client's server, for people; never its password."""
    host, port = getattr(pool, "master_address", None) or (None, None)
    given = pool.connection_kwargs
    if host is None:
        host, port = given.get("host"), given.get("port", 6379)
    if host is None:
        return str(given.get("path", ""))
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def node_of(name: str, ping_ms: float, info: Mapping[str, Any]) -> RedisNode:
    """A server's INFO. A field that a managed service leaves out is 0 or None."""
    is_valkey = "valkey_version" in info
    return RedisNode(
        address=name,
        server="valkey" if is_valkey else "redis",
        version=str(info.get("valkey_version" if is_valkey else "redis_version", "")),
        role="primary" if info.get("role", "master") == "master" else "replica",
        used_memory_bytes=int(info.get("used_memory", 0)),
        max_memory_bytes=int(info.get("maxmemory", 0)),
        eviction_policy=str(info.get("maxmemory_policy", "")),
        connected_clients=int(info.get("connected_clients", 0)),
        ops_per_second=int(info.get("instantaneous_ops_per_sec", 0)),
        ping_ms=round(ping_ms, 2),
        replicas=int(info.get("connected_slaves", 0)),
        evicted_keys=int(info.get("evicted_keys", 0)),
        uptime_seconds=int(info.get("uptime_in_seconds", 0)),
    )


def summary(mode: Mode, nodes: Sequence[RedisNode]) -> OpsRedis:
    """All nodes as one. If one node has no memory limit, the sum has none."""
    limits = [node.max_memory_bytes for node in nodes]
    return OpsRedis(
        up=True,
        mode=mode,
        version=" ".join(sorted({node.version for node in nodes})),
        used_memory_bytes=sum(node.used_memory_bytes for node in nodes),
        max_memory_bytes=sum(limits) if all(limits) else 0,
        eviction_policy=" ".join(sorted({node.eviction_policy for node in nodes})),
        connected_clients=sum(node.connected_clients for node in nodes),
        ops_per_second=sum(node.ops_per_second for node in nodes),
        ping_ms=max((node.ping_ms for node in nodes), default=None),
        role="replica" if any(node.role == "replica" for node in nodes) else "primary",
        nodes=list(nodes),
    )
