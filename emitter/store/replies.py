"""A connection that redis-py has made, read without its streams: from the socket to hiredis, which takes half of the
time of a reply."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError

_NOTHING = object()


class Replies(asyncio.Protocol):
    """Takes over the transport of a connection that is logged in. redis-py may go on writing, and closes it: the
    protocol before this one hears what it needs for that. redis-py has no interface for this: writer, stream and parser
    are taken by their private names."""

    def __init__(self, connection: Any) -> None:
        self.transport: asyncio.Transport = connection._writer.transport
        self._before: Any = self.transport.get_protocol()
        self._stream: asyncio.StreamReader = connection._reader
        self._reader = hiredis.Reader(replyError=connection._parser.parse_error, notEnoughData=_NOTHING)

    async def take_over(self) -> None:
        """From here on replies arrive here; first those that redis-py has not read."""
        stream, has_ended = self._stream, self._stream._eof or self.transport.is_closing()  # type: ignore[attr-defined]
        self.transport.set_protocol(self)
        stream.feed_eof()
        self.data_received(await stream.read())
        if has_ended:  # which nobody would report to this protocol
            self.on_lost(RedisConnectionError("the connection ended before it was read"))
        self.transport.resume_reading()

    # --- for the owner ---

    def on_reply(self, reply: Any) -> None:
        """A reply, or an error of the server. What is raised here is a reason for `on_lost`."""
        raise NotImplementedError

    def on_lost(self, error: Exception) -> None:
        """No reply will follow that can be trusted. May be called several times."""
        raise NotImplementedError

    # --- asyncio.Protocol ---

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self.on_reply(reply)
        except hiredis.HiredisError as error:
            self.on_lost(RedisConnectionError(f"Redis answered nonsense: {error}"))
        except Exception as error:
            self.on_lost(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._before.connection_lost(error)
        self.on_lost(RedisConnectionError(f"the connection to Redis was lost: {error or 'closed by the server'}"))

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()
