"""Watched logs on a real Redis: live delivery, doubts, rechecks, lingering and release."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.live.rendering import RenderedView
from broker.live.topic import Topic
from broker.live.view import StreamView, TypeFilter
from broker.live.viewer import Viewer, ViewerState
from broker.log import watched as module
from broker.log.history import PAGE_BYTES, PAGE_EVENTS, History, Page
from broker.log.subscription import Subscription
from broker.log.watched import WatchedLog, WatchedLogs
from broker.protocols.ai_sdk.renderer import Renderer as AiSdk
from emitter.events import Event, ExecutionComplete, Status
from emitter.store.append import append, prepare
from emitter.store.connection import connect
from emitter.wire.ids import START, EventId
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.broker.live.viewers import Alone, Transport, entry, ids, viewer_of, written
from tests.broker.sse_reader import parse
from tests.edges import eventually, under_load

ALICE = Owner("alice")
KEYS = ALICE.execution("ex_1")


class Audience:
    """Records what a watch asks of those who look after its viewers."""

    def __init__(self) -> None:
        self.lagging: list[Viewer] = []
        self.ended: list[Topic] = []
        self.failed: list[tuple[Viewer, Exception]] = []
        self.behind: list[Viewer] = []
        self.replayed: list[Viewer] = []
        self.changed = asyncio.Event()

    def on_lagging(self, viewer: Viewer) -> None:
        viewer.fall_behind(viewer.position)
        self.lagging.append(viewer)
        self.changed.set()

    def on_behind(self, viewer: Viewer) -> None:
        assert viewer.topic.before is not None
        viewer.fall_behind(viewer.topic.before)
        self.behind.append(viewer)
        self.changed.set()

    def on_over(self, viewer: Viewer) -> None:
        raise AssertionError("no view of these tests ends")

    def on_failed(self, viewer: Viewer, error: Exception) -> None:
        viewer.close()
        self.failed.append((viewer, error))
        self.changed.set()

    def on_ended(self, topic: Topic) -> None:
        self.ended.append(topic)
        self.changed.set()

    def replay(self, viewer: Viewer) -> None:
        self.replayed.append(viewer)
        self.changed.set()


class Signal(Transport):
    """A transport that tells when it was written to."""

    def __init__(self, changed: asyncio.Event) -> None:
        super().__init__()
        self._changed = changed

    def write(self, data: bytes) -> None:
        super().write(data)
        self._changed.set()


class Place:
    """A watch with its subscription, and viewers on it."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.metrics = Metrics("0")
        self.audience = Audience()
        self.history = History(redis, self.metrics)
        self.watch = WatchedLogs(self.history, self.metrics, self.audience)
        self.lost: list[str] = []

    @property
    def subscription(self) -> Subscription:
        assert self.watch.subscription is not None
        return self.watch.subscription

    def on_lost(self, channel: str) -> None:
        self.lost.append(channel)
        self.watch.on_lost(channel)
        self.audience.changed.set()

    async def enter(self, execution_id: str = "ex_1", *, cursor: EventId | None = None) -> WatchedLog:
        """Watch an execution from a cursor, by default its end."""
        keys = ALICE.execution(execution_id)
        watched = self.watch.enter(keys.log, keys.record)
        await self.watch.subscribe(keys.log)
        watched.topic.set_baseline(await self.history.last(keys.log) if cursor is None else cursor, [])
        return watched

    def live(self, watched: WatchedLog, count: int = 1) -> list[Viewer]:
        viewers = [viewer_of(watched.topic, cursor=watched.topic.last or START) for _ in range(count)]
        for viewer in viewers:
            viewer.transport = Signal(self.audience.changed)  # type: ignore[assignment]
            written(viewer).protocol = viewer
            viewer.go_live()
        return viewers

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(8):
            while not condition():
                self.audience.changed.clear()
                await self.audience.changed.wait()

    async def append(self, *events: Event, execution_id: str = "ex_1") -> EventId:
        prepared = [prepare(event, execution_id, redact=Redactor()) for event in events]
        return (await append(self.redis, ALICE, execution_id, prepared)).last

    async def append_unheard(self, *events: Event, execution_id: str = "ex_1") -> EventId:
        """Append as the script does, but nobody is told."""
        keys = ALICE.execution(execution_id)
        last = await self.history.last(keys.log)
        for event in events:
            last = EventId(last.ms + 1, last.seq + 1)
            prepared = prepare(event, execution_id, redact=Redactor())
            await self.redis.xadd(keys.log, {prepared.type: prepared.json}, id=str(last))
        await self.redis.hset(keys.record, mapping={"ms": last.ms, "seq": last.seq})
        return last

    async def calls(self, command: str) -> int:
        stats: Any = await self.redis.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


