"""Messages to an agent while Redis fails over, and while replies of Redis are lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter
from emitter.errors import AlreadySent, TooManyMessages
from emitter.events import UserMessage
from emitter.store.append import append
from emitter.store.connection import GONE, connect
from emitter.store.messages import prepare_message
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.clusters import SLOTS, cluster
from tests.faults.outages import normal_connections_killed

pytestmark = pytest.mark.timeout(120)  # a busy machine takes its time

REDACT = Redactor()


def user_at_the_first() -> str:
    """One whose keys lie at the primary that has a replica."""
    users = (f"user{number}" for number in range(100))
    return next(user for user in users if key_slot(Owner(user).execution("ex_1").log.encode()) < SLOTS // 3)


async def send(redis: Redis, owner: Owner, number: int) -> None:
    """As an edge does for a client that repeats what was not confirmed."""
    event = UserMessage(message_id=f"m{number}", by="bob", mode="queue", text=str(number))
    prepared = prepare_message(event, "ex_1", redact=REDACT)
    async with asyncio.timeout(30):
        while True:
            try:
                await append(redis, owner, "ex_1", [prepared], mode="existing")
            except AlreadySent:
                return
            except (TooManyMessages, RedisError, *GONE):
                await asyncio.sleep(0.1)
            else:
                return


async def listen(emitter: AgentEmitter, count: int) -> list[str]:
    heard: list[str] = []
    async for message in emitter.messages():
        heard.append(message.message_id)
        if len(heard) == count:
            break
    return heard


async def test_a_failover_of_a_cluster() -> None:
    """Each message that was confirmed is heard once, in order, before and after it."""
    with cluster() as made:
        user = user_at_the_first()
        client: Any = connect(made.url)
        async with client, AgentEmitter(user, "ex_1", redis_url=made.url, accepts_messages=True) as emitter:
            await emitter.execution_started("t")
            await emitter.flush()
            listening = asyncio.create_task(listen(emitter, 30))
            for number in range(30):
                if number == 15:
                    await made.replica.has_all_of(made.failing)  # what was confirmed
                    made.failing.kill()
                await send(client, Owner(user), number)
            async with asyncio.timeout(60):
                assert await listening == [f"m{number}" for number in range(30)]
            await emitter.execution_complete(None)


async def test_lost_replies(own_redis: EmbeddedRedis) -> None:
    """A take whose reply is lost is one take: nothing is heard twice, and nothing is left out."""
    client: Any = connect(own_redis.url)
    async with client, AgentEmitter("alice", "ex_1", redis_url=own_redis.url, accepts_messages=True) as emitter:
        await emitter.execution_started("t")
        await emitter.flush()
        listening = asyncio.create_task(listen(emitter, 150))
        async with connect(own_redis.url) as killer, normal_connections_killed(killer, every_seconds=0.01):
            for number in range(150):
                await send(client, Owner("alice"), number)
        async with asyncio.timeout(30):
            assert await listening == [f"m{number}" for number in range(150)]
        await emitter.execution_complete(None)
        rows: Any = await client.xrange(Owner("alice").execution("ex_1").log)
        types = [next(iter(fields)) for _, fields in rows]
        assert types.count(b"user:message") == 150
        assert b"user:message:dropped" not in types
