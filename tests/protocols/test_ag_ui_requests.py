"""What AG-UI clients send, and the executions that they ask for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.base.problem import Problem
from broker.executions.types import BudgetRequest
from broker.protocols.ag_ui.frames import Place
from broker.protocols.ag_ui.interrupts import InterruptId
from broker.protocols.ag_ui.requests import (
    MAX_GIVEN_BYTES,
    Message,
    RunAgentInput,
    answered,
    before,
    conversation_of,
    cursor_of,
    execution_of,
    params_of,
    request_of,
    shared_of,
    task_of,
)
from emitter.errors import PayloadTooLarge
from emitter.wire.ids import EventId


def run(*messages: Any, **fields: Any) -> RunAgentInput:
    body = {"threadId": "t1", "runId": "r1", "messages": messages or [user("hello")], **fields}
    return msgspec.json.decode(msgspec.json.encode(body), type=RunAgentInput)


def user(content: Any, id_: str = "u1") -> dict[str, Any]:
    return {"id": id_, "role": "user", "content": content}


def test_the_execution_of_a_run() -> None:
    """A run is the execution of its id, in the conversation of its thread, with the last user's text as its task."""
    asked = run(user("old"), {"id": "a", "role": "assistant", "content": "so"}, user("new", "u2"))
    wanted = request_of(asked, "teller")
    assert (wanted.task, wanted.agent, wanted.execution_id, wanted.conversation_id) == ("new", "teller", "r1", "t1")
    assert wanted.metadata == {"agUi": {"threadId": "t1", "runId": "r1", "messageId": "u2"}}


def test_a_budget_among_the_forwarded_properties() -> None:
    """An object of limits is the execution's budget; anything else of this name is the agent's parameter."""
    wanted = request_of(run(forwardedProps={"budget": {"toolCalls": 5}, "n": 1}), None)
    assert wanted.budget == BudgetRequest(tool_calls=5)
    assert wanted.params is not None
    assert (wanted.params["n"], "budget" in wanted.params) == (1, False)
    for theirs in (500, {"euros": 500}, {}):
        wanted = request_of(run(forwardedProps={"budget": theirs}), None)
        assert (wanted.budget, (wanted.params or {})["budget"]) == (None, theirs)


def test_ids_that_are_none_of_ours() -> None:
    """An id that cannot be an execution's becomes one, the same each time, and no two of them the same one."""
    odd = ["a b", "é", "x" * 65, "a:b", "a.b"]
    for ids in ([execution_of(each) for each in odd], [conversation_of(each) for each in odd]):
        assert len(set(ids)) == len(odd)
        assert all(len(each) <= 64 and each.isascii() for each in ids)
    assert execution_of("a b") == execution_of("a b")
    assert execution_of("9b2c-1_X") == "9b2c-1_X"


def test_a_message_in_parts() -> None:
    """The text of a message in parts is that of its text parts."""
    parts = [{"type": "text", "text": "one"}, {"type": "image", "source": {}}, {"type": "text", "text": "two"}]
    assert task_of(run(user(parts)).messages) == "one\ntwo"


def test_null_is_nothing() -> None:
    """What a message has as null it does not have: sent back, it would be an error at the client."""
    names = ("content", "name", "toolCalls", "toolCallId", "error", "activityType", "encryptedValue", "subagentRunId")
    nothing = dict.fromkeys((*names, "metadata"))
    asked = run({"id": "a", "role": "assistant", **nothing}, user("hello"))
    assert msgspec.to_builtins(before(asked.messages, "r1")) == [{"id": "a", "role": "assistant"}, user("hello")]


@pytest.mark.parametrize("messages", [[{"id": "a", "role": "assistant", "content": "x"}], [user(" ")], [user([])]])
def test_nothing_is_asked(messages: list[Any]) -> None:
    """Without a text of the user there is no task."""
    with pytest.raises(Problem) as refused:
        request_of(run(*messages), None)
    assert (refused.value.status, refused.value.extensions["path"]) == (422, "$.messages")


def test_what_the_agent_is_given() -> None:
    """Forwarded properties are the agent's parameters; beside them are the conversation, tools, context and state. What
    is this protocol's own is not among them."""
    given = params_of(
        run(
            {"id": "s", "role": "system", "content": "obey"},
            user("hello"),
            {"id": "c", "role": "assistant", "toolCalls": [{"id": "1"}]},
            forwardedProps={"pace": 0, "cursor": "1-1", "messages": "mine"},
            state={"theirs": 1, "execution": {"of": "the run before"}},
            tools=[{"name": "x", "description": "y"}],
            context=[],
        )
    )
    assert given == {
        "pace": 0,
        "messages": [{"role": "user", "content": "hello"}],
        "state": {"theirs": 1},
        "tools": [{"name": "x", "description": "y"}],
    }


