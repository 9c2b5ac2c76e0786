"""MCP without an edge: what a held call shows, questions and answers, what is signed, and what a header may say."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions.fold import fold
from broker.live.rendering import RenderedView
from broker.protocols.mcp.content import MAX_TEXT_CHARS, artifact_uri, call_result, protocol_error
from broker.protocols.mcp.dialects import Legacy, Modern
from broker.protocols.mcp.questions import Asked, LeftOpen, answer_of
from broker.protocols.mcp.renderer import CallRenderer, Held, hand_off
from broker.protocols.mcp.resources import named
from broker.protocols.mcp.resume import Resumed, StreamOf, derived_id, read_id, stream_name
from broker.protocols.mcp.rpc import McpError, Message, read_message
from broker.protocols.mcp.signing import STATE_SECONDS, Signer, digest_of
from broker.protocols.mcp.tasks import detailed, task_of
from broker.protocols.mcp.tools import (
    OWN,
    agent_of,
    input_schema,
    listed,
    repeated_in_headers,
    tool_name,
    wanted_of,
)
from broker.protocols.mcp.transcript import transcript
from broker.protocols.mcp.versions import Capabilities, check_arguments, legacy_client, modern_client, new_session
from emitter import events
from emitter.errors import Declined
from emitter.events import InputRequired
from emitter.store.announcements import AgentInfo
from emitter.wire.keys import MCP_KEY, Owner
from tests.broker.executions.test_state import recorded
from tests.edges import SseReader
from tests.protocols.made_up import EXECUTION, MadeUp
from tests.protocols.test_all_renderers import entries

GOLDEN = Path(__file__).parents[1] / "golden"
STARTED = events.ExecutionStarted(task="t", started_at=1, attempt=1)
ASK = InputRequired(input_id="i", prompt="Go on?", kind="approval")
DONE = events.ExecutionComplete(result="fine", duration=1.0)
FORMS = Capabilities(form=True)
META = "io.modelcontextprotocol/"


class Clock:
    """Milliseconds, which pass when they are told to."""

    def __init__(self, ms: int = 1_000) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


def held(can: Capabilities = FORMS, *, is_modern: bool = True, **about: Any) -> Held:
    return Held(execution_id=EXECUTION, asked=Asked(can, "http://e", is_modern), **about)


def modern(can: Capabilities = FORMS, clock: Clock | None = None, **about: Any) -> CallRenderer:
    return CallRenderer(held(can, **about), Modern(1, "+".join), clock=clock or Clock())


def legacy(
    can: Capabilities = FORMS, clock: Clock | None = None, after: int | None = None, **about: Any
) -> CallRenderer:
    dialect = Legacy(1, "stream", EXECUTION, after)
    return CallRenderer(held(is_modern=False, **about), dialect, clock=clock or Clock())


def messages(data: bytes) -> list[Any]:
    return [json.loads(frame.data) for frame in SseReader().feed(data) if frame.data]


class Waker:
    """Which waits a renderer has asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)


# --- whole logs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mcp_every_event", "mcp_2025_every_event"])
def test_golden(name: str) -> None:
    """A log with every event type is shown in exactly these bytes, in each era."""
    make = legacy if "2025" in name else modern
    renderer = make(progress_token="p", log_level=1)
    data = RenderedView(renderer, chunked=False).render_all(recorded("every_event.jsonl"))
    assert data.decode("ascii") == (GOLDEN / f"{name}.txt").read_text()
    assert renderer.is_over


def test_progress_always_rises() -> None:
    """Progress is the ordinal of the event, and between events a part of the way to the next one, by the time."""
    log, clock = entries([STARTED, events.Status(status="a", message="b"), DONE]), Clock()
    renderer = modern(clock=clock, progress_token="p")
    shown = renderer.render(log[:1])
    for clock.ms in (10_000, 20_000, 20_001, 500_000_000):
        shown += renderer.heartbeat
    shown += renderer.render(log[1:2]) + renderer.heartbeat
    values = [message["params"]["progress"] for message in messages(shown)]
    assert values == sorted(set(values))
    assert values[0] == 1
    assert len(values) == 7


