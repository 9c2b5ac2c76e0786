"""The relay: it takes the events of the interceptors, from any thread, and publishes them.

Every event has a producer and a sequence that follow from Temporal's info. The log knows each producer's last sequence,
so an event that is published twice (an attempt that ran again, a workflow task that was executed again) is stored once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from emitter import tasks
from emitter.errors import (
    EventsLost,
    ExecutionEnded,
    RedisUnavailable,
    RuncastError,
    describe,
)
from emitter.events import TERMINAL_STATE_OF, Event
from emitter.integrations.temporal.closing import Closed, WorkflowRun, end_of, going_on, when_closed
from emitter.integrations.temporal.execution import Execution
from emitter.integrations.temporal.sequenced_outbox import SequencedOutbox
from emitter.publishing.outbox import Outbox
from emitter.publishing.publisher import Publisher

log = structlog.get_logger("emitter.temporal")

OUTBOXES_MAX = 1_000
"""How many logs may have waiting events while Redis is away."""
EVENTS_MAX = 10_000
"""How many events of workflows may wait for the event loop."""
ENDS_MAX = 1_000
"""How many ends of workflows may wait for the server or for Redis."""
CANCELLED_MAX = 1_000
"""How many runs are remembered whose cancel was requested."""
AWAY_SECONDS = 0.05
"""How long to wait for Redis after a wait has timed out."""


class RunEvent(NamedTuple):
    """An event of a workflow run, from the workflow's thread. `history_length` is that of the task that published
    it."""

    execution: Execution
    producer: str
    seq: int
    event: Event
    ts: int
    run: WorkflowRun
    history_length: int = 0

    @property
    def key(self) -> str:
        return f"{self.execution.id} {self.producer}"

    @property
    def is_end(self) -> bool:
        return self.event.type in TERMINAL_STATE_OF


class Proposed(NamedTuple):
    """The end that a workflow has reached, and the task that waits for the server's confirmation."""

    seq: int
    task: asyncio.Task[None]


async def _arrived(outbox: Outbox) -> None:
    """Wait until the log has what is queued so far, also while Redis is away, or refuses it."""
    while True:
        try:
            return await outbox.flush()
        except RedisUnavailable:
            continue
        except RuncastError:
            return None


