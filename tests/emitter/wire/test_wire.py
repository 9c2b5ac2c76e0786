"""Ids, keys, envelopes: what may be stored and how it is written."""

from __future__ import annotations

import datetime
import json
import random
from typing import Any

import msgspec
import pytest

from emitter import events
from emitter.errors import InvalidEvent, PayloadTooLarge
from emitter.wire import ascii_json, entries, envelope, ids
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId
from emitter.wire.keys import Owner

# One event of every type, with all its fields.
ALL_EVENTS: list[events.Event] = [
    events.ExecutionQueued(task="t", agent="a"),
    events.ExecutionStarted(task="t", started_at=1, attempt=1),
    events.PlanCreated(plan=events.Plan("g", [events.Phase("p", "P")])),
    events.PhaseStart(phase_id="p", phase_name="P", phase_index=0),
    events.PhaseComplete(phase_id="p", phase_name="P", duration=1.5),
    events.Thinking(thought="hm", iteration=1, visible=False),
    events.ThinkingDelta(message_id="m", delta="d"),
    events.MessageDelta(message_id="m", delta="d"),
    events.MessageComplete(
        message_id="m", text="t", usage=events.Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    ),
    events.ToolStart(call_id="c", tool_name="t", params={"q": [1, None]}),
    events.ToolProgress(call_id="c", progress=5, message="m"),
    events.ToolComplete(call_id="c", tool_name="t", result=None, duration=0.1),
    events.ToolError(call_id="c", tool_name="t", error="e", duration=0.1),
    events.Status(status="s", message="m"),
    events.Progress(progress=100, current_action="a", specialist="s"),
    events.SpecialistActivated(specialist="s", task="t", icon="i"),
    events.SpecialistComplete(specialist="s", summary="y"),
    events.PartialResult(result=[1], specialist="s"),
    events.Synthesis(message="m", specialists_complete=["a"], specialists_pending=[]),
    events.Artifact(artifact_id="a", media_type="text/plain", text="t", append=True, last=True),
    events.UsageTotals(input_tokens=1, output_tokens=2, total_tokens=3, cost_usd=0.1, model="m"),
    events.InputRequired(input_id="i", prompt="p", kind="choice", options=["a"], expires_at=5),
    events.InputReceived(input_id="i", by="alice", value=False),
    events.UserMessage(message_id="u", by="alice", mode="interrupt", text="t", data={"any": ["thing"]}),
    events.UserMessageTaken(message_ids=["u", "v"], attempt=2),
    events.UserMessageDropped(message_id="u", reason="ended"),
    events.ChildStarted(execution_id="ch_1", agent="a", task="t", key="k", detached=True),
    events.ChildEnded(
        execution_id="ch_1",
        state="failed",
        summary="no",
        usage=events.Usage(input_tokens=1, output_tokens=2, total_tokens=3),
    ),
    events.ModelCall(
        call_id="c",
        model="m",
        provider="p",
        prompt=[1],
        answer={"a": 1},
        input_tokens=1,
        output_tokens=2,
        cost_usd=0.5,
        duration=1.5,
        first_token_seconds=0.5,
        error="e",
    ),
    events.Timeout(message="m", action="stopping"),
    events.BudgetNotice(limit="toolCalls", spent=8, max=10, action="continuing"),
    events.SandboxViolation(rule="r", detail="d"),
    events.ExecutionSuperseded(from_seq=3, attempt=2),
    events.ExecutionComplete(result={"a": 1}, duration=2, tokens_used=5),
    events.ExecutionError(error="e", code="c"),
    events.ExecutionCancelled(reason="r", by="b"),
    events.Custom(name="a.b-c_1", data={"any": ["thing"]}),
]


def stored(event: events.Event, **options: Any) -> bytes:
    return envelope.envelope(envelope.event_type(event), "ex_1", envelope.encode_data(event), ts=5, **options)


@pytest.mark.parametrize("event", ALL_EVENTS, ids=envelope.event_type)
def test_every_event_reads_back_as_it_was_written(event: events.Event) -> None:
    """What the emitter writes, a reader gets: the same type and the same fields."""
    head, back = envelope.decode_envelope(stored(event))
    assert (head.type, head.execution_id, head.ts, head.request_id) == (envelope.event_type(event), "ex_1", 5, None)
    assert back == event


def test_every_event_of_the_catalogue_is_tried() -> None:
    """The list above has all of them."""
    assert {type(event) for event in ALL_EVENTS} == {*events.CATALOGUE, events.Custom}


