"""What an agent calls: queueing, waiting, ending."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter, SyncAgentEmitter, WrongLoop, events
from emitter.errors import (
    EmitterClosed,
    EventsLost,
    ExecutionEnded,
    InvalidEvent,
    PayloadTooLarge,
    QueueFull,
    RedisUnavailable,
)
from emitter.publishing.outbox import PublisherOptions
from emitter.publishing.publisher import Publisher
from emitter.store.append import LogLimits
from emitter.wire.keys import Owner
from tests.edges import under_load
from tests.emitter.lossy import Proxy, lossy
from tests.emitter.people import answer, asked

OWNER = Owner("alice")
KEYS = OWNER.execution("ex_1")


@pytest.fixture
async def road(redis_server: EmbeddedRedis, redis: Redis, tmp_path: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before Redis that loses things, and its URL."""
    async with lossy(str(redis_server.socket_path), tmp_path) as found:
        yield found


@pytest.fixture
async def emitter(redis: Redis, redis_url: str) -> AsyncIterator[AgentEmitter]:
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as made:
        yield made


async def stored(redis: Redis) -> list[dict[str, Any]]:
    return [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(KEYS.log)]


async def types(redis: Redis) -> list[str]:
    return [event["type"] for event in await stored(redis)]


# --- the tour --------------------------------------------------------------------------------------------------------


async def test_the_tour(redis: Redis, redis_url: str) -> None:
    """The example of the documentation: scopes, streamed text, an answer and an end, in order."""

    async def agent() -> None:
        async with AgentEmitter("alice", "ex_1", redis_url=redis_url, agent="writer", request_id="r") as emitter:
            await emitter.execution_started(task="Create landing page")
            async with emitter.phase("research", name="Research"):
                async with emitter.tool("search_web", {"q": "trees"}) as call:
                    await call.progress(50)
                    call.result = ["oak"]
                for chunk in ("Trees ", "are ", "tall."):
                    await emitter.text(chunk)
            assert await emitter.ask("Publish it?", kind="approval", expires_in=600) is True
            await emitter.execution_complete(result={"ok": True})
            assert emitter.ended

    task = asyncio.create_task(agent())
    (question,) = await asked(redis)
    await answer(redis, question, True)
    await task
    log = await stored(redis)
    assert [event["type"] for event in log] == [
        "execution:started", "phase:start", "tool:start", "tool:progress", "tool:complete", "message:delta",
        "phase:complete", "input:required", "input:received", "message:complete", "execution:complete",
    ]  # fmt: skip
    assert log[5]["data"] == {"messageId": "m1_1", "delta": "Trees are tall."}
    assert (log[4]["data"]["result"], log[4]["data"]["callId"]) == (["oak"], log[2]["data"]["callId"])
    assert all((event["agent"], event["requestId"]) == ("writer", "r") for event in log if event != log[8])
    assert (await redis.hget(KEYS.record, "state")) == b"completed"


# --- what is refused at the call -------------------------------------------------------------------------------------


