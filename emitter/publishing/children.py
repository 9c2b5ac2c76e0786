"""Executions that an agent starts and waits for: `context.start`, `context.call`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from redis.exceptions import RedisError

from emitter.errors import (
    ChildFailed,
    InvalidEvent,
    RedisUnavailable,
    RuncastError,
    UnknownAgent,
    UnknownExecution,
)
from emitter.events import Event, ExecutionCancelled, ExecutionComplete, ExecutionError
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.publisher import Publisher
from emitter.store import announcements
from emitter.store.children import end_of, wake_word
from emitter.store.connection import AWAY, GONE
from emitter.store.lifecycle import Lifecycle, Start
from emitter.tasks import told_to_stop
from emitter.tracing.trace import Trace
from emitter.wire.record import ExecutionRecord, Field, Selection

OnParentEnd = Literal["cancel", "detach"]
RECHECK_SECONDS = 2.0
"""How often a child's record is read without a message on the control channel."""
REPORT_SECONDS = 5.0
"""How long the end of a parent may wait for what is left to say of its children."""
RETRY_SECONDS = 0.3
KEY_CHARS = 128
WAITS_FOR = (RedisUnavailable, *AWAY)
T = TypeVar("T")
_RESULT = Selection(Field.STATE, Field.END)


class Child:
    """An execution that this one has started."""

    def __init__(self, execution_id: str, agent: str, task: str, key: str | None) -> None:
        self.execution_id = execution_id
        self.agent = agent
        self.task = task
        self.key = key

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the child's end; what it returned, as its log has it. The wait holds no slot of the worker. Raises
        `ChildFailed` if it failed or was cancelled, and `TimeoutError` after `timeout` seconds."""
        raise NotImplementedError

    async def cancel(self, reason: str | None = None) -> None:
        """Cancel the child, or ask its worker to. It may have ended already."""
        raise NotImplementedError


class Starter(Protocol):
    """What `Context` needs to start children."""

    async def start(
        self, agent: str, task: str, *, params: dict[str, Any] | None, on_parent_end: OnParentEnd, key: str | None
    ) -> Child: ...


class Names:
    """The ids of the children of one attempt. A retried agent that starts the same children finds those that there
    are: the id follows from the parent and the key, or, without one, from agent, task and how often they were named."""

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._started: Counter[tuple[str, str]] = Counter()
        self._failed: dict[tuple[str, str], list[int]] = {}

    @contextlib.contextmanager
    def naming(self, agent: str, task: str, key: str | None) -> Iterator[str]:
        """The id of the next child. If its start fails, the next child of this agent and task has this id: it may be
        there all the same, and another attempt may start it at its first try. Raises `InvalidEvent`."""
        for name, value, most in (("agent", agent, None), ("task", task, None), ("key", key, KEY_CHARS)):
            if value is None and name == "key":
                continue
            if not isinstance(value, str) or not value or (most and len(value) > most):
                raise InvalidEvent(f"{name}: {str(value)[:80]!r} is not a text" + (f" of 1 to {most}" if most else ""))
        if key is not None:
            yield self._id("key", key)
            return
        number = self._next_number(agent, task)
        try:
            yield self._id(f"{number}", f"{agent} {task}")
        except BaseException:
            heapq.heappush(self._failed.setdefault((agent, task), []), number)
            raise

    def _next_number(self, agent: str, task: str) -> int:
        if failed := self._failed.get((agent, task)):
            return heapq.heappop(failed)
        self._started[agent, task] += 1
        return self._started[agent, task]

    def _id(self, *named: str) -> str:
        text = "\n".join((self._parent, *named))
        return "ch_" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def check_on_parent_end(value: str) -> None:
    """Raises `InvalidEvent`."""
    if value not in ("cancel", "detach"):
        raise InvalidEvent(f"on_parent_end: {value!r} is not cancel or detach")


class Children:
    """The children of one attempt of a worker's execution.

    Args:
        worker: who has claimed it.
        known: agents of this worker, which may not be announced yet.
        request_id, trace: those of the parent.
    """

    def __init__(
        self,
        emitter: AgentEmitter,
        publisher: Publisher,
        lifecycle: Lifecycle,
        *,
        worker: str,
        known: Collection[str] = (),
        request_id: str | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.emitter = emitter
        self.publisher = publisher
        self.lifecycle = lifecycle
        self._worker = worker
        self._known = known
        self._request_id = request_id
        self._trace = trace
        self._names = Names(emitter.execution_id)

    async def start(
        self, agent: str, task: str, *, params: dict[str, Any] | None, on_parent_end: OnParentEnd, key: str | None
    ) -> Child:
        check_on_parent_end(on_parent_end)
        with self._names.naming(agent, task, key) as execution_id:
            start = Start(task=task, agent=agent, params=params, request_id=self._request_id or "", trace=self._trace)

            async def begin() -> None:
                await self._begin(execution_id, start, on_parent_end, key)

            await patiently(begin)
            return _Child(self, execution_id, agent, task, key, begin)

    async def _begin(self, execution_id: str, start: Start, on_parent_end: OnParentEnd, key: str | None) -> None:
        """Start a child, unless it is there."""
        emitter = self.emitter
        await self._check(start.agent)
        await emitter.flush()  # what was emitted before stands before it in the log
        above = await self.lifecycle.children.parentage(
            emitter.owner, emitter.execution_id, on_parent_end=on_parent_end, key=key or ""
        )
        emitter.before_end = self._report
        start = msgspec.structs.replace(start, above=above)
        await self.lifecycle.start_child(
            emitter.owner, execution_id, start, attempt=emitter.attempt, worker=self._worker
        )

    async def _check(self, agent: str) -> None:
        if agent not in self._known:
            known = await announcements.known_agents(self.publisher.redis)
            if agent not in known:
                raise UnknownAgent(agent, {*known, *self._known})

    async def _report(self) -> None:
        """Before the parent's end, say which children have ended."""
        with contextlib.suppress(RedisError, TimeoutError, RuncastError, *GONE):
            async with asyncio.timeout(REPORT_SECONDS):
                await self.lifecycle.children.report_ended(self.emitter.owner, self.emitter.execution_id)


