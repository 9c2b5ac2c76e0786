"""The UI message stream: what of a log a chat page is shown, under the rules that its client holds the stream to."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from broker.protocols.ai_sdk.parts import MAX_OPEN
from broker.protocols.ai_sdk.renderer import MAX_CALLS, MAX_DATA, MAX_KNOWN, VOID, Renderer
from broker.protocols.kept import MAX_SAID
from emitter import events
from emitter.events import (
    Artifact,
    Custom,
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    MessageComplete,
    MessageDelta,
    ModelCall,
    PartialResult,
    PhaseComplete,
    PhaseStart,
    Progress,
    Status,
    Thinking,
    ThinkingDelta,
    ToolComplete,
    ToolError,
    ToolProgress,
    ToolStart,
    Usage,
)
from emitter.wire import envelope
from emitter.wire.entries import Entry
from tests.broker.executions.test_state import recorded

GOLDEN = Path(__file__).parents[1] / "golden"
EXECUTION = "ex_01jd5every0event0000000000"
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
RESTARTED = ExecutionStarted(task="t", started_at=2, attempt=2)
DONE = ExecutionComplete(result=None, duration=1.0)
Chunk = dict[str, Any]


class Client:
    """What the SDK's client (`processUIMessageStream` of 5 to 7, the strictest of them) holds a stream to, and the
    message that it makes of it. Unlike it, this one also minds what is left open."""

    def __init__(self) -> None:
        self.parts: list[Chunk] = []
        self.metadata: Chunk = {}
        self.over = False
        self.ending: str | None = None
        self._open: dict[tuple[str, str], Chunk] = {}
        self._calls: dict[str, Chunk] = {}
        self._in_step = False

    def take(self, chunk: Chunk) -> None:
        assert not self.over, "nothing follows the end"
        type_ = chunk["type"]
        assert self.ending is None or type_ == "finish", "only this follows an error or an abort"
        self.metadata |= chunk.get("messageMetadata") or {}
        if type_.startswith("data-"):
            return self._data(chunk)
        name, _, kind = type_.rpartition("-")
        if name in ("text", "reasoning"):
            return self._streamed(name, kind, chunk)
        if name.startswith("tool-"):
            return self._tool(chunk)
        assert type_ in ("start", "message-metadata", "start-step", "finish-step", "finish", "error", "abort"), type_
        if type_ == "start-step":
            assert not self._in_step
            self.parts.append({"type": "step-start"})
        if type_.endswith("-step"):
            assert not self._open, "a step ends only after its parts"
            self._in_step = type_ == "start-step"
        if type_ in ("finish", "error", "abort"):
            assert not self._open
            assert not self._in_step
            assert all(call["state"] != "input-available" for call in self._calls.values())
            self.ending, self.over = type_, type_ == "finish"
        return None

    def _streamed(self, name: str, kind: str, chunk: Chunk) -> None:
        key = (name, chunk["id"])
        assert self._in_step
        if kind == "start":
            assert key not in self._open
            self._open[key] = {"type": name, "id": chunk["id"], "text": ""}
            self.parts.append(self._open[key])
            return
        assert key in self._open, f"{kind} without a start"
        if kind == "delta":
            self._open[key]["text"] += chunk["delta"]
        else:
            del self._open[key]

    def _tool(self, chunk: Chunk) -> None:
        assert (chunk["dynamic"], chunk["providerExecuted"]) == (True, True)
        if chunk["type"] == "tool-input-available":
            assert self._in_step
            assert "input" in chunk
            self._calls[chunk["toolCallId"]] = {**chunk, "type": "tool"}
            self.parts.append(self._calls[chunk["toolCallId"]])
        assert chunk["toolCallId"] in self._calls, "an output without its input"
        self._calls[chunk["toolCallId"]]["state"] = chunk["type"].removeprefix("tool-")
        self._calls[chunk["toolCallId"]] |= {key: chunk[key] for key in ("output", "errorText") if key in chunk}

    def _data(self, chunk: Chunk) -> None:
        known = [part for part in self.parts if (part["type"], part.get("id")) == (chunk["type"], chunk["id"])]
        if known:
            known[0]["data"] = chunk["data"]
        else:
            self.parts.append(dict(chunk))

    def texts(self, type_: str = "text") -> list[str]:
        return [part["text"] for part in self.parts if part["type"] == type_]

    def data(self, name: str) -> dict[str, Any]:
        return {part["id"]: part["data"] for part in self.parts if part["type"] == "data-" + name}

    def calls(self) -> list[tuple[str, str]]:
        return [(part["toolCallId"], part["state"]) for part in self.parts if part["type"] == "tool"]


def entry(seq: int, event: Event, agent: str | None = None, parent_id: str | None = None) -> Entry:
    type_ = envelope.event_type(event)
    keys = envelope.envelope_keys(agent=agent, parent_id=parent_id)
    return Entry(
        1000 + seq, seq, type_.encode(), envelope.envelope(type_, "ex_1", envelope.encode_data(event), ts=1, keys=keys)
    )


def chunks(data: bytes) -> list[Chunk]:
    """The chunks of a whole response, which is ASCII in frames of one `data` line."""
    assert data.isascii()
    assert b"\r" not in data
    *frames, last = data.split(b"\n\n")
    assert last == b""
    bodies = [frame.removeprefix(b"data: ") for frame in frames]
    assert all(b"\n" not in body for body in bodies)
    if bodies[-1] == b"[DONE]":
        bodies.pop()
    return [json.loads(body) for body in bodies]


def show(*happened: Event | tuple[Event, str], attempt: int = 1, start: int = 1) -> Client:
    """The message that a client makes of these events; with a name beside an event, that is who speaks."""
    renderer = Renderer("ex_1", attempt)
    data = renderer.open()
    for seq, each in enumerate(happened, start):
        event, agent = each if isinstance(each, tuple) else (each, None)
        data += renderer.render([entry(seq, event, agent)])
    client = Client()
    for chunk in chunks(data):
        client.take(chunk)
    assert renderer.is_over == client.over == data.endswith(b"data: [DONE]\n\n")
    return client


def delta(text: str, message_id: str = "m") -> Event:
    return MessageDelta(message_id=message_id, delta=text)


def began(call_id: str = "c") -> Event:
    return ToolStart(call_id=call_id, tool_name="add", params={})


def ended(call_id: str = "c", result: Any = 3) -> Event:
    return ToolComplete(call_id=call_id, tool_name="add", result=result, duration=0.5)


# --- whole logs ------------------------------------------------------------------------------------------------------


def rendered(entries: list[Entry], attempt: int = 1, size: int = 1) -> bytes:
    """The response to a log that arrives in batches of this size."""
    renderer = Renderer(EXECUTION, attempt)
    data = renderer.open()
    for at in range(0, len(entries), size):
        data += renderer.render(entries[at : at + size])
    return data


def test_every_event() -> None:
    """A recorded log with every event type is rendered as recorded, character for character."""
    assert rendered(recorded("every_event.jsonl")) == (GOLDEN / "ai_sdk_every_event.txt").read_bytes()


def test_batches_do_not_matter() -> None:
    """The bytes depend on the log alone, not on how it arrives."""
    entries = recorded("every_event.jsonl")
    assert {rendered(entries, size=size) for size in (1, 2, 7, len(entries))} == {rendered(entries)}


@pytest.mark.parametrize(
    ("name", "ending", "reason"),
    [("failed", "error", "error"), ("cancelled", "abort", "other"), ("every_event", "finish-step", "stop")],
)
def test_the_last_chunks(name: str, ending: str, reason: str) -> None:
    """A response ends as its execution did, and always with `finish`; nothing is rendered after that."""
    entries = recorded(f"{name}.jsonl")
    renderer = Renderer(EXECUTION)
    data = renderer.render(entries)
    before, last = chunks(data)[-2:]
    assert (before["type"], last["type"], last["finishReason"]) == (ending, "finish", reason)
    assert renderer.is_over
    assert renderer.render(entries) == b""


@pytest.mark.parametrize("seed", range(30))
def test_no_log_breaks_a_client(seed: int) -> None:
    """Whatever order events come in, and wherever the log was trimmed, the client's rules are kept."""
    chance = random.Random(seed)
    ids = ["a", "b", "c"]

    def event() -> Event:
        id_ = chance.choice(ids)
        return chance.choice(
            [
                STARTED,
                delta("x", id_),
                delta("y", id_),
                MessageComplete(message_id=id_, text=chance.choice(["x", "xy", None])),
                ThinkingDelta(message_id=id_, delta="z"),
                Thinking(thought="whole"),
                began(id_),
                ended(id_),
                ToolError(call_id=id_, tool_name="add", error="no", duration=0.0),
                ToolProgress(call_id=id_, progress=1),
                PhaseStart(phase_id=id_, phase_name=id_),
                PhaseComplete(phase_id=id_, phase_name=id_),
                Progress(progress=1, specialist=chance.choice([None, id_])),
                InputRequired(input_id=id_, prompt="?", kind="text"),
                InputReceived(input_id=id_, by="alice", value=1),
                ExecutionSuperseded(from_seq=0, attempt=2),
                Artifact(artifact_id=id_, media_type="text/plain", text="t", append=True),
            ]
        )

    speakers = [None, "ann"]
    happened = [(event(), chance.choice(speakers)) for _ in range(200)]
    end = chance.choice([DONE, ExecutionError(error="e"), ExecutionCancelled()])
    show(*happened, end, attempt=chance.choice([1, 2]), start=chance.choice([1, 5]))  # type: ignore[arg-type]


