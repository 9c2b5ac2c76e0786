"""Questions to people: asked, answered, found again, expired; with Redis there and away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter
from emitter.errors import (
    AlreadyAnswered,
    EmitterClosed,
    ExecutionEnded,
    InputExpired,
    InvalidEvent,
    PayloadTooLarge,
    Superseded,
    TooManyInputs,
    UnknownExecution,
)
from emitter.events import EXPIRED, InputReceived
from emitter.publishing import sent
from emitter.publishing.publisher import Publisher
from emitter.store.append import LogLimits, append_command, prepare
from emitter.store.connection import Channels, connect
from emitter.wire.ids import now_ms
from emitter.wire.keys import EXPIRIES, Owner, member
from emitter.wire.redact import Redactor
from tests.edges import under_load
from tests.emitter.lossy import Proxy, lossy
from tests.emitter.people import answer, asked

OWNER = Owner("alice")
KEYS = OWNER.execution("ex_1")
NEVER = 3600.0


@pytest.fixture
async def road(redis_server: EmbeddedRedis, redis: Redis, tmp_path: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before Redis that loses things, and its URL."""
    async with lossy(str(redis_server.socket_path), tmp_path) as found:
        yield found


@pytest.fixture
async def emitter(redis: Redis, redis_url: str) -> AsyncIterator[AgentEmitter]:
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as made:
        yield made


@pytest.fixture
def no_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is looked at only when there is news."""
    monkeypatch.setattr("emitter.publishing.input_wait.RECHECK_SECONDS", NEVER)


@pytest.fixture
def quick_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emitter.publishing.input_wait.RECHECK_SECONDS", 0.02)


async def stored(redis: Redis) -> list[dict[str, Any]]:
    return [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(KEYS.log)]


async def types(redis: Redis) -> list[str]:
    return [event["type"] for event in await stored(redis)]


async def state(redis: Redis) -> str:
    raw: Any = await redis.hget(KEYS.record, "state")  # type: ignore[misc]
    return str(raw.decode())


async def logged(redis: Redis, *expected: str) -> list[dict[str, Any]]:
    """Wait until the log has these events."""
    async with asyncio.timeout(10):
        while await types(redis) != [*expected]:
            await asyncio.sleep(0.01)
    return await stored(redis)


async def answer_unheard(redis: Redis, input_id: str, value: Any) -> None:
    """An answer of which no word reaches the agent: its message goes where nobody listens."""
    prepared = prepare(InputReceived(input_id=input_id, by="bob", value=value), "ex_1", redact=Redactor())
    command = append_command(OWNER, "ex_1", [prepared], channels=Channels(suffix="@nobody"))
    client: Any = redis
    assert (await client.execute_command(*command))[0] == b"ok"


async def subscribers(redis: Redis) -> set[str]:
    return {client["id"] for client in await redis.client_list() if client["sub"] != "0"}


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, False, "red", 5, None, {"name": "x"}, [1], ""])
async def test_an_answer_is_returned(redis: Redis, emitter: AgentEmitter, value: Any) -> None:
    """Whatever the value is, as it was given; meanwhile the execution waits, and then it runs."""
    task = asyncio.create_task(emitter.ask("Which?", kind="text"))
    (question,) = await asked(redis)
    await answer(redis, question, value)
    assert await asyncio.wait_for(task, 5) == value
    assert await types(redis) == ["input:required", "input:received"]
    assert await state(redis) == "running"


@pytest.mark.usefixtures("no_recheck")
async def test_an_answer_wakes_the_agent(redis: Redis, emitter: AgentEmitter) -> None:
    """By its word on the control channel, not at the next look at the record."""
    task = asyncio.create_task(emitter.ask("Go?"))
    (question,) = await asked(redis)
    await answer(redis, question, True)
    assert await asyncio.wait_for(task, 5) is True


@pytest.mark.usefixtures("quick_recheck")
async def test_an_answer_whose_word_is_lost_is_found(redis: Redis, emitter: AgentEmitter) -> None:
    """At the next look at the record."""
    task = asyncio.create_task(emitter.ask("Go?"))
    (question,) = await asked(redis)
    await answer_unheard(redis, question, True)
    assert await asyncio.wait_for(task, 5) is True


async def test_several_questions_at_once(redis: Redis, emitter: AgentEmitter) -> None:
    """Each gets its own answer, and the execution waits until the last has one."""
    tasks = [asyncio.create_task(emitter.ask(f"{number}?", input_id=f"q{number}")) for number in range(3)]
    assert {*await asked(redis, 3)} == {"q0", "q1", "q2"}
    for number in (1, 0, 2):
        assert await state(redis) == "waiting_input"
        await answer(redis, f"q{number}", number)
        assert await asyncio.wait_for(tasks[number], 5) == number
    assert await state(redis) == "running"


async def test_the_emitter_says_that_it_waits(redis: Redis, emitter: AgentEmitter) -> None:
    """For as long as a question is open."""
    task = asyncio.create_task(emitter.ask("Go?"))
    (question,) = await asked(redis)
    assert emitter.waits.any
    await answer(redis, question, True)
    await asyncio.wait_for(task, 5)
    assert not emitter.waits.any


async def test_a_question_that_cannot_be_stored(redis: Redis, emitter: AgentEmitter) -> None:
    """It raises at the call, nothing of it is stored, and the emitter goes on."""
    with pytest.raises(PayloadTooLarge):
        await emitter.ask("?" * 70_000)
    for wrong in ({"kind": "guess"}, {"input_id": "a b"}, {"input_id": ""}, {"expires_in": 0}, {"kind": "choice"}):
        with pytest.raises(InvalidEvent):
            await emitter.ask("Go?", **wrong)  # type: ignore[arg-type]
    await emitter.status("on", "")
    await emitter.flush()
    assert await types(redis) == ["status"]


async def test_a_question_without_secrets_in_the_record(redis: Redis, emitter: AgentEmitter) -> None:
    """What is kept of a question beside the log is redacted like the event."""
    await emitter.input_required("q", "Is ghp_" + "a1" * 20 + " still valid?", "approval")
    await emitter.flush()
    kept = json.loads(await redis.hget(KEYS.record, "i:q"))  # type: ignore[misc,arg-type]
    assert kept == (await stored(redis))[0]["data"]
    assert kept["prompt"] == "Is [redacted] still valid?"


async def test_the_agent_has_the_secret_that_the_log_hides(redis: Redis, emitter: AgentEmitter) -> None:
    """A form's field that looks secret reaches the agent as it was given."""
    schema = {"type": "object", "properties": {"password": {"type": "string", "minLength": 3}}}
    task = asyncio.create_task(emitter.ask("Who?", kind="form", schema=schema))
    (question,) = await asked(redis)
    await answer(redis, question, {"password": "hunter2"})
    assert await asyncio.wait_for(task, 5) == {"password": "hunter2"}
    required, received = await stored(redis)
    assert required["data"]["schema"] == schema
    assert received["data"]["value"] == {"password": "[redacted]"}


