"""An agent in a process of its own, `EXECUTION` over RUNCAST_REDIS_URL; it goes on until its stdin ends."""

from __future__ import annotations

import asyncio
import os
import sys

from emitter import AgentEmitter

PAUSE_SECONDS = 0.05


async def main(execution_id: str) -> None:
    end = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    number = 0
    async with AgentEmitter("alice", execution_id, redis_url=os.environ["RUNCAST_REDIS_URL"]) as emitter:
        await emitter.execution_started("t")
        while not end.done():
            number += 1
            await emitter.message_delta("m", f"{number} ")
            await emitter.status("step", str(number))
            await asyncio.sleep(PAUSE_SECONDS)
        await emitter.execution_complete({"steps": number})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
