"""Carries events into logs: one round trip for all batches that wait, retried until they arrive, never appended twice.

Every batch goes through `append.lua`, which knows each producer's last sequence: a retry after a lost reply skips what
is already there. So the publisher may retry blindly, and does, with jittered backoff, for as long as it is open.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import secrets
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError, RedisError

from emitter import errors, tasks, wire
from emitter.batch import Batch, Prepared, Queue
from emitter.connection import DEFAULT_URL, GONE, Link, connect, pack
from emitter.errors import AppendRefused, EmitterClosed, EventsLost, InvalidSetting, QueueFull, RedisUnavailable
from emitter.events import Event, InputReceived
from emitter.redact import Redactor
from emitter.wire import EventId, Owner

log = structlog.get_logger("emitter")

APPEND_SCRIPT = Path(__file__).with_name("append.lua").read_text()
APPEND_SHA = hashlib.sha1(APPEND_SCRIPT.encode(), usedforsecurity=False).hexdigest()
Mode = Literal["any", "new", "existing", "unowned"]
RETRY_SECONDS_MAX = 2.0
ROUND_TRIP_BYTES = 8 * 1024 * 1024
"""About as much is sent at once; the lanes beyond it are next."""


class LogLimits(msgspec.Struct, frozen=True):
    """How much of a log is kept, and how long. 0 switches a length limit off."""

    log_maxlen: int = wire.LOG_MAXLEN
    feed_maxlen: int = wire.FEED_MAXLEN
    ttl_seconds: int = wire.LOG_TTL_SECONDS
    finished_ttl_seconds: int = wire.LOG_FINISHED_TTL_SECONDS
    tombstone_ttl_seconds: int = wire.TOMBSTONE_TTL_SECONDS
    max_event_bytes: int = wire.MAX_EVENT_BYTES


# Variable → field of `LogLimits`, least and greatest value: the same as an edge reads.
_LIMITS = {
    "RUNCAST_LOG_MAXLEN": ("log_maxlen", 0, 10**12),
    "RUNCAST_FEED_MAXLEN": ("feed_maxlen", 1, 10**12),
    "RUNCAST_LOG_TTL_SECONDS": ("ttl_seconds", 0, 10**12),
    "RUNCAST_LOG_FINISHED_TTL_SECONDS": ("finished_ttl_seconds", 1, 10**12),
    "RUNCAST_MAX_EVENT_BYTES": ("max_event_bytes", 1024, 16 * 1024 * 1024),
}


def limits_from(environ: Mapping[str, str]) -> tuple[LogLimits, tuple[str, ...]]:
    """The limits, and the key names to redact besides the usual ones, that `RUNCAST_*` variables set. A variable set
    to nothing counts as not set. Raises `InvalidSetting`."""
    values: dict[str, int] = {}
    for variable, (field, least, greatest) in _LIMITS.items():
        if text := environ.get(variable, "").strip():
            digits = text.isascii() and text.isdigit() and len(text) <= 15
            if not digits or not least <= int(text) <= greatest:
                raise InvalidSetting(variable, text[:64], f"a whole number from {least} to {greatest}")
            values[field] = int(text)
    names = environ.get("RUNCAST_REDACT_KEYS", "").strip()
    keys = tuple(name.strip() for name in names.split(",")) if names else ()
    if not all(keys):
        raise InvalidSetting("RUNCAST_REDACT_KEYS", names[:64], "key names, comma separated")
    return LogLimits(**values), keys


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
    wire.check_execution_id(execution_id)
    keys = wire.envelope_keys(request_id, agent, parent_id) if request_id or agent or parent_id else b""
    return prepare_with(event, execution_id, redact, keys, ts, max_bytes, answer=answer, fields=fields)


def prepare_with(
    event: Event,
    execution_id: str,
    redact: Redactor,
    keys: bytes,
    ts: int | None,
    max_bytes: int,
    *,
    answer: str | None = None,
    fields: Mapping[str, str] = {},
) -> Prepared:
    """`prepare` for many events: `keys` are of `wire.envelope_keys`, the id is valid."""
    data = wire.encode_data(event)
    type_ = wire.event_type(event)
    data = redact(type_, data)
    moment = wire.now_ms() if ts is None else ts
    json = wire.envelope(type_, execution_id, data, ts=moment, keys=keys, max_bytes=max_bytes)
    if answer is None and isinstance(event, InputReceived):
        answer = msgspec.json.encode({"value": event.value, "by": event.by, "at": moment}).decode()
    return Prepared(type_, json, wire.append_mark(event, data, answer), fields)


FIRST_SEQ_AT = 11
"""Where the producer sequence stands in an append command."""


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
    extra = _extra_fields(fields, events)
    command: list[Any] = [
        "EVALSHA", APPEND_SHA, 6, keys.record, keys.log, owner.feed, owner.feed_seq, owner.index, keys.control,
        attempt, producer, first_seq, mode, limits.log_maxlen, limits.feed_maxlen, limits.ttl_seconds * 1000,
        limits.finished_ttl_seconds * 1000, limits.tombstone_ttl_seconds * 1000, "PUBLISH", execution_id,
        len(extra), *extra,
    ]  # fmt: skip
    for event in events:
        command += event[:3]
    return command


def _extra_fields(fields: Mapping[str, str], events: Sequence[Prepared]) -> list[str]:
    return [text for item in (fields, *(event.fields for event in events)) for pair in item.items() for text in pair]


class PackedAppend:
    """The append command of one lane in the Redis protocol. Only the sequence, extra fields and events change from
    batch to batch; the rest is packed once."""

    def __init__(self, command: Sequence[Any]) -> None:
        """`command` is one of `append_command` without events or extra fields."""
        self._arguments = len(command)
        self._before = pack(command[:FIRST_SEQ_AT])
        self._after = pack(command[FIRST_SEQ_AT + 1 : -1])

    def __call__(self, batch: Batch) -> bytes:
        extra = _extra_fields({}, batch.events)
        count = self._arguments + len(extra) + 3 * len(batch.events)
        lead = (b"*%d\r\n" % count, self._before, pack([batch.first_seq]), self._after, pack([len(extra), *extra]))
        return b"".join([*lead, *(_pack_event(event) for event in batch.events)])


def _pack_event(event: Prepared) -> bytes:
    type_, json, mark = event.type.encode(), event.json, event.mark.encode()
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(type_), type_, len(json), json, len(mark), mark)


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


class Flush(NamedTuple):
    """Somebody who waits until the log has the event at `place` of the lane's queue."""

    place: int
    done: asyncio.Future[None]


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
        self._packed = PackedAppend(self._command((), 1))
        options = publisher.options
        self.queue = Queue(options.max_queue_events, options.max_queue_bytes, encode)
        self.batch: Batch | None = None
        self.error: Exception | None = None
        self.failures = 0
        self._trouble = ""
        self._told = False
        self._flushes: list[Flush] = []
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()
        self.crowded = 0

    def changed(self, *, urgent: bool) -> None:
        """Something was queued: send it at once, or (a chunk) after the time in which more may join it."""
        self._publisher.schedule(self, urgent=urgent)

    def check(self) -> None:
        """Raise why nothing can be queued: the log's refusal, or `EmitterClosed`."""
        if self.error is not None:
            self._told = True
            raise self.error.with_traceback(None)  # or it would grow with every call that ignores it
        self._publisher.check_open()

    # --- sending ---

    def take(self) -> Batch | None:
        """The batch to send now: the one that may not have arrived, or the next."""
        if self.batch is None and len(self.queue):
            options = self._publisher.options
            self.batch = self.queue.take(options.max_batch, options.max_batch_bytes)
        return self.batch

    def packed(self, batch: Batch) -> bytes:
        return self._packed(batch)

    def command(self, batch: Batch) -> list[Any]:
        return self._command(batch.events, batch.first_seq)

    def _command(self, events: Sequence[Prepared], first_seq: int) -> list[Any]:
        return append_command(
            self.owner,
            self.execution_id,
            events,
            producer=self.producer,
            first_seq=first_seq,
            attempt=self.attempt,
            limits=self._publisher.limits,
        )

    def arrived(self, refusal: AppendRefused | None = None) -> None:
        """The batch is in the log, or `refusal` is why its only event is not; what follows may go."""
        assert self.batch is not None
        self.queue.done(self.batch)
        self.batch = None
        self.failures, self._trouble = 0, ""
        for flush in self._flushes:
            if flush.place <= self.queue.settled and not flush.done.done():
                if refusal is not None and flush.place == self.queue.settled:
                    flush.done.set_exception(refusal)
                else:
                    flush.done.set_result(None)
        if not self.queue.full:
            self._room.set()
        if len(self.queue):
            self._publisher.schedule(self, urgent=True)

    def failed(self, error: Exception) -> None:
        """Redis answered the batch with an error; it will be sent again."""
        self.failures += 1
        self._trouble = f" ({str(error)[:120]})"

    def refuse(self, error: Exception) -> None:
        """The log takes nothing more from this lane."""
        self.error = error
        self.batch = None
        self.queue.clear()
        for flush in self._flushes:
            if not flush.done.done():
                flush.done.set_result(None)
        self._room.set()

    # --- waiting ---

    async def room(self) -> None:
        """Wait, in the order of the calls, until the queue has room. Raises `QueueFull` after `overflow_timeout`, or
        why the log refuses."""
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
        """Give up the queued chunks; how many they were."""
        chunks, places = self.queue.drop_deltas()
        self._flushes = [
            flush._replace(place=flush.place - bisect_right(places, flush.place)) for flush in self._flushes
        ]
        if not self.queue.full:
            self._room.set()
        return chunks

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything queued by now is in the log. Raises why the log refuses, or `RedisUnavailable`."""
        self.check()
        if not len(self.queue):
            return
        self._publisher.schedule(self, urgent=True)
        seconds = self._publisher.options.flush_timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._flushes.append(Flush(self.queue.last, done))
        timer = loop.call_later(seconds, _time_is_up, done)  # half the cost of `asyncio.timeout`
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
        """Flush and leave the publisher. Raises `EventsLost` with the count that was not confirmed, or why the log
        refused what was queued, unless a call was told already."""
        lost = 0
        try:
            if not self._told and (self.error is not None or len(self.queue)):
                await self.flush(self._publisher.options.close_timeout if timeout is None else timeout)
        except RedisUnavailable:
            pass
        finally:
            lost = self.queue.clear()
            if lost:
                log.warning("events_lost", execution=self.execution_id, count=lost)
            self._publisher.forget(self)
            self.refuse(self.error or EmitterClosed(f"the emitter of execution {self.execution_id} is closed"))
            self._told = True
        if lost:
            raise EventsLost(lost)


class Publisher:
    """Shared by the emitters of a process: `async with Publisher(redis_url=…) as publisher:`.

    One task sends whatever waits in all lanes as one pipeline of script calls, one pipeline at a time. So order within
    a lane never changes, and the busier it gets the larger the batches. A lane with nothing to send is not known here.

    What is not given comes from the environment: `redis_url` from `RUNCAST_REDIS_URL`, `limits` and `redact_keys` as
    `limits_from` reads them.
    """

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        redis: Redis | None = None,
        options: Options = Options(),  # noqa: B008 - frozen
        limits: LogLimits | None = None,
        redact_keys: Sequence[str] | None = None,
    ) -> None:
        found_limits, found_keys = limits_from(os.environ) if limits is None or redact_keys is None else (limits, ())
        url = redis_url or os.environ.get("RUNCAST_REDIS_URL") or DEFAULT_URL
        self.redis = redis if redis is not None else connect(url)
        self._owns_redis = redis is None
        self.options = options
        self.limits = found_limits if limits is None else limits
        self.redact = Redactor(found_keys if redact_keys is None else redact_keys)
        self._link: Link | None = None
        self._due: dict[Lane, None] = {}
        self._waiting: dict[Lane, None] = {}
        self._resting: dict[Lane, asyncio.TimerHandle] = {}
        self._sending: list[tuple[Lane, Batch]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    # --- life ---

    async def __aenter__(self) -> Publisher:
        if self._closed or self._task is not None:
            raise EmitterClosed("a publisher is opened once")
        if not isinstance(self.redis, RedisCluster):  # whose commands must find their node
            self._link = Link(self.redis)
        self._task = asyncio.create_task(self._run(), name="publisher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Flush what emitters left behind. Raises `EventsLost` with the count that Redis did not take in time."""
        lanes = {*self._due, *self._waiting, *self._resting, *(lane for lane, _ in self._sending)}
        try:
            closed = await asyncio.gather(*(lane.close() for lane in lanes), return_exceptions=True)
        finally:
            await self._stop()
        lost = sum(result.count for result in closed if isinstance(result, EventsLost))
        if lost and error is None:
            raise EventsLost(lost)

    async def _stop(self) -> None:
        task, self._task, self._closed = self._task, None, True
        if self._timer is not None:
            self._timer.cancel()
        if task is not None:
            await tasks.end([task])
        if self._link is not None:
            await self._link.aclose()
        if self._owns_redis:
            await self.redis.aclose()

    def check_open(self) -> None:
        if self._task is None:
            how = (
                "is closed"
                if self._closed
                else "was not opened: use `async with`, also for an emitter that has its own"
            )
            raise EmitterClosed(f"the publisher {how}")

    # --- lanes ---

    def lane(self, owner: Owner, execution_id: str, attempt: int, encode: Callable[[Event, int], Prepared]) -> Lane:
        return Lane(self, owner, execution_id, attempt, encode)

    def schedule(self, lane: Lane, *, urgent: bool) -> None:
        if lane in self._resting:
            return
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

    def _rest(self, lane: Lane) -> None:
        """Try a lane that Redis answered with an error again after a while; the others need not wait for it."""
        seconds = _backoff_seconds(lane.failures)
        self._resting[lane] = asyncio.get_running_loop().call_later(seconds, self._wake_up, lane)

    def _wake_up(self, lane: Lane) -> None:
        del self._resting[lane]
        self.schedule(lane, urgent=True)

    def forget(self, lane: Lane) -> None:
        self._due.pop(lane, None)
        self._waiting.pop(lane, None)
        if (timer := self._resting.pop(lane, None)) is not None:
            timer.cancel()

    # --- sending ---

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            if await self._send_due():
                failures = 0
            else:
                failures += 1
                await asyncio.sleep(_backoff_seconds(failures))

    async def _send_due(self) -> bool:
        """Send one batch of each lane that is due; false if Redis could not be reached."""
        commands = self._take_due()
        if not commands:
            return True
        try:
            replies = await self._round_trip(commands)
        except (RedisError, *GONE) as error:
            log.warning("append_failed", error=type(error).__name__, batches=len(commands))
            self._send_again()
            return False
        except Exception:  # last resort: one bad batch must not end the publishing of all
            log.exception("append_crashed")
            self._send_again()
            return False
        sent, self._sending = self._sending, []
        for (lane, batch), reply in zip(sent, replies, strict=True):
            if lane.batch is batch:  # or it was closed while its batch travelled
                self._settle(lane, reply)
        return True

    def _take_due(self) -> list[Any]:
        """The commands for the next batches of the lanes that are due, as far as they fit one round trip."""
        lanes, self._due = list(self._due), {}
        commands: list[Any] = []
        size = 0
        for number, lane in enumerate(lanes):
            if size >= ROUND_TRIP_BYTES:
                self._due = dict.fromkeys(lanes[number:])
                self._wake.set()
                break
            try:
                batch = lane.take()
                if batch is not None:
                    commands.append(lane.command(batch) if self._link is None else lane.packed(batch))
                    self._sending.append((lane, batch))
                    size += batch.size
            except (errors.RuncastError, ValueError) as error:  # a merged delta or field that has no form in the log
                lane.refuse(error)
        return commands

    def _send_again(self) -> None:
        sent, self._sending = self._sending, []
        for lane, batch in sent:
            if lane.batch is batch:
                self.schedule(lane, urgent=True)

    def _settle(self, lane: Lane, reply: Any) -> None:
        if isinstance(reply, Exception):
            log.warning("append_failed", error=str(reply)[:200], execution=lane.execution_id)
            lane.failed(reply)
            self._rest(lane)
            return
        try:
            read_reply(lane.execution_id, reply)
        except (errors.AlreadyAnswered, errors.UnknownInput) as refusal:
            lane.arrived(refusal)
        except AppendRefused as refusal:
            lane.refuse(refusal)
        else:
            lane.arrived()

    async def _round_trip(self, commands: list[Any]) -> list[Any]:
        """The replies, in order; a server's error stands in the place of its reply."""
        replies = await self._execute(commands)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await self.redis.script_load(APPEND_SCRIPT)
            return await self._execute(commands)  # those that did run are skipped by their producer sequence
        return replies

    async def _execute(self, commands: list[Any]) -> list[Any]:
        if self._link is not None:
            return await self._link.exchange(b"".join(commands), len(commands))
        pipe: Any = self.redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies


def _time_is_up(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(TimeoutError())


def _backoff_seconds(failures: int) -> float:
    ceiling: float = min(RETRY_SECONDS_MAX, 0.02 * 2 ** min(failures, 10))
    return ceiling * (0.5 + random.random() / 2)
