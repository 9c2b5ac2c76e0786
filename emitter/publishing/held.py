"""The end of a streamed text that may be the beginning of a credential: held back until that is clear, for a while."""

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
"""After a pause as long as this the text is shown as it is. What completes a credential after that is redacted."""

Delta = MessageDelta | ThinkingDelta
V = TypeVar("V")
_KINDS: dict[str, type[Delta]] = {cls.type: cls for cls in (MessageDelta, ThinkingDelta)}
_ASIDE = (ToolProgress, Progress, UsageTotals, Status)
"""Events that may overtake the end of a text."""


class HeldText(Generic[V]):
    """Of one emitter. `put` queues a chunk, whether or not there is room. It gets the voice of the chunk, too: whose it
    is, as the emitter has it."""

    def __init__(self, put: Callable[[Delta, V], None]) -> None:
        self._put = put
        self._streams = Streams()
        self._voices: dict[tuple[str, str], V] = {}
        """Whose each of the texts is that wait."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while something waits."""

    def pass_on(self, event: Delta, voice: V) -> Delta | None:
        """What may be said of a chunk and of what was held before it: the chunk itself, mostly. None: nothing yet."""
        name = event.type, event.message_id
        said = self._streams.feed(name, event.delta)
        if said is event.delta:
            return event
        if self._streams.is_waiting(name):
            self._voices[name] = voice
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self.release)
        else:
            self._voices.pop(name, None)
        return replace(event, delta=said) if said else None

    def knows(self, event: Delta) -> bool:
        """Whether chunks of this text were said, as far as is remembered."""
        return self._streams.knows((event.type, event.message_id))

    def follow(self, event: Artifact) -> Artifact:
        """A chunk of an artifact as it may be stored: they are a text as well, but none of them can wait."""
        if event.text is None:
            return event
        if not (type(event.text) is str and type(event.artifact_id) is str):
            event = cast(Artifact, mended(event))
        assert event.text is not None
        said = self._streams.follow((event.type, event.artifact_id), event.text)
        if event.last:
            self._streams.forget((event.type, event.artifact_id))
        return event if said == event.text else replace(event, text=said)

    def before(self, event: Event) -> None:
        """Queue what must come before an event that is no chunk."""
        if self._timer is not None and not isinstance(event, _ASIDE):
            self.release()
        if isinstance(event, MessageComplete) and isinstance(event.message_id, str):  # any other is mended later
            for kind in _KINDS:
                self._streams.forget((kind, event.message_id))

    def release(self) -> None:
        """Queue everything that waits."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        voices, self._voices = self._voices, {}
        for name, text in self._streams.release():
            kind, message_id = name
            if text:
                self._put(_KINDS[kind](message_id=message_id, delta=text), voices[name])
