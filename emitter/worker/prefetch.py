"""The jobs a worker has read and not claimed yet: new ones, and those that a worker died over."""

from __future__ import annotations

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
    """`fill` reads into `entries`; the worker takes an entry out once its claim is answered, so that a lost connection
    in between loses no job. `block_ms` is how long a read waits for one."""

    def __init__(self, redis: Redis, agents: Sequence[str], worker: str, *, lease_ms: int, block_ms: int) -> None:
        self.entries: deque[Entry] = deque()
        self._redis = redis
        self._agents = deque(agents)
        self._worker = worker
        self._lease_ms = lease_ms
        self._block_ms = block_ms
        self._grouped = False
        self._recovery_due = 0.0

    async def fill(self, free: int) -> None:
        """Read at most `free` jobs, waiting for the first."""
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

    async def give_back(self) -> None:
        """Leave to another worker, now, what would else be found waiting only after the lease time."""
        while self.entries:
            await jobs.put_back(self._redis, self.entries[0])
            self.entries.popleft()

    async def _read(self, free: int) -> None:
        """Redis counts per stream, so with fewer slots than agents these take turns: a job that was read and finds no
        slot would be kept from workers that have one."""
        self._agents.rotate(-1)
        agents = list(self._agents)[:free]
        block_ms = self._block_ms if len(agents) == len(self._agents) else min(self._block_ms, CROWDED_BLOCK_MS)
        count = free // len(agents)
        self.entries += await jobs.read(self._redis, agents, self._worker, count=count, block_ms=block_ms)

    async def _recover(self, free: int) -> None:
        """Once per lease time: the jobs that a worker read and died before it claimed them."""
        if time.monotonic() < self._recovery_due:
            return
        for agent in self._agents:
            if len(self.entries) < free:
                count, idle_ms = free - len(self.entries), self._lease_ms + 1000
                self.entries += await jobs.recover(self._redis, agent, self._worker, idle_ms=idle_ms, count=count)
        self._recovery_due = time.monotonic() + self._lease_ms / 1000 * random.uniform(0.8, 1.2)
