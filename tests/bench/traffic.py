"""Publishers: a process that publishes into many streams at a rate.

    traffic.py ROAD ADDRESS EXECUTIONS RATE SECONDS KIND

ROAD is `emitter` (an `AgentEmitter` for each execution over one publisher), `script` (calls of the append script and
nothing else, for loads at which the emitters of so many agents would need more cores than this machine has), `post`
(to Nchan) or `xadd` (for `handmade.py`). ADDRESS is the URL of Redis, or Nchan's port.

KIND is `event` (tool:progress: sent at once; due every 2 ms), `delta` (message:delta, each of another message; due
every 2 ms) or `token` (short chunks of one message, which may merge; each due by itself).

It publishes one event to each stream, prints a line, and awaits one on stdin. Then it publishes for SECONDS, the next
event always to the next stream and with its number there, and prints one line of JSON: events sent, seconds, and its
own CPU seconds without what it takes to wake up at the right times, which is measured first.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import hiredis
from servers import FRAME_BYTES, NCHAN_OVERHEAD, OWNER, bench_event, mark, read_answer

from emitter import AgentEmitter
from emitter.publishing.publisher import Publisher
from emitter.store import append

TICK_SECONDS = 0.002
PACING_SECONDS = 0.5
TOKEN_BYTES = 35
EVENT_TEXT_BYTES = 114
"""With what is around it, frames of `FRAME_BYTES` from an emitter."""
NCHAN_CONNECTIONS = 8


class Road(Protocol):
    async def send(self, numbers: Sequence[int | None]) -> None:
        """Publish the events with these numbers, of all streams."""

    async def flush(self) -> None:
        """Return when everything was taken."""


# --- when ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def timer(seconds: float) -> Iterator[int]:
    """timerfd(2): a descriptor from which 8 bytes can be read every `seconds`: how often that was. The loop's own
    timers are no finer than a millisecond."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK)
    whole, nanoseconds = divmod(round(seconds * 1e9), 10**9)
    libc.timerfd_settime(descriptor, 0, (ctypes.c_long * 4)(whole, nanoseconds, whole, nanoseconds), None)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def due(rate: float, seconds: float, tick: float) -> AsyncIterator[range]:
    """The numbers of the events to send now, tick by tick."""
    ticked, ticks, sent, total = asyncio.Event(), 0, 0, int(rate * seconds)
    loop = asyncio.get_running_loop()
    with timer(tick) as descriptor:
        loop.add_reader(descriptor, ticked.set)
        while sent < total:
            await ticked.wait()
            ticked.clear()
            try:
                ticks += int.from_bytes(os.read(descriptor, 8), sys.byteorder)
            except BlockingIOError:  # another turn of the loop had seen it readable, too
                continue
            until = min(total, round(ticks * tick * rate))
            yield range(sent, until)
            sent = until
        loop.remove_reader(descriptor)


# --- how -------------------------------------------------------------------------------------------------------------


def text(kind: str, ordinal: int | None) -> str:
    return mark(ordinal).ljust(TOKEN_BYTES if kind == "token" else EVENT_TEXT_BYTES, "x")


class Emitters:
    """Agents of one process."""

    def __init__(self, publisher: Publisher, executions: int, kind: str) -> None:
        self._emitters = [AgentEmitter(OWNER.user, f"x{number}", publisher=publisher) for number in range(executions)]
        self._kind = kind
        self._messages = itertools.count()

    async def send(self, numbers: Sequence[int | None]) -> None:
        for index, number in enumerate(numbers):
            ordinal, place = (None, index) if number is None else divmod(number, len(self._emitters))
            emitter, message = self._emitters[place], text(self._kind, ordinal)
            if self._kind == "token":
                await emitter.text(message)
            elif self._kind == "delta":
                # Another message each time: merged chunks would be fewer events than were counted.
                await emitter.message_delta(message, message_id=f"m{next(self._messages)}")
            else:
                await emitter.tool_progress("c1", message=message)

    async def flush(self) -> None:
        for emitter in self._emitters:
            await emitter.flush()


@contextlib.asynccontextmanager
async def emitters(address: str, executions: int, kind: str) -> AsyncIterator[Road]:
    async with Publisher(redis_url=address) as publisher:
        yield Emitters(publisher, executions, kind)


