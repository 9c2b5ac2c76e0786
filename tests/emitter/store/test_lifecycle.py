"""What moves an execution besides its agent, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from emitter import AgentEmitter, Publisher
from emitter.errors import (
    AppendRefused,
    ExecutionEnded,
    InvalidEvent,
    Superseded,
    TooManyQueued,
    UnknownExecution,
)
from emitter.events import (
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    Thinking,
)
from emitter.store import jobs
from emitter.store.append import LogLimits, append, prepare
from emitter.store.jobs import Entry, Job
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire import ids, keys
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import DUE, QUEUED, Owner, jobs_key
from emitter.wire.redact import Redactor

ALICE = Owner("alice", "acme")
KEYS = ALICE.execution("ex_1")
START = Start(task="Write", agent="writer", params={"n": 1}, conversation_id="c", request_id="r")


@pytest.fixture
def lifecycle(redis: Redis) -> Lifecycle:
    return Lifecycle(redis, LogLimits(), Redactor())


async def write(redis: Redis, *events: Event, attempt: int = 0) -> None:
    prepared = [prepare(event, "ex_1", redact=Redactor()) for event in events]
    await append(redis, ALICE, "ex_1", prepared, attempt=attempt)


async def claimed(redis: Redis, lifecycle: Lifecycle, worker: str = "w1", *, max_attempts: int = 3) -> Job:
    """Attempt of a worker that has said it started."""
    if not await redis.exists(KEYS.record):
        await lifecycle.accept(ALICE, "ex_1", START)
    job = await jobs.claim(redis, Entry("writer", b"1-1", ALICE, "ex_1"), worker, 60_000, max_attempts)
    assert isinstance(job, Job)
    await write(redis, ExecutionStarted(task="Write", started_at=1, attempt=job.attempt), attempt=job.attempt)
    return job


async def lapse(redis: Redis) -> None:
    """The lease's end, without the wait."""
    await redis.hset(KEYS.record, "lease", "1")


async def events_of(redis: Redis) -> list[Event]:
    rows: Any = await redis.xrange(KEYS.log)
    return [decode_envelope(next(iter(fields.values())))[1] for _, fields in rows]


async def record_of(redis: Redis) -> dict[str, str]:
    stored: Any = await redis.hgetall(KEYS.record)
    return {name.decode(): value.decode() for name, value in stored.items()}


async def is_looked_after(redis: Redis) -> bool:
    return await redis.zscore(DUE, "acme:alice:ex_1") is not None


# --- accepted ---


async def test_what_is_accepted_is_on_offer_and_looked_after(redis: Redis, lifecycle: Lifecycle) -> None:
    """Accepting writes `execution:queued`, offers one job, and plans a look; a repeat changes nothing."""
    assert await lifecycle.accept(ALICE, "ex_1", START)
    assert not await lifecycle.accept(ALICE, "ex_1", START)
    assert len(await events_of(redis)) == 1
    assert await redis.xlen(jobs_key("writer")) == 1
    assert await is_looked_after(redis)
    record = await record_of(redis)
    assert (record["state"], record["task"], record["params"], record["conversationId"]) == (
        "queued", "Write", '{"n":1}', "c",
    )  # fmt: skip


SECRET = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
WITH_SECRETS = Start(
    task=f"Deploy with {SECRET}",
    agent="writer",
    params={"password": "hunter2", "n": 1, "args": ["--token", SECRET]},
    metadata={"apiKey": "hunter2", "note": f"is {SECRET}", "chat": {"id": "c1"}},
)


async def test_what_people_are_shown_of_a_start_is_redacted(redis: Redis, lifecycle: Lifecycle) -> None:
    """Task, parameters and metadata in the record, which is listed and kept for days."""
    await lifecycle.accept(ALICE, "ex_1", WITH_SECRETS)
    record = await record_of(redis)
    assert record["task"] == "Deploy with [redacted]"
    assert msgspec.json.decode(record["params"]) == {
        "password": "[redacted]", "n": 1, "args": ["--token", "[redacted]"],
    }  # fmt: skip
    assert msgspec.json.decode(record["metadata"]) == {
        "apiKey": "[redacted]", "note": "is [redacted]", "chat": {"id": "c1"},
    }  # fmt: skip


