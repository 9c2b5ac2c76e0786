"""The blocking emitter: the same log, from threads."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter import AgentEmitter, SyncAgentEmitter
from emitter.errors import EmitterClosed, EventsLost, ExecutionEnded, InputExpired, InvalidEvent, PayloadTooLarge
from emitter.publishing.outbox import PublisherOptions
from emitter.wire.keys import Owner

KEYS = Owner("alice").execution("ex_1")


async def stored(redis: Redis) -> list[dict[str, Any]]:
    return [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(KEYS.log)]


def emitter_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "runcast-emitter"]


async def test_the_tour(redis: Redis, redis_url: str) -> None:
    """Scopes, text, errors and an end, as of the asynchronous one; the thread ends with the block."""

    def agent() -> None:
        with SyncAgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
            assert emitter.owner == Owner("alice")
            assert emitter.execution_id == "ex_1"
            emitter.execution_started("t")
            with emitter.phase("p", "P"), emitter.tool("t", {"a": 1}) as call:
                call.progress(50)
                call.result = 5
            with pytest.raises(ZeroDivisionError), emitter.phase("q"), emitter.tool("t"):
                raise ZeroDivisionError("by zero")
            emitter.text("Hello")
            emitter.end_text()
            emitter.execution_complete({"ok": True})
            assert emitter.ended

    await asyncio.to_thread(agent)
    log = await stored(redis)
    assert [event["type"] for event in log] == [
        "execution:started", "phase:start", "tool:start", "tool:progress", "tool:complete", "phase:complete",
        "phase:start", "tool:start", "tool:error", "message:delta", "message:complete", "execution:complete",
    ]  # fmt: skip
    assert log[8]["data"]["error"] == "ZeroDivisionError: by zero"
    assert emitter_threads() == []


async def test_many_threads(redis: Redis, redis_url: str) -> None:
    """Every event of every thread is stored once, each thread's in its order."""

    def work(number: int) -> None:
        for step in range(30):
            emitter.status(str(number), str(step))
        with emitter.tool("t", number) as call:
            call.result = number

    emitter = await asyncio.to_thread(SyncAgentEmitter, "alice", "ex_1", redis_url=redis_url)
    with ThreadPoolExecutor(8) as pool:
        await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, work, n) for n in range(8)))
    await asyncio.to_thread(emitter.close)
    log = await stored(redis)
    for number in range(8):
        mine = [event["data"]["message"] for event in log if event["data"].get("status") == str(number)]
        assert mine == [str(step) for step in range(30)]
    assert len({event["data"]["callId"] for event in log if event["type"] == "tool:start"}) == 8


async def test_errors_reach_the_caller(redis: Redis, redis_url: str) -> None:
    """Those at the call, those of the log, those of birth."""

    def agent() -> None:
        with SyncAgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
            with pytest.raises(InvalidEvent):
                emitter.input_required("a b", "p", "text")
            with pytest.raises(PayloadTooLarge):
                emitter.ask("x" * 70_000)
            with pytest.raises(InputExpired):
                emitter.ask("Go?", expires_in=0.05)
            emitter.execution_complete()
            with pytest.raises(ExecutionEnded):
                emitter.status("x", "")
        with pytest.raises(InvalidEvent):
            SyncAgentEmitter("a\nb", "ex_1", redis_url=redis_url)
        with pytest.raises(TypeError):
            SyncAgentEmitter("alice", "ex_1", nonsense=1)

    await asyncio.to_thread(agent)
    assert emitter_threads() == []


async def test_after_closing_every_call_says_so(redis: Redis, redis_url: str) -> None:
    """From any number of threads that close and emit at the same time, each returns or raises; none hangs."""
    for _ in range(10):
        emitter = await asyncio.to_thread(SyncAgentEmitter, "alice", "ex_1", redis_url=redis_url)
        start = threading.Barrier(6)

        def emit(emitter: SyncAgentEmitter = emitter, start: threading.Barrier = start) -> str:
            start.wait()
            try:
                while True:
                    emitter.status("x", "")
            except EmitterClosed:
                return "closed"

        def close(emitter: SyncAgentEmitter = emitter, start: threading.Barrier = start) -> str:
            start.wait()
            emitter.close()
            emitter.close()
            return "done"

        with ThreadPoolExecutor(6) as threads:  # on one CPU the loop's own has fewer
            calls = [asyncio.get_running_loop().run_in_executor(threads, each) for each in [emit] * 3 + [close] * 3]
            assert await asyncio.wait_for(asyncio.gather(*calls), 10) == ["closed"] * 3 + ["done"] * 3
        with pytest.raises(EmitterClosed, match="ex_1"):
            emitter.thinking("x")
    assert emitter_threads() == []


