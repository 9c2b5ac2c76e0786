"""Agents that spend, run by real worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any, TypedDict

from emitter import Agents, Budget, Context, SyncContext

agents = Agents()


@agents.agent("spender", max_attempts=100, budget=Budget(total_tokens=10_000, tool_calls=500))
async def spender(context: Context) -> str:
    """Reports `tokens` more and starts a tool every `pause` seconds, `steps` times."""
    for step in range(1, int(context.params.get("steps", 1_000_000)) + 1):
        async with context.emitter.tool("search", call_id=f"c{context.attempt}_{step}"):
            await context.emitter.usage(input_tokens=step * int(context.params.get("tokens", 10)))
        await asyncio.sleep(float(context.params.get("pause", 0.05)))
    return "done"


@agents.agent("crasher", max_attempts=100)
async def crasher(context: Context) -> None:
    """Starts a tool, and kills its worker."""
    await context.emitter.tool_start("c", "search")
    await context.emitter.flush()
    os.kill(os.getpid(), signal.SIGKILL)


@agents.agent("sleeper", max_attempts=100)
async def sleeper(context: Context) -> None:
    await context.emitter.thinking("t")
    await asyncio.sleep(600)


@agents.agent("blocker")
async def blocker(context: Context) -> None:
    """Blocks the event loop until it sees that it must stop."""
    await context.emitter.thinking("t")
    await context.emitter.flush()
    ends = time.monotonic() + 20
    while time.monotonic() < ends and not context.cancelled:
        time.sleep(0.1)


@agents.agent("deaf")
async def deaf(context: Context) -> None:
    """Blocks the event loop for 20 s, whatever it is told."""
    await context.emitter.thinking("t")
    await context.emitter.flush()
    time.sleep(20)


@agents.agent("plain")
def plain(context: SyncContext) -> int:
    """A sync agent that plans with what is left."""
    calls = 0
    while (left := context.budget.remaining.tool_calls) is None or left > 1:
        with context.emitter.tool("search"):
            calls += 1
    return calls


class State(TypedDict):
    turns: int


@agents.agent("graph", budget=Budget(total_tokens=100))
async def graph(context: Context) -> Any:
    """A graph whose model takes 30 tokens a turn, for ever; run again and again, as agents with a loop of their own
    do."""
    # Here, because workers of the other agents start in half the time without it.
    from langchain_core.messages import AIMessage
    from langgraph.graph import START, StateGraph

    from emitter.integrations.langgraph import run_graph
    from tests.emitter.langgraph_models import Whole

    async def turn(state: State) -> State:
        used = {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30}
        await Whole(script=[AIMessage("x", usage_metadata=used)]).ainvoke("hello")
        await asyncio.sleep(0.05)
        return {"turns": state["turns"] + 1}

    built = StateGraph(State)
    built.add_node("turn", turn)
    built.add_edge(START, "turn")
    for _ in range(50):
        await run_graph(built.compile(), {"turns": 0}, context)
