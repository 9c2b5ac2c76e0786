"""What a topic knows of its log and what leaves it, with transports that record what they are given."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from broker.live.topic import EVENTS_AT_ONCE, TAIL_BYTES, TAIL_EVENTS, Topic
from broker.live.view import RenderedOnce, StreamView, TypeFilter
from broker.live.viewer import Viewer, ViewerState
from emitter.wire.entries import Entry
from emitter.wire.ids import START, EventId
from tests.broker.live.viewers import BASE_MS, Alone, Transport, entries, entry, ids, topic_with, viewer_of, written
from tests.broker.sse_reader import parse

# --- accept ----------------------------------------------------------------------------------------------------------


def test_what_follows_is_accepted() -> None:
    """Entries that begin right after the last one are new, and the topic then stands at their end."""
    topic = topic_with(*entries(1, 3))
    assert topic.accept(entries(4, 6)) == entries(4, 6)
    assert topic.last == entry(6).id
    assert list(topic.tail) == entries(1, 6)


def test_an_unknown_topic_begins_with_what_comes_first() -> None:
    """A topic that knows nothing takes any first entries, and empty ones teach it nothing."""
    topic = Topic("log", is_execution=True)
    assert topic.accept([]) == []
    assert topic.last is None
    assert topic.accept(entries(40, 41)) == entries(40, 41)
    assert topic.last == entry(41).id


def test_repeats_are_dropped() -> None:
    """A message that came twice, or overlaps what is known, yields only what is new."""
    topic = topic_with(*entries(1, 5))
    assert topic.accept(entries(2, 4)) == []
    assert topic.accept(entries(5, 5)) == []
    assert topic.accept(entries(3, 8)) == entries(6, 8)
    assert topic.accept([]) == []
    assert list(topic.tail) == entries(1, 8)


def test_repeats_of_what_left_the_tail_are_dropped() -> None:
    """An old entry that the tail does not hold any more is a repeat all the same."""
    topic = topic_with(*entries(1, TAIL_EVENTS + 50))
    assert topic.accept(entries(1, 10)) == []
    assert topic.last == entry(TAIL_EVENTS + 50).id


@pytest.mark.parametrize(
    "message",
    [
        entries(7, 8),
        [entry(5, ms=9)],
        [entry(3, ms=77), entry(4), entry(5), entry(6)],
        [entry(2, ms=BASE_MS + 99)],
        [entry(1, ms=BASE_MS + 99), entry(2, ms=BASE_MS + 99)],
        [entry(6, ms=BASE_MS + 4)],
    ],
    ids=[
        "gap",
        "same ordinal, other time",
        "overlap, other time",
        "lower ordinal, later time",
        "a log that began anew",
        "next ordinal, earlier time",
    ],
)
def test_what_proves_a_loss_or_another_log_changes_nothing(message: list[Entry]) -> None:
    """A gap, or an entry that cannot be in the log we know, is refused and leaves the topic as it was."""
    topic = topic_with(*entries(1, 5))
    assert topic.accept(message) is None
    assert topic.last == entry(5).id
    assert list(topic.tail) == entries(1, 5)


def test_an_older_log_whose_time_is_unknown_is_told_by_its_lateness() -> None:
    """Without a tail, an old ordinal with a time after the last one still is another log's."""
    topic = Topic("log", is_execution=True)
    topic.set_baseline(entry(5).id, [])
    assert topic.accept([entry(3, ms=BASE_MS + 6)]) is None
    assert topic.accept([entry(3)]) == []


def test_a_gap_after_repeats_is_a_gap() -> None:
    """Entries that overlap and then jump are refused whole."""
    topic = topic_with(*entries(1, 5))
    assert topic.accept([entry(2), entry(9)]) is None


# --- tail ------------------------------------------------------------------------------------------------------------


def test_the_tail_is_bounded_in_events_and_bytes() -> None:
    """The tail keeps the newest events within both limits, dense to the last."""
    topic = topic_with(*entries(1, 3 * TAIL_EVENTS))
    assert list(topic.tail) == entries(2 * TAIL_EVENTS + 1, 3 * TAIL_EVENTS)
    for seq in range(1, 200):
        topic.accept([entry(3 * TAIL_EVENTS + seq, size=5_000)])
        assert sum(len(each.json) for each in topic.tail) <= TAIL_BYTES
    assert topic.tail[-1].seq == 3 * TAIL_EVENTS + 199
    assert len(topic.tail) > 20


