"""Reads what Redis pushes on a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from emitter.store.replies import Replies


class PushReader(Replies):
    """`on_push` is called for every reply, errors included, and `on_read` after those of one read of the socket. What
    they raise ends the reading."""

    def __init__(self, connection: Any, on_push: Callable[[Any], None], on_read: Callable[[], None]) -> None:
        super().__init__(connection)
        self._on_push = on_push
        self._on_read = on_read
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self) -> None:
        """Read until the connection is lost. Raises the error that lost it."""
        await self.take_over()
        await self._lost

    def on_reply(self, reply: Any) -> None:
        self._on_push(reply)

    def on_lost(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        try:
            self._on_read()
        except Exception as error:
            self.on_lost(error)
