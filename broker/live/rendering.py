"""How a log is shown in another protocol: what a renderer is to the edge's streams. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from broker.live.view import StreamView
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId


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


class RenderedView(StreamView):
    """One viewer's view through a rendering. It reads the log from its first event: what it shows may depend on it."""

    __slots__ = ("_rendering",)

    is_native = False

    def __init__(self, rendering: Rendering, *, chunked: bool) -> None:
        super().__init__(chunked=chunked)
        self._rendering = rendering
        self.heartbeat = self.wrap(rendering.heartbeat)
        self.heartbeat_seconds = rendering.heartbeat_seconds
        self.key = (object(),)  # shared with nobody, and never another's

    @property
    def name(self) -> str:  # type: ignore[override]
        return self._rendering.name

    @property
    def headers(self) -> Mapping[str, str]:
        return self._rendering.headers

    def open(self) -> bytes:
        return self._rendering.open()

    @property
    def is_over(self) -> bool:  # type: ignore[override]  # of a native view it never changes
        return self._rendering.is_over

    def render_all(self, entries: Sequence[Entry]) -> bytes:
        """All that is shown of a log that has gone but for these, without any coding."""
        return self._rendering.open() + self._rendering.render(entries)

    def encode(self, entries: Sequence[Entry]) -> bytes:
        return b"" if self.is_over else self.wrap(self._rendering.render(entries))

    def control(self, event: str, data: dict[str, object]) -> bytes:  # noqa: ARG002 - it is the native protocol's
        return b""

    def position_frame(self, event_id: EventId) -> bytes:  # noqa: ARG002
        return b""
