"""Commands in batches over one connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from broker.cli.embedded import EmbeddedRedis
from broker.log.batcher import CommandBatcher
from emitter.store.connection import GONE, connect
from emitter.store.link import Link
from tests.clusters import cluster


@pytest.fixture
async def commands(redis: Redis) -> AsyncIterator[CommandBatcher]:
    commands = CommandBatcher(redis)
    yield commands
    await commands.close()


async def test_each_gets_its_own_answer(redis: Redis, commands: CommandBatcher) -> None:
    """Whatever is asked at once, each answer goes to who asked; one that Redis refuses is only that one's."""
    await redis.mset({f"k{number}": number for number in range(500)})
    answers = await asyncio.gather(
        *(commands.execute("GET", f"k{number}") for number in range(500)),
        commands.execute("NONSENSE"),
        return_exceptions=True,
    )
    assert answers[:500] == [b"%d" % number for number in range(500)]
    assert isinstance(answers[500], ResponseError)


async def test_who_leaves_takes_no_answer_of_others(redis: Redis, commands: CommandBatcher) -> None:
    """A caller that is cancelled before or while its round travels shifts no reply."""
    await redis.mset({"a": 1, "b": 2})
    for pause in (0, 0.0005, 0.001):
        leaving = asyncio.create_task(commands.execute("GET", "a"))
        staying = asyncio.create_task(commands.execute("GET", "b"))
        await asyncio.sleep(pause)
        leaving.cancel()
        assert await staying == b"2"
        await asyncio.gather(leaving, return_exceptions=True)


async def test_a_connection_that_broke_while_idle_is_made_again(redis: Redis, commands: CommandBatcher) -> None:
    """Nobody is told of a connection that was cut between two batches."""
    await redis.set("a", 1)
    assert await commands.execute("GET", "a") == b"1"
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await commands.execute("GET", "a") == b"1"


async def test_a_redis_that_is_gone_is_told_and_found_again(own_redis: EmbeddedRedis) -> None:
    """All who wait get the error; the next question after it came back is answered."""
    client = connect(own_redis.url, timeout=1)
    commands = CommandBatcher(client)
    assert await commands.execute("PING") == b"PONG"
    own_redis.stop()
    answers = await asyncio.gather(*(commands.execute("PING") for _ in range(10)), return_exceptions=True)
    assert all(isinstance(answer, GONE) for answer in answers)
    own_redis.start()
    assert await commands.execute("PING") == b"PONG"
    await commands.close()
    await client.aclose()


async def test_closing_ends_who_waits(redis: Redis) -> None:
    """`close` cancels open questions and may come twice, or before the first question."""
    commands = CommandBatcher(redis)
    await commands.close()
    commands = CommandBatcher(redis)
    asked = asyncio.create_task(commands.execute("PING"))
    await asyncio.sleep(0)
    await commands.close()
    await commands.close()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_large_replies_are_few_at_a_time(
    redis: Redis, commands: CommandBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What weighs more takes more of a round, so that few large replies are under way; each still has its answer."""
    await redis.mset({f"k{number}": number for number in range(100)})
    sizes: list[int] = []
    exchange = Link.exchange

    async def counted(link: Link, commands: bytes, count: int) -> list[object]:
        sizes.append(count)
        return await exchange(link, commands, count)

    monkeypatch.setattr(Link, "exchange", counted)
    heavy = [commands.execute("GET", f"k{number}", weight=16) for number in range(100)]
    assert await asyncio.gather(*heavy) == [b"%d" % number for number in range(100)]
    assert max(sizes) == 4


async def test_large_replies_of_a_cluster_are_few_at_a_time() -> None:
    """Of each node; what is small goes at once, and each has its answer."""
    with cluster() as made:
        client: Any = connect(made.url)
        commands = CommandBatcher(client)
        names = [f"k{number}" for number in range(60)]
        await asyncio.gather(*(commands.execute("SET", name, name) for name in names))
        under_way: Counter[str] = Counter()
        most: Counter[str] = Counter()
        execute = client.execute_command

        async def counted(*arguments: str) -> object:
            node = client.get_node_from_key(arguments[1]).name
            under_way[node] += 1
            most[node] = max(most[node], under_way[node])
            await asyncio.sleep(0.01)
            under_way[node] -= 1
            return await execute(*arguments)

        client.execute_command = counted
        answers = await asyncio.gather(*(commands.execute("GET", name, weight=16) for name in names))
        assert answers == [name.encode() for name in names]
        assert set(most.values()) == {4}
        await commands.close()
        await client.aclose()
