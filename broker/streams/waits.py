"""Requests that wait for a log to go on before anything of their response is written: what comes decides its status.

A wait takes a stream slot and counts as a viewer of its log. It costs Redis nothing while the log is quiet: the edge's
subscription ends it, as it feeds viewers.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from broker.base.reasons import CloseReason
from broker.log.history import Head, History
from broker.log.watch_leases import WatchLeases
from broker.log.watched import WatchedLog, WatchedLogs
from broker.streams.replay import Replay
from broker.streams.request import Target, policy_of
from emitter.wire.ids import EventId

GONE_SECONDS = 1.0
"""How long a wait whose client has left may go on."""


class LogWaits:
    """The waits of one edge."""

    def __init__(self, history: History, watch: WatchedLogs, leases: WatchLeases, steps: Replay) -> None:
        self._history = history
        self._watch = watch
        self._leases = leases
        self._steps = steps
        self._running: set[asyncio.Timeout] = set()

    def __len__(self) -> int:
        return len(self._running)

    async def until_more(
        self, target: Target, head: Head, after: EventId, seconds: float, is_gone: Callable[[], bool], *, counts: bool
    ) -> bool:
        """Wait until a read after this place gives something: events, the end of the execution, or that the place is
        no part of the log any more. False if nothing came within `seconds`, or before the edge drained or the client
        left. `counts`: as a viewer, for the policy of the execution. Raises redis errors, and `RedisUnavailable`."""
        watched = self._watch.enter(target.log, target.record, policy_of(target, head))
        policy = watched.policy if counts else None
        if policy is not None:
            self._leases.enter(policy)
        why = CloseReason.GONE
        try:
            has_more = await self._within(watched, after, seconds, is_gone)
            why = CloseReason.GONE if is_gone() else CloseReason.AGED  # who got an answer is likely to come back
            return has_more
        finally:
            self._watch.leave(target.log)
            if policy is not None:
                self._leases.leave(policy, CloseReason.FINISHED if watched.topic.ended else why)

    async def _within(self, watched: WatchedLog, after: EventId, seconds: float, is_gone: Callable[[], bool]) -> bool:
        patience = asyncio.timeout(seconds)
        self._running.add(patience)
        try:
            async with patience:
                await self._watch.subscribe(watched.topic.key)
                while not is_gone():
                    if await self._has_more(watched, after):
                        return True
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(GONE_SECONDS):
                            await watched.change()
        except TimeoutError:
            if not patience.expired():
                raise  # it is Redis that took too long
        finally:
            self._running.discard(patience)
        return False

    async def _has_more(self, watched: WatchedLog, after: EventId) -> bool:
        """Asks Redis only while the topic does not know this place."""
        topic = watched.topic
        await self._watch.wait_caught_up(watched)
        missing = topic.missing(after)
        if missing is None:
            known = topic.last
            page = await self._history.read(topic.key, after, record=watched.record)
            if page.entries or page.closed or page.reset is not None:
                return True
            self._steps.update_topic(watched, page, after, known)
            missing = topic.missing(after)
        return bool(missing) or topic.ended

    def drain(self, seconds: float) -> None:
        """End all waits, spread over `seconds`: their clients ask again, on other edges."""
        now = asyncio.get_running_loop().time()
        for patience in self._running:
            ends = now + random.uniform(0, seconds)
            if not patience.expired() and (patience.when() or now) > ends:
                patience.reschedule(ends)
