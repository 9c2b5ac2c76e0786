"""One claimed execution, from its start to its one end, whatever the agent does.

The agent runs in a task or thread of its own. The run watches it, and the first thing to happen decides the end: the
agent returns or raises, it is interrupted for a cause, or it is over a limit. An interrupted agent gets `cut_seconds`
to let go, and what it returns or raises meanwhile changes nothing; then the execution ends without it, its slot is free
again, and its emitter takes nothing more. A thread, or a task that swallows its cancellation, may go on after that:
Python has no way to end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from emitter.errors import (
    AppendRefused,
    ExecutionEnded,
    InvalidEvent,
    PayloadTooLarge,
    RedisUnavailable,
    RuncastError,
    Superseded,
    UnknownExecution,
    describe,
    encodable,
)
from emitter.events import Timeout
from emitter.observer import Outcome
from emitter.publishing.agent_emitter import STACK_CHARS, AgentEmitter
from emitter.store.jobs import Job
from emitter.wire.record import Cancel
from emitter.worker.agents import Agent, Context, SyncContext
from emitter.worker.deadlines import Deadlines, Limit, Notice
from emitter.worker.retries import Retry, retry_after

ERROR_CHARS = 2_000
CANCELLED_ITSELF = "CancelledError: the agent cancelled itself"
AWAY_SECONDS = 600.0
"""How long an end may wait for Redis. By then another worker has the execution, or there is no Redis to write to."""
CLOSE_SECONDS = 5.0


class Returned(msgspec.Struct, frozen=True):
    """The agent returned its result."""

    value: Any


class Raised(msgspec.Struct, frozen=True):
    """The agent raised: `Type: message`, and the stack trace for those who may debug."""

    error: str
    stack: str


class Retried(msgspec.Struct, frozen=True):
    """The agent raised, and is to be tried again `after` so many seconds."""

    after: float
    failure: Raised


class Refused(msgspec.Struct, frozen=True):
    """The agent let through what its emitter raised: the log is closed."""


class TimedOut(msgspec.Struct, frozen=True):
    """The agent was over this limit."""

    limit: Limit

    @property
    def message(self) -> str:
        return f"over its {self.limit}"


class HandedOver(msgspec.Struct, frozen=True):
    """The worker stops: another one shall take over."""


class LeaseLost(msgspec.Struct, frozen=True):
    """Another worker or attempt has the execution, or somebody ended it: nothing more may be written."""


Cause = Cancel | TimedOut | HandedOver | LeaseLost
Ending = Returned | Raised | Retried | Refused | Cause


class Attempt:
    """`await Run(…).execute()` runs the agent and ends the execution; it never raises what the agent raises.

    `open_emitter` makes an emitter for the job; a second one is opened if the first is broken at the end.
    """

    def __init__(self, job: Job, agent: Agent, open_emitter: Callable[[], AgentEmitter], cut_seconds: float) -> None:
        self.job = job
        self.emitter = open_emitter()
        self.end_seen = False
        self.is_closed = False
        self.suspect_until = time.monotonic() + job.apart_seconds
        self.leftover: asyncio.Task[Ending] | None = None
        self.failure: Raised | None = None
        self.retry_after = 0.0
        self._agent = agent
        self._open_emitter = open_emitter
        self._cut_seconds = cut_seconds
        loop = asyncio.get_running_loop()
        self._interrupted: asyncio.Future[Cause] = loop.create_future()
        self._abandoned: asyncio.Future[None] = loop.create_future()
        self._must_stop = False
        self._cancel_heard: tuple[float, Cancel] | None = None
        self._deadlines = Deadlines(time.monotonic(), time_limit=agent.time_limit, idle_limit=agent.idle_limit)
        self._quiet_since = 0.0
        self._context = self._make_context(loop)
        self.emitter.stops_when(self._is_stopped)

    def interrupt(self, cause: Cause) -> None:
        """Stop the agent. The first cause counts; but what is lost takes nothing more, whatever else happened."""
        if isinstance(cause, LeaseLost):
            self.emitter.disown(Superseded(self.job.execution_id, self.job.attempt + 1))
        if not self._interrupted.done():
            self._interrupted.set_result(cause)

    def abandon(self) -> None:
        """Wait no longer for an interrupted agent to let go."""
        if not self._abandoned.done():
            self._abandoned.set_result(None)

    def excuse(self, seconds: float) -> None:
        """For so long another agent has blocked the event loop: that counts against no limit of this one."""
        self._deadlines.excuse(seconds)
        self._quiet_since = time.monotonic()

    async def execute(self) -> Outcome:
        try:
            return await self._end(await self._work())
        except (Superseded, UnknownExecution):
            return "lost"
        except ExecutionEnded:
            return "ended"
        except RuncastError:
            return "unwritten"
        finally:
            with contextlib.suppress(RuncastError):  # what the end needed is in the log already, or never will be
                await self.emitter.close(CLOSE_SECONDS)

    # --- from the thread that keeps the leases ---

    def hear(self, cancel: Cancel | None) -> None:
        """The agent must stop, and sees so in `cancelled`, even while it blocks the loop that will interrupt it."""
        self._must_stop = True
        if cancel is not None and self._cancel_heard is None:
            self._cancel_heard = (time.monotonic(), cancel)

    def cancel_heard(self, before: float) -> Cancel | None:
        """The request to cancel, if it came before that moment."""
        heard = self._cancel_heard
        return None if heard is None or heard[0] > before else heard[1]

    def limit_over(self, now: float) -> Limit | None:
        """The limit that had ended by then, if one had."""
        return self._deadlines.over(now, self._active_at(now))

    def _active_at(self, now: float) -> float:
        return now if self.emitter.waiting else max(self.emitter.active_at, self._quiet_since)

    def _is_stopped(self) -> bool:
        return self._must_stop or self._interrupted.done()

    # --- the agent ---

    async def _work(self) -> Ending:
        """Run the agent until it ends or has to."""
        if self.job.cancel is not None:
            return self.job.cancel
        try:
            await self.emitter.execution_started(self.job.task, attempt=self.job.attempt)
        except (InvalidEvent, PayloadTooLarge) as error:
            return Raised(describe(error, ERROR_CHARS), "")
        call = asyncio.create_task(self._call(), name=f"agent-{self.job.execution_id}")
        try:
            await self._watch(call)
            if call.done():  # whatever else happened at the same time: it has come to its own end
                return self.cancel_heard(time.monotonic()) or _ending(call)
            return await self._stop(call)
        finally:
            if not call.done():
                call.cancel()
                self.leftover = call

    async def _watch(self, call: asyncio.Task[Ending]) -> None:
        """Wait until the agent ends, is interrupted or is over a limit."""
        while not (call.done() or self._interrupted.done()):
            now = time.monotonic()
            active_at = self._active_at(now)
            for notice in self._deadlines.due(now, active_at):
                self._say(notice)
            moment = self._deadlines.next_at(active_at)
            timeout = None if moment is None else max(0.0, moment - now)
            await asyncio.wait((call, self._interrupted), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _say(self, notice: Notice) -> None:
        if notice.action == "stopping":
            self.interrupt(TimedOut(notice.limit))
        with contextlib.suppress(RuncastError):  # the log is closed, or takes nothing: then nobody need know
            self.emitter.notice(Timeout(message=notice.message, action=notice.action))

    async def _stop(self, call: asyncio.Task[Ending]) -> Cause:
        for _ in range(2):  # twice: a library may lose a cancellation, as `asyncio.wait_for` of Python 3.11 does
            if isinstance(self._context, SyncContext):
                self._context.unblock()  # the thread sees `cancelled`; its call ends when it does
            else:
                call.cancel()
            await asyncio.wait(
                (call, self._abandoned), timeout=self._cut_seconds / 2, return_when=asyncio.FIRST_COMPLETED
            )
            if call.done() or self._abandoned.done():
                break
        return self._interrupted.result()

    async def _call(self) -> Ending:
        """The agent's own end, as a value. Not even `sys.exit()` in an agent may end the worker."""
        try:
            if isinstance(self._context, SyncContext):
                ending = await self._call_in_thread()
                if not (isinstance(ending, Returned) and inspect.isawaitable(ending.value)):
                    return ending
                self._context.become_async()
                return Returned(await ending.value)
            return Returned(await self._agent.function(self._context))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return self._raised(error)

    async def _call_in_thread(self) -> Ending:
        """A daemon thread for each call: in a pool, agents that hang would starve the others and hold up the exit."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Ending] = loop.create_future()

        def call() -> None:
            try:
                ending: Ending = Returned(self._agent.function(self._context))
            except BaseException as error:
                ending = self._raised(error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has gone without this thread
                loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(ending))

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(call,), name=f"agent-{self.job.execution_id}", daemon=True).start()
        return await ended

    def _raised(self, error: BaseException) -> Ending:
        if isinstance(error, AppendRefused) and error.execution_id == self.job.execution_id:
            if isinstance(error, Superseded | UnknownExecution):
                return LeaseLost()
            if isinstance(error, ExecutionEnded):
                return Refused()
        if isinstance(error, asyncio.CancelledError):
            return Raised(CANCELLED_ITSELF, _stack(error))
        job, said = self.job, error.__cause__ if isinstance(error, Retry) and error.__cause__ else error
        failure = Raised(describe(said, ERROR_CHARS), _stack(error))
        after = retry_after(error, job.failed, self._agent.retry_on)
        if after is None or job.lost + job.failed + 1 >= self._agent.max_attempts:
            return failure
        return Retried(after, failure)

    def _make_context(self, loop: asyncio.AbstractEventLoop) -> Context | SyncContext:
        job = self.job
        given: dict[str, Any] = {
            "task": job.task,
            "execution_id": job.execution_id,
            "params": job.params,
            "metadata": job.metadata,
            "user_id": job.owner.user,
            "org": job.owner.org,
            "attempt": job.attempt,
            "conversation_id": job.conversation_id,
            "is_cancelled": self._is_stopped,
        }
        if self._agent.is_async:
            return Context(self.emitter, **given)
        return SyncContext(self.emitter, loop, **given)

    # --- its end ---

    async def _end(self, ending: Ending) -> Outcome:
        """Write the one terminal event, unless there is one or it is not ours to write."""
        if self.emitter.ended:
            return "ended"
        try:
            return await self._write(ending)
        except Superseded:
            raise
        except ExecutionEnded:
            await self.emitter.flush(AWAY_SECONDS)  # an end that the agent wrote itself may still wait for Redis
            return "ended"
        except RedisUnavailable:
            await self.emitter.flush(AWAY_SECONDS)  # the end is queued, and goes out when Redis is back
            return _outcome(ending)
        except RuncastError as error:
            if isinstance(ending, HandedOver | Retried):
                return _outcome(ending)  # the last events are lost, the execution need not be
            code = "invalid_result" if isinstance(error, (InvalidEvent, PayloadTooLarge)) else "append_refused"
            return await self._fail(describe(error, ERROR_CHARS), code)

    async def _write(self, ending: Ending) -> Outcome:
        emitter = self.emitter
        match ending:
            case Returned(value):
                await emitter.execution_complete(value)
            case Raised(error, stack):
                self.failure = ending
                await emitter.execution_error(error, code="agent_error", stack=stack)
            case Retried(after, failure):
                self.retry_after, self.failure = after, failure
                await emitter.flush()
            case TimedOut():
                await emitter.execution_error(ending.message, code="timeout")
            case Cancel(reason, by):
                await emitter.execution_cancelled(reason=reason, by=by)
            case HandedOver():
                await emitter.flush()  # before the execution is given back: the next attempt fences this one
            case Refused():
                await emitter.flush()
            case LeaseLost():
                pass
        return _outcome(ending)

    async def _fail(self, error: str, code: str) -> Outcome:
        """End with an error when the end that was meant could not be written. An emitter that broke earlier, by an
        event that the log refused, takes nothing more: then a fresh one says it."""
        self.failure = Raised(error, "")
        try:
            await self.emitter.execution_error(error, code=code)
        except (ExecutionEnded, Superseded):
            raise
        except RuncastError:
            async with self._open_emitter() as fresh:
                await fresh.execution_error(error, code=code)
        return "failed"


def _ending(call: asyncio.Task[Ending]) -> Ending:
    if call.cancelled():
        return Raised(CANCELLED_ITSELF, "")
    return call.result()


def _outcome(ending: Ending) -> Outcome:
    outcomes: dict[type, Outcome] = {
        Returned: "completed",
        Raised: "failed",
        Retried: "retried",
        Refused: "ended",
        TimedOut: "timeout",
        Cancel: "cancelled",
        HandedOver: "handed_over",
        LeaseLost: "lost",
    }
    return outcomes[type(ending)]


def _stack(error: BaseException) -> str:
    """The stack trace from the agent's own frame on; of a long one the end, which says most."""
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    return encodable("".join(traceback.format_exception(type(error), error, frames)))[-STACK_CHARS:]
