"""Keeps the leases of a worker from a thread of its own, with its own event loop and connection to Redis.

An async agent that blocks the worker's event loop (a synchronous HTTP client, `time.sleep`, a long computation) blocks
every task on it. Leases that were renewed there would lapse, and other workers would restart executions whose only
fault was their neighbour. This thread goes on: it renews, hears of cancels, and says in the log who blocks the loop.

It does so for `blocked_seconds`. A loop that stays blocked for longer is given up: the thread renews nothing more, and
hands the other executions to another worker, if there is one. Their loss counts against nobody; that of the execution
that blocks does. A time limit that passes, or a cancel that is not followed, ends a blocking execution from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from emitter.errors import AppendRefused
from emitter.events import Event, ExecutionCancelled, ExecutionError
from emitter.observer import Observer
from emitter.store import announcements, jobs
from emitter.store.connection import GONE
from emitter.store.jobs import Renewal
from emitter.store.lifecycle import Lifecycle
from emitter.worker.attempt import Attempt, TimedOut
from emitter.worker.blockers import Blocker, find_blocker

log = structlog.get_logger("emitter.worker")

NAMED_SECONDS = 1.0
"""A loop that runs nothing for this long is blocked: from then on the log names the agent."""
OVER_SECONDS = 1.0
"""How much later than the event loop the thread ends an execution that is over a limit."""
PAUSE_SECONDS = 0.5
CLOSE_SECONDS = 5.0


class LeaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`tick_seconds`: how often leases are renewed. `blocked_seconds`: how long the loop may be blocked before the
    worker is given up. `cut_seconds`: how long a cancelled agent may take to let go."""

    lease_ms: int
    tick_seconds: float
    blocked_seconds: float
    cut_seconds: float


class Block(NamedTuple):
    """The loop has run nothing since `since`, because of `blocker`, if that can be told."""

    since: float
    blocker: Blocker


