"""Agents of the tests, run by a real worker process."""

from __future__ import annotations

import asyncio

from emitter import Agents, Context

agents = Agents()


@agents.agent("counter", description="Counts to n and says so", tags=("test",))
async def counter(context: Context) -> dict[str, int]:
    total = 0
    async with context.emitter.phase("count", name="Count"):
        for number in range(int(context.params.get("n", 3))):
            async with context.emitter.tool("add", {"number": number}) as call:
                total += number
                call.result = total
            await context.emitter.text(f"{number} ")
    return {"total": total}


@agents.agent("asker")
async def asker(context: Context) -> dict[str, bool]:
    return {"approved": await context.ask("Go on?", kind="approval", expires_in=30)}


@agents.agent("sleeper")
async def sleeper(context: Context) -> None:
    await context.emitter.thinking("I wait")
    await asyncio.sleep(60)


@agents.agent("failer")
async def failer(context: Context) -> None:
    raise RuntimeError("as told")
