"""Everything breaks at once, for as long as you like: `python -m tests.faults.chaos --seconds 120 --seed 7`.

Three edges, two workers and a Redis primary with two replicas under a Sentinel, all as processes. Executions are
started over HTTP and watched by four viewers each, over all edges in turn. Meanwhile edges are drained and killed,
workers stopped and killed, connections cut, viewers hang up, and the primary is killed. In the end every viewer must
have exactly the log, and every log one terminal event, its last; else the exit code is 1.

Not part of the suite: what it finds depends on the clock. A seed repeats the order of the faults, not their moments.
What a primary had told none of its replicas dies with it, which no client can mend: so it is killed when they have all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from emitter.events import TERMINAL_STATE_OF
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.clusters import Sentinels, sentinels
from tests.edges import EdgeProcess, Follower, call, edges, read_log, stream_path, token_for
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
USER = "alice"
VIEWERS = 4
REQUEST_SECONDS = 8.0
ACCEPT_SECONDS = 60.0
HEAL_SECONDS = 60.0
FINISH_SECONDS = 120.0


class Chaos:
    """What runs, and what is done to it."""

    def __init__(self, redis: Sentinels, edges: list[EdgeProcess], seed: int) -> None:
        self._redis = redis
        self._edges = edges
        self._chance = random.Random(seed)
        self._workers = [self._worker() for _ in range(2)]
        self._viewers: dict[str, list[Follower]] = {}
        self._following = contextlib.AsyncExitStack()
        self._token = token_for(USER, ttl=86_400)
        self.faults: list[Callable[[], Awaitable[None]]] = [
            self.drain_an_edge,
            self.kill_an_edge,
            self.stop_a_worker,
            self.kill_a_worker,
            self.kill_the_primary,
            self.cut_subscriptions,
            self.cut_connections,
        ]

    def _worker(self) -> WorkerProcess:
        return WorkerProcess(self._redis.url, "faulty_agents:agents", HERE, lease_seconds=5, grace_seconds=1)

    async def run(self, seconds: float) -> list[str]:
        """Break things for so long; what was found wrong in the end."""
        async with self._following:
            load = [asyncio.create_task(work()) for work in (self._start_executions, self._hang_up)]
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.sleep(self._chance.uniform(0.5, 3))
                fault = self._chance.choice(self.faults)
                print(f"{len(self._watching()):4} viewers  {fault.__name__.replace('_', ' ')}", flush=True)
                await fault()
                await self._until("Redis is whole again", self._redis.is_whole, HEAL_SECONDS)
            for task in load:
                task.cancel()
            await asyncio.gather(*load, return_exceptions=True)
            with contextlib.suppress(AssertionError):  # who is not done is found below
                await self._until("all are done", lambda: not self._watching(), FINISH_SECONDS)
            return await self._wrong()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def summary(self) -> str:
        viewers = [viewer for each in self._viewers.values() for viewer in each]
        connects, events = sum(viewer.connects for viewer in viewers), sum(len(viewer.events) for viewer in viewers)
        return f"{len(self._viewers)} executions, {len(viewers)} viewers, {connects} connects, {events} events read"

    # --- load ---

    async def _start_executions(self) -> None:
        while True:
            execution_id = await self._execute()
            self._viewers[execution_id] = [
                await self._following.enter_async_context(
                    Follower(self._edges[first:] + self._edges[:first], stream_path(execution_id), self._token)
                )
                for first in (number % len(self._edges) for number in range(VIEWERS))
            ]
            await asyncio.sleep(self._chance.uniform(0.5, 2.5))

    async def _execute(self) -> str:
        """Start one, asking edge after edge with one idempotency key until it is accepted."""
        key = f"key-{self._chance.getrandbits(64):x}"
        params = {"steps": self._chance.randint(20, 300), "pause": 0.05}
        body = {"task": "talk", "agent": "steady", "params": params}
        async with asyncio.timeout(ACCEPT_SECONDS):
            while True:
                port = self._chance.choice(self._edges).port
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                    async with asyncio.timeout(REQUEST_SECONDS):
                        headers = {"Idempotency-Key": key}
                        answer = await call(port, "POST", "/api/agent/execute", self._token, body, headers=headers)
                    if answer.status == 202:
                        return str(answer.body["executionId"])
                await asyncio.sleep(0.2)

    def _watching(self) -> list[Follower]:
        return [viewer for each in self._viewers.values() for viewer in each if not viewer.done]

    async def _hang_up(self) -> None:
        while True:
            await asyncio.sleep(0.3)
            if watching := self._watching():
                self._chance.choice(watching).hang_up()

    # --- faults ---

    async def drain_an_edge(self) -> None:
        edge = self._chance.choice(self._edges)
        await asyncio.to_thread(edge.stop)
        await asyncio.to_thread(edge.start().wait_ready)

    async def kill_an_edge(self) -> None:
        edge = self._chance.choice(self._edges)
        edge.kill()
        await asyncio.sleep(self._chance.random())
        await asyncio.to_thread(edge.start().wait_ready)

    async def stop_a_worker(self) -> None:
        number = self._chance.randrange(len(self._workers))
        await self._workers[number].stop()
        self._workers[number] = self._worker()

    async def kill_a_worker(self) -> None:
        number = self._chance.randrange(len(self._workers))
        self._workers[number].kill()
        self._workers[number] = self._worker()

    async def kill_the_primary(self) -> None:
        primary = self._redis.primary
        primary.ask("CLIENT", "PAUSE", "5000", "WRITE")
        for replica in self._redis.replicas:
            await replica.has_all_of(primary)
        primary.kill()
        await self._until("another is promoted", lambda: self._redis.primary is not primary, HEAL_SECONDS)
        promoted, others = self._redis.primary, [node for node in self._redis.replicas if node is not primary]
        await self._until("they follow it", lambda: all(node.follows(promoted) for node in others), HEAL_SECONDS)
        primary.start("--replicaof", f"127.0.0.1 {promoted.port}")

    async def cut_subscriptions(self) -> None:
        await asyncio.to_thread(self._redis.primary.cut, "P")

    async def cut_connections(self) -> None:
        await asyncio.to_thread(self._redis.primary.cut, "N")

    async def _until(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(holds):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
            await asyncio.sleep(0.1)

    # --- the end ---

    async def _wrong(self) -> list[str]:
        redis = connect(self._redis.url)
        found = [
            complaint
            for execution_id, viewers in self._viewers.items()
            for complaint in _compare(execution_id, await self._log(redis, execution_id), viewers)
        ]
        await redis.aclose()
        return found

    async def _log(self, redis: Any, execution_id: str) -> list[Any]:
        return await read_log(redis, Owner(USER).execution(execution_id).log)


def _compare(execution_id: str, log: list[Any], viewers: list[Follower]) -> list[str]:
    ends = [number for number, event in enumerate(log) if event.type in TERMINAL_STATE_OF]
    wrong = [] if ends == [len(log) - 1] else [f"{execution_id}: {len(log)} events, with an end at {ends}"]
    return wrong + [
        f"{execution_id}: the log has {len(log)} events, {viewer!r}"
        for viewer in viewers
        if not viewer.done or viewer.events != log or viewer.resets
    ]


async def main(seconds: float, seed: int) -> int:
    # A busy machine must not pass for a dead primary: one that is replaced while it lives takes writes that are lost.
    with (
        sentinels(replicas=2, down_after_ms=4000) as redis,
        edges(redis.url, 3, heartbeat_seconds=2, executes_per_minute=0) as three,
    ):
        chaos = Chaos(redis, three, seed)
        try:
            wrong = await chaos.run(seconds)
        finally:
            chaos.close()
    print(chaos.summary())
    for line in wrong:
        print("WRONG", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.seconds, arguments.seed)))
