"""Workflows as executions, and what a workflow's own code says.

Everything here runs in the workflow's thread, in the sandbox, and again at every replay. So it computes the same each
time and does no I/O: it numbers what is told, and hands it out through one extern function, unless it is a replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

from msgspec.structs import replace
from temporalio import workflow
from temporalio.exceptions import ApplicationError, is_cancelled_exception
from temporalio.exceptions import CancelledError as TemporalCancelled
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

from emitter.catalogue import EventMethods
from emitter.errors import InvalidEvent
from emitter.events import (
    TERMINAL_STATES,
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    ExecutionSuperseded,
    Status,
    ToolComplete,
    ToolError,
    ToolStart,
)
from emitter.integrations.temporal.activities import error_text
from emitter.integrations.temporal.desk import Told
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
from emitter.wire import MAX_EVENT_BYTES, decode_event, encode_data, event_type, now_ms

EXTERN = "runcast_tell"
TASK_CHARS = 4_000


# --- what the workflow's code calls ----------------------------------------------------------------------------------


class WorkflowEmitter(EventMethods[None]):
    """The catalogue's methods for the code of a workflow: `workflow_emitter().progress(40)`. They return at once, and
    what becomes of the events cannot fail the workflow. Only its own end is not for its code to tell."""

    def __init__(self, execution: Execution | None, run_id: str = "", call_id: str | None = None) -> None:
        self.attempt = execution.attempt if execution is not None else 0
        self._execution = execution
        self._call_id = call_id
        self._producer = f"workflow-{digest(run_id)}"
        self._seq = 0

    def emit(self, event: Event) -> None:
        if not isinstance(event, Event) or event.type in TERMINAL_STATES:
            raise InvalidEvent("a workflow emits events of the catalogue, and ends by returning or raising")
        self.tell(event, self._call_id)

    def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:  # noqa: ARG002 - for every emitter
        self.emit(event)

    def tell(self, event: Event, parent_id: str | None) -> None:
        """Number the event, and hand it out unless this is a replay (or an eviction, which Temporal counts as one)."""
        self._seq += 1  # at replays too: the same event has the same number
        tell: Callable[[Told], None] | None = workflow.extern_functions().get(EXTERN)
        if self._execution is None or tell is None or workflow.unsafe.is_replaying():
            return
        tell(Told(self._execution, self._producer, self._seq, _copied(event), parent_id, now_ms()))

    @contextmanager
    def phase(self, phase_id: str, name: str | None = None, *, index: int | None = None) -> Iterator[None]:
        """phase:start, and phase:complete with the duration when the block ends well."""
        started = workflow.time()
        self.phase_start(phase_id, name or phase_id, phase_index=index)
        yield
        self.phase_complete(phase_id, name or phase_id, duration=round(workflow.time() - started, 3))


def _copied(event: Event) -> Event:
    """The event as it is now, whatever its workflow does to what it is made of; or word of one that no log takes."""
    try:
        return decode_event(event_type(event), encode_data(event))
    except InvalidEvent as error:
        return Status(status="dropped", message=str(error)[:200])


_current: ContextVar[WorkflowEmitter | None] = ContextVar("runcast_workflow", default=None)


def workflow_emitter() -> WorkflowEmitter:
    """The emitter of the workflow that runs, in its main function, signal and update handlers; one that does nothing
    where the workflow is not published. Raises `ReadOnlyContextError` in queries, validators and conditions: Temporal
    runs those as often as it likes."""
    if workflow.unsafe.is_read_only():
        raise workflow.ReadOnlyContextError("a query, validator or condition has nothing to emit")
    return _current.get() or WorkflowEmitter(None)


# --- interceptors ----------------------------------------------------------------------------------------------------


class WorkflowInbound(WorkflowInboundInterceptor):
    """Made once per run and worker, and again after an eviction. Subclassed per plugin, with its `rules`."""

    rules: Rules

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        self._tale = Tale(outbound.info(), self.rules)
        super().init(WorkflowOutbound(outbound, self._tale))

    async def execute_workflow(self, given: ExecuteWorkflowInput) -> Any:
        self._enter()
        try:
            result = await super().execute_workflow(given)
        except (Exception, asyncio.CancelledError) as error:
            self._tale.fail(error)
            raise
        self._tale.complete(result)
        return result

    async def handle_signal(self, given: HandleSignalInput) -> None:
        self._enter()
        await super().handle_signal(given)

    async def handle_update_handler(self, given: HandleUpdateInput) -> Any:
        self._enter()
        return await super().handle_update_handler(given)

    def _enter(self) -> None:
        """Each of these runs in a task of its own, which inherits no context from the others. A signal may be handled
        before the workflow's main function begins."""
        _current.set(self._tale.emitter)
        self._tale.begin()


