"""Graphs that need no network, and their logs."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from emitter import AgentEmitter
from emitter.events import InputReceived
from emitter.integrations.langgraph import run_graph
from emitter.testing import RecordingEmitter
from emitter.wire.envelope import decode_envelope
from tests.edges import Author, Received, read_log
from tests.emitter.langgraph_models import story

HELLO = {"messages": [("user", "hello")]}


class State(TypedDict, total=False):
    task: str
    said: Annotated[list[Any], operator.add]


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@tool
async def fail(what: str) -> str:
    """Fail."""
    raise KeyError(what)


def line(*nodes: Any, state: Any = State, **compiled: Any) -> Any:
    """A graph of functions, one after the other, named as they are."""
    builder = StateGraph(state)
    builder.add_sequence(list(nodes))
    builder.add_edge(START, nodes[0][0] if isinstance(nodes[0], tuple) else nodes[0].__name__)
    return builder.compile(**compiled)


def chat(model: Any, *, is_async: bool = True, **compiled: Any) -> Any:
    """One node that answers with what a model says."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def answer_async(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return line(("answer", answer_async if is_async else answer), state=MessagesState, **compiled)


def loop(model: Any, tools: ToolNode, **compiled: Any) -> Any:
    """The usual agent: a model that calls tools until it does not."""

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", tools)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "agent")
    return builder.compile(**compiled)


async def told(graph: Any, input_: Any, **options: Any) -> list[tuple[Any, ...]]:
    """What a graph's log says."""
    emitter = RecordingEmitter()
    await run_graph(graph, input_, emitter, **options)
    return story(emitter.events)


class Kept(BaseCheckpointSaver[Any]):
    """A checkpointer that outlives its worker, as one with a database does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = InMemorySaver()

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.inner.get_next_version(current, channel)

    async def aget_tuple(self, config: Any) -> Any:
        return await self.inner.aget_tuple(config)

    async def alist(self, config: Any, **more: Any) -> AsyncIterator[Any]:
        async for item in self.inner.alist(config, **more):
            yield item

    async def aput(self, *arguments: Any) -> Any:
        return await self.inner.aput(*arguments)

    async def aput_writes(self, *arguments: Any) -> None:
        await self.inner.aput_writes(*arguments)


def emitting(author: Author, redis_url: str, **options: Any) -> AgentEmitter:
    return AgentEmitter(author.user, author.execution_id, redis_url=redis_url, **options)


async def answering(author: Author, *values: Any, by: str = "bob", after: Sequence[Received] = ()) -> list[Any]:
    """Answer the questions of an execution one after the other as they are asked; the questions."""
    asked: list[Any] = []
    last: Any = after[-1].id if after else "0"
    async with asyncio.timeout(15):
        while len(asked) < len(values):
            reply = await author.redis.xread({author.keys.log: last}, block=1000)
            for _, rows in reply or []:
                for last, fields in rows:  # noqa: B007 - where the next read begins
                    _, event = decode_envelope(next(iter(fields.values())))
                    if event.type == "input:required":
                        await author.write(InputReceived(input_id=event.input_id, by=by, value=values[len(asked)]))
                        asked.append(event)
    return asked


async def log_of(author: Author) -> list[tuple[str, Any]]:
    rows = await read_log(author.redis, author.keys.log)
    return [(row.type, decode_envelope(row.data.encode())[1]) for row in rows]
