"""Viewers by the hundred. A block of an event stream is parsed once for all viewers of its log: the bytes that one of
them got are looked up in `shared`. Each notes how long nothing came."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from emitter import tasks
from tests.edges import SSE, Control, EdgeProcess, Received, SseReader
from tests.faults.chaos.kept import Kept

QUIET_SECONDS = 0.5
"""Of a log in which something happens several times a second: a longer pause is an outage."""
AGAIN_SECONDS = 0.1
ANSWER_SECONDS = 10.0
_EXECUTION = re.compile(r'"executionId":"([A-Za-z0-9_-]+)"')
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Quiet(NamedTuple):
    """From when to when (monotonic) a viewer got nothing."""

    begin: float
    end: float


class Answer(asyncio.Protocol):
    """One answer: its `status`, and if that is 200 the blocks of its event stream, of which each goes to `take` as soon
    as it is whole. `over` is done with the connection; what is wrong with the bytes is its exception."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._rest = b""
        self._text = b""
        self._length: int | None = None
        loop = asyncio.get_running_loop()
        self.status: asyncio.Future[int] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()

    def data_received(self, data: bytes) -> None:
        if self.over.done():
            return
        try:
            self._read(self._rest + data if self._rest else data)
        except Exception as error:
            self.over.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)
        if not self.status.done():
            self.status.set_exception(ConnectionResetError("no answer"))
            self.status.exception()  # the one who waits may be gone

    def _read(self, data: bytes) -> None:
        if not self.status.done():
            head, is_whole, data = data.partition(b"\r\n\r\n")
            if not is_whole:
                self._rest = head
                return
            found = _STATUS.match(head)
            assert found, f"no status in {head!r}"
            self._rest = b""
            self._length = _length_of(head) if found[1] == b"200" else 0
            self.status.set_result(int(found[1]))
        if self.status.result() != 200:
            return
        if self._length is None:
            pieces, is_last = self._chunks(data)
        else:
            pieces, self._length = data[: self._length], self._length - len(data)
            is_last = self._length <= 0
        text = self._text + pieces
        assert b"\r" not in text, "only LF ends lines"
        *blocks, self._text = text.split(b"\n\n")
        for block in blocks:
            self._take(block)
        if is_last:
            self.over.set_result(None)

    def _chunks(self, data: bytes) -> tuple[bytes, bool]:
        """What is in the chunks that are whole, and whether one was the last."""
        at, pieces, is_last = 0, [], False
        while (line := data.find(b"\r\n", at)) >= 0:
            begin = line + 2
            end = begin + int(data[at:line], 16)
            if len(data) < end + 2:
                break
            assert data[end : end + 2] == b"\r\n", "a chunk ends with CRLF"
            pieces.append(data[begin:end])
            at = end + 2
            if is_last := begin == end:
                break
        self._rest = data[at:]
        return b"".join(pieces), is_last


def _length_of(head: bytes) -> int | None:
    """Of the body; `None`: it comes in chunks."""
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        return None
    found = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    assert found, f"neither chunks nor a length in {head!r}"
    return int(found[1])


