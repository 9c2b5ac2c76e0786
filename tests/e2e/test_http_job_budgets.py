"""Budgets of workers over HTTP: the edge keeps them at each publish, renewal, claim and release."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from tests.edges import EdgeProcess, edges, under_load
from tests.http_workers import HttpWorker, announced, execute, state_of, types_of, until_ended

LEASE_SECONDS = 10.0
_agents = (f"spender-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def pair() -> Iterator[list[EdgeProcess]]:
    with (
        EmbeddedRedis() as server,
        edges(server.url, 2, lease_seconds=LEASE_SECONDS, executes_per_minute=0, budget_tool_calls=50) as started,
    ):
        yield started


@pytest.fixture
def agent() -> str:
    """An agent that no other test has."""
    return next(_agents)


async def use(worker: HttpWorker, job: Any, tokens: int, **headers: str) -> Any:
    usage = {"inputTokens": tokens, "outputTokens": 0, "totalTokens": tokens}
    return await worker.publish(job, "usage", headers, **usage)


async def until_lost(worker: HttpWorker, job: Any, seconds: float) -> Any:
    async with asyncio.timeout(under_load(seconds)):
        while (said := (await worker.renew(job, wait_seconds=2))[0])["state"] != "lost":
            pass
    return said


async def test_a_job_has_its_budget(pair: list[EdgeProcess], agent: str) -> None:
    """Of the request, the agent and the settings the smallest limits; the log's beginning has them as well."""
    worker = await announced(pair, {"name": agent, "budget": {"totalTokens": 900, "seconds": 60}})
    execution_id = await execute(pair[0], agent, budget={"totalTokens": 1000, "costUsd": 2.5})
    job = await worker.one()
    limit = {"totalTokens": 900, "costUsd": 2.5, "toolCalls": 50, "seconds": 60}
    spent = {"totalTokens": 0, "costUsd": 0, "toolCalls": 0, "seconds": 0}
    assert job["budget"] == {"limit": limit, "spent": spent}
    await worker.start(job)
    state = (await state_of(pair[1], execution_id))["budget"]
    assert (state["limit"], state["spent"] | {"seconds": 0}) == (limit, spent)


@pytest.mark.parametrize("says_started", [True, False])
async def test_the_publish_that_passes_the_limit(pair: list[EdgeProcess], agent: str, says_started: bool) -> None:
    """It is accepted, and ends the execution: the next one is 409, a renewal says so, and the worker has room again."""
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent, budget={"totalTokens": 100})
    job = await worker.one()
    if says_started:
        await worker.start(job)
    assert (await use(worker, job, 85)).status == 202
    assert (await use(worker, job, 120)).status == 202
    refused = await worker.publish(job, "thinking", thought="more")
    assert (refused.status, refused.body["type"]) == (409, "urn:runcast:problem:execution-ended")
    (said,) = await worker.renew(job)
    assert (said["state"], said["why"]) == ("lost", "ended")
    state = await until_ended(pair[1], execution_id)
    assert (state["status"], state["error"]["code"]) == ("failed", "budget_exceeded")
    assert state["error"]["error"] == "over its budget (totalTokens): 120 tokens spent of 100"
    assert (state["budget"]["limit"]["totalTokens"], state["budget"]["spent"]["totalTokens"]) == (100, 120)
    types = await types_of(pair[0], execution_id)
    assert types == ["execution:queued", "execution:started", "usage", "budget", "usage", "budget", "execution:error"]


async def test_a_repeat_counts_once(pair: list[EdgeProcess], agent: str) -> None:
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent, budget={"toolCalls": 2})
    job = await worker.one()
    for _ in range(4):
        headers = {"Producer-Id": "w", "Producer-Seq": "1"}
        await worker.publish(job, "tool:start", headers, callId="c1", toolName="search", params={})
    assert (await worker.renew(job))[0]["state"] == "held"
    assert (await state_of(pair[0], execution_id))["budget"]["spent"]["toolCalls"] == 1
    assert (await worker.complete(job)).status == 202


