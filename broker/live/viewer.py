"""One viewer: a cursor over a log and a transport to write to. Pure: it knows no clock and starts no task."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from broker.base.identity import Identity
from broker.base.unsent import unacknowledged_bytes
from broker.live.sse import LAST_CHUNK
from broker.live.view import StreamView
from emitter.wire.ids import START, EventId

if TYPE_CHECKING:
    from broker.live.topic import Topic

CORK = getattr(socket, "TCP_CORK", getattr(socket, "TCP_NOPUSH", socket.TCP_NODELAY))
"""Holds back what does not fill a packet until the end; systems without it get what they have anyway."""
SECOND_PROBE_SECONDS = 0.25
MAX_UNREAD_BYTES = 64 * 1024
"""What a client may send on a stream (nobody reads it) before it is cut off."""


class ViewerState(Enum):
    REPLAYING = "replaying"
    """A task of its own reads the log for it."""
    LIVE = "live"
    """The hub writes to it; it costs no task."""
    CLOSING = "closing"


class Departures(Protocol):
    """Who must know that a viewer's connection is gone."""

    def on_gone(self, viewer: Viewer) -> None: ...


class Viewer(asyncio.Protocol):
    """The protocol of a connection from the moment aiohttp's response head is out.

    `cursor` is the id of the last event written, while the viewer replays; a live viewer's is its topic's `last`.
    """

    __slots__ = (
        "aged_at",
        "cursor",
        "drained",
        "events",
        "expires_at",
        "fd",
        "heartbeat_at",
        "identity",
        "lens",
        "marked",
        "number",
        "paused",
        "seen_live",
        "service",
        "started_at",
        "state",
        "stuck_at",
        "stuck_size",
        "topic",
        "transport",
        "unread",
        "warned",
        "whole",
    )

    def __init__(
        self, service: Departures, topic: Topic[Viewer], lens: StreamView, identity: Identity, cursor: EventId
    ) -> None:
        self.service = service
        self.topic = topic
        self.lens = lens
        self.identity = identity
        self.cursor = cursor
        self.state = ViewerState.REPLAYING
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by take_over, before all else
        self.fd = -1
        self.paused = False
        self.drained: asyncio.Future[None] | None = None
        self.marked = START
        self.events = 0
        self.seen_live = False
        self.warned = False
        self.whole = True
        self.unread = 0
        self.number = 0
        self.started_at = self.aged_at = self.heartbeat_at = 0.0
        self.expires_at: float | None = None
        self.stuck_at = 0.0
        self.stuck_size = 0

    def write(self, data: bytes) -> None:
        if data and self.state is not ViewerState.CLOSING:
            self.transport.write(data)
            if self.state is ViewerState.LIVE and self.transport.get_write_buffer_size():
                self.topic.clog(self)  # what the hub writes next must come after this

    def finish(self, farewell: bytes) -> None:
        """Say the last, and end the response and the connection in one breath: a client that has read the end of a
        response takes its connection for the next request, which nobody would read."""
        with contextlib.suppress(OSError):  # the client is gone
            # In one packet: the write alone would wake the client, often in this process' place.
            self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, CORK, 1)
        self.write(farewell + (LAST_CHUNK if self.lens.chunked else b""))
        with contextlib.suppress(OSError, NotImplementedError):  # TLS has no such thing
            self.transport.write_eof()
        self.transport.close()

    def place(self) -> EventId:
        """Where in the log this viewer stands now."""
        if self.state is ViewerState.LIVE and self.topic.last is not None:
            return self.topic.last
        return self.cursor

    def stuck_seconds(self, now: float) -> float:
        """Seconds for which no byte has reached the client, of a full transport or of the rest of a stream that has
        ended. Nothing is added then, so that any byte that arrives shows as a smaller rest."""
        if not self.paused and self.state is not ViewerState.CLOSING:
            self.stuck_at = now
            return 0.0
        # What the kernel holds counts too: it takes more from us only when a good part of it has gone.
        size = self.transport.get_write_buffer_size() + unacknowledged_bytes(self.transport)
        if size != self.stuck_size:
            self.stuck_size = size
            self.stuck_at = now
        return now - self.stuck_at

    @property
    def is_sent(self) -> bool:
        """Whether the transport holds nothing more; then it has closed, or is about to."""
        return self.transport.get_write_buffer_size() == 0

    # --- asyncio.Protocol ---

    def pause_writing(self) -> None:
        self.paused = True
        if self.state is ViewerState.LIVE:
            self.topic.lagging.append(self)

    def resume_writing(self) -> None:
        self.paused = False
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.unread += len(data)
        if self.unread > MAX_UNREAD_BYTES:
            self.transport.abort()

    def eof_received(self) -> bool:
        """The client sends no more. It may still listen (`nc -N`), or have left: then what is written first has its
        connection reset, and what is written next fails."""
        self.write(self.lens.heartbeat)
        asyncio.get_running_loop().call_later(SECOND_PROBE_SECONDS, self.write, self.lens.heartbeat)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.resume_writing()
        self.service.on_gone(self)
        self.fd = -1  # the number may be another connection's a moment later


def take_over(request: Any, viewer: Viewer, high_water: int) -> None:
    """Hand a connection from aiohttp to a viewer, so that a viewer at rest holds no task, request or parser: 1.4 KB
    instead of 11 KB for a suspended handler.

    Call it when the response head is written, then return the response. aiohttp's protocol is told
    that it lost the connection with its transport already taken away, so it cleans up without closing ours; its task
    ends when it finds it cannot write the end of the body.
    """
    protocol, transport = request.protocol, request.transport
    viewer.transport = transport
    viewer.paused = protocol.writing_paused  # of a pause that came before, the viewer hears only the end
    if transport.get_extra_info("sslcontext") is None:
        viewer.fd = transport.get_extra_info("socket").fileno()
    transport.set_protocol(viewer)
    protocol.transport = None
    protocol.connection_lost(None)
    transport.set_write_buffer_limits(high=high_water)
    transport.resume_reading()  # a viewer must hear that its client leaves
    if getattr(protocol, "has_ended", False):
        viewer.eof_received()
