"""Agents to be steered, run by real worker processes."""

from __future__ import annotations

import asyncio
import time

from emitter import Agents, Context, SyncContext

agents = Agents()


@agents.agent("sleeper")
async def sleeper(context: Context) -> None:
    await context.emitter.thinking("I wait")
    await asyncio.Event().wait()


@agents.agent("asker")
async def asker(context: Context) -> bool:
    return bool(await context.ask("Go on?", kind="approval"))


@agents.agent("blocker")
def blocker(context: SyncContext) -> str:
    """A plain function, which looks whether it must stop."""
    context.emitter.thinking("I work")
    while not context.cancelled:
        time.sleep(0.02)
    context.emitter.thinking("I stop")
    return "never seen"


@agents.agent("blocked-asker")
def blocked_asker(context: SyncContext) -> bool:
    return bool(context.ask("Go on?", kind="approval"))
