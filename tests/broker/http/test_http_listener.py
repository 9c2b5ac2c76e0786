"""Who may connect: a number of connections, shared evenly, of which none is lost when the listener closes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.base.settings import Settings
from broker.cli.embedded import EmbeddedRedis
from broker.edge.edge import Edge
from broker.http import listener, open_connections, shares
from broker.http.listener import Counts, Listener, listen
from broker.http.shares import Shares
from emitter.errors import InvalidSetting
from tests.edges import SECRET, SSE, Author, Busy, EdgeProcess, request, under_load

# --- by hand ---------------------------------------------------------------------------------------------------------


def now() -> float:
    return asyncio.get_running_loop().time()


class Client(asyncio.Protocol):
    """What the listener under test makes of a connection: `doing` is what it says of it."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._stand.clients.append(self)
        self._stand.listener.connections.add(self, now())
        self._stand.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stand.listener.connections.remove(self)
        self._stand.clients.remove(self)
        self._stand.changed.set()


class Stand:
    """A listener on a port of its own, and connections to it."""

    def __init__(self, limit: int, sock: socket.socket | None = None, shares: Shares | None = None) -> None:
        self.metrics = Metrics()
        counts = Counts(self.metrics.sockets, self.metrics.rejected["sockets"])
        self.listener = Listener(sock or listen("127.0.0.1", 0), limit, counts, shares=shares)
        self.clients: list[Client] = []
        self.changed = asyncio.Event()
        self._kept = contextlib.ExitStack()
        self._ends: list[object] = []

    async def connect(self) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        self._kept.callback(writer.transport.abort)
        self._ends.append((reader, writer))  # asyncio closes a connection whose ends nobody has
        return reader

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @property
    def refused(self) -> float:
        return float(self.metrics.rejected["sockets"]._value.get())

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Stand]:
        with self._kept:
            async with self.listener.listening(lambda: Client(self), 0):
                yield self


GET = b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n"


async def test_a_request_above_the_limit_is_answered_and_its_connection_closed() -> None:
    """While all others are busy a new one gets a whole 503 at once, with one log line a second; when one of them ends,
    the next is let in. An `EventSource` would never come back after that, nor somebody who is about to be one."""
    async with Stand(2).open() as stand:
        for count in (1, 2):
            await stand.connect()
            await stand.until(lambda: len(stand.clients) >= count)  # noqa: B023
        for client in stand.clients:
            stand.listener.connections.mark_busy(client)
        began = time.monotonic()
        with structlog.testing.capture_logs() as logs:
            asked = told = 0
            while told < 18:
                answer = await asyncio.to_thread(ask, stand.listener.port, GET % b"")
                asked += 1
                if not answer:
                    assert asked < 100
                    continue  # on a slow machine it was accepted before its request had come
                told += 1
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"Retry-After: " in answer
                head, _, body = answer.partition(b"\r\n\r\n")
                assert f"Content-Length: {len(body)}".encode() in head
            for says in (GET % b"Accept: text/event-stream\r\n", b""):
                assert await asyncio.to_thread(ask, stand.listener.port, says) == b""
        assert stand.refused == asked + 2
        refusals = [line for line in logs if line["event"] == "connections_refused"]
        assert 1 <= len(refusals) <= 1 + time.monotonic() - began
        gone = stand.clients[0]
        assert gone.transport is not None
        gone.transport.abort()
        await stand.until(lambda: gone not in stand.clients)
        await stand.connect()
        await stand.until(lambda: len(stand.clients) == 2)


