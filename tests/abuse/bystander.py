"""Bob, who does nothing unusual on the edge that somebody attacks: how long his own live events take to reach him, and
how long `/healthz` takes to answer.

He is a process of his own: what the attacker's side of a test does with its CPU must not pass for a slow edge.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec

from emitter import tasks
from emitter.store.connection import connect
from tests.edges import ROOT, SSE, Author, EdgeProcess, request, under_load

PAUSE_SECONDS = 0.02
STARTS_WITHIN_SECONDS = 30.0
STUCK_SECONDS = 60.0
LEAST_SEEN = 30
"""Events that he waits for even when the attack was over sooner, as it may be on a busy machine."""


class Delays(NamedTuple):
    """In seconds."""

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, measured: list[float]) -> Delays:
        ordered = sorted(measured) or [float("inf")]
        at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99)]
        return cls(len(measured), *(round(each, 4) for each in (*at, ordered[-1])))


class Report(NamedTuple):
    """What he saw. `is_whole`: whether he got exactly what he wrote, in order."""

    events: Delays
    health: Delays
    is_whole: bool


class Bystander:
    """Bob in his process; `await bob.report()` ends him."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def report(self) -> Report:
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(STUCK_SECONDS):
            said = json.loads(await self._process.stdout.readline())
        return Report(Delays.of(said["events"]), Delays.of(said["health"]), said["whole"])


@contextlib.asynccontextmanager
async def bystander(edge: EdgeProcess, redis_url: str) -> AsyncIterator[Bystander]:
    """Bob from when his stream is live."""
    settings = json.dumps({"redis": redis_url, "port": edge.port, "admin": edge.admin_ports[0]})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        settings,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(under_load(STARTS_WITHIN_SECONDS)):
            assert await process.stdout.readline() == b"live\n"
        yield Bystander(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# --- his process -----------------------------------------------------------------------------------------------------


class _Bob:
    def __init__(self, author: Author, port: int, admin: int) -> None:
        self.author = author
        self.port = port
        self.admin = admin
        self.events: list[float] = []
        self.health: list[float] = []
        self.written: list[float] = []
        self.received: list[float] = []
        self.live = asyncio.Event()

    async def read(self) -> None:
        headers = SSE
        async with request(self.port, "GET", self.author.path, self.author.token, headers=headers) as stream:
            async for frame in stream.frames():
                if frame.event == "stream:live":
                    self.live.set()
                if frame.event == "thinking":
                    moment = float(json.loads(frame.data or "")["data"]["thought"])
                    self.received.append(moment)
                    self.events.append(time.monotonic() - moment)

    async def write(self) -> None:
        while True:
            moment = time.monotonic()
            await self.author.think(repr(moment))
            self.written.append(moment)
            await asyncio.sleep(PAUSE_SECONDS)

    async def ask(self) -> None:
        while True:
            began = time.monotonic()
            async with request(self.admin, "GET", "/healthz", seconds=STUCK_SECONDS) as answer:
                assert answer.status == 200
            self.health.append(time.monotonic() - began)
            await asyncio.sleep(5 * PAUSE_SECONDS)

    async def told_to_end(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()

    async def all_received(self) -> None:
        async with asyncio.timeout(STUCK_SECONDS / 2):
            while len(self.received) < len(self.written):
                await asyncio.sleep(PAUSE_SECONDS)


async def _main(settings: dict[str, Any]) -> None:
    redis = connect(settings["redis"])
    author = Author(redis, user=f"bob-{os.getpid()}", execution_id="bobs")  # unknown to an edge that others had
    await author.begin()
    bob = _Bob(author, settings["port"], settings["admin"])
    reading = asyncio.create_task(bob.read())
    await bob.live.wait()
    working = [asyncio.create_task(bob.write()), asyncio.create_task(bob.ask())]
    print("live", flush=True)
    await bob.told_to_end()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STUCK_SECONDS / 4):
            while len(bob.received) < LEAST_SEEN and not any(task.done() for task in working):
                await asyncio.sleep(PAUSE_SECONDS)
    await tasks.end(working)
    failures = [task for task in working if not task.cancelled()]
    with contextlib.suppress(TimeoutError):
        await bob.all_received()
    reading.cancel()
    whole = bob.received[: len(bob.written)] == bob.written and not failures
    sys.stdout.buffer.write(msgspec.json.encode({"events": bob.events, "health": bob.health, "whole": whole}) + b"\n")
    sys.stdout.flush()
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
