"""Where `test_all_clients.py` has its clients: in processes of their own, at two edges, on a way that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
from clients import HERE, NODE
from pythons import DURABLE, MCP, OPENAI, python_of

from broker.cli.embedded import EmbeddedRedis
from emitter import tasks
from tests.edges import EdgeProcess, edges
from tests.workers import WorkerProcess

SECONDS = 40.0
"""Bound of every wait."""
Json = dict[str, Any]

NATIVE = "native"
A2A_PYTHON_03, A2A_PYTHON_10, A2A_JS_03, A2A_JS_10 = "a2a 0.3", "a2a 1.0", "a2a 0.3 in js", "a2a 1.0 in js"
AI_5, AI_6, AI_7, AI_7_COUNTED = "ai 5", "ai 6", "ai 7", "ai 7 by cursor"
AG_UI = "ag-ui"
MCP_TASK = "mcp task"
DURABLE_STREAM = "durable stream"
RESPONSES = "responses"

IN_PYTHON: dict[str, tuple[str, str, Json]] = {
    A2A_PYTHON_03: ("0.3.26", "all_a2a.py", {"version": "0.3"}),
    A2A_PYTHON_10: ("1.3.0", "all_a2a.py", {"version": "1.0"}),
    MCP_TASK: (MCP, "all_mcp.py", {}),
    DURABLE_STREAM: (DURABLE, "all_durable.py", {}),
    RESPONSES: (OPENAI, "all_responses.py", {}),
}
"""The environment (`pythons.py`), the script, and what else it is given."""
IN_NODE = {
    NATIVE: "native",
    A2A_JS_03: "a2a03",
    A2A_JS_10: "a2a10",
    AI_5: "ai5",
    AI_6: "ai6",
    AI_7: "ai7",
    AI_7_COUNTED: "ai7-counted",
    AG_UI: "ag-ui",
}
"""Kinds of `all_clients.mjs`."""
# Another reader is a script that says what it is at as these do, a line in one of the tables above, and the name in
# `jobs` of the stories in `test_all_clients.py`. If it has less than the folded log: a check in `OWN_CHECKS` of
# `all_outcomes.py`. If its stream does not have the bytes that `Doomed` looks for: its name in `WITHOUT_MARK`.
A2A = (A2A_PYTHON_03, A2A_PYTHON_10, A2A_JS_03, A2A_JS_10)
AI_SDK = (AI_5, AI_6, AI_7, AI_7_COUNTED)
BESIDE = (MCP_TASK,)
"""Readers that are no viewers of the log: the edge does not count them as connections."""
WITHOUT_MARK = (*BESIDE, RESPONSES)
"""Readers that are not shown the agent's own events: their streams break when those of the others have."""


class Stand(NamedTuple):
    """Two edges and a worker over a Redis of their own."""

    redis_url: str
    edges: list[EdgeProcess]


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    # Without compression: `Doomed` looks for bytes in what it passes on. However busy the machine is, no edge seems to
    # be silent.
    settings: Any = {"heartbeat_seconds": 5, "executes_per_minute": 0, "compress_streams": "off"}
    with EmbeddedRedis() as redis, edges(redis.url, 2, **settings) as started:
        worker = WorkerProcess(redis.url, "all_agents:agents", HERE, lease_seconds=8)
        try:
            yield Stand(redis.url, started)
        finally:
            worker.close()