# --- text and reasoning ----------------------------------------------------------------------------------------------


def test_a_message_is_one_part() -> None:
    """The chunks of a message are one part; those of another are another, also while both are written."""
    client = show(delta("a", "1"), delta("b", "2"), delta("c", "1"), delta("d", "2"))
    assert client.texts() == ["ac", "bd"]


def test_parts_stand_in_order() -> None:
    """What is said after a call stands after it, and so do thoughts."""
    client = show(delta("a"), began(), ended(), delta("b"), Thinking(thought="t"), delta("c"))
    assert [part["type"] for part in client.parts] == ["step-start", "text", "tool", "text", "reasoning", "text"]
    assert client.texts() == ["a", "b", "c"]


def test_no_two_parts_have_one_id() -> None:
    """What is said after a call is a part with an id of its own: a client takes a part for a repeat that has the id of
    one that ended in the same step."""
    told = [delta("a"), began(), ended(), delta("b"), MessageComplete(message_id="m"), delta("c")]
    shown = chunks(rendered([entry(number, event) for number, event in enumerate(told, 1)]))
    ids = [chunk["id"] for chunk in shown if chunk["type"] == "text-start"]
    assert len(set(ids)) == len(ids) == 3
    assert [chunk["id"] for chunk in shown if chunk["type"] == "text-end"] == ids[:2]


