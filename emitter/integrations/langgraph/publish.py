"""Emitting events that came from somebody else's values: too large is no reason to fail."""

from __future__ import annotations

import contextlib
from typing import Protocol

import msgspec

from emitter.emitter import AgentEmitter
from emitter.errors import PayloadTooLarge
from emitter.events import Custom, Event, MessageComplete, MessageDelta, ThinkingDelta
from emitter.integrations.langgraph.payloads import NAME
from emitter.integrations.langgraph.values import storable
from emitter.storable import clip, encoded_bytes
from emitter.testing import RecordingEmitter
from emitter.wire import MAX_EVENT_BYTES, event_type

Emitter = AgentEmitter | RecordingEmitter

ROOM = (1.0, 0.7, 0.4)
"""Shares of the room to try: redaction may make an event longer than it was measured."""
END_BYTES_MIN = 512
"""For what surrounds a result in its event, and what redaction may add."""


class Emits(Protocol):
    async def emit(self, event: Event) -> None: ...


async def publish(emitter: Emits, event: Event) -> None:
    """Emit an event, cut to the limit: a text goes in several chunks, of other values the largest ends with a mark."""
    try:
        await emitter.emit(event)
    except PayloadTooLarge as error:
        if isinstance(event, MessageDelta | ThinkingDelta):
            await _in_halves(emitter, event, error)
        elif isinstance(event, MessageComplete) and event.text:
            await publish(emitter, MessageDelta(message_id=event.message_id, delta=event.text))
            await emitter.emit(MessageComplete(message_id=event.message_id, usage=event.usage))
        else:
            await _cut(emitter, event, error)


async def _in_halves(emitter: Emits, event: MessageDelta | ThinkingDelta, error: PayloadTooLarge) -> None:
    middle = len(event.delta) // 2
    if not middle:
        raise error
    for half in (event.delta[:middle], event.delta[middle:]):
        await publish(emitter, msgspec.structs.replace(event, delta=half))


async def _cut(emitter: Emits, event: Event, error: PayloadTooLarge) -> None:
    fields = {name: storable(value) for name, value in msgspec.structs.asdict(event).items()}
    largest = max(fields, key=lambda name: encoded_bytes(fields[name]))
    room = error.limit - (error.size - encoded_bytes(fields[largest]))
    for share in ROOM:
        with contextlib.suppress(PayloadTooLarge):
            await emitter.emit(_with_field(event, largest, clip(fields[largest], int(room * share)), error))
            return
    await emitter.emit(_note(event, error))


def _with_field(event: Event, name: str, value: object, error: PayloadTooLarge) -> Event:
    data = msgspec.to_builtins(msgspec.structs.replace(event, **{name: value}))
    try:
        return msgspec.convert(data, type(event))
    except msgspec.ValidationError:  # a plan of which nothing is left, say
        return _note(event, error)


def _note(event: Event, error: PayloadTooLarge) -> Event:
    """Stands for an event that cannot be cut."""
    return Custom(name=NAME, data={"type": event_type(event), "clipped": True, "bytes": error.size})


def fitting(emitter: Emitter, value: object) -> object:
    """A value as an execution can end with it."""
    limit = emitter.max_event_bytes if isinstance(emitter, AgentEmitter) else MAX_EVENT_BYTES
    plain = storable(value)
    return clip(plain, limit - max(END_BYTES_MIN, limit // 10)) if limit else plain
