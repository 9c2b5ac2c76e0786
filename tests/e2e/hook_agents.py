"""Agents whose events the hooks of a worker process change."""

from __future__ import annotations

from emitter import Agents, Context

agents = Agents()


@agents.agent("writer")
async def writer(context: Context) -> dict[str, str]:
    await context.emitter.thinking("who is bob?", visible=False)
    await context.emitter.text("I wrote to bob@example.com.")
    await context.emitter.usage(input_tokens=1000, output_tokens=100, model="example-small")
    await context.emitter.custom("sent", {"to": "bob@example.com"})
    return {"to": "bob@example.com"}


@agents.agent("unlucky")
async def unlucky(context: Context) -> str:
    return "boom bob@example.com"