def test_hidden_thoughts_are_no_progress() -> None:
    """What is not for users is not told to a host either."""
    told = [STARTED, events.Thinking(thought="hidden", visible=False), events.Thinking(thought="shown"), DONE]
    shown = modern(progress_token="p").render(entries(told))
    assert b"hidden" not in shown
    assert b"shown" in shown


def test_no_progress_without_a_token() -> None:
    """A client that gave no token is sent a comment, and one response."""
    renderer = modern()
    assert renderer.heartbeat == b": hb\n"
    (only,) = messages(renderer.render(entries([STARTED, events.Status(status="a", message="b"), DONE])))
    assert only["result"]["content"] == [{"type": "text", "text": "fine"}]
    assert only["result"]["structuredContent"] == {"executionId": EXECUTION, "state": "completed", "result": "fine"}


@pytest.mark.parametrize("seed", range(20))
def test_a_result_is_that_of_the_whole_log(seed: int) -> None:
    """What is left out of what a call folds changes no result, wherever the call ends, or its log begins."""
    random = MadeUp(seed)
    log = random.log(30)[random.randint(0, 5) :]
    for count in range(1, len(log)):
        renderer = modern()
        renderer.render(log[:count])
        state = msgspec.structs.replace(fold(log[:count]), execution_id=EXECUTION)
        (only,) = messages(renderer.farewell())
        assert only["result"] == {"resultType": "complete", **hand_off(state, state.open_inputs)}
        task = modern(becomes_task=True)
        task.render(log[:count])
        (only,) = messages(task.farewell())
        assert only["result"] == {"resultType": "task", **task_of(state, created_ms=log[0].ms, ttl_ms=None)}
    (only,) = messages(modern().render(log))
    whole, error = fold(log), protocol_error(fold(log))
    assert only.get("error") == error
    assert error is not None or only["result"] == {"resultType": "complete", **call_result(whole)}


# --- the end of the wait ---------------------------------------------------------------------------------------------


def test_a_call_ends_when_its_time_is_over() -> None:
    """The client is told that the execution goes on, and what to call next."""
    clock, waker = Clock(), Waker()
    renderer = modern(clock=clock, hold_seconds=45.0)
    renderer.begin(waker)
    renderer.render(entries([STARTED]))
    assert waker.asked == [45.0]
    clock.ms += 44_000
    assert renderer.due() == b""
    assert not renderer.is_over
    clock.ms += 1_000
    (only,) = messages(renderer.due())
    assert renderer.is_over
    assert only["result"]["structuredContent"]["executionId"] == EXECUTION
    assert "wait_for_execution" in only["result"]["content"][0]["text"]


def test_a_call_becomes_a_task() -> None:
    """For a client that takes tasks; flat, and without what only `tasks/get` has."""
    clock = Clock()
    renderer = modern(Capabilities(tasks=True), clock, hold_seconds=1.0, becomes_task=True, ttl_ms=5)
    renderer.begin(Waker())
    renderer.render(entries([STARTED]))
    clock.ms += 1_000
    (only,) = messages(renderer.due())
    task = only["result"]
    assert (task["resultType"], task["taskId"], task["status"], task["ttlMs"]) == ("task", EXECUTION, "working", 5)
    assert not {"result", "error", "inputRequests", "requestState"} & task.keys()


def test_an_edge_that_stops_hands_the_call_off() -> None:
    """A client of the old era is told when to come back, and its stream is no result; of the new one, what to call."""
    new, old = modern(), legacy()
    for renderer in (new, old):
        renderer.render(entries([STARTED]))
    assert "wait_for_execution" in new.farewell().decode()
    assert old.farewell().startswith(b"retry: ")
    assert new.is_over
    assert old.is_over


# --- questions -------------------------------------------------------------------------------------------------------


def test_questions_that_are_asked_together_come_together() -> None:
    """A question waits a moment for others; then the call ends with all of them, and the state that goes with them."""
    waker = Waker()
    renderer = modern(hold_seconds=45.0)
    renderer.begin(waker)
    assert renderer.render(entries([STARTED, ASK, InputRequired(input_id="j", prompt="And?", kind="text")])) == b""
    assert waker.asked[-1] < 1
    (only,) = messages(renderer.due())
    assert only["result"]["resultType"] == "input_required"
    assert list(only["result"]["inputRequests"]) == ["i", "j"]
    assert only["result"]["requestState"] == "i+j"
    assert renderer.is_over