@pytest.mark.parametrize("name", ["state", "forwardedProps", "tools", "context"])
def test_what_is_too_large(name: str) -> None:
    """Half of a state is of no use: what is too large is refused."""
    large = {"x": "x" * MAX_GIVEN_BYTES}
    with pytest.raises(PayloadTooLarge):
        params_of(run(**{name: large if name in ("state", "forwardedProps") else [large]}))


def test_a_long_conversation_is_cut() -> None:
    """The agent is given the newest turns of a long conversation, what is asked now in any case, and how many it is not
    given."""
    messages = [user(str(number), f"u{number}") for number in range(1000)]
    params = params_of(run(*messages))
    turns = params["messages"]
    assert 1 < len(turns) < 100
    assert turns[-1]["content"] == "999"
    assert len(turns) + params["messagesOmitted"] == 1000
    asked = params_of(run(user("a"), user("x" * 40_000)))
    assert [len(turn["content"]) for turn in asked["messages"]] == [1, 40_000]


def test_states_that_are_no_objects() -> None:
    """A state or properties that have no members are as good as none."""
    asked = run(state=[1], forwardedProps="x")
    assert (shared_of(asked), cursor_of(asked), "state" in params_of(asked)) == ({}, None, False)


def test_messages_come_back_as_they_were() -> None:
    """A message is sent back with what the protocol knows of it, and nothing is null."""
    sent = {
        "id": "c",
        "role": "assistant",
        "toolCalls": [{"id": "1", "function": {"name": "f"}}],
        "metadata": {"a": None},
    }
    (message,) = run({**sent, "unknown": 1}).messages
    assert msgspec.json.decode(msgspec.json.encode(message)) == sent


def test_the_conversation_before_an_execution() -> None:
    """What an execution said is taken out of a conversation, but for one thought, if there is no other."""
    messages = [
        Message(id="u1", role="user", content="x"),
        Message(id="r1:message:m", role="assistant", content="mine"),
        Message(id="r1.2:thought:a", role="reasoning", content="mine"),
        Message(id="r1:thought:b", role="reasoning", content="mine"),
        Message(id="r10:message:m", role="assistant", content="another's"),
    ]
    kept = before(messages, "r1")
    assert [(message.id, message.content) for message in kept] == [
        ("u1", "x"),
        ("r10:message:m", "another's"),
        ("r1.2:thought:a", ""),
    ]
    other = Message(id="r0:thought:a", role="reasoning", content="another's")
    assert [message.id for message in before([*messages, other], "r1")] == ["u1", "r10:message:m", "r0:thought:a"]


def test_interrupt_ids() -> None:
    """An interrupt's id has all that is needed to go on from it."""
    id_ = InterruptId("r1", EventId(5, 6), "in_ab.c_1")
    assert (str(id_), InterruptId.parse(str(id_))) == ("r1:5-6:in_ab.c_1", id_)


@pytest.mark.parametrize("text", ["", "r1", "r1:5-6", "r1:x:i", "r 1:5-6:i", "r1:5-6:i i", "r1:5-6:", "r1:5-6:a:b"])
def test_no_interrupt_of_ours(text: str) -> None:
    """Any other id is refused, with its place in the body."""
    entry = {"interruptId": text, "status": "resolved"}
    with pytest.raises(Problem) as refused:
        answered(run(resume=[entry]).resume or [])
    assert (refused.value.status, refused.value.extensions["path"]) == (422, "$.resume[0].interruptId")


def test_interrupts_of_two_executions() -> None:
    """One run goes on in one execution."""
    entries = [{"interruptId": f"{name}:5-6:i", "status": "resolved"} for name in ("a", "b")]
    with pytest.raises(Problem):
        answered(run(resume=entries).resume or [])


def test_places() -> None:
    """A place is that of a frame, and covers what lies before it."""
    assert Place.parse("5-6") == Place(EventId(5, 6))
    assert Place.parse("5-6.2") == Place(EventId(5, 6), 2)
    assert [Place.parse("5-6.2").covers(*frame) for frame in ((5, 9), (6, 2), (6, 3), (7, 1))] == [
        True, True, False, False,
    ]  # fmt: skip
    assert Place.parse("5-6").covers(6, 99)
    for text in ("", "5", "5-6.", "5-6.x", "5-6 ", "-1-2"):
        with pytest.raises(ValueError, match="not the id of a frame"):
            Place.parse(text)


def test_what_sub_agents_said_is_no_turn() -> None:
    """The page sends it back with what the renderer put beside it."""
    inner = {"id": "a", "role": "assistant", "content": "notes", "metadata": {"agent": "clerk", "parentId": "c1"}}
    other = {"id": "b", "role": "assistant", "content": "answer", "metadata": {"agent": "boss"}}
    assert params_of(run(user("q"), inner, other, user("r", "u2")))["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": "r"},
    ]
