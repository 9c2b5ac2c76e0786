"""The stream of `live=sse` (section 5.8). Pure, but for its clock.

Each batch of items is an event `data` and an event `control` with the offset after them, in one write: a client that
sees the end of its connection between them reads the items again (`@durable-streams/client` 0.2.7).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy

from broker.protocols.durable_streams.offsets import next_cursor
from broker.protocols.item_streams import Items
from emitter.wire.ascii_json import ascii_json
from emitter.wire.entries import Entry

HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
MAX_AGE_SECONDS = 75.0
"""A stream ends about once a minute (section 10.2), but never sooner: clients count short ones as broken."""


class Renderer:
    """A `PlacedRendering` of items. `known_cursor`: what the client sent back."""

    name = "durable_streams"
    heartbeat = b": hb\n"
    heartbeat_seconds = 15.0
    fill = b""
    max_age_seconds = MAX_AGE_SECONDS
    headers = HEADERS

    def __init__(self, items: Items, known_cursor: int = -1, clock: Callable[[], float] = time.time) -> None:
        self._items = items
        self._clock = clock
        self._cursor = next_cursor(known_cursor, clock())
        self._is_at_end = False

    @property
    def is_over(self) -> bool:
        return self._items.is_over

    @property
    def state_key(self) -> Hashable:
        key = self._items.state_key
        return None if key is None else (self.name, key, self._cursor, self._is_at_end)

    def fork(self) -> Renderer:
        other = copy(self)
        other._items = self._items.fork()
        return other

    def open(self) -> bytes:
        return self._batch(self._items.open())

    def render(self, entries: Sequence[Entry]) -> bytes:
        """A batch for each event: what is shown does not depend on how they came."""
        return b"".join([b"" if self.is_over else self._batch(self._items.add((entry,))) for entry in entries])

    def caught_up(self) -> bytes:
        self._is_at_end = True
        return self._control()

    def fell_behind(self) -> None:
        self._is_at_end = False

    def _batch(self, items: Sequence[bytes]) -> bytes:
        if items:
            return data_event(items) + self._control()
        return self._control() if self.is_over else b""

    def _control(self) -> bytes:
        self._cursor = max(self._cursor, next_cursor(-1, self._clock()))
        return control_event(self._items.offset, self._cursor, is_end=self._is_at_end, is_closed=self.is_over)


def data_event(items: Sequence[bytes]) -> bytes:
    """One line of ASCII, so that every client splits the lines alike."""
    return b"event: data\ndata: [%b]\n\n" % ascii_json(b",".join(items))


def control_event(offset: str, cursor: int, *, is_end: bool, is_closed: bool) -> bytes:
    """`streamClosed` comes without a cursor: nobody comes back after it."""
    if is_closed:
        more = b'"upToDate":true,"streamClosed":true'
    else:
        more = b'"streamCursor":"%d"%b' % (cursor, b',"upToDate":true' if is_end else b"")
    return b'event: control\ndata: {"streamNextOffset":"%b",%b}\n\n' % (offset.encode(), more)