async def test_what_cannot_be_stored_raises_and_nothing_of_it_is_stored(redis: Redis, redis_url: str) -> None:
    """With `strict`: the events around a refused one are there, the refused one is not, and the emitter goes on."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, strict=True) as emitter:
        await emitter.status("before", "")
        for wrong in (
            lambda: emitter.thinking(5),  # type: ignore[arg-type]
            lambda: emitter.emit("thinking"),  # type: ignore[arg-type]
            lambda: emitter.partial_result({"a": float("nan")}),
            lambda: emitter.text("half \ud83d"),
            lambda: emitter.text(None),  # type: ignore[arg-type]
            lambda: emitter.message_delta("x", "id \udfff"),
            lambda: emitter.message_delta("x", 5),  # type: ignore[arg-type]
            lambda: emitter.thinking_delta(None, "m"),  # type: ignore[arg-type]
            lambda: emitter.custom("No", {}),
            lambda: emitter.execution_complete(object()),
        ):
            with pytest.raises(InvalidEvent):
                await wrong()
        with pytest.raises(PayloadTooLarge, match="65536"):
            await emitter.thinking("x" * 66_000)
        with pytest.raises(PayloadTooLarge):
            await emitter.message_delta("x" * 66_000, "m")
        with pytest.raises(PayloadTooLarge):
            await emitter.execution_complete("x" * 66_000)
        await emitter.status("after", "")
        await emitter.execution_complete("fine")
    assert [event["data"].get("status") for event in await stored(redis)] == ["before", "after", None]


async def test_what_changes_the_meaning_of_an_execution_is_refused(redis: Redis, emitter: AgentEmitter) -> None:
    """Questions, answers and takeovers that are wrong raise, with the name of the field; the emitter goes on."""
    for wrong, field in (
        (lambda: emitter.input_required("a b", "p", "text"), "inputId"),
        (lambda: emitter.input_required("q", 5, "text"), "prompt"),  # type: ignore[arg-type]
        (lambda: emitter.input_received("q", "alice", value=float("nan")), "input:received"),
        (lambda: emitter.ask("p", kind="guess"), "kind"),  # type: ignore[arg-type]
        (lambda: emitter.ask("p", input_id="a b"), "inputId"),
        (lambda: emitter.ask("p", input_id=""), "inputId"),
        (lambda: emitter.execution_superseded(-1, 2), "fromSeq"),
        (lambda: emitter.execution_started("t", attempt=2**40), "attempt"),
    ):
        with pytest.raises(InvalidEvent, match=field):
            await wrong()
    with pytest.raises(PayloadTooLarge):
        await emitter.ask("x" * 70_000)
    await emitter.execution_complete("fine")
    assert await types(redis) == ["execution:complete"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"user_id": "a\n"},
        {"user_id": ""},
        {"user_id": 42},
        {"org": "\x00"},
        {"execution_id": "a:b"},
        {"execution_id": ""},
        {"execution_id": 7},
        {"attempt": -1},
        {"attempt": "1"},
        {"agent": 5},
        {"request_id": "\ud800"},
        {"parent_id": b"x"},
        {"redis_url": "http://x"},
    ],
    ids=str,
)
def test_wrong_arguments_raise_at_birth(arguments: dict[str, Any]) -> None:
    """Ids and names are checked before anything is sent."""
    with pytest.raises(InvalidEvent):
        AgentEmitter(**{"user_id": "alice", "execution_id": "ex_1"} | arguments)


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1024, 4096, 65_536, 0])
@pytest.mark.parametrize("letter", ["x", "é", "😀", "\x01", '"', "://a:b@"], ids=ascii)
async def test_text_of_any_size_and_letters_is_stored(redis: Redis, redis_url: str, limit: int, letter: str) -> None:
    """Long text is cut and merged so that every piece fits the limit; nothing is lost but credentials."""
    text = letter * (20_000 // len(letter))
    async with (
        Publisher(redis_url=redis_url, limits=LogLimits(max_event_bytes=limit), redact_keys=()) as shared,
        AgentEmitter("alice", "ex_1", publisher=shared, agent="a" * 50) as emitter,
    ):
        await emitter.text(text)
        for _ in range(300):
            await emitter.text(letter * 10)
        await emitter.end_text()
        await emitter.flush()
    deltas = [event["data"].get("delta", "") for event in await stored(redis)]
    rows = await redis.xrange(KEYS.log)
    assert max(len(next(iter(fields.values()))) for _, fields in rows) <= (limit or 65_536)
    if letter != "://a:b@":
        assert "".join(deltas) == text + letter * 3000


async def test_end_text_begins_another_message(redis: Redis, emitter: AgentEmitter) -> None:
    """Messages have ids of their own; ending twice, or without text, does nothing."""
    await emitter.end_text()
    await emitter.text("a")
    await emitter.end_text()
    await emitter.end_text()
    await emitter.text("b")
    await emitter.execution_complete()
    found = [(event["type"], event["data"].get("messageId")) for event in await stored(redis)]
    assert found == [
        ("message:delta", "m1_1"),
        ("message:complete", "m1_1"),
        ("message:delta", "m1_2"),
        ("message:complete", "m1_2"),
        ("execution:complete", None),
    ]


async def test_chunks_merge_only_with_their_neighbours(redis: Redis, redis_url: str) -> None:
    """Order holds between chunks, messages and events of other types."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, options=PublisherOptions(max_wait=30)) as emitter:
        await emitter.message_delta("a", "m")
        await emitter.message_delta("b", "m")
        await emitter.message_delta("c", "n")
        await emitter.thinking_delta("d", "n")
        await emitter.thinking_delta("e", "n")
        await emitter.status("s", "")
        await emitter.thinking_delta("f", "n")
    found = [(event["data"].get("messageId"), event["data"].get("delta")) for event in await stored(redis)]
    assert found == [("m", "ab"), ("n", "c"), ("n", "de"), (None, None), ("n", "f")]


