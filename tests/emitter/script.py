"""A script that no worker runs, as a process of its own: `python script.py REDIS_URL EXECUTION seconds`."""

from __future__ import annotations

import asyncio
import sys

from emitter import AgentEmitter


async def main(url: str, execution_id: str, seconds: float) -> None:
    async with AgentEmitter("alice", execution_id, org="acme", redis_url=url) as emitter:
        await emitter.execution_started("Work")
        await emitter.flush()
        print("started", flush=True)
        await asyncio.sleep(seconds)
        await emitter.execution_complete("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
