"""The short script for plain events does what the long one does, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter import events
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import channels_of
from emitter.store.link import Link
from emitter.store.plain import BATCHES_MAX, PlainProducer, plain_call, plain_script
from emitter.wire.keys import Owner
from emitter.wire.prepared import Batch, Prepared
from emitter.wire.redact import Redactor

OWNER = Owner("alice")
REDACT = Redactor()
LIMITS = LogLimits(log_maxlen=100, log_max_bytes=16_000)


def delta(text: str = "x", execution_id: str = "ex_1") -> Prepared:
    return prepare(events.MessageDelta(message_id="m", delta=text), execution_id, redact=REDACT, ts=1)


def end() -> Prepared:
    return prepare(events.ExecutionComplete(result=None, duration=1.0), "ex_1", redact=REDACT)


async def begin(redis: Redis, execution_id: str = "ex_1", owner: Owner = OWNER, **options: Any) -> None:
    """A log of which the producer `p` has written the first event."""
    started = events.ExecutionStarted(task="t", started_at=1, attempt=1)
    event = prepare(started, execution_id, redact=REDACT, ts=1)
    await append(redis, owner, execution_id, [event], **{"producer": "p", "first_seq": 1, "limits": LIMITS, **options})


async def call(
    redis: Redis,
    *batches: tuple[str, int, Sequence[Prepared]],
    attempt: int = 0,
    is_exact: bool = True,
    owner: Owner = OWNER,
    limits: LogLimits = LIMITS,
) -> list[int]:
    """The replies to batches of the producer `p`: execution, number of the first event, events."""
    script = plain_script(limits, channels_of(redis))
    await redis.script_load(script.text)
    link = Link(redis)
    made = [
        PlainProducer(owner, id_, "p", attempt, is_exact=is_exact).part(Batch(first, list(new), 0))
        for id_, first, new in batches
    ]
    (reply,) = await link.exchange(plain_call(script, made), 1)
    await link.aclose()
    assert isinstance(reply, list), reply
    return reply


async def stored(redis: Redis, execution_id: str = "ex_1", owner: Owner = OWNER) -> tuple[Any, Any]:
    """Log and record, without what the clock says and without the execution's id."""
    keys = owner.execution(execution_id)
    record = {
        name: value for name, value in (await redis.hgetall(keys.record)).items() if name not in (b"ms", b"fresh")
    }
    rows = [
        (id_.split(b"-")[1], {name: json.replace(execution_id.encode(), b"ex") for name, json in fields.items()})
        for id_, fields in await redis.xrange(keys.log)
    ]
    return rows, record


@pytest.mark.parametrize("sizes", [[1], [3], [1, 1, 5], [40] * 4])
async def test_log_and_record_are_those_of_the_long_script(redis: Redis, sizes: list[int]) -> None:
    """Event by event and field by field; the owner's feed has nothing of them."""
    await begin(redis, "ex_1")
    await begin(redis, "ex_2")
    first = 2
    for size in sizes:
        assert await call(redis, ("ex_1", first, [delta("ab")] * size), limits=LogLimits()) == [size]
        new = [delta("ab", "ex_2")] * size
        await append(redis, OWNER, "ex_2", new, producer="p", first_seq=first)
        first += size
    assert await stored(redis, "ex_1") == await stored(redis, "ex_2")
    assert await redis.xlen(OWNER.feed) == 2


async def test_what_is_published_is_what_is_stored(redis: Redis) -> None:
    """One message a batch, on the log's channel only."""
    await begin(redis)
    async with redis.pubsub() as channel:
        await channel.subscribe(OWNER.execution("ex_1").log, OWNER.feed)
        for _ in range(2):
            await channel.get_message(timeout=5)
        assert await call(redis, ("ex_1", 2, [delta("a"), delta("b")]), ("ex_1", 4, [delta("c")])) == [2, 1]
        messages = [await channel.get_message(timeout=5) for _ in range(2)]
    rows = (await redis.xrange(OWNER.execution("ex_1").log))[1:]
    lines = [b"%b %b %b\n" % (id_, type_, json) for id_, fields in rows for type_, json in fields.items()]
    assert [message["data"] for message in messages if message] == [b"".join(lines[:2]), lines[2]]


async def test_batches_of_one_call_are_judged_one_by_one(redis: Redis) -> None:
    """Also those of one producer, one after the other; behind one that is refused, no other of its log is appended: it
    would overtake."""
    await begin(redis, "ex_1")
    await begin(redis, "ex_2")
    batches = [("ex_1", 2, [delta()]), ("gone", 2, [delta()]), ("ex_1", 3, [delta()]), ("ex_2", 9, [delta()])]
    assert await call(redis, *batches, ("ex_2", 2, [delta()] * 2)) == [1, 0, 1, 0, 0]
    assert await redis.exists(OWNER.execution("gone").record, OWNER.execution("gone").log) == 0
    assert len(batches) < BATCHES_MAX


