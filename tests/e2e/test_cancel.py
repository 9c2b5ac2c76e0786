"""Cancelling over HTTP: any edge reaches any worker, whatever the execution is doing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import EdgeProcess, Follower, call, edges, read_log, stream_path, token_for, under_load
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
ALICE = token_for("alice")


class Stand:
    """Two edges and two workers over one Redis."""

    def __init__(self, server: EmbeddedRedis, both: Sequence[EdgeProcess], redis: Redis) -> None:
        self.url = server.url
        self.edges = both
        self.redis = redis

    async def execute(self, agent: str, edge: int = 0, **fields: Any) -> str:
        body = {"task": "t", "agent": agent, **fields}
        answer = await call(self.edges[edge].port, "POST", "/api/agent/execute", ALICE, body)
        assert answer.status == 202, answer
        return str(answer.body["executionId"])

    async def cancel(self, execution_id: str, edge: int = 1, **body: Any) -> Any:
        path = f"/api/agent/executions/{execution_id}/cancel"
        return await call(self.edges[edge].port, "POST", path, ALICE, body)

    def follow(self, execution_id: str) -> Follower:
        return Follower(self.edges, stream_path(execution_id), ALICE)

    async def types(self, execution_id: str) -> list[str]:
        return [event.type for event in await read_log(self.redis, Owner("alice").execution(execution_id).log)]


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[EmbeddedRedis, list[EdgeProcess]]]:
    """A Redis, two edges and two workers for all tests here; each leaves no execution that runs."""
    with EmbeddedRedis() as server, edges(server.url, 2, heartbeat_seconds=1, executes_per_minute=0) as both:
        workers = [
            WorkerProcess(server.url, "control_agents:agents", HERE, grace_seconds=0, concurrency=100) for _ in range(2)
        ]
        try:
            yield server, both
        finally:
            for worker in workers:
                worker.close()


@pytest.fixture
async def stand(ground: tuple[EmbeddedRedis, list[EdgeProcess]]) -> AsyncIterator[Stand]:
    server, both = ground
    async with connect(server.url) as redis:
        async with asyncio.timeout(under_load(20)):
            while len((await call(both[0].port, "GET", "/api/agent/agents", ALICE)).body["agents"]) < 4:
                await asyncio.sleep(0.05)
        yield Stand(server, both, redis)


@pytest.mark.parametrize("agent", ["sleeper", "blocker"])
async def test_a_running_agent_is_cancelled(stand: Stand, agent: str) -> None:
    """The agent is stopped, the log ends with who asked and why, and a second cancel changes nothing."""
    execution_id = await stand.execute(agent)
    async with stand.follow(execution_id) as viewer:
        await viewer.until_events(3)
        assert (await stand.cancel(execution_id, reason="enough")).status == 202
        await viewer.until_done()
    end = json.loads(viewer.events[-1].data)
    assert (end["type"], end["data"]) == ("execution:cancelled", {"reason": "enough", "by": "alice"})
    again = await stand.cancel(execution_id, reason="again")
    assert (again.status, again.body["state"]) == (202, "cancelled")
    assert (await stand.types(execution_id)).count("execution:cancelled") == 1


@pytest.mark.parametrize("agent", ["asker", "blocked-asker"])
async def test_an_agent_that_waits_for_a_person_is_cancelled(stand: Stand, agent: str) -> None:
    """Cancelling while an input is open ends the wait and the execution; the answer comes too late."""
    execution_id = await stand.execute(agent)
    async with stand.follow(execution_id) as viewer:
        await viewer.until("asked", lambda self: any(event.type == "input:required" for event in self.events))
        asked = json.loads(viewer.events[-1].data)["data"]["inputId"]
        assert (await stand.cancel(execution_id)).status == 202
        await viewer.until_done()
    assert viewer.events[-1].type == "execution:cancelled"
    path = f"/api/agent/executions/{execution_id}"
    late = await call(stand.edges[0].port, "POST", path + "/input", ALICE, {"inputId": asked, "value": True})
    assert late.status == 409
    state = (await call(stand.edges[1].port, "GET", path, ALICE)).body
    assert (state["status"], state["openInputs"]) == ("cancelled", [])


async def test_two_hundred_executions_on_two_workers_are_cancelled(stand: Stand) -> None:
    """All are cancelled at once, through both edges, and each has one end."""
    names = await asyncio.gather(*(stand.execute("sleeper", number % 2) for number in range(200)))
    async with asyncio.timeout(under_load(30)):
        for name in names:
            while len(await stand.types(name)) < 3:
                await asyncio.sleep(0.02)
        answers = await asyncio.gather(*(stand.cancel(name, number % 2) for number, name in enumerate(names)))
        assert {answer.status for answer in answers} == {202}
        for name in names:
            while (await stand.types(name))[-1] != "execution:cancelled":
                await asyncio.sleep(0.02)
    expected = ["execution:queued", "execution:started", "thinking", "execution:cancelled"]
    assert all([await stand.types(name) == expected for name in names])


async def test_what_waits_is_cancelled_without_ever_starting(stand: Stand) -> None:
    """Nobody has taken it yet: its end follows at once on `execution:queued`, and no worker starts it later."""
    all_names = set(await asyncio.gather(*(stand.execute("sleeper") for _ in range(220))))
    names = all_names
    async with asyncio.timeout(under_load(30)):
        while len(names) > 20:  # until both workers are full
            names = {name for name in names if await stand.types(name) == ["execution:queued"]}
    for name in names:
        assert (await stand.cancel(name)).body["state"] == "cancelled"
    for name in all_names - names:
        await stand.cancel(name)
    done = await stand.execute("blocker")
    async with stand.follow(done) as viewer:
        await viewer.until_events(2)
    await stand.cancel(done)
    for name in names:
        assert await stand.types(name) == ["execution:queued", "execution:cancelled"]
