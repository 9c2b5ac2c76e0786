"""Messages to running agents: how long one takes, and whether any is lost or heard twice while workers are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
from bench_control import WAIT_SECONDS, _p99, _until, worker
from figures import Figure, Run, at_most
from redis.asyncio import Redis
from servers import OWNER, Edge, edge, token

from emitter.store.append import LogLimits
from emitter.store.connection import connect
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.redact import Redactor

KILL_SECONDS = 2.0


def message(run: Run) -> list[Figure]:
    """Messages over HTTP, one after the other, to agents that all run on two workers and wait for one."""
    executions = run.size(200, 20)
    with edge() as server, worker(server, executions), worker(server, executions):
        return asyncio.run(_message(server, executions))


def talk(run: Run) -> list[Figure]:
    """Messages to many agents at once, while one of their workers is killed every two seconds."""
    executions, messages = run.size(50, 5), run.size(20, 5)
    with edge() as server:
        return asyncio.run(_talk(server, executions, messages))


async def _message(server: Edge, executions: int) -> list[Figure]:
    redis = connect(server.redis.url)
    names = await _started(redis, executions, "1")
    for name in names:
        await _until(redis, name, b"progress")
    await asyncio.sleep(1)
    seconds = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as session:
        for name in random.sample(names, len(names)):
            began = time.time()
            assert await _send(session, server, name, "m1") == 202
            _, text = await _until(redis, name, b"custom:heard")
            seconds.append(float(json.loads(text)["data"]["at"]) - began)
    await redis.aclose()
    note = f"{executions} running"
    return [
        at_most("message sent to agent has it, p99", _p99(seconds) * 1000, "ms", 250, note),
        Figure("message sent to agent has it, p50", statistics.median(seconds) * 1000, "ms"),
    ]


async def _talk(server: Edge, executions: int, messages: int) -> list[Figure]:
    redis = connect(server.redis.url)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker(server, executions)) for _ in range(2)]
        names = await _started(redis, executions, str(messages))
        is_over = asyncio.Event()

        async def kill() -> int:
            kills = 0
            while not is_over.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KILL_SECONDS):
                        await is_over.wait()
                        return kills
                victim = workers.pop(0)
                victim.kill()
                kills += 1
                workers.append(stack.enter_context(worker(server, executions)))
            return kills

        killing = asyncio.create_task(kill())
        began = time.monotonic()
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as session:
            await asyncio.gather(*(_say(session, server, name, messages) for name in names))
        is_over.set()
        kills = await killing
        for name in names:
            await _until(redis, name, b"execution:complete")
        seconds = time.monotonic() - began
        wrong = sum([_is_wrong(await _log(redis, name), messages) for name in names])
    await redis.aclose()
    note = f"{executions * messages} messages, {executions} agents, {kills} workers killed, {seconds:.0f} s"
    return [at_most("agents that missed a message, heard one twice or out of order", wrong, "", 0, note)]


async def _say(session: aiohttp.ClientSession, server: Edge, name: str, messages: int) -> None:
    for number in range(messages):
        async with asyncio.timeout(WAIT_SECONDS):
            while await _send(session, server, name, f"m{number}") != 202:
                await asyncio.sleep(0.1)
        await asyncio.sleep(random.uniform(0.2, 0.8))


async def _send(session: aiohttp.ClientSession, server: Edge, name: str, message_id: str) -> int:
    url = f"http://127.0.0.1:{server.port}/api/agent/executions/{name}/messages"
    async with session.post(url, json={"text": "hello", "messageId": message_id}) as answer:
        return answer.status


async def _started(redis: Redis, executions: int, task: str) -> list[str]:
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    names = [f"m{number}" for number in range(executions)]
    for name in names:
        await lifecycle.accept(OWNER, name, Start(task=task, agent="listener"))
    for name in names:
        await _until(redis, name, b"execution:started")
    return names


async def _log(redis: Redis, name: str) -> list[tuple[str, Any]]:
    rows: Any = await redis.xrange(OWNER.execution(name).log)
    found = [next(iter(fields.items())) for _, fields in rows]
    return [(type_.decode(), json.loads(text)["data"]) for type_, text in found]


def _is_wrong(log: Sequence[tuple[str, Any]], messages: int) -> bool:
    """Every attempt takes a beginning of what was sent, in order and once; and the last one all of it."""
    sent = [data["messageId"] for type_, data in log if type_ == "user:message"]
    taken: dict[int, list[str]] = {}
    for type_, data in log:
        if type_ == "user:message:taken":
            taken.setdefault(data["attempt"], []).extend(data["messageIds"])
    in_order = all(ids == sent[: len(ids)] for ids in taken.values())
    return not (in_order and sent == [f"m{number}" for number in range(messages)] == taken[max(taken)])
