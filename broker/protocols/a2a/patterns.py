"""The frames of which most streams are made: chunks of text, and events that the protocol has no word for. Those of one
kind are the same but for a few places, so each kind is made once, with marks there, and is then a pattern. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from broker.protocols.a2a import artifacts
from broker.protocols.a2a.codec import encode
from broker.protocols.a2a.model import Artifact, Update, as_object
from broker.protocols.a2a.projection import Moment, TaskProjection
from broker.protocols.times import timestamp
from emitter import events
from emitter.wire.ascii_json import ascii_json
from emitter.wire.envelope import Envelope
from emitter.wire.ids import EventId

MAX_PATTERNS = 64

Kind = tuple[Any, ...]
"""What frames have to have in common to be of one pattern."""

_ID, _TEXT, _AGENT, _PARENT, _NAME, _TYPE, _URL = (
    f"\ue000{name}\ue000" for name in ("id", "text", "agent", "parent", "name", "type", "url")
)
_DATA = msgspec.Raw(b'"\\ue000data\\ue000"')
_PLACE = EventId(1_234_567_890_123, 8_765_432_109_876_543)
_OF_ALL = [
    str(_PLACE).encode(),  # before the ordinal, which is a part of it
    str(_PLACE.seq).encode(),
    encode(_AGENT),
    encode(_PARENT),
    encode(_TEXT),
]
_OF_CHUNKS = [*_OF_ALL, encode(_ID)[1:-1]]
_OF_ARTIFACTS = [*_OF_CHUNKS, encode(_TYPE), encode(_NAME), encode(_URL), bytes(_DATA)]
_OF_EVENTS = [*_OF_ALL, bytes(_DATA), encode(timestamp(_PLACE.ms))]
"""Marks, in the order of the values that take their places."""
_MARK = re.compile(b"|".join(map(re.escape, dict.fromkeys([*_OF_ARTIFACTS, *_OF_EVENTS]))))
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

    def frame(self, moment: Moment) -> bytes:
        """The frame of this moment."""
        if self._is_unsafe:
            return b""
        make = _MAKERS.get(type(moment.event))
        return self._said(moment) if make is None else make(self, moment)

    def _delta(self, moment: Moment) -> bytes:
        """Text of a message."""
        event = moment.event
        id_ = artifacts.MESSAGE + event.message_id
        return self._chunk(moment, id_, event.delta, append=self._projection.note_text(id_))

    def _complete(self, moment: Moment) -> bytes:
        """The end of a message, with its text unless that was streamed."""
        if self._projection.with_whole:
            return b""
        event, was_streamed = moment.event, moment.was_streamed
        id_ = artifacts.MESSAGE + event.message_id
        append = self._projection.note_text(id_, append=was_streamed, last=True)
        return self._chunk(moment, id_, "" if was_streamed else event.text or "", append=append, last=True)

    def _artifact(self, moment: Moment) -> bytes:
        """A piece of an agent's own artifact."""
        event, head, projection = moment.event, moment.head, self._projection
        if projection.with_whole and event.append and event.last:
            return b""
        text, data, url, name = event.text, event.data, event.url, event.name
        agent, parent = head.agent, head.parent_id
        id_ = artifacts.agents_id(event.artifact_id)
        append = projection.note_piece(id_, is_text=data is None and url is None, append=event.append, last=event.last)
        is_text = text is not None or (data is None and url is None)
        kind = (append, event.last, is_text, data is None, url is None, name and True, agent and True, parent and True)
        pattern = self._patterns.get(kind) or self._add(
            kind,
            _OF_ARTIFACTS,
            lambda: projection.chunk(_marked(moment), _piece(event, is_text=is_text), append=append, last=event.last),
        )
        return pattern.frame % pattern.places(
            (
                *_of_all(moment, text or ""),
                encode(id_)[1:-1],
                encode(event.media_type),
                encode(name) if name else b"",
                b"" if url is None else encode(url),
                b"" if data is None else encode(as_object(data)),
            )
        )

    def _chunk(self, moment: Moment, id_: str, text: str, *, append: bool, last: bool = False) -> bytes:
        """A chunk of a message that was noted."""
        head = moment.head
        kind = (append, last, head.agent and True, head.parent_id and True)
        pattern = self._patterns.get(kind) or self._add(
            kind,
            _OF_CHUNKS,
            lambda: self._projection.chunk(_marked(moment), artifacts.chunk(_ID, _TEXT), append=append, last=last),
        )
        return pattern.frame % pattern.places((*_of_all(moment, text), encode(id_)[1:-1]))

    def _said(self, moment: Moment) -> bytes:
        """An event that the protocol has no word for."""
        projection, head = self._projection, moment.head
        text = projection.other_text(moment.event)
        if text is None:
            return b""
        type_ = head.type
        kind = (type_, text == "", projection.state, head.agent and True, head.parent_id and True)
        pattern = self._patterns.get(kind)
        if pattern is None:
            if any(mark in type_ for mark in _LOOKS_LIKE_A_MARK):
                return b""
            pattern = self._add(
                kind, _OF_EVENTS, lambda: projection.text_update(_marked(moment, _DATA), _TEXT if text else "")
            )
        time = b'"%b"' % timestamp(moment.id.ms).encode()
        return pattern.frame % pattern.places((*_of_all(moment, text), ascii_json(bytes(head.data)), time))

    def _add(self, kind: Kind, marks: list[bytes], make: Callable[[], Update]) -> Pattern:
        """`marks`: those that there are values for, in their order."""
        if len(self._patterns) == MAX_PATTERNS:
            self._patterns.clear()
        made = b"id: %b\n%b" % (marks[0], self._encoded(make()))
        frame = b"%b".join(piece.replace(b"%", b"%%") for piece in _MARK.split(made))
        found: Any = itemgetter(*[marks.index(mark) for mark in _MARK.findall(made)])
        self._patterns[kind] = pattern = Pattern(frame, found)
        return pattern


def _of_all(moment: Moment, text: str) -> tuple[bytes, ...]:
    """The values for the marks `_OF_ALL`."""
    (ms, seq), head = moment.id, moment.head
    agent, parent = head.agent, head.parent_id
    return (
        b"%d-%d" % (ms, seq),
        b"%d" % seq,
        encode(agent) if agent else b"",
        encode(parent) if parent else b"",
        encode(text),
    )


def _piece(event: events.Artifact, *, is_text: bool) -> Artifact:
    """The same with marks in it."""
    marked = replace(
        event,
        text=_TEXT if is_text else None,
        data=event.data if event.data is None else _DATA,
        url=event.url if event.url is None else _URL,
        name=event.name and _NAME,
        media_type=_TYPE,
    )
    return Artifact(artifact_id=_ID, name=marked.name, parts=artifacts.parts_of(marked))


def _marked(moment: Moment, data: msgspec.Raw | None = None) -> Moment:
    head = moment.head
    marked: Envelope = replace(
        head,
        agent=head.agent and _AGENT,
        parent_id=head.parent_id and _PARENT,
        data=head.data if data is None else data,
    )
    return Moment(_PLACE, marked, moment.event)


_MAKERS: dict[type[Any], Callable[[Patterns, Moment], bytes]] = {
    events.MessageDelta: Patterns._delta,
    events.MessageComplete: Patterns._complete,
    events.Artifact: Patterns._artifact,
}
