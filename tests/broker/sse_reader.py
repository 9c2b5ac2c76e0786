"""An independent reader of what an edge sends: chunked coding (RFC 9112, section 7.1), `text/event-stream` (WHATWG
HTML, section 9.2) and a client on a raw socket. It shares no code with the product: nothing is tested with itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

READ_SECONDS = 10.0


def dechunk(data: bytes) -> tuple[bytes, bool, bytes]:
    """The body decoded so far, whether its last chunk came, and the bytes that are not decoded yet."""
    body, ended = b"", False
    while not ended:
        head = re.match(rb"([0-9a-f]+)\r\n", data)
        if head is None:
            assert re.fullmatch(rb"[0-9a-f]*\r?", data), f"not the start of a chunk: {data[:40]!r}"
            break
        size, begin = int(head[1], 16), head.end()
        if len(data) < begin + size + 2:
            break
        assert data[begin + size : begin + size + 2] == b"\r\n", "a chunk ends with CRLF"
        body, data, ended = body + data[begin : begin + size], data[begin + size + 2 :], size == 0
    return body, ended, data


class Frame(NamedTuple):
    """One dispatched event. `id` is the client's last event id at that moment."""

    event: str
    data: str
    id: str


class Parser:
    """The specification's line interpreter. `last_id` and `retry` are the client's state."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self.last_id = ""
        self.retry: int | None = None
        self.comments: list[str] = []

    def feed(self, data: bytes) -> list[Frame]:
        text = self._rest + data
        *lines, self._rest = re.split(rb"\r\n|\n|\r", text)
        return [frame for line in lines if (frame := self._line(line.decode("utf-8"))) is not None]

    def _line(self, line: str) -> Frame | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments.append(value)
        elif name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self.last_id = value
        elif name == "retry" and value.isdecimal():
            self.retry = int(value)
        return None

    def _dispatch(self) -> Frame | None:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return Frame(event, "\n".join(data), self.last_id) if data else None


def parse(data: bytes) -> list[Frame]:
    return Parser().feed(data)


class RawStream:
    """One HTTP response, read as it comes. `status` and `headers` are set when `open_stream` yields it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parser = Parser()
        self.frames: list[Frame] = []
        self.ended = False
        self._raw = b""

    async def send(self, request: bytes) -> None:
        self.writer.write(request)
        await self.writer.drain()

    async def head(self) -> None:
        async with asyncio.timeout(READ_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii")
        status, *lines = head.rstrip().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    async def body(self) -> bytes:
        """The body of an answer of known length."""
        async with asyncio.timeout(READ_SECONDS):
            return await self.reader.readexactly(int(self.headers["content-length"]))

    async def more(self) -> bool:
        """Read what there is; false at the end of the connection."""
        async with asyncio.timeout(READ_SECONDS):
            data = await self.reader.read(1 << 16)
        if self.headers.get("transfer-encoding") == "chunked":
            body, ended, self._raw = dechunk(self._raw + data)
            self.ended = self.ended or ended
        else:
            body = data
        self.frames += self.parser.feed(body)
        return bool(data)

    async def until(self, event: str, count: int = 1) -> Frame:
        """The `count`-th frame of this name, as soon as it has come."""
        while True:
            found = [frame for frame in self.frames if frame.event == event]
            if len(found) >= count:
                return found[count - 1]
            assert await self.more(), f"the stream ended without {event}; it had {self.frames}"

    async def to_end(self) -> list[Frame]:
        while await self.more():
            pass
        return self.frames

    def logged(self) -> list[Frame]:
        """The frames that are events of the log."""
        return [frame for frame in self.frames if not frame.event.startswith("stream:")]


def request_of(path: str, headers: Mapping[str, str], *, version: str = "1.1") -> bytes:
    lines = [f"GET {path} HTTP/{version}", "Host: edge", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[RawStream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawStream(reader, writer)
    finally:
        writer.transport.abort()  # an abrupt end, so that nothing is waited for


@asynccontextmanager
async def open_stream(
    port: int, path: str, headers: Mapping[str, str], *, version: str = "1.1"
) -> AsyncIterator[RawStream]:
    async with connected(port) as stream:
        await stream.send(request_of(path, headers, version=version))
        await stream.head()
        yield stream