# --- a full queue ----------------------------------------------------------------------------------------------------


async def test_a_full_queue_makes_emitting_wait_and_then_raise(redis: Redis, road: tuple[Proxy, str]) -> None:
    """The call that finds no room waits `overflow_timeout`, raises, and has queued nothing."""
    proxy, url = road
    options = PublisherOptions(max_queue_events=5, overflow_timeout=0.2)
    async with AgentEmitter("alice", "ex_1", redis_url=url, options=options) as emitter:
        with proxy.gone():
            for number in range(5):
                await emitter.status(str(number), "")
            began = time.monotonic()
            with pytest.raises(QueueFull, match=r"0\.2 s"):
                await emitter.status("too much", "")
            assert 0.15 < time.monotonic() - began < 8
        await emitter.flush()
        await emitter.status("5", "")
    assert [event["data"]["status"] for event in await stored(redis)] == list("012345")


@pytest.mark.parametrize("limits", [{"max_queue_events": 5}, {"max_queue_bytes": 2000}], ids=str)
async def test_those_who_wait_for_room_keep_their_order(
    redis: Redis, road: tuple[Proxy, str], limits: dict[str, int]
) -> None:
    """However many wait, the queue stays within its bound, and they are stored in the order of their calls."""
    proxy, url = road
    options = PublisherOptions(**limits)  # type: ignore[arg-type]
    async with AgentEmitter("alice", "ex_1", redis_url=url, options=options) as emitter:
        with proxy.gone():
            calls = [asyncio.create_task(emitter.status(str(number), "x" * 100)) for number in range(60)]
            await asyncio.sleep(0.05)
            assert len(emitter._outbox.queue) <= 6
            assert emitter._outbox.queue.size < 2600
        calls += [asyncio.create_task(emitter.status(str(number), "")) for number in range(60, 70)]
        await asyncio.gather(*calls)
    assert [event["data"]["status"] for event in await stored(redis)] == [str(number) for number in range(70)]


async def test_a_cancelled_wait_for_room_queues_nothing(redis: Redis, road: tuple[Proxy, str]) -> None:
    """What was cancelled is not stored; what waited behind it is."""
    proxy, url = road
    async with AgentEmitter("alice", "ex_1", redis_url=url, options=PublisherOptions(max_queue_events=2)) as emitter:
        with proxy.gone():
            await emitter.status("0", "")
            await emitter.status("1", "")
            cancelled = asyncio.create_task(emitter.status("cancelled", ""))
            behind = asyncio.create_task(emitter.status("2", ""))
            await asyncio.sleep(0.02)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
        await behind
        assert emitter._outbox.crowded == 0
    assert [event["data"]["status"] for event in await stored(redis)] == list("012")


