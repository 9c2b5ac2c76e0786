"""Those who wait for jobs are woken when there is one, in the order in which they came, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from broker.jobs.signals import JobSignals
from emitter import tasks
from emitter.store import jobs
from emitter.wire.keys import Owner

ALICE = Owner("alice")


@pytest.fixture
async def signals(redis: Redis) -> AsyncIterator[JobSignals]:
    found = JobSignals(redis)
    task = asyncio.create_task(found.run())
    yield found
    await tasks.end([task])


async def woken(waiter: object, seconds: float = 3) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return bool(await waiter.woken.wait())  # type: ignore[attr-defined]
    return False


async def test_a_job_wakes_the_first_of_its_agent(signals: JobSignals, redis: Redis) -> None:
    """One job wakes one who waits for its agent, the one who came first; the next job the next."""
    with signals.waiting(["b"]) as other, signals.waiting(["a", "b"]) as first, signals.waiting(["a"]) as second:
        await jobs.enqueue(redis, ALICE, "ex_1", "a")
        assert await woken(first)
        assert not await woken(second, 0.2)
        await jobs.enqueue(redis, ALICE, "ex_2", "a")
        assert await woken(second)
        assert not other.woken.is_set()


async def test_who_leaves_wakes_the_next(signals: JobSignals, redis: Redis) -> None:
    """A job for which somebody was woken who has gone since is not forgotten."""
    with signals.waiting(["a"]) as second:
        with signals.waiting(["a"]) as first:
            second.woken.set()  # so that the other one is woken
            await jobs.enqueue(redis, ALICE, "ex_1", "a")
            assert await woken(first)
            second.woken.clear()
        assert second.woken.is_set()
    assert len(signals) == 0


async def test_agents_come_while_it_waits(signals: JobSignals, redis: Redis) -> None:
    """An agent that nobody has waited for before is watched at once, and its jobs of before are seen."""
    await jobs.enqueue(redis, ALICE, "ex_0", "c")
    with signals.waiting(["a"]), signals.waiting(["b"]) as waiter, signals.waiting(["c"]) as late:
        assert await woken(late)
        await jobs.enqueue(redis, ALICE, "ex_1", "b")
        assert await woken(waiter)


async def test_the_connection_breaks(signals: JobSignals, redis: Redis) -> None:
    """A job that is queued while the read has no connection wakes as any other."""
    with signals.waiting(["a"]) as waiter:
        async with asyncio.timeout(10):
            while not any(client["cmd"] == "xread" for client in await redis.client_list(_type="normal")):
                await asyncio.sleep(0.01)
        await redis.client_kill_filter(_type="normal", skipme=True)
        await jobs.enqueue(redis, ALICE, "ex_1", "a")
        assert await woken(waiter)
