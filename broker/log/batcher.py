"""Read commands of one edge, sent in rounds: what came up since the last one goes as one exchange over one connection.

A thousand viewers that arrive at once would else take a thousand connections from the pool, at 100 µs each; in a round
a command costs a quarter of that. Only for commands that may fail and be asked again by their caller.
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
from emitter.store.connection import GONE, Link, pack

ROUND_WEIGHT = 64
"""Commands in one exchange at most, each as often as it weighs: so that large replies are few, in memory and before the
others."""


class _Question(NamedTuple):
    packed: bytes
    answer: asyncio.Future[Any]
    weight: int


class CommandBatcher:
    """`await commands.execute("HMGET", key, "field")`. Its task starts with the first question; `close` ends it."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        # A cluster's client must find the node of each key, so there each command goes by itself.
        self._link = None if isinstance(redis, RedisCluster) else Link(redis)
        self._heavy: dict[str, asyncio.Semaphore] = {}
        self._questions: deque[_Question] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def execute(self, *arguments: str | bytes | int, weight: int = 1) -> Any:
        """The reply (bytes, as RESP2 has it); `weight` says how large it may be, where 1 is a short one. Raises what
        Redis answered, or `GONE` when it did not; bounded by the client's socket timeout for each round before this one
        and its own."""
        if self._link is None:
            async with self._room(str(arguments[1]), weight):
                return await self._redis.execute_command(*arguments)
        if self._task is None:
            self._task = asyncio.create_task(self._run(self._link), name="rounds")
        packed = b"*%d\r\n%b" % (len(arguments), pack(arguments))
        question = _Question(packed, asyncio.get_running_loop().create_future(), weight)
        self._questions.append(question)
        self._wake.set()
        return await question.answer

    def _room(self, key: str, weight: int) -> AbstractAsyncContextManager[None]:
        """In a cluster, room among the large replies of the key's node: one that stands still holds up no other."""
        if weight == 1:
            return contextlib.nullcontext()
        try:
            node = self._redis.get_node_from_key(key).name
        except RedisClusterException:  # it knows no nodes yet, or none that has the key
            node = ""
        return self._heavy.setdefault(node, asyncio.Semaphore(ROUND_WEIGHT // weight))

    async def _run(self, link: Link) -> None:
        while not tasks.told_to_stop():
            await self._wake.wait()
            self._wake.clear()
            while self._questions:
                if lot := self._next_lot():
                    await self._round(link, lot)

    def _next_lot(self) -> list[_Question]:
        lot: list[_Question] = []
        weight = 0
        while self._questions and weight < ROUND_WEIGHT:
            question = self._questions.popleft()
            if not question.answer.done():
                lot.append(question)
                weight += question.weight
        return lot

    async def _round(self, link: Link, lot: list[_Question]) -> None:
        try:
            replies = await self._exchange(link, lot)
        except asyncio.CancelledError:
            for question in lot:
                question.answer.cancel()
            raise
        for question, reply in zip(lot, replies, strict=True):
            if question.answer.done():
                continue  # whoever asked has left
            if isinstance(reply, Exception):
                question.answer.set_exception(reply)
            else:
                question.answer.set_result(reply)

    async def _exchange(self, link: Link, lot: list[_Question]) -> list[Any]:
        """The replies, or the same error for all. One that broke while it was idle shows it only now: once more."""
        commands = b"".join([question.packed for question in lot])
        try:
            return await link.exchange(commands, len(lot))
        except (RedisError, *GONE):
            pass
        try:
            return await link.exchange(commands, len(lot))
        except (RedisError, *GONE) as error:
            return [error] * len(lot)

    async def close(self) -> None:
        if self._task is not None:
            await tasks.end([self._task])
        while self._questions:
            self._questions.popleft().answer.cancel()
        if self._link is not None:
            await self._link.aclose()
