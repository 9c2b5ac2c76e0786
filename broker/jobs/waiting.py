"""How many jobs of each agent wait, among the metrics of an edge: workers over HTTP cannot be scraped themselves. All
edges of an installation have the same values, and so do workers that have one of these agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.base.metrics import Metrics
from emitter.store import announcements, jobs
from emitter.store.connection import GONE

EVERY_SECONDS = 5.0
MAX_AGENTS = 500
"""Of which there are series: names come from the workers."""


class WaitingJobs(Collector):
    """`run()` asks from time to time. An agent of which no worker over HTTP lives has no series, as with workers that
    are scraped: what waits for it is in an alert about the agent."""

    def __init__(self, redis: Redis, metrics: Metrics) -> None:
        self._redis = redis
        self._found: Mapping[str, int] = {}
        metrics.registry.register(self)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Ask once. Raises no Redis errors."""
        try:
            workers = [worker for worker in await announcements.live_workers(self._redis) if worker.over_http]
            agents = sorted({agent.name for worker in workers for agent in worker.agents})[:MAX_AGENTS]
            self._found = await jobs.waiting(self._redis, agents) if agents else {}
        except (RedisError, *GONE):
            self._found = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        help_ = "Jobs that wait for a worker, by agent (the same on every edge and worker)"
        family = GaugeMetricFamily("runcast_jobs_waiting", help_, labels=["agent"])
        for agent, count in self._found.items():
            family.add_metric([agent], count)
        yield family
