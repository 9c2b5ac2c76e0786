"""A LangGraph agent that people steer: what they say while it works enters its state between two steps.

    pip install 'runcast[langgraph]'
    export RUNCAST_REDIS_URL=redis://localhost:6379/0
    runcast worker steered_agent:agents         # in this folder; or python -m emitter steered_agent:agents
    runcast run writer "Rome" --follow          # while it writes, type: shorter

No key is needed: `write` does what a model would, which gets `state["messages"]` and so hears people, too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph

from emitter import Agents
from emitter.integrations.langgraph import graph_agent

SECTIONS = ("History", "Food", "Sights", "Getting there", "Where to stay")
SECONDS_EACH = 2


class Guidebook(MessagesState):
    """`messages`: the task, what was written, and what people said meanwhile."""

    written: int


async def write(state: Guidebook) -> dict[str, Any]:
    """The next section, in the manner that people have asked for up to now."""
    task, *said = [message.text for message in state["messages"] if isinstance(message, HumanMessage)]
    number = state.get("written", 0)
    title = SECTIONS[number] if number < len(SECTIONS) else "Afterword"  # for what is said during the last section
    get_stream_writer()({"type": "status", "status": "writing", "message": f"{title}, {', '.join(said) or 'as usual'}"})
    await asyncio.sleep(SECONDS_EACH)
    return {"messages": [AIMessage(f"{title} of {task} ({', '.join(said) or 'as usual'}).")], "written": number + 1}


def what_next(state: Guidebook) -> str:
    return "write" if state["written"] < len(SECTIONS) else END


graph = (
    StateGraph(Guidebook)
    .add_node(write)
    .add_edge(START, "write")
    .add_conditional_edges("write", what_next)
    .compile(checkpointer=InMemorySaver())
)

agents = Agents()
agents.agent("writer", description="Writes about a city, as you like it", accepts_messages=True)(
    graph_agent(graph, result=lambda state: [each.text for each in state["messages"] if each.type == "ai"])
)
