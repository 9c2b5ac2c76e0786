"""Agents that workers of both versions run. Each says which version ran it."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

from emitter import Agents, Context

VERSION = "new" if importlib.util.find_spec("emitter.budgets") else "old"
agents = Agents()


@agents.agent("relay", max_attempts=3)
async def relay(context: Context) -> dict[str, Any]:
    """Asks, then waits for its worker to be killed; the next attempt has the answer already."""
    await context.emitter.message_delta("m", f"{VERSION} was here. ")
    answer = await context.ask("Go on?", kind="text")
    while context.attempt == 1:
        await asyncio.sleep(1)
    return {"version": VERSION, "answer": answer, "secret": context.params["password"] == "s3cret-of-relay"}


@agents.agent("waiter")
async def waiter(context: Context) -> None:
    """Waits to be cancelled."""
    await context.emitter.status("waiting", VERSION)
    await asyncio.sleep(60)


@agents.agent("steps", max_attempts=20)
async def steps(context: Context) -> dict[str, Any]:
    """Goes on for a while, from its beginning in each attempt."""
    for number in range(context.params["steps"]):
        await context.emitter.message_delta("m", f"{number} ")
        await context.emitter.status("step", f"{number} {VERSION}")
        await asyncio.sleep(0.05)
    return {"version": VERSION}
