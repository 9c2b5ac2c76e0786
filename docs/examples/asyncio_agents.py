"""What an agent of a worker can say, and what can go wrong."""

import asyncio
from typing import Any

from emitter import Agents, Context, Fatal, Retry
from emitter.events import Thinking

agents = Agents()


@agents.agent("reporter", description="Writes a report", tags=["writing"], max_attempts=3, time_limit=600)
async def reporter(context: Context) -> dict[str, Any]:
    emitter = context.emitter
    await emitter.plan_created("A report", [("read", "Read"), ("write", "Write")])
    async with emitter.phase("read", "Read"):
        await emitter.status("searching", "Looking for sources")
        async with emitter.tool("read_file", {"path": "sales.csv"}) as call:
            await call.progress(50, "half of it")
            call.result = {"rows": 1200}
        await emitter.partial_result({"rows": 1200})
    async with emitter.phase("write", "Write"):
        await emitter.progress(60, current_action="writing")
        for word in ("March ", "went ", "well."):
            await emitter.text(word)
        await emitter.end_text()
        await emitter.usage(input_tokens=900, output_tokens=40, cost_usd=0.002, model="small")
        await emitter.artifact("report", "text/markdown", name="report.md", text="# March\n\nIt went well.\n")
    await emitter.custom("report.filed", {"shelf": 7})
    return {"title": "March"}


@agents.agent("team", description="Two specialists at once")
async def team(context: Context) -> dict[str, str]:
    async def specialist(name: str) -> str:
        async with asyncio.timeout(30):
            await context.emitter.specialist_activated(name, task=context.task)
            await context.emitter.emit(Thinking(thought="Let me see."), agent=name)
            await context.emitter.specialist_complete(name, summary=f"{name}: fine")
            return f"{name}: fine"

    async with asyncio.TaskGroup() as group:
        law, tax = group.create_task(specialist("law")), group.create_task(specialist("tax"))
    return {"law": law.result(), "tax": tax.result()}


@agents.agent("careful", max_attempts=3)
async def careful(context: Context) -> str:
    if context.attempt == 1:
        raise Retry("the model is busy", after=0.1)  # another attempt, after so many seconds
    if "impossible" in context.task:
        raise Fatal("nobody can do that")  # no other attempt
    return f"done at attempt {context.attempt}"
