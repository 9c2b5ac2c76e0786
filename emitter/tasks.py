"""Reliable cancellation of tasks.

redis-py sends under `asyncio.wait_for`, which before Python 3.12 may lose a cancellation that arrives just as the send
completes. So `end` cancels a task repeatedly until it has ended, and a loop around Redis calls checks `told_to_stop`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

ASK_AGAIN_SECONDS = 0.5


def told_to_stop() -> bool:
    """Whether the current task was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, whatever they end with."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        done, running = await asyncio.wait(running, timeout=ASK_AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # marks the exception as retrieved
