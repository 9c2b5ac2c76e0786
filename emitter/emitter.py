"""`AgentEmitter`: what an agent calls to say what it is doing."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

import msgspec
from redis.exceptions import RedisError

from emitter.batch import Prepared
from emitter.catalogue import EventMethods
from emitter.connection import GONE
from emitter.errors import EventsLost, InputExpired, InvalidEvent, RuncastError
from emitter.events import DELTAS, TERMINAL_STATES, Event, InputRequired, MessageDelta, Status, ThinkingDelta
from emitter.publisher import Options, Publisher, prepare
from emitter.tasks import told_to_stop
from emitter.wire import Owner, new_execution_id, now_ms

TEXT_CHUNK = 8 * 1024
STACK_CHARS = 16 * 1024
ANSWER_RECHECK_SECONDS = 2.0

Nothing = Coroutine[Any, Any, None]
InputKind = Literal["approval", "choice", "text", "form"]


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
            await self._emitter.tool_complete(self.call_id, self.name, self.result, duration)
        elif not isinstance(error, RuncastError):  # what the log refused is not the tool's failure
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            await self._emitter.tool_error(self.call_id, self.name, text, duration)


class AsyncEventMethods(EventMethods[Nothing]):
    """The catalogue's methods and context managers over an `async def emit`."""

    _message_id: str | None = None

    def __init__(self, attempt: int = 0) -> None:
        self.attempt = attempt
        self._numbers = {name: itertools.count(1) for name in ("message", "call", "input")}

    def new_id(self, kind: Literal["message", "call", "input"]) -> str:
        """An id unique in this execution: the attempt keeps a retry's calls and messages apart. Inputs carry no
        attempt, so that a retried agent that asks the same finds the answer that was given."""
        number = next(self._numbers[kind])
        return f"in_{number}" if kind == "input" else f"{kind[0]}{max(1, self.attempt)}_{number}"

    def phase(self, phase_id: str, name: str | None = None, *, index: int | None = None) -> PhaseScope:
        return PhaseScope(self, phase_id, name or phase_id, index)

    def tool(self, name: str, params: Any = None, *, call_id: str | None = None) -> ToolScope:
        return ToolScope(self, name, params, call_id or self.new_id("call"))

    async def text(self, chunk: str) -> None:
        """Stream text to the reader: message:delta of the current message, which `end_text` completes."""
        if self._message_id is None:
            self._message_id = self.new_id("message")
        for start in range(0, len(chunk), TEXT_CHUNK):
            await self.emit(MessageDelta(message_id=self._message_id, delta=chunk[start : start + TEXT_CHUNK]))

    async def end_text(self) -> None:
        """Complete the current message, if there is one; the next `text` begins another."""
        message_id, self._message_id = self._message_id, None
        if message_id is not None:
            await self.message_complete(message_id)


