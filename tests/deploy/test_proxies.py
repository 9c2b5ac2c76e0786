"""Edges behind the nginx, the HAProxy and the Envoy of deploy/: nothing is held back, nothing is lost while edges come
and go. What takes long is done to the edges once, with viewers through every proxy there is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from tests.deploy.proxies import DEPLOYED, HERE, PROXIES, Envoy, Nginx, Proxy, deployed_envoy, needs_envoy
from tests.edges import (
    SSE,
    Author,
    Busy,
    EdgeProcess,
    Follower,
    SseReader,
    assert_dense,
    call,
    eventually,
    hosts,
    request,
    under_load,
    writing,
)

VIEWERS = 300
DRAIN_SECONDS = 3.0
SETTINGS = {"heartbeat_seconds": 60, "max_connections_per_user": 0}
NO_EDGE = {502, 503}
"""What proxies answer to programs while no edge can be reached."""

users = (f"viewer-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def stand() -> Iterator[tuple[EmbeddedRedis, list[EdgeProcess]]]:
    """Three edges. Tests that end one start it again. What is noticed within a test is not noticed by a heartbeat."""
    with EmbeddedRedis() as redis, hosts(redis.url, 3, **SETTINGS, drain_seconds=DRAIN_SECONDS) as started:
        start(started)
        yield redis, started


@pytest.fixture(scope="module")
def started(stand: tuple[EmbeddedRedis, list[EdgeProcess]]) -> list[EdgeProcess]:
    return stand[1]


@contextlib.contextmanager
def in_front_of(edges: Sequence[EdgeProcess]) -> Iterator[dict[str, Proxy]]:
    """Every proxy there is."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(DEPLOYED[name](edges)) for name in HERE}


@pytest.fixture(scope="module")
def proxies(started: list[EdgeProcess]) -> Iterator[dict[str, Proxy]]:
    if not HERE:
        pytest.skip("needs a proxy")
    with in_front_of(started) as running:
        yield running


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, proxies: dict[str, Proxy]) -> Proxy:
    return proxies[request.param]


@pytest.fixture
async def client(stand: tuple[EmbeddedRedis, list[EdgeProcess]]) -> AsyncIterator[Redis]:
    redis: Redis = connect(stand[0].url)
    yield redis
    await redis.aclose()


@pytest.fixture
def author(client: Redis) -> Author:
    return Author(client, next(users))


# --- crowds ----------------------------------------------------------------------------------------------------------


class Crowd(NamedTuple):
    """Viewers of one execution, all through one proxy. Its user is nobody else's, so that edges' logs tell it apart."""

    name: str
    author: Author
    viewers: list[Follower]

    def on(self, edge: EdgeProcess) -> int:
        """How many of its streams an edge has that was not killed."""
        logged = streams_logged(edge, self.author)
        return logged["stream_opened"] - logged["stream_closed"]

    async def assert_has_the_log(self, seconds: float = 30.0) -> None:
        """Every viewer comes to the end, with exactly the log."""
        await self.author.end()
        log = await self.author.log()
        assert_dense(log)
        await asyncio.gather(*(viewer.until_done(seconds) for viewer in self.viewers))
        for viewer in self.viewers:
            assert viewer.events == log, self.name
            assert not viewer.resets, self.name
        self.assert_nobody_was_sent_away()

    def assert_nobody_was_sent_away(self, *, may_be_refused: bool = False) -> None:
        """No `EventSource` met an error, which would have ended it, and no edge that takes no streams."""
        for viewer in self.viewers:
            assert set(viewer.statuses) <= {200, 204}, (self.name, viewer)
            assert may_be_refused or "refused" not in viewer.ends, (self.name, viewer)


def streams_logged(edge: EdgeProcess, author: Author) -> Counter[str]:
    """How many `stream_opened` and `stream_closed` an edge has logged for an author's user."""
    lines = [line for line in edge.log_text().splitlines() if f'"{author.user}"' in line]
    return Counter(json.loads(line)["event"] for line in lines)


