"""One subscription for all who wait for a word on a control channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.store.control import ControlChannel


class Ear:
    """A listener with a Redis of its own, and what Redis knows of it."""

    def __init__(self, url: str) -> None:
        self.redis: Any = connect(url)
        self._own: Any = connect(url)
        self.control = ControlChannel(self._own)

    @contextlib.contextmanager
    def news_of(self, channel: str, input_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when an input may have its answer."""
        news = asyncio.Event()
        with self.control.waiting_for(channel, b"answer " + input_id.encode(), news.set):
            yield news

    async def channels(self, *expected: str) -> None:
        """Wait until it is subscribed to just these."""
        async with asyncio.timeout(10):
            while {name.decode() for name in await self.redis.pubsub_channels()} != {*expected}:
                await asyncio.sleep(0.005)

    async def connections(self) -> int:
        return len([client for client in await self.redis.client_list() if client["sub"] != "0"])

    async def aclose(self) -> None:
        await self.control.aclose()
        await self._own.aclose()
        await self.redis.aclose()


@pytest.fixture
async def ear(own_redis: EmbeddedRedis) -> AsyncIterator[Ear]:
    made = Ear(own_redis.url)
    yield made
    await made.aclose()


async def heard(news: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await news.wait()
    news.clear()


async def test_the_subscription_and_the_own_answer_are_news(ear: Ear) -> None:
    """Of the messages on the channel only the word that this input has its answer."""
    with ear.news_of("a", "q1") as first, ear.news_of("a", "q2") as second:
        await heard(first)
        await heard(second)
        for word in ("cancel", "answer q3", "answer q11", "answer q2"):
            assert await ear.redis.publish("a", word) == 1
        await heard(second)
        assert not first.is_set()
        await ear.redis.publish("a", "answer q1")
        await heard(first)


async def test_channels_come_and_go_over_one_connection(ear: Ear) -> None:
    """Each is subscribed while somebody waits for it, and the connection is closed when nobody waits for any."""
    with contextlib.ExitStack() as all_of_them:
        for number in range(20):
            channel = f"c{number % 5}"
            all_of_them.enter_context(ear.news_of(channel, f"q{number}"))
        with ear.news_of("late", "q") as late:
            await ear.channels("late", *(f"c{number}" for number in range(5)))
            await heard(late)
            assert await ear.connections() == 1
        await ear.channels(*(f"c{number}" for number in range(5)))
    async with asyncio.timeout(5):
        while await ear.connections():
            await asyncio.sleep(0.005)
    with ear.news_of("again", "q") as news:
        await heard(news)
        await ear.channels("again")


async def test_a_channel_left_and_joined_at_once(ear: Ear) -> None:
    """Whoever comes as the last one goes, or while the connection is made, misses nothing."""
    for number in range(60):
        with ear.news_of("a", "q"):
            await asyncio.sleep(0.0005 * (number % 5))
        await asyncio.sleep(0.0002 * (number % 3))
        with ear.news_of("a", "q") as news:
            await ear.channels("a")
            await ear.redis.publish("a", "answer q")
            await heard(news)


async def test_many_who_come_while_it_connects(ear: Ear) -> None:
    """All channels are subscribed over one connection."""

    async def listen(number: int) -> None:
        await asyncio.sleep(0.0005 * number)
        with ear.news_of(f"c{number}", "q") as news:
            await heard(news)
            await done.wait()

    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(listen(number))
        await ear.channels(*(f"c{number}" for number in range(20)))
        assert await ear.connections() == 1
        done.set()


async def test_a_lost_connection_is_made_again(ear: Ear) -> None:
    """And counts as news for everyone, since a word may have been missed."""
    with ear.news_of("a", "q1") as first, ear.news_of("b", "q2") as second:
        await heard(first)
        await heard(second)
        for _ in range(3):
            assert await ear.redis.client_kill_filter(_type="pubsub") == 1
            await heard(first)
            await heard(second)
        await ear.redis.publish("b", "answer q2")
        await heard(second)


async def test_closing_wakes_who_waits(ear: Ear) -> None:
    """And leaves no connection and no task; a second time it does nothing."""
    with ear.news_of("a", "q") as news:
        await heard(news)
        await ear.control.aclose()
        assert news.is_set()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("control")]
        await ear.channels()
    await ear.control.aclose()
