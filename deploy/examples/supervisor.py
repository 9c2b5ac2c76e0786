"""A supervisor that delegates to two children and puts together what they found.

    pip install 'runcast[broker]'
    export RUNCAST_REDIS_URL=redis://localhost:6379/0
    runcast worker supervisor:agents --concurrency 1      # in this folder; one slot is enough for all three
    runcast run supervisor "Rome in spring" --follow      # and `?tree=true` of its state has the tree

Each child is an execution with a log, a worker and retries of its own. The supervisor holds no slot while it waits. If
its worker dies, its next attempt finds the children by their keys. If it is cancelled, so are they. What they spend
counts to its budget; when that is over, all three end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Agents, Budget, ChildFailed, Context

agents = Agents()
SEASONS = {"winter": 8, "spring": 18, "summer": 31, "autumn": 20}


@agents.agent("supervisor", description="Has a trip looked into from two sides", budget=Budget(cost_usd=0.5))
async def supervisor(context: Context) -> dict[str, Any]:
    emitter = context.emitter
    async with emitter.phase("delegate", name="Delegate"):
        weather = await context.start("weather", context.task, key="weather")
        sights = await context.start("sights", context.task, key="sights", params={"most": 3})
    async with emitter.phase("collect", name="Collect"):
        found = await asyncio.gather(weather.result(timeout=60), sights.result(timeout=60), return_exceptions=True)
    answer: dict[str, Any] = {"missing": []}
    for child, result in zip((weather, sights), found, strict=True):
        if isinstance(result, ChildFailed | TimeoutError):
            await child.cancel("the supervisor goes on without it")
            answer["missing"].append(f"{child.agent}: {result}")
        elif isinstance(result, BaseException):
            raise result
        else:
            answer |= result
    await emitter.text(f"{context.task}: {answer.get('degrees', 'an unknown number of')} degrees. ")
    await emitter.text(f"See {', '.join(answer.get('sights', [])) or 'what there is'}.")
    return answer


@agents.agent("weather", description="How warm it will be", max_attempts=2)
async def weather(context: Context) -> dict[str, int]:
    season = next((name for name in SEASONS if name in context.task.lower()), None)
    if season is None:
        raise ValueError("the task names no season")
    await context.emitter.usage(input_tokens=120, output_tokens=9, cost_usd=0.0004, model="small")
    return {"degrees": SEASONS[season]}


@agents.agent("sights", description="What to see")
async def sights(context: Context) -> dict[str, list[str]]:
    async with context.emitter.tool("search", {"q": context.task}) as call:
        call.result = ["the old town", "the river", "the market", "the hill"][: context.params.get("most", 2)]
    await context.emitter.usage(input_tokens=300, output_tokens=40, cost_usd=0.0011, model="small")
    return {"sights": call.result}
