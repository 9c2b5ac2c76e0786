"""The one subscription, on a real Redis: confirmations, races, lost connections and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from broker.log import subscription as module
from broker.log.subscription import Subscription
from emitter.errors import RedisUnavailable
from emitter.store.connection import connect
from tests.broker.heard import Heard
from tests.edges import under_load

OWN = "rc:edge:test"


@contextlib.asynccontextmanager
async def subscribed(url: str, *channels: str) -> AsyncIterator[tuple[Subscription, Heard]]:
    """A subscription with its own connection, its permanent channel confirmed."""
    heard, listening = Heard(), connect(url)
    try:
        async with Subscription(listening, [OWN], heard.on_message, heard.on_lost) as subscription:
            for channel in (OWN, *channels):
                await subscription.subscribe(channel)
            yield subscription, heard
    finally:
        await listening.aclose()


async def numsub(redis: Redis, *channels: str) -> dict[str, int]:
    rows: Any = await redis.pubsub_numsub(*channels)
    return {name.decode(): count for name, count in rows}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Redis tells nobody who subscribes, so this one looks until it is so."""
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.01)


# --- subscribing -----------------------------------------------------------------------------------------------------


async def test_a_confirmed_channel_hears_what_is_published_next(redis: Redis, redis_url: str) -> None:
    """From the moment `subscribe` returns, every message of the channel arrives; other channels stay silent."""
    async with subscribed(redis_url) as (subscription, heard):
        await redis.publish("a", b"too early")
        await subscription.subscribe("a")
        assert subscription.channels == 2
        for n in range(300):
            assert await redis.publish("a", b"%d" % n) == 1
        assert await redis.publish("b", b"x") == 0
        await heard.until(lambda: len(heard.messages) >= 300)
        assert heard.messages == [("a", b"%d" % n) for n in range(300)]
        assert heard.lost == {}


async def test_a_wave_of_joins_is_one_command(redis: Redis, redis_url: str) -> None:
    """A thousand subscribers of ten channels, at once, are one or two SUBSCRIBE commands."""
    async with subscribed(redis_url) as (subscription, _):
        await redis.config_resetstat()
        await asyncio.gather(*(subscription.subscribe(f"c{n % 10}") for n in range(1000)))
        stats: Any = await redis.info("commandstats")
        assert stats["cmdstat_subscribe"]["calls"] <= 2
        assert set((await numsub(redis, *(f"c{n}" for n in range(10)))).values()) == {1}
        assert subscription.channels == 11


async def test_what_is_confirmed_needs_no_command(redis: Redis, redis_url: str) -> None:
    """Subscribing to what is held already returns at once and sends nothing."""
    async with subscribed(redis_url, "a") as (subscription, _):
        await redis.config_resetstat()
        for _ in range(10):
            await subscription.subscribe("a")
        stats: Any = await redis.info("commandstats")
        assert "cmdstat_subscribe" not in stats


async def test_unsubscribing_lets_a_channel_go(redis: Redis, redis_url: str) -> None:
    """After `unsubscribe` Redis sends no more of the channel; unsubscribing from what was never held does nothing."""
    async with subscribed(redis_url, "a", "b") as (subscription, heard):
        subscription.unsubscribe("a")
        subscription.unsubscribe("never")
        await until(lambda: is_free(redis, "a"))
        assert await numsub(redis, "b", OWN) == {"b": 1, OWN: 1}
        assert subscription.channels == 2
        assert heard.lost == {}


async def is_free(redis: Redis, channel: str) -> bool:
    return (await numsub(redis, channel))[channel] == 0


@pytest.mark.parametrize("seed", [1, 2, pytest.param(random.randrange(1 << 32), id="random")])
async def test_subscribe_and_unsubscribe_may_race(redis: Redis, redis_url: str, seed: int) -> None:
    """However channels are dropped and wanted again, whoever was told `subscribed` is; at the end none is left over."""
    chance = random.Random(seed)
    async with subscribed(redis_url) as (subscription, _):

        async def come_and_go(channel: str) -> None:
            for _ in range(60):
                await subscription.subscribe(channel)
                assert await redis.publish(channel, b"x") == 1, f"{channel} is not subscribed (seed {seed})"
                subscription.unsubscribe(channel)
                for _ in range(chance.choice([0, 0, 1, 2, 3, 10])):
                    await asyncio.sleep(0)

        await asyncio.gather(*(come_and_go(f"c{n}") for n in range(8)))
        for n in range(8):
            await until(lambda: is_free(redis, f"c{n}"))  # noqa: B023 - awaited in the loop
        assert subscription.channels == 1


async def test_a_channel_wanted_again_after_it_was_given_up_is_subscribed(redis: Redis, redis_url: str) -> None:
    """A subscriber that comes after one that gave up before anything was sent is not left waiting."""
    async with subscribed(redis_url) as (subscription, _):
        first = asyncio.create_task(subscription.subscribe("a"))
        await asyncio.sleep(0)
        first.cancel()
        subscription.unsubscribe("a")
        await asyncio.gather(first, return_exceptions=True)
        for _ in range(5):
            await asyncio.sleep(0)  # the change was looked at, and there was none
        async with asyncio.timeout(under_load(1)):
            await subscription.subscribe("a")
        assert await redis.publish("a", b"x") == 1


# --- losing the connection -------------------------------------------------------------------------------------------


