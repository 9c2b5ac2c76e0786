"""Budgets under a worker: what is counted, who is stopped, and how the execution ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter import Budget, Retry
from emitter.budgets import Spent
from emitter.events import ExecutionComplete, ExecutionError, Usage
from emitter.observer import Observer
from emitter.store import announcements
from emitter.store.append import append
from emitter.testing import RecordingEmitter
from emitter.wire.record import ExecutionRecord
from emitter.worker.agents import Context, SyncContext
from emitter.worker.worker import Worker
from tests.edges import under_load
from tests.emitter.store.test_spending import tool
from tests.emitter.worker.test_worker import (
    ALICE,
    NO_RENEWAL,
    accept,
    end_of,
    events_of,
    field,
    only,
    quick,
    request_cancel,
    run_once,
    types_of,
    until,
    working,
)


def of(events: list[tuple[str, Any]], type_: str) -> list[Any]:
    return [event for name, event in events if name == type_]


async def notices(redis: Redis) -> list[tuple[str, float, float, str]]:
    found = of(await events_of(redis), "budget")
    return [(each.limit, each.spent, each.max, each.action) for each in found]


async def spent(redis: Redis, execution_id: str = "ex_1") -> Spent:
    return ExecutionRecord.read(await redis.hgetall(ALICE.execution(execution_id).record)).spent


async def spend(context: Context, *totals: int) -> None:
    """Report these totals, with a pause in which a cancel may come."""
    for tokens in totals:
        await context.emitter.usage(input_tokens=tokens)
        await asyncio.sleep(0.05)


async def test_tokens(redis: Redis, redis_url: str) -> None:
    """At 80 % a notice, at the end another; the agent is cancelled, and the execution says which limit, in numbers."""
    seen: list[str] = []

    async def agent(context: Context) -> None:
        try:
            await spend(context, 500, 850, 1100)
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    end = await run_once(only(agent, budget=Budget(total_tokens=1000)), redis, redis_url)
    assert end == ExecutionError(
        error="over its budget (totalTokens): 1100 tokens spent of 1000", code="budget_exceeded"
    )
    assert await notices(redis) == [
        ("totalTokens", 850, 1000, "continuing"),
        ("totalTokens", 1100, 1000, "stopping"),
    ]
    assert seen == ["cancelled"]
    assert (await types_of(redis))[-2:] == ["budget", "execution:error"]
    assert await field(redis, "state") == "failed"
    assert (await spent(redis)).total_tokens == 1100
    (started,) = of(await events_of(redis), "execution:started")
    assert started.budget.limit == Budget(total_tokens=1000)


async def test_cost(redis: Redis, redis_url: str) -> None:
    async def agent(context: Context) -> None:
        for _ in range(100):
            await context.emitter.usage(add=Usage(input_tokens=1, output_tokens=1, total_tokens=2, cost_usd=0.1))
            await asyncio.sleep(0.02)

    end = await run_once(only(agent, budget=Budget(cost_usd=0.5)), redis, redis_url)
    assert end.error == "over its budget (costUsd): 0.5 USD spent of 0.5"
    assert [(spent, action) for _, spent, _, action in await notices(redis)] == [
        (0.4, "continuing"),
        (0.5, "stopping"),
    ]


async def test_tool_calls(redis: Redis, redis_url: str) -> None:
    """Three calls may be made; the fourth is one too many."""
    made: list[int] = []

    async def agent(context: Context) -> None:
        for number in range(10):
            async with context.emitter.tool("search") as call:
                await asyncio.sleep(0.05)
                made.append(number)
                call.result = number

    end = await run_once(only(agent, budget=Budget(tool_calls=3)), redis, redis_url)
    assert end.error == "over its budget (toolCalls): 4 tool calls spent of 3"
    assert made == [0, 1, 2]
    assert (await notices(redis))[-1] == ("toolCalls", 4, 3, "stopping")


async def test_calls_within_the_budget_are_made(redis: Redis, redis_url: str) -> None:
    async def agent(context: Context) -> str:
        for _ in range(3):
            async with context.emitter.tool("search"):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        return "done"

    end = await run_once(only(agent, budget=Budget(tool_calls=3)), redis, redis_url)
    assert isinstance(end, ExecutionComplete)


@pytest.mark.usefixtures("steady_clock")
async def test_seconds(redis: Redis, redis_url: str) -> None:
    """The agent is stopped when the time is over, not at the next renewal."""
    began = time.monotonic()

    async def agent(context: Context) -> None:
        await asyncio.sleep(30)

    await accept(redis, "agent")
    async with working(only(agent, budget=Budget(seconds=1)), redis_url, **NO_RENEWAL):
        end = await end_of(redis)
    assert end.code == "budget_exceeded"
    assert time.monotonic() - began < under_load(5)
    (first, second) = await notices(redis)
    assert (first[0], first[3], second[0], second[3]) == ("seconds", "continuing", "seconds", "stopping")
    assert 0.8 <= first[1] < 1 <= second[1] < 2
    assert 1 <= (await spent(redis)).seconds < under_load(3)


async def test_of_two_limits_the_first_decides(redis: Redis, redis_url: str) -> None:
    """Each warns once; the one that is over first ends the execution."""

    async def agent(context: Context) -> None:
        for number in range(1, 20):
            await context.emitter.tool_start(f"c{number}", "search")
            await context.emitter.usage(input_tokens=10 * number)
            await asyncio.sleep(0.05)

    end = await run_once(only(agent, budget=Budget(total_tokens=90, tool_calls=9)), redis, redis_url)
    assert end.error == "over its budget (totalTokens): 90 tokens spent of 90"
    found = await notices(redis)
    assert sorted(each[0] for each in found if each[3] == "continuing") == ["toolCalls", "totalTokens"]
    assert [each[0] for each in found if each[3] == "stopping"] == ["totalTokens"]


async def test_the_smallest_limit_counts(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the request, the agent and the settings; the agent sees them."""
    monkeypatch.setenv("RUNCAST_BUDGET_TOOL_CALLS", "7")
    monkeypatch.setenv("RUNCAST_BUDGET_TOTAL_TOKENS", "500")
    seen: list[Budget] = []

    async def agent(context: Context) -> None:
        seen.append(context.budget.limit)

    agents = only(agent, budget=Budget(total_tokens=400, seconds=60))
    await run_once(agents, redis, redis_url, budget='{"totalTokens":900,"seconds":50}')
    assert seen == [Budget(total_tokens=400, tool_calls=7, seconds=50)]
    assert await field(redis, "budget") == '{"totalTokens":400,"toolCalls":7,"seconds":50.0}'


