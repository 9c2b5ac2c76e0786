"""Agents of the worker tests, run by real worker processes. Every event says which attempt wrote it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

from emitter import Agents, Context

agents = Agents()


@agents.agent("steady", max_attempts=100)
async def steady(context: Context) -> dict[str, int]:
    """A few steps with pauses; `steps` and `pause` are parameters."""
    steps = int(context.params.get("steps", 5))
    for step in range(steps):
        await context.emitter.thinking(f"{context.attempt} {step}")
        await asyncio.sleep(float(context.params.get("pause", 0.1)) * random.uniform(0.5, 1.5))
    return {"attempt": context.attempt, "steps": steps}


@agents.agent("lasting")
async def lasting(context: Context) -> dict[str, int]:
    """As `steady`, but tried three times at most."""
    return await steady(context)


@agents.agent("killer", max_attempts=2)
async def killer(context: Context) -> None:
    """Kills the worker that runs it, every time."""
    await context.emitter.thinking(f"{context.attempt} 0")
    await context.emitter.flush()
    os.kill(os.getpid(), signal.SIGKILL)


@agents.agent("once", max_attempts=1)
async def once(context: Context) -> None:
    await context.emitter.thinking(f"{context.attempt} 0")
    await asyncio.Event().wait()


@agents.agent("patient")
async def patient(context: Context) -> int:
    """Waits for ever in its first attempt."""
    await context.emitter.thinking(f"{context.attempt} 0")
    await context.emitter.flush()
    if context.attempt == 1:
        await asyncio.Event().wait()
    return context.attempt


@agents.agent("blocker")
async def blocker(context: Context) -> str:
    """Blocks the event loop for `seconds`, step by step, and stops when it sees that it must."""
    await context.emitter.thinking(f"{context.attempt} 0")
    await context.emitter.flush()
    ends = time.monotonic() + float(context.params["seconds"])
    step = float(context.params.get("step", 60))
    while (left := ends - time.monotonic()) > 0:
        if context.cancelled:
            return "saw that it must stop"
        time.sleep(min(step, left))
    return "done"


@agents.agent("limited", time_limit=2)
async def limited(context: Context) -> None:
    """Blocks the event loop for much longer than it may run."""
    await context.emitter.thinking(f"{context.attempt} 0")
    await context.emitter.flush()
    time.sleep(float(context.params["seconds"]))


@agents.agent("quiet", idle_limit=2)
async def quiet(context: Context) -> str:
    """Says something every half second, by its own clock."""
    for step in range(10):
        await context.emitter.thinking(f"{context.attempt} {step}")
        await asyncio.sleep(0.5)
    return "done"


@agents.agent("poison")
async def poison(context: Context) -> None:
    """Ends its process some time after it has started."""
    await context.emitter.thinking(f"{context.attempt} 0")
    await context.emitter.flush()
    await asyncio.sleep(float(context.params.get("after", 0.5)))
    os._exit(7)
