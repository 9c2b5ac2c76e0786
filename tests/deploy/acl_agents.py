"""Agents of the worker that has only the rights of `worker` in deploy/redis/users.acl."""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Agents, Context

agents = Agents()


@agents.agent("counter")
async def counter(context: Context) -> int:
    for number in range(3):
        async with context.emitter.tool("add", {"number": number}) as call:
            call.result = number
        await context.emitter.text(f"{number} ")
    return 3


@agents.agent("asker")
async def asker(context: Context) -> Any:
    return await context.ask("Which colour?", kind="text")


@agents.agent("sleeper", max_attempts=2)
async def sleeper(context: Context) -> None:
    await context.emitter.thinking(f"attempt {context.attempt}")
    await asyncio.Event().wait()


@agents.agent("parent")
async def parent(context: Context) -> Any:
    await context.start("sleeper", "Sleep")
    return await context.call("counter", "Count")


agents.schedule("pulse", agent="counter", user_id="ops", task="Count", every=1)
