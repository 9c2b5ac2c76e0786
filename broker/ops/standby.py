"""Looks after executions while no worker lives.

Workers take what other workers lost, end what a process left behind, and close questions whose time is over. Where all
of them are dead, or a deployment has none, the edges do it: so viewers hear that an execution waits for another worker,
instead of `running` and silence. The reaper's lock lets one of all edges at a time do the work.
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
"""A reaper that was not at work for half of its patience begins it anew."""


class Standby:
    """`run` until cancelled. A worker that comes back, or whose Redis does, has `lease_seconds` to say so before
    anything is taken from it."""

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
                was_needed, is_needed = is_needed, not await announcements.live_workers(self._redis)
                if is_needed:
                    await self._reaper.step()
                elif was_needed:
                    await self._reaper.release_lock()
            except (RedisError, *GONE) as error:
                self._log.warning("standby_failed", error=type(error).__name__)