async def test_one_question_too_many(redis: Redis, redis_url: str) -> None:
    """It raises, asked or only emitted; the execution goes on, and asks again once there is room."""
    limits = LogLimits(max_open_inputs=1)
    async with (
        Publisher(redis_url=redis_url, limits=limits, redact_keys=()) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher) as emitter,
    ):
        first = asyncio.create_task(emitter.ask("Go?", input_id="first"))
        await asked(redis)
        with pytest.raises(TooManyInputs, match="RUNCAST_MAX_OPEN_INPUTS"):
            await emitter.ask("And?", input_id="second")
        with structlog.testing.capture_logs() as logs:
            await emitter.status("before", "")
            await emitter.input_required("third", "Hm?", "approval")
            with pytest.raises(TooManyInputs):
                await emitter.flush()
            await emitter.status("after", "")
            await emitter.flush()
        assert [(each["event"], each["limit"]) for each in logs] == [("input_refused", 1)]
        await answer(redis, "first", True)
        assert await asyncio.wait_for(first, 5) is True
        second = asyncio.create_task(emitter.ask("And?", input_id="second"))
        assert await asked(redis) == ["second"]
        await answer(redis, "second", False)
        assert await asyncio.wait_for(second, 5) is False
    assert await types(redis) == [
        "input:required", "status", "status", "input:received", "input:required", "input:received",
    ]  # fmt: skip


# --- expiry ----------------------------------------------------------------------------------------------------------


async def test_nobody_answers(redis: Redis, emitter: AgentEmitter) -> None:
    """`InputExpired`; readers are told when that will be, and then that the question is closed."""
    began = now_ms()
    with pytest.raises(InputExpired, match="colour"):
        await emitter.ask("Colour?", kind="choice", options=["red"], expires_in=3.0, input_id="colour")
    asked_, closed = await stored(redis)
    assert abs(asked_["data"]["expiresAt"] - (began + 3000)) < 5_000
    assert closed["type"] == "input:received"
    assert closed["data"] == {"inputId": "colour", "by": EXPIRED}
    assert closed["ts"] >= asked_["data"]["expiresAt"] - 50
    assert await state(redis) == "running"
    with pytest.raises(AlreadyAnswered, match="answered"):
        await answer(redis, "colour", "red")


