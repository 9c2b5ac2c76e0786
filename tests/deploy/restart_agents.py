"""Agents of a worker whose Redis is restarted under it."""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Agents, Context

TICKS = 40

agents = Agents()


@agents.agent("ticker")
async def ticker(context: Context) -> int:
    for number in range(TICKS):
        await context.emitter.thinking(str(number))
        await asyncio.sleep(0.1)
    return TICKS


@agents.agent("asker")
async def asker(context: Context) -> Any:
    return await context.ask("Which colour?", kind="text")


@agents.agent("counter")
async def counter(context: Context) -> int:
    return context.attempt


agents.schedule("pulse", agent="counter", user_id="ops", task="Count", every=1)
