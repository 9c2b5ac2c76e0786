"""The Redis contract of jobs, against a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter.events import ExecutionComplete, ExecutionQueued
from emitter.store import jobs
from emitter.store.append import append, prepare
from emitter.store.jobs import Entry, Job, UnreadableJob
from emitter.wire.keys import DUE, JOBS_GROUP, QUEUED, Owner, jobs_key
from emitter.wire.record import Cancel
from emitter.wire.redact import Redactor
from tests.edges import under_load

ALICE = Owner("alice", "acme")
LEASE_MS = 60_000


async def accept(redis: Redis, execution_id: str, agent: str = "writer", **fields: str) -> None:
    """What the broker does when it takes an execution."""
    event = prepare(ExecutionQueued(task="Write", agent=agent), execution_id, redact=Redactor())
    record = {"task": "Write", "agent": agent, **fields}
    await append(redis, ALICE, execution_id, [event], producer="broker", first_seq=1, mode="new", fields=record)
    await jobs.enqueue(redis, ALICE, execution_id, agent)


async def read_one(redis: Redis, worker: str = "w1", agent: str = "writer") -> Entry:
    await jobs.ensure_group(redis, agent)
    (entry,) = await jobs.read(redis, [agent], worker, count=10, block_ms=100)
    return entry


async def claimed(redis: Redis, execution_id: str = "ex_1", worker: str = "w1", **fields: str) -> Job:
    await accept(redis, execution_id, **fields)
    job = await jobs.claim(redis, await read_one(redis, worker), worker, LEASE_MS, 3)
    assert isinstance(job, Job)
    return job


async def record_of(redis: Redis, execution_id: str = "ex_1") -> dict[str, str]:
    stored: Any = await redis.hgetall(ALICE.execution(execution_id).record)
    return {name.decode(): value.decode() for name, value in stored.items()}


async def test_a_job_is_read_even_if_it_was_offered_before_any_worker(redis: Redis) -> None:
    """The consumer group sees what was in the stream before the group was made."""
    await accept(redis, "ex_1")
    entry = await read_one(redis)
    assert entry[2:] == (ALICE, "ex_1")
    assert entry.agent == "writer"


async def test_one_read_waits_on_all_agents(redis: Redis) -> None:
    """Jobs of several agents come in one read, each with its agent's name."""
    for name in ("writer", "reader"):
        await jobs.ensure_group(redis, name)
    await accept(redis, "ex_1", "writer")
    await accept(redis, "ex_2", "reader")
    entries = await jobs.read(redis, ["writer", "reader"], "w1", count=5, block_ms=100)
    assert {(entry.agent, entry.execution_id) for entry in entries} == {("writer", "ex_1"), ("reader", "ex_2")}


async def test_an_empty_read_ends_within_its_bound(redis: Redis) -> None:
    """With nothing to do, a read returns nothing after `block_ms`."""
    await jobs.ensure_group(redis, "writer")
    async with asyncio.timeout(under_load(2)):
        assert await jobs.read(redis, ["writer"], "w1", count=1, block_ms=50) == []


async def test_a_claim_returns_what_was_accepted(redis: Redis) -> None:
    """A claim is the first attempt, and brings everything the agent needs from the record."""
    job = await claimed(
        redis, params='{"n":1}', metadata='{"m":"x"}', requestId="req-1", conversationId="c-1", cancel='{"by":"bob"}'
    )
    assert (job.attempt, job.task, job.params, job.metadata) == (1, "Write", {"n": 1}, {"m": "x"})
    assert (job.request_id, job.conversation_id, job.cancel) == ("req-1", "c-1", Cancel(by="bob"))
    record = await record_of(redis)
    assert (record["owner"], record["attempt"], record["lease"]) == ("w1", "1", str(job.lease_ms))
    assert job.lease_ms - await jobs.redis_ms(redis) == pytest.approx(LEASE_MS, abs=5_000)