@pytest.fixture
async def place(redis: Redis, redis_url: str) -> AsyncIterator[Place]:
    listening, place = connect(redis_url), Place(redis)
    async with Subscription(
        listening, ["rc:edge:t"], place.watch.on_message, place.on_lost, on_read=place.watch.flush
    ) as subscription:
        place.watch.subscription = subscription
        yield place
        await place.watch.close()
        await place.history.close()
    await listening.aclose()


def status(n: int) -> Status:
    return Status(status="s", message=str(n))


DONE = ExecutionComplete(result=None, duration=1.0)


def seqs(viewer: Viewer) -> list[int]:
    return [int(id_.partition("-")[2]) for id_ in ids(viewer)]


# --- live ------------------------------------------------------------------------------------------------------------


async def test_what_is_appended_reaches_every_live_viewer(place: Place) -> None:
    """Every live viewer gets the appended events, in order, without a read of the log."""
    watched = await place.enter()
    viewers = place.live(watched, 20)
    await place.redis.config_resetstat()
    for n in range(1, 11):
        await place.append(status(n))
    await place.until(lambda: seqs(viewers[0]) == list(range(1, 11)))
    assert len({written(viewer).data for viewer in viewers}) == 1
    assert await place.calls("xrange") == 0
    assert place.metrics.events_delivered._value.get() == 200


async def test_what_every_live_viewer_filters_out_is_counted_apart(place: Place) -> None:
    """An edge that delivers nothing since nobody wants it is told from one that is broken: what one viewer wants, or
    nobody is there for, is not counted."""
    watched = await place.enter()
    unwanted = place.metrics.events_unwanted._value
    last = await place.append(status(1))
    await eventually("the first", lambda: watched.topic.last == last)
    viewer = viewer_of(watched.topic, StreamView(chunked=False, types=TypeFilter("tool:*")), cursor=last)
    viewer.go_live()
    assert unwanted.get() == 0
    last = await place.append(status(2), status(3))
    await eventually("the second and third", lambda: watched.topic.last == last)
    assert unwanted.get() == 2
    [another] = place.live(watched)
    await place.append(status(4))
    await place.until(lambda: seqs(another) == [4])
    assert (unwanted.get(), place.metrics.events_delivered._value.get()) == (2, 1)


async def test_messages_that_come_together_leave_as_one_write(place: Place) -> None:
    """What is read from the subscription in one go is one write per viewer."""
    watched = await place.enter()
    [viewer] = place.live(watched)
    for seq in range(1, 6):
        place.watch.on_message(KEYS.log, message(seq))
    place.watch.flush()
    await place.until(lambda: bool(written(viewer).writes))
    assert [frame.id for frame in parse(written(viewer).writes[0])] == [str(entry(seq).id) for seq in range(1, 6)]


def message(*ordinals: int) -> bytes:
    return b"".join(b"%d-%d %b %b\n" % entry(seq) for seq in ordinals)


async def test_the_end_is_told_once(place: Place) -> None:
    """The terminal event reaches the viewers and then those who look after them."""
    watched = await place.enter()
    [viewer] = place.live(watched)
    await place.append(status(1), DONE)
    await place.until(lambda: place.audience.ended == [watched.topic])
    assert [frame.event for frame in parse(written(viewer).data)] == ["status", "execution:complete"]
    assert watched.topic.ended


