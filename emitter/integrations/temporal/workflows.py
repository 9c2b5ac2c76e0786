"""Workflows as executions, and the emitter for a workflow's own code.

Everything here runs in the workflow's thread, in the sandbox, and again at every replay. So it is deterministic and
does no I/O: it numbers events, and publishes them through one extern function unless this is a replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

from msgspec.structs import replace
from temporalio import workflow
from temporalio.exceptions import is_cancelled_exception
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    HandleSignalInput,
    HandleUpdateInput,
    StartActivityInput,
    StartChildWorkflowInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from emitter.errors import InvalidEvent, PayloadTooLarge
from emitter.events import (
    TERMINAL_STATE_OF,
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    ExecutionSuperseded,
    ToolComplete,
    ToolError,
    ToolStart,
)
from emitter.integrations.temporal.closing import WorkflowRun, error_text
from emitter.integrations.temporal.execution import (
    Execution,
    Rules,
    digest,
    execution_id_of,
    from_header,
    json_of,
    readable,
    resolve,
    with_header,
)
from emitter.integrations.temporal.relay import RunEvent
from emitter.integrations.temporal.sequenced_outbox import dropped
from emitter.publishing.event_methods import EventMethods, named
from emitter.wire.envelope import decode_event, encode_data, event_type
from emitter.wire.ids import now_ms
from emitter.wire.limits import MAX_EVENT_BYTES
from emitter.wire.mending import may_mend, mended

EXTERN = "runcast_publish"
TASK_CHARS = 4_000
NO_RUN = WorkflowRun("", "", "")
COPIED_BYTES = 4 * MAX_EVENT_BYTES
"""Up to this size an event is copied as it is. In the sandbox a larger one could take longer than the 2 s that Temporal
allows a workflow task."""


# --- what the workflow's code calls ----------------------------------------------------------------------------------


class WorkflowEmitter(EventMethods[None]):
    """The catalogue's methods for the code of a workflow: `workflow_emitter().progress(40)`. They return at once, and
    no fault of publishing can fail the workflow. Terminal events are not allowed: the plugin publishes the end."""

    def __init__(self, execution: Execution | None, run: WorkflowRun = NO_RUN) -> None:
        self.attempt = execution.attempt if execution is not None else 0
        self._execution = execution
        self._run = run
        self._producer = f"workflow-{digest(run.run_id)}"
        self.number = 0

    def emit(self, event: Event) -> None:
        if not isinstance(event, Event) or event.type in TERMINAL_STATE_OF:
            raise InvalidEvent("a workflow emits events of the catalogue, and ends by returning or raising")
        self.publish(event)

    def _emit_each(self, *events: Event) -> None:
        for event in events:
            self.emit(event)

    def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:  # noqa: ARG002 - for every emitter
        self.emit(event)

    def publish(self, event: Event) -> None:
        """Number the event, and publish it unless this is a replay (Temporal counts an eviction as one)."""
        self.number += 1  # at replays too: the same event has the same number
        publish: Callable[[RunEvent], None] | None = workflow.extern_functions().get(EXTERN)
        if self._execution is not None and publish is not None and not workflow.unsafe.is_replaying():
            task = workflow.info().get_current_history_length()
            publish(RunEvent(self._execution, self._producer, self.number, _copied(event), now_ms(), self._run, task))

    @contextmanager
    def phase(self, phase_id: str, name: str | None = None, *, index: int | None = None) -> Iterator[None]:
        """phase:start, and phase:complete with the duration when the block ends well."""
        started = workflow.time()
        self.phase_start(phase_id, named(phase_id, name), phase_index=index)
        yield
        self.phase_complete(phase_id, named(phase_id, name), duration=round(workflow.time() - started, 3))


def _copied(event: Event) -> Event:
    """A copy that later changes of the workflow do not affect. An event that cannot be stored or is large is mended, if
    it only shows something; otherwise it is replaced by a notice."""
    try:
        return decode_event(event_type(event), encode_data(event, COPIED_BYTES))
    except (InvalidEvent, PayloadTooLarge) as error:
        if not may_mend(event):
            return dropped(event, error)
    return mended(event)


_current: ContextVar[WorkflowEmitter | None] = ContextVar("runcast_workflow", default=None)


def workflow_emitter() -> WorkflowEmitter:
    """The emitter of the current workflow, in its main function, signal and update handlers. It does nothing if the
    workflow is not published. Raises `ReadOnlyContextError` in queries, validators and conditions, which Temporal may
    run any number of times."""
    if workflow.unsafe.is_read_only():
        raise workflow.ReadOnlyContextError("a query, validator or condition has nothing to emit")
    return _current.get() or WorkflowEmitter(None)


# --- interceptors ----------------------------------------------------------------------------------------------------


class WorkflowInbound(WorkflowInboundInterceptor):
    """Created once per run and worker, and again after an eviction. Subclassed per plugin, with its `rules`."""

    rules: Rules

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        self._reporter = RunReporter(outbound.info(), self.rules)
        super().init(WorkflowOutbound(outbound, self._reporter))

    async def execute_workflow(self, given: ExecuteWorkflowInput) -> Any:
        self._enter()
        try:
            result = await super().execute_workflow(given)
        except (Exception, asyncio.CancelledError) as error:
            self._reporter.fail(error)
            raise
        self._reporter.complete(result)
        return result

    async def handle_signal(self, given: HandleSignalInput) -> None:
        self._enter()
        await super().handle_signal(given)

    async def handle_update_handler(self, given: HandleUpdateInput) -> Any:
        self._enter()
        return await super().handle_update_handler(given)

    def _enter(self) -> None:
        """Set the emitter of this task: each handler has a task and context of its own. A signal may be handled before
        the workflow's main function begins."""
        _current.set(self._reporter.emitter)
        self._reporter.begin()


