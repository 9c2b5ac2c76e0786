"""Stream slots of one edge: one must be taken before a stream is opened, or anything is started for it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from broker.auth.refusals import Reason, Unauthorized
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.problem import Problem, retry_after
from broker.base.reasons import RedisOp
from broker.streams.admission import Admission


class StreamSlot:
    """Room for one stream. It is given back unless `is_used`."""

    __slots__ = ("is_used",)

    def __init__(self) -> None:
        self.is_used = False


class StreamSlots:
    """Stream slots of one edge. `limit`: at most so many (0: unlimited). `used()`: how many are open. The limits of a
    user are in `Admission`."""

    def __init__(self, limit: int, admission: Admission, metrics: Metrics, used: Callable[[], int]) -> None:
        self._limit = limit
        self._admission = admission
        self._metrics = metrics
        self._used = used
        self.opening = 0
        """Slots of streams that are not open yet, and of exports."""
        self.waiting = 0
        """Slots of requests that wait for a log to go on."""
        self._log = get_logger()
        self.draining = False

    @asynccontextmanager
    async def take(self, identity: Identity) -> AsyncIterator[StreamSlot]:
        """Room for one stream of this caller, given back unless the stream was opened. Raises `Problem` 401, 429 and
        503, `RedisUnavailable` and redis errors."""
        if identity.expires_at is not None and identity.expires_at <= time.time():
            # Within the leeway other requests still pass, but a stream would end at once, and its viewer reconnect.
            raise Unauthorized(Reason.EXPIRED, "the token has expired")
        if self.draining:
            self.reject("draining")
            raise Problem(503, "draining", "this edge stops", headers=retry_after(random.randint(1, 2)))
        if self._limit and self._used() + self.opening + self.waiting >= self._limit:
            self.reject("capacity")
            detail = "this edge takes no more streams now"
            raise Problem(503, "capacity", detail, headers=retry_after(random.randint(1, 5)))
        self.opening += 1
        slot = StreamSlot()
        try:
            await self._count(identity)
            try:
                yield slot
            finally:
                if not slot.is_used:
                    self._admission.release(identity.principal)
        finally:
            self.opening -= 1

    @asynccontextmanager
    async def wait(self, identity: Identity) -> AsyncIterator[None]:
        """The slot of a request while it waits. Errors of `take`."""
        async with self.take(identity):
            self.opening -= 1
            self.waiting += 1
            try:
                yield
            finally:
                self.waiting -= 1
                self.opening += 1

    async def _count(self, identity: Identity) -> None:
        try:
            with self._metrics.redis_call(RedisOp.ADMISSION):
                await self._admission.admit(identity.principal)
        except Problem as problem:
            if problem.status == 429:
                limit = "connect_rate" if problem.slug == "rate-limited" else "user_connections"
                self.reject(limit, user=identity.principal.user)
            raise

    def reject(self, reason: str, **who: str) -> None:
        """Count and log a refusal."""
        self._metrics.rejected[reason].inc()
        self._log.info("stream_refused", reason=reason, **who)
