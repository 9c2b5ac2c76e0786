"""AG-UI's runs: what of a log a client is shown, under the rules that its verifier holds a stream to."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
import pytest
from ag_ui.core import Event as AnyEvent
from pydantic import TypeAdapter

from broker.protocols.ag_ui import frames as spans
from broker.protocols.ag_ui import messages as told
from broker.protocols.ag_ui import renderer as rendering
from broker.protocols.ag_ui.frames import Place
from broker.protocols.ag_ui.lists import difference
from broker.protocols.ag_ui.renderer import MAX_HISTORY_BYTES, Known, Renderer, View
from broker.protocols.ag_ui.requests import Message, before
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
    Phase,
    PhaseComplete,
    PhaseStart,
    Plan,
    PlanCreated,
    Progress,
    SpecialistActivated,
    SpecialistComplete,
    Status,
    Thinking,
    ThinkingDelta,
    ToolComplete,
    ToolError,
    ToolProgress,
    ToolStart,
    Usage,
    UsageTotals,
)
from emitter.wire import envelope
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId
from tests.broker.executions.test_state import recorded
from tests.broker.sse_reader import Frame, parse

GOLDEN = Path(__file__).parents[1] / "golden"
EXECUTION = "ex_01jd5every0event0000000000"
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
RESTARTED = ExecutionStarted(task="t", started_at=2, attempt=2)
LOST = ExecutionSuperseded(from_seq=0, attempt=2)
DONE = ExecutionComplete(result=None, duration=1.0)
ASKED = Message(id="u1", role="user", content="t")
ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyEvent)
Json = dict[str, Any]


IDS = {
    "TEXT_MESSAGE": "messageId",
    "REASONING_MESSAGE": "messageId",
    "REASONING": "messageId",
    "STEP": "stepName",
    "TOOL_CALL": "toolCallId",
    "SUBAGENT": "subagentRunId",
}
"""What begins and ends, by the name in which its id stands."""


class Client:
    """What `@ag-ui/client` 1.0 holds a stream to, and what it makes of it. Events are checked with the protocol's own
    models, and patches applied by a library; nothing is shared with the product."""

    def __init__(self, messages: Sequence[Json] = ({"id": "u1", "role": "user", "content": "t"},)) -> None:
        self.messages: list[Json] = [dict(message) for message in messages]
        self.state: Any = {"theirs": 1}
        self.events: list[Json] = []
        self.customs: list[tuple[str, Any]] = []
        self.open: set[tuple[str, str]] = set()
        self.closed_subagents: set[str] = set()
        self.is_running = False
        self.end: Json = {}

    def take(self, frames: Sequence[Frame]) -> Client:
        for frame in frames:
            assert frame.data.isascii()
            self.apply(json.loads(frame.data))
        return self

    def apply(self, event: Json) -> None:
        model = ADAPTER.validate_python(event)
        assert not model.model_extra, "a client drops what it does not know, and says so"
        assert all(value is not None for value in event.values()), "null is an error"
        type_ = event["type"]
        assert (type_ == "RUN_STARTED") != self.is_running, f"{type_} in or out of a run"
        self.events.append(event)
        self._verify(type_, event)
        if apply := getattr(self, "_on_" + type_.lower(), None):
            apply(event)

    def _verify(self, type_: str, event: Json) -> None:
        kind, _, verb = type_.rpartition("_")
        verb = {"STARTED": "START", "FINISHED": "END", "ARGS": "CONTENT", "ERROR": "END"}.get(verb, verb)
        if kind not in IDS or verb not in ("START", "CONTENT", "END"):
            return
        key = (kind, event[IDS[kind]])
        if verb == "START":
            assert key not in self.open, f"{key} is open"
            assert kind != "SUBAGENT" or key[1] not in self.closed_subagents
            self.open.add(key)
        else:
            assert key in self.open, f"{type_} of what is not open: {key}"
        if verb == "END":
            self.open.remove(key)
            self.closed_subagents |= {key[1]} if kind == "SUBAGENT" else set()

    def find(self, id_: str) -> Json | None:
        return next((message for message in self.messages if message["id"] == id_), None)

    def _message(self, id_: str, role: str, **fields: Any) -> None:
        if self.find(id_) is None:
            self.messages.append({"id": id_, "role": role, **fields})

    def _on_run_started(self, _: Json) -> None:
        self.is_running = True
        self.open.clear()
        self.closed_subagents.clear()

    def _on_run_finished(self, event: Json) -> None:
        assert not self.open, "all that begins ends"
        self.is_running, self.end = False, event

    def _on_run_error(self, event: Json) -> None:
        self.is_running, self.end = False, event

    def _on_text_message_start(self, event: Json) -> None:
        self._message(event["messageId"], event["role"], content="")

    def _on_text_message_content(self, event: Json) -> None:
        message = self.find(event["messageId"])
        assert message is not None
        message["content"] += event["delta"]

    def _on_reasoning_message_start(self, event: Json) -> None:
        self._message(event["messageId"], "reasoning", content="")

    _on_reasoning_message_content = _on_text_message_content

    def _call(self, id_: str) -> Json | None:
        calls = [call for message in self.messages for call in message.get("toolCalls", [])]
        return next((call for call in calls if call["id"] == id_), None)

    def _on_tool_call_start(self, event: Json) -> None:
        if self._call(event["toolCallId"]) is None:
            call = {"id": event["toolCallId"], "name": event["toolCallName"], "arguments": ""}
            self.messages.append({"id": event["toolCallId"], "role": "assistant", "toolCalls": [call]})

    def _on_tool_call_args(self, event: Json) -> None:
        call = self._call(event["toolCallId"])
        assert call is not None
        call["arguments"] += event["delta"]

    def _on_tool_call_result(self, event: Json) -> None:
        """Without the search for its place: results stand in the order in which they came."""
        fields = {name: event[name] for name in ("toolCallId", "content")}
        self.messages.append({"id": event["messageId"], "role": "tool", **fields})

    def _on_state_snapshot(self, event: Json) -> None:
        self.state = event["snapshot"]

    def _on_state_delta(self, event: Json) -> None:
        self.state = jsonpatch.apply_patch(self.state, event["delta"])

    def _on_activity_snapshot(self, event: Json) -> None:
        self._message(event["messageId"], "activity")
        message = self.find(event["messageId"])
        assert message is not None
        assert message["role"] == "activity"
        message["content"] = event["content"]

    def _on_activity_delta(self, event: Json) -> None:
        message = self.find(event["messageId"])
        assert message is not None
        message["content"] = jsonpatch.apply_patch(message["content"], event["patch"])

    def _on_messages_snapshot(self, event: Json) -> None:
        snapshot = {message["id"]: message for message in event["messages"]}
        has_reasoning = any(message["role"] == "reasoning" for message in event["messages"])
        self.messages = [
            snapshot.pop(message["id"], message)
            for message in self.messages
            if message["id"] in snapshot
            or message["role"] == "activity"
            or (message["role"] == "reasoning" and not has_reasoning)
        ]
        self.messages += snapshot.values()

    def _on_custom(self, event: Json) -> None:
        self.customs.append((event["name"], event["value"]))

    # what tests ask for

    def of_role(self, role: str) -> list[Json]:
        return [message for message in self.messages if message["role"] == role]

    @property
    def text(self) -> str:
        return "".join(message.get("content", "") for message in self.of_role("assistant"))

    @property
    def has(self) -> tuple[Any, ...]:
        """All that it comes to, in an order of its own."""
        by_id = {message["id"]: message for message in self.messages}
        assert len(by_id) == len(self.messages), "nothing is there twice"
        return by_id, self.state, {name: value for name, value in self.end.items() if name != "usage"}


# --- logs, and how they are shown ------------------------------------------------------------------------------------


def entry(seq: int, event: Event, **head: Any) -> Entry:
    type_ = envelope.event_type(event)
    keys = envelope.envelope_keys(**head)
    return Entry(
        1000 + seq,
        seq,
        type_.encode(),
        envelope.envelope(type_, EXECUTION, envelope.encode_data(event), ts=seq, keys=keys),
    )


def log(*logged: Event, first: int = 1) -> list[Entry]:
    return [entry(seq, event) for seq, event in enumerate(logged, first)]


def renderer(history: Sequence[Message] | None = (ASKED,), **view: Any) -> Renderer:
    asked = {"execution_id": EXECUTION, "thread_id": "t1", "run_id": "r1", **view}
    return Renderer(View(**asked), history, {"theirs": 1})


def shown(entries: Sequence[Entry], made: Renderer | None = None, **view: Any) -> list[Frame]:
    made = made or renderer(**view)
    return parse(made.open() + made.render(entries))


def client(*logged: Event, **view: Any) -> Client:
    return Client().take(shown(log(*logged), **view))


def answered(entries: Sequence[Entry]) -> Known:
    """All that was asked is answered by somebody else, long ago."""
    return Known(seq=len(entries))


def types(seen: Client) -> list[str]:
    return [event["type"] for event in seen.events]


# --- the recorded log ------------------------------------------------------------------------------------------------


def test_every_event() -> None:
    """The recorded log with every event type has exactly this rendering."""
    entries = recorded("every_event.jsonl")
    made = renderer(known=answered(entries))
    assert made.open() + made.render(entries) == (GOLDEN / "ag_ui_every_event.txt").read_bytes()
    assert made.is_over


RETURNED = ExecutionComplete(result="All done.", duration=1.0)


def test_an_agent_that_returns_its_answer() -> None:
    """A text that is only returned is shown as a message; what was said already is not said again; what a sub-agent, or
    a lost attempt, said is no answer."""
    say = MessageDelta(message_id="m", delta="Said.")
    assert client(STARTED, RETURNED).text == "All done."
    assert client(STARTED, say, RETURNED).text == "Said."
    assert client(STARTED, say, LOST, RESTARTED, RETURNED).text == "All done."
    inner = entry(2, MessageComplete(message_id="m", text="inner"), agent="helper", parent_id="c")
    seen = Client().take(shown([entry(1, STARTED), inner, entry(3, RETURNED)]))
    assert [message["content"] for message in seen.of_role("assistant")] == ["inner", "All done."]
    assert client(STARTED, ExecutionComplete(result={"a": 1}, duration=1.0)).of_role("assistant") == []


def test_every_event_is_valid() -> None:
    """Each is one of the protocol's events, in an order that its verifier takes; they come to what the log says."""
    entries = recorded("every_event.jsonl")
    seen = Client().take(shown(entries, known=answered(entries)))
    assert seen.text == 'Here is the page:\n\na line separator\u2028, an emoji \U0001f600 and "quotes".Published.'
    assert [message["content"] for message in seen.of_role("reasoning")] == [
        "The reader wants opening hours first.",
        "Prices, then a map.",
    ]
    assert seen.state["theirs"] == 1
    assert seen.state["execution"]["status"] == "completed"
    assert seen.end["result"] == {"url": "https://staging.example.com"}
    assert seen.end["outcome"] == {"type": "success"}


