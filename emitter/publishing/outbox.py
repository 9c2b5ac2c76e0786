"""The outbox of one producer for one log: its queue, the batch on the way, and the callers that wait."""

from __future__ import annotations

import asyncio
import math
import secrets
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import structlog

from emitter.errors import AppendRefused, EmitterClosed, EventsLost, QueueFull, RedisUnavailable
from emitter.events import Event
from emitter.publishing.queue import EventQueue
from emitter.publishing.sent import Sent
from emitter.store.append import Appended, LogLimits, Mode, PackedAppend, append_command
from emitter.store.connection import Channels
from emitter.store.plain import PlainProducer
from emitter.tracing.trace import Allowance, Trace
from emitter.wire.ids import check_execution_id
from emitter.wire.keys import Owner
from emitter.wire.prepared import DROPPED, Batch, Prepared

log = structlog.get_logger("emitter")

SPANS_AT_ONCE, SPANS_PER_SECOND = 20.0, 1.0
"""How many appends of one outbox become spans."""
REFUSALS_MAX, LONG_ONES = 2, 100
"""After so many refusals of the short script in a row, so many batches of an outbox are left to the long one: of some
logs each batch would cost two round trips."""


class PublisherOptions(msgspec.Struct, frozen=True):
    """How a publisher batches and how much it holds while Redis is away. Times in seconds.

    `max_wait`: how long a chunk of text waits at most for others of its execution to be merged with. It waits only if
    a batch of the execution left less than that ago.
    """

    max_wait: float = 0.010
    max_batch: int = 100
    max_batch_bytes: int = 1024 * 1024
    max_queue_events: int = 10_000
    max_queue_bytes: int = 16 * 1024 * 1024
    overflow: Literal["wait", "drop_deltas"] = "wait"
    overflow_timeout: float = 60.0
    flush_timeout: float = 30.0
    close_timeout: float = 10.0


Options = PublisherOptions
"""Its public name: `emitter.Options`."""


class Sender(Protocol):
    """What an outbox needs of its publisher."""

    options: PublisherOptions
    limits: LogLimits
    channels: Channels

    def schedule(self, outbox: Outbox, *, urgent: bool) -> None: ...

    def hurry(self) -> None: ...

    def forget(self, outbox: Outbox) -> None: ...

    def check_open(self) -> None:
        """Raises `EmitterClosed`."""


class Flush(NamedTuple):
    """A caller that waits until the log has the event at `position` of the queue."""

    position: int
    done: asyncio.Future[None]