async def test_a_killed_connection_is_told_once_for_each_channel(redis: Redis, redis_url: str) -> None:
    """Every time the connection is lost and made anew, each channel is said to have lost messages, exactly once, and
    hears again what comes after."""
    channels = ["a", "b", "c"]
    async with subscribed(redis_url, *channels) as (subscription, heard):
        for round_ in range(1, 4):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await heard.until(lambda: all(heard.lost[each] >= round_ for each in (OWN, *channels)))  # noqa: B023
            for channel in channels:
                assert await redis.publish(channel, b"%d" % round_) == 1
            await heard.until(lambda: len(heard.messages) == 3 * round_)  # noqa: B023
            assert heard.lost == dict.fromkeys([OWN, *channels], round_)
            assert subscription.reconnects == round_
            assert subscription.connected


async def test_giving_the_connection_up_makes_a_new_one(redis: Redis, redis_url: str) -> None:
    """`reconnect` leads to a new connection on which every channel is held, and says that messages may be missing."""
    async with subscribed(redis_url, "a") as (subscription, heard):
        [before] = [row["id"] for row in await redis.client_list(_type="pubsub")]
        subscription.reconnect()
        await heard.until(lambda: heard.lost["a"] == 1)
        [after] = [row["id"] for row in await redis.client_list(_type="pubsub")]
        assert before != after
        assert await redis.publish("a", b"x") == 1


async def test_a_channel_given_up_while_the_connection_was_lost_is_not_left_over(redis: Redis, redis_url: str) -> None:
    """What is dropped in the moment in which the connection is lost is not held on the next one."""
    async with subscribed(redis_url, *(f"c{n}" for n in range(20))) as (subscription, heard):
        for n in range(20):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            subscription.unsubscribe(f"c{n}")
            await heard.until(lambda: heard.lost[OWN] == n + 1)  # noqa: B023
        for n in range(20):
            await until(lambda: is_free(redis, f"c{n}"))  # noqa: B023
        assert subscription.channels == 1


async def test_a_channel_given_up_while_redis_was_away_may_be_wanted_again(own_redis: EmbeddedRedis) -> None:
    """What was dropped without a connection is not taken for held on the next one."""
    async with subscribed(own_redis.url, "a", "b") as (subscription, heard):
        own_redis.stop()
        async with asyncio.timeout(5):
            while subscription.connected:
                await asyncio.sleep(0.01)
        subscription.unsubscribe("a")
        own_redis.start()
        await heard.until(lambda: heard.lost["b"] == 1)
        assert subscription.channels == 2
        await subscription.subscribe("a")
        client = connect(own_redis.url)
        assert await client.publish("a", b"x") == 1
        await client.aclose()


async def test_joins_while_connections_are_killed_all_arrive(redis: Redis, redis_url: str) -> None:
    """Subscribing while the connection is cut again and again ends with every channel held."""
    async with subscribed(redis_url) as (subscription, _):
        joins = [asyncio.create_task(subscription.subscribe(f"c{n}")) for n in range(30)]
        for n in range(30, 60):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            joins.append(asyncio.create_task(subscription.subscribe(f"c{n}")))
        await asyncio.gather(*joins)
        names = [f"c{n}" for n in range(60)]

        async def all_held() -> bool:
            return await numsub(redis, *names) == dict.fromkeys(names, 1)

        await until(all_held)
        assert subscription.channels == 61


async def test_redis_may_restart() -> None:
    """Through a restart the subscription comes back by itself, tells each channel, and takes those wanted meanwhile."""
    with EmbeddedRedis() as server:
        async with subscribed(server.url, "a") as (subscription, heard):
            server.stop()
            await heard.until(lambda: True)
            joining = asyncio.create_task(subscription.subscribe("b"))
            given_up = asyncio.create_task(subscription.subscribe("c"))
            await asyncio.sleep(0)
            given_up.cancel()
            subscription.unsubscribe("c")
            server.start()
            await joining
            await heard.until(lambda: heard.lost["a"] == 1)
            client = connect(server.url)
            try:
                assert await client.publish("a", b"1") == 1
                assert await client.publish("b", b"2") == 1
                await until(lambda: is_free(client, "c"))
                await heard.until(lambda: heard.messages == [("a", b"1"), ("b", b"2")])
                assert heard.lost == {OWN: 1, "a": 1}
            finally:
                await client.aclose()


async def test_no_confirmation_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is away `subscribe` ends in time with `RedisUnavailable`, and a later one succeeds."""
    with EmbeddedRedis() as server:
        async with subscribed(server.url) as (subscription, _):
            server.stop()
            with monkeypatch.context() as patch:
                patch.setattr(module, "CONFIRM_SECONDS", 0.05)
                with pytest.raises(RedisUnavailable):
                    await subscription.subscribe("a")
            server.start()
            await subscription.subscribe("a")
            assert subscription.channels == 2


async def test_the_end_of_the_subscription_ends_all_that_waits(redis_url: str) -> None:
    """Closing leaves no task and no waiter behind, even with Redis away."""
    before = asyncio.all_tasks()
    with EmbeddedRedis() as server:
        async with subscribed(server.url) as (subscription, _):
            server.stop()
            waiting = asyncio.create_task(subscription.subscribe("a"))
            await asyncio.sleep(0)
        with pytest.raises(RedisUnavailable):  # and it is not cancelled, which would be another's doing
            await waiting
    assert asyncio.all_tasks() == before