def test_the_state_is_that_of_the_interface() -> None:
    """What the state has is what the execution's folded state has under the same names."""
    entries = recorded("every_event.jsonl")
    seen = Client().take(shown(entries, known=answered(entries)))
    folded = json.loads((GOLDEN / "state_every_event.json").read_text())
    state = seen.state["execution"]
    assert state.pop("openInputs") == folded["openInputs"]
    assert {name: folded[name] for name in state} == state


def test_bytes_do_not_depend_on_when_they_are_read() -> None:
    """However the log comes in pieces, the bytes are the same."""
    entries = recorded("every_event.jsonl")
    whole, pieces = renderer(known=answered(entries)), renderer(known=answered(entries))
    assert whole.render(entries) == b"".join(pieces.render([each]) for each in entries)


def everywhere() -> list[Entry]:
    """The recorded log without its lost attempt."""
    entries = [each for each in recorded("every_event.jsonl") if each.type != b"execution:superseded"]
    return [each._replace(seq=seq) for seq, each in enumerate(entries, 1)]


def test_a_client_goes_on_from_any_frame() -> None:
    """Whoever was cut off after any frame, and tells its id, has in the end what it would have had without that."""
    entries = everywhere()
    whole = shown(entries, known=answered(entries))
    expected = Client().take(whole).has
    for cut in range(1, len(whole)):
        seen = Client().take(whole[:cut])
        seen.is_running = False
        after = Place.parse(whole[cut - 1].id) if whole[cut - 1].id else None
        rest = shown(entries, known=answered(entries), after=after)
        assert seen.take(rest).has == expected, f"cut after {whole[cut - 1]}"


