"""The transitions of a viewer, by plain calls: replaying, live, behind, closing."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.live import viewer as viewer_module
from broker.live.compact_view import CompactView
from broker.live.topic import Topic
from broker.live.view import CLOSED, StreamView, TypeFilter
from broker.live.viewer import Viewer, ViewerState
from emitter.wire.ids import START, EventId
from tests.broker.live.viewers import Transport, entries, entry, ids, topic_with, viewer_of, written
from tests.broker.sse_reader import parse
from tests.edges import under_load


def live_at(topic: Topic[Viewer], view: StreamView | None = None, *, room: int = 1 << 30) -> Viewer:
    """A viewer that was shown the log up to the topic's end, and went live."""
    viewer = viewer_of(topic, view, room=room)
    assert topic.last is not None
    viewer.advance(topic.last, topic.last.seq)
    viewer.go_live()
    return viewer


def deliver(topic: Topic[Viewer], first: int, last: int) -> None:
    fresh = topic.accept(entries(first, last))
    assert fresh is not None
    topic.deliver(fresh)


def events(viewer: Viewer) -> Iterator[tuple[str, object]]:
    """Name and data of what was written."""
    return ((frame.event, json.loads(frame.data)) for frame in parse(written(viewer).data))


# --- replaying -------------------------------------------------------------------------------------------------------


def test_a_short_replay_ends_in_the_plain_view() -> None:
    """From `stream:live` on, also when it falls behind, a viewer sees the log as others do, and shares their bytes."""
    topic = topic_with(*entries(1, 3))
    plain = StreamView(chunked=False)
    viewer = viewer_of(topic, CompactView(plain, 0), cursor=entry(3).id)
    assert viewer.view.is_compact
    viewer.catch_up()
    viewer.go_live()
    other = live_at(topic, StreamView(chunked=False))
    assert viewer.view is plain
    assert list(topic.groups) == [plain.key] == [other.view.key]
    deliver(topic, 4, 4)
    viewer.fall_behind(entry(4).id)
    assert not viewer.view.is_compact
    assert [name for name, _ in events(viewer)] == ["stream:live", "status"]


def test_a_viewer_starts_as_replaying() -> None:
    """The topic does not write to a viewer before it goes live, and it stands at the cursor that it came with."""
    topic = topic_with(*entries(1, 3))
    viewer = viewer_of(topic, cursor=entry(2).id)
    deliver(topic, 4, 4)
    assert (viewer.state, viewer.position, viewer.events) == (ViewerState.REPLAYING, entry(2).id, 0)
    assert written(viewer).writes == []
    assert list(topic.live()) == []


def test_a_replay_moves_the_cursor_and_counts() -> None:
    """Each step counts the events that were written; a step over nothing moves the cursor alone."""
    viewer = viewer_of(topic_with())
    viewer.advance(entry(3).id, 3)
    viewer.advance(entry(7).id, 0)
    viewer.advance(entry(9).id, 2)
    assert (viewer.position, viewer.events) == (entry(9).id, 5)


def test_what_is_left_of_the_history_and_the_news_that_it_is_all_are_one_write() -> None:
    """`stream:live` is written once, after the first replay, with the rest; a later replay writes its rest alone."""
    viewer = viewer_of(topic_with())
    viewer.advance(entry(2).id, 2)
    assert viewer.catch_up(viewer.view.render(entries(1, 2)))
    assert len(written(viewer).writes) == 1
    assert list(events(viewer))[-1] == ("stream:live", {"replayed": 2})
    viewer.advance(entry(3).id, 1)
    assert not viewer.catch_up(viewer.view.render(entries(3, 3)))
    assert [name for name, _ in events(viewer)] == ["status", "status", "stream:live", "status"]
    assert not viewer.catch_up()
    assert len(written(viewer).writes) == 2, "an empty rest is not written"


# --- live, and back --------------------------------------------------------------------------------------------------