class WorkflowOutbound(WorkflowOutboundInterceptor):
    """Passes the execution on to activities, children and the next run."""

    def __init__(self, next_: WorkflowOutboundInterceptor, reporter: RunReporter) -> None:
        super().__init__(next_)
        self._reporter = reporter

    def start_activity(self, given: StartActivityInput) -> workflow.ActivityHandle[Any]:
        given.headers = with_header(given.headers, self._reporter.for_others)
        return super().start_activity(given)

    def start_local_activity(self, given: StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        given.headers = with_header(given.headers, self._reporter.for_others)
        return super().start_local_activity(given)

    async def start_child_workflow(self, given: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:
        """A child is a call in its parent's execution. The parent publishes it, because it learns of every kind of end
        of a child, once."""
        child = Child(self._reporter, given)
        given.headers = with_header(given.headers, self._reporter.for_child(child.call_id))
        try:
            handle = await super().start_child_workflow(given)
        except (Exception, asyncio.CancelledError) as error:
            child.fail(error)
            raise
        handle.add_done_callback(child.done)
        return handle

    def continue_as_new(self, given: ContinueAsNewInput) -> NoReturn:
        given.headers = with_header(given.headers, self._reporter.for_next_run)
        super().continue_as_new(given)


# --- the events of one run --------------------------------------------------------------------------------------------


class RunReporter:
    """Publishes the start and the end of a run. For a child its parent does that, unless the child has an execution of
    its own."""

    def __init__(self, info: workflow.Info, rules: Rules) -> None:
        carried = from_header(info.headers)
        first_run_id = info.run_id if info.cron_schedule else info.first_execution_run_id
        found = resolve(rules, info, carried, execution_id_of(info.workflow_id, first_run_id))
        self._info = info
        self._is_continued = carried is not None and carried.started_at is not None
        self.values = rules.values
        self.started_ms = int(info.workflow_start_time.timestamp() * 1000)
        if carried is not None and carried.started_at is not None:
            self.started_ms = carried.started_at
        self.is_part = _is_part(info, carried, found)
        self.run = WorkflowRun(info.namespace, info.workflow_id, info.run_id, bool(info.cron_schedule))
        self.execution = self._placed(found)
        self.emitter = WorkflowEmitter(self.execution, self.run)
        self._has_begun = False

    def _placed(self, found: Execution | None) -> Execution | None:
        """The execution with the attempt of this run. Retries of a child are no attempts of the execution."""
        if found is None or self.is_part:
            return found
        return replace(found, attempt=found.attempt + self._info.attempt - 1, parent_id=None)

    @property
    def for_others(self) -> Execution | None:
        """The execution for the headers of activities."""
        return None if self.execution is None else replace(self.execution, task=None, started_at=None)

    def for_child(self, call_id: str) -> Execution | None:
        others = self.for_others
        return None if others is None else replace(others, parent_id=call_id)

    @property
    def for_next_run(self) -> Execution | None:
        return None if self.execution is None else replace(self.execution, started_at=self.started_ms)

    def begin(self) -> None:
        """Publish the start. Idempotent. Not for a run that continues another one."""
        if self._has_begun or self.execution is None or self.is_part:
            return
        self._has_begun = True
        info, attempt = self._info, self.emitter.attempt
        is_retry, is_reset = info.attempt > 1, info.original_execution_run_id != info.run_id
        if self._is_continued and not is_retry:
            return
        if (is_retry or is_reset) and not self._is_continued:  # it starts again from the beginning
            self.emitter.publish(ExecutionSuperseded(from_seq=0, attempt=attempt))
        task = (self.execution.task or info.workflow_type)[:TASK_CHARS]
        self.emitter.publish(ExecutionStarted(task=task, started_at=self.started_ms, attempt=attempt))

    def complete(self, result: Any) -> None:
        if not self.is_part:
            self.emitter.publish(ExecutionComplete(result=self.json(result), duration=seconds_since(self.started_ms)))

    def fail(self, error: BaseException) -> None:
        """Publish the end, if the error fails the workflow. One that fails only the workflow task is retried by
        Temporal."""
        if self.is_part:
            return
        reason = workflow.cancellation_reason()
        if reason is not None and is_cancelled_exception(error):
            self.emitter.publish(ExecutionCancelled(reason=reason or None))
        elif not isinstance(error, asyncio.CancelledError) and workflow.is_failure_exception(error):
            self.emitter.publish(ExecutionError(error=error_text(error), code="workflow_failed"))

    def json(self, value: Any) -> Any:
        return json_of(workflow.payload_converter(), value, MAX_EVENT_BYTES) if self.values else None


def _is_part(info: workflow.Info, carried: Execution | None, found: Execution | None) -> bool:
    """Whether this is a child in its parent's execution."""
    if info.parent is None or carried is None or found is None:
        return False
    return (found.owner, found.execution_id) == (carried.owner, carried.execution_id)


class Child:
    """A child workflow as a tool call of its parent."""

    def __init__(self, reporter: RunReporter, given: StartChildWorkflowInput) -> None:
        self._reporter = reporter
        self._name = given.workflow
        self._started_ms = int(workflow.time() * 1000)
        number = reporter.emitter.number + 1  # an id may be given to one child after the other
        self.call_id = f"{readable(given.id, 24)}-{digest(reporter.run.run_id, given.id, str(number))[:8]}"
        reporter.emitter.publish(ToolStart(call_id=self.call_id, tool_name=self._name, params=None))

    def done(self, handle: asyncio.Task[Any]) -> None:
        if handle.cancelled():
            self.fail(asyncio.CancelledError())
        elif (error := handle.exception()) is not None:
            self.fail(error)
        else:
            result, seconds = self._reporter.json(handle.result()), seconds_since(self._started_ms)
            self._publish(ToolComplete(call_id=self.call_id, tool_name=self._name, result=result, duration=seconds))

    def fail(self, error: BaseException) -> None:
        text = "cancelled" if is_cancelled_exception(error) else error_text(error)
        seconds = seconds_since(self._started_ms)
        self._publish(ToolError(call_id=self.call_id, tool_name=self._name, error=text, duration=seconds))

    def _publish(self, event: Event) -> None:
        self._reporter.emitter.publish(event)


def seconds_since(ms: int) -> float:
    """Seconds of the workflow's clock since `ms`."""
    return max(0.0, round(workflow.time() - ms / 1000, 3))
