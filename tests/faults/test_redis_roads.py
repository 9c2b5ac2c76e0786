"""An edge and a worker go on while the road to Redis changes: its address leads to another server, or what is between
forgets idle connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.base.settings import Settings
from broker.edge.edge import Edge
from emitter.store import watched
from emitter.wire.ids import now_ms
from emitter.wire.keys import AGENTS_KNOWN
from tests.clusters import Node, hand_over, primary_and_replica
from tests.edges import (
    ALL_SCOPES,
    SECRET,
    Answer,
    EdgeProcess,
    Follower,
    call,
    eventually,
    stream_path,
    token_for,
    under_load,
)
from tests.ports import reserved_ports
from tests.roads import Fate, Road, road
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
EXECUTIONS = "/api/agent/executions"
ALICE = token_for("alice", scopes=ALL_SCOPES)
STEPS, PAUSE = 60, 0.2


class Stand:
    """An edge, and a worker with a lease of two seconds, over a road that leads to the first of two servers."""

    def __init__(self, way: Road, edge: EdgeProcess, worker: WorkerProcess, first: Node, second: Node) -> None:
        self.way, self.edge, self.worker = way, edge, worker
        self.first, self.second = first, second

    async def ask(self, method: str, path: str, body: Any = None, **headers: Any) -> Answer:
        return await call(self.edge.port, method, path, ALICE, body, **headers)

    async def execute(self, **params: Any) -> Answer:
        return await self.ask("POST", "/api/agent/execute", {"task": "t", "agent": "steady", "params": params})

    def watch(self, execution_id: str) -> Follower:
        return Follower([self.edge], stream_path(execution_id), ALICE)

    async def move(self) -> None:
        """What `FAILOVER` and a new address do. Connections stay where they are."""
        await asyncio.to_thread(hand_over, self.first, self.second)
        self.way.target = self.second.port


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    with primary_and_replica() as (first, second):
        async with road(first.port) as way:
            url = f"redis://127.0.0.1:{way.port}"
            started = await asyncio.to_thread(lambda: EdgeProcess(url, heartbeat_seconds=1).start().wait_ready())
            worker = WorkerProcess(url, "faulty_agents:agents", HERE, lease_seconds=2, grace_seconds=0)
            try:
                yield Stand(way, started, worker, first, second)
            finally:
                worker.close()
                await asyncio.to_thread(started.close)


async def until_accepted(stand: Stand, seconds: float, **params: Any) -> str:
    """Start an execution, as often as it takes; its id."""
    deadline = time.monotonic() + under_load(seconds)
    while (answer := await stand.execute(**params)).status != 202:
        assert time.monotonic() < deadline, (answer, stand.edge.log_text()[-2000:])
        await asyncio.sleep(0.1)
    return str(answer.body["executionId"])


def thoughts(viewer: Follower) -> list[str]:
    return [json.loads(event.data)["data"]["thought"] for event in viewer.events if event.type == "thinking"]


async def test_everything_writes_again_where_the_address_leads_now(stand: Stand) -> None:
    """The primary becomes a replica of the other, and connections to it stay open. Within seconds executions are
    accepted, run, cancelled and published; tickets are minted; the edge is ready; what ran goes on in its attempt."""
    running = await until_accepted(stand, 20, steps=STEPS, pause=PAUSE)
    doomed = await until_accepted(stand, 5, steps=10_000, pause=PAUSE)
    async with stand.watch(running) as viewer, stand.watch(doomed) as other:
        await viewer.until_events(6)
        await other.until_events(6)
        await stand.move()
        moved = time.monotonic()
        await until_ran(stand, await until_accepted(stand, 5, steps=1))
        assert time.monotonic() - moved < under_load(12)
        assert (await stand.ask("POST", "/api/agent/stream-tickets", {})).status == 201
        assert (await stand.ask("POST", f"{EXECUTIONS}/{doomed}/cancel", {})).status == 202
        await other.until_done()
        assert other.events[-1].type == "execution:cancelled"
        assert await publish(stand) == 202
        await eventually("ready", lambda: stand.edge.admin_status("/readyz") == 200)
        await viewer.until_done(60)
        assert thoughts(viewer) == [f"1 {step}" for step in range(STEPS)]
        assert viewer.events[-1].type == "execution:complete"
        assert "execution:superseded" not in {event.type for event in viewer.events}
    stand.first.kill()
    await until_ran(stand, await until_accepted(stand, 10, steps=1))


async def until_ran(stand: Stand, execution_id: str) -> None:
    async with stand.watch(execution_id) as viewer:
        await viewer.until_done(20)
        assert viewer.events[-1].type == "execution:complete"


async def publish(stand: Stand) -> int:
    event = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
    headers = {"Producer-Id": "p", "Producer-Seq": "1"}
    return (await stand.ask("POST", f"{EXECUTIONS}/ex_http/events", event, headers=headers)).status


async def test_an_edge_that_can_only_read_is_not_ready(stand: Stand) -> None:
    """While the address still leads to the replica, `/readyz` says so, and nobody is told that all is well."""
    await until_accepted(stand, 20, steps=1)
    await asyncio.to_thread(hand_over, stand.first, stand.second)
    await eventually("unready", lambda: stand.edge.admin_status("/readyz") == 503)
    assert (await stand.execute(steps=1)).status == 503
    stand.way.target = stand.second.port
    await eventually("ready", lambda: stand.edge.admin_status("/readyz") == 200)
    assert (await stand.execute(steps=1)).status == 202


# --- a road that forgets ---------------------------------------------------------------------------------------------

BURST = 12


@pytest.mark.parametrize("fate", ["reset", "silent"])
async def test_a_burst_after_a_quiet_while_is_answered(fate: Fate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that were idle are forgotten on their way (as by NLB, NAT, conntrack), three times: every start and
    every stream of the burst that comes then is answered, soon."""
    monkeypatch.setattr(watched, "IDLE_SECONDS", 0.5)
    with reserved_ports(1) as (port,), Node(port):
        async with road(port) as way:
            settings = Settings(
                redis_url=f"redis://127.0.0.1:{way.port}",
                host="127.0.0.1",
                port=0,
                admin_host="127.0.0.1",
                admin_port=0,
                jwt_secret=SECRET,
                drain_seconds=0,
                executes_per_minute=0,
            )
            async with Edge(settings) as started:
                await started.redis.zadd(AGENTS_KNOWN, {"steady": now_ms()})
                for _ in range(3):
                    began = time.monotonic()
                    await burst(started)
                    usual = time.monotonic() - began
                    await asyncio.sleep(1.5)
                    assert way.forget(fate, idle_seconds=1) > BURST / 2
                    began = time.monotonic()
                    assert await burst(started) == [202] * BURST
                    assert time.monotonic() - began < usual + 4, "no command waited until it gave up, after 5 s"


async def burst(started: Edge) -> list[int]:
    body = {"task": "t", "agent": "steady"}
    starts = [call(started.port, "POST", "/api/agent/execute", token_for(f"u{n}"), body) for n in range(BURST)]
    return [answer.status for answer in await asyncio.gather(*starts)]
