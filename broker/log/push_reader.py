"""Reads what Redis pushes on a connection: from the socket to hiredis, without a stream and a task between, which take
half of the time of a message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.exceptions import ConnectionError as RedisConnectionError


class PushReader(asyncio.Protocol):
    """The protocol of a connection that redis-py has made, and still writes to.

    `on_reply` is called for every reply, errors included, and `on_read` after those of one read of the socket. What
    they raise ends the reading.
    """

    def __init__(self, on_reply: Callable[[Any], None], on_read: Callable[[], None]) -> None:
        self._on_reply = on_reply
        self._on_read = on_read
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self, connection: Any) -> None:
        """Read until the connection is lost. Raises the error that lost it. redis-py has no interface for this: its
        parser, stream and writer are taken by their private names."""
        self._parser = connection._parser._reader
        transport = connection._writer.transport
        self._replaced = transport.get_protocol()
        stream = connection._reader
        has_ended = stream._eof or transport.is_closing()  # which nobody would report to this protocol
        transport.set_protocol(self)
        stream.feed_eof()
        self.data_received(await stream.read())  # what had arrived before
        if has_ended:
            self._end(RedisConnectionError("the connection ended before it was read"))
        transport.resume_reading()
        await self._lost

    def _end(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)

    # --- asyncio.Protocol ---

    def data_received(self, data: bytes) -> None:
        parser, on_reply = self._parser, self._on_reply
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not NOT_ENOUGH_DATA:
                on_reply(reply)
        except Exception as error:
            self._end(error)
        try:
            self._on_read()
        except Exception as error:
            self._end(error)

    def eof_received(self) -> None:
        self._end(RedisConnectionError("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._replaced.connection_lost(exc)  # which ends a write that waits
        self._end(RedisConnectionError(f"the connection was lost: {exc}"))

    def pause_writing(self) -> None:
        self._replaced.pause_writing()

    def resume_writing(self) -> None:
        self._replaced.resume_writing()