class Doomed:
    """A way to an edge on which every connection breaks once, when these bytes come, in the middle of them."""

    def __init__(self, port: int, fatal: bytes) -> None:
        self._target = port
        self._fatal = fatal
        self._open: set[asyncio.Task[None]] = set()
        self._whole: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.cut = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Doomed]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await tasks.end(self._open)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(asyncio.create_task(self._serve(reader, writer), name="doomed"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        edge_reader, edge_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._whole.add(writer)
        up = asyncio.create_task(self._up(reader, edge_writer))
        try:
            await self._down(edge_reader, writer)
        finally:
            await tasks.end([up])
            self._whole.discard(writer)
            edge_writer.close()
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The bytes may come in two pieces: as much of the last one is held back as may be their beginning."""
        held = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                held += data
                if self._fatal in held:
                    writer.write(held[: held.index(self._fatal) + len(self._fatal) // 2])
                    await writer.drain()
                    self._break(writer)
                    return
                kept = _overlap(held, self._fatal)
                writer.write(held[: len(held) - kept])
                held = held[len(held) - kept :]
                await writer.drain()
            writer.write(held)

    def break_rest(self) -> None:
        """The connections on which the bytes have not come."""
        for writer in list(self._whole):
            self._break(writer)

    def _break(self, writer: asyncio.StreamWriter) -> None:
        """Not an end, but a reset."""
        self.cut += 1
        self._whole.discard(writer)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


def _overlap(data: bytes, wanted: bytes) -> int:
    """How many bytes at the end of one are the beginning of the other."""
    return next((count for count in range(len(wanted) - 1, 0, -1) if data.endswith(wanted[:count])), 0)


class Client:
    """A client in a process of its own. `said` is what it has printed."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self.name = name
        self.said: list[Json] = []
        self._process = process
        self._errors = errors
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name=f"client-{name}")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            self.said.append(json.loads(text))
            self._news.set()
        self._news.set()

    def at(self, what: str) -> list[Json]:
        return [each for each in self.said if each.get("at") == what]

    async def until(self, what: str) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                while not self.at(what):
                    self.is_at_work()
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError((self.name, f"did not say {what}", self.said[-3:], self._errors_text())) from None

    def is_at_work(self) -> bool:
        """True, or an error that says why not."""
        if self._reading.done():
            self._reading.result()
            ended = f"{self.name} has ended ({self._process.returncode}): {self.said[-1:]} {self._errors_text()}"
            raise AssertionError(ended)
        return True

    def _errors_text(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode()[-2000:]

    async def go(self) -> None:
        """Tell one that waits to answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        await self._process.stdin.drain()

    async def outcomes(self) -> list[Json]:
        """What it has of each job, when it has ended."""
        try:
            async with asyncio.timeout(SECONDS):
                await self._reading
                assert await self._process.wait() == 0, f"{self.name}: {self._errors_text()}"
        except TimeoutError:
            raise AssertionError((self.name, "did not end", self.said[-3:])) from None
        assert self.at("warned") == []
        return list(self.said[-1]["outcomes"])

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await tasks.end([self._reading])
        self._errors.close()


@contextlib.asynccontextmanager
async def clients(
    urls: Sequence[str], token: str, jobs: Mapping[str, Sequence[Json]]
) -> AsyncIterator[dict[str, Client]]:
    """One of each name, that does its jobs one after the other, going on to the next URL when its connection breaks."""
    pipe = asyncio.subprocess.PIPE
    started: dict[str, Client] = {}
    try:
        for name, each in jobs.items():
            command = _command(name, {"urls": list(urls), "token": token, "jobs": each})
            errors = tempfile.TemporaryFile(prefix="runcast-client-")  # noqa: SIM115 - closed by `close`
            process = await asyncio.create_subprocess_exec(
                *command, cwd=HERE, stdin=pipe, stdout=pipe, stderr=errors, limit=2**24
            )
            started[name] = Client(name, process, errors)
        yield started
    finally:
        for client in started.values():
            await client.close()


def _command(name: str, given: Json) -> list[str]:
    if name in IN_NODE:
        assert NODE is not None
        return [NODE, "--no-warnings", "all_clients.mjs", IN_NODE[name], json.dumps(given)]
    environment, script, more = IN_PYTHON[name]
    python: Path | None = python_of(environment)
    if python is None:
        pytest.skip(f"{environment} could not be installed: no package index")
    return [str(python), "-W", "ignore", script, json.dumps({**given, **more})]
