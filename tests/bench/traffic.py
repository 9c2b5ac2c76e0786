"""Agents: a process that emits into many executions at a rate, through the emitter.

    traffic.py REDIS_URL EXECUTIONS RATE SECONDS KIND

KIND is `event` (tool:progress: sent at once) or `delta` (message:delta: may wait for others). Prints one line of JSON
when it is done: events emitted, seconds, and its own CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from servers import OWNER, mark

from emitter import AgentEmitter
from emitter.publisher import Publisher

TICK_SECONDS = 0.002
PAD = "x" * 60


async def emit(redis_url: str, executions: int, rate: float, seconds: float, kind: str) -> dict[str, float]:
    async with Publisher(redis_url=redis_url) as publisher:
        emitters = [AgentEmitter(OWNER.user, f"x{number}", publisher=publisher) for number in range(executions)]
        began, cpu = time.monotonic(), time.process_time()
        sent, total = 0, int(rate * seconds)
        while sent < total:
            due = min(total, int((time.monotonic() - began) * rate) + 1)
            while sent < due:
                emitter = emitters[sent % executions]
                if kind == "delta":
                    # Another message each time: merged chunks would be fewer events than were counted.
                    await emitter.message_delta(mark() + PAD, message_id=f"m{sent}")
                else:
                    await emitter.tool_progress("c1", message=mark() + PAD)
                sent += 1
            await asyncio.sleep(TICK_SECONDS)
        for emitter in emitters:
            await emitter.close()
        return {"sent": sent, "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    url, executions, rate, seconds, kind = sys.argv[1:]
    print(json.dumps(asyncio.run(emit(url, int(executions), float(rate), float(seconds), kind))))
