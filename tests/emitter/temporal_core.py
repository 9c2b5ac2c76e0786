"""A Temporal server's part, by hand: what stands below a real `Client` and a real `Worker` of the SDK.

`Core` takes the place of the SDK's bridge to its core. It gives the worker the tasks that a test asks for, and waits
for their completions, so that a test decides what is redelivered, replayed, evicted or cancelled.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import temporalio.bridge.worker
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Header, Payload, Payloads, RetryPolicy, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import EventType, HistoryEventFilterType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import History, HistoryEvent, WorkflowExecutionStartedEventAttributes
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.bridge.proto import ActivityHeartbeat, ActivityTaskCompletion
from temporalio.bridge.proto.activity_result import ActivityExecutionResult, ActivityResolution
from temporalio.bridge.proto.activity_task import ActivityCancellationDetails, ActivityTask, Cancel, Start
from temporalio.bridge.proto.common import NamespacedWorkflowExecution
from temporalio.bridge.proto.workflow_activation import (
    CancelWorkflow,
    DoUpdate,
    InitializeWorkflow,
    QueryWorkflow,
    RemoveFromCache,
    ResolveActivity,
    ResolveChildWorkflowExecution,
    ResolveChildWorkflowExecutionStart,
    SignalWorkflow,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.bridge.worker import PollShutdownError
from temporalio.converter import DataConverter
from temporalio.service import ConnectConfig, _BridgeServiceClient

SECONDS = 15.0
EPOCH = 1_700_000_000
"""Where the time of the workflows begins; every activation is a second later."""


def payloads(*values: Any) -> list[Payload]:
    return list(DataConverter.default.payload_converter.to_payloads(values))


def value(payload: Payload) -> Any:
    return DataConverter.default.payload_converter.from_payload(payload)


def moment(seconds: float) -> Timestamp:
    return Timestamp(seconds=EPOCH + int(seconds))


class Service(_BridgeServiceClient):
    """The server's API as far as clients use it: `started` and `cancelled` are requests, `listed` the runs that have
    closed. What it knows of them it has from the core of the client's worker."""

    def __init__(self) -> None:
        super().__init__(ConnectConfig(target_host="nowhere:7233"))
        self._bridge_client = object()  # type: ignore[assignment] # connected, as the worker sees it
        self.started: list[Any] = []
        self.cancelled: list[Any] = []
        self.listed: list[str] = []
        self.described = asyncio.Event()
        self.core = Core()

    async def _rpc_call(self, rpc: str, req: Any, resp_type: Any, **_: Any) -> Any:
        match rpc:
            case "get_workflow_execution_history":
                return resp_type(history=History(events=await self._history(req)))
            case "list_workflow_executions":
                rows = [WorkflowExecution(workflow_id="wf", run_id=run_id) for run_id in self.listed]
                return resp_type(executions=[WorkflowExecutionInfo(execution=row) for row in rows])
            case "describe_workflow_execution":
                self.described.set()
                latest = WorkflowExecution(workflow_id="wf", run_id=self.core.latest)
                return resp_type(workflow_execution_info=WorkflowExecutionInfo(execution=latest))
            case "request_cancel_workflow_execution":
                self.cancelled.append(req)
                return resp_type()
        self.started.append(req)
        return resp_type(run_id="run-1")

    async def _history(self, req: Any) -> list[HistoryEvent]:
        run_id = req.execution.run_id
        if req.history_event_filter_type != HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT:
            return [self.core.begun[run_id]]
        end = self.core.ends[run_id]
        return [await asyncio.shield(end)] if req.wait_new_event or end.done() else [self.core.begun[run_id]]