class EventRelay:
    """Shared by all workers of one plugin: one publisher, open while any of them runs.

    Args:
        make_publisher: the publisher of one opening.
        patience: seconds that an activity may wait for Redis, once for its start and once for its end.
        values: whether results are published.
        cancels: whether the workflow of a cancelled execution is cancelled.
    """

    def __init__(
        self,
        make_publisher: Callable[[], Publisher],
        patience: float,
        *,
        values: bool = True,
        cancels: bool = True,
    ) -> None:
        self._make_publisher = make_publisher
        self._patience = patience
        self._values = values
        self._cancels = cancels
        self._clients: dict[str, Client] = {}
        self._ends: dict[str, Proposed] = {}
        self._cancelled: deque[str] = deque(maxlen=CANCELLED_MAX)
        self._cancelling: set[asyncio.Task[None]] = set()
        self._workers = 0
        self._publisher: Publisher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outboxes: dict[str, Outbox] = {}
        self._events: deque[RunEvent] = deque()
        self._woken = False
        self._dropped = 0
        self._is_away = False

    # --- life ---

    @contextlib.asynccontextmanager
    async def open(self, client: Client | None = None) -> AsyncIterator[None]:
        """Open while a worker runs. Without a client an end is published as soon as the workflow reaches it. The last
        worker that leaves flushes the events."""
        await self._enter(client)
        try:
            yield
        finally:
            await self._leave()

    async def _enter(self, client: Client | None) -> None:
        if client is not None:
            self._clients[client.namespace] = client
        if self._publisher is None:
            self._publisher = await self._make_publisher().__aenter__()
            self._loop = asyncio.get_running_loop()
        self._workers += 1

    async def _leave(self) -> None:
        self._workers -= 1
        if self._workers:
            return
        self._drain()
        try:
            await self._settle_ends()
        finally:
            publisher, self._publisher, self._loop = self._publisher, None, None
            self._outboxes.clear()
            self._clients.clear()
            assert publisher is not None
            try:
                await publisher.__aexit__(None, None, None)
            except EventsLost as lost:  # must not fail the stop of a worker
                log.warning("events_lost", count=lost.count)

    async def _settle_ends(self) -> None:
        """Wait for unconfirmed ends, at most `patience` seconds: another worker will find the others."""
        waiting = [*(proposed.task for proposed in self._ends.values()), *self._cancelling]
        if waiting:
            await asyncio.wait(waiting, timeout=self._patience)
        if left := len(self._ends):
            log.warning("ends_not_told", count=left)
        await tasks.end(waiting)

    # --- outboxes ---

    @property
    def publisher(self) -> Publisher | None:
        """None while no worker runs."""
        return self._publisher

    def outbox(self, execution: Execution, producer: str, run: WorkflowRun | None = None) -> SequencedOutbox | None:
        """The outbox of a producer; None while no worker runs, or if too many wait for Redis. `run`: the workflow run
        whose events it carries."""
        known = self._outboxes.get(f"{execution.id} {producer}")
        if isinstance(known, SequencedOutbox):
            return known
        if self._publisher is None:
            return None
        outbox = SequencedOutbox(self._publisher, execution, producer, lambda error: self.refused(run, error))
        return outbox if self.admit(outbox) else None

    def admit(self, outbox: Outbox) -> bool:
        """Register an outbox that may hold events while Redis is away; false if there are too many."""
        if len(self._outboxes) >= OUTBOXES_MAX:
            self._outboxes = {key: other for key, other in self._outboxes.items() if len(other.queue)}
        if len(self._outboxes) >= OUTBOXES_MAX:
            log.warning("events_dropped", execution=outbox.execution_id, reason=f"{OUTBOXES_MAX} logs wait for Redis")
            return False
        self._outboxes[f"{outbox.execution_id} {outbox.producer}"] = outbox
        return True

    async def wait_stored(self, outbox: Outbox) -> None:
        """Wait until the log has the queued events, at most `patience` seconds; the others are sent when Redis is back.
        While Redis is away later calls wait only `AWAY_SECONDS`. Raises nothing but a cancellation."""
        if not len(outbox.queue):
            return
        try:
            await outbox.flush(AWAY_SECONDS if self._is_away else self._patience)
        except RedisUnavailable as error:
            log.warning("redis_away", execution=outbox.execution_id, detail=str(error))
            self._is_away = True
        except RuncastError:
            pass  # the log refuses, which must not fail the activity
        else:
            self._is_away = False

    # --- from the threads of workflows ---

    def publish(self, run_event: RunEvent) -> None:
        """Hand in an event from any thread. Never waits, never raises."""
        loop = self._loop
        if loop is None:
            return
        if len(self._events) >= EVENTS_MAX and run_event.event.type not in TERMINAL_STATE_OF:
            self._dropped += 1
            return
        self._events.append(run_event)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False  # first, so that later events wake the loop again
        dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("events_dropped", count=dropped, reason="published faster than they could be queued")
        while self._events:
            self._take(self._events.popleft())

    def _take(self, run_event: RunEvent) -> None:
        proposed = self._ends.get(run_event.key)
        if proposed is not None and run_event.seq > proposed.seq:
            return  # from code that still ran after the end
        if proposed is not None:  # the server refused the task that ended, and this one replaces it
            self._ends.pop(run_event.key).task.cancel()
        client = self._clients.get(run_event.run.namespace)
        if run_event.is_end and client is not None and len(self._ends) < ENDS_MAX:
            task = asyncio.create_task(self._end(run_event, client), name=f"end-{run_event.execution.id}")
            self._ends[run_event.key] = Proposed(run_event.seq, task)
            task.add_done_callback(lambda task: self._ended(run_event.key, task))
        else:
            self.put(run_event)

    def put(self, run_event: RunEvent) -> None:
        """Queue an event for its log. Never waits, never raises."""
        if (outbox := self.outbox(run_event.execution, run_event.producer, run_event.run)) is not None:
            outbox.put(run_event.seq, run_event.event, run_event.execution, ts=run_event.ts)

    # --- ends ---

    async def _end(self, run_event: RunEvent, client: Client) -> None:
        """Publish the end of a run when the server has it, after all other waiting events of the execution."""
        end = await when_closed(client, run_event.run)
        event = run_event.event if end is None else await self._event_of(end, run_event, client)
        if event is None:
            return
        try:
            await self._wait_for_others(run_event.execution)
        finally:
            self.put(run_event._replace(event=event))

    async def _event_of(self, end: Closed, run_event: RunEvent, client: Client) -> Event | None:
        if end.next_run_id and not run_event.run.is_cron:
            return await going_on(end, client.data_converter)
        if end.is_of(run_event.history_length):
            return run_event.event
        return await self.end_of(end, client, getattr(run_event.event, "duration", 0.0))

    async def end_of(self, end: Closed, client: Client, duration: float) -> Event:
        """The terminal event for an end in the history."""
        assert self._publisher is not None
        max_bytes = self._publisher.limits.max_event_bytes or 2**31
        return await end_of(end, client.data_converter, duration, values=self._values, max_bytes=max_bytes)

    async def _wait_for_others(self, execution: Execution) -> None:
        """Wait until the log has all waiting events of the execution: after its end it refuses them."""
        for outbox in [*self._outboxes.values()]:
            if outbox.execution_id == execution.id:
                await _arrived(outbox)

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        if (proposed := self._ends.get(key)) is not None and proposed.task is task:
            del self._ends[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("end_not_told", error=describe(error))

    # --- cancels ---

    def refused(self, run: WorkflowRun | None, error: Exception) -> None:
        """The log refuses events of a workflow: if it was cancelled, cancel the workflow. Never waits, never raises."""
        if not self._cancels or run is None or not isinstance(error, ExecutionEnded) or error.state != "cancelled":
            return
        client = self._clients.get(run.namespace)
        if client is None or run.run_id in self._cancelled:
            return
        self._cancelled.append(run.run_id)
        task = asyncio.create_task(self._cancel(run, client), name=f"cancel-{run.workflow_id}")
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, run: WorkflowRun, client: Client) -> None:
        """Request the cancel of a workflow whose execution was cancelled."""
        try:
            handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
            await handle.cancel(reason="its execution was cancelled")
        except RPCError as error:  # it has probably ended; otherwise its next run or activity tries again
            log.info("workflow_not_cancelled", workflow=run.workflow_id, detail=str(error)[:200])
        else:
            log.info("workflow_cancel_asked", workflow=run.workflow_id)
