"""Steps of an execution that its agent does not take itself: accept, cancel, hand over, lose. For edges and workers.

Each step is one append, which decides by the record whether the step is still allowed. So of two racing steps one wins,
and a step that is repeated after a lost reply changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog
from redis.asyncio import Redis

from emitter.budgets import EXCEEDED, Budget, Reached, exceeded, smallest
from emitter.errors import (
    AppendRefused,
    ExecutionEnded,
    ExecutionExists,
    ExecutionOwned,
    InvalidEvent,
    PayloadTooLarge,
    TooManyQueued,
    UnknownExecution,
)
from emitter.events import (
    EXPIRED,
    TERMINAL_STATE_OF,
    TERMINAL_STATES,
    BudgetNotice,
    Event,
    ExecutionCancelled,
    ExecutionError,
    ExecutionQueued,
    ExecutionSuperseded,
    InputReceived,
    State,
)
from emitter.store import jobs, webhooks
from emitter.store.append import Appended, LogLimits, append, claimed_by, prepare
from emitter.store.children import PARENT, Children, Parentage
from emitter.store.connection import channels_of
from emitter.store.jobs import Given, Job
from emitter.tracing.trace import Trace, log_fields, read_trace
from emitter.wire.ids import now_ms
from emitter.wire.keys import Owner, member
from emitter.wire.prepared import Prepared, Redaction
from emitter.wire.record import Cancel, ExecutionRecord, Field, Selection
from emitter.wire.webhooks import FOR_ALL, Name, Webhook, start_fields

log = structlog.get_logger("emitter.lifecycle")

CANCEL_SCRIPT = Path(__file__).with_name("cancel.lua").read_text()
_OFFERED = Selection(Field.STATE, Field.OWNER, Field.AGENT, Field.NOT_BEFORE)
_CANCEL = Selection(Field.CANCEL)
_CHILD = Selection(Field.STATE, Field.PARENT)
_FAMILY = Selection(Field.STATE, Field.PARENT, Field.CHILDREN)
CANCELS_AT_ONCE = 20
_LOST = Selection(
    Field.AGENT, Field.CANCEL, Field.TRACEPARENT, Field.ATTEMPT, Field.FROM, Field.LOST, Field.FAILED,
    Field.MAX_ATTEMPTS, Field.LEASE, Field.CLAIMED_AT, Field.OWNER, Field.BUDGET, Field.SPENT_TOKENS,
    Field.SPENT_NANOS, Field.SPENT_CALLS, Field.SPENT_MS,
)  # fmt: skip


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution is started with.

    Args:
        not_before: the earliest start, in ms since the epoch.
        cancel_after_seconds: how long it goes on after its last viewer has left (`None`: to its end).
        key: identifies the request, so that a repeat differs from another request for the same id.
        budget: what it may spend.
        trace: the span in which it was accepted.
        webhooks: by their ids.
        by: who requested it.
        above: the execution that started it.
    """

    task: str
    agent: str
    params: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    request_id: str = ""
    conversation_id: str | None = None
    not_before: int | None = None
    cancel_after_seconds: float | None = None
    key: str = ""
    budget: Budget = Budget()
    trace: Trace | None = None
    webhooks: dict[str, Webhook] = {}
    by: str = ""
    above: Parentage | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The record's fields."""
        fields = {
            Field.TASK: self.task,
            Field.AGENT: self.agent,
            Field.PARAMS: msgspec.json.encode(self.params or {}).decode(),
            Field.METADATA: msgspec.json.encode(self.metadata or {}).decode(),
            Field.CONVERSATION_ID: self.conversation_id or "",
            Field.REQUEST_ID: self.request_id,
            Field.CREATED_AT: str(now_ms()),
        }
        if self.key:
            fields[Field.KEY] = self.key
        if self.by:
            fields[Field.BY] = self.by
        if self.not_before is not None:
            fields[Field.NOT_BEFORE] = str(self.not_before)
        if self.cancel_after_seconds is not None:
            fields[Field.CANCEL_AFTER] = str(int(self.cancel_after_seconds * 1000))
        if self.budget:
            fields[Field.BUDGET] = msgspec.json.encode(self.budget).decode()
        if self.trace is not None:
            fields[Field.TRACEPARENT] = self.trace.parent
            if self.trace.state:
                fields[Field.TRACESTATE] = self.trace.state
        return fields if self.above is None else {**fields, **self.above.fields}


