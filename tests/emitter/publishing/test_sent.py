"""What a failover of Redis has lost is sent again, as long as the emitter holds it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from emitter import AgentEmitter
from emitter.errors import AlreadyAnswered, UnknownInput
from emitter.publishing import sent
from emitter.publishing.publisher import Publisher
from emitter.publishing.sent import Sent
from emitter.wire.keys import Owner
from emitter.wire.prepared import Batch, Prepared

OWNER = Owner("alice")
KEYS = OWNER.execution("ex_1")


@contextlib.asynccontextmanager
async def forgotten(redis: Redis) -> AsyncIterator[None]:
    """What is written meanwhile is lost in the end, as by a replica that had not yet heard of it."""
    before: Any = await redis.dump(KEYS.record), await redis.dump(KEYS.log)
    yield
    async with redis.pipeline() as pipe:
        for key, value in zip((KEYS.record, KEYS.log), before, strict=True):
            if value is None:
                pipe.delete(key)
            else:
                pipe.restore(key, 0, value, replace=True)
        await pipe.execute()


async def told(redis: Redis) -> list[str]:
    """The log in short; its ordinals are dense or this fails."""
    rows = await redis.xrange(KEYS.log)
    assert [int(id_.split(b"-")[1]) for id_, _ in rows] == list(range(1, len(rows) + 1))
    events = [json.loads(next(iter(fields.values()))) for _, fields in rows]
    return [event["data"].get("status") or event["data"].get("delta") or event["type"] for event in events]


async def say(emitter: AgentEmitter, *statuses: str) -> None:
    for status in statuses:
        await emitter.status(status, "")
        await emitter.flush()


async def test_what_is_lost_comes_before_what_follows(redis: Redis, redis_url: str) -> None:
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await say(emitter, "1", "2")
        async with forgotten(redis):
            await say(emitter, "3", "4")
        assert await told(redis) == ["1", "2"]
        await say(emitter, "5")
        assert await told(redis) == ["1", "2", "3", "4", "5"]
        await say(emitter, "6")
    assert await told(redis) == ["1", "2", "3", "4", "5", "6"]


async def test_a_log_that_is_lost_as_a_whole_begins_again(redis: Redis, redis_url: str) -> None:
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        async with forgotten(redis):
            await emitter.execution_started("t")
            await say(emitter, "1")
        assert await told(redis) == []
        await emitter.execution_complete(1)
    assert await told(redis) == ["execution:started", "1", "execution:complete"]
    assert await redis.hget(KEYS.record, "state") == b"completed"


async def test_half_of_a_batch_is_lost(redis: Redis, redis_url: str) -> None:
    """The log takes of a batch what it lacks."""
    async with Publisher(redis_url=redis_url) as shared:
        emitter = AgentEmitter("alice", "ex_1", publisher=shared)
        for status in "123":
            await emitter.status(status, "")
        await emitter.flush()
        rows = await redis.xrange(KEYS.log)
        await redis.xdel(KEYS.log, *[id_ for id_, _ in rows[1:]])
        (field,) = [name for name in await redis.hkeys(KEYS.record) if name.startswith(b"p:")]
        await redis.hset(KEYS.record, mapping={field: 1, "seq": 1})
        await say(emitter, "4")
        await emitter.close()
    assert await told(redis) == ["1", "2", "3", "4"]


async def test_chunks_of_text_are_sent_again(redis: Redis, redis_url: str) -> None:
    """They take the short script, which leaves what is not usual to the long one; afterwards they take it again."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:

        async def text(*chunks: str) -> None:
            for chunk in chunks:
                await emitter.text(chunk)
                await emitter.flush()

        await text("a", "b")
        async with forgotten(redis):
            await text("c", "d", "e")
        await text("f", "g")
        assert emitter._outbox._may_be_plain
        async with forgotten(redis):
            await text("h")
        await text("i")
    said = [word for word in await told(redis) if len(word) == 1]
    assert "".join(said) == "abcdefghi"


async def test_a_second_failover_while_it_is_sent_again(redis: Redis, redis_url: str) -> None:
    """Each batch is asked for anew by where the log then is."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await say(emitter, "1")
        async with forgotten(redis):
            await say(emitter, "2", "3")
            async with forgotten(redis):
                await say(emitter, "4", "5")
            await say(emitter, "6")
            assert await told(redis) == ["1", "2", "3", "4", "5", "6"]
        await say(emitter, "7")
    assert await told(redis) == ["1", "2", "3", "4", "5", "6", "7"]


async def test_what_others_wrote_meanwhile_stays(redis: Redis, redis_url: str) -> None:
    """Each emitter sends its own again, in its own order."""
    async with Publisher(redis_url=redis_url) as shared:
        one, two = (AgentEmitter("alice", "ex_1", publisher=shared) for _ in range(2))
        await say(one, "a1")
        await say(two, "b1")
        async with forgotten(redis):
            await say(one, "a2", "a3")
            await say(two, "b2")
        await say(two, "b3")
        await say(one, "a4")
        for emitter in (one, two):
            await emitter.close()
    assert await told(redis) == ["a1", "b1", "b2", "b3", "a2", "a3", "a4"]


async def test_a_refused_event_is_no_gap(redis: Redis, redis_url: str) -> None:
    """The log does not count an answer that it refused."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.input_required("in_1", "Go?", "approval")
        await emitter.input_received("in_1", "alice", value=True)
        with pytest.raises(AlreadyAnswered):
            await emitter.input_received("in_1", "bob", value=False)
        await say(emitter, "1", "2")
    assert await told(redis) == ["input:required", "input:received", "1", "2"]