async def test_dropping_chunks_drops_only_chunks_and_says_so(redis: Redis, road: tuple[Proxy, str]) -> None:
    """With `drop_deltas` nothing waits for chunks: they go, every other event is stored, the log tells how many."""
    proxy, url = road
    options = PublisherOptions(max_queue_events=10, overflow="drop_deltas", max_wait=30)
    async with AgentEmitter("alice", "ex_1", redis_url=url, options=options) as emitter:
        await emitter.status("first", "")
        await emitter.flush()
        with proxy.gone():
            began = time.monotonic()
            for number in range(9):
                await emitter.status(str(number), "")
                await emitter.message_delta("lost", f"m{number}")
            assert time.monotonic() - began < 8
            for _ in range(5):  # the queue is full of what must stay
                await emitter.thinking_delta("lost", "m")
    log = await stored(redis)
    said = [event["data"]["status"] for event in log if event["type"] == "status"]
    assert said == ["first", *"012345678", "dropped"]
    kept = sum(event["type"] in events.DELTAS for event in log)
    assert int(log[-1]["data"]["message"].split()[0]) == 14 - kept > 0


async def test_dropping_chunks_still_waits_for_other_events(redis: Redis, road: tuple[Proxy, str]) -> None:
    """A queue full of events that must stay makes the next such event wait."""
    proxy, url = road
    options = PublisherOptions(max_queue_events=3, overflow="drop_deltas", overflow_timeout=0.1)
    async with AgentEmitter("alice", "ex_1", redis_url=url, options=options) as emitter:
        with proxy.gone():
            for number in range(3):
                await emitter.status(str(number), "")
            with pytest.raises(QueueFull):
                await emitter.status("too much", "")
        await emitter.flush()
    assert [event["data"]["status"] for event in await stored(redis)] == list("012")


# --- flushing and closing --------------------------------------------------------------------------------------------


async def test_flush_waits_for_what_was_before_it(redis: Redis, emitter: AgentEmitter) -> None:
    """Not for what others emit meanwhile without end."""
    going = True

    async def chatter() -> None:
        while going:
            await emitter.text("bla ")
            await asyncio.sleep(0)

    task = asyncio.create_task(chatter())
    async with asyncio.timeout(under_load(5)):
        for number in range(20):
            await emitter.status(str(number), "")
            await emitter.flush()
            assert (await types(redis)).count("status") == number + 1
    going = False
    await task


async def test_flush_is_bounded_and_changes_nothing(redis: Redis, road: tuple[Proxy, str]) -> None:
    """It says how many events wait; they are still sent when Redis is back."""
    proxy, url = road
    async with AgentEmitter("alice", "ex_1", redis_url=url) as emitter:
        with proxy.gone():
            await emitter.status("1", "")
            began = time.monotonic()
            with pytest.raises(RedisUnavailable, match="1 events"):
                await emitter.flush(timeout=0.1)
            assert time.monotonic() - began < 8
        await emitter.flush()
    assert await types(redis) == ["status"]


async def test_a_flush_that_is_given_up_disturbs_nobody(redis: Redis, emitter: AgentEmitter) -> None:
    """Cancelled or not, others that flush get their answer, and the events are stored once."""
    for number in range(30):
        await emitter.status(str(number), "")
        given_up = asyncio.create_task(emitter.flush())
        kept = asyncio.create_task(emitter.flush())
        for _ in range(number % 5):
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait_for(kept, 5)
        await asyncio.gather(given_up, return_exceptions=True)
    assert [event["data"]["status"] for event in await stored(redis)] == [str(number) for number in range(30)]


async def test_a_flush_during_drops_ends(redis: Redis, road: tuple[Proxy, str]) -> None:
    """Chunks that are given up are waited for no longer, and the events behind them still are."""
    proxy, url = road
    options = PublisherOptions(max_queue_events=10, overflow="drop_deltas", max_wait=30)
    async with AgentEmitter("alice", "ex_1", redis_url=url, options=options) as emitter:
        with proxy.gone():
            for number in range(4):
                await emitter.message_delta("x", f"m{number}")
            await emitter.status("kept", "")
            flush = asyncio.create_task(emitter.flush())
            await asyncio.sleep(0.05)
            for number in range(20):
                await emitter.message_delta("x", f"n{number}")
        await asyncio.wait_for(flush, 5)
        assert "kept" in [event["data"].get("status") for event in await stored(redis)]


