"""The worker in Go of deploy/examples runs as its first lines say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from tests.edges import ROOT, EdgeProcess, call, edges, token_for, under_load
from tests.http_workers import BASE, OPERATOR, execute, state_of, types_of, until_ended

FOLDER = ROOT / "deploy" / "examples" / "go-worker"
GO = shutil.which("go")
pytestmark = pytest.mark.skipif(GO is None, reason="needs go")
Start = Callable[[EdgeProcess], subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a person would, from the standard library alone: nothing is fetched."""
    built = tmp_path_factory.mktemp("go") / "worker"
    environ = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    subprocess.run([str(GO), "vet", "."], cwd=FOLDER, env=environ, check=True, timeout=240)
    subprocess.run([str(GO), "build", "-o", built, "."], cwd=FOLDER, env=environ, check=True, timeout=240)
    return built


@pytest.fixture(scope="module")
def pair() -> Iterator[list[EdgeProcess]]:
    with EmbeddedRedis() as server, edges(server.url, 2, lease_seconds=4, executes_per_minute=0) as started:
        yield started


@pytest.fixture
async def start(program: Path, pair: list[EdgeProcess], tmp_path: Path) -> AsyncIterator[Start]:
    """Starts workers; each is announced by the time the test goes on."""
    with contextlib.ExitStack() as stack:

        def run(edge: EdgeProcess) -> subprocess.Popen[bytes]:
            log = stack.enter_context((tmp_path / "worker.log").open("ab"))
            environ = {**os.environ, "RUNCAST_URL": f"http://127.0.0.1:{edge.port}", "RUNCAST_TOKEN": OPERATOR}
            process = subprocess.Popen([program], env=environ, stdout=log, stderr=log)
            stack.callback(lambda: (process.kill(), process.wait()))
            return process

        yield run


async def known(edge: EdgeProcess) -> None:
    async with asyncio.timeout(under_load(10)):
        while True:
            answer = await call(edge.port, "GET", "/api/agent/agents", token_for("alice"))
            if "word-count" in [agent["name"] for agent in answer.body["agents"]]:
                return
            await asyncio.sleep(0.1)


async def until_running(edge: EdgeProcess, execution_id: str, attempt: int = 1) -> dict[str, Any]:
    async with asyncio.timeout(under_load(20)):
        while True:
            state = await state_of(edge, execution_id)
            if state["progress"] and (state["status"], state["attempt"]) == ("running", attempt):
                return state
            await asyncio.sleep(0.05)


async def test_a_go_worker_runs_executions(pair: list[EdgeProcess], start: Start) -> None:
    """Started over HTTP, the agent in Go runs to its end, several at a time; cancelled, it stops and says so."""
    start(pair[0])
    await known(pair[1])
    ids = [await execute(pair[1], "word-count", task="how many words") for _ in range(6)]
    for execution_id in ids:
        assert (await until_ended(pair[0], execution_id))["result"] == {"words": 3}
        assert await types_of(pair[0], execution_id) == [
            "execution:queued", "execution:started", *["progress"] * 3, "execution:complete",
        ]  # fmt: skip
    slow = await execute(pair[1], "word-count", task="one two three", params={"pauseSeconds": 0.3, "x": 1})
    long = await execute(pair[1], "word-count", task="a " * 200, params={"pauseSeconds": 0.2})
    await until_running(pair[1], long)
    await call(pair[1].port, "POST", f"{BASE}/{long}/cancel", token_for("alice"), {"reason": "enough"})
    async with asyncio.timeout(min(20, under_load(2))):
        state = await until_ended(pair[1], long)
    assert state["cancelled"] == {"by": "alice", "reason": "enough"}
    assert (await until_ended(pair[0], slow))["status"] == "completed"


async def test_a_go_worker_is_missed_and_followed(pair: list[EdgeProcess], start: Start) -> None:
    """Killed, its attempt is lost and another worker has the next; told to stop, it hands its job over at once. Each
    execution ends once."""
    first = start(pair[0])
    await known(pair[1])
    execution_id = await execute(pair[1], "word-count", task="a b c d e f", params={"pauseSeconds": 1})
    await until_running(pair[1], execution_id)
    first.send_signal(signal.SIGKILL)
    second = start(pair[1])
    await until_running(pair[1], execution_id, 2)
    third = start(pair[0])
    await asyncio.sleep(0.5)
    second.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(second.wait, under_load(10)) == 0
    state = await until_ended(pair[1], execution_id)
    assert (state["attempt"], state["result"]) == (3, {"words": 6})
    types = await types_of(pair[0], execution_id)
    assert (types.count("execution:superseded"), types.count("execution:complete")) == (2, 1)
    assert third.poll() is None