class Commands:
    """Redis commands, those of one tick in one write, on a socket and with next to nothing around it."""

    def __init__(self, address: str, executions: int, command: Callable[[str, int | None], Sequence[Any]]) -> None:
        self._redis = socket.socket(socket.AF_UNIX)
        self._redis.settimeout(60)
        self._redis.connect(address.removeprefix("unix://"))
        self._reader = hiredis.Reader()
        self._executions = executions
        self._command = command
        self.execute([("SCRIPT", "LOAD", append.APPEND_SCRIPT)])

    async def send(self, numbers: Sequence[int | None]) -> None:
        commands = []
        for index, number in enumerate(numbers):
            ordinal, place = (None, index) if number is None else divmod(number, self._executions)
            commands.append(self._command(f"x{place}", ordinal))
        self.execute(commands)

    def execute(self, commands: Sequence[Sequence[Any]]) -> None:
        self._redis.sendall(b"".join(hiredis.pack_command(tuple(command)) for command in commands))
        for _ in commands:
            while (reply := self._reader.gets()) is False:
                self._reader.feed(self._redis.recv(65536))
            if isinstance(reply, Exception) or (isinstance(reply, list) and reply[0] != b"ok"):
                raise RuntimeError(f"append failed: {reply}")

    async def flush(self) -> None:
        pass


@contextlib.asynccontextmanager
async def script(address: str, executions: int, kind: str) -> AsyncIterator[Road]:
    producer = f"script-{time.time_ns()}"

    def command(name: str, ordinal: int | None) -> Sequence[Any]:
        first = 1 if ordinal is None else ordinal + 2
        options: dict[str, Any] = {"producer": producer, "first_seq": first}
        return append.append_command(OWNER, name, [bench_event(name, ordinal=ordinal)], **options)

    yield Commands(address, executions, command)


@contextlib.asynccontextmanager
async def xadd(address: str, executions: int, kind: str) -> AsyncIterator[Road]:
    overhead = 0 if kind == "token" else FRAME_BYTES - len("id: 1763682345123-0\ndata: \n\n")
    yield Commands(
        address,
        executions,
        lambda name, ordinal: ("XADD", name, "MAXLEN", "~", "1000", "*", "d", text(kind, ordinal).ljust(overhead, "x")),
    )


class Posts:
    """POSTs over a few kept connections; a stream has always the same one, so its events stay in order."""

    def __init__(self, port: int, executions: int, kind: str) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(NCHAN_CONNECTIONS)]
        for connection in self._sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = [connection.makefile("rb") for connection in self._sockets]
        self._executions = executions
        self._kind = kind

    async def send(self, numbers: Sequence[int | None]) -> None:
        length = 0 if self._kind == "token" else FRAME_BYTES - NCHAN_OVERHEAD
        for first in range(0, len(numbers), NCHAN_CONNECTIONS):
            asked = []
            for index, number in enumerate(numbers[first : first + NCHAN_CONNECTIONS], first):
                ordinal, place = (None, index) if number is None else divmod(number, self._executions)
                body = text(self._kind, ordinal).ljust(length, "x")
                head = f"POST /pub/x{place} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
                self._sockets[place % NCHAN_CONNECTIONS].sendall((head + body).encode())
                asked.append(place % NCHAN_CONNECTIONS)
            for place in asked:
                read_answer(self._answers[place])

    async def flush(self) -> None:
        pass


@contextlib.asynccontextmanager
async def post(address: str, executions: int, kind: str) -> AsyncIterator[Road]:
    yield Posts(int(address), executions, kind)


ROADS: dict[str, Callable[[str, int, str], AbstractAsyncContextManager[Road]]] = {
    "emitter": emitters,
    "script": script,
    "xadd": xadd,
    "post": post,
}


async def pacing(rate: float, tick: float) -> float:
    """CPU seconds an event of waking up for it."""
    cpu = time.process_time()
    async for _ in due(rate, PACING_SECONDS, tick):
        pass
    return (time.process_time() - cpu) / (rate * PACING_SECONDS)


async def publish(road: str, address: str, executions: int, rate: float, seconds: float, kind: str) -> None:
    """A server that stalls is no reason to wait for ever."""
    tick = 1 / rate if kind == "token" else TICK_SECONDS
    async with asyncio.timeout(seconds * 4 + 30), ROADS[road](address, executions, kind) as there:
        await there.send([None] * executions)
        await there.flush()
        waking = await pacing(rate, tick)
        print("{}", flush=True)
        sys.stdin.readline()
        began, cpu = time.monotonic(), time.process_time()
        async for numbers in due(rate, seconds, tick):
            await there.send(numbers)
        await there.flush()
        sent = int(rate * seconds)
        took = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu - waking * sent}
        print(json.dumps({"sent": sent, **took}), flush=True)


if __name__ == "__main__":
    road, address, executions, rate, seconds, kind = sys.argv[1:]
    asyncio.run(publish(road, address, int(executions), float(rate), float(seconds), kind))