def test_a_client_comes_back_without_a_cursor() -> None:
    """Whoever was cut off after any frame, and only says what messages it has, has all and nothing twice in the end."""
    entries = everywhere()
    whole = shown(entries, known=answered(entries))
    expected = Client().take(whole).has
    for cut in range(1, len(whole)):
        seen = Client().take(whole[:cut])
        seen.is_running = False
        sent = [{"content": "", **message} for message in seen.messages if message["role"] != "activity"]
        history = before(msgspec.convert(sent, list[Message]), EXECUTION)
        rest = shown(entries, renderer(history, known=answered(entries), rewinds=True))
        assert seen.take(rest).has == expected, f"cut after {whole[cut - 1]}"


# --- lost attempts ---------------------------------------------------------------------------------------------------

FIRST_TRY = [
    STARTED,
    PlanCreated(plan=Plan(goal="g", phases=[Phase(id="p", name="P")])),
    PhaseStart(phase_id="p", phase_name="P"),
    SpecialistActivated(specialist="s"),
    ThinkingDelta(message_id="r", delta="Hm"),
    MessageDelta(message_id="m", delta="Void"),
    ToolStart(call_id="c", tool_name="t", params={}),
    PartialResult(result=1),
]
SECOND_TRY = [RESTARTED, MessageDelta(message_id="m", delta="True"), DONE]


