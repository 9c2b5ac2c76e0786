"""The append script: the one step that makes a log."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from emitter import errors, events, wire
from emitter.batch import Prepared
from emitter.log import LogLimits, append, prepare
from emitter.redact import Redactor
from emitter.wire import Owner

OWNER = Owner("alice")
KEYS = OWNER.execution("ex_1")
REDACT = Redactor()


def thought(text: str = "hm") -> Prepared:
    return prepare(events.Thinking(thought=text), "ex_1", redact=REDACT)


def delta(text: str = "x") -> Prepared:
    return prepare(events.MessageDelta(message_id="m", delta=text), "ex_1", redact=REDACT)


def done() -> Prepared:
    return prepare(events.ExecutionComplete(result=None, duration=1.0), "ex_1", redact=REDACT)


async def log_ids(redis: Redis) -> list[bytes]:
    return [row[0] for row in await redis.xrange(KEYS.log)]


async def record(redis: Redis) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await redis.hgetall(KEYS.record)
    return found


async def test_ids_are_time_and_a_dense_ordinal(redis: Redis) -> None:
    """An id is the server's time in ms and the event's ordinal, from 1, without holes."""
    first = await append(redis, OWNER, "ex_1", [thought(), delta()], producer="p", first_seq=1)
    second = await append(redis, OWNER, "ex_1", [delta()], producer="p", first_seq=3)
    assert (first.last.seq, first.added, second.last.seq, second.added) == (2, 2, 3, 1)
    seconds, micros = await redis.time()
    assert abs(second.last.ms - (seconds * 1000 + micros // 1000)) < 5000
    assert [id_.split(b"-")[1] for id_ in await log_ids(redis)] == [b"1", b"2", b"3"]


async def test_a_repeat_appends_nothing_and_answers_the_same(redis: Redis) -> None:
    """A batch sent again, whole or with a new tail, appends only what is new."""
    batch = [delta("a"), delta("b")]
    first = await append(redis, OWNER, "ex_1", batch, producer="p", first_seq=1)
    again = await append(redis, OWNER, "ex_1", batch, producer="p", first_seq=1)
    longer = await append(redis, OWNER, "ex_1", [*batch, delta("c")], producer="p", first_seq=1)
    assert (again.last, again.added) == (first.last, 0)
    assert (longer.last.seq, longer.added) == (3, 1)


async def test_a_repeat_of_the_terminal_batch_is_no_error(redis: Redis) -> None:
    """The reply to a terminal append may be lost; its retry succeeds although the log is closed."""
    await append(redis, OWNER, "ex_1", [thought(), done()], producer="p", first_seq=1)
    again = await append(redis, OWNER, "ex_1", [thought(), done()], producer="p", first_seq=1)
    assert (again.last.seq, again.added) == (2, 0)


async def test_producers_do_not_disturb_each_other(redis: Redis) -> None:
    """Each producer has its own sequence; concurrent appends of many stay dense."""

    async def produce(name: str) -> None:
        for seq in range(1, 21):
            await append(redis, OWNER, "ex_1", [delta(name)], producer=name, first_seq=seq)

    await asyncio.gather(*(produce(f"p{number}") for number in range(10)))
    seqs = [int(id_.split(b"-")[1]) for id_ in await log_ids(redis)]
    assert seqs == list(range(1, 201))


async def test_an_unnamed_producer_is_never_a_repeat(redis: Redis) -> None:
    """An append without a producer id leaves no trace of one in the record."""
    for _ in range(3):
        await append(redis, OWNER, "ex_1", [delta()])
    assert len(await log_ids(redis)) == 3
    assert not [name for name in await record(redis) if name.startswith(b"p:")]


@pytest.mark.parametrize(
    ("terminal", "state"),
    [
        (events.ExecutionComplete(result=1, duration=0.5), "completed"),
        (events.ExecutionError(error="boom"), "failed"),
        (events.ExecutionCancelled(reason="enough"), "cancelled"),
    ],
)
async def test_after_the_terminal_event_the_log_is_closed(redis: Redis, terminal: events.Event, state: str) -> None:
    """Nothing follows a terminal event, whoever tries; the record keeps how it ended."""
    prepared = prepare(terminal, "ex_1", redact=REDACT)
    with pytest.raises(errors.ExecutionEnded) as caught:
        await append(redis, OWNER, "ex_1", [prepared, thought()], producer="p", first_seq=1)
    assert caught.value.state == state
    with pytest.raises(errors.ExecutionEnded):
        await append(redis, OWNER, "ex_1", [thought()], producer="other", first_seq=1)
    assert len(await log_ids(redis)) == 1
    assert (await record(redis))[b"end"] == prepared.json


async def test_an_older_attempt_is_fenced(redis: Redis) -> None:
    """What a superseded attempt appends is refused; unfenced producers and the current attempt are not."""
    await append(redis, OWNER, "ex_1", [delta()], producer="a", first_seq=1)
    await redis.hset(KEYS.record, "attempt", 2)
    with pytest.raises(errors.Superseded) as caught:
        await append(redis, OWNER, "ex_1", [delta()], producer="a", first_seq=2, attempt=1)
    assert caught.value.attempt == 2
    await append(redis, OWNER, "ex_1", [delta()], producer="b", first_seq=1, attempt=2)
    await append(redis, OWNER, "ex_1", [delta()], producer="c", first_seq=1)


async def test_modes_say_which_execution_may_be_meant(redis: Redis) -> None:
    """new refuses a known execution, existing an unknown one, unowned one that a worker runs."""
    with pytest.raises(errors.UnknownExecution):
        await append(redis, OWNER, "ex_1", [delta()], mode="existing")
    await append(redis, OWNER, "ex_1", [delta()], mode="new")
    with pytest.raises(errors.ExecutionExists):
        await append(redis, OWNER, "ex_1", [delta()], mode="new")
    await redis.hset(KEYS.record, "owner", "worker-1")
    with pytest.raises(errors.ExecutionOwned) as caught:
        await append(redis, OWNER, "ex_1", [delta()], mode="unowned")
    assert caught.value.owner == "worker-1"


async def test_the_first_answer_wins(redis: Redis) -> None:
    """An input takes exactly one answer, and only if it was asked for; state and open inputs follow."""
    question = events.InputRequired(input_id="in_1", prompt="Go on?", kind="approval")
    await append(redis, OWNER, "ex_1", [prepare(question, "ex_1", redact=REDACT)])
    assert (await record(redis))[b"state"] == b"waiting_input"

    def answer(who: str, input_id: str = "in_1") -> Prepared:
        stored = msgspec.json.encode({"value": True, "by": who, "at": 1}).decode()
        received = events.InputReceived(input_id=input_id, by=who, value=True)
        return prepare(received, "ex_1", redact=REDACT, answer=stored)

    replies = await asyncio.gather(
        *(append(redis, OWNER, "ex_1", [answer(f"u{number}")]) for number in range(20)), return_exceptions=True
    )
    lost = [reply for reply in replies if isinstance(reply, errors.AlreadyAnswered)]
    assert len(lost) == 19
    winner = msgspec.json.decode((await record(redis))[b"a:in_1"])
    assert {msgspec.json.decode(error.answer)["by"] for error in lost} == {winner["by"]}
    assert (await record(redis))[b"state"] == b"running"
    with pytest.raises(errors.UnknownInput):
        await append(redis, OWNER, "ex_1", [answer("u", "in_2")])


async def test_ids_never_go_back(redis: Redis) -> None:
    """When the server's clock is behind the log's last id, time stands still instead of going back."""
    await append(redis, OWNER, "ex_1", [delta()])
    ahead = int((await record(redis))[b"ms"]) + 3_600_000
    await redis.hset(KEYS.record, "ms", ahead)
    appended = await append(redis, OWNER, "ex_1", [thought()])
    assert appended.last == (ahead, 2)
    await redis.delete(OWNER.feed)
    await redis.xadd(OWNER.feed, {"status": "{}"}, id=f"{ahead}-1")
    await redis.set(OWNER.feed_seq, 1)
    await append(redis, OWNER, "ex_1", [thought()])
    assert (await redis.xrevrange(OWNER.feed, count=1))[0][0] == b"%d-2" % ahead


async def test_small_events_stay_out_of_the_feed(redis: Redis) -> None:
    """Deltas and tool progress are in the log only; all else is in the feed too, with the feed's own ordinals."""
    progress = prepare(events.ToolProgress(call_id="c", progress=5), "ex_1", redact=REDACT)
    await append(redis, OWNER, "ex_1", [delta(), progress, thought("a"), thought("b")])
    feed = await redis.xrange(OWNER.feed)
    assert [next(iter(fields)) for _, fields in feed] == [b"thinking", b"thinking"]
    assert [id_.split(b"-")[1] for id_, _ in feed] == [b"1", b"2"]


