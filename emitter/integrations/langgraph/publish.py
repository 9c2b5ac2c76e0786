"""Emits events with foreign values: one that is too large is cut and does not fail the graph."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from emitter.errors import PayloadTooLarge
from emitter.events import Artifact, Custom, Event, MessageComplete, MessageDelta, ThinkingDelta
from emitter.integrations.langgraph.payloads import NAME
from emitter.integrations.langgraph.values import storable
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.testing import RecordingEmitter
from emitter.wire.envelope import event_type
from emitter.wire.limits import MAX_EVENT_BYTES
from emitter.wire.storable import clip, encoded_bytes

Emitter = AgentEmitter | RecordingEmitter
Emit = Callable[[Event], Awaitable[None]]

ROOM = (1.0, 0.7, 0.4)
"""Shares of the room to try: redaction may make an event longer than it was measured."""
END_BYTES_MIN = 512
"""For what surrounds a result in its event, and what redaction may add."""


class Emits(Protocol):
    async def emit(self, event: Event, *, agent: str | None = None, parent_id: str | None = None) -> None: ...


async def publish(emitter: Emits, event: Event, **speaker: str) -> None:
    """Emit an event, cut to the limit: a text goes in several chunks, of other values the largest ends with a mark.
    `speaker` are the envelope keys of a sub-agent."""

    def emit(event: Event) -> Awaitable[None]:
        return emitter.emit(event, **speaker)

    try:
        await emit(event)
    except PayloadTooLarge as error:
        if isinstance(event, MessageDelta | ThinkingDelta):
            await _in_halves(emitter, event, error, speaker)
        elif isinstance(event, MessageComplete) and event.text:
            await publish(emitter, MessageDelta(message_id=event.message_id, delta=event.text), **speaker)
            await emit(MessageComplete(message_id=event.message_id, usage=event.usage))
        elif isinstance(event, Artifact) and event.url:  # a part of an image is useless
            note = {"clipped": True, "bytes": len(event.url)}
            await emit(msgspec.structs.replace(event, url=None, data=note))
        else:
            await _cut(emit, event, error)


async def _in_halves(
    emitter: Emits, event: MessageDelta | ThinkingDelta, error: PayloadTooLarge, speaker: Mapping[str, str]
) -> None:
    middle = len(event.delta) // 2
    if not middle:
        raise error
    for half in (event.delta[:middle], event.delta[middle:]):
        await publish(emitter, msgspec.structs.replace(event, delta=half), **speaker)


async def _cut(emit: Emit, event: Event, error: PayloadTooLarge) -> None:
    fields = {name: storable(value) for name, value in msgspec.structs.asdict(event).items()}
    largest = max(fields, key=lambda name: encoded_bytes(fields[name]))
    room = error.limit - (error.size - encoded_bytes(fields[largest]))
    for share in ROOM:
        with contextlib.suppress(PayloadTooLarge):
            await emit(_with_field(event, largest, clip(fields[largest], int(room * share)), error))
            return
    await emit(_note(event, error))


def _with_field(event: Event, name: str, value: object, error: PayloadTooLarge) -> Event:
    data = msgspec.to_builtins(msgspec.structs.replace(event, **{name: value}))
    try:
        return msgspec.convert(data, type(event))
    except msgspec.ValidationError:  # for example a plan of which nothing is left
        return _note(event, error)


def _note(event: Event, error: PayloadTooLarge) -> Event:
    """A notice in place of an event that cannot be cut."""
    return Custom(name=NAME, data={"type": event_type(event), "clipped": True, "bytes": error.size})


def fitting(emitter: Emitter, value: object) -> object:
    """A value as an execution can end with it."""
    limit = emitter.max_event_bytes if isinstance(emitter, AgentEmitter) else MAX_EVENT_BYTES
    plain = storable(value)
    return clip(plain, limit - max(END_BYTES_MIN, limit // 10)) if limit else plain
