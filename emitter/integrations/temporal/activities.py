"""Activities as tool calls: `tool:start`, `tool:progress`, and one of `tool:complete` and `tool:error`, per attempt."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from msgspec.structs import replace
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.exceptions import CancelledError as TemporalCancelled
from temporalio.worker import ActivityInboundInterceptor, ActivityOutboundInterceptor, ExecuteActivityInput

from emitter.errors import ExecutionEnded, RuncastError
from emitter.events import Event, ToolComplete, ToolError, ToolStart
from emitter.integrations.temporal.activity_emitters import ActivityEmitter, Heartbeats, using
from emitter.integrations.temporal.closing import WorkflowRun, error_text
from emitter.integrations.temporal.execution import (
    Execution,
    Rules,
    current_traceparent,
    digest,
    execution_id_of,
    from_header,
    json_of,
    readable,
    resolve,
)
from emitter.integrations.temporal.relay import EventRelay
from emitter.integrations.temporal.sequenced_outbox import SequencedOutbox

log = structlog.get_logger("emitter.temporal")

LOST = "this attempt was lost: its worker died or was out of time"


def activity_key(info: activity.Info) -> str:
    """The same for all attempts of an activity, also of a local activity that runs again after its worker died. A later
    activity of the run may have the same id; the time of scheduling makes the difference."""
    scheduled = "" if info.is_local else info.scheduled_time.isoformat()
    return digest(info.workflow_run_id or info.activity_run_id or "", info.activity_id, scheduled)


def call_id_of(info: activity.Info, attempt: int) -> str:
    """Unique in the execution: activity ids repeat in other runs and in children."""
    return f"{readable(info.activity_id, 24)}-{attempt}-{activity_key(info)[:8]}"


class Call:
    """One attempt of an activity, as a tool call.

    The producer is the activity; attempt n has sequence 2n - 1 for its start and 2n for its end. So an attempt that
    runs twice is in the log once, the next attempt closes the previous one unless that has ended, and the late end of
    an abandoned attempt has no effect.
    """

    def __init__(
        self,
        relay: EventRelay,
        info: activity.Info,
        outbox: SequencedOutbox,
        emitter: ActivityEmitter,
        execution: Execution,
    ) -> None:
        self._relay = relay
        self._execution = execution
        self._info = info
        self._outbox = outbox
        self._emitter = emitter
        self._id = call_id_of(info, info.attempt)
        self._heartbeats = Heartbeats(self._id, emitter)
        self._started = time.monotonic()

    def heartbeat(self, details: Sequence[Any]) -> None:
        self._heartbeats.heartbeat(details)

    def using(self) -> contextlib.AbstractContextManager[None]:
        return using(self._emitter)

    async def start(self, params: Any) -> None:
        attempt, name = self._info.attempt, self._info.activity_type
        if attempt > 1:
            lost = ToolError(call_id=call_id_of(self._info, attempt - 1), tool_name=name, error=LOST, duration=0.0)
            self._put(2 * attempt - 2, lost)
        self._put(2 * attempt - 1, ToolStart(call_id=self._id, tool_name=name, params=params))
        await self._relay.wait_stored(self._outbox)  # events of the activity come after it

    async def complete(self, result: Any) -> None:
        name = self._info.activity_type
        await self._end(ToolComplete(call_id=self._id, tool_name=name, result=result, duration=self._seconds()))

    async def fail(self, error: BaseException) -> None:
        is_cancelled = isinstance(error, asyncio.CancelledError | TemporalCancelled)
        text = _cancelled() if is_cancelled else error_text(error)
        name = self._info.activity_type
        await self._end(ToolError(call_id=self._id, tool_name=name, error=text, duration=self._seconds()))

    async def _end(self, event: Event) -> None:
        """Returns when the log has the end, so that later events of the workflow come after it, or after `patience`."""
        with contextlib.suppress(asyncio.CancelledError):  # cancels only the wait: the activity has ended
            with contextlib.suppress(RuncastError):
                await self._emitter.end_text()
            await self._emitter.flush()
        self._put(2 * self._info.attempt, event)
        with contextlib.suppress(asyncio.CancelledError):
            await self._relay.wait_stored(self._outbox)

    def _put(self, seq: int, event: Event) -> None:
        self._outbox.put(seq, event, self._execution)

    def close(self) -> None:
        self._heartbeats.close()

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 6)


def _cancelled() -> str:
    details = activity.cancellation_details()
    names = ("timed_out", "worker_shutdown", "paused", "reset", "not_found")
    reasons = [name.replace("_", " ") for name in names if details is not None and getattr(details, name)]
    return ": ".join(["cancelled", *([", ".join(reasons)] if reasons else [])])


class ActivityInbound(ActivityInboundInterceptor):
    def __init__(self, next_: ActivityInboundInterceptor, relay: EventRelay, rules: Rules) -> None:
        super().__init__(next_)
        self._relay = relay
        self._rules = rules
        self._call: Call | None = None

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        super().init(ActivityOutbound(outbound, self))

    def heartbeat(self, details: Sequence[Any]) -> None:
        if self._call is not None:
            self._call.heartbeat(details)

    async def execute_activity(self, given: ExecuteActivityInput) -> Any:
        call = self._call = self._begin(given.headers)
        if call is None:
            with using(None):
                return await self.next.execute_activity(given)
        try:
            result = await self._run(call, given)
        except (Exception, asyncio.CancelledError) as error:
            await call.fail(error)
            if isinstance(error, ExecutionEnded):  # the execution has ended: another attempt would fail as well
                raise ApplicationError(str(error), type="ExecutionEnded", non_retryable=True) from error
            raise
        await call.complete(self._json(result))
        return result

    async def _run(self, call: Call, given: ExecuteActivityInput) -> Any:
        params = {name: self._json(value) for name, value in _named(given).items()}
        try:
            await call.start(params if self._rules.values else None)
            with call.using():
                return await self.next.execute_activity(given)
        finally:
            call.close()  # a call that is completed from elsewhere stays open

    def _begin(self, headers: Mapping[str, Any]) -> Call | None:
        info = activity.info()
        default_id = execution_id_of(
            info.workflow_id or info.activity_id, info.workflow_run_id or info.activity_run_id or ""
        )
        execution = resolve(self._rules, info, from_header(headers), default_id)
        publisher = self._relay.publisher
        if execution is None or publisher is None:
            return None
        # Set by an interceptor that traces activities and comes before this one.
        execution = replace(execution, traceparent=current_traceparent() or execution.traceparent)
        key, call_id, run = activity_key(info), call_id_of(info, info.attempt), _run_of(info)
        if (outbox := self._relay.outbox(execution, f"activity-{key}", run)) is None:
            return None
        refused = lambda error: self._relay.refused(run, error)  # noqa: E731
        emitter = ActivityEmitter(publisher, execution, call_id, key, self._relay.wait_stored, refused)
        self._relay.admit(emitter.outbox)
        return Call(self._relay, info, outbox, emitter, execution)

    def _json(self, value: Any) -> Any:
        publisher = self._relay.publisher
        if not self._rules.values or publisher is None:
            return None
        return json_of(activity.payload_converter(), value, publisher.limits.max_event_bytes or 2**31)


def _run_of(info: activity.Info) -> WorkflowRun | None:
    """The workflow run to which an activity belongs."""
    if not info.workflow_id or not info.workflow_run_id:
        return None
    return WorkflowRun(info.namespace, info.workflow_id, info.workflow_run_id)


def _named(given: ExecuteActivityInput) -> Mapping[str, Any]:
    """The arguments by the names of the function's parameters, otherwise by number."""
    try:
        parameters = inspect.signature(given.fn).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    names += [str(number) for number in range(len(names), len(given.args))]
    return dict(zip(names, given.args, strict=False))


class ActivityOutbound(ActivityOutboundInterceptor):
    def __init__(self, next_: ActivityOutboundInterceptor, inbound: ActivityInbound) -> None:
        super().__init__(next_)
        self._inbound = inbound

    def heartbeat(self, *details: Any) -> None:
        super().heartbeat(*details)
        self._inbound.heartbeat(details)
