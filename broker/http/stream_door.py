"""The short way to a stream: a GET of one that comes whole, as the first bytes of a connection.

aiohttp parses it, and its stream opens without aiohttp's task, middlewares and router, which would cost more than the
stream itself. Any other request gets a `Connection` of aiohttp, which takes over transport and bytes. So does the
request of a stream that could not be opened: its handler then answers with the outcome.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD

from broker.base.cycles import end_cycle_of
from broker.base.logging import get_logger
from broker.base.request_context import request_id_of
from broker.http.connection import MAX_HEADERS, MAX_LINE_BYTES, Acceptor, Connection, Outcome
from emitter import tasks

STREAM = re.compile(rb"GET /api/agent/(?:executions/([A-Za-z0-9_-]{1,64})/)?stream[? ]")
ONLY_AIOHTTP = ("Expect", "Upgrade", "Content-Encoding")
"""A request with one of these is not answered here."""
MAX_UNREAD_BYTES = 64 * 1024
"""What a client may send while its stream opens, before nothing more is read."""

READ_BYTES = 64 * 1024
"""Of a body, which no request has that is answered here."""

Open = Callable[[web.Request, str | None], Awaitable[web.StreamResponse]]


class _Asked(NamedTuple):
    """A request of a stream: the execution's, or the feed (None)."""

    request: web.Request
    execution_id: str | None


class StreamDoor:
    """Makes the protocol of each connection of one listener. `connection` makes aiohttp's."""

    def __init__(self, acceptor: Acceptor, open_stream: Open, connection: Callable[[], Connection]) -> None:
        self.acceptor = acceptor
        self.open_stream = open_stream
        self.connection = connection
        self.opening: set[asyncio.Task[None]] = set()
        self.is_closed = False

    def protocol(self) -> NewConnection:
        return NewConnection(self)

    async def close(self, seconds: float) -> None:
        """Wait for streams that open, but not for ever. Call it when the listener has closed."""
        self.is_closed = True
        if self.opening:
            await asyncio.wait(self.opening, timeout=seconds)
        await tasks.end(self.opening)


class NewConnection(BaseProtocol):
    """A connection from which nothing has come, or whose stream opens."""

    __slots__ = ("_data", "_door", "_is_opening", "has_ended")

    _log = get_logger()
    ssl_context = peername = sockname = None
    """What aiohttp's requests read of their protocol."""

    def __init__(self, door: StreamDoor) -> None:
        super().__init__(asyncio.get_running_loop())
        self._door = door
        self._data = b""
        self._is_opening = False
        self.has_ended = False
        """Whether the client has closed its sending side."""

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._door.acceptor.connections.add(self, self._loop.time())

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is lost, or another protocol's."""
        self._door.acceptor.connections.remove(self)
        end_cycle_of(self.transport)
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        self.has_ended = True
        return self._is_opening  # only a write shows whether it has left

    def data_received(self, data: bytes) -> None:
        if self._is_opening:
            self._data += data
            if len(self._data) > MAX_UNREAD_BYTES and self.transport is not None:
                self.transport.pause_reading()
            return
        if self._door.is_closed:
            if self.transport is not None:
                self.transport.abort()
            return
        self._data = data
        if (asked := self._read(data)) is None:
            self._hand_over(None)
            return
        self._door.acceptor.connections.mark_busy(self)
        self._is_opening = True
        task = self._loop.create_task(self._open(asked))
        self._door.opening.add(task)
        task.add_done_callback(self._door.opening.discard)

    # --- its stream ---

    def _read(self, data: bytes) -> _Asked | None:
        """The request of a stream that these bytes are, if they are one and nothing else."""
        match = STREAM.match(data)
        if match is None or not data.endswith(b"\r\n\r\n"):
            return None
        parser = HttpRequestParser(
            self,
            self._loop,
            READ_BYTES,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
        )
        try:
            messages, is_upgraded, rest = parser.feed_data(data)
        except HttpProcessingError:
            return None
        if len(messages) != 1 or is_upgraded or rest:
            return None
        message, body = messages[0]
        if body is not EMPTY_PAYLOAD or any(name in message.headers for name in ONLY_AIOHTTP):
            return None
        request = web.Request(message, body, self, None, None, self._loop)  # type: ignore[arg-type]  # it reads only
        execution_id = match[1]
        return _Asked(request, None if execution_id is None else execution_id.decode())

    async def _open(self, asked: _Asked) -> None:
        try:
            self._take(asked, await self._outcome(asked))
        except asyncio.CancelledError:
            if self.transport is not None:
                self.transport.abort()
            raise

    def _take(self, asked: _Asked, outcome: web.StreamResponse | Exception) -> None:
        if self.transport is not None:  # no viewer has it, and the client has not left
            self._hand_over(Outcome(request_id_of(asked.request), outcome))
        elif isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
            self._log.info("stream_not_opened", error=type(outcome).__name__, request_id=request_id_of(asked.request))

    async def _outcome(self, asked: _Asked) -> web.StreamResponse | Exception:
        """What came of it. `_open`, whose frame the error's traceback holds, must not hold the error."""
        try:
            return await self._door.open_stream(*asked)
        except Exception as error:  # its answer is made where those of all others are
            return error

    def _hand_over(self, outcome: Outcome | None) -> None:
        """Make it aiohttp's connection, which gets the bytes."""
        transport, self.transport = self.transport, None
        if transport is None or transport.is_closing():
            return
        connections, connection = self._door.acceptor.connections, self._door.connection()
        connection.outcome = outcome
        transport.set_protocol(connection)
        transport.resume_reading()
        connection.connection_made(transport)
        connections.replace(self, connection)
        connection.data_received(self._data)
        if self.has_ended and not connection.eof_received():
            transport.close()
