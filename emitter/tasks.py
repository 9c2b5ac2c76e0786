"""Ending tasks for certain.

redis-py sends under `asyncio.wait_for`, which before Python 3.12 may swallow a cancellation that arrives just as the
sending is done. So whoever ends a task asks again until it has ended, and a loop around Redis calls that others cancel
looks whether it was told to.
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
                task.exception()  # its owner has logged what mattered