def test_a_lost_attempt_is_taken_back() -> None:
    """Who watches when a retry takes over loses what the lost attempt said, and keeps the conversation before it."""
    seen = client(*FIRST_TRY, LOST, *SECOND_TRY)
    assert seen.text == "True"
    assert seen.messages[0] == {"id": "u1", "role": "user", "content": "t"}
    assert [message["content"] for message in seen.of_role("reasoning")] == ["void: attempt 2 takes over"]
    assert all(message["content"] == {} for message in seen.of_role("activity"))
    assert not seen.of_role("tool")
    assert ("execution:superseded", {"fromSeq": 0, "attempt": 2}) in seen.customs
    assert seen.state["execution"]["attempt"] == 2
    assert seen.state["execution"]["plan"] is None


def test_attempts_without_end_are_not_taken_back() -> None:
    """Taking an attempt back tells the conversation again: of very many attempts the later ones are only void."""
    lost = [ExecutionSuperseded(from_seq=1, attempt=number) for number in range(2, 100)]
    seen = client(STARTED, *lost)
    assert types(seen).count("MESSAGES_SNAPSHOT") == rendering.MAX_TAKEN_BACK
    assert types(seen).count("CUSTOM") == len(lost)


def test_nothing_is_taken_back_without_the_conversation() -> None:
    """Who sent no conversation, or too long a one, is told that the lost attempt is void, and what follows is apart."""
    for history in (None, [Message(id="u1", role="user", content="x" * MAX_HISTORY_BYTES)]):
        made = renderer(history)
        seen = Client().take(shown(log(*FIRST_TRY, LOST, *SECOND_TRY), made))
        assert seen.text == "VoidTrue"
        assert "MESSAGES_SNAPSHOT" not in types(seen)
        assert ("execution:superseded", {"fromSeq": 0, "attempt": 2}) in seen.customs


def test_a_lost_attempt_is_not_shown_later() -> None:
    """Who comes after a retry took over sees the present attempt only, under the ids that it has for all."""
    logged = [ExecutionQueued(task="t", agent="a"), *FIRST_TRY, LOST, *SECOND_TRY]
    seen = client(*logged, known=Known(seq=len(logged), attempt=2))
    assert seen.text == "True"
    assert not seen.of_role("activity") + seen.of_role("reasoning")
    there = client(*logged)
    assert seen.find(f"{EXECUTION}.2:message:m") == there.find(f"{EXECUTION}.2:message:m") is not None
    assert seen.state == there.state


def test_of_a_trimmed_log_nothing_is_skipped() -> None:
    """Where the present attempt's beginning may be trimmed, all that is left is shown, and what is lost is said."""
    entries = log(MessageDelta(message_id="m", delta="rest"), DONE, first=5)
    seen = Client().take(shown(entries, known=Known(seq=6, attempt=2)))
    assert seen.text == "rest"
    assert seen.customs == [("stream:reset", {"reason": "trimmed", "lostFrom": 1, "lostTo": 4})]


def test_an_execution_that_ended_without_a_new_attempt() -> None:
    """An end is shown, even if the attempt that was to come never began."""
    logged = [*FIRST_TRY, LOST, ExecutionError(error="gone", code="worker_lost")]
    seen = client(*logged, known=Known(seq=len(logged), attempt=2))
    assert (seen.end["type"], seen.end["code"]) == ("RUN_ERROR", "worker_lost")


# --- questions -------------------------------------------------------------------------------------------------------


def asks(id_: str = "i1", **question: Any) -> InputRequired:
    return InputRequired(input_id=id_, prompt="Go on?", **({"kind": "approval"} | question))


def gives(id_: str = "i1", by: str = "bob") -> InputReceived:
    return InputReceived(input_id=id_, by=by, value=True)


BEFORE = [
    STARTED,
    PhaseStart(phase_id="p", phase_name="P"),
    SpecialistActivated(specialist="s"),
    MessageDelta(message_id="m", delta="Before. "),
    UsageTotals(input_tokens=5, output_tokens=5, total_tokens=10),
]
AFTER = [
    MessageDelta(message_id="m", delta="After."),
    UsageTotals(input_tokens=7, output_tokens=6, total_tokens=13),
    DONE,
]


