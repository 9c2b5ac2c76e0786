"""Log entries as events: those whose values are only passed on are not made into objects, and say the same."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from broker.executions.decoding import decode_entry, decode_shown
from emitter import events
from emitter.errors import InvalidEvent
from emitter.wire import envelope
from emitter.wire.ascii_json import ascii_json
from emitter.wire.entries import Entry
from tests.broker.executions.test_state import recorded
from tests.protocols.made_up import EXECUTION, MadeUp

VALUES = [{"a": [1, {"b": None}]}, [[]], "text é\u2028", "", None, 1, -0.5, 1e300, True, {}]


def entry(event: events.Event) -> Entry:
    name = envelope.event_type(event)
    return Entry(
        1, 1, name.encode(), envelope.envelope(name, EXECUTION, envelope.encode_data(event), ts=1, max_bytes=0)
    )


def encode(event: events.Event) -> bytes:
    """As renderers do."""
    return ascii_json(msgspec.json.encode(event))


def passed_on() -> Iterator[events.Event]:
    for value in VALUES:
        yield events.ToolStart(call_id="c", tool_name="t", params=value)
        yield events.ToolComplete(call_id="c", tool_name="t", result=value, duration=1)
        about = {"call_id": "c", "model": "m", "input_tokens": 1, "output_tokens": 2, "duration": 0.5}
        yield events.ModelCall(**about, prompt=value, answer=value, error="e")
        yield events.Custom(name="x", data={"a": value})


@pytest.mark.parametrize("event", list(passed_on()), ids=lambda event: event.type)
def test_what_is_passed_on_is_the_same_json(event: events.Event) -> None:
    """Whatever the value, the event has the same type, the same fields, and the same JSON."""
    head, shown = decode_shown(entry(event))
    whole_head, whole = decode_entry(entry(event))
    assert head.type == whole_head.type
    assert type(shown) is type(whole)
    assert encode(shown) == encode(whole)


def test_only_text_and_null_are_made() -> None:
    """Who passes a value on tells text and null from the rest; no object is made of that."""
    for value in VALUES:
        _, shown = decode_shown(entry(events.ToolComplete(call_id="c", tool_name="t", result=value, duration=1)))
        assert isinstance(shown, events.ToolComplete)
        assert shown.result == value if isinstance(value, str | None) else isinstance(shown.result, msgspec.Raw)


@pytest.mark.parametrize("seed", range(6))
def test_whole_logs(seed: int) -> None:
    """Of any log, both ways of decoding say the same."""
    for each in (*recorded("every_event.jsonl"), *MadeUp(seed).log(300)):
        shown, whole = decode_shown(each)[1], decode_entry(each)[1]
        assert type(shown) is type(whole)
        assert encode(shown) == encode(whole)


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("tool:start", b'{"callId":"c","toolName":"t"}'),
        ("tool:start", b'{"callId":"c","toolName":"t","params":{"a":01}}'),
        ("tool:start", b'{"callId":"c","toolName":"t","params":"\xff"}'),
        ("tool:complete", b'{"callId":1,"toolName":"t","result":1,"duration":1}'),
        ("tool:complete", b"[]"),
        ("custom:x", b"[1]"),
        ("custom:X", b"{}"),
        ("custom:x", b'{"a":"\xff"}'),
        ("of:later", b"{}"),
    ],
)
def test_what_is_no_event(type_: str, data: bytes) -> None:
    """What one refuses the other refuses."""
    told = Entry(1, 1, type_.encode(), envelope.envelope(type_, EXECUTION, data, ts=1))
    with pytest.raises(InvalidEvent):
        decode_entry(told)
    with pytest.raises(InvalidEvent):
        decode_shown(told)


@pytest.mark.parametrize("value", [b'{"a":\n1}', b"[1,\r\n2]", '{"a":"\u2028"}'.encode()])
def test_json_that_no_emitter_wrote(value: bytes) -> None:
    """A line end or a character outside of ASCII never reaches a client as it is."""
    data = b'{"callId":"c","toolName":"t","params":%b}' % value
    told = Entry(1, 1, b"tool:start", envelope.envelope("tool:start", EXECUTION, data, ts=1))
    _, shown = decode_shown(told)
    assert shown == decode_entry(told)[1]
    assert isinstance(shown, events.ToolStart)
    assert not isinstance(shown.params, msgspec.Raw)


@pytest.mark.parametrize("depth", [10, 130, 200, 985])
def test_depth(depth: int) -> None:
    """What is nested too deep is clipped before it is passed on."""
    data = b'{"callId":"c","toolName":"t","params":%b}' % (b"[" * depth + b"]" * depth)
    told = Entry(1, 1, b"tool:start", envelope.envelope("tool:start", EXECUTION, data, ts=1))
    assert msgspec.json.encode(decode_shown(told)[1]) == msgspec.json.encode(decode_entry(told)[1])
