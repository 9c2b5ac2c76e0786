"""An update of everything that runs, one process after the other, under load; and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from versions import CLIENT, HERE

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import (
    ALL_SCOPES,
    EdgeProcess,
    Follower,
    assert_dense,
    call,
    read_log,
    stream_path,
    token_for,
    under_load,
)
from tests.roads import Road, road
from tests.web.browser import NODE
from tests.web.client.viewers import Viewer
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.timeout(180), pytest.mark.skipif(NODE is None, reason="no node")]

ALICE = Owner("alice")
TOKEN = token_for("alice", scopes=ALL_SCOPES)
STEPS = 60
PHASES = ("old", "new", "old")


class Deployment:
    """An edge and a worker of one version each, behind one address; `become` replaces them by those of another."""

    def __init__(self, redis_url: str, roots: Mapping[str, Path], stack: contextlib.ExitStack) -> None:
        self._redis_url = redis_url
        self._roots = roots
        self._stack = stack
        self._edges = [self._edge(version) for version in PHASES]
        self._workers: list[WorkerProcess] = []
        self.front = Road(0)

    def _edge(self, version: str) -> EdgeProcess:
        settings: dict[str, Any] = {"lease_seconds": 2, "drain_seconds": 0.4, "executes_per_minute": 0}
        edge = EdgeProcess(self._redis_url, root=self._roots[version], **settings)
        self._stack.callback(edge.close)
        return edge

    async def start(self, phase: int) -> None:
        """The next edge takes what connects from now on; what the last one has moves as that one drains."""
        self.work(PHASES[phase])
        edge = self._edges[phase].start()
        await asyncio.to_thread(edge.wait_ready)
        self.front.target = edge.port

    def work(self, version: str) -> None:
        worker = WorkerProcess(
            self._redis_url, "skew_agents:agents", HERE, root=self._roots[version], lease_seconds=2, grace_seconds=0
        )
        self._stack.callback(worker.close)
        self._workers.append(worker)

    async def stop_worker(self) -> None:
        await asyncio.to_thread(self._workers.pop(0).close)

    async def stop_edge(self, phase: int) -> None:
        assert await asyncio.to_thread(self._edges[phase].stop) == 0


@pytest.fixture
def deployment(own_redis: EmbeddedRedis, roots: Mapping[str, Path]) -> Iterator[Deployment]:
    with contextlib.ExitStack() as stack:
        yield Deployment(own_redis.url, roots, stack)


def emitting(redis_url: str, root: Path, execution_id: str) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
    return subprocess.Popen(
        [sys.executable, "skew_emitter.py", execution_id],
        stdin=subprocess.PIPE,
        cwd=HERE,
        env={**environ, "PYTHONPATH": str(root), "RUNCAST_REDIS_URL": redis_url},
    )


class Load:
    """Executions that are started on the way, each with a viewer that comes back wherever it is sent."""

    def __init__(self, port: int, stack: contextlib.AsyncExitStack) -> None:
        self._port = port
        self._stack = stack
        self.viewers: dict[str, Follower] = {}

    async def watch(self, execution_id: str) -> None:
        viewer = Follower([self._port], stream_path(execution_id), TOKEN)
        self.viewers[execution_id] = await self._stack.enter_async_context(viewer)

    async def begin(self, count: int) -> None:
        body = {"task": "t", "agent": "steps", "params": {"steps": STEPS}}
        for _ in range(count):
            async with asyncio.timeout(under_load(30)):
                while (answer := await self._try(body)) is None:
                    await asyncio.sleep(0.05)
            await self.watch(answer)

    async def until_run_by(self, version: str) -> None:
        """Begin executions until a worker of this version has just taken one."""
        said = ""
        while not said.endswith(version):
            await self.begin(1)
            viewer = list(self.viewers.values())[-1]
            await viewer.until("its first step", lambda seen: bool(steps_of(seen)))
            said = steps_of(viewer)[0]

    async def _try(self, body: dict[str, Any]) -> str | None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            answer = await call(self._port, "POST", "/api/agent/execute", TOKEN, body)
            return str(answer.body["executionId"]) if answer.status == 202 else None
        return None


def steps_of(viewer: Follower) -> list[str]:
    """Each says which version ran it."""
    return [json.loads(event.data)["data"]["message"] for event in viewer.events if event.type == "status"]


async def test_an_update_and_back_under_load(
    deployment: Deployment, own_redis: EmbeddedRedis, roots: Mapping[str, Path]
) -> None:
    """Workers, edges and emitters of both versions take turns while executions run. Every viewer, also the client of
    either version, has in the end exactly the log, without a reset."""
    async with contextlib.AsyncExitStack() as stack:
        redis: Redis = connect(own_redis.url)
        stack.push_async_callback(redis.aclose)
        deployment.front = await stack.enter_async_context(road(0))
        await deployment.start(0)
        load = Load(deployment.front.port, stack)
        emitters = [emitting(own_redis.url, root, f"by_{name}") for name, root in roots.items()]
        for name in roots:
            await until_begun(redis, f"by_{name}")
            await load.watch(f"by_{name}")
        urls = [f"http://127.0.0.1:{deployment.front.port}"]
        clients = [
            await stack.enter_async_context(Viewer(urls, TOKEN, folder=root / CLIENT, executionId=f"by_{name}"))
            for name, root in roots.items()
        ]
        for client in clients:
            await client.until_received(1)
        for phase in (1, 2):
            await load.begin(3)
            await deployment.start(phase)  # then both versions run
            await load.begin(2)
            await load.until_run_by(PHASES[phase - 1])
            await deployment.stop_worker()
            await deployment.stop_edge(phase - 1)
        await load.begin(1)
        for emitter in emitters:
            emitter.communicate(timeout=20)
        for viewer in load.viewers.values():
            await viewer.until_done(60)
        for client, name in zip(clients, roots, strict=True):
            await client.until_phase("ended")
            assert len(client.connects) > 1  # who waits before it comes back may miss an edge
            assert client.ids == [event.id for event in await read_log(redis, ALICE.execution(f"by_{name}").log)]
        for execution_id, viewer in load.viewers.items():
            log = await read_log(redis, ALICE.execution(execution_id).log)
            assert_dense(log)
            assert log[-1].type == "execution:complete"
            assert viewer.events == log
            assert not viewer.resets
        assert {"draining"} <= {reason for viewer in load.viewers.values() for reason in viewer.ends}
        attempts = [
            sum(event.type == "execution:superseded" for event in viewer.events) for viewer in load.viewers.values()
        ]
        assert any(attempts), "some were handed over from one version to the other"
        assert [emitter.returncode for emitter in emitters] == [0, 0]


async def until_begun(redis: Redis, execution_id: str) -> None:
    async with asyncio.timeout(under_load(20)):
        while not await redis.exists(ALICE.execution(execution_id).record):
            await asyncio.sleep(0.02)
