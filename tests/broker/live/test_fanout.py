"""The live path on real sockets: bytes go straight to a socket while its transport holds nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import zlib
from collections.abc import AsyncIterator

import pytest
import uvloop

from broker.base.identity import Identity
from broker.live.gzip_view import GzipView
from broker.live.packed_group import Packers
from broker.live.topic import Topic
from broker.live.view import StreamView
from broker.live.viewer import Viewer
from emitter.wire.entries import Entry
from emitter.wire.ids import START
from emitter.wire.keys import Owner

VIEW = StreamView(chunked=False)


class Nobody:
    """Takes note of viewers that go."""

    def __init__(self) -> None:
        self.gone: list[Viewer] = []

    def on_gone(self, viewer: Viewer) -> None:
        viewer.topic.remove(viewer)
        self.gone.append(viewer)


@contextlib.asynccontextmanager
async def live_viewer(
    topic: Topic, service: Nobody, view: StreamView = VIEW
) -> AsyncIterator[tuple[Viewer, socket.socket]]:
    """A viewer on one end of a socket pair with small buffers; the other end is the client's, non-blocking."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setblocking(False)
    viewer = Viewer(service, topic, view, Identity(Owner("u"), frozenset()), START)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: viewer, sock=ours)
    viewer.go_live()
    try:
        yield viewer, theirs
    finally:
        transport.abort()
        theirs.close()


def entry(seq: int, size: int) -> Entry:
    return Entry(1000, seq, b"status", b'{"n":"' + b"x" * size + b'"}')


async def interleave(seed: int) -> None:
    """Random sizes, random reads and words of the viewer's own arrive whole and in the order they were said."""
    rng = random.Random(seed)
    topic, service = Topic("t", is_execution=True), Nobody()
    async with live_viewer(topic, service) as (viewer, client):
        said, heard = bytearray(), bytearray()
        for seq in range(1, 200):
            entries = [entry(seq, rng.randrange(3000))]
            topic.deliver(entries)
            said += VIEW.render(entries)
            if rng.random() < 0.2:
                viewer.write(b": hb\n")
                said += b": hb\n"
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            while rng.random() < 0.4:
                with contextlib.suppress(BlockingIOError):
                    heard += client.recv(rng.randrange(1, 5000))
        loop = asyncio.get_running_loop()
        while len(heard) < len(said):
            heard += await asyncio.wait_for(loop.sock_recv(client, 65536), 5)
        assert heard == said


@pytest.mark.parametrize("seed", range(8))
def test_a_socket_that_is_full_at_times_loses_and_swaps_nothing(seed: int) -> None:
    """Whatever a socket takes and when, the stream is what was written, in its order, on both event loops."""
    asyncio.run(interleave(seed))
    uvloop.run(interleave(seed))


async def interleave_gzip(seed: int) -> None:
    """The same for two that share what is compressed, of which each gets words of its own between."""
    rng = random.Random(seed)
    topic, service, view = Topic("t", is_execution=True), Nobody(), GzipView(Packers(), chunked=False)
    async with live_viewer(topic, service, view) as one, live_viewer(topic, service, view) as other:
        ends = (one, other)
        said, heard = (bytearray(), bytearray()), (bytearray(), bytearray())
        decoders = [zlib.decompressobj(31) for _ in ends]
        for (viewer, _), text in zip(ends, said, strict=True):
            viewer.write(view.wrap(b": hello\n"))
            text += b": hello\n"
        for seq in range(1, 200):
            entries = [Entry(1000, seq, b"status", rng.randbytes(rng.randrange(1500)).hex().encode())]
            topic.deliver(entries)
            for (viewer, client), text, got, decoder in zip(ends, said, heard, decoders, strict=True):
                text += VIEW.render(entries)
                if rng.random() < 0.1:
                    viewer.write(view.wrap(b": hb\n"))
                    text += b": hb\n"
                while rng.random() < 0.6:
                    with contextlib.suppress(BlockingIOError):
                        got += decoder.decompress(client.recv(rng.randrange(1, 5000)))
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        for (_, client), text, got, decoder in zip(ends, said, heard, decoders, strict=True):
            while len(got) < len(text):
                got += decoder.decompress(await asyncio.wait_for(loop.sock_recv(client, 65536), 5))
            assert got == text


@pytest.mark.parametrize("seed", range(4))
def test_a_full_socket_loses_and_swaps_nothing_in_gzip(seed: int) -> None:
    asyncio.run(interleave_gzip(seed))
    uvloop.run(interleave_gzip(seed))


async def test_one_that_does_not_read_does_not_keep_the_others() -> None:
    """A full socket delays nobody, and its viewer is told to stop when its buffer is over the limit."""
    topic, service = Topic("t", is_execution=True), Nobody()
    async with live_viewer(topic, service) as (stuck, _), live_viewer(topic, service) as (_, client):
        stuck.transport.set_write_buffer_limits(high=20_000)
        loop = asyncio.get_running_loop()
        for seq in range(1, 60):
            expected = VIEW.render([entry(seq, 1000)])
            topic.deliver([entry(seq, 1000)])
            heard = b""
            while len(heard) < len(expected):
                heard += await asyncio.wait_for(loop.sock_recv(client, 65536), 5)
            assert heard == expected
        assert topic.lagging == [stuck]


async def test_a_socket_that_broke_is_left_to_its_transport() -> None:
    """A write to a peer that has gone raises nothing; the viewer departs, and its number is no longer written to."""
    topic, service = Topic("t", is_execution=True), Nobody()
    async with live_viewer(topic, service) as (viewer, client):
        client.close()
        topic.deliver([entry(1, 10)])
        async with asyncio.timeout(5):
            while not service.gone:
                await asyncio.sleep(0)
        assert service.gone == [viewer]
        assert not topic.groups
        topic.deliver([entry(2, 10)])