def test_an_event_larger_than_the_tail_leaves_it_empty_and_the_topic_right() -> None:
    """One huge event is not kept, but counted; what follows is kept again."""
    topic = topic_with(*entries(1, 3))
    assert topic.accept([entry(4, size=TAIL_BYTES)]) is not None
    assert (list(topic.tail), topic.last) == ([], entry(4).id)
    assert topic.missing(entry(4).id) == []
    assert topic.missing(entry(3).id) is None
    assert topic.accept(entries(5, 6)) == entries(5, 6)
    assert topic.missing(entry(5).id) == entries(6, 6)


# --- missing ---------------------------------------------------------------------------------------------------------


def test_missing_for_every_cursor() -> None:
    """The topic answers from its tail exactly for cursors it can prove: in the tail, its end, or the log's start."""
    topic = topic_with(*entries(1, 10))
    for seq in range(1, 11):
        assert topic.missing(entry(seq).id) == entries(seq + 1, 10)
        assert topic.missing(EventId(entry(seq).ms + 1, seq)) is None, "an id that is not in the log"
    assert topic.missing(START) == entries(1, 10)
    assert topic.missing(EventId(5, 0)) is None
    assert topic.missing(entry(11).id) is None
    assert topic.missing(entry(99).id) is None


def test_missing_once_the_tail_is_trimmed() -> None:
    """The id just before the tail is known and proves a cursor; one before it, or the start, proves nothing here."""
    newest = 2 * TAIL_EVENTS + 1
    topic = topic_with(*entries(1, newest))
    first = topic.tail[0].seq
    assert len(topic.tail) == TAIL_EVENTS
    assert topic.missing(entry(first).id) == entries(first + 1, newest)
    assert topic.missing(entry(first - 1).id) == entries(first, newest)
    assert topic.missing(EventId(1, first - 1)) is None
    assert topic.missing(entry(first - 2).id) is None
    assert topic.missing(START) is None


def test_history_tells_a_hub_that_began_live_what_came_before() -> None:
    """Once one viewer has read up to the hub's first event, the next at its cursor joins without a read."""
    topic = Topic("t", is_execution=True)
    topic.accept([entry(8)])
    assert topic.missing(entry(5).id) is None
    topic.set_baseline(entry(5).id, entries(6, 8))
    assert topic.missing(entry(5).id) == entries(6, 8)
    assert topic.missing(entry(7).id) == [entry(8)]
    assert topic.missing(EventId(1, 5)) is None


def test_missing_of_a_topic_that_knows_little() -> None:
    """Unknown, only settled and forgotten topics claim nothing beyond where they stand."""
    topic = Topic("log", is_execution=True)
    assert topic.missing(START) is None
    topic.set_baseline(START, [])
    assert topic.missing(START) == []
    assert topic.missing(entry(1).id) is None
    topic.accept(entries(1, 2))
    topic.set_baseline(entry(9).id, [])
    assert topic.last == entry(2).id, "settling never moves a topic that knows where it stands"
    topic.forget()
    assert topic.missing(START) is None
    assert topic.missing(entry(2).id) is None
    assert topic.accept(entries(7, 7)) == entries(7, 7)


def test_the_rendered_tail_is_shared_and_never_stale() -> None:
    """Viewers that resume at one place share the bytes; a new event makes new ones."""
    topic, view = topic_with(*entries(1, 5)), StreamView(chunked=False)
    missing = topic.missing(entry(2).id)
    assert missing is not None
    assert topic.render_tail(view, missing) is topic.render_tail(view, missing)
    assert [frame.id for frame in parse(topic.render_tail(view, missing))] == ["1003-3", "1004-4", "1005-5"]
    topic.accept(entries(6, 6))
    longer = topic.missing(entry(3).id)
    assert longer is not None
    assert [frame.id for frame in parse(topic.render_tail(view, longer))] == ["1004-4", "1005-5", "1006-6"]


# --- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "end"),
    [
        ([b"execution:queued"], None),
        ([b"execution:queued", b"execution:started", b"status"], None),
        ([b"execution:started", b"input:required"], None),
        ([b"execution:started", b"execution:complete"], "completed"),
        ([b"execution:error"], "failed"),
        ([b"execution:cancelled"], "cancelled"),
        ([b"status"], None),
    ],
)
def test_a_terminal_event_ends_an_execution(types: list[bytes], end: str | None) -> None:
    """A topic knows the end from the event that it saw, and no other state; a feed never ends."""
    seen = [entry(seq, type_=type_) for seq, type_ in enumerate(types, 1)]
    topic = topic_with(*seen)
    assert (topic.end, topic.ended) == (end, end is not None)
    feed = Topic("feed", is_execution=False)
    feed.accept(seen)
    assert not feed.ended


