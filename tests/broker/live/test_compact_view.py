"""The view of a replay in short: filtered first, then joined; everything else as in the plain view."""

from __future__ import annotations

import json

from broker.live.compact_view import CompactView
from broker.live.topic import Topic
from broker.live.view import RenderedOnce, StreamView, TypeFilter
from broker.live.viewer import Viewer
from emitter.events import Event, MessageDelta, Status
from emitter.store.append import prepare
from emitter.wire.entries import Entry
from emitter.wire.ids import START
from emitter.wire.redact import Redactor
from tests.broker.sse_reader import Frame, parse


def entry(seq: int, event: Event | None = None) -> Entry:
    """A chunk, or another event."""
    stored = prepare(event or MessageDelta(message_id="m", delta=f"{seq} "), "ex_1", redact=Redactor(), ts=seq)
    return Entry(1000 + seq, seq, stored.type.encode(), stored.json)


LOG = [entry(seq, Status(status="s", message="m") if seq == 4 else None) for seq in range(1, 8)]


def frames(data: bytes) -> list[tuple[str, str]]:
    """Id and text of each."""
    return [(frame.id, text_of(frame)) for frame in parse(data)]


def text_of(frame: Frame) -> str:
    data = json.loads(frame.data)["data"]
    return str(data.get("delta", data.get("status")))


def test_neighbours_are_joined() -> None:
    """Chunks on both sides of another event stay apart; the ids are those of the last."""
    view = CompactView(StreamView(chunked=False), 0)
    assert frames(view.render(LOG)) == [("1003-3", "1 2 3 "), ("1004-4", "s"), ("1007-7", "5 6 7 ")]
    assert view.render([]) == b""


def test_what_is_filtered_out_is_between_no_neighbours() -> None:
    """The filter comes first."""
    view = CompactView(StreamView(chunked=False, types=TypeFilter("message:*")), 0)
    assert frames(view.render(LOG)) == [("1007-7", "1 2 3 5 6 7 ")]


def test_only_what_is_rendered_is_joined() -> None:
    """`encode` is what the live path writes: each event as it is, the same bytes as in the plain view."""
    plain = StreamView(named=False, heartbeat_event=True, heartbeat_seconds=3)
    view = CompactView(plain, 0)
    assert view.encode(LOG) == plain.encode(LOG)
    assert (view.heartbeat, view.heartbeat_seconds, view.live) == (plain.heartbeat, 3, plain)


def test_the_tail_of_a_topic_is_joined_for_those_who_want_it() -> None:
    """A viewer that resumes from memory gets it in its own view, and the bytes of the two are not mixed up."""
    topic: Topic[Viewer] = Topic("log", is_execution=True)
    topic.accept(LOG)
    plain = StreamView(chunked=False)
    missing = topic.missing(START)
    assert missing is not None
    for _ in range(2):
        assert len(parse(topic.render_tail(plain, missing))) == 7
        assert len(parse(topic.render_tail(CompactView(plain, 0), missing))) == 3


def test_views_of_one_kind_share_bytes() -> None:
    """Two that differ in the filter, the names or the compactness have bytes of their own."""
    plain = [StreamView(), StreamView(named=False), StreamView(types=TypeFilter("message:*"))]
    views = [*plain, *(CompactView(view, 0) for view in plain)]
    assert len({view.key for view in views}) == 6
    once = RenderedOnce()
    assert once.get(views[3], LOG) is once.get(CompactView(StreamView(), 0), LOG)
