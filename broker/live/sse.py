"""The bytes of `text/event-stream` (WHATWG HTML, section 9.2). Pure.

Every frame ends with LF only, is one write, and its JSON is ASCII on one line: so every client splits the lines alike.
"""

from __future__ import annotations

from typing import Any

import msgspec

from emitter.wire.ids import EventId

HEARTBEAT = b": hb\n"  # one LF: with a blank line some parsers dispatch an empty event
HEARTBEAT_EVENT = b"event: heartbeat\ndata: {}\n\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def control_frame(event: str, data: dict[str, Any], *, retry_ms: int | None = None) -> bytes:
    """A frame that is not in the log and so has no id. `retry_ms`, the time to reconnect, is in the same block: many
    clients take a block without data for an empty event, or do not read it at all."""
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    return retry + b"event: %b\ndata: %b\n\n" % (event.encode(), msgspec.json.encode(data))


def cursor_frame(event_id: EventId) -> bytes:
    """Moves the client's cursor. It has data, since many clients make an empty event of a block without, or do not keep
    its id."""
    return b'id: %d-%d\nevent: stream:cursor\ndata: {"cursor":"%d-%d"}\n\n' % (*event_id, *event_id)