async def test_one_message_per_log_carries_the_batch(redis: Redis) -> None:
    """Subscribers get the batch as lines of id, type and JSON, exactly as stored."""
    async with redis.pubsub() as channel:
        await channel.subscribe(KEYS.log, OWNER.feed)
        for _ in range(2):
            await channel.get_message(timeout=5)
        await append(redis, OWNER, "ex_1", [thought("é\u2028"), delta()])
        messages: dict[bytes, Any] = {}
        for _ in range(2):
            message = await channel.get_message(timeout=5)
            assert message is not None
            messages[message["channel"]] = message["data"]
    assert wire.parse_message(messages[KEYS.log.encode()]) == wire.parse_stream(await redis.xrange(KEYS.log))
    assert wire.parse_message(messages[OWNER.feed.encode()]) == wire.parse_stream(await redis.xrange(OWNER.feed))


async def test_everything_expires(redis: Redis) -> None:
    """No key of an execution lives for ever; the record outlives its log, and an ended log goes sooner."""
    limits = LogLimits(ttl_seconds=1000, finished_ttl_seconds=100, tombstone_ttl_seconds=500)
    await append(redis, OWNER, "ex_1", [thought()], limits=limits)
    for key in await redis.keys("*"):
        assert await redis.pttl(key) > 0, key
    assert 900 < await redis.ttl(KEYS.log) <= 1000 < await redis.ttl(KEYS.record)
    await append(redis, OWNER, "ex_1", [done()], limits=limits)
    assert 0 < await redis.ttl(KEYS.log) <= 100 < await redis.ttl(KEYS.record) <= 600