def test_a_forgotten_log_has_not_ended() -> None:
    """A topic that forgets its log forgets its end too: the log that stands in its place may be running."""
    topic = topic_with(entry(1, type_=b"execution:started"), entry(2, type_=b"execution:complete"))
    topic.forget()
    topic.set_baseline(entry(1).id, [])
    assert not topic.ended


# --- deliver ---------------------------------------------------------------------------------------------------------


def test_one_write_of_the_same_bytes_to_all_of_a_group() -> None:
    """Viewers with equal views get the very same object in one write; others get their own rendering."""
    topic = topic_with(*entries(1, 3))
    same = [viewer_of(topic) for _ in range(50)]
    unnamed = viewer_of(topic, StreamView(chunked=False, named=False))
    for viewer in [*same, unnamed]:
        viewer.go_live()
    delivery = topic.deliver(entries(2, 3))
    assert len({id(written(viewer).writes[0]) for viewer in same}) == 1
    assert all(len(written(viewer).writes) == 1 for viewer in [*same, unnamed])
    assert ids(same[0]) == ids(unnamed) == ["1002-2", "1003-3"]
    assert {frame.event for frame in parse(written(unnamed).data)} == {"message"}
    size = 50 * len(written(same[0]).data) + len(written(unnamed).data)
    assert delivery == (51, 102, size, 0)


def test_filtered_viewers_get_only_what_they_want() -> None:
    """A group whose filter wants nothing of a delivery is not written to."""
    topic = topic_with(*entries(1, 3))
    tools, all_ = viewer_of(topic, StreamView(chunked=False, types=TypeFilter("tool:*"))), viewer_of(topic)
    tools.go_live()
    all_.go_live()
    assert topic.deliver([entry(1)]).viewers == 1
    topic.deliver([entry(2, type_=b"tool:start"), entry(3)])
    assert ids(tools) == ["1002-2"]
    assert ids(all_) == ["1001-1", "1002-2", "1003-3"]


def test_nobody_watching_costs_nothing() -> None:
    """A delivery without viewers writes nothing, and groups without viewers are gone."""
    topic = topic_with(*entries(1, 1))
    viewer = viewer_of(topic)
    viewer.go_live()
    topic.remove(viewer)
    topic.remove(viewer)
    assert topic.groups == {}
    assert list(topic.live()) == []
    assert topic.deliver(entries(1, 1)) == (0, 0, 0, 0)
    assert written(viewer).writes == []


def test_a_full_transport_makes_its_viewer_lag() -> None:
    """A transport that pauses inside `write` puts its viewer on `lagging`, once, and the others are written to."""
    topic = topic_with(*entries(1, 3))
    viewers = [viewer_of(topic, room=10 if n % 2 else 1 << 30) for n in range(10)]
    for viewer in viewers:
        viewer.go_live()
    topic.deliver(entries(1, 1))
    topic.deliver(entries(2, 2))
    assert set(topic.lagging) == {viewer for n, viewer in enumerate(viewers) if n % 2}
    assert len(topic.lagging) == 5
    assert all(len(written(viewer).writes) == 2 for viewer in viewers)


def test_only_live_viewers_lag() -> None:
    """A pause of a viewer that is being replayed or closed is not the hub's business."""
    topic = topic_with(*entries(1, 1))
    replaying, closing = viewer_of(topic), viewer_of(topic)
    closing.close()
    for viewer in (replaying, closing):
        viewer.pause_writing()
        assert viewer.paused
    assert not topic.lagging


# --- one viewer's error ----------------------------------------------------------------------------------------------


