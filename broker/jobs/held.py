"""What each worker over HTTP has: by it an edge answers a claim again whose answer was lost, and enforces limits.

The executions' records decide; this is a hint, which may have more than is true, and less after a crash.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from redis.asyncio import Redis

from emitter.store.jobs import SUSPECT_PLACES
from emitter.wire.keys import held_jobs_key

KEPT_SECONDS = 86_400


class HeldJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A claimed job. Times in ms by the clock of Redis, limits in seconds. `apart_until`: until then it takes
    `suspect_places`. `cancelled_at`: when the worker was first told of a cancel."""

    agent: str
    attempt: int
    claimed_at: int
    max_attempts: int = 3
    time_limit: float | None = None
    idle_limit: float | None = None
    apart_until: int = 0
    suspect_places: int = SUSPECT_PLACES
    cancelled_at: int = 0


class HeldJobs:
    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def all(self, worker: str) -> dict[str, HeldJob]:
        """By `member`. Whoever asks keeps them: a worker with long jobs may claim nothing for days."""
        key = held_jobs_key(worker)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(key)
            pipe.pexpire(key, KEPT_SECONDS * 1000)
            rows, _ = await pipe.execute()
        return {name.decode(): held for name, text in rows.items() if (held := _read(text)) is not None}

    async def put(self, worker: str, jobs: Mapping[str, HeldJob]) -> None:
        key = held_jobs_key(worker)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping={name: msgspec.json.encode(held) for name, held in jobs.items()})
            pipe.pexpire(key, KEPT_SECONDS * 1000)
            await pipe.execute()

    async def drop(self, worker: str, names: Collection[str]) -> None:
        if names:
            await self._redis.hdel(held_jobs_key(worker), *names)


def _read(text: bytes) -> HeldJob | None:
    try:
        return msgspec.json.decode(text, type=HeldJob)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
