"""The worker runtime: claims jobs, runs agents, cancels them, keeps their leases, and stops in order.

Its loops share one process. `fetch` reads and claims jobs while there are free slots. `announce` renews the worker's
announcement. `reap` checks executions that are due. `schedule` starts executions at the ticks of schedules. While Redis
is away, every loop tries again with jittered pauses. A thread renews the leases (`emitter.worker.leases`), so that an
async agent that blocks the event loop does not cost the others their leases.

A cancel: an edge writes the request into the record and publishes `cancel` on the execution's control channel. The
message only wakes the thread (`Leases.renew_now`). The renewal brings the request from the record, and `Attempt.apply`
passes it to `Attempt.cancel`. If the message is lost, the next regular renewal does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from emitter.backoff import backoff_seconds
from emitter.observer import Observer, Outcome
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.children import Children
from emitter.publishing.publisher import Publisher
from emitter.store import announcements, jobs
from emitter.store.announcements import WorkerInfo
from emitter.store.connection import DEFAULT_URL, GONE, connect
from emitter.store.jobs import Entry, Job
from emitter.store.lifecycle import Lifecycle
from emitter.store.reaper import Reaper
from emitter.tasks import told_to_stop
from emitter.tracing.trace import Fact, Span, Tracer, log_fields
from emitter.wire.limits import WORKER_MAX_WAITING
from emitter.worker.agents import Agents
from emitter.worker.attempt import Attempt
from emitter.worker.blockers import RUNNING
from emitter.worker.claims import Claims
from emitter.worker.endings import HandedOver
from emitter.worker.leases import Leases, LeaseSettings
from emitter.worker.prefetch import JobPrefetch
from emitter.worker.scheduler import Scheduler
from emitter.worker.slots import Slot, Slots

log = structlog.get_logger("emitter.worker")

ANNOUNCE_SECONDS = 5.0
ORPHANS_SECONDS = 10.0
PAUSE_SECONDS_MAX = 2.0
STEADY_SECONDS = 10.0
"""After a step that lasted this long, its next failure counts as the first."""
STOP_NOW_SECONDS = 0.5
FAILURES: tuple[Outcome, ...] = ("failed", "timeout", "budget", "unwritten")
"""Outcomes that a trace shows as errors."""
CLOSE_SECONDS = 5.0


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker works.

    Args:
        concurrency: how many executions run at once, not counting those that wait for a person or a child.
        max_waiting: how many of those there may be; at this number no new job is taken.
        grace_seconds: how long running executions may go on after a stop was requested.
        cancel_grace_seconds: how long an interrupted agent may take to stop.
        renew_seconds: how often leases are renewed; a third of the lease if that is shorter.
        blocked_seconds: how long an agent may block the event loop before leases are no longer renewed.
        block_ms: how long a read waits for jobs; it delays a stop by as much.
    """

    redis_url: str = DEFAULT_URL
    concurrency: int = 10
    max_waiting: int = WORKER_MAX_WAITING
    lease_seconds: float = 15.0
    grace_seconds: float = 30.0
    cancel_grace_seconds: float = 5.0
    renew_seconds: float = 1.0
    blocked_seconds: float = 60.0
    block_ms: int = 1000

    @property
    def lease_ms(self) -> int:
        return int(self.lease_seconds * 1000)


