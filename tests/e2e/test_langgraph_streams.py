"""LangGraph graphs in a real worker, watched over real edges."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from emitter.wire.keys import Owner
from tests.e2e.langgraph_agents import WORDS
from tests.edges import ROOT, EdgeProcess, Follower, Received, call, read_log, stream_path, token_for, under_load

HERE = Path(__file__).resolve().parent
EXAMPLES = ROOT / "deploy" / "examples"
ALICE = token_for("alice")


@contextmanager
def worker(redis_url: str, agents: str, folder: Path) -> Iterator[None]:
    """A worker process; it stops when the block ends."""
    environ = {**os.environ, "RUNCAST_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "emitter", agents, "--grace-seconds", "1", "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=folder, env=environ)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(under_load(15))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert process.returncode == 0


async def execute(edge: EdgeProcess, agent: str, task: str) -> str:
    """Start an execution, once a worker has announced the agent."""
    async with asyncio.timeout(under_load(45)):
        while agent not in str((await call(edge.port, "GET", "/api/agent/agents", ALICE)).body):
            await asyncio.sleep(0.05)
    accepted = await call(edge.port, "POST", "/api/agent/execute", ALICE, {"task": task, "agent": agent})
    assert accepted.status == 202, accepted
    return str(accepted.body["executionId"])


async def answer(edge: EdgeProcess, execution_id: str, viewer: Follower, value: Any) -> None:
    """Answer the question that the viewer sees."""
    await viewer.until("a question", lambda self: "input:required" in types(self.events))
    asked = next(data(event) for event in viewer.events if event.type == "input:required")
    path = f"/api/agent/executions/{execution_id}/input"
    assert (await call(edge.port, "POST", path, ALICE, {"inputId": asked["inputId"], "value": value})).status == 202


def types(events: list[Received]) -> list[str]:
    return [event.type for event in events]


def data(event: Received) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.data)["data"]
    return found


def without_chunks(events: list[Received]) -> list[str]:
    return [type_ for type_ in types(events) if type_ != "message:delta"]


@asynccontextmanager
async def two_viewers(both: list[EdgeProcess], execution_id: str) -> AsyncIterator[tuple[Follower, Follower]]:
    """One on each edge; each reconnects to the other one's."""
    path = stream_path(execution_id)
    async with Follower(both, path, ALICE) as one, Follower(both[::-1], path, ALICE) as two:
        yield one, two


async def test_a_graph_streams_to_every_viewer(two_edges: list[EdgeProcess], redis: Redis, redis_url: str) -> None:
    """Two viewers over two edges, one cut off in the middle of a text, which goes on at the other edge, see
    exactly the log: the text in chunks, a question, what follows its answer."""
    with worker(redis_url, "langgraph_agents:agents", HERE):
        execution_id = await execute(two_edges[0], "writer", "Write")
        async with two_viewers(two_edges, execution_id) as (steady, shaky):
            await shaky.until("some text", lambda self: types(self.events).count("message:delta") >= 5)
            shaky.hang_up()
            await answer(two_edges[1], execution_id, steady, "yes")
            await steady.until_done()
            await shaky.until_done()
    log = await read_log(redis, Owner("alice").execution(execution_id).log)
    assert steady.events == shaky.events == log
    assert shaky.connects >= 2
    said = ["phase:start", "message:complete", "usage", "phase:complete"]
    assert without_chunks(log) == [
        *("execution:queued", "execution:started", *said),
        *("phase:start", "input:required", "input:received", "phase:complete"),
        *(*said, "execution:complete"),
    ]
    chunks = [data(event)["delta"] for event in log if event.type == "message:delta"]
    assert "".join(chunks) == "".join(WORDS) * 2
    assert len(chunks) > 10  # of 80 words, some of which come close together on a busy machine
    assert data(log[-1])["result"] == ["".join(WORDS), "yes", "".join(WORDS)]
    assert [data(event)["totalTokens"] for event in log if event.type == "usage"] == [50, 100]


async def test_the_example_runs(two_edges: list[EdgeProcess], redis: Redis, redis_url: str) -> None:
    """`deploy/examples/langgraph_agent.py` does what its first lines say, without a key."""
    with worker(redis_url, "langgraph_agent:agents", EXAMPLES):
        for agreed, result in ((True, "Booked."), (False, "Then not.")):
            execution_id = await execute(two_edges[0], "traveller", "Rome")
            async with Follower(two_edges, stream_path(execution_id), ALICE) as viewer:
                await answer(two_edges[0], execution_id, viewer, agreed)
                await viewer.until_done()
            assert_travelled(viewer.events, result)


def assert_travelled(log: list[Received], result: str) -> None:
    found = without_chunks(log)
    assert found[:5] == ["execution:queued", "execution:started", "phase:start", "status", "usage"]
    assert found[5:7] == ["phase:complete", "phase:start"]
    assert sorted(found[7:11]) == ["tool:complete", "tool:complete", "tool:start", "tool:start"]
    assert found[11:] == [
        *("phase:complete", "phase:start", "status", "message:complete", "usage", "phase:complete"),
        *("phase:start", "input:required", "input:received", "message:complete", "phase:complete"),
        "execution:complete",
    ]
    text = "".join(data(event)["delta"] for event in log if event.type == "message:delta")
    assert text == "A good day to go: it is sunny in Rome and there is a train to Rome at 9:05. Pack light. "
    assert data(log[-1])["result"] == result
