"""What every asynchronous emitter has besides one method per event: phases, tools, streamed text and ids.

`AgentEmitter`, `emitter.testing.RecordingEmitter` and the emitters of integrations derive from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Literal

import msgspec

from emitter.errors import InvalidEvent
from emitter.events import (
    BY_TYPE,
    DELTAS,
    TERMINAL_STATE_OF,
    Artifact,
    Custom,
    Event,
    ExecutionStarted,
    InputReceived,
    MessageComplete,
    MessageDelta,
    ThinkingDelta,
)
from emitter.publishing.event_methods import EventMethods, named
from emitter.publishing.halves import Halves
from emitter.publishing.hooks import Named
from emitter.publishing.message_methods import MessageMethods
from emitter.publishing.scopes import PhaseScope, ToolScope
from emitter.wire.inputs import Inputs
from emitter.wire.limits import MAX_EVENT_BYTES
from emitter.wire.mending import valid, words

TEXT_CHUNK = 4 * 1024
"""Characters of a chunk of `text`."""
TEXT = (MessageDelta, ThinkingDelta)
_SPECIAL = {each.type for each in (Artifact, ExecutionStarted, InputReceived, MessageComplete)}
SIMPLE = frozenset({*BY_TYPE, Custom.type}) - {*DELTAS, *TERMINAL_STATE_OF, *_SPECIAL}
"""Types of events of which nothing waits, is cut, or changes what follows."""


class AsyncEventMethods(MessageMethods, EventMethods[Coroutine[Any, Any, None]]):
    """The catalogue's methods and context managers over an `async def emit`."""

    _message_id: str | None = None
    _text_chunk = TEXT_CHUNK
    _hooks: Sequence[Named] = ()

    def __init__(self, attempt: int = 0, *, strict: bool = False) -> None:
        self.attempt = attempt
        self._strict = strict
        self._halves = Halves()
        self._numbers = {name: itertools.count(1) for name in ("message", "call")}
        self._inputs = Inputs()

    async def _emit_each(self, *events: Event) -> None:
        for event in events:
            await self.emit(event)

    def new_id(self, kind: Literal["message", "call"]) -> str:
        """An id unique in this execution: the attempt keeps a retry's calls and messages apart."""
        return f"{kind[0]}{max(1, self.attempt)}_{next(self._numbers[kind])}"

    def phase(self, phase_id: str, name: str | None = None, *, index: int | None = None) -> PhaseScope:
        return PhaseScope(self, phase_id, named(phase_id, name), index)

    def tool(self, name: str, params: Any = None, *, call_id: str | None = None) -> ToolScope:
        return ToolScope(self, name, params, call_id or self.new_id("call"))

    async def text(self, chunk: str) -> None:
        """Stream text: message:delta of the current message, which `end_text` completes."""
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

    def _joined(self, event: Event, speaker: Any = None) -> Event | None:
        """An event in a valid form, of any length; None: only half of a character, which waits for the other half."""
        if self._strict:
            return event
        if isinstance(event, TEXT):
            return self._halves.join(event, speaker)
        return valid(event, self.max_event_bytes) if self._hooks else event

    def _lone_halves(self, event: Event) -> list[tuple[MessageDelta | ThinkingDelta, Any]]:
        """Halves of characters that must be emitted before the end of their text."""
        return self._halves.release(words(event.message_id)) if isinstance(event, MessageComplete) else []

    def _completed_text(self) -> MessageComplete | None:
        message_id, self._message_id = self._message_id, None
        return None if message_id is None else MessageComplete(message_id=message_id)


def _check_text(chunk: str) -> None:
    """Raise `InvalidEvent` for what is no text, before it begins a message."""
    if not isinstance(chunk, str):
        raise InvalidEvent(f"text: a chunk is text, not {type(chunk).__name__}")
    try:
        chunk.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"text: {error}") from error


def has_text(event: MessageComplete) -> bool:
    return bool(event.text) if isinstance(event.text, str) else event.text is not None


def cut_chunk(event: MessageDelta | ThinkingDelta, size: int) -> Iterator[MessageDelta | ThinkingDelta]:
    """A chunk of text as several of at most `size` characters."""
    for start in range(0, len(event.delta), size):
        yield msgspec.structs.replace(event, delta=event.delta[start : start + size])