async def test_the_agent_gets_what_was_given_until_the_end(redis: Redis, lifecycle: Lifecycle) -> None:
    """Also the attempt after a lost worker; nothing of it is left when the execution has ended."""
    await lifecycle.accept(ALICE, "ex_1", WITH_SECRETS)
    for attempt in (1, 2):
        job = await claimed(redis, lifecycle)
        assert (job.attempt, job.task, job.params) == (attempt, WITH_SECRETS.task, WITH_SECRETS.params)
        assert job.metadata["apiKey"] == "[redacted]"
        if attempt == 1:
            await lapse(redis)
            assert await lifecycle.lose(ALICE, "ex_1") == "superseded"
    assert "hunter2" in str(await record_of(redis))
    await write(redis, ExecutionComplete(result=1, duration=1.0), attempt=2)
    assert "hunter2" not in str(await record_of(redis))
    assert SECRET not in str(await record_of(redis))


async def test_a_start_without_secrets_is_kept_once(redis: Redis, lifecycle: Lifecycle) -> None:
    """There is nothing to keep apart then."""
    await lifecycle.accept(ALICE, "ex_1", START)
    assert "given" not in await record_of(redis)


async def test_the_words_of_who_cancels_are_redacted_in_the_record(redis: Redis, lifecycle: Lifecycle) -> None:
    """As they will be in the event."""
    await claimed(redis, lifecycle)
    await lifecycle.cancel(ALICE, "ex_1", reason=f"leaked {SECRET}", by="alice")
    assert msgspec.json.decode((await record_of(redis))["cancel"])["reason"] == "leaked [redacted]"


async def test_a_repeat_offers_the_job_that_the_first_call_could_not(redis: Redis, lifecycle: Lifecycle) -> None:
    """After a crash between the log and the queue a repeat offers the job, and a look was planned before the log."""
    await lifecycle.accept(ALICE, "ex_1", START)
    await redis.delete(jobs_key("writer"), QUEUED)
    assert await is_looked_after(redis)
    assert not await lifecycle.accept(ALICE, "ex_1", START)
    assert await redis.xlen(jobs_key("writer")) == 1


async def test_so_many_of_one_user_may_wait(redis: Redis) -> None:
    """For a worker, or for their time; one that is taken or has ended makes room, and other users have their own."""
    lifecycle = Lifecycle(redis, LogLimits(max_queued_per_user=3), Redactor())
    later = msgspec.structs.replace(START, not_before=ids.now_ms() + 60_000)
    await lifecycle.accept(ALICE, "ex_1", START)
    await lifecycle.accept(ALICE, "ex_2", later)
    await lifecycle.accept(ALICE, "ex_3", START)
    with pytest.raises(TooManyQueued) as caught:
        await lifecycle.accept(ALICE, "ex_4", START)
    assert (caught.value.limit, await redis.exists(ALICE.execution("ex_4").record)) == (3, 0)
    assert not await lifecycle.accept(ALICE, "ex_3", START), "a repeat is no other"
    assert await lifecycle.accept(Owner("bob"), "ex_4", START)

    await jobs.ensure_group(redis, "writer")
    (entry, *_) = await jobs.read(redis, ["writer"], "w", count=1, block_ms=1000)
    job = await jobs.claim(redis, entry, "w", 60_000, 3)
    assert isinstance(job, Job)
    await jobs.ack(redis, entry, job)
    assert await lifecycle.accept(ALICE, "ex_4", START)
    with pytest.raises(TooManyQueued):
        await lifecycle.accept(ALICE, "ex_5", START)
    await lifecycle.cancel(ALICE, "ex_2", reason=None, by=None)
    await jobs.end(redis, keys.member(ALICE, "ex_2"))
    assert await lifecycle.accept(ALICE, "ex_5", START)


async def test_what_nobody_looks_after_does_not_wait(redis: Redis) -> None:
    """A worker of the version before takes executions and does not say so: once they have ended they do not count."""
    lifecycle = Lifecycle(redis, LogLimits(max_queued_per_user=2), Redactor())
    for name in ("ex_1", "ex_2"):
        await lifecycle.accept(ALICE, name, START)
    await redis.zrem(DUE, keys.member(ALICE, "ex_1"))
    assert await lifecycle.accept(ALICE, "ex_3", START)
    with pytest.raises(TooManyQueued):
        await lifecycle.accept(ALICE, "ex_4", START)