@contextlib.asynccontextmanager
async def crowds(proxies: Mapping[str, Proxy], client: Redis, count: int) -> AsyncIterator[list[Crowd]]:
    """So many viewers through each proxy, all live."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for name, proxy in proxies.items():
            author = Author(client, next(users))
            await author.begin()
            viewers = [Follower([proxy.port], author.path, author.token, pause_seconds=0.05) for _ in range(count)]
            for some in range(0, count, 10):  # what comes all at once, Envoy spreads by chance
                for viewer in viewers[some : some + 10]:
                    await stack.enter_async_context(viewer)
                await asyncio.gather(*(viewer.until_live() for viewer in viewers[some : some + 10]))
            found.append(Crowd(name, author, viewers))
        yield found


@contextlib.asynccontextmanager
async def writing_to(crowds: Sequence[Crowd], pause_seconds: float) -> AsyncIterator[None]:
    """Events flow to every crowd, and have begun to."""
    async with contextlib.AsyncExitStack() as stack:
        flows = [await stack.enter_async_context(writing(c.author, pause_seconds=pause_seconds)) for c in crowds]
        await eventually("events flow", lambda: all(appends() > 5 for appends in flows))
        yield
        before = [appends() for appends in flows]
        await eventually("events flow", lambda: all(now() > then + 5 for now, then in zip(flows, before, strict=True)))


def viewers_of(edges: Sequence[EdgeProcess]) -> list[float]:
    return [edge.metric("runcast_connections") for edge in edges]


def start(edges: Sequence[EdgeProcess]) -> None:
    """Start edges, also those that were ended, and wait until they are ready."""
    for edge in edges:
        edge.start()
    for edge in edges:
        edge.wait_ready()


async def again(edges: Sequence[EdgeProcess]) -> None:
    await asyncio.to_thread(start, edges)


# --- one viewer ------------------------------------------------------------------------------------------------------


async def test_first_byte_and_every_event_arrive_when_they_are_written(proxy: Proxy, author: Author) -> None:
    """Over HTTP/1.1: each event is with the viewer before the next is written, and no small one waits for the next, as
    TCP has it for 200 ms where one allows it."""
    await author.begin()
    async with Follower([proxy.port], author.path, author.token) as viewer:
        await viewer.until_live()
        waited = []
        for number in range(1, 12):
            began = time.monotonic()
            await author.say()
            await viewer.until_events(1 + number)
            waited.append(time.monotonic() - began)
        await author.say(1, size=60_000)
        await viewer.until_events(13)
        await author.end()
        await viewer.until_done()
    assert viewer.connects == 1
    assert statistics.median(waited) < under_load(0.18), waited


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (tests/run installs it as root)")
async def test_the_same_over_http2(proxy: Proxy, author: Author) -> None:
    """TLS offers HTTP/2, and each event is with the viewer before the next is written."""
    await author.begin()
    url = f"https://127.0.0.1:{proxy.tls_port}{author.path}"
    command = ["curl", "-sS", "-N", "-v", "--http2", "--cacert", str(proxy.folder / "tls.crt"), "-m", "30"]
    process = await asyncio.create_subprocess_exec(
        *command, "-H", f"Authorization: Bearer {author.token}", url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    reader, ids = SseReader(), []

    async def until(count: int) -> None:
        async with asyncio.timeout(under_load(15)):
            while len(ids) < count:
                data = await process.stdout.read(65536)  # type: ignore[union-attr]
                assert data, (await process.communicate())[1].decode()
                frames = reader.feed(data)
                ids.extend(frame.id for frame in frames if frame.id is not None)

    await until(1)
    for number in range(1, 4):
        await author.say()
        await until(1 + number)
    await author.end()
    _, said = await process.communicate()
    assert re.search(rb"using HTTP/2|HTTP/2 200", said), said.decode()


async def test_an_edge_knows_at_once_that_a_viewer_left(
    proxy: Proxy, author: Author, started: list[EdgeProcess]
) -> None:
    """The connection to the edge ends with the viewer's, which takes up no seat any longer."""
    await author.begin()
    await eventually("nobody is there", lambda: sum(viewers_of(started)) == 0)
    for _ in range(3):
        async with request(proxy.port, "GET", author.path, author.token, headers=SSE) as viewer:
            assert viewer.status == 200
            await eventually("the viewer is there", lambda: sum(viewers_of(started)) == 1)
        await eventually("the viewer is gone", lambda: sum(viewers_of(started)) == 0)


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="reads Linux's /proc")
async def test_a_viewer_that_does_not_read_is_held_back_by_its_edge_not_by_the_proxy(
    proxy: Proxy, author: Author, started: list[EdgeProcess]
) -> None:
    """What it has not read stays in the log: the edge takes it off the live path, the proxy holds some buffers; and
    when it reads again it gets exactly the log, on the same connection."""
    await author.begin()
    async with request(proxy.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096) as slow:
        frames = slow.frames()
        received = [await anext(frames) for _ in range(3)]  # open, the first event, live
        lagging, before = lagging_of(started), resident_bytes(proxy)
        for written in range(60):
            await author.say(20, size=20_000)
            if written > 20 and lagging_of(started) > lagging:
                break
        await eventually("it lags", lambda: lagging_of(started) > lagging)
        held = resident_bytes(proxy) - before
        await author.end()
        async with asyncio.timeout(under_load(40)):
            received += [frame async for frame in frames]
        assert slow.whole
    log = await author.log()
    assert [frame.id for frame in received if frame.id is not None] == [event.id for event in log]
    assert held < 1.5 * 2**20, f"{held / 2**20:.1f} of {len(log) / 50:.0f} MB were held"


