"""Events as JSON: the envelope and the data, encoded and decoded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from emitter.budgets import CALL_MARK, usage_mark
from emitter.errors import InvalidEvent, PayloadTooLarge
from emitter.events import (
    BY_TYPE,
    DELTAS,
    TERMINAL_STATE_OF,
    BudgetNotice,
    Custom,
    Event,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    ModelCall,
    ToolProgress,
    ToolStart,
    UsageTotals,
    UserMessage,
    UserMessageDropped,
    UserMessageTaken,
)
from emitter.values import MAX_DEPTH, check_depth, is_heavier
from emitter.wire.ascii_json import ascii_json
from emitter.wire.ids import INPUT_ID
from emitter.wire.limits import BLOCK_BYTES, MAX_ATTEMPT, MAX_EVENT_BYTES, MAX_WAITING_MESSAGES

CUSTOM_TYPE = re.compile(r"custom:[a-z0-9_.-]{1,64}\Z")
CUSTOM_NAME_MAX = 64
LISTED_MESSAGES = 1_000
NO_NAME = "-"
"""The name of a take of messages that nobody repeats."""
NOT_IN_CUSTOM_NAME = re.compile(r"[^a-z0-9_.-]")


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The JSON around every event's data. `ts` is the emitter's clock in milliseconds."""

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


def event_type(event: Event) -> str:
    """The type on the wire, with a custom event's name."""
    if not isinstance(event, Custom):
        return event.type
    # Not formatted: a member of an enumeration that is a text has another form then.
    return "custom:" + event.name if isinstance(event.name, str) else "custom"


def encode_value(value: Any, *, is_sorted: bool = False) -> bytes:
    """Any value as JSON. Raises what the encoder raises."""
    return (_sorted_encoder if is_sorted else _encoder).encode(value)


def encode_data(event: Event, max_bytes: int = 0) -> bytes:
    """An event's data as ASCII JSON on one line, proven to decode again, and to be what values may be
    (`emitter.values`). `InvalidEvent`, with the path of the field, if it has no such form; `PayloadTooLarge` for one
    that is surely over `max_bytes` (0: no limit), which is not encoded at all."""
    if getattr(event, "type", "") in _FREE_FIELDS:
        _check_weight(event, max_bytes)
    decoder: msgspec.json.Decoder[Any] | None = _decoders.get(event.type) if isinstance(event, Event) else None
    try:
        data = _encode_custom(event) if decoder is None else _encoder.encode(event)
        if len(data) > 2 * MAX_DEPTH:  # each level has two brackets
            check_depth(data)
        (decoder or _objects).decode(data)  # finds a wrong type before it is stored
        if b"null" in data:
            _refuse_nan(event)
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidEvent(f"{event_type(event)}: {error}") from error
    return data if data.isascii() else ascii_json(data)


def _check_weight(event: Event, max_bytes: int) -> None:
    """Refuse a value that would take the encoder too long: it may contain another one many times, or itself."""
    free = _FREE_FIELDS[event.type]
    if not is_heavier(getattr(event, free), max_bytes or HEAVY_BYTES):
        return
    if max_bytes:
        raise PayloadTooLarge(max_bytes + 1, max_bytes)
    raise InvalidEvent(f"{event_type(event)}: too many values - at `$.{free}`")


def _encode_custom(event: Event) -> bytes:
    """The data of a custom event as JSON; `InvalidEvent` for one that is none."""
    if not isinstance(event, Custom):
        raise InvalidEvent(f"{type(event).__name__} is not an event of the catalogue; `custom` takes what is not")
    if not CUSTOM_TYPE.match("custom:" + event.name):
        raise InvalidEvent(f"custom event name {event.name[:80]!r} is not 1 to 64 of a-z 0-9 _ . -")
    return _encoder.encode(event.data)


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
        decoder = _decoders.get(type_)
        if decoder is not None:
            return decoder.decode(data)
        if CUSTOM_TYPE.match(type_):
            return Custom(name=type_[7:], data=_objects.decode(data))
        raise InvalidEvent(f"type: {type_[:80]!r} is not in the catalogue")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"{type_}: {error}") from error


def decode_head(encoded: bytes) -> Envelope:
    """The envelope of a stored event. `InvalidEvent` if it is not one."""
    try:
        return _envelopes.decode(encoded)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(str(error)) from error


def decode_envelope(encoded: bytes) -> tuple[Envelope, Event]:
    """A stored event: its envelope and its typed data. `InvalidEvent` if it is not one."""
    head = decode_head(encoded)
    return head, decode_event(head.type, head.data)


