"""The worker runtime against a real Redis: what runs, how it ends, and how the worker stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import Fatal, Retry
from emitter.__main__ import main
from emitter.errors import AppendRefused, EmitterClosed, ExecutionEnded, UnknownInput
from emitter.events import Event, ExecutionComplete, ExecutionQueued, ExecutionSuperseded, InputReceived
from emitter.store import announcements, jobs
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import connect
from emitter.store.lifecycle import Lifecycle
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import DUE, JOBS_GROUP, Owner, jobs_key
from emitter.wire.redact import Redactor
from emitter.worker.agents import Agents, Context, SyncContext
from emitter.worker.worker import Worker, WorkerSettings
from tests.edges import under_load

ALICE = Owner("alice", "acme")
TERMINAL = ("execution:complete", "execution:error", "execution:cancelled")
NO_RENEWAL = {"renew_seconds": 60.0, "lease_seconds": 300.0}
ROOT = Path(__file__).parents[3]


# --- the other side: what a broker and a viewer do ---


async def write(redis: Redis, execution_id: str, event: Event, **options: Any) -> None:
    prepared = prepare(event, execution_id, redact=Redactor())
    await append(redis, ALICE, execution_id, [prepared], first_seq=1, **options)


async def accept(redis: Redis, agent: str, execution_id: str = "ex_1", **fields: str) -> str:
    record = {"task": "Write it", "agent": agent, **fields}
    await write(
        redis,
        execution_id,
        ExecutionQueued(task="Write it", agent=agent),
        producer="broker",
        mode="new",
        fields=record,
    )
    await jobs.enqueue(redis, ALICE, execution_id, agent)
    return execution_id


async def request_cancel(redis: Redis, execution_id: str, *, wake: bool = True) -> None:
    keys = ALICE.execution(execution_id)
    await redis.hset(keys.record, "cancel", '{"reason":"enough","by":"alice"}')
    if wake:
        await redis.publish(keys.control, "cancel")


async def events_of(redis: Redis, execution_id: str = "ex_1") -> list[tuple[str, Any]]:
    rows: Any = await redis.xrange(ALICE.execution(execution_id).log)
    found = [next(iter(fields.values())) for _, fields in rows]
    return [(head.type, event) for head, event in map(decode_envelope, found)]


async def heard_by_someone(redis: Redis, channel: str) -> None:
    """Wait until a channel has a subscriber."""
    client: Any = redis
    async with asyncio.timeout(under_load(15)):
        while not (await client.pubsub_numsub(channel))[0][1]:
            await asyncio.sleep(0.01)


async def until(redis: Redis, *types: str, execution_id: str = "ex_1") -> Any:
    """Wait for the first event of one of these types; returns it."""
    log, last = ALICE.execution(execution_id).log, "0"
    async with asyncio.timeout(under_load(15)):
        while True:
            reply: Any = await redis.xread({log: last}, block=1000)
            for _, rows in reply or []:
                for id_, fields in rows:
                    last = id_
                    head, event = decode_envelope(next(iter(fields.values())))
                    if head.type in types:
                        return event


async def until_nothing_is_due(redis: Redis) -> None:
    """A regular renewal that meets the end may schedule one more check, which the reaper makes within a lease."""
    async with asyncio.timeout(10):
        while await redis.zcard(DUE):
            await asyncio.sleep(0.02)


async def end_of(redis: Redis, execution_id: str = "ex_1") -> Any:
    return await until(redis, *TERMINAL, execution_id=execution_id)


async def types_of(redis: Redis, execution_id: str = "ex_1") -> list[str]:
    return [type_ for type_, _ in await events_of(redis, execution_id)]


async def field(redis: Redis, name: str, execution_id: str = "ex_1") -> str:
    value: Any = await redis.hget(ALICE.execution(execution_id).record, name)
    return "" if value is None else value.decode()


def quick(url: str, **changes: Any) -> WorkerSettings:
    options = {"lease_seconds": 3.0, "grace_seconds": 5.0, "cancel_grace_seconds": 0.3, "block_ms": 100}
    return WorkerSettings(redis_url=url, **{**options, **changes})


@contextlib.asynccontextmanager
async def working(agents: Agents, url: str, **changes: Any) -> AsyncIterator[Worker]:
    """A worker that runs for the length of the block; leaving it is a stop within a bound."""
    worker = Worker(agents, quick(url, **changes))
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        async with asyncio.timeout(15):
            await task


async def run_once(agents: Agents, redis: Redis, url: str, agent: str = "agent", **fields: str) -> Any:
    """Run one execution of an agent under a worker; returns its end."""
    await accept(redis, agent, **fields)
    async with working(agents, url):
        return await end_of(redis)


def only(function: Any, **options: Any) -> Agents:
    agents = Agents()
    agents.agent("agent", **options)(function)
    return agents


async def forever(context: Context) -> None:
    await asyncio.Event().wait()


# --- what runs ---


async def test_an_execution_runs_from_queued_to_complete(redis: Redis, redis_url: str) -> None:
    """A worker starts the agent with everything that was accepted, and its return value is the result."""
    seen: dict[str, Any] = {}

    async def agent(context: Context) -> dict[str, int]:
        for name in ("task", "params", "metadata", "execution_id", "user_id", "org", "attempt", "conversation_id"):
            seen[name] = getattr(context, name)
        seen["cancelled"] = context.cancelled
        await context.emitter.thinking("Hm")
        return {"n": 1}

    end = await run_once(
        only(agent), redis, redis_url, params='{"p":1}', metadata='{"m":2}', conversationId="c", requestId="req-7"
    )
    assert (end.result, end.duration >= 0) == ({"n": 1}, True)
    assert seen == {
        "task": "Write it", "params": {"p": 1}, "metadata": {"m": 2}, "execution_id": "ex_1", "user_id": "alice",
        "org": "acme", "attempt": 1, "conversation_id": "c", "cancelled": False,
    }  # fmt: skip
    assert await types_of(redis) == ["execution:queued", "execution:started", "thinking", "execution:complete"]
    assert (await events_of(redis))[1][1].attempt == 1
    assert await field(redis, "state") == "completed"
    rows: Any = await redis.xrange(ALICE.execution("ex_1").log)
    head, _ = decode_envelope(rows[2][1][b"thinking"])
    assert (head.request_id, head.agent) == ("req-7", "agent")


async def test_a_finished_execution_leaves_nothing_in_the_queue(redis: Redis, redis_url: str) -> None:
    """After the end there is no entry, no pending delivery, no lease, no consumer and no announcement."""

    async def agent(context: Context) -> int:
        return 1

    await accept(redis, "agent")
    async with working(only(agent), redis_url):
        await end_of(redis)
        await until_nothing_is_due(redis)
    assert await redis.xlen(jobs_key("agent")) == 0
    assert await redis.xinfo_consumers(jobs_key("agent"), JOBS_GROUP) == []
    assert await announcements.live_workers(redis) == []
    assert await announcements.known_agents(redis) == {"agent"}


async def test_a_sync_agent_runs_in_a_thread_with_a_blocking_emitter(redis: Redis, redis_url: str) -> None:
    """A plain function gets blocking calls, off the event loop, and its result ends the execution the same way."""
    threads = []

    def agent(context: SyncContext) -> str:
        threads.append(threading.current_thread())
        with context.emitter.tool("search", {"q": 1}) as call:
            call.result = 2
        return context.task

    assert (await run_once(only(agent), redis, redis_url)).result == "Write it"
    assert threads[0] is not threading.main_thread()
    assert (await types_of(redis))[2:-1] == ["tool:start", "tool:complete"]


async def test_concurrency_is_a_bound(redis: Redis, redis_url: str) -> None:
    """With two slots and two agents, five executions run two at a time, and all run."""
    running = peak = 0

    async def agent(context: Context) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await context.emitter.flush()
        await asyncio.sleep(0.05)
        running -= 1

    agents = only(agent)
    agents.agent("other")(agent)
    agents.agent("third")(agent)
    ids = [await accept(redis, name, f"ex_{name}_{n}") for name in ("agent", "other", "third") for n in range(2)]
    async with working(agents, redis_url, concurrency=2):
        for execution_id in ids:
            await end_of(redis, execution_id)
    assert peak == 2


async def test_two_workers_never_run_the_same_execution(redis: Redis, redis_url: str) -> None:
    """However often a job is offered, its execution runs once."""
    runs: list[str] = []

    async def agent(context: Context) -> None:
        runs.append(context.execution_id)

    ids = [await accept(redis, "agent", f"ex_{n}") for n in range(10)]
    for execution_id in ids:
        await jobs.enqueue(redis, ALICE, execution_id, "agent")
    agents = only(agent)
    async with working(agents, redis_url), working(agents, redis_url):
        for execution_id in ids:
            await end_of(redis, execution_id)
    assert sorted(runs) == sorted(ids)


async def test_a_job_that_a_dead_worker_had_read_is_run(redis: Redis, redis_url: str) -> None:
    """An entry that is pending with a consumer that died is recovered once it is idle for longer than the lease."""

    async def agent(context: Context) -> str:
        return "ran"

    await accept(redis, "agent")
    await jobs.ensure_group(redis, "agent")
    (entry,) = await jobs.read(redis, ["agent"], "dead", count=1, block_ms=100)
    await redis.xclaim(jobs_key("agent"), JOBS_GROUP, "dead", 0, [entry.id], idle=60_000)
    async with working(only(agent), redis_url):
        assert (await end_of(redis)).result == "ran"


@pytest.mark.parametrize("spoil", ["params", "record"])
async def test_a_record_that_cannot_be_claimed_holds_nobody_up(redis: Redis, redis_url: str, spoil: str) -> None:
    """A job whose record makes no sense is left, and the job behind it runs."""

    async def agent(context: Context) -> str:
        return "ran"

    await accept(redis, "agent", "ex_bad", params="{")
    if spoil == "record":
        await redis.set(ALICE.execution("ex_bad").record, "what?")
    await accept(redis, "agent")
    async with working(only(agent), redis_url, concurrency=1):
        assert (await end_of(redis)).result == "ran"


async def test_a_worker_says_that_it_lives(redis: Redis, redis_url: str) -> None:
    """While it runs, a worker is announced with its agents and what it is doing; afterwards it is not."""
    async with working(only(forever, description="Waits", tags=["slow"]), redis_url, concurrency=3) as worker:
        async with asyncio.timeout(5):
            while not (live := await announcements.live_workers(redis)):
                await asyncio.sleep(0.01)
        assert (live[0].id, live[0].pid, live[0].concurrency) == (worker.id, os.getpid(), 3)
        assert live[0].rss_bytes is not None
        assert live[0].started_at is not None
        assert 0 <= time.time() * 1000 - live[0].started_at < 60_000
        (agent,) = await announcements.live_agents(redis)
        assert (agent.name, agent.description, agent.tags) == ("agent", "Waits", ("slow",))
    assert await announcements.live_workers(redis) == []


async def test_a_worker_whose_loop_is_held_says_so(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that blocks the event loop shows in the next announcement as lag."""
    monkeypatch.setattr("emitter.worker.worker.ANNOUNCE_SECONDS", 0.1)
    async with working(only(forever), redis_url):
        async with asyncio.timeout(20):
            while not (live := await announcements.live_workers(redis)):
                await asyncio.sleep(0.01)
            while (live[0].loop_lag_ms or 0) < 200:
                time.sleep(0.4)  # what must never happen
                await asyncio.sleep(0.05)
                live = await announcements.live_workers(redis)


