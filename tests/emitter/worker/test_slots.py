"""Which executions of a worker run, and which wait without a slot."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter.events import InputReceived
from emitter.publishing.waits import Waits, WaitsFor
from emitter.worker.agents import Agents, Context, SyncContext
from emitter.worker.slots import Slot, Slots
from tests.edges import eventually
from tests.emitter.worker.test_worker import (
    ALICE,
    accept,
    end_of,
    field,
    only,
    request_cancel,
    until,
    working,
    write,
)


def new(slots: Slots) -> Slot:
    slot = slots.take_new()
    assert slot is not None
    return slot


def never() -> bool:
    return False


async def until_done(*tasks: asyncio.Task[Any]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert all(task.done() for task in tasks)


# --- the rules ---


async def test_a_wait_gives_the_slot_back_and_takes_the_next_one() -> None:
    """Another execution has it meanwhile; the one whose wait ended goes on when that one ends."""
    slots = Slots(1, 10, lambda: None)
    first = new(slots)
    assert slots.free == 0
    first.give_back("person")
    second = new(slots)
    going_on = asyncio.create_task(first.take())
    await asyncio.sleep(0)
    assert (going_on.done(), slots.running, slots.waiting, slots.free) == (False, 1, 1, 0)
    second.end()
    assert await going_on
    assert (slots.running, slots.waiting, slots.free) == (1, 0, 0)


async def test_those_that_go_on_come_before_new_jobs_and_in_order() -> None:
    """A slot that is free belongs to the execution whose wait ended first."""
    slots = Slots(1, 10, lambda: None)
    order: list[str] = []
    waiting: dict[str, Slot] = {}
    for name in ("a", "b"):
        waiting[name] = new(slots)
        waiting[name].give_back("person")
    running = new(slots)

    async def go_on(name: str) -> None:
        await waiting[name].take()
        order.append(name)
        waiting[name].end()

    tasks = [asyncio.create_task(go_on(name)) for name in ("b", "a")]
    await asyncio.sleep(0)
    running.end()
    assert slots.free == 0
    await until_done(*tasks)
    assert (order, slots.free) == (["b", "a"], 1)


def test_a_worker_with_too_many_waiting_executions_takes_no_job() -> None:
    """But one at a time where they wait for other executions, which may be among the jobs."""
    slots = Slots(2, 2, lambda: None)
    first, second = new(slots), new(slots)
    first.give_back("person")
    second.give_back("person")
    assert slots.free == 0
    second.give_back("child")
    assert slots.free == 1
    third = new(slots)
    assert slots.free == 0
    third.end()
    first.end()
    assert slots.free == 2


def test_what_an_ended_execution_leaves_behind_takes_no_slot() -> None:
    """Nor does it count as waiting."""
    slots = Slots(1, 1, lambda: None)
    slot = new(slots)
    slot.end()
    slot.give_back("person")
    slot.end()
    assert (slots.running, slots.waiting, slots.free) == (0, 0, 1)


async def test_a_wait_that_is_broken_off_does_not_wait_for_long() -> None:
    """Nor one that ended, if its caller is cancelled while it is in the line. The limit holds again after it."""
    slots, waits = Slots(1, 10, lambda: None), Waits()
    own = new(slots)
    waits.use(own, never)

    async def wait(*, is_broken_off: bool) -> None:
        async with waits.apart("child") as begin:
            begin()
            other = new(slots)
            others.append(other)
            if is_broken_off:
                raise TimeoutError

    for is_broken_off in (True, False):
        others: list[Slot] = []
        waiting = asyncio.create_task(wait(is_broken_off=is_broken_off))
        await asyncio.sleep(0.05)
        if not is_broken_off:
            waiting.cancel()
        done, _ = await asyncio.wait((waiting,), timeout=5)
        assert done
        with pytest.raises((TimeoutError, asyncio.CancelledError)):
            waiting.result()
        assert (slots.running, slots.waiting, slots.free) == (2, 0, 0)
        others[0].end()
        assert (slots.running, slots.free) == (1, 0)
    own.end()
    assert (slots.running, slots.free) == (0, 1)


async def test_who_waits_on_for_a_person_does_not_count_as_waiting_for_another_execution() -> None:
    """Beyond its limit a worker takes jobs for those that wait for other executions only."""
    slots, waits = Slots(1, 1, lambda: None), Waits()
    waits.use(new(slots), never)
    async with waits.apart("person") as begin_person:
        begin_person()
        assert slots.free == 0
        async with waits.apart("child") as begin_child:
            begin_child()
            begin_person()
            assert slots.free == 1
        assert slots.free == 0
    assert (slots.running, slots.waiting) == (1, 0)


async def test_the_slot_is_taken_again_after_the_last_of_several_waits() -> None:
    """A `gather` of children at concurrency 1 must not keep the slot that the second child needs."""
    slots, waits = Slots(1, 10, lambda: None), Waits()
    waits.use(new(slots), never)
    ends = [asyncio.Event(), asyncio.Event()]

    async def wait(end: asyncio.Event) -> None:
        async with waits.apart("child") as begin:
            begin()
            await end.wait()

    tasks = [asyncio.create_task(wait(end)) for end in ends]
    await asyncio.sleep(0)
    ends[0].set()
    await until_done(tasks[0])
    assert (slots.running, slots.free) == (0, 1)
    ends[1].set()
    await until_done(tasks[1])
    assert slots.running == 1


async def test_a_branch_that_waits_again_frees_those_that_stand_in_line() -> None:
    """Two branches end their waits together and ask for the slot; one waits again at once. Neither must keep it."""
    slots, waits = Slots(1, 10, lambda: None), Waits()
    waits.use(new(slots), never)
    first, second, never_set = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(end: asyncio.Event) -> None:
        async with waits.apart("child") as begin:
            begin()
            await end.wait()

    tasks = [asyncio.create_task(wait(end)) for end in (first, second)]
    await asyncio.sleep(0)
    other = new(slots)
    first.set()
    second.set()
    await asyncio.sleep(0)
    again = asyncio.create_task(wait(never_set))
    await until_done(*tasks)
    other.end()
    assert (slots.running, slots.free) == (0, 1)
    again.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await again
    assert slots.running == 1


async def test_an_agent_with_a_timeout_of_its_own_has_a_slot_when_it_goes_on() -> None:
    """The timeout fires while another execution has the slot: the agent goes on only when that one has ended."""
    slots, waits = Slots(1, 10, lambda: None), Waits()
    waits.use(new(slots), never)
    gone_on = asyncio.Event()

    async def agent() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01), waits.apart("person") as begin:
                begin()
                await asyncio.Event().wait()
        gone_on.set()

    task = asyncio.create_task(agent())
    await asyncio.sleep(0)
    other = new(slots)
    await asyncio.sleep(0.05)
    assert not gone_on.is_set()
    other.end()
    await until_done(task)
    assert slots.running == 1


async def test_an_agent_that_must_stop_waits_for_no_slot() -> None:
    """Its cancellation is raised at once."""
    slots, waits, must_stop = Slots(1, 10, lambda: None), Waits(), asyncio.Event()
    waits.use(new(slots), must_stop.is_set)

    async def agent() -> None:
        async with waits.apart("person") as begin:
            begin()
            await asyncio.Event().wait()

    task = asyncio.create_task(agent())
    await asyncio.sleep(0)
    new(slots)
    must_stop.set()
    task.cancel()
    await until_done(task)
    assert task.cancelled()


# --- a worker ---


async def input_of(redis: Redis, execution_id: str) -> str:
    """Wait for an open question."""
    async with asyncio.timeout(10):
        while not (ids := (await field(redis, "open", execution_id)).split()):
            await asyncio.sleep(0.01)
    return ids[0]


async def give(redis: Redis, execution_id: str) -> None:
    answer = InputReceived(input_id=await input_of(redis, execution_id), by="bob", value=True)
    await write(redis, execution_id, answer)


@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
async def test_open_questions_fill_no_worker(redis: Redis, redis_url: str, is_sync: bool) -> None:
    """A worker of one with ten open questions runs an eleventh execution; all answered at once, one runs at a time."""
    running = peak = 0
    lock = threading.Lock()

    def change(by: int) -> None:
        nonlocal running, peak
        with lock:
            running += by
            peak = max(peak, running)

    async def asker(context: Context) -> bool:
        answer = await context.ask("Well?")
        change(1)
        await asyncio.sleep(0.01)
        change(-1)
        return bool(answer)

    def sync_asker(context: SyncContext) -> bool:
        answer = context.ask("Well?")
        change(1)
        threading.Event().wait(0.01)
        change(-1)
        return bool(answer)

    async def quick(context: Context) -> str:
        return "ran"

    agents = Agents()
    agents.agent("asker")(sync_asker if is_sync else asker)
    agents.agent("quick")(quick)
    ids = [await accept(redis, "asker", f"ex_{n}") for n in range(10)]
    async with working(agents, redis_url, concurrency=1) as worker:
        for execution_id in ids:
            await input_of(redis, execution_id)
        await eventually("ten that wait", lambda: (worker.running, worker.waiting) == (0, 10))
        assert (worker.info.running, worker.info.waiting) == (0, 10)
        await accept(redis, "quick", "ex_11")
        assert (await end_of(redis, "ex_11")).result == "ran"
        await asyncio.gather(*(give(redis, execution_id) for execution_id in ids))
        for execution_id in ids:
            assert (await end_of(redis, execution_id)).result is True
        await eventually("free slots", lambda: (worker.running, worker.waiting) == (0, 0))
    assert peak == 1


async def test_at_its_limit_of_waiting_executions_a_worker_leaves_jobs_to_others(redis: Redis, redis_url: str) -> None:
    """Until one of them goes on and ends."""

    async def asker(context: Context) -> bool:
        return bool(await context.ask("Well?"))

    for n in range(3):
        await accept(redis, "agent", f"ex_{n}")
    async with working(only(asker), redis_url, concurrency=1, max_waiting=2) as worker:
        await input_of(redis, "ex_0")
        await input_of(redis, "ex_1")
        await eventually("both wait", lambda: worker.waiting == 2)
        await asyncio.sleep(0.3)
        assert (await field(redis, "state", "ex_2"), worker.waiting) == ("queued", 2)
        await give(redis, "ex_0")
        await input_of(redis, "ex_2")
        for execution_id in ("ex_1", "ex_2"):
            await give(redis, execution_id)
            await end_of(redis, execution_id)


async def test_a_question_with_its_answer_keeps_the_slot(redis: Redis, redis_url: str) -> None:
    """A retry gets the earlier answer at once, and does not stand in line for it."""
    given_back: list[int] = []

    class Spy(Slot):
        def give_back(self, waits_for: WaitsFor) -> None:
            given_back.append(attempts[-1])

    attempts: list[int] = []

    async def agent(context: Context) -> bool:
        attempts.append(context.attempt)
        context.emitter.waits.use(Spy(Slots(1, 1, lambda: None)), never)
        answer = await context.ask("Well?")
        if context.attempt == 1:
            raise ConnectionError("once more")
        return bool(answer)

    await accept(redis, "agent")
    async with working(only(agent), redis_url, concurrency=1):
        await give(redis, "ex_1")
        assert (await end_of(redis)).result is True
    assert (attempts, given_back) == ([1, 2], [1])


async def test_a_cancel_reaches_one_that_stands_in_line(redis: Redis, redis_url: str) -> None:
    """Its answer has come, and another execution has the only slot: the cancel ends it all the same."""
    release = asyncio.Event()

    async def asker(context: Context) -> bool:
        return bool(await context.ask("Well?"))

    async def holder(context: Context) -> None:
        await context.emitter.status("holding", "it")
        await release.wait()

    agents = only(asker)
    agents.agent("holder")(holder)
    await accept(redis, "agent")
    async with working(agents, redis_url, concurrency=1) as worker:
        await input_of(redis, "ex_1")
        await accept(redis, "holder", "ex_2")
        await until(redis, "status", execution_id="ex_2")
        await give(redis, "ex_1")
        await asyncio.sleep(0.1)
        assert (worker.running, worker.waiting) == (1, 1)
        await request_cancel(redis, "ex_1")
        assert (await end_of(redis)).by == "alice"
        release.set()
        await end_of(redis, "ex_2")


async def test_a_stopping_worker_hands_waiting_executions_over(redis: Redis, redis_url: str) -> None:
    """After its grace period; the next worker asks nothing again that was answered, and ends it."""

    async def asker(context: Context) -> int:
        await context.ask("Well?")
        return context.attempt

    await accept(redis, "agent")
    async with working(only(asker), redis_url, concurrency=1, grace_seconds=0.2):
        await input_of(redis, "ex_1")
    assert await field(redis, "state") == "queued"
    async with working(only(asker), redis_url, concurrency=1):
        await give(redis, "ex_1")
        assert (await end_of(redis)).result == 2
    assert await redis.exists(ALICE.execution("ex_1").record)