async def test_leaving_the_block_flushes(redis: Redis, redis_url: str) -> None:
    """Also when the agent raised, and its exception is what comes out."""

    async def agent() -> None:
        async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
            await emitter.text("so far")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await agent()
    assert await types(redis) == ["message:delta"]


async def test_closing_in_vain_tells_the_loss(road: tuple[Proxy, str]) -> None:
    """The count is that of the events not confirmed; the bound holds; a second close has nothing to say."""
    proxy, url = road
    with proxy.gone():
        emitter = AgentEmitter("alice", "ex_1", redis_url=url)
        await emitter.__aenter__()
        for number in range(7):
            await emitter.status(str(number), "")
        began = time.monotonic()
        with pytest.raises(EventsLost) as caught:
            await emitter.close(timeout=0.1)
        assert caught.value.count == 7
        assert time.monotonic() - began < 8
        await emitter.close()


async def test_the_agents_own_error_comes_before_a_loss(road: tuple[Proxy, str]) -> None:
    """A failed close never hides why the agent stopped."""
    proxy, url = road
    options = PublisherOptions(close_timeout=0.1)

    async def agent() -> None:
        async with AgentEmitter("alice", "ex_1", redis_url=url, options=options) as emitter:
            await emitter.status("1", "")
            raise ZeroDivisionError

    with proxy.gone(), pytest.raises(ZeroDivisionError):
        await agent()


async def test_after_closing_every_call_says_so(redis: Redis, redis_url: str) -> None:
    """At once, for events, chunks, ends, questions and flushes, and for those that wait while it closes."""
    emitter = AgentEmitter("alice", "ex_1", redis_url=redis_url)
    async with emitter:
        await emitter.status("1", "")
    async with asyncio.timeout(under_load(2)):
        for call in (
            lambda: emitter.status("2", ""),
            lambda: emitter.text("x"),
            lambda: emitter.execution_complete(1),
            lambda: emitter.execution_error("e"),
            lambda: emitter.ask("Go?"),
            lambda: emitter.flush(),
            lambda: emitter.__aenter__(),
        ):
            with pytest.raises(EmitterClosed):
                await call()
    assert await types(redis) == ["status"]


async def test_closing_wakes_those_who_wait(road: tuple[Proxy, str]) -> None:
    """A call that waits for room, or for the log, does not wait for an emitter that is gone."""
    proxy, url = road
    with proxy.gone():
        emitter = AgentEmitter("alice", "ex_1", redis_url=url, options=PublisherOptions(max_queue_events=1))
        await emitter.__aenter__()
        await emitter.status("1", "")
        waiting = [asyncio.create_task(emitter.status("2", "")), asyncio.create_task(emitter.flush())]
        await asyncio.sleep(0.02)
        with pytest.raises(EventsLost):
            await emitter.close(timeout=0.05)
        async with asyncio.timeout(under_load(2)):
            results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [EmitterClosed, EmitterClosed]


