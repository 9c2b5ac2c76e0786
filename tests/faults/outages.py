"""What breaks, as context managers: broken inside the block, mended after it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from broker.cli.embedded import EmbeddedRedis
from emitter import tasks
from emitter.store.connection import Channels
from tests.edges import Author


def pubsub_connections_killed(
    redis: Any, *, every_seconds: float = 0.1
) -> contextlib.AbstractAsyncContextManager[None]:
    """Every subscription's connection is killed, again and again."""
    return _killed(redis, "pubsub", every_seconds)


def normal_connections_killed(
    redis: Any, *, every_seconds: float = 0.02
) -> contextlib.AbstractAsyncContextManager[None]:
    """Every other connection than a subscription's is killed, again and again: replies are lost on their way."""
    return _killed(redis, "normal", every_seconds)


@contextlib.asynccontextmanager
async def _killed(redis: Any, kind: str, every_seconds: float) -> AsyncIterator[None]:
    over = asyncio.Event()

    async def kill() -> None:
        while not over.is_set():
            began = time.monotonic()
            await redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            # On a busy machine no other command would come through between two kills either.
            await asyncio.sleep(max(every_seconds, 5 * (time.monotonic() - began)))

    task = asyncio.create_task(kill(), name=f"kill-{kind}")
    try:
        yield
    finally:
        over.set()
        await task  # a kill that is cancelled on its way would hit a connection that is made after the block


@contextlib.asynccontextmanager
async def redis_paused(redis: Any, seconds: float) -> AsyncIterator[None]:
    """Redis holds all commands back (CLIENT PAUSE) for so long from now; the block ends no earlier."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    await redis.execute_command("CLIENT", "PAUSE", int(seconds * 1000), "ALL")
    yield
    await asyncio.sleep(max(0.0, until - loop.time()))


@contextlib.contextmanager
def process_stopped(pid: int) -> Iterator[None]:
    """A process stands still (SIGSTOP): its sockets take what is sent and answer nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def redis_stopped(server: EmbeddedRedis) -> contextlib.AbstractContextManager[None]:
    assert server.process is not None
    return process_stopped(server.process.pid)


def restart_empty(server: EmbeddedRedis) -> None:
    """A failover that lost everything: Redis is killed and comes back at the same address with nothing in it."""
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()


@contextlib.contextmanager
def redis_dead(server: EmbeddedRedis) -> Iterator[None]:
    """No process answers at Redis's address; afterwards one does, empty."""
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    yield
    server.start()


@contextlib.contextmanager
def messages_lost(author: Author) -> Iterator[None]:
    """What the author appends is in the log, and its messages reach nobody: they go out on channels that
    nobody has."""
    channels, author.channels = author.channels, Channels(suffix="@nobody")
    try:
        yield
    finally:
        author.channels = channels


@contextlib.asynccontextmanager
async def replies_lost(server: EmbeddedRedis, directory: Path) -> AsyncIterator[tuple[str, list[int]]]:
    """A way to Redis on which every connection swallows an answer, its third to seventh, and is cut: what was asked has
    been done, and who asked cannot know. Yields its URL, and a list that grows by the size of each lost answer."""
    lost: list[int] = []
    connections = itertools.count()
    open_: set[asyncio.Task[Any]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        open_.add(me)
        me.add_done_callback(open_.discard)
        redis_reader, redis_writer = await asyncio.open_unix_connection(str(server.socket_path))

        async def ask() -> None:
            while data := await reader.read(65536):
                redis_writer.write(data)
            redis_writer.close()

        asking = asyncio.create_task(ask())
        passed = 2 + next(connections) % 5
        try:
            while data := await redis_reader.read(65536):
                if passed == 0:
                    lost.append(len(data))
                    return
                passed -= 1
                writer.write(data)
        finally:
            await tasks.end([asking])
            writer.close()
            redis_writer.close()

    path = directory / "lossy.sock"
    listener = await asyncio.start_unix_server(forward, path)
    try:
        yield f"unix://{path}", lost
    finally:
        listener.close()
        await tasks.end(open_)