async def test_what_runs_is_not_offered_by_a_repeat(redis: Redis, lifecycle: Lifecycle) -> None:
    """Accepting again what a worker has, or what has ended, offers nothing."""
    await claimed(redis, lifecycle)
    await redis.delete(jobs_key("writer"), QUEUED)
    assert not await lifecycle.accept(ALICE, "ex_1", START)
    await write(redis, ExecutionComplete(result=1, duration=0))
    assert not await lifecycle.accept(ALICE, "ex_1", START)
    assert await redis.xlen(jobs_key("writer")) == 0


# --- in a conversation ---


async def conversation(redis: Redis, conversation_id: str = "c") -> list[str]:
    return [member.decode() for member in await redis.zrange(ALICE.conversation(conversation_id), 0, -1)]


async def test_what_is_accepted_is_in_its_conversation(redis: Redis, lifecycle: Lifecycle) -> None:
    """An execution joins its conversation with the append that accepts it, once, and by the time of it; one without a
    conversation joins none; and nothing that is appended later touches it."""
    for name in ("ex_1", "ex_2", "ex_1"):
        await lifecycle.accept(ALICE, name, START)
    await lifecycle.accept(ALICE, "ex_3", msgspec.structs.replace(START, conversation_id=None))
    assert sorted(await conversation(redis)) == ["ex_1", "ex_2"]
    scores = [await redis.zscore(key, "ex_1") for key in (ALICE.conversation("c"), ALICE.index)]
    assert scores[0] == scores[1] is not None
    await redis.delete(ALICE.conversation("c"))
    await write(redis, ExecutionStarted(task="Write", started_at=1, attempt=1), Thinking(thought="hm"))
    assert await conversation(redis) == []


async def test_conversations_are_bounded(redis: Redis, lifecycle: Lifecycle) -> None:
    """A conversation keeps its newest thousand executions."""
    await redis.zadd(ALICE.conversation("c"), {f"old_{number}": number for number in range(1000)})
    await lifecycle.accept(ALICE, "ex_1", START)
    found = await conversation(redis)
    assert (len(found), found[0], found[-1]) == (1000, "old_1", "ex_1")


@pytest.mark.parametrize(("ttl", "least"), [(100, 150), (0, None)])
async def test_conversations_expire_with_their_records(redis: Redis, ttl: int, least: int | None) -> None:
    """A conversation is kept as long as the record of its newest execution, and for ever where logs are."""
    limits = LogLimits(ttl_seconds=ttl, tombstone_ttl_seconds=60)
    await Lifecycle(redis, limits, Redactor()).accept(ALICE, "ex_1", START)
    left = await redis.ttl(ALICE.conversation("c"))
    assert left == await redis.ttl(KEYS.record)
    assert left == -1 if least is None else left > least


def test_conversations_are_in_their_owners_slot() -> None:
    """A conversation's key is in the slot of its owner's other keys, and no id can break out of it."""
    assert key_slot(ALICE.conversation("c").encode()) == key_slot(KEYS.record.encode())
    for name in ("", "a:b", "a{b}", "*", "x" * 65):
        with pytest.raises(InvalidEvent):
            ALICE.conversation(name)


# --- cancelled ---


async def test_what_waits_is_cancelled_without_ever_starting(redis: Redis, lifecycle: Lifecycle) -> None:
    """A queued execution ends at once, and its job is stale; a second cancel is a no-op."""
    await lifecycle.accept(ALICE, "ex_1", START)
    assert await lifecycle.cancel(ALICE, "ex_1", reason="enough", by="alice") == "cancelled"
    assert await lifecycle.cancel(ALICE, "ex_1", reason="again", by="bob") == "cancelled"
    assert (await events_of(redis))[1:] == [ExecutionCancelled(reason="enough", by="alice")]
    assert await jobs.claim(redis, Entry("writer", b"1-1", ALICE, "ex_1"), "w1", 1000, 3) == "stale"


