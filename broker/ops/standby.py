"""Looks after executions while no worker lives.

Workers take over executions of lost workers, end those that a process left, and close inputs that have expired. If no
such worker lives (workers over HTTP do none of it), the edges do it: viewers then see that an execution waits for
another worker, instead of `running` and silence. The reaper's lock lets one edge at a time do the work.
"""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from emitter.store import announcements
from emitter.store.connection import GONE
from emitter.store.lifecycle import Lifecycle
from emitter.store.reaper import Reaper

LOOK_SECONDS = 5.0
STEP_SECONDS = 1.0
PATIENCE_SECONDS_MIN = 5 * STEP_SECONDS
"""A reaper that was stopped for half of its patience waits the whole of it again."""


class Standby:
    """`run` until cancelled. A worker that comes back, or whose Redis does, has `lease_seconds` to announce itself
    before anything is taken from it."""

    def __init__(
        self, redis: Redis, edge: str, lifecycle: Lifecycle, lease_seconds: float, log: FilteringBoundLogger
    ) -> None:
        self._redis = redis
        self._reaper = Reaper(redis, lifecycle, edge, max(lease_seconds, PATIENCE_SECONDS_MIN))
        self._log = log

    async def run(self) -> None:
        is_needed = False
        while True:
            await asyncio.sleep(STEP_SECONDS if is_needed else LOOK_SECONDS)
            try:
                was_needed, is_needed = is_needed, not await self._has_reapers()
                if is_needed:
                    await self._reaper.step()
                elif was_needed:
                    await self._reaper.release_lock()
            except (RedisError, *GONE) as error:
                self._log.warning("standby_failed", error=type(error).__name__)

    async def _has_reapers(self) -> bool:
        return any(not worker.over_http for worker in await announcements.live_workers(self._redis))