async def patiently(step: Callable[[], Awaitable[T]]) -> T:
    """Take a step that may be repeated; waits for Redis while it is away, unless the caller was cancelled."""
    while True:
        try:
            return await step()
        except WAITS_FOR:
            if told_to_stop():
                raise
        await asyncio.sleep(RETRY_SECONDS)


class _Child(Child):
    """`begin` starts it, unless it is there."""

    def __init__(
        self,
        siblings: Children,
        execution_id: str,
        agent: str,
        task: str,
        key: str | None,
        begin: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(execution_id, agent, task, key)
        self._begin = begin
        self._emitter = siblings.emitter
        self._publisher = siblings.publisher
        self._lifecycle = siblings.lifecycle

    async def result(self, timeout: float | None = None) -> Any:
        async with self._emitter.waits.apart("child") as begin, asyncio.timeout(timeout):
            return result_of(self.execution_id, end_of(await self._ended(begin)))

    async def cancel(self, reason: str | None = None) -> None:
        owner = self._emitter.owner
        await patiently(lambda: self._lifecycle.cancel(owner, self.execution_id, reason=reason, by=owner.user))

    async def _ended(self, begin: Callable[[], None]) -> ExecutionRecord:
        """The child's record, once it has ended and the parent's log says so."""
        owner, wake = self._emitter.owner, asyncio.Event()
        control = owner.execution(self._emitter.execution_id).control
        with self._publisher.control.waiting_for(control, wake_word(self.execution_id), wake.set):
            while not told_to_stop():
                with contextlib.suppress(RedisUnavailable, RedisError, *GONE):
                    if (found := await self._read()).has_ended:
                        await self._lifecycle.children.report_end(owner, self.execution_id)
                        return found
                    if not found.exists:
                        await self._restore()
                begin()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_SECONDS):
                        await wake.wait()
                wake.clear()
        raise asyncio.CancelledError

    async def _restore(self) -> None:
        """Start the child again that a failover of Redis has lost. Raises `UnknownExecution` if it has expired."""
        if await self._lifecycle.children.is_end_reported(
            self._emitter.owner, self._emitter.execution_id, self.execution_id
        ):
            raise UnknownExecution(self.execution_id)
        await self._begin()

    async def _read(self) -> ExecutionRecord:
        client: Any = self._publisher.redis
        record = self._emitter.owner.execution(self.execution_id).record
        return _RESULT.read(await client.hmget(record, *_RESULT.names))


def result_of(execution_id: str, end: Event | None) -> Any:
    """What a child's terminal event comes to. Raises `ChildFailed`."""
    match end:
        case ExecutionComplete(result=result):
            return result
        case ExecutionError(error=error, code=code):
            raise ChildFailed(execution_id, "failed", error, code)
        case ExecutionCancelled(reason=reason):
            raise ChildFailed(execution_id, "cancelled", reason or "")
    raise ChildFailed(execution_id, "failed", "its end cannot be read")


class SyncChild:
    """A child of a sync agent: the same, blocking. `wait` runs a coroutine on the worker's loop."""

    def __init__(self, child: Child, wait: Callable[[Any], Any]) -> None:
        self._child = child
        self._wait = wait
        self.execution_id, self.agent, self.task, self.key = child.execution_id, child.agent, child.task, child.key

    def result(self, timeout: float | None = None) -> Any:
        """As `Child.result`. Raises `concurrent.futures.CancelledError` when the agent must stop."""
        return self._wait(self._child.result(timeout))

    def cancel(self, reason: str | None = None) -> None:
        self._wait(self._child.cancel(reason))
