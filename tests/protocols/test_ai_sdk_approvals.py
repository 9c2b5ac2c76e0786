"""Approvals as the SDK's own: where a stream ends, what follows an answer, and whose answers count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.protocols.ai_sdk.approvals import ALL_ANSWERED, Approvals, are_wanted, parse_run_id, run_id
from broker.protocols.ai_sdk.counted import Counted, Place
from broker.protocols.ai_sdk.renderer import RUN_ID, Renderer
from broker.protocols.question_ids import QuestionId
from emitter.events import (
    EXPIRED,
    Event,
    ExecutionCancelled,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    ToolStart,
    UserMessage,
)
from emitter.wire.entries import Entry
from tests.edges import Author, EdgeProcess, call, request, token_for
from tests.protocols import shows
from tests.protocols.test_ai_sdk import chunks, delta, entry, rendered
from tests.protocols.test_ai_sdk_routes import DONE, RESTARTED, TEXT

CHAT = "/api/agent/chat"
ASKED = InputRequired(input_id="i", prompt="Go on?", kind="approval")
OTHER = InputRequired(input_id="j", prompt="And this?", kind="approval")


def received(id_: str = "i", value: Any = True, by: str = "alice") -> Event:
    return InputReceived(input_id=id_, by=by, value=value)


def log_of(*events: Event) -> list[Entry]:
    return [entry(number, event) for number, event in enumerate(events, 1)]


def shown(log: Sequence[Entry], approvals: Approvals) -> list[Any]:
    renderer = Renderer("ex_1", approvals=approvals)
    data = renderer.open()
    for each in log:
        data += renderer.render([each])
    return chunks(data)


def kinds(seen: Sequence[Any]) -> list[str]:
    return [chunk["type"] for chunk in seen]


LOG = log_of(
    delta("a"), ToolStart(call_id="c", tool_name="t", params={}), ASKED, delta("b"), received(), delta("c"), DONE
)


# --- the stream ------------------------------------------------------------------------------------------------------


def test_without() -> None:
    """Nothing of it is there for pages that did not ask for it."""
    assert not any(kind.startswith("tool-approval") for kind in kinds(chunks(rendered(LOG))))


def test_a_stream_ends_where_its_agent_asks() -> None:
    """In a step of its own, with all that was written ended: the SDK sends an answer when the stream is over, and only
    if no other call of the step is open."""
    seen = shown(LOG, Approvals())
    assert kinds(seen)[-6:] == [
        "finish-step",
        "start-step",
        "tool-input-available",
        "tool-approval-request",
        "finish-step",
        "finish",
    ]
    assert seen[-1]["finishReason"] == "tool-calls"
    called, asked = seen[-4], seen[-3]
    assert (called["toolName"], called["title"], called["input"]["inputId"]) == ("approval", "Go on?", "i")
    assert called["toolCallId"] == asked["toolCallId"] == asked["approvalId"] == "ex_1:3:i"
    assert {chunk["id"] for chunk in seen if chunk["type"] == "data-input"} == {"i"}, "as for any page"


def test_what_follows_an_answer() -> None:
    """A stream after an approval has the message's start, and what was logged since."""
    seen = shown(LOG, Approvals(3))
    assert kinds(seen[:2]) == ["start", "start-step"]
    assert "".join(chunk["delta"] for chunk in seen if chunk["type"] == "text-delta") == "bc"
    (output,) = [chunk for chunk in seen if chunk["type"] == "tool-output-available"]
    assert (output["toolCallId"], output["output"]) == ("ex_1:3:i", {"approved": True, "by": "alice"})
    assert [chunk["toolCallId"] for chunk in seen if chunk["type"] == "tool-output-error"] == ["c"], "open at the end"
    assert seen[-1]["finishReason"] == "stop"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (received(), "tool-output-available"),
        (received(value=False), "tool-output-denied"),
        (received(value=None, by=EXPIRED), "tool-output-error"),
        (ExecutionCancelled(), "tool-output-error"),
        (ExecutionSuperseded(from_seq=0, attempt=2), "tool-output-error"),
    ],
)
def test_every_outcome(answer: Event, kind: str) -> None:
    """An approval that was shown gets its outcome, whatever that is."""
    seen = shown(log_of(ASKED, answer), ALL_ANSWERED)
    assert [chunk["type"] for chunk in seen if chunk.get("toolCallId") == "ex_1:1:i"][2:] == [kind]


