"""What an emitter says last when the block it was opened for is left without a word about the end."""

from __future__ import annotations

import asyncio
import traceback

from emitter.errors import describe
from emitter.events import Event, ExecutionCancelled, ExecutionError
from emitter.wire.record import Cancel

INTERRUPTED = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)


def last_word(error: BaseException | None, cancel: Cancel | None) -> Event | None:
    """The end of an execution whose block was left by `error` (`None`: in order), after `cancel` was asked for."""
    if cancel is not None:
        return ExecutionCancelled(reason=cancel.reason, by=cancel.by)
    if error is None:
        return None
    if isinstance(error, INTERRUPTED) or (isinstance(error, SystemExit) and not error.code):
        return ExecutionCancelled(reason="its process was interrupted")
    return ExecutionError(error=describe(error), code="agent_error")


def stack_of(error: BaseException | None) -> str:
    return "" if error is None else "".join(traceback.format_exception(error))
