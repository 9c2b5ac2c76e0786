"""Halves of surrogate pairs in streamed text: some providers cut an emoji in two. Pure."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from emitter.events import MessageDelta, ThinkingDelta
from emitter.wire.mending import words
from emitter.wire.storable import text

Delta = MessageDelta | ThinkingDelta

WAITING_MAX = 256
"""Texts of which a half may wait at a time."""
_HIGH = ("\ud800", "\udbff")
_LONE = "\ufffd"


class Halves:
    """Of one emitter. A high half at the end of a chunk waits for the next chunk of its text, with its voice: whose it
    is, as the emitter has it."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[type[Delta], str], tuple[str, Any]] = {}

    def join(self, event: Delta, voice: Any) -> Delta | None:
        """The chunk as it can be stored; None if there is nothing of it yet."""
        delta, id_ = event.delta, event.message_id
        if not self.waiting and type(delta) is str and type(id_) is str:
            if delta.isascii() and id_.isascii():  # nearly always, and cheap to see
                return event
            if _is_whole(delta) and _is_whole(id_):
                return event
        message_id, chunk = words(event.message_id), _raw(event.delta)
        key = (type(event), message_id)
        chunk = self.waiting.pop(key, ("", None))[0] + chunk
        if _HIGH[0] <= chunk[-1:] <= _HIGH[1] and len(self.waiting) < WAITING_MAX:
            self.waiting[key], chunk = (chunk[-1], voice), chunk[:-1]
        return replace(event, message_id=message_id, delta=text(chunk)) if chunk or not event.delta else None

    def release(self, message_id: str | None = None) -> list[tuple[Delta, Any]]:
        """What waits, of one message or of all, with its voice: halves whose other half never came."""
        keys = [key for key in self.waiting if message_id is None or key[1] == message_id]
        voices = [self.waiting.pop(key)[1] for key in keys]
        return [(kind(message_id=id_, delta=_LONE), voice) for (kind, id_), voice in zip(keys, voices, strict=True)]


def _is_whole(value: str) -> bool:
    """Whether a text has no halves."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _raw(value: object) -> str:
    """A text with its halves; of anything else its words."""
    return str.__str__(value) if isinstance(value, str) else words(value)
