"""The hand-over of a connection from aiohttp to a viewer, on real sockets and both event loops; a viewer's facts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web
from redis.asyncio import Redis

from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.live.sse import LAST_CHUNK
from broker.live.view import StreamView
from broker.live.viewer import MAX_UNREAD_BYTES, SECOND_PROBE_SECONDS, Viewer, take_over
from emitter.wire.ids import START
from tests.broker.live.viewers import ALICE, entries, entry, topic_with, viewer_of
from tests.broker.sse_reader import RawStream, connected, open_stream, request_of
from tests.edges import SECRET, token_for, under_load

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Door:
    """A real aiohttp server whose `/stream` hands every connection over, as an edge does; `/plain` answers."""

    def __init__(self, high_water: int = 64 * 1024) -> None:
        self.high_water = high_water
        self.topic = topic_with()
        self.viewers: list[Viewer] = []
        self.gone: list[Viewer] = []
        self.handlers: list[weakref.ref[web.Request]] = []
        self.changed = asyncio.Event()
        self.port = 0

    def on_gone(self, viewer: Viewer) -> None:
        viewer.close()
        self.gone.append(viewer)
        self.changed.set()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        view = StreamView(chunked=request.version == (1, 1))
        if view.chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        await response.prepare(request)
        await response.write(b"retry: 1\n\n")
        while "fill" in request.query and not request.protocol.writing_paused:
            assert request.transport is not None
            request.transport.write(b":" + b"x" * 100_000 + b"\n")
            await asyncio.sleep(0)
        if "deaf" in request.query:
            assert request.transport is not None
            request.transport.pause_reading()  # as aiohttp does when a body outgrows its buffer
        viewer = Viewer(self, self.topic, view, ALICE, START)
        take_over(request, viewer, self.high_water)
        self.viewers.append(viewer)
        self.handlers.append(weakref.ref(request))
        self.changed.set()
        return response

    async def plain(self, request: web.Request) -> web.Response:
        return web.Response(body=b"read %d" % len(await request.read()))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def opened(self, count: int = 1) -> Viewer:
        await self.until(lambda: len(self.viewers) >= count)
        return self.viewers[count - 1]


@contextlib.asynccontextmanager
async def a_door(high_water: int = 64 * 1024) -> AsyncIterator[Door]:
    door = Door(high_water)
    app = web.Application()
    app.router.add_get("/stream", door.stream)
    app.router.add_route("*", "/plain", door.plain)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    door.port = runner.addresses[0][1]
    try:
        yield door
    finally:
        for viewer in door.viewers:
            viewer.transport.abort()
        await runner.cleanup()


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a test on one of the two event loops; what a callback raises fails it."""

    def run(test: Coroutine[Any, Any, None]) -> None:
        errors: list[dict[str, Any]] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
            await test
            await asyncio.sleep(0)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(watched())
        assert errors == []

    return run


Run = Callable[[Coroutine[Any, Any, None]], None]


async def quiet(turns: int = 10) -> None:
    """Let the loop finish what is ready."""
    for _ in range(turns):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


# --- the hand-over ---------------------------------------------------------------------------------------------------


def test_after_the_hand_over_no_task_and_no_request_is_left(run: Run) -> None:
    """A handed-over connection holds no task, no request and no protocol of aiohttp's, and still carries bytes."""

    async def test() -> None:
        async with a_door() as door:
            idle = others()
            async with open_stream(door.port, "/stream", {}) as stream:
                viewer = await door.opened()
                await quiet()
                assert others() == idle, "aiohttp's handler has ended"
                gc.collect()
                assert door.handlers[0]() is None, "nothing holds the request"
                assert viewer.transport.get_protocol() is viewer
                assert not viewer.transport.is_closing()
                viewer.write(viewer.view.wrap(b"data: 1\n\n"))
                assert (await stream.until("message")).data == "1"
                assert stream.parser.retry == 1
                viewer.finish(b"")
                await stream.to_end()
                assert stream.ended, "the body ends with the last chunk, and nothing of aiohttp's comes after it"

    run(test())