def test_others_do_not_interrupt() -> None:
    """A call of one specialist does not break up what another one says."""
    client = show((delta("a"), "ann"), (began(), "bob"), (delta("b"), "ann"))
    assert client.texts() == ["ab"]


def test_a_step_waits_for_text() -> None:
    """A phase that begins while text is written leaves the text whole: the step ends after it."""
    client = show(
        delta("a"),
        PhaseStart(phase_id="p", phase_name="P"),
        (began(), "bob"),
        delta("b"),
        MessageComplete(message_id="m"),
        delta("c", "n"),
    )
    kinds = [part["type"] for part in client.parts]
    assert kinds == ["step-start", "text", "data-phase", "tool", "step-start", "text"]
    assert client.texts() == ["ab", "c"]


@pytest.mark.parametrize(
    ("shown", "text", "texts", "said"),
    [
        ([], "whole", ["whole"], {}),
        (["who"], "whole", ["whole"], {}),
        (["who", "le"], "whole", ["whole"], {}),
        (["who", "le"], None, ["whole"], {}),
        (["secret"], "[redacted]", ["secret"], {"m": {"messageId": "m", "text": "[redacted]"}}),
    ],
)
def test_complete_text(shown: list[str], text: str | None, texts: list[str], said: Chunk) -> None:
    """A completion adds what its chunks left out; where it says something else, a data part has what counts."""
    client = show(*map(delta, shown), MessageComplete(message_id="m", text=text), DONE)
    assert (client.texts(), client.data("message")) == (texts, said)


def test_hidden_thoughts() -> None:
    """A thought that is not to be seen is not shown."""
    assert show(Thinking(thought="no", visible=False), Thinking(thought="yes")).texts("reasoning") == ["yes"]


