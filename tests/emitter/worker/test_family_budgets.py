"""What children spend counts for the root of their tree, whose worker ends them all."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis.asyncio import Redis

from emitter import Budget
from emitter.budgets import Spent
from emitter.events import ExecutionCancelled, ExecutionError, Usage
from emitter.store.children import PARENT
from emitter.wire.record import ExecutionRecord
from emitter.worker.agents import Agents, Context
from tests.emitter.worker.test_worker import ALICE, accept, end_of, events_of, working

NOTICED_SECONDS = 5.0
"""A bound for a busy machine; the target is a second after the report."""


async def spender(context: Context) -> str:
    """Use 60 tokens and a call, several times."""
    for _ in range(context.params.get("times", 1)):
        async with context.emitter.tool("search"):
            await context.emitter.usage(add=Usage(input_tokens=60, output_tokens=0, total_tokens=60, cost_usd=0.25))
        await asyncio.sleep(0.05)
    await asyncio.sleep(context.params.get("then", 0))
    return "done"


async def middle(context: Context) -> Any:
    return await (await context.start("spender", "Spend", params=context.params)).result()


def family(parent: Any, budget: Budget) -> Agents:
    agents = Agents()
    agents.agent("agent", budget=budget)(parent)
    agents.agent("middle")(middle)
    agents.agent("spender")(spender)
    return agents


async def record(redis: Redis, execution_id: str = "ex_1") -> ExecutionRecord:
    return ExecutionRecord.read(await redis.hgetall(ALICE.execution(execution_id).record))


async def started_by(redis: Redis, execution_id: str) -> str:
    return str(
        next(event.execution_id for type_, event in await events_of(redis, execution_id) if type_ == "child:started")
    )


async def test_a_child_below_a_child_spends_what_the_root_has(redis: Redis, redis_url: str) -> None:
    """The root waits without a slot, at concurrency 1: it ends all the same, and what it started is cancelled."""

    async def parent(context: Context) -> Any:
        return await (await context.start("middle", "Ask", params={"times": 2, "then": 60})).result()

    await accept(redis, "agent")
    async with working(family(parent, Budget(total_tokens=100)), redis_url, concurrency=1):
        began = time.monotonic()
        end = await end_of(redis)
        assert time.monotonic() - began < 3 * NOTICED_SECONDS
        assert end == ExecutionError(
            error="over its budget (totalTokens): 120 tokens spent of 100", code="budget_exceeded"
        )
        between = await started_by(redis, "ex_1")
        child = await started_by(redis, between)
        for execution_id in (between, child):
            cancelled = await end_of(redis, execution_id)
            assert isinstance(cancelled, ExecutionCancelled)
            assert cancelled.by == PARENT
    spent = Spent(total_tokens=120, cost_usd=0.5, tool_calls=2)
    for execution_id, counted in (("ex_1", spent), (between, Spent())):
        found = (await record(redis, execution_id)).spent
        assert (found.total_tokens, found.cost_usd, found.tool_calls) == (
            counted.total_tokens, counted.cost_usd, counted.tool_calls,
        )  # fmt: skip


async def test_it_is_counted_once(redis: Redis, redis_url: str) -> None:
    """What a child has spent is in the record of the root when it is spent, and not again when it ends."""
    seen: list[Spent] = []

    async def parent(context: Context) -> Any:
        await context.emitter.usage(input_tokens=10)
        answers = [await context.call("spender", f"Spend {number}") for number in range(2)]
        async with asyncio.timeout(15):  # the next renewal has what the record has
            while context.budget.spent.tool_calls < 2 or context.budget.spent.total_tokens < 130:
                await asyncio.sleep(0.02)
        seen.append(context.budget.spent)
        return answers

    await accept(redis, "agent")
    async with working(family(parent, Budget(total_tokens=1000, tool_calls=10)), redis_url, concurrency=1):
        assert (await end_of(redis)).result == ["done", "done"]
    found = (await record(redis)).spent
    assert (found.total_tokens, found.cost_usd, found.tool_calls) == (130, 0.5, 2)
    assert (seen[0].total_tokens, seen[0].tool_calls) == (130, 2)


async def test_waiting_for_a_child_takes_time(redis: Redis, redis_url: str) -> None:
    """`seconds` go on while a parent waits for a child without a slot; the time of the child is not added."""

    async def parent(context: Context) -> Any:
        child = await context.start("spender", "Spend", params={"then": 60})
        return await child.result()

    await accept(redis, "agent")
    async with working(family(parent, Budget(seconds=1.5)), redis_url, concurrency=1):
        end = await end_of(redis)
    assert end.code == "budget_exceeded"
    assert "(seconds)" in end.error
    assert 1.4 < (await record(redis)).spent.seconds < 1.5 + NOTICED_SECONDS
