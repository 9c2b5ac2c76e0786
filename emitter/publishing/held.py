"""Held text: the end of a streamed text that may begin a credential waits until that is clear, for at most a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from msgspec.structs import replace

from emitter.events import (
    Artifact,
    Event,
    MessageComplete,
    MessageDelta,
    Progress,
    Status,
    ThinkingDelta,
    ToolProgress,
    UsageTotals,
)
from emitter.wire.mending import mended
from emitter.wire.redact.stream import Streams

HOLD_SECONDS = 1.0
"""After such a pause the text is stored as it is. What completes a credential later is redacted."""

Delta = MessageDelta | ThinkingDelta
V = TypeVar("V")
_KINDS: dict[str, type[Delta]] = {cls.type: cls for cls in (MessageDelta, ThinkingDelta)}
_ASIDE = (ToolProgress, Progress, UsageTotals, Status)
"""Events that may overtake the end of a text."""


class HeldText(Generic[V]):
    """The held texts of one emitter. `put` queues a chunk of a speaker even if the queue is full."""

    def __init__(self, put: Callable[[Delta, V], None]) -> None:
        self._put = put
        self._streams = Streams()
        self._speakers: dict[tuple[str, str], V] = {}
        """The speaker of each text that waits."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while something waits."""

    def pass_on(self, event: Delta, speaker: V) -> Delta | None:
        """What may be stored of a chunk and the held text before it: usually the chunk itself. None: nothing yet."""
        name = event.type, event.message_id
        shown = self._streams.feed(name, event.delta)
        if shown is event.delta:
            return event
        if self._streams.is_waiting(name):
            self._speakers[name] = speaker
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self.release)
        else:
            self._speakers.pop(name, None)
        return replace(event, delta=shown) if shown else None

    def knows(self, event: Delta) -> bool:
        """Whether chunks of this text were emitted, as far as is remembered."""
        return self._streams.knows((event.type, event.message_id))

    def follow(self, event: Artifact) -> Artifact:
        """A chunk of an artifact as it may be stored. Its chunks are a text too, but none of them can wait."""
        if event.text is None:
            return event
        if not (type(event.text) is str and type(event.artifact_id) is str):
            event = cast(Artifact, mended(event))
        assert event.text is not None
        shown = self._streams.follow((event.type, event.artifact_id), event.text)
        if event.last:
            self._streams.forget((event.type, event.artifact_id))
        return event if shown == event.text else replace(event, text=shown)

    def before(self, event: Event) -> None:
        """Queue the held text that must come before an event that is no chunk."""
        if self._timer is not None and not isinstance(event, _ASIDE):
            self.release()
        if isinstance(event, MessageComplete) and isinstance(event.message_id, str):  # any other is mended later
            for kind in _KINDS:
                self._streams.forget((kind, event.message_id))

    def release(self) -> None:
        """Queue all held text."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        speakers, self._speakers = self._speakers, {}
        for name, text in self._streams.release():
            kind, message_id = name
            if text:
                self._put(_KINDS[kind](message_id=message_id, delta=text), speakers[name])
