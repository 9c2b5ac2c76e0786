"""A graph of the tests, run by a real worker process: it streams a text slowly, and asks in the middle."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from emitter import Agents
from emitter.integrations.langgraph import graph_agent
from tests.emitter.langgraph_models import Chunked, spoken

WORDS = [f"w{number} " for number in range(40)]
PAUSE_SECONDS = 0.015  # chunks within 10 ms are merged


class State(TypedDict, total=False):
    task: str
    said: Annotated[list[Any], operator.add]


async def write(state: State) -> dict[str, Any]:
    model = Chunked(script=[spoken(*WORDS, tokens=(10, 40))], pause_seconds=PAUSE_SECONDS)
    return {"said": [(await model.ainvoke(state["task"])).text]}


def review(state: State) -> dict[str, Any]:
    return {"said": [interrupt({"prompt": "Good?", "options": ["yes", "no"]})]}


graph = StateGraph(State).add_sequence([write, review, ("rewrite", write)]).add_edge(START, "write")

agents = Agents()
agents.agent("writer")(graph_agent(graph.compile(checkpointer=InMemorySaver()), result=lambda state: state["said"]))
