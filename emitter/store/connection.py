"""Redis clients with the options of this project: RESP2, bytes in and out, short timeouts, no hidden retries, and no
connections to a dead or wrong server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode, PipelineCommand
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
from redis.exceptions import (
    AskError,
    ClusterError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from emitter.errors import InvalidEvent, InvalidSetting
from emitter.redis_url import Address, read_url
from emitter.store.cluster_client import ClusterClient
from emitter.store.watched import Watched, Way
from emitter.wire import keys

DEFAULT_URL = "redis://127.0.0.1:6379/0"
# Raised by an interrupted call. A retry is only safe for idempotent calls, so callers decide.
# `RedisClusterException` is no `RedisError`: no node of the Cluster answers, or none has the slot.
GONE = (RedisConnectionError, RedisTimeoutError, RedisClusterException, ConnectionError, TimeoutError, OSError)
# The same, or Redis answers that it cannot do it now: a Cluster is down or moves the slot, a server was demoted, or is
# full. It says nothing of the key that was asked for.
AWAY = (*GONE, ClusterError, AskError, TryAgainError, ReadOnlyError, OutOfMemoryError)

T = TypeVar("T")


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
    `redis+cluster://host:port,host:port`; the last two with TLS as `rediss+…`. Raises `InvalidEvent` for another
    address.

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
        "way": Way(),
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


async def each_reply(redis: Redis, calls: Sequence[Sequence[Any]]) -> list[Any]:
    """The replies to calls of scripts, in order, each with its error in the place of its reply. In a Cluster every node
    is asked by itself, so one that is away costs only its own. Raises if all of several nodes are away.

    The pipeline of a Cluster's client fails as a whole, and for seconds closes all connections again and again.
    """
    client: Any = redis
    if not isinstance(redis, RedisCluster):
        async with client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call)
            return list(await pipe.execute(raise_on_error=False))
    await client.initialize()
    parts: dict[Any, list[PipelineCommand]] = {}
    commands = [PipelineCommand(number, *call) for number, call in enumerate(calls)]
    for command in commands:
        parts.setdefault(client.get_node_from_key(command.args[3]), []).append(command)
    await asyncio.gather(*(_ask(client, node, part) for node, part in parts.items()))
    replies = [command.result for command in commands]
    if len(parts) > 1 and all(isinstance(reply, GONE) for reply in replies):
        raise replies[0]
    return replies


async def _ask(client: Any, node: ClusterNode, commands: list[PipelineCommand]) -> None:
    """Fill in the results of commands for a node of a Cluster. What has moved is asked for where it is."""
    try:
        await node.execute_pipeline(commands)
    except GONE as error:
        for command in commands:
            command.result = error
    if any(isinstance(command.result, GONE) for command in commands):  # perhaps another has taken its place
        with contextlib.suppress(*GONE):
            await client.find_nodes(node.name)
    for command in commands:
        if isinstance(command.result, (MovedError, AskError, TryAgainError)):
            with contextlib.suppress(RedisError, *GONE):
                command.result = await client.execute_command(*command.args)


class _Client(Redis):
    """A client that repeats reads."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        call = partial(super().execute_command, *args, **options)
        return await (repeated(call) if args[0] in READS else call())


# --- connections -----------------------------------------------------------------------------------------------------


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
    sentinel = Sentinel(address.hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    options["connection_class"] = _ToPrimaryByTls if address.has_tls else _ToPrimary
    client: Redis = sentinel.master_for(address.master, redis_class=_SentinelMaster, **options)
    return client


def _cluster(address: Address, options: dict[str, Any]) -> Redis:
    for name in ("retry", "connection_class"):
        options.pop(name, None)
    watched = {"way": options.pop("way")}
    try:
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        client: Any = ClusterClient(startup_nodes=nodes, **options, ssl=address.has_tls)
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
