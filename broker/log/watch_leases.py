"""The watch leases of one edge: which executions are watched here, of those that are cancelled without a viewer.

A viewer counts from the moment its stream is established, also while it replays or is slow. A viewer of a feed watches
no execution in particular and does not count.

One task sends all changes in order, and keeps only the latest of each execution. So a lease never overtakes a newer
one, and Redis may be away for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import islice
from types import TracebackType
from typing import NamedTuple

from redis.asyncio import Redis

from broker.base.logging import get_logger
from broker.base.reasons import CloseReason
from emitter import tasks
from emitter.backoff import backoff_seconds
from emitter.store import watch_leases
from emitter.store.watch_leases import WORD_MS, WatchLease

LEASE_SECONDS = WORD_MS / 1000
RENEW_SECONDS = LEASE_SECONDS / 3
BATCH_SIZE = 100
"""Executions in one call, which holds Redis for about a millisecond."""
MAX_PENDING = 100_000
CLOSE_SECONDS = 3.0
LEFT_FOR_GOOD = (CloseReason.GONE, CloseReason.REVOKED)
"""A stream that ends for any other reason was closed by its edge. Its viewer is likely to come back, here or on another
edge, and counts for one more lease."""


class DisconnectPolicy(NamedTuple):
    """The execution `name` (its `member`) is cancelled `cancel_after_ms` after its last viewer left."""

    name: str
    cancel_after_ms: int


class _Watched:
    """The viewers of one execution on this edge."""

    __slots__ = ("awaited_until", "policy", "viewers")

    def __init__(self, policy: DisconnectPolicy) -> None:
        self.policy = policy
        self.viewers = 0
        self.awaited_until = 0.0


class _Pending(NamedTuple):
    """A change for Redis: watched `until` then (loop time; None: until this edge stops to renew the lease), or, if the
    execution has `ended`, no lease any more."""

    policy: DisconnectPolicy
    until: float | None
    ended: bool

    def lease(self, now: float) -> WatchLease:
        holds = WORD_MS if self.until is None else int((self.until - now) * 1000)
        return WatchLease(*self.policy, holds)


class WatchLeases:
    """`async with WatchLeases(…)`, then `enter` and `leave` for every viewer of an execution with a policy."""

    def __init__(self, redis: Redis, edge_id: str, *, renew_seconds: float = RENEW_SECONDS) -> None:
        self._redis = redis
        self._edge_id = edge_id
        self._renew_seconds = renew_seconds
        self._watched: dict[str, _Watched] = {}
        self._pending: dict[str, _Pending] = {}
        self._changed = asyncio.Event()
        self._closing = False
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger()

    # --- for streams ---

    def enter(self, policy: DisconnectPolicy) -> None:
        """A viewer has come."""
        here = self._watched.get(policy.name)
        if here is None:
            here = self._watched[policy.name] = _Watched(policy)
            self._queue(policy, None)
        here.viewers += 1

    def leave(self, policy: DisconnectPolicy, reason: CloseReason) -> None:
        """A viewer that had entered has left, or its execution has ended (`FINISHED`)."""
        now = asyncio.get_running_loop().time()
        here = self._watched[policy.name]
        here.viewers -= 1
        if reason not in LEFT_FOR_GOOD:
            here.awaited_until = now + LEASE_SECONDS
        if here.viewers == 0:
            del self._watched[policy.name]
            self._queue(policy, max(now, here.awaited_until), ended=reason is CloseReason.FINISHED)

    def _queue(self, policy: DisconnectPolicy, until: float | None, *, ended: bool = False) -> None:
        self._pending.pop(policy.name, None)
        if len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]  # its earlier lease expires by itself
        self._pending[policy.name] = _Pending(policy, until, ended)
        self._changed.set()

    # --- life ---

    async def __aenter__(self) -> WatchLeases:
        self._task = asyncio.create_task(self._run(), name="watch-leases")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Sends what is pending, for a few seconds at most. Leases that are left expire."""
        assert self._task is not None
        self._closing = True
        self._changed.set()
        await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
        await tasks.end([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + self._renew_seconds
        while not (self._closing or tasks.told_to_stop()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(renew_at):
                    await self._changed.wait()
            if loop.time() >= renew_at:
                renew_at = loop.time() + self._renew_seconds
                self._renew()
            if not await self._send_batch():
                await asyncio.sleep(backoff_seconds(self._failures, first=0.05, most=1.0))
        while self._pending and await self._send_batch():
            pass

    def _renew(self) -> None:
        for here in self._watched.values():
            self._queue(here.policy, None)

    async def _send_batch(self) -> bool:
        """Send some of what is pending; false if that failed."""
        batch = list(islice(self._pending.values(), BATCH_SIZE))
        try:
            await self._send(batch)
        except Exception as error:  # if this task ended, every lease would expire and watched executions be cancelled
            self._note(error)
            return False
        self._failures = 0
        for each in batch:
            if self._pending.get(each.policy.name) is each:  # or it has changed since
                del self._pending[each.policy.name]
        if not self._pending:
            self._changed.clear()
        return True

    async def _send(self, batch: list[_Pending]) -> None:
        now = asyncio.get_running_loop().time()
        if ended := [each.policy.name for each in batch if each.ended]:
            await watch_leases.forget(self._redis, *ended)
        if leases := [each.lease(now) for each in batch if not each.ended]:
            await watch_leases.say(self._redis, self._edge_id, leases)

    def _note(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            self._log.warning("presence_unsaid", error=type(error).__name__, executions=len(self._pending))
