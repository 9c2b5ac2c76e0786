"""`SyncAgentEmitter`: the same emitter for agents that block, safe to call from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Literal, TypeVar

from emitter import tasks
from emitter.errors import EmitterClosed, InvalidEvent, PayloadTooLarge, RuncastError, describe
from emitter.events import Event, Usage
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.event_methods import EventMethods, named
from emitter.wire.keys import Owner

T = TypeVar("T")


class SyncPhaseScope:
    """`with emitter.phase(…)`."""

    def __init__(self, emitter: SyncAgentEmitter, phase_id: str, name: str, index: int | None) -> None:
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
    """`with emitter.tool(…) as call:`."""

    def __init__(self, emitter: SyncAgentEmitter, name: str, params: Any, call_id: str) -> None:
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


class SyncAgentEmitter(EventMethods[None]):
    """The blocking twin of `AgentEmitter`: the same arguments, names and errors.

    An event loop in a thread of its own does the work, so a call costs a hand-over between threads. Use it with `with`,
    or close it. `over` wraps an emitter that lives on a loop which already runs.

    Any thread may call, but not the loop's own, which would wait for itself: that raises `RuntimeError`. So does a call
    in a forked child, where the loop's thread is not. Hooks run on the loop's thread.
    """

    def __init__(self, user_id: str, execution_id: str | None = None, **options: Any) -> None:
        _check_threads()
        self._loop = asyncio.new_event_loop()
        self._closing, self._submitting, self._closed = threading.Lock(), threading.Lock(), False
        self._pid = os.getpid()
        self._thread: threading.Thread | None = threading.Thread(
            target=self._loop.run_forever, name="runcast-emitter", daemon=True
        )
        self._thread.start()
        try:
            self._emitter = self._call(lambda: self._open(user_id, execution_id, options))
        except BaseException:
            self._stop()
            raise
        self.attempt = self._emitter.attempt

    @classmethod
    def over(cls, emitter: AgentEmitter, loop: asyncio.AbstractEventLoop) -> SyncAgentEmitter:
        """A blocking face of an emitter that lives on `loop`; its owner closes it."""
        self = cls.__new__(cls)
        self._loop, self._thread, self._emitter = loop, None, emitter
        self._closing, self._submitting, self._closed = threading.Lock(), threading.Lock(), False
        self._pid = os.getpid()
        self.attempt = emitter.attempt
        return self

    @staticmethod
    async def _open(user_id: str, execution_id: str | None, options: dict[str, Any]) -> AgentEmitter:
        return await AgentEmitter(user_id, execution_id, **options).__aenter__()

    @property
    def owner(self) -> Owner:
        return self._emitter.owner

    @property
    def execution_id(self) -> str:
        return self._emitter.execution_id

    @property
    def ended(self) -> bool:
        return self._emitter.ended

    @property
    def cancelled(self) -> bool:
        """Whether the execution is to stop, as `AgentEmitter.cancelled`."""
        return self._emitter.cancelled

    def until_cancelled(self) -> None:
        """Block until somebody cancels the execution, as `AgentEmitter.until_cancelled`."""
        self._call(self._emitter.until_cancelled)

    def new_id(self, kind: Literal["message", "call"]) -> str:
        """An id unique in this execution."""
        return self._emitter.new_id(kind)

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop and wait for it. One that is under way when the emitter closes is cancelled."""
        check_process(self._pid)
        if _is_own_loop(self._loop):
            raise RuntimeError("a blocking call on the emitter's own event loop would stop it: use AgentEmitter")
        with self._submitting:  # so that nothing is handed to a loop which has stopped and would never answer
            if self._closed or self._loop.is_closed():
                raise EmitterClosed(f"the emitter{self._named()} is closed")
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise EmitterClosed(f"the emitter{self._named()} was closed during the call") from None
        except BaseException:
            future.cancel()  # an interrupted caller, by Ctrl-C say, waits for nothing any more
            raise

    def _named(self) -> str:
        return f" of execution {self._emitter.execution_id}" if hasattr(self, "_emitter") else ""

    def emit(self, event: Event, *, agent: str | None = None, parent_id: str | None = None) -> None:
        self._call(lambda: self._emitter.emit(event, agent=agent, parent_id=parent_id))

    @property
    def _spent(self) -> Usage:
        """One sum, whichever face of the emitter adds to it."""
        return self._emitter._spent

    @_spent.setter
    def _spent(self, spent: Usage) -> None:
        self._emitter._spent = spent

    def _emit_each(self, *said: Event) -> None:
        for event in said:
            self.emit(event)

    def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        self._call(lambda: self._emitter._terminal(event, fields))

    def text(self, chunk: str) -> None:
        """Stream text to the reader: message:delta of the current message."""
        self._call(lambda: self._emitter.text(chunk))

    def end_text(self) -> None:
        self._call(self._emitter.end_text)

    def phase(self, phase_id: str, name: str | None = None, *, index: int | None = None) -> SyncPhaseScope:
        return SyncPhaseScope(self, phase_id, named(phase_id, name), index)

    def tool(self, name: str, params: Any = None, *, call_id: str | None = None) -> SyncToolScope:
        return SyncToolScope(self, name, params, call_id or self._emitter.new_id("call"))

    def ask(self, prompt: str, **options: Any) -> Any:
        """Ask a person and block until the answer's value is there; arguments of `AgentEmitter.ask`."""
        return self._call(lambda: self._emitter.ask(prompt, **options))

    def flush(self, timeout: float | None = None) -> None:
        self._call(lambda: self._emitter.flush(timeout))

    def close(self, timeout: float | None = None) -> None:
        """Flush and end the thread; calls of other threads that still wait raise `EmitterClosed`. Raises `EventsLost`.
        Idempotent; of several threads that close, all return when it is closed."""
        if self._thread is None or self._pid != os.getpid():  # a forked child has nothing to close
            return
        with self._closing:
            if self._closed:
                return
            try:
                self._call(lambda: self._emitter.close(timeout))
            finally:
                self._stop()

    def _stop(self) -> None:
        with self._submitting:
            self._closed = True
        asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> SyncAgentEmitter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if self._thread is not None and self._pid == os.getpid():
                self._call(lambda: self._emitter._say_last_word(error))
            self.close()
        except RuncastError:
            if error is None:
                raise


def _check_threads() -> None:
    """Raises `RuntimeError` where gevent has replaced what an event loop in a thread of its own needs: it would run in
    the caller's thread, or never."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and any(monkey.is_module_patched(name) for name in ("threading", "select")):
        raise RuntimeError(
            "gevent has replaced threads or select, which this emitter needs for its event loop: patch without them, "
            "`monkey.patch_all(thread=False, select=False)`, or publish over HTTP"
        )


def check_process(owner: int) -> None:
    """Raises `RuntimeError` in any process but `owner`: after a fork the loop's thread is in the parent only, and a
    call would wait for it for ever."""
    if os.getpid() != owner:
        raise RuntimeError(
            "this emitter was opened in another process: open one in each process, after the fork, with the same "
            "execution_id, or let the parent emit"
        )


def _is_own_loop(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def _end_others() -> None:
    """Cancel every other task of this loop: calls that another thread waits for."""
    await tasks.end(asyncio.all_tasks() - {asyncio.current_task()})
