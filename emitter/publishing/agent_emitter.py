"""`AgentEmitter`: what an agent calls to say what it is doing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, NamedTuple, cast

import msgspec

from emitter.errors import (
    AppendRefused,
    EmitterClosed,
    ExecutionEnded,
    InvalidEvent,
    PayloadTooLarge,
    RuncastError,
    describe,
    encodable,
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
from emitter.publishing.event_methods import EventMethods, named
from emitter.publishing.halves import Halves
from emitter.publishing.held import HeldText
from emitter.publishing.hooks import Hook, Named, Origin, apply_hooks, name_hooks, prepare_end
from emitter.publishing.input_wait import InputRequest
from emitter.publishing.outbox import Options
from emitter.publishing.publisher import Publisher
from emitter.publishing.queue import MERGED_DELTA_BYTES, Encode, escaped_bytes
from emitter.store.append import Mode, prepare_shown, prepare_with
from emitter.store.endings import last_word, stack_of
from emitter.store.holds import Hold
from emitter.tracing.trace import read_trace
from emitter.wire import envelope, ids
from emitter.wire.ids import new_execution_id, now_ms
from emitter.wire.inputs import InputKind, Questions
from emitter.wire.limits import MAX_EVENT_BYTES
from emitter.wire.mending import valid, words
from emitter.wire.prepared import Prepared
from emitter.wire.record import Field
from emitter.wire.subjects import owner_named

TEXT_CHUNK = 4 * 1024
"""Characters in a chunk of `text`; in JSON one is up to `ESCAPED_MAX` bytes."""
ESCAPED_MAX = 12
STACK_CHARS = 16 * 1024
SPEAKERS_MAX = 256
"""Sub-agents whose envelope keys are remembered."""

Nothing = Coroutine[Any, Any, None]
TEXT = (MessageDelta, ThinkingDelta)
Measured = Sequence[tuple[Event, Prepared | None, int]]
"""Events with what is stored of them, or, of chunks that may merge, their encoded sizes."""


class Voice(NamedTuple):
    """How the events of one speaker are stored: mended where that is allowed, or as they are."""

    encode: Encode
    strictly: Encode


class PhaseScope:
    """`async with emitter.phase(…)`: phase:start, and phase:complete with the duration when the block ends well."""

    def __init__(self, emitter: AsyncEventMethods, phase_id: str, name: str, index: int | None) -> None:
        self._emitter = emitter
        self._id = phase_id
        self._name = name
        self._index = index

    async def __aenter__(self) -> PhaseScope:
        self._started = time.monotonic()
        await self._emitter.phase_start(self._id, self._name, phase_index=self._index)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if error is None:
            duration = round(time.monotonic() - self._started, 3)
            await self._emitter.phase_complete(self._id, self._name, duration=duration)


class ToolScope:
    """`async with emitter.tool(…) as call:`: tool:start, then tool:complete with `call.result`, or tool:error."""

    def __init__(self, emitter: AsyncEventMethods, name: str, params: Any, call_id: str) -> None:
        self._emitter = emitter
        self.name = name
        self.params = params
        self.call_id = call_id
        self.result: Any = None

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        await self._emitter.tool_progress(self.call_id, progress=progress, message=message)

    async def __aenter__(self) -> ToolScope:
        self._started = time.monotonic()
        await self._emitter.tool_start(self.call_id, self.name, self.params)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        duration = time.monotonic() - self._started
        if error is None:
            await self._complete(duration)
        elif not isinstance(error, RuncastError):  # what the log refused is not the tool's failure
            with contextlib.suppress(RuncastError):  # the tool's own error is what comes out
                await self._emitter.tool_error(self.call_id, self.name, describe(error), duration)

    async def _complete(self, duration: float) -> None:
        try:
            await self._emitter.tool_complete(self.call_id, self.name, self.result, duration)
        except (InvalidEvent, PayloadTooLarge) as error:  # a call that began must not stay open for ever
            await self._emitter.tool_error(self.call_id, self.name, describe(error), duration)
            raise


class AsyncEventMethods(EventMethods[Nothing]):
    """The catalogue's methods and context managers over an `async def emit`."""

    _message_id: str | None = None
    _text_chunk = TEXT_CHUNK
    _hooks: Sequence[Named] = ()

    def __init__(self, attempt: int = 0, *, strict: bool = False) -> None:
        self.attempt = attempt
        self._strict = strict
        self._halves = Halves()
        self._numbers = {name: itertools.count(1) for name in ("message", "call")}
        self._questions = Questions()

    async def _emit_each(self, *said: Event) -> None:
        for event in said:
            await self.emit(event)

    def new_id(self, kind: Literal["message", "call"]) -> str:
        """An id unique in this execution: the attempt keeps a retry's calls and messages apart."""
        return f"{kind[0]}{max(1, self.attempt)}_{next(self._numbers[kind])}"

    def phase(self, phase_id: str, name: str | None = None, *, index: int | None = None) -> PhaseScope:
        return PhaseScope(self, phase_id, named(phase_id, name), index)

    def tool(self, name: str, params: Any = None, *, call_id: str | None = None) -> ToolScope:
        return ToolScope(self, name, params, call_id or self.new_id("call"))

    async def text(self, chunk: str) -> None:
        """Stream text to the reader: message:delta of the current message, which `end_text` completes."""
        if self._strict:
            _check_text(chunk)
        elif not isinstance(chunk, str):
            chunk = words(chunk)
        if not chunk:
            return
        if self._message_id is None:
            self._message_id = self.new_id("message")
        message_id = self._message_id
        for start in range(0, len(chunk), self._text_chunk):
            await self.emit(MessageDelta(message_id=message_id, delta=chunk[start : start + self._text_chunk]))

    async def end_text(self) -> None:
        """Complete the current message, if there is one; the next `text` begins another."""
        if (complete := self._completed_text()) is not None:
            await self.emit(complete)

    @property
    def max_event_bytes(self) -> int:
        """The largest size of an encoded event; 0: no limit."""
        return MAX_EVENT_BYTES

    def _sayable(self, event: Event, voice: Any = None) -> Event | None:
        """An event as hooks and the log may have it, whatever its length; None: there is nothing to say yet."""
        if self._strict:
            return event
        if isinstance(event, TEXT):
            return self._halves.join(event, voice)
        return valid(event, self.max_event_bytes) if self._hooks else event

    def _lone_halves(self, event: Event) -> list[tuple[MessageDelta | ThinkingDelta, Any]]:
        """What must be said before the end of a text."""
        return self._halves.release(words(event.message_id)) if isinstance(event, MessageComplete) else []

    def _completed_text(self) -> MessageComplete | None:
        message_id, self._message_id = self._message_id, None
        return None if message_id is None else MessageComplete(message_id=message_id)


