import asyncio
import os

from emitter import AgentEmitter


async def main() -> None:
    async with AgentEmitter(user_id="dev", redis_url=os.environ["RUNCAST_REDIS_URL"]) as emitter:
        print(emitter.execution_id, flush=True)
        await emitter.execution_started(task="Create a landing page")
        async with emitter.phase("research", "Research"):
            async with emitter.tool("search_web", {"q": "landing pages"}) as call:
                call.result = ["example.com"]
        async for chunk in model("Write it"):
            await emitter.text(chunk)
        await emitter.execution_complete(result={"pages": 1})


async def model(prompt: str):
    for word in ("A ", "fine ", "page."):
        await asyncio.sleep(0.01)
        yield word


asyncio.run(main())
