import asyncio
import os
import time
from typing import Any

from emitter import AgentEmitter


class Progress:
    """What `add(job, type, data)` of the old code was: the same calls, into an execution."""

    def __init__(self, user: str) -> None:
        self._emitter = AgentEmitter(user_id=user, redis_url=os.environ["RUNCAST_REDIS_URL"])

    async def __aenter__(self) -> "Progress":
        await self._emitter.__aenter__()
        await self._emitter.execution_started(task="Import")
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._emitter.__aexit__(*error)  # an exception ends the execution with `execution:error`

    @property
    def job(self) -> str:
        return self._emitter.execution_id

    async def add(self, type_: str, data: dict[str, Any]) -> None:
        if type_ == "token":
            await self._emitter.text(data["text"])
        elif type_ == "done":
            await self._emitter.execution_complete(result=data)
        else:
            await self._emitter.custom(type_, data)


async def main() -> None:
    async with Progress("dev") as progress:
        print(progress.job, flush=True)
        await progress.add("step", {"name": "read", "at": time.time()})
        for word in ("All ", "imported."):
            await progress.add("token", {"text": word})
        await progress.add("done", {"rows": 3})


asyncio.run(main())
