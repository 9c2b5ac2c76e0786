"""What a claim brings, and what it leaves behind, over a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

import pytest
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.jobs.claims import Claims, Wanted
from broker.jobs.fences import Fences
from broker.jobs.held import HeldJob, HeldJobs
from broker.jobs.signals import JobSignals
from broker.jobs.types import MAX_HELD, JobAgent
from emitter import tasks
from emitter.store.append import LogLimits
from emitter.store.jobs import Job
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.keys import Owner, held_jobs_key, jobs_key
from emitter.wire.redact import Redactor
from tests.edges import under_load

ALICE = Owner("alice")
WORKER = "default:operator:w1"


class SlowClaims(Claims):
    """Another job is queued while a claim takes one."""

    def __init__(self, redis: Redis, signals: JobSignals) -> None:
        self.lifecycle = Lifecycle(redis, LogLimits(), Redactor())
        super().__init__(redis, self.lifecycle, signals, Fences(redis), HeldJobs(redis), Metrics(), 10.0)
        self.meanwhile = ""

    async def _take(self, wanted: Wanted) -> list[Job]:
        found = await super()._take(wanted)
        if found and self.meanwhile:
            await self.queue(self.meanwhile)
            self.meanwhile = ""
            await asyncio.sleep(0.2)
        return found

    async def queue(self, execution_id: str, agent: str = "a") -> None:
        await self.lifecycle.accept(ALICE, execution_id, Start(task="t", agent=agent))

    async def ask(
        self, *agents: str, worker: str = WORKER, running: Collection[str] | None = None, seconds: float = 0
    ) -> list[str]:
        named = {agent: JobAgent(name=agent) for agent in agents}
        found = await self.claim(Wanted(worker, named, 1, running), seconds, lambda: False)
        return [job.execution_id for job in found]


@pytest.fixture
async def claims(redis: Redis) -> AsyncIterator[SlowClaims]:
    signals = JobSignals(redis)
    task = asyncio.create_task(signals.run())
    yield SlowClaims(redis, signals)
    await tasks.end([task])


async def test_jobs_come_again_only_of_the_agents_asked_for(claims: SlowClaims) -> None:
    """Two tokens of one subject may be for different agents, and their workers may have one name."""
    await claims.queue("ex_1")
    assert await claims.ask("a", running=()) == ["ex_1"]
    assert await claims.ask("b", running=()) == []
    assert await claims.ask("a", running=()) == ["ex_1"]


async def test_a_job_comes_while_another_is_taken(claims: SlowClaims) -> None:
    """It wakes whoever takes the first one; the next one who waits has it at once."""
    claims.meanwhile = "ex_2"
    waiting = [asyncio.create_task(claims.ask("a", worker=f"{WORKER}{n}", seconds=30)) for n in range(2)]
    await asyncio.sleep(0.2)
    await claims.queue("ex_1")
    async with asyncio.timeout(under_load(2)):
        assert sorted(await asyncio.gather(*waiting)) == [["ex_1"], ["ex_2"]]


async def test_asking_leaves_no_streams(claims: SlowClaims, redis: Redis) -> None:
    """A worker may name any agents, as often as it wants."""
    assert await claims.ask("b", "c") == []
    assert await redis.exists(jobs_key("b"), jobs_key("c")) == 0
    await claims.queue("ex_1", "b")
    assert await claims.ask("b", "c") == ["ex_1"]


async def test_what_a_worker_has_lost_is_forgotten(claims: SlowClaims, redis: Redis) -> None:
    """Also of one that never renews, gives nothing back, and does not say what it has."""
    held = HeldJobs(redis)
    lost = HeldJob(agent="a", attempt=1, claimed_at=1)
    await held.put(WORKER, {f"default:alice:ex_lost_{number}": lost for number in range(MAX_HELD)})
    await claims.queue("ex_1")
    assert await claims.ask("a") == ["ex_1"]
    assert await claims.ask("a") == []
    assert list(await held.all(WORKER)) == ["default:alice:ex_1"]


async def test_what_a_worker_has_is_known_as_long_as_it_renews(redis: Redis) -> None:
    """Also of one that claims nothing for longer than this is kept."""
    held = HeldJobs(redis)
    await held.put(WORKER, {"default:alice:ex_1": HeldJob(agent="a", attempt=1, claimed_at=1)})
    await redis.pexpire(held_jobs_key(WORKER), 5_000)
    assert list(await held.all(WORKER)) == ["default:alice:ex_1"]
    assert await redis.pttl(held_jobs_key(WORKER)) > 3_600_000