@pytest.mark.parametrize(
    ("before", "result", "texts"),
    [
        ([], "42", ["42"]),
        ([Thinking(thought="Hm.")], "42", ["42"]),
        ([delta("It is 42.")], "42", ["It is 42."]),
        ([], {"answer": 42}, []),
        ([], "", []),
    ],
)
def test_a_result_that_is_text(before: list[Event], result: Any, texts: list[str]) -> None:
    """Where the agent wrote nothing, a result that is text is the answer; every result is in the metadata."""
    client = show(*before, ExecutionComplete(result=result, duration=1.0))
    assert (client.texts(), client.metadata["result"]) == (texts, result)


def test_who_speaks() -> None:
    """A part says who wrote it, if anybody in particular did, and in which call, if it was a sub-agent."""
    renderer = Renderer("ex_1")
    entries = [entry(1, delta("a"), "ann"), entry(2, delta("b", "n")), entry(3, delta("c", "o"), None, "c1")]
    shown = chunks(renderer.render([*entries, entry(4, delta("d", "p"), "bob", "c1")]))
    starts = [chunk for chunk in shown if chunk["type"] == "text-start"]
    assert starts == [
        {"type": "text-start", "id": "m.1", "providerMetadata": {"runcast": {"agent": "ann"}}},
        {"type": "text-start", "id": "n.2"},
        {"type": "text-start", "id": "o.3"},
        {"type": "text-start", "id": "p.4", "providerMetadata": {"runcast": {"agent": "bob", "parentId": "c1"}}},
    ]


# --- tools and data --------------------------------------------------------------------------------------------------


def test_a_call_without_parameters() -> None:
    """Model APIs want an object back, whatever older logs have, and also where the call's start was trimmed."""
    logged = [ToolStart(call_id="c", tool_name="t", params=None), ended("c"), ended("gone")]
    data = rendered([entry(number, event) for number, event in enumerate(logged, 1)])
    inputs = [chunk["input"] for chunk in chunks(data) if chunk.get("type") == "tool-input-available"]
    assert inputs == [{}, {}]


def test_a_call_of_a_model_is_data() -> None:
    """One part a call, for pages that show what was spent."""
    call = ModelCall(call_id="c", model="m", input_tokens=1, output_tokens=2, duration=0.5)
    [part] = [chunk for chunk in chunks(rendered([entry(1, call)])) if chunk.get("type") == "data-model-call"]
    assert part["id"] == "c"
    assert part["data"] == {"callId": "c", "model": "m", "inputTokens": 1, "outputTokens": 2, "duration": 0.5}


def test_an_end_without_its_start() -> None:
    """Where the log's head was trimmed, ends get a start, and the message says from where it is known."""
    client = show(ended(), MessageComplete(message_id="m", text="t"), DONE, start=7)
    assert client.calls() == [("c", "output-available")]
    assert (client.texts(), client.metadata["lostBefore"]) == (["t"], 7)


@pytest.mark.parametrize("end", [DONE, ExecutionError(error="e"), ExecutionCancelled()])
def test_nothing_stays_open(end: Event) -> None:
    """With the end, calls are no longer pending and questions no longer open; those that ended stay as they were."""
    asked = [InputRequired(input_id=id_, prompt="?", kind="text") for id_ in ("i", "j")]
    answered = InputReceived(input_id="j", by="alice", value=1)
    client = show(began("c"), began("d"), ended("d"), *asked, answered, delta("a"), end)
    assert client.calls() == [("c", "output-error"), ("d", "output-available")]
    assert {id_: part["state"] for id_, part in client.data("input").items()} == {"i": "closed", "j": "received"}


def test_a_question_is_one_part() -> None:
    """A question and its answer are one part, with what it takes to answer."""
    asked = InputRequired(input_id="i", prompt="Which?", kind="choice", options=["a", "b"])
    open_part = {
        "executionId": "ex_1", "inputId": "i", "prompt": "Which?", "kind": "choice", "options": ["a", "b"],
        "state": "required",
    }  # fmt: skip
    assert show(asked).data("input") == {"i": open_part}
    answered = show(asked, InputReceived(input_id="i", by="alice", value="a")).data("input")["i"]
    assert answered == open_part | {"state": "received", "by": "alice", "value": "a"}
    expired = show(asked, InputReceived(input_id="i", by=events.EXPIRED)).data("input")["i"]
    assert expired["state"] == "expired"


def test_an_answer_before_its_question() -> None:
    """A retry that asks what was answered meanwhile does not open the question again."""
    answered = InputReceived(input_id="i", by="alice", value=1)
    client = show(answered, InputRequired(input_id="i", prompt="?", kind="text"))
    assert client.data("input")["i"]["state"] == "received"


