"""Viewers whose transports record what they are given, and entries to show them."""

from __future__ import annotations

from collections.abc import Sequence

from broker.base.identity import Identity
from broker.live.topic import Topic
from broker.live.view import StreamView
from broker.live.viewer import Viewer
from emitter.wire.entries import Entry
from emitter.wire.ids import START, EventId
from emitter.wire.keys import Owner
from tests.broker.sse_reader import parse

ALICE = Identity(Owner("alice"), frozenset())
BASE_MS = 1_000


def entry(seq: int, *, ms: int | None = None, type_: bytes = b"status", size: int = 0) -> Entry:
    return Entry(BASE_MS + seq if ms is None else ms, seq, type_, b'{"n":%d,"pad":"%b"}' % (seq, b"x" * size))


def entries(first: int, last: int) -> list[Entry]:
    return [entry(seq) for seq in range(first, last + 1)]


def topic_with(*seen: Entry) -> Topic:
    topic = Topic("log", is_execution=True)
    topic.accept(seen)
    return topic


class Transport:
    """Records writes. When more than `room` bytes are unsent it pauses its protocol from inside `write`."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.writes: list[bytes] = []
        self.room = room
        self.unsent = 0
        self.protocol: Viewer | None = None

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.unsent += len(data)
        if self.unsent > self.room and self.protocol is not None and not self.protocol.paused:
            self.protocol.pause_writing()

    @property
    def data(self) -> bytes:
        return b"".join(self.writes)


class Nobody:
    def on_gone(self, viewer: Viewer) -> None: ...


def viewer_of(topic: Topic, view: StreamView | None = None, *, room: int = 1 << 30, cursor: EventId = START) -> Viewer:
    viewer = Viewer(Nobody(), topic, view or StreamView(chunked=False), ALICE, cursor)
    transport = Transport(room)
    transport.protocol = viewer
    viewer.transport = transport  # type: ignore[assignment]
    return viewer


def written(viewer: Viewer) -> Transport:
    return viewer.transport  # type: ignore[return-value]


def ids(viewer: Viewer) -> list[str]:
    return [frame.id for frame in parse(written(viewer).data)]


class Alone(StreamView):
    """A view of its own, as of another protocol, that fails at some events."""

    is_native = False
    name = "alone"

    def __init__(self, *fails_at: int) -> None:
        super().__init__(chunked=False)
        self.key = (object(),)
        self.fails_at = fails_at

    def encode(self, entries: Sequence[Entry]) -> bytes:
        if any(entry.seq in self.fails_at for entry in entries):
            raise OverflowError("year 3170843 is out of range")
        return super().encode(entries)