async def test_a_worker_is_asked_once(redis: Redis, lifecycle: Lifecycle) -> None:
    """Of a running execution only the request is kept, in the first caller's words, and the worker is woken."""
    await claimed(redis, lifecycle)
    async with redis.pubsub() as channel:
        await channel.subscribe(KEYS.control)
        await channel.get_message(timeout=5)
        assert await lifecycle.cancel(ALICE, "ex_1", reason="enough", by="alice") == "running"
        assert await lifecycle.cancel(ALICE, "ex_1", reason="again", by="bob") == "running"
        message: Any = await channel.get_message(timeout=5)
    assert message["data"] == b"cancel"
    assert (await record_of(redis))["cancel"] == '{"reason":"enough","by":"alice"}'
    assert len(await events_of(redis)) == 2


async def test_cancelling_what_is_over_or_unknown(redis: Redis, lifecycle: Lifecycle) -> None:
    """The state tells what has ended otherwise; the unknown raises, and is not made."""
    with pytest.raises(UnknownExecution):
        await lifecycle.cancel(ALICE, "ex_1", reason=None, by="alice")
    assert not await redis.exists(KEYS.record)
    await claimed(redis, lifecycle)
    await write(redis, ExecutionComplete(result=1, duration=0))
    assert await lifecycle.cancel(ALICE, "ex_1", reason=None, by="alice") == "completed"


async def test_a_worker_that_lets_go_at_this_moment_is_not_asked(redis: Redis, lifecycle: Lifecycle) -> None:
    """Whoever cancels while the execution changes hands either asks its worker or ends it; the request is not lost."""
    job = await claimed(redis, lifecycle)
    await asyncio.gather(
        lifecycle.hand_over(job), *(lifecycle.cancel(ALICE, "ex_1", reason=None, by="alice") for _ in range(5))
    )
    assert (await record_of(redis))["state"] == "cancelled"


# --- handed over ---


async def test_a_cancel_that_the_worker_did_not_carry_out_is(redis: Redis, lifecycle: Lifecycle) -> None:
    """Handing over what was to be cancelled ends it."""
    job = await claimed(redis, lifecycle)
    await lifecycle.cancel(ALICE, "ex_1", reason="enough", by="alice")
    assert await lifecycle.hand_over(job)
    assert (await events_of(redis))[-1] == ExecutionCancelled(reason="enough", by="alice")


async def test_a_handed_over_execution_waits_for_its_next_attempt(redis: Redis, lifecycle: Lifecycle) -> None:
    """The log says what is void, the old attempt is fenced at once, the next claim is the next attempt, and it does not
    count as a loss."""
    job = await claimed(redis, lifecycle)
    assert await lifecycle.hand_over(job)
    assert (await events_of(redis))[-1] == ExecutionSuperseded(from_seq=1, attempt=2)
    with pytest.raises(Superseded):
        await write(redis, Thinking(thought="I go on"), attempt=1)
    record = await record_of(redis)
    assert (record["state"], record["owner"], record["attempt"], record.get("lost")) == ("queued", "", "2", None)
    assert await redis.xlen(jobs_key("writer")) == 1
    again = await claimed(redis, lifecycle, "w2")
    assert (again.attempt, again.from_seq) == (2, 3)
    assert not await lifecycle.hand_over(job), "it is another's now"


@pytest.mark.parametrize("changes", [{"attempt": "2"}, {"state": "completed"}])
async def test_what_is_not_ours_is_not_handed_over(redis: Redis, lifecycle: Lifecycle, changes: dict[Any, Any]) -> None:
    """An execution that ended, or that another attempt has, stays as it is."""
    job = await claimed(redis, lifecycle)
    await redis.hset(KEYS.record, mapping=changes)
    before = await record_of(redis)
    assert not await lifecycle.hand_over(job)
    assert await record_of(redis) == before


# --- lost ---


async def test_a_lost_attempt_is_followed_by_the_next(redis: Redis, lifecycle: Lifecycle) -> None:
    """After the lease the attempt is superseded and fenced, the job is on offer, and the loss is counted."""
    await claimed(redis, lifecycle)
    await write(redis, Thinking(thought="…"))
    await lapse(redis)
    assert await lifecycle.lose(ALICE, "ex_1") == "superseded"
    assert (await events_of(redis))[-1] == ExecutionSuperseded(from_seq=1, attempt=2)
    with pytest.raises(Superseded):
        await write(redis, Thinking(thought="I am no zombie"), attempt=1)
    record = await record_of(redis)
    assert (record["state"], record["attempt"], record["lost"]) == ("queued", "2", "1")
    assert await redis.xlen(jobs_key("writer")) == 1
    assert await lifecycle.lose(ALICE, "ex_1") == "kept", "nobody has it, so nobody lost it"


