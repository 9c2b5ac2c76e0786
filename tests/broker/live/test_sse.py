"""The bytes of the stream, against an independent parser and byte for byte."""

from __future__ import annotations

import itertools
import random

import pytest

from broker.base.reasons import CloseReason
from broker.live.sse import HEARTBEAT, HEARTBEAT_EVENT, LAST_CHUNK, chunk, control_frame, cursor_frame
from broker.live.view import MAX_PATTERNS, StreamView, TypeFilter
from broker.streams.reconnect import end_frames
from emitter.events import MessageDelta, Status
from emitter.store.append import prepare
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId
from emitter.wire.redact import Redactor
from tests.broker.sse_reader import Parser, dechunk, parse

TOOL = Entry(1763682345123, 17, b"tool:start", b'{"type":"tool:start","data":{"callId":"c1"}}')
TEXT = Entry(1763682345123, 18, b"message:delta", b'{"type":"message:delta","data":{"delta":"x"}}')
STATUS = Entry(1763682345130, 19, b"status", b'{"type":"status","data":{}}')


def plain(**options: object) -> StreamView:
    return StreamView(chunked=False, **options)  # type: ignore[arg-type]


def test_a_frame_is_what_the_contract_shows() -> None:
    """An event is its id, its type and one line of data, each line ended by LF, and a blank line."""
    assert plain().render([TOOL]) == (
        b'id: 1763682345123-17\nevent: tool:start\ndata: {"type":"tool:start","data":{"callId":"c1"}}\n\n'
    )


def test_unnamed_frames_have_no_event_line() -> None:
    """With named=false every event is a default `message` event that still has its id."""
    assert plain(named=False).render([TOOL]) == (
        b'id: 1763682345123-17\ndata: {"type":"tool:start","data":{"callId":"c1"}}\n\n'
    )
    [frame] = parse(plain(named=False).render([TOOL]))
    assert (frame.event, frame.id) == ("message", "1763682345123-17")


def test_events_of_one_write_are_read_one_by_one() -> None:
    """Several entries make one write, which a parser reads as the same entries in order."""
    frames = parse(plain().render([TOOL, TEXT, STATUS]))
    assert [(frame.id, frame.event, frame.data) for frame in frames] == [
        (f"{ms}-{seq}", type_.decode(), json.decode()) for ms, seq, type_, json in (TOOL, TEXT, STATUS)
    ]


def test_chunked_coding_is_one_chunk_a_write() -> None:
    """A write is one chunk of lower case hexadecimal size, and unwraps to the plain bytes; nothing is no chunk."""
    body = plain().render([TOOL])
    assert StreamView().render([TOOL]) == b"%x\r\n" % len(body) + body + b"\r\n"
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert dechunk(StreamView().render([TOOL, TEXT]) + LAST_CHUNK) == (plain().render([TOOL, TEXT]), True, b"")
    assert StreamView().wrap(b"") == b""  # an empty chunk would end the body
    assert StreamView(types=TypeFilter("status")).render([TOOL]) == b""


def test_heartbeats_dispatch_nothing_unless_asked() -> None:
    """A heartbeat is a comment and one LF, or the `heartbeat` event for those who asked for it."""
    parser = Parser()
    assert plain().heartbeat == HEARTBEAT == b": hb\n"
    assert parser.feed(HEARTBEAT) == []
    assert parser.comments == ["hb"]
    assert StreamView().heartbeat == b"5\r\n: hb\n\r\n"
    [frame] = parse(plain(heartbeat_event=True).heartbeat)
    assert (frame.event, frame.data, frame.id) == ("heartbeat", "{}", "")
    assert plain(heartbeat_event=True).heartbeat == HEARTBEAT_EVENT


def test_a_heartbeat_between_frames_joins_nothing() -> None:
    """A heartbeat before, between and after frames leaves each frame what it is."""
    frame = plain().render([TOOL])
    assert parse(HEARTBEAT + frame + HEARTBEAT + frame + HEARTBEAT) == parse(frame + frame)


def test_control_frames_leave_the_cursor_alone() -> None:
    """A control frame has no id line, but for the one that moves the cursor, which has data too, since many clients
    forget an id without; `retry` sets the client's wait."""
    parser = Parser()
    parser.feed(plain().render([TOOL]))
    [frame] = parser.feed(control_frame("stream:live", {"replayed": 3}))
    assert frame == ("stream:live", '{"replayed":3}', "1763682345123-17")
    assert b"id:" not in control_frame("stream:live", {"replayed": 3})
    assert parser.feed(cursor_frame(EventId(5, 6))) == [("stream:cursor", '{"cursor":"5-6"}', "5-6")]
    assert len(parser.feed(control_frame("stream:open", {}, retry_ms=1234))) == 1
    assert (parser.retry, parser.last_id) == (1234, "5-6")


