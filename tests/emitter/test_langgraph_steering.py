"""What people say to a graph while it runs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from redis.asyncio import Redis

from emitter import AgentEmitter, Message
from emitter.events import UserMessage
from emitter.integrations.langgraph import NoCheckpointer, run_graph, stream_graph
from emitter.store.append import append
from emitter.store.messages import prepare_message
from emitter.testing import RecordingEmitter
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor

HI = {"messages": [("user", "hi")]}


def joined(old: list[str], new: list[str]) -> list[str]:
    return [*old, *new]


class Notes(TypedDict):
    notes: Annotated[list[str], joined]


def said(state: Any) -> list[str]:
    return [message.text for message in state["messages"]]


def two_steps(emitter: Any, **compiled: Any) -> Any:
    """While the first node runs a person speaks; the second one shows what it finds."""

    async def first(_: MessagesState) -> dict[str, Any]:
        if not emitter.of("user:message"):
            emitter.send_message("shorter")
        return {"messages": [AIMessage("one")]}

    async def second(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"two, after {said(state)[-1]}")]}

    graph = StateGraph(MessagesState).add_sequence([first, second]).add_edge(START, "first")
    return graph.compile(**{"checkpointer": InMemorySaver(), **compiled})


async def test_a_message_enters_between_two_steps() -> None:
    """And each step runs once."""
    emitter = RecordingEmitter(messages=())
    state = await stream_graph(two_steps(emitter), HI, emitter)
    assert said(state) == ["hi", "one", "shorter", "two, after shorter"]
    assert [event.phase_name for event in emitter.of("phase:start")] == ["first", "second"]
    assert emitter.types.count("user:message:taken") == 1


async def test_one_that_waits_from_the_beginning_enters_before_the_first_step() -> None:
    emitter = RecordingEmitter(messages=["early"])
    state = await stream_graph(two_steps(emitter), HI, emitter)
    assert said(state) == ["hi", "early", "one", "two, after one"]


async def test_a_message_in_the_last_step_starts_another_run() -> None:
    """With the state that the graph has."""
    emitter = RecordingEmitter(messages=())
    runs = []

    async def only(state: MessagesState) -> dict[str, Any]:
        runs.append(said(state))
        if len(runs) == 1:
            emitter.send_message("and now?")
        return {"messages": [AIMessage(f"answer {len(runs)}")]}

    builder = StateGraph(MessagesState).add_sequence([only]).add_edge(START, "only")
    state = await stream_graph(builder.compile(checkpointer=InMemorySaver()), HI, emitter)
    assert said(state) == ["hi", "answer 1", "and now?", "answer 2"]


async def test_no_message_stands_between_a_call_and_its_result() -> None:
    """It enters after the result."""
    emitter = RecordingEmitter(messages=())

    async def model(state: MessagesState) -> dict[str, Any]:
        if isinstance(state["messages"][-1], ToolMessage) or len(state["messages"]) > 1:
            return {"messages": [AIMessage("done")]}
        emitter.send_message("hurry")
        call = {"name": "look", "args": {}, "id": "c1"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    async def tools(_: MessagesState) -> dict[str, Any]:
        return {"messages": [ToolMessage("found", tool_call_id="c1")]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tools", tools)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: "tools" if getattr(state["messages"][-1], "tool_calls", None) else END
    )
    builder.add_edge("tools", "model")
    state = await stream_graph(builder.compile(checkpointer=InMemorySaver()), HI, emitter)
    assert said(state) == ["hi", "", "found", "hurry", "done"]


async def test_a_function_of_one_s_own_makes_the_update() -> None:
    """For another channel, or none."""

    emitter = RecordingEmitter(messages=())

    async def first(_: Notes) -> dict[str, Any]:
        emitter.send_message("shorter", data={"n": 1})
        return {"notes": ["one"]}

    async def second(_: Notes) -> dict[str, Any]:
        return {"notes": ["two"]}

    def update(messages: list[Message]) -> dict[str, Any]:
        return {"notes": [f"{each.by} said {each.text} {each.data}" for each in messages]}

    builder = StateGraph(Notes).add_sequence([first, second]).add_edge(START, "first")
    graph = builder.compile(checkpointer=InMemorySaver())
    state = await stream_graph(graph, {"notes": []}, emitter, on_messages=update)
    assert state["notes"] == ["one", "tester said shorter {'n': 1}", "two"]
    deaf = RecordingEmitter(messages=["never heard"])
    await stream_graph(graph, {"notes": []}, deaf, on_messages=None)
    assert "user:message:taken" not in deaf.types


async def test_without_a_checkpointer_nothing_can_enter() -> None:
    """Which is said before the graph begins; but not where no messages are accepted."""
    emitter = RecordingEmitter(messages=())
    with pytest.raises(NoCheckpointer, match="what people say"):
        await stream_graph(two_steps(emitter, checkpointer=None), HI, emitter)
    assert emitter.types == []
    silent = RecordingEmitter()
    assert await run_graph(two_steps(RecordingEmitter(), checkpointer=None), HI, silent) is not None


async def test_no_message_passes_a_breakpoint() -> None:
    """Where a person looks before a node runs, only that person lets it run; the message is heard after that."""
    order: list[str] = []

    def answer(question: Any) -> bool:
        order.append(question.prompt)
        return True

    emitter = RecordingEmitter(messages=(), answers=answer)
    graph = two_steps(emitter, interrupt_before=["second"])
    state = await stream_graph(graph, HI, emitter)
    assert len(order) == 2
    assert said(state) == ["hi", "one", "two, after one", "shorter", "one", "two, after one"]


async def test_a_question_and_a_message() -> None:
    """The answer goes to the node that asked, the message into the state after it."""
    emitter = RecordingEmitter(messages=(), answers={"Go on?": "yes"})

    async def asks(_: MessagesState) -> dict[str, Any]:
        answer = interrupt({"prompt": "Go on?", "kind": "text"})
        emitter.send_message("faster")
        return {"messages": [AIMessage(f"asked: {answer}")]}

    async def ends(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"after {said(state)[-1]}")]}

    builder = StateGraph(MessagesState).add_sequence([asks, ends]).add_edge(START, "asks")
    state = await stream_graph(builder.compile(checkpointer=InMemorySaver()), HI, emitter)
    assert said(state) == ["hi", "asked: yes", "faster", "after faster"]


async def test_a_later_attempt_has_each_message_once(redis: Redis, redis_url: str) -> None:
    """It takes them again, and its thread has some already."""
    saver, attempts = InMemorySaver(), []

    async def first(_: MessagesState) -> dict[str, Any]:
        event = UserMessage(message_id="m1", by="bob", mode="queue", text="shorter")
        if len(attempts) == 1:
            prepared = prepare_message(event, "ex_1", redact=Redactor())
            await append(redis, Owner("alice"), "ex_1", [prepared], mode="existing")
        return {"messages": [AIMessage("one")]}

    async def second(_: MessagesState) -> dict[str, Any]:
        if len(attempts) == 1:
            raise ConnectionError("lost")
        return {"messages": [AIMessage("two")]}

    graph = StateGraph(MessagesState).add_sequence([first, second]).add_edge(START, "first").compile(checkpointer=saver)
    for attempt in (1, 2):
        attempts.append(attempt)
        async with AgentEmitter(
            "alice", "ex_1", redis_url=redis_url, attempt=attempt, accepts_messages=True, end_on_error=False
        ) as emitter:
            await emitter.execution_started("t")
            if attempt == 1:
                with pytest.raises(ConnectionError):
                    await stream_graph(graph, HI, emitter)
            else:
                state = await stream_graph(graph, HI, emitter)
    assert said(state) == ["hi", "one", "shorter", "two"]
    await asyncio.sleep(0)
