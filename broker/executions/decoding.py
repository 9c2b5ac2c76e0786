"""Log entries as events, for everything that shows more of them than their bytes. Pure."""

from __future__ import annotations

import re
from itertools import accumulate

from emitter import events
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


def decode_entry(entry: Entry) -> tuple[Envelope, events.Event]:
    """The envelope and the event of an entry. Raises `InvalidEvent` for an unknown event (of a newer version)."""
    json = entry.json
    if len(json) > 2 * MAX_DEPTH and json.count(b"[") + json.count(b"{") > MAX_DEPTH and _is_deep(json):
        json = _flat(json)
    return envelope.decode_envelope(json)


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