async def test_a_log_nobody_watches_is_not_touched(place: Place) -> None:
    """A message of an unknown channel is ignored."""
    place.watch.on_message("rc:{default:alice}:x:other:log", message(1))
    assert len(place.watch) == 0


async def test_messages_before_anyone_is_live_make_a_tail(place: Place) -> None:
    """What arrives while the first viewer still reads history is kept, so that it joins without another read."""
    watched = place.watch.enter(KEYS.log, KEYS.record)
    await place.watch.subscribe(KEYS.log)
    last = await place.append(status(1), status(2))
    async with asyncio.timeout(5):
        while watched.topic.last != last:
            await asyncio.sleep(0)
    assert [each.seq for each in watched.topic.missing(START) or []] == [1, 2]


# --- walls -----------------------------------------------------------------------------------------------------------


async def two_logs(place: Place) -> tuple[list[WatchedLog], list[Viewer]]:
    watched = [await place.enter(name) for name in ("ex_1", "ex_2")]
    return watched, [place.live(each)[0] for each in watched]


def send(place: Place, watched: WatchedLog, *ordinals: int, size: int = 0) -> None:
    """A message as it comes from the subscription."""
    lines = [b"%d-%d %b %b\n" % entry(seq, size=size) for seq in ordinals]
    place.watch.on_message(watched.topic.key, b"".join(lines))


async def test_a_viewer_that_cannot_be_shown_an_event_is_named_and_no_other_misses_it(place: Place) -> None:
    """Neither those of the same log who joined after it, nor those of a log whose message came in the same read."""
    watched, viewers = await two_logs(place)
    failing = viewer_of(watched[0].topic, Alone(2))
    failing.go_live()
    [later] = place.live(watched[0])
    for seq in (1, 2, 3, 4):
        for each in watched:
            send(place, each, seq)
        place.watch.flush()
    await place.until(lambda: seqs(viewers[1]) == [1, 2, 3, 4])
    assert [(viewer, type(error)) for viewer, error in place.audience.failed] == [(failing, OverflowError)]
    assert all(seqs(viewer) == [1, 2, 3, 4] for viewer in [*viewers, later])
    assert seqs(failing) == [1]


async def test_what_comes_at_once_is_counted_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages of many logs that were read in one go are one count of events and of bytes, and it is right."""
    counted: list[tuple[str, float]] = []
    for name in ("events_delivered", "event_bytes", "events_unwanted"):
        counter = getattr(place.metrics, name)
        monkeypatch.setattr(counter, "inc", lambda count, name=name: counted.append((name, count)))
    watched = [await place.enter(f"ex_{number}") for number in range(6)]
    viewers = [viewer for each in watched[:4] for viewer in place.live(each, 2)]
    for each in watched[4:]:
        viewer_of(each.topic, StreamView(types=TypeFilter("tool:*"), chunked=False)).go_live()
    for each in watched:
        send(place, each, 1, 2)
    place.watch.flush()
    await place.until(lambda: len(counted) == 3)
    size = sum(len(written(viewer).data) for viewer in viewers)
    assert counted == [("events_delivered", 16), ("event_bytes", size), ("events_unwanted", 4)]


@pytest.mark.parametrize("what", ["on_lagging", "on_behind", "on_over"])
async def test_an_error_about_one_viewer_skips_no_other(
    place: Place, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is to be done with a viewer after a delivery: it fails for that one alone."""
    watched, _ = await two_logs(place)
    viewers = place.live(watched[0], 3)
    done = []

    def fail_for_first(viewer: Viewer) -> None:
        if viewer is viewers[0]:
            raise ValueError("no")
        done.append(viewer)

    monkeypatch.setattr(place.audience, what, fail_for_first)
    monkeypatch.setattr(watched[0].topic, what.removeprefix("on_"), list(viewers))
    for viewer in viewers:
        viewer.paused = what == "on_lagging"
    send(place, watched[0], 1)
    place.watch.flush()
    await place.until(lambda: len(done) == 2)
    assert [viewer for viewer, _ in place.audience.failed] == [viewers[0]]
    assert done == viewers[1:]