# --- one end, whatever the agent does ---


async def test_an_exception_ends_the_execution_with_its_name(redis: Redis, redis_url: str) -> None:
    """What an agent raises is the error; the stack trace is in the record and never in the log."""

    async def agent(context: Context) -> None:
        raise LookupError("no such page")

    end = await run_once(only(agent), redis, redis_url)
    assert (end.error, end.code) == ("LookupError: no such page", "agent_error")
    stack = await field(redis, "stack")
    assert "in agent" in stack
    assert "emitter/worker/attempt.py" not in stack
    rows = await redis.xrange(ALICE.execution("ex_1").log)
    assert b"Traceback" not in repr(rows).encode()


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nor this")


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError: the agent cancelled itself"),
        (ValueError("bad name \udcff"), "ValueError: bad name \\udcff"),
        (Unshowable(), "Unshowable: (its message cannot be shown)"),
        (ExceptionGroup("two", [ValueError("a")]), "ValueError: a"),
        (ExecutionEnded("ex_other", "failed"), "ExecutionEnded: execution ex_other: already failed; its log is closed"),
    ],
)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_nothing_an_agent_raises_ends_the_worker(
    redis: Redis, redis_url: str, raised: BaseException, error: str, kind: str
) -> None:
    """Whatever is raised, also what would end a process, becomes the one terminal event of its execution."""

    async def agent(context: Context) -> None:
        raise raised

    def blocking(context: SyncContext) -> None:
        raise raised

    end = await run_once(only(agent if kind == "async" else blocking), redis, redis_url)
    assert (end.error, end.code) == (error, "agent_error")