def lagging_of(edges: Sequence[EdgeProcess]) -> float:
    return sum(edge.metric("runcast_slow_viewers_total") for edge in edges)


def resident_bytes(proxy: Proxy) -> int:
    """Of a proxy and its workers."""
    children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in [str(proxy.pid), *children]]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


async def test_requests_are_logged_by_their_id_and_without_their_query(proxy: Proxy, author: Author) -> None:
    """The request's id is the client's on both sides, and no ticket gets into a log."""
    name, ticket = str(uuid.uuid4()), "a-ticket-of-the-tests"
    path = f"/api/agent/executions?ticket={ticket}"
    answer = await call(proxy.port, "GET", path, author.token, headers={"X-Request-ID": name})
    assert answer.headers["x-request-id"] == name
    if isinstance(proxy, Nginx | Envoy):  # HAProxy only logs what went wrong
        line = re.compile(rf"^127\.0\.0\.1 \"GET /api/agent/executions\" {answer.status} .*{name}", re.MULTILINE)
        await eventually("it is logged", lambda: line.search(proxy.log_text()) is not None)
    assert ticket not in proxy.log_text()


# --- while edges come and go -----------------------------------------------------------------------------------------


async def test_an_edge_that_is_killed_costs_nobody_an_event(
    proxies: dict[str, Proxy], client: Redis, started: list[EdgeProcess]
) -> None:
    """SIGKILL of one of three while events flow: its viewers resume on the others, and everybody has the whole log."""
    for proxy in proxies.values():
        await until_each_is_used(started, proxy, Author(client, next(users)))
    async with crowds(proxies, client, 20) as watching:
        for crowd in watching:
            assert min(crowd.on(edge) for edge in started) > 0, f"{crowd.name}: connections are not spread"
        async with writing_to(watching, 0.02):
            started[0].kill()
            await eventually("all on the others", lambda: sum(viewers_of(started[1:])) == 20 * len(watching))
        await again(started[:1])
        for crowd in watching:
            await crowd.assert_has_the_log()
            assert any(viewer.connects > 1 for viewer in crowd.viewers), crowd.name