async def test_a_connection_ends_with_its_response() -> None:
    """Whoever has read the last chunk finds the connection at its end: it is not there for another request."""
    async with a_door() as door:
        with socket.create_connection(("127.0.0.1", door.port)) as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            viewer = await door.opened()
            viewer.finish(b"")  # and the loop does not come round before all of it is read
            client.settimeout(2)
            received = b"".join(iter(lambda: client.recv(4096), b""))
        assert received.endswith(LAST_CHUNK)


def test_the_protocol_of_aiohttp_is_let_go(run: Run) -> None:
    """aiohttp's protocol for the connection is freed: no registry, timer or task of the server holds it."""

    async def test() -> None:
        async with a_door() as door:
            gc.collect()  # those that other tests left behind would go meanwhile
            before = len([o for o in gc.get_objects() if isinstance(o, web.RequestHandler)])
            async with open_stream(door.port, "/stream", {}):
                await door.opened()
                await quiet()
                gc.collect()
                assert len([o for o in gc.get_objects() if isinstance(o, web.RequestHandler)]) == before

    run(test())


def test_a_client_that_leaves_is_told_once(run: Run) -> None:
    """`on_gone` is called once when the client closes or resets its connection."""

    async def test() -> None:
        async with a_door() as door:
            for count, leave in enumerate((close, reset), 1):
                async with open_stream(door.port, "/stream", {}) as stream:
                    viewer = await door.opened(count)
                    leave(stream)
                    await door.until(lambda: len(door.gone) >= count)  # noqa: B023 - awaited in the loop
                    await quiet()
                    assert door.gone[-1] is viewer
                    assert len(door.gone) == count

    run(test())


def close(stream: RawStream) -> None:
    stream.writer.close()


def reset(stream: RawStream) -> None:
    sock = stream.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.writer.transport.abort()


def half_close(stream: RawStream) -> None:
    stream.writer.write_eof()


def test_a_client_that_says_no_more_still_listens(run: Run) -> None:
    """A client that ends its side of the connection gets what is written; when it closes the other side as well, the
    viewer is gone."""

    async def test() -> None:
        async with a_door() as door, open_stream(door.port, "/stream", {}) as stream:
            viewer = await door.opened()
            half_close(stream)
            await asyncio.sleep(2 * SECOND_PROBE_SECONDS)
            assert door.gone == []
            viewer.write(viewer.view.wrap(b"data: still here\n\n"))
            async with asyncio.timeout(5):
                await stream.reader.readuntil(b"data: still here\n\n")
            close(stream)
            viewer.write(viewer.view.heartbeat)  # its connection is reset by this, or by the next
            await asyncio.sleep(0.05)
            viewer.write(viewer.view.heartbeat)
            await door.until(lambda: door.gone == [viewer])

    run(test())


def test_it_works_on_a_later_request_of_a_connection(run: Run) -> None:
    """A connection that was kept alive over other requests, with bodies too, becomes a stream."""

    async def test() -> None:
        async with a_door() as door, connected(door.port) as stream:
            for body in (b"", b"some text"):
                length = b"Content-Length: %d\r\n\r\n" % len(body)
                await stream.send(b"POST /plain HTTP/1.1\r\nHost: edge\r\n" + length + body)
                await stream.head()
                assert await stream.body() == b"read %d" % len(body)
            await stream.send(request_of("/stream", {}))
            await stream.head()
            viewer = await door.opened()
            await quiet()
            viewer.write(viewer.view.wrap(b"data: 1\n\n"))
            assert (await stream.until("message")).data == "1"

    run(test())


def test_it_works_with_http_1_0(run: Run) -> None:
    """An HTTP/1.0 client gets the plain body, which ends with the connection."""

    async def test() -> None:
        async with a_door() as door, open_stream(door.port, "/stream", {}, version="1.0") as stream:
            viewer = await door.opened()
            assert "transfer-encoding" not in stream.headers
            viewer.write(viewer.view.wrap(b"data: 1\n\n"))
            viewer.transport.close()
            assert [frame.data for frame in await stream.to_end()] == ["1"]

    run(test())


