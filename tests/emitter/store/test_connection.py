"""Clients for every form of Redis address, and the road for packed commands."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from broker.cli.embedded import EmbeddedRedis
from emitter.errors import InvalidEvent
from emitter.events import Thinking
from emitter.store import watched
from emitter.store.append import APPEND_SCRIPT, append, prepare
from emitter.store.connection import GONE, connect, pack
from emitter.store.link import Link
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.clusters import Node, cluster, hand_over, primary_and_replica, sentinels
from tests.edges import under_load
from tests.emitter.lossy import lossy
from tests.ports import reserved_ports
from tests.roads import Fate, road


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
    assert issubclass(connect("rediss://example.com:7000").connection_pool.connection_class, SSLConnection)


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


async def test_several_nodes_of_a_cluster() -> None:
    """All are known by the name, the password and the authority that stand before the first and after the last."""
    client: Any = connect("rediss+cluster://bob:p%40ss@n1:7000,[::1]:7001,n3:7002?ssl_ca_certs=/ca.crt")
    nodes = client.nodes_manager.startup_nodes.values()
    assert [(node.host, node.port) for node in nodes] == [("n1", 7000), ("::1", 7001), ("n3", 7002)]
    for node in nodes:
        options = node.connection_kwargs
        assert (options["username"], options["password"], options["ssl_ca_certs"]) == ("bob", "p@ss", "/ca.crt")
        assert issubclass(node.connection_class, SSLConnection)
    await client.aclose()


async def test_a_cluster_is_found_by_any_of_several_nodes() -> None:
    """A process that starts while the first of them is down reaches the others."""
    with cluster() as made, reserved_ports(1) as (nobody,):
        client: Any = connect(f"redis+cluster://127.0.0.1:{nobody},127.0.0.1:{made.primaries[1].port}")
        try:
            assert await client.set("a", b"1")
            assert await client.get("a") == b"1"
        finally:
            await client.aclose()


def test_tls_behind_sentinel() -> None:
    """The Sentinels and the primary are both spoken to with TLS, by the same authority."""
    pool: Any = connect("rediss+sentinel://bob:pw@s1:26379/main/4?ssl_ca_certs=/ca.crt").connection_pool
    assert issubclass(pool.connection_class, SSLConnection)
    assert (pool.connection_kwargs["ssl_ca_certs"], pool.connection_kwargs["db"]) == ("/ca.crt", 4)
    (sentinel,) = pool.sentinel_manager.sentinels
    assert issubclass(sentinel.connection_pool.connection_class, SSLConnection)
    assert sentinel.connection_pool.connection_kwargs["ssl_ca_certs"] == "/ca.crt"


async def test_tls_to_a_cluster() -> None:
    """Every node is spoken to with TLS, those found later as well."""
    client: Any = connect("rediss+cluster://example.com:7000?ssl_ca_certs=/ca.crt")
    assert issubclass(client.connection_kwargs["connection_class"], SSLConnection)
    assert client.connection_kwargs["ssl_ca_certs"] == "/ca.crt"
    await client.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "http://x",
        "localhost:6379",
        "",
        "redis+sentinel://host/main",
        "redis+sentinel://h:x/main",
        "redis://h:x",
        "redis://h:99999",
        "redis://h?db=x",
        "unix+cluster://h:1",
        "redis+cluster://h:1/2",
        "redis+cluster://h:1,h",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """The error says what is allowed, before any connection is tried."""
    with pytest.raises(InvalidEvent, match="redis url"):
        connect(url)


@pytest.mark.parametrize(
    "option",
    ["decode_responses=true", "legacy_responses=false", "retry_on_timeout=true", "encoding=latin-1", "nonsense="],
)
@pytest.mark.parametrize("scheme", ["redis://h:1", "unix:///s", "redis+sentinel://h:1/m", "redis+cluster://h:1"])
def test_options_that_would_break_it_are_refused(scheme: str, option: str) -> None:
    """Those that change what replies look like or repeat commands, and those that are none; before a connection."""
    with pytest.raises(InvalidEvent, match=f"option '{option.partition('=')[0]}'"):
        connect(f"{scheme}?{option}")


def test_options_of_an_address_are_kept() -> None:
    """A timeout, a name and a limit may be in the URL."""
    found = options("redis://h:1/2?socket_timeout=9&client_name=me&protocol=3")
    assert (found["socket_timeout"], found["client_name"], found["protocol"], found["db"]) == (9.0, "me", 3, 2)


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


async def test_a_link_that_is_ready_sends_without_a_wait(redis: Redis) -> None:
    """The replies go to a callback, in order, errors in their places; the next exchange may begin there."""
    link = Link(redis)
    assert not link.is_ready
    await link.make_ready()
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def again(replies: list[Any] | Exception) -> None:
        assert isinstance(replies, list)
        assert isinstance(replies[1], ResponseError)
        link.begin(command("ECHO", replies[0]), 1, found.set_result)

    assert link.is_ready
    link.begin(command("ECHO", "a") + command("NONSENSE"), 2, again)
    assert await asyncio.wait_for(found, 5) == [b"a"]
    await link.aclose()
    assert not link.is_ready


async def test_a_link_is_not_ready_while_it_waits_for_replies(redis: Redis) -> None:
    link = Link(redis)
    await link.make_ready()
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    link.begin(command("PING"), 1, found.set_result)
    assert not link.is_ready
    assert await asyncio.wait_for(found, 5) == [b"PONG"]
    assert link.is_ready
    await link.aclose()


async def test_what_cannot_be_written_ends_the_connection(redis: Redis) -> None:
    """Nobody waits for replies to it, and the next exchange has a new connection."""
    link = Link(redis)
    await link.make_ready()
    found: list[Any] = []
    nothing: Any = "no bytes"
    with pytest.raises(RedisConnectionError, match="bytes-like"):
        link.begin(nothing, 1, found.append)
    assert not link.is_ready
    assert await link.exchange(command("PING"), 1) == [b"PONG"]
    with pytest.raises(RedisConnectionError):
        await link.exchange(nothing, 1)
    assert await link.exchange(command("PING"), 1) == [b"PONG"]
    assert found == []
    await link.aclose()


async def test_a_link_that_is_closed_or_cut_says_so(tcp_redis: Node) -> None:
    """It is not ready, and whoever waits for replies hears that there are none."""
    async with road(tcp_redis.port) as way:
        client: Any = connect(f"redis://127.0.0.1:{way.port}")
        link = Link(client)
        await link.make_ready()
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link.begin(command("BLPOP", "nothing", 0), 1, found.set_result)
        way.forget("reset")
        assert isinstance(await asyncio.wait_for(found, 5), RedisConnectionError)
        assert not link.is_ready
        assert await link.exchange(command("PING"), 1) == [b"PONG"]
        await link.aclose()
        await client.aclose()


async def test_a_reply_that_nobody_asked_for_ends_the_connection(redis: Redis) -> None:
    """Otherwise all later replies would go to the wrong commands."""
    link = Link(redis)
    assert await link.exchange(command("PING") * 2, 1) == [b"PONG"]
    assert not link.is_ready
    assert await link.exchange(command("ECHO", "a"), 1) == [b"a"]
    await link.aclose()


async def test_an_exchange_is_bounded(redis_url: str) -> None:
    """A server that takes everything and answers nothing costs the client's timeout, not for ever."""
    client = connect(redis_url, timeout=2.0)  # which connecting may take as well
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


