"""Renews the leases of a worker in a thread of its own, with its own event loop and connection to Redis.

An async agent that blocks the worker's event loop (a synchronous HTTP client, `time.sleep`, a long computation) blocks
every task on it. Leases that were renewed there would lapse, and other workers would restart executions that did
nothing wrong. This thread goes on: it renews leases, reads requests to cancel, and logs which agent blocks the loop.

It does so for `blocked_seconds`. If the loop is blocked for longer, the worker is given up: the thread renews no lease
and hands the other executions over, as soon as another worker lives. A hand-over does not count as a lost attempt; the
loss of the execution that blocks does. An execution that blocks the loop, and exceeds a limit or does not follow a
cancel, is ended from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from emitter.errors import AppendRefused
from emitter.events import BudgetNotice, Event, ExecutionCancelled, ExecutionError
from emitter.observer import Observer
from emitter.store import announcements, jobs
from emitter.store.connection import GONE
from emitter.store.jobs import Job, Renewal
from emitter.store.lifecycle import Lifecycle, overspent
from emitter.worker.attempt import Attempt
from emitter.worker.blockers import Blocker, find_blocker
from emitter.worker.endings import TimedOut

log = structlog.get_logger("emitter.worker")

NAMED_SECONDS = 1.0
"""A loop that runs nothing for this long is blocked: from then on the log names the agent."""
OVER_SECONDS = 1.0
"""How much later than the event loop the thread ends an execution that exceeds a limit."""
PAUSE_SECONDS = 0.5
CLOSE_SECONDS = 5.0


class LeaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`tick_seconds`: how often leases are renewed. `blocked_seconds`: how long the loop may be blocked before the
    worker is given up. `cancel_grace_seconds`: how long a cancelled agent may take to stop."""

    lease_ms: int
    tick_seconds: float
    blocked_seconds: float
    cancel_grace_seconds: float


class Block(NamedTuple):
    """The loop has run nothing since `since`, because of `blocker`, if that is known."""

    since: float
    blocker: Blocker


