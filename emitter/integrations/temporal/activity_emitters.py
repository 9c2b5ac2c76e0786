"""The emitter for the code of an activity: its failures are logged and do not fail the activity."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal, cast

import structlog

from emitter.errors import (
    AppendRefused,
    EmitterClosed,
    ExecutionEnded,
    InvalidEvent,
    PayloadTooLarge,
    QueueFull,
    RedisUnavailable,
)
from emitter.events import Event, ToolProgress
from emitter.integrations.temporal.execution import Execution
from emitter.integrations.temporal.null_emitter import NullEmitter, NullSyncEmitter
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.hooks import apply_hooks
from emitter.publishing.outbox import Outbox
from emitter.publishing.publisher import Publisher
from emitter.publishing.sync_emitter import SyncAgentEmitter
from emitter.store.append import prepare_with
from emitter.wire.envelope import envelope_keys
from emitter.wire.ids import now_ms
from emitter.wire.inputs import InputKind

log = structlog.get_logger("emitter.temporal")

HEARTBEAT_SECONDS = 0.25
"""The least time between two `tool:progress` made of heartbeats."""
MESSAGE_CHARS = 2_000


class ActivityEmitter(AgentEmitter):
    """An `AgentEmitter` for one attempt of an activity; its events are under the activity's call.

    A closed log, an unreachable Redis or a full queue is logged and not raised; it delays the activity once, by the
    patience of `wait_stored` or the publisher's `overflow_timeout`. An invalid input still raises `InvalidEvent` or
    `PayloadTooLarge`, and `ask` raises if no answer can come.
    """

    def __init__(
        self,
        publisher: Publisher,
        execution: Execution,
        call_id: str,
        activity: str,
        wait_stored: Callable[[Outbox], Awaitable[None]],
        refused: Callable[[Exception], None],
    ) -> None:
        super().__init__(
            execution.user,
            execution.id,
            org=execution.org,
            publisher=publisher,
            attempt=execution.attempt,
            parent_id=call_id,
            traceparent=execution.traceparent,
        )
        self.loop = asyncio.get_running_loop()
        self._call_id = call_id
        self._activity = activity
        self._wait_stored = wait_stored
        self._refused = refused
        trace = self._outbox.trace
        self._call_keys = envelope_keys(
            parent_id=execution.parent_id, traceparent=None if trace is None else trace.parent
        )
        self._lost = 0

    @property
    def outbox(self) -> Outbox:
        return self._outbox

    def new_id(self, kind: Literal["message", "call"]) -> str:
        """Unique in the execution, also among other activities."""
        return f"{self._call_id}_{super().new_id(kind)}"

    async def emit(self, event: Event, *, agent: str | None = None, parent_id: str | None = None) -> None:
        if self._lost and not self._outbox.queue.roomy:  # a wait for room has failed before: do not wait again
            self._lost += 1
            return
        with self._forgiving():
            await super().emit(event, agent=agent, parent_id=parent_id)

    async def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        with self._forgiving():
            await super()._terminal(event, fields)

    async def flush(self, timeout: float | None = None) -> None:
        if timeout is None:
            self._put_held()
            await self._wait_stored(self._outbox)
        else:
            with self._forgiving():
                await super().flush(timeout)

    def progress_soon(self, event: ToolProgress) -> None:
        """Queue progress of the call itself, if there is room. Never waits, never raises."""
        if self._outbox.error is not None:
            self._refused(self._outbox.error)
        if self._outbox.queue.full or self._outbox.error is not None:
            return
        with contextlib.suppress(InvalidEvent, PayloadTooLarge):
            if (passed := apply_hooks(self._hooks, event, self._origin)) is not None:
                limit = self._publisher.limits.max_event_bytes
                redact = self._publisher.redact
                self._put(prepare_with(passed, self.execution_id, redact, self._call_keys, now_ms(), limit))

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except (AppendRefused, QueueFull, RedisUnavailable, EmitterClosed) as error:
            self._refused(error)
            self._lost += 1
            if self._lost == 1:
                log.warning("activity_not_heard", execution=self.execution_id, call=self._call_id, error=str(error))

    async def ask(
        self,
        prompt: str,
        *,
        kind: InputKind = "approval",
        options: Sequence[str] | None = None,
        schema: dict[str, Any] | None = None,
        expires_in: float | None = None,
        input_id: str | None = None,
    ) -> Any:
        """As `AgentEmitter.ask`. The next attempt of this activity finds the answer; another activity with the same
        request does not."""
        request = self._inputs.make(
            prompt, kind, options=options, schema=schema, expires_in=expires_in, input_id=input_id
        )
        try:
            return await super().ask(
                prompt,
                kind=kind,
                options=options,
                schema=schema,
                expires_in=expires_in,
                input_id=input_id or f"{request.input_id}_{self._activity[:8]}",
            )
        except ExecutionEnded as ended:
            self._refused(ended)
            raise


# --- access from an activity's code ---------------------------------------------------------------------------------

_current: ContextVar[ActivityEmitter | None] = ContextVar("runcast_speaking", default=None)


@contextlib.contextmanager
def using(emitter: ActivityEmitter | None) -> Iterator[None]:
    token = _current.set(emitter)
    try:
        yield
    finally:
        _current.reset(token)


def activity_emitter() -> AgentEmitter:
    """The emitter of the current `async def` activity: `await activity_emitter().thinking("…")`. It does nothing if the
    activity is not published (no owner, no plugin, a unit test)."""
    return _current.get() or cast(AgentEmitter, NullEmitter())


def sync_activity_emitter() -> SyncAgentEmitter:
    """The same for a `def` activity in a thread. In another process it does nothing."""
    emitter = _current.get()
    if emitter is None:
        return cast(SyncAgentEmitter, NullSyncEmitter())
    return SyncAgentEmitter.over(emitter, emitter.loop)


# --- heartbeats ------------------------------------------------------------------------------------------------------


class Heartbeats:
    """Heartbeats as `tool:progress`: the first at once, then the latest, at most one in `HEARTBEAT_SECONDS`."""

    def __init__(self, call_id: str, emitter: ActivityEmitter) -> None:
        self._call_id = call_id
        self._emitter = emitter
        self._lock = threading.Lock()  # Temporal calls on the loop; a wrapper of its interceptors may not
        self._latest: ToolProgress | None = None
        self._is_due = False
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None

    def heartbeat(self, details: Sequence[Any]) -> None:
        """From any thread. Never waits, never raises."""
        progress = progress_of(self._call_id, details)
        if progress is None:
            return
        with self._lock:
            self._latest = progress
            is_due, self._is_due = self._is_due, True
        if not is_due:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._emitter.loop.call_soon_threadsafe(self._send)

    def close(self) -> None:
        """Send the latest, and nothing after it. On the loop; idempotent."""
        self._send()
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _send(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, None
            self._is_due = latest is not None
        if latest is None or self._is_closed:
            return
        self._emitter.progress_soon(latest)
        self._timer = self._emitter.loop.call_later(HEARTBEAT_SECONDS, self._send)


def progress_of(call_id: str, details: Sequence[Any]) -> ToolProgress | None:
    """The progress in a heartbeat's details: a number from 0 to 100 is progress, another number or a text is the
    message; a dict or object may have both by name. None if there is neither."""
    progress: float | None = None
    message: str | None = None
    for detail in details:
        found = detail if isinstance(detail, Mapping) else getattr(detail, "__dict__", {})
        for value in (found.get("progress"), found.get("message")) if found else (detail,):
            if isinstance(value, bool):
                continue
            if isinstance(value, int | float) and 0 <= value <= 100:
                progress = float(value)
            elif isinstance(value, str | int | float):
                message = str(value)[:MESSAGE_CHARS]
    if progress is None and message is None:
        return None
    return ToolProgress(call_id=call_id, progress=progress, message=message)