def test_a_question_that_was_answered_meanwhile_is_not_asked() -> None:
    """Before the log's known end nothing is asked, and after it only what is open."""
    renderer = modern(known_seq=3)
    renderer.begin(waker := Waker())
    log = entries([STARTED, ASK, events.InputReceived(input_id="i", by="b", value=True), DONE])
    renderer.render(log[:2])
    assert renderer.due() == b""
    assert waker.asked[-1] < 1, "it looks again"
    renderer.render(log[2:3])
    assert renderer.due() == b""
    assert not renderer.is_over


def test_a_client_that_cannot_be_asked_is_told() -> None:
    """It gets a result with the question, and the tool that answers it."""
    renderer = modern(Capabilities())
    renderer.render(entries([STARTED, ASK]))
    (only,) = messages(renderer.due())
    assert only["result"]["resultType"] == "complete"
    assert only["result"]["structuredContent"]["openInputs"][0]["inputId"] == "i"
    assert "answer_input" in only["result"]["content"][0]["text"]


def test_the_old_era_is_asked_on_the_stream() -> None:
    """A question is a request whose id names it. The stream goes on, and who comes back is asked again while it is
    open."""
    log = entries([STARTED, ASK, events.InputReceived(input_id="i", by="b", value=True), DONE])
    renderer = legacy()
    renderer.render(log[:2])
    (asked,) = messages(renderer.due())
    assert (asked["id"], asked["method"]) == (f"{EXECUTION}/i", "elicitation/create")
    assert renderer.due() == b""
    again = legacy(after=2, known_seq=2)
    again.render(log[:2])
    assert messages(again.due()) == [asked]
    (response,) = messages(again.render(log[2:]))
    assert response["id"] == 1


def test_who_comes_back_gets_what_follows() -> None:
    """Joined at any id, the streams of the old era are the whole one."""
    log = recorded("every_event.jsonl")
    whole = legacy(progress_token="p", log_level=1).render(log)
    frames = list(SseReader().feed(whole))
    for at, frame in enumerate(frames[:-1]):
        if frame.id is None:
            continue  # the next one's place is the first after this
        seq = int(frame.id.rsplit(".")[-1])
        rest = list(SseReader().feed(legacy(progress_token="p", log_level=1, after=seq).render(log)))
        assert [each.data for each in rest] == [each.data for each in frames[at + 1 :]]


def test_progress_goes_on_for_who_comes_back() -> None:
    """A client that has the last event is told again that its call is alive."""
    clock = Clock()
    renderer = legacy(progress_token="p", clock=clock, after=2, known_seq=2)
    assert renderer.render(entries([STARTED, events.Status(status="a", message="b")])) == b""
    clock.ms = 500_000_000
    (only,) = messages(renderer.heartbeat)
    assert 2 < only["params"]["progress"] < 3


def asked(can: Capabilities, **about: Any) -> Any:
    given = {"input_id": "i", "prompt": "?", "kind": "form", **about}
    request = Asked(can, "http://e", is_modern=True).request("ex", InputRequired(**given))
    return request and request["params"]


FLAT = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
DEEP = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}
SECRET = {"type": "object", "properties": {"password": {"type": "string"}}}


@pytest.mark.parametrize(
    ("about", "properties"),
    [
        ({"kind": "approval"}, {"confirm": {"type": "boolean", "title": "Approve"}}),
        ({"kind": "choice", "options": ["a", "b"]}, {"value": {"type": "string", "enum": ["a", "b"]}}),
        ({"kind": "text"}, {"value": {"type": "string"}}),
        ({"schema": FLAT}, FLAT["properties"]),
    ],
)
def test_what_is_asked(about: Any, properties: Any) -> None:
    """Each kind of question is a flat form."""
    assert asked(FORMS, **about)["requestedSchema"]["properties"] == properties


def test_what_no_form_can_ask() -> None:
    """Parts of parts are asked for as JSON; a secret is never a form's; a page is offered only to who declares it."""
    assert list(asked(FORMS, schema=DEEP)["requestedSchema"]["properties"]) == ["value"]
    assert asked(FORMS, schema=SECRET) is None
    page = asked(Capabilities(form=True, url=True), schema=SECRET)
    assert (page["mode"], page["url"]) == ("url", "http://e/#/x/ex")
    assert asked(Capabilities(), schema=FLAT) is None
    own = {"x-mcp-request": {"method": "sampling/createMessage", "params": {"maxTokens": 1}}}
    assert asked(FORMS, schema=own) is None
    assert asked(Capabilities(sampling=True), schema=own) == {"maxTokens": 1}


