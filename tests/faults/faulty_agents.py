"""Agents of the worker tests, run by real worker processes. Every event says which attempt wrote it."""

from __future__ import annotations

import asyncio
import os
import random
import signal

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
