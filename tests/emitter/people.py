"""The people whom agents ask: they see which questions are open, and answer as an edge lets them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from redis.asyncio import Redis

from emitter.events import InputReceived
from emitter.store.append import append, prepare
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor


async def asked(redis: Redis, count: int = 1, *, execution_id: str = "ex_1", user: str = "alice") -> list[str]:
    """Wait until so many questions are open; their ids in the order of the asking."""
    client: Any = redis
    async with asyncio.timeout(10):
        while True:
            state, open_ = await client.hmget(Owner(user).execution(execution_id).record, "state", "open")
            ids = (open_ or b"").decode().split()
            if len(ids) == count and (state == b"waiting_input") == (count > 0):
                return ids
            await asyncio.sleep(0.005)


async def answer(redis: Redis, input_id: str, value: Any, by: str = "bob", *, execution_id: str = "ex_1") -> None:
    """Raises what the append script refuses."""
    received = InputReceived(input_id=input_id, by=by, value=value)
    text = msgspec.json.encode({"value": value, "by": by, "at": 1}).decode()
    prepared = prepare(received, execution_id, redact=Redactor(), answer=text)
    await append(redis, Owner("alice"), execution_id, [prepared])
