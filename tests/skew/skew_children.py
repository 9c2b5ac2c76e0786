"""A parent that workers of this version run, and a child for those of the previous one."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

from emitter import Agents, Context

agents = Agents()

if importlib.util.find_spec("emitter.budgets"):

    @agents.agent("parent")
    async def parent(context: Context) -> Any:
        """Waits for a child, and leaves another one."""
        await context.start("child", "stay")
        return await context.call("child", "end")

else:

    @agents.agent("child")
    async def child(context: Context) -> str:
        if context.task == "stay":
            await asyncio.sleep(60)
        return "old"
