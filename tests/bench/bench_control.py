"""Steering what runs: how long a cancel takes to reach an agent, and how soon a lost or leaving worker is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
from figures import Figure, Run, at_most
from processes import HERE, ROOT, process
from redis.asyncio import Redis
from servers import OWNER, Edge, edge, token

from emitter.store.append import LogLimits
from emitter.store.connection import connect
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.redact import Redactor

WAIT_SECONDS = 60.0
LEASE_SECONDS = 5.0


@contextlib.contextmanager
def worker(server: Edge, concurrency: int, *, grace_seconds: float = 0) -> Iterator[Any]:
    options = {"concurrency": concurrency, "lease-seconds": LEASE_SECONDS, "grace-seconds": grace_seconds}
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "emitter", "bench_agents:agents", "--redis-url", server.redis.url, *flags]
    environment = {"PYTHONPATH": f"{ROOT}:{HERE}", "RUNCAST_LOG_LEVEL": "error"}
    with process(command, cwd=HERE, env=environment) as child:
        yield child


def cancel(run: Run) -> list[Figure]:
    """Cancels over HTTP, one after the other, while all run on two workers."""
    executions = run.size(200, 20)
    with edge() as server, worker(server, executions), worker(server, executions):
        return asyncio.run(_cancel(server, executions))


async def _cancel(server: Edge, executions: int) -> list[Figure]:
    redis = connect(server.redis.url)
    names = await _started(redis, executions)
    heard, ended = [], []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as session:
        for name in random.sample(names, len(names)):
            url = f"http://127.0.0.1:{server.port}/api/agent/executions/{name}/cancel"
            began = time.time()
            async with session.post(url, json={}) as answer:
                assert answer.status == 202, await answer.text()
            at = await _heard(redis, name)
            heard.append(at - began)
            ended.append(time.time() - began)
    bare = await _bare(redis, executions)
    await redis.aclose()
    ratio = statistics.median(heard) / statistics.median(bare)
    return [
        at_most("cancel asked to agent cancelled, p99", _p99(heard) * 1000, "ms", 1000, f"{executions} running"),
        Figure("cancel asked to agent cancelled, p50", statistics.median(heard) * 1000, "ms"),
        Figure("the same, over a bare PUBLISH to its subscriber", ratio, "x", note=f"{_ms(bare)} ms p50"),
        Figure("cancel asked to the end read from the log, p99", _p99(ended) * 1000, "ms", note=f"p50 {_ms(ended)} ms"),
    ]


async def _started(redis: Redis, executions: int, prefix: str = "c") -> list[str]:
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    names = [f"{prefix}{number}" for number in range(executions)]
    for name in names:
        await lifecycle.accept(OWNER, name, Start(task="t", agent="busy"))
    for name in names:
        await _until(redis, name, b"progress")
    return names


async def _until(redis: Redis, name: str, type_: bytes) -> tuple[bytes, bytes]:
    """Id and JSON of the first event of a type."""
    key, last = OWNER.execution(name).log, "0"
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            reply: Any = await redis.xread({key: last}, block=1000)
            for _, rows in reply or []:
                for id_, fields in rows:
                    last = id_
                    if type_ in fields:
                        return id_, fields[type_]


async def _heard(redis: Redis, name: str) -> float:
    await _until(redis, name, b"execution:cancelled")
    _, text = await _until(redis, name, b"custom:heard")
    return float(json.loads(text)["data"]["at"])


async def _bare(redis: Redis, rounds: int) -> list[float]:
    """Seconds from PUBLISH to the message at a subscriber of this process."""
    seconds = []
    async with redis.pubsub() as channel:
        await channel.subscribe("bare")
        await channel.get_message(timeout=5)
        for _ in range(rounds):
            began = time.time()
            await redis.publish("bare", "x")
            await channel.get_message(timeout=5)
            seconds.append(time.time() - began)
    return seconds


def replace(run: Run) -> list[Figure]:
    """A worker is killed, another one stopped: when does the next attempt of each of its executions start?"""
    executions = run.size(50, 5)
    figures = []
    for number, limit in ((signal.SIGKILL, LEASE_SECONDS + 1.5), (signal.SIGTERM, LEASE_SECONDS)):
        with edge() as server:
            figures += asyncio.run(_replace(server, executions, number, limit))
    return figures


async def _replace(server: Edge, executions: int, number: signal.Signals, limit: float) -> list[Figure]:
    redis = connect(server.redis.url)
    with contextlib.ExitStack() as stack:
        victim = stack.enter_context(worker(server, executions))
        names = await _started(redis, executions, f"{number.name}_")
        stack.enter_context(worker(server, executions))
        await asyncio.sleep(LEASE_SECONDS + 1)  # it has been there for long
        victim.send_signal(number)
        began = time.time()
        seconds = []
        for name in names:
            id_, _ = await _until_second_start(redis, name)
            seconds.append(int(id_.split(b"-")[0]) / 1000 - began)
    await redis.aclose()
    what = f"{number.name} to the next attempt's start, lease {LEASE_SECONDS:g} s"
    note = f"p50 {statistics.median(seconds):.2f} s; {executions} executions"
    return [at_most(f"{what}, slowest", max(seconds), "s", limit, note)]


async def _until_second_start(redis: Redis, name: str) -> tuple[bytes, bytes]:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            rows: Any = await redis.xrange(OWNER.execution(name).log)
            starts = [(id_, fields[b"execution:started"]) for id_, fields in rows if b"execution:started" in fields]
            if len(starts) > 1:
                return starts[1]
            await asyncio.sleep(0.05)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _ms(values: list[float]) -> str:
    return f"{statistics.median(values) * 1000:.2f}"
