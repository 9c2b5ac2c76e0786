"""A LangGraph graph as an agent: phases, tools, text as it is written, and a person who must agree.

    pip install 'runcast[langgraph]'
    export RUNCAST_REDIS_URL=redis://localhost:6379/0
    runcast worker langgraph_agent:agents       # in this folder; or python -m emitter langgraph_agent:agents
    runcast run traveller "Rome" --follow       # asks whether to book; answer with the command it prints

No key is needed: `Guide` says what a model would. Put a real one in its place, such as `ChatAnthropic(…)`, and nothing
else changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from emitter import Agents
from emitter.integrations.langgraph import graph_agent

WORD_SECONDS = 0.03


class Guide(BaseChatModel):
    """A model that first calls the tools, then streams an answer made from what they found."""

    @property
    def _llm_type(self) -> str:
        return "guide"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError("it streams")

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        found = [message.text for message in messages if isinstance(message, ToolMessage)]
        for chunk in _answer(found) if found else [_calls(messages[-1].text)]:
            await asyncio.sleep(WORD_SECONDS)
            yield ChatGenerationChunk(message=chunk)


def _calls(city: str) -> AIMessageChunk:
    calls = [{"name": name, "args": {"city": city}, "id": f"call_{name}"} for name in ("weather", "trains")]
    return AIMessageChunk("", tool_calls=calls, usage_metadata=_tokens(40, 12))


def _answer(found: list[str]) -> list[AIMessageChunk]:
    words = f"A good day to go: {' and '.join(found)}. Pack light.".split(" ")
    return [AIMessageChunk(f"{word} ") for word in words] + [AIMessageChunk("", usage_metadata=_tokens(90, len(words)))]


def _tokens(given: int, taken: int) -> Any:
    return {"input_tokens": given, "output_tokens": taken, "total_tokens": given + taken}


@tool
async def weather(city: str) -> str:
    """The weather in a city."""
    await asyncio.sleep(0.2)
    return f"it is sunny in {city}"


@tool
async def trains(city: str) -> str:
    """The next train to a city."""
    await asyncio.sleep(0.1)
    return f"there is a train to {city} at 9:05"


async def advise(state: MessagesState) -> dict[str, Any]:
    """What a node writes becomes an event by its type."""
    get_stream_writer()({"type": "status", "status": "thinking", "message": "Asking the guide"})
    return {"messages": [await Guide().ainvoke(state["messages"])]}


def book(state: MessagesState) -> dict[str, Any]:
    """An interrupt waits for a person, on any client; the node then runs again with the answer."""
    agreed = interrupt(
        {"prompt": f"Book a trip to {state['messages'][0].text}?", "kind": "approval", "expires_in": 600}
    )
    return {"messages": [AIMessage("Booked." if agreed else "Then not.")]}


graph = (
    StateGraph(MessagesState)
    .add_node(advise)
    .add_node("tools", ToolNode([weather, trains]))
    .add_node(book)
    .add_edge(START, "advise")
    .add_conditional_edges("advise", tools_condition, {"tools": "tools", "__end__": "book"})
    .add_edge("tools", "advise")
    .compile(checkpointer=InMemorySaver())
)
# A checkpointer that keeps threads in a database lets another worker go on where one was lost. This one forgets, and a
# retry starts over; it still finds the answer that was given.

agents = Agents()
agents.agent("traveller", description="Plans a trip to a city, and books it if you agree")(
    graph_agent(graph, result=lambda state: state["messages"][-1].text)
)