# --- connections that lead nowhere, or to the wrong server -----------------------------------------------------------

READONLY = b"-READONLY You can't write against a read only replica.\r\n"
REFUSALS = [
    READONLY,
    b"-NOREPLICAS Not enough good replicas to write.\r\n",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
]


async def connections(client: Any, count: int = 3) -> set[int]:
    """The server's numbers of so many connections of a client that are used at the same time."""
    pipes = [client.pipeline(transaction=False).client_id().blpop("nothing", 0.05) for _ in range(count)]
    return {replies[0] for replies in await asyncio.gather(*(pipe.execute() for pipe in pipes))}


@pytest.mark.parametrize("refusal", REFUSALS[:2])
async def test_a_link_leaves_the_wrong_server(redis_server: EmbeddedRedis, tmp_path: Path, refusal: bytes) -> None:
    """After READONLY, or NOREPLICAS, which a primary that was frozen says until it is told of the failover, the next
    exchange connects anew, to wherever the address leads then."""
    async with lossy(str(redis_server.socket_path), tmp_path) as (proxy, url):
        client = connect(url)
        link = Link(client)
        (first,) = await link.exchange(command("CLIENT", "ID"), 1)
        proxy.answers.append(refusal)
        (reply,) = await link.exchange(command("EVALSHA", "x", 0), 1)
        assert isinstance(reply, ResponseError)
        (second,) = await link.exchange(command("CLIENT", "ID"), 1)
        assert second != first
        await link.aclose()
        await client.aclose()


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_client_leaves_the_wrong_server(redis_server: EmbeddedRedis, tmp_path: Path, refusal: bytes) -> None:
    """One answer that tells of it, and no connection of the client is used again but that of a server that loads."""
    async with lossy(str(redis_server.socket_path), tmp_path) as (proxy, url):
        client: Any = connect(url)
        before = await connections(client)
        assert len(before) == 3
        proxy.answers.append(refusal)
        with pytest.raises((ResponseError, RedisConnectionError)):
            await client.evalsha("x", 0)
        after = await connections(client)
        assert len(before & after) == (2 if b"LOADING" in refusal else 0)
        await client.aclose()


