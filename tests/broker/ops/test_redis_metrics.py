"""What an edge's metrics say of Redis."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.cli.embedded import EmbeddedRedis
from broker.ops.redis_metrics import RedisMetrics
from emitter.store.connection import connect


def nodes(metrics: Metrics, name: str) -> dict[str, float]:
    """A metric's value for each server."""
    return {
        sample.labels["node"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"runcast_redis_{name}"
    }


def is_up(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("runcast_redis_up")


async def test_what_redis_says(own_redis: EmbeddedRedis) -> None:
    """Memory with its limit, clients and what waits for them, by server; nothing before it was asked."""
    redis: Any = connect(own_redis.url)
    metrics = Metrics()
    asking = RedisMetrics(redis, metrics)
    assert is_up(metrics) is None
    assert nodes(metrics, "memory_used_bytes") == {}
    await redis.config_set("maxmemory", "64mb")
    await asking.look()
    await redis.aclose()
    node = str(own_redis.socket_path)
    assert is_up(metrics) == 1
    assert nodes(metrics, "memory_max_bytes") == {node: 64 * 1024 * 1024}
    assert 100_000 < nodes(metrics, "memory_used_bytes")[node] < 64_000_000
    assert nodes(metrics, "clients") == {node: 1}
    assert nodes(metrics, "evicted_keys_total") == {node: 0}
    assert nodes(metrics, "largest_output_buffer_bytes")[node] >= 0
    assert nodes(metrics, "clients_memory_bytes")[node] >= 0


async def test_what_waits_for_a_subscriber_that_does_not_read(own_redis: EmbeddedRedis) -> None:
    """The memory of clients holds the output of one that takes nothing: what an edge that hangs looks like."""
    redis: Any = connect(own_redis.url)
    metrics = Metrics()
    asking = RedisMetrics(redis, metrics)
    deaf: Any = redis.pubsub()
    await deaf.subscribe("c")
    for _ in range(40):
        await redis.publish("c", b"x" * 100_000)
    waiting = 0.0
    async with asyncio.timeout(20):
        while waiting <= 1_000_000:  # it counts a client's memory a few times a second
            await asking.look()
            ((_, waiting),) = nodes(metrics, "clients_memory_bytes").items()
            await asyncio.sleep(0.01)
    await deaf.aclose()
    await redis.aclose()


async def test_a_server_that_is_away_has_no_figures(own_redis: EmbeddedRedis) -> None:
    """Old figures of a server that does not answer would look like good news; they come back with it."""
    redis = connect(own_redis.url)
    metrics = Metrics()
    asking = RedisMetrics(redis, metrics)
    await asking.look()
    own_redis.stop()
    await asking.look()
    assert is_up(metrics) == 0
    assert nodes(metrics, "memory_used_bytes") == {}
    own_redis.start()
    await asking.look()
    assert is_up(metrics) == 1
    assert nodes(metrics, "memory_used_bytes")
    await redis.aclose()


async def test_a_user_who_may_not_ask(own_redis: EmbeddedRedis) -> None:
    """Redis is up although it refuses to tell how it is."""
    redis: Any = connect(own_redis.url)
    await redis.execute_command("ACL", "SETUSER", "nosy", "on", "nopass", "~*", "&*", "+ping", "+client", "+hello")
    nosy = Redis(unix_socket_path=str(own_redis.socket_path), username="nosy", password="any")
    metrics = Metrics()
    await RedisMetrics(nosy, metrics).look()
    await nosy.aclose()
    await redis.aclose()
    assert is_up(metrics) == 1
    assert nodes(metrics, "memory_used_bytes") == {}


async def test_what_a_server_does_not_tell_is_missing() -> None:
    """It is no zero: an alert on it does not pretend to watch."""

    class Quiet:
        connection_pool = type("Pool", (), {"connection_kwargs": {"host": "h", "port": 1}})()

        async def execute_command(self, command: str) -> Any:
            return {"used_memory": 5} if command == "INFO" else None

    quiet: Any = Quiet()
    metrics = Metrics()
    await RedisMetrics(quiet, metrics).look()
    assert nodes(metrics, "memory_used_bytes") == {"h:1": 5}
    assert nodes(metrics, "evicted_keys_total") == nodes(metrics, "output_buffer_cuts_total") == {}