def in_feed(type_: str) -> bool:
    """Whether events of this type also go to the owner's feed: all but the many small ones."""
    return type_ not in DELTAS and type_ != ToolProgress.type


_MARKS = {name: "f" if in_feed(name) else "" for name in BY_TYPE} | {
    name: "s:" + state for name, state in TERMINAL_STATE_OF.items()
}
_MARKS |= {ExecutionQueued.type: "s:queued", ExecutionStarted.type: "s:running", Custom.type: "f"}
_MARKS[ToolStart.type] = CALL_MARK
_MEANT = frozenset(event.type for event in (ExecutionSuperseded, InputRequired, InputReceived))
"""Types whose marks depend on the event, and may change the state."""
_OF_MESSAGES = (UserMessage, UserMessageTaken, UserMessageDropped)
"""Their marks depend on the event too, but change no state."""
_STATELESS = frozenset(name.encode() for name, mark in _MARKS.items() if mark[:2] != "s:" and name not in _MEANT)
_COUNTED = frozenset({UsageTotals.type, BudgetNotice.type})
"""Nor do theirs."""


def may_change_state(type_: bytes) -> bool:
    """Whether the append script may change the execution's state for an event of this type. A type that is not in the
    catalogue may be one of a later version, for which it does."""
    return type_ not in _STATELESS and not type_.startswith(b"custom:")


def append_mark(event: Event, data: bytes, answer: str | None = None) -> str:
    """What the append script must do besides storing: `` (log only), `f` (feed too), `s:<state>`, `t:<attempt>` (that
    attempt takes over, and waits for a worker), `w:<inputId> <spec>` (an input opens; the spec is its data),
    `r:<inputId> <answer>` (its first answer closes it; `answer` is JSON text for the waiting agent, `data` if there is
    none). To the feed go also: `c` (a call of a tool is counted), `u:<tokens> <billionths of a dollar>` (totals of
    usage are counted), `b:<limit>.<action>` (stored once). The marks of people's messages: `message_mark`.
    """
    if isinstance(event, _OF_MESSAGES):
        return message_mark(event, data)
    if event.type not in _MEANT:
        return _counted_mark(event) if event.type in _COUNTED else _MARKS[event.type]
    if isinstance(event, ExecutionSuperseded):
        if not 1 <= event.attempt <= MAX_ATTEMPT:
            raise InvalidEvent(f"attempt: {event.attempt} is not from 1 to {MAX_ATTEMPT}")
        return f"t:{event.attempt}"
    assert isinstance(event, InputRequired | InputReceived)
    if not INPUT_ID.match(event.input_id):
        raise InvalidEvent(f"inputId: {event.input_id[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ . -")
    if isinstance(event, InputRequired):
        return f"w:{event.input_id} {data.decode()}"
    return f"r:{event.input_id} {data.decode() if answer is None else answer}"


def message_mark(event: Event, data: bytes, most: int = MAX_WAITING_MESSAGES, take: str = NO_NAME) -> str:
    """The append script's mark of an event about a person's message: `m:<messageId> <most that may wait> <i|q> <data>`
    keeps it (i: it interrupts), `y:<attempt> <take> <messageId> …` says which of them an attempt takes, in a take of
    this name, and `x:<messageId> <reason>` drops it. Raises `InvalidEvent`."""
    match event:
        case UserMessage():
            kind = "i" if event.mode == "interrupt" else "q"
            return f"m:{check_message_id(event.message_id)} {most} {kind} {data.decode()}"
        case UserMessageTaken():
            if not 1 <= event.attempt <= MAX_ATTEMPT:
                raise InvalidEvent(f"attempt: {event.attempt} is not from 1 to {MAX_ATTEMPT}")
            return f"y:{event.attempt} {take} {_listed(event.message_ids)}"
        case UserMessageDropped():
            return f"x:{check_message_id(event.message_id)} {event.reason}"
    raise InvalidEvent(f"{event.type} is not about a message")


def _listed(message_ids: Sequence[str]) -> str:
    if not 1 <= len(message_ids) <= LISTED_MESSAGES:
        raise InvalidEvent(f"messageIds: {len(message_ids)} are not 1 to {LISTED_MESSAGES}")
    return " ".join(map(check_message_id, message_ids))


def check_message_id(message_id: str) -> str:
    if not INPUT_ID.match(message_id):
        raise InvalidEvent(f"messageId: {message_id[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ . -")
    return message_id


def _counted_mark(event: Event) -> str:
    if isinstance(event, UsageTotals):
        return usage_mark(event.total_tokens, event.cost_usd)
    assert isinstance(event, BudgetNotice)
    return f"b:{event.limit}.{event.action}"
