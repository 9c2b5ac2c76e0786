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