async def test_a_question_expires_while_another_is_open(redis: Redis, emitter: AgentEmitter) -> None:
    """The execution goes on waiting for the other."""
    task = asyncio.create_task(emitter.ask("Go?", input_id="open"))
    await asked(redis)
    with pytest.raises(InputExpired):
        await emitter.ask("Quick?", expires_in=3.0)
    assert await asked(redis) == ["open"]
    await answer(redis, "open", True)
    assert await asyncio.wait_for(task, 5) is True


async def test_a_question_whose_agent_leaves_at_once_is_closed(
    redis: Redis, emitter: AgentEmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reaper knows of it before the log does: the agent may be gone as soon as it is there."""
    outbox = emitter._outbox
    flush = outbox.flush

    async def flush_and_leave() -> None:
        await flush()
        raise asyncio.CancelledError

    monkeypatch.setattr(outbox, "flush", flush_and_leave)
    with pytest.raises(asyncio.CancelledError):
        await emitter.ask("Go?", input_id="q", expires_in=60)
    assert await asked(redis) == ["q"]
    assert await redis.zscore(EXPIRIES, f"{member(OWNER, 'ex_1')} q") is not None


@pytest.mark.usefixtures("no_recheck")
async def test_an_answer_in_the_last_moment_counts(own_redis: EmbeddedRedis) -> None:
    """Whoever is first in the log: a person's answer that the agent has not heard of when its time is over."""

    async def looks() -> int:
        """At a record, the append script's included."""
        return int((await client.info("commandstats")).get("cmdstat_hmget", {"calls": 0})["calls"])

    client: Any = connect(own_redis.url)
    publisher = Publisher(redis_url=own_redis.url, limits=LogLimits(unheld_lease_seconds=0))  # which looks as well
    async with client, publisher, AgentEmitter("alice", "ex_1", publisher=publisher) as emitter:
        task = asyncio.create_task(emitter.ask("Go?", input_id="q", expires_in=4))
        async with asyncio.timeout(10):
            while await looks() < 5:  # before it asks, as it asks (two), before it waits, and when it is subscribed
                await asyncio.sleep(0.005)
        await answer_unheard(client, "q", "just in time")
        assert await asyncio.wait_for(task, 8) == "just in time"
        assert await looks() == 9, "nothing but the two answers"
        assert await types(client) == ["input:required", "input:received"]


async def test_two_who_wait_for_one_question_expire_together(redis: Redis, emitter: AgentEmitter) -> None:
    """Closed for one is closed for all, also for who would have waited longer."""
    longer = asyncio.create_task(emitter.ask("Go?", input_id="q", expires_in=60))
    await asked(redis)
    with pytest.raises(InputExpired):
        await emitter.ask("Go?", input_id="q", expires_in=3.0)
    with pytest.raises(InputExpired):
        await asyncio.wait_for(longer, 40)
    assert (await types(redis)).count("input:received") == 1


async def test_redis_away_when_the_time_is_over(redis: Redis, road: tuple[Proxy, str]) -> None:
    """The bound holds without Redis, and the log has the question closed when Redis is back."""
    proxy, url = road
    async with AgentEmitter("alice", "ex_1", redis_url=url) as emitter:
        task = asyncio.create_task(emitter.ask("Go?", expires_in=3.0))
        await asked(redis)
        with proxy.gone(), pytest.raises(InputExpired):
            await asyncio.wait_for(task, 8)
        *_, closed = await logged(redis, "input:required", "input:received")
        assert closed["data"]["by"] == EXPIRED


async def test_a_question_that_was_never_asked(
    redis: Redis, road: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is away all of its time: it expires, and is not asked when it is too late; there is nothing to close."""
    monkeypatch.setattr("emitter.publishing.input_wait.CLOSE_SECONDS", NEVER)
    proxy, url = road
    async with AgentEmitter("alice", "ex_1", redis_url=url) as emitter:
        with proxy.gone(), pytest.raises(InputExpired):
            await asyncio.wait_for(emitter.ask("Go?", expires_in=0.2), 5)
        await emitter.status("on", "")
        await emitter.flush()
    assert await types(redis) == ["status"]


# --- attempts --------------------------------------------------------------------------------------------------------


async def ask_and_leave(redis: Redis, url: str, *prompts: str, answers: list[Any], **options: Any) -> None:
    """A first attempt that asks one after the other, and is lost when nobody answers."""
    async with AgentEmitter("alice", "ex_1", redis_url=url, attempt=1) as first:
        for prompt, value in zip(prompts, [*answers, None], strict=False):
            task = asyncio.create_task(first.ask(prompt, **options))
            (question,) = await asked(redis)
            if value is None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                await answer(redis, question, value)
                await asyncio.wait_for(task, 5)


async def test_a_retry_finds_the_answer_to_the_same_question(redis: Redis, redis_url: str) -> None:
    """Given while one attempt or none ran; it is not asked again."""
    await ask_and_leave(redis, redis_url, "Go?", answers=[])
    (question,) = await asked(redis)
    await answer(redis, question, "yes")
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=2) as second:
        assert await second.ask("Go?", expires_in=5) == "yes"
    assert (await types(redis)).count("input:required") == 1


async def test_a_retry_that_asks_otherwise_never_gets_anothers_answer(redis: Redis, redis_url: str) -> None:
    """An agent that takes another course on its second try asks its own question, though it is the first again."""
    await ask_and_leave(redis, redis_url, "Delete the copy?", answers=[True])
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=2) as second:
        with pytest.raises(InputExpired):
            await second.ask("Delete the original?", expires_in=3.0)
    assert (await types(redis)).count("input:required") == 2


async def test_a_question_asked_twice_has_two_answers(redis: Redis, redis_url: str) -> None:
    """Also for the retry, in the same order; the third time is new."""
    await ask_and_leave(redis, redis_url, "Next?", "Next?", answers=["a", "b"])
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=2) as second:
        assert [await second.ask("Next?"), await second.ask("Next?")] == ["a", "b"]
        with pytest.raises(InputExpired):
            await second.ask("Next?", expires_in=0.5)


async def test_a_retry_asks_an_open_question_again(redis: Redis, redis_url: str) -> None:
    """With its own time: what is kept of the question is the new one's."""
    await ask_and_leave(redis, redis_url, "Go?", answers=[], expires_in=60)
    (question,) = await asked(redis)
    before = json.loads(await redis.hget(KEYS.record, f"i:{question}"))  # type: ignore[misc,arg-type]
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=2) as second:
        task = asyncio.create_task(second.ask("Go?", expires_in=600))
        await logged(redis, "input:required", "input:required")
        assert await asked(redis) == [question]
        after = json.loads(await redis.hget(KEYS.record, f"i:{question}"))  # type: ignore[misc,arg-type]
        assert after["expiresAt"] > before["expiresAt"] + 500_000
        await answer(redis, question, "yes")
        assert await asyncio.wait_for(task, 5) == "yes"


async def test_a_retry_finds_the_question_expired(redis: Redis, redis_url: str) -> None:
    """At once, however long it would wait: both attempts take the same course."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=1) as first:
        with pytest.raises(InputExpired):
            await first.ask("Go?", expires_in=3.0)
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=2) as second:
        with pytest.raises(InputExpired):
            await asyncio.wait_for(second.ask("Go?"), 5)
    assert await types(redis) == ["input:required", "input:received"]


@pytest.mark.usefixtures("quick_recheck")
async def test_another_attempt_begins_while_somebody_is_asked(redis: Redis, redis_url: str) -> None:
    """The older attempt stops waiting."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=1) as emitter:
        task = asyncio.create_task(emitter.ask("Go?"))
        await asked(redis)
        await redis.hset(KEYS.record, "attempt", "2")  # type: ignore[misc]
        with pytest.raises(Superseded):
            await asyncio.wait_for(task, 10)


# --- the wait ends with what it waits for ----------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_recheck")
async def test_the_execution_ends_while_somebody_is_asked(redis: Redis, emitter: AgentEmitter, redis_url: str) -> None:
    """An agent does not wait for an answer that will be of no use."""
    task = asyncio.create_task(emitter.ask("Go?"))
    await asked(redis)
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as other:
        await other.execution_cancelled(reason="enough")
    with pytest.raises(ExecutionEnded, match="cancelled"):
        await asyncio.wait_for(task, 10)


@pytest.mark.usefixtures("no_recheck")
async def test_the_publisher_closes_while_somebody_is_asked(redis: Redis, redis_url: str) -> None:
    """Who waits is told at once, and nobody listens any more."""
    async with Publisher(redis_url=redis_url) as publisher:
        emitter = AgentEmitter("alice", "ex_1", publisher=publisher)
        task = asyncio.create_task(emitter.ask("Go?"))
        await asked(redis)
    assert not [each for each in asyncio.all_tasks() if each.get_name().startswith("listener")]
    with pytest.raises(EmitterClosed):
        await asyncio.wait_for(task, 5)


@pytest.mark.usefixtures("quick_recheck")
async def test_an_execution_that_is_gone(redis: Redis, emitter: AgentEmitter) -> None:
    """Redis lost everything: nobody can answer, so nobody waits."""
    task = asyncio.create_task(emitter.ask("Go?"))
    await asked(redis)
    await redis.flushall()
    with pytest.raises(UnknownExecution):
        await asyncio.wait_for(task, 5)


@pytest.mark.usefixtures("quick_recheck")
@pytest.mark.parametrize("held_bytes", [sent.HELD_BYTES, 0])
async def test_a_question_that_a_failover_lost_is_asked_again(
    redis: Redis, emitter: AgentEmitter, monkeypatch: pytest.MonkeyPatch, held_bytes: int
) -> None:
    """The execution is there, the question is not; whether the emitter still holds it or not, it comes once."""
    monkeypatch.setattr(sent, "HELD_BYTES", held_bytes)
    await emitter.status("working", "")
    await emitter.flush()
    before: Any = await redis.dump(KEYS.record), await redis.dump(KEYS.log)
    task = asyncio.create_task(emitter.ask("Go?"))
    (question,) = await asked(redis)
    async with redis.pipeline() as pipe:
        for key, value in zip((KEYS.record, KEYS.log), before, strict=True):
            pipe.restore(key, 0, value, replace=True)
        await pipe.execute()
    assert await asked(redis) == [question]
    await answer(redis, question, "yes")
    assert await asyncio.wait_for(task, 5) == "yes"
    assert await types(redis) == ["status", "input:required", "input:received"]


async def test_a_cancelled_question_leaves_no_connection(redis: Redis, emitter: AgentEmitter) -> None:
    """Its subscription goes with it, and the emitter goes on."""
    before = await subscribers(redis)  # edges that other tests share
    for number in range(5):
        task = asyncio.create_task(emitter.ask("Go?", input_id=f"q{number}"))
        await asked(redis, number + 1)
        await asyncio.sleep(0.01 * number)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(5):
        while await subscribers(redis) - before:
            await asyncio.sleep(0.01)
    await emitter.execution_complete(1)


# --- connections -----------------------------------------------------------------------------------------------------


async def test_redis_away_while_somebody_is_asked(redis: Redis, road: tuple[Proxy, str]) -> None:
    """Before the question, while it waits: it takes longer, and the answer is found."""
    proxy, url = road
    async with AgentEmitter("alice", "ex_1", redis_url=url) as emitter:
        with proxy.gone():
            task = asyncio.create_task(emitter.ask("Go?", expires_in=20))
            await asyncio.sleep(0.1)
            assert not task.done()
        (question,) = await asked(redis)
        with proxy.gone():
            await answer(redis, question, True)
            await asyncio.sleep(0.1)
            assert not task.done()
        assert await asyncio.wait_for(task, 15) is True


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_connections_killed_while_somebody_is_asked(own_redis: EmbeddedRedis, kind: str) -> None:
    """The answer arrives all the same, at the latest with the next look at the record."""
    client: Any = connect(own_redis.url)
    async with client, AgentEmitter("alice", "ex_1", redis_url=own_redis.url) as emitter:
        task = asyncio.create_task(emitter.ask("Go?"))
        (question,) = await asked(client)
        async with asyncio.timeout(5):
            while not await subscribers(client):
                await asyncio.sleep(0.005)
        assert await client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes") > 0
        await answer(client, question, True)
        assert await asyncio.wait_for(task, 20) is True


async def test_many_questions_share_one_connection(redis: Redis, redis_url: str) -> None:
    """Fifty specialists of five executions ask at once over one subscription, and each gets its own answer."""
    before = await subscribers(redis)
    async with Publisher(redis_url=redis_url) as publisher:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=publisher) for number in range(5)]
        tasks = {
            (each.execution_id, f"q{number}"): asyncio.create_task(each.ask("Go?", input_id=f"q{number}"))
            for each in emitters
            for number in range(10)
        }
        for each in emitters:
            await asked(redis, 10, execution_id=each.execution_id)
        async with asyncio.timeout(under_load(5)):  # the questions are in the log before the waiting for answers begins
            while not (connections := await subscribers(redis) - before):
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        assert len(connections | await subscribers(redis) - before) == 1
        for execution_id, question in tasks:
            await answer(redis, question, execution_id + question, execution_id=execution_id)
        async with asyncio.timeout(10):
            assert await asyncio.gather(*tasks.values()) == ["".join(key) for key in tasks]
            while await subscribers(redis) - before:
                await asyncio.sleep(0.01)