class Broken(Transport):
    """A transport that raises."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("cannot write")


@pytest.mark.parametrize("first", [True, False], ids=["before the others", "after the others"])
def test_a_view_that_fails_costs_its_own_viewer_alone(first: bool) -> None:
    """Wherever it stands among the groups, the others get every event, and it is named with its error."""
    topic = topic_with(*entries(1, 3))
    failing, other = viewer_of(topic, Alone(3)), viewer_of(topic, Alone())
    native = [viewer_of(topic) for _ in range(3)]
    for viewer in [failing, other, *native] if first else [other, *native, failing]:
        viewer.go_live()
    for seq in (1, 2, 3, 4):
        topic.deliver(entries(seq, seq))
        for viewer, error in topic.failed:
            assert (viewer, type(error)) == (failing, OverflowError)
            topic.remove(viewer)
    assert len(topic.failed) == 1
    assert all(ids(viewer) == ["1001-1", "1002-2", "1003-3", "1004-4"] for viewer in [other, *native])
    assert ids(failing) == ["1001-1", "1002-2"], "nothing of what could not be shown whole, and nothing after it"


def test_a_transport_that_fails_costs_its_own_viewer_alone() -> None:
    """Of a group that shares its bytes, only the one whose transport raised is named; all others are written to."""
    topic = topic_with(*entries(1, 2))
    viewers = [viewer_of(topic) for _ in range(5)]
    broken = viewers[2]
    broken.transport = Broken()  # type: ignore[assignment]
    for viewer in viewers:
        viewer.go_live()
    topic.deliver(entries(1, 2))
    assert [viewer for viewer, _ in topic.failed] == [broken]
    assert all(ids(viewer) == ["1001-1", "1002-2"] for viewer in viewers if viewer is not broken)


# --- what takes long -------------------------------------------------------------------------------------------------


def test_what_nobody_shares_waits_when_it_is_late() -> None:
    """When a delivery has taken too long, the single views that are left get nothing of it, and are `behind`; a group
    that shares its bytes is written to all the same."""
    topic = topic_with(*entries(1, 4))
    topic.accept(entries(5, 6))
    singles, shared = [viewer_of(topic, Alone()) for _ in range(5)], [viewer_of(topic) for _ in range(3)]
    for viewer in [*singles, *shared]:
        viewer.go_live()
    answers = iter([False, True])
    topic.deliver(entries(5, 6), lambda: next(answers))
    assert topic.behind == singles[2:]
    assert topic.before == entry(4).id, "where they stand"
    assert all(ids(viewer) == ["1005-5", "1006-6"] for viewer in [*singles[:2], *shared])
    assert all(written(viewer).writes == [] for viewer in topic.behind)


def test_many_events_at_once_are_not_rendered_live_for_one() -> None:
    """A burst is rendered in turns for each view that nobody shares, and live for those that do."""
    topic = topic_with(*entries(1, EVENTS_AT_ONCE + 1))
    single, native = viewer_of(topic, Alone()), viewer_of(topic)
    single.go_live()
    native.go_live()
    topic.deliver(entries(1, EVENTS_AT_ONCE))
    assert not topic.behind
    topic.deliver(entries(1, EVENTS_AT_ONCE + 1))
    assert topic.behind == [single]
    assert len(ids(native)) == 2 * EVENTS_AT_ONCE + 1


def test_what_is_kept_rendered_is_bounded() -> None:
    """However many filters clients make up, and however large the tail, a quiet log's rendered bytes stay bounded."""
    topic = topic_with(*(entry(seq, size=2_000) for seq in range(1, 101)))
    missing = topic.missing(START)
    assert missing is not None
    for number in range(300):
        topic.render_tail(StreamView(types=TypeFilter(f"*,x{number}")), missing)
        topic.render_tail(StreamView(types=TypeFilter(f"y{number}")), missing)
    assert topic._rendered is not None
    kept = topic._rendered._kept
    assert sum(map(len, kept.values())) <= RenderedOnce.MAX_BYTES
    assert len(kept) <= RenderedOnce.MAX_BYTES / RenderedOnce.OVERHEAD_BYTES
    topic.drop_rendered()
    assert topic._rendered is None


# --- a model ---------------------------------------------------------------------------------------------------------