async def test_an_agent_sees_what_is_left(redis: Redis, redis_url: str) -> None:
    """At once, before the log has what it said; without a limit there is none."""
    seen: list[Any] = []

    async def agent(context: Context) -> None:
        seen.append(context.budget.remaining.total_tokens)
        await context.emitter.usage(input_tokens=30, cost_usd=0.5)
        await context.emitter.tool_start("c", "t")
        left, used = context.budget.remaining, context.budget.spent
        seen.extend([left.total_tokens, left.cost_usd, left.tool_calls, used.total_tokens, used.cost_usd])

    await run_once(only(agent, budget=Budget(total_tokens=100, tool_calls=5)), redis, redis_url)
    assert seen == [100, 70, None, 4, 30, 0.5]


async def test_an_agent_without_a_budget(redis: Redis, redis_url: str) -> None:
    """Has no limits and no notices; it sees what it has spent itself."""
    seen: list[Any] = []

    async def agent(context: Context) -> None:
        await spend(context, 10**6)
        seen.append((context.budget.remaining, bool(context.budget.limit), context.budget.spent.total_tokens))

    end = await run_once(only(agent), redis, redis_url)
    assert isinstance(end, ExecutionComplete)
    assert [(left.total_tokens, left.seconds, has, used) for left, has, used in seen] == [(None, None, False, 10**6)]
    (started,) = of(await events_of(redis), "execution:started")
    assert started.budget is None


def test_the_context_of_a_test_has_no_limit() -> None:
    context = Context(RecordingEmitter(), task="t")
    assert (context.budget.remaining.tool_calls, context.budget.spent.tool_calls) == (None, 0)