def test_a_live_viewer_gets_each_event_once_from_its_topic() -> None:
    """It is written to after it has gone live, and its position is the topic's."""
    topic = topic_with(*entries(1, 3))
    viewer = live_at(topic)
    deliver(topic, 4, 6)
    assert ids(viewer) == [str(each.id) for each in entries(4, 6)]
    assert (viewer.state, viewer.position) == (ViewerState.LIVE, entry(6).id)


@pytest.mark.parametrize("position", [entry(5).id, entry(3).id], ids=["had the delivery", "had nothing of it"])
def test_a_viewer_falls_behind_where_it_stands(position: EventId) -> None:
    """It leaves the live path with the cursor given and counts what it was shown there; a replay goes on after it."""
    topic = topic_with(*entries(1, 2))
    viewer = live_at(topic)
    deliver(topic, 3, 3)
    deliver(topic, 4, 5)
    viewer.fall_behind(position)
    assert (viewer.state, viewer.cursor, viewer.events) == (ViewerState.REPLAYING, position, position.seq)
    deliver(topic, 6, 6)
    assert viewer.position == position
    assert ids(viewer)[-1] == str(entry(5).id)
    missing = topic.missing(viewer.cursor)
    assert missing is not None
    assert missing[0].seq == position.seq + 1


def test_a_viewer_may_go_live_again() -> None:
    """After it fell behind and caught up it gets what follows, and every event has been counted once."""
    topic = topic_with(*entries(1, 2))
    viewer = live_at(topic)
    deliver(topic, 3, 4)
    viewer.fall_behind(viewer.position)
    deliver(topic, 5, 6)
    viewer.advance(entry(6).id, 2)
    viewer.go_live()
    deliver(topic, 7, 7)
    viewer.close()
    assert viewer.events == 7


def test_what_is_written_to_a_full_live_viewer_keeps_its_order() -> None:
    """A write of its own that stays in the transport moves the viewer to those that are written to through it."""
    topic = topic_with(*entries(1, 1))
    viewer = live_at(topic)
    (group,) = topic.groups.values()
    group.backlogged.discard(viewer)
    group.writable, viewer.fd = {3: viewer}, 3
    viewer.write(b": hb\n")
    assert (list(group.writable), group.backlogged) == ([], {viewer})


# --- positions of a filtered view ------------------------------------------------------------------------------------


def filtered() -> StreamView:
    return StreamView(chunked=False, types=TypeFilter("tool:*"))


def test_a_filtered_view_is_told_where_it_stands_when_that_is_news() -> None:
    """A position is sent once, and only ever a later one."""
    topic = topic_with(*entries(1, 4))
    viewer = live_at(topic, filtered())
    viewer.send_position()
    viewer.send_position()
    assert list(events(viewer)) == [("stream:cursor", {"cursor": str(entry(4).id)})]
    deliver(topic, 5, 5)
    viewer.send_position()
    assert ids(viewer) == [str(entry(4).id), str(entry(5).id)]


def test_a_view_without_a_filter_needs_no_position() -> None:
    """Its client has the id of the last event itself."""
    viewer = live_at(topic_with(*entries(1, 4)))
    viewer.send_position()
    assert written(viewer).writes == []


def test_in_another_history_an_earlier_position_is_news() -> None:
    """After a reset the viewer is not complete, and its client is moved back."""
    viewer = viewer_of(topic_with(), filtered())
    viewer.advance(entry(9).id, 9)
    viewer.send_position()
    assert viewer.is_complete
    viewer.lose_history()
    viewer.advance(entry(2).id, 2)
    viewer.send_position()
    assert not viewer.is_complete
    assert ids(viewer) == [str(entry(9).id), str(entry(2).id)]


# --- closing ---------------------------------------------------------------------------------------------------------


def test_a_live_viewer_that_closes_leaves_its_topic() -> None:
    """It gets nothing more, its cursor stays where it stood, and what it was shown live is counted."""
    topic = topic_with(*entries(1, 2))
    viewer = live_at(topic)
    deliver(topic, 3, 4)
    viewer.close()
    deliver(topic, 5, 5)
    viewer.write(b"more")
    assert (viewer.state, viewer.position, viewer.events) == (ViewerState.CLOSING, entry(4).id, 4)
    assert ids(viewer) == [str(each.id) for each in entries(3, 4)]
    assert topic.groups == {}


