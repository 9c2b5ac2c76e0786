"""Liveness, readiness and loop lag of an edge: the admin listener, and the tasks behind its answers."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable

import msgspec
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.log.cluster_subscription import AnySubscription
from broker.ops.dataset import MARK_SCRIPT, Dataset
from emitter.store.connection import GONE, publish
from emitter.wire import ids, keys

BEAT_SECONDS = 1.0
FRESH_SECONDS = 5.0
"""A loopback older than this means that messages do not reach this edge."""
DEAF_SECONDS = 8.0
"""After so long without a loopback the subscription gets a new connection."""
ANNOUNCE_SECONDS = 10.0
LAG_SECONDS = 0.5
LOST_KEPT_MS = 24 * 3600 * 1000
"""For how long `runcast doctor` can report that Redis came back empty."""


class Loopback:
    """Publishes on the edge's own channel and waits for the message; announces the edge in Redis, and checks that Redis
    still has its data. `on_emptied` is called if it has not."""

    def __init__(
        self,
        edge_id: str,
        redis: Redis,
        subscription: Callable[[], AnySubscription],
        describe: Callable[[], object],
        on_emptied: Callable[[], None] = lambda: None,
    ) -> None:
        self.edge_id = edge_id
        self.channel = keys.edge_channel(edge_id)
        self._redis = redis
        self._subscription = subscription
        self._describe = describe
        self._on_emptied = on_emptied
        self._dataset = Dataset()
        self._last_heard_at = -1e9
        self._redis_ok = False
        self._log = get_logger()

    def hear(self) -> None:
        """Our own message came back."""
        self._last_heard_at = time.monotonic()

    def ready(self) -> dict[str, bool]:
        """The conditions of readiness."""
        return {"redis": self._redis_ok, "loopback": time.monotonic() - self._last_heard_at < FRESH_SECONDS}

    async def run(self) -> None:
        self._last_heard_at = max(self._last_heard_at, time.monotonic() - FRESH_SECONDS)
        while True:
            try:
                async with asyncio.timeout(BEAT_SECONDS * 3):
                    await self._beat()
                self._redis_ok = True
            except (RedisError, *GONE) as error:
                if self._redis_ok:
                    self._log.warning("redis_unreachable", error=type(error).__name__, detail=str(error)[:200])
                self._redis_ok = False
            silent = time.monotonic() - self._last_heard_at
            if self._redis_ok and silent > DEAF_SECONDS:
                self._log.warning("subscription_deaf", seconds=round(silent, 1))
                self._subscription().reconnect()
                self._last_heard_at = time.monotonic() - FRESH_SECONDS
            await asyncio.sleep(BEAT_SECONDS)

    async def _beat(self) -> None:
        await publish(self._redis, self.channel, b"beat")
        now, lifetime = ids.now_ms(), int(ANNOUNCE_SECONDS * 1000)
        pipe = self._redis.pipeline(transaction=False)
        # Not `pipe.eval`: a cluster's pipeline refuses that name, though not the command.
        pipe.execute_command("EVAL", MARK_SCRIPT, 1, keys.DATASET, self._dataset.offer, now)
        pipe.zadd(keys.EDGES, {self.edge_id: now + lifetime})
        pipe.zremrangebyscore(keys.EDGES, "-inf", now)
        pipe.set(keys.edge_info_key(self.edge_id), msgspec.json.encode(self._describe()), px=lifetime)
        replies = await pipe.execute(raise_on_error=False)
        for reply in replies:
            # A Redis that is too full for the announcement still carries messages, and viewers are served.
            if isinstance(reply, Exception) and not isinstance(reply, OutOfMemoryError):
                raise reply
        if not isinstance(replies[0], Exception) and self._dataset.found(replies[0]):
            self._log.error("redis_emptied")
            self._on_emptied()
            await self._redis.set(keys.DATASET_LOST, now, px=LOST_KEPT_MS)

    async def leave(self) -> None:
        """Delete the announcement, if that works: it expires anyway."""
        try:
            async with asyncio.timeout(1):
                await self._redis.zrem(keys.EDGES, self.edge_id)
                await self._redis.delete(keys.edge_info_key(self.edge_id))
        except (RedisError, *GONE):
            pass


async def measure_lag(metrics: Metrics) -> None:
    """Observe, until cancelled, how late the loop wakes a sleeping task."""
    loop = asyncio.get_running_loop()
    while True:
        asked = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        metrics.event_loop_lag.observe(max(0.0, loop.time() - asked))


def new_edge_id() -> str:
    """Unique per process, and readable: the host (the name of a pod) and a random suffix."""
    host = "".join(c for c in socket.gethostname() if c.isalnum() or c in "-_")[:40] or "edge"
    return f"{host}-{os.getpid()}-{os.urandom(3).hex()}"