async def test_a_huge_message_is_clipped(redis: Redis, redis_url: str) -> None:
    """An error larger than an event may be still ends the execution, clipped."""

    async def agent(context: Context) -> None:
        raise ValueError("x" * 1_000_000)

    end = await run_once(only(agent), redis, redis_url)
    assert len(end.error) == 2_000


@pytest.mark.parametrize("result", [object(), {1: {2}, "x": lambda: 0}, "x" * 200_000, "\udcff"])
async def test_an_agent_does_not_fail_for_what_it_returns(redis: Redis, redis_url: str, result: Any) -> None:
    """A result with no JSON form, or over the size limit, has the nearest form, with a mark."""

    async def agent(context: Context) -> Any:
        return result

    end = await run_once(only(agent), redis, redis_url)
    assert end.type == "execution:complete"


@pytest.mark.parametrize("then", ["return", "raise", "wait"])
async def test_an_agent_may_write_its_own_end(redis: Redis, redis_url: str, then: str) -> None:
    """After its own terminal event an agent may return, raise or tidy up: there is no second end."""
    tidied = asyncio.Event()

    async def agent(context: Context) -> int:
        await context.emitter.execution_complete({"mine": True})
        if then == "raise":
            raise ValueError
        if then == "wait":
            await asyncio.sleep(2.5)  # over two renewals
        tidied.set()
        return 2

    agents = only(agent)
    await accept(redis, "agent")
    async with working(agents, redis_url):
        assert (await end_of(redis)).result == {"mine": True}
        if then != "raise":
            async with asyncio.timeout(under_load(5)):
                await tidied.wait()
        await until_nothing_is_due(redis)
    assert [type_ for type_ in await types_of(redis) if type_ in TERMINAL] == ["execution:complete"]


async def test_one_refused_event_does_not_end_an_agent(redis: Redis, redis_url: str) -> None:
    """An answer to what nobody asked is refused at its call; an agent that lives with that goes on to its own end."""

    async def agent(context: Context) -> str:
        with pytest.raises(UnknownInput):
            await context.emitter.emit(InputReceived(input_id="never-asked", by="agent"))
        return "done"

    end = await run_once(only(agent), redis, redis_url)
    assert (end.type, end.result) == ("execution:complete", "done")