def test_a_replaying_viewer_that_closes_keeps_its_cursor() -> None:
    """The topic's end is not its own."""
    viewer = viewer_of(topic_with(*entries(1, 5)), cursor=entry(2).id)
    viewer.close()
    assert (viewer.position, viewer.events) == (entry(2).id, 0)


def test_a_closed_viewer_holds_nothing_of_what_it_was_shown() -> None:
    """Its connection may last, and its view may be large."""
    viewer = viewer_of(topic_with())
    viewer.close()
    assert viewer.view is CLOSED


def test_after_the_close_the_first_rest_counts_as_progress() -> None:
    """The rest is measured from the close on, even if it is as large as what the viewer was stuck with before."""
    viewer = viewer_of(topic_with())
    written(viewer).unsent = 900
    viewer.pause_writing()
    assert [viewer.stall_seconds(now) for now in (10.0, 15.0)] == [0, 5]
    viewer.close()
    assert [viewer.stall_seconds(now) for now in (16.0, 18.0)] == [0, 2]


async def test_a_close_ends_the_wait_for_room() -> None:
    """A replay that waits for a transport that takes nothing goes on, to see that its viewer has closed."""
    viewer = viewer_of(topic_with(), room=10)
    viewer.write(b"x" * 20)
    waiting = asyncio.create_task(viewer.wait_writable())
    await asyncio.sleep(0)
    assert viewer.paused
    assert not waiting.done()
    viewer.close()
    async with asyncio.timeout(under_load(1)):
        await waiting
    assert viewer.paused, "the transport is as full as before"


async def test_nobody_waits_for_a_transport_with_room() -> None:
    """The wait returns at once, and leaves nothing behind."""
    viewer = viewer_of(topic_with(), cursor=START)
    async with asyncio.timeout(under_load(1)):
        await viewer.wait_writable()
    viewer.pause_writing()
    viewer.resume_writing()
    async with asyncio.timeout(under_load(1)):
        await viewer.wait_writable()


def test_a_transport_that_has_no_socket_of_its_own_is_not_written_to_directly() -> None:
    """Under TLS the bytes of a socket are not those of the stream: the viewer has no descriptor."""

    class Connection(Transport):
        def __init__(self, **extra: object) -> None:
            super().__init__()
            self.extra = extra

        def get_extra_info(self, name: str) -> object:
            return self.extra.get(name)

    class Socket:
        def fileno(self) -> int:
            return 7

    seen = []
    for extra in ({"socket": Socket()}, {"socket": Socket(), "sslcontext": object()}):
        viewer = viewer_of(topic_with())
        viewer.connection_made(Connection(**extra))  # type: ignore[arg-type]
        seen.append(viewer.fd)
    assert seen == [7, -1]


# --- who may change it -----------------------------------------------------------------------------------------------

OWNED = {"state", "cursor", "events", "view", "paused", "fd", "transport", "topic", "is_complete", "has_caught_up"}
OWNED |= {"last_marked", "stall_size", "stall_started_at"}


def test_nothing_but_the_viewer_assigns_what_its_transitions_do() -> None:
    """Other modules of the broker call its methods."""
    broker = Path(viewer_module.__file__).parents[1]
    assigned = [
        f"{path.relative_to(broker)}:{target.lineno}"
        for folder in ("live", "log", "streams", "ops")
        for path in (broker / folder).glob("*.py")
        for statement in ast.walk(ast.parse(path.read_text()))
        for target in targets_of(statement)
        if target.attr in OWNED and isinstance(target.value, ast.Name) and target.value.id == "viewer"
    ]
    assert assigned == []


def targets_of(statement: ast.AST) -> list[ast.Attribute]:
    """The attributes that a statement assigns."""
    if not isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
        return []
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    flat = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [target for target in flat if isinstance(target, ast.Attribute)]
