"""Claiming jobs for workers over HTTP, and waiting for them.

A claim tries once, then waits until its agents may have jobs, and tries again: at once when one was queued, and every
few seconds in case a job came back from a worker that died. Meanwhile the worker is announced. What was claimed stays
claimed when the worker has gone: it may ask again, or the lease ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.reasons import JobStep
from broker.jobs.budgets import Budgets, state_of
from broker.jobs.fences import Fenced, Fences
from broker.jobs.held import HeldJob, HeldJobs
from broker.jobs.signals import JobSignals, Waiter
from broker.jobs.types import MAX_HELD, ClaimedJob, JobAgent, JobLimits, JobOwner
from emitter.errors import AppendRefused
from emitter.events import ExecutionCancelled
from emitter.store import announcements, jobs
from emitter.store.announcements import WorkerInfo
from emitter.store.jobs import Apart, Entry, Job, UnreadableJob
from emitter.store.lifecycle import Lifecycle
from emitter.wire.ids import now_ms
from emitter.wire.keys import parse_member
from emitter.wire.record import Field, Selection

CONSUMER = "http"
"""Of all edges in the consumer group: an entry is acknowledged as soon as it is claimed, so no worker needs its own."""
AGAIN_SECONDS = 5.0
"""How often a claim that waits tries and announces its worker, also if nothing was queued."""
GONE_SECONDS = 1.0
"""How soon a claim ends whose worker has gone."""
_WAITS = Selection(Field.STATE, Field.OWNER, Field.ATTEMPT)


class Wanted(NamedTuple):
    """Who asks for jobs: the worker's name from `worker_id`, its agents, and how many jobs it has room for. `running`
    are those that it has, by `member`; `None` if it did not say."""

    worker: str
    agents: Mapping[str, JobAgent]
    most: int
    running: Collection[str] | None = None
    concurrency: int | None = None
    host: str = ""


class Claims:
    def __init__(
        self,
        redis: Redis,
        lifecycle: Lifecycle,
        signals: JobSignals,
        fences: Fences,
        held: HeldJobs,
        metrics: Metrics,
        lease_seconds: float,
    ) -> None:
        self._redis: Any = redis
        self._lifecycle = lifecycle
        self._signals = signals
        self._fences = fences
        self._held = held
        self._budgets = Budgets(redis, lifecycle, metrics)
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._lease_ms = int(lease_seconds * 1000)
        self._grouped: set[str] = set()
        self._recovered: dict[str, float] = {}
        self._log = get_logger()
        self.draining = False

    def drain(self) -> None:
        """Answer those who wait, so that they ask another edge."""
        self.draining = True
        self._signals.wake_all()

    async def claim(self, wanted: Wanted, wait_seconds: float, is_gone: Callable[[], bool]) -> list[ClaimedJob]:
        """Jobs for a worker, as soon as there are some; none after `wait_seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        found = await self._claim_again(wanted)
        with self._signals.waiting(wanted.agents) as waiter:
            while not found:
                waiter.woken.clear()
                await self._announce(wanted)
                found = await self._take(wanted)
                left = deadline - loop.time()
                if found or left <= 0 or not await self._wait(waiter, min(left, AGAIN_SECONDS), is_gone):
                    break
        return await self._described(wanted, found)

    async def _wait(self, waiter: Waiter, seconds: float, is_gone: Callable[[], bool]) -> bool:
        """Wait until there may be a job, or it is time to look; false if there is nobody to take it."""
        ends_at = asyncio.get_running_loop().time() + seconds
        while not (self.draining or is_gone()):
            left = ends_at - asyncio.get_running_loop().time()
            if waiter.woken.is_set() or left <= 0:
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, GONE_SECONDS)):
                    await waiter.woken.wait()
        if not waiter.woken.is_set() and not is_gone():
            await asyncio.sleep(min(seconds, GONE_SECONDS))  # it asked a draining edge, and will ask again at once
        return False

    async def _announce(self, wanted: Wanted) -> None:
        running = len(await self._held.all(wanted.worker) if wanted.running is None else wanted.running)
        info = WorkerInfo(
            id=wanted.worker,
            host=wanted.host,
            pid=0,
            concurrency=wanted.concurrency or running + wanted.most,
            running=running,
            agents=tuple(wanted.agents.values()),
            over_http=True,
        )
        await announcements.announce(self._redis, info)

    # --- jobs that the worker has without knowing ---

    async def _claim_again(self, wanted: Wanted) -> list[Job]:
        """The jobs that were claimed for the worker, but whose claim it got no answer to; of the agents that it asks
        for, as another token with its name may run others."""
        held = await self._held.all(wanted.worker)
        if len(held) > MAX_HELD:
            await self._forget_lost(wanted.worker, held)
        found: list[Job] = []
        for name, each in held.items() if wanted.running is not None else ():
            if each.agent in wanted.agents and name not in (wanted.running or ()) and len(found) < wanted.most:
                found += await self._claim_one_again(wanted, name, each)
        return found

    async def _forget_lost(self, worker: str, held: Mapping[str, HeldJob]) -> None:
        """A worker that neither renews nor says what it has is not told of what it has lost."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in held:
                owner, execution_id = parse_member(name)
                pipe.hmget(owner.execution(execution_id).record, *_WAITS.names)
            records = [_WAITS.read(row) for row in await pipe.execute()]
        gone = [
            name
            for (name, each), record in zip(held.items(), records, strict=True)
            if (record.owner, record.attempt) != (worker, each.attempt)
        ]
        await self._held.drop(worker, gone)

    async def _claim_one_again(self, wanted: Wanted, name: str, held: HeldJob) -> list[Job]:
        owner, execution_id = parse_member(name)
        record = _WAITS.read(await self._redis.hmget(owner.execution(execution_id).record, *_WAITS.names))
        if (record.owner, record.attempt) != (wanted.worker, held.attempt):
            await self._held.drop(wanted.worker, [name])
            return []
        if record.state != "queued":  # it has begun, so the worker knew of it
            return []
        entry = Entry(held.agent, b"", owner, execution_id)
        job = await jobs.claim(self._redis, entry, wanted.worker, self._lease_ms, held.max_attempts)
        if not isinstance(job, Job):
            return []
        await jobs.schedule_checks(self._redis, {name: job.lease_ms})
        self._metrics.jobs[JobStep.REPEATED].inc()
        return [job]

    # --- new jobs ---

    async def _take(self, wanted: Wanted) -> list[Job]:
        """What can be claimed now. Raises redis errors."""
        try:
            return await self._take_each(wanted)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._grouped.clear()  # Redis came back empty
            return []

    async def _prepare(self, agents: Collection[str]) -> None:
        for agent in agents:
            if agent not in self._grouped:
                await jobs.ensure_group(self._redis, agent)
                self._grouped.add(agent)

    async def _take_each(self, wanted: Wanted) -> list[Job]:
        waiting = await jobs.waiting(self._redis, list(wanted.agents))
        found: list[Job] = []
        agents = [agent for agent, count in waiting.items() if count]
        await self._prepare(agents)  # of no others: a stream without jobs would stay
        for agent in agents:
            if room := wanted.most - len(found):
                for entry in await self._read(agent, room):
                    found += await self._claim(wanted, entry, found)
        return found

    async def _read(self, agent: str, count: int) -> Sequence[Entry]:
        """New jobs, or once per lease time those that were read and never claimed, because the reader died."""
        now = asyncio.get_running_loop().time()
        if now - self._recovered.get(agent, -self._lease_seconds) >= self._lease_seconds:
            self._recovered[agent] = now
            idle_ms = self._lease_ms + 1000
            if entries := await jobs.recover(self._redis, agent, CONSUMER, idle_ms=idle_ms, count=count):
                return entries
        return await jobs.read(self._redis, [agent], CONSUMER, count=count, block_ms=None)

    async def _claim(self, wanted: Wanted, entry: Entry, found: Sequence[Job]) -> list[Job]:
        """The entry's job, if this worker may have it; else what the reaper or another worker does with it."""
        claim = await self._try(wanted, entry, found)
        if claim == "lapsed":
            await jobs.check_now(self._redis, entry.owner, entry.execution_id)
        if isinstance(claim, Apart):
            await jobs.ack(self._redis, entry, None, check_ms=claim.check_ms)
        elif isinstance(claim, Job):
            claim = await jobs.limit(self._redis, claim, wanted.agents[claim.agent].budget)
            await self._hold(wanted, claim)
            await jobs.ack(self._redis, entry, claim)
            return [] if await self._ends_at_once(wanted, claim) else [claim]
        elif claim != "owned":
            self._log.info("job_dropped", reason=claim, execution=entry.execution_id, agent=entry.agent)
            await jobs.ack(self._redis, entry, None)
        return []

    async def _try(self, wanted: Wanted, entry: Entry, found: Sequence[Job]) -> Job | jobs.Refused | Apart:
        most, taken = wanted.agents[entry.agent].max_attempts, await self._taken_places(wanted.worker, found)
        try:
            return await jobs.claim(self._redis, entry, wanted.worker, self._lease_ms, most, taken_places=taken)
        except UnreadableJob as error:
            self._log.error("job_unreadable", execution=entry.execution_id, error=error.detail[:200])
            with contextlib.suppress(AppendRefused):
                await self._lifecycle.fail(
                    entry.owner, entry.execution_id, error.attempt, error=error.detail[:200], code="invalid_job"
                )
            return "stale"
        except ResponseError as error:
            # A record that cannot be claimed must not block the others; a later recovery tries it again.
            self._log.error("claim_failed", execution=entry.execution_id, error=str(error)[:200])
            return "owned"

    async def _taken_places(self, worker: str, found: Sequence[Job]) -> int:
        """Of those for suspects in this worker."""
        held = {
            name: job.suspect_places
            for name, job in (await self._held.all(worker)).items()
            if job.apart_until > now_ms()
        }
        return sum({**held, **{job.member: job.suspect_places for job in found}}.values())

    async def _hold(self, wanted: Wanted, job: Job) -> None:
        agent, claimed_at = wanted.agents[job.agent], job.lease_ms - self._lease_ms
        held = HeldJob(
            agent=job.agent,
            attempt=job.attempt,
            claimed_at=claimed_at,
            max_attempts=agent.max_attempts,
            time_limit=agent.time_limit,
            idle_limit=agent.idle_limit,
            apart_until=claimed_at + int(job.apart_seconds * 1000) if job.apart_seconds else 0,
            suspect_places=job.suspect_places,
        )
        await self._held.put(wanted.worker, {job.member: held})
        self._metrics.jobs[JobStep.CLAIMED].inc()
        about = {"agent": job.agent, "attempt": job.attempt, "worker": wanted.worker}
        self._log.info("job_claimed", execution=job.execution_id, **about)

    async def _ends_at_once(self, wanted: Wanted, job: Job) -> bool:
        """End an execution that was cancelled while no worker had it, or of whose budget nothing is left."""
        if job.cancel is None:
            if not await self._budgets.end_if_used_up(job):
                return False
        else:
            with contextlib.suppress(AppendRefused):
                await self._lifecycle.end(job, ExecutionCancelled(reason=job.cancel.reason, by=job.cancel.by))
        await self._held.drop(wanted.worker, [job.member])
        return True

    # --- the answer ---

    async def _described(self, wanted: Wanted, found: Sequence[Job]) -> list[ClaimedJob]:
        if found:
            await self._fences.load()
        return [self._describe(wanted, job) for job in found]

    def _describe(self, wanted: Wanted, job: Job) -> ClaimedJob:
        agent = wanted.agents.get(job.agent) or JobAgent(name=job.agent)
        return ClaimedJob(
            execution_id=job.execution_id,
            owner=JobOwner(user=job.owner.user, org=job.owner.org),
            agent=job.agent,
            task=job.task,
            params=job.params,
            metadata=job.metadata,
            attempt=job.attempt,
            fence=self._fences.make(Fenced(job.owner, job.execution_id, job.attempt, wanted.worker)),
            lease_seconds=self._lease_seconds,
            limits=msgspec.convert(agent, JobLimits, from_attributes=True),
            budget=state_of(job),
            conversation_id=job.conversation_id,
            request_id=job.request_id,
            traceparent=None if job.trace is None else job.trace.parent,
            failed=job.failed,
            lost=job.lost,
        )