async def test_viewers_come_back_by_themselves_after_every_edge_was_away(
    proxies: dict[str, Proxy], client: Redis, started: list[EdgeProcess]
) -> None:
    """With no edge left a proxy says so at once: to programs with a 502 or 503, to an `EventSource` with an empty
    stream. When edges are back, viewers have lost nothing."""
    async with crowds(proxies, client, 5) as watching:
        for edge in started:
            edge.kill()
        for crowd in watching:
            for viewer in crowd.viewers:
                await viewer.until("it is told", lambda viewer: viewer.connects > len(viewer.named("stream:open")))
            answer = await ask(proxies[crowd.name], crowd.author)
            assert answer in NO_EDGE, crowd.name
            await crowd.author.say(3)
        await again(started)
        for crowd in watching:
            await crowd.assert_has_the_log()


async def until_it_was_postponed(name: str, proxy: Proxy, author: Author) -> None:
    """Ask some times, before the proxy has seen that no edge is ready, and after it."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        async with request(proxy.port, "GET", author.path, author.token, headers=SSE) as stream:
            assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream"), name
            async with asyncio.timeout(under_load(15)):
                frames = [frame async for frame in stream.frames()]
            assert {frame.event for frame in frames} <= {"stream:end"}, name
            assert name == "haproxy" or stream.sse.retries, name  # it says when, or leaves it at what was said last
        assert await ask(proxy, author, author.path) in NO_EDGE, name
        await asyncio.sleep(0.2)


async def ask(proxy: Proxy, author: Author, path: str = "/api/agent/executions") -> int:
    """The status of a program's request."""
    async with request(proxy.port, "GET", path, author.token) as answer:
        return answer.status


@pytest.mark.timeout(120)
@pytest.mark.skipif(not HERE, reason="needs a proxy")
async def test_draining_edges_get_nothing_new(stand: tuple[EmbeddedRedis, list[EdgeProcess]], client: Redis) -> None:
    """Two of three drain. Their readiness fails at once, so what asks for it (HAProxy, Caddy, Envoy) sends all new
    streams to the third while the old ones go on; nginx meets their 503 and goes on to the next."""
    with contextlib.ExitStack() as stack:
        three = stack.enter_context(hosts(stand[0].url, 3, **SETTINGS, drain_seconds=600))
        await again(three)
        for edge in three:
            stack.callback(edge.send_signal, signal.SIGKILL)
        draining = three[:2]
        proxies = stack.enter_context(in_front_of(three))
        async with crowds(proxies, client, 10) as watching:
            for edge in draining:
                edge.send_signal(signal.SIGTERM)
            for edge in draining:
                await eventually("it is unready", lambda edge=edge: edge.admin_status("/readyz") != 200)  # type: ignore[misc]
            for crowd in watching:
                if crowd.name != "nginx":
                    await until_left_out(draining, proxies[crowd.name], crowd.author)
                statuses = [await status_of_stream(proxies[crowd.name], crowd.author) for _ in range(5)]
                assert set(statuses) == {200}, crowd.name
            assert min(viewers_of(draining)) > 0, "their streams were to go on"
            for crowd in watching:
                # HAProxy asks the two in turn, until it has seen that they are not ready.
                crowd.assert_nobody_was_sent_away(may_be_refused=crowd.name == "haproxy")


