"""The execution record: the hash in Redis with the state and facts of an execution. Only this module names its fields,
their defaults, and how they are read.

Scripts decide by the record and write most of it. They spell its fields themselves; a test compares them with the names
here. Python reads with a `Selection` (HMGET) or with `ExecutionRecord.read` (HGETALL).

Format: `format` is the number of the rules by which a record was begun. A new field does not change the format: a
reader ignores fields that it does not know, and a missing field has its default. So `FORMAT` is raised only if the
meaning of an existing field changes. A reader that finds a higher number raises `NewerRecord` and changes nothing; a
lower number, or none (0.1.0), is read. So a release that raises `FORMAT` must read both formats, and all edges and
workers must run it before one of them writes the new format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from emitter.budgets import NANOS, Budget, Spent
from emitter.errors import NewerRecord
from emitter.events import TERMINAL_STATES, State
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId

FORMAT = 1
"""What this version writes, and the highest that it reads. `append.lua` writes it; it and `claim.lua` refuse more."""
MAX_ATTEMPTS = 3
"""The number of attempts if the worker has set none."""


class Field:
    """The names. Times are in ms since the epoch."""

    FORMAT: Final = "format"

    # Where the log is.
    STATE: Final = "state"
    MS: Final = "ms"  # with `seq`: the id of the last event
    SEQ: Final = "seq"
    BYTES: Final = "bytes"  # of all events that were ever appended; missing in a log from before they were counted
    FRESH: Final = "fresh"  # when the expiries were renewed
    PRODUCERS: Final = "producers"  # the last place in the line of producers (`q:`)
    END: Final = "end"  # the terminal event
    STACK: Final = "stack"  # of the agent's error

    # What it was started with.
    TASK: Final = "task"
    AGENT: Final = "agent"
    PARAMS: Final = "params"  # an object, as JSON; redacted, as are the task and the metadata
    METADATA: Final = "metadata"
    GIVEN: Final = "given"  # task and parameters with their credentials, for the agent, until the end
    REQUEST_ID: Final = "requestId"
    CONVERSATION_ID: Final = "conversationId"
    CREATED_AT: Final = "createdAt"
    BY: Final = "by"  # who requested it
    KEY: Final = "key"  # digest of the Idempotency-Key
    NOT_BEFORE: Final = "notBefore"  # also of a later attempt
    CANCEL_AFTER: Final = "cancelAfter"  # how long it goes on unwatched (ms)
    TRACEPARENT: Final = "traceparent"
    TRACESTATE: Final = "tracestate"

    # What started it, and what it started.
    PARENT: Final = "parent"
    ROOT: Final = "root"  # the execution at the top of its tree, if it is not itself
    DEPTH: Final = "depth"  # how many are above it
    ON_PARENT_END: Final = "onParentEnd"  # `detach`: it goes on
    CHILD_KEY: Final = "childKey"  # the name that its parent gave it
    CHILDREN: Final = "children"  # how many it has started
    DESCENDANTS: Final = "descendants"  # of a root: how many are below it
    USAGE: Final = "usage"  # of an ended child: what it used (JSON), without its own children

    # Who runs it.
    ATTEMPT: Final = "attempt"  # older ones are fenced
    TAKEN: Final = "taken"  # the last attempt that a worker has claimed
    FROM: Final = "from"  # the log's ordinal before that attempt
    OWNER: Final = "owner"  # the worker that has it; empty: none
    LEASE: Final = "lease"  # its end; also that of a process that is no worker
    CLAIMED_AT: Final = "claimedAt"
    MAX_ATTEMPTS: Final = "maxAttempts"
    LOST: Final = "lost"  # how many workers were lost
    LOST_AFTER: Final = "lostAfter"  # how long the last of them had it (ms)
    FAILED: Final = "failed"  # how many attempts failed and were tried again
    HOLD: Final = "hold"  # the lease without a worker, counted from the last event (ms)
    SEEN: Final = "seen"  # until when a publisher over HTTP counts as alive

    # What it may spend, and has spent.
    BUDGET: Final = "budget"  # the limits (JSON of `Budget`)
    SPENT_TOKENS: Final = "spentTokens"
    SPENT_NANOS: Final = "spentNanos"  # the cost, in billionths of a US dollar
    SPENT_CALLS: Final = "spentCalls"
    SPENT_MS: Final = "spentMs"  # under workers, by attempts that have ended

    # What people requested and answered.
    CANCEL: Final = "cancel"  # the request to cancel (JSON of `Cancel`)
    CANCEL_AT: Final = "cancelAt"  # when a cancel was requested from a process that is no worker
    OPEN: Final = "open"  # ids of the open inputs of the attempt, each between blanks
    VOID: Final = "void"  # those of the previous attempt
    ANSWERS: Final = "answers"  # numbers of the oldest and the newest answer that are kept, and the bytes of all
    ACCEPTS: Final = "accepts"  # 1: what runs it takes messages
    MESSAGES: Final = "messages"  # how many there were, their bytes, and the attempt for which `inbox` is
    INBOX: Final = "inbox"  # ids of the messages that this attempt has not taken, each between blanks
    TAKE: Final = "take"  # the last take: its attempt, its name, and the ids of what it took

    SHARED: Final = "shared"  # what its share links name: another execution with this id, later, has another
    HOOKS: Final = "hooks"  # what webhooks wait for (`emitter.wire.webhooks.Wake`)

    # Prefixes of names.
    INPUT: Final = "i:"  # with its id: an open input (JSON)
    ANSWER: Final = "a:"  # with the input's id: its answer (JSON)
    NUMBER: Final = "n:"  # with a number: the input of the answer with this number
    MESSAGE: Final = "m:"  # with its id: a message (the event's id, q or i, and its data)
    UNREDACTED: Final = "g:"  # with its id: its data before redaction, for the agent, until the end
    ORDER: Final = "o:"  # with a number: the id of the message with this number
    TAKEN_BY: Final = "y:"  # with its id: the last attempt that took this message
    DROPPED: Final = "x:"  # with its id: why this message was dropped
    PRODUCER: Final = "p:"  # with its name: the number of the last event that this producer appended
    PLACE: Final = "q:"  # with a number: the producer in this place of the line, and its number then
    WEBHOOK: Final = "w:"  # with its id: a webhook (JSON of `emitter.wire.webhooks.Webhook`)
    DELIVERY: Final = "d:"  # with the id of a webhook: how far it was delivered (JSON of `Delivery`)
    USED: Final = "u:"  # with a producer's name: its highest totals of usage (tokens, billionths of a dollar)
    SAID: Final = "s:"  # with `<limit>.<action>`: the log has this `budget` event
    PART: Final = "b:"  # with 0 to 15: the id of the event with which a part of the log began


FIELDS = frozenset(value for name, value in vars(Field).items() if not name.startswith("_"))
PREFIXES = frozenset(name for name in FIELDS if name.endswith(":"))


class _Typed(msgspec.Struct, frozen=True):
    type: str


_typed = msgspec.json.Decoder(_Typed)


class Cancel(msgspec.Struct, frozen=True):
    """A request to cancel."""

    reason: str | None = None
    by: str | None = None


class ExecutionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that were read of a record. A field that is missing or was not selected has its default. `state` is
    None if there is no such execution; it may be any text, because other programs can write to Redis. Times are in ms
    since the epoch.
    """

    state: State | None = None
    ms: int = 0
    seq: int = 0
    log_bytes: int | None = None
    end: bytes | None = None
    stack: str | None = None
    task: str | None = None
    agent: str = ""
    params: bytes = b"{}"
    metadata: bytes = b"{}"
    given: bytes = b""
    request_id: str = ""
    conversation_id: str = ""
    created_ms: int = 0
    shared: str = ""
    by: str = ""
    key: str = ""
    not_before_ms: int = 0
    cancel_after_ms: int = 0
    traceparent: str = ""
    tracestate: str = ""
    parent: str = ""
    root: str = ""
    depth: int = 0
    on_parent_end: str = ""
    child_key: str = ""
    children: int = 0
    usage: bytes = b""
    attempt: int = 0
    from_seq: int = 0
    owner: str = ""
    lease_ms: int = 0
    claimed_ms: int = 0
    max_attempts: int = MAX_ATTEMPTS
    lost: int = 0
    lost_after_ms: int = 0
    failed: int = 0
    hold_ms: int = 0
    seen_ms: int = 0
    budget: Budget = Budget()
    spent_tokens: int = 0
    spent_nanos: int = 0
    spent_calls: int = 0
    spent_ms: int = 0
    cancel: Cancel | None = None
    cancel_ms: int = 0
    open_inputs: tuple[str, ...] = ()
    accepts: bool = False
    message_counts: tuple[int, int, int] = (0, 0, 0)
    inbox: tuple[str, ...] = ()
    message_bodies: Mapping[str, bytes] = {}
    message_order: Mapping[str, str] = {}
    dropped_messages: Mapping[str, str] = {}
    inputs: Mapping[str, bytes] = {}
    answers: Mapping[str, bytes] = {}
    wake: str = ""
    webhooks: Mapping[str, bytes] = {}
    deliveries: Mapping[str, bytes] = {}
    producers: Mapping[str, int] = {}
    last_producer: int = 0

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> ExecutionRecord:
        """A whole record (HGETALL). Raises `NewerRecord`, and `ValueError` for a field that is no number."""
        columns = [_column(name.decode("utf-8", "replace")) for name in fields]
        return _read(columns, fields.values())

    @property
    def exists(self) -> bool:
        return self.state is not None

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def terminal_event(self) -> Entry | None:
        """The last event of a log that has ended, which may be gone. Without a type if it cannot be read."""
        if self.end is None:
            return None
        try:
            type_ = _typed.decode(self.end).type.encode()
        except (msgspec.MsgspecError, ValueError, RecursionError):
            type_ = b""
        return Entry(self.ms, self.seq, type_, self.end)

    @property
    def spent(self) -> Spent:
        """What attempts that have ended, and publishers, have spent."""
        return spent_of(self.spent_tokens, self.spent_nanos, self.spent_calls, self.spent_ms)

    def spent_until(self, now_ms: int) -> Spent:
        """The same, with the time of the attempt that a worker has, up to then."""
        running_ms = max(0, now_ms - self.claimed_ms) if self.owner and self.claimed_ms else 0
        return spent_of(self.spent_tokens, self.spent_nanos, self.spent_calls, self.spent_ms + running_ms)

    @property
    def last(self) -> EventId:
        """The id of the last event."""
        return EventId(self.ms, self.seq)