async def test_a_ttl_of_zero_keeps_a_running_log_and_not_a_finished_one(redis: Redis) -> None:
    """0 switches the expiry of running logs off; finished ones keep theirs."""
    limits = LogLimits(ttl_seconds=0, finished_ttl_seconds=100)
    await append(redis, OWNER, "ex_1", [thought()], limits=limits)
    assert await redis.ttl(KEYS.log) == -1
    await append(redis, OWNER, "ex_1", [done()], limits=limits)
    assert 0 < await redis.ttl(KEYS.log) <= 100


async def test_logs_and_feeds_are_trimmed(redis: Redis) -> None:
    """Length limits hold, give or take the size of a stream's node."""
    limits = LogLimits(log_maxlen=100, feed_maxlen=100)
    for _ in range(10):
        await append(redis, OWNER, "ex_1", [thought() for _ in range(50)], limits=limits)
    assert 100 <= await redis.xlen(KEYS.log) <= 210
    assert 100 <= await redis.xlen(OWNER.feed) <= 210


async def test_producers_of_one_execution_are_bounded(redis: Redis) -> None:
    """The record does not grow with every producer id that somebody makes up."""
    await append(redis, OWNER, "ex_1", [delta()])
    await redis.hset(KEYS.record, mapping={f"p:{number}": 1 for number in range(4000)})
    with pytest.raises(errors.TooManyProducers):
        await append(redis, OWNER, "ex_1", [delta()], producer="one-more", first_seq=1)


async def test_a_missing_script_is_loaded(redis: Redis) -> None:
    """A server that lost its scripts (restart, failover) costs one more round trip, not an event."""
    await redis.script_flush()
    await append(redis, OWNER, "ex_1", [delta()])
    assert len(await log_ids(redis)) == 1