def check_size(start: Start, limits: LogLimits) -> None:
    """Raises `PayloadTooLarge` if parameters and metadata, or the conversation in `params.messages`, exceed their
    limits."""
    params = dict(start.params or {})
    messages = params.pop("messages", None)
    for what, given, limit in (
        ("params and metadata", [params, start.metadata], ("RUNCAST_MAX_PARAMS_BYTES", limits.max_params_bytes)),
        ("params.messages", messages, ("RUNCAST_MAX_CONVERSATION_BYTES", limits.max_conversation_bytes)),
    ):
        setting, most = limit
        if most and (size := len(msgspec.json.encode(given))) > most:
            raise PayloadTooLarge(size, most, what, setting)


class Lifecycle:
    """The steps, over one client. Redis errors pass through: every step may be repeated."""

    def __init__(self, redis: Redis, limits: LogLimits, redact: Redaction) -> None:
        self._redis: Any = redis
        self._limits = limits
        self._redact = redact
        self.children = Children(redis, limits, redact)

    async def accept(self, owner: Owner, execution_id: str, start: Start) -> bool:
        """Write `execution:queued` and add the job, or schedule its start; whether the execution is new. A repeat
        completes what the first call did not. Raises `InvalidEvent`, `PayloadTooLarge`, `TooManyQueued`, and
        `ExecutionExists` if events were published under this id before."""
        check_size(start, self._limits)
        start = msgspec.structs.replace(start, budget=smallest(start.budget, self._limits.budget))
        prepared = self._queued(execution_id, start)
        # First: whatever happens before the job is added, the reaper will check it.
        most = self._limits.max_queued_per_user
        if not await jobs.admit(self._redis, owner, execution_id, jobs.ACCEPT_CHECK_MS, most):
            raise TooManyQueued(execution_id, most)
        for_all = [FOR_ALL] if self._limits.webhook_url else []
        names = [Name(owner, execution_id, hook_id) for hook_id in (*start.webhooks, *for_all)]
        await webhooks.schedule(self._redis, names)  # first as well
        is_new = await self._begin(owner, execution_id, prepared, start)
        if is_new:
            await self._plan(owner, execution_id, start.agent, start.not_before or 0)
        else:
            await self.offer(owner, execution_id)
        return is_new

    def _queued(self, execution_id: str, start: Start) -> Prepared:
        event = ExecutionQueued(task=start.task, agent=start.agent, budget=start.budget or None)
        return self._prepare(event, execution_id, start.trace, request_id=start.request_id or None)

    async def offer(self, owner: Owner, execution_id: str) -> None:
        """Add a job for an execution that waits for a worker, unless it has one; any other stays as it is."""
        record = await self._read(_OFFERED, owner, execution_id)
        if record.state == "queued" and not record.owner and record.agent:
            await self._plan(owner, execution_id, record.agent, record.not_before_ms)

    async def _plan(self, owner: Owner, execution_id: str, agent: str, not_before: int) -> None:
        if not_before and not_before > await jobs.redis_ms(self._redis):
            await jobs.schedule_checks(self._redis, {member(owner, execution_id): not_before})
        else:
            await jobs.enqueue(self._redis, owner, execution_id, agent)

    async def _begin(self, owner: Owner, execution_id: str, queued: Prepared, start: Start) -> bool:
        appended = await append(
            self._redis, owner, execution_id, [queued], producer="accept", mode="new",
            fields=self._fields(start) | self._hooks(owner, execution_id, start),
            limits=self._limits, conversation_id=start.conversation_id or None,
        )  # fmt: skip
        return appended.added > 0

    def _hooks(self, owner: Owner, execution_id: str, start: Start) -> dict[str, str]:
        return start_fields(owner, execution_id, start.webhooks, has_one_for_all=bool(self._limits.webhook_url))

    def _fields(self, start: Start) -> dict[str, str]:
        """The record's fields. What people see is redacted. The agent may need the original: `given` keeps it until the
        execution ends, if it differs."""
        task, params = self._redact.text(start.task), self._redact.values(start.params or {})
        metadata = self._redact.values(start.metadata or {})
        fields = msgspec.structs.replace(start, task=task, params=params, metadata=metadata).fields
        if task != start.task or params != (start.params or {}):
            fields[Field.GIVEN] = msgspec.json.encode(Given(start.task, start.params or {})).decode()
        return fields

    async def cancel(
        self, owner: Owner, execution_id: str, *, reason: str | None, by: str | None, request_id: str | None = None
    ) -> State:
        """Cancel an execution that no worker has, or request the cancel from the worker that has it. Returns the state
        after that. The reason of the first request is kept. Raises `UnknownExecution`."""
        event = self._prepare(ExecutionCancelled(reason=reason, by=by), execution_id, request_id=request_id)
        while True:
            try:
                await self._append(owner, execution_id, event, mode="unowned")
                return "cancelled"
            except ExecutionOwned:
                state = await self._request_cancel(owner, execution_id, Cancel(reason=reason, by=by))
                if state is not None:
                    return state  # otherwise its worker has released it meanwhile
            except ExecutionEnded as ended:
                return ended.state  # type: ignore[return-value]

    async def _request_cancel(self, owner: Owner, execution_id: str, cancel: Cancel) -> State | None:
        """Write the request into the record and wake whatever runs it. The state; `None` if nothing runs it."""
        keys = owner.execution(execution_id)
        reason = None if cancel.reason is None else self._redact.text(cancel.reason)
        words = msgspec.json.encode(Cancel(reason=reason, by=cancel.by))
        suffix = channels_of(self._redis).suffix
        state, is_owned, held_at = await self._redis.eval(CANCEL_SCRIPT, 2, keys.record, keys.control, words, suffix)
        if not state:
            raise UnknownExecution(execution_id)
        if held_at:
            at = held_at + int(jobs.CANCEL_GRACE_SECONDS * 1000)
            await jobs.schedule_checks(self._redis, {member(owner, execution_id): at})
        known: State = state.decode()
        return known if is_owned or known in TERMINAL_STATES else None

    async def finish_cancel(self, owner: Owner, execution_id: str, cancel: Cancel) -> None:
        """End an execution without a worker as cancelled, even if its process has not stopped."""
        event = self._prepare(ExecutionCancelled(reason=cancel.reason, by=cancel.by), execution_id)
        with contextlib.suppress(AppendRefused):
            await self._append(owner, execution_id, event)

    async def hand_over(self, job: Job) -> bool:
        """Hand a running execution over: the next attempt waits for a worker, and this attempt is fenced. False if the
        execution no longer belongs to this attempt."""
        return await self._pass_on(job, {}, 0)

    async def retry(self, job: Job, after_seconds: float) -> bool:
        """Schedule the next attempt of an execution whose agent failed in `after_seconds`; otherwise as `hand_over`. If
        this process dies on the way, the lease ends and the reaper takes over."""
        at = await jobs.redis_ms(self._redis) + int(after_seconds * 1000)
        return await self._pass_on(job, {Field.NOT_BEFORE: str(at), Field.FAILED: str(job.failed + 1)}, at)

    async def _pass_on(self, job: Job, fields: dict[str, str], not_before: int) -> bool:
        event = ExecutionSuperseded(from_seq=job.from_seq, attempt=job.attempt + 1)
        prepared = self._prepare(event, job.execution_id, job.trace)
        options: dict[str, Any] = {"attempt": job.attempt, "mode": claimed_by(job.worker), "fields": fields}
        try:
            await self._append(job.owner, job.execution_id, prepared, **options)
        except AppendRefused:
            return False
        await self._plan(job.owner, job.execution_id, job.agent, not_before)
        await self.apply_pending_cancel(job.owner, job.execution_id)
        return True

    async def apply_pending_cancel(self, owner: Owner, execution_id: str) -> bool:
        """Cancel an execution that no worker has, if a cancel was requested from its last worker; whether it was."""
        cancel = (await self._read(_CANCEL, owner, execution_id)).cancel
        if cancel is None:
            return False
        with contextlib.suppress(AppendRefused):
            await self.cancel(owner, execution_id, reason=cancel.reason, by=cancel.by)
        return True

    async def fail(self, owner: Owner, execution_id: str, attempt: int, *, error: str, code: str) -> None:
        """End an execution that the caller has claimed. Raises `AppendRefused`."""
        event = self._prepare(ExecutionError(error=error, code=code), execution_id)
        await self._append(owner, execution_id, event, attempt=attempt)
        await jobs.end(self._redis, member(owner, execution_id))

    async def end(self, job: Job, *events: Event) -> None:
        """End a running execution for a worker whose event loop is blocked. Raises `AppendRefused`."""
        prepared = [self._prepare(event, job.execution_id, job.trace) for event in events]
        await self._append(job.owner, job.execution_id, *prepared, attempt=job.attempt, mode=claimed_by(job.worker))
        await jobs.end(self._redis, job.member)

    async def overspend(self, owner: Owner, execution_id: str, reached: Reached, attempt: int | None = None) -> bool:
        """End an execution because a limit of its budget is over: one that no worker runs, or this attempt of a worker.
        False if it was not ended, as it is another's."""
        prepared = [self._prepare(event, execution_id) for event in overspent(reached)]
        held: dict[str, Any] = {"mode": "unowned"} if attempt is None else {"mode": "claimed", "attempt": attempt}
        try:
            await self._append(owner, execution_id, *prepared, **held)
        except AppendRefused:
            return False
        if attempt is not None:
            await jobs.end(self._redis, member(owner, execution_id))
        return True

    async def warn(self, owner: Owner, execution_id: str, reached: Reached) -> None:
        """Write that most of a limit is spent, unless the log has it."""
        event = BudgetNotice(**reached._asdict())
        with contextlib.suppress(AppendRefused):
            await self._append(owner, execution_id, self._prepare(event, execution_id))

    async def give_up(self, owner: Owner, execution_id: str, agent: str) -> None:
        """End an execution whose agent no worker has any more."""
        error = ExecutionError(error=f"no worker has had the agent {agent} for a day", code="no_worker")
        with contextlib.suppress(AppendRefused):  # it was claimed or has ended meanwhile
            await self._append(owner, execution_id, self._prepare(error, execution_id), mode="unowned")
            await jobs.end(self._redis, member(owner, execution_id), agent)

    async def lose(self, owner: Owner, execution_id: str) -> Literal["superseded", "ended", "kept"]:
        """Take an execution from a worker whose lease has ended. The next attempt follows, or the end if no attempt is
        left or a cancel was requested. `kept`: the worker is alive, or another process was faster."""
        found = await self._read(_LOST, owner, execution_id)
        before, event, trace = *_after(found), read_trace([found.traceparent])
        lasted_ms = max(0, found.lease_ms - (found.claimed_ms or found.lease_ms))
        fields = {Field.LOST: str(found.lost + 1), Field.LOST_AFTER: str(lasted_ms)}
        try:
            prepared = [self._prepare(each, execution_id, trace) for each in (*before, event)]
        except (InvalidEvent, PayloadTooLarge):  # the cancel reason exceeds the size limit of this process
            event = ExecutionCancelled()
            prepared = [self._prepare(event, execution_id, trace)]
        try:
            await self._append(owner, execution_id, *prepared, attempt=found.attempt, mode="lapsed", fields=fields)
        except AppendRefused:
            return "kept"
        about = {"agent": found.agent, "attempt": found.attempt, **log_fields(trace)}
        log.warning("worker_lost", execution=execution_id, then=event.type, **about)
        if event.type in TERMINAL_STATE_OF:
            await jobs.end(self._redis, member(owner, execution_id))
            return "ended"
        await jobs.enqueue(self._redis, owner, execution_id, found.agent)
        return "superseded"

    async def lose_producer(self, owner: Owner, execution_id: str, attempt: int) -> bool:
        """End an execution without a worker whose lease has ended; false if its process is alive after all."""
        error = ExecutionError(error="the process that ran it ended, or fell silent", code="producer_lost")
        event = self._prepare(error, execution_id)
        try:
            await self._append(owner, execution_id, event, attempt=attempt, mode="lapsed")
        except AppendRefused:
            return False
        log.warning("producer_lost", execution=execution_id, attempt=attempt)
        await jobs.end(self._redis, member(owner, execution_id))
        return True

    async def start_child(
        self, owner: Owner, execution_id: str, start: Start, *, attempt: int = 0, worker: str = ""
    ) -> bool:
        """Accept an execution that another one starts (`start.above`); whether it is new. `attempt`: that of the
        parent, 0 for any; `worker`: who has claimed it. A repeat completes what the first call did not. Raises what
        `accept` raises, and `UnknownExecution`, `ExecutionEnded`, `Superseded`, `TooManyChildren` for the parent."""
        above = start.above
        assert above is not None
        check_size(start, self._limits)
        self._queued(execution_id, start)  # what cannot be stored is refused before the parent has the child
        known = await self._read(_CHILD, owner, execution_id)
        if known.exists and known.parent != above.parent:
            raise ExecutionExists(execution_id, known.state or "")
        if known.exists:
            await self.offer(owner, execution_id)
            return False
        most = self._limits.max_queued_per_user
        if not await jobs.admit(self._redis, owner, execution_id, jobs.ACCEPT_CHECK_MS, most):
            raise TooManyQueued(execution_id, most)
        await self.children.adopt(owner, above, execution_id, attempt)
        # Before the child exists, so that the parent's log has its start before its end.
        options: dict[str, Any] = {"attempt": attempt, "mode": claimed_by(worker)} if worker else {}
        task = self._redact.text(start.task)
        await self.children.report_start(owner, above, execution_id, start.agent, task, **options)
        return await self.accept(owner, execution_id, start)

    async def settle(self, owner: Owner, execution_id: str) -> None:
        """What follows from the end of an execution: its parent is told, and its attached children are cancelled."""
        found = await self._read(_FAMILY, owner, execution_id)
        if not found.has_ended:
            return
        if found.parent:
            await self.children.report_end(owner, execution_id)
        attached = await self.children.attached(owner, execution_id) if found.children else []
        for at in range(0, len(attached), CANCELS_AT_ONCE):
            await asyncio.gather(*(self.cancel_orphan(owner, child) for child in attached[at : at + CANCELS_AT_ONCE]))

    async def cancel_orphan(self, owner: Owner, execution_id: str) -> None:
        """Cancel an execution whose parent has ended."""
        with contextlib.suppress(AppendRefused):
            await self.cancel(owner, execution_id, reason="its parent has ended", by=PARENT)

    async def expire(self, owner: Owner, execution_id: str, input_id: str) -> None:
        """Close an expired input, unless it was answered or closed meanwhile."""
        event = self._prepare(InputReceived(input_id=input_id, by=EXPIRED), execution_id)
        with contextlib.suppress(AppendRefused):
            await self._append(owner, execution_id, event)

    async def _read(self, selection: Selection, owner: Owner, execution_id: str) -> ExecutionRecord:
        return selection.read(await self._redis.hmget(owner.execution(execution_id).record, *selection.names))

    def _prepare(
        self, event: Event, execution_id: str, trace: Trace | None = None, *, request_id: str | None = None
    ) -> Prepared:
        return prepare(
            event,
            execution_id,
            redact=self._redact,
            request_id=request_id,
            traceparent=None if trace is None else trace.parent,
            max_bytes=self._limits.max_event_bytes,
        )

    async def _append(self, owner: Owner, execution_id: str, *events: Prepared, **options: Any) -> Appended:
        """Append to an execution that exists. An end is preceded and followed by what its family is told."""
        options = {"mode": "existing", **options}
        is_end = any(event.type in TERMINAL_STATE_OF for event in events)
        if is_end and (await self._read(_FAMILY, owner, execution_id)).children:
            await self.children.report_ended(owner, execution_id)
        appended = await append(self._redis, owner, execution_id, events, limits=self._limits, **options)
        if is_end:
            await self.settle(owner, execution_id)
        return appended


def overspent(reached: Reached) -> tuple[BudgetNotice, ExecutionError]:
    """How an execution ends of whose budget nothing is left."""
    reached = reached._replace(action="stopping")
    return BudgetNotice(**reached._asdict()), ExecutionError(error=reached.message, code=EXCEEDED)


def _after(found: ExecutionRecord) -> tuple[Sequence[Event], Event]:
    """The event that follows the loss of a worker, and what stands before it."""
    if found.cancel is not None:
        return (), ExecutionCancelled(reason=found.cancel.reason, by=found.cancel.by)
    if found.lost + found.failed + 1 >= found.max_attempts:
        times = "its worker was lost" if found.lost == 0 else f"its workers were lost {found.lost + 1} times"
        return (), ExecutionError(error=times, code="worker_lost")
    if (reached := exceeded(found.budget, found.spent_until(found.lease_ms), at_start=True)) is not None:
        notice, error = overspent(reached)
        return (notice,), error
    return (), ExecutionSuperseded(from_seq=found.from_seq, attempt=found.attempt + 1)