@pytest.mark.skipif(not HERE, reason="needs a proxy")
async def test_an_event_source_outlives_the_drain_of_all_edges(redis_url: str, redis: Redis) -> None:
    """The last refusal is a stream that names the time to come again, the edge's or the proxy's; a program gets 503. To
    everything else nginx, which does not ask who is ready, finds the edges as before."""
    author = Author(redis, next(users))
    await author.begin()
    async with contextlib.AsyncExitStack() as stack:
        two = stack.enter_context(hosts(redis_url, 2, drain_seconds=600))
        proxies = stack.enter_context(in_front_of(two))
        await again(two)
        for proxy in proxies.values():
            await until_each_is_used(two, proxy, Author(redis, next(users)))
            for _ in range(4):
                viewer = Follower([proxy.port], author.path, author.token, pause_seconds=60)
                await (await stack.enter_async_context(viewer)).until_live()
        assert min(viewers_of(two)) > 1, "the second viewer of each keeps it draining"
        for edge in two:
            stack.callback(edge.send_signal, signal.SIGKILL)
            edge.send_signal(signal.SIGTERM)
        for edge in two:
            await eventually("it drains", lambda edge=edge: edge.admin_status("/readyz") != 200)  # type: ignore[misc]
        await asyncio.gather(*(until_it_was_postponed(name, proxy, author) for name, proxy in proxies.items()))
        if "nginx" in proxies:
            async with asyncio.timeout(under_load(15)):  # what programs heard 503 for, it leaves out for a second
                while await ask(proxies["nginx"], author) != 200:
                    await asyncio.sleep(0.1)
            for _ in range(4):
                async with request(proxies["nginx"].port, "GET", author.path, author.token, headers=SSE) as stream:
                    assert stream.status == 200
                assert await ask(proxies["nginx"], author) == 200
        for edge in two:
            assert edge.metric("runcast_rejected_total", reason="draining") > 0


@pytest.mark.skipif(not HERE, reason="needs a proxy")
async def test_a_stop_of_an_edge_without_viewers_costs_no_proxy_a_request(redis: Redis, redis_url: str) -> None:
    """One of two edges gets SIGTERM while clients keep asking: through every proxy, each request is answered."""
    with hosts(redis_url, 2, drain_seconds=8) as two, in_front_of(two) as proxies:
        await again(two)
        for proxy in proxies.values():
            await until_each_is_used(two, proxy, Author(redis, next(users)))
        clients = {name: [Busy(proxy.port, pause_seconds=0.05) for _ in range(3)] for name, proxy in proxies.items()}
        everyone = [client for some in clients.values() for client in some]
        running = asyncio.gather(*(client.run() for client in everyone))
        await asyncio.sleep(2)
        two[0].send_signal(signal.SIGTERM)
        await asyncio.to_thread(two[0].wait, 30)
        await asyncio.sleep(0.5)
        for client in everyone:
            client.stop()
        await running
        for name, some in clients.items():
            assert [loss for client in some for loss in client.lost] == [], name
            assert {status for client in some for status in client.statuses} == {200}, name


async def until_each_is_used(edges: Sequence[EdgeProcess], proxy: Proxy, author: Author) -> None:
    """Wait until a proxy has opened a stream at every edge. Before its first health check it may know of none."""
    await author.begin()
    async with asyncio.timeout(under_load(15)):
        while not all(streams_logged(edge, author)["stream_opened"] for edge in edges):
            await status_of_stream(proxy, author)


async def until_left_out(draining: Sequence[EdgeProcess], proxy: Proxy, author: Author) -> None:
    """Wait until new streams do not even meet the edges' refusal, ten times in a row."""
    async with asyncio.timeout(45):  # twenty streams, one after the other, on a busy machine
        refused, met = -1.0, 0.0
        while met != refused:
            refused = met
            for _ in range(10):
                assert await status_of_stream(proxy, author) == 200
            met = sum(edge.metric("runcast_rejected_total", reason="draining") for edge in draining)


async def status_of_stream(proxy: Proxy, author: Author) -> int:
    async with request(proxy.port, "GET", author.path, author.token, headers=SSE) as answer:
        return answer.status