def ask(port: int, says: bytes) -> bytes:
    """All that is answered; nothing, too, if the connection was reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(says)
        return b"".join(iter(lambda: sock.recv(65_536), b""))
    return b""


async def test_the_silent_and_then_the_idle_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a new connection the one that has been silent longest goes, then the one that has been idle longest, and
    never one that is at work."""
    monkeypatch.setattr(listener, "SPARED_SECONDS", 0.0)
    async with Stand(4).open() as stand:
        for count in range(1, 5):
            await stand.connect()
            await stand.until(lambda: len(stand.clients) == count)  # noqa: B023
        worker, second, first, silent = stand.clients
        for client in (worker, second, first):
            stand.listener.connections.mark_busy(client)
        for client in (first, second):
            stand.listener.connections.mark_idle(client, now())
            await asyncio.sleep(0)
        for leaves in (silent, first, second):
            await stand.connect()
            await stand.until(lambda: leaves not in stand.clients and len(stand.clients) == 4)  # noqa: B023
            stand.listener.connections.mark_busy(stand.clients[-1])
        assert worker in stand.clients
        assert stand.refused == 0


async def test_a_connection_just_made_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is let go for another silent one before a request could come; for one that asks, at once."""
    monkeypatch.setattr(listener, "SPARED_SECONDS", 60.0)
    async with Stand(1).open() as stand:
        await stand.connect()
        await stand.until(lambda: len(stand.clients) == 1)
        [first] = stand.clients
        assert await asyncio.to_thread(ask, stand.listener.port, b"") == b""
        assert (stand.clients, stand.refused) == ([first], 1)
        with socket.create_connection(("127.0.0.1", stand.listener.port)) as asking:
            asking.send(b"GET / HTTP/1.1\r\n")
            await stand.until(lambda: len(stand.clients) == 1 and first not in stand.clients)


async def test_without_descriptors_there_is_a_line_a_second_and_then_it_goes_on() -> None:
    """What cannot be accepted waits; nothing spins meanwhile, and everybody gets in when there is room again."""
    async with Stand(1000).open() as stand:
        waiting = [socket.create_connection(("127.0.0.1", stand.listener.port)) for _ in range(20)]
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        began = time.process_time()
        with structlog.testing.capture_logs() as logs:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(sock.fileno() for sock in waiting) + 1, before[1]))
            try:
                await asyncio.sleep(2.5)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert time.process_time() - began < 1
        assert 1 <= len(logs) <= 4
        assert {(line["event"], line["error"]) for line in logs} == {("accept_failed", "EMFILE")}
        await stand.until(lambda: len(stand.clients) == 20)
        for sock in waiting:
            sock.close()


class Answering(Client):
    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self._stand.listener.connections.mark_busy(self)
        self.transport.write(b"heard")


async def test_what_waits_when_the_listener_closes_is_let_in() -> None:
    """Connections that the kernel made just before are not reset: they have some time to ask."""
    stand = Stand(1000)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(stand.listener.listening(lambda: Answering(stand), 2.0))
        with contextlib.ExitStack() as kept:
            address = ("127.0.0.1", stand.listener.port)
            clients = [kept.enter_context(socket.create_connection(address, timeout=5)) for _ in range(40)]
            closing = asyncio.create_task(stack.aclose())
            while len(stand.clients) < 40:
                await asyncio.sleep(0.01)
            assert not closing.done()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            for client in clients[:20]:
                client.sendall(GET % b"")
            await closing
            assert [client.recv(100) for client in clients] == [b"heard"] * 20 + [b""] * 20
    await stand.until(lambda: not stand.clients)
    assert stand.listener.open == 0


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [
        ("[::]", 0, "RUNCAST_HOST"),
        ("no.such.host.invalid", 0, "RUNCAST_HOST"),
        ("198.51.100.1", 0, "RUNCAST_HOST"),
        ("127.0.0.1", 70_000, "RUNCAST_PORT"),
    ],
)
def test_what_cannot_be_bound_is_blamed_on_its_setting(host: str, port: int, name: str) -> None:
    """An address that is none of this machine's is RUNCAST_HOST's fault, and not RUNCAST_PORT's."""
    with pytest.raises(InvalidSetting) as caught:
        listen(host, port)
    assert caught.value.name == name
    assert host in caught.value.value