@pytest.mark.parametrize(
    ("about", "content", "value"),
    [
        ({"kind": "approval"}, {"confirm": True}, True),
        ({"kind": "approval"}, {"ok": False}, False),
        ({"kind": "choice", "options": ["a"]}, {"value": "a"}, "a"),
        ({"kind": "form", "schema": FLAT}, {"n": 2}, {"n": 2}),
        ({"kind": "form", "schema": DEEP}, {"value": '{"a":{}}'}, {"a": {}}),
        ({"kind": "text", "schema": {}}, {"value": "[1]"}, [1]),
        ({"kind": "text"}, {"value": "[1]"}, "[1]"),
    ],
)
def test_what_is_answered(about: Any, content: Any, value: Any) -> None:
    question = InputRequired(input_id="i", prompt="?", **about)
    assert answer_of(question, {"action": "accept", "content": content}) == value


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({"action": "decline"}, Declined),
        ({"action": "cancel"}, LeftOpen),
        ({"action": "accept"}, LeftOpen),
        ({"action": "maybe"}, McpError),
        ({"action": "accept", "content": 1}, McpError),
        (12345, McpError),
    ],
)
def test_what_is_no_answer(response: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        answer_of(ASK, response)


# --- results and tasks -----------------------------------------------------------------------------------------------


def state(*told: events.Event) -> Any:
    return fold(entries([STARTED, *told]), EXECUTION)


def test_a_failure_is_a_result() -> None:
    """An agent's failure is for the model to see; a worker's loss, or a cancel, is an error of the protocol."""
    failed = state(events.ExecutionError(error="no such file", code="agent_error"))
    assert call_result(failed)["isError"] is True
    assert call_result(failed)["content"] == [{"type": "text", "text": "no such file"}]
    assert protocol_error(failed) is None
    lost = protocol_error(state(events.ExecutionError(error="lost", code="worker_lost")))
    assert lost is not None
    assert lost["code"] == -32603
    cancelled = protocol_error(state(events.ExecutionCancelled(reason="no", by="b")))
    assert cancelled is not None
    assert cancelled["data"] == {"executionId": EXECUTION, "reason": "no", "by": "b"}


@pytest.mark.parametrize(
    ("artifact", "block"),
    [
        ({"url": "data:image/png;base64,QQ=="}, {"type": "image", "data": "QQ==", "mimeType": "image/png"}),
        ({"url": "https://e/a"}, {"type": "resource_link", "uri": "https://e/a", "name": "a", "mimeType": "image/png"}),
        ({"text": "t"}, {"type": "resource", "text": "t"}),
        ({"data": [1]}, {"type": "resource", "text": "[1]"}),
    ],
)
def test_what_an_agent_made(artifact: Any, block: Any) -> None:
    made = events.Artifact(artifact_id="a", media_type="image/png", last=True, **artifact)
    (shown,) = call_result(state(made, events.ExecutionComplete(result=None, duration=1.0)))["content"]
    text = shown["resource"]["text"] if shown["type"] == "resource" else None
    assert (shown if text is None else {"type": "resource", "text": text}) == block


def test_what_an_agent_made_has_a_name_that_is_a_uri() -> None:
    """Whatever the agent called it, and it is found by that."""
    uri = artifact_uri("ex_1", "a b/?#é")
    assert uri == "runcast://executions/ex_1/artifacts/a%20b%2F%3F%23%C3%A9"
    assert named(uri) == ("ex_1", "a b/?#é")


def test_a_long_result_says_that_it_is_cut() -> None:
    """A message that a client would refuse as too long is shorter, and says so; what was made becomes a link."""
    texts = [events.MessageDelta(message_id="m", delta="x" * 60_000) for _ in range(5)]
    pictures = [
        events.Artifact(artifact_id=f"a{n}", media_type="image/png", url="data:image/png;base64," + "A" * 60_000)
        for n in range(20)
    ]
    shown = call_result(state(*texts, *pictures, events.ExecutionComplete(result=None, duration=1.0)))
    assert len(shown["content"][0]["text"]) == MAX_TEXT_CHARS
    assert "was cut" in shown["content"][-1]["text"]
    assert {block["type"] for block in shown["content"]} == {"text", "image", "resource_link"}
    assert len(json.dumps(shown)) < 1024 * 1024


def test_tasks() -> None:
    """States, questions and ends, as `tasks/get` has them."""
    asking = Asked(FORMS, "", is_modern=True)

    def task(*told: events.Event, asked: Asked = asking) -> Any:
        return detailed(state(*told), asked, created_ms=1, ttl_ms=None)

    assert task()["status"] == "working"
    assert task(ASK)["status"] == "input_required"
    assert list(task(ASK)["inputRequests"]) == ["i"]
    unable = task(ASK, asked=Asked(Capabilities(), "", is_modern=True))
    assert (unable["status"], "Go on?" in unable["statusMessage"]) == ("working", True)
    assert task(DONE)["result"]["content"]
    assert task(DONE)["result"]["resultType"] == "complete", "as of any result"
    assert task(events.ExecutionError(error="e"))["status"] == "completed"
    assert task(events.ExecutionError(error="e", code="no_worker"))["status"] == "failed"
    assert "result" not in task(events.ExecutionCancelled())


def test_transcript() -> None:
    """It has all that the log says."""
    page = transcript(fold(recorded("every_event.jsonl"), EXECUTION))
    for said in ("# ", "## Task", "## Plan", "## Tools", "## Text", "## Result"):
        assert said in page, said


# --- tools -----------------------------------------------------------------------------------------------------------


def agent(name: str, **about: Any) -> AgentInfo:
    return AgentInfo(name=name, **about)


def test_tools_have_names_that_every_host_takes() -> None:
    """Up to 64 characters, and each leads back to its agent."""
    agents = [agent("a"), agent("b" * 64), agent("b" * 63 + "c")]
    names = [tool["name"] for tool in listed(agents)]
    assert len(set(names)) == len(names) == 3 + len(OWN)
    assert all(len(name) <= 64 for name in names)
    assert [agent_of(tool_name(each.name), agents) for each in agents] == [each.name for each in agents]
    assert agent_of("run_gone", agents) == "gone", "its worker may be away"
    assert agent_of("a", agents) == "a"
    assert agent_of("Not A Tool", agents) is None


def test_tasks_and_parameters() -> None:
    """Task and budget stand beside the parameters, unless they have one of that name."""
    own = {"type": "object", "properties": {"task": {"type": "integer"}, "n": {}, "budget": {}}, "x-mcp-requires": {}}
    assert input_schema(None)["required"] == ["task"]
    assert list(input_schema(FLAT)["properties"]) == ["task", "n", "budget"]
    assert input_schema(own) == {"type": "object", "properties": own["properties"]}
    most = {"costUsd": 1}
    assert wanted_of("a", {"task": "do", "n": 1, "budget": most}, FLAT) == ("do", {"n": 1}, most)
    assert wanted_of("a", {"budget": most}, None) == ("a", {}, most)
    assert wanted_of("a", {"task": 3, "budget": 5}, own) == ("a", {"task": 3, "budget": 5}, None)


# --- requests --------------------------------------------------------------------------------------------------------


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


GOOD = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "run_a")]
ABOUT = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {"elicitation": {}}}