def test_what_a_client_sends_on_a_stream_is_ignored_and_bounded(run: Run) -> None:
    """Pipelined requests are not answered, come they with the first or later; past the limit the client is cut."""

    async def test() -> None:
        async with a_door() as door, connected(door.port) as stream:
            await stream.send(request_of("/stream", {}) + request_of("/plain", {}))
            await stream.head()
            viewer = await door.opened()
            await stream.send(request_of("/plain", {}) * 3)
            viewer.write(viewer.view.wrap(b"data: 1\n\n"))
            await stream.until("message")
            with contextlib.suppress(ConnectionError):
                for _ in range(MAX_UNREAD_BYTES // 1024 + 64):
                    await stream.send(b"x" * 1024)
            await door.until(lambda: bool(door.gone))
            assert viewer.unread <= 2 * MAX_UNREAD_BYTES + 256 * 1024, "at most one read more than allowed"
            assert [frame.data for frame in stream.frames] == ["1"]

    run(test())


def test_a_body_that_nobody_read_does_not_deafen(run: Run) -> None:
    """aiohttp stops reading a request whose body is not asked for; after the hand-over the viewer hears its client."""

    async def test() -> None:
        async with a_door() as door, connected(door.port) as stream:
            size = MAX_UNREAD_BYTES * 20
            stream.writer.write(request_of("/stream?deaf=1", {"Content-Length": str(size)}) + b"x" * size)
            await stream.head()
            await door.opened()
            await door.until(lambda: bool(door.gone))

    run(test())


def test_a_viewer_at_rest_is_small(run: Run) -> None:
    """500 idle viewers cost no task each, and less memory than one suspended aiohttp handler (11 KB) would."""

    async def test() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 2000:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        async with a_door() as door:
            socks = [socket.socket() for _ in range(600)]
            try:
                await connect_all(door, socks[:100])  # what is allocated once is not counted
                tasks, objects, memory = len(others()), len(gc.get_objects()), resident()
                await connect_all(door, socks[100:])
                gc.collect()
                assert len(others()) == tasks
                assert (len(gc.get_objects()) - objects) / 500 < 20
                assert (resident() - memory) / 500 < 20_000
            finally:
                for sock in socks:
                    sock.close()

    async def connect_all(door: Door, socks: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        count = len(door.viewers)
        for sock in socks:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", door.port))
            await loop.sock_sendall(sock, request_of("/stream", {}))
        await door.opened(count + len(socks))
        await quiet()
        gc.collect()

    run(test())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_a_viewer_that_left_is_let_go(redis: Redis, redis_url: str) -> None:
    """Nothing holds a viewer for longer than a heartbeat after its connection was lost, however long it might have
    lived: come and go as they may, the edge remembers only who is there."""
    settings = Settings(
        redis_url=redis_url,
        host="127.0.0.1",
        admin_host="127.0.0.1",
        port=0,
        admin_port=0,
        jwt_secret=SECRET,
        drain_seconds=0,
        heartbeat_seconds=0.1,
        max_stream_age_seconds=0,
    )
    async with Edge(settings) as edge:
        headers = {"Authorization": f"Bearer {token_for('alice')}"}
        before, seen = viewers_alive(), 0
        for _ in range(20):
            async with open_stream(edge.port, "/api/agent/stream", headers) as stream:
                await stream.until("stream:open")
                seen = max(seen, viewers_alive() - before)
        assert seen > 0
        async with asyncio.timeout(5):
            while viewers_alive() > before:
                await asyncio.sleep(0.05)


def viewers_alive() -> int:
    gc.collect()
    return sum(isinstance(each, Viewer) for each in gc.get_objects())


# --- back-pressure ---------------------------------------------------------------------------------------------------


def test_a_full_socket_pauses_and_a_read_one_resumes(run: Run) -> None:
    """A client that stops reading pauses its viewer at the limit we set; when it reads again the viewer is resumed."""

    async def test() -> None:
        async with a_door(high_water=200_000) as door, open_stream(door.port, "/stream", {}) as stream:
            viewer = await door.opened()
            assert viewer.transport.get_write_buffer_limits()[1] == 200_000
            await fill(viewer)
            reading = asyncio.create_task(stream.to_end())
            async with asyncio.timeout(5):
                await viewer.wait_writable()
            assert not viewer.paused
            viewer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await reading

    run(test())


async def fill(viewer: Viewer) -> None:
    """Write until the transport is full; it says so within the write or, with uvloop, a turn later."""
    for _ in range(1000):
        if viewer.paused:
            return
        viewer.write(viewer.view.wrap(b"x" * 100_000))
        await asyncio.sleep(0)
    raise AssertionError("never paused")


def test_a_connection_that_is_full_already_begins_paused(run: Run) -> None:
    """Where the socket is full before the hand-over, the viewer knows that it is paused, and is resumed when it is
    read: else it would be written to without bound."""

    async def test() -> None:
        async with a_door() as door, open_stream(door.port, "/stream?fill=1", {}, version="1.0") as stream:
            viewer = await door.opened()
            assert viewer.paused
            reading = asyncio.create_task(stream.to_end())
            async with asyncio.timeout(5):
                await viewer.wait_writable()
            assert not viewer.paused
            viewer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await reading

    run(test())


def test_a_gone_viewer_wakes_who_waits_for_its_drain() -> None:
    """A lost connection ends the wait for room in its socket."""

    async def test() -> None:
        viewer = viewer_of(topic_with())
        viewer.pause_writing()
        waiting = asyncio.create_task(viewer.wait_writable())
        await quiet()
        assert not waiting.done()
        viewer.connection_lost(None)
        await asyncio.wait_for(waiting, under_load(1))

    asyncio.run(test())


# --- facts -----------------------------------------------------------------------------------------------------------


def test_a_live_viewer_stands_where_the_hub_stands() -> None:
    """A replaying viewer's place is its own cursor; a live one's is its topic's."""
    topic = topic_with(*entries(1, 5))
    viewer = viewer_of(topic, cursor=entry(2).id)
    assert viewer.position == entry(2).id
    viewer.go_live()
    assert viewer.position == entry(5).id
    topic.accept(entries(6, 6))
    assert viewer.position == entry(6).id


def test_a_closing_viewer_writes_nothing() -> None:
    """After its end nothing more is written, and nothing empty ever is."""
    viewer = viewer_of(topic_with())
    viewer.write(b"")
    viewer.write(b"a")
    viewer.close()
    viewer.write(b"b")
    assert viewer.transport.writes == [b"a"]  # type: ignore[attr-defined]


def test_stuck_is_measured_from_the_last_byte_that_left() -> None:
    """A paused viewer is stuck for as long as its buffer does not shrink; one that is not paused is never stuck."""
    viewer = viewer_of(topic_with())
    sizes = iter([900, 900, 500, 500, 500])
    viewer.transport.get_write_buffer_size = lambda: next(sizes)  # type: ignore[method-assign]
    assert viewer.stall_seconds(100.0) == 0
    viewer.pause_writing()
    seen = [viewer.stall_seconds(now) for now in (101.0, 103.0, 104.0, 105.0, 107.5)]
    assert seen == [0, 2, 0, 1, 3.5]
    viewer.resume_writing()
    assert viewer.stall_seconds(120.0) == 0
    viewer.pause_writing()
    sizes = iter([500])
    assert viewer.stall_seconds(121.0) <= 1


def test_a_viewer_has_no_dictionary() -> None:
    """Every attribute is a slot: one that is set by mistake would cost each of many thousand viewers."""
    viewer = viewer_of(topic_with())
    assert set(Viewer.__slots__) >= {"cursor", "transport", "paused"}
    assert not set(getattr(viewer, "__dict__", {})), "asyncio.Protocol itself has slots"