def test_the_envelope_is_what_its_struct_says() -> None:
    """The joined bytes are those of the encoder, optional keys included."""
    traceparent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    keys = envelope.envelope_keys(request_id='r"\n', agent="é\u2028", parent_id="p", traceparent=traceparent)
    event = events.Thinking(thought="hm")
    head = envelope.Envelope(
        type="thinking",
        execution_id="ex_1",
        ts=5,
        traceparent=traceparent,
        request_id='r"\n',
        agent="é\u2028",
        parent_id="p",
        data=msgspec.Raw(envelope.encode_data(event)),
    )
    assert stored(event, keys=keys) == ascii_json.ascii_json(msgspec.json.encode(head))
    assert envelope.decode_envelope(stored(event, keys=keys))[0].agent == "é\u2028"


NASTY = [
    "\r",
    "\n",
    "\r\n",
    "\0",
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b\x0c\x1c\x1d\x1e\x1f",
    "\x7f",
    '"',
    "\\",
    "\\n",
    "é",
    "😀",
]


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_no_text_breaks_the_line(text: str) -> None:
    """Whatever stands in any text field, an event is one line of ASCII, and reads back unchanged."""
    for event in (
        events.Thinking(thought=text),
        events.ToolStart(call_id=text, tool_name=text, params={text: [text]}),
        events.Status(status=text, message=text),
        events.Custom(name="x", data={text: text}),
        events.InputRequired(input_id="i", prompt=text, kind="form", schema={text: text}),
    ):
        line = stored(event, keys=envelope.envelope_keys(text, text, text))
        assert line.isascii()
        assert len(line.decode().splitlines()) == 1
        assert not any(byte < 0x20 for byte in line)
        assert envelope.decode_envelope(line)[1] == event


def test_random_text_survives() -> None:
    """Any Unicode text is stored in ASCII and read back, also by another JSON reader."""
    chance = random.Random(3)
    for _ in range(300):
        ranges = chance.choices([(0, 0x80), (0x80, 0xD800), (0xE000, 0x110000)], k=chance.randrange(1, 20))
        text = "".join(chr(chance.randrange(*each)) for each in ranges)
        line = stored(events.Thinking(thought=text))
        assert line.isascii()
        assert json.loads(line)["data"]["thought"] == text


class Opaque:
    pass


def recursive() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


class Unlisted(events.Event, frozen=True):
    type = "made:up"
    text: str


@pytest.mark.parametrize(
    "event",
    [
        events.Thinking(thought=5),  # type: ignore[arg-type]
        events.Thinking(thought=None),  # type: ignore[arg-type]
        events.Thinking(thought="\ud800"),
        events.Progress(progress=101),
        events.Progress(progress=-1),
        events.Progress(progress=True),
        events.Progress(progress=float("nan")),
        events.Progress(progress="5"),  # type: ignore[arg-type]
        events.PhaseComplete(phase_id="p", phase_name="P", duration=float("inf")),
        events.ToolComplete(call_id="c", tool_name="t", result=1, duration=float("nan")),
        events.ToolComplete(call_id="c", tool_name="t", result={"a": [float("nan")]}, duration=1),
        events.ToolComplete(call_id="c", tool_name="t", result={"a": [None, float("-inf")]}, duration=1),
        events.ToolComplete(call_id="c", tool_name="t", result=Opaque(), duration=1),
        events.ToolComplete(call_id="c", tool_name="t", result={"a": {("k",): 1}}, duration=1),
        events.ToolComplete(call_id="c", tool_name="t", result={None: 1}, duration=1),
        events.ToolComplete(call_id="c", tool_name="t", result=recursive(), duration=1),
        events.ToolComplete(call_id="c", tool_name="t", result=deep(5000), duration=1),
        events.ToolComplete(call_id="c", tool_name="t", result=10**5000, duration=1),
        events.ToolComplete(call_id="c", tool_name="t", result={"\udfff": 1}, duration=1),
        events.PlanCreated(plan="p"),  # type: ignore[arg-type]
        events.PlanCreated(plan=events.Plan("g", [("a", "b")])),  # type: ignore[list-item]
        events.InputRequired(input_id="i", prompt="p", kind="guess"),  # type: ignore[arg-type]
        events.Timeout(message="m", action="waiting"),  # type: ignore[arg-type]
        events.Custom(name="Upper", data={}),
        events.Custom(name="a:b", data={}),
        events.Custom(name="a\n", data={}),
        events.Custom(name="", data={}),
        events.Custom(name="x" * 65, data={}),
        events.Custom(name=5, data={}),  # type: ignore[arg-type]
        events.Custom(name="x", data=[1]),  # type: ignore[arg-type]
        events.Custom(name="x", data={"a": float("nan")}),
        Unlisted(text="x"),
        "thinking",
        None,
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_has_no_form_on_the_wire_is_refused(event: Any) -> None:
    """Wrong types, NaN, half surrogates, objects, cycles, absurd depth: a clear error, before anything is stored."""
    with pytest.raises(InvalidEvent) as caught:
        envelope.encode_data(event)
    assert caught.value.detail


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**100), 10**400, 0, -1, 1e300, 0.1, None, [], {}, "", deep(100)])
def test_values_are_stored_exactly(value: Any) -> None:
    """Numbers of any size, empty things, null and deep values come back as they were."""
    event = events.PartialResult(result=value)
    assert envelope.decode_event("partial:result", envelope.encode_data(event)) == event


