"""Which agent blocks the event loop of another thread at this moment, and where in its code it is."""

from __future__ import annotations

import asyncio
import sys
from contextvars import Context, ContextVar
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from emitter.store.jobs import Job

RUNNING: ContextVar[Job | None] = ContextVar("runcast_running", default=None)
"""The job to which a task or callback belongs; tasks that an agent starts inherit it."""
FRAMES = 4
_RUN_HANDLE = asyncio.Handle._run.__code__


class Blocker(NamedTuple):
    """The job that blocks the loop, `None` if that is not known; `at`: the innermost calls, the last one first."""

    job: Job | None
    at: str

    @property
    def fields(self) -> dict[str, str]:
        """Its fields in log lines."""
        return {} if self.job is None else {"agent": self.job.agent, "execution": self.job.execution_id}


def find_blocker(loop: asyncio.AbstractEventLoop, thread: int) -> Blocker:
    """What runs on `loop`, whose thread has this identifier. Called from another thread."""
    frame = sys._current_frames().get(thread)
    context = _context_of_task(loop) or _context_of_handle(frame)
    return Blocker(None if context is None else context.get(RUNNING), _where(frame))


def _context_of_task(loop: asyncio.AbstractEventLoop) -> Context | None:
    """A task has `get_context` since Python 3.12."""
    task = asyncio.current_task(loop)
    get_context = getattr(task, "get_context", None)
    return None if get_context is None else get_context()


def _context_of_handle(frame: FrameType | None) -> Context | None:
    """asyncio runs each step of a task by a handle, which holds the context of the task."""
    while frame is not None and frame.f_code is not _RUN_HANDLE:
        frame = frame.f_back
    return None if frame is None else getattr(frame.f_locals.get("self"), "_context", None)


def _where(frame: FrameType | None) -> str:
    calls: list[str] = []
    while frame is not None and len(calls) < FRAMES:
        calls.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(calls)