class Model:
    """A log, a lossy road from it to a real topic, and viewers that come, lag and go. Replays and catch-ups read the
    log as an edge does: after a cursor, to its end."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log: list[Entry] = []
        self.topic = Topic("log", is_execution=True)
        self.road: list[list[Entry]] = []
        self.viewers: list[Viewer] = []
        self.replaying: list[Viewer] = []
        self.view = StreamView(chunked=False)

    def after(self, cursor: EventId) -> list[Entry]:
        assert cursor == START or self.log[cursor.seq - 1].id == cursor, "a cursor is always in the log"
        return self.log[cursor.seq :]

    def append(self) -> None:
        """Some events, published as one message that may be lost, doubled or overtake others."""
        before = self.log[-1].ms if self.log else BASE_MS
        batch = []
        for _ in range(self.random.randint(1, 4)):
            before += self.random.randint(0, 2)
            batch.append(entry(len(self.log) + len(batch) + 1, ms=before, size=self.random.randint(0, 4_000)))
        self.log += batch
        for _ in range(self.random.choice([0, 1, 1, 1, 1, 2])):
            at = len(self.road) if self.random.random() < 0.8 else self.random.randint(0, len(self.road))
            self.road.insert(at, batch)

    def arrive(self) -> None:
        """What is on the road arrives, sometimes several messages at once."""
        if not self.road:
            return
        count = self.random.randint(1, min(3, len(self.road)))
        message = [entry for batch in self.road[:count] for entry in batch]
        del self.road[:count]
        if self.topic.last is None and self.topic.groups:
            return
        fresh = self.topic.accept(message)
        if fresh is None:
            self.catch_up()
        elif fresh:
            self.deliver(fresh)

    def catch_up(self) -> None:
        if self.topic.last is None:
            return
        fresh = self.topic.accept(self.after(self.topic.last))
        assert fresh is not None, "the log follows the hub's cursor"
        self.deliver(fresh)

    def deliver(self, fresh: list[Entry]) -> None:
        self.topic.deliver(fresh, lambda: self.random.random() < 0.3)
        behind, self.topic.behind = self.topic.behind, []
        lagging, self.topic.lagging = self.topic.lagging, []
        assert self.topic.before is not None or not behind
        for viewer in behind:
            self.send_back(viewer, self.topic.before or START)
        for viewer in lagging:
            if viewer.state is ViewerState.LIVE:
                self.send_back(viewer, viewer.position)

    def send_back(self, viewer: Viewer, cursor: EventId) -> None:
        viewer.fall_behind(cursor)
        self.replaying.append(viewer)

    def open(self) -> None:
        view = self.random.choice([self.view, Alone()])
        viewer = viewer_of(self.topic, view, room=self.random.choice([2_000, 20_000, 1 << 30]))
        self.viewers.append(viewer)
        self.replaying.append(viewer)

    def replay(self) -> None:
        """One step of one replaying viewer: drain, join, or a page of the log and what it tells the hub."""
        if not self.replaying:
            return
        viewer = self.random.choice(self.replaying)
        if viewer.paused:
            written(viewer).unsent = 0
            viewer.resume_writing()
            return
        missing = self.topic.missing(viewer.cursor)
        if missing is not None:
            viewer.write(self.topic.render_tail(self.view, missing) if missing else b"")
            assert self.topic.last is not None
            viewer.advance(self.topic.last, len(missing))
            if not viewer.paused:
                self.replaying.remove(viewer)
                viewer.go_live()
            return
        whole = self.after(viewer.cursor)
        page = whole[: self.random.randint(1, 30)]
        viewer.write(self.view.render(page))
        viewer.advance(page[-1].id if page else viewer.cursor, len(page))
        if len(page) == len(whole):
            self.tell_hub(page, viewer.cursor)

    def tell_hub(self, page: list[Entry], cursor: EventId) -> None:
        if self.topic.last is None and not page:
            self.topic.set_baseline(cursor, [])
        elif self.topic.last is None or cursor.seq > self.topic.last.seq:
            fresh = self.topic.accept(page)
            if fresh is None:
                self.catch_up()
            elif fresh:
                self.deliver(fresh)

    def leave(self) -> None:
        """A viewer goes, and comes back with its last id as cursor, as `EventSource` does."""
        live = list(self.topic.live())
        if live:
            viewer = self.random.choice(live)
            viewer.fall_behind(viewer.position)
            self.replaying.append(viewer)

    def settle(self) -> None:
        """Nothing is lost any more: the log's end is rechecked and every viewer catches up."""
        self.road.clear()
        for _ in range(100_000):
            if self.topic.last is not None and self.topic.last != (self.log[-1].id if self.log else START):
                self.catch_up()
            if not self.replaying:
                return
            self.replay()
        raise AssertionError("the viewers do not catch up")


@pytest.mark.parametrize("seed", [*range(12), pytest.param(random.randrange(1 << 32), id="random")])
def test_every_viewer_gets_exactly_the_log(seed: int) -> None:
    """Whatever the road loses, doubles or reorders, and whenever viewers come, lag, leave and resume: each receives the
    log from the start to its end, each event once, in order."""
    model = Model(seed)
    steps: list[Callable[[], None]] = [
        model.append, model.append, model.arrive, model.arrive, model.arrive, model.replay, model.replay, model.replay,
        model.open, model.leave, model.catch_up,
    ]  # fmt: skip
    weights = [6, 6, 6, 6, 6, 10, 10, 10, 1, 1, 1]
    for step in model.random.choices(steps, weights, k=900):
        step()
    model.settle()
    assert len(model.viewers) > 3
    for viewer in model.viewers:
        received = parse(written(viewer).data)
        wanted: list[Any] = [("status", each.json.decode(), str(each.id)) for each in model.log]
        assert received == wanted