async def test_connections_to_the_wrong_server_are_not_made_too_often(
    redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its address leads there still, each refusal would cost a connection, and each connection a handshake."""
    monkeypatch.setattr(watched, "LEAVE_AGAIN_SECONDS", 60.0)
    async with lossy(str(redis_server.socket_path), tmp_path) as (proxy, url):
        client: Any = connect(url)
        seen = set()
        for _ in range(10):
            proxy.answers.append(READONLY)
            with pytest.raises(ReadOnlyError):
                await client.evalsha("x", 0)
            seen.add(await client.client_id())
        assert len(seen) == 1
        await client.aclose()


# --- repeats ---------------------------------------------------------------------------------------------------------


async def test_a_read_is_repeated_when_its_connection_breaks(tcp_redis: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections in use a moment ago are cut: reads are answered, a write that may have run is not repeated."""
    monkeypatch.setattr(watched, "IDLE_SECONDS", 60.0)
    async with road(tcp_redis.port) as way:
        client: Any = connect(f"redis://127.0.0.1:{way.port}")
        await client.set("n", 1)
        assert len(await connections(client, 5)) == 5
        way.forget("reset")
        assert await asyncio.gather(*(client.get("n") for _ in range(5))) == [b"1"] * 5
        assert len(await connections(client, 5)) == 5
        way.forget("reset")
        with pytest.raises(GONE):
            await client.incr("n")
        assert await client.get("n") == b"1"
        await client.aclose()


@pytest.mark.parametrize("loss", ["lose_replies", "lose_requests"])
async def test_an_append_of_a_producer_is_repeated(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, loss: str
) -> None:
    """Whether it had run when the connection broke or not, its event is in the log once; one without a producer might
    be there twice, so its caller hears of it."""
    await redis.script_load(APPEND_SCRIPT)
    event = prepare(Thinking(thought="t"), "ex_1", redact=Redactor())
    owner = Owner("repeater")
    async with lossy(str(redis_server.socket_path), tmp_path) as (proxy, url):
        client = connect(url)
        setattr(proxy, loss, 1)
        await append(client, owner, "ex_1", [event], producer="p")
        assert proxy.lost == 1
        setattr(proxy, loss, 1)
        with pytest.raises(GONE):
            await append(client, owner, "ex_2", [event])
        await client.aclose()
    assert await redis.xlen(owner.execution("ex_1").log) == 1


@pytest.fixture
def tcp_redis() -> Iterator[Node]:
    with reserved_ports(1) as (port,), Node(port) as node:
        yield node


@pytest.mark.parametrize("fate", ["reset", "silent"])
async def test_what_was_forgotten_on_its_way_is_not_used(
    tcp_redis: Node, fate: Fate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a quiet while, no command fails because of a connection that a router forgot, whatever the command: it is
    not sent before the connection answered. A road on which bytes vanish costs no more than the try."""
    monkeypatch.setattr(watched, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(watched, "TRY_SECONDS", 0.5)
    async with road(tcp_redis.port) as way:
        client: Any = connect(f"redis://127.0.0.1:{way.port}")
        link = Link(client)
        await link.exchange(command("PING"), 1)
        assert len(await connections(client)) == 3
        await asyncio.sleep(0.3)
        assert way.forget(fate) == 4
        began = asyncio.get_running_loop().time()
        counts = await asyncio.gather(*(client.incr("n") for _ in range(12)))
        assert await link.exchange(command("INCR", "n"), 1) == [13]
        assert sorted(counts) == [*range(1, 13)]
        assert asyncio.get_running_loop().time() - began < under_load(4)
        await link.aclose()
        await client.aclose()


async def test_a_quiet_connection_that_is_well_is_kept(tcp_redis: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers, so it is used; keepalive holds it open on the way."""
    monkeypatch.setattr(watched, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(watched, "TRY_SECONDS", 10.0)
    client: Any = connect(f"redis://127.0.0.1:{tcp_redis.port}")
    first = await client.client_id()
    await asyncio.sleep(0.2)
    assert await client.client_id() == first
    (kept,) = client.connection_pool._available_connections
    sock = kept._writer.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
    await client.aclose()


async def ping(connection: Any) -> None:
    await connection.send_command("PING")
    await connection.read_response()


async def test_a_connection_that_another_task_closes_is_lost_like_any_other(redis: Redis) -> None:
    """One that is disconnected between the look whether it is there and the write (before Python 3.12), or between the
    write and the reply, raises what a lost one does."""
    connection: Any = redis.connection_pool.make_connection()
    await connection.connect()
    closing = asyncio.create_task(connection.disconnect(nowait=True))
    with pytest.raises(RedisConnectionError):
        await ping(connection)
    await closing


async def test_a_connection_that_is_being_closed_is_lost_like_any_other(redis: Redis) -> None:
    """Whoever disconnects it waits for its end and knows it still; asyncio 3.13 may raise a TypeError there."""
    connection: Any = redis.connection_pool.make_connection()
    await connection.connect()
    connection._writer.close()
    with pytest.raises(RedisConnectionError):
        await ping(connection)
    await connection.disconnect()


async def test_a_connection_that_another_task_closes_while_it_is_tried_is_made_again(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that sent nothing for a while is tried before use. If it is disconnected meanwhile, that is no error
    of the command."""
    monkeypatch.setattr(watched, "IDLE_SECONDS", 0.0)
    connection: Any = redis.connection_pool.make_connection()
    await connection.connect()
    closing = asyncio.create_task(connection.disconnect(nowait=True))
    await connection.send_command("ECHO", "a")
    assert await connection.read_response() == b"a"
    await closing
    await connection.disconnect()


async def test_connections_to_every_node_of_a_cluster_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those to nodes that the first one named, and when each is tried before it is used."""
    monkeypatch.setattr(watched, "IDLE_SECONDS", 0.0)
    with cluster() as made:
        client: Any = connect(made.url)
        await client.initialize()
        for _ in range(3):
            for slot in (0, 8000, 16000):
                assert await client.ping(target_nodes=client.get_node("127.0.0.1", made.primary_of(slot).port))
        kinds = {type(each).__name__ for node in client.get_primaries() for each in node._connections}
        assert kinds == {"_Tcp"}
        await client.aclose()


async def test_commands_follow_the_address_to_the_new_primary() -> None:
    """The primary becomes a replica and its address leads to the other: one refusal, then everything writes, over
    connections that were open before as well."""
    with primary_and_replica() as (first, second):
        async with road(first.port) as way:
            client: Any = connect(f"redis://127.0.0.1:{way.port}")
            link = Link(client)
            await link.exchange(command("SET", "a", 1), 1)
            assert len(await connections(client, 5)) == 5
            await asyncio.to_thread(hand_over, first, second)
            way.target = second.port
            refused = await asyncio.gather(*(client.incr("n") for _ in range(5)), return_exceptions=True)
            assert all(isinstance(each, ReadOnlyError) for each in refused)
            assert sorted(await asyncio.gather(*(client.incr("n") for _ in range(20)))) == [*range(1, 21)]
            (reply,) = await link.exchange(command("INCR", "n"), 1)
            assert reply == 21
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
        with pytest.raises(ResponseError, match="NOREPLICAS"):
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
