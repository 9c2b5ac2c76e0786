"""Finds ends of workflows that no worker has reported: the server ended the workflow itself (terminated, timed out), or
the worker died between the end and the log.

Temporal does not report the former to workers. So each worker regularly queries the server for closed workflows of its
task queue, reads the execution from the history's first event, and closes its log if it is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from redis.exceptions import RedisError
from temporalio import workflow
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.common import Priority, RetryPolicy
from temporalio.converter import decode_search_attributes, decode_typed_search_attributes
from temporalio.service import RPCError

from emitter import tasks
from emitter.integrations.temporal.closing import WorkflowRun, closed
from emitter.integrations.temporal.execution import Execution, Rules
from emitter.integrations.temporal.relay import EventRelay, RunEvent
from emitter.integrations.temporal.workflows import RunReporter
from emitter.store.connection import GONE
from emitter.wire.ids import now_ms
from emitter.wire.record import Field, Selection

log = structlog.get_logger("emitter.temporal")

POLL_SECONDS = 30.0
"""About the time between two queries, and so the delay of an end by the server."""
SETTLE_SECONDS = 5.0
"""A workflow that closed this recently is left to its own worker."""
FIRST_BACK = timedelta(hours=1)
"""How far the first query goes back; a worker that died is expected back, or replaced, by then."""
BACK = timedelta(minutes=10)
"""How far later queries go back: clocks differ, and the server's lists lag behind."""
BY_SERVER = "ExecutionStatus IN ('Terminated', 'TimedOut', 'Failed', 'Canceled')"
BY_ANYBODY = "ExecutionStatus != 'ContinuedAsNew'"
ROWS_MAX = 10_000
_STATE = Selection(Field.STATE)


class ClosePoller:
    """The poller of one task queue: `async with ClosePoller(…).running():`."""

    def __init__(self, client: Client, task_queue: str, relay: EventRelay, rules: Rules) -> None:
        self._client = client
        self._task_queue = task_queue
        self._relay = relay
        self._rules = rules
        self._back = FIRST_BACK
        self._which = BY_ANYBODY
        self._seen: set[str] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run(), name=f"close-poller-{self._task_queue}")
        try:
            yield
        finally:
            await tasks.end([task])

    async def _run(self) -> None:
        while True:
            try:
                await self._poll()
            except (RPCError, RedisError, *GONE) as error:
                log.warning("ends_not_looked_for", queue=self._task_queue, error=str(error)[:200])
            except Exception:  # last resort: a history that is not understood must not stop the poller
                log.exception("round_crashed", queue=self._task_queue)
            await asyncio.sleep(POLL_SECONDS * (0.75 + random.random() / 2))

    async def _poll(self) -> None:
        now, queue = datetime.now(UTC), self._task_queue.replace("'", "''")
        since, until = _text(now - self._back), _text(now - timedelta(seconds=SETTLE_SECONDS))
        query = f"TaskQueue = '{queue}' AND CloseTime > '{since}' AND CloseTime <= '{until}' AND {self._which}"
        rows: set[str] = set()
        async for row in self._client.list_workflows(query, limit=ROWS_MAX):
            rows.add(row.run_id)
            if row.run_id not in self._seen:
                await self._check(WorkflowRun(row.namespace, row.id, row.run_id))
                self._seen.add(row.run_id)
        self._seen &= rows
        self._back, self._which = BACK, BY_SERVER

    async def _check(self, run: WorkflowRun) -> None:
        reporter = await self._reporter_of(run)
        if (
            reporter is None
            or reporter.is_part
            or reporter.execution is None
            or not await self._is_open(reporter.execution)
        ):
            return
        end = await closed(self._client, run)
        if end is None or end.next_run_id or await self._goes_on(reporter.execution, run):
            return
        event = await self._relay.end_of(end, self._client, max(0, end.ms - reporter.started_ms) / 1000)
        log.info("end_found", execution=reporter.execution.id, workflow=run.workflow_id, how=end.name.lower())
        self._relay.put(RunEvent(reporter.execution, f"end-{run.run_id}", 1, event, now_ms(), run))

    async def _reporter_of(self, run: WorkflowRun) -> RunReporter | None:
        """The reporter that the run itself had: with its execution and start."""
        handle = self._client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
        async for begin in handle.fetch_history_events(page_size=1):
            return RunReporter(_info(begin, run, self._task_queue), self._rules)
        return None

    async def _is_open(self, execution: Execution) -> bool:
        """Whether there is a log, and it is open."""
        publisher = self._relay.publisher
        if publisher is None:
            return False
        client: Any = publisher.redis
        row = await client.hmget(execution.owner.execution(execution.id).record, *_STATE.names)
        record = _STATE.read(row)
        return record.exists and not record.has_ended

    async def _goes_on(self, execution: Execution, run: WorkflowRun) -> bool:
        """Whether a later run of the workflow belongs to the same execution: after a reset, or started in its place."""
        latest = await self._client.get_workflow_handle(run.workflow_id).describe()
        if latest.run_id == run.run_id:
            return False
        reporter = await self._reporter_of(run._replace(run_id=latest.run_id))
        return reporter is not None and reporter.execution is not None and reporter.execution.id == execution.id


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _info(begin: HistoryEvent, run: WorkflowRun, task_queue: str) -> workflow.Info:
    """The `Info` that the run itself had, from the first event of its history."""
    started = begin.workflow_execution_started_event_attributes
    moment = begin.event_time.ToDatetime(UTC)
    parent = started.parent_workflow_execution
    known = {
        "attempt": started.attempt,
        "continued_run_id": started.continued_execution_run_id or None,
        "cron_schedule": started.cron_schedule or None,
        "first_execution_run_id": started.first_execution_run_id,
        "headers": dict(started.header.fields),
        "namespace": run.namespace,
        "original_execution_run_id": started.original_execution_run_id,
        "parent": workflow.ParentInfo(run.namespace, parent.run_id, parent.workflow_id) if parent.run_id else None,
        "priority": Priority.default,
        "raw_memo": dict(started.memo.fields),
        "retry_policy": RetryPolicy.from_proto(started.retry_policy) if started.HasField("retry_policy") else None,
        "run_id": run.run_id,
        "search_attributes": decode_search_attributes(started.search_attributes),
        "start_time": moment,
        "task_queue": task_queue,
        "task_timeout": started.workflow_task_timeout.ToTimedelta(),
        "typed_search_attributes": decode_typed_search_attributes(started.search_attributes),
        "workflow_id": run.workflow_id,
        "workflow_start_time": moment,
        "workflow_type": started.workflow_type.name,
    }
    names = [field.name for field in dataclasses.fields(workflow.Info)]
    return workflow.Info(**{name: known.get(name) for name in names})  # type: ignore[arg-type] # also fields of later versions
