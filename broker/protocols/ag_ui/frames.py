"""The frames of a run: numbered within each of the log's entries, and only those that the client lacks. Pure.

A connection may break between any two frames, so each has an id from which the client can go on: `<ms>-<seq>` on the
last of an entry, `<ms>-<seq>.<n>` on its n-th before that. What has begun and not ended is known at every moment: a
client that comes back, or that takes up an interrupted run, gets it begun again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple
from weakref import WeakMethod

import msgspec

from emitter.wire import ascii_json, ids
from emitter.wire.ids import START, EventId

MAX_OPEN = 200
MAX_OPEN_CHARS = 64 * 1024
"""Messages, steps and subagents that are open at a time, and how long all their ids are; beyond it the oldest end."""

Event = dict[str, Any]
Key = tuple[str, str]
"""Kind and id of what is open."""

STEP, TEXT, SPAN, REASONING, CALL, SUBAGENT = "step", "text", "span", "reasoning", "call", "subagent"

_PLACE = re.compile(r"(\d{1,15}-\d{1,15})(?:\.([1-9]\d{0,5}))?\Z", re.ASCII)
_encode = msgspec.json.Encoder().encode


class Place(NamedTuple):
    """How far a client has come: all of an entry's frames (`frame` None), or its first few."""

    id: EventId
    frame: int | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises `ValueError`."""
        match = _PLACE.match(text)
        if match is None:
            raise ValueError(f"not the id of a frame: {text[:64]!r}")
        return cls(ids.parse_event_id(match[1]), None if match[2] is None else int(match[2]))

    def covers(self, seq: int, number: int) -> bool:
        """Whether the client has the frame of this number of the entry of this ordinal."""
        if seq == self.id.seq:
            return self.frame is None or number <= self.frame
        return seq < self.id.seq


class Opened(NamedTuple):
    """An open part: the event that began it, for a client that resumes, and the one that will end
    it."""

    beginning: Event | None
    ending: Event


def frame(event: Event) -> bytes:
    return b"data: %b\n\n" % ascii_json.ascii_json(_encode(event))


class Frames:
    """Takes events, gives frames. `on_return` is called when the first is shown to a client that has some already: it
    puts what such a client needs before."""

    def __init__(self, after: Place | None, on_return: Callable[[], None]) -> None:
        self._after = after or Place(START)
        self._on_return = WeakMethod(on_return)  # or frames and their renderer would keep each other
        self.is_muted = after is not None
        self._id = START
        self._timestamp = 0
        self._number = 0
        self._events: list[tuple[int, bytes]] = []
        """As JSON, with the number of each, 0 for one that is of no entry."""
        self._open: dict[Key, Opened] = {}
        self._open_chars = 0

    def fork(self, on_return: Callable[[], None]) -> Frames:
        """Another one in the same state, between two entries."""
        other = copy(self)
        other._on_return = WeakMethod(on_return)
        other._events = []
        other._open = dict(self._open)
        return other

    def begin(self, id_: EventId, timestamp: int) -> None:
        """The next entry of the log."""
        self._id, self._timestamp, self._number = id_, timestamp, 0
        if self.is_muted and id_.seq > self._after.id.seq:
            self.show()

    def end(self) -> bytes:
        """No more comes of the entry; its frames."""
        if self.is_muted and self._id.seq >= self._after.id.seq:
            self.show()
        if not self._events:
            return b""
        ms, seq = self._id
        last, event = self._events.pop()
        shown = b"id: %d-%d\ndata: %b\n\n" % (ms, seq, event) if last else b"data: %b\n\n" % event
        if self._events:
            pieces = [
                b"id: %d-%d.%d\ndata: %b\n\n" % (ms, seq, number, each) if number else b"data: %b\n\n" % each
                for number, each in self._events
            ]
            shown = b"".join(pieces) + shown
            self._events.clear()
        return ascii_json.ascii_json(shown)

    def show(self) -> None:
        """From here on frames are shown."""
        if self.is_muted:
            self.is_muted = False
            on_return = self._on_return()
            assert on_return is not None, "who has the frames keeps them"
            on_return()

    @property
    def is_next_had(self) -> bool:
        """Whether the client has the next frame already."""
        return self.is_muted and self._after.covers(self._id.seq, self._number + 1)

    def pass_over(self) -> None:
        """Count the next frame, which the client has already."""
        self._number += 1

    def put(self, type_: str, **fields: Any) -> None:
        """One event; fields that are None are left out, since null would be an error."""
        self.add(event_of(type_, **fields))

    def add(self, event: Event) -> None:
        """One event, without None, which is changed."""
        self._number += 1
        if self.is_muted and not self._after.covers(self._id.seq, self._number):
            self.show()
        if not self.is_muted:
            event["timestamp"] = self._timestamp
            self._events.append((self._number, _encode(event)))

    def put_known(self, type_: str, **fields: Any) -> None:
        """One event that is of no entry: it has no id, and may come again."""
        self._events.append((0, _encode(event_of(type_, **fields))))

    # --- what is open ---

    def start(self, key: Key, beginning: Event, ending: Event) -> None:
        """Begin something, unless it is open."""
        if key not in self._open:
            self._open_chars += len(key[1])
            while self._open and (len(self._open) >= MAX_OPEN or self._open_chars > MAX_OPEN_CHARS):
                self.finish(next(iter(self._open)))
            self.add(beginning)
            self._open[key] = Opened(beginning if self.is_muted else None, ending)

    def is_open(self, key: Key) -> bool:
        return key in self._open

    def finish(self, key: Key, **fields: Any) -> None:
        """End something, if it is open. `fields` are added to the event that ends it."""
        opened = self._open.get(key)
        if opened is not None:
            self.add({**opened.ending, **fields})  # while it is still open: a client that returns here needs both ends
            del self._open[key]
            self._open_chars -= len(key[1])

    def finish_all(self, **of_subagents: Any) -> None:
        """End all that is open, the latest first. `of_subagents` is added to the events that end subagents."""
        for key in reversed(list(self._open)):
            self.finish(key, **(of_subagents if key[0] == SUBAGENT else {}))

    def begin_again(self) -> None:
        """Tell of all that is open that it begins."""
        self._events += [
            (0, _encode(opened.beginning)) for opened in self._open.values() if opened.beginning is not None
        ]
        self._open = {key: Opened(None, opened.ending) for key, opened in self._open.items()}


def event_of(type_: str, **fields: Any) -> Event:
    event = {"type": type_, **fields}
    return {name: value for name, value in event.items() if value is not None} if None in event.values() else event