async def test_many_claims_of_one_job_have_one_winner(redis: Redis) -> None:
    """However many workers claim an execution at once, one gets it, and it is attempt 1."""
    await accept(redis, "ex_1")
    entry = await read_one(redis)
    claims = await asyncio.gather(*(jobs.claim(redis, entry, f"w{n}", LEASE_MS, 3) for n in range(8)))
    winners = [claim for claim in claims if isinstance(claim, Job)]
    assert [job.attempt for job in winners] == [1]
    assert claims.count("owned") == 7


async def test_claiming_again_after_a_lost_reply_is_the_same_attempt(redis: Redis) -> None:
    """The worker that owns a queued execution gets it again without spending an attempt."""
    await accept(redis, "ex_1")
    entry = await read_one(redis)
    first, second = [await jobs.claim(redis, entry, "w1", LEASE_MS, 3) for _ in range(2)]
    assert isinstance(first, Job)
    assert isinstance(second, Job)
    assert first.attempt == second.attempt == 1


async def test_a_claim_whose_owner_died_before_starting_is_lapsed(redis: Redis) -> None:
    """A queued execution with a lapsed lease is nobody's to claim until its owner's attempt was ended."""
    job = await claimed(redis)
    await redis.hset(job.record, "lease", "1")
    assert await jobs.claim(redis, Entry("writer", b"1-1", ALICE, "ex_1"), "w2", LEASE_MS, 3) == "lapsed"


async def test_an_attempt_that_was_opened_is_claimed_under_its_number(redis: Redis) -> None:
    """Where the last attempt was ended for another, the fence stands at the next number, and the claim keeps it."""
    job = await claimed(redis)
    await redis.hset(job.record, mapping={"owner": "", "attempt": "2"})
    taken = await jobs.claim(redis, Entry("writer", b"1-1", ALICE, "ex_1"), "w2", LEASE_MS, 3)
    assert isinstance(taken, Job)
    assert (taken.attempt, taken.from_seq) == (2, 1)


async def test_what_starts_later_is_not_claimed(redis: Redis) -> None:
    """An execution with a time to start cannot be claimed before it, whatever is in the queue. It is checked again
    soon: the clock by which it was offered may be ahead by milliseconds."""
    await accept(redis, "ex_1", notBefore=str(await jobs.redis_ms(redis) + 60_000))
    entry = await read_one(redis)
    claim = await jobs.claim(redis, entry, "w1", LEASE_MS, 3)
    assert isinstance(claim, jobs.Apart)
    await jobs.ack(redis, entry, None, check_ms=claim.check_ms)
    due: Any = await redis.zscore(DUE, "acme:alice:ex_1")
    assert due <= await jobs.redis_ms(redis) + jobs.APART_CHECK_MS
    assert await redis.xlen(jobs_key("writer")) == 0


@pytest.mark.parametrize("fields", [{"params": "{"}, {"metadata": "["}])
async def test_what_no_agent_can_be_given_is_unreadable(redis: Redis, fields: dict[str, str]) -> None:
    """A record that is not JSON where it should be raises, with the attempt that was taken."""
    await accept(redis, "ex_1", **fields)
    with pytest.raises(UnreadableJob) as caught:
        await jobs.claim(redis, await read_one(redis), "w1", LEASE_MS, 3)
    assert caught.value.attempt == 1


