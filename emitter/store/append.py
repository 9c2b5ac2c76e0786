"""Appending to a log: events in their stored form, the script's command, and its reply."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import structlog
from msgspec import structs
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from emitter import errors
from emitter.budgets import Budget, Spent
from emitter.errors import AppendRefused, InvalidEvent, PayloadTooLarge
from emitter.events import Event, ExecutionStarted, InputReceived, ModelCall
from emitter.settings import SharedSettings, read
from emitter.store.connection import Channels, channels_of, pack, repeated
from emitter.wire import envelope, ids, mending
from emitter.wire.ids import EventId
from emitter.wire.keys import Owner
from emitter.wire.limits import (
    FEED_MAXLEN,
    LOG_FINISHED_TTL_SECONDS,
    LOG_MAX_BYTES,
    LOG_MAXLEN,
    LOG_TTL_SECONDS,
    MAX_CHILD_DEPTH,
    MAX_CHILDREN,
    MAX_CONVERSATION_BYTES,
    MAX_EVENT_BYTES,
    MAX_OPEN_INPUTS,
    MAX_PARAMS_BYTES,
    MAX_QUEUED_PER_USER,
    MAX_WAITING_MESSAGES,
    RECORD_MODEL_CONTENTS,
    TOMBSTONE_TTL_SECONDS,
    UNHELD_LEASE_SECONDS,
)
from emitter.wire.prepared import Prepared, Redaction
from emitter.wire.record import FORMAT, Field, read_budget, spent_of

log = structlog.get_logger("emitter")

APPEND_SCRIPT = Path(__file__).with_name("append.lua").read_text()
APPEND_SHA = hashlib.sha1(APPEND_SCRIPT.encode(), usedforsecurity=False).hexdigest()
Mode = Literal["any", "new", "existing", "unowned", "claimed", "lapsed"]


def claimed_by(worker: str) -> Mode:
    """The mode `claimed`, while this worker has the execution."""
    return f"claimed {worker}"  # type: ignore[return-value]


class LogLimits(msgspec.Struct, frozen=True):
    """How much of an execution is kept and for how long, and the limits of one user. 0 switches a limit off.
    `webhook_url`: where the ends and questions of every execution go, if that is wanted."""

    log_maxlen: int = LOG_MAXLEN
    feed_maxlen: int = FEED_MAXLEN
    ttl_seconds: int = LOG_TTL_SECONDS
    finished_ttl_seconds: int = LOG_FINISHED_TTL_SECONDS
    tombstone_ttl_seconds: int = TOMBSTONE_TTL_SECONDS
    max_event_bytes: int = MAX_EVENT_BYTES
    log_max_bytes: int = LOG_MAX_BYTES
    max_open_inputs: int = MAX_OPEN_INPUTS
    max_waiting_messages: int = MAX_WAITING_MESSAGES
    max_queued_per_user: int = MAX_QUEUED_PER_USER
    max_params_bytes: int = MAX_PARAMS_BYTES
    max_conversation_bytes: int = MAX_CONVERSATION_BYTES
    unheld_lease_seconds: int = UNHELD_LEASE_SECONDS
    webhook_url: str = ""
    max_children: int = MAX_CHILDREN
    max_child_depth: int = MAX_CHILD_DEPTH
    budget_total_tokens: int = 0
    budget_cost_usd: float = 0
    budget_tool_calls: int = 0
    budget_seconds: float = 0

    @property
    def budget(self) -> Budget:
        """What every execution may spend."""
        return Budget(
            total_tokens=self.budget_total_tokens or None,
            cost_usd=self.budget_cost_usd or None,
            tool_calls=self.budget_tool_calls or None,
            seconds=self.budget_seconds or None,
        )


def limits_of(settings: SharedSettings) -> LogLimits:
    return LogLimits(**{field: getattr(settings, name) for field, name in _LIMITS.items()})


_LIMITS = {field: field for field in LogLimits.__struct_fields__ if field in SharedSettings.__struct_fields__} | {
    "ttl_seconds": "log_ttl_seconds",
    "finished_ttl_seconds": "log_finished_ttl_seconds",
}
"""Field of `LogLimits` → setting."""


def limits_from(environ: Mapping[str, str]) -> tuple[LogLimits, tuple[str, ...]]:
    """The limits and the additional key names to redact, from their `RUNCAST_*` variables only. Raises
    `InvalidSetting`."""
    settings = read(SharedSettings, environ, only={*_LIMITS.values(), "redact_keys"})
    return limits_of(settings), settings.redact_keys


class Appended(NamedTuple):
    """The result of an append: the log's last id, and how many events were new. If they have spent something: what the
    record has counted (but for time), and its limits."""

    last: EventId
    added: int
    spent: Spent | None = None
    budget: Budget = Budget()


def prepare(
    event: Event,
    execution_id: str,
    *,
    redact: Redaction,
    ts: int | None = None,
    request_id: str | None = None,
    agent: str | None = None,
    parent_id: str | None = None,
    traceparent: str | None = None,
    max_bytes: int = MAX_EVENT_BYTES,
    answer: str | None = None,
    fields: Mapping[str, str] = {},
) -> Prepared:
    """Encode and redact one event. Raises `InvalidEvent`, `PayloadTooLarge`."""
    ids.check_execution_id(execution_id)
    is_plain = not (request_id or agent or parent_id or traceparent)
    keys = b"" if is_plain else envelope.envelope_keys(request_id, agent, parent_id, traceparent)
    return prepare_with(event, execution_id, redact, keys, ts, max_bytes, answer=answer, fields=fields)


def prepare_with(
    event: Event,
    execution_id: str,
    redact: Redaction,
    keys: bytes,
    ts: int | None,
    max_bytes: int,
    *,
    answer: str | None = None,
    fields: Mapping[str, str] = {},
) -> Prepared:
    """`prepare` for many events: `keys` are made by `wire.envelope_keys`, the id is valid."""
    if not RECORD_MODEL_CONTENTS and isinstance(event, ModelCall):
        event = structs.replace(event, prompt=None, answer=None)
    data = envelope.encode_data(event, max_bytes)
    if max_bytes and len(data) > REDACTED_TIMES * max_bytes:  # redacting it would be in vain
        raise PayloadTooLarge(len(data), max_bytes)
    type_ = envelope.event_type(event)
    data = redact(type_, data)
    moment = ids.now_ms() if ts is None else ts
    json = envelope.envelope(type_, execution_id, data, ts=moment, keys=keys, max_bytes=max_bytes)
    if isinstance(event, ExecutionStarted) and event.budget is not None:
        fields = {**fields, Field.BUDGET: envelope.encode_value(event.budget.limit).decode()}
    if answer is None and isinstance(event, InputReceived):
        given = {"value": event.value, "by": event.by, "at": moment} | ({"declined": True} if event.declined else {})
        answer = envelope.encode_value(given).decode()
    return Prepared(type_, json, envelope.append_mark(event, data, answer), fields)


def prepare_shown(
    event: Event,
    execution_id: str,
    redact: Redaction,
    keys: bytes,
    ts: int,
    max_bytes: int,
    *,
    fields: Mapping[str, str] = {},
) -> Prepared:
    """`prepare_with` for an agent's events: an event that only shows something is mended (`emitter.wire.mending`) if it
    cannot be stored as it is."""
    try:
        return prepare_with(event, execution_id, redact, keys, ts, max_bytes, fields=fields)
    except (InvalidEvent, PayloadTooLarge) as error:
        if not mending.may_mend(event):
            raise
        log.debug("event_mended", execution=execution_id, type=event.type, **_reason(error))
    event = mending.mended(event)
    try:
        return prepare_with(event, execution_id, redact, keys, ts, max_bytes, fields=fields)
    except PayloadTooLarge as error:
        room = envelope.room(envelope.event_type(event), execution_id, ts=ts, keys=keys, max_bytes=max_bytes)
        for cut in mending.shorter(event, room, redact):
            with contextlib.suppress(PayloadTooLarge):
                return prepare_with(cut, execution_id, redact, keys, ts, max_bytes, fields=fields)
        raise error from None


def _reason(error: InvalidEvent | PayloadTooLarge) -> dict[str, str | int]:
    """Log fields without any content of the event."""
    if isinstance(error, PayloadTooLarge):
        return {"bytes": error.size}
    return {"at": error.detail.partition("at `")[2].partition("`")[0] or "$"}


REDACTED_TIMES = 64
"""An event larger than this many times the limit is refused without redaction, which could have made it shorter."""
FIRST_SEQ_AT = 11
"""Index of the producer sequence in an append command."""


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
    conversation_id: str | None = None,
    channels: Channels = Channels(),  # noqa: B008 - frozen
) -> list[Any]:
    """The EVALSHA command, as a list, that appends a batch. `conversation_id`: the conversation of an execution that
    begins with this batch. `channels`: those of the client that sends the command. `first_seq` is negative if the
    producer can send again what came before it."""
    execution = owner.execution(execution_id)
    keys = [execution.record, execution.log, owner.feed, owner.feed_seq, owner.index, execution.control]
    if conversation_id is not None:
        keys.append(owner.conversation(conversation_id))
    extra = _extra_fields(fields, events)
    command: list[Any] = [
        "EVALSHA", APPEND_SHA, len(keys), *keys,
        attempt, producer, first_seq, mode, limits.log_maxlen, limits.feed_maxlen, limits.ttl_seconds * 1000,
        limits.finished_ttl_seconds * 1000, limits.tombstone_ttl_seconds * 1000, channels.publish, channels.suffix,
        execution_id, limits.max_open_inputs, -(-limits.log_max_bytes // 16), len(extra), *extra,
    ]  # fmt: skip
    for event in events:
        command += event[:3]
    return command


def _extra_fields(fields: Mapping[str, str], events: Sequence[Prepared]) -> list[str]:
    return [text for item in (fields, *(event.fields for event in events)) for pair in item.items() for text in pair]


class PackedAppend:
    """The append command of one outbox in the Redis protocol. Only the sequence, extra fields and events change from
    batch to batch; the rest is packed once."""

    def __init__(self, command: Sequence[Any]) -> None:
        """`command` is made by `append_command` without events or extra fields."""
        self._arguments = len(command)
        self._before = pack(command[:FIRST_SEQ_AT])
        self._after = pack(command[FIRST_SEQ_AT + 1 : -1])

    def __call__(self, events: Sequence[Prepared], first_seq: int) -> bytes:
        extra = _extra_fields({}, events)
        count = self._arguments + len(extra) + 3 * len(events)
        lead = (b"*%d\r\n" % count, self._before, pack([first_seq]), self._after, pack([len(extra), *extra]))
        return b"".join([*lead, *(_pack_event(event) for event in events)])


def _pack_event(event: Prepared) -> bytes:
    type_, json, mark = event.type.encode(), event.json, event.mark.encode()
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(type_), type_, len(json), json, len(mark), mark)


def read_reply(execution_id: str, reply: Sequence[Any]) -> Appended:
    """The script's reply. Raises the `AppendRefused` of its verdict."""
    verdict, detail = reply[0].decode(), reply[3].decode()
    if verdict == "ok":
        last, added = ids.parse_event_id(reply[1].decode()), reply[2]
        return Appended(last, added, *_read_spent(detail)) if detail else Appended(last, added)
    refusals: dict[str, Callable[[], AppendRefused]] = {
        "ended": lambda: errors.ExecutionEnded(execution_id, detail),
        "fenced": lambda: errors.Superseded(execution_id, int(detail)),
        "exists": lambda: errors.ExecutionExists(execution_id, detail),
        "unknown": lambda: errors.UnknownExecution(execution_id),
        "owned": lambda: errors.ExecutionOwned(execution_id, detail),
        "answered": lambda: errors.AlreadyAnswered(execution_id, detail),
        "noinput": lambda: errors.UnknownInput(execution_id),
        "inputs": lambda: errors.TooManyInputs(execution_id, int(detail)),
        "known": lambda: errors.AlreadySent(execution_id),
        "messages": lambda: errors.TooManyMessages(execution_id, int(detail)),
        "nomessage": lambda: errors.UnknownMessage(execution_id),
        "taken": lambda: errors.MessageTaken(execution_id),
        "lost": lambda: errors.EventsMissing(execution_id, int(detail)),
        "newer": lambda: errors.NewerRecord(int(detail), FORMAT, execution_id),
    }
    raise refusals[verdict]()


def _read_spent(detail: str) -> tuple[Spent, Budget]:
    tokens, nanos, calls, budget = detail.split(" ", 3)
    return spent_of(int(tokens), int(nanos), int(calls)), read_budget(budget.encode())


async def append(redis: Redis, owner: Owner, execution_id: str, events: Sequence[Prepared], **options: Any) -> Appended:
    """Append one batch now (options: `append_command`). Raises `AppendRefused` and redis errors. With a `producer` it
    is repeated once if the connection breaks, because the script then skips events that the log has."""
    command = append_command(owner, execution_id, events, channels=channels_of(redis), **options)
    call = partial(_execute, redis, command)
    reply = await (repeated(call) if options.get("producer") else call())
    return read_reply(execution_id, reply)


async def _execute(redis: Redis, command: Sequence[Any]) -> Any:
    client: Any = redis
    try:
        return await client.execute_command(*command)
    except NoScriptError:
        await redis.script_load(APPEND_SCRIPT)
        return await client.execute_command(*command)
