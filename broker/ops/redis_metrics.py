"""Fields of Redis' `INFO` among the metrics of an edge, so that a full server is noticed without an exporter. All edges
of an installation have the same values; the label `node` is a server's address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from broker.base.metrics import Metrics
from broker.ops.redis_info import ServerInfo, ask
from emitter.store.connection import GONE

EVERY_SECONDS = 10.0
ANSWER_SECONDS = 3.0


class Fact(NamedTuple):
    """A metric, and its field of `INFO`."""

    name: str
    field: str
    help: str


GAUGES = (
    Fact("memory_used_bytes", "used_memory", "Memory that Redis has allocated, buffers of its clients included"),
    Fact("memory_max_bytes", "maxmemory", "Memory that Redis may allocate; 0 is no limit"),
    Fact("clients", "connected_clients", "Connections, those of replicas apart"),
    Fact("clients_memory_bytes", "mem_clients_normal", "Memory of these connections, most of it output that waits"),
    Fact("largest_output_buffer_bytes", "client_recent_max_output_buffer", "Most that waited for one client lately"),
    Fact("replicas", "connected_slaves", "Replicas that follow"),
)
COUNTERS = (
    Fact("commands", "total_commands_processed", "Commands, those of scripts included"),
    Fact("net_output_bytes", "total_net_output_bytes", "Bytes sent to clients and replicas"),
    Fact("evicted_keys", "evicted_keys", "Keys thrown away for want of memory: lost logs"),
    Fact("output_buffer_cuts", "client_output_buffer_limit_disconnections", "Clients cut off as too much waited"),
)


class RedisMetrics(Collector):
    """`run()` asks every primary from time to time; the last answers are rendered with other metrics. A field that a
    server does not have (an old one, or a managed one) has no series, and neither has a server that is away."""

    def __init__(self, redis: Redis, metrics: Metrics) -> None:
        self._redis = redis
        self._is_up: bool | None = None
        self._found: Sequence[ServerInfo] = ()
        metrics.registry.register(self)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Ask once. Raises no Redis errors."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._found = await ask(self._redis)
            self._is_up = True
        except ResponseError:  # it answers, but this user must not call INFO
            self._found, self._is_up = (), True
        except (RedisError, *GONE):
            self._found, self._is_up = (), False

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        if self._is_up is None:
            return
        yield GaugeMetricFamily("runcast_redis_up", "Whether Redis answered when last asked", value=self._is_up)
        for family, facts in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for fact in facts:
                metric = family(f"runcast_redis_{fact.name}", fact.help, labels=["node"])
                for server in self._found:
                    if fact.field in server.info:
                        metric.add_metric([server.address], float(server.info[fact.field]))
                yield metric
