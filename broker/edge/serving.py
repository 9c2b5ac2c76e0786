"""Parts of an edge that live as long as a block: a task, and an application behind a listener."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from aiohttp import web

from broker.http.connection import Connection, Unreadable, announce_end
from broker.http.listener import Listener
from broker.http.stream_door import Open, StreamDoor
from emitter import tasks

SHUTDOWN_SECONDS = 5.0
"""How long requests may take to end after the listener has closed."""


@contextlib.asynccontextmanager
async def owned(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """A task for the length of a block."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        await tasks.end([task])


@contextlib.asynccontextmanager
async def serving(
    app: web.Application,
    listener: Listener,
    unreadable: Unreadable,
    settle_seconds: float = 0,
    *,
    open_stream: Open | None = None,
) -> AsyncIterator[None]:
    """Serve an application to those whom the listener lets in. `open_stream` opens native streams, if it has some."""
    app.on_response_prepare.append(announce_end)
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    server = runner.server
    assert server is not None

    def connection() -> Connection:
        return Connection(server, listener, unreadable)

    door = None if open_stream is None else StreamDoor(listener, open_stream, connection)
    try:
        async with listener.listening(connection if door is None else door.protocol, settle_seconds):
            yield
    finally:
        if door is not None:
            await door.close(SHUTDOWN_SECONDS)
        await runner.cleanup()
