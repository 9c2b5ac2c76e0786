"""Agents: a process that emits into many executions at a rate.

    traffic.py REDIS_URL EXECUTIONS RATE SECONDS KIND

KIND is `event` (tool:progress through the emitter: sent at once), `delta` (message:delta through the emitter: may wait
for others) or `script` (tool:progress by calls of the append script and nothing else, for loads at which the emitters
of so many agents would need more cores than this machine has). Prints one line of JSON when it is done: events sent,
seconds, and its own CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import hiredis
from servers import OWNER, bench_event, mark

from emitter import AgentEmitter
from emitter.publishing.publisher import Publisher
from emitter.store import append

TICK_SECONDS = 0.002
PAD = "x" * 60


async def due(rate: float, seconds: float) -> AsyncIterator[range]:
    """The numbers of the events to send now, tick by tick."""
    began, sent, total = time.monotonic(), 0, int(rate * seconds)
    while sent < total:
        until = min(total, int((time.monotonic() - began) * rate) + 1)
        yield range(sent, until)
        sent = until
        await asyncio.sleep(TICK_SECONDS)


async def emit(redis_url: str, executions: int, rate: float, seconds: float, kind: str) -> None:
    async with Publisher(redis_url=redis_url) as shared:
        emitters = [AgentEmitter(OWNER.user, f"x{number}", publisher=shared) for number in range(executions)]
        async for numbers in due(rate, seconds):
            for number in numbers:
                emitter = emitters[number % executions]
                if kind == "delta":
                    # Another message each time: merged chunks would be fewer events than were counted.
                    await emitter.message_delta(mark() + PAD, message_id=f"m{number}")
                else:
                    await emitter.tool_progress("c1", message=mark() + PAD)
        for emitter in emitters:
            await emitter.close()


async def call_script(redis_url: str, executions: int, rate: float, seconds: float) -> None:
    producer = f"script-{time.time_ns()}"
    reader = hiredis.Reader()
    with socket.socket(socket.AF_UNIX) as redis:
        redis.connect(redis_url.removeprefix("unix://"))
        redis.sendall(hiredis.pack_command(("SCRIPT", "LOAD", append.APPEND_SCRIPT)))
        read_replies(redis, reader, 1)
        async for numbers in due(rate, seconds):
            commands = []
            for number in numbers:
                name, first = f"x{number % executions}", number // executions + 1
                options: dict[str, Any] = {"producer": producer, "first_seq": first}
                commands.append(append.append_command(OWNER, name, [bench_event(name)], **options))
            redis.sendall(b"".join(hiredis.pack_command(tuple(command)) for command in commands))
            read_replies(redis, reader, len(commands))


def read_replies(redis: socket.socket, reader: Any, count: int) -> None:
    for _ in range(count):
        while (reply := reader.gets()) is False:
            reader.feed(redis.recv(65536))
        if isinstance(reply, Exception) or (isinstance(reply, list) and reply[0] != b"ok"):
            raise RuntimeError(f"append failed: {reply}")


def main(redis_url: str, executions: int, rate: float, seconds: float, kind: str) -> None:
    began, cpu = time.monotonic(), time.process_time()
    if kind == "script":
        asyncio.run(call_script(redis_url, executions, rate, seconds))
    else:
        asyncio.run(emit(redis_url, executions, rate, seconds, kind))
    took = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
    print(json.dumps({"sent": int(rate * seconds), **took}))


if __name__ == "__main__":
    url, executions, rate, seconds, kind = sys.argv[1:]
    main(url, int(executions), float(rate), float(seconds), kind)
