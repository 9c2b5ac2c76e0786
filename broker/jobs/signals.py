"""Tells those who wait for jobs that there may be some: one blocking read for all of an edge.

The read takes nothing (XREAD), so it can be ended at any time, and a job is never in the hands of an edge that has
nobody for it. Whoever is woken tries to take a job, as do those who are woken on other edges; one gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.base.logging import get_logger
from emitter import tasks
from emitter.backoff import backoff_seconds
from emitter.store.connection import GONE
from emitter.wire.keys import jobs_key

BLOCK_MS = 2_000
"""Below the client's socket timeout."""
READ_ENTRIES = 100
KEPT_SECONDS = 60.0
"""How long an agent is watched after the last who waited for its jobs."""


class Waiter:
    """One who waits for jobs of some agents. `woken` says that there may be one."""

    def __init__(self, agents: Collection[str]) -> None:
        self.agents = frozenset(agents)
        self.woken = asyncio.Event()


class JobSignals:
    """`with signals.waiting(agents) as waiter:`, while `run` runs."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._waiters: dict[Waiter, None] = {}  # those who came first are woken first
        self._places: dict[str, bytes] = {}
        self._left_at: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._log = get_logger()

    def __len__(self) -> int:
        return len(self._waiters)

    @contextlib.contextmanager
    def waiting(self, agents: Collection[str]) -> Iterator[Waiter]:
        waiter = Waiter(agents)
        self._waiters[waiter] = None
        for agent in waiter.agents:
            self._left_at.pop(agent, None)
            if agent not in self._places:
                self._places[agent] = b"0-0"
                self._changed.set()
        try:
            yield waiter
        finally:
            del self._waiters[waiter]
            now = asyncio.get_running_loop().time()
            for agent in waiter.agents:
                self._left_at[agent] = now
                if waiter.woken.is_set():  # it leaves without having tried
                    self._wake(agent, 1)

    def wake_all(self) -> None:
        for waiter in self._waiters:
            waiter.woken.set()

    async def run(self) -> None:
        failures = 0
        while not tasks.told_to_stop():
            try:
                await self._step()
                failures = 0
            except (RedisError, *GONE) as error:
                failures += 1
                self._log.warning("job_signals_lost", error=type(error).__name__)
                await asyncio.sleep(backoff_seconds(failures, first=0.05, most=2.0))

    async def _step(self) -> None:
        self._forget()
        if not self._places:
            await self._changed.wait()
        self._changed.clear()
        reading = asyncio.create_task(self._read(), name="job-signals-read")
        changing = asyncio.create_task(self._changed.wait(), name="job-signals-change")
        try:
            await asyncio.wait((reading, changing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.end([changing] if reading.done() else [changing, reading])
        if not reading.cancelled():
            reading.result()

    async def _read(self) -> None:
        streams = {jobs_key(agent): place for agent, place in self._places.items()}
        reply = await self._redis.xread(streams, count=READ_ENTRIES, block=BLOCK_MS)
        names = {jobs_key(agent).encode(): agent for agent in self._places}
        for key, entries in reply or ():
            agent = names[key]
            self._places[agent] = entries[-1][0]
            self._wake(agent, len(entries))

    def _wake(self, agent: str, count: int) -> None:
        for waiter in self._waiters:
            if count and agent in waiter.agents and not waiter.woken.is_set():
                waiter.woken.set()
                count -= 1

    def _forget(self) -> None:
        """Stop watching agents for which nobody has waited for a while."""
        now = asyncio.get_running_loop().time()
        wanted = {agent for waiter in self._waiters for agent in waiter.agents}
        for agent, left_at in list(self._left_at.items()):
            if agent in wanted:
                del self._left_at[agent]
            elif now - left_at > KEPT_SECONDS:
                del self._left_at[agent]
                self._places.pop(agent, None)
