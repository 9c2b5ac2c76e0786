"""The reaper against a real server: everything that is due is looked after, by one at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter.events import ExecutionCancelled, ExecutionComplete, ExecutionError, ExecutionStarted, ExecutionSuperseded
from emitter.store import announcements, jobs, reaper, watch_leases
from emitter.store.append import LogLimits, append, prepare
from emitter.store.jobs import Entry, Job
from emitter.store.lifecycle import Lifecycle, Start
from emitter.store.reaper import Reaper
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import AGENTS_KNOWN, DUE, EXPIRIES, QUEUED, REAPER, Owner, jobs_key, member
from emitter.wire.redact import Redactor

ALICE = Owner("alice", "acme")
NAME = member(ALICE, "ex_1")
RECORD = ALICE.execution("ex_1").record
START = Start(task="Write", agent="writer")


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The reaper's, so that a slow machine is no outage."""
    clock = Clock()
    monkeypatch.setattr(reaper, "time", clock)
    return clock


@pytest.fixture
def lifecycle(redis: Redis) -> Lifecycle:
    return Lifecycle(redis, LogLimits(), Redactor())


def reaper_of(redis: Redis, lifecycle: Lifecycle, worker: str = "w1", *, lease_seconds: float = 0.0) -> Reaper:
    """By default one that trusts every lease's end."""
    return Reaper(redis, lifecycle, worker, lease_seconds)


async def due_now(redis: Redis) -> None:
    await redis.zadd(DUE, {NAME: 1})


async def due_at(redis: Redis) -> float | None:
    return await redis.zscore(DUE, NAME)


async def running(redis: Redis, lifecycle: Lifecycle, lease_ms: int) -> Job:
    """A worker has the execution and has started it. A lease of 1 ms has ended."""
    await lifecycle.accept(ALICE, "ex_1", START)
    entry = Entry("writer", b"1-1", ALICE, "ex_1")
    job = await jobs.claim(redis, entry, "w9", lease_ms, 3)
    assert isinstance(job, Job)
    started = prepare(ExecutionStarted(task="Write", started_at=1, attempt=1), "ex_1", redact=Redactor())
    await append(redis, ALICE, "ex_1", [started], attempt=1)
    await redis.delete(jobs_key("writer"), QUEUED)
    if lease_ms == 1:
        await asyncio.sleep(0.005)
    return job


async def last_event(redis: Redis) -> Any:
    rows: Any = await redis.xrevrange(ALICE.execution("ex_1").log, count=1)
    return decode_envelope(next(iter(rows[0][1].values())))[1]


async def state(redis: Redis) -> str:
    stored: Any = await redis.hget(RECORD, "state")
    return stored.decode()


async def test_a_worker_whose_lease_ended_loses_its_execution(redis: Redis, lifecycle: Lifecycle) -> None:
    """Nobody renewed the lease: the execution waits for its next attempt, and is on offer."""
    await running(redis, lifecycle, lease_ms=1)
    await due_now(redis)
    await reaper_of(redis, lifecycle).step()
    assert await last_event(redis) == ExecutionSuperseded(from_seq=1, attempt=2)
    assert await redis.xlen(jobs_key("writer")) == 1


async def test_a_worker_that_lives_keeps_its_execution(redis: Redis, lifecycle: Lifecycle) -> None:
    """A lease that was renewed meanwhile is looked at again when it ends."""
    job = await running(redis, lifecycle, lease_ms=60_000)
    await due_now(redis)
    await reaper_of(redis, lifecycle).step()
    assert await state(redis) == "running"
    assert await due_at(redis) == job.lease_ms


async def test_a_lease_that_ended_while_redis_was_away_ends_nothing_yet(
    redis: Redis, lifecycle: Lifecycle, clock: Clock
) -> None:
    """A reaper that has just begun to hear from Redis leaves workers a lease time to renew, and then acts."""
    await running(redis, lifecycle, lease_ms=1)
    patient = reaper_of(redis, lifecycle, lease_seconds=10)
    clock.now += 6  # longer than half a lease without a word from Redis
    for expected in ("running", "running", "running", "queued"):
        await due_now(redis)
        await patient.step()
        assert await state(redis) == expected
        clock.now += 4


async def test_a_job_that_was_lost_is_offered_again(redis: Redis, lifecycle: Lifecycle) -> None:
    """A queued execution whose job is in no stream is offered; one whose job is there is left alone."""
    await lifecycle.accept(ALICE, "ex_1", START)
    await redis.delete(jobs_key("writer"), QUEUED)
    for _ in range(2):
        await due_now(redis)
        await reaper_of(redis, lifecycle).step()
        assert await redis.xlen(jobs_key("writer")) == 1
    assert await due_at(redis) > await jobs.redis_ms(redis)


