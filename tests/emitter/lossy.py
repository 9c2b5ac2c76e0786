"""A road to Redis that loses things: a proxy on a unix socket between an emitter and the real server."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

APPEND = b"EVALSHA\r\n"


class Proxy:
    """Passes bytes on, but for what it is told to lose. All counts go down as they are used.

    `lose_replies`: lots of appends that Redis executes and whose connection is cut before the reply.
    `lose_requests`: lots of appends whose connection is cut before Redis has them.
    `answers`: what the next appends are answered, without reaching Redis.
    `away`: connections are cut at once. `lots` and `lost` count what came and what was lost.
    """

    def __init__(self, redis_socket: str) -> None:
        self._redis_socket = redis_socket
        self.lose_replies = 0
        self.lose_requests = 0
        self.loss_rate = 0.0
        self.random = random.Random(1)
        self.answers: list[bytes] = []
        self.away = False
        self.lots = self.lost = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.close()
            return
        redis_reader, redis_writer = await asyncio.open_unix_connection(self._redis_socket)
        self._writers |= {writer, redis_writer}
        back = asyncio.create_task(self._back(redis_reader, writer))
        try:
            await self._forth(reader, writer, redis_writer, redis_reader, back)
        except ConnectionError:
            pass
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for each in (writer, redis_writer):
                self._writers.discard(each)
                each.close()

    async def _forth(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        redis_writer: asyncio.StreamWriter,
        redis_reader: asyncio.StreamReader,
        back: asyncio.Task[None],
    ) -> None:
        while chunk := await reader.read(1 << 20):
            appends = chunk.count(APPEND)
            if appends and self.answers:
                writer.write(self.answers.pop(0) * appends)
                continue
            if appends:
                self.lots += 1
                if self.lose_requests or self.random.random() < self.loss_rate / 2:
                    self.lose_requests = max(0, self.lose_requests - 1)
                    self.lost += 1
                    return
                if self.lose_replies or self.random.random() < self.loss_rate / 2:
                    self.lose_replies = max(0, self.lose_replies - 1)
                    self.lost += 1
                    back.cancel()
                    await asyncio.gather(back, return_exceptions=True)
                    redis_writer.write(chunk)
                    await redis_reader.read(1)  # it ran
                    return
            redis_writer.write(chunk)

    async def _back(self, redis_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await redis_reader.read(1 << 20):
            writer.write(chunk)
        writer.close()

    def cut(self) -> None:
        """End all connections now."""
        for writer in list(self._writers):
            writer.transport.abort()

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Nothing gets through inside the block."""
        self.away = True
        self.cut()
        try:
            yield
        finally:
            self.away = False


@contextlib.asynccontextmanager
async def lossy(redis_socket: str, directory: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """The proxy, and the URL that leads through it."""
    proxy = Proxy(redis_socket)
    path = directory / "p.sock"
    server = await asyncio.start_unix_server(proxy.serve, str(path))
    try:
        yield proxy, f"unix://{path}"
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
        await asyncio.sleep(0)