async def test_closing_ends_a_question_of_another_thread(redis: Redis, redis_url: str) -> None:
    """A thread that waits for an answer is told that there will be none."""
    emitter = await asyncio.to_thread(SyncAgentEmitter, "alice", "ex_1", redis_url=redis_url)
    question = asyncio.create_task(asyncio.to_thread(emitter.ask, "Go?"))
    async with asyncio.timeout(5):
        while await redis.hget(KEYS.record, "state") != b"waiting_input":
            await asyncio.sleep(0.01)
    await asyncio.to_thread(emitter.close)
    with pytest.raises(EmitterClosed):
        await asyncio.wait_for(question, 5)


async def test_closing_in_vain_tells_the_loss_and_ends_the_thread(tmp_path: Any) -> None:
    """The count, as of the asynchronous one."""

    def agent() -> None:
        options = PublisherOptions(close_timeout=0.1)
        emitter = SyncAgentEmitter("alice", "ex_1", redis_url=f"unix://{tmp_path}/nobody", options=options)
        emitter.status("1", "")
        with pytest.raises(EventsLost) as caught:
            emitter.close()
        assert caught.value.count == 1

    def failing() -> None:
        options = PublisherOptions(close_timeout=0.1)
        with SyncAgentEmitter("alice", "ex_1", redis_url=f"unix://{tmp_path}/nobody", options=options) as emitter:
            emitter.status("1", "")
            raise ZeroDivisionError

    await asyncio.to_thread(agent)
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(failing)
    assert emitter_threads() == []


async def test_a_blocking_call_on_the_emitters_own_loop_says_so(redis: Redis, redis_url: str) -> None:
    """It would wait for itself for ever; it raises instead. From a thread the same emitter works."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        blocking = SyncAgentEmitter.over(emitter, asyncio.get_running_loop())
        with pytest.raises(RuntimeError, match="AgentEmitter"):
            blocking.thinking("x")
        await asyncio.to_thread(blocking.thinking, "y")
        blocking.close()  # is its owner's
        await asyncio.to_thread(blocking.thinking, "z")
    assert [event["data"]["thought"] for event in await stored(redis)] == ["y", "z"]


async def test_an_interrupted_wait_is_given_up(redis: Redis, redis_url: str) -> None:
    """Ctrl-C in a question ends it: the emitter closes without waiting for an answer."""

    class Interrupt(BaseException):
        pass

    def agent() -> None:
        emitter = SyncAgentEmitter("alice", "ex_1", redis_url=redis_url)
        real = asyncio.run_coroutine_threadsafe

        def interrupted(work: Any, loop: Any) -> Any:
            future = real(work, loop)
            future.result = lambda: (_ for _ in ()).throw(Interrupt())  # type: ignore[method-assign]
            futures.append(future)
            return future

        futures: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
            with pytest.raises(Interrupt):
                emitter.ask("Go?")
        assert futures[0].cancelled()
        emitter.close()

    await asyncio.to_thread(agent)
    assert emitter_threads() == []


@pytest.mark.parametrize("patched", ["threading", "select"])
def test_gevents_threads_are_named(monkeypatch: pytest.MonkeyPatch, patched: str) -> None:
    """Under gevent's monkey patching it cannot be opened, and says so instead of something about event loops."""
    monkey = types.ModuleType("gevent.monkey")
    monkey.is_module_patched = lambda name: name == patched  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    with pytest.raises(RuntimeError, match="gevent has replaced"):
        SyncAgentEmitter("alice", "ex_1")
    assert emitter_threads() == []
