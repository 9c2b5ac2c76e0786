"""Agents for the browser's tests, run by a real worker beside the demo's. What they do, `params` says."""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Context, Interrupted
from emitter.demo import agents

__all__ = ["agents"]


@agents.agent("teller", "Does some of everything", tags=("test",))
async def teller(context: Context) -> dict[str, Any]:
    """A plan of two phases, thinking, tools that go well and do not, streamed text, usage. `params.pause` seconds lie
    between its steps (0)."""
    emitter, pause = context.emitter, float(context.params.get("pause", 0))
    await emitter.plan_created("Tell", [("look", "Look"), ("say", "Say")])
    async with emitter.phase("look", name="Look"):
        await emitter.thinking("Where to begin?")
        await asyncio.sleep(pause)
        async with emitter.tool("add", {"a": 1, "b": 2}, call_id="c1") as call:
            await emitter.tool_progress("c1", progress=50)
            await asyncio.sleep(pause)
            call.result = {"sum": 3}
        await emitter.tool_start("c2", "divide", {"by": 0})
        await emitter.tool_error("c2", "divide", "by zero", 0.1)
        await emitter.progress(50, current_action="Looking")
    async with emitter.phase("say", name="Say"):
        for piece in ("The sum", " is ", "**3**."):
            await emitter.text(piece)
            await asyncio.sleep(pause)
        await emitter.end_text()
        await emitter.usage(input_tokens=10, output_tokens=5, cost_usd=0.01)
        await emitter.progress(100)
    return {"sum": 3}


@agents.agent("asker", "Asks for an approval, or what `params.kind` says", tags=("test",))
async def asker(context: Context) -> dict[str, Any]:
    await context.emitter.text("Before. ")
    answer = await context.ask(
        context.params.get("prompt", "Go on?"),
        kind=context.params.get("kind", "approval"),
        options=context.params.get("options"),
        expires_in=context.params.get("expiresIn", 60),
    )
    await context.emitter.text("After.")
    return {"answer": answer}


@agents.agent("counter", "Thinks `params.count` numbered thoughts, `params.pause` seconds apart", tags=("test",))
async def counter(context: Context) -> int:
    count, pause = int(context.params.get("count", 10)), float(context.params.get("pause", 0))
    for number in range(1, count + 1):
        await context.emitter.thinking(f"thought {number}")
        if pause:
            await asyncio.sleep(pause)
    return count


@agents.agent("sayer", "Streams `params.text` in pieces of `params.size` characters", tags=("test",))
async def sayer(context: Context) -> str:
    text, size = str(context.params.get("text", "Hello.")), int(context.params.get("size", 16))
    for start in range(0, len(text), size):
        await context.emitter.text(text[start : start + size])
    await context.emitter.end_text()
    return text


@agents.agent("sleeper", "Waits to be cancelled", tags=("test",))
async def sleeper(context: Context) -> None:
    await context.emitter.tool_start("c1", "sleep", {})
    await context.emitter.thinking("I wait")
    await asyncio.sleep(60)


@agents.agent("failer", "Fails as told", tags=("test",))
async def failer(context: Context) -> None:
    await context.emitter.text("So far")
    raise RuntimeError(context.task)


@agents.agent("delegator", "Starts an asker and a sleeper, and waits for the first", tags=("test",))
async def delegator(context: Context) -> Any:
    asker = await context.start("asker", "May I?", key="asked")
    await context.start("sleeper", "Sleep")
    return await asker.result()


@agents.agent("listener", "Works until it is interrupted, then hears people until `stop`", accepts_messages=True)
async def listener(context: Context) -> list[str]:
    heard = []
    await context.emitter.thinking("I work")
    try:
        async with context.interruptible():
            await asyncio.sleep(60)
    except Interrupted as interrupted:
        heard.append(interrupted.message.text or "")
    async for message in context.messages():
        heard.append(message.text or "")
        await context.emitter.text(f"Heard {message.text}. ")
        if message.text == "stop":
            break
    return heard
