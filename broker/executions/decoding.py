"""Log entries as events, for everything that shows more of them than their bytes. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import msgspec

from emitter import events
from emitter.errors import InvalidEvent
from emitter.wire import envelope
from emitter.wire.entries import Entry
from emitter.wire.envelope import Envelope

MAX_DEPTH = 132
"""How deep an event may be nested, its envelope included. What is deeper is shown as `{"clipped": true}`: encoders give
up below 1,000, the earlier the deeper their caller stands. New events are refused before that; old logs have some."""
QUICK_LEVELS = 4
"""As deep as most values are: so many levels are looked at in a way that is quick for wide values."""

_CLIPPED = b'{"clipped":true}'
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_TOKEN = re.compile(_STRING.pattern + rb"|[\[{\]}]")
_STEPS = [1 if byte in b"[{" else -1 for byte in range(256)]
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class _ToolStart(events.ToolStart, frozen=True, kw_only=True):
    params: msgspec.Raw


class _ToolComplete(events.ToolComplete, frozen=True, kw_only=True):
    result: msgspec.Raw


class _ModelCall(events.ModelCall, frozen=True, kw_only=True):
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    answer: msgspec.Raw = msgspec.Raw(b"null")


_tool_starts = msgspec.json.Decoder(_ToolStart)
_tool_completes = msgspec.json.Decoder(_ToolComplete)
_model_calls = msgspec.json.Decoder(_ModelCall)


def decode_entry(entry: Entry) -> tuple[Envelope, events.Event]:
    """The envelope and the event of an entry. Raises `InvalidEvent` for an unknown event (of a newer version)."""
    return envelope.decode_envelope(_within_depth(entry.json))


def decode_shown(entry: Entry) -> tuple[Envelope, events.Event]:
    """As `decode_entry`, for who only passes values on: what tools and models are given and give, and the data of
    custom events, is a `msgspec.Raw` unless it is text or null. To make objects of a value and JSON of them takes
    twenty times as long as to copy it."""
    json = _within_depth(entry.json)
    head = envelope.decode_head(json)
    decode = _SHOWN.get(head.type)
    if decode is None and head.type.startswith("custom:") and envelope.CUSTOM_TYPE.match(head.type):
        decode = _custom
    # What an emitter has not written may be no text, or have lines of its own: decoding finds out.
    if decode is None or not json.isascii() or b"\n" in json or b"\r" in json:
        return head, envelope.decode_event(head.type, head.data)
    try:
        return head, decode(head)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"{head.type}: {error}") from error


def _tool_start(head: Envelope) -> events.Event:
    given = _tool_starts.decode(head.data)
    return events.ToolStart(call_id=given.call_id, tool_name=given.tool_name, params=_shown(given.params))


def _tool_complete(head: Envelope) -> events.Event:
    given = _tool_completes.decode(head.data)
    return events.ToolComplete(
        call_id=given.call_id, tool_name=given.tool_name, result=_shown(given.result), duration=given.duration
    )


def _model_call(head: Envelope) -> events.Event:
    given = _model_calls.decode(head.data)
    fields = msgspec.structs.asdict(given)
    return events.ModelCall(**{**fields, "prompt": _shown(given.prompt), "answer": _shown(given.answer)})


def _custom(head: Envelope) -> events.Event:
    if memoryview(head.data)[:1].tobytes() != b"{":
        return envelope.decode_event(head.type, head.data)  # it says what is wrong
    return events.Custom(name=head.type[7:], data=head.data)  # type: ignore[arg-type]  # as the caller wants it


_SHOWN: dict[str, Callable[[Envelope], events.Event]] = {
    events.ToolStart.type: _tool_start,
    events.ToolComplete.type: _tool_complete,
    events.ModelCall.type: _model_call,
}


def _shown(value: msgspec.Raw) -> Any:
    return msgspec.json.decode(value) if memoryview(value)[:1].tobytes() in (b'"', b"n") else value


def _within_depth(json: bytes) -> bytes:
    is_large = len(json) > 2 * MAX_DEPTH
    if is_large and json.count(b"[") + json.count(b"{") > MAX_DEPTH and _is_deep(json):
        return _flat(json)
    return json


def _is_deep(json: bytes) -> bool:
    brackets = json.translate(None, _ALL_BUT_BRACKETS)
    for _ in range(QUICK_LEVELS):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if not brackets:  # texts have none, or in pairs: then the depth is not underrated
        return False
    brackets = _STRING.sub(b"", json).translate(None, _ALL_BUT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH


def _flat(json: bytes) -> bytes:
    """The same JSON without what is nested too deep."""
    pieces, kept, depth = [], 0, 0
    for match in _TOKEN.finditer(json):
        token = match[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth == MAX_DEPTH + 1:
                pieces.append(json[kept : match.start()])
        elif token in (b"]", b"}"):
            depth -= 1
            if depth == MAX_DEPTH:
                pieces.append(_CLIPPED)
                kept = match.end()
    return b"".join(pieces) + json[kept:]