class Core:
    """What a worker polls. Every method that hands the worker something returns what the worker made of it."""

    def __init__(self) -> None:
        self._activations: asyncio.Queue[WorkflowActivation | None] = asyncio.Queue()
        self._tasks: asyncio.Queue[ActivityTask | None] = asyncio.Queue()
        self._done: dict[str, asyncio.Future[WorkflowActivationCompletion]] = {}
        self._results: dict[bytes, asyncio.Future[ActivityExecutionResult]] = {}
        self._tokens = itertools.count(1)
        self._clock = itertools.count(1)
        self.heartbeats: list[list[Any]] = []
        self.begun: dict[str, HistoryEvent] = {}
        self.ends: defaultdict[str, asyncio.Future[HistoryEvent]] = defaultdict(asyncio.Future)
        self.latest = ""
        self.tries_again = False
        """Whether a workflow that fails has another run."""
        self.takes_ends = True
        """Whether the server takes what completes a workflow, or a signal has come meanwhile."""

    # --- for tests ---

    async def activate(self, run_id: str, *jobs: WorkflowActivationJob, replay: bool = False) -> list[WorkflowCommand]:
        """One workflow task; its commands. `AssertionError` with the failure if it failed."""
        completion = await self.attempt(run_id, *jobs, replay=replay)
        assert not completion.HasField("failed"), completion.failed.failure.message
        return list(completion.successful.commands)

    async def attempt(
        self, run_id: str, *jobs: WorkflowActivationJob, replay: bool = False
    ) -> WorkflowActivationCompletion:
        done = self._done[run_id] = asyncio.get_running_loop().create_future()
        seconds = next(self._clock)
        act = WorkflowActivation(
            run_id=run_id, is_replaying=replay, jobs=jobs, timestamp=moment(seconds), history_length=10 * seconds
        )
        self._begin(run_id, jobs)
        self._activations.put_nowait(act)
        completion = await asyncio.wait_for(done, SECONDS)
        for command in completion.successful.commands:
            if self.takes_ends and (end := self._end(command, 10 * seconds + 1)) is not None:
                self.close(run_id, end)
        return completion

    def _begin(self, run_id: str, jobs: Sequence[WorkflowActivationJob]) -> None:
        """Keep what the server's history begins with."""
        self.latest = run_id
        for job in jobs:
            if job.HasField("initialize_workflow") and run_id not in self.begun:
                self.begun[run_id] = begin_of(run_id, job.initialize_workflow)

    def _end(self, command: WorkflowCommand, task: int) -> HistoryEvent | None:
        ids = {"workflow_task_completed_event_id": task}
        match command.WhichOneof("variant"):
            case "complete_workflow_execution":
                result = Payloads(payloads=[command.complete_workflow_execution.result])
                return ended("completed", result=result, **ids)
            case "fail_workflow_execution" if self.tries_again:
                failure = command.fail_workflow_execution.failure
                return ended("continued_as_new", failure=failure, new_execution_run_id="another", **ids)
            case "fail_workflow_execution":
                return ended("failed", failure=command.fail_workflow_execution.failure, **ids)
            case "cancel_workflow_execution":
                return ended("canceled", **ids)
        return None

    def close(self, run_id: str, end: HistoryEvent) -> None:
        """What the server's history ends with."""
        if not self.ends[run_id].done():
            self.ends[run_id].set_result(end)

    async def run(self, start: Start) -> ActivityExecutionResult:
        """Run one attempt of an activity."""
        token = self.begin(start)
        return await self.result(token)

    def begin(self, start: Start) -> bytes:
        token = b"%d" % next(self._tokens)
        self._results[token] = asyncio.get_running_loop().create_future()
        self._tasks.put_nowait(ActivityTask(task_token=token, start=start))
        return token

    async def result(self, token: bytes) -> ActivityExecutionResult:
        return await asyncio.wait_for(self._results[token], SECONDS)

    def cancel(self, token: bytes, **why: bool) -> None:
        details = ActivityCancellationDetails(**(why or {"is_cancelled": True}))
        self._tasks.put_nowait(ActivityTask(task_token=token, cancel=Cancel(details=details)))

    async def play(self, run_id: str, *jobs: WorkflowActivationJob) -> WorkflowCommand:
        """Let a workflow run with its activities, one after the other, until a command that is none; that one."""
        commands = await self.activate(run_id, *jobs)
        while commands:
            command = commands.pop(0)
            if not command.HasField("schedule_activity"):
                return command
            result = await self.run(task_of(command, run_id))
            commands += await self.activate(run_id, resolved(command.schedule_activity.seq, result))
        raise AssertionError("the workflow waits for something else")

    # --- for the worker: the methods of `temporalio.bridge.worker.Worker` ---

    async def validate(self) -> None:
        pass

    async def poll_workflow_activation(self) -> WorkflowActivation:
        activation = await self._activations.get()
        if activation is None:
            raise PollShutdownError
        return activation

    async def poll_activity_task(self) -> ActivityTask:
        task = await self._tasks.get()
        if task is None:
            raise PollShutdownError
        return task

    async def complete_workflow_activation(self, completion: WorkflowActivationCompletion) -> None:
        self._done.pop(completion.run_id).set_result(completion)

    async def complete_activity_task(self, completion: ActivityTaskCompletion) -> None:
        self._results[completion.task_token].set_result(completion.result)

    def record_activity_heartbeat(self, heartbeat: ActivityHeartbeat) -> None:
        self.heartbeats.append([value(detail) for detail in heartbeat.details])

    def initiate_shutdown(self) -> None:
        self._activations.put_nowait(None)
        self._tasks.put_nowait(None)

    async def finalize_shutdown(self) -> None:
        pass

    def install(self, monkeypatch: Any) -> None:
        """Every worker that is made from now on gets this core."""
        monkeypatch.setattr(temporalio.bridge.worker.Worker, "create", staticmethod(lambda *_: self))


# --- what a server says ----------------------------------------------------------------------------------------------


