"""The queue between an agent and its log: bounded, in order, adjacent deltas of one message merged. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from emitter.events import Event, MessageDelta, ThinkingDelta

MERGED_DELTA_BYTES = 16 * 1024
OVERHEAD_BYTES = 200
"""What an event costs in the queue besides its text."""


class Prepared(NamedTuple):
    """An event ready to be appended: its type and JSON as stored, the append script's mark, extra record fields."""

    type: str
    json: bytes
    mark: str = ""
    fields: Mapping[str, str] = {}


class Delta:
    """Adjacent chunks of one message, encoded only when they leave the queue."""

    __slots__ = ("cls", "message_id", "parts", "size", "ts")

    def __init__(self, event: MessageDelta | ThinkingDelta, size: int, ts: int) -> None:
        self.cls = type(event)
        self.message_id = event.message_id
        self.parts = [event.delta]
        self.size = size
        self.ts = ts

    def merge(self, event: MessageDelta | ThinkingDelta, size: int) -> bool:
        fits = self.size + size <= MERGED_DELTA_BYTES
        if not fits or self.message_id != event.message_id or self.cls is not type(event):
            return False
        self.parts.append(event.delta)
        self.size += size
        return True

    def event(self) -> MessageDelta | ThinkingDelta:
        return self.cls(message_id=self.message_id, delta="".join(self.parts))


class Batch(NamedTuple):
    """Events that travel together; `first_seq` is the producer sequence of the first."""

    first_seq: int
    events: list[Prepared]
    size: int


class Queue:
    """Events of one producer waiting for their log. `encode` turns a merged delta into what is stored."""

    def __init__(self, max_events: int, max_bytes: int, encode: Callable[[Event, int], Prepared]) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._encode = encode
        self._items: deque[Prepared | Delta] = deque()
        self._next_seq = 1
        self._taken = 0
        self.size = 0

    def __len__(self) -> int:
        """Events waiting, those of the batch on its way included."""
        return len(self._items) + self._taken

    @property
    def full(self) -> bool:
        return len(self._items) >= self._max_events or self.size >= self._max_bytes

    def put(self, item: Prepared) -> None:
        self._items.append(item)
        self.size += len(item.json) + OVERHEAD_BYTES

    def put_delta(self, event: MessageDelta | ThinkingDelta, ts: int) -> None:
        """Queue a chunk. Raises `UnicodeEncodeError` for text that has no UTF-8 form."""
        size = len(event.delta.encode())
        last = self._items[-1] if self._items else None
        self.size += size
        if not (isinstance(last, Delta) and last.merge(event, size)):
            self._items.append(Delta(event, size, ts))
            self.size += OVERHEAD_BYTES

    def drop_deltas(self) -> int:
        """Give up the queued chunks to make room; how many queue entries went."""
        kept: deque[Prepared | Delta] = deque(item for item in self._items if not isinstance(item, Delta))
        dropped = len(self._items) - len(kept)
        self.size -= sum(item.size + OVERHEAD_BYTES for item in self._items if isinstance(item, Delta))
        self._items = kept
        return dropped

    def take(self, max_events: int, max_bytes: int) -> Batch:
        """The next batch. It stays counted until `done` says that it arrived; a retry sends the same `Batch` again."""
        events: list[Prepared] = []
        encoded, queued = 0, 0
        while self._items and len(events) < max_events and encoded < max_bytes:
            item = self._items.popleft()
            if isinstance(item, Delta):
                queued += item.size + OVERHEAD_BYTES
                item = self._encode(item.event(), item.ts)
            else:
                queued += len(item.json) + OVERHEAD_BYTES
            encoded += len(item.json)
            events.append(item)
        self._taken = len(events)
        return Batch(self._next_seq, events, queued)

    def done(self, batch: Batch) -> None:
        self._next_seq = batch.first_seq + len(batch.events)
        self._taken = 0
        self.size -= batch.size

    def clear(self) -> int:
        """Forget everything; how many events are lost by it."""
        lost = len(self)
        self._items.clear()
        self._taken = self.size = 0
        return lost
