"""Connections that are not used if they lead to a dead or wrong server."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, RedisError, ResponseError

log = structlog.get_logger("emitter.connection")

IDLE_SECONDS = 1.0
"""A connection that sent nothing for this long is tested before use: a proxy or NAT may have dropped it."""
TRY_SECONDS = 1.0
LEAVE_AGAIN_SECONDS = 1.0
"""While an address leads to the wrong server, its connections are replaced no more often than this."""


class Way:
    """The generation of one client's connections: it changes if all of them must be replaced."""

    def __init__(self) -> None:
        self.turn = 0
        self._left_at = -math.inf

    def leave(self, turn: int, why: str) -> None:
        """A connection of this generation leads to the wrong server."""
        now = time.monotonic()
        if turn == self.turn and now - self._left_at >= LEAVE_AGAIN_SECONDS:
            self.turn += 1
            self._left_at = now
            log.warning("redis_connections_left", error=why[:200])


class Watched(AbstractConnection):
    """Reconnects before it sends, if the connection leads to the wrong server or was dropped on the way. Only for
    connections without subscriptions; the others send with `check_health=False`. `way` belongs to the client."""

    def __init__(self, *, way: Way, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._way = way
        self._turn = 0
        self._sent_at = 0.0

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_connected:
            self._turn, self._sent_at = self._way.turn, time.monotonic()
        await super().connect_check_health(*args, **kwargs)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if check_health:
            if self.is_connected and not await self._is_good():
                await self.disconnect(nowait=True)
            if not self.is_connected:
                # Sending would connect as well, but without a query to Sentinel.
                await self.connect()  # type: ignore[no-untyped-call]
        self._sent_at = time.monotonic()
        await self._send(command, check_health)

    async def _send(self, command: Any, check_health: bool) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except (AttributeError, TypeError) as error:
            # Another task has disconnected it meanwhile, or begun to, as a Cluster's client does.
            if self._writer is not None and not self._writer.is_closing():
                raise
            raise RedisConnectionError("the connection was closed") from error

    @property
    def is_on_its_way(self) -> bool:
        """False if all connections of the client are to be replaced."""
        return self._turn == self._way.turn

    def note_error(self, error: Exception) -> None:
        """Redis answered with an error: perhaps it is the wrong server."""
        if isinstance(error, ResponseError) and _says_look_elsewhere(error):
            self._way.leave(self._turn, str(error))

    async def _is_good(self) -> bool:
        if not self.is_on_its_way:
            return False
        return time.monotonic() - self._sent_at < IDLE_SECONDS or await self._answers()

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(TRY_SECONDS):
                await self._send(self.pack_command("PING"), False)
                await super().read_response()
        except ResponseError:
            return True
        except (RedisError, OSError, TimeoutError):
            return False
        return True

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            self.note_error(error)
            raise


def _says_look_elsewhere(error: ResponseError) -> bool:
    """Whether the server was demoted, or lost its primary or its replicas, perhaps to another server."""
    return isinstance(error, ReadOnlyError | MasterDownError) or str(error).startswith("NOREPLICAS")
