"""The stream of `live=sse`: exact bytes, places that can be gone on from, and what is said of the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.live.rendering import RenderedView
from broker.live.view import TypeFilter
from broker.protocols.ai_sdk.approvals import Approvals
from broker.protocols.ai_sdk.chunk_items import ChunkItems, Chunks
from broker.protocols.ai_sdk.renderer import Renderer as AiSdk
from broker.protocols.durable_streams.items import EventItems
from broker.protocols.durable_streams.offsets import EPOCH, INTERVAL_SECONDS, next_cursor, offset_of, place_of
from broker.protocols.durable_streams.renderer import Renderer
from broker.protocols.item_streams import Items
from emitter import events
from emitter.wire.ids import START, EventId
from tests.broker.executions.test_state import recorded
from tests.edges import SseReader
from tests.protocols.made_up import EXECUTION
from tests.protocols.test_all_renderers import entries

GOLDEN = Path(__file__).parents[1] / "golden"
LOGS = ("every_event", "cancelled", "failed")
ASKS = [
    events.ExecutionStarted(task="t", started_at=1, attempt=1),
    events.InputRequired(input_id="i", prompt="Go on?", kind="approval"),
]


def at(interval: int) -> Any:
    return lambda: EPOCH + INTERVAL_SECONDS * interval + 1.0


def chunks(skip: int = 0, approvals: Approvals | None = None) -> ChunkItems:
    return ChunkItems(Chunks(EXECUTION, approvals=approvals), skip)


def read(data: bytes) -> tuple[list[Any], list[Any]]:
    """The items of a stream, and its controls."""
    frames = SseReader().feed(data)
    told = [(frame.event, json.loads(frame.data or "")) for frame in frames]
    items = [item for event, value in told if event == "data" for item in value]
    return items, [value for event, value in told if event == "control"]


def shown(items: Items, log: Any) -> tuple[list[Any], list[Any]]:
    renderer = Renderer(items, clock=at(7))
    return read(renderer.open() + b"".join(renderer.render([entry]) for entry in log))


def test_golden() -> None:
    """A log with every event type is shown in exactly these bytes."""
    renderer = Renderer(EventItems(START), clock=at(7))
    data = RenderedView(renderer, chunked=True).render_all(recorded("every_event.jsonl"))
    assert data.decode("ascii") == (GOLDEN / "durable_streams_every_event.txt").read_text()
    assert renderer.is_over


@pytest.mark.parametrize("name", LOGS)
def test_chunks_are_those_of_the_sdk(name: str) -> None:
    """Items are the chunks of the SDK's own stream, and the offset is their number: from each of them on there is the
    rest, and the last control says that there is no more."""
    log = recorded(f"{name}.jsonl")
    native = AiSdk(EXECUTION)
    frames = SseReader().feed(native.open() + native.render(log))
    whole = [json.loads(frame.data or "") for frame in frames if frame.data != "[DONE]"]
    for skip in range(len(whole) + 1):
        items, controls = shown(chunks(skip), log)
        assert items == whole[skip:]
        assert controls[-1] == {"streamNextOffset": f"{len(whole):010d}", "upToDate": True, "streamClosed": True}


@pytest.mark.parametrize("name", LOGS)
def test_each_control_is_a_place(name: str) -> None:
    """From the offset of each control on, either form has what followed it, and nothing twice."""
    log = recorded(f"{name}.jsonl")
    renderer, events_ = Renderer(chunks(), clock=at(7)), Renderer(EventItems(START), clock=at(7))
    before, pieces = [renderer.open()], [b""]
    for number, entry in enumerate(log):
        before.append(renderer.render([entry]))
        pieces.append(events_.render([entry]))
        _, controls = read(pieces[-1])
        place = place_of(controls[-1]["streamNextOffset"])
        assert place == entry.id
        assert offset_of(place) == controls[-1]["streamNextOffset"]
        assert shown(EventItems(place), log[number + 1 :])[0] == [json.loads(rest.json) for rest in log[number + 1 :]]
    items, _ = read(b"".join(before))
    count = 0
    for piece in before:
        had, controls = read(piece)
        count += len(had)
        if controls:
            assert controls[-1]["streamNextOffset"] == f"{count:010d}"
    assert count == len(items)


def test_an_approval_closes_a_view() -> None:
    """Where the SDK's stream ends at a question, so does this one, though the execution goes on."""
    items, controls = shown(chunks(approvals=Approvals()), entries(ASKS))
    assert items[-1]["type"] == "finish"
    assert controls[-1]["streamClosed"] is True


def test_the_end_is_told() -> None:
    """`upToDate` stands in controls from the moment when all was shown, until a viewer falls behind; what is left out
    has no data, and the end is told all the same."""
    log = entries([*ASKS, events.ExecutionComplete(result=None, duration=1.0)])
    renderer = Renderer(EventItems(START, TypeFilter("status")), clock=at(7))
    view = RenderedView(renderer, chunked=True)
    assert not view.chunked, "its end is that of the connection"
    assert view.encode(log[:1]) == b""
    assert read(view.caught_up(1))[1] == [
        {"streamNextOffset": offset_of(log[0].id), "streamCursor": "7", "upToDate": True}
    ]
    live = view.meet({})
    assert live.apart().encode(log[1:2]) == b""
    behind = Renderer(EventItems(START), clock=at(7))
    behind.caught_up()
    assert "upToDate" in read(behind.render(log[:1]))[1][0]
    behind.fell_behind()
    assert "upToDate" not in read(behind.render(log[1:2]))[1][0]
    assert read(view.encode(log[2:])) == (
        [],
        [{"streamNextOffset": offset_of(log[2].id), "upToDate": True, "streamClosed": True}],
    )
    assert view.caught_up(1) == b""


def test_viewers_share() -> None:
    """Viewers at one place of a log share a renderer; one with another filter, or a client's cursor that is ahead, has
    its own."""
    log = entries(ASKS)
    made = [
        Renderer(EventItems(START), clock=at(7)),
        Renderer(EventItems(START), known_cursor=3, clock=at(7)),
        Renderer(EventItems(log[0].id), clock=at(7)),
        Renderer(EventItems(START, TypeFilter("status")), clock=at(7)),
        Renderer(EventItems(START), known_cursor=900, clock=at(7)),
    ]
    for renderer in (made[0], made[1], made[3], made[4]):
        renderer.render(log[:1])
    for renderer in made:
        renderer.caught_up()
    shared: dict[Any, None] = {}
    views = [RenderedView(renderer, chunked=True).meet(shared) for renderer in made]
    assert views[0] is views[1] is views[2]
    assert len({id(view) for view in views}) == 3
    assert made[0].fork().render(log[1:]) == made[2].render(log[1:])


def test_cursors_rise() -> None:
    """Also within one stream."""
    now = [7]
    renderer = Renderer(EventItems(START), clock=lambda: at(now[0])())
    log, seen = entries(ASKS), []
    for now[0], entry in zip((7, 9), log, strict=True):
        seen.append(read(renderer.render([entry]))[1][0]["streamCursor"])
    assert seen == ["7", "9"]
    assert next_cursor(-1, at(7)()) == 7
    assert 8 < next_cursor(8, at(7)()) <= 8 + 180


def test_offsets_sort() -> None:
    """As text, in the order of the log."""
    places = [START, EventId(999, 9), EventId(999, 10), EventId(1_764_000_000_000, 11), EventId(1_764_000_000_000, 100)]
    offsets = [offset_of(place) for place in places]
    assert offsets == sorted(offsets)
    assert [place_of(offset) for offset in offsets] == places
