"""The panel of `runcast demo` as its users have it: asked over HTTP, run by a worker process, watched and answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import ROOT, EdgeProcess, Follower, call, edges, read_log, stream_path, token_for, under_load
from tests.workers import WorkerProcess

ALICE = token_for("alice")
NAMES = ["docs", "security", "structure"]
SECRETS = "the files that hold secrets too"
HIDDEN = "9f8g7h6j5k4l"
FILES = {
    "README.md": "# Shop\n",
    "shop.py": 'import pickle\n\ndef load(data):\n    """Load."""\n    return pickle.loads(data)\n',
    "tests/test_shop.py": "import shop\n\ndef test_a():\n    assert shop.load\n",
    ".env": f"DB_PASSWORD={HIDDEN}\n",
}


class Stand:
    """An edge and a worker with the demo agents over one Redis."""

    def __init__(self, edge: EdgeProcess, redis: Redis) -> None:
        self.edge = edge
        self.redis = redis

    async def ask(self, directory: Path, **params: Any) -> Panel:
        """Begin a consultation."""
        body = {"task": str(directory), "agent": "panel", "params": {"pace": 0, **params}}
        answer = await call(self.edge.port, "POST", "/api/agent/execute", ALICE, body)
        assert answer.status == 202, answer
        return Panel(self, answer.body["executionId"])


class Panel:
    """One consultation, and what a viewer sees of it."""

    def __init__(self, stand: Stand, execution_id: str) -> None:
        self._stand = stand
        self._id = execution_id
        self._path = f"/api/agent/executions/{execution_id}"
        self.viewer = Follower([stand.edge], stream_path(execution_id), ALICE)

    def of(self, type_: str) -> list[Any]:
        return [json.loads(event.data)["data"] for event in self.viewer.events if event.type == type_]

    async def until(self, type_: str, count: int = 1) -> None:
        await self.viewer.until(f"{count} {type_}", lambda _: len(self.of(type_)) >= count)

    async def end(self) -> Any:
        """The data of the terminal event. The viewer has exactly the log by then."""
        await self.viewer.until_done()
        assert self.viewer.events == await read_log(self._stand.redis, Owner("alice").execution(self._id).log)
        return json.loads(self.viewer.events[-1].data)["data"]

    async def post(self, what: str, body: Any) -> int:
        return (await call(self._stand.edge.port, "POST", f"{self._path}/{what}", ALICE, body)).status

    async def state(self) -> Any:
        return (await call(self._stand.edge.port, "GET", self._path, ALICE)).body

    def complete(self) -> list[str]:
        return sorted(event["specialist"] for event in self.of("specialist:complete"))


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[str, EdgeProcess]]:
    """A Redis, an edge and a worker process for all tests here; nothing is flushed."""
    with EmbeddedRedis() as server, edges(server.url, 1, heartbeat_seconds=1, executes_per_minute=0) as (edge,):
        worker = WorkerProcess(server.url, "emitter.demo:agents", ROOT, grace_seconds=1)
        try:
            yield server.url, edge
            worker.process.terminate()
            assert worker.process.wait(under_load(15)) == 0, worker.log_text()
            assert worker.logged("specialist_failed") == []
        finally:
            worker.close()


@pytest.fixture
async def stand(processes: tuple[str, EdgeProcess]) -> AsyncIterator[Stand]:
    url, edge = processes
    redis = connect(url)
    async with asyncio.timeout(under_load(15)):
        while not (await call(edge.port, "GET", "/api/agent/agents", ALICE)).body["agents"]:
            await asyncio.sleep(0.05)
    yield Stand(edge, redis)
    await redis.aclose()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "shop"


async def test_an_open_question_holds_up_nobody_else(stand: Stand, shop: Path) -> None:
    """While one specialist waits for a person the others come in; the answer lets it end, and is what it does."""
    panel = await stand.ask(shop)
    async with panel.viewer:
        await panel.until("synthesis", 2)
        await panel.until("input:required")
        assert panel.complete() == [name for name in NAMES if name != "security"]
        state = await panel.state()
        assert state["status"] == "waiting_input"
        assert {each["specialist"]: each["status"] for each in state["specialists"]}["security"] == "active"
        (asked,) = panel.of("input:required")
        answer = {"inputId": asked["inputId"], "value": SECRETS}
        assert await panel.post("input", answer | {"value": "as you like"}) == 422
        assert await panel.post("input", answer) == 202
        end = await panel.end()
    assert panel.complete() == NAMES
    assert panel.of("synthesis")[-1]["specialistsPending"] == []
    assert end["result"]["failed"] == []
    places = [place for event in panel.of("partial:result") for place in event["result"].get("places", [])]
    assert ".env:1" in places
    assert HIDDEN not in "".join(event.data for event in panel.viewer.events)
    state = await panel.state()
    assert {each["status"] for each in state["specialists"]} == {"complete"}
    assert state["text"].startswith("# shop: what the panel says")


async def test_a_question_nobody_answers_is_closed_and_it_goes_on(stand: Stand, shop: Path) -> None:
    """At its expiry the question is closed in the log, and the panel completes without opening what it asked about."""
    panel = await stand.ask(shop, patience=0.3)
    async with panel.viewer:
        end = await panel.end()
    (asked,), (closed,) = panel.of("input:required"), panel.of("input:received")
    assert (closed["inputId"], closed["by"]) == (asked["inputId"], "system:expired")
    assert "Not opened: .env." in end["result"]["verdicts"]["security"]
    assert end["result"]["failed"] == []
    assert panel.complete() == NAMES


async def test_the_execution_completes_without_one_that_failed(stand: Stand, shop: Path) -> None:
    """One specialist's failure is said where it ends, in the synthesis, and in the result."""
    (shop / "shop.py").rename(shop / "shop.js")
    (shop / "tests" / "test_shop.py").unlink()
    panel = await stand.ask(shop, patience=0)
    async with panel.viewer:
        end = await panel.end()
    assert end["result"]["failed"] == ["structure"]
    (summary,) = [e["summary"] for e in panel.of("specialist:complete") if e["specialist"] == "structure"]
    assert summary.startswith("failed: no Python here")
    assert sum("structure failed and will be missing" in event["message"] for event in panel.of("synthesis")) == 1
    assert panel.complete() == NAMES


