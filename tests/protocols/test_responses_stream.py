"""A log as the stream of a response, read by a strict client that is written from the specification and knows what
OpenAI's own clients refuse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from broker.protocols.question_ids import QuestionId
from broker.protocols.responses.held import Held
from broker.protocols.responses.ids import ResponseId
from broker.protocols.responses.items import KEPT_BYTES, MAX_OPEN
from broker.protocols.responses.renderer import VOID, Renderer
from broker.protocols.responses.response import LOST_BEFORE, TRUNCATED, About
from emitter.events import (
    Artifact,
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
    Thinking,
    ThinkingDelta,
    ToolComplete,
    ToolError,
    ToolStart,
    UsageTotals,
)
from emitter.wire.entries import Entry
from tests.broker.executions.test_state import recorded
from tests.protocols.made_up import EXECUTION, MadeUp
from tests.protocols.test_all_renderers import entries

GOLDEN = Path(__file__).parents[1] / "golden"
FIELDS = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "user", "usage"),
    *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier"),
    "prompt_cache_key",
}
"""All that `ResponseResource` requires."""
QUEUED = ExecutionQueued(task="t", agent="a")
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
AGAIN = ExecutionStarted(task="t", started_at=1, attempt=2)
SUPERSEDED = ExecutionSuperseded(from_seq=1, attempt=2)
DONE = ExecutionComplete(result=None, duration=1.0)
CALL = ToolStart(call_id="c", tool_name="look", params={"a": 1})
CALLED = ToolComplete(call_id="c", tool_name="look", result=[1], duration=0.1)
APPROVE = InputRequired(input_id="i", prompt="Go on?", kind="approval")
CHOOSE = InputRequired(input_id="j", prompt="Where?", kind="choice", options=["x", "y"])
FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
Json = dict[str, Any]


def said(text: str, message_id: str = "m") -> MessageDelta:
    return MessageDelta(message_id=message_id, delta=text)


def log_of(*told: Event) -> list[Entry]:
    return entries(told)


def about(after: int = 0, **known: Any) -> About:
    return About(id=ResponseId(EXECUTION, after), **known)


# --- a client --------------------------------------------------------------------------------------------------------


class Client:
    """Takes the frames of a response, and refuses what no client need take."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self.response: Json | None = None
        self.is_done = False
        self._added: dict[int, Json] = {}
        self._done: dict[int, Json] = {}
        self._texts: dict[tuple[int, int], str] = {}

    def read(self, data: bytes) -> Client:
        for block in data.decode("ascii").removesuffix("\n\n").split("\n\n"):
            if block:
                self._block(block)
        return self

    def _block(self, block: str) -> None:
        assert not self.is_done
        if block == "data: [DONE]":
            self.is_done = True
            return
        name, line = block.split("\n")
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert "error" not in event, "OpenAI's clients raise before they see the end"
        assert event["sequence_number"] == len(self.events)
        assert (event["type"] == "response.created") == (not self.events)
        assert self.response is None, "nothing follows the end but [DONE]"
        self.events.append(event)
        self._take(event)

    def _take(self, event: Json) -> None:
        type_ = event["type"].removeprefix("response.")
        if "response" in event:
            assert set(event["response"]) == FIELDS
            if type_ in ("completed", "failed", "incomplete"):
                self._end(event["response"])
            else:
                assert event["response"]["output"] == []
            return
        index = event["output_index"]
        if type_ == "output_item.added":
            assert index == len(self._added), "items are numbered without a gap"
            self._added[index] = event["item"]
            return
        assert index in self._added
        assert index not in self._done, "nothing is said of an item that is done"
        if "item_id" in event:
            assert event["item_id"] == self._added[index]["id"]
        if type_ == "output_item.done":
            assert (event["item"]["id"], event["item"]["type"]) == (
                self._added[index]["id"],
                self._added[index]["type"],
            )
            self._done[index] = event["item"]
        else:
            self._part(type_, event)

    def _part(self, type_: str, event: Json) -> None:
        place = int(event["output_index"]), int(event.get("content_index", event.get("summary_index", -1)))
        _, _, step = type_.rpartition(".")
        if type_ in ("content_part.added", "reasoning_summary_part.added"):
            assert place not in self._texts
            self._texts[place] = ""
        elif step == "delta":
            assert place in self._texts or "arguments" in type_
            self._texts[place] = self._texts.get(place, "") + event["delta"]
        elif step == "done":
            shown = event.get("part", event)
            whole = shown.get("text", shown.get("arguments"))
            assert whole == self._texts[place] or shown.get("truncated") or len(whole) < len(self._texts[place])

    def _end(self, response: Json) -> None:
        assert set(self._added) == set(self._done), "every item is done"
        left_out = TRUNCATED in response["metadata"]
        ids = {item["id"]: item for item in self._done.values()}
        assert left_out or all(ids[item["id"]] == item for item in response["output"])
        assert len({item["id"] for item in response["output"]}) == len(response["output"])
        places = {item["id"]: index for index, item in self._done.items()}
        shown = [places[item["id"]] for item in response["output"] if item["id"] in places]
        assert shown == sorted(shown), "in the order of output_index"
        self.response = response

    @property
    def text(self) -> str:
        assert self.response is not None
        return text_of(self.response)

    def shown(self) -> list[str]:
        """The items as they were streamed, with their status."""
        return [f"{item['type']} {item.get('status', '')}".strip() for item in self._done.values()]