async def test_its_time_is_over(pair: list[EdgeProcess], agent: str) -> None:
    """A renewal that waits warns, and then ends it."""
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent, budget={"seconds": 6})
    job = await worker.one()
    await worker.start(job)
    said = await until_lost(worker, job, 10)
    assert said["why"] == "budget"
    state = await until_ended(pair[0], execution_id)
    assert state["error"]["code"] == "budget_exceeded"
    assert "(seconds)" in state["error"]["error"]
    assert (await types_of(pair[0], execution_id))[-3:] == ["budget", "budget", "execution:error"]


async def test_what_children_spend(pair: list[EdgeProcess], agent: str) -> None:
    """It counts for the root, whose worker hears that it has ended; the child is cancelled."""
    worker = await announced(pair, agent)
    root = await execute(pair[0], agent, budget={"totalTokens": 100})
    parent = await worker.one()
    await worker.start(parent)
    child_id = await execute(pair[0], agent, parentExecutionId=root)
    child = await worker.one()
    assert child["executionId"] == child_id
    assert (await use(worker, child, 110)).status == 202
    said = await until_lost(worker, parent, 2 * LEASE_SECONDS)
    assert said["why"] in ("budget", "ended")
    assert (await until_ended(pair[1], root))["error"]["code"] == "budget_exceeded"
    assert (await worker.renew(child))[0]["state"] == "cancel"


async def test_nothing_is_left_for_another_attempt(pair: list[EdgeProcess], agent: str) -> None:
    """Neither after a failure, nor after the job was given back."""
    worker = await announced(pair, agent)
    for failure in ({"error": "busy"}, {}):
        execution_id = await execute(pair[0], agent, budget={"toolCalls": 1})
        job = await worker.one()
        await worker.publish(job, "tool:start", callId="c1", toolName="search", params={})
        assert (await worker.renew(job))[0]["state"] == "held"
        assert (await worker.release(job, **failure))["state"] == ("failed" if failure else "released")
        assert await worker.claim(1) == []
        state = await until_ended(pair[0], execution_id)
        assert (state["status"], state["error"]["code"]) == ("failed", "budget_exceeded")


async def test_a_later_attempt_goes_on_with_what_is_left(pair: list[EdgeProcess], agent: str) -> None:
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent, budget={"totalTokens": 100})
    first = await worker.one()
    await use(worker, first, 60)
    await worker.release(first)
    second = await worker.one()
    assert second["budget"]["spent"]["totalTokens"] == 60
    assert (await use(worker, second, 30)).status == 202
    assert (await use(worker, second, 40)).status == 202
    state = await until_ended(pair[0], execution_id)
    assert state["error"]["error"] == "over its budget (totalTokens): 100 tokens spent of 100"


async def test_a_worker_cannot_set_its_own_budget(pair: list[EdgeProcess], agent: str) -> None:
    """`execution:started` under an attempt has the budget of the record, whatever the worker says."""
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent, budget={"totalTokens": 100})
    job = await worker.one()
    nothing = {"totalTokens": 0, "costUsd": 0, "toolCalls": 0, "seconds": 0}
    own = {"limit": {"totalTokens": 10**6}, "spent": nothing}
    started = await worker.publish(job, "execution:started", task="t", startedAt=1, attempt=1, budget=own)
    assert started.status == 202, started
    await use(worker, job, 100)
    assert (await until_ended(pair[0], execution_id))["error"]["code"] == "budget_exceeded"


async def test_a_budget_that_is_wrong(pair: list[EdgeProcess], agent: str) -> None:
    for budget in ({"totalTokens": 0}, {"seconds": -1}, {"toolCalls": "many"}):
        worker = HttpWorker(pair, [])
        answer = await worker.ask("claim", waitSeconds=0, agents=[{"name": agent, "budget": budget}])
        assert (answer.status, answer.body["type"]) == (422, "urn:runcast:problem:invalid"), answer
