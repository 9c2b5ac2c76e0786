"""Schedules from end to end: worker processes that start executions by the clock, seen over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store import announcements, jobs
from emitter.store.connection import connect
from emitter.wire.keys import SCHEDULES
from tests.edges import ROOT, EdgeProcess, Follower, call, edge, stream_path, token_for, under_load

HERE = Path(__file__).resolve().parent
OPS = token_for("ops")
NIGHT = token_for("night")
DAY_MS = 86_400_000

Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def start_worker(own_redis: EmbeddedRedis) -> Iterator[Start]:
    """Starts worker processes, and ends them with the test."""
    found: list[subprocess.Popen[bytes]] = []
    away = (datetime.now(ZoneInfo("Europe/Vienna")).hour + 12) % 24
    environ = {**os.environ, "RUNCAST_REDIS_URL": own_redis.url, "PYTHONPATH": str(ROOT), "NIGHTLY_HOUR": str(away)}

    def start() -> subprocess.Popen[bytes]:
        found.append(
            subprocess.Popen(
                [sys.executable, "-m", "emitter", "schedule_agents:agents", "--log-level", "warning"],
                cwd=HERE,
                env=environ,
            )
        )
        return found[-1]

    yield start
    for worker in found:
        with contextlib.suppress(ProcessLookupError):
            worker.terminate()
    for worker in found:
        assert worker.wait(under_load(15)) in (0, -signal.SIGKILL)


async def until_there(redis_url: str, count: int) -> None:
    """Wait until so many workers live: one that is stopped while it starts ends by the signal."""
    async with connect(redis_url) as redis, asyncio.timeout(under_load(25)):
        while len(await announcements.live_workers(redis)) < count:
            await asyncio.sleep(0.05)


async def executions(edge: EdgeProcess, token: str) -> list[Any]:
    """What a user sees, the newest first."""
    answer = await call(edge.port, "GET", "/api/agent/executions?limit=100", token)
    assert answer.status == 200
    return list(answer.body["executions"])


async def completed(edge: EdgeProcess, token: str, count: int) -> list[Any]:
    """Wait until so many executions have completed; all that the user sees then."""
    async with asyncio.timeout(under_load(25)):
        while True:
            found = await executions(edge, token)
            if sum(execution["state"] == "completed" for execution in found) >= count:
                return found
            await asyncio.sleep(0.1)


async def test_worker_processes_start_each_tick_once_and_people_see_it(
    own_redis: EmbeddedRedis, start_worker: Start
) -> None:
    """Three processes, one of them killed on the way: its owner lists one execution a tick and follows it live; to
    others they do not exist."""
    with edge(own_redis.url, heartbeat_seconds=1) as only:
        async with Follower([only], "/api/agent/stream?from=start", OPS) as viewer:
            first, *_ = [start_worker() for _ in range(3)]
            await until_there(own_redis.url, 3)
            await viewer.until_events(3, 25)
            first.kill()
            await completed(only, OPS, 3)
        found = await executions(only, OPS)
        ticks = [execution["metadata"]["tick"] for execution in found]
        assert ticks == sorted(set(ticks), reverse=True)
        for execution in found:
            assert execution["metadata"]["tick"] % 1000 == 0
            assert execution["metadata"]["tick"] <= execution["createdAt"]
            assert (execution["agent"], execution["task"]) == ("reporter", "Report")
            assert execution["metadata"] == {"schedule": "pulse", "tick": execution["metadata"]["tick"]}
        oldest = next(execution for execution in reversed(found) if execution["state"] == "completed")
        async with Follower([only], stream_path(oldest["executionId"]), OPS) as viewer:
            await viewer.until_done()
        types = [event.type for event in viewer.events]
        assert types.count("execution:queued") == 1
        assert json.loads(viewer.events[-1].data)["data"]["result"] == {**oldest["metadata"], "n": 1}
        assert await executions(only, token_for("alice")) == []
        assert await executions(only, NIGHT) == []


async def test_a_night_that_was_missed_is_made_up_for(own_redis: EmbeddedRedis, start_worker: Start) -> None:
    """After three nights without workers the last one's execution runs, as soon as there is one, and only that."""
    client: Redis = connect(own_redis.url)
    now = await jobs.redis_ms(client)
    await client.hset(SCHEDULES, "nightly", json.dumps({"tick": now - 3 * DAY_MS}))
    await client.aclose()
    with edge(own_redis.url, heartbeat_seconds=1) as only:
        for _ in range(2):
            start_worker()
        await until_there(own_redis.url, 2)
        (execution,) = await completed(only, NIGHT, 1)
        await completed(only, OPS, 2)
        assert [found["executionId"] for found in await executions(only, NIGHT)] == [execution["executionId"]]
    assert now - DAY_MS - 3_700_000 <= execution["metadata"]["tick"] <= now
    assert (execution["task"], execution["agent"]) == ("Tidy up", "reporter")