def begin_of(run_id: str, init: InitializeWorkflow) -> HistoryEvent:
    """The first event of a history."""
    started = WorkflowExecutionStartedEventAttributes(
        workflow_type=WorkflowType(name=init.workflow_type),
        header=Header(fields=init.headers),
        attempt=init.attempt,
        cron_schedule=init.cron_schedule,
        original_execution_run_id=run_id,
        first_execution_run_id=init.first_execution_run_id,
    )
    if init.HasField("parent_workflow_info"):
        started.parent_workflow_execution.workflow_id = init.parent_workflow_info.workflow_id
        started.parent_workflow_execution.run_id = init.parent_workflow_info.run_id
    kind = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
    return HistoryEvent(event_type=kind, event_time=moment(0), workflow_execution_started_event_attributes=started)


def ended(how: str, **attributes: Any) -> HistoryEvent:
    """The last event of a history: `ended("timed_out")`."""
    event = HistoryEvent(
        event_type=EventType.Value(f"EVENT_TYPE_WORKFLOW_EXECUTION_{how.upper()}"), event_time=moment(60)
    )
    found = getattr(event, f"workflow_execution_{how}_event_attributes")
    found.SetInParent()
    found.MergeFrom(type(found)(**attributes))
    return event


def child_began(seq: int) -> WorkflowActivationJob:
    began = ResolveChildWorkflowExecutionStart(seq=seq)
    began.succeeded.run_id = "run-c1"
    return WorkflowActivationJob(resolve_child_workflow_execution_start=began)


def child_ended(seq: int, result: Any = None, *, failure: Failure | None = None) -> WorkflowActivationJob:
    """How a child has ended for good: with its result, or a failure."""
    done = ResolveChildWorkflowExecution(seq=seq)
    if failure is None:
        done.result.completed.result.CopyFrom(payloads(result)[0])
    else:
        done.result.failed.failure.CopyFrom(failure)
    return WorkflowActivationJob(resolve_child_workflow_execution=done)


def start_job(
    workflow: str,
    *args: Any,
    workflow_id: str = "wf",
    headers: Mapping[str, Payload] = {},
    attempt: int = 1,
    first_run_id: str = "run-1",
    parent: str | None = None,
    retry: RetryPolicy | None = None,
    cron: str = "",
) -> WorkflowActivationJob:
    init = InitializeWorkflow(
        workflow_type=workflow,
        workflow_id=workflow_id,
        arguments=payloads(*args),
        headers=headers,
        attempt=attempt,
        first_execution_run_id=first_run_id,
        start_time=moment(0),
        cron_schedule=cron,
    )
    if parent is not None:
        init.parent_workflow_info.CopyFrom(NamespacedWorkflowExecution(workflow_id=parent, run_id="parent-run"))
    if retry is not None:
        init.retry_policy.CopyFrom(retry)
    return WorkflowActivationJob(initialize_workflow=init)


def resolved(seq: int, result: ActivityExecutionResult) -> WorkflowActivationJob:
    resolution = ActivityResolution()
    name = result.WhichOneof("status")
    getattr(resolution, name).CopyFrom(getattr(result, name))
    return WorkflowActivationJob(resolve_activity=ResolveActivity(seq=seq, result=resolution))


def signalled(name: str, *args: Any) -> WorkflowActivationJob:
    return WorkflowActivationJob(signal_workflow=SignalWorkflow(signal_name=name, input=payloads(*args)))


def updated(name: str, *args: Any) -> WorkflowActivationJob:
    return WorkflowActivationJob(do_update=DoUpdate(id="u", protocol_instance_id="u", name=name, input=payloads(*args)))


def cancelled(reason: str) -> WorkflowActivationJob:
    return WorkflowActivationJob(cancel_workflow=CancelWorkflow(reason=reason))


def queried(name: str) -> WorkflowActivationJob:
    return WorkflowActivationJob(query_workflow=QueryWorkflow(query_id="q", query_type=name))


def evicted() -> WorkflowActivationJob:
    return WorkflowActivationJob(remove_from_cache=RemoveFromCache(message="evicted by the test"))


def task(
    activity: str,
    *args: Any,
    headers: Mapping[str, Payload] = {},
    activity_id: str = "1",
    attempt: int = 1,
    run_id: str = "run-1",
    is_local: bool = False,
    scheduled: float = 0,
    arguments: Sequence[Payload] | None = None,
) -> Start:
    start = Start(
        workflow_namespace="default",
        workflow_type="Test",
        activity_id=activity_id,
        activity_type=activity,
        header_fields=headers,
        input=payloads(*args) if arguments is None else arguments,
        attempt=attempt,
        is_local=is_local,
        scheduled_time=moment(scheduled),
        started_time=moment(scheduled),
    )
    start.workflow_execution.workflow_id, start.workflow_execution.run_id = "wf", run_id
    return start


def task_of(command: WorkflowCommand, run_id: str) -> Start:
    """The first attempt of an activity that a workflow scheduled."""
    schedule = command.schedule_activity
    return task(
        schedule.activity_type,
        headers=schedule.headers,
        activity_id=schedule.activity_id,
        run_id=run_id,
        arguments=schedule.arguments,
    )
