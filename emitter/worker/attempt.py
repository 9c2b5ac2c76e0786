"""One attempt: a claimed execution from its start to its only end, whatever the agent does.

The agent runs in a task or thread of its own. The first of these decides the end: the agent returns or raises, it is
cancelled or interrupted for another cause, or it exceeds a limit. An interrupted agent has `cancel_grace_seconds` to
stop; what it returns or raises in that time changes nothing. Then the execution ends without it, its slot is free, and
its emitter accepts no more events. A thread, or a task that ignores its cancellation, may go on after that: Python
cannot end it.
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

from emitter.budgets import EXCEEDED, Budget, BudgetState, Meter, Reached, smallest
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
from emitter.events import BudgetNotice, Event, Timeout
from emitter.observer import Outcome
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.children import Starter
from emitter.publishing.waits import Slot
from emitter.store.endings import STACK_CHARS
from emitter.store.jobs import Job, Renewal
from emitter.wire.record import Cancel
from emitter.worker.agents import Agent, Context, SyncContext
from emitter.worker.deadlines import Deadlines, Limit, Notice
from emitter.worker.endings import (
    Cause,
    Ending,
    HandedOver,
    LeaseLost,
    Overspent,
    Raised,
    Refused,
    Retried,
    Returned,
    TimedOut,
    outcome_of,
)
from emitter.worker.retries import Retry, retry_after

ERROR_CHARS = 2_000
CANCELLED_ITSELF = "CancelledError: the agent cancelled itself"
AWAY_SECONDS = 600.0
"""How long an end may wait for Redis."""
CLOSE_SECONDS = 5.0


class Attempt:
    """`await Attempt(…).execute()` runs the agent and ends the execution; it never raises what the agent raises.

    `open_emitter` makes an emitter for the job; a second one is opened if the first is broken at the end. `slot` is the
    worker's slot that it has, if its number is limited; `open_children` lets the agent start others. `budget` is that
    of every execution here; those of the job and the agent count as well.
    """

    def __init__(
        self,
        job: Job,
        agent: Agent,
        open_emitter: Callable[[], AgentEmitter],
        cancel_grace_seconds: float,
        slot: Slot | None = None,
        open_children: Callable[[AgentEmitter], Starter] | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
    ) -> None:
        self.job = job
        self.emitter = open_emitter()
        if slot is not None:
            self.emitter.waits.use(slot, self._is_stopped)
        self.end_seen = False
        self.is_closed = False
        self.suspect_until = time.monotonic() + job.apart_seconds
        self.leftover: asyncio.Task[Ending] | None = None
        self.failure: Raised | None = None
        self.retry_after = 0.0
        self._agent = agent
        self._open_emitter = open_emitter
        self._cut_seconds = cancel_grace_seconds
        loop = asyncio.get_running_loop()
        self._interrupted: asyncio.Future[Cause] = loop.create_future()
        self._abandoned: asyncio.Future[None] = loop.create_future()
        self._must_stop = False
        self._cancel_requested: tuple[float, Cancel] | None = None
        self._deadlines = Deadlines(time.monotonic(), time_limit=agent.time_limit, idle_limit=agent.idle_limit)
        self._quiet_since = 0.0
        self._children = None if open_children is None else open_children(self.emitter)
        self.reached: Reached | None = None
        self._spent_more: asyncio.Future[None] = loop.create_future()
        limit = smallest(job.budget, agent.budget, budget)
        self.meter = Meter(limit, job.spent, since=time.monotonic(), on_change=self._look_at_budget)
        self.emitter.count_with(self.meter)
        self._context = self._make_context(loop)
        self.emitter.stops_when(self._is_stopped)

    def cancel(self, request: Cancel) -> None:
        """Stop the agent because somebody cancelled the execution; it then ends as `execution:cancelled`.

        `cancelled` of the context is true from now on, an async agent gets `CancelledError`, and a sync agent that
        waits in `ask` returns from there. Idempotent.
        """
        self.interrupt(request)

    def interrupt(self, cause: Cause) -> None:
        """Stop the agent. Only the first cause decides the end; but after `LeaseLost` nothing more is written in any
        case."""
        if isinstance(cause, LeaseLost):
            self.emitter.disown(Superseded(self.job.execution_id, self.job.attempt + 1))
        if not self._interrupted.done():
            self._interrupted.set_result(cause)

    def abandon(self) -> None:
        """Wait no longer for an interrupted agent to stop."""
        if not self._abandoned.done():
            self._abandoned.set_result(None)

    def apply(self, renewal: Renewal) -> None:
        """Act on the execution's record, as a renewal has read it."""
        if renewal.verdict == "lost":
            self.interrupt(LeaseLost())
        elif renewal.verdict == "ended":
            # An agent that wrote its own end may go on to clean up. Its emitter learns of the end a moment after the
            # log has it, so only the second renewal that finds the end counts.
            if self.end_seen and not self.emitter.ended:
                self.interrupt(LeaseLost())
            self.end_seen = True
        elif renewal.cancel is not None:
            self.cancel(renewal.cancel)
        elif renewal.verdict == "ok":
            self.meter.learn(renewal.spent)

    def excuse(self, seconds: float) -> None:
        """Another agent has blocked the event loop for this long, which does not count against the limits."""
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
            with contextlib.suppress(RuncastError):  # whether the end was written is known by now
                await self.emitter.close(CLOSE_SECONDS)

    # --- from the thread that renews the leases ---

    def request_stop(self, cancel: Cancel | None) -> None:
        """Set `cancelled` for the agent at once, even while it blocks the event loop on which `cancel` or `interrupt`
        will be called."""
        self._must_stop = True
        if cancel is not None and self._cancel_requested is None:
            self._cancel_requested = (time.monotonic(), cancel)

    def cancel_requested(self, before: float) -> Cancel | None:
        """The request to cancel, if it came before that moment."""
        heard = self._cancel_requested
        return None if heard is None or heard[0] > before else heard[1]

    def limit_over(self, now: float) -> Limit | None:
        """The first limit that was exceeded by then, if any."""
        return self._deadlines.over(now, self._active_at(now))

    def _active_at(self, now: float) -> float:
        waits = self.emitter.waits
        return now if waits.any else max(self.emitter.active_at, waits.ended_at, self._quiet_since)

    def _is_stopped(self) -> bool:
        return self._must_stop or self._interrupted.done()

    # --- the agent ---

    async def _work(self) -> Ending:
        """Run the agent until it ends or must stop."""
        if self.job.cancel is not None:
            return self.job.cancel
        if (reached := self.meter.used_up(time.monotonic())) is not None:
            return Overspent(reached)
        limits = BudgetState(self.meter.limit, self.job.spent) if self.meter.limit else None
        try:
            await self.emitter.execution_started(self.job.task, attempt=self.job.attempt, budget=limits)
        except (InvalidEvent, PayloadTooLarge) as error:
            return Raised(describe(error, ERROR_CHARS), "")
        call = asyncio.create_task(self._call(), name=f"agent-{self.job.execution_id}")
        try:
            await self._watch(call)
            if call.done():  # its own end counts, whatever else happened at the same time
                return self.cancel_requested(time.monotonic()) or _ending(call)
            return await self._stop(call)
        finally:
            if not call.done():
                call.cancel()
                self.leftover = call

    async def _watch(self, call: asyncio.Task[Ending]) -> None:
        """Wait until the agent ends, is interrupted or exceeds a limit."""
        while not (call.done() or self._interrupted.done()):
            now = time.monotonic()
            active_at = self._active_at(now)
            for notice in self._deadlines.due(now, active_at):
                self._report(notice)
            for reached in self.meter.due(now):
                self._report_spent(reached)
            moments = [at for at in (self._deadlines.next_at(active_at), self.meter.next_at()) if at is not None]
            timeout = max(0.0, min(moments) - now) if moments else None
            self._spent_more = asyncio.get_running_loop().create_future()
            await asyncio.wait(
                (call, self._interrupted, self._spent_more), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )

    def _report(self, notice: Notice) -> None:
        if notice.action == "stopping":
            self.interrupt(TimedOut(notice.limit))
        self._emit_notice(Timeout(message=notice.message, action=notice.action))

    def _look_at_budget(self) -> None:
        """The meter has counted something: `_watch` looks at the budget."""
        if not self._spent_more.done():
            self._spent_more.set_result(None)

    def _report_spent(self, reached: Reached) -> None:
        if reached.action == "stopping":
            self.interrupt(Overspent(reached))
        self._note(reached)

    def _note(self, reached: Reached) -> None:
        self._emit_notice(BudgetNotice(**reached._asdict()))

    def _emit_notice(self, event: Event) -> None:
        with contextlib.suppress(RuncastError):  # the log is closed, or Redis is away: the notice is not essential
            self.emitter.notice(event)

    async def _stop(self, call: asyncio.Task[Ending]) -> Cause:
        for _ in range(2):  # twice: a library may lose a cancellation, as `asyncio.wait_for` of Python 3.11 does
            if isinstance(self._context, SyncContext):
                self._context.unblock()  # the agent then sees `cancelled`
            else:
                call.cancel()
            await asyncio.wait(
                (call, self._abandoned), timeout=self._cut_seconds / 2, return_when=asyncio.FIRST_COMPLETED
            )
            if call.done() or self._abandoned.done():
                break
        return self._interrupted.result()

    async def _call(self) -> Ending:
        """Call the agent; its own end as a value. Not even `sys.exit()` in an agent may end the worker."""
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
        """Call it in a daemon thread. In a pool, agents that hang would starve the others and delay the exit."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Ending] = loop.create_future()

        def call() -> None:
            try:
                ending: Ending = Returned(self._agent.function(self._context))
            except BaseException as error:
                ending = self._raised(error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has exited
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
        if (reached := self.meter.used_up(time.monotonic())) is not None:
            return Overspent(reached, failure)
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
            "children": self._children,
            "meter": self.meter,
        }
        if self._agent.is_async:
            return Context(self.emitter, **given)
        return SyncContext(self.emitter, loop, **given)

    # --- its end ---

    async def _end(self, ending: Ending) -> Outcome:
        """Write the terminal event, unless there is one or the execution belongs to another attempt."""
        if self.emitter.ended:
            return "ended"
        try:
            return await self._write(ending)
        except Superseded:
            raise
        except ExecutionEnded:
            await self.emitter.flush(AWAY_SECONDS)  # the agent's own terminal event may still wait for Redis
            return "ended"
        except RedisUnavailable:
            await self.emitter.flush(AWAY_SECONDS)  # the end is queued, and sent when Redis is back
            return outcome_of(ending)
        except RuncastError as error:
            if isinstance(ending, HandedOver | Retried):
                return outcome_of(ending)  # only the last events are lost: the next attempt goes on
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
            case Overspent(reached, failure):
                self.reached, self.failure = reached, failure
                self._note(reached)
                await emitter.execution_error(ending.message, code=EXCEEDED, stack=failure.stack if failure else None)
            case Cancel(reason, by):
                await emitter.execution_cancelled(reason=reason, by=by)
            case HandedOver():
                await emitter.flush()  # before the hand-over: after it, this attempt is fenced
            case Refused():
                await emitter.flush()
            case LeaseLost():
                pass
        return outcome_of(ending)

    async def _fail(self, error: str, code: str) -> Outcome:
        """End with an error because the intended end could not be written. An emitter that failed earlier, by an event
        that the log refused, accepts nothing more: then a new one is opened."""
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


def _stack(error: BaseException) -> str:
    """The stack trace from the agent's own frame on; if it is too long, its end."""
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    return encodable("".join(traceback.format_exception(type(error), error, frames)))[-STACK_CHARS:]
