"""Carries events into logs: one round trip for all batches that wait, retried until they arrive, never appended twice.

Every batch goes through `append.lua`, which knows each producer's last sequence: a retry after a lost reply skips what
is already there. So the publisher may retry blindly, and does, with jittered backoff, for as long as it is open.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from emitter import errors, tasks, wire
from emitter.batch import Batch, Prepared, Queue
from emitter.connection import DEFAULT_URL, GONE, connect
from emitter.errors import AppendRefused, EventsLost, QueueFull, RedisUnavailable
from emitter.events import Event
from emitter.redact import Redactor
from emitter.wire import EventId, Owner

log = structlog.get_logger("emitter")

APPEND_SCRIPT = Path(__file__).with_name("append.lua").read_text()
APPEND_SHA = hashlib.sha1(APPEND_SCRIPT.encode(), usedforsecurity=False).hexdigest()
Mode = Literal["any", "new", "existing", "unowned"]
RETRY_SECONDS_MAX = 2.0


class LogLimits(msgspec.Struct, frozen=True):
    """How much of a log is kept, and how long. 0 switches a length limit off."""

    log_maxlen: int = wire.LOG_MAXLEN
    feed_maxlen: int = wire.FEED_MAXLEN
    ttl_seconds: int = wire.LOG_TTL_SECONDS
    finished_ttl_seconds: int = wire.LOG_FINISHED_TTL_SECONDS
    tombstone_ttl_seconds: int = wire.TOMBSTONE_TTL_SECONDS
    max_event_bytes: int = wire.MAX_EVENT_BYTES


class Appended(NamedTuple):
    """What an append did: the log's last id, and how many events were new."""

    last: EventId
    added: int


def prepare(
    event: Event,
    execution_id: str,
    *,
    redact: Redactor,
    ts: int | None = None,
    request_id: str | None = None,
    agent: str | None = None,
    parent_id: str | None = None,
    max_bytes: int = wire.MAX_EVENT_BYTES,
    answer: str | None = None,
    fields: Mapping[str, str] = {},
) -> Prepared:
    """Encode and redact one event. Raises `InvalidEvent`, `PayloadTooLarge`."""
    type_ = wire.event_type(event)
    json = wire.envelope(
        type_,
        execution_id,
        redact(type_, wire.encode_data(event)),
        ts=wire.now_ms() if ts is None else ts,
        request_id=request_id,
        agent=agent,
        parent_id=parent_id,
        max_bytes=max_bytes,
    )
    return Prepared(type_, json, wire.append_mark(event, answer), fields)


def append_command(
    owner: Owner,
    execution_id: str,
    events: Sequence[Prepared],
    *,
    producer: str = "",
    first_seq: int = 1,
    attempt: int = 0,
    mode: Mode = "any",
    fields: Mapping[str, str] = {},
    limits: LogLimits = LogLimits(),  # noqa: B008 - frozen
) -> list[Any]:
    """The EVALSHA command, as a list, that appends a batch."""
    keys = owner.execution(execution_id)
    extra = [text for item in (fields, *(event.fields for event in events)) for pair in item.items() for text in pair]
    command: list[Any] = [
        "EVALSHA", APPEND_SHA, 6, keys.record, keys.log, owner.feed, owner.feed_seq, owner.index, keys.control,
        attempt, producer, first_seq, mode, limits.log_maxlen, limits.feed_maxlen, limits.ttl_seconds * 1000,
        limits.finished_ttl_seconds * 1000, limits.tombstone_ttl_seconds * 1000, "PUBLISH", execution_id,
        len(extra), *extra,
    ]  # fmt: skip
    for event in events:
        command += event[:3]
    return command


def read_reply(execution_id: str, reply: Sequence[Any]) -> Appended:
    """What the script answered. Raises the `AppendRefused` that its verdict stands for."""
    verdict, detail = reply[0].decode(), reply[3].decode()
    if verdict == "ok":
        return Appended(wire.parse_event_id(reply[1].decode()), reply[2])
    refusals: dict[str, Callable[[], AppendRefused]] = {
        "ended": lambda: errors.ExecutionEnded(execution_id, detail),
        "fenced": lambda: errors.Superseded(execution_id, int(detail)),
        "exists": lambda: errors.ExecutionExists(execution_id, detail),
        "unknown": lambda: errors.UnknownExecution(execution_id),
        "owned": lambda: errors.ExecutionOwned(execution_id, detail),
        "answered": lambda: errors.AlreadyAnswered(execution_id, detail),
        "noinput": lambda: errors.UnknownInput(execution_id),
        "producers": lambda: errors.TooManyProducers(execution_id),
    }
    raise refusals[verdict]()


