"""The terminal event of an execution whose `async with` block is left without one."""

from __future__ import annotations

import asyncio
import traceback

from emitter.errors import describe
from emitter.events import Event, ExecutionCancelled, ExecutionError
from emitter.wire.record import Cancel

STACK_CHARS = 16 * 1024
"""Characters of a stack trace that the record keeps."""
INTERRUPTED = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)


def end_after(error: BaseException | None, cancel: Cancel | None) -> Event | None:
    """The terminal event after `error` (`None`: the block ended normally) and a request to `cancel`; `None`: none."""
    if cancel is not None:
        return ExecutionCancelled(reason=cancel.reason, by=cancel.by)
    if error is None:
        return None
    if isinstance(error, INTERRUPTED) or (isinstance(error, SystemExit) and not error.code):
        return ExecutionCancelled(reason="its process was interrupted")
    return ExecutionError(error=describe(error), code="agent_error")


def stack_of(error: BaseException | None) -> str:
    return "" if error is None else "".join(traceback.format_exception(error))
