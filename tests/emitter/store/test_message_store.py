"""Messages of people in the record and the log: sent, taken, withdrawn and dropped by one script."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from emitter import errors, events
from emitter.store.append import Appended, LogLimits, append, prepare
from emitter.store.messages import prepare_message, read_waiting, take_messages
from emitter.wire.keys import Owner
from emitter.wire.prepared import Prepared
from emitter.wire.redact import Redactor

OWNER = Owner("alice")
KEYS = OWNER.execution("ex_1")
REDACT = Redactor()


def made(event: events.Event) -> Prepared:
    return prepare(event, "ex_1", redact=REDACT)


async def put(redis: Redis, *told: events.Event, **options: Any) -> Appended:
    return await append(redis, OWNER, "ex_1", [made(event) for event in told], **options)


async def begin(redis: Redis) -> None:
    await put(redis, events.ExecutionStarted(task="t", started_at=1, attempt=1))


async def send(redis: Redis, id_: str, *, mode: events.MessageMode = "queue", most: int = 50, **said: Any) -> Appended:
    event = events.UserMessage(message_id=id_, by="bob", mode=mode, **{"text": id_, **said})
    prepared = prepare_message(event, "ex_1", redact=REDACT, limits=LogLimits(max_waiting_messages=most))
    return await append(redis, OWNER, "ex_1", [prepared], mode="existing")


async def take(redis: Redis, attempt: int = 0, **options: Any) -> list[str]:
    taken = await take_messages(redis, OWNER, "ex_1", attempt, redact=REDACT, **options)
    return [message.message_id for message in taken]


async def log_of(redis: Redis) -> list[tuple[str, dict[str, Any]]]:
    rows = await redis.xrange(KEYS.log)
    found = [(row[1], next(iter(row[1].items()))) for row in rows]
    return [(type_.decode(), msgspec.json.decode(json)["data"]) for _, (type_, json) in found]


async def superseded(redis: Redis, attempt: int) -> None:
    await put(redis, events.ExecutionSuperseded(from_seq=0, attempt=attempt))


async def test_messages_are_taken_once_and_in_order(redis: Redis) -> None:
    """What was taken waits no more; the log says who took what."""
    await begin(redis)
    for id_ in ("a", "b", "c"):
        await send(redis, id_)
    assert await take(redis, most=1) == ["a"]
    assert await take(redis) == ["b", "c"]
    assert await take(redis) == []
    taken = [data for type_, data in await log_of(redis) if type_ == "user:message:taken"]
    assert taken == [{"messageIds": ["a"], "attempt": 1}, {"messageIds": ["b", "c"], "attempt": 1}]


async def test_two_takers_share_the_messages(redis: Redis) -> None:
    """Of several at the same time, each message goes to one."""
    await begin(redis)
    for number in range(30):
        await send(redis, f"m{number}")
    found = await asyncio.gather(*(take(redis, most=7) for _ in range(6)))
    assert sorted(id_ for ids in found for id_ in ids) == sorted(f"m{number}" for number in range(30))


async def test_a_repeated_take_gets_the_same(redis: Redis) -> None:
    """Under the same name, after a lost reply; also when more messages came meanwhile."""
    await begin(redis)
    await send(redis, "a")
    assert await take(redis, take="t1") == ["a"]
    await send(redis, "b")
    assert await take(redis, take="t1") == ["a"]
    assert await take(redis, take="t2") == ["b"]
    types = [type_ for type_, _ in await log_of(redis)]
    assert types.count("user:message:taken") == 2


async def test_a_take_that_is_repeated_for_another_kind_gets_the_same(redis: Redis) -> None:
    """An agent that has left an interruptible block meanwhile asks for others: what was taken for it is not lost."""
    await begin(redis)
    await send(redis, "loud", mode="interrupt")
    assert await take(redis, take="t1", kinds="i") == ["loud"]
    assert await take(redis, take="t1", kinds="q") == ["loud"]


async def test_a_later_attempt_takes_all_again(redis: Redis) -> None:
    """From the first, but not what was withdrawn; the attempt before takes nothing more."""
    await begin(redis)
    for id_ in ("a", "b", "c"):
        await send(redis, id_)
    await put(redis, events.UserMessageDropped(message_id="c", reason="withdrawn"))
    assert await take(redis, 1) == ["a", "b"]
    await superseded(redis, 2)
    await send(redis, "d")
    with pytest.raises(errors.Superseded):
        await take(redis, 1)
    assert await take(redis, 2) == ["a", "b", "d"]


async def test_an_attempt_without_a_takeover_in_the_log_too(redis: Redis) -> None:
    """As integrations number them."""
    await begin(redis)
    await send(redis, "a")
    assert await take(redis, 1) == ["a"]
    assert await take(redis, 3) == ["a"]
    assert await take(redis, 3) == []
    with pytest.raises(errors.Superseded):
        await put(redis, events.UserMessageTaken(message_ids=["a"], attempt=1))


async def test_a_repeated_id_is_refused_in_any_state(redis: Redis) -> None:
    """The edge then gives the first answer again."""
    await begin(redis)
    await send(redis, "a")
    with pytest.raises(errors.AlreadySent):
        await send(redis, "a", text="other")
    await take(redis)
    with pytest.raises(errors.AlreadySent):
        await send(redis, "a")


async def test_so_many_wait_and_no_more(redis: Redis) -> None:
    """What an earlier attempt took does not count as waiting for its first take."""
    await begin(redis)
    await send(redis, "a", most=2)
    await send(redis, "b", most=2)
    with pytest.raises(errors.TooManyMessages, match="RUNCAST_MAX_WAITING_MESSAGES") as caught:
        await send(redis, "c", most=2)
    assert caught.value.limit == 2
    await take(redis, 1)
    await superseded(redis, 2)
    await send(redis, "c", most=2)
    await send(redis, "d", most=2)
    with pytest.raises(errors.TooManyMessages):
        await send(redis, "e", most=2)
    assert await take(redis, 2) == ["a", "b", "c", "d"]


async def test_what_is_kept_is_bounded(redis: Redis) -> None:
    """In number and in bytes; the sender is told."""
    await begin(redis)
    for number in range(1000):
        await send(redis, f"m{number}", most=0)
    with pytest.raises(errors.TooManyMessages, match="no more are kept") as caught:
        await send(redis, "more", most=0)
    assert caught.value.limit == 0
    taken = [id_ for _ in range(6) for id_ in await take(redis)]
    assert taken == [f"m{number}" for number in range(1000)]


async def test_their_bytes_are_bounded(redis: Redis) -> None:
    """4 MiB in all."""
    await begin(redis)
    for number in range(69):
        await send(redis, f"m{number}", most=0, text="x" * 60_000)
    with pytest.raises(errors.TooManyMessages, match="4 MiB"):
        await send(redis, "m69", most=0, text="x" * 60_000)
    assert len(await take(redis)) == 69


async def test_a_taken_message_is_not_withdrawn(redis: Redis) -> None:
    """Nor an unknown one, nor one twice."""
    await begin(redis)
    for id_ in ("a", "b"):
        await send(redis, id_)
    await take(redis, most=1)
    with pytest.raises(errors.MessageTaken):
        await put(redis, events.UserMessageDropped(message_id="a", reason="withdrawn"))
    await put(redis, events.UserMessageDropped(message_id="b", reason="withdrawn"))
    for id_ in ("b", "z"):
        with pytest.raises(errors.UnknownMessage):
            await put(redis, events.UserMessageDropped(message_id=id_, reason="withdrawn"))
    assert await take(redis) == []


async def test_taken_by_a_lost_attempt_it_is_not_withdrawn(redis: Redis) -> None:
    """The next one takes it again."""
    await begin(redis)
    await send(redis, "a")
    await take(redis, 1)
    await superseded(redis, 2)
    with pytest.raises(errors.MessageTaken):
        await put(redis, events.UserMessageDropped(message_id="a", reason="withdrawn"))


@pytest.mark.parametrize(
    "end",
    [
        events.ExecutionComplete(result=None, duration=1.0),
        events.ExecutionError(error="no"),
        events.ExecutionCancelled(),
    ],
)
async def test_what_waits_at_the_end_is_dropped_before_it(redis: Redis, end: events.Event) -> None:
    """In the same step: nothing stands between, and nothing is dropped twice by a repeat."""
    await begin(redis)
    for id_ in ("a", "b", "c"):
        await send(redis, id_)
    await take(redis, most=1)
    batch = [made(events.Thinking(thought="hm")), made(end)]
    first = await append(redis, OWNER, "ex_1", batch, producer="p", first_seq=1)
    again = await append(redis, OWNER, "ex_1", batch, producer="p", first_seq=1)
    log = await log_of(redis)
    assert [type_ for type_, _ in log[-4:]] == ["thinking", "user:message:dropped", "user:message:dropped", end.type]
    assert [data for _, data in log[-3:-1]] == [{"messageId": id_, "reason": "ended"} for id_ in ("b", "c")]
    assert (first.added, again.added, again.last) == (2, 0, first.last)
    feed = [next(iter(row[1])).decode() for row in await redis.xrange(OWNER.feed)]
    assert feed[-3:] == ["user:message:dropped", "user:message:dropped", end.type]
    with pytest.raises(errors.ExecutionEnded):
        await take(redis)
    with pytest.raises(errors.ExecutionEnded):
        await send(redis, "late")


async def test_what_only_a_lost_attempt_took_is_dropped_at_the_end(redis: Redis) -> None:
    """Its work is void, and nobody takes the message any more."""
    await begin(redis)
    await send(redis, "a")
    await take(redis, 1)
    await superseded(redis, 2)
    await put(redis, events.ExecutionComplete(result=None, duration=1.0))
    assert ("user:message:dropped", {"messageId": "a", "reason": "ended"}) in await log_of(redis)


async def test_an_end_without_messages_is_as_before(redis: Redis) -> None:
    """No field of messages, and no more calls than the end needs."""
    await begin(redis)
    await put(redis, events.ExecutionComplete(result=None, duration=1.0))
    fields = {name.decode() for name in await redis.hkeys(KEYS.record)}
    assert not {"messages", "inbox", "take", "open", "void"} & fields


async def test_the_agent_gets_what_redaction_removes(redis: Redis) -> None:
    """The log and the record's own copy have it redacted; at the end nothing else is left."""
    await begin(redis)
    await send(redis, "a", text="use token ghp_" + "a" * 36, data={"password": "hunter2", "n": 1})
    (message,) = await take_messages(redis, OWNER, "ex_1", 0, redact=REDACT)
    assert message.data == {"password": "hunter2", "n": 1}
    assert "ghp_" in (message.text or "")
    assert message.by == "bob"
    log = await log_of(redis)
    assert log[1][1]["data"] == {"password": "[redacted]", "n": 1}
    await put(redis, events.ExecutionComplete(result=None, duration=1.0))
    assert b"hunter2" not in b"".join((await redis.hgetall(KEYS.record)).values())


