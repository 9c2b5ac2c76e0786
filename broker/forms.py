"""Checks the answers to forms, each in a process of its own.

A schema is a program that somebody else wrote: one pattern, or a few references to references, keeps a validator busy
for hours, and nothing can interrupt it in this process. A child can be killed, and an edge goes on meanwhile. People
answer rarely enough for the tenth of a second that a child takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from broker.problems import Problem, retry_after
from emitter import wire

PROGRAM = Path(wire.__file__).with_name("form_check.py")
CHECKS_AT_ONCE = 2
CHECK_SECONDS = 10.0
"""For all of a check. The child itself ends after two seconds of work."""
TURN_SECONDS = 10.0
BUSY_SECONDS = 2


class Checked(msgspec.Struct, frozen=True):
    """`misfits` are (path, message), none if the value fits. `unusable` is why the schema says nothing of any value,
    `unchecked` why it could not be told of this one."""

    misfits: list[tuple[str, str]] = []
    unusable: str | None = None
    unchecked: str | None = None


class Forms:
    """A few checks at a time; the others wait for their turn."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def check(self, schema: dict[str, Any], value: Any) -> Checked:
        """Raises `Problem` 503 when too many wait."""
        async with self._turn():
            return await _check(msgspec.json.encode({"schema": schema, "value": value}))

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise Problem(503, "busy", "too many forms are checked", headers=retry_after(BUSY_SECONDS)) from None
        try:
            yield
        finally:
            self._turns.release()


async def _check(asked: bytes) -> Checked:
    command = (sys.executable, "-P", str(PROGRAM))  # -P: its neighbours here must not hide the standard library
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            answer, trouble = await child.communicate(asked)
    except TimeoutError:
        return Checked(unchecked="it took too long")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    status = await child.wait()
    if status < 0:  # killed, by its own limit
        return Checked(unchecked="it took too long")
    if status > 0:
        raise RuntimeError(f"the check of a form failed: {trouble[-500:].decode(errors='replace')}")
    return msgspec.json.decode(answer, type=Checked)
