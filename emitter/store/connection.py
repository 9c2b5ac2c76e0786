"""Redis clients as this project needs them: RESP2, bytes in and out, short bounded waits, no hidden retries, and no
connection kept that leads nowhere or to the wrong server."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from emitter.errors import InvalidEvent, InvalidSetting
from emitter.redis_url import Address, read_url
from emitter.wire import keys

DEFAULT_URL = "redis://127.0.0.1:6379/0"
# What an interrupted call raises. A retry is only safe where a repeat does nothing twice, so callers decide.
# `RedisClusterException` is no `RedisError`: no node of the Cluster answers, or none has the slot.
GONE = (RedisConnectionError, RedisTimeoutError, RedisClusterException, ConnectionError, TimeoutError, OSError)

T = TypeVar("T")
log = structlog.get_logger("emitter.connection")


class Channels(NamedTuple):
    """How a client publishes. In a Cluster only the node that has a log carries its messages (`SPUBLISH`)."""

    publish: str = "PUBLISH"
    suffix: str = ""


def channels_of(redis: Redis) -> Channels:
    if isinstance(redis, RedisCluster):
        return Channels("SPUBLISH")
    return Channels(suffix=keys.channel_suffix(int(redis.connection_pool.connection_kwargs.get("db") or 0)))


async def publish(redis: Redis, key: str, message: bytes) -> None:
    """Publish on a key's channel in the client's database."""
    await redis.publish(key + channels_of(redis).suffix, message)


def connect(url: str = DEFAULT_URL, *, retries: int = 0, timeout: float = 5.0, max_connections: int = 256) -> Redis:
    """A client for `redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,host:port/<master>[/<db>]` or
    `redis+cluster://host:port`; the last two with TLS as `rediss+…`. Raises `InvalidEvent` for another address.

    redis-py by default repeats every command ten times, which would append an event twice when a reply is lost: here
    a read is repeated once when its connection breaks, and nothing else unless `retries` says so (but by a Cluster's
    client, which finds its nodes again that way). `timeout` bounds connecting and every reply, in seconds. Raises
    `InvalidSetting` for a key prefix that cannot be.
    """
    if not keys.PREFIX_FORM.match(keys.PREFIX):
        raise InvalidSetting("RUNCAST_REDIS_PREFIX", keys.PREFIX[:64], keys.PREFIX_ALLOWED)
    address = read_url(url)
    options: dict[str, Any] = {
        "protocol": 2,  # RESP2 costs a third less per pub/sub message than RESP3
        "legacy_responses": True,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.5), retries),
        "max_connections": max_connections,
        "way": _Way(),
        **address.options,
    }
    if address.kind == "cluster":
        return _cluster(address, options)
    if address.kind == "sentinel":
        return _sentinel_master(address, options)
    options["connection_class"] = _WATCHED[options.get("connection_class", Connection)]
    return _Client.from_pool(ConnectionPool(**options))  # which closes the pool with the client


def one_line(error: Exception) -> str:
    """What went wrong, without the pictures of clients that redis-py adds where no Sentinel knows a primary."""
    return str(error).partition(" : <")[0] or type(error).__name__


# --- repeats ---------------------------------------------------------------------------------------------------------

READS = frozenset(
    {
        *("PING", "TIME", "INFO", "EXISTS", "GET", "HGET", "HMGET", "HGETALL", "HEXISTS", "HLEN", "ZCARD", "ZCOUNT"),
        *("ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE", "ZSCORE", "XLEN", "XRANGE", "XREVRANGE"),
    }
)


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call once more if its connection breaks: for what does nothing twice. A call that got no answer in time is
    not repeated, since its caller has waited long enough."""
    try:
        return await call()
    except (RedisConnectionError, ConnectionError):
        return await call()


