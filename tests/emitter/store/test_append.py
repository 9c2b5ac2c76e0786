"""The append script: the one step that makes a log."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from emitter import errors, events
from emitter.store.append import LogLimits, append, append_command, prepare
from emitter.wire import entries, ids
from emitter.wire.keys import Owner
from emitter.wire.prepared import DROPPED, Prepared
from emitter.wire.redact import Redactor

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted(path for package in ("emitter", "broker") for path in (ROOT / package).rglob("*.lua"))
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


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_compares_no_text_by_order(path: Path) -> None:
    """That order is the locale's in which the server was started, not that of bytes."""
    code = "\n".join(line.partition("--")[0] for line in path.read_text().splitlines())
    assert not re.search(r"[<>]=?\s*'|'\s*[<>]", code)


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


async def test_an_attempt_whose_claim_was_lost_is_fenced(redis: Redis) -> None:
    """A failover took the record back to before the claim: it waits for another worker, which gets the same number if
    it is not the first."""
    await append(redis, OWNER, "ex_1", [delta()])
    await redis.hset(KEYS.record, mapping={"state": "queued", "attempt": "2", "taken": "1", "owner": ""})
    with pytest.raises(errors.Superseded):
        await append(redis, OWNER, "ex_1", [thought()], attempt=2, mode="claimed", producer="p", first_seq=1)
    await redis.hset(KEYS.record, mapping={"taken": "2", "owner": "w1"})
    assert (await append(redis, OWNER, "ex_1", [thought()], attempt=2, mode="claimed")).added == 1


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
    assert entries.parse_message(messages[KEYS.log.encode()]) == entries.parse_stream(await redis.xrange(KEYS.log))
    assert entries.parse_message(messages[OWNER.feed.encode()]) == entries.parse_stream(await redis.xrange(OWNER.feed))


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


async def test_a_log_is_trimmed_by_bytes(redis: Redis) -> None:
    """A log holds at most its bytes and an event, and about as much; what is gone is its beginning, without holes."""
    limit = 1024 * 1024
    limits = LogLimits(log_max_bytes=limit)
    for _ in range(12):
        await append(redis, OWNER, "ex_1", [thought("x" * 20_000) for _ in range(10)], limits=limits)
        rows = await redis.xrange(KEYS.log)
        size = sum(len(json) for _, fields in rows for json in fields.values())
        assert size <= limit + 21_000
    assert size > limit * 0.8
    seqs = [int(id_.split(b"-")[1]) for id_, _ in rows]
    assert seqs == list(range(seqs[0], 121))
    assert int((await record(redis))[b"bytes"]) > 2 * limit
    assert len([name for name in await record(redis) if name.startswith(b"b:")]) == 16


async def test_one_event_may_be_larger_than_parts_of_a_log(redis: Redis) -> None:
    """Events over a sixteenth of the limit trim as well, and the newest is always there."""
    limits = LogLimits(log_max_bytes=1024 * 1024, max_event_bytes=0)
    for size in (300_000, 300_000, 300_000, 300_000, 3_000_000, 10, 900_000):
        big = prepare(events.Thinking(thought="x" * size), "ex_1", redact=REDACT, max_bytes=0)
        await append(redis, OWNER, "ex_1", [big], limits=limits)
        held = [len(json) for _, fields in await redis.xrange(KEYS.log) for json in fields.values()]
        assert sum(held) <= 1024 * 1024 + max(held)
        assert held[-1] >= size


# --- producers -------------------------------------------------------------------------------------------------------


async def from_each(redis: Redis, names: list[str], first_seq: int = 1) -> None:
    """An event of each producer, in that order."""
    for start in range(0, len(names), 500):
        async with redis.pipeline(transaction=False) as pipe:
            for name in names[start : start + 500]:
                command = append_command(OWNER, "ex_1", [delta()], producer=name, first_seq=first_seq)
                pipe.execute_command(*command)
            assert {reply[0] for reply in await pipe.execute()} == {b"ok"}


async def test_the_record_knows_its_newest_producers(redis: Redis) -> None:
    """However many write to an execution all can, and its record does not grow with every id that somebody makes up.
    Repeats are known of the newest, of those who wrote since they came, and of the first."""
    await append(redis, OWNER, "ex_1", [delta()], producer="first")
    await from_each(redis, ["early", "busy"])
    await from_each(redis, [f"t{number}" for number in range(3000)])
    await from_each(redis, ["busy"], first_seq=2)
    await from_each(redis, [f"u{number}" for number in range(2000)])
    found = await record(redis)
    known = {name.decode()[2:] for name in found if name.startswith(b"p:")}
    assert 4000 <= len(known) <= 4001
    assert {"first", "busy", "u0", "u1999"} <= known
    assert not {"early", "t0"} & known
    assert len([name for name in found if name.startswith(b"q:")]) == 4000
    again = [("first", 1, 0), ("busy", 2, 0), ("u1999", 1, 0), ("early", 1, 1)]
    for name, first_seq, added in again:
        appended = await append(redis, OWNER, "ex_1", [delta()], producer=name, first_seq=first_seq)
        assert appended.added == added, name


