"""An agent that lets its person choose."""

from __future__ import annotations

from emitter import Agents, Context

agents = Agents()


@agents.agent("chooser")
async def chooser(context: Context) -> str:
    return str(await context.ask("Which colour?", kind="choice", options=["red", "blue"]))
