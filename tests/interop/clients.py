"""Node scripts of this folder, and the stand that they are run against: two edges and a worker over one Redis."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from tests.edges import EdgeProcess, call, edges, token_for, under_load
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
NODE = shutil.which("node")
NODE_SECONDS = 50.0

needs_node = pytest.mark.skipif(
    NODE is None or not (HERE / "node_modules").is_dir(),
    reason="needs node, and `npm ci` in tests/interop (tests/run does it)",
)


class Stand:
    """Two edges and a worker over a Redis of their own. Every test has its own user."""

    def __init__(self, redis: EmbeddedRedis, edges: list[EdgeProcess], worker: WorkerProcess) -> None:
        self.redis_url = redis.url
        self.edges = edges
        self.worker = worker
        self._numbers = itertools.count(1)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{edge.port}" for edge in self.edges]

    def new_user(self) -> str:
        return f"user-{next(self._numbers)}"


@contextlib.contextmanager
def stand(agents: str = "interop_agents:agents", **settings: Any) -> Iterator[Stand]:
    with EmbeddedRedis() as redis, edges(redis.url, 2, heartbeat_seconds=1, **settings) as started:
        worker = WorkerProcess(redis.url, agents, HERE)
        try:
            asyncio.run(_agents_known(started[0]))
            yield Stand(redis, started, worker)
        finally:
            worker.close()


async def _agents_known(edge: EdgeProcess) -> None:
    async with asyncio.timeout(under_load(20)):
        while not (await call(edge.port, "GET", "/api/agent/agents", token_for("alice"))).body["agents"]:
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running(script: str, *arguments: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A script of this folder; what is not text is given as JSON."""
    assert NODE is not None
    texts = [text if isinstance(text, str) else json.dumps(text) for text in arguments]
    process = await asyncio.create_subprocess_exec(
        NODE,
        "--no-warnings",
        script,
        *texts,
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def node(script: str, *arguments: Any) -> Any:
    """Run a script to its end; the JSON that it prints last."""
    async with running(script, *arguments) as process, asyncio.timeout(NODE_SECONDS):
        out, error = await process.communicate()
        assert process.returncode == 0, error.decode()
    return json.loads(out.splitlines()[-1])