async def test_a_worker_that_renewed_keeps_its_execution(redis: Redis, lifecycle: Lifecycle) -> None:
    """Whoever looks at an old lease finds the new one, and takes nothing."""
    await claimed(redis, lifecycle)
    before = await record_of(redis)
    assert await lifecycle.lose(ALICE, "ex_1") == "kept"
    assert await record_of(redis) == before


async def test_many_that_notice_a_loss_make_one_retry(redis: Redis, lifecycle: Lifecycle) -> None:
    """However many look at once, the log has one `execution:superseded` and the queue one job."""
    await claimed(redis, lifecycle)
    await lapse(redis)
    outcomes = await asyncio.gather(*(lifecycle.lose(ALICE, "ex_1") for _ in range(10)))
    assert sorted(outcomes) == ["kept"] * 9 + ["superseded"]
    assert len(await events_of(redis)) == 3
    assert await redis.xlen(jobs_key("writer")) == 1


async def test_an_execution_fails_after_its_last_attempt(redis: Redis, lifecycle: Lifecycle) -> None:
    """Once workers were lost as often as the agent may be tried, the execution fails with `worker_lost`."""
    for number in range(1, 4):
        job = await claimed(redis, lifecycle, f"w{number}")
        assert job.attempt == number
        await lapse(redis)
        assert await lifecycle.lose(ALICE, "ex_1") == ("ended" if number == 3 else "superseded")
    end = (await events_of(redis))[-1]
    assert end == ExecutionError(error="its workers were lost 3 times", code="worker_lost")
    assert not await is_looked_after(redis)
    with pytest.raises(ExecutionEnded):
        await write(redis, Thinking(thought="…"))


async def test_hand_overs_do_not_spend_attempts(redis: Redis, lifecycle: Lifecycle) -> None:
    """An agent of one attempt that was handed over five times still has it."""
    for _ in range(5):
        assert await lifecycle.hand_over(await claimed(redis, lifecycle, max_attempts=1))
    await claimed(redis, lifecycle, max_attempts=1)
    await lapse(redis)
    assert await lifecycle.lose(ALICE, "ex_1") == "ended"


async def test_what_was_to_be_cancelled_is_not_tried_again(redis: Redis, lifecycle: Lifecycle) -> None:
    """A worker that was lost before it could cancel leaves a cancelled execution, in the words of who asked."""
    await claimed(redis, lifecycle)
    await lifecycle.cancel(ALICE, "ex_1", reason="enough", by="alice")
    await lapse(redis)
    assert await lifecycle.lose(ALICE, "ex_1") == "ended"
    assert (await events_of(redis))[-1] == ExecutionCancelled(reason="enough", by="alice")


async def test_words_that_do_not_fit_are_left_out(redis: Redis) -> None:
    """Where a worker's limit is below the edge's, a cancel loses its reason and not its effect."""
    narrow = Lifecycle(redis, LogLimits(max_event_bytes=1024), Redactor())
    await claimed(redis, narrow)
    words = '{"reason":"' + "x" * 2000 + '","by":"alice"}'
    await redis.hset(KEYS.record, "cancel", words)
    await lapse(redis)
    assert await narrow.lose(ALICE, "ex_1") == "ended"
    assert (await events_of(redis))[-1] == ExecutionCancelled()


async def test_a_claimed_attempt_writes_only_while_the_record_says_so(redis: Redis, lifecycle: Lifecycle) -> None:
    """After a failover that lost the claim, or everything, the worker's events are refused: else it would go on with
    nobody knowing of it, beside the worker that takes the execution next."""
    await lifecycle.accept(ALICE, "ex_1", START)
    before: Any = await redis.dump(KEYS.record)
    job = await claimed(redis, lifecycle)
    event = [prepare(Thinking(thought="…"), "ex_1", redact=Redactor())]
    await append(redis, ALICE, "ex_1", event, attempt=job.attempt, mode="claimed")
    await redis.restore(KEYS.record, 0, before, replace=True)
    with pytest.raises(Superseded):
        await append(redis, ALICE, "ex_1", event, attempt=job.attempt, mode="claimed")
    await redis.flushall()
    with pytest.raises(UnknownExecution):
        await append(redis, ALICE, "ex_1", event, attempt=job.attempt, mode="claimed")
    assert not await redis.exists(KEYS.record)