async def test_an_error_about_one_log_costs_its_viewers_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are sent away, since nobody knows what they got; the other logs of the same read are delivered, and the log
    itself is read anew by who comes next."""
    watched, viewers = await two_logs(place)

    def fail(topic: Topic) -> None:
        if topic is watched[0].topic:
            raise RuntimeError("no")

    monkeypatch.setattr(place.audience, "on_ended", fail)
    for each in watched:
        place.watch.on_message(each.topic.key, b"5-1 execution:complete {}\n")
    place.watch.flush()
    await place.until(lambda: seqs(viewers[1]) == [1])
    assert [viewer for viewer, _ in place.audience.failed] == [viewers[0]]
    assert (watched[0].topic.last, list(watched[0].topic.live())) == (None, [])


async def test_a_log_that_makes_no_sense_costs_its_viewers_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catch-up that meets what is no event ends; its viewers are sent away, and other logs are caught up with."""
    watched, viewers = await two_logs(place)
    await place.redis.xadd(watched[1].topic.key, {"status": "{}"}, id="5-1")
    read = place.history.read

    async def read_all_but_one(log: str, *arguments: Any, **options: Any) -> Page:
        if log == KEYS.log:
            raise ValueError("not an event")
        return await read(log, *arguments, **options)

    monkeypatch.setattr(place.history, "read", read_all_but_one)
    for each in watched:
        place.watch.resync(each)
    await place.until(lambda: seqs(viewers[1]) == [1])
    assert [viewer for viewer, _ in place.audience.failed] == [viewers[0]]
    assert (watched[0].catching_up, watched[0].topic.last) == (None, None)


async def test_a_record_that_makes_no_sense_keeps_no_other_log_from_being_looked_at(place: Place) -> None:
    """A recheck passes over it."""
    watched, viewers = await two_logs(place)
    await place.redis.hset(KEYS.record, mapping={"ms": "soon", "seq": "many"})
    await place.redis.xadd(watched[1].topic.key, {"status": "{}"}, id="5-1")
    await place.redis.hset(watched[1].record or "", mapping={"ms": 5, "seq": 1})
    await place.watch.recheck(0)
    await place.until(lambda: seqs(viewers[1]) == [1])


# --- slices ----------------------------------------------------------------------------------------------------------


