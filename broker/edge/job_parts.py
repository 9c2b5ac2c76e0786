"""What an edge does for workers over HTTP, put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.base.settings import Settings
from broker.edge.serving import owned
from broker.http.gateway import Gateway
from broker.http.jobs import JobsApi
from broker.jobs.claims import Claims
from broker.jobs.fences import Fences
from broker.jobs.held import HeldJobs
from broker.jobs.leases import Leases
from broker.jobs.signals import JobSignals
from broker.jobs.waiting import WaitingJobs
from emitter.store.append import limits_of
from emitter.store.control import ControlChannel
from emitter.store.lifecycle import Lifecycle
from emitter.wire.redact import Redactor


class JobParts:
    """The parts, over one client."""

    def __init__(self, redis: Redis, settings: Settings, metrics: Metrics) -> None:
        self._redis, self._metrics, self._lease_seconds = redis, metrics, settings.lease_seconds
        self.signals, self.control = JobSignals(redis), ControlChannel(redis)
        self._fences, self._held = Fences(redis), HeldJobs(redis)
        shared = (self._fences, self._held, metrics, settings.lease_seconds)
        lifecycle = Lifecycle(redis, limits_of(settings), Redactor(settings.redact_keys))
        self._claims = Claims(redis, lifecycle, self.signals, *shared)
        self._leases = Leases(redis, lifecycle, self.control, *shared)

    def api(self, gateway: Gateway) -> JobsApi:
        shared = (self._fences, self._held, self._metrics, self._lease_seconds)
        return JobsApi(self._redis, gateway, self._claims, self._leases, *shared)

    def drain(self) -> None:
        """Answer the workers that wait, so that they ask another edge."""
        self._claims.drain()
        self._leases.draining.set()


@contextlib.asynccontextmanager
async def job_parts(redis: Redis, settings: Settings, metrics: Metrics) -> AsyncIterator[JobParts]:
    parts = JobParts(redis, settings, metrics)
    waiting = WaitingJobs(redis, metrics)
    async with owned(parts.signals.run(), "job-signals"), owned(waiting.run(), "jobs-waiting"):
        yield parts
    await parts.control.aclose()