async def test_an_attempt_that_another_worker_has_claimed_again_is_its_own(
    redis: Redis, redis_url: str, lifecycle: Lifecycle
) -> None:
    """A failover lost the claim, and the next worker got the same number, before the first one knows: it can neither
    write, start a child, end the attempt, nor hand it over."""
    await lifecycle.accept(ALICE, "ex_1", START)
    before: Any = await redis.dump(KEYS.record)
    first = await claimed(redis, lifecycle)
    await redis.restore(KEYS.record, 0, before, replace=True)
    second: Any = await jobs.claim(redis, Entry("writer", b"1-1", ALICE, "ex_1"), "w2", 60_000, 3)
    assert (second.attempt, second.worker) == (first.attempt, "w2")
    async with Publisher(redis_url=redis_url) as publisher:
        for job, is_first in ((first, True), (second, False)):
            emitter = AgentEmitter("alice", "ex_1", org="acme", publisher=publisher, attempt=1, claimed=job.worker)
            await emitter.thinking("…")
            with pytest.raises(Superseded) if is_first else contextlib.nullcontext():
                await emitter.flush()
            await emitter.close()
    above = await lifecycle.children.parentage(ALICE, "ex_1", on_parent_end="cancel", key="")
    for job, is_first in ((first, True), (second, False)):
        with pytest.raises(Superseded) if is_first else contextlib.nullcontext():
            await lifecycle.start_child(
                ALICE, "ex_2", Start(task="x", agent="echo", above=above), attempt=1, worker=job.worker
            )
    assert not await lifecycle.hand_over(first)
    with pytest.raises(Superseded):
        await lifecycle.end(first, ExecutionComplete(result=None, duration=1))
    assert await lifecycle.hand_over(second)


async def test_questions_outlive_the_attempt_that_asked(redis: Redis, lifecycle: Lifecycle) -> None:
    """A superseded attempt waits for nothing any more, but an answer to its question is kept for the retry; asking
    again waits again, and of an answered question it does not."""
    question = InputRequired(input_id="q", prompt="Sure?", kind="approval")
    await claimed(redis, lifecycle)
    await write(redis, question)
    assert (await record_of(redis))["state"] == "waiting_input"
    await lapse(redis)
    await lifecycle.lose(ALICE, "ex_1")
    assert (await record_of(redis))["state"] == "queued"
    await claimed(redis, lifecycle, "w2")
    await write(redis, question)
    assert (await record_of(redis))["state"] == "waiting_input"
    await write(redis, InputReceived(input_id="q", by="alice", value=True))
    assert (await record_of(redis))["state"] == "running"
    await write(redis, question)
    assert (await record_of(redis))["state"] == "running"


async def test_several_questions_are_all_waited_for(redis: Redis, lifecycle: Lifecycle) -> None:
    """The execution runs again when the last open question has its answer, however often one was asked."""
    await claimed(redis, lifecycle)
    for name in ("a", "ab", "b", "ab"):
        await write(redis, InputRequired(input_id=name, prompt=name, kind="text"))
    states = []
    for name in ("ab", "b", "a"):
        await write(redis, InputReceived(input_id=name, by="alice", value="x"))
        states.append((await record_of(redis))["state"])
    assert states == ["waiting_input", "waiting_input", "running"]


async def test_what_cannot_be_given_to_an_agent_fails(redis: Redis, lifecycle: Lifecycle) -> None:
    """`fail` ends a claimed execution, and nobody looks after it any more."""
    job = await claimed(redis, lifecycle)
    await lifecycle.fail(ALICE, "ex_1", job.attempt, error="no JSON", code="invalid_job")
    assert (await events_of(redis))[-1] == ExecutionError(error="no JSON", code="invalid_job")
    assert not await is_looked_after(redis)
    with pytest.raises(AppendRefused):
        await lifecycle.fail(ALICE, "ex_1", job.attempt, error="no JSON", code="invalid_job")
