"""Where the interceptors hand in what is to be published, from whatever thread, and what carries it into the logs.

Every event here has a producer and a sequence that are made from what Temporal says of it. The log knows each
producer's last sequence, so whatever is told twice (an attempt that ran again, a workflow task that was executed again)
is in the log once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from emitter.batch import Prepared
from emitter.errors import (
    AppendRefused,
    EventsLost,
    HookFailed,
    InvalidEvent,
    PayloadTooLarge,
    RedisUnavailable,
    RuncastError,
)
from emitter.events import TERMINAL_STATES, Event, ExecutionComplete, Status, ToolComplete, ToolStart
from emitter.hooks import Origin, apply_hooks, prepare_end
from emitter.integrations.temporal.execution import Execution
from emitter.lane import Lane
from emitter.log import PackedAppend, prepare
from emitter.publisher import Publisher
from emitter.wire import now_ms

log = structlog.get_logger("emitter.temporal")

LANES_MAX = 1_000
"""Logs for which events may wait at once, while Redis is away."""
TOLD_MAX = 10_000
"""Events of workflows that may wait for the event loop."""
AWAY_SECONDS = 0.05
"""How long is waited for a Redis that kept somebody waiting in vain just now."""


class Road(Lane):
    """One producer's lane, with a producer and sequences that are given."""

    def __init__(self, publisher: Publisher, execution: Execution, producer: str) -> None:
        super().__init__(publisher, execution.owner, execution.id, execution.attempt, self._prepare)
        self.producer = producer
        self._packed = PackedAppend(self._command((), 1))  # which has the producer in it
        self._carrier = publisher
        self._origin = Origin(
            user=execution.user, org=execution.org, execution_id=execution.id, attempt=execution.attempt
        )

    def put(self, seq: int, event: Event, *, parent_id: str | None, ts: int | None = None) -> None:
        """Queue an event as the producer's `seq`-th, unless it was. Never waits, never raises."""
        if self.error is not None or seq <= self.queue.last:
            return
        if self.queue.full and event.type not in TERMINAL_STATES:
            log.warning("event_dropped", execution=self.execution_id, type=event.type, reason="the queue is full")
            return
        prepared = self._stored(event, lambda kept: self._prepare(kept, now_ms() if ts is None else ts, parent_id))
        if prepared is None:
            return
        if not len(self.queue):
            self.queue.settled = seq - 1  # what lies between was put by another worker, or dropped
        self.queue.put(prepared)
        self.changed(urgent=True)

    def refuse(self, error: Exception) -> None:
        if self.error is None and isinstance(error, AppendRefused):
            log.info("events_refused", execution=self.execution_id, reason=str(error))
        super().refuse(error)

    def _stored(self, event: Event, prepare: Callable[[Event], Prepared]) -> Prepared | None:
        """The event as it is stored; of one that cannot be, as much as can be. None: a hook dropped it."""
        try:
            return self._passed(event, prepare)
        except (InvalidEvent, PayloadTooLarge) as error:
            log.warning("event_not_storable", execution=self.execution_id, type=event.type, error=str(error)[:200])
            return prepare(_less(event, error))

    def _passed(self, event: Event, prepare: Callable[[Event], Prepared]) -> Prepared | None:
        hooks = self._carrier.hooks
        if event.type in TERMINAL_STATES:
            return prepare_end(hooks, event, self._origin, prepare)[0]
        passed = apply_hooks(hooks, event, self._origin)
        return None if passed is None else prepare(passed)

    def _prepare(self, event: Event, ts: int, parent_id: str | None = None) -> Prepared:
        return prepare(
            event,
            self.execution_id,
            redact=self._carrier.redact,
            ts=ts,
            parent_id=parent_id,
            max_bytes=self._carrier.limits.max_event_bytes,
        )


def _less(event: Event, error: InvalidEvent | PayloadTooLarge) -> Event:
    """An event without the values that kept it from being stored; or only word of it."""
    omitted = {"omitted": str(error)[:200]}
    if not isinstance(error, HookFailed):  # of what a hook failed on, nothing is stored
        if isinstance(event, ToolStart):
            return replace(event, params=omitted)
        if isinstance(event, ToolComplete | ExecutionComplete):
            return replace(event, result=omitted)
    return Status(status="dropped", message=f"{event.type}: {str(error)[:200]}")