class AgentEmitter(AsyncEventMethods):
    """Publishes the events of one execution. Use it with `async with`, or close it.

    `await emitter.thinking("…")` returns as soon as the event is queued; the queue travels in batches, in order, and
    each event lands in the log exactly once. Terminal events and `flush` return when the log has everything. What the
    log refuses (`ExecutionEnded`, `Superseded`) raises at the next call.

    Args:
        user_id, org: whose execution it is.
        execution_id: 1 to 64 of A-Z a-z 0-9 _ -; made up when absent.
        redis_url, or publisher: its own connection, or one shared by all emitters of the process.
        attempt: the attempt this worker runs; appends of an older one are refused. 0: not fenced.
        agent, request_id, parent_id: envelope keys of every event.
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
        agent: str | None = None,
        request_id: str | None = None,
        parent_id: str | None = None,
    ) -> None:
        super().__init__(attempt)
        self.owner = Owner(user_id, org)
        self.execution_id = execution_id or new_execution_id()
        self._owns_publisher = publisher is None
        self._publisher = publisher or Publisher(redis_url=redis_url, options=options)
        self._envelope: dict[str, Any] = {"agent": agent, "request_id": request_id, "parent_id": parent_id}
        self._lane = self._publisher.lane(self.owner, self.execution_id, attempt, self._prepare)
        self._closed = False
        self.ended = False

    async def __aenter__(self) -> AgentEmitter:
        if self._owns_publisher:
            await self._publisher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except (RuncastError, EventsLost):
            if error is None:  # never hide the agent's own exception behind ours
                raise

    async def close(self, timeout: float | None = None) -> None:
        """Flush and let go. Raises `EventsLost` with the count that Redis did not take within `timeout` seconds, or
        why the log refused what was queued. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._lane.close(timeout)
        finally:
            if self._owns_publisher:
                await self._publisher.__aexit__(None, None, None)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything emitted is in the log. Raises `RedisUnavailable` after `timeout` seconds."""
        await self._lane.flush(timeout)

    async def emit(self, event: Event) -> None:
        """Queue an event. Awaits only while the queue is full; a terminal event awaits its place in the log."""
        if event.type in TERMINAL_STATES:
            await self._terminal(event, {})
            return
        lane = self._lane
        if self._closed:
            raise EventsLost(1)
        if lane.error is not None:
            raise lane.error
        if event.type in DELTAS:
            self._put_delta(event)
        else:
            lane.queue.put(self._prepare(event, now_ms()))
            lane.changed(urgent=True)
        if lane.queue.full:
            await self._overflow()
        elif not len(lane.queue) % 256:
            await asyncio.sleep(0)  # an agent that never awaits anything else must still let the batches leave

    def _put_delta(self, event: Event) -> None:
        assert isinstance(event, (MessageDelta, ThinkingDelta))
        if not isinstance(event.delta, str) or not isinstance(event.message_id, str):
            raise InvalidEvent(f"{event.type}: messageId and delta must be text")
        try:
            if len(event.delta) > TEXT_CHUNK:
                self._lane.queue.put(self._prepare(event, now_ms()))  # too large to merge: judged on its own
            else:
                self._lane.queue.put_delta(event, now_ms())
        except UnicodeEncodeError as error:
            raise InvalidEvent(f"{event.type}: {error}") from error
        self._lane.changed(urgent=False)

    async def _overflow(self) -> None:
        lane = self._lane
        if self._publisher.options.overflow == "drop_deltas" and (dropped := lane.queue.drop_deltas()):
            notice = Status(status="dropped", message=f"{dropped} chunks of text were dropped: Redis is away")
            lane.queue.put(self._prepare(notice, now_ms()))
        if lane.queue.full:
            await lane.room()

    async def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        self._lane.check()
        await self.end_text()
        clipped = {name: self._publisher.redact.text(text)[:STACK_CHARS] for name, text in fields.items()}
        prepared = self._prepare(event, now_ms())._replace(fields=clipped)
        self._lane.queue.put(prepared)
        self._lane.changed(urgent=True)
        await self.flush()
        self.ended = True

    def _prepare(self, event: Event, ts: int) -> Prepared:
        publisher = self._publisher
        return prepare(
            event,
            self.execution_id,
            redact=publisher.redact,
            ts=ts,
            max_bytes=publisher.limits.max_event_bytes,
            **self._envelope,
        )

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
        """Ask a person and wait for the answer's value (approval: true or false). `expires_in` in seconds.

        Raises `InputExpired`. The first answer wins; an answer given before a restart is found again.
        """
        name = input_id or self.new_id("input")
        deadline = None if expires_in is None else time.time() + expires_in
        question = InputRequired(
            input_id=name,
            prompt=prompt,
            kind=kind,
            options=None if options is None else list(options),
            schema=schema,
            expires_at=None if deadline is None else int(deadline * 1000),
        )
        if (given := await self._answer(name)) is not None:
            return given["value"]
        await self.emit(question)
        await self.flush()
        return await self._await_answer(name, deadline)

    async def _await_answer(self, input_id: str, deadline: float | None) -> Any:
        """The record holds the answer; the control channel says when to look, and we look now and then regardless."""
        control = self.owner.execution(self.execution_id).control
        async with self._publisher.redis.pubsub() as channel:
            while True:
                try:
                    await channel.subscribe(control)
                    while not told_to_stop():
                        if (given := await self._answer(input_id)) is not None:
                            return given["value"]
                        left = ANSWER_RECHECK_SECONDS if deadline is None else deadline - time.time()
                        if left <= 0:
                            raise InputExpired(input_id)
                        await channel.get_message(timeout=min(left, ANSWER_RECHECK_SECONDS))
                except (RedisError, *GONE):
                    await asyncio.sleep(0.5)
                if told_to_stop():
                    raise asyncio.CancelledError

    async def _answer(self, input_id: str) -> dict[str, Any] | None:
        record = self.owner.execution(self.execution_id).record
        stored = await self._publisher.redis.hget(record, f"a:{input_id}")
        return None if stored is None else msgspec.json.decode(stored)
