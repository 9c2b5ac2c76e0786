"""Budgets with real worker processes: killed, blocked, several in a row."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from emitter import Budget
from emitter.budgets import Spent
from emitter.events import (
    BudgetNotice,
    Event,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    ExecutionSuperseded,
    Thinking,
    UsageTotals,
)
from emitter.store.lifecycle import Start
from emitter.wire.record import ExecutionRecord
from tests.edges import eventually
from tests.faults.chaos import invariants
from tests.faults.conftest import ALICE, HERE, Stand
from tests.workers import WorkerProcess

pytestmark = pytest.mark.timeout(120)


def worker(stand: Stand, **options: Any) -> WorkerProcess:
    options = {"lease_seconds": 1, "grace_seconds": 0, **options}
    started = WorkerProcess(stand.url, "budget_agents:agents", HERE, **options)
    stand.workers.append(started)
    return started


async def accept(stand: Stand, agent: str, budget: Budget | None = None, **params: Any) -> str:
    start = Start(task="t", agent=agent, params=params, budget=budget or Budget())
    assert await stand.lifecycle.accept(ALICE, "ex_1", start)
    return "ex_1"


async def spent(stand: Stand) -> Spent:
    return ExecutionRecord.read(await stand.redis.hgetall(ALICE.execution("ex_1").record)).spent


def of(events: list[Event], kind: type[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


async def test_a_worker_killed_again_and_again(stand: Stand) -> None:
    """The counts of the record are exactly those of the log, over all attempts; the last one stops within a step of the
    limit."""
    name = await accept(stand, "spender", Budget(total_tokens=600), tokens=10, pause=0.1)
    for _ in range(3):
        running = worker(stand)
        attempts = len(of(await stand.events(name), ExecutionStarted))
        async with asyncio.timeout(45):
            while len(of(await stand.events(name), ExecutionStarted)) == attempts:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        running.kill()
    worker(stand)
    error: ExecutionError = await stand.until(name, ExecutionError, 60)
    assert error.code == "budget_exceeded"
    events = await stand.events(name)
    assert len(of(events, ExecutionStarted)) >= 3
    found = await spent(stand)
    assert not invariants.budgets(await stand.written(name), (found.total_tokens, found.tool_calls))
    assert 600 <= found.total_tokens < 600 + 20
    assert [each.action for each in of(events, BudgetNotice)] == ["continuing", "stopping"]
    assert of(events, ExecutionStarted)[-1].budget.limit == Budget(total_tokens=600, tool_calls=500)


async def test_an_agent_that_kills_its_worker_ends_with_its_budget(stand: Stand) -> None:
    """Each attempt makes one of two calls and kills its worker: the reaper starts no third."""
    name = await accept(stand, "crasher", Budget(tool_calls=2))
    for _ in range(2):
        running = worker(stand)
        await asyncio.to_thread(running.process.wait, 45)
    worker(stand)
    error: ExecutionError = await stand.until(name, ExecutionError)
    assert error.error == "over its budget (toolCalls): 2 tool calls spent of 2"
    events = await stand.events(name)
    assert len(of(events, ExecutionStarted)) == 2
    assert [each.action for each in of(events, BudgetNotice)] == ["continuing", "stopping"]


async def test_time_of_lost_attempts_counts(stand: Stand) -> None:
    """Until their leases end; the next attempt has the rest."""
    name = await accept(stand, "sleeper", Budget(seconds=8))
    running = worker(stand)
    await stand.until(name, Thinking)
    await asyncio.sleep(2)
    running.kill()
    killed_ms = time.time() * 1000
    worker(stand)
    error: ExecutionError = await stand.until(name, ExecutionError)
    assert error.code == "budget_exceeded"
    events = await stand.events(name)
    assert len(of(events, ExecutionSuperseded)) == 1
    first, second = of(events, ExecutionStarted)
    before = second.budget.spent.seconds
    assert 0.5 < before < (killed_ms - first.started_at) / 1000 + 2, "a lease of 1 s, and what ran before"
    assert 8 <= (await spent(stand)).seconds < 8 + before, "the second attempt had less than the first"


async def test_an_agent_that_blocks_the_loop_is_told(stand: Stand) -> None:
    """`cancelled` turns true when the time is over, although the loop that would say so is blocked."""
    name = await accept(stand, "blocker", Budget(seconds=2))
    worker(stand, lease_seconds=10)
    error: ExecutionError = await stand.until(name, ExecutionError)
    assert error.code == "budget_exceeded"
    assert (await spent(stand)).seconds < 18, "before it is done"


async def test_an_agent_that_blocks_the_loop_for_good_is_cut(stand: Stand) -> None:
    """The execution ends about a second late, by the thread of the leases."""
    name = await accept(stand, "deaf", Budget(seconds=2))
    running = worker(stand, lease_seconds=10)
    await stand.until(name, Thinking)
    began = time.monotonic()
    error: ExecutionError = await stand.until(name, ExecutionError)
    assert time.monotonic() - began < 18, "before the agent is done"
    assert error.code == "budget_exceeded"
    await eventually("the worker's log", lambda: bool(running.logged("execution_cut")))
    assert running.logged("execution_cut")[0]["then"] == "execution:error"


async def test_a_sync_agent_plans_with_what_is_left(stand: Stand) -> None:
    name = await accept(stand, "plain", Budget(tool_calls=7))
    worker(stand)
    end: ExecutionComplete = await stand.until(name, ExecutionComplete)
    assert end.result == 6
    assert (await spent(stand)).tool_calls == 6


async def test_a_graph_stops(stand: Stand) -> None:
    """The usage of its models counts, over all its runs: the fourth turn of 30 tokens is over 100."""
    name = await accept(stand, "graph")
    worker(stand)
    error: ExecutionError = await stand.until(name, ExecutionError)
    assert error.error == "over its budget (totalTokens): 120 tokens spent of 100"
    assert [each.total_tokens for each in of(await stand.events(name), UsageTotals)] == [30, 60, 90, 120]
