"""The readers of deploy/examples/readers, on real streams that are cut, drained, aged, slow, quiet, filtered and
finished: each prints exactly the log."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import readers
from readers import Reader, running

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from tests.edges import Author, EdgeProcess, Received, edges, eventually
from tests.roads import road

pytestmark = pytest.mark.timeout(180)
HERE = [name for name in readers.RUNS if readers.missing(name) is None]
SILENCE_SECONDS = 11.0
"""Longer than the ten seconds that readers take for a lost connection."""
MOST = 1000
"""Events of 20,000 bytes that cannot be compressed: more than sockets hold of readers that do not read."""


class Told(NamedTuple):
    """What one reader printed, and how it ended."""

    lines: list[tuple[str, str]]
    code: int
    error: str


class Story(NamedTuple):
    told: dict[str, Told]
    log: list[Received]
    reasons: set[str]
    """With which streams were closed, by the edges' logs."""


@asynccontextmanager
async def author_of(user: str, redis: EmbeddedRedis) -> AsyncIterator[Author]:
    client = connect(redis.url)
    try:
        yield Author(client, user)
    finally:
        await client.aclose()


async def everybody(what: str, everyone: list[Reader], count: int) -> None:
    await asyncio.gather(*(reader.until(what, lambda reader: len(reader.lines) >= count) for reader in everyone))


async def told(everyone: list[Reader]) -> dict[str, Told]:
    codes = await asyncio.gather(*(reader.ended() for reader in everyone))
    return {r.name: Told(r.lines, code, await r.error()) for r, code in zip(everyone, codes, strict=True)}


def closed(*edges: EdgeProcess, user: str) -> set[str]:
    """Why these edges closed this user's streams."""
    return {line["reason"] for edge in edges for line in edge.logged("stream_closed") if line["user"] == user}


async def cut_drained_and_slow(redis: EmbeddedRedis, leaving: EdgeProcess, staying: EdgeProcess) -> Story:
    """Connections are lost, then the edge stops, then nobody reads for a while; then the execution ends."""
    async with author_of("cut", redis) as author, road(leaving.port, 16_384) as way:
        await author.begin()
        await author.say(3)
        url = f"http://127.0.0.1:{way.port}{author.path}?heartbeat=3"
        async with running(HERE, url, author.token) as everyone:
            await everybody("the first events", everyone, 4)
            way.forget("reset")
            await author.say()  # which the lost connections do not carry
            await everybody("what came after a cut", everyone, 5)
            way.target = staying.port
            leaving.send_signal(signal.SIGTERM)
            await author.say()
            await everybody("what came after the drain", everyone, 6)
            await asyncio.to_thread(leaving.wait, 60)
            await author.say()  # which only the other edge can tell
            await everybody("what came from the edge that stays", everyone, 7)
            for reader in everyone:
                reader.send(signal.SIGSTOP)
            written = 0
            while closed_as(staying, "slow") < len(everyone):
                assert written < MOST, f"only {closed_as(staying, 'slow')} were too slow"
                await author.think(secrets.token_hex(10_000))
                written += 1
                await asyncio.sleep(0.02 if written < 60 else 0.1)
            for reader in everyone:
                reader.send(signal.SIGCONT)
            await everybody("what came while they did not read", everyone, 7 + written)
            await author.end()
            found = await told(everyone)
        log = await author.log()
    return Story(found, log, closed(leaving, staying, user="cut"))


async def until_closed(edge: EdgeProcess, reason: str, count: int) -> None:
    async with asyncio.timeout(60):
        while closed_as(edge, reason) < count:
            await asyncio.sleep(0.2)


def closed_as(edge: EdgeProcess, reason: str) -> float:
    return edge.metric("runcast_connections_closed_total", reason=reason)


async def aged_quiet_and_filtered(redis: EmbeddedRedis, hasty: EdgeProcess, staying: EdgeProcess) -> Story:
    """Streams without the last event: closed for their age, then quiet for long, then lost while the end is said."""
    async with author_of("filtered", redis) as author, road(hasty.port) as way:
        await author.begin()
        await author.progress(1)
        await author.say(2)
        url = f"http://127.0.0.1:{way.port}{author.path}?heartbeat=3&types=thinking"
        async with running(HERE, url, author.token) as everyone:
            await everybody("the first events", everyone, 2)
            way.target = staying.port
            await until_closed(hasty, "aged", len(everyone))
            await eventually("all streams there were aged", lambda: hasty.metric("runcast_connections") == 0, 60)
            await asyncio.to_thread(hasty.stop, 60)
            await author.say()  # which only the other edge can tell
            await everybody("what came to the next streams", everyone, 3)
            made = way.made
            await asyncio.sleep(SILENCE_SECONDS)
            assert way.made == made, "heartbeats keep a quiet stream"
            way.forget("silent")
            await author.end()
            await asyncio.sleep(0.3)
            way.close()
            found = await told(everyone)
        log = [event for event in await author.log() if event.type == "thinking"]
    return Story(found, log, closed(hasty, staying, user="filtered"))


@pytest.fixture(scope="module")
def stories() -> dict[str, Story]:
    """Both are told at once."""

    async def tell() -> list[Story]:
        with (
            EmbeddedRedis() as redis,
            edges(redis.url, 2, write_timeout_seconds=1, viewer_buffer_bytes=65536) as (leaving, staying),
            edges(redis.url, 1, max_stream_age_seconds=1.5) as (hasty,),
        ):
            return await asyncio.gather(
                cut_drained_and_slow(redis, leaving, staying), aged_quiet_and_filtered(redis, hasty, staying)
            )

    return dict(zip(("cut", "filtered"), asyncio.run(tell()), strict=True))


@pytest.mark.parametrize("name", readers.RUNS)
@pytest.mark.parametrize("story", ["cut", "filtered"])
def test_a_reader_prints_exactly_the_log(stories: dict[str, Story], story: str, name: str) -> None:
    """No event is missing or there twice, and the reader ends with the execution, not before."""
    if name not in HERE:
        pytest.skip(str(readers.missing(name)))
    heard = stories[story].told[name]
    assert heard.lines == [(event.id, event.data) for event in stories[story].log]
    assert (heard.code, heard.error) == (0, "")


def test_the_streams_were_treated_as_said(stories: dict[str, Story]) -> None:
    """By the edges' own logs; a stream of which the last event is left out ends by its `stream:end` or a 204."""
    assert {"draining", "slow", "finished"} <= stories["cut"].reasons
    assert "aged" in stories["filtered"].reasons
    assert json.loads(stories["cut"].log[-1].data)["type"] == "execution:complete"


async def test_no_reader_comes_back_to_what_it_may_not_read(two_edges: list[EdgeProcess], author: Author) -> None:
    """An unknown execution is an error at once, not a loop."""
    if not HERE:
        pytest.skip("no reader is built")
    url = f"http://127.0.0.1:{two_edges[0].port}{author.path}"
    async with running(HERE, url, author.token) as everyone:
        for reader in everyone:
            assert await reader.ended() != 0
            assert "404" in await reader.error()