async def test_interrupts_are_read_alone(redis: Redis) -> None:
    """Whatever is in the data of others."""
    await begin(redis)
    await send(redis, "a", data={"mode": "interrupt"})
    await send(redis, "b", mode="interrupt")
    assert [each.message_id for each in (await read_waiting(redis, OWNER, "ex_1", 0, kinds="i")).messages] == ["b"]
    assert await take(redis, kinds="q") == ["a"]
    assert await take(redis) == ["b"]


async def test_reading_says_that_messages_are_accepted(redis: Redis) -> None:
    """And makes no record where there is none."""
    with pytest.raises(errors.UnknownExecution):
        await take(redis)
    assert not await redis.exists(KEYS.record)
    await begin(redis)
    await take(redis)
    assert await redis.hget(KEYS.record, "accepts") == b"1"


async def test_sending_wakes_who_waits(redis: Redis) -> None:
    """On the control channel."""
    await begin(redis)
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(KEYS.control)
        await pubsub.get_message(timeout=1)
        await send(redis, "a")
        async with asyncio.timeout(5):
            while (message := await pubsub.get_message(timeout=1)) is None or message["type"] != "message":
                pass
        assert message["data"] == b"message"


async def test_a_take_of_another_attempt_has_another_name(redis: Redis) -> None:
    """The name of a take belongs to its attempt."""
    await begin(redis)
    await send(redis, "a")
    assert await take(redis, 1, take="t") == ["a"]
    await superseded(redis, 2)
    assert await take(redis, 2, take="t") == ["a"]


@pytest.mark.parametrize(
    "event",
    [
        events.UserMessage(message_id="a b", by="bob", mode="queue", text="x"),
        events.UserMessageTaken(message_ids=[], attempt=1),
        events.UserMessageTaken(message_ids=["a"], attempt=0),
    ],
)
def test_what_cannot_be_kept_is_invalid(event: events.Event) -> None:
    with pytest.raises(errors.InvalidEvent):
        made(event)