def interrupts(seen: Client) -> list[Json]:
    assert seen.end["outcome"]["type"] == "interrupt"
    return list(seen.end["outcome"]["interrupts"])


def test_a_question_ends_the_run() -> None:
    """A run ends where its agent asks, with all that a form needs; what follows is not of this run."""
    made = renderer()
    seen = Client().take(shown(log(*BEFORE, asks(expires_at=1763682985123), *AFTER), made))
    assert made.is_over
    assert interrupts(seen) == [
        {
            "id": f"{EXECUTION}:1006-6:i1",
            "reason": "approval",
            "message": "Go on?",
            "responseSchema": {"type": "boolean"},
            "expiresAt": "2025-11-20T23:56:25.123Z",
            "metadata": {"executionId": EXECUTION, "inputId": "i1"},
        }
    ]
    assert seen.text == "Before. "
    (suspended,) = [event for event in seen.events if event["type"] == "SUBAGENT_FINISHED"]
    assert suspended["outcome"] == {"type": "suspended"}


@pytest.mark.parametrize(
    ("question", "schema"),
    [
        ({"kind": "choice", "options": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"kind": "text"}, {"type": "string"}),
        ({"kind": "form"}, {"type": "object"}),
        ({"kind": "form", "schema": {"type": "object", "required": ["x"]}}, {"type": "object", "required": ["x"]}),
    ],
)
def test_what_is_asked_for(question: Json, schema: Json) -> None:
    """An interrupt says what an answer looks like."""
    (asked,) = interrupts(client(STARTED, asks(**question)))
    assert asked["responseSchema"] == schema


def test_a_run_that_resumes() -> None:
    """The next run begins again what was open, goes on from the question, and counts only its own usage."""
    entries = log(*BEFORE, asks(), gives(), *AFTER)
    seen = Client().take(shown(entries))
    after = Place(EventId(1006, 6))
    seen.take(shown(entries, after=after, is_resumed=True, known=Known(seq=6), run_id="r2"))
    assert seen.text == "Before. After."
    assert (seen.end["runId"], seen.end["outcome"]) == ("r2", {"type": "success"})
    assert seen.end["usage"] == [{"inputTokens": 2, "outputTokens": 1, "totalTokens": 3}]
    assert seen.customs == [("input:received", {"inputId": "i1", "by": "bob", "value": True})]
    second = [event for event in seen.events if event["type"] in ("STEP_STARTED", "SUBAGENT_STARTED")][2:]
    assert len(second) == 2


def test_questions_that_were_answered_before() -> None:
    """What was answered before the viewer came does not end its run; what nobody answered does, at the last of such
    questions, which names all."""
    logged = [STARTED, asks("i1"), asks("i2"), gives("i1"), asks("i3"), Status(status="s", message="m")]
    seen = client(*logged, known=Known(seq=6, open=frozenset({"i2", "i3"})))
    assert [asked["metadata"]["inputId"] for asked in interrupts(seen)] == ["i2", "i3"]
    assert interrupts(seen)[0]["id"].split(":")[1] == "1005-5"
    assert not client(*logged, known=Known(seq=6)).end


def test_a_question_of_a_client_with_a_cursor() -> None:
    """Who has come past a question that still waits is told of it at once."""
    entries = log(STARTED, asks(), Status(status="s", message="m"))
    seen = Client().take(shown(entries, after=Place(EventId(1003, 3)), known=Known(3, open=frozenset({"i1"}))))
    assert [asked["metadata"]["inputId"] for asked in interrupts(seen)] == ["i1"]


# --- what agents say -------------------------------------------------------------------------------------------------


def test_a_thought_ends_with_the_next_word_of_its_speaker() -> None:
    """A streamed thought ends when its speaker does something else; another speaker's thoughts go on beside it."""
    entries = [
        entry(1, STARTED),
        entry(2, ThinkingDelta(message_id="a", delta="A1"), agent="ann"),
        entry(3, ThinkingDelta(message_id="b", delta="B1"), agent="bob"),
        entry(4, ThinkingDelta(message_id="a", delta="A2"), agent="ann"),
        entry(5, MessageDelta(message_id="m", delta="x"), agent="ann"),
    ]
    seen = Client().take(shown(entries))
    assert [message["content"] for message in seen.of_role("reasoning")] == ["A1A2", "B1"]
    assert {id_ for kind, id_ in seen.open if kind == "REASONING_MESSAGE"} == {f"{EXECUTION}:thought:b"}