def test_data_that_changes_is_one_part() -> None:
    """Status, progress, phases and chunks keep their part; results, custom events and artifacts' chunks add up."""
    custom = Custom(name="acme", data={"a": 1})
    client = show(
        Status(status="a", message="A"),
        Status(status="b", message="B"),
        Progress(progress=1),
        Progress(progress=2),
        Progress(progress=3, specialist="progress"),
        PhaseStart(phase_id="p", phase_name="P", phase_index=0),
        PhaseComplete(phase_id="p", phase_name="P", duration=1.5),
        PartialResult(result=1),
        PartialResult(result=2),
        custom,
        custom,
        Artifact(artifact_id="a", media_type="text/plain", text="1"),
        Artifact(artifact_id="a", media_type="text/plain", text="2", append=True),
    )
    assert client.data("status") == {"status": {"status": "b", "message": "B"}}
    assert {id_: part["progress"] for id_, part in client.data("progress").items()} == {
        "progress": 2.0,
        "progress:progress": 3.0,
    }
    phase = {"id": "p", "name": "P", "state": "complete", "index": 0, "duration": 1.5}
    assert client.data("phase") == {"p": phase}
    assert [part["result"] for part in client.data("partial-result").values()] == [1, 2]
    assert list(client.data("custom").values()) == [{"name": "acme", "data": {"a": 1}}] * 2
    assert [part["text"] for part in client.data("artifact").values()] == ["1", "2"]


