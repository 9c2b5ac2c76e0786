"""How a workflow run has ended, by the server's history.

The end that a worker reaches is only a proposal: the server refuses a completion if a signal came meanwhile, and it
retries failures by rules that no worker knows. So an end is published when the run's history has it. If the server ends
a run itself (terminated, timed out), only the history shows it.
"""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Any, NamedTuple

import structlog
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHistoryEventFilterType
from temporalio.converter import DataConverter
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError
from temporalio.service import RPCError, RPCStatusCode

from emitter.errors import describe
from emitter.events import Event, ExecutionCancelled, ExecutionComplete, ExecutionError, Status
from emitter.integrations.temporal.execution import json_of

log = structlog.get_logger("emitter.temporal")

TRY_AGAIN_SECONDS, TRY_AGAIN_SECONDS_MAX = 0.5, 15.0
_NAMES = ("COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT", "CONTINUED_AS_NEW")
MISSING = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)


class WorkflowRun(NamedTuple):
    """One run of a workflow. Each run of a cron workflow is an execution of its own."""

    namespace: str
    workflow_id: str
    run_id: str
    is_cron: bool = False


class Closed(NamedTuple):
    """The last event of a run's history."""

    event: HistoryEvent
    attributes: Any

    @property
    def name(self) -> str:
        """Such as `COMPLETED`. A failed run that is retried, or a run before the next one of a cron workflow, may be
        `CONTINUED_AS_NEW`, too."""
        return EventType.Name(self.event.event_type).removeprefix("EVENT_TYPE_WORKFLOW_EXECUTION_")

    @property
    def next_run_id(self) -> str:
        """The id of the run that continues, retries, or is the next of a cron workflow; empty if there is none."""
        return getattr(self.attributes, "new_execution_run_id", "")

    @property
    def failure(self) -> Failure | None:
        is_failed = "failure" in self.attributes.DESCRIPTOR.fields_by_name and self.attributes.HasField("failure")
        return self.attributes.failure if is_failed else None

    @property
    def ms(self) -> int:
        return int(self.event.event_time.ToDatetime(UTC).timestamp() * 1000)

    def is_of(self, history_length: int) -> bool:
        """Whether the task that was executed at this length of the history has caused it."""
        return getattr(self.attributes, "workflow_task_completed_event_id", 0) == history_length + 1


async def closed(client: Client, run: WorkflowRun, *, wait: bool = False) -> Closed | None:
    """How a run has closed; None if it is open or not known (any more). With `wait`, waits until it closes. Raises
    `RPCError`."""
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    found = handle.fetch_history_events(
        wait_new_event=wait, event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT, skip_archival=True
    )
    try:
        async for event in found:
            end = Closed(event, getattr(event, event.WhichOneof("attributes") or ""))
            return end if end.name in _NAMES else None  # of an open run it is the last event so far
    except RPCError as error:
        if error.status not in MISSING:
            raise
    return None


async def when_closed(client: Client, run: WorkflowRun) -> Closed | None:
    """Wait until a run closes, also while the server is away; None if the run is not known."""
    seconds = TRY_AGAIN_SECONDS
    while True:
        try:
            return await closed(client, run, wait=True)
        except RPCError as error:
            log.warning("temporal_away", workflow=run.workflow_id, detail=str(error)[:200])
        await asyncio.sleep(seconds)
        seconds = min(2 * seconds, TRY_AGAIN_SECONDS_MAX)


async def end_of(end: Closed, converter: DataConverter, duration: float, *, values: bool, max_bytes: int) -> Event:
    """The terminal event for an end in the history."""
    match end.name:
        case "CANCELED":
            return ExecutionCancelled()
        case "TERMINATED":
            reason = end.attributes.reason
            return ExecutionError(error=f"terminated: {reason}" if reason else "terminated", code="workflow_terminated")
        case "TIMED_OUT":
            return ExecutionError(error="the workflow was out of time", code="workflow_timed_out")
    if end.failure is not None:
        return ExecutionError(error=await _why(end.failure, converter), code="workflow_failed")
    result = await _result(end, converter, max_bytes) if values else None
    return ExecutionComplete(result=result, duration=duration)


async def going_on(end: Closed, converter: DataConverter) -> Event | None:
    """The event for the end of a run that is not the last of its execution; None: no event."""
    if end.failure is None:
        return None
    return Status(status="retrying", message=await _why(end.failure, converter))


async def _why(failure: Failure, converter: DataConverter) -> str:
    return error_text(await converter.decode_failure(failure))


async def _result(end: Closed, converter: DataConverter, max_bytes: int) -> Any:
    name = "result" if end.name == "COMPLETED" else "last_completion_result"
    values = await converter.decode(getattr(end.attributes, name).payloads)
    return json_of(converter.payload_converter, values[0], max_bytes) if values else None


def error_text(error: BaseException) -> str:
    """The error in one line; the cause, if Temporal wraps it."""
    if isinstance(error, ActivityError | ChildWorkflowError) and error.cause is not None:
        return error_text(error.cause)
    if isinstance(error, ApplicationError) and error.type:
        return describe(error).removeprefix("ApplicationError: ")  # the type is in the message
    return describe(error)