def test_who_speaks() -> None:
    """What a specialist at work says is its subagent's; before and after it is nobody's."""
    spoken = MessageDelta(message_id="m", delta="x")
    entries = [
        entry(1, ToolStart(call_id="c0", tool_name="t", params=None), agent="ann"),
        entry(2, SpecialistActivated(specialist="ann", task="look")),
        entry(3, SpecialistActivated(specialist="ann")),
        entry(4, spoken, agent="ann"),
        entry(5, ToolStart(call_id="c1", tool_name="t", params=None), agent="ann"),
        entry(6, ToolComplete(call_id="c1", tool_name="t", result="text", duration=1), agent="ann"),
        entry(7, SpecialistComplete(specialist="ann", summary="seen")),
        entry(8, SpecialistActivated(specialist="ann")),
        entry(9, DONE),
    ]
    seen = Client().take(shown(entries))
    by = {event.get("toolCallId") or event.get("messageId"): event.get("subagentRunId") for event in seen.events}
    ann = f"{EXECUTION}:specialist:#2"
    starts = [event for event in seen.events if event["type"].endswith("_START")]
    assert [event.get("subagentRunId") for event in starts] == [None, ann, ann]
    assert by[f"{EXECUTION}:call:c1"] == ann
    subagents = [(event["type"], event["subagentRunId"]) for event in seen.events if "SUBAGENT" in event["type"]]
    assert subagents == [
        ("SUBAGENT_STARTED", ann),
        ("SUBAGENT_FINISHED", ann),
        ("SUBAGENT_STARTED", f"{EXECUTION}:specialist:#8"),
        ("SUBAGENT_FINISHED", f"{EXECUTION}:specialist:#8"),
    ]


@pytest.mark.parametrize(
    ("deltas", "whole", "text"),
    [
        ([], "All", "All"),
        (["Al"], "All", "All"),
        (["All"], None, "All"),
        (["All"], "All", "All"),
        ([], None, ""),
        ([""], None, ""),
    ],
)
def test_a_messages_completion(deltas: list[str], whole: str | None, text: str) -> None:
    """A completion adds what the chunks left out, and nothing twice."""
    chunks = [MessageDelta(message_id="m", delta=delta) for delta in deltas]
    seen = client(STARTED, *chunks, MessageComplete(message_id="m", text=whole), DONE)
    assert seen.text == text
    assert all(event["delta"] for event in seen.events if event["type"] == "TEXT_MESSAGE_CONTENT")


def test_a_completion_that_says_otherwise() -> None:
    """A text that is not what its chunks were stands as a message of its own; the other one says what replaces it."""
    seen = client(
        STARTED,
        MessageDelta(message_id="m", delta="sk-"),
        MessageComplete(
            message_id="m", text="[redacted]", usage=Usage(input_tokens=1, output_tokens=1, total_tokens=2)
        ),
        DONE,
    )
    assert [message["content"] for message in seen.of_role("assistant")] == ["sk-", "[redacted]"]
    ends = [event["metadata"] for event in seen.events if event["type"] == "TEXT_MESSAGE_END"]
    assert ends[0] == {"replacedBy": seen.of_role("assistant")[1]["id"]}
    assert ends[1]["usage"]["totalTokens"] == 2


def test_steps_have_names_of_their_own() -> None:
    """Phases of one name that run at once, or begin twice, are steps that a client can tell apart."""
    logged = [
        PhaseStart(phase_id=id_, phase_name="P") for id_ in ("a", "b", "a")
    ] + [PhaseComplete(phase_id=id_, phase_name="P") for id_ in ("b", "a", "z")]  # fmt: skip
    seen = client(STARTED, *logged, DONE)
    assert [event["stepName"] for event in seen.events if "STEP" in event["type"]] == ["P", "P (b)", "P (b)", "P"]


def test_a_call_without_parameters() -> None:
    """Model APIs want an object back, whatever older logs have."""
    seen = client(STARTED, ToolStart(call_id="c", tool_name="t", params=None), DONE)
    assert [event["delta"] for event in seen.events if event["type"] == "TOOL_CALL_ARGS"] == ["{}"]


def test_a_call_of_a_model_is_a_custom_event() -> None:
    """With the catalogue's data."""
    call = ModelCall(call_id="c", model="m", input_tokens=1, output_tokens=2, duration=0.5)
    data = {"callId": "c", "model": "m", "inputTokens": 1, "outputTokens": 2, "duration": 0.5}
    assert client(STARTED, call, DONE).customs == [("model:call", data)]