def text_of(response: Json) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


def stream(log: Sequence[Entry], of: About | None = None, *, after: int = -1, size: int = 1) -> bytes:
    renderer = Renderer(of or about(), starting_after=after)
    data = renderer.open()
    for at in range(0, len(log), size):
        data += renderer.render(log[at : at + size])
    return data


def read(log: Sequence[Entry], of: About | None = None) -> Client:
    client = Client().read(stream(log, of))
    assert client.is_done
    return client


LOGS = {
    **{name: recorded(f"{name}.jsonl") for name in ("every_event", "failed", "cancelled")},
    **{f"made up {seed}": MadeUp(seed).log(40) for seed in range(4)},
}


@pytest.mark.parametrize("name", ["every_event", "failed", "cancelled"])
def test_golden(name: str) -> None:
    """Whole streams, byte for byte: each response that these logs have."""
    log = LOGS[name]
    asked = [entry.seq for entry in log if entry.type == b"input:required"]
    data = b"".join(stream(log, about(after, model="m")) for after in (0, *asked))
    path = GOLDEN / f"responses_{name}.txt"
    assert data.decode("ascii") == path.read_text()


@pytest.mark.parametrize("name", LOGS)
def test_every_response_of_a_log_is_one_that_clients_take(name: str) -> None:
    """From its beginning, and after every event: whatever the log, and however it arrives."""
    log = LOGS[name]
    for after in range(len(log) - 1):
        data = stream(log, about(after))
        assert Client().read(data).is_done
        assert stream(log, about(after), size=7) == data


@pytest.mark.parametrize("name", LOGS)
def test_the_rest_after_any_number(name: str) -> None:
    """From any number on the stream is the end of the whole one; after the last one only [DONE] is left."""
    log = LOGS[name]
    frames = stream(log).split(b"\n\n")
    for after in (*range(0, len(frames), 3), len(frames), 10**9):
        assert stream(log, after=after, size=1 + after % 9) == b"\n\n".join(frames[min(after + 1, len(frames) - 2) :])


@pytest.mark.parametrize("name", LOGS)
def test_the_object_is_what_the_stream_ends_with(name: str) -> None:
    """Asked for later, held until the end, or at the end of its stream: it is one response."""
    log = LOGS[name]
    held, now = Held(about(), 60), Renderer(about(), starting_after=10**9)
    made = b"".join(held.render([entry]) for entry in log)
    now.render(log)
    assert json.loads(made) == json.loads(now.response()) == read(log).response


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_text_thoughts_and_calls() -> None:
    """In the order of what happened: a speaker's text is done when he does something else."""
    told = [QUEUED, STARTED, Thinking(thought="Hm"), said("A"), said("B"), CALL, CALLED, said("C")]
    client = read(log_of(*told, UsageTotals(input_tokens=3, output_tokens=2, total_tokens=5), DONE))
    assert client.shown() == ["reasoning completed", "message completed", "mcp_call completed", "message completed"]
    assert client.text == "ABC"
    response = client.response
    assert response is not None
    call = response["output"][2]
    assert (call["name"], call["arguments"], call["output"], call["server_label"]) == (
        "look",
        '{"a":1}',
        "[1]",
        "runcast",
    )
    assert response["usage"]["total_tokens"] == 5
    assert [event["type"] for event in client.events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]


def test_a_result_is_the_text_of_an_agent_that_said_none() -> None:
    """Text as it is, anything else as JSON; beside text, what is no text is an item of its own."""
    finished = [ExecutionComplete(result=result, duration=1.0) for result in ("R", {"a": 1})]
    assert [read(log_of(STARTED, each)).text for each in finished] == ["R", '{"a":1}']
    assert read(log_of(STARTED, said("T"), finished[0])).text == "T"
    client = read(log_of(STARTED, said("T"), finished[1]))
    assert client.shown() == ["message completed", "runcast:result completed"]


