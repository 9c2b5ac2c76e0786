"""Executions that agents start: what they return, that each is started once, and what ends with what."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import ChildFailed, TooManyChildren, UnknownAgent
from emitter.errors import PayloadTooLarge, UnknownExecution
from emitter.events import ChildEnded, ChildStarted, ExecutionComplete, Usage
from emitter.store.append import LogLimits
from emitter.store.connection import connect
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.redact import Redactor
from emitter.worker.agents import Agents, Context, SyncContext
from tests.edges import under_load
from tests.emitter.worker.test_worker import (
    ALICE,
    accept,
    end_of,
    events_of,
    field,
    forever,
    request_cancel,
    types_of,
    until,
    working,
    write,
)

TREE_SECONDS = 10.0
"""A bound for a busy machine; the target is 2 s."""


async def echo(context: Context) -> dict[str, Any]:
    await context.emitter.usage(input_tokens=10, output_tokens=5, cost_usd=0.5, model="m")
    return {"task": context.task, "params": context.params}


async def fail(context: Context) -> None:
    raise KeyError("no such thing")


def family(parent: Any, **options: Any) -> Agents:
    agents = Agents()
    agents.agent("agent", **options)(parent)
    agents.agent("echo")(echo)
    agents.agent("fail", retry_on=())(fail)
    agents.agent("forever")(forever)
    return agents


async def run(parent: Any, redis: Redis, url: str, **changes: Any) -> Any:
    await accept(redis, "agent")
    async with working(family(parent), url, **{"concurrency": 1, **changes}):
        return await end_of(redis)


def of_children(events: list[tuple[str, Any]]) -> list[Any]:
    return [event for type_, event in events if type_.startswith("child:")]


async def child_of(redis: Redis, execution_id: str = "ex_1") -> str:
    started: ChildStarted = await until(redis, "child:started", execution_id=execution_id)
    return started.execution_id


# --- start, wait -----------------------------------------------------------------------------------------------------


async def test_children_of_one_millisecond_are_in_the_order_of_their_starts(redis: Redis) -> None:
    await accept(redis, "agent")
    children = Lifecycle(redis, LogLimits(), Redactor()).children
    above = await children.parentage(ALICE, "ex_1")
    names = [f"ex_{number}" for number in range(99, 49, -1)]
    for name in names:
        await children.adopt(ALICE, above, name, 0)
    assert await redis.zrange(ALICE.execution("ex_1").children, 0, -1) == [name.encode() for name in names]


async def test_a_parent_gets_what_its_child_returned(redis: Redis, redis_url: str) -> None:
    """At concurrency 1: the wait gives the slot to the child. The parent's log has its beginning, end and usage."""

    async def parent(context: Context) -> Any:
        await context.emitter.thinking("Whom to ask?")
        child = await context.start("echo", "Say it", params={"n": 1}, key="first")
        return await child.result()

    assert (await run(parent, redis, redis_url)).result == {"task": "Say it", "params": {"n": 1}}
    assert (await types_of(redis))[2:] == ["thinking", "child:started", "child:ended", "execution:complete"]
    started, ended = of_children(await events_of(redis))
    child = started.execution_id
    assert started == ChildStarted(execution_id=child, agent="echo", task="Say it", key="first")
    usage = Usage(input_tokens=10, output_tokens=5, total_tokens=15, cost_usd=0.5, model="m")
    summary = '{"task":"Say it","params":{"n":1}}'
    assert ended == ChildEnded(execution_id=child, state="completed", summary=summary, usage=usage)
    names = ("parent", "root", "depth", "childKey")
    assert [await field(redis, name, child) for name in names] == ["ex_1", "ex_1", "1", "first"]
    assert [await field(redis, name) for name in ("children", "descendants")] == ["1", "1"]


async def test_a_sync_agent_blocks_for_its_child(redis: Redis, redis_url: str) -> None:
    """`start`, `result` and `call` block its thread, and its slot is free meanwhile."""

    def parent(context: SyncContext) -> Any:
        child = context.start("echo", "one")
        return [child.result()["task"], context.call("echo", "two", timeout=10)["task"]]

    assert (await run(parent, redis, redis_url)).result == ["one", "two"]


