"""A connection of redis-py that is read without its stream: what had come before, what ends it, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from broker.log.push_reader import PushReader


@pytest.fixture
async def connection(redis: Redis) -> Any:
    taken = await redis.connection_pool.get_connection()
    yield taken
    await taken.disconnect(nowait=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_had_arrived_before_is_read_first(connection: Any) -> None:
    """And then what comes, in its order; `on_read` follows the replies of each read."""
    seen: list[Any] = []
    for number in range(3):
        await connection.send_command("ECHO", f"{number}", check_health=False)
    await until(lambda: len(connection._reader._buffer) >= 3 * len(b"$1\r\n0\r\n"))
    reading = asyncio.create_task(PushReader(connection, seen.append, lambda: seen.append("read")).read())
    await until(lambda: len(seen) == 4)
    await connection.send_command("ECHO", "later", check_health=False)
    await until(lambda: len(seen) == 6)
    assert seen == [b"0", b"1", b"2", "read", b"later", "read"]
    reading.cancel()


async def test_a_connection_that_had_ended_is_not_read_for_ever(redis: Redis, connection: Any) -> None:
    """The end was reported to the protocol before, and nobody reports it again."""
    await redis.execute_command("CLIENT", "KILL", "ID", await _id_of(connection))
    await until(lambda: connection._reader._eof)
    async with asyncio.timeout(5):
        with pytest.raises(RedisConnectionError):
            await PushReader(connection, lambda reply: None, lambda: None).read()


async def test_a_connection_that_ends_ends_the_reading(redis: Redis, connection: Any) -> None:
    """As soon as it does."""
    number = await _id_of(connection)
    reading = asyncio.create_task(PushReader(connection, lambda reply: None, lambda: None).read())
    await asyncio.sleep(0.05)
    await redis.execute_command("CLIENT", "KILL", "ID", number)
    async with asyncio.timeout(5):
        with pytest.raises(RedisConnectionError):
            await reading


async def test_an_error_in_a_reply_is_raised_if_its_reader_raises_it(connection: Any) -> None:
    """And what came with it is still delivered: `on_read` is called."""
    reads = []

    def fail(reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply

    reading = asyncio.create_task(PushReader(connection, fail, lambda: reads.append(1)).read())
    await asyncio.sleep(0)
    await connection.send_command("NO-SUCH-COMMAND", check_health=False)
    async with asyncio.timeout(5):
        with pytest.raises(ResponseError):
            await reading
    assert reads


async def _id_of(connection: Any) -> int:
    await connection.send_command("CLIENT", "ID", check_health=False)
    return int(await connection.read_response())