async def test_a_refused_event_keeps_what_was_said_before(redis: Redis, redis_url: str) -> None:
    """A failover after a refusal, and one after the next event."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await say(emitter, "1")
        async with forgotten(redis):
            await say(emitter, "2")
            with pytest.raises(UnknownInput):
                await emitter.input_received("never-asked", "alice")
        await say(emitter, "3")
        assert await told(redis) == ["1", "2", "3"]
        async with forgotten(redis):
            await say(emitter, "4")
            with pytest.raises(UnknownInput):
                await emitter.input_received("never-asked", "alice")
            await say(emitter, "5", "6")
        await say(emitter, "7")
    assert await told(redis) == ["1", "2", "3", "4", "5", "6", "7"]


async def test_a_question_to_the_log_is_never_held(redis: Redis, redis_url: str) -> None:
    """It stores nothing, so a log that is gone as a whole would lack its number again and again."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        async with forgotten(redis):
            await emitter.execution_started("t")
            await emitter.flush()
            emitter._outbox.confirm()
            await emitter.flush()
            await say(emitter, "1")
        emitter._outbox._sent._held.popleft()  # as after a minute
        await say(emitter, "2")
    assert await told(redis) == ["1", "2"]


async def test_numbers_that_nobody_uses_are_no_loss(redis: Redis, redis_url: str) -> None:
    """As of events that a hook drops, where others give the numbers; what was said before is still held."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await say(emitter, "1")
        emitter._outbox.queue.settled += 3
        with structlog.testing.capture_logs() as logs:
            await say(emitter, "2")
        assert not logs
        async with forgotten(redis):
            await say(emitter, "3")
        await say(emitter, "4")
    assert await told(redis) == ["1", "2", "3", "4"]


async def test_an_answer_that_is_lost_is_given_again(redis: Redis, redis_url: str) -> None:
    """A question and the agent's own answer to it are in the record again, not only in the log."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await say(emitter, "1")
        async with forgotten(redis):
            await emitter.input_required("in_1", "Go?", "approval")
            await emitter.input_received("in_1", "alice", value=True)
        await say(emitter, "2")
    assert await told(redis) == ["1", "input:required", "input:received", "2"]
    assert json.loads(await redis.hget(KEYS.record, "a:in_1"))["value"] is True


async def test_what_is_held_no_longer_is_a_gap(redis: Redis, redis_url: str, monkeypatch: Any) -> None:
    """The log goes on with the first event that is still held."""
    monkeypatch.setattr(sent, "HELD_BYTES", 3000)
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await say(emitter, "1")
        async with forgotten(redis):
            for number in (2, 3, 4):
                await emitter.status(str(number), "x" * 1000)
                await emitter.flush()
        await say(emitter, "5")
    assert await told(redis) == ["1", "3", "4", "5"]


def batch(first_seq: int, size: int = 100) -> Batch:
    return Batch(first_seq, [Prepared("status", b"{}")], size)


async def test_it_is_held_for_a_while(monkeypatch: Any) -> None:
    """Nothing is held that no failover can lose any more, also of an emitter that says nothing further."""
    monkeypatch.setattr(sent, "HELD_SECONDS", 0.05)
    held, now = Sent(), asyncio.get_running_loop().time()
    held.add(batch(1), now)
    held.add(batch(2), now + 0.05)
    assert held
    async with asyncio.timeout(10):
        while held:
            await asyncio.sleep(0.01)
    assert asyncio.get_running_loop().time() >= now + 0.1
    assert held.take_after(0) == []


async def test_it_is_held_while_the_log_is_asked(monkeypatch: Any) -> None:
    """However long Redis is away: the answer tells whether it has been lost."""
    monkeypatch.setattr(sent, "HELD_SECONDS", 0.02)
    held, now = Sent(), asyncio.get_running_loop().time()
    held.add(batch(1), now)
    held.is_asking = True
    await asyncio.sleep(0.1)
    assert held
    held.is_asking = False
    async with asyncio.timeout(10):
        while held:
            await asyncio.sleep(0.01)


async def test_no_more_is_held_than_fits() -> None:
    held = Sent()
    for number in range(1, 20):
        held.add(batch(number, sent.HELD_BYTES // 4), 0.0)
    assert [one.first_seq for one in held.take_after(0)] == [16, 17, 18, 19]
    held.add(batch(20, sent.HELD_BYTES + 1), 0.0)
    assert not held
    held.clear()
