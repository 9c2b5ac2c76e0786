"""For people who test their own agents: an emitter that needs no Redis and remembers what was emitted."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from emitter.errors import (
    AlreadyAnswered,
    AlreadySent,
    ChildFailed,
    Declined,
    EmitterClosed,
    ExecutionEnded,
    InputExpired,
    InvalidEvent,
    PayloadTooLarge,
    UnknownAgent,
    UnknownInput,
)
from emitter.events import (
    EXPIRED,
    TERMINAL_STATE_OF,
    Artifact,
    ChildEnded,
    ChildStarted,
    Event,
    ExecutionComplete,
    InputReceived,
    InputRequired,
    MessageComplete,
    MessageDelta,
    MessageMode,
    ThinkingDelta,
    UserMessage,
    UserMessageDropped,
    UserMessageTaken,
)
from emitter.publishing.async_methods import TEXT_CHUNK, AsyncEventMethods, cut_chunk
from emitter.publishing.children import Child, Names, OnParentEnd, check_on_parent_end
from emitter.publishing.held import HeldText
from emitter.publishing.hooks import Hook, Origin, apply_hooks, name_hooks, prepare_end
from emitter.publishing.inbox import Inbox, SentMessages
from emitter.store.answers import misfit, prepare_answer
from emitter.store.append import prepare_shown, prepare_with
from emitter.store.children import SUMMARY_CHARS, shortened
from emitter.store.endings import STACK_CHARS
from emitter.store.messages import prepare_message
from emitter.wire.envelope import Envelope, decode_envelope, envelope_keys
from emitter.wire.ids import check_execution_id, now_ms
from emitter.wire.inputs import InputKind
from emitter.wire.mending import valid, words
from emitter.wire.prepared import Prepared
from emitter.wire.redact import Redactor
from emitter.wire.subjects import owner_named
from emitter.wire.user_messages import Message


class RecordingEmitter(AsyncEventMethods):
    """`AgentEmitter` without Redis. `events` holds (type, event) in order, as a reader would get them: encoded,
    redacted and decoded again: what is mended or raises there does so here.

    `answers` are what `ask` returns, by the question's `input_id` or its prompt; or a function of the question (an
    `InputRequired`) that returns the answer or raises `InputExpired` or `Declined`. A question without an answer
    expires at once. An answer that an edge would refuse raises `InvalidEvent` or `PayloadTooLarge`; forms are checked
    where `jsonschema` is installed, as by `runcast[broker]`.

    `messages` are texts that a person has sent before the agent begins; `send_message` sends one while it runs. A graph
    under test takes messages if they are given, at least as `()`.

    `envelopes` holds what stood around each of `events`, such as `agent` and `parent_id`; `records` what is kept beside
    the log, such as an error's `stack`. `hooks` are those to be tested; the environment's are not read.

    `children` are what the executions return that the agent starts (`context.start`), by key or by agent;
    an exception is raised by `result`, such as `ChildFailed`. Or a function of the `ChildStarted` and the parameters
    that returns the result or raises.
    """

    def __init__(
        self,
        user_id: str = "tester",
        execution_id: str = "ex_test",
        *,
        answers: Mapping[str, Any] | Callable[[InputRequired], Any] | None = None,
        messages: Sequence[str] | None = None,
        children: Mapping[str, Any] | Callable[[ChildStarted, dict[str, Any]], Any] | None = None,
        hooks: Sequence[Hook] = (),
        strict: bool = False,
    ) -> None:
        super().__init__(attempt=1, strict=strict)
        self.user_id = user_id
        self.owner = owner_named(user_id)
        self.execution_id = check_execution_id(execution_id)
        self._events: list[tuple[str, Event]] = []
        self._envelopes: list[Envelope] = []
        self._held: HeldText[bytes] = HeldText(lambda chunk, keys: self._record(self._prepare(chunk, keys)))
        self.records: dict[str, str] = {}
        self.ended = False
        self._received: dict[str, InputReceived] = {}
        self._closed = False
        self._answers = {} if answers is None else answers
        self.children = RecordedChildren(self, {} if children is None else children)
        self._redact = Redactor()
        self._hooks = name_hooks(hooks)
        self._origin = Origin(user=user_id, org=self.owner.org, execution_id=execution_id, attempt=self.attempt)
        self.accepts_messages = messages is not None
        self._sent = SentMessages(self._take_messages)
        for text in messages or ():
            self.send_message(text)

    @property
    def events(self) -> list[tuple[str, Event]]:
        self._held.release()
        return self._events

    @property
    def envelopes(self) -> list[Envelope]:
        self._held.release()
        return self._envelopes

    @property
    def types(self) -> list[str]:
        return [type_ for type_, _ in self.events]

    def of(self, type_: str) -> list[Any]:
        """The events of one type."""
        return [event for name, event in self.events if name == type_]

    @property
    def text_emitted(self) -> str:
        return "".join(event.delta for event in self.of("message:delta"))

    async def emit(self, event: Event, *, agent: str | None = None, parent_id: str | None = None) -> None:
        if not isinstance(event, Event):
            raise InvalidEvent(f"{type(event).__name__} is not an event")
        if event.type in TERMINAL_STATE_OF:
            await self._terminal(event, {})
            return
        self._check()
        if isinstance(event, InputReceived):
            self._check_open(event.input_id)
        keys = envelope_keys(agent=agent, parent_id=parent_id)
        for half, its_keys in self._lone_halves(event):
            self._emit(half, its_keys)
        if (joined := self._joined(event, keys)) is not None:
            self._emit(joined, keys)

    def _emit(self, event: Event, keys: bytes) -> None:
        passed = apply_hooks(self._hooks, event, self._origin)
        if isinstance(passed, MessageDelta | ThinkingDelta):
            for chunk in self._chunks(passed, keys):
                if (said := self._held.pass_on(chunk, keys)) is not None:
                    self._record(self._prepare(said, keys))
        elif isinstance(passed, MessageComplete):
            self._emit_end(passed, keys)
        elif passed is not None:
            prepared = self._prepare(passed, keys)
            if isinstance(passed, Artifact):
                prepared = self._prepare(self._held.follow(passed), keys)
            self._held.before(passed)
            self._record(prepared)

    def _chunks(self, event: MessageDelta | ThinkingDelta, keys: bytes) -> list[MessageDelta | ThinkingDelta]:
        """A chunk, or several where it is too long for one event."""
        try:
            self._prepare_strictly(event, keys)
        except PayloadTooLarge:
            if self._strict:
                raise
            return list(cut_chunk(event, TEXT_CHUNK))
        return [event]

    def _emit_end(self, event: MessageComplete, keys: bytes) -> None:
        """As `AgentEmitter`: a text that is too long for one event is said in chunks, if it was not before."""
        if not self._strict:
            event = cast(MessageComplete, valid(event, self.max_event_bytes))
        try:
            prepared = self._prepare_strictly(event, keys)
        except PayloadTooLarge:
            delta = MessageDelta(message_id=event.message_id, delta=event.text or "")
            if self._strict:
                raise
            if not self._held.knows(delta):
                self._emit(delta, keys)
            prepared = self._prepare(msgspec.structs.replace(event, text=None), keys)
        self._held.before(event)
        self._record(prepared)

    def _prepare(self, event: Event, keys: bytes = b"") -> Prepared:
        if self._strict:
            return self._prepare_strictly(event, keys)
        return prepare_shown(event, self.execution_id, self._redact, keys, now_ms(), self.max_event_bytes)

    def _prepare_strictly(self, event: Event, keys: bytes) -> Prepared:
        return prepare_with(event, self.execution_id, self._redact, keys, now_ms(), self.max_event_bytes)

    def _record(self, prepared: Prepared) -> None:
        envelope, event = decode_envelope(prepared.json)
        self._envelopes.append(envelope)
        self._events.append((prepared.type, event))
        if isinstance(event, InputReceived):
            self._received.setdefault(event.input_id, event)
        self.ended = prepared.type in TERMINAL_STATE_OF

    def _check(self) -> None:
        if self.ended:
            raise ExecutionEnded(self.execution_id, TERMINAL_STATE_OF[self.events[-1][0]])
        if self._closed:
            raise EmitterClosed(f"the emitter of execution {self.execution_id} is closed")

    def _check_open(self, input_id: str) -> None:
        """Raise what the log answers to an answer that no question waits for."""
        if (first := self._received.get(input_id)) is not None:
            raise AlreadyAnswered(self.execution_id, msgspec.json.encode(first).decode())
        if input_id not in {event.input_id for event in self.of(InputRequired.type)}:
            raise UnknownInput(self.execution_id)

    async def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        self._check()
        event = self._joined(event) or event
        prepared, failure = prepare_end(self._hooks, event, self._origin, self._prepare)
        self._held.release()
        with contextlib.suppress(InvalidEvent, PayloadTooLarge):  # of a hook, as in AgentEmitter
            for half, keys in self._halves.release():
                self._emit(half, keys)
            await self.end_text()
        for left in self._sent.left():
            self._record(self._prepare(UserMessageDropped(message_id=left, reason="ended")))
        if failure is None:
            shown = {name: text if isinstance(text, str) else words(text) for name, text in fields.items()}
            self.records.update({name: self._redact.text(text)[:STACK_CHARS] for name, text in shown.items()})
        self._record(prepared)
        if failure is not None:
            raise failure

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
        request = self._inputs.make(
            prompt, kind, options=options, schema=schema, expires_in=expires_in, input_id=input_id
        )
        if request.input_id in self._received:
            return self._first_answer(request.input_id)
        await self.emit(request)
        try:
            given = self._answer(request)
        except InputExpired:
            await self.input_received(request.input_id, by=EXPIRED)
            raise
        except Declined:
            is_approval = request.kind == "approval"
            value = False if is_approval else None
            await self.input_received(request.input_id, by=self.user_id, value=value, declined=True)
            return self._first_answer(request.input_id)
        answer = self._as_an_edge_takes_it(request, given)
        await self.input_received(request.input_id, by=self.user_id, value=answer)
        return answer

    def _first_answer(self, input_id: str) -> Any:
        """What was answered to the request, which is not asked again."""
        first = self._received[input_id]
        if first.by == EXPIRED:
            raise InputExpired(input_id)
        if first.declined and first.value is not False:  # an approval that is declined is refused
            raise Declined(input_id)
        return first.value

    def _as_an_edge_takes_it(self, request: InputRequired, given: Any) -> Any:
        """The answer as it comes out of JSON. Raises for what an edge refuses, in its words."""
        event = InputReceived(input_id=request.input_id, by=self.user_id, value=given)
        prepare_answer(event, self.execution_id, redact=self._redact)
        answer = msgspec.json.decode(msgspec.json.encode(given))
        if (allowed := misfit(request, answer)) is not None:
            raise InvalidEvent(f"{request.prompt!r}: the answer to this {request.kind} is {allowed}")
        if request.kind == "form" and request.schema is not None:
            _check_form(request, answer)
        return answer

    def _answer(self, request: InputRequired) -> Any:
        if callable(self._answers):
            return self._answers(request)
        for name in (request.input_id, request.prompt):
            if name in self._answers:
                return self._answers[name]
        raise InputExpired(request.input_id)

    def send_message(
        self, text: str | None = None, *, data: Any = None, mode: MessageMode = "queue", message_id: str | None = None
    ) -> str:
        """Send the agent a message, as a person does who watches it; its id. Raises as an edge refuses: `InvalidEvent`,
        `PayloadTooLarge`, `AlreadySent`, `ExecutionEnded`."""
        self._check()
        id_ = f"msg_{len(self._sent.ids) + 1}" if message_id is None else message_id
        event = UserMessage(message_id=id_, by=self.user_id, mode=mode, text=text, data=data)
        if text is None and data is None:
            raise InvalidEvent("user:message: text or data - at `$.text`")
        prepared = prepare_message(event, self.execution_id, redact=self._redact)
        if id_ in self._sent.ids:
            raise AlreadySent(self.execution_id)
        self._record(prepared)
        self._sent.add(event, now_ms())
        return id_

    def _take_messages(self, taken: Sequence[Message]) -> None:
        self._check()
        event = UserMessageTaken(message_ids=[each.message_id for each in taken], attempt=self.attempt)
        self._record(self._prepare(event))

    def _new_inbox(self) -> Inbox:
        return Inbox(self._sent, lambda: self.cancelled)

    @property
    def cancelled(self) -> bool:
        """Nobody cancels a recording."""
        return False

    async def until_cancelled(self) -> None:
        """Wait for ever: nobody cancels a recording."""
        await asyncio.Event().wait()

    async def flush(self, timeout: float | None = None) -> None:
        """Nothing waits here."""

    async def close(self, timeout: float | None = None) -> None:  # noqa: ARG002 - as AgentEmitter has it
        """Emit nothing any more."""
        with contextlib.suppress(InvalidEvent):
            for half, keys in self._halves.release():
                self._emit(half, keys)
        self._closed = True

    async def __aenter__(self) -> RecordingEmitter:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class RecordedChildren:
    """What `context.start` uses of a `RecordingEmitter`."""

    def __init__(
        self, emitter: RecordingEmitter, given: Mapping[str, Any] | Callable[[ChildStarted, dict[str, Any]], Any]
    ) -> None:
        self._emitter = emitter
        self._given = given
        self._names = Names(emitter.execution_id)

    async def start(
        self, agent: str, task: str, *, params: dict[str, Any] | None, on_parent_end: OnParentEnd, key: str | None
    ) -> Child:
        check_on_parent_end(on_parent_end)
        with self._names.naming(agent, task, key) as execution_id:
            is_known = callable(self._given) or agent in self._given or (key is not None and key in self._given)
            if not is_known:
                raise UnknownAgent(agent, () if callable(self._given) else self._given)
            started = ChildStarted(
                execution_id=execution_id, agent=agent, task=task, key=key, detached=on_parent_end == "detach"
            )
            if execution_id not in {event.execution_id for event in self._emitter.of(ChildStarted.type)}:
                await self._emitter.emit(started)
        return RecordedChild(self._emitter, started, lambda: self._result(started, params or {}))

    def _result(self, started: ChildStarted, params: dict[str, Any]) -> Any:
        if callable(self._given):
            return self._given(started, params)
        return self._given[started.key if started.key in self._given else started.agent]  # type: ignore[index]


class RecordedChild(Child):
    """A child of a recording; it ends when its result is asked for, or when it is cancelled."""

    def __init__(self, emitter: RecordingEmitter, started: ChildStarted, make: Callable[[], Any]) -> None:
        super().__init__(started.execution_id, started.agent, started.task, started.key)
        self._emitter = emitter
        self._make = make

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - as a worker's child has it
        try:
            result = self._make()
            if isinstance(result, BaseException):
                raise result
        except ChildFailed as error:
            await self._end("cancelled" if error.state == "cancelled" else "failed", error.error)
            raise
        # As it comes out of the child's log.
        complete = ExecutionComplete(result=result, duration=0)
        result = decode_envelope(self._emitter._prepare(complete).json)[1].result  # type: ignore[attr-defined]
        await self._end("completed", result if isinstance(result, str) else msgspec.json.encode(result).decode())
        return result

    async def cancel(self, reason: str | None = None) -> None:
        if await self._end("cancelled", reason or ""):
            self._make = lambda: ChildFailed(self.execution_id, "cancelled", reason or "")

    async def _end(self, state: Literal["completed", "failed", "cancelled"], summary: str) -> bool:
        """Record the end, once; whether it had not ended."""
        if self.execution_id in {event.execution_id for event in self._emitter.of(ChildEnded.type)}:
            return False
        await self._emitter.emit(
            ChildEnded(execution_id=self.execution_id, state=state, summary=shortened(summary, SUMMARY_CHARS) or None)
        )
        return True


def _check_form(request: InputRequired, answer: Any) -> None:
    try:
        from emitter.form_check import check
    except ImportError:
        warnings.warn("an answer to a form is not checked: jsonschema is not installed", stacklevel=4)
        return
    assert request.schema is not None
    checked = check(request.schema, answer)
    if "unchecked" in checked:
        raise InvalidEvent(f"{request.prompt!r}: this answer cannot be checked: {checked['unchecked']}")
    for path, message in checked.get("misfits", ()):
        raise InvalidEvent(f"{request.prompt!r}: {message} - at `{path}`")
