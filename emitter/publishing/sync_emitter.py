"""`SyncAgentEmitter`: the same emitter for agents that block, safe to call from any thread."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeVar

from emitter import tasks
from emitter.errors import EmitterClosed, RuncastError
from emitter.events import Event, Usage
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.event_methods import EventMethods, named
from emitter.publishing.scopes import SyncPhaseScope, SyncToolScope
from emitter.wire.keys import Owner
from emitter.wire.user_messages import Message

T = TypeVar("T")


class SyncAgentEmitter(EventMethods[None]):
    """The blocking form of `AgentEmitter`: the same arguments, names and errors.

    An event loop in a thread of its own does the work, so each call is handed over to that thread. Use it with `with`,
    or close it. `over` wraps an emitter of a loop that already runs.

    Any thread may call, except the loop's own, which would wait for itself: that raises `RuntimeError`. So does a call
    in a forked child, which does not have the loop's thread. Hooks run on the loop's thread.
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
        """A blocking wrapper of an emitter that belongs to `loop`; the emitter's owner closes it."""
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
        """Whether the execution must stop, as `AgentEmitter.cancelled`."""
        return self._emitter.cancelled

    def until_cancelled(self) -> None:
        """Block until the execution is cancelled, as `AgentEmitter.until_cancelled`."""
        self._call(self._emitter.until_cancelled)

    def new_id(self, kind: Literal["message", "call"]) -> str:
        """An id unique in this execution."""
        return self._emitter.new_id(kind)

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop and wait for it. It is cancelled if the emitter closes meanwhile."""
        check_process(self._pid)
        if _is_own_loop(self._loop):
            raise RuntimeError("a blocking call on the emitter's own event loop would stop it: use AgentEmitter")
        with self._submitting:  # so that no call is handed to a loop that has stopped
            if self._closed or self._loop.is_closed():
                raise EmitterClosed(f"the emitter{self._named()} is closed")
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise EmitterClosed(f"the emitter{self._named()} was closed during the call") from None
        except BaseException:
            future.cancel()  # the caller was interrupted, for example by Ctrl-C
            raise

    def _named(self) -> str:
        return f" of execution {self._emitter.execution_id}" if hasattr(self, "_emitter") else ""

    def emit(self, event: Event, *, agent: str | None = None, parent_id: str | None = None) -> None:
        self._call(lambda: self._emitter.emit(event, agent=agent, parent_id=parent_id))

    @property
    def _spent(self) -> Usage:
        """One sum for this emitter and the one that it wraps."""
        return self._emitter._spent

    @_spent.setter
    def _spent(self, spent: Usage) -> None:
        self._emitter._spent = spent

    def _emit_each(self, *events: Event) -> None:
        for event in events:
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
        """Ask a person and block until the answer; arguments and errors of `AgentEmitter.ask`."""
        return self._call(lambda: self._emitter.ask(prompt, **options))

    def next_message(self, timeout: float | None = None) -> Message | None:
        """Block until the next message of a person; as `AgentEmitter.next_message`."""
        return self._call(lambda: self._emitter.next_message(timeout))

    def waiting_messages(self) -> list[Message]:
        """Take the messages that wait now; as `AgentEmitter.waiting_messages`."""
        return self._call(self._emitter.waiting_messages)

    def messages(self) -> Iterator[Message]:
        """Every message of a person as it comes, until the execution has ended or must stop."""
        while (message := self._call(self._emitter._next_or_end)) is not None:
            yield message

    def interruptible(self) -> NoReturn:
        """Only for async agents: a thread cannot be interrupted safely. Call `waiting_messages` between the steps."""
        raise NotImplementedError("a thread cannot be interrupted: call waiting_messages() between the steps")

    def flush(self, timeout: float | None = None) -> None:
        self._call(lambda: self._emitter.flush(timeout))

    def close(self, timeout: float | None = None) -> None:
        """Flush and end the thread; waiting calls of other threads raise `EmitterClosed`. Raises `EventsLost`.
        Idempotent, and safe from several threads: each returns when the emitter is closed."""
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
                self._call(lambda: self._emitter._end_block(error))
            self.close()
        except RuncastError:
            if error is None:
                raise


def _check_threads() -> None:
    """Raises `RuntimeError` if gevent has replaced threads or select: the event loop would then run in the caller's
    thread, or never."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and any(monkey.is_module_patched(name) for name in ("threading", "select")):
        raise RuntimeError(
            "gevent has replaced threads or select, which this emitter needs for its event loop: patch without them, "
            "`monkey.patch_all(thread=False, select=False)`, or publish over HTTP"
        )


def check_process(owner: int) -> None:
    """Raises `RuntimeError` in any process but `owner`: after a fork only the parent has the loop's thread, so a call
    would wait for ever."""
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
    """Cancel every other task of this loop, that is, the calls of other threads."""
    await tasks.end(asyncio.all_tasks() - {asyncio.current_task()})
