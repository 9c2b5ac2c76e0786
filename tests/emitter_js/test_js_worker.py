"""`@runcast/worker` (`@runcast/emitter/worker`): agents in Node that others start, over HTTP."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from tests.edges import EdgeProcess, call, edges, token_for
from tests.emitter_js.stand import Script, by_chance, faulty_proxy, known, needs_node, token
from tests.http_workers import OPERATOR, execute, state_of, types_of, until_ended

pytestmark = needs_node


@pytest.fixture(scope="module")
def job_edges() -> Iterator[list[EdgeProcess]]:
    with EmbeddedRedis() as redis, edges(redis.url, 2, heartbeat_seconds=1, lease_seconds=6) as started:
        yield started


@pytest.fixture
def job_edge(job_edges: list[EdgeProcess]) -> Iterator[EdgeProcess]:
    yield job_edges[0]
    for each in job_edges:
        if each.process is not None and each.process.poll() is not None:
            each.start().wait_ready()


def worker(of: EdgeProcess, url: str = "", token: str = OPERATOR, **options: Any) -> Script:
    return Script("worker.mjs", "worker", url=url or f"http://127.0.0.1:{of.port}", token=token, options=options)


@pytest.fixture
async def running(job_edge: EdgeProcess) -> AsyncIterator[Script]:
    """A worker that has announced its agents."""
    async with worker(job_edge) as script:
        await known(job_edge, "js-count")
        yield script


async def test_an_agent_is_started(job_edges: list[EdgeProcess], running: Script) -> None:
    """The agent is announced, started through any edge for any user, and what it returns is the result."""
    found = await known(job_edges[1], "js-count")
    assert (found["description"], found["tags"]) == ("Counts words", ["test"])
    execution_id = await execute(job_edges[1], "js-count", "bob", task="one two three", params={"a": 1})
    state = await until_ended(job_edges[1], execution_id, "bob")
    assert (state["status"], state["result"], state["text"]) == ("completed", {"words": 3}, "one two three ")
    assert state["agent"] == "js-count"
    began = running.said[-1]
    assert began == {
        "began": execution_id,
        "attempt": 1,
        "owner": {"user": "bob", "org": "default"},
        "params": {"a": 1},
    }
    types = await types_of(job_edges[0], execution_id, "bob")
    assert types[:2] == ["execution:queued", "execution:started"]
    assert types[-2:] == ["message:complete", "execution:complete"]


async def test_many_jobs(job_edge: EdgeProcess, running: Script) -> None:
    """More jobs than places: all are run once."""
    ids = await asyncio.gather(*(execute(job_edge, "js-brief", f"user-{number}") for number in range(25)))
    states = [await until_ended(job_edge, each, f"user-{number}") for number, each in enumerate(ids)]
    assert [state["result"] for state in states] == [1] * 25
    assert sorted(line["began"] for line in running.said if "began" in line) == sorted(ids)


async def test_a_question(job_edge: EdgeProcess) -> None:
    """An agent asks the person who started it; while it waits, its place is free."""
    async with worker(job_edge, concurrency=1):
        await known(job_edge, "js-ask")
        asking = await execute(job_edge, "js-ask", "carol")
        async with asyncio.timeout(15):
            while not (asked := (await state_of(job_edge, asking, "carol"))["openInputs"]):
                await asyncio.sleep(0.05)
        other = await execute(job_edge, "js-count", "carol")
        assert (await until_ended(job_edge, other, "carol"))["status"] == "completed"
        path = f"/api/agent/executions/{asking}/input"
        body = {"inputId": asked[0]["inputId"], "value": "quite"}
        assert (await call(job_edge.port, "POST", path, token("carol"), body)).status == 202
        assert (await until_ended(job_edge, asking, "carol"))["result"] == {"answer": "quite"}


async def test_a_declined_question(job_edge: EdgeProcess) -> None:
    """The agent does not take what is no answer for one."""
    async with worker(job_edge):
        await known(job_edge, "js-ask")
        asking = await execute(job_edge, "js-ask", "dora")
        async with asyncio.timeout(15):
            while not (asked := (await state_of(job_edge, asking, "dora"))["openInputs"]):
                await asyncio.sleep(0.05)
        path = f"/api/agent/executions/{asking}/input"
        body = {"inputId": asked[0]["inputId"], "declined": True}
        assert (await call(job_edge.port, "POST", path, token("dora"), body)).status == 202
        ended = await until_ended(job_edge, asking, "dora")
        assert (ended["status"], ended["error"]["error"].partition(":")[0]) == ("failed", "Declined")


async def test_messages(job_edge: EdgeProcess, running: Script) -> None:
    """People talk to an agent of a worker as to any other."""
    await known(job_edge, "js-listens")
    execution_id = await execute(job_edge, "js-listens", "mia")
    path = f"/api/agent/executions/{execution_id}/messages"
    assert (await call(job_edge.port, "POST", path, token("mia"), {"text": "hello"})).status == 202
    assert (await until_ended(job_edge, execution_id, "mia"))["result"] == {"heard": "hello"}


async def test_a_cancel(job_edge: EdgeProcess, running: Script) -> None:
    """A cancel reaches the agent's signal at once; the execution ends with who cancelled it, and why."""
    execution_id = await execute(job_edge, "js-long", "dora")
    await running.until("began")
    path = f"/api/agent/executions/{execution_id}/cancel"
    assert (await call(job_edge.port, "POST", path, token("dora"), {"reason": "enough"})).status == 202
    state = await until_ended(job_edge, execution_id, "dora")
    assert (state["status"], state["cancelled"]["reason"]) == ("cancelled", "enough")
    assert state["cancelled"]["by"]