def test_a_call_without_a_result() -> None:
    """When the execution is complete no call seems to wait for the application; a failed or unknown one says so."""
    seen = client(
        STARTED,
        ToolStart(call_id="c", tool_name="t", params={"a": "é"}),
        ToolError(call_id="gone", tool_name="t", error="no", duration=1),
        ToolProgress(call_id="c", progress=5),
        DONE,
    )
    assert [(message["toolCallId"], message["content"]) for message in seen.of_role("tool")] == [
        (f"{EXECUTION}:call:gone", "no"),
        (f"{EXECUTION}:call:c", ""),
    ]
    assert seen.customs == [("tool:progress", {"callId": "c", "progress": 5.0, "toolCallId": f"{EXECUTION}:call:c"})]


@pytest.mark.parametrize("end", [DONE, ExecutionError(error="no"), ExecutionCancelled(reason="enough")])
def test_every_ending_answers_every_call(end: Event) -> None:
    """A message with an unanswered call is refused by model APIs when the conversation goes on, and spins for ever."""
    seen = client(STARTED, ToolStart(call_id="c", tool_name="t", params={}), end)
    assert [message["toolCallId"] for message in seen.of_role("tool")] == [f"{EXECUTION}:call:c"]


def test_a_lost_attempt_that_cannot_be_taken_back_answers_its_calls() -> None:
    made = renderer(None)
    seen = Client().take(shown(log(STARTED, ToolStart(call_id="c", tool_name="t", params={}), LOST), made))
    assert [message["toolCallId"] for message in seen.of_role("tool")] == [f"{EXECUTION}:call:c"]


# --- ends ------------------------------------------------------------------------------------------------------------


def test_how_runs_end() -> None:
    """A cancelled run is neither finished nor failed; a failed one has its code; null results are left out."""
    open_ = [STARTED, SpecialistActivated(specialist="s"), MessageDelta(message_id="m", delta="x")]
    cancelled = client(*open_, ExecutionCancelled(reason="enough", by="bob"))
    assert (cancelled.end["outcome"], cancelled.end["metadata"]) == (
        {"type": "cancelled"},
        {"reason": "enough", "by": "bob"},
    )
    failed = client(*open_, ExecutionError(error="no", code="timeout"))
    assert (failed.end["message"], failed.end["code"], failed.open) == ("no", "timeout", set())
    assert "result" not in client(*open_, DONE).end
    assert not client(*open_).end


def test_a_client_that_has_all() -> None:
    """Who asks again after the end is told the state and the end."""
    entries = log(STARTED, MessageDelta(message_id="m", delta="x"), DONE)
    seen = Client().take(shown(entries, after=Place(EventId(1003, 3)), known=Known(seq=3)))
    assert types(seen) == ["RUN_STARTED", "STATE_SNAPSHOT", "RUN_FINISHED"]


def test_what_a_newer_version_wrote() -> None:
    """An event that this version does not know is passed on as it is."""
    stored = b'{"type":"later:event","executionId":"e","ts":1,"data":{"x":1}}'
    seen = Client().take(shown([entry(1, STARTED), Entry(5, 2, b"later:event", stored), entry(3, DONE)]))
    (raw,) = [event for event in seen.events if event["type"] == "RAW"]
    assert (raw["event"], raw["source"]) == (json.loads(stored), "runcast")
    assert seen.end["outcome"] == {"type": "success"}


# --- patches, bounds, and anything at all ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before_", "after"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 3]}}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"a": None}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": {"c": 1}}),
        ({"a": {"x/y~z": 1}}, {"a": {"x/y~z": 2}}),
    ],
)
def test_a_difference(before_: Json, after: Json) -> None:
    """A patch makes one of the other, says nothing where nothing changed, and may be applied twice."""
    patch = difference("", before_, after)
    once = jsonpatch.apply_patch(before_, patch)
    assert once == after == jsonpatch.apply_patch(once, patch)
    assert difference("", after, after) == []


def test_a_patch_is_small() -> None:
    """Of a state with many parts, a patch has only the one that changed."""
    logged = [PhaseStart(phase_id=f"p{number}", phase_name="P") for number in range(50)]
    seen = client(STARTED, *logged, PhaseComplete(phase_id="p7", phase_name="P", duration=1.0))
    deltas = [event["delta"] for event in seen.events if event["type"] == "STATE_DELTA"]
    assert [operation["path"] for operation in deltas[-1]] == [
        "/execution/phases/7/status",
        "/execution/phases/7/duration",
    ]