@pytest.mark.parametrize(
    ("lost", "failed", "max_attempts", "places"),
    [(0, 0, 3, 0), (1, 0, 3, 1), (2, 0, 3, 8), (1, 0, 2, 8), (0, 0, 1, 0), (2, 0, 9, 8), (1, 1, 3, 8), (0, 2, 3, 0)],
)
async def test_a_suspect_takes_places(redis: Redis, lost: int, failed: int, max_attempts: int, places: int) -> None:
    """One after its first loss, all after the next and in its last attempt. It waits while they are not free."""
    await accept(redis, "ex_1", lost=str(lost), failed=str(failed), lostAfter="9000")
    entry = await read_one(redis)
    if places:
        taken = jobs.SUSPECT_PLACES - places + 1
        before = await jobs.redis_ms(redis)
        claim = await jobs.claim(redis, entry, "w1", LEASE_MS, max_attempts, taken_places=taken)
        assert isinstance(claim, jobs.Apart)
        assert before <= claim.check_ms - jobs.APART_CHECK_MS <= await jobs.redis_ms(redis)
    taken = jobs.SUSPECT_PLACES - places
    job = await jobs.claim(redis, entry, "w1", LEASE_MS, max_attempts, taken_places=taken)
    assert isinstance(job, Job)
    assert job.suspect_places == places
    is_last = lost + failed + 1 == max_attempts
    assert job.apart_seconds == (0 if not lost else jobs.ALONE_SECONDS if is_last else jobs.APART_SECONDS)


async def test_an_execution_is_on_offer_once(redis: Redis) -> None:
    """Offering again adds nothing while the job is there, and brings it back once it is lost."""
    await accept(redis, "ex_1")
    await jobs.enqueue(redis, ALICE, "ex_1", "writer")
    assert await redis.xlen(jobs_key("writer")) == 1
    await redis.delete(jobs_key("writer"))
    await jobs.enqueue(redis, ALICE, "ex_1", "writer")
    assert await redis.xlen(jobs_key("writer")) == 1


@pytest.mark.parametrize("state", ["running", "waiting_input", "completed", "failed", "cancelled"])
async def test_what_does_not_wait_is_stale(redis: Redis, state: str) -> None:
    """Only a queued execution can be claimed, so none runs twice."""
    await accept(redis, "ex_1")
    await redis.hset(ALICE.execution("ex_1").record, "state", state)
    assert await jobs.claim(redis, await read_one(redis), "w1", LEASE_MS, 3) == "stale"


async def test_an_unknown_execution_is_stale(redis: Redis) -> None:
    """A job whose record has expired is no job."""
    await jobs.enqueue(redis, ALICE, "ex_gone", "writer")
    assert await jobs.claim(redis, await read_one(redis), "w1", LEASE_MS, 3) == "stale"
    assert not await redis.exists(ALICE.execution("ex_gone").record)


async def test_a_settled_job_leaves_nothing_but_its_lease(redis: Redis) -> None:
    """After `settle` the entry is in no stream and pending with nobody; `end` takes the lease away too."""
    await accept(redis, "ex_1")
    entry = await read_one(redis)
    job = await jobs.claim(redis, entry, "w1", LEASE_MS, 3)
    assert isinstance(job, Job)
    await jobs.ack(redis, entry, job)
    assert await redis.xlen(jobs_key("writer")) == 0
    assert (await redis.xpending(jobs_key("writer"), JOBS_GROUP))["pending"] == 0
    assert await redis.zrange(DUE, 0, -1, withscores=True) == [(b"acme:alice:ex_1", job.lease_ms)]
    await jobs.end(redis, job.member)
    assert await redis.zcard(DUE) == await redis.hlen(QUEUED) == 0


async def test_an_ended_execution_does_not_become_due_again(redis: Redis) -> None:
    """A short agent may end before its entry is acknowledged, and before an early renewal has set the next check."""
    await accept(redis, "ex_1")
    entry = await read_one(redis)
    job = await jobs.claim(redis, entry, "w1", LEASE_MS, 3)
    assert isinstance(job, Job)
    await jobs.end(redis, job.member)
    await jobs.ack(redis, entry, job)
    await jobs.schedule_checks(redis, {job.member: job.lease_ms}, only_known=True)
    assert await redis.zcard(DUE) == 0


async def test_a_job_read_by_a_worker_that_died_is_recovered(redis: Redis) -> None:
    """What nobody settled is found by another worker once it has been idle for long enough, and not before."""
    await accept(redis, "ex_1")
    entry = await read_one(redis, "dead")
    assert await jobs.recover(redis, "writer", "w2", idle_ms=60_000, count=5) == []
    assert await jobs.recover(redis, "writer", "w2", idle_ms=0, count=5) == [entry]


