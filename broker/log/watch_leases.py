"""Which executions are watched here, of those that are cancelled when nobody watches them: told to Redis, kept true.

A viewer counts from the moment its stream is established, also while it replays or is slow. One of a feed watches no
execution in particular and does not count.

Everything is sent by one task, in order, and of what is to say of an execution only the latest is kept. So words cannot
overtake each other, and Redis may be away for a while.
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

WORD_SECONDS = WORD_MS / 1000
RENEW_SECONDS = WORD_SECONDS / 3
LOT = 100
"""Executions in one call, which holds Redis for about a millisecond."""
MAX_UNSAID = 100_000
CLOSE_SECONDS = 3.0
LEFT_FOR_GOOD = (CloseReason.GONE, CloseReason.REVOKED)
"""A viewer whose stream ends for any other reason was sent away by its edge. It is likely to come back, here or on
another edge, and counts for the time of a word."""


class DisconnectPolicy(NamedTuple):
    """An execution (by its `member`) that is cancelled when nobody has watched it for so long."""

    name: str
    cancel_after_ms: int


class _Here:
    """The viewers of one execution on this edge."""

    __slots__ = ("awaited_until", "policy", "viewers")

    def __init__(self, policy: DisconnectPolicy) -> None:
        self.policy = policy
        self.viewers = 0
        self.awaited_until = 0.0


class _Unsaid(NamedTuple):
    """What Redis is to be told: watched `until` then (loop time; None: as long as this edge renews its word), or, if it
    has `ended`, nothing more of it."""

    policy: DisconnectPolicy
    until: float | None
    ended: bool

    def word(self, now: float) -> WatchLease:
        holds = WORD_MS if self.until is None else int((self.until - now) * 1000)
        return WatchLease(*self.policy, holds)


class WatchLeases:
    """`async with Presence(…)`, then `enter` and `leave` for every viewer of a tethered execution."""

    def __init__(self, redis: Redis, edge_id: str, *, renew_seconds: float = RENEW_SECONDS) -> None:
        self._redis = redis
        self._edge_id = edge_id
        self._renew_seconds = renew_seconds
        self._here: dict[str, _Here] = {}
        self._unsaid: dict[str, _Unsaid] = {}
        self._news = asyncio.Event()
        self._closing = False
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger()

    # --- for streams ---

    def enter(self, policy: DisconnectPolicy) -> None:
        """A viewer has come."""
        here = self._here.get(policy.name)
        if here is None:
            here = self._here[policy.name] = _Here(policy)
            self._tell(policy, None)
        here.viewers += 1

    def leave(self, policy: DisconnectPolicy, reason: CloseReason) -> None:
        """A viewer that had entered has left, or its execution has ended (`FINISHED`)."""
        now = asyncio.get_running_loop().time()
        here = self._here[policy.name]
        here.viewers -= 1
        if reason not in LEFT_FOR_GOOD:
            here.awaited_until = now + WORD_SECONDS
        if here.viewers == 0:
            del self._here[policy.name]
            self._tell(policy, max(now, here.awaited_until), ended=reason is CloseReason.FINISHED)

    def _tell(self, policy: DisconnectPolicy, until: float | None, *, ended: bool = False) -> None:
        self._unsaid.pop(policy.name, None)
        if len(self._unsaid) >= MAX_UNSAID:
            del self._unsaid[next(iter(self._unsaid))]  # an earlier word on it ends by itself
        self._unsaid[policy.name] = _Unsaid(policy, until, ended)
        self._news.set()

    # --- life ---

    async def __aenter__(self) -> WatchLeases:
        self._task = asyncio.create_task(self._run(), name="presence")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Says what is unsaid, as well as that goes in a few seconds; else the words that were heard end by
        themselves."""
        assert self._task is not None
        self._closing = True
        self._news.set()
        await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
        await tasks.end([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + self._renew_seconds
        while not (self._closing or tasks.told_to_stop()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(renew_at):
                    await self._news.wait()
            if loop.time() >= renew_at:
                renew_at = loop.time() + self._renew_seconds
                self._renew()
            if not await self._say_some():
                await asyncio.sleep(backoff_seconds(self._failures, first=0.05, most=1.0))
        while self._unsaid and await self._say_some():
            pass

    def _renew(self) -> None:
        for here in self._here.values():
            self._tell(here.policy, None)

    async def _say_some(self) -> bool:
        """Say a lot of what is unsaid; false if that failed."""
        lot = list(islice(self._unsaid.values(), LOT))
        try:
            await self._say(lot)
        except Exception as error:  # whatever it is: with this task every word would end, and what is watched with it
            self._note(error)
            return False
        self._failures = 0
        for each in lot:
            if self._unsaid.get(each.policy.name) is each:  # else there is news of it since
                del self._unsaid[each.policy.name]
        if not self._unsaid:
            self._news.clear()
        return True

    async def _say(self, lot: list[_Unsaid]) -> None:
        now = asyncio.get_running_loop().time()
        if ended := [each.policy.name for each in lot if each.ended]:
            await watch_leases.forget(self._redis, *ended)
        if words := [each.word(now) for each in lot if not each.ended]:
            await watch_leases.say(self._redis, self._edge_id, words)

    def _note(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            self._log.warning("presence_unsaid", error=type(error).__name__, executions=len(self._unsaid))