def test_a_completion_adds_what_was_not_said() -> None:
    """The rest; or another text, after which what was said before is incomplete."""
    assert read(log_of(STARTED, said("A"), MessageComplete(message_id="m", text="AB"), DONE)).text == "AB"
    client = read(log_of(STARTED, said("A"), MessageComplete(message_id="m", text="XY"), DONE))
    assert client.shown() == ["message incomplete", "message completed"]


def test_what_sub_agents_say_is_no_part_of_the_answer() -> None:
    inner = Entry(1, 1, b"message:delta", b'{"type":"message:delta","executionId":"ex_1","ts":1,"agent":"s",'
                  b'"parentId":"c","data":{"messageId":"m","delta":"psst"}}')  # fmt: skip
    client = read([inner, *entries([DONE], 2)])
    assert (client.text, client.shown()) == ("", ["reasoning completed"])


def test_a_failure_and_a_cancel() -> None:
    """`response.failed` with the error and no event `error`; a cancelled response is an incomplete one. Nothing is left
    open."""
    failed = read(log_of(STARTED, said("A"), CALL, ExecutionError(error="bad", code="x")))
    assert failed.events[-1]["type"] == "response.failed"
    assert failed.response is not None
    assert failed.response["error"] == {"code": "x", "message": "bad"}
    assert failed.shown() == ["message completed", "mcp_call failed"]
    cancelled = read(log_of(STARTED, said("A"), ExecutionCancelled()))
    assert cancelled.events[-1]["type"] == "response.incomplete"
    assert cancelled.response is not None
    assert (cancelled.response["status"], cancelled.shown()) == ("cancelled", ["message incomplete"])
    error = read(log_of(STARTED, CALL, ToolError(call_id="c", tool_name="look", error="e", duration=0.1), DONE))
    assert error.shown() == ["mcp_call failed"]


def test_a_lost_attempt() -> None:
    """It stays in the stream, closed, marked and numbered; the response at the end is of the attempt that counts."""
    log = log_of(STARTED, said("A"), CALL, SUPERSEDED, AGAIN, said("B"), DONE)
    client = read(log)
    assert client.shown() == ["message completed", "mcp_call incomplete", "message completed", "message completed"]
    assert any(VOID in json.dumps(event) for event in client.events)
    assert client.text == "B"


def test_calls_at_once() -> None:
    """They stand in the order in which they began, whichever ends first, then and meanwhile."""
    log = log_of(
        STARTED, CALL, ToolStart(call_id="d", tool_name="ask", params={}), said("A"),
        ToolComplete(call_id="d", tool_name="ask", result=1, duration=0.1), said("B"), CALLED, DONE,
    )  # fmt: skip
    renderer = Renderer(about())
    for entry in log:
        renderer.render([entry])
        names = [item.get("name") for item in json.loads(renderer.response())["output"]]
        assert names == ["look", "ask", None][: len(names)]
    assert read(log).text == "AB"


def test_a_file() -> None:
    client = read(log_of(STARTED, Artifact(artifact_id="f", media_type="text/plain", text="x", last=True), DONE))
    assert client.response is not None
    item = client.response["output"][0]
    assert (item["type"], item["artifactId"], item["text"]) == ("runcast:artifact", "f", "x")


# --- questions -------------------------------------------------------------------------------------------------------

ASKED = log_of(
    QUEUED, STARTED, said("A"), CALL, APPROVE, CHOOSE, InputReceived(input_id="i", by="b", value=True), CALLED,
    InputReceived(input_id="j", by="b", value="x"), said("B"), DONE,
)  # fmt: skip


def test_a_question_ends_a_response_and_the_next_one_begins_after_it() -> None:
    """Three responses, one execution, in all of them each thing once; the last has what was left open before."""
    first, second, third = (read(ASKED, about(after)) for after in (0, 5, 6))
    assert first.shown() == ["message completed", "mcp_call incomplete", "mcp_approval_request"]
    assert second.shown() == ["function_call completed"]
    assert third.shown() == ["mcp_call completed", "message completed"]
    assert [client.response["status"] for client in (first, second, third) if client.response] == ["completed"] * 3
    assert first.response is not None
    assert second.response is not None
    assert third.response is not None
    assert first.response["output"][-1]["id"] == str(QuestionId(EXECUTION, 5, "i"))
    call = second.response["output"][-1]
    assert (call["call_id"], call["name"]) == (str(QuestionId(EXECUTION, 6, "j")), "ask_user")
    assert json.loads(call["arguments"]) == {"prompt": "Where?", "kind": "choice", "options": ["x", "y"]}
    assert second.response["previous_response_id"] == first.response["id"]
    assert third.response["previous_response_id"] == second.response["id"]
    assert third.response["output"][0]["arguments"] == '{"a":1}'
    assert third.text == "B"


