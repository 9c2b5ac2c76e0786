"""What the append script counts: tokens, cost and calls of tools, once each, and the time of attempts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter import Budget, events
from emitter.budgets import Reached, Spent
from emitter.errors import ExecutionEnded, Superseded
from emitter.events import BudgetNotice, ExecutionError
from emitter.store import jobs
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import connect
from emitter.store.jobs import Entry, Job
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import Owner
from emitter.wire.prepared import Prepared
from emitter.wire.record import ExecutionRecord
from emitter.wire.redact import Redactor
from tests.clusters import cluster

OWNER = Owner("alice")
REDACT = Redactor()
NO_LIMIT = Budget()


def prepared(event: events.Event, execution_id: str = "ex_1") -> Prepared:
    return prepare(event, execution_id, redact=REDACT)


def usage(tokens: int, cost: float | None = None) -> Prepared:
    return prepared(events.UsageTotals(input_tokens=tokens, output_tokens=0, total_tokens=tokens, cost_usd=cost))


def tool(call_id: str = "c") -> Prepared:
    return prepared(events.ToolStart(call_id=call_id, tool_name="t", params={}))


async def record(redis: Redis, execution_id: str = "ex_1") -> ExecutionRecord:
    return ExecutionRecord.read(await redis.hgetall(OWNER.execution(execution_id).record))


async def spent(redis: Redis, execution_id: str = "ex_1") -> Spent:
    return (await record(redis, execution_id)).spent


async def types(redis: Redis, execution_id: str = "ex_1") -> list[str]:
    rows: Any = await redis.xrange(OWNER.execution(execution_id).log)
    return [decode_envelope(next(iter(fields.values())))[0].type for _, fields in rows]


@pytest.fixture(autouse=True)
async def limited(redis: Redis) -> None:
    """The executions here have a budget."""
    for execution_id in ("ex_1", "ex_root"):
        client: Any = redis
        await client.hset(OWNER.execution(execution_id).record, "budget", '{"toolCalls":999}')


async def test_totals_and_calls_are_counted(redis: Redis) -> None:
    """Of a producer's running totals what they rise by; each start of a tool."""
    await append(redis, OWNER, "ex_1", [usage(100, 0.5), tool("a"), usage(150, 0.75)], producer="p", first_seq=1)
    await append(redis, OWNER, "ex_1", [tool("b"), usage(120, 0.9)], producer="p", first_seq=4)
    assert await spent(redis) == Spent(total_tokens=150, cost_usd=0.9, tool_calls=2)


async def test_a_repeated_batch_counts_once(redis: Redis) -> None:
    """Whole, or with a new tail: the reply to the first try was lost."""
    batch = [usage(100, 0.1), tool("a"), tool("b")]
    for _ in range(3):
        await append(redis, OWNER, "ex_1", batch, producer="p", first_seq=1)
    await append(redis, OWNER, "ex_1", [*batch, tool("c"), usage(130)], producer="p", first_seq=1)
    assert await spent(redis) == Spent(total_tokens=130, cost_usd=0.1, tool_calls=3)


async def test_each_producer_has_totals_of_its_own(redis: Redis) -> None:
    """An emitter that begins again, after its process died, begins at 0."""
    await append(redis, OWNER, "ex_1", [usage(100)], producer="p", first_seq=1)
    await append(redis, OWNER, "ex_1", [usage(40)], producer="q", first_seq=1)
    await append(redis, OWNER, "ex_1", [usage(60)], producer="q", first_seq=2)
    assert (await spent(redis)).total_tokens == 160


async def test_cost_is_added_without_rounding(redis: Redis) -> None:
    """Thirty times ten cents are three dollars; as floats they are not."""
    for number in range(1, 31):
        await append(redis, OWNER, "ex_1", [usage(1, 0.1)], producer=f"p{number}", first_seq=1)
    assert (await spent(redis)).cost_usd == 3.0


async def test_the_largest_amounts_are_added(redis: Redis) -> None:
    """What no agent spends breaks nothing."""
    for producer in ("p", "q", "r"):
        await append(redis, OWNER, "ex_1", [usage(2**53 - 1, 1e300)], producer=producer, first_seq=1)
    assert (await spent(redis)).total_tokens == 3 * 10**15