async def test_an_agent_stops_quietly_when_somebody_else_ended_the_execution(redis: Redis, redis_url: str) -> None:
    """`ExecutionEnded` out of the emitter is no failure: nothing is added to the closed log."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def agent(context: Context) -> None:
        begun.set()
        await go.wait()
        await context.emitter.thinking("too late")
        await context.emitter.flush()

    await accept(redis, "agent")
    async with working(only(agent), redis_url):
        await begun.wait()
        await until(redis, "execution:started")
        await write(redis, "ex_1", ExecutionComplete(result=7, duration=0), producer="other")
        go.set()
    assert await types_of(redis) == ["execution:queued", "execution:started", "execution:complete"]


# --- time limits ---


async def test_a_thread_that_never_looks_gives_its_slot_back(redis: Redis, redis_url: str) -> None:
    """A sync agent that hangs is ended without its thread; its emitter refuses, and the next execution runs."""
    hang, refusals = threading.Event(), []

    def agent(context: SyncContext) -> str:
        if context.execution_id == "ex_1":
            hang.wait(20)
            for _ in range(2):
                try:
                    context.emitter.thinking("from beyond")
                except (EmitterClosed, AppendRefused) as error:
                    refusals.append(error)
            hang.clear()
        return "ran"

    await accept(redis, "agent")
    await accept(redis, "agent", "ex_2")
    async with working(only(agent, time_limit=2.0), redis_url, concurrency=1):
        assert (await end_of(redis)).code == "timeout"
        assert (await end_of(redis, "ex_2")).result == "ran"
        hang.set()
        async with asyncio.timeout(5):
            while len(refusals) < 2:
                await asyncio.sleep(0.01)
    assert (await types_of(redis))[-1] == "execution:error"


# --- cancelling ---


@pytest.mark.parametrize("kind", ["async", "sync", "sync-ask"])
async def test_a_cancel_reaches_the_agent_at_once(redis: Redis, redis_url: str, kind: str) -> None:
    """A running agent gets `CancelledError` (a sync one sees `cancelled`), and the end says why and by whom. It is the
    wake-up that does it: the next renewal would be a long time off."""
    begun, stopped = threading.Event(), threading.Event()

    async def agent(context: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert context.cancelled
            stopped.set()

    def blocking(context: SyncContext) -> None:
        begun.set()
        while not context.cancelled:
            time.sleep(0.01)
        stopped.set()

    def asking(context: SyncContext) -> None:
        begun.set()
        try:
            context.ask("Publish?")
        finally:
            stopped.set()

    function = {"async": agent, "sync": blocking, "sync-ask": asking}[kind]
    await accept(redis, "agent")
    async with working(only(function), redis_url, cancel_grace_seconds=20.0, **NO_RENEWAL):
        await until(redis, "input:required" if kind == "sync-ask" else "execution:started")
        await asyncio.to_thread(begun.wait, 5)
        await request_cancel(redis, "ex_1")
        asked = time.monotonic()
        end = await end_of(redis)
    assert (end.type, end.reason, end.by) == ("execution:cancelled", "enough", "alice")
    assert stopped.is_set()
    assert time.monotonic() - asked < under_load(5)
    assert await field(redis, "state") == "cancelled"


async def test_a_cancel_nobody_announced_is_found_by_the_renewal(redis: Redis, redis_url: str) -> None:
    """Pub/sub is only the wake-up: with the message lost, the record still tells."""
    await accept(redis, "agent")
    async with working(only(forever), redis_url):
        await until(redis, "execution:started")
        await request_cancel(redis, "ex_1", wake=False)
        assert (await end_of(redis)).by == "alice"


async def test_a_new_subscription_counts_as_a_wake_up(redis: Redis, redis_url: str) -> None:
    """After the pub/sub connection broke, the record is looked at as soon as it is back."""
    await accept(redis, "agent")
    async with working(only(forever), redis_url, **NO_RENEWAL):
        await until(redis, "execution:started")
        await heard_by_someone(redis, ALICE.execution("ex_1").control)
        await request_cancel(redis, "ex_1", wake=False)
        assert await redis.client_kill_filter(_type="pubsub") >= 1
        assert (await end_of(redis)).by == "alice"


async def test_what_was_cancelled_before_it_started_never_starts(redis: Redis, redis_url: str) -> None:
    """A request that stands in the record at the claim ends the execution without the agent."""
    started = []

    async def agent(context: Context) -> None:
        started.append(context)

    end = await run_once(only(agent), redis, redis_url, cancel='{"by":"bob"}')
    assert (end.type, end.by, started) == ("execution:cancelled", "bob", [])


async def test_an_agent_that_swallows_its_cancellation_is_cut(redis: Redis, redis_url: str) -> None:
    """It is ended all the same after a bound, its slot is free, and its emitter takes nothing more."""
    released, refused = asyncio.Event(), asyncio.Event()

    async def agent(context: Context) -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        try:
            await context.emitter.thinking("still here")
        except (ExecutionEnded, EmitterClosed):
            refused.set()

    await accept(redis, "agent")
    async with working(only(agent), redis_url, concurrency=1) as worker:
        await until(redis, "execution:started")
        await request_cancel(redis, "ex_1")
        assert (await end_of(redis)).type == "execution:cancelled"
        async with asyncio.timeout(5):
            while not worker.leftovers:
                await asyncio.sleep(0.01)
            released.set()
            await refused.wait()
    assert not worker.leftovers


async def test_an_agent_whose_cancellation_got_lost_is_cancelled_again(redis: Redis, redis_url: str) -> None:
    """A library that swallows one cancellation does not leave the agent behind."""

    async def agent(context: Context) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    await accept(redis, "agent")
    async with working(only(agent), redis_url) as worker:
        await until(redis, "execution:started")
        await request_cancel(redis, "ex_1")
        assert (await end_of(redis)).type == "execution:cancelled"
        assert not worker.leftovers


async def test_an_agent_that_answers_cancellation_with_an_error_is_cancelled(redis: Redis, redis_url: str) -> None:
    """What an agent raises or returns while it lets go does not change why it ended."""

    async def agent(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while tidying up")

    await accept(redis, "agent")
    async with working(only(agent), redis_url):
        await until(redis, "execution:started")
        await request_cancel(redis, "ex_1")
        assert (await end_of(redis)).type == "execution:cancelled"


# --- losing an execution ---


async def test_what_a_worker_claimed_and_never_started_runs_soon(redis: Redis, redis_url: str) -> None:
    """A worker that died right after its claim costs an attempt and a few seconds, not a round of the queue's looks."""

    async def agent(context: Context) -> int:
        return context.attempt

    await accept(redis, "agent")
    await jobs.ensure_group(redis, "agent")
    (entry,) = await jobs.read(redis, ["agent"], "dead", count=1, block_ms=100)
    await jobs.claim(redis, entry, "dead", 1, 3)
    async with working(only(agent), redis_url, lease_seconds=0.5):
        assert (await end_of(redis)).result == 2