def test_usual_python_values_have_a_form() -> None:
    """Dates, tuples, sets, integer keys and structs are written as JSON has them."""
    value = {1: (datetime.date(2026, 11, 21), {5}), "p": events.Phase("a", "b")}
    data = envelope.encode_data(events.PartialResult(result=value))
    assert data == b'{"result":{"1":["2026-11-21",[5]],"p":{"id":"a","name":"b"}}}'


def test_too_large_names_the_limit() -> None:
    """The error carries size and limit, of the event as a stream has it; just below the limit is fine, and 0 is no
    limit."""
    event = events.Thinking(thought="x" * 1000)
    longest = b"id: 123456789012345-123456789012345\nevent: thinking\ndata: %b\n\n" % stored(event)
    size = len(longest)
    assert stored(event, max_bytes=size) == stored(event)
    with pytest.raises(PayloadTooLarge, match=f"{size} bytes .* {size - 1} bytes .*RUNCAST_MAX_EVENT_BYTES"):
        stored(event, max_bytes=size - 1)
    assert len(stored(events.Thinking(thought="x" * 100_000), max_bytes=0)) > 100_000
    with pytest.raises(PayloadTooLarge):
        stored(events.Thinking(thought="é" * 20_000))  # the size is that of what is stored


@pytest.mark.parametrize("value", [5, b"x", "\ud800", ["a"]])
def test_envelope_keys_are_text(value: Any) -> None:
    """What is no text cannot stand in an envelope, where every reader expects some."""
    for name in ("request_id", "agent", "parent_id"):
        with pytest.raises(InvalidEvent):
            envelope.envelope_keys(**{name: value})


GOOD_IDS = ["a", "ex_1", "A-b_9", "x" * 64]
BAD_IDS = [
    "",
    "x" * 65,
    "a b",
    "a:b",
    "a{b",
    "a}b",
    "a*",
    "a?",
    "[a]",
    "a\n",
    "\na",
    "a\0",
    "é",
    "a/b",
    "a.b",
    5,
    None,
    b"a",
]


@pytest.mark.parametrize("execution_id", BAD_IDS, ids=ascii)
def test_execution_ids_are_checked(execution_id: Any) -> None:
    """Nothing but letters, digits, _ and - reaches a key."""
    with pytest.raises(InvalidEvent):
        Owner("alice").execution(execution_id)


def test_execution_ids_that_are_good() -> None:
    """And these do, in keys of one hash slot."""
    for execution_id in GOOD_IDS:
        keys = Owner("alice@example.com", "acme").execution(execution_id)
        assert keys.log == f"rc:{{acme:alice@example.com}}:x:{execution_id}:log"
        assert all(key.startswith("rc:{acme:alice@example.com}:") for key in keys)


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "a b", "a:b", "a{b", "a}", "*", "a\n", "a\0", "é", "a/b", 5], ids=ascii
)
def test_owners_are_checked(name: Any) -> None:
    """User and organisation cannot hold what would break a key."""
    with pytest.raises(InvalidEvent):
        Owner(name)
    with pytest.raises(InvalidEvent):
        Owner("alice", name)
    assert Owner("auth0|a.b+c=d~e@f-g_1").prefix == "rc:{default:auth0|a.b+c=d~e@f-g_1}:"