async def test_what_is_refused_counts_nothing(redis: Redis) -> None:
    """Neither what a lost attempt says late, nor what follows the end."""
    await append(redis, OWNER, "ex_1", [prepared(events.ExecutionSuperseded(from_seq=0, attempt=2))])
    with pytest.raises(Superseded):
        await append(redis, OWNER, "ex_1", [usage(100), tool()], producer="p", attempt=1)
    end = prepared(events.ExecutionComplete(result=None, duration=1))
    with pytest.raises(ExecutionEnded):
        await append(redis, OWNER, "ex_1", [tool("a"), end, tool("b")], producer="q", first_seq=1)
    assert await spent(redis) == Spent(tool_calls=1)


async def test_the_reply_has_the_counts_and_the_limits(redis: Redis) -> None:
    """If the batch has spent something."""
    fields = {"budget": '{"toolCalls":5}'}
    plain = await append(redis, OWNER, "ex_1", [prepared(events.Thinking(thought="t"))], fields=fields)
    assert plain.spent is None
    found = await append(redis, OWNER, "ex_1", [tool(), usage(7, 0.25)])
    begun = await append(redis, OWNER, "ex_2", [tool()], fields=fields)
    assert begun.budget == Budget(tool_calls=5)
    assert (found.spent, found.budget) == (Spent(total_tokens=7, cost_usd=0.25, tool_calls=1), Budget(tool_calls=5))


async def test_without_limits_nothing_is_counted(redis: Redis) -> None:
    """It would cost Redis time; but for the time of attempts."""
    found = await append(redis, OWNER, "ex_2", [tool(), usage(50, 0.5)], producer="p", first_seq=1)
    assert found.spent is None
    assert await spent(redis, "ex_2") == Spent()
    assert not [name for name in await redis.hgetall(OWNER.execution("ex_2").record) if name.startswith(b"u:")]


async def test_what_a_child_spends_counts_for_the_root(redis: Redis) -> None:
    """Once, in the same step, whether it has limits of its own or not; a root that is gone is not made again."""
    for root in ("ex_root", "ex_gone"):
        await append(redis, OWNER, root, [prepared(events.Thinking(thought="t"), root)])
    await append(redis, OWNER, "ex_root", [tool()])
    await redis.delete(OWNER.execution("ex_gone").record)
    for child in ("ex_1", "ex_3"):
        fields = {"root": "ex_root"}
        await append(redis, OWNER, child, [tool(), usage(50, 0.5)], producer="p", first_seq=1, fields=fields)
        await append(redis, OWNER, child, [tool(), usage(50, 0.5)], producer="p", first_seq=1)
        await append(redis, OWNER, child, [usage(80, 0.5)], producer="p", first_seq=3)
    assert await spent(redis, "ex_root") == Spent(total_tokens=160, cost_usd=1.0, tool_calls=3)
    await append(redis, OWNER, "ex_2", [prepared(events.Thinking(thought="t"), "ex_2")], fields={"root": "ex_gone"})
    await append(redis, OWNER, "ex_2", [tool()])
    assert not await redis.exists(OWNER.execution("ex_gone").record)


async def test_in_a_cluster_too_the_root_counts() -> None:
    """Its record is in the same slot as the child's."""
    with cluster() as made:
        async with connect(made.url) as client:
            for owner in (Owner("user1"), Owner("user2"), Owner("user3")):
                begun = prepared(events.Thinking(thought="t"), "ex_root")
                await append(client, owner, "ex_root", [begun], producer="p", first_seq=1)
                fields = {"root": "ex_root"}
                await append(client, owner, "ex_1", [tool(), usage(50)], producer="p", first_seq=1, fields=fields)
                found: Any = await client.hgetall(owner.execution("ex_root").record)
                assert ExecutionRecord.read(found).spent == Spent(total_tokens=50, tool_calls=1)


async def test_a_notice_is_stored_once(redis: Redis) -> None:
    """For each limit and action, whoever writes it. One that is not stored counts in its producer's sequence."""
    notice = prepared(BudgetNotice(limit="toolCalls", spent=8, max=10, action="continuing"))
    other = prepared(BudgetNotice(limit="costUsd", spent=8, max=10, action="continuing"))
    await append(redis, OWNER, "ex_1", [notice, tool()], producer="p", first_seq=1)
    await append(redis, OWNER, "ex_1", [notice, other, notice, tool()], producer="q", first_seq=1)
    await append(redis, OWNER, "ex_1", [notice], producer="r", first_seq=1)
    again = await append(redis, OWNER, "ex_1", [notice, other, notice, tool(), tool()], producer="q", first_seq=1)
    assert again.added == 1
    assert await types(redis) == ["budget", "tool:start", "budget", "tool:start", "tool:start"]
    assert (await spent(redis)).tool_calls == 3


