"""What the tests of workers that die or stand still share."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import tasks
from emitter.events import TERMINAL_STATES, Event
from emitter.store.append import LogLimits
from emitter.store.connection import connect
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire import keys
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import Owner, jobs_key
from emitter.wire.redact import Redactor
from tests.edges import Received, read_log
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
ALICE = Owner("alice")


class Stand:
    """A Redis of its own, and what a test does to the workers on it."""

    def __init__(self, server: EmbeddedRedis, redis: Redis) -> None:
        self.url = server.url
        self.redis: Any = redis
        self.lifecycle = Lifecycle(redis, LogLimits(), Redactor())
        self.workers: list[WorkerProcess] = []
        self._numbers = itertools.count(1)

    def worker(self, **options: Any) -> WorkerProcess:
        options = {"lease_seconds": 1, "grace_seconds": 0, **options}
        worker = WorkerProcess(self.url, "faulty_agents:agents", HERE, **options)
        self.workers.append(worker)
        return worker

    def replace_dead(self, workers: int, **options: Any) -> None:
        """So many workers, in the place of those that have died."""
        for worker in [worker for worker in self.workers if not worker.alive]:
            worker.close()
            self.workers.remove(worker)
        while len(self.workers) < workers:
            self.worker(**options)

    @contextlib.asynccontextmanager
    async def kept_up(self, workers: int) -> AsyncIterator[None]:
        """Workers that have died are replaced, as by a supervisor."""

        async def supervise() -> None:
            while True:
                self.replace_dead(workers)
                await asyncio.sleep(0.1)

        supervising = asyncio.create_task(supervise())
        try:
            yield
        finally:
            await tasks.end([supervising])

    async def accept(self, agent: str, **params: Any) -> str:
        execution_id = f"ex_{next(self._numbers)}"
        assert await self.lifecycle.accept(ALICE, execution_id, Start(task="t", agent=agent, params=params))
        return execution_id

    async def log(self, execution_id: str) -> list[tuple[int, Event]]:
        rows: Any = await self.redis.xrange(ALICE.execution(execution_id).log)
        return [(int(id_.split(b"-")[1]), decode_envelope(next(iter(fields.values())))[1]) for id_, fields in rows]

    async def written(self, execution_id: str) -> list[Received]:
        """The log as it is stored, for `tests.faults.chaos.invariants`."""
        return await read_log(self.redis, ALICE.execution(execution_id).log)

    async def events(self, execution_id: str) -> list[Event]:
        return [event for _, event in await self.log(execution_id)]

    async def state(self, execution_id: str) -> str:
        stored = await self.redis.hget(ALICE.execution(execution_id).record, "state")
        return stored.decode()

    async def until(self, execution_id: str, type_: type[Event], seconds: float = 45.0) -> Any:
        """Wait for the first event of a type."""
        key, last = ALICE.execution(execution_id).log, "0"
        async with asyncio.timeout(seconds):
            while True:
                for _, rows in await self.redis.xread({key: last}, block=500) or []:
                    for id_, fields in rows:
                        last = id_
                        event = decode_envelope(next(iter(fields.values())))[1]
                        if isinstance(event, type_):
                            return event

    async def all_ended(self, execution_ids: Sequence[str], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            waiting = list(execution_ids)
            while waiting:
                pipe = self.redis.pipeline(transaction=False)
                for execution_id in waiting:
                    pipe.hget(ALICE.execution(execution_id).record, "state")
                states = await pipe.execute()
                ended = [state.decode() in TERMINAL_STATES for state in states]
                waiting = [name for name, done in zip(waiting, ended, strict=True) if not done]
                await asyncio.sleep(0.1)

    async def nothing_left(self) -> None:
        """No job, no lease, nothing pending: whatever was looked after has been let go."""
        async with asyncio.timeout(30):
            while await self.redis.zcard(keys.DUE) or await self.redis.hlen(keys.QUEUED):
                await asyncio.sleep(0.05)
        for agent in ("steady", "killer"):
            assert await self.redis.xlen(jobs_key(agent)) == 0


@pytest.fixture
async def stand(own_redis: EmbeddedRedis) -> AsyncIterator[Stand]:
    redis = connect(own_redis.url)
    stand = Stand(own_redis, redis)
    yield stand
    for worker in stand.workers:
        worker.close()
    await redis.aclose()
