"""The control channels of executions: they wake agents that wait for an answer, and a worker whose execution may be
cancelled. One pub/sub connection for all emitters of a publisher.

A message is only a wake-up: the request or the answer is in the record. So a missed message only costs time. Every
subscription also wakes the waiters, because a message may have passed before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from emitter import tasks
from emitter.store.connection import GONE, channels_of
from emitter.tasks import told_to_stop

CONNECT_AGAIN_SECONDS = 0.5


class _Waiter(NamedTuple):
    """A callback for `message` on a control channel."""

    message: bytes
    wake: Callable[[], None]


class ControlChannel:
    """`with control.waiting_for(channel, message, wake):`. Connected only while there are waiters."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._suffix = channels_of(redis).suffix
        self._waiters: dict[str, set[_Waiter]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()  # not that of the first waiter

    @contextlib.contextmanager
    def waiting_for(self, channel: str, message: bytes, wake: Callable[[], None]) -> Iterator[None]:
        """`wake` is called for this message on the channel, and whenever a message may have been missed."""
        waiter = _Waiter(message, wake)
        self._waiters.setdefault(channel, set()).add(waiter)
        self._changed.set()
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="control", context=self._context)
        try:
            yield
        finally:
            self._waiters[channel].discard(waiter)
            if not self._waiters[channel]:
                del self._waiters[channel]
                self._changed.set()

    async def aclose(self) -> None:
        """Disconnect, and wake all waiters."""
        if self._task is not None:
            await tasks.end([self._task])
        for channel in self._waiters:
            self._wake(channel)

    # --- the connection ---

    async def _run(self) -> None:
        """Ends when there are no waiters; the next waiter starts it again."""
        while self._waiters and not told_to_stop():
            pubsub = self._redis.pubsub()
            try:
                await self._use(pubsub)
            except (RedisError, *GONE):
                await asyncio.sleep(CONNECT_AGAIN_SECONDS)
            finally:
                with contextlib.suppress(RedisError, *GONE):
                    await pubsub.aclose()

    async def _use(self, pubsub: Any) -> None:
        """Keep the subscriptions on one connection until there are no waiters. Raises if the connection is lost."""
        await self._redis.initialize()  # a cluster's client must know its nodes first
        channels = set(self._waiters)
        if not channels:
            return
        await pubsub.execute_command("SUBSCRIBE", *self._names(channels))
        # From here on only these two use the connection, and neither makes a new one.
        both = [
            asyncio.create_task(self._read(pubsub.connection), name="control-read"),
            asyncio.create_task(self._change(pubsub.connection, channels), name="control-change"),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.end(both)
        for task in both:
            if not task.cancelled():
                await task

    async def _change(self, connection: Any, channels: set[str]) -> None:
        """Subscribe to the channels that have waiters and unsubscribe from the others, until there are no waiters."""
        while self._waiters and not told_to_stop():
            await self._changed.wait()
            self._changed.clear()
            wanted = set(self._waiters)
            if added := wanted - channels:
                await connection.send_command("SUBSCRIBE", *self._names(added), check_health=False)
            if dropped := channels - wanted:
                await connection.send_command("UNSUBSCRIBE", *self._names(dropped), check_health=False)
            channels = wanted

    async def _read(self, connection: Any) -> None:
        while True:
            reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False, push_request=True)
            kind, name, data = reply
            channel = name.decode().removesuffix(self._suffix)
            if kind == b"subscribe":
                self._wake(channel)
            elif kind == b"message":
                self._wake(channel, data)

    def _names(self, channels: set[str]) -> list[str]:
        return [channel + self._suffix for channel in channels]

    def _wake(self, channel: str, message: bytes | None = None) -> None:
        for waiter in tuple(self._waiters.get(channel, ())):
            if message in (None, waiter.message):
                waiter.wake()
