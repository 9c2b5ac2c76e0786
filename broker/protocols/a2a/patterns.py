"""The frames of which most streams are made: chunks of text, and events that the protocol has no word for. Those of one
kind are the same but for a few places, so each kind is made once, with marks there, and is then a pattern. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from broker.protocols.a2a.codec import encode
from broker.protocols.a2a.model import Update
from broker.protocols.a2a.projection import Moment, TaskProjection
from broker.protocols.times import timestamp
from emitter.wire.ascii_json import ascii_json
from emitter.wire.envelope import Envelope
from emitter.wire.ids import EventId

MAX_PATTERNS = 64

Kind = tuple[Any, ...]
"""What frames have to have in common to be of one pattern."""

_ID, _TEXT, _AGENT, _PARENT = "\ue000id\ue000", "\ue000text\ue000", "\ue000agent\ue000", "\ue000parent\ue000"
_DATA = msgspec.Raw(b'"\\ue000data\\ue000"')
_PLACE = EventId(1_234_567_890_123, 8_765_432_109_876_543)
_MARKS = [
    str(_PLACE).encode(),  # before the ordinal, which is a part of it
    str(_PLACE.seq).encode(),
    encode(_TEXT),
    encode(_ID)[1:-1],
    bytes(_DATA),
    encode(timestamp(_PLACE.ms)),
    encode(_AGENT),
    encode(_PARENT),
]
_MARK = re.compile(b"|".join(map(re.escape, _MARKS)))
_LOOKS_LIKE_A_MARK = ("\ue000", str(_PLACE.ms), str(_PLACE.seq), timestamp(_PLACE.ms))


class Pattern(NamedTuple):
    """A frame with places, and what takes those from values in the order of `_MARKS`."""

    frame: bytes
    places: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]


class Patterns:
    """Makes frames of moments; empty ones for moments that are shown in another way. `encoded` makes a frame,
    but for its id, of an update."""

    def __init__(self, projection: TaskProjection, encoded: Callable[[Update], bytes]) -> None:
        self._projection = projection
        self._encoded = encoded
        self._is_unsafe = any(
            mark in name for mark in _LOOKS_LIKE_A_MARK for name in (projection.task_id, projection.context_id)
        )
        self._patterns: dict[Kind, Pattern] = {}

    def delta(self, moment: Moment) -> bytes:
        """Text of a message."""
        if self._is_unsafe:
            return b""
        event, head = moment.event, moment.head
        append = self._projection.note_text(event.message_id)
        kind = (append, *_speaker(head))
        pattern = self._patterns.get(kind) or self._add(
            kind, lambda: self._projection.text_chunk(_marked(moment), _ID, _TEXT, append=append)
        )
        values = _values(moment, encode(event.delta), encode(event.message_id)[1:-1])
        return pattern.frame % pattern.places(values)

    def said(self, moment: Moment) -> bytes:
        """An event that the protocol has no word for."""
        text, head = self._projection.other_text(moment), moment.head
        if text is None or self._is_unsafe:
            return b""
        kind = (head.type, text == "", self._projection.state, *_speaker(head))
        pattern = self._patterns.get(kind)
        if pattern is None:
            if any(mark in head.type for mark in _LOOKS_LIKE_A_MARK):
                return b""
            pattern = self._add(
                kind, lambda: self._projection.text_update(_marked(moment, _DATA), _TEXT if text else "")
            )
        time = b'"%b"' % timestamp(moment.id.ms).encode()
        values = _values(moment, encode(text), b"", ascii_json(bytes(head.data)), time)
        return pattern.frame % pattern.places(values)

    def _add(self, kind: Kind, make: Callable[[], Update]) -> Pattern:
        if len(self._patterns) == MAX_PATTERNS:
            self._patterns.clear()
        made = b"id: %b\n%b" % (_MARKS[0], self._encoded(make()))
        frame = b"%b".join(piece.replace(b"%", b"%%") for piece in _MARK.split(made))
        found: Any = itemgetter(*[_MARKS.index(mark) for mark in _MARK.findall(made)])
        self._patterns[kind] = pattern = Pattern(frame, found)
        return pattern


def _speaker(head: Envelope) -> Kind:
    """Whether it is known who says it, and where; empty names may be left out."""
    agent, parent = head.agent, head.parent_id
    return (agent and True, parent and True)


def _marked(moment: Moment, data: msgspec.Raw | None = None) -> Moment:
    head = moment.head
    marked = replace(
        head,
        agent=head.agent and _AGENT,
        parent_id=head.parent_id and _PARENT,
        data=head.data if data is None else data,
    )
    return moment._replace(id=_PLACE, head=marked)


def _values(moment: Moment, text: bytes, id_: bytes, data: bytes = b"", time: bytes = b"") -> tuple[bytes, ...]:
    (ms, seq), head = moment.id, moment.head
    agent = encode(head.agent) if head.agent else b""
    parent = encode(head.parent_id) if head.parent_id else b""
    return (b"%d-%d" % (ms, seq), b"%d" % seq, text, id_, data, time, agent, parent)
