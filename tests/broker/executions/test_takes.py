"""Takes of messages for callers over HTTP, over a real Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.executions import takes as module
from broker.executions.message_types import TakeRequest
from broker.executions.takes import AT_ONCE, Takes
from emitter.errors import Superseded
from emitter.store.append import LogLimits
from emitter.wire.redact import Redactor
from tests.edges import LONGEST_SECONDS, Author, eventually
from tests.emitter.store.test_message_store import KEYS, OWNER, begin, send


async def test_a_worker_takes_nothing_of_what_another_has_claimed(redis: Redis) -> None:
    """A failover may lose a claim, and the next worker gets its number: so it is asked whose claim it is."""
    await begin(redis)
    await send(redis, "m1")
    await redis.hset(KEYS.record, mapping={"owner": "w2", "attempt": "1"})
    takes = Takes(redis, LogLimits(), Redactor())
    with pytest.raises(Superseded):
        await takes.take(OWNER, "ex_1", TakeRequest(), 1, lambda: False, "w1")
    taken = await takes.take(OWNER, "ex_1", TakeRequest(), 1, lambda: False, "w2")
    assert [each.message_id for each in taken.messages] == ["m1"]
    await takes.aclose()


async def test_few_ask_redis_at_once(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many one message wakes: each asks on a connection of its own, of which others need some."""
    await author.begin()
    asking, answer = list[int](), asyncio.Event()

    async def take_messages(*_: Any, **__: Any) -> list[Any]:
        asking.append(1)
        await answer.wait()
        return []

    monkeypatch.setattr(module, "take_messages", take_messages)
    takes, wanted = Takes(author.redis, LogLimits(), Redactor()), 4 * AT_ONCE
    async with asyncio.timeout(LONGEST_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(wanted):
            group.create_task(takes.take(author.owner, author.execution_id, TakeRequest(), 0, lambda: False))
        await eventually("some ask", lambda: len(asking) >= AT_ONCE)
        for _ in range(wanted):
            await author.redis.ping()  # by now, so would the others
        assert len(asking) == AT_ONCE
        answer.set()
    assert len(asking) == wanted
    await takes.aclose()
