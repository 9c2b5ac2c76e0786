"""How a log is shown in another protocol: the interface of a renderer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from broker.live.view import StreamView
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId


class Rendering(Protocol):
    """Renders an execution for one viewer. It gets the log's entries in order, each once, from the first.

    `headers` are the response's, its Content-Type included. `heartbeat` is written between frames after at most
    `heartbeat_seconds` of silence. `is_over`: the protocol's own last message was rendered. The stream ends right after
    it, and gets no more entries. A stream that must be closed earlier is aborted, since to these clients a clean end
    means success.
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
        """The frames for these entries; empty if none is shown."""


class RenderedView(StreamView):
    """One viewer's view through a rendering. It gets the log from its first event, on which a rendering may depend."""

    __slots__ = ("_rendering",)

    is_native = False

    def __init__(self, rendering: Rendering, *, chunked: bool) -> None:
        super().__init__(chunked=chunked)
        self._rendering = rendering
        self.heartbeat = self.wrap(rendering.heartbeat)
        self.heartbeat_seconds = rendering.heartbeat_seconds
        self.key = (object(),)  # shared with nobody

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
        """The whole body for a log of which only these are left, without any coding."""
        return self._rendering.open() + self._rendering.render(entries)

    def encode(self, entries: Sequence[Entry]) -> bytes:
        return b"" if self.is_over else self.wrap(self._rendering.render(entries))

    def control(self, event: str, data: dict[str, object]) -> bytes:  # noqa: ARG002 - it is the native protocol's
        return b""

    def position_frame(self, event_id: EventId) -> bytes:  # noqa: ARG002
        return b""
