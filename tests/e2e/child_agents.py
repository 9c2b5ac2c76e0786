"""Agents that start others, run by real worker processes."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from emitter import Agents, Context, SyncContext

agents = Agents()
ONLY = os.environ.get("CHILD_AGENTS", "parent,sync_parent,child,tree").split(",")
"""So that parents and children run in different processes."""


def agent(name: str) -> Any:
    return agents.agent(name) if name in ONLY else lambda function: function


@agent("parent")
async def parent(context: Context) -> dict[str, Any]:
    """Waits for two children, and says in which attempt it had both results."""
    children = [await context.start("child", task, params=context.params, key=task) for task in ("one", "two")]
    results = await asyncio.gather(*(child.result() for child in children))
    return {"results": results, "attempt": context.attempt}


@agent("sync_parent")
def sync_parent(context: SyncContext) -> Any:
    return context.call("child", "one", params=context.params)


@agent("child")
async def child(context: Context) -> str:
    """Takes its time in the first attempt, in which it may be killed."""
    await context.emitter.usage(input_tokens=3, output_tokens=4)
    await asyncio.sleep(context.params.get("seconds", 0) if context.attempt == 1 else 0)
    return f"{context.task} in attempt {context.attempt}"


@agent("tree")
async def tree(context: Context) -> None:
    """Starts `widths[0]` of itself, each of which starts `widths[1]`, and so on; then waits for ever."""
    widths = context.params.get("widths", [])
    for number in range(widths[0] if widths else 0):
        await context.start("tree", str(number), params={"widths": widths[1:]})
    await asyncio.Event().wait()