# --- sync agents and blocked loops -----------------------------------------------------------------------------------


async def test_a_sync_agent_sees_that_it_must_stop(redis: Redis, redis_url: str) -> None:
    """`cancelled` turns true; its budget is the same."""
    seen: list[Any] = []

    def agent(context: SyncContext) -> None:
        for number in range(200):
            if context.cancelled:
                break
            context.emitter.tool_start(f"c{number}", "search")
            seen.append(context.budget.remaining.tool_calls)
            time.sleep(0.02)

    end = await run_once(only(agent, budget=Budget(tool_calls=5)), redis, redis_url)
    assert end.code == "budget_exceeded"
    assert seen[:6] == [4, 3, 2, 1, 0, 0]
    assert len(seen) < 20


async def test_a_blocked_loop_is_cut(redis: Redis, redis_url: str) -> None:
    """An agent that blocks the event loop is over its time: the thread of the leases ends the execution."""
    ended_at: list[float] = []

    async def agent(context: Context) -> None:
        await context.emitter.thinking("t")
        await context.emitter.flush()
        time.sleep(9)
        ended_at.append(time.monotonic())

    over: list[tuple[str, str]] = []

    class Counted(Observer):
        def budget_exceeded(self, agent: str, limit: str) -> None:
            over.append((agent, limit))

    await accept(redis, "agent")
    worker = Worker(only(agent, budget=Budget(seconds=4)), quick(redis_url, renew_seconds=0.2), Counted())
    found: list[Any] = []
    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, _end_elsewhere(redis_url, found)))
    task = asyncio.create_task(worker.run())
    await asyncio.wait_for(thread, 20)
    worker.stop()
    await asyncio.wait_for(task, 20)
    (moment, end) = found[0]
    assert end.code == "budget_exceeded"
    assert moment < ended_at[0], "it was ended while the loop was blocked"
    assert [each[3] for each in await notices(redis)][-1] == "stopping"
    assert over == [("agent", "seconds")]


async def _end_elsewhere(url: str, found: list[Any]) -> None:
    """Read the log on a loop of its own."""
    from emitter.store.connection import connect

    redis = connect(url)
    found.append((0.0, await end_of(redis)))
    found[0] = (time.monotonic(), found[0][1])
    await redis.aclose()


# --- attempts --------------------------------------------------------------------------------------------------------


async def test_attempts_count_together(redis: Redis, redis_url: str) -> None:
    """Each attempt reports 40 tokens from 0: the third has nothing left to begin with."""
    attempts: list[tuple[int, Any]] = []

    async def agent(context: Context) -> None:
        attempts.append((context.attempt, context.budget.remaining.total_tokens))
        await spend(context, 40)
        raise Retry(after=0)

    end = await run_once(only(agent, budget=Budget(total_tokens=110), max_attempts=9), redis, redis_url)
    assert attempts == [(1, 110), (2, 70), (3, 30)]
    assert end.error == "over its budget (totalTokens): 120 tokens spent of 110"
    assert await notices(redis) == [
        ("totalTokens", 120, 110, "stopping"),
    ]
    assert (await spent(redis)).total_tokens == 120


async def test_a_warning_is_given_once_over_all_attempts(redis: Redis, redis_url: str) -> None:
    async def agent(context: Context) -> None:
        await spend(context, 85 if context.attempt == 1 else 5)
        if context.attempt < 3:
            raise Retry(after=0)

    end = await run_once(only(agent, budget=Budget(total_tokens=100), max_attempts=9), redis, redis_url)
    assert isinstance(end, ExecutionComplete)
    assert await notices(redis) == [("totalTokens", 85, 100, "continuing")]


async def test_no_attempt_follows_a_failure_if_nothing_is_left(redis: Redis, redis_url: str) -> None:
    """The error of the last attempt stays in the text."""
    attempts: list[int] = []

    async def agent(context: Context) -> None:
        attempts.append(context.attempt)
        await context.emitter.tool_start("c", "search")
        raise ConnectionError("no route")

    end = await run_once(only(agent, budget=Budget(tool_calls=1)), redis, redis_url)
    assert attempts == [1]
    assert end.code == "budget_exceeded"
    assert end.error == (
        "over its budget (toolCalls): 1 tool calls spent of 1, and the last attempt failed: ConnectionError: no route"
    )
    assert "no route" in await field(redis, "stack")