class Told(NamedTuple):
    """An event of a workflow, on its way from the workflow's thread."""

    execution: Execution
    producer: str
    seq: int
    event: Event
    parent_id: str | None
    ts: int


class Desk:
    """Shared by all workers of one plugin: one publisher, open while any of them runs.

    Args:
        make_publisher: the publisher of one opening.
        patience: seconds that an activity may be kept waiting for Redis, once for its start and once for its end.
    """

    def __init__(self, make_publisher: Callable[[], Publisher], patience: float) -> None:
        self._make_publisher = make_publisher
        self._patience = patience
        self._workers = 0
        self._publisher: Publisher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lanes: dict[str, Lane] = {}
        self._told: deque[Told] = deque()
        self._woken = False
        self._dropped = 0
        self._is_away = False

    # --- life ---

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """For the time a worker runs. The last one to leave sends what still waits."""
        await self._enter()
        try:
            yield
        finally:
            await self._leave()

    async def _enter(self) -> None:
        if self._publisher is None:
            self._publisher = await self._make_publisher().__aenter__()
            self._loop = asyncio.get_running_loop()
        self._workers += 1

    async def _leave(self) -> None:
        self._workers -= 1
        if self._workers:
            return
        self._drain()
        publisher, self._publisher, self._loop = self._publisher, None, None
        self._lanes.clear()
        assert publisher is not None
        try:
            await publisher.__aexit__(None, None, None)
        except EventsLost as lost:  # a worker that stops is no place to raise this
            log.warning("events_lost", count=lost.count)

    # --- lanes ---

    @property
    def publisher(self) -> Publisher | None:
        """None while no worker runs."""
        return self._publisher

    def road(self, execution: Execution, producer: str) -> Road | None:
        """The lane of a producer; None while no worker runs, or if too many wait for Redis."""
        known = self._lanes.get(f"{execution.id} {producer}")
        if isinstance(known, Road):
            return known
        if self._publisher is None:
            return None
        road = Road(self._publisher, execution, producer)
        return road if self.admit(road) else None

    def admit(self, lane: Lane) -> bool:
        """Count a lane among those that may hold events while Redis is away; false if they are too many."""
        if len(self._lanes) >= LANES_MAX:
            self._lanes = {key: other for key, other in self._lanes.items() if len(other.queue)}
        if len(self._lanes) >= LANES_MAX:
            log.warning("events_dropped", execution=lane.execution_id, reason=f"{LANES_MAX} logs wait for Redis")
            return False
        self._lanes[f"{lane.execution_id} {lane.producer}"] = lane
        return True

    async def settle(self, lane: Lane) -> None:
        """Wait until the log has what is queued, but not long: what it has not got by then is sent when Redis is back,
        and as long as Redis is away the next ones hardly wait. Raises nothing but a cancellation."""
        if not len(lane.queue):
            return
        try:
            await lane.flush(AWAY_SECONDS if self._is_away else self._patience)
        except RedisUnavailable as error:
            log.warning("redis_away", execution=lane.execution_id, detail=str(error))
            self._is_away = True
        except RuncastError:
            pass  # the log takes nothing more, which is no matter of the activity's
        else:
            self._is_away = False

    # --- from the threads of workflows ---

    def tell(self, told: Told) -> None:
        """Hand in an event from any thread. Never waits, never raises."""
        loop = self._loop
        if loop is None:
            return
        if len(self._told) >= TOLD_MAX and told.event.type not in TERMINAL_STATES:
            self._dropped += 1
            return
        self._told.append(told)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop was closed under its worker
                loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False  # first: what is told from here on wakes us again
        dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("events_dropped", count=dropped, reason="told faster than they could be queued")
        while self._told:
            told = self._told.popleft()
            if (road := self.road(told.execution, told.producer)) is not None:
                road.put(told.seq, told.event, parent_id=told.parent_id, ts=told.ts)