async def test_children_run_beside_each_other_and_of_their_children(redis: Redis, redis_url: str) -> None:
    """A `gather` of children that have children, at concurrency 1; usage sums upward to the root."""

    async def middle(context: Context) -> Any:
        await context.emitter.usage(input_tokens=1, output_tokens=1)
        return await context.call("echo", context.task)

    async def parent(context: Context) -> Any:
        children = [await context.start("middle", task) for task in "abc"]
        return [found["task"] for found in await asyncio.gather(*(child.result() for child in children))]

    await accept(redis, "agent")
    agents = family(parent)
    agents.agent("middle")(middle)
    async with working(agents, redis_url, concurrency=1):
        assert (await end_of(redis)).result == ["a", "b", "c"]
    events = of_children(await events_of(redis))
    ended = [event for event in events if isinstance(event, ChildEnded)]
    assert [(event.state, event.usage.total_tokens) for event in ended if event.usage] == [("completed", 17)] * 3
    assert await field(redis, "descendants") == "6"
    grandchild = await child_of(redis, ended[0].execution_id)
    assert [await field(redis, name, grandchild) for name in ("root", "depth")] == ["ex_1", "2"]


async def test_the_failure_of_a_child_is_raised_with_its_error(redis: Redis, redis_url: str) -> None:
    """And that of one that was cancelled with its reason."""

    async def parent(context: Context) -> Any:
        failed = await context.start("fail", "x")
        cancelled = await context.start("forever", "x")
        await cancelled.cancel("not needed")
        found = []
        for child in (failed, cancelled):
            with pytest.raises(ChildFailed) as caught:
                await child.result()
            found.append([caught.value.state, caught.value.error, caught.value.code])
        return found

    end = await run(parent, redis, redis_url)
    assert end.result == [["failed", "KeyError: 'no such thing'", "agent_error"], ["cancelled", "not needed", None]]
    ended = [event for event in of_children(await events_of(redis)) if isinstance(event, ChildEnded)]
    assert {(event.state, event.summary) for event in ended} == {
        ("failed", "KeyError: 'no such thing'"),
        ("cancelled", "not needed"),
    }


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_wait_may_have_a_limit(redis: Redis, redis_url: str, concurrency: int) -> None:
    """`TimeoutError`; the child goes on, and can be waited for again. Also if the child has the only slot."""

    async def parent(context: Context) -> str:
        child = await context.start("forever", "x")
        try:
            await child.result(timeout=2)
        except TimeoutError:
            return "late"
        return "early"

    assert (await run(parent, redis, redis_url, concurrency=concurrency)).result == "late"


async def test_what_cannot_be_started_says_why(redis: Redis, redis_url: str) -> None:
    """And leaves nothing in the log."""

    async def parent(context: Context) -> list[str]:
        found = []
        for options in ({"agent": "nobody"}, {"agent": "echo", "key": ""}, {"agent": "echo", "on_parent_end": "stay"}):
            try:
                await context.start(task="x", **options)
            except Exception as error:
                found.append(f"{type(error).__name__}: {error}")
        return found

    assert (await run(parent, redis, redis_url)).result == [
        "UnknownAgent: no worker knows an agent 'nobody'",
        "InvalidEvent: key: '' is not a text of 1 to 128",
        "InvalidEvent: on_parent_end: 'stay' is not cancel or detach",
    ]
    assert of_children(await events_of(redis)) == []


async def test_a_child_that_cannot_be_stored_leaves_nothing_with_its_parent(redis: Redis, redis_url: str) -> None:
    """Neither in its log, where it would never end, nor in its number of children."""

    async def parent(context: Context) -> str:
        with pytest.raises(PayloadTooLarge):
            await context.start("echo", "x" * (LogLimits().max_event_bytes + 1))
        return "refused"

    assert (await run(parent, redis, redis_url)).result == "refused"
    assert of_children(await events_of(redis)) == []
    assert await field(redis, "children") == ""


def test_an_unknown_agent_says_which_there_are() -> None:
    assert UnknownAgent("x", {"b", "a"}).known == ["a", "b"]


# --- started once ----------------------------------------------------------------------------------------------------


async def test_a_retried_parent_finds_its_children(redis: Redis, redis_url: str) -> None:
    """By key, or by agent, task and number; their events are in the log once."""
    runs: list[str] = []

    async def counted(context: Context) -> int:
        runs.append(context.task)
        return len(runs)

    async def parent(context: Context) -> Any:
        children = [await context.start("counted", "same") for _ in range(2)]
        children.append(await context.start("counted", f"attempt {context.attempt}", key="named"))
        results = [await child.result() for child in children]
        if context.attempt < 3:
            raise ConnectionError("again")
        return sorted(results)

    await accept(redis, "agent")
    agents = family(parent)
    agents.agent("counted")(counted)
    async with working(agents, redis_url, concurrency=1):
        assert (await end_of(redis)).result == [1, 2, 3]
    assert sorted(runs) == ["attempt 1", "same", "same"]
    types = [type_ for type_ in await types_of(redis) if type_.startswith("child:")]
    assert sorted(types) == ["child:ended"] * 3 + ["child:started"] * 3


