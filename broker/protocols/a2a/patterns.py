"""The frames of which most streams are made: chunks of text, and events that the protocol has no word for. Those of one
kind are the same but for a few places, so each kind is made once, with marks there, and is then a pattern. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from broker.protocols.a2a.codec import encode
from broker.protocols.a2a.model import Update
from broker.protocols.a2a.projection import Moment, TaskProjection
from broker.protocols.times import timestamp
from emitter.wire.ascii_json import ascii_json
from emitter.wire.ids import EventId

MAX_PATTERNS = 64

Kind = tuple[str | None, ...]
"""What frames have to have in common to be of one pattern."""

_TEXT = "\ue000text\ue000"
_DATA = msgspec.Raw(b'"\\ue000data\\ue000"')
_PLACE = EventId(1_234_567_890_123, 8_765_432_109_876_543)
_MARKS = (
    (encode(_TEXT), b"%(text)b"),
    (bytes(_DATA), b"%(data)b"),
    (encode(timestamp(_PLACE.ms)), b'"%(time)b"'),
    (str(_PLACE).encode(), b"%(cursor)b"),
    (str(_PLACE.seq).encode(), b"%(seq)d"),
)
_LOOKS_LIKE_A_MARK = ("\ue000", str(_PLACE.ms), str(_PLACE.seq), timestamp(_PLACE.ms))


class Patterns:
    """Makes frames of moments; empty ones for moments that are shown in another way. `encoded` makes a frame,
    but for its id, of an update."""

    def __init__(self, projection: TaskProjection, encoded: Callable[[Update], bytes]) -> None:
        self._projection = projection
        self._encoded = encoded
        self._speaker: Kind = ()
        self._chunk: bytes | None = None
        self._patterns: dict[Kind, bytes] = {}

    def delta(self, moment: Moment) -> bytes:
        """More text of a message."""
        event, head = moment.event, moment.head
        if not self._projection.is_unfinished(event.message_id):
            return b""
        speaker = (event.message_id, head.agent, head.parent_id)
        if speaker != self._speaker:
            self._speaker, self._chunk = speaker, None
            return b""  # a message of two chunks is not worth a pattern
        if self._chunk is None:
            marked = moment._replace(id=_PLACE, event=replace(event, delta=_TEXT))
            self._chunk = self._pattern(speaker, lambda: self._projection.updates_for(marked)[0])
        cursor = b"%d-%d" % moment.id
        places = {b"text": encode(event.delta), b"cursor": cursor, b"seq": moment.id.seq}
        return b"id: %b\n%b" % (cursor, self._chunk % places) if self._chunk else b""

    def said(self, moment: Moment) -> bytes:
        """An event that the protocol has no word for."""
        text, head = self._projection.other_text(moment), moment.head
        if text is None:
            return b""
        kind = (head.type, head.agent, head.parent_id, self._projection.state, "with text" if text else "")
        pattern = self._patterns.get(kind)
        if pattern is None:
            if len(self._patterns) == MAX_PATTERNS:
                self._patterns.clear()
            marked = moment._replace(id=_PLACE, head=msgspec.structs.replace(head, data=_DATA))
            pattern = self._pattern(kind, lambda: self._projection.text_update(marked, _TEXT if text else ""))
            self._patterns[kind] = pattern
        cursor = b"%d-%d" % moment.id
        places = {
            b"text": encode(text),
            b"data": ascii_json(bytes(head.data)),
            b"time": timestamp(moment.id.ms).encode(),
            b"cursor": cursor,
            b"seq": moment.id.seq,
        }
        return b"id: %b\n%b" % (cursor, pattern % places) if pattern else b""

    def _pattern(self, kind: Kind, make: Callable[[], Update]) -> bytes:
        """Empty for a kind in which something looks like a mark."""
        names = (*kind, self._projection.task_id, self._projection.context_id)
        if any(mark in name for name in names if name is not None for mark in _LOOKS_LIKE_A_MARK):
            return b""
        pattern = self._encoded(make()).replace(b"%", b"%%")
        for mark, place in _MARKS:
            pattern = pattern.replace(mark, place)
        return pattern
