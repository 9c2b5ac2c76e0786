"""The queue between an agent and its log: bounded, in order, adjacent deltas of one message merged. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii

from emitter.budgets import Meter
from emitter.errors import InvalidEvent
from emitter.events import Event, MessageDelta, ThinkingDelta
from emitter.wire.deltas import Run
from emitter.wire.prepared import Batch, Prepared

OVERHEAD_BYTES = 200
"""The size of an event in the queue besides its text."""


Measured = Sequence[tuple[Event, Prepared | None, int]]
"""Events with what is stored of them, or, of chunks that may merge, their encoded sizes."""


def escaped_bytes(text: str) -> int:
    """Size of a text in ASCII JSON, its quotes included. Raises `UnicodeEncodeError` for one without a UTF-8 form."""
    if not text.isascii():
        text.encode()
    return len(encode_basestring_ascii(text))


def chunk_bytes(event: MessageDelta | ThinkingDelta) -> int:
    """Size of a chunk's texts in ASCII JSON. Raises `InvalidEvent` for what is no text."""
    if not isinstance(event.delta, str) or not isinstance(event.message_id, str):
        raise InvalidEvent(f"{event.type}: messageId and delta must be text")
    try:
        return escaped_bytes(event.delta) + escaped_bytes(event.message_id)
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"{event.type}: {error}") from error


Encode = Callable[[Event, int], Prepared]
"""Makes the stored form of an event, given its time (ms)."""


class Delta(Run[str]):
    """Adjacent chunks of one message, encoded only when they leave the queue."""

    __slots__ = ("cls", "encode", "message_id", "ts")

    def __init__(self, event: MessageDelta | ThinkingDelta, size: int, ts: int, encode: Encode) -> None:
        super().__init__(event.delta, size)
        self.cls = type(event)
        self.message_id = event.message_id
        self.ts = ts
        self.encode = encode

    def merge(self, event: MessageDelta | ThinkingDelta, size: int, max_size: int, encode: Encode) -> bool:
        if self.message_id != event.message_id or self.cls is not type(event):
            return False
        if self.encode != encode:  # of another speaker
            return False
        return self.add(event.delta, size, max_size)

    def event(self) -> MessageDelta | ThinkingDelta:
        return self.cls(message_id=self.message_id, delta="".join(self.parts))


class EventQueue:
    """Events of one producer waiting for their log. `encode` turns a merged delta into what is stored.

    The position of a queued event is the producer sequence that it will have, if no chunk before it is dropped.
    """

    def __init__(self, max_events: int, max_bytes: int, encode: Encode) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._encode = encode
        self._items: deque[Prepared | Delta] = deque()
        self._taken = 0
        self.settled = 0
        self.size = 0
        self.meter: Meter | None = None

    def __len__(self) -> int:
        """Waiting events, including those of the batch on the way."""
        return len(self._items) + self._taken

    @property
    def waits(self) -> bool:
        """Whether there are events besides those of the batch on the way."""
        return bool(self._items)

    @property
    def last(self) -> int:
        """Position of the last event; `settled` is the last position that the log has."""
        return self.settled + self._taken + len(self._items)

    @property
    def full(self) -> bool:
        return len(self._items) + self._taken >= self._max_events or self.size >= self._max_bytes

    @property
    def roomy(self) -> bool:
        """Less than half full."""
        return len(self) * 2 < self._max_events and self.size * 2 < self._max_bytes

    def put(self, item: Prepared) -> None:
        self._items.append(item)
        self.size += len(item.json) + OVERHEAD_BYTES
        if item.mark and item.mark[0] in "cu" and self.meter is not None:
            self.meter.count(item.mark)

    def put_delta(
        self, event: MessageDelta | ThinkingDelta, size: int, ts: int, max_size: int, encode: Encode | None = None
    ) -> None:
        """Queue a chunk of `size` encoded bytes; adjacent chunks of a message merge up to `max_size`. `encode` replaces
        that of the queue."""
        encode = encode or self._encode
        last = self._items[-1] if self._items else None
        self.size += size
        if not (isinstance(last, Delta) and last.merge(event, size, max_size, encode)):
            self._items.append(Delta(event, size, ts, encode))
            self.size += OVERHEAD_BYTES

    def drop_deltas(self) -> tuple[int, list[int]]:
        """Drop the queued chunks to make room: how many there were, and their positions, in order."""
        kept: deque[Prepared | Delta] = deque()
        chunks, positions = 0, []
        for position, item in enumerate(self._items, self.settled + self._taken + 1):
            if isinstance(item, Delta):
                chunks += len(item.parts)
                positions.append(position)
                self.size -= item.size + OVERHEAD_BYTES
            else:
                kept.append(item)
        self._items = kept
        return chunks, positions

    def take(self, max_events: int, max_bytes: int) -> Batch:
        """The next batch. Its events stay counted until `done`; a retry sends the same `Batch` again. An event that may
        be refused without ending the log is a batch of its own, so that a refusal means this event."""
        events: list[Prepared] = []
        encoded, queued, is_plain = 0, 0, True
        while self._items and len(events) < max_events and encoded < max_bytes:
            item = self._items[0]
            if isinstance(item, Delta):
                alone = False
                self._items.popleft()
                queued += item.size + OVERHEAD_BYTES
                event = item.encode(item.event(), item.ts)
            else:
                event = item
                alone = bool(event.mark) and event.may_be_refused
                if alone and events:
                    break
                self._items.popleft()
                queued += len(event.json) + OVERHEAD_BYTES
            encoded += len(event.json)
            if event.mark:
                is_plain = False
            events.append(event)
            if alone:
                break
        self._taken = len(events)
        return Batch(self.settled + 1, events, queued, is_plain)

    def done(self, batch: Batch) -> None:
        self.settled += len(batch.events)
        self._taken = 0
        self.size -= batch.size

    def clear(self) -> int:
        """Remove everything; how many events are lost."""
        lost = len(self)
        self._items.clear()
        self._taken = self.size = 0
        return lost
