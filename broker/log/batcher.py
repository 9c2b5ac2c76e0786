"""Read commands of one edge in batches: what came up since the last batch goes as one exchange over one connection.

A thousand viewers that arrive at once would otherwise open a thousand connections, at 100 µs each. In a batch a command
costs a quarter of that. Only for commands that may fail and that their caller may repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from emitter import tasks
from emitter.store.connection import GONE, pack
from emitter.store.link import Link

BATCH_WEIGHT = 64
"""The most that the commands of one exchange may weigh together. It bounds the memory for large replies, and the time
that the others wait for them."""


class _Command(NamedTuple):
    packed: bytes
    reply: asyncio.Future[Any]
    weight: int


class CommandBatcher:
    """`await commands.execute("HMGET", key, "field")`. Its task starts with the first command; `close` ends it."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        # A cluster's client must find the node of each key, so there each command goes by itself.
        self._link = None if isinstance(redis, RedisCluster) else Link(redis)
        self._heavy: dict[str, asyncio.Semaphore] = {}
        self._waiting: deque[_Command] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def execute(self, *arguments: str | bytes | int, weight: int = 1) -> Any:
        """The reply: bytes, as in RESP2. `weight` is its size relative to a short one. Raises the error that Redis
        answered, or one of `GONE` without an answer. Each batch takes at most the client's socket timeout."""
        if self._link is None:
            async with self._room(str(arguments[1]), weight):
                return await self._redis.execute_command(*arguments)
        if self._task is None:
            self._task = asyncio.create_task(self._run(self._link), name="command-batcher")
        packed = b"*%d\r\n%b" % (len(arguments), pack(arguments))
        command = _Command(packed, asyncio.get_running_loop().create_future(), weight)
        self._waiting.append(command)
        self._wake.set()
        return await command.reply

    def _room(self, key: str, weight: int) -> AbstractAsyncContextManager[None]:
        """In a cluster, room among the large replies of the key's node: a node that does not answer blocks no other."""
        if weight == 1:
            return contextlib.nullcontext()
        try:
            node = self._redis.get_node_from_key(key).name
        except RedisClusterException:  # it knows no nodes yet, or none that has the key
            node = ""
        return self._heavy.setdefault(node, asyncio.Semaphore(BATCH_WEIGHT // weight))

    async def _run(self, link: Link) -> None:
        while not tasks.told_to_stop():
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                if batch := self._next_batch():
                    await self._send(link, batch)

    def _next_batch(self) -> list[_Command]:
        batch: list[_Command] = []
        weight = 0
        while self._waiting and weight < BATCH_WEIGHT:
            command = self._waiting.popleft()
            if not command.reply.done():
                batch.append(command)
                weight += command.weight
        return batch

    async def _send(self, link: Link, batch: list[_Command]) -> None:
        try:
            replies = await self._exchange(link, batch)
        except asyncio.CancelledError:
            for command in batch:
                command.reply.cancel()
            raise
        for command, reply in zip(batch, replies, strict=True):
            if command.reply.done():
                continue  # its caller has left
            if isinstance(reply, Exception):
                command.reply.set_exception(reply)
            else:
                command.reply.set_result(reply)

    async def _exchange(self, link: Link, batch: list[_Command]) -> list[Any]:
        """The replies, or the same error for all. A second try, since a connection that broke while it was idle fails
        only now."""
        commands = b"".join([command.packed for command in batch])
        try:
            return await link.exchange(commands, len(batch))
        except (RedisError, *GONE):
            pass
        try:
            return await link.exchange(commands, len(batch))
        except (RedisError, *GONE) as error:
            return [error] * len(batch)

    async def close(self) -> None:
        if self._task is not None:
            await tasks.end([self._task])
        while self._waiting:
            self._waiting.popleft().reply.cancel()
        if self._link is not None:
            await self._link.aclose()
