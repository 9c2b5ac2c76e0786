"""A reader of event streams without its I/O: the SSE parser, the place in the log, and when to try again. Pure.

The parser follows WHATWG HTML section 9.2.6 and shares nothing with what writes the frames (`broker.live.sse`).
"""

from __future__ import annotations

import email.utils
import re
from typing import Any

import msgspec

from emitter.wire.ids import START, EventId, parse_event_id

MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_RETRY_SECONDS = 300.0
_LINE_END = re.compile(rb"\r\n|\r|\n")
_DIGITS = re.compile(r"[0-9]+\Z")


class NotAStream(Exception):
    """What answered does not speak this protocol: another service, or a proxy's own page."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Frame(msgspec.Struct, frozen=True):
    """One dispatched event. `id` is set only if the frame itself had one; `data` is `None` for an id-only frame."""

    event: str
    data: str | None
    id: str | None


class SseParser:
    """Bytes in, frames out. `last_event_id` and `retry_ms` persist from frame to frame."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._max_bytes = max_bytes
        self._tail = b""
        self._skip_lf = False
        self._at_start = True
        self._clear()

    def _clear(self) -> None:
        self._event = ""
        self._id: str | None = None
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames this chunk completes. Raises `NotAStream` if one grows over the limit."""
        if self._skip_lf and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        if chunk.endswith(b"\r"):  # a line end already, whether or not its LF comes with the next chunk
            self._skip_lf = True
        *lines, self._tail = _LINE_END.split(self._tail + chunk)
        frames = [frame for line in lines if (frame := self._line(line)) is not None]
        if self._size + len(self._tail) > self._max_bytes:
            raise NotAStream(f"a frame of more than {self._max_bytes} bytes")
        return frames

    def _line(self, line: bytes) -> Frame | None:
        if self._at_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        if not line:
            return self._dispatch()
        if not line.startswith(b":"):
            self._size += len(line)
            name, _, value = line.decode("utf-8", "replace").partition(":")
            self._field(name, value.removeprefix(" "))
        return None

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and _DIGITS.match(value):
            self.retry_ms = int(value[:9])

    def _dispatch(self) -> Frame | None:
        event, id_, data = self._event, self._id, self._data
        self._clear()
        if id_ is not None:
            self.last_event_id = id_
        if data:
            return Frame(event or "message", "\n".join(data), id_)
        return None if id_ is None else Frame(event or "message", None, id_)


class ClientEvent(msgspec.Struct, frozen=True):
    """A logged event, or a control event of the stream (`stream:…`), which has no `id`. `ts` is in milliseconds."""

    type: str
    data: dict[str, Any]
    id: EventId | None = None
    execution_id: str | None = None
    ts: int | None = None
    agent: str | None = None


class _Body(msgspec.Struct, frozen=True, rename="camel"):
    type: str | None = None
    execution_id: str | None = None
    ts: int | None = None
    agent: str | None = None
    data: dict[str, Any] | None = None


def to_event(frame: Frame) -> ClientEvent:
    """A frame's JSON as an event: an envelope, or a control event's bare object. Raises `NotAStream` for neither."""
    content = (frame.data or "{}").encode()
    try:
        body = msgspec.json.decode(content, type=_Body)
        data = msgspec.json.decode(content, type=dict[str, Any]) if body.data is None else body.data
    except (msgspec.MsgspecError, ValueError) as error:
        raise NotAStream(f"a frame that is not an event: {error}") from error
    return ClientEvent(
        type=body.type or frame.event,
        data=data,
        id=_event_id(frame.id),
        execution_id=body.execution_id,
        ts=body.ts,
        agent=body.agent,
    )


def _event_id(text: str | None) -> EventId | None:
    try:
        return parse_event_id(text) if text else None
    except ValueError as error:
        raise NotAStream(str(error)) from error


class Position:
    """Where a follower stands in the log, over all its connections.

    `cursor` is `None` until something says where the stream begins, and `START` for "from the first event".
    """

    def __init__(self, cursor: EventId | None, *, from_now: bool = False) -> None:
        self.cursor = cursor
        self.heartbeat_seconds: float | None = None
        self.retry_seconds: float | None = None
        self.finished = False
        self._from_now = from_now

    def accept(self, frame: Frame) -> ClientEvent | None:
        """The event to yield, or nothing: a cursor that only moves on, or an event that was seen before."""
        if frame.data is None:
            self._move(_event_id(frame.id) or START)
            return None
        event = to_event(frame)
        if event.id is not None and event.type.startswith("stream:"):
            self._move(event.id)
            return None
        if event.id is not None:
            return event if self._move(event.id) else None
        self._control(event)
        return event

    def request(self) -> tuple[dict[str, str], dict[str, str]]:
        """Headers and query of the next connect."""
        if self.cursor is None:
            return {}, {}
        if self.cursor == START:
            return {}, {"from": "start"}
        return {"Last-Event-ID": str(self.cursor)}, {}

    def _move(self, id_: EventId) -> bool:
        if id_.seq <= (self.cursor or START).seq:
            return False
        self.cursor = id_
        return True

    def _control(self, event: ClientEvent) -> None:
        if event.type == "stream:open":
            self._opened(event.data)
        elif event.type == "stream:reset" and event.data.get("reason") != "trimmed":
            # What follows is another history than the one the cursor is from: its ordinals say nothing any more.
            self.cursor = START
        elif event.type == "stream:end":
            self.finished = event.data.get("reason") == "finished"

    def _opened(self, data: dict[str, Any]) -> None:
        beat, cursor = data.get("heartbeatSeconds"), data.get("cursor")
        self.heartbeat_seconds = float(beat) if isinstance(beat, (int, float)) else None
        if self._from_now and self.cursor is None and isinstance(cursor, str):
            # "now" is this moment, not the moment of a later reconnect: what comes in between must not be missed.
            self.cursor = _event_id(cursor)


class Backoff(msgspec.Struct, frozen=True):
    """Seconds between tries. What the edge asked for is the floor, as it spreads its viewers; our jitter only adds."""

    first: float = 1.0
    most: float = 20.0

    def delay(self, failures: int, asked: float | None, random_: float) -> float:
        """`failures` in a row, `asked` in seconds, `random_` from 0 to 1."""
        spread = min(self.most, self.first * 2.0 ** min(failures, 16))
        return (self.first / 2 if asked is None else min(asked, MAX_RETRY_SECONDS)) + random_ * spread


def retry_after(header: str | None, now: float) -> float | None:
    """`Retry-After` (RFC 9110 section 10.2.3: seconds or a date) as seconds from `now` (unix)."""
    if header is None:
        return None
    if _DIGITS.match(header.strip()):
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except ValueError:
        return None
