"""Agents that trace their own work with OpenTelemetry's API, and know nothing of how it gets anywhere."""

from __future__ import annotations

import asyncio

import structlog
from opentelemetry import trace

from emitter import Agents, Context, SyncContext

agents = Agents()
tracer = trace.get_tracer("agents")
log = structlog.get_logger("agents")


@agents.agent("researcher")
async def researcher(context: Context) -> str:
    """Once somebody says so: two specialists side by side, each with work in a thread."""
    await context.emitter.ask("Go on?", input_id="go")
    log.info("researched")
    with tracer.start_as_current_span("research"):
        await asyncio.gather(specialist(context, "reader"), specialist(context, "writer"))
    await context.emitter.text("Done.")
    return "done"


async def specialist(context: Context, name: str) -> None:
    await context.emitter.specialist_activated(name)
    with tracer.start_as_current_span(name):
        await asyncio.to_thread(look, name)
    await context.emitter.specialist_complete(name)


def look(name: str) -> None:
    with tracer.start_as_current_span(f"{name} looks"):
        pass


@agents.agent("blocking")
def blocking(context: SyncContext) -> str:
    with tracer.start_as_current_span("block"):
        context.emitter.thinking("hm")
    return "done"


@agents.agent("failing")
async def failing(context: Context) -> None:
    raise ValueError("the password is hunter2")


@agents.agent("talker")
async def talker(context: Context) -> str:
    for number in range(50):
        await context.emitter.thinking(f"thought {number}")
    return "said"
