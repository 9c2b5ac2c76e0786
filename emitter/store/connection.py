"""Redis clients with the options of this project: RESP2, bytes in and out, short timeouts, no hidden retries, and no
connections to a dead or wrong server."""

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
# Raised by an interrupted call. A retry is only safe for idempotent calls, so callers decide.
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

    redis-py by default repeats every command ten times, which would append an event twice if a reply is lost. Here a
    read is repeated once if its connection breaks, and other commands only with `retries`. The client of a Cluster
    repeats commands, because it finds its nodes that way. `timeout` bounds connecting and every reply, in seconds.
    Raises `InvalidSetting` for a key prefix that is not valid.
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
    """The error's text, without the representations of clients that redis-py adds if no Sentinel knows a primary."""
    return str(error).partition(" : <")[0] or type(error).__name__


# --- repeats ---------------------------------------------------------------------------------------------------------

READS = frozenset(
    {
        *("PING", "TIME", "INFO", "EXISTS", "GET", "HGET", "HMGET", "HGETALL", "HEXISTS", "HLEN", "ZCARD", "ZCOUNT"),
        *("ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE", "ZSCORE", "XLEN", "XRANGE", "XREVRANGE"),
    }
)


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat an idempotent call once if its connection breaks. A call that timed out is not repeated, because its
    caller has waited long enough."""
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
"""A connection that sent nothing for this long is tested before use: a proxy or NAT may have dropped it."""
TRY_SECONDS = 1.0
LEAVE_AGAIN_SECONDS = 1.0
"""While an address leads to the wrong server, its connections are replaced no more often than this."""


class _Way:
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
                # Sending would connect as well, but without a query to Sentinel.
                await self.connect()  # type: ignore[no-untyped-call]
        self._sent_at = time.monotonic()
        try:
            await super().send_packed_command(command, check_health)
        except AttributeError as error:  # another task has disconnected it meanwhile, as a Cluster's client does
            if self.is_connected:
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
            self.note_error(error)
            raise


def _says_look_elsewhere(error: ResponseError) -> bool:
    """Whether the server was demoted, or lost its primary or its replicas, perhaps to another server."""
    return isinstance(error, ReadOnlyError | MasterDownError) or str(error).startswith("NOREPLICAS")


# `Watched` comes last, because Sentinel's own connection hides some replies from classes before it.
class _Tcp(Connection, Watched):
    pass


class _Tls(SSLConnection, Watched):
    pass


class _Unix(UnixDomainSocketConnection, Watched):
    pass


class _ToPrimary(SentinelManagedConnection, Watched):
    pass


class _ToPrimaryByTls(SentinelManagedSSLConnection, Watched):
    pass


_WATCHED: dict[type[AbstractConnection], type[Watched]] = {
    Connection: _Tcp,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}
"""Connection class of redis-py → ours."""


# --- Sentinel and Cluster --------------------------------------------------------------------------------------------


class _SentinelMaster(_Client):
    """A client of the primary that the Sentinels name; it also closes the connections to them."""

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


# --- packed commands --------------------------------------------------------------------------------------------------


def pack(arguments: Sequence[str | bytes | int]) -> bytes:
    """Arguments of a command in the Redis protocol (RESP2 bulk strings), without the leading count."""
    encoded = [item if isinstance(item, bytes) else str(item).encode() for item in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(item), item) for item in encoded])
