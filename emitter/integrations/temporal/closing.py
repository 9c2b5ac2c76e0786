"""How a run of a workflow has ended, as the server has it.

What a worker makes of a workflow's last task is a proposal: the server refuses a completion if a signal came meanwhile,
and tries again what failed, or does not, by rules that no worker knows. So an end is told when the run's history has
one. And a run that the server ends by itself (terminated, out of time) has no other to tell of it.
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
    """One run of a workflow. Each of a cron workflow's is an execution, whatever follows it."""

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
        """As `COMPLETED`. A run that failed and is tried again, or is followed by the next of a cron workflow, may be
        `CONTINUED_AS_NEW`, as one that said so itself."""
        return EventType.Name(self.event.event_type).removeprefix("EVENT_TYPE_WORKFLOW_EXECUTION_")

    @property
    def next_run_id(self) -> str:
        """Of the run that goes on, tries again, or is the next of a cron workflow; empty if there is none."""
        return getattr(self.attributes, "new_execution_run_id", "")

    @property
    def failure(self) -> Failure | None:
        is_failed = "failure" in self.attributes.DESCRIPTOR.fields_by_name and self.attributes.HasField("failure")
        return self.attributes.failure if is_failed else None

    @property
    def ms(self) -> int:
        return int(self.event.event_time.ToDatetime(UTC).timestamp() * 1000)

    def is_of(self, history_length: int) -> bool:
        """Whether it came from the task that was executed when the history was so long."""
        return getattr(self.attributes, "workflow_task_completed_event_id", 0) == history_length + 1


async def closed(client: Client, run: WorkflowRun, *, wait: bool = False) -> Closed | None:
    """How a run has closed; None if it has not, or is not known (any more). With `wait`, when it closes. Raises
    `RPCError`."""
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    found = handle.fetch_history_events(
        wait_new_event=wait, event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT, skip_archival=True
    )
    try:
        async for event in found:
            end = Closed(event, getattr(event, event.WhichOneof("attributes") or ""))
            return end if end.name in _NAMES else None  # of a run that is open it is the last event there is
    except RPCError as error:
        if error.status not in MISSING:
            raise
    return None


async def when_closed(client: Client, run: WorkflowRun) -> Closed | None:
    """How a run closes, however long the server is away; None if it is not known."""
    seconds = TRY_AGAIN_SECONDS
    while True:
        try:
            return await closed(client, run, wait=True)
        except RPCError as error:
            log.warning("temporal_away", workflow=run.workflow_id, detail=str(error)[:200])
        await asyncio.sleep(seconds)
        seconds = min(2 * seconds, TRY_AGAIN_SECONDS_MAX)


async def end_of(end: Closed, converter: DataConverter, duration: float, *, values: bool, max_bytes: int) -> Event:
    """What is told of an end, by what the history says."""
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
    """What is told of a run that is not the last of its execution."""
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
    """What went wrong, in one line: the cause, where Temporal wraps it."""
    if isinstance(error, ActivityError | ChildWorkflowError) and error.cause is not None:
        return error_text(error.cause)
    if isinstance(error, ApplicationError) and error.type:
        return describe(error).removeprefix("ApplicationError: ")  # the type stands in the message
    return describe(error)