def test_metadata() -> None:
    """Usage, durations and the attempt are in the message's metadata."""
    usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    client = show(
        ExecutionQueued(task="t", agent="a"),
        STARTED,
        began(),
        ended(),
        MessageComplete(message_id="m", text="t", usage=usage),
        events.UsageTotals(input_tokens=4, output_tokens=5, total_tokens=9),
        ExecutionComplete(result=1, duration=2.0, tokens_used=9),
    )
    assert client.metadata == {
        "executionId": "ex_1",
        "agent": "a",
        "startedAt": 1,
        "attempt": 1,
        "tools": {"c": {"duration": 0.5}},
        "messages": {"m": {"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}}},
        "usage": {"inputTokens": 4, "outputTokens": 5, "totalTokens": 9},
        "result": 1,
        "duration": 2.0,
        "tokensUsed": 9,
    }


def test_a_newer_event_is_passed_over() -> None:
    """An event of a type that is not known here changes nothing."""
    renderer = Renderer("ex_1")
    strange = Entry(1, 1, b"dance", b'{"type":"dance","executionId":"ex_1","ts":1,"data":{}}')
    assert renderer.render([strange]) == b""
    assert chunks(renderer.render([entry(2, delta("a"))]))[-1]["delta"] == "a"


# --- attempts --------------------------------------------------------------------------------------------------------

LOST: list[Event] = [
    ExecutionQueued(task="t", agent="a"),
    STARTED,
    PhaseStart(phase_id="p", phase_name="P"),
    delta("lost"),
    began("c"),
    ended("c"),
    began("d"),
    InputRequired(input_id="i", prompt="?", kind="text"),
    ExecutionSuperseded(from_seq=1, attempt=2),
]
FOUND: list[Event] = [
    RESTARTED,
    began("c"),
    ended("c", 4),
    delta("found"),
    MessageComplete(message_id="m", text="found"),
    DONE,
]


def test_a_lost_attempt_is_marked() -> None:
    """What was shown of a lost attempt is marked as void, in a way that also a page of text alone shows."""
    client = show(*LOST, *FOUND)
    assert client.calls() == [("c", "output-error"), ("d", "output-error"), ("c", "output-available")]
    assert client.data("phase") == {"p": {"superseded": True}}
    assert client.data("input") == {"i": {"superseded": True}}
    assert client.data("superseded") == {"superseded-2": {"attempt": 2, "fromSeq": 1}}
    assert client.texts() == ["lost", VOID, "found"]
    shown = [part.get("text", part["type"]) for part in client.parts if part["type"] in ("text", "data-superseded")]
    assert shown == ["lost", VOID, "data-superseded", "found"], "the mark stands below all that is void"
    assert client.data("message") == {}, "what the lost attempt said of a message is forgotten"
    assert client.metadata["attempt"] == 2


def test_each_lost_attempt_is_marked_once() -> None:
    """A second takeover marks what the second attempt showed, and nothing again."""
    renderer = Renderer("ex_1")
    renderer.render([entry(seq, event) for seq, event in enumerate(LOST, 1)])
    status, again = Status(status="s", message="S"), ExecutionSuperseded(from_seq=9, attempt=3)
    marked = chunks(renderer.render([entry(10, RESTARTED), entry(11, status), entry(12, again)]))[2:]
    assert [chunk["type"] for chunk in marked] == ["data-status", "data-superseded"]
    end = ExecutionComplete(result="42", duration=1.0)
    assert show(*LOST, RESTARTED, end).texts() == ["lost", VOID, "42"]


def test_a_lost_attempt_that_showed_nothing() -> None:
    """Where no text was shown, none says that it is void; and a result that is text is shown after all."""
    end = ExecutionComplete(result="42", duration=1.0)
    assert show(STARTED, ExecutionSuperseded(from_seq=0, attempt=2), RESTARTED, end).texts() == ["42"]


def test_lost_attempts_are_not_shown_to_who_comes_later() -> None:
    """Who opens the stream in a later attempt sees that one as if there had been no other."""
    later = show(*LOST, *FOUND, attempt=2)
    assert (later.calls(), later.texts()) == ([("c", "output-available")], ["found"])
    assert [later.data(name) for name in ("phase", "input", "superseded")] == [{}, {}, {}]
    assert later.metadata["agent"] == "a"
    third = [ExecutionSuperseded(from_seq=9, attempt=3), ExecutionStarted(task="t", started_at=3, attempt=3)]
    assert show(*LOST, *FOUND[:-1], *third, delta("third"), DONE, attempt=3).texts() == ["third"]


@pytest.mark.parametrize(("rest", "texts"), [(FOUND, ["found"]), (FOUND[-2:], ["found"]), (FOUND[-1:], [])])
def test_a_later_attempt_whose_beginning_was_trimmed(rest: list[Event], texts: list[str]) -> None:
    """Where the log no longer has the takeover, or not even the attempt's start, what it has is shown."""
    client = show(*rest, attempt=2, start=500)
    assert (client.over, client.texts()) == (True, texts)


def test_state_is_bounded() -> None:
    """A viewer's memory does not grow with the log."""
    renderer = Renderer("ex_1")
    numbers = itertools.count(1)
    for number in range(3000):
        id_ = f"id-{number}"
        asked = InputRequired(input_id=id_, prompt="?", kind="text")
        happened = [delta("x", id_), ThinkingDelta(message_id=id_, delta="x"), began(id_), asked]
        renderer.render([entry(next(numbers), event, id_) for event in happened])
    assert len(renderer._calls) == MAX_CALLS
    assert len(renderer._data_shown) == MAX_DATA
    assert len(renderer._known) == MAX_KNOWN
    renderer.render([entry(next(numbers), delta("x", f"other-{number}")) for number in range(300)])
    assert len(renderer._parts._open) == MAX_OPEN
    assert len(renderer._said._messages) == MAX_SAID


# --- names that clients refuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"__proto__": 1}, {"(__proto__)": 1}),
        ({"a": [{"__proto__": {"__proto__": None}}]}, {"a": [{"(__proto__)": {"(__proto__)": None}}]}),
        ({"constructor": {"prototype": 1}}, {"(constructor)": {"prototype": 1}}),
        ({"constructor": "x", "prototype": 1}, {"constructor": "x", "prototype": 1}),
        ({"text": '"__proto__": 1'}, {"text": '"__proto__": 1'}),
    ],
)
def test_names_that_clients_refuse(value: Any, shown: Any) -> None:
    """A client ends its stream at an object with such a member, anywhere: it has another name, and all else is as it
    was."""
    result = ToolComplete(call_id="c", tool_name="t", result=value, duration=0.1)
    seen = chunks(rendered([entry(1, began()), entry(2, result)]))
    assert [chunk["output"] for chunk in seen if chunk["type"] == "tool-output-available"] == [shown]


def test_a_call_that_is_called_so() -> None:
    """Ids become names in the metadata."""
    assert show(began("__proto__"), ended("__proto__"), DONE).metadata["tools"] == {"(__proto__)": {"duration": 0.5}}
