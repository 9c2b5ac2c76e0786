"""An agent of the benches: works until it is cancelled, and says when it heard of it."""

from __future__ import annotations

import asyncio
import itertools
import time

from emitter import Agents, Context

agents = Agents()


@agents.agent("busy", max_attempts=10)
async def busy(context: Context) -> None:
    try:
        for step in itertools.count():
            await context.emitter.progress(step % 100)
            await asyncio.sleep(0.5)
    except asyncio.CancelledError:
        await context.emitter.custom("heard", {"at": time.time()})
        raise


@agents.agent("listener", max_attempts=1000, accepts_messages=True)
async def listener(context: Context) -> int:
    """Takes as many messages as its task says; the log has when each was heard."""
    await context.emitter.progress(0)
    heard = 0
    while heard < int(context.task):
        if (message := await context.next_message(timeout=30)) is not None:
            heard += 1
            await context.emitter.custom("heard", {"at": time.time(), "id": message.message_id})
    return heard


@agents.agent("brief")
async def brief(context: Context) -> dict[str, int]:
    """A text, a call of a tool, and a result."""
    size = int(context.params["size"])
    for _ in range(4):
        await context.emitter.message_delta("m", "x" * (size // 4))
    async with context.emitter.tool("search", {"q": context.task}) as tool:
        tool.result = "y" * size
    return {"size": size}
