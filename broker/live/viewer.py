"""One viewer: a cursor over a log and a transport to write to. Pure: it knows no clock and starts no task."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from broker.base.cycles import end_cycle_of
from broker.base.identity import Identity
from broker.base.unsent import unacknowledged_bytes
from broker.live.gzip_body import GzipBody
from broker.live.sse import LAST_CHUNK
from broker.live.view import CLOSED, StreamView
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
    """Its topic writes to it. It costs no task."""
    CLOSING = "closing"
    """It gets nothing more. Its transport may still hold what was written before."""


class Departures(Protocol):
    """What is notified when the connection of a viewer is lost."""

    def on_gone(self, viewer: Viewer) -> None: ...


class Viewer(asyncio.Protocol):
    """The protocol of a connection from the moment when its stream opens.

    The section "life" has its transitions; nothing else assigns `state`, `cursor`, `events` or what goes with them. A
    viewer starts as replaying. `go_live` and `fall_behind` move it between its own reads of the log and the live path.
    `close` ends it. `number` is assigned by its service, and the times by the service's timers.

    `cursor` is the id of the last event written, while the viewer replays; a live viewer's is its topic's `last`.
    """

    __slots__ = (
        "_held",
        "_writable",
        "aged_at",
        "body",
        "cursor",
        "due_at",
        "events",
        "expires_at",
        "fd",
        "has_caught_up",
        "heartbeat_at",
        "identity",
        "is_complete",
        "last_marked",
        "number",
        "paused",
        "service",
        "stall_size",
        "stall_started_at",
        "started_at",
        "state",
        "timer",
        "topic",
        "transport",
        "unread",
        "view",
        "warned",
    )

    def __init__(
        self, service: Departures, topic: Topic[Viewer], view: StreamView, identity: Identity, cursor: EventId
    ) -> None:
        self.service = service
        self.topic = topic
        self.view = view
        self.body = None if view.coding is None else GzipBody(chunked=view.chunked)
        self.identity = identity
        self.cursor = cursor
        self.state = ViewerState.REPLAYING
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by take_over, before all else
        self.fd = -1
        self.paused = False
        self._held: list[bytes] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.last_marked = START
        """The last position that a frame of its own moved the client to."""
        self.events = 0
        self.has_caught_up = False
        self.is_complete = True
        """Whether it was shown the whole log, without a reset."""
        self.warned = False
        self.unread = 0
        self.number = 0
        self.started_at = self.aged_at = self.heartbeat_at = 0.0
        self.due_at = float("inf")
        """When its view wants to say something."""
        self.expires_at: float | None = None
        self.stall_started_at = 0.0
        self.stall_size = 0
        self.timer: list[Any] | None = None
        """Its entry on the service's timer."""

    # --- life ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # one that writes
        """The connection is this viewer's, which replays from here on. `take_over` calls this, not asyncio."""
        self.transport = transport
        if transport.get_extra_info("sslcontext") is None:
            self.fd = transport.get_extra_info("socket").fileno()

    def advance(self, cursor: EventId, events: int) -> None:
        """The replay has come to `cursor`, and `events` more were written on the way."""
        self.cursor = cursor
        self.events += events

    def lose_history(self) -> None:
        """Some of the log cannot be shown, or it is another log, in which the same ordinals are other events."""
        self.is_complete = False
        self.last_marked = START

    def catch_up(self, rest: bytes = b"") -> bool:
        """Write the `rest` of the history. What its view says then follows in the same write, since writes are what
        costs. Returns whether this was the first replay."""
        is_first = not self.has_caught_up
        self.has_caught_up = True
        self.write(rest, self.view.caught_up(self.events if is_first else None))
        if is_first:
            self.view = self.view.live
        return is_first

    def go_live(self) -> None:
        """From here on the topic writes to it. Its cursor must be the topic's `last`."""
        self.state = ViewerState.LIVE
        self.view = self.view.meet(self.topic.shared)
        self.topic.add(self)

    def fall_behind(self, position: EventId) -> None:
        """Leave the live path at `position`, from where a replay goes on."""
        self._leave_live(position)
        self.state = ViewerState.REPLAYING
        self.view = self.view.apart()

    def close(self) -> None:
        """Get nothing more. `cursor` stays where the viewer stood; a replay that waits for its transport goes on."""
        if self.state is ViewerState.LIVE:
            self._leave_live(self.position)
        self.state = ViewerState.CLOSING
        self.stall_size = -1  # from here on it is the rest that must move
        self.view = CLOSED  # what it was shown may be large, and its connection may last
        self._wake()

    def _leave_live(self, position: EventId) -> None:
        self.events += position.seq - self.cursor.seq
        self.cursor = position
        self.topic.remove(self)

    # --- position and progress ---

    @property
    def position(self) -> EventId:
        """Where in the log this viewer stands now."""
        if self.state is ViewerState.LIVE and self.topic.last is not None:
            return self.topic.last
        return self.cursor

    @property
    def shared_write_at(self) -> float:
        """When its group wrote to it last, if its view has a coding and no filter; else 0."""
        is_known = self.body is not None and self.view.filter is None and self.state is ViewerState.LIVE
        return self.topic.delivered_at if is_known else 0.0

    def send_position(self) -> None:
        """Move the client's cursor if its view has a filter: a resume then does not read again what was left out."""
        if self.view.filter is None:
            return
        position = self.position
        if position.seq > self.last_marked.seq:
            self.last_marked = position
            self.write(self.view.position_frame(position))

    def stall_seconds(self, now: float) -> float:
        """Seconds for which no byte has reached the client, of a full transport or of the rest of a stream that has
        ended. Nothing is added then, so that any byte that arrives shows as a smaller rest."""
        if not self.paused and self.state is not ViewerState.CLOSING:
            self.stall_started_at = now
            return 0.0
        # What the kernel holds counts too: it takes more from us only when a good part of it has gone.
        size = self.transport.get_write_buffer_size() + unacknowledged_bytes(self.transport)
        if size != self.stall_size:
            self.stall_size = size
            self.stall_started_at = now
        return now - self.stall_started_at

    # --- writing ---

    @contextlib.contextmanager
    def as_one_write(self) -> Iterator[None]:
        """What is written in the block, which must not wait, leaves as one write at its end."""
        self._held = []
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held and self.state is not ViewerState.CLOSING:
            self._send(b"".join(held))

    def write_head(self, head: bytes) -> None:
        """Write the head of the response, before all else."""
        self._send(head)

    def write(self, data: bytes, then: bytes = b"") -> None:
        """Write what its view has made for it, in one write."""
        if not (data or then) or self.state is ViewerState.CLOSING:
            return
        if self.body is None:
            self._send(data + then if then else data)
        else:
            self._send(self._counted(self.body, data, then))

    def _counted(self, body: GzipBody, *pieces: bytes) -> bytes:
        """Pieces of a coded body, as its next bytes. A live viewer leaves its group for this and joins it again: the
        group takes all that its viewers get for its own."""
        is_live = self.state is ViewerState.LIVE
        if is_live:
            self.topic.remove(self)
        begin = b"" if body.size else body.begin()
        for piece in filter(None, pieces):
            body.add(piece)
        if is_live:
            self.topic.add(self)
        return b"".join((begin, *pieces))

    def _send(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
            return
        self.transport.write(data)
        if self.state is ViewerState.LIVE and self.transport.get_write_buffer_size():
            self.topic.mark_backlogged(self)  # what the topic writes next must come after this

    def finish(self, farewell: bytes) -> None:
        """Write the last frames, and end the response and the connection at once: a client that has read the end of a
        response takes its connection for the next request, which nobody would read."""
        with contextlib.suppress(OSError):  # the client is gone
            # In one packet: the write alone would wake the client, often in this process' place.
            self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, CORK, 1)
        self._release()
        end = LAST_CHUNK if self.view.chunked else b""
        if self.body is None:
            self.write(farewell + end)
        else:
            self.write(farewell)
            self.transport.write(self.body.end() + end)
        with contextlib.suppress(OSError, NotImplementedError):  # TLS has no half-close
            self.transport.write_eof()
        self.transport.close()

    @property
    def is_sent(self) -> bool:
        """Whether the transport holds nothing more; then it has closed, or is about to."""
        return self.transport.get_write_buffer_size() == 0

    async def wait_writable(self) -> None:
        """Wait until the transport has room, or the viewer closes. One task at a time."""
        if self.paused:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable
            self._writable = None

    def _wake(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- asyncio.Protocol ---

    def pause_writing(self) -> None:
        self.paused = True
        if self.state is ViewerState.LIVE:
            self.topic.mark_lagging(self)

    def resume_writing(self) -> None:
        self.paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        self.unread += len(data)
        if self.unread > MAX_UNREAD_BYTES:
            self.transport.abort()

    def eof_received(self) -> bool:
        """The client sends no more. It may still listen (`nc -N`), or have left: then what is written first has its
        connection reset, and what is written next fails."""
        self.write(self.view.heartbeat)
        asyncio.get_running_loop().call_later(SECOND_PROBE_SECONDS, self.write, self.view.heartbeat)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.resume_writing()
        self.service.on_gone(self)
        end_cycle_of(self.transport)
        self.fd = -1  # the number may be another connection's a moment later


def take_over(request: Any, viewer: Viewer, high_water: int) -> bool:
    """Hand a connection from its HTTP protocol to a viewer, so that a viewer at rest holds no task, request or parser:
    1.4 KB instead of 11 KB for a suspended handler.

    Nothing of the response has been written. The protocol is made to lose its connection with its transport already
    taken away, so it cleans up without closing ours. Returns whether the client has closed its sending side: call
    `eof_received` then, when the head is written.
    """
    protocol, transport = request.protocol, request.transport
    viewer.connection_made(transport)
    if protocol.writing_paused:
        viewer.pause_writing()  # the transport will report only the end of this pause
    transport.set_protocol(viewer)
    protocol.transport = None
    protocol.connection_lost(None)
    transport.set_write_buffer_limits(high=high_water)
    transport.resume_reading()  # or a client that leaves would not be noticed
    return getattr(protocol, "has_ended", False)