class _Client(Redis):
    """A client that repeats reads."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        call = partial(super().execute_command, *args, **options)
        return await (repeated(call) if args[0] in READS else call())


# --- connections -----------------------------------------------------------------------------------------------------

IDLE_SECONDS = 1.0
"""A connection that sent nothing for this long is tried before it is used: what is between may have forgotten it."""
TRY_SECONDS = 1.0
LEAVE_AGAIN_SECONDS = 1.0
"""While an address still leads to the wrong server, its connections are made anew no more often than this."""


class _Way:
    """Where the connections of one client lead: a number that changes when all of them have to be made anew."""

    def __init__(self) -> None:
        self.turn = 0
        self._left_at = -math.inf

    def leave(self, turn: int, why: str) -> None:
        """A connection of this turn leads to the wrong server."""
        now = time.monotonic()
        if turn == self.turn and now - self._left_at >= LEAVE_AGAIN_SECONDS:
            self.turn += 1
            self._left_at = now
            log.warning("redis_connections_left", error=why[:200])


class _Watched(AbstractConnection):
    """Connects anew, before it sends, when the connection leads to the wrong server or was forgotten on its way. Only
    for connections that are not subscribed; those send with `check_health=False`. `way` is that of its client."""

    def __init__(self, *, way: _Way, **kwargs: Any) -> None:
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
                # Sending would connect as well, but without asking Sentinel where.
                await self.connect()  # type: ignore[no-untyped-call]
        self._sent_at = time.monotonic()
        try:
            await super().send_packed_command(command, check_health)
        except AttributeError as error:  # another task has disconnected it meanwhile, as a Cluster's client does
            if self.is_connected:
                raise
            raise RedisConnectionError("the connection was closed") from error

    async def _is_good(self) -> bool:
        if self._turn != self._way.turn:
            return False
        return time.monotonic() - self._sent_at < IDLE_SECONDS or await self._answers()

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(TRY_SECONDS):
                await super().send_packed_command(self.pack_command("PING"), False)
                await super().read_response()
        except ResponseError:
            return True
        except (RedisError, *GONE):
            return False
        return True

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            if _says_look_elsewhere(error):
                self._way.leave(self._turn, str(error))
            raise


def _says_look_elsewhere(error: ResponseError) -> bool:
    """Whether it comes from a server that was demoted, lost its primary, or lost its replicas, maybe to another."""
    return isinstance(error, ReadOnlyError | MasterDownError) or str(error).startswith("NOREPLICAS")


# `_Watched` comes last, because Sentinel's own connection hides some answers from what comes before it.
class _Tcp(Connection, _Watched):
    pass


class _Tls(SSLConnection, _Watched):
    pass


class _Unix(UnixDomainSocketConnection, _Watched):
    pass


class _ToPrimary(SentinelManagedConnection, _Watched):
    pass


class _ToPrimaryByTls(SentinelManagedSSLConnection, _Watched):
    pass


_WATCHED: dict[type[AbstractConnection], type[_Watched]] = {
    Connection: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}
"""What is used for what redis-py makes of an address."""


# --- Sentinel and Cluster --------------------------------------------------------------------------------------------


class _SentinelMaster(_Client):
    """A client of the primary that the Sentinels name, which closes its connections to them as well."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _sentinel_master(address: Address, options: dict[str, Any]) -> Redis:
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    sentinel_options = {
        "socket_timeout": options["socket_timeout"],
        "socket_connect_timeout": options["socket_connect_timeout"],
        "password": address.sentinel_password,
        "ssl": address.has_tls,
        **tls,
    }
    sentinel = Sentinel(address.sentinels, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    options["connection_class"] = _ToPrimaryByTls if address.has_tls else _ToPrimary
    client: Redis = sentinel.master_for(address.master, redis_class=_SentinelMaster, **options)
    return client


def _cluster(address: Address, options: dict[str, Any]) -> Redis:
    for name in ("retry", "connection_class"):
        options.pop(name, None)
    watched = {"way": options.pop("way")}
    try:
        client: Any = RedisCluster(**options, ssl=address.has_tls)
    except RedisClusterException as error:
        raise InvalidEvent(f"redis url: {str(error).splitlines()[0]}") from None
    kind = _Tls if address.has_tls else _Tcp
    client.connection_kwargs.update(watched, connection_class=kind)
    for node in client.nodes_manager.startup_nodes.values():
        node.connection_class = kind
        node.connection_kwargs.update(watched)
    return client  # type: ignore[no-any-return]


# --- commands that are packed already --------------------------------------------------------------------------------


def pack(arguments: Sequence[str | bytes | int]) -> bytes:
    """Arguments of a command in the Redis protocol (RESP2 bulk strings), without the count that leads a command."""
    encoded = [item if isinstance(item, bytes) else str(item).encode() for item in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(item), item) for item in encoded])


class Link:
    """A connection of its own beside a client's pool, for whoever sends many commands at once and one lot at a time.

    A client's `execute_command` packs arguments one by one, borrows a connection, and sends in a task of its own: five
    times the time of what is done here. Every call is bounded by the client's socket timeout; nothing is repeated.
    """

    def __init__(self, redis: Redis) -> None:
        pool = redis.connection_pool
        self._seconds = float(pool.connection_kwargs.get("socket_timeout") or 5.0)
        self._connection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._connection.socket_timeout = None  # one bound for the whole exchange instead of a task for each part

    async def exchange(self, commands: bytes, count: int) -> list[Any]:
        """Send `count` packed commands; their replies in order, a server's error in the place of its reply. Raises
        `GONE` when the connection is lost: which of them ran is then unknown."""
        async with asyncio.timeout(self._seconds):
            await self._connection.send_packed_command(commands)
            return [await self._reply() for _ in range(count)]

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error

    async def aclose(self) -> None:
        await self._connection.disconnect()
