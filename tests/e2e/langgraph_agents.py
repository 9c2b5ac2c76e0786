"""Graphs of the tests, run by a real worker process: one streams a text slowly and asks in the middle, others are
LangChain's own agents."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from emitter import Agents, Context
from emitter.integrations.langgraph import graph_agent
from tests.emitter.langgraph_models import Chunked, calling, spoken

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


# --- a person's approval, and a conversation -------------------------------------------------------------------------


class Clerk(BaseChatModel):
    """Sends a letter, and says what came of it."""

    @property
    def _llm_type(self) -> str:
        return "clerk"

    def bind_tools(self, tools: Any, **more: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *arguments: Any, **more: Any) -> ChatResult:
        last = messages[-1]
        call = calling(("send", {"to": "Ada", "copies": 2}, "c1"))
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage(last.text) if isinstance(last, ToolMessage) else call)]
        )


class Parrot(Clerk):
    """Says how many messages it was given."""

    def _generate(self, messages: list[BaseMessage], *arguments: Any, **more: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"heard {len(messages)}"))])


@tool
def send(to: str, copies: int) -> str:
    """Send a letter."""
    return f"sent {copies} to {to}"


@tool
def consult(question: str) -> str:
    """As LangGraph's guides write it: the answer is an object."""
    return str(interrupt({"query": question})["data"])


def of_conversation(context: Context) -> Any:
    return {"configurable": {"thread_id": context.conversation_id}}


approval = HumanInTheLoopMiddleware(interrupt_on={"send": {"allowed_decisions": ["approve", "edit", "reject"]}})
mailer = create_agent(Clerk(), [send], middleware=[approval], checkpointer=InMemorySaver())  # type: ignore[list-item]
agents.agent("mailer")(graph_agent(mailer, result=lambda state: state["messages"][-1].text))

parrot = create_agent(Parrot(), [], checkpointer=InMemorySaver())
agents.agent("parrot")(graph_agent(parrot, config=of_conversation, result=lambda state: state["messages"][-1].text))


def consulting(state: State) -> dict[str, Any]:
    return {"said": [consult.invoke({"question": state["task"]})]}


asker = StateGraph(State).add_sequence([consulting]).add_edge(START, "consulting").compile(checkpointer=InMemorySaver())
agents.agent("asker")(graph_agent(asker, result=lambda state: state["said"][-1]))