def test_a_client_with_a_function_ask_user_is_asked_by_it_alone() -> None:
    asks = about(tools=[{"type": "function", "name": "ask_user"}])
    client = read(ASKED, asks)
    assert client.shown()[-1] == "function_call completed"
    assert client.response is not None
    assert client.response["tools"][0] == {
        "type": "function", "name": "ask_user", "description": None, "parameters": None, "strict": None,
    }  # fmt: skip


def test_a_function_of_the_client() -> None:
    """A call whose id is that of a question is a call for the client; its answer is the call's result."""
    log = log_of(
        STARTED,
        ToolStart(call_id="w", tool_name="weather", params={"city": "x"}),
        InputRequired(input_id="w", prompt="p", kind="text", schema={}),
        InputReceived(input_id="w", by="b", value="fog"),
        ToolComplete(call_id="w", tool_name="weather", result="fog", duration=0.1),
        said("Fog."),
        DONE,
    )
    client = read(log, about(tools=[FUNCTION]))
    assert client.response is not None
    call = client.response["output"][0]
    assert (call["name"], call["arguments"], len(client.shown())) == ("weather", '{"city":"x"}', 1)
    assert read(log, about(3, tools=[FUNCTION])).shown() == ["message completed"]


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_more_than_is_kept_is_marked() -> None:
    """The deltas are whole; of what is said again at the end the newest is kept, and the response says so."""
    log = log_of(STARTED, *[said("x" * 60_000)] * 6, CALL, CALLED, said("last"), DONE)
    client = read(log)
    assert sum(len(event["delta"]) for event in client.events if event["type"].endswith("text.delta")) == 360_004
    assert client.response is not None
    assert client.response["metadata"] == {TRUNCATED: "true"}
    assert client.text.endswith("last")
    whole = Renderer(about(), starting_after=10**9, room=8 * KEPT_BYTES)
    whole.render(log)
    response = json.loads(whole.response())
    assert (len(text_of(response)), response["metadata"]) == (360_004, {})


def test_open_texts_are_bounded() -> None:
    log = log_of(STARTED, *[said("x", f"m{number}") for number in range(MAX_OPEN + 50)], DONE)
    assert read(log).text == "x" * (MAX_OPEN + 50)


def test_a_log_without_its_head() -> None:
    """It is shown from what is left, and says so; the same where only the end is left."""
    for log in (ASKED[6:], ASKED[-1:]):
        client = read(log)
        assert client.response is not None
        assert client.response["metadata"] == {LOST_BEFORE: str(log[0].seq)}


def test_held_until_a_question_or_its_time() -> None:
    """One JSON body, whenever it comes."""
    now = [0]
    woken: list[float] = []
    held = Held(about(), 2.0, clock=lambda: now[0])
    held.begin(woken.append)
    assert held.render(ASKED[:3]) + held.due() == b""
    assert woken == [2.0, 2.0]
    now[0] = 2_000
    response = json.loads(held.due())
    assert (response["status"], text_of(response), held.is_over) == ("in_progress", "A", True)
    asked = Held(about(), 2.0)
    assert json.loads(b"".join(asked.render([entry]) for entry in ASKED))["status"] == "completed"
    drained = Held(about(), 2.0)
    assert json.loads(drained.render(ASKED[:1]) + drained.farewell())["status"] == "queued"


def test_a_fork_goes_on_alone() -> None:
    """Viewers part where they were together, and see the same."""
    for at in range(1, len(ASKED)):
        one = Renderer(about(5))
        before = one.render(ASKED[:at])
        other = one.fork()
        assert one.state_key == other.state_key
        assert before + other.render(ASKED[at:]) == before + one.render(ASKED[at:]) == stream(ASKED, about(5))


@pytest.mark.parametrize(
    "text",
    ["", "resp_", "resp_ex_1", "resp_ex_01", "resp_ex_-1", "resp_e x_0", "ex_1_0", "resp_ex_" + "9" * 16, "resp__1"],
)
def test_ids_that_are_none(text: str) -> None:
    found = ResponseId.parse(text)
    assert found is None or str(found) == text == "resp_ex_1"


def test_ids() -> None:
    for id_ in (ResponseId("ex_1"), ResponseId("a_7", 12), ResponseId("x" * 64, 10**14)):
        assert ResponseId.parse(str(id_)) == id_


def test_streamed_thoughts() -> None:
    deltas = [ThinkingDelta(message_id="r", delta=piece) for piece in ("a", "b")]
    client = read(log_of(STARTED, *deltas, Thinking(thought="hidden", visible=False), said("A"), DONE))
    assert client.response is not None
    assert client.response["output"][0]["summary"] == [{"type": "summary_text", "text": "ab"}]
    assert client.shown() == ["reasoning completed", "message completed"]
