"""One edge process under a supervisor: it serves on inherited sockets, and says every second that its loop runs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

from broker.base.settings import Settings
from broker.edge.edge import Edge, serve
from broker.edge.supervisor import BEAT_SECONDS
from broker.http.shares import Shares


async def run_child(
    settings: Settings, number: int, public_fd: int, admin_fd: int, beat_fd: int, shares_fd: int
) -> None:
    """The side of the child with this number: serve on inherited sockets, and beat."""
    public, admin = socket.socket(fileno=public_fd), socket.socket(fileno=admin_fd)
    shares = Shares(shares_fd, number)
    beating: list[asyncio.Task[None]] = []

    def ready(_: Edge) -> None:
        beating.append(asyncio.create_task(_beat(beat_fd), name="beat"))

    try:
        await serve(settings, public=public, admin=admin, shares=shares, ready=ready)
    finally:
        for task in beating:
            task.cancel()


async def _beat(pipe: int) -> None:
    """Tell the supervisor every second that the loop runs; end this process when the supervisor is gone."""
    os.set_blocking(pipe, False)
    while True:
        try:
            os.write(pipe, b".")
        except BlockingIOError:
            pass  # the supervisor is slow to read; it has seen enough beats
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        await asyncio.sleep(BEAT_SECONDS)
