"""Workers over HTTP that die, behind edges that are killed: every execution ends once, and no two run at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import Answer, EdgeProcess, edges, read_log
from tests.faults.chaos import invariants
from tests.http_workers import HttpWorker, announced, execute

EXECUTIONS = 60
AGENT = {"name": "chaotic", "maxAttempts": 50}
WORKERS = 8
LEASE_SECONDS = 2
BROKEN = (OSError, asyncio.IncompleteReadError, TimeoutError)


@pytest.fixture
def three() -> Iterator[tuple[EmbeddedRedis, list[EdgeProcess]]]:
    with EmbeddedRedis() as server, edges(server.url, 3, lease_seconds=LEASE_SECONDS, executes_per_minute=0) as started:
        yield server, started


class Crew:
    """Workers that run whatever comes. Some attempts are left in their middle, as by a worker that was killed."""

    def __init__(self, pool: list[EdgeProcess], seed: int) -> None:
        self.claimed: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.left = 0
        self._pool = pool
        self._random = random.Random(seed)

    async def work(self) -> None:
        worker = HttpWorker(self._pool, [AGENT])
        while True:
            with contextlib.suppress(*BROKEN):
                answer = await worker.ask("claim", agents=worker.agents, waitSeconds=2, running=[])
                for job in answer.body["jobs"] if answer.status == 200 else ():
                    self.claimed[job["executionId"], job["attempt"]].add(worker.name)
                    if not await self._run(worker, job):
                        self.left += 1
                        worker = HttpWorker(self._pool, [AGENT])

    async def _run(self, worker: HttpWorker, job: dict[str, Any]) -> bool:
        """False if it was left. A sentence names who says it."""
        end = ("execution:complete", {"result": worker.name, "duration": 1})
        for number, (type_, data) in enumerate([*[("thinking", {"thought": worker.name})] * 3, end], 1):
            if self._random.random() < 0.04:
                return False
            if (await self._publish(worker, job, number, type_, data)).status != 202:
                return True  # another worker has it
            await asyncio.sleep(0.02)
        return True

    async def _publish(self, worker: HttpWorker, job: dict[str, Any], number: int, type_: str, data: Any) -> Answer:
        producer = {"Producer-Id": "worker", "Producer-Seq": str(number)}
        while True:
            with contextlib.suppress(*BROKEN):
                answer = await worker.publish(job, type_, producer, **data)
                if answer.status != 503:
                    return answer
            await asyncio.sleep(0.05)


async def kill_edges(pool: list[EdgeProcess], seed: int) -> None:
    """One after the other, as long as it runs: two are always there. A new edge takes nothing from workers before it
    has seen for five seconds that they do not renew, so one of them lives longer than that."""
    chosen = random.Random(seed)
    while True:
        edge = chosen.choice(pool[1:])
        await asyncio.to_thread(edge.kill)
        await asyncio.to_thread(edge.start().wait_ready)
        await asyncio.sleep(2)


@pytest.mark.timeout(150)
async def test_workers_and_edges_die(three: tuple[EmbeddedRedis, list[EdgeProcess]]) -> None:
    """Of sixty executions each ends once; an attempt is one worker's, and so is what the log has of it."""
    server, pool = three
    await announced(pool, AGENT)
    ids = [await execute(pool[0], "chaotic") for _ in range(EXECUTIONS)]
    crew, client = Crew(pool, 1), connect(server.url)
    tasks = [asyncio.create_task(crew.work()) for _ in range(WORKERS)]
    tasks.append(asyncio.create_task(kill_edges(pool, 2)))
    deadline = time.monotonic() + 120
    logs: dict[str, list[Any]] = {}
    try:
        while len(logs) < len(ids):
            assert time.monotonic() < deadline, f"{len(logs)} of {len(ids)} ended"
            assert not [task for task in tasks if task.done()]
            await asyncio.sleep(0.5)
            for execution_id in set(ids) - set(logs):
                log = await read_log(client, Owner("alice").execution(execution_id).log)
                if log[-1].type == "execution:complete":
                    logs[execution_id] = log
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()
    assert crew.left > 3
    assert {len(workers) for workers in crew.claimed.values()} == {1}
    for execution_id, log in logs.items():
        assert not invariants.dense(log) + invariants.one_end(log) + invariants.fenced(log)
        check_attempts(execution_id, log, crew)


def check_attempts(execution_id: str, log: list[Any], crew: Crew) -> None:
    """What stands between the beginning of an attempt and the next is said by the worker that has claimed it."""
    attempt = 0
    said: list[str] = []
    for event in log:
        data = json.loads(event.data)["data"]
        if event.type == "execution:started":
            attempt, said = data["attempt"], []
        elif event.type == "thinking":
            said.append(data["thought"])
            assert {data["thought"]} == crew.claimed[execution_id, attempt]
    assert said == [json.loads(log[-1].data)["data"]["result"]] * 3