async def append(redis: Redis, owner: Owner, execution_id: str, events: Sequence[Prepared], **options: Any) -> Appended:
    """Append one batch now (options: `append_command`). Raises `AppendRefused` and redis errors; never retries."""
    command = append_command(owner, execution_id, events, **options)
    client: Any = redis
    try:
        reply = await client.execute_command(*command)
    except NoScriptError:
        await redis.script_load(APPEND_SCRIPT)
        reply = await client.execute_command(*command)
    return read_reply(execution_id, reply)


class Options(msgspec.Struct, frozen=True):
    """How a publisher batches and how much it holds while Redis is away. Times in seconds."""

    max_wait: float = 0.010
    max_batch: int = 100
    max_batch_bytes: int = 1024 * 1024
    max_queue_events: int = 10_000
    max_queue_bytes: int = 16 * 1024 * 1024
    overflow: Literal["wait", "drop_deltas"] = "wait"
    overflow_timeout: float = 60.0
    flush_timeout: float = 30.0
    close_timeout: float = 10.0


class Lane:
    """One producer's road into one log. Made by `Publisher.lane`."""

    def __init__(
        self,
        publisher: Publisher,
        owner: Owner,
        execution_id: str,
        attempt: int,
        encode: Callable[[Event, int], Prepared],
    ) -> None:
        self._publisher = publisher
        self.owner = owner
        self.execution_id = wire.check_execution_id(execution_id)
        self.attempt = attempt
        self.producer = secrets.token_urlsafe(9)
        options = publisher.options
        self.queue = Queue(options.max_queue_events, options.max_queue_bytes, encode)
        self.batch: Batch | None = None
        self.error: Exception | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._room.set()

    def changed(self, *, urgent: bool) -> None:
        """Something was queued: send it at once, or (a chunk) after the time in which more may join it."""
        self._idle.clear()
        if self.queue.full:
            self._room.clear()
        self._publisher.schedule(self, urgent=urgent)

    def take(self) -> Batch | None:
        """The batch to send now: the one that may not have arrived, or the next."""
        if self.batch is None and len(self.queue):
            options = self._publisher.options
            self.batch = self.queue.take(options.max_batch, options.max_batch_bytes)
        return self.batch

    def command(self, batch: Batch) -> list[Any]:
        return append_command(
            self.owner,
            self.execution_id,
            batch.events,
            producer=self.producer,
            first_seq=batch.first_seq,
            attempt=self.attempt,
            limits=self._publisher.limits,
        )

    def arrived(self) -> None:
        assert self.batch is not None
        self.queue.done(self.batch)
        self.batch = None
        if not self.queue.full:
            self._room.set()
        if len(self.queue):
            self._publisher.schedule(self, urgent=True)
        else:
            self._idle.set()

    def refuse(self, error: Exception) -> None:
        """The log takes nothing more from this lane."""
        self.error = error
        self.batch = None
        self.queue.clear()
        self._idle.set()
        self._room.set()

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    async def room(self) -> None:
        """Wait until the queue has room. Raises `QueueFull` after `overflow_timeout`, or why the log refuses."""
        seconds = self._publisher.options.overflow_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._room.wait()
        except TimeoutError:
            raise QueueFull(seconds) from None
        self.check()

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything queued is in the log. Raises why the log refuses, or `RedisUnavailable` in time."""
        if len(self.queue):
            self._publisher.schedule(self, urgent=True)
        seconds = self._publisher.options.flush_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            raise RedisUnavailable(f"{len(self.queue)} events not confirmed within {seconds:g} s") from None
        self.check()

    async def close(self, timeout: float | None = None) -> None:
        """Flush and leave the publisher. Raises `EventsLost` with the count that could not be written."""
        try:
            await self.flush(self._publisher.options.close_timeout if timeout is None else timeout)
        except RedisUnavailable:
            raise EventsLost(self.queue.clear()) from None
        finally:
            self._publisher.forget(self)


class Publisher:
    """Shared by the emitters of a process: `async with Publisher(redis_url=…) as publisher:`.

    One task sends whatever waits in all lanes as one pipeline of script calls, one pipeline at a time. So order within
    a lane never changes, and the busier it gets the larger the batches.
    """

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        redis: Redis | None = None,
        options: Options = Options(),  # noqa: B008 - frozen
        limits: LogLimits = LogLimits(),  # noqa: B008 - frozen
        redact_keys: Sequence[str] = (),
    ) -> None:
        self.redis = redis if redis is not None else connect(redis_url or DEFAULT_URL)
        self._owns_redis = redis is None
        self.options = options
        self.limits = limits
        self.redact = Redactor(redact_keys)
        self._due: dict[Lane, None] = {}
        self._waiting: dict[Lane, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Publisher:
        self._task = asyncio.create_task(self._run(), name="publisher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await tasks.end([self._task])
            self._task = None
        if self._owns_redis:
            await self.redis.aclose()

    def lane(self, owner: Owner, execution_id: str, attempt: int, encode: Callable[[Event, int], Prepared]) -> Lane:
        return Lane(self, owner, execution_id, attempt, encode)

    def schedule(self, lane: Lane, *, urgent: bool) -> None:
        if urgent:
            self._waiting.pop(lane, None)
            self._due[lane] = None
            self._wake.set()
        elif lane not in self._due:
            self._waiting[lane] = None
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self.options.max_wait, self._promote)

    def _promote(self) -> None:
        self._timer = None
        self._due.update(self._waiting)
        self._waiting.clear()
        self._wake.set()

    def forget(self, lane: Lane) -> None:
        self._due.pop(lane, None)
        self._waiting.pop(lane, None)

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            lanes, self._due = list(self._due), {}
            try:
                sent = await self._send(lanes)
            except Exception:  # last resort: one bad batch must not end the publishing of all
                log.exception("append_crashed")
                sent = False
            if sent:
                failures = 0
                continue
            failures += 1
            for lane in lanes:
                self.schedule(lane, urgent=True)
            ceiling = min(RETRY_SECONDS_MAX, 0.02 * 2 ** min(failures, 10))
            await asyncio.sleep(ceiling * (0.5 + random.random() / 2))

    async def _send(self, lanes: list[Lane]) -> bool:
        """Send one batch of each lane; false if some must be tried again."""
        sending = [(lane, batch) for lane in lanes if (batch := self._take(lane)) is not None]
        if not sending:
            return True
        try:
            replies = await self._round_trip([lane.command(batch) for lane, batch in sending])
        except (RedisError, *GONE) as error:
            log.warning("append_failed", error=type(error).__name__, batches=len(sending))
            return False
        retry = False
        for (lane, batch), reply in zip(sending, replies, strict=True):
            if lane.batch is not batch:
                continue  # the lane was closed while its batch travelled
            if isinstance(reply, Exception):
                retry = True
                log.warning("append_failed", error=str(reply)[:200], execution=lane.execution_id)
                continue
            try:
                read_reply(lane.execution_id, reply)
            except AppendRefused as refusal:
                lane.refuse(refusal)
            else:
                lane.arrived()
        return not retry

    def _take(self, lane: Lane) -> Batch | None:
        try:
            return lane.take()
        except errors.RuncastError as error:  # a merged delta that has no form in the log
            lane.refuse(error)
            return None

    async def _round_trip(self, commands: list[list[Any]]) -> list[Any]:
        """The replies, in order; a server's error stands in the place of its reply."""
        replies = await self._execute(commands)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await self.redis.script_load(APPEND_SCRIPT)
            return await self._execute(commands)  # those that did run are skipped by their producer sequence
        return replies

    async def _execute(self, commands: list[list[Any]]) -> list[Any]:
        client: Any = self.redis
        if len(commands) == 1:
            try:
                return [await client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipe = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies
