"""Redis clients as this project needs them: RESP2, bytes in and out, short bounded waits, no hidden retries."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from emitter.errors import InvalidEvent

DEFAULT_URL = "redis://127.0.0.1:6379/0"
# What an interrupted call raises. A retry is only safe where a repeat does nothing twice, so callers decide.
GONE = (RedisConnectionError, RedisTimeoutError, ConnectionError, TimeoutError, OSError)


def connect(url: str = DEFAULT_URL, *, retries: int = 0, timeout: float = 5.0, max_connections: int = 256) -> Redis:
    """A client for `redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,host:port/<master>[/<db>]` or
    `redis+cluster://host:port`.

    redis-py by default repeats every command ten times, which would append an event twice when a reply is lost: here
    nothing is repeated unless `retries` says so. `timeout` bounds connecting and every reply, in seconds.
    """
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


def _sentinel_master(url: str, options: dict[str, Any]) -> Redis:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    sentinels = [(host.rsplit(":", 1)[0], int(host.rsplit(":", 1)[1])) for host in hosts.split(",")]
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
    client: Redis = sentinel.master_for(master or "mymaster", db=int(db or 0), **options)
    return client
