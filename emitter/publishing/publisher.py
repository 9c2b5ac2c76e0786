"""Sends events to logs: one round trip for all waiting batches, retried until they arrive, never appended twice.

`append.lua` knows each producer's last sequence, so a retry after a lost reply skips events that the log has. The
publisher can therefore retry without a check; it does so with jittered backoff while it is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ClusterCrossSlotError, NoScriptError, RedisError

from emitter import tasks
from emitter.backoff import backoff_seconds
from emitter.errors import (
    AppendRefused,
    EmitterClosed,
    EventRefused,
    EventsLost,
    EventsMissing,
    RuncastError,
    TooManyInputs,
    WrongLoop,
)
from emitter.events import Event
from emitter.observer import Observer
from emitter.publishing.hooks import Hook, hooks_from, name_hooks
from emitter.publishing.outbox import Outbox, PublisherOptions
from emitter.publishing.pace import ROUND_TRIP_SECONDS, Pace
from emitter.publishing.trip import PlainError, Trip
from emitter.settings import SharedSettings, read
from emitter.store.append import APPEND_SCRIPT, LogLimits, Mode, limits_from, read_reply
from emitter.store.connection import DEFAULT_URL, GONE, channels_of, connect, each_reply
from emitter.store.control import ControlChannel
from emitter.store.holds import Holds
from emitter.store.lifecycle import Lifecycle
from emitter.store.link import Link
from emitter.store.plain import BATCHES_MAX, plain_script
from emitter.tracing.trace import Trace, Tracer
from emitter.wire.keys import Owner
from emitter.wire.prepared import Batch, Prepared
from emitter.wire.redact import Redactor

log = structlog.get_logger("emitter")

RETRY_SECONDS, RETRY_SECONDS_MAX = 0.02, 2.0
ROUND_TRIP_BYTES = 8 * 1024 * 1024
"""About this much is sent at once; the remaining outboxes follow in the next round trip."""


class Publisher:
    """Shared by the emitters of a process: `async with Publisher(redis_url=…) as publisher:`.

    What is due in all outboxes leaves as one round trip of script calls, one at a time: what comes while an answer is
    awaited leaves with the next. So the order in an outbox never changes, and batches grow with the load. Under load
    round trips also keep a distance (`emitter.publishing.pace`), unless a caller waits for one. The publisher keeps no
    reference to an empty outbox.

    Defaults come from the environment: `redis_url` from `RUNCAST_REDIS_URL`, `limits` and `redact_keys` from the
    variables of `limits_from`, `hooks` from `RUNCAST_HOOKS`. `hooks=()` means no hooks.
    """

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        redis: Redis | None = None,
        options: PublisherOptions = PublisherOptions(),  # noqa: B008 - frozen
        limits: LogLimits | None = None,
        redact_keys: Sequence[str] | None = None,
        hooks: Sequence[Hook] | None = None,
        observer: Observer = Observer(),  # noqa: B008 - it keeps nothing
        tracer: Tracer = Tracer(),  # noqa: B008 - nor does this one
    ) -> None:
        self._observer = observer
        self._tracer = tracer
        found_limits, found_keys = limits_from(os.environ) if limits is None or redact_keys is None else (limits, ())
        self.hooks = hooks_from(os.environ) if hooks is None else name_hooks(hooks)
        url = redis_url or read(SharedSettings, os.environ, only={"redis_url"}).redis_url or DEFAULT_URL
        self.redis = redis if redis is not None else connect(url)
        self._owns_redis = redis is None
        self.channels = channels_of(self.redis)
        self.control = ControlChannel(self.redis)
        self.options = options
        self.limits = found_limits if limits is None else limits
        self.redact = Redactor(found_keys if redact_keys is None else redact_keys)
        lifecycle = Lifecycle(self.redis, self.limits, self.redact)
        has_webhook = bool(self.limits.webhook_url)
        self.holds = Holds(self.redis, lifecycle, self.limits.unheld_lease_seconds, has_webhook=has_webhook)
        self._link: Link | None = None
        self._due: dict[Outbox, None] = {}
        self._waiting: dict[Outbox, None] = {}
        self._resting: dict[Outbox, asyncio.TimerHandle] = {}
        self._sending: list[tuple[Outbox, Batch]] = []
        self._timer: asyncio.TimerHandle | None = None
        """Ends the wait of chunks."""
        self._next: asyncio.Handle | None = None
        """Sends the next round trip."""
        self._plain = plain_script(self.limits, self.channels)
        self._plain_max = BATCHES_MAX
        self._trip: Trip[Outbox] | None = None
        self._pace = Pace(min(ROUND_TRIP_SECONDS, options.max_wait))
        self._is_paced = self._is_hurried = False
        self._started = 0.0
        self._failures = 0
        self._has_loaded = False
        self._task: asyncio.Task[None] | None = None
        self._is_open = self._closed = False

    # --- life ---

    async def __aenter__(self) -> Publisher:
        if self._closed or self._is_open:
            raise EmitterClosed("a publisher is opened once")
        if not isinstance(self.redis, RedisCluster):  # there, commands must find their node
            self._link = Link(self.redis)
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # that of the agent which emits next belongs to it alone
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Flush the events of emitters that were not closed. Raises `EventsLost` with the count of unconfirmed ones."""
        outboxes = {*self._due, *self._waiting, *self._resting, *(outbox for outbox, _ in self._sending)}
        try:
            closed = await asyncio.gather(*(outbox.close() for outbox in outboxes), return_exceptions=True)
        finally:
            await self._stop()
        lost = sum(result.count for result in closed if isinstance(result, EventsLost))
        if lost and error is None:
            raise EventsLost(lost)

    async def _stop(self) -> None:
        self._is_open, self._closed = False, True
        for handle in (self._timer, self._next, *self._resting.values()):
            if handle is not None:
                handle.cancel()
        async with contextlib.AsyncExitStack() as stack:  # each is closed, also if this is cancelled meanwhile
            if self._owns_redis:
                stack.push_async_callback(self.redis.aclose)
            if self._link is not None:
                stack.push_async_callback(self._link.aclose)
            stack.push_async_callback(self.control.aclose)
            stack.push_async_callback(self.holds.aclose)
            if self._task is not None:
                await tasks.end([self._task])

    def check_open(self) -> None:
        """Raises `EmitterClosed`, and `WrongLoop` on an event loop that sends nothing."""
        if self._is_open and asyncio.get_running_loop() is self._loop:
            return
        if not self._is_open:
            unopened = "was not opened: use `async with`, also for an emitter that has its own"
            raise EmitterClosed(f"the publisher {'is closed' if self._closed else unopened}")
        raise WrongLoop

    # --- outboxes ---

    def outbox(
        self,
        owner: Owner,
        execution_id: str,
        attempt: int,
        encode: Callable[[Event, int], Prepared],
        mode: Mode = "any",
        trace: Trace | None = None,
    ) -> Outbox:
        return Outbox(self, owner, execution_id, attempt, encode, mode, trace)

    def schedule(self, outbox: Outbox, *, urgent: bool) -> None:
        """Have an outbox sent: at once, or (chunks of text) once nothing of it was sent for `max_wait`."""
        if outbox in self._due or outbox in self._resting:
            return
        wait = 0.0 if urgent else outbox.sent_at + self.options.max_wait - self._loop.time()
        if wait <= 0:
            self._waiting.pop(outbox, None)
            self._due[outbox] = None
            if self._next is None:
                self._arm()
        else:
            self._waiting[outbox] = None
            if self._timer is None:
                self._timer = self._later(wait, self._promote)

    def _promote(self) -> None:
        """Send all that waits, with what began to wait later: they share the round trip."""
        self._timer = None
        self._due.update(self._waiting)
        self._waiting.clear()
        self._arm()

    def hurry(self) -> None:
        """A caller waits for what is due: the next round trip leaves as soon as there is an answer to the last."""
        self._is_hurried = True
        if self._is_paced and self._next is not None:
            self._next.cancel()
            self._next = None
            self._arm()

    def _rest(self, outbox: Outbox) -> None:
        """After an error of Redis for one outbox, try it again after a pause; the others do not wait for it."""
        self.forget(outbox)  # it may have become due meanwhile
        seconds = backoff_seconds(outbox.failures, first=RETRY_SECONDS, most=RETRY_SECONDS_MAX)
        self._resting[outbox] = self._later(seconds, self._wake_up, outbox)

    def _wake_up(self, outbox: Outbox) -> None:
        self._resting.pop(outbox, None)
        self.schedule(outbox, urgent=True)

    def forget(self, outbox: Outbox) -> None:
        self._due.pop(outbox, None)
        self._waiting.pop(outbox, None)
        if (timer := self._resting.pop(outbox, None)) is not None:
            timer.cancel()

    # --- sending ---

    def _arm(self) -> None:
        """Send what is due in this turn of the loop, with what else becomes due in it; later, if round trips leave too
        often. Until the answer to a round trip is there, events wait for the next one."""
        if self._next is not None or self._sending or not self._due or not self._is_open:
            return
        wait = 0.0 if self._is_hurried else self._pace.wait(self._loop.time())
        self._is_paced = wait > 0
        self._next = (
            self._later(wait, self._send) if wait > 0 else self._loop.call_soon(self._send, context=self._context)
        )

    def _later(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, callback, *arguments, context=self._context)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(work, name="publisher", context=self._context)

    def _send(self) -> None:
        """Send one batch of each outbox that is due."""
        self._next, self._is_hurried = None, False
        try:
            self._trip = self._take_due(self._loop.time())
            if self._trip.commands:
                self._begin(self._trip)
            else:
                self._arm()
        except Exception as error:  # last resort, as below
            self._fail(error)

    def _begin(self, trip: Trip[Outbox]) -> None:
        self._sending, commands = trip.batches, trip.commands
        self._pace.count(self._loop.time())
        self._started = time.perf_counter()
        if self._link is not None and self._link.is_ready:
            self._link.begin(b"".join(commands), len(commands), self._answered)
        else:
            self._start(self._round_trip(commands))

    async def _round_trip(self, commands: list[Any]) -> None:
        """A round trip that needs more than a write: a new connection, or the nodes of a Cluster."""
        found: list[Any] | Exception
        try:
            found = await self._execute(commands)
        except Exception as error:
            found = error
        self._answered(found)

    def _answered(self, found: list[Any] | Exception) -> None:
        """The replies, in order; an error of the server takes the place of its reply."""
        try:
            if isinstance(found, Exception):
                self._fail(found)
            elif not self._has_loaded and any(isinstance(reply, NoScriptError) for reply in found):
                self._start(self._load_script())
            else:
                self._take_replies(found)
        except Exception as error:  # last resort: one bad batch must not stop the publisher
            self._fail(error)

    async def _load_script(self) -> None:
        """Then all is sent again: batches that are in the log are skipped by their producer sequence."""
        try:
            for text in (APPEND_SCRIPT, self._plain.text):
                await self.redis.script_load(text)
        except Exception as error:
            self._fail(error)
        else:
            self._has_loaded = True
            self._send_again()
            self._arm()

    def _fail(self, error: Exception) -> None:
        """No reply came: send the batches again after a pause."""
        if isinstance(error, (RedisError, *GONE)):
            self._observer.append_failed()
            log.warning("append_failed", error=type(error).__name__, batches=len(self._sending))
        else:
            log.error("append_crashed", exc_info=error)
        self._send_again()
        self._failures += 1
        seconds = backoff_seconds(self._failures, first=RETRY_SECONDS, most=RETRY_SECONDS_MAX)
        if self._next is not None:
            self._next.cancel()
        if self._is_open:
            self._is_paced = False
            self._next = self._later(seconds, self._send)

    def _take_replies(self, found: list[Any]) -> None:
        assert self._trip is not None
        sent, replies = self._sending, list(self._trip.replies(found))
        if len(replies) != len(sent):
            raise ValueError(f"{len(replies)} replies to {len(sent)} batches")
        self._failures, self._has_loaded = 0, False
        self._trip, self._sending = None, []
        seconds = time.perf_counter() - self._started
        if any(isinstance(reply, GONE) for reply in replies):  # a node of a Cluster is away
            self._observer.append_failed()
        try:
            self._observer.appended(len(sent), sum([len(batch.events) for _, batch in sent]), seconds)
            if self._tracer.is_on:
                self._trace(sent, replies)
        finally:
            self._settle_all(sent, replies)
        self._arm()

    def _settle_all(self, sent: Sequence[tuple[Outbox, Batch]], replies: Sequence[Any]) -> None:
        again: list[Outbox] = []
        for (outbox, batch), reply in zip(sent, replies, strict=True):
            if outbox.batch is not batch:  # it was closed meanwhile
                continue
            try:
                if (type(reply) is int and reply == 0) or isinstance(reply, PlainError):
                    self._must_decide(outbox, reply)
                    again.append(outbox)
                else:
                    self._settle(outbox, reply)
            except Exception as error:  # last resort: the others are settled
                log.error("append_crashed", exc_info=error, execution=outbox.execution_id)
                outbox.note_failure(error)
                self._rest(outbox)
        self._put_first(again)

    def _take_due(self, now: float) -> Trip[Outbox]:
        """The next batches of the due outboxes, up to the size of one round trip."""
        outboxes, self._due = list(self._due), {}
        trip: Trip[Outbox] = Trip(self._plain, self._plain_max)
        size = 0
        for number, outbox in enumerate(outboxes):
            if size >= ROUND_TRIP_BYTES:
                self._due.update(dict.fromkeys(outboxes[number:]))
                break
            try:
                batch = outbox.take(now)
                if batch is None:
                    continue
                is_plain = self._link is not None and outbox.is_plain(batch)
                if trip.must_wait(outbox, is_plain=is_plain):
                    self._due[outbox] = None
                    continue
                size += batch.size
                if self._link is None:
                    trip.add(outbox, batch, outbox.command(batch))
                elif is_plain:
                    trip.add_plain(outbox, batch)
                else:
                    trip.add(outbox, batch, outbox.packed(batch))
            except (RuncastError, ValueError) as error:  # a merged delta or a field that cannot be stored
                outbox.fail(error)
            except Exception as error:  # last resort: the others leave, and its agent hears what is lost
                self._give_up(outbox, error)
        trip.close()
        return trip

    def _give_up(self, outbox: Outbox, error: Exception) -> None:
        lost = EventsLost(len(outbox.queue), f"because of a {type(error).__name__}")
        lost.__cause__ = error
        log.error("append_crashed", exc_info=error, execution=outbox.execution_id, lost=lost.count)
        outbox.fail(lost)

    def _send_again(self) -> None:
        self._trip = None
        sent, self._sending = self._sending, []
        again = [outbox for outbox, batch in sent if outbox.batch is batch]
        for outbox in again:
            outbox.late_since = outbox.late_since or self._started
        self._put_first(again)

    def _put_first(self, outboxes: Sequence[Outbox]) -> None:
        """Have these sent before those that became due meanwhile: their batches are older."""
        for outbox in outboxes:
            self._waiting.pop(outbox, None)
        self._due = {**dict.fromkeys(outboxes), **self._due}

    def _trace(self, sent: Sequence[tuple[Outbox, Batch]], replies: Sequence[Any]) -> None:
        """Record spans of appends, each with the time of earlier tries."""
        now, started = time.perf_counter(), self._started
        for (outbox, batch), reply in zip(sent, replies, strict=True):
            if isinstance(reply, Exception):
                outbox.late_since = outbox.late_since or started
                continue
            if (trace := outbox.traced(now)) is not None:
                seconds, events = now - (outbox.late_since or started), len(batch.events)
                self._tracer.record("append", trace, seconds, execution=outbox.execution_id, events=events)
            outbox.late_since = None

    def _settle(self, outbox: Outbox, reply: Any) -> None:
        if type(reply) is int:
            outbox.arrived()
            return
        if isinstance(reply, Exception):
            log.warning("append_failed", error=str(reply)[:200], execution=outbox.execution_id)
            outbox.note_failure(reply)
            self._rest(outbox)
            return
        try:
            outbox.learn(read_reply(outbox.execution_id, reply))
        except EventRefused as refusal:
            if isinstance(refusal, TooManyInputs):  # perhaps no caller waits for it
                log.warning("input_refused", execution=outbox.execution_id, limit=refusal.limit)
            outbox.arrived(refusal)
        except EventsMissing as missing:
            outbox.send_again(missing.reached)
        except AppendRefused as refusal:
            outbox.fail(refusal)
        else:
            outbox.arrived()

    def _must_decide(self, outbox: Outbox, reply: int | PlainError) -> None:
        """The short script did nothing with the batch (0), or failed: the long one decides, for each by itself."""
        if isinstance(reply, PlainError):
            log.debug("append_failed", error=str(reply.error)[:200], execution=outbox.execution_id)
            if reply.size > 1 and isinstance(reply.error, ClusterCrossSlotError):  # a proxy before several servers
                self._plain_max = 1
        outbox.must_decide()

    async def _execute(self, commands: list[Any]) -> list[Any]:
        if self._link is not None:
            return await self._link.exchange(b"".join(commands), len(commands))
        return await each_reply(self.redis, commands)