async def test_an_attempt_is_not_started_if_nothing_is_left(redis: Redis, redis_url: str) -> None:
    """Others spent what was left while it waited for a worker."""
    started: list[int] = []

    async def agent(context: Context) -> None:
        started.append(context.attempt)

    await accept(redis, "agent", budget='{"toolCalls":2}')
    for _ in range(2):
        await append(redis, ALICE, "ex_1", [tool()])
    await redis.hset(ALICE.execution("ex_1").record, "state", "queued")
    async with working(only(agent), redis_url):
        end = await end_of(redis)
    assert started == []
    assert end.error == "over its budget (toolCalls): 2 tool calls spent of 2"
    assert await notices(redis) == [("toolCalls", 2, 2, "stopping")]


async def test_an_agent_that_ends_at_once_has_its_own_end(redis: Redis, redis_url: str) -> None:
    """What was done is done: a result that comes with the last report is not thrown away."""

    async def agent(context: Context) -> str:
        await context.emitter.usage(input_tokens=200)
        return "the answer"

    end = await run_once(only(agent, budget=Budget(total_tokens=100)), redis, redis_url)
    assert isinstance(end, ExecutionComplete)
    assert end.result == "the answer"


async def test_what_others_publish_counts(redis: Redis, redis_url: str) -> None:
    """Another process calls tools for the same execution: the worker learns of it with the next renewal."""

    async def agent(context: Context) -> None:
        await context.emitter.thinking("t")
        await asyncio.sleep(30)

    await accept(redis, "agent")
    async with working(only(agent, budget=Budget(tool_calls=2)), redis_url, renew_seconds=0.2):
        await until(redis, "thinking")
        for _ in range(3):
            await append(redis, ALICE, "ex_1", [tool()])
        end = await end_of(redis)
    assert end.error == "over its budget (toolCalls): 3 tool calls spent of 2"


async def test_a_cancel_that_was_first_decides(redis: Redis, redis_url: str) -> None:
    async def agent(context: Context) -> None:
        try:
            await context.emitter.thinking("t")
            await asyncio.sleep(30)
        finally:
            await context.emitter.usage(input_tokens=500)

    await accept(redis, "agent")
    async with working(only(agent, budget=Budget(total_tokens=100)), redis_url):
        await until(redis, "thinking")
        await request_cancel(redis, "ex_1")
        assert (await end_of(redis)).reason == "enough"


async def test_the_budget_is_announced(redis: Redis, redis_url: str) -> None:
    async def agent(context: Context) -> None: ...

    async with working(only(agent, budget=Budget(cost_usd=1.5)), redis_url):
        async with asyncio.timeout(10):
            while not (live := await announcements.live_agents(redis)):
                await asyncio.sleep(0.02)
    assert live[0].budget == Budget(cost_usd=1.5)


def test_a_budget_is_a_budget() -> None:
    with pytest.raises(TypeError, match="budget"):
        only(lambda context: None, budget={"toolCalls": 3})


# --- how far it overshoots -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parallel", "limit"), [(1, 1000), (8, 1000)])
async def test_how_far_a_run_overshoots(redis: Redis, redis_url: str, parallel: int, limit: int) -> None:
    """A call is known when it has ended: the one that passes the limit, and those that end in the same moment, are over
    it. No call begins after that."""
    tokens = 70
    began: list[float] = []

    async def calls(context: Context) -> None:
        while True:
            began.append(time.monotonic())
            await asyncio.sleep(0.02)  # a model
            call = Usage(input_tokens=tokens, output_tokens=0, total_tokens=tokens)
            await context.emitter.usage(add=call)
            await asyncio.sleep(0)

    async def agent(context: Context) -> None:
        await asyncio.gather(*(calls(context) for _ in range(parallel)))

    await run_once(only(agent, budget=Budget(total_tokens=limit)), redis, redis_url)
    over = (await spent(redis)).total_tokens - limit
    assert 0 <= over < tokens * parallel
    assert len(began) * tokens <= limit + 2 * tokens * parallel