@pytest.mark.parametrize(
    "call",
    [
        lambda emitter: emitter.status("1", ""),
        lambda emitter: emitter.text("x"),
        lambda emitter: emitter.execution_complete(1),
        lambda emitter: emitter.ask("Go?"),
        lambda emitter: emitter.flush(),
        lambda emitter: emitter.phase("p").__aenter__(),
    ],
)
async def test_without_async_with_it_says_so(redis_url: str, call: Any) -> None:
    """An emitter that was never opened raises at the first call instead of hanging."""
    emitter = AgentEmitter("alice", "ex_1", redis_url=redis_url)
    async with asyncio.timeout(under_load(2)):
        with pytest.raises(EmitterClosed, match="async with"):
            await call(emitter)
    await emitter.close()


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_another_event_loop_is_refused_at_once(redis: Redis, emitter: AgentEmitter) -> None:
    """`asyncio.run` in a tool's thread: nothing waits for a loop that cannot know of it, and the text says what can."""
    for call in (emitter.thinking, emitter.ask):
        with pytest.raises(WrongLoop, match=r"SyncAgentEmitter\.over"):
            await asyncio.to_thread(asyncio.run, call("x"))
    with pytest.raises(WrongLoop):
        await asyncio.to_thread(asyncio.run, emitter.flush())
    await emitter.thinking("mine")
    blocking = SyncAgentEmitter.over(emitter, asyncio.get_running_loop())
    await asyncio.to_thread(blocking.thinking, "a thread's")
    await emitter.flush()
    assert [event["data"]["thought"] for event in await stored(redis)] == ["mine", "a thread's"]


async def test_the_end_is_in_the_log_when_it_returns(redis: Redis, emitter: AgentEmitter) -> None:
    """Everything before it too; what comes after raises `ExecutionEnded` at once, another end included."""
    for number in range(300):
        await emitter.text(f"{number} ")
    await emitter.execution_complete(1)
    assert (await types(redis))[-2:] == ["message:complete", "execution:complete"]
    for call in (emitter.thinking, emitter.text, emitter.execution_complete, emitter.execution_error):
        with pytest.raises(ExecutionEnded) as caught:
            await call("x")
        assert caught.value.state == "completed"


async def test_others_that_emit_beside_the_end_do_not_break_it(redis: Redis, emitter: AgentEmitter) -> None:
    """The end succeeds; those who were late are told."""

    async def chatter() -> None:
        while True:
            await emitter.status("bla", "")
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(chatter()) for _ in range(5)]
    await asyncio.sleep(0.02)
    await emitter.execution_complete(1)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ExecutionEnded] * 5
    assert (await types(redis))[-1] == "execution:complete"


async def test_the_end_is_queued_though_the_queue_is_full(redis: Redis, road: tuple[Proxy, str]) -> None:
    """Redis away at the end: the call says so, and the end is written when Redis is back."""
    proxy, url = road
    options = PublisherOptions(max_queue_events=2, flush_timeout=0.1)
    async with AgentEmitter("alice", "ex_1", redis_url=url, options=options) as emitter:
        with proxy.gone():
            await emitter.status("1", "")
            await emitter.text("x")
            with pytest.raises(RedisUnavailable):
                await emitter.execution_complete(1)
        assert not emitter.ended
    assert await types(redis) == ["status", "message:delta", "message:complete", "execution:complete"]


async def test_the_stack_is_kept_in_the_record_only(redis: Redis, emitter: AgentEmitter) -> None:
    """Clipped, without credentials, and free of what Redis could not take."""
    await emitter.execution_error("boom", code="c", stack="é\r\nghp_" + "a1" * 20 + " \ud800 " + "x" * 50_000)
    stack = (await redis.hget(KEYS.record, "stack")).decode()
    assert stack.startswith("é\r\n[redacted] \\ud800 xxx")
    assert len(stack) < 17_000
    assert (await stored(redis))[0]["data"] == {"error": "boom", "code": "c"}


# --- scopes ----------------------------------------------------------------------------------------------------------


async def test_a_tool_that_raises(redis: Redis, emitter: AgentEmitter) -> None:
    """`tool:error` with type and message, the phase stays open, and the exception goes on."""
    with pytest.raises(ZeroDivisionError):
        async with emitter.phase("p"), emitter.tool("t", {"a": 1}):
            raise ZeroDivisionError("by zero")
    await emitter.flush()
    log = await stored(redis)
    assert [event["type"] for event in log] == ["phase:start", "tool:start", "tool:error"]
    assert log[2]["data"]["error"] == "ZeroDivisionError: by zero"
    assert log[2]["data"]["callId"] == log[1]["data"]["callId"]
    assert log[2]["data"]["duration"] >= 0