@pytest.mark.parametrize(
    ("fields", "first", "attempt"),
    [
        ({}, 1, 0),  # a repeat
        ({}, 3, 0),  # numbers are missing
        ({"p:p": "5"}, 2, 0),  # a repeat of what another try has appended
        ({"state": "completed"}, 2, 0),
        ({"state": "failed"}, 2, 0),
        ({"state": "cancelled"}, 2, 0),
        ({"attempt": "2"}, 2, 1),  # taken over
        ({"attempt": "1"}, 2, 2),  # a record that went back to before the claim
        ({}, 2, 1),
        ({"fresh": "1"}, 2, 0),  # expiries are due
        ({"bytes": "999"}, 2, 0),  # with this event a part of the log ends
        ({"ms": "7"}, 2, 0),  # no time of these centuries
    ],
)
async def test_what_is_not_usual_is_left_to_the_long_script(
    redis: Redis, fields: dict[str, str], first: int, attempt: int
) -> None:
    """Nothing is written."""
    await begin(redis)
    if fields:
        await redis.hset(OWNER.execution("ex_1").record, mapping=fields)  # type: ignore[arg-type]
    before = await stored(redis)
    assert await call(redis, ("ex_1", first, [delta()]), attempt=attempt) == [0]
    assert await stored(redis) == before


@pytest.mark.parametrize("field", ["p:p", "fresh", "bytes"])
async def test_a_field_that_is_missing_is_not_guessed(redis: Redis, field: str) -> None:
    """Of an older log, or of a producer that the log does not know."""
    await begin(redis)
    await redis.hdel(OWNER.execution("ex_1").record, field)
    before = await stored(redis)
    assert await call(redis, ("ex_1", 2, [delta()])) == [0]
    assert await stored(redis) == before


async def test_the_attempt_that_runs_may_append(redis: Redis) -> None:
    await begin(redis)
    await redis.hset(OWNER.execution("ex_1").record, "attempt", "2")
    assert await call(redis, ("ex_1", 2, [delta()]), attempt=2) == [1]


@pytest.mark.parametrize(
    ("known", "attempt", "added"), [(None, 1, 1), ("0", 1, 1), ("1", 2, 1), ("9", 10, 1), ("2", 1, 0), ("10", 9, 0)]
)
async def test_without_a_claim_only_an_older_attempt_is_kept_out(
    redis: Redis, known: str | None, attempt: int, added: int
) -> None:
    """As by the long script: a first run, and one that follows another, need no record of their attempt."""
    await begin(redis)
    if known is not None:
        await redis.hset(OWNER.execution("ex_1").record, "attempt", known)
    assert await call(redis, ("ex_1", 2, [delta()]), attempt=attempt, is_exact=False) == [added]


async def test_ids_never_step_back(redis: Redis) -> None:
    """As far ahead as the last id is, as far is the next one."""
    await begin(redis)
    ahead = 9_000_000_000_000
    await redis.hset(OWNER.execution("ex_1").record, mapping={"ms": str(ahead), "fresh": str(ahead)})
    assert await call(redis, ("ex_1", 2, [delta()])) == [1]
    rows = await redis.xrange(OWNER.execution("ex_1").log)
    assert rows[-1][0] == b"%d-2" % ahead


async def test_a_long_log_is_trimmed(redis: Redis) -> None:
    """About as long as it may be; Redis drops whole blocks of a hundred events."""
    limits = LogLimits(log_maxlen=100, log_max_bytes=0)
    await begin(redis, limits=limits)
    for number in range(40):
        assert await call(redis, ("ex_1", 2 + number * 10, [delta()] * 10), limits=limits) == [10]
    assert 100 <= await redis.xlen(OWNER.execution("ex_1").log) <= 220


async def test_each_set_of_limits_has_its_script(redis: Redis) -> None:
    """They stand in its text; the same limits, the same script."""
    assert plain_script(LogLimits(), channels_of(redis)).sha == plain_script(LogLimits(), channels_of(redis)).sha
    assert plain_script(LIMITS, channels_of(redis)).sha != plain_script(LogLimits(), channels_of(redis)).sha


async def test_without_expiry_nothing_is_ever_due(redis: Redis) -> None:
    limits = LogLimits(ttl_seconds=0, log_maxlen=0, log_max_bytes=0)
    await begin(redis, limits=limits)
    await redis.hset(OWNER.execution("ex_1").record, "fresh", "1")
    assert await call(redis, ("ex_1", 2, [delta()]), limits=limits) == [1]
