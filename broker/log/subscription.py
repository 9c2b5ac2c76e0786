"""The one Redis subscription of an edge: every channel of every viewer over one connection (in a Cluster
`broker.log.cluster_subscription` has one to each primary).

redis-py's PubSub reconnects and resubscribes by itself, without a sign, and in any task that meets the error: a reader
and a subscriber that met it together read each other's replies, and the edge received nothing any more. So one task
here makes a connection, uses it until it is lost and makes the next; redis-py finds the server and speaks the protocol.
Messages published meanwhile are lost: `on_lost` is called for every channel that is confirmed again, and the edge reads
its log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from types import TracebackType
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.base.logging import get_logger
from broker.log.push_reader import PushReader
from emitter import tasks
from emitter.backoff import backoff_seconds
from emitter.errors import RedisUnavailable
from emitter.store.connection import GONE

CONFIRM_SECONDS = 10.0


class Subscription:
    """`async with Subscription(…)`. `permanent` channels are held for its whole life.

    Channels are named by their keys here; `suffix` is what follows a key on the wire (`wire.channel_suffix`).

    on_message(channel, data) is called for every message; on_lost(channel) when messages may have been missed;
    on_reconnect() once for every connection after the first; on_read() after each read of a socket, which may have
    brought many messages. They are synchronous and must not raise.
    """

    SUBSCRIBE, UNSUBSCRIBE = "SUBSCRIBE", "UNSUBSCRIBE"

    def __init__(
        self,
        redis: Redis,
        permanent: list[str],
        on_message: Callable[[str, bytes], None],
        on_lost: Callable[[str], None],
        on_reconnect: Callable[[], None] = lambda: None,
        on_read: Callable[[], None] = lambda: None,
        *,
        suffix: str = "",
    ) -> None:
        self._redis: Any = redis
        self._suffix = suffix
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_reconnect = on_reconnect
        self._on_read = on_read
        self._permanent = permanent
        self._wanted: set[str] = set(permanent)
        self._sent: set[str] = set()
        self._confirmed: set[str] = set()
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._log = get_logger()
        self.connected = False
        self.reconnects = 0

    async def __aenter__(self) -> Subscription:
        self._task = asyncio.create_task(self._run(), name="subscription")
        try:
            await self.subscribe(self._permanent[0])
        except BaseException:
            await tasks.end([self._task])
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._task is not None:
            await tasks.end([self._task])
        for waiter in self._waiters.values():
            if not waiter.done():  # never cancelled: that would end the task that waits
                waiter.set_exception(RedisUnavailable("the subscription has ended"))
                waiter.exception()  # there may be no caller any more

    @property
    def channels(self) -> int:
        return len(self._confirmed)

    async def subscribe(self, channel: str) -> None:
        """Hold a channel and wait until Redis confirmed it. Raises `RedisUnavailable`."""
        self._wanted.add(channel)
        if channel in self._confirmed:
            return
        waiter = self._waiters.get(channel)
        if waiter is None:
            waiter = self._waiters[channel] = asyncio.get_running_loop().create_future()
        self._changed.set()  # also for a waiter that was there: the channel may have been unwanted in between
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await asyncio.shield(waiter)
        except TimeoutError:
            raise RedisUnavailable(f"no confirmation of a subscription within {CONFIRM_SECONDS:g} s") from None

    def holds(self, channel: str) -> bool:
        """Whether Redis has confirmed a channel, which is held from here on."""
        is_confirmed = channel in self._confirmed
        if is_confirmed:
            self._wanted.add(channel)
        return is_confirmed

    def unsubscribe(self, channel: str) -> None:
        self._wanted.discard(channel)
        self._changed.set()

    def reconnect(self) -> None:
        """Give the connection up for a new one, on which every channel is confirmed again."""
        if self._reading is not None:
            self._reading.cancel()

    # --- one connection after another --------------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while not tasks.told_to_stop():
            try:
                async with self._connection() as connection:
                    await self._use(connection)
            except (RedisError, *GONE) as error:
                self._log.warning("subscription_lost", error=type(error).__name__, failures=failures + 1)
            except Exception:  # the last resort of this task: without it the edge would receive nothing for ever
                self._log.exception("subscription_failed")
            failures = 0 if self.connected else failures + 1
            self.connected = False
            await asyncio.sleep(backoff_seconds(failures, first=0.05, most=2.0))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection on which the permanent channels are subscribed to; closed at the end."""
        pubsub = self._redis.pubsub()
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._redis.initialize()  # a cluster's client must know its nodes first
                await pubsub.execute_command(self.SUBSCRIBE, *self._names(self._permanent))
            yield pubsub.connection
        finally:
            with contextlib.suppress(RedisError, *GONE):
                await pubsub.aclose()

    async def _use(self, connection: Any) -> None:
        """Hold the wanted channels over one connection until it is lost. Raises the error that lost it."""
        self._sent = set(self._permanent)
        self._confirmed &= self._wanted
        self._changed.set()
        # From here on only these tasks use the connection, and neither makes a new one.
        self._reading = asyncio.create_task(self._read(connection), name="subscription-read")
        users = [self._reading, asyncio.create_task(self._change(connection), name="subscription-change")]
        try:
            await asyncio.wait(users, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.end(users)
        for task in users:
            if not task.cancelled():
                await task

    async def _change(self, connection: Any) -> None:
        """Send what changed since the last time as one command each; a wave of joins costs one round trip."""
        while not tasks.told_to_stop():
            await self._changed.wait()
            self._changed.clear()
            if added := self._wanted - self._sent:
                self._sent |= added
                await self._send(connection, self.SUBSCRIBE, added)
            if dropped := self._sent - self._wanted:
                # Forgotten before it is sent: a caller that wants one of them again must wait for a later confirmation.
                self._confirmed -= dropped
                self._sent -= dropped
                await self._send(connection, self.UNSUBSCRIBE, dropped)

    async def _send(self, connection: Any, verb: str, channels: set[str]) -> None:
        await connection.send_command(verb, *self._names(channels), check_health=False)

    async def _read(self, connection: Any) -> None:
        await PushReader(connection, self._on_reply, self._on_read).read()

    def _on_reply(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        self._handle(reply)

    def _handle(self, reply: Any) -> None:
        kind, channel, data = reply
        if kind == b"message":
            self._on_message(channel.decode().removesuffix(self._suffix), data)
        elif kind == b"subscribe":
            self._on_confirmation(channel.decode().removesuffix(self._suffix))

    def _names(self, channels: Collection[str]) -> list[str]:
        return [channel + self._suffix for channel in channels]

    def _on_confirmation(self, channel: str) -> None:
        self.connected = True
        again = channel in self._confirmed
        if channel in self._wanted:
            self._confirmed.add(channel)
        waiter = self._waiters.pop(channel, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if again:
            if self._permanent[:1] == [channel]:
                self._reconnected()
            self._on_lost(channel)

    def _reconnected(self) -> None:
        self.reconnects += 1
        self._on_reconnect()
        self._log.warning("subscription_reconnected", channels=len(self._confirmed))