class Worker:
    """`await Worker(agents, settings).run()` works until `stop` (finish what runs) or `stop_now` (hand it back)."""

    def __init__(
        self,
        agents: Agents,
        settings: WorkerSettings = WorkerSettings(),  # noqa: B008 - frozen
        observer: Observer = Observer(),  # noqa: B008 - it keeps nothing
        tracer: Tracer = Tracer(),  # noqa: B008 - nor does this one
    ) -> None:
        if not len(agents) and not agents.schedules:
            raise ValueError("no agent is registered")
        self.id = _new_worker_id()
        self.agents = agents
        self.settings = settings
        self.leftovers: set[asyncio.Task[object]] = set()
        self._redis: Redis = connect(settings.redis_url, max_connections=256 + 2 * settings.concurrency)
        self._observer = observer
        self._tracer = tracer
        self._publisher = Publisher(redis=self._redis, observer=observer, tracer=tracer)
        self._lifecycle = Lifecycle(self._redis, self._publisher.limits, self._publisher.redact)
        self._reaper = Reaper(self._redis, self._lifecycle, self.id, settings.lease_seconds, observer)
        self._scheduler = Scheduler(self._redis, self._lifecycle, agents.schedules)
        self._prefetch = JobPrefetch(
            self._redis, agents.names, self.id, lease_ms=settings.lease_ms, block_ms=settings.block_ms
        )
        self._orphans_seconds = min(ORPHANS_SECONDS, settings.lease_seconds)
        self._started_at = int(time.time() * 1000)
        self._lag_seconds = 0.0
        self._attempts: dict[str, Attempt] = {}
        self._leases = Leases(
            self.id,
            LeaseSettings(
                lease_ms=settings.lease_ms,
                tick_seconds=min(settings.renew_seconds, settings.lease_seconds / 3),
                blocked_seconds=settings.blocked_seconds,
                cancel_grace_seconds=settings.cancel_grace_seconds,
            ),
            open_redis=lambda: connect(settings.redis_url, max_connections=8),
            open_lifecycle=lambda redis: Lifecycle(redis, self._publisher.limits, self._publisher.redact),
            attempts=self._attempts,
            apply=Attempt.apply,
            observer=observer,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._claims = Claims(
            self._redis, self.id, settings.lease_ms, agents, self._attempts, self._lifecycle, observer
        )
        self._slot_freed = asyncio.Event()
        self._slots = Slots(settings.concurrency, settings.max_waiting, self._slot_freed.set)
        self._stopping = asyncio.Event()
        self._stop_now = asyncio.Event()

    # --- life ---

    def stop(self) -> None:
        """Claim nothing more. Let executions finish within the grace period, then hand over the rest. Idempotent."""
        self._stopping.set()
        self._slot_freed.set()
        self._observer.stopping()

    def stop_now(self) -> None:
        """Stop without the grace period. Idempotent."""
        self._stop_now.set()
        self.stop()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def running(self) -> int:
        """How many executions run now and do not wait."""
        return self._slots.running

    @property
    def waiting(self) -> int:
        """How many executions wait for a person or a child, or for a slot after that."""
        return self._slots.waiting

    async def run(self) -> None:
        """Work until stopped. Raises only for a defect of the worker itself."""
        log.info("worker_started", worker=self.id, agents=self.agents.names, concurrency=self.settings.concurrency)
        try:
            async with self._publisher:
                await self._live()
        finally:
            await self._redis.aclose()
            log.info("worker_stopped", worker=self.id, leftovers=len(self.leftovers))

    async def _live(self) -> None:
        fetching = asyncio.create_task(self._keep("fetch", self._fetch), name="fetch")
        steps = {
            "announce": self._announce,
            "reap": self._reaper.step,
            "orphans": self._end_orphans,
        }
        if self.agents.schedules:
            steps["schedule"] = self._scheduler.step
        loops = [asyncio.create_task(self._keep(name, step), name=name) for name, step in steps.items()]
        loops.append(asyncio.create_task(self._leases.run(), name="leases"))
        try:
            await asyncio.wait((fetching, *loops), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not self._stopping.is_set():
                self.stop_now()  # cancelled, or a loop failed: another worker takes over
            await self._drain(fetching)
            for loop in loops:
                loop.cancel()
            ended, _ = await asyncio.wait((fetching, *loops), timeout=CLOSE_SECONDS)
            with contextlib.suppress(RedisError, *GONE):
                await self._reaper.release_lock()
        for loop in ended:
            if not loop.cancelled() and (defect := loop.exception()) is not None:
                raise defect

    async def _keep(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat a step until the worker stops (`fetch`) or the loop is cancelled (the others serve the drain)."""
        failures = 0
        while not (told_to_stop() or (name == "fetch" and self._stopping.is_set())):
            started = time.monotonic()
            try:
                await step()
            except (RedisError, *GONE) as error:
                failures = 1 if time.monotonic() - started > STEADY_SECONDS else failures + 1
                self._observer.lost_redis(name)
                log.warning("redis_lost", loop=name, error=f"{type(error).__name__}: {error}"[:200], failures=failures)
                await asyncio.sleep(backoff_seconds(failures, first=0.05, most=PAUSE_SECONDS_MAX))
            else:
                if failures:
                    log.info("redis_back", loop=name, failures=failures)
                failures = 0

    # --- stopping ---

    async def _drain(self, fetching: asyncio.Task[None]) -> None:
        """The ordered stop. Every wait in it is bounded."""
        log.info("worker_stopping", worker=self.id, running=len(self._tasks))
        await asyncio.wait((fetching,), timeout=self.settings.block_ms / 1000 + CLOSE_SECONDS)
        fetching.cancel()
        with contextlib.suppress(RedisError, *GONE):
            await self._prefetch.requeue()
        await self._attempts_end(self.settings.grace_seconds)
        for attempt in tuple(self._attempts.values()):
            attempt.interrupt(HandedOver())
        await self._attempts_end(self.settings.cancel_grace_seconds)
        if self._stop_now.is_set() and self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_NOW_SECONDS)
        for attempt in tuple(self._attempts.values()):
            attempt.abandon()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_NOW_SECONDS if self._stop_now.is_set() else CLOSE_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()
        await self._retire()

    async def _attempts_end(self, seconds: float) -> None:
        """Wait until nothing runs, at most `seconds`; `stop_now` ends the wait."""
        if not self._tasks:
            return
        idle = asyncio.ensure_future(asyncio.wait(tuple(self._tasks)))
        stop_now = asyncio.ensure_future(self._stop_now.wait())
        await asyncio.wait((idle, stop_now), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        stop_now.cancel()
        await asyncio.gather(idle, stop_now, return_exceptions=True)

    async def _retire(self) -> None:
        with contextlib.suppress(RedisError, *GONE):
            async with asyncio.timeout(CLOSE_SECONDS):
                await announcements.retire(self._redis, self.id)
                for name in self.agents.names:
                    await jobs.forget_consumers(self._redis, name, self.id)

    # --- fetch ---

    async def _fetch(self) -> None:
        """Read and claim jobs for the free slots."""
        while not (self._slots.free or self._stopping.is_set()):
            self._slot_freed.clear()
            await self._slot_freed.wait()
        entries = self._prefetch.entries
        if not entries and not self._stopping.is_set():
            await self._prefetch.fetch(self._slots.free)
        while entries and not self._stopping.is_set():
            if (slot := self._slots.take_new()) is None:  # an agent whose wait ended meanwhile has it
                await self._prefetch.requeue()
                break
            await self._use(slot, entries[0])

    async def _use(self, slot: Slot, entry: Entry) -> None:
        """Claim an entry's execution for a slot and start it."""
        claim = None
        try:
            claim = await self._claims.take(entry)
            self._prefetch.entries.popleft()
            if isinstance(claim, Job):
                self._start(claim, slot)
        finally:
            if not isinstance(claim, Job):
                slot.end()
        await self._claims.ack(entry, claim)

    # --- one execution ---

    def _start(self, job: Job, slot: Slot) -> None:
        about: dict[str, Fact] = {"execution": job.execution_id, "agent": job.agent, "attempt": job.attempt}
        if job.trace is not None:
            self._tracer.record("queue", job.trace, job.waited_ms / 1000, **about)
        span = self._tracer.start("run", "consumer", job.trace, **about)

        def open_emitter() -> AgentEmitter:
            return AgentEmitter(
                job.owner.user,
                job.execution_id,
                org=job.owner.org,
                publisher=self._publisher,
                attempt=job.attempt,
                claimed=self.id,
                accepts_messages=self.agents[job.agent].accepts_messages,
                agent=job.agent,
                request_id=job.request_id,
                traceparent=None if span.trace is None else span.trace.parent,
            )

        def open_children(emitter: AgentEmitter) -> Children:
            return Children(
                emitter,
                self._publisher,
                self._lifecycle,
                worker=self.id,
                known=self.agents.names,
                request_id=job.request_id,
                trace=span.trace,
            )

        attempt = Attempt(
            job,
            self.agents[job.agent],
            open_emitter,
            self.settings.cancel_grace_seconds,
            slot,
            open_children,
            self._publisher.limits.budget,
        )
        self._attempts[job.record] = attempt
        task = asyncio.create_task(self._run_attempt(attempt, span, slot), name=f"run-{job.execution_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_attempt(self, attempt: Attempt, span: Span, slot: Slot) -> None:
        """Run one attempt to its end, then settle what follows from its outcome."""
        job, started = attempt.job, time.monotonic()
        about = {"agent": job.agent, "attempt": job.attempt, **log_fields(span.trace)}
        structlog.contextvars.bind_contextvars(execution=job.execution_id, **about)
        RUNNING.set(job)
        outcome: Outcome = "unwritten"
        try:
            with span, self._publisher.control.waiting_for(job.control, b"cancel", self._leases.renew_now):
                outcome = await attempt.execute()
                span.note(outcome=outcome)
                if outcome in FAILURES:
                    span.fail(outcome)
        except Exception:  # last resort: a defect in the runtime must cost one execution, not the worker
            log.exception("execution_crashed")
        finally:
            del self._attempts[job.record]
            slot.end()
            self._keep_leftover(attempt)
            self._log_failure(attempt, outcome)
            if outcome == "budget" and attempt.reached is not None:
                self._observer.budget_exceeded(job.agent, attempt.reached.limit)
            seconds = time.monotonic() - started
            self._observer.ended(job.agent, outcome, seconds)
            log.info("execution_ended", outcome=outcome, seconds=round(seconds, 3))
        await self._release(attempt, outcome)

    async def _release(self, attempt: Attempt, outcome: Outcome) -> None:
        """Give up the lease. A lost execution belongs to another worker. If the end is unwritten, the lease must lapse,
        so that the reaper notices."""
        job = attempt.job
        try:
            if outcome == "handed_over":
                await self._lifecycle.hand_over(job)
            elif outcome == "retried":
                await self._lifecycle.retry(job, attempt.retry_after)
            elif outcome not in ("lost", "unwritten"):
                if not attempt.emitter.settled:
                    await self._lifecycle.settle(job.owner, job.execution_id)
                await jobs.end(self._redis, job.member)
        except (RedisError, *GONE) as error:
            log.warning("lease_left", outcome=outcome, error=type(error).__name__)

    def _log_failure(self, attempt: Attempt, outcome: Outcome) -> None:
        """Log the agent's error, bounded and redacted as in the record."""
        if attempt.failure is not None:
            redact = self._publisher.redact.text
            stack = {"exception": redact(attempt.failure.stack)} if attempt.failure.stack else {}
            again = {"again_in_seconds": round(attempt.retry_after, 3)} if outcome == "retried" else {}
            log.error("agent_failed", error=redact(attempt.failure.error), **again, **stack)

    def _keep_leftover(self, attempt: Attempt) -> None:
        task: asyncio.Task[object] | None = attempt.leftover
        if task is not None:
            log.warning("agent_left_behind", agent_task=task.get_name())
            self.leftovers.add(task)
            task.add_done_callback(self.leftovers.discard)

    async def _end_orphans(self) -> None:
        """Cancel executions here whose parents have ended: what ended those was killed, or is of an older version."""
        await asyncio.sleep(self._orphans_seconds)
        here = [(attempt.job.owner, attempt.job.execution_id) for attempt in self._attempts.values()]
        for owner, execution_id in await self._lifecycle.children.orphans(here) if here else ():
            await self._lifecycle.cancel_orphan(owner, execution_id)

    # --- announce ---

    async def _announce(self) -> None:
        await announcements.announce(self._redis, self.info)
        self._observer.announced()
        for agent, waiting in (await jobs.waiting(self._redis, self.agents.names)).items():
            self._observer.waiting(agent, waiting)
        loop = asyncio.get_running_loop()
        due = loop.time() + ANNOUNCE_SECONDS
        await asyncio.sleep(ANNOUNCE_SECONDS)
        self._lag_seconds = max(0.0, loop.time() - due)

    @property
    def info(self) -> WorkerInfo:
        return WorkerInfo(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            concurrency=self.settings.concurrency,
            running=self.running,
            waiting=self.waiting,
            agents=tuple(agent.info for agent in self.agents),
            loop_lag_ms=round(self._lag_seconds * 1000, 2),
            rss_bytes=announcements.rss_bytes(),
            started_at=self._started_at,
        )


def _new_worker_id() -> str:
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
