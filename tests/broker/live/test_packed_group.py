"""Compressed once for all viewers: every viewer decodes each write at once, to exactly what it was to get."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from broker.live.gzip_body import HEADER, GzipBody, Piece, appended, deflated, stored
from broker.live.gzip_view import GzipView
from broker.live.packed_group import LARGE_BYTES, WINDOW_BYTES, PackedGroup, Packers
from broker.live.topic import Topic
from broker.live.view import StreamView, TypeFilter
from broker.live.viewer import Viewer
from emitter.wire.entries import Entry
from tests.broker.live.viewers import entry, viewer_of, written

PLAIN = StreamView(chunked=False)
LETTERS = "abcdefgh"


def said(rng: random.Random, seq: int, size: int = 40) -> Entry:
    """An event such as emitters make: the same around a text that is not."""
    text = "".join(rng.choices(LETTERS, k=rng.randrange(1, size)))
    return Entry(1_000 + seq, seq, b"message:delta", b'{"type":"message:delta","data":{"delta":"%b"}}' % text.encode())


class Watching:
    """A viewer, what it was to get, and what its client has decoded, write by write."""

    def __init__(self, topic: Topic, view: GzipView) -> None:
        self.viewer: Viewer = viewer_of(topic, view)
        self.expected = b""
        self._decoder = zlib.decompressobj(31)
        self._read = 0
        self.decoded = b""

    def say(self, data: bytes, *, shared: bool = False) -> None:
        view = self.viewer.view
        self.viewer.write(Piece.of(data, deflated(data), chunked=False) if shared else view.wrap(data))
        self.expected += data

    @property
    def sent(self) -> int:
        return sum(map(len, written(self.viewer).writes))

    def check(self) -> None:
        """What was written so far is decoded so far."""
        for data in written(self.viewer).writes[self._read :]:
            self.decoded += self._decoder.decompress(data)
        self._read = len(written(self.viewer).writes)
        assert self.decoded == self.expected

    def check_end(self) -> None:
        assert self.viewer.body is not None
        written(self.viewer).write(self.viewer.body.end())
        self.check()
        assert self._decoder.eof, "the trailer is right, or zlib would have raised"
        assert gzip.decompress(written(self.viewer).data) == self.expected


def opened(topic: Topic, view: GzipView) -> Watching:
    watching = Watching(topic, view)
    watching.say(b"retry: 1000\n\n")
    watching.viewer.go_live()
    return watching


@pytest.mark.parametrize("seed", range(6))
def test_every_viewer_decodes_every_write(seed: int) -> None:
    """Viewers come, go, and get things of their own at any moment, among small and large events."""
    rng = random.Random(seed)
    topic: Topic[Viewer] = Topic("log", is_execution=True)
    view, watching, gone, seq = GzipView(Packers(), chunked=False), [], [], 0
    for _ in range(300):
        action = rng.random()
        if action < 0.1:
            watching.append(opened(topic, view))
        elif action < 0.15 and watching:
            leaver = watching.pop(rng.randrange(len(watching)))
            leaver.viewer.fall_behind(leaver.viewer.position)
            gone.append(leaver)
        elif action < 0.25 and watching:
            rng.choice(watching).say(b": hb\n")
        elif action < 0.3 and gone:
            back = gone.pop()
            back.say(PLAIN.encode([said(rng, 1)] * 20), shared=True)
            back.viewer.go_live()
            watching.append(back)
        else:
            seq += 1
            events = [said(rng, seq, rng.choice((40, 40, 40, 400, 400, 400, 400, 400, LARGE_BYTES * 2)))]
            topic.deliver(events)
            for each in watching:
                each.expected += PLAIN.encode(events)
        if rng.random() < 0.02:
            topic.drop_rendered()
        for each in watching:
            each.check()
    for each in [*watching, *gone]:
        if each in watching:
            each.viewer.fall_behind(each.viewer.position)
        each.check_end()


def test_an_event_becomes_a_fraction_of_its_size() -> None:
    topic: Topic[Viewer] = Topic("log", is_execution=True)
    rng, watching = random.Random(1), [opened(topic, GzipView(Packers())) for _ in range(1)]
    view = watching[0].viewer.view
    watching += [opened(topic, view) for _ in range(9)]
    before = [each.sent for each in watching]
    deliveries = [topic.deliver([said(rng, seq, 10)]) for seq in range(1, 200)]
    plain = sum(len(PLAIN.wrap(PLAIN.encode([said(rng, 1, 10)]))) for _ in range(199))
    for each, start in zip(watching, before, strict=True):
        assert each.sent - start < plain * 0.5
    assert sum(delivery.bytes for delivery in deliveries) == sum(each.sent for each in watching) - sum(before)
    assert sum(delivery.saved for delivery in deliveries) > 10 * plain * 0.5


def test_a_deflate_stream_per_group() -> None:
    """It begins with an event, and ends with the last viewer and when the log is quiet."""
    packers, topic = Packers(), Topic[Viewer]("log", is_execution=True)
    view = GzipView(packers)
    first = opened(topic, view)
    assert packers.used == 0
    topic.deliver([entry(1)])
    assert packers.used == 1
    second = opened(topic, view)
    topic.deliver([entry(2)])
    assert packers.used == 1
    topic.drop_rendered()
    assert packers.used == 0
    topic.deliver([entry(3)])
    assert packers.used == 1
    second.viewer.close()
    assert packers.used == 1
    first.viewer.close()
    assert packers.used == 0
    assert topic.groups == {}


def test_without_room_all_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups beyond the number of deflate streams get their events all the same; half are for large groups."""
    monkeypatch.setattr(Packers, "MOST", 2)
    packers, rng = Packers(), random.Random(2)
    for viewers, used in ((3, 1), (3, 1), (10, 2), (10, 2)):
        topic: Topic[Viewer] = Topic("log", is_execution=True)
        view = GzipView(packers, chunked=False)
        watching = [opened(topic, view) for _ in range(viewers)]
        for seq in range(1, 50):
            event = said(rng, seq)
            topic.deliver([event])
            for each in watching:
                each.expected += PLAIN.encode([event])
        assert packers.used == used
        for each in watching:
            each.check()