async def test_a_producer_whose_events_are_all_dropped_is_known(redis: Redis) -> None:
    """Its numbers are spent, and it stands in the line like the others."""
    await append(redis, OWNER, "ex_1", [delta()], producer="a")
    await append(redis, OWNER, "ex_1", [DROPPED, DROPPED], producer="b")
    found = await record(redis)
    assert (found[b"p:b"], found[b"q:1"], found[b"seq"]) == (b"2", b"b 2", b"1")
    assert (await append(redis, OWNER, "ex_1", [delta(), delta(), delta()], producer="b")).added == 1


# --- inputs ----------------------------------------------------------------------------------------------------------


def question(input_id: str, prompt: str = "?", **fields: Any) -> Prepared:
    event = events.InputRequired(input_id=input_id, prompt=prompt, kind="text", **fields)
    return prepare(event, "ex_1", redact=REDACT)


def reply(input_id: str, value: Any = "x", by: str = "bob") -> Prepared:
    return prepare(events.InputReceived(input_id=input_id, by=by, value=value), "ex_1", redact=REDACT)


async def inputs(redis: Redis) -> dict[str, list[str]]:
    """The ids of what the record has of questions (`i`) and answers (`a`), and which are open and void."""
    found = await record(redis)
    kept = {kind: sorted(name.decode()[2:] for name in found if name.startswith(f"{kind}:".encode())) for kind in "ia"}
    return kept | {name: found.get(name.encode(), b"").decode().split() for name in ("open", "void")}


async def test_open_inputs_are_bounded(redis: Redis) -> None:
    """One question too many is refused, with the limit, and nothing of it is stored; after an answer there is room."""
    limits = LogLimits(max_open_inputs=3)
    ask = [question(f"q{number}") for number in range(5)]
    with pytest.raises(errors.TooManyInputs) as caught:
        await append(redis, OWNER, "ex_1", ask, limits=limits)
    assert (caught.value.limit, len(await log_ids(redis))) == (3, 3)
    await append(redis, OWNER, "ex_1", [question("q1", "again?")], limits=limits)  # asked again, it is no other
    await append(redis, OWNER, "ex_1", [reply("q1")], limits=limits)
    await append(redis, OWNER, "ex_1", [question("q3")], limits=limits)
    with pytest.raises(errors.TooManyInputs):
        await append(redis, OWNER, "ex_1", [question("q4")], limits=limits)
    assert await inputs(redis) == {"i": ["q0", "q2", "q3"], "a": ["q1"], "open": ["q0", "q2", "q3"], "void": []}
    await append(redis, OWNER, "ex_1", ask, limits=LogLimits(max_open_inputs=0))


async def test_open_inputs_are_bounded_by_bytes(redis: Redis) -> None:
    """Questions that wait may hold a megabyte; one alone may hold what an event may."""
    for number in range(17):
        await append(redis, OWNER, "ex_1", [question(f"q{number}", "x" * 61_500)])
    for more in (question("q17", "x" * 60_000), question("q0", "x" * 64_500)):
        with pytest.raises(errors.TooManyInputs):
            await append(redis, OWNER, "ex_1", [more])
    await append(redis, OWNER, "ex_1", [question("q0", "short"), question("q17", "x" * 50_000)])
    kept = [value for name, value in (await record(redis)).items() if name.startswith(b"i:")]
    assert 900_000 < sum(map(len, kept)) <= 1024 * 1024
    await append(redis, OWNER, "ex_1", [done()])
    await redis.delete(KEYS.record, KEYS.log)
    huge = events.InputRequired(input_id="q", prompt="x" * 2_000_000, kind="text")
    await append(redis, OWNER, "ex_1", [prepare(huge, "ex_1", redact=REDACT, max_bytes=0)])
    assert (await inputs(redis))["open"] == ["q"]


async def test_questions_whose_time_is_over_make_room(redis: Redis) -> None:
    """Also if nobody has closed them; those that have time left do not."""
    limits = LogLimits(max_open_inputs=3)
    past, later = ids.now_ms() - 60_000, ids.now_ms() + 60_000
    schema = {"expiresAt": 1}
    ask = [question("old", expires_at=past), question("new", expires_at=later), question("form", schema=schema)]
    await append(redis, OWNER, "ex_1", ask, limits=limits)
    await append(redis, OWNER, "ex_1", [question("more")], limits=limits)
    assert await inputs(redis) == {"i": ["form", "more", "new"], "a": [], "open": ["new", "form", "more"], "void": []}
    with pytest.raises(errors.TooManyInputs):
        await append(redis, OWNER, "ex_1", [question("another")], limits=limits)
    with pytest.raises(errors.UnknownInput):
        await append(redis, OWNER, "ex_1", [reply("old")])


