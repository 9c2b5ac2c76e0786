"""Garbage collections of a process that must not stop for long.

A full collection visits every container object that the process holds: with thousands of viewers it takes 30 to 200 ms,
and nothing is delivered meanwhile. So what has survived one is frozen: the next visits only what was made since, some
10,000 objects. Frozen objects are freed as ever when the last reference to them is gone. Only a cycle of them is not
found, until everything is thawed and collected once: at a quiet time, or at the latest after an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator
from typing import Any

LOOK_SECONDS = 15.0
THAW_SECONDS = 600.0
"""How often everything is collected, at a quiet time."""
THAW_SECONDS_MAX = 3600.0
"""The same if there is no quiet time."""
QUIET_SHARE = 0.05
"""Of one core, that a quiet process uses at most."""


@contextlib.contextmanager
def freezing() -> Iterator[None]:
    """Freeze what is there, and what survives each full collection in the block."""
    gc.callbacks.append(_freeze)
    try:
        gc.collect()
        yield
    finally:
        gc.callbacks.remove(_freeze)
        gc.unfreeze()


def _freeze(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def thaw() -> int:
    """Collect everything, frozen or not. Returns how many objects were found unreachable."""
    gc.unfreeze()
    return gc.collect()


async def run() -> None:
    """Thaw from time to time."""
    thawed_at, looked_at, used = time.monotonic(), time.monotonic(), time.process_time()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now, now_used = time.monotonic(), time.process_time()
        is_quiet = now_used - used < QUIET_SHARE * (now - looked_at)
        if now - thawed_at >= (THAW_SECONDS if is_quiet else THAW_SECONDS_MAX):
            thaw()
            thawed_at = time.monotonic()
        looked_at, used = time.monotonic(), time.process_time()