class Leases:
    """`await leases.run()` starts the thread and returns when it has ended; it ends when the call is cancelled.

    Args:
        open_redis: makes the thread's own client.
        open_lifecycle: makes the steps over that client.
        attempts: what runs now, by record; read by the thread, changed by the loop.
        apply: called on the loop with an attempt and its renewal.
    """

    def __init__(
        self,
        worker: str,
        settings: LeaseSettings,
        *,
        open_redis: Callable[[], Redis],
        open_lifecycle: Callable[[Redis], Lifecycle],
        attempts: dict[str, Attempt],
        apply: Callable[[Attempt, Renewal], None],
        observer: Observer,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._open_redis = open_redis
        self._open_lifecycle = open_lifecycle
        self._attempts = attempts
        self._apply = apply
        self._observer = observer
        self._renewals: deque[list[tuple[Attempt, Renewal]]] = deque(maxlen=2)
        self._beat_at: float | None = None
        self._block: Block | None = None
        self._other: Block | None = None
        """Whom the last look met in the place of the one that blocks."""
        self._given_up = False
        self._handed_over: Block | None = None
        """Because of what the other executions were handed over last."""
        self._stopped = False
        self._own: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    # --- on the worker's loop ---

    async def run(self) -> None:
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._run_thread, args=(ended,), name="leases", daemon=True).start()
        try:
            await asyncio.shield(ended)
        finally:
            self._stopped = True
            self.renew_now()
            await asyncio.wait((ended,), timeout=CLOSE_SECONDS)

    def renew_now(self) -> None:
        """Renew without waiting for the next tick: an execution may have been cancelled. From any thread."""
        if self._own is not None:
            loop, wake = self._own
            with contextlib.suppress(RuntimeError):  # the thread has ended
                loop.call_soon_threadsafe(wake.set)

    def _beat(self) -> None:
        """The loop runs again: apply the renewals that wait."""
        sent_at, self._beat_at = self._beat_at, None
        self._observer.beat()
        block, self._block, self._other, self._given_up = self._block, None, None, False
        if sent_at is not None and (silent := time.monotonic() - sent_at) > NAMED_SECONDS:
            self._excuse(block, silent)
        while self._renewals:
            for attempt, renewal in self._renewals.popleft():
                self._apply(attempt, renewal)

    def _excuse(self, block: Block | None, seconds: float) -> None:
        """The other agents could not run meanwhile: this time does not count against their limits."""
        blocking = None if block is None else block.blocker.job
        for attempt in self._attempts.values():
            if attempt.job is not blocking:
                attempt.excuse(seconds)
        if block is not None:
            log.warning("loop_unblocked", **block.blocker.fields, seconds=round(seconds, 3))

    # --- in the thread ---

    def _run_thread(self, ended: asyncio.Future[None]) -> None:
        defect: BaseException | None = None
        try:
            asyncio.run(self._live())
        except BaseException as error:
            defect = error
        with contextlib.suppress(RuntimeError):  # the worker's loop is closed
            self._loop.call_soon_threadsafe(_settle, ended, defect)

    async def _live(self) -> None:
        wake = asyncio.Event()
        self._own = (asyncio.get_running_loop(), wake)
        redis = self._open_redis()
        lifecycle = self._open_lifecycle(redis)
        try:
            while not self._stopped:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.tick_seconds):
                        await wake.wait()
                is_regular = not wake.is_set()
                wake.clear()
                await self._step_patiently(redis, lifecycle, is_regular)
        finally:
            await redis.aclose()

    async def _step_patiently(self, redis: Redis, lifecycle: Lifecycle, is_regular: bool) -> None:
        try:
            await self._step(redis, lifecycle, is_regular)
        except (RedisError, *GONE) as error:
            self._observer.lost_redis("renew")
            log.warning("redis_lost", loop="renew", error=f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(min(PAUSE_SECONDS, self._settings.tick_seconds))

    async def _step(self, redis: Redis, lifecycle: Lifecycle, is_regular: bool) -> None:
        silent = self._check_loop()
        attempts = list(self._attempts.copy().values())
        if silent > self._settings.blocked_seconds:
            await self._give_up(redis, lifecycle, attempts, silent)
        elif attempts:
            await self._renew(redis, attempts, is_regular)
        if self._block is not None:
            await self._end_blocker(lifecycle, self._block.blocker.job)
        if self._beat_at is None:
            self._beat_at = time.monotonic()
            with contextlib.suppress(RuntimeError):  # the worker's loop is closed
                self._loop.call_soon_threadsafe(self._beat)

    async def _renew(self, redis: Redis, attempts: list[Attempt], is_regular: bool) -> None:
        """Renew the leases, and move the reaper's checks to their ends. A regular renewal also restores checks that
        Redis has lost. One between the ticks does not: it comes right after each start, when a short execution may
        have ended since, and must not come back into `DUE`."""
        renewals = await jobs.renew(redis, [attempt.job for attempt in attempts], self._worker, self._settings.lease_ms)
        renewed = list(zip(attempts, renewals, strict=True))
        for attempt, renewal in renewed:
            if renewal.verdict == "lost" or renewal.cancel is not None:
                attempt.request_stop(renewal.cancel)
        self._renewals.append(renewed)
        times = {
            attempt.job.member: renewal.lease_ms
            for attempt, renewal in renewed
            if renewal.verdict == "ok" and attempt.job.record in self._attempts
        }
        await jobs.schedule_checks(redis, times, only_known=not is_regular)

    def _check_loop(self) -> float:
        """How many seconds the worker's loop has run nothing. Logs the agent that blocks it, once."""
        sent_at = self._beat_at
        silent = 0.0 if sent_at is None else time.monotonic() - sent_at
        if sent_at is None or silent < NAMED_SECONDS:
            return silent
        blocker = find_blocker(self._loop, self._loop_thread)
        if self._is_new(blocker):
            self._block = Block(time.monotonic(), blocker)
            log.warning("loop_blocked", **blocker.fields, seconds=round(silent, 3), at=blocker.at)
        if self._beat_at is None:  # the loop ran again meanwhile
            self._block = None
        return silent

    def _is_new(self, blocker: Blocker) -> bool:
        """Whether another one blocks the loop now. Who is met once may only be the next to run, in a loop that is about
        to be free."""
        now, block, met = time.monotonic(), self._block, self._other
        if block is None:
            return True
        if blocker.job is block.blocker.job:
            self._other = None
        elif met is None or blocker.job is not met.blocker.job:
            self._other = Block(now, blocker)
        elif now - met.since > NAMED_SECONDS:
            self._other = None
            return True
        return False

    async def _give_up(self, redis: Redis, lifecycle: Lifecycle, attempts: Iterable[Attempt], silent: float) -> None:
        """Let the leases lapse, and hand over every execution but the one that blocks, once another worker lives."""
        block = self._block
        if not self._given_up:
            self._given_up = True
            log.error("loop_given_up", **({} if block is None else block.blocker.fields), seconds=round(silent, 3))
        if block is None or block.blocker.job is None or block is self._handed_over:
            return
        if not [info for info in await announcements.live_workers(redis) if info.id != self._worker]:
            return
        for attempt in attempts:
            if attempt.job is not block.blocker.job:
                await lifecycle.hand_over(attempt.job)
        self._handed_over = block

    async def _end_blocker(self, lifecycle: Lifecycle, job: Job | None) -> None:
        """End an execution that blocks the loop and exceeds a limit, or does not follow a cancel."""
        attempt = None if job is None else self._attempts.get(job.record)
        if attempt is None or attempt.is_closed or not (ending := self._end_of(attempt, time.monotonic())):
            return
        with contextlib.suppress(AppendRefused):
            await lifecycle.end(attempt.job, *ending)
            about = {"execution": attempt.job.execution_id, "agent": attempt.job.agent}
            log.warning("execution_cut", **about, then=ending[-1].type)
            if isinstance(notice := ending[0], BudgetNotice):
                self._observer.budget_exceeded(attempt.job.agent, notice.limit)
        attempt.is_closed = True

    def _end_of(self, attempt: Attempt, now: float) -> Sequence[Event]:
        """The events that end it now, if any."""
        if (cancel := attempt.cancel_requested(now - self._settings.cancel_grace_seconds)) is not None:
            return [ExecutionCancelled(reason=cancel.reason, by=cancel.by)]
        if (limit := attempt.limit_over(now - OVER_SECONDS)) is not None:
            return [ExecutionError(error=TimedOut(limit).message, code="timeout")]
        if (reached := attempt.meter.over(now - OVER_SECONDS)) is not None:
            return overspent(reached)
        return []


def _settle(ended: asyncio.Future[None], defect: BaseException | None) -> None:
    if ended.done():
        return
    if defect is None:
        ended.set_result(None)
    else:
        ended.set_exception(defect)
