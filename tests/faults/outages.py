"""What breaks, as context managers: broken inside the block, mended after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator

from redis.asyncio import Redis

from broker.embedded import EmbeddedRedis
from tests.edges import Author, end


@contextlib.asynccontextmanager
async def pubsub_connections_killed(redis: Redis, *, every_seconds: float = 0.1) -> AsyncIterator[None]:
    """Every subscription's connection is killed, again and again."""

    async def kill() -> None:
        while True:
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(every_seconds)

    task = asyncio.create_task(kill(), name="kill-pubsub")
    try:
        yield
    finally:
        await end(task)


@contextlib.asynccontextmanager
async def normal_connections_killed(redis: Redis, *, every_seconds: float = 0.02) -> AsyncIterator[None]:
    """Every other connection than a subscription's is killed, again and again: replies are lost on their way."""

    async def kill() -> None:
        while True:
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(every_seconds)

    task = asyncio.create_task(kill(), name="kill-normal")
    try:
        yield
    finally:
        await end(task)


@contextlib.asynccontextmanager
async def redis_paused(redis: Redis, seconds: float) -> AsyncIterator[None]:
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
    """What the author appends is in the log, and its messages reach nobody: they go out as SPUBLISH, which plain
    subscriptions do not hear."""
    author.publish = "SPUBLISH"
    try:
        yield
    finally:
        author.publish = "PUBLISH"
