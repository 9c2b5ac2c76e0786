"""Clients for every form of Redis address, and the road for packed commands."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError, ResponseError

from broker.embedded import EmbeddedRedis
from emitter.connection import GONE, Link, connect, pack
from emitter.errors import InvalidEvent
from tests.clusters import sentinels
from tests.emitter.lossy import lossy
from tests.ports import reserved_ports


def command(*arguments: Any) -> bytes:
    return b"*%d\r\n" % len(arguments) + pack(arguments)


def options(url: str) -> Any:
    return connect(url).connection_pool.connection_kwargs


def test_plain_addresses() -> None:
    """Host, port, database, user and password are taken from the URL; replies are bytes, waits bounded, no retries."""
    found = options("redis://bob:p%40ss@example.com:7000/3")
    assert (found["host"], found["port"], found["db"]) == ("example.com", 7000, 3)
    assert (found["username"], found["password"]) == ("bob", "p@ss")
    assert (found["protocol"], found["socket_timeout"], found["socket_connect_timeout"]) == (2, 5.0, 5.0)
    assert found["retry"].get_retries() == 0
    assert options("unix:///run/redis.sock?db=2")["path"] == "/run/redis.sock"


def test_tls_address() -> None:
    """`rediss` means TLS."""
    assert "SSL" in connect("rediss://example.com:7000").connection_pool.connection_class.__name__


def test_sentinel_address() -> None:
    """Several sentinels, the name of the primary, a database, and both passwords."""
    pool: Any = connect("redis+sentinel://bob:p%40ss@s1:26379,s2:26380/main/4?sentinel_password=x").connection_pool
    assert pool.service_name == "main"
    sentinels = pool.sentinel_manager.sentinels
    assert [client.connection_pool.connection_kwargs["host"] for client in sentinels] == ["s1", "s2"]
    assert sentinels[1].connection_pool.connection_kwargs["port"] == 26380
    assert sentinels[0].connection_pool.connection_kwargs["password"] == "x"
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("bob", "p@ss")
    assert pool.connection_kwargs["db"] == 4


async def test_cluster_address() -> None:
    """`redis+cluster` is a cluster's client."""
    client: Any = connect("redis+cluster://example.com:7000")
    assert isinstance(client, RedisCluster)
    await client.aclose()


@pytest.mark.parametrize(
    "url", ["http://x", "localhost:6379", "", "redis+sentinel://host/main", "redis+sentinel://h:x/main"]
)
def test_other_addresses_are_refused(url: str) -> None:
    """The error says what is allowed, before any connection is tried."""
    with pytest.raises(InvalidEvent, match="redis url"):
        connect(url)


async def test_packed_commands_are_read_as_they_were_meant(redis: Redis) -> None:
    """Text, bytes and numbers of any content arrive; replies come in order, errors in the place of theirs."""
    link = Link(redis)
    values: list[Any] = ["a", "é\r\n$5", b"\x00\xff\r\n", 17, "", "x" * 100_000]
    lots = [command("SET", f"k{number}", value) for number, value in enumerate(values)]
    lots += [command("EVALSHA", "0" * 40, 0), command("GET", "k1"), command("NONSENSE"), command("GET", "k3")]
    replies = await link.exchange(b"".join(lots), len(lots))
    assert isinstance(replies[6], NoScriptError)
    assert (replies[7], replies[9]) == ("é\r\n$5".encode(), b"17")
    assert isinstance(replies[8], Exception)
    assert await redis.get("k2") == b"\x00\xff\r\n"
    assert await redis.strlen("k5") == 100_000
    await link.aclose()


async def test_a_lost_connection_is_made_again(redis: Redis) -> None:
    """The exchange during which it was lost raises; the next one has a new connection."""
    link = Link(redis)
    assert await link.exchange(command("CLIENT", "SETNAME", "link"), 1) == [b"OK"]
    clients = await redis.client_list()
    (mine,) = [client for client in clients if client["name"] == "link"]
    await redis.client_kill_filter(_id=mine["id"])
    for _ in range(2):
        try:
            assert await link.exchange(command("PING"), 1) == [b"PONG"]
        except GONE:
            continue
        break
    assert await link.exchange(command("PING"), 1) == [b"PONG"]
    await link.aclose()


async def test_an_exchange_is_bounded(redis_url: str) -> None:
    """A server that takes everything and answers nothing costs the client's timeout, not for ever."""
    client = connect(redis_url, timeout=0.2)
    link = Link(client)
    with pytest.raises(GONE):
        await link.exchange(command("BLPOP", "nothing", 0), 1)
    assert await link.exchange(command("PING"), 1) == [b"PONG"]
    await link.aclose()
    await client.aclose()


async def test_a_cancelled_exchange_leaves_no_reply_behind(redis: Redis) -> None:
    """The next exchange reads its own replies, not those of one that was given up."""
    link = Link(redis)
    chance = random.Random(5)
    for number in range(30):
        exchange = asyncio.create_task(link.exchange(command("ECHO", f"old {number}") * 50, 50))
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        exchange.cancel()
        await asyncio.gather(exchange, return_exceptions=True)
        assert await link.exchange(command("ECHO", number), 1) == [str(number).encode()]
    await link.aclose()


@pytest.mark.parametrize(
    "refusal", [b"-READONLY You can't write against a read only replica.", b"-NOREPLICAS Not enough good replicas."]
)
async def test_a_demoted_primary_is_left(redis_server: EmbeddedRedis, tmp_path: Path, refusal: bytes) -> None:
    """After READONLY, or NOREPLICAS, which one that was frozen says until it is told of the failover, the next exchange
    connects anew, to wherever the address leads then."""
    async with lossy(str(redis_server.socket_path), tmp_path) as (proxy, url):
        client = connect(url)
        link = Link(client)
        (first,) = await link.exchange(command("CLIENT", "ID"), 1)
        proxy.answers.append(refusal + b"\r\n")
        (reply,) = await link.exchange(command("EVALSHA", "x", 0), 1)
        assert isinstance(reply, ResponseError)
        (second,) = await link.exchange(command("CLIENT", "ID"), 1)
        assert second != first
        await link.aclose()
        await client.aclose()


async def test_a_closed_client_leaves_no_connection_at_its_sentinels() -> None:
    """Nor at the primary."""
    with sentinels() as made:
        client = connect(made.url)
        assert await client.ping()
        assert len(made.sentinel.clients()) == len(made.primary.clients()) == 1
        await client.aclose()
        async with asyncio.timeout(10):
            while made.sentinel.clients() + made.primary.clients():
                await asyncio.sleep(0.02)


async def test_a_primary_without_replicas_is_asked_for_anew() -> None:
    """It refuses to write and may be one that was replaced: the next command asks the Sentinels where to go."""
    with sentinels() as made:
        client = connect(made.url)
        first = await client.client_id()
        assert made.primary.ask("CONFIG", "SET", "min-replicas-to-write", "2") == b"+OK\r\n"
        with pytest.raises(GONE):
            await client.set("key", "value")
        assert await client.client_id() != first
        await client.aclose()


async def test_a_cluster_that_is_away_raises_what_every_lost_connection_does() -> None:
    """Whoever waits for Redis to come back waits for a Cluster as well, also while none of its nodes answers."""
    with reserved_ports(1) as (port,):  # where nobody listens
        client = connect(f"redis+cluster://127.0.0.1:{port}")
        try:
            for _ in range(2):
                with pytest.raises(GONE):
                    await client.ping()
        finally:
            await client.aclose()