def test_a_port_that_is_taken_is_blamed_on_the_port() -> None:
    """Of the admin listener, on its own setting."""
    with listen("127.0.0.1", 0) as taken, pytest.raises(InvalidSetting) as caught:
        listen("127.0.0.1", taken.getsockname()[1], "RUNCAST_ADMIN_")
    assert caught.value.name == "RUNCAST_ADMIN_PORT"


# --- several on a port -----------------------------------------------------------------------------------------------


@pytest.fixture
def two() -> Iterator[tuple[Stand, Stand]]:
    """Listeners on one socket, as those of two processes."""
    descriptor, sock = shares.create(2), listen("127.0.0.1", 0)
    first, second = (Stand(1000, sock.dup(), Shares(descriptor, number)) for number in range(2))
    sock.close()
    yield first, second
    os.close(descriptor)


async def test_the_least_full_accepts(two: tuple[Stand, Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who begins later gets every connection until it has as many as the other."""
    monkeypatch.setattr(listener, "LEAVE_SECONDS", 60.0)
    first, second = two
    async with first.open():
        for count in range(1, 11):
            await first.connect()
            await first.until(lambda: len(first.clients) == count)  # noqa: B023
        async with second.open():
            for count in range(1, 11):
                await first.connect()
                await second.until(lambda: len(second.clients) == count)  # noqa: B023
            assert len(first.clients) == 10


async def test_nothing_is_left_to_who_stops(two: tuple[Stand, Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a process listens, and when it has stopped, the other accepts at once."""
    monkeypatch.setattr(listener, "LEAVE_SECONDS", 60.0)
    first, second = two
    async with first.open():
        await first.connect()
        await first.until(lambda: len(first.clients) == 1)
        async with second.open():
            pass
        await first.connect()
        await first.until(lambda: len(first.clients) == 2)


async def test_who_hangs_is_not_waited_for(two: tuple[Stand, Stand]) -> None:
    """All connections that a less full process does not accept are accepted by the other."""
    first, second = two
    assert second.listener._shares is not None
    second.listener._shares.report(0)
    async with first.open():
        for _ in range(40):
            await first.connect()
        await first.until(lambda: len(first.clients) == 40)
    second.listener._sock.close()


WORKERS, SEATS, STREAMS = 4, 50, 150


@pytest.fixture(scope="module")
def four(redis_server: EmbeddedRedis) -> Iterator[EdgeProcess]:
    edges = EdgeProcess(
        redis_server.url, "--workers", str(WORKERS), max_connections=SEATS, max_connections_per_user=0
    ).start()
    try:
        for port in edges.admin_ports:
            edges.wait_ready(port)
        yield edges
    finally:
        edges.close()


@pytest.mark.parametrize("pause_seconds", [0.0, 0.005], ids=["at once", "one by one"])
async def test_streams_spread_evenly_over_workers(four: EdgeProcess, redis: Redis, pause_seconds: float) -> None:
    """Nobody is refused while there are free seats, and no process has more than two and a half times the streams of
    another, however they come."""
    author = Author(redis, f"shares-{pause_seconds}")
    await author.begin()
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(number: int) -> int:
            await asyncio.sleep(number * pause_seconds)
            opened = request(four.port, "GET", author.path, author.token, headers=SSE, seconds=30)
            return (await stack.enter_async_context(opened)).status

        statuses = Counter(await asyncio.gather(*(open_one(number) for number in range(STREAMS))))
        assert statuses == {200: STREAMS}
        shares = [streams_of(four, port) for port in four.admin_ports]
        assert sum(shares) == STREAMS
        assert max(shares) <= 2.5 * min(shares), shares
    async with asyncio.timeout(under_load(10)):
        while any(streams_of(four, port) for port in four.admin_ports):
            await asyncio.sleep(0.05)


async def test_few_streams_spread_evenly(redis: Redis, redis_url: str) -> None:
    """Of a hundred streams that come one by one each of four processes has about a quarter, far below its limit."""
    author = Author(redis, "few")
    await author.begin()
    edges = EdgeProcess(redis_url, "--workers", str(WORKERS), max_connections_per_user=0).start()
    try:
        for port in edges.admin_ports:
            edges.wait_ready(port)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(100):
                opened = request(edges.port, "GET", author.path, author.token, headers=SSE, seconds=30)
                assert (await stack.enter_async_context(opened)).status == 200
            counts = [streams_of(edges, port) for port in edges.admin_ports]
        assert sum(counts) == 100
        assert max(counts) <= 1.5 * min(counts), counts
    finally:
        edges.close()


def streams_of(edges: EdgeProcess, port: int) -> int:
    text = edges._admin("/metrics", port)[1]
    [line] = [line for line in text.splitlines() if line.startswith("runcast_connections ")]
    return int(float(line.split()[1]))


# --- a stop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
async def test_a_stop_without_viewers_costs_nobody_a_request(redis: Redis, redis_url: str, workers: int) -> None:
    """/readyz fails for a quarter of the drain before the port is closed, and answers meanwhile end their connections:
    whoever keeps asking has an answer to all that was sent."""
    arguments = ("--workers", str(workers)) if workers else ()
    started = EdgeProcess(redis_url, *arguments, drain_seconds=8).start()
    try:
        for port in started.admin_ports:
            started.wait_ready(port)
        clients = [Busy(started.port) for _ in range(10)]
        running = asyncio.gather(*(client.run() for client in clients))
        await asyncio.sleep(0.5)
        assert sum(client.closed for client in clients) == 0
        started.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while await asyncio.to_thread(started.admin_status, "/readyz") != 503:
                await asyncio.sleep(0.02)
            await running
        assert [loss for client in clients for loss in client.lost] == []
        assert all(client.closed for client in clients)
        unready = max(moment_of(line) for line in started.logged("edge_draining"))
        assert max(max(client.answered) for client in clients) - unready > 0.5
        assert await asyncio.to_thread(started.wait) == 0
    finally:
        started.close()


def moment_of(line: dict[str, Any]) -> float:
    """When a line was logged (monotonic)."""
    return datetime.fromisoformat(line["timestamp"]).timestamp() - time.time() + time.monotonic()


async def test_what_somebody_works_on_stops_at_once(redis: Redis, redis_url: str) -> None:
    """`serve --dev` has nobody to wait for: Ctrl-C takes no more than a second of waiting."""
    started = EdgeProcess(redis_url, "--dev")
    del started._environ["RUNCAST_DRAIN_SECONDS"]
    started.start()
    try:
        started.wait_ready()
        began = time.monotonic()
        started.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(started.wait) == 0
        assert time.monotonic() - began < under_load(3)
    finally:
        started.close()


async def test_silent_connections_end_on_both_ports(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects and says nothing, or half of a request, is gone after a while, on the admin port too; who has
    asked something stays."""
    monkeypatch.setattr(open_connections, "FIRST_REQUEST_SECONDS", 0.5)
    settings = Settings(
        redis_url=redis_url, host="127.0.0.1", port=0, admin_host="127.0.0.1", admin_port=0, jwt_secret=SECRET,
        drain_seconds=0,
    )  # fmt: skip
    async with Edge(settings) as edge:
        for port in (edge.port, edge.admin_port):
            asked = await asyncio.open_connection("127.0.0.1", port)
            asked[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            for says in (b"", b"GET / HTTP/1.1\r\nHo"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(says)
                async with asyncio.timeout(10):
                    with contextlib.suppress(ConnectionError):
                        assert await reader.read() == b""
                writer.close()
            await asked[0].readuntil(b"\r\n\r\n")
            assert not asked[0].at_eof()
            asked[1].close()
