"""The jobs that a worker has read and not claimed yet: new ones, and those of workers that died."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from emitter.store import jobs
from emitter.store.jobs import Entry

CROWDED_BLOCK_MS = 250


class JobPrefetch:
    """`fetch` reads into `entries`. The worker removes an entry after Redis has answered its claim, so that a lost
    connection loses no job. `block_ms` is how long a read waits for a job."""

    def __init__(self, redis: Redis, agents: Sequence[str], worker: str, *, lease_ms: int, block_ms: int) -> None:
        self.entries: deque[Entry] = deque()
        self._redis = redis
        self._agents = deque(agents)
        self._worker = worker
        self._lease_ms = lease_ms
        self._block_ms = block_ms
        self._grouped = False
        self._recovery_due = 0.0

    async def fetch(self, free: int) -> None:
        """Read at most `free` jobs; wait for the first. A worker that only has schedules waits for none."""
        if not self._agents:
            await asyncio.sleep(self._block_ms / 1000)
            return
        if not self._grouped:
            for agent in self._agents:
                await jobs.ensure_group(self._redis, agent)
            self._grouped = True
        try:
            await self._recover(free)
            if not self.entries:
                await self._read(free)
        except ResponseError as error:
            self._grouped = not str(error).startswith("NOGROUP")  # Redis came back empty
            raise

    async def requeue(self) -> None:
        """Offer the entries to other workers now; otherwise these would recover them only after the lease time."""
        while self.entries:
            await jobs.requeue(self._redis, self.entries[0])
            self.entries.popleft()

    async def _read(self, free: int) -> None:
        """Redis counts per stream. With fewer slots than agents the agents therefore take turns: a job that is read
        and finds no slot would be kept from workers with a free slot."""
        self._agents.rotate(-1)
        agents = list(self._agents)[:free]
        block_ms = self._block_ms if len(agents) == len(self._agents) else min(self._block_ms, CROWDED_BLOCK_MS)
        count = free // len(agents)
        self.entries += await jobs.read(self._redis, agents, self._worker, count=count, block_ms=block_ms)

    async def _recover(self, free: int) -> None:
        """Once per lease time, take over jobs whose worker read them and died before it claimed them."""
        if time.monotonic() < self._recovery_due:
            return
        for agent in self._agents:
            if len(self.entries) < free:
                count, idle_ms = free - len(self.entries), self._lease_ms + 1000
                self.entries += await jobs.recover(self._redis, agent, self._worker, idle_ms=idle_ms, count=count)
        self._recovery_due = time.monotonic() + self._lease_ms / 1000 * random.uniform(0.8, 1.2)
