"""Agents for the clients of other protocols, run by a real worker process. They write nothing of any protocol."""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Agents, Context

agents = Agents()


@agents.agent("teller", description="Does some of everything", tags=("test",))
async def teller(context: Context) -> dict[str, Any]:
    emitter = context.emitter
    await emitter.plan_created("Tell", [("look", "Look"), ("say", "Say")])
    async with emitter.phase("look", name="Look"):
        await emitter.thinking("Where to begin?")
        for piece in ("First ", "things ", "first."):
            await emitter.thinking_delta(piece, "r1")
        async with emitter.tool("add", {"a": 1, "b": 2}, call_id="c1") as call:
            await emitter.tool_progress("c1", progress=50)
            call.result = {"sum": 3}
        await emitter.tool_start("c2", "divide", {"by": 0})
        await emitter.tool_error("c2", "divide", "by zero", 0.1)
        await emitter.progress(50, current_action="Looking")
        await emitter.partial_result({"half": True})
    async with emitter.phase("say", name="Say"):
        for piece in ("Sum", ": 3 \u2028", "é \U0001f600."):
            await emitter.text(piece)
        await emitter.end_text()
        await emitter.artifact("a1", "text/plain", text="3\n", last=True)
        await emitter.custom("acme.seen", {"ok": True})
        await emitter.usage(input_tokens=10, output_tokens=5)
        await emitter.progress(100)
    return {"sum": 3}


@agents.agent("asker")
async def asker(context: Context) -> dict[str, bool]:
    await context.emitter.text("Before. ")
    approved = await context.ask("Go on?", kind="approval", expires_in=60)
    await context.emitter.text("After.")
    return {"approved": approved}


@agents.agent("careful")
async def careful(context: Context) -> dict[str, list[bool]]:
    """Asks twice, once within a call."""
    await context.emitter.text("Before. ")
    async with context.emitter.tool("publish", {"what": "it"}) as call:
        first = await context.ask("Publish it?", kind="approval", expires_in=60)
        call.result = "published" if first else "left"
    second = await context.ask("Tell?", kind="approval", expires_in=60)
    await context.emitter.text("After.")
    return {"approved": [first, second]}


@agents.agent("sleeper")
async def sleeper(context: Context) -> None:
    await context.emitter.tool_start("c1", "sleep", {})
    await context.emitter.thinking("I wait")
    await asyncio.sleep(60)


@agents.agent("failer")
async def failer(context: Context) -> None:
    await context.emitter.text("So far")
    raise RuntimeError("as told")


@agents.agent("rememberer")
async def rememberer(context: Context) -> str:
    """Answers with the conversation it was given."""
    messages = context.params.get("messages", [])
    return " | ".join(f"{message['role']}: {message['content']}" for message in messages)


@agents.agent("keeper", input_modes=("text/plain", "application/json", "application/pdf"))
async def keeper(context: Context) -> dict[str, Any]:
    """Gives back what it was given."""
    return {"task": context.task, "messages": context.params.get("messages", [])}


@agents.agent("negotiator", accepts_messages=True)
async def negotiator(context: Context) -> dict[str, Any]:
    """Asks after the first message, and takes what is said while it waits for the answer."""
    await context.emitter.status("listening", "I listen")
    first = await context.next_message()
    heard = [first and first.text]
    await context.emitter.text(f"Heard {heard[0]}. ")
    approved = await context.ask("Go on?", kind="approval", expires_in=60)
    heard += [message.text for message in await context.waiting_messages()]
    await context.emitter.text(f"Heard {heard[-1]}.")
    return {"approved": approved, "heard": heard}


@agents.agent("listener", accepts_messages=True)
async def listener(context: Context) -> dict[str, Any]:
    """Repeats what it hears, until it hears `stop`."""
    heard = []
    await context.emitter.status("listening", "I listen")
    async for message in context.messages():
        heard.append(message.text)
        await context.emitter.text(f"Heard {message.text}. ")
        if message.text == "stop":
            break
    return {"heard": heard}
