"""Agents within agents: whose each event is, by LangChain's agents and graphs that tools run."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import dispatch_custom_event
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from emitter.events import MessageComplete
from emitter.integrations.langgraph import run_graph
from emitter.testing import RecordingEmitter
from emitter.wire.envelope import decode_envelope
from tests.edges import Author
from tests.emitter.langgraph_graphs import HELLO, State, add, emitting, line, loop
from tests.emitter.langgraph_models import Chunked, Whole, assert_paired, calling, spoken


class Model(Whole):
    def bind_tools(self, tools: Any, **more: Any) -> Any:
        return self


BOTH = calling(("research", {"q": "A"}, "c1"), ("research", {"q": "B"}, "c2"))


def researcher(q: str, name: str | None = "researcher") -> Any:
    """An agent that calls a tool, always by the same id, and answers."""
    script = [calling(("add", {"a": 1, "b": 2}, "same")), AIMessage(f"inner {q}")]
    return create_agent(Model(script=script), [add], name=name)


@tool
async def research(q: str) -> str:
    """Look something up."""
    output = await researcher(q).ainvoke({"messages": [("user", q)]})
    return str(output["messages"][-1].text)


def boss(kind: str) -> Any:
    model = Model(script=[BOTH, AIMessage("outer")])
    if kind == "agent":
        return create_agent(model, [research], name="boss")
    return loop(model, ToolNode([research]))


def speakers(emitter: RecordingEmitter) -> list[tuple[str, str | None, str | None, Any]]:
    """Of all but the graph's own: type, agent, call, and what is said."""
    return [
        (type_, envelope.agent, envelope.parent_id, event)
        for (type_, event), envelope in zip(emitter.events, emitter.envelopes, strict=True)
        if envelope.agent or envelope.parent_id
    ]


@pytest.mark.parametrize("kind", ["agent", "node"])
async def test_each_event_says_whose_it_is(kind: str) -> None:
    """Two agents that two calls of one tool run at the same time, whose own calls have the same id: text, calls and
    phases of each name it and the call it works in; what the outer graph does names nobody."""
    emitter = RecordingEmitter()
    await run_graph(boss(kind), HELLO, emitter)
    assert_paired(emitter.events)
    found = speakers(emitter)
    assert {agent for _, agent, _, _ in found} == {"researcher"}
    for call_id, q in (("c1", "A"), ("c2", "B")):
        mine = [(type_, event) for type_, _, parent, event in found if parent == call_id]
        assert [event.text for type_, event in mine if type_ == "message:complete"] == [f"inner {q}"]
        assert [type_ for type_, _ in mine if type_.startswith("tool")] == ["tool:start", "tool:complete"]
        assert [type_ for type_, _ in mine].count("phase:start") == 3
        assert [type_ for type_, _ in mine].count("phase:complete") == 3
    assert len({event.call_id for event in emitter.of("tool:start")}) == 4
    own = [event for event, envelope in zip(emitter.events, emitter.envelopes, strict=True) if not envelope.agent]
    assert [event.text for type_, event in own if type_ == "message:complete"] == ["outer"]
    assert {event.call_id for type_, event in own if type_ == "tool:complete"} == {"c1", "c2"}


async def test_a_graph_with_a_name_and_one_without() -> None:
    """A graph that a tool runs is called by its name, or as the tool is; also where it is sync."""

    @tool
    def work(name: str) -> str:
        """Work."""

        def answer(state: MessagesState) -> dict[str, Any]:
            return {"messages": [AIMessage(f"by {name}")]}

        inner = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
        inner.compile(name=name or None).invoke({"messages": [("user", "x")]})
        return "done"

    model = Whole(script=[calling(("work", {"name": "clerk"}, "c1"), ("work", {"name": ""}, "c2")), AIMessage("ok")])
    emitter = RecordingEmitter()
    await run_graph(loop(model, ToolNode([work])), HELLO, emitter)
    said = {
        (agent, parent): event.text
        for type_, agent, parent, event in speakers(emitter)
        if "complete" in type_ and hasattr(event, "text")
    }
    assert said == {("clerk", "c1"): "by clerk", ("work", "c2"): "by "}