async def test_a_start_that_failed_has_no_number(redis: Redis, redis_url: str) -> None:
    """An attempt that started a child at its second try, and one that did so at its first, have the same child."""

    async def parent(context: Context) -> Any:
        if context.attempt == 1:
            with pytest.raises(TypeError):
                await context.start("echo", "same", params={"n": object()})
        child = await context.start("echo", "same")
        other = await context.start("echo", "same")
        assert (await child.result())["task"] == "same"
        if context.attempt == 1:
            raise ConnectionError("again")
        return [child.execution_id, other.execution_id]

    agents = family(parent)
    await accept(redis, "agent")
    async with working(agents, redis_url, concurrency=1):
        found = (await end_of(redis)).result
    started = [event for event in of_children(await events_of(redis)) if isinstance(event, ChildStarted)]
    assert sorted(event.execution_id for event in started) == sorted(found)


async def test_a_start_waits_for_redis(own_redis: EmbeddedRedis) -> None:
    """Also longer than for one reply; the child is started once."""
    back = asyncio.Event()

    async def parent(context: Context) -> Any:
        await back.wait()
        child = await context.start("echo", "same")
        return [(await child.result())["task"], context.attempt]

    client = connect(own_redis.url, timeout=20)
    try:
        await accept(client, "agent")
        async with working(family(parent), own_redis.url, concurrency=1, lease_seconds=20):
            await until(client, "execution:started")
            await client.execute_command("CLIENT", "PAUSE", "7000", "ALL")
            back.set()
            assert (await end_of(client)).result == ["same", 1]
        types = [type_ for type_ in await types_of(client) if type_.startswith("child:")]
        assert types == ["child:started", "child:ended"]
    finally:
        await client.aclose()


async def test_a_child_that_a_failover_lost_is_started_again(redis: Redis, redis_url: str) -> None:
    """One whose record has expired after its end is not."""

    async def parent(context: Context) -> Any:
        child = await context.start("echo", "same")
        keys = ALICE.execution(child.execution_id)
        await redis.delete(keys.record, keys.log)
        found = await child.result()
        await redis.delete(keys.record, keys.log)
        with pytest.raises(UnknownExecution):
            await child.result()
        return found["task"]

    assert (await run(parent, redis, redis_url)).result == "same"
    types = [type_ for type_ in await types_of(redis) if type_.startswith("child:")]
    assert types == ["child:started", "child:ended"]


async def test_a_child_that_ended_unseen_is_told_before_its_parents_end(redis: Redis, redis_url: str) -> None:
    """Whoever ended it was killed before it could say so; the parent does not wait for it."""

    async def parent(context: Context) -> str:
        child = await context.start("other", "x")
        complete = ExecutionComplete(result="done", duration=0)
        await write(redis, child.execution_id, complete)  # and nothing else, as by an older version
        return "parent"

    await accept(redis, "agent")
    agents = family(parent)
    # Known, but without a worker that takes it.
    await redis.zadd("rc:{jobs}:agents", {"other": int(time.time() * 1000)})
    async with working(agents, redis_url):
        await end_of(redis)
    assert (await types_of(redis))[2:] == ["child:started", "child:ended", "execution:complete"]


# --- what ends with what ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["complete", "error", "cancelled", "timeout"])
async def test_attached_children_end_with_their_parent(redis: Redis, redis_url: str, how: str) -> None:
    """However it ends; a detached one goes on."""

    async def parent(context: Context) -> None:
        await context.start("forever", "attached")
        await context.start("forever", "detached", on_parent_end="detach")
        await context.emitter.status("both", "started")
        if how == "error":
            raise ValueError("no")
        if how != "complete":
            await asyncio.Event().wait()

    await accept(redis, "agent")
    async with working(family(parent, time_limit=4.0 if how == "timeout" else None), redis_url, concurrency=5):
        await until(redis, "status")
        attached, detached = (event.execution_id for event in of_children(await events_of(redis)))
        if how == "cancelled":
            await request_cancel(redis, "ex_1")
        await end_of(redis)
        end = await end_of(redis, attached)
        assert (end.reason, end.by) == ("its parent has ended", "system:parent")
        assert await field(redis, "state", detached) in ("queued", "running")
        await request_cancel(redis, detached)
        await end_of(redis, detached)


