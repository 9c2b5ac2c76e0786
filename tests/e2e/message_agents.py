"""Agents that take messages."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from emitter import Agents, Context, Interrupted, SyncContext

agents = Agents()


@agents.agent("listener", accepts_messages=True, max_attempts=20)
async def listener(context: Context) -> list[str]:
    """Takes messages until one says `stop`; the result is what it heard."""
    heard = []
    async for message in context.messages():
        heard.append(message.text or "")
        await context.emitter.custom("heard", {"id": message.message_id, "attempt": context.attempt})
        if message.text == "stop":
            break
    return heard


@agents.agent("counter", accepts_messages=True, max_attempts=20)
async def counter(context: Context) -> list[str]:
    """Takes as many messages as its task says, with pauses between; the result is their ids."""
    heard: list[str] = []
    while len(heard) < int(context.task):
        message = await context.next_message(timeout=30)
        assert message is not None
        heard.append(message.message_id)
        await context.emitter.custom("heard", {"id": message.message_id, "attempt": context.attempt})
    return heard


@agents.agent("patient", accepts_messages=True)
async def patient(context: Context) -> dict[str, Any]:
    """Works until it is interrupted."""
    await context.emitter.status("working", "hard")
    try:
        async with context.interruptible():
            await asyncio.sleep(60)
    except Interrupted as interrupted:
        others = await context.waiting_messages()
        return {"interrupted": interrupted.message.text, "others": [each.text for each in others]}
    return {}


@agents.agent("blocking", accepts_messages=True)
def blocking(context: SyncContext) -> list[str]:
    """A sync agent."""
    heard = []
    for message in context.messages():
        heard.append(message.text or "")
        if message.text == "stop":
            break
        heard += [f"more: {each.text}" for each in context.waiting_messages()]
        context.emitter.custom("looked", {})
    if (late := context.next_message(timeout=0.05)) is not None:
        heard.append(f"late: {late.text}")
    return heard


@agents.agent("deaf")
async def deaf(context: Context) -> None:
    """Takes none."""
    await context.emitter.status("working", "hard")
    await asyncio.sleep(60)


@agents.agent("asking", accepts_messages=True)
async def asking(context: Context) -> dict[str, Any]:
    """Asks a person and hears messages at the same time."""
    heard: list[str] = []

    async def hear() -> None:
        while (message := await context.next_message()) is not None:
            heard.append(message.text or "")
            await context.emitter.custom("heard", {"id": message.message_id})

    hearing = asyncio.create_task(hear())
    answer = await context.ask("Go on?")
    hearing.cancel()
    return {"answer": answer, "heard": heard}


@agents.agent("echo", accepts_messages=True)
async def echo(context: Context) -> int:
    """Says how long each message took (`data.sent`, seconds of the same machine)."""
    count = 0
    async for message in context.messages():
        await context.emitter.custom("lag", {"ms": (time.time() - message.data["sent"]) * 1000})
        count += 1
        if message.data.get("last"):
            break
    return count
