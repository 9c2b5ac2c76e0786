"""`AgentEmitter`: what an agent calls to publish its events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, cast

import msgspec

from emitter.budgets import Budget, Meter, smallest
from emitter.errors import (
    AppendRefused,
    EmitterClosed,
    ExecutionEnded,
    InvalidEvent,
    PayloadTooLarge,
    RuncastError,
)
from emitter.events import (
    DELTAS,
    TERMINAL_STATE_OF,
    Artifact,
    Event,
    ExecutionError,
    ExecutionStarted,
    InputReceived,
    MessageComplete,
    MessageDelta,
    Status,
    ThinkingDelta,
)
from emitter.publishing.async_methods import SIMPLE, TEXT, cut_chunk, has_text
from emitter.publishing.held import HeldText
from emitter.publishing.hooks import Hook, Origin, apply_hooks, name_hooks, prepare_end
from emitter.publishing.inbox import Inbox
from emitter.publishing.inbox_source import RedisSource
from emitter.publishing.input_wait import InputWait
from emitter.publishing.outbox import PublisherOptions
from emitter.publishing.publisher import Publisher
from emitter.publishing.queue import Measured, chunk_bytes
from emitter.publishing.self_run import SelfRunEmitter
from emitter.publishing.speakers import Speaker, Speakers
from emitter.store.append import Mode, claimed_by
from emitter.store.endings import end_after, stack_of
from emitter.tracing.trace import read_trace
from emitter.wire import ids
from emitter.wire.ids import new_execution_id, now_ms
from emitter.wire.inputs import InputKind
from emitter.wire.mending import valid
from emitter.wire.prepared import Prepared
from emitter.wire.record import Field
from emitter.wire.subjects import owner_named


class AgentEmitter(SelfRunEmitter):
    """Publishes the events of one execution. Use it with `async with`, or close it.

    `await emitter.thinking("…")` returns as soon as the event is queued; the queue travels in batches, in order, and
    each event is in the log exactly once. Terminal events and `flush` return when the log has everything. A refusal of
    the log (`ExecutionEnded`, `Superseded`) is raised at the next call.

    Args:
        user_id, org: the owner; `user_id` is the `sub` of that user's tokens.
        execution_id: 1 to 64 of A-Z a-z 0-9 _ -; a new one by default.
        redis_url, or publisher: its own connection, or one shared by all emitters of the process.
        attempt: the attempt this worker runs; appends of an older one are refused. 0: not fenced.
        claimed: the worker that has claimed the attempt (True: any); then the log accepts events only while the record
            says so.
        agent, request_id, parent_id: envelope keys of every event.
        traceparent: the parent span of all events (W3C Trace Context), an envelope key too; ignored if not valid.
        accepts_messages: whether people may send messages from the beginning, not only from the first take on.
        hooks: applied to every event (`emitter.publishing.hooks`), before the publisher's hooks.
        strict: raise `InvalidEvent` and `PayloadTooLarge` for events that would be mended (`emitter.wire.mending`).
        end_on_error: whether leaving the `async with` block ends an execution that this emitter has started and not
            ended: an exception as `execution:error`, an interruption or a cancel as `execution:cancelled`. False for
            code that will try again. A worker ends its executions itself.
        budget: what an execution that no worker runs may spend, besides the limits of the settings.
    """

    def __init__(
        self,
        user_id: str,
        execution_id: str | None = None,
        *,
        org: str = "default",
        redis_url: str | None = None,
        publisher: Publisher | None = None,
        options: PublisherOptions = PublisherOptions(),  # noqa: B008 - frozen
        attempt: int = 0,
        claimed: str | bool = False,
        agent: str | None = None,
        request_id: str | None = None,
        parent_id: str | None = None,
        traceparent: str | None = None,
        accepts_messages: bool = False,
        hooks: Sequence[Hook] = (),
        strict: bool = False,
        end_on_error: bool = True,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(attempt, strict=strict)
        if not isinstance(attempt, int) or attempt < 0:
            raise InvalidEvent(f"attempt: {attempt!r} is not a number from 0")
        self.owner = owner_named(user_id, org)
        self.execution_id = new_execution_id() if execution_id is None else ids.check_execution_id(execution_id)
        trace = None if traceparent is None else read_trace([traceparent])
        self._owns_publisher = publisher is None
        self._publisher = publisher or Publisher(redis_url=redis_url, options=options)
        self._holds = self._publisher.holds
        self._hooks = (*name_hooks(hooks), *self._publisher.hooks)
        self._origin = Origin(
            user=user_id, org=org, execution_id=self.execution_id, agent=agent, request_id=request_id, attempt=attempt
        )
        self._speakers = Speakers(
            self.execution_id, self._publisher.redact, self.max_event_bytes,
            ({} if claimed else self._publisher.holds.fields(self.owner, self.execution_id))
            | ({Field.ACCEPTS: "1"} if accepts_messages else {}),
            strict=strict, request_id=request_id, agent=agent, parent_id=parent_id, trace=trace,
        )  # fmt: skip
        self._encode = self._speakers.encode
        mode: Mode = claimed_by(claimed) if isinstance(claimed, str) else "claimed" if claimed else "any"
        self._outbox = self._publisher.outbox(self.owner, self.execution_id, attempt, self._encode, mode, trace)
        self._text_chunk, self._delta_bytes = self._speakers.text_limits()
        self._held = HeldText(self._put_chunk)
        self._chunks_dropped = 0
        self._calls = 0
        self._is_claimed, self.accepts_messages = bool(claimed), accepts_messages
        self._has_started = False
        self._end_on_error = end_on_error
        self.count_with(
            Meter() if claimed else Meter(smallest(budget, self._publisher.limits.budget), on_change=self._check_budget)
        )
        self.ended = self.settled = False
        self.before_end: Callable[[], Awaitable[None]] | None = None
        """Called before the terminal event is queued."""
        self.active_at = time.monotonic()

    @property
    def max_event_bytes(self) -> int:
        """The largest size of an encoded event; 0: no limit."""
        return self._publisher.limits.max_event_bytes

    async def __aenter__(self) -> AgentEmitter:
        if self._closed:
            raise EmitterClosed(f"the emitter of execution {self.execution_id} is closed")
        if self._owns_publisher:
            await self._publisher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self._end_block(error)
            await self.close()
        except RuncastError:
            if error is None:  # otherwise the agent's own exception is raised
                raise

    async def _end_block(self, error: BaseException | None) -> None:
        """End an execution that this emitter has started, if the block is left without a terminal event."""
        if self._closed or self._end is not None or not (self._has_started and self._end_on_error):
            return
        event = end_after(error, None if self._hold is None else self._hold.cancel)
        if event is not None:
            fields = {Field.STACK: stack_of(error)} if isinstance(event, ExecutionError) else {}
            with contextlib.suppress(RuncastError, TimeoutError):  # `close` raises for lost events
                async with asyncio.timeout(self._publisher.options.close_timeout):
                    await self._terminal(event, fields)

    async def close(self, timeout: float | None = None) -> None:
        """Flush and close. Raises `EventsLost` with the count that Redis did not confirm within `timeout` seconds, or
        the log's refusal of queued events, unless a call has raised it already. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._hold is not None:
            self._holds.drop(self._hold)
        try:
            self._put_held()
            self._put_lone_halves()
            await self._outbox.close(timeout)
        finally:
            if self._owns_publisher:
                await self._publisher.__aexit__(None, None, None)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was emitted is in the log. Raises `RedisUnavailable` after `timeout` seconds; what is
        queued is still sent when Redis is back."""
        self._put_held()
        await self._outbox.flush(timeout)

    async def emit(self, event: Event, *, agent: str | None = None, parent_id: str | None = None) -> None:
        """Queue an event. `agent` and `parent_id` name a sub-agent and the call in which it works; by default they are
        those of this emitter. Waits only while the queue is full; a terminal event and an answer wait until the log has
        them.

        An event that raises is not queued, with two exceptions: after `RedisUnavailable` it is still sent, and a
        terminal event that raises `HookFailed` has ended the execution as an error.
        """
        if not isinstance(event, Event):
            raise InvalidEvent(f"{type(event).__name__} is not an event")
        if event.type in TERMINAL_STATE_OF:
            await self._terminal(event, {})
            return
        self._check()
        speaker = self._speakers.of(agent, parent_id) if agent or parent_id else self._speakers.own
        if event.type in SIMPLE and not (self._hooks or self._chunks_dropped or self._outbox.is_full):
            self._put_at_once(event, speaker.encode(event, now_ms()))
            if not self._calls % 64:
                await asyncio.sleep(0)
            return
        if self._halves.waiting:
            for half, its_speaker in self._lone_halves(event):
                await self._emit(half, its_speaker)
        if (joined := self._joined(event, speaker)) is not None:
            await self._emit(joined, speaker)

    def _put_at_once(self, event: Event, prepared: Prepared) -> None:
        """What `_emit` comes to for most events: nothing of them can wait, be cut, or change what follows."""
        if self._hold is None and not self._is_claimed:
            self._begin_hold()
        self._held.before(event)
        self._put(prepared)
        self._calls += 1
        self.active_at = time.monotonic()

    async def _emit(self, event: Event, speaker: Speaker) -> None:
        if not self._is_claimed:
            self._has_started = self._has_started or isinstance(event, ExecutionStarted)
            event = self._with_limits(event)
            self._begin_hold()
        if self._hooks:
            if (passed := apply_hooks(self._hooks, event, self._origin)) is None:
                self.active_at = time.monotonic()  # its events are dropped, but the agent is not idle
                return
            event = passed
        await self._queue(event, speaker)
        if isinstance(event, InputReceived):
            await self.flush()

    def _check(self) -> None:
        if self._end is not None:
            raise ExecutionEnded(self.execution_id, self._end)
        if self._closed:
            raise EmitterClosed(f"the emitter of execution {self.execution_id} is closed")
        self._outbox.check()

    async def _queue(self, event: Event, speaker: Speaker) -> None:
        # Encoded first: an event that cannot be stored must not wait for room. No await stands between room and put.
        measured = self._chunks(event, speaker) if isinstance(event, TEXT) else self._whole(event, speaker)
        queue = self._outbox.queue
        for part, prepared, size in measured:
            self.active_at = time.monotonic()
            if self._outbox.is_full and not await self._make_room(part):
                return
            if self._chunks_dropped and queue.roomy:  # otherwise the notices would fill the queue
                self._put_dropped()
            if not isinstance(part, TEXT):
                self._held.before(part)
            if prepared is not None:
                queue.put(prepared)
            else:
                queue.put_delta(cast(MessageDelta, part), size, now_ms(), self._delta_bytes, speaker.encode)
            self._outbox.notify(urgent=prepared is not None)
            self._calls += 1
            if not self._calls % 64:
                await asyncio.sleep(0)  # batches must be sent even if the agent awaits nothing else

    def _whole(self, event: Event, speaker: Speaker) -> Measured:
        if isinstance(event, MessageComplete) and has_text(event) and not self._strict:
            return self._message(event, speaker)
        prepared = speaker.encode(event, now_ms())
        if isinstance(event, Artifact) and (redacted := self._held.follow(event)) is not event:
            prepared = speaker.encode(redacted, now_ms())
        return ((event, prepared, 0),)

    def _message(self, event: MessageComplete, speaker: Speaker) -> Measured:
        """The end of a message. A text too long for one event is split into chunks, unless its chunks were emitted."""
        event = cast(MessageComplete, valid(event, self.max_event_bytes))
        with contextlib.suppress(PayloadTooLarge):
            return ((event, speaker.encode_strictly(event, now_ms()), 0),)
        bare = msgspec.structs.replace(event, text=None)
        delta = MessageDelta(message_id=event.message_id, delta=event.text or "")
        chunks = [] if self._held.knows(delta) else self._chunks(delta, speaker)
        return [*chunks, (bare, speaker.encode(bare, now_ms()), 0)]

    def _chunks(self, event: MessageDelta | ThinkingDelta, speaker: Speaker) -> Measured:
        """What may be stored of a text so far: usually the chunk itself."""
        try:
            measured = self._measure(event, speaker)
        except PayloadTooLarge:
            if self._strict:
                raise
            if len(event.delta) > self._text_chunk:
                return [each for part in cut_chunk(event, self._text_chunk) for each in self._chunks(part, speaker)]
            measured = speaker.encode(event, now_ms()), 0  # the id is too long
        chunk = self._held.pass_on(event, speaker)
        if chunk is event:
            return ((event, *measured),)
        self.active_at = time.monotonic()
        if chunk is None:
            return ()
        return [(part, *self._measure(part, speaker)) for part in cut_chunk(chunk, self._text_chunk)]

    def _put_chunk(self, event: MessageDelta | ThinkingDelta, speaker: Speaker) -> None:
        """Queue the end of a text that was held, even if the queue is full."""
        if self._outbox.error is None:
            for part in cut_chunk(event, self._text_chunk):
                size = self._measure(part, speaker)[1]
                self._outbox.queue.put_delta(part, size, now_ms(), self._delta_bytes, speaker.encode)
            self._outbox.notify(urgent=False)

    def _put_held(self) -> None:
        self._held.release()
        self._put_dropped()

    def _measure(self, event: MessageDelta | ThinkingDelta, speaker: Speaker) -> tuple[Prepared | None, int]:
        """The encoded size of a chunk; for a chunk too large to merge also its stored form."""
        size = chunk_bytes(event)
        return (speaker.encode_strictly(event, now_ms()) if size > self._delta_bytes else None), size

    async def _make_room(self, event: Event) -> bool:
        """Wait for room, or (`drop_deltas`) drop chunks; false if `event` itself is a dropped chunk."""
        outbox = self._outbox
        if self._publisher.options.overflow == "drop_deltas":
            self._chunks_dropped += outbox.drop_deltas()
            if outbox.queue.full and event.type in DELTAS:
                self._chunks_dropped += 1
                return False
        if outbox.is_full:
            with self.waits.one():
                await outbox.room()
            self._check()
        return True

    def _put_dropped(self) -> None:
        dropped, self._chunks_dropped = self._chunks_dropped, 0
        if dropped and self._outbox.error is None:
            notice = Status(status="dropped", message=f"{dropped} chunks of text were dropped: Redis is away")
            self._put(self._encode(notice, now_ms()))

    def _put(self, prepared: Prepared) -> None:
        self._outbox.queue.put(prepared)
        self._outbox.notify(urgent=True)

    async def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        self._check()
        event = self._joined(event) or event
        if self.before_end is not None:
            await self.before_end()
        prepared, failure = prepare_end(self._hooks, event, self._origin, lambda end: self._encode(end, now_ms()))
        if failure is None:
            prepared = prepared._replace(fields=self._speakers.record_fields(fields))
        self._put_open_texts()
        self._put(prepared)  # even if the queue is full: it is the last event
        self._end = TERMINAL_STATE_OF[prepared.type]
        await self._outbox.flush()
        self.ended = True
        self.settled = await self._publisher.holds.settle(self.owner, self.execution_id)
        if failure is not None:
            raise failure

    def _put_open_texts(self) -> None:
        self._put_held()
        self._put_lone_halves()
        self._put_completed_text()

    def _put_lone_halves(self) -> None:
        for half, speaker in self._halves.release():
            with contextlib.suppress(InvalidEvent):  # from a hook
                if (passed := apply_hooks(self._hooks, half, self._origin)) is not None and isinstance(passed, TEXT):
                    self._put_chunk(passed, speaker)

    def _put_completed_text(self) -> None:
        if (complete := self._completed_text()) is None:
            return
        with contextlib.suppress(InvalidEvent, PayloadTooLarge):  # a hook's fault here must not prevent the end
            if (passed := apply_hooks(self._hooks, complete, self._origin)) is not None:
                self._put(self._encode(passed, now_ms()))

    # --- for the worker runtime ---

    def count_with(self, meter: Meter) -> None:
        """Set what counts tokens, cost and calls."""
        self.meter = self._outbox.queue.meter = meter

    def stops_when(self, must_stop: Callable[[], bool]) -> None:
        """Set what decides `cancelled`."""
        self._must_stop = must_stop

    def _new_inbox(self) -> Inbox:
        return Inbox(RedisSource(self._publisher, self._outbox, is_claimed=self._is_claimed), lambda: self.cancelled)

    def notice(self, event: Event) -> None:
        """Queue an event of the runtime, even if the queue is full. Raises as `emit` does."""
        self._check()
        self._put(self._encode(event, now_ms()))

    def disown(self, error: AppendRefused) -> None:
        """Drop queued events and accept no more: every call raises `error`."""
        self._outbox.fail(error)

    # --- asking a person ---

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
        """Ask a person and wait for the answer's value. The first answer counts.

        A retry that requests the same input (prompt, kind, options, schema, and how often these were requested) gets
        the earlier answer, or the same `InputExpired`.

        Args:
            kind: `approval` (true or false), `choice` (one of `options`), `text` (any JSON if `schema` is `{}`), or
                `form` (an object that fits `schema`).
            expires_in: seconds; by default the wait ends with the execution. A cancelled wait, for example by the
                caller's own timeout, leaves the input open.
            input_id: by default derived from the request; your own id must stand for one input only.

        Raises:
            TooManyInputs: too many inputs of the execution are open; this one was not opened.
            InputExpired, Declined: nobody answered in time; the person will not answer (an approval is then false).
        """
        request = self._inputs.make(
            prompt, kind, options=options, schema=schema, expires_in=expires_in, input_id=input_id
        )
        self._check()
        self._encode(request, now_ms())  # an input that cannot be stored raises before any wait for Redis
        async with self.waits.apart("person") as begin:
            return await InputWait(request, self._publisher, self._outbox, self, begin).answer(expires_in)
