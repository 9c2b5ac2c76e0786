"""Renewing and giving back the jobs of workers over HTTP, and enforcing what a worker does not do itself.

A renewal that waits returns as soon as there is something to say: a cancel, the answer to a question, a job that was
lost. It renews at its beginning and when it is woken, not while it waits: a worker that has died is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.reasons import JobStep
from broker.executions.budgets import BUDGET
from broker.jobs.budgets import Budgets, used_up
from broker.jobs.fences import BadFence, Fenced, Fences, worker_id
from broker.jobs.held import HeldJob, HeldJobs
from broker.jobs.types import (
    HeldRef,
    JobAnswer,
    JobCancel,
    JobFailure,
    JobRef,
    ReleasedJob,
    ReleaseRef,
    RenewedJob,
    RenewRequest,
)
from emitter.backoff import backoff_seconds
from emitter.errors import AppendRefused
from emitter.events import Event, ExecutionCancelled, ExecutionError
from emitter.store import announcements, jobs
from emitter.store.control import ControlChannel
from emitter.store.jobs import Job, Lease, Renewal
from emitter.store.lifecycle import Lifecycle
from emitter.tracing.trace import read_trace
from emitter.wire.keys import Owner
from emitter.wire.record import ExecutionRecord, Field, Selection
from emitter.wire.record import answer as answer_field

OVER_SECONDS = 1.0
"""How much later than the worker an edge ends an execution that is over a limit."""
GONE_SECONDS = 1.0
BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 1.0, 60.0
_RUNNING = Selection(Field.STATE, Field.MS)
_HANDED = Selection(
    *BUDGET.names, Field.ATTEMPT, Field.AGENT, Field.FROM, Field.LOST, Field.FAILED, Field.MAX_ATTEMPTS,
    Field.TRACEPARENT,
)  # fmt: skip


class Seen(NamedTuple):
    """What a look at a worker's jobs has found; and after how many seconds the next limit ends (`None`: none does)."""

    jobs: list[RenewedJob]
    due_in: float | None = None

    @property
    def has_news(self) -> bool:
        return any(job.state != "held" or job.answers for job in self.jobs)


