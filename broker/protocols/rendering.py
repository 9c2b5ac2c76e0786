"""How a log is shown in another protocol: what a renderer is to the edge's streams. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from broker import sse
from emitter.wire import START, Entry, EventId


class Rendering(Protocol):
    """What one viewer is shown of an execution. It gets the log's entries in order, each once, from the first there is.

    `headers` are the response's, its Content-Type included. `heartbeat` is written between frames after at most
    `heartbeat_seconds` of silence. `is_over` says that the protocol's own last message was rendered: the stream is
    ended right after it, and gets no more entries. One that must be closed before is aborted, since to these clients a
    clean end means success.
    """

    name: str
    headers: Mapping[str, str]
    heartbeat: bytes
    heartbeat_seconds: float

    @property
    def is_over(self) -> bool: ...

    def open(self) -> bytes:
        """The first bytes, before any entry."""

    def render(self, entries: Sequence[Entry]) -> bytes:
        """What of these entries is shown, in frames; empty for nothing."""


class RenderedLens(sse.Lens):
    """One viewer's lens through a rendering. What lies at or before `cursor` is rendered but not shown, since what
    follows may depend on it."""

    __slots__ = ("_cursor", "_rendering")

    is_native = False

    def __init__(self, rendering: Rendering, *, chunked: bool, cursor: EventId | None = None) -> None:
        super().__init__(chunked=chunked)
        self._rendering = rendering
        self._cursor = cursor or START
        self.heartbeat = self.wrap(rendering.heartbeat)
        self.heartbeat_seconds = rendering.heartbeat_seconds
        self.key = (object(),)  # shared with nobody, and never another's

    @property
    def name(self) -> str:
        return self._rendering.name

    @property
    def headers(self) -> Mapping[str, str]:
        return self._rendering.headers

    def open(self) -> bytes:
        return self._rendering.open()

    @property
    def is_over(self) -> bool:  # type: ignore[override]  # of a native lens it never changes
        return self._rendering.is_over

    def whole(self, entries: Sequence[Entry]) -> bytes:
        """All that is shown of a log that has gone but for these, without any coding."""
        return self._rendering.open() + self._rendering.render(entries)

    def encode(self, entries: Sequence[Entry]) -> bytes:
        seen = [entry for entry in entries if entry.seq <= self._cursor.seq]
        if seen:
            self._rendering.render(seen)
            entries = entries[len(seen) :]
        return b"" if self.is_over or not entries else self.wrap(self._rendering.render(entries))

    def control(self, event: str, data: dict[str, object]) -> bytes:  # noqa: ARG002 - it is the native protocol's
        return b""

    def place(self, event_id: EventId) -> bytes:  # noqa: ARG002
        return b""
