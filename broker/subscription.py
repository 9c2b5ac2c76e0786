"""The one Redis subscription of an edge: every channel of every viewer over one connection.

redis-py reconnects and resubscribes without a word; the only sign is that a channel is confirmed a second time. What
was published meanwhile is gone from this road, so `on_lost` tells the edge to read that channel's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from types import TracebackType
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.logs import get_logger
from emitter import tasks
from emitter.connection import GONE
from emitter.errors import RedisUnavailable

CONFIRM_SECONDS = 10.0
READ_SECONDS = 1.0
YIELD_AFTER = 200
"""Messages read in one go before other work gets its turn."""


class Subscription:
    """`async with Subscription(…)`. `permanent` channels are held for its whole life.

    on_message(channel, data) is called for every message; on_lost(channel) when messages may have been missed.
    Both are synchronous and must not raise.
    """

    def __init__(
        self,
        redis: Redis,
        permanent: list[str],
        on_message: Callable[[str, bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._pubsub: Any = redis.pubsub()
        self._on_message = on_message
        self._on_lost = on_lost
        self._permanent = permanent
        self._wanted: set[str] = set(permanent)
        self._sent: set[str] = set()
        self._confirmed: set[str] = set()
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._log = get_logger()
        self.connected = False
        self.reconnects = 0

    async def __aenter__(self) -> Subscription:
        async with asyncio.timeout(CONFIRM_SECONDS):
            await self._pubsub.subscribe(*self._permanent)
        self._sent.update(self._permanent)
        self._tasks = [
            asyncio.create_task(self._read(), name="subscription-read"),
            asyncio.create_task(self._change(), name="subscription-change"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await tasks.end(self._tasks)
        for waiter in self._waiters.values():
            waiter.cancel()
        with contextlib.suppress(RedisError, *GONE):
            await self._pubsub.aclose()

    @property
    def channels(self) -> int:
        return len(self._confirmed)

    async def subscribe(self, channel: str) -> None:
        """Hold a channel and wait until Redis confirmed it. Raises `RedisUnavailable`."""
        self._wanted.add(channel)
        if channel in self._confirmed:
            return
        waiter = self._waiters.get(channel)
        if waiter is None:
            waiter = self._waiters[channel] = asyncio.get_running_loop().create_future()
        self._changed.set()  # also for a waiter that was there: the channel may have been unwanted in between
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await asyncio.shield(waiter)
        except TimeoutError:
            raise RedisUnavailable(f"no confirmation of a subscription within {CONFIRM_SECONDS:g} s") from None

    def unsubscribe(self, channel: str) -> None:
        self._wanted.discard(channel)
        self._changed.set()

    async def reconnect(self) -> None:
        """Drop the connection; the reader makes a new one and every channel is confirmed again."""
        if self._pubsub.connection is not None:
            await self._pubsub.connection.disconnect(nowait=True)

    async def _change(self) -> None:
        """Send what changed since the last time as one command each; a wave of joins costs one round trip."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                if added := self._wanted - self._sent:
                    await self._pubsub.subscribe(*added)
                    self._sent |= added
                if dropped := self._sent - self._wanted:
                    # Forgotten before it is sent: whoever wants one of them meanwhile must wait for a confirmation
                    # that comes after.
                    self._confirmed -= dropped
                    self._sent -= dropped
                    await self._pubsub.unsubscribe(*dropped)
            except (RedisError, *GONE) as error:
                self._log.warning("subscription_change_failed", error=type(error).__name__)
                await asyncio.sleep(0.2)
                self._changed.set()

    async def _read(self) -> None:
        failures, read = 0, 0
        while True:
            try:
                message = await self._pubsub.get_message(timeout=READ_SECONDS)
            except (RedisError, *GONE) as error:
                self.connected = False
                failures += 1
                self._log.warning("subscription_lost", error=type(error).__name__, failures=failures)
                await asyncio.sleep(min(2.0, 0.05 * 2 ** min(failures, 8)) * (0.5 + random.random() / 2))
                continue
            failures = 0
            if message is None:
                continue
            self._handle(message)
            read += 1
            if read % YIELD_AFTER == 0:
                await asyncio.sleep(0)

    def _handle(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "message":
            self._on_message(message["channel"].decode(), message["data"])
        elif kind == "subscribe":
            self._on_confirmation(message["channel"].decode())

    def _on_confirmation(self, channel: str) -> None:
        self.connected = True
        again = channel in self._confirmed
        if channel in self._wanted:
            self._confirmed.add(channel)
        else:  # subscribed again by a reconnect, before Redis heard that nobody wants it
            self._sent.add(channel)
            self._changed.set()
        waiter = self._waiters.pop(channel, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if again:
            if channel == self._permanent[0]:
                self.reconnects += 1
                self._log.warning("subscription_reconnected", channels=len(self._confirmed))
            self._on_lost(channel)
