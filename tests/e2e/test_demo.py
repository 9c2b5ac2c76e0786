"""`runcast demo` as a newcomer has it: one command, a link, and nothing left when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

from tests.edges import ROOT, SSE, Connection, call, request, under_load
from tests.ports import reserved_ports

SECONDS = 30.0


@contextlib.asynccontextmanager
async def demo() -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """The process and the port of its console."""
    with reserved_ports(2) as (port, admin_port):
        async with _demo(port, admin_port) as process:
            yield process, port


@contextlib.asynccontextmanager
async def _demo(port: int, admin_port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
    environ |= {"RUNCAST_PORT": str(port), "RUNCAST_ADMIN_PORT": str(admin_port), "PYTHONPATH": str(ROOT)}
    environ |= {"RUNCAST_GRACE_SECONDS": "0", "RUNCAST_DRAIN_SECONDS": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", "demo", env=environ, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def said(process: asyncio.subprocess.Process, last: str) -> list[str]:
    """The lines of the welcome, up to one that contains something."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(under_load(SECONDS)):
        while not lines or last not in lines[-1]:
            line = (await process.stdout.readline()).decode()
            assert line, f"the demo ended:\n{''.join(lines)}"
            lines.append(line.rstrip())
    return lines


async def snapshot_with_workers(connection: Connection) -> str:
    async with asyncio.timeout(under_load(SECONDS)):
        async for frame in connection.frames():
            if frame.event == "ops" and '"analyst"' in (frame.data or ""):
                return frame.data or ""
    raise AssertionError("the stream ended")


async def test_the_first_thing_it_shows_is_the_console() -> None:
    """The welcome's first address is the console's, which is served; the token behind its # starts the demo's agents
    and sees the operations, and is nowhere in what a server would log. Ctrl-C ends everything, with status 0."""
    async with demo() as (process, port):
        lines = await said(process, "a new one takes over")
        link = next(line.strip() for line in lines if "http://" in line)
        address, _, token = link.partition("#token=")
        assert address == f"http://127.0.0.1:{port}/"
        assert f"  export RUNCAST_TOKEN={token}" in lines
        async with request(port, "GET", "/") as page:
            assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert token not in str(page.headers)
        async with request(port, "GET", "/api/ops/stream", token, headers=SSE) as operations:
            assert '"up":true' in await snapshot_with_workers(operations)
        task = {"agent": "analyst", "task": str(ROOT / "deploy"), "params": {"pace": 0}}
        assert (await call(port, "POST", "/api/agent/execute", token, task)).status == 202
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(under_load(SECONDS)):
            assert await process.wait() == 0