def test_nothing_grows_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much an agent leaves open, a viewer's memory of it is bounded, and the stream stays sound."""
    monkeypatch.setattr(told, "MAX_FOLLOWED", 50)
    monkeypatch.setattr(spans, "MAX_OPEN", 20)
    monkeypatch.setattr(rendering, "MAX_ACTIVITIES", 20)
    made = renderer()
    seen = Client()
    logged: list[Event] = [STARTED]
    for number in range(told.MAX_FOLLOWED + 10):
        logged += [
            MessageDelta(message_id=f"m{number}", delta="x"),
            ToolStart(call_id=f"c{number}", tool_name="t", params=None),
            PhaseStart(phase_id=f"p{number}", phase_name=f"P{number}"),
            SpecialistActivated(specialist=f"s{number}"),
            PartialResult(result=1, specialist=f"s{number}"),
        ]
    entries = log(*logged) + [
        entry(len(logged) + 1 + number, ThinkingDelta(message_id="r", delta="x"), agent=f"a{number}")
        for number in range(told.MAX_FOLLOWED + 10)
    ]
    seen.take(shown(entries, made))
    assert len(made._frames._open) <= spans.MAX_OPEN
    assert len(made._activities) <= rendering.MAX_ACTIVITIES
    followed = (made._speech._written, made._speech._thinking, made._speech._steps, made._speech._subagents)
    assert all(len(each) <= told.MAX_FOLLOWED for each in (*followed, made._calls._unanswered))
    seen.take(parse(made.render([entry(len(entries) + 1, DONE)])))
    assert seen.end["outcome"] == {"type": "success"}


def anything(dice: random.Random) -> list[Entry]:
    """A log that no sane agent would write."""
    ids, names = ["a", "b", "c"], ["ann", "bob", None]

    def one() -> Event:
        id_ = dice.choice(ids)
        return dice.choice(
            [
                MessageDelta(message_id=id_, delta=dice.choice(["x", "", "yz"])),
                MessageComplete(message_id=id_),
                ThinkingDelta(message_id=id_, delta="h"),
                Thinking(thought="whole", visible=dice.random() < 0.8),
                ToolProgress(call_id=id_, progress=1),
                ToolError(call_id=id_, tool_name="t", error="e", duration=1),
                PhaseStart(phase_id=id_, phase_name=dice.choice(["P", "Q"])),
                PhaseComplete(phase_id=id_, phase_name="P"),
                SpecialistActivated(specialist=dice.choice(["ann", "bob"])),
                SpecialistComplete(specialist=dice.choice(["ann", "bob"])),
                PartialResult(result=id_, specialist=dice.choice(names)),
                Progress(progress=dice.randint(0, 100)),
                PlanCreated(plan=Plan(goal=id_, phases=[Phase(id="a", name="P")])),
                Artifact(artifact_id=id_, media_type="text/plain", text="x"),
                Custom(name="n", data={}),
            ]
        )

    logged = [one() for _ in range(dice.randint(3, 40))]
    end = dice.choice([DONE, ExecutionError(error="e"), ExecutionCancelled()])
    entries = [entry(1, STARTED)]
    for seq, event in enumerate(logged, 2):
        speaker = dice.choice(names)
        entries.append(entry(seq, event, **({"agent": speaker} if speaker else {})))
    return [*entries, entry(len(entries) + 1, end)]


@pytest.mark.parametrize("seed", range(40))
def test_anything_at_all(seed: int) -> None:
    """Whatever agents write, the stream is sound, and a client that was cut off anywhere misses and doubles nothing."""
    dice = random.Random(seed)
    entries = anything(dice)
    whole = shown(entries)
    expected = Client().take(whole)
    assert expected.end
    cut = dice.randrange(1, len(whole))
    seen = Client().take(whole[:cut])
    seen.is_running = False
    after = Place.parse(whole[cut - 1].id) if whole[cut - 1].id else None
    seen.take(shown(entries, after=after, known=Known(seq=len(entries))))
    assert (seen.text, seen.state) == (expected.text, expected.state)


def test_what_a_sub_agent_says_is_marked() -> None:
    """With its name and the call; a page that sends it back says so with it."""
    said = [
        entry(1, STARTED),
        entry(2, MessageDelta(message_id="m", delta="a"), agent="clerk", parent_id="c1"),
        entry(3, MessageDelta(message_id="n", delta="b"), agent="boss"),
        entry(4, MessageDelta(message_id="o", delta="c"), parent_id="c2"),
    ]
    seen = Client().take(shown([*said, entry(5, DONE)]))
    frames = [event for event in seen.events if event["type"] == "TEXT_MESSAGE_START"]
    assert [event.get("metadata") for event in frames] == [{"agent": "clerk", "parentId": "c1"}, None, None]
