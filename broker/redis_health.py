"""How Redis is, from what its servers say of themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from broker.ops_types import OpsRedis, RedisNode

Mode = Literal["standalone", "sentinel", "cluster"]


async def look(redis: Redis) -> OpsRedis:
    """Ask every primary once. Raises what a call to Redis raises; bounded by the client's timeouts."""
    if isinstance(redis, RedisCluster):
        await redis.initialize()  # its client knows no node before its first command
        primaries = redis.get_primaries()
        return summary("cluster", [await _look_at(redis, partial(str, node.name), node) for node in primaries])
    pool = redis.connection_pool
    mode: Mode = "sentinel" if isinstance(pool, SentinelConnectionPool) else "standalone"
    # Behind Sentinel only a call that was answered tells which server it is.
    return summary(mode, [await _look_at(redis, partial(address, pool))])


async def _look_at(redis: Any, where: Callable[[], str], node: Any = None) -> RedisNode:
    target = {} if node is None else {"target_nodes": node}
    started = time.perf_counter()
    await redis.execute_command("PING", **target)
    ping_ms = (time.perf_counter() - started) * 1000
    info = await redis.execute_command("INFO", **target)
    return node_of(where(), ping_ms, info)


def address(pool: Any) -> str:
    """Where a client's server is, as people write it; never its password."""
    host, port = getattr(pool, "master_address", None) or (None, None)
    given = pool.connection_kwargs
    if host is None:
        host, port = given.get("host"), given.get("port", 6379)
    if host is None:
        return str(given.get("path", ""))
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def node_of(name: str, ping_ms: float, info: Mapping[str, Any]) -> RedisNode:
    """A server's INFO. What a managed service leaves out counts as 0, or as nothing."""
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
    """All nodes as one. Without a limit of memory somewhere there is none."""
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
