"""One run of an agent against a real Redis: its limits, what becomes of its end, and what a lost one may write."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.errors import RedisUnavailable, RuncastError, Superseded
from emitter.events import InputReceived
from emitter.observer import Outcome
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.outbox import PublisherOptions
from emitter.publishing.publisher import Publisher
from emitter.store.append import append, prepare
from emitter.store.connection import connect
from emitter.store.jobs import Job
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import Owner
from emitter.wire.record import Cancel
from emitter.wire.redact import Redactor
from emitter.worker.agents import Agents, Context, SyncContext
from emitter.worker.attempt import Attempt
from emitter.worker.endings import HandedOver, LeaseLost
from tests.faults.outages import redis_stopped

ALICE = Owner("alice", "acme")
KEYS = ALICE.execution("ex_1")
STARTED = "execution:started"
ERROR = "execution:error"
COMPLETE = "execution:complete"
BOUND = 15.0
IDLE_SECONDS = 4.0
"""An idle limit of which no half is over while Redis is held up for a moment."""


@pytest.fixture
async def publisher(redis: Redis) -> AsyncIterator[Publisher]:
    async with Publisher(redis=redis) as publisher:
        yield publisher


def attempt_of(
    publisher: Publisher, function: Callable[[Any], Any], *, cancel_grace_seconds: float = BOUND, **options: Any
) -> Attempt:
    """A run of this agent as attempt 1 of `ex_1`."""
    agents = Agents()
    agents.agent("agent", **options)(function)
    job = Job(
        owner=ALICE, execution_id="ex_1", agent="agent", worker="w1", attempt=1, from_seq=0, lease_ms=0,
        task="Write it", params={}, metadata={}, request_id=None, conversation_id=None, cancel=None,
    )  # fmt: skip

    def open_emitter() -> AgentEmitter:
        return AgentEmitter("alice", "ex_1", org="acme", publisher=publisher, attempt=1)

    return Attempt(job, agents["agent"], open_emitter, cancel_grace_seconds)


async def outcome_of(attempt: Attempt) -> Outcome:
    async with asyncio.timeout(BOUND):
        return await attempt.execute()


@contextlib.asynccontextmanager
async def executing(attempt: Attempt) -> AsyncIterator[asyncio.Task[Outcome]]:
    """The run goes on for the length of the block, which is left when it has ended."""
    task = asyncio.create_task(outcome_of(attempt))
    try:
        yield task
    finally:
        await asyncio.wait((task,))


async def events_of(redis: Redis) -> list[Any]:
    rows: Any = await redis.xrange(KEYS.log)
    return [decode_envelope(next(iter(fields.values())))[1] for _, fields in rows]


async def types_of(redis: Redis) -> list[str]:
    return [event.type for event in await events_of(redis)]


async def until(redis: Redis, type_: str, count: int = 1) -> None:
    """Wait until the log has so many events of a type."""
    last: Any = "0"
    async with asyncio.timeout(BOUND):
        while count > 0:
            reply: Any = await redis.xread({KEYS.log: last}, block=1000)
            for _, rows in reply or []:
                last = rows[-1][0]
                count -= sum(type_.encode() in fields for _, fields in rows)


async def answer(redis: Redis, input_id: str, value: Any) -> None:
    event = prepare(InputReceived(input_id=input_id, by="bob", value=value), "ex_1", redact=Redactor())
    await append(redis, ALICE, "ex_1", [event], mode="existing")


async def forever(context: Context) -> None:
    await asyncio.Event().wait()


# --- limits ---


@pytest.mark.parametrize(
    ("options", "continuing", "stopping", "error"),
    [
        ({"time_limit": 0.4}, "running for 0.2 s; stopped at 0.4 s", "running for 0.4 s; stopped", "time limit"),
        ({"idle_limit": 0.4}, "no event for 0.2 s; stopped at 0.4 s", "no event for 0.4 s; stopped", "idle limit"),
        (
            {"time_limit": 60, "idle_limit": 0.4},
            "no event for 0.2 s; stopped at 0.4 s",
            "no event for 0.4 s; stopped",
            "idle limit",
        ),
        (
            {"time_limit": 0.4, "idle_limit": 60},
            "running for 0.2 s; stopped at 0.4 s",
            "running for 0.4 s; stopped",
            "time limit",
        ),
    ],
    ids=["time", "idle", "idle first", "time first"],
)
@pytest.mark.usefixtures("steady_clock")
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_silent_agent_is_stopped_at_the_first_limit(
    redis: Redis, publisher: Publisher, kind: str, options: dict[str, float], continuing: str, stopping: str, error: str
) -> None:
    """Half of the limit is said, then its end; the agent is cancelled, and the execution fails with code `timeout` and
    the limit's name. What the runtime says is no activity."""
    stopped = threading.Event()

    async def agent(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def blocking(context: SyncContext) -> None:
        while not context.cancelled:
            time.sleep(0.01)
        stopped.set()

    assert await outcome_of(attempt_of(publisher, agent if kind == "async" else blocking, **options)) == "timeout"
    assert stopped.is_set()
    events = await events_of(redis)
    assert [event.type for event in events] == [STARTED, "timeout", "timeout", ERROR]
    assert [(event.message, event.action) for event in events[1:3]] == [
        (continuing, "continuing"),
        (stopping, "stopping"),
    ]
    assert (events[-1].error, events[-1].code) == (f"over its {error} of 0.4 s", "timeout")


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_every_event_begins_a_new_silence(redis: Redis, publisher: Publisher, kind: str) -> None:
    """An agent that emits again after each warning lives longer than its idle limit, and each silence is warned of."""

    async def agent(context: Context) -> str:
        for number in range(1, 4):
            await until(redis, "timeout", number)
            await context.emitter.thinking("Hm")
        return "done"

    def blocking(context: SyncContext) -> str:
        for number in range(1, 4):
            asyncio.run_coroutine_threadsafe(until(redis, "timeout", number), loop).result(BOUND)
            context.emitter.thinking("Hm")
        return "done"

    loop = asyncio.get_running_loop()
    started = time.monotonic()
    attempt = attempt_of(publisher, agent if kind == "async" else blocking, idle_limit=IDLE_SECONDS)
    assert await outcome_of(attempt) == "completed"
    assert time.monotonic() - started > IDLE_SECONDS
    assert await types_of(redis) == [STARTED, *["timeout", "thinking"] * 3, COMPLETE]


async def test_streamed_text_is_activity(redis: Redis, publisher: Publisher) -> None:
    """A chunk that waits to be merged counts when it is emitted, like any event."""

    async def agent(context: Context) -> None:
        await until(redis, "timeout")
        await context.emitter.text("Well")
        await until(redis, "timeout", 2)

    assert await outcome_of(attempt_of(publisher, agent, idle_limit=IDLE_SECONDS)) == "completed"
    assert (await types_of(redis))[1:] == ["timeout", "message:delta", "timeout", "message:complete", COMPLETE]


@pytest.mark.usefixtures("steady_clock")
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_waiting_for_a_person_is_not_idle(redis: Redis, publisher: Publisher, kind: str) -> None:
    """While a question is open no silence is warned of or stopped; after the answer the clock starts anew."""

    async def agent(context: Context) -> None:
        await context.ask("Publish?", input_id="q1")
        await asyncio.Event().wait()

    def blocking(context: SyncContext) -> None:
        context.ask("Publish?", input_id="q1")
        while not context.cancelled:
            time.sleep(0.01)

    attempt = attempt_of(publisher, agent if kind == "async" else blocking, idle_limit=1.0)
    async with executing(attempt) as task:
        await until(redis, "input:required")
        await asyncio.sleep(2.2)  # over two idle limits
        assert await types_of(redis) == [STARTED, "input:required"]
        await answer(redis, "q1", value=True)
    assert task.result() == "timeout"
    assert (await types_of(redis))[2:] == ["input:received", "timeout", "timeout", ERROR]
    rows: Any = await redis.xrange(KEYS.log)
    received, warned = (int(id_.split(b"-")[0]) for id_, _ in rows[2:4])
    assert warned - received >= 199


@pytest.mark.usefixtures("steady_clock")
async def test_waiting_for_a_person_is_a_part_of_the_time_limit(redis: Redis, publisher: Publisher) -> None:
    """The time limit is of the attempt, whatever it waits for."""

    async def agent(context: Context) -> None:
        await context.ask("Publish?")

    assert await outcome_of(attempt_of(publisher, agent, time_limit=0.4, idle_limit=60)) == "timeout"
    assert (await types_of(redis))[1:] == ["input:required", "timeout", "timeout", ERROR]


@pytest.mark.usefixtures("steady_clock")
async def test_an_expired_question_begins_a_new_silence(redis: Redis, publisher: Publisher) -> None:
    """A wait that ends without an answer has not been idle either."""

    async def agent(context: Context) -> None:
        with contextlib.suppress(RuncastError):
            await context.ask("Publish?", expires_in=3.0)
        await asyncio.Event().wait()

    assert await outcome_of(attempt_of(publisher, agent, idle_limit=0.4)) == "timeout"
    types = [type_ for type_ in await types_of(redis) if type_ != "input:received"]
    assert types == [STARTED, "input:required", "timeout", "timeout", ERROR]


@pytest.mark.usefixtures("steady_clock")
@pytest.mark.parametrize("then", ["return", "raise", "emit"])
async def test_what_a_stopped_agent_still_does_changes_nothing(redis: Redis, publisher: Publisher, then: str) -> None:
    """An agent that catches its cancellation may say more, but the execution fails with `timeout` all the same."""

    async def agent(context: Context) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if then == "raise":
                raise ValueError("no time") from None
            if then == "emit":
                await context.emitter.thinking("I was nearly there")
        return "late"

    assert await outcome_of(attempt_of(publisher, agent, time_limit=0.1)) == "timeout"
    events = await events_of(redis)
    assert (events[-1].type, events[-1].code) == (ERROR, "timeout")
    assert ("thinking" in [event.type for event in events]) == (then == "emit")


async def test_an_agent_within_its_limits_is_told_nothing(redis: Redis, publisher: Publisher) -> None:
    """No notice and no wait is left behind by limits that were not reached."""

    async def agent(context: Context) -> int:
        return 1

    assert await outcome_of(attempt_of(publisher, agent, time_limit=60, idle_limit=60)) == "completed"
    assert await types_of(redis) == [STARTED, COMPLETE]


# --- Redis away ---


@contextlib.asynccontextmanager
async def small_publisher(server: EmbeddedRedis, **options: Any) -> AsyncIterator[Publisher]:
    async with Publisher(redis_url=server.url, options=PublisherOptions(**options)) as publisher:
        yield publisher


async def test_waiting_for_room_is_not_idle(own_redis: EmbeddedRedis) -> None:
    """An agent whose emitter is full because Redis is away has not gone silent."""
    full = asyncio.Event()

    async def agent(context: Context) -> str:
        await context.emitter.flush()
        full.set()
        await stopped.wait()
        for number in range(5):
            await context.emitter.thinking(str(number))
        return "done"

    stopped, client = asyncio.Event(), connect(own_redis.url)
    async with small_publisher(own_redis, max_queue_events=2) as publisher:
        async with executing(attempt_of(publisher, agent, idle_limit=IDLE_SECONDS)) as task:
            await full.wait()
            with redis_stopped(own_redis):
                stopped.set()
                await asyncio.sleep(IDLE_SECONDS + 0.5)
        assert task.result() == "completed"
    assert await types_of(client) == [STARTED, *["thinking"] * 5, COMPLETE]
    await client.aclose()


async def test_a_limit_holds_while_redis_is_away(own_redis: EmbeddedRedis) -> None:
    """The agent is cancelled in time though its queue is full; notice and end are written when Redis is back."""
    cancelled, ready, stopped, client = asyncio.Event(), asyncio.Event(), asyncio.Event(), connect(own_redis.url)

    async def agent(context: Context) -> None:
        await context.emitter.flush()
        ready.set()
        await stopped.wait()
        try:
            for number in range(5):
                await context.emitter.thinking(str(number))
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with small_publisher(own_redis, max_queue_events=2) as publisher:
        async with executing(attempt_of(publisher, agent, time_limit=4.0)) as task:
            await ready.wait()
            with redis_stopped(own_redis):
                stopped.set()
                async with asyncio.timeout(BOUND):
                    await cancelled.wait()
        assert task.result() == "timeout"
    assert (await types_of(client))[-2:] == ["timeout", ERROR]
    await client.aclose()


@pytest.mark.parametrize("then", ["return", "raise", "emit", "wait"])
async def test_an_end_of_the_agents_own_arrives_however_late(
    own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """An agent that wrote its own end while Redis was away, and went on, has it in the log when the run is over."""
    monkeypatch.setattr("emitter.worker.attempt.CLOSE_SECONDS", 0.01)  # which else might be what lets it arrive
    ready, stopped, written, client = asyncio.Event(), asyncio.Event(), asyncio.Event(), connect(own_redis.url)

    async def agent(context: Context) -> str:
        with contextlib.suppress(RedisUnavailable):  # a busy machine may need longer than `flush_timeout`
            await context.emitter.flush()
        ready.set()
        await stopped.wait()
        with contextlib.suppress(RedisUnavailable):
            await context.emitter.execution_complete("mine")
        written.set()
        if then == "raise":
            raise ValueError
        if then == "emit":
            await context.emitter.thinking("one more thing")
        if then == "wait":
            await asyncio.Event().wait()
        return "late"

    attempt = attempt_of(
        publisher := Publisher(redis_url=own_redis.url, options=PublisherOptions(flush_timeout=0.1)), agent
    )
    async with publisher, executing(attempt) as task:
        await ready.wait()
        with redis_stopped(own_redis):
            stopped.set()
            async with asyncio.timeout(BOUND):
                await written.wait()
            attempt.interrupt(Cancel("enough", "alice"))
            await asyncio.wait((task,), timeout=0.5)
            assert not task.done()
    assert task.result() == "ended"
    assert await types_of(client) == [STARTED, COMPLETE]
    await client.aclose()


# --- handed over, lost ---


async def test_what_is_handed_over_is_written_down_and_not_ended(redis: Redis, publisher: Publisher) -> None:
    """When the run is over everything that the agent emitted is in the log, also while it let go, and nothing else."""

    async def agent(context: Context) -> None:
        try:
            await context.emitter.text("Half of")
            await asyncio.Event().wait()
        finally:
            await context.emitter.thinking("letting go")

    attempt = attempt_of(publisher, agent)
    async with executing(attempt) as task:
        await until(redis, "message:delta")
        attempt.interrupt(HandedOver())
    assert task.result() == "handed_over"
    assert await types_of(redis) == [STARTED, "message:delta", "thinking"]
    assert await redis.hget(KEYS.record, "state") == b"running"


async def test_an_execution_is_given_back_when_its_log_is_whole(
    own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is handed over while Redis is away is over when Redis has taken everything."""
    monkeypatch.setattr("emitter.worker.attempt.CLOSE_SECONDS", 0.01)  # which else might be what lets it arrive
    ready, stopped, emitted, client = asyncio.Event(), asyncio.Event(), asyncio.Event(), connect(own_redis.url)

    async def agent(context: Context) -> None:
        await until(client, STARTED)  # a flush might take longer than it may here
        ready.set()
        await stopped.wait()
        await context.emitter.thinking("my last")
        emitted.set()
        await asyncio.Event().wait()

    attempt = attempt_of(
        publisher := Publisher(redis_url=own_redis.url, options=PublisherOptions(flush_timeout=0.1)), agent
    )
    async with publisher, executing(attempt) as task:
        await ready.wait()
        with redis_stopped(own_redis):
            stopped.set()
            await emitted.wait()
            attempt.interrupt(HandedOver())
            await asyncio.wait((task,), timeout=0.5)
            assert not task.done()
    assert task.result() == "handed_over"
    assert await types_of(client) == [STARTED, "thinking"]
    await client.aclose()


async def test_a_broken_emitter_does_not_keep_an_execution_from_its_next_attempt(
    redis: Redis, publisher: Publisher
) -> None:
    """What cannot be flushed any more is no reason to end an execution that is handed over."""

    async def agent(context: Context) -> None:
        await context.emitter.close()
        closed.set()
        await asyncio.Event().wait()

    closed, attempt = asyncio.Event(), attempt_of(publisher, agent)
    async with executing(attempt) as task:
        await closed.wait()
        attempt.interrupt(HandedOver())
    assert task.result() == "handed_over"
    assert await types_of(redis) == [STARTED]


@pytest.mark.parametrize("before", [None, Cancel("enough", "alice")], ids=["lost", "cancelled, then lost"])
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_lost_run_writes_nothing_more(
    redis: Redis, publisher: Publisher, kind: str, before: Cancel | None
) -> None:
    """From the moment it is lost the agent's emitter refuses, and there is no end. Not only the log's fence sees to it:
    here the record is gone, and an append would begin a new log."""
    refused: list[Exception] = []
    begun = threading.Event()

    async def agent(context: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await context.emitter.thinking("from beyond")
                await context.emitter.flush()
            except RuncastError as error:
                refused.append(error)

    def blocking(context: SyncContext) -> None:
        begun.set()
        while not context.cancelled:
            time.sleep(0.01)
        try:
            context.emitter.thinking("from beyond")
            context.emitter.flush()
        except RuncastError as error:
            refused.append(error)

    attempt = attempt_of(publisher, agent if kind == "async" else blocking)
    async with executing(attempt) as task:
        await until(redis, STARTED)
        await asyncio.to_thread(begun.wait, BOUND)
        await redis.flushall()
        if before is not None:
            attempt.interrupt(before)
        attempt.interrupt(LeaseLost())
    assert task.result() == "lost"
    assert [type(error) for error in refused] == [Superseded]
    assert await redis.keys("rc:{acme:*") == []


async def test_what_a_lost_run_had_queued_is_dropped(own_redis: EmbeddedRedis) -> None:
    """Events that still waited for Redis when the run was lost never reach the log."""
    ready, stopped, emitted, client = asyncio.Event(), asyncio.Event(), asyncio.Event(), connect(own_redis.url)

    async def agent(context: Context) -> None:
        await context.emitter.flush()
        ready.set()
        await stopped.wait()
        await context.emitter.thinking("on its way")
        while context.emitter._outbox.batch is None:  # which cannot be called back
            await asyncio.sleep(0)
        await context.emitter.thinking("queued")
        emitted.set()
        await asyncio.Event().wait()

    attempt = attempt_of(publisher := Publisher(redis_url=own_redis.url), agent)
    async with publisher:
        async with executing(attempt) as task:
            await ready.wait()
            with redis_stopped(own_redis):
                stopped.set()
                await emitted.wait()
                attempt.interrupt(LeaseLost())
        assert task.result() == "lost"
        async with AgentEmitter("alice", "ex_1", org="acme", publisher=publisher) as other:
            await other.thinking("after")
    thoughts = [event.thought for event in await events_of(client) if event.type == "thinking"]
    assert thoughts == ["on its way", "after"]
    await client.aclose()


def plain(function: Any) -> Any:
    """A decorator that knows nothing of coroutines."""

    def wrapper(context: Any) -> Any:
        context.emitter.status("wrapped", "before the agent")
        return function(context)

    return wrapper


@pytest.mark.usefixtures("steady_clock")
@pytest.mark.parametrize("decorate", [plain, lambda function: functools.wraps(function)(plain(function))])
async def test_an_async_agent_may_be_decorated_plainly(redis: Redis, publisher: Publisher, decorate: Any) -> None:
    """What the decorator returns is awaited; the agent has the context of an async one, the decorator that of a sync
    one, and it is stopped as an async one is."""
    stopped = asyncio.Event()

    async def agent(context: Context) -> Any:
        assert isinstance(context, Context)
        await context.emitter.thinking("inside")
        if context.attempt == 1 and waits:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
        return {"answer": 42}

    waits = False
    assert await outcome_of(attempt_of(publisher, decorate(agent))) == "completed"
    assert await types_of(redis) == ["execution:started", "status", "thinking", COMPLETE]
    assert (await events_of(redis))[-1].result == {"answer": 42}
    await redis.flushdb()
    waits = True
    assert await outcome_of(attempt_of(publisher, decorate(agent), time_limit=1.0)) == "timeout"
    assert stopped.is_set()