def test_what_is_known_to_be_answered_ends_nothing() -> None:
    """Who opens the stream later is shown all of it up to what is open then; the numbers of chunks are the same."""
    log = log_of(ASKED, received(), delta("a"), OTHER, received("j"), DONE)
    first = shown(log, Approvals())
    open_now = shown(log[:4], Approvals(known=4, open=frozenset("j")))
    everything = shown(log, Approvals(known=6))
    assert first[:-1] == open_now[: len(first) - 1] == everything[: len(first) - 1]
    assert open_now[:-1] == everything[: len(open_now) - 1]
    assert kinds([first[-1], open_now[-1], everything[-1]]) == ["finish"] * 3
    later = shown(log, Approvals(known=3))
    assert later == open_now, "asked after what is known"


def test_two_at_once() -> None:
    """Each gets a stream that ends with it."""
    log = log_of(ASKED, OTHER, received(), received("j", value=False), DONE)
    ids = [shown(log, Approvals(after))[-3]["approvalId"] for after in (0, 1)]
    assert ids == ["ex_1:1:i", "ex_1:2:j"]
    rest = shown(log, Approvals(2))
    assert kinds(rest)[1:5] == ["tool-output-available", "data-input", "tool-output-denied", "data-input"]


def test_what_is_open_at_a_message_to_the_agent() -> None:
    """The answer that follows the message asks it again, all of it in one step under ids of its own, and ends; after
    the page's answers it goes on, with the outcomes of both."""
    said = UserMessage(message_id="m", by="alice", mode="queue", text="hurry")
    log = log_of(ASKED, OTHER, received("k"), said, received(), received("j", value=False), delta("a"), DONE)

    def following(approvals: Approvals) -> list[Any]:
        renderer = Renderer("ex_1", approvals=approvals, after="m")
        assert renderer.headers[RUN_ID] == run_id("ex_1", approvals) + "~m"
        return chunks(renderer.open() + renderer.render(log))

    seen = following(Approvals())
    assert (seen[0]["messageId"], kinds(seen)[-1]) == ("ex_1-m", "finish")
    step = kinds(seen)[kinds(seen).index("start-step") :]
    assert step == ["start-step", *["tool-input-available", "tool-approval-request"] * 2, "finish-step", "finish"]
    assert [chunk["approvalId"] for chunk in seen if "approvalId" in chunk] == ["ex_1:4:i", "ex_1:4:j"]
    rest = following(Approvals(4))
    assert (rest[0]["messageId"], [chunk for chunk in rest if "approvalId" in chunk]) == ("ex_1-m", [])
    assert kinds(rest)[1:5] == ["tool-output-available", "data-input", "tool-output-denied", "data-input"]
    assert kinds(rest)[-1] == "finish"


def test_counted_from_an_answer_on() -> None:
    """The chunks of what follows are counted from its own beginning."""
    expected = shown(LOG, Approvals(3))
    for start in range(len(expected)):
        renderer = Counted("ex_1", Place(start), Approvals(3))
        assert chunks(renderer.open() + renderer.render(LOG)) == expected[start:]
    assert renderer.headers[RUN_ID] == "ex_1.3"


def test_a_retry_asks_again() -> None:
    """The question of a lost attempt is an error, and the retry's ends the stream."""
    log = log_of(ASKED, ExecutionSuperseded(from_seq=0, attempt=2), RESTARTED, ASKED)
    seen = shown(log, Approvals(1))
    assert [chunk["toolCallId"] for chunk in seen if chunk["type"] == "tool-output-error"] == ["ex_1:1:i"]
    assert seen[-3]["approvalId"] == "ex_1:4:i"


def test_names() -> None:
    """Of approvals and of views; what is not ours is none."""
    assert QuestionId.parse(str(QuestionId("ex_1", 7, "i"))) == QuestionId("ex_1", 7, "i")
    for text in (None, 1, "", "ex_1", "ex_1:0:i", "ex_1:x:i", "a b:1:i", "ex_1:1:", "ex_1:" + "9" * 16 + ":i"):
        assert QuestionId.parse(text) is None
    assert (run_id("ex_1", None), run_id("ex_1", Approvals()), run_id("ex_1", Approvals(3))) == (
        "ex_1",
        "ex_1",
        "ex_1.3",
    )
    assert (parse_run_id("ex_1"), parse_run_id("ex_1.3")) == (("ex_1", 0), ("ex_1", 3))
    assert (parse_run_id("a b"), parse_run_id("ex_1.x"), parse_run_id("ex_1.0")) == (None, None, None)
    assert are_wanted({"chat": {"toolApprovals": True}})
    assert not any(are_wanted(each) for each in (None, {}, {"chat": None}, {"chat": {"toolApprovals": 1}}))