async def test_a_cancelled_parent_may_cancel_its_children_itself(redis: Redis, redis_url: str) -> None:
    """In its `finally`, with words of its own."""

    async def parent(context: Context) -> None:
        child = await context.start("forever", "x")
        try:
            await child.result()
        finally:
            await child.cancel("not needed")

    await accept(redis, "agent")
    async with working(family(parent), redis_url, concurrency=2, cancel_grace_seconds=20.0):  # its cancel takes time
        child = await child_of(redis)
        await until(redis, "execution:started", execution_id=child)
        await request_cancel(redis, "ex_1")
        assert (await end_of(redis, child)).reason == "not needed"


async def test_children_of_a_lost_parent_end_with_it(redis: Redis, redis_url: str) -> None:
    """The reaper ends the parent, whose workers were lost too often, and then its children."""
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    await accept(redis, "agent", owner="w_1", attempt="1", maxAttempts="1", lease="1")
    above = await lifecycle.children.parentage(ALICE, "ex_1")
    await lifecycle.start_child(ALICE, "ex_2", Start(task="x", agent="forever", above=above))
    assert await lifecycle.lose(ALICE, "ex_1") == "ended"
    assert (await end_of(redis, "ex_2")).by == "system:parent"


async def test_the_reaper_ends_children_that_were_left(redis: Redis, redis_url: str) -> None:
    """The process that ended the parent was killed at once, or is of an older version."""
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    await accept(redis, "other")
    above = await lifecycle.children.parentage(ALICE, "ex_1")
    for child, agent in (("ex_2", "forever"), ("ex_3", "other")):
        await lifecycle.start_child(ALICE, child, Start(task="x", agent=agent, above=above))
    async with working(family(echo), redis_url, lease_seconds=1.0):
        await until(redis, "execution:started", execution_id="ex_2")
        await write(redis, "ex_1", ExecutionComplete(result=None, duration=0))
        assert (await end_of(redis, "ex_2")).by == "system:parent"
        await redis.zadd("rc:{jobs}:due", {"acme:alice:ex_3": 1})
        assert (await end_of(redis, "ex_3")).by == "system:parent"


async def test_a_tree_of_forty_is_cancelled_at_once(redis: Redis, redis_url: str) -> None:
    """Three levels below the root, on two workers; the time is printed."""

    async def parent(context: Context) -> None:
        depth = context.params.get("depth", 0)
        number = {0: 4, 1: 3, 2: 2}.get(depth, 0)
        children = [await context.start("agent", f"{n}", params={"depth": depth + 1}) for n in range(number)]
        await asyncio.gather(*(child.result() for child in children))
        await asyncio.Event().wait()

    agents = Agents()
    agents.agent("agent")(parent)
    await accept(redis, "agent")
    async with working(agents, redis_url, concurrency=25), working(agents, redis_url, concurrency=25):
        async with asyncio.timeout(30):
            while len(index := [name.decode() for name in await redis.zrange(ALICE.index, 0, -1)]) < 41:
                await asyncio.sleep(0.02)
        assert await field(redis, "descendants") == "40"
        for execution_id in index:
            await until(redis, "execution:started", execution_id=execution_id)
        started = time.monotonic()
        await request_cancel(redis, "ex_1")
        async with asyncio.timeout(under_load(TREE_SECONDS)):
            for execution_id in index:
                await end_of(redis, execution_id)
        print(f"41 executions ended in {time.monotonic() - started:.2f} s")
    assert {await field(redis, "state", execution_id) for execution_id in index} == {"cancelled"}


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_the_size_and_the_depth_of_a_tree_are_bounded(redis: Redis) -> None:
    """The errors name the settings; a repeat of a child that there is stays allowed."""
    lifecycle = Lifecycle(redis, LogLimits(max_children=2, max_child_depth=2), Redactor())
    await accept(redis, "agent")

    async def start(parent: str, child: str) -> None:
        above = await lifecycle.children.parentage(ALICE, parent)
        await lifecycle.start_child(ALICE, child, Start(task="x", agent="echo", above=above))

    await start("ex_1", "ex_2")
    await start("ex_2", "ex_3")
    with pytest.raises(TooManyChildren, match=r"ex_3 may start no other: 2 levels are the limit .RUNCAST_MAX_CHILD_"):
        await start("ex_3", "ex_4")
    with pytest.raises(TooManyChildren, match=r"2 executions below its root are the limit .RUNCAST_MAX_CHILDREN."):
        await start("ex_2", "ex_4")
    await start("ex_1", "ex_2")
    assert await redis.exists(ALICE.execution("ex_4").record) == 0
