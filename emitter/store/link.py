"""A connection beside a client's pool, for many commands at once, one exchange at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from emitter.store import watched
from emitter.store.replies import Replies
from emitter.store.watched import Watched

PING = b"*1\r\n$4\r\nPING\r\n"
Done = Callable[[list[Any] | Exception], None]
"""Takes the replies in order, with an error of the server in the place of its reply, or why there are none."""


class Link:
    """redis-py connects and logs in; then the replies are read here, as they come.

    A client's `execute_command` packs arguments one by one, takes a connection from the pool, and sends in a task: that
    takes five times as long. Every exchange is bounded by the client's socket timeout; nothing is repeated. After an
    exchange that failed it is not known which of its commands ran.
    """

    def __init__(self, redis: Redis) -> None:
        pool = redis.connection_pool
        self._seconds = float(pool.connection_kwargs.get("socket_timeout") or 5.0)
        self._connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]
        self._replies: _Exchanges | None = None

    @property
    def is_ready(self) -> bool:
        """Whether `begin` can send now, and no exchange is under way; otherwise `make_ready` connects, or tests a
        connection that was quiet."""
        replies = self._replies
        return (
            replies is not None
            and replies.is_open
            and not replies.is_busy
            and time.monotonic() - replies.begun_at < watched.IDLE_SECONDS
            and self._is_on_its_way
        )

    @property
    def _is_on_its_way(self) -> bool:
        return not isinstance(self._connection, Watched) or self._connection.is_on_its_way

    def begin(self, commands: bytes, count: int, done: Done) -> None:
        """Send `count` packed commands, without a wait: the link is ready. Raises a `GONE` error if they cannot be
        sent; `done` is not called then."""
        assert self._replies is not None
        self._replies.begin(commands, count, self._seconds, done)

    async def make_ready(self) -> None:
        """Raises `GONE` errors and those of logging in."""
        if self._replies is not None and self._replies.is_open and self._is_on_its_way and await self._answers():
            return
        await self._disconnect()
        await self._connection.connect()
        replies = _Exchanges(self._connection)
        await replies.take_over()
        if not replies.is_open:
            raise RedisConnectionError("the connection was lost as soon as it was made")
        self._replies = replies

    async def _answers(self) -> bool:
        try:
            await self._exchange(PING, 1, watched.TRY_SECONDS)
        except (RedisError, OSError, TimeoutError):
            return False
        return True

    async def exchange(self, commands: bytes, count: int) -> list[Any]:
        """`begin` whatever the state of the link, and wait for the replies. Raises `GONE` errors if the connection is
        lost."""
        if not self.is_ready:
            async with asyncio.timeout(self._seconds):
                await self.make_ready()
        return await self._exchange(commands, count, self._seconds)

    async def _exchange(self, commands: bytes, count: int, seconds: float) -> list[Any]:
        assert self._replies is not None
        future: asyncio.Future[list[Any] | Exception] = asyncio.get_running_loop().create_future()
        self._replies.begin(commands, count, seconds, partial(_settle, future))
        try:
            found = await future
        except asyncio.CancelledError:
            self.abort()
            raise
        if isinstance(found, Exception):
            raise found
        return found

    def abort(self) -> None:
        """Give up the exchange that is under way, if there is one: nobody will hear of it."""
        if self._replies is not None:
            self._replies.abort()

    async def _disconnect(self) -> None:
        self.abort()
        self._replies = None
        await self._connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        self.abort()
        self._replies = None
        await self._connection.disconnect()


def _settle(future: asyncio.Future[list[Any] | Exception], found: list[Any] | Exception) -> None:
    if not future.done():
        future.set_result(found)


class _Exchanges(Replies):
    """One timer serves many exchanges: it is set anew only when it has run out."""

    def __init__(self, connected: Any) -> None:
        super().__init__(connected)
        self._connection = connected
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._found: list[Any] = []
        self._count = 0
        self._done: Done | None = None
        self.begun_at = time.monotonic()
        self.is_open = True

    @property
    def is_busy(self) -> bool:
        return self._done is not None

    def begin(self, commands: bytes, count: int, seconds: float, done: Done) -> None:
        assert self._done is None, "an exchange is under way"
        self.begun_at = time.monotonic()
        self._found, self._count, self._done = [], count, done
        self._until = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._until:
            self._set_timer(self._until)
        try:
            self.transport.write(commands)
        except Exception as error:
            self.abort()
            raise RedisConnectionError(f"the commands could not be sent: {error}") from error

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._done is None:
            return
        if self._loop.time() < self._until:
            self._set_timer(self._until)
        else:
            self.on_lost(RedisTimeoutError("Redis has not answered in time"))

    def on_reply(self, reply: Any) -> None:
        if isinstance(reply, RedisConnectionError):  # it is starting, or knows us no more
            self.on_lost(reply)
        elif isinstance(reply, hiredis.PushNotification):
            pass
        elif self._done is None:
            self.on_lost(RedisConnectionError("Redis answered what was not asked"))
        else:
            if isinstance(reply, Exception) and isinstance(self._connection, Watched):
                self._connection.note_error(reply)
            self._found.append(reply)
            if len(self._found) == self._count:
                self._end(self._found)

    def _end(self, found: list[Any] | Exception) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(found)

    def on_lost(self, error: Exception) -> None:
        self.is_open = False
        self.transport.abort()
        self._end(error)

    def abort(self) -> None:
        """Nobody hears of the exchange that is under way; without one, nothing happens."""
        if self._done is not None:
            self._done = None
            self.on_lost(RedisConnectionError("given up"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
