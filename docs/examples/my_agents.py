import asyncio

from emitter import Agents, Context

agents = Agents()


@agents.agent("researcher", description="Finds out")
async def researcher(context: Context) -> dict[str, object]:
    emitter = context.emitter
    async with emitter.phase("search", "Search"):
        await emitter.thinking(f"What is known about {context.task}?")
        async with emitter.tool("search", {"q": context.task}) as call:
            call.result = await search(context.task)
    async with emitter.phase("write", "Write"):
        for word in f"There are {len(call.result)} pages about {context.task}.".split(" "):
            await emitter.text(word + " ")
    return {"pages": call.result, "published": await context.ask("Publish it?")}


async def search(query: str) -> list[str]:
    await asyncio.sleep(0.5)
    return [f"{query}, page {number}" for number in (1, 2, 3)]