class Leases:
    def __init__(
        self,
        redis: Redis,
        lifecycle: Lifecycle,
        control: ControlChannel,
        fences: Fences,
        held: HeldJobs,
        metrics: Metrics,
        lease_seconds: float,
    ) -> None:
        self._redis: Any = redis
        self._lifecycle = lifecycle
        self._control = control
        self._fences = fences
        self._held = held
        self._budgets = Budgets(redis, lifecycle, metrics)
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._lease_ms = int(lease_seconds * 1000)
        self._log = get_logger()
        self.draining = asyncio.Event()

    # --- renew -------------------------------------------------------------------------------------------------------

    async def renew(self, principal: Owner, request: RenewRequest, is_gone: Callable[[], bool]) -> list[RenewedJob]:
        """What became of each job. Waits for news as long as the request says, a third of the lease at most."""
        worker = worker_id(principal, request.worker)
        known = [await self._check(principal, worker, ref) for ref in request.jobs]
        wait_seconds = min(request.wait_seconds, self._lease_seconds / 3)
        ends_at = asyncio.get_running_loop().time() + wait_seconds
        woken = asyncio.Event()
        await self._end_orphans([fenced for _, fenced in known if fenced is not None])
        with contextlib.ExitStack() as stack:
            if wait_seconds:
                self._listen(stack, known, woken)
            while True:
                woken.clear()
                seen = await self._look(worker, known)
                left = ends_at - asyncio.get_running_loop().time()
                if left <= 0 or seen.has_news or not await self._wait(woken, left, seen.due_in, is_gone):
                    break
        await announcements.renew(self._redis, worker, sum(job.state != "lost" for job in seen.jobs))
        return seen.jobs

    async def _end_orphans(self, own: Sequence[Fenced]) -> None:
        """Cancel those whose parents have ended: what ended a parent may have been killed before it did."""
        both = [(fenced.owner, fenced.execution_id) for fenced in own]
        for owner, execution_id in await self._lifecycle.children.orphans(both) if both else ():
            await self._lifecycle.cancel_orphan(owner, execution_id)

    async def _check(self, principal: Owner, worker: str, ref: JobRef) -> tuple[Any, Fenced | None]:
        """The job and what its fence says; `None`: it is no fence of this worker."""
        try:
            fenced = await self._fences.check(
                ref.fence, principal=principal, execution_id=ref.execution_id, attempt=ref.attempt
            )
        except BadFence:
            return ref, None
        return ref, fenced if fenced.worker == worker else None

    def _listen(
        self, stack: contextlib.ExitStack, known: Sequence[tuple[HeldRef, Fenced | None]], woken: asyncio.Event
    ) -> None:
        for ref, fenced in known:
            if fenced is not None:
                control = fenced.owner.execution(fenced.execution_id).control
                for message in (b"cancel", *(f"answer {input_id}".encode() for input_id in ref.waiting_for)):
                    stack.enter_context(self._control.waiting_for(control, message, woken.set))

    async def _wait(self, woken: asyncio.Event, left: float, due_in: float | None, is_gone: Callable[[], bool]) -> bool:
        """Wait for news; false if nobody waits for them any more, or it took too long."""
        began = asyncio.get_running_loop().time()
        ends_at = began + left
        due_at = ends_at if due_in is None else min(ends_at, began + due_in)
        while not (is_gone() or self.draining.is_set()):
            now = asyncio.get_running_loop().time()
            if woken.is_set() or now >= due_at:
                return now < ends_at
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(GONE_SECONDS, due_at - now)):
                    await woken.wait()
        if not is_gone():
            await asyncio.sleep(min(left, GONE_SECONDS))  # a draining edge, which will be asked again at once
        return False

    async def _look(self, worker: str, known: Sequence[tuple[HeldRef, Fenced | None]]) -> Seen:
        """Renew, and see what there is to say."""
        own = [fenced for _, fenced in known if fenced is not None]
        leases = [Lease(fenced.record, fenced.attempt) for fenced in own]
        renewals = dict(zip(own, await jobs.renew(self._redis, leases, worker, self._lease_ms), strict=True))
        ends = {fenced.member: renewal.lease_ms for fenced, renewal in renewals.items() if renewal.verdict == "ok"}
        await jobs.schedule_checks(self._redis, ends)
        held = await self._held.all(worker) if own else {}
        found: list[RenewedJob] = []
        due: list[float] = []
        for ref, fenced in known:
            if fenced is None:
                found.append(_lost(ref, "fence"))
            else:
                found.append(await self._see(ref, fenced, renewals[fenced], held, due))
        gone = [
            fenced.member
            for (_, fenced), job in zip(known, found, strict=True)
            if fenced is not None and job.state == "lost" and fenced.member in held
        ]
        await self._held.drop(worker, gone)
        return Seen(found, min(due, default=None))

    async def _see(
        self, ref: HeldRef, fenced: Fenced, renewal: Renewal, held: Mapping[str, HeldJob], due: list[float]
    ) -> RenewedJob:
        """What became of one job; `due` gets the seconds until its limits end."""
        if renewal.verdict in ("ended", "lost"):
            self._metrics.jobs[JobStep.LOST].inc()
            return _lost(ref, "ended" if renewal.verdict == "ended" else "superseded")
        if renewal.verdict == "away":
            return RenewedJob(execution_id=ref.execution_id, attempt=ref.attempt, state="held")
        now, mine = renewal.lease_ms - self._lease_ms, held.get(fenced.member)
        if mine is not None and mine.attempt == fenced.attempt:
            if renewal.cancel is not None and not mine.cancelled_at:
                told = msgspec.structs.replace(mine, cancelled_at=now)
                await self._held.put(fenced.worker, {fenced.member: told})
            if await self._enforce(fenced, mine, renewal, now, due):
                return _lost(ref, "timeout" if renewal.cancel is None else "ended")
        if renewal.cancel is None and await self._budgets.keep(fenced, now, due.append):
            self._metrics.jobs[JobStep.CUT].inc()
            return _lost(ref, "budget")
        answers = await self._answers(ref, fenced)
        cancel = None if renewal.cancel is None else JobCancel(by=renewal.cancel.by, reason=renewal.cancel.reason)
        return RenewedJob(
            execution_id=ref.execution_id,
            attempt=ref.attempt,
            state="held" if cancel is None else "cancel",
            cancel=cancel,
            answers=answers,
        )

    async def _answers(self, ref: HeldRef, fenced: Fenced) -> list[JobAnswer]:
        if not ref.waiting_for:
            return []
        asked = Selection(*map(answer_field, ref.waiting_for))
        found = asked.read(await self._redis.hmget(fenced.record, *asked.names)).answers
        told = ({**msgspec.json.decode(text), "inputId": id_} for id_, text in found.items())
        return [msgspec.convert(each, JobAnswer) for each in told]

    # --- limits ------------------------------------------------------------------------------------------------------

    async def _enforce(self, fenced: Fenced, held: HeldJob, renewal: Renewal, now: int, due: list[float]) -> bool:
        """End an execution whose worker goes on over a limit, or does not follow a cancel; whether it was ended."""
        if renewal.cancel is not None:
            over_in = (held.cancelled_at or now) / 1000 + jobs.CANCEL_GRACE_SECONDS - now / 1000
            event: Event = ExecutionCancelled(reason=renewal.cancel.reason, by=renewal.cancel.by)
        else:
            limit = await self._limit(fenced, held, now)
            if limit is None:
                return False
            over_in, error = limit
            event = ExecutionError(error=error, code="timeout")
        if over_in > 0:
            due.append(over_in)
            return False
        with contextlib.suppress(AppendRefused):
            await self._lifecycle.end(self._job(fenced, held.agent), event)
            self._metrics.jobs[JobStep.CUT].inc()
            self._log.warning("execution_cut", execution=fenced.execution_id, agent=held.agent, then=event.type)
        return True

    async def _limit(self, fenced: Fenced, held: HeldJob, now: int) -> tuple[float, str] | None:
        """In how many seconds the edge ends it for a limit, and the error's words; `None`: it has none."""
        if held.time_limit is None and held.idle_limit is None:
            return None
        record = _RUNNING.read(await self._redis.hmget(fenced.record, *_RUNNING.names))
        ends = []
        if held.time_limit is not None:
            over_in = held.claimed_at / 1000 + held.time_limit - now / 1000
            ends.append((over_in + OVER_SECONDS, f"over its time limit of {held.time_limit:.12g} s"))
        if held.idle_limit is not None and record.state != "waiting_input":
            over_in = max(record.ms, held.claimed_at) / 1000 + held.idle_limit - now / 1000
            ends.append((over_in + OVER_SECONDS, f"over its idle limit of {held.idle_limit:.12g} s"))
        return min(ends, default=None)

    # --- release -----------------------------------------------------------------------------------------------------

    async def release(self, principal: Owner, worker: str, ref: ReleaseRef) -> ReleasedJob:
        """Give a job back. Raises redis errors; a repeat finds it `lost`."""
        _, fenced = await self._check(principal, worker_id(principal, worker), ref)
        if fenced is None:
            return _released(ref, "lost")
        record = _HANDED.read(await self._redis.hmget(fenced.record, *_HANDED.names))
        if (record.owner, record.attempt) != (fenced.worker, fenced.attempt):
            await self._held.drop(fenced.worker, [fenced.member])
            return _released(ref, "lost")
        released = await self._give_back(ref, fenced, record)
        await self._held.drop(fenced.worker, [fenced.member])
        self._metrics.jobs[released.state].inc()
        self._log.info("job_released", execution=ref.execution_id, attempt=ref.attempt, then=released.state)
        return released

    async def _give_back(self, ref: ReleaseRef, fenced: Fenced, record: ExecutionRecord) -> ReleasedJob:
        job = self._job(fenced, record.agent, record)
        failure = ref.failure
        if failure is None:
            return _released(ref, "released" if await self._lifecycle.hand_over(job) else "lost")
        if record.lost + record.failed + 1 >= record.max_attempts:
            try:
                await self._lifecycle.end(job, ExecutionError(error=failure.error, code=failure.code))
            except AppendRefused:
                return _released(ref, "lost")
            return _released(ref, "failed")
        if await self._budgets.end_over(job, used_up(record, await jobs.redis_ms(self._redis))):
            return _released(ref, "failed")
        seconds = _pause(failure, record.failed)
        if not await self._lifecycle.retry(job, seconds):
            return _released(ref, "lost")
        return _released(ref, "retrying", seconds)

    def _job(self, fenced: Fenced, agent: str, record: ExecutionRecord = ExecutionRecord()) -> Job:  # noqa: B008
        return Job(
            owner=fenced.owner,
            execution_id=fenced.execution_id,
            agent=agent,
            worker=fenced.worker,
            attempt=fenced.attempt,
            from_seq=record.from_seq,
            lease_ms=0,
            failed=record.failed,
            task="",
            params={},
            metadata={},
            request_id=None,
            conversation_id=None,
            cancel=None,
            trace=read_trace([record.traceparent]) if record.traceparent else None,
        )


def _lost(ref: JobRef, why: Any) -> RenewedJob:
    return RenewedJob(execution_id=ref.execution_id, attempt=ref.attempt, state="lost", why=why)


def _released(ref: JobRef, state: Any, seconds: float | None = None) -> ReleasedJob:
    return ReleasedJob(execution_id=ref.execution_id, attempt=ref.attempt, state=state, retry_after_seconds=seconds)


def _pause(failure: JobFailure, failed: int) -> float:
    if failure.retry_after_seconds is not None:
        return failure.retry_after_seconds
    return round(backoff_seconds(failed, first=BACKOFF_SECONDS, most=BACKOFF_SECONDS_MAX), 3)
