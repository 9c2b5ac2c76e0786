"""Delayed starts over HTTP: an execution with `notBefore` waits, and starts once when its time has come."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store import announcements
from emitter.store.connection import connect
from emitter.store.jobs import redis_ms
from emitter.wire.ids import parse_event_id
from emitter.wire.keys import AGENTS_KNOWN, DUE, QUEUED, Owner, member
from emitter.worker.agents import Agents, Context
from emitter.worker.worker import Worker, WorkerSettings
from tests.edges import ROOT, Answer, EdgeProcess, call, edges, read_log, token_for, under_load

EXECUTE = "/api/agent/execute"
DAY_MS = 86_400_000
SOON_MS = 4_000
"""What a test does before that moment is done by then."""
RAN = ["execution:queued", "execution:started", "execution:complete"]

_users = (f"user-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="module")
def both(server: EmbeddedRedis) -> Iterator[list[EdgeProcess]]:
    with edges(server.url, 2, heartbeat_seconds=1, executes_per_minute=0) as started:
        yield started


@pytest.fixture
async def redis(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """Where the agent is known, though no worker may be there."""
    client = connect(server.url)
    await client.zadd(AGENTS_KNOWN, {"agent": await redis_ms(client), "counter": await redis_ms(client)})
    yield client
    await client.aclose()


async def work(context: Context) -> dict[str, Any]:
    return context.params


@contextlib.asynccontextmanager
async def working(url: str, count: int = 1, **settings: Any) -> AsyncIterator[None]:
    """Workers for the length of the block."""
    agents = Agents()
    agents.agent("agent")(work)
    agents.agent("counter")(work)
    found = [Worker(agents, WorkerSettings(redis_url=url, block_ms=100, **settings)) for _ in range(count)]
    tasks = [asyncio.create_task(worker.run()) for worker in found]
    try:
        yield
    finally:
        for worker in found:
            worker.stop()
        async with asyncio.timeout(under_load(15)):
            await asyncio.gather(*tasks)


class Person:
    """A user whom no other test has, and what Redis has of theirs."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.owner = Owner(next(_users))
        self.token = token_for(self.owner.user)

    async def post(self, edge: EdgeProcess, at: Any, *, key: str | None = None, **fields: Any) -> Answer:
        body = {"task": "t", "agent": "agent", "notBefore": at, **fields}
        headers = {} if key is None else {"Idempotency-Key": key}
        return await call(edge.port, "POST", EXECUTE, self.token, body, headers=headers)

    async def execute(self, edge: EdgeProcess, at: int, **fields: Any) -> str:
        answer = await self.post(edge, at, **fields)
        assert (answer.status, answer.body["state"]) == (202, "queued"), answer
        return str(answer.body["executionId"])

    async def state(self, edge: EdgeProcess, execution_id: str) -> str:
        answer = await call(edge.port, "GET", f"/api/agent/executions/{execution_id}", self.token)
        return str(answer.body["status"])

    async def types(self, execution_id: str) -> list[str]:
        return [event.type for event in await read_log(self.redis, self.owner.execution(execution_id).log)]

    async def ran(self, execution_id: str, seconds: float = 20.0) -> int:
        """Wait until an execution has completed; when it had started (ms, by Redis). It did so once."""
        log = self.owner.execution(execution_id).log
        async with asyncio.timeout(under_load(seconds)):
            while (await self.types(execution_id))[-1:] != ["execution:complete"]:
                await self.redis.xread({log: "$"}, block=200)
        queued, started, ended = await read_log(self.redis, log)
        assert [queued.type, started.type, ended.type] == RAN
        return parse_event_id(started.id).ms


@pytest.fixture
def person(redis: Redis) -> Person:
    return Person(redis)


async def in_ms(redis: Redis, ms: int) -> int:
    return await redis_ms(redis) + ms


async def pass_by(redis: Redis, moment: int) -> None:
    """Wait until Redis's clock is past a moment."""
    async with asyncio.timeout(under_load(20)):
        while (left := moment - await redis_ms(redis)) >= 0:
            await asyncio.sleep(left / 1000 + 0.001)


# --- when ------------------------------------------------------------------------------------------------------------


async def test_a_delayed_execution_is_queued_until_its_time(
    server: EmbeddedRedis, both: list[EdgeProcess], redis: Redis, person: Person
) -> None:
    """Idle workers leave it alone until then; every edge shows it as queued, and then it runs once."""
    async with working(server.url, 2):
        at = await in_ms(redis, SOON_MS)
        execution_id = await person.execute(both[0], at, params={"n": 1})
        assert await person.state(both[1], execution_id) == "queued"
        listed = await call(both[1].port, "GET", "/api/agent/executions?state=queued", person.token)
        assert [execution["executionId"] for execution in listed.body["executions"]] == [execution_id]
        assert await redis_ms(redis) < at
        assert await person.ran(execution_id) >= at
    assert await person.state(both[1], execution_id) == "completed"


@pytest.mark.parametrize("ms", [1, 0, -1])
async def test_a_time_that_has_passed_starts_at_once(
    server: EmbeddedRedis, both: list[EdgeProcess], redis: Redis, person: Person, ms: int
) -> None:
    """Neither the epoch nor a moment ago is waited for."""
    at = ms if ms >= 0 else await redis_ms(redis) - 5000
    execution_id = await person.execute(both[0], at)
    assert await redis.hexists(QUEUED, member(person.owner, execution_id)), "offered without anybody's coming by"
    async with working(server.url):
        await person.ran(execution_id)


