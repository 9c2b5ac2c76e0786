"""An outbox for events that already have a producer and a sequence number."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from emitter.errors import AppendRefused, InvalidEvent, PayloadTooLarge
from emitter.events import TERMINAL_STATE_OF, Event, Status
from emitter.integrations.temporal.execution import Execution
from emitter.publishing.hooks import Origin, apply_hooks, prepare_end
from emitter.publishing.outbox import Outbox
from emitter.publishing.publisher import Publisher
from emitter.store.append import prepare_shown
from emitter.tracing.trace import read_trace
from emitter.wire.envelope import envelope_keys
from emitter.wire.ids import now_ms
from emitter.wire.prepared import Prepared

log = structlog.get_logger("emitter.temporal")


class SequencedOutbox(Outbox):
    """An outbox whose producer and sequence numbers are given. `refused` is called with the reason when the log refuses
    further events."""

    def __init__(
        self, publisher: Publisher, execution: Execution, producer: str, refused: Callable[[Exception], None]
    ) -> None:
        super().__init__(publisher, execution.owner, execution.id, execution.attempt, self._prepare, producer=producer)
        self._shared = publisher
        self._refused = refused
        self._origin = Origin(
            user=execution.user, org=execution.org, execution_id=execution.id, attempt=execution.attempt
        )

    def put(self, seq: int, event: Event, execution: Execution, *, ts: int | None = None) -> None:
        """Queue an event with the sequence `seq`, unless that was queued before. `execution` has its envelope keys.
        Never waits or raises."""
        if self.error is not None or seq <= self.queue.last:
            return
        if self.queue.full and event.type not in TERMINAL_STATE_OF:
            log.warning("event_dropped", execution=self.execution_id, type=event.type, reason="the queue is full")
            return
        prepared = self._stored(event, lambda kept: self._placed(kept, execution, ts))
        if prepared is None:
            return
        if not len(self.queue):
            self.queue.settled = seq - 1  # events in between were sent by another worker, or dropped
        self.queue.put(prepared)
        self.notify(urgent=True)

    def fail(self, error: Exception) -> None:
        if self.error is None and isinstance(error, AppendRefused):
            log.info("events_refused", execution=self.execution_id, reason=str(error))
            self._refused(error)
        super().fail(error)

    def _stored(self, event: Event, prepare: Callable[[Event], Prepared]) -> Prepared | None:
        """The event as it is stored; if it cannot be stored even when mended, a notice. None: a hook dropped it."""
        try:
            return self._passed(event, prepare)
        except (InvalidEvent, PayloadTooLarge) as error:
            log.warning("event_not_storable", execution=self.execution_id, type=event.type, error=str(error)[:200])
            return prepare(dropped(event, error))

    def _passed(self, event: Event, prepare: Callable[[Event], Prepared]) -> Prepared | None:
        hooks = self._shared.hooks
        if event.type in TERMINAL_STATE_OF:
            return prepare_end(hooks, event, self._origin, prepare)[0]
        passed = apply_hooks(hooks, event, self._origin)
        return None if passed is None else prepare(passed)

    def _placed(self, event: Event, execution: Execution, ts: int | None) -> Prepared:
        trace = None if execution.traceparent is None else read_trace([execution.traceparent])
        traceparent = None if trace is None else trace.parent
        return self._prepare(event, now_ms() if ts is None else ts, execution.parent_id, traceparent)

    def _prepare(self, event: Event, ts: int, parent_id: str | None = None, traceparent: str | None = None) -> Prepared:
        keys = envelope_keys(parent_id=parent_id, traceparent=traceparent)
        redact, max_bytes = self._shared.redact, self._shared.limits.max_event_bytes
        return prepare_shown(event, self.execution_id, redact, keys, ts, max_bytes)


def dropped(event: Event, error: InvalidEvent | PayloadTooLarge) -> Status:
    """A notice in place of an event that cannot be stored."""
    return Status(status="dropped", message=f"{event.type}: {str(error).removeprefix(f'{event.type}: ')[:200]}")