def checked(pairs: Sequence[tuple[str, str]], **params: Any) -> int:
    """The code of what is wrong, or 0."""
    message = Message(1, "tools/call", {"name": "run_a", "_meta": ABOUT, **params})
    try:
        modern_client(message, headers(*pairs))
    except McpError as error:
        return error.kind.code
    return 0


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        (GOOD, 0),
        ([*GOOD[:2], ("Mcp-Name", "=?base64?cnVuX2E=?=")], 0),
        (GOOD[:2], -32020),
        ([*GOOD, GOOD[2]], -32020),
        ([*GOOD[:2], ("Mcp-Name", "run_b")], -32020),
        ([*GOOD[:2], ("Mcp-Name", "=?base64?!!?=")], -32020),
        ([GOOD[0], ("Mcp-Method", "tools/list"), GOOD[2]], -32020),
    ],
)
def test_headers_say_what_the_body_says(pairs: Sequence[tuple[str, str]], code: int) -> None:
    assert checked(pairs) == code


REGION = {"type": "object", "properties": {"region": {"x-mcp-header": "Region"}, "n": {}}}


@pytest.mark.parametrize(("value", "sent"), [("eu", "eu"), (True, "true"), (3, "3"), ("é", "=?base64?w6k=?=")])
def test_arguments_that_headers_repeat(value: Any, sent: str) -> None:
    """As the schema of the tool wants it, and only where the argument is there."""
    assert repeated_in_headers(REGION, {"n": 1}) == {}
    repeated = repeated_in_headers(REGION, {"region": value, "n": 1})
    check_arguments(headers(("Mcp-Param-Region", sent)), repeated)
    for wrong in (headers(), headers(("Mcp-Param-Region", "other"))):
        with pytest.raises(McpError):
            check_arguments(wrong, repeated)