class Follower:
    """Does what `EventSource` does: reads, reconnects with `Last-Event-ID` to the next of its edges, stops at a 204.
    `error`: what was wrong with the bytes of a stream, after which it stops as well."""

    def __init__(self, edges: Sequence[EdgeProcess], path: str, token: str) -> None:
        self._ports = itertools.cycle([edge.port for edge in edges])
        lines = {"Host": "127.0.0.1", "Authorization": f"Bearer {token}", **SSE}
        self._head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self.cursor: str | None = None
        self.statuses: list[int] = []
        """The last few."""
        self.was_missing = False
        """Whether one of them was a 404."""
        self.connects = 0
        self.controls: list[Control] = []
        """Resets."""
        self.live = asyncio.Event()
        self.done = False
        """Whether a 204 said that nothing will ever follow."""
        self.error: Exception | None = None

    async def __aenter__(self) -> Follower:
        self._task = asyncio.create_task(self._follow(), name="follower")
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._task is not None
        await tasks.end([self._task])

    def hang_up(self) -> None:
        """Lose the connection, without a word, as a phone in a tunnel does; it is opened again at the next edge."""
        if self._transport is not None:
            self._transport.abort()

    async def _follow(self) -> None:
        while not self.done and not self.error:
            with contextlib.suppress(OSError):
                await self._connect(next(self._ports))
            if not self.done:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _connect(self, port: int) -> None:
        cursor = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        async with asyncio.timeout(ANSWER_SECONDS):
            transport, answer = await asyncio.get_running_loop().create_connection(
                lambda: Answer(self._take), "127.0.0.1", port
            )
        try:
            transport.write((self._head + cursor + "\r\n").encode())
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.wait([answer.status, answer.over], return_when=asyncio.FIRST_COMPLETED)
                if answer.over.done():
                    answer.over.result()
                status = await answer.status
            self.statuses = [*self.statuses[-4:], status]
            self.was_missing |= status == 404
            self.done = status == 204
            if status == 200:
                self.connects += 1
                self._transport = transport
                await answer.over
        except (AssertionError, ValueError) as error:
            self.error = error
        finally:
            self._transport = None
            transport.abort()

    def _take(self, block: bytes) -> None:
        raise NotImplementedError

    def _read(self, block: bytes) -> Received | None:
        """The logged event of a block, if it has one."""
        frames = SseReader().feed(block + b"\n\n")
        assert len(frames) <= 1, f"{frames} of one block"
        if not frames:
            return None
        ((id_, event, data),) = frames
        if id_ is not None:
            self.cursor = id_
        if data is None or event == "stream:cursor":
            return None
        if id_ is not None:
            return Received(id_, event, data)
        if event == "stream:live":
            self.live.set()
        elif event == "stream:reset":
            self._reset(json.loads(data))
        return None

    def _reset(self, data: dict[str, object]) -> None:
        raise NotImplementedError


class Viewer(Follower):
    """One of several of a log."""

    def __init__(self, edges: Sequence[EdgeProcess], path: str, token: str, shared: dict[bytes, Received]) -> None:
        super().__init__(edges, path, token)
        self._shared = shared
        self._last_at = 0.0
        self.events: list[Received] = []
        self.began_at = time.monotonic()
        self.done_at = 0.0
        self.quiet: list[Quiet] = []

    @property
    def resets(self) -> list[Control]:
        return self.controls

    def __repr__(self) -> str:
        last = self.events[-1].id if self.events else None
        return f"Viewer(events={len(self.events)}, last={last}, statuses={self.statuses}, resets={self.resets[-4:]})"

    def _take(self, block: bytes) -> None:
        event = self._shared.get(block)
        if event is None:
            event = self._read(block)
            if event is None:
                return
            self._shared[block] = event
        self.cursor = event.id
        self.events.append(event)
        now = time.monotonic()
        if self._last_at and now - self._last_at > QUIET_SECONDS:
            self.quiet.append(Quiet(self._last_at, now))
        self._last_at = now if event.type != "execution:queued" else 0.0  # it may wait for a worker
        self.done_at = now

    def _reset(self, data: dict[str, object]) -> None:
        self.controls.append(Control("stream:reset", data, len(self.events)))


class FeedViewer(Follower):
    """Keeps the events of each execution, as JSON, until they are taken."""

    def __init__(self, edges: Sequence[EdgeProcess], path: str, token: str) -> None:
        super().__init__(edges, path, token)
        self.of: Kept[str] = Kept()
        self.count = 0
        self.resets = 0

    def _take(self, block: bytes) -> None:
        if event := self._read(block):
            self.count += 1
            if found := _EXECUTION.search(event.data):
                self.of.add(found[1], event.data)

    def _reset(self, data: dict[str, object]) -> None:
        self.resets += 1