async def test_the_execution_fails_when_all_have_failed(stand: Stand, tmp_path: Path) -> None:
    """An empty directory leaves nothing to say: the error names each specialist with its reason."""
    panel = await stand.ask(tmp_path)
    async with panel.viewer:
        end = await panel.end()
    assert panel.viewer.events[-1].type == "execution:error"
    assert end["error"].startswith("NobodyLeft: ")
    assert all(f"{name}: no" in end["error"] for name in NAMES)
    assert panel.complete() == NAMES


async def test_cancelling_while_one_asks_ends_all(stand: Stand, shop: Path) -> None:
    """The log ends with the cancellation, no specialist says anything after it, and the worker goes on to others."""
    panel = await stand.ask(shop)
    async with panel.viewer:
        await panel.until("input:required")
        assert await panel.post("cancel", {"reason": "enough"}) == 202
        assert await panel.end() == {"reason": "enough", "by": "alice"}
    assert "security" not in panel.complete()
    assert (await panel.state())["openInputs"] == []
    again = await stand.ask(shop, patience=0)
    async with again.viewer:
        assert (await again.end())["result"]["failed"] == []


async def test_an_answer_outlives_the_worker(own_redis: EmbeddedRedis, shop: Path) -> None:
    """What a person says while no worker lives is heard by the next attempt, which does not ask again."""
    redis = connect(own_redis.url)
    with edges(own_redis.url, 1, heartbeat_seconds=1) as (edge,):
        stand = Stand(edge, redis)
        async with worker_of(own_redis.url, edge) as first:
            panel = await stand.ask(shop)
            async with panel.viewer:
                await panel.until("input:required")
                first.kill()
                (asked,) = panel.of("input:required")
                assert await panel.post("input", {"inputId": asked["inputId"], "value": SECRETS}) == 202
                async with worker_of(own_redis.url, edge):
                    end = await panel.end()
    await redis.aclose()
    assert len(panel.of("execution:superseded")) == len(panel.of("input:required")) == 1
    assert end["result"]["failed"] == []
    assert ".env:1" in str(panel.of("partial:result"))


@contextlib.asynccontextmanager
async def worker_of(redis_url: str, edge: EdgeProcess) -> AsyncIterator[WorkerProcess]:
    """A worker that is soon missed."""
    worker = WorkerProcess(redis_url, "emitter.demo:agents", ROOT, lease_seconds=1)
    try:
        async with asyncio.timeout(under_load(15)):
            while not (await call(edge.port, "GET", "/api/agent/agents", ALICE)).body["agents"]:
                await asyncio.sleep(0.05)
        yield worker
    finally:
        worker.close()


async def test_what_it_is_asked_is_announced(stand: Stand) -> None:
    """Who starts executions finds the panel with its tags and the schema of its parameters."""
    agents = (await call(stand.edge.port, "GET", "/api/agent/agents", ALICE)).body["agents"]
    (panel,) = [agent for agent in agents if agent["name"] == "panel"]
    assert "multi-agent" in panel["tags"]
    assert set(panel["inputSchema"]["properties"]) == {"pace", "specialists", "patience", "fail"}
