"""Agents of the chaos tool, run by real worker processes. Each says in a file, outside of Redis, which attempts it
began."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

from emitter import Agents, Context

agents = Agents()
MANY = 1000
CALL_SECONDS = 0.5
"""Between two calls of a tool: longer than a busy worker takes to cancel who has made one too many."""


def begin(context: Context) -> None:
    line = f"{context.execution_id} {context.attempt}\n".encode()
    file = os.open(os.environ["CHAOS_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)  # one write of a short line: whole, whoever else writes
    finally:
        os.close(file)


async def think(context: Context) -> None:
    """A thought for each of `steps`, `pause` seconds apart, with text and a tool between them now and then."""
    pause = float(context.params["pause"])
    for step in range(int(context.params["steps"])):
        await context.emitter.thinking(f"{context.attempt} {step}")
        if step % 5 == 0:
            await context.emitter.text(f"{context.attempt} {step} ")
        await asyncio.sleep(pause * random.uniform(0.7, 1.3))


@agents.agent("talker", max_attempts=MANY)
async def talker(context: Context) -> int:
    begin(context)
    await think(context)
    return context.attempt


@agents.agent("asker", max_attempts=MANY)
async def asker(context: Context) -> Any:
    """Asks one question. A later attempt asks it again; the answer is that of the first one who gave it."""
    begin(context)
    await think(context)
    return await context.ask("Which?", kind="text")


@agents.agent("listener", max_attempts=MANY, accepts_messages=True)
async def listener(context: Context) -> list[str]:
    """Until it has heard all, or for a while nothing: what was accepted may be lost in a failover."""
    begin(context)
    heard: list[str] = []
    while len(heard) < int(context.params["messages"]):
        if (message := await context.next_message(timeout=30)) is None:
            break
        heard.append(message.message_id)
    return heard


@agents.agent("parent", max_attempts=MANY)
async def parent(context: Context) -> list[Any]:
    begin(context)
    children = [await context.start("talker", key, params=context.params, key=key) for key in ("one", "two")]
    return list(await asyncio.gather(*(child.result() for child in children)))


@agents.agent("spender", max_attempts=MANY)
async def spender(context: Context) -> None:
    """Calls tools until its budget is over."""
    begin(context)
    step = 0
    while True:
        step += 1
        async with context.emitter.tool("search", call_id=f"c{context.attempt}_{step}"):
            await context.emitter.usage(input_tokens=step * 10)
        await asyncio.sleep(CALL_SECONDS)