async def test_a_cancel_that_the_agent_does_not_hear(job_edge: EdgeProcess, running: Script) -> None:
    """An agent that goes on for longer is not waited for: the execution is cancelled."""
    execution_id = await execute(job_edge, "js-deaf", "dora", params={"seconds": 40})
    await running.until("began")
    path = f"/api/agent/executions/{execution_id}/cancel"
    assert (await call(job_edge.port, "POST", path, token("dora"), {})).status == 202
    assert (await until_ended(job_edge, execution_id, "dora"))["status"] == "cancelled"


async def test_a_time_limit(job_edge: EdgeProcess, running: Script) -> None:
    """An attempt that is over its limit is stopped, and fails for that."""
    execution_id = await execute(job_edge, "js-limited", "erin")
    state = await until_ended(job_edge, execution_id, "erin")
    assert (state["status"], state["error"]["code"]) == ("failed", "timeout")
    assert state["error"]["error"] == "over its time limit of 1 s"


@pytest.mark.parametrize(
    ("how", "status", "attempts", "says"),
    [
        ("retry", "completed", 3, "at last"),
        ("always", "failed", 3, "Retry: never"),
        ("broken", "completed", 2, "again"),
        ("fatal", "failed", 1, "Fatal: no use"),
        ("plain", "failed", 1, "TypeError: a fault"),
    ],
)
async def test_failures(
    job_edge: EdgeProcess, running: Script, how: str, status: str, attempts: int, says: str
) -> None:
    """`Retry` and broken connections are tried again while attempts are left; other failures end the execution."""
    execution_id = await execute(job_edge, "js-fails", "fay", params={"how": how})
    state = await until_ended(job_edge, execution_id, "fay")
    assert state["status"] == status
    assert (state["result"] if status == "completed" else state["error"]["error"]) == says
    assert [line["attempt"] for line in running.said if "failed" in line] == list(range(1, attempts + 1))


async def test_a_worker_that_dies(job_edge: EdgeProcess) -> None:
    """Its job is missed when the lease ends, and goes on with another worker as the next attempt."""
    async with worker(job_edge) as first:
        await known(job_edge, "js-long")
        execution_id = await execute(job_edge, "js-long", "gil")
        await first.until("began")
        first.process.kill()
        async with worker(job_edge) as second:
            assert (await second.until("attempt")) == 2
            path = f"/api/agent/executions/{execution_id}/cancel"
            assert (await call(job_edge.port, "POST", path, token("gil"), {})).status == 202
            await until_ended(job_edge, execution_id, "gil")
    assert "execution:superseded" in await types_of(job_edge, execution_id, "gil")


async def test_a_worker_that_is_stopped(job_edge: EdgeProcess) -> None:
    """After SIGTERM short jobs finish, and long ones go to another worker at once."""
    async with worker(job_edge, graceSeconds=5) as first:
        await known(job_edge, "js-long")
        long, brief = await execute(job_edge, "js-long", "hal"), await execute(job_edge, "js-brief", "hal")
        async with asyncio.timeout(10):
            while not {line.get("began") for line in first.said} >= {long, brief}:
                await asyncio.sleep(0.02)
        first.process.send_signal(signal.SIGTERM)
        async with worker(job_edge) as second:
            assert (await first.end())[-1] == {"stopped": True}
            assert (await until_ended(job_edge, brief, "hal"))["result"] == 1
            assert await second.until("began") == long
            assert await second.until("attempt") == 2, second.said
            path = f"/api/agent/executions/{long}/cancel"
            await call(job_edge.port, "POST", path, token("hal"), {})
            await until_ended(job_edge, long, "hal")


async def test_a_worker_without_the_scope(job_edge: EdgeProcess) -> None:
    """Without `jobs:run` the worker ends, and says why."""
    async with worker(job_edge, token=token_for("alice")) as script:
        assert (await script.end())[-1] == {"refused": {"kind": "Forbidden", "status": 403}}


async def test_faults_in_between(job_edge: EdgeProcess) -> None:
    """Publishes that fail in every way, and an edge that is killed: each job is run once, and its text is whole."""
    async with faulty_proxy(job_edge) as proxy:
        proxy.fate = by_chance(7)
        async with worker(job_edge, url=proxy.url) as script:
            await known(job_edge, "js-count")
            task = " ".join(map(str, range(200)))
            ids = [await execute(job_edge, "js-count", "ida", task=task) for _ in range(5)]
            await script.until("began")
            job_edge.kill()
            await asyncio.sleep(0.3)
            job_edge.start().wait_ready()
            states = [await until_ended(job_edge, each, "ida") for each in ids]
    assert [(state["status"], state["text"]) for state in states] == [("completed", task + " ")] * 5