@pytest.mark.parametrize("input_id", ["", "x" * 65, "a b", "a:b", "a\n", "é"], ids=ascii)
def test_input_ids_are_checked(input_id: str) -> None:
    """They are names in the record."""
    for event in (
        events.InputRequired(input_id=input_id, prompt="p", kind="text"),
        events.InputReceived(input_id=input_id, by="a"),
    ):
        with pytest.raises(InvalidEvent):
            envelope.append_mark(event, envelope.encode_data(event))


def test_marks() -> None:
    """What the append script does besides storing follows from the type."""
    marks = {envelope.event_type(event): envelope.append_mark(event, b"{}") for event in ALL_EVENTS}
    special = {name: mark for name, mark in marks.items() if mark != "f"}
    assert special == {
        "execution:queued": "s:queued",
        "execution:started": "s:running",
        "execution:superseded": "t:2",
        "execution:complete": "s:completed",
        "execution:error": "s:failed",
        "execution:cancelled": "s:cancelled",
        "tool:start": "c",
        "usage": "u:3 100000000",
        "budget": "b:toolCalls.continuing",
        "thinking:delta": "",
        "message:delta": "",
        "tool:progress": "",
        "input:required": "w:i {}",
        "input:received": "r:i {}",
        "user:message": "m:u 50 i {}",
        "user:message:taken": "y:2 - u v",
        "user:message:dropped": "x:u ended",
    }
    assert {name for name, mark in marks.items() if mark == ""} == {n for n in marks if not envelope.in_feed(n)}


def test_what_may_change_the_state() -> None:
    """Exactly the types whose mark tells the append script of a state or an input; and those of a later version."""
    marks = {envelope.event_type(each): envelope.append_mark(each, b"{}") for each in ALL_EVENTS}
    counting = tuple(type_ for type_, mark in marks.items() if mark[:2] in ("u:", "b:"))
    changing = {type_ for type_, mark in marks.items() if mark[1:2] == ":"} - {*counting}
    changing = {type_ for type_ in changing if not type_.startswith("user:message")}
    assert {
        each.type for each in ALL_EVENTS if envelope.may_change_state(envelope.event_type(each).encode())
    } == changing
    assert envelope.may_change_state(b"hologram")


@pytest.mark.parametrize(
    "text", ["", "5", "5-", "-5", "a-1", "1-1-1", "1-1\n", " 1-1", "\u0661-1", "1-" + "9" * 16, "-1-1", "1--1"]
)
def test_event_ids_are_checked(text: str) -> None:
    """Two plain numbers and a dash, or no id."""
    with pytest.raises(ValueError, match="not an event id"):
        ids.parse_event_id(text)


def test_event_ids_read_back_and_compare() -> None:
    """An id is a time and an ordinal."""
    assert ids.parse_event_id("1763682345123-17") == EventId(1763682345123, 17)
    assert str(EventId(5, 6)) == "5-6"


def test_made_up_ids_sort_by_time() -> None:
    """Generated execution ids are valid, unique, and sort by when they were made."""
    made = [ids.new_execution_id() for _ in range(200)]
    assert len(set(made)) == 200
    assert [each[:13] for each in made] == sorted(each[:13] for each in made)
    assert all(ids.check_execution_id(each).startswith("ex_") and len(each) == 29 for each in made)


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("nonsense", b"{}"),
        ("custom:", b"{}"),
        ("custom:A", b"{}"),
        ("custom:x", b"[]"),
        ("thinking", b"{}"),
        ("thinking", b'{"thought":5}'),
        ("thinking", b"not json"),
        ("thinking", b'{"thought":"\xff"}'),
        ("thinking", b'{"thought":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ],
)
def test_reading_what_is_no_event(type_: str, data: bytes) -> None:
    """A clear error with the type, whatever the bytes are."""
    with pytest.raises(InvalidEvent):
        envelope.decode_event(type_, data)


def test_messages_and_streams_hold_the_same_entries() -> None:
    """The lines of a pub/sub message and the rows of a stream, in both shapes, are the same entries."""
    line = stored(events.Thinking(thought="a b\nc"))
    message = b"5-1 thinking " + line + b"\n" + b"6-2 custom:x {}\n"
    rows: Any = [(b"5-1", {b"thinking": line}), (b"6-2", [b"custom:x", b"{}"])]
    expected = [Entry(5, 1, b"thinking", line), Entry(6, 2, b"custom:x", b"{}")]
    assert entries.parse_message(message) == entries.parse_stream(rows) == expected
    assert expected[1].id == EventId(6, 2)
