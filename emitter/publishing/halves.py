"""Halves of surrogate pairs in streamed text: some providers split an emoji over two chunks. Pure."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from emitter.events import MessageDelta, ThinkingDelta
from emitter.wire.mending import words
from emitter.wire.storable import text

Delta = MessageDelta | ThinkingDelta

WAITING_MAX = 256
"""How many texts may have a waiting half at a time."""
_HIGH = ("\ud800", "\udbff")
_LONE = "\ufffd"


class Halves:
    """The waiting halves of one emitter. A high half at the end of a chunk waits for the next chunk of its text; the
    chunk's speaker is kept with it."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[type[Delta], str], tuple[str, Any]] = {}

    def join(self, event: Delta, speaker: Any) -> Delta | None:
        """The chunk as it can be stored; None: all of it waits."""
        delta, id_ = event.delta, event.message_id
        if not self.waiting and type(delta) is str and type(id_) is str:
            if delta.isascii() and id_.isascii():  # nearly always, and cheap to check
                return event
            if _is_whole(delta) and _is_whole(id_):
                return event
        message_id, chunk = words(event.message_id), _raw(event.delta)
        key = (type(event), message_id)
        chunk = self.waiting.pop(key, ("", None))[0] + chunk
        if _HIGH[0] <= chunk[-1:] <= _HIGH[1] and len(self.waiting) < WAITING_MAX:
            self.waiting[key], chunk = (chunk[-1], speaker), chunk[:-1]
        return replace(event, message_id=message_id, delta=text(chunk)) if chunk or not event.delta else None

    def release(self, message_id: str | None = None) -> list[tuple[Delta, Any]]:
        """The waiting halves of one message or of all, as U+FFFD, each with its speaker."""
        keys = [key for key in self.waiting if message_id is None or key[1] == message_id]
        speakers = [self.waiting.pop(key)[1] for key in keys]
        return [
            (kind(message_id=id_, delta=_LONE), speaker) for (kind, id_), speaker in zip(keys, speakers, strict=True)
        ]


def _is_whole(value: str) -> bool:
    """Whether a text has no lone halves."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _raw(value: object) -> str:
    """A text with its halves; anything else as text."""
    return str.__str__(value) if isinstance(value, str) else words(value)