async def test_what_is_requeued_is_offered_again(redis: Redis) -> None:
    """An entry that was read and requeued reaches another worker at once."""
    await accept(redis, "ex_1")
    await jobs.requeue(redis, await read_one(redis, "w1"))
    assert (await read_one(redis, "w2")).execution_id == "ex_1"
    pending: Any = await redis.xpending(jobs_key("writer"), JOBS_GROUP)
    assert [consumer["name"] for consumer in pending["consumers"]] == [b"w2"]


@pytest.mark.parametrize(
    "fields",
    [{"org": "acme"}, {"org": "acme", "user": "a{b", "execution": "x"}, {"org": "a", "user": "b", "execution": "\xff"}],
)
async def test_an_entry_that_is_no_job_is_dropped(redis: Redis, fields: dict[Any, Any]) -> None:
    """What cannot be a job is taken out of the stream, and does not hide the jobs behind it."""
    await redis.xadd(jobs_key("writer"), fields)
    await accept(redis, "ex_1")
    assert (await read_one(redis)).execution_id == "ex_1"
    assert await redis.xlen(jobs_key("writer")) == 1


async def test_a_renewal_prolongs_the_lease(redis: Redis) -> None:
    """The owner's renewal moves the lease in the record; `schedule_checks` moves the time of the reaper's check."""
    job = await claimed(redis)
    (renewal,) = await jobs.renew(redis, [job], "w1", 2 * LEASE_MS)
    assert renewal.verdict == "ok"
    assert renewal.cancel is None
    assert renewal.lease_ms >= job.lease_ms + LEASE_MS
    assert (await record_of(redis))["lease"] == str(renewal.lease_ms)
    await jobs.schedule_checks(redis, {job.member: renewal.lease_ms})
    assert await redis.zscore(DUE, job.member) == renewal.lease_ms


async def test_a_renewal_tells_what_happened_to_each(redis: Redis) -> None:
    """One round trip tells, in order: cancelled, another's, another attempt's, ended, gone."""
    all_jobs = [await claimed(redis, f"ex_{n}") for n in range(5)]
    await redis.hset(all_jobs[0].record, "cancel", '{"reason":"enough","by":"alice"}')
    await redis.hset(all_jobs[1].record, "owner", "w2")
    await redis.hset(all_jobs[2].record, "attempt", "2")
    event = prepare(ExecutionComplete(result=1, duration=0), "ex_3", redact=Redactor())
    await append(redis, ALICE, "ex_3", [event], producer="agent", first_seq=1)
    await redis.delete(all_jobs[4].record)
    renewals = await jobs.renew(redis, all_jobs, "w1", LEASE_MS)
    assert [renewal.verdict for renewal in renewals] == ["ok", "lost", "lost", "ended", "lost"]
    assert renewals[0].cancel == Cancel("enough", "alice")


async def test_a_request_to_cancel_counts_however_it_is_written(redis: Redis) -> None:
    """Text in the cancel field that cannot be read is still a request to cancel."""
    job = await claimed(redis, cancel="yes!")
    assert job.cancel == Cancel()


async def test_a_consumer_with_unsettled_jobs_is_kept(redis: Redis) -> None:
    """A leaving worker's consumer goes, unless a job would be lost with it."""
    await accept(redis, "ex_1")
    entry = await read_one(redis, "w1")
    await jobs.forget_consumers(redis, "writer", "w1")
    assert len(await redis.xinfo_consumers(jobs_key("writer"), JOBS_GROUP)) == 1
    await jobs.ack(redis, entry, None)
    await jobs.forget_consumers(redis, "writer", "w1")
    assert await redis.xinfo_consumers(jobs_key("writer"), JOBS_GROUP) == []
