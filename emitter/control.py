"""A worker's ear: one pub/sub connection on the control channels of everything it runs.

A message only says that somebody should look: what was asked is in the record. So a missed one costs time, never the
request, and every (re)subscription counts as a message, since one may have passed before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from emitter.connection import GONE
from emitter.tasks import told_to_stop
from emitter.wire import WORKERS

READ_SECONDS = 2.0


class Control:
    """`watch` and `forget` channels at any time; `follow` listens on them and calls `wake`."""

    def __init__(self, redis: Redis, wake: Callable[[], None]) -> None:
        self._redis = redis
        self._wake = wake
        self._channels: set[str] = set()
        self._pubsub: Any = None

    async def watch(self, channel: str) -> None:
        self._channels.add(channel)
        await self._send("subscribe", channel)

    async def forget(self, channel: str) -> None:
        self._channels.discard(channel)
        await self._send("unsubscribe", channel)

    async def _send(self, command: str, channel: str) -> None:
        """A connection that breaks here is `follow`'s to notice; the next one subscribes to whatever is wanted then."""
        if self._pubsub is not None:
            with contextlib.suppress(RedisError, *GONE):
                await getattr(self._pubsub, command)(channel)

    async def follow(self) -> None:
        """Listen for as long as the connection lasts, and raise what ended it."""
        pubsub: Any = self._redis.pubsub()
        try:
            # A channel of no use but to have a connection: a cluster's client has none before it knows a channel.
            await self._redis.initialize()
            await pubsub.subscribe(WORKERS)
            self._pubsub = pubsub  # before the channels are read, so that none watched meanwhile is missed
            if self._channels:
                await pubsub.subscribe(*self._channels)
            while not told_to_stop():
                message = await pubsub.get_message(timeout=READ_SECONDS)
                if message is not None and _matters(message):
                    self._wake()
        finally:
            self._pubsub = None
            await pubsub.aclose()


def _matters(message: dict[str, Any]) -> bool:
    """A new subscription or a word to the worker; answers are for those who asked."""
    if message["type"] == "message":
        data: bytes = message["data"]
        return not data.startswith(b"answer ")
    return bool(message["type"] == "subscribe")