def test_no_control_block_is_without_data() -> None:
    """Many clients hand out a block without data as an empty event: when to come back is in the block of an event."""
    frames = [control_frame("stream:open", {}, retry_ms=5), *(end_frames(reason) for reason in CloseReason)]
    blocks = b"".join(frames).split(b"\n\n")[:-1]
    assert len(blocks) == len(frames)
    assert all(b"\ndata: {" in block for block in blocks)


def test_no_event_can_break_a_frame() -> None:
    """Whatever text an event holds, its frame is one event, without CR, NUL or a byte that is not ASCII."""
    ugly = "\r\n\n\r\0data: x\n\nid: 9-9\n\u0085\u2028\u2029\ufeff\U0001f600\x7f\x1b" + "\N{COMBINING ACUTE ACCENT}"
    events = [Status(status=ugly, message=ugly), MessageDelta(message_id=ugly, delta=ugly)]
    entries = []
    for seq, event in enumerate(events, 1):
        prepared = prepare(event, "ex_1", redact=Redactor(), request_id="r", agent=ugly)
        entries.append(Entry(1, seq, prepared.type.encode(), prepared.json))
    for named, chunked in itertools.product((True, False), (True, False)):
        data = StreamView(named=named, chunked=chunked).render(entries)
        assert data.isascii()
        body = dechunk(data)[0] if chunked else data
        assert b"\r" not in body
        assert b"\0" not in body
        assert [frame.id for frame in parse(body)] == ["1-1", "1-2"]
        assert [frame.data.encode() for frame in parse(body)] == [entry.json for entry in entries]


def test_any_split_of_the_bytes_reads_the_same() -> None:
    """Where the network cuts the stream makes no difference."""
    data = control_frame("stream:open", {}, retry_ms=5) + plain().render([TOOL, TEXT]) + HEARTBEAT
    whole, seed = parse(data), random.randrange(1 << 32)
    cuts = sorted(random.Random(seed).sample(range(len(data)), 20))
    parser, frames = Parser(), []
    for begin, end in itertools.pairwise([0, *cuts, len(data)]):
        frames += parser.feed(data[begin:end])
    assert frames == whole, f"seed {seed}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tool:start", {TOOL}),
        ("tool:*", {TOOL}),
        ("tool:*, status", {TOOL, STATUS}),
        ("status,status,status", {STATUS}),
        ("*", {TOOL, TEXT, STATUS}),
        ("message:*,tool:complete", {TEXT}),
        ("tool:star", set()),
        ("custom:my_app.x-1", set()),
    ],
)
def test_filters_take_names_and_prefixes(text: str, wanted: set[Entry]) -> None:
    """A filter lets through the named types and those that begin with a prefix, and no others."""
    view = plain(types=TypeFilter(text))
    assert {entry for entry in (TOOL, TEXT, STATUS) if view.render([entry])} == wanted
    assert view.render([TOOL, TEXT, STATUS]) == b"".join(
        plain().render([entry]) for entry in (TOOL, TEXT, STATUS) if entry in wanted
    )


@pytest.mark.parametrize("text", ["", " , ,", "a b", "Tool:*", "to*ol", "**", "tool:\nx", "x" * 81, "é", "a\r\nid: 1"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    """A pattern that could match nothing sane is an error and not an empty stream."""
    with pytest.raises(ValueError, match="types"):
        TypeFilter(text)


def test_a_filter_has_a_bounded_number_of_patterns() -> None:
    """Many repeats of a few names are those few; more names than the limit are refused."""
    TypeFilter(",".join(f"custom:a{n % MAX_PATTERNS}" for n in range(1000)))
    with pytest.raises(ValueError, match="types"):
        TypeFilter(",".join(f"custom:a{n}" for n in range(MAX_PATTERNS + 1)))


def test_views_that_see_the_same_share_a_key() -> None:
    """Two views have one key exactly when they make the same bytes of everything."""
    ways = [
        {"named": named, "types": types, "chunked": chunked, "heartbeat_event": beat}
        for named, types, chunked, beat in itertools.product(
            (True, False), ("", "tool:*", "tool:*,status"), (True, False), (True, False)
        )
    ]
    views = [StreamView(**{**way, "types": TypeFilter(way["types"]) if way["types"] else None}) for way in ways]  # type: ignore[arg-type]
    assert len({view.key for view in views}) == len(views)
    assert (
        StreamView(types=TypeFilter("status, tool:*")).key == StreamView(types=TypeFilter("tool:*,status,status")).key
    )