async def test_many_that_are_due_at_once_all_run_once(
    server: EmbeddedRedis, both: list[EdgeProcess], redis: Redis, person: Person
) -> None:
    """Two hundred with the same moment, accepted by two edges: none starts early, none twice, none is forgotten."""
    async with working(server.url, 3, concurrency=50):
        at = await in_ms(redis, 3000)
        few = asyncio.Semaphore(20)

        async def execute(number: int) -> str:
            async with few:
                return await person.execute(both[number % 2], at, params={"n": number})

        ids = await asyncio.gather(*(execute(number) for number in range(200)))
        started = await asyncio.gather(*(person.ran(execution_id, 40) for execution_id in ids))
    assert len(set(ids)) == 200
    assert min(started) >= at


# --- not at all ------------------------------------------------------------------------------------------------------


async def test_cancelled_before_its_time_it_never_starts(
    server: EmbeddedRedis, both: list[EdgeProcess], redis: Redis, person: Person
) -> None:
    """Cancelling ends it at once, without a worker; one that is due a little later starts, and this one does not."""
    async with working(server.url):
        at = await in_ms(redis, SOON_MS)
        cancelled, later = await person.execute(both[0], at), await person.execute(both[0], at + 300)
        path = f"/api/agent/executions/{cancelled}/cancel"
        answer = await call(both[1].port, "POST", path, person.token, {"reason": "no need"})
        assert (answer.status, answer.body["state"]) == (202, "cancelled")
        assert await redis_ms(redis) < at
        await person.ran(later)
    assert await person.types(cancelled) == ["execution:queued", "execution:cancelled"]
    assert await redis.zscore(DUE, member(person.owner, cancelled)) is None


async def test_a_time_beyond_what_a_log_lives_is_refused(both: list[EdgeProcess], redis: Redis, person: Person) -> None:
    """422 names the field and the latest moment, which is one that is taken; nothing is stored of the other."""
    answer = await person.post(both[0], await in_ms(redis, 30 * DAY_MS))
    assert (answer.status, answer.body["path"]) == (422, "$.notBefore")
    latest = answer.body["latest"]
    assert 6 * DAY_MS < latest - await redis_ms(redis) < 7 * DAY_MS
    assert str(latest) in answer.body["detail"]
    assert await redis.zcard(person.owner.index) == 0
    execution_id = await person.execute(both[0], latest)
    assert await redis.pttl(person.owner.execution(execution_id).record) > latest - await redis_ms(redis)


@pytest.mark.parametrize("at", [-1, "soon", 1.5, True, 10**30])
async def test_what_is_no_moment_is_refused(both: list[EdgeProcess], person: Person, at: Any) -> None:
    """422 with the path of the field."""
    answer = await person.post(both[0], at)
    assert (answer.status, answer.body["path"]) == (422, "$.notBefore")


# --- asked again -----------------------------------------------------------------------------------------------------


async def test_a_repeat_with_its_key_starts_it_neither_early_nor_twice(
    server: EmbeddedRedis, both: list[EdgeProcess], redis: Redis, person: Person
) -> None:
    """Before its time, at its time and after its end the same key is the same execution, which runs once."""
    async with working(server.url):
        at = await in_ms(redis, SOON_MS)
        first = await person.execute(both[0], at, key="k")
        repeats = [person.execute(both[number % 2], at, key="k") for number in range(10)]
        assert set(await asyncio.gather(*repeats)) == {first}
        assert not await redis.hexists(QUEUED, member(person.owner, first))
        assert await redis_ms(redis) < at
        while await redis_ms(redis) < at + 100:
            assert await person.execute(both[1], at, key="k") == first
        assert await person.ran(first) >= at
        assert await person.execute(both[1], at, key="k") == first
        assert await person.types(first) == RAN
    assert await redis.zcard(person.owner.index) == 1


async def test_another_request_for_its_id_does_not_move_it(
    server: EmbeddedRedis, both: list[EdgeProcess], redis: Redis, person: Person
) -> None:
    """The same execution id with an earlier moment is refused with 409, and the first moment counts."""
    async with working(server.url):
        at = await in_ms(redis, SOON_MS)
        await person.execute(both[0], at, executionId="ex_mine")
        assert (await person.post(both[1], 1, executionId="ex_mine")).status == 409
        assert await person.ran("ex_mine") >= at


# --- workers that come and go ----------------------------------------------------------------------------------------


async def test_it_waits_for_a_worker_that_comes_after_its_time(
    server: EmbeddedRedis, both: list[EdgeProcess], redis: Redis, person: Person
) -> None:
    """With no worker at its time it stays queued; the next worker starts it."""
    at = await in_ms(redis, 300)
    execution_id = await person.execute(both[0], at)
    await pass_by(redis, at + 200)
    assert await person.types(execution_id) == ["execution:queued"]
    came = await redis_ms(redis)
    async with working(server.url):
        assert await person.ran(execution_id) >= came


async def test_it_outlives_the_worker_that_looked_after_it(
    server: EmbeddedRedis, both: list[EdgeProcess], redis: Redis, person: Person
) -> None:
    """The only worker is killed before its time; one that comes later starts it, once, and not too early."""
    killed = subprocess.Popen(
        [sys.executable, "-m", "emitter", "e2e_agents:agents", "--log-level", "warning"],
        cwd=Path(__file__).resolve().parent,
        env={**os.environ, "RUNCAST_REDIS_URL": server.url, "PYTHONPATH": str(ROOT)},
    )
    try:
        async with asyncio.timeout(under_load(20)):
            while not await announcements.live_workers(redis):
                await asyncio.sleep(0.05)
        at = await in_ms(redis, SOON_MS)
        execution_id = await person.execute(both[0], at, agent="counter")
    finally:
        killed.send_signal(signal.SIGKILL)
        await asyncio.to_thread(killed.wait, under_load(10))
    assert await redis_ms(redis) < at
    async with working(server.url):
        assert await person.ran(execution_id) >= at