class WorkflowOutbound(WorkflowOutboundInterceptor):
    """Hands the execution on."""

    def __init__(self, next_: WorkflowOutboundInterceptor, tale: Tale) -> None:
        super().__init__(next_)
        self._tale = tale

    def start_activity(self, given: StartActivityInput) -> workflow.ActivityHandle[Any]:
        given.headers = with_header(given.headers, self._tale.for_others)
        return super().start_activity(given)

    def start_local_activity(self, given: StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        given.headers = with_header(given.headers, self._tale.for_others)
        return super().start_local_activity(given)

    async def start_child_workflow(self, given: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:
        given.headers = with_header(given.headers, self._tale.for_others)
        return await super().start_child_workflow(given)

    def continue_as_new(self, given: ContinueAsNewInput) -> NoReturn:
        given.headers = with_header(given.headers, self._tale.for_next_run)
        super().continue_as_new(given)


# --- the tale of one run ---------------------------------------------------------------------------------------------


class Tale:
    """What is told of a workflow: of one that has an execution of its own, its start and its one end; of a child in its
    parent's execution, a call."""

    def __init__(self, info: workflow.Info, rules: Rules) -> None:
        carried = from_header(info.headers)
        first_run_id = info.run_id if info.cron_schedule else info.first_execution_run_id
        found = resolve(rules, info, carried, execution_id_of(info.workflow_id, first_run_id))
        self._info = info
        self._rules = rules
        self._is_continued = carried is not None and carried.started_at is not None
        self._started_ms = int(info.workflow_start_time.timestamp() * 1000)
        if carried is not None and carried.started_at is not None:
            self._started_ms = carried.started_at
        self._execution = found
        self._call_id = self._own_call(info, carried, found)
        self.emitter = WorkflowEmitter(self._placed(found), info.run_id, self._call_id)
        self._has_begun = False

    @staticmethod
    def _own_call(info: workflow.Info, carried: Execution | None, found: Execution | None) -> str | None:
        """The call that stands for this workflow: that of a child, unless the rules gave it an execution of its own."""
        if info.parent is None or carried is None or found is None:
            return None
        if (found.owner, found.execution_id) != (carried.owner, carried.execution_id):
            return None
        return f"{readable(info.workflow_id, 24)}-{digest(info.first_execution_run_id)[:8]}"

    def _placed(self, found: Execution | None) -> Execution | None:
        """The execution, at the attempt that this run is of it. A child's retries are no attempts of the execution."""
        if found is None or self._call_id is not None:
            return found
        return replace(found, attempt=found.attempt + self._info.attempt - 1)

    @property
    def for_others(self) -> Execution | None:
        """What activities and children are given."""
        execution = self._placed(self._execution)
        if execution is None:
            return None
        return replace(execution, task=None, started_at=None, parent_id=self._call_id)

    @property
    def for_next_run(self) -> Execution | None:
        execution = self._placed(self._execution)
        return None if execution is None else replace(execution, started_at=self._started_ms)

    def begin(self) -> None:
        """Idempotent. A run that another continued as has begun long ago."""
        if self._has_begun or self._execution is None:
            return
        self._has_begun = True
        is_retry = self._info.attempt > 1
        if self._is_continued and not is_retry:
            return
        if self._call_id is not None:
            if not is_retry:
                self._tell(ToolStart(call_id=self._call_id, tool_name=self._info.workflow_type, params=None))
            return
        attempt = self.emitter.attempt
        if is_retry and not self._is_continued:  # it begins from the beginning
            self._tell(ExecutionSuperseded(from_seq=0, attempt=attempt))
        task = (self._execution.task or self._info.workflow_type)[:TASK_CHARS]
        self._tell(ExecutionStarted(task=task, started_at=self._started_ms, attempt=attempt))

    def complete(self, result: Any) -> None:
        if self._execution is None:
            return
        value = json_of(workflow.payload_converter(), result, MAX_EVENT_BYTES) if self._rules.values else None
        seconds = self._seconds()
        if self._call_id is None:
            self._tell(ExecutionComplete(result=value, duration=seconds))
        else:
            name = self._info.workflow_type
            self._tell(ToolComplete(call_id=self._call_id, tool_name=name, result=value, duration=seconds))

    def fail(self, error: BaseException) -> None:
        """Temporal's own distinction: what only fails the workflow task is tried again, and no end."""
        if self._execution is None:
            return
        reason = workflow.cancellation_reason()
        if reason is not None and is_cancelled_exception(error):
            self._end("cancelled", ExecutionCancelled(reason=reason or None))
        elif not (isinstance(error, asyncio.CancelledError) or workflow.is_failure_exception(error)):
            return
        elif is_tried_again(self._info, error):
            if self._call_id is None:
                self._tell(Status(status="retrying", message=error_text(error)))
        else:
            self._end(error_text(error), ExecutionError(error=error_text(error), code="workflow_failed"))

    def _end(self, error: str, end: Event) -> None:
        if self._call_id is not None:
            name = self._info.workflow_type
            end = ToolError(call_id=self._call_id, tool_name=name, error=error, duration=self._seconds())
        self._tell(end)

    def _tell(self, event: Event) -> None:
        """Of the workflow itself, so beside what it says, not under its call."""
        assert self._execution is not None
        self.emitter.tell(event, self._execution.parent_id)

    def _seconds(self) -> float:
        return max(0.0, round(workflow.time() - self._started_ms / 1000, 3))


def is_tried_again(info: workflow.Info, error: BaseException) -> bool:
    """Whether Temporal will retry a workflow that fails so, as far as its retry policy says."""
    policy = info.retry_policy
    if policy is None or (policy.maximum_attempts and info.attempt >= policy.maximum_attempts):
        return False
    if isinstance(error, asyncio.CancelledError | TemporalCancelled):
        return False
    if isinstance(error, ApplicationError):
        return not error.non_retryable and error.type not in (policy.non_retryable_error_types or ())
    return type(error).__name__ not in (policy.non_retryable_error_types or ())