class Selection:
    """Some fields of a record: `SELECTION.read(await redis.hmget(key, *SELECTION.names))`."""

    def __init__(self, *names: str) -> None:
        self.names = tuple(dict.fromkeys((Field.FORMAT, *names)))
        self._columns = [_column(name) for name in self.names]

    def read(self, row: Sequence[bytes | None]) -> ExecutionRecord:
        """Raises as `ExecutionRecord.read` does."""
        return _read(self._columns, row)


def open_input(input_id: str) -> str:
    """The field of an open input."""
    return Field.INPUT + input_id


def answer(input_id: str) -> str:
    """The field of an input's answer."""
    return Field.ANSWER + input_id


def message(message_id: str) -> str:
    """The field of a message."""
    return Field.MESSAGE + message_id


def webhook(hook_id: str) -> str:
    """The field of a webhook."""
    return Field.WEBHOOK + hook_id


def delivery(hook_id: str) -> str:
    """The field of what was delivered to a webhook."""
    return Field.DELIVERY + hook_id


def producer(name: str) -> str:
    """The field with a producer's last sequence."""
    return Field.PRODUCER + name


def read_cancel(encoded: bytes) -> Cancel | None:
    """The request to cancel in the record; None: there is none."""
    if not encoded:
        return None
    try:
        return msgspec.json.decode(encoded, type=Cancel)
    except msgspec.MsgspecError:
        return Cancel()  # an unreadable request is still a request