# --- attempts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def lifecycle(redis: Redis) -> Lifecycle:
    return Lifecycle(redis, LogLimits(), REDACT)


async def claimed(redis: Redis, lifecycle: Lifecycle, budget: Budget = NO_LIMIT, lease_ms: int = 60_000) -> Job:
    await lifecycle.accept(OWNER, "ex_1", Start(task="t", agent="a", budget=budget))
    return await claim(redis, lease_ms)


async def claim(redis: Redis, lease_ms: int = 60_000) -> Job:
    job = await jobs.claim(redis, Entry("a", b"1-1", OWNER, "ex_1"), "w", lease_ms, 3)
    assert isinstance(job, Job)
    return job


async def test_a_claim_brings_the_budget(redis: Redis, lifecycle: Lifecycle) -> None:
    """The limits of the request, and what earlier attempts have spent."""
    first = await claimed(redis, lifecycle, Budget(total_tokens=100, seconds=60))
    assert (first.budget, first.spent) == (Budget(total_tokens=100, seconds=60), Spent())
    await append(redis, OWNER, "ex_1", [usage(30, 0.5), tool()], attempt=1, mode="claimed")
    await asyncio.sleep(0.2)
    assert await lifecycle.hand_over(first)
    second = await claim(redis)
    assert (second.attempt, second.spent.total_tokens, second.spent.tool_calls) == (2, 30, 1)
    assert 0.2 <= second.spent.seconds < 5
    (renewal,) = await jobs.renew(redis, [second], "w", 60_000)
    assert renewal.spent == Spent(total_tokens=30, cost_usd=0.5, tool_calls=1)


async def test_limits_of_the_settings_count(redis: Redis) -> None:
    """Also for an execution that was accepted without a budget."""
    lifecycle = Lifecycle(redis, LogLimits(budget_tool_calls=7, budget_cost_usd=0.5), REDACT)
    job = await claimed(redis, lifecycle, Budget(tool_calls=9, seconds=5))
    assert job.budget == Budget(tool_calls=7, cost_usd=0.5, seconds=5)


async def test_a_lost_attempt_counts_until_its_lease_ended(redis: Redis, lifecycle: Lifecycle) -> None:
    """However late the reaper finds it."""
    await claimed(redis, lifecycle, lease_ms=300)
    await asyncio.sleep(1.0)
    assert await lifecycle.lose(OWNER, "ex_1") == "superseded"
    assert (await record(redis)).spent_ms == 300


async def test_an_attempt_that_runs_counts_until_now(redis: Redis, lifecycle: Lifecycle) -> None:
    """In the record's view; its end is written with the terminal event."""
    job = await claimed(redis, lifecycle)
    found = await record(redis)
    assert found.spent.seconds == 0
    assert found.spent_until(found.claimed_ms + 1500).seconds == 1.5
    await asyncio.sleep(0.1)
    await lifecycle.end(job, events.ExecutionComplete(result=None, duration=1))
    ended = await record(redis)
    assert 100 <= ended.spent_ms < 5000
    assert ended.spent_until(ended.ms + 60_000) == ended.spent


async def test_no_attempt_follows_if_nothing_is_left(redis: Redis, lifecycle: Lifecycle) -> None:
    """The worker was lost with the budget spent: the execution has ended, and says why."""
    await claimed(redis, lifecycle, Budget(seconds=0.2), lease_ms=300)
    await asyncio.sleep(0.5)
    assert await lifecycle.lose(OWNER, "ex_1") == "ended"
    assert await types(redis) == ["execution:queued", "budget", "execution:error"]
    rows: Any = await redis.xrange(OWNER.execution("ex_1").log)
    notice, error = (decode_envelope(next(iter(fields.values())))[1] for _, fields in rows[1:])
    assert notice == BudgetNotice(limit="seconds", spent=0.3, max=0.2, action="stopping")
    assert error == ExecutionError(error="over its budget (seconds): 0.3 s spent of 0.2", code="budget_exceeded")


async def test_only_executions_without_a_worker_are_ended_from_outside(redis: Redis, lifecycle: Lifecycle) -> None:
    """A worker ends its own."""
    reached = Reached("toolCalls", 3, 2, "stopping")
    await claimed(redis, lifecycle)
    assert not await lifecycle.overspend(OWNER, "ex_1", reached)
    await append(redis, OWNER, "ex_2", [prepared(events.Thinking(thought="t"), "ex_2")])
    assert await lifecycle.overspend(OWNER, "ex_2", reached)
    assert await types(redis, "ex_2") == ["thinking", "budget", "execution:error"]