def test_what_a_request_says_of_its_client() -> None:
    """Headers come first, then what is missing, then the version."""
    assert checked(GOOD, _meta={META + "protocolVersion": "2026-07-28"}) == -32602
    other = [("MCP-Protocol-Version", "2027-01-01"), *GOOD[1:]]
    assert checked(other, _meta={**ABOUT, META + "protocolVersion": "2027-01-01"}) == -32022


@pytest.mark.parametrize("envelope", [[], 1, {}, {"jsonrpc": "2.0", "id": True, "method": "a"}, {"jsonrpc": "2.0"}])
def test_what_is_no_message(envelope: Any) -> None:
    with pytest.raises(McpError) as caught:
        read_message(envelope)
    assert caught.value.kind.code == -32600


def test_a_session_says_what_its_client_can() -> None:
    """Any edge reads it; one that is not ours says nothing."""
    can = Capabilities(form=True, sampling=True)
    client = legacy_client(headers(("Mcp-Session-Id", new_session(can))))
    assert client.can == can
    assert legacy_client(headers(("Mcp-Session-Id", "x"))).can == Capabilities()
    assert derived_id(client.session, 1) != derived_id(client.session, "1"), "they are different ids"
    assert derived_id("", 1) is None


def test_ids_of_streams() -> None:
    """An id is read as it was written; any other is refused."""
    stream = StreamOf("r.1", 7, "fs", 99)
    assert read_id(stream_name("ex_1", stream) + ".12") == Resumed("ex_1", stream, 12)
    endless = base64.urlsafe_b64encode(json.dumps(["r.1", 7, "fs", 10**400]).encode()).decode().rstrip("=")
    for text in ("", "ex_1.12", "ex_1.e30.12", "ex_1.!!.12", "1-2", f"ex_1.{endless}.12"):
        with pytest.raises(Problem):
            read_id(text)


# --- what is signed --------------------------------------------------------------------------------------------------


async def test_states_are_good_for_whom_and_what_they_were_made(redis: Redis) -> None:
    """Not for another caller, another call, or another day; any edge reads them."""
    now = [1000.0]
    alice, bob = (Identity(owner=Owner(name), scopes=frozenset()) for name in ("alice", "bob"))
    mine, theirs = Signer(redis, lambda: now[0]), Signer(redis, lambda: now[0])
    await asyncio.gather(mine.load(), theirs.load())
    digest = digest_of("run_a", {"task": "t"})
    signed = mine.sign(alice, "ex_1", digest, ["i"])
    assert theirs.read(alice, signed, digest) == "ex_1"
    wrong = [(bob, signed, digest), (alice, signed + "x", digest), (alice, "", digest), (alice, "é.é", digest)]
    wrong.append((alice, signed, digest_of("run_a", {})))
    for who, what, call in wrong:
        with pytest.raises(McpError):
            mine.read(who, what, call)
    await redis.delete(MCP_KEY)
    for signer in (mine, theirs):
        await signer.load()
    assert theirs.read(alice, mine.sign(alice, "ex_2", digest, []), digest) == "ex_2", "after a loss, too"
    signed = mine.sign(alice, "ex_1", digest, ["i"])
    now[0] += STATE_SECONDS + 1
    with pytest.raises(McpError, match="expired"):
        mine.read(alice, signed, digest)
