"""The contract on the wire: keys, ids, envelopes and pub/sub messages. The only place that spells a Redis key.

A log entry is a Redis Stream entry `<ms>-<seq>` with one field, whose name is the event's type and whose value is the
event's JSON. A pub/sub message carries a batch of the same entries as lines `<id> <type> <json>\\n`. The JSON is ASCII,
on one line, and goes from the emitter to the viewer's socket without being decoded again.
"""

from __future__ import annotations

import json
import os
import re
import time
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

import msgspec

from emitter.errors import InvalidEvent, PayloadTooLarge
from emitter.events import (
    BY_TYPE,
    DELTAS,
    TERMINAL_STATE_OF,
    Custom,
    Event,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    ModelCall,
    ToolProgress,
)
from emitter.values import check_depth, is_heavier

MAX_EVENT_BYTES = 64 * 1024
"""Of an event's block in a stream, what stands around its JSON included: so much Go's `bufio.Scanner` takes by default,
and who is sent more comes back for it again and again."""
BLOCK_BYTES = 52
"""What a block has besides its type and its JSON, with the longest of ids (`<15 digits>-<15 digits>`)."""
LOG_MAXLEN = 10_000
FEED_MAXLEN = 2_000
LOG_TTL_SECONDS = 7 * 86_400
LOG_FINISHED_TTL_SECONDS = 86_400
TOMBSTONE_TTL_SECONDS = 7 * 86_400
LOG_MAX_BYTES = 64 * 1024 * 1024
MAX_OPEN_INPUTS = 100
MAX_PARAMS_BYTES = 64 * 1024
MAX_QUEUED_PER_USER = 5_000
MAX_CONVERSATION_BYTES = 256 * 1024
UNHELD_LEASE_SECONDS = 60
MAX_ATTEMPT = 2**31 - 1

EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
# Subjects of real identity providers look like `auth0|abc`, `alice@example.com`, `a+b=c`; what could break a key, a
# glob pattern or a hash tag (braces, colons, stars, brackets, blanks, control characters) is not in it.
OWNER_ID = re.compile(r"[A-Za-z0-9_.@|+=~-]{1,128}\Z")
INPUT_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
CUSTOM_TYPE = re.compile(r"custom:[a-z0-9_.-]{1,64}\Z")
CUSTOM_NAME_MAX = 64
NOT_IN_CUSTOM_NAME = re.compile(r"[^a-z0-9_.-]")
EVENT_ID = re.compile(r"(\d{1,15})-(\d{1,15})\Z", re.ASCII)


# --- ids -------------------------------------------------------------------------------------------------------------


class EventId(NamedTuple):
    """A place in one log: Redis time at append in milliseconds, and the event's ordinal, dense from 1."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


START = EventId(0, 0)
"""The cursor before the first event."""


def parse_event_id(text: str) -> EventId:
    """`<ms>-<seq>` as an `EventId`; `ValueError` for anything else."""
    match = EVENT_ID.match(text)
    if match is None:
        raise ValueError(f"not an event id: {text[:64]!r}")
    return EventId(int(match[1]), int(match[2]))


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_execution_id() -> str:
    """`ex_` and a ULID (48 bits of time, 80 random ones; lower case Crockford base 32), which sorts by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "ex_" + "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- keys ------------------------------------------------------------------------------------------------------------

PREFIX = os.environ.get("RUNCAST_REDIS_PREFIX", "").strip() or "rc"
"""What every key and channel of this deployment begins with. Fixed when the process starts: keys are made in too many
places, and too often, for each to be handed it. `emitter.connection.connect` refuses one that is not `PREFIX_FORM`."""
RECORD_MODEL_CONTENTS = os.environ.get("RUNCAST_RECORD_MODEL_CONTENTS", "").strip() == "1"
"""Whether `model:call` is stored with what the model was asked and what it answered. Fixed when the process starts."""
PREFIX_FORM = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
PREFIX_ALLOWED = "1 to 32 of A-Z a-z 0-9 _ -"


def channel_suffix(database: int) -> str:
    """What follows a key in the name of its pub/sub channel. A server's databases share one set of channels, so in any
    but database 0 a channel names its database: `rc:{org:user}:feed@1`."""
    return f"@{database}" if database else ""


class ExecutionKeys(NamedTuple):
    """The keys of one execution. `log` and `control` also name pub/sub channels (with `channel_suffix`)."""

    record: str
    log: str
    control: str


