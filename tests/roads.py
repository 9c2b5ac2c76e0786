"""A TCP road between a client and its server, which can lead elsewhere from now on, or forget what travels on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Literal

Fate = Literal["open", "reset", "silent"]


class _Passage:
    """One connection on the road. After `reset` its next bytes are answered as by a router that never heard of it;
    after `silent` they vanish."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.fate: Fate = "open"
        self.used_at = time.monotonic()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.used_at = time.monotonic()
                if self.fate == "reset":
                    break
                if self.fate == "open":
                    writer.write(data)
                    await writer.drain()
        self.end()

    def end(self) -> None:
        for writer in (self.near, self.far):
            if not writer.transport.is_closing():
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", self.fate == "reset", 0))
                writer.transport.abort()


class Road:
    """`port` is where it begins, `target` the port where it leads: for connections that are made from now on. It holds
    little: who does not read holds up who writes. With `buffer_bytes`, so do its sockets."""

    def __init__(self, target: int, buffer_bytes: int | None = None) -> None:
        self.target = target
        self._buffer = buffer_bytes
        self.port = 0
        self.made = 0
        self._passages: set[_Passage] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        try:
            far_reader, far_writer = await self._open()
        except OSError:
            writer.transport.abort()
            return
        if self._buffer:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
            writer.transport.set_write_buffer_limits(self._buffer)
        passage = _Passage(writer, far_writer)
        self._passages.add(passage)
        try:
            await asyncio.gather(passage.carry(reader, far_writer), passage.carry(far_reader, writer))
        finally:
            passage.end()
            self._passages.discard(passage)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        try:
            if self._buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.target))
            return await asyncio.open_connection(sock=sock, limit=self._buffer or 2**16)
        except BaseException:
            sock.close()
            raise

    def forget(self, fate: Fate, idle_seconds: float = 0.0) -> int:
        """Forget every connection that was idle for so long; how many these are."""
        latest = time.monotonic() - idle_seconds
        idle = [passage for passage in self._passages if passage.fate == "open" and passage.used_at <= latest]
        for passage in idle:
            passage.fate = fate
        return len(idle)

    def close(self) -> None:
        for passage in tuple(self._passages):
            passage.end()


@contextlib.asynccontextmanager
async def road(target: int, buffer_bytes: int | None = None) -> AsyncIterator[Road]:
    made = Road(target, buffer_bytes)
    server = await asyncio.start_server(made._serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.close()
        await server.wait_closed()
        await asyncio.sleep(0)