# --- over sockets ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
async def known(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    await shows.known(redis, two_edges)


async def post(at: EdgeProcess, author: Author, messages: list[Any], token: str | None = None) -> tuple[Any, bytes]:
    body = json.dumps({"id": "c", "messages": messages, "agent": shows.AGENT, "toolApprovals": True}).encode()
    async with request(at.port, "POST", CHAT, token or author.token, headers=shows.JSON, body=body) as response:
        return response, await anext(response.pieces())


USER = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "t"}]}


def answered(id_: str, *, approved: Any = True) -> dict[str, Any]:
    part = {"type": "dynamic-tool", "toolName": "approval", "toolCallId": id_, "state": "approval-responded"}
    return {"id": "a", "role": "assistant", "parts": [{**part, "approval": {"id": id_, "approved": approved}}]}


async def begun(at: EdgeProcess, author: Author) -> Author:
    response, _ = await post(at, author, [USER])
    turn = Author(author.redis, author.user, response.headers["x-workflow-run-id"])
    await turn.write(*TEXT, ASKED)
    return turn


async def asked_of(turn: Author) -> int:
    return next(index for index, each in enumerate(await turn.log(), 1) if each.type == "input:required")


@pytest.mark.parametrize("approved", [True, False])
async def test_an_answer(two_edges: list[EdgeProcess], author: Author, approved: bool) -> None:
    """The SDK's answer is the input's, and what follows is the response; a repeat changes nothing."""
    turn = await begun(two_edges[0], author)
    seq = await asked_of(turn)
    for at in two_edges:
        said = answered(f"{turn.execution_id}:{seq}:i", approved=approved)
        response, first = await post(at, turn, [USER, said])
        assert (response.status, response.headers["x-workflow-run-id"]) == (200, f"{turn.execution_id}.{seq}")
        assert first.startswith(b'data: {"type":"start"')
    values = [json.loads(each.data)["data"]["value"] for each in await turn.log() if each.type == "input:received"]
    assert values == [approved]
    listed = await call(two_edges[0].port, "GET", "/api/agent/executions", author.token)
    assert len(listed.body["executions"]) == 1


async def test_answers_of_others(two_edges: list[EdgeProcess], author: Author) -> None:
    """Nobody answers for somebody else; and what is no answer of ours is a message as any other."""
    turn = await begun(two_edges[0], author)
    said = answered(f"{turn.execution_id}:{await asked_of(turn)}:i")
    response, _ = await post(two_edges[0], turn, [USER, said], token_for("stranger"))
    assert response.status == 404
    for foreign in ("x", f"{turn.execution_id}:0:i"):
        response, _ = await post(two_edges[0], turn, [USER, answered(foreign)])
        assert response.headers["x-workflow-run-id"] == turn.execution_id
    response, _ = await post(two_edges[0], turn, [USER, {**said, "parts": [{**said["parts"][0], "state": "x"}]}])
    assert response.headers["x-workflow-run-id"] == turn.execution_id
    assert not [each for each in await turn.log() if each.type == "input:received"]


@pytest.mark.parametrize("path", ["stream", "stream?startIndex=0"])
async def test_a_page_that_is_opened_again(two_edges: list[EdgeProcess], author: Author, path: str) -> None:
    """It is shown all up to what is asked now, and an end; after the answer, all of it."""
    turn = await begun(two_edges[0], author)

    async def opened() -> list[Any]:
        async with request(two_edges[1].port, "GET", f"{CHAT}/c/{path}", turn.token) as response:
            return shows.contents(await response.body())

    seen = await opened()
    assert kinds(seen)[-3:] == ["tool-approval-request", "finish-step", "finish"]
    value = {"inputId": "i", "value": True}
    given = await call(two_edges[0].port, "POST", f"/api/agent/executions/{turn.execution_id}/input", turn.token, value)
    assert given.status == 202
    await turn.write(OTHER)
    seen = await opened()
    assert [chunk["approvalId"].rpartition(":")[2] for chunk in seen if "approvalId" in chunk] == ["i", "j"]
    assert kinds(seen)[-1] == "finish"
