"""The blocks `with emitter.phase(…)` and `with emitter.tool(…)`, asynchronous and blocking: a start event, and an end
event when the block is left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from emitter.errors import InvalidEvent, PayloadTooLarge, RuncastError, describe
from emitter.publishing.event_methods import EventMethods

AsyncMethods = EventMethods[Coroutine[Any, Any, None]]


class PhaseScope:
    """`async with emitter.phase(…)`: phase:start, and phase:complete with the duration when the block ends well."""

    def __init__(self, emitter: AsyncMethods, phase_id: str, name: str, index: int | None) -> None:
        self._emitter = emitter
        self._id = phase_id
        self._name = name
        self._index = index

    async def __aenter__(self) -> PhaseScope:
        self._started = time.monotonic()
        await self._emitter.phase_start(self._id, self._name, phase_index=self._index)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if error is None:
            duration = round(time.monotonic() - self._started, 3)
            await self._emitter.phase_complete(self._id, self._name, duration=duration)


class ToolScope:
    """`async with emitter.tool(…) as call:`: tool:start, then tool:complete with `call.result`, or tool:error."""

    def __init__(self, emitter: AsyncMethods, name: str, params: Any, call_id: str) -> None:
        self._emitter = emitter
        self.name = name
        self.params = params
        self.call_id = call_id
        self.result: Any = None

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        await self._emitter.tool_progress(self.call_id, progress=progress, message=message)

    async def __aenter__(self) -> ToolScope:
        self._started = time.monotonic()
        await self._emitter.tool_start(self.call_id, self.name, self.params)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        duration = time.monotonic() - self._started
        if error is None:
            await self._complete(duration)
        elif not isinstance(error, RuncastError):  # a refusal of the log is no failure of the tool
            with contextlib.suppress(RuncastError):  # the tool's own error is raised
                await self._emitter.tool_error(self.call_id, self.name, describe(error), duration)

    async def _complete(self, duration: float) -> None:
        try:
            await self._emitter.tool_complete(self.call_id, self.name, self.result, duration)
        except (InvalidEvent, PayloadTooLarge) as error:  # a call that began must not stay open
            await self._emitter.tool_error(self.call_id, self.name, describe(error), duration)
            raise


class SyncPhaseScope:
    """`with emitter.phase(…)`: as `PhaseScope`."""

    def __init__(self, emitter: EventMethods[None], phase_id: str, name: str, index: int | None) -> None:
        self._emitter, self._id, self._name, self._index = emitter, phase_id, name, index

    def __enter__(self) -> SyncPhaseScope:
        self._started = time.monotonic()
        self._emitter.phase_start(self._id, self._name, phase_index=self._index)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            duration = round(time.monotonic() - self._started, 3)
            self._emitter.phase_complete(self._id, self._name, duration=duration)


class SyncToolScope:
    """`with emitter.tool(…) as call:`: as `ToolScope`."""

    def __init__(self, emitter: EventMethods[None], name: str, params: Any, call_id: str) -> None:
        self._emitter, self.name, self.params, self.call_id = emitter, name, params, call_id
        self.result: Any = None

    def progress(self, progress: float | None = None, message: str | None = None) -> None:
        self._emitter.tool_progress(self.call_id, progress=progress, message=message)

    def __enter__(self) -> SyncToolScope:
        self._started = time.monotonic()
        self._emitter.tool_start(self.call_id, self.name, self.params)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        duration = time.monotonic() - self._started
        if error is None:
            self._complete(duration)
        elif not isinstance(error, RuncastError):
            with contextlib.suppress(RuncastError):
                self._emitter.tool_error(self.call_id, self.name, describe(error), duration)

    def _complete(self, duration: float) -> None:
        try:
            self._emitter.tool_complete(self.call_id, self.name, self.result, duration)
        except (InvalidEvent, PayloadTooLarge) as error:
            self._emitter.tool_error(self.call_id, self.name, describe(error), duration)
            raise
