"""Edges behind the nginx and the HAProxy of deploy/: nothing is held back, nothing is lost while edges come and go."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest
from redis.asyncio import Redis

from broker.embedded import EmbeddedRedis
from emitter.connection import connect
from tests.deploy.proxies import Proxy, deployed_haproxy, deployed_nginx, needs_haproxy, needs_nginx
from tests.edges import Author, EdgeProcess, Follower, SseReader, assert_dense, call, edges, eventually, writing

VIEWERS = 300
DRAIN_SECONDS = 3.0
PROXIES = [
    pytest.param(deployed_nginx, marks=needs_nginx, id="nginx"),
    pytest.param(deployed_haproxy, marks=needs_haproxy, id="haproxy"),
]
Deployed = Callable[[Sequence[EdgeProcess]], Proxy]
users = (f"viewer-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def stand() -> Iterator[tuple[EmbeddedRedis, list[EdgeProcess]]]:
    """Three edges. Tests that end one start it again."""
    settings = {"heartbeat_seconds": 1, "drain_seconds": DRAIN_SECONDS, "max_connections_per_user": 0}
    with EmbeddedRedis() as redis, edges(redis.url, 3, **settings) as started:
        yield redis, started


@pytest.fixture
async def author(stand: tuple[EmbeddedRedis, list[EdgeProcess]]) -> AsyncIterator[Author]:
    client: Redis = connect(stand[0].url)
    yield Author(client, next(users))
    await client.aclose()


@contextlib.asynccontextmanager
async def watching(proxy: Proxy, author: Author, count: int) -> AsyncIterator[list[Follower]]:
    """So many viewers of one execution, all through the proxy, all live."""
    async with contextlib.AsyncExitStack() as stack:
        viewers = []
        for number in range(count):
            follower = Follower([proxy.port], author.path, author.token, pause_seconds=0.05)
            viewers.append(await stack.enter_async_context(follower))
            if number % 50 == 49:
                await viewers[-1].until_live()
        await asyncio.gather(*(viewer.until_live() for viewer in viewers))
        yield viewers


async def assert_all_have_the_log(viewers: Sequence[Follower], author: Author, seconds: float = 30.0) -> None:
    """Every viewer comes to the end, with exactly the log."""
    await author.end()
    log = await author.log()
    assert_dense(log)
    async with asyncio.timeout(seconds):
        await asyncio.gather(*(viewer.until_done(seconds) for viewer in viewers))
    for viewer in viewers:
        assert viewer.events == log
        assert not viewer.resets
        assert set(viewer.statuses) <= {200, 204, 502, 503}, viewer


def viewers_of(started: Sequence[EdgeProcess]) -> list[float]:
    return [edge.metric("runcast_connections") for edge in started]


@pytest.mark.parametrize("deployed", PROXIES)
async def test_first_byte_and_every_event_arrive_when_they_are_written(
    stand: tuple[EmbeddedRedis, list[EdgeProcess]], author: Author, deployed: Deployed
) -> None:
    """Over HTTP/1.1: each event is with the viewer before the next is written, and an idle stream stays open."""
    with deployed(stand[1]) as proxy:
        await author.begin()
        async with Follower([proxy.port], author.path, author.token) as viewer:
            await viewer.until_live()
            for number in range(1, 6):
                await author.say()
                await viewer.until_events(1 + number, 2.0)
            await author.say(1, size=60_000)
            await viewer.until_events(7, 2.0)
            await author.end()
            await viewer.until_done()
        assert viewer.connects == 1


@pytest.mark.parametrize("deployed", PROXIES)
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (tests/run installs it as root)")
async def test_the_same_over_http2(
    stand: tuple[EmbeddedRedis, list[EdgeProcess]], author: Author, deployed: Deployed
) -> None:
    """TLS offers HTTP/2, and each event is with the viewer before the next is written."""
    with deployed(stand[1]) as proxy:
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
            async with asyncio.timeout(5):
                while len(ids) < count:
                    frames = reader.feed(await process.stdout.read(65536))  # type: ignore[union-attr]
                    ids.extend(frame.id for frame in frames if frame.id is not None)

        await until(1)
        for number in range(1, 4):
            await author.say()
            await until(1 + number)
        await author.end()
        _, said = await process.communicate()
    assert re.search(rb"using HTTP/2|HTTP/2 200", said), said.decode()


@pytest.mark.parametrize("deployed", PROXIES)
async def test_an_edge_that_is_killed_costs_nobody_an_event(
    stand: tuple[EmbeddedRedis, list[EdgeProcess]], author: Author, deployed: Deployed
) -> None:
    """SIGKILL of one of three while events flow: its viewers resume on the others, and everybody has the whole log."""
    started = stand[1]
    with deployed(started) as proxy:
        await author.begin()
        async with watching(proxy, author, 30) as viewers:
            assert min(viewers_of(started)) >= 5, "connections are not spread"
            async with writing(author, pause_seconds=0.01) as appends:
                await asyncio.sleep(0.2)
                started[0].kill()
                before = appends()
                await eventually("everybody is on the others", lambda: sum(viewers_of(started[1:])) == 30)
                await eventually("events flow", lambda: appends() > before + 10)
            started[0].start().wait_ready()
            await assert_all_have_the_log(viewers, author)
        assert sum(viewer.connects > 1 for viewer in viewers) >= 5


@pytest.mark.timeout(120)
@needs_nginx
async def test_a_rolling_restart_loses_nothing_and_spreads_the_reconnects(
    stand: tuple[EmbeddedRedis, list[EdgeProcess]], author: Author
) -> None:
    """All three edges restart one after the other under load: 300 viewers have every event once, and come back over
    the drain window, not all at once."""
    started = stand[1]
    with deployed_nginx(started) as proxy:
        await author.begin()
        async with watching(proxy, author, VIEWERS) as viewers:
            reconnects: list[float] = []
            async with writing(author, pause_seconds=0.1):
                for edge in started:
                    seen = {id(viewer): viewer.connects for viewer in viewers}
                    began = time.monotonic()
                    stopping = asyncio.create_task(asyncio.to_thread(edge.stop))
                    while not stopping.done():
                        for viewer in viewers:
                            if viewer.connects > seen[id(viewer)]:
                                seen[id(viewer)] = viewer.connects
                                reconnects.append(time.monotonic() - began)
                        await asyncio.sleep(0.05)
                    assert await stopping == 0
                    await asyncio.to_thread(lambda edge=edge: edge.start().wait_ready())
            await assert_all_have_the_log(viewers, author)
    assert len(reconnects) >= VIEWERS
    tenths = Counter(int(10 * seconds / DRAIN_SECONDS) for seconds in reconnects)
    assert max(tenths.values()) < 0.4 * len(reconnects), tenths
    assert sum(tenths[tenth] > 0 for tenth in range(10)) >= 7, tenths


@needs_nginx
async def test_a_scale_out_evens_out_within_the_age_of_streams(own_redis: EmbeddedRedis) -> None:
    """From one edge to three: streams that reach their age are resumed wherever there is least, and nothing is lost."""
    client: Redis = connect(own_redis.url)
    author = Author(client)
    settings = {"heartbeat_seconds": 1, "max_stream_age_seconds": 3, "max_connections_per_user": 0}
    with contextlib.ExitStack() as stack:
        (first,) = stack.enter_context(edges(own_redis.url, 1, **settings))
        late = [EdgeProcess(own_redis.url, **settings) for _ in range(2)]
        for edge in late:
            stack.callback(edge.close)
        with deployed_nginx([first, *late]) as proxy:
            await author.begin()
            async with watching(proxy, author, 60) as viewers:
                assert viewers_of([first]) == [60]
                for edge in late:
                    edge.start()
                for edge in late:
                    await asyncio.to_thread(edge.wait_ready)
                await eventually(
                    "an even share", lambda: sum(counts := viewers_of([first, *late])) >= 50 and min(counts) >= 12, 15
                )
                await author.say(3)
                await assert_all_have_the_log(viewers, author)
    await client.aclose()


@needs_haproxy
async def test_a_draining_edge_gets_nothing_new(stand: tuple[EmbeddedRedis, list[EdgeProcess]], author: Author) -> None:
    """Readiness fails at once, so HAProxy sends new requests elsewhere while the old streams are still there."""
    started = stand[1]
    with deployed_haproxy(started) as proxy:
        await author.begin()
        async with watching(proxy, author, 30):
            stopping = asyncio.create_task(asyncio.to_thread(started[0].stop))
            await eventually("it is unready", lambda: started[0].admin_status("/readyz") != 200)
            answers = [(await call(proxy.port, "GET", "/api/agent/executions", author.token)).status for _ in range(20)]
            assert set(answers) == {200}
            await stopping
        await asyncio.to_thread(lambda: started[0].start().wait_ready())
