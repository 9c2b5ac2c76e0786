"""Redis clients as this project needs them: RESP2, bytes in and out, short bounded waits, no hidden retries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisClusterException, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from emitter import wire
from emitter.errors import InvalidEvent, InvalidSetting

DEFAULT_URL = "redis://127.0.0.1:6379/0"
# What an interrupted call raises. A retry is only safe where a repeat does nothing twice, so callers decide.
# `RedisClusterException` is no `RedisError`: no node of the Cluster answers, or none has the slot.
GONE = (RedisConnectionError, RedisTimeoutError, RedisClusterException, ConnectionError, TimeoutError, OSError)


class Channels(NamedTuple):
    """How a client publishes. In a Cluster only the node that has a log carries its messages (`SPUBLISH`)."""

    publish: str = "PUBLISH"
    suffix: str = ""


def channels_of(redis: Redis) -> Channels:
    if isinstance(redis, RedisCluster):
        return Channels("SPUBLISH")
    return Channels(suffix=wire.channel_suffix(int(redis.connection_pool.connection_kwargs.get("db") or 0)))


async def publish(redis: Redis, key: str, message: bytes) -> None:
    """Publish on a key's channel in the client's database."""
    await redis.publish(key + channels_of(redis).suffix, message)


def connect(url: str = DEFAULT_URL, *, retries: int = 0, timeout: float = 5.0, max_connections: int = 256) -> Redis:
    """A client for `redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,host:port/<master>[/<db>]` or
    `redis+cluster://host:port`.

    redis-py by default repeats every command ten times, which would append an event twice when a reply is lost: here
    nothing is repeated unless `retries` says so (but by a Cluster's client, which finds its nodes again that way).
    `timeout` bounds connecting and every reply, in seconds. Raises `InvalidSetting` for a key prefix that cannot be.
    """
    if not wire.PREFIX_FORM.match(wire.PREFIX):
        raise InvalidSetting("RUNCAST_REDIS_PREFIX", wire.PREFIX[:64], wire.PREFIX_ALLOWED)
    options: dict[str, Any] = {
        "protocol": 2,  # RESP2 costs a third less per pub/sub message than RESP3
        "legacy_responses": True,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.5), retries),
        "max_connections": max_connections,
    }
    scheme = urlsplit(url).scheme
    if scheme == "redis+sentinel":
        return _sentinel_master(url, options)
    if scheme == "redis+cluster":
        options.pop("retry")
        return RedisCluster.from_url(url.replace("redis+cluster", "redis", 1), **options)  # type: ignore[return-value]
    if scheme not in ("redis", "rediss", "unix"):
        raise InvalidEvent(
            f"redis url: scheme {scheme!r} is not one of redis, rediss, unix, redis+sentinel, redis+cluster"
        )
    return Redis.from_pool(ConnectionPool.from_url(url, **options))  # which closes the pool with the client


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidEvent(f"redis url: {text[:80]!r} is not host:port")
    return host.strip("[]"), int(port)


class _SentinelMaster(Redis):
    """A client of the primary that the Sentinels name, which closes its connections to them as well."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


class _ToThePrimary(SentinelManagedConnection):
    """A connection that asks the Sentinels anew also when its primary has no replicas: that is how one looks which was
    replaced and has not been told yet, for ten seconds after a failover that found it well."""

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as error:
            if _has_no_replicas(error):
                await self.disconnect()
                raise RedisConnectionError(str(error)) from error
            raise


def _sentinel_master(url: str, options: dict[str, Any]) -> Redis:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    sentinels = [_host_and_port(host) for host in hosts.split(",")]
    master, _, db = parts.path.strip("/").partition("/")
    if credentials:
        user, _, password = credentials.partition(":")
        options |= {"username": unquote(user) or None, "password": unquote(password) or None}
    sentinel_password = parse_qs(parts.query).get("sentinel_password", [None])[0]
    sentinel_options = {
        "socket_timeout": options["socket_timeout"],
        "socket_connect_timeout": options["socket_connect_timeout"],
        "password": sentinel_password,
    }
    sentinel = Sentinel(sentinels, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    name, database = master or "mymaster", int(db or 0)
    client: Redis = sentinel.master_for(
        name, redis_class=_SentinelMaster, connection_class=_ToThePrimary, db=database, **options
    )
    return client


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
            if not self._connection.is_connected:
                await self._connection.connect()  # sending would connect as well, but without asking Sentinel where
            await self._connection.send_packed_command(commands)
            replies = [await self._reply() for _ in range(count)]
        if any(_says_look_elsewhere(reply) for reply in replies):
            await self.aclose()  # the address may lead to a new primary
        return replies

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error

    async def aclose(self) -> None:
        await self._connection.disconnect()


def _says_look_elsewhere(reply: Any) -> bool:
    """Whether it comes from a primary that was demoted, or that lost its replicas, maybe to another."""
    return isinstance(reply, ReadOnlyError) or _has_no_replicas(reply)


def _has_no_replicas(reply: Any) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith("NOREPLICAS")
