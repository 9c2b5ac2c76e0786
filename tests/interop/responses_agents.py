"""Agents for the clients of the Responses API, run by a real worker process."""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Agents, Context

agents = Agents()


@agents.agent("model")
async def model(context: Context) -> str | None:
    """What a plain model does: calls the first function that it is given, once; else says what it was told."""
    tools = context.params.get("tools") or []
    if tools:
        return await called(context, tools[0]["name"])
    said = context.params["messages"]
    instructions = context.params.get("instructions")
    await context.emitter.thinking_delta("Let me see.", "r")
    for piece in ("One ", "two ", "three."):
        await context.emitter.text(piece)
    await context.emitter.end_text()
    await context.emitter.usage(input_tokens=10, output_tokens=5)
    files = [name for turn in said for name in (each.get("mediaType") for each in turn.get("attachments", []))]
    heard = " | ".join(f"{turn['role']}: {turn['content']}" for turn in said)
    await context.emitter.text(f" {instructions or '-'} / {heard} / {files}")
    return None


async def called(context: Context, name: str) -> str:
    """A function of the client: a call, and under its id a question, whose answer is the function's result."""
    async with context.emitter.tool(name, {"location": "San Francisco, CA"}, call_id="f1") as call:
        call.result = await context.ask(f"Run {name}", kind="text", schema={}, input_id="f1", expires_in=60)
    return f"It says {call.result}."


@agents.agent("worker")
async def worker(context: Context) -> dict[str, Any]:
    """Thinks, uses a tool, asks, and goes on."""
    emitter = context.emitter
    await emitter.thinking("Where to begin?")
    async with emitter.tool("search", {"q": "x"}, call_id="c1") as call:
        call.result = {"hits": 3}
    await emitter.text("Found 3. ")
    approved = await context.ask("Publish?", kind="approval", expires_in=60)
    where = await context.ask("Where?", kind="choice", options=["here", "there"], expires_in=60)
    await emitter.text(f"Published {where}." if approved else "Left.")
    return {"approved": approved, "where": where}


@agents.agent("failer")
async def failer(context: Context) -> None:
    await context.emitter.text("So far")
    raise RuntimeError("as told")


@agents.agent("slow")
async def slow(context: Context) -> str:
    """Says a word when a file of its parameter is there: what waits for it is up to the test."""
    await context.emitter.text("begun ")
    await asyncio.sleep(float(context.params.get("seconds", 30)))
    return "ended"


@agents.agent("listener", accepts_messages=True)
async def listener(context: Context) -> str:
    await context.emitter.text("Tell me. ")
    message = await context.next_message(timeout=30)
    await context.emitter.text(f"You said {message.text}." if message is not None else "Nothing.")
    return "done"