async def test_many_logs_are_delivered_in_slices(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some milliseconds the loop comes round before the rest; each log gets all of it, in order."""
    monkeypatch.setattr(module, "SLICE_SECONDS", 0.002)
    watched = [await place.enter(f"ex_{n}") for n in range(40)]
    viewers = [place.live(each)[0] for each in watched]
    deliver = Topic.deliver

    def slow(topic: Topic, *arguments: Any) -> Any:
        time.sleep(0.001)
        return deliver(topic, *arguments)

    monkeypatch.setattr(Topic, "deliver", slow)
    for each in watched:
        send(place, each, 1)
    place.watch.flush()
    rounds = 0
    while not all(written(viewer).writes for viewer in viewers):
        rounds += 1
        if rounds == 3:  # what comes while the rest waits is delivered after it
            for each in watched:
                send(place, each, 2)
            place.watch.flush()
        await asyncio.sleep(0)
    assert rounds >= 40 / 4
    await place.until(lambda: all(seqs(viewer) == [1, 2] for viewer in viewers))


async def test_a_large_message_is_delivered_in_pieces(place: Place) -> None:
    """Each is as large as a page, so that a viewer whose socket is full leaves before it holds all of the message."""
    watched = await place.enter()
    [viewer] = place.live(watched)
    slow = viewer_of(watched.topic, room=1000)
    slow.go_live()
    count = 3 * PAGE_BYTES // 50_000
    send(place, watched, *range(1, count + 1), size=50_000)
    send(place, watched, count + 1)
    place.watch.flush()
    await place.until(lambda: len(seqs(viewer)) == count + 1)
    assert seqs(viewer) == list(range(1, count + 2))
    assert max(map(len, written(viewer).writes)) < 1.5 * PAGE_BYTES
    assert place.audience.lagging == [slow]
    assert len(written(slow).data) < 1.5 * PAGE_BYTES
    assert slow.cursor.seq == seqs(slow)[-1], "it goes on from the log where it was left"


async def test_much_that_is_rendered_is_delivered_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where viewers share a rendering it is made live, however many events come: not of all of them at once."""
    watched = await place.enter()
    [viewer] = place.live(watched)
    delivered: list[int] = []
    deliver = Topic.deliver

    def noted(topic: Topic, told: Any, is_late: Any = None) -> Any:
        delivered.append(len(told))
        return deliver(topic, told, is_late)

    monkeypatch.setattr(Topic, "deliver", noted)
    count = 2 * PAGE_EVENTS + 10
    send(place, watched, *range(1, count + 1))
    place.watch.flush()
    await place.until(lambda: len(seqs(viewer)) == count)
    for _ in range(2):
        viewer_of(
            watched.topic, RenderedView(AiSdk("ex_1"), chunked=False), cursor=watched.topic.last or START
        ).go_live()
    send(place, watched, *range(count + 1, 2 * count + 1))
    place.watch.flush()
    await place.until(lambda: len(seqs(viewer)) == 2 * count)
    assert delivered == [count, PAGE_EVENTS, PAGE_EVENTS, 10]


async def test_a_gap_within_a_large_message_is_read(place: Place) -> None:
    """What is lost between two pieces shows, and what waits of the message is not delivered after it."""
    await place.append(*(status(n) for n in range(1, 9)))
    watched = await place.enter(cursor=START)
    [viewer] = place.live(watched)
    rows: Any = await place.redis.xrange(KEYS.log)
    lines = [b"%b %b %b\n" % (id_, *next(iter(fields.items()))) for id_, fields in rows]
    big = [line.replace(b'"s"', b'"%b"' % (b"s" * PAGE_BYTES)) for line in lines]
    place.watch.on_message(KEYS.log, b"".join(big[:2]) + b"".join(big[4:]))
    place.watch.flush()
    await place.until(lambda: len(seqs(viewer)) == 8)
    assert seqs(viewer) == list(range(1, 9))


# --- doubts ----------------------------------------------------------------------------------------------------------


async def test_a_gap_is_read_once_for_all_viewers(place: Place) -> None:
    """When a message was missed, the log is read once for all viewers, and each gets the whole of it."""
    await place.append(status(1))
    watched = await place.enter()
    viewers = place.live(watched, 100)
    await place.append_unheard(status(2), status(3))
    await place.redis.config_resetstat()
    await place.append(status(4))
    await place.until(lambda: seqs(viewers[-1]) == [2, 3, 4])
    assert {tuple(seqs(viewer)) for viewer in viewers} == {(2, 3, 4)}
    assert await place.calls("xrange") == 1


async def test_a_silent_loss_in_the_middle_of_many_messages_is_noticed(place: Place) -> None:
    """A message that is missing between two that arrive together is missed as surely as one before them."""
    last = await place.append(*(status(n) for n in range(1, 7)))
    watched = await place.enter(cursor=START)
    [viewer] = place.live(watched)
    rows: Any = await place.redis.xrange(KEYS.log)
    lines = [b"%b %b %b\n" % (id_, *next(iter(fields.items()))) for id_, fields in rows]
    place.watch.on_message(KEYS.log, lines[0] + lines[1])
    place.watch.on_message(KEYS.log, lines[4] + lines[5])
    place.watch.flush()
    await place.until(lambda: watched.topic.last == last)
    assert seqs(viewer) == [1, 2, 3, 4, 5, 6]


async def test_a_message_during_a_catch_up_is_not_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives when the log was read but not yet looked at is found by reading it again."""
    await place.append(status(1))
    watched = await place.enter()
    [viewer] = place.live(watched)
    await place.append_unheard(status(2))
    read, late = place.history.read, iter([3, 4])

    async def read_too_early(*arguments: Any, **options: Any) -> Page:
        page = await read(*arguments, **options)
        if (n := next(late, None)) is not None:
            last = await place.append_unheard(status(n))
            place.watch.on_message(KEYS.log, b"%d-%d status {}\n" % last)
        return page

    monkeypatch.setattr(place.history, "read", read_too_early)
    place.watch.resync(watched)
    await place.until(lambda: len(seqs(viewer)) >= 3)
    assert seqs(viewer) == [2, 3, 4]
    assert b'"message":"4"' in written(viewer).data, "it comes from the log"


async def test_many_doubts_are_one_read(place: Place) -> None:
    """Doubts that come while one is looked into lead to one more look, not to one each."""
    await place.append(status(1))
    watched = await place.enter()
    await place.redis.config_resetstat()
    for _ in range(50):
        place.watch.resync(watched)
    await asyncio.sleep(0)
    for _ in range(50):
        place.watch.resync(watched)
    await place.watch.wait_caught_up(watched)
    assert await place.calls("xrange") <= 2
    assert not watched.dirty


async def test_a_long_gap_is_read_page_by_page(place: Place) -> None:
    """A catch-up goes on until it is at the log's end."""
    await place.append(status(1))
    watched = await place.enter()
    [viewer] = place.live(watched)
    last = await place.append_unheard(*(status(n) for n in range(2, 602)))
    place.watch.resync(watched)
    await place.until(lambda: watched.topic.last == last)
    assert seqs(viewer) == list(range(2, 602))


async def test_a_message_that_is_none_of_ours_is_a_doubt(place: Place) -> None:
    """Rubbish on a channel breaks nothing: the log is read, and the messages after it are delivered."""
    await place.append(status(1))
    watched = await place.enter()
    [viewer] = place.live(watched)
    await place.append_unheard(status(2))
    for rubbish in (b"hello", b"1-x status {}\n", b"\xff\xfe\n", b"- - -\n", b"1-2\n"):
        await place.redis.publish(KEYS.log, rubbish)
    await place.until(lambda: seqs(viewer) == [2])
    await place.append(status(3))
    await place.until(lambda: seqs(viewer) == [2, 3])
    assert (place.lost, place.subscription.reconnects) == ([], 0)


async def test_a_viewer_beyond_the_hub_is_a_doubt(place: Place) -> None:
    """A viewer that stands at the log's end, where the hub does not, makes the hub look."""
    await place.append(status(1))
    watched = await place.enter()
    [viewer] = place.live(watched)
    last = await place.append_unheard(status(2))
    place.watch.ingest(watched, [])
    await place.until(lambda: watched.topic.last == last)
    assert seqs(viewer) == [2]


async def test_a_lost_connection_re_reads_each_log_once(place: Place) -> None:
    """After the subscription was cut, each watched log is read once, and what was missed is delivered."""
    for n in range(5):
        await place.append(status(1), execution_id=f"ex_{n}")
    watched = [await place.enter(f"ex_{n}") for n in range(5)]
    viewers = [viewer for each in watched for viewer in place.live(each, 10)]
    for n in range(5):  # what would come while a log is read, would have it read again
        await place.append_unheard(status(2), execution_id=f"ex_{n}")
    await place.redis.config_resetstat()
    await place.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await place.until(lambda: all(seqs(viewer) == [2] for viewer in viewers))
    await place.until(lambda: len(place.lost) == 6)
    for each in watched:
        await place.watch.wait_caught_up(each)
    assert await place.calls("xrange") == 5
    assert all(seqs(viewer) == [2] for viewer in viewers)


async def test_another_log_sends_the_viewers_back(place: Place) -> None:
    """When the log is proven to be another one, nobody is fed from it: the viewers read anew from where they stood."""
    before = await place.append(status(1), status(2))
    watched = await place.enter()
    viewers = place.live(watched, 3)
    await place.redis.delete(KEYS.log, KEYS.record)
    await place.append(status(1))
    await place.until(lambda: len(place.audience.replayed) == 3)
    assert {viewer.cursor for viewer in viewers} == {before}
    assert {viewer.state for viewer in viewers} == {ViewerState.REPLAYING}
    assert (list(watched.topic.live()), watched.topic.last, watched.topic.end) == ([], None, None)
    assert all(seqs(viewer) == [] for viewer in viewers)


async def test_while_redis_fails_the_catch_up_waits(place: Place) -> None:
    """Errors of Redis are counted and tried again until the log can be read; then nothing is missing."""
    await place.append(status(1))
    watched = await place.enter()
    [viewer] = place.live(watched)
    await place.append_unheard(status(2))
    await place.redis.rename(KEYS.log, "hidden")
    await place.redis.set(KEYS.log, "not a stream")
    place.watch.resync(watched)
    async with asyncio.timeout(5):
        while place.metrics.redis_errors._value.get() < 2:
            await asyncio.sleep(0.01)
    await place.redis.rename("hidden", KEYS.log)
    await place.until(lambda: seqs(viewer) == [2])


async def test_closing_ends_a_catch_up_that_waits(place: Place) -> None:
    """`close` ends a catch-up that waits for Redis, and leaves nobody waiting for it."""
    await place.append(status(1))
    watched = await place.enter()
    await place.redis.delete(KEYS.log)
    await place.redis.set(KEYS.log, "not a stream")
    place.watch.resync(watched)
    waiting = asyncio.create_task(place.watch.wait_caught_up(watched))
    await asyncio.sleep(0.02)
    await place.watch.close()
    async with asyncio.timeout(under_load(1)):
        await waiting
    assert watched.catching_up is None


# --- lagging ---------------------------------------------------------------------------------------------------------


async def test_a_viewer_that_lags_is_handed_over_once(place: Place) -> None:
    """A viewer whose socket fills up in a delivery is given to those who replay it, with the hub's place."""
    watched = await place.enter()
    slow, quick = place.live(watched, 2)
    written(slow).room = 10
    last = await place.append(status(1))
    await place.until(lambda: place.audience.lagging == [slow])
    assert slow.cursor == last
    await place.append(status(2))
    await place.until(lambda: seqs(quick) == [1, 2])
    assert (seqs(slow), place.audience.lagging) == ([1], [slow])


@pytest.mark.parametrize("state", [ViewerState.REPLAYING, ViewerState.CLOSING])
async def test_a_viewer_that_paused_between_deliveries_and_left_stays_gone(place: Place, state: ViewerState) -> None:
    """A heartbeat may fill a socket too; who has left, is replayed or has drained when the next event comes is not
    taken for lagging, and who still lags is handed over once."""
    watched = await place.enter()
    left, stays, drained, quick = place.live(watched, 4)
    for viewer in (left, stays, drained):
        viewer.pause_writing()
        viewer.resume_writing()
    stays.pause_writing()
    left.state = state
    watched.topic.remove(left)
    await place.append(status(1))
    await place.until(lambda: seqs(quick) == [1])
    assert place.audience.lagging == [stays]
    assert seqs(drained) == [1]
    assert not watched.topic.lagging


# --- recheck, linger, release ----------------------------------------------------------------------------------------


async def test_a_recheck_finds_an_end_that_nobody_told(place: Place) -> None:
    """A terminal event whose message was lost, with no event after it, is found by the recheck and delivered."""
    await place.append(status(1))
    watched = await place.enter()
    [viewer] = place.live(watched)
    await place.append_unheard(DONE)
    await place.watch.recheck(0)
    await place.until(lambda: place.audience.ended == [watched.topic])
    assert [frame.event for frame in parse(written(viewer).data)] == ["execution:complete"]


async def test_a_recheck_of_idle_logs_reads_no_history(place: Place) -> None:
    """Where nothing was missed the recheck asks for last ids only, and not for logs that were heard just now."""
    for n in range(30):
        await place.append(status(1), execution_id=f"ex_{n}")
        await place.enter(f"ex_{n}")
    feed = place.watch.enter(ALICE.feed, None)
    await place.watch.subscribe(ALICE.feed)
    feed.topic.set_baseline(await place.history.last(ALICE.feed), [])
    await place.redis.config_resetstat()
    await place.watch.recheck(0)
    assert (await place.calls("hmget"), await place.calls("xrevrange"), await place.calls("xrange")) == (30, 1, 0)
    await place.redis.config_resetstat()
    await place.watch.recheck(60)
    assert await place.calls("hmget") == 0


async def test_a_feed_is_rechecked_like_a_log(place: Place) -> None:
    """A lost message of a feed is found by its stream's last id."""
    watched = place.watch.enter(ALICE.feed, None)
    await place.watch.subscribe(ALICE.feed)
    watched.topic.set_baseline(START, [])
    [viewer] = place.live(watched)
    await place.redis.xadd(ALICE.feed, {b"status": b"{}"}, id="1000-1")
    await place.watch.recheck(0)
    await place.until(lambda: seqs(viewer) == [1])


async def test_a_recheck_of_more_logs_than_one_round_trip_takes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs are asked for in parts; each gets its own answer."""
    monkeypatch.setattr(module, "RECHECK_CHUNK", 2)
    watched = []
    for n in range(5):
        await place.append(status(1), execution_id=f"ex_{n}")
        watched.append(await place.enter(f"ex_{n}", cursor=START if n == 3 else None))
    [viewer] = place.live(watched[3])
    await place.watch.recheck(0)
    await place.until(lambda: seqs(viewer) == [1])
    assert [each.topic.last.seq for each in watched if each.topic.last] == [1] * 5
    assert [each.catching_up is None for each in watched if each is not watched[3]] == [True] * 4


async def test_a_log_lingers_and_is_let_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its last viewer a log stays watched for a while, and needs nothing for one that returns; then its channel
    is given up, and whoever comes later begins anew."""
    watched = await place.enter()
    assert place.watch.enter(KEYS.log, KEYS.record) is watched
    place.watch.leave(KEYS.log)
    await place.watch.recheck(60)
    place.watch.leave(KEYS.log)
    await place.watch.recheck(60)
    assert place.watch.get(KEYS.log) is watched, "it lingers"
    await place.redis.config_resetstat()
    assert await place.enter(cursor=START) is watched
    assert await place.calls("subscribe") == 0
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.0)
    await place.watch.recheck(60)
    assert place.watch.get(KEYS.log) is watched, "it has a viewer"
    place.watch.leave(KEYS.log)
    await place.watch.recheck(60)
    assert place.watch.get(KEYS.log) is None
    async with asyncio.timeout(5):
        while dict(await place.redis.pubsub_numsub(KEYS.log))[KEYS.log.encode()]:
            await asyncio.sleep(0.01)
    assert await place.enter() is not watched
    assert await place.redis.publish(KEYS.log, b"") == 1


async def test_who_returns_in_the_moment_of_release_hears_everything(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A viewer that comes while the channel is being given up waits for a new confirmation, and misses nothing."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.0)
    for turn in range(30):
        watched = await place.enter()
        [viewer] = place.live(watched)
        await place.append(status(turn))
        await place.until(lambda: seqs(viewer) == [turn + 1])  # noqa: B023
        watched.topic.remove(viewer)
        place.watch.leave(KEYS.log)
        with contextlib.suppress(TimeoutError):
            await place.watch.recheck(60)
        for _ in range(turn % 4):
            await asyncio.sleep(0)