class Owner(msgspec.Struct, frozen=True):
    """Whose an execution is. All keys of one owner share a hash tag, so every script touches one slot."""

    user: str
    org: str = "default"

    def __post_init__(self) -> None:
        for name, value in (("user", self.user), ("org", self.org)):
            if not (isinstance(value, str) and OWNER_ID.match(value)):
                raise InvalidEvent(f"{name}: {str(value)[:64]!r} is not 1 to 128 of A-Z a-z 0-9 _ . @ | + = ~ -")

    @property
    def prefix(self) -> str:
        return f"{PREFIX}:{{{self.org}:{self.user}}}:"

    @property
    def feed(self) -> str:
        """Stream and channel of everything this owner's executions do, with ids of its own."""
        return self.prefix + "feed"

    @property
    def feed_seq(self) -> str:
        """Counter: the feed's last ordinal."""
        return self.prefix + "feed:seq"

    @property
    def index(self) -> str:
        """Sorted set of execution ids by creation time (ms)."""
        return self.prefix + "index"

    def conversation(self, conversation_id: str) -> str:
        """Sorted set of the executions of one conversation by creation time (ms): the newest 1,000."""
        if not EXECUTION_ID.match(conversation_id):
            raise InvalidEvent(f"conversationId: {conversation_id[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
        return self.prefix + "conversation:" + conversation_id

    def idempotency(self, digest: str) -> str:
        return self.prefix + "idem:" + digest

    def rate(self, what: str) -> str:
        return self.prefix + "rate:" + what

    @property
    def connections(self) -> str:
        """Hash: edge id → `<count> <expires ms>`, this owner's open streams on each edge."""
        return self.prefix + "connections"

    def execution(self, execution_id: str) -> ExecutionKeys:
        record = self.prefix + "x:" + check_execution_id(execution_id)
        return ExecutionKeys(record, record + ":log", record + ":control")


def check_execution_id(execution_id: str) -> str:
    if not (isinstance(execution_id, str) and EXECUTION_ID.match(execution_id)):
        raise InvalidEvent(f"executionId: {str(execution_id)[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    return execution_id


# What belongs to nobody in particular: the workers' queue shares one slot, so that one read can wait on every agent.
JOBS = PREFIX + ":{jobs}:"
WORKERS = JOBS + "workers"
"""Sorted set: worker id by the time (ms) its announcement ends."""
WORKER_INFO = JOBS + "worker-info"
"""Hash: worker id → JSON of its announcement."""
AGENTS_KNOWN = JOBS + "agents"
"""Sorted set: names of agents by the time (ms) a worker last announced them."""
DUE = JOBS + "due"
"""Sorted set: `member` of every execution under the workers' care by the time (ms) to look at it next: when its lease
ends, when it is to start, or when its job should long have been taken."""
QUEUED = JOBS + "queued"
"""Hash: `member` of an execution that waits for a worker → the id of its job in the agent's stream."""
REAPER = JOBS + "reaper"
"""String: the worker that looks after what is due; it expires with the worker."""
ABANDONED = JOBS + "abandoned"
"""Sorted set: `member` of an execution that is cancelled when its viewers leave by the time (ms) at which it will be
unless somebody watches."""
ABANDONED_ASKED = JOBS + "abandoned:asked"
"""Hash: when it was last asked what is abandoned (`at`, ms), and since when again and again (`since`)."""
EXPIRIES = JOBS + "expiries"
"""Sorted set: `member` of an execution, a blank and the id of a question by the time (ms) at which that expires."""
SCHEDULES = JOBS + "schedules"
"""Hash: name of a schedule → how far it has come (JSON of `emitter.scheduler.Mark`)."""
JOBS_GROUP = "workers"
EDGES = PREFIX + ":edges"
"""Sorted set: edge id by the time (ms) its announcement ends."""
DATASET = PREFIX + ":dataset"
"""Hash: `mark` is a random name of the data in this Redis. Another one, or none, means that the data was lost."""
DATASET_LOST = PREFIX + ":dataset-lost"
"""String: when (ms) an edge last noticed that; kept for a day."""
REVOCATIONS = PREFIX + ":revocations"
"""Sorted set and channel: `jti:<id>` or `user:<org>:<user>` by a score (`broker.revocations`)."""
REVOCATIONS_TAKEN_BACK = PREFIX + ":revocations:taken-back"
"""Sorted set: the same members by the time (ms) at which their revocation was taken back."""


def jobs_key(agent: str) -> str:
    """Stream of the jobs waiting for one agent; its consumer group is `JOBS_GROUP`."""
    return JOBS + "q:" + agent


def member(owner: Owner, execution_id: str) -> str:
    """An execution's name where executions of all owners stand together."""
    return f"{owner.org}:{owner.user}:{execution_id}"


def parse_member(name: str) -> tuple[Owner, str]:
    """Owner and execution id of a `member`. Raises `InvalidEvent`."""
    parts = name.split(":")
    if len(parts) != 3:
        raise InvalidEvent(f"{name[:300]!r} is not <org>:<user>:<execution>")
    return Owner(parts[1], parts[0]), check_execution_id(parts[2])


def waiting_key(name: str) -> str:
    """Sorted set: executions of one owner (that of this `member`) which no worker has taken yet, by the time (ms) at
    which they were accepted."""
    return JOBS + "waiting:" + name.rpartition(":")[0]


def viewers_key(name: str) -> str:
    """Sorted set: edges with viewers of an execution (by its `member`) by the time (ms) their word on it ends."""
    return JOBS + "viewers:" + name


def ticket_key(digest: str) -> str:
    """What a stream ticket stands for (JSON)."""
    return PREFIX + ":ticket:" + digest


def ticket_holder_key(digest: str) -> str:
    """Which edge has a ticket's stream, of which use: `<edge> <use>`."""
    return PREFIX + ":ticket-holder:" + digest


def ticket_uses_key(digest: str) -> str:
    """How often a ticket was used: which of two uses is the newer one."""
    return PREFIX + ":ticket-uses:" + digest


def edge_info_key(edge_id: str) -> str:
    """What an edge announces of itself (JSON); it expires when the edge no longer renews it."""
    return PREFIX + ":edge-info:" + edge_id


def edge_channel(edge_id: str) -> str:
    """The channel on which an edge hears its own heartbeat (readiness)."""
    return PREFIX + ":edge:" + edge_id


# --- events ----------------------------------------------------------------------------------------------------------


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What stands around every event's data on the wire. `ts` is the emitter's clock in milliseconds."""

    type: str
    execution_id: str
    ts: int
    traceparent: str | None = None
    request_id: str | None = None
    agent: str | None = None
    parent_id: str | None = None
    data: msgspec.Raw


def base_value(value: Any) -> Any:
    """A value of a subclass of `str`, `int` or `float` as what it is. `TypeError` for any other that the encoder does
    not know."""
    for kind in (str, int, float):
        if isinstance(value, kind) and value is not None and not isinstance(value, bool):
            return kind.__str__(value) if kind is str else getattr(kind, f"__{kind.__name__}__")(value)
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=base_value)
_sorted_encoder = msgspec.json.Encoder(enc_hook=base_value, order="sorted")
_EVENTS: tuple[type[Event], ...] = (*BY_TYPE.values(), Custom)
_FREE_FIELDS = {
    cls.type: name
    for cls in _EVENTS
    for name in ("params", "result", "data", "value", "schema", "prompt")
    if name != "prompt" or cls is ModelCall
    if name in cls.__struct_fields__
}
"""Event type → the field that holds any value."""
HEAVY_BYTES = 64 * 1024 * 1024
"""No event is larger, even where no limit is set."""
_envelopes = msgspec.json.Decoder(Envelope)
_decoders: dict[str, msgspec.json.Decoder[Event]] = {name: msgspec.json.Decoder(cls) for name, cls in BY_TYPE.items()}
_objects: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")


def event_type(event: Event) -> str:
    """The type on the wire, with a custom event's name."""
    if not isinstance(event, Custom):
        return event.type
    # Not formatted: a member of an enumeration that is a text has another form then.
    return "custom:" + event.name if isinstance(event.name, str) else "custom"


def ascii_json(encoded: bytes) -> bytes:
    """The same JSON with every non-ASCII character escaped: no client's line splitter ever meets U+2028 and its kin."""
    if encoded.isascii():
        return encoded
    return _NON_ASCII.sub(lambda m: encode_basestring_ascii(m[0])[1:-1], encoded.decode()).encode("ascii")


def encode_value(value: Any, *, is_sorted: bool = False) -> bytes:
    """Any value as JSON. Raises what the encoder raises."""
    return (_sorted_encoder if is_sorted else _encoder).encode(value)


def encode_data(event: Event, max_bytes: int = 0) -> bytes:
    """An event's data as ASCII JSON on one line, proven to decode again, and to be what values may be
    (`emitter.values`). `InvalidEvent`, with the path of the field, if it has no such form; `PayloadTooLarge` for one
    that is surely over `max_bytes` (0: no limit), which is not encoded at all."""
    if getattr(event, "type", "") in _FREE_FIELDS:
        _check_weight(event, max_bytes)
    try:
        data, decoder = _encode(event)
        check_depth(data)
        decoder.decode(data)  # catches a wrong type before it is in a log for ever
        if b"null" in data:
            _refuse_nan(event)
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidEvent(f"{event_type(event)}: {error}") from error
    return ascii_json(data)


def _check_weight(event: Event, max_bytes: int) -> None:
    """Refuse what would take the encoder too long, or for ever: a value may hold another one many times."""
    free = _FREE_FIELDS[event.type]
    if not is_heavier(getattr(event, free), max_bytes or HEAVY_BYTES):
        return
    if max_bytes:
        raise PayloadTooLarge(max_bytes + 1, max_bytes)
    raise InvalidEvent(f"{event_type(event)}: too many values - at `$.{free}`")


def _encode(event: Event) -> tuple[bytes, msgspec.json.Decoder[Any]]:
    """The event's data as JSON, and what reads it."""
    if isinstance(event, Custom):
        if not CUSTOM_TYPE.match("custom:" + event.name):
            raise InvalidEvent(f"custom event name {event.name[:80]!r} is not 1 to 64 of a-z 0-9 _ . -")
        return _encoder.encode(event.data), _objects
    decoder = _decoders.get(event.type) if isinstance(event, Event) else None
    if decoder is None:
        raise InvalidEvent(f"{type(event).__name__} is not an event of the catalogue; `custom` takes what is not")
    return _encoder.encode(event), decoder


def _refuse_nan(event: Event) -> None:
    """`ValueError` for NaN and infinity, which the encoder turns into null without a word."""
    json.dumps(msgspec.to_builtins(event, str_keys=True, enc_hook=base_value), allow_nan=False)


def envelope_keys(
    request_id: str | None = None,
    agent: str | None = None,
    parent_id: str | None = None,
    traceparent: str | None = None,
) -> bytes:
    """The optional keys of an envelope as a piece of JSON, `,"agent":"…"`; the same for every event of an emitter.
    `traceparent` is a valid one, and comes first: `read_traced` looks for it there. `InvalidEvent` for what is not
    text."""
    piece = b"" if traceparent is None else b',"traceparent":"%b"' % traceparent.encode()
    for name, value in (("requestId", request_id), ("agent", agent), ("parentId", parent_id)):
        if value is None:
            continue
        if not isinstance(value, str):
            raise InvalidEvent(f"{name}: {str(value)[:64]!r} is not text")
        try:
            piece += b',"%b":%b' % (name.encode(), ascii_json(_encoder.encode(value)))
        except ValueError as error:
            raise InvalidEvent(f"{name}: {error}") from error
    return piece


def envelope(
    type_: str, execution_id: str, data: bytes, *, ts: int, keys: bytes = b"", max_bytes: int = MAX_EVENT_BYTES
) -> bytes:
    """The event's JSON as it is stored: an `Envelope` around data of `encode_data`, with `keys` of `envelope_keys`.
    `type_` and `execution_id` are valid. `PayloadTooLarge` where its block in a stream is over `max_bytes` (0: no
    limit)."""
    # Joined, not encoded: nothing here needs escaping, and it is a third of the time.
    encoded = b'{"type":"%b","executionId":"%b","ts":%d%b,"data":%b}' % (
        type_.encode(),
        execution_id.encode(),
        ts,
        keys,
        data,
    )
    if max_bytes and len(encoded) > max_bytes - BLOCK_BYTES - len(type_):
        raise PayloadTooLarge(len(encoded) + BLOCK_BYTES + len(type_), max_bytes)
    return encoded


def room(type_: str, execution_id: str, *, ts: int, keys: bytes, max_bytes: int) -> int:
    """Bytes of data that an event may have."""
    around = envelope(type_, execution_id, b"", ts=ts, keys=keys, max_bytes=0)
    return max_bytes - BLOCK_BYTES - len(type_) - len(around)


_TRACED = re.compile(
    rb'\{"type":"[^"\\]+","executionId":"([^"\\]+)","ts":\d+,"traceparent":"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})"'
)


def read_traced(encoded: bytes) -> tuple[str, str] | None:
    """The execution and the `traceparent` of a stored event, without decoding it; None if it has no `traceparent`."""
    match = _TRACED.match(encoded)
    return None if match is None else (match[1].decode(), match[2].decode())


def decode_event(type_: str, data: bytes | msgspec.Raw) -> Event:
    """An event's data by its type. `InvalidEvent` with the path of the field that does not fit."""
    try:
        if CUSTOM_TYPE.match(type_):
            return Custom(name=type_[7:], data=_objects.decode(data))
        decoder = _decoders.get(type_)
        if decoder is None:
            raise InvalidEvent(f"type: {type_[:80]!r} is not in the catalogue")
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"{type_}: {error}") from error


def decode_envelope(encoded: bytes) -> tuple[Envelope, Event]:
    """A stored event: its envelope and its typed data. `InvalidEvent` if it is not one."""
    try:
        head = _envelopes.decode(encoded)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(str(error)) from error
    return head, decode_event(head.type, head.data)


def in_feed(type_: str) -> bool:
    """Whether events of this type also go to the owner's feed: all but the many small ones."""
    return type_ not in DELTAS and type_ != ToolProgress.type


_MARKS = {name: "f" if in_feed(name) else "" for name in BY_TYPE} | {
    name: "s:" + state for name, state in TERMINAL_STATE_OF.items()
}
_MARKS |= {ExecutionQueued.type: "s:queued", ExecutionStarted.type: "s:running", Custom.type: "f"}
_STATELESS = frozenset(name.encode() for name, mark in _MARKS.items() if mark in ("", "f")) - {
    event.type.encode() for event in (ExecutionSuperseded, InputRequired, InputReceived)
}


def may_change_state(type_: bytes) -> bool:
    """Whether the append script may change the execution's state for an event of this type. A type that is not in the
    catalogue may be one of a later version, for which it does."""
    return type_ not in _STATELESS and not type_.startswith(b"custom:")


def append_mark(event: Event, data: bytes, answer: str | None = None) -> str:
    """What the append script must do besides storing: `` (log only), `f` (feed too), `s:<state>`, `t:<attempt>` (that
    attempt takes over, and waits for a worker), `w:<inputId> <spec>` (an input opens; the spec is its data),
    `r:<inputId> <answer>` (its first answer closes it; `answer` is JSON text for the waiting agent, `data` if there is
    none).
    """
    if isinstance(event, ExecutionSuperseded):
        if not 1 <= event.attempt <= MAX_ATTEMPT:
            raise InvalidEvent(f"attempt: {event.attempt} is not from 1 to {MAX_ATTEMPT}")
        return f"t:{event.attempt}"
    if not isinstance(event, InputRequired | InputReceived):
        return _MARKS[event.type]
    if not INPUT_ID.match(event.input_id):
        raise InvalidEvent(f"inputId: {event.input_id[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ . -")
    if isinstance(event, InputRequired):
        return f"w:{event.input_id} {data.decode()}"
    return f"r:{event.input_id} {data.decode() if answer is None else answer}"


# --- entries ---------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One event of a log as an edge carries it: never decoded on the native path."""

    ms: int
    seq: int
    type: bytes
    json: bytes

    @property
    def id(self) -> EventId:
        return EventId(self.ms, self.seq)


def parse_message(message: bytes) -> list[Entry]:
    """The entries of one pub/sub message."""
    entries = []
    for line in message.split(b"\n"):
        if line:
            id_, type_, json = line.split(b" ", 2)
            ms, seq = id_.split(b"-")
            entries.append(Entry(int(ms), int(seq), type_, json))
    return entries


def parse_stream(rows: list[tuple[bytes, dict[bytes, bytes] | list[bytes]]]) -> list[Entry]:
    """The entries of an XRANGE reply, its fields as a flat list or as a dict."""
    entries = []
    for id_, fields in rows:
        type_, json = next(iter(fields.items())) if isinstance(fields, dict) else fields[:2]
        ms, seq = id_.split(b"-")
        entries.append(Entry(int(ms), int(seq), type_, json))
    return entries