async def test_what_starts_later_is_offered_when_its_time_has_come(redis: Redis, lifecycle: Lifecycle) -> None:
    """Not before `notBefore`, even if somebody looks early, and then at the next look."""
    at = await jobs.redis_ms(redis) + 3000
    await lifecycle.accept(ALICE, "ex_1", Start(task="Write", agent="writer", not_before=at))
    await due_now(redis)
    one = reaper_of(redis, lifecycle, lease_seconds=1)
    await one.step()
    assert await redis.xlen(jobs_key("writer")) == 0
    assert await due_at(redis) == at
    async with asyncio.timeout(3 + 5):
        while not await redis.xlen(jobs_key("writer")):
            await one.step()
    assert await jobs.redis_ms(redis) >= at


async def test_what_no_worker_has_the_agent_of_any_more_fails(redis: Redis, lifecycle: Lifecycle) -> None:
    """A queued execution older than a day fails once its agent was announced by nobody for a day, and not before."""
    await lifecycle.accept(ALICE, "ex_1", START)
    now = await jobs.redis_ms(redis)
    await redis.zadd(AGENTS_KNOWN, {"writer": now - 1000})
    await redis.hset(RECORD, "createdAt", str(now - announcements.KNOWN_MS - 1000))
    await due_now(redis)
    await reaper_of(redis, lifecycle).step()
    assert await state(redis) == "queued"
    await redis.zadd(AGENTS_KNOWN, {"writer": now - announcements.KNOWN_MS - 1000})
    await due_now(redis)
    await reaper_of(redis, lifecycle).step()
    assert (await last_event(redis)).code == "no_worker"
    assert await redis.xlen(jobs_key("writer")) == await redis.hlen(QUEUED) == 0
    assert await due_at(redis) is None


async def test_nobody_looks_after_what_is_over_or_never_was(redis: Redis, lifecycle: Lifecycle) -> None:
    """Ended, unknown and unreadable names leave the list, and so does what somebody runs who is no worker."""
    await lifecycle.accept(ALICE, "ex_1", START)
    end = prepare(ExecutionComplete(result=1, duration=0), "ex_1", redact=Redactor())
    await append(redis, ALICE, "ex_1", [end])
    started = prepare(ExecutionStarted(task="t", started_at=1, attempt=1), "ex_2", redact=Redactor())
    await append(redis, ALICE, "ex_2", [started])
    names: dict[Any, Any] = {NAME: 1, member(ALICE, "ex_2"): 1, member(ALICE, "ex_gone"): 1, "rubbish": 1, b"\xff": 1}
    await redis.zadd(DUE, names)
    await reaper_of(redis, lifecycle).step()
    assert await redis.zcard(DUE) == 0


async def test_a_record_that_cannot_be_read_hides_no_other(redis: Redis, lifecycle: Lifecycle) -> None:
    """A record somebody wrote rubbish into is looked at later, and what is due after it now."""
    await running(redis, lifecycle, lease_ms=1)
    await redis.hset(ALICE.execution("ex_bad").record, mapping={"state": "running", "owner": "w", "lease": "soon"})
    await redis.zadd(DUE, {member(ALICE, "ex_bad"): 0, NAME: 1})
    await reaper_of(redis, lifecycle).step()
    assert await state(redis) == "queued"


async def test_what_is_no_record_hides_no_other(redis: Redis, lifecycle: Lifecycle) -> None:
    """Nor does a key of another kind in a record's place."""
    await running(redis, lifecycle, lease_ms=1)
    await redis.set(ALICE.execution("ex_bad").record, "no hash")
    await redis.zadd(DUE, {member(ALICE, "ex_bad"): 0, NAME: 1})
    await reaper_of(redis, lifecycle).step()
    assert await state(redis) == "queued"


async def test_a_clock_that_was_put_forward_ends_no_lease(redis: Redis, lifecycle: Lifecycle, clock: Clock) -> None:
    """When the clock of Redis leaps, every worker has a lease time to renew by the new one."""
    await running(redis, lifecycle, lease_ms=1)
    await due_now(redis)
    patient = reaper_of(redis, lifecycle, lease_seconds=10)
    patient._steady_since -= 60
    await patient._acquire_lock()
    patient._clock_ms -= 60_000  # as if a minute had passed there since, and none here
    await patient.step()
    assert await state(redis) == "running"


async def test_a_start_planned_meanwhile_is_kept(redis: Redis) -> None:
    """The reaper lets go only of what it looked at: a look planned for later is somebody else's."""
    await redis.zadd(DUE, {NAME: 2_000})
    await jobs.end(redis, NAME, planned_by=1_000)
    assert await due_at(redis) == 2_000
    await jobs.end(redis, NAME, planned_by=2_000)
    assert await due_at(redis) is None


async def test_a_cancel_that_no_worker_carried_out_is(redis: Redis, lifecycle: Lifecycle) -> None:
    """A queued execution that was to be cancelled is, and its job goes."""
    await lifecycle.accept(ALICE, "ex_1", START)
    await redis.hset(RECORD, "cancel", '{"reason":"enough","by":"alice"}')
    await due_now(redis)
    await reaper_of(redis, lifecycle).step()
    assert await last_event(redis) == ExecutionCancelled(reason="enough", by="alice")
    assert await redis.xlen(jobs_key("writer")) == 0