def test_a_joiner_is_in_step_after_a_window() -> None:
    """It gets stored events until it has a window of them, then the same bytes as all others."""
    topic, rng = Topic[Viewer]("log", is_execution=True), random.Random(3)
    view = GzipView(Packers(), chunked=False)
    old = [opened(topic, view) for _ in range(3)]
    topic.deliver([said(rng, 1)])
    new = opened(topic, view)
    (group,) = topic.groups.values()
    assert isinstance(group, PackedGroup)
    start, seq = group.size, 1
    while group.size - start < WINDOW_BYTES:
        seq += 1
        topic.deliver([said(rng, seq)])
        assert written(new.viewer).writes[-1] != written(old[0].viewer).writes[-1]
    topic.deliver([said(rng, seq + 1)])
    assert written(new.viewer).writes[-1] is written(old[0].viewer).writes[-1]


def test_what_is_large_for_few_viewers_is_stored() -> None:
    """One viewer gets 3 KB as they are, eight get them deflated; and what comes after is in order for both."""
    rng = random.Random(5)
    for viewers, is_stored in ((1, True), (8, False)):
        topic, view = Topic[Viewer]("log", is_execution=True), GzipView(Packers(), chunked=False)
        watching = [opened(topic, view) for _ in range(viewers)]
        for seq, size in enumerate((0, 0, 3_000, 0, 3_000, 0), 1):
            event = entry(seq, size=size) if size else said(rng, seq)
            topic.deliver([event])
            for each in watching:
                each.expected += PLAIN.encode([event])
                each.check()
            if size:
                assert (event.json in written(watching[0].viewer).writes[-1]) is is_stored
        for each in watching:
            each.viewer.fall_behind(each.viewer.position)
            each.check_end()


def test_filtered_viewers_have_a_group_of_their_own() -> None:
    topic, rng, packers = Topic[Viewer]("log", is_execution=True), random.Random(4), Packers()
    view = GzipView(packers, chunked=False)
    narrow = GzipView(packers, chunked=False, types=TypeFilter("status"))
    all_, some = [opened(topic, view) for _ in range(2)], [opened(topic, narrow) for _ in range(2)]
    for seq in range(1, 40):
        event = entry(seq) if seq % 3 == 0 else said(rng, seq)
        topic.deliver([event])
        for each in all_ + (some if seq % 3 == 0 else []):
            each.expected += PLAIN.encode([event])
    for each in all_ + some:
        each.check()
        each.viewer.fall_behind(each.viewer.position)
        each.check_end()


# --- the coding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5, 8191, 8192, 8193, 70_000, 1_000_003])
def test_check_sums_are_combined(size: int) -> None:
    rng = random.Random(size)
    first, second = rng.randbytes(100), rng.randbytes(size)
    assert zlib.crc32(first + second) == appended(zlib.crc32(first), size) ^ zlib.crc32(second)


def test_check_sums_of_long_streams() -> None:
    """Sizes that no test writes: what comes after is the sum of its parts, and another size is another check sum."""
    sizes = (3 * 1024, 5 * 1024**3 + 7, 2**32, 11 * 1024**4)
    crc = 0x12345678
    for size in sizes:
        crc = appended(crc, size)
    assert crc == appended(0x12345678, sum(sizes))
    assert crc != appended(0x12345678, sum(sizes) + 1)


@pytest.mark.parametrize("size", [1, 127, 128, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("code", [stored, deflated])
def test_a_piece_decodes_alone_and_at_once(size: int, code: object) -> None:
    assert callable(code)
    data = random.Random(size).randbytes(size // 2) + b"x" * (size - size // 2)
    decoder = zlib.decompressobj(-15)
    assert decoder.decompress(code(data)) == data
    assert len(code(data)) <= size + 10 + size // 5_000


def test_a_body_counts_what_it_held() -> None:
    body = GzipBody(chunked=False)
    pieces = [Piece.of(data, stored(data), chunked=False) for data in (b"one", b"two" * 50_000)]
    for piece in pieces:
        body.add(piece)
    assert gzip.decompress(body.begin() + b"".join(pieces) + body.end()) == b"one" + b"two" * 50_000
    assert body.begin() == HEADER
    assert body.size == 150_003