class Leases:
    """`await leases.run()` starts the thread and returns when it has ended; it ends when the call is cancelled.

    Args:
        open_redis: makes the thread's own client.
        open_lifecycle: makes the steps over that client.
        runs: what runs now; read by the thread, changed by the loop.
        apply: called on the loop with what a renewal said of a run.
    """

    def __init__(
        self,
        worker: str,
        settings: LeaseSettings,
        *,
        open_redis: Callable[[], Redis],
        open_lifecycle: Callable[[Redis], Lifecycle],
        runs: dict[str, Attempt],
        apply: Callable[[Attempt, Renewal], None],
        observer: Observer,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._open_redis = open_redis
        self._open_lifecycle = open_lifecycle
        self._runs = runs
        self._apply = apply
        self._observer = observer
        self._news: deque[list[tuple[Attempt, Renewal]]] = deque(maxlen=2)
        self._beat_at: float | None = None
        self._block: Block | None = None
        self._given_up = False
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
            self.look()
            await asyncio.wait((ended,), timeout=CLOSE_SECONDS)

    def look(self) -> None:
        """Renew now: something has happened to an execution. From any thread."""
        if self._own is not None:
            loop, wake = self._own
            with contextlib.suppress(RuntimeError):  # the thread has ended
                loop.call_soon_threadsafe(wake.set)

    def _beat(self) -> None:
        """The loop runs. Hand out what was learnt."""
        sent_at, self._beat_at = self._beat_at, None
        self._observer.beat()
        block, self._block, self._given_up = self._block, None, False
        if sent_at is not None and (silent := time.monotonic() - sent_at) > NAMED_SECONDS:
            self._excuse(block, silent)
        while self._news:
            for run, renewal in self._news.popleft():
                self._apply(run, renewal)

    def _excuse(self, block: Block | None, seconds: float) -> None:
        """The others could not do anything meanwhile: this time does not count against their limits."""
        blocker = None if block is None else block.blocker.run
        for run in self._runs.values():
            if run is not blocker:
                run.excuse(seconds)
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
                wake.clear()
                await self._step_patiently(redis, lifecycle)
        finally:
            await redis.aclose()

    async def _step_patiently(self, redis: Redis, lifecycle: Lifecycle) -> None:
        try:
            await self._step(redis, lifecycle)
        except (RedisError, *GONE) as error:
            self._observer.lost_redis("renew")
            log.warning("redis_lost", loop="renew", error=f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(min(PAUSE_SECONDS, self._settings.tick_seconds))

    async def _step(self, redis: Redis, lifecycle: Lifecycle) -> None:
        silent = self._look_at_loop()
        runs = list(self._runs.copy().values())
        if silent > self._settings.blocked_seconds:
            await self._give_up(redis, lifecycle, runs, silent)
        elif runs:
            await self._renew(redis, runs)
        if self._block is not None:
            await self._end_blocker(lifecycle, self._block.blocker.run)
        if self._beat_at is None:
            self._beat_at = time.monotonic()
            with contextlib.suppress(RuntimeError):  # the worker's loop is closed
                self._loop.call_soon_threadsafe(self._beat)

    async def _renew(self, redis: Redis, runs: list[Attempt]) -> None:
        renewals = await jobs.renew(redis, [run.job for run in runs], self._worker, self._settings.lease_ms)
        news = list(zip(runs, renewals, strict=True))
        for run, renewal in news:
            if renewal.verdict == "lost" or renewal.cancel is not None:
                run.hear(renewal.cancel)
        self._news.append(news)
        await jobs.look_at(
            redis,
            {
                run.job.member: renewal.lease_ms
                for run, renewal in news
                if renewal.verdict == "ok" and run.job.record in self._runs
            },
        )

    def _look_at_loop(self) -> float:
        """For how many seconds the worker's loop has run nothing. Names the agent, once."""
        sent_at = self._beat_at
        silent = 0.0 if sent_at is None else time.monotonic() - sent_at
        if sent_at is None or silent < NAMED_SECONDS:
            return silent
        blocker = find_blocker(self._loop, self._loop_thread)
        if self._block is None or self._block.blocker.run is not blocker.run:
            self._block = Block(time.monotonic(), blocker)
            log.warning("loop_blocked", **blocker.fields, seconds=round(silent, 3), at=blocker.at)
        if self._beat_at is None:  # the loop went on while this looked
            self._block = None
        return silent

    async def _give_up(self, redis: Redis, lifecycle: Lifecycle, runs: Iterable[Attempt], silent: float) -> None:
        """Let the leases lapse, and hand over whatever does not block the loop, if another worker lives."""
        if self._given_up:
            return
        self._given_up = True
        blocker = None if self._block is None else self._block.blocker
        log.error("loop_given_up", **({} if blocker is None else blocker.fields), seconds=round(silent, 3))
        if blocker is None or blocker.run is None:
            return
        if not [info for info in await announcements.live_workers(redis) if info.id != self._worker]:
            return
        for run in runs:
            if run is not blocker.run:
                await lifecycle.hand_over(run.job)

    async def _end_blocker(self, lifecycle: Lifecycle, run: Attempt | None) -> None:
        """End an execution that blocks the loop and is over a limit, or does not follow a cancel."""
        if run is None or run.is_closed or (event := self._end_of(run, time.monotonic())) is None:
            return
        run.is_closed = True
        with contextlib.suppress(AppendRefused):
            await lifecycle.end(run.job, event)
            log.warning("execution_cut", execution=run.job.execution_id, agent=run.job.agent, then=event.type)

    def _end_of(self, run: Attempt, now: float) -> Event | None:
        if (cancel := run.cancel_heard(now - self._settings.cut_seconds)) is not None:
            return ExecutionCancelled(reason=cancel.reason, by=cancel.by)
        if (limit := run.limit_over(now - OVER_SECONDS)) is not None:
            return ExecutionError(error=TimedOut(limit).message, code="timeout")
        return None


def _settle(ended: asyncio.Future[None], defect: BaseException | None) -> None:
    if ended.done():
        return
    if defect is None:
        ended.set_result(None)
    else:
        ended.set_exception(defect)