async def test_the_newest_answers_are_kept(redis: Redis) -> None:
    """A thousand of them, of four megabytes: who asks the same again finds them, and the record does not grow."""
    for start in range(0, 1100, 100):
        names = [f"q{number}" for number in range(start, start + 100)]
        await append(redis, OWNER, "ex_1", [each for name in names for each in (question(name), reply(name))])
    found = await inputs(redis)
    assert (len(found["a"]), found["i"], found["open"]) == (1000, [], [])
    assert {"q100", "q1099"} <= {*found["a"]}
    with pytest.raises(errors.AlreadyAnswered):
        await append(redis, OWNER, "ex_1", [reply("q100")])
    with pytest.raises(errors.UnknownInput):
        await append(redis, OWNER, "ex_1", [reply("q99")])
    names = [f"big{number}" for number in range(100)]
    for name in names:
        await append(redis, OWNER, "ex_1", [question(name), reply(name, "x" * 60_000)])
    kept = {name.decode()[2:]: len(value) for name, value in (await record(redis)).items() if name.startswith(b"a:")}
    assert 3_900_000 < sum(kept.values()) <= 4 * 1024 * 1024
    assert [*sorted(kept, key=names.index)] == names[-len(kept) :]
    assert len([name for name in await record(redis) if name.startswith(b"n:")]) == len(kept)


async def test_questions_of_the_last_attempt_still_take_an_answer(redis: Redis) -> None:
    """Until the next attempt that asks something is lost as well; asked again, they wait again."""
    takeovers = [
        prepare(events.ExecutionSuperseded(from_seq=0, attempt=number), "ex_1", redact=REDACT) for number in range(2, 6)
    ]
    await append(redis, OWNER, "ex_1", [question("a"), question("b"), question("c"), takeovers[0]])
    assert await inputs(redis) == {"i": ["a", "b", "c"], "a": [], "open": [], "void": ["a", "b", "c"]}
    await append(redis, OWNER, "ex_1", [reply("b"), takeovers[1], question("a")])
    assert await inputs(redis) == {"i": ["a", "c"], "a": ["b"], "open": ["a"], "void": ["c"]}
    await append(redis, OWNER, "ex_1", [takeovers[2]])
    assert await inputs(redis) == {"i": ["a"], "a": ["b"], "open": [], "void": ["a"]}
    await append(redis, OWNER, "ex_1", [question("d"), done()])
    assert await inputs(redis) == {"i": [], "a": ["b"], "open": [], "void": []}


async def test_without_a_limit_any_number_may_be_open(redis: Redis) -> None:
    """And all of them leave the record when they are void, however many."""
    limits = LogLimits(max_open_inputs=0, log_maxlen=0)
    takeover = prepare(events.ExecutionSuperseded(from_seq=0, attempt=2), "ex_1", redact=REDACT)
    for start in range(0, 9000, 1000):
        await append(redis, OWNER, "ex_1", [question(f"q{start + n}") for n in range(1000)], limits=limits)
    await append(redis, OWNER, "ex_1", [takeover, question("a"), takeover, done()], limits=limits)
    assert await inputs(redis) == {"i": [], "a": [], "open": [], "void": []}


async def test_asking_costs_no_more_after_many_questions(redis: Redis) -> None:
    """What a batch of questions takes does not grow with those that were asked and answered before."""

    async def spent() -> int:
        stats: Any = await redis.info("commandstats")
        return int(stats["cmdstat_evalsha"]["usec"])

    async def ask_and_answer(start: int) -> int:
        before = await spent()
        for number in range(start, start + 300):
            name = f"{number:064}"
            await append(redis, OWNER, "ex_1", [question(name), reply(name)])
        return await spent() - before

    costs = [await ask_and_answer(start) for start in range(0, 3000, 300)]
    assert min(costs[5:]) < 3 * min(costs[:2])


@pytest.mark.parametrize("attempt", [0, -1, 2**31, 2**64])
async def test_an_attempt_is_a_number_that_counts_attempts(redis: Redis, attempt: int) -> None:
    """What no attempt reaches is refused before it is in a record for ever."""
    with pytest.raises(errors.InvalidEvent, match="attempt"):
        prepare(events.ExecutionSuperseded(from_seq=0, attempt=attempt), "ex_1", redact=REDACT)
    made_up = Prepared("execution:superseded", b"{}", f"t:{attempt}")
    await append(redis, OWNER, "ex_1", [delta(), made_up])
    assert 0 <= int((await record(redis))[b"attempt"]) < 2**31


async def test_a_missing_script_is_loaded(redis: Redis) -> None:
    """A server that lost its scripts (restart, failover) costs one more round trip, not an event."""
    await redis.script_flush()
    await append(redis, OWNER, "ex_1", [delta()])
    assert len(await log_ids(redis)) == 1
