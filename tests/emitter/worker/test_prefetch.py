"""What a worker reads from the queue, against a real server."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from emitter.store import jobs
from emitter.wire.keys import JOBS_GROUP, Owner, jobs_key
from emitter.worker.prefetch import JobPrefetch

ALICE = Owner("alice")


def prefetch(redis: Redis, *agents: str, worker: str = "w1", lease_ms: int = 60_000) -> JobPrefetch:
    return JobPrefetch(redis, agents, worker, lease_ms=lease_ms, block_ms=50)


async def test_no_more_is_read_than_there_are_slots(redis: Redis) -> None:
    """However many agents have jobs waiting, one fetch takes at most the free slots, and the agents take turns."""
    for agent in ("a", "b", "c"):
        for n in range(3):
            await jobs.enqueue(redis, ALICE, f"{agent}{n}", agent)
    taken: list[str] = []
    reader = prefetch(redis, "a", "b", "c")
    for free in (2, 1, 1, 4):
        await reader.fetch(free)
        assert len(reader.entries) <= free
        taken += [entry.agent for entry in reader.entries]
        reader.entries.clear()
    assert min(Counter(taken)[agent] for agent in ("a", "b", "c")) >= 2


async def test_what_was_read_and_not_claimed_is_given_back(redis: Redis) -> None:
    """`requeue` leaves nothing behind, and another worker can read it at once."""
    await jobs.enqueue(redis, ALICE, "ex_1", "a")
    first, second = prefetch(redis, "a", worker="w1"), prefetch(redis, "a", worker="w2")
    await first.fetch(5)
    await second.fetch(5)
    assert ([entry.execution_id for entry in first.entries], list(second.entries)) == (["ex_1"], [])
    await first.requeue()
    await second.fetch(5)
    assert ([entry.execution_id for entry in second.entries], list(first.entries)) == (["ex_1"], [])


async def test_jobs_of_a_dead_worker_are_recovered_at_the_first_fill(redis: Redis) -> None:
    """A worker that starts looks for what another one died over, and leaves what is merely young."""
    for execution_id in ("ex_old", "ex_young"):
        await jobs.enqueue(redis, ALICE, execution_id, "a")
    dead = prefetch(redis, "a", worker="dead")
    await dead.fetch(2)
    old = dead.entries[0]
    await redis.xclaim(jobs_key("a"), JOBS_GROUP, "dead", 0, [old.id], idle=120_000)
    reader = prefetch(redis, "a")
    await reader.fetch(5)
    assert list(reader.entries) == [old]


async def test_an_emptied_redis_gets_its_groups_again(redis: Redis) -> None:
    """When the stream is gone, one fetch fails, and the next one has made it anew."""
    reader = prefetch(redis, "a")
    async with asyncio.timeout(5):
        await reader.fetch(1)
        await redis.flushall()
        with pytest.raises(ResponseError, match="NOGROUP"):
            await reader.fetch(1)
        await jobs.enqueue(redis, ALICE, "ex_1", "a")
        await reader.fetch(1)
    assert [entry.execution_id for entry in reader.entries] == ["ex_1"]
