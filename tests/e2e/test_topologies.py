"""Redis behind Sentinel, and Redis Cluster: the whole way from execute to the viewer, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.crc import key_slot

from emitter import AgentEmitter
from emitter.wire.keys import Owner
from tests import http_workers
from tests.clusters import SLOTS, Node, cluster, sentinels
from tests.edges import ROOT, EdgeProcess, Follower, call, edges, stream_path, token_for, under_load

HERE = Path(__file__).resolve().parent
ALICE = token_for("alice")


@contextlib.contextmanager
def sentinel() -> Iterator[str]:
    with sentinels() as made:
        yield made.url


@contextlib.contextmanager
def worker(redis_url: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "emitter", "e2e_agents:agents", "--grace-seconds", "1", "--log-level", "warning"],
        cwd=HERE,
        env={**os.environ, "RUNCAST_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(under_load(15)) == 0


async def known_agents(edge: EdgeProcess) -> None:
    async with asyncio.timeout(under_load(15)):
        while not (await call(edge.port, "GET", "/api/agent/agents", ALICE)).body["agents"]:
            await asyncio.sleep(0.05)


async def execute(edge: EdgeProcess, agent: str) -> str:
    body = {"task": "t", "agent": agent, "conversationId": "c"}
    answer = await call(edge.port, "POST", "/api/agent/execute", ALICE, body)
    assert answer.status == 202, answer
    return str(answer.body["executionId"])


@contextlib.contextmanager
def sharded() -> Iterator[str]:
    with cluster() as made:
        yield made.url


@pytest.mark.parametrize("topology", [sentinel, sharded])
async def test_an_execution_is_run_watched_answered_and_cancelled(
    topology: Callable[[], contextlib.AbstractContextManager[str]],
) -> None:
    """Edges, workers and emitters find their Redis, and a viewer has exactly the log."""
    with topology() as url, edges(url, 2, heartbeat_seconds=1) as both, worker(url):
        await known_agents(both[0])
        asking = await execute(both[0], "asker")
        async with Follower(both[1:], stream_path(asking), ALICE) as viewer:
            await viewer.until("the question", lambda seen: any(e.type == "input:required" for e in seen.events))
            asked = next(json.loads(e.data)["data"] for e in viewer.events if e.type == "input:required")
            body = {"inputId": asked["inputId"], "value": True}
            answer = await call(both[0].port, "POST", f"/api/agent/executions/{asking}/input", ALICE, body)
            assert answer.status == 202
            await viewer.until_done()
        logged = (await call(both[0].port, "GET", f"/api/agent/executions/{asking}/events", ALICE)).body["events"]
        assert viewer.ids == [each["id"] for each in logged]
        assert logged[-1]["event"]["data"]["result"] == {"approved": True}

        sleeping = await execute(both[1], "sleeper")
        async with Follower(both[:1], stream_path(sleeping), ALICE) as viewer:
            await viewer.until("the thought", lambda seen: any(e.type == "thinking" for e in seen.events))
            await call(both[1].port, "POST", f"/api/agent/executions/{sleeping}/cancel", ALICE, {})
            await viewer.until_done()
        assert viewer.events[-1].type == "execution:cancelled"
        listed = await call(both[0].port, "GET", "/a2a/tasks?contextId=c", ALICE, headers={"A2A-Version": "1.0"})
        assert {task["id"] for task in listed.body["tasks"]} == {asking, sleeping}


@pytest.mark.parametrize("topology", [sentinel, sharded])
async def test_workers_over_http(topology: Callable[[], contextlib.AbstractContextManager[str]]) -> None:
    """Edges find, wait for and renew the jobs of workers over HTTP, whose owners lie on different shards."""
    with topology() as url, edges(url, 2) as both:
        over_http = await http_workers.announced(both, "far")
        for user in ("u1", "u2", "u3", "u4"):
            waiting = asyncio.create_task(over_http.one(8))
            await asyncio.sleep(0.2)
            execution_id = await http_workers.execute(both[0], "far", user)
            job = await waiting
            renewing = asyncio.create_task(over_http.renew(job, wait_seconds=9))
            await asyncio.sleep(0.3)
            cancel = f"{http_workers.BASE}/{execution_id}/cancel"
            assert (await call(both[1].port, "POST", cancel, token_for(user), {})).status == 202
            async with asyncio.timeout(under_load(2)):
                assert [each["state"] for each in await renewing] == ["cancel"]
            assert (await over_http.publish(job, "execution:cancelled")).status == 202


class Failing(NamedTuple):
    """A primary that will die, its replica, and a user whose executions they have."""

    url: str
    user: str
    primary: Node
    replica: Node


@contextlib.contextmanager
def shard() -> Iterator[Failing]:
    with cluster() as made:
        user = next(name for name in map("u{}".format, range(99)) if _lies_at_the_first(name))
        yield Failing(made.url, user, made.primaries[0], made.replica)


@contextlib.contextmanager
def watched() -> Iterator[Failing]:
    with sentinels() as made:
        yield Failing(made.url, "alice", made.primary, *made.replicas)


@pytest.mark.parametrize("topology", [shard, watched])
async def test_a_failover_leaves_a_viewer_live_and_whole(
    topology: Callable[[], contextlib.AbstractContextManager[Failing]],
) -> None:
    """The primary that has the log dies: viewers at two edges read on from the promoted one, by messages."""
    with topology() as (url, user, primary, replica), edges(url, 2, heartbeat_seconds=60) as both:
        async with (
            AgentEmitter(user, "ex_1", redis_url=url) as emitter,
            Follower(both[:1], stream_path("ex_1"), token_for(user)) as one,
            Follower(both[1:], stream_path("ex_1"), token_for(user)) as other,
        ):
            await emitter.execution_started(task="t")
            await emitter.flush()
            for viewer in (one, other):
                await viewer.until("the start", lambda seen: len(seen.events) == 1)
            await replica.has_all_of(primary)
            primary.kill()
            await emitter.thinking("written while nobody has the log")
            for viewer in (one, other):
                await viewer.until("what came after", lambda seen: len(seen.events) == 2)
            # From here on only messages bring events: the next look at a quiet log is a minute away.
            for number in range(20):
                await emitter.thinking(str(number))
                for viewer in (one, other):
                    await viewer.until("a message", lambda seen, number=number: len(seen.events) == 3 + number)
            await emitter.execution_complete(result=1)
            for viewer in (one, other):
                await viewer.until_done()
        path = "/api/agent/executions/ex_1/events"
        logged = (await call(both[0].port, "GET", path, token_for(user))).body["events"]
        assert one.ids == other.ids == [each["id"] for each in logged]
        assert len(logged) == 23


def _lies_at_the_first(user: str) -> bool:
    return key_slot(Owner(user).execution("ex_1").log.encode()) < SLOTS // 3
