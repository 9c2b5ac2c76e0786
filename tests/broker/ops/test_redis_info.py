"""What is told of Redis, on every topology."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from broker.ops import redis_info
from broker.ops.redis_info import address, node_of, summary
from broker.ops.snapshot import OpsSnapshotBuilder
from broker.ops.types import EdgeInfo
from emitter.store.connection import connect
from tests.e2e.test_topologies import sentinel, sharded


async def test_one_server(own_redis: EmbeddedRedis) -> None:
    """A server tells its kind, version, role, memory with its limit, clients and pace, and how fast it answers."""
    redis = connect(own_redis.url)
    await redis.config_set("maxmemory", "64mb")
    info: Any = await redis.info()
    health = await redis_info.read(redis)
    await redis.aclose()
    assert (health.up, health.mode, health.role, health.error) == (True, "standalone", "primary", None)
    assert health.version == info.get("valkey_version", info["redis_version"])
    assert health.used_memory_bytes is not None
    assert 100_000 < health.used_memory_bytes < 64_000_000
    assert (health.max_memory_bytes, health.eviction_policy) == (64 * 1024 * 1024, "noeviction")
    assert health.connected_clients == 1
    assert health.ping_ms is not None
    assert 0 < health.ping_ms < 5000
    (node,) = health.nodes
    assert node.address == str(own_redis.socket_path)
    assert node.server == ("valkey" if "valkey_version" in info else "redis")


@pytest.mark.parametrize(("topology", "mode"), [(sentinel, "sentinel"), (sharded, "cluster")])
async def test_every_topology(topology: Callable[[], AbstractContextManager[str]], mode: str) -> None:
    """Behind Sentinel, and in a cluster, the nodes are named, and a whole snapshot is to be had."""
    with topology() as url:
        redis: Any = connect(url)
        try:
            async with asyncio.timeout(20):
                snapshot = await OpsSnapshotBuilder(redis, lambda: EdgeInfo(id="e1")).collect()
        finally:
            await redis.aclose()
            if mode == "sentinel":  # whose own connections the client leaves open
                await redis.connection_pool.sentinel_manager.aclose()
    assert (snapshot.redis.up, snapshot.redis.mode, snapshot.redis.error) == (True, mode, None)
    addresses = [node.address for node in snapshot.redis.nodes]
    assert len(addresses) == {"sentinel": 1, "cluster": 3}[mode]
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    assert {node.role for node in snapshot.redis.nodes} == {"primary"}
    if mode == "cluster":
        assert url.removeprefix("redis+cluster://") in addresses
    assert [edge.id for edge in snapshot.edges] == ["e1"]


def test_a_cluster_is_summed_up() -> None:
    """Memory, clients and pace of all nodes are added, the slowest ping is told, and each difference in version."""
    base = {"redis_version": "7.2.0", "used_memory": 10, "maxmemory": 100, "connected_clients": 2, "role": "master",
            "instantaneous_ops_per_sec": 5, "maxmemory_policy": "noeviction"}  # fmt: skip
    one = node_of("a:1", 0.5, base)
    two = node_of("b:1", 1.5, {**base, "redis_version": "7.4.0", "maxmemory": 50})
    health = summary("cluster", [one, two])
    assert (health.used_memory_bytes, health.max_memory_bytes) == (20, 150)
    assert (health.connected_clients, health.ops_per_second, health.ping_ms) == (4, 10, 1.5)
    assert (health.version, health.eviction_policy) == ("7.2.0 7.4.0", "noeviction")
    assert [node.address for node in health.nodes] == ["a:1", "b:1"]
    unlimited = node_of("c:1", 1.0, {**base, "maxmemory": 0})
    assert summary("cluster", [one, unlimited]).max_memory_bytes == 0


def test_a_demoted_primary_is_told() -> None:
    """Where the server that should be the primary says that it is a replica, that is what is told."""
    assert summary("standalone", [node_of("a:1", 1.0, {"role": "slave"})]).role == "replica"


def test_what_a_service_leaves_out_is_nothing() -> None:
    """A managed service that hides parts of INFO is told without them."""
    node = node_of("a:1", 1.0, {})
    assert (node.server, node.version, node.role, node.used_memory_bytes) == ("redis", "", "primary", 0)


def test_valkey_is_called_valkey() -> None:
    """A Valkey tells its own version, not that of the Redis it is compatible with."""
    node = node_of("a:1", 1.0, {"redis_version": "7.2.4", "valkey_version": "9.1.2"})
    assert (node.server, node.version) == ("valkey", "9.1.2")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://user:secret@cache.example:6380/1", "cache.example:6380"),
        ("redis://[::1]:6379", "[::1]:6379"),
        ("rediss://:secret@cache.example", "cache.example:6379"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("redis+sentinel://:secret@watcher:26379/mymaster", ""),
    ],
)
async def test_an_address_has_no_secret(url: str, expected: str) -> None:
    """A server's address is host and port, or its socket; behind Sentinel nothing until it is known."""
    client: Redis = connect(url)
    assert address(client.connection_pool) == expected
    await client.aclose()