@pytest.mark.timeout(120)
async def test_a_rolling_restart_loses_nothing_and_spreads_the_reconnects(
    proxies: dict[str, Proxy], client: Redis, started: list[EdgeProcess]
) -> None:
    """All three edges restart one after the other under load: 300 viewers have every event once, and come back over
    the drain window, not all at once."""
    async with crowds(proxies, client, VIEWERS // len(proxies)) as watching:
        reconnects: dict[str, list[float]] = {crowd.name: [] for crowd in watching}
        async with writing_to(watching, 0.1):
            for edge in started:
                stopping = asyncio.create_task(asyncio.to_thread(edge.stop))
                await note_reconnects(watching, reconnects, stopping)
                assert await stopping == 0
                await again([edge])
        for crowd in watching:
            await crowd.assert_has_the_log()
            assert_spread(reconnects[crowd.name], len(crowd.viewers))


async def note_reconnects(
    watching: Sequence[Crowd], reconnects: Mapping[str, list[float]], stopping: asyncio.Task[int]
) -> None:
    """How many seconds after the beginning each viewer came back, until the edge has stopped."""
    began = time.monotonic()
    seen = {crowd.name: [viewer.connects for viewer in crowd.viewers] for crowd in watching}
    while not stopping.done():
        for crowd in watching:
            for number, viewer in enumerate(crowd.viewers):
                if viewer.connects > seen[crowd.name][number]:
                    seen[crowd.name][number] = viewer.connects
                    reconnects[crowd.name].append(time.monotonic() - began)
        await asyncio.sleep(0.05)


def assert_spread(reconnects: Sequence[float], viewers: int) -> None:
    """Every viewer came back once or oftener, and over the drain window."""
    assert len(reconnects) >= viewers
    tenths = Counter(int(10 * seconds / DRAIN_SECONDS) for seconds in reconnects)
    assert max(tenths.values()) < 0.4 * len(reconnects), tenths
    assert sum(tenths[tenth] > 0 for tenth in range(10)) >= 7, tenths


@pytest.mark.timeout(120)
@pytest.mark.skipif(not HERE, reason="needs a proxy")
async def test_a_scale_out_evens_out_within_the_age_of_streams(own_redis: EmbeddedRedis) -> None:
    """From one edge to three: streams that reach their age are resumed wherever there is least, and nothing is lost."""
    client: Redis = connect(own_redis.url)
    settings = {**SETTINGS, "max_stream_age_seconds": 3}
    with contextlib.ExitStack() as stack:
        first, *late = stack.enter_context(hosts(own_redis.url, 3, **settings))
        await again([first])
        running = stack.enter_context(in_front_of([first, *late]))
        async with crowds(running, client, 30) as watching:
            for crowd in watching:  # by now the first of them come back, after 3 s
                assert streams_logged(first, crowd.author)["stream_opened"] >= 30, crowd.name
            await again(late)
            for crowd in watching:
                await eventually(
                    f"{crowd.name}: an even share",
                    lambda crowd=crowd: min(crowd.on(edge) for edge in (first, *late)) >= 5,  # type: ignore[misc]
                    30,
                )
                await crowd.author.say(3)
            for crowd in watching:
                await crowd.assert_has_the_log()
    await client.aclose()


# --- Envoy's own -----------------------------------------------------------------------------------------------------


@needs_envoy
def test_envoy_takes_its_file_without_a_warning(started: list[EdgeProcess]) -> None:
    """No field is deprecated: a later Envoy would refuse it."""
    with deployed_envoy(started) as envoy:
        command = [*envoy.command(), "--mode", "validate"]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stderr
    assert not re.search(r"warning|error|deprecated", checked.stdout + checked.stderr, re.IGNORECASE), checked.stderr


@needs_envoy
def test_envoy_had_nothing_to_complain_of(proxies: dict[str, Proxy]) -> None:
    """The last test of this file: neither its start nor what happened to its edges made it warn."""
    envoy = proxies["envoy"]
    assert isinstance(envoy, Envoy)
    assert not envoy.complaints()