class Outbox:
    """One producer's events for one log. Made by `Publisher.outbox`."""

    def __init__(
        self,
        publisher: Sender,
        owner: Owner,
        execution_id: str,
        attempt: int,
        encode: Callable[[Event, int], Prepared],
        mode: Mode = "any",
        trace: Trace | None = None,
        producer: str = "",
    ) -> None:
        self._publisher = publisher
        self.mode: Mode = mode
        is_claimed = mode.startswith("claimed")
        self._has_plain_mode = mode == "any" or (is_claimed and attempt > 0)
        self.trace = trace
        self._spans = None if trace is None else Allowance(SPANS_AT_ONCE, SPANS_PER_SECOND)
        self.late_since: float | None = None
        self.owner = owner
        self.execution_id = check_execution_id(execution_id)
        self.attempt = attempt
        self.producer = producer or secrets.token_urlsafe(9)
        self._packed = PackedAppend(self._command((), 1))
        self.plain = PlainProducer(owner, execution_id, self.producer, attempt, is_exact=is_claimed)
        self._may_be_plain = False
        """Whether the log knows this producer, and was as usual when its last batch arrived."""
        self._refusals = 0
        """How often in a row the short script did not do."""
        self._long_ones = 0
        """How many batches are left to the long script without a try of the short one."""
        options = publisher.options
        self.queue = EventQueue(options.max_queue_events, options.max_queue_bytes, encode)
        self.batch: Batch | None = None
        self._sent = Sent()
        self._again: deque[Batch] = deque()
        """What the log has lost, and the batch that found that out: sent before anything else."""
        self._has_gap = False
        """Whether the log lacks numbers before the batch of which nothing is held: it is to take the batch as it is."""
        self.sent_at = -math.inf
        """When its last batch left (loop time)."""
        self._has_rest = False
        """Whether that batch was full, and the rest is still to be sent."""
        self.error: Exception | None = None
        self.failures = 0
        self._trouble = ""
        self._has_raised = False
        self._flushes: list[Flush] = []
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()
        self.crowded = 0

    def notify(self, *, urgent: bool) -> None:
        """Schedule what was queued. Not urgent (a chunk): where chunks leave often, more of them may join it."""
        if urgent or self.batch is None:
            self._publisher.schedule(self, urgent=urgent)

    def check(self) -> None:
        """Raise if nothing can be queued: the log's refusal, or `EmitterClosed`."""
        if self.error is not None:
            self._has_raised = True
            raise self.error.with_traceback(None)  # otherwise it would grow with every call
        self._publisher.check_open()

    # --- sending ---

    def take(self, now: float) -> Batch | None:
        """The batch to send `now` (loop time): the previous one if its arrival is not known, or the next."""
        if self.batch is None and (self._again or len(self.queue)):
            if self._again:
                self.batch = self._again.popleft()
            else:
                options = self._publisher.options
                self.batch = self.queue.take(options.max_batch, options.max_batch_bytes)
                self._has_rest = self.queue.waits
        if self.batch is not None:
            self.sent_at, self._sent.is_asking = now, True
        return self.batch

    def is_plain(self, batch: Batch) -> bool:
        """Whether the short script may do."""
        return batch.is_plain and self._may_be_plain

    def must_decide(self) -> None:
        """The short script did nothing with the batch, or failed: the long one decides. The publisher sends it."""
        self._may_be_plain = False
        self._refusals += 1
        if self._refusals >= REFUSALS_MAX:
            self._long_ones, self._refusals = LONG_ONES, REFUSALS_MAX - 1

    def packed(self, batch: Batch) -> bytes:
        return self._packed(batch.events, self._first_seq(batch))

    def command(self, batch: Batch) -> list[Any]:
        return self._command(batch.events, self._first_seq(batch))

    def _first_seq(self, batch: Batch) -> int:
        """Negative if the batches before it can be sent again."""
        return -batch.first_seq if self._sent and not self._has_gap else batch.first_seq

    def _command(self, events: Sequence[Prepared], first_seq: int) -> list[Any]:
        return append_command(
            self.owner,
            self.execution_id,
            events,
            producer=self.producer,
            first_seq=first_seq,
            attempt=self.attempt,
            mode=self.mode,
            limits=self._publisher.limits,
            channels=self._publisher.channels,
        )

    def arrived(self, refusal: AppendRefused | None = None) -> None:
        """The batch is in the log, or `refusal` is the reason why its only event is not. The next batch may be sent."""
        assert self.batch is not None
        if self.is_plain(self.batch):
            self._refusals = 0
        self._long_ones = max(0, self._long_ones - 1)
        if self.batch.first_seq > self.queue.settled:
            self.queue.done(self.batch)
        if refusal is None and any(event is not DROPPED for event in self.batch.events):
            self._sent.add(self.batch, self.sent_at)
        self._sent.is_asking = self._has_gap = False
        self.batch = None
        self.failures, self._trouble = 0, ""
        self._may_be_plain = self._has_plain_mode and not self._long_ones
        for flush in self._flushes:
            if flush.position <= self.queue.settled and not flush.done.done():
                if refusal is not None and flush.position == self.queue.settled:
                    flush.done.set_exception(refusal)
                else:
                    flush.done.set_result(None)
        if not self.queue.full:
            self._room.set()
        if self._again:
            self._publisher.schedule(self, urgent=True)
        elif self.queue.waits:
            is_full = len(self.queue) >= self._publisher.options.max_batch
            self._publisher.schedule(self, urgent=is_full or self._has_rest)
            if is_full:
                self._publisher.hurry()

    def confirm(self) -> None:
        """Ask the log whether it still has the last events; if not, they are sent again."""
        if self._sent:
            self.queue.put(DROPPED)

    def send_again(self, reached: int) -> None:
        """The log has nothing of this producer after the sequence `reached`: a failover has lost what is held of it,
        which is sent again before the batch that was refused for it. If nothing is held, these are numbers that the log
        does not count, such as that of a refused event."""
        assert self.batch is not None
        lost = self._sent.take_after(reached)
        self._has_gap = not lost
        if lost:
            count = sum(len(batch.events) for batch in lost)
            log.warning("events_sent_again", execution=self.execution_id, count=count)
        self._again.extendleft(reversed([*lost, self.batch]))
        self.batch = None
        self._publisher.schedule(self, urgent=True)

    def learn(self, appended: Appended) -> None:
        """Take what the record has counted, from the reply to the batch."""
        if appended.spent is not None and self.queue.meter is not None:
            self.queue.meter.learn(appended.spent, appended.budget)

    def traced(self, now: float) -> Trace | None:
        """The trace for the span of an append that is done `now`; None: no span. A late append always has one."""
        if self._spans is None or self.trace is None or not self.trace.is_sampled:
            return None
        return self.trace if self._spans.take(now) or self.late_since is not None else None

    def note_failure(self, error: Exception) -> None:
        """Redis answered the batch with an error; the batch will be sent again."""
        self.failures += 1
        self._trouble = f" ({str(error)[:120]})"

    def fail(self, error: Exception) -> None:
        """Drop everything: the log accepts no more from this outbox, for the reason `error`."""
        self.error = error
        self.batch = None
        self._again.clear()
        self._sent.clear()
        self.queue.clear()
        for flush in self._flushes:
            if not flush.done.done():
                flush.done.set_result(None)
        self._room.set()

    # --- waiting ---

    @property
    def is_full(self) -> bool:
        """Whether an event must wait for room, behind those that wait already."""
        return self.crowded > 0 or self.queue.full

    async def room(self) -> None:
        """Wait, in the order of the calls, until the queue has room. Raises `QueueFull` after `overflow_timeout`, or
        the log's refusal."""
        seconds = self._publisher.options.overflow_timeout
        self.crowded += 1
        try:
            async with asyncio.timeout(seconds), self._turn:
                while self.queue.full:
                    self._room.clear()
                    await self._room.wait()
                    self.check()
        except TimeoutError:
            raise QueueFull(seconds) from None
        finally:
            self.crowded -= 1
        self.check()

    def drop_deltas(self) -> int:
        """Drop the queued chunks; how many there were."""
        chunks, positions = self.queue.drop_deltas()
        self._flushes = [
            flush._replace(position=flush.position - bisect_right(positions, flush.position)) for flush in self._flushes
        ]
        if not self.queue.full:
            self._room.set()
        return chunks

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything queued so far is in the log. Raises the log's refusal, or `RedisUnavailable`."""
        self.check()
        if not len(self.queue):
            return
        self.notify(urgent=True)
        self._publisher.hurry()
        seconds = self._publisher.options.flush_timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._flushes.append(Flush(self.queue.last, done))
        timer = loop.call_later(seconds, _time_out, done)  # half the cost of `asyncio.timeout`
        try:
            await done
        except TimeoutError:
            waiting = f"{len(self.queue)} events not confirmed within {seconds:g} s"
            raise RedisUnavailable(waiting + self._trouble) from None
        finally:
            timer.cancel()
            self._flushes = [flush for flush in self._flushes if flush.done is not done]
        if self.error is not None:
            self.check()

    async def close(self, timeout: float | None = None) -> None:
        """Flush and leave the publisher. Raises `EventsLost` with the count that was not confirmed, or the refusal of
        the log unless a call has raised it already."""
        lost = 0
        try:
            if not self._has_raised and (self.error is not None or len(self.queue)):
                await self.flush(self._publisher.options.close_timeout if timeout is None else timeout)
        except RedisUnavailable:
            pass
        finally:
            again = (batch for batch in (self.batch, *self._again) if batch and batch.first_seq <= self.queue.settled)
            lost = sum(len(batch.events) for batch in again) + self.queue.clear()
            if lost:
                log.warning("events_lost", execution=self.execution_id, count=lost)
            self._publisher.forget(self)
            self.fail(self.error or EmitterClosed(f"the emitter of execution {self.execution_id} is closed"))
            self._has_raised = True
        if lost:
            raise EventsLost(lost)


def _time_out(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(TimeoutError())