async def test_an_agent_is_stopped_when_another_attempt_takes_over(redis: Redis, redis_url: str) -> None:
    """The renewal of a lost execution cancels the agent, and the old attempt writes no end and touches no lease."""
    stopped = asyncio.Event()

    async def agent(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    await accept(redis, "agent")
    async with working(only(agent), redis_url):
        await until(redis, "execution:started")
        await redis.hset(ALICE.execution("ex_1").record, mapping={"attempt": "2", "owner": "w2"})
        async with asyncio.timeout(5):
            await stopped.wait()
    assert await types_of(redis) == ["execution:queued", "execution:started"]
    assert await redis.zscore(DUE, "acme:alice:ex_1") is not None


async def test_the_next_attempt_may_come_to_the_same_worker(redis: Redis, redis_url: str) -> None:
    """The only worker stood still for longer than its lease. The job is there before the old attempt has ended here: it
    waits for that, and not for the queue's next look in a minute."""

    async def agent(context: Context) -> int:
        if context.attempt == 1:
            await forever(context)
        return context.attempt

    await accept(redis, "agent")
    keys, lifecycle = ALICE.execution("ex_1"), Lifecycle(redis, LogLimits(), Redactor())
    async with working(only(agent), redis_url, **NO_RENEWAL):
        await until(redis, "execution:started")
        await heard_by_someone(redis, keys.control)
        async with asyncio.timeout(15):
            await redis.hset(keys.record, "lease", "1")
            while await lifecycle.lose(ALICE, "ex_1") == "kept":  # the new subscription has renewed it
                await redis.hset(keys.record, "lease", "1")
            while await redis.xlen(jobs_key("agent")):
                await asyncio.sleep(0.01)
        await redis.publish(keys.control, "cancel")  # the renewal finds that the lease is lost
        assert (await end_of(redis)).result == 2


async def test_a_lease_is_kept_for_as_long_as_the_agent_runs(redis: Redis, redis_url: str) -> None:
    """Renewals move the lease in the record and in `DUE` while the agent runs."""
    await accept(redis, "agent")
    async with working(only(forever), redis_url, grace_seconds=0):
        await until(redis, "execution:started")
        first = int(await field(redis, "lease"))
        async with asyncio.timeout(5):
            while (now := int(await field(redis, "lease"))) <= first:
                await asyncio.sleep(0.05)
            while (await redis.zscore(DUE, "acme:alice:ex_1") or 0) < now:
                await asyncio.sleep(0.05)
        assert await field(redis, "state") == "running"


# --- stopping ---


async def test_a_stop_lets_running_agents_finish(redis: Redis, redis_url: str) -> None:
    """Within the grace period what runs comes to its own end, and nothing new is claimed."""
    go = asyncio.Event()

    async def agent(context: Context) -> str:
        await go.wait()
        return "finished"

    await accept(redis, "agent")
    async with working(only(agent), redis_url) as worker:
        await until(redis, "execution:started")
        worker.stop()
        await accept(redis, "agent", "ex_2")
        go.set()
        assert (await end_of(redis)).result == "finished"
    assert await field(redis, "state", "ex_2") == "queued"


async def test_a_stop_hands_back_what_does_not_finish(redis: Redis, redis_url: str) -> None:
    """After the grace period the agent is cancelled and its execution waits again; another worker runs it as attempt 2,
    and the log says that it was handed over."""
    attempts = []

    async def agent(context: Context) -> str:
        attempts.append(context.attempt)
        if context.attempt == 1:
            await asyncio.Event().wait()
        return "second"

    agents = only(agent)
    await accept(redis, "agent")
    async with working(agents, redis_url, grace_seconds=0.1):
        await until(redis, "execution:started")
    assert (await field(redis, "state"), await field(redis, "owner")) == ("queued", "")
    async with working(agents, redis_url):
        assert (await end_of(redis)).result == "second"
    assert attempts == [1, 2]
    events = await events_of(redis)
    expected = ["queued", "started", "superseded", "started", "complete"]
    assert [type_ for type_, _ in events] == [f"execution:{name}" for name in expected]
    assert events[2][1] == ExecutionSuperseded(from_seq=1, attempt=2)


async def test_a_second_stop_ends_at_once(redis: Redis, redis_url: str) -> None:
    """`stop_now` cuts the grace period short, also for an agent that swallows its cancellation; it is handed back."""
    released = asyncio.Event()

    async def agent(context: Context) -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    await accept(redis, "agent")
    async with working(only(agent), redis_url, grace_seconds=600, cancel_grace_seconds=600) as worker:
        await until(redis, "execution:started")
        worker.stop()
        worker.stop_now()
        async with asyncio.timeout(20):
            while await field(redis, "state") != "queued":
                await asyncio.sleep(0.05)
    released.set()


# --- Redis away ---


async def test_cut_connections_cost_nothing(redis: Redis, redis_url: str) -> None:
    """With every connection of the worker cut while an agent runs, its events and its end still arrive, once."""
    go = asyncio.Event()

    async def agent(context: Context) -> str:
        await context.emitter.thinking("before")
        await go.wait()
        await context.emitter.thinking("after")
        return "done"

    await accept(redis, "agent")
    async with working(only(agent), redis_url):
        await until(redis, "thinking")
        for kind in ("normal", "pubsub"):
            await redis.client_kill_filter(_type=kind, skipme=True)
        go.set()
        assert (await end_of(redis)).result == "done"
        await accept(redis, "agent", "ex_2")
        assert (await end_of(redis, "ex_2")).result == "done"
    assert (await types_of(redis))[2:] == ["thinking", "thinking", "execution:complete"]


async def test_a_worker_outlives_its_redis(tmp_path: Path) -> None:
    """Redis goes away and comes back empty: the worker makes its queue anew and goes on."""

    async def agent(context: Context) -> str:
        return "ran"

    with EmbeddedRedis() as server:
        redis = connect(server.url)
        await accept(redis, "agent")
        async with working(only(agent), server.url):
            await end_of(redis)
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(0.5)  # the time that Redis is away
            await asyncio.to_thread(server.start)
            await redis.aclose()
            redis = connect(server.url)
            await accept(redis, "agent", "ex_2")
            assert (await end_of(redis, "ex_2")).result == "ran"
        await redis.aclose()


async def test_a_stop_is_bounded_while_redis_is_away() -> None:
    """A worker whose Redis never comes back still stops."""
    with EmbeddedRedis() as server:
        redis = connect(server.url)
        await accept(redis, "agent")
        async with working(only(forever), server.url, grace_seconds=0.1):
            await until(redis, "execution:started")
            await redis.aclose()
            await asyncio.to_thread(server.stop)


# --- the process ---

PROGRAM = """
import asyncio
from emitter.worker.agents import Agents, Context
agents = Agents()

@agents.agent("quick")
async def quick(context: Context) -> str:
    return "quick"

@agents.agent("slow")
async def slow(context: Context) -> str:
    await asyncio.sleep(0.5 if context.params.get("ends") else 600)
    return "slow"

@agents.agent("broken")
async def broken(context: Context) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch("https://ann:hunter22@example.com"))
    except* OSError:
        pass

async def fetch(url: str) -> None:
    raise ValueError(f"no page at {url}")

@agents.agent("deaf")
async def deaf(context: Context) -> None:
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

nothing = 3
empty = Agents()
"""


class Process:
    """A real `python -m emitter`; `lines` are its log once it has ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def has_logged(self, event: str) -> None:
        """Wait for a line of its log; it is not among those of `wait`."""
        assert self.process.stderr is not None
        async with asyncio.timeout(under_load(20)):
            while json.loads(await self.process.stderr.readline())["event"] != event:
                pass

    async def wait(self) -> tuple[int | None, list[dict[str, Any]]]:
        async with asyncio.timeout(under_load(20)):
            _, stderr = await self.process.communicate()
        return self.process.returncode, [json.loads(line) for line in stderr.splitlines()]


@contextlib.asynccontextmanager
async def process(folder: Path, url: str, **variables: str) -> AsyncIterator[Process]:
    (folder / "my_agents.py").write_text(PROGRAM)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "emitter", "my_agents:agents",
        cwd=folder, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RUNCAST_REDIS_URL": url, **variables},
    )  # fmt: skip
    try:
        yield Process(child)
    finally:
        if child.returncode is None:
            child.kill()
            await child.communicate()


async def test_a_worker_process_stops_in_order_on_sigterm(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    """SIGTERM: what runs finishes, the announcement goes, the log is JSON, and the exit code is 0."""
    async with process(tmp_path, redis_url) as worker:
        await accept(redis, "quick")
        assert (await end_of(redis)).result == "quick"
        await accept(redis, "slow", "ex_2", params='{"ends":true}')
        await until(redis, "execution:started", execution_id="ex_2")
        worker.send(signal.SIGTERM)
        code, lines = await worker.wait()
    assert (await end_of(redis, "ex_2")).result == "slow"
    assert code == 0
    assert await announcements.live_workers(redis) == []
    names = [line["event"] for line in lines]
    assert [names[0], names[-1]] == ["worker_started", "worker_stopped"]
    ended = [line for line in lines if line["event"] == "execution_ended"]
    assert [(line["execution"], line["outcome"]) for line in ended] == [("ex_1", "completed"), ("ex_2", "completed")]


async def test_the_log_says_what_broke_and_where(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    """The error and its traceback stand in the worker's own log, without credentials."""
    async with process(tmp_path, redis_url) as worker:
        await accept(redis, "broken")
        error = (await end_of(redis)).error
        worker.send(signal.SIGTERM)
        _, lines = await worker.wait()
    (line,) = [line for line in lines if line["event"] == "agent_failed"]
    assert (line["execution"], line["agent"], line["attempt"]) == ("ex_1", "broken", 1)
    assert line["error"] == error
    assert error.startswith("ValueError: no page at https://")
    assert "in fetch" in line["exception"]
    assert "hunter22" not in line["exception"] + line["error"]


async def test_on_a_terminal_the_log_is_for_people(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    """Lines with colours and a traceback as Python prints it, instead of JSON."""
    here, there = os.openpty()
    (tmp_path / "my_agents.py").write_text(PROGRAM)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "emitter", "my_agents:agents",
        cwd=tmp_path, stderr=there, env={**os.environ, "PYTHONPATH": str(ROOT), "RUNCAST_REDIS_URL": redis_url},
    )  # fmt: skip
    os.close(there)
    try:
        await accept(redis, "broken")
        await end_of(redis)
        child.send_signal(signal.SIGTERM)
        await asyncio.wait_for(child.wait(), under_load(20))
        text = os.read(here, 65_536).decode()
    finally:
        os.close(here)
        if child.returncode is None:
            child.kill()
    assert "agent_failed" in text
    assert "Traceback (most recent call last)" in text.replace("+ Exception Group ", "")
    assert '{"' not in text


async def test_a_worker_process_hands_back_after_its_grace(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    """What outlasts RUNCAST_GRACE_SECONDS waits again when the process is gone."""
    async with process(tmp_path, redis_url, RUNCAST_GRACE_SECONDS="0.2") as worker:
        await accept(redis, "slow")
        await until(redis, "execution:started")
        worker.send(signal.SIGINT)
        code, _ = await worker.wait()
    assert code == 0
    assert await field(redis, "state") == "queued"
    assert await redis.xlen(jobs_key("slow")) == 1


async def test_the_second_signal_ends_a_worker_process_at_once(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    """Neither a long grace period nor an agent that cannot be cancelled holds the process up."""
    async with process(tmp_path, redis_url, RUNCAST_GRACE_SECONDS="600") as worker:
        await accept(redis, "deaf")
        await until(redis, "execution:started")
        worker.send(signal.SIGTERM)
        await worker.has_logged("worker_stopping")  # signals of one kind that wait together are one
        worker.send(signal.SIGTERM)
        code, _ = await worker.wait()
    assert code == 0
    assert await field(redis, "state") == "queued"


# --- the command line ---


def test_a_bad_limit_of_the_log_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the publisher reads for itself is answered like the worker's own settings: one line, and exit code 2."""
    monkeypatch.setenv("RUNCAST_LOG_MAXLEN", "many")
    assert main(["e2e_none:agents"], {}) == 2  # the module is looked for first
    capsys.readouterr()
    assert main(["emitter.demo:agents"], {}) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "RUNCAST_LOG_MAXLEN" in error
    assert "'many'" in error
    assert "whole number" in error


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("RUNCAST_WORKER_CONCURRENCY", "many", "a whole number from 1 to 1000"),
        ("RUNCAST_WORKER_CONCURRENCY", "0", "a whole number from 1 to 1000"),
        ("RUNCAST_LEASE_SECONDS", "0.5", "a number from 1 to 86400"),
        ("RUNCAST_LOOP_BLOCKED_SECONDS", "0", "a number from 1 to 86400"),
        ("RUNCAST_GRACE_SECONDS", "nan", "a number from 0 to 86400"),
        ("RUNCAST_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_bad_variable_stops_the_start(
    variable: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one line names the variable, its value and what is allowed; the exit code is 2."""
    assert main(["x:agents"], {variable: value}) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"{variable}: {value!r}" in line
    assert allowed in line


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://bob:secret@x", "scheme 'http' is not one of redis"),
        ("redis://bob:secret@x?decode_responses=true", "option 'decode_responses'"),
        ("redis+sentinel://bob:secret@x/main", "a Sentinel is not host:port"),
        ("redis+sentinel://bob:secret/@x:1/main", "a Sentinel is not host:port"),
        ("redis://bob:secret@x:port", "its port or a number"),
        ("redis://bob:secret/word@x:1", "%2F"),
    ],
)
def test_a_bad_address_stops_the_start(url: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The one line names the variable and what is wrong, and does not show the password."""
    assert main(["x:agents"], {"RUNCAST_REDIS_URL": url}) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "RUNCAST_REDIS_URL: " in line
    assert told in line
    assert "secret" not in line


def test_a_flag_wins_over_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    """A bad flag is reported by the flag's name, and a good variable does not save it."""
    assert main(["x:agents", "--concurrency", "-1"], {"RUNCAST_WORKER_CONCURRENCY": "5"}) == 2
    assert "--concurrency: '-1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("my_agents", "not of the form MODULE:AGENTS"),
        ("no_such_module:agents", "cannot import 'no_such_module': ModuleNotFoundError"),
        ("broken:agents", "cannot import 'broken': ZeroDivisionError: division by zero"),
        ("my_agents:missing", "has no 'missing'"),
        ("my_agents:nothing", "'nothing' in it is a int"),
        ("my_agents:empty", "has no agents registered"),
    ],
)
def test_what_is_no_agents_object_stops_the_start(
    where: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module that cannot be imported, or is not what it should be, is one clear line and exit code 2."""
    (tmp_path / "my_agents.py").write_text(PROGRAM)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_agents", raising=False)
    assert main([where], {}) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert problem in line


def test_a_worker_without_agents_is_refused() -> None:
    """A worker that could run nothing does not start."""
    with pytest.raises(ValueError, match="no agent"):
        Worker(Agents())


# --- trying again ---


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_agent_that_fails_for_a_moment_is_tried_again(redis: Redis, redis_url: str, kind: str) -> None:
    """What the failed attempt said is void, as ever; the next one begins after the pause."""
    agents, at = Agents(), []

    def fail_twice(attempt: int) -> int:
        at.append(time.monotonic())
        if attempt < 3:
            raise Retry(after=0.7) from ConnectionError("the model is away")
        return attempt

    @agents.agent("async")
    async def ours(context: Context) -> int:
        await context.emitter.thinking("hm")
        return fail_twice(context.attempt)

    @agents.agent("sync")
    def blocking(context: SyncContext) -> int:
        context.emitter.thinking("hm")
        return fail_twice(context.attempt)

    await accept(redis, kind)
    async with working(agents, redis_url):
        end = await end_of(redis)
        await until_nothing_is_due(redis)
    assert end.result == 3
    attempt = ["execution:started", "thinking", "execution:superseded"]
    assert (await types_of(redis))[1:7] == attempt * 2
    assert at[1] - at[0] >= 0.7
    assert at[2] - at[1] >= 0.7


@pytest.mark.parametrize(
    ("raised", "options", "tries"),
    [
        (Retry(after=0), {}, 3),
        (Retry(after=0), {"max_attempts": 1}, 1),
        (Fatal("never"), {"retry_on": Exception}, 1),
        (ValueError("no"), {}, 1),
        (Retry("again", after=0), {"retry_on": (), "max_attempts": 2}, 2),
    ],
    ids=str,
)
async def test_so_often_it_is_tried(
    redis: Redis, redis_url: str, raised: Exception, options: dict[str, Any], tries: int
) -> None:
    """The last failure is the end, in its own words."""
    agents, attempts = Agents(), []

    @agents.agent("agent", **options)
    async def agent(context: Context) -> None:
        attempts.append(context.attempt)
        raise raised

    end = await run_once(agents, redis, redis_url)
    assert attempts == list(range(1, tries + 1))
    assert end.code == "agent_error"
    assert end.error.startswith(type(raised).__name__)


async def test_a_pause_outlives_the_worker(redis: Redis, redis_url: str) -> None:
    """Another worker makes the next attempt, not before its time; it can be cancelled meanwhile."""
    agents = Agents()

    @agents.agent("agent")
    async def agent(context: Context) -> int:
        if context.attempt == 1:
            raise Retry(after=1.5)
        return context.attempt

    started = time.monotonic()
    async with working(agents, redis_url):
        await accept(redis, "agent")
        await until(redis, "execution:superseded")
    assert await field(redis, "state") == "queued"
    async with working(agents, redis_url):
        assert (await end_of(redis)).result == 2
    assert time.monotonic() - started >= 1.5


async def test_what_waits_for_its_next_attempt_can_be_cancelled(redis: Redis, redis_url: str) -> None:
    agents = Agents()

    @agents.agent("agent")
    async def agent(context: Context) -> None:
        raise Retry(after=600)

    async with working(agents, redis_url):
        await accept(redis, "agent")
        await until(redis, "execution:superseded")
        lifecycle = Lifecycle(redis, LogLimits(), Redactor())
        assert await lifecycle.cancel(ALICE, "ex_1", reason=None, by="alice") == "cancelled"


def test_what_is_to_be_tried_again_must_be_exceptions() -> None:
    agents = Agents()
    with pytest.raises(TypeError, match="retry_on"):
        agents.agent("agent", retry_on=("ValueError",))(lambda context: None)  # type: ignore[arg-type]
