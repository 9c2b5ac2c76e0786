"""The budget of executions that no worker runs: their emitter keeps it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter, Budget, ExecutionEnded, LogLimits, Publisher, SyncAgentEmitter
from emitter.budgets import Spent
from emitter.events import BudgetNotice, Event, ExecutionError, ExecutionStarted
from emitter.store.append import append
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import Owner
from emitter.wire.record import ExecutionRecord
from tests.emitter.lossy import lossy
from tests.emitter.store.test_spending import tool

ALICE = Owner("alice")


async def log(redis: Redis, execution_id: str = "ex_1") -> list[Event]:
    rows: Any = await redis.xrange(ALICE.execution(execution_id).log)
    return [decode_envelope(next(iter(fields.values())))[1] for _, fields in rows]


async def record(redis: Redis) -> ExecutionRecord:
    return ExecutionRecord.read(await redis.hgetall(ALICE.execution("ex_1").record))


async def test_it_ends_its_execution(redis: Redis, redis_url: str) -> None:
    """With a notice at 80 %, one at the end, the code and the numbers. Every later call raises; leaving the block does
    not."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, budget=Budget(total_tokens=100)) as emitter:
        await emitter.execution_started("t")
        await emitter.usage(input_tokens=85)
        assert not emitter.cancelled
        await emitter.text("so far")
        await emitter.usage(input_tokens=120)
        assert emitter.cancelled
        async with asyncio.timeout(5):
            await emitter.until_cancelled()
        for call in (emitter.thinking("more"), emitter.execution_complete("r")):
            with pytest.raises(ExecutionEnded) as caught:
                await call
            assert caught.value.state == "failed"
    found = await log(redis)
    assert [event.type for event in found] == [
        "execution:started", "usage", "budget", "message:delta", "usage", "budget", "message:complete",
        "execution:error",
    ]  # fmt: skip
    assert isinstance(found[0], ExecutionStarted)
    assert found[0].budget is not None
    assert (found[0].budget.limit, found[0].budget.spent) == (Budget(total_tokens=100), Spent())
    assert found[2] == BudgetNotice(limit="totalTokens", spent=85, max=100, action="continuing")
    assert found[-1] == ExecutionError(
        error="over its budget (totalTokens): 120 tokens spent of 100", code="budget_exceeded"
    )
    assert (await record(redis)).budget == Budget(total_tokens=100)


async def test_limits_of_the_settings(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count for every emitter, also a blocking one; time does not: it is no time under a worker."""
    monkeypatch.setenv("RUNCAST_BUDGET_TOOL_CALLS", "2")
    monkeypatch.setenv("RUNCAST_BUDGET_SECONDS", "0.01")

    def work() -> None:
        with SyncAgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
            emitter.execution_started("t")
            for number in range(3):
                emitter.tool_start(f"c{number}", "t")
            with pytest.raises(ExecutionEnded):
                emitter.thinking("t")

    await asyncio.to_thread(work)
    end = (await log(redis))[-1]
    assert end == ExecutionError(error="over its budget (toolCalls): 3 tool calls spent of 2", code="budget_exceeded")


async def test_several_publishers_count_together(redis: Redis) -> None:
    """What another process spends is known with the answer to what this one spends."""
    async with (
        Publisher(redis=redis, limits=LogLimits()) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher, budget=Budget(tool_calls=3)) as emitter,
    ):
        await emitter.execution_started("t")
        await emitter.flush()
        for _ in range(3):
            await append(redis, ALICE, "ex_1", [tool()])
        await emitter.tool_start("c", "t")
        async with asyncio.timeout(5):
            await emitter.until_cancelled()
    assert (await log(redis))[-1].type == "execution:error"


async def test_a_publisher_without_limits_learns_those_of_the_record(redis: Redis) -> None:
    """The process that began the execution has set them."""
    async with (
        Publisher(redis=redis, limits=LogLimits()) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher, budget=Budget(tool_calls=3)) as first,
    ):
        await first.execution_started("t")
        await first.flush()
        async with AgentEmitter("alice", "ex_1", publisher=publisher) as other:
            for number in range(4):
                await other.tool_start(f"c{number}", "t")
            async with asyncio.timeout(5):
                await other.until_cancelled()
            with pytest.raises(ExecutionEnded):
                await other.thinking("t")
    assert (await log(redis))[-1].type == "execution:error"


async def test_without_a_budget_nothing_ends(redis: Redis, redis_url: str) -> None:
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.execution_started("t")
        for number in range(50):
            await emitter.tool_start(f"c{number}", "t")
            await emitter.usage(input_tokens=10**9 * number, cost_usd=10.0**6)
        await emitter.execution_complete("r")
    assert {event.type for event in await log(redis)} == {
        "execution:started", "tool:start", "usage", "execution:complete",
    }  # fmt: skip


async def test_lost_replies_count_once(redis_server: EmbeddedRedis, redis: Redis, tmp_path: Path) -> None:
    """Redis has the batch, and its answer is lost again and again: the repeats count nothing."""
    path = redis_server.url.removeprefix("unix://").partition("?")[0]
    async with lossy(path, tmp_path) as (proxy, url):
        proxy.loss_rate = 0.3
        async with AgentEmitter("alice", "ex_1", redis_url=url, budget=Budget(tool_calls=1000)) as emitter:
            await emitter.execution_started("t")
            for number in range(60):
                await emitter.tool_start(f"c{number}", "t")
                await emitter.usage(input_tokens=10 * (number + 1), cost_usd=0.1 * (number + 1))
                await emitter.flush()
            proxy.loss_rate = 0.0
            await emitter.execution_complete("r")
        assert proxy.lost > 5
    assert (await record(redis)).spent == Spent(total_tokens=600, cost_usd=6.0, tool_calls=60)