async def test_one_reaper_works_at_a_time(redis: Redis, lifecycle: Lifecycle) -> None:
    """A second one does nothing while the first holds the lock, and takes over when that lets go or falls silent."""
    first, second = (reaper_of(redis, lifecycle, worker, lease_seconds=60) for worker in ("w1", "w2"))
    await first.step()
    await redis.zadd(DUE, {"rubbish": 1})
    await second.step()
    assert await redis.zcard(DUE) == 1
    await second.release_lock()
    assert await redis.get(REAPER) == b"w1", "only the holder lets go"
    await first.release_lock()
    await second.step()
    assert await redis.zcard(DUE) == 0
    assert 0 < await redis.pttl(REAPER) <= 1000 * reaper.LOCK_SECONDS


async def test_more_than_a_batch_is_looked_at(redis: Redis, lifecycle: Lifecycle) -> None:
    """Whatever is due is looked at, however much it is."""
    await redis.zadd(DUE, {member(ALICE, f"ex_{number}"): number + 1 for number in range(3 * reaper.BATCH + 1)})
    one = reaper_of(redis, lifecycle)
    for _ in range(4):
        await one.step()
    assert await redis.zcard(DUE) == 0


async def test_what_nobody_watches_is_cancelled(redis: Redis, lifecycle: Lifecycle) -> None:
    """An abandoned execution ends as cancelled by nobody, and is forgotten; so is one that has ended meanwhile."""
    await lifecycle.accept(ALICE, "ex_1", START)
    for name in (NAME, member(ALICE, "ex_gone")):
        await watch_leases.say(redis, "edge", [watch_leases.WatchLease(name, 1, 0)])
    await asyncio.sleep(0.01)
    await reaper_of(redis, lifecycle).step()
    end = await last_event(redis)
    assert (end.type, end.by) == ("execution:cancelled", watch_leases.NOBODY)
    assert await watch_leases.abandoned(redis, 10) == []


async def test_the_last_loss_fails_the_execution(redis: Redis, lifecycle: Lifecycle) -> None:
    """A job that costs every worker that takes it comes to an end, and nobody looks after it any more."""
    await lifecycle.accept(ALICE, "ex_1", START)
    one = reaper_of(redis, lifecycle)
    for number in range(3):
        entry = Entry("writer", b"1-1", ALICE, "ex_1")
        assert isinstance(await jobs.claim(redis, entry, f"w{number}", 1, 3), Job)
        await asyncio.sleep(0.005)
        await due_now(redis)
        await one.step()
    end = await last_event(redis)
    assert isinstance(end, ExecutionError)
    assert end.code == "worker_lost"
    assert await due_at(redis) is None


class Away(Lifecycle):
    """What it writes goes to a node of a Cluster that does not answer."""

    asked = 0

    async def expire(self, owner: Owner, execution_id: str, input_id: str) -> None:
        self.asked += 1
        raise ConnectionError


async def test_many_expired_inputs_of_a_node_that_is_away(redis: Redis) -> None:
    """Each may take as long as an answer may: after a few the reaper turns to what else is due."""
    away = Away(redis, LogLimits(), Redactor())
    await redis.zadd(EXPIRIES, {f"{NAME} i{number}": 1 for number in range(20)})
    with pytest.raises(ConnectionError):
        await reaper_of(redis, away).step()
    assert (away.asked, await redis.zcard(EXPIRIES)) == (reaper.FAILURES, 20)


class Slow(Lifecycle):
    """Each end that it completes takes a second."""

    clock: Clock

    async def settle(self, owner: Owner, execution_id: str) -> None:
        self.clock.now += 1
        await super().settle(owner, execution_id)


async def test_a_long_step_is_no_outage(redis: Redis, clock: Clock) -> None:
    """However much there was to do in the step before, the next one takes over an execution whose lease has ended."""
    slow = Slow(redis, LogLimits(), Redactor())
    slow.clock = clock
    steady = reaper_of(redis, slow, lease_seconds=10)
    clock.now += 4
    await steady.step()
    clock.now += 4
    await steady.step()
    clock.now += 4
    await running(redis, slow, lease_ms=1)
    await redis.delete(DUE)
    await redis.zadd(DUE, {member(ALICE, f"ex_gone{number}"): 1 for number in range(20)})
    await steady.step()
    await due_now(redis)
    await steady.step()
    assert await state(redis) == "queued"


class Unreachable(Lifecycle):
    """Nothing can be written about an execution for now, as if its node were away."""

    is_away = True

    async def lose(self, owner: Owner, execution_id: str) -> Any:
        if self.is_away:
            raise ConnectionError
        return await super().lose(owner, execution_id)


async def test_a_worker_can_renew_when_its_node_answers_again(redis: Redis, clock: Clock) -> None:
    """That its lease ended while the node was away is not held against it, though all others answered."""
    lifecycle = Unreachable(redis, LogLimits(), Redactor())
    await running(redis, lifecycle, lease_ms=1)
    await due_now(redis)
    steady = reaper_of(redis, lifecycle, lease_seconds=10)
    steady._steady_since -= 60
    with pytest.raises(ConnectionError):
        await steady.step()
    lifecycle.is_away = False
    for expected in ("running", "queued"):
        await steady.step()
        assert await state(redis) == expected
        await due_now(redis)