def read_budget(encoded: bytes) -> Budget:
    """The limits in the record. One that cannot be read is no limit."""
    try:
        return msgspec.json.decode(encoded, type=Budget) if encoded else Budget()
    except msgspec.MsgspecError:
        return Budget()


def spent_of(tokens: int, nanos: int, calls: int, ms: int = 0) -> Spent:
    return Spent(total_tokens=tokens, cost_usd=nanos / NANOS, tool_calls=calls, seconds=ms / 1000)


def read_object(encoded: bytes) -> dict[str, Any]:
    """Parameters or metadata. Raises `ValueError` if they are no object."""
    try:
        return msgspec.json.decode(encoded, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def read_format(text: bytes) -> int:
    """The number in front of a point, if there ever is one. Raises `ValueError`."""
    return int(text.partition(b".")[0])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _ids(value: bytes) -> tuple[str, ...]:
    return tuple(_text(value).split())


def _three(value: bytes) -> tuple[int, int, int]:
    number, size, attempt = map(int, value.split())
    return number, size, attempt


def _same(value: bytes) -> bytes:
    return value


class _Column(NamedTuple):
    """The attribute of `ExecutionRecord` for a field, and how it is read; `key`: the key, if it is a mapping."""

    name: str
    read: Callable[[bytes], Any]
    key: str | None = None


# Fields that are not here are read by scripts only.
_COLUMNS = {
    Field.STATE: _Column("state", _text),
    Field.MS: _Column("ms", int),
    Field.SEQ: _Column("seq", int),
    Field.BYTES: _Column("log_bytes", int),
    Field.END: _Column("end", _same),
    Field.STACK: _Column("stack", _text),
    Field.TASK: _Column("task", _text),
    Field.AGENT: _Column("agent", _text),
    Field.PARAMS: _Column("params", _same),
    Field.METADATA: _Column("metadata", _same),
    Field.GIVEN: _Column("given", _same),
    Field.REQUEST_ID: _Column("request_id", _text),
    Field.CONVERSATION_ID: _Column("conversation_id", _text),
    Field.CREATED_AT: _Column("created_ms", int),
    Field.BY: _Column("by", _text),
    Field.KEY: _Column("key", _text),
    Field.SHARED: _Column("shared", _text),
    Field.NOT_BEFORE: _Column("not_before_ms", int),
    Field.CANCEL_AFTER: _Column("cancel_after_ms", int),
    Field.TRACEPARENT: _Column("traceparent", _text),
    Field.TRACESTATE: _Column("tracestate", _text),
    Field.PARENT: _Column("parent", _text),
    Field.ROOT: _Column("root", _text),
    Field.DEPTH: _Column("depth", int),
    Field.ON_PARENT_END: _Column("on_parent_end", _text),
    Field.CHILD_KEY: _Column("child_key", _text),
    Field.CHILDREN: _Column("children", int),
    Field.USAGE: _Column("usage", _same),
    Field.ATTEMPT: _Column("attempt", int),
    Field.FROM: _Column("from_seq", int),
    Field.OWNER: _Column("owner", _text),
    Field.LEASE: _Column("lease_ms", int),
    Field.CLAIMED_AT: _Column("claimed_ms", int),
    Field.MAX_ATTEMPTS: _Column("max_attempts", int),
    Field.LOST: _Column("lost", int),
    Field.LOST_AFTER: _Column("lost_after_ms", int),
    Field.FAILED: _Column("failed", int),
    Field.HOLD: _Column("hold_ms", int),
    Field.SEEN: _Column("seen_ms", int),
    Field.BUDGET: _Column("budget", read_budget),
    Field.SPENT_TOKENS: _Column("spent_tokens", int),
    Field.SPENT_NANOS: _Column("spent_nanos", int),
    Field.SPENT_CALLS: _Column("spent_calls", int),
    Field.SPENT_MS: _Column("spent_ms", int),
    Field.CANCEL: _Column("cancel", read_cancel),
    Field.CANCEL_AT: _Column("cancel_ms", int),
    Field.OPEN: _Column("open_inputs", _ids),
    Field.MESSAGES: _Column("message_counts", _three),
    Field.INBOX: _Column("inbox", _ids),
    Field.ACCEPTS: _Column("accepts", lambda value: value == b"1"),
    Field.HOOKS: _Column("wake", _text),
    Field.PRODUCERS: _Column("last_producer", int),
}
_MAPS = {
    Field.INPUT: _Column("inputs", _same),
    Field.ANSWER: _Column("answers", _same),
    Field.MESSAGE: _Column("message_bodies", _same),
    Field.ORDER: _Column("message_order", _text),
    Field.DROPPED: _Column("dropped_messages", _text),
    Field.PRODUCER: _Column("producers", int),
    Field.WEBHOOK: _Column("webhooks", _same),
    Field.DELIVERY: _Column("deliveries", _same),
}
_KEPT_EMPTY = frozenset(_COLUMNS[name].name for name in (Field.STATE, Field.TASK, Field.STACK, Field.END))
"""An empty value of any other field counts as missing."""
_FORMAT_COLUMN = _Column(Field.FORMAT, read_format)
_UNREAD = _Column("", _same)
_OWN_FORMAT = b"%d" % FORMAT


def _column(name: str) -> _Column:
    if name == Field.FORMAT:
        return _FORMAT_COLUMN
    if (within := _MAPS.get(name[:2])) is not None:
        return within._replace(key=name[2:])
    return _COLUMNS.get(name, _UNREAD)


def _read(columns: Sequence[_Column], row: Iterable[bytes | None]) -> ExecutionRecord:
    values: dict[str, Any] = {}
    for column, value in zip(columns, row, strict=True):
        if value is None or column is _UNREAD:
            continue
        name, read, key = column
        if column is _FORMAT_COLUMN:
            if value != _OWN_FORMAT and (found := read(value)) > FORMAT:
                raise NewerRecord(found, FORMAT)
        elif key is not None:
            values.setdefault(name, {})[key] = read(value)
        elif value or name in _KEPT_EMPTY:
            values[name] = read(value)
    return ExecutionRecord(**values)
