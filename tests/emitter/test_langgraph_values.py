"""Values in JSON's form, cut to a size; and events that were too large for the log."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid
from typing import Any

import msgspec
import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel, SecretStr

from emitter.errors import HookFailed, PayloadTooLarge
from emitter.events import (
    Custom,
    Event,
    MessageComplete,
    MessageDelta,
    PlanCreated,
    Status,
    Thinking,
    ThinkingDelta,
    ToolComplete,
    ToolStart,
    Usage,
)
from emitter.integrations.langgraph.publish import publish
from emitter.integrations.langgraph.values import storable
from emitter.publishing.hooks import Origin
from emitter.testing import RecordingEmitter
from emitter.wire.envelope import encode_data
from emitter.wire.storable import clip, encoded_bytes


class Color(enum.Enum):
    RED = "r"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    at: Any = None


class Struct(msgspec.Struct):
    name: str


class Model(BaseModel):
    key: SecretStr
    n: int = 1


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, None, True, "x"]}, {"a": [1, 2.5, None, True, "x"]}),
        ({1: (1, 2), Color.RED: {3}}, {"1": [1, 2], "r": [3]}),
        ([Color.RED, Level.HIGH], ["r", 3]),
        ([float("nan"), float("inf")], [None, None]),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00+00:00"),
        ([uuid.UUID(int=1), decimal.Decimal("1.5")], ["00000000-0000-0000-0000-000000000001", "1.5"]),
        ([pathlib.Path("/a"), b"abc"], ["/a", "<3 bytes>"]),
        (KeyError("x"), "KeyError: 'x'"),
        (Point(1, Point(2)), {"x": 1, "at": {"x": 2, "at": None}}),
        (Struct("s"), {"name": "s"}),
        (Model(key=SecretStr("hush")), {"key": "SecretStr('**********')", "n": 1}),
        (AIMessage("", id="m", name="n"), {"content": "", "type": "ai", "id": "m", "name": "n"}),
        ("half \ud83d", "half \ufffd"),
        ({"half \ud83d": 1}, {"half \ufffd": 1}),
        (int, "<class 'int'>"),
        (Shy(), "<Shy>"),
    ],
)
def test_every_value_has_a_form_that_can_be_stored(value: Any, expected: Any) -> None:
    """What JSON cannot hold becomes what it says, or says of itself; secrets stay hidden; nothing raises."""
    assert storable(value) == expected
    encode_data(ToolStart(call_id="c", tool_name="t", params=storable(value)))


def test_a_circle_has_an_end() -> None:
    """Values that hold themselves, and values nested beyond reason, are cut off."""
    circle: dict[str, Any] = {}
    circle["self"] = circle
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    for value in (circle, deep):
        encode_data(ToolStart(call_id="c", tool_name="t", params=storable(value)))


@pytest.mark.parametrize(
    "value",
    ["é" * 5000, ["x" * 10] * 5000, {f"k{n}": n for n in range(5000)}, [[["y" * 3000]] * 3] * 3, "\U0001f600" * 999],
)
@pytest.mark.parametrize("max_bytes", [200, 1000, 4000])
def test_what_is_clipped_fits_and_says_so(value: Any, max_bytes: int) -> None:
    """The result is within the limit, of the same kind, and marked; what fits is left as it is."""
    clipped = clip(value, max_bytes)
    assert encoded_bytes(clipped) <= max_bytes
    assert type(clipped) is type(value) or clipped == {"clipped": True}
    assert "clipped" in str(clipped)
    assert clip(value, 10**6) is value


def test_much_of_a_long_text_is_kept() -> None:
    """A clipped text is at least a third as long as would fit."""
    assert len(clip("x" * 100_000, 10_000)) > 3_000


class Small:
    """An emitter whose log takes small events."""

    def __init__(self, max_bytes: int = 400) -> None:
        self.events: list[Event] = []
        self._max_bytes = max_bytes

    async def emit(self, event: Event) -> None:
        size = 100 + len(encode_data(event))
        if size > self._max_bytes:
            raise PayloadTooLarge(size, self._max_bytes)
        self.events.append(event)


async def test_a_long_text_comes_in_chunks() -> None:
    """Deltas are split, and a whole message becomes deltas and a completion with its usage; nothing is lost."""
    emitter = Small()
    text = "é\U0001f600 " * 100
    usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    await publish(emitter, ThinkingDelta(message_id="t", delta=text))
    await publish(emitter, MessageComplete(message_id="m", text=text, usage=usage))
    thought = [event.delta for event in emitter.events if isinstance(event, ThinkingDelta)]
    said = [event.delta for event in emitter.events if isinstance(event, MessageDelta)]
    assert ("".join(thought), "".join(said)) == (text, text)
    assert emitter.events[-1] == MessageComplete(message_id="m", usage=usage)


async def test_of_other_events_the_largest_value_is_clipped() -> None:
    """Everything else in the event stays as it was."""
    emitter = Small()
    long = "x" * 1000
    await publish(emitter, ToolStart(call_id="c1", tool_name="t", params={"a": long, "b": 1}))
    await publish(emitter, ToolComplete(call_id="c1", tool_name="t", result=long, duration=1.5))
    await publish(emitter, Thinking(thought=long))
    await publish(emitter, Status(status="s", message=long))
    start, end, thought, status = emitter.events
    assert isinstance(start, ToolStart)
    assert (start.call_id, start.params["b"]) == ("c1", 1)
    assert "[clipped: 1000 characters]" in start.params["a"]
    assert isinstance(end, ToolComplete)
    assert (end.duration, end.result[-27:]) == (1.5, " [clipped: 1000 characters]")
    assert "clipped" in str(thought)
    assert "clipped" in str(status)


async def test_of_what_cannot_be_clipped_there_is_a_note() -> None:
    """In place of an event that is nothing without what is too large stands its type and size."""
    emitter = Small()
    phases = [{"id": str(n), "name": "n" * 20} for n in range(100)]
    plan = msgspec.convert({"plan": {"goal": "g", "phases": phases}}, PlanCreated)
    await publish(emitter, plan)
    size = 100 + len(encode_data(plan))
    assert emitter.events == [Custom(name="langgraph", data={"type": "plan:created", "clipped": True, "bytes": size})]


async def test_a_hook_that_fails_is_not_got_round() -> None:
    """What a hook could not look at is not published in another form."""

    def broken(event: Event, origin: Origin) -> Event:
        raise RuntimeError

    emitter = RecordingEmitter(hooks=[broken])
    with pytest.raises(HookFailed):
        await publish(emitter, Thinking(thought="secret"))
    assert emitter.events == []