async def test_a_graph_within_a_sub_agents_graph() -> None:
    """What its subgraphs do is the sub-agent's too."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("deep")]}

    @tool
    async def work() -> str:
        """Work."""
        inner = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
        clerk = StateGraph(MessagesState).add_node("sub", inner).add_edge(START, "sub").compile(name="clerk")
        await clerk.ainvoke({"messages": [("user", "x")]})
        return "done"

    emitter = RecordingEmitter()
    model = Whole(script=[calling(("work", {}, "c1")), AIMessage("ok")])
    await run_graph(loop(model, ToolNode([work])), HELLO, emitter)
    assert said_by(emitter) == [("clerk", "c1", "deep")]
    assert {(agent, call) for _, agent, call, _ in speakers(emitter)} == {("clerk", "c1")}


async def test_a_model_that_a_tool_calls_itself() -> None:
    """What it says is the tool's; what the node says before and after it is the node's."""

    @tool
    async def summarise() -> str:
        """Summarise."""
        return str((await Chunked(script=[spoken("in ", "short")]).ainvoke("x")).text)

    async def work(state: State) -> dict[str, Any]:
        await Chunked(script=[spoken("before")]).ainvoke("x")
        await summarise.ainvoke({"name": "summarise", "args": {}, "id": "c1", "type": "tool_call"})
        await Chunked(script=[spoken("after")]).ainvoke("x")
        return {}

    emitter = RecordingEmitter()
    await run_graph(line(work), {"said": []}, emitter)
    said = [
        (agent, parent, event.delta) for type_, agent, parent, event in speakers(emitter) if type_ == "message:delta"
    ]
    assert said == [("summarise", "c1", "in "), ("summarise", "c1", "short")]
    assert emitter.text_emitted == "beforein shortafter"


async def test_agents_within_agents_within_agents() -> None:
    """The innermost agent's call is the parent."""

    @tool
    async def lead(q: str) -> str:
        """Lead."""
        script = [calling(("research", {"q": q}, "r1")), AIMessage("led")]
        agent = create_agent(Model(script=script), [research], name="lead")
        return str((await agent.ainvoke({"messages": [("user", q)]}))["messages"][-1].text)

    model = Model(script=[calling(("lead", {"q": "A"}, "c1")), AIMessage("outer")])
    emitter = RecordingEmitter()
    await run_graph(create_agent(model, [lead], name="boss"), HELLO, emitter)
    said = [
        (agent, parent, event.text) for type_, agent, parent, event in speakers(emitter) if type_ == "message:complete"
    ]
    assert said == [("researcher", "r1", "inner A"), ("lead", "c1", "led")]
    (inner,) = [
        (agent, parent)
        for type_, agent, parent, event in speakers(emitter)
        if type_ == "tool:start" and event.call_id == "r1"
    ]
    assert inner == ("lead", "c1")


async def test_an_agent_that_is_a_node_is_named() -> None:
    """As in a team of agents that hand over to each other: its text is an answer of its own, in no call."""
    graph = line(("desk", researcher("A")), state=MessagesState)
    emitter = RecordingEmitter()
    await run_graph(graph, HELLO, emitter)
    said = [
        (agent, parent, event.text) for type_, agent, parent, event in speakers(emitter) if type_ == "message:complete"
    ]
    assert said == [("researcher", None, "inner A")]


async def test_the_log_says_it_too(author: Author, redis_url: str) -> None:
    """Chunks of two agents that speak at once are merged only with their own."""
    async with emitting(author, redis_url, agent="boss") as emitter:
        await run_graph(boss("agent"), HELLO, emitter)
    envelopes = [decode_envelope(row.data.encode()) for row in await author.log()]
    whole = [(head, event) for head, event in envelopes if isinstance(event, MessageComplete)]
    said = {(head.agent, head.parent_id): event.text for head, event in whole}
    assert said == {("researcher", "c1"): "inner A", ("researcher", "c2"): "inner B", ("boss", None): "outer"}


def said_by(emitter: RecordingEmitter) -> list[tuple[str | None, str | None, str]]:
    """Agent, call and text of what others than the graph itself said."""
    told = [(agent, call, event) for type_, agent, call, event in speakers(emitter) if type_.startswith("message")]
    return [(agent, call, said) for agent, call, event in told if (said := getattr(event, "delta", "") or event.text)]


# --- handing over ----------------------------------------------------------------------------------------------------


@tool
def hand_over(call_id: Annotated[str, InjectedToolCallId], to: str) -> Command[Any]:
    """Hand over, as the guides write it."""
    said = {"role": "tool", "content": f"handed to {to}", "name": "hand_over", "tool_call_id": call_id}
    return Command(goto=to, update={"messages": [said]}, graph=None)


@tool
def many(call_id: Annotated[str, InjectedToolCallId]) -> list[Any]:
    """Say it in several commands."""
    answer = Command(update={"messages": [ToolMessage("mine", tool_call_id=call_id)]})
    return [Command(update={"said": 1}), answer]


async def test_a_call_that_steers_shows_its_message() -> None:
    """Not LangGraph's command, but what the tool says to the model."""
    model = Whole(script=[calling(("hand_over", {"to": "desk"}, "c1"), ("many", {}, "c2"))])
    builder = StateGraph(MessagesState)
    builder.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode([hand_over, many]))
    builder.add_node("desk", lambda state: {"messages": [AIMessage("At your service")]})
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "tools")
    emitter = RecordingEmitter()
    await run_graph(builder.compile(), HELLO, emitter)
    assert {event.call_id: event.result for event in emitter.of("tool:complete")} == {
        "c1": "handed to desk",
        "c2": "mine",
    }
    assert emitter.of("message:complete")[0].text == "At your service"


# --- threads ---------------------------------------------------------------------------------------------------------


async def test_custom_events_from_threads_arrive() -> None:
    """From a thread that has the config but no context, while the node still works."""
    arrived = asyncio.Event()

    def notice(event: Any, origin: Any) -> Any:
        if event.type == "progress":
            arrived.set()
        return event

    async def work(state: State, config: RunnableConfig) -> dict[str, Any]:
        def speak(percent: int) -> None:
            dispatch_custom_event("progress", {"progress": percent}, config=config)

        for percent in (1, 2):
            thread = threading.Thread(target=contextvars.Context().run, args=(speak, percent))
            thread.start()
            await asyncio.to_thread(thread.join)
        async with asyncio.timeout(10):
            await arrived.wait()
        threading.Thread(target=contextvars.Context().run, args=(speak, 3)).run()
        return {}

    emitter = RecordingEmitter(hooks=[notice])
    await run_graph(line(work), {"said": []}, emitter)
    assert sorted(event.progress for event in emitter.of("progress")) == [1, 2, 3]
    assert emitter.types[-1] == "phase:complete"