async def test_a_tool_that_is_cancelled(redis: Redis, emitter: AgentEmitter) -> None:
    """It is told as such, and cancellation goes on."""
    inside = asyncio.Event()

    async def work() -> None:
        async with emitter.phase("p"), emitter.tool("t"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await emitter.flush()
    assert (await stored(redis))[-1]["data"]["error"] == "cancelled"


async def test_a_tool_whose_exception_has_no_form(redis: Redis, emitter: AgentEmitter) -> None:
    """Whatever the exception's text is, it is the tool's own exception that comes out."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    for error in (Odd(), OSError("half \ud800"), ValueError("x" * 200_000)):
        with pytest.raises(type(error)) as caught:
            async with emitter.tool("t"):
                raise error
        assert caught.value is error
    await emitter.flush()
    assert (await types(redis)).count("tool:error") == 3


async def test_a_tool_whose_result_has_no_form(redis: Redis, redis_url: str) -> None:
    """With `strict` the call is told to have failed, and the agent learns why."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, strict=True) as emitter:
        for result in (object(), "x" * 70_000):
            with pytest.raises((InvalidEvent, PayloadTooLarge)):
                async with emitter.tool("t") as call:
                    call.result = result
    assert await types(redis) == ["tool:start", "tool:error"] * 2


async def test_nested_and_parallel_tools_have_calls_of_their_own(redis: Redis, emitter: AgentEmitter) -> None:
    """Every call has an id, unique in the execution, also over attempts."""

    async def use(number: int) -> None:
        async with emitter.tool("t", number) as call:
            await asyncio.sleep(0)
            call.result = number

    await asyncio.gather(*(use(number) for number in range(10)))
    await emitter.flush()
    log = await stored(redis)
    params = {event["data"]["callId"]: event["data"]["params"] for event in log if event["type"] == "tool:start"}
    results = {event["data"]["callId"]: event["data"]["result"] for event in log if event["type"] == "tool:complete"}
    assert params == results
    assert len(params) == 10
    assert AgentEmitter("alice", "ex_1", attempt=2).new_id("call") not in params


async def test_an_event_may_be_somebody_elses(redis: Redis, redis_url: str) -> None:
    """Its envelope names the sub-agent and the call; chunks merge with those of the same speaker only, and the
    emitter's own keys stand where nothing else is given."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, agent="boss", request_id="r") as emitter:
        for text, speaker in (
            ("a", {}),
            ("b", {}),
            ("c", {"agent": "clerk", "parent_id": "c1"}),
            ("d", {"agent": "x"}),
        ):
            await emitter.emit(events.MessageDelta(message_id="m", delta=text), **speaker)
        for text in ("e", "f", "g" * 40_000):
            await emitter.emit(events.MessageDelta(message_id="n", delta=text), agent="clerk", parent_id="c1")
        await emitter.emit(events.Thinking(thought="t"), parent_id="c2")
        await emitter.thinking("u")
    found = await stored(redis)
    assert [(event.get("agent"), event.get("parentId")) for event in found] == [
        ("boss", None), ("clerk", "c1"), ("x", None), ("clerk", "c1"), ("clerk", "c1"), ("boss", "c2"), ("boss", None),
    ]  # fmt: skip
    assert [event["data"]["delta"][:2] for event in found[:5]] == ["ab", "c", "d", "ef", "gg"]
    assert {event["requestId"] for event in found} == {"r"}


async def test_a_speaker_that_cannot_be_named(emitter: AgentEmitter) -> None:
    """What is no text is refused, and nothing is stored."""
    with pytest.raises(InvalidEvent, match="agent"):
        await emitter.emit(events.Thinking(thought="t"), agent=5)  # type: ignore[arg-type]