def _has_text(event: MessageComplete) -> bool:
    return bool(event.text) if isinstance(event.text, str) else event.text is not None


def _check_text(chunk: str) -> None:
    """Refuse what is no text before it begins a message."""
    if not isinstance(chunk, str):
        raise InvalidEvent(f"text: a chunk is text, not {type(chunk).__name__}")
    try:
        chunk.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"text: {error}") from error


def cut_chunk(event: MessageDelta | ThinkingDelta, size: int) -> Iterator[MessageDelta | ThinkingDelta]:
    """A chunk of text as several of at most `size` characters."""
    for start in range(0, len(event.delta), size):
        yield msgspec.structs.replace(event, delta=event.delta[start : start + size])


class AgentEmitter(AsyncEventMethods):
    """Publishes the events of one execution. Use it with `async with`, or close it.

    `await emitter.thinking("…")` returns as soon as the event is queued; the queue travels in batches, in order, and
    each event lands in the log exactly once. Terminal events and `flush` return when the log has everything. What the
    log refuses (`ExecutionEnded`, `Superseded`) raises at the next call.

    Args:
        user_id, org: whose execution it is: the `sub` of that user's tokens.
        execution_id: 1 to 64 of A-Z a-z 0-9 _ -; made up when absent.
        redis_url, or publisher: its own connection, or one shared by all emitters of the process.
        attempt: the attempt this worker runs; appends of an older one are refused. 0: not fenced.
        claimed: whether a worker has claimed the attempt: then the log takes it only while the record says so.
        agent, request_id, parent_id: envelope keys of every event.
        traceparent: where all of it stands in a trace (W3C Trace Context), an envelope key too; ignored if not valid.
        hooks: what every event passes here (`emitter.publishing.hooks`), before the publisher's.
        strict: raise `InvalidEvent` and `PayloadTooLarge` for events that would be mended (`emitter.wire.mending`).
        end_on_error: whether leaving the block of an execution that this emitter has started, without its end, ends it:
            by an exception as `execution:error`, by an interruption or after a cancel as `execution:cancelled`. False
            for code that will try again. A worker ends what it runs itself.
    """

    def __init__(
        self,
        user_id: str,
        execution_id: str | None = None,
        *,
        org: str = "default",
        redis_url: str | None = None,
        publisher: Publisher | None = None,
        options: Options = Options(),  # noqa: B008 - frozen
        attempt: int = 0,
        claimed: bool = False,
        agent: str | None = None,
        request_id: str | None = None,
        parent_id: str | None = None,
        traceparent: str | None = None,
        hooks: Sequence[Hook] = (),
        strict: bool = False,
        end_on_error: bool = True,
    ) -> None:
        super().__init__(attempt, strict=strict)
        if not isinstance(attempt, int) or attempt < 0:
            raise InvalidEvent(f"attempt: {attempt!r} is not a number from 0")
        self.owner = owner_named(user_id, org)
        self.execution_id = new_execution_id() if execution_id is None else ids.check_execution_id(execution_id)
        trace = None if traceparent is None else read_trace([traceparent])
        self._speaker = (request_id, agent, parent_id, None if trace is None else trace.parent)
        self._keys = envelope.envelope_keys(*self._speaker)
        self._voice = Voice(self._prepare, self._prepare_strictly)
        self._voices: dict[tuple[str | None, str | None], Voice] = {}
        self._owns_publisher = publisher is None
        self._publisher = publisher or Publisher(redis_url=redis_url, options=options)
        self._hooks = (*name_hooks(hooks), *self._publisher.hooks)
        self._origin = Origin(
            user=user_id, org=org, execution_id=self.execution_id, agent=agent, request_id=request_id, attempt=attempt
        )
        mode: Mode = "claimed" if claimed else "any"
        self._lane = self._publisher.lane(self.owner, self.execution_id, attempt, self._prepare, mode, trace)
        self._text_chunk, self._delta_bytes = self._text_limits()
        self._held = HeldText(self._put_chunk)
        self._chunks_dropped = 0
        self._calls = 0
        self._end: str | None = None
        self._is_claimed = claimed
        self._hold: Hold | None = None
        self._must_stop: Callable[[], bool] | None = None
        self._has_started = False
        self._end_on_error = end_on_error
        self._closed = False
        self._waits = 0
        self.ended = False
        self.active_at = time.monotonic()

    @property
    def max_event_bytes(self) -> int:
        """The largest size of an encoded event; 0: no limit."""
        return self._publisher.limits.max_event_bytes

    def _text_limits(self) -> tuple[int, int]:
        """Characters of a chunk of text, and bytes to which encoded chunks merge, that always fit an event."""
        max_bytes = self.max_event_bytes
        if not max_bytes:
            return TEXT_CHUNK, MERGED_DELTA_BYTES
        room = envelope.room(ThinkingDelta.type, self.execution_id, ts=now_ms(), keys=self._keys, max_bytes=max_bytes)
        room -= 100  # the data's own keys and a usual message id
        # Redaction may make a text longer, at most twice as long (`://a:b@`).
        return max(1, min(TEXT_CHUNK, room // ESCAPED_MAX)), min(MERGED_DELTA_BYTES, room // 2)

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
            await self._say_last_word(error)
            await self.close()
        except RuncastError:
            if error is None:  # never hide the agent's own exception behind ours
                raise

    async def _say_last_word(self, error: BaseException | None) -> None:
        """End what this emitter has started, if the block is left without its end."""
        if self._closed or self._end is not None or not (self._has_started and self._end_on_error):
            return
        event = last_word(error, None if self._hold is None else self._hold.cancel)
        if event is not None:
            fields = {Field.STACK: stack_of(error)} if isinstance(event, ExecutionError) else {}
            with contextlib.suppress(RuncastError, TimeoutError):  # `close` says what was lost
                async with asyncio.timeout(self._publisher.options.close_timeout):
                    await self._terminal(event, fields)

    @property
    def cancelled(self) -> bool:
        """Whether the execution is to stop. An agent that no worker runs has 10 s from then on to say its last word,
        such as `execution_cancelled`; leaving the block says it."""
        if self._must_stop is not None:
            return self._must_stop()
        return self._hold is not None and self._hold.cancel is not None

    async def until_cancelled(self) -> None:
        """Wait until somebody cancels the execution. Not for agents of a worker, which interrupts them."""
        self._begin_hold()
        assert self._hold is not None
        await self._hold.cancelled.wait()

    def _begin_hold(self) -> None:
        if self._hold is None:
            self._hold = self._publisher.holds.add(self.owner, self.execution_id)

    async def close(self, timeout: float | None = None) -> None:
        """Flush and let go. Raises `EventsLost` with the count that Redis did not confirm within `timeout` seconds, or
        why the log refused what was queued (unless a call has raised that already). Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._hold is not None:
            self._publisher.holds.drop(self._hold)
        try:
            self._say_rest()
            self._put_lone_halves()
            await self._lane.close(timeout)
        finally:
            if self._owns_publisher:
                await self._publisher.__aexit__(None, None, None)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything emitted by now is in the log. Raises `RedisUnavailable` after `timeout` seconds; what
        waits is still sent when Redis is back."""
        self._say_rest()
        await self._lane.flush(timeout)

    async def emit(self, event: Event, *, agent: str | None = None, parent_id: str | None = None) -> None:
        """Queue an event. `agent` and `parent_id` say whose it is, where it is not this emitter's: a sub-agent, and the
        call in which it works. Awaits only while the queue is full; a terminal event and an answer await their place in
        the log. What raises is not queued, except by a wait for the log that took too long (`RedisUnavailable`), and
        that a terminal event which raises `HookFailed` has ended the execution, as an error."""
        if not isinstance(event, Event):
            raise InvalidEvent(f"{type(event).__name__} is not an event")
        if event.type in TERMINAL_STATE_OF:
            await self._terminal(event, {})
            return
        self._check()
        voice = self._voice_of(agent, parent_id)
        if self._halves.waiting:
            for half, its_voice in self._lone_halves(event):
                await self._say(half, its_voice)
        if (sayable := self._sayable(event, voice)) is not None:
            await self._say(sayable, voice)

    async def _say(self, event: Event, voice: Voice) -> None:
        if not self._is_claimed:
            self._has_started = self._has_started or isinstance(event, ExecutionStarted)
            self._begin_hold()
        if self._hooks:
            if (passed := apply_hooks(self._hooks, event, self._origin)) is None:
                self.active_at = time.monotonic()  # what the agent says is dropped, but it is not silent
                return
            event = passed
        await self._queue(event, voice)
        if isinstance(event, InputReceived):
            await self.flush()

    def _check(self) -> None:
        if self._end is not None:
            raise ExecutionEnded(self.execution_id, self._end)
        if self._closed:
            raise EmitterClosed(f"the emitter of execution {self.execution_id} is closed")
        self._lane.check()

    def _voice_of(self, agent: str | None, parent_id: str | None) -> Voice:
        """With the envelope keys of whose event it is."""
        if agent is None and parent_id is None:
            return self._voice
        if (known := self._voices.get((agent, parent_id))) is not None:
            return known
        request, own_agent, own_parent, trace = self._speaker
        keys = envelope.envelope_keys(request, agent or own_agent, parent_id or own_parent, trace)
        if len(self._voices) >= SPEAKERS_MAX:
            self._voices.clear()
        voice = Voice(partial(self._prepare, keys=keys), partial(self._prepare_strictly, keys=keys))
        self._voices[agent, parent_id] = voice
        return voice

    async def _queue(self, event: Event, voice: Voice) -> None:
        # Encoded first: an event that cannot be stored must not wait, and after the wait nothing may come between.
        said = self._chunks(event, voice) if isinstance(event, TEXT) else self._whole(event, voice)
        for part, prepared, size in said:
            self.active_at = time.monotonic()
            lane = self._lane
            if (lane.crowded or lane.queue.full) and not await self._make_room(part):
                return
            if self._chunks_dropped and lane.queue.roomy:  # or the notices would fill what was made room
                self._say_dropped()
            if not isinstance(part, TEXT):
                self._held.before(part)
            if prepared is not None:
                lane.queue.put(prepared)
            else:
                lane.queue.put_delta(cast(MessageDelta, part), size, now_ms(), self._delta_bytes, voice.encode)
            lane.changed(urgent=prepared is not None)
            self._calls += 1
            if not self._calls % 64:
                await asyncio.sleep(0)  # an agent that never awaits anything else must still let the batches leave

    def _whole(self, event: Event, voice: Voice) -> Measured:
        if isinstance(event, MessageComplete) and _has_text(event) and not self._strict:
            return self._message(event, voice)
        prepared = voice.encode(event, now_ms())
        if isinstance(event, Artifact) and (said := self._held.follow(event)) is not event:
            prepared = voice.encode(said, now_ms())
        return ((event, prepared, 0),)

    def _message(self, event: MessageComplete, voice: Voice) -> Measured:
        """The end of a message. A text that is too long for one event is said in chunks, if it was not before."""
        event = cast(MessageComplete, valid(event, self.max_event_bytes))
        with contextlib.suppress(PayloadTooLarge):
            return ((event, voice.strictly(event, now_ms()), 0),)
        bare = msgspec.structs.replace(event, text=None)
        delta = MessageDelta(message_id=event.message_id, delta=event.text or "")
        said = [] if self._held.knows(delta) else self._chunks(delta, voice)
        return [*said, (bare, voice.encode(bare, now_ms()), 0)]

    def _chunks(self, event: MessageDelta | ThinkingDelta, voice: Voice) -> Measured:
        """What may be said of a text by now: the chunk itself, mostly."""
        try:
            measured = self._measure(event, voice)
        except PayloadTooLarge:
            if self._strict:
                raise
            if len(event.delta) > self._text_chunk:
                return [each for part in cut_chunk(event, self._text_chunk) for each in self._chunks(part, voice)]
            measured = voice.encode(event, now_ms()), 0  # an id as long as that
        chunk = self._held.pass_on(event, voice)
        if chunk is event:
            return ((event, *measured),)
        self.active_at = time.monotonic()
        if chunk is None:
            return ()
        return [(part, *self._measure(part, voice)) for part in cut_chunk(chunk, self._text_chunk)]

    def _put_chunk(self, event: MessageDelta | ThinkingDelta, voice: Voice) -> None:
        """Queue the end of a text that was held back, whether or not there is room."""
        if self._lane.error is None:
            for part in cut_chunk(event, self._text_chunk):
                size = self._measure(part, voice)[1]
                self._lane.queue.put_delta(part, size, now_ms(), self._delta_bytes, voice.encode)
            self._lane.changed(urgent=False)

    def _say_rest(self) -> None:
        self._held.release()
        self._say_dropped()

    def _measure(self, event: MessageDelta | ThinkingDelta, voice: Voice) -> tuple[Prepared | None, int]:
        """The encoded size of a chunk; or, of one that is too large to merge, what is stored of it."""
        if not isinstance(event.delta, str) or not isinstance(event.message_id, str):
            raise InvalidEvent(f"{event.type}: messageId and delta must be text")
        try:
            size = escaped_bytes(event.delta) + escaped_bytes(event.message_id)
        except UnicodeEncodeError as error:
            raise InvalidEvent(f"{event.type}: {error}") from error
        return (voice.strictly(event, now_ms()) if size > self._delta_bytes else None), size

    async def _make_room(self, event: Event) -> bool:
        """Wait for room, or (`drop_deltas`) give up chunks; false if `event` itself is a chunk given up."""
        lane = self._lane
        if self._publisher.options.overflow == "drop_deltas":
            self._chunks_dropped += lane.drop_deltas()
            if lane.queue.full and event.type in DELTAS:
                self._chunks_dropped += 1
                return False
        if lane.crowded or lane.queue.full:
            with self._waiting():
                await lane.room()
            self._check()
        return True

    def _say_dropped(self) -> None:
        dropped, self._chunks_dropped = self._chunks_dropped, 0
        if dropped and self._lane.error is None:
            notice = Status(status="dropped", message=f"{dropped} chunks of text were dropped: Redis is away")
            self._put(self._prepare(notice, now_ms()))

    def _put(self, prepared: Prepared) -> None:
        self._lane.queue.put(prepared)
        self._lane.changed(urgent=True)

    async def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        self._check()
        event = self._sayable(event) or event
        prepared, failure = prepare_end(self._hooks, event, self._origin, lambda end: self._prepare(end, now_ms()))
        if failure is None:
            prepared = prepared._replace(fields=self._record_fields(fields))
        self._say_rest()
        self._put_lone_halves()
        self._put_completed_text()
        self._put(prepared)  # whether or not there is room: it is the last one
        self._end = TERMINAL_STATE_OF[prepared.type]
        await self._lane.flush()
        self.ended = True
        if failure is not None:
            raise failure

    def _put_lone_halves(self) -> None:
        for half, voice in self._halves.release():
            with contextlib.suppress(InvalidEvent):  # of a hook
                if (passed := apply_hooks(self._hooks, half, self._origin)) is not None and isinstance(passed, TEXT):
                    self._put_chunk(passed, voice)

    def _put_completed_text(self) -> None:
        if (complete := self._completed_text()) is None:
            return
        with contextlib.suppress(InvalidEvent, PayloadTooLarge):  # what a hook does to it must not keep the end away
            if (passed := apply_hooks(self._hooks, complete, self._origin)) is not None:
                self._put(self._prepare(passed, now_ms()))

    def _record_fields(self, fields: Mapping[str, str]) -> dict[str, str]:
        return {name: self._record_text(text) for name, text in fields.items()}

    def _record_text(self, text: str) -> str:
        """As the record keeps it: no credentials, not too long, and free of what has no UTF-8 form."""
        shown = self._publisher.redact.text(text if isinstance(text, str) else words(text))
        return encodable(shown[:STACK_CHARS])

    def _prepare(self, event: Event, ts: int, keys: bytes | None = None) -> Prepared:
        if self._strict:
            return self._prepare_strictly(event, ts, keys)
        return self._prepare_with(prepare_shown, event, ts, keys)

    def _prepare_strictly(self, event: Event, ts: int, keys: bytes | None = None) -> Prepared:
        return self._prepare_with(prepare_with, event, ts, keys)

    def _prepare_with(self, prepare: Callable[..., Prepared], event: Event, ts: int, keys: bytes | None) -> Prepared:
        publisher = self._publisher
        keys = self._keys if keys is None else keys
        begins = isinstance(event, ExecutionStarted) and not self._is_claimed
        fields = publisher.holds.fields if begins else {}
        return prepare(
            event, self.execution_id, publisher.redact, keys, ts, publisher.limits.max_event_bytes, fields=fields
        )

    # --- for the worker runtime ---

    def stops_when(self, must_stop: Callable[[], bool]) -> None:
        """What `cancelled` says."""
        self._must_stop = must_stop

    @property
    def waiting(self) -> bool:
        """Whether a call waits for a person, or for room in the queue while Redis is away. `active_at` is when the
        agent last emitted or such a wait ended, by `time.monotonic`."""
        return self._waits > 0

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            self.active_at = time.monotonic()

    def notice(self, event: Event) -> None:
        """Queue an event that is not the agent's own doing, whether or not there is room. Raises as `emit` does."""
        self._check()
        self._put(self._prepare(event, now_ms()))

    def disown(self, error: AppendRefused) -> None:
        """Drop what waits and take nothing more: every call raises `error`."""
        self._lane.refuse(error)

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
        """Ask a person and wait for the answer's value: true or false (approval), one of the options (choice), a text
        (any JSON, if its schema is `{}`), or an object that fits the schema (form). Without `expires_in` (seconds) the
        wait ends with the execution; a wait that is cancelled, by a timeout of one's own say, leaves the question open.

        Raises `TooManyInputs` if too many of the execution's questions wait already; nothing is asked then. Raises
        `InputExpired`; the question is closed in the log then, for it to be asked no more. The first answer
        wins. A retry that asks the same (prompt, kind, options, schema; as often) gets the answer that was given
        before, or the same `InputExpired`. An `input_id` of one's own promises that it stands for one question.
        """
        question = self._questions.make(
            prompt, kind, options=options, schema=schema, expires_in=expires_in, input_id=input_id
        )
        self._check()
        self._prepare(question, now_ms())  # a question that cannot be asked must not wait for Redis
        with self._waiting():
            return await InputRequest(question, self._publisher, self._lane, self).answer(expires_in)
